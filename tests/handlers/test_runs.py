"""`POST /api/nbexec/<path>`: what a run does, and every field of its answer (API.md section 4)."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

from jupyter_nbexec.app import NbExec

if TYPE_CHECKING:
    from tests.handlers.conftest import Server

pytestmark = pytest.mark.sources

FIELDS = {
    "id",
    "path",
    "status",
    "created",
    "started",
    "ended",
    "duration",
    "parameters",
    "user",
    "kernel",
    "progress",
    "result",
    "result_type",
    "scraps",
    "outputs",
    "truncated",
    "error",
    "saved_as",
    "warnings",
    "webhook",
    "links",
}
UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


# The answer


async def test_answer(server: Server) -> None:
    """Every field of the answer says what it should, for a run with parameters, outputs, scraps, a result."""
    glued = {"name": "rows", "data": 1042, "encoder": "json", "version": 1}
    bundle = {"application/scrapbook.scrap.json+json": glued}
    markdown = {"cell_type": "markdown", "metadata": {}, "source": "# Sales"}
    file = server.write(
        "reports/sales.ipynb",
        markdown,
        server.cell("region = 'US'", "parameters"),
        "print(region)",
        f"display({bundle!r}, raw=True)",
        server.cell("print('never')", "skip-execution"),
        "",
        "{'region': region, 'nan': float('nan')}",
    )
    stored = file.read_bytes()
    answer = await server.run("reports/sales.ipynb", parameters={"region": "EU"})
    assert answer.status == 200, answer
    assert answer.media_type == "application/json"
    run = answer.json
    assert set(run) == FIELDS
    assert uuid.UUID(run["id"])
    assert (run["path"], run["status"]) == ("reports/sales.ipynb", "succeeded")
    assert all(UTC.fullmatch(run[name]) for name in ("created", "started", "ended"))
    times = [datetime.fromisoformat(run[name][:-1]) for name in ("created", "started", "ended")]
    assert times == sorted(times)
    assert isinstance(run["duration"], float)
    assert abs((times[2] - times[1]).total_seconds() - run["duration"]) < 0.01
    assert run["parameters"] == {"region": "EU"}
    # Jupyter has names by chance for those who come with the token.
    assert run["user"] is None
    assert run["kernel"] == {"name": "python3", "id": server.kernel_of_first, "source": server.source.name}
    # The injected cell, the skipped and the empty one are not counted.
    assert run["progress"] == {"done": 4, "total": 4, "cell": None}
    assert (run["result"], run["result_type"]) == ({"region": "EU", "nan": None}, "application/json")
    assert run["scraps"] == {"rows": 1042}
    assert [(each["cell"], each["cell_id"], each["output_type"]) for each in run["outputs"]] == [
        (2, "id-2", "stream"),
        (3, "id-3", "display_data"),
        (6, "id-6", "execute_result"),
    ]
    assert run["outputs"][0]["text"] == "EU\n"
    assert run["outputs"][2]["data"] == {"text/plain": "{'region': 'EU', 'nan': nan}"}
    assert (run["truncated"], run["error"], run["saved_as"], run["warnings"]) == (False, None, None, [])
    assert set(run["links"]) == {"self", "events", "notebook"}
    assert file.read_bytes() == stored
    assert server.kernels == []


async def test_timing_headers(server: Server) -> None:
    """`Server-Timing` has the four phases; the answer is nobody else's to keep."""
    server.write("a.ipynb", "1")
    answer = await server.run("a.ipynb")
    timing = dict(part.split(";dur=") for part in answer.headers["Server-Timing"].split(", "))
    assert list(timing) == ["queue", "kernel", "run", "total"]
    values = {name: float(value) for name, value in timing.items()}
    assert values["total"] >= values["run"] > 0
    assert values["kernel"] > 0
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Vary"] == "Accept"


