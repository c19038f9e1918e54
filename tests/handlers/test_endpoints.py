"""Calls of annotated cells: what they answer, and the faults of Kernel Gateway that they do not have."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from .conftest import SERVICE

if TYPE_CHECKING:
    from .conftest import Answer, Server

INFO = "import json\ndef info(**said): print(json.dumps(said))"
DISPLAY = "from IPython.display import HTML, display"


async def call(
    server: Server, path: str, method: str = "GET", body: bytes | str | None = None, **headers: str
) -> Answer:
    """Call an endpoint of `a.ipynb`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await server.fetch(method, f"{SERVICE}/a.ipynb{path}", body, headers=named)


def crew(server: Server, path: str = "a.ipynb") -> Any:
    """The kernels of a notebook."""
    return server.extension._services._services[path].crew


def idle(server: Server, path: str = "a.ipynb") -> list[Any]:
    """Kernels of a notebook that nobody uses."""
    return list(crew(server, path)._idle)


def processes() -> list[psutil.Process]:
    """Kernels below this process, shims included."""
    found = []
    for each in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            is_dead = each.status() == psutil.STATUS_ZOMBIE
            found += [each] if not is_dead and "ipykernel_launcher" in " ".join(each.cmdline()) else []
    return found


# Kernel Gateway's faults, by the numbers under which we know them


async def test_rich_outputs(server: Server) -> None:
    """Fault 1: what is shown is the answer, in its own type, under a policy that lets it do nothing."""
    server.write("a.ipynb", DISPLAY, "# GET /page\ndisplay(HTML('<script>1</script>'))")
    answer = await call(server, "/page")

    assert (answer.status, answer.media_type, answer.body) == (200, "text/html", b"<script>1</script>")
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert "allow-scripts" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_charset(server: Server) -> None:
    """Fault 2: JSON and forms are read with a charset too."""
    server.write("a.ipynb", "# POST /\nprint(REQUEST)")
    sent = await call(server, "/", "POST", '{"a": "é"}', Content_Type="application/json; charset=utf-8")
    form = "application/x-www-form-urlencoded; charset=utf-8"
    filled = await call(server, "/", "POST", "a=1&a=2&b=%C3%A9", Content_Type=form)

    assert sent.json["body"] == {"a": "é"}
    assert filled.json["body"] == {"a": ["1", "2"], "b": ["é"]}


async def test_body_that_is_no_text(server: Server) -> None:
    """Fault 3: a body that is not UTF-8 arrives whole."""
    server.write("a.ipynb", "# POST /\nprint(REQUEST)")
    answer = await call(server, "/", "POST", b"\xff\xfe", Content_Type="image/x-own")

    assert (answer.json["body"], answer.json["body_encoding"]) == ("//4=", "base64")


async def test_bad_response_info(server: Server) -> None:
    """Fault 4: a ResponseInfo cell that prints no JSON, or nothing, is named in the error."""
    server.write(
        "a.ipynb",
        "# GET /a\nprint(1)",
        "# GET /b\nprint(1)",
        "# ResponseInfo GET /a",
        "# ResponseInfo GET /b\nprint(2)",
    )
    silent, wrong = await call(server, "/a"), await call(server, "/b")

    for answer, cell in ((silent, 2), (wrong, 3)):
        assert (answer.status, answer.json["code"]) == (500, "bad_response_info"), answer
        assert (answer.json["cell"], answer.json["cell_id"]) == (cell, f"id-{cell}")
        assert str(cell) in answer.json["message"]


async def test_input(server: Server) -> None:
    """Fault 5: a cell that asks for input fails at once, and the kernel goes on."""
    server.write("a.ipynb", "import os", "# GET /ask\ninput()", "# GET /pid\nprint(os.getpid())")
    before = await call(server, "/pid")
    asked = await call(server, "/ask")
    after = await call(server, "/pid")

    assert (asked.status, asked.json["ename"]) == (500, "StdinNotImplementedError")
    assert before.body == after.body


async def test_death(server: Server) -> None:
    """Fault 6: a kernel that dies fails the call that it had, and is replaced for all others."""
    server.write("a.ipynb", "import os", "# GET /die\nos._exit(3)", "# GET /pid\nprint(os.getpid())")
    before = await call(server, "/pid")
    died = await call(server, "/die")
    after = await call(server, "/pid")

    assert (died.status, died.json["code"]) == (502, "kernel_died")
    assert died.json["message"] == "The kernel exited with code 3."
    assert after.status == 200
    assert before.body != after.body


