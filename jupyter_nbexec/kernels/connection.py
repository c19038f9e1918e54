"""A run's own connection to its kernel: every message arrives, and memory stays bounded.

Three things are different from the client that jupyter_client gives, each measured to matter:

* A subscriber drops messages beyond its high-water mark of 1,000, silently: 23,651 of 100,000 flushed
  prints were missing on a busy machine. Here the mark is off, so that the one who drops is us, with a flag.
* With the mark off, something else must bound memory. What is over the run's limits is dropped before it
  is parsed or its signature checked, which costs microseconds; and a message larger than all outputs may be
  together is refused by the socket, which ends the connection: it is made again, and the loss is flagged.
* Consecutive stream messages are joined before anybody sees them: a cell that flushes each of 100,000 lines
  makes a few hundred messages.

A run's connection lives on the event loop of one background thread (`background.py`); that of a kernel which
answers calls, on the server's (`serving/line.py`). So nothing here may block.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import time
from collections.abc import Callable
from queue import Empty
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from zmq.utils.monitor import parse_monitor_message

from jupyter_nbexec import background
from jupyter_nbexec.kernels import remote
from jupyter_nbexec.kernels.inbox import ConnectionLost, Inbox, Link, Losses
from jupyter_nbexec.kernels.messages import OUTPUT_TYPES, Parts, UnreadableError, is_reply

__all__ = ["OUTPUT_TYPES", "ConnectionLost", "Link", "Losses"]

#: Bytes of a message above what all outputs may have: of a text so long, the beginning and the end are kept.
ENVELOPE = 64 << 20
#: Messages, and bytes, that are taken from the socket before others have their turn.
BATCH_MESSAGES = 500
BATCH_BYTES = 8 << 20
#: Topics of ipykernel's messages: streams, and all others.
STREAM_TOPIC = b"stream."
OTHER_TOPICS = (b"kernel.", b"comm-", b"display_data", b"execute_result", b"error")
#: Seconds between looks at whether the connection was cut or the kernel is gone.
SLICE = 0.5
#: Seconds without a message after which an end of a cell that was announced counts as lost.
SILENCE = 2.0
#: Times that a kernel is asked one after the other; then each wait is twice as long as the one before, since
#: what a kernel does not read fills the socket, and a full one holds up the thread.
EAGER = 4
#: Milliseconds between attempts to connect to a kernel that is starting; by default it is 100.
RETRY = 10
#: Seconds between looks at whether a kernel that has ended has been heard out.
LOOK = 0.01
#: Seconds of silence after which it has, if a process that it forked holds its connections open.
QUIET = 2.0
#: Seconds after a reply that cannot be read for which one that can is waited for.
UNREADABLE = 5.0
#: Seconds for which a kernel that goes on talking is heard after it was given up.
LAST_WORDS = 1.0


async def readable(link: Link, socket: zmq.asyncio.Socket, timeout: float) -> bool:
    """Wait until the socket has a message, at most `timeout` seconds, or the link fails."""
    return await link.wait_for(socket.poll(int(timeout * 1000)))


class Monitor:
    """What happens to the connection of a socket."""

    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self._watched = socket
        self.socket = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._plain: zmq.Socket[bytes] = zmq.Socket.shadow(self.socket.underlying)
        #: How many connections were made that the other end has not closed.
        self._open = 0
        self._was_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether either end has closed the connection; then all has arrived that came by it."""
        if self.socket.closed:
            return True
        self.take()
        return self._was_closed and self._open <= 0

    def take(self) -> set[int]:
        """What has happened since the last look."""
        events: set[int] = set()
        while self._plain.poll(0):
            event = int(parse_monitor_message(self._plain.recv_multipart())["event"])
            has_closed = event == zmq.EVENT_DISCONNECTED
            self._was_closed |= has_closed
            self._open += -1 if has_closed else 1
            events.add(event)
        return events

    def close(self) -> None:
        """Watch no longer."""
        self._watched.disable_monitor()
        self.socket.close(linger=0)


