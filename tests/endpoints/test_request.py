"""REQUEST is what Kernel Gateway documents, without its faults and without credentials."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_nbexec import errors, languages
from jupyter_nbexec.endpoints import request


def write(**fields: Any) -> Any:
    """Write REQUEST and read it as a notebook does."""
    parameters = fields.pop("parameters", {})
    text = request.write(request.Incoming(**fields), parameters)
    assert text.isascii()
    return json.loads(text)


def body(content: bytes, content_type: str | None) -> Any:
    """What the notebook gets of a body."""
    headers = [] if content_type is None else [("Content-Type", content_type)]
    return write(body=content, headers=headers)["body"]


def test_nothing() -> None:
    """A request without anything has all four members."""
    assert write() == {"body": "", "args": {}, "path": {}, "headers": {}}


@pytest.mark.parametrize(
    ("content", "content_type", "expected"),
    [
        (b'{"a": [1, null]}', "application/json", {"a": [1, None]}),
        ('{"a": "é"}'.encode(), "application/json; charset=utf-8", {"a": "é"}),
        ('{"a": "é"}'.encode(), 'Application/JSON; Charset="UTF-8"', {"a": "é"}),
        (b"{nope", "application/json", "{nope"),
        (b"", "application/json", ""),
        (b"[" * 100_000, "application/json", "[" * 100_000),
        (b'{"a": 1}', "text/plain", '{"a": 1}'),
        (b'{"a": 1}', None, '{"a": 1}'),
        ("é".encode(), "text/plain; charset=utf8", "é"),
        (b"a,b", "text/csv", "a,b"),
    ],
)
def test_bodies(content: bytes, content_type: str | None, expected: Any) -> None:
    """JSON is parsed, with a charset too; what is none, or something else, is text."""
    assert body(content, content_type) == expected


def test_bytes_that_are_no_text() -> None:
    """A body that is no UTF-8 arrives as base64, and says so."""
    document = write(body=b"\xff\x00", headers=[("Content-Type", "application/octet-stream")])

    assert base64.b64decode(document["body"]) == b"\xff\x00"
    assert document["body_encoding"] == "base64"
    assert "body_encoding" not in write(body=b"text")


@pytest.mark.parametrize("name", ["klingon", "hex", "punycode", "idna", "utf-16", "utf-7", "latin-1", ""])
def test_another_charset(name: str) -> None:
    """A charset other than UTF-8 is refused, whether or not Python has a codec of that name."""
    with pytest.raises(errors.UnsupportedMediaType):
        body(b"x", f"text/plain; charset={name}")


def test_forms() -> None:
    """Fields are lists of texts; files are beside them, whole."""
    form = request.Form(
        fields={"a": [b"1", b"2"], "\xc3\xbc": ["ü".encode()], "empty": [b""]},
        files={"f": [request.File(name="x.png", content_type="image/png", content=b"\x00\xff")]},
    )
    headers = [("Content-Type", "multipart/form-data; boundary=x; charset=utf-8")]
    document = write(form=form, headers=headers, body=b"raw")

    assert document["body"] == {"a": ["1", "2"], "ü": ["ü"], "empty": [""]}
    assert document["files"] == {
        "f": [{"filename": "x.png", "content_type": "image/png", "content": "AP8="}],
    }
    assert "files" not in write(form=request.Form(fields={}))


def test_names_that_are_texts() -> None:
    """Names of fields that have been read already are left as they are."""
    form = request.Form(fields={"é": [b"1"], "ü": [b"2"], "日本": [b"3"]}, has_text_names=True)

    assert write(form=form)["body"] == {"é": ["1"], "ü": ["2"], "日本": ["3"]}


def test_arguments_and_path() -> None:
    """Arguments are lists, names and values in UTF-8; credentials are not among them."""
    name = "ü".encode().decode("latin-1")
    query = {"a": [b"1", b""], name: ["ü".encode()], "token": [b"secret"], "_xsrf": [b"secret"]}
    document = write(query=query, parameters={"id": "x/y"})

    assert document["args"] == {"a": ["1", ""], "ü": ["ü"]}
    assert document["path"] == {"id": "x/y"}


def test_headers() -> None:
    """Headers that are repeated are lists, however often; credentials are left out, however spelt."""
    pairs = [
        *(("X-A", "1"), ("X-A", "2"), ("X-A", "3"), ("X-B", "4")),
        *(("Authorization", "secret"), ("cookie", "secret"), ("X-Xsrftoken", "secret")),
        ("Proxy-Authorization", "secret"),
    ]

    assert write(headers=pairs)["headers"] == {"X-A": ["1", "2", "3"], "X-B": "4"}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists), st.text())
def test_json_arrives(value: Any, argument: str) -> None:
    """Every JSON value, and every text that HTTP can carry, arrives as it was sent."""
    content = json.dumps(value).encode()
    query = {"a": [argument.encode("utf-8", "replace")]}
    document = write(body=content, headers=[("Content-Type", "application/json")], query=query)

    assert document["body"] == value
    assert document["args"]["a"] == [argument.encode("utf-8", "replace").decode()]


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("python3", 'REQUEST = "{\\"a\\": \\"${x}\\"}"'),
        ("bash", """REQUEST='{"a": "${x}"}'"""),
        ("ir", 'REQUEST = "{\\"a\\": \\"${x}\\"}"'),
        ("perl", 'my $REQUEST = "{\\"a\\": \\"\\${x}\\"}";'),
    ],
)
def test_assignment(kernel: str, expected: str) -> None:
    """REQUEST is assigned in the form of the language, and nothing in it is evaluated."""
    assert request.assign('{"a": "${x}"}', languages.find(kernel, {"ir": "R"}.get(kernel))) == expected


def test_unwritable() -> None:
    """Where a language is not known, or cannot hold a request, that is said; nothing is guessed."""
    with pytest.raises(errors.Unprocessable, match="language"):
        request.assign("{}", None)
