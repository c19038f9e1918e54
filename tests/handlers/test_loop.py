"""Whatever is sent, the event loop does nothing that takes long: not even where it is refused.

What is measured is the processor time of the loop's thread for each callback, which other processes do not
change, beside that of a harmless request as large: no deadline of a clock is in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import json
import threading
import time
from asyncio import events
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from jupyter_nbexec import background
from tests.handlers.conftest import DEADLINE, SERVICE

if TYPE_CHECKING:
    from tests.handlers.conftest import Server

#: Bytes of the bodies, and of the headers, which tornado limits.
BODY, HEADER = 1_000_000, 60_000
#: Processor seconds that a callback may take above twice those of a harmless request's.
MARGIN = 0.02
#: A request that is refused when all that belongs to it has been read.
REFUSED = '{"parameters":{"b":1}}'
RUN, INLINE = f"{SERVICE}/a.ipynb", SERVICE


@dataclass(frozen=True)
class Attack:
    """A request that would take long if it were worked on before it is counted."""

    id: str
    path: str = RUN
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    body: Callable[[], str] = lambda: REFUSED


def repeat(piece: str, size: int, separator: str = ",") -> str:
    """Repeat a piece; `%d` in it is a number."""
    number = size // (len(piece) + len(separator) + 3 * piece.count("%d"))
    return separator.join(piece % i if "%d" in piece else piece for i in range(number))


def body(frame: str, piece: str) -> Callable[[], str]:
    """A body in which a piece is repeated; it is made when it is sent."""
    return lambda: frame.replace("*", repeat(piece, BODY))


def deep(value: str, depth: int) -> str:
    """A value in so many arrays."""
    return "[" * depth + value + "]" * depth


CELL = '{"cell_type":"code","id":"c%d","metadata":{},"source":"","outputs":[],"execution_count":null}'
DECLARING = CELL.replace('"metadata":{}', '"metadata":{"tags":["parameters"]}').replace("%d", "p")
SOURCE = DECLARING.replace('"source":""', '"source":"*"')
NOTEBOOK = '{"notebook":{"nbformat":4,"nbformat_minor":5,"metadata":{META},"cells":[CELLS]}PARAMS}'


def notebook(
    piece: str, meta: str = "", cells: str = "", parameters: str = ',"kernel_name":"none"'
) -> Callable[[], str]:
    """A notebook in the body in which a piece is repeated, and what refuses it in the end."""
    frame = NOTEBOOK.replace("META", meta).replace("CELLS", cells).replace("PARAMS", parameters)
    return body(frame, piece)


ATTACKS = [
    *(
        Attack(f"{name} of {length}", headers={name: repeat(piece, length)})
        for name, piece in {
            "Accept": "a/b;c=d",
            "Prefer": "a=b;c",
            "Idempotency-Key": "k",
            "Content-Type": 'a/b; charset="',
            "If-None-Match": 'W/"a"',
            "Last-Event-ID": "9",
        }.items()
        for length in (4096, HEADER)
    ),
    Attack("events of nothing", f"{SERVICE}/runs", "GET", {"Last-Event-ID": "9" * HEADER}),
    Attack("query", f"{RUN}?{repeat('a%d=1', HEADER, '&')}"),
    Attack("list", f"{SERVICE}/runs?limit={'9' * HEADER}", "GET"),
    Attack("path", f"{SERVICE}/{'a/' * (HEADER // 2)}b.ipynb"),
    Attack("dots", f"{SERVICE}/{'a/../' * (HEADER // 5)}b.ipynb"),
    Attack("endpoint", f"{RUN}/{'a/' * (HEADER // 2)}", "GET"),
    Attack("form", f"{RUN}/x", headers={"Content-Type": "application/x-www-form-urlencoded"},
           body=lambda: repeat("a%d=1", BODY, "&")),
    Attack("unknown fields", body=body("{*}", '"a%d":1')),
    Attack("members of parameters", body=body('{"parameters":{*}}', '"a%d":1')),
    Attack("with a key", headers={"Idempotency-Key": "k"}, body=body('{"parameters":{*}}', '"a%d":1')),
    Attack("long names", body=body('{"parameters":{"*":1}}', "n")),
    Attack("an array", body=body('{"parameters":{"a":[*],"b":1}}', "1")),
    Attack("objects", body=body('{"parameters":{"a":[*]},"timeout":1}', '{"b":{}}')),
    Attack("nested", body=body('{"parameters":{"a":[*],"b":1}}', deep("1", 900))),
    Attack("nested too deep", body=lambda: deep("1", BODY // 2)),
    Attack("digits", body=body('{"parameters":{"a":[*],"b":1}}', "9" * 4300)),
    Attack("too many digits", body=lambda: '{"parameters":{"a":' + "9" * BODY + "}}"),
    Attack("exponents", body=body('{"parameters":{"a":[*],"b":1}}', "1e-99999999")),
    Attack("escapes", body=lambda: '{"parameters":{"a":"' + "\\ud800" * (BODY // 6) + '"}}'),
    Attack("env", body=body('{"env":{*}}', '"A%d":""')),
    Attack("tags", body=body('{"outputs":{"tags":[*]}}', '"a%d"')),
    Attack("webhook", body=body('{"webhook":{*}}', '"a%d":1')),
    Attack("kernel", body=body('{"kernel_name":"*"}', "k")),
    Attack("save_as", body=body('{"save_as":"*.ipynb"}', "a/")),
    Attack("cells", INLINE, body=notebook(CELL, cells="*")),
    Attack("empty cells", INLINE, body=notebook("{}", cells="*")),
    Attack("metadata", INLINE, body=notebook('"a%d":{}', meta="*")),
    Attack("nested metadata", INLINE, body=notebook(deep("1", 900), meta='"a":[*]')),
    Attack("tags of a cell", INLINE, body=notebook(
        '"a%d"', cells=DECLARING.replace('["parameters"]', "[*]"))),
    Attack("source", INLINE, body=notebook("a%d = [", cells=SOURCE, parameters=',"parameters":{"b":1}')),
    Attack("parameters that are declared", INLINE, body=notebook(
        "a%d = 1\\n", cells=SOURCE, parameters=',"parameters":{"b":1}')),
    Attack("enum", INLINE, body=notebook(
        "%d", meta='"nbexec":{"parameters":{"a":{"enum":[*]}}}',
        cells=SOURCE.replace("*", "a = 1"), parameters=',"parameters":{"a":-1}')),
    Attack("watched files", INLINE, body=notebook('"a%d"', meta='"nbexec":{"watch":[*]}')),
    Attack("description", f"{SERVICE}/many.ipynb", "GET"),
    Attack("OpenAPI", f"{SERVICE}/openapi.json?path=many.ipynb", "GET"),
    Attack("outputs", f"{SERVICE}/outputs.ipynb", body=lambda: "{}"),
    Attack("outputs as events", f"{SERVICE}/outputs.ipynb", headers={"Accept": "text/event-stream"},
           body=lambda: "{}"),
]  # fmt: skip


@contextlib.contextmanager
def longest_callback() -> Iterator[list[tuple[float, str]]]:
    """Note the processor time of each callback of this thread's loop, and what it was."""
    found: list[tuple[float, str]] = []
    own, run = threading.get_ident(), events.Handle._run

    def timed(handle: events.Handle) -> None:
        began = time.thread_time()
        run(handle)
        if threading.get_ident() == own:
            took = time.thread_time() - began
            if not found or took > found[-1][0]:
                found.append((took, repr(handle)[:300]))

    gc.collect()
    gc.disable()  # it would take the time of whoever happens to be at work
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events.Handle, "_run", timed)
        yield found
    gc.enable()


