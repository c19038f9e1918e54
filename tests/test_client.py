"""The Python client: what it sends, how it reads answers, and that both drivers do the same."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import pytest

from jupyter_nbexec import client, models
from jupyter_nbexec.client import address

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Driver = Callable[..., Any]

RUN: dict[str, Any] = {
    "id": "0e3b2f6c-1111-4222-8333-444455556666",
    "path": "sum.ipynb",
    "status": "succeeded",
    "duration": 0.5,
    "parameters": {"a": 1},
    "result": 15,
    "result_type": "application/json",
    "scraps": {"rows": 2},
    "outputs": [{"cell": 1, "cell_id": "x", "output_type": "stream", "name": "stdout", "text": "hi"}],
    "truncated": False,
    "warnings": ["An id twice."],
    "saved_as": "out/sum.ipynb",
    "error": None,
}
FAILED = {
    **RUN,
    "status": "failed",
    "result": None,
    "error": {
        "code": "cell_error",
        "message": "ZeroDivisionError: division by zero",
        "ename": "ZeroDivisionError",
        "evalue": "division by zero",
        "traceback": ["…"],
        "cell": 3,
        "cell_id": "d",
        "added_later": 1,
    },
}


class LiveServer(Protocol):
    """What the fixture `live_server` gives: a real `jupyter server` process."""

    url: str
    token: str
    root: Path


class FakeServer:
    """Answers every request alike and keeps the last one."""

    def __init__(self, response: httpx.Response | None = None, error: Exception | None = None) -> None:
        self.response = response or httpx.Response(200, json=RUN)
        self.error = error
        self.requests: list[httpx.Request] = []
        self.transport = httpx.MockTransport(self.handle)

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        # A new one each time, as a response can be read once.
        return httpx.Response(
            self.response.status_code, headers=self.response.headers, content=self.response.content
        )

    @property
    def request(self) -> httpx.Request:
        """The last request."""
        return self.requests[-1]

    @property
    def body(self) -> Any:
        """The last request's body."""
        return json.loads(self.request.content)


def call_blocking(server: FakeServer, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the blocking client."""
    with client.Client("http://host:8888/base/", "secret", transport=server.transport) as connected:
        return getattr(connected, method)(*args, **kwargs)


def call_async(server: FakeServer, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the async client."""

    async def call() -> Any:
        async with client.AsyncClient(
            "http://host:8888/base", "secret", transport=server.transport
        ) as connected:
            return await getattr(connected, method)(*args, **kwargs)

    return asyncio.run(call())


@pytest.fixture(params=[call_blocking, call_async], ids=["blocking", "async"])
def call(request: pytest.FixtureRequest) -> Driver:
    """Call a method of a client, in both manners."""
    driver: Driver = request.param
    return driver


# What is sent


def test_run_sends_only_what_is_given(call: Driver) -> None:
    """A plain run is a POST with an empty object, the token in its header, JSON wanted."""
    server = FakeServer()

    call(server, "run", "reports/sales.ipynb")

    assert server.request.method == "POST"
    assert str(server.request.url) == "http://host:8888/base/api/nbexec/reports/sales.ipynb"
    assert server.request.headers["Authorization"] == "token secret"
    assert server.request.headers["Accept"] == "application/json"
    assert server.request.headers["Content-Type"] == "application/json"
    assert server.body == {}


def test_run_sends_every_option(call: Driver) -> None:
    """Every option goes into the field of the same name; options that are None are left out."""
    server = FakeServer()

    call(
        server,
        "run",
        "a.ipynb",
        {"x": [1, None]},
        accept="text/html",
        kernel_name="ir",
        kernel_id=None,
        timeout=5,
        cell_timeout=1.5,
        allow_errors=False,
        outputs={"plot"},
        env={"SECRET": "s"},
        save_as="out/{run_id}.ipynb",
    )

    assert server.request.headers["Accept"] == "text/html"
    assert server.body == {
        "parameters": {"x": [1, None]},
        "kernel_name": "ir",
        "timeout": 5,
        "cell_timeout": 1.5,
        "allow_errors": False,
        "outputs": {"tags": ["plot"]},
        "env": {"SECRET": "s"},
        "save_as": "out/{run_id}.ipynb",
    }


def test_a_notebook_goes_into_the_body(call: Driver) -> None:
    """A notebook itself is sent in the body, to the resource without a path."""
    server = FakeServer()
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}

    call(server, "run", notebook, {"a": 1}, outputs="last")

    assert str(server.request.url) == "http://host:8888/base/api/nbexec"
    assert server.body == {"notebook": notebook, "parameters": {"a": 1}, "outputs": "last"}


