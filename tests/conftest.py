"""What several test files share: real servers, of Jupyter and of PostgreSQL, and asyncio for async tests."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import hypothesis
import pytest

from tests import gateways, processes, sources
from tests.postgresql import Cluster, running

#: Seconds a server may take to come up.
DEADLINE = 60.0
# Servers that tests start say where they stand when they are aborted, as `processes` does if they do not end.
os.environ.setdefault("PYTHONFAULTHANDLER", "1")

# Its deadline of 0.2 s for an example tells how busy the machine is, not whether the example is right.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marks of tests that run on every source of kernels, seldom, or with no others beside."""
    config.addinivalue_line("markers", "alone: needs the machine for itself: `make test` runs it last")
    config.addinivalue_line("markers", "browser: those of tests/ui, which `make test` runs apart")
    config.addinivalue_line("markers", "campaign: the short form of a long one: `make test` runs them apart")
    config.addinivalue_line("markers", "long: only with `make test-sources`")
    config.addinivalue_line("markers", "sources: run with every source of kernels (tests/sources.py)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked so once with every source of kernels."""
    if "kernel_source" in metafunc.fixturenames and metafunc.definition.get_closest_marker("sources"):
        metafunc.parametrize("kernel_source", sources.NAMES, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not for a source."""
    is_short = sources.NAMES != sources.ALL
    left_out = [
        item for item in items if _is_left_out(item) or (is_short and item.get_closest_marker("long"))
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def _is_left_out(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    if not isinstance(item, pytest.Function) or callspec is None:
        return False
    name = callspec.params.get("kernel_source")
    if name is None:
        return False
    own = callspec.id.removeprefix(name).removesuffix(name).strip("-")
    return sources.is_excluded(name, f"{item.path.name}::{item.originalname}[{own}]")


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gateways.Gateway]:
    """A gateway for all tests that only use it; afterwards it has no kernels."""
    options = [
        # Its kernels that do not heed are killed sooner; and it says all they say.
        "--KernelManager.shutdown_wait_time=1",
        "--ZMQChannelsWebsocketConnection.limit_rate=False",
        f"--JupyterWebsocketPersonality.env_whitelist={sources.ENVIRONMENT.split(',')!r}",
        "--KernelGatewayApp.env_process_whitelist=IPYTHONDIR",
    ]
    with gateways.running(tmp_path_factory.mktemp("gateway"), *options) as gateway:
        yield gateway
        assert gateway.kernels == []


@pytest.fixture
def kernel_source(request: pytest.FixtureRequest) -> Iterator[sources.Source]:
    """Where kernels come from: a cold start, where the test does not say otherwise."""
    name = getattr(request, "param", "cold")
    if name == "remote":
        source: sources.Source = sources.Remote(request.getfixturevalue("gateway"))
    else:
        source = sources.SOURCES[name]()
    yield source
    source.close()


@pytest.fixture
def anyio_backend() -> str:
    """The only event loop that Jupyter Server runs on."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A PostgreSQL server of the tests' own. Without one, tests are skipped, except with CI=true."""
    with running() as cluster:
        if cluster is None and os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL is not installed")
        if cluster is None:
            pytest.skip("PostgreSQL is not installed")
        yield cluster


@dataclass(frozen=True, kw_only=True)
class LiveServer:
    """A `jupyter server` process with the extension."""

    url: str  #: with the base URL, without a slash at the end
    token: str
    root: Path
    pid: int
    log: Path


@pytest.fixture(scope="session")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One real server process for all tests that only talk to it."""
    folder = tmp_path_factory.mktemp("live server")
    root = tmp_path_factory.mktemp("live root")
    token = secrets.token_hex(16)
    # The installed configuration must do: the extension is not enabled by hand here.
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")},
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_TOKEN": token,
    }
    command = [
        *(sys.executable, "-m", "jupyter", "server", "--no-browser", "--allow-root"),
        *("--ServerApp.port=0", f"--ServerApp.root_dir={root}", "--ServerApp.base_url=/a%40b/"),
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        url = _wait_for(process, folder, token)
        yield LiveServer(url=url, token=token, root=root, pid=process.pid, log=folder / "log")
    finally:
        processes.end(process, folder / "log")


def _wait_for(process: subprocess.Popen[bytes], folder: Path, token: str) -> str:
    """Wait until the server answers; its URL."""
    info = folder / "runtime" / f"jpserver-{process.pid}.json"
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            url = str(json.loads(info.read_text())["url"]).rstrip("/")
            headers = {"Authorization": f"token {token}"}
            if httpx.get(f"{url}/api/status", headers=headers, trust_env=False).status_code == 200:
                return url
        except (FileNotFoundError, ValueError, httpx.TransportError):
            time.sleep(0.05)
    raise RuntimeError("the server does not come up:\n" + (folder / "log").read_text())
