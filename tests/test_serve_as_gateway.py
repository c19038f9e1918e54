"""Kernel Gateway's options: a real one and `serve` get the same, and do the same."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from kernel_gateway.gatewayapp import KernelGatewayApp  # type: ignore[import-untyped]
from kernel_gateway.notebook_http import NotebookHTTPPersonality  # type: ignore[import-untyped]

from jupyter_nbexec.serve import gateway
from tests import deployment, gateways, processes, served

COMMANDS = {"gateway": gateways.COMMAND, "serve": served.COMMAND}
#: What each says when its kernels can answer calls.
READY = {"gateway": gateways.READY, "serve": "described at"}
CELLS = (
    "import json, os",
    "# GET /where\nprint(os.getcwd())",
    "# GET /who\nprint(os.getpid())",
    "# POST /echo/:name\nsent = json.loads(REQUEST)\nprint(sent['path'], sent['args'], sent['body'])",
)
#: What has nothing to do with its notebook-http mode, or is the machinery's.
ELSEWHERE = {
    *("cookie_secret", "cookie_secret_file", "kernel_manager_class", "kernel_spec_manager_class"),
    *("authorizer_class", "identity_provider_class", "kernel_websocket_connection_class"),
    *(
        "answer_yes",
        "config_file",
        "config_file_name",
        "generate_config",
        "log_datefmt",
        "log_format",
        "log_level",
    ),
    *("logging_config", "show_config", "show_config_json"),
}
TOKEN = "a-token-like-no-other"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where both are started: the notebook is elsewhere, and wants a kernel that is not here."""
    served.write(tmp_path / "notebooks" / "api.ipynb", *CELLS, kernel="not-installed")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("public", "utf-8")
    return tmp_path


@contextlib.contextmanager
def started(
    command: str, folder: Path, url: str, arguments: list[str], verify: Any, **variables: str
) -> Iterator[httpx.Client]:
    """Start one of the two, and wait until it can be talked to."""
    environment = served.environment(folder / command, {**variables, "PYTHONWARNINGS": "ignore"})
    log = folder / f"{command}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*COMMANDS[command], *arguments], env=environment, cwd=folder, stdout=file, stderr=file
        )
    try:
        with httpx.Client(base_url=url, verify=verify, trust_env=False, timeout=served.DEADLINE) as client:
            deadline = time.monotonic() + served.DEADLINE
            # Both listen before their kernels are ready, and say when they are.
            while not (_answers(client) and READY[command] in log.read_text("utf-8")):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command} does not come up:\n{log.read_text()}")
                time.sleep(0.05)
            yield client
    finally:
        processes.end(process, log)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/_api/spec/swagger.json").status_code in (200, 401)
    except httpx.TransportError:
        return False


def observe(client: httpx.Client) -> dict[str, Any]:
    """What a client sees of either."""
    auth = {"Authorization": f"token {TOKEN}"}
    place = client.get("/where", headers=auth)
    echo = client.post("/echo/Ada?rows=1&rows=2", headers=auth, json={"a": 1})
    source = client.get("/_api/source", headers=auth)
    spec = client.get("/_api/spec/swagger.json", headers=auth)
    return {
        "place": (place.status_code, place.text),
        "echo": (echo.status_code, echo.text),
        "source": (source.status_code, ["".join(cell["source"]) for cell in source.json()["cells"]]),
        "static": (client.get("/public/a.txt").status_code, client.get("/public/a.txt").text),
        "no static": client.get("/public/b.txt").status_code,
        "title": spec.json()["info"]["title"].removesuffix(".ipynb"),
        "paths": [path.replace("{name}", ":name") for path in spec.json()["paths"]],
        "token in the URL": client.get(f"/where?token={TOKEN}").status_code,
        "no token": client.get("/where").status_code,
        "wrong token": client.get("/where", headers={"Authorization": "token x"}).status_code,
        "wrong path": client.get("/nope", headers=auth).status_code,
        "wrong verb": client.put("/where", headers=auth).status_code,
        "kernels": len({client.get("/who", headers=auth).text for _ in range(8)}),
    }


def compare(
    folder: Path, arguments: Callable[[int], list[str]], variables: Callable[[int], dict[str, str]], base: str
) -> dict[str, Any]:
    """Start both, each at a port of its own, and see that they are alike; what was seen."""
    seen = {}
    for command in COMMANDS:
        port = gateways.free_port()
        url = f"http://127.0.0.1:{port}{base}"
        with started(command, folder, url, arguments(port), True, **variables(port)) as client:
            seen[command] = observe(client)
            outside = client.get(f"http://127.0.0.1:{port}/where?token={TOKEN}").status_code
            assert outside == (404 if base else 200)
    assert seen["serve"] == seen["gateway"]
    return seen["serve"]


def assert_all_was_understood(seen: dict[str, Any], folder: Path) -> None:
    """Check that it was the options that made both alike."""
    assert seen["place"] == (200, f"{folder}\n")
    assert seen["static"] == (200, "public")
    assert seen["source"] == (200, list(CELLS))
    assert (seen["no token"], seen["wrong token"], seen["token in the URL"]) == (401, 401, 200)
    assert seen["kernels"] == 2


