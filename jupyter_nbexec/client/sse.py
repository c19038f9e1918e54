"""Server-Sent Events, read by the rules of the WHATWG, from bytes that come in any pieces."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes that one event may have; more is no event but an attack, or not an event stream at all.
MAX_BYTES = 256 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class TooLargeError(Exception):
    """An event, or one line, is larger than the reader takes."""


@dataclass(frozen=True)
class Message:
    """One event as it was sent."""

    id: str  #: the last id that was sent, maybe with an earlier event
    type: str
    data: str


class Parser:
    """Turns the bytes of one connection into messages; where the pieces are cut does not matter."""

    def __init__(self, last_id: str = "", *, max_bytes: int = MAX_BYTES) -> None:
        #: What to send as `Last-Event-ID` after the connection was lost.
        self.last_id = last_id
        #: Seconds that the server wants between connections; None where it did not say.
        self.retry: float | None = None
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._searched = 0  #: where in the buffer no line ends before
        self._is_start = True
        self._skips_newline = False  #: the last line ended in CR, which may be half of CRLF
        self._id = last_id
        self._type = ""
        self._data: list[str] = []
        self._size = 0  #: of the event's data so far

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """Take further bytes; yield the messages that they complete."""
        self._buffer += chunk
        while (line := self._next_line()) is not None:
            if line:
                self._take(line)
            elif message := self._dispatch():
                yield message
        if len(self._buffer) + self._size > self._max_bytes:
            raise TooLargeError(f"an event has more than {self._max_bytes} bytes")

    def _next_line(self) -> bytes | None:
        buffer = self._buffer
        if self._is_start:
            if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
                return None
            if buffer.startswith(_BOM):
                del buffer[: len(_BOM)]
            self._is_start = False
        if self._skips_newline and buffer:
            if buffer[0] == ord("\n"):
                del buffer[0]
            self._skips_newline = False
        end = _LINE_END.search(buffer, self._searched)
        if end is None:
            self._searched = len(buffer)
            return None
        line = bytes(buffer[: end.start()])
        # A CR that comes last ends its line already; waiting for the LF could take for ever.
        self._skips_newline = end.end() == len(buffer) and end[0] == b"\r"
        del buffer[: end.end()]
        self._searched = 0
        return line

    def _take(self, line: bytes) -> None:
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._size += len(line)
            if self._size > self._max_bytes:
                raise TooLargeError(f"an event has more than {self._max_bytes} bytes")
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value[:10]) / 1000

    def _dispatch(self) -> Message | None:
        self.last_id = self._id
        data, kind = self._data, self._type
        self._data, self._type, self._size = [], "", 0
        return Message(self.last_id, kind or "message", "\n".join(data)) if data else None
