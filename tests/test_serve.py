"""`jupyter nbexec serve`: real processes that serve endpoints, and nothing else."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import psutil
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from jupyter_nbexec.serve import application
from tests import deployment, gateways, served
from tests.served import TOKEN, Served

SEED = "import json, os, time\nfrom pathlib import Path\ncount = 0"
CELLS = (
    SEED,
    "# GET /hello/:name\nprint('hello', json.loads(REQUEST)['path']['name'])",
    "# POST /echo\nprint(REQUEST)",
    "# ResponseInfo POST /echo\nprint(json.dumps({'headers': {'Content-Type': 'application/json'}}))",
    "# GET /place\nprint(os.getcwd())",
    "# GET /kernel\nprint(os.getpid(), os.environ.get('KG_AUTH_TOKEN'))",
    "# GET /slow\nPath('begun').touch()\nwhile not Path('go').exists():\n    time.sleep(0.02)\nprint('done')",
)
ORIGIN = "https://app.example.com"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One notebook, at the root, with all that can be switched on."""
    folder = tmp_path_factory.mktemp("one")
    served.write(folder / "notebooks" / "api.ipynb", *CELLS)
    (folder / "files").mkdir()
    (folder / "files" / "page.html").write_text("<h1>Hello</h1>", "utf-8")
    hidden = folder / "files" / ".git"
    hidden.mkdir()
    (hidden / "config").write_text("secret", "utf-8")
    for name, target in (("out", folder / "notebooks"), ("log.txt", folder / "log"), ("git", hidden)):
        (folder / "files" / name).symlink_to(target)
    (folder / "files" / "link.html").symlink_to(folder / "files" / "page.html")
    options = ["--static=files", "--source", f"--allow-origin={ORIGIN}", "--ServeApp.max_age=60"]
    with served.serving(folder, "notebooks/api.ipynb", *options) as server:
        yield server


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two notebooks, below their names, with nothing switched on."""
    folder = tmp_path_factory.mktemp("two")
    served.write(folder / "api.ipynb", *CELLS)
    served.write(
        folder / "other" / "my stock.ipynb", "# GET /\nprint('stock')", "# GET /:item\nprint('item')"
    )
    with served.serving(folder, "api.ipynb", "other/my stock.ipynb") as server:
        yield server


def test_endpoints_are_at_the_root(one: Served) -> None:
    """One notebook's paths are the server's paths."""
    assert one.get("/hello/world").text == "hello world\n"
    answer = one.request("POST", "/echo?rows=10", json={"a": 1})
    assert answer.headers["Content-Type"] == "application/json"
    assert (answer.json()["body"], answer.json()["args"]) == ({"a": 1}, {"rows": ["10"]})
    assert one.get("/nope").status_code == 404
    assert one.request("DELETE", "/echo").status_code == 405


@pytest.mark.parametrize("headers", [{}, {"Authorization": "token wrong"}, {"Authorization": TOKEN}])
@pytest.mark.parametrize(
    "path", ["/hello/x", "/nope", "/_api/docs", "/_api/source", "/_api/spec/swagger.json"]
)
def test_nobody_comes_in_without_the_token(one: Served, headers: dict[str, str], path: str) -> None:
    """Whoever has no token gets 401 as JSON, whatever is asked for."""
    answer = one.get(path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
    assert "`Authorization: token" in answer.json()["message"]
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_ways_to_give_the_token(one: Served) -> None:
    """The token is taken from a header, as Kernel Gateway's and as a bearer's, and from the URL."""
    for headers in ({"Authorization": f"token {TOKEN}"}, {"Authorization": f"Bearer {TOKEN}"}):
        assert one.get("/hello/x", headers=headers).status_code == 200
    answer = one.get(f"/hello/x?token={TOKEN}", headers={})
    assert answer.status_code == 200
    # Cookies are for those who look at the page.
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        *("/api", "/api/contents", "/api/kernels", "/api/status", "/api/nbexec", "/api/nbexec/runs"),
        *("/api/nbexec/notebooks/api.ipynb", "/login", "/metrics", "/lab", "/tree", "/files/log", "/"),
        *("/static/base/images/favicon.ico", "/favicon.ico", "/_api/activity", "/api/shutdown"),
    ],
)
def test_there_is_nothing_else(one: Served, two: Served, path: str) -> None:
    """Nothing of a Jupyter server can be reached, for reading or writing."""
    for server in (one, two):
        for method in ("GET", "POST", "PUT", "DELETE"):
            answer = server.request(method, path)
            assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/json"), method
            assert server.request(method, path, headers={}).status_code == 401


def test_several_notebooks_are_below_their_names(two: Served) -> None:
    """Each has its own part of the URL, however a client encodes it."""
    assert two.get("/api/hello/x").text == "hello x\n"
    assert two.get("/my%20stock/").text == "stock\n"
    assert two.get("/%6Dy%20stock/pen").text == "item\n"
    for path in ("/hello/x", "/my%20stock", "/other/my%20stock/", "/api.ipynb/hello/x"):
        assert two.get(path).status_code == 404, path


def test_description(one: Served, two: Served) -> None:
    """The OpenAPI document has the endpoints, under our name and Kernel Gateway's; and of each notebook."""
    for name in ("openapi", "swagger"):
        document = one.get(f"/_api/spec/{name}.json").json()
        OpenAPIV31SpecValidator(document).validate()
        assert document["info"]["title"] == "api"
        assert set(document["paths"]) == {"/hello/{name}", "/echo", "/place", "/kernel", "/slow"}
    paths = set(two.get("/_api/spec/openapi.json").json()["paths"])
    assert {"/api/hello/{name}", "/my%20stock/", "/my%20stock/{item}"} < paths
    own = two.get("/my%20stock/_api/spec/swagger.json").json()
    assert set(own["paths"]) == {"/my%20stock/", "/my%20stock/{item}"}


