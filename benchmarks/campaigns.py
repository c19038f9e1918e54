"""What campaigns have in common: how they are named, what they report, how they wait and look at a server."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from serving import Server, end_by_exception

#: Seconds after which a run that has not answered counts as hung.
HUNG = 240.0

C = TypeVar("C")


class Report:
    """What a campaign found."""

    def __init__(self) -> None:
        self.broken: list[str] = []

    def figure(self, text: str) -> None:
        """State a figure."""
        print(f"    {text}", flush=True)

    def promise(self, text: str, *, kept: bool, found: object = "") -> None:
        """State whether a promise was kept; a broken one, with what was found instead, ends in exit 1."""
        said = text if kept or found == "" else f"{text}; found: {found}"
        print(f"  {'ok    ' if kept else 'BROKEN'}  {said}", flush=True)
        if not kept:
            self.broken.append(said)


def command_line(script: str | None, names: Iterable[str], *, short: str) -> argparse.ArgumentParser:
    """Make the command line of a script, given its docstring and what it has: `[--short] [CAMPAIGN...]`."""
    parser = argparse.ArgumentParser(description=(script or "").partition("\n")[0])
    parser.add_argument(
        "campaigns", nargs="*", metavar="CAMPAIGN", help=f"of {', '.join(names)}; default: all"
    )
    parser.add_argument("--short", action="store_true", help=short)
    return parser


def perform(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    campaigns: Mapping[str, C],
    run: Callable[[Report, C, argparse.Namespace], Coroutine[Any, Any, None]],
) -> int:
    """Run the campaigns that are named, or all: the exit status of the script."""
    options = parser.parse_args(arguments)
    unknown = set(options.campaigns) - campaigns.keys()
    if unknown:
        parser.error(f"there is no campaign {min(unknown)}")
    end_by_exception()
    broken: list[str] = []
    for name in options.campaigns or campaigns:
        print(f"{name}: {campaigns[name].__doc__}", flush=True)
        report = Report()
        began = time.monotonic()
        asyncio.run(run(report, campaigns[name], options))
        report.figure(f"({time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f})")
        broken += [f"{name}: {each}" for each in report.broken]
    print("\n".join(["", *broken, f"{len(broken)} promises broken."]))
    return 1 if broken else 0


async def until(condition: Callable[[], bool], seconds: float) -> float | None:
    """Wait for what another process does: the seconds it took, or None if it did not happen in time."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            return None
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def submit(server: Server, name: str, **parameters: Any) -> str:
    """Submit a run; its id."""
    async with server.client() as client:
        headers = {"Prefer": "respond-async"}
        body = {"parameters": parameters}
        answer = await client.post(f"api/nbexec/{name}", json=body, headers=headers)
        run_id: str = answer.raise_for_status().json()["id"]
        return run_id


async def ended(server: Server, run_id: str) -> dict[str, Any]:
    """Wait for a run's end."""
    deadline = time.monotonic() + HUNG
    async with server.client() as client:
        while True:
            answer = await client.get(f"api/nbexec/runs/{run_id}", params={"wait": 60})
            run: dict[str, Any] = answer.raise_for_status().json()
            if run["ended"]:
                return run
            if time.monotonic() > deadline:
                raise TimeoutError(f"{run_id} is still {run['status']}")


def kernels_of(server: Server) -> list[dict[str, Any]]:
    """The kernels that the server lists."""
    listed: list[dict[str, Any]] = server.get("api/kernels").json()
    return listed


async def saturate(server: Server) -> None:
    """Have the server start all the threads that its pools may have, and keep."""
    async with server.client() as client:
        await asyncio.gather(*(client.post("api/nbexec/missing.ipynb", json={}) for _ in range(200)))
        # And all the connections to the store.
        await asyncio.gather(*(client.get("api/nbexec/runs") for _ in range(200)))


def check_log(report: Report, server: Server) -> None:
    """Check that the server complained of nothing."""
    lines = server.log().splitlines()
    found = [number for number, line in enumerate(lines) if "Traceback" in line or "never" in line]
    # Logs are gone with the machine that ran this, so that this must be enough to see what it was.
    around = "\n".join(_around(lines, found))
    text = "the log has no traceback, and nothing never awaited"
    report.promise(text, kept=not found, found=f"{len(found)} lines, with those around them:\n{around}")


#: Lines of a log that are shown before and after one that should not be there, and at most in all.
BEFORE, AFTER, MOST_LINES = 6, 40, 200


def _around(lines: Sequence[str], found: Sequence[int]) -> list[str]:
    """Pick the lines around some of a log."""
    near = {each for number in found for each in range(number - BEFORE, number + AFTER + 1)}
    shown = sorted(near & set(range(len(lines))))[:MOST_LINES]
    return [f"{number + 1:6} {lines[number]}" for number in shown]
