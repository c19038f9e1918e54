"""Server-Sent Events of runs (API.md section 6), on `GET …/events` and on the POST itself."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_nbexec.handlers import answers
from tests.handlers.conftest import DEADLINE, SERVICE

if TYPE_CHECKING:
    from tests.handlers.conftest import Event, Server, Stream

EVENTS = {"Accept": "text/event-stream"}
BRIEF_LACKS = {"outputs", "scraps"}


def assert_is_stream(stream: Stream) -> None:
    """Check the head of an answer."""
    headers = stream.response.headers
    assert stream.response.status_code == 200
    assert headers["Content-Type"].lower() == "text/event-stream; charset=utf-8"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"


def assert_in_order(events: list[Event]) -> None:
    """Check what holds for the events of every run that has ended."""
    ids = [event.id for event in events]
    assert ids == sorted(set(ids))
    assert ids[0] >= 1
    assert [event.type for event in events].count("end") == 1
    assert events[-1].type == "end"
    assert {event.type for event in events} <= {"status", "cell", "output", "clear", "update", "end"}


def texts(events: list[Event]) -> str:
    """What was printed."""
    return "".join(event.data.get("text", "") for event in events if event.type == "output")


async def follow(server: Server, run: str, **headers: str) -> list[Event]:
    """Follow a run to its end."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with server.follow(run, headers=sent) as stream:
        assert_is_stream(stream)
        return await stream.rest()


async def test_events(server: Server) -> None:
    """Status, cells, outputs, and the whole run last, in order; the injected cell has none."""
    server.write(
        "a.ipynb",
        server.cell("x = 1", "parameters"),
        "print(x)",
        "from IPython.display import clear_output, display\nprint('gone', flush=True)\nclear_output()\n"
        "handle = display('old', display_id=True)\nhandle.update('new')",
        "{'x': x}",
    )
    run = (await server.submit("a.ipynb", parameters={"x": 5}))["id"]
    events = await follow(server, run)
    assert_in_order(events)
    assert events[0].id == 1
    statuses = [event.data for event in events if event.type == "status"]
    assert statuses[0]["status"] == "queued"
    assert {status["status"] for status in statuses[1:]} == {"running"}
    # How many cells there are is told before the first of them.
    *_, told = itertools.takewhile(lambda event: event.type == "status", events)
    assert told.data["progress"] == {"done": 0, "total": 4, "cell": None}
    assert told.data["kernel"]["id"]
    assert all(not BRIEF_LACKS & set(status) and status["id"] == run for status in statuses)

    cells = [event.data for event in events if event.type == "cell"]
    assert [(cell["cell"], cell["cell_id"], cell["state"]) for cell in cells] == [
        (index, f"id-{index}", state) for index in range(4) for state in ("started", "ended")
    ]
    assert all(set(cell) == {"cell", "cell_id", "state", "execution_count"} for cell in cells)

    kinds = [
        (event.type, event.data["cell"]) for event in events if event.type in ("output", "clear", "update")
    ]
    assert kinds[0] == ("output", 1)
    assert ("clear", 2) in kinds
    # A display belongs to the notebook: it may have been shown by several cells.
    assert ("update", None) in kinds
    last = [event.data for event in events if event.type == "output"][-1]
    assert (last["output_type"], last["data"], last["cell_id"]) == (
        "execute_result",
        {"text/plain": "{'x': 5}"},
        "id-3",
    )
    ended = (await server.get(run)).json
    assert events[-1].data == ended
    assert ended["result"] == {"x": 5}


async def test_while_it_runs_and_afterwards(server: Server) -> None:
    """Outputs arrive while their cell still runs; who comes later, or after the end, sees the same."""
    server.write("a.ipynb", "print('first', flush=True)\n" + server.gate("gate") + "\nprint('second')")
    run = (await server.submit("a.ipynb"))["id"]
    async with server.follow(run) as stream:
        assert_is_stream(stream)
        events: list[Event] = []
        while "first" not in texts(events):
            event = await stream.next()
            assert event is not None
            events.append(event)
        await server.is_running("gate")
        late = asyncio.create_task(follow(server, run))
        after = asyncio.create_task(follow(server, run, Last_Event_ID=str(events[-1].id)))
        assert (await server.get(run)).json["status"] == "running"
        server.open_gate("gate")
        rest = await stream.rest()
    events += rest
    assert_in_order(events)
    assert texts(events) == "first\nsecond\n"
    assert await late == events
    assert await after == rest
    assert await follow(server, run) == events


async def test_last_event_id(server: Server) -> None:
    """From every event on one sees exactly the rest, whether the run goes on or has ended."""
    server.write("a.ipynb", *(f"print({i})" for i in range(3)))
    run = (await server.submit("a.ipynb"))["id"]
    events = await follow(server, run)
    assert await follow(server, run) == events
    for place, event in enumerate(events):
        assert await follow(server, run, Last_Event_ID=str(event.id)) == events[place + 1 :]
    assert await follow(server, run, Last_Event_ID="0") == events


