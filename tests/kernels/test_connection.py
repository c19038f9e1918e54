"""What the connection drops, joins and notices, without a kernel where that is possible."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import nbformat
import pytest
import zmq
import zmq.asyncio
from jupyter_client.session import Session

from jupyter_nbexec import execute
from jupyter_nbexec.kernels import connection
from jupyter_nbexec.kernels.opened import Opened
from jupyter_nbexec.serving.line import Line
from tests.machinery import MIB

pytestmark = pytest.mark.anyio
#: Milliseconds that anything may take.
DEADLINE = 20_000
#: Messages that are more than one batch.
NUMBER = 2 * connection.BATCH_MESSAGES
LIMITS = execute.Limits(output_bytes=MIB, outputs=9999, result_bytes=1, start_timeout=1.0, result_timeout=1.0)


@dataclass
class Talk:
    """A client, and the sockets of a kernel that says what the test has it say."""

    client: Any
    link: connection.Link
    session: Session
    shell: zmq.Socket[bytes]
    iopub: zmq.Socket[bytes]


@asynccontextmanager
async def talking(folder: Path) -> AsyncIterator[Talk]:
    """Connect a client to a kernel that is none."""
    context, plain = zmq.asyncio.Context(), zmq.Context()
    shell, iopub = plain.socket(zmq.ROUTER), plain.socket(zmq.XPUB)
    info: dict[str, Any] = {
        f"{name}_port": number for number, name in enumerate(("shell", "iopub", "stdin", "control", "hb"), 1)
    }
    info |= {"transport": "ipc", "ip": str(folder / "k"), "key": "secret", "signature_scheme": "hmac-sha256"}
    shell.bind(f"ipc://{folder / 'k-1'}")
    iopub.bind(f"ipc://{folder / 'k-2'}")
    link = connection.Link(1 << 20)
    client: Any = connection.connect(context, info, link)
    try:
        assert iopub.poll(DEADLINE)
        iopub.recv()  # the subscription
        yield Talk(client, link, Session(key=b"secret"), shell, iopub)
    finally:
        client.shell_channel.stop()
        client.iopub_channel.stop()
        context.destroy(linger=0)
        plain.destroy(linger=0)


async def begin_to_wait(reading: asyncio.Task[Any]) -> None:
    """Have a task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert not reading.done()


def wait_while_nothing_else_runs(socket: zmq.asyncio.Socket) -> None:
    """Wait until a socket has a message, and let the event loop do nothing meanwhile."""
    assert zmq.Socket.shadow(socket.underlying).poll(DEADLINE)


async def test_reply_that_came_before_the_failure(tmp_path: Path) -> None:
    """A reply that has come, and was not looked at yet, is read before the connection is given up."""
    async with talking(tmp_path) as talk:
        request = talk.client.kernel_info()
        talk.link.begin(request)
        assert talk.shell.poll(DEADLINE)
        names, parts = talk.session.feed_identities(talk.shell.recv_multipart())
        asked = talk.session.deserialize(parts)
        reading = asyncio.create_task(talk.client.shell_channel.get_msg())
        await begin_to_wait(reading)
        talk.session.send(talk.shell, "kernel_info_reply", {"status": "ok"}, parent=asked, ident=names)
        wait_while_nothing_else_runs(talk.client.shell_channel.socket)
        talk.link.fail(connection.ConnectionLost())

        assert (await reading)["content"] == {"status": "ok"}
        with pytest.raises(connection.ConnectionLost):
            await talk.client.shell_channel.get_msg()


