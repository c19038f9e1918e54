"""`/api/nbexec/runs`: list, read, wait for, cancel and forget runs (API.md sections 1 and 4)."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sqlite3
import urllib.parse
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from jupyter_core.paths import jupyter_data_dir
from jupyter_server.auth import IdentityProvider, User

from jupyter_nbexec import documents
from tests.handlers.conftest import DEADLINE, SERVICE

if TYPE_CHECKING:
    from tests.handlers.conftest import Answer, Server

ONE_AT_ONCE = pytest.mark.server(NbExec={"max_concurrent_runs": 1, "interrupt_grace": 1.0})
NOWHERE = "0e3b2f6c-5a5c-4f0e-9c8e-0a2a0c1f2b3d"


def ids(page: Any) -> list[str]:
    """The ids of the runs on a page."""
    return [run["id"] for run in page["runs"]]


def assert_refused(answer: Answer, status: int, code: str, field: str = "") -> None:
    """Check a refusal, and the field that it names."""
    assert (answer.status, answer.json["code"]) == (status, code), answer
    assert answer.json["message"]
    assert [each["field"] for each in answer.json.get("errors", [])] == ([field] if field else [])


async def until_idle(server: Server) -> None:
    """Wait until no run is left in a queue or at work."""
    await server.until(lambda: server.runs.unfinished == 0)


# The list


async def test_list(server: Server) -> None:
    """Runs of every kind are listed, newest first, without their outputs."""
    server.write("a.ipynb", "print('said')\n5")
    server.write("b.ipynb", "1 / 0")
    first = (await server.run("a.ipynb")).json
    second = (await server.run("b.ipynb", env={"A": "1"})).json
    third = await server.submit("a.ipynb")
    await server.ended(third["id"])

    page = await server.runs_page()
    assert set(page) == {"runs", "cursor"}
    assert page["cursor"] is None
    assert ids(page) == [third["id"], second["id"], first["id"]]
    assert [run["status"] for run in page["runs"]] == ["succeeded", "failed", "succeeded"]
    for listed, answered in zip(page["runs"][1:], (second, first), strict=True):
        assert listed == {
            name: value for name, value in answered.items() if name not in ("outputs", "scraps")
        }
    answer = await server.fetch("HEAD", f"{SERVICE}/runs")
    assert (answer.status, answer.body) == (200, b"")


async def test_list_of_nothing(server: Server) -> None:
    """Where nothing was run the list is empty."""
    assert await server.runs_page() == {"runs": [], "cursor": None}
    assert await server.runs_page("?path=nowhere.ipynb&status=queued") == {"runs": [], "cursor": None}


@ONE_AT_ONCE
async def test_list_filters(server: Server) -> None:
    """`path` and `status` choose runs; both together choose those that fit both."""
    server.write("long.ipynb", server.gate("gate"))
    server.write("d/a #ü\x01.ipynb", "1")
    odd = urllib.parse.quote("d/a #ü\x01.ipynb")
    running = await server.submit("long.ipynb")
    await server.is_running("gate")
    queued = await server.submit(odd)
    cancelled = await server.submit("long.ipynb")
    assert (await server.cancel(cancelled["id"])).status == 202

    for query, expected in [
        ("?path=long.ipynb", [cancelled, running]),
        ("?path=/long.ipynb", [cancelled, running]),
        (f"?path={odd}", [queued]),
        (f"?path={odd.replace('/', '%2F')}", [queued]),
        ("?status=queued", [queued]),
        ("?status=running", [running]),
        ("?status=cancelled", [cancelled]),
        ("?status=succeeded", []),
        ("?path=long.ipynb&status=running", [running]),
        (f"?path={odd}&status=running", []),
    ]:
        assert ids(await server.runs_page(query)) == [run["id"] for run in expected], query
    # The link that a description has leads here.
    link = (await server.describe(odd)).json["links"]["runs"]
    assert ids((await server.fetch("GET", link.removeprefix(server.base_url))).json) == [queued["id"]]
    server.open_gate("gate")
    await until_idle(server)


@ONE_AT_ONCE
async def test_pages(server: Server) -> None:
    """Pages follow each other without gap and without repetition, also when runs arrive meanwhile."""
    server.write("long.ipynb", server.gate("gate"))
    server.write("a.ipynb", "1")
    await server.submit("long.ipynb")
    await server.is_running("gate")
    submitted = [(await server.submit("a.ipynb"))["id"] for _ in range(7)][::-1]

    found: list[str] = []
    cursor = ""
    for size in (3, 3, 1):
        page = await server.runs_page(f"?path=a.ipynb&limit=3{cursor}")
        assert len(page["runs"]) == size
        found += ids(page)
        cursor = f"&cursor={page['cursor']}"
        await server.submit("a.ipynb")
    assert page["cursor"] is None
    assert found == submitted
    # A page that ends with the last run says so.
    assert (await server.runs_page("?limit=10&path=a.ipynb"))["cursor"] is None
    assert (await server.runs_page("?limit=9&path=a.ipynb"))["cursor"] is not None
    # A run that is forgotten takes none of its neighbours with it.
    page = await server.runs_page("?path=a.ipynb&limit=2")
    for run in ids(page):
        assert (await server.get(run, method="DELETE")).status == 204
    assert ids(await server.runs_page(f"?path=a.ipynb&limit=2&cursor={page['cursor']}")) == [
        *ids(await server.runs_page("?path=a.ipynb&limit=2"))
    ]
    for run in ids(await server.runs_page("?status=queued")):
        await server.cancel(run)
    server.open_gate("gate")
    await until_idle(server)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=501", "limit"),
        ("limit=1000000000", "limit"),
        ("limit=1e9", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=%C2%B2", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("cursor=garbage", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=LTE", "cursor"),
        ("cursor=" + "OTk5" * 500, "cursor"),
        ("cursor=%FC", ""),
        ("status=done", "status"),
        ("status=Queued", "status"),
        ("status=", "status"),
        ("path=%2E%2E%2Fx.ipynb&limit=0", "limit"),
    ],
    ids=lambda each: str(each)[:30],
)
async def test_list_refuses(server: Server, query: str, field: str, caplog: pytest.LogCaptureFixture) -> None:
    """What a filter, a limit or a cursor cannot be is 400, and names it (B101, B102)."""
    answer = await server.fetch("GET", f"{SERVICE}/runs?{query}")
    assert_refused(answer, 400, "invalid_request", field)
    assert "Traceback" not in caplog.text


async def test_fixed_paths_win(server: Server) -> None:
    """A notebook called `runs` is no list, nor does posting to the list run it (B98); `runs/x` is reached."""
    server.write("runs/x.ipynb", "7")
    (server.root / "runs" / NOWHERE).write_text("")
    answer = await server.fetch("POST", f"{SERVICE}/runs", b"{}")
    assert_refused(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD"
    assert_refused(await server.get(NOWHERE), 404, "run_not_found")
    assert_refused(await server.get("not-a-uuid"), 404, "notebook_not_found")  # B99
    assert_refused(await server.fetch("POST", f"{SERVICE}/runs/{NOWHERE}", b"{}"), 405, "method_not_allowed")
    assert server.started == []
    assert (await server.run("runs/x.ipynb")).json["result"] == 7
    assert (await server.describe("runs/x.ipynb")).json["path"] == "runs/x.ipynb"


@pytest.mark.parametrize(
    ("method", "below"),
    [
        ("GET", ""),
        ("HEAD", ""),
        ("GET", "?wait=1"),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("GET", "/events"),
        ("HEAD", "/events"),
        ("GET", "/notebook"),
        ("HEAD", "/notebook"),
    ],
)
async def test_no_such_run(server: Server, method: str, below: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is not there is 404 `run_not_found` on every path of a run (B100)."""
    answer = await server.fetch(
        method, f"{SERVICE}/runs/{uuid.uuid4()}{below}", b"" if method == "POST" else None
    )
    assert answer.status == 404
    if method != "HEAD":
        assert_refused(answer, 404, "run_not_found")
    assert "Traceback" not in caplog.text