async def test_outputs_selection(server: Server) -> None:
    """`outputs` chooses the cells whose outputs are given; all the rest of the answer stays."""
    server.write("a.ipynb", "print(0)", server.cell("print(1)", "keep"), "print(2)", "None")
    kernel_id = await server.lend()
    for selection, cells in [
        ("all", [0, 1, 2]),
        ("last", []),
        ("none", []),
        ({"tags": ["keep", "other"]}, [1]),
        ({"tags": []}, []),
    ]:
        run = (await server.run("a.ipynb", kernel_id=kernel_id, outputs=selection)).json
        assert [each["cell"] for each in run["outputs"]] == cells, selection
        assert run["progress"]["done"] == 4
    server.write("b.ipynb", "print(0)", "print(1)\n2")
    run = (await server.run("b.ipynb", kernel_id=kernel_id, outputs="last")).json
    assert [(each["cell"], each["output_type"]) for each in run["outputs"]] == [
        (1, "stream"),
        (1, "execute_result"),
    ]


@pytest.mark.parametrize(
    ("source", "result", "result_type"),
    [
        ("[1, 2.5, None, True, 'é']", [1, 2.5, None, True, "é"], "application/json"),
        ("10**40", 10**40, "application/json"),
        ("''", "", "application/json"),
        ("{1, 2}", "{1, 2}", "text/plain"),
        ("display({'application/json': {'a': 1}}, raw=True)", {"a": 1}, "application/json"),
        ("print(5)", None, None),
        ("5;", None, None),
        ("x = 5", None, None),
        ("class A:\n    def __repr__(self):\n        return '<b>'\nA()", "<b>", "text/plain"),
    ],
)
async def test_result(server: Server, source: str, result: Any, result_type: str | None) -> None:
    """`result` is the value of the last expression, as JSON where it has such a form."""
    server.write("a.ipynb", "0", source)
    run = (await server.run("a.ipynb")).json
    assert (run["result"], run["result_type"]) == (result, result_type)


async def test_result_leaves_no_trace(server: Server) -> None:
    """Fetching the result changes neither counters nor names nor history of the kernel."""
    server.write("a.ipynb", "names = set(globals())\n7")
    server.write("b.ipynb", "[sorted(set(globals()) - names - {'names'}), _, [*In]]")
    kernel_id = await server.lend()
    assert (await server.run("a.ipynb", kernel_id=kernel_id)).json["result"] == 7
    run = (await server.run("b.ipynb", kernel_id=kernel_id)).json
    names, last, history = run["result"]
    assert set(names) <= {"_1", "_i2", "_ii", "_iii"}  # IPython's own
    assert (last, len(history)) == (7, 3)
    assert run["outputs"][0]["execution_count"] == 2


@pytest.mark.server(NbExec={"max_outputs": 3, "max_output_bytes": 65536, "max_result_bytes": 100})
@pytest.mark.parametrize(
    ("source", "is_truncated", "outputs"),
    [
        ("for i in range(3): display(i)", False, 3),
        ("for i in range(4): display(i)", True, 3),
        ("print('x' * 60_000)", False, 1),
        ("print('x' * 70_000)\nprint('y')", True, None),
        ("for i in range(20): print('x' * 10_000, flush=True)", True, None),
        ("'x' * 90", False, 1),
        ("'x' * 110", True, 1),
    ],
)
async def test_truncated(server: Server, source: str, is_truncated: bool, outputs: int | None) -> None:
    """What is past the limits is left out and `truncated` says so; the run goes on."""
    server.write("a.ipynb", source)
    answer = await server.run("a.ipynb")
    run = answer.json
    assert (answer.status, run["status"]) == (200, "succeeded")
    assert run["truncated"] is is_truncated
    if outputs is not None:
        assert len(run["outputs"]) == outputs
    if source == "'x' * 110":
        assert run["result"] is None
    assert len(answer.body) < 100_000


# How it ends


@pytest.mark.server(NbExec={"interrupt_grace": 2.0})
async def test_cell_timeout(server: Server) -> None:
    """504 for a cell that takes too long, with what had been shown until then."""
    server.write("a.ipynb", "print('before', flush=True)", server.long(), "print('after')")
    answer = await server.run("a.ipynb", cell_timeout=4)
    run = answer.json
    assert (answer.status, run["status"], run["error"]["code"]) == (504, "failed", "timeout")
    assert (run["error"]["cell"], run["error"]["cell_id"]) == (1, "id-1")
    assert "4 s" in run["error"]["message"]
    assert run["outputs"][0]["text"] == "before\n"
    assert run["progress"]["done"] in (1, 2)


