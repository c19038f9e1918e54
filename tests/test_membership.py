"""Servers that share a store: who lives, who is dead, and what becomes of the runs of the dead."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psutil
import pytest

from jupyter_nbexec import membership, models
from jupyter_nbexec import store as stores

NOW = datetime(2026, 11, 20, 10, tzinfo=timezone.utc)
LOG = logging.getLogger("test")
KEEP_ALL = membership.Retention(days=0, runs=0, bytes=0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[stores.RunStore]:
    """An empty store."""
    store = stores.RunStore(f"sqlite:///{tmp_path / 'runs.sqlite'}")
    store.open()
    yield store
    store.close()


def server(**fields: object) -> models.ServerRecord:
    """This process, as another server sees it."""
    known: dict[str, object] = {
        "id": "other",
        "host": membership.this_host(),
        "pid": os.getpid(),
        "process_started": membership.process_started(os.getpid()),
        "heartbeat": NOW,
    }
    return models.ServerRecord(**{**known, **fields})  # type: ignore[arg-type]


def a_run(owner: str | None, **fields: object) -> models.RunRecord:
    """A run that is queued, or of a server."""
    known: dict[str, object] = {
        "id": f"{len(fields)}-{owner}",
        "created": NOW,
        "request": models.RunRequest(path="a.ipynb"),
        "kernel_name": "python3",
        "owner": owner,
    }
    return models.RunRecord(**{**known, **fields})  # type: ignore[arg-type]


def test_a_process_of_this_machine() -> None:
    """On this machine a server lives as long as its process, whatever the clock says."""
    later = NOW + timedelta(hours=1)

    assert not membership.is_dead(server(), later, lease=30)


def test_a_process_that_has_ended() -> None:
    """A server whose process has ended is dead at once."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        started = membership.process_started(process.pid)
    assert membership.is_dead(server(pid=process.pid, process_started=started), NOW, lease=30)


def test_a_process_id_that_is_used_again() -> None:
    """A process that has the number of another, but was started later, is another."""
    assert membership.is_dead(server(process_started=1.0), NOW, lease=30)


def test_another_machine() -> None:
    """A server of another machine is dead when it was silent for longer than the lease."""
    other = server(host="elsewhere", pid=1)

    assert not membership.is_dead(other, NOW + timedelta(seconds=29), lease=30)
    assert membership.is_dead(other, NOW + timedelta(seconds=31), lease=30)


def test_join_closes_what_the_dead_have_left(store: stores.RunStore) -> None:
    """Who joins closes the runs of a dead server; what only waits there is for all."""
    store.register(server(host="elsewhere", heartbeat=NOW))
    running = store.add(a_run("other", status=models.RunStatus.RUNNING, started=NOW), b"{}")
    waiting = store.add(a_run("other", is_detached=True, id="waits"), b"{}")
    beats: list[membership.Beat] = []
    member = membership.Membership(store, retention=KEEP_ALL, on_beat=beats.append, log=LOG)
    closed = member.join()
    member.leave()

    assert [record.id for record in closed] == [running.id]
    assert closed[0].error is not None
    assert closed[0].error.code is models.ErrorCode.SERVER_STOPPED
    freed = store.get(waiting.id)
    assert freed is not None
    assert (freed.status, freed.owner) == (models.RunStatus.QUEUED, None)
    assert store.servers() == []


def test_beats(store: stores.RunStore) -> None:
    """A heart tells of wishes to cancel, and that the others hold this server for dead."""
    found = threading.Event()
    beats: list[membership.Beat] = []

    def on_beat(beat: membership.Beat) -> None:
        beats.append(beat)
        if beat.cancelled or not beat.is_alive:
            found.set()

    member = membership.Membership(store, retention=KEEP_ALL, on_beat=on_beat, log=LOG, beat=0.02)
    member.join()
    run = store.add(a_run(member.id, status=models.RunStatus.RUNNING, started=NOW), b"{}")
    store.request_cancel(run.id)
    assert found.wait(20)
    found.clear()
    assert beats[-1].cancelled == [run.id]
    closed = store.recover([member.id], NOW)
    assert found.wait(20)
    member.leave()

    assert [record.id for record in closed] == [run.id]
    assert not all(beat.is_alive for beat in beats)


