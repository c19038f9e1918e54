"""What is kept of texts that are too long, and what is said of all that was left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

#: Bytes of the end of a text that are kept, where it is cut.
TAIL: Final = 4096
#: Bytes beside the head of a text that may be its whole rest, or else ends of texts: at most, and of a limit.
RESERVE: Final = 64 * 1024
SHARE: Final = 0.25
#: Cells that are named one by one where something was left out.
NAMED: Final = 20


def size_of(text: str) -> int:
    """Bytes that a text has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def head(text: str, size: int) -> str:
    """The beginning of a text, at most so many bytes."""
    return text.encode("utf-8", "surrogatepass")[: max(0, size)].decode("utf-8", "ignore")


def tail(text: str, size: int) -> str:
    """The end of a text, at most so many bytes."""
    return text.encode("utf-8", "surrogatepass")[-size:].decode("utf-8", "ignore") if size > 0 else ""


def mark(size: int, *, is_least: bool = False) -> str:
    """The line that stands for what is missing of a text."""
    least = "at least " if is_least else ""
    return f"\n[… {least}{size:,} bytes left out …]\n"


def reserve(limit: int) -> int:
    """Bytes of a limit that heads of texts leave free."""
    return min(RESERVE, int(limit * SHARE))


@dataclass
class _Rest:
    """What came of one stream after the head was full."""

    size: int = 0
    kept: int = 0
    texts: deque[tuple[int, str]] = field(default_factory=deque)


class Rests:
    """What a cell has written after the heads of its texts were full: the ends of it, for each stream."""

    def __init__(self, capacity: int) -> None:
        """`capacity`: bytes that are kept of each stream."""
        self._capacity = capacity
        self._rests: dict[str, _Rest] = {}
        self._number = 0
        #: Whether no more of it was heard from some moment on.
        self.is_deaf = False

    def add(self, name: str, text: str) -> int:
        """Note a text; how many bytes it has."""
        rest = self._rests.setdefault(name, _Rest())
        size = size_of(text)
        rest.size += size
        if size > self._capacity:
            text = tail(text, self._capacity)
            rest.texts.clear()
            rest.kept = 0
        rest.kept += size_of(text)
        self._number += 1
        rest.texts.append((self._number, text))
        while rest.kept - size_of(rest.texts[0][1]) >= self._capacity:
            rest.kept -= size_of(rest.texts.popleft()[1])
        return size

    def take(self, room: int) -> tuple[list[tuple[str, str]], int]:
        """What is to be written, as far as there is room: streams with texts; and bytes that are left out."""
        is_whole = not self.is_deaf and all(rest.size == rest.kept for rest in self._rests.values())
        if is_whole and sum(rest.size for rest in self._rests.values()) <= room:
            texts = [
                (number, name, text) for name, rest in self._rests.items() for number, text in rest.texts
            ]
            return [(name, text) for _, name, text in sorted(texts)], 0
        written = []
        left_out = 0
        for name, rest in self._rests.items():
            said = size_of(mark(rest.size, is_least=self.is_deaf))
            end = "" if self.is_deaf else "".join(text for _, text in rest.texts)
            end = tail(end, min(TAIL, room - said, rest.size))
            missing = rest.size - size_of(end)
            if missing <= 0:
                written.append((name, end))
                room -= size_of(end)
                continue
            left_out += missing
            if said <= room:
                text = mark(missing, is_least=self.is_deaf) + end
                written.append((name, text))
                room -= size_of(text)
        return written, left_out


@dataclass
class LeftOut:
    """What was left out of one cell because of one limit."""

    size: int = 0
    number: int = 0
    is_least: bool = False
    what: str = ""


class Account:
    """What was left out of a run: by the limit, and the cell's index in the executed notebook."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, int | None], LeftOut] = {}

    def note(
        self,
        limit: str,
        cell: int | None,
        *,
        size: int = 0,
        number: int = 0,
        is_least: bool = False,
        what: str = "",
    ) -> None:
        """Note that so many bytes, or outputs, were left out; or `what`, if nobody knows how much that is."""
        entry = self.entries.setdefault((limit, cell), LeftOut())
        entry.size += size
        entry.number += number
        entry.is_least |= is_least
        entry.what = entry.what or what

    def warnings(self, places: Iterable[str]) -> list[str]:
        """Say it to a person; `places` name the cells, in the order of the entries."""
        said = [
            f"{limit}: {_amount(entry)} left out {place}."
            for ((limit, _), entry), place in zip(self.entries.items(), places, strict=True)
        ]
        more = len(said) - NAMED
        return said if more <= 0 else [*said[:NAMED], f"So it was in {more} more places."]


def _amount(entry: LeftOut) -> str:
    parts = [f"{entry.number:,} output{'s' * (entry.number != 1)}"] if entry.number else []
    if entry.what and not parts and not entry.size:
        return entry.what
    if entry.size or not parts:
        parts.append(f"{entry.size:,} bytes")
    return ("at least " if entry.is_least else "") + " with ".join(parts)
