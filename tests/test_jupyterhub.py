"""The extension behind a real JupyterHub, and what `docs/jupyterhub.md` says of that."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from jupyter_nbexec import cli, client
from tests import hubs, served
from tests.hubs import Hub

ACCESS = "access:servers!user=alice"
START = "servers!user=alice"
RUN = "/user/alice/api/nbexec/sum.ipynb"
RUNS = "/user/alice/api/nbexec/runs"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A Hub with alice's server, which has some notebooks."""
    with hubs.running(tmp_path_factory.mktemp("hub")) as hub:
        shutil.copy(Path(__file__).parents[1] / "examples" / "sum.ipynb", hub.home)
        served.write(hub.home / "endpoint.ipynb", "from pathlib import Path", "# GET /x\nPath('ran').touch()")
        served.write(hub.home / "environment.ipynb", "import os\n{**os.environ}")
        served.write(
            hub.home / "quiet.ipynb",
            "from pathlib import Path\nimport time\nwhile not Path('go on').exists(): time.sleep(0.05)",
        )
        yield hub


# Tokens


def test_scopes(hub: Hub) -> None:
    """`access:servers` for the server lets in, whoever has it; without it a token of its owner does not."""

    def statuses(method: str, *tokens: str) -> list[int]:
        answers = []
        for token in tokens:
            with hub.connect(token) as caller:
                answers.append(caller.request(method, RUN).status_code)
        return answers

    alice, bob = hub.token("alice", ACCESS), hub.token("bob", ACCESS)
    named = hub.token("alice", "access:servers!server=alice/")
    assert statuses("GET", alice, bob, named, hubs.REPORTS) == [200] * 4
    poor = hub.token("alice", "read:users:name!user=alice", START)
    carol = hub.token("carol", "access:servers!user=carol")
    for method in ("GET", "POST"):
        assert statuses(method, poor, carol, hubs.PRICES, "no-token-of-the-hub", "") == [403] * 5
    with hub.connect() as caller:
        assert caller.post(RUN, params={"token": alice}).status_code == 403


def test_links(hub: Hub) -> None:
    """Links in an answer begin with the user's prefix, and lead to the run by way of the proxy."""
    with hub.connect(hub.token("alice", ACCESS)) as caller:
        queued = caller.post(RUN, headers={"Prefer": "respond-async"})
        assert queued.headers["Location"] == f"{RUNS}/{queued.json()['id']}"
        assert set(queued.json()["links"]) == {"self", "events", "notebook"}
        run = caller.get(queued.headers["Location"], params={"wait": 60}).json()
        for link in run["links"].values():
            assert link.startswith(queued.headers["Location"])
            assert caller.get(link).status_code == 200


def test_private_runs(hub: Hub) -> None:
    """With `private_runs` each sees runs of their own, by the Hub's names; so does the server's owner."""
    callers = {"alice": hub.token("alice", ACCESS), "bob": hub.token("bob", ACCESS), "reports": hubs.REPORTS}
    runs: dict[str, str] = {}
    for name, token in callers.items():
        with hub.connect(token) as caller:
            runs[name] = caller.post(RUN, headers={"Idempotency-Key": "the same"}).json()["id"]
    assert len(set(runs.values())) == 3
    for name, token in callers.items():
        with hub.connect(token) as caller:
            seen = caller.get(RUNS, params={"limit": 500}).json()["runs"]
            assert {run["user"] for run in seen} == {name}
            found = {each: caller.get(f"{RUNS}/{run}").status_code for each, run in runs.items()}
            assert found == {each: 200 if each == name else 404 for each in runs}


def test_secrets_of_the_hub(hub: Hub) -> None:
    """A run's environment has none of the tokens with which its server acts at the Hub."""
    secrets = {value for name, value in hub.server.environ().items() if name.endswith("_TOKEN")}
    assert len(secrets) == 1
    with hub.connect(hubs.REPORTS) as caller:
        environment = caller.post("/user/alice/api/nbexec/environment.ipynb").json()["result"]
    assert environment["JUPYTERHUB_USER"] == "alice"
    assert secrets.isdisjoint(environment.values())


def test_a_service_that_serves(hub: Hub) -> None:
    """Notebooks that the Hub has served have a token of their own, which is no user's, and see no token."""
    with hub.connect(hubs.REPORTS) as stranger, hub.connect(hubs.PRICES) as caller:
        assert stranger.get("/services/prices/price").status_code == 401
        names = caller.get("/services/prices/names").raise_for_status().text.split()
    assert "JUPYTERHUB_SERVICE_NAME" in names
    assert [name for name in names if "TOKEN" in name] == []