def test_silence(store: stores.RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that cannot say that it lives takes itself for dead before those of other machines do."""
    store.register(server(host="elsewhere", heartbeat=datetime.now(tz=timezone.utc) + timedelta(hours=1)))
    dead = threading.Event()

    def on_beat(beat: membership.Beat) -> None:
        if not beat.is_alive:
            dead.set()

    member = membership.Membership(store, retention=KEEP_ALL, on_beat=on_beat, log=LOG, beat=0.02, lease=0.1)
    member.join()

    def fail(*_: object) -> bool:
        raise stores.StoreError("locked")

    with monkeypatch.context() as patched:
        patched.setattr(store, "beat", fail)
        assert dead.wait(20)
    member.leave()


def test_silence_on_one_machine(store: stores.RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all servers are on one machine they see each other live: a full disk or a lock ends no run."""
    beats: list[membership.Beat] = []
    is_over = threading.Event()
    failed: list[float] = []
    store.register(server())
    member = membership.Membership(
        store, retention=KEEP_ALL, on_beat=beats.append, log=LOG, beat=0.02, lease=0.1
    )
    member.join()

    def fail(*_: object) -> bool:
        failed.append(time.monotonic())
        if failed[-1] - failed[0] > 0.3:
            is_over.set()
        raise stores.StoreError("locked")

    with monkeypatch.context() as patched:
        patched.setattr(store, "beat", fail)
        assert is_over.wait(20)
    member.leave()

    assert all(beat.is_alive for beat in beats)


def test_prune(store: stores.RunStore) -> None:
    """What is too old is forgotten; what has not ended never is."""
    old = store.add(a_run("me", status=models.RunStatus.RUNNING, started=NOW), b"{}")
    queued = store.add(a_run(None, id="queued", is_detached=True), b"{}")
    ended = a_run("me", id=old.id, status=models.RunStatus.SUCCEEDED, started=NOW, ended=NOW)
    assert store.finish(ended, None, None)
    retention = membership.Retention(days=0.001, runs=0, bytes=0)
    member = membership.Membership(store, retention=retention, on_beat=lambda _: None, log=LOG)

    assert member.prune() == 1
    assert store.get(old.id) is None
    assert store.get(queued.id) is not None


def test_forgetting_does_not_stop_the_heart(store: stores.RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes to forget a backlog, the server says that it lives, and may leave at once."""
    begun, has_beaten = threading.Event(), threading.Event()
    beats: list[membership.Beat] = []

    def prune(*, may_go_on: Callable[[], bool], **_: object) -> int:
        begun.set()
        while may_go_on():
            has_beaten.wait(0.01)
        return 0

    def note(beat: membership.Beat) -> None:
        beats.append(beat)
        if begun.is_set() and len(beats) > 3:
            has_beaten.set()

    monkeypatch.setattr(store, "prune", prune)
    member = membership.Membership(store, retention=KEEP_ALL, on_beat=note, log=LOG, beat=0.05)
    member.join()

    assert begun.wait(60)
    beats.clear()
    assert has_beaten.wait(60)
    member.leave()
    assert not any(thread.is_alive() for thread in (member._heart, member._janitor))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc, this machine has a name all the same, and its processes live or do not."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    def is_missing(path: Path, *_: object, **__: object) -> object:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_bytes", is_missing)
    monkeypatch.setattr(Path, "read_text", is_missing)
    monkeypatch.setattr(psutil, "PROCFS_PATH", "/no/such/folder")

    assert membership.this_host().startswith(f"{socket.gethostname()}/")
    assert membership.process_started(os.getpid()) == 0.0
    assert membership.process_started(process.pid) is None
    assert not membership.is_dead(server(), NOW, lease=1)
