"""Every status and code of API.md section 5, provoked over HTTP; and those of a run that failed."""

from __future__ import annotations

import asyncio
import errno
import inspect
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from jupyter_server.auth import Authorizer
from jupyter_server.services.contents import fileio
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager, ServerKernelManager

from jupyter_nbexec import errors, rendering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.handlers.conftest import Answer, Server

pytestmark = pytest.mark.sources

#: What calls of endpoints are answered with is provoked by tests of their own.
ENDPOINTS = Path(__file__).with_name("test_endpoints.py")
#: Codes that tests of this file provoke.
PROVOKED: set[str] = set()

#: An id that no run has.
NOBODYS = "0e3b2f6c-5a5c-4f0e-9c8e-0a2a0c1f2b3d"

F = TypeVar("F")


def provokes(*codes: str) -> Callable[[F], F]:
    """Note which codes a test provokes."""
    PROVOKED.update(codes)
    return lambda test: test


def assert_error(answer: Answer, status: int, code: str) -> Any:
    """Check the shape of an error that is not a run; the document."""
    assert (answer.status, answer.json["code"]) == (status, code), answer
    assert answer.media_type == "application/json"
    document = answer.json
    assert isinstance(document["message"], str)
    assert document["message"]
    assert document["reason"] is None
    assert "Traceback" not in answer.body.decode()
    return document


def tree(cls: type[errors.NbexecError] = errors.NbexecError) -> Iterator[type[errors.NbexecError]]:
    """List a class and all that inherit from it."""
    yield cls
    for each in cls.__subclasses__():
        yield from tree(each)


def test_every_error_is_provoked() -> None:
    """Every class of `errors.py` that can be raised is provoked here, or by a call of an endpoint."""
    own = [each for each in tree() if each.__module__ == errors.__name__]
    raised = {each.code: each.__name__ for each in own if not {*each.__subclasses__()} & {*own}}
    elsewhere = set(re.findall(r'"([a-z_]+)"', ENDPOINTS.read_text(encoding="utf-8")))
    missing = {name for code, name in raised.items() if code not in PROVOKED | elsewhere}
    assert not missing
    # What is drawn at the top of the file is what there is.
    drawn = inspect.getdoc(errors) or ""
    assert all(f" {name} " in drawn and f" {code} " in drawn for code, name in raised.items())


@provokes("invalid_json")
async def test_invalid_json(server: Server) -> None:
    """400 `invalid_json`, with the place."""
    server.write("a.ipynb", "1")
    answer = await server.fetch("POST", "api/nbexec/a.ipynb", '{"parameters": }')
    document = assert_error(answer, 400, "invalid_json")
    assert "line 1, column 16" in document["message"]


@provokes("invalid_request")
async def test_invalid_request(server: Server) -> None:
    """400 `invalid_request`, with every field that is wrong."""
    server.write("a.ipynb", "1")
    document = assert_error(await server.run("a.ipynb", timeout=-1, nope=1), 400, "invalid_request")
    assert [each["field"] for each in document["errors"]] == ["timeout", "nope"]
    assert all(each["message"] for each in document["errors"])


@provokes("invalid_parameter")
async def test_invalid_parameter(server: Server) -> None:
    """400 `invalid_parameter`, with every parameter that is wrong."""
    server.write("a.ipynb", server.cell("x = 1\ny: str", "parameters"))
    document = assert_error(
        await server.run("a.ipynb", parameters={"x": "a", "z": 1}), 400, "invalid_parameter"
    )
    assert {each["parameter"] for each in document["errors"]} == {"x", "y", "z"}


async def test_forbidden(server: Server) -> None:
    """403 `forbidden` for who is nobody."""
    server.write("a.ipynb", "1")
    for method in ("GET", "POST"):
        answer = await server.fetch(
            method, "api/nbexec/a.ipynb", b"{}" if method == "POST" else None, auth=False
        )
        assert (answer.status, answer.json["code"]) == (403, "forbidden")


@provokes("notebook_not_found")
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_notebook_not_found(server: Server, method: str) -> None:
    """404 `notebook_not_found`, when it is described and when it is run."""
    answer = await server.fetch(method, "api/nbexec/nope.ipynb", b"{}" if method == "POST" else None)
    assert "nope.ipynb" in assert_error(answer, 404, "notebook_not_found")["message"]


@provokes("kernel_not_found")
async def test_kernel_not_found(server: Server) -> None:
    """404 `kernel_not_found` for a `kernel_id` that is none."""
    server.write("a.ipynb", "1")
    assert_error(await server.run("a.ipynb", kernel_id="nope"), 404, "kernel_not_found")


