"""Watch one execution from the server's event loop: deadlines, wishes to end it, the kernel's death.

An execution is never cancelled (see `execute.py`). It is brought to an end by steps, each of which leaves
what has been executed so far intact: start no further cell, interrupt the kernel, kill it, wait no longer.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Coroutine
from typing import Any

from jupyter_nbexec import execute, kernels

#: Seconds between two looks at the kernel.
TICK = 0.25


class Ending(enum.Enum):
    """Why an execution is ended before its notebook has."""

    TIMEOUT = "timeout"
    CANCEL = "cancel"
    STOP = "stop"


class Watch:
    """Watches one execution; how that went is in its attributes afterwards."""

    def __init__(
        self,
        execution: execute.Execution,
        kernel: kernels.LeasedKernel,
        *,
        submit: Callable[[Coroutine[Any, Any, None]], object],
        deadline: float,
        cell_timeout: float | None,
        grace: float,
    ) -> None:
        """`submit` runs a coroutine on the background loop; `deadline` is on `time.monotonic`'s clock."""
        self._execution = execution
        self._kernel = kernel
        self._submit = submit
        self._deadline = deadline
        self._cell_timeout = cell_timeout
        self._grace = grace
        self._wake = asyncio.Event()
        self._kill_at = float("inf")
        self._is_abandoned = False
        #: Why it was ended early, if it was.
        self.ending: Ending | None = None
        #: How the kernel ended, if it did.
        self.death: str | None = None
        #: Whether it was a single cell that took too long.
        self.is_cell_timeout = False

    def end(self, reason: Ending) -> None:
        """Ask for the end; the first reason counts."""
        self.ending = self.ending or reason
        self._wake.set()

    async def until_done(self, done: asyncio.Future[None]) -> None:
        """Return when the execution has ended, which this sees to."""
        is_ending = False
        while not done.done():
            if self._is_abandoned:
                await asyncio.wait({done})
                return
            await self._wait(done)
            if done.done():
                return
            self._kernel.touch()
            self.death = await self._kernel.death()
            if self.death is not None:
                self._abandon(has_ended=True)
                continue
            self._check_deadlines()
            if self.ending is not None and not is_ending:
                is_ending = True
                await self._begin_ending()
            if time.monotonic() >= self._kill_at:
                if self._kernel.is_owned:
                    await self._kernel.kill()
                self._abandon(has_ended=self._kernel.is_owned)

    async def _wait(self, done: asyncio.Future[None]) -> None:
        """Wait for the end, a wish for it, or the next tick."""
        wake = asyncio.ensure_future(self._wake.wait())
        try:
            left = min(self._next_deadline(), self._kill_at) - time.monotonic()
            timeout = max(0.01, min(TICK, left))
            waited: set[asyncio.Future[Any]] = {done, wake}
            await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wake.cancel()
        self._wake.clear()

    def _next_deadline(self) -> float:
        execution = self._execution
        if self.ending is not None or execution.has_run_cells or execution.failure is not None:
            return float("inf")
        started = execution.cell_started
        if started is None or self._cell_timeout is None:
            return self._deadline
        return min(self._deadline, started + self._cell_timeout)

    def _check_deadlines(self) -> None:
        deadline = self._next_deadline()
        if time.monotonic() >= deadline:
            self.is_cell_timeout = deadline < self._deadline
            self.ending = Ending.TIMEOUT

    async def _begin_ending(self) -> None:
        """Interrupt; or kill at once what has not begun, or what a stopping server cannot wait for."""
        self._execution.stop()
        is_urgent = self.ending is Ending.STOP or not self._execution.is_ready
        self._kill_at = time.monotonic() + (0 if is_urgent else self._grace)
        if not is_urgent or not self._kernel.is_owned:
            await self._kernel.interrupt()

    def _abandon(self, *, has_ended: bool) -> None:
        self._is_abandoned = True
        self._submit(self._execution.abandon(has_ended=has_ended))
