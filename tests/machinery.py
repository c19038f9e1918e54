"""A run manager with its store, on real kernels or on kernels that are only played."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import nbformat

from jupyter_nbexec import (
    documents,
    errors,
    execute,
    kernels,
    languages,
    live,
    membership,
    models,
    notebooks,
    opening,
    perform,
    planning,
    runs,
)
from jupyter_nbexec import store as stores
from jupyter_nbexec.kernels import managed
from tests import sources

MIB = 1 << 20
SERVICE = "/api/nbexec"


class Ledger:
    """Writes down what becomes of runs."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str]] = []
        self.length = self.stranded = 0

    def run_queued(self, record: models.RunRecord) -> None:
        """Write it down."""
        self.entries.append(("queued", record.id))

    def run_started(self, record: models.RunRecord) -> None:
        """Write it down."""
        self.entries.append(("started", record.id))

    def run_ended(self, record: models.RunRecord) -> None:
        """Write it down."""
        self.entries.append((record.status.value, record.id))

    def set_queue_length(self, length: int) -> None:
        """Keep the last one."""
        self.length = length

    def set_stranded(self, number: int) -> None:
        """Keep the last one."""
        self.stranded = number


async def restore(record: models.RunRecord, content: bytes) -> planning.Plan:
    """Make a plan again, as the planner does, for kernels that need no kernelspec."""
    notebook, origins = documents.unpack(content)
    return planning.Plan(
        request=record.request,
        notebook=notebooks.Notebook(
            path=record.path,
            content=notebook or nbformat.v4.new_notebook(),
            cell_ids=[origin[1] for origin in origins if origin is not None],
        ),
        kernel_name=record.kernel_name,
        language=languages.find(record.kernel_name, "python"),
    )


async def has_folder(_path: str) -> bool:
    """All folders are there."""
    return True


