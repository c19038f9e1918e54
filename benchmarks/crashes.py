"""Kill, stop, freeze and starve servers while they run notebooks; see that nothing is lost or done twice.

    python benchmarks/crashes.py [--short] [--kills N] [--seed N] [CAMPAIGN...]

What `soak.py` is for runs, this is for servers. Each campaign states figures and checks promises; the exit
status is 1 if one of them was broken; then logs are kept. Random moments come from a seed that is printed.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import witness
from campaigns import Report, check_log, command_line, perform, until
from witness import Site, Witness, site

sys.path.insert(1, str(Path(__file__).parents[1]))
from tests import postgresql

#: Seconds within which the project promises to be back, to stop, and to have ended a run that nobody wants.
BACK, STOP, STOP_DEAF, CANCELLED = 5.0, 10.0, 15.0, 10.0
#: Runs that are executed at once.
SLOTS = "--NbExec.max_concurrent_runs=3"

#: What a server's configuration does to be killed at a moment that is hard to hit from outside. A file
#: called `die-<moment>` beside it asks for that, once.
MOMENTS = """
import os, signal, threading
from pathlib import Path
import sqlalchemy
from jupyter_nbexec import store
from jupyter_nbexec.kernels import managed

HERE, finishing = Path(__file__).parent, threading.local()

def die(moment):
    try:
        (HERE / f"die-{moment}").unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)

def die_after(name, moment):
    original = getattr(store.RunStore, name)
    def changed(*args, **kwargs):
        result = original(*args, **kwargs)
        if result is not None:
            die(moment)
        return result
    setattr(store.RunStore, name, changed)

def finish(self, *args):
    finishing.is_so = True
    try:
        return finish.original(self, *args)
    finally:
        finishing.is_so = False

async def start(self, *args):
    kernel = await start.original(self, *args)
    die("kernel-started")
    return kernel

if not hasattr(store, "is_prepared_to_die"):
    store.is_prepared_to_die = True
    finish.original, store.RunStore.finish = store.RunStore.finish, finish
    start.original, managed.Starter._start = managed.Starter._start, start
    for name, moment in (
        ("add", "stored"), ("claim_next", "claimed"), ("begin", "begun"),
        ("save_progress", "saved"), ("finish", "ended"),
    ):
        die_after(name, moment)
    @sqlalchemy.event.listens_for(sqlalchemy.Engine, "commit")
    def commit(connection):
        if getattr(finishing, "is_so", False):
            die("ending")