def test_environment(folder: Path) -> None:
    """Every variable for this mode does what it does for Kernel Gateway."""

    def variables(port: int) -> dict[str, str]:
        return {
            "KG_API": "kernel_gateway.notebook_http",
            "KG_IP": "127.0.0.1",
            "KG_PORT": str(port),
            "KG_PORT_RETRIES": "0",
            "KG_BASE_URL": "/base",
            "KG_AUTH_TOKEN": TOKEN,
            "KG_SEED_URI": "notebooks/api.ipynb",
            "KG_PRESPAWN_COUNT": "2",
            "KG_FORCE_KERNEL_NAME": "python3",
            "KG_ALLOW_NOTEBOOK_DOWNLOAD": "True",
            "KG_STATIC_PATH": str(folder / "files"),
            "KG_TRUST_XHEADERS": "True",
            "KG_WS_PING_INTERVAL_SECS": "30",
        }

    seen = compare(folder, lambda _: [], variables, "/base")
    assert_all_was_understood(seen, folder)


def test_command_line(folder: Path) -> None:
    """Every option of the command line too, in its short form where it has one."""

    def arguments(port: int) -> list[str]:
        return [
            "--api=kernel_gateway.notebook_http",
            "--seed_uri=notebooks/api.ipynb",
            "--ip=127.0.0.1",
            f"--port={port}",
            "--port_retries=0",
            f"--KernelGatewayApp.auth_token={TOKEN}",
            "--KernelGatewayApp.prespawn_count=2",
            "--KernelGatewayApp.force_kernel_name=python3",
            "--KernelGatewayApp.trust_xheaders=True",
            "--NotebookHTTPPersonality.allow_notebook_download=True",
            "--NotebookHTTPPersonality.static_path=files",
        ]

    assert_all_was_understood(compare(folder, arguments, lambda _: {}, ""), folder)


def test_configuration_file(folder: Path) -> None:
    """Kernel Gateway's own file of configuration is understood; the command line wins over it."""

    def arguments(port: int) -> list[str]:
        (folder / "kg.py").write_text(
            "c.KernelGatewayApp.api = 'kernel_gateway.notebook_http'\n"
            "c.KernelGatewayApp.seed_uri = 'notebooks/api.ipynb'\n"
            f"c.KernelGatewayApp.port = {port}\n"
            f"c.KernelGatewayApp.auth_token = '{TOKEN}'\n"
            "c.KernelGatewayApp.prespawn_count = 5\n"
            "c.KernelGatewayApp.force_kernel_name = 'python3'\n"
            "c.NotebookHTTPPersonality.allow_notebook_download = True\n"
            f"c.NotebookHTTPPersonality.static_path = '{folder / 'files'}'\n",
            "utf-8",
        )
        return ["--config=kg.py", "--KernelGatewayApp.prespawn_count=2"]

    assert_all_was_understood(compare(folder, arguments, lambda _: {"KG_PRESPAWN_COUNT": "3"}, ""), folder)


def test_tls(folder: Path) -> None:
    """Certificates are given as to Kernel Gateway; who has none of the client's authority is not let in."""
    context = deployment.certify(folder)
    options = ["--certfile=fullchain.pem", "--keyfile=privkey.pem", "--client-ca=fullchain.pem"]
    options += ["--seed_uri=notebooks/api.ipynb", "--KernelGatewayApp.force_kernel_name=python3"]
    options += [
        "--KernelGatewayApp.api=kernel_gateway.notebook_http",
        f"--KernelGatewayApp.auth_token={TOKEN}",
    ]
    known = deployment.certify(folder)
    known.load_cert_chain(str(folder / "fullchain.pem"), str(folder / "privkey.pem"))
    for command in COMMANDS:
        port = gateways.free_port()
        url = f"https://127.0.0.1:{port}"
        with started(command, folder, url, [*options, f"--port={port}"], known) as client:
            answer = client.get("/where", headers={"Authorization": f"token {TOKEN}"})
            assert answer.text == f"{folder}\n", command
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{url}/where", verify=context, trust_env=False)


def test_no_option_is_forgotten() -> None:
    """Each option and variable that Kernel Gateway has for this mode is known."""
    own = {(gateway.APP, name) for name in KernelGatewayApp.class_traits(config=True)}
    own |= {(gateway.NOTEBOOK_HTTP, name) for name in NotebookHTTPPersonality.class_traits(config=True)}
    assert {option for option in own if option[1] not in ELSEWHERE} == set(gateway.OPTIONS)
    for kind, name in ((KernelGatewayApp, gateway.APP), (NotebookHTTPPersonality, gateway.NOTEBOOK_HTTP)):
        for trait in kind.class_traits(config=True):
            variable = getattr(kind, f"{trait}_env", None)
            if variable is not None:
                assert gateway.OPTIONS[name, trait].variable == variable


def test_what_options_mean() -> None:
    """Options become ours; what is not known is named, what concerns websockets is not."""
    given = {
        (gateway.APP, "allow_origin"): "*",
        (gateway.APP, "allow_credentials"): "TRUE",
        (gateway.APP, "trust_xheaders"): "False",
        (gateway.APP, "max_age"): "60",
        (gateway.APP, "prespawn_cuont"): "3",
        ("JupyterWebsocketPersonality", "list_kernels"): "True",
        # Both of its parsers are ours as well.
        (gateway.NOTEBOOK_HTTP, "cell_parser"): "kernel_gateway.notebook_http.swagger.parser",
    }
    meant, unknown = gateway.translate(given)
    assert meant == {
        ("ServerApp", "allow_origin"): "*",
        ("ServerApp", "allow_credentials"): True,
        ("ServerApp", "trust_xheaders"): False,
        ("ServeApp", "max_age"): "60",
    }
    assert unknown == ["KernelGatewayApp.prespawn_cuont"]


def test_what_is_not_understood() -> None:
    """What would be served otherwise than asked for is refused."""
    with pytest.raises(gateway.NotUnderstood, match=r"my\.own\.parser"):
        gateway.translate({(gateway.NOTEBOOK_HTTP, "cell_parser"): "my.own.parser"})
