"""Who may do what (RELIABILITY 5.5, S1 to S54), on every route and verb that the extension has."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import urllib.parse
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_server.auth import Authorizer
from jupyter_server.base.handlers import JupyterHandler
from tornado.routing import Router
from tornado.web import RequestHandler

from jupyter_nbexec import documents, errors, models
from jupyter_nbexec.serve.handlers import routes
from jupyter_nbexec.serve.mounts import Mount

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.handlers.conftest import Answer, Server

#: How a route names a run, and how its id looks here.
RUN_ID = r"(?P<run_id>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"
RUN = "00000000-0000-4000-8000-00000000000{}"
#: For each pattern of the extension, below `/api/nbexec`, paths that it serves. A new route belongs here.
EXAMPLES = {
    r"": [""],
    r"/openapi\.json": ["/openapi.json", "/openapi.json?path=a.ipynb"],
    r"/docs": ["/docs"],
    r"/runs": ["/runs", "/runs?path=a.ipynb"],
    r"/runs/prune": ["/runs/prune"],
    rf"/runs/{RUN_ID}": [f"/runs/{RUN.format(1)}"],
    rf"/runs/{RUN_ID}/cancel": [f"/runs/{RUN.format(2)}/cancel"],
    rf"/runs/{RUN_ID}/events": [f"/runs/{RUN.format(3)}/events"],
    rf"/runs/{RUN_ID}/notebook": [f"/runs/{RUN.format(4)}/notebook"],
    r"/(?P<path>.+?\.ipynb)/(?P<endpoint>.*)": ["/a.ipynb/none", "/folder/b.ipynb/none/:x"],
    r"/(?P<path>.*)": ["/a.ipynb", "/folder/b.ipynb"],
}
#: What a call without effect sends: authorization comes before the body is read.
NO_JSON = b"{"
ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
RUNS = "jupyter_nbexec:runs"


@dataclass(frozen=True)
class Call:
    """One verb on one path of the extension."""

    method: str
    path: str
    #: Whether the extension has it.
    exists: bool

    @property
    def is_endpoint(self) -> bool:
        """Whether it calls an endpoint, which these notebooks do not have: a GET would run code."""
        return ".ipynb/" in self.path and "/_api/" not in self.path


def rules(router: Any) -> Iterator[tuple[str, type[RequestHandler]]]:
    """List the patterns and handlers below a router."""
    for rule in router.rules:
        if isinstance(rule.target, Router):
            yield from rules(rule.target)
        elif isinstance(rule.target, type) and issubclass(rule.target, RequestHandler):
            yield rule.matcher.regex.pattern, rule.target


def calls(server: Server, methods: Sequence[str] = ALL_METHODS) -> list[Call]:
    """List every verb on every route of the extension, as the running server has them."""
    found = []
    for pattern, handler in rules(server.app.web_app.default_router):
        if not handler.__module__.startswith("jupyter_nbexec."):
            continue
        assert pattern.endswith("$")
        _, _, below = pattern.removesuffix("$").partition("/api/nbexec")
        for path in EXAMPLES[below]:
            found += [Call(each, f"api/nbexec{path}", has_verb(handler, each)) for each in methods]
    return found


def has_verb(handler: type[RequestHandler], method: str) -> bool:
    """Whether a handler has a method of its own for this verb."""
    verb = getattr(handler, method.lower(), None)
    return getattr(verb, "__name__", "_unimplemented_method") != "_unimplemented_method"


async def notebooks(server: Server) -> None:
    """Write the notebooks, and store the runs, that the calls are about."""
    server.write("a.ipynb", "1")
    server.write("folder/b.ipynb", "2")
    await server.runs.start()
    moment = datetime(2026, 11, 20, tzinfo=timezone.utc)
    for number in range(1, 5):
        run = models.RunRecord(
            id=RUN.format(number),
            created=moment,
            started=moment,
            ended=moment,
            request=models.RunRequest(path="a.ipynb"),
            kernel_name="python3",
            status=models.RunStatus.SUCCEEDED,
        )
        server.runs._store.add(run, documents.EMPTY)


async def assert_runs_are_there(server: Server) -> None:
    """Check that what was refused had no effect."""
    stored = {run["id"] for run in (await server.runs_page())["runs"]}
    assert stored == {RUN.format(number) for number in range(1, 5)}


async def fetch(server: Server, call: Call, headers: dict[str, str], *, auth: bool = False) -> Answer:
    """Make a call that runs nothing."""
    body = NO_JSON if call.method in ("POST", "PUT", "PATCH") else None
    return await server.fetch(call.method, call.path, body, headers=headers, auth=auth)


def expected_when_allowed(call: Call) -> set[int]:
    """Tell the status of a call that gets past all checks of who asks."""
    if not call.exists:
        return {405}
    if call.is_endpoint:
        return {404}
    return {400} if call.method == "POST" else {200, 204}


def assert_forbidden(answer: Answer, call: Call, status: int = 403) -> None:
    """Check a refusal: the status, and JSON that says so."""
    if call.method == "HEAD" and not call.exists:
        assert answer.status in (status, 405), (call, answer)
    else:
        assert answer.status == status, (call, answer)
    if call.method != "HEAD":
        assert answer.media_type == "application/json", (call, answer)
        assert set(answer.json) >= {"message", "reason", "code"}, (call, answer)
        assert "Traceback" not in answer.body.decode()


async def test_routes_are_known(server: Server) -> None:
    """Every route of the extension has an example here, and every verb demands authentication (S13)."""
    await notebooks(server)
    found = calls(server)
    others = {call.method for call in found if call.exists and not call.is_endpoint}
    assert others == {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}
    assert {call.method for call in found if call.exists and call.is_endpoint} == set(ALL_METHODS)
    # With `allow_unauthenticated_access` off, jupyter_server warns about verbs that are not decorated,
    # warnings are errors here, and an extension with an error is not loaded.
    assert server.app.allow_unauthenticated_access is False
    assert {path for paths in EXAMPLES.values() for path in paths} == {
        call.path.removeprefix("api/nbexec") for call in found
    }


@pytest.mark.parametrize(
    "credentials",
    [
        pytest.param({}, id="S1-S4-none"),
        pytest.param({"Authorization": "token wrong"}, id="S5-S8-wrong"),
        pytest.param({"Authorization": ""}, id="S9-empty"),
        pytest.param({"Authorization": "Basic {token}"}, id="S9-basic"),
        pytest.param({"Authorization": "token"}, id="S9-no-token"),
        pytest.param({"Cookie": "username-127-0-0-1-{port}=forged"}, id="S12-forged"),
        pytest.param({"Cookie": "username-127-0-0-1-{port}=2|1:0|10:1|1:a|4:YQ==|0"}, id="S12-expired"),
        pytest.param({"Cookie": "username-localhost-1={cookie}"}, id="S12-other-server"),
    ],
)
async def test_not_authenticated(server: Server, credentials: dict[str, str]) -> None:
    """Who is nobody gets 403 as JSON from every verb of every route (S1 to S12)."""
    await notebooks(server)
    cookie = await log_in(server)
    headers = {
        name: value.format(token=server.token, port=server.port, cookie=cookie.login_value)
        for name, value in credentials.items()
    }
    for call in calls(server):
        answer = await fetch(server, call, headers)
        if call.method == "OPTIONS":
            assert (answer.status, answer.body) == (200, b""), (call, answer)  # S11
        else:
            assert_forbidden(answer, call)
        if call.method not in ("OPTIONS", "HEAD"):
            assert answer.json["message"].startswith("Not authenticated: send `Authorization: token"), call
    assert server.started == []
    await assert_runs_are_there(server)


@pytest.mark.parametrize("scheme", ["token", "Token", "TOKEN", "Bearer", "bearer"])
async def test_authenticated(server: Server, scheme: str) -> None:
    """The right token is accepted in every spelling (S10); verbs that do not exist are 405."""
    await notebooks(server)
    for call in calls(server):
        answer = await fetch(server, call, {"Authorization": f"{scheme} {server.token}"})
        assert answer.status in expected_when_allowed(call), (call, answer)
        if not call.exists:
            assert answer.headers["Allow"]
    assert server.started == []


async def test_token_in_query(server: Server) -> None:
    """The token may be in the URL, as for Jupyter's own resources (S10)."""
    await notebooks(server)
    for call in calls(server):
        joint = "&" if "?" in call.path else "?"
        path = f"{call.path}{joint}token={server.token}"
        answer = await fetch(server, Call(call.method, path, call.exists), {})
        assert answer.status in expected_when_allowed(call), (call, answer)


