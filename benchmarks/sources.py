"""What runs cost with kernels of each source, beside all others who run notebooks: time, processors, memory.

    python benchmarks/sources.py [--short] [--input NAME] [--contender NAME] [--without-peers] [--factor N]

Contenders take turns in rounds, so that whatever else the machine does hits all alike; figures are medians
and percentiles of all rounds. A run counts only if its answer is right. With one client, runs follow each
other, and what is filled up in between is waited for; with eight, each asks again when it is answered.
Of processor time all counts that the contender's processes use, those of kernels included, until they do
nothing; the client of a server is not among them. Writes `sources.json` and `sources.svg` into --output, by
default `benchmarks/results`. Exits with 1 if what must be shown was missed, or an answer was wrong.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contenders
import figures
import inputs
import peers
import processes
from contenders import Contender, Failed, Ours, Run
from figures import Alone, Json, Together
from inputs import Input
from serving import end_by_exception

CLIENTS = 8
#: Seconds that a contender's turn with one client is to take; no more runs, and no fewer.
TURN, MOST, LEAST = 1.5, 10, 1
#: Seconds after which kernels should come from where the mode says, at the latest.
READY = 60.0
#: What may be counted of a second of processor time; the usual part of a run, which is taken off, varies.
LEAST_COUNTED, MOST_COUNTED = 0.85, 1.2
#: Kernels that are held to see what memory they need.
HELD = 4
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jupyter_nbexec", "jupyter_server", "jupyter_client", "ipykernel", "nbclient", "pyzmq", "tornado")
#: Contenders that need an environment of their own: which, and the package in it.
PEERS = {
    "gateway": ("servers", "jupyter_kernel_gateway"),
    "papermill": ("commands", "papermill"),
    "execute": ("commands", "nbclient"),
}


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much is done for one notebook."""

    rounds: int  #: of runs of one client
    bursts: int  #: rounds of several clients
    seconds: float  #: of each burst
    clients: int = CLIENTS


#: Enough for a stable median; of bursts, at least ten seconds in all.
AMOUNTS = {
    "trivial": Amount(rounds=12, bursts=3, seconds=5.0),
    "pandas": Amount(rounds=6, bursts=2, seconds=10.0),
    "cells": Amount(rounds=5, bursts=2, seconds=10.0),
    "output": Amount(rounds=3, bursts=1, seconds=20.0),
}
SHORT = Amount(rounds=1, bursts=1, seconds=1.0, clients=2)


class Measured:
    """What was found of one contender with one notebook."""

    def __init__(self, contender: Contender, clients: int) -> None:
        self.contender = contender
        self.alone = Alone()
        self.together = Together(clients=clients)
        self.failures: list[str] = []
        self.sources: collections.Counter[str] = collections.Counter()
        self.expected = 0.0  #: seconds of a run, as far as is known
        self.document: Mapping[str, Any] | None = None
        self.counted: float | None = None  #: of a second of processor time

    def figures(self) -> Json:
        """What it comes to."""
        return {
            "alone": self.alone.figures(),
            "together": self.together.figures(),
            "sources": dict(self.sources),
            "failures": self.failures,
            "counted": self.counted,
        }

    def run(self, client: contenders.Client, wanted: Input) -> Run | None:
        """Run it once; None if that was not answered as it should be."""
        try:
            run = contenders.check(wanted, client(wanted))
        except (Failed, OSError) as error:
            self.failures.append(str(error)[:500])
            return None
        if run.source:
            self.sources[run.source] += 1
        return run

    def warm_up(self, wanted: Input) -> str | None:
        """Run it until all is as it will be; why it is left out, if it is."""
        if missing := self.contender.missing():
            return missing
        sources = self.contender.mode.sources if isinstance(self.contender, Ours) else None
        deadline = time.monotonic() + READY
        with self.contender.client() as client:
            for turn in range(1000):
                run = self.run(client, wanted)
                if run is None:
                    return self.failures[-1]
                self.expected, self.document = run.seconds, run.document
                processes.until_quiet(self.contender.cpu)
                is_ready = sources is None or run.source in sources
                if turn and is_ready:
                    break
                if not is_ready and time.monotonic() > deadline:
                    return f"its kernels are {run.source}"
                time.sleep(0.0 if is_ready else 0.5)
        self.sources.clear()
        return None

    def take_turn(self, wanted: Input, at_most: int) -> None:
        """Run it a few times, with one client."""
        ahead = self.contender.ahead or at_most
        number = max(LEAST, min(at_most, ahead, int(TURN / max(self.expected, 1e-6))))
        before = processes.until_quiet(self.contender.cpu)
        with self.contender.client() as client:
            runs = [run for _ in range(number) if (run := self.run(client, wanted)) is not None]
        self.alone.rounds.append([run.seconds for run in runs])
        self.alone.cpu += processes.until_quiet(self.contender.cpu) - before
        self.alone.runs += len(runs)

    def burn(self) -> None:
        """See how much is counted of a second of processor time, beside what other runs need."""
        before = processes.until_quiet(self.contender.cpu)
        with self.contender.client() as client:
            run = self.run(client, inputs.BURN)
        spent = processes.until_quiet(self.contender.cpu) - before
        usual = self.alone.cpu / max(1, self.alone.runs)
        self.counted = None if run is None else spent - usual

    def burst(self, wanted: Input, seconds: float) -> None:
        """Run it with several clients, for so long; who is at it then, finishes."""
        before = processes.until_quiet(self.contender.cpu)
        self.contender.lag()
        gate = threading.Barrier(self.together.clients)
        began: list[float] = []

        def use(_: int) -> list[tuple[float, float]]:
            done: list[tuple[float, float]] = []
            with self.contender.client() as client:
                gate.wait()
                began.append(time.monotonic())
                end = began[0] + seconds
                while (now := time.monotonic()) < end:
                    run = self.run(client, wanted)
                    if run is not None:
                        self.together.seconds.append(run.seconds)
                        done.append((now, now + run.seconds))
            return done

        with ThreadPoolExecutor(self.together.clients) as pool:
            done = [each for one in pool.map(use, range(self.together.clients)) for each in one]
        late = self.contender.lag()
        self.together.rates.append(figures.rate(done, began[0], began[0] + seconds))
        self.together.cpu += processes.until_quiet(self.contender.cpu) - before
        self.together.runs += len(done)
        self.together.has_loop = late is not None
        self.together.late += late or []


