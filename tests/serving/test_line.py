"""What is kept of what a kernel says while it answers a call."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_nbexec.serving import line


def message(kind: str, size: int = 10, **content: Any) -> dict[str, Any]:
    """A message, as a channel gives it."""
    made: dict[str, Any] = {"msg_type": kind, "content": content, "size": size}
    return {**made, "texts": [content["text"]]} if kind == "stream" else made


def heard(*messages: dict[str, Any], **reply: Any) -> line.Heard:
    """What is kept of messages, and of the reply."""
    found = line.Heard(reply={"status": "ok", **reply})
    for each in messages:
        assert found.take(each, max_bytes=1000)
    return found


def test_streams() -> None:
    """Standard output is kept in order; standard error is not."""
    found = heard(
        message("stream", name="stdout", text="a"),
        message("stream", name="stderr", text="b"),
        message("stream", name="stdout", text="c"),
    )

    assert "".join(found.stdout) == "ac"


def test_shown() -> None:
    """Displays and values are kept; updates change what was displayed; clearing forgets it."""
    display: dict[str, Any] = {"transient": {"display_id": "x"}, "metadata": {}}
    shown = [message("display_data", data={"text/plain": "1"}, **display)]
    shown.append(message("update_display_data", data={"text/plain": "2"}, **display))
    shown.append(message("update_display_data", data={"text/plain": "3"}, transient={"display_id": "y"}))
    shown.append(message("execute_result", data={"text/plain": "4"}, metadata={}, execution_count=1))

    assert [each["data"] for each in heard(*shown).shown] == [{"text/plain": "2"}, {"text/plain": "4"}]
    assert heard(*shown, message("clear_output", wait=False)).shown == []
    later = [*shown, message("clear_output", wait=True)]
    assert len(heard(*later).shown) == 2
    assert [each["data"] for each in heard(*later, shown[-1]).shown] == [{"text/plain": "4"}]
    assert heard(message("display_data", data="no bundle"), message("comm_open", data={})).shown == []


@pytest.mark.parametrize("transient", ["x", {"display_id": ["x"]}, {"display_id": 1}, None])
def test_display_without_a_name(transient: Any) -> None:
    """What has no name that can be one is displayed, and not updated."""
    display: dict[str, Any] = {"transient": transient, "metadata": {}}
    found = heard(
        message("display_data", data={"text/plain": "1"}, **display),
        message("update_display_data", data={"text/plain": "2"}, **display),
    )

    assert [each["data"] for each in found.shown] == [{"text/plain": "1"}]


def test_limit() -> None:
    """What is too much is not kept, and that is told."""
    found = line.Heard()

    assert found.take(message("stream", 900, name="stdout", text="a"), max_bytes=1000)
    assert not found.take(message("stream", 101, name="stdout", text="b"), max_bytes=1000)
    assert found.stdout == ["a"]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({}, ("Shown", "why")),
        ({"status": "error", "ename": "E", "evalue": "v"}, ("E", "v")),
        ({"status": "error"}, ("Shown", "why")),
        ({"status": "error", "ename": "NoneType", "evalue": ""}, ("Shown", "why")),
        ({"status": "aborted"}, ("Shown", "why")),
        ({"status": "error", "ename": "SystemExit", "evalue": "3"}, ("SystemExit", "3")),
        ({"status": "error", "payload": [{"source": "ask_exit"}]}, ("Shown", "why")),
    ],
)
def test_failure(reply: dict[str, Any], expected: tuple[str, str] | None) -> None:
    """A cell that shows an error has failed, whatever the reply says; that says why, where it does."""
    found = heard(message("error", ename="Shown", evalue="why", traceback=[]), **reply)

    assert found.failure == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({}, None),
        ({"status": "error", "ename": "E", "evalue": "v"}, ("E", "v")),
        ({"status": "aborted"}, ("Error", "")),
        ({"status": "error", "ename": "SystemExit", "evalue": "0"}, None),
        ({"status": "error", "payload": [{"source": "ask_exit"}]}, None),
    ],
)
def test_failure_that_is_not_shown(reply: dict[str, Any], expected: tuple[str, str] | None) -> None:
    """Without an error that is shown the reply decides: a clean exit, shown or not, is no failure."""
    shown = message("error", ename="Shown", evalue="why", traceback=[])
    clean = message("error", ename="SystemExit", evalue="0", traceback=[])
    text = message("stream", name="stdout", text="x")

    assert heard(**reply).failure == expected
    assert heard(clean, **reply).failure == expected
    assert heard(shown, message("clear_output", wait=False), **reply).failure == expected
    assert heard(shown, message("clear_output", wait=True), text, **reply).failure == expected
