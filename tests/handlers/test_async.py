"""Runs that outlive their requests: `Prefer`, `Idempotency-Key`, the queue, secrets (API.md section 6)."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import uuid
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_core.paths import jupyter_data_dir

from jupyter_nbexec import models
from tests.handlers.conftest import DEADLINE, SERVICE

if TYPE_CHECKING:
    from tests.handlers.conftest import Answer, Server

ONE_AT_ONCE = pytest.mark.server(NbExec={"max_concurrent_runs": 1, "interrupt_grace": 1.0})
ASYNC = {"Prefer": "respond-async"}


def assert_refused(answer: Answer, status: int, code: str, *fields: str) -> None:
    """Check a refusal, and the fields that it names."""
    assert (answer.status, answer.json["code"]) == (status, code), answer
    assert "Traceback" not in answer.body.decode()
    assert tuple(each["field"] for each in answer.json.get("errors", [])) == fields


def counting(server: Server) -> tuple[str, Path]:
    """Write a cell that leaves a line for each time it is executed."""
    trace = server.root / "trace"
    return f"open({str(trace)!r}, 'a').write('x')", trace


# Prefer


@ONE_AT_ONCE
async def test_respond_async(server: Server) -> None:
    """202 at once, with the run as it is queued, its place, and what was preferred."""
    server.write("long.ipynb", server.gate("gate"))
    server.write("d/a b.ipynb", server.cell("x = 1", "parameters"), "x")
    await server.submit("long.ipynb")
    await server.is_running("gate")
    answer = await server.run("d/a%20b.ipynb", headers=ASYNC, parameters={"x": 5})
    run = answer.json
    assert (answer.status, answer.media_type) == (202, "application/json")
    assert (
        answer.headers["Location"] == f"{server.base_url}{SERVICE}/runs/{run['id']}" == run["links"]["self"]
    )
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert "Idempotency-Replayed" not in answer.headers
    assert (run["status"], run["path"], run["parameters"]) == ("queued", "d/a b.ipynb", {"x": 5})
    assert run["started"] is run["ended"] is run["kernel"] is run["result"] is run["error"] is None
    assert (run["outputs"], run["scraps"]) == ([], {})
    # What was answered is on disk: another process reads it.
    with sqlite3.connect(Path(jupyter_data_dir()) / "nbexec" / "runs.sqlite") as connection:
        assert connection.execute("SELECT status FROM nbexec_runs WHERE id = ?", (run["id"],)).fetchall() == [
            ("queued",)
        ]
    connection.close()
    server.open_gate("gate")
    ended = await server.ended(run["id"])
    assert (ended["status"], ended["result"]) == ("succeeded", 5)


async def test_respond_async_with_a_notebook(server: Server) -> None:
    """A notebook in the body can be run asynchronously too; what is stored of it is what was sent."""
    notebook = server.notebook("print('x')\n40 + 2")
    run = await server.submit("", notebook=notebook)
    ended = await server.ended(run["id"])
    assert (ended["path"], ended["result"]) == (None, 42)


@pytest.mark.parametrize(
    ("prefer", "status", "applied"),
    [
        ("wait=60", 200, "wait=60"),
        ("Wait = 60", 200, "wait=60"),
        ('wait="60"; foo=bar', 200, "wait=60"),
        ("respond-async, wait=60", 200, "respond-async, wait=60"),
        ("respond-async; foo", 202, "respond-async"),
        ("RESPOND-ASYNC", 202, "respond-async"),
        ("handling=lenient, respond-async", 202, "respond-async"),
        ("wait=0", 202, "wait=0"),
        ("wait=60, wait=0", 200, "wait=60"),
        ("wait=abc", 200, None),
        ("wait=-1", 200, None),
        ("wait=1.5", 200, None),
        ("wait=", 200, None),
        ("wait", 200, None),
        ("no-such-preference", 200, None),
        ('foo="a, respond-async, wait=0, b"', 200, None),
        ("return=minimal", 200, None),
        ("wait=99999999999999999999", 200, "wait=1e+09"),
        (";,=,,", 200, None),
    ],
)
async def test_prefer(server: Server, prefer: str, status: int, applied: str | None) -> None:
    """What is preferred is done where it is understood, told where it is done, else ignored (B109)."""
    server.write("a.ipynb", "5")
    answer = await server.run("a.ipynb", headers={"Prefer": prefer})
    assert answer.status == status, answer
    assert answer.headers.get("Preference-Applied") == applied
    assert ("Location" in answer.headers) is (status == 202)
    assert ("Server-Timing" in answer.headers) is (status == 200)
    assert (await server.ended(answer.json["id"]))["result"] == 5


async def test_wait_that_is_too_short(server: Server) -> None:
    """202 with the run as it is when the time is over; it goes on."""
    server.write("a.ipynb", "print('so far', flush=True)", server.gate("gate"), "5")
    task = asyncio.create_task(server.run("a.ipynb", headers={"Prefer": "wait=1"}))
    await server.is_running("gate")
    answer = await task
    assert (answer.status, answer.headers["Preference-Applied"]) == (202, "wait=1")
    assert answer.headers["Location"].endswith(answer.json["id"])
    assert answer.json["status"] in ("queued", "running")
    server.open_gate("gate")
    assert (await server.ended(answer.json["id"]))["result"] == 5


async def test_wait_for_a_failed_run(server: Server) -> None:
    """A run that fails while it is waited for has the status of its failure."""
    server.write("a.ipynb", "1 / 0")
    answer = await server.run("a.ipynb", headers={"Prefer": "wait=60"})
    assert (answer.status, answer.json["error"]["code"]) == (500, "cell_error")
    run = await server.submit("a.ipynb")
    assert (await server.ended(run["id"]))["error"]["ename"] == "ZeroDivisionError"


async def test_two_prefer_headers(server: Server) -> None:
    """Several headers are one list."""
    server.write("a.ipynb", "5")
    answer = await server.raw(
        server.head(f"{SERVICE}/a.ipynb", "Prefer: foo", "Prefer: respond-async", "Content-Length: 0")
    )
    assert answer.startswith(b"HTTP/1.1 202"), answer


async def test_accept_of_what_is_accepted(server: Server) -> None:
    """202 is the run as JSON, whatever shape was asked for; that shape is had later."""
    server.write("a.ipynb", "display({'text/csv': 'a,b'}, raw=True)")
    answer = await server.run("a.ipynb", headers={**ASYNC, "Accept": "text/csv"})
    assert (answer.status, answer.media_type) == (202, "application/json")
    run = answer.json["id"]
    await server.ended(run)
    assert (await server.get(run, headers={"Accept": "text/csv"})).body == b"a,b"
    assert_refused(await server.run("a.ipynb", headers={**ASYNC, "Accept": "*/*;q=0"}), 406, "not_acceptable")


async def test_refusals_come_first(server: Server) -> None:
    """What is wrong with a request is told at once, also where nobody waits; nothing is stored."""
    server.write("a.ipynb", server.cell("x: int = 1", "parameters"))
    assert_refused(await server.run("nope.ipynb", headers=ASYNC), 404, "notebook_not_found")
    assert (await server.run("a.ipynb", headers=ASYNC, parameters={"x": "a"})).status == 400
    assert_refused(await server.run("a.ipynb", headers=ASYNC, kernel_name="nope"), 422, "no_such_kernel")
    assert_refused(await server.run("a.ipynb", headers=ASYNC, kernel_id="nope"), 404, "kernel_not_found")
    assert (await server.runs_page())["runs"] == []


@ONE_AT_ONCE
async def test_the_notebook_is_taken_when_it_is_asked_for(server: Server) -> None:
    """What runs is the notebook as it was when the run was admitted, whatever becomes of the file."""
    server.write("long.ipynb", server.gate("gate"))
    file = server.write("a.ipynb", "'old'")
    gate = (await server.submit("long.ipynb"))["id"]
    await server.is_running("gate")
    runs = [(await server.submit("a.ipynb"))["id"] for _ in range(4)]
    server.write("a.ipynb", "'new'")
    late = (await server.submit("a.ipynb"))["id"]
    file.unlink()
    server.open_gate("gate")
    await server.ended(gate)
    assert {(await server.ended(run))["result"] for run in runs} == {"old"}
    assert (await server.ended(late))["result"] == "new"


async def test_save_as(server: Server) -> None:
    """An asynchronous run is saved where that was asked for."""
    server.write("a.ipynb", "5")
    run = await server.submit("a.ipynb", save_as="out/{name}-{run_id}.ipynb")
    assert (await server.ended(run["id"]))["saved_as"] == f"out/a-{run['id']}.ipynb"
    assert (server.root / "out" / f"a-{run['id']}.ipynb").exists()


async def test_existing_kernel(server: Server) -> None:
    """An asynchronous run may use a live kernel, which lives on."""
    server.write("a.ipynb", "x = 41")
    server.write("b.ipynb", "x + 1")
    kernel = await server.lend()
    await server.ended((await server.submit("a.ipynb", kernel_id=kernel))["id"])
    ended = await server.ended((await server.submit("b.ipynb", kernel_id=kernel))["id"])
    assert (ended["result"], ended["kernel"]["source"]) == (42, "existing")


@ONE_AT_ONCE
async def test_existing_kernel_that_has_gone(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A run that is queued for a live kernel fails, and says why, when the kernel is gone by then."""
    server.write("long.ipynb", server.gate("gate"))
    server.write("a.ipynb", "1")
    kernel = await server.lend()
    await server.submit("long.ipynb")
    await server.is_running("gate")
    run = await server.submit("a.ipynb", kernel_id=kernel)
    assert (await server.fetch("DELETE", f"api/kernels/{kernel}")).status == 204
    server.open_gate("gate")
    ended = await server.ended(run["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "kernel_start_failed")
    assert ended["error"]["message"]
    assert "Traceback" not in caplog.text


@ONE_AT_ONCE
async def test_order(server: Server) -> None:
    """Asynchronous runs are executed in the order in which they were admitted."""
    server.write(
        "a.ipynb",
        server.cell("i = 0", "parameters"),
        f"open({str(server.root / 'trace')!r}, 'a').write(f'{{i}} ')",
    )
    server.write("long.ipynb", server.gate("gate"))
    await server.submit("long.ipynb")
    await server.is_running("gate")
    runs = [(await server.submit("a.ipynb", parameters={"i": i}))["id"] for i in range(5)]
    server.open_gate("gate")
    for run in runs:
        await server.ended(run)
    assert (server.root / "trace").read_text().split() == ["0", "1", "2", "3", "4"]


# Hanging up


@pytest.mark.parametrize(
    ("header", "goes_on"),
    [
        ("X-Nothing: 1", False),
        ("Prefer: wait=60", True),
        ("Prefer: no-such-preference", True),
        ("Idempotency-Key: a", True),
    ],
)
async def test_hang_up(server: Server, header: str, goes_on: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Who hangs up cancels the run, except with `Prefer` or a key: then it goes on, and is found again."""
    server.write("a.ipynb", server.gate("gate"), "'ended'")
    _, writer = await server.connect()
    writer.write(server.head(f"{SERVICE}/a.ipynb", "Content-Length: 2", header) + b"{}")
    await server.is_running("gate")
    run = (await server.runs_page())["runs"][0]["id"]
    await server.hang_up(writer)
    if goes_on:
        # By now the server has noticed.
        await server.fetch("GET", "api/status")
        server.open_gate("gate")
    ended = await server.ended(run)
    assert (ended["status"], ended["result"]) == (("succeeded", "ended") if goes_on else ("cancelled", None))
    assert "Traceback" not in caplog.text


# Idempotency-Key


@pytest.mark.parametrize("prefer", [{}, ASYNC, {"Prefer": "wait=60"}], ids=str)
async def test_key(server: Server, prefer: dict[str, str]) -> None:
    """The same key with the same request gives the same run, which is executed once (B108)."""
    source, trace = counting(server)
    server.write("a.ipynb", server.cell("x = 1", "parameters"), source, "x")
    headers = {**prefer, "Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
    first = await server.run("a.ipynb", headers=headers, parameters={"x": 5})
    assert first.status == (202 if prefer == ASYNC else 200)
    assert "Idempotency-Replayed" not in first.headers
    ended = await server.ended(first.json["id"])
    for again in (headers, {"Idempotency-Key": headers["Idempotency-Key"]}):
        answer = await server.run("a.ipynb", headers=again, parameters={"x": 5})
        # What has ended is answered in full, also to those who would not have waited.
        assert answer.status == 200
        assert answer.headers["Idempotency-Replayed"] == "true"
        assert answer.json == ended
    assert trace.read_text() == "x"
    # Another shape of the same run.
    answer = await server.run(
        "a.ipynb", headers={**headers, "Accept": "application/x-ipynb+json"}, parameters={"x": 5}
    )
    assert answer.json["nbformat"] == 4
    assert trace.read_text() == "x"


async def test_key_of_a_failed_run(server: Server) -> None:
    """A failure is repeated as well, with its status: another try takes another key."""
    source, trace = counting(server)
    server.write("a.ipynb", source, "1 / 0")
    headers = {"Idempotency-Key": "k"}
    first = await server.run("a.ipynb", headers=headers)
    again = await server.run("a.ipynb", headers=headers)
    assert first.status == again.status == 500
    assert first.json == again.json
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await server.run("a.ipynb", headers={"Idempotency-Key": "k2"})
    assert other.json["id"] != first.json["id"]
    assert trace.read_text() == "xx"


async def test_key_of_a_cancelled_run(server: Server) -> None:
    """A run that was cancelled is answered as such."""
    server.write("a.ipynb", server.long())
    headers = {"Idempotency-Key": "k"}
    first = asyncio.create_task(server.run("a.ipynb", headers=headers))
    await server.is_running()
    await server.cancel((await server.runs_page())["runs"][0]["id"])
    assert (await first).status == 409
    again = await server.run("a.ipynb", headers=headers)
    assert (again.status, again.json["status"], again.headers["Idempotency-Replayed"]) == (
        409,
        "cancelled",
        "true",
    )


async def test_key_refused_is_free(server: Server) -> None:
    """A request that was refused has made no run, and its key is free."""
    server.write("a.ipynb", server.cell("x: int = 1", "parameters"), "x")
    headers = {"Idempotency-Key": "k"}
    assert (await server.run("a.ipynb", headers=headers, parameters={"x": "a"})).status == 400
    answer = await server.run("a.ipynb", headers=headers, parameters={"x": 5})
    assert (answer.status, answer.json["result"]) == (200, 5)


async def test_key_of_another_request(server: Server) -> None:
    """The same key with another request is 422, and runs nothing (B106); the order of members is nothing."""
    source, trace = counting(server)
    server.write("a.ipynb", source)
    server.write("b.ipynb", source)
    headers = {"Idempotency-Key": "k"}
    fields: dict[str, Any] = {"parameters": {}, "env": {"A": "1"}, "timeout": 50}
    assert (await server.run("a.ipynb", headers=headers, **fields)).status == 200
    others: list[tuple[str, dict[str, Any]]] = [
        ("b.ipynb", {}),
        ("a.ipynb", {"timeout": 51}),
        ("a.ipynb", {"env": {"B": "1"}}),
        ("a.ipynb", {"parameters": {"x": 1}}),
        ("a.ipynb", {"outputs": "none"}),
        ("a.ipynb", {"save_as": "c.ipynb"}),
    ]
    for path, changes in others:
        for prefer in ({}, ASYNC):
            answer = await server.run(path, headers={**headers, **prefer}, **{**fields, **changes})
            assert_refused(answer, 422, "idempotency_mismatch")
    body = json.dumps(dict(reversed(fields.items())), indent=2)
    answer = await server.fetch("POST", f"{SERVICE}/a.ipynb", body, headers=headers)
    assert (answer.status, answer.headers["Idempotency-Replayed"]) == (200, "true")
    # Values of `env` are secrets, which are not kept, not even to compare them.
    answer = await server.run("a.ipynb", headers=headers, **{**fields, "env": {"A": "2"}})
    assert answer.headers["Idempotency-Replayed"] == "true"
    assert trace.read_text() == "x"


@pytest.mark.parametrize("prefer", [{}, ASYNC], ids=str)
async def test_key_while_running(server: Server, prefer: dict[str, str]) -> None:
    """While the run goes on, further requests join the wait, or are told where it stands."""
    source, trace = counting(server)
    server.write("a.ipynb", source, server.gate("gate"), "5")
    headers = {"Idempotency-Key": "k"}
    first = asyncio.create_task(server.run("a.ipynb", headers={**headers, **prefer}))
    await server.is_running("gate")
    joined = [asyncio.create_task(server.run("a.ipynb", headers=headers)) for _ in range(3)]
    told = await server.run("a.ipynb", headers={**headers, **ASYNC})
    assert (told.status, told.json["status"]) == (202, "running")
    assert told.headers["Idempotency-Replayed"] == "true"
    short = await server.run("a.ipynb", headers={**headers, "Prefer": "wait=0"})
    assert short.status == 202
    assert not any(task.done() for task in joined)
    server.open_gate("gate")
    for answer in [await task for task in joined]:
        assert (answer.status, answer.json["result"], answer.headers["Idempotency-Replayed"]) == (
            200,
            5,
            "true",
        )
        assert answer.json["id"] == told.json["id"] == (await first).json["id"]
    assert trace.read_text() == "x"


async def test_hanging_up_of_one_who_joined(server: Server) -> None:
    """Who joined the wait and hangs up cancels nothing."""
    server.write("a.ipynb", server.gate("gate"), "5")
    headers = {"Idempotency-Key": "k"}
    first = asyncio.create_task(server.run("a.ipynb", headers=headers))
    await server.is_running("gate")
    _, writer = await server.connect()
    writer.write(server.head(f"{SERVICE}/a.ipynb", "Content-Length: 2", "Idempotency-Key: k") + b"{}")
    await writer.drain()
    await server.fetch("GET", "api/status")
    await server.hang_up(writer)
    await server.fetch("GET", "api/status")
    server.open_gate("gate")
    assert (await first).json["result"] == 5


@pytest.mark.parametrize("prefer", [{}, ASYNC, {"Prefer": "wait=60"}], ids=str)
@pytest.mark.parametrize(
    "_limits",
    [
        pytest.param(0, marks=pytest.mark.server(NbExec={"max_concurrent_runs": 4}), id="usual"),
        pytest.param(
            1,
            marks=pytest.mark.server(
                NbExec={"max_concurrent_runs": 1, "max_queued_runs": 0, "max_queued_async_runs": 1}
            ),
            id="narrow",
        ),
    ],
)
async def test_key_of_twenty_at_once(server: Server, prefer: dict[str, str], _limits: int) -> None:
    """The same key sent by 20 clients at once makes one run, also where there is no room for more."""
    source, trace = counting(server)
    server.write("a.ipynb", source, "5")
    headers = {"Idempotency-Key": "k", **prefer}
    answers = await asyncio.gather(*(server.run("a.ipynb", headers=headers) for _ in range(20)))
    assert {answer.status for answer in answers} <= ({200, 202} if prefer == ASYNC else {200}), Counter(
        str(answer)[:200] for answer in answers
    )
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    await server.ended(answers[0].json["id"])
    assert trace.read_text() == "x"
    assert len(server.started) == 1
    assert len((await server.runs_page())["runs"]) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("k", '"k"'),
        ('"a b"', "a b"),
        (r'"a\"b"', 'a"b'),
        ("x" * 255, f'"{"x" * 255}"'),
        ("!#$%&'()*+,-./:;<=>?@[]^_`{|}~", None),
        ('"', None),
        ("schlüssel", None),
        ("À", None),
        ("\U0001f511" * 255, None),
    ],
    ids=lambda each: str(each)[:10],
)
async def test_key_spelling(server: Server, one: str, other: str | None) -> None:
    """A key of 1 to 255 characters may be in quotes, or not; both are the same."""
    server.write("a.ipynb", "5")
    runs = []
    for key in (one, other or one):
        head = server.head(
            f"{SERVICE}/a.ipynb", "Content-Length: 2", "Connection: close", f"Idempotency-Key: {key}"
        )
        reader, writer = await server.connect()
        writer.write(head + b"{}")
        answer = await asyncio.wait_for(reader.read(), DEADLINE)
        await server.hang_up(writer)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        runs.append(json.loads(answer.partition(b"\r\n\r\n")[2])["id"])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("key", ["", '""', "x" * 256, f'"{"x" * 256}"', "a\tb", "a\x7fb", "é" * 256])
async def test_key_refused(server: Server, key: str, caplog: pytest.LogCaptureFixture) -> None:
    """A key that is empty, too long, or has control characters is 400, before the body is read (B105)."""
    server.write("a.ipynb", "5")
    for auth in (True, False):
        head = server.head(
            f"{SERVICE}/a.ipynb",
            "Content-Length: 1000",
            "Connection: close",
            f"Idempotency-Key: {key}",
            auth=auth,
        )
        answer = await server.raw(head)
        if auth and b"\r\n\r\n{" in answer:
            assert answer.startswith(b"HTTP/1.1 400"), answer
            document = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert [each["field"] for each in document["errors"]] == ["Idempotency-Key"]
        else:
            # tornado itself refuses some.
            assert answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400")), answer
    assert server.started == []
    assert "Traceback" not in caplog.text


# Limits


@pytest.mark.server(NbExec={"max_concurrent_runs": 1, "max_queued_async_runs": 2, "max_queued_runs": 1})
async def test_queue_of_asynchronous_runs(server: Server) -> None:
    """429 `queue_full` with `Retry-After` when too many wait; neither queue takes the other's room."""
    server.write("long.ipynb", server.gate("gate"))
    server.write("a.ipynb", "5")
    running = await server.submit("long.ipynb")
    await server.is_running("gate")
    queued = [await server.submit("a.ipynb", headers={"Idempotency-Key": str(i)}) for i in range(2)]
    answer = await server.run("a.ipynb", headers=ASYNC)
    assert_refused(answer, 429, "queue_full")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    # A synchronous one may still wait, and a second may not.
    waiting = asyncio.create_task(server.run("a.ipynb"))
    await server.until(lambda: server.runs.unfinished == 4)
    assert_refused(await server.run("a.ipynb"), 429, "queue_full")
    # Whose run is in the queue is told so, full as it is.
    again = await server.run("a.ipynb", headers={**ASYNC, "Idempotency-Key": "0"})
    assert (again.status, again.json["id"]) == (202, queued[0]["id"])
    # A place that was given up is free at once.
    await server.cancel(queued[1]["id"])
    third = await server.submit("a.ipynb")
    server.open_gate("gate")
    for run in (running, queued[0], third):
        assert (await server.ended(run["id"]))["status"] == "succeeded"
    assert (await waiting).status == 200


@pytest.mark.server(NbExec={"max_queued_async_runs": 0})
async def test_no_asynchronous_runs(server: Server) -> None:
    """With `max_queued_async_runs` 0 there are none, and synchronous ones go on."""
    server.write("a.ipynb", "5")
    assert_refused(await server.run("a.ipynb", headers=ASYNC), 429, "queue_full")
    assert (await server.run("a.ipynb", headers={"Prefer": "wait=60"})).status == 200


@pytest.mark.server(NbExec={"max_concurrent_runs": 2})
async def test_flood_does_not_starve_synchronous_runs(server: Server) -> None:
    """The last place is not given to asynchronous runs: who waits for an answer gets one."""
    server.write("long.ipynb", server.gate("gate"))
    server.write("a.ipynb", "5")
    flood = [(await server.submit("long.ipynb"))["id"] for _ in range(5)]
    await server.is_running("gate")
    answer = await asyncio.wait_for(server.run("a.ipynb"), DEADLINE)
    assert (answer.status, answer.json["result"]) == (200, 5)
    assert len((await server.runs_page("?status=running"))["runs"]) == 1
    server.open_gate("gate")
    for run in flood:
        await server.ended(run)


@pytest.mark.server(NbExec={"max_concurrent_runs": 1, "interrupt_grace": 1.0})
async def test_stopping(server: Server) -> None:
    """Once the server ends, nothing is admitted; what the next one may execute stays queued on disk."""
    server.write("long.ipynb", "print('said', flush=True)", server.long())
    server.write("a.ipynb", "5")
    running = (await server.submit("long.ipynb"))["id"]
    await server.is_running()
    queued = (await server.submit("a.ipynb"))["id"]
    with_env = (await server.submit("a.ipynb", env={"A": "1"}))["id"]
    waiting = [
        asyncio.create_task(server.run("a.ipynb", headers=headers))
        for headers in ({}, {"Prefer": "wait=60"}, {"Idempotency-Key": "k"})
    ]
    await server.until(lambda: len(server.runs._waiting) == 3)
    await asyncio.wait_for(server.app.extension_manager.stop_all_extensions(), 30)
    # Who asked for an answer and nothing else gets one; the others are told that their runs go on.
    answers = [await task for task in waiting]
    assert [answer.status for answer in answers] == [503, 202, 202]
    assert answers[0].json["error"]["code"] == "server_stopped"
    for answer in answers[1:]:
        assert answer.json["status"] == "queued"
        assert answer.headers["Location"].endswith(answer.json["id"])
    for headers in ({}, ASYNC, {"Idempotency-Key": "k"}):
        assert_refused(await server.run("a.ipynb", headers=headers), 503, "stopping")
    with sqlite3.connect(Path(jupyter_data_dir()) / "nbexec" / "runs.sqlite") as connection:
        rows = connection.execute("SELECT id, status, owner FROM nbexec_runs").fetchall()
    connection.close()
    stored = {run: (status, owner) for run, status, owner in rows}
    for run in (queued, *(answer.json["id"] for answer in answers[1:])):
        assert stored[run] == ("queued", None)
    assert {stored[run][0] for run in (running, with_env, answers[0].json["id"])} == {"failed"}
    assert server.kernels == []


# Webhooks, secrets


@pytest.mark.parametrize("headers", [{}, ASYNC], ids=str)
@pytest.mark.parametrize(
    ("allowed", "webhook", "field"),
    [
        pytest.param(hosts, webhook, field, marks=pytest.mark.server(NbExec={"webhook_hosts": hosts}))
        for hosts, webhook, field in [
            ([], {"url": "https://hooks.example.com/"}, "webhook.url"),
            (["hooks.example.com"], {"url": "https://other.example.com/"}, "webhook.url"),
            (["hooks.example.com"], {"url": "https://hooks.example.com:8443/"}, "webhook.url"),
            (["hooks.example.com"], {"url": "ftp://hooks.example.com/"}, "webhook.url"),
            (["hooks.example.com"], {"url": "https://user:pw@hooks.example.com/"}, "webhook.url"),
            (["hooks.example.com"], {"url": "https://hooks.example.com/", "secret": "x"}, "webhook.secret"),
            (["hooks.example.com"], {"url": "https://hooks.example.com/", "events": ["x"]}, "webhook.events"),
        ]
    ],
)
async def test_webhook_refused(
    server: Server, headers: dict[str, str], allowed: list[str], webhook: Any, field: str
) -> None:
    """A webhook to a host that is not allowed, or that is none, is 400 before anything runs (B113)."""
    server.write("a.ipynb", "5")
    answer = await server.run("a.ipynb", headers=headers, webhook=webhook)
    assert_refused(answer, 400, "invalid_request", field)
    assert "pw@" not in answer.body.decode()
    assert server.started == []
    assert (await server.runs_page())["runs"] == []


def stored_bytes() -> bytes:
    """All that the extension has put on disk, what is compressed also uncompressed."""
    folder = Path(jupyter_data_dir()) / "nbexec"
    found = [file.read_bytes() for file in folder.iterdir() if file.name != "webhooks.key"]
    with sqlite3.connect(folder / "runs.sqlite") as connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        for table in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                for value in row:
                    if isinstance(value, bytes):
                        try:
                            found.append(zlib.decompress(value))
                        except zlib.error:
                            found.append(value)
                    else:
                        found.append(str(value).encode())
    connection.close()
    return b"\n".join(found)


@pytest.mark.server(NbExec={"webhook_hosts": ["127.0.0.1:9"], "max_concurrent_runs": 1})
async def test_secrets_are_not_stored(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Values of `env` and a webhook's secret are in no file, no answer, no event and no log; the rest is."""
    password, key = f"swordfish-{uuid.uuid4().hex}", base64.b64encode(uuid.uuid4().bytes * 2).decode()
    fields: dict[str, Any] = {
        "env": {"PASSWORD": password},
        "webhook": {"url": "http://127.0.0.1:9/hook", "secret": f"whsec_{key}"},
        "parameters": {"word": "plain-parameter"},
    }
    server.write("long.ipynb", server.gate("gate"))
    server.write(
        "a.ipynb",
        server.cell("word = ''", "parameters"),
        "import os\nprint('plain-output')",
        "len(os.environ['PASSWORD'])",
    )
    await server.submit("long.ipynb")
    await server.is_running("gate")
    headers = {**ASYNC, "Idempotency-Key": "k"}
    accepted = await server.run("a.ipynb", headers=headers, **fields)
    while_queued = stored_bytes()
    server.open_gate("gate")
    run = accepted.json["id"]
    ended = await server.ended(run)
    assert (ended["status"], ended["result"]) == ("succeeded", len(password))
    replayed = await server.run("a.ipynb", headers=headers, **fields)
    assert replayed.headers["Idempotency-Replayed"] == "true"
    seen = [
        accepted.body,
        json.dumps(ended).encode(),
        replayed.body,
        (await server.get(run, "/events")).body,
        (await server.get(run, "/notebook")).body,
        json.dumps(await server.runs_page()).encode(),
    ]
    stored = stored_bytes()
    for text in (*seen, while_queued, stored, caplog.text.encode()):
        assert password.encode() not in text
        assert key.encode() not in text
    assert "env" not in ended
    assert b"secret" not in seen[1]
    assert ended["webhook"]["url"] == "http://127.0.0.1:9/hook"
    # Had they been there, they would have been found.
    assert b"plain-parameter" in while_queued
    assert b"plain-output" in stored


async def test_env_of_a_synchronous_run(server: Server) -> None:
    """What a run was given as `env` is nowhere on disk while it runs, at cell boundaries, and afterwards."""
    password = f"swordfish-{uuid.uuid4().hex}"
    server.write("a.ipynb", "import os\nlen(os.environ['PASSWORD'])", "print(1)", server.gate("gate"), "5")
    task = asyncio.create_task(server.run("a.ipynb", env={"PASSWORD": password}))
    await server.is_running("gate")
    during = stored_bytes()
    server.open_gate("gate")
    assert (await task).json["result"] == 5
    assert password.encode() not in during
    assert password.encode() not in stored_bytes()


async def test_what_this_server_can_execute(server: Server) -> None:
    """Of runs that wait, a server executes those whose kernel it has, and whose folder is below its root."""
    server.write("deep/a.ipynb", "1")
    (server.root / "file").touch()
    paths = [None, "gone.ipynb", "deep/gone.ipynb", "deeper/a.ipynb", "file/a.ipynb", "../a/a.ipynb"]
    waiting = [
        models.Waiting(id="", number=1, kernel_name=name, path=path, is_bound=False)
        for name, path in [*(("python3", path) for path in paths), ("rare", None)]
    ]
    assert [await server.extension._planner.obstacle(each) for each in waiting] == [
        *(None, None, None),
        *("It has no folder 'deeper'.", "It has no folder 'file'.", "It has no folder '../a'."),
        "It has no kernel 'rare'.",
    ]