# One run


async def test_get(server: Server) -> None:
    """A run that has ended is read again just as it was answered, however its id is written."""
    server.write("a.ipynb", "print('said')", server.cell("{'a': [1, None]}", "keep"))
    answered = (await server.run("a.ipynb", outputs={"tags": ["keep"]})).json
    answer = await server.get(answered["id"].upper())
    assert (answer.status, answer.json) == (200, answered)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Vary"] == "Accept"
    assert "total;dur=" in answer.headers["Server-Timing"]
    assert answered["links"]["self"] == f"{server.base_url}api/nbexec/runs/{answered['id']}"
    for link in answered["links"].values():
        assert (await server.fetch("GET", link.removeprefix(server.base_url))).status == 200
    answer = await server.get(answered["id"], method="HEAD")
    assert (answer.status, answer.body) == (200, b"")


async def test_read_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that has ended is written once for all who read it in one shape, until anything of it changes."""
    server.write("a.ipynb", "print('said')\n5")
    run_id = (await server.run("a.ipynb")).json["id"]
    read: list[bytes] = []

    def unpack(content: bytes, unpack: Any = documents.unpack) -> Any:
        read.append(content)
        return unpack(content)

    monkeypatch.setattr(documents, "unpack", unpack)
    paths = [f"{SERVICE}/runs/{run_id}", f"{SERVICE}/runs/{run_id}/notebook"]
    for number, accept in enumerate(["application/json", "application/x-ipynb+json", "text/plain, */*"]):
        found = [
            [await server.fetch("GET", path, headers={"Accept": accept}) for _ in range(3)] for path in paths
        ]
        assert len(read) == 2 * (number + 1)
        for first, *others in found:
            assert first.status == 200
            for other in others:
                assert other.body == first.body
                for name in ("Content-Type", "Vary", "Cache-Control", "Content-Security-Policy"):
                    assert other.headers.get(name) == first.headers.get(name)

    changed = dataclasses.replace(await server.runs.get(run_id), warnings=("changed",))

    async def get(*_: Any) -> Any:
        return changed

    monkeypatch.setattr(server.runs, "get", get)
    await server.fetch("GET", paths[0], headers={"Accept": "application/json"})
    assert len(read) == 7


@pytest.mark.parametrize(
    ("source", "status"),
    [("1 / 0", "failed"), ("import os\nos._exit(3)", "failed"), ("import time\ntime.sleep(60)", "failed")],
)
async def test_get_of_a_failed_run_is_200(server: Server, source: str, status: str) -> None:
    """However a run has ended, reading it is 200, with its outputs."""
    server.write("a.ipynb", "print('before', flush=True)", source)
    run = await server.submit("a.ipynb", cell_timeout=2)
    ended = await server.ended(run["id"])
    assert (ended["status"], ended["error"]["cell"]) == (status, 1)
    assert ended["outputs"][0]["text"] == "before\n"


async def test_get_while_running(server: Server) -> None:
    """A run that goes on is read with the outputs so far, the running cell's too."""
    server.write(
        "a.ipynb", "print('first')", "print('second', flush=True)", server.gate("gate"), "print('last')"
    )
    run = await server.submit("a.ipynb")
    await server.is_running("gate")
    answer = (await server.get(run["id"])).json
    assert (answer["status"], answer["ended"], answer["duration"]) == ("running", None, None)
    assert answer["progress"] == {"done": 2, "total": 4, "cell": 2}
    assert [each["text"] for each in answer["outputs"]] == ["first\n", "second\n"]
    server.open_gate("gate")
    ended = await server.ended(run["id"])
    assert [each["text"] for each in ended["outputs"]] == ["first\n", "second\n", "last\n"]


