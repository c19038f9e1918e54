"""Executed notebooks as pages, made by processes of their own (`render`), which can be ended.

What a page takes, nobody knows before: a table of 40,000 rows is half a minute of work. So there are few such
processes, each with limits of time and memory; a page is made once for all who ask for it, and kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Final

from jupyter_nbexec import background, caching, errors

SANDBOX_POLICY: Final = (
    "sandbox; default-src 'none'; img-src data:; media-src data:; font-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
"""Content-Security-Policy of answers that are not JSON: their own origin, and nothing from elsewhere."""

#: Processes that render, at most, and pages that may wait for one.
PROCESSES, MAX_WAITING = 2, 16
#: Seconds of processor time that a page may take, and seconds after which it is given up on a busy machine.
MAX_WORK, PATIENCE = 60, 180.0
#: Bytes of memory that a process may have, and of a notebook, and of a page; and of all pages that are kept.
MAX_MEMORY, MAX_NOTEBOOK, MAX_PAGE, KEPT = 2 << 30, 32 << 20, 64 << 20, 64 << 20
#: Seconds for which a process is kept that has nothing to do.
IDLE = 60.0
#: Seconds after which a client that was refused may try again.
RETRY_AFTER = 10
#: Seconds that `stop` gives killed processes to be gone.
FAREWELL = 5.0

#: What a process answers, before its length: a page, or why there is none.
PAGE, TOO_LARGE, FAULT = b"+", b"-", b"!"
#: Bytes in which lengths are told.
LENGTH: Final = 8

_ALTERNATIVE = "it can be had as application/x-ipynb+json and application/json"
_SLOW = f"The notebook takes too much time or memory to be made a page; {_ALTERNATIVE}."
_LARGE = f"The notebook is too large to be made a page; {_ALTERNATIVE}."


class Renderer:
    """Makes pages. It belongs to one event loop."""

    def __init__(self) -> None:
        self._threads = background.Pool("jupyter_nbexec-render", PROCESSES)
        self._places = asyncio.Semaphore(PROCESSES)
        self._idle: list[_Process] = []
        self._renderings: dict[str, _Rendering] = {}
        #: Pages, and why there are none, of what does not change.
        self._pages: caching.Cache[bytes | str] = caching.Cache(KEPT)
        #: Processes that were killed, until they have been collected.
        self._burials: set[asyncio.Future[None]] = set()
        self._is_stopping = False

    async def page(self, key: str, notebook: bytes, *, keep: bool) -> bytes:
        """Make a page of a notebook, given as JSON; or take part in the page that is being made for its key.

        `keep` says that what this key stands for does not change. Who gives up cancels this.
        Raises NotAcceptable where there can be no page, Overloaded, Stopping.
        """
        if (kept := self._pages.get(key)) is not None:
            return _read(kept)
        rendering = self._renderings.get(key)
        if rendering is None:
            if self._is_stopping:
                raise errors.Stopping
            if len(self._renderings) >= PROCESSES + MAX_WAITING:
                raise errors.Overloaded(RETRY_AFTER, "Too many notebooks are being made pages already.")
            task = asyncio.create_task(self._make(key, notebook, keep=keep))
            rendering = self._renderings[key] = _Rendering(task)
        rendering.readers += 1
        try:
            await asyncio.wait({rendering.task})
        finally:
            rendering.readers -= 1
            if not rendering.readers:
                self._drop(key, rendering)
        if rendering.task.cancelled():
            raise errors.Stopping
        return _read(rendering.task.result())

    def _drop(self, key: str, rendering: _Rendering) -> None:
        rendering.task.cancel()
        if self._renderings.get(key) is rendering:
            del self._renderings[key]

    async def _make(self, key: str, notebook: bytes, *, keep: bool) -> bytes | str:
        if len(notebook) > MAX_NOTEBOOK:
            return _LARGE
        async with self._places:
            made = await self._ask(notebook)
        if keep:
            self._pages.put(key, made, len(made))
        return made

    async def _ask(self, notebook: bytes) -> bytes | str:
        """Have a process make a page: that, or why there is none. Raises Overloaded."""
        process = self._take() or _Process()
        try:
            asked = asyncio.wrap_future(self._threads.submit(process.ask, notebook))
            kind, content = await asyncio.wait_for(asked, PATIENCE)
        except (TimeoutError, asyncio.TimeoutError):
            self._kill(process)
            raise errors.Overloaded(
                RETRY_AFTER, "The machine is too busy to make a page of the notebook."
            ) from None
        except BaseException:
            self._kill(process)
            raise
        if kind == TOO_LARGE:
            return _LARGE
        if kind not in (PAGE, FAULT):
            # It was ended by its limits, or by the operating system.
            self._kill(process)
            return _SLOW
        if self._is_stopping:
            self._kill(process)
        else:
            self._idle.append(process)
            process.end = asyncio.get_running_loop().call_later(IDLE, self._end_idle, process)
        if kind == FAULT:
            raise RuntimeError("a notebook cannot be rendered:\n" + content.decode("utf-8", "replace"))
        return content

    def _take(self) -> _Process | None:
        """Take a process that has nothing to do; one that has ended meanwhile says nothing of a page."""
        while self._idle:
            process = self._idle.pop()
            process.keep()
            if process.is_there:
                return process
            self._kill(process)
        return None

    def _end_idle(self, process: _Process) -> None:
        self._idle.remove(process)
        self._kill(process)

    def _kill(self, process: _Process) -> None:
        process.keep()
        process.kill()
        # The thread that has asked it hears of that, and is free for this.
        burial = asyncio.wrap_future(self._threads.submit(process.bury))
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)

    async def stop(self) -> None:
        """End all processes, and let go of those who wait."""
        self._is_stopping = True
        tasks = [rendering.task for rendering in self._renderings.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        while self._idle:
            self._end_idle(self._idle[0])
        if self._burials:
            await asyncio.wait(self._burials, timeout=FAREWELL)


@dataclass(eq=False)
class _Rendering:
    """A page that is being made."""

    task: asyncio.Task[bytes | str]
    readers: int = 0


class _Process:
    """A process that makes one page after the other. It ends with the thread that has made this."""

    def __init__(self) -> None:
        self._popen = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "jupyter_nbexec.render", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",  # so that no folder of a user's is one to import from
            start_new_session=True,
        )
        #: When it is ended, as long as nobody wants it.
        self.end: asyncio.TimerHandle | None = None

    def ask(self, notebook: bytes) -> tuple[bytes, bytes]:
        """Send a notebook, and read what comes of it, for as long as that takes; nothing, if it has ended."""
        stdin, stdout = self._popen.stdin, self._popen.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("a process without pipes")
        try:
            stdin.write(len(notebook).to_bytes(LENGTH, "big"))
            stdin.write(notebook)
            stdin.flush()
            kind, length = stdout.read(1), int.from_bytes(stdout.read(LENGTH), "big")
            content = stdout.read(min(length, MAX_PAGE))
        except (OSError, ValueError):
            return b"", b""
        return (kind, content) if len(content) == length else (b"", b"")

    def keep(self) -> None:
        """Do not end it for want of work."""
        if self.end is not None:
            self.end.cancel()
            self.end = None

    @property
    def is_there(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def kill(self) -> None:
        """End it now, whatever it does."""
        self._popen.kill()

    def bury(self) -> None:
        """Collect it, once it has ended."""
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            with contextlib.suppress(OSError):  # what it was still to be sent
                if pipe is not None:
                    pipe.close()


def _read(made: bytes | str) -> bytes:
    if isinstance(made, str):
        raise errors.NotAcceptable(made)
    return made
