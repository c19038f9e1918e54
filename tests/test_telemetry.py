"""Metrics that Prometheus can read, and events that fit their schema; with nothing private in them."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import prometheus_client
import pytest
import yaml
from jupyter_events import EventLogger
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from jupyter_nbexec import models, telemetry, webhooks

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=timezone.utc)
LOG = logging.getLogger("tests.telemetry")
RUN_ID = "0e3b2f6c-9d52-4c1e-a8f5-6f1f3a1f2b3c"
DOCS = (Path(__file__).parents[1] / "docs" / "monitoring.md").read_text(encoding="utf-8")


class Recorder(logging.Handler):
    """Keeps the events that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one, as the JSON that it is written as."""
        self.events.append(json.loads(self.format(record)))


def record(**fields: Any) -> models.RunRecord:
    """A run, with all that must not be told."""
    request = models.RunRequest(
        path="reports/sales.ipynb", parameters={"password": "hunter2"}, env={"TOKEN": "hunter2"}
    )
    default: dict[str, Any] = {
        "id": RUN_ID,
        "created": NOW,
        "request": request,
        "kernel_name": "python3",
        "user": "hunter2",
        "key": "hunter2",
        "result": "hunter2",
    }
    return models.RunRecord(**default | fields)


QUEUED = record()
RUNNING = record(status=models.RunStatus.RUNNING, started=NOW, timing={"queue": 0.5})
SUCCEEDED = record(
    status=models.RunStatus.SUCCEEDED,
    started=NOW,
    ended=NOW + timedelta(seconds=2),
    kernel=models.KernelInfo(name="python3", id="k", source="cold"),
    timing={"queue": 0.5, "kernel": 0.25, "run": 1.25, "total": 2.0},
)
DIED = record(
    status=models.RunStatus.FAILED,
    started=NOW,
    ended=NOW + timedelta(seconds=2),
    kernel=models.KernelInfo(name="python3", id="k", source="existing"),
    error=models.RunError(code=models.ErrorCode.KERNEL_DIED, message="hunter2"),
    timing={"queue": 0.5, "kernel": 0.25, "run": 1.25, "total": 2.0},
)
CANCELLED = record(status=models.RunStatus.CANCELLED, ended=NOW)


def build(registry: CollectorRegistry, recorder: Recorder | None = None) -> telemetry.Telemetry:
    """A telemetry with an event logger of its own."""
    event_logger = EventLogger(handlers=[recorder] if recorder else [])
    return telemetry.Telemetry(event_logger, registry, log=LOG)


def samples(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """What `/metrics` would show: values by name, and by the labels' values in the order of their names."""
    text = prometheus_client.generate_latest(registry).decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_runs_are_counted() -> None:
    """Runs count by outcome, phases by their seconds, kernels by where they came from."""
    registry = CollectorRegistry()
    built = build(registry)
    for run in (SUCCEEDED, SUCCEEDED, DIED):
        built.run_queued(QUEUED)
        built.run_started(RUNNING)
        assert samples(registry)["jupyter_nbexec_runs_running",] == 1
        built.run_ended(run)
    built.run_queued(QUEUED)
    built.run_ended(CANCELLED)
    built.set_queue_length(7)
    built.webhook_attempted("timeout")

    found = samples(registry)

    assert found["jupyter_nbexec_runs_total", "none", "succeeded"] == 2
    assert found["jupyter_nbexec_runs_total", "kernel_died", "failed"] == 1
    assert found["jupyter_nbexec_runs_total", "none", "cancelled"] == 1
    assert found["jupyter_nbexec_runs_running",] == 0
    assert found["jupyter_nbexec_runs_queued",] == 7
    assert found["jupyter_nbexec_run_phase_seconds_count", "run"] == 3
    assert found["jupyter_nbexec_run_phase_seconds_sum", "run"] == 3.75
    assert found["jupyter_nbexec_run_phase_seconds_bucket", "2.5", "run"] == 3
    assert found["jupyter_nbexec_run_phase_seconds_bucket", "1.0", "run"] == 0
    assert found["jupyter_nbexec_kernels_total", "cold"] == 2
    assert found["jupyter_nbexec_kernels_total", "existing"] == 1
    assert found["jupyter_nbexec_webhook_attempts_total", "timeout"] == 1