def test_page(one: Served) -> None:
    """The page to try endpoints in loads what is here alone; who opened it with the token may call."""
    page = one.get(f"/_api/docs?token={TOKEN}", headers={})
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert 'data-document="/_api/spec/openapi.json"' in page.text
    for path in re.findall(r'(?:src|href)="(/[^"]*)"', page.text):
        headers = one.headers if "/spec/" in path else {}
        assert one.get(path, headers=headers).status_code == 200, path
    cookies = dict(page.cookies)
    with httpx.Client(base_url=one.url, cookies=cookies, trust_env=False) as browser:
        assert browser.get("/_api/spec/openapi.json").status_code == 200
        # A page of another origin could send the cookie, but not the token that is in it.
        for page_of_ours in ({}, {"Referer": f"{one.url}/_api/docs", "Sec-Fetch-Site": "same-origin"}):
            assert browser.get("/hello/x", headers=page_of_ours).status_code == 403
        xsrf = {"X-XSRFToken": cookies["_xsrf"]}
        assert browser.get("/hello/x", headers=xsrf).text == "hello x\n"
        assert browser.post("/echo", headers=xsrf).status_code == 200


def test_source(one: Served, two: Served) -> None:
    """A notebook can be had where that was switched on, and nowhere else."""
    answer = one.get("/_api/source")
    assert answer.headers["Content-Type"] == "application/x-ipynb+json"
    assert ["".join(cell["source"]) for cell in answer.json()["cells"]] == list(CELLS)
    assert two.get("/_api/source").status_code == 404
    assert two.get("/api/_api/source").status_code == 404


def test_static_files(one: Served, two: Served) -> None:
    """Files of the folder can be had without the token; others, and where that is off, none."""
    for path in ("/public/page.html", "/public/link.html"):
        assert one.get(path, headers={}).text == "<h1>Hello</h1>"
    for path in ("/public/../notebooks/api.ipynb", "/public/%2e%2e/log", "/public/nope"):
        assert one.get(path).status_code in (403, 404), path
    # What is hidden, and what a link leads out to, is as if it were not there.
    for path in (".git", ".git/config", "%2egit/config", "git/config", "out/api.ipynb", "log.txt", ".nope"):
        assert one.get(f"/public/{path}").status_code == 404, path
    assert two.get("/public/page.html").status_code == 404