@pytest.mark.server(ServerApp={"token": ""})
async def test_token_disabled(server: Server) -> None:
    """Without any token the extension does as Jupyter's own resources do (S14)."""
    await notebooks(server)
    own = await server.fetch("GET", "api/contents/a.ipynb", auth=False)
    ours = await server.fetch("GET", "api/nbexec/a.ipynb", auth=False)
    assert own.status == ours.status == 200
    own = await server.fetch("POST", "api/contents", b"{}", auth=False)
    ours = await server.fetch("POST", "api/nbexec/a.ipynb", NO_JSON, auth=False)
    assert (own.status == 403) is (ours.status == 403)


# Cookies


@dataclass(frozen=True)
class Cookie:
    """What a browser has after logging in."""

    login: str
    xsrf: str
    name: str = field(repr=False)

    @property
    def login_value(self) -> str:
        """The login cookie's value."""
        return self.login.partition("=")[2]


async def log_in(server: Server) -> Cookie:
    """Log in as a browser does."""
    page = await server.fetch("GET", "login", auth=False)
    xsrf = next(c for c in page.headers.get_list("Set-Cookie") if c.startswith("_xsrf=")).partition(";")[0]
    token = xsrf.partition("=")[2]
    body = urllib.parse.urlencode({"password": server.token, "_xsrf": token})
    answer = await server.fetch(
        "POST",
        "login",
        body,
        headers={"Cookie": xsrf, "Content-Type": "application/x-www-form-urlencoded"},
        auth=False,
    )
    assert answer.status == 302, answer
    login = next(c for c in answer.headers.get_list("Set-Cookie") if c.startswith("username-"))
    # The token for a user who is logged in is another one than that for the login page.
    login = login.partition(";")[0]
    page = await server.fetch("GET", "login", headers={"Cookie": login}, auth=False)
    cookies = [c.partition(";")[0] for c in page.headers.get_list("Set-Cookie") if c.startswith("_xsrf=")]
    return Cookie(login=login, xsrf=(cookies or [xsrf])[-1], name=login.partition("=")[0])


