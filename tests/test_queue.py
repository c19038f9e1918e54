"""Runs that outlive their requests: queued in the store, followed, repeated, cancelled, taken up again."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from jupyter_nbexec import errors, live, membership, models, runs
from jupyter_nbexec import store as stores
from tests.machinery import Stage

pytestmark = pytest.mark.anyio

ASYNC = runs.Claim(is_async=True)
Play = Callable[..., Stage]


@pytest.fixture
async def play(tmp_path: Path) -> AsyncIterator[Play]:
    """Make stages on one store; all are cleared afterwards."""
    stages: list[Stage] = []

    def make(**settings: Any) -> Stage:
        stages.append(Stage(tmp_path, **settings))
        return stages[-1]

    yield make
    for stage in stages:
        await stage.manager.stop()


async def status(stage: Stage, run_id: str) -> tuple[str, str | None]:
    """Status and error code once it has ended."""
    with anyio.fail_after(20):
        record = (await stage.manager.wait(run_id)).record
    return record.status.value, None if record.error is None else record.error.code.value


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what has no event of its own."""
    with anyio.fail_after(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_async(play: Play) -> None:
    """A run that nobody waits for is executed and remembered; nothing of it stays in memory."""
    stage = play()
    run_id = await stage.submit_async("print(1)")

    assert await status(stage, run_id) == ("succeeded", None)
    assert stage.manager._runs == {}
    view = await stage.manager.view(run_id)
    assert view.notebook is not None
    assert [cell["source"] for cell in view.notebook["cells"]] == ["print(1)"]
    assert stage.ledger.entries == [("queued", run_id), ("started", run_id), ("succeeded", run_id)]


async def test_order_of_admission(play: Play) -> None:
    """Asynchronous runs start in the order in which they were admitted."""
    stage = play(max_concurrent_runs=2)
    names = [f"n{number}" for number in range(12)]
    submitted = [await stage.submit_async(name) for name in names]
    for run_id in submitted:
        assert await status(stage, run_id) == ("succeeded", None)

    assert stage.order == names


async def test_a_heartbeat_that_counted_too_early(play: Play) -> None:
    """A run that was submitted while a heartbeat counted none is not left waiting for the next one."""
    stage = play()
    stage.is_open = False
    await stage.submit("first")
    stage.manager._membership._stopped.set()  # and there is no next one
    run_id = await stage.submit_async("second")
    stage.manager._on_beat(membership.Beat(queued=0))
    stage.is_open = True

    assert await status(stage, run_id) == ("succeeded", None)
    assert stage.order == ["first", "second"]


async def test_a_flood_leaves_a_place(play: Play) -> None:
    """However many asynchronous runs wait, the last place is for those that somebody waits for."""
    stage = play(max_concurrent_runs=2)
    stage.is_open = False
    for number in range(5):
        await stage.submit_async(f"flood {number}")
    await until(lambda: len(stage.order) == 1)
    waited_for = await stage.submit("quick")
    await until(lambda: "quick" in stage.order)
    stage.is_open = True

    assert await status(stage, waited_for.id) == ("succeeded", None)
    assert stage.order[:2] == ["flood 0", "quick"]


async def test_queues_take_turns(play: Play) -> None:
    """With one place, both queues get it in turns."""
    stage = play(max_concurrent_runs=1)
    stage.is_open = False
    first = await stage.submit("first")
    others = [await stage.submit_async("a1"), await stage.submit_async("a2")]
    others += [(await stage.submit(name)).id for name in ("s1", "s2")]
    stage.is_open = True
    for run_id in (first.id, *others):
        await status(stage, run_id)

    assert stage.order[0] == "first"
    assert sorted(stage.order[1:3]) == ["a1", "s1"]
    assert sorted(stage.order[3:5]) == ["a2", "s2"]


async def test_a_full_queue(play: Play) -> None:
    """More asynchronous runs than may wait are refused; those that somebody waits for are counted apart."""
    stage = play(max_queued_async_runs=2)
    stage.is_open = False
    await stage.submit_async("runs")
    await until(lambda: stage.order == ["runs"])
    await stage.submit_async("waits")
    await stage.submit_async("waits")
    with pytest.raises(errors.QueueFull):
        await stage.submit_async("refused")
    waiting = await stage.submit("waits, too")
    stage.is_open = True

    assert await status(stage, waiting.id) == ("succeeded", None)


async def test_many_at_once(play: Play) -> None:
    """However many come in the same moment, no more are admitted than there are places."""
    stage = play(max_concurrent_runs=2, max_queued_runs=3, max_queued_async_runs=4)
    stage.is_open = False
    await stage.manager.start()
    waited_for = await asyncio.gather(*(stage.submit(f"s{n}") for n in range(20)), return_exceptions=True)
    others = await asyncio.gather(*(stage.submit_async(f"a{n}") for n in range(20)), return_exceptions=True)
    refused = [sum(isinstance(each, errors.QueueFull) for each in group) for group in (waited_for, others)]
    stage.is_open = True

    assert refused == [20 - 2 - 3, 20 - 4]


async def test_a_stop_keeps_the_queue(play: Play) -> None:
    """What is queued when a server stops is executed by the next; what runs is closed, with its outputs."""
    stage = play()
    stage.act = stage.obey
    running = await stage.submit_async("first")
    await until(lambda: stage.order == ["first"])
    queued = [await stage.submit_async(name) for name in ("second", "third")]
    await stage.manager.stop()
    successor = play()
    await successor.manager.start()

    assert await status(successor, running) == ("failed", "server_stopped")
    assert [await status(successor, run_id) for run_id in queued] == 2 * [("succeeded", None)]
    assert successor.order == ["second", "third"]


async def test_draining(play: Play) -> None:
    """A stop may let what runs come to its end; what waits is closed or kept at once."""
    stage = play(drain_timeout=20)
    stage.is_open = False
    running, waiting = await stage.submit("first"), await stage.submit("second")
    await until(lambda: stage.order == ["first"])
    stopping = asyncio.create_task(stage.manager.stop())
    await waiting.wait()
    with pytest.raises(errors.Stopping):
        await stage.submit("third")
    stage.is_open = True
    with anyio.fail_after(20):
        await stopping

    assert (running.status, waiting.status) == ("succeeded", "failed")
    assert waiting.error is not None
    assert waiting.error.code is models.ErrorCode.SERVER_STOPPED


async def test_lost_environment(play: Play) -> None:
    """A queued run whose `env` is lost with its server is closed, not executed without it."""
    stage = play()
    stage.act = stage.obey
    await stage.submit("first")
    run_id = await stage.submit_async("second", env={"SECRET": "s3cr3t"})
    await stage.manager.stop()
    successor = play()
    await successor.manager.start()

    assert await status(successor, run_id) == ("failed", "server_stopped")
    assert successor.order == []


async def test_environment_is_kept_apart(play: Play, tmp_path: Path) -> None:
    """A queued run gets its `env`; the store never does."""
    stage = play()
    stage.is_open = False
    await stage.submit("first")
    run_id = await stage.submit_async("second", env={"NAME": "s3cr3t"})
    stage.is_open = True

    assert await status(stage, run_id) == ("succeeded", None)
    assert stage.source.environments == [{}, {"NAME": "s3cr3t"}]
    async for path in anyio.Path(tmp_path).glob("runs.sqlite*"):
        assert b"s3cr3t" not in await path.read_bytes()


async def test_same_key(play: Play) -> None:
    """The same key is the same run, whoever is first, while it runs, after it, and after a restart."""
    stage = play()
    stage.is_open = False
    claim = runs.Claim(is_async=True, key="k", fingerprint="f")
    plan = await stage.plan("once")
    made = await asyncio.gather(*(stage.manager.submit(plan, claim) for _ in range(20)))
    stage.is_open = True
    ids = {record.id for record, _ in made}
    run_id = ids.pop()

    assert not ids
    assert sum(is_new for _, is_new in made) == 1
    assert await status(stage, run_id) == ("succeeded", None)
    assert stage.order == ["once"]
    await stage.manager.stop()
    found = await play().manager.find(claim)
    assert found is not None
    assert found.id == run_id


async def test_somebody_waits_for_a_detached_run(play: Play) -> None:
    """A run that goes on without its client is in both queues, and executed once."""
    stage = play(max_concurrent_runs=3)
    stage.is_open = False
    blocking = [await stage.submit("first") for _ in range(3)]
    runs_ = []
    for number in range(10):
        claim = runs.Claim(is_detached=True, key=str(number), fingerprint="f")
        runs_.append((await stage.manager.submit(await stage.plan(f"n{number}"), claim))[0].id)
    cancelled = runs_.pop()
    await stage.manager.cancel(cancelled)
    stage.is_open = True

    assert [await status(stage, run_id) for run_id in runs_] == 9 * [("succeeded", None)]
    assert await status(stage, cancelled) == ("cancelled", None)
    assert sorted(stage.order[len(blocking) :]) == [f"n{number}" for number in range(9)]


async def test_what_others_can_execute(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    """A run that this server cannot execute waits, and says why; it is in nobody's way, and no activity."""
    stage = play()
    stage.missing = {"rare"}
    claim = runs.Claim(is_async=True)
    plan = dataclasses.replace(await stage.plan("rare"), kernel_name="rare")
    waiting, _ = await stage.manager.submit(plan, claim)
    assert await status(stage, await stage.submit_async("usual")) == ("succeeded", None)
    await until(lambda: stage.ledger.stranded == 1)

    (warning,) = (await stage.manager.get(waiting.id)).warnings
    assert "It has no kernel 'rare'." in warning
    assert (await stage.manager.view(waiting.id)).record.warnings == (warning,)
    assert "It has no kernel 'rare'." in caplog.text
    assert stage.manager.unfinished == 0
    stage.missing = set()
    stage.manager._on_beat(membership.Beat(queued=1))
    assert await status(stage, waiting.id) == ("succeeded", None)
    assert stage.order == ["usual", "rare"]
    stage.manager._on_beat(membership.Beat(queued=0))
    assert stage.ledger.stranded == 0


async def test_many_that_others_can_execute(play: Play) -> None:
    """However many runs wait that a server cannot execute, it finds the one behind them that it can."""
    stage = play()
    stage.missing = {"rare"}
    plan = dataclasses.replace(await stage.plan("rare"), kernel_name="rare")
    for _ in range(stores.PAGE + 1):
        await stage.manager.submit(plan, runs.Claim(is_async=True))

    assert await status(stage, await stage.submit_async("usual")) == ("succeeded", None)
    await until(lambda: stage.ledger.stranded == stores.PAGE + 1)


async def test_a_stop_before_the_first_cell(play: Play) -> None:
    """A run that has a kernel, but no cell sent, when its server stops is executed by the next one."""
    stage = play()
    asked = asyncio.Event()

    async def never(_path: str) -> bool:
        asked.set()
        await until(lambda: stage.manager._is_stopping)
        return True

    stage.performer._has_folder = never
    run_id = await stage.submit_async("late")
    await asyncio.wait_for(asked.wait(), 60)
    assert (await stage.manager.get(run_id)).status is models.RunStatus.RUNNING
    await stage.manager.stop()
    successor = play()
    await successor.manager.start()

    assert await status(successor, run_id) == ("succeeded", None)
    assert (stage.order, successor.order) == ([], ["late"])
    assert [kind for kind, _ in stage.ledger.entries] == ["queued", "started", "queued"]


async def test_others_have_it_before_the_first_cell(play: Play) -> None:
    """A server that was held for dead sends no cell of a run that others have taken; its end is told."""
    stage, other = play(), play()
    await other.manager.start()

    async def take(_path: str) -> bool:
        stage.store.recover([stage.manager._membership.id], live.now())
        other.manager._on_beat(membership.Beat(queued=1))
        await until(lambda: other.order == ["late"])
        return True

    stage.performer._has_folder = take
    run_id = await stage.submit_async("late")

    assert await status(stage, run_id) == ("succeeded", None)
    assert (stage.order, other.order) == ([], ["late"])
    assert stage.manager.unfinished == 0


async def test_a_folder_that_is_gone(play: Play) -> None:
    """A run whose folder is not there any more fails, rather than be executed in another one."""
    stage = play()

    async def has_folder(_path: str) -> bool:
        return False

    stage.performer._has_folder = has_folder
    assert await status(stage, await stage.submit_async("a")) == ("failed", "kernel_start_failed")
    assert stage.order == []


async def test_same_key_for_another_request(play: Play) -> None:
    """A key that was used for something else is refused."""
    stage = play()
    await stage.submit_async(claim=runs.Claim(is_async=True, key="k", fingerprint="f"))
    other = runs.Claim(is_async=True, key="k", fingerprint="g")
    with pytest.raises(errors.IdempotencyMismatch):
        await stage.manager.find(other)
    with pytest.raises(errors.IdempotencyMismatch):
        await stage.submit_async(claim=other)


async def test_cancel_queued(play: Play) -> None:
    """A queued run that is cancelled never starts, and cannot be cancelled again."""
    stage = play()
    stage.act = stage.obey
    await stage.submit("first")
    run_id = await stage.submit_async("second")
    await stage.manager.cancel(run_id)
    with pytest.raises(errors.RunEnded):
        await stage.manager.cancel(run_id)

    assert await status(stage, run_id) == ("cancelled", None)
    assert stage.order == ["first"]


async def test_delete(play: Play) -> None:
    """A run that is forgotten is gone; one that has not ended is cancelled first."""
    stage = play()
    stage.act = stage.obey
    run_id = await stage.submit_async()
    await until(lambda: stage.order == ["a"])
    with anyio.fail_after(20):
        await stage.manager.delete(run_id)
    with pytest.raises(errors.RunNotFound):
        await stage.manager.get(run_id)

    assert stage.ledger.entries[-1] == ("cancelled", run_id)


async def test_followers_agree(play: Play) -> None:
    """Who follows from the queue on, who comes later, and who comes after a restart sees the same events."""
    stage = play()
    stage.is_open = False
    await stage.submit("first")
    run_id = await stage.submit_async("second")

    async def follow(manager: runs.RunManager, after: int = 0) -> list[tuple[int, str, Any]]:
        with anyio.fail_after(20):
            return [(event.id, event.type, event.data) async for event in manager.follow(run_id, after)]

    early = asyncio.create_task(follow(stage.manager))
    await asyncio.sleep(0)
    stage.is_open = True
    seen = await early
    late = await follow(stage.manager)
    await stage.manager.stop()
    after_restart = await follow(play().manager)

    assert seen == late == after_restart
    assert [number for number, _, _ in seen] == list(range(1, len(seen) + 1))
    assert [kind for _, kind, _ in seen] == ["status", "status", "status", "end"]
    assert [data["status"] for _, _, data in seen] == ["queued", "running", "running", "succeeded"]
    assert await follow(play().manager, after=3) == seen[3:]
    elsewhere = play().manager
    elsewhere.service = "/user/bob/api/nbexec"
    links = [data["links"]["self"] for _, _, data in await follow(elsewhere) if "links" in data]
    assert links
    assert set(links) == {f"/user/bob/api/nbexec/runs/{run_id}"}


async def test_followers_of_a_cancelled_run(play: Play) -> None:
    """A run that never started has an end all the same."""
    stage = play()
    stage.act = stage.obey
    await stage.submit("first")
    run_id = await stage.submit_async("second")

    async def follow() -> list[tuple[int, str]]:
        with anyio.fail_after(20):
            return [(event.id, event.data["status"]) async for event in stage.manager.follow(run_id)]

    early = asyncio.create_task(follow())
    await asyncio.sleep(0)
    await stage.manager.cancel(run_id)

    assert await early == await follow() == [(1, "queued"), (2, "cancelled")]


async def test_held_for_dead(play: Play) -> None:
    """A server whose runs others have closed ends them, and tells what the others have decided."""
    stage = play()
    stage.act = stage.obey
    run = await stage.submit()
    await until(lambda: stage.order == ["a"])
    closed = stage.store.recover([stage.manager._membership.id], run.admitted.created)
    stage.manager._on_beat(membership.Beat(is_alive=False))

    assert [record.id for record in closed] == [run.id]
    assert await status(stage, run.id) == ("failed", "server_stopped")
    assert (await stage.manager.get(run.id)).error == closed[0].error


async def test_a_store_that_is_begun_anew(play: Play) -> None:
    """A run that a new store has is not ended because that does not know its server yet."""
    stage = play()
    stage.is_open = False
    run = await stage.submit()
    await until(lambda: stage.order == ["a"])
    stage.manager._membership._stopped.set()
    stage.store.unregister(stage.manager._membership.id)
    beat = await asyncio.to_thread(stage.manager._membership._once)
    stage.manager._on_beat(beat)
    stage.is_open = True

    assert (beat.is_alive, beat.owned) == (False, [run.id])
    assert await status(stage, run.id) == ("succeeded", None)


async def test_nothing_runs_that_is_not_stored(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run cannot be stored it is refused, and its place is free for the next."""
    stage = play()
    await stage.manager.start()
    add = stage.store.add

    def fail(*_: Any) -> models.RunRecord:
        raise stores.StoreError("the disk is full")

    monkeypatch.setattr(stage.store, "add", fail)
    for submit in (stage.submit, stage.submit_async):
        with pytest.raises(errors.StorageUnavailable):
            await submit("lost")
    monkeypatch.setattr(stage.store, "add", add)
    run = await stage.submit("kept")

    assert await status(stage, run.id) == ("succeeded", None)
    assert stage.order == ["kept"]
    assert stage.manager.unfinished == 0


async def test_the_end_is_stored_later(
    play: Play, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run whose end cannot be stored is kept until it can."""
    monkeypatch.setattr(runs, "RETRY", 0.02)
    stage = play()
    finish, refusals = stage.store.finish, 3

    def fail(*args: Any) -> bool:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise stores.StoreError("locked")
        return finish(*args)

    monkeypatch.setattr(stage.store, "finish", fail)
    run_id = await stage.submit_async()

    assert await status(stage, run_id) == ("succeeded", None)
    assert caplog.text.count("its end is not stored yet") == 3


@pytest.mark.parametrize("is_answer_lost", [False, True])
async def test_the_start_is_stored_later(
    play: Play, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, is_answer_lost: bool
) -> None:
    """A run whose start cannot be stored waits until it can, and is executed once, even where it was."""
    monkeypatch.setattr(runs, "RETRY", 0.02)
    stage = play()
    stage.is_open = False
    await stage.submit("first")
    run = await stage.submit("second")
    claim, refusals = stage.store.claim, 3

    def fail(*args: Any) -> models.RunRecord | None:
        nonlocal refusals
        refusals -= 1
        if refusals == 2 and is_answer_lost:
            claim(*args)
        if refusals >= 0:
            raise stores.StoreError("the connection was lost")
        return claim(*args)

    monkeypatch.setattr(stage.store, "claim", fail)
    stage.is_open = True

    assert await status(stage, run.id) == ("succeeded", None)
    assert stage.order == ["first", "second"]
    assert caplog.text.count("its start is not stored yet") == 3
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_the_start_is_never_stored(
    play: Play, monkeypatch: pytest.MonkeyPatch, *, is_cancelled: bool
) -> None:
    """A run whose start cannot be stored ends when it is cancelled, or its server stops; it has not begun."""
    monkeypatch.setattr(runs, "RETRY", 0.02)
    stage = play()
    stage.is_open = False
    await stage.submit("first")
    run = await stage.submit("second")
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail(*_: Any) -> models.RunRecord | None:
        loop.call_soon_threadsafe(asked.set)
        raise stores.StoreError("the connection was lost")

    monkeypatch.setattr(stage.store, "claim", fail)
    stage.is_open = True
    with anyio.fail_after(20):
        await asked.wait()
        waiting = asyncio.create_task(stage.answer(run.id))
        await (stage.cancel(run) if is_cancelled else stage.manager.stop())
        told = await waiting

    end = (told["status"], told["error"] and told["error"]["code"])
    assert end == (("cancelled", None) if is_cancelled else ("failed", "server_stopped"))
    assert stage.order == ["first"]


async def test_a_start_that_fails_is_tried_again(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that could not be started, whatever the store has refused, is started by the next request."""
    stage = play()
    for name in ("open", "servers", "recover", "queued"):
        method = getattr(stage.store, name)

        def fail(*_: Any) -> Any:
            raise stores.StoreError("the connection was lost")

        monkeypatch.setattr(stage.store, name, fail)
        with pytest.raises(errors.StorageUnavailable):
            await stage.manager.start()
        monkeypatch.setattr(stage.store, name, method)
    run = await stage.submit()

    assert await status(stage, run.id) == ("succeeded", None)


async def test_the_end_is_never_stored(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a server stops and cannot store an end, its clients are told what the next server will say."""
    stage = play()
    run = await stage.submit()

    def fail(*_: Any) -> bool:
        raise stores.StoreError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(stage.store, "finish", fail)
        waiting = asyncio.create_task(stage.answer(run.id))
        await until(lambda: run.status.is_final)
        stopping = asyncio.create_task(stage.manager.stop())
        told = await waiting
        await stopping
    stage.store.open()
    stored = stage.store.get(run.id)

    assert (told["status"], told["result"], told["error"]["code"]) == ("failed", None, "server_stopped")
    assert stored is not None
    assert (stored.status.value, stored.error and stored.error.code.value) == ("failed", "server_stopped")


async def test_others_have_closed_it_and_cannot_say_how(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that others have closed is told when the store says how, and not before."""
    monkeypatch.setattr(runs, "RETRY", 0.02)
    stage = play()
    stage.act = stage.obey
    run = await stage.submit()
    await until(lambda: stage.order == ["a"])
    get, refusals = stage.store.get, 2

    def fail(*args: Any) -> models.RunRecord | None:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise stores.StoreError("locked")
        return get(*args)

    monkeypatch.setattr(stage.store, "get", fail)
    stage.store.recover([stage.manager._membership.id], run.admitted.created)
    stage.manager._on_beat(membership.Beat(is_alive=False))
    told = await stage.answer(run.id)

    assert (told["status"], told["error"]["code"]) == ("failed", "server_stopped")


async def test_an_answer_of_the_store_is_lost(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was given to a server without its knowing is closed, or waits again if it may."""
    stage = play(max_concurrent_runs=2)
    await stage.manager.start()

    def lose_answer(name: str) -> None:
        method = getattr(stage.store, name)

        def lost(*args: Any) -> Any:
            monkeypatch.setattr(stage.store, name, method)
            method(*args)
            raise stores.StoreError("the connection was lost")

        monkeypatch.setattr(stage.store, name, lost)

    lose_answer("add")
    with pytest.raises(errors.StorageUnavailable):
        await stage.submit("waited for")
    lose_answer("claim_next")
    claimed = await stage.submit_async("claimed")
    await until(lambda: len(stage.store.owned(stage.manager._membership.id)) == 2)
    for _ in range(2):
        owned = stage.store.owned(stage.manager._membership.id)
        stage.manager._on_beat(membership.Beat(owned=owned))

    assert await status(stage, claimed) == ("succeeded", None)
    await until(lambda: not stage.store.owned(stage.manager._membership.id))
    run = await stage.submit_async("next")
    assert await status(stage, run) == ("succeeded", None)
    assert stage.order == ["claimed", "next"]
    assert stage.manager.unfinished == 0


async def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    """Without its store the server refuses runs, says no more to clients, and can stop."""
    (tmp_path / "runs.sqlite").mkdir()
    stage = Stage(tmp_path)
    with pytest.raises(errors.StorageUnavailable) as refused:
        await stage.submit()
    await stage.manager.stop()

    assert str(tmp_path) not in refused.value.message


async def test_integrity(play: Play, tmp_path: Path) -> None:
    """What many runs leave is a sound database, which nobody else may read."""
    stage = play(max_concurrent_runs=4)
    submitted = [await stage.submit_async(f"n{number}") for number in range(20)]
    for run_id in submitted:
        await status(stage, run_id)
    with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()

    assert (tmp_path / "runs.sqlite").stat().st_mode & 0o777 == 0o600
