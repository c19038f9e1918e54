"""An open line to a kernel that serves requests: one execute request at a time, on the server's own loop.

Runs are read in a thread of their own (`execute.py`), since they may print for hours. Calls are short, and
many: what would be spent on passing messages between threads would be more than the kernel takes. That a cell
which prints without end holds up the server is prevented as there: `connection.py` gives way every
millisecond, and drops unread what is over the limits.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty
from typing import Any

from jupyter_nbexec import execute, kernels, opening, result
from jupyter_nbexec.kernels import connection
from jupyter_nbexec.kernels.opened import Opened

#: Seconds of silence after which one looks whether the kernel has replied.
SLICE = 0.5
#: Seconds of silence after which a kernel that is none of IPython's, and has put out nothing, will not.
LATE = 0.3
#: Seconds within which a kernel that has been told to keep back what it prints is heard again.
RESTORING = 10.0
#: Under which an execute request's metadata has what its cell is to find in a variable.
KEY = "nbexec_request"


@dataclass
class Heard:
    """What came of one execute request."""

    stdout: list[str] = field(default_factory=list)
    #: What was shown, in order, as outputs of nbformat.
    shown: list[dict[str, Any]] = field(default_factory=list)
    #: The content of the last `error` message that was not cleared.
    error: dict[str, Any] | None = None
    reply: dict[str, Any] = field(default_factory=dict)
    #: Whether all of it is here.
    is_complete: bool = True
    _displays: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Whether the next thing that is shown takes the place of all before.
    _is_to_clear: bool = False
    #: Of all that, in bytes.
    size: int = 0

    @property
    def has_output(self) -> bool:
        """Whether it has put out anything."""
        return bool(self.stdout or self.shown or self.error)

    @property
    def is_early_end(self) -> bool:
        """Whether the cell ended itself before its last line, and well."""
        return execute.is_early_end(self.reply)

    @property
    def failure(self) -> tuple[str, str] | None:
        """Name and text of what the cell raised; None if it ended well."""
        said = execute.failure_in(self.reply, self.error)
        if said is None:
            return None
        return str(said.get("ename") or "Error"), str(said.get("evalue") or "")

    def take(self, message: dict[str, Any], max_bytes: int) -> bool:
        """Keep what a message brings; False if that is one too many."""
        self.size += message["size"]
        if self.size > max_bytes:
            return False
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            self._clear_if_due()
            if content["name"] == "stdout":
                self.stdout += message["texts"]
        elif kind == "error":
            self._clear_if_due()
            self.error = content
        elif kind == "clear_output":
            self._is_to_clear = True
            if not content.get("wait"):
                self._clear_if_due()
        elif kind in connection.OUTPUT_TYPES and isinstance(content.get("data"), dict):
            self._show(kind, content)
        return True

    def _show(self, kind: str, content: dict[str, Any]) -> None:
        transient = content.get("transient")
        display = transient.get("display_id") if isinstance(transient, dict) else None
        if not isinstance(display, str):
            display = None
        if kind == "update_display_data":
            if display in self._displays:
                self._displays[display]["data"] = content["data"]
            return
        self._clear_if_due()
        output = {"output_type": kind, "data": content["data"], "metadata": content.get("metadata") or {}}
        self.shown.append(output)
        if display is not None:
            self._displays[display] = output

    def _clear_if_due(self) -> None:
        if self._is_to_clear:
            self._is_to_clear = False
            self.shown.clear()
            self.error = None


class Line:
    """A connection to one kernel, ready for calls. On the server's own loop."""

    def __init__(self, opened: Opened, max_bytes: int, *, takes_requests: bool) -> None:
        self._opened = opened
        self._link: connection.Link = opened.link
        self._max_bytes = max_bytes
        #: Whether a cell finds its request in a variable, without a statement that assigns it.
        self.takes_requests = takes_requests
        self._losing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, opener: opening.Opener, kernel: kernels.LeasedKernel, limits: execute.Limits, *, name: str
    ) -> Line:
        """Connect to a kernel that has been opened before; its cells find their requests in `name`.

        Raises StartTimeoutError, ConnectionLost.
        """
        link = connection.Link(limits.output_bytes)
        link.has_two_readers = False
        task = asyncio.create_task(cls._open(opener, kernel, limits, link, name))

        async def fail() -> None:
            link.fail(connection.ConnectionLost())

        return await opening.watched(task, kernel, fail)

    @classmethod
    async def _open(
        cls,
        opener: opening.Opener,
        kernel: kernels.LeasedKernel,
        limits: execute.Limits,
        link: connection.Link,
        name: str,
    ) -> Line:
        info = kernel.connection_info()
        opened = await execute.open_kernel(
            opener.context, info, link, start_timeout=limits.start_timeout, is_owned=False
        )
        line = cls(opened, limits.output_bytes, takes_requests=False)
        try:
            if opened.language == "python":
                line.takes_requests = await execute.evaluate(opened, result.receiving(name, KEY))
            # No call has been made yet.
            link.request = None
        except BaseException:
            line.close()
            raise
        return line

    @property
    def is_busy(self) -> bool:
        """Whether the kernel executes something, as far as is known."""
        return self._link.request is not None

    def close(self) -> None:
        """Let go of the kernel."""
        if self._losing is not None:
            self._losing.cancel()
        self._opened.close()

    def fail(self, how: str) -> None:
        """Have `execute`, or `settle`, raise ConnectionLost at once, until `revive`."""
        self._link.fail(connection.ConnectionLost(how), patience=0.0)

    def lose(self, how: str) -> None:
        """Have them raise it once all has been read that a kernel which has ended has said."""
        if self._losing is None:
            self._losing = asyncio.create_task(self._lose(how))

    async def _lose(self, how: str) -> None:
        await self._opened.client.hear_out()
        self._link.fail(connection.ConnectionLost(how))

    def revive(self) -> None:
        """Take back `fail`."""
        self._link.failure = None

    async def execute(self, source: str, request: str | None = None) -> Heard:
        """Execute some source, for which `request` is in the variable of the line; what came of it.

        Raises ConnectionLost if the kernel died, or `fail` was called.
        """
        link, client = self._link, self._opened.client
        link.has_lost_output = link.is_full = link.is_flooded = link.was_cut = False
        if isinstance(client.iopub_channel, connection.IOPubChannel):
            await client.iopub_channel.restore(RESTORING)
        link.losses.restart()
        client.session.metadata = {} if request is None else {KEY: request}
        try:
            # What a kernel keeps of each cell, it would keep of each request.
            client.execute(source, store_history=False, allow_stdin=False, stop_on_error=False)
        finally:
            client.session.metadata = {}
        heard = Heard()
        try:
            await self._hear(heard)
        except connection.ConnectionLost:
            await self._look_for_reply()
            if link.reply is None or not execute.asks_exit(link.reply["content"]):
                raise
            # All that came has been read, and the end of the cell was not among it.
            link.has_lost_output = True
        heard.reply = link.reply["content"] if link.reply is not None else {}
        if not heard.has_output and not self.takes_requests:
            await self._hear_late(heard)
        link.request = None
        link.losses.ended_cell()
        heard.is_complete = not (link.has_lost_output or link.was_cut or link.losses.any)
        return heard

    async def settle(self, patience: float) -> bool:
        """After `fail`: wait for the end of what the kernel executes; whether an interrupt ended it in time.

        Of a cell that ended otherwise one cannot tell whether the interrupt is still to come.
        """
        link = self._link
        self.revive()
        link.is_full = link.is_flooded = True
        try:
            await self._hear(Heard(), deadline=time.monotonic() + patience)
        except (connection.ConnectionLost, TimeoutError):
            return False
        reply = link.reply["content"] if link.reply is not None else {}
        link.request = None
        return bool(reply.get("ename") == "KeyboardInterrupt")

    def tend(self) -> None:
        """Take some of what the kernel says between calls, so that it does not pile up."""
        iopub = self._opened.client.iopub_channel
        if isinstance(iopub, connection.IOPubChannel):
            iopub.take_batch()

    async def _hear(self, heard: Heard, deadline: float = float("inf")) -> None:
        """Read until the kernel is idle again and has replied. Raises TimeoutError, ConnectionLost."""
        link, iopub = self._link, self._opened.client.iopub_channel
        while True:
            if time.monotonic() >= deadline:
                raise TimeoutError
            try:
                message = await iopub.get_msg(timeout=SLICE)
            except Empty:
                await self._look_for_reply()
                continue
            if message["parent_header"].get("msg_id") != link.request:
                continue  # it came before this request was sent
            if message["msg_type"] == "status":
                if message["content"].get("execution_state") == "idle":
                    break
            elif not heard.take(message, self._max_bytes):
                link.is_full = link.is_flooded = link.has_lost_output = True
        while link.reply is None:
            if time.monotonic() >= deadline:
                raise TimeoutError
            await self._look_for_reply(SLICE)

    async def _hear_late(self, heard: Heard) -> None:
        """Take outputs that come after their cell: some kernels print in a process of their own."""
        with suppress(Empty, connection.ConnectionLost):
            while True:
                message = await self._opened.client.iopub_channel.get_msg(timeout=LATE)
                if message["parent_header"].get("msg_id") == self._link.request:
                    heard.take(message, self._max_bytes)

    async def _look_for_reply(self, patience: float = 0.0) -> None:
        """Take the replies that have come. Raises ConnectionLost where none will."""
        shell = self._opened.client.shell_channel
        while self._link.reply is None:
            try:
                await shell.get_msg(timeout=patience)
            except Empty:
                return