@contextlib.contextmanager
def all_running(
    chosen: Sequence[Contender], used: Sequence[Input], clients: int
) -> Iterator[list[Contender]]:
    """Have contenders run, each in a folder of its own."""
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="nbexec-bench-", ignore_cleanup_errors=True)
        )
        for each in chosen:
            stack.enter_context(each.running(Path(name) / each.name, used, clients))
        yield list(chosen)


def turned(things: Sequence[Measured], by: int) -> list[Measured]:
    """The same things in another order: each is first once."""
    by %= max(1, len(things))
    return [*things[by:], *things[:by]]


def compare(
    chosen: Sequence[Contender], wanted: Input, amount: Amount, most: int
) -> tuple[dict[str, Json], bool | None]:
    """Measure contenders with one notebook; and whether our prepared answer is as the cold one."""
    print(f"\n{wanted.title} ({wanted.name})", flush=True)
    able = [each for each in chosen if each.can(wanted)]
    used = [wanted, inputs.BURN] if wanted is inputs.TRIVIAL else [wanted]
    with all_running(able, used, amount.clients):
        measured = []
        for each in able:
            found = Measured(each, amount.clients)
            why_not = found.warm_up(wanted)
            if why_not is None:
                measured.append(found)
            else:
                print(f"  {each.name} is left out: {why_not}", flush=True)
        for turn in range(amount.rounds):
            for one in turned(measured, turn):
                one.take_turn(wanted, most)
        for one in measured if wanted is inputs.TRIVIAL else ():
            one.burn()
        for turn in range(amount.bursts):
            for one in turned(measured, turn):
                one.burst(wanted, amount.seconds)
    results = {one.contender.name: one.figures() for one in measured}
    show(results)
    return results, is_same({one.contender.name: one.document for one in measured})


def is_same(documents: Mapping[str, Mapping[str, Any] | None]) -> bool | None:
    """Whether the answer with a prepared kernel is the one with a cold kernel; None: there is not both."""
    cold, prepared = documents.get("cold"), documents.get("prepared")
    return None if cold is None or prepared is None else contenders.same_answer(cold, prepared)


# Tables


def milliseconds(seconds: float | None) -> str:
    """Write a time."""
    return "-" if seconds is None else f"{1000 * seconds:.1f}"


def number(figure: float | None, digits: int = 2) -> str:
    """Write a number."""
    return "-" if figure is None else f"{figure:.{digits}f}"


#: Whom all are compared with.
BESIDE = ("floor", "nbclient", "papermill")


