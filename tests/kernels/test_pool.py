"""What a pool makes ahead, gives away once, replaces, and lets go of; with real kernels, and without."""

from __future__ import annotations

import ast
import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from jupyter_nbexec import execute, kernels, opening
from jupyter_nbexec.kernels import managed, pool

pytestmark = pytest.mark.anyio

LIMITS = execute.Limits(
    output_bytes=1 << 20, outputs=100, result_bytes=1 << 20, start_timeout=60, result_timeout=3
)


class Workshop:
    """Makes numbered things, as fast as the test lets it."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.discarded: list[str] = []
        self.dead: set[str] = set()
        self.broken: Exception | None = None
        self.at_once = self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def make(self, key: str) -> str:
        """Make one, when the gate is open."""
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            if self.broken is not None:
                raise self.broken
            self.made.append(f"{key}{len(self.made)}")
            return self.made[-1]
        finally:
            self.at_once -= 1

    async def is_good(self, item: str) -> bool:
        """Whether the test has not said it is dead."""
        return item not in self.dead

    async def discard(self, item: str) -> None:
        """Note it."""
        self.discarded.append(item)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    with anyio.fail_after(60):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def workshop() -> Workshop:
    """Where things are made."""
    return Workshop()


@pytest.fixture
async def make_pool(workshop: Workshop) -> AsyncIterator[Callable[..., pool.Pool[str, str]]]:
    """Make pools, whose keys are letters, of one family unless said; they are stopped afterwards."""
    pools: list[pool.Pool[str, str]] = []

    def make(capacity: int = 2, **settings: Any) -> pool.Pool[str, str]:
        usual: dict[str, Any] = {"idle_timeout": 0.0, "kept": 1, "at_once": 1}
        usual |= {"family": lambda _: "letters", "log": logging.getLogger("test")}
        made: pool.Pool[str, str] = pool.Pool(workshop, capacity=lambda _: capacity, **{**usual, **settings})
        pools.append(made)
        return made

    yield make
    workshop.gate.set()
    for each in pools:
        await each.stop()


async def test_each_is_used_once(workshop: Workshop, make_pool: Callable[..., Any]) -> None:
    """What is taken is replaced, and never given again."""
    shelf = make_pool()
    shelf.fill("a", 2)
    given = []
    for _ in range(5):
        await until(lambda: shelf.ready == 2)
        given.append(await shelf.take("a"))

    assert len(set(given)) == 5
    await until(lambda: shelf.ready == 2)
    assert len(workshop.made) == 7


async def test_rest(
    workshop: Workshop, make_pool: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as enough are left, one is made only when nobody has taken any for a while."""
    monkeypatch.setattr(pool, "REST", 1000.0)
    shelf = make_pool(capacity=4, at_once=4)
    shelf.fill("a", 4)
    await until(lambda: shelf.ready == 4)
    for _ in range(2):
        await shelf.take("a")
    await asyncio.sleep(0)

    assert workshop.at_once == 0
    monkeypatch.setattr(pool, "REST", 0.05)
    workshop.gate.clear()
    await shelf.take("a")
    await until(lambda: workshop.at_once == 3)
    workshop.gate.set()
    await until(lambda: shelf.ready == 4)


