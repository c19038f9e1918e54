"""What a run hears of its kernel, however it is connected: sorted, joined, bounded; losses are noted."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import deque
from collections.abc import Awaitable
from typing import Any

from jupyter_nbexec.kernels.messages import OUTPUT_TYPES, Parts, Whole, whole

#: Message types that change what a notebook shows even after the end of their request.
LATE_TYPES = OUTPUT_TYPES | {"clear_output", "comm_open", "comm_msg", "comm_close"}
#: What the user is told of a message that cannot be read.
LEFT_OUT = "The kernel sent messages that cannot be read; they were left out."
#: ipykernel and others number their messages: `<session>_<process id>_<number>`.
NUMBERED = re.compile(r"(.+_)(\d+)\Z")


class ConnectionLost(Exception):
    """The run has given up this kernel, or the kernel has ended; how, if it is known here."""


class Losses:
    """Notices gaps in the numbers that a kernel gives its messages.

    Numbers are spent on replies to others and, by IPython's display hook, on values that show
    themselves, without a message that we see. So one gap a cell, and one for each request of somebody else,
    is normal. A kernel drops messages for us only while so many wait to be sent as its mark allows, which
    all arrive; so who has heard fewer has lost none.
    """

    def __init__(self) -> None:
        #: Messages that the kernel keeps until they are sent; ZeroMQ's own mark, where it sets none.
        self.capacity: float = 1000
        self._floor: dict[str, int] = {}
        self._heard = 0
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        self._others: set[str] = set()
        self._allowed = 0

    def saw(self, message_id: str) -> None:
        """Note a message of the kernel."""
        match = NUMBERED.match(message_id)
        if match is None:
            return
        series, number = match.group(1), int(match.group(2))
        if number <= self._floor.get(series, -1):
            return
        self._heard += 1
        self._first.setdefault(series, number)
        self._first[series] = min(self._first[series], number)
        self._last[series] = max(self._last.get(series, number), number)
        self._seen[series] = self._seen.get(series, 0) + 1

    def restart(self) -> None:
        """Forget what was before: what is still to come of that counts no more."""
        self._floor |= self._last
        self._first, self._last, self._seen = {}, {}, {}
        self._others = set()
        self._allowed = self._heard = 0

    def saw_other(self, parent_id: str) -> None:
        """Note that the kernel answers somebody else's request."""
        if len(self._others) < 10_000:
            self._others.add(parent_id)

    def ended_cell(self) -> None:
        """Note that a cell has ended, which may have spent a number on nothing."""
        self._allowed += 1

    @property
    def any(self) -> bool:
        """Whether more is missing than can be explained."""
        if self._heard < self.capacity:
            return False
        missing = sum(self._last[name] - self._first[name] + 1 - self._seen[name] for name in self._seen)
        return missing > self._allowed + len(self._others)


class Link:
    """What the two channels of one connection share."""

    def __init__(self, max_bytes: int) -> None:
        #: No message larger than this can be kept.
        self.max_bytes = max_bytes
        #: Set while outputs are to be dropped unread: the run has as much as it may keep.
        self.is_full = False
        #: Set while texts are to be dropped unread, too: their ends are not waited for any longer.
        self.is_flooded = False
        #: Bytes, and number, of outputs that were dropped unread, since somebody last took note of them.
        self.dropped = (0, 0)
        #: Whether any output was dropped or lost.
        self.has_lost_output = False
        #: The last error of the present request for which there was no room.
        self.lost_error: Parts | Whole | None = None
        #: What the user should know of the connection, beside that.
        self.warnings: list[str] = []
        #: User expressions that ride on the next execute request.
        self.expressions: dict[str, str] = {}
        #: Whether the connection broke, which is a loss unless the kernel had ended.
        self.was_cut = False
        self.losses = Losses()
        #: Requests that have ended, and what their sender calls them.
        self.finished: dict[str, int] = {}
        #: Outputs that came after the end of the request that they belong to.
        self.late: deque[tuple[int, dict[str, Any]]] = deque()
        #: Whether the kernel has begun with the request.
        self.has_begun = False
        #: When something of this request was last sent or heard, by `time.monotonic`.
        self.heard = time.monotonic()
        #: The request whose reply and outputs are being read.
        self.request: str | None = None
        self.reply: dict[str, Any] | None = None
        self.failure: ConnectionLost | None = None
        #: When what comes after the failure is heard no longer, by `time.monotonic`.
        self._deaf_from = math.inf
        #: Whether replies and outputs are awaited at once, and a failure is raised by either.
        self.has_two_readers = True
        self._waiting: set[asyncio.Future[Any]] = set()
        self._woken: set[asyncio.Future[Any]] = set()

    def begin(self, request: str) -> None:
        """Expect the reply to this request, and its outputs."""
        self.request = request
        self.reply = None
        self.lost_error = None
        self.has_begun = False
        self.heard = time.monotonic()

    def end(self, name: int) -> None:
        """Note that the request has ended; what still comes of it is kept as late, under this name."""
        if self.request is not None:
            self.finished[self.request] = name

    @property
    def is_over(self) -> bool:
        """Whether the kernel was given up long enough ago for what it had said to have been read."""
        return self.failure is not None and time.monotonic() >= self._deaf_from

    def fail(self, failure: ConnectionLost, patience: float = math.inf) -> None:
        """Wake whoever waits for a message that will not come; what has come is read.

        `patience`: seconds for which it is, for a kernel that may go on talking without end.
        """
        self.failure = failure
        self._deaf_from = time.monotonic() + patience
        self._woken |= self._waiting
        for future in self._woken:
            future.cancel()

    def warn(self, warning: str) -> None:
        """Have the user told, once."""
        if warning not in self.warnings:
            self.warnings.append(warning)

    def leave_out(self) -> None:
        """Note that a message cannot be read; it may have been an output."""
        self.has_lost_output = True
        self.warn(LEFT_OUT)

    async def wait_for(self, awaitable: Awaitable[Any]) -> bool:
        """Wait for something that is true or not; False at once when the connection fails."""
        future = asyncio.ensure_future(awaitable)
        self._waiting.add(future)
        try:
            return bool(await future)
        except asyncio.CancelledError:
            if future not in self._woken:
                future.cancel()
                raise
            # `fail` cancelled the future, not somebody this task.
            return False
        finally:
            self._waiting.discard(future)
            self._woken.discard(future)


