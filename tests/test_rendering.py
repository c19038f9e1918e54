"""Pages are made by processes of their own: few, bounded, once for all who ask, and gone with the server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from jupyter_nbexec import errors, rendering

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

#: Seconds that anything may take here.
DEADLINE = 60.0


def notebook(html: str = "<b>bold</b>", source: str = "x") -> bytes:
    """A notebook that shows HTML."""
    output = {"output_type": "display_data", "data": {"text/html": html}, "metadata": {}}
    cell = {"cell_type": "code", "source": source, "outputs": [output], "metadata": {}}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


#: A page that takes minutes.
SLOW = notebook("<p>" * 200_000)


def children() -> list[psutil.Process]:
    """The processes that render for this one."""
    found = psutil.Process().children()
    return [each for each in found if "jupyter_nbexec.render" in each.cmdline()]


def is_at_work(process: psutil.Process) -> bool:
    """Whether a process has not ended; one that has may never be collected, as in a container."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(condition: Any) -> None:
    """Wait for what another process does."""
    deadline = asyncio.get_running_loop().time() + DEADLINE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


@pytest.fixture
async def renderer() -> AsyncIterator[rendering.Renderer]:
    """A renderer, whose processes are gone in the end."""
    renderer = rendering.Renderer()
    yield renderer
    await asyncio.wait_for(renderer.stop(), DEADLINE)
    assert children() == []


async def test_once_for_all(renderer: rendering.Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for the same page takes part in the one that is made; it is kept, as long as there is room."""
    asked: list[bytes] = []
    ask = rendering._Process.ask

    def count(process: rendering._Process, sent: bytes) -> tuple[bytes, bytes]:
        asked.append(sent)
        return ask(process, sent)

    monkeypatch.setattr(rendering._Process, "ask", count)
    pages = await asyncio.gather(*(renderer.page("a", notebook(), keep=True) for _ in range(5)))
    assert await renderer.page("a", b"not looked at", keep=True) == pages[0]
    assert b"<b>bold</b>" in pages[0]
    assert len({*pages}) == len(asked) == 1

    await renderer.page("so far", notebook(), keep=False)
    await renderer.page("so far", notebook(), keep=False)
    assert len(asked) == 3
    monkeypatch.setattr(renderer._pages, "_capacity", len(pages[0]) + 100)
    await renderer.page("b", notebook(), keep=True)
    assert (renderer._pages.get("a"), renderer._pages.get("b") is None) == (None, False)
    assert len(children()) == 1


async def test_limits(renderer: rendering.Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large, or too slow, is refused, and not tried again; a fault of ours is told as such."""
    with monkeypatch.context() as patched:
        patched.setattr(rendering, "MAX_NOTEBOOK", 10)
        with pytest.raises(errors.NotAcceptable, match="too large"):
            await renderer.page("large", notebook(), keep=True)
    slow = asyncio.create_task(renderer.page("slow", SLOW, keep=True))
    await until(children)
    # As the operating system does when the time is over, or there is no memory.
    children()[0].kill()
    for _ in range(2):
        with pytest.raises(errors.NotAcceptable, match="too much time or memory"):
            await slow
        slow = asyncio.create_task(renderer.page("slow", b"not looked at", keep=True))
    with pytest.raises(errors.NotAcceptable):
        await slow
    with pytest.raises(RuntimeError, match="JSONDecodeError"):
        await renderer.page("broken", b"{", keep=True)
    with monkeypatch.context() as patched:
        patched.setattr(rendering, "PATIENCE", 0.01)
        with pytest.raises(errors.Overloaded) as raised:
            await renderer.page("busy", SLOW, keep=True)
    assert int(raised.value.headers["Retry-After"]) > 0
    assert b"<b>bold</b>" in await renderer.page("busy", notebook(), keep=True)


async def test_a_process_that_was_ended(renderer: rendering.Renderer) -> None:
    """A process that is ended while it has nothing to do is replaced; the next page is made all the same."""
    await renderer.page("a", notebook(), keep=True)
    (idle,) = renderer._idle
    children()[0].kill()
    await until(lambda: not idle.is_there)

    assert b"<b>bold</b>" in await renderer.page("b", notebook(), keep=True)


async def test_who_goes_away_leaves_room(
    renderer: rendering.Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that nobody waits for is given up; processes, and pages that wait, are no more than allowed."""
    monkeypatch.setattr(rendering, "MAX_WAITING", 3)
    asked = [
        asyncio.create_task(renderer.page(str(number), SLOW, keep=True))
        for number in range(rendering.PROCESSES + 3)
    ]
    await until(lambda: len(children()) == rendering.PROCESSES)
    with pytest.raises(errors.Overloaded):
        await renderer.page("one more", notebook(), keep=True)
    # Another who waits for the same takes no place, and keeps it.
    asked.append(asyncio.create_task(renderer.page("0", SLOW, keep=True)))
    await asyncio.sleep(0)
    first = children()
    for task in asked[:-1]:
        task.cancel()
    await asyncio.wait(asked[:-1])

    assert b"<b>bold</b>" in await renderer.page("mine", notebook(), keep=True)
    assert not asked[-1].done()
    assert sum(map(is_at_work, first)) == 1
    await renderer.stop()
    with pytest.raises(errors.Stopping):
        await asked[-1]
    with pytest.raises(errors.Stopping):
        await renderer.page("late", notebook(), keep=True)


def test_memory_and_time_are_limited() -> None:
    """The process has the limits that it should have, and lets others go first."""
    program = (
        "import os, resource as r; from jupyter_nbexec import render; render._confine(os.getppid());"
        "render._allow(7); print(r.getrlimit(r.RLIMIT_AS)[0], r.getrlimit(r.RLIMIT_CPU)[0], os.nice(0))"
    )
    said = subprocess.check_output([sys.executable, "-c", program], timeout=DEADLINE).split()
    memory, work, niceness = map(int, said)

    assert memory == rendering.MAX_MEMORY
    assert 7 < work < 7 + DEADLINE
    assert niceness > 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends when its time is over")
async def test_gone_with_the_server() -> None:
    """A server that is killed takes with it the process that works for it."""
    program = (
        "import asyncio, sys; from jupyter_nbexec import rendering\n"
        "asyncio.run(rendering.Renderer().page('a', sys.stdin.buffer.read(), keep=True))"
    )
    server = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)  # noqa: ASYNC220
    assert server.stdin is not None
    with server.stdin:
        server.stdin.write(SLOW)
    below: list[psutil.Process] = []

    def has_read() -> bool:
        below[:] = psutil.Process(server.pid).children()
        return any(each.cpu_times().user > 2 for each in below)

    await until(has_read)
    server.kill()
    server.wait(DEADLINE)
    await until(lambda: not any(map(is_at_work, below)))
