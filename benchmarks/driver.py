"""A process that runs notebooks as programs do that have no server, and says how long each took.

    python benchmarks/driver.py WAY FOLDER KERNELS

WAY is `threads` or `asyncio`: nbclient, each run in a thread or in a task; or `floor`: the cells of the
notebook, one execute_request each, on one of so many kernels that are there already, whose namespace stays.
Reads `{"id": …, "name": …}` from each line of its input, and writes what came of it as a line.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
from inputs import Seen, outputs_of, read_setup, see, seen
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

#: Where answers go; what kernels, which inherit it, write to the standard output goes elsewhere.
ANSWERS = os.dup(1)
os.dup2(2, 1)


def client_of(path: Path) -> tuple[Any, NotebookClient]:
    """A notebook, and what will execute it in its folder."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    return notebook, NotebookClient(notebook, timeout=None, resources=resources)


def by_thread(path: Path) -> tuple[float, Seen]:
    """Run it with nbclient: the seconds that took, and what came of it."""
    began = time.perf_counter()
    notebook, client = client_of(path)
    client.execute()
    took = time.perf_counter() - began
    return took, see(outputs_of(notebook))


async def by_task(path: Path) -> tuple[float, Seen]:
    """Run it with nbclient, in this loop."""
    began = time.perf_counter()
    notebook, client = client_of(path)
    await client.async_execute()
    took = time.perf_counter() - began
    return took, await asyncio.to_thread(see, outputs_of(notebook))


class WarmKernel:
    """A kernel that runs one thing after another."""

    def __init__(self, folder: Path) -> None:
        """Start it, and execute what each notebook of a folder has before its parameters."""
        self.manager, self._client = start_new_kernel()
        for path in sorted(folder.glob("*.ipynb")):
            self._execute(read_setup(path)[0])

    def run(self, path: Path) -> tuple[float, Seen]:
        """Execute the cells behind the parameters."""
        cells = read_setup(path)[1]
        began = time.perf_counter()
        text, printed = self._execute(cells)
        took = time.perf_counter() - began
        return took, seen(text, "".join(printed))

    def _execute(self, cells: list[str]) -> tuple[str | None, list[str]]:
        text, printed = None, []
        for cell in cells:
            asked = self._client.execute(cell)
            for content, kind in self._outputs(asked):
                if kind == "execute_result":
                    text = content["data"]["text/plain"]
                elif kind == "stream" and content["name"] == "stdout":
                    printed.append(content["text"])
            while self._client.get_shell_msg(timeout=60)["parent_header"].get("msg_id") != asked:
                pass
        return text, printed

    def _outputs(self, asked: str) -> list[tuple[dict[str, Any], str]]:
        found = []
        while True:
            message = self._client.get_iopub_msg(timeout=60)
            content, kind = message["content"], message["msg_type"]
            if message["parent_header"].get("msg_id") != asked:
                continue
            if kind == "status" and content["execution_state"] == "idle":
                return found
            if kind == "error":
                raise RuntimeError(f"{content['ename']}: {content['evalue']}")
            found.append((content, kind))


class WarmKernels:
    """Kernels of which each run takes one."""

    def __init__(self, number: int, folder: Path) -> None:
        self._free: queue.Queue[WarmKernel] = queue.Queue()
        self._all = [WarmKernel(folder) for _ in range(number)]
        for kernel in self._all:
            self._free.put(kernel)

    def run(self, path: Path) -> tuple[float, Seen]:
        """Execute a notebook on the next one that is free."""
        kernel = self._free.get()
        try:
            return kernel.run(path)
        finally:
            self._free.put(kernel)

    def close(self) -> None:
        """End them."""
        for kernel in self._all:
            kernel.manager.shutdown_kernel(now=True)


def say(number: int, took: float, found: Seen | None, error: str | None = None) -> None:
    """Write what came of a run."""
    line = {"id": number, "seconds": took, "error": error, **dataclasses.asdict(found or Seen(None))}
    os.write(ANSWERS, json.dumps(line).encode() + b"\n")


def drive_threads(run: Callable[[Path], tuple[float, Seen]], folder: Path, number: int) -> None:
    """Run what is asked for, in so many threads."""
    lock = threading.Lock()

    def do(asked: dict[str, Any]) -> None:
        try:
            took, found = run(folder / f"{asked['name']}.ipynb")
        except Exception as error:
            with lock:
                say(asked["id"], 0.0, None, repr(error))
        else:
            with lock:
                say(asked["id"], took, found)

    with ThreadPoolExecutor(number) as pool:
        for line in sys.stdin:
            pool.submit(do, json.loads(line))


async def drive_tasks(folder: Path) -> None:
    """Run what is asked for, each in a task."""

    async def do(asked: dict[str, Any]) -> None:
        try:
            took, found = await by_task(folder / f"{asked['name']}.ipynb")
        except Exception as error:
            say(asked["id"], 0.0, None, repr(error))
        else:
            say(asked["id"], took, found)

    tasks: set[asyncio.Task[None]] = set()
    while line := await asyncio.to_thread(sys.stdin.readline):
        task = asyncio.create_task(do(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


def main() -> None:
    """Drive, until there is nothing to read."""
    way, folder, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if way == "asyncio":
        asyncio.run(drive_tasks(folder))
    elif way == "threads":
        drive_threads(by_thread, folder, number)
    else:
        kernels = WarmKernels(number, folder)
        try:
            drive_threads(kernels.run, folder, number)
        finally:
            kernels.close()


if __name__ == "__main__":
    main()
