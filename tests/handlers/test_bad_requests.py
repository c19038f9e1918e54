"""What clients get wrong, as a table (RELIABILITY 5.2): each refusal is clear, and starts nothing."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_server.services.contents import fileio

if TYPE_CHECKING:
    from tests.handlers.conftest import Answer, Server

pytestmark = pytest.mark.sources

R = "api/nbexec/ok.ipynb"
#: A notebook that declares nothing takes any name.
FREE = "api/nbexec/free.ipynb"
LIMIT = 50_000
HUGE = 10**400 + 7


@dataclass(frozen=True)
class Row:
    """One request, and what comes back."""

    id: str
    status: int
    code: str | None = None
    body: bytes | str = "{}"
    path: str = R
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    #: What the message, or the fields named in `errors`, must hold.
    names: str = ""


def json_row(id: str, body: bytes | str, **more: Any) -> Row:  # noqa: A002
    """Make a row whose body is no JSON."""
    return Row(id, 400, "invalid_json", body, **more)


def fields_row(id: str, fields: Any, names: str = "", **more: Any) -> Row:  # noqa: A002
    """Make a row whose body is JSON, but no request."""
    return Row(id, 400, "invalid_request", json.dumps(fields), names=names, **more)


def parameter_row(id: str, parameters: dict[str, Any], names: str = "", path: str = FREE) -> Row:  # noqa: A002
    """Make a row with parameters that cannot be."""
    return Row(id, 400, "invalid_parameter", json.dumps({"parameters": parameters}), path, names=names)


def notebook_row(
    id: str,  # noqa: A002
    name: str,
    status: int = 422,
    code: str | None = "invalid_notebook",
) -> Row:
    """Make a row for one of the `FILES`."""
    return Row(id, status, code, path=f"api/nbexec/{name}")


def _notebook(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {},
        "cells": [_cell("print(1)")],
    }
    fields.update(changes)
    return {name: value for name, value in fields.items() if value is not ...}


def _cell(source: Any, **changes: Any) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": "a",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": source,
        **changes,
    }


def _encoded(encoding: str = "utf-8", **changes: Any) -> bytes:
    return json.dumps(_notebook(**changes), ensure_ascii=False).encode(encoding)


_V3 = {
    "nbformat": 3,
    "nbformat_minor": 0,
    "metadata": {"name": ""},
    "worksheets": [
        {
            "metadata": {},
            "cells": [
                {
                    "cell_type": "code",
                    "collapsed": False,
                    "input": ["print(1)"],
                    "language": "python",
                    "metadata": {},
                    "outputs": [],
                }
            ],
        }
    ],
}
_NO_ID = {name: value for name, value in _cell("print(1)").items() if name != "id"}

FILES: dict[str, bytes] = {
    "unknown-kernel.ipynb": _encoded(metadata={"kernelspec": {"name": "fakelang2000", "display_name": "F"}}),
    "script.py": b"print(1)\n",
    "text.txt": b"print(1)\n",
    "empty.ipynb": b"",
    "notjson.ipynb": b"import this",
    "list.ipynb": b"[]",
    "null.ipynb": b"null",
    "latin1.ipynb": _encoded("latin-1", cells=[_cell("print('é')")]),
    "utf16.ipynb": _encoded("utf-16"),
    "bom.ipynb": b"\xef\xbb\xbf" + _encoded(),
    "nbformat5.ipynb": _encoded(nbformat=5),
    "nbformat-text.ipynb": _encoded(nbformat="4"),
    "nbformat-missing.ipynb": _encoded(nbformat=...),
    "cells-object.ipynb": _encoded(cells={}),
    "cells-missing.ipynb": _encoded(cells=...),
    "cell-type.ipynb": _encoded(cells=[_cell("print(1)", cell_type="cooode")]),
    "cell-text.ipynb": _encoded(cells=["print(1)"]),
    "source.ipynb": _encoded(cells=[_cell(5)]),
    "surrogate.ipynb": json.dumps(_notebook(cells=[_cell("x = '\ud800'")])).encode(),
    "metadata.ipynb": _encoded(metadata=[]),
    "deep.ipynb": b'{"nbformat": 4, "nbformat_minor": 5, "cells": [], "metadata": {"x": '
    + b"[" * 50_000
    + b"]" * 50_000
    + b"}}",
    "v2.ipynb": json.dumps({**_V3, "nbformat": 2}).encode(),
    "many.ipynb": _encoded(cells=[_cell("", id=f"c{i}") for i in range(10_001)]),
    "v3.ipynb": json.dumps(_V3).encode(),
    "v4.0.ipynb": _encoded(nbformat_minor=0, cells=[_NO_ID]),
    "v4.99.ipynb": _encoded(nbformat_minor=99),
    "no-ids.ipynb": _encoded(cells=[_NO_ID]),
    "odd-ids.ipynb": _encoded(cells=[_cell("print(x)", id="a b"), _cell("x = 1", id=5)][::-1]),
    "same-ids.ipynb": _encoded(cells=[_cell("x = 1"), _cell("print(x)")]),
}

REFUSED = [
    # The body.
    json_row("B1", "{"),
    json_row("B2", '{"a":'),
    json_row("B3", "{} x"),
    json_row("B4", "{'a':1}"),
    json_row("B5", "{/*x*/}"),
    json_row("B6", b"\xff\xfe\x7b"),
    json_row("B7", "{}".encode("utf-16")),
    json_row("B8", b"\xef\xbb\xbf{}"),
    Row("B9", 415, "unsupported_media_type", b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"}),
    fields_row("B10", None),
    fields_row("B11", []),
    fields_row("B12", 5),
    fields_row("B13", "x"),
    json_row("B14", '{"parameters":{"x":NaN}}'),
    json_row("B15", '{"parameters":{"x":Infinity}}'),
    json_row("B16", '{"parameters":{"x":-Infinity}}'),
    json_row("B17", '{"parameters":{"x":1e999}}'),
    json_row("B18", '{"parameters":{},"parameters":{}}', names="parameters"),
    json_row("B19", '{"parameters":{"x":' + "[" * 20_000 + "]" * 20_000 + "}}"),
    json_row("B19-open", "[" * 45_000),
    json_row("B21", '{"parameters":{"x":' + "9" * 5000 + "}}"),
    # Every content type that may hold JSON is read as JSON, since `curl -d` names a form.
    json_row("B23", "a=1", headers={"Content-Type": "application/x-www-form-urlencoded"}),
    Row(
        "B24",
        415,
        "unsupported_media_type",
        '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n',
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    ),
    Row("B25", 415, "unsupported_media_type", "--", headers={"Content-Type": "multipart/form-data"}),
    Row(
        "B27",
        415,
        "unsupported_media_type",
        headers={"Content-Type": "application/json; charset=latin-1"},
    ),
    Row("B30", 413, "body_too_large", b" " * (LIMIT + 1)),
    # Its fields.
    fields_row("B36", {"unknown": 1}, "unknown"),
    fields_row("B36-notebook", {"notebook": _notebook()}, "notebook"),
    fields_row("B37", {"parameters": []}, "parameters"),
    fields_row("B38", {"parameters": "x=1"}, "parameters"),
    fields_row("B39", {"parameters": None}, "parameters"),
    # Parameters.
    parameter_row("B40", {"": 1}),
    parameter_row("B41", {"1x": 1}, "1x"),
    parameter_row("B42", {"x=1\nimport os;y": 1}),
    parameter_row("B43", {"class": 1}, "class"),
    parameter_row("B44", {"__builtins__": 1}, "__builtins__"),
    parameter_row("B44-import", {"__import__": 1}, "__import__"),
    parameter_row("B45", {"x y": 1}, "x y"),
    parameter_row("B46", {"\uff58": 1, "x": 2}, "x"),
    parameter_row("B47", {"x\0": 1}),
    parameter_row("B48", {"n" * 300: 1}, "nnn"),
    parameter_row("B49", {f"p{index}": 1 for index in range(1001)}, "1001"),
    parameter_row("B50", {"x": "\ud800"}, "x"),
    parameter_row("B50-name", {"\ud800": 1}),
    parameter_row("B53", {"y": 1}, "y", R),
    parameter_row("B54", {"x": "five"}, "x", R),
    # Limits and choices.
    fields_row("B55", {"timeout": -1}, "timeout"),
    fields_row("B56", {"timeout": 0}, "timeout"),
    fields_row("B57", {"timeout": "10"}, "timeout"),
    fields_row("B58", {"timeout": 1e18}, "timeout"),
    fields_row("B59", {"timeout": True}, "timeout"),
    fields_row("B59-cell", {"cell_timeout": 0}, "cell_timeout"),
    fields_row("B59-errors", {"allow_errors": 1}, "allow_errors"),
    fields_row("B59-outputs", {"outputs": "some"}, "outputs"),
    fields_row("B59-tags", {"outputs": {"tags": "x"}}, "outputs"),
    fields_row("B59-env", {"env": {"A": 1}}, "env"),
    fields_row("B59-env-name", {"env": {"A=B": "1"}}, "env"),
    fields_row("B59-env-nul", {"env": {"A": "\0"}}, "env"),
    fields_row("B59-save-dots", {"save_as": "../x.ipynb"}, "save_as"),
    fields_row("B59-save-absolute", {"save_as": "/etc/x.ipynb"}, "save_as"),
    fields_row("B59-save-hidden", {"save_as": ".x/x.ipynb"}, "save_as"),
    fields_row("B59-save-suffix", {"save_as": "x.py"}, "save_as"),
    fields_row("B59-save-itself", {"save_as": "ok.ipynb"}, "save_as"),
    fields_row("B59-save-itself-differently", {"save_as": "./ok.ipynb"}, "save_as"),
    fields_row("B59-kernel-both", {"kernel_id": "a", "kernel_name": "python3"}, "kernel_name"),
    Row("B61", 422, "no_such_kernel", '{"kernel_name":"nope"}', names="nope"),
    Row("B62", 422, "no_such_kernel", '{"kernel_name":"../../etc"}', names="etc"),
    fields_row("B63", {"kernel_name": ""}, "kernel_name"),
    fields_row("B64", {"kernel_name": 5}, "kernel_name"),
    # Notebooks.
    notebook_row("B65", "unknown-kernel.ipynb", 422, "no_such_kernel"),
    notebook_row("B66", "missing.ipynb", 404, "notebook_not_found"),
    notebook_row("B67", "missing/dir/x.ipynb", 404, "notebook_not_found"),
    Row("B68", 400, "invalid_request", path="api/nbexec", names="notebook"),
    Row("B68-slash", 400, "invalid_request", path="api/nbexec/", names="notebook"),
    Row("B68-invalid", 422, "invalid_notebook", '{"notebook": {}}', path="api/nbexec"),
    notebook_row("B69", "folder", 422, "not_a_notebook"),
    notebook_row("B70", "script.py", 422, "not_a_notebook"),
    notebook_row("B70-text", "text.txt", 422, "not_a_notebook"),
    notebook_row("B71", "empty.ipynb"),
    notebook_row("B72", "notjson.ipynb"),
    notebook_row("B73", "list.ipynb"),
    notebook_row("B74", "null.ipynb"),
    notebook_row("B75", "latin1.ipynb"),
    notebook_row("B76", "utf16.ipynb"),
    notebook_row("B77", "bom.ipynb"),
    notebook_row("B78", "nbformat5.ipynb"),
    notebook_row("B79", "nbformat-text.ipynb"),
    notebook_row("B80", "nbformat-missing.ipynb"),
    notebook_row("B81", "cells-object.ipynb"),
    notebook_row("B82", "cells-missing.ipynb"),
    notebook_row("B83", "cell-type.ipynb"),
    notebook_row("B83-text", "cell-text.ipynb"),
    notebook_row("B84", "source.ipynb"),
    notebook_row("B84-surrogate", "surrogate.ipynb"),
    notebook_row("B85", "metadata.ipynb"),
    notebook_row("B86", "deep.ipynb"),
    notebook_row("B89", "many.ipynb"),
    notebook_row("B90", "dangling.ipynb", 404, "notebook_not_found"),
    notebook_row("B91", "loop.ipynb", 404, "notebook_not_found"),
    # Other methods, paths and queries.
    Row("B93", 405, "method_not_allowed", path="api/nbexec", method="GET", body=b""),
    Row("B94-put", 405, "method_not_allowed", method="PUT"),
    Row("B94-patch", 405, "method_not_allowed", method="PATCH"),
    Row("B94-delete", 405, "method_not_allowed", method="DELETE"),
    Row("B95", 404, "endpoint_not_found", path=R + "/"),
    Row("B95-double", 404, "notebook_not_found", path="api/nbexec//ok.ipynb"),
    Row("B96", 400, "invalid_request", path=R + "?unknown=1", names="unknown"),
    Row("B97", 400, "invalid_request", path=R + "?parameters=%7B%7D", names="parameters"),
    fields_row("B113-ftp", {"webhook": {"url": "ftp://example.org/"}}, "webhook"),
    fields_row("B113-file", {"webhook": {"url": "file:///etc/passwd"}}, "webhook"),
    fields_row("B113-javascript", {"webhook": {"url": "javascript:alert(1)"}}, "webhook"),
    fields_row("B113-credentials", {"webhook": {"url": "http://user:pw@h/"}}, "webhook"),
    fields_row("B113-long", {"webhook": {"url": "http://h/" + "x" * 3000}}, "webhook"),
    fields_row("B113-shape", {"webhook": "http://h/"}, "webhook"),
    fields_row("B113-none", {"webhook": {}}, "webhook"),
]


def prepare(server: Server, path: str) -> None:
    """Put the files there that a row is about."""
    server.write("ok.ipynb", server.cell("x = 1", "parameters"), "print(x)", "x")
    server.write("free.ipynb", "print(1)")
    (server.root / "folder").mkdir()
    (server.root / "dangling.ipynb").symlink_to(server.root / "nowhere.ipynb")
    (server.root / "loop.ipynb").symlink_to(server.root / "loop.ipynb")
    name = path.rpartition("/")[2]
    if name in FILES:
        (server.root / name).write_bytes(FILES[name])


def assert_refused(server: Server, answer: Answer, log: str) -> None:
    """Check what holds for every refusal: a clear word, nothing of the server's insides, nothing started."""
    document = answer.json
    assert answer.media_type == "application/json"
    assert isinstance(document["message"], str)
    assert document["message"]
    assert document["reason"] is None
    assert isinstance(document["code"], str)
    text = answer.body.decode()
    assert "Traceback" not in text
    assert str(server.root) not in text
    assert server.started == server.kernels == []
    assert "Traceback" not in log


