"""Kernels that are ready before anybody asks for them. Each is used once, and replaced."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from jupyter_nbexec import kernels
from jupyter_nbexec.kernels import managed
from jupyter_nbexec.kernels.opened import Opened

#: Seconds between looks at those that wait: for the dead, and the idle.
TICK = 1.0
#: Seconds after one was taken before another is made, as long as more than a quarter are left: whoever has
#: taken it is likely to need the processors.
REST = 0.1
#: Seconds before another try after one that failed, at first and at most.
BACK_OFF, MAX_BACK_OFF = 1.0, 300.0

Key = TypeVar("Key", bound=Hashable)
KeyIn = TypeVar("KeyIn", bound=Hashable, contravariant=True)
Item = TypeVar("Item")


class Maker(Protocol[KeyIn, Item]):
    """Makes what a pool keeps."""

    async def make(self, key: KeyIn) -> Item:
        """Make one. May raise anything."""

    async def is_good(self, item: Item) -> bool:
        """Whether it may still be used; called every second."""

    async def discard(self, item: Item) -> None:
        """Throw one away that nobody has used."""


@dataclass
class _Shelf(Generic[Item]):
    """What is ready for one key, the oldest first."""

    items: deque[Item]
    used: float  #: when it was last asked for
    number: int = 0  #: being made, or about to be


class Pool(Generic[Key, Item]):
    """Things that take time to make, made ahead of need. On the server's event loop.

    It learns from what is asked for: whatever is taken is replaced, and what was not there is made for the
    next time. There are at most `capacity` of a family; one more for a key takes the place of the one whose
    key was not asked for longest. Those of keys not asked for in `idle_timeout` seconds go (0: they stay),
    but for the last `kept` of a family.
    """

    def __init__(
        self,
        maker: Maker[Key, Item],
        *,
        capacity: Callable[[Key], int],
        family: Callable[[Key], Hashable],
        idle_timeout: float,
        kept: int,
        at_once: int,
        log: logging.Logger | logging.LoggerAdapter[Any],
    ) -> None:
        """`at_once`: how many are made at the same time, so that running work is not starved."""
        self._maker = maker
        self._capacity = capacity
        self._family = family
        self._idle_timeout = idle_timeout
        self._kept = kept
        self._at_once = at_once
        self._log = log
        self._shelves: OrderedDict[Key, _Shelf[Item]] = OrderedDict()  # last asked for: last
        self._orders: deque[Key] = deque()
        self._making: set[asyncio.Task[None]] = set()
        self._rests_until = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._discarding: set[asyncio.Task[None]] = set()
        self._janitor: asyncio.Task[None] | None = None
        self._failures: dict[Hashable, tuple[int, float]] = {}
        self._is_stopped = False

    @property
    def ready(self) -> int:
        """How many wait to be used."""
        return sum(len(shelf.items) for shelf in self._shelves.values())

    def fill(self, key: Key, number: int) -> None:
        """Have this many made for a key, as far as there is room."""
        for _ in range(number):
            self._order(key)

    async def take(
        self, key: Key, *, or_one_for: Callable[[Key], bool] = lambda _: False
    ) -> tuple[Key, Item] | None:
        """Take one made for this key, or else one for another of its family that will do; it is replaced.

        None if none is ready, which is remembered.
        """
        shelf = self._ask_for(key)
        others = [k for k in self._shelves if k != key and self._family(k) == self._family(key)]
        taken = None
        for each in (key, *filter(or_one_for, others)):
            item = await self._take_from(self._shelves.get(each, shelf))
            if item is not None:
                taken = each, item
                self._rests_until = time.monotonic() + REST
                break
        self._order(key)
        if taken is None:
            self._order(key)
        return taken

    def forget(self, fits: Callable[[Key], bool]) -> None:
        """Throw away all whose key fits, those that are being made included."""
        for key in [key for key in self._shelves if fits(key)]:
            shelf = self._shelves.pop(key)
            for item in shelf.items:
                self.discard(item)
        self._orders = deque(key for key in self._orders if not fits(key))

    async def stop(self) -> None:
        """Throw all away, and wait until it is."""
        self._is_stopped = True
        self._orders.clear()
        if self._janitor is not None:
            self._janitor.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        for task in self._making:
            task.cancel()
        while self._making:
            await asyncio.wait(self._making)
        self.forget(lambda _: True)
        while self._discarding:
            await asyncio.wait(self._discarding)

    def _ask_for(self, key: Key) -> _Shelf[Item]:
        shelf = self._shelves.setdefault(key, _Shelf(deque(), 0.0))
        shelf.used = time.monotonic()
        self._shelves.move_to_end(key)
        return shelf

    async def _take_from(self, shelf: _Shelf[Item]) -> Item | None:
        while shelf.items:
            item = shelf.items.popleft()
            is_good = False
            try:
                is_good = await self._maker.is_good(item)
            finally:
                # Also if who asks for it has been cancelled meanwhile.
                if not is_good:
                    self.discard(item)
            if is_good:
                return item
        return None

    def _order(self, key: Key) -> None:
        """Have one made for a key, if there is room, or can be."""
        if self._is_stopped or self._capacity(key) <= 0 or not self._make_room(key):
            return
        shelf = self._shelves.setdefault(key, _Shelf(deque(), time.monotonic()))
        shelf.number += 1
        self._orders.append(key)
        self._work()

    def _make_room(self, key: Key) -> bool:
        relatives = self._relatives(key)
        if _number(relatives) < self._capacity(key):
            return True
        own = self._shelves.get(key)
        if own is not None and (own.items or own.number):
            return False
        for shelf in relatives:
            if shelf.items:
                self.discard(shelf.items.popleft())
                return True
        return False

    def _relatives(self, key: Key) -> list[_Shelf[Item]]:
        family = self._family(key)
        return [shelf for other, shelf in self._shelves.items() if self._family(other) == family]

    def _work(self) -> None:
        if self._janitor is None or self._janitor.done():
            self._janitor = asyncio.create_task(self._look_after(), name="jupyter_nbexec pool")
        while self._orders and len(self._making) < self._at_once:
            rest = self._rests_until - time.monotonic()
            key = next((key for key in self._orders if rest <= 0 or not self._has_enough(key)), None)
            if key is None:
                self._work_later(rest)
                return
            self._orders.remove(key)
            task = asyncio.create_task(self._make(key))
            self._making.add(task)
            task.add_done_callback(self._made)

    def _has_enough(self, key: Key) -> bool:
        """Whether more than a quarter of what there may be of a family is ready."""
        return 4 * sum(len(shelf.items) for shelf in self._relatives(key)) > self._capacity(key)

    def _work_later(self, seconds: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(seconds, self._work)

    def _made(self, task: asyncio.Task[None]) -> None:
        self._making.discard(task)
        if not self._is_stopped:
            self._work()

    async def _make(self, key: Key) -> None:
        shelf = self._shelves.get(key)
        try:
            if shelf is None or self._is_blocked(key):
                return
            item = await self._maker.make(key)
        except Exception as error:
            self._note_failure(key, error)
            return
        finally:
            if shelf is not None:
                shelf.number -= 1
        self._failures.pop(self._family(key), None)
        # It may have been forgotten, or all may have been stopped, while it was made.
        if self._is_stopped or self._shelves.get(key) is not shelf:
            self.discard(item)
        else:
            shelf.items.append(item)

    def _is_blocked(self, key: Key) -> bool:
        return time.monotonic() < self._failures.get(self._family(key), (0, 0.0))[1]

    def _note_failure(self, key: Key, error: Exception) -> None:
        """Try again later; say so the first time."""
        count = self._failures.get(self._family(key), (0, 0.0))[0] + 1
        delay = min(BACK_OFF * 2 ** (count - 1), MAX_BACK_OFF)
        self._failures[self._family(key)] = count, time.monotonic() + delay
        if count == 1:
            self._log.warning("nothing can be made ready for %s: %s", self._family(key), error)

    def discard(self, item: Item) -> None:
        """Throw one away; `stop` waits for that, and nobody else."""
        task = asyncio.create_task(self._maker.discard(item))
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)

    async def _look_after(self) -> None:
        """Replace the dead, and let go of those that nobody asks for; ends when there is nothing left."""
        while self._shelves:
            await asyncio.sleep(TICK)
            for key, shelf in list(self._shelves.items()):
                if self._idle_timeout and time.monotonic() - shelf.used > self._idle_timeout:
                    self._shrink(key, shelf)
                for item in list(shelf.items):
                    if not await self._maker.is_good(item) and item in shelf.items:
                        shelf.items.remove(item)
                        self.discard(item)
                        self._order(key)

    def _shrink(self, key: Key, shelf: _Shelf[Item]) -> None:
        while shelf.items and _number(self._relatives(key)) > self._kept:
            self.discard(shelf.items.popleft())
        if not shelf.items and not shelf.number:
            del self._shelves[key]


def _number(shelves: list[_Shelf[Any]]) -> int:
    """How many there are, or will be."""
    return sum(len(shelf.items) + shelf.number for shelf in shelves)


@dataclass(frozen=True)
class Place:
    """Where a kernel is at home: its kernelspec, the contents path of its folder, and its notebook's name."""

    name: str
    path: str
    session_name: str


