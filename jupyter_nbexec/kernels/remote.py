"""A run's own connection to a kernel behind a gateway: one websocket, made again when it breaks.

What `connection.py` does for ZeroMQ is done here for the protocol that Kernel Gateway and Enterprise Gateway
speak (`jupyter_server`'s own, in both of its forms). What is different behind a gateway:

* The gateway revives a kernel that has died, under the same id, and tells so, if we are connected just then.
  It does not tell when somebody has it restarted, and may send nothing from then on. So who answers is
  compared with who answered first; and if a cell is silent while the gateway says that its kernel is idle,
  the connection is made again.
* The gateway leaves out what it holds to be too much output, and says so in the notebook's name.
* A connection that breaks is made again, under the same session: then the gateway sends what it has kept.
  Whether that is all nobody knows, so that the run says it may be incomplete; and a reply that is lost is
  noticed, since requests are answered in turn.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from queue import Empty
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.jsonutil import json_default
from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.httputil import HTTPHeaders
from tornado.iostream import StreamClosedError
from tornado.websocket import (
    WebSocketClientConnection,
    WebSocketClosedError,
    WebSocketError,
)

from jupyter_nbexec import background, outputs
from jupyter_nbexec.kernels.inbox import ConnectionLost, Inbox, Link
from jupyter_nbexec.kernels.messages import Parts, UnreadableError, Whole, read_object

#: What `connection_info()` of a kernel behind a gateway calls its transport.
TRANSPORT = "websocket"
#: The form of the protocol that does not put JSON into JSON.
SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"
#: Bytes of the largest message that is read at all. What is beyond it breaks the connection, and takes a
#: reply with it that came behind; so this is well above what a reply, with its traceback, may have.
MAX_MESSAGE = 64 << 20
#: Bytes of outputs, beside those that a run may keep, that may wait for who reads them.
WAITING = 8 << 20
#: Seconds between looks at whether all is well.
SLICE = 0.5
#: Seconds without a message after which one looks whether something has been lost.
SILENCE = 2.0
#: Seconds between two connections that are made because a kernel seems to have forgotten its cell.
RENEWAL = 15.0
#: Seconds that the gateway may take to say that all it had has been sent.
FENCE = 1.0
#: Seconds between pings of the websocket, without an answer to which the connection counts as broken.
PING = 20.0
#: Seconds that an attempt to connect again may take.
PATIENCE = 10.0
#: What the gateway says of a kernel that has died.
ENDS = {
    "restarting": "the kernel died, and the gateway started it again",
    "autorestarting": "the kernel died, and the gateway started it again",
    "dead": "the kernel died",
}
RESTARTED, SHUT_DOWN = "the kernel was restarted", "the kernel was shut down"
REPLY_LOST = "the connection to the gateway broke, and the kernel's reply is lost"
#: How the gateway begins when it leaves out output, and the setting that decides on it.
LIMITS = {
    "IOPub data rate exceeded": "iopub_data_rate_limit",
    "IOPub message rate exceeded": "iopub_msg_rate_limit",
}


class _Unreachable(Exception):
    """Nobody answered; perhaps later."""


def _decode(data: str | bytes, subprotocol: str | None) -> tuple[str, Parts | Whole]:
    """Tell a message's channel, and parse as much of it as must be. Raises UnreadableError."""
    if isinstance(data, str):
        fields = read_object(data)
        return fields.get("channel") or "", Whole(fields)
    try:
        if subprotocol == SUBPROTOCOL:
            channel, parts = deserialize_msg_from_ws_v1(data)
            return channel, Parts(parts)
        fields = outputs.clean_json(deserialize_binary_message(data))
    except (LookupError, TypeError, ValueError, RecursionError, struct.error) as error:
        raise UnreadableError from error
    return fields.get("channel") or "", Whole(fields)


class _Connection(WebSocketClientConnection):
    """A websocket that tells of pongs, and that can be given up before it is one."""

    heard: asyncio.Event | None = None
    #: The subprotocol; tornado's own attribute cannot be read once the connection has broken.
    agreed: str | None = None

    def on_pong(self, data: bytes) -> None:  # noqa: ARG002
        """Tell who waits for it."""
        if self.heard is not None:
            self.heard.set()

    def abandon(self) -> None:
        """Give it up, whatever state it is in."""
        self.connect_future.add_done_callback(_forget)
        self.final_callback = None  # type: ignore[assignment]  # as tornado itself does
        if self.protocol is not None:
            _close(self)
        elif (stream := getattr(self, "stream", None)) is not None:
            stream.close()


