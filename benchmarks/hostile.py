"""Requests that would take long if they were worked on before they are counted.

Bodies and headers are as large as they may be, or as a test has the time for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

SERVICE = "api/nbexec"
RUN, INLINE = f"{SERVICE}/a.ipynb", SERVICE
#: A request that is refused when all that belongs to it has been read.
REFUSED = '{"parameters":{"b":1}}'
#: What notebooks that are asked for hold: sources of code cells, of which the first declares parameters.
MANY = "\n".join(f"a{number} = 1" for number in range(1_000))
VALUES = "{str(i): {'a': [i]} for i in range(50_000)}"
NOTEBOOKS = {
    "a.ipynb": ("a = []", "# GET /x\n1", "# POST /x\n1"),
    "many.ipynb": (MANY,),
    "outputs.ipynb": ("", f"display({{'application/json': {VALUES}}}, raw=True)", VALUES),
}


@dataclass(frozen=True)
class Attack:
    """A request that would take long if it were worked on before it is counted."""

    id: str
    path: str = RUN
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    body: Callable[[int], str] = lambda _: REFUSED


def repeat(piece: str, size: int, separator: str = ",") -> str:
    """Repeat a piece; `%d` in it is a number."""
    number = size // (len(piece) + len(separator) + 5 * piece.count("%d"))
    return separator.join(piece % i if "%d" in piece else piece for i in range(number))


def body(frame: str, piece: str) -> Callable[[int], str]:
    """A body in which a piece is repeated; it is made when it is sent."""
    return lambda size: frame.replace("*", repeat(piece, size))


def deep(value: str, depth: int) -> str:
    """A value in so many arrays."""
    return "[" * depth + value + "]" * depth


CELL = '{"cell_type":"code","id":"c%d","metadata":{},"source":"","outputs":[],"execution_count":null}'
DECLARING = CELL.replace('"metadata":{}', '"metadata":{"tags":["parameters"]}').replace("%d", "p")
SOURCE = DECLARING.replace('"source":""', '"source":"*"')
NOTEBOOK = '{"notebook":{"nbformat":4,"nbformat_minor":5,"metadata":{META},"cells":[CELLS]}PARAMS}'


def notebook(
    piece: str, meta: str = "", cells: str = "", parameters: str = ',"kernel_name":"none"'
) -> Callable[[int], str]:
    """A notebook in the body in which a piece is repeated, and what refuses it in the end."""
    frame = NOTEBOOK.replace("META", meta).replace("CELLS", cells).replace("PARAMS", parameters)
    return body(frame, piece)


def attacks(header: int) -> list[Attack]:
    """All of them, with headers of so many bytes; the size of its body is given to each when it is sent."""
    return [
        *(
            Attack(f"{name} of {length}", headers={name: repeat(piece, length)})
            for name, piece in {
                "Accept": "a/b",
                "Prefer": "a=b;c",
                "Idempotency-Key": "k",
                "Content-Type": 'a/b; charset="',
                "If-None-Match": 'W/"a"',
                "Last-Event-ID": "9",
            }.items()
            for length in (4096, header)
        ),
        Attack("events of nothing", f"{SERVICE}/runs", "GET", {"Last-Event-ID": "9" * header}),
        Attack("query", f"{RUN}?{repeat('a%d=1', header, '&')}"),
        Attack("list", f"{SERVICE}/runs?limit={'9' * header}", "GET"),
        Attack("path", f"{SERVICE}/{'a/' * (header // 2)}b.ipynb"),
        Attack("dots", f"{SERVICE}/{'a/../' * (header // 5)}b.ipynb"),
        Attack("endpoint", f"{RUN}/{'a/' * (header // 2)}", "GET"),
        Attack("form", f"{RUN}/x", headers={"Content-Type": "application/x-www-form-urlencoded"},
               body=lambda size: repeat("a%d=1", size, "&")),
        Attack("unknown fields", body=body("{*}", '"a%d":1')),
        Attack("members of parameters", body=body('{"parameters":{*}}', '"a%d":1')),
        Attack("with a key", headers={"Idempotency-Key": "k"}, body=body('{"parameters":{*}}', '"a%d":1')),
        Attack("long names", body=body('{"parameters":{"*":1}}', "n")),
        Attack("an array", body=body('{"parameters":{"a":[*],"b":1}}', "1")),
        Attack("objects", body=body('{"parameters":{"a":[*]},"timeout":1}', '{"b":{}}')),
        Attack("nested", body=body('{"parameters":{"a":[*],"b":1}}', deep("1", 900))),
        Attack("nested too deep", body=lambda size: deep("1", size // 2)),
        Attack("digits", body=body('{"parameters":{"a":[*],"b":1}}', "9" * 4300)),
        Attack("too many digits", body=lambda size: '{"parameters":{"a":' + "9" * size + "}}"),
        Attack("exponents", body=body('{"parameters":{"a":[*],"b":1}}', "1e-99999999")),
        Attack("escapes", body=lambda size: '{"parameters":{"a":"' + "\\ud800" * (size // 6) + '"}}'),
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
        Attack("outputs", f"{SERVICE}/outputs.ipynb", body=lambda _: "{}"),
        Attack("outputs as events", f"{SERVICE}/outputs.ipynb", headers={"Accept": "text/event-stream"},
               body=lambda _: "{}"),
    ]  # fmt: skip


HARMLESS = Attack("harmless", body=lambda size: '{"parameters":{"b":"' + "x" * size + '"}}')
