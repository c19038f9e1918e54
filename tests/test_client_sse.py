"""Server-Sent Events: the rules of the WHATWG, wherever the bytes are cut."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given, strategies

from jupyter_nbexec.client import sse

Read = list[tuple[str, str, str]]


def read(*chunks: bytes) -> Read:
    """All messages of a connection."""
    parser = sse.Parser()
    return [(m.id, m.type, m.data) for chunk in chunks for m in parser.feed(chunk)]


def reference(stream: bytes) -> Read:
    """The standard's algorithm, written for a whole stream that is there at once."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    found: Read = []
    last, kind, data = "", "", ""
    *lines, _ = re.split("\r\n|\n|\r", text)
    for line in lines:
        if line == "":
            if data:
                found.append((last, kind or "message", data.removesuffix("\n")))
            kind = data = ""
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data += value + "\n"
            elif name == "event":
                kind = value
            elif name == "id" and "\0" not in value:
                last = value
    return found


@pytest.mark.parametrize(
    ("stream", "messages"),
    [
        # The examples of the standard.
        (
            (
                b"data: This is the first message.\n\n"
                b"data: This is the second message, it\ndata: has two lines.\n\n"
                b"data: This is the third message.\n\n"
            ),
            [
                ("", "message", "This is the first message."),
                ("", "message", "This is the second message, it\nhas two lines."),
                ("", "message", "This is the third message."),
            ],
        ),
        (
            b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n",
            [("", "add", "73857293"), ("", "remove", "2153")],
        ),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
            [("1", "message", "first event"), ("", "message", "second event")],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [("", "message", ""), ("", "message", "\n")]),
        (b"data:test\n\ndata: test\n\n", [("", "message", "test")] * 2),
        # And what it says besides.
        (b"\xef\xbb\xbfdata: a\n\n", [("", "message", "a")]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [("", "message", "a")]),
        (b"data: a\r\rdata: b\r\n\r\ndata: c\r\n\n", [("", "message", letter) for letter in "abc"]),
        (b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", [("1", "message", "a"), ("1", "message", "b")]),
        (b"id: 7\n\ndata: a\n\n", [("7", "message", "a")]),
        (b"event: x\n\ndata: a\n\n", [("", "message", "a")]),
        (b"unknown: 1\nDATA: 2\n data: 3\ndata: a\xff\n\n", [("", "message", "a\ufffd")]),
        (b"data: a", []),
    ],
)
def test_the_standard_is_kept(stream: bytes, messages: Read) -> None:
    """The examples of the standard are read as it says, at once and byte by byte."""
    assert read(stream) == messages
    assert read(*(stream[i : i + 1] for i in range(len(stream)))) == messages
    assert reference(stream) == messages


LINES = strategies.lists(
    strategies.tuples(
        strategies.sampled_from(
            [b"", b"data: ", b"data:", b"data", b"event: ", b"id: ", b"retry: ", b":", b"\xef\xbb\xbf"]
        ),
        strategies.one_of(
            strategies.sampled_from([b"", b"x", b" y", b"12", b"\0", b"\xe2\x82", b"\xac", b":"]),
            strategies.text(max_size=5).map(lambda text: text.encode("utf-8", "surrogatepass")),
        ),
        strategies.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r"]),
    ).map(b"".join),
    max_size=20,
).map(b"".join)


@given(
    stream=strategies.one_of(LINES, strategies.binary(max_size=60)),
    cuts=strategies.lists(strategies.integers(0, 200), max_size=12),
)
@example(stream=b"data: a\r\n\r\n", cuts=[8, 10])
@example(stream=b"\xef\xbb\xbfdata: a\n\n", cuts=[1, 2])
def test_where_the_bytes_are_cut_does_not_matter(stream: bytes, cuts: list[int]) -> None:
    """Any bytes, cut anywhere, give the messages that the standard's algorithm gives."""
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(places)]

    assert read(*chunks) == reference(stream)


def test_a_message_is_there_with_its_last_byte() -> None:
    """A message does not wait for what may follow, not even for the LF after a CR."""
    parser = sse.Parser()

    assert list(parser.feed(b"data: a\r\n")) == []
    assert [m.data for m in parser.feed(b"\r")] == ["a"]
    assert list(parser.feed(b"\n")) == []


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1500", 1.5), (b"0", 0.0), (b"", None), (b"1.5", None), (b"-1", None), (b"\xd9\xa1", None)],
)
def test_retry_is_a_number_of_digits(value: bytes, seconds: float | None) -> None:
    """`retry` counts where it consists of ASCII digits alone."""
    parser = sse.Parser()

    assert list(parser.feed(b"retry: " + value + b"\n")) == []
    assert parser.retry == seconds


def test_the_last_id_outlives_the_connection() -> None:
    """A parser goes on from the id of the connection before; a message that was cut off does not count."""
    parser = sse.Parser("5")

    assert [m.id for m in parser.feed(b"data: a\n\n")] == ["5"]
    assert list(parser.feed(b"id: 6\ndata: b\n")) == []
    assert parser.last_id == "5"


@pytest.mark.parametrize(
    "stream",
    [b"x" * 101, b":" + b"x" * 100, b"data: " + b"x" * 95, b"data: 1234567890\n" * 7],
    ids=["no line end", "comment", "one line", "many lines"],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_memory_is_bounded(stream: bytes, step: int) -> None:
    """What grows past the limit without an end is refused, however it comes."""
    parser = sse.Parser(max_bytes=100)

    def feed() -> None:
        for start in range(0, len(stream), step):
            list(parser.feed(stream[start : start + step]))

    with pytest.raises(sse.TooLargeError):
        feed()


def test_many_bytes_are_no_problem_if_events_are_small() -> None:
    """The limit is on one event, and comments and events are forgotten."""
    parser = sse.Parser(max_bytes=100)

    assert sum(1 for _ in range(100) for _ in parser.feed(b": keep-alive\n\ndata: 1234567890\n\n")) == 100
