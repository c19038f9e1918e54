"""A run's events: gathered, told once, read by any number of readers, whenever and as fast as each likes.

Events are gathered where they happen, on the background loop: a flood of small things becomes few events, and
what is cleared at once becomes none. They are kept and read on the server's loop.

A log has no queue for each reader: a reader knows the id of the event that it had last, and nothing else is
kept for it. So one that is slow, or gone, costs nothing and holds up nobody.

An event keeps its data as it was given, which shares its large strings with the notebook. What is sent of it
is made when it is first asked for. Live readers all ask at about the same time, so what was made last is
kept, in a cache of `CACHE_BYTES` for all logs together; a reader that is far behind has it made again.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from operator import attrgetter, length_hint
from typing import Any, Final

from jupyter_nbexec import background, models, outputs

#: Keeps a connection, and proxies on the way, awake: a comment that readers skip.
KEEP_ALIVE: Final = b": keep-alive\n\n"
#: Bytes of events above which a log looks for what has become obsolete.
MAX_BYTES: Final = 16 << 20
#: Bytes of encoded events that are kept for the next reader.
CACHE_BYTES: Final = 16 << 20
#: Bytes of an event from which on it is encoded in a thread.
LARGE: Final = 256 << 10
#: Seconds for which events are gathered: at first, and once there were `MANY`.
GATHER, GATHER_LONG, MANY = 0.05, 1.0, 10_000
#: Bytes that are gathered at most.
MAX_GATHERED: Final = 1 << 20
#: About what the smallest event takes, and each value in one.
_EVENT_BYTES, _VALUE_BYTES = 400, 32
#: Values of an event that are looked at to learn its size, and keys of each object in it.
_MOST, _KEYS = 10_000, 20
#: What Python's `str.splitlines`, though not the specification of events, takes for an end of line; control
#: characters are escaped anyway.
_LINE_ENDS: Final = [(end.encode(), f"\\u{ord(end):04x}".encode()) for end in "\x85\u2028\u2029"]


@dataclass(frozen=True)
class Event:
    """Something that happened in a run. Its data must not be changed."""

    id: int
    type: str
    data: dict[str, models.JsonValue]

    @cached_property
    def size(self) -> int:
        """About how many bytes it takes; long strings are not looked through, nor more than `_MOST` values.

        What is left of these is taken to be like what was seen.
        """
        size = seen = 0
        pending: list[tuple[Iterator[models.JsonValue], int]] = [(iter((self.data,)), 1)]
        while pending and seen < _MOST:
            value = next(pending[-1][0], models.MISSING)
            if value is models.MISSING:
                pending.pop()
                continue
            seen += 1
            size += _VALUE_BYTES
            if isinstance(value, str):
                size += len(value)
            elif isinstance(value, dict):
                size += sum(map(len, islice(value, _KEYS)))
                pending.append((iter(value.values()), len(value)))
            elif isinstance(value, (list, tuple)):
                pending.append((iter(value), len(value)))
        shares = (number / max(1, number - length_hint(values)) for values, number in pending)
        return _EVENT_BYTES + int(size * max(shares, default=1))


class EventLog:
    """The events of one run, in the order of their ids. It belongs to one event loop.

    Above `max_bytes` it drops what its readers no longer need: outputs that were cleared, updates that were
    updated again. So ids grow, but there may be gaps; and what is kept is at most twice what is needed.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._events: list[Event] = []
        self._last = 0
        self._max_bytes = self._prune_above = max_bytes
        self._bytes = 0
        self._is_closed = False
        self._changed = asyncio.Event()

    @property
    def last_id(self) -> int:
        """Id of the newest event; 0 before the first."""
        return self._last

    @property
    def size(self) -> int:
        """About how many bytes the events take."""
        return self._bytes

    def append(self, type: str, data: dict[str, models.JsonValue]) -> Event:  # noqa: A002  # as the field is called
        """Tell all readers."""
        if self._is_closed:
            raise RuntimeError("the log is closed")
        self._last += 1
        event = Event(self._last, type, data)
        self._events.append(event)
        self._bytes += event.size
        if self._bytes > self._prune_above:
            self._prune()
        self._wake()
        return event

    def close(self) -> None:
        """Let readers end once they have all there is."""
        self._is_closed = True
        self._wake()

    async def follow(self, after: int = 0) -> AsyncIterator[Event]:
        """Give every event with a larger id than `after`, then those to come, until the log is closed.

        A reader that says it has had more than there ever was, as after a server was killed before it could
        save its events, gets what is new, and the last event in any case.
        """
        if after > self._last:
            after = self._last - self._is_closed
        while True:
            place = bisect_right(self._events, after, key=attrgetter("id"))
            if place < len(self._events):
                event = self._events[place]
                after = event.id
                yield event
                del event  # a reader that waits holds none
                # One that has much to catch up on, and can send without waiting, leaves room for others.
                await asyncio.sleep(0)
            elif self._is_closed:
                return
            else:
                await self._changed.wait()

    def dump(self) -> list[list[models.JsonValue]]:
        """List the events for the store, as `[id, type, data]`: without `end`, which is made from the run."""
        return [[event.id, event.type, event.data] for event in self._events if event.type != "end"]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _prune(self) -> None:
        """Drop what is obsolete, and do it again when there is twice as much as then."""
        self._events = _needed(self._events)
        self._bytes = sum(event.size for event in self._events)
        self._prune_above = max(self._max_bytes, 2 * self._bytes)