@pytest.mark.server(NbExec={"max_body_bytes": LIMIT})
@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.id)
async def test_refused(server: Server, row: Row, caplog: pytest.LogCaptureFixture) -> None:
    """The request is refused with its status and code, in words, before anything is started."""
    prepare(server, row.path)
    answer = await server.fetch(row.method, row.path, row.body, headers=row.headers)
    assert (answer.status, answer.json["code"]) == (row.status, row.code), answer
    assert_refused(server, answer, caplog.text)
    assert row.names in answer.json["message"]
    if row.status == 405:
        assert answer.headers["Allow"]
    for problem in answer.json.get("errors", []):
        assert set(problem) in ({"field", "message"}, {"parameter", "message"})


async def test_unreadable(
    server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B92: a file that the server may not read is 403, as for Jupyter's own resources."""
    file = server.write("secret.ipynb", "print(1)")
    file.chmod(0)
    if os.geteuid() == 0:  # who may read everything

        def refuse(path: str, *_args: Any, **_kwargs: Any) -> Any:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

        monkeypatch.setattr(fileio, "open", refuse, raising=False)
    answer = await server.run("secret.ipynb")
    assert answer.status == 403
    assert_refused(server, answer, caplog.text)


async def test_all_problems_at_once(server: Server) -> None:
    """B36: what is wrong with the fields, and with the parameters, is reported together."""
    prepare(server, R)
    answer = await server.run("ok.ipynb", unknown=1, timeout=0, parameters=[])
    assert {each["field"] for each in answer.json["errors"]} == {"unknown", "timeout", "parameters"}
    answer = await server.run("ok.ipynb", parameters={"x": "a", "y": 1, "class": 2})
    assert {each["parameter"] for each in answer.json["errors"]} == {"x", "y", "class"}


# Requests that look odd, and are right.


@pytest.mark.parametrize(
    ("value", "id"),
    [
        (HUGE, "B22"),
        ("\0", "B51"),
        ("\"\"\"'''\\'\n\r\t$(x) {x} %s ${x} `x` \u2028\U0001f600", "B52"),
    ],
    ids=lambda each: each if isinstance(each, str) and each.startswith("B") else "",
)
async def test_value_arrives(server: Server, value: Any, id: str) -> None:  # noqa: A002
    """A strange value arrives exactly as it was sent."""
    server.write("free.ipynb", "x")
    answer = await server.run("free.ipynb", parameters={"x": value})
    assert answer.status == 200, answer
    assert answer.json["result"] == value


async def test_deep_value(server: Server) -> None:
    """B20: a value 64 lists deep arrives as it was sent; a deeper one is refused, not bent."""
    value: list[Any] = []
    for _ in range(63):
        value = [value]
    server.write("free.ipynb", "x")
    answer = await server.run("free.ipynb", parameters={"x": value})
    assert answer.json["result"] == value
    assert len(server.started) == 1
    answer = await server.run("free.ipynb", parameters={"x": [value]})
    assert (answer.status, answer.json["code"]) == (400, "invalid_parameter")
    assert len(server.started) == 1


@pytest.mark.parametrize(
    "row",
    [
        Row("B23-json", 200, headers={"Content-Type": "application/x-www-form-urlencoded"}),
        Row("B26", 200, headers={"Content-Type": "text/plain"}),
        Row("B26-utf8", 200, headers={"Content-Type": "application/json; charset=UTF-8"}),
        Row("B29", 200, body=b""),
        Row("B60", 200, body='{"timeout": 59.5}'),
        Row("B109", 200, headers={"Prefer": "wait=abc, no-such-preference"}),
        notebook_row("B87-v3", "v3.ipynb", 200),
        notebook_row("B88", "v2.ipynb", 200),
        notebook_row("B87-v4.0", "v4.0.ipynb", 200),
        notebook_row("B87-v4.99", "v4.99.ipynb", 200),
        notebook_row("B87-no-ids", "no-ids.ipynb", 200),
        notebook_row("B87-same-ids", "same-ids.ipynb", 200),
        notebook_row("B87-odd-ids", "odd-ids.ipynb", 200),
    ],
    ids=lambda row: row.id,
)
async def test_accepted(server: Server, row: Row) -> None:
    """The request is run: what is odd about it does no harm."""
    prepare(server, row.path)
    answer = await server.fetch(row.method, row.path, row.body, headers=row.headers)
    assert answer.status == 200, answer
    assert answer.json["outputs"][0]["text"] == "1\n"
    warned = ("B87-v3", "B88", "B87-v4.99", "B87-same-ids", "B87-odd-ids")
    assert bool(answer.json["warnings"]) is (row.id in warned)
    if row.id == "B87-odd-ids":
        assert (answer.json["outputs"][0]["cell"], answer.json["outputs"][0]["cell_id"]) == (1, "a b")


async def test_no_content_type(server: Server) -> None:
    """B28: a request without a content type is run."""
    prepare(server, R)
    answer = await server.raw(server.head(R, "Content-Length: 2", "Connection: close") + b"{}")
    assert answer.startswith(b"HTTP/1.1 200")


async def test_html_wanted(server: Server) -> None:
    """B110: who accepts HTML alone gets it."""
    prepare(server, R)
    answer = await server.run("ok.ipynb", headers={"Accept": "text/html"})
    assert (answer.status, answer.media_type) == (200, "text/html")


# HTTP that is none.


@pytest.mark.server(NbExec={"max_body_bytes": LIMIT})
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param(["Content-Length: -1"], b"", id="B33"),
        pytest.param(["Content-Length: 2", "Content-Length: 3"], b"{}", id="B34"),
        pytest.param(["Content-Length: 2", "Transfer-Encoding: chunked"], b"2\r\n{}\r\n0\r\n\r\n", id="B35"),
        pytest.param(["Content-Length: two"], b"{}", id="B35-text"),
        pytest.param(["X-Large: " + "x" * 70_000], b"", id="B118"),
    ],
)
async def test_malformed_http(
    server: Server, headers: list[str], body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no HTTP is refused by the server's own parser; nothing is started, and it lives on."""
    prepare(server, R)
    answer = await server.raw(server.head(R, *headers) + body)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert server.started == []
    assert (await server.describe("ok.ipynb")).status == 200
    assert "Traceback" not in caplog.text


@pytest.mark.server(NbExec={"max_body_bytes": LIMIT})
async def test_large_body_declared(server: Server) -> None:
    """B31: a body that is declared too large is refused before a byte of it is sent."""
    prepare(server, R)
    answer = await server.raw(server.head(R, "Content-Length: 629145600"))
    assert answer.startswith(b"HTTP/1.1 413")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert json.loads(body)["code"] == "body_too_large"
    # Whatever comes next on this connection is the body that nobody reads, and no request.
    assert b"\r\nConnection: close" in head
    assert server.started == []


@pytest.mark.server(NbExec={"max_body_bytes": LIMIT})
async def test_large_body_chunked(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """B32: a body that grows too large while it is sent is refused when it does."""
    prepare(server, R)
    chunk = b"%x\r\n" % (LIMIT // 2) + b" " * (LIMIT // 2) + b"\r\n"
    head = server.head(R, "Transfer-Encoding: chunked")
    answer = await server.raw(head + 3 * chunk + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "body_too_large"
    assert server.started == []
    assert "Traceback" not in caplog.text


async def test_unknown_method(server: Server) -> None:
    """B94: a method that nobody knows is 405."""
    prepare(server, R)
    answer = await server.raw(server.head(R, "Connection: close", method="BREW"))
    assert answer.startswith(b"HTTP/1.1 405")
    assert b"\r\nAllow: " in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "method_not_allowed"
