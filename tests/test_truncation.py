"""Texts that are too long: what is kept of them, and what is said of the rest."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from jupyter_nbexec import truncation

PIECES = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=40)), max_size=30)


@given(PIECES, st.integers(1, 200), st.integers(0, 2000))
def test_what_is_written_and_what_is_missing_is_all(
    pieces: list[tuple[str, str]], capacity: int, room: int
) -> None:
    """Nothing is written beyond the room; each stream ends as it did; what is missing is counted exactly."""
    rests = truncation.Rests(capacity)
    for name, text in pieces:
        rests.add(name, text)
    written, left_out = rests.take(room)

    assert sum(truncation.size_of(text) for _, text in written) <= room
    total = sum(truncation.size_of(text) for _, text in pieces)
    if not left_out:
        for stream in ("stdout", "stderr"):
            assert _of(written, stream) == _of(pieces, stream)
        return
    kept = {name: re.sub(r"\A\n\[… [\d,]+ bytes left out …\]\n", "", text) for name, text in written}
    assert total == left_out + sum(map(truncation.size_of, kept.values()))
    for name, text in kept.items():
        assert _of(pieces, name).endswith(text)


def _of(pieces: list[tuple[str, str]], stream: str) -> str:
    return "".join(text for name, text in pieces if name == stream)


def test_streams_keep_their_order() -> None:
    """What fits after all is as it was written, not by streams."""
    rests = truncation.Rests(100)
    pieces = [("stdout", "a"), ("stderr", "b"), ("stdout", "c")]
    for name, text in pieces:
        rests.add(name, text)

    assert rests.take(100) == (pieces, 0)


def test_a_flood_has_no_end() -> None:
    """Of what was not heard to its end no end is shown, and what is missing is at least what was heard."""
    rests = truncation.Rests(100)
    rests.add("stdout", "x" * 1000)
    rests.is_deaf = True

    assert rests.take(1000) == ([("stdout", "\n[… at least 1,000 bytes left out …]\n")], 1000)


def test_warnings() -> None:
    """They say which limit it was, where, and how much is missing; and there are not too many."""
    account = truncation.Account()
    account.note("max_output_bytes", 3, size=12_000)
    account.note("max_output_bytes", 3, size=345)
    account.note("max_outputs", 4, number=1, size=10, is_least=True)
    account.note("max_result_bytes", 5, what="the result")

    assert account.warnings(["in cell 3", "in cell 4", "in cell 5"]) == [
        "max_output_bytes: 12,345 bytes left out in cell 3.",
        "max_outputs: at least 1 output with 10 bytes left out in cell 4.",
        "max_result_bytes: the result left out in cell 5.",
    ]
    for cell in range(100):
        account.note("max_outputs", cell, number=1)
    assert len(account.warnings(["x"] * len(account.entries))) == truncation.NAMED + 1
