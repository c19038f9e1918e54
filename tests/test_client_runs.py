"""The client and runs that exist: what it sends, how it waits and follows, and when it tries again."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import httpx
import nbformat
import pytest

from jupyter_nbexec import client, models
from jupyter_nbexec.client import flows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from tests.conftest import LiveServer

ID = "0e3b2f6c-1111-4222-8333-444455556666"
RUN: dict[str, Any] = {
    "id": ID,
    "path": "sum.ipynb",
    "status": "succeeded",
    "created": "2026-11-20T10:00:00.000Z",
    "started": "2026-11-20T10:00:01.500Z",
    "ended": "2026-11-20T10:00:02.000Z",
    "progress": {"done": 2, "total": 3, "cell": None},
    "result": 15,
    "error": None,
}
QUEUED = {**RUN, "status": "queued", "started": None, "ended": None, "result": None}
LOST = client.ServerUnreachable("lost")


def unavailable(**headers: str) -> httpx.Response:
    """What a server answers while it stops."""
    return httpx.Response(503, json={"message": "Stopping.", "code": "stopping"}, headers=headers)


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in pieces, and maybe breaks off."""

    def __init__(self, pieces: list[bytes | Exception]) -> None:
        self.pieces = pieces
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        """Note it."""
        self.is_closed = True

    async def aclose(self) -> None:
        """Note it."""
        self.is_closed = True


def stream(*pieces: bytes | Exception) -> httpx.Response:
    """A stream of events."""
    return httpx.Response(
        200, headers={"Content-Type": "text/event-stream; charset=utf-8"}, stream=Pieces(list(pieces))
    )


def event(number: int, kind: str, data: object) -> bytes:
    """An event as the server sends it."""
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


class FakeServer:
    """Answers one request after another from a list; the last answer again and again."""

    def __init__(self, *responses: httpx.Response | Exception) -> None:
        self.responses = list(responses)
        self.requests: list[httpx.Request] = []
        self.transport = httpx.MockTransport(self.handle)

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        self.requests.append(request)
        response = self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]
        if isinstance(response, Exception):
            raise response
        if isinstance(response.stream, Pieces):
            return response
        # A new one each time, as a response can be read once.
        return httpx.Response(response.status_code, headers=response.headers, content=response.content)

    @property
    def sent(self) -> tuple[str, str]:
        """Method and URL of the last request."""
        return self.requests[-1].method, str(self.requests[-1].url).removeprefix(
            "http://host/base/api/nbexec"
        )