def show(found: Mapping[str, Json]) -> None:
    """Print the tables of one notebook."""
    columns = ("p50", "p95", "p99", "n", "CPU s", *(f"x {name}" for name in BESIDE))
    print("  one client, ms        " + "".join(f"{each:>12}" for each in columns))
    for name, each in found.items():
        alone = each["alone"]
        cells = [milliseconds(alone[key]) for key in ("p50", "p95", "p99")]
        cells += [str(alone["n"]), number(alone["cpu"], 3)]
        others = [figures.pick(found, other, "alone", "p50") for other in BESIDE]
        cells += [number(figures.ratio(alone["p50"], other), 3) for other in others]
        print(f"    {name:20}" + "".join(f"{cell:>12}" for cell in cells))
    columns = ("runs/s", "p50", "p95", "p99", "n", "CPU s", "lag p50", "lag p99", *(f"x {n}" for n in BESIDE))
    clients = next(iter(found.values()))["together"]["clients"] if found else CLIENTS
    print(f"  {clients} clients, ms       " + "".join(f"{each:>12}" for each in columns))
    for name, each in found.items():
        together = each["together"]
        late = together["lag_ms"] or {}
        cells = [number(together["per_second"])]
        cells += [milliseconds(together[key]) for key in ("p50", "p95", "p99")]
        cells += [str(together["n"]), number(together["cpu"], 3)]
        cells += [number(late.get(key)) for key in ("p50", "p99")]
        others = [figures.pick(found, other, "together", "per_second") for other in BESIDE]
        cells += [number(figures.ratio(together["per_second"], other), 3) for other in others]
        print(f"    {name:20}" + "".join(f"{cell:>12}" for cell in cells), flush=True)
    rates = {name: each["together"]["per_second"] for name, each in found.items() if "nbclient" in name}
    if len(rates) > 1:
        faster = max(rates, key=lambda name: rates[name] or 0.0)
        print(f"    the faster way to use nbclient for several: {faster}")
    for name, each in found.items():
        if each["failures"]:
            print(f"    {name}: {len(each['failures'])} runs failed; first: {each['failures'][0]}")
        if each["counted"] is not None and not LEAST_COUNTED < each["counted"] < MOST_COUNTED:
            print(f"    {name}: of a second of processor time {each['counted']:.2f} s are counted")
        if len(each["sources"]) > 1:
            print(f"    {name}: kernels were {each['sources']}")


# Memory


def memory(chosen: Sequence[Contender], held: int) -> Json:
    """What each kernel needs: one that waits, and one that has pandas, scikit-learn and a model."""
    print("\nMemory, MB of PSS for each kernel", flush=True)
    found: Json = {}
    with tempfile.TemporaryDirectory(prefix="nbexec-held-") as name:
        places = {state: Path(name) / state for state in ("idle", "busy")}
        for place in places.values():
            place.mkdir()
        waiting = inputs.holding(places["idle"], inputs.TRIVIAL)
        working = inputs.holding(places["busy"], inputs.PANDAS)
        print(f"    {'':20}{'idle: more':>14}{'its own':>12}{'at work: more':>16}{'its own':>12}")
        for each in chosen:
            with all_running([each], [waiting, working, inputs.TRIVIAL], held):
                if Measured(each, held).warm_up(inputs.TRIVIAL) is not None:
                    continue
                found[each.name] = {
                    "idle": hold(each, waiting, places["idle"], held),
                    "busy": hold(each, working, places["busy"], held),
                }
            cells = [number(found[each.name][state][key], 1) for state in places for key in ("more", "own")]
            print(f"    {each.name:20}{cells[0]:>14}{cells[1]:>12}{cells[2]:>16}{cells[3]:>12}", flush=True)
    return found


def hold(contender: Contender, wanted: Input, place: Path, held: int) -> Json:
    """Have so many runs wait at a time: by how much the whole tree grows for each, and each kernel's own."""
    release = place / "release"

    def use(_: int) -> None:
        with contender.client() as client:
            contenders.check(wanted, client(wanted))

    release.touch()
    use(0)  # what all runs of it share is there afterwards
    for marker in place.iterdir():
        marker.unlink()
    processes.until_quiet(contender.cpu)
    before = processes.total_pss(contender.processes())
    with ThreadPoolExecutor(held) as pool:
        try:
            runs = [pool.submit(use, each) for each in range(held)]
            deadline = time.monotonic() + READY
            while len(list(place.glob("held-*"))) < held and time.monotonic() < deadline:
                for run in runs:
                    if run.done():
                        run.result()
                time.sleep(0.05)
            processes.until_quiet(contender.cpu)
            after = processes.total_pss(contender.processes())
            own = [processes.pss(int(marker.name.partition("-")[2])) for marker in place.glob("held-*")]
        finally:
            release.touch()
        for run in runs:
            run.result()
    for marker in place.iterdir():
        marker.unlink()
    if len(own) < held:
        raise RuntimeError(f"{contender.name} does not run {held} at a time")
    return {"more": (after - before) / held, "own": statistics.median(own)}


