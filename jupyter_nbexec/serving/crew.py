"""The kernels that serve one notebook: how many there are, who uses which, and who waits.

There are as many as calls have needed lately, between a minimum and a maximum. Each answers one call at a
time. Where the state of a notebook is that of each request, a kernel answers one call and is replaced.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from jupyter_nbexec import errors, execute, kernels
from jupyter_nbexec.kernels import connection, managed
from jupyter_nbexec.serving.line import Line

#: Seconds between looks at kernels that are used, and at those that are not.
TICK, SLOW_TICK = 0.25, 1.0
#: Seconds that a call waits before a further kernel is started for it.
PATIENCE = 0.05
#: Seconds before a further attempt where kernels cannot be made ready.
BACK_OFF = 5.0
#: Kernels that may die one after the other, before they are ready, until that counts as a failure.
ATTEMPTS = 5
#: Seconds that `stop` gives kernels to end, after which the server is not held up by them any longer.
ENDING = 30.0

TIMEOUT, ABANDONED, STOPPING = "timeout", "abandoned", "stopping"


class KernelLost(errors.KernelStartFailed):
    """The kernel died while the notebook was prepared."""


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How one notebook is served. Times in seconds; 0 stands for no limit."""

    min_kernels: int
    max_kernels: int
    max_waiting: int
    timeout: float
    #: Longer than `timeout`, by this, a call may wait while a kernel is made ready that it may get.
    start_timeout: float
    idle_timeout: float
    interrupt_grace: float
    #: Whether each kernel answers one call only.
    is_single_use: bool


@dataclass(eq=False)
class Worker:
    """A seeded kernel, and the line to it."""

    kernel: managed.ManagedKernel
    line: Line
    #: When the call that it has is to be answered; None between calls.
    deadline: float | None = None
    #: Why the call that it had was ended, if it was.
    ending: str | None = None
    #: Whether it must not be used again.
    is_spent: bool = False
    born: float = field(default_factory=time.monotonic)

    async def is_alive(self) -> bool:
        """Whether it lives; it is noted as used."""
        self.kernel.touch()
        return await self.kernel.death() is None

    def end_call(self, reason: str) -> None:
        """End the call that it has."""
        if self.deadline is not None and self.ending is None:
            self.ending = reason
            self.line.fail(reason)


class Call:
    """One call on its way: it waits for a kernel, then has one. `abandon` ends it either way."""

    def __init__(self) -> None:
        self.is_abandoned = False
        #: Since when it has waited for a kernel.
        self.since = 0.0
        self.waiting: asyncio.Future[Worker] | None = None
        self.worker: Worker | None = None

    def abandon(self) -> None:
        """Note that nobody waits for the answer."""
        self.is_abandoned = True
        if self.worker is not None:
            self.worker.end_call(ABANDONED)
        elif self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(Abandoned())


