"""How fast the server answers `/api/status` while four runs print without end; and what memory that costs.

    python benchmarks/status_latency.py [--seconds 30]

Asked every 50 ms, whether or not the answer before has come. There are two peers: the same server when idle,
before and after; and a bystander, another server that has no runs, asked in the same moments. The bystander
shares processors and this client with the server: where both are slow, kernels left no time to either, nor to
the client, and the figures do not tell how fast the server alone would be. Exits with 1 if p99 is 100 ms or
more, or the server grows by 200 MB or more.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import statistics
import sys
import sysconfig
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import jupyter_server
from serving import Server, end_by_exception, serving

INTERVAL = 0.05
P99, GROWTH = 100.0, 200.0  # milliseconds, MB
PRINTERS = {
    "lines": "n = 0\nwhile True:\n    n += 1\n    print('line', n, flush=True)",
    "megabytes": "while True: print('x' * 10**6)",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """The milliseconds that answers took: the server's, and the bystander's in the same moments."""

    server: list[float]
    bystander: list[float]

    def __add__(self, other: Sample) -> Sample:
        return Sample(self.server + other.server, self.bystander + other.bystander)


class Sampler:
    """Asks two servers in a fixed rhythm, and looks at the memory of the first."""

    def __init__(self, server: Server, bystander: Server) -> None:
        self._servers = (server, bystander)
        self.peak = 0.0  #: MiB

    async def during(self, work: Awaitable[T]) -> tuple[T, Sample]:
        """Ask until the work is done: what it gave, and how long the answers took."""
        task = asyncio.ensure_future(work)
        pending: tuple[list[asyncio.Task[float]], ...] = ([], [])
        began = time.monotonic()
        limits = httpx.Limits(max_connections=None)
        first, second = (server.client(limits=limits) for server in self._servers)
        async with first, second:
            while not task.done():
                for client, asked in zip((first, second), pending, strict=True):
                    asked.append(asyncio.create_task(self._ask(client)))
                self.peak = max(self.peak, self._servers[0].resident())
                await asyncio.sleep(max(0.0, began + len(pending[0]) * INTERVAL - time.monotonic()))
            return await task, Sample(*[list(await asyncio.gather(*asked)) for asked in pending])

    async def _ask(self, client: httpx.AsyncClient) -> float:
        began = time.perf_counter()
        (await client.get("api/status")).raise_for_status()
        return 1000 * (time.perf_counter() - began)


async def print_without_end(server: Server, seconds: float) -> list[httpx.Response]:
    """Have four runs print until their time is up, and then answer."""
    async with server.client() as client:
        names = [name for name in PRINTERS for _ in range(2)]
        body = {"timeout": seconds}
        runs = (client.post(f"api/nbexec/{name}.ipynb", json=body) for name in names)
        return list(await asyncio.gather(*runs))


def describe(name: str, sample: Sample) -> tuple[float, float, float]:
    """Print a line of the table: p50, p99 and maximum in milliseconds, of the server and the bystander."""
    found = [percentiles(times) for times in (sample.server, sample.bystander)]
    cells = "  |".join("".join(f"{figure:9.1f}" for figure in figures) for figures in found)
    print(f"{name:30}{cells}  |{len(sample.server):7}", flush=True)
    return found[0]


def percentiles(times: list[float]) -> tuple[float, float, float]:
    """Return p50, p99 and maximum."""
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return cuts[49], cuts[98], max(times)


async def measure(server: Server, bystander: Server, seconds: float) -> bool:
    """Measure, print, and say whether the promises were kept."""
    for name, code in PRINTERS.items():
        server.write(f"{name}.ipynb", code)
    server.write("quick.ipynb", "1")
    server.write("large.ipynb", "for _ in range(20): print('x' * 10**6)")
    async with server.client() as client:
        for _ in range(5):
            (await client.post("api/nbexec/quick.ipynb")).raise_for_status()
    columns = "".join(f"{name:>9}" for name in ("p50", "p99", "max"))
    print(f"{'/api/status, ms':30}{columns}  |{columns} of the bystander")
    sampler = Sampler(server, bystander)
    before = server.resident()
    _, idle_before = await sampler.during(asyncio.sleep(seconds / 2))
    describe("idle, before", idle_before)
    # The runs' time is longer, so that no answer is being written while this is measured.
    printing = asyncio.create_task(print_without_end(server, seconds + 5))
    await asyncio.sleep(3)
    _, busy = await sampler.during(asyncio.sleep(seconds))
    grown = 1.048576 * (sampler.peak - before)
    at_work = describe("four runs print without end", busy)
    answers, answering = await sampler.during(printing)
    peak = 1.048576 * (sampler.peak - before)
    describe("their answers are written", answering)
    await asyncio.sleep(2)
    _, idle_after = await sampler.during(asyncio.sleep(seconds / 2))
    describe("idle, after", idle_after)
    idle = describe("idle, together", idle_before + idle_after)
    print(
        f"{'ratio, printing to idle':30}"
        + "".join(f"{a / b:9.1f}" for a, b in zip(at_work, idle, strict=True))
    )
    others = percentiles(busy.bystander)
    print(
        f"{'ratio to the bystander':30}"
        + "".join(f"{a / b:9.1f}" for a, b in zip(at_work, others, strict=True))
    )
    sizes = [len(answer.content) / 1e6 for answer in answers]
    print(f"answers: {[answer.status_code for answer in answers]}, {[f'{size:.0f} MB' for size in sizes]}")
    print(f"truncated, as they say: {[answer.json()['truncated'] for answer in answers]}")
    print(
        f"server: {before:.0f} MiB before; grew by {grown:.0f} MB while they printed, {peak:.0f} MB at most"
    )
    kept = at_work[1] < P99 and grown < GROWTH
    print(f"p99 < {P99:.0f} ms and growth < {GROWTH:.0f} MB: {'kept' if kept else 'BROKEN'}")
    return kept


def compile_packages() -> None:
    """Compile what servers and kernels import, so that no start of a kernel does."""
    for folder in {sysconfig.get_path("purelib"), str(Path(jupyter_server.__file__).parents[1])}:
        compileall.compile_dir(folder, quiet=2, workers=0)


def main() -> int:
    """Measure on a server of our own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="seconds to measure under load")
    options = parser.parse_args()
    end_by_exception()
    compile_packages()
    with serving("--NbExec.max_concurrent_runs=4") as server, serving() as bystander:
        return 0 if asyncio.run(measure(server, bystander, options.seconds)) else 1


if __name__ == "__main__":
    sys.exit(main())