async def test_output_that_came_before_the_failure(tmp_path: Path) -> None:
    """So is an output."""
    async with talking(tmp_path) as talk:
        talk.link.begin("it")
        reading = asyncio.create_task(talk.client.iopub_channel.get_msg())
        await begin_to_wait(reading)
        content = {"name": "stdout", "text": "last words"}
        parent = {"msg_id": "it"}
        talk.session.send(talk.iopub, "stream", content, parent=parent, ident=b"stream.stdout")
        wait_while_nothing_else_runs(talk.client.iopub_channel.socket)
        talk.link.fail(connection.ConnectionLost())

        assert (await reading)["texts"] == ["last words"]


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"topic", b"<IDS|MSG>"],
        [b"topic", b"<IDS|MSG>", b"bad", b"{", b"{", b"{", b"{"],
        [b"topic", b"<IDS|MSG>", b"", b'{"msg_id":"1","msg_type":"x"}', b"{}", b"{}", b"[]"],
        [
            b"topic",
            b"<IDS|MSG>",
            b"",
            b'{"msg_id":"1","msg_type":"stream"}',
            b'{"msg_id":"it"}',
            b"{}",
            b"{}",
        ],
    ],
)
async def test_what_is_no_message(tmp_path: Path, frames: list[bytes]) -> None:
    """What cannot be read is left out, and that is told; what comes after it is read."""
    async with talking(tmp_path) as talk:
        talk.link.begin("it")
        talk.iopub.send_multipart(frames)
        content = {"name": "stdout", "text": "after"}
        talk.session.send(talk.iopub, "stream", content, parent={"msg_id": "it"}, ident=b"stream.stdout")

        assert (await talk.client.iopub_channel.get_msg(timeout=DEADLINE / 1000))["texts"] == ["after"]
        is_of_nobody = frames[-1] == b"[]"
        assert talk.link.has_lost_output is not is_of_nobody
        assert bool(talk.link.warnings) is not is_of_nobody


async def test_reply_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel whose reply cannot be read is given up, if it sends no other."""
    monkeypatch.setattr(connection, "UNREADABLE", 0.0)
    async with talking(tmp_path) as talk:
        talk.link.begin(talk.client.execute("1"))
        assert talk.shell.poll(DEADLINE)
        names, parts = talk.session.feed_identities(talk.shell.recv_multipart())
        asked = talk.session.deserialize(parts)
        Session(key=b"another").send(talk.shell, "execute_reply", {"status": "ok"}, parent=asked, ident=names)

        with pytest.raises(connection.ConnectionLost, match="cannot be read"):
            await talk.client.shell_channel.get_msg(timeout=DEADLINE / 1000)


async def test_a_kernel_that_has_ended_is_heard_out(tmp_path: Path) -> None:
    """All that a kernel sent before it ended is read, however late, and only then is it given up."""
    async with talking(tmp_path) as talk:
        parent = {"msg_id": "it"}
        talk.link.begin("it")
        execution = execute.Execution(
            notebook=nbformat.v4.new_notebook(),
            connection_info={},
            limits=LIMITS,
            opened=Opened(client=talk.client, link=talk.link, language_info={}),
        )
        for number in range(NUMBER):
            content = {"data": {"text/plain": str(number)}, "metadata": {}}
            talk.session.send(talk.iopub, "display_data", content, parent=parent, ident=b"display_data")
        giving_up = asyncio.create_task(execution.abandon(has_ended=True))
        await begin_to_wait(giving_up)
        talk.session.send(talk.iopub, "status", {"execution_state": "idle"}, parent=parent, ident=b"status")
        # Its thread sends all that it was given before it closes.
        talk.shell.close()
        talk.iopub.close()
        with anyio.fail_after(DEADLINE / 1000):
            await giving_up
        said = [await talk.client.iopub_channel.get_msg() for _ in range(NUMBER + 1)]

        assert [each["content"]["data"]["text/plain"] for each in said[:-1]] == list(map(str, range(NUMBER)))
        assert said[-1]["content"] == {"execution_state": "idle"}
        talk.link.request = None
        with pytest.raises(connection.ConnectionLost):
            await talk.client.iopub_channel.get_msg()


async def test_a_kernel_that_goes_on_is_not(tmp_path: Path) -> None:
    """One that is given up while it talks without end is not heard for ever."""
    async with talking(tmp_path) as talk:
        talk.link.has_two_readers = False
        talk.link.begin("it")
        content: dict[str, Any] = {"data": {}, "metadata": {}}
        talk.session.send(talk.iopub, "display_data", content, parent={"msg_id": "it"}, ident=b"display_data")
        wait_while_nothing_else_runs(talk.client.iopub_channel.socket)
        talk.link.fail(connection.ConnectionLost(), patience=0.0)

        with pytest.raises(connection.ConnectionLost):
            await talk.client.iopub_channel.get_msg()


async def test_a_call_that_ends_its_kernel(tmp_path: Path) -> None:
    """What a call has put out is complete, though its kernel has ended before it was read."""
    async with talking(tmp_path) as talk:
        talk.link.has_two_readers = False
        line = Line(Opened(client=talk.client, link=talk.link, language_info={}), MIB, takes_requests=True)
        answering = asyncio.create_task(line.execute("exit()"))
        await begin_to_wait(answering)
        assert talk.shell.poll(DEADLINE)
        names, parts = talk.session.feed_identities(talk.shell.recv_multipart())
        asked = talk.session.deserialize(parts)
        reply = {"status": "ok", "payload": [{"source": "ask_exit"}]}
        talk.session.send(talk.shell, "execute_reply", reply, parent=asked, ident=names)
        for _ in range(NUMBER):
            content = {"data": {"text/plain": "1"}, "metadata": {}}
            talk.session.send(talk.iopub, "display_data", content, parent=asked, ident=b"display_data")
        talk.session.send(talk.iopub, "status", {"execution_state": "idle"}, parent=asked, ident=b"status")
        talk.shell.close()
        talk.iopub.close()
        line.lose("the kernel died")
        with anyio.fail_after(DEADLINE / 1000):
            heard = await answering

        assert len(heard.shown) == NUMBER
        assert heard.is_complete


async def test_nothing_left_to_execute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is to start no further cell has executed all where only texts and empty cells are left."""
    cells = [
        nbformat.v4.new_code_cell("1"),
        nbformat.v4.new_code_cell(""),
        nbformat.v4.new_markdown_cell("x"),
    ]
    execution = execute.Execution(
        notebook=nbformat.v4.new_notebook(cells=cells), connection_info={}, limits=LIMITS
    )

    async def end(*_: Any) -> tuple[dict[str, Any], None]:
        execution.stop()
        return {"status": "ok"}, None

    monkeypatch.setattr(execute, "_run_cell", end)
    runner: Any = SimpleNamespace(tell_cell=lambda *_: None)
    opened = Opened(client=None, link=execution.link, language_info={})
    await execute._run_cells(runner, execution, opened, is_all=True)

    assert execution.has_run_cells