"""

#: A server that takes itself to be on a machine of its own, with a lease of its own length.
ELSEWHERE = """
import os
from jupyter_nbexec import membership
membership.this_host = lambda: os.environ["WITNESS_HOST"]
beat, lease = (float(each) for each in os.environ["WITNESS_LEASE"].split())
membership.Membership.__init__.__kwdefaults__.update(beat=beat, lease=lease)
"""

#: A server that does not wait for locks as long as usual.
IMPATIENT = """
from jupyter_nbexec.store import database, files
database.PATIENCE = files.PATIENCE = {patience}
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is done."""

    short: bool
    kills: int
    seed: int

    def pick(self, short: Any, long: Any) -> Any:
        """The one that belongs to this form."""
        return short if self.short else long


@contextlib.contextmanager
def folder(report: Report) -> Iterator[Path]:
    """Make a folder that is gone afterwards; but logs are kept if a promise was broken."""
    with tempfile.TemporaryDirectory(prefix="nbexec-crash-", ignore_cleanup_errors=True) as name:
        before = len(report.broken)
        is_well = False
        try:
            yield Path(name)
            is_well = True
        finally:
            if not is_well or len(report.broken) > before:
                kept = tempfile.mkdtemp(prefix="nbexec-crash-logs-")
                for number, log in enumerate(
                    sorted(each for each in Path(name).rglob("log") if each.is_file())
                ):
                    shutil.copy(log, Path(kept) / f"{number}.log")
                report.figure(f"logs are in {kept}")


async def gathered(*awaitables: Awaitable[Any]) -> list[Any]:
    """Wait for all, for a bounded time."""
    return list(await asyncio.wait_for(asyncio.gather(*awaitables), 2 * witness.DEADLINE))


@contextlib.contextmanager
def database() -> Iterator[postgresql.Cluster]:
    """Run a PostgreSQL."""
    with postgresql.running() as cluster:
        if cluster is None:
            raise RuntimeError("PostgreSQL is not installed")
        yield cluster


def told(answer: httpx.Response | None) -> int | None:
    """The status of an answer; None if there was none."""
    return None if answer is None else answer.status_code


def id_of(answer: httpx.Response | None) -> str:
    """The id of the run that was answered."""
    if answer is None or "id" not in answer.json():
        raise RuntimeError(f"no run was answered: {answer and answer.text[:300]}")
    return str(answer.json()["id"])


# a. Kills at any moment


class Load:
    """Clients of all kinds, who go on asking while servers come and go."""

    #: Runs that may be on their way, so that all end in a reasonable time.
    MOST = 24

    def __init__(self, target: Site, seen: Witness, seed: int) -> None:
        self._target = target
        self._seen = seen
        self._random = random.Random(seed)
        self._unfinished: set[str] = set()
        self.kinds: collections.Counter[str] = collections.Counter()
        self.is_over = False

    async def work(self) -> None:
        """Be one client."""
        kinds: tuple[tuple[int, Callable[[], Awaitable[None]]], ...] = (
            (6, self._asynchronous),
            (3, self._with_key),
            (2, self._synchronous),
            (2, self._synchronous_with_key),
            (2, self._cancelled),
            (1, self._with_env),
            (1, self._patient),
        )
        chosen = [kind for weight, kind in kinds for _ in range(weight)]
        while not self.is_over:
            if len(self._unfinished) >= self.MOST:
                await self._look()
            else:
                kind = self._random.choice(chosen)
                self.kinds[kind.__name__.strip("_").replace("_", " ")] += 1
                await kind()
            await asyncio.sleep(self._random.uniform(0.0, 0.4))  # clients come when they like

    def _how(self) -> dict[str, Any]:
        way = self._random.choice(("", "", "", "", "parent", "raise", "die"))
        return {"way": way, "seconds": round(self._random.uniform(0, 0.5), 2)}

    def _keep(self, answer: httpx.Response | None) -> str | None:
        if answer is None or answer.status_code != 202:
            return None
        run_id = id_of(answer)
        self._unfinished.add(run_id)
        return run_id

    async def _look(self) -> None:
        run_id = self._random.choice(sorted(self._unfinished))
        run = await self._seen.look(self._target, f"runs/{run_id}?wait=2")
        if run is not None and (run["http"] == 404 or witness.ORDER.get(run.get("status", ""), 0) == 2):
            self._unfinished.discard(run_id)
        elif run is None:
            await asyncio.sleep(0.1)

    async def _asynchronous(self) -> None:
        _, answer = await self._seen.ask(self._target, prefer="respond-async", **self._how())
        self._keep(answer)

    async def _with_key(self) -> None:
        _, answer = await self._seen.ask(self._target, prefer="respond-async", key=True, **self._how())
        self._keep(answer)

    async def _synchronous(self) -> None:
        await self._seen.ask(self._target, **self._how())

    async def _synchronous_with_key(self) -> None:
        await self._seen.ask(self._target, key=True, **self._how())

    async def _cancelled(self) -> None:
        _, answer = await self._seen.ask(self._target, prefer="respond-async", **self._how())
        run_id = self._keep(answer)
        await asyncio.sleep(self._random.choice((0.0, 0.0, self._random.uniform(0, 3))))
        if run_id is not None:
            await self._seen.cancel(self._target, run_id)

    async def _with_env(self) -> None:
        _, answer = await self._seen.ask(self._target, prefer="respond-async", env={"A": "b"}, **self._how())
        self._keep(answer)

    async def _patient(self) -> None:
        _, answer = await self._seen.ask(self._target, prefer="wait=1", **self._how())
        self._keep(answer)


async def kills(report: Report, options: Options) -> None:
    """A server that is killed at any moment, and started again, loses nothing and does nothing twice."""
    chance = random.Random(options.seed)
    number = options.pick(4, options.kills)
    left_after: list[float] = []
    early = 0
    with folder(report) as name, site(name, SLOTS) as target:
        seen = Witness(target.side)
        load = Load(target, seen, options.seed)
        for _ in range(options.pick(1, 5)):  # before, and while, there is a database
            early += 1
            target.launch()
            await asyncio.sleep(chance.uniform(1.0, 3.0))
            target.kill()
        await target.start()
        first = target.starts.pop()
        clients = [asyncio.create_task(load.work()) for _ in range(options.pick(4, 6))]
        began = time.monotonic()
        for turn in range(number):
            if chance.random() < 0.2 and turn:
                # Killed again before it is up.
                early += 1
                target.launch()
                await asyncio.sleep(chance.uniform(0.2, 2.5))
                target.kill()
            if turn:
                await target.start()
            await asyncio.sleep(chance.uniform(0.3, options.pick(1.5, 5.0)))
            killed = time.monotonic()
            target.kill()
            gone = await until(lambda: not target.processes(), witness.GONE)
            left_after.append(float("inf") if gone is None else time.monotonic() - killed)
        took = time.monotonic() - began
        await target.start()
        load.is_over = True
        await gathered(*clients)
        has_ended = await seen.quiet(target, 60 + 3 * load.MOST)
        report.figure(
            f"seed {options.seed}: {number} kills, and {early} more before it was up, in {took:.0f} s: "
            f"{dict(load.kinds)}"
        )
        report.figure(f"answers: {dict(seen.answers)}")
        report.promise("all is quiet in the end", kept=has_ended)
        ends = await seen.judge(report, target)
        report.figure(f"{ends.total()} runs: {dict(ends)}")
        await seen.judge_processes(report, target)
        code, _ = await target.stop()
        report.promise("exit code 0 in the end", kept=code == 0, found=code)
        found = witness.integrity(target.database)
        report.promise("the database is sound", kept=found == "ok", found=found)
        check_log(report, target.present)
        recoveries = _recoveries(target.present.log())
    report.figure(
        f"from start to answer: {first:.2f} s with nothing to recover; after a kill median "
        f"{statistics.median(target.starts):.2f} s, maximum {max(target.starts):.2f} s"
    )
    report.figure(f"from SIGKILL to the end of all processes: {max(left_after):.2f} s at most")
    report.promise(
        "all processes of a killed server end", kept=max(left_after) < witness.GONE, found=left_after
    )
    longest = max(recoveries, default=0.0)
    report.figure(f"of this, until the last run of a dead server was closed: {longest:.2f} s at most")
    report.promise(f"recovery takes at most {BACK:g} s", kept=longest <= BACK, found=longest)


def _recoveries(log: str) -> list[float]:
    """Seconds from each moment at which a server listens to the last run that it closed for a dead one."""
    found: list[float] = []
    began: datetime | None = None
    for line in log.splitlines():
        moment = re.match(r"\[\w (\S+ \S+) ", line)
        if moment is None:
            continue
        time_ = datetime.fromisoformat(moment[1])
        if " is running at:" in line:
            began = time_
            found.append(0.0)
        elif "since its server has died" in line and began is not None:
            found[-1] = (time_ - began).total_seconds()
    return found


# b. Servers that share a database


async def shared(report: Report, options: Options) -> None:
    """Two servers that share a PostgreSQL database execute each run once, also when one of them is killed."""
    with folder(report) as name, database() as cluster:
        options_ = (SLOTS, f"--NbExec.database_url={cluster.create()}")
        side = name / "side.log"
        with (
            site(name / "one", *options_, side=side) as one,
            site(name / "two", *options_, side=side) as two,
        ):
            await gathered(one.start(), two.start())
            await _share(report, one, two, options.pick(8, 200), is_killed=False)
            await _share(report, one, two, options.pick(12, 200), is_killed=True)
            for each in (one, two):
                check_log(report, each.present)


async def _share(report: Report, one: Site, two: Site, number: int, *, is_killed: bool) -> None:
    one.side.unlink(missing_ok=True)
    seen = Witness(one.side)
    before = [_begun(each) for each in (one, two)]
    began = time.monotonic()
    await gathered(*(seen.ask((one, two)[each % 2], prefer="respond-async") for each in range(number)))
    admitted = time.monotonic() - began
    if is_killed:
        half = await until(lambda: len(seen.lines()) >= number // 2, witness.DEADLINE)
        one.kill()
        report.promise("half of the runs were begun when one was killed", kept=half is not None)
    has_ended = await seen.quiet(two, 60 + 2 * number)
    took = time.monotonic() - began
    runs = {run["id"] async for run in seen.pages(two)}
    mine = {run_id for asked in seen.asked.values() for run_id in asked.ids}
    report.promise(
        f"all {number} ended", kept=has_ended and len(mine & runs) == number, found=len(mine & runs)
    )
    # The other campaign's runs are in the same database, but no longer in the file.
    await _delete(two, runs - mine)
    ends = await seen.judge(report, two, in_order=False)
    what = "one is killed halfway" if is_killed else "both live"
    report.figure(
        f"{what}: {number} runs admitted in {admitted:.1f} s, ended after {took:.1f} s: {dict(ends)}"
    )
    if is_killed:
        closed = ends["failed/server_stopped"]
        kept = ends["succeeded"] + closed == number and closed <= 3
        report.promise("at most the runs of the killed one's places failed", kept=kept, found=dict(ends))
    else:
        report.promise("all succeeded", kept=ends["succeeded"] == number, found=dict(ends))
    shares = [_begun(each) - past for each, past in zip((one, two), before, strict=True)]
    report.promise(f"both took part: {shares[0]} and {shares[1]} runs", kept=min(shares) > 0)
    live = [two] if is_killed else [one, two]
    await seen.judge_processes(report, *live)


def _begun(target: Site) -> int:
    """How many runs this server has begun."""
    return sum("started, notebook" in line for line in target.present.log().splitlines())


async def _delete(target: Site, ids: set[str]) -> None:
    async with target.present.client() as client:
        for run_id in ids:
            await client.delete(f"api/nbexec/runs/{run_id}")


async def cut(report: Report, options: Options) -> None:
    """Connections to PostgreSQL that are cut at any moment lose nothing, and leave nothing behind."""
    chance = random.Random(options.seed)
    cuts = 0
    with (
        folder(report) as name,
        database() as cluster,
        site(name, SLOTS, f"--NbExec.database_url={cluster.create()}") as target,
    ):
        seen = Witness(target.side)
        load = Load(target, seen, options.seed)
        await target.start()
        clients = [asyncio.create_task(load.work()) for _ in range(4)]
        end = time.monotonic() + options.pick(4.0, 60.0)
        with psycopg.connect(cluster.conninfo, autocommit=True) as connection:
            while time.monotonic() < end:
                cuts += len(connection.execute(CUT).fetchall())
                await asyncio.sleep(chance.uniform(0.0, 0.15))
        load.is_over = True
        await gathered(*clients)
        has_ended = await seen.quiet(target, 60 + 3 * load.MOST)
        report.figure(f"seed {options.seed}: {cuts} connections cut: {dict(load.kinds)}")
        report.figure(f"answers: {dict(seen.answers)}")
        ours = [answer for answer in seen.answers if answer.startswith("500") and "cell_error" not in answer]
        report.promise("a cut is told as 503, never as a fault of ours", kept=not ours, found=ours)
        report.promise("all is quiet in the end", kept=has_ended)
        ends = await seen.judge(report, target, in_order=False)
        report.figure(f"{ends.total()} runs: {dict(ends)}")
        await seen.judge_processes(report, target)
        check_log(report, target.present)


#: Cuts about half of the connections.
CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'jupyter_nbexec' AND random() < 0.5
"""