def test_other_origins(one: Served, two: Served) -> None:
    """Pages of the origin that is allowed may call and read; a browser asks first, without the token."""
    asked = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    preflight = one.request("OPTIONS", "/echo", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"]
    assert preflight.headers["Access-Control-Max-Age"] == "60"
    answer = one.get("/hello/x", headers={**one.headers, "Origin": ORIGIN})
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN

    other = {**asked, "Origin": "https://evil.example.com"}
    for server in (one, two):
        refused = server.request("OPTIONS", "/echo", headers=other)
        assert refused.headers.get("Access-Control-Allow-Origin", "") != other["Origin"]


def test_log(one: Served) -> None:
    """Each request is a line, without its query, its token, and what it sent."""
    one.get(f"/hello/logged?password=hunter2&token={TOKEN}", headers={})
    one.wait_for_log("/hello/logged")
    (line,) = [line for line in one.log.splitlines() if "/hello/logged" in line]
    assert re.search(r"\] 200 GET /hello/logged 127\.0\.0\.1 [\d.]+ ms$", line)
    assert "hunter2" not in one.log
    assert TOKEN not in one.log


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/echo?token={token}&secret=hunter2", {"Content-Type": "multipart/form-data"}),
        ("GET", "/echo/%FF?token={token}&secret=hunter2", {}),
        ("GET", "/nope?token={token}&secret=hunter2", {}),
        ("GET", "/_api/static/..%2f?token={token}&secret=hunter2", {}),
        ("GET", "/public/..%2f?token={token}&secret=hunter2", {}),
    ],
)
def test_log_of_refusals(one: Served, method: str, path: str, headers: dict[str, str]) -> None:
    """What is refused leaves no more in the log."""
    before = len(one.log)
    answer = one.request(method, path.format(token=TOKEN), headers=headers, content=b"x")
    assert answer.status_code >= 400
    one.get("/hello/after")
    deployment.wait_until(lambda: "/hello/after" in one.log[before:])
    assert "hunter2" not in one.log
    assert TOKEN not in one.log


def test_files_with_no_name(one: Served) -> None:
    """A name that no file can have is not there."""
    assert one.get("/public/%00", headers={}).status_code == 404
    assert one.get("/_api/static/%00", headers={}).status_code == 404
    assert "Traceback" not in one.log


def test_nothing_is_left_for_others(one: Served) -> None:
    """No other program takes this server for one that runs notebooks, and there is no store of runs."""
    assert list((one.folder / "runtime").glob("jpserver-*")) == []
    assert list(one.folder.rglob("*.sqlite*")) == []


def test_kernels_know_no_token(one: Served) -> None:
    """The token is not in the environment of kernels."""
    assert one.get("/kernel").text.split()[1] == "None"


def test_folder_of_kernels(one: Served) -> None:
    """Kernels run in the folder of their notebook."""
    assert one.get("/place").text.strip() == str(one.folder / "notebooks")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_when_asked(tmp_path: Path, number: int) -> None:
    """A signal ends it with status 0: what was being answered is, and no process is left."""
    served.write(tmp_path / "api.ipynb", *CELLS)
    with served.serving(tmp_path, "api.ipynb") as server:
        below = psutil.Process(server.process.pid).children(recursive=True)
        assert below
        answers: list[httpx.Response] = []
        caller = threading.Thread(target=lambda: answers.append(server.get("/slow")))
        caller.start()
        deployment.wait_until((tmp_path / "begun").exists)
        server.process.send_signal(number)
        server.wait_for_log("stopping")
        (tmp_path / "go").touch()
        assert server.process.wait(served.DEADLINE) == 0
        caller.join(served.DEADLINE)
        assert [answer.text for answer in answers] == ["done\n"]
        _, alive = psutil.wait_procs(below, timeout=served.DEADLINE)
        assert alive == []


