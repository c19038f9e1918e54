"""Runs on kernels that were made ready before: warm ones, and ones that have begun with the notebook."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tornado import web

from .conftest import SERVICE

if TYPE_CHECKING:
    from .conftest import Server

#: Wants to be prepared; what each cell puts out tells which process has executed it, and when.
CELLS = (
    "import os, time\nborn = time.time()\nprint('loading', flush=True)\nseen = []",
    "display({'text/plain': 'ready', 'text/html': '<b>ready</b>'}, raw=True)\nlen(seen)",
)


def write(server: Server, path: str = "a.ipynb", *, before: tuple[str, ...] = CELLS, **own: Any) -> None:
    """Save a notebook whose beginning may be prepared."""
    cells = [
        *before,
        server.cell("x = 1", "parameters"),
        "seen.append(x)\n{'x': x, 'seen': seen, 'pid': os.getpid(), 'born': born, 'cwd': os.getcwd()}",
    ]
    server.write(path, *cells, nbexec={"prepare": True, **own})


async def prepared(server: Server, number: int = 1) -> None:
    """Wait until so many kernels are ready."""
    shelves = server.extension._prepared._pool
    await server.until(lambda: shelves.ready >= number and not shelves._making and not shelves._orders)


async def run(server: Server, path: str = "a.ipynb", **fields: Any) -> Any:
    """Run the notebook; the answer, which is right."""
    answer = await server.run(path, **fields)
    assert answer.status == 200, answer
    return answer.json


def without_times(answer: Any) -> Any:
    """An answer without what differs from run to run."""
    left_out = {"id", "created", "started", "ended", "duration", "timing", "links", "kernel", "result"}
    outputs = [
        {name: value for name, value in output.items() if name != "data" or "seen" not in str(value)}
        for output in answer["outputs"]
    ]
    return {**{name: value for name, value in answer.items() if name not in left_out}, "outputs": outputs}


async def test_same_answer(server: Server) -> None:
    """A prepared run's answer is that of a full run, but for times; each run has a kernel of its own."""
    write(server)
    cold = await run(server, parameters={"x": 5})
    await prepared(server)
    first = await run(server, parameters={"x": 5})
    await prepared(server)
    second = await run(server, parameters={"x": 6})

    assert [each["kernel"]["source"] for each in (cold, first, second)] == ["cold", "prepared", "prepared"]
    assert without_times(first) == without_times(cold)
    assert (first["result"]["seen"], second["result"]["seen"]) == ([5], [6])
    assert len({each["result"]["pid"] for each in (cold, first, second)}) == 3
    assert first["progress"] == {"done": 4, "total": 4, "cell": None}
    assert server.kernels == []


async def test_events(server: Server) -> None:
    """Whoever follows a prepared run is told of the prepared cells too."""
    write(server)
    cold = await server.submit("a.ipynb")
    await server.ended(cold["id"])
    await prepared(server)
    warm = await server.submit("a.ipynb")
    await server.ended(warm["id"])
    told = []
    for each in (cold, warm):
        async with server.follow(each["id"]) as stream:
            events = await stream.rest()
        told.append([(event.type, event.data.get("cell")) for event in events if event.type != "status"])

    assert told[0] == told[1]
    assert ("output", 0) in told[1]


async def test_executed_notebook(server: Server) -> None:
    """The executed notebook has all cells, executed in order."""
    write(server)
    await run(server)
    await prepared(server)
    answer = await run(server, parameters={"x": 2})
    notebook = (await server.get(answer["id"], "/notebook")).json

    counts = [cell["execution_count"] for cell in notebook["cells"]]
    assert counts == [1, 2, 3, 4, 5]
    assert "".join(notebook["cells"][3]["source"]) == "# Parameters\nx = 2\n"


async def test_a_saved_change(server: Server) -> None:
    """A change of the beginning has prepared kernels end; one of the rest is seen as well."""
    will = "import atexit, pathlib\natexit.register(pathlib.Path(f'{os.getpid()}.ended').touch)"
    write(server, before=(*CELLS, will))
    first = await run(server)
    await prepared(server)
    write(server, before=("import os\nborn = 'changed'\nseen = ['new']",))
    changed = await run(server)

    assert changed["kernel"]["source"] == "cold"
    assert changed["result"]["seen"] == ["new", 1]
    await prepared(server)
    again = await run(server)
    assert (again["kernel"]["source"], again["result"]["born"]) == ("prepared", "changed")
    await server.until(lambda: len(list(server.root.glob("*.ended"))) >= 2)
    assert (server.root / f"{first['result']['pid']}.ended").exists()


async def test_a_watched_file(server: Server) -> None:
    """A change of a file that the notebook names throws prepared kernels away."""
    (server.root / "folder").mkdir()
    data = server.root / "folder" / "model.txt"
    data.write_text("1")
    before = ("import os\nborn = open('model.txt').read()\nseen = []",)
    write(server, "folder/a.ipynb", before=before, watch=["model.txt", "../../etc/passwd", 5])
    await run(server, "folder/a.ipynb")
    await prepared(server)
    assert (await run(server, "folder/a.ipynb"))["result"]["born"] == "1"
    await prepared(server)
    data.write_text("changed")
    answer = await run(server, "folder/a.ipynb")

    assert answer["result"]["born"] == "changed"
    assert answer["result"]["cwd"] == str(server.root / "folder")