# c. Kills at moments that are hard to hit


async def moments(report: Report, options: Options) -> None:
    """A kill between any two steps of a run leaves it in one piece, and never executes it twice."""
    expected = {
        # The run is in the store, but nobody was told.
        "stored": ("succeeded", (1,)),
        # It is taken, but nothing was sent to a kernel: another server does it.
        "claimed": ("succeeded", (1,)),
        "kernel-started": ("succeeded", (1,)),
        # It may have been executed.
        "begun": ("failed/server_stopped", (0,)),
        "saved": ("failed/server_stopped", (0, 1)),
        # The transaction that ends it is not committed; and: it is, but nobody was told.
        "ending": ("failed/server_stopped", (1,)),
        "ended": ("succeeded", (1,)),
    }
    for moment in options.pick(("claimed", "begun", "saved", "ended"), ()):
        del expected[moment]
    with folder(report) as name, site(name, SLOTS) as target:
        target.configure(MOMENTS)
        seen = Witness(target.side)
        asked: dict[str, Any] = {}
        await target.start()
        for moment in expected:
            (name / "config" / f"die-{moment}").touch()
            asked[moment] = asyncio.create_task(
                seen.ask(target, prefer="respond-async", key=f"{moment}", way="parent")
            )
            died = await until(target.present.has_ended, witness.DEADLINE)
            report.promise(f"killed when it was {moment}", kept=died is not None)
            await target.start()
            await seen.quiet(target)
        for moment, (end, lines) in expected.items():
            each, answer = await asked[moment]
            again = await seen.ask_again(target, each, prefer="respond-async", way="parent")
            run = await seen.end(target, id_of(answer))
            found = run["status"] if run["error"] is None else f"{run['status']}/{run['error']['code']}"
            count = len(seen.lines()[each.who])
            kept = id_of(again) == id_of(answer) and found == end and count in lines
            report.promise(f"{moment}: {end}, the same run for the same key", kept=kept, found=(found, count))
            if moment in ("saved", "ended"):
                whole = witness.stdout_of(run) == witness.LINES
                report.promise(f"{moment}: its outputs are there", kept=whole or moment == "saved", found=run)
        has_ended = await seen.quiet(target)
        report.promise("all is quiet in the end", kept=has_ended)
        await seen.judge(report, target)
        await seen.judge_processes(report, target)
        await target.stop()
        found = witness.integrity(target.database)
        report.promise("the database is sound", kept=found == "ok", found=found)
        check_log(report, target.present)
    report.figure(f"from start to answer: {max(target.starts):.2f} s at most")