async def test_client_that_hangs_up(server: Server) -> None:
    """Fault 7: the cell of a client that hangs up is interrupted, and the kernel serves the next."""
    server.write("a.ipynb", f"# GET /long\n{server.long()}", "# GET /pid\nimport os; print(os.getpid())")
    before = await call(server, "/pid")
    _, writer = await server.connect()
    writer.write(server.head(f"{SERVICE}/a.ipynb/long", method="GET"))
    await server.is_running()
    await server.hang_up(writer)
    after = await call(server, "/pid")

    assert (after.status, after.body) == (200, before.body)


@pytest.mark.server(ServerApp={"allow_origin": "https://a.example"})
async def test_cors(server: Server) -> None:
    """Fault 8: the server's settings for other origins count for answers, errors and preflights."""
    server.write("a.ipynb", "# PUT /a\nprint(1)", "# GET /bad\n1/0")
    origin = {"Origin": "https://a.example"}
    answers = [await call(server, "/a", "PUT", "", **origin), await call(server, "/bad", **origin)]
    preflight = await server.fetch(
        "OPTIONS",
        f"{SERVICE}/a.ipynb/a",
        headers={**origin, "Access-Control-Request-Method": "PUT"},
        auth=False,
    )

    assert [each.status for each in answers] == [200, 500]
    for each in (*answers, preflight):
        assert each.headers["Access-Control-Allow-Origin"] == "https://a.example"
    assert preflight.status == 200
    assert "PUT" in preflight.headers["Access-Control-Allow-Methods"]
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"]


async def test_no_credentials(server: Server) -> None:
    """Fault 9: no notebook sees what authenticates a request."""
    server.write("a.ipynb", "# GET /\nprint(REQUEST)")
    answer = await call(server, f"/?token={server.token}&a=1&_xsrf=x", Cookie="c=1", X_XSRFToken="x")

    assert answer.json["args"] == {"a": ["1"]}
    assert not {"Authorization", "Cookie", "X-Xsrftoken"} & answer.json["headers"].keys()
    assert server.token not in answer.body.decode()


async def test_field_called_token(server: Server) -> None:
    """Fault 10: a field of a form is no credential, whatever it is called."""
    server.write("a.ipynb", "# POST /\nprint(REQUEST)")
    form = "application/x-www-form-urlencoded"
    answer = await call(server, "/", "POST", "token=mine&_xsrf=x", Content_Type=form)

    assert answer.status == 200, answer
    assert answer.json["body"] == {"token": ["mine"], "_xsrf": ["x"]}


async def test_wrong_verb(server: Server) -> None:
    """Fault 11: a wrong verb, and a wrong path, are refused while all kernels are busy, or none is there."""
    server.write("a.ipynb", f"# GET /long\n{server.gate('g')}\nprint('over')")
    assert (await call(server, "/long", "PUT", "")).status == 405
    assert crew(server) is None if "a.ipynb" in server.extension._services._services else True
    long = asyncio.ensure_future(call(server, "/long"))
    await server.is_running("g")
    refused = await call(server, "/long", "DELETE")
    missing = await call(server, "/longer")

    assert not long.done()
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert (missing.status, missing.json["code"]) == (404, "endpoint_not_found")
    server.open_gate("g")
    assert (await long).body == b"over\n"


async def test_path_with_a_space(server: Server) -> None:
    """Fault 12: a path with a space, or with letters beyond ASCII, is called as any other."""
    server.write("a.ipynb", "# GET /a b/ü/:x\nprint(REQUEST)")
    answer = await call(server, "/a%20b/%C3%BC/%20%2F")

    assert (answer.status, answer.json["path"]) == (200, {"x": " /"})


async def test_repeated_headers(server: Server) -> None:
    """Fault 13: a header that is repeated three times and more is a list of all."""
    server.write("a.ipynb", "# GET /\nprint(REQUEST)")
    head = server.head(
        f"{SERVICE}/a.ipynb/", "X-A: 1", "X-A: 2", "X-A: 3", "X-A: 4", "Connection: close", method="GET"
    )
    answer = await server.raw(head)

    assert json.loads(answer.partition(b"\r\n\r\n")[2])["headers"]["X-A"] == ["1", "2", "3", "4"]


