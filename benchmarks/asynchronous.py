"""A flood of asynchronous runs: what submitting one costs, what becomes of all, what the server needs for it.

    python benchmarks/asynchronous.py [--runs 1000] [--turns 40] [--without-peer]

All runs are submitted at once, by a client with 20 connections. Then single ones are submitted while the
queue is long: first alone, which counts for the promise, then in turns with jobs for jupyter-scheduler, which
gets a server, and an environment, of its own. It has no queue: each job is a process at once; so it is never
given more than three at a time, and they share the processors with our kernels just as our server does.
Exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import peers
from campaigns import Report, check_log, until
from serving import Server, end_by_exception, serving

#: Jobs that the peer may have at a time: as many runs as our server executes of a flood.
PEER_JOBS = 3

CONNECTIONS = 20
#: Promises: milliseconds to submit one, and MiB that the server may grow by.
P50, GROWTH = 20.0, 100.0
#: Seconds a run may take from its place in the flood to its end, on the slowest machine.
PATIENCE = 10.0
#: It writes each number once, whoever else writes at the time.
COUNTING = (
    "import os\n"
    "log = os.open('executed', os.O_CREAT | os.O_APPEND | os.O_WRONLY)\n"
    "assert os.write(log, b'%d\\n' % number) > 1\n"
    "os.close(log)"
)


@dataclass(kw_only=True)
class Memory:
    """Looks at the memory of a server for the time of a context."""

    server: Server
    before: float = 0.0  #: MiB, like the others
    peak: float = 0.0
    after: float = 0.0
    _task: asyncio.Task[None] = field(init=False)

    async def __aenter__(self) -> Memory:
        self.before = self.peak = self.server.resident()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        self.after = self.server.resident()

    async def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.server.resident())
            await asyncio.sleep(0.2)

    def __str__(self) -> str:
        return f"{self.before:.0f} MiB before, {self.peak:.0f} at most, {self.after:.0f} after"


def percentiles(times: list[float]) -> tuple[float, float]:
    """Return p50 and p99."""
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return cuts[49], cuts[98]


def show(name: str, times: list[float]) -> float:
    """Print a line of the table; p50."""
    p50, p99 = percentiles(times)
    print(f"    {name:42}{p50:9.1f}{p99:9.1f}{max(times):9.1f}{len(times):8}", flush=True)
    return p50


async def timed(call: Callable[[], Awaitable[httpx.Response]], expected: int) -> tuple[float, Any]:
    """Milliseconds that a call took, and what it answered."""
    began = time.perf_counter()
    answer = await call()
    took = 1000 * (time.perf_counter() - began)
    if answer.status_code != expected:
        raise RuntimeError(f"{answer.status_code}: {answer.text[:500]}")
    return took, answer.json()


async def submit(client: httpx.AsyncClient, name: str, number: int) -> tuple[float, Any]:
    """Submit a run, and wait for its 202."""
    body = {"parameters": {"number": number}}
    headers = {"Prefer": "respond-async"}
    return await timed(lambda: client.post(f"api/nbexec/{name}", json=body, headers=headers), 202)


async def flood(server: Server, number: int) -> list[float]:
    """Submit all at once; the milliseconds that each took."""
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    numbers = iter(range(number))
    times: list[float] = []

    async def feed(client: httpx.AsyncClient) -> None:
        for each in numbers:
            took, _ = await submit(client, "count.ipynb", each)
            times.append(took)

    began = time.monotonic()
    async with server.client(limits=limits) as client:
        await asyncio.gather(*(feed(client) for _ in range(CONNECTIONS)))
    took = time.monotonic() - began
    print(f"    {number} runs submitted in {took:.1f} s, {number / took:.0f} each second", flush=True)
    return times


async def all_runs(server: Server) -> list[dict[str, Any]]:
    """List all runs, in the order of admission."""
    runs: list[dict[str, Any]] = []
    cursor = ""
    async with server.client() as client:
        while True:
            answer = await client.get("api/nbexec/runs", params={"limit": 500, "cursor": cursor})
            page = answer.raise_for_status().json()
            runs += page["runs"]
            if page["cursor"] is None:
                return runs[::-1]
            cursor = page["cursor"]


async def until_all_ended(server: Server, seconds: float) -> None:
    """Wait until nothing is queued or running."""
    deadline = time.monotonic() + seconds
    async with server.client() as client:
        for status in ("queued", "running"):
            while (await client.get("api/nbexec/runs", params={"status": status, "limit": 1})).json()["runs"]:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"runs are still {status}")
                await asyncio.sleep(1)


class Peer:
    """jupyter-scheduler, on a server of its own."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._jobs: set[str] = set()

    async def create_job(self, client: httpx.AsyncClient) -> float:
        """Create a job as soon as there are not too many; the milliseconds that took."""
        while len(self._jobs) >= PEER_JOBS:
            await asyncio.sleep(0.1)
            for job in list(self._jobs):
                status = (await client.get(f"scheduler/jobs/{job}")).raise_for_status().json()["status"]
                self._jobs -= {job} if status not in ("CREATED", "QUEUED", "IN_PROGRESS") else set()
        body = {
            "name": "count",
            "input_uri": "count.ipynb",
            "runtime_environment_name": "benchmark",
            "parameters": {},
        }
        took, document = await timed(lambda: client.post("scheduler/jobs", json=body), 200)
        self._jobs.add(document["job_id"])
        return took


