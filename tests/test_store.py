"""The store: the same tests on SQLite and on PostgreSQL, and what is SQLite's or PostgreSQL's alone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import random
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar

import psutil
import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from jupyter_nbexec import models, store
from jupyter_nbexec.store import database, files, watchdog

_T = TypeVar("_T")

NOW = datetime(2026, 11, 20, 10, 0, 0, 123000, tzinfo=timezone.utc)
STOPPED = models.ErrorCode.SERVER_STOPPED
QUEUED, RUNNING = models.RunStatus.QUEUED, models.RunStatus.RUNNING
SUCCEEDED, FAILED = models.RunStatus.SUCCEEDED, models.RunStatus.FAILED
CANCELLED = models.RunStatus.CANCELLED
PENDING, WAITING = models.DeliveryState.PENDING, models.DeliveryState.WAITING
#: Seconds that any process of a test may take.
DEADLINE = 60.0


def record(**values: Any) -> models.RunRecord:
    """A detached run that waits, unless something else is said."""
    usual: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "created": NOW,
        "request": models.RunRequest(path="a.ipynb"),
        "kernel_name": "python3",
        "is_detached": True,
    }
    return models.RunRecord(**{**usual, **values})


def delivery(run_id: str, **values: Any) -> models.Delivery:
    """A message that waits for the end of its run."""
    return models.Delivery(**{"run_id": run_id, "url": "https://example.org/hook", **values})


def ended(run: models.RunRecord, status: models.RunStatus = SUCCEEDED, **values: Any) -> models.RunRecord:
    """The run as it is at its end."""
    return dataclasses.replace(run, status=status, **{"ended": NOW, **values})


def server(server_id: str, **values: Any) -> models.ServerRecord:
    """A server that has just been heard of."""
    usual = {"id": server_id, "host": "host", "pid": 1, "process_started": 1.25, "heartbeat": NOW}
    return models.ServerRecord(**{**usual, **values})


def is_server_stopped(run: models.RunRecord | None) -> bool:
    """Whether a run was closed since its server has died."""
    return run is not None and run.status is FAILED and run.error is not None and run.error.code is STOPPED


def at_once(number: int, work: Callable[[int], _T]) -> list[_T]:
    """Do the same in so many threads, all of which begin together."""
    barrier = threading.Barrier(number)

    def begin(index: int) -> _T:
        barrier.wait(DEADLINE)
        return work(index)

    with ThreadPoolExecutor(number) as pool:
        return [done.result(DEADLINE) for done in [pool.submit(begin, index) for index in range(number)]]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that is still empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/nbexec/runs.sqlite"
    return str(request.getfixturevalue("postgresql").create())


@pytest.fixture
def runs(url: str) -> Iterator[store.RunStore]:
    """A store that is open."""
    opened = store.RunStore(url)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where an SQLite file may be made."""
    return tmp_path / "folder" / "runs.sqlite"


@contextlib.contextmanager
def opened(url: str | Path) -> Iterator[store.RunStore]:
    """Open a store for a while."""
    found = store.RunStore(str(url))
    found.open()
    try:
        yield found
    finally:
        found.close()


# What is kept


def test_a_run_comes_back_as_it_was(runs: store.RunStore) -> None:
    """All that a record says is read again, and its number is added."""
    run_id = str(uuid.uuid4())
    full = record(
        id=run_id,
        request=models.RunRequest(
            path="ä/b c.ipynb",
            parameters={"x": [1, 2.5, None, {"y": True}], "big": 10**400},
            kernel_name="ir",
            kernel_id="k",
            timeout=1.5,
            cell_timeout=2.0,
            allow_errors=False,
            outputs=models.OutputSelection(kind="tags", tags=frozenset({"a", "b"})),
            save_as="out/{run_id}.ipynb",
        ),
        status=FAILED,
        started=NOW + timedelta(seconds=1),
        ended=NOW + timedelta(seconds=2, microseconds=1),
        kernel=models.KernelInfo(name="ir", id="k", source="existing"),
        progress=models.Progress(done=1, total=3, cell=4),
        result={"a": [1, "b"]},
        result_type="application/json",
        truncated=True,
        error=models.RunError(
            code=models.ErrorCode.CELL_ERROR,
            message="m",
            ename="E",
            evalue="v",
            traceback=["t"],
            cell=4,
            cell_id="c",
        ),
        saved_as="out/1.ipynb",
        warnings=("one", "two"),
        timing={"queue": 0.1, "total": 2.0},
        user="ann",
        key="k1",
        fingerprint="f",
        owner="s1",
        has_env=True,
        is_cancel_requested=True,
        delivery=delivery(
            run_id,
            events=("ended",),
            state=PENDING,
            sealed_secret=b"\0\xff",
            attempts=2,
            next_attempt=NOW + timedelta(hours=1),
            last_attempt=NOW,
            last_status=500,
            last_error="500 Internal Server Error",
        ),
    )

    added = runs.add(full, b"{}")

    assert added == dataclasses.replace(full, number=1)
    assert runs.get(full.id) == added
    assert runs.find_key("ann", "k1") == added
    assert runs.list() == [added]


def test_what_is_left_out_comes_back_as_none(runs: store.RunStore) -> None:
    """A record with nothing but what it must have is read as such."""
    added = runs.add(record(request=models.RunRequest()), b"")

    assert runs.get(added.id) == added
    assert added.path is None
    assert runs.content(added.id) == b""
    assert runs.events(added.id) is None
    assert (runs.get("nothing"), runs.content("nothing"), runs.events("nothing")) == (None, None, None)
    assert runs.find_key(None, "nothing") is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(), max_size=30))  # lone surrogates and NUL are among them
def test_every_string_can_be_stored(runs: store.RunStore, text: str) -> None:
    """A string of any characters is kept wherever JSON is; elsewhere it does no harm, and is found again."""
    request = models.RunRequest(path=text, parameters={text: text})
    added = runs.add(record(request=request, key=str(uuid.uuid4()) + text, user=text, result=text), b"")

    found = runs.get(added.id)

    assert found is not None
    assert (found.request, found.result) == (request, text)
    assert added.id in [each.id for each in runs.list(path=text, limit=1000)]
    assert runs.find_key(text, added.key or "") == found
    assert runs.delete(added.id) is False


def test_times_are_moments(runs: store.RunStore) -> None:
    """A time of any zone comes back as the same moment, in UTC."""
    east = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    added = runs.add(record(created=east), b"")

    found = runs.get(added.id)

    assert found is not None
    assert found.created == NOW
    assert found.created.tzinfo == timezone.utc


def test_documents_are_kept_apart_and_compressed(runs: store.RunStore) -> None:
    """Notebook and events come back byte for byte, and take less room than they have."""
    big = b'{"notebook": "' + b"x" * 1_000_000 + b'"}'
    added = runs.add(record(), big)
    claimed = runs.claim(added.id, "s1", NOW)
    assert claimed is not None

    assert runs.content(added.id) == big
    assert runs.save_progress(claimed, big + b" ", b"[1]")
    assert (runs.content(added.id), runs.events(added.id)) == (big + b" ", b"[1]")
    assert runs.finish(ended(claimed), None, b"[1,2]")
    assert (runs.content(added.id), runs.events(added.id)) == (big + b" ", b"[1,2]")
    with runs._reading() as connection:
        size, stored = connection.execute(
            sa.text("SELECT r.size, length(content) + length(events) FROM nbexec_runs r, nbexec_documents")
        ).one()
    assert size == stored < 10_000


def test_secrets_are_not_stored(file: Path) -> None:
    """Of a request, neither its environment nor its webhook nor its notebook is in the file."""
    secret = "s3cr3t-value"
    request = models.RunRequest(
        env={"TOKEN": secret}, webhook=models.Webhook(url=secret, secret=secret), notebook={"x": secret}
    )
    with opened(file) as runs:
        added = runs.add(record(request=request, has_env=True), b"{}")
        found = runs.get(added.id)
        assert found is not None
        assert found.request == models.RunRequest()

        for part in file.parent.iterdir():
            assert secret.encode() not in part.read_bytes()


