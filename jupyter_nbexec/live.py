"""A run while this server has it: in its queue, or being executed."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from jupyter_nbexec import background, broadcast, documents, execute, models, planning, watch


@dataclass(frozen=True, kw_only=True)
class View:
    """A run as it is at one moment, with its notebook as far as that has been executed."""

    record: models.RunRecord
    notebook: dict[str, Any] | None = None
    origins: documents.Origins = ()
    size: int = background.UNKNOWN_SIZE  #: of all that, in bytes; roughly


@dataclass(eq=False, kw_only=True)
class Run:
    """One run. Everything here happens on the server's event loop."""

    admitted: models.RunRecord  #: as it was when it was admitted
    plan: planning.Plan | None
    #: URL path of `/api/nbexec`, for the links in its events.
    service: str
    status: models.RunStatus = models.RunStatus.QUEUED
    owner: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    kernel: models.KernelInfo | None = None
    error: models.RunError | None = None
    #: Contents path the executed notebook was saved under.
    saved_as: str | None = None
    warnings: list[str] = field(default_factory=list)
    execution: execute.Execution | None = None
    #: For each cell of the executed notebook: index and id in the stored one; None for the injected cell.
    origins: list[tuple[int, str | None] | None] = field(default_factory=list)
    #: Index of the last cell of the executed notebook that is to be executed.
    last_cell: int | None = None
    #: Seconds by phase: `queue`, `kernel`, `run`, and `total`.
    timing: dict[str, float] = field(default_factory=dict)
    #: Why its end is asked for; the first reason counts.
    ending: watch.Ending | None = None
    events: broadcast.EventLog = field(default_factory=broadcast.EventLog)
    #: Set when there is something new to save.
    has_progressed: asyncio.Event = field(default_factory=asyncio.Event)
    #: Whether it has one of the places that detached runs may have.
    is_from_store: bool = False
    #: Whether a cell may have been sent to a kernel.
    has_begun: bool = False
    #: Whether this server does no more with it, though it has not ended.
    was_let_go: bool = False
    #: How another server has closed it, if one did.
    closed_elsewhere: models.RunRecord | None = None
    #: Set when its end is asked for.
    is_to_end: asyncio.Event = field(default_factory=asyncio.Event)
    _watch: watch.Watch | None = None
    _clock: float = 0.0
    _has_ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        waited = (now() - self.admitted.created).total_seconds()
        self._clock = time.monotonic() - max(0.0, waited)
        self.owner = self.admitted.owner
        self.warnings = list(self.admitted.warnings)
        # The same, whoever takes the run and whenever.
        self.publish("status", documents.brief(as_queued(self.admitted), service=self.service))

    @property
    def id(self) -> str:
        """Its id."""
        return self.admitted.id

    async def wait(self) -> None:
        """Wait until it has ended."""
        await self._has_ended.wait()

    def ask_to_end(self, reason: watch.Ending) -> None:
        """Ask for its end."""
        self.ending = self.ending or reason
        self.is_to_end.set()
        if self._watch is not None:
            self._watch.end(self.ending)

    def watch_by(self, watcher: watch.Watch) -> None:
        """Have it watched; a wish for its end that came before is passed on."""
        self._watch = watcher
        if self.ending is not None:
            watcher.end(self.ending)

    def begin(self, owner: str) -> None:
        """Note that it is executed from now on, by this server."""
        self.owner, self.status, self.started = owner, models.RunStatus.RUNNING, now()
        self.mark_phase("queue")
        self.publish_status()

    def mark_phase(self, phase: str) -> None:
        """Note that a phase has ended now."""
        if phase not in self.timing:
            self.timing[phase] = time.monotonic() - self._clock - sum(self.timing.values())

    def deadline(self, timeout: float) -> float:
        """When it has taken `timeout` seconds since it was started, by `time.monotonic`."""
        return self._clock + self.timing["queue"] + timeout

    def fail(self, code: models.ErrorCode, message: str) -> None:
        """Note why it cannot even begin."""
        self.error = models.RunError(code=code, message=message)

    def judge(self) -> None:
        """Say how it has ended."""
        self.ended = now()
        if self.ending is watch.Ending.STOP and self.execution is None and self.error is None:
            self.error = models.RunError(
                code=models.ErrorCode.SERVER_STOPPED,
                message="The server stopped before the run had started.",
            )
        if self.error is not None:
            self.status = models.RunStatus.FAILED
        elif self.is_complete:
            self.status = models.RunStatus.SUCCEEDED
        else:
            self.status = models.RunStatus.CANCELLED
        self.timing["total"] = time.monotonic() - self._clock

    def close(self, end: dict[str, Any]) -> None:
        """Let those know who wait or follow; `end` is the whole run."""
        self.publish("end", end)
        self.events.close()
        self._has_ended.set()

    def let_go(self) -> None:
        """Let those know who wait or follow that this server will do no more with it."""
        self.was_let_go = True
        self.events.close()
        self._has_ended.set()

    def publish(self, kind: str, data: dict[str, Any]) -> None:
        """Tell those who follow."""
        self.events.append(kind, data)

    def publish_status(self) -> None:
        """Tell those who follow where it stands."""
        self.publish("status", documents.brief(self.record(), service=self.service))

    def publish_of_cell(self, kind: str, index: int | None, data: dict[str, Any]) -> None:
        """Tell those who follow what has happened in a cell of the executed notebook."""
        if kind == "cell" and data["state"] == "started":
            self.mark_phase("kernel")
        origin = None if index is None else self.origins[index]
        if index is not None and origin is None:
            return  # the injected cell has no place in the stored notebook
        cell, cell_id = origin or (None, None)
        self.publish(kind, {"cell": cell, "cell_id": cell_id, **data})
        # After the last cell all is stored in a moment anyway.
        if kind == "cell" and data["state"] == "ended" and index != self.last_cell:
            self.has_progressed.set()

    @property
    def final(self) -> models.RunRecord:
        """How it has ended, to all the world."""
        return self.closed_elsewhere or self.record()

    @property
    def is_to_move(self) -> bool:
        """Whether another server is to execute it, since this one stops and has not begun."""
        is_stopped = self.ending is watch.Ending.STOP and self.error is None
        return is_stopped and self.admitted.may_move and not self.has_begun

    @property
    def is_complete(self) -> bool:
        """Whether its notebook ended by itself, and well."""
        return self.execution is not None and self.execution.has_run_cells

    @property
    def progress(self) -> models.Progress:
        """How far it has come, in cells of the stored notebook."""
        if self.execution is None:
            return models.Progress()
        counted = [
            execute.is_executed(cell) and origin is not None
            for cell, origin in zip(self.execution.notebook.cells, self.origins, strict=True)
        ]
        is_running = self.execution.cell_started is not None and not self.status.is_final
        return models.Progress(
            done=sum(counted[index] for index in list(self.execution.done)),
            total=sum(counted),
            cell=self.stored_cell(self.execution.current)[0] if is_running else None,
        )

    def stored_cell(self, index: int | None) -> tuple[int | None, str | None]:
        """Index and id, in the stored notebook, of a cell of the executed one."""
        origin = None if index is None else self.origins[index]
        return (None, None) if origin is None else origin

    def record(self) -> models.RunRecord:
        """Write down where it stands."""
        execution = self.execution
        return dataclasses.replace(
            self.admitted,
            status=self.status,
            owner=self.owner,
            started=self.started,
            ended=self.ended,
            kernel=self.kernel,
            progress=self.progress,
            result=None if execution is None else execution.result,
            result_type=None if execution is None else execution.result_type,
            truncated=execution is not None and execution.is_truncated,
            error=self.error,
            saved_as=self.saved_as,
            warnings=tuple(self.warnings),
            timing=dict(self.timing),
        )


def as_queued(record: models.RunRecord) -> models.RunRecord:
    """Write a run as it was when it was admitted."""
    return models.RunRecord(
        id=record.id,
        created=record.created,
        request=record.request,
        kernel_name=record.kernel_name,
        delivery=None if record.delivery is None else initial(record.delivery),
    )


def initial(delivery: models.Delivery) -> models.Delivery:
    """Write a delivery as it was before anything was sent."""
    return models.Delivery(run_id=delivery.run_id, url=delivery.url, events=delivery.events)


def now() -> datetime:
    """The time in UTC, to the millisecond, as it is told and stored."""
    moment = datetime.now(tz=timezone.utc)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