# d. SIGTERM


async def stops(report: Report, options: Options) -> None:
    """A server that is asked to end does so, whatever it is at; what is queued is executed by the next."""
    times: dict[str, float] = {}

    async def stop(what: str, limit: float = STOP) -> None:
        code, took = await target.stop()
        times[what] = took
        report.promise(
            f"{what}: exit code 0 within {limit:g} s", kept=code == 0 and took <= limit, found=(code, took)
        )
        report.promise(f"{what}: no connection file is left", kept=not target.present.kernel_files())
        left = target.processes()
        report.promise(f"{what}: no process is left", kept=not left, found=left)

    with folder(report) as name, site(name, "--NbExec.max_concurrent_runs=2") as target:
        seen = Witness(target.side)
        await target.start()
        await stop("idle")
        await target.start()
        _, answer = await seen.ask(target)
        report.promise("a run succeeds", kept=answer is not None and answer.status_code == 200)
        await stop("after a run")
        await target.start()
        for way in options.pick(("deaf",), ("", "deaf", "parent")):
            queued = await _under_way(seen, target, way)
            answers = queued.pop("answers")
            await stop(f"with runs and queues, {way or 'sleeping'}", STOP_DEAF if way == "deaf" else STOP)
            said = [each and each.status_code for _, each in await gathered(*answers)]
            report.promise("those who wait are told 503", kept=set(said) == {503}, found=said)
            await target.start()
            runs = [await seen.end(target, run_id) for run_id in queued["ids"]]
            found = collections.Counter(run["status"] for run in runs)
            kept = found["succeeded"] == len(runs)
            report.promise(
                f"{len(runs)} queued asynchronous runs are executed later", kept=kept, found=dict(found)
            )
        await seen.quiet(target)
        await seen.judge(report, target)
        await seen.judge_processes(report, target)
        check_log(report, target.present)
    report.figure(
        "from SIGTERM to the end: " + ", ".join(f"{what} {took:.2f} s" for what, took in times.items())
    )