def send(server: Server, attack: Attack, content: bytes) -> int:
    """Send a request, in a thread; the status."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    with contextlib.closing(connection):
        path = f"{server.base_url}{attack.path}"
        # A server that refuses by the headers does not read the body.
        with contextlib.suppress(ConnectionError):
            connection.request(attack.method, path, content, {**server.auth, **attack.headers})
        with contextlib.suppress(ConnectionError):
            answer = connection.getresponse()
            is_refused = 400 <= answer.status < 500
            assert len(answer.read()) < 100_000 or not is_refused, (
                f"{attack.id}: much is said of what is wrong"
            )
            return answer.status
        return 0


async def cost(server: Server, attack: Attack) -> tuple[float, str]:
    """Processor seconds of the loop's longest callback while a request is answered, and what that did."""
    content = (await background.run(attack.body)).encode()
    with longest_callback() as found:
        status = await asyncio.wait_for(background.run(send, server, attack, content), DEADLINE)
    return found[-1][0], f"{attack.id}: {status}; {found[-1][1]}"


async def test_nothing_holds_the_loop(server: Server) -> None:
    """No request has the loop work longer at a time than a harmless one of its size does."""
    server.write("a.ipynb", server.cell("a = []", "parameters"), "# GET /x\n1", "# POST /x\n1")
    server.write("text.ipynb", server.cell("a = ''", "parameters"))
    server.write("many.ipynb", server.cell("\n".join(f"a{i} = 1" for i in range(20_000)), "parameters"))
    values = "{str(i): {'a': [i]} for i in range(50_000)}"
    server.write("outputs.ipynb", f"display({{'application/json': {values}}}, raw=True)", values)
    harmless = Attack(
        "harmless", f"{SERVICE}/text.ipynb", body=lambda: json.dumps({"parameters": {"a": "x" * BODY}})
    )
    await cost(server, harmless)
    usual, _ = max([await cost(server, harmless) for _ in range(2)])
    found = [await cost(server, attack) for attack in ATTACKS]
    long = [f"{1000 * took:.0f} ms, {what}" for took, what in found if took > 2 * usual + MARGIN]
    assert not long, "\n".join([f"usual: {1000 * usual:.0f} ms", *long])