async def test_last_event_id_beyond(server: Server) -> None:
    """Who says to have had more than there is, as after a crash, is told the end all the same."""
    server.write("a.ipynb", "1")
    run = (await server.run("a.ipynb")).json["id"]
    events = await follow(server, run, Last_Event_ID="999999")
    assert [event.type for event in events] == ["end"]


@pytest.mark.parametrize("header", ["x", "-1", "1.5", "1 2", "9" * 40, "\u00b2"])
async def test_last_event_id_refused(server: Server, header: str) -> None:
    """What is no id of an event is 400."""
    server.write("a.ipynb", "1")
    run = (await server.run("a.ipynb")).json["id"]
    answer = await server.get(run, "/events", headers={"Last-Event-ID": header})
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert answer.json["errors"][0]["field"] == "Last-Event-ID"


async def test_head(server: Server) -> None:
    """HEAD has the headers, and ends at once even where the run goes on."""
    server.write("a.ipynb", server.gate("gate"))
    run = (await server.submit("a.ipynb"))["id"]
    await server.is_running("gate")
    for below, headers in (("/events", {}), ("", EVENTS)):
        answer = await asyncio.wait_for(server.get(run, below, method="HEAD", headers=headers), 10)
        assert (answer.status, answer.body, answer.media_type) == (200, b"", "text/event-stream")
        assert answer.headers["X-Accel-Buffering"] == "no"
    server.open_gate("gate")
    await server.ended(run)


async def test_headers_come_at_once(server: Server) -> None:
    """Who goes on after the newest event of a silent run has the headers before there is another event."""
    server.write("a.ipynb", server.gate("gate"))
    run = (await server.submit("a.ipynb"))["id"]
    await server.is_running("gate")
    async with server.follow(run) as stream:
        started = await stream.next("cell")
    assert started is not None
    async with server.follow(run, headers={"Last-Event-ID": str(started.id)}) as stream:
        assert_is_stream(stream)
        server.open_gate("gate")
        assert [event.type for event in await stream.rest()] == ["cell", "end"]


