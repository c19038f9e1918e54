"""Which version of a notebook is live, and whose kernels are whose, with notebooks that the test plays."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import anyio
import nbformat
import pytest

from jupyter_nbexec import errors, notebooks
from jupyter_nbexec.serving import services

pytestmark = pytest.mark.anyio

DEADLINE = 60.0


class Played:
    """A contents manager with one notebook, and a kitchen in which nothing is ever ready."""

    def __init__(self) -> None:
        self.content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("# GET /x\nprint(1)")])
        self.modified = datetime.now(tz=timezone.utc) - timedelta(hours=1)
        self.state: str | None = None
        self.read: Any = lambda: None
        self.made = 0
        settings = services.Settings(
            state="kernel",
            min_kernels=1,
            max_kernels=1,
            processors=1,
            max_waiting=10,
            timeout=0.0,
            idle_timeout=0.0,
            interrupt_grace=0.0,
            seed_timeout=0.0,
            drain_timeout=0.0,
            limits=SimpleNamespace(start_timeout=0.0),  # type: ignore[arg-type]
        )
        kitchen: Any = self
        self.services = services.Services(
            settings=settings,
            locate=self.locate,
            look=self.look,
            kitchen=kitchen,
            opener=None,  # type: ignore[arg-type]
            log=logging.getLogger("test"),
        )

    async def look(self, path: str) -> notebooks.Look:
        """Look at the notebook, which takes a moment."""
        await asyncio.sleep(0)
        return notebooks.Look(modified=self.modified, size=1)

    async def locate(self, path: str) -> Any:
        """Read the notebook, unless the test has it otherwise."""
        await asyncio.sleep(0.01)
        self.read()
        notebook = SimpleNamespace(
            content=self.content,
            cell_ids=[cell.id for cell in self.content.cells],
            folder="",
            path=path,
            default_timeout=None,
            state=self.state,
            has_unknown_state=False,
        )
        return SimpleNamespace(notebook=notebook, size=1, kernel_name="k", language=None)

    async def make(self, recipe: Any) -> Any:
        """Never be ready."""
        self.made += 1
        await asyncio.Event().wait()

    async def settle(self) -> None:
        """There is nothing to end."""


async def test_read_that_fails_beside_one_that_does_not() -> None:
    """Who waited for a read that failed does not go on with what that has forgotten: there is one service."""
    played = Played()
    failures = iter([errors.NotebookNotFound()])

    def read() -> None:
        for failure in failures:
            raise failure

    played.read = read
    first, second = await asyncio.gather(
        played.services.version("a.ipynb"), played.services._current("a.ipynb"), return_exceptions=True
    )
    assert isinstance(first, errors.NotebookNotFound)
    assert isinstance(second, tuple)
    crew = played.services._crew(*second)
    crew.start(1)
    third = await played.services._current("a.ipynb")

    assert third[0] is second[0]
    assert played.services._crew(*third) is crew
    with anyio.fail_after(DEADLINE):
        await played.services.stop()
    assert crew.is_over


async def test_look_at_what_has_changed() -> None:
    """Who only looks at a notebook that has changed runs nothing of it, and takes no kernel from callers."""
    played = Played()
    played.content.cells.insert(0, nbformat.v4.new_code_cell("x = 1"))
    service, version = await played.services._current("a.ipynb")
    crew = played.services._crew(service, version)
    crew.start(1)
    with anyio.fail_after(DEADLINE):
        while played.made < 1:
            await asyncio.sleep(0)
        played.content.cells[0].source = "x = 2"
        played.modified += timedelta(minutes=1)
        seen = await played.services.version("a.ipynb")
        played.read = unreadable
        played.modified += timedelta(minutes=1)
        with pytest.raises(errors.NotebookNotFound):
            await played.services.version("a.ipynb")
        await asyncio.sleep(0)

        assert "x = 2" in seen.recipe.cells[0]["source"]
        assert service.crew is crew
        assert (played.made, crew.is_retired) == (1, False)
        await played.services.stop()


def unreadable() -> None:
    """Stand for a notebook that is gone."""
    raise errors.NotebookNotFound


async def test_notebook_that_cannot_be_read_for_a_while() -> None:
    """While nobody can tell whether a notebook has changed, its kernels stay, with what they hold."""
    played = Played()
    found = await played.services._current("a.ipynb")
    crew = played.services._crew(*found)
    crew.start(1)

    def fail() -> None:
        raise errors.NotebookUnavailable

    played.read, works = fail, played.read
    played.modified += timedelta(seconds=1)
    with pytest.raises(errors.NotebookUnavailable):
        await played.services.version("a.ipynb")
    played.read = works
    again = await played.services._current("a.ipynb")

    assert played.services._crew(*again) is crew
    with anyio.fail_after(DEADLINE):
        await played.services.stop()


async def test_call_that_comes_as_it_stops() -> None:
    """A call that was on its way when the server began to stop begins nothing that nobody would end."""
    played = Played()

    async def call() -> None:
        service, version = await played.services._current("a.ipynb")
        await played.services.stop()
        played.services._crew(service, version)

    with anyio.fail_after(DEADLINE), pytest.raises(errors.Stopping):
        await call()
    assert played.made == 0


async def test_notebook_that_is_written_as_it_stops() -> None:
    """A server that stops does not wait for a notebook that cannot be read yet."""
    played = Played()
    played.modified = datetime.now(tz=timezone.utc)
    reads: list[None] = []

    def read() -> None:
        reads.append(None)
        raise errors.InvalidNotebook

    played.read = read
    waiting = asyncio.create_task(played.services.version("a.ipynb"))
    with anyio.fail_after(DEADLINE):
        while len(reads) < 2:
            await asyncio.sleep(0)
        await played.services.stop()
        before = len(reads)
        with pytest.raises(errors.InvalidNotebook):
            await waiting

    assert len(reads) <= before + 1


async def test_changed_while_it_is_opened() -> None:
    """Who waits for a notebook to be ready goes on to wait for the one that has taken its place."""
    played = Played()
    played.content.cells.insert(0, nbformat.v4.new_code_cell("x = 1"))
    opening = asyncio.create_task(played.services.open("a.ipynb"))
    with anyio.fail_after(DEADLINE):
        while played.made < 1:
            await asyncio.sleep(0)
        played.content.cells[0].source = "x = 2"
        played.modified += timedelta(minutes=1)
        await played.services._current("a.ipynb")
        while played.made < 2:
            await asyncio.sleep(0)
        (first,) = played.services._retired
        while not first.is_over:
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not opening.done()
        await played.services.stop()
        with pytest.raises(errors.Stopping):
            await opening


async def test_cut_off_while_it_starts() -> None:
    """A notebook whose first cells change while its kernel starts has no other kernel than the new one."""
    played = Played()
    played.content.cells.insert(0, nbformat.v4.new_code_cell("x = 1"))
    service, version = await played.services._current("a.ipynb")
    crew = played.services._crew(service, version)
    crew.start(1)
    await asyncio.sleep(0)
    played.content.cells[0].source = "x = 2"
    played.modified += timedelta(minutes=1)
    service, version = await played.services._current("a.ipynb")
    with anyio.fail_after(DEADLINE):
        while not crew.is_over:
            await asyncio.sleep(0)

    assert played.services._crew(service, version) is not crew
    with anyio.fail_after(DEADLINE):
        await played.services.stop()
