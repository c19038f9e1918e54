"""What a kernel's process says before the kernel answers: why it never does is said nowhere else.

Standard output and error of a kernel lead into a pipe, of which the last few KiB are kept. It is read as long
as anybody may write to it, since a full one would hold the kernel up; what it says once it has answered is
no business of the server's, and nobody asks for it.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager

#: Bytes of its last words that are told.
LIMIT = 4096
#: Bytes that are read at once, as many as a pipe holds.
CHUNK = 65536
#: Seconds before more is read of a kernel that has filled its pipe: it is not to keep the event loop busy.
REST = 0.003
#: What a terminal would act on; and the beginning of a character whose rest is missing.
_UNFIT = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[^\S\n\t ]|[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd]")


def masked(text: str, secrets: Collection[str]) -> str:
    """Take secrets out of a text; short ones only where they stand alone, or nothing would be left of it."""
    values = {part for secret in secrets for part in (secret, *secret.splitlines()) if part.strip()}
    for value in sorted(values, key=len, reverse=True):
        pattern = re.escape(value) if len(value) > 3 else rf"(?<!\w){re.escape(value)}(?!\w)"
        text = re.sub(pattern, "…", text)
    return text


class LastWords:
    """The last that one process, and what it has started, has said. On the server's event loop."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        """`secrets` are never told. Raises OSError."""
        self._secrets = secrets
        # What is cut off must not be the half of a secret.
        self._room = LIMIT + 4 * max(map(len, secrets), default=0)
        self._kept = b""
        self._loop = asyncio.get_running_loop()
        self._resting: asyncio.TimerHandle | None = None
        self._reading: int | None
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._loop.add_reader(self._reading, self._read)

    @contextmanager
    def handing_over(self) -> Iterator[int]:
        """Give the descriptor that the process is to write to; it must have it when the context is left."""
        try:
            yield self._writing
        finally:
            os.close(self._writing)

    def text(self) -> str:
        """Tell what has been said until now: the last of it, fit for a log and for whoever may run code."""
        self._read()
        said = masked(self._kept.decode(errors="replace"), self._secrets)
        # Nor is one to show that has something in its middle which is taken out.
        told = masked(_UNFIT.sub("", said), self._secrets)
        return told.encode()[-LIMIT:].decode(errors="ignore").strip()

    def close(self) -> None:
        """Hear no more than there is now."""
        self._read()
        self._close()

    def _close(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
        if self._reading is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._reading)
            os.close(self._reading)
            self._reading = None

    def _read(self) -> None:
        if self._reading is None:
            return
        try:
            data = os.read(self._reading, CHUNK)
        except BlockingIOError:
            return
        if not data:  # nobody is left who could say anything
            self._close()
            return
        self._kept = (self._kept + data)[-self._room :]
        if len(data) == CHUNK and self._resting is None:
            self._loop.remove_reader(self._reading)
            self._resting = self._loop.call_later(REST, self._go_on)

    def _go_on(self) -> None:
        self._resting = None
        if self._reading is not None:
            self._loop.add_reader(self._reading, self._read)