def call_blocking(server: FakeServer, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the blocking client; an iterator becomes a list."""
    with client.Client("http://host/base", transport=server.transport) as connected:
        answer = getattr(connected, method)(*args, **kwargs)
        return list(answer) if hasattr(answer, "__next__") else answer


def call_async(server: FakeServer, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the async client; an iterator becomes a list."""

    async def call() -> Any:
        async with client.AsyncClient("http://host/base", transport=server.transport) as connected:
            answer = getattr(connected, method)(*args, **kwargs)
            return [item async for item in answer] if hasattr(answer, "__anext__") else await answer

    return asyncio.run(asyncio.wait_for(call(), 60))


@pytest.fixture(params=[call_blocking, call_async], ids=["blocking", "async"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call a method of a client, in both manners."""
    driver: Callable[..., Any] = request.param
    return driver


# What is sent, and how answers are read


def test_submit_does_not_wait(call: Callable[..., Any]) -> None:
    """A run is submitted by a preference, and comes back queued."""
    server = FakeServer(httpx.Response(202, json=QUEUED))

    run = call(server, "submit", "sum.ipynb", {"a": 1}, idempotency_key="k 1", outputs=["plot"])

    assert server.sent == ("POST", "/sum.ipynb")
    assert server.requests[0].headers["Prefer"] == "respond-async"
    assert server.requests[0].headers["Idempotency-Key"] == "k 1"
    assert json.loads(server.requests[0].content) == {"parameters": {"a": 1}, "outputs": {"tags": ["plot"]}}
    assert (run.id, run.status, run.started, run.ended) == (ID, models.RunStatus.QUEUED, None, None)
    assert run.created == datetime(2026, 11, 20, 10, tzinfo=timezone.utc)
    assert not run.is_final
    with pytest.raises(ValueError, match="has not ended: it is queued"):
        run.raise_for_status()


def test_run_without_a_key_sends_none(call: Callable[..., Any]) -> None:
    """Neither a key nor a preference is sent unasked, since either lets a run go on without its client."""
    server = FakeServer(httpx.Response(200, json=RUN))

    call(server, "run", "sum.ipynb")
    assert not {"prefer", "idempotency-key"} & set(server.requests[0].headers)
    run = call(server, "run", "sum.ipynb", idempotency_key="k")

    assert server.requests[1].headers["Idempotency-Key"] == "k"
    assert run.progress == models.Progress(done=2, total=3)


@pytest.mark.parametrize("key", ["", " k", "k\n", "é", "x" * 256])
def test_a_key_that_would_be_bent_is_not_sent(call: Callable[..., Any], key: str) -> None:
    """A key is sent as it is, or not at all."""
    server = FakeServer(httpx.Response(200, json=RUN))

    for method in ("run", "submit"):
        with pytest.raises(ValueError, match="idempotency key"):
            call(server, method, "sum.ipynb", idempotency_key=key)

    assert server.requests == []


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://host/x", {"url": "https://host/x"}),
        ({"url": "u", "secret": None}, {"url": "u"}),
        (
            {"url": "u", "events": ("ended",), "secret": "whsec_x"},
            {"url": "u", "events": ["ended"], "secret": "whsec_x"},
        ),
    ],
)
def test_a_webhook_is_sent(call: Callable[..., Any], given: Any, sent: Any) -> None:
    """A webhook is a URL, or an object as in the contract."""
    server = FakeServer(httpx.Response(202, json=QUEUED))

    call(server, "submit", "sum.ipynb", webhook=given)

    assert json.loads(server.requests[0].content) == {"webhook": sent}


def test_a_list_is_read(call: Callable[..., Any]) -> None:
    """A page has runs without outputs, and says where the next one begins."""
    answer = {"runs": [QUEUED, RUN], "cursor": "c"}
    server = FakeServer(httpx.Response(200, json=answer))

    page = call(server, "runs")
    assert server.sent == ("GET", "/runs?limit=50")
    assert [run.status.value for run in page.runs] == ["queued", "succeeded"]
    assert (page.cursor, page.raw) == ("c", answer)
    call(server, "runs", "a b/ü#.ipynb", models.RunStatus.FAILED, 7, "c=&")

    url = server.requests[-1].url
    assert dict(url.params) == {"path": "a b/ü#.ipynb", "status": "failed", "limit": "7", "cursor": "c=&"}
    assert url.fragment == ""


def test_all_runs_come_page_by_page(call: Callable[..., Any]) -> None:
    """The iterator asks for the next page until there is none."""
    pages = [
        {"runs": [QUEUED, QUEUED], "cursor": "1"},
        {"runs": [], "cursor": "2"},
        {"runs": [RUN], "cursor": None},
    ]
    server = FakeServer(*(httpx.Response(200, json=page) for page in pages))

    found = call(server, "all_runs", status="queued")

    assert [run.status.value for run in found] == ["queued", "queued", "succeeded"]
    assert [dict(request.url.params) for request in server.requests] == [
        {"status": "queued", "limit": "500"},
        {"status": "queued", "limit": "500", "cursor": "1"},
        {"status": "queued", "limit": "500", "cursor": "2"},
    ]


def test_pages_are_fetched_as_they_are_needed() -> None:
    """Who has seen enough makes no further request."""
    server = FakeServer(httpx.Response(200, json={"runs": [RUN, RUN], "cursor": "1"}))

    with client.Client("http://host/base", transport=server.transport) as connected:
        next(connected.all_runs())

    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [{"runs": [{}], "cursor": None}, {"runs": [1], "cursor": None}, {"cursor": None}, {"runs": []}, RUN],
    ids=["no run", "no object", "no runs", "no cursor", "one run"],
)
def test_what_is_no_list_is_named_such(call: Callable[..., Any], answer: Any) -> None:
    """A page that cannot be read is no traceback of ours."""
    with pytest.raises(client.UnexpectedAnswer):
        call(FakeServer(httpx.Response(200, json=answer)), "runs")


def test_one_run(call: Callable[..., Any]) -> None:
    """A run is fetched by its id, at once or when it has ended."""
    server = FakeServer(httpx.Response(200, json=RUN))

    assert call(server, "get", ID).result == 15
    assert server.sent == ("GET", f"/runs/{ID}")
    assert server.requests[0].extensions["timeout"]["read"] is None
    call(server, "get", ID.upper(), wait=2.5)

    assert server.sent == ("GET", f"/runs/{ID}?wait=2.5")
    assert server.requests[1].extensions["timeout"]["read"] == 32.5
    assert server.requests[1].extensions["timeout"]["connect"] == 10.0


def test_a_failed_run_that_is_fetched_is_a_result(call: Callable[..., Any]) -> None:
    """A failed run is fetched like any other."""
    error = {"code": "server_stopped", "message": "The server stopped."}
    server = FakeServer(httpx.Response(200, json={**RUN, "status": "failed", "error": error}))

    run = call(server, "get", ID)

    assert run.error.code is models.ErrorCode.SERVER_STOPPED


@pytest.mark.parametrize(
    ("method", "sent", "response", "answer"),
    [
        ("cancel", ("POST", f"/runs/{ID}/cancel"), httpx.Response(202, json=RUN), None),
        ("cancel", ("POST", f"/runs/{ID}/cancel"), httpx.Response(202), None),
        ("delete", ("DELETE", f"/runs/{ID}"), httpx.Response(204), None),
    ],
)
def test_commands_on_a_run(
    call: Callable[..., Any], method: str, sent: tuple[str, str], response: httpx.Response, answer: object
) -> None:
    """Cancelling and forgetting are single requests with nothing to return."""
    server = FakeServer(response)

    assert call(server, method, ID) == answer
    assert server.sent == sent


def test_prune(call: Callable[..., Any]) -> None:
    """Pruning tells how many runs were forgotten."""
    server = FakeServer(httpx.Response(200, json={"deleted": 7}))

    assert call(server, "prune") == 7
    assert server.sent == ("POST", "/runs/prune")


@pytest.mark.parametrize("accept", ["application/x-ipynb+json", "text/html"])
def test_the_executed_notebook(call: Callable[..., Any], accept: str) -> None:
    """The notebook comes in the shape asked for, byte by byte."""
    server = FakeServer(httpx.Response(200, content=b"{}", headers={"Content-Type": accept}))

    content = call(server, "notebook", ID, accept)

    assert (content.body, content.content_type) == (b"{}", accept)
    assert server.sent == ("GET", f"/runs/{ID}/notebook")
    assert server.requests[0].headers["Accept"] == accept


@pytest.mark.parametrize(
    ("status", "code", "method"),
    [
        (404, "run_not_found", "get"),
        (404, "run_not_found", "wait"),
        (404, "run_not_found", "events"),
        (404, "run_not_found", "notebook"),
        (404, "run_not_found", "delete"),
        (409, "run_ended", "cancel"),
        (503, "stopping", "wait"),
        (503, "stopping", "events"),
    ],
)
def test_refusals(call: Callable[..., Any], status: int, code: str, method: str) -> None:
    """A refusal raises at once, with its code; so does a server that was not there at the first request."""
    server = FakeServer(httpx.Response(status, json={"message": "No.", "reason": None, "code": code}))

    with pytest.raises(client.RequestRefused, match="No") as raised:
        call(server, method, ID)

    assert (raised.value.status, raised.value.code) == (status, code)
    assert len(server.requests) == 1


@pytest.mark.parametrize("run_id", ["", "x", "../kernels", f"{ID}/cancel", "prune"])
@pytest.mark.parametrize("method", ["get", "wait", "events", "cancel", "delete", "notebook"])
def test_what_is_no_id_is_not_sent(call: Callable[..., Any], method: str, run_id: str) -> None:
    """An id is a UUID; nothing else becomes part of a URL."""
    server = FakeServer(httpx.Response(200, json=RUN))

    with pytest.raises(ValueError, match="no id of a run"):
        call(server, method, run_id)

    assert server.requests == []


# Waiting and following, with a clock of our own


class Script:
    """Carries out a flow with answers from a list; its clock goes only by what is waited for."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.steps: list[object] = []
        self.items: list[Any] = []
        self.now = 1000.0

    def run(self, flow: Generator[Any, Any, Any]) -> Any:
        """Return the flow's value."""
        step = flows.advance(flow, None)
        while not isinstance(step, flows.Done):
            step = flows.advance(flow, self.answer(step))
        return step.value

    def answer(self, step: object) -> object:
        """Carry out a step."""
        match step:
            case flows.Now():
                return self.now
            case flows.Emit():
                self.items.append(step.item)
                return None
            case flows.Pause():
                self.now += step.seconds
        self.steps.append(step)
        if isinstance(step, flows.Pause):
            return None
        answer = self.answers.pop(0)
        if isinstance(answer, tuple):  # after so many seconds
            self.now += answer[0]
            answer = answer[1]
        return answer

    @property
    def pauses(self) -> list[float]:
        """How long was waited between requests."""
        return [step.seconds for step in self.steps if isinstance(step, flows.Pause)]

    @property
    def paths(self) -> list[str]:
        """What was requested."""
        return [step.path.partition("?")[2] for step in self.steps if isinstance(step, flows.Call)]

    @property
    def last_ids(self) -> list[str | None]:
        """What each stream was resumed after."""
        return [
            step.call.headers.get("Last-Event-ID") for step in self.steps if isinstance(step, flows.Listen)
        ]


def result(**changes: Any) -> client.RunResult:
    """A run."""
    return client.RunResult.from_json({**RUN, **changes})


def test_waiting_polls_until_the_run_has_ended() -> None:
    """A long run is asked for again and again, each time as long as the server allows."""
    script = Script((60, result(status="queued")), (60, result(status="running")), (3, result()))

    assert script.run(flows.wait(ID)).succeeded
    assert script.paths == ["wait=60"] * 3
    assert script.pauses == []


def test_waiting_ends_in_time() -> None:
    """After the timeout the run is returned as it is, and the last request is no longer than that."""
    script = Script((60, result(status="queued")), (15, result(status="running")))

    assert script.run(flows.wait(ID, 75)).status is models.RunStatus.RUNNING
    assert script.paths == ["wait=60", "wait=15"]
    assert Script(result(status="running")).run(flows.wait(ID, 0)).status is models.RunStatus.RUNNING


def test_a_server_that_does_not_hold_the_answer_is_not_flooded() -> None:
    """Answers that come before their time are asked for once a second at most."""
    script = Script(*[(0.25, result(status="queued"))] * 4, result())

    script.run(flows.wait(ID))
    assert script.pauses == [0.75] * 4


def test_waiting_survives_a_restart() -> None:
    """Losses and passing refusals are tried again, with pauses that grow, and shrink after success."""
    refused = client.RequestRefused(503, "Stopping.", code="stopping")
    script = Script(
        (60, result(status="queued")),
        (45, LOST),
        refused,
        LOST,
        (60, result(status="running")),
        LOST,
        result(),
    )

    assert script.run(flows.wait(ID)).succeeded
    assert script.pauses == [0.25, 0.5, 1.0, 0.25]


def test_waiting_gives_up() -> None:
    """A server that stays away is an error after a while, counted from the first loss."""
    script = Script((60, result(status="queued")), *[LOST] * 100)

    with pytest.raises(client.ServerUnreachable):
        script.run(flows.wait(ID, reconnect=20))

    assert 10 < sum(script.pauses) <= 20


def test_a_lost_server_does_not_prolong_the_timeout() -> None:
    """The timeout holds while the server is away, too."""
    script = Script((5, result(status="queued")), *[LOST] * 100)

    with pytest.raises(client.ServerUnreachable):
        script.run(flows.wait(ID, 10))

    assert script.now <= 1010


def test_retry_after_is_heeded() -> None:
    """A server that says when to come back is not asked before."""
    script = Script(
        (60, result(status="queued")), client.RequestRefused(429, "Full.", retry_after=7.0), result()
    )

    script.run(flows.wait(ID))
    assert script.pauses == [7.0]


def test_following_to_the_end() -> None:
    """Events come in order; those with a run have it read; the end ends it."""
    script = Script(
        None,
        event(1, "status", QUEUED) + b": keep-alive\n\n" + event(2, "cell", {"state": "started"})[:-1],
        b"\n" + event(9, "end", RUN) + event(10, "output", {}),
    )

    script.run(flows.events(ID))
    assert [(item.id, item.type) for item in script.items] == [(1, "status"), (2, "cell"), (9, "end")]
    assert script.items[0].run.status is models.RunStatus.QUEUED
    assert (script.items[1].run, script.items[1].data) == (None, {"state": "started"})
    assert script.items[2].run.result == 15
    assert script.last_ids == [None]


def test_following_goes_on_where_it_broke() -> None:
    """After a loss only what came whole counts; what is sent twice is emitted once."""
    script = Script(
        *(None, event(1, "output", "a") + event(2, "output", "b")[:-1], LOST),
        *(None, None),  # opened, and closed at once
        *(LOST,),
        *(client.RequestRefused(502, "Bad gateway"),),
        *(None, event(1, "output", "a") + event(2, "output", "b"), None),
        *(None, event(3, "end", RUN)),
    )
    losses: list[client.ClientError] = []

    script.run(flows.events(ID, on_lost=losses.append))
    assert [(item.id, item.data) for item in script.items[:2]] == [(1, "a"), (2, "b")]
    assert [item.id for item in script.items] == [1, 2, 3]
    assert script.last_ids == [None, "1", "1", "1", "1", "2"]
    assert script.pauses == [0.25, 0.5, 1.0, 2.0, 0.25]
    assert len(losses) == 5


def test_following_can_begin_anywhere() -> None:
    """`after` resumes as after a loss."""
    script = Script(None, event(7, "output", "a") + event(8, "end", RUN))

    script.run(flows.events(ID, 7))
    assert script.last_ids == ["7"]
    assert [item.id for item in script.items] == [8]


def test_the_end_counts_whatever_its_id() -> None:
    """A server that was killed has forgotten the last events; its end may have an id that was seen before."""
    script = Script(None, event(50, "output", "a"), LOST, None, event(21, "end", RUN))

    script.run(flows.events(ID))
    assert [item.type for item in script.items] == ["output", "end"]


def test_following_gives_up() -> None:
    """A server that stays away, or says nothing, is an error after a while; keep-alives are a sign of it."""
    script = Script(None, b": keep-alive\n\n", (100, b": keep-alive\n\n"), *[LOST] * 100)

    with pytest.raises(client.ServerUnreachable):
        script.run(flows.events(ID, reconnect=30))
    assert 15 < sum(script.pauses) <= 30
    silent = Script(*[None] * 100)
    with pytest.raises(client.ServerUnreachable, match="ended before the run"):
        silent.run(flows.events(ID, reconnect=30))


def test_the_server_says_how_fast_to_come_back() -> None:
    """`retry` is the least pause."""
    script = Script(None, b"retry: 3000\n\n", LOST, None, event(1, "end", RUN))

    script.run(flows.events(ID))
    assert script.pauses == [3.0]


@pytest.mark.parametrize(
    "data",
    [
        b"data: {\nid: 1\n\n",
        b"data: {}\n\n",
        b"event: status\nid: 1\ndata: []\n\n",
        b"event: end\nid: 1\ndata: {}\n\n",
    ],
    ids=["no json", "no id", "no object", "no run"],
)
def test_what_is_no_event_is_named_such(data: bytes) -> None:
    """An event that cannot be read is told apart from a lost connection."""
    with pytest.raises(client.UnexpectedAnswer):
        Script(None, data).run(flows.events(ID))


# Following over a transport


def test_events_over_http(call: Callable[..., Any]) -> None:
    """Both drivers open the stream as they should, resume it, and close each connection."""
    streams = [stream(event(1, "output", "a"), httpx.ReadError("gone")), stream(event(2, "end", RUN))]
    server = FakeServer(*streams)

    found = call(server, "events", ID)

    assert [item.id for item in found] == [1, 2]
    assert server.sent == ("GET", f"/runs/{ID}/events")
    first, second = server.requests
    assert (first.headers["Accept"], first.headers["Accept-Encoding"]) == ("text/event-stream", "identity")
    assert "Last-Event-ID" not in first.headers
    assert second.headers["Last-Event-ID"] == "1"
    assert first.extensions["timeout"]["read"] == 45.0
    assert [response.is_closed for response in streams] == [True, True]


@pytest.mark.parametrize(
    "response",
    [httpx.Response(200, json=RUN), httpx.Response(204), httpx.Response(200, html="<p>login</p>")],
    ids=["json", "nothing", "html"],
)
def test_what_is_no_stream_is_named_such(call: Callable[..., Any], response: httpx.Response) -> None:
    """An answer of another type is no stream of events."""
    with pytest.raises(client.UnexpectedAnswer):
        call(FakeServer(response), "events", ID)


def test_who_stops_following_hangs_up() -> None:
    """Leaving the iteration closes the connection, and not before."""
    streams = [stream(event(1, "output", "a"), event(2, "output", "b")) for _ in range(2)]
    closed: list[bool] = []

    with (
        client.Client("http://host", transport=FakeServer(streams[0]).transport) as connected,
        contextlib.closing(connected.events(ID)) as events,
    ):
        assert next(events).data == "a"
        closed.append(streams[0].is_closed)

    async def scenario() -> None:
        async with (
            client.AsyncClient("http://host", transport=FakeServer(streams[1]).transport) as connected,
            contextlib.aclosing(connected.events(ID)) as events,
        ):
            assert (await anext(events)).data == "a"
            closed.append(streams[1].is_closed)

    asyncio.run(asyncio.wait_for(scenario(), 30))
    assert closed == [False, False]
    assert [response.is_closed for response in streams] == [True, True]


def test_waiting_over_http(call: Callable[..., Any]) -> None:
    """Both drivers wait, and try again."""
    server = FakeServer(
        httpx.Response(200, json={**QUEUED, "status": "running"}),
        httpx.ReadError(""),
        unavailable(),
        httpx.Response(200, json=RUN),
    )

    assert call(server, "wait", ID).succeeded
    assert len(server.requests) == 4


def test_methods_look_like_functions() -> None:
    """Names, docstrings and signatures of the methods are those of what they do."""
    for kind in (client.Client, client.AsyncClient):
        for name in (
            "run",
            "submit",
            "runs",
            "all_runs",
            "get",
            "wait",
            "events",
            "cancel",
            "delete",
            "notebook",
            "prune",
            "describe",
        ):
            method = getattr(kind, name)
            assert method.__name__ == name
            assert method.__doc__
    bound = client.Client("http://host").wait
    assert str(inspect.signature(bound)).startswith("(run_id: 'str', timeout: 'float | None' = None")
    assert inspect.iscoroutinefunction(client.AsyncClient.wait)


# A real server


def test_a_real_run_from_its_start_to_its_end(live_server: LiveServer) -> None:
    """Submitted, followed while it works, found again, shown, and forgotten."""
    go_on = live_server.root / "client-go-on"
    waits = f"print('early', flush=True)\nwhile not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.01)"
    sources = [f"import pathlib, time\n{waits}", "a + 41"]
    write_notebook(live_server, "client runs.ipynb", "a = 1", *sources)

    with client.Client(live_server.url, live_server.token) as connected:
        run = connected.submit("client runs.ipynb", {"a": 2}, timeout=100, idempotency_key="client-runs")
        assert not run.is_final
        assert connected.wait(run.id, 0).id == run.id
        found = []
        for item in connected.events(run.id):
            found.append(item)
            if item.type == "output":
                # The output is here while its cell waits for this.
                go_on.touch()
        assert (
            connected.submit("client runs.ipynb", {"a": 2}, timeout=100, idempotency_key="client-runs").id
            == run.id
        )
        assert [item.id for item in connected.events(run.id, found[3].id)] == [item.id for item in found[4:]]
        page = connected.runs("client runs.ipynb", "succeeded", limit=1)
        assert [entry.id for entry in page.runs] == [run.id]
        assert run.id in [entry.id for entry in connected.all_runs("client runs.ipynb")]
        assert json.loads(connected.notebook(run.id).body)["nbformat"] == 4
        assert b"<html" in connected.notebook(run.id, "text/html").body
        with pytest.raises(client.RequestRefused) as raised:
            connected.cancel(run.id)
        assert (raised.value.status, raised.value.code) == (409, "run_ended")
        connected.delete(run.id)
        with pytest.raises(client.RequestRefused) as raised:
            connected.get(run.id)
        assert raised.value.code == "run_not_found"
        assert connected.prune() >= 0

    assert found[-1].type == "end"
    assert found[-1].run is not None
    assert found[-1].run.result == 43
    assert next(item.data["text"] for item in found if item.type == "output") == "early\n"


def test_a_real_run_is_cancelled(live_server: LiveServer) -> None:
    """A run that is waited for by one client is cancelled by another."""
    write_notebook(live_server, "client cancels.ipynb", "a = 1", "import time; time.sleep(200)")

    async def scenario() -> client.RunResult:
        async with client.AsyncClient(live_server.url, live_server.token) as connected:
            run = await connected.submit("client cancels.ipynb")
            waiting = asyncio.create_task(connected.wait(run.id))
            async with contextlib.aclosing(connected.events(run.id)) as events:
                async for item in events:
                    if item.type == "cell" and item.data["cell"] == 1:
                        break
            await connected.cancel(run.id)
            return await waiting

    run = asyncio.run(asyncio.wait_for(scenario(), 150))
    assert run.status is models.RunStatus.CANCELLED
    with pytest.raises(client.RunFailed, match="cancelled"):
        run.raise_for_status()


def write_notebook(server: LiveServer, name: str, parameters: str, *sources: str) -> None:
    """Put a small notebook with a `parameters` cell below the server's root."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in (parameters, *sources)]
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, server.root / name)