async def test_early_end(server: Server) -> None:
    """Fault 14: `SystemExit(0)` and `exit()` end early with what there is; other codes are failures."""
    server.write(
        "a.ipynb",
        f"import sys\n{INFO}",
        "# GET /end\nprint('early'); sys.exit(0)\nprint('late')",
        "# ResponseInfo GET /end\ninfo(status=202)",
        "# GET /none\nprint('early'); sys.exit()",
        "# GET /quit\nprint('early'); exit()",
        "# GET /three\nprint('early'); sys.exit(3)",
    )
    answers = [await call(server, path) for path in ("/end", "/none", "/quit", "/three", "/none")]

    assert [each.status for each in answers] == [202, 200, 200, 500, 200]
    assert {each.body for each in (answers[0], answers[1], answers[2], answers[4])} == {b"early\n"}
    assert (answers[3].json["ename"], answers[3].json["evalue"]) == ("SystemExit", "3")


# What calls answer


async def test_verbs(server: Server) -> None:
    """Each verb calls its own cell; HEAD is GET without the body; OPTIONS says what there is."""
    verbs = ("GET", "PUT", "POST", "DELETE", "PATCH")
    server.write("a.ipynb", *(f"# {verb} /x\nprint('{verb}')" for verb in verbs), "# PUT /y\n1")
    answers = {
        verb: await call(server, "/x", verb, None if verb in ("GET", "DELETE") else "") for verb in verbs
    }
    head = await call(server, "/x", "HEAD")
    options = await call(server, "/y", "OPTIONS")

    assert {verb: answer.body for verb, answer in answers.items()} == {
        verb: f"{verb}\n".encode() for verb in verbs
    }
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "4")
    assert (options.status, options.body, options.headers["Allow"]) == (200, b"", "PUT, OPTIONS")
    assert (await call(server, "/x", "TRACE")).status == 405


async def test_response_info(server: Server) -> None:
    """Status and headers come from the ResponseInfo cell, which sees what the cell has made."""
    server.write(
        "a.ipynb",
        INFO,
        "# POST /a\nmade = 7\nprint('<a/>')",
        "# ResponseInfo POST /a\n"
        "said = {'Content-Type': 'text/xml', 'Location': f'/a/{made}', 'X': ['1', '2']}\n"
        "info(status=201, headers=said)",
        "# GET /gone\nprint('x')",
        "# ResponseInfo GET /gone\ninfo(status=204)",
        "# GET /cookie\nprint('x')",
        "# ResponseInfo GET /cookie\n"
        "info(headers={'Set-Cookie': 'evil=1', 'Content-Security-Policy': '', 'A': '1'})",
        "# GET /split\nprint('x')",
        "# ResponseInfo GET /split\ninfo(headers={'A': '1\\r\\nB: 2'})",
    )
    made, gone = await call(server, "/a", "POST", ""), await call(server, "/gone")
    cookie, split = await call(server, "/cookie"), await call(server, "/split")

    assert (made.status, made.media_type, made.body) == (201, "text/xml", b"<a/>\n")
    assert (made.headers["Location"], made.headers.get_list("X")) == ("/a/7", ["1", "2"])
    assert (gone.status, gone.body) == (204, b"")
    assert "evil" not in str(cookie.headers)
    assert "sandbox" in cookie.headers["Content-Security-Policy"]
    assert cookie.headers["A"] == "1"
    assert (split.status, split.json["code"]) == (500, "bad_response_info")


async def test_error(server: Server) -> None:
    """An error says what was raised and where, and nothing of the server; the kernel goes on."""
    server.write("a.ipynb", "n = 0", "# GET /bad\nn += 1\n1/0", "# GET /n\nprint(n)", "# GET /syntax\n)")
    bad, syntax = await call(server, "/bad"), await call(server, "/syntax")

    assert bad.status == 500
    assert bad.json == {
        "message": "ZeroDivisionError: division by zero",
        "reason": None,
        "code": "cell_error",
        "ename": "ZeroDivisionError",
        "evalue": "division by zero",
        "cell": 1,
        "cell_id": "id-1",
        "cells": [1],
    }
    assert syntax.json["ename"] == "SyntaxError"
    assert (await call(server, "/n")).body == b"1\n"


