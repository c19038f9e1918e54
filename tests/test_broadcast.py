"""Events of runs: what readers get, whenever they come, and what is kept for them."""

from __future__ import annotations

import asyncio
import json
import math
import re
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import anyio
import hypothesis
import pytest
from hypothesis import strategies as st

from jupyter_nbexec import broadcast
from tests.replay import Replay, Told

pytestmark = pytest.mark.anyio


async def read(log: broadcast.EventLog, after: int = 0, *, turns: int = 0) -> list[int]:
    """Read a log to its end, the slower the more turns of the loop are taken in between; the ids."""
    ids = []
    async for event in log.follow(after):
        ids.append(event.id)
        for _ in range(turns):
            await asyncio.sleep(0)
    return ids


def told(events: Sequence[broadcast.Event]) -> list[Told]:
    """Write events as they are replayed."""
    return [(event.type, event.data.get("cell"), event.data) for event in events]


def text(cell: int, written: str) -> tuple[str, dict[str, Any]]:
    """What an event says of text that a cell wrote."""
    return "output", {"cell": cell, "output_type": "stream", "name": "stdout", "text": written}


# Readers


async def test_followers() -> None:
    """A hundred readers get the same events in order, from where each wants, however slow each is."""
    log = broadcast.EventLog()
    tasks = []
    for number in range(300):
        log.append("status", {"n": number})
        if number % 3 == 0:
            after = number * 7 % 400
            tasks.append((after, asyncio.create_task(read(log, after, turns=number % 10))))
        await asyncio.sleep(0)
    log.close()
    with anyio.fail_after(20):
        read_ids = [await task for _, task in tasks]

    assert len(tasks) == 100
    for (after, _), ids in zip(tasks, read_ids, strict=True):
        # One that claims to have had more than there is gets what comes from then on.
        assert ids == list(range(ids[0], 301))
        assert ids[0] == after + 1 or ids[0] <= after


async def test_vanished_followers() -> None:
    """Readers that go away, waiting or reading, leave the others as they were, and nothing behind."""
    log = broadcast.EventLog()
    before = asyncio.all_tasks()
    stays = asyncio.create_task(read(log))
    gone = [asyncio.create_task(read(log, turns=number % 3)) for number in range(99)]
    for number in range(99):
        log.append("status", {})
        await asyncio.sleep(0)
        gone[number].cancel()
    log.close()
    await asyncio.gather(*gone, return_exceptions=True)

    with anyio.fail_after(5):
        assert await stays == list(range(1, 100))
    assert all(task.cancelled() for task in gone)
    assert asyncio.all_tasks() == before


async def test_live_event() -> None:
    """A reader that waits is told as soon as there is something."""
    log = broadcast.EventLog()
    events = log.follow()
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    assert not waiting.done()
    event = log.append("status", {"status": "queued"})

    with anyio.fail_after(5):
        assert await waiting is event
    assert event == broadcast.Event(id=1, type="status", data={"status": "queued"})


@pytest.mark.parametrize(("after", "ids"), [(0, [1, 2, 3]), (2, [3]), (3, []), (50, [3])])
async def test_following_after_the_end(after: int, ids: list[int]) -> None:
    """What has ended is read like what goes on; who missed the end by a wrong count gets it."""
    log = broadcast.EventLog()
    for kind in ("status", "status", "end"):
        log.append(kind, {})
    log.close()

    assert await read(log, after) == ids


async def test_readers_take_turns() -> None:
    """One that has much to catch up on does not keep the loop to itself."""
    log = broadcast.EventLog()
    for _ in range(1000):
        log.append("status", {})
    log.close()
    other = asyncio.create_task(asyncio.sleep(0))
    async for event in log.follow():
        had = event.id
        if other.done():
            break

    assert had < 10


def test_closed() -> None:
    """Nothing comes after the end."""
    log = broadcast.EventLog()
    log.close()

    with pytest.raises(RuntimeError):
        log.append("status", {})


def test_dump_and_load() -> None:
    """What is stored is read again as it was, without the end, which is made from the run."""
    log = broadcast.EventLog()
    events = [log.append("status", {"status": "running"}), log.append(*text(0, "a")), log.append("end", {})]

    stored = json.loads(json.dumps(log.dump()))
    assert broadcast.load(stored) == events[:2]
    assert log.last_id == 3


# What is kept


