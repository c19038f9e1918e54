"""Call the endpoints of a notebook by the thousand while its kernels are killed, stuck, and edited.

    python benchmarks/endpoints_crashes.py [--short] [CAMPAIGN...]

The exit status is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx
import psutil
from campaigns import Report, check_log, command_line, perform, until
from serving import Server, serving

REQUESTS, SHORT_REQUESTS, CLIENTS = 10_000, 600, 16
EDITS, SHORT_EDITS, READERS = 100, 12, 4
LIMIT = 3
#: Seconds after which a request counts as hung.
HUNG = 60.0
#: Calls that are answered between two kills, at least and at most: on a busy machine kernels start slowly.
KILLS = (10, 100)
#: Seconds that kernels may take to go when nobody needs them, and after a server was killed.
GONE = 30.0
#: One edit of so many changes what seeds the kernels.
SEEDED = 10

#: Works for a moment, then says who was asked what.
ECHO = """\
# GET /echo/:x
x = json.loads(REQUEST)['path']['x']
time.sleep(random.random() / 100)
print(json.dumps({'x': x, 'pid': os.getpid()}))"""
SEED = "import json, os, random, time"


@dataclass
class Asked:
    """What was asked, and what came of it."""

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    #: How many kernels there were at most.
    most: int = 0
    longest: float = 0.0

    def add(self, other: Asked) -> None:
        """Add what others were asked."""
        self.statuses += other.statuses
        self.wrong += other.wrong


def kernels(server: Server) -> list[psutil.Process]:
    """Processes of kernels: not the shims above them, nor what they fork, as they do once at their start."""
    found = []
    for each in server.below():
        try:
            above = each.parent()
            is_below_shim = above is not None and _is_shim(above)
            is_kernel = "ipykernel_launcher" in each.cmdline() and is_below_shim and not _is_shim(each)
            if is_kernel and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except psutil.NoSuchProcess:
            continue
    return found


def _is_shim(process: psutil.Process) -> bool:
    return any("shim" in part for part in process.cmdline())


def write(version: int, seed: int = 0) -> str:
    """Make the notebook in a version, as JSON."""
    cells = [
        f"{SEED}\nseed = {seed}",
        ECHO,
        f"# GET /version\ntime.sleep(random.random() / 100)\nprint({version}, seed)",
        "# GET /stuck\nwhile True:\n    try: time.sleep(60)\n    except KeyboardInterrupt: pass",
    ]
    listed = [
        {"cell_type": "code", "id": f"c{i}", "source": source, "metadata": {}, "outputs": []}
        | {"execution_count": None}
        for i, source in enumerate(cells)
    ]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernelspec}
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": listed})


async def save(client: httpx.AsyncClient, version: int, seed: int = 0) -> None:
    """Save it as JupyterLab does."""
    content = json.loads(write(version, seed))
    body = {"type": "notebook", "format": "json", "content": content}
    (await client.put("api/contents/a.ipynb", json=body)).raise_for_status()


async def ask(client: httpx.AsyncClient, asked: Asked, name: str) -> None:
    """Ask once; the answer is the question, or says that the kernel died."""
    began = time.monotonic()
    try:
        answer = await client.get(f"api/nbexec/a.ipynb/echo/{name}", timeout=HUNG)
    except httpx.TimeoutException:
        asked.wrong.append(f"{name}: no answer in {HUNG:g} s")
        return
    asked.longest = max(asked.longest, time.monotonic() - began)
    asked.statuses[answer.status_code] += 1
    if answer.status_code == 200:
        if answer.json()["x"] != name:
            asked.wrong.append(f"{name}: {answer.text[:200]}")
    elif answer.status_code != 502 or answer.json()["code"] != "kernel_died":
        asked.wrong.append(f"{name}: {answer.status_code} {answer.text[:200]}")


async def ask_all(server: Server, number: int, asked: Asked | None = None) -> Asked:
    """Ask so many times from all clients; what came of it, also while it goes on."""
    asked, names = asked or Asked(), iter(range(number))

    async def work(client: httpx.AsyncClient) -> None:
        for each in names:
            await ask(client, asked, str(each))

    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with server.client(limits=limits) as client:
        await asyncio.gather(*(work(client) for _ in range(CLIENTS)))
    return asked


async def kill_some(server: Server, asked: Asked, chance: random.Random, over: asyncio.Event) -> int:
    """Kill a kernel now and then, those included that are not ready yet; how many were killed."""
    killed, due = 0, 0
    while not over.is_set():
        victims = await asyncio.to_thread(kernels, server)
        asked.most = max(asked.most, len(victims))
        if victims and asked.statuses[200] >= due:
            chance.choice(victims).kill()
            killed, due = killed + 1, asked.statuses[200] + chance.randint(*KILLS)
        await asyncio.sleep(0.05)
    return killed


async def warm_up(server: Server) -> None:
    """Ask until all kernels are there."""
    deadline = time.monotonic() + HUNG
    while len(await asyncio.to_thread(kernels, server)) < LIMIT:
        if time.monotonic() > deadline:
            raise RuntimeError(f"there are no {LIMIT} kernels:\n{server.log()[-3000:]}")
        await ask_all(server, 50)


async def killed(report: Report, server: Server, options: argparse.Namespace) -> None:
    """Kernels are killed at random: only the calls that they had fail, and none hangs."""
    await warm_up(server)
    before = server.descriptors(), server.threads()
    chance, over, asked = random.Random(6), asyncio.Event(), Asked()
    killer = asyncio.create_task(kill_some(server, asked, chance, over))
    began = time.monotonic()
    await ask_all(server, SHORT_REQUESTS if options.short else REQUESTS, asked)
    seconds = time.monotonic() - began
    over.set()
    kills = await killer
    failed = asked.statuses[502]
    report.figure(
        f"{asked.statuses.total()} calls in {seconds:.0f} s, {kills} kernels killed, {failed} calls 502"
    )
    report.figure(f"longest call {asked.longest:.1f} s, kernels at most {asked.most}")
    report.promise("every call is answered, rightly or by 502", kept=not asked.wrong, found=asked.wrong[:5])
    report.promise("no kernel takes more than its own call with it", kept=failed <= kills, found=failed)
    report.promise(f"there are at most {LIMIT} kernels", kept=asked.most <= LIMIT, found=asked.most)
    await ask_all(server, 100)
    await warm_up(server)
    after = server.descriptors(), server.threads()
    grown = [b - a for a, b in zip(before, after, strict=True)]
    report.promise("no descriptor and no thread is left", kept=max(grown) <= 5, found=f"{before} {after}")
    await quiet(report, server)


async def edited(report: Report, server: Server, options: argparse.Namespace) -> None:
    """The notebook is saved under load: the change is live with the next call, and no call fails."""
    await warm_up(server)
    over = asyncio.Event()
    saved = [0, 0]  #: the last version that was saved, and the last that was about to be
    wrong: list[str] = []
    number = 0

    async def read(client: httpx.AsyncClient) -> None:
        nonlocal number
        while not over.is_set():
            oldest = saved[0]
            answer = await client.get("api/nbexec/a.ipynb/version", timeout=HUNG)
            number += 1
            if answer.status_code != 200:
                wrong.append(f"{answer.status_code} {answer.text[:200]}")
            elif not oldest <= int(answer.text.split()[0]) <= saved[1]:
                wrong.append(f"{answer.text.strip()} when {oldest} to {saved[1]} were possible")

    live = 0
    edits = SHORT_EDITS if options.short else EDITS
    async with server.client(limits=httpx.Limits(max_connections=READERS + 1)) as client:
        readers = [asyncio.create_task(read(client)) for _ in range(READERS)]
        for version in range(1, edits + 1):
            saved[1] = version
            await save(client, version, seed=version // SEEDED)
            saved[0] = version
            answer = await client.get("api/nbexec/a.ipynb/version", timeout=HUNG)
            live += answer.text.split() == [str(version), str(version // SEEDED)]
        over.set()
        await asyncio.gather(*readers)
    report.figure(f"{edits} edits, {number} calls beside them")
    report.promise("each edit is live with the next call", kept=live == edits, found=f"{live} of {edits}")
    report.promise("no call fails, and none is answered by an older version", kept=not wrong, found=wrong[:5])
    await quiet(report, server)


async def stuck(report: Report, server: Server, options: argparse.Namespace) -> None:
    """Cells that ignore interrupts take their kernels: they alone get 504, and all others are answered."""
    await warm_up(server)
    number = 2 if options.short else 20

    async def be_stuck() -> list[int]:
        async with server.client() as client:
            answers = [await client.get("api/nbexec/a.ipynb/stuck", timeout=None) for _ in range(number)]
            return [each.status_code for each in answers]

    sticking, asked = asyncio.create_task(be_stuck()), Asked()
    while not sticking.done():
        asked.add(await ask_all(server, 10 * CLIENTS))
    statuses = collections.Counter(await sticking)
    report.figure(f"{asked.statuses.total()} calls beside {number} that are stuck: {dict(asked.statuses)}")
    report.promise("who is stuck gets 504", kept=statuses == {504: number}, found=dict(statuses))
    right = asked.statuses == {200: asked.statuses.total()} and not asked.wrong
    report.promise("all others are answered", kept=right, found=asked.wrong[:5])
    await quiet(report, server)


async def ended(report: Report, server: Server, options: argparse.Namespace) -> None:  # noqa: ARG001
    """The server is killed while it is asked: no kernel outlives it."""
    await warm_up(server)
    below = server.below()
    asking = asyncio.create_task(ask_all(server, SHORT_REQUESTS))
    await asyncio.sleep(0.5)
    server.process.kill()
    await asyncio.wait({asking})
    asking.exception()
    took = await until(lambda: not any(each.is_running() and not is_zombie(each) for each in below), GONE)
    report.promise("all kernels are gone soon", kept=took is not None and took <= 5, found=f"{took} s")


def is_zombie(process: psutil.Process) -> bool:
    """Whether a process has ended, though nobody has asked how."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def quiet(report: Report, server: Server) -> None:
    """Wait for kernels that nobody needs to go."""
    gone = await until(lambda: not kernels(server), GONE)
    report.promise("kernels that nobody needs go", kept=gone is not None, found=len(kernels(server)))
    check_log(report, server)


Campaign = Callable[[Report, Server, argparse.Namespace], Awaitable[None]]
CAMPAIGNS: dict[str, Campaign] = {"killed": killed, "edited": edited, "stuck": stuck, "ended": ended}


async def run(report: Report, campaign: Campaign, options: argparse.Namespace) -> None:
    """Run a campaign on a server of its own."""
    own = [
        f"--NbExec.max_endpoint_kernels={LIMIT}",
        "--NbExec.kernel_niceness=0",
        "--NbExec.warm_idle_timeout=3",
        "--NbExec.interrupt_grace=1",
        f"--NbExec.call_timeout={3 if campaign is stuck else 30}",
        "--NbExec.max_queued_calls=1000",
    ]
    with serving(*own) as server:
        (server.root / "a.ipynb").write_text(write(0), encoding="utf-8")
        await campaign(report, server, options)


def main(arguments: list[str] | None = None) -> int:
    """Run the campaigns that are named, or all."""
    short = f"{SHORT_REQUESTS} calls and {SHORT_EDITS} edits instead of {REQUESTS} and {EDITS}"
    parser = command_line(__doc__, CAMPAIGNS, short=short)
    return perform(parser, arguments, CAMPAIGNS, run)


if __name__ == "__main__":
    sys.exit(main())
