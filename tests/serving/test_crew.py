"""Who gets which kernel, and who waits: with kernels that the test plays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from jupyter_nbexec import errors
from jupyter_nbexec.kernels import connection
from jupyter_nbexec.serving import crew

pytestmark = pytest.mark.anyio

#: Seconds that anything may take here.
DEADLINE = 60.0


class PlayedKernel:
    """A kernel that does what the test says."""

    def __init__(self) -> None:
        self.how_it_died: str | None = None
        self.interrupts = 0

    def touch(self) -> None:
        """Note nothing."""

    async def death(self) -> str | None:
        """How it died."""
        return self.how_it_died

    async def interrupt(self) -> None:
        """Count it."""
        self.interrupts += 1


class PlayedLine:
    """A line on which calls last until the test ends them."""

    def __init__(self) -> None:
        self.is_busy = False
        self.heeds = True
        self.failure: connection.ConnectionLost | None = None
        self._over = asyncio.Event()

    async def execute(self) -> None:
        """Last until `answer` or `fail`."""
        self.is_busy = True
        self._over.clear()
        await self._over.wait()
        if self.failure is not None:
            raise self.failure
        self.is_busy = False

    def answer(self) -> None:
        """End what is executed, well."""
        self._over.set()

    def fail(self, how: str) -> None:
        """As `Line.fail`."""
        self.failure = connection.ConnectionLost(how)
        self._over.set()

    lose = fail

    def revive(self) -> None:
        """As `Line.revive`."""
        self.failure = None

    async def settle(self, patience: float) -> bool:
        """Whether an interrupt helps."""
        self.revive()
        self.is_busy = not self.heeds
        return self.heeds

    def tend(self) -> None:
        """There is nothing to take."""

    def close(self) -> None:
        """There is nothing to let go."""


class Stage:
    """A crew whose kernels are played."""

    def __init__(self, **settings: Any) -> None:
        defaults = {
            "min_kernels": 0,
            "max_kernels": 1,
            "max_waiting": 10,
            "timeout": 0.0,
            "start_timeout": 0.0,
            "idle_timeout": 0.0,
            "interrupt_grace": 0.0,
            "is_single_use": False,
        }
        self.hired: list[Any] = []
        self.dismissed: list[tuple[Any, bool]] = []
        self.refuse: Callable[[], errors.NbexecError | None] = lambda: None
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.crew = crew.Crew(
            crew.Settings(**{**defaults, **settings}),
            hire=self.hire,
            dismiss=self.dismiss,
            log=logging.getLogger("test"),
        )

    async def hire(self) -> Any:
        """Make a kernel, when the test says so."""
        await self.may_start.wait()
        error = self.refuse()
        if error is not None:
            raise error
        kernel: Any = PlayedKernel()
        line: Any = PlayedLine()
        worker = crew.Worker(kernel, line)
        self.hired.append(worker)
        return worker

    async def dismiss(self, worker: Any, *, is_asked: bool) -> None:
        """Remember it."""
        self.dismissed.append((worker, is_asked))

    async def call(self, call: crew.Call | None = None) -> Any:
        """Call once; the kernel that answered."""
        async with self.crew.lend(call or crew.Call()) as worker:
            await worker.line.execute()  # type: ignore[call-arg]  # it is played
        return worker

    def start(self, call: crew.Call | None = None) -> asyncio.Task[Any]:
        """Begin a call."""
        return asyncio.create_task(self.call(call))

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what sends no event."""
        with anyio.fail_after(DEADLINE):
            while not condition():
                await asyncio.sleep(0.005)

    async def until_busy(self, number: int = 1) -> None:
        """Wait until so many kernels execute something."""
        await self.until(lambda: sum(each.line.is_busy for each in self.hired) == number)


@pytest.fixture
async def stages() -> Any:
    """Make stages; they are stopped at the end, and have no kernel left then."""
    made: list[Stage] = []

    def make(**settings: Any) -> Stage:
        made.append(Stage(**settings))
        return made[-1]

    yield make
    for stage in made:
        stage.may_start.set()
        with anyio.fail_after(DEADLINE):
            await stage.crew.stop(0.0)
        assert stage.crew.number == 0
        assert len(stage.hired) == len(stage.dismissed) == len({id(each) for each, _ in stage.dismissed})


async def test_one_at_a_time(stages: Any) -> None:
    """A kernel answers one call at a time, in the order in which they came."""
    stage = stages()
    first, second = stage.start(), stage.start()
    await stage.until_busy()
    assert not second.done()
    (worker,) = stage.hired
    worker.line.answer()
    assert await first is worker
    await stage.until_busy()
    worker.line.answer()

    assert await second is worker
    assert stage.crew.number == 1