def test_clients_are_told_of_the_token(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong token is told as such, a missing one as missing, whatever the Hub says of cookies."""
    server = f"{hub.url}/user/alice"
    for token, said in (("wrong", "does not know this token"), ("", "no token was sent")):
        with client.Client(server, token) as caller, pytest.raises(client.RequestRefused, match=said) as got:
            caller.run("sum.ipynb")
        assert got.value.status == 403
        options = ["--token", token] if token else []
        assert cli.main(["describe", "sum.ipynb", "--server", server, *options]) == cli.REFUSED
        assert said in capsys.readouterr().err


def test_a_server_that_sleeps(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """The Hub answers in place of a server that sleeps, and wakes none; clients are told so."""
    bob = f"{hub.url}/user/bob"
    with client.Client(bob, hub.token("bob", "access:servers!user=bob")) as caller:
        for ask in (caller.run, caller.describe):
            with pytest.raises(client.RequestRefused, match="not running"):
                ask("sum.ipynb")
    assert hub.api("GET", "/users/bob")["servers"] == {}


# Cookies


def test_cookies(hub: Hub) -> None:
    """A login takes the XSRF token of the server's own path; the Hub's will not do, nor another origin."""
    with hub.logged_in("alice") as (browser, token):
        for headers, status in (
            ({}, 403),
            ({"X-XSRFToken": hubs.cookie(browser, "/hub/")}, 403),
            ({"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}, 403),
            ({"X-XSRFToken": token}, 200),
            ({"X-XSRFToken": token, "Origin": "https://elsewhere.example.com"}, 404),
        ):
            assert browser.post(RUN, headers=headers).status_code == status, headers


@pytest.mark.parametrize("site", ["same-origin", "cross-site"])
def test_pictures_run_nothing(hub: Hub, site: str) -> None:
    """An endpoint that a page names as a picture is not called, though the Hub lets such requests pass."""
    path = "/user/alice/api/nbexec/endpoint.ipynb/x"
    ran = hub.home / "ran"
    ran.unlink(missing_ok=True)
    headers = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": site, "Sec-Fetch-Dest": "image"}
    referer = {"Referer": f"{hub.url}/user/alice/lab"} if site == "same-origin" else {}
    with hub.logged_in("alice") as (browser, token):
        refused = browser.get(path, headers={**headers, **referer})
        assert (refused.status_code, ran.exists()) == (403, False)
        assert browser.get(path, headers={"X-XSRFToken": token}).status_code == 200


# Culling


def test_activity(hub: Hub) -> None:
    """A long quiet run is activity in the Hub's eyes, by which the culler goes, while nobody asks for it."""

    def last() -> datetime:
        server = hub.api("GET", "/users/alice")["servers"][""]
        return datetime.fromisoformat(server["last_activity"].replace("Z", "+00:00"))

    with hub.connect(hubs.REPORTS) as caller:
        run = caller.post("/user/alice/api/nbexec/quiet.ipynb", headers={"Prefer": "respond-async"}).headers[
            "Location"
        ]
        try:
            hubs.wait(lambda: caller.get(run).json()["status"] == "running", hub)
            # What came of these requests has been told at the latest when it moves for the second time.
            for _ in range(2):
                before = last()
                hubs.wait(lambda before=before: last() > before, hub)  # type: ignore[misc]
        finally:
            (hub.home / "go on").touch()
        assert caller.get(run, params={"wait": 60}).json()["status"] == "succeeded"


# The page


def test_documented_commands(hub: Hub) -> None:
    """Each command on the page works, and answers what one thinks it does."""
    whole = hub.token("alice", "tokens!user=alice")
    usual = hub.token("alice", ACCESS, START)

    def sh(lines: str, token: str = usual, **variables: str) -> str:
        lines = lines.replace(hubs.URL, hub.url).replace("curl", "curl -sS --noproxy '*' --max-time 100")
        path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        environment = {"PATH": path, "TOKEN": token, "HOME": str(hub.folder), **variables}
        done = subprocess.run(
            ["bash", "-euc", lines],
            env=environment,
            cwd=hub.home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    making, calling, running, inside, from_cron, prices, later = hubs.commands()

    made = json.loads(sh(making, whole))["token"]
    assert json.loads(sh(calling, made))["result"] == 42
    assert json.loads(sh(running))["result"] == 42
    assert json.loads(sh(inside, "", **hub.server.environ()))["result"] == 42
    assert sh(prices, PRICES_TOKEN=hubs.PRICES) == "42\n"
    assert json.loads(sh(later))["status"] == "succeeded"
    hub.api("DELETE", "/users/alice/server")
    hubs.wait(lambda: hub.api("GET", "/users/alice")["servers"] == {}, hub)
    assert json.loads(sh(from_cron).splitlines()[-1])["status"] == "succeeded"
    assert "already running" in sh(from_cron)


def test_documented_python(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """The Python on the page runs a notebook."""
    (code,) = (
        block
        for block in hubs.PAGE.read_text("utf-8").split("```python\n")[1:]
        if "jupyterhub_config" not in block
    )
    source = code.split("```")[0].replace(hubs.URL, hub.url)
    exec(compile(source, "<docs>", "exec"), {"token": hub.token("alice", ACCESS)})
    assert capsys.readouterr().out == "42\n"