def test_what_never_started_is_not_running() -> None:
    """A run that ends in the queue, twice, or on a server that died, leaves the number that run alone."""
    registry = CollectorRegistry()
    built = build(registry)
    built.run_started(RUNNING)
    built.run_started(RUNNING)
    built.run_ended(record(id="another", status=models.RunStatus.CANCELLED))
    assert samples(registry)["jupyter_nbexec_runs_running",] == 1

    built.run_ended(SUCCEEDED)
    built.run_ended(SUCCEEDED)
    assert samples(registry)["jupyter_nbexec_runs_running",] == 0


def test_what_has_not_happened_is_0() -> None:
    """Every outcome is there from the start, so that the first failure is an increase."""
    found = samples(registry := CollectorRegistry())
    assert found == {}
    build(registry)
    found = samples(registry)

    for code in models.ErrorCode:
        assert found["jupyter_nbexec_runs_total", code.value, "failed"] == 0
    for outcome in webhooks.Outcome:
        assert found["jupyter_nbexec_webhook_attempts_total", outcome.value] == 0


def test_outcomes_are_those_of_webhooks() -> None:
    """The two modules, which do not know each other, have the same words."""
    assert [outcome.value for outcome in webhooks.Outcome] == list(telemetry.OUTCOMES)


def test_servers_of_one_process_share_the_metrics() -> None:
    """Two instances on one registry do not clash, and on the default one none of them does."""
    registry = CollectorRegistry()
    for _ in range(2):
        built = build(registry)
        built.run_started(RUNNING)
        built.run_ended(SUCCEEDED)

    assert samples(registry)["jupyter_nbexec_runs_total", "none", "succeeded"] == 2
    telemetry.Telemetry(EventLogger(), log=LOG)
    telemetry.Telemetry(EventLogger(), log=LOG)
    assert ("jupyter_nbexec_runs_queued",) in samples(prometheus_client.REGISTRY)


def test_labels_have_few_values_and_no_secrets() -> None:
    """However many runs there are, the metrics stay as small; nothing of a request is in them."""
    registry = CollectorRegistry()
    built = build(registry)
    sizes = []
    for number in range(200):
        request = models.RunRequest(path=f"hunter2-{number}.ipynb")
        run = record(
            id=f"run-{number}", request=request, kernel_name=f"kernel-{number}", user=f"user-{number}"
        )
        built.run_started(run)
        built.run_ended(record(id=run.id, status=models.RunStatus.SUCCEEDED))
        sizes.append(len(samples(registry)))

    text = prometheus_client.generate_latest(registry).decode()
    assert len(set(sizes)) == 1
    for word in ("hunter2", "run-1", "kernel-1", "user-1", "sales"):
        assert word not in text


def test_events_fit_their_schema() -> None:
    """Each step of a run is an event that its schema allows, with the run's id, path, outcome and times."""
    recorder = Recorder()
    built = build(CollectorRegistry(), recorder)
    built.run_queued(QUEUED)
    built.run_started(RUNNING)
    built.run_ended(SUCCEEDED)
    built.run_ended(DIED)
    built.run_ended(record(request=models.RunRequest(), status=models.RunStatus.CANCELLED))
    schema = yaml.safe_load(telemetry.SCHEMA_FILE.read_text(encoding="utf-8"))

    assert [event["action"] for event in recorder.events] == ["queued", "started", "ended", "ended", "ended"]
    for event in recorder.events:
        told = {name: value for name, value in event.items() if not name.startswith("__")}
        told = {name: value for name, value in told.items() if name != "taskName"}
        jsonschema.Draft202012Validator(schema).validate(told)
        assert event["__schema__"] == telemetry.SCHEMA_ID == schema["$id"]
        assert event["run_id"] == RUN_ID
    done, died, nameless = recorder.events[2:]
    assert done["timing"] == {"queue": 0.5, "kernel": 0.25, "run": 1.25, "total": 2.0}
    assert (done["status"], done["code"], done["source"]) == ("succeeded", None, "cold")
    assert (died["status"], died["code"], died["source"]) == ("failed", "kernel_died", "existing")
    assert (done["path"], nameless["path"]) == ("reports/sales.ipynb", None)


