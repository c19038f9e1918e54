"""The background loop runs things apart from the caller's, lets the caller's go first, and ends."""

from __future__ import annotations

import asyncio
import threading

import pytest

from jupyter_nbexec import background

pytestmark = pytest.mark.anyio


async def test_submit_and_stop() -> None:
    """A coroutine runs in the other thread; stopping ends the thread, and again does nothing."""

    async def where() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    loop = background.BackgroundLoop("elsewhere")

    assert await asyncio.wrap_future(loop.submit(where())) == "elsewhere"
    await asyncio.to_thread(loop.stop)
    loop.stop()
    assert "elsewhere" not in {thread.name for thread in threading.enumerate()}


async def test_stop_ends_what_runs() -> None:
    """What still runs is cancelled, not dropped."""
    ended = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    loop = background.BackgroundLoop("elsewhere")
    future = loop.submit(wait())
    await asyncio.to_thread(loop.stop)

    assert ended.is_set()
    assert future.cancelled()


async def test_the_caller_goes_first() -> None:
    """A turn ends only when the caller's loop has done what there was to do."""
    done: list[str] = []

    async def work() -> None:
        background.turns.end()
        done.append("elsewhere")

    loop = background.BackgroundLoop("elsewhere")
    future = loop.submit(work())
    asyncio.get_running_loop().call_soon(done.append, "here")
    await asyncio.wrap_future(future)
    await asyncio.to_thread(loop.stop)

    assert done == ["here", "elsewhere"]


def test_a_thread_that_serves_nobody() -> None:
    """Where there is no other loop, nobody is waited for."""
    assert background.turns.first is None
    background.turns.end()

    assert not background.turns.is_over
