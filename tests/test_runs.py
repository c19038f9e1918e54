"""Order, limits and endings of runs, with kernels and executions that are only played."""

from __future__ import annotations

import asyncio
import errno
import gc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import zmq

from jupyter_nbexec import documents, errors, execute, kernels, live, models, watch
from tests.machinery import Stage

pytestmark = pytest.mark.anyio

SUCCEEDED, FAILED, CANCELLED = models.RunStatus.SUCCEEDED, models.RunStatus.FAILED, models.RunStatus.CANCELLED


Play = Callable[..., Stage]


@pytest.fixture
async def play(tmp_path: Path) -> AsyncIterator[Play]:
    """Make a stage; it is cleared afterwards."""
    stages: list[Stage] = []

    def make(**settings: Any) -> Stage:
        folder = tmp_path / str(len(stages))
        folder.mkdir()
        stages.append(Stage(folder, **settings))
        return stages[-1]

    yield make
    for stage in stages:
        await stage.manager.stop()


async def ended(run: live.Run) -> tuple[models.RunStatus, str | None]:
    """Status and error code of a run once it has ended."""
    with anyio.fail_after(60):
        await run.wait()
    return run.status, None if run.error is None else run.error.code.value


async def test_success(play: Play) -> None:
    """A run that ends well has all its times, and gives its kernel back."""
    stage = play()
    run = await stage.submit()

    assert await ended(run) == (SUCCEEDED, None)
    created = run.admitted.created
    assert created <= (run.started or created) <= (run.ended or created)
    assert set(run.timing) == {"queue", "kernel", "run", "total"}
    assert stage.source.leases == 0
    assert stage.manager.unfinished == 0


async def test_first_come_first_served(play: Play) -> None:
    """Runs start in the order in which they came, no more at once than allowed."""
    stage = play(max_concurrent_runs=1)
    stage.is_open = False
    names = [f"n{number}" for number in range(6)]
    submitted = [await stage.submit(name) for name in names]
    statuses = [run.status for run in submitted]
    stage.is_open = True
    for run in submitted:
        await ended(run)

    assert statuses == [models.RunStatus.RUNNING, *5 * [models.RunStatus.QUEUED]]
    assert stage.order == names


@pytest.mark.parametrize("how", ["timeout", "cancel", "stop"])
async def test_end_while_its_kernel_starts(play: Play, how: str) -> None:
    """Whatever ends a run ends it at once, also while its kernel is being started; the place is free then."""
    stage = play(max_concurrent_runs=1)
    stage.source.has_kernel.clear()
    run = await stage.submit(timeout=0.05 if how == "timeout" else None)
    if how == "cancel":
        await stage.cancel(run)
    elif how == "stop":
        with anyio.fail_after(60):
            await stage.manager.stop()
    expected = {
        "timeout": (FAILED, "timeout", "The run took longer than 0.05 s."),
        "cancel": (CANCELLED, None, ""),
        "stop": (FAILED, "server_stopped", "The server stopped before the run had ended."),
    }

    assert (*await ended(run), run.error.message if run.error else "") == expected[how]
    assert stage.source.leases == 0
    assert stage.kernel.deeds == []
    if how != "stop":
        stage.source.has_kernel.set()
        assert await ended(await stage.submit()) == (SUCCEEDED, None)


async def test_queue_full(play: Play) -> None:
    """What finds no place is refused, and told when to come again; a place that is free is given."""
    stage = play(max_queued_runs=1)
    stage.act = stage.obey
    first, second = await stage.submit(), await stage.submit()
    with pytest.raises(errors.QueueFull) as refused:
        await stage.submit()
    await stage.cancel(second)
    third = await stage.submit()
    await stage.cancel(first)
    await stage.cancel(third)

    assert 1 <= refused.value.retry_after <= 60
    assert [await ended(run) for run in (first, second, third)] == 3 * [(CANCELLED, None)]


async def test_cancel_queued(play: Play) -> None:
    """A run that is cancelled before its turn never starts."""
    stage = play()
    stage.act = stage.obey
    first, second = await stage.submit("first"), await stage.submit("second")
    await stage.cancel(second)
    await stage.cancel(first)

    assert await ended(second) == (CANCELLED, None)
    assert second.started is None
    await ended(first)
    assert stage.order == ["first"]