@pytest.mark.server(NbExec={"interrupt_grace": 0.5})
@pytest.mark.parametrize(
    ("fields", "metadata"),
    [
        ({"timeout": 0.5}, {}),
        ({}, {"execution": {"timeout": 0.5}}),
        ({"timeout": 0.5}, {"execution": {"timeout": 60}}),
    ],
    ids=["request", "notebook", "request-wins"],
)
async def test_run_timeout(server: Server, fields: Any, metadata: Any) -> None:
    """504 for a run that takes longer than the request, or else the notebook itself, says."""
    stubborn = "while True:\n    try:\n        while True: pass\n    except KeyboardInterrupt: pass"
    server.write("a.ipynb", stubborn, **metadata)
    answer = await server.run("a.ipynb", **fields)
    assert (answer.status, answer.json["error"]["code"]) == (504, "timeout")
    assert "0.5 s" in answer.json["error"]["message"]


@pytest.mark.server(NbExec={"default_timeout": 0.5, "max_timeout": 5, "interrupt_grace": 0.1})
async def test_timeout_of_the_server(server: Server) -> None:
    """The server's default holds where nobody says otherwise, and nobody gets more than its maximum."""
    server.write("a.ipynb", "import time", "time.sleep(60)")
    assert (await server.run("a.ipynb")).status == 504
    answer = await server.run("a.ipynb", timeout=5.5)
    assert (answer.status, answer.json["errors"][0]["field"]) == (400, "timeout")


@pytest.mark.parametrize(
    ("fields", "metadata", "goes_on"),
    [
        ({}, {}, False),
        ({"allow_errors": True}, {}, True),
        ({}, {"execution": {"allow_errors": True}}, True),
        ({"allow_errors": False}, {"execution": {"allow_errors": True}}, False),
    ],
)
async def test_allow_errors(server: Server, fields: Any, metadata: Any, goes_on: bool) -> None:
    """A cell that raises ends the run, unless the request, or else the notebook, allows it."""
    server.write("a.ipynb", "1 / 0", "print('after')", **metadata)
    answer = await server.run("a.ipynb", **fields)
    run = answer.json
    assert answer.status == (200 if goes_on else 500)
    assert [each["output_type"] for each in run["outputs"]] == ["error", "stream"][: 2 if goes_on else 1]
    if goes_on:
        assert run["error"] is None
    else:
        error = run["error"]
        assert (error["code"], error["ename"], error["evalue"]) == (
            "cell_error",
            "ZeroDivisionError",
            "division by zero",
        )
        assert error["message"] == "ZeroDivisionError: division by zero"
        assert (error["cell"], error["cell_id"]) == (0, "id-0")
        assert any("1 / 0" in re.sub(r"\x1b\[[^m]*m", "", line) for line in error["traceback"])
        assert run["progress"] == {"done": 1, "total": 2, "cell": None}


async def test_raises_exception_tag(server: Server) -> None:
    """A cell tagged `raises-exception` may raise, and need not."""
    server.write("a.ipynb", server.cell("1 / 0", "raises-exception"), server.cell("2", "raises-exception"))
    assert (await server.run("a.ipynb")).json["result"] == 2


@pytest.mark.parametrize("source", ["exit()", "quit", "import sys; sys.exit()", "raise SystemExit(0)"])
async def test_early_end(server: Server, source: str) -> None:
    """A notebook may end itself early, and well."""
    server.write("a.ipynb", "print('before')", source, "print('after')")
    answer = await server.run("a.ipynb")
    run = answer.json
    assert (answer.status, run["status"], run["error"]) == (200, "succeeded", None)
    assert "after" not in answer.body.decode()
    assert run["outputs"][0]["text"] == "before\n"


@pytest.mark.server(NbExec={"interrupt_grace": 1.0})
async def test_hang_up(server: Server) -> None:
    """A client that hangs up cancels its run, and its kernel is gone."""
    server.write("a.ipynb", server.long())
    _, writer = await server.connect()
    writer.write(server.head("api/nbexec/a.ipynb", "Content-Length: 2") + b"{}")
    await server.is_running()
    run_id = next(iter(server.runs._running))
    await server.hang_up(writer)
    run = (await server.fetch("GET", f"api/nbexec/runs/{run_id}?wait=20")).json
    assert run["status"] == "cancelled"
    await server.until(lambda: server.kernels == [])


