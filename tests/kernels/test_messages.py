"""What is read of the messages of kernels that say anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_nbexec import outputs
from jupyter_nbexec.kernels import messages

#: JSON of any kind, with halves of surrogate pairs in it.
TEXT = st.text(st.characters(categories=["L", "N", "Cs", "Cc"]), max_size=5)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
KIND = st.sampled_from(
    ["stream", "display_data", "execute_result", "error", "status", "execute_reply", "new"]
)
FIELD = st.sampled_from(
    ["name", "text", "data", "metadata", "ename", "evalue", "traceback", "payload", "status"]
)
HEADER = st.fixed_dictionaries({"msg_id": TEXT | VALUE, "msg_type": KIND | VALUE})


def frames(header: Any, parent: Any, metadata: Any, content: Any) -> list[bytes]:
    """A message in parts, as ipykernel writes it."""
    parts = (header, parent, metadata, content)
    return [json.dumps(part, ensure_ascii=False).encode("utf-8", "surrogatepass") for part in parts]


def output(text: bytes) -> list[bytes]:
    """A stream message with this text."""
    content = b'{"name":"stdout","text":"%s"}' % text
    return [b'{"msg_id":"1","msg_type":"stream"}', b'{"msg_id":"it"}', b"{}", content]


@given(HEADER | VALUE, VALUE, VALUE, VALUE | st.dictionaries(FIELD, VALUE | st.lists(TEXT)))
def test_anything(header: Any, parent: Any, metadata: Any, content: Any) -> None:
    """Whatever a message has in it: it is read, and can be told and stored then, or it is unreadable."""
    for made in (
        lambda: messages.Parts(frames(header, parent, metadata, content)),
        _whole_of(header, content),
    ):
        try:
            message = made().message()
        except messages.UnreadableError:
            continue
        assert isinstance(message["metadata"], dict)
        assert isinstance(message["content"], dict)
        assert isinstance(message["content"].get("traceback", []), list)
        outputs.dumps(message["content"]).decode("utf-8")


def _whole_of(header: Any, content: Any) -> Any:
    return lambda: messages.Whole({"header": header, "parent_header": None, "content": content})


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_any_bytes(parts: list[bytes]) -> None:
    """What is no message at all is unreadable, and nothing worse."""
    with pytest.raises(messages.UnreadableError):
        messages.Parts(parts).message()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"Ausrei\xc3er.txt", "Ausrei\ufffder.txt"),
        (rb"a\udcc3b", "a\ufffdb"),
        (rb"\ud83d\ude00", "\U0001f600"),
        (b"\xc3\xa9 \xf0\x9f\x98\x80", "\xe9 \U0001f600"),
        (rb"nul \u0000", "nul \0"),
    ],
)
def test_text(written: bytes, read: str) -> None:
    """Of what is no UTF-8 all that is is kept, and the rest is replaced."""
    assert messages.Parts(output(written)).content()["text"] == read


@pytest.mark.parametrize("parent", [b"null", b"{}", b"", b'{"msg_id": 5}', b'{"msg_id": null}', b"[1]"])
def test_no_parent(parent: bytes) -> None:
    """A message that belongs to no request is none of the run's; some kernels say `null`."""
    parts = output(b"x")
    parts[1] = parent

    if parent == b"[1]":
        with pytest.raises(messages.UnreadableError):
            messages.Parts(parts)
    else:
        assert messages.Parts(parts).parent is None


def test_wrong_signature() -> None:
    """A message that somebody else has signed is not read."""
    with pytest.raises(messages.UnreadableError):
        messages.Parts(output(b"x"), lambda: False).content()


def test_too_deep() -> None:
    """What is nested too deeply for Python to read is unreadable."""
    parts = output(b"x")
    parts[3] = b"[" * 100_000

    with pytest.raises(messages.UnreadableError):
        messages.Parts(parts).content()


def test_wrong_fields() -> None:
    """A field that is not what the protocol says is left out; a message without what makes it one is none."""
    reply = messages.content_of(
        "execute_reply", {"status": 5, "payload": [1], "execution_count": True, "x": 1}
    )
    assert reply == {"status": "error", "x": 1}
    shown = messages.content_of("execute_result", {"data": {}, "metadata": None})
    assert shown == {"data": {}, "metadata": {}, "execution_count": None}
    with pytest.raises(messages.UnreadableError):
        messages.content_of("stream", {"name": "stdout"})