async def _under_way(seen: Witness, target: Site, way: str) -> dict[str, Any]:
    """Have one run of each kind executed, and some of each kind queued."""
    before = len(seen.lines())
    running = asyncio.create_task(seen.ask(target, seconds=600.0, way=way))
    _, other = await seen.ask(target, prefer="respond-async", seconds=600.0, way=way)
    if await until(lambda: len(seen.lines()) >= before + 2, witness.DEADLINE) is None:
        raise RuntimeError("the runs do not begin:\n" + target.present.log()[-3000:])
    waiting = [asyncio.create_task(seen.ask(target)) for _ in range(2)]
    answers = [await seen.ask(target, prefer="respond-async") for _ in range(3)]
    await _until_number(seen, target, "queued", 5)
    id_of(other)
    return {"answers": [running, *waiting], "ids": [id_of(answer) for _, answer in answers]}


async def _until_number(seen: Witness, target: Site, status: str, number: int) -> None:
    """Wait until so many runs have a status."""
    deadline = time.monotonic() + witness.DEADLINE
    while len([run async for run in seen.pages(target, f"&status={status}")]) != number:
        if time.monotonic() > deadline:
            raise RuntimeError(f"there are never {number} runs {status}")


# e. A server that stands still


async def frozen(report: Report, options: Options) -> None:
    """A server that stands still for longer than its lease loses its runs, and does not go on with them."""
    beat, lease, pause = options.pick((0.3, 1.5, 3.0), (5.0, 30.0, 60.0))
    with folder(report) as name, database() as cluster:
        side, url = name / "side.log", cluster.create()

        def make(host: str) -> Any:
            environment = {"WITNESS_HOST": host, "WITNESS_LEASE": f"{beat} {lease}"}
            options_ = ("--NbExec.max_concurrent_runs=2", f"--NbExec.database_url={url}")
            return site(name / host, *options_, side=side, **environment)

        with make("one") as one, make("two") as two:
            seen = Witness(side)
            for each in (one, two):
                each.configure(ELSEWHERE)
            await one.start()
            waiting = asyncio.create_task(seen.ask(one, seconds=600.0, way="parent"))
            asked = [await seen.ask(one, prefer="respond-async", seconds=1.0, way="parent") for _ in range(6)]
            if await until(lambda: len(seen.lines()) >= 2, witness.DEADLINE) is None:
                raise RuntimeError("the runs do not begin:\n" + one.present.log()[-3000:])
            await two.start()
            one.signal(signal.SIGSTOP)
            began = time.monotonic()
            ends = [await seen.end(two, id_of(answer)) for _, answer in asked]
            closed = time.monotonic() - began
            await asyncio.sleep(max(0.0, pause - closed))  # what is tested is that time passes
            one.signal(signal.SIGCONT)
            report.figure(
                f"{closed:.1f} s after it stood still another had closed its runs, and executed its queue"
            )
            ((_, answer),) = await gathered(waiting)
            said = answer and (answer.status_code, answer.json()["status"])
            report.promise("who waited is told 503", kept=said == (503, "failed"), found=said)
            statuses = collections.Counter(run["status"] for run in ends)
            report.figure(f"asynchronous runs: {dict(statuses)}")
            report.promise("the other server has executed the queue", kept=statuses["succeeded"] >= 4)
            _, answer = await seen.ask(one)
            report.promise("it works on", kept=answer is not None and answer.status_code == 200)
            await seen.quiet(two)
            await seen.judge(report, two, in_order=False)
            await seen.judge_processes(report, one, two)
            for each in (one, two):
                check_log(report, each.present)