def test_fields_of_other_versions_are_left_out(runs: store.RunStore) -> None:
    """A stored field that no model has any more is ignored, and one that is missing has its default."""
    added = runs.add(record(), b"{}")
    with runs._writing() as connection:
        stored = '{"gone": 1, "outputs": {"kind": "last", "tags": []}}'
        connection.execute(
            sa.text("UPDATE nbexec_runs SET request = :r, progress = :p"),
            {"r": stored, "p": '{"done":1,"x":2}'},
        )

    found = runs.get(added.id)

    assert found is not None
    assert found.request == models.RunRequest(outputs=models.OutputSelection(kind="last"))
    assert found.progress == models.Progress(done=1)


# Keys


def test_a_key_belongs_to_one_run_of_a_user(runs: store.RunStore) -> None:
    """The same key of the same user is refused with the run that has it; other users are not concerned."""
    first = runs.add(record(user="ann", key="k", fingerprint="f1"), b"")

    with pytest.raises(store.DuplicateKey) as raised:
        runs.add(record(user="ann", key="k", fingerprint="f2"), b"")

    assert (raised.value.run_id, raised.value.fingerprint) == (first.id, "f1")
    assert runs.add(record(user="bob", key="k"), b"").number > first.number
    nobody = runs.add(record(user=None, key="k"), b"")
    with pytest.raises(store.DuplicateKey, match=nobody.id):
        runs.add(record(user=None, key="k"), b"")
    assert runs.find_key("ann", "k") == first
    assert runs.find_key(None, "k") == nobody
    assert len({runs.add(record(), b"").number for _ in range(3)}) == 3


def test_a_key_is_free_when_its_run_is_forgotten(runs: store.RunStore) -> None:
    """A deleted run takes its key along."""
    first = runs.add(record(key="k"), b"")
    assert runs.cancel_queued(first.id, NOW)
    assert runs.delete(first.id)

    assert runs.add(record(key="k"), b"").number > first.number


def test_an_id_is_used_once(runs: store.RunStore) -> None:
    """A second run of the same id is an error, not a key that was used before."""
    first = runs.add(record(key="k"), b"")

    with pytest.raises(store.StoreError):
        runs.add(record(id=first.id, key="other"), b"")
    with pytest.raises(store.StoreError):
        runs.add(record(id=first.id, key="k"), b"")
    with pytest.raises(store.StoreError):
        runs.add(record(id=first.id), b"")


def test_one_key_from_twenty_threads_is_one_run(runs: store.RunStore) -> None:
    """Of twenty requests with one key at once, one makes the run, and the others learn which one it is."""

    def add(index: int) -> tuple[str, str | None]:
        try:
            added = runs.add(record(key="k", fingerprint="f"), b"")
        except store.DuplicateKey as error:
            return error.run_id, error.fingerprint
        return added.id, added.fingerprint

    ids = at_once(20, add)

    assert len(set(ids)) == 1
    assert len(runs.list()) == 1


# The queue


def test_a_claimed_run_is_running(runs: store.RunStore) -> None:
    """Claiming gives a run an owner and a start, once."""
    added = runs.add(record(), b"")

    claimed = runs.claim(added.id, "s1", NOW)

    assert claimed == dataclasses.replace(added, status=RUNNING, owner="s1", started=NOW)
    assert runs.get(added.id) == claimed
    assert runs.claim(added.id, "s1", NOW) is None
    assert runs.claim(added.id, "s2", NOW) is None
    assert runs.claim("nothing", "s1", NOW) is None


def test_a_run_that_belongs_to_a_server_waits_for_it(runs: store.RunStore) -> None:
    """A queued run with an owner is given to that server only."""
    bound = runs.add(record(owner="s1", has_env=True), b"bound")
    free = runs.add(record(), b"free")

    assert runs.claim(bound.id, "s2", NOW) is None
    taken = runs.claim_next("s2", NOW)
    assert taken is not None
    assert (taken[0].id, taken[1]) == (free.id, b"free")
    assert runs.claim_next("s2", NOW) is None
    taken = runs.claim_next("s1", NOW)
    assert taken is not None
    assert (taken[0].id, taken[0].owner, taken[1]) == (bound.id, "s1", b"bound")


def test_a_server_chooses_what_it_can_execute(runs: store.RunStore) -> None:
    """The runs that wait for a server are listed in order, and it takes the first of those it names."""
    first, other, bound, _ = (
        runs.add(record(**values), b"")
        for values in ({"kernel_name": "rare"}, {}, {"owner": "s1"}, {"owner": "s2"})
    )
    cancelled = runs.add(record(), b"")
    assert runs.cancel_queued(cancelled.id, NOW)

    waiting = runs.waiting("s1")
    assert [(each.id, each.kernel_name, each.path, each.is_bound) for each in waiting] == [
        (first.id, "rare", "a.ipynb", False),
        (other.id, "python3", "a.ipynb", False),
        (bound.id, "python3", "a.ipynb", True),
    ]
    assert runs.waiting("s1", after=first.number, limit=1) == waiting[1:2]
    taken = runs.claim_next("s1", NOW, [cancelled.number, bound.number, other.number])
    assert taken is not None
    assert taken[0].id == other.id
    assert runs.claim_next("s1", NOW, [other.number]) is None


def test_what_has_not_begun_may_be_given_back(runs: store.RunStore) -> None:
    """A server may put a run into the queue again until it says that it begins, and only what it has."""
    run = runs.add(record(), b"")
    assert not runs.begin(run.id, "s1")
    assert not runs.give_back(run.id, "s1")
    assert runs.claim(run.id, "s1", NOW)
    assert not runs.give_back(run.id, "s2")
    assert not runs.begin(run.id, "s2")

    assert runs.give_back(run.id, "s1")
    assert runs.get(run.id) == run
    assert not runs.begin(run.id, "s1")
    assert runs.claim(run.id, "s1", NOW)
    assert runs.begin(run.id, "s1")
    assert not runs.give_back(run.id, "s1")
    unwanted = runs.add(record(), b"")
    assert runs.claim(unwanted.id, "s1", NOW)
    runs.request_cancel(unwanted.id)
    assert not runs.give_back(unwanted.id, "s1")


def test_only_detached_runs_are_in_the_queue(runs: store.RunStore) -> None:
    """A run whose client waits is not handed out, nor counted."""
    waiting = runs.add(record(is_detached=False, owner="s1"), b"")
    assert (runs.queued(), runs.claim_next("s1", NOW)) == (0, None)

    runs.add(record(), b"")
    assert runs.queued() == 1
    assert runs.claim_next("s1", NOW) is not None
    assert (runs.queued(), runs.claim_next("s1", NOW)) == (0, None)
    assert runs.claim(waiting.id, "s1", NOW) is not None


def test_a_run_may_begin_at_once(runs: store.RunStore) -> None:
    """A run that need not wait is stored as running."""
    running = runs.add(record(status=RUNNING, owner="s1", started=NOW, is_detached=False), b"")

    assert runs.get(running.id) == running
    assert runs.claim(running.id, "s1", NOW) is None
    assert runs.finish(ended(running), b"", b"")


def test_runs_are_claimed_in_order_and_once(runs: store.RunStore) -> None:
    """Eight threads of two servers take 120 runs: each thread in order of admission, and each run once."""
    numbers = [runs.add(record(), b"x").number for _ in range(120)]

    def take(index: int) -> list[int]:
        taken = []
        while (claimed := runs.claim_next(f"s{index % 2}", NOW)) is not None:
            taken.append(claimed[0].number)
        return taken

    lists = at_once(8, take)

    assert all(taken == sorted(taken) for taken in lists)
    # PostgreSQL may pass over a run that another server is just taking, and so find none though some wait.
    lists.append(take(0))
    assert sorted(number for taken in lists for number in taken) == numbers
    assert runs.queued() == 0


def test_one_claims_strictly_in_order(runs: store.RunStore) -> None:
    """Alone, a server gets the runs exactly in the order in which they were admitted."""
    numbers = [runs.add(record(), b"").number for _ in range(10)]
    taken = [runs.claim_next("s1", NOW) for _ in range(10)]

    assert [each[0].number for each in taken if each] == numbers == sorted(numbers)