def test_stops_while_calls_wait(tmp_path: Path) -> None:
    """A server that is stopped while a call is being answered, and another waits, tells both, and ends."""
    served.write(tmp_path / "api.ipynb", *CELLS)
    options = ["--NbExec.drain_timeout=1", "--NbExec.max_queued_calls=1"]
    with served.serving(tmp_path, "api.ipynb", *options) as server:
        below = psutil.Process(server.process.pid).children(recursive=True)
        answers: list[httpx.Response] = []

        def ask(path: str) -> threading.Thread:
            caller = threading.Thread(target=lambda: answers.append(server.get(path)))
            caller.start()
            return caller

        callers = [ask("/slow")]
        deployment.wait_until((tmp_path / "begun").exists)
        callers += [ask("/place") for _ in range(3)]
        # Two of them were one too many, so that the other waits.
        deployment.wait_until(lambda: len(answers) == 2)
        server.process.terminate()
        assert server.process.wait(served.DEADLINE) == 0
        for caller in callers:
            caller.join(served.DEADLINE)
        assert [answer.status_code for answer in answers] == [429, 429, 503, 503]
        _, alive = psutil.wait_procs(below, timeout=served.DEADLINE)
        assert alive == []


def test_stops_while_it_starts(tmp_path: Path) -> None:
    """A server whose seed cells take their time can be stopped all the same, and leaves nothing."""
    seed = "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(600)"
    served.write(tmp_path / "api.ipynb", seed, "# GET /\n")
    process = served.launch(tmp_path, "api.ipynb", f"--port={gateways.free_port()}", variables={})
    try:
        deployment.wait_until((tmp_path / "begun").exists)
        below = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        assert process.wait(served.DEADLINE) == 0
        _, alive = psutil.wait_procs(below, timeout=served.DEADLINE)
        assert alive == []
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert "Traceback" not in (tmp_path / "log").read_text("utf-8")


def test_without_authentication(tmp_path: Path) -> None:
    """With --no-auth everybody comes in, the log says so loudly, and pages of other origins do not."""
    served.write(tmp_path / "api.ipynb", *CELLS)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / ".hidden").write_text("shown", "utf-8")
    options = ["--no-auth", "--ip=0.0.0.0", "--static=files", "--ContentsManager.allow_hidden=True"]
    with served.serving(tmp_path, "api.ipynb", *options, token="") as server:
        assert server.get("/public/.hidden").text == "shown"
        assert "NO AUTHENTICATION" in server.log
        assert server.get("/hello/x").text == "hello x\n"
        assert server.request("POST", "/echo", json=[1]).json()["body"] == [1]
        foreign = {"Origin": "https://evil.example.com"}
        assert server.request("POST", "/echo", headers=foreign).status_code == 404
        # What an image, a link or a form sends.
        for headers in (
            {"Referer": "https://evil.example.com/"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "empty"},
        ):
            assert server.get("/hello/x", headers=headers).status_code == 403
            assert server.request("POST", "/echo", headers=headers).status_code == 403
        own = {"Referer": f"{server.url}/_api/docs", "Sec-Fetch-Site": "same-origin"}
        for headers in (own, {"Sec-Fetch-Site": "none"}):
            assert server.get("/hello/x", headers=headers).status_code == 200
        # A page may have a name that its owner makes to point here: to the browser it is of this origin.
        own = {"Host": "evil.example.com", "Origin": "http://evil.example.com"}
        for path in ("/hello/x", "/_api/docs", "/_api/spec/openapi.json", "/nope"):
            refused = server.get(path, headers=own)
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
            assert "local_hostnames" in refused.json()["message"]
        for host in ("localhost", "192.0.2.1:80", "[2001:db8::1]"):
            assert server.get("/hello/x", headers={"Host": host}).status_code == 200
        link = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}
        with httpx.Client(base_url=server.url, trust_env=False) as browser:
            page = browser.get("/hello/x", headers=link)
            assert page.status_code == 403
            fields = dict(re.findall(r'name="([^"]*)" value="([^"]*)"', page.text))
            style = re.findall(r'stylesheet" href="([^"]*)"', page.text)[0]
            assert browser.get(style).status_code == 200
            assert browser.post("/hello/x", data=fields).text == "hello x\n"


def test_token_that_is_made_up(tmp_path: Path) -> None:
    """Without a token one is made up and told; $PORT says where the server is."""
    served.write(tmp_path / "api.ipynb", *CELLS)
    port = gateways.free_port()
    with served.serving(tmp_path, "api.ipynb", port=port, token="", PORT=str(port)) as server:
        (token,) = re.findall(r"made up: (\S+)", server.log)
        assert server.get("/hello/x").status_code == 401
        assert server.get("/hello/x", headers={"Authorization": f"token {token}"}).status_code == 200