def load(dumped: Iterable[Sequence[models.JsonValue]]) -> list[Event]:
    """Make events of what `EventLog.dump` has listed."""
    return [Event(id, type, data) for id, type, data in dumped]  # noqa: A001


# What readers need


class _Later:
    """What is known of the events that come after one, for one who goes through them backwards."""

    def __init__(self) -> None:
        #: Cells whose outputs are cleared later, that have outputs later, and that are to be cleared before
        #: an output that has not come.
        self._cleared: set[models.JsonValue] = set()
        self._filled: set[models.JsonValue] = set()
        self._waiting: set[models.JsonValue] = set()
        self._updated: set[models.JsonValue] = set()

    def leaves(self, kind: str, cell: models.JsonValue, data: models.JsonValue) -> bool:
        """Whether what comes later leaves anything to be seen of an event."""
        if kind == "update":
            return _is_new(data.get("display_id"), self._updated)
        if kind not in ("output", "clear"):
            return True
        if cell in self._cleared:
            return False
        if kind == "output":
            self._filled.add(cell)
            return True
        if data.get("wait") and cell not in self._filled:
            return _is_new(cell, self._waiting)
        self._cleared.add(cell)
        return True


def _is_new(value: models.JsonValue, seen: set[models.JsonValue]) -> bool:
    is_new = value not in seen
    seen.add(value)
    return is_new


def _needed(events: list[Event]) -> list[Event]:
    """Leave out events that later ones made obsolete; the newest stays, so that its id is known."""
    later = _Later()
    newest = events[-1]
    kept = [
        event
        for event in reversed(events)
        if later.leaves(event.type, event.data.get("cell"), event.data) or event is newest
    ]
    # An update is for outputs that came before it.
    shown: set[models.JsonValue] = set()
    needed = []
    for event in reversed(kept):
        display = event.data.get("display_id")
        if event.type == "output":
            shown.add(display)
        if event.type != "update" or display in shown or event is newest:
            needed.append(event)
    return needed


# What is gathered


@dataclass(slots=True)
class _Gathered:
    """What is to become an event; a stream's text is in pieces until then."""

    kind: str
    cell: int | None
    data: dict[str, Any]
    texts: list[str] | None = None