CLAIMING = """
import json, sys
from datetime import datetime, timezone
from jupyter_nbexec import store
url, name = sys.argv[1:]
runs = store.RunStore(url)
runs.open()
print("ready", flush=True)
sys.stdin.readline()
taken, missed = [], 0
while missed < 3:
    claimed = runs.claim_next(name, datetime.now(tz=timezone.utc))
    if claimed is None:
        missed += 1
    else:
        taken.append(claimed[0].number)
        if len(taken) == 1:  # on a busy machine the first would else be done before the other begins
            print("began", flush=True)
            sys.stdin.readline()
runs.close()
print(json.dumps(taken))
"""


def test_two_processes_share_the_queue(url: str, runs: store.RunStore) -> None:
    """Two processes that claim at once get each run once, and each its own in order."""
    numbers = [runs.add(record(), b"").number for _ in range(200)]
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(python(CLAIMING, url, name)) for name in ("s1", "s2")]
        for process in processes:
            assert expect(process) == "ready"
        for process in processes:
            tell(process)
        for process in processes:
            assert expect(process) == "began"
        for process in processes:
            tell(process)
        lists = [json.loads(expect(process)) for process in processes]

    assert all(taken == sorted(taken) for taken in lists)
    assert sorted(lists[0] + lists[1]) == numbers
    assert all(lists)


def test_cancelling_and_claiming_exclude_each_other(runs: store.RunStore) -> None:
    """Of one that cancels a waiting run and two that claim it, exactly one succeeds; fifty times."""
    for _ in range(50):
        added = runs.add(record(), b"")
        ways: list[Callable[[], object]] = [
            lambda run_id=added.id: runs.cancel_queued(run_id, NOW),  # type: ignore[misc]
            lambda run_id=added.id: runs.claim(run_id, "s1", NOW),  # type: ignore[misc]
            lambda: runs.claim_next("s2", NOW),
        ]
        random.shuffle(ways)

        done = at_once(3, lambda index, ways=ways: ways[index]())  # type: ignore[misc]

        found = runs.get(added.id)
        assert found is not None
        assert len([each for each in done if each is not None]) == 1
        assert found.status in (CANCELLED, RUNNING)
        assert (found.status is CANCELLED) == (found.owner is None)


def test_a_waiting_run_is_cancelled(runs: store.RunStore) -> None:
    """Cancelling ends a run that waits, whoever it waits for; another one is left alone."""
    added = runs.add(record(owner="s1"), b"")

    cancelled = runs.cancel_queued(added.id, NOW)

    assert cancelled == dataclasses.replace(added, status=CANCELLED, ended=NOW, is_cancel_requested=True)
    assert runs.cancel_queued(added.id, NOW) is None
    assert runs.cancel_queued("nothing", NOW) is None
    assert runs.queued() == 0
    assert runs.claim(added.id, "s1", NOW) is None


def test_a_running_run_is_asked_for(runs: store.RunStore) -> None:
    """A wish to cancel reaches the owner of a running run, until that has ended."""
    one, two, three = (runs.add(record(), b"") for _ in range(3))
    for run, owner in ((one, "s1"), (two, "s2")):
        assert runs.claim(run.id, owner, NOW)
    for run in (one, two, three):
        runs.request_cancel(run.id)
    runs.request_cancel("nothing")

    assert runs.cancel_requests("s1") == [one.id]
    assert runs.cancel_requests("s2") == [two.id]
    claimed = runs.get(one.id)
    assert claimed is not None
    assert claimed.is_cancel_requested
    assert runs.finish(ended(claimed, CANCELLED), None, None)
    assert runs.cancel_requests("s1") == []
    runs.request_cancel(one.id)
    assert runs.cancel_requests("s1") == []


# Progress and end


def test_progress_is_saved_by_the_owner(runs: store.RunStore) -> None:
    """What its owner says of a running run is kept; nobody else's word counts."""
    added = runs.add(record(), b"before")
    assert not runs.save_progress(added, b"1", b"1")
    claimed = runs.claim(added.id, "s1", NOW)
    assert claimed is not None
    further = dataclasses.replace(
        claimed,
        kernel=models.KernelInfo(name="python3", id="k", source="cold"),
        progress=models.Progress(done=1, total=2, cell=1),
        warnings=("w",),
        timing={"queue": 0.5},
        truncated=True,
    )

    assert runs.save_progress(further, b"after", b"[1]")
    assert not runs.save_progress(dataclasses.replace(further, owner="s2"), b"x", b"x")
    assert not runs.save_progress(dataclasses.replace(further, owner=None), b"x", b"x")
    assert runs.get(added.id) == further
    assert (runs.content(added.id), runs.events(added.id)) == (b"after", b"[1]")


def test_progress_does_not_undo_what_others_want(runs: store.RunStore) -> None:
    """Saving progress keeps a wish to cancel that came meanwhile, and never changes the status."""
    added = runs.add(record(), b"")
    claimed = runs.claim(added.id, "s1", NOW)
    assert claimed is not None
    runs.request_cancel(added.id)

    assert runs.save_progress(dataclasses.replace(claimed, status=SUCCEEDED), b"", b"")

    found = runs.get(added.id)
    assert found is not None
    assert (found.status, found.is_cancel_requested) == (RUNNING, True)


def test_a_run_ends_once(runs: store.RunStore) -> None:
    """The first end counts; later ones and later progress are refused."""
    added = runs.add(record(), b"0")
    claimed = runs.claim(added.id, "s1", NOW)
    assert claimed is not None
    end = ended(claimed, result=15, result_type="application/json", timing={"total": 1.0})

    assert runs.finish(end, b"1", b"[]")
    assert not runs.finish(ended(claimed, FAILED), b"2", b"2")
    assert not runs.save_progress(claimed, b"2", b"2")
    assert runs.get(added.id) == end
    assert (runs.content(added.id), runs.events(added.id)) == (b"1", b"[]")


def test_only_the_owner_ends_a_run(runs: store.RunStore) -> None:
    """A server cannot end what another one executes, nor what waits for any or for another."""
    running, free, bound = (runs.add(record(owner=owner), b"") for owner in (None, None, "s1"))
    claimed = runs.claim(running.id, "s1", NOW)
    assert claimed is not None

    assert not runs.finish(ended(dataclasses.replace(claimed, owner="s2"), CANCELLED), b"", b"")
    assert not runs.finish(ended(dataclasses.replace(claimed, owner=None), FAILED), b"", b"")
    assert not runs.finish(ended(free, FAILED), b"", b"")
    assert not runs.finish(ended(dataclasses.replace(bound, owner="s2"), FAILED), b"", b"")
    assert [run.status for run in runs.list()] == [QUEUED, QUEUED, RUNNING]
    assert runs.finish(ended(bound, FAILED), b"", b"")
    assert runs.finish(ended(free, CANCELLED), b"", b"")
    assert runs.finish(ended(claimed), b"", b"")


def test_an_end_must_be_one(runs: store.RunStore) -> None:
    """To finish a run with a status that is no end is a mistake of the caller."""
    added = runs.add(record(status=RUNNING, owner="s1"), b"")

    with pytest.raises(ValueError, match="running"):
        runs.finish(added, None, None)
    with pytest.raises(ValueError, match="no end"):
        runs.finish(dataclasses.replace(added, status=FAILED), None, None)


def test_fifty_ends_at_once_are_one(runs: store.RunStore) -> None:
    """Of all that would end a run in one moment, one does."""
    added = runs.add(record(status=RUNNING, owner="s1", started=NOW), b"")
    statuses = [SUCCEEDED, FAILED, CANCELLED]

    done = at_once(
        12, lambda index: runs.finish(ended(added, statuses[index % 3]), str(index).encode(), None)
    )

    assert done.count(True) == 1
    found = runs.get(added.id)
    assert found is not None
    assert found.status is statuses[done.index(True) % 3]
    assert runs.content(added.id) == str(done.index(True)).encode()


# Servers