class ShellChannel(AsyncZMQSocketChannel):
    """Replies. Waits in slices: a wake-up lost to a send on the same socket costs one of them."""

    link: Link

    def __init__(self, socket: zmq.asyncio.Socket, session: Any, loop: Any = None) -> None:
        super().__init__(socket, session, loop)
        self.monitor = Monitor(socket)
        #: Since when a reply is awaited though one has come that could not be read.
        self._unreadable: float | None = None

    def close(self) -> None:
        """Close the socket and the one that watches it."""
        if self.socket is not None:
            self.monitor.close()
        super().close()

    stop = close

    async def get_msg(  # type: ignore[override]  # as in AsyncZMQSocketChannel
        self, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return the next reply. Raises Empty after `timeout` seconds, ConnectionLost if none will come."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = SLICE if deadline is None else min(SLICE, max(0.0, deadline - time.monotonic()))
            # What has come is read, though the kernel may have ended since.
            if await readable(self.link, self.socket, left) or await self.socket.poll(0):
                message = self._take(await self.socket.recv_multipart())
                if message is not None:
                    return message
                continue
            self._give_up_unreadable()
            if self.link.failure is not None:
                raise self.link.failure
            if deadline is not None and time.monotonic() >= deadline:
                raise Empty

    def _take(self, frames: list[bytes]) -> dict[str, Any] | None:
        """Read a reply; None if it cannot be read."""
        try:
            _, arrival = read(self.session, frames)
            message = arrival.message() if is_reply(arrival.header["msg_type"]) else None
        except UnreadableError:
            message = None
        if message is None:
            self.link.leave_out()
            self._unreadable = self._unreadable or time.monotonic()
            return None
        self.link.losses.saw(message["msg_id"])
        if message["parent_header"]["msg_id"] == self.link.request:
            self.link.reply = message
            self._unreadable = None
        return message

    def _give_up_unreadable(self) -> None:
        """Wait no longer for a reply that seems to have come, and could not be read."""
        if self._unreadable is not None and time.monotonic() - self._unreadable > UNREADABLE:
            self._unreadable = None
            self.link.fail(ConnectionLost("the kernel's reply cannot be read"))


def read(session: Any, frames: list[bytes]) -> tuple[bytes, Parts]:
    """Read a message as it came from a socket; its topic, or else an address. Raises UnreadableError."""
    try:
        identities, parts = session.feed_identities(frames)
    except ValueError as error:
        raise UnreadableError from error

    def is_genuine() -> bool:
        return session.auth is None or hmac.compare_digest(parts[0], session.sign(parts[1:5]))

    return identities[0] if identities else b"", Parts(parts[1:], is_genuine)


class IOPubChannel(AsyncZMQSocketChannel):
    """Outputs: dropped where they are too much, joined where they are many."""

    link: Link
    _inbox: Inbox

    def __init__(self, socket: zmq.asyncio.Socket, session: Any, loop: Any = None) -> None:
        super().__init__(socket, session, loop)
        self._plain: zmq.Socket[bytes] = zmq.Socket.shadow(socket.underlying)
        self.monitor = Monitor(socket)
        self._looked = 0.0
        self._is_reconnected = False
        self._ask: Callable[[], str] | None = None
        self._has_answered: Callable[[], bool] = bool
        self._address = ""
        self._pings = 0
        self._stirs = 0
        #: Whether the kernel's messages have ipykernel's topics, and whether streams are left out by them.
        self._has_topics = False
        self._is_narrow = False

    def open(
        self, link: Link, address: str, ask: Callable[[], str], has_answered: Callable[[], bool]
    ) -> None:
        """Connect, without a high-water mark and with a bound on single messages.

        `ask` sends the kernel a request that changes nothing, and returns its message id; `has_answered`
        tells whether a reply has come that nobody has read.
        """
        self.link = link
        self._inbox = Inbox(link)
        self._ask = ask
        self._has_answered = has_answered
        self._address = address
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.MAXMSGSIZE, link.max_bytes + ENVELOPE)
        self.socket.setsockopt(zmq.RECONNECT_IVL, RETRY)
        self.socket.connect(address)

    async def wait_until_connected(self, timeout: float) -> None:
        """Wait until the kernel has this socket's subscription, or will before it reads any request."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if self.link.failure is not None:
                raise self.link.failure
            await readable(self.link, self.monitor.socket, min(SLICE, left))
            if zmq.EVENT_HANDSHAKE_SUCCEEDED in self.monitor.take():
                return
        raise TimeoutError

    def close(self) -> None:
        """Close the socket and the one that watches it."""
        if self.socket is not None:
            self.monitor.close()
        super().close()

    stop = close

    async def get_msg(  # type: ignore[override]  # as in AsyncZMQSocketChannel
        self, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return the next message. Raises Empty after `timeout` seconds, ConnectionLost if none will come."""
        deadline = None if timeout is None else time.monotonic() + timeout
        await self._let_others_work()
        while not self._inbox:
            self._widen()
            await self._mend()
            if self._inbox:
                break
            if not self.link.is_over and self.take_batch():
                await self._let_others_work()
                continue
            if self.link.failure is not None:
                await self._give_up(self.link.failure)
            left = SLICE if deadline is None else min(SLICE, max(0.0, deadline - time.monotonic()))
            if await readable(self.link, self.socket, left):
                continue
            if deadline is not None and time.monotonic() >= deadline and not self._inbox:
                raise Empty
        return self._inbox.take()

    def end(self) -> None:
        """Keep as late what came together with the end of the request."""
        self._inbox.end()

    async def drain(self) -> None:
        """Take all that has arrived."""
        while self.take_batch():
            await self._let_others_work()

    async def _let_others_work(self) -> None:
        """Keep neither the other runs nor the server waiting for a kernel that never stops talking."""
        if background.turns.is_over:
            background.turns.end()
            await asyncio.sleep(0)

    async def _give_up(self, failure: ConnectionLost) -> None:
        """Raise, if it is this channel that the run waits for; else leave it to the other to raise."""
        if self.link.has_two_readers and self.link.reply is None and self.link.request is not None:
            await asyncio.sleep(2 * SILENCE)  # or until cancelled, where somebody waits for a reply too
        raise failure

    def take_batch(self) -> bool:
        """Take what has arrived, up to a batch; False if nothing had."""
        taken = size = 0
        while taken < BATCH_MESSAGES and size < BATCH_BYTES:
            frames = self._receive()
            if frames is None:
                break
            taken += 1
            size += sum(map(len, frames))
            self._sort_in(frames)
            if background.turns.is_over:
                break
        return taken > 0

    def _receive(self) -> list[bytes] | None:
        """Take a message from the socket; None if there is none. It is cheaper than `recv_multipart`."""
        frames = []
        try:
            frame = self._plain.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        frames.append(frame.bytes)
        while frame.more:
            frame = self._plain.recv(copy=False)
            frames.append(frame.bytes)
        return frames

    def _sort_in(self, frames: list[bytes]) -> None:
        """Keep a message or drop it; have the kernel keep back what would all be dropped."""
        if self._is_reconnected:  # a kernel that has ended says nothing more: then nothing was lost
            self._is_reconnected = False
            self.link.was_cut = True
        try:
            topic, arrival = read(self.session, frames)
            is_kept = self._inbox.sort_in(arrival)
        except UnreadableError:
            self.link.leave_out()
            return
        self._has_topics |= arrival.header["msg_type"] == "status" and topic.startswith(OTHER_TOPICS[0])
        if not is_kept and self.link.is_flooded and topic.startswith(STREAM_TOPIC):
            self._narrow()

    def _narrow(self) -> None:
        """Have the kernel keep back what would be dropped here: only it can stop the flood at its source."""
        if self._has_topics and not self._is_narrow:
            self._is_narrow = True
            for topic in OTHER_TOPICS:
                self.socket.subscribe(topic)
            self.socket.unsubscribe(b"")

    def _widen(self) -> None:
        """Hear all again: some outputs were cleared, and others may take their place."""
        if self._is_narrow and not self.link.is_flooded:
            self._is_narrow = False
            self.socket.subscribe(b"")
            for topic in OTHER_TOPICS:
                self.socket.unsubscribe(topic)

    async def restore(self, timeout: float) -> None:
        """Between requests: have the kernel keep back nothing of the next one. Raises ConnectionLost.

        A subscription that is added may come after the request; those of a new connection do not.
        """
        if not self._is_narrow:
            return
        await self.drain()
        self._widen()
        self.monitor.take()
        self._reconnect()
        try:
            await self.wait_until_connected(timeout)
        except TimeoutError as error:
            raise ConnectionLost("it cannot be heard any more") from error
        # Of the connection that was let go.
        self.monitor.take()
        self._is_reconnected = False

    async def _mend(self) -> None:
        """Connect again if the connection broke; stir a kernel that does not begin, or does not say it ended.

        A request that came at a bad moment may lie unread in the kernel's socket until another comes.
        """
        is_over = self.link.reply is not None
        if not is_over:
            self._inbox.forget_ping()
            self._pings = 0
        if self.link.has_begun:
            self._stirs = 0
        now = time.monotonic()
        if now - self._looked < SLICE:
            return
        self._looked = now
        if zmq.EVENT_DISCONNECTED in self.monitor.take():
            # What has arrived and has not been read would be dropped with the connection.
            await self.drain()
            self._is_reconnected = True
            self._reconnect()
            return
        times = self._pings if is_over else self._stirs
        if self._ask is None or now - self.link.heard < SILENCE * 2 ** max(0, times - EAGER):
            return
        if not is_over:
            if not self.link.has_begun:
                self.link.heard = now
                self._stirs += 1
                self._ask()
            return
        self.link.heard = now
        self._pings += 1
        # A kernel that has not even replied is slow, on a busy machine; only one that has, and is not heard
        # here, is cut off. To connect again costs what it sends meanwhile.
        if self._pings > 1 and self._has_answered():
            self._reconnect()
        self._inbox.expect_ping(self._ask())

    def _reconnect(self) -> None:
        try:
            self.socket.disconnect(self._address)
        except zmq.ZMQError as error:
            # The connection that broke is gone already.
            if error.errno not in (zmq.ENOTCONN, errno.ENOENT):
                raise
        self.socket.connect(self._address)


