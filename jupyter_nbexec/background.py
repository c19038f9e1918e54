"""Threads of our own, for work that would hold up the server's event loop: a few that work, one with a loop.

asyncio's default threads are everybody's: what waits there for us keeps Jupyter itself waiting, and Python
waits for them before a process ends. Ours are few, and end with the process, whatever they are doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent import futures
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

#: Bytes that are worked on faster than a thread is woken; and the size of what nobody has measured.
SMALL, UNKNOWN_SIZE = 32 * 1024, 1 << 62

#: Seconds of work after which a background thread lets the server's loop go first, and for how long at most.
TURN, PATIENCE = 0.001, 0.1
#: Times that the server's loop then looks for what there is to do: an answer takes several steps.
ROUNDS = 3
#: Seconds that `stop` gives what still runs to end.
FAREWELL = 5.0


#: Threads that work, at most. More would only contend for the interpreter, with the server's loop too.
WORKERS = 4


class Pool:
    """Some threads, started as they are needed. They do not keep the process from its end."""

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size = name, size
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0
        self._is_stopped = False
        self._starting = threading.Lock()

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a function called in one of them. What is cancelled before its turn is not called."""
        future: Future[T] = Future()
        context = contextvars.copy_context()
        with self._starting:
            if self._is_stopped:
                raise RuntimeError(f"{self._name}: it has been stopped")
            self._waiting.put((future, lambda: context.run(function, *args, **kwargs)))
            if not self._idle.acquire(blocking=False) and self._started < self._size:
                name = f"{self._name}-{self._started}"
                self._started += 1
                threading.Thread(target=self._work, name=name, daemon=True).start()
        return future

    def stop(self) -> None:
        """Have the threads end when they have done what waits for them. Nobody waits for that."""
        with self._starting:
            self._is_stopped = True
            for _ in range(self._started):
                self._waiting.put(None)

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            _call(*work)
            # What it was about is not kept until there is something else to do.
            del work
            self._idle.release()


def _call(future: Future[T], function: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as error:  # whatever it is, it is for who waits
        future.set_exception(error)
    else:
        future.set_result(result)


_pool = Pool("jupyter_nbexec-work", WORKERS)


async def run(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in one of our threads: what takes no more than linear time, and waits for nobody.

    What waits has its place in a request or a run, whose numbers are bounded.
    """
    return await asyncio.wrap_future(_pool.submit(function, *args, **kwargs))


async def offload(size: int, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function like `run`, unless what it works on has so few bytes that a thread would cost more."""
    if size <= SMALL:
        return function(*args, **kwargs)
    return await run(function, *args, **kwargs)


class Turns(threading.local):
    """Has a thread that is busy without end let another thread's event loop have the interpreter.

    To sleep is not enough. On a machine whose processors are all busy the other thread is woken too late
    to find the interpreter free, again and again: one second and more was measured. So this waits until
    the other loop has had its turn.
    """

    #: The loop that goes first; None in threads that serve no other.
    first: asyncio.AbstractEventLoop | None = None
    _end = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the thread has had its turn."""
        return time.thread_time() >= self._end

    def end(self) -> None:
        """Wait until the other loop has had its turn. This thread's own loop stands still meanwhile."""
        if self.first is not None:
            passed = threading.Event()
            with contextlib.suppress(RuntimeError):  # it is closed
                self.first.call_soon_threadsafe(_pass, self.first, passed, ROUNDS)
                passed.wait(PATIENCE)
        self._end = time.thread_time() + TURN


turns = Turns()


def _pass(loop: asyncio.AbstractEventLoop, passed: threading.Event, rounds: int) -> None:
    if rounds > 0:
        loop.call_soon(_pass, loop, passed, rounds - 1)
    else:
        passed.set()


class BackgroundLoop:
    """An event loop in a thread. `stop` ends both; until then both are there."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on this loop. From another event loop, which goes first from now on."""
        self._loop.call_soon_threadsafe(setattr, turns, "first", asyncio.get_running_loop())
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def stop(self) -> bool:
        """End the loop and its thread; what still runs there is cancelled.

        Whether it has ended: a thread that is stuck is left behind, rather than keep the server from its end.
        """
        if self._loop.is_closed():
            return True
        try:
            asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result(2 * FAREWELL)
        except futures.TimeoutError:
            return False
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(FAREWELL)
        if self._thread.is_alive():
            return False
        self._loop.close()
        return True


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=FAREWELL)