@pytest.mark.parametrize(
    ("path", "encoded"),
    [
        ("a b.ipynb", b"a%20b.ipynb"),
        ("weird#name?.ipynb", b"weird%23name%3F.ipynb"),
        ("100%25.ipynb", b"100%2525.ipynb"),
        ("Übung/é.ipynb", b"%C3%9Cbung/%C3%A9.ipynb"),
        ("/leading.ipynb", b"leading.ipynb"),
        ("a\\b;c&d=e+f.ipynb", b"a%5Cb%3Bc%26d%3De%2Bf.ipynb"),
        ("http://evil/x.ipynb", None),
        ("..hidden/x..ipynb", b"..hidden/x..ipynb"),
    ],
)
def test_paths_are_percent_encoded(call: Driver, path: str, encoded: bytes | None) -> None:
    """Whatever a notebook is called, its name arrives as it is, on this server."""
    server = FakeServer()
    if encoded is None:
        with pytest.raises(ValueError, match="no contents path"):
            call(server, "describe", path)
        return

    call(server, "describe", path)

    assert server.request.url.raw_path == b"/base/api/nbexec/" + encoded


@pytest.mark.parametrize("path", ["../../api/contents/x", "a/../b.ipynb", "./a.ipynb", "a//b.ipynb", "", "/"])
def test_paths_cannot_reach_other_resources(call: Driver, path: str) -> None:
    """A path that would be resolved to another resource is never sent."""
    server = FakeServer()

    with pytest.raises(ValueError, match="no contents path"):
        call(server, "run", path)

    assert server.requests == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_without_a_json_form_are_not_sent(call: Driver, value: float) -> None:
    """A NaN among the parameters is an error of the caller, not a bent value."""
    server = FakeServer()

    with pytest.raises(ValueError, match="JSON"):
        call(server, "run", "a.ipynb", {"x": value})

    assert server.requests == []


def test_describe_is_a_get(call: Driver) -> None:
    """A description is fetched, and returned as it came."""
    description = {"path": "a.ipynb", "parameters": []}
    server = FakeServer(httpx.Response(200, json=description))

    assert call(server, "describe", "a.ipynb") == description
    assert server.request.method == "GET"
    assert server.request.content == b""


# How answers are read


def test_a_run_is_read(call: Driver) -> None:
    """A run becomes a typed value that keeps the answer as it came."""
    run = call(FakeServer(), "run", "sum.ipynb")

    assert isinstance(run, client.RunResult)
    assert (run.id, run.path, run.status) == (RUN["id"], "sum.ipynb", models.RunStatus.SUCCEEDED)
    assert (run.result, run.result_type, run.duration, run.truncated) == (15, "application/json", 0.5, False)
    assert (run.scraps, run.outputs, run.parameters) == (RUN["scraps"], RUN["outputs"], RUN["parameters"])
    assert (run.warnings, run.saved_as) == (["An id twice."], "out/sum.ipynb")
    assert run.error is None
    assert run.raw == RUN
    assert run.succeeded
    assert run.raise_for_status() is run