def test_servers_are_entered_and_taken_out(runs: store.RunStore) -> None:
    """A server is known from its entry to its leaving, with its last heartbeat."""
    runs.register(server("s1"))
    runs.register(server("s2", host="ä", pid=2**31, process_started=1763630000.123456))
    runs.register(server("s1", pid=7))

    assert runs.beat("s1", NOW + timedelta(seconds=5))
    assert runs.servers() == [
        server("s1", pid=7, heartbeat=NOW + timedelta(seconds=5)),
        server("s2", host="ä", pid=2**31, process_started=1763630000.123456),
    ]
    runs.unregister("s1")
    runs.unregister("s1")
    assert [each.id for each in runs.servers()] == ["s2"]
    assert not runs.beat("s1", NOW)


def leave_behind(runs: store.RunStore, owner: str) -> dict[str, models.RunRecord]:
    """What a server may leave when it dies, by a name."""
    kinds: dict[str, dict[str, Any]] = {
        "running": {"status": RUNNING, "owner": owner, "started": NOW},
        "claimed": {"status": RUNNING, "owner": owner, "started": NOW},
        "unwanted": {"status": RUNNING, "owner": owner, "started": NOW, "is_cancel_requested": True},
        "waited for": {"is_detached": False, "owner": owner},
        "with env": {"has_env": True, "owner": owner},
        "bound": {"owner": owner},
        "free": {},
        "done": {"status": SUCCEEDED, "owner": owner, "started": NOW, "ended": NOW},
    }
    left = {name: runs.add(record(**values), name.encode()) for name, values in kinds.items()}
    assert runs.begin(left["running"].id, owner)
    return left


@pytest.mark.parametrize("is_entered", [True, False], ids=["died", "never entered"])
def test_the_dead_are_cleared_up_after(runs: store.RunStore, *, is_entered: bool) -> None:
    """What a dead server ran is closed with what was saved, and what any server can run is released."""
    if is_entered:
        runs.register(server("dead"))
    runs.register(server("alive"))
    left = leave_behind(runs, "dead")
    others = leave_behind(runs, "alive")
    progress = dataclasses.replace(left["running"], progress=models.Progress(done=1, total=2))
    assert runs.save_progress(progress, b"partial", b"[1]")
    later = NOW + timedelta(minutes=1)

    closed = runs.recover(["dead"] if is_entered else [], later)

    names = ("running", "unwanted", "waited for", "with env")
    assert [run.id for run in closed] == [left[name].id for name in names]
    assert closed == [runs.get(run.id) for run in closed]
    unwanted = closed.pop(1)
    assert (unwanted.status, unwanted.error, unwanted.ended) == (CANCELLED, None, later)
    assert all(is_server_stopped(run) and run.ended == later for run in closed)
    assert closed[0].progress == models.Progress(done=1, total=2)
    assert (runs.content(closed[0].id), runs.events(closed[0].id)) == (b"partial", b"[1]")
    assert "ended" in str(closed[0].error)
    assert "started" in str(closed[1].error)
    bound = runs.get(left["bound"].id)
    assert bound == dataclasses.replace(left["bound"], owner=None)
    claimed = runs.get(left["claimed"].id)
    assert claimed == dataclasses.replace(left["claimed"], status=QUEUED, owner=None, started=None)
    assert runs.get(left["done"].id) == left["done"]
    assert all(runs.get(run.id) == run for run in others.values())
    assert [each.id for each in runs.servers()] == ["alive"]
    assert runs.recover(["dead"], later) == []
    # What was closed cannot be changed by a server that was not dead after all.
    assert not runs.finish(ended(left["running"]), b"late", b"late")
    assert not runs.save_progress(left["running"], b"late", b"late")
    assert runs.content(closed[0].id) == b"partial"


def test_several_survivors_close_once(runs: store.RunStore) -> None:
    """Of survivors that see the same death at once, each closed run is told of by one."""
    for _ in range(5):
        runs.register(server("dead"))
        left = [leave_behind(runs, "dead")["running"].id for _ in range(3)]

        lists = at_once(4, lambda index: runs.recover(["dead"], NOW))

        told = [run.id for closed in lists for run in closed if run.id in left]
        assert sorted(told) == sorted(left)


def test_a_server_may_come_back(runs: store.RunStore) -> None:
    """A server that was held for dead learns of it by its next heartbeat, and may enter again."""
    runs.register(server("s1"))
    runs.recover(["s1"], NOW)

    assert not runs.beat("s1", NOW)
    runs.register(server("s1"))
    assert runs.beat("s1", NOW)


# Lists


def test_a_list_is_newest_first_in_pages(runs: store.RunStore) -> None:
    """Pages follow each other by number; what is added meanwhile does not shift them."""
    added = [runs.add(record(), b"") for _ in range(7)]
    page = runs.list(limit=3)
    runs.add(record(), b"")
    rest = runs.list(limit=10, before=page[-1].number)

    assert page + rest == added[::-1]
    assert runs.list(before=added[0].number) == []


def test_a_list_is_narrowed(runs: store.RunStore) -> None:
    """Path, status and user narrow a list down, alone and together."""
    runs.register(server("s1"))
    made = [
        runs.add(
            record(
                request=models.RunRequest(path=path),
                user=user,
                status=status,
                owner="s1" if status is RUNNING else None,
            ),
            b"",
        )
        for path in ("a.ipynb", "b.ipynb", None)
        for user in ("ann", "bob", None)
        for status in (QUEUED, RUNNING)
    ]
    for path in ("a.ipynb", "b.ipynb", "c.ipynb", None):
        for user in ("ann", "eve", None):
            for status in (QUEUED, RUNNING, FAILED, None):
                expected = [
                    run
                    for run in reversed(made)
                    if path in (None, run.path) and user in (None, run.user) and status in (None, run.status)
                ]
                assert runs.list(path=path, user=user, status=status) == expected
                before = made[9].number
                expected = [run for run in expected if run.number < before][:2]
                assert runs.list(path=path, user=user, status=status, before=before, limit=2) == expected


def test_a_long_path_is_found(runs: store.RunStore) -> None:
    """A path of any length can be stored and looked up."""
    path = "/".join(uuid.uuid4().hex for _ in range(500)) + ".ipynb"
    added = runs.add(record(request=models.RunRequest(path=path)), b"")

    assert runs.list(path=path, status=QUEUED) == [added]


def plans(runs: store.RunStore, ask: Callable[[], object]) -> list[str]:
    """How SQLite would find what a method asks for."""
    statements: list[tuple[str, Any]] = []

    def note(*arguments: Any) -> None:
        if arguments[2].startswith("SELECT"):
            statements.append((arguments[2], arguments[3]))

    engine = runs._database._engine
    assert engine is not None
    sa.event.listen(engine, "before_cursor_execute", note)
    ask()
    sa.event.remove(engine, "before_cursor_execute", note)
    assert statements
    with runs._reading() as connection:
        return [
            str(row[3])
            for statement, values in statements
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        ]


ASKED: dict[str, tuple[Callable[[store.RunStore], object], str]] = {
    "get": (lambda runs: runs.get("x"), "nbexec_runs_id"),
    "key": (lambda runs: runs.find_key("u", "k"), "nbexec_runs_key"),
    "content": (lambda runs: runs.content("x"), "nbexec_runs_id"),
    "list": (lambda runs: runs.list(), ""),
    "list on": (lambda runs: runs.list(before=5), "INTEGER PRIMARY KEY"),
    "path": (lambda runs: runs.list(path="a"), "nbexec_runs_path "),
    "path on": (lambda runs: runs.list(path="a", before=5), "nbexec_runs_path "),
    "status": (lambda runs: runs.list(status=FAILED, before=5), "nbexec_runs_status "),
    "both": (lambda runs: runs.list(path="a", status=FAILED, before=5), "nbexec_runs_path_status "),
    "user": (lambda runs: runs.list(user="u", before=5), "nbexec_runs_user "),
    "user's": (lambda runs: runs.list(user="u", status=FAILED, before=5), "nbexec_runs_user_status "),
    "next": (lambda runs: runs.waiting("s", 5), "nbexec_runs_status "),
    "queued": (lambda runs: runs.queued(), "nbexec_runs_status "),
    "cancels": (lambda runs: runs.cancel_requests("s"), "nbexec_runs_status "),
    "orphans": (lambda runs: runs.recover([], NOW), "nbexec_runs_status "),
    "due": (lambda runs: runs.due_deliveries(NOW, timedelta(0)), "nbexec_runs_delivery"),
    "next due": (lambda runs: runs.next_delivery(), "nbexec_runs_delivery"),
    "prune": (lambda runs: runs.prune(older_than=NOW, max_runs=1, max_bytes=1), "nbexec_runs_ended"),
}


