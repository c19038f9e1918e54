"""Cancel runs in every state that they pass through, and look for what is left of them.

    python benchmarks/cancelling.py [--short] [CAMPAIGN...]

Each state has a server process of its own, and its runs are cancelled at random moments of that state. The
exit status is 1 if one of them did not end as it should, or anything was left.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import httpx
from campaigns import (
    Report,
    check_log,
    command_line,
    ended,
    kernels_of,
    perform,
    saturate,
    submit,
    until,
)
from following import Reader
from serving import Server, serving

#: Seconds between the interrupt and the kill, on these servers.
GRACE = 1.0
#: Seconds from a wish to its end: the grace, the kernel's death, and a busy machine.
PATIENCE = 30.0
TIMES, SHORT_TIMES = 50, 2
#: What events say of a cell.
CELL_STARTED, CELL_ENDED = b'"state":"started"', b'"state":"ended"'

NOTEBOOKS = {
    "quick": ("1 + 1",),
    "obeying": ("1", "import time; time.sleep(600)", "open('never', 'w')"),
    "deaf": ("while True:\n    try: import time; time.sleep(600)\n    except BaseException: pass",),
}


class Campaign:
    """A server, and what became of the runs that were cancelled on it."""

    def __init__(self, server: Server, client: httpx.AsyncClient, seed: random.Random) -> None:
        self.server = server
        self.client = client
        self.random = seed
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.times: list[float] = []
        for name, cells in NOTEBOOKS.items():
            server.write(f"{name}.ipynb", *cells)

    async def cancel(self, run_id: str) -> httpx.Response:
        """Ask for a run's end."""
        answer: httpx.Response = await self.client.post(f"api/nbexec/runs/{run_id}/cancel")
        return answer

    async def cancel_and_note(self, run_id: str) -> None:
        """Cancel a run, twice, and note how it ends."""
        began = time.monotonic()
        first, again = await self.cancel(run_id), await self.cancel(run_id)
        run = await asyncio.wait_for(ended(self.server, run_id), PATIENCE)
        self.times.append(time.monotonic() - began)
        last = await self.cancel(run_id)
        at = first.json()["status"] if first.status_code == 202 else first.json()["code"]
        self.outcomes[f"{first.status_code} {at} -> {run['status']}"] += 1
        if again.status_code not in (202, 409) or (again.status_code, first.status_code) == (202, 409):
            self.outcomes[f"then {again.status_code}"] += 1
        if last.status_code != 409 or last.json()["code"] != "run_ended":
            self.outcomes[f"after the end {last.status_code}"] += 1

    async def queued(self) -> str:
        """The run that waits for an answer, and for its turn."""
        while True:
            listed = (await self.client.get("api/nbexec/runs?status=queued")).json()["runs"]
            if listed:
                run_id: str = listed[0]["id"]
                return run_id
            await asyncio.sleep(0.005)

    async def reach(self, run_id: str, state: bytes, after: bytes = b"") -> None:
        """Follow a run until an event says this, after one that says that."""
        reader = Reader(self.server, run_id)
        await reader.open()
        for said in (after, state):
            event = b""
            while said not in event:
                event = await reader.event()
                if not event:
                    raise RuntimeError(f"{run_id} has ended before {said!r}")
        reader.vanish()

    async def cancel_soon(
        self, times: int, notebook: str, state: bytes, *, seconds: float, after: bytes = b""
    ) -> None:
        """Cancel so many runs, one after the other, a random moment after they have reached a state."""
        for _ in range(times):
            run_id = await submit(self.server, notebook)
            await self.reach(run_id, state, after=after)
            await asyncio.sleep(self.random.uniform(0, seconds))
            await self.cancel_and_note(run_id)

    @contextlib.asynccontextmanager
    async def busy(self) -> AsyncIterator[str]:
        """Have the only place taken; the id of the run that has it."""
        run_id = await submit(self.server, "obeying.ipynb")
        await self.reach(run_id, b'"running"')
        yield run_id
        await self.cancel(run_id)
        await ended(self.server, run_id)


async def queued_synchronous(campaign: Campaign, times: int) -> None:
    """A run whose client waits for its turn."""
    async with campaign.busy():
        for _ in range(times):
            waiting = asyncio.create_task(campaign.client.post("api/nbexec/quick.ipynb"))
            await campaign.cancel_and_note(await campaign.queued())
            answer = await waiting
            if (answer.status_code, answer.json()["status"]) != (409, "cancelled"):
                campaign.outcomes[f"answered with {answer.status_code}"] += 1


async def queued_asynchronous(campaign: Campaign, times: int) -> None:
    """A run that waits in the store."""
    async with campaign.busy():
        for _ in range(times):
            await campaign.cancel_and_note(await submit(campaign.server, "quick.ipynb"))