async def test_grows_while_calls_wait(stages: Any) -> None:
    """A call that waits has a further kernel started, up to the limit."""
    stage = stages(max_kernels=2)
    calls = [stage.start() for _ in range(4)]
    await stage.until_busy(2)
    for number in range(4):
        await stage.until_busy(min(2, 4 - number))
        next(each for each in stage.hired if each.line.is_busy).line.answer()
        await stage.until(lambda number=number: sum(each.done() for each in calls) == number + 1)

    assert {id(each.result()) for each in calls} == {id(each) for each in stage.hired}
    assert len(stage.hired) == 2


async def test_queue_is_bounded(stages: Any) -> None:
    """Beside those for whom a kernel starts, so many wait as may, and no more."""
    stage = stages(max_waiting=1)
    stage.may_start.clear()
    calls = [stage.start(), stage.start()]
    await stage.until(lambda: len(stage.crew._waiting) == 2)
    with pytest.raises(errors.QueueFull):
        await stage.call()
    stage.may_start.set()
    for each in calls:
        await stage.until_busy()
        stage.hired[0].line.answer()
        await each


async def test_abandoned_while_waiting(stages: Any) -> None:
    """A call that nobody waits for leaves the queue, and takes no kernel."""
    stage = stages()
    stage.may_start.clear()
    call = crew.Call()
    waiting = stage.start(call)
    await stage.until(lambda: stage.crew._waiting)
    call.abandon()
    with pytest.raises(crew.Abandoned):
        await waiting
    stage.may_start.set()
    await stage.until(lambda: stage.hired)
    following = stage.start()
    await stage.until_busy()
    stage.hired[0].line.answer()

    assert await following is stage.hired[0]


async def test_abandoned_as_a_kernel_comes(stages: Any) -> None:
    """A call that is abandoned when it has just been given a kernel executes nothing on it."""
    stage = stages()
    call = crew.Call()
    waiting = stage.start(call)
    await stage.until(lambda: call.waiting is not None and call.waiting.done())
    call.abandon()
    with pytest.raises(crew.Abandoned):
        await waiting

    assert not stage.hired[0].line.is_busy
    assert list(stage.crew._idle) == stage.hired


async def test_cancelled_as_a_kernel_comes(stages: Any) -> None:
    """A kernel that was given to a call which is cancelled before it knows goes to the next."""
    stage = stages()
    call = crew.Call()
    waiting = stage.start(call)
    await stage.until(lambda: call.waiting is not None and call.waiting.done())
    waiting.cancel()
    await asyncio.wait({waiting})

    assert waiting.cancelled()
    assert list(stage.crew._idle) == stage.hired


@pytest.mark.parametrize("heeds", [True, False])
async def test_abandoned_while_answered(stages: Any, heeds: bool) -> None:
    """What nobody waits for is interrupted; a kernel that does not heed is replaced."""
    stage = stages()
    call = crew.Call()
    running = stage.start(call)
    await stage.until_busy()
    (worker,) = stage.hired
    worker.line.heeds = heeds
    call.abandon()
    with pytest.raises(crew.Abandoned):
        await running
    await stage.until(lambda: stage.crew._idle)

    assert worker.kernel.interrupts == 1
    assert (list(stage.crew._idle) == [worker]) is heeds
    assert len(stage.hired) == (1 if heeds else 2)


async def test_death(stages: Any) -> None:
    """A kernel that dies fails its call with how it died; who waits gets another."""
    stage = stages()
    first, second = stage.start(), stage.start()
    await stage.until_busy()
    stage.hired[0].kernel.how_it_died = "the kernel was killed by SIGKILL"
    with pytest.raises(errors.KernelDied, match=r"^The kernel was killed by SIGKILL\.$"):
        await first
    await stage.until(lambda: len(stage.hired) == 2 and stage.hired[1].line.is_busy)
    stage.hired[1].line.answer()

    assert await second is stage.hired[1]
    assert stage.dismissed == [(stage.hired[0], False)]


async def test_dead_while_idle(stages: Any) -> None:
    """A call is not given a kernel that has died meanwhile."""
    stage = stages()
    first = stage.start()
    await stage.until_busy()
    stage.hired[0].line.answer()
    await first
    stage.hired[0].kernel.how_it_died = "the kernel died"
    second = stage.start()
    await stage.until(lambda: len(stage.hired) == 2 and stage.hired[1].line.is_busy)
    stage.hired[1].line.answer()

    assert await second is stage.hired[1]


async def test_dies_before_it_is_ready(stages: Any) -> None:
    """Kernels that die while they are made ready are tried again, a few times."""
    stage = stages()
    left = [crew.KernelLost() for _ in range(crew.ATTEMPTS - 1)]
    stage.refuse = lambda: left.pop() if left else None
    call = stage.start()
    await stage.until_busy()
    stage.hired[0].line.answer()
    await call

    stage.hired[0].kernel.how_it_died = "the kernel died"
    stage.refuse = crew.KernelLost
    with pytest.raises(errors.KernelStartFailed):
        await stage.call()