class Gatherer:
    """Puts together what happens at about the same time, for the loop on which it is used.

    The first event after a pause is told at once, that is when the loop comes to it; then none are for
    `GATHER` seconds. Texts of one stream are joined, and what is cleared or updated meanwhile is left out.
    """

    def __init__(self, tell: Callable[[str, int | None, dict[str, Any]], object]) -> None:
        """`tell` is called with type, index of the cell, and data, for each event."""
        self._tell = tell
        self._gathered: list[_Gathered] = []
        self._bytes = 0
        self._has_obsolete = False
        self._told = 0
        self._told_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, kind: str, cell: int | None, data: dict[str, Any], size: int = 0) -> None:
        """Note an event. `size` is about how many bytes its data takes."""
        self._has_obsolete |= kind in ("clear", "update")
        self._gathered.append(_Gathered(kind, cell, data))
        self._grow(size)

    def add_text(self, cell: int, name: str, texts: list[str], size: int) -> None:
        """Note what was written to a stream."""
        last = self._gathered[-1] if self._gathered else None
        if last is None or last.texts is None or last.cell != cell or last.data["name"] != name:
            last = _Gathered("output", cell, {"output_type": "stream", "name": name}, [])
            self._gathered.append(last)
        last.texts += texts  # type: ignore[operator]  # it has some
        self._grow(size)

    def flush(self) -> None:
        """Tell what has been gathered. After the last event, this leaves no timer behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered = self._gathered, []
        self._bytes = 0
        if self._has_obsolete:
            self._has_obsolete = False
            later = _Later()
            gathered = [each for each in reversed(gathered) if later.leaves(each.kind, each.cell, each.data)]
            gathered.reverse()
        for each in gathered:
            if each.texts is not None:
                each.data["text"] = "".join(each.texts)
            self._tell(each.kind, each.cell, each.data)
        self._told += len(gathered)
        self._told_at = asyncio.get_running_loop().time()

    def _grow(self, size: int) -> None:
        self._bytes += size + _VALUE_BYTES
        if self._bytes > MAX_GATHERED:
            self.flush()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            pause = GATHER if self._told < MANY else GATHER_LONG
            self._timer = loop.call_at(max(loop.time(), self._told_at + pause), self.flush)


# What is sent


class _Cache:
    """The events that were encoded last. From any thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        # By identity: that an event is here keeps its identity from being given to another.
        self._encoded: OrderedDict[int, tuple[Event, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, event: Event) -> bytes | None:
        with self._lock:
            found = self._encoded.get(id(event))
            if found is None:
                return None
            self._encoded.move_to_end(id(event))
            return found[1]

    def put(self, event: Event, encoded: bytes) -> None:
        with self._lock:
            if id(event) in self._encoded or len(encoded) > self._max_bytes:
                return
            self._encoded[id(event)] = event, encoded
            self._bytes += len(encoded)
            while self._bytes > self._max_bytes:
                _, (_, dropped) = self._encoded.popitem(last=False)
                self._bytes -= len(dropped)


_cache = _Cache(CACHE_BYTES)
_being_encoded: dict[int, asyncio.Task[bytes]] = {}


def encode_sse(event: Event) -> bytes:
    """Write an event as a Server-Sent Event, its data as strict JSON in one line. From any thread."""
    encoded = _cache.get(event)
    if encoded is None:
        data = outputs.dumps(event.data)
        for end, escaped in _LINE_ENDS:
            if end in data:
                data = data.replace(end, escaped)
        encoded = b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.type.encode(), data)
        _cache.put(event, encoded)
    return encoded


async def encode(event: Event) -> bytes:
    """Write an event like `encode_sse`, but a large one in a thread: once for all who wait for it."""
    encoded = _cache.get(event)
    if encoded is not None or event.size < LARGE:
        return encoded or encode_sse(event)
    task = _being_encoded.get(id(event))
    if task is None:
        task = asyncio.create_task(background.run(encode_sse, event))
        _being_encoded[id(event)] = task
        task.add_done_callback(lambda _: _being_encoded.pop(id(event)))
    # One that gives up leaves the others what they wait for.
    return await asyncio.shield(task)
