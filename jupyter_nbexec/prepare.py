"""Prepared notebooks: what comes before the parameters is executed ahead, each time on a kernel of its own.

A run of such a notebook gets a kernel that has executed these cells already, with what they put out, and
executes the rest. Nobody has used that kernel for anything else, and nobody will: isolation is total. Where
none is ready, and where preparing fails, the run executes everything itself.
"""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import nbformat
from nbformat import NotebookNode

from jupyter_nbexec import background, execute, inject, kernels, notebooks, opening, planning, watch
from jupyter_nbexec.kernels import connection, managed, pool

#: Type, index of the cell, and data: what `execute.Execution.on_event` is called with.
Event = tuple[str, int | None, dict[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """What is executed ahead, and where. Equal recipes make kernels that cannot be told apart."""

    place: pool.Place
    digest: str  #: of the cells
    watched: tuple[tuple[str, notebooks.Look | None], ...]  #: the files that they depend on, as they were
    cells: tuple[NotebookNode, ...] = field(compare=False, repr=False)
    metadata: NotebookNode = field(compare=False, repr=False)
    timeout: float = field(compare=False)
    env: tuple[tuple[str, str], ...] = ()  #: on top of the server's own


@dataclass(eq=False)
class Prepared:
    """A kernel that has executed the first cells of a notebook, and how that went."""

    kernel: managed.ManagedKernel
    execution: execute.Execution
    events: list[Event]


class Kitchen:
    """Makes prepared kernels."""

    def __init__(self, fresh: pool.FreshSource, opener: opening.Opener, limits: execute.Limits) -> None:
        self._fresh = fresh
        self._opener = opener
        self._limits = limits
        self._endings: set[asyncio.Task[None]] = set()

    async def make(self, recipe: Recipe) -> Prepared:
        """Execute the cells of a recipe. Raises CannotPrepare, KernelStartError and what `open` raises."""
        place = recipe.place
        kernel = await self._fresh.take(
            kernels.KernelRequest(
                name=place.name, path=place.path, session_name=place.session_name, env=dict(recipe.env)
            )
        )
        try:
            kernel.hide()
            if kernel.opened is None:
                kernel.opened = await self._opener.open(kernel)
            return await self._execute(recipe, kernel)
        except BaseException as error:
            # A kernel whose cell has failed is as well as any.
            await self.end(kernel, is_asked=isinstance(error, execute.CannotPrepare) and not error.is_late)
            raise

    async def is_good(self, prepared: Prepared) -> bool:
        """Whether it lives; what it says meanwhile is taken, so that it does not pile up."""
        prepared.kernel.touch()
        if await prepared.kernel.death() is not None:
            return False
        await self._opener.submit(execute.tend(prepared.execution))
        return True

    async def discard(self, prepared: Prepared) -> None:
        """End one that nobody has used."""
        await self._opener.submit(execute.close(prepared.execution, 0.0))
        prepared.kernel.opened = None
        await self.end(prepared.kernel, is_asked=True)

    async def end(self, kernel: managed.ManagedKernel, *, is_asked: bool = False) -> None:
        """End a kernel that was taken; one that `is_asked` to may first do what it does at its end.

        It ends even if who waits for that is cancelled.
        """
        ending = asyncio.create_task(self._end(kernel, is_asked=is_asked))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        await asyncio.shield(ending)

    async def settle(self) -> None:
        """Wait until all have ended that are to."""
        await asyncio.gather(*self._endings, return_exceptions=True)

    async def _end(self, kernel: managed.ManagedKernel, *, is_asked: bool) -> None:
        if kernel.opened is not None:
            await self._opener.close(kernel.opened)
        kernel.show()
        kernel.is_settled = True  # nobody listens any more
        if not is_asked:
            await kernel.kill()
        async with self._fresh.lend(kernel):
            pass

    async def _execute(self, recipe: Recipe, kernel: managed.ManagedKernel) -> Prepared:
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.from_dict(cell) for cell in recipe.cells],
            metadata=nbformat.from_dict(recipe.metadata),
        )
        events: list[Event] = []
        execution = execute.Execution(
            notebook=notebook,
            connection_info=kernel.connection_info(),
            opened=kernel.opened,
            limits=self._limits,
            on_event=lambda *event: events.append(event),
        )
        running = self._opener.submit(execute.run_ahead(execution, self._opener.context))
        watcher = watch.Watch(
            execution,
            kernel,
            submit=self._opener.submit,
            deadline=time.monotonic() + recipe.timeout,
            cell_timeout=None,
            grace=0.0,
        )
        await watcher.until_done(running)
        try:
            running.result()
        except connection.ConnectionLost as error:
            is_late = watcher.ending is watch.Ending.TIMEOUT
            raise execute.CannotPrepare(is_late=is_late) from error
        return Prepared(kernel, execution, events)


