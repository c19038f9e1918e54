"""The extension in the programs that people start, as they find it after `pip install`."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import nbformat
import psutil
import pytest

from tests import processes

DEADLINE = 90.0
#: What the kernel of a run is known by.
KERNEL = "ipykernel_launcher"


@contextmanager
def program(name: str, folder: Path, *options: str) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    """Start `jupyter <name>` on a free port; a client for it, and its process."""
    root = folder / "root"
    root.mkdir(exist_ok=True)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("JUPYTER")},
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_TOKEN": "open sesame",
        "SERVERS_OWN": "kept",
    }
    command = [sys.executable, "-m", "jupyter", name, "--no-browser", "--allow-root", "--ServerApp.port=0"]
    command += [f"--ServerApp.root_dir={root}", *options]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        url = _url(process, folder)
        headers = {"Authorization": "token open sesame"}
        with httpx.Client(base_url=url, headers=headers, timeout=DEADLINE, trust_env=False) as client:
            yield client, process
    finally:
        processes.end(process, folder / "log", deadline=30.0)


def _url(process: subprocess.Popen[bytes], folder: Path) -> str:
    info = folder / "runtime" / f"jpserver-{process.pid}.json"
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            url = str(json.loads(info.read_text())["url"])
            httpx.get(f"{url}api", trust_env=False)
        except (FileNotFoundError, ValueError, httpx.TransportError):
            time.sleep(0.05)
        else:
            return url
    raise RuntimeError((folder / "log").read_text())


def write(folder: Path, name: str, *cells: str) -> None:
    """Save a notebook of code cells."""
    made = [nbformat.v4.new_code_cell(cell) for cell in cells]
    made[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=made), folder / "root" / name)


def kernels_below(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The kernels that a server runs, and all they have started."""
    return [each for each in psutil.Process(process.pid).children(recursive=True) if each.is_running()]


def wait_for(condition: object, seconds: float = 20.0) -> bool:
    """Wait for what another process does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("name", ["server", "lab", "notebook"])
def test_program(name: str, tmp_path: Path) -> None:
    """A notebook is run, in each program that stands on Jupyter Server, below a base URL."""
    with program(name, tmp_path, "--ServerApp.base_url=/team a/".replace(" ", "-")) as (client, _):
        write(tmp_path, "übung #1.ipynb", "x = 1", "import os\n[x + 1, 'JUPYTER_TOKEN' in os.environ]")
        answer = client.post("api/nbexec/%C3%BCbung%20%231.ipynb", json={"parameters": {"x": 41}})

        assert answer.status_code == 200, answer.text
        assert answer.json()["result"] == [42, False]
        assert client.get("api/kernels").json() == []


def test_terminated_during_a_run(tmp_path: Path) -> None:
    """A server that is told to stop answers the client that waits, and leaves no kernel."""
    with program("server", tmp_path) as (client, process):
        write(tmp_path, "slow.ipynb", "pass", "open('up', 'w').close()\nimport time; time.sleep(300)")
        with _waiting(client, process, tmp_path) as waiting:
            kernels = kernels_below(process)
            process.terminate()
            body, _ = waiting.communicate(timeout=30)

        assert process.wait(timeout=30) == 0
        assert json.loads(body)["error"]["code"] == "server_stopped"
        assert kernels
        assert wait_for(lambda: not any(kernel.is_running() for kernel in kernels))


def test_terminated_while_requests_wait(tmp_path: Path) -> None:
    """A server that is told to stop ends, whatever requests wait for: a notebook, the rest of a body."""
    over = threading.Event()
    refused: list[int] = []
    with program("server", tmp_path) as (client, process):

        def ask(path: str) -> None:
            with contextlib.suppress(httpx.TransportError):
                while not over.is_set() and process.poll() is None:
                    refused.append(httpx.get(client.base_url.join(path), **options).status_code)

        def write_for_ever() -> None:
            while not over.is_set() and process.poll() is None:
                (tmp_path / "root" / "torn.ipynb").write_text('{"cells": [')
                over.wait(0.05)

        options: Any = {"headers": client.headers, "timeout": DEADLINE, "trust_env": False}
        # A notebook that is being written is read again until it is whole, or for some seconds.
        paths = ["api/nbexec/torn.ipynb/x"] * 3
        threads = [threading.Thread(target=write_for_ever)]
        threads += [threading.Thread(target=ask, args=(path,)) for path in paths]
        host, port = client.base_url.host, client.base_url.port
        with socket.create_connection((host, port or 80)) as half:
            head = "POST /api/nbexec/slow.ipynb HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
            half.sendall(f"{head}Authorization: token open sesame\r\n\r\n{{".encode())
            for thread in threads:
                thread.start()
            try:
                assert wait_for(lambda: len(refused) > 3, DEADLINE)
                process.terminate()
                assert process.wait(timeout=30) == 0
            finally:
                over.set()
                for thread in threads:
                    thread.join(DEADLINE)

    assert set(refused) <= {404, 422, 503}
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_killed_during_a_run(tmp_path: Path) -> None:
    """A server that is killed takes its kernels along, and what they started in other sessions."""
    code = (
        "import subprocess, ctypes\n"
        "subprocess.Popen(['sleep', '300'], start_new_session=True, env={})\n"
        "open('up', 'w').close()\nctypes.PyDLL(None).sleep(300)"
    )
    with program("server", tmp_path) as (client, process):
        write(tmp_path, "slow.ipynb", "pass", code)
        with _waiting(client, process, tmp_path):
            below = kernels_below(process)
            process.kill()
            process.wait(timeout=30)

            assert len(below) >= 2
            assert wait_for(lambda: not any(each.is_running() for each in below))


def test_hang_up(tmp_path: Path) -> None:
    """A client that hangs up ends its run, and the kernel."""
    with program("server", tmp_path) as (client, process):
        write(tmp_path, "slow.ipynb", "pass", "open('up', 'w').close()\nimport time; time.sleep(300)")
        with _waiting(client, process, tmp_path) as waiting:
            waiting.kill()

        assert wait_for(lambda: client.get("api/kernels").json() == [])
        assert wait_for(lambda: kernels_below(process) == [])


@contextmanager
def _waiting(
    client: httpx.Client, process: subprocess.Popen[bytes], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for the answer of `slow.ipynb`, which is being executed."""
    code = (
        "import sys, httpx; print(httpx.post(sys.argv[1], headers={'Authorization': 'token open sesame'},"
        " timeout=None, trust_env=False).text)"
    )
    url = str(client.base_url.join("api/nbexec/slow.ipynb"))
    waiting = subprocess.Popen(
        [sys.executable, "-c", code, url], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert wait_for((folder / "root" / "up").exists, 60), (folder / "log").read_text()
        yield waiting
    finally:
        waiting.kill()
        waiting.communicate(timeout=10)
