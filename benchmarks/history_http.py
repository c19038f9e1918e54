"""What asking a server for its history costs, as that grows.

    python benchmarks/history_http.py [--runs 10 1000 100000] [--rounds 200]

There is a server for each number of stored runs. They are asked in turns, so that whatever else the machine
does hits all alike. Exits with 1 if an answer takes more than twice as long where there is most as where
there is least.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
import nbformat
from history import fill
from serving import end_by_exception, serving

from jupyter_nbexec import documents, store
from jupyter_nbexec.store import rows, tables

#: Promise: the most stored runs may take so many times as long as the fewest.
RATIO = 2.0
#: Runs on a page: as many as there are in the smallest history.
PAGE = 10


def prepare(file: Path, number: int) -> None:
    """Make a history of so many runs, with notebooks and events that can be read."""
    runs = store.RunStore(str(file))
    runs.open()
    fill(runs, number)
    output = nbformat.v4.new_output("stream", text="a line\n" * 20)
    cells = [nbformat.v4.new_code_cell("print('a line')", outputs=[output]) for _ in range(5)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    origins = [(index, cell.id) for index, cell in enumerate(cells)]
    events = [[index, "output", {"cell": index, **output}] for index in range(1, 6)]
    packed = {
        "content": rows.pack(documents.pack(notebook, origins)),
        "events": rows.pack(json.dumps(events).encode()),
    }
    with runs._writing() as connection:  # noqa: SLF001
        connection.execute(tables.DOCUMENTS.update().values(packed))
    runs.close()


def paths(client: httpx.Client) -> dict[str, str]:
    """What is asked, by its name."""
    listed = client.get("api/nbexec/runs", params={"limit": PAGE}).raise_for_status().json()
    run = listed["runs"][-1]
    one = f"api/nbexec/runs/{run['id']}"
    return {
        "/api/status, for comparison": "api/status",
        "list": f"api/nbexec/runs?limit={PAGE}",
        "list, the next page": f"api/nbexec/runs?limit={PAGE // 2}&cursor={cursor(client)}",
        "list of a path": f"api/nbexec/runs?limit={PAGE // 2}&path={run['path']}",
        "list of a status": f"api/nbexec/runs?limit={PAGE // 2}&status={run['status']}",
        "list of what is queued": "api/nbexec/runs?status=queued",
        "get": one,
        "get, with ?wait=": f"{one}?wait=60",
        "its notebook": f"{one}/notebook",
        "its events": f"{one}/events",
        "/metrics": "metrics",
    }


def cursor(client: httpx.Client) -> str:
    """Where the second half of the first page begins."""
    answer = client.get("api/nbexec/runs", params={"limit": PAGE // 2}).raise_for_status()
    return str(answer.json()["cursor"])


def measure(clients: dict[int, httpx.Client], rounds: int) -> bool:
    """Ask all in turns, print medians, and say whether the promise was kept."""
    asked = {number: paths(client) for number, client in clients.items()}
    names = list(next(iter(asked.values())))
    taken: dict[str, dict[int, list[float]]] = {name: {number: [] for number in clients} for name in names}
    for _ in range(rounds):
        for name in names:
            for number, client in clients.items():
                began = time.perf_counter()
                client.get(asked[number][name]).raise_for_status()
                taken[name][number].append(1000 * (time.perf_counter() - began))
    print(f"{'p50 in ms; runs in the store:':30}", *(f"{number:>10,}" for number in clients), "     ratio")
    is_kept = True
    for name, by_number in taken.items():
        medians = [statistics.median(times) for times in by_number.values()]
        ratio = medians[-1] / medians[0]
        is_kept &= ratio <= RATIO
        print(f"{name:30}", *(f"{each:10.2f}" for each in medians), f"{ratio:10.2f}")
    print(f"flat, that is {RATIO:g} times at most: {'kept' if is_kept else 'BROKEN'}")
    return is_kept


def main() -> int:
    """Measure on servers of our own."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 1000, 100_000])
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    end_by_exception()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nbexec-bench-")))
        clients = {}
        for number in options.runs:
            file = folder / f"{number}.sqlite"
            prepare(file, number)
            database = f"--NbExec.database_url=sqlite:///{file}"
            server = stack.enter_context(serving(database, "--NbExec.max_stored_runs=0"))
            client = httpx.Client(base_url=server.url, headers=server.headers, timeout=60, trust_env=False)
            clients[number] = stack.enter_context(client)
        return 0 if measure(clients, options.rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
