"""The runs of a server: admitted under limits, queued, followed, ended exactly once, remembered.

Every run is a row of the store (`store.py`), committed before a client hears of it. There are two queues:

* Runs that a client waits for and that nobody else may go on with are queued in memory, each with its row.
* All others, *detached* ones, are queued in the store, where any server that shares it may take them.

When a place is free, the two queues take turns. Detached runs never have the last place, where there is more
than one: a flood of them does not keep somebody waiting who only wants an answer. Inside a queue it is first
come, first served.

Everything here happens on the server's event loop; the store is asked in threads. A run ends in
`RunManager._finish`, or, if its server has died, in `RunStore.recover`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import math
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

from jupyter_nbexec import (
    background,
    broadcast,
    documents,
    errors,
    live,
    membership,
    models,
    outputs,
    perform,
    planning,
    watch,
    webhooks,
)
from jupyter_nbexec import store as stores

T = TypeVar("T")

#: Seconds between two looks at a run that another server may have taken.
POLL = 1.0
#: Seconds between attempts to store how a run has ended.
RETRY = 2.0
#: Threads that ask the store.
STORE_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an administrator decides about the queue. Times in seconds; 0 stands for no limit."""

    max_concurrent_runs: int
    max_queued_runs: int
    max_queued_async_runs: int
    drain_timeout: float
    stop_timeout: float


@dataclass(frozen=True, kw_only=True)
class Claim:
    """On whose behalf a run is asked for, and how."""

    #: Whether nobody waits for it in this request.
    is_async: bool = False
    #: Whether it goes on when nobody waits for it any more.
    is_detached: bool = False
    user: str | None = None
    key: str | None = None
    fingerprint: str | None = None


class Listener(Protocol):
    """Who is told what becomes of runs."""

    def run_queued(self, record: models.RunRecord) -> None:
        """A run was admitted, or waits again."""

    def run_started(self, record: models.RunRecord) -> None:
        """A run is executed from now on."""

    def run_ended(self, record: models.RunRecord) -> None:
        """A run has ended."""

    def set_queue_length(self, length: int) -> None:
        """So many runs wait."""

    def set_stranded(self, number: int) -> None:
        """So many runs wait in the store that this server cannot execute."""