async def test_kernel_state(server: Server) -> None:
    """Seed cells run once; what calls leave in the kernel is there for the next; authors can tell."""
    server.write(
        "a.ipynb",
        "import os\nn = 0\nif 'KERNEL_GATEWAY' not in os.environ: raise ValueError",
        "# GET /n\nn += 1\nprint(n, os.path.basename(os.getcwd()))",
    )
    (server.root / "sub").mkdir()
    (server.root / "a.ipynb").rename(server.root / "sub" / "a.ipynb")
    said = [(await server.fetch("GET", f"{SERVICE}/sub/a.ipynb/n")).body for _ in range(3)]

    assert said == [b"1 sub\n", b"2 sub\n", b"3 sub\n"]


@pytest.mark.parametrize(
    "source",
    [
        "cold",
        pytest.param(
            "forked",
            marks=[
                pytest.mark.server(NbExec={"fork_kernels": True}),
                pytest.mark.skipif(
                    not sys.platform.startswith("linux"), reason="kernels are forked on Linux"
                ),
            ],
        ),
    ],
)
async def test_request_state(server: Server, source: str) -> None:
    """With state `request` nothing that a call leaves is there for the next, and no process serves two."""
    await server.extension._starter.start_fork_servers(["python3"])
    server.write(
        "a.ipynb",
        "import os\nn = 0",
        "# GET /n\nn += 1\nprint(n, os.getpid(), os.environ['KERNEL_GATEWAY'])",
        nbexec={"state": "request"},
    )
    said = [(await call(server, "/n")).body.split() for _ in range(3)]
    await server.until(lambda: idle(server))

    assert [(n, set_by_us) for n, _, set_by_us in said] == [(b"1", b"1")] * 3
    assert len({pid for _, pid, _ in said}) == 3
    assert {each.kernel.source for each in idle(server)} == {source}


async def test_out_of_sight(server: Server) -> None:
    """Kernels of services are not the users' to see, and none is left when the server stops."""
    server.write("a.ipynb", "# GET /\nimport os; print(os.getpid())")
    pid = int((await call(server, "/")).body)

    assert json.loads((await server.fetch("GET", "api/kernels")).body) == []
    assert psutil.pid_exists(pid)
    await server.extension._services.stop()
    await server.until(lambda: not psutil.pid_exists(pid))
    stopped = await call(server, "/")
    assert (stopped.status, stopped.json["code"]) == (503, "stopping")


async def test_stop_while_called(server: Server) -> None:
    """Calls are activity; a stopping server answers those who are being served, and those who wait."""
    server.write("a.ipynb", f"# GET /long\n{server.long()}", "# GET /\nprint(1)")
    calls = [asyncio.ensure_future(call(server, "/long"))]
    await server.is_running()
    calls.append(asyncio.ensure_future(call(server, "/")))
    await server.until(lambda: crew(server)._waiting)
    assert server.extension.current_activity() == 2
    await server.extension._services.stop()

    assert {(await each).json["code"] for each in calls} == {"stopping"}
    await server.until(lambda: not processes())


@pytest.mark.server(NbExec={"call_timeout": 4.0, "interrupt_grace": 4.0})
async def test_stuck(server: Server) -> None:
    """A call that takes too long ends in 504; its kernel is interrupted, or else replaced, for all others."""
    stubborn = "import time\nwhile True:\n    try: time.sleep(60)\n    except KeyboardInterrupt: pass"
    server.write(
        "a.ipynb",
        f"# GET /long\n{server.long()}",
        f"# GET /stubborn\n{stubborn}",
        "# GET /pid\nimport os; print(os.getpid())",
    )
    first = await call(server, "/pid")
    long = await call(server, "/long")
    second = await call(server, "/pid")
    stubborn_answer = await call(server, "/stubborn")
    third = await call(server, "/pid")

    assert [long.status, stubborn_answer.status] == [504, 504]
    assert (long.json["code"], long.json["message"]) == ("timeout", "The endpoint took longer than 4 s.")
    assert [each.status for each in (first, second, third)] == [200] * 3
    assert first.body == second.body != third.body