class Wire:
    """The websocket, which is made again when it breaks, until that is hopeless. On the background loop."""

    def __init__(self, info: Mapping[str, Any], link: Link, client: RemoteClient) -> None:
        self._info = info
        self._link = link
        self._client = client
        self._connection: _Connection | None = None
        self._outbox: list[tuple[str, dict[str, Any]]] = []
        self._pong = asyncio.Event()
        #: Set once there has been a connection.
        self.was_open = asyncio.Event()
        self._task = asyncio.ensure_future(self._run())

    @property
    def is_open(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None

    def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send a message, or keep it for the next connection."""
        if self._connection is None or self._connection.protocol is None:  # it has just broken
            self._outbox.append((channel, message))
            return
        pack = self._client.session.pack
        data: str | bytes
        if self._connection.agreed == SUBPROTOCOL:
            data = serialize_msg_to_ws_v1(message, channel, pack)
        else:
            data = json.dumps({**message, "channel": channel, "buffers": []}, default=json_default)
        with suppress(WebSocketClosedError):  # who reads will notice
            writing = self._connection.write_message(data, binary=isinstance(data, bytes))
            asyncio.ensure_future(writing).add_done_callback(_forget)

    async def fence(self) -> None:
        """Wait until all has arrived that the gateway has sent until now."""
        if self._connection is None:
            return
        self._pong.clear()
        with suppress(WebSocketClosedError, StreamClosedError, asyncio.TimeoutError):
            self._connection.ping()
            await asyncio.wait_for(self._pong.wait(), FENCE)
            await asyncio.sleep(0)  # the last one is on its way through the queue

    def renew(self) -> None:
        """Make another connection, with nothing of the old one."""
        if self._connection is not None:
            self._client.session.session = str(uuid.uuid4())
            _close(self._connection)

    def close(self) -> None:
        """Close the connection, and make no other."""
        self._task.cancel()
        if self._connection is not None:
            _close(self._connection)
            self._connection = None

    async def _run(self) -> None:
        try:
            await self._open(self._delays())
            while True:
                await self._read()
                self._connection = None
                self._link.was_cut = True
                await self._open(self._delays(), PATIENCE)
                self._client.was_cut()
        except ConnectionLost as failure:
            self._link.fail(failure)
        except Exception:
            self._link.fail(ConnectionLost("the connection to the gateway failed"))
            raise

    async def _open(self, delays: Iterator[float], patience: float | None = None) -> None:
        """Connect. Raises ConnectionLost if that is hopeless."""
        for delay in delays:
            await asyncio.sleep(delay)
            with suppress(_Unreachable):
                self._connection = await self._attempt(patience)
                break
        else:
            raise ConnectionLost("the gateway cannot be reached")
        self._connection.heard = self._pong
        self.was_open.set()
        outbox, self._outbox = self._outbox, []
        for channel, message in outbox:
            self.send(channel, message)

    def _delays(self) -> Iterator[float]:
        """Seconds to wait before each attempt: as the server does for its own connections to the gateway."""
        yield 0.0
        number, delay, longest = self._info["retries"]
        for exponent in range(number):
            yield min(delay * 2**exponent, longest)

    async def _attempt(self, patience: float | None) -> _Connection:
        # The token may have been renewed.
        request: HTTPRequest = self._info["request"](self._client.session_id)
        if patience is not None:
            request.connect_timeout = min(patience, request.connect_timeout or patience)
        request.headers = HTTPHeaders(request.headers)
        connection = _Connection(
            request,
            ping_interval=PING,
            ping_timeout=PING,
            # Characters outside of ASCII take more room in the older form.
            max_message_size=max(2 * self._link.max_bytes, MAX_MESSAGE),
            subprotocols=[SUBPROTOCOL],
        )
        try:
            await asyncio.shield(connection.connect_future)
        except asyncio.CancelledError:
            connection.abandon()
            raise
        except HTTPClientError as error:
            raise _refusal(error.code) from None
        except (OSError, StreamClosedError, WebSocketError):
            raise _Unreachable from None
        if connection.protocol is not None:
            connection.agreed = connection.selected_subprotocol
        return connection

    async def _read(self) -> None:
        """Read until the connection breaks."""
        connection = self._connection
        while connection is not None:
            data = await connection.read_message()
            if data is None:
                _close(connection)
                return
            try:
                channel, arrival = _decode(data, connection.agreed)
                self._client.take(channel, arrival)
            except UnreadableError:
                self._link.leave_out()
            if background.turns.is_over:
                background.turns.end()
                await asyncio.sleep(0)


def _refusal(code: int) -> Exception:
    """What an HTTP status means where a websocket was asked for."""
    if code in (401, 403):
        return ConnectionLost(f"the gateway refuses the connection to the kernel ({code})")
    if code in (404, 410):
        return ConnectionLost("the gateway no longer has the kernel")
    return _Unreachable()


def _close(connection: WebSocketClientConnection) -> None:
    """Close a websocket without waiting for the other side to agree."""
    protocol = connection.protocol
    connection.close()
    if protocol is not None and protocol.stream is not None:
        protocol.stream.close()


def _forget(future: asyncio.Future[Any]) -> None:
    """Take note of an error that nobody waits for."""
    if not future.cancelled():
        future.exception()


class _Channel:
    """What the two channels have in common."""

    def __init__(self, client: RemoteClient) -> None:
        self._client = client
        self._bell = asyncio.Event()

    def ring(self) -> None:
        """Wake who waits for a message."""
        self._bell.set()

    def stop(self) -> None:
        """Close the connection."""
        self._client.wire.close()

    close = stop

    async def _wait(self, timeout: float) -> None:
        """Wait for a message, or for a failure of the link."""
        self._bell.clear()
        await self._client.link.wait_for(_within(self._bell, timeout))


class ShellChannel(_Channel):
    """Replies."""

    def __init__(self, client: RemoteClient) -> None:
        super().__init__(client)
        self.replies: deque[dict[str, Any]] = deque()

    def send(self, message: dict[str, Any]) -> None:
        """Send a request."""
        self._client.wire.send("shell", message)

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        """Return the next reply. Raises Empty after `timeout` seconds, ConnectionLost if none will come."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.replies:
            self._client.look_after()
            if self._client.link.failure is not None:
                raise self._client.link.failure
            left = SLICE if deadline is None else min(SLICE, deadline - time.monotonic())
            if left <= 0:
                raise Empty
            await self._wait(left)
        return self.replies.popleft()


class IOPubChannel(_Channel):
    """Outputs."""

    def __init__(self, client: RemoteClient) -> None:
        super().__init__(client)
        self.inbox = Inbox(client.link, capacity=client.link.max_bytes + WAITING)

    async def wait_until_connected(self, timeout: float) -> None:
        """Wait until there is a connection. Raises TimeoutError, ConnectionLost."""
        await self._client.link.wait_for(_within(self._client.wire.was_open, timeout))
        if self._client.link.failure is not None:
            raise self._client.link.failure
        if not self._client.wire.was_open.is_set():
            raise TimeoutError

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        """Return the next message. Raises Empty after `timeout` seconds, ConnectionLost if none will come."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.inbox:
            self._client.look_after()
            if self._client.link.failure is not None:
                await self._give_up(self._client.link.failure)
            left = SLICE if deadline is None else min(SLICE, deadline - time.monotonic())
            if left <= 0:
                raise Empty
            await self._wait(left)
        return self.inbox.take()

    def end(self) -> None:
        """Keep as late what came together with the end of the request."""
        self.inbox.end()

    async def drain(self) -> None:
        """Take all that has arrived."""
        await self._client.wire.fence()

    async def _give_up(self, failure: ConnectionLost) -> None:
        """Raise, if it is this channel that the run waits for; else leave it to the other to raise."""
        link = self._client.link
        if link.has_two_readers and link.reply is None and link.request is not None:
            self._client.shell_channel.ring()
            await asyncio.sleep(2 * SILENCE)  # or until cancelled, where somebody waits for a reply too
        raise failure


class RemoteClient(AsyncKernelClient):
    """A client on its run's link, with a websocket in the place of sockets of its own."""

    # In place of properties that would open sockets.
    shell_channel: Any = None
    iopub_channel: Any = None
    wire: Wire
    link: Link

    def __init__(self, info: Mapping[str, Any], link: Link) -> None:
        super().__init__()
        self.allow_stdin = False
        self.link = link
        self.shell_channel = ShellChannel(self)
        self.iopub_channel = IOPubChannel(self)
        #: The last execute request.
        self._executed: str | None = None
        #: Who answers, by the session that the kernel names in its messages.
        self._kernel: str | None = None
        #: The request after a connection was made again, which is answered after those before it.
        self._probe: str | None = None
        self._looked = self._renewed = 0.0
        self._state: Callable[[], tuple[float, str]] = info["state"]
        self.wire = Wire(info, link, self)

    @property
    def session_id(self) -> str:
        """Under which the gateway keeps what it could not send."""
        return str(self.session.session)

    def execute(self, *args: Any, **kwargs: Any) -> str:
        """Send an execute request, and expect its reply and outputs next; its message id."""
        expressions, self.link.expressions = self.link.expressions, {}
        request: str = super().execute(*args, **{"user_expressions": expressions, **kwargs})
        self._executed = request
        self.link.begin(request)
        return request

    async def hear_out(self) -> None:
        """Wait until all has arrived that a kernel which has ended ever sent."""
        await self.wire.fence()

    def take(self, channel: str, arrival: Parts | Whole) -> None:
        """Take a message that has arrived."""
        if channel == "iopub":
            if not self._heeds(arrival):
                self.iopub_channel.inbox.sort_in(arrival)
                self.iopub_channel.ring()
        elif channel == "shell":
            self._take_reply(arrival)

    def was_cut(self) -> None:
        """Ask the kernel something, behind whatever was asked before the connection broke."""
        self._probe = self.kernel_info()

    def look_after(self) -> None:
        """Stir a kernel that does not begin, or does not say it ended; see whether a silent one still works.

        A request that came at a bad moment may lie unread in the kernel's socket until another comes.
        """
        link, now = self.link, time.monotonic()
        if link.reply is None:
            self.iopub_channel.inbox.forget_ping()
        if not self.wire.is_open or now - max(link.heard, self._looked) < SILENCE:
            return
        self._looked = now
        if link.reply is not None:
            self.iopub_channel.inbox.expect_ping(self.kernel_info())
        elif self._is_forgotten(now):
            self._renewed = now
            self.wire.renew()
        elif not link.has_begun:
            self.kernel_info()

    def _is_forgotten(self, now: float) -> bool:
        """Whether the kernel, as the gateway has it, is not working for us."""
        seen, state = self._state()
        is_later = seen > self.link.heard + SLICE and now - self._renewed > RENEWAL
        return is_later and self.link.request is not None and state in ("idle", "starting")

    def _take_reply(self, arrival: Parts | Whole) -> None:
        self.link.losses.saw(arrival.header["msg_id"])
        if arrival.header["msg_type"] == "kernel_info_reply":
            self._recognize(str(arrival.header.get("session")))
        try:
            message = arrival.message()
        except UnreadableError:
            if arrival.parent == self.link.request:
                self.link.fail(ConnectionLost("the kernel's reply cannot be read"))
            raise
        if arrival.parent == self.link.request:
            self.link.reply = message
        elif arrival.parent == self._probe and self._waits_for_cell():
            self.link.fail(
                ConnectionLost("the connection to the gateway broke, and the kernel's reply is lost")
            )
        self.shell_channel.replies.append(message)
        self.shell_channel.ring()

    def _waits_for_cell(self) -> bool:
        """Whether a reply is missing that cannot be asked for again."""
        link = self.link
        return link.reply is None and link.request is not None and link.request == self._executed

    def _recognize(self, kernel: str) -> None:
        """Notice that another kernel answers than before."""
        self._kernel = self._kernel or kernel
        if kernel != self._kernel:
            self.link.fail(ConnectionLost(RESTARTED))

    def _end_in(self, kind: str, arrival: Parts | Whole) -> str | None:
        """How the kernel has ended, if it is this that says so."""
        if kind == "shutdown_reply":
            return RESTARTED if arrival.content().get("restart") else SHUT_DOWN
        if kind != "status" or arrival.parent is not None:
            return None
        state = arrival.content().get("execution_state")
        is_other = self._kernel is not None and arrival.header.get("session") != self._kernel
        return RESTARTED if state == "starting" and is_other else ENDS.get(str(state))

    def _heeds(self, arrival: Parts | Whole) -> bool:
        """Tell whether it is about the connection rather than the run, and heed it."""
        kind = arrival.header["msg_type"]
        end = self._end_in(kind, arrival)
        if end is not None:
            self.link.fail(ConnectionLost(end))
            return True
        # The gateway makes its messages under the session that we have told it.
        if kind == "stream" and arrival.header.get("session") == self.session_id:
            text = str(arrival.content().get("text"))
            limit = next((name for words, name in LIMITS.items() if text.lstrip().startswith(words)), None)
            if limit is not None:
                self.link.has_lost_output = True
                self.link.warn(f"The gateway left out output that came faster than its {limit} allows.")
                return True
        return False


def connect(info: Mapping[str, Any], link: Link) -> RemoteClient:
    """Begin to connect to a kernel behind a gateway.

    `info` has a function `request`, which makes the HTTP request for a session's websocket, and `retries`:
    how often a broken connection is tried to be made again, the first delay, and the longest; and `state`,
    which tells when the gateway was last asked what the kernel does, and what it said.
    """
    return RemoteClient(info, link)


async def _within(event: asyncio.Event, timeout: float) -> bool:
    """Wait for an event, so many seconds at most; whether it has happened."""
    try:
        await asyncio.wait_for(event.wait(), timeout)
    except asyncio.TimeoutError:
        return False
    return True
