"""A `jupyter server` process for measurements: all its own, looked at from outside, gone in the end."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import httpx
import nbformat
import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

START_TIMEOUT, STOP_TIMEOUT = 120, 30  # seconds
#: Bits of SIGINT and SIGTERM in the masks of /proc/<pid>/status.
STOP_SIGNALS = (1 << (signal.SIGINT - 1)) | (1 << (signal.SIGTERM - 1))


@dataclass(kw_only=True)
class Server:
    """A server with the extension, in a folder and an environment of its own."""

    folder: Path
    process: subprocess.Popen[bytes]
    token: str = field(repr=False)
    url: str = ""  #: with the base URL and a slash at the end

    @property
    def root(self) -> Path:
        """Where its notebooks are."""
        return self.folder / "root"

    @property
    def headers(self) -> dict[str, str]:
        """What authenticates a request."""
        return {"Authorization": f"token {self.token}"}

    def log(self) -> str:
        """All that it has logged."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def client(self, **options: Any) -> httpx.AsyncClient:
        """Make a client that waits as long as it takes and, if not told otherwise, keeps no connection."""
        options = {
            "timeout": httpx.Timeout(None, connect=60),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=0),
            **options,
        }
        return httpx.AsyncClient(base_url=self.url, headers=self.headers, trust_env=False, **options)

    def get(self, path: str) -> httpx.Response:
        """Ask one thing, on a connection of its own."""
        return httpx.get(f"{self.url}{path}", headers=self.headers, trust_env=False, timeout=60)

    def write(self, name: str, *cells: str, parameters: str = "") -> None:
        """Save a notebook of code cells, after one that declares parameters."""
        made = [nbformat.v4.new_code_cell(source) for source in cells]
        if parameters:
            tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
            made.insert(0, tagged)
        kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernelspec})
        nbformat.write(notebook, self.root / name)

    def below(self) -> list[psutil.Process]:
        """Every process below it, kernels and shims and what they have started, zombies included."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def kernel_files(self) -> list[str]:
        """Connection files of kernels."""
        return sorted(path.name for path in (self.folder / "runtime").glob("kernel-*"))

    def temporary_files(self) -> list[str]:
        """What lies in its TMPDIR."""
        return sorted(path.name for path in (self.folder / "tmp").iterdir())

    def descriptors(self) -> int:
        """How many files it has open."""
        return psutil.Process(self.process.pid).num_fds()

    def threads(self) -> int:
        """How many threads it has."""
        return psutil.Process(self.process.pid).num_threads()

    def resident(self) -> float:
        """MiB of memory it occupies."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / (1 << 20)

    def dispositions(self) -> dict[str, int]:
        """Which of SIGINT and SIGTERM it catches and ignores, as the operating system sees it."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        masks = dict(line.split(":\t") for line in lines if line.startswith(("SigCgt", "SigIgn")))
        return {name: int(mask, 16) & STOP_SIGNALS for name, mask in masks.items()}

    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None


@contextlib.contextmanager
def serving(*options: str, python: str | Path = sys.executable) -> Iterator[Server]:
    """Run a server for the time of the context; it, and its folder, are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="nbexec-bench-", ignore_cleanup_errors=True) as name:
        server = launch(Path(name), *options, python=python)
        try:
            wait_for_url(server)
            yield server
        finally:
            stop(server)


def environment_of(folder: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Make the environment of a process that has a folder for all that is Jupyter's, and notebooks."""
    for part in ("root", "tmp"):
        (folder / part).mkdir(exist_ok=True)
    dropped = ("JUPYTER", "JPY_", "PYTHONDONTWRITEBYTECODE", "IPYTHON")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(dropped)},
        **more,
        **{f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")},
        "IPYTHONDIR": str(folder / "ipython"),
        "TMPDIR": str(folder / "tmp"),
    }


def launch(
    folder: Path,
    *options: str,
    environment: Mapping[str, str] | None = None,
    python: str | Path = sys.executable,
) -> Server:
    """Start a server on what is in a folder, and do not wait for it."""
    token = secrets.token_hex(24)
    prepared = environment_of(folder, {**(environment or {}), "JUPYTER_TOKEN": token})
    command = [
        *(str(python), "-m", "jupyter", "server", "--no-browser", "--ip=127.0.0.1", "--allow-root"),
        *("--ServerApp.port=0", f"--ServerApp.root_dir={folder / 'root'}", *options),
    ]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            env=prepared,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the script, which then stops the server
        )
    return Server(folder=folder, process=process, token=token)


def wait_for_url(server: Server) -> None:
    """Return when a server answers, and its URL is known."""
    info = server.folder / "runtime" / f"jpserver-{server.process.pid}.json"
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and not server.has_ended():
        with contextlib.suppress(FileNotFoundError, ValueError, httpx.TransportError):
            server.url = str(json.loads(info.read_text(encoding="utf-8"))["url"])
            if server.get("api/status").status_code == 200:
                return
        time.sleep(0.05)
    raise RuntimeError("the server does not come up:\n" + server.log())


def stop(server: Server) -> None:
    """Have a server end, one way or the other."""
    server.process.terminate()
    try:
        server.process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
        print("The server did not stop when asked to, and was killed.", file=sys.stderr)


def end_by_exception() -> None:
    """Have signals that would end this script raise SystemExit, so that its servers are stopped."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _exit)


def _exit(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)
