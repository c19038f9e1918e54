"""Follow runs: how soon what is printed arrives, whether all readers see the same, and what readers cost.

    python benchmarks/following.py [--short] [CAMPAIGN...]

Each campaign has a server process of its own, states figures, and checks promises; the exit status is 1 if
one of them was broken.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from campaigns import Report, check_log, command_line, ended, perform, saturate, submit, until
from serving import Server, serving

#: Promises: seconds from a print to the reader, and MiB for each reader that reads nothing.
DELAY, EACH = 0.2, 1.0
READERS = 100
#: Output that no buffer of a connection takes at once.
MEGABYTES = 8
#: Prints, shows, changes what was shown, clears, and prints a lot; a third of it before others run on.
LIVELY = f"""
import time
from IPython.display import clear_output, display
shown = display('at first', display_id=True)
for n in range(seconds * 20):
    print('line', n, flush=True)
    if n % 7 == 0: shown.update(f'shown {{n}}')
    if n % 10 == 9: clear_output()
    if n % (seconds * 20 // {MEGABYTES}) == 1: display({{'text/plain': str(n) * 500_000}}, raw=True)
    time.sleep(0.05)
"""


class Reader:
    """Reads the events of a run from a socket that it has for itself, as fast or as slowly as it likes."""

    def __init__(self, server: Server, run_id: str, *, after: int = 0, buffer: int | None = None) -> None:
        """`buffer` is the size of the socket's own buffer, where that is to be small."""
        url = urlsplit(server.url)
        self._address = url.hostname, url.port
        # HTTP/1.0 has no chunks: what comes is the events, until the connection ends.
        self._request = (
            f"GET {url.path}api/nbexec/runs/{run_id}/events HTTP/1.0\r\n"
            f"Authorization: token {server.token}\r\nLast-Event-ID: {after}\r\n\r\n"
        ).encode()
        self._socket = socket.socket()
        self._socket.settimeout(0)
        if buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._rest = b""

    async def open(self) -> None:
        """Ask, and read the head of the answer."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, self._address)
        await loop.sock_sendall(self._socket, self._request)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await self.read(1)
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise RuntimeError(head.decode())

    async def read(self, size: int = 1 << 16) -> bytes:
        """Read at most so many bytes; none at the end."""
        return await asyncio.get_running_loop().sock_recv(self._socket, size)

    async def rest(self) -> bytes:
        """Read to the end."""
        pieces = [self._rest]
        while piece := await self.read():
            pieces.append(piece)
        self._rest = b""
        self._socket.close()
        return b"".join(pieces)

    async def event(self) -> bytes:
        """Read one event; nothing at the end."""
        while b"\n\n" not in self._rest:
            piece = await self.read()
            if not piece:
                return b""
            self._rest += piece
        event, _, self._rest = self._rest.partition(b"\n\n")
        return event if not event.startswith(b":") else await self.event()

    def vanish(self) -> None:
        """Reset the connection."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def events_of(stream: bytes) -> list[bytes]:
    """The events in what was read; comments are left out."""
    return [each for each in stream.split(b"\n\n") if each and not each.startswith(b":")]


def id_of(event: bytes) -> int:
    """The id of an event."""
    return int(event.partition(b"\n")[0].removeprefix(b"id: "))


def data_of(event: bytes) -> dict[str, Any]:
    """The data of an event."""
    data: dict[str, Any] = json.loads(event.partition(b"data: ")[2])
    return data


async def read_all(server: Server, run_id: str, *, after: int = 0) -> bytes:
    """Read a run's events to the end, as fast as they come."""
    reader = Reader(server, run_id, after=after)
    await reader.open()
    return await reader.rest()


# How soon


async def delay(report: Report, *, short: bool) -> None:
    """What is printed arrives while the cell sleeps on."""
    number = 20 if short else 200
    code = (
        "import time, random\n"
        "for n in range({}):\n"
        "    print(time.time(){})\n"
        "    time.sleep(random.uniform(0.05, 0.6))"
    )
    with serving() as server:
        for name, option in (("flushed", ", flush=True"), ("left to the kernel to flush", "")):
            server.write("print.ipynb", code.format(number, option), "time.sleep(1)")
            reader = Reader(server, await submit(server, "print.ipynb"))
            await reader.open()
            delays: list[float] = []
            is_late = False
            while event := await reader.event():
                now = time.time()
                data = data_of(event)
                is_late |= data.get("state") == "ended" and len(delays) < number
                if data.get("output_type") == "stream":
                    delays += [now - float(line) for line in data["text"].split()]
            delays.sort()
            p50, p99 = delays[number // 2], delays[min(number - 1, number * 99 // 100)]
            report.figure(
                f"{name}: from print to reader p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms,"
                f" at most {1000 * delays[-1]:.0f} ms"
            )
            report.promise("all arrive before the cell ends", kept=not is_late and len(delays) == number)
            report.promise(f"within {1000 * DELAY:.0f} ms, p99", kept=p99 < DELAY, found=f"{p99:.3f} s")
        check_log(report, server)


# The same for all


async def dawdle(server: Server, run_id: str, seconds: float, has_ended: asyncio.Event) -> bytes:
    """Read one byte a second for so long, and until the run has ended; with as little buffer as can be."""
    reader = Reader(server, run_id, buffer=1)
    await reader.open()
    read = b""
    end = time.monotonic() + seconds
    while time.monotonic() < end or not has_ended.is_set():
        read += await reader.read(1)
        await asyncio.sleep(1)
    return read + await reader.rest()


async def reconnect(server: Server, run_id: str) -> bytes:
    """Read a few events at a time, each time on a new connection, from the event after the last."""
    read: list[bytes] = []
    while not read or b"\nevent: end\n" not in read[-1]:
        reader = Reader(server, run_id, after=id_of(read[-1]) if read else 0)
        await reader.open()
        read += [event for _ in range(25) if (event := await reader.event())]
        reader.vanish()
    return b"\n\n".join(read)


async def same(report: Report, *, short: bool) -> None:
    """Readers of every kind see exactly the same, and the run does not wait for them."""
    seconds = 5 if short else 30
    slow = 8.0 if short else 60.0
    with serving() as server:
        server.write("lively.ipynb", LIVELY, "time.sleep(1)\nseconds", parameters="seconds = 1")
        await saturate(server)
        alone = await ended(server, await submit(server, "lively.ipynb", seconds=seconds))
        before, resident = server.descriptors(), server.resident()
        run_id = await submit(server, "lively.ipynb", seconds=seconds)
        has_ended = asyncio.Event()
        dawdling = asyncio.create_task(dawdle(server, run_id, slow, has_ended))
        reading = [asyncio.create_task(read_all(server, run_id)) for _ in range(READERS)]
        reconnecting = asyncio.create_task(reconnect(server, run_id))
        peak = resident
        while not all(each.done() for each in reading):
            peak = max(peak, server.resident())
            await asyncio.sleep(0.1)
        together = await ended(server, run_id)
        report.promise("the run has ended before its slow reader", kept=not dawdling.done())
        has_ended.set()
        found = {
            f"{READERS} readers": [events_of(await each) for each in reading],
            "a reader that reconnects with Last-Event-ID": [events_of(await reconnecting)],
            "one that begins after the end": [events_of(await read_all(server, run_id))],
            "one that begins in the middle, after the end": [],
            f"one that reads 1 byte/s for {slow:.0f} s": [events_of(await dawdling)],
        }
        first = found[f"{READERS} readers"][0]
        middle = len(first) // 2
        tail = events_of(await read_all(server, run_id, after=id_of(first[middle - 1])))
        found["one that begins in the middle, after the end"] = [first[:middle] + tail]
        size = sum(map(len, first))
        report.figure(f"{len(first)} events, {size / 1e6:.1f} MB")
        ids = [id_of(each) for each in first]
        report.promise("ids grow", kept=ids == sorted(set(ids)))
        for name, each in found.items():
            different = [difference(first, other) for other in each if other != first]
            report.promise(f"the same sequence for {name}", kept=not different, found=different[:1])
        report.figure(
            f"the run took {together['duration']:.1f} s with readers, {alone['duration']:.1f} s without;"
            f" memory {resident:.0f} MiB before, {peak:.0f} at most"
        )
        report.promise("and never waits for them", kept=together["duration"] < alone["duration"] + 5)
        await until(lambda: server.descriptors() <= before, 15)
        left = server.descriptors() - before
        report.promise("no descriptor is left", kept=left <= 0, found=left)
        check_log(report, server)


def difference(one: list[bytes], other: list[bytes]) -> str:
    """Where two sequences part."""
    for a, b in zip(one, other, strict=False):
        if a != b:
            place = next(
                (n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
            )
            part = slice(max(0, place - 100), place + 100)
            return f"event {id_of(a)}: {a[part]!r} and {b[part]!r}"
    return f"{len(one)} and {len(other)} events"


# What readers cost


async def vanishing(report: Report, *, short: bool) -> None:
    """Readers that stop reading, or vanish, hold up nothing and leave nothing."""
    seconds = 5 if short else 20
    with serving() as server:
        server.write("lively.ipynb", LIVELY, "seconds", parameters="seconds = 1")
        server.write("waiting.ipynb", "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)")
        await saturate(server)
        alone = await ended(server, await submit(server, "lively.ipynb", seconds=seconds))
        peak, before, resident = 0.0, server.descriptors(), server.resident()
        run_id = await submit(server, "lively.ipynb", seconds=seconds)
        readers = [Reader(server, run_id, buffer=1) for _ in range(READERS)]
        await asyncio.gather(*(reader.open() for reader in readers))
        ending = asyncio.create_task(ended(server, run_id))
        while not ending.done():
            peak = max(peak, server.resident())
            await asyncio.sleep(0.1)
        together = await ending
        each = (peak - resident) / READERS
        report.figure(
            f"{READERS} readers that read nothing: memory {resident:.0f} MiB before, {peak:.0f} at most;"
            f" {together['duration']:.1f} s with them, {alone['duration']:.1f} s without"
        )
        report.promise(f"less than {EACH:g} MiB for each", kept=each < EACH, found=f"{each:.2f}")
        report.promise("and the run never waits", kept=together["duration"] < alone["duration"] + 5)
        for reader in readers:
            reader.vanish()
        left = await until(lambda: server.descriptors() <= before, 15)
        report.promise("they vanish, and leave no descriptor", kept=left is not None)
        # Nothing is sent here while they vanish.
        run_id = await submit(server, "waiting.ipynb")
        first = Reader(server, run_id)
        await first.open()
        while b'"state":"started"' not in await first.event():
            pass
        at_work = server.descriptors()
        readers = [Reader(server, run_id) for _ in range(READERS)]
        await asyncio.gather(*(reader.open() for reader in readers))
        for reader in readers:
            reader.vanish()
        left = await until(lambda: server.descriptors() <= at_work, 15)
        report.promise("while nothing happens, too", kept=left is not None, found=server.descriptors())
        (server.root / "go").touch()
        whole = b"event: end\n" in await first.rest()
        report.promise("the one that stayed sees the end", kept=whole)
        check_log(report, server)


CAMPAIGNS = {campaign.__name__: campaign for campaign in (delay, same, vanishing)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaigns that are named, or all."""
    parser = command_line(__doc__, CAMPAIGNS, short="a few seconds of each")
    return perform(
        parser,
        arguments,
        CAMPAIGNS,
        lambda report, campaign, options: campaign(report, short=options.short),
    )


if __name__ == "__main__":
    sys.exit(main())