class RunClient(AsyncKernelClient):
    """A client on its run's link. It has no parent: whether the kernel lives is watched by the run."""

    link: Link

    def connect_iopub(self, identity: bytes | None = None) -> zmq.asyncio.Socket:  # noqa: ARG002
        """Make the socket for outputs, subscribed to all but not connected.

        Options of a socket count for connections that are made after them, and to replace a connection
        that was made at once leaves two.
        """
        socket = self.context.socket(zmq.SUB)
        socket.linger = 0
        public_key = getattr(self, "curve_publickey", None)
        if public_key is not None:
            socket.curve_secretkey = self.curve_secretkey
            socket.curve_publickey = socket.curve_serverkey = public_key
        socket.subscribe(b"")
        return socket

    def execute(self, *args: Any, **kwargs: Any) -> str:
        """Send an execute request, and expect its reply and outputs next; its message id."""
        expressions, self.link.expressions = self.link.expressions, {}
        request: str = super().execute(*args, **{"user_expressions": expressions, **kwargs})
        self.link.begin(request)
        return request

    async def hear_out(self) -> None:
        """Wait until all has arrived that a kernel which has ended ever sent.

        What it had sent may still be on its way. Whoever reads ZeroMQ's sockets in our place is never in
        our way; that it has come to the end, the monitors tell.
        """
        began = time.monotonic()
        channels = (self.shell_channel, self.iopub_channel)
        while not all(channel.monitor.is_closed for channel in channels):
            if time.monotonic() - max(began, self.link.heard) > QUIET:
                return
            await asyncio.sleep(LOOK)


