"""The files in `deploy/` are right, as far as a machine without Docker and systemd can tell."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nbformat
import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from jupyter_nbexec import app, errors
from tests import deployment, gateways, served
from tests.deployment import DEADLINE, DEPLOY, HOST, Deployed

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
#: Prints, then waits for a file.
WAITING = (
    "print('first', flush=True)",
    "import pathlib, time\nwhile not pathlib.Path('gate').exists():\n    time.sleep(0.05)",
    "'done'",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The server as the systemd unit starts it."""
    folder = tmp_path_factory.mktemp("unit")
    token = secrets.token_hex(16)
    (folder / "credentials").mkdir()
    (folder / "credentials" / "token").write_text(token, "utf-8")
    port = gateways.free_port()
    command, environment = deployment.unit(folder, port)
    with deployment.serving(folder, command, environment, port=port, token=token) as server:
        shutil.copy(EXAMPLES / "sum.ipynb", server.root)
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in WAITING])
        (server.root / "waiting").mkdir()
        nbformat.write(notebook, server.root / "waiting" / "a.ipynb")
        yield server


@pytest.fixture(scope="module")
def proxy(server: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """nginx in front of it."""
    with deployment.proxying(tmp_path_factory.mktemp("nginx"), server) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Deployed) -> Iterator[httpx.Client]:
    """A client of nginx."""
    with proxy.connect() as client:
        yield client