async def leaving_the_queue(campaign: Campaign, times: int) -> None:
    """A run that is just getting its place, and has no kernel."""
    for number in range(times):
        async with campaign.busy() as before:
            if number % 2:
                run_id = await submit(campaign.server, "obeying.ipynb")
            else:
                waiting = asyncio.create_task(campaign.client.post("api/nbexec/obeying.ipynb"))
                run_id = await campaign.queued()
            await campaign.cancel(before)
            if number % 3:
                await ended(campaign.server, before)
            await asyncio.sleep(campaign.random.uniform(0, 0.02 if number % 3 else 0.5))
            await campaign.cancel_and_note(run_id)
            if not number % 2 and (await waiting).status_code != 409:
                campaign.outcomes["not answered with 409"] += 1


async def starting(campaign: Campaign, times: int) -> None:
    """A run whose kernel is being started."""
    await campaign.cancel_soon(times, "obeying.ipynb", b'"running"', seconds=0.5)


async def running(campaign: Campaign, times: int) -> None:
    """A run whose cell obeys an interrupt."""
    await campaign.cancel_soon(times, "obeying.ipynb", CELL_STARTED, after=CELL_ENDED, seconds=0.1)


async def ignoring(campaign: Campaign, times: int) -> None:
    """A run whose cell ignores interrupts."""
    await campaign.cancel_soon(times, "deaf.ipynb", CELL_STARTED, seconds=0.1)


async def at_the_end(campaign: Campaign, times: int) -> None:
    """A run that is just ending by itself."""
    await campaign.cancel_soon(times, "quick.ipynb", CELL_STARTED, seconds=0.2)


async def after_the_end(campaign: Campaign, times: int) -> None:
    """A run that has ended."""
    for _ in range(times):
        run_id = await submit(campaign.server, "quick.ipynb")
        await ended(campaign.server, run_id)
        await campaign.cancel_and_note(run_id)


CANCELLED = frozenset({"202 queued -> cancelled", "202 running -> cancelled", "202 cancelled -> cancelled"})
SUCCEEDED = frozenset({"409 run_ended -> succeeded"})
#: The states, and how runs may end that are cancelled in them.
STATES: dict[Callable[[Campaign, int], Awaitable[None]], frozenset[str]] = {
    queued_synchronous: CANCELLED,
    queued_asynchronous: CANCELLED,
    leaving_the_queue: CANCELLED,
    starting: CANCELLED,
    running: CANCELLED,
    ignoring: CANCELLED,
    # One that has executed its cells, and only has to end its kernel, is not stopped any more.
    at_the_end: CANCELLED | SUCCEEDED | {"202 running -> succeeded", "202 succeeded -> succeeded"},
    after_the_end: SUCCEEDED,
}


async def measure(report: Report, state: Callable[[Campaign, int], Awaitable[None]], times: int) -> None:
    """Cancel so many runs in one state."""
    options = ("--NbExec.max_concurrent_runs=1", f"--NbExec.interrupt_grace={GRACE:g}")
    with serving(*options) as server:
        async with server.client() as client:
            campaign = Campaign(server, client, random.Random(state.__name__))
            await saturate(server)
            await client.post("api/nbexec/quick.ipynb")
            await until(lambda: not server.below(), PATIENCE)
            before = server.descriptors()
            await state(campaign, times)
            unfinished = [
                run["id"]
                for status in ("queued", "running")
                for run in (await client.get(f"api/nbexec/runs?status={status}")).json()["runs"]
            ]
        outcomes = campaign.outcomes
        wrong = {each: count for each, count in outcomes.items() if each not in STATES[state]}
        count = outcomes.total()
        report.figure(f"{dict(outcomes)}")
        report.figure(
            f"from the wish to the end: median {statistics.median(campaign.times):.2f} s,"
            f" at most {max(campaign.times):.2f} s"
        )
        report.promise(f"{times} ended as they should", kept=not wrong and count == times, found=wrong)
        report.promise("none is queued or running", kept=not unfinished, found=unfinished)
        gone = await until(lambda: not server.below() and not kernels_of(server), PATIENCE)
        report.promise("no kernel and no process is left", kept=gone is not None, found=server.below())
        await until(lambda: not server.kernel_files(), PATIENCE)
        files = server.kernel_files()
        report.promise("no connection file is left", kept=not files, found=files)
        await until(lambda: server.descriptors() <= before, PATIENCE)
        left = server.descriptors() - before
        report.promise("no descriptor is left", kept=left <= 0, found=left)
        never = not (server.root / "never").exists()
        report.promise("no cell was executed after a cancelled one", kept=never)
        check_log(report, server)


def main(arguments: Sequence[str] | None = None) -> int:
    """Cancel in the states that are named, or in all."""
    states = {state.__name__: state for state in STATES}
    parser = command_line(__doc__, states, short=f"{SHORT_TIMES} times each, for the tests")
    return perform(
        parser,
        arguments,
        states,
        lambda report, state, options: measure(report, state, SHORT_TIMES if options.short else TIMES),
    )


if __name__ == "__main__":
    sys.exit(main())
