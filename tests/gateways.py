"""A real Kernel Gateway on loopback, in one of its modes, behind a token.

Two of its faults are kept from the tests, which would meet them by chance on a busy machine: see
`fixtures/hearing_gateway.py`.
"""

from __future__ import annotations

import itertools
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests import processes

#: Seconds a gateway may take to come up.
DEADLINE = 60.0
COMMAND = [sys.executable, str(Path(__file__).with_name("fixtures") / "hearing_gateway.py")]
#: What it says in its notebook-http mode once its kernels can answer calls.
READY = "all kernels are heard"
#: Ports that nobody is given who asks for any: those begin at 32768 (Linux) or 49152.
PORTS = range(10_000, 30_000)
#: Test processes beside each other begin far apart.
_places = itertools.count(os.getpid() * 997)


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A running gateway."""

    url: str
    token: str
    pid: int
    log: Path

    def get(self, path: str, method: str = "GET") -> httpx.Response:
        """Ask it."""
        headers = {"Authorization": f"token {self.token}"}
        return httpx.request(method, f"{self.url}{path}", headers=headers, trust_env=False, timeout=DEADLINE)

    @property
    def kernels(self) -> list[str]:
        """Ids of its kernels."""
        return [str(model["id"]) for model in self.get("/api/kernels").json()]


def free_port() -> int:
    """Find a port that nobody listens at, nor will before it is used."""
    while True:
        port = PORTS[next(_places) % len(PORTS)]
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def has_api(gateway: Gateway) -> bool:
    """Whether it answers at all."""
    return gateway.get("/api").status_code == 200


@contextmanager
def running(
    folder: Path,
    *options: str,
    port: int | None = None,
    token: str | None = None,
    is_ready: Callable[[Gateway], bool] = has_api,
) -> Iterator[Gateway]:
    """Run a gateway in a folder, which is where its kernels are."""
    port, token = port or free_port(), token or secrets.token_hex(16)
    folder.mkdir(exist_ok=True)
    command = [
        *(*COMMAND, "--KernelGatewayApp.ip=127.0.0.1", f"--KernelGatewayApp.port={port}"),
        *("--KernelGatewayApp.port_retries=0", *options),
    ]
    log = folder / "gateway.log"
    environment = _environment(folder, token)
    with log.open("a") as file:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=file, stderr=file)
    gateway = Gateway(url=f"http://127.0.0.1:{port}", token=token, pid=process.pid, log=log)
    try:
        _wait_for(gateway, process, is_ready)
        yield gateway
    finally:
        processes.end(process, log)


@contextmanager
def serving(folder: Path, notebook: Path, *options: str) -> Iterator[Gateway]:
    """Run a gateway in its notebook-http mode, until whose kernels can answer nobody has to wait."""
    own = ["--KernelGatewayApp.api=kernel_gateway.notebook_http", f"--KernelGatewayApp.seed_uri={notebook}"]
    with running(folder, *own, *options, is_ready=hears_its_kernels) as gateway:
        yield gateway


def hears_its_kernels(gateway: Gateway) -> bool:
    """Whether its kernels can answer calls."""
    return READY in gateway.log.read_text()


def _environment(folder: Path, token: str) -> dict[str, str]:
    # What runs give to kernels that are started here.
    profile = folder / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text("c.HistoryManager.hist_file = ':memory:'\n")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "KG_"))},
        "KG_AUTH_TOKEN": token,
        "KG_LIST_KERNELS": "True",
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "IPYTHONDIR": str(folder / "ipython"),
        # Not what the package `coverage`, or pytest, has put there.
        "PYTHONWARNINGS": "ignore",
    }


def _wait_for(
    gateway: Gateway, process: subprocess.Popen[bytes], is_ready: Callable[[Gateway], bool]
) -> None:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if is_ready(gateway):
                return
        time.sleep(0.05)
    raise RuntimeError("the gateway does not come up:\n" + gateway.log.read_text())