async def test_keep_alive(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing happens a comment comes now and then, which is no event."""
    assert answers.KEEP_ALIVE_INTERVAL == 15
    monkeypatch.setattr(answers, "KEEP_ALIVE_INTERVAL", 0.05)
    server.write("a.ipynb", server.gate("gate"))
    run = (await server.submit("a.ipynb"))["id"]
    await server.is_running("gate")
    async with server.follow(run) as stream:
        comments = [await stream.next("") for _ in range(3)]
        assert all(comment is not None and comment.data for comment in comments)
        server.open_gate("gate")
        assert (await stream.rest())[-1].type == "end"
    assert_in_order(await follow(server, run))


async def test_negotiated(server: Server) -> None:
    """A run itself is followed by who accepts events, from where they are."""
    server.write("a.ipynb", "print(1)")
    run = (await server.run("a.ipynb")).json["id"]
    events = await follow(server, run)
    for headers, expected in [(EVENTS, events), ({**EVENTS, "Last-Event-ID": "1"}, events[1:])]:
        async with server.follow(path=f"{SERVICE}/runs/{run}", headers=headers) as stream:
            assert_is_stream(stream)
            assert await stream.rest() == expected


@pytest.mark.parametrize(
    ("source", "status", "code"),
    [
        ("5", "succeeded", None),
        ("1 / 0", "failed", "cell_error"),
        ("import os\nos._exit(3)", "failed", "kernel_died"),
    ],
)
async def test_post(server: Server, source: str, status: str, code: str | None) -> None:
    """A run whose POST accepts events is followed by it, however it ends: the status is 200."""
    server.write("a.ipynb", "print('said', flush=True)", source)
    async with server.follow(path=f"{SERVICE}/a.ipynb", method="POST", headers=EVENTS) as stream:
        assert_is_stream(stream)
        events = await stream.rest()
    assert_in_order(events)
    end = events[-1].data
    assert (end["status"], (end["error"] or {}).get("code")) == (status, code)
    assert texts(events) == "said\n"
    assert end == (await server.get(end["id"])).json
    assert await follow(server, end["id"]) == events


async def test_post_refused(server: Server) -> None:
    """What is wrong with a request is told by status and JSON, not by events."""
    answer = await server.run("nope.ipynb", headers=EVENTS)
    assert (answer.status, answer.json["code"]) == (404, "notebook_not_found")
    server.write("a.ipynb", "1")
    answer = await server.run("a.ipynb", headers=EVENTS, nope=1)
    assert (answer.status, answer.media_type) == (400, "application/json")


@pytest.mark.parametrize(
    ("headers", "goes_on"),
    [
        ({}, False),
        ({"Prefer": "wait=1"}, True),
        ({"Prefer": "respond-async"}, True),
        ({"Idempotency-Key": "k"}, True),
    ],
    ids=str,
)
async def test_post_hang_up(
    server: Server, headers: dict[str, str], goes_on: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Who hangs up on the events of a POST cancels the run, unless it may go on without them."""
    server.write("a.ipynb", "print('said', flush=True)", server.gate("gate"), "5")
    sent = {**EVENTS, **headers}
    async with server.follow(path=f"{SERVICE}/a.ipynb", method="POST", headers=sent) as stream:
        event = await stream.next("output")
        assert event is not None
        run = (await server.runs_page())["runs"][0]["id"]
        await server.is_running("gate")
    if goes_on:
        await server.fetch("GET", "api/status")
        server.open_gate("gate")
    ended = await server.ended(run)
    assert ended["status"] == ("succeeded" if goes_on else "cancelled")
    assert_in_order(await follow(server, run))
    assert "Traceback" not in caplog.text


async def test_reader_hangs_up(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Readers that vanish change nothing for the run and for other readers."""
    server.write("a.ipynb", "print('said', flush=True)", server.gate("gate"), "for i in range(200): print(i)")
    run = (await server.submit("a.ipynb"))["id"]
    for _ in range(3):
        async with server.follow(run) as stream:
            assert await stream.next("output") is not None
    other = asyncio.create_task(follow(server, run))
    # One that never reads at all.
    _, writer = await server.connect()
    writer.write(server.head(f"{SERVICE}/runs/{run}/events", method="GET"))
    await writer.drain()
    server.open_gate("gate")
    events = await asyncio.wait_for(other, DEADLINE)
    assert texts(events) == "said\n" + "".join(f"{i}\n" for i in range(200))
    assert events == await follow(server, run)
    await server.hang_up(writer)
    assert "Traceback" not in caplog.text


async def test_key_and_events(server: Server) -> None:
    """A replay may be followed: it gives the same events, from the first."""
    server.write("a.ipynb", "print(1)")
    sent = {**EVENTS, "Idempotency-Key": "k"}
    found = []
    for replayed in (None, "true"):
        async with server.follow(path=f"{SERVICE}/a.ipynb", method="POST", headers=sent) as stream:
            assert stream.response.headers.get("Idempotency-Replayed") == replayed
            found.append(await stream.rest())
    assert found[0] == found[1]
    assert len(server.started) == 1


@pytest.mark.server(NbExec={"max_concurrent_runs": 1, "interrupt_grace": 1.0})
async def test_queued_and_cancelled(server: Server) -> None:
    """A queued run can be followed from its first event, and its end is told when it is cancelled there."""
    server.write("long.ipynb", server.gate("gate"))
    server.write("a.ipynb", "1")
    gate = (await server.submit("long.ipynb"))["id"]
    await server.is_running("gate")
    cancelled, run = [(await server.submit("a.ipynb"))["id"] for _ in range(2)]
    async with server.follow(cancelled) as stream, server.follow(run) as other:
        for each in (stream, other):
            first = await each.next()
            assert first is not None
            assert (first.id, first.type, first.data["status"]) == (1, "status", "queued")
        await server.cancel(cancelled)
        events = await stream.rest()
        assert [event.type for event in events] == ["end"]
        assert (events[0].data["status"], events[0].data["outputs"]) == ("cancelled", [])
        assert (await follow(server, cancelled))[1:] == events
        await server.cancel(gate)
        assert (await other.rest())[-1].data["status"] == "succeeded"


async def test_deleted_while_followed(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Readers of a run that is forgotten are told its end."""
    server.write("a.ipynb", server.long())
    run = (await server.submit("a.ipynb"))["id"]
    await server.is_running()
    async with server.follow(run) as stream:
        assert await stream.next("cell") is not None
        assert (await server.get(run, method="DELETE")).status == 204
        assert (await stream.rest())[-1].data["status"] == "cancelled"
    assert "Traceback" not in caplog.text


async def test_server_stops(server: Server) -> None:
    """Readers are told the end of runs that the server ends when it stops, and are not kept."""
    server.write("a.ipynb", server.long())
    run = (await server.submit("a.ipynb"))["id"]
    await server.is_running()
    async with server.follow(run) as stream:
        assert await stream.next("cell") is not None
        await asyncio.wait_for(server.app.extension_manager.stop_all_extensions(), 30)
        end: Any = (await stream.rest())[-1]
        assert (end.type, end.data["error"]["code"]) == ("end", "server_stopped")


async def test_awkward_text(server: Server) -> None:
    """Whatever a notebook prints stays inside its event."""
    awkward = "a\r\nb\r\rid: 7\n\nevent: end\ndata: {}\n\n\x85\u2028\u2029\0\ufeff:\U0001f600"
    server.write("a.ipynb", f"import sys\nd = sys.stderr.write({awkward!r})")
    run = (await server.submit("a.ipynb"))["id"]
    events = await follow(server, run)
    assert_in_order(events)
    assert texts(events) == events[-1].data["outputs"][0]["text"]
    assert "event: end\ndata: {}" in texts(events)