async def test_cancel_twice_and_after_the_end(play: Play) -> None:
    """Cancelling again changes nothing, nor does cancelling what has ended."""
    stage = play()
    run = await stage.submit()
    await ended(run)
    await stage.cancel(run)
    await stage.cancel(run)

    assert run.status is SUCCEEDED


async def test_cancel_interrupts_first(play: Play) -> None:
    """A cell that can be interrupted is; its kernel, which is well then, may end by itself."""
    stage = play(interrupt_grace=30)
    stage.act = stage.obey
    run = await stage.submit()
    await _started(stage)
    await stage.cancel(run)

    assert await ended(run) == (CANCELLED, None)
    assert stage.kernel.deeds == ["interrupt"]


async def test_kill_after_the_grace(play: Play) -> None:
    """A cell that swallows the interrupt costs its kernel."""
    stage = play()
    stage.act = stage.defy
    run = await stage.submit()
    await _started(stage)
    await stage.cancel(run)

    assert await ended(run) == (CANCELLED, None)
    assert stage.kernel.deeds[:2] == ["interrupt", "kill"]


async def test_lent_kernel_is_never_killed(play: Play) -> None:
    """A kernel that was there before is interrupted and left."""
    stage = play()
    stage.kernel.is_owned = False
    stage.act = stage.defy
    run = await stage.submit(kernel_id="k1")
    await _started(stage)
    await stage.cancel(run)

    assert await ended(run) == (CANCELLED, None)
    assert stage.kernel.deeds == ["interrupt"]


async def test_timeout(play: Play) -> None:
    """A run that takes too long fails with `timeout`."""
    stage = play()
    stage.act = stage.obey
    run = await stage.submit(timeout=0.1)

    assert await ended(run) == (FAILED, "timeout")
    assert run.error is not None
    assert run.error.message == "The run took longer than 0.1 s."


async def test_default_and_maximum_timeout(play: Play) -> None:
    """The server's default holds where nobody says otherwise, and nothing exceeds its maximum."""
    stage = play(default_timeout=0.1)
    stage.act = stage.obey
    assert await ended(await stage.submit()) == (FAILED, "timeout")

    stage = play(max_timeout=0.1)
    stage.act = stage.obey
    assert await ended(await stage.submit()) == (FAILED, "timeout")


async def test_cell_timeout(play: Play) -> None:
    """A cell that takes too long fails the run, and the message says that it was a cell."""
    stage = play()

    async def act(execution: execute.Execution) -> None:
        execution.current = 0
        execution.cell_started = asyncio.get_running_loop().time()
        await stage.obey(execution)

    stage.act = act
    run = await stage.submit(cell_timeout=0.1, timeout=60)

    assert await ended(run) == (FAILED, "timeout")
    assert run.error is not None
    assert run.error.message == "A cell took longer than 0.1 s."
    assert run.error.cell == 0


async def test_no_timeout_for_what_has_run(play: Play) -> None:
    """A deadline that passes while the result is taken does not fail a notebook that has ended."""
    stage = play()

    async def act(execution: execute.Execution) -> None:
        execution.has_run_cells = True
        await asyncio.sleep(0.3)

    stage.act = act

    assert await ended(await stage.submit(timeout=0.1)) == (SUCCEEDED, None)


async def test_death(play: Play) -> None:
    """A kernel that dies fails the run, and the message says how it died."""
    stage = play()
    stage.act = stage.defy
    run = await stage.submit()
    await _started(stage)
    stage.kernel.ended = "the kernel exited with code 3"

    assert await ended(run) == (FAILED, "kernel_died")
    assert run.error is not None
    assert run.error.message == "The kernel exited with code 3."


async def test_death_between_cells(play: Play) -> None:
    """So does one that dies when no cell is being executed."""
    stage = play()

    async def act(execution: execute.Execution) -> None:
        while not execution.is_stopping:
            await asyncio.sleep(0.005)

    stage.act = act
    run = await stage.submit()
    await _started(stage)
    stage.kernel.ended = "the kernel exited with code 3"

    assert await ended(run) == (FAILED, "kernel_died")


