"""`jupyter nbexec serve` as a real process."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import nbformat

from tests import gateways, processes

#: Seconds that anything may take.
DEADLINE = 60.0
TOKEN = "a-token-like-no-other"
COMMAND = [str(Path(sys.executable).with_name("jupyter")), "nbexec", "serve"]


@dataclass(frozen=True, kw_only=True)
class Served:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]
    folder: Path
    headers: Mapping[str, str]
    context: ssl.SSLContext | bool = True

    def request(self, method: str, path: str, **options: object) -> httpx.Response:
        """Ask it, with its token if no other headers are given."""
        headers = options.pop("headers", self.headers)
        # Another host may be named than is there: nothing but this machine is reached.
        with httpx.Client(verify=self.context, trust_env=False, timeout=DEADLINE) as client:
            return client.request(method, f"{self.url}{path}", headers=headers, **options)  # type: ignore[arg-type]

    def get(self, path: str, **options: object) -> httpx.Response:
        """Ask for something."""
        return self.request("GET", path, **options)

    @property
    def log(self) -> str:
        """All that it has said."""
        return (self.folder / "log").read_text("utf-8")

    def wait_for_log(self, text: str) -> None:
        """Wait until it has said something, which it does after it has answered."""
        deadline = time.monotonic() + DEADLINE
        while text not in self.log:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{text!r} is not in\n{self.log}")
            time.sleep(0.02)

    def stop(self, number: int) -> int:
        """Send it a signal, and wait for its end: the exit status."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


def write(file: Path, *cells: str, kernel: str = "python3") -> Path:
    """Save a notebook."""
    file.parent.mkdir(parents=True, exist_ok=True)
    spec = {"name": kernel, "display_name": kernel, "language": "python"}
    metadata = {"kernelspec": spec, "language_info": {"name": "python"}}
    made = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=metadata), file)
    return file


def environment(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """All that a server needs, and nothing of this machine's Jupyter."""
    dropped = ("JUPYTER", "KG_", "PORT")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    private = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    return {**inherited, **private, "IPYTHONDIR": str(folder / "ipython"), **variables}


def launch(folder: Path, *arguments: str, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start it in a folder, and do not wait."""
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            env=environment(folder, variables),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


@contextlib.contextmanager
def serving(
    folder: Path,
    *arguments: str,
    port: int | None = None,
    token: str = TOKEN,
    context: ssl.SSLContext | None = None,
    **variables: str,
) -> Iterator[Served]:
    """Serve, by a command that says no port if one is given here."""
    own = [] if port is not None else [f"--port={(port := gateways.free_port())}"]
    known = {"KG_AUTH_TOKEN": token, **variables} if token else variables
    process = launch(folder, *arguments, *own, variables=known)
    headers = {"Authorization": f"token {token}"} if token else {}
    scheme = "http" if context is None else "https"
    url = f"{scheme}://127.0.0.1:{port}"
    server = Served(
        url=url, process=process, folder=folder, headers=headers, context=True if context is None else context
    )
    try:
        deadline = time.monotonic() + DEADLINE
        while "described at" not in server.log:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it does not come up:\n{server.log}")
            time.sleep(0.05)
        yield server
    finally:
        processes.end(process, folder / "log")


def refused(folder: Path, *arguments: str, **variables: str) -> str:
    """Start what cannot be served: what it says, at the end of its short life."""
    process = launch(folder, *arguments, variables=variables)
    try:
        status = process.wait(DEADLINE)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    said = (folder / "log").read_text("utf-8")
    assert (status, "Traceback" in said) == (1, False), said
    return said