@pytest.mark.parametrize("status", [500, 502, 503, 504, 409])
def test_a_failed_run_is_a_result(call: Driver, status: int) -> None:
    """A run that failed is returned; only raise_for_status raises, with the run."""
    run = call(FakeServer(httpx.Response(status, json=FAILED)), "run", "sum.ipynb", accept="image/png")

    assert not run.succeeded
    assert run.error.code is models.ErrorCode.CELL_ERROR
    assert (run.error.ename, run.error.cell, run.error.traceback) == ("ZeroDivisionError", 3, ["…"])
    with pytest.raises(client.RunFailed, match="division by zero") as raised:
        run.raise_for_status()
    assert raised.value.answer is run


def test_a_cancelled_run_has_no_error(call: Driver) -> None:
    """A run that another client cancelled fails with its status for a message."""
    run = call(FakeServer(httpx.Response(409, json={**RUN, "status": "cancelled"})), "run", "sum.ipynb")

    with pytest.raises(client.RunFailed, match="cancelled"):
        run.raise_for_status()


def test_another_shape_is_content(call: Driver) -> None:
    """What was asked for by its media type comes as bytes with their type."""
    response = httpx.Response(200, content=b"\x89PNG", headers={"Content-Type": "image/png"})

    content = call(FakeServer(response), "run", "sum.ipynb", accept="image/png")

    assert content == client.Content(body=b"\x89PNG", content_type="image/png", status_code=200)
    assert content.raise_for_status() is content


def test_the_notebook_of_a_failed_run_is_content(call: Driver) -> None:
    """A failed run still answers with the notebook where that was asked for."""
    headers = {"Content-Type": "application/x-ipynb+json"}
    response = httpx.Response(500, content=b"{}", headers=headers)

    content = call(FakeServer(response), "run", "sum.ipynb", accept="application/x-ipynb+json")

    assert content.body == b"{}"
    with pytest.raises(client.RunFailed, match="500"):
        content.raise_for_status()


def test_a_refusal_carries_all_it_says(call: Driver) -> None:
    """A refused request raises its status, code, message, errors and further members."""
    errors = [{"parameter": "a", "message": "must be an integer"}]
    body = {"message": "No.", "reason": None, "code": "invalid_parameter", "errors": errors, "more": 1}

    with pytest.raises(client.RequestRefused, match="No") as raised:
        call(FakeServer(httpx.Response(400, json=body)), "run", "sum.ipynb")

    refusal = raised.value
    assert (refusal.status, refusal.code, refusal.message) == (400, "invalid_parameter", "No.")
    assert refusal.errors == errors
    assert refusal.details == {"errors": errors, "more": 1}
    assert refusal.retry_after is None