def test_tls(tmp_path: Path) -> None:
    """With a certificate it speaks TLS."""
    served.write(tmp_path / "api.ipynb", *CELLS)
    context = deployment.certify(tmp_path)
    options = ["--certfile=fullchain.pem", "--keyfile=privkey.pem"]
    with served.serving(tmp_path, "api.ipynb", *options, context=context) as server:
        assert server.get("/hello/x").text == "hello x\n"


def test_help() -> None:
    """`--help-all` describes each option, and those that are Kernel Gateway's in our words."""
    said = "\n".join(application.ServeApp().emit_help(classes=True))
    options = [*application.ServeApp.aliases, *application.ServeApp.flags]
    assert [option for option in options if f"\n--{option}" not in said] == []
    assert "KernelGatewayApp." not in said


@pytest.mark.parametrize(
    ("cells", "arguments", "said"),
    [
        (CELLS, [], "Say which notebook to serve"),
        (CELLS, ["nope.ipynb"], "There is no notebook nope.ipynb"),
        (CELLS, ["api.ipynb", "./api.ipynb"], "Several notebooks are called api"),
        (["1 + 1"], ["api.ipynb"], "has no endpoints"),
        (["1 / 0", "# GET /\n"], ["api.ipynb"], "ZeroDivisionError"),
        (CELLS, ["api.ipynb", "--kernel=fakelang2000"], "fakelang2000"),
        (CELLS, ["api.ipynb", "--certfile=nope"], "There is no file nope, which certfile names"),
        (
            CELLS,
            ["api.ipynb", "--api=kernel_gateway.jupyter_websocket"],
            "any of ['kernel_gateway.notebook_http', 'notebook-http']",
        ),
        (
            CELLS,
            ["api.ipynb", "--NotebookHTTPPersonality.cell_parser=my.own.parser"],
            "'my.own.parser' is not one of Kernel Gateway's own",
        ),
    ],
)
def test_what_cannot_be_served(tmp_path: Path, cells: list[str], arguments: list[str], said: str) -> None:
    """What cannot answer does not start, and says why, in a line."""
    served.write(tmp_path / "api.ipynb", *cells)
    port = gateways.free_port()
    assert said in served.refused(tmp_path, *arguments, f"--port={port}")


def test_names_that_are_taken(tmp_path: Path) -> None:
    """A notebook among several cannot be called as what is there besides, while that is there."""
    served.write(tmp_path / "public.ipynb", *CELLS)
    served.write(tmp_path / "api.ipynb", *CELLS)
    port, said = f"--port={gateways.free_port()}", "A notebook called public cannot be among several"
    assert said in served.refused(tmp_path, "public.ipynb", "api.ipynb", "--static=.", port)
    with served.serving(tmp_path, "public.ipynb", "api.ipynb") as server:
        assert server.get("/public/hello/x").text == "hello x\n"


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """A server does not go elsewhere than where it is expected."""
    served.write(tmp_path / "api.ipynb", *CELLS)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        said = served.refused(tmp_path, "api.ipynb", "--ip=127.0.0.1", f"--port={other.server_port}")
    assert "is already in use" in said


def test_notebook_from_a_url(tmp_path: Path) -> None:
    """A notebook that is named by its URL is fetched once, and gone afterwards."""
    notebook = served.write(tmp_path / "api.ipynb", *CELLS).read_bytes()

    class Source(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(notebook)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    (tmp_path / "tmp").mkdir()
    with HTTPServer(("127.0.0.1", 0), Source) as source:
        thread = threading.Thread(target=source.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{source.server_port}/a/my%20api.ipynb?version=1"
            with served.serving(
                tmp_path / "work", f"--seed_uri={url}", TMPDIR=str(tmp_path / "tmp"), no_proxy="*"
            ) as server:
                assert server.get("/place").text.strip() == str(tmp_path / "work")
                assert json.loads(server.get("/_api/spec/swagger.json").text)["info"]["title"] == "my api"
                assert server.stop(signal.SIGTERM) == 0
        finally:
            source.shutdown()
            thread.join()
    assert list((tmp_path / "tmp").glob("nbexec-serve-*")) == []