class RunManager:
    """All that can be done with runs."""

    def __init__(
        self,
        *,
        settings: Settings,
        retention: membership.Retention,
        store: stores.RunStore,
        performer: perform.Performer,
        restore: Callable[[models.RunRecord, bytes], Awaitable[planning.Plan]],
        obstacle: Callable[[models.Waiting], Awaitable[str | None]],
        deliver: Callable[[str, models.Webhook], models.Delivery],
        on_delivery_due: Callable[[], object],
        listener: Listener,
        service: str,
        log: logging.Logger | logging.LoggerAdapter[Any],
    ) -> None:
        """Take the parts.

        `restore` makes a plan of what the store holds, and `obstacle` says why this server cannot execute it,
        if it cannot. `deliver` checks a webhook and makes its delivery, and
        `on_delivery_due` is called when one may be due. `service` is the URL path of `/api/nbexec`.
        """
        self.settings = settings
        self.service = service
        self._store = store
        self._performer = performer
        self._restore = restore
        self._obstacle = obstacle
        self._deliver = deliver
        self._on_delivery_due = on_delivery_due
        self._listener = listener
        self._log = log
        self._membership = membership.Membership(
            store, retention=retention, on_beat=self._on_beat_in_thread, log=log
        )
        self._threads = background.Pool("jupyter_nbexec-store", STORE_THREADS)
        self._starting = asyncio.Lock()
        self._is_started = False
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Runs of this server that have not ended, or whose end is not stored yet.
        self._runs: dict[str, live.Run] = {}
        self._waiting: deque[live.Run] = deque()
        #: How many are being stored before they wait.
        self._entering = 0
        self._running: dict[str, asyncio.Task[None]] = {}
        #: Places that are taken, and those of them that detached runs have.
        self._taken = self._taken_by_detached = 0
        self._was_detached = False
        #: Values of `env` of detached runs, which are not stored.
        self._environments: dict[str, dict[str, str]] = {}
        #: For each key that is being looked for.
        self._keys: WeakValueDictionary[tuple[str | None, str], asyncio.Lock] = WeakValueDictionary()
        self._may_have_stored = True
        self._queued = 0
        #: How far the stored queue was looked through since the last heartbeat, as the number of a run; and
        #: why this server cannot execute what it has found there, by the run's id.
        self._looked_at = 0
        self._found: dict[str, str] = {}
        #: The same of the last time that it was looked through to its end.
        self._stranded: dict[str, str] = {}
        #: Ids of runs that were this server's at the last heartbeat, though it knows nothing of them.
        self._strays: set[str] = set()
        self._filling: asyncio.Task[None] | None = None
        #: Ids of runs that have ended since the store was asked for the next one.
        self._ended_meanwhile: set[str] = set()
        self._changed = asyncio.Event()
        #: Set when all runs have ended, and nobody will be told any more.
        self.has_stopped = asyncio.Event()
        self._durations: deque[float] = deque(maxlen=20)

    # Life

    async def start(self) -> None:
        """Open the store, close what was left, take up the queue. Does nothing if that has been done.

        Raises StorageUnavailable, and Stopping once it was stopped.
        """
        async with self._starting:
            if self._is_started:
                return
            if self._is_stopping:
                raise errors.Stopping
            self._loop = asyncio.get_running_loop()
            await self._ask(self._store.open)
            # What joining closes is still counted; the first heartbeat knows better.
            self._queued = await self._ask(self._store.queued)
            self._may_have_stored = self._queued > 0
            # The last that may fail: who has joined has a heart that beats, and cannot join again.
            for record in await self._ask(self._membership.join):
                self._log.warning("run %s: closed, since its server has died", record.id)
                self._listener.run_ended(record)
            self._is_started = True
        self._on_delivery_due()
        self._fill()

    async def stop(self) -> None:
        """Take no more runs, give those there are the time to drain, end the rest, and wait for it."""
        self._is_stopping = True
        while self._waiting:
            run = self._waiting.popleft()
            if run.admitted.may_move:
                # It stays in the store; `leave` gives it to whoever comes next.
                del self._runs[run.id]
                run.let_go()
                continue
            run.ask_to_end(watch.Ending.STOP)
            self._running[run.id] = asyncio.create_task(self._finish(run))
        self._notify()
        if self._filling is not None:
            await asyncio.wait({self._filling})
        if self._running and self.settings.drain_timeout:
            seconds = self.settings.drain_timeout
            self._log.info("%d runs may still end within %g s", len(self._running), seconds)
            await asyncio.wait(self._running.values(), timeout=seconds)
        for run in list(self._runs.values()):
            run.ask_to_end(watch.Ending.STOP)
        if self._running:
            _, late = await asyncio.wait(self._running.values(), timeout=self.settings.stop_timeout or None)
            for task in late:
                self._log.error("%s has not ended in time", task.get_name())
        self.has_stopped.set()
        if self._is_started:
            self._is_started = False
            try:
                await self._ask(self._membership.leave)
            except errors.StorageUnavailable:
                self._log.error("what was left is closed when a server is started again")
        await self._performer.stop()
        await background.run(self._store.close)
        self._threads.stop()

    @property
    def unfinished(self) -> int:
        """How many runs are executed here or wait, but for those that this server cannot execute."""
        return len(self._runs) + max(0, self._queued - len(self._stranded))

    # Admission

    def check_capacity(self, *, is_async: bool) -> None:
        """Raise QueueFull or Stopping if no run can be admitted now."""
        if self._is_stopping:
            raise errors.Stopping
        if is_async:
            if self._queued >= self.settings.max_queued_async_runs:
                raise errors.QueueFull(self._retry_after())
        elif self._free <= 0 and len(self._waiting) + self._entering >= self.settings.max_queued_runs:
            raise errors.QueueFull(self._retry_after())

    def one_by_one(self, claim: Claim) -> asyncio.Lock:
        """Keep apart requests with the same key from `find` to `submit`: the first makes room for all."""
        if claim.key is None:
            return asyncio.Lock()
        return self._keys.setdefault((claim.user, claim.key), asyncio.Lock())

    async def find(self, claim: Claim) -> models.RunRecord | None:
        """Find the run that this claim's key stands for. Raises IdempotencyMismatch, StorageUnavailable."""
        if claim.key is None:
            return None
        await self.start()
        found = await self._ask(self._store.find_key, claim.user, claim.key)
        if found is not None and found.fingerprint != claim.fingerprint:
            raise errors.IdempotencyMismatch
        return found

    async def submit(self, plan: planning.Plan, claim: Claim) -> tuple[models.RunRecord, bool]:
        """Admit a run; when this returns, it is stored. False if the claim's key stands for an earlier one.

        Raises QueueFull, Stopping, IdempotencyMismatch, StorageUnavailable, and what `deliver` raises.
        """
        await self.start()
        request = plan.request
        run_id = str(uuid.uuid4())
        is_bound = not claim.is_async or bool(request.env) or request.kernel_id is not None
        record = models.RunRecord(
            id=run_id,
            created=live.now(),
            request=dataclasses.replace(request, env={}, notebook=None, webhook=None),
            kernel_name=plan.kernel_name,
            warnings=tuple(plan.notebook.warnings),
            user=claim.user,
            key=claim.key,
            fingerprint=claim.fingerprint,
            owner=self._membership.id if is_bound else None,
            is_detached=claim.is_detached or claim.is_async,
            has_env=bool(request.env),
            delivery=None if request.webhook is None else self._deliver(run_id, request.webhook),
        )
        content = await background.offload(plan.size, _pack_unexecuted, plan)
        if claim.is_async:
            return await self._submit_async(record, content, plan)
        return await self._submit_attached(record, content, plan)

    async def _submit_async(
        self, record: models.RunRecord, content: bytes, plan: planning.Plan
    ) -> tuple[models.RunRecord, bool]:
        # Nothing is waited for between this and the place that is taken: many come at once.
        self.check_capacity(is_async=True)
        if record.has_env:
            self._environments[record.id] = plan.request.env
        self._set_queued(self._queued + 1)
        try:
            stored = await self._ask(self._store.add, record, content)
        except BaseException as error:
            self._environments.pop(record.id, None)
            self._set_queued(self._queued - 1)
            if isinstance(error, stores.DuplicateKey):
                return await self._earlier(record, error), False
            raise
        self._listener.run_queued(stored)
        self._look_again(stored.number - 1)
        self._fill()
        return stored, True

    async def _submit_attached(
        self, record: models.RunRecord, content: bytes, plan: planning.Plan
    ) -> tuple[models.RunRecord, bool]:
        # Nothing is waited for between this and the place that is taken: many come at once.
        self.check_capacity(is_async=False)
        run = live.Run(admitted=record, plan=plan, service=self.service)
        is_at_once = self._free > 0 and not self._waiting and not self._entering
        if is_at_once:
            self._take(run)
            run.begin(self._membership.id)
        else:
            self._entering += 1
        # While it is being stored it can be found: who cancels it must not have to wait for that.
        self._runs[run.id] = run
        try:
            run.admitted = await self._ask(self._store.add, run.record(), content)
        except BaseException as error:
            del self._runs[run.id]
            if is_at_once:
                self._release(run)
            if isinstance(error, stores.DuplicateKey):
                return await self._earlier(record, error), False
            raise
        finally:
            self._entering -= not is_at_once
        self._listener.run_queued(run.admitted)
        if is_at_once:
            self._perform(run)
        elif self._is_stopping or run.ending is not None:
            run.ask_to_end(watch.Ending.STOP)
            self._running[run.id] = asyncio.create_task(self._finish(run))
        elif run.status is models.RunStatus.QUEUED:  # else the store has given it a place already
            self._waiting.append(run)
            self._fill()
        return run.admitted, True

    async def _earlier(self, record: models.RunRecord, error: stores.DuplicateKey) -> models.RunRecord:
        """Find the run that another request with the same key was faster to make."""
        if error.fingerprint != record.fingerprint:
            raise errors.IdempotencyMismatch
        return await self._get(error.run_id)

    def _retry_after(self) -> int:
        """Seconds until a place in the queue is likely to be free."""
        usual = sum(self._durations) / len(self._durations) if self._durations else 1.0
        return max(1, min(60, math.ceil(usual / self.settings.max_concurrent_runs)))

    # The queue

    @property
    def _free(self) -> int:
        return self.settings.max_concurrent_runs - self._taken

    @property
    def _free_for_detached(self) -> int:
        most = max(1, self.settings.max_concurrent_runs - 1)
        return min(self._free, most - self._taken_by_detached)

    def _take(self, run: live.Run, *, from_store: bool = False) -> None:
        self._taken += 1
        run.is_from_store = from_store
        self._taken_by_detached += from_store

    def _release(self, run: live.Run) -> None:
        self._taken -= 1
        self._taken_by_detached -= run.is_from_store
        self._fill()

    def _fill(self) -> None:
        """See to it that free places are taken."""
        if self._is_stopping or not self._is_started:
            return
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill_places())

    async def _fill_places(self) -> None:
        while not self._is_stopping:
            may_take_detached = self._may_have_stored and self._free_for_detached > 0
            if self._waiting and self._free > 0 and not (may_take_detached and not self._was_detached):
                self._was_detached = False
                await self._begin_waiting(self._waiting.popleft())
            elif may_take_detached:
                self._was_detached = True
                await self._begin_stored()
            else:
                return

    async def _begin_waiting(self, run: live.Run) -> None:
        self._take(run)
        run.begin(self._membership.id)
        if await self._claim(run):
            self._perform(run)
        else:
            run.ask_to_end(watch.Ending.STOP)
            self._running[run.id] = asyncio.create_task(self._finish_and_release(run))

    async def _claim(self, run: live.Run) -> bool:
        """Have the store note that a run begins. False: it shall not, or others have closed it."""
        while True:
            try:
                if await self._ask(self._store.claim, run.id, self._membership.id, run.started) is not None:
                    return True
                # Closed while this server was held for dead; or given to it before, and that answer was lost.
                record = await self._ask(self._store.get, run.id)
            except errors.StorageUnavailable:
                if self._is_stopping or run.ending is not None:
                    return False
                self._log.error("run %s: its start is not stored yet", run.id)
                await self._change(RETRY)
            else:
                if record is None or record.status is not models.RunStatus.RUNNING:
                    return False
                return record.owner == self._membership.id

    async def _begin_stored(self) -> None:
        """Take the next run from the store, if there is one."""
        self._may_have_stored = False
        # The place is taken before the store is asked: what is claimed must be executed.
        self._taken += 1
        self._taken_by_detached += 1
        run = None
        self._ended_meanwhile.clear()
        try:
            claimed = await self._claim_stored()
            if claimed is not None:
                self._may_have_stored = True
                self._set_queued(max(0, self._queued - 1))
                run = await self._take_claimed(*claimed)
        except errors.StorageUnavailable:
            self._log.error("the queue cannot be read; it is tried again with the next heartbeat")
        finally:
            if run is None:
                self._taken -= 1
                self._taken_by_detached -= 1
        if run is not None:
            run.is_from_store = True
            self._notify()
            if run.error is None and run.ending is None:
                self._perform(run)
            else:
                self._running[run.id] = asyncio.create_task(self._finish_and_release(run))

    async def _claim_stored(self) -> tuple[models.RunRecord, bytes] | None:
        """Claim the first run in the store that this server can execute; None: none waits."""
        obstacles: dict[tuple[str, str | None], str | None] = {}
        while not self._is_stopping:
            waiting = await self._ask(self._store.waiting, self._membership.id, self._looked_at)
            if not waiting:
                self._set_stranded(self._found)
                return None
            fit = []
            for each in waiting:
                kind = (each.kernel_name, each.path)
                if kind not in obstacles:
                    obstacles[kind] = await self._obstacle(each)
                obstacle = obstacles[kind]
                # What nobody else may have is executed here, or else fails here.
                if obstacle is None or each.is_bound:
                    fit.append(each.number)
                else:
                    self._found[each.id] = obstacle
                if not fit:
                    self._looked_at = each.number
            if fit:
                claimed = await self._ask(self._store.claim_next, self._membership.id, live.now(), fit)
                if claimed is not None:
                    return claimed
                # Others were faster.
                self._looked_at = waiting[-1].number
        return None

    def _look_again(self, after: int = 0) -> None:
        """Look through the stored queue again, for runs with a larger number than `after`."""
        self._may_have_stored = True
        self._looked_at = min(self._looked_at, after)

    def _set_stranded(self, stranded: dict[str, str]) -> None:
        """Say of which runs in the store this server knows that it cannot execute them."""
        for obstacle in sorted(set(stranded.values()) - set(self._stranded.values())):
            self._log.warning("runs wait that this server leaves to others: %s", obstacle)
        self._stranded = dict(stranded)
        self._listener.set_stranded(len(stranded))

    async def _take_claimed(self, record: models.RunRecord, content: bytes) -> live.Run | None:
        """Find or make the run that the store has given; None if it has ended while it did.

        Somebody may wait for a detached run: then it is in the other queue, too.
        """
        if record.id in self._ended_meanwhile or record.id in self._running:
            return None
        run = self._runs.get(record.id)
        if run is None:
            return await self._revive(record, content)
        if run in self._waiting:
            self._waiting.remove(run)
        run.begin(self._membership.id)
        return run

    async def _revive(self, record: models.RunRecord, content: bytes) -> live.Run:
        """Make a run of what the store holds."""
        environment = self._environments.pop(record.id, None)
        run = live.Run(admitted=record, plan=None, service=self.service)
        self._runs[run.id] = run
        run.begin(self._membership.id)
        if record.has_env and environment is None:
            message = "The server that had the environment of the run has stopped."
            run.fail(models.ErrorCode.SERVER_STOPPED, message)
            return run
        try:
            plan = await self._restore(record, content)
            request = dataclasses.replace(plan.request, env=environment or {})
            run.plan = dataclasses.replace(plan, request=request)
        except errors.NbexecError as error:
            run.fail(models.ErrorCode.KERNEL_START_FAILED, error.message)
        except Exception:
            self._log.exception("run %s: what is stored of it cannot be read", run.id)
            run.fail(models.ErrorCode.INTERNAL_ERROR, f"Internal error; the log has it under {run.id}.")
        return run

    def _perform(self, run: live.Run) -> None:
        self._listener.run_started(run.record())
        self._running[run.id] = asyncio.create_task(self._perform_and_finish(run), name=f"run {run.id}")

    async def _perform_and_finish(self, run: live.Run) -> None:
        try:
            await self._performer.perform(run, self._note_beginning, self._save_progress)
        finally:
            await self._finish_and_release(run)

    async def _finish_and_release(self, run: live.Run) -> None:
        try:
            await self._finish(run)
        finally:
            self._release(run)

    async def _note_beginning(self, run: live.Run) -> bool:
        """Have the store note that cells are sent from now on. False: they must not be."""
        if not run.admitted.may_move:
            return True
        while True:
            if run.ending is watch.Ending.STOP:
                return False
            try:
                return await self._ask(self._store.begin, run.id, self._membership.id)
            except errors.StorageUnavailable:
                if run.ending is not None:
                    return False
                self._log.error("run %s: that it begins is not stored yet", run.id)
                await self._change(RETRY)

    async def _save_progress(self, run: live.Run, record: models.RunRecord, content: bytes) -> None:
        """Store what has been executed so far; that this fails is no reason to end the run."""
        try:
            events = await background.run(outputs.dumps, run.events.dump())
            await self._ask(self._store.save_progress, record, content, events)
        except errors.StorageUnavailable:
            self._log.error("run %s: its progress is not saved", run.id)

    async def _finish(self, run: live.Run) -> None:
        """End a run. The only place where that happens, as long as its server lives."""
        if run.is_to_move and await self._give_back(run):
            return
        run.judge()
        view = await self._performer.view(run)
        content, events = await self._pack_end(run, view)
        run.closed_elsewhere = await self._store_end(view.record, content, events)
        final = run.final
        run.close(await self._describe_end(final, view))
        if final.duration is not None:
            self._durations.append(final.duration)
        self._running.pop(run.id, None)
        self._runs.pop(run.id, None)
        self._ended_meanwhile.add(run.id)
        self._notify()
        self._listener.run_ended(final)
        code = "" if final.error is None else f" ({final.error.code.value})"
        self._log.info("run %s: %s%s", run.id, final.status.value, code)
        if final.delivery is not None:
            self._on_delivery_due()

    async def _give_back(self, run: live.Run) -> bool:
        """Leave a run that has not begun to whoever comes next. False: it has ended, or is to end here."""
        try:
            if not await self._ask(self._store.give_back, run.id, self._membership.id):
                record = await self._ask(self._store.get, run.id)
                if record is None or record.status.is_final or record.owner == self._membership.id:
                    return False
        except errors.StorageUnavailable:
            self._log.error("run %s: it is given back with a later heartbeat, or by other servers", run.id)
        self._running.pop(run.id, None)
        self._runs.pop(run.id, None)
        run.let_go()
        self._look_again()
        self._notify()
        self._listener.run_queued(live.as_queued(run.admitted))
        self._log.info("run %s: left to other servers, since it had not begun", run.id)
        return True

    async def _pack_end(self, run: live.Run, view: live.View) -> tuple[bytes | None, bytes | None]:
        """Write notebook and events for the store; without them the run ends all the same."""
        if view.notebook is None:
            return None, None
        try:
            content = await background.offload(view.size, documents.pack, view.notebook, view.origins)
            return content, await background.offload(view.size, outputs.dumps, run.events.dump())
        except Exception:
            self._log.exception("run %s: its notebook cannot be stored", run.id)
            return None, None

    async def _describe_end(self, final: models.RunRecord, view: live.View) -> dict[str, Any]:
        """What the last event says."""
        try:
            return await background.offload(
                view.size,
                documents.complete,
                final,
                view.notebook,
                view.origins,
                service=self.service,
            )
        except Exception:
            self._log.exception("run %s: its outputs cannot be told", final.id)
            return {**documents.brief(final, service=self.service), "outputs": [], "scraps": {}}

    async def _store_end(
        self, record: models.RunRecord, content: bytes | None, events: bytes | None
    ) -> models.RunRecord | None:
        """Store how a run has ended; how others have closed it, or will, if that is what counts."""
        while True:
            try:
                if await self._ask(self._store.finish, record, content, events):
                    return None
                self._log.error("run %s: this server was held for dead, and the run closed", record.id)
                return await self._ask(self._store.get, record.id)
            except errors.StorageUnavailable:
                if self._is_stopping:
                    # The next server finds it unfinished, and says just this.
                    message = "The server stopped before the end of the run was stored."
                    error = models.RunError(code=models.ErrorCode.SERVER_STOPPED, message=message)
                    return dataclasses.replace(record, status=models.RunStatus.FAILED, error=error)
                self._log.error("run %s: its end is not stored yet", record.id)
                await self._change(RETRY)

    # Heartbeats

    def _on_beat_in_thread(self, beat: membership.Beat) -> None:
        if self._loop is not None and not self._is_stopping:
            self._loop.call_soon_threadsafe(self._on_beat, beat)

    def _on_beat(self, beat: membership.Beat) -> None:
        if not beat.is_alive:
            self._log.error("the other servers hold this one for dead: its runs are ended")
            # What it owns all the same came later: to a store that was taken away and is begun anew.
            for run in list(self._runs.values()):
                if run.id not in beat.owned:
                    run.ask_to_end(watch.Ending.STOP)
        for record in beat.closed:
            self._log.warning("run %s: closed, since its server has died", record.id)
            self._listener.run_ended(record)
        for run_id in beat.cancelled:
            if run_id in self._runs:
                self._runs[run_id].ask_to_end(watch.Ending.CANCEL)
        self._close_strays(beat.owned)
        self._set_queued(beat.queued)
        # What was counted may be older than the run that was submitted last.
        self._found = {}
        if beat.queued:
            self._look_again()
        else:
            self._set_stranded({})
        if beat.closed:
            self._on_delivery_due()
        self._fill()

    def _close_strays(self, owned: Collection[str]) -> None:
        """Give back, or close, runs that are this server's without its knowing: it was never told.

        That takes two heartbeats, since one may fall between the store's answer and what is done with it.
        """
        strays = set(owned) - self._runs.keys()
        for run_id in strays & self._strays - self._running.keys():
            self._running[run_id] = asyncio.create_task(self._close_stray(run_id))
        self._strays = strays

    async def _close_stray(self, run_id: str) -> None:
        try:
            record = await self._get(run_id)
            if run_id in self._runs or record.status.is_final or record.owner != self._membership.id:
                return
            if await self._ask(self._store.give_back, run_id, self._membership.id):
                self._log.error("run %s: it waits again, since an answer of the run store was lost", run_id)
                self._look_again()
                self._fill()
                return
            error = models.RunError(
                code=models.ErrorCode.INTERNAL_ERROR,
                message="The run was not executed, since an answer of the run store was lost.",
            )
            ended = dataclasses.replace(record, status=models.RunStatus.FAILED, ended=live.now(), error=error)
            if await self._ask(self._store.finish, ended, None, None):
                self._log.error("run %s: closed, since an answer of the run store was lost", run_id)
                self._listener.run_ended(ended)
                self._on_delivery_due()
        except (errors.StorageUnavailable, errors.RunNotFound):
            self._log.debug("run %s: to be closed later", run_id)
        finally:
            self._running.pop(run_id, None)

    def _set_queued(self, number: int) -> None:
        self._queued = number
        self._listener.set_queue_length(number + len(self._waiting))

    # One run

    async def get(self, run_id: str, user: str | None = None) -> models.RunRecord:
        """Read a run. Raises RunNotFound, StorageUnavailable."""
        run = self._runs.get(run_id)
        record = run.record() if run is not None else await self._get(run_id)
        if user is not None and record.user != user:
            raise errors.RunNotFound
        return self._with_warning(record)

    def _with_warning(self, record: models.RunRecord) -> models.RunRecord:
        """Say of a run that waits why this server does not execute it, if that is so."""
        obstacle = self._stranded.get(record.id)
        if obstacle is None or record.status is not models.RunStatus.QUEUED:
            return record
        warning = f"The server that was asked cannot execute the run. {obstacle} It waits for another server."
        return dataclasses.replace(record, warnings=(*record.warnings, warning))

    async def view(self, run_id: str) -> live.View:
        """Show a run with its outputs so far. Raises RunNotFound, StorageUnavailable."""
        run = self._runs.get(run_id)
        if run is not None:
            return await self._performer.view(run)
        record = await self._get(run_id)
        if record.started is None:
            return live.View(record=self._with_warning(record))
        content = await self._ask(self._store.content, run_id)
        if content is None:
            return live.View(record=record)
        notebook, origins = await background.run(documents.unpack, content)
        return live.View(record=record, notebook=notebook, origins=origins)

    async def wait(self, run_id: str, timeout: float | None = None) -> live.View:
        """Wait until a run has ended, but at most `timeout` seconds; how it is then."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            run = self._runs.get(run_id)
            if run is not None:
                await _wait(run.wait(), left)
                if run.was_let_go and not self._is_stopping:
                    continue
                view = await self._performer.view(run)
                return dataclasses.replace(view, record=run.final)
            record = await self._get(run_id)
            if record.status.is_final or left <= 0 or self._is_stopping:
                return await self.view(run_id)
            await self._change(min(left, POLL))

    async def follow(self, run_id: str, after: int = 0) -> AsyncGenerator[broadcast.Event, None]:
        """Give the events of a run with a larger id than `after`, from the first one to its end.

        Of a run that another server executes, events come when that one saves them, at the ends of cells.
        A server that stops ends this before the end of runs that are still queued.
        """
        while True:
            run = self._runs.get(run_id)
            if run is not None:
                async for event in run.events.follow(after):
                    yield event
                return
            record = await self._get(run_id)
            events = await self._stored_events(record)
            if after > events[-1].id:  # as `broadcast.EventLog.follow` has it
                after = events[-1].id - record.status.is_final
            for event in events:
                if event.id > after:
                    yield event
                    after = event.id
            if record.status.is_final or self._is_stopping:
                return
            await self._change(POLL)

    async def _stored_events(self, record: models.RunRecord) -> list[broadcast.Event]:
        saved = await self._ask(self._store.events, record.id)
        if saved is None:
            first = documents.brief(live.as_queued(record), service=self.service)
            events = [broadcast.Event(id=1, type="status", data=first)]
        else:
            dumped = await background.run(json.loads, saved)
            events = [
                dataclasses.replace(each, data=documents.addressed(each.data, service=self.service))
                for each in broadcast.load(dumped)
            ]
        if record.status.is_final:
            view = await self.view(record.id)
            end = await background.run(
                documents.complete, view.record, view.notebook, view.origins, service=self.service
            )
            last = events[-1].id if events else 0
            events.append(broadcast.Event(id=last + 1, type="end", data=end))
        return events

    async def cancel(self, run_id: str, reason: watch.Ending = watch.Ending.CANCEL) -> None:
        """End a run, wherever it stands. Raises RunEnded, RunNotFound, StorageUnavailable."""
        while True:
            run = self._runs.get(run_id)
            if run is not None:
                self._cancel_here(run, reason)
                return
            cancelled = await self._ask(self._store.cancel_queued, run_id, live.now())
            if cancelled is not None:
                self._environments.pop(run_id, None)
                self._set_queued(max(0, self._queued - 1))
                self._notify()
                self._listener.run_ended(cancelled)
                self._log.info("run %s: cancelled", run_id)
                self._on_delivery_due()
                return
            record = await self._get(run_id)
            if record.status.is_final:
                raise errors.RunEnded
            if record.owner != self._membership.id:
                await self._ask(self._store.request_cancel, run_id)
                return
            # It is between the queue and its place.
            if run_id not in self._runs:
                await self._change(POLL)

    def _cancel_here(self, run: live.Run, reason: watch.Ending) -> None:
        if run.status.is_final:
            if reason is watch.Ending.CANCEL and run.ending is not watch.Ending.CANCEL:
                raise errors.RunEnded
            return
        run.ask_to_end(reason)
        if run in self._waiting:
            self._waiting.remove(run)
            self._running[run.id] = asyncio.create_task(self._finish(run))

    def abandon(self, run_id: str) -> None:
        """End a run that nobody waits for any more; one that has ended stays as it is."""
        run = self._runs.get(run_id)
        if run is not None and not run.status.is_final:
            self._cancel_here(run, watch.Ending.CANCEL)

    async def delete(self, run_id: str) -> None:
        """Forget a run; one that has not ended is cancelled first. Raises RunNotFound, StorageUnavailable."""
        record = await self.get(run_id)
        if not record.status.is_final:
            try:
                await self.cancel(run_id)
            except errors.RunEnded:
                self._log.debug("run %s: has just ended", run_id)
            await self.wait(run_id)
        if not await self._ask(self._store.delete, run_id):
            raise errors.RunNotFound

    async def list_runs(
        self,
        *,
        path: str | None,
        status: models.RunStatus | None,
        user: str | None,
        limit: int,
        before: int | None,
    ) -> list[models.RunRecord]:
        """List runs, newest first, that were admitted before number `before`. Raises StorageUnavailable."""
        await self.start()

        def read() -> list[models.RunRecord]:
            return self._store.list(path=path, status=status, user=user, limit=limit, before=before)

        return [
            self._runs[each.id].record() if each.id in self._runs else each for each in await self._ask(read)
        ]

    async def prune(self) -> int:
        """Forget what is too old or too much, now; how many runs were forgotten."""
        await self.start()
        return await self._ask(self._membership.prune)

    # Deliveries

    async def take_due_deliveries(self, limit: int) -> list[models.Delivery]:
        """Take deliveries that are due; nobody else gets them before `webhooks.LEASE` is over."""
        return await self._ask(self._store.due_deliveries, live.now(), webhooks.LEASE, limit)

    async def next_delivery(self) -> datetime | None:
        """When the next delivery is due."""
        return await self._ask(self._store.next_delivery)

    async def mark_delivery(self, delivery: models.Delivery) -> None:
        """Store how far a delivery has come."""
        await self._ask(self._store.mark_delivery, delivery)

    async def payload(self, run_id: str) -> bytes | None:
        """What a webhook is told of a run; None if it was forgotten."""
        try:
            record = await self._get(run_id)
        except errors.RunNotFound:
            return None
        return webhooks.message(documents.brief(record, service=self.service), record.ended)

    # Means

    async def _get(self, run_id: str) -> models.RunRecord:
        await self.start()
        record = await self._ask(self._store.get, run_id)
        if record is None:
            raise errors.RunNotFound
        return record

    async def _ask(self, function: Callable[..., T], *args: Any) -> T:
        """Ask the store, in a thread. Raises StorageUnavailable."""
        try:
            return await asyncio.wrap_future(self._threads.submit(function, *args))
        except stores.StoreError as error:
            self._log.error("the run store: %s", error)
            raise errors.StorageUnavailable from error

    def _notify(self) -> None:
        """Wake all who wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self, timeout: float) -> None:
        await _wait(self._changed.wait(), timeout)


async def _wait(awaitable: Awaitable[object], timeout: float) -> None:
    """Wait for something, or until the time is over."""
    try:
        await asyncio.wait_for(awaitable, None if timeout == math.inf else max(0.0, timeout))
    except (TimeoutError, asyncio.TimeoutError):
        return


def _pack_unexecuted(plan: planning.Plan) -> bytes:
    notebook = plan.notebook
    return documents.pack(documents.without_outputs(notebook.content), list(enumerate(notebook.cell_ids)))
