"""The values that travel between the parts: frozen, and without behaviour of their own."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal, TypeAlias

JsonValue: TypeAlias = Any
"""What `json.loads` returns: None, bool, int, float, str, list or dict with string keys, nested."""


class _Missing(enum.Enum):
    """The type of `MISSING`."""

    MISSING = "missing"


MISSING = _Missing.MISSING
"""Stands for "no value", where None is a value."""


def to_timestamp(moment: datetime | None) -> str | None:
    """Write a time as ISO 8601 in UTC with milliseconds and `Z`; None stays None."""
    if moment is None:
        return None
    text = moment.astimezone(timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


class RunStatus(str, enum.Enum):
    """Where a run stands.

    queued ──> running ──> succeeded | failed | cancelled
       └───────────────────────────────> cancelled | failed (the server stops)
    """

    QUEUED = "queued"  #: admitted, waits for its turn
    RUNNING = "running"  #: has a kernel, or is getting one
    SUCCEEDED = "succeeded"  #: every cell ended well, or the notebook ended itself early
    FAILED = "failed"  #: see `error.code`
    CANCELLED = "cancelled"  #: by a client, or because the client that waited hung up

    @property
    def is_final(self) -> bool:
        """Whether the status can still change."""
        return self in (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED)


class ErrorCode(str, enum.Enum):
    """Why a run failed."""

    CELL_ERROR = "cell_error"  #: a cell raised
    TIMEOUT = "timeout"  #: the run, or one of its cells, took longer than allowed
    KERNEL_DIED = "kernel_died"  #: the kernel ended, or was restarted, under the run
    KERNEL_START_FAILED = "kernel_start_failed"  #: the kernel never became ready
    OUT_OF_RESOURCES = "out_of_resources"  #: the server has run out of descriptors, memory, or the like
    SERVER_STOPPED = "server_stopped"  #: the server stopped before the run had ended
    INTERNAL_ERROR = "internal_error"  #: a fault of this extension; the log has it under the run's id


@dataclass(frozen=True, kw_only=True)
class RunError:
    """Why a run failed, for a person and for a program."""

    code: ErrorCode
    message: str
    ename: str | None = None
    evalue: str | None = None
    traceback: list[str] = field(default_factory=list)
    cell: int | None = None  #: index in the stored notebook
    cell_id: str | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """The contract's `error` object."""
        return {**dataclasses.asdict(self), "code": self.code.value}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter that a notebook declares."""

    name: str
    type: str  #: JSON Schema's word for it (`integer`, `string`, …), or `any`
    schema: dict[str, JsonValue]  #: JSON Schema (2020-12) that a value must satisfy
    default: JsonValue = MISSING  #: MISSING where there is none, or where it is no literal
    default_source: str | None = None  #: the source of a default that is no literal
    description: str = ""

    @property
    def required(self) -> bool:
        """Whether a run must be given a value."""
        return self.default is MISSING and self.default_source is None

    def to_json(self) -> dict[str, JsonValue]:
        """The contract's entry of `parameters`."""
        described: dict[str, JsonValue] = {
            "name": self.name,
            "type": self.type,
            "default": None if self.default is MISSING else self.default,
            "required": self.required,
            "description": self.description,
        }
        if self.default_source is not None:
            described["default_source"] = self.default_source
        return described


@dataclass(frozen=True, kw_only=True)
class OutputSelection:
    """Which cells' outputs an answer carries."""

    kind: Literal["all", "last", "none", "tags"] = "all"
    tags: frozenset[str] = frozenset()  #: with `tags`: cells that carry any of these


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """Whom to tell when a run has ended."""

    url: str
    events: tuple[str, ...] = ("ended",)
    #: What the message is signed with, as `whsec_<base64>`; None: it is not signed. A secret; never shown.
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a client asks for, already checked as far as it can be without the notebook."""

    path: str | None = None  #: contents path; None where the notebook came in the body
    notebook: dict[str, JsonValue] | None = None  #: the notebook of the body
    parameters: dict[str, JsonValue] = field(default_factory=dict)
    kernel_name: str | None = None
    kernel_id: str | None = None
    timeout: float | None = None  #: seconds; None: the server's default
    cell_timeout: float | None = None  #: seconds; None: none
    allow_errors: bool | None = None  #: None: the notebook's own default, else False
    outputs: OutputSelection = OutputSelection()
    env: dict[str, str] = field(default_factory=dict, repr=False)  #: secrets; never shown
    save_as: str | None = None
    webhook: Webhook | None = None
    caller: str | None = None  #: the name of who asks, to be shown; None where they have none


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come, in code cells that are to be executed."""

    done: int = 0
    total: int = 0
    cell: int | None = None  #: index, in the stored notebook, of the cell that is running

    def to_json(self) -> dict[str, JsonValue]:
        """The contract's `progress` object."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class KernelInfo:
    """The kernel of a run."""

    name: str  #: of the kernelspec
    id: str | None = None  #: the server's kernel id; None before it has been started
    source: str | None = None  #: how it was made, such as `cold`

    def to_json(self) -> dict[str, JsonValue]:
        """The contract's `kernel` object."""
        return dataclasses.asdict(self)