def connect(context: zmq.asyncio.Context, info: Any, link: Link) -> RunClient | remote.RemoteClient:
    """Connect to a kernel. Call `stop` on both channels of the client when done with it."""
    if info["transport"] == remote.TRANSPORT:
        return remote.connect(info, link)
    client = RunClient(context=context, shell_channel_class=ShellChannel, iopub_channel_class=IOPubChannel)
    client.load_connection_info(info)
    client.allow_stdin = False
    client.link = link
    client.shell_channel.link = link
    joint = ":" if info["transport"] == "tcp" else "-"
    address = f"{info['transport']}://{info['ip']}{joint}{info['iopub_port']}"
    shell = client.shell_channel.socket

    def has_answered() -> bool:
        return bool(shell.get(zmq.EVENTS) & zmq.POLLIN)

    client.iopub_channel.open(link, address, client.kernel_info, has_answered)
    return client


async def wait_until_ready(
    client: RunClient | remote.RemoteClient, link: Link, timeout: float
) -> dict[str, Any]:
    """Wait until the kernel answers on both channels; the content of its `kernel_info_reply`.

    Raises TimeoutError after `timeout` seconds, and ConnectionLost.
    """
    deadline = time.monotonic() + timeout
    await client.iopub_channel.wait_until_connected(timeout)
    patience = 1.0
    while time.monotonic() < deadline:
        request = client.kernel_info()
        link.begin(request)
        # Usually once is enough. But a request that arrives while the kernel sets itself up may lie unread
        # in its socket until another one wakes it.
        info = await _info(client, min(deadline, time.monotonic() + patience))
        # Until something has come through the subscription, outputs could be missed.
        if info is not None and await _hears(client, min(deadline, time.monotonic() + 1.0)):
            link.losses.restart()
            return info
        patience = min(2 * patience, 5.0)
    raise TimeoutError


async def _info(client: RunClient | remote.RemoteClient, deadline: float) -> dict[str, Any] | None:
    while (left := deadline - time.monotonic()) > 0:
        try:
            message = await client.shell_channel.get_msg(timeout=left)
        except Empty:
            return None
        if message["msg_type"] == "kernel_info_reply":
            content: dict[str, Any] = message["content"]
            return content
    return None


async def _hears(client: RunClient | remote.RemoteClient, deadline: float) -> bool:
    try:
        await client.iopub_channel.get_msg(timeout=max(0.0, deadline - time.monotonic()))
    except Empty:
        return False
    return True