@pytest.mark.server(NbExec={"max_queued_calls": 1, "call_timeout": 0.0})
async def test_full(server: Server) -> None:
    """So many calls wait, and no more; who hangs up makes room."""
    server.write("a.ipynb", f"# GET /long\n{server.gate('g')}", "# GET /\nprint(1)")
    long = asyncio.ensure_future(call(server, "/long"))
    await server.is_running("g")
    _, writer = await server.connect()
    writer.write(server.head(f"{SERVICE}/a.ipynb/", method="GET"))
    await server.until(lambda: crew(server)._waiting)
    refused = await call(server, "/")

    assert (refused.status, refused.json["code"]) == (429, "queue_full")
    assert int(refused.headers["Retry-After"]) >= 1
    await server.hang_up(writer)
    await server.until(lambda: not crew(server)._waiting)
    waiting = asyncio.ensure_future(call(server, "/"))
    await server.until(lambda: crew(server)._waiting)
    server.open_gate("g")
    assert [(await each).status for each in (long, waiting)] == [200, 200]


@pytest.mark.server(NbExec={"call_timeout": 1.0})
async def test_waited_too_long(server: Server) -> None:
    """A call that waits too long for a kernel that others use is told so."""
    server.write("a.ipynb", f"# GET /long\n{server.gate('g')}", "# GET /\nprint(1)")
    crew_timeout = asyncio.ensure_future(call(server, "/"))
    await crew_timeout
    object.__setattr__(crew(server).settings, "timeout", 0.0)
    long = asyncio.ensure_future(call(server, "/long"))
    await server.is_running("g")
    object.__setattr__(crew(server).settings, "timeout", 1.0)
    waited = await call(server, "/")
    server.open_gate("g")

    assert (waited.status, waited.json["message"]) == (504, "No kernel was free for 1 s.")
    assert (await long).status == 200


@pytest.mark.server(NbExec={"max_endpoint_kernels": 2, "warm_idle_timeout": 1.0})
async def test_growth(server: Server) -> None:
    """Where calls wait a further kernel is started, up to the limit; those that nobody needs are ended."""
    server.write("a.ipynb", *(f"# GET /{name}\n{server.gate(name)}" for name in ("a", "b")), "# GET /c\n1")
    first = asyncio.ensure_future(call(server, "/a"))
    await server.is_running("a")
    second = asyncio.ensure_future(call(server, "/b"))
    third = asyncio.ensure_future(call(server, "/c"))
    await server.is_running("b")

    assert crew(server).number == 2
    for name in ("a", "b"):
        server.open_gate(name)
    assert [(await each).status for each in (first, second, third)] == [200] * 3
    await server.until(lambda: crew(server).number == 0 and not processes())


@pytest.mark.server(NbExec={"served_notebooks": ["a.ipynb", "missing.ipynb"], "min_endpoint_kernels": 1})
async def test_ahead_of_time(server: Server) -> None:
    """Kernels of notebooks that are named are there before the first call."""
    server.write("a.ipynb", "import os", "# GET /\nprint(os.getpid())")
    await server.extension._services.start(server.extension.served_notebooks)
    await server.until(lambda: idle(server))
    (worker,) = idle(server)
    answer = await call(server, "/")

    assert answer.status == 200
    assert idle(server) == [worker]


async def test_killed_while_idle(server: Server) -> None:
    """A kernel that is killed while nobody uses it hurts nobody."""
    server.write("a.ipynb", "import os", "# GET /\nprint(os.getpid())")
    pid = int((await call(server, "/")).body)
    os.kill(pid, signal.SIGKILL)
    await server.until(lambda: not psutil.pid_exists(pid))
    await server.until(lambda: not any(each.kernel.manager.provisioner.pid == pid for each in idle(server)))
    answer = await call(server, "/")

    assert answer.status == 200
    assert int(answer.body) != pid