@pytest.mark.parametrize("header", ["Prefer: wait=1", "Idempotency-Key: a"])
async def test_hang_up_and_go_on(server: Server, header: str) -> None:
    """With `Prefer` or `Idempotency-Key` the run goes on when the client hangs up."""
    gone = server.root / "gone"
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(gone)!r}).exists(): time.sleep(0.02)\n'ended'"
    server.write("a.ipynb", server.long().partition("\n")[0], wait)
    _, writer = await server.connect()
    writer.write(server.head("api/nbexec/a.ipynb", "Content-Length: 2", header) + b"{}")
    await server.is_running()
    run_id = next(iter(server.runs._running))
    await server.hang_up(writer)
    # The server notices that the client is gone before the notebook does.
    await server.fetch("GET", "api/status")
    gone.touch()
    run = (await server.fetch("GET", f"api/nbexec/runs/{run_id}?wait=30")).json
    assert (run["status"], run["result"]) == ("succeeded", "ended")


async def test_many_at_once(server: Server) -> None:
    """Runs of one notebook at the same time do not see each other (M32)."""
    server.write("a.ipynb", server.cell("x = 0", "parameters"), "import time\ntime.sleep(0.2)\nx")
    answers = await asyncio.gather(*(server.run("a.ipynb", parameters={"x": i}) for i in range(4)))
    assert [answer.json["result"] for answer in answers] == [0, 1, 2, 3]
    assert len(set(server.started)) == 4


# Its kernel


async def test_existing_kernel(server: Server) -> None:
    """`kernel_id` runs on a live kernel, which keeps its state and lives on."""
    server.write("a.ipynb", "x = 41")
    server.write("b.ipynb", "x + 1")
    kernel_id = await server.lend()
    first = await server.run("a.ipynb", kernel_id=kernel_id)
    assert first.json["kernel"] == {"name": "python3", "id": kernel_id, "source": "existing"}
    assert (await server.run("b.ipynb", kernel_id=kernel_id)).json["result"] == 42
    server.write("c.ipynb", "import time", "time.sleep(60)")
    assert (await server.run("c.ipynb", kernel_id=kernel_id, timeout=0.5)).status == 504
    assert (await server.run("b.ipynb", kernel_id=kernel_id)).json["result"] == 42
    assert server.kernels == server.started == [kernel_id]


async def test_visible_while_running(server: Server) -> None:
    """A run's kernel is in `/api/kernels`, busy, while it runs; the server counts the run as activity."""
    server.write("a.ipynb", server.long())
    task = asyncio.create_task(server.run("a.ipynb"))
    await server.is_running()
    listed = (await server.fetch("GET", "api/kernels")).json
    assert [each["execution_state"] for each in listed] == ["busy"]
    assert server.extension.current_activity() == 1
    (running,) = (await server.fetch("GET", "api/nbexec/runs?status=running")).json["runs"]
    assert running["progress"] == {"done": 0, "total": 1, "cell": 0}
    await server.fetch("POST", f"api/kernels/{listed[0]['id']}/interrupt")
    assert (await task).json["error"]["ename"] == "KeyboardInterrupt"
    assert server.extension.current_activity() is None


@pytest.mark.server(NbExec={"max_concurrent_runs": 1})
async def test_work_is_activity(server: Server) -> None:
    """The time that cullers go by moves on while runs are executed or wait, and stands still without them."""
    await server.extension._start_jupyter_server_extension(server.app)
    server.write("a.ipynb", server.gate("begun"))
    tasks = [asyncio.create_task(server.run("a.ipynb")) for _ in range(2)]
    await server.is_running("begun")
    assert server.extension.current_activity() == 2
    begun = server.app.web_app.last_activity()
    # Nobody asks for anything meanwhile.
    await server.until(lambda: server.app.web_app.last_activity() > begun)
    server.open_gate("begun")
    await asyncio.gather(*tasks)
    noted = server.app.web_app.settings["last_activity_times"]["jupyter_nbexec"]
    server.extension._note_activity()
    assert server.app.web_app.settings["last_activity_times"]["jupyter_nbexec"] is noted