def test_unit_is_valid(tmp_path: Path) -> None:
    """systemd has nothing to say against the unit, but that its program is not installed here."""
    text = (DEPLOY / "jupyter-nbexec.service").read_text("utf-8")
    unit = tmp_path / "jupyter-nbexec.service"
    unit.write_text(text.replace("/opt/jupyter-nbexec/bin/jupyter", sys.executable), "utf-8")
    analyze = deployment.program("systemd-analyze")
    for command in (["verify"], ["security", "--offline=yes", "--threshold=20"]):
        done = subprocess.run(
            [analyze, *command, str(unit)], capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_unit_gives_the_server_time_to_stop() -> None:
    """systemd kills no server that still drains: its patience is more than what the server may take."""
    text = (DEPLOY / "jupyter-nbexec.service").read_text("utf-8")
    (patience,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    (drain,) = re.findall(r"--NbExec.drain_timeout=(\d+)", text)
    assert int(patience) > int(drain) + app.NbExec.stop_timeout.default_value + 10


def test_dockerfile_is_clean() -> None:
    """hadolint has nothing to say; it also wants the last user not to be root."""
    lint = Path(sys.executable).with_name("hadolint")
    command = [str(lint), "--no-color", str(DEPLOY / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_dockerfile_has_what_it_copies() -> None:
    """What the image is made of is there, and in the build's context, and the rest of the work is not."""
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    included = {line[1:] for line in ignored if line.startswith("!")}
    for copied in re.findall(r"^COPY (?:--chown=\S+ )?([\w/.]+) ", text, re.MULTILINE):
        assert copied == "." or copied in included
    assert [path for path in included if not (DEPLOY.parent / path).exists()] == []
    assert ignored[1] == "*"
    # What a build of the wheel reads.
    assert {"pyproject.toml", "README.md", "LICENSE", "jupyter-config", "scripts", "ui"} <= included


def test_command_of_the_container(tmp_path: Path) -> None:
    """What the container starts is a server that runs its notebooks, at the port that $PORT says."""
    token, port = secrets.token_hex(16), gateways.free_port()
    command, environment = deployment.container(tmp_path, token, port)
    with deployment.serving(tmp_path, command, environment, port=port, token=token) as server:
        shutil.copy(EXAMPLES / "sum.ipynb", server.root)
        with server.connect() as client:
            answer = client.post("/api/nbexec/sum.ipynb", json={"parameters": {"a": 20, "b": 22}})
    assert (answer.status_code, answer.json()["result"]) == (200, 42)


def test_behind_cloud_run(tmp_path: Path) -> None:
    """As the page on deploying says, a call is let in by Cloud Run alone, whose token is not Jupyter's."""
    arguments = documented_arguments("server")
    port = gateways.free_port()
    _, environment = deployment.container(tmp_path, "not asked for", port)
    del environment["JUPYTER_TOKEN"]
    command = ["jupyter", *arguments.split(",")]
    with deployment.serving(tmp_path, command, environment, port=port, token="") as server:
        shutil.copy(EXAMPLES / "sales.ipynb", server.root)
        shutil.copy(EXAMPLES / "sales.csv", server.root)
        headers = {
            "Authorization": "Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
            "Content-Type": "application/json",
        }
        url = f"{server.url}/api/nbexec/sales.ipynb"
        body = '{"parameters": {"region": "EU"}}'
        answer = httpx.post(url, headers=headers, content=body, timeout=DEADLINE, trust_env=False)
    assert (answer.status_code, answer.json()["result"]["region"]) == (200, "EU")


def test_endpoints_behind_cloud_run(tmp_path: Path) -> None:
    """The same for endpoints alone: $PORT is known, and the server answers by whatever name it is called."""
    shutil.copy(EXAMPLES / "house_prices.ipynb", tmp_path)
    arguments = documented_arguments("nbexec").split(",")
    assert arguments[:2] == ["nbexec", "serve"]
    port = gateways.free_port()
    headers = {"Authorization": "Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "Host": HOST}
    with served.serving(tmp_path, *arguments[2:], port=port, token="", PORT=str(port)) as server:
        answer = server.request("POST", "/get_price", headers=headers, json={})
    assert (answer.status_code, len(answer.json()["errors"])) == (400, 8)


def documented_arguments(command: str) -> str:
    """What the page on deploying gives a container, after `jupyter`."""
    text = (ROOT / "docs" / "deploying.md").read_text("utf-8")
    (found,) = re.findall(rf"--args=({command},[^\s`]+)", text)
    return str(found)


def test_plain_http_leads_to_tls(proxy: Deployed) -> None:
    """nginx sends those who come without TLS to where it is."""
    url = (proxy.log.parent / "http.url").read_text("utf-8")
    answer = httpx.get(f"{url}/api/nbexec/runs?limit=1", headers={"Host": HOST}, trust_env=False)
    assert answer.status_code == 308
    assert answer.headers["Location"] == f"https://{HOST}/api/nbexec/runs?limit=1"


def test_run_through_nginx(client: httpx.Client) -> None:
    """A run goes through nginx as it is; so does a refusal. Bodies that are too large do not."""
    answer = client.post("/api/nbexec/sum.ipynb", json={"parameters": {"a": 20, "b": 22}})
    assert (answer.status_code, answer.json()["result"]) == (200, 42)
    refused = client.post("/api/nbexec/sum.ipynb", json={"parameters": {"a": "much"}})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_parameter")
    refused = client.post("/api/nbexec/sum.ipynb", content=b"x" * (17 << 20))
    assert (refused.status_code, refused.headers["Content-Type"]) == (413, "application/json")
    assert refused.json() == {
        "message": errors.BodyTooLarge().message,
        "reason": None,
        "code": errors.BodyTooLarge.code,
    }


def test_bodies_may_be_as_large_as_the_server_takes() -> None:
    """nginx and the server refuse bodies from the same size on."""
    (size,) = re.findall(r"client_max_body_size (\d+)m;", (DEPLOY / "nginx.conf").read_text("utf-8"))
    assert int(size) << 20 == app.NbExec.max_body_bytes.default_value


def test_the_server_knows_of_tls(client: httpx.Client) -> None:
    """Its cookies are for TLS alone, though nginx talks to it without."""
    (login,) = [
        cookie
        for cookie in client.get("/api/nbexec/docs").headers.get_list("Set-Cookie")
        if cookie.startswith("username-")
    ]
    assert "Secure" in login.split("; ")


def test_events_come_as_they_happen(client: httpx.Client, proxy: Deployed) -> None:
    """The first output is read through nginx while the run is still waiting for what its reader does next."""
    gate = proxy.root / "waiting" / "gate"
    accept = {"Accept": "text/event-stream"}
    with client.stream("POST", "/api/nbexec/waiting/a.ipynb", headers=accept) as stream:
        lines = stream.iter_lines()
        assert any('"first\\n"' in line for line in lines)
        gate.touch()
        assert "event: end" in list(lines)
    gate.unlink()


def test_hanging_up_cancels_the_run(proxy: Deployed) -> None:
    """nginx lets the server know of a client that is gone, so that its run ends."""
    with (
        proxy.connect() as client,
        client.stream(
            "POST", "/api/nbexec/waiting/a.ipynb", headers={"Accept": "text/event-stream"}
        ) as stream,
    ):
        first = next(line for line in stream.iter_lines() if line.startswith("data: "))
        run = json.loads(first.removeprefix("data: "))["id"]
    with proxy.connect() as client:
        assert ended(client, run)["status"] == "cancelled"


def ended(client: httpx.Client, run: str) -> dict[str, Any]:
    """The run, once it has ended."""
    found: dict[str, Any] = client.get(f"/api/nbexec/runs/{run}", params={"wait": 50}).json()
    return found


def test_websocket(client: httpx.Client, proxy: Deployed) -> None:
    """The websocket of a kernel works through nginx: a message goes there, and an answer comes back."""
    kernel = client.post("/api/kernels", json={}).json()["id"]
    asyncio.run(asyncio.wait_for(talk(proxy, kernel), DEADLINE))
    assert client.delete(f"/api/kernels/{kernel}").status_code == 204


async def talk(proxy: Deployed, kernel: str) -> None:
    """Ask a kernel what it is, until it has answered."""
    url = f"{proxy.url.replace('https', 'wss')}/api/kernels/{kernel}/channels"
    headers = {"Authorization": f"token {proxy.token}", "Host": HOST}
    connection = await websocket_connect(HTTPRequest(url, headers=headers, ssl_options=proxy.context))
    header = {"msg_type": "kernel_info_request", "msg_id": uuid.uuid4().hex, "username": "", "session": "s"}
    message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": {}}
    await connection.write_message(json.dumps(message))
    while True:
        received = await connection.read_message()
        assert received is not None
        answer = json.loads(received)
        if answer["parent_header"].get("msg_id") == header["msg_id"] and answer["channel"] == "shell":
            assert answer["content"]["status"] == "ok"
            break
    connection.close()
    # The socket is open until the other side has agreed.
    while await connection.read_message() is not None:
        pass


def test_token_is_not_logged(client: httpx.Client, proxy: Deployed, server: Deployed) -> None:
    """A token in a URL is in neither log."""
    path = f"/api/nbexec/sum.ipynb?token={proxy.token}"
    answer = httpx.get(
        f"{proxy.url}{path}", headers={"Host": HOST}, verify=proxy.context or False, trust_env=False
    )
    assert answer.status_code == 200
    line = "GET /api/nbexec/sum.ipynb HTTP/1.1"
    # nginx writes it after the answer.
    deployment.wait_until(lambda: line in proxy.log.read_text("utf-8"))
    assert proxy.token not in proxy.log.read_text("utf-8") + server.log.read_text("utf-8")