class DeliveryState(str, enum.Enum):
    """Where the message about a run's end stands.

    waiting ──> pending ──> delivered | failed
    """

    WAITING = "waiting"  #: the run has not ended
    PENDING = "pending"  #: to be sent, or sent again
    DELIVERED = "delivered"  #: the receiver answered with 2xx
    FAILED = "failed"  #: given up, or refused for good (410 Gone)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """The message about a run's end, as far as it has come."""

    run_id: str
    url: str
    events: tuple[str, ...] = ("ended",)
    state: DeliveryState = DeliveryState.WAITING
    #: The secret, encrypted; only `webhooks` can read it.
    sealed_secret: bytes | None = field(default=None, repr=False)
    attempts: int = 0
    next_attempt: datetime | None = None  #: while pending
    last_attempt: datetime | None = None
    last_status: int | None = None  #: HTTP status of the last answer
    last_error: str | None = None  #: why the last attempt failed, for a person

    def to_json(self) -> dict[str, JsonValue]:
        """The `webhook` object of a run."""
        return {
            "url": self.url,
            "events": list(self.events),
            "state": self.state.value,
            "attempts": self.attempts,
            "next_attempt": to_timestamp(self.next_attempt),
            "last_attempt": to_timestamp(self.last_attempt),
            "last_status": self.last_status,
            "last_error": self.last_error,
        }


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What decides who can execute a run that waits in the store."""

    id: str
    number: int
    kernel_name: str
    path: str | None
    is_bound: bool  #: whether one server alone may have it


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run as the store keeps it, without its notebook, its events and its secrets."""

    id: str
    created: datetime
    #: What was asked for, without `env`, `notebook` and `webhook`.
    request: RunRequest
    kernel_name: str  #: of the kernelspec that was chosen
    status: RunStatus = RunStatus.QUEUED
    started: datetime | None = None
    ended: datetime | None = None
    kernel: KernelInfo | None = None
    progress: Progress = Progress()
    result: JsonValue = None
    result_type: str | None = None
    truncated: bool = False
    error: RunError | None = None
    saved_as: str | None = None
    warnings: tuple[str, ...] = ()
    #: Seconds by phase: `queue`, `kernel`, `run`, `total`.
    timing: dict[str, float] = field(default_factory=dict)
    #: Who asked for it, where users have names that last; else None.
    user: str | None = None
    #: The Idempotency-Key, and what tells whether another request with it is the same.
    key: str | None = None
    fingerprint: str | None = None
    #: Id of the server that has, or alone may have, this run; None: any server may take it.
    owner: str | None = None
    #: Whether it goes on without the client that asked for it.
    is_detached: bool = False
    #: Whether the request had an `env`, which is not stored.
    has_env: bool = False
    #: Whether a client wants it cancelled.
    is_cancel_requested: bool = False
    #: Place in the order of admission; the store gives it.
    number: int = 0
    delivery: Delivery | None = None

    @property
    def path(self) -> str | None:
        """Contents path of the notebook; None if it came with the request."""
        return self.request.path

    @property
    def may_move(self) -> bool:
        """Whether another server may execute it, as long as it has not begun."""
        return self.is_detached and not self.has_env

    @property
    def duration(self) -> float | None:
        """Seconds from start to end."""
        if self.started is None or self.ended is None:
            return None
        return (self.ended - self.started).total_seconds()


@dataclass(frozen=True, kw_only=True)
class ServerRecord:
    """One start of one server that uses the store."""

    id: str
    host: str  #: host name and boot id: the machine, since it was last started
    pid: int
    process_started: float  #: seconds, since whenever the operating system counts
    heartbeat: datetime