@dataclass(frozen=True)
class CookieRow:
    """What a page sends beside the login cookie, and what it gets."""

    id: str
    changing: int | None  #: None: as if allowed
    reading: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


COOKIE_ROWS = [
    CookieRow("S15-S18", 403),
    CookieRow("S19", 403, headers={"Cookie": "{login}; {xsrf}"}),
    CookieRow("S20", None, headers={"Cookie": "{login}; {xsrf}", "X-XSRFToken": "{token}"}),
    CookieRow("S21", 403, headers={"Cookie": "{login}; {xsrf}", "X-XSRFToken": "wrong"}),
    CookieRow(
        "S22",
        404,
        404,
        {"Cookie": "{login}; {xsrf}", "X-XSRFToken": "{token}", "Origin": "https://evil.example"},
    ),
    CookieRow("S23", 404, 404, {"Cookie": "{login}; {xsrf}", "X-XSRFToken": "{token}", "Origin": "null"}),
    CookieRow("S24", 403, headers={"Content-Type": "text/plain"}),
    # A GET runs nothing here, so that it needs no more than Jupyter's own (S25 to S27); but for endpoints.
    CookieRow("S25", 403, headers={"Referer": "https://evil.example/"}),
    CookieRow("S27", 403, headers={"Sec-Fetch-Site": "cross-site"}),
    CookieRow(
        "S28",
        403,
        403,
        {"Cookie": "{login}; {xsrf}", "X-XSRFToken": "{token}", "Host": "evil.example"},
    ),
]


@pytest.mark.parametrize("row", COOKIE_ROWS, ids=lambda row: row.id)
async def test_cookie(server: Server, row: CookieRow) -> None:
    """A browser's cookie alone runs nothing: it takes the XSRF token too, from the same origin."""
    await notebooks(server)
    cookie = await log_in(server)
    token = cookie.xsrf.partition("=")[2]
    headers = {"Cookie": cookie.login} | {
        name: value.format(login=cookie.login, xsrf=cookie.xsrf, token=token)
        for name, value in row.headers.items()
    }
    for call in calls(server):
        if call.method == "OPTIONS":
            continue
        answer = await fetch(server, call, headers)
        is_reading = call.method in ("GET", "HEAD") and not call.is_endpoint
        status = row.reading if is_reading else row.changing
        if status is None:
            assert answer.status in expected_when_allowed(call), (call, answer)
        else:
            assert_forbidden(answer, call, status)
    assert server.started == []
    if row.changing is not None:
        await assert_runs_are_there(server)


async def test_foreign_host_with_token(server: Server) -> None:
    """A name of another host is refused even with the right token (S28): DNS may be made to point here."""
    await notebooks(server)
    for call in calls(server):
        answer = await fetch(server, call, {"Host": "evil.example"}, auth=True)
        assert_forbidden(answer, call)


async def test_cookie_runs(server: Server) -> None:
    """A page of the server's own may run a notebook, with cookie and XSRF token (S20)."""
    await notebooks(server)
    cookie = await log_in(server)
    answer = await server.fetch(
        "POST",
        "api/nbexec/a.ipynb",
        b"{}",
        headers={
            "Cookie": f"{cookie.login}; {cookie.xsrf}",
            "X-XSRFToken": cookie.xsrf.partition("=")[2],
            "Origin": f"http://127.0.0.1:{server.port}",
        },
        auth=False,
    )
    assert (answer.status, answer.json["result"]) == (200, 1)


# Authorizers


class Denying(Authorizer):
    """Denies some pairs of action and resource, and remembers what it was asked."""

    denied: frozenset[tuple[str, str]] = frozenset()
    asked: set[tuple[str, str]] = set()  # noqa: RUF012 - one for all instances, as there is one

    def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> Any:
        """As configured."""
        self.asked.add((action, resource))
        return (action, resource) not in self.denied


class AllowingOnly(Denying):
    """Allows some pairs, and nothing else; an answer may take a while."""

    allowed: frozenset[tuple[str, str]] = frozenset()

    async def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> Any:
        """As configured."""
        await asyncio.sleep(0)
        return (action, resource) in self.allowed