# f. A full disk


async def full(report: Report, options: Options) -> None:
    """A server whose disk is full says so, accepts nothing, and goes on when there is room again."""
    ways = [("files may not grow", _limited_files)]
    if os.geteuid() == 0:
        ways.append(("the file system is full", _small_disk))
    for text, way in ways[-1:] if options.short else ways:
        with folder(report) as name, site(name / "site", SLOTS) as target, way(target) as (fill, heal):
            report.figure(text)
            seen = Witness(target.side)
            await target.start()
            _, before = await seen.ask(target, prefer="respond-async", seconds=1.0)
            if await until(lambda seen=seen: bool(seen.lines()), witness.DEADLINE) is None:  # type: ignore[misc]
                raise RuntimeError("the run does not begin")
            fill()
            answers = [told((await seen.ask(target, prefer="respond-async"))[1]) for _ in range(20)]
            kept = answers[-1] == 503 and set(answers) <= {202, 503}
            report.promise("runs are refused with 503", kept=kept, found=answers)
            _, answer = await seen.ask(target)
            report.promise("a synchronous one too", kept=told(answer) == 503, found=told(answer))
            alive = target.present.get("api/status").status_code
            report.promise("the server is there", kept=alive == 200, found=alive)
            heal()
            began = time.monotonic()
            _, answer = await seen.ask(target, prefer="respond-async")
            report.promise("there is room: 202", kept=told(answer) == 202, found=answer and answer.text)
            run = await seen.end(target, id_of(before))
            kept = run["status"] == "succeeded"
            report.promise("the run from before ended well", kept=kept, found=run["error"])
            report.promise("all is quiet in the end", kept=await seen.quiet(target))
            report.figure(f"all that was accepted had ended {time.monotonic() - began:.1f} s later")
            await seen.judge(report, target)
            await seen.judge_processes(report, target)
            code_, _ = await target.stop()
            report.promise("exit code 0", kept=code_ == 0, found=code_)
            found = witness.integrity(target.database)
            report.promise("the database is sound", kept=found == "ok", found=found)
            check_log(report, target.present)


@contextlib.contextmanager
def _limited_files(target: Site) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """Forbid the server to write beyond the size that its database files have."""

    def limit(size: int) -> None:
        maximum = resource.prlimit(target.present.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(target.present.process.pid, resource.RLIMIT_FSIZE, (size, maximum))

    def fill() -> None:
        log = Path(f"{target.database}-wal")
        limit(max(log.stat().st_size, target.database.stat().st_size) + 8192)

    yield fill, lambda: limit(resource.RLIM_INFINITY)


@contextlib.contextmanager
def _small_disk(target: Site) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """Put the database on a file system of its own, and fill that with something else."""
    place = target.database.parent
    place.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "nbexec-full", place], check=True, timeout=60
    )
    ballast = place / "ballast"

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    try:
        yield fill, ballast.unlink
    finally:
        target.close()
        subprocess.run(["umount", "--lazy", place], check=True, timeout=60)