class PreparedNotebooks:
    """Has notebooks prepared that ask for it, or that an administrator names."""

    def __init__(
        self,
        kitchen: Kitchen,
        *,
        patterns: Iterable[str],
        capacity: int,
        idle_timeout: float,
        default_timeout: float,
        look: Callable[[str], Awaitable[notebooks.Look | None]],
        log: logging.Logger | logging.LoggerAdapter[Any],
    ) -> None:
        """`patterns`: of contents paths. `capacity`: kernels in all; 0: none is prepared.

        `look` tells whether a file has changed.
        """
        self._kitchen = kitchen
        self._patterns = list(patterns)
        self._capacity = capacity
        self._default_timeout = default_timeout
        self._look = look
        self._log = log
        self._pool: pool.Pool[Recipe, Prepared] = pool.Pool(
            kitchen,
            capacity=lambda _: capacity,
            family=lambda _: "prepared notebooks",
            idle_timeout=idle_timeout,
            kept=0,
            at_once=1,
            log=log,
        )

    async def start(self, plan: Callable[[str], Awaitable[planning.Plan]]) -> None:
        """Prepare the notebooks that are named in full; `plan` makes the plan of a run of one."""
        for path in self._patterns:
            if any(sign in path for sign in "*?["):
                continue
            try:
                recipe = await self._recipe(await plan(path))
            except Exception as error:  # a contents manager may raise anything
                self._log.warning("notebook %r cannot be prepared: %s", path, error or type(error).__name__)
                continue
            if recipe is not None:
                self._pool.fill(recipe, 1)

    async def stop(self) -> None:
        """End all kernels that are ready."""
        await self._pool.stop()

    async def take(self, plan: planning.Plan) -> Prepared | None:
        """Give a kernel that has executed the first cells of this run's notebook, if one is ready."""
        recipe = await self._recipe(plan)
        if recipe is None:
            return None
        self._pool.forget(lambda other: other.place == recipe.place and other != recipe)
        taken = await self._pool.take(recipe)
        if taken is None:
            return None
        _, prepared = taken
        prepared.kernel.show()
        prepared.kernel.is_prepared = True
        return prepared

    async def _recipe(self, plan: planning.Plan) -> Recipe | None:
        """Tell what may be executed ahead of a run; None if nothing may."""
        notebook, request = plan.notebook, plan.request
        is_wanted = notebook.path is not None and (
            notebook.asks_for_preparation
            or any(fnmatch.fnmatchcase(notebook.path, p) for p in self._patterns)
        )
        if not is_wanted or not self._capacity or request.kernel_id is not None or request.env:
            return None
        cells = notebook.content.cells[: inject.count_before(notebook.content)]
        if not any(execute.is_executed(cell) for cell in cells):
            return None
        return Recipe(
            place=pool.Place(plan.kernel_name, notebook.folder, notebook.path or ""),
            digest=await background.offload(plan.size, digest, cells),
            watched=tuple([(path, await self._look(path)) for path in notebook.watched]),
            cells=tuple(cells),
            metadata=notebook.content.metadata,
            timeout=notebook.default_timeout or self._default_timeout or float("inf"),
        )


def digest(cells: list[NotebookNode]) -> str:
    """Tell cells apart by all that matters when they are executed, and by what is shown of them."""
    left_out = ("outputs", "execution_count")
    seen = [{key: value for key, value in cell.items() if key not in left_out} for cell in cells]
    return hashlib.sha256(json.dumps(seen, sort_keys=True, default=str).encode()).hexdigest()
