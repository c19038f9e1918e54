"""What the browser tests share: the built front end, a browser, JupyterLab and Notebook as real processes."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests import processes
from tests.ui.application import Lab, Notebook7, Server

ROOT = Path(__file__).parents[2]
#: Seconds a server may take to come up.
DEADLINE = 90.0
#: Whose JupyterLab and Notebook are tried: those of another environment may be older.
PYTHON = os.environ.get("NBEXEC_UI_PYTHON", sys.executable)
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "jupyter-nbexec/plugin": {"historySize": 500},
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark these tests: what drives the browser keeps an event loop running beside all later tests."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("browser")


@pytest.fixture(scope="session")
def front_end() -> None:
    """Build the front end where that was not done, and link it into this environment."""
    command = [sys.executable, str(ROOT / "scripts" / "build_backend.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or another on the PATH. Without one, tests are skipped, except with CI=true."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        message = "Chromium is not installed"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(front_end: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`jupyter lab`, a real process with the installed configuration."""
    options = ["--LabApp.expose_app_in_browser=True", "--NbExec.fork_kernels=True"]
    with serving("lab", tmp_path_factory.mktemp("lab"), *options) as server:
        yield server


@pytest.fixture(scope="session")
def server_of_notebook7(front_end: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`jupyter notebook`, likewise."""
    with serving("notebook", tmp_path_factory.mktemp("notebook")) as server:
        yield server


@contextlib.contextmanager
def serving(application: str, folder: Path, *options: str) -> Iterator[Server]:
    """Start an application with folders of its own, and end it."""
    root = folder / "root"
    root.mkdir()
    for example in (ROOT / "examples").iterdir():
        shutil.copy(example, root)
    for name, values in SETTINGS.items():
        file = folder / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    token = secrets.token_hex(16)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")},
        "PATH": f"{Path(PYTHON).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "HOME": str(folder),
        "JUPYTER_TOKEN": token,
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    command = [PYTHON, "-m", "jupyter", application, "--no-browser", "--allow-root", "--port=0"]
    command += [f"--ServerApp.root_dir={root}", "--NbExec.max_concurrent_runs=2", *options]
    # Kernels of open notebooks would have ports, which the servers of two workers take from one another;
    # the names of socket files have to be short.
    command += ["--KernelManager.transport=ipc"]
    short = tempfile.TemporaryDirectory(prefix="nbexec-ui-", ignore_cleanup_errors=True)
    with short as runtime, (folder / "log").open("wb") as log:
        environment["JUPYTER_RUNTIME_DIR"] = runtime
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            url = wait_for(process, Path(runtime), folder / "log")
            yield Server(url=url, token=token, root=root, folder=folder)
        finally:
            processes.end(process, folder / "log")


def wait_for(process: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    """Return the address of the server, once it answers."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            url = str(json.loads(file.read_text(encoding="utf-8"))["url"]).rstrip("/")
            try:
                httpx.get(f"{url}/api", timeout=5)
            except httpx.HTTPError:
                continue
            return url
        time.sleep(0.1)
    pytest.fail(f"The server did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-4000:]}")


@pytest.fixture(scope="session")
def page_of_lab(server: Server, browser: Browser) -> Iterator[Lab]:
    """JupyterLab in a browser, for all tests."""
    with opened(server, browser) as lab:
        yield lab


@pytest.fixture
def lab_to_reload(server: Server, browser: Browser) -> Iterator[Lab]:
    """JupyterLab for one test: what was open is opened again after a reload, at some time."""
    with opened(server, browser) as lab:
        yield lab
        assert lab.take_errors() == []


@contextlib.contextmanager
def opened(server: Server, browser: Browser) -> Iterator[Lab]:
    """Open JupyterLab in a window of its own."""
    context = browser.new_context()
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    lab = Lab(context.new_page(), server)
    lab.start()
    yield lab
    context.close()


@pytest.fixture
def lab(page_of_lab: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """JupyterLab with nothing open in it."""
    yield page_of_lab
    if request.node.stash.get(FAILED, False):
        keep_picture(page_of_lab.page, request.node.name)
        # Whatever it has left, the next test begins with a page of its own.
        page_of_lab.start()
        page_of_lab.take_errors()
    else:
        page_of_lab.close_all()
        assert page_of_lab.take_errors() == []


@pytest.fixture(scope="session")
def notebook7(server_of_notebook7: Server, browser: Browser) -> Iterator[Notebook7]:
    """Notebook 7 in a browser."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield Notebook7(context.new_page(), server_of_notebook7)
    context.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether a test has failed, and show what its servers have said last."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    if report.failed:
        for name, value in item.funcargs.items():  # type: ignore[attr-defined]
            server = value if isinstance(value, Server) else getattr(value, "server", None)
            if isinstance(server, Server):
                log = (server.folder / "log").read_text(encoding="utf-8", errors="replace")
                report.sections.append((f"log of the server of {name}", log[-4000:]))
    return report


FAILED = pytest.StashKey[bool]()


def keep_picture(page: Page, name: str) -> None:
    """Take a picture of what a failed test has seen, for whoever looks for the reason."""
    folder = os.environ.get("NBEXEC_PICTURES")
    if folder:
        page.screenshot(path=f"{folder}/{name}.png")