async def test_rest_ends_by_itself(
    workshop: Workshop, make_pool: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was put off is made though nobody asks again."""
    monkeypatch.setattr(pool, "REST", 0.05)
    shelf = make_pool(capacity=4)
    shelf.fill("a", 4)
    await until(lambda: shelf.ready == 4)
    await shelf.take("a")

    await until(lambda: len(workshop.made) == 5)


async def test_rest_holds_up_no_other(
    workshop: Workshop, make_pool: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another family lacks is made at once, whoever rests."""
    monkeypatch.setattr(pool, "REST", 1000.0)
    shelf = make_pool(capacity=4, family=lambda key: key)
    shelf.fill("a", 4)
    await until(lambda: shelf.ready == 4)
    await shelf.take("a")
    assert await shelf.take("b") is None
    await until(lambda: workshop.made[4:] == ["b4", "b5"])


async def test_learning(workshop: Workshop, make_pool: Callable[..., Any]) -> None:
    """What was asked for and not there is made for the next time, up to the capacity."""
    shelf = make_pool(capacity=3)

    assert await shelf.take("a") is None
    await until(lambda: shelf.ready == 2)
    assert await shelf.take("a") == ("a", "a0")
    await until(lambda: shelf.ready == 2)
    assert [await shelf.take("a") for _ in range(3)].count(None) == 1
    await until(lambda: shelf.ready == 3)


async def test_room(workshop: Workshop, make_pool: Callable[..., Any]) -> None:
    """One for a new key takes the place of the one whose key was not asked for longest."""
    shelf = make_pool(capacity=2)
    shelf.fill("a", 1)
    shelf.fill("b", 1)
    await until(lambda: shelf.ready == 2)

    assert await shelf.take("c") is None
    await until(lambda: shelf.ready == 2)
    assert workshop.discarded == ["a0"]
    assert await shelf.take("c") == ("c", "c2")


async def test_another_will_do(workshop: Workshop, make_pool: Callable[..., Any]) -> None:
    """One made for another key is taken where it fits, and replaced by one for this key."""
    shelf = make_pool(capacity=1)
    shelf.fill("a", 1)
    await until(lambda: shelf.ready == 1)

    assert await shelf.take("b", or_one_for=lambda key: key == "a") == ("a", "a0")
    await until(lambda: shelf.ready == 1)
    assert await shelf.take("b") == ("b", "b1")


async def test_the_dead_are_replaced(workshop: Workshop, make_pool: Callable[..., Any]) -> None:
    """One that dies while it waits is noticed before it is asked for, and never given."""
    shelf = make_pool(capacity=1)
    shelf.fill("a", 1)
    await until(lambda: shelf.ready == 1)
    workshop.dead.add("a0")
    await until(lambda: workshop.made == ["a0", "a1"])
    assert workshop.discarded == ["a0"]

    workshop.dead.add("a1")
    assert await shelf.take("a") in (None, ("a", "a2"))


async def test_idle_ones_go(workshop: Workshop, make_pool: Callable[..., Any], monkeypatch: Any) -> None:
    """Those nobody asks for go after a while, but for the last."""
    monkeypatch.setattr(pool, "TICK", 0.01)
    shelf = make_pool(capacity=3, idle_timeout=0.05)
    shelf.fill("a", 2)
    shelf.fill("b", 1)

    await until(lambda: len(workshop.discarded) == 2)
    await asyncio.sleep(0.05)
    assert shelf.ready == 1


async def test_failure(
    workshop: Workshop, make_pool: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be made is tried again after a pause, which grows, and told once."""
    workshop.broken = ValueError("no kernel")
    shelf = make_pool()
    shelf.fill("a", 2)
    await until(lambda: not shelf._making and not shelf._orders)

    assert [record.message for record in caplog.records] == [
        "nothing can be made ready for letters: no kernel"
    ]
    workshop.broken = None
    assert await shelf.take("a") is None
    await until(lambda: not shelf._making and not shelf._orders)
    assert workshop.made == []

    shelf._failures["letters"] = (1, 0.0)
    assert await shelf.take("a") is None
    await until(lambda: shelf.ready == 2)


async def test_few_at_once(workshop: Workshop, make_pool: Callable[..., Any]) -> None:
    """No more are made at the same time than may be."""
    shelf = make_pool(capacity=9, at_once=2)
    workshop.gate.clear()
    shelf.fill("a", 9)
    await until(lambda: workshop.at_once == 2)
    workshop.gate.set()
    await until(lambda: shelf.ready == 9)

    assert workshop.most_at_once == 2


async def test_forgetting(workshop: Workshop, make_pool: Callable[..., Any]) -> None:
    """What is forgotten goes, also what was being made."""
    shelf = make_pool(capacity=2)
    shelf.fill("a", 1)
    await until(lambda: shelf.ready == 1)
    workshop.gate.clear()
    shelf.fill("a", 1)
    await until(lambda: workshop.at_once == 1)
    shelf.forget(lambda key: key == "a")
    workshop.gate.set()

    await until(lambda: sorted(workshop.discarded) == ["a0", "a1"])
    assert shelf.ready == 0


async def test_stop(workshop: Workshop, make_pool: Callable[..., Any]) -> None:
    """When it has stopped, all is gone, and nothing more is made; what is being made holds nobody up."""
    shelf = make_pool(capacity=2)
    shelf.fill("a", 1)
    await until(lambda: shelf.ready == 1)
    workshop.gate.clear()
    shelf.fill("a", 1)
    await until(lambda: workshop.at_once == 1)
    with anyio.fail_after(60):
        await shelf.stop()
    workshop.gate.set()
    shelf.fill("a", 1)

    assert (workshop.at_once, workshop.discarded, workshop.made) == (0, ["a0"], ["a0"])
    assert workshop.at_once == 0


async def test_cancelled_while_it_is_looked_at(
    workshop: Workshop, make_pool: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is taken by somebody who is cancelled before they have it is thrown away, not lost."""
    shelves = make_pool()
    shelves.fill("a", 1)
    await until(lambda: shelves.ready == 1)
    looking = asyncio.Event()

    async def look(_item: str) -> bool:
        looking.set()
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr(workshop, "is_good", look)
    taking = asyncio.create_task(shelves.take("a"))
    await looking.wait()
    taking.cancel()
    await asyncio.wait({taking})
    await shelves.stop()

    assert workshop.discarded == ["a0"]


@pytest.fixture
async def opener() -> AsyncIterator[opening.Opener]:
    """Talks to kernels."""
    made = opening.Opener(LIMITS)
    yield made
    await made.stop()


@pytest.fixture
async def warm(kernel_manager: Any, opener: opening.Opener) -> AsyncIterator[pool.FreshSource]:
    """A source with two Python kernels ready."""
    starter = managed.Starter(kernel_manager, scrubbed_env=["PYTEST_CURRENT_TEST"], niceness=0)
    made = pool.FreshSource(starter, opener=opener, sizes={"python3": 2}, at_once=2)
    await made.start()
    yield made
    await made.stop()


async def ready(source: pool.FreshSource, number: int) -> list[managed.ManagedKernel]:
    """Wait until so many kernels are ready; these."""
    shelves = source._pool
    assert shelves is not None
    await until(lambda: shelves.ready == number)
    return [kernel for shelf in shelves._shelves.values() for kernel in shelf.items]


async def value(opener: opening.Opener, kernel: kernels.LeasedKernel, expression: str) -> str:
    """Evaluate an expression in a kernel that has executed nothing; its `repr`."""
    assert kernel.opened is not None
    asked = {"it": expression}
    reply = await opener.submit(execute._ask(kernel.opened.client, asked, 10.0))
    assert reply is not None
    return str(reply["user_expressions"]["it"]["data"]["text/plain"])


async def close(opener: opening.Opener, kernel: kernels.LeasedKernel) -> None:
    """Let go of a kernel, as a run does."""
    assert kernel.opened is not None
    await opener.close(kernel.opened)


async def test_warm_kernel(
    warm: pool.FreshSource, opener: opening.Opener, kernel_manager: Any, tmp_path: Path
) -> None:
    """A kernel that is ready is nobody's, in no list, and then the run's alone; another takes its place."""
    (tmp_path / "folder").mkdir()
    waiting = await ready(warm, 2)
    assert kernel_manager.list_kernel_ids() == []

    request = kernels.KernelRequest(name="python3", path="folder", session_name="folder/a.ipynb")
    async with warm.lease(request) as kernel:
        assert kernel in waiting
        assert kernel.source == "warm"
        assert kernel.id in kernel_manager.list_kernel_ids()
        census = "(__import__('os').getcwd(), '' in __import__('sys').path, __session__, _dh, In, Out)"
        folder = str(tmp_path / "folder")
        said = await value(opener, kernel, census)
        assert ast.literal_eval(said) == (folder, True, "folder/a.ipynb", [folder], [""], {})
        assert await value(opener, kernel, "__import__('os').environ['JPY_SESSION_NAME']") == (
            "'folder/a.ipynb'"
        )
        await close(opener, kernel)

    await ready(warm, 2)
    assert kernel_manager.list_kernel_ids() == []
    homes = [place for place, shelf in warm._pool._shelves.items()]  # type: ignore[union-attr]
    assert pool.Place("python3", "folder", "folder/a.ipynb") in homes


async def test_kernels_with_an_environment_are_cold(warm: pool.FreshSource) -> None:
    """Whoever brings variables gets a kernel that has started with them."""
    await ready(warm, 2)
    async with warm.lease(kernels.KernelRequest(name="python3", env={"SEEN": "1"})) as kernel:
        assert kernel.source == "cold"


async def test_a_warm_kernel_that_dies(warm: pool.FreshSource, kernel_manager: Any) -> None:
    """One that is killed while it waits is replaced, and its processes and files are gone."""
    first, _ = await ready(warm, 2)
    process = psutil.Process(first.manager.provisioner.pid)
    file = first.manager.connection_file
    os.kill(process.pid, 9)
    await until(lambda: first not in [k for s in warm._pool._shelves.values() for k in s.items])  # type: ignore[union-attr]
    await ready(warm, 2)

    await until(lambda: not Path(file).exists())
    assert not process.is_running()


async def test_nothing_is_left(kernel_manager: Any, opener: opening.Opener) -> None:
    """When the source has stopped, its kernels are gone, those that were being started as well."""
    before = set(psutil.Process().children(recursive=True))
    starter = managed.Starter(kernel_manager, scrubbed_env=[], niceness=0)
    source = pool.FreshSource(starter, opener=opener, sizes={"python3": 3}, at_once=1)
    await source.start()
    await ready(source, 1)
    await source.stop()

    assert kernel_manager.list_kernel_ids() == []
    assert set(psutil.Process().children(recursive=True)) <= before