@pytest.mark.parametrize("name", ASKED)
def test_an_index_is_used(file: Path, name: str) -> None:
    """Whatever is asked for is found by an index, which gives the order too."""
    ask, index = ASKED[name]
    with opened(file) as runs:
        runs.add(record(), b"")
        runs.cancel_queued(runs.add(record(), b"").id, NOW)
        details = plans(runs, lambda: ask(runs))

    assert any(index in f"{detail} " for detail in details), details
    assert not [detail for detail in details if "TEMP B-TREE" in detail]
    # All of a partial index may be read: it is as long as the queue, or what is kept.
    scans = [detail for detail in details if detail.startswith("SCAN") and "INDEX" not in detail]
    assert scans == (["SCAN nbexec_runs"] if name == "list" else [])


def test_a_list_reads_no_documents(file: Path) -> None:
    """Listing and getting runs never touches their documents."""
    with opened(file) as runs:
        added = runs.add(record(), b"")
        details = plans(runs, lambda: (runs.list(), runs.get(added.id), runs.find_key(None, "k")))

    assert not [detail for detail in details if "documents" in detail]


# Forgetting


def test_only_ended_runs_are_deleted(runs: store.RunStore) -> None:
    """Deleting forgets a run that has ended, with its documents; another is kept."""
    added = runs.add(record(), b"x")
    assert not runs.delete(added.id)
    claimed = runs.claim(added.id, "s1", NOW)
    assert claimed is not None
    assert not runs.delete(added.id)
    assert runs.finish(ended(claimed), b"x", b"x")

    assert runs.delete(added.id)
    assert not runs.delete(added.id)
    assert runs.get(added.id) is None
    with runs._reading() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM nbexec_documents")).scalar() == 0


def history(runs: store.RunStore, number: int, **values: Any) -> list[models.RunRecord]:
    """Runs that have ended, one each minute; the first ended last."""
    made = []
    for index in range(number):
        when = NOW - timedelta(minutes=index)
        made.append(runs.add(record(status=SUCCEEDED, ended=when, **values), random.randbytes(1000)))
    return made


def test_old_runs_are_forgotten(runs: store.RunStore) -> None:
    """What ended before a moment goes."""
    made = history(runs, 10)

    assert runs.prune(older_than=NOW - timedelta(minutes=6, seconds=30), max_runs=None, max_bytes=None) == 3
    assert runs.list() == made[6::-1]
    assert runs.prune(older_than=NOW - timedelta(minutes=6, seconds=30), max_runs=None, max_bytes=None) == 0
    assert runs.prune(older_than=None, max_runs=None, max_bytes=None) == 0


