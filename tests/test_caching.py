"""What is kept, and what goes."""

from __future__ import annotations

from jupyter_nbexec.caching import Cache


def test_the_one_not_asked_for_the_longest_goes() -> None:
    """When there is no room, what was asked for, or put there, the longest ago goes first."""
    cache: Cache[str] = Cache(10)
    cache.put("a", "A", 4)
    cache.put("b", "B", 4)
    assert cache.get("a") == "A"
    cache.put("c", "C", 4)

    assert [cache.get(key) for key in "abc"] == ["A", None, "C"]


def test_another_value_takes_the_place() -> None:
    """A key has one value, and what that had is free again."""
    cache: Cache[str] = Cache(10)
    for value in ("x", "y", "z"):
        cache.put("a", value, 6)
    cache.put("b", "B", 4)

    assert (cache.get("a"), cache.get("b")) == ("z", "B")


def test_what_is_too_large_is_not_kept() -> None:
    """It takes no other's room; what its key had before is wrong, and goes."""
    cache: Cache[str] = Cache(10)
    cache.put("a", "A", 4)
    cache.put("b", "B", 4)
    cache.put("b", "large", 11)

    assert (cache.get("a"), cache.get("b")) == ("A", None)
