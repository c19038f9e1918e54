"""Following runs on a real server: what is seen, when, and by whom."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import httpx
import nbformat
import psutil
import pytest

from tests.conftest import LiveServer

pytestmark = [pytest.mark.anyio, pytest.mark.alone]

#: Seconds that anything may take.
DEADLINE = 120.0
READERS = 100
#: Prints, shows, changes what was shown, clears, and shows more than the buffers of a connection hold.
LIVELY = """
import os, time
from IPython.display import clear_output, display
shown = display('at first', display_id=True)
for n in range(60):
    print('line', n, flush=True)
    if n % 7 == 0: shown.update(f'shown {n}')
    if n % 10 == 9: clear_output()
    if n % 15 == 1: display({'text/plain': str(n) * 1_000_000}, raw=True)
    time.sleep(0.02)
while not os.path.exists('enough'): time.sleep(0.01)
"""


class Reader:
    """Reads events from a socket that it has for itself, as fast or as slowly as it likes."""

    def __init__(self, server: LiveServer, run_id: str, after: int = 0) -> None:
        url = urlsplit(server.url)
        self._address = url.hostname, url.port
        # HTTP/1.0 has no chunks: what comes is the events, until the connection ends.
        self._request = (
            f"GET {url.path}/api/nbexec/runs/{run_id}/events HTTP/1.0\r\n"
            f"Authorization: token {server.token}\r\nLast-Event-ID: {after}\r\n\r\n"
        ).encode()
        self._socket = socket.socket()
        self._socket.settimeout(0)
        self._rest = b""

    async def open(self, buffer: int | None = None) -> Reader:
        """Ask, with a buffer of this size or the usual one, and read the head of the answer."""
        if buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, self._address)
        await loop.sock_sendall(self._socket, self._request)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await self.read(1)
        assert b" 200 " in head.partition(b"\r\n")[0], head
        return self

    async def read(self, size: int = 1 << 16) -> bytes:
        """Read at most so many bytes; none at the end."""
        return await asyncio.get_running_loop().sock_recv(self._socket, size)

    async def event(self) -> bytes:
        """Read one event; nothing at the end."""
        while True:
            while b"\n\n" not in self._rest:
                piece = await self.read()
                if not piece:
                    return b""
                self._rest += piece
            event, _, self._rest = self._rest.partition(b"\n\n")
            if not event.startswith(b":"):
                return event

    async def rest(self, first: bytes = b"") -> list[bytes]:
        """Read to the end, and close; `first` was read before."""
        pieces = [first, self._rest]
        while piece := await self.read():
            pieces.append(piece)
        self._socket.close()
        events = b"".join(pieces).split(b"\n\n")
        return [event for event in events if event and not event.startswith(b":")]

    def vanish(self) -> None:
        """Reset the connection."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


class Followed:
    """Runs on the real server."""

    def __init__(self, server: LiveServer, client: httpx.AsyncClient) -> None:
        self.server = server
        self.client = client

    async def submit(self, folder: str, *cells: str) -> str:
        """Submit a run of these cells, in a folder of their own; its id."""
        path = self.server.root / folder
        path.mkdir()
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        nbformat.write(notebook, path / "nb.ipynb")
        headers = {"Prefer": "respond-async"}
        answer = await self.client.post(f"/api/nbexec/{folder}/nb.ipynb", headers=headers)
        run_id: str = answer.raise_for_status().json()["id"]
        return run_id

    async def ended(self, run_id: str) -> str:
        """Wait for a run's end; its status."""
        deadline = time.monotonic() + DEADLINE
        while True:
            answer = await self.client.get(f"/api/nbexec/runs/{run_id}", params={"wait": 60})
            run = answer.raise_for_status().json()
            if run["ended"] or time.monotonic() > deadline:
                status: str = run["status"]
                return status

    def reader(self, run_id: str, after: int = 0) -> Reader:
        """Make a reader of a run's events."""
        return Reader(self.server, run_id, after)

    async def settle(self) -> int:
        """Have the server open all that it keeps open; how many descriptors it has."""
        await asyncio.gather(*(self.client.get("/api/nbexec/runs") for _ in range(100)))
        return self.descriptors()

    def descriptors(self) -> int:
        """How many files the server has open."""
        return psutil.Process(self.server.pid).num_fds()