async def test_cannot_be_made_ready(stages: Any) -> None:
    """All who wait are told why there will be no kernel; others are told at once, for a while."""
    stage, tries = stages(), []

    def refuse() -> errors.NbexecError:
        tries.append(1)
        return errors.CellFailed("no")

    stage.refuse = refuse
    for each in (stage.start(), stage.start(), stage.start()):
        with pytest.raises(errors.CellFailed):
            await each
    with pytest.raises(errors.CellFailed):
        await stage.call()

    assert len(tries) == 1


async def test_timeout(stages: Any) -> None:
    """A call that takes too long is told so, and so is one that waits too long for it."""
    stage = stages(timeout=0.3)
    first, second = stage.start(), stage.start()
    await stage.until_busy()
    stage.hired[0].line.heeds = False
    stage.may_start.clear()
    with pytest.raises(errors.CallTimeout, match="took longer than"):
        await first
    stage.may_start.set()
    await stage.until(lambda: second.done() or stage.hired[-1].line.is_busy)
    stage.hired[-1].line.answer()
    await asyncio.wait({second})

    assert stage.dismissed == [(stage.hired[0], False)]


async def test_single_use(stages: Any) -> None:
    """With a state for each request a kernel answers one call, then ends kindly; the next is ready before."""
    stage = stages(is_single_use=True)
    for number in range(3):
        call = stage.start()
        await stage.until(
            lambda number=number: len(stage.hired) > number and stage.hired[number].line.is_busy
        )
        stage.hired[number].line.answer()
        assert await call is stage.hired[number]
        await stage.until(lambda number=number: len(stage.hired) == number + 2)
    await stage.until(lambda: stage.crew.number == 1)

    assert stage.dismissed == [(worker, True) for worker in stage.hired[:3]]


async def test_shrinks(stages: Any) -> None:
    """Kernels that were not needed for some time end kindly, down to the minimum."""
    stage = stages(max_kernels=2, min_kernels=1, idle_timeout=1.0)
    calls = [stage.start(), stage.start()]
    await stage.until_busy(2)
    for each in stage.hired:
        each.line.answer()
    await asyncio.gather(*calls)
    await stage.until(lambda: stage.crew.number == 1 and bool(stage.dismissed))

    assert [is_asked for _, is_asked in stage.dismissed] == [True]


async def test_retired(stages: Any) -> None:
    """A crew that is retired answers those who wait, and has no kernel then."""
    stage = stages()
    calls = [stage.start(), stage.start()]
    await stage.until_busy()
    stage.crew.retire()
    for each in calls:
        await stage.until_busy()
        stage.hired[0].line.answer()
        await each
    await stage.until(lambda: stage.crew.number == 0)

    assert stage.dismissed == [(stage.hired[0], True)]


async def test_retired_while_calls_wait(stages: Any) -> None:
    """However long calls wait for a crew that is retired, it starts nothing that they do not need."""
    stage = stages(min_kernels=1, max_kernels=2)
    calls = [stage.start(), stage.start(), stage.start()]
    await stage.until_busy(2)
    stage.crew.retire()
    looks = count_looks(stage.crew)
    await stage.until(lambda: len(looks) > 1)
    for number in range(3):
        await stage.until_busy(min(2, 3 - number))
        next(each for each in stage.hired if each.line.is_busy).line.answer()
        await stage.until(lambda number=number: sum(each.done() for each in calls) == number + 1)
    await stage.until(lambda: stage.crew.is_over)

    assert len(stage.hired) == 2


async def test_retired_while_it_starts(stages: Any) -> None:
    """Of a crew that is retired, nobody waits for kernels that nobody waits for."""
    stage = stages()
    stage.may_start.clear()
    stage.crew.start(1)
    await asyncio.sleep(0)
    stage.crew.retire()
    await stage.until(lambda: stage.crew.is_over)

    assert stage.hired == []


async def test_retired_with_a_call_that_has_just_come(stages: Any) -> None:
    """A call that has found a crew before it was retired is answered, by one kernel."""
    stage = stages(min_kernels=1)
    stage.crew.retire()
    call = stage.start()
    await stage.until_busy()
    stage.hired[0].line.answer()
    await call
    await stage.until(lambda: stage.crew.is_over)

    assert len(stage.hired) == 1


async def test_stopped_while_calls_wait(stages: Any) -> None:
    """A crew that is stopped while calls wait starts nothing for them, and ends when its patience does."""
    stage = stages()
    calls: list[Awaitable[Any]] = [stage.start(), stage.start()]
    await stage.until_busy()
    looks = count_looks(stage.crew)
    stopping = asyncio.create_task(stage.crew.stop(2 * crew.TICK + 0.1))
    await stage.until(lambda: len(looks) > 1)
    await stopping
    for each in calls:
        with pytest.raises(errors.Stopping):
            await each

    assert len(stage.hired) == 1


