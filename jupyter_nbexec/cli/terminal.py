"""What a terminal is shown: only what cannot command it, and how far things have come."""

from __future__ import annotations

import contextlib
import enum
import itertools
import os
import re
import sys
import threading
import time
import unicodedata
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

#: Seconds between two pictures of what moves.
_TICK = 0.2
_RESET = "\x1b[0m"
_COLOUR = re.compile("[0-9;:]*m")
#: No colour needs more characters.
_LONGEST_COLOUR = 64
#: Control characters, but for backspace, tab, newline and carriage return, which only move on.
_CONTROL = re.compile("[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """Escape whatever is not printable, newlines as well: for names, paths and messages."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class _State(enum.Enum):
    """Where in its input a `Colours` is."""

    TEXT = enum.auto()
    ESCAPE = enum.auto()  #: after ESC
    CONTROL = enum.auto()  #: in a control sequence, which may be a colour
    STRING = enum.auto()  #: in a title, a link, or another string that a terminal takes


_AFTER_ESCAPE = {"[": _State.CONTROL, **dict.fromkeys("]PX^_", _State.STRING)}
#: The same as single characters.
_C1 = {
    "\x1b": _State.ESCAPE,
    "\x9b": _State.CONTROL,
    **dict.fromkeys("\x90\x98\x9d\x9e\x9f", _State.STRING),
}


class Colours:
    """Takes from text, which comes in any pieces, all that commands a terminal, except for colours.

    What is returned leaves the terminal without colours; those that go on begin the next piece.
    """

    def __init__(self) -> None:
        self._state = _State.TEXT
        self._sequence = ""
        self._colours = ""  #: since the last reset

    def __call__(self, piece: str) -> str:
        """Return what of a piece is shown."""
        before = self._colours
        shown = "".join(self._filter(piece))
        return f"{before}{shown}{_RESET if self._colours else ''}" if shown else ""

    def _filter(self, piece: str) -> Iterator[str]:
        position = 0
        while position < len(piece):
            if self._state is _State.TEXT:
                control = _CONTROL.search(piece, position)
                yield piece[position : control.start() if control else None]
                if control is None:
                    return
                position, self._sequence = control.end(), ""
                self._state = _C1.get(control[0], _State.TEXT)
                continue
            character = piece[position]
            if self._takes(character):
                position += 1
            if _COLOUR.fullmatch(self._sequence):
                yield self._colour(f"\x1b[{self._sequence}")
                self._sequence = ""

    def _takes(self, character: str) -> bool:
        """Go on in a sequence; return whether the character is part of it."""
        if self._state is _State.STRING:
            # One that is not ended by BEL or ST (which may be ESC \) ends with its line.
            self._state = _C1.get(character, _State.STRING)
            if character in "\x07\x18\x1a\x9c\r\n":
                self._state = _State.TEXT
            return character not in "\r\n"
        is_inner = " " <= character <= ("/" if self._state is _State.ESCAPE else "?")
        if self._state is _State.ESCAPE and not is_inner:
            self._state = _AFTER_ESCAPE.get(character, _State.TEXT)
        elif self._state is _State.CONTROL:
            self._sequence += character
            if not is_inner or len(self._sequence) > _LONGEST_COLOUR:
                self._state = _State.TEXT
        return " " <= character <= "~"

    def _colour(self, sequence: str) -> str:
        if sequence in ("\x1b[m", _RESET):
            self._colours = ""
        elif len(self._colours) < 1024:
            self._colours += sequence
        else:
            self._colours = sequence
        return sequence


def without_colours(text: str) -> str:
    """Take from text all that commands a terminal, colours as well."""
    return re.sub(r"\x1b\[[0-9;:]*m", "", Colours()(text))


def moves(stream: IO[str]) -> bool:
    """Whether this is a terminal that can draw over what it shows."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def cut(text: str, width: int) -> str:
    """Cut what does not fit into so many columns."""
    columns = itertools.accumulate(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    fitting = sum(1 for end in columns if end <= width)
    return text if fitting == len(text) else text[: max(0, fitting - 1)] + "…" * (width > 0)


class Bar:
    """The last line of a terminal, drawn again as time goes by; nothing where stderr is no terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stderr
        self._is_shown = moves(self._terminal)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._is_line_open = False  #: other text stands on the line
        self._thread = threading.Thread(target=self._redraw, daemon=True)

    def text(self) -> str:
        """Return what to show now."""
        raise NotImplementedError

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Write something else meanwhile."""
        with self._lock:
            self._erase()
            try:
                yield
            finally:
                self._draw()

    def leave_line(self, *, is_open: bool) -> None:
        """Say whether what was written ends within a line, on which nothing must be drawn."""
        self._is_line_open = is_open

    def __enter__(self) -> Self:
        if self._is_shown:
            self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        if self._is_shown:
            self._thread.join()
            self._erase()

    def _redraw(self) -> None:
        while not self._stopped.wait(_TICK):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        if self._is_shown and not self._is_line_open and not self._stopped.is_set():
            width = os.get_terminal_size(self._terminal.fileno()).columns or 80
            self._terminal.write(f"\r\x1b[K{cut(self.text(), width - 1)}")
            self._terminal.flush()

    def _erase(self) -> None:
        if self._is_shown and not self._is_line_open:
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()


class Spinner(Bar):
    """Shows that something is under way, and for how long."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self._label = plain(label)
        self._signs = itertools.cycle("|/-\\")
        self._start = time.monotonic()

    def text(self) -> str:
        """Return the sign, the time and the label."""
        return f"{next(self._signs)} {time.monotonic() - self._start:5.1f} s  {self._label}"