@pytest.fixture
async def followed(live_server: LiveServer) -> AsyncIterator[Followed]:
    """Runs on the real server; no connection to it is kept."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    headers = {"Authorization": f"token {live_server.token}"}
    async with httpx.AsyncClient(
        base_url=live_server.url, headers=headers, limits=limits, timeout=DEADLINE, trust_env=False
    ) as client:
        yield Followed(live_server, client)


async def until(condition: Callable[[], bool]) -> bool:
    """Wait for what another process does."""
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


def id_of(event: bytes) -> int:
    """The id of an event."""
    return int(event.partition(b"\n")[0].removeprefix(b"id: "))


async def test_outputs_come_while_the_cell_goes_on(followed: Followed) -> None:
    """What is printed, flushed or not, is read before the cell can end, which waits for its reader."""
    code = (
        "import os, time\n"
        "for n in range(6):\n"
        "    print('line', n, flush=n % 2 == 0)\n"
        "    while not os.path.exists(f'read{n}'): time.sleep(0.01)"
    )
    run_id = await followed.submit("echo", code)
    reader = await followed.reader(run_id).open()
    lines = 0
    while event := await asyncio.wait_for(reader.event(), DEADLINE):
        if event.splitlines()[1] == b"event: output":
            assert json.loads(event.partition(b"data: ")[2])["text"] == f"line {lines}\n"
            (followed.server.root / "echo" / f"read{lines}").touch()
            lines += 1
    reader.vanish()

    assert lines == 6
    assert await followed.ended(run_id) == "succeeded"


async def test_kernels_send_at_once_what_is_printed(followed: Followed) -> None:
    """A kernel does not keep what is printed for 200 ms, which is all the time that it has to arrive in."""
    run_id = await followed.submit(
        "prompt", "import sys\nsys.stdout.flush_interval, sys.stderr.flush_interval"
    )
    await followed.ended(run_id)

    run = (await followed.client.get(f"/api/nbexec/runs/{run_id}")).json()
    assert run["result"] == [0.05, 0.05]


async def test_all_readers_see_the_same(followed: Followed) -> None:
    """Many readers, a slow one, one that comes again and again, and those that come late read the same bytes.

    The run waits for none of them, and nothing is left of them on the server.
    """
    before = await followed.settle()
    run_id = await followed.submit("lively", LIVELY, "1 + 1")
    slow = await followed.reader(run_id).open(buffer=1)
    dawdled = b""
    readers = [await followed.reader(run_id).open() for _ in range(READERS)]
    reading = [asyncio.create_task(reader.rest()) for reader in readers]
    returning = asyncio.create_task(_come_again(followed, run_id))
    for _ in range(20):
        dawdled += await slow.read(1)
        await asyncio.sleep(0.1)
    (followed.server.root / "lively" / "enough").touch()
    assert await followed.ended(run_id) == "succeeded"
    # All that came was a few bytes, and the run has ended.
    assert len(dawdled) == 20

    first, *others = await asyncio.wait_for(asyncio.gather(*reading), DEADLINE)
    ids = [id_of(event) for event in first]
    assert ids == sorted(set(ids))
    assert sum(map(len, first)) > 4_000_000
    assert first[-1].splitlines()[1] == b"event: end"
    assert all(other == first for other in others)
    assert await asyncio.wait_for(slow.rest(dawdled), DEADLINE) == first
    assert await asyncio.wait_for(returning, DEADLINE) == first
    late = await (await followed.reader(run_id).open()).rest()
    assert late == first
    middle = len(first) // 2
    assert await (await followed.reader(run_id, ids[middle]).open()).rest() == first[middle + 1 :]
    assert await until(lambda: followed.descriptors() <= before), followed.descriptors() - before


async def _come_again(followed: Followed, run_id: str) -> list[bytes]:
    """Read a few events, and vanish, until the last one was read."""
    read: list[bytes] = []
    while not read or read[-1].splitlines()[1] != b"event: end":
        reader = await followed.reader(run_id, after=id_of(read[-1]) if read else 0).open()
        read += [event for _ in range(20) if (event := await reader.event())]
        reader.vanish()
    return read


async def test_readers_that_vanish_leave_nothing(followed: Followed) -> None:
    """Nothing is left of readers that are gone, even while nothing happens that would be sent to them."""
    code = "import os, time\nwhile not os.path.exists('enough'): time.sleep(0.01)"
    run_id = await followed.submit("vanish", code)
    staying = await followed.reader(run_id).open()
    while b'"state":"started"' not in await staying.event():
        pass
    before = await followed.settle()
    readers = [await followed.reader(run_id).open() for _ in range(READERS)]
    at_most = followed.descriptors()
    for reader in readers:
        reader.vanish()

    # Some of those that were there before belonged to the start of the kernel, and may have gone meanwhile.
    left = min(before, at_most - READERS)
    assert await until(lambda: followed.descriptors() <= left), followed.descriptors() - left
    (followed.server.root / "vanish" / "enough").touch()
    assert (await staying.rest())[-1].splitlines()[1] == b"event: end"