@ONE_AT_ONCE
async def test_wait(server: Server) -> None:
    """`?wait=` holds the answer until the run has ended, but no longer than it says; queued runs too."""
    server.write("long.ipynb", server.gate("gate"))
    server.write("a.ipynb", "5")
    loop = asyncio.get_running_loop()
    running = (await server.submit("long.ipynb"))["id"]
    queued = (await server.submit("a.ipynb"))["id"]
    await server.is_running("gate")
    began = loop.time()
    answers = await asyncio.gather(*(server.get(run, "?wait=0.5") for run in (running, queued)))
    assert [answer.json["status"] for answer in answers] == ["running", "queued"]
    assert loop.time() - began >= 0.5
    assert (await server.get(running, "?wait=0")).json["status"] == "running"

    waits = [asyncio.create_task(server.get(run, "?wait=60")) for run in (running, queued, queued)]
    await server.fetch("GET", "api/status")
    assert not any(wait.done() for wait in waits)
    server.open_gate("gate")
    answers = [await wait for wait in waits]
    assert [answer.json["status"] for answer in answers] == ["succeeded"] * 3
    assert answers[1].json["result"] == 5
    # What has ended is answered at once.
    assert (await asyncio.wait_for(server.get(queued, "?wait=60"), 10)).json == answers[1].json