class Opener(Protocol):
    """Talks to kernels ahead of their runs."""

    async def open(self, kernel: kernels.LeasedKernel) -> Opened:
        """Connect to it, and wait until it answers. Raises what `execute.open_kernel` does."""

    async def enter(self, opened: Opened, folder: str, session_name: str) -> bool:
        """Have it go to another folder, as if it had been started there; whether it could."""

    async def close(self, opened: Opened) -> None:
        """Let go of it."""


class WarmKernels:
    """Makes kernels ready for their run: started, connected, and out of sight."""

    def __init__(self, starter: managed.Starter, opener: Opener) -> None:
        self._starter = starter
        self._opener = opener
        self._movable: dict[str, bool] = {}

    async def make(self, place: Place) -> managed.ManagedKernel:
        """Start a kernel and wait until it answers. Raises KernelStartError, and what opening one does."""
        request = kernels.KernelRequest(name=place.name, path=place.path, session_name=place.session_name)
        kernel = await self._starter.start(request)
        try:
            kernel.hide()
            kernel.opened = await self._opener.open(kernel)
        except BaseException:
            await self.discard(kernel)
            raise
        kernel.is_warm = True
        self._movable[place.name] = kernel.opened.has_steward
        return kernel

    async def is_good(self, kernel: managed.ManagedKernel) -> bool:
        """Whether it lives."""
        kernel.touch()
        return await kernel.death() is None

    async def discard(self, kernel: managed.ManagedKernel) -> None:
        """End a kernel that nobody has used: it has nothing to lose."""
        if kernel.opened is not None:
            await self._opener.close(kernel.opened)
        kernel.show()
        await kernel.kill()
        await self._starter.end(kernel)

    def can_move(self, place: Place) -> bool:
        """Whether kernels of this place can go elsewhere."""
        return self._movable.get(place.name, False)

    async def move(self, kernel: managed.ManagedKernel, folder: str, session_name: str) -> bool:
        """Have a kernel go elsewhere, as if it had been started there; whether it could."""
        return kernel.opened is not None and await self._opener.enter(kernel.opened, folder, session_name)


