"""What reading the history costs, as it grows; and what storing a run costs.

    python benchmarks/history.py [--runs 10 1000 100000] [--urls postgresql://… …] [--rounds 200]

There is a store for each number of runs, filled directly. What is measured goes through its methods, on
all stores in turns, so that whatever else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import sqlalchemy as sa

from jupyter_nbexec import models, store
from jupyter_nbexec.store import rows, tables

#: What is asked of the store, as its users ask it.
Ways = dict[str, Callable[[], object]]

NOW = datetime.now(tz=timezone.utc)
ENDS = (models.RunStatus.SUCCEEDED, models.RunStatus.FAILED)
#: Runs in a page of a list: as many as there are of each path and status in the smallest store.
PAGE = 5
#: An executed notebook as the store has it, before it is compressed.
CONTENT = b'{"notebook": {"cells": [' + random.Random(0).randbytes(1500).hex().encode() + b'}, "origins": []}'
SERVER = "benchmark"


def make(number: int, status: models.RunStatus, path: str | None = None) -> models.RunRecord:
    """Make a run; those that have ended did so one second after each other."""
    when = NOW - timedelta(days=2) + timedelta(seconds=number)
    return models.RunRecord(
        id=str(uuid.uuid4()),
        created=when,
        request=models.RunRequest(path=path or f"folder/{number % 2}.ipynb", parameters={"number": number}),
        kernel_name="python3",
        status=status,
        started=when,
        ended=when if status.is_final else None,
        kernel=models.KernelInfo(name="python3", id=str(uuid.uuid4()), source="cold"),
        progress=models.Progress(done=5, total=5),
        result=number,
        result_type="application/json",
        timing={"queue": 0.0, "kernel": 0.5, "run": 0.1, "total": 0.6},
        is_detached=True,
    )


def fill(runs: store.RunStore, number: int) -> None:
    """Add runs that have ended, faster than the store itself would."""
    packed = rows.pack(CONTENT)
    for start in range(0, number, 1000):
        made = [make(index, ENDS[index % 2]) for index in range(start, min(start + 1000, number))]
        values = [
            {**rows.fixed_values(run), **rows.changing_values(run), "size": len(packed)} for run in made
        ]
        with runs._writing() as connection:  # noqa: SLF001
            connection.execute(tables.RUNS.insert(), values)
            newest_first = sa.select(tables.RUNS.c.number).order_by(tables.RUNS.c.number.desc())
            numbers = connection.execute(newest_first.limit(len(made))).scalars()
            documents = [{"number": each, "content": packed, "events": packed} for each in numbers]
            connection.execute(tables.DOCUMENTS.insert(), documents)


def ways_of(runs: store.RunStore, number: int) -> Ways:
    """Make the calls that are measured."""
    newest = runs.list(limit=1)[0]
    middle = newest.number - number // 2 + 1
    one = runs.list(limit=1, before=middle)[0]
    path = str(newest.path)
    ask = functools.partial(runs.list, limit=PAGE)
    return {
        "get": lambda: runs.get(one.id),
        "content": lambda: runs.content(one.id),
        "list": ask,
        "list, in the middle": lambda: ask(before=middle),
        "list of a path": lambda: ask(path=path),
        "list of a status": lambda: ask(status=newest.status),
        "list of both": lambda: ask(path=path, status=newest.status),
        "list of an unknown path": lambda: ask(path="unknown.ipynb"),
        "queued": runs.queued,
        "claim_next, nothing there": lambda: runs.claim_next(SERVER, NOW),
        "recover, nothing there": lambda: runs.recover([], NOW),
        "due_deliveries, none there": lambda: runs.due_deliveries(NOW, timedelta(minutes=1)),
        "prune, nothing to do": lambda: runs.prune(
            older_than=NOW - timedelta(days=30), max_runs=10**9, max_bytes=10**15
        ),
        "add, claim_next, finish": lambda: live(runs),
    }


def live(runs: store.RunStore) -> None:
    """Store a whole life of a run."""
    runs.add(make(0, models.RunStatus.QUEUED, "new.ipynb"), CONTENT)
    claimed = runs.claim_next(SERVER, NOW)
    if claimed is None:
        raise RuntimeError("the run that was added cannot be claimed")
    end = dataclasses.replace(claimed[0], status=models.RunStatus.SUCCEEDED, ended=NOW)
    if not runs.finish(end, CONTENT, CONTENT):
        raise RuntimeError("the run that was claimed cannot be ended")


def measure(stores: dict[int, store.RunStore], rounds: int) -> dict[str, dict[int, float]]:
    """Median of each call on each store, in milliseconds."""
    ways = {number: ways_of(runs, number) for number, runs in stores.items()}
    names = list(next(iter(ways.values())))
    taken: dict[str, dict[int, list[float]]] = {name: {number: [] for number in stores} for name in names}
    for _ in range(rounds):
        for name in names:
            for number in stores:
                start = time.perf_counter()
                ways[number][name]()
                taken[name][number].append((time.perf_counter() - start) * 1000)
    return {
        name: {number: statistics.median(each) for number, each in by_number.items()}
        for name, by_number in taken.items()
    }


def reopen(runs: store.RunStore) -> float:
    """Open a store again, as a server that starts does; milliseconds."""
    runs.close()
    start = time.perf_counter()
    runs.open()
    return (time.perf_counter() - start) * 1000


def main() -> None:
    """Fill, measure, and print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 1000, 100_000])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--urls", nargs="+", help="empty databases, as many as there are numbers of runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        urls = options.urls or [f"{folder}/{number}.sqlite" for number in options.runs]
        stores = {number: store.RunStore(url) for number, url in zip(options.runs, urls, strict=True)}
        for number, runs in stores.items():
            runs.open()
            fill(runs, number)
        figures = {"open": {number: reopen(runs) for number, runs in stores.items()}}
        figures |= measure(stores, options.rounds)
        for runs in stores.values():
            runs.close()
    print(f"{'p50 in ms; runs in the store:':30}", *(f"{number:>10,}" for number in stores), "     ratio")
    for name, by_number in figures.items():
        medians = list(by_number.values())
        print(f"{name:30}", *(f"{each:10.2f}" for each in medians), f"{medians[-1] / medians[0]:10.2f}")


if __name__ == "__main__":
    main()