async def test_preparing_fails(server: Server) -> None:
    """Where the beginning fails, a run executes it itself, and tells what is wrong."""
    write(server, before=("1/0",))
    for _ in range(2):
        answer = await server.run("a.ipynb")
        assert (answer.status, answer.json["error"]["ename"]) == (500, "ZeroDivisionError")
        assert answer.json["error"]["cell"] == 0
    write(server, before=("import os\nborn = 0\nseen = []\nexit()",))
    answer = await server.run("a.ipynb")
    assert (answer.status, answer.json["status"]) == (200, "succeeded")


@pytest.mark.parametrize(
    "fields", [{"env": {"A": "1"}}, {"kernel_id": "lent"}], ids=["an environment", "a kernel of its own"]
)
async def test_not_for_all(server: Server, fields: dict[str, Any]) -> None:
    """A run that brings an environment or a kernel does not use a prepared one."""
    write(server)
    await run(server)
    await prepared(server)
    if "kernel_id" in fields:
        fields = {"kernel_id": await server.lend()}
    answer = await run(server, **fields)

    assert answer["kernel"]["source"] in ("cold", "existing")


@pytest.mark.server(NbExec={"prepared_notebooks": ["named.ipynb", "fold*"], "max_prepared_kernels": 2})
async def test_named_by_the_administrator(server: Server) -> None:
    """Notebooks that match a pattern are prepared as well, those without parameters never."""
    write(server, "named.ipynb", prepare=False)
    server.write("folder.ipynb", "1")
    await server.extension._start_jupyter_server_extension(server.app)
    await prepared(server)
    assert (await run(server, "named.ipynb"))["kernel"]["source"] == "prepared"
    for _ in range(2):
        assert (await run(server, "folder.ipynb"))["kernel"]["source"] == "cold"


NAMED = ["gone.ipynb", "forbidden.ipynb", "named.ipynb"]


@pytest.mark.server(NbExec={"prepared_notebooks": NAMED, "served_notebooks": NAMED})
async def test_what_cannot_be_prepared_is_said(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A named notebook that cannot be read is in the log, and holds up no other; so with served ones."""
    write(server, "named.ipynb", prepare=False)
    contents: Any = server.app.contents_manager
    get = contents.get

    async def refuse(path: str, *args: Any, **kwargs: Any) -> Any:
        if path == "forbidden.ipynb":
            raise web.HTTPError(403, "not for you")
        return await get(path, *args, **kwargs)

    monkeypatch.setattr(contents, "get", refuse)
    await server.extension._start_jupyter_server_extension(server.app)
    await prepared(server)

    said = [each.getMessage() for each in caplog.records if "cannot be prepared" in each.getMessage()]
    assert [text.split("'")[1] for text in said] == ["gone.ipynb", "forbidden.ipynb"]
    assert "may not be read" in said[1]
    await server.until(lambda: "'named.ipynb' has no endpoints" in caplog.text)
    served = [each.getMessage() for each in caplog.records if "cannot be served" in each.getMessage()]
    assert [text.split("'")[1] for text in served] == ["gone.ipynb", "forbidden.ipynb"]
    assert (await run(server, "named.ipynb"))["kernel"]["source"] == "prepared"


@pytest.mark.server(NbExec={"preload": {"python3": ["json"]}, "fork_kernels": False})
async def test_preload_needs_forks(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Modules to preload without a process to preload them in are a mistake that the log tells."""
    await server.extension._performer(server.extension._runs).stop()

    assert "NbExec.preload has no effect without NbExec.fork_kernels" in caplog.text


@pytest.mark.server(NbExec={"max_prepared_kernels": 0})
async def test_switched_off(server: Server) -> None:
    """An administrator can switch it off."""
    write(server)
    assert [(await run(server))["kernel"]["source"] for _ in range(2)] == ["cold", "cold"]


@pytest.mark.server(NbExec={"warm_kernels": {"python3": 1}})
async def test_warm(server: Server) -> None:
    """A warm kernel is not listed, serves one run as a cold one would, and is replaced."""
    (server.root / "folder").mkdir()
    code = "import os, sys\n[os.getcwd(), __session__, os.environ['JPY_SESSION_NAME'], '' in sys.path, dir()]"
    server.write("folder/b.ipynb", code)
    await server.extension._start_jupyter_server_extension(server.app)
    shelves = server.extension._fresh._pool
    seen = []
    for path in ("folder/b.ipynb", "folder/b.ipynb", "folder/b.ipynb"):
        await server.until(lambda: shelves.ready == 1)
        assert server.kernels == []
        seen.append(await run(server, path))
    cold = await run(server, "folder/b.ipynb", env={"A": "1"})

    assert [each["kernel"]["source"] for each in seen] == 3 * ["warm"]
    assert cold["kernel"]["source"] == "cold"
    assert all(each["result"] == cold["result"] for each in seen)
    listed = json.loads((await server.fetch("GET", f"{SERVICE}/runs")).body)["runs"]
    assert len({each["kernel"]["id"] for each in listed}) == 4