async def take_turns(server: Server, peer: Peer | None, turns: int) -> tuple[list[float], list[float]]:
    """Submit runs and jobs in turns, on connections that are kept; the milliseconds of each."""
    ours, its = [], []
    limits = httpx.Limits(max_keepalive_connections=1)
    async with server.client(limits=limits) as client, contextlib.AsyncExitStack() as stack:
        other = None if peer is None else await stack.enter_async_context(peer.server.client(limits=limits))
        for turn in range(-1, turns):
            took, run = await submit(client, "count.ipynb", -1)
            (await client.delete(f"api/nbexec/runs/{run['id']}")).raise_for_status()
            job = 0.0 if peer is None or other is None else await peer.create_job(other)
            if turn >= 0:  # the first of each opens the connection
                ours.append(took)
                its.append(job)
    return ours, its


def check(report: Report, server: Server, runs: list[dict[str, Any]], number: int) -> None:
    """Check what became of the flood."""
    statuses = collections.Counter(run["status"] for run in runs)
    report.promise(
        f"all {number} ended, and well", kept=statuses == {"succeeded": number}, found=dict(statuses)
    )
    written = (server.root / "executed").read_text(encoding="ascii").split()
    times = collections.Counter(map(int, written))
    wrong = {each: times[each] for each in range(number) if times[each] != 1}
    report.promise("each was executed once", kept=not wrong and len(written) == number, found=wrong)
    started = [run["started"] for run in runs]
    report.promise("they were started in the order of admission", kept=started == sorted(started))


async def measure(report: Report, server: Server, peer: Peer | None, number: int, turns: int) -> None:
    """Measure, print, and state which promises were kept."""
    server.write("count.ipynb", COUNTING, parameters="number = 0")
    server.write("warm.ipynb", "1")
    async with server.client() as client:
        for _ in range(4):
            (await client.post("api/nbexec/warm.ipynb")).raise_for_status()
        for run in await all_runs(server):
            (await client.delete(f"api/nbexec/runs/{run['id']}")).raise_for_status()
    began = time.monotonic()
    async with Memory(server=server) as memory:
        print(f"    {'milliseconds':42}{'p50':>9}{'p99':>9}{'max':>9}{'calls':>8}")
        at_once = await flood(server, number)
        show(f"each of {CONNECTIONS} at once, to its 202", at_once)
        if peer is not None:
            name = peer.server.root / "count.ipynb"
            name.write_bytes((server.root / "count.ipynb").read_bytes())
        alone, _ = await take_turns(server, None, 5 * turns)
        p50 = show("one after the other, queue full", alone)
        if peer is not None:
            ours, its = await take_turns(server, peer, turns)
            ratio = show("the same, in turns with the peer", ours) / show("POST /scheduler/jobs", its)
            report.figure(f"ours is {ratio:.2f} of it")
        await until_all_ended(server, number * PATIENCE)
        took = time.monotonic() - began
        await asyncio.sleep(3)
    runs = await all_runs(server)
    report.figure(f"{number} runs took {took:.0f} s, {number / took:.2f} each second; memory: {memory}")
    check(report, server, runs, number)
    report.promise(f"submitting one takes less than {P50:g} ms, p50", kept=p50 < P50, found=f"{p50:.1f}")
    growth = memory.peak - memory.before
    report.promise(
        f"the server grows by less than {GROWTH:g} MiB", kept=growth < GROWTH, found=f"{growth:.0f}"
    )
    left = await until(lambda: not server.below(), 20)
    report.promise("no process is left", kept=left is not None, found=server.below())
    check_log(report, server)


def main() -> int:
    """Measure on servers of our own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1000, help="runs of the flood")
    parser.add_argument("--turns", type=int, default=40, help="runs that are submitted one by one")
    parser.add_argument("--without-peer", action="store_true", help="do not install and measure the peer")
    options = parser.parse_args()
    end_by_exception()
    report = Report()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving("--NbExec.max_concurrent_runs=4"))
        peer = None
        if not options.without_peer:
            python = peers.install("servers")
            report.figure(f"the peer is jupyter_scheduler {peers.version('servers', 'jupyter_scheduler')}")
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            # Its own default is in a folder that it expects to be there.
            database = f"--SchedulerApp.db_url=sqlite:///{folder}/scheduler.sqlite"
            peer = Peer(stack.enter_context(serving(database, python=python)))
        asyncio.run(measure(report, server, peer, options.runs, options.turns))
    print(f"{len(report.broken)} promises broken.")
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
