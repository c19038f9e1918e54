"""What the connection drops, joins and notices, without a kernel where that is possible."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
import zmq
import zmq.asyncio
from jupyter_client.session import Session

from jupyter_nbexec import execute
from jupyter_nbexec.kernels import connection

pytestmark = pytest.mark.anyio
#: Milliseconds that anything may take.
DEADLINE = 20_000


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


async def test_silence_counts_from_when_it_is_listened_for() -> None:
    """A loop that had no time to listen has not heard silence."""
    limits = execute.Limits(output_bytes=1, outputs=1, result_bytes=1, start_timeout=1.0, result_timeout=1.0)
    execution = execute.Execution(notebook=nbformat.v4.new_notebook(), connection_info={}, limits=limits)
    execution.link.heard = time.monotonic() - 60
    giving_up = asyncio.create_task(execution.abandon())
    await begin_to_wait(giving_up)
    assert execution.link.failure is None
    await giving_up

    assert execution.link.failure is not None


def losses(*numbers: int, cells: int = 0) -> connection.Losses:
    """What is noticed after messages with these numbers."""
    seen = connection.Losses()
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