def test_forgetting_can_be_broken_off(runs: store.RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each small transaction one is asked whether to go on with a backlog, and need not."""
    monkeypatch.setattr(store, "BATCH", 2)
    history(runs, 7)
    answers = iter((True, False, False))

    def may_go_on() -> bool:
        return next(answers)

    assert runs.prune(older_than=None, max_runs=0, max_bytes=None, may_go_on=may_go_on) == 4
    assert len(runs.list()) == 3


def test_a_dead_server_may_have_left_very_much(runs: store.RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left by the dead is closed in small transactions, and not all of it at one time."""
    monkeypatch.setattr(store, "BATCH", 2)
    monkeypatch.setattr(store, "ROUNDS", 1)
    runs.register(server("dead"))
    left = [runs.add(record(owner="dead", has_env=True), b"").id for _ in range(7)]

    closed = [[run.id for run in runs.recover(["dead"], NOW)] for _ in range(3)]

    assert closed == [left[:4], left[4:6], left[6:]]
    assert runs.recover(["dead"], NOW) == []


def test_too_many_runs_are_forgotten(runs: store.RunStore) -> None:
    """Of too many runs, those that ended first go; more than one batch of them too."""
    made = history(runs, 230)

    assert runs.prune(older_than=None, max_runs=5, max_bytes=None) == 225
    assert runs.list() == made[4::-1]
    assert runs.prune(older_than=None, max_runs=0, max_bytes=None) == 5


def test_too_large_runs_are_forgotten(runs: store.RunStore) -> None:
    """When the documents take too much room, the runs that ended first go."""
    made = history(runs, 10)  # of a little more than 1,000 bytes each

    assert runs.prune(older_than=None, max_runs=None, max_bytes=5500) == 5
    assert runs.list() == made[4::-1]
    assert runs.prune(older_than=None, max_runs=None, max_bytes=0) == 5


def test_what_is_not_over_is_kept(runs: store.RunStore) -> None:
    """Nothing that waits, runs, or has still to be told, is ever pruned."""
    run_id = str(uuid.uuid4())
    kept = [
        runs.add(record(created=NOW - timedelta(days=999)), b""),
        runs.add(record(status=RUNNING, owner="s1", started=NOW - timedelta(days=999)), b""),
        runs.add(
            record(
                id=run_id,
                status=FAILED,
                ended=NOW - timedelta(days=9),
                delivery=delivery(run_id, state=PENDING, next_attempt=NOW),
            ),
            b"",
        ),
    ]
    history(runs, 3)

    assert runs.prune(older_than=NOW + timedelta(1), max_runs=0, max_bytes=0) == 3
    assert runs.list() == kept[::-1]


def test_two_that_prune_do_not_prune_twice(runs: store.RunStore) -> None:
    """Servers that prune at once leave as many runs as may stay."""
    history(runs, 300)

    done = at_once(4, lambda index: runs.prune(older_than=None, max_runs=50, max_bytes=None))
    # One may have found the runs that another was about to forget, and no others.
    done.append(runs.prune(older_than=None, max_runs=50, max_bytes=None))

    assert sum(done) == 250
    assert len(runs.list(limit=500)) == 50


def test_numbers_are_not_given_again(runs: store.RunStore) -> None:
    """A new run has a number that no run has had, also when the newest one was forgotten."""
    (last,) = history(runs, 1)
    assert runs.delete(last.id)

    assert runs.add(record(), b"").number > last.number


# Webhooks


def add_with_webhook(runs: store.RunStore, **values: Any) -> models.RunRecord:
    """Store a run whose end is to be told."""
    run_id = str(uuid.uuid4())
    return runs.add(record(id=run_id, delivery=delivery(run_id, sealed_secret=b"s"), **values), b"")


def test_the_end_makes_the_message_due(runs: store.RunStore) -> None:
    """However a run ends, its message is due from that moment, and not before."""
    finished, cancelled, closed, other = (add_with_webhook(runs) for _ in range(4))
    assert (runs.next_delivery(), runs.due_deliveries(NOW, timedelta(1))) == (None, [])
    runs.register(server("s2"))
    for run, owner in ((finished, "s1"), (closed, "s2"), (other, "s3")):
        assert runs.claim(run.id, owner, NOW)
        assert runs.begin(run.id, owner)
    claimed = runs.get(finished.id)
    assert claimed is not None
    assert runs.finish(ended(claimed), None, None)
    assert runs.cancel_queued(cancelled.id, NOW)
    assert runs.recover(["s2"], NOW)

    for run in (finished, cancelled, closed, other):
        found = runs.get(run.id)
        assert found is not None
        assert found.delivery == delivery(run.id, state=PENDING, next_attempt=NOW, sealed_secret=b"s")
    assert runs.next_delivery() == NOW


def test_a_due_message_is_taken_once(runs: store.RunStore) -> None:
    """Who takes a message has it for the time of the lease; after that it is due again."""
    made = [add_with_webhook(runs) for _ in range(5)]
    for index, run in enumerate(made):
        assert runs.cancel_queued(run.id, NOW + timedelta(seconds=index))
    lease = timedelta(minutes=1)

    assert runs.due_deliveries(NOW - timedelta(seconds=1), lease) == []
    first = runs.due_deliveries(NOW + timedelta(seconds=1), lease)
    assert [each.run_id for each in first] == [made[0].id, made[1].id]
    assert {each.next_attempt for each in first} == {NOW + timedelta(seconds=61)}
    assert len(runs.due_deliveries(NOW + timedelta(seconds=9), lease, limit=2)) == 2
    assert len(runs.due_deliveries(NOW + timedelta(seconds=9), lease)) == 1
    assert runs.due_deliveries(NOW + timedelta(seconds=9), lease) == []
    assert runs.next_delivery() == NOW + timedelta(seconds=61)
    again = runs.due_deliveries(NOW + timedelta(hours=1), lease)
    assert sorted(each.run_id for each in again) == sorted(run.id for run in made)


def test_senders_at_once_share_the_messages(runs: store.RunStore) -> None:
    """Several servers that look for messages at once never get the same one."""
    made = [add_with_webhook(runs) for _ in range(40)]
    for run in made:
        assert runs.cancel_queued(run.id, NOW)

    def take(index: int) -> list[str]:
        return [each.run_id for each in runs.due_deliveries(NOW, timedelta(1), limit=10)]

    taken = [run_id for each in at_once(6, take) for run_id in each] + take(0)

    assert len(taken) == len(set(taken))
    assert set(taken) <= {run.id for run in made}


def test_what_became_of_a_message_is_kept(runs: store.RunStore) -> None:
    """Attempts are noted on the run, the last one for good."""
    run = add_with_webhook(runs)
    assert runs.cancel_queued(run.id, NOW)
    (due,) = runs.due_deliveries(NOW, timedelta(1))
    retried = dataclasses.replace(
        due, attempts=1, next_attempt=NOW, last_attempt=NOW, last_status=500, last_error="500"
    )
    delivered = dataclasses.replace(
        retried,
        state=models.DeliveryState.DELIVERED,
        attempts=2,
        next_attempt=None,
        last_status=200,
        last_error=None,
    )

    for each in (retried, delivered, retried):
        runs.mark_delivery(each)

    found = runs.get(run.id)
    assert found is not None
    assert found.delivery == delivered
    assert (runs.next_delivery(), runs.due_deliveries(NOW, timedelta(1))) == (None, [])
    runs.mark_delivery(delivery("nothing"))
    assert runs.prune(older_than=None, max_runs=0, max_bytes=None) == 1


# Any sequence of calls


class Life(RuleBasedStateMachine):
    """Calls in any order, beside what they should come to."""

    known = Bundle("known")

    def __init__(self) -> None:
        super().__init__()
        self.runs = store.RunStore("sqlite://")
        self.runs.open()
        self.expected: dict[str, models.RunRecord] = {}
        self.begun: set[str] = set()

    def teardown(self) -> None:
        """Let go of the database."""
        self.runs.close()

    @initialize()
    def enter(self) -> None:
        """Enter two servers."""
        for server_id in ("s1", "s2"):
            self.runs.register(server(server_id))

    @rule(
        target=known,
        owner=st.sampled_from([None, "s1", "s2"]),
        is_detached=st.booleans(),
        has_env=st.booleans(),
    )
    def add(self, owner: str | None, *, is_detached: bool, has_env: bool) -> str:
        """Admit a run."""
        owner = owner if is_detached and not has_env else owner or "s1"
        added = self.runs.add(record(owner=owner, is_detached=is_detached, has_env=has_env), b"")
        self.expected[added.id] = added
        return added.id

    @rule(run_id=known, server_id=st.sampled_from(["s1", "s2"]))
    def claim(self, run_id: str, server_id: str) -> None:
        """Claim one."""
        run = self.expected.get(run_id)
        claimed = self.runs.claim(run_id, server_id, NOW)
        may = run is not None and run.status is QUEUED and run.owner in (None, server_id)
        assert (claimed is not None) == may
        if claimed is not None:
            self.expected[run_id] = claimed

    @rule(server_id=st.sampled_from(["s1", "s2"]))
    def claim_next(self, server_id: str) -> None:
        """Claim the next one."""
        waiting = [
            run
            for run in self.expected.values()
            if run.status is QUEUED and run.is_detached and run.owner in (None, server_id)
        ]
        claimed = self.runs.claim_next(server_id, NOW)
        assert (claimed is not None) == bool(waiting)
        if claimed is not None:
            assert claimed[0].id == min(waiting, key=lambda run: run.number).id
            self.expected[claimed[0].id] = claimed[0]

    @rule(run_id=known, server_id=st.sampled_from(["s1", "s2"]))
    def begin(self, run_id: str, server_id: str) -> None:
        """Begin one."""
        run = self.expected.get(run_id)
        may = run is not None and run.status is RUNNING and run.owner == server_id
        assert self.runs.begin(run_id, server_id) == may
        if may:
            self.begun.add(run_id)

    @rule(run_id=known)
    def cancel(self, run_id: str) -> None:
        """Cancel one."""
        run = self.expected.get(run_id)
        cancelled = self.runs.cancel_queued(run_id, NOW)
        assert (cancelled is not None) == (run is not None and run.status is QUEUED)
        if cancelled is not None:
            self.expected[run_id] = cancelled
        elif run is not None:
            self.runs.request_cancel(run_id)
            if not run.status.is_final:
                self.expected[run_id] = dataclasses.replace(run, is_cancel_requested=True)

    @rule(
        run_id=known,
        status=st.sampled_from([SUCCEEDED, FAILED, CANCELLED]),
        server_id=st.sampled_from(["s1", "s2"]),
    )
    def finish(self, run_id: str, status: models.RunStatus, server_id: str) -> None:
        """End one."""
        run = self.expected.get(run_id)
        if run is None:
            return
        end = ended(dataclasses.replace(run, owner=server_id), status)
        may = not run.status.is_final and run.owner == server_id
        may = may or (run.status is QUEUED and status is CANCELLED)
        assert self.runs.finish(end, None, None) == may
        if may:
            self.expected[run_id] = dataclasses.replace(end, owner=run.owner)

    @rule(server_id=st.sampled_from(["s1", "s2"]))
    def die(self, server_id: str) -> None:
        """Let a server die, and start again."""
        cancelled = set()
        for run in list(self.expected.values()):
            has_begun = run.status is RUNNING and run.id in self.begun
            if run.owner != server_id or run.status.is_final or not run.may_move or has_begun:
                continue
            if run.is_cancel_requested:
                cancelled.add(run.id)
            else:
                self.expected[run.id] = dataclasses.replace(run, status=QUEUED, owner=None, started=None)
        left = [
            run.id for run in self.expected.values() if run.owner == server_id and not run.status.is_final
        ]
        closed = self.runs.recover([server_id], NOW)
        assert [run.id for run in closed] == left
        for run in closed:
            assert run.status is CANCELLED if run.id in cancelled else is_server_stopped(run)
            self.expected[run.id] = run
        self.runs.register(server(server_id))

    @rule(run_id=known)
    def delete(self, run_id: str) -> None:
        """Forget one."""
        run = self.expected.get(run_id)
        assert self.runs.delete(run_id) == (run is not None and run.status.is_final)
        if run is not None and run.status.is_final:
            del self.expected[run_id]

    @rule(keep=st.integers(0, 5))
    def prune(self, keep: int) -> None:
        """Forget those that ended first; all end in the same moment here, so the number decides."""
        over = [run.id for run in self.expected.values() if run.status.is_final]
        doomed = over[: max(0, len(over) - keep)]
        assert self.runs.prune(older_than=None, max_runs=keep, max_bytes=None) == len(doomed)
        for run_id in doomed:
            del self.expected[run_id]

    @invariant()
    def agrees(self) -> None:
        """The store says what is expected."""
        assert self.runs.list(limit=1000) == list(self.expected.values())[::-1]
        queued = [run for run in self.expected.values() if run.status is QUEUED and run.is_detached]
        assert self.runs.queued() == len(queued)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


# Databases that cannot be used


def test_a_store_must_be_open(url: str) -> None:
    """A store that is not open says so; it may be opened twice, closed twice, and opened again."""
    runs = store.RunStore(url)
    with pytest.raises(store.StoreError, match="not open"):
        runs.queued()
    runs.open()
    runs.open()
    added = runs.add(record(), b"")
    runs.close()
    runs.close()
    with pytest.raises(store.StoreError, match="not open"):
        runs.queued()
    runs.open()
    assert runs.get(added.id) == added
    runs.close()


@pytest.mark.parametrize(
    "url",
    [
        "nonsense://",
        "postgresql://[",
        "sqlite:///file:x?uri=true",
        "postgresql+psycopg://nbexec:s3cret@127.0.0.1:1/x",
        "postgresql://nbexec:s3cret@/x?host=/nowhere",
        "mysql+nosuchdriver://u:s3cret@host/x",
        "sqlite:////dev/null/x",
        "/dev/null/x",
    ],
)
def test_what_cannot_be_opened_is_told(url: str) -> None:
    """A database that is not there is an error of the store, whose message has no password."""
    with pytest.raises(store.StoreError) as raised:
        store.RunStore(url).open()

    assert str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_a_failed_statement_shows_no_values(runs: store.RunStore) -> None:
    """What was to be written is in no message, nor in what caused it."""
    added = runs.add(record(), b"")

    with pytest.raises(store.StoreError) as raised:
        runs.add(record(id=added.id, result="s3cret"), b"")

    assert "s3cret" not in f"{raised.value}{raised.value.__cause__}"


# SQLite


def test_a_file_is_private(file: Path) -> None:
    """Only its owner can read a file of the store and what belongs to it, nor look into its folder."""
    with opened(file) as runs:
        runs.add(record(), b"")
        modes = {part.name: stat.S_IMODE(part.stat().st_mode) for part in file.parent.iterdir()}

    assert {f"{file.name}{suffix}" for suffix in ("", "-wal", "-shm", ".lock")} == set(modes)
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.chmod(0o644)
    with opened(file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_commit_is_durable(file: Path) -> None:
    """Transactions go to a write-ahead log, and to the disk before they end; foreign keys are kept."""
    with opened(file) as runs, runs._reading() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "auto_vacuum")
        }

    assert values == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": int(database.PATIENCE * 1000),
        "auto_vacuum": 2,
    }


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is taken from the working directory of the moment, and not of later ones."""
    monkeypatch.chdir(tmp_path)
    both = [store.RunStore("sqlite:///a.sqlite"), store.RunStore("b #?%41.sqlite")]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    for each in both:
        each.open()
        each.close()

    assert (tmp_path / "a.sqlite").is_file()
    assert (tmp_path / "b #?%41.sqlite").is_file()
    assert both[0].name == str(tmp_path / "a.sqlite")


def test_a_database_in_memory_is_one(tmp_path: Path) -> None:
    """All threads see the same database in memory."""
    with opened("sqlite://") as runs:
        ids = at_once(8, lambda index: runs.add(record(), b"").id)

        assert {run.id for run in runs.list()} == set(ids)


def test_space_is_given_back(file: Path) -> None:
    """When runs are forgotten, the file becomes smaller."""
    with opened(file) as runs:
        for _ in range(20):
            runs.add(record(status=SUCCEEDED, ended=NOW), random.randbytes(100_000))
        with runs._writing() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        assert runs.prune(older_than=None, max_runs=1, max_bytes=None) == 19
        with runs._writing() as connection:
            left = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

    assert left < pages / 5


@dataclasses.dataclass
class Mount:
    """What psutil says of a file system."""

    mountpoint: str
    fstype: str


@pytest.mark.parametrize("kind", ["nfs4", "ext4"])
def test_a_network_file_system_gets_no_write_ahead_log(
    file: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where processes cannot share memory, a rollback journal is used, and all else is as it was."""
    place = str(file.parent.parent.resolve())
    mounts = [Mount("/", "ext4"), Mount(place, "tmpfs"), Mount(place, kind), Mount("/elsewhere", "nfs")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: mounts)
    with opened(file) as runs:
        with runs._reading() as connection:
            mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
            synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar()
        ids = at_once(8, lambda index: runs.add(record(), b"").id)
        taken = at_once(8, lambda index: runs.claim_next("s1", NOW))

    assert (mode, synchronous) == ("delete" if kind == "nfs4" else "wal", 2)
    assert ("no write-ahead log" in caplog.text) == (kind == "nfs4")
    assert {each[0].id for each in taken if each} == set(ids)


