"""What administrators can watch: Prometheus metrics on the server's `/metrics`, and events of jupyter_events.

Nothing here may hold up or fail a run: what goes wrong is logged. Labels have few values, so that the metrics
stay small: no paths, no users, no parameters.
"""

from __future__ import annotations

import logging
import weakref
from pathlib import Path
from typing import Final

import prometheus_client
from jupyter_events import EventLogger
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from jupyter_nbexec import models

SCHEMA_ID: Final = "https://events.jupyter.org/jupyter_nbexec/run/v1"
"""The `$id` of the events' schema."""

SCHEMA_FILE: Final = Path(__file__).parent / "event_schemas" / "run" / "v1.yaml"

PHASES: Final = ("queue", "kernel", "run", "total")
#: Outcomes of attempts to deliver a webhook, as `webhooks.Outcome` has them.
OUTCOMES: Final = ("delivered", "rejected", "timeout", "unreachable", "refused", "error")
#: The `code` of a run that has not failed.
NO_CODE: Final = "none"
#: Seconds: from warm kernels to notebooks that take a day.
BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)


class Metrics:
    """The metrics, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.runs = Counter(
            "jupyter_nbexec_runs_total",
            "Runs that have ended, by status and by the code of their error.",
            ["status", "code"],
            registry=registry,
        )
        self.queued = Gauge("jupyter_nbexec_runs_queued", "Runs that wait for their turn.", registry=registry)
        self.stranded = Gauge(
            "jupyter_nbexec_runs_stranded",
            "Runs that wait in the store, and that this server cannot execute.",
            registry=registry,
        )
        self.running = Gauge("jupyter_nbexec_runs_running", "Runs that are under way.", registry=registry)
        self.phases = Histogram(
            "jupyter_nbexec_run_phase_seconds",
            "Seconds that runs which have ended spent in each phase.",
            ["phase"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.kernels = Counter(
            "jupyter_nbexec_kernels_total",
            "Kernels that runs which have ended were given, by where they came from.",
            ["source"],
            registry=registry,
        )
        self.attempts = Counter(
            "jupyter_nbexec_webhook_attempts_total",
            "Attempts to deliver a webhook, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Show what has not happened yet as 0, so that its first time is seen as an increase."""
        self.runs.labels(models.RunStatus.SUCCEEDED.value, NO_CODE)
        self.runs.labels(models.RunStatus.CANCELLED.value, NO_CODE)
        for code in models.ErrorCode:
            self.runs.labels(models.RunStatus.FAILED.value, code.value)
        for phase in PHASES:
            self.phases.labels(phase)
        for outcome in OUTCOMES:
            self.attempts.labels(outcome)


#: A registry takes a name only once, but a process may have several servers, one after the other or at once.
_METRICS: weakref.WeakKeyDictionary[CollectorRegistry, Metrics] = weakref.WeakKeyDictionary()


class Telemetry:
    """Counts runs and tells of them. Its methods are called on the event loop."""

    def __init__(
        self,
        event_logger: EventLogger,
        registry: CollectorRegistry = prometheus_client.REGISTRY,
        *,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
    ) -> None:
        if registry not in _METRICS:
            _METRICS[registry] = Metrics(registry)
        self._metrics = _METRICS[registry]
        self._event_logger = event_logger
        self._log = log
        #: Ids of runs that have started here and not ended.
        self._running: set[str] = set()
        if SCHEMA_ID not in event_logger.schemas:
            event_logger.register_event_schema(SCHEMA_FILE)

    def run_queued(self, record: models.RunRecord) -> None:
        """Note that a run was admitted, or waits again."""
        self._forget(record)
        self._emit("queued", record)

    def run_started(self, record: models.RunRecord) -> None:
        """Note that a run has left the queue."""
        if record.id not in self._running:
            self._running.add(record.id)
            self._metrics.running.inc()
        self._emit("started", record)

    def run_ended(self, record: models.RunRecord) -> None:
        """Note that a run has ended: here, in the queue, or on a server that has died."""
        self._forget(record)
        self._metrics.runs.labels(record.status.value, _code(record) or NO_CODE).inc()
        for phase in PHASES:
            if phase in record.timing:
                self._metrics.phases.labels(phase).observe(record.timing[phase])
        if source := _source(record):
            self._metrics.kernels.labels(source).inc()
        self._emit("ended", record)

    def set_queue_length(self, length: int) -> None:
        """Note how many runs wait for their turn."""
        self._metrics.queued.set(length)

    def set_stranded(self, number: int) -> None:
        """Note how many runs wait in the store that this server cannot execute."""
        self._metrics.stranded.set(number)

    def webhook_attempted(self, outcome: str) -> None:
        """Note an attempt to deliver a webhook; `outcome` is one of `OUTCOMES`."""
        self._metrics.attempts.labels(outcome).inc()

    def _forget(self, record: models.RunRecord) -> None:
        """Note that a run is not executed here any more, if it was."""
        if record.id in self._running:
            self._running.remove(record.id)
            self._metrics.running.dec()

    def _emit(self, action: str, record: models.RunRecord) -> None:
        try:
            self._event_logger.emit(schema_id=SCHEMA_ID, data=describe(action, record))
        except Exception:
            self._log.exception("the event %r of run %s could not be emitted", action, record.id)


def describe(action: str, record: models.RunRecord) -> dict[str, models.JsonValue]:
    """Write the event about a run."""
    return {
        "action": action,
        "run_id": record.id,
        "path": record.path,
        "status": record.status.value,
        "code": _code(record),
        "kernel_name": record.kernel_name,
        "source": _source(record),
        "timing": {phase: record.timing[phase] for phase in PHASES if phase in record.timing},
    }


def _code(record: models.RunRecord) -> str | None:
    return None if record.error is None else record.error.code.value


def _source(record: models.RunRecord) -> str | None:
    return None if record.kernel is None else record.kernel.source