def test_events_tell_no_secrets() -> None:
    """Parameters, environment, results, messages, users and keys are in no event."""
    recorder = Recorder()
    built = build(CollectorRegistry(), recorder)
    for run in (QUEUED, RUNNING, SUCCEEDED, DIED, CANCELLED):
        built.run_queued(run)
        built.run_started(run)
        built.run_ended(run)

    assert len(recorder.events) == 15
    assert "hunter2" not in json.dumps(recorder.events)


def test_the_schema_is_closed_and_knows_all_states() -> None:
    """The schema allows no field that it does not describe, and every status that a run can have."""
    schema = yaml.safe_load(telemetry.SCHEMA_FILE.read_text(encoding="utf-8"))

    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == set(schema["properties"]) == set(telemetry.describe("ended", DIED))
    assert schema["properties"]["status"]["enum"] == [status.value for status in models.RunStatus]


def test_one_logger_may_be_given_twice() -> None:
    """Two extensions of one server share its event logger; the schema is registered once."""
    event_logger = EventLogger()
    for _ in range(2):
        telemetry.Telemetry(event_logger, CollectorRegistry(), log=LOG)

    assert telemetry.SCHEMA_ID in event_logger.schemas


def test_an_event_that_fails_fails_no_run(caplog: pytest.LogCaptureFixture) -> None:
    """What breaks on the way of an event is logged, and nobody else hears of it."""
    event_logger = EventLogger(handlers=[Recorder()])
    registry = CollectorRegistry()
    built = telemetry.Telemetry(event_logger, registry, log=LOG)

    def spoil(schema_id: str, data: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError("spoilt")

    event_logger.add_modifier(schema_id=telemetry.SCHEMA_ID, modifier=spoil)
    built.run_ended(SUCCEEDED)

    assert samples(registry)["jupyter_nbexec_runs_total", "none", "succeeded"] == 1
    assert "could not be emitted" in caplog.text


@pytest.mark.anyio
async def test_listeners_of_the_server_hear_of_runs() -> None:
    """A listener, as another extension would add it, is told."""
    event_logger = EventLogger()
    built = telemetry.Telemetry(event_logger, CollectorRegistry(), log=LOG)
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def listener(logger: EventLogger, schema_id: str, data: dict[str, Any]) -> None:
        heard.put_nowait(data)

    event_logger.add_listener(schema_id=telemetry.SCHEMA_ID, listener=listener)
    built.run_ended(SUCCEEDED)

    assert (await asyncio.wait_for(heard.get(), 10))["run_id"] == RUN_ID


def test_every_metric_and_field_is_documented() -> None:
    """The page on monitoring has the metrics, labels, events and fields that there are."""
    registry = CollectorRegistry()
    build(registry)
    text = prometheus_client.generate_latest(registry).decode()
    names = {
        line.split()[2]
        for line in text.splitlines()
        if line.startswith("# TYPE jupyter_nbexec") and not line.split()[2].endswith("_created")
    }
    listed = {
        line.split("`")[1].partition("{")[0] for line in DOCS.splitlines() if line.startswith("| `jupyter")
    }
    schema = yaml.safe_load(telemetry.SCHEMA_FILE.read_text(encoding="utf-8"))

    assert listed == names
    assert telemetry.SCHEMA_ID in DOCS
    for word in (*schema["properties"], *telemetry.OUTCOMES, *telemetry.PHASES):
        assert f"`{word}`" in DOCS, word