def fill(runs: store.RunStore) -> None:
    """Store a hundred runs of 10 kB."""
    for _ in range(100):
        runs.add(record(), random.randbytes(10_000))


def test_a_full_disk_is_an_error_and_heals(file: Path) -> None:
    """Without room nothing is stored, which is told, and reading goes on; with room again, all does."""
    with opened(file) as runs:
        added = runs.add(record(), b"")
        engine = runs._database._engine
        assert engine is not None
        limit = 0

        def restrict(connection: sa.Connection) -> None:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {limit}")

        sa.event.listen(engine, "begin", restrict)
        limit = 60
        with pytest.raises(store.StoreError, match="full"):
            fill(runs)
        stored = len(runs.list(limit=500))
        assert stored < 100
        assert runs.get(added.id) == added
        limit = 1_000_000
        runs.add(record(), random.randbytes(10_000))
        assert len(runs.list(limit=500)) == stored + 1


def test_a_lock_that_is_held_too_long_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process holds the file, writing fails after a while, and works again afterwards."""
    monkeypatch.setattr(database, "PATIENCE", 0.2)
    with opened(file) as runs, contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        added = runs.add(record(), b"")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(store.StoreError, match="locked"):
            runs.add(record(), b"")
        assert runs.list() == [added]
        with opened(file) as second:  # a server can start meanwhile
            assert second.list() == [added]
        other.execute("ROLLBACK")
        assert runs.add(record(), b"").number == 2


def test_opening_a_file_again_keeps_its_locks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second store on the same file, in the same process, does not end the transactions of the first."""
    monkeypatch.setattr(files, "is_on_network", lambda _: True)  # without WAL, locks are on the file itself
    check = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    with opened(file) as runs, runs._writing():
        with opened(file) as second:
            assert second.list() == []
        command = [sys.executable, "-c", check, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)

    assert "database is locked" in done.stderr


