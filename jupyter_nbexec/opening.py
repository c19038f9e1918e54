"""Talk to kernels on behalf of those who get them ready, and of runs: the thread and the sockets are here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import zmq.asyncio

from jupyter_nbexec import background, execute, kernels, result
from jupyter_nbexec.kernels import connection
from jupyter_nbexec.kernels.opened import Opened

#: Seconds between looks at whether a kernel that is to answer lives.
TICK = 0.25

T = TypeVar("T")


class Opener:
    """Opens connections to kernels. Used on the server's event loop; all of it happens on another."""

    def __init__(self, limits: execute.Limits) -> None:
        self._limits = limits
        self._background = background.BackgroundLoop("jupyter_nbexec")
        self.context = zmq.asyncio.Context()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run a coroutine where kernels are talked to."""
        return asyncio.wrap_future(self._background.submit(coroutine))

    async def stop(self) -> bool:
        """End the thread, when nobody talks any more; whether it has ended."""
        if not await background.run(self._background.stop):
            return False  # its sockets are in use
        self.context.destroy(linger=0)
        return True

    async def open(self, kernel: kernels.LeasedKernel) -> Opened:
        """Connect to a kernel, and wait until it answers.

        Raises `execute.StartTimeoutError`, and `connection.ConnectionLost` if it dies.
        """
        link = connection.Link(self._limits.output_bytes)
        opening = self.submit(
            execute.open_kernel(
                self.context,
                kernel.connection_info(),
                link,
                start_timeout=self._limits.start_timeout,
                is_owned=kernel.is_owned,
            )
        )
        opened = await watched(opening, kernel, lambda: self.submit(_fail(link)))
        kernel.has_answered = True
        return opened

    async def enter(self, opened: Opened, folder: str, session_name: str) -> bool:
        """Have a kernel that has executed nothing be as if it had been started in this folder."""
        return opened.has_steward and await self.submit(
            execute.evaluate(opened, result.entering(folder, session_name))
        )

    async def close(self, opened: Opened) -> None:
        """Let go of a kernel."""
        await self.submit(_close(opened))


async def watched(
    opening: asyncio.Future[T], kernel: kernels.LeasedKernel, fail: Callable[[], Awaitable[object]]
) -> T:
    """Wait until a kernel has been opened. If it dies before, `fail` is to end that."""
    try:
        while not (await asyncio.wait({opening}, timeout=TICK))[0]:
            if await kernel.death() is not None:
                await fail()
    finally:
        opening.cancel()  # only if it is not over
    return opening.result()


async def _fail(link: connection.Link) -> None:
    link.fail(connection.ConnectionLost())


async def _close(opened: Opened) -> None:
    opened.close()
