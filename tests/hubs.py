"""A real JupyterHub with its proxy, configured as `docs/jupyterhub.md` says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest

from tests import gateways, processes, served

PAGE = Path(__file__).parents[1] / "docs" / "jupyterhub.md"
URL = "https://hub.example.com"
#: Seconds that anything may take.
DEADLINE = 120.0
ADMIN, REPORTS, PRICES = "an-admin-s-token", "a-report-s-token", "a-price-s-token"
#: What the page leaves to who installs a Hub: places, who logs in how, and where servers run.
_OWN = """
c.JupyterHub.bind_url = {url!r}
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie_secret"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allowed_users = {{"alice", "bob", "carol"}}
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/{{username}}"
c.ConfigurableHTTPProxy.command = {proxy!r}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.Spawner.args += ["--allow-root", "--NbExec.kernel_niceness=0"]
c.Spawner.environment = {{"JUPYTERHUB_ACTIVITY_INTERVAL": "1"}}
c.Spawner.http_timeout = {patience}
for service in c.JupyterHub.services:
    service.update({{"timeout": {patience}}} if "url" in service else {{}})
c.JupyterHub.services += [{{"name": "admin", "api_token": {admin!r}}}]
c.JupyterHub.load_roles += [
    {{"name": "tests", "scopes": ["admin:users", "admin:servers", "tokens"], "services": ["admin"]}}
]
"""

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Hub:
    """A running Hub, on which alice's server runs, and no other."""

    url: str
    folder: Path
    process: psutil.Process

    @property
    def home(self) -> Path:
        """The folder of alice's notebooks."""
        return self.folder / "alice"

    @property
    def log(self) -> str:
        """What the Hub, its proxy and all servers have said."""
        return (self.folder / "log").read_text("utf-8")

    def connect(self, token: str = "", **options: Any) -> httpx.Client:
        """Talk to it, by a token where one is given."""
        headers = {"Authorization": f"token {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=DEADLINE, **options)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the Hub itself, as its administrator."""
        with self.connect(ADMIN) as admin:
            answer = admin.request(method, f"/hub/api{path}", json=body).raise_for_status()
        return answer.json() if answer.content else None

    def token(self, user: str, *scopes: str) -> str:
        """Make a token."""
        made = self.api("POST", f"/users/{user}/tokens", {"scopes": scopes, "expires_in": 3600})
        return str(made["token"])

    @contextlib.contextmanager
    def logged_in(self, user: str) -> Iterator[tuple[httpx.Client, str]]:
        """Log in by the Hub's page, and open alice's server: the browser, and its XSRF token there."""
        with self.connect(follow_redirects=True) as browser:
            browser.get("/hub/login").raise_for_status()
            form = {"username": user, "password": "any", "_xsrf": cookie(browser, "/hub/")}
            browser.post("/hub/login", params={"next": "/hub/home"}, data=form).raise_for_status()
            browser.get("/user/alice/api/nbexec/docs", headers={"Accept": "text/html"}).raise_for_status()
            yield browser, cookie(browser, "/user/alice/")

    @property
    def server(self) -> psutil.Process:
        """The process of alice's server."""
        below = self.process.children(recursive=True)
        return next(each for each in below if any("jupyterhub-singleuser" in word for word in each.cmdline()))


def cookie(browser: httpx.Client, path: str) -> str:
    """The XSRF token that a browser has for a path."""
    kept = browser.cookies.jar
    return next(str(each.value) for each in kept if (each.name, each.path) == ("_xsrf", path))


def config() -> str:
    """All that the page says is in `jupyterhub_config.py`."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return "\n".join(block for block in blocks if block.startswith("# jupyterhub_config.py\n"))


def commands() -> list[str]:
    """The commands on the page, a block each."""
    return re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Hub]:
    """Run a Hub, and on it alice's server."""
    hub_port, proxy_port, service_port, port = (gateways.free_port() for _ in range(4))
    url = f"http://127.0.0.1:{port}"
    prices = served.write(
        folder / "prices.ipynb", "# GET /price\nprint(42)", "# GET /names\nimport os\nprint(*os.environ)"
    )
    text = config().replace("9090", str(service_port)).replace("/srv/notebooks/prices.ipynb", str(prices))
    text += _OWN.format(
        patience=int(DEADLINE),
        url=url,
        folder=folder,
        hub_port=hub_port,
        proxy=_proxy(),
        proxy_port=proxy_port,
        admin=ADMIN,
    )
    (folder / "jupyterhub_config.py").write_text(text, encoding="utf-8")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "KG_"))},
        "REPORTS_TOKEN": REPORTS,
        "PRICES_TOKEN": PRICES,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub"], cwd=folder, env=environment, stdout=log, stderr=log
        )
    hub = Hub(url=url, folder=folder, process=psutil.Process(process.pid))
    below: list[psutil.Process] = []
    try:
        wait(lambda: process.poll() is None and _is_up(hub), hub)
        hub.home.mkdir(exist_ok=True)
        start(hub)
        below = hub.process.children(recursive=True)
        yield hub
    finally:
        # Servers may have been started anew meanwhile.
        if process.poll() is None:
            below = list({*below, *hub.process.children(recursive=True)})
        processes.end(process, folder / "log")
        _, left = psutil.wait_procs(below, DEADLINE)
        for each in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    assert left == []


def start(hub: Hub) -> None:
    """Start alice's server, and wait until it is there."""
    hub.api("POST", "/users/alice/server")
    with hub.connect(ADMIN) as admin, admin.stream("GET", "/hub/api/users/alice/server/progress") as events:
        said = [json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: ")]
    assert said[-1].get("ready"), hub.log[-5000:]


def wait(condition: Callable[[], _T], hub: Hub) -> _T:
    """Wait until something is so; what it is."""
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"it does not come to this:\n{hub.log[-5000:]}")
        time.sleep(0.05)
    return found


def _is_up(hub: Hub) -> bool:
    """Whether the Hub answers, and the service that it has started."""
    with contextlib.suppress(httpx.TransportError), hub.connect(PRICES) as client:
        return client.get("/hub/api/").is_success and client.get("/services/prices/price").is_success
    return False


def _proxy() -> list[str]:
    """The command of the Hub's proxy. Without it, tests are skipped, except with CI=true."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    node, script = (shutil.which(name, path=path) for name in ("node", "configurable-http-proxy"))
    if node is None or script is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "configurable-http-proxy is not installed"
        )
    # PyPI's `node` is a program that starts another, which would outlive it.
    real = subprocess.run([node, "-p", "process.execPath"], capture_output=True, text=True, check=True)
    return [real.stdout.strip(), script]