def test_threads_do_not_wait_for_ever(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that cannot have its turn gives up."""
    monkeypatch.setattr(database, "PATIENCE", 0.2)
    with opened(file) as runs, runs._writing(), pytest.raises(store.StoreError, match="busy"):
        at_once(1, lambda index: runs.unregister("x"))


def damage_head(file: Path) -> None:
    """Write over the beginning."""
    with file.open("r+b") as stream:
        stream.write(b"This was a database, once. " * 50)


def damage_middle(file: Path) -> None:
    """Write over all that follows the first page."""
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xa5" * (size - 4096))


def damage_end(file: Path) -> None:
    """Cut off the second half."""
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size // 2)


@pytest.mark.parametrize("damage", [damage_head, damage_middle, damage_end])
def test_a_damaged_file_is_moved_aside(
    file: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A new file is begun instead of a damaged one, which is kept; the log says so; once is enough."""
    with opened(file) as runs:
        for _ in range(50):
            runs.add(record(), b"x" * 1000)
    damage(file)
    damaged = file.read_bytes()

    with opened(file) as runs:
        assert runs.list() == []
        added = runs.add(record(), b"")
    with opened(file) as runs:
        assert runs.list() == [added]

    (aside,) = file.parent.glob("*.damaged-*")
    assert aside.read_bytes() == damaged
    messages = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    assert len(messages) == 1
    assert aside.name in messages[0]


def make_other(path: Path) -> None:
    """Make a database of another application."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE others (number)")


def make_socket(path: Path) -> None:
    """Make a socket that nobody listens on."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


KINDS: dict[str, Callable[[Path], object]] = {
    "device": lambda path: path.symlink_to("/dev/null"),
    "pipe": lambda path: os.mkfifo(path),
    "socket": make_socket,
    "folder": Path.mkdir,
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "text": lambda path: path.write_text("of somebody else"),
    "database": make_other,
}


@pytest.mark.parametrize("suffix", ["", ".lock", "-wal"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_ours_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, suffix: str
) -> None:
    """What has the name of a file of ours, and was not made here, is refused, and stays as it is."""
    if suffix == "-wal" and kind in ("text", "database"):
        pytest.skip("SQLite itself knows whether that is its own")
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    KINDS[kind](Path(f"runs{suffix}"))
    # If `/dev/null` itself were changed, the whole machine would notice.
    monkeypatch.setattr(Path, "chmod", lambda *_: pytest.fail("something was changed"))
    before = {each: each.lstat() for each in Path().iterdir()}

    with pytest.raises(store.StoreError, match="left as it is"):
        store.RunStore("runs").open()

    now = {each: each.lstat() for each in Path().iterdir()}
    assert now.keys() == before.keys()
    for each, status in now.items():
        assert (status.st_ino, status.st_mode, status.st_mtime_ns) == (
            *(before[each].st_ino, before[each].st_mode),
            before[each].st_mtime_ns,
        )


def test_a_copy_of_ours_is_ours(tmp_path: Path) -> None:
    """A database that was copied without its lock, and one by a link, is opened."""
    with opened(tmp_path / "first") as runs:
        added = runs.add(record(), b"")
    (tmp_path / "copy").write_bytes((tmp_path / "first").read_bytes())
    (tmp_path / "link").symlink_to("copy")

    with opened(tmp_path / "link") as runs:
        assert runs.list() == [added]


def test_damage_that_comes_later_is_an_error(file: Path) -> None:
    """When a file is damaged under an open store, its methods fail, and the next start begins anew."""
    with opened(file) as runs:
        for _ in range(50):
            runs.add(record(), b"x" * 1000)
    with opened(file) as runs:
        damage_middle(file)
        with pytest.raises(store.StoreError):
            runs.list()
        with pytest.raises(store.StoreError):
            runs.add(record(), b"")
    with opened(file) as runs:
        assert runs.list() == []


def test_an_empty_file_is_a_new_one(file: Path) -> None:
    """A file of no bytes is no damage."""
    file.parent.mkdir()
    file.touch()
    with opened(file) as runs:
        assert runs.list() == []
    assert list(file.parent.glob("*.damaged-*")) == []


@pytest.mark.parametrize("is_replaced", [False, True], ids=["removed", "replaced"])
def test_a_file_that_is_taken_away_is_begun_anew(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, is_replaced: bool
) -> None:
    """When the file goes, or another comes in its place, the store goes on with what is there."""
    with opened(tmp_path / "other") as other:
        instead = other.add(record(), b"")
    with opened(file) as runs:
        runs.add(record(), b"")
        for part in file.parent.iterdir():
            part.unlink()
        if is_replaced:
            (tmp_path / "other").rename(file)

        found = at_once(4, lambda index: runs.list())

        assert found == [[instead] if is_replaced else []] * 4
        added = runs.add(record(), b"")
        assert runs.get(added.id) == added
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert caplog.text.count("taken away or replaced") == 1


OPENING = """
import sys
from jupyter_nbexec import store
print("ready", flush=True)
sys.stdin.readline()
runs = store.RunStore(sys.argv[1])
runs.open()
runs.queued()
runs.close()
print("done", flush=True)
"""


def test_servers_that_find_damage_at_once_begin_one_file(file: Path) -> None:
    """Of processes that open a damaged file at once, one moves it aside, and all use the new one."""
    with opened(file) as runs:
        runs.add(record(), b"")
    damage_head(file)
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(python(OPENING, str(file))) for _ in range(4)]
        for process in processes:
            assert expect(process) == "ready"
        for process in processes:
            tell(process)
        assert [expect(process) for process in processes] == ["done"] * 4

    assert len(list(file.parent.glob("*.damaged-*"))) == 1


ADDING = """
import sys, uuid
from datetime import datetime, timezone
from jupyter_nbexec import models, store
runs = store.RunStore(sys.argv[1])
runs.open()
while True:
    run = models.RunRecord(
        id=str(uuid.uuid4()),
        created=datetime.now(tz=timezone.utc),
        request=models.RunRequest(),
        kernel_name="python3",
    )
    runs.add(run, b"x" * 5000)
    print(run.id, flush=True)
"""


def test_what_was_added_survives_the_death_of_its_process(url: str, runs: store.RunStore) -> None:
    """Every run that a process told of is there after that process was killed, and the database is sound."""
    told = []
    for number in (1, 20, 40):
        with python(ADDING, url) as process:
            told += [expect(process) for _ in range(number)]
            process.send_signal(signal.SIGKILL)
            process.wait(DEADLINE)
            assert process.stdout is not None
            told += [line.strip() for line in process.stdout if len(line) == 37]

    stored = {run.id for run in runs.list(limit=10_000)}
    assert set(told) <= stored
    assert len(stored) <= len(told) + 3
    if url.startswith("sqlite"):
        with runs._reading() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []


# PostgreSQL


def test_lost_connections_are_made_again(postgresql: Any) -> None:
    """After the database has closed all connections, as in a restart, the store goes on."""
    url = postgresql.create()
    with opened(url) as runs:
        added = at_once(4, lambda index: runs.add(record(), b""))
        with psycopg.connect(postgresql.conninfo, autocommit=True) as admin:
            ours = "FROM pg_stat_activity WHERE application_name = 'jupyter_nbexec'"
            admin.execute(f"SELECT pg_terminate_backend(pid) {ours}".encode())
        assert len(runs.list()) == len(added)
        runs.add(record(), b"")


def test_a_server_that_stands_still(postgresql: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks a server that does not answer is told so, later ones at once, until it answers again."""
    monkeypatch.setattr(watchdog, "SLOW", 0.2)
    monkeypatch.setattr(watchdog, "KNOCK", 2.0)
    monkeypatch.setattr(database, "CONNECTING", 3)

    url = postgresql.create()
    with opened(url) as runs:

        def ask(_: int) -> str:
            try:
                runs.list()
            except store.StoreError as error:
                return str(error)
            return "it answers"

        at_once(2, ask)
        with postgresql.frozen():
            # Two have connections, and two want some.
            assert all(answer.endswith("the server does not answer") for answer in at_once(4, ask))
            assert ask(0).endswith("the server does not answer")
            other = store.RunStore(url)
            with pytest.raises(store.StoreError, match="does not answer"):
                other.open()
            other.close()
        deadline = time.monotonic() + DEADLINE
        while ask(0) != "it answers":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert at_once(4, ask) == ["it answers"] * 4


def test_a_server_that_is_slow(postgresql: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server takes long for is waited for as long as it answers others, but not for ever."""
    monkeypatch.setattr(watchdog, "SLOW", 0.1)
    with opened(postgresql.create()) as runs:
        with runs._reading() as connection:
            connection.execute(sa.text("SELECT pg_sleep(0.5)"))
        with monkeypatch.context() as patched:
            patched.setattr(database, "LONGEST", 2.0)
            patched.setattr(database, "PATIENCE", 0.0)
            with pytest.raises(store.StoreError, match="closed"), runs._reading() as connection:
                connection.execute(sa.text("SELECT pg_sleep(60)"))
        assert runs.list() == []


def test_a_statement_has_limits(postgresql: Any) -> None:
    """Nothing waits for ever for a lock of another application."""
    with opened(postgresql.create()) as runs, runs._reading() as connection:
        limits = [
            connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("statement_timeout", "lock_timeout")
        ]

    assert limits == ["30s", "10s"]


# Processes


@contextlib.contextmanager
def python(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program; it is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    timer = threading.Timer(DEADLINE, process.kill)
    timer.start()
    try:
        with process:
            yield process
            process.kill()
    finally:
        timer.cancel()
        timer.join()


def expect(process: subprocess.Popen[str]) -> str:
    """Wait for the next line that a program writes."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the program has ended"
    return line.strip()


def tell(process: subprocess.Popen[str]) -> None:
    """Let a program go on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
