"""Run examples/iris.ipynb by one HTTP call, on a Jupyter server that lives only for this call.

Nothing of the user's own Jupyter takes part: configuration, kernels and runtime files are in a temporary
folder, the port is a free one, the token a random one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from jupyter_nbexec import client

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[1] / "examples"
FLOWER = {"sepal_length": 6.9, "sepal_width": 3.1, "petal_length": 5.4, "petal_width": 2.1}
START_TIMEOUT, RUN_TIMEOUT, STOP_TIMEOUT = 90, 300, 30  # seconds


def main() -> int:
    """Start the server, run the notebook, print the run, stop the server."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _end)
    with tempfile.TemporaryDirectory(prefix="nbexec-demo-") as folder, _server(Path(folder)) as (url, token):
        sys.stderr.write(f"POST {url}api/nbexec/iris.ipynb\n{json.dumps({'parameters': FLOWER})}\n\n")
        with client.Client(url, token) as server:
            run = server.run("iris.ipynb", FLOWER, outputs="last", timeout=RUN_TIMEOUT)
        sys.stdout.write(json.dumps(run.raw, indent=2, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        species = run.raise_for_status().result["species"]
    sys.stderr.write(f"\nThe flower is an Iris {species}.\n")
    return 0


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[tuple[str, str]]:
    """A Jupyter server on the examples, with its URL and token; stopped, and waited for, in the end."""
    token = secrets.token_hex(24)
    log = folder / "server.log"
    private = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER_")}
    environment = {**inherited, **private, "JUPYTER_TOKEN": token}
    with log.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603
            [
                *(
                    sys.executable,
                    "-m",
                    "jupyter",
                    "server",
                    "--no-browser",
                    "--ip=127.0.0.1",
                    "--allow-root",
                ),
                # Should another program take this port first, Jupyter takes the next and tells which.
                *(f"--port={_free_port()}", f"--ServerApp.root_dir={EXAMPLES}"),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this script, which then stops the server
        )
    try:
        yield _ready_url(process, folder / "runtime", token), token
    except Exception:
        sys.stderr.write(log.read_text(encoding="utf-8", errors="replace"))
        raise
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            sys.stderr.write("The server did not stop when asked to, and was killed.\n")


def _ready_url(process: subprocess.Popen[bytes], runtime: Path, token: str) -> str:
    """Wait until the server has told its URL and answers a request there."""
    info = runtime / f"jpserver-{process.pid}.json"
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, client.ServerUnreachable):
            url: str = json.loads(info.read_text(encoding="utf-8"))["url"]
            with client.Client(url, token) as server:
                server.describe("iris.ipynb")
            return url
        time.sleep(0.1)
    raise TimeoutError("The server ended." if process.poll() is not None else "The server does not answer.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end(number: int, _: object) -> NoReturn:
    """End by SystemExit, so that the server is stopped on the way."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
