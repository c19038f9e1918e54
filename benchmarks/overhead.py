"""What a run by HTTP costs, beside the same notebook run by nbclient and by papermill in this process.

    python benchmarks/overhead.py [--runs 20]

All start a kernel for each run. They take turns, so that whatever else the machine does hits all alike.
Each run by HTTP is stored; the server is configured to note how long its calls to the store take.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import importlib.util
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import nbformat
from nbclient import NotebookClient
from serving import Server, end_by_exception, serving

NAME = "one.ipynb"
#: Calls to the store that a run waits for, and one that it does not wait for.
WAITED, BESIDE = ("add", "finish"), ("save_progress",)
#: A configuration of the server that notes how long these calls take, in a file.
NOTING = """
import functools, time
from jupyter_nbexec import store

def noting(name):
    call = getattr(store.RunStore, name)
    @functools.wraps(call)
    def note(*args, **kwargs):
        began = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            took = time.perf_counter() - began
            with open({file!r}, "a") as notes:
                notes.write(f"{{name}} {{took}}\\n")
    setattr(store.RunStore, name, note)

for name in {names!r}:
    noting(name)
"""


def by_http(client: httpx.Client, phases: dict[str, list[float]]) -> None:
    """Run it by one call, and note the phases that the server tells."""
    answer = client.post(f"api/nbexec/{NAME}", json={})
    answer.raise_for_status()
    for phase, milliseconds in re.findall(r"([\w-]+);dur=([\d.]+)", answer.headers["Server-Timing"]):
        phases[phase].append(float(milliseconds) / 1000)


def by_nbclient(path: Path) -> None:
    """Run it with nbclient."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": str(path.parent)}}).execute()


def by_papermill(path: Path) -> None:
    """Run it with papermill."""
    papermill: Any = importlib.import_module("papermill")
    papermill.execute_notebook(str(path), None, cwd=str(path.parent), progress_bar=False)


def show_store(notes: Path, whole: float) -> None:
    """Print what was noted of the store, beside the seconds of a whole run."""
    times: dict[str, list[float]] = collections.defaultdict(list)
    for line in notes.read_text(encoding="ascii").splitlines():
        name, seconds = line.split()
        times[name].append(1000 * float(seconds))
    medians = {name: statistics.median(each) for name, each in times.items()}
    waited = sum(medians[name] for name in WAITED)
    print("Store, medians in ms:", "  ".join(f"{name} {median:.1f}" for name, median in medians.items()))
    print(f"A run waits {waited:.1f} ms for the store, {waited / whole / 10:.1f} % of what it takes.")


def measure(server: Server, runs: int, notes: Path) -> None:
    """Run all in turns, and print medians and ratios."""
    server.write(NAME, "6 * 7")
    path = server.root / NAME
    phases: dict[str, list[float]] = collections.defaultdict(list)
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=120, trust_env=False) as client:
        ways: dict[str, Callable[[], None]] = {
            "POST /api/nbexec": lambda: by_http(client, phases),
            "nbclient": lambda: by_nbclient(path),
        }
        if importlib.util.find_spec("papermill") is None:
            print("papermill is not installed here, and left out.")
        else:
            ways["papermill"] = lambda: by_papermill(path)
        times: dict[str, list[float]] = collections.defaultdict(list)
        for turn in range(runs + 1):
            for name, run in ways.items():
                began = time.perf_counter()
                run()
                if turn:  # the first of each imports what it needs
                    times[name].append(time.perf_counter() - began)
    print(f"{'seconds':20}{'median':>9}{'min':>9}{'max':>9}{'ours / it':>12}")
    ours = statistics.median(times["POST /api/nbexec"])
    for name, each in times.items():
        median = statistics.median(each)
        print(f"{name:20}{median:9.3f}{min(each):9.3f}{max(each):9.3f}{ours / median:12.2f}")
    print("Server-Timing, medians in ms:", end="")
    print("".join(f"  {phase} {1000 * statistics.median(each[1:]):.1f}" for phase, each in phases.items()))
    show_store(notes, ours)


def main() -> int:
    """Measure on a server of our own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="runs of each")
    options = parser.parse_args()
    end_by_exception()
    with tempfile.TemporaryDirectory() as folder:
        notes, configuration = Path(folder) / "notes", Path(folder) / "noting.py"
        configuration.write_text(NOTING.format(file=str(notes), names=WAITED + BESIDE), encoding="utf-8")
        with serving(f"--config={configuration}") as server:
            measure(server, options.runs, notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