class Crew:
    """The kernels of one notebook, as it is stored now. On the server's loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        hire: Callable[[], Awaitable[Worker]],
        dismiss: Callable[..., Awaitable[None]],
        log: logging.Logger | logging.LoggerAdapter[Any],
    ) -> None:
        """`hire` makes a worker, or raises an NbexecError; `dismiss` ends one, kindly if `is_asked`."""
        self.settings = settings
        self._hire = hire
        self._dismiss = dismiss
        self._log = log
        self._wanted = 0
        self._idle: deque[Worker] = deque()
        self._busy: set[Worker] = set()
        self._waiting: deque[Call] = deque()
        self._starting: set[asyncio.Task[None]] = set()
        #: Of these, the ones that are cancelled: what they clean up is not to be cut off by another time.
        self._given_up: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._recovering: set[Worker] = set()
        self._janitor: asyncio.Task[None] | None = None
        self._failure: errors.NbexecError | None = None
        self._blocked_until = 0.0
        self._attempts = 0
        #: Whether it is to end when its calls have been answered.
        self.is_retired = False
        self._is_stopped = False
        #: Calls at once at most, since the number of kernels was last looked at; and when that was.
        self._peak = 0
        self._looked = time.monotonic()

    @property
    def number(self) -> int:
        """How many kernels there are, or will be."""
        return len(self._idle) + len(self._busy) + len(self._recovering) + len(self._starting)

    @property
    def calls(self) -> int:
        """How many calls have, or wait for, one of its kernels."""
        return len(self._busy) + len(self._waiting)

    @property
    def is_used(self) -> bool:
        """Whether any call does."""
        return self.calls > 0

    @property
    def is_over(self) -> bool:
        """Whether nothing is left of it."""
        return not (self.number or self.is_used or self._leaving)

    @property
    def wanted(self) -> int:
        """How many kernels there are to be."""
        return self._wanted

    def start(self, number: int) -> None:
        """Have so many kernels at least, as far as the limit allows."""
        self._want(min(number, self.settings.max_kernels))

    async def ready(self) -> None:
        """Wait until all kernels that are being started are ready. Raises why one is not."""
        while self._starting:
            await asyncio.wait(self._starting)
        if self._failure is not None:
            raise copy.copy(self._failure)
        if not self.number:
            raise errors.Stopping

    @asynccontextmanager
    async def lend(self, call: Call) -> AsyncIterator[Worker]:
        """Lend a kernel for a call. Raises QueueFull, CallTimeout, Abandoned, and why no kernel starts."""
        worker = await self._acquire(call)
        timeout = self.settings.timeout
        worker.deadline = time.monotonic() + timeout if timeout else float("inf")
        call.worker = worker
        try:
            if call.is_abandoned:
                raise Abandoned
            yield worker
        except connection.ConnectionLost as lost:
            raise await self._explain(worker, str(lost)) from lost
        finally:
            call.worker = None
            self._release(worker)

    def retire(self) -> None:
        """End the kernels that are idle, and the others when they are; those who wait are served first."""
        self.is_retired = True
        self._wanted = 0
        if not self._waiting:
            self._give_up_starting()
        self._shrink()

    async def stop(self, patience: float) -> None:
        """End all kernels; calls that are being answered have `patience` seconds."""
        self.retire()
        self._is_stopped = True
        deadline = time.monotonic() + patience
        while self.is_used and time.monotonic() < deadline:
            await asyncio.sleep(min(TICK, max(0.0, deadline - time.monotonic())))
        for call in list(self._waiting):
            self._reject(call, errors.Stopping())
        self._give_up_starting()
        deadline = time.monotonic() + ENDING
        while not self.is_over:
            if time.monotonic() > deadline:
                self._log.error("%d kernels of a service do not end", self.number + len(self._leaving))
                break
            self._shrink()
            for worker in self._busy:
                # Also the one that a call has been given, but has not taken yet.
                worker.end_call(STOPPING)
            for worker in self._recovering:
                worker.line.fail(STOPPING)
            await asyncio.sleep(0.01)
        if self._janitor is not None:
            self._janitor.cancel()

    async def _acquire(self, call: Call) -> Worker:
        """Take an idle kernel, or wait for one."""
        if self._is_stopped:
            raise errors.Stopping
        if call.is_abandoned:
            raise Abandoned
        self._watch()
        while self._idle and not self._waiting:
            worker = self._idle.popleft()
            self._busy.add(worker)
            self._note_load()
            # A kernel that died since it was last looked at is to hurt nobody.
            if await worker.is_alive():
                return worker
            self._lose(worker)
        if call.is_abandoned:
            raise Abandoned
        self._check_room()
        call.waiting = asyncio.get_running_loop().create_future()
        call.since = time.monotonic()
        self._waiting.append(call)
        self._want(max(1, self._wanted))
        self._note_load()
        try:
            return await call.waiting
        except asyncio.CancelledError:
            if call.waiting.done() and not call.waiting.cancelled() and call.waiting.exception() is None:
                self._release(call.waiting.result())
            raise
        finally:
            if call in self._waiting:
                self._waiting.remove(call)

    def _check_room(self) -> None:
        if self._failure is not None and not self.number and time.monotonic() < self._blocked_until:
            raise copy.copy(self._failure)
        limit = self.settings.max_waiting
        # Those for whom a kernel is being started wait all the same.
        if len(self._waiting) >= limit + max(0, self.settings.max_kernels - len(self._busy)):
            raise errors.QueueFull(1, "Too many calls are waiting already; try again later.")

    def _release(self, worker: Worker) -> None:
        """Take back a kernel; what is wrong with it is seen to."""
        worker.deadline = None
        if worker not in self._busy:
            return
        if worker.line.is_busy:
            self._busy.discard(worker)
            self._recovering.add(worker)
            self._later(self._recover(worker))
        elif self._is_used_up(worker):
            self._lose(worker)
        else:
            self._busy.discard(worker)
            worker.line.revive()
            self._make_available(worker)

    def _is_used_up(self, worker: Worker) -> bool:
        """Whether a kernel may answer no further call."""
        return self.settings.is_single_use or worker.is_spent

    def _make_available(self, worker: Worker) -> None:
        """Give a kernel to the call that has waited longest, or keep it for the next."""
        worker.ending = None
        while self._waiting:
            call = self._waiting.popleft()
            if call.waiting is not None and not call.waiting.done():
                self._busy.add(worker)
                call.waiting.set_result(worker)
                return
        if self.is_retired:
            self._later(self._end(worker, is_asked=True))
            return
        self._idle.append(worker)

    def _lose(self, worker: Worker) -> None:
        """End a kernel that cannot be used again, and have another in its place."""
        self._busy.discard(worker)
        if not self.settings.is_single_use and time.monotonic() - worker.born < BACK_OFF:
            # Kernels that all die young are not to keep the machine busy.
            self._blocked_until = max(self._blocked_until, time.monotonic() + TICK)
        self._later(self._end(worker, is_asked=not worker.line.is_busy))
        self._fill()

    async def _recover(self, worker: Worker) -> None:
        """Interrupt what a kernel still executes; if that does not help, kill it."""
        is_well = False
        try:
            await worker.kernel.interrupt()
            is_well = await worker.line.settle(self.settings.interrupt_grace) and await worker.is_alive()
        except Exception:
            # It may say anything, and is not to be used again then.
            self._log.exception("a kernel of a service cannot be interrupted")
        finally:
            self._recovering.discard(worker)
        if is_well and not self._is_used_up(worker):
            self._make_available(worker)
        else:
            self._fill()
            await self._end(worker, is_asked=is_well)

    async def _end(self, worker: Worker, *, is_asked: bool) -> None:
        worker.line.close()
        await self._dismiss(worker, is_asked=is_asked)

    async def _explain(self, worker: Worker, how: str) -> Exception:
        """Say why a kernel was lost to a call."""
        if worker.ending is None:
            worker.is_spent = True
            death = await worker.kernel.death()
            text = death or how or "the kernel died"
            return errors.KernelDied(f"{text[:1].upper()}{text[1:]}.")
        if worker.ending == TIMEOUT:
            return errors.CallTimeout(f"The endpoint took longer than {self.settings.timeout:g} s.")
        return errors.Stopping() if worker.ending == STOPPING else Abandoned()

    # How many there are

    def _want(self, number: int) -> None:
        if not self.is_retired:
            self._wanted = max(self._wanted, number)
        self._fill()

    def _fill(self) -> None:
        """Start what is missing: of a crew that is to end, only what somebody waits for."""
        if self._is_stopped or time.monotonic() < self._blocked_until:
            return
        wanted = self._wanted if not self._waiting else max(1, self._wanted)
        while self.number < wanted:
            self._watch()
            task = asyncio.create_task(self._start(), name="jupyter_nbexec service kernel")
            self._starting.add(task)
            task.add_done_callback(self._started)

    async def _start(self) -> None:
        try:
            worker = await self._hire()
        except errors.NbexecError as error:
            self._note_failure(error)
        except Exception as error:
            self._log.exception("a kernel of a service cannot be made ready")
            self._note_failure(errors.NbexecError(f"Internal error: {type(error).__name__}."))
        else:
            self._failure, self._attempts = None, 0
            self._make_available(worker)

    def _give_up_starting(self) -> None:
        for task in self._starting - self._given_up:
            self._given_up.add(task)
            task.cancel()

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting.discard(task)
        self._given_up.discard(task)
        if self._failure is not None and not self.number:
            # None of those who wait would ever be served.
            while self._waiting:
                self._reject(self._waiting.popleft(), self._failure)
        self._fill()

    def _note_failure(self, error: errors.NbexecError) -> None:
        self._attempts += 1
        if isinstance(error, KernelLost) and self._attempts < ATTEMPTS:
            return
        self._failure, self._attempts = error, 0
        self._blocked_until = time.monotonic() + BACK_OFF
        # The next call will try again; nobody else asks for it.
        self._wanted = min(self._wanted, self.number - 1)
        self._log.warning("a kernel of a service cannot be made ready: %s", error.message)

    def _reject(self, call: Call, error: Exception) -> None:
        if call.waiting is not None and not call.waiting.done():
            # Each has its own, which keeps nothing of the others' requests.
            call.waiting.set_exception(copy.copy(error))

    def _note_load(self) -> None:
        self._peak = max(self._peak, len(self._busy) + len(self._waiting))

    def _shrink(self) -> None:
        """End idle kernels that nobody needs."""
        while self._idle and self.number > self._wanted:
            self._later(self._end(self._idle.popleft(), is_asked=True))

    # What is looked at now and then

    def _watch(self) -> None:
        if self._janitor is None or self._janitor.done():
            self._janitor = asyncio.create_task(self._look_after(), name="jupyter_nbexec service")

    async def _look_after(self) -> None:
        """Notice deaths and deadlines, and have as many kernels as are needed; ends when there is nothing."""
        while self.number or self._waiting or self._wanted:
            await asyncio.sleep(TICK if self.is_used else SLOW_TICK)
            try:
                await self._look()
            except Exception:
                # Without these looks calls would wait for ever.
                self._log.exception("kernels of a service")

    async def _look(self) -> None:
        for worker in list(self._busy):
            await self._look_at_busy(worker)
        for worker in list(self._idle):
            await self._look_at_idle(worker)
        for worker in list(self._recovering):
            if not await worker.is_alive():
                worker.line.lose("the kernel died")
        self._adapt()

    async def _look_at_busy(self, worker: Worker) -> None:
        is_alive = await worker.is_alive()
        if worker.deadline is None or worker not in self._busy:
            return
        if not is_alive:
            worker.line.lose(await worker.kernel.death() or "the kernel died")
        elif time.monotonic() >= worker.deadline:
            worker.end_call(TIMEOUT)

    async def _look_at_idle(self, worker: Worker) -> None:
        is_alive = await worker.is_alive()
        if worker not in self._idle:
            return
        if not is_alive:
            self._idle.remove(worker)
            self._lose(worker)
            return
        worker.line.tend()

    def _adapt(self) -> None:
        """Start a further kernel where somebody waits; end those that were not needed for some time."""
        now = time.monotonic()
        settings = self.settings
        # For whom a kernel is about to be there, that one has answered others too long is no reason to go.
        is_hopeful = bool(self._starting or self._recovering)
        patience = settings.timeout + (settings.start_timeout if is_hopeful else 0.0)
        for call in list(self._waiting):
            if settings.timeout and now - call.since > patience:
                self._reject(call, errors.CallTimeout(f"No kernel was free for {patience:g} s."))
        if self._waiting and now - self._waiting[0].since > PATIENCE and not self._starting:
            self._want(min(self.number + 1, settings.max_kernels))
        if settings.idle_timeout and now - self._looked > settings.idle_timeout:
            self._wanted = max(settings.min_kernels, min(self._wanted, self._peak))
            self._peak, self._looked = len(self._busy) + len(self._waiting), now
        self._fill()
        self._shrink()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._leaving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("the end of a service's kernel", exc_info=error)


def refusal(error: Exception) -> errors.NbexecError:
    """Say why no kernel could be made ready."""
    if (what := errors.shortage(error)) is not None:
        return errors.OutOfResources(what)
    if isinstance(error, execute.CannotPrepare) and error.failure is not None:
        failure = error.failure
        return errors.CellFailed(
            f"A cell that prepares the notebook failed: {failure.ename}: {failure.evalue}",
            ename=failure.ename,
            evalue=failure.evalue,
        )
    if isinstance(error, kernels.KernelStartError):
        text = str(error)
        return errors.KernelStartFailed(f"{text[:1].upper()}{text[1:]}.")
    if isinstance(error, execute.StartTimeoutError):
        return errors.KernelStartFailed("The kernel did not answer in time.")
    if isinstance(error, execute.CannotPrepare) and error.is_late:
        return errors.KernelStartFailed("The cells that prepare the notebook took too long.")
    return KernelLost()