async def test_stopped_as_a_kernel_comes(stages: Any) -> None:
    """A call that has been given a kernel, and not yet taken it, is told as well."""
    stage = stages()
    first, second = stage.start(), stage.start()
    await stage.until_busy()
    stage.hired[0].line.answer()
    await stage.until(lambda: stage.crew._busy and not stage.crew._waiting)
    await stage.crew.stop(0.0)

    await first
    with pytest.raises(errors.Stopping):
        await second


async def test_abandoned_before_it_waits(stages: Any) -> None:
    """A call that is abandoned on its way to a kernel takes no place, and has none started."""
    stage = stages()
    call = crew.Call()
    call.abandon()
    with pytest.raises(crew.Abandoned):
        await stage.call(call)

    assert (stage.crew.number, stage.hired) == (0, [])


async def test_minimum_is_kept(stages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that dies young is replaced though nobody calls."""
    monkeypatch.setattr(crew, "SLOW_TICK", 0.05)
    stage = stages(min_kernels=1)
    stage.crew.start(1)
    await stage.crew.ready()
    stage.hired[0].kernel.how_it_died = "by itself"
    await stage.until(lambda: len(stage.hired) == 2)
    await stage.crew.ready()

    assert stage.crew.number == 1


async def test_wait_for_a_kernel_that_starts_is_bounded(stages: Any) -> None:
    """A call waits longer for a kernel that is being started, but not without end."""
    stage = stages(timeout=0.01, start_timeout=0.5)
    stage.may_start.clear()
    with pytest.raises(errors.CallTimeout, match=r"No kernel was free for 0\.51 s"):
        await stage.call()
    stage.may_start.set()
    await stage.crew.ready()

    assert stage.crew.number == 1


async def test_failures_are_each_callers_own(stages: Any) -> None:
    """Callers that are refused for the same reason do not share the exception, which has their frames."""
    stage = stages()
    stage.refuse = lambda: errors.KernelStartFailed("no")
    found = []
    for _ in range(3):
        with pytest.raises(errors.KernelStartFailed) as caught:
            await stage.call()
        found.append(caught.value)

    assert len({id(each) for each in found}) == 3
    assert {each.message for each in found} == {"no"}


async def test_kernel_that_cannot_be_interrupted(stages: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A kernel whose interrupt fails, however that is, is replaced."""
    stage = stages(min_kernels=1)
    call = crew.Call()
    task = stage.start(call)
    await stage.until_busy()
    (worker,) = stage.hired

    async def fail() -> None:
        raise OSError("no")

    worker.kernel.interrupt = fail
    call.abandon()
    with pytest.raises(crew.Abandoned):
        await task
    await stage.until(lambda: stage.dismissed)

    assert stage.dismissed == [(worker, False)]
    assert "cannot be interrupted" in caplog.text


def count_looks(watched: crew.Crew) -> list[None]:
    """A list that grows each time a crew looks after itself."""
    looks: list[None] = []
    look = watched._look

    async def counted() -> None:
        await look()
        looks.append(None)

    watched._look = counted  # type: ignore[method-assign]
    return looks


async def test_stopped(stages: Any) -> None:
    """A crew that is stopped tells all who wait or are answered, and takes no more calls."""
    stage = stages()
    calls: list[Awaitable[Any]] = [stage.start(), stage.start()]
    await stage.until_busy()
    await stage.crew.stop(0.0)
    for each in calls:
        with pytest.raises(errors.Stopping):
            await each
    with pytest.raises(errors.Stopping):
        await stage.call()


async def test_stopped_with_patience(stages: Any) -> None:
    """A crew that is stopped lets calls end that end in time."""
    stage = stages()
    call = stage.start()
    await stage.until_busy()
    stopping = asyncio.create_task(stage.crew.stop(DEADLINE))
    await asyncio.sleep(0)
    stage.hired[0].line.answer()

    assert await call is stage.hired[0]
    await stopping


async def test_log_of_a_janitor_that_fails(stages: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A look that fails is logged, and the next one is had all the same."""
    stage = stages()
    call = stage.start()
    await stage.until_busy()
    (worker,) = stage.hired
    death, looks = worker.kernel.death, []

    async def fail() -> str | None:
        looks.append(1)
        if len(looks) == 1:
            raise OSError("no")
        return None

    worker.kernel.death = fail
    await stage.until(lambda: len(looks) > 1)
    worker.kernel.death = death
    worker.line.answer()
    await call

    assert "kernels of a service" in caplog.text