@pytest.mark.parametrize("wait", ["x", "-1", "61", "1e9", "nan", "inf", "", "60.001"])
async def test_wait_refuses(server: Server, wait: str) -> None:
    """Who wants to wait for longer than 60 s, or for no number of seconds, is refused."""
    server.write("a.ipynb", "1")
    run = (await server.run("a.ipynb")).json["id"]
    assert_refused(await server.get(run, f"?wait={wait}"), 400, "invalid_request", "wait")


@pytest.mark.parametrize("how", ["cancel", "delete"])
async def test_wait_sees_the_end(server: Server, how: str) -> None:
    """Who waits is answered when somebody else cancels or forgets the run."""
    server.write("a.ipynb", server.long())
    run = (await server.submit("a.ipynb"))["id"]
    await server.is_running()
    wait = asyncio.create_task(server.get(run, "?wait=60"))
    await server.fetch("GET", "api/status")
    if how == "cancel":
        assert (await server.cancel(run)).status == 202
    else:
        assert (await server.get(run, method="DELETE")).status == 204
    answer = await asyncio.wait_for(wait, 30)
    assert (answer.status, answer.json["status"]) == (200, "cancelled")


async def test_waiting_client_hangs_up(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Who waits for a run of `?wait=` and hangs up changes nothing."""
    server.write("a.ipynb", server.gate("gate"), "5")
    run = (await server.submit("a.ipynb"))["id"]
    await server.is_running("gate")
    _, writer = await server.connect()
    writer.write(server.head(f"{SERVICE}/runs/{run}?wait=60", method="GET"))
    await writer.drain()
    await server.fetch("GET", "api/status")
    await server.hang_up(writer)
    server.open_gate("gate")
    assert (await server.ended(run))["result"] == 5
    assert "Traceback" not in caplog.text


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.mark.parametrize(
    ("accept", "content_type", "body"),
    [
        ("*/*", "application/json", b"{"),
        ("image/png", "image/png", b"\x89PNG"),
        ("image/*, */*;q=0.1", "image/png", b"\x89PNG"),
        ("text/csv", "text/csv; charset=utf-8", b"a,b\n"),
        ("text/html", "text/html; charset=utf-8", b"<!DOCTYPE html>"),
        ("application/x-ipynb+json", "application/x-ipynb+json", b"{"),
    ],
)
async def test_negotiation(server: Server, accept: str, content_type: str, body: bytes) -> None:
    """Reading a run negotiates as running it does."""
    server.write(
        "a.ipynb", f"display({{'image/png': {PNG!r}}}, raw=True)", "display({'text/csv': 'a,b\\n'}, raw=True)"
    )
    headers = {"Accept": accept}
    answered = await server.run("a.ipynb", headers=headers)
    run = (await server.runs_page())["runs"][0]["id"]
    answer = await server.get(run, headers=headers)
    assert answer.status == 200
    assert answer.headers["Content-Type"].lower() == content_type
    assert answer.body.startswith(body)
    assert answer.headers["Vary"] == "Accept"
    if answer.media_type != "text/html":
        assert answer.body == answered.body
    if answer.media_type != "application/json":
        assert "sandbox" in answer.headers["Content-Security-Policy"]


async def test_negotiation_fails(server: Server) -> None:
    """406 for what the run does not have, and what it has instead; a failed run is JSON all the same."""
    server.write("a.ipynb", "1")
    server.write("b.ipynb", "1 / 0")
    run = (await server.run("a.ipynb")).json["id"]
    for accept in ("image/png", "multipart/mixed", "*/*;q=0"):
        answer = await server.get(run, headers={"Accept": accept})
        assert_refused(answer, 406, "not_acceptable")
    failed = (await server.run("b.ipynb")).json
    answer = await server.get(failed["id"], headers={"Accept": "image/png"})
    assert (answer.status, answer.json) == (200, failed)
    answer = await server.get(failed["id"], headers={"Accept": "application/x-ipynb+json"})
    assert answer.json["cells"][0]["outputs"][0]["ename"] == "ZeroDivisionError"


# Its notebook


@ONE_AT_ONCE
async def test_notebook(server: Server) -> None:
    """The notebook is there in every state: unexecuted, partly executed, executed."""
    server.write(
        "a.ipynb", server.cell("x = 1", "parameters"), "print(x, flush=True)", server.gate("gate"), "x"
    )
    server.write("b.ipynb", "print('b')")
    run = (await server.submit("a.ipynb", parameters={"x": 5}))["id"]
    queued = (await server.submit("b.ipynb"))["id"]
    await server.is_running("gate")
    answer = await server.get(run, "/notebook")
    assert answer.media_type == "application/x-ipynb+json"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    partial: Any = nbformat.reads(answer.body.decode(), as_version=4)
    nbformat.validate(partial)
    assert [len(cell.outputs) for cell in partial.cells] == [0, 0, 1, 0, 0]
    assert partial.cells[1].metadata.tags == ["injected-parameters"]
    answer = await server.get(queued, "/notebook")
    assert answer.status == 200
    nbformat.validate(nbformat.reads(answer.body.decode(), as_version=4))
    page = await server.get(run, "/notebook", headers={"Accept": "text/html"})
    assert (page.status, page.media_type) == (200, "text/html")

    server.open_gate("gate")
    await server.ended(run)
    await server.ended(queued)
    answer = await server.get(run, "/notebook")
    whole: Any = nbformat.reads(answer.body.decode(), as_version=4)
    nbformat.validate(whole)
    assert [len(cell.outputs) for cell in whole.cells] == [0, 0, 1, 0, 1]
    again = await server.get(run, headers={"Accept": "application/x-ipynb+json"})
    assert again.body == answer.body


@pytest.mark.parametrize("below", ["", "/notebook"])
async def test_page_that_nobody_waits_for(
    server: Server, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that hangs up gives up its page."""
    asked, given_up = asyncio.Event(), asyncio.Event()

    async def page(*_: Any, **__: Any) -> bytes:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        return b""

    monkeypatch.setattr(server.app.web_app.settings["jupyter_nbexec"].renderer, "page", page)
    server.write("a.ipynb", "1")
    run = (await server.run("a.ipynb")).json["id"]
    _, writer = await server.connect()
    head = server.head(f"{SERVICE}/runs/{run}{below}", "Accept: text/html", method="GET")
    writer.write(head)
    await asyncio.wait_for(asked.wait(), DEADLINE)
    await server.hang_up(writer)
    await asyncio.wait_for(given_up.wait(), DEADLINE)


async def test_notebook_shapes(server: Server) -> None:
    """The notebook is given as itself, as JSON or as HTML, and as nothing else."""
    server.write("a.ipynb", "'shown'")
    run = (await server.run("a.ipynb")).json["id"]
    for accept, media_type in [
        ("*/*", "application/x-ipynb+json"),
        ("application/json", "application/json"),
        ("text/html, */*;q=0.5", "text/html"),
    ]:
        answer = await server.get(run, "/notebook", headers={"Accept": accept})
        assert (answer.status, answer.media_type) == (200, media_type)
        assert b"shown" in answer.body
        head = await server.get(run, "/notebook", headers={"Accept": accept}, method="HEAD")
        assert (head.status, head.body, head.media_type) == (200, b"", media_type)
    for accept in ("image/png", "text/event-stream"):
        answer = await server.get(run, "/notebook", headers={"Accept": accept})
        assert_refused(answer, 406, "not_acceptable")


# Cancel


@ONE_AT_ONCE
async def test_cancel(server: Server) -> None:
    """Queued and running runs are cancelled with 202, however often it is asked for; ended ones are 409."""
    server.write("long.ipynb", "print('before', flush=True)", server.long(), "print('after')")
    server.write("a.ipynb", f"open({str(server.root / 'trace')!r}, 'w').close()")
    running = (await server.submit("long.ipynb"))["id"]
    queued = (await server.submit("a.ipynb"))["id"]
    waiting = asyncio.create_task(server.run("a.ipynb"))
    await server.is_running()
    await server.until(lambda: server.runs.unfinished == 3)

    answer = await server.cancel(queued)
    assert (answer.status, answer.json["status"]) == (202, "cancelled")
    ended = (await server.get(queued)).json
    assert (ended["status"], ended["started"], ended["duration"], ended["outputs"]) == (
        "cancelled",
        None,
        None,
        [],
    )
    assert ended["ended"] is not None

    attached = (await server.runs_page("?status=queued"))["runs"][0]["id"]
    assert (await server.cancel(attached)).status == 202
    answer = await waiting
    assert (answer.status, answer.json["status"], answer.json["id"]) == (409, "cancelled", attached)

    answers = await asyncio.gather(server.cancel(running), server.cancel(running))
    assert [answer.status for answer in answers] == [202, 202]
    assert answers[0].json["id"] == running
    ended = await server.ended(running)
    assert (ended["status"], ended["error"]) == ("cancelled", None)
    assert ended["outputs"][0]["text"] == "before\n"
    assert "after" not in json.dumps(ended["outputs"])
    assert not (server.root / "trace").exists()
    assert server.kernels == []

    for run in (queued, attached, running):
        assert_refused(await server.cancel(run), 409, "run_ended")
        assert (await server.get(run)).json["status"] == "cancelled"


async def test_cancel_of_a_synchronous_run(server: Server) -> None:
    """The client that waits for a run that another one cancels is answered 409, with the run."""
    server.write("a.ipynb", "print('before', flush=True)", server.long())
    waiting = asyncio.create_task(server.run("a.ipynb"))
    await server.is_running()
    run = (await server.runs_page())["runs"][0]["id"]
    assert (await server.cancel(run)).status == 202
    answer = await waiting
    assert (answer.status, answer.json["id"], answer.json["status"]) == (409, run, "cancelled")
    assert answer.json["outputs"][0]["text"] == "before\n"


@pytest.mark.parametrize("source", ["1", "1 / 0"])
async def test_cancel_of_an_ended_run(server: Server, source: str) -> None:
    """409 `run_ended`, and the run stays as it is (B103)."""
    server.write("a.ipynb", source)
    run = (await server.run("a.ipynb")).json
    assert_refused(await server.cancel(run["id"]), 409, "run_ended")
    assert (await server.get(run["id"])).json == run


@pytest.mark.parametrize("body", [b'{"reason": "x"}', b"[]", b"null", b"1"])
async def test_cancel_takes_no_body(server: Server, body: bytes) -> None:
    """A body that says anything is refused, and nothing is cancelled; `{}` says nothing."""
    server.write("a.ipynb", server.gate("gate"))
    run = (await server.submit("a.ipynb"))["id"]
    await server.is_running("gate")
    answer = await server.fetch("POST", f"{SERVICE}/runs/{run}/cancel", body)
    assert_refused(answer, 400, "invalid_request", "body")
    server.open_gate("gate")
    assert (await server.ended(run))["status"] == "succeeded"
    answer = await server.fetch("POST", f"{SERVICE}/runs/{run}/cancel", b"{}")
    assert_refused(answer, 409, "run_ended")


# Forget


@ONE_AT_ONCE
async def test_delete(server: Server) -> None:
    """Runs in every state are forgotten with 204, after having been cancelled; then they are 404."""
    server.write("long.ipynb", server.long())
    server.write("a.ipynb", f"open({str(server.root / 'trace')!r}, 'w').close()")
    server.write("b.ipynb", "1")
    ended = (await server.run("b.ipynb")).json["id"]
    running = (await server.submit("long.ipynb"))["id"]
    queued = (await server.submit("a.ipynb"))["id"]
    await server.is_running()
    for run in (ended, queued, running):
        answer = await server.get(run, method="DELETE")
        assert (answer.status, answer.body) == (204, b"")
        for method, below in [("GET", ""), ("GET", "/events"), ("GET", "/notebook"), ("DELETE", "")]:
            assert_refused(await server.get(run, below, method=method), 404, "run_not_found")
        assert_refused(await server.cancel(run), 404, "run_not_found")
    assert await server.runs_page() == {"runs": [], "cursor": None}
    assert not (server.root / "trace").exists()
    assert server.kernels == []


async def test_delete_answers_who_waits(server: Server) -> None:
    """The client that waits for a run that another one forgets is answered as if it was cancelled."""
    server.write("a.ipynb", server.long())
    waiting = asyncio.create_task(server.run("a.ipynb"))
    await server.is_running()
    run = (await server.runs_page())["runs"][0]["id"]
    assert (await server.get(run, method="DELETE")).status == 204
    answer = await waiting
    assert (answer.status, answer.json["status"]) == (409, "cancelled")
    assert_refused(await server.get(run), 404, "run_not_found")


async def test_delete_frees_the_key(server: Server) -> None:
    """A key is kept for as long as its run: what is forgotten is run again."""
    server.write("a.ipynb", "1")
    headers = {"Idempotency-Key": "k"}
    first = (await server.run("a.ipynb", headers=headers)).json["id"]
    assert (await server.get(first, method="DELETE")).status == 204
    second = await server.run("a.ipynb", headers=headers)
    assert second.status == 200
    assert "Idempotency-Replayed" not in second.headers
    assert second.json["id"] != first


@pytest.mark.server(NbExec={"max_stored_runs": 2})
async def test_prune(server: Server) -> None:
    """`POST …/runs/prune` forgets at once what the retention settings do not keep, oldest first."""
    server.write("a.ipynb", "1")
    made = [(await server.run("a.ipynb")).json["id"] for _ in range(4)]
    answer = await server.fetch("POST", f"{SERVICE}/runs/prune", b"")
    # The server itself may have looked just before.
    assert (answer.status, set(answer.json)) == (200, {"deleted"})
    assert answer.json["deleted"] <= 2
    assert ids(await server.runs_page()) == made[:1:-1]
    answer = await server.fetch("POST", f"{SERVICE}/runs/prune", b"{}")
    assert answer.json == {"deleted": 0}
    assert_refused(
        await server.fetch("POST", f"{SERVICE}/runs/prune", b'{"a": 1}'), 400, "invalid_request", "body"
    )


# Whose runs


class Names(IdentityProvider):
    """Takes everybody for who they say they are."""

    def get_user(self, handler: Any) -> User | None:
        """As the header says."""
        name = handler.request.headers.get("X-Name")
        return User(username=name) if name else None

    def should_check_origin(self, handler: Any) -> bool:
        """Do not."""
        return False

    def is_token_authenticated(self, handler: Any) -> bool:
        """Nobody needs a token here, nor protection from pages."""
        return True


NAMED = {"identity_provider_class": Names}


@pytest.mark.server(ServerApp=NAMED, NbExec={"private_runs": True, "max_concurrent_runs": 1})
async def test_private_runs(server: Server) -> None:
    """With `private_runs` another's run is not there, whatever is done with it (S36); keys do not clash."""
    server.write("long.ipynb", server.gate("gate"))
    server.write("a.ipynb", "5")
    alice, bob = {"X-Name": "alice"}, {"X-Name": "bob"}
    key = {"Prefer": "respond-async", "Idempotency-Key": "same"}
    running = (await server.submit("long.ipynb", headers=alice))["id"]
    queued = (await server.submit("a.ipynb", headers={**alice, **key}))["id"]
    await server.is_running("gate")
    for run in (running, queued):
        for method, below in [
            ("GET", ""),
            ("GET", "?wait=1"),
            ("GET", "/events"),
            ("GET", "/notebook"),
            ("POST", "/cancel"),
            ("DELETE", ""),
        ]:
            body = b"" if method == "POST" else None
            answer = await server.fetch(method, f"{SERVICE}/runs/{run}{below}", body, headers=bob)
            assert_refused(answer, 404, "run_not_found")
        answer = await server.get(run, headers={**bob, "Accept": "text/event-stream"})
        assert_refused(answer, 404, "run_not_found")
    other = await server.run("a.ipynb", headers={**bob, **key}, timeout=5)
    assert other.status == 202
    assert "Idempotency-Replayed" not in other.headers
    again = await server.run("a.ipynb", headers={**alice, **key})
    assert (again.status, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert again.json["id"] == queued

    async def listed(headers: dict[str, str]) -> list[str]:
        return ids((await server.fetch("GET", f"{SERVICE}/runs", headers=headers)).json)

    assert await listed(alice) == [queued, running]
    assert await listed(bob) == [other.json["id"]]
    assert await listed({"X-Name": "carol"}) == []
    server.open_gate("gate")
    answer = await server.get(queued, "?wait=60", headers=alice)
    assert answer.json["result"] == 5
    assert (await server.get(running, method="DELETE", headers=alice)).status == 204
    assert await listed(alice) == [queued]


@pytest.mark.server(ServerApp=NAMED)
async def test_shared_runs(server: Server) -> None:
    """Without `private_runs` everybody sees all runs (S37), and keys are everybody's."""
    server.write("a.ipynb", "5")
    alice, bob = {"X-Name": "alice"}, {"X-Name": "bob"}
    run = (await server.run("a.ipynb", headers={**alice, "Idempotency-Key": "k"})).json["id"]
    seen = (await server.get(run, headers=bob)).json
    assert (seen["result"], seen["user"]) == (5, "alice")
    (listed,) = (await server.fetch("GET", f"{SERVICE}/runs", headers=bob)).json["runs"]
    assert listed["user"] == "alice"
    answer = await server.run("a.ipynb", headers={**bob, "Idempotency-Key": "k"})
    assert (answer.json["id"], answer.headers["Idempotency-Replayed"]) == (run, "true")
    assert (await server.get(run, headers=bob, method="DELETE")).status == 204


# The file


async def test_file_modes(server: Server) -> None:
    """What is stored can be read by the server's user alone (S61), and is not among the notebooks."""
    server.write("a.ipynb", "1")
    await server.run("a.ipynb")
    folder = Path(jupyter_data_dir()) / "nbexec"
    assert folder.stat().st_mode & 0o777 == 0o700
    files = sorted(folder.iterdir())
    assert files
    for file in files:
        assert file.stat().st_mode & 0o777 == 0o600, file
    assert server.root not in folder.parents


@pytest.mark.server(NbExec={"database_url": "sqlite:////dev/null/nowhere/runs.sqlite"})
async def test_store_that_cannot_be_made(server: Server) -> None:
    """Where the store cannot be used nothing is run: 503 `storage_unavailable`, on every path of runs."""
    server.write("a.ipynb", "1")
    calls: list[Answer] = [
        await server.run("a.ipynb"),
        await server.run("a.ipynb", headers={"Prefer": "respond-async"}),
        await server.run("a.ipynb", headers={"Idempotency-Key": "k"}),
        await server.fetch("GET", f"{SERVICE}/runs"),
        await server.get(NOWHERE),
        await server.get(NOWHERE, "/events"),
        await server.get(NOWHERE, method="DELETE"),
        await server.cancel(NOWHERE),
        await server.fetch("POST", f"{SERVICE}/runs/prune", b""),
    ]
    for answer in calls:
        assert_refused(answer, 503, "storage_unavailable")
        assert "nowhere" not in answer.body.decode()
    assert server.started == []
    # What needs no store works.
    assert (await server.describe("a.ipynb")).status == 200


async def test_store_that_is_lost(server: Server) -> None:
    """A run is refused, and none is started, while the database is locked or broken."""
    server.write("a.ipynb", "1")
    assert (await server.run("a.ipynb")).status == 200
    file = Path(jupyter_data_dir()) / "nbexec" / "runs.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("ALTER TABLE nbexec_documents RENAME TO gone")
    connection.close()
    for headers in ({}, {"Prefer": "respond-async"}):
        answer = await server.run("a.ipynb", headers=headers)
        assert_refused(answer, 503, "storage_unavailable")
    assert len(server.started) == 1
    with sqlite3.connect(file) as connection:
        connection.execute("ALTER TABLE gone RENAME TO nbexec_documents")
    connection.close()
    assert (await server.run("a.ipynb")).status == 200