class FreshSource:
    """Gives every run a kernel that nobody has used: one that is ready, or one started for it."""

    def __init__(
        self,
        starter: managed.Starter,
        *,
        opener: Opener | None = None,
        sizes: Mapping[str, int] | None = None,
        idle_timeout: float = 0.0,
        at_once: int = 1,
        log: logging.Logger | logging.LoggerAdapter[Any] | None = None,
    ) -> None:
        """`sizes`: how many kernels of each kernelspec are to be ready; without it, and an opener, none."""
        self._starter = starter
        self._sizes = dict(sizes or {}) if opener is not None else {}
        self._warm = None if opener is None else WarmKernels(starter, opener)
        self._pool: Pool[Place, managed.ManagedKernel] | None = None
        if self._warm is not None and self._sizes:
            self._pool = Pool(
                self._warm,
                capacity=lambda place: self._sizes.get(place.name, 0),
                family=lambda place: place.name,
                idle_timeout=idle_timeout,
                kept=1,
                at_once=at_once,
                log=log or logging.getLogger(__name__),
            )

    async def start(self) -> None:
        """Begin to make kernels ready, once those are there who fork them."""
        await self._starter.start_fork_servers(self._sizes)
        if self._pool is not None:
            for name, number in self._sizes.items():
                self._pool.fill(Place(name, "", ""), number)

    async def stop(self) -> None:
        """End all kernels that nobody uses, and wait for the ends of those that were used."""
        if self._pool is not None:
            await self._pool.stop()
        await self._starter.stop()

    async def take(self, request: kernels.KernelRequest) -> managed.ManagedKernel:
        """Give a kernel away; whoever gets it gives it back to `lend`. Raises KernelStartError."""
        return await self._take_warm(request) or await self._starter.start(request)

    @asynccontextmanager
    async def lease(self, request: kernels.KernelRequest) -> AsyncIterator[managed.ManagedKernel]:
        """Give a kernel for the time of the context; its end has begun when the context is left."""
        async with self.lend(await self.take(request)) as kernel:
            yield kernel

    @asynccontextmanager
    async def lend(self, kernel: managed.ManagedKernel) -> AsyncIterator[managed.ManagedKernel]:
        """Give this kernel for the time of the context, and end it."""
        try:
            yield kernel
        finally:
            await self._starter.end(kernel)

    async def _take_warm(self, request: kernels.KernelRequest) -> managed.ManagedKernel | None:
        if self._pool is None or self._warm is None or request.env or not self._sizes.get(request.name):
            return None
        place = Place(request.name, request.path, request.session_name)
        taken = await self._pool.take(place, or_one_for=self._warm.can_move)
        if taken is None:
            return None
        home, kernel = taken
        is_there = home == place
        try:
            if not is_there:
                folder = await self._starter.folder(request)
                is_there = await self._warm.move(kernel, folder, request.session_name)
        finally:
            # Also if who asks for it has been cancelled meanwhile.
            if not is_there:
                self._pool.discard(kernel)
        if not is_there:
            return None
        kernel.show()
        return kernel