async def test_killed_before_it_is_ready(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that dies when it has executed the seed cells, but is not connected yet, is replaced."""
    kitchen, made = server.extension._services._kitchen, []
    make = kitchen.make

    async def make_and_kill(recipe: Any) -> Any:
        prepared = await make(recipe)
        made.append(prepared)
        if len(made) == 1:
            await prepared.kernel.kill()
        return prepared

    monkeypatch.setattr(kitchen, "make", make_and_kill)
    server.write("a.ipynb", "# GET /\nprint(1)")
    answer = await call(server, "/")

    assert (answer.status, answer.body, len(made)) == (200, b"1\n", 2)


async def test_seed_that_fails(server: Server) -> None:
    """A notebook that cannot be prepared says which cell failed; once it is mended, it is served."""
    server.write("a.ipynb", "x = 1", "1/0", "# GET /\nprint(x)")
    first, second = await call(server, "/"), await call(server, "/")
    server.write("a.ipynb", "x = 1", "x = 2", "# GET /\nprint(x)")
    third = await call(server, "/")

    for answer in (first, second):
        assert (answer.status, answer.json["code"]) == (500, "cell_error")
        assert (answer.json["ename"], answer.json["cell"], answer.json["cell_id"]) == (
            "ZeroDivisionError",
            1,
            "id-1",
        )
    assert (third.status, third.body) == (200, b"2\n")
    assert len(processes()) <= 2  # a shim and its kernel


async def test_saved_change(server: Server) -> None:
    """A saved change is live at once; kernels are kept unless the seed cells changed; nobody is dropped."""
    server.write(
        "a.ipynb", "n = 0", f"# GET /long\n{server.gate('g')}\nprint('old')", "# GET /n\nn += 1\nprint(n)"
    )
    assert (await call(server, "/n")).body == b"1\n"
    server.write(
        "a.ipynb", "n = 0", f"# GET /long\n{server.gate('g')}\nprint('old')", "# GET /n\nn += 10\nprint(n)"
    )
    assert (await call(server, "/n")).body == b"11\n"
    long = asyncio.ensure_future(call(server, "/long"))
    await server.is_running("g")
    server.write("a.ipynb", "n = 5", "# GET /long\nprint('new')", "# GET /n\nn += 1\nprint(n)")

    assert (await call(server, "/n")).body == b"6\n"
    assert (await call(server, "/long")).body == b"new\n"
    server.open_gate("g")
    assert (await long).body == b"old\n"
    (server.root / "a.ipynb").unlink()
    assert (await call(server, "/n")).status == 404
    await server.until(lambda: not processes())


async def test_large_output(server: Server) -> None:
    """An answer that is not whole is none; the kernel, and the server, go on."""
    limit = server.extension.max_output_bytes
    server.write(
        "a.ipynb", f"# GET /large\nfor _ in range(60): print('x' * {limit // 50})", "# GET /\nprint(1)"
    )
    large = await call(server, "/large")

    assert (large.status, large.json["code"]) == (500, "output_lost")
    assert (await call(server, "/")).body == b"1\n"


async def test_what_comes_after_a_flood(server: Server) -> None:
    """After a call that put out too much the next ones have all that they print."""
    limit = server.extension.max_output_bytes
    flood = f"# GET /flood\nfor _ in range(400): print('x' * {limit // 100}, flush=True)"
    server.write("a.ipynb", flood, "# GET /\nprint(1)")
    for _ in range(15):
        assert (await call(server, "/flood")).json["code"] == "output_lost"
        assert (await call(server, "/")).body == b"1\n"


async def test_unknown_state(server: Server) -> None:
    """A notebook that says where its state is, and means nowhere, is refused."""
    path = server.write("a.ipynb", "# GET /\nprint(1)")
    document = json.loads(path.read_text("utf-8"))
    document["metadata"]["nbexec"] = {"state": "Request"}
    path.write_text(json.dumps(document), "utf-8")
    answer = await call(server, "/")

    assert (answer.status, answer.json["code"]) == (422, "invalid_notebook")


async def test_field_names(server: Server) -> None:
    """Names of a form's fields arrive, whichever form it is, and whatever they are."""
    server.write("a.ipynb", "# POST /\nimport json\nprint(json.dumps(json.loads(REQUEST)['body']))")
    part = '--x\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    multipart = part.format("é", "1") + part.format("ü", "2") + part.format("日本", "3") + "--x--\r\n"
    sent = {
        "multipart/form-data; boundary=x": multipart,
        "application/x-www-form-urlencoded": "%C3%A9=1&%C3%BC=2&%E6%97%A5%E6%9C%AC=3",
    }
    for content_type, body in sent.items():
        answer = await call(server, "/", "POST", body, Content_Type=content_type)
        assert answer.json == {"é": ["1"], "ü": ["2"], "日本": ["3"]}


async def test_upload(server: Server) -> None:
    """Files and large bodies arrive whole, and leave nothing in the kernel."""
    server.write(
        "a.ipynb",
        "import base64, json, linecache",
        "# POST /\nfile = json.loads(REQUEST)['files']['f'][0]\n"
        "print(file['filename'], file['content_type'], len(base64.b64decode(file['content'])))\n"
        "print(sum(len(''.join(entry[2])) for entry in linecache.cache.values() if len(entry) > 2) < 10**6)",
    )
    content = os.urandom(3 << 20).replace(b"--x", b"---")
    form = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.bin"\r\n'
    form += b"Content-Type: image/x-own\r\n\r\n" + content + b"\r\n--x--\r\n"
    for _ in range(2):
        answer = await call(server, "/", "POST", form, Content_Type="multipart/form-data; boundary=x")
        assert answer.body.decode().split("\n")[:2] == [f"a.bin image/x-own {len(content)}", "True"]
    broken = await call(server, "/", "POST", b"nope", Content_Type="multipart/form-data")

    assert broken.status == 400


async def test_description(server: Server) -> None:
    """The notebook's description, and its document, have its endpoints."""
    above = {"cell_type": "markdown", "metadata": {}, "source": "All of them."}
    server.write("a.ipynb", above, "# GET /contacts/:id\n1")
    described = await server.describe("a.ipynb")
    document = await server.fetch("GET", f"{SERVICE}/openapi.json?path=a.ipynb")

    assert described.json["endpoints"] == [
        {
            "method": "GET",
            "path": "/contacts/:id",
            "description": "All of them.",
            "cells": [1],
            "response_cells": [],
            "parameters": [{"name": "id", "in": "path"}],
        }
    ]
    assert f"/{SERVICE}/a.ipynb/contacts/{{id}}" in document.json["paths"]
    assert (await call(server, "/contacts")).json["code"] == "endpoint_not_found"
    assert (await server.fetch("GET", f"{SERVICE}/missing.ipynb/a")).json["code"] == "notebook_not_found"


async def test_large_body(server: Server) -> None:
    """A body beyond the limit is refused for every verb."""
    server.write("a.ipynb", "# PUT /\nprint(1)")
    body = b"x" * (server.extension.max_body_bytes + 1)
    answer = await call(server, "/", "PUT", body)

    assert (answer.status, answer.json["code"]) == (413, "body_too_large")
    packed = await call(server, "/", "PUT", b"x", Content_Encoding="gzip")
    assert (packed.status, packed.json["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("kernel", "cell", "expected"),
    [
        ("bash", '# POST /:x\necho "$REQUEST"', "{"),
        ("ir", "# POST /:x\ncat(REQUEST)", "{"),
        ("deno", "// POST /:x\nconsole.log(REQUEST)", "{"),
    ],
)
async def test_other_languages(server: Server, kernel: str, cell: str, expected: str) -> None:
    """Kernels of other languages get REQUEST as text, and nothing that is sent is evaluated."""
    folder = Path(sys.prefix) / "share" / "jupyter" / "kernels"
    if not (folder / kernel).exists():
        pytest.skip(f"kernel {kernel} is not installed")
    server.app.kernel_spec_manager.kernel_dirs = [str(folder)]
    names = {"bash": "bash", "ir": "R", "deno": "typescript"}
    spec = {"name": kernel, "display_name": kernel, "language": names[kernel]}
    server.write("a.ipynb", cell, kernelspec=spec)
    hostile = "$(id) `id` ${HOME} \"'\\ \n%s # // */ #{x} é"
    for _ in range(2):
        answer = await call(server, "/%24(id)", "POST", hostile, Content_Type="text/plain")
        assert answer.status == 200, answer
        document = json.loads(answer.body[answer.body.index(expected.encode()) :])
        assert (document["body"], document["path"]) == (hostile, {"x": "$(id)"})


async def test_kernel_that_does_not_start(server: Server, jp_kernel_dir: Any) -> None:
    """Where the kernel's program is missing the answer is 502, and says no path of the server."""
    folder = jp_kernel_dir / "broken"
    folder.mkdir()
    spec = {"argv": ["/nonexistent/kernel"], "display_name": "Broken", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    server.write("a.ipynb", "# GET /\nprint(1)", kernelspec={"name": "broken", "display_name": "Broken"})
    answer = await call(server, "/")

    assert (answer.status, answer.json["code"]) == (502, "kernel_start_failed"), answer
    assert "/nonexistent" not in answer.body.decode()
