"""A trivial endpoint, beside the same notebook behind Kernel Gateway, with one kernel and with two.

What must be shown: throughput and median latency at least Kernel Gateway's with one kernel, and 1.5 times its
throughput with two. All servers run at the same time and are asked in turn, round after round, so that what
else the machine does is the same for all. Each client has one connection, and asks again when it is answered.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from figures import Alone, Must, Together, rate
from processes import cpu_seconds
from serving import START_TIMEOUT, end_by_exception, environment_of, serving

CELLS = ("import json", "# GET /hello\nprint('hello')")
KERNELS = (1, 2)
CLIENTS = 8


@dataclass(kw_only=True)
class Contender:
    """Who serves the notebook, and what was measured."""

    name: str
    kernels: int
    url: str  #: of the endpoint
    token: str = field(repr=False)
    pid: int
    alone: Alone = field(default_factory=Alone)
    together: Together = field(default_factory=lambda: Together(clients=CLIENTS))

    def ask(self, connection: http.client.HTTPConnection) -> tuple[float, float]:
        """Ask once; when, and when it was answered."""
        began = time.perf_counter()
        connection.request("GET", urlsplit(self.url).path, headers={"Authorization": f"token {self.token}"})
        answer = connection.getresponse()
        body = answer.read()
        if (answer.status, body) != (200, b"hello\n"):
            raise RuntimeError(f"{self.name} answered {answer.status} {body[:500]!r}")
        return began, time.perf_counter()

    def connect(self) -> http.client.HTTPConnection:
        """Open a connection."""
        where = urlsplit(self.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def measure_alone(self, number: int) -> None:
        """Ask so many times, one after the other."""
        connection = self.connect()
        before = cpu_seconds(self.pid)
        spans = [self.ask(connection) for _ in range(number)]
        self.alone.cpu += cpu_seconds(self.pid) - before
        self.alone.runs += number
        self.alone.rounds.append([end - began for began, end in spans])
        connection.close()

    def measure_together(self, seconds: float) -> None:
        """Have all clients ask for so long."""
        spans: list[tuple[float, float]] = []
        end = time.perf_counter() + seconds
        before = cpu_seconds(self.pid)
        failures: list[Exception] = []

        def work() -> None:
            connection = self.connect()
            try:
                while time.perf_counter() < end:
                    spans.append(self.ask(connection))
            except Exception as error:
                failures.append(error)
            connection.close()

        threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        self.together.cpu += cpu_seconds(self.pid) - before
        self.together.runs += len(spans)
        self.together.seconds += [stop - start for start, stop in spans]
        self.together.rates.append(rate(spans, began, end))


@contextlib.contextmanager
def gateway(kernels: int) -> Iterator[Contender]:
    """Run Kernel Gateway with the notebook."""
    with tempfile.TemporaryDirectory(prefix="nbexec-bench-", ignore_cleanup_errors=True) as name:
        folder, token = Path(name), secrets.token_hex(16)
        environment = environment_of(folder, {"KG_AUTH_TOKEN": token, "PYTHONWARNINGS": "ignore"})
        write_notebook(folder / "hello.ipynb")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [
            *(sys.executable, "-m", "kernel_gateway", "--KernelGatewayApp.api=kernel_gateway.notebook_http"),
            *(f"--KernelGatewayApp.seed_uri={folder / 'hello.ipynb'}", "--KernelGatewayApp.ip=127.0.0.1"),
            *(f"--KernelGatewayApp.port={port}", f"--KernelGatewayApp.prespawn_count={kernels}"),
        ]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}/hello"
        contender = Contender(name="gateway", kernels=kernels, url=url, token=token, pid=process.pid)
        try:
            wait_for(contender, process, folder / "log")
            yield contender
        finally:
            process.terminate()
            process.wait(timeout=60)


@contextlib.contextmanager
def ours(kernels: int, *options: str) -> Iterator[Contender]:
    """Run a Jupyter server with the notebook."""
    own = (
        f"--NbExec.max_endpoint_kernels={kernels}",
        f"--NbExec.min_endpoint_kernels={kernels}",
        "--NbExec.served_notebooks=hello.ipynb",
        # Kernel Gateway's do not give way either.
        "--NbExec.kernel_niceness=0",
    )
    with serving(*own, *options) as server:
        write_notebook(server.root / "hello.ipynb")
        url = f"{server.url}api/nbexec/hello.ipynb/hello"
        yield Contender(name="nbexec", kernels=kernels, url=url, token=server.token, pid=server.process.pid)


def write_notebook(path: Path) -> None:
    """Save the notebook."""
    cells = [
        {"cell_type": "code", "id": f"cell-{i}", "source": source, "metadata": {}, "outputs": []}
        | {"execution_count": None}
        for i, source in enumerate(CELLS)
    ]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernelspec, "language_info": {"name": "python"}}
    document = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
    path.write_text(json.dumps(document), encoding="utf-8")


def wait_for(contender: Contender, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when it answers."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            contender.ask(contender.connect())
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the gateway does not come up:\n" + log.read_text(encoding="utf-8", errors="replace"))


def measure(contenders: list[Contender], *, rounds: int, number: int, seconds: float) -> None:
    """Ask all of them, in turn, after a while in which all that is made once is made."""
    for contender in contenders:
        contender.measure_together(seconds)
        contender.together = Together(clients=CLIENTS)
    for turn in range(rounds):
        # Nobody is always the first after a pause.
        for contender in contenders if turn % 2 else reversed(contenders):
            contender.measure_alone(number)
            contender.measure_together(seconds)


def musts(found: dict[tuple[str, int], dict[str, Any]]) -> list[Must]:
    """What must be shown of these figures."""
    one, two = KERNELS

    def throughput(kernels: int) -> float:
        ours_, theirs = (found[name, kernels]["together"]["per_second"] for name in ("nbexec", "gateway"))
        return float(ours_ / theirs)

    p50 = found["gateway", one]["alone"]["p50"] / found["nbexec", one]["alone"]["p50"]
    return [
        Must(number=4, text="p50 of Kernel Gateway to ours, one kernel", found=p50, limit=1.0, at_least=True),
        Must(
            number=4,
            text="throughput to Kernel Gateway's, one kernel",
            found=throughput(one),
            limit=1.0,
            at_least=True,
        ),
        Must(
            number=4,
            text="throughput to Kernel Gateway's, two kernels",
            found=throughput(two),
            limit=1.5,
            at_least=True,
        ),
    ]


def show(contender: Contender) -> dict[str, Any]:
    """Print what was found; the same as figures."""
    alone, together = contender.alone.figures(), contender.together.figures()
    print(
        f"{contender.name:8} {contender.kernels} kernels  alone p50 {1000 * alone['p50']:6.2f} ms "
        f"p99 {1000 * alone['p99']:6.2f} ms, cpu {1000 * alone['cpu']:5.2f} ms  |  {CLIENTS} clients "
        f"{together['per_second']:6.1f}/s p50 {1000 * together['p50']:6.2f} ms "
        f"p99 {1000 * together['p99']:7.2f} ms, cpu {1000 * together['cpu']:5.2f} ms",
        flush=True,
    )
    return {"alone": alone, "together": together}


def main() -> int:
    """Measure, print, and say whether what must be shown is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="only try whether it measures")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rounds, number, seconds = (1, 20, 0.5) if options.short else (options.rounds, 300, 5.0)
    end_by_exception()
    with contextlib.ExitStack() as stack:
        contenders = [stack.enter_context(make(kernels)) for kernels in KERNELS for make in (gateway, ours)]
        measure(contenders, rounds=rounds, number=number, seconds=seconds)
    found = {(each.name, each.kernels): show(each) for each in contenders}
    promised = musts(found)
    print(f"load {os.getloadavg()[0]:.1f}")
    print("\n".join(must.line() for must in promised))
    return 0 if options.short or all(must.kept for must in promised) else 1


if __name__ == "__main__":
    sys.exit(main())
