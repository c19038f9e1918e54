"""Have kernels say much at their end, and anything at all, and look for runs that do not end as they should.

    python benchmarks/messages.py [--short] [--seed N] [CAMPAIGN...]

Each campaign has server processes of its own; the exit status is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from campaigns import Report, check_log, command_line, kernels_of, perform, saturate, until
from serving import Server, serving

#: What a last cell shows, and what may follow it; readers meanwhile; runs of each notebook by each source.
DISPLAYS, READERS, RUNS = 2000, 50, 10
SHORT_DISPLAYS, SHORT_READERS, SHORT_RUNS = 500, 5, 1
CELL = "for i in range({}): display(i)"
ENDS = {"cell": (), "empty": ("",)}
#: Where kernels come from, and how a server is told.
SOURCES = {
    "cold": ("--NbExec.fork_kernels=False",),
    "forked": ("--NbExec.fork_kernels=True",),
    "warm": ("--NbExec.fork_kernels=False", "--NbExec.warm_kernels={'python3': 2}"),
    "prepared": ("--NbExec.fork_kernels=True", "--NbExec.prepared_notebooks=['cell.ipynb', 'empty.ipynb']"),
    "not nice": ("--NbExec.fork_kernels=True", "--NbExec.kernel_niceness=0"),
}
SHORT_SOURCES = ("forked", "not nice")
#: Sessions with a kernel that says anything, so many at a time; seconds that a run may take, and has beside.
SESSIONS, SHORT_SESSIONS, TOGETHER = 1000, 60, 4
TIMEOUT, GRACE, MARGIN = 3.0, 1.0, 30.0
#: Seconds in which all is quiet.
QUIET = 60.0
CODES = {"cell_error", "timeout", "kernel_died", "kernel_start_failed"}


@contextlib.asynccontextmanager
async def reading(server: Server, run_id: str, number: int) -> AsyncIterator[None]:
    """Have so many clients read a run, and its page, as fast as they get it."""

    async def read(client: httpx.AsyncClient) -> None:
        while True:
            with contextlib.suppress(httpx.TransportError):
                await client.get(f"api/nbexec/runs/{run_id}")
                await client.get(f"api/nbexec/runs/{run_id}/notebook")

    async with server.client(limits=httpx.Limits(max_connections=None)) as client:
        readers = [asyncio.create_task(read(client)) for _ in range(number)]
        try:
            yield
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


async def displays(report: Report, options: argparse.Namespace) -> None:
    """A last cell shows much while others read: every run succeeds, whole."""
    shown = SHORT_DISPLAYS if options.short else DISPLAYS
    readers, number = (SHORT_READERS, SHORT_RUNS) if options.short else (READERS, RUNS)
    total: collections.Counter[str] = collections.Counter()
    for source, arguments in SOURCES.items():
        if options.short and source not in SHORT_SOURCES:
            continue
        with serving(*arguments, "--NbExec.max_concurrent_runs=2") as server:
            first = ("x = 1",) if source == "prepared" else ()
            for name, after in ENDS.items():
                server.write(f"{name}.ipynb", *first, CELL.format(shown), *after, parameters="y = 2")
            seen: collections.Counter[str] = collections.Counter()
            async with server.client(timeout=300) as client:
                answer = await client.post("api/nbexec/cell.ipynb")
                run_id = answer.json()["id"]
                async with reading(server, run_id, readers):
                    for _ in range(number):
                        posts = [client.post(f"api/nbexec/{name}.ipynb") for name in (*ENDS, *ENDS)]
                        for answer in await asyncio.gather(*posts):
                            seen[_how(answer.json(), shown)] += 1
            report.figure(f"{source}: {dict(seen)}")
            total += seen
            check_log(report, server)
    report.promise("every run succeeded, whole", kept=set(total) == {"whole"}, found=dict(total))


def _how(run: dict[str, Any], shown: int) -> str:
    if run["status"] == "succeeded" and not run["truncated"] and len(run["outputs"]) == shown:
        return "whole"
    code = (run["error"] or {}).get("code")
    return f"{run['status']} {code} truncated={run['truncated']} outputs={len(run['outputs'])}"


async def fuzzed(report: Report, options: argparse.Namespace) -> None:
    """A kernel says anything: each run ends in its time, by a code that is documented, and leaves nothing."""
    number = SHORT_SESSIONS if options.short else SESSIONS
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    report.figure(f"seed {seed}")
    arguments = (f"--NbExec.interrupt_grace={GRACE}", f"--NbExec.max_concurrent_runs={TOGETHER}")
    with serving(*arguments, "--NbExec.fork_kernels=False", "--NbExec.max_queued_runs=100") as server:
        _install(server)
        await saturate(server)
        await _babble(server, [f"{seed}/warm-up/{each}" for each in range(2 * TOGETHER)])
        await until(lambda: not server.below() and not kernels_of(server), QUIET)
        before = server.descriptors()
        outcomes, wrong = await _babble(server, [f"{seed}/{each}" for each in range(number)])
        report.figure(f"{outcomes.total()} sessions: {dict(outcomes)}")
        report.promise(
            "every run ended by a code that is documented, in its time", kept=not wrong, found=wrong
        )
        gone = await until(lambda: not server.below() and not kernels_of(server), QUIET)
        report.promise("no process is left", kept=gone is not None, found=server.below())
        closed = await until(lambda: server.descriptors() <= before, QUIET)
        report.promise("descriptors as before", kept=closed is not None, found=server.descriptors() - before)
        check_log(report, server)
        complaints = [line for line in server.log().splitlines() if "exception was never retrieved" in line]
        report.promise("nothing was left unretrieved", kept=not complaints, found=complaints[:3])


def _install(server: Server) -> None:
    """Give a server the kernel that says anything."""
    folder = server.folder / "data" / "kernels" / "babbler"
    folder.mkdir(parents=True)
    command = [sys.executable, str(Path(__file__).with_name("babbler.py")), "{connection_file}"]
    spec = {"argv": command, "display_name": "Babbler", "language": "babble"}
    (folder / "kernel.json").write_text(json.dumps(spec))


async def _babble(server: Server, seeds: Sequence[str]) -> tuple[collections.Counter[str], list[str]]:
    """Run a notebook for each seed: how they ended, and which did not end as they should."""
    outcomes: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    slots = asyncio.Semaphore(TOGETHER)

    async def run(client: httpx.AsyncClient, seed: str) -> None:
        cell = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": seed}
        notebook = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [cell]}
        body = {"notebook": notebook, "kernel_name": "babbler", "timeout": TIMEOUT}
        async with slots:
            began = time.monotonic()
            answer = await client.post("api/nbexec", json=body)
            took = time.monotonic() - began
        ended = answer.json()
        code = (ended.get("error") or {}).get("code") or ended.get("code")
        outcome = f"{ended['status']} {code}" if code else str(ended.get("status"))
        outcomes[outcome] += 1
        is_right = ended.get("status") == "succeeded" or code in CODES
        if not is_right or took > TIMEOUT + GRACE + MARGIN:
            wrong.append(f"{seed}: {outcome} in {took:.1f} s")

    async with server.client(timeout=120) as client:
        await asyncio.gather(*(run(client, seed) for seed in seeds))
    return outcomes, wrong


CAMPAIGNS = {campaign.__name__: campaign for campaign in (displays, fuzzed)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaigns that are named, or all."""
    parser = command_line(__doc__, CAMPAIGNS, short=f"{SHORT_SESSIONS} sessions, and few runs")
    parser.add_argument("--seed", type=int, help="what kernels say; default: something else each time")
    return perform(parser, arguments, CAMPAIGNS, lambda report, campaign, options: campaign(report, options))


if __name__ == "__main__":
    sys.exit(main())
