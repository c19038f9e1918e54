"""What a client finds when the server was killed under its runs, and started again on the same database."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import nbformat
import pytest

from tests import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds that anything may take here.
DEADLINE = 60.0


class Restarted:
    """A `jupyter server` process, and the next one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.root.mkdir()
        self.token = secrets.token_hex(16)
        self.process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")},
            **{
                f"JUPYTER_{kind}_DIR": str(self.folder / kind.lower())
                for kind in ("CONFIG", "DATA", "RUNTIME")
            },
            "JUPYTER_TOKEN": self.token,
        }
        command = [
            *(sys.executable, "-m", "jupyter", "server", "--no-browser", "--allow-root"),
            *("--ServerApp.port=0", f"--ServerApp.root_dir={self.root}"),
            *("--NbExec.max_concurrent_runs=1", "--NbExec.kernel_niceness=0"),
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        info = self.folder / "runtime" / f"jpserver-{self.process.pid}.json"
        self.until(lambda: info.exists() and info.read_text().endswith("}"))
        self.client = httpx.Client(
            base_url=json.loads(info.read_text())["url"] + "api/nbexec/",
            headers={"Authorization": f"token {self.token}"},
            trust_env=False,
            timeout=DEADLINE,
        )

    def kill(self) -> None:
        """Kill it; it has no time for anything."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE)
        self.client.close()

    def stop(self) -> None:
        """Ask it to end."""
        assert self.process is not None
        processes.end(self.process, self.folder / "log")
        self.client.close()

    def write(self, name: str, *cells: str) -> None:
        """Save a notebook."""
        made = [nbformat.v4.new_code_cell(cell) for cell in cells]
        kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(
            nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernelspec}), self.root / name
        )

    def submit(self, name: str, body: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
        """Run a notebook."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(name, json=body or {}, headers=sent)

    def events(self, run: str, after: int = 0) -> list[tuple[int, str, Any]]:
        """Follow a run to its end."""
        answer = self.client.get(f"runs/{run}/events", headers={"Last-Event-ID": str(after)})
        assert answer.status_code == 200
        found = []
        for block in answer.text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            if "id" in fields:
                found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
        return found

    def wait_for(self, name: str) -> None:
        """Wait until a file is there."""
        self.until((self.root / name).exists)

    def saved(self) -> int:
        """How many runs have outputs on disk."""
        with sqlite3.connect(self.folder / "data" / "nbexec" / "runs.sqlite") as connection:
            (number,) = connection.execute(
                "SELECT count(*) FROM nbexec_documents WHERE events IS NOT NULL"
            ).fetchone()
        connection.close()
        return int(number)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for what sends no event, as long as the server lives."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.02)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Restarted]:
    """Give a server that has been started; none is left when the test is over."""
    server = Restarted(tmp_path)
    server.start()
    yield server
    if server.process is not None and server.process.poll() is None:
        server.stop()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_killed(server: Restarted) -> None:
    """What was queued runs, once; what was running is closed with its outputs, and followed to its end."""
    trace = server.root / "trace"
    server.write(
        "long.ipynb",
        f"open({str(trace)!r}, 'a').write('L')\nprint('saved', flush=True)",
        "print('more', flush=True)\nimport time\n"
        f"open({str(server.root / 'started')!r}, 'w').close()\ntime.sleep(600)",
        "print('never')",
    )
    server.write("a.ipynb", f"open({str(trace)!r}, 'a').write('a')\n5")
    before = server.submit("a.ipynb", Idempotency_Key="before").json()
    running = server.submit("long.ipynb", Prefer="respond-async", Idempotency_Key="running").json()["id"]
    server.wait_for("started")
    queued = server.submit("a.ipynb", Prefer="respond-async", Idempotency_Key="queued").json()["id"]
    waited = server.submit("a.ipynb", Prefer="wait=0")
    assert waited.status_code == 202
    with_env = server.submit("a.ipynb", {"env": {"A": "1"}}, Prefer="respond-async").json()["id"]
    followed = server.client.get(f"runs/{running}").json()
    assert followed["status"] == "running"
    # The run before, and the first cell of this one.
    server.until(lambda: server.saved() == 2)

    server.kill()
    server.start()

    closed = server.client.get(f"runs/{running}", params={"wait": 60}).json()
    assert (closed["status"], closed["error"]["code"]) == ("failed", "server_stopped")
    assert closed["outputs"][0]["text"] == "saved\n"
    assert closed["ended"] is not None
    assert "never" not in json.dumps(closed)
    events = server.events(running)
    ids = [number for number, _, _ in events]
    assert ids == sorted(set(ids))
    assert [kind for _, kind, _ in events].count("end") == 1
    assert events[-1] == (ids[-1], "end", closed)
    assert server.events(running, after=ids[2]) == events[3:]
    # Who had seen more than was saved is told the end.
    assert [kind for _, kind, _ in server.events(running, after=10**6)] == ["end"]
    notebook = server.client.get(f"runs/{running}/notebook").json()
    assert notebook["cells"][0]["outputs"]

    for run in (queued, waited.json()["id"]):
        ended = server.client.get(f"runs/{run}", params={"wait": 60}).json()
        assert (ended["status"], ended["result"]) == ("succeeded", 5)
        assert server.events(run)[-1][2] == ended
    lost = server.client.get(f"runs/{with_env}", params={"wait": 60}).json()
    assert (lost["status"], lost["error"]["code"], lost["started"]) == ("failed", "server_stopped", None)
    assert trace.read_text() == "aLaa"

    # Keys are kept as long as their runs.
    for key, run in (("before", before["id"]), ("queued", queued)):
        again = server.submit("a.ipynb", Idempotency_Key=key)
        assert (again.status_code, again.json()["id"]) == (200, run)
        assert again.headers["Idempotency-Replayed"] == "true"
    again = server.submit("long.ipynb", Idempotency_Key="running")
    assert (again.status_code, again.json()["id"]) == (503, running)
    assert server.submit("a.ipynb", {"timeout": 5}, Idempotency_Key="before").status_code == 422
    assert server.client.get(f"runs/{before['id']}").json() == before
    assert trace.read_text() == "aLaa"
    statuses = {run["status"] for run in server.client.get("runs").json()["runs"]}
    assert statuses == {"succeeded", "failed"}


def test_stopped(server: Restarted) -> None:
    """A server that was asked to end leaves what is queued to the next one, and nothing running."""
    server.write(
        "long.ipynb", f"open({str(server.root / 'started')!r}, 'w').close()\nimport time\ntime.sleep(600)"
    )
    server.write("a.ipynb", "5")
    running = server.submit("long.ipynb", Prefer="respond-async").json()["id"]
    server.wait_for("started")
    queued = [server.submit("a.ipynb", Prefer=prefer).json()["id"] for prefer in ("respond-async", "wait=0")]
    server.stop()
    server.start()
    closed = server.client.get(f"runs/{running}").json()
    assert (closed["status"], closed["error"]["code"]) == ("failed", "server_stopped")
    for run in queued:
        assert server.client.get(f"runs/{run}", params={"wait": 60}).json()["result"] == 5