def denying(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Configure an authorizer that denies these."""
    return {"authorizer_class": type("Denying", (Denying,), {"denied": frozenset(pairs), "asked": set()})}


def allowing(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Configure an authorizer, asynchronous as some are (S35), that allows these alone."""
    return {"authorizer_class": type("Allowing", (AllowingOnly,), {"allowed": frozenset(pairs)})}


def rights(call: Call) -> set[tuple[str, str]]:
    """Tell what a call needs."""
    if call.path.endswith("/cancel"):
        return {("execute", RUNS)}
    if call.path.endswith("/prune") or (call.method == "DELETE" and not call.is_endpoint):
        return {("write", RUNS)}
    if call.method == "POST" or call.is_endpoint:
        return {("execute", RUNS), ("execute", "kernels"), ("read", "contents")}
    is_of_notebook = "/runs" not in call.path and (".ipynb" in call.path)
    return {("read", RUNS)} | ({("read", "contents")} if is_of_notebook else set())


@pytest.mark.parametrize(
    "_authorizer",
    [
        pytest.param(name, marks=pytest.mark.server(ServerApp=authorizer), id=name)
        for name, authorizer in [
            ("S29-runs", denying(("execute", RUNS))),
            ("S30-kernels", denying(("execute", "kernels"))),
            ("S31-contents", denying(("read", "contents"))),
            ("S32-S35-read-only", allowing(("read", RUNS), ("read", "contents"))),
            ("history-only", allowing(("read", RUNS))),
            ("no-reading", denying(("read", RUNS))),
            ("no-forgetting", denying(("write", RUNS))),
            ("cancel-only", allowing(("execute", RUNS))),
            ("forget-only", allowing(("write", RUNS))),
            ("nothing", allowing()),
        ]
    ],
)
async def test_denied(server: Server, _authorizer: str) -> None:
    """Each right that a site may deny counts on every route and verb that needs it, and on no other."""
    await notebooks(server)
    authorizer = server.app.authorizer
    for call in calls(server):
        if not call.exists or call.method == "OPTIONS":
            continue
        answer = await fetch(server, call, {}, auth=True)
        if isinstance(authorizer, AllowingOnly):
            is_allowed = rights(call) <= authorizer.allowed
        else:
            is_allowed = not rights(call) & authorizer.denied
        if is_allowed:
            assert answer.status in expected_when_allowed(call), (call, answer)
        else:
            assert_forbidden(answer, call)
    assert server.started == []


ORDER = [
    ("GET", "api/nbexec/a.ipynb", 200),
    ("GET", "api/nbexec/runs", 200),
    ("GET", f"api/nbexec/runs/{RUN.format(1)}", 200),
    ("POST", "api/nbexec/runs/prune", 400),
    ("POST", f"api/nbexec/runs/{RUN.format(1)}/cancel", 403),
    ("POST", "api/nbexec/a.ipynb", 403),
    ("POST", "api/nbexec", 403),
]


@pytest.mark.server(ServerApp=denying(("execute", RUNS)))
@pytest.mark.parametrize("order", [ORDER, ORDER[::-1]], ids=["S33", "S34"])
async def test_order_of_calls(server: Server, order: list[tuple[str, str, int]]) -> None:
    """What was decided on one verb is not remembered for another (F10)."""
    await notebooks(server)
    for _ in range(2):
        for method, path, status in order:
            answer = await server.fetch(method, path, NO_JSON if method == "POST" else None)
            assert answer.status == status, (method, path)


@pytest.mark.server(ServerApp=denying())
async def test_rights_asked_for(server: Server) -> None:
    """Running asks for three rights, and for a fourth to save."""
    await notebooks(server)
    asked = server.app.authorizer.asked
    asked.clear()
    assert (await server.run("a.ipynb")).status == 200
    assert asked == {("execute", RUNS), ("execute", "kernels"), ("read", "contents")}
    asked.clear()
    await server.describe("a.ipynb")
    assert asked == {("read", RUNS), ("read", "contents")}
    for method, path, right in [
        ("GET", "runs", "read"),
        ("GET", f"runs/{RUN.format(1)}", "read"),
        ("GET", f"runs/{RUN.format(1)}/events", "read"),
        ("GET", f"runs/{RUN.format(1)}/notebook", "read"),
        ("POST", f"runs/{RUN.format(1)}/cancel", "execute"),
        ("DELETE", f"runs/{RUN.format(1)}", "write"),
        ("POST", "runs/prune", "write"),
    ]:
        asked.clear()
        await server.fetch(method, f"api/nbexec/{path}", b"" if method == "POST" else None)
        assert asked == {(right, RUNS)}


@pytest.mark.server(ServerApp=denying())
async def test_rights_of_a_call(server: Server) -> None:
    """Calling an endpoint asks for the rights that running its notebook does, whatever the verb."""
    server.write("a.ipynb", *(f"# {verb} /x\nprint(1)" for verb in ("GET", "PUT", "POST", "DELETE", "PATCH")))
    asked = server.app.authorizer.asked
    for method in ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH"):
        asked.clear()
        answer = await server.fetch(method, "api/nbexec/a.ipynb/x")
        assert answer.status == 200, answer
        assert asked == {("execute", RUNS), ("execute", "kernels"), ("read", "contents")}
    asked.clear()
    assert (await server.fetch("OPTIONS", "api/nbexec/a.ipynb/x")).status == 200
    assert asked == {("execute", RUNS), ("execute", "kernels"), ("read", "contents")}


@pytest.mark.server(ServerApp=denying(("read", "contents")))
async def test_notebooks_are_not_told_of(server: Server) -> None:
    """Who may not read contents gets the same for a notebook that is there and one that is not."""
    server.write("a.ipynb", "# GET /x\nprint(1)")
    for call in calls(server):
        answers = []
        for name in ("a.ipynb", "b.ipynb"):
            path = call.path.replace("folder/b.ipynb", name).replace("a.ipynb", name).replace("none/:x", "x")
            headers = {"Origin": "https://a.example"}
            answer = await fetch(server, Call(call.method, path, call.exists), headers, auth=True)
            named = {key: value for key, value in answer.headers.items() if key not in ("Date", "Set-Cookie")}
            answers.append((answer.status, named, answer.body.replace(b"b.ipynb", b"a.ipynb")))
        assert answers[0] == answers[1], call


# What a browser does by itself


async def test_cookie_calls(server: Server) -> None:
    """A cookie calls endpoints with the XSRF token in a header or form, not in a URL, from whatever page."""
    server.write("a.ipynb", "# GET /x\nprint(1)", "# POST /x\nprint(REQUEST)")
    cookie = await log_in(server)
    token = cookie.xsrf.partition("=")[2]
    both = {"Cookie": f"{cookie.login}; {cookie.xsrf}"}
    own = {"Referer": f"http://127.0.0.1:{server.port}/lab", "Sec-Fetch-Site": "same-origin"}
    for headers, query, status in [
        ({"Cookie": cookie.login}, "", 403),
        (both, "", 403),
        (both | {"Referer": "https://evil.example/"}, "", 403),
        (both | own, "", 403),
        # As JupyterLab writes addresses of what a notebook shows.
        (both | own, f"?_xsrf={token}", 403),
        (both | {"X-XSRFToken": "wrong"}, "", 403),
        ({"Cookie": cookie.login, "X-XSRFToken": token}, "", 403),
        (both | {"X-XSRFToken": token}, "", 200),
    ]:
        for method in ("GET", "HEAD", "POST"):
            body = b"" if method == "POST" else None
            path = f"api/nbexec/a.ipynb/x{query}"
            answer = await server.fetch(method, path, body, headers=headers, auth=False)
            assert answer.status == status, (method, headers, answer)
    form = both | {"Content-Type": "application/x-www-form-urlencoded"}
    for sent, status in [(token, 200), ("wrong", 403), ("", 403)]:
        fields = urllib.parse.urlencode({"_xsrf": sent, "a": "1"})
        answer = await server.fetch("POST", "api/nbexec/a.ipynb/x", fields, headers=form, auth=False)
        assert answer.status == status, answer
        if status == 200:
            assert answer.json["body"] == {"a": ["1"]}


async def test_cookie_calls_on_jupyterhub(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """JupyterHub's own check, which lets images and links pass, does not suffice; its token does."""
    server.write("a.ipynb", "# GET /x\nprint(1)")
    cookie = await log_in(server)
    # It replaces these where jupyter_server and tornado define them.
    monkeypatch.setattr(JupyterHandler, "check_xsrf_cookie", lambda _: None)
    monkeypatch.setattr(JupyterHandler, "xsrf_token", property(lambda _: b"MnwxOjB8MTA6"), raising=False)
    for headers, status in [
        ({}, 403),
        ({"X-XSRFToken": "MnwxOjB8MTA7"}, 403),
        ({"X-XSRFToken": "MnwxOjB8MTA6"}, 200),
    ]:
        headers = {"Cookie": cookie.login, "Sec-Fetch-Mode": "no-cors", **headers}
        answer = await server.fetch("GET", "api/nbexec/a.ipynb/x", headers=headers, auth=False)
        assert answer.status == status, (headers, answer)


#: What a browser says of a link that somebody follows.
FOLLOWED = {
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "cross-site",
}


async def test_followed_link(server: Server) -> None:
    """Who follows a link to an endpoint is asked, nothing has run, and what they then send is the GET."""
    endpoint = "# GET /<b>/:x\nprint(REQUEST)"
    server.write("<i>.ipynb", endpoint, "# POST /<b>/:x\nprint('posted')", "# PUT /put\nprint(1)")
    cookie = await log_in(server)
    headers = {"Cookie": f"{cookie.login}; {cookie.xsrf}"}
    path = "api/nbexec/%3Ci%3E.ipynb/%3Cb%3E/%22%3E?q=%3Cu%3E&_xsrf=x"
    for more in (FOLLOWED, {"Accept": "text/html"}):
        asked = await server.fetch("GET", path, headers=headers | more, auth=False)
        assert (asked.status, asked.media_type) == (403, "text/html")
    page = asked.body.decode()
    assert not re.search('<[ibu]>|/">', page)
    assert "&lt;i&gt;.ipynb" in page
    assert "frame-ancestors 'none'" in asked.headers["Content-Security-Policy"]
    assert "script" not in asked.headers["Content-Security-Policy"]
    assert asked.headers["X-Frame-Options"] == "DENY"
    style = re.findall(r'stylesheet" href="([^"]*)"', page)[0].removeprefix(server.base_url)
    assert (await server.fetch("GET", style, auth=False)).status == 200
    for more in (
        FOLLOWED | {"Sec-Fetch-Dest": "iframe"},
        FOLLOWED | {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        FOLLOWED | {"Origin": f"http://127.0.0.1:{server.port}"},
    ):
        answer = await server.fetch("GET", path, headers=headers | more, auth=False)
        assert (answer.status, answer.media_type) == (403, "application/json")
    for other, status in [("no", 404), ("put", 405)]:
        where = f"api/nbexec/%3Ci%3E.ipynb/{other}"
        answer = await server.fetch("GET", where, headers=headers | FOLLOWED, auth=False)
        assert answer.status == status
    assert server.started == []

    fields = dict(re.findall(r'name="([^"]*)" value="([^"]*)"', page))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    own = {"Origin": f"http://127.0.0.1:{server.port}", "Accept": "text/html"}
    body = urllib.parse.urlencode(fields)
    answer = await server.fetch("POST", path, body, headers=headers | form | own, auth=False)
    assert answer.status == 200, answer
    said = answer.json
    assert (said["path"], said["args"], said["body"]) == ({"x": '">'}, {"q": ["<u>"]}, "")
    assert not {"Content-Type", "Origin", "Cookie"} & said["headers"].keys()
    assert "sandbox" in answer.headers["Content-Security-Policy"]

    for without in fields:
        body = urllib.parse.urlencode({name: value for name, value in fields.items() if name != without})
        answer = await server.fetch("POST", path, body, headers=headers | form | own, auth=False)
        expected = (403, "forbidden") if without == "_xsrf" else (200, "posted")
        assert (answer.status, expected[1] in answer.body.decode()) == (expected[0], True)
    # With a token it is any other form.
    answer = await server.fetch("POST", path, urllib.parse.urlencode(fields), headers=form)
    assert answer.body == b"posted\n"


@pytest.mark.server(ServerApp={"disable_check_xsrf": True})
async def test_without_xsrf_checks(server: Server) -> None:
    """Where XSRF checks are off, programs call by a cookie; what a page shows still calls nothing."""
    server.write("a.ipynb", "# GET /x\nprint(1)")
    cookie = await log_in(server)
    both = {"Cookie": f"{cookie.login}; {cookie.xsrf}"}
    origin = f"http://127.0.0.1:{server.port}"
    own = {"Referer": f"{origin}/lab", "Sec-Fetch-Site": "same-origin"}
    for headers, status in [
        ({}, 200),
        (own | {"Sec-Fetch-Dest": "empty"}, 200),
        ({"X-XSRFToken": cookie.xsrf.partition("=")[2], "Sec-Fetch-Dest": "document"}, 200),
        (own | {"Sec-Fetch-Dest": "image"}, 403),
        ({"Referer": f"{origin}/lab"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "empty"}, 403),
        (FOLLOWED, 403),
    ]:
        answer = await server.fetch("GET", "api/nbexec/a.ipynb/x", headers=both | headers, auth=False)
        assert answer.status == status, (headers, answer)


# Every route, every verb, every way to say who one is, from every page

#: What only looks. All else that the parts can do counts as an effect here, also what they learn one day.
READERS = {
    *("get", "view", "list_runs", "find", "wait", "follow", "one_by_one", "check_capacity"),
    *("describe", "plan", "version"),
}
#: What a route takes, where an empty object is not enough.
BODIES: dict[str, Any] = {
    "api/nbexec": {"notebook": {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}}
}
OWN, FOREIGN = "http://127.0.0.1:{port}", "https://evil.example"
IMAGE = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image", "Accept": "image/avif,*/*"}
FETCH = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
#: What a browser sends for a page, and whether it may.
PAGES: dict[str, dict[str, str]] = {
    "no page": {},
    "a script of JupyterLab": FETCH | {"Referer": f"{OWN}/lab", "Sec-Fetch-Site": "same-origin"},
    "an image in JupyterLab": IMAGE | {"Referer": f"{OWN}/lab", "Sec-Fetch-Site": "same-origin"},
    "an image in JupyterLab, without TLS": {"Referer": f"{OWN}/lab"},
    "an image in our own page": IMAGE
    | {"Referer": f"{OWN}/api/nbexec/docs", "Sec-Fetch-Site": "same-origin"},
    "a link on a foreign page": FOLLOWED | {"Referer": f"{FOREIGN}/"},
    "an image on a foreign page": IMAGE | {"Sec-Fetch-Site": "cross-site"},
    "a script of a foreign page": FETCH | {"Sec-Fetch-Site": "cross-site", "Origin": FOREIGN},
}


#: For each pattern of a server of endpoints alone, a path that it serves. A new route belongs here.
SERVED = {
    r"/_api/static/(.*)": "/_api/static/docs.css",
    r"/_api/docs": "/_api/docs",
    r"/_api/spec/openapi\.json": "/_api/spec/openapi.json",
    r"/_api/spec/swagger\.json": "/_api/spec/swagger.json",
    r"/a\.ipynb/_api/spec/openapi\.json": "/a.ipynb/_api/spec/openapi.json",
    r"/a\.ipynb/_api/spec/swagger\.json": "/a.ipynb/_api/spec/swagger.json",
    r"/a\.ipynb/_api/source": "/a.ipynb/_api/source",
    r"/a\.ipynb/(?P<endpoint>.*)": "/a.ipynb/x",
}


def served_calls(server: Server, methods: Sequence[str]) -> list[Call]:
    """Have the running server serve what `jupyter nbexec serve` does; every verb on every route of it."""
    found = []
    mounts = [Mount(path="a.ipynb", name="a", prefix="/a.ipynb")]
    for pattern, handler, *options in routes(mounts, allow_source=True, static_path=None):
        plain = re.sub(r"\(\?:(\\?.)\|\(\?i:[^)]*\)\)", r"\1", pattern)
        server.app.web_app.add_handlers(".*$", [(server.base_url + pattern[1:], handler, *options)])
        found += [Call(each, SERVED[plain].lstrip("/"), has_verb(handler, each)) for each in methods]
    return found


class Watched:
    """A part of the extension that notes, and refuses, whatever would have an effect."""

    def __init__(self, part: Any, effects: list[str]) -> None:
        self.part = part
        self.effects = effects

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.part, name)
        if not callable(value) or name in READERS:
            return value

        def refuse(*_args: object, **_options: object) -> None:
            self.effects.append(name)
            raise errors.Stopping

        return refuse


@pytest.mark.parametrize("is_checking", [True, False], ids=["", "no-xsrf-checks"])
async def test_no_route_runs_for_a_cookie_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch, *, is_checking: bool
) -> None:
    """What runs or changes anything takes a token, or the XSRF token from our origin; looking never does."""
    await notebooks(server)
    cookie = await log_in(server)
    token = cookie.xsrf.partition("=")[2]
    both = {"Cookie": f"{cookie.login}; {cookie.xsrf}"}
    settings = server.app.web_app.settings
    monkeypatch.setitem(settings, "disable_check_xsrf", not is_checking)
    effects: list[str] = []
    parts = settings["jupyter_nbexec"]
    watched = {name: Watched(getattr(parts, name), effects) for name in ("runs", "services", "planner")}
    monkeypatch.setitem(settings, "jupyter_nbexec", dataclasses.replace(parts, **watched))

    async def has_effect(call: Call, headers: dict[str, str], query: str = "") -> bool:
        effects.clear()
        body = json.dumps(BODIES.get(call.path, {})) if call.method in ("POST", "PUT", "PATCH") else None
        path = f"{call.path}?{query}" if query else call.path
        await server.fetch(call.method, path, body, headers=headers, auth=False)
        return bool(effects)

    methods = [*ALL_METHODS, "BREW"]
    firsts = {f"api/nbexec{paths[0]}" for paths in EXAMPLES.values()}
    found = [call for call in calls(server, methods) if call.path in firsts]
    if is_checking:
        found += served_calls(server, methods)
    else:
        found = [call for call in found if call.is_endpoint]
    for call in found:
        changes = call.exists and call.method not in ("GET", "HEAD", "OPTIONS")
        runs = call.exists and call.is_endpoint and call.method != "OPTIONS"
        # What has no effect from the first of these has none from the others.
        pages = list(PAGES.items()) if changes or runs else list(PAGES.items())[:2]
        for page, said in pages:
            sent = {name: value.format(port=server.port) for name, value in said.items()}
            is_foreign = sent.get("Origin") == FOREIGN
            where = (call, page)
            by_token = await has_effect(call, sent | {"Authorization": f"token {server.token}"})
            assert by_token is (changes or runs), where
            by_both = await has_effect(call, sent | both | {"X-XSRFToken": token})
            assert by_both is ((changes or runs) and not is_foreign), where
            # With the checks off, it is for programs that have no token.
            is_program = runs and not is_checking and page in ("no page", "a script of JupyterLab")
            assert await has_effect(call, sent | both) is is_program, where
            if runs:
                assert await has_effect(call, sent | both, f"_xsrf={token}") is is_program, where
        assert not await has_effect(call, {}), call
    assert server.started == []


@pytest.mark.server(ServerApp=denying(("write", "contents")))
async def test_saving_denied(server: Server) -> None:
    """Who may not write contents does not through `save_as`."""
    await notebooks(server)
    answer = await server.run("a.ipynb", save_as="out.ipynb")
    assert answer.status == 403
    assert "write" in answer.json["message"]
    assert server.started == []


@pytest.mark.server(ServerApp=allowing(("execute", RUNS)), NbExec={"require_kernel_authorization": False})
async def test_runs_and_nothing_else(server: Server) -> None:
    """With `require_kernel_authorization` off, somebody may run notebooks and do nothing else."""
    await notebooks(server)
    answer = await server.run("a.ipynb")
    assert (answer.status, answer.json["result"]) == (200, 1)
    for method, path in [
        ("GET", "api/nbexec/a.ipynb"),
        ("GET", "api/contents/a.ipynb"),
        ("GET", "api/kernels"),
    ]:
        assert (await server.fetch(method, path)).status == 403


@pytest.mark.server(ServerApp=denying(("execute", RUNS)))
async def test_body_is_not_read_for_the_unauthorized(server: Server) -> None:
    """Who may not run is refused before a body is read (F12): none is sent here, and the answer comes."""
    await notebooks(server)
    for auth in (True, False):
        answer = await server.raw(server.head("api/nbexec/a.ipynb", "Content-Length: 1000000", auth=auth))
        assert answer.startswith(b"HTTP/1.1 403"), answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "forbidden"


# Paths

CANARY = "open({!r}, 'w').close()"


def canary(server: Server, file: Path, name: str = "canary") -> Path:
    """Write a notebook, anywhere, that leaves a trace if it is ever run."""
    trace = server.root.parent / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(server.notebook(CANARY.format(str(trace)))))
    return trace


TRAVERSAL = [
    "../outside.ipynb",
    "%2e%2e/outside.ipynb",
    "..%2foutside.ipynb",
    "%2e%2e%2foutside.ipynb",
    "%252e%252e%252foutside.ipynb",
    "sub/../../outside.ipynb",
    "sub/..%2f..%2foutside.ipynb",
    "....//outside.ipynb",
    "..%5coutside.ipynb",
    "../root_dir-evil/outside.ipynb",
    "{absolute}",
    "/{absolute}",
    "{encoded}",
    "%2f{encoded}",
    "C:%5coutside.ipynb",
    "~/outside.ipynb",
    "file:{absolute}",
    "outside.ipynb%00",
    "%00",
    "a.ipynb%00.txt",
    "a.ipynb%0a",
    "%0aa.ipynb",
    "%ff.ipynb",
    ".hidden.ipynb",
    "%2ehidden.ipynb",
    ".hd/in.ipynb",
    "sub/.hd/in.ipynb",
    "sub/../.hidden.ipynb",
    "x" * 300 + ".ipynb",
    "x/" * 3000 + "x.ipynb",
]


@pytest.mark.parametrize("path", TRAVERSAL, ids=lambda path: path[:40])
async def test_path_out_of_bounds(server: Server, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is outside the root, or hidden, is not there (S39 to S47), as for `/api/contents`."""
    await notebooks(server)
    (server.root / "sub").mkdir()
    outside = server.root.parent / "outside.ipynb"
    trace = canary(server, outside)
    canary(server, server.root.parent / "root_dir-evil/outside.ipynb")
    for hidden in (".hidden.ipynb", ".hd/in.ipynb", "sub/.hd/in.ipynb"):
        canary(server, server.root / hidden)
    encoded = urllib.parse.quote(str(outside), safe="")
    path = path.format(absolute=str(outside), encoded=encoded)
    read = outside.stat().st_atime_ns
    contents = await server.fetch("GET", f"api/contents/{path}")
    for answer in (
        await server.describe(path),
        await server.run(path),
        await server.fetch("GET", f"api/nbexec/openapi.json?path={path}"),
        await server.fetch("GET", f"api/nbexec/{path}/x"),
    ):
        # Names that are too long for the disk are 500 there.
        assert answer.status == (404 if contents.status == 500 else contents.status), (answer, contents)
        assert answer.status in (400, 404)
        assert str(server.root) not in answer.body.decode() or str(outside) in path
    assert outside.stat().st_atime_ns == read
    assert not trace.exists()
    assert server.started == []
    assert contents.status == 500 or "Traceback" not in caplog.text


@pytest.mark.server(ContentsManager={"allow_hidden": True})
async def test_hidden_allowed(server: Server) -> None:
    """Where the server shows hidden files, they are run (S47)."""
    server.write(".hidden.ipynb", "1")
    assert (await server.run(".hidden.ipynb")).status == 200


async def test_symbolic_link_out_of_root(server: Server) -> None:
    """A symbolic link below the root is followed wherever it leads, as Jupyter does (S48)."""
    outside = server.root.parent / "elsewhere.ipynb"
    trace = canary(server, outside)
    (server.root / "link.ipynb").symlink_to(outside)
    contents = await server.fetch("GET", "api/contents/link.ipynb")
    answer = await server.run("link.ipynb")
    assert contents.status == answer.status == 200
    assert trace.exists()


# What a browser might make of an answer

SCRIPT = "<script>alert(1)</script>"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'


def assert_sandboxed(answer: Answer) -> None:
    """Check that the answer, shown by a browser, could do nothing."""
    assert answer.status == 200, answer
    policy = [part.strip() for part in answer.headers["Content-Security-Policy"].split(";")]
    assert "sandbox" in policy
    assert "default-src 'none'" in policy
    assert "allow-" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_json_answer_is_inert(server: Server) -> None:
    """Scripts in outputs are text in JSON (S49), and a callback argument changes nothing (S54)."""
    server.write("a.ipynb", f"from IPython.display import HTML\nprint({SCRIPT!r})\nHTML({SCRIPT!r})")
    answer = await server.run("a.ipynb")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert SCRIPT in answer.json["outputs"][0]["text"]
    for query in ("callback", "jsonp"):
        described = await server.describe(f"a.ipynb?{query}=alert")
        assert described.json["path"] == "a.ipynb"
        assert described.headers["Content-Type"] == "application/json"
        assert (await server.run("a.ipynb", query=f"?{query}=alert")).status == 400


async def test_html_answer_is_inert(server: Server) -> None:
    """A rendered notebook is sandboxed and holds no script (S50)."""
    markdown = {"cell_type": "markdown", "metadata": {}, "source": SCRIPT + "<img src=x onerror=alert(1)>"}
    source = f"from IPython.display import HTML\nprint({SCRIPT!r})\nHTML({SCRIPT!r} + {SVG!r})"
    server.write("a.ipynb", markdown, source)
    answer = await server.run("a.ipynb", headers={"Accept": "text/html"})
    assert_sandboxed(answer)
    page = answer.body.decode()
    assert "<script" not in page.lower()
    assert "onerror=alert" not in page.replace('"', "").replace("&quot;", "").partition("<body")[0]
    assert "<img src=x onerror" not in page
    assert "<svg" not in page or "onload=" not in page


@pytest.mark.parametrize("media_type", ["text/html+evil", "image/svg+xml", "application/javascript"])
async def test_raw_answer_is_inert(server: Server, media_type: str) -> None:
    """An output given as it is is sandboxed too (S51)."""
    server.write("a.ipynb", f"display({{{media_type!r}: {SVG!r}}}, raw=True)")
    answer = await server.run("a.ipynb", headers={"Accept": media_type})
    assert_sandboxed(answer)
    assert answer.media_type == media_type
    assert answer.body == SVG.encode()


async def test_html_in_path_stays_json(server: Server) -> None:
    """A path that is HTML comes back as a string in JSON (S53)."""
    path = urllib.parse.quote("<img src=x onerror=alert(1)>.ipynb")
    for answer in (await server.describe(path), await server.run(path)):
        assert answer.status == 404
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "<img" in answer.json["message"]


@pytest.mark.skipif(os.name != "posix", reason="a name with a line break")
async def test_log_has_one_line(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A path with line breaks and escape sequences is one harmless line in the log (S65)."""
    server.write("a\n\x1b[31mERROR.ipynb", "1")
    answer = await server.run(urllib.parse.quote("a\n\x1b[31mERROR.ipynb"))
    assert answer.status == 200
    lines = [record.getMessage() for record in caplog.records if "started, notebook" in record.getMessage()]
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert "\x1b" not in lines[0]