# g. A database that is locked, taken away, damaged


async def broken(report: Report, options: Options) -> None:
    """A database that is locked, gone or damaged is told, and survived; a damaged one is kept."""
    patience, held = options.pick((0.5, 2.0), (10.0, 30.0))
    with folder(report) as name, site(name, SLOTS) as target:
        target.configure(IMPATIENT.format(patience=patience))
        await target.start()
        await _locked(report, target, held)
        for suffix in ENDINGS:
            _beside(target, suffix).unlink()
        await _works(report, target, "taken away from a running server")
        harms = (("cut off", _cut_off), ("overwritten", _overwrite), ("taken away", Path.unlink))
        for what, harm in harms[: options.pick(1, 3)]:
            await target.stop()
            harm(target.database)
            await target.start()
            await _works(report, target, f"{what} while no server was there")
        kept = sorted(each.name for each in target.database.parent.glob("*.damaged-*"))
        report.promise("damaged ones are kept", kept=len(kept) >= options.pick(1, 2), found=kept)
        await _damaged(report, target)
        check_log(report, target.present)


#: What the names of an SQLite database's files end in.
ENDINGS = ("", "-wal", "-shm")


def _beside(target: Site, ending: str) -> Path:
    return Path(f"{target.database}{ending}")


def _cut_off(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _overwrite(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(os.urandom(file.stat().st_size))


async def _works(report: Report, target: Site, what: str) -> None:
    """Check that a server runs notebooks."""
    seen = Witness(target.side)
    _, answer = await seen.ask(target, key=True)
    report.promise(f"{what}: a run succeeds", kept=told(answer) == 200, found=answer and answer.text)
    await seen.quiet(target)


async def _locked(report: Report, target: Site, held: float) -> None:
    """Have another process write into the database for longer than anybody waits."""
    seen = Witness(target.side)
    _, before = await seen.ask(target, prefer="respond-async", seconds=held + 3.0)
    if await until(lambda: bool(seen.lines()), witness.DEADLINE) is None:
        raise RuntimeError("the run does not begin")
    began = time.monotonic()
    with contextlib.closing(sqlite3.connect(target.database, isolation_level=None, timeout=60)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        answers = []
        while time.monotonic() - began < held:
            answers.append(told((await seen.ask(target, prefer="respond-async"))[1]))
        alive = target.present.get("api/status").status_code
    report.promise("the server is there", kept=alive == 200, found=alive)
    report.promise(f"locked for {held:g} s: 503", kept=set(answers) == {503}, found=answers)
    _, after = await seen.ask(target, prefer="respond-async")
    for what, answer in (("executed meanwhile", before), ("admitted afterwards", after)):
        run = await seen.end(target, id_of(answer))
        kept = run["status"] == "succeeded"
        report.promise(f"a run that is {what} succeeds", kept=kept, found=run["error"])
    await seen.quiet(target)
    await seen.judge(report, target)


async def _damaged(report: Report, target: Site) -> None:
    """Damage the files under a running server."""
    seen = Witness(target.side)
    for suffix in ("", "-wal"):
        _overwrite(_beside(target, suffix))
    answers = [told((await seen.ask(target, prefer="respond-async"))[1]) for _ in range(3)]
    kept = set(answers) <= {202, 503}
    report.promise("damaged under a running server: 503, or 202", kept=kept, found=answers)
    alive = target.present.get("api/status").status_code
    report.promise("the server is there", kept=alive == 200, found=alive)
    code, took = await target.stop()
    report.promise("it stops, with exit code 0", kept=code == 0 and took <= STOP, found=(code, took))
    await target.start()
    await _works(report, target, "the next server")


# h. Clients that vanish


async def vanishing(report: Report, options: Options) -> None:
    """Who hangs up has the run cancelled, and the place is free; who said so before has it go on."""
    with folder(report) as name, site(name, "--NbExec.max_concurrent_runs=2") as target:
        seen = Witness(target.side)
        await target.start()
        for patience in options.pick((0.1, 1.0), (0.1, 1.0, 5.0)):
            asked, answer = await seen.ask(target, seconds=600.0, timeout=patience)
            began = time.monotonic()
            run = await _run_of(seen, target, asked.who)
            end = None if run is None else (await seen.end(target, run["id"]))["status"]
            took = time.monotonic() - began
            kept = answer is None and end in ("cancelled", None) and took <= CANCELLED
            report.promise(f"gone after {patience} s: cancelled", kept=kept, found=(took, end))
            report.figure(f"gone after {patience} s: {end or 'not admitted'}, {took:.1f} s later")
        for headers in ({"prefer": "wait=60"}, {"key": "vanished"}):
            before = len(seen.lines())
            # A key alone would ask again.
            hanging = asyncio.create_task(seen.ask(target, seconds=1.0, **headers))  # type: ignore[arg-type]
            await until(lambda before=before: len(seen.lines()) > before, witness.DEADLINE)  # type: ignore[misc]
            hanging.cancel()
            who = list(seen.asked)[-1]
            run = await _run_of(seen, target, who)
            end = None if run is None else (await seen.end(target, run["id"]))["status"]
            report.promise(f"with {headers}: it goes on", kept=end == "succeeded", found=end)
        _, answer = await seen.ask(target)
        report.promise("places are free", kept=answer is not None and answer.status_code == 200)
        await seen.quiet(target)
        await seen.judge(report, target)
        await seen.judge_processes(report, target)
        check_log(report, target.present)


async def _run_of(seen: Witness, target: Site, who: str) -> dict[str, Any] | None:
    """Find the run that somebody asked for who was not answered."""
    async for run in seen.pages(target):
        if run["parameters"].get("who") == who:
            return run
    return None


# i. Cancels at the last moment


async def cancels(report: Report, options: Options) -> None:
    """Of a cancel and an end at one moment one comes first; each run has one end, and is counted once."""
    number = options.pick(10, 50)
    chance = random.Random(options.seed)
    codes: collections.Counter[str] = collections.Counter()
    with folder(report) as name, site(name, SLOTS) as target:
        seen = Witness(target.side)
        await target.start()
        begun: dict[str, asyncio.Event] = collections.defaultdict(asyncio.Event)

        async def watch() -> None:
            while True:
                for who in seen.lines():
                    begun[who].set()
                await asyncio.sleep(0.005)

        async def cancel(turn: int) -> None:
            prefer = "respond-async" if turn % 3 else "wait=0"
            asked, answer = await seen.ask(target, prefer=prefer, seconds=0.5)
            run_id = id_of(answer)
            if turn % 5:
                await begun[asked.who].wait()
                await asyncio.sleep(chance.uniform(0.0, 0.5))  # until a moment near its end
            said = await gathered(*(seen.cancel(target, run_id) for _ in range(3)))
            run = await seen.end(target, run_id)
            told = tuple(sorted({each.status_code for each in said if each is not None}))
            codes[f"{run['status']}, cancel said {told}"] += 1
            if run["status"] == "cancelled" and 202 not in told:
                report.broken.append(f"{run_id} is cancelled, but nobody was told 202: {told}")

        watching = asyncio.create_task(watch())
        await gathered(*(cancel(turn) for turn in range(number)))
        watching.cancel()
        report.figure(f"{number} runs: {dict(codes)}")
        await seen.quiet(target)
        ends = await seen.judge(report, target)
        counted = _metrics(target)
        kept = counted == {end: count for end, count in ends.items() if count}
        report.promise("each is counted once", kept=kept, found=(counted, dict(ends)))
        await seen.judge_processes(report, target)
        check_log(report, target.present)


def _metrics(target: Site) -> dict[str, int]:
    """Runs by outcome, as the metrics have it."""
    found = {}
    for line in target.present.get("metrics").text.splitlines():
        if line.startswith("jupyter_nbexec_runs_total{"):
            labels, _, value = line.partition("{")[2].rpartition("} ")
            named = dict(each.split("=") for each in labels.split(","))
            code, status = named["code"].strip('"'), named["status"].strip('"')
            if float(value):
                found[status if code == "none" else f"{status}/{code}"] = int(float(value))
    return found


CAMPAIGNS = {
    campaign.__name__: campaign
    for campaign in (kills, shared, cut, moments, stops, frozen, full, broken, vanishing, cancels)
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaigns that are named, or all."""
    parser = command_line(__doc__, CAMPAIGNS, short="few runs of each kind, for the tests")
    parser.add_argument("--kills", type=int, default=50, help="how often the server is killed; default: 50")
    parser.add_argument("--seed", type=int, default=4, help="what the random moments come from; default: 4")
    return perform(
        parser,
        arguments,
        CAMPAIGNS,
        lambda report, campaign, options: campaign(
            report, Options(short=options.short, kills=options.kills, seed=options.seed)
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