# The whole


def machine() -> Json:
    """Where this was measured, and with what."""
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "processors": os.cpu_count(),
        "model": model[0] if model else platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Plot medians with one client, and rates with several, on logarithmic scales."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "sources"
    import matplotlib.pyplot as plt

    panels = [("alone", "p50", "one client: p50, s"), ("together", "per_second", "eight clients: runs/s")]
    measured = document["inputs"]
    figure, axes = plt.subplots(
        len(measured), 2, figsize=(11, 1 + 2.6 * len(measured)), squeeze=False, layout="constrained"
    )
    for row, (name, found) in zip(axes, measured.items(), strict=True):
        for axis, (form, key, title) in zip(row, panels, strict=True):
            bars = [(who, each[form][key]) for who, each in found.items() if each[form][key]]
            colours = ["C0" if who in contenders.MODES else "C7" for who, _ in bars]
            axis.barh([who for who, _ in bars], [value for _, value in bars], color=colours)
            axis.set_xscale("log")
            axis.invert_yaxis()
            axis.set_title(f"{inputs.INPUTS[name].title}\n{title}", fontsize=9)
            axis.tick_params(labelsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    everybody = list(contenders.make_all())
    parser.add_argument("--short", action="store_true", help="cold and floor, a few runs; for the tests")
    parser.add_argument("--input", action="append", choices=list(inputs.INPUTS), help="default: all")
    parser.add_argument("--contender", action="append", choices=everybody, help="default: all")
    parser.add_argument("--without-peers", action="store_true", help="only what needs no other environment")
    parser.add_argument("--without-memory", action="store_true", help="do not hold kernels")
    parser.add_argument("--factor", type=float, default=1.0, help="of how much is done; default: 1")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args(arguments)


def choose(options: argparse.Namespace, *more: str) -> list[Contender]:
    """The contenders that take part; more are options of our servers."""
    names = options.contender or (["cold", "floor"] if options.short else None)
    needing = set(PEERS) if options.without_peers else set()
    everybody = contenders.make_all(*more)
    return [
        each for name, each in everybody.items() if (names is None or name in names) and name not in needing
    ]


def amount_of(name: str, options: argparse.Namespace) -> Amount:
    """How much is done for a notebook."""
    if options.short:
        return SHORT
    usual = AMOUNTS[name]
    return Amount(
        rounds=max(1, round(usual.rounds * options.factor)),
        bursts=max(1, round(usual.bursts * options.factor)),
        seconds=usual.seconds * min(1.0, max(0.2, options.factor)),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write what was found."""
    options = parse(arguments)
    end_by_exception()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.monotonic()
    chosen = choose(options)
    needed = {each.name: PEERS[each.name] for each in chosen if each.name in PEERS}
    for environment in sorted({environment for environment, _ in needed.values()}):
        peers.install(environment)
    for each in chosen:
        print(f"    {each.name:20}{each.about}")
    document: Json = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "peers": {package: peers.version(environment, package) for environment, package in needed.values()},
        "contenders": {each.name: each.about for each in chosen},
        "modes": {name: " ".join(mode.options) for name, mode in contenders.MODES.items()},
        "inputs": {},
        "same_answer": None,
        "memory": {},
    }
    for name in options.input or (["trivial"] if options.short else inputs.INPUTS):
        most = 3 if options.short else MOST
        found, same = compare(chosen, inputs.INPUTS[name], amount_of(name, options), most)
        document["inputs"][name] = found
        if name == "pandas":
            document["same_answer"] = same
    if not options.short and not options.without_memory:
        # As many runs at a time as are held.
        roomy = choose(options, f"--NbExec.max_concurrent_runs={HELD}")
        is_held = [each for each in roomy if each.name not in ("floor", "nbclient-asyncio")]
        document["memory"] = memory(is_held, HELD)
    shown = figures.musts(document)
    document["must"] = [must.document() for must in shown]
    document["seconds"] = round(time.monotonic() - began)
    document["load"] = os.getloadavg()[0]
    options.output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=1) + "\n"
    (options.output / "sources.json").write_text(text, encoding="utf-8")
    draw(document, options.output / "sources.svg")
    print(f"\nMust show ({document['seconds']} s, load {document['load']:.1f})")
    for must in shown:
        print(f"  {must.line()}")
    wrong = [f for found in document["inputs"].values() for each in found.values() for f in each["failures"]]
    return 1 if wrong or any(must.kept is False for must in shown) else 0


if __name__ == "__main__":
    sys.exit(main())