class Inbox:
    """Outputs of the run's requests: dropped where they are too much, joined where they are many."""

    def __init__(self, link: Link, capacity: float = math.inf) -> None:
        """`capacity`: bytes of outputs that may wait to be taken; those that come then are lost."""
        self._link = link
        self._capacity = capacity
        self._waiting = 0
        self._ready: deque[dict[str, Any]] = deque()
        #: A request that changes nothing, sent to see whether what was sent before it has arrived.
        self._ping: str | None = None
        self._reported = False

    def __bool__(self) -> bool:
        return bool(self._ready)

    def take(self) -> dict[str, Any]:
        """Take the first."""
        message = self._ready.popleft()
        self._waiting -= message["size"]
        return message

    def end(self) -> None:
        """Keep as late what came together with the end of the request."""
        for message in self._ready:
            name = self._link.finished.get(message["parent_header"].get("msg_id"))
            if name is not None and message["msg_type"] in LATE_TYPES:
                self._link.late.append((name, message))
        self._ready.clear()
        self._waiting = 0

    def forget_ping(self) -> None:
        """Wait for no answer to a ping."""
        self._ping, self._reported = None, False

    def expect_ping(self, request: str) -> None:
        """Take the answer to this request for the end of the run's, if that has not come by then."""
        self._ping = request

    def sort_in(self, arrival: Parts | Whole) -> bool:
        """Keep a message, join it to the one before, or drop it; False if there was no room for it.

        Raises UnreadableError.
        """
        link = self._link
        link.losses.saw(arrival.header["msg_id"])
        kind, parent = arrival.header["msg_type"], arrival.parent
        is_ours = parent == link.request
        if parent is None or (not is_ours and parent not in link.finished):
            if kind == "status":
                self._note_other(parent)
            return True
        if kind in OUTPUT_TYPES and not self._has_room(kind, arrival.size):
            link.has_lost_output = True
            if is_ours and kind == "error":
                link.lost_error = arrival
            link.dropped = link.dropped[0] + arrival.size, link.dropped[1] + (kind != "stream")
            return False
        if not is_ours:
            if kind in LATE_TYPES:
                link.late.append((link.finished[parent], _whole(arrival)))
            return True
        link.heard = time.monotonic()
        link.has_begun = True
        if kind == "stream":
            self._join(arrival)
        else:
            self._ready.append(_whole(arrival))
        self._waiting += arrival.size
        return True

    def _has_room(self, kind: str, size: int) -> bool:
        link = self._link
        if self._waiting + size > self._capacity:
            return False
        return not (link.is_flooded if kind == "stream" else link.is_full or size > link.max_bytes)

    def _join(self, arrival: Parts | Whole) -> None:
        """Keep a stream message, joined to the one before where that is of the same stream."""
        content = arrival.content()
        last = self._ready[-1] if self._ready else None
        if last is not None and last["msg_type"] == "stream" and last["content"]["name"] == content["name"]:
            last["texts"].append(content["text"])
            last["size"] += arrival.size
            return
        message = whole(arrival.header, arrival.parent, {}, {"name": content["name"], "text": ""})
        self._ready.append({**message, "size": arrival.size, "texts": [content["text"]]})

    def _note_other(self, parent: str | None) -> None:
        if parent is None:
            return
        if parent == self._ping:
            # Whatever came before this was sent has arrived, or never will.
            self._ping = None
            if not self._reported:
                self._reported = True
                self._link.has_lost_output = True
                # It stands in for the message, lost on its way, that says the kernel is idle again.
                header = {"msg_id": "", "msg_type": "status"}
                idle = whole(header, self._link.request, {}, {"execution_state": "idle"})
                self._ready.append({**idle, "size": 0})
            return
        self._link.losses.saw_other(parent)


def _whole(arrival: Parts | Whole) -> dict[str, Any]:
    message = arrival.message()
    message["size"] = arrival.size
    if message["msg_type"] == "stream":
        message["texts"] = [message["content"]["text"]]
    return message