@pytest.mark.parametrize("wait", [True, False])
def test_bound(wait: bool) -> None:
    """A cell that clears its outputs and shows new ones for ever takes no more and no more memory."""
    log = broadcast.EventLog(1 << 20)
    largest = 0
    tracemalloc.start()
    for number in range(3000):
        log.append("clear", {"cell": 0, "wait": wait})
        log.append(*text(0, f"{number:10000}"))
        largest = max(largest, log.size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert largest < 1.1 * (1 << 20)
    assert peak < 3 << 20
    events = broadcast.load(log.dump())
    assert events[-1].id == 6000
    assert Replay(told(events)).outputs[0][0]["text"] == f"{2999:10000}"


def test_bound_of_updates() -> None:
    """Of a display that is updated without end the last updates are kept."""
    log = broadcast.EventLog(100_000)
    log.append("output", {"cell": 0, "output_type": "display_data", "display_id": "d"})
    for number in range(10_000):
        log.append("update", {"cell": None, "display_id": "d", "data": {"n": number}, "metadata": {}})

    assert log.size < 100_000
    assert Replay(told(broadcast.load(log.dump()))).outputs[0][0]["data"] == {"n": 9999}


def test_what_is_needed_stays() -> None:
    """A log that is too large keeps what readers need, and does not look for more with every event."""
    log = broadcast.EventLog(1000)
    for number in range(1000):
        log.append(*text(number, "x"))

    assert [event[0] for event in log.dump()] == list(range(1, 1001))


CELLS, DISPLAYS = st.integers(0, 2), st.sampled_from(["d", "e"])


def _output(cell: int, display: str | None, number: int) -> tuple[str, dict[str, Any]]:
    shown = {} if display is None else {"display_id": display}
    data = {"output_type": "display_data", "data": {"n": number}, "metadata": {}}
    return "output", {"cell": cell, **data, **shown}


def _update(display: str, number: int) -> tuple[str, dict[str, Any]]:
    return "update", {"cell": None, "display_id": display, "data": {"n": -number}, "metadata": {"m": 1}}


EVENTS = st.lists(
    st.one_of(
        st.builds(text, CELLS, st.sampled_from(["", "a", "b"])),
        st.builds(_output, CELLS, st.none() | DISPLAYS, st.integers(1, 9)),
        st.builds(lambda cell, wait: ("clear", {"cell": cell, "wait": wait}), CELLS, st.booleans()),
        st.builds(_update, DISPLAYS, st.integers(1, 9)),
        st.builds(lambda cell: ("cell", {"cell": cell, "state": "started"}), CELLS),
    ),
    max_size=40,
)


@hypothesis.given(EVENTS, st.sets(st.integers(0, 40)), st.integers(0, 40))
def test_nothing_needed_is_dropped(
    events: list[tuple[str, dict[str, Any]]], prunes: set[int], seen: int
) -> None:
    """Readers have the same in the end, whether they saw all, what was kept, or the rest of it only."""
    whole, pruned = broadcast.EventLog(), broadcast.EventLog()
    for place, event in enumerate(events):
        if place in prunes or place == len(events) - 1:
            pruned._prune_above = 0
        whole.append(*event)
        pruned.append(*event)
    complete, kept = broadcast.load(whole.dump()), broadcast.load(pruned.dump())
    resumed = [*complete[:seen], *(event for event in kept if event.id > seen)]

    assert Replay(told(kept)).state == Replay(told(complete)).state
    assert Replay(told(resumed)).state == Replay(told(complete)).state
    assert kept[-1:] == complete[-1:]
    assert all(earlier.id < later.id for earlier, later in pairwise(kept))
    assert pruned.size == sum(event.size for event in kept)


# What is gathered


@hypothesis.given(EVENTS, st.sets(st.integers(0, 40)))
def test_gathered_events_say_the_same(events: list[tuple[str, dict[str, Any]]], flushes: set[int]) -> None:
    """What is left out in gathering makes no difference to what a reader has in the end."""
    gathered: list[Told] = []

    async def gather() -> None:
        gatherer = broadcast.Gatherer(lambda *event: gathered.append(event))
        for place, (kind, data) in enumerate(events):
            if data.get("output_type") == "stream":
                gatherer.add_text(data["cell"], "stdout", [data["text"]], 1)
            else:
                gatherer.add(kind, data["cell"], {k: v for k, v in data.items() if k != "cell"}, 1)
            if place in flushes:
                gatherer.flush()
        gatherer.flush()

    asyncio.run(gather())
    plain = [(kind, data["cell"], {k: v for k, v in data.items() if k != "cell"}) for kind, data in events]

    assert Replay(gathered).state == Replay(plain).state
    assert [event for event in gathered if event[0] == "cell"] == [e for e in plain if e[0] == "cell"]


async def test_flood_is_few_events() -> None:
    """The first event is told at once, those after it together, and large ones before they are many."""
    events: list[Told] = []
    came = anyio.Event()

    def tell(*event: Any) -> None:
        events.append(event)
        came.set()

    gatherer = broadcast.Gatherer(tell)
    gatherer.add_text(0, "stdout", ["first"], 5)
    with anyio.fail_after(5):
        await came.wait()
    assert events == [("output", 0, {"output_type": "stream", "name": "stdout", "text": "first"})]

    for _ in range(100):
        gatherer.add_text(0, "stdout", ["x"], 1)
    gatherer.add_text(0, "stderr", ["y"], 1)
    assert len(events) == 1
    came = anyio.Event()
    with anyio.fail_after(5):
        await came.wait()
    assert [event[2]["text"] for event in events[1:]] == ["x" * 100, "y"]

    for _ in range(21):
        gatherer.add("output", 0, {}, broadcast.MAX_GATHERED // 10)
    assert len(events) == 3 + 20


async def test_gathering_leaves_no_timer() -> None:
    """After a flush nothing is waiting; nothing is told twice."""
    events: list[Told] = []
    gatherer = broadcast.Gatherer(lambda *event: events.append(event))
    gatherer.add("cell", 0, {})
    gatherer.flush()
    gatherer.flush()

    assert events == [("cell", 0, {})]
    assert gatherer._timer is None


# What is sent

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(
        ["\n", "\r\n", "a\u2028b\u2029c\x85\x0b\x0c\x1c\x1d\x1e", "\ud800", "data: x\n\nid: 7"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def parse_sse(stream: bytes) -> list[dict[str, str]]:
    """Read an event stream as the specification says."""
    events = []
    fields: dict[str, list[str]] = {}
    for line in re.split("\r\n|\n|\r", stream.decode()):
        if not line:
            if "data" in fields:
                events.append({name: "\n".join(values) for name, values in fields.items()})
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
    return events


def as_json(value: Any) -> Any:
    """What is left of a value in strict JSON."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [as_json(each) for each in value]
    if isinstance(value, dict):
        return {as_json(key): as_json(each) for key, each in value.items()}
    return value


@hypothesis.given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=3))
def test_encoded_events_are_read_again(data: list[dict[str, Any]]) -> None:
    """Whatever an event holds, a parser gets it back as strict JSON, from one line."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    events = [broadcast.Event(number, "output", each) for number, each in enumerate(data, start=1)]
    stream = b"".join(broadcast.KEEP_ALIVE + broadcast.encode_sse(event) for event in events)
    parsed = parse_sse(stream)

    assert [event["id"] for event in parsed] == [str(event.id) for event in events]
    assert all(event["event"] == "output" for event in parsed)
    assert [json.loads(event["data"], parse_constant=refuse) for event in parsed] == as_json(data)
    # Clients in Python split lines at more than the specification says.
    assert len(stream.decode().splitlines()) == 6 * len(events)


async def test_encoded_once() -> None:
    """A hundred readers at once share what is sent of an event, however large; one may go away."""
    for size in (10, 2 * broadcast.LARGE):
        event = broadcast.Event(1, "end", {"text": "x" * size})
        tasks = [asyncio.create_task(broadcast.encode(event)) for _ in range(100)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        with anyio.fail_after(20):
            encoded = await asyncio.gather(*tasks[1:])

        assert len({id(each) for each in encoded}) == 1
        assert encoded[0] is broadcast.encode_sse(event)
        assert json.loads(parse_sse(encoded[0])[0]["data"]) == event.data
    assert broadcast._being_encoded == {}


def test_cache_is_bounded() -> None:
    """What was encoded is kept for a while only, and what is too large is not kept at all."""
    cache = broadcast._Cache(100)
    events = [broadcast.Event(number, "status", {}) for number in range(10)]
    for event in events:
        cache.put(event, b"x" * 30)
        assert cache.get(events[0]) is not None  # it is used again and again
    cache.put(broadcast.Event(11, "status", {}), b"x" * 101)

    assert [event.id for event in events if cache.get(event)] == [0, 8, 9]
    assert cache._bytes == 90


def test_size() -> None:
    """An event's size grows with all that it holds."""
    empty = broadcast.Event(1, "output", {})
    image = broadcast.Event(1, "output", {"data": {"image/png": "x" * 1000}})
    numbers = broadcast.Event(1, "output", {"data": list(range(1000))})

    assert 1000 < image.size - empty.size < 1500
    assert numbers.size > 10_000


@pytest.mark.parametrize(
    ("data", "values"),
    [([[1, 2] * 50] * 20_000, 2_000_000), ({f"key {i}": i for i in range(300_000)}, 300_000)],
)
def test_size_of_what_is_large(data: Any, values: int) -> None:
    """The size of an event is told without looking at all of it, and is about right."""
    assert 16 < broadcast.Event(1, "output", {"a": data}).size / values < 64
