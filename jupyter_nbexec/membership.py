"""This server among those that use the same store: it lives, and closes what the dead have left.

A server that could not say for a whole lease that it lives must take itself for dead where there are servers
on other machines: they do, and have closed its runs. Those on its own machine know better. A thread of its
own does all this, so that a busy event loop is not taken for a dead one.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psutil

from jupyter_nbexec import errors, models
from jupyter_nbexec import store as stores

#: Seconds between heartbeats, and after which a server without one is dead to the others.
BEAT, LEASE = 5.0, 30.0
#: Seconds between two looks at what is too old or too much.
PRUNE_INTERVAL = 60.0
#: Share of the time that forgetting may take of the store, where there is much.
PRUNE_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Retention:
    """What of the history is kept. 0 stands for no limit."""

    days: float
    runs: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Beat:
    """What a heartbeat has found out."""

    #: False: the others hold this server for dead.
    is_alive: bool = True
    #: Runs of dead servers that were closed.
    closed: list[models.RunRecord] = field(default_factory=list)
    #: Ids of runs of this server that somebody wants to be cancelled.
    cancelled: list[str] = field(default_factory=list)
    #: Ids of runs that the store says this server has, besides those in its queue.
    owned: list[str] = field(default_factory=list)
    #: How many runs wait in the store.
    queued: int = 0


class Membership:
    """Keeps this server's entry in the store."""

    def __init__(
        self,
        store: stores.RunStore,
        *,
        retention: Retention,
        on_beat: Callable[[Beat], None],
        log: logging.Logger | logging.LoggerAdapter[Any],
        beat: float = BEAT,
        lease: float = LEASE,
    ) -> None:
        """`on_beat` is called in the thread of this object. `beat` and `lease` are in seconds."""
        self.id = str(uuid.uuid4())
        self._store = store
        self._retention = retention
        self._on_beat = on_beat
        self._log = log
        self._beat = beat
        self._lease = lease
        self._stopped = threading.Event()
        self._heart = threading.Thread(target=self._work, name="jupyter_nbexec-heart", daemon=True)
        # Whatever that takes, the heart goes on.
        self._janitor = threading.Thread(target=self._tidy, name="jupyter_nbexec-janitor", daemon=True)
        self._heard = time.monotonic()
        #: Whether there were servers on other machines when they were last looked at.
        self._has_distant = False

    def join(self) -> list[models.RunRecord]:
        """Enter this server, close what the dead have left, and go on doing so. Raises StoreError."""
        self._register()
        closed = self._recover()
        self._heart.start()
        self._janitor.start()
        return closed

    def leave(self) -> None:
        """Close what is left of this server's own, and take its entry away. Raises StoreError."""
        self._stopped.set()
        for thread in (self._heart, self._janitor):
            if thread.is_alive():
                thread.join()
        self._store.recover([self.id], _now())
        self._store.unregister(self.id)

    def prune(self) -> int:
        """Forget what is too old or too much; how many runs were forgotten. Raises StoreError.

        Others have their turn in between; a server that stops does not do all of it.
        """
        days = self._retention.days
        turned = time.monotonic()

        def may_go_on() -> bool:
            nonlocal turned
            took = time.monotonic() - turned
            is_stopped = self._stopped.wait(took * (1 / PRUNE_SHARE - 1))
            turned = time.monotonic()
            return not is_stopped

        return self._store.prune(
            older_than=_now() - timedelta(days=days) if days else None,
            max_runs=self._retention.runs or None,
            max_bytes=self._retention.bytes or None,
            may_go_on=may_go_on,
        )

    def _register(self) -> None:
        self._store.register(
            models.ServerRecord(
                id=self.id,
                host=this_host(),
                pid=os.getpid(),
                process_started=process_started(os.getpid()) or 0.0,
                heartbeat=_now(),
            )
        )

    def _work(self) -> None:
        while not self._stopped.wait(self._beat):
            try:
                self._on_beat(self._once())
            except stores.StoreError as error:
                self._log.error("heartbeat: %s", error)
                if self._has_distant and time.monotonic() - self._heard > self._lease - self._beat:
                    self._on_beat(Beat(is_alive=False))
            except Exception:
                # Whatever it is, a server without a heart would lose all its runs.
                self._log.exception("heartbeat")

    def _tidy(self) -> None:
        delay = self._beat
        while not self._stopped.wait(delay):
            delay = PRUNE_INTERVAL
            try:
                if pruned := self.prune():
                    self._log.info("%d runs were forgotten, as the retention settings say", pruned)
            except stores.StoreError as error:
                self._log.error("forgetting: %s", error)
            except Exception:
                # It is tried again.
                self._log.exception("forgetting")

    def _once(self) -> Beat:
        is_alive = self._store.beat(self.id, _now())
        if not is_alive:
            self._register()
        self._heard = time.monotonic()
        closed = self._recover()
        return Beat(
            is_alive=is_alive,
            closed=closed,
            cancelled=self._store.cancel_requests(self.id),
            owned=self._store.owned(self.id),
            queued=self._store.queued(),
        )

    def _recover(self) -> list[models.RunRecord]:
        now = _now()
        servers = self._store.servers()
        self._has_distant = any(server.host != this_host() for server in servers)
        dead = [
            server.id
            for server in servers
            if server.id != self.id and is_dead(server, now, lease=self._lease)
        ]
        return self._store.recover(dead, now)


def is_dead(server: models.ServerRecord, now: datetime, *, lease: float) -> bool:
    """Whether a server is gone: without its process, or, on other machines, silent for too long.

    On this machine the process alone decides: what clocks say may jump.
    """
    if server.host == this_host():
        started = process_started(server.pid)
        return started is None or abs(started - server.process_started) > 1
    return (now - server.heartbeat).total_seconds() > lease


def process_started(pid: int) -> float | None:
    """When a process was started, in seconds since the machine was where that is known; None if it is gone.

    psutil alone would count from the epoch, by a clock that may have been set since. 0: nobody can tell.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        pass
    except ProcessLookupError:
        return None
    else:
        state, *fields = stat.rpartition(b")")[2].split()
        return None if state in (b"Z", b"X") else int(fields[18]) / os.sysconf("SC_CLK_TCK")
    try:
        return psutil.Process(pid).create_time()
    except (psutil.Error, OSError, RuntimeError):
        # Without /proc, Linux tells no more than whether it is there.
        return 0.0 if sys.platform == "linux" and _is_there(pid) else None


def _is_there(pid: int) -> bool:
    """Whether there is such a process, whoever's it is; psutil would look into /proc for that, too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def this_host() -> str:
    """Name this machine, since it was last started: process ids mean nothing beyond that.

    In containers the host name tells apart those that share a machine but not their process ids.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError as error:
        if errors.shortage(error) is not None:
            raise  # it would have another name
        boot, namespace = _boot_time(), ""
    return f"{socket.gethostname()}/{boot}/{namespace}"


def _boot_time() -> str:
    """When this machine was started, in seconds; nothing where nobody tells, as without /proc on Linux."""
    try:
        return str(int(psutil.boot_time()))
    except (OSError, RuntimeError, psutil.Error):
        return ""


def _now() -> datetime:
    return datetime.now(tz=timezone.utc)