def test_a_full_queue_says_when_to_come_back(call: Driver) -> None:
    """Retry-After is read where it is given."""
    body = {"message": "Full.", "reason": None, "code": "queue_full"}
    response = httpx.Response(429, json=body, headers={"Retry-After": "7"})

    with pytest.raises(client.RequestRefused) as raised:
        call(FakeServer(response), "run", "sum.ipynb")

    assert raised.value.retry_after == 7.0


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (httpx.Response(403, json={"message": "Forbidden", "reason": None}), "know this token.*Forbidden"),
        (httpx.Response(404, json={"message": "Not Found", "reason": None}), "may not be enabled"),
        (httpx.Response(404, html="<h1>404</h1>"), "HTTP 404 Not Found.*may not be enabled"),
        (
            httpx.Response(404, headers={"X-JupyterHub-Version": "6"}),
            "HTTP 404 Not Found.*may not be enabled",
        ),
        (httpx.Response(502, html="<h1>proxy</h1>"), "HTTP 502 Bad Gateway"),
        (httpx.Response(302, headers={"Location": "/hub/login?next=1"}), "redirects to /hub/login;"),
    ],
    ids=["forbidden", "no extension", "no extension, html", "no extension, hub", "proxy", "login"],
)
def test_refusals_of_others_have_no_code(call: Driver, response: httpx.Response, message: str) -> None:
    """Refusals that are not jupyter_nbexec's own say what may be wrong."""
    with pytest.raises(client.RequestRefused, match=message) as raised:
        call(FakeServer(response), "run", "sum.ipynb")

    assert raised.value.code is None


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(403, html="<h1>403 : '_xsrf' argument missing</h1>"),
        httpx.Response(302, headers={"Location": "/hub/user/alice/api/nbexec/sum.ipynb"}),
    ],
    ids=["run", "describe"],
)
def test_a_hub_answers_in_place_of_a_server(call: Driver, response: httpx.Response) -> None:
    """What JupyterHub answers for a server that is not running is told as such, and not the token blamed."""
    response.headers["X-JupyterHub-Version"] = "6.1.1"
    with pytest.raises(client.RequestRefused, match="place of the server, which is not running"):
        call(FakeServer(response), "run", "sum.ipynb")


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, html="<h1>Login</h1>"),
        httpx.Response(200, json={"id": 1}),
        httpx.Response(200, json=[]),
        httpx.Response(200, content=b"{", headers={"Content-Type": "application/json"}),
        httpx.Response(500, json={**FAILED, "error": {"code": "not_yet_invented", "message": "?"}}),
        httpx.Response(204),
    ],
    ids=["html", "not a run", "not an object", "not json", "from the future", "empty"],
)
def test_foreign_answers_are_named_such(call: Driver, response: httpx.Response) -> None:
    """What does not speak this API is told apart from a refusal."""
    with pytest.raises(client.UnexpectedAnswer):
        call(FakeServer(response), "run", "sum.ipynb")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (httpx.ConnectError("refused"), "No server answers at http://host:8888/base/api.*refused"),
        (httpx.ConnectTimeout(""), "No server answers.*ConnectTimeout"),
        (httpx.ReadError(""), "connection to .* was lost.*ReadError"),
        (httpx.RemoteProtocolError("peer closed"), "was lost.*peer closed"),
    ],
)
def test_a_server_out_of_reach_is_an_error_of_its_own(call: Driver, error: Exception, message: str) -> None:
    """A connection that cannot be made, or is lost, raises ServerUnreachable."""
    with pytest.raises(client.ServerUnreachable, match=message):
        call(FakeServer(error=error), "run", "sum.ipynb")


# URLs, tokens, proxies


@pytest.mark.parametrize("kind", [client.Client, client.AsyncClient])
def test_the_token_is_never_shown(kind: type[client.Client]) -> None:
    """Neither the repr nor the URL of a client holds its token or password."""
    connected = kind("http://me:pass@host:8888/lab/?token=s3cret")

    assert repr(connected) == f"<{kind.__name__} 'http://host:8888/lab/'>"


def test_a_url_may_carry_the_token_as_jupyter_prints_it() -> None:
    """The token of a pasted URL goes into the header, and out of the URL."""
    server = FakeServer()

    client.Client("http://host:8888/?token=s3cret#x", transport=server.transport).run("a.ipynb")

    assert server.request.headers["Authorization"] == "token s3cret"
    assert str(server.request.url) == "http://host:8888/api/nbexec/a.ipynb"


def test_a_token_that_no_header_can_carry_is_refused_unseen() -> None:
    """A broken token is refused with a message that does not show it."""
    with pytest.raises(ValueError, match="the token") as raised:
        client.Client("http://host:8888", "s3c\nret")

    assert "s3c" not in str(raised.value)


def test_space_around_a_token_is_no_part_of_it() -> None:
    """A token read from a file may end in a newline."""
    server = FakeServer()

    client.Client("http://host", "secret\n", transport=server.transport).run("a.ipynb")

    assert server.request.headers["Authorization"] == "token secret"