async def test_nothing_keeps_a_server_from_ending(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """What fails when the server stops is in the log; all runs end all the same, and the server goes on."""

    async def fail() -> None:
        raise RuntimeError("cannot be stopped")

    server.write("a.ipynb", server.long())
    task = asyncio.create_task(server.run("a.ipynb"))
    await server.is_running()
    server.extension._exits.push_async_callback(fail)  # as if it were one of the parts

    await server.extension.stop_extension()

    assert (await task).json["error"]["code"] == "server_stopped"
    assert server.kernels == []
    assert "cannot be stopped" in caplog.text


async def test_what_could_not_begin_can_be_stopped() -> None:
    """An extension that could not be loaded does not keep the server busy, nor from ending."""
    extension = NbExec()
    assert extension.current_activity() is None
    await extension.stop_extension()


async def test_working_directory(server: Server) -> None:
    """The kernel's working directory is the notebook's folder, from which it imports."""
    server.write(
        "deep/er/a.ipynb", "import os, helper\n[os.getcwd(), helper.NAME, os.environ['JPY_SESSION_NAME']]"
    )
    (server.root / "deep/er/helper.py").write_text("NAME = 'helper'")
    run = (await server.run("deep/er/a.ipynb")).json
    assert run["result"] == [str(server.root / "deep/er"), "helper", "deep/er/a.ipynb"]


async def test_env(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """`env` reaches the kernel, neither the answer nor the log; nor does what is printed reach the log."""
    secret = "swordfish-" + uuid.uuid4().hex
    server.write(
        "a.ipynb",
        "import os\nassert os.environ['PASSWORD'].startswith('swordfish')\nlen(os.environ['PASSWORD'])",
    )
    answer = await server.run("a.ipynb", env={"PASSWORD": secret, "OTHER": "é "})
    assert answer.json["result"] == len(secret)
    assert secret not in answer.body.decode()
    server.write(
        "b.ipynb", server.cell("p = ''", "parameters"), "import os\nprint(p, os.environ['PASSWORD'])"
    )
    answer = await server.run("b.ipynb", env={"PASSWORD": secret}, parameters={"p": secret[::-1]})
    assert answer.json["outputs"][0]["text"] == f"{secret[::-1]} {secret}\n"
    assert secret not in caplog.text
    assert secret[::-1] not in caplog.text


async def test_scrubbed_env(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's own tokens are not in the kernel's environment; the rest of it is (S64)."""
    for name in (
        "JUPYTER_TOKEN",
        "JUPYTERHUB_API_TOKEN",
        "JPY_API_TOKEN",
        "JUPYTERHUB_CLIENT_SECRET",
        "PLAIN",
    ):
        monkeypatch.setenv(name, "value")
    server.write(
        "a.ipynb", "import os\nsorted(name for name, value in os.environ.items() if value == 'value')"
    )
    assert (await server.run("a.ipynb")).json["result"] == ["PLAIN"]


async def test_signal_handlers(server: Server) -> None:
    """A run leaves the server's handlers of SIGINT and SIGTERM as they were (F1)."""
    server.write("a.ipynb", "1")
    server.write("b.ipynb", "1 / 0")
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    task = asyncio.create_task(server.run("a.ipynb"))
    await server.until(lambda: server.kernels)
    assert [signal.getsignal(number) for number in numbers] == before
    await task
    await server.run("b.ipynb")
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.server(
    MappingKernelManager={
        "cull_idle_timeout": 1,
        "cull_interval": 1,
        "cull_busy": True,
        "cull_connected": True,
    }
)
async def test_not_culled(server: Server) -> None:
    """A server that culls idle, and even busy, kernels does not cull one under its run."""
    server.write("a.ipynb", "import time\ntime.sleep(4)\n'alive'")
    assert (await server.run("a.ipynb")).json["result"] == "alive"


async def test_round_trips(server: Server, jp_kernel_dir: Path) -> None:
    """A run adds two requests to the kernel to those that its cells need."""
    folder = jp_kernel_dir / "counting"
    folder.mkdir()
    script = Path(__file__).with_name("counting_ipykernel.py")
    argv = [sys.executable, str(script), "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Counting", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    requests = server.root / "requests"
    server.write("a.ipynb", server.cell("x = 1", "parameters"), "x")
    answer = await server.run(
        "a.ipynb", kernel_name="counting", parameters={"x": 5}, env={"NBEXEC_REQUESTS": str(requests)}
    )
    assert answer.json["result"] == 5, answer
    counted = requests.read_text().split()
    # Before the cells, the injected one too, what prepares the kernel; result and farewell ride on the last.
    assert counted == ["kernel_info_request", *4 * ["execute_request"]]


# The executed notebook


@pytest.mark.parametrize(
    ("kernel", "cells", "result", "warning"),
    [
        (
            "ir",
            ["x <- 1", "quit(status = 3)", "2"],
            None,
            "Cell 1 ended the notebook, with 1 more to execute",
        ),
        ("deno", ["1", "({a: 1, b: 'x'})"], '{ a: 1, b: "x" }', ""),
    ],
)
async def test_other_languages(
    server: Server, kernel: str, cells: list[str], result: str | None, warning: str
) -> None:
    """A text is told without its colours; a notebook that may have ended itself badly is told of."""
    folder = Path(sys.prefix) / "share" / "jupyter" / "kernels"
    if not (folder / kernel).exists():
        pytest.skip(f"kernel {kernel} is not installed")
    server.app.kernel_spec_manager.kernel_dirs = [str(folder)]
    server.write("a.ipynb", *cells, kernelspec={"name": kernel, "display_name": kernel})
    answer = await server.run("a.ipynb")
    assert answer.json["status"] == "succeeded", answer
    assert answer.json["result"] == result
    assert "".join(answer.json["warnings"]).startswith(warning)
    assert bool(answer.json["warnings"]) is bool(warning)


async def test_save_as(server: Server) -> None:
    """`save_as` saves the executed notebook, in folders made for it, under a name with id and name in it."""
    file = server.write("in/my sales.ipynb", server.cell("x = 1", "parameters"), "print(x)")
    stored = file.read_bytes()
    answer = await server.run(
        "in/my%20sales.ipynb", parameters={"x": 2}, save_as="out/deep/{name} {run_id} {x} {0}.ipynb"
    )
    run = answer.json
    assert run["saved_as"] == f"out/deep/my sales {run['id']} {{x}} {{0}}.ipynb"
    saved = nbformat.read(server.root / run["saved_as"], as_version=4)
    nbformat.validate(saved)
    assert saved.cells[1].source == "# Parameters\nx = 2\n"
    assert saved.cells[1].metadata.tags == ["injected-parameters"]
    assert saved.cells[2].outputs[0].text == "2\n"
    assert file.read_bytes() == stored


async def test_save_as_is_no_reason_to_warn(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Jupyter's warning that outputs are not trusted is for people's own notebooks."""
    server.write("a.ipynb", "from IPython.display import HTML\nHTML('<b>')")
    answer = await server.run("a.ipynb", save_as="out.ipynb")
    assert answer.json["saved_as"] == "out.ipynb"
    assert "not trusted" not in caplog.text
    saved = json.loads((server.root / "out.ipynb").read_text("utf-8"))
    model = json.dumps({"type": "notebook", "format": "json", "content": saved})
    await server.fetch("PUT", "api/contents/out.ipynb", model)
    assert "Notebook out.ipynb is not trusted" in caplog.text


async def test_save_as_of_a_failed_run(server: Server) -> None:
    """A run that failed is saved too, as far as it came."""
    server.write("a.ipynb", "print('before')", "1 / 0", "print('after')")
    answer = await server.run("a.ipynb", save_as="out.ipynb")
    assert answer.status == 500
    saved = nbformat.read(server.root / "out.ipynb", as_version=4)
    assert [len(cell.outputs) for cell in saved.cells] == [1, 1, 0]


async def test_save_as_that_cannot_be(server: Server) -> None:
    """Where the executed notebook cannot be saved the run counts all the same, with a warning."""
    server.write("a.ipynb", "1")
    (server.root / "file").touch()
    answer = await server.run("a.ipynb", save_as="file/out.ipynb")
    assert (answer.status, answer.json["result"], answer.json["saved_as"]) == (200, 1, None)
    assert "could not be saved" in answer.json["warnings"][0]
    assert str(server.root) not in answer.body.decode()


@pytest.mark.parametrize(
    "spelling", ["d/{name}.ipynb", "d/a.ipynb", "./d/./a.ipynb", "link.ipynb", "e/a.ipynb"]
)
@pytest.mark.parametrize("path", ["d/a.ipynb", "e/../d/a.ipynb", "link.ipynb", "e/a.ipynb"])
async def test_save_as_never_the_notebook_itself(server: Server, path: str, spelling: str) -> None:
    """The stored notebook is not overwritten, however it is spelled or linked to."""
    file = server.write("d/a.ipynb", "1")
    stored = file.read_bytes()
    (server.root / "link.ipynb").symlink_to(file)
    (server.root / "e").symlink_to(server.root / "d")
    if path == "link.ipynb" and "{name}" in spelling:
        spelling = "d/a.ipynb"
    answer = await server.run(path, save_as=spelling)

    assert (answer.status, answer.json["errors"][0]["field"]) == (400, "save_as"), answer
    assert file.read_bytes() == stored


async def test_no_nan_in_the_notebook(server: Server) -> None:
    """An executed notebook is JSON, whatever the stored one holds."""
    server.write("a.ipynb", "1", x=float("nan"))
    answer = await server.run("a.ipynb", headers={"Accept": "application/x-ipynb+json"}, save_as="b.ipynb")

    assert answer.status == 200
    assert answer.json["metadata"]["x"] is None
    assert "NaN" not in (server.root / "b.ipynb").read_text()


async def test_notebook_in_body(server: Server) -> None:
    """`POST /api/nbexec` runs the notebook of its body, in the root folder, and leaves no file."""
    notebook = server.notebook(server.cell("x = 1", "parameters"), "import os\n[x, os.getcwd()]")
    answer = await server.run("", notebook=notebook, parameters={"x": 2})
    assert (answer.status, answer.json["path"]) == (200, None)
    assert answer.json["result"] == [2, str(server.root)]
    assert list(server.root.iterdir()) == []


# Shapes

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SHAPES = [
    f"display({{'image/png': {PNG!r}, 'text/plain': 'first'}}, raw=True)",
    "display({'text/csv': 'a,é\\n'}, raw=True)",
    "display({'application/vnd.x+json': {'a': [1, float(2)]}}, raw=True)",
    "5",
]


@pytest.mark.parametrize(
    ("accept", "content_type", "body"),
    [
        ("image/png", "image/png", b"\x89PNG"),
        ("image/*", "image/png", b"\x89PNG"),
        ("text/csv", "text/csv; charset=UTF-8", "a,é\n".encode()),
        ("application/vnd.x+json", "application/vnd.x+json", b"{"),
        ("text/html", "text/html; charset=UTF-8", b"<!DOCTYPE html>"),
        ("application/x-ipynb+json", "application/x-ipynb+json", b"{"),
        ("application/json", "application/json", b"{"),
        ("image/gif, text/csv;q=0.5, */*;q=0.1", "text/csv; charset=UTF-8", "a,é\n".encode()),
    ],
)
async def test_shape(server: Server, accept: str, content_type: str, body: bytes) -> None:
    """`Accept` chooses the shape of the answer."""
    server.write("a.ipynb", *SHAPES)
    answer = await server.run("a.ipynb", headers={"Accept": accept})
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"].lower() == content_type.lower()
    assert answer.body.startswith(body)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Server-Timing" in answer.headers
    if accept == "application/x-ipynb+json":
        executed: Any = nbformat.reads(answer.body.decode(), as_version=4)
        nbformat.validate(executed)
        assert executed.cells[3].outputs[0]["data"] == {"text/plain": "5"}


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("image/png", "application/json"),
        ("text/html", "application/json"),
        ("application/x-ipynb+json", "application/x-ipynb+json"),
    ],
)
async def test_shape_of_a_failed_run(server: Server, accept: str, media_type: str) -> None:
    """A failed run is JSON, whatever was asked for, unless that was the notebook."""
    server.write("a.ipynb", SHAPES[0], "1 / 0")
    answer = await server.run("a.ipynb", headers={"Accept": accept})
    assert (answer.status, answer.media_type) == (500, media_type)
    if media_type == "application/json":
        assert answer.json["error"]["ename"] == "ZeroDivisionError"
    else:
        assert answer.json["cells"][1]["outputs"][0]["ename"] == "ZeroDivisionError"
