"""The background loop runs things apart from the caller's, lets the caller's go first, and ends."""

from __future__ import annotations

import ast
import asyncio
import queue
import subprocess
import sys
import threading
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from jupyter_nbexec import background

pytestmark = pytest.mark.anyio

#: Seconds that anything may take here.
DEADLINE = 60.0

name = ContextVar("name", default="nowhere")


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


class TestPool:
    """Work of ours keeps nobody else from working, and no process from its end."""

    async def test_run(self) -> None:
        """A function is called in a thread of ours, with what it is given and what is so in this task."""
        name.set("here")

        def tell(*args: int, **kwargs: int) -> tuple[Any, ...]:
            return name.get(), args, kwargs, threading.current_thread().name.rpartition("-")[0]

        assert await background.run(tell, 1, b=2) == ("here", (1,), {"b": 2}, "jupyter_nbexec-work")
        with pytest.raises(ZeroDivisionError):
            await background.run(lambda: 1 / 0)

    async def test_is_bounded(self) -> None:
        """There are no more threads than were allowed; what gives up before its turn is never called."""
        pool, opened, called = background.Pool("few", 2), threading.Event(), queue.SimpleQueue[int]()
        busy = [pool.submit(opened.wait, DEADLINE) for _ in range(2)]
        waiting = [pool.submit(called.put, number) for number in range(3)]
        assert waiting[1].cancel()
        opened.set()
        assert all(future.result(DEADLINE) for future in busy)
        for number in (0, 2):
            waiting[number].result(DEADLINE)

        assert {called.get(timeout=DEADLINE), called.get(timeout=DEADLINE)} == {0, 2}
        assert called.empty()
        assert sum(thread.name.startswith("few-") for thread in threading.enumerate()) == 2

    def test_stop(self) -> None:
        """What waits is still done, and then the threads end; nothing more is taken."""
        pool, opened = background.Pool("ending", 2), threading.Event()
        own = [pool.submit(threading.current_thread) for _ in range(2)]
        work = [pool.submit(opened.wait, DEADLINE) for _ in range(5)]
        pool.stop()
        with pytest.raises(RuntimeError, match="ending"):
            pool.submit(int)
        opened.set()

        assert all(future.result(DEADLINE) for future in work)
        for future in own:
            thread = future.result(DEADLINE)
            thread.join(DEADLINE)
            assert not thread.is_alive()

    def test_dies_with_the_process(self) -> None:
        """A process ends though its threads still work, and more wait."""
        program = (
            "import threading; from jupyter_nbexec import background\n"
            "for _ in range(9): background._pool.submit(threading.Event().wait)\n"
        )
        assert subprocess.run([sys.executable, "-c", program], timeout=DEADLINE, check=False).returncode == 0


def test_nothing_of_ours_is_in_the_shared_threads() -> None:
    """No module but this one asks for a thread where it would have one of those that are everybody's."""
    package = Path(background.__file__).parent
    found = [
        (path.relative_to(package).as_posix(), node.lineno)
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in ("to_thread", "getaddrinfo", "run_sync"))
        or (isinstance(node, ast.alias) and node.name == "to_thread")
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "run_in_executor"
            and isinstance(node.args[0], ast.Constant)
        )
        # Its threads are waited for when the process ends.
        or (isinstance(node, ast.alias) and node.name == "ThreadPoolExecutor")
    ]

    # A lookup of its own, in a thread of its own.
    assert [path for path, _ in found] == ["webhooks.py"], found
