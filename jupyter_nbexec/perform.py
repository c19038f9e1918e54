"""Perform a run: on a leased kernel, watched, saved at cell boundaries. How it went is in the run then."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import nbformat
import zmq.asyncio
from nbformat import NotebookNode

from jupyter_nbexec import (
    background,
    documents,
    errors,
    execute,
    inject,
    kernels,
    live,
    models,
    opening,
    outputs,
    planning,
    prepare,
    requests,
    watch,
)
from jupyter_nbexec.kernels import connection

T = TypeVar("T")

#: Seconds to wait for late outputs of a kernel that lives on.
LENT_PATIENCE = 0.3
#: Saving the progress takes at most about this share of the time.
SAVING_SHARE = 0.2


#: Notes that the first cell of a run is about to be sent. False: it must not be.
Begin: TypeAlias = Callable[[live.Run], Awaitable[bool]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an administrator decides about a run. Times in seconds; 0 stands for no limit."""

    default_timeout: float
    max_timeout: float
    interrupt_grace: float
    limits: execute.Limits


class Performer:
    """Performs runs; it remembers nothing of them."""

    def __init__(
        self,
        *,
        settings: Settings,
        opener: opening.Opener,
        fresh: kernels.FreshKernels,
        prepared: prepare.PreparedNotebooks | None = None,
        existing: kernels.KernelSource,
        save: Callable[[str, NotebookNode], Awaitable[None]],
        has_folder: Callable[[str], Awaitable[bool]],
        log: logging.Logger | logging.LoggerAdapter[Any],
        run_notebook: Callable[
            [execute.Execution, zmq.asyncio.Context], Coroutine[Any, Any, None]
        ] = execute.run,
    ) -> None:
        """Take the parts. `run_notebook` is `execute.run`.

        `save` writes an executed notebook under a contents path; `has_folder` looks for a folder.
        """
        self.settings = settings
        self._opener = opener
        self._fresh = fresh
        self._prepared = prepared
        self._existing = existing
        self._save = save
        self._has_folder = has_folder
        self._run_notebook = run_notebook
        self._log = log

    async def stop(self) -> None:
        """End what all runs share. Call it when they have ended."""
        if self._prepared is not None:
            await self._prepared.stop()
        await self._fresh.stop()
        if not await self._opener.stop():
            self._log.error("the thread that talks to kernels is stuck, and left behind")

    async def perform(
        self,
        run: live.Run,
        begin: Begin,
        save_progress: Callable[[live.Run, models.RunRecord, bytes], Awaitable[None]],
    ) -> None:
        """Execute a run, whatever happens. `save_progress` is called with each cell that has ended."""
        self._log.info("run %s: started, notebook %r", run.id, run.admitted.path)
        saver = asyncio.create_task(self._keep_saving(run, save_progress))
        try:
            await self._lease_and_execute(run, begin)
            await self._save_notebook(run)
        except Exception as error:
            # A fault of ours must not leave the run, and who waits for it, without an end.
            run.error = self._fault(run, error)
        finally:
            await _end(saver)

    def _fault(self, run: live.Run, error: Exception) -> models.RunError:
        """Say, and log, why a run cannot go on that is not to blame."""
        what = errors.shortage(error)
        if what is not None:
            message = errors.OutOfResources(what).message
            self._log.error("run %s: %s", run.id, message)
            return models.RunError(code=models.ErrorCode.OUT_OF_RESOURCES, message=message)
        self._log.exception("run %s: internal error", run.id)
        message = f"Internal error; the log has it under {run.id}."
        return models.RunError(code=models.ErrorCode.INTERNAL_ERROR, message=message)

    async def view(self, run: live.Run) -> live.View:
        """Show a run as it is now, outputs of the cell that is being executed included."""
        if run.execution is None:
            return live.View(record=run.record())
        notebook = run.execution.notebook
        if not run.status.is_final:
            notebook = await self._opener.submit(run.execution.snapshot())
        size = _plan_of(run).size + 4 * run.execution.size
        return live.View(record=run.record(), notebook=notebook, origins=run.origins, size=size)

    async def _keep_saving(
        self,
        run: live.Run,
        save_progress: Callable[[live.Run, models.RunRecord, bytes], Awaitable[None]],
    ) -> None:
        """Save what has been executed whenever a cell has ended, but large notebooks less often."""
        while True:
            await run.has_progressed.wait()
            run.has_progressed.clear()
            began = time.monotonic()
            view = await self.view(run)
            if view.notebook is not None:
                content = await background.run(documents.pack, view.notebook, view.origins)
                await save_progress(run, view.record, content)
            await asyncio.sleep((time.monotonic() - began) / SAVING_SHARE)

    async def _lease_and_execute(self, run: live.Run, begin: Begin) -> None:
        """Execute a run; on another kernel if the first ends before it could be asked for anything.

        Kernels do so whose ports, which are chosen before they open them, somebody else has opened meanwhile.
        """
        if not await self._try(run, begin, is_last=False):
            self._log.warning("run %s: its kernel ended at its start; another one is started", run.id)
            run.execution = None
            await self._try(run, begin, is_last=True)

    async def _try(self, run: live.Run, begin: Begin, *, is_last: bool) -> bool:
        """Execute a run. False: the kernel has ended at its start, and this was not the last attempt."""
        plan = _plan_of(run)
        request = kernels.KernelRequest(
            name=plan.kernel_name,
            id=plan.request.kernel_id,
            path=plan.notebook.folder,
            session_name=plan.notebook.path or "",
            env=plan.request.env,
        )
        run.kernel = models.KernelInfo(name=plan.kernel_name)
        try:
            async with AsyncExitStack() as stack:
                lending = stack.enter_async_context(self._kernel_for(plan, request))
                lent = await self._unless_it_ends(run, lending)
                if lent is None:
                    return True
                kernel, prepared = lent
                run.kernel = models.KernelInfo(name=kernel.name, id=kernel.id, source=kernel.source)
                if not run.has_begun and not await begin(run):
                    run.ask_to_end(watch.Ending.STOP)
                    return True
                run.has_begun = True
                if not await self._execute(run, kernel, prepared, is_last=is_last):
                    return False
                run.mark_phase("run")
        except kernels.KernelStartError as error:
            if errors.shortage(error) is not None:
                raise
            code = models.ErrorCode.KERNEL_START_FAILED
            run.error = models.RunError(code=code, message=_sentence(str(error)))
        finally:
            if run.execution is not None:
                patience = 0.0 if request.id is None else LENT_PATIENCE
                await self._opener.submit(execute.close(run.execution, patience))
                run.warnings += [*run.execution.link.warnings, *_left_out(run, run.execution)]
                run.warnings += [_told(run, index, deed) for index, deed in run.execution.remarks]
        return True

    async def _unless_it_ends(self, run: live.Run, lending: Coroutine[Any, Any, T]) -> T | None:
        """Wait for a kernel; None if the run is to end before there is one, which it says then.

        Whoever gets it ready is cancelled, and sees to what comes of that.
        """
        deadline = run.deadline(self._timeout(run))
        left = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
        getting, asked = asyncio.create_task(lending), asyncio.create_task(run.is_to_end.wait())
        waited: set[asyncio.Task[Any]] = {getting, asked}
        try:
            await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            if getting.cancel():
                await asyncio.wait({getting})
        if not getting.cancelled():
            return getting.result()
        # One that another server is to execute has not failed.
        if not run.is_to_move:
            run.error = self._early_end(run, run.ending or watch.Ending.TIMEOUT)
        return None

    @asynccontextmanager
    async def _kernel_for(
        self, plan: planning.Plan, request: kernels.KernelRequest
    ) -> AsyncIterator[tuple[kernels.LeasedKernel, prepare.Prepared | None]]:
        """Lend a kernel for the time of the context, prepared for the run where one is."""
        if request.id is None and not await self._has_folder(request.path):
            # The kernel would be started in a folder above, and find other files there.
            raise kernels.KernelStartError("the notebook's folder is not there any more")
        prepared = None if self._prepared is None else await self._prepared.take(plan)
        if prepared is not None:
            async with self._fresh.lend(prepared.kernel):
                yield prepared.kernel, prepared
            return
        source = self._fresh if request.id is None else self._existing
        async with source.lease(request) as kernel:
            yield kernel, None

    async def _execute(
        self,
        run: live.Run,
        kernel: kernels.LeasedKernel,
        prepared: prepare.Prepared | None,
        *,
        is_last: bool,
    ) -> bool:
        """Execute on the background loop, and watch from here. False as `_try` says."""
        size = _plan_of(run).size
        execution = await background.offload(size, self._prepare, run, kernel, prepared)
        loop = asyncio.get_running_loop()

        def on_event(kind: str, index: int | None, data: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(run.publish_of_cell, kind, index, data)

        execution.on_event = on_event
        run.execution = execution
        run.last_cell = execution.last
        # Not sooner: now it can say of how many cells.
        run.publish_status()
        for event in prepared.events if prepared is not None else ():
            run.publish_of_cell(*event)
        run.has_progressed.clear()
        watcher = watch.Watch(
            execution,
            kernel,
            submit=self._opener.submit,
            deadline=run.deadline(self._timeout(run)),
            cell_timeout=_plan_of(run).request.cell_timeout,
            grace=self.settings.interrupt_grace,
        )
        run.watch_by(watcher)
        task = self._opener.submit(self._run_notebook(execution, self._opener.context))
        is_healthy = False
        try:
            await watcher.until_done(task)
            raised = task.exception()
            is_healthy = raised is None and not execution.is_stuck
            has_ended_early = kernel.is_owned and watcher.death is not None and not execution.is_ready
            if has_ended_early and watcher.ending is None and not is_last:
                return False
            run.mark_phase("kernel")  # where there was no cell to mark it
            run.error = self._judge(run, watcher, raised)
            if run.error is not None and run.error.code is models.ErrorCode.KERNEL_START_FAILED:
                run.error = dataclasses.replace(run.error, traceback=kernel.last_words().splitlines())
        finally:
            kernel.is_leaving = execution.is_leaving
            # What a kernel still says of a run that has failed is not waited for.
            kernel.is_settled = execution.is_settled or not run.is_complete
            if kernel.is_owned and not is_healthy:
                # A kernel that may be stuck is not asked to end.
                await kernel.kill()
            elif execution.is_stuck:
                await kernel.interrupt()
            kernel.has_answered |= execution.is_ready
        return True

    def _timeout(self, run: live.Run) -> float:
        """Seconds the run may take: what the request, the notebook, or else the server says."""
        maximum = self.settings.max_timeout or math.inf
        plan = _plan_of(run)
        asked = plan.request.timeout or plan.notebook.default_timeout
        return min(asked or self.settings.default_timeout or math.inf, maximum)

    def _prepare(
        self, run: live.Run, kernel: kernels.LeasedKernel, prepared: prepare.Prepared | None
    ) -> execute.Execution:
        """Make the notebook that is executed: a copy, with the parameters in it."""
        plan = _plan_of(run)
        request, stored = plan.request, plan.notebook
        injection = inject.inject(stored.content, request.parameters, plan.language)
        run.origins = list(enumerate(stored.cell_ids))
        if injection.index is not None and injection.replaced:
            run.origins[injection.index] = None
        elif injection.index is not None:
            run.origins.insert(injection.index, None)
        allow_errors = stored.default_allow_errors if request.allow_errors is None else request.allow_errors
        if prepared is not None:
            prepared.execution.continue_with(injection.notebook, allow_errors=allow_errors)
            return prepared.execution
        return execute.Execution(
            notebook=injection.notebook,
            connection_info=kernel.connection_info(),
            opened=kernel.opened,
            limits=self.settings.limits,
            ends_kernel=kernel.is_owned,
            allow_errors=allow_errors,
        )

    def _judge(
        self, run: live.Run, watcher: watch.Watch, raised: BaseException | None
    ) -> models.RunError | None:
        """Say why the run failed; None if it did not, or was cancelled."""
        execution = run.execution
        if raised is not None and not isinstance(
            raised, execute.StartTimeoutError | connection.ConnectionLost
        ):
            raise raised
        if execution is None or execution.has_run_cells:
            return None
        if watcher.ending is not None:
            return self._early_end(run, watcher.ending, is_of_cell=watcher.is_cell_timeout)
        cell, cell_id = run.stored_cell(execution.current)
        if isinstance(raised, execute.StartTimeoutError):
            message = f"The kernel did not answer within {self.settings.limits.start_timeout:g} s."
            return models.RunError(code=models.ErrorCode.KERNEL_START_FAILED, message=message)
        if execution.failure is not None:
            return self._cell_error(run, execution.failure)
        if isinstance(raised, connection.ConnectionLost) or watcher.death is not None:
            was_ready = execution.is_ready
            code = models.ErrorCode.KERNEL_DIED if was_ready else models.ErrorCode.KERNEL_START_FAILED
            message = _sentence(str(raised or "") or watcher.death or "the kernel died")
            return models.RunError(code=code, message=message, cell=cell, cell_id=cell_id)
        raise RuntimeError("the execution has ended, but neither well nor for a reason")

    def _early_end(
        self, run: live.Run, ending: watch.Ending, *, is_of_cell: bool = False
    ) -> models.RunError | None:
        """Say why a run was ended; None if somebody wished it. `is_of_cell`: a cell took too long."""
        if ending is watch.Ending.CANCEL:
            return None
        if ending is watch.Ending.STOP:
            code, message = models.ErrorCode.SERVER_STOPPED, "The server stopped before the run had ended."
        else:
            what = "A cell" if is_of_cell else "The run"
            seconds = _plan_of(run).request.cell_timeout if is_of_cell else self._timeout(run)
            code, message = models.ErrorCode.TIMEOUT, f"{what} took longer than {seconds:g} s."
        cell, cell_id = run.stored_cell(None if run.execution is None else run.execution.current)
        return models.RunError(code=code, message=message, cell=cell, cell_id=cell_id)

    def _cell_error(self, run: live.Run, failure: execute.CellFailure) -> models.RunError:
        cell, cell_id = run.stored_cell(failure.index)
        said = ": ".join(part.strip() for part in (failure.ename, failure.evalue) if part and part.strip())
        said = outputs.without_escapes(said)
        return models.RunError(
            code=models.ErrorCode.CELL_ERROR,
            message=said.strip().splitlines()[0][:500]
            if said.strip()
            else "The kernel did not execute the cell.",
            ename=failure.ename,
            evalue=failure.evalue,
            traceback=failure.traceback,
            cell=cell,
            cell_id=cell_id,
        )

    async def _save_notebook(self, run: live.Run) -> None:
        plan = _plan_of(run)
        template = plan.request.save_as
        if template is None or run.execution is None:
            return
        target = requests.expand_save_as(template, run_id=run.id, name=plan.notebook.name)
        try:
            clean = await background.run(outputs.clean_json, run.execution.notebook)
            await self._save(target, nbformat.from_dict(clean))
            run.saved_as = target
        except Exception as error:  # a contents manager may raise anything, and the run is what counts
            self._log.exception("run %s: cannot save %r", run.id, target)
            what = errors.shortage(error)
            why = type(error).__name__ if what is None else f"the server is out of {what}"
            run.warnings.append(f"The executed notebook could not be saved: {why}.")


def _left_out(run: live.Run, execution: execute.Execution) -> list[str]:
    """Say what was left out, and where."""
    cells = [run.stored_cell(index)[0] for _, index in execution.left_out.entries]
    places = ["in the injected cell" if cell is None else f"in cell {cell}" for cell in cells]
    return execution.left_out.warnings(places)


def _plan_of(run: live.Run) -> planning.Plan:
    if run.plan is None:
        raise RuntimeError("a run without a plan cannot be performed")
    return run.plan


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end; what it raised is raised."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return


def _told(run: live.Run, index: int, deed: str) -> str:
    """Say what a cell of the executed notebook did."""
    cell, _ = run.stored_cell(index)
    return f"{'The cell with the parameters' if cell is None else f'Cell {cell}'} {deed}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