@pytest.mark.parametrize("url", ["", "host:8888", "ftp://host", "http://", "localhost"])
def test_a_url_without_a_server_is_refused(url: str) -> None:
    """What is no URL of a server is an error before anything is sent."""
    with pytest.raises(ValueError, match="URL must begin"):
        client.Client(url)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:8888", True),
        ("http://127.0.0.2:8888", True),
        ("http://[::1]:8888/x", True),
        ("http+unix://%2Ftmp%2Fj.sock/x", True),
        ("http://host:8888", False),
        ("http://10.0.0.1", False),
    ],
)
def test_a_local_server_is_reached_without_a_proxy(url: str, *, local: bool) -> None:
    """Proxies of the environment are for other hosts, as no proxy leads to this machine."""
    place = address.Address.parse(url, None)
    settings = address.settings(place, connect_timeout=1, read_timeout=None, verify=True)

    assert settings["trust_env"] is not local


def test_runs_may_take_for_ever_but_connecting_may_not() -> None:
    """By default there is no limit on reading, and one on connecting."""
    place = address.Address.parse("http://host", None)

    timeout = address.settings(place, connect_timeout=10.0, read_timeout=None, verify=True)["timeout"]

    assert timeout == httpx.Timeout(None, connect=10.0)


def test_all_names_are_public() -> None:
    """`__all__` is sorted and lists what the package offers to others."""
    offered = [
        name
        for name, value in vars(client).items()
        if not name.startswith("_")
        and isinstance(value, type)
        and value.__module__.startswith(client.__name__)
    ]

    assert client.__all__ == sorted(offered)


# A real server


def test_a_real_run(live_server: LiveServer) -> None:
    """The client and a real server understand each other, also on a name that needs encoding."""
    name = "añ b#c%20?.ipynb"
    write_notebook(live_server, name, "a = 1", "a + 41")

    with client.Client(live_server.url, live_server.token) as connected:
        run = connected.run(name, {"a": 2}, timeout=60).raise_for_status()
        described = connected.describe(name)

    assert (run.result, run.path) == (43, name)
    assert [parameter["name"] for parameter in described["parameters"]] == ["a"]


def test_real_refusals_and_failures(live_server: LiveServer) -> None:
    """A real server's refusals raise, its failed runs do not."""
    write_notebook(live_server, "client-fails.ipynb", "a = 1", "1 / 0")

    async def scenario() -> None:
        async with client.AsyncClient(live_server.url, live_server.token) as connected:
            with pytest.raises(client.RequestRefused) as raised:
                await connected.run("client-missing.ipynb")
            assert (raised.value.status, raised.value.code) == (404, "notebook_not_found")
            with pytest.raises(client.RequestRefused) as raised:
                await connected.run("client-fails.ipynb", {"b": 1})
            assert raised.value.errors[0]["parameter"] == "b"
            run = await connected.run("client-fails.ipynb")
            assert run.error is not None
            assert run.error.ename == "ZeroDivisionError"

    asyncio.run(asyncio.wait_for(scenario(), 120))


@pytest.mark.parametrize(("token", "said"), [("wrong", "not know this token"), ("", "no token was sent")])
def test_a_real_server_refuses_a_wrong_token(live_server: LiveServer, token: str, said: str) -> None:
    """A wrong token is told as such, a missing one as missing, whatever is asked for."""
    with client.Client(live_server.url, token) as connected:
        for ask in (connected.describe, connected.run):
            with pytest.raises(client.RequestRefused, match=said) as raised:
                ask("any.ipynb")
            assert (raised.value.status, raised.value.code) == (403, "forbidden")


def write_notebook(server: LiveServer, name: str, parameters: str, *sources: str) -> None:
    """Put a small notebook with a `parameters` cell below the server's root."""
    tagged = {"tags": ["parameters"]}
    cells: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "id": f"c{index}",
            "metadata": {} if index else tagged,
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for index, source in enumerate([parameters, *sources])
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
    (server.root / name).write_text(json.dumps(notebook), encoding="utf-8")