class Bench:
    """A run manager, and what tests do with it."""

    def __init__(self, performer: perform.Performer, database: str, **settings: Any) -> None:
        defaults = {
            "max_concurrent_runs": 1,
            "max_queued_runs": 10,
            "max_queued_async_runs": 1000,
            "drain_timeout": 0.0,
            "stop_timeout": 10.0,
        }
        self.ledger = Ledger()
        self.performer = performer
        #: Names of kernelspecs that this server does not have.
        self.missing: set[str] = set()
        self.store = stores.RunStore(database)
        self.manager = runs.RunManager(
            settings=runs.Settings(**{**defaults, **settings}),
            retention=membership.Retention(days=0, runs=0, bytes=0),
            store=self.store,
            performer=performer,
            restore=restore,
            obstacle=self.obstacle,
            deliver=lambda run_id, webhook: models.Delivery(run_id=run_id, url=webhook.url),
            on_delivery_due=lambda: None,
            listener=self.ledger,
            service=SERVICE,
            log=logging.getLogger("test"),
        )

    async def obstacle(self, waiting: models.Waiting) -> str | None:
        """Say which kernelspec is missing."""
        return f"It has no kernel {waiting.kernel_name!r}." if waiting.kernel_name in self.missing else None

    async def plan(self, *cells: str | nbformat.NotebookNode, **fields: Any) -> planning.Plan:
        """Plan a run of a notebook of these cells."""
        made = [nbformat.v4.new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
        return planning.Plan(
            request=models.RunRequest(**fields),
            notebook=notebooks.check(nbformat.v4.new_notebook(cells=made)),
            kernel_name="python3",
            language=languages.find("python3", "python"),
        )

    async def submit(self, *cells: str | nbformat.NotebookNode, **fields: Any) -> live.Run:
        """Submit a notebook of these cells, as a client does that waits."""
        record, _ = await self.manager.submit(await self.plan(*(cells or ("a",)), **fields), runs.Claim())
        return self.manager._runs[record.id]

    async def submit_async(self, *cells: str, claim: runs.Claim | None = None, **fields: Any) -> str:
        """Submit a notebook of these cells, as a client does that comes again; the run's id."""
        plan = await self.plan(*(cells or ("a",)), **fields)
        record, _ = await self.manager.submit(plan, claim or runs.Claim(is_async=True))
        return record.id

    async def cancel(self, run: live.Run) -> None:
        """Cancel it, whether or not it has ended."""
        try:
            await self.manager.cancel(run.id)
        except errors.RunEnded:
            return

    async def answer(self, run_id: str) -> dict[str, Any]:
        """What a client is told of a run that has ended."""
        with anyio.fail_after(100):
            view = await self.manager.wait(run_id)
        return documents.complete(view.record, view.notebook, view.origins, service=SERVICE)

    async def run(self, *cells: str | nbformat.NotebookNode, **fields: Any) -> dict[str, Any]:
        """Run them to the end; the answer."""
        return await self.answer((await self.submit(*cells, **fields)).id)


class Engine(Bench):
    """Real kernels, with small limits."""

    def __init__(
        self,
        root: Path,
        source: sources.Source | None = None,
        *,
        max_concurrent_runs: int = 4,
        **limits: Any,
    ) -> None:
        self.source = source = source or sources.Source()
        self.kernels = source.kernel_manager(root)
        kept = {
            "output_bytes": 4 * MIB,
            "outputs": 1000,
            "result_bytes": MIB,
            "start_timeout": 60.0,
            "result_timeout": 3.0,
        }
        bounds = execute.Limits(**{**kept, **limits})
        opener = opening.Opener(bounds)
        # ipykernel does not watch file descriptors where it finds this.
        self._starter = managed.Starter(
            self.kernels,
            scrubbed_env=["PYTEST_CURRENT_TEST"],
            niceness=10,
            fork_servers=source.fork_servers(),
        )
        self._fresh = source.fresh(self._starter, opener)
        performer = perform.Performer(
            settings=perform.Settings(default_timeout=120, max_timeout=0, interrupt_grace=1, limits=bounds),
            opener=opener,
            fresh=self._fresh,
            existing=managed.ExistingSource(self.kernels),
            save=self.save,
            has_folder=has_folder,
            log=logging.getLogger("test"),
        )
        database = f"sqlite:///{root / 'runs.sqlite'}"
        super().__init__(performer, database, max_concurrent_runs=max_concurrent_runs, max_queued_runs=100)

    async def make_ready(self) -> None:
        """Wait until runs come by kernels as the source says."""
        await self.source.make_ready(self._starter, self._fresh)

    async def save(self, path: str, content: Any) -> None:
        """Nothing is saved here."""

    async def stop(self) -> None:
        """Stop; nothing is left."""
        await self.manager.stop()
        assert self.kernels.list_kernel_ids() == []
        self.kernels.context.destroy(linger=0)


class PlayedKernel:
    """A kernel that records what is done to it."""

    def __init__(self, *, is_owned: bool = True) -> None:
        self.id, self.name, self.source, self.is_owned = "k1", "python3", "cold", is_owned
        self.is_leaving = self.is_settled = self.has_answered = False
        self.opened = None
        self.deeds: list[str] = []
        self.ended: str | None = None

    def last_words(self) -> str:
        """It says nothing."""
        return ""

    def connection_info(self) -> dict[str, Any]:
        """Nobody connects to it."""
        return {}

    def touch(self) -> None:
        """Nobody culls it."""

    async def death(self) -> str | None:
        """How the test let it end."""
        return self.ended

    async def interrupt(self) -> None:
        """Record it."""
        self.deeds.append("interrupt")

    async def kill(self) -> None:
        """Record it."""
        self.deeds.append("kill")


class PlayedSource:
    """Hands out one kernel again and again."""

    def __init__(self, kernel: PlayedKernel) -> None:
        self.kernel = kernel
        self.leases = 0
        self.environments: list[dict[str, str]] = []
        self.refusal: Exception | None = None
        #: While this is not set, nobody gets the kernel.
        self.has_kernel = asyncio.Event()
        self.has_kernel.set()

    @asynccontextmanager
    async def lease(self, request: kernels.KernelRequest) -> AsyncIterator[kernels.LeasedKernel]:
        """Count the lease."""
        if self.refusal is not None:
            raise self.refusal
        await self.has_kernel.wait()
        self.leases += 1
        self.environments.append(dict(request.env))
        yield self.kernel
        self.leases -= 1

    def lend(self, kernel: Any) -> Any:
        """Nothing is taken beforehand."""
        raise NotImplementedError

    async def stop(self) -> None:
        """There is nothing to end."""


class Stage(Bench):
    """Notebooks that do what the test says."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.kernel = PlayedKernel()
        self.source = PlayedSource(self.kernel)
        self.order: list[str] = []
        self.act: Callable[[execute.Execution], Awaitable[None]] = self.succeed
        self.saved: list[str] = []
        #: While this is False, notebooks that end well by themselves do not end.
        self.is_open = True
        own = {"default_timeout": 0.0, "max_timeout": 0.0, "interrupt_grace": 0.05}
        own |= {name: settings.pop(name) for name in list(settings) if name in own}
        limits = execute.Limits(
            output_bytes=1000, outputs=10, result_bytes=100, start_timeout=1, result_timeout=1
        )
        performer = perform.Performer(
            settings=perform.Settings(**own, limits=limits),
            opener=opening.Opener(limits),
            fresh=self.source,
            existing=self.source,
            save=self.save,
            has_folder=has_folder,
            log=logging.getLogger("test"),
            run_notebook=self.play,
        )
        super().__init__(performer, f"sqlite:///{folder / 'runs.sqlite'}", **settings)

    async def save(self, path: str, _content: Any) -> None:
        """Record what is saved."""
        if "full" in path:
            raise OSError("No space left on device")
        self.saved.append(path)

    async def play(self, execution: execute.Execution, _context: Any) -> None:
        """Do what the test says, on the background loop."""
        execution.is_ready = True
        self.order.append(execution.notebook.cells[0].source)
        await self.act(execution)

    async def succeed(self, execution: execute.Execution) -> None:
        """End well, at once or when the stage is open."""
        while not self.is_open and not execution.is_stopping:
            await asyncio.sleep(0.005)
        execution.has_run_cells = True

    async def obey(self, execution: execute.Execution) -> None:
        """Go on until told to stop, as a cell does that can be interrupted."""
        while not execution.is_stopping:
            await asyncio.sleep(0.005)
        execution.failure = execute.CellFailure(index=0, ename="KeyboardInterrupt", evalue="")

    async def defy(self, execution: execute.Execution) -> None:
        """Go on until abandoned, as a cell does that swallows interrupts."""
        while execution.link.failure is None:
            await asyncio.sleep(0.005)
        raise execution.link.failure