@provokes("method_not_allowed")
@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "api/nbexec/a.ipynb", "GET, HEAD, POST"),
        ("DELETE", "api/nbexec/a.ipynb", "GET, HEAD, POST"),
        ("GET", "api/nbexec", "POST"),
        ("POST", "api/nbexec/openapi.json", "GET, HEAD"),
        ("POST", "api/nbexec/docs", "GET, HEAD"),
        ("POST", "api/nbexec/runs", "GET, HEAD"),
        ("PUT", f"api/nbexec/runs/{NOBODYS}", "GET, HEAD, DELETE"),
        ("POST", f"api/nbexec/runs/{NOBODYS}", "GET, HEAD, DELETE"),
        ("POST", f"api/nbexec/runs/{NOBODYS}/events", "GET, HEAD"),
        ("POST", f"api/nbexec/runs/{NOBODYS}/notebook", "GET, HEAD"),
        ("GET", f"api/nbexec/runs/{NOBODYS}/cancel", "POST"),
        ("GET", "api/nbexec/runs/prune", "POST"),
    ],
)
async def test_method_not_allowed(server: Server, method: str, path: str, allowed: str) -> None:
    """405 `method_not_allowed`, and `Allow` says what is."""
    server.write("a.ipynb", "1")
    answer = await server.fetch(method, path, None if method in ("GET", "DELETE") else b"{}")
    assert_error(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == allowed


@provokes("not_acceptable")
@pytest.mark.parametrize("accept", ["text/event-stream;q=0", "multipart/mixed", "*/*;q=0"])
async def test_not_acceptable_before(server: Server, accept: str) -> None:
    """406 `not_acceptable` before anything is run, where no run could be shown so."""
    server.write("a.ipynb", "1")
    assert_error(await server.run("a.ipynb", headers={"Accept": accept}), 406, "not_acceptable")
    assert server.started == []


@provokes("not_acceptable")
async def test_not_acceptable_after(server: Server) -> None:
    """406 `not_acceptable` after a run that has no such output, with what it has."""
    server.write("a.ipynb", "display({'text/csv': 'a,b'}, raw=True)")
    answer = await server.run("a.ipynb", headers={"Accept": "image/png"})
    document = assert_error(answer, 406, "not_acceptable")
    assert "text/csv" in document["available"]
    assert "application/json" in document["available"]
    assert len(server.started) == 1


@provokes("run_not_found")
@pytest.mark.parametrize(
    ("method", "below"),
    [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/events"), ("GET", "/notebook")],
)
async def test_run_not_found(server: Server, method: str, below: str) -> None:
    """404 `run_not_found` for an id that no run has."""
    body = b"" if method == "POST" else None
    answer = await server.fetch(method, f"api/nbexec/runs/{NOBODYS}{below}", body)
    assert_error(answer, 404, "run_not_found")


@provokes("run_ended")
async def test_run_ended(server: Server) -> None:
    """409 `run_ended` for who would cancel what has ended."""
    server.write("a.ipynb", "1")
    run = (await server.run("a.ipynb")).json["id"]
    assert_error(await server.cancel(run), 409, "run_ended")


@provokes("idempotency_mismatch")
async def test_idempotency_mismatch(server: Server) -> None:
    """422 `idempotency_mismatch` for a key that stands for another request."""
    server.write("a.ipynb", "1")
    headers = {"Idempotency-Key": "k"}
    assert (await server.run("a.ipynb", headers=headers)).status == 200
    assert_error(await server.run("a.ipynb", headers=headers, timeout=5), 422, "idempotency_mismatch")


@provokes("notebook_unavailable")
async def test_notebook_unavailable(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 `notebook_unavailable` where the server lacks what it needs to read it, which the message names."""
    file = server.write("a.ipynb", "1")

    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(file))

    monkeypatch.setattr(fileio, "open", refuse, raising=False)
    for answer in (await server.run("a.ipynb"), await server.describe("a.ipynb")):
        assert "Too many open files" in assert_error(answer, 503, "notebook_unavailable")["message"]
        assert str(server.root) not in answer.body.decode()
    assert server.started == []


@provokes("storage_unavailable")
@pytest.mark.server(NbExec={"database_url": "sqlite:////dev/null/nowhere/runs.sqlite"})
async def test_storage_unavailable(server: Server) -> None:
    """503 `storage_unavailable` where runs cannot be stored: then none is run."""
    server.write("a.ipynb", "1")
    answer = await server.run("a.ipynb")
    assert_error(answer, 503, "storage_unavailable")
    assert "nowhere" not in answer.body.decode()
    assert server.started == []


@provokes("body_too_large")
@pytest.mark.server(NbExec={"max_body_bytes": 1000})
async def test_body_too_large(server: Server) -> None:
    """413 `body_too_large`, declared or found out; a body of just the limit is read."""
    server.write("a.ipynb", "1")
    assert_error(await server.fetch("POST", "api/nbexec/a.ipynb", b" " * 1001), 413, "body_too_large")
    assert_error(await server.fetch("POST", "api/nbexec/a.ipynb", b" " * 999 + b"{"), 400, "invalid_json")
    request = server.head("api/nbexec/a.ipynb", "Transfer-Encoding: chunked")
    answer = await server.raw(request + b"7d0\r\n" + b" " * 2000 + b"\r\n0\r\n\r\n")
    # tornado itself ends a body without a length that grows too large.
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))
    assert server.started == []


@provokes("unsupported_media_type")
async def test_unsupported_media_type(server: Server) -> None:
    """415 `unsupported_media_type` for what cannot be JSON in UTF-8."""
    server.write("a.ipynb", "1")
    for headers in (
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Encoding": "br"},
    ):
        answer = await server.fetch("POST", "api/nbexec/a.ipynb", b"{}", headers=headers)
        assert_error(answer, 415, "unsupported_media_type")


@provokes("kernel_busy")
async def test_kernel_busy(server: Server) -> None:
    """409 `kernel_busy` while another run has the kernel."""
    server.write("long.ipynb", server.long())
    server.write("a.ipynb", "1")
    kernel_id = await server.lend()
    first = asyncio.create_task(server.run("long.ipynb", kernel_id=kernel_id))
    await server.is_running()
    assert_error(await server.run("a.ipynb", kernel_id=kernel_id), 409, "kernel_busy")
    await server.fetch("POST", f"api/kernels/{kernel_id}/interrupt")
    assert (await first).json["error"]["ename"] == "KeyboardInterrupt"


@provokes("invalid_notebook")
async def test_invalid_notebook(server: Server) -> None:
    """422 `invalid_notebook` for a broken file, and for a broken one in the body."""
    (server.root / "a.ipynb").write_text("import this")
    assert_error(await server.run("a.ipynb"), 422, "invalid_notebook")
    assert_error(await server.describe("a.ipynb"), 422, "invalid_notebook")
    assert_error(await server.run("", notebook={"nbformat": 4, "cells": {}}), 422, "invalid_notebook")


@provokes("not_a_notebook")
async def test_not_a_notebook(server: Server) -> None:
    """422 `not_a_notebook` for other files and for folders."""
    (server.root / "a.py").write_text("1")
    (server.root / "folder").mkdir()
    assert_error(await server.run("a.py"), 422, "not_a_notebook")
    assert_error(await server.run("folder"), 422, "not_a_notebook")


@provokes("no_such_kernel")
async def test_no_such_kernel(server: Server) -> None:
    """422 `no_such_kernel`, with those that are installed."""
    server.write("a.ipynb", "1", kernelspec={"name": "fakelang2000", "display_name": "Fake"})
    server.write("b.ipynb", "1")
    for answer in (await server.run("a.ipynb"), await server.run("b.ipynb", kernel_name="fakelang2000")):
        document = assert_error(answer, 422, "no_such_kernel")
        assert document["kernels"] == ["echo", "python3"]
        assert "fakelang2000" in document["message"]
    assert (await server.run("a.ipynb", kernel_name="python3")).status == 200


@provokes("queue_full")
@pytest.mark.server(NbExec={"max_concurrent_runs": 1, "max_queued_runs": 1, "interrupt_grace": 0})
async def test_queue_full(server: Server) -> None:
    """429 `queue_full` with `Retry-After`; who waits already is served in turn."""
    server.write("long.ipynb", server.long())
    server.write("a.ipynb", "1")
    first = asyncio.create_task(server.run("long.ipynb"))
    await server.is_running()
    second = asyncio.create_task(server.run("a.ipynb"))
    await server.until(lambda: server.runs.unfinished == 2)
    answer = await server.run("a.ipynb")
    assert_error(answer, 429, "queue_full")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    running = next(iter(server.runs._running))
    await server.fetch("POST", f"api/nbexec/runs/{running}/cancel")
    # Cancelled by another client, as far as the one that waits can tell.
    assert (await first).status == 409
    assert (await second).status == 200


@provokes("server_overloaded")
async def test_server_overloaded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 `server_overloaded` with `Retry-After` where too many pages are being made."""
    monkeypatch.setattr(rendering, "PROCESSES", 0)
    monkeypatch.setattr(rendering, "MAX_WAITING", 0)
    server.write("a.ipynb", "1")
    run = (await server.run("a.ipynb")).json["id"]
    answer = await server.get(run, "/notebook", headers={"Accept": "text/html"})
    assert_error(answer, 503, "server_overloaded")
    assert int(answer.headers["Retry-After"]) > 0


@provokes("stopping")
async def test_stopping(server: Server) -> None:
    """503 `stopping` once the server ends; a run that had begun is answered as `server_stopped`."""
    server.write("long.ipynb", f"print('said', flush=True)\n{server.long()}")
    first = asyncio.create_task(server.run("long.ipynb"))
    await server.is_running()
    await asyncio.wait_for(server.app.extension_manager.stop_all_extensions(), 30)
    assert_error(await server.run("long.ipynb"), 503, "stopping")
    answer = await first
    assert answer.status == 503
    assert answer.json["error"]["code"] == "server_stopped"
    assert answer.json["outputs"][0]["text"] == "said\n"
    assert server.kernels == []


class BrokenContents(AsyncLargeFileManager):
    """A contents manager with a fault."""

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        """Fail, and say too much."""
        raise RuntimeError("cannot reach s3://secret-bucket")


class BrokenAuthorizer(Authorizer):
    """An authorizer with a fault."""

    def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> bool:
        """Fail, and say too much."""
        raise RuntimeError("cannot reach s3://secret-bucket")


@provokes("internal_error")
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "_broken",
    [
        pytest.param(
            "contents", marks=pytest.mark.server(ServerApp={"contents_manager_class": BrokenContents})
        ),
        pytest.param(
            "authorizer", marks=pytest.mark.server(ServerApp={"authorizer_class": BrokenAuthorizer})
        ),
    ],
)
async def test_internal_error(
    server: Server, method: str, _broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """500 `internal_error` says a reference, under which the log has the rest, and nothing else."""
    answer = await server.fetch(method, "api/nbexec/a.ipynb", b"{}" if method == "POST" else None)
    document = assert_error(answer, 500, "internal_error")
    assert "secret" not in answer.body.decode()
    assert document["reference"] in document["message"]
    record = next(each for each in caplog.records if document["reference"] in each.getMessage())
    assert record.exc_info is not None
    assert "secret-bucket" in str(record.exc_info[1])
    assert server.started == []


@provokes("out_of_resources")
async def test_out_of_resources(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """503 `out_of_resources` says what the server has none of any more, without a path or a traceback."""
    server.write("a.ipynb", "1")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files", "/secret")

    with monkeypatch.context() as patch:
        patch.setattr(server.app.kernel_spec_manager, "get_kernel_spec", fail)
        answer = await server.run("a.ipynb")
    document = assert_error(answer, 503, "out_of_resources")
    with monkeypatch.context() as patch:
        patch.setattr(server.runs, "check_capacity", fail)
        again = await server.run("a.ipynb")

    assert "out of file descriptors" in document["message"]
    assert assert_error(again, 503, "out_of_resources")["message"] == document["message"]
    assert "secret" not in answer.body.decode() + again.body.decode() + caplog.text
    assert server.started == []


# What a run that failed is answered with.


class BrokenKernel(ServerKernelManager):
    """A kernel's manager with a fault, when it is first asked whether the kernel lives."""

    has_failed = False

    async def is_alive(self) -> bool:  # type: ignore[override]  # as in AsyncKernelManager
        """Fail once, and say too much."""
        if not self.has_failed:
            self.has_failed = True
            raise RuntimeError("cannot reach s3://secret-bucket")
        return bool(await super().is_alive())


class BrokenKernels(AsyncMappingKernelManager):
    """A manager of such kernels."""

    kernel_manager_class = f"{__name__}.{BrokenKernel.__name__}"


@pytest.mark.server(ServerApp={"kernel_manager_class": BrokenKernels})
async def test_run_internal_error(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A fault of ours under a run is a run of its own kind, in the log under its id; its kernel is gone."""
    server.write("a.ipynb", "import time\ntime.sleep(60)")
    answer = await server.run("a.ipynb")
    assert (answer.status, answer.json["status"]) == (500, "failed")
    assert answer.json["error"]["code"] == "internal_error"
    assert answer.json["error"]["traceback"] == []
    assert "secret" not in answer.body.decode()
    assert any(each.exc_info and answer.json["id"] in each.getMessage() for each in caplog.records)
    assert server.kernels == []


@pytest.mark.parametrize(
    ("source", "status", "code"),
    [
        ("1 / 0", 500, "cell_error"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", 502, "kernel_died"),
        ("import os\nos._exit(3)", 502, "kernel_died"),
    ],
)
async def test_run_failed(server: Server, source: str, status: int, code: str) -> None:
    """A run that failed has a status of its own, and the body is the run, with what had been shown."""
    server.write("a.ipynb", "print('before', flush=True)", source, "print('after')")
    answer = await server.run("a.ipynb")
    run = answer.json
    assert (answer.status, run["status"], run["error"]["code"]) == (status, "failed", code), run["error"]
    assert (run["error"]["cell"], run["error"]["cell_id"]) == (1, "id-1")
    assert run["outputs"][0]["text"] == "before\n"
    assert run["result"] is run["result_type"] is None
    assert run["progress"]["total"] == 3
    assert "after" not in answer.body.decode()


#: A kernel whose first start fails, as it does where somebody else has opened its ports.
SECOND_TIME = """
import os, sys
from pathlib import Path
tried = Path(__file__).with_name("tried")
if not tried.exists():
    tried.touch()
    sys.exit(1)
os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", "-f", sys.argv[1]])
"""


async def test_kernel_starts_the_second_time(server: Server, jp_kernel_dir: Any) -> None:
    """A kernel that ends before it could be asked for anything is started once more."""
    folder = jp_kernel_dir / "second"
    folder.mkdir()
    (folder / "start.py").write_text(SECOND_TIME)
    argv = [sys.executable, str(folder / "start.py"), "{connection_file}"]
    spec = {"argv": argv, "display_name": "Second", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    server.write("a.ipynb", "6 * 7", kernelspec={"name": "second", "display_name": "Second"})

    answer = await server.run("a.ipynb")

    assert (answer.status, answer.json["result"], answer.json["warnings"]) == (200, 42, []), answer
    assert len(server.started) == 2
    assert answer.json["kernel"]["id"] == server.started[1]
    assert server.kernels == []


LAST_WORDS = "import os, sys, time; print('because', os.environ['PASSWORD'], file=sys.stderr, flush=True)"


@pytest.mark.server(NbExec={"kernel_start_timeout": 2.0})
@pytest.mark.parametrize(
    ("argv", "says", "words"),
    [
        (
            ["/nonexistent/kernel"],
            "127",
            "/nonexistent/kernel: [Errno 2] No such file or directory",
        ),
        ([sys.executable, "-c", f"{LAST_WORDS}; raise SystemExit(7)", "{connection_file}"], "7", "because …"),
        ([sys.executable, "-c", f"{LAST_WORDS}; time.sleep(60)", "{connection_file}"], "2 s", "because …"),
    ],
    ids=["missing", "exits", "hangs"],
)
async def test_kernel_start_failed(
    server: Server,
    argv: list[str],
    says: str,
    words: str,
    jp_kernel_dir: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """502 `kernel_start_failed` where the kernel's program is missing, ends at once, or never answers.

    What it said last is in the error and in the log, without what it was given in secret.
    """
    folder = jp_kernel_dir / "broken"
    folder.mkdir()
    spec = {"argv": argv, "display_name": "Broken", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    server.write("a.ipynb", "1", kernelspec={"name": "broken", "display_name": "Broken"})
    answer = await server.run("a.ipynb", env={"PASSWORD": "fish-sword"})
    assert (answer.status, answer.json["error"]["code"]) == (502, "kernel_start_failed"), answer
    assert says in answer.json["error"]["message"]
    assert "/nonexistent" not in answer.json["error"]["message"]
    assert answer.json["error"]["traceback"][-1].endswith(words)
    assert answer.json["error"]["cell"] is None
    assert f"{words}\n" in caplog.text
    assert "fish" not in answer.body.decode() + caplog.text


@pytest.mark.parametrize("content", ["{", "[]", '{"argv": 5}'])
async def test_broken_kernelspec(server: Server, content: str, jp_kernel_dir: Any) -> None:
    """A kernelspec that cannot be read is as good as none: 422 `no_such_kernel`, without its path."""
    folder = jp_kernel_dir / "broken"
    folder.mkdir()
    (folder / "kernel.json").write_text(content)
    server.write("a.ipynb", "1", kernelspec={"name": "broken", "display_name": "Broken"})
    answer = await server.run("a.ipynb")
    assert str(folder.parent.parent) not in answer.body.decode()
    assert_error(answer, 422, "no_such_kernel")
