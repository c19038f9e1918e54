"""An answer is what a cell printed, or else showed; ResponseInfo cells say status and headers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_nbexec import errors, negotiation
from jupyter_nbexec.endpoints import response

PNG = "iVBORw0KGgo="


def display(**data: Any) -> dict[str, Any]:
    """An output; `text_plain` is `text/plain`."""
    return {"output_type": "display_data", "data": {key.replace("_", "/"): data[key] for key in data}}


def value(**data: Any) -> dict[str, Any]:
    """A value that a cell ends with."""
    return {**display(**data), "output_type": "execute_result"}


def read(
    stdout: str = "",
    *shown: dict[str, Any],
    accept: str | None = None,
    info: dict[str, Any] | None = None,
    owns_origin: bool = False,
) -> response.Answer:
    """Make an answer."""
    said = None if info is None else response.parse_info(json.dumps(info))
    ranges = negotiation.parse_accept(accept)
    return response.read(stdout, shown, said, ranges, owns_origin=owns_origin)


FIGURE = display(text_plain="<Figure>", image_png=PNG)
TABLE = value(text_plain="a  b", text_html="<table>", text_csv="a,b")


@pytest.mark.parametrize(
    ("shown", "accept", "content_type", "body"),
    [
        ([], None, response.TEXT, b""),
        ([value(text_plain="2")], None, response.TEXT, b'{"text/plain": "2"}'),
        ([value(text_plain="2")], "application/json", "application/json", b'{"text/plain": "2"}'),
        ([display(text_plain="2")], None, response.TEXT.lower(), b"2"),
        ([FIGURE], None, "image/png", b"\x89PNG\r\n\x1a\n"),
        ([FIGURE], "text/html, image/*;q=0.5", "image/png", b"\x89PNG\r\n\x1a\n"),
        ([FIGURE], "text/plain", response.TEXT, b"<Figure>"),
        # What inline figures do: the value comes first, the figure when the cell ends.
        ([value(text_plain="[<Line2D>]"), FIGURE], None, "image/png", b"\x89PNG\r\n\x1a\n"),
        ([FIGURE, value(text_plain="3")], None, response.TEXT, b'{"text/plain": "3"}'),
        ([FIGURE, value(text_plain="3")], "image/png", "image/png", b"\x89PNG\r\n\x1a\n"),
        ([TABLE], None, "text/html; charset=utf-8", b"<table>"),
        ([TABLE], "text/csv", "text/csv; charset=utf-8", b"a,b"),
        (
            [TABLE],
            "application/json",
            "application/json",
            b'{"text/plain": "a  b", "text/html": "<table>", "text/csv": "a,b"}',
        ),
        ([display(application_json={"a": 1}, text_plain="x")], None, "application/json", b'{"a":1}'),
        ([display(**{"image_svg+xml": "<svg/>"})], None, "image/svg+xml; charset=utf-8", b"<svg/>"),
    ],
)
def test_what_is_shown(
    shown: list[dict[str, Any]], accept: str | None, content_type: str, body: bytes
) -> None:
    """The last thing shown counts, in the type that the client likes best."""
    answer = read("", *shown, accept=accept)

    assert (answer.status, answer.content_type, answer.body) == (200, content_type, body)


def test_print_comes_first() -> None:
    """What is printed is the answer, whatever is shown, and whatever the client accepts."""
    answer = read("printed\n", FIGURE, TABLE, accept="image/png")

    assert (answer.content_type, answer.body) == (response.TEXT, b"printed\n")


def test_not_acceptable() -> None:
    """A client that accepts nothing of what is shown is told what there is."""
    with pytest.raises(errors.NotAcceptable) as refused:
        read("", FIGURE, accept="text/html")

    assert refused.value.details["available"] == ["image/png", "text/plain"]


def test_info() -> None:
    """Status and headers are those of the ResponseInfo cell; a list of values is a repeated header."""
    info = {"status": 201, "headers": {"Content-Type": "text/xml", "X-A": ["1", "2"], "X-N": 3}}
    answer = read("<a/>", info=info)

    assert (answer.status, answer.content_type, answer.body) == (201, "text/xml", b"<a/>")
    assert answer.headers == (("X-A", "1"), ("X-A", "2"), ("X-N", "3"))


@pytest.mark.parametrize("status", sorted(response.BODILESS))
def test_no_body(status: int) -> None:
    """Where the status has no body, there is none, nor its type."""
    answer = read("ignored", info={"status": status})

    assert (answer.status, answer.content_type, answer.body) == (status, None, b"")


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        ("", "nothing"),
        (" \n", "nothing"),
        ("nope", "JSON"),
        ("[" * 100_000, "JSON"),
        ("[]", "object"),
        ('{"headers": []}', "headers"),
        ('{"headers": {"A B": "1"}}', "name"),
        ('{"headers": {"": "1"}}', "name"),
        ('{"headers": {"A": null}}', "text"),
        ('{"headers": {"A": {"b": 1}}}', "text"),
        ('{"headers": {"A": [[]]}}', "text"),
        ('{"headers": {"A": "1\\r\\nSet-Cookie: a=b"}}', "characters"),
        ('{"headers": {"A": ["1", "\\u0000"]}}', "characters"),
        ('{"headers": {"A": "\\u20ac"}}', "characters"),
        ('{"status": "200"}', "status"),
        ('{"status": true}', "status"),
        ('{"status": 99}', "status"),
        ('{"status": 101}', "status"),
        ('{"status": 700}', "status"),
        ('{"status": 200.5}', "status"),
    ],
)
def test_bad_info(printed: str, message: str) -> None:
    """What is no ResponseInfo says why, and is never half used."""
    with pytest.raises(response.BadInfo, match=message):
        response.parse_info(printed)


def test_defaults_of_info() -> None:
    """Members that are missing have defaults; others are ignored."""
    assert response.parse_info('{"x": 1}') == response.Info()


def test_numbers_of_info() -> None:
    """Numbers and booleans are what Kernel Gateway makes of them."""
    printed = '{"status": 201.0, "headers": {"A": true, "B": 1, "C": [2.5, "x"]}}'

    pairs = (("A", "True"), ("B", "1"), ("C", "2.5"), ("C", "x"))
    assert response.parse_info(printed) == response.Info(status=201, headers=pairs)


@pytest.mark.parametrize(
    ("name", "content", "inside", "alone"),
    [
        ("X-Own", "1", True, True),
        ("Cache-Control", "no-store", True, True),
        ("Set-Cookie", "a=b", False, True),
        ("Content-Security-Policy", "default-src *", False, True),
        ("Access-Control-Allow-Origin", "*", False, True),
        ("X-Content-Type-Options", "x", False, True),
        ("Alt-Svc", "h2=x", False, True),
        ("NEL", "{}", False, True),
        ("Reporting-Endpoints", "x=y", False, True),
        ("X-Accel-Redirect", "/secret", False, False),
        ("X-Sendfile", "/secret", False, False),
        ("Transfer-Encoding", "chunked", False, False),
        ("Content-Length", "1", False, False),
        ("connection", "close", False, False),
        ("Upgrade", "h2c", False, False),
        ("Location", "/elsewhere?a=1", True, True),
        ("Location", "elsewhere", True, True),
        ("Location", "https://example.com/a", True, True),
        ("Location", "//evil.example", False, True),
        ("Location", "https:evil.example", False, True),
        ("Location", "\\\\evil.example", False, True),
        ("Location", "/\t/evil.example", False, True),
        ("Location", "javascript:alert(1)", False, True),
        ("Location", "http://[", False, True),
    ],
)
def test_headers_that_are_not_the_notebooks(name: str, content: str, *, inside: bool, alone: bool) -> None:
    """How a message is sent is the server's to say; and on an origin that others use too, much else is."""
    for owns_origin, allowed in ((False, inside), (True, alone)):
        answer = read("x", info={"headers": {name: content}}, owns_origin=owns_origin)
        assert answer.headers == (((name, content),) if allowed else ())
        assert answer.refused == (() if allowed else (name,))


@given(st.text(), st.text(), st.text())
def test_no_answer_can_be_split(printed: str, name: str, content: str) -> None:
    """Whatever a ResponseInfo cell prints, no header that comes of it ends its line."""
    try:
        info = response.parse_info(json.dumps({"headers": {name: content}}))
    except response.BadInfo:
        return
    for pair in info.headers:
        assert not set("".join(pair)) & set("\r\n\0")
    answer = response.read(printed, [], info, negotiation.parse_accept(None), owns_origin=True)
    assert answer.body == printed.encode("utf-8", "replace")