def losses(*numbers: int, cells: int = 0) -> connection.Losses:
    """What is noticed after messages with these numbers."""
    seen = connection.Losses()
    seen.capacity = 0
    for number in numbers:
        seen.saw(f"abc_77_{number}")
    for _ in range(cells):
        seen.ended_cell()
    return seen


def test_no_gap() -> None:
    """Numbers in a row, in any order, are no loss."""
    assert not losses(3, 5, 4).any


def test_gap() -> None:
    """A number that is missing is a loss."""
    assert losses(3, 5).any


def test_gap_of_a_value_that_shows_itself() -> None:
    """One number a cell may be spent on nothing; the second is a loss."""
    assert not losses(3, 5, cells=1).any
    assert losses(3, 6, cells=1).any


def test_gap_of_a_reply_to_somebody_else() -> None:
    """A request of another client takes one number that we do not see."""
    seen = losses(3, 5)
    seen.saw_other("somebody")
    seen.saw_other("somebody")

    assert not seen.any


def test_gap_before_anything_can_be_dropped() -> None:
    """A kernel drops nothing before more messages wait than it keeps: until then gaps are something else."""
    seen = connection.Losses()
    for number in range(0, 1998, 2):
        seen.saw(f"abc_77_{number}")
    assert not seen.any
    seen.saw("abc_77_1998")
    assert seen.any


def test_gap_of_what_was_asked_before() -> None:
    """A late answer to a request from before is none of what is counted."""
    seen = losses(3, 4, 5)
    seen.restart()
    for number in (1, 2, 6, 7):
        seen.saw(f"abc_77_{number}")

    assert not seen.any


def test_series_are_counted_apart() -> None:
    """A process that the kernel forked counts for itself."""
    seen = losses(3, 4)
    seen.saw("abc_78_4000")

    assert not seen.any


def test_ids_of_another_form() -> None:
    """Kernels that do not number their messages cannot lose any that we would notice."""
    seen = connection.Losses()
    seen.saw("f3b8c6e0-0000-4000-8000-000000000001")
    seen.saw("")

    assert not seen.any