async def test_death_at_the_start(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    """A kernel that dies before it has answered is replaced once, and leaves nothing to complain of."""
    stage = play()

    async def act(execution: execute.Execution) -> None:
        execution.is_ready = False
        while execution.link.failure is None:
            await asyncio.sleep(0.005)
        raise execution.link.failure

    stage.act = act
    stage.kernel.ended = "the kernel exited with code 3"

    assert await ended(await stage.submit()) == (FAILED, "kernel_start_failed")
    gc.collect()
    assert len(stage.order) == 2
    assert "never retrieved" not in caplog.text


async def test_kernel_that_does_not_start(play: Play) -> None:
    """A kernel that cannot be started, or does not answer, is `kernel_start_failed`."""
    stage = play()
    stage.source.refusal = kernels.KernelStartError("the kernel cannot be started")
    assert await ended(await stage.submit()) == (FAILED, "kernel_start_failed")

    stage = play()

    async def act(_execution: execute.Execution) -> None:
        raise execute.StartTimeoutError

    stage.act = act
    assert await ended(await stage.submit()) == (FAILED, "kernel_start_failed")


async def test_internal_error(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    """A fault of ours ends the run, is logged under its id, says nothing more, and frees the place."""
    stage = play()

    async def act(_execution: execute.Execution) -> None:
        raise LookupError("inner secret")

    stage.act = act
    run = await stage.submit()

    assert await ended(run) == (FAILED, "internal_error")
    assert run.error is not None
    assert "inner secret" not in run.error.message
    assert run.id in caplog.text
    stage.act = stage.succeed
    assert await ended(await stage.submit()) == (SUCCEEDED, None)


@pytest.mark.parametrize("where", ["start", "connection"])
async def test_out_of_resources(play: Play, caplog: pytest.LogCaptureFixture, where: str) -> None:
    """Where something has run out, the run says what, and not that its kernel or we are to blame."""
    stage = play()

    async def act(_execution: execute.Execution) -> None:
        raise zmq.ZMQError(errno.EMFILE)

    stage.act = act
    if where == "start":
        stage.source.refusal = kernels.KernelStartError("the kernel's program cannot be started")
        stage.source.refusal.__cause__ = OSError(errno.EMFILE, "Too many open files")
    run = await stage.submit()

    assert await ended(run) == (FAILED, "out_of_resources")
    assert run.error is not None
    assert "out of file descriptors" in run.error.message
    assert [each.exc_info for each in caplog.records if run.error.message in each.getMessage()] == [None]


async def test_stop(play: Play) -> None:
    """A server that stops ends what runs, closes what waits, and takes nothing more."""
    stage = play()
    stage.act = stage.defy
    running, waiting = await stage.submit("first"), await stage.submit("second")
    await _started(stage)
    with anyio.fail_after(60):
        await stage.manager.stop()

    assert await ended(running) == (FAILED, "server_stopped")
    assert await ended(waiting) == (FAILED, "server_stopped")
    assert stage.order == ["first"]
    with pytest.raises(errors.Stopping):
        await stage.submit()


async def test_save(play: Play) -> None:
    """The executed notebook is saved under a name made of the run's; a failure to save is a warning."""
    stage = play()
    saved, lost = (
        await stage.submit(save_as="out/{name}-{run_id}.ipynb"),
        await stage.submit(save_as="full/x.ipynb"),
    )

    assert await ended(saved) == (SUCCEEDED, None)
    assert await ended(lost) == (SUCCEEDED, None)
    assert stage.saved == [f"out/notebook-{saved.id}.ipynb"] == [saved.saved_as]
    assert lost.saved_as is None
    assert lost.warnings == ["The executed notebook could not be saved: OSError."]


async def test_json(play: Play) -> None:
    """A run that has not started has its place in the contract's JSON, too."""
    stage = play()
    stage.act = stage.obey
    running, queued = await stage.submit(), await stage.submit()
    document = documents.brief(queued.record(), service="/api/nbexec")
    await stage.cancel(queued)
    await stage.cancel(running)
    await ended(running)

    assert document["status"] == "queued"
    assert document["started"] is document["ended"] is document["kernel"] is None
    assert document["progress"] == {"done": 0, "total": 0, "cell": None}


async def test_first_reason_counts(play: Play) -> None:
    """A run that is being cancelled stays cancelled when the server stops."""
    stage = play(interrupt_grace=30)
    stage.act = stage.obey
    run = await stage.submit()
    await _started(stage)
    await stage.cancel(run)
    await stage.manager.cancel(run.id, watch.Ending.STOP)

    assert await ended(run) == (CANCELLED, None)


async def _started(stage: Stage) -> None:
    """Wait until a notebook is being executed."""
    with anyio.fail_after(60):
        while not stage.order:
            await asyncio.sleep(0.005)
