"""The public notebooks of `tests/fixtures`: what plain nbclient makes of them, and where we mean to differ.

`baseline.json` records what nbclient 0.11 does; `DIFFERENCES` names every notebook of which a run here gives
something else, and why. All else must be the same: how it ends, counts, outputs.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import canonicalize

import nbformat
import pytest

if TYPE_CHECKING:
    from tests.handlers.conftest import Answer, Server

pytestmark = pytest.mark.sources

FIXTURES = Path(__file__).parents[1] / "fixtures"
BASELINE: dict[str, dict[str, Any]] = {
    each["fixture"]: each for each in json.loads((FIXTURES / "baseline.json").read_text("utf-8"))
}
#: How often what fails by chance is tried; NBEXEC_LONG=1 for as often as we promise.
TIMES = 50 if os.environ.get("NBEXEC_LONG") else 5

_EXIT = "SystemExit with no code, '' or 0 ends a notebook early, and is a success; nbclient: an error"
DIFFERENCES = {
    "nbclient/Interrupt.ipynb": "the timeout is in the run's error, beside the KeyboardInterrupt it caused",
    "papermill/notimplemented_translator.ipynb": "an unknown kernel is refused (422) before anything starts",
    "papermill/sysexit.ipynb": _EXIT,
    "papermill/sysexit0.ipynb": _EXIT,
    "papermill/systemexit.ipynb": _EXIT,
    "papermill/test_autosave.ipynb": "its kernel, 'python', is not installed: refused (422) unless the "
    "request names another; then consecutive prints to one stream are one output",
}
#: What is sent with some of them.
FIELDS: dict[str, dict[str, Any]] = {
    "nbclient/Interrupt.ipynb": {"cell_timeout": 1},
    # It uses what Python 3.12 and newer warn about.
    "nbclient/Sleep1s.ipynb": {"env": {"PYTHONWARNINGS": "ignore"}},
    "papermill/test_autosave.ipynb": {"kernel_name": "python3"},
}
NBCLIENT_ERRORS = {"DeadKernelError": "kernel_died", "CellTimeoutError": "timeout"}
#: Those whose saved outputs are what must come back (E1, E2, E3).
AS_SAVED = [
    "HelloWorld",
    "Factorials",
    "SVG",
    "Unicode",
    "UnicodePy3",
    "Empty Cell",
    "Inline Image",
    "Clear Output",
    "update-display-id",
    "Skip Exceptions with Cell Tags",
]


class Ran:
    """A run of a fixture: its answer, and the executed notebook."""

    def __init__(self, answer: Answer, notebook: Any) -> None:
        self.status = answer.status
        self.run = answer.json
        self.notebook = notebook

    @property
    def cells(self) -> list[dict[str, Any]]:
        """Its code cells in the baseline's words."""
        return [
            {"i": index, "ec": cell.execution_count, "out": [_summary(output) for output in cell.outputs]}
            for index, cell in enumerate(self.notebook.cells)
            if cell.cell_type == "code"
        ]


def _in_order(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells with streams that follow each other in one order: a kernel sends each when it likes."""
    ordered = []
    for cell in cells:
        outputs = list(cell["out"])
        for index in range(len(outputs) - 1):
            if (outputs[index], outputs[index + 1]) == (["stream", "stderr"], ["stream", "stdout"]):
                outputs[index], outputs[index + 1] = outputs[index + 1], outputs[index]
        ordered.append({**cell, "out": outputs})
    return ordered


def _summary(output: Any) -> list[Any]:
    if output.output_type == "stream":
        return ["stream", output.name]
    if output.output_type == "error":
        return ["error", output.ename]
    return [output.output_type, sorted(output.data)]


def copy(server: Server, fixture: str) -> None:
    """Put a fixture below the root, with what it needs beside it."""
    target = server.root / fixture
    target.parent.mkdir(exist_ok=True)
    shutil.copy(FIXTURES / fixture, target)
    if target.name == "Inline Image.ipynb":
        saved: Any = nbformat.read(target, as_version=4)
        image = next(o.data["image/png"] for c in saved.cells for o in c.get("outputs", []) if "data" in o)
        (target.parent / "python.png").write_bytes(base64.b64decode(image))


async def run(server: Server, fixture: str, **fields: Any) -> Ran:
    """Run a fixture that is to be run, whole; every answer is complete."""
    copy(server, fixture)
    fields = {**FIELDS.get(fixture, {}), **fields}
    answer = await server.run(fixture.replace(" ", "%20"), save_as="executed/{run_id}.ipynb", **fields)
    assert answer.json.get("truncated") is False, answer
    executed: Any = nbformat.read(server.root / answer.json["saved_as"], as_version=nbformat.NO_CONVERT)
    nbformat.validate(executed)
    return Ran(answer, executed)


def test_every_fixture_is_known() -> None:
    """The baseline is about the notebooks that are here; each difference is about one of them."""
    here = {each.relative_to(FIXTURES).as_posix() for each in FIXTURES.rglob("*.ipynb")}
    assert set(BASELINE) - here == {"papermill/binder.ipynb"}  # runs papermill's own command line
    assert here - set(BASELINE) == {"papermill/keyboard_interrupt.ipynb"}  # F7, below
    assert set(DIFFERENCES) <= here


@pytest.mark.parametrize("fixture", sorted(set(BASELINE) - {"papermill/binder.ipynb"} - set(DIFFERENCES)))
async def test_as_nbclient(server: Server, fixture: str) -> None:
    """The notebook ends as it does with nbclient, with the same counts and kinds of outputs."""
    expected = BASELINE[fixture]
    ran = await run(server, fixture)
    if fixture == "nbclient/Autokill.ipynb":
        # Whether the kernel's word that it begins still got out before it died is chance.
        assert [cell["out"] for cell in ran.cells] == [[]]
    else:
        assert _in_order(ran.cells) == _in_order(expected["cells"])
    if expected["status"] == "ok":
        assert (ran.status, ran.run["status"], ran.run["error"]) == (200, "succeeded", None)
        return
    error = ran.run["error"]
    assert ran.run["status"] == "failed"
    assert error["code"] == NBCLIENT_ERRORS.get(expected["exc"], "cell_error")
    if error["code"] == "cell_error":
        assert ran.status == 500
        assert error["ename"] == expected["ename"]
        # The rest names files, and differs between versions of Python.
        assert error["evalue"].startswith(expected["evalue"].partition("(")[0])
        assert error["cell"] == [each for each in expected["cells"] if each["ec"]][-1]["i"]


# Where we differ


async def test_interrupt(server: Server) -> None:
    """E7: a cell that takes too long is interrupted, says so, and ends the run; its kernel is gone."""
    ran = await run(server, "nbclient/Interrupt.ipynb")
    assert (ran.status, ran.run["error"]["code"], ran.run["error"]["cell"]) == (504, "timeout", 0)
    assert ran.cells == BASELINE["nbclient/Interrupt.ipynb"]["cells"]
    assert server.kernels == []


async def test_output_widget(server: Server) -> None:
    """E11: a notebook that captures output in widgets never hangs; what it captures is in their state."""
    fixture = "nbclient/Output.ipynb"
    expected = BASELINE[fixture]["cells"]
    for _ in range(TIMES):
        ran = await asyncio.wait_for(run(server, fixture), 60)
        assert ran.status == 200
        assert ran.cells == expected
        widgets = ran.notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
        shown = json.dumps([cell.get("outputs", []) for cell in ran.notebook.cells])
        assert set(re.findall(r'"model_id": "(\w+)"', shown)) <= set(widgets)


@pytest.mark.parametrize("name", ["sysexit", "sysexit0", "systemexit"])
async def test_early_end(server: Server, name: str) -> None:
    """F1: `SystemExit` with nothing to complain of ends the notebook well; the rest is not run."""
    fixture = f"papermill/{name}.ipynb"
    ran = await run(server, fixture)
    assert (ran.status, ran.run["status"], ran.run["error"]) == (200, "succeeded", None)
    assert ran.cells == BASELINE[fixture]["cells"]
    assert [each["ec"] for each in ran.cells] == [1, 2, None]
    evalue = next(each["evalue"] for each in ran.run["outputs"] if each["output_type"] == "error")
    assert evalue == BASELINE[fixture]["evalue"]


async def test_unknown_kernel(server: Server) -> None:
    """P7: a notebook for a kernel that is not here is described, and refused."""
    copy(server, "papermill/notimplemented_translator.ipynb")
    described = await server.describe("papermill/notimplemented_translator.ipynb")
    assert described.json["kernel"] == {"name": "r", "language": "R", "available": False}
    answer = await server.run("papermill/notimplemented_translator.ipynb")
    assert (answer.status, answer.json["code"]) == (422, "no_such_kernel")
    assert server.started == []


async def test_other_kernel(server: Server) -> None:
    """A notebook whose kernel has another name here runs on the one that the request names."""
    copy(server, "papermill/test_autosave.ipynb")
    answer = await server.run("papermill/test_autosave.ipynb")
    assert (answer.status, answer.json["code"]) == (422, "no_such_kernel")
    ran = await run(server, "papermill/test_autosave.ipynb")
    assert ran.status == 200
    assert ran.cells == [{"i": 0, "ec": 1, "out": [["stream", "stdout"]]}]


# Outputs, word for word


def normalised(output: Any) -> Any:
    """Forget what differs from run to run, as nbclient's own tests do."""
    document = json.loads(json.dumps(output))
    document.pop("metadata", None)
    document.pop("transient", None)
    if "text" in document:
        document["text"] = re.sub(r"0x[0-9a-f]{7,}", "0x", document["text"])
    for mime, data in document.get("data", {}).items():
        if mime.startswith("text/"):
            document["data"][mime] = re.sub(r"0x[0-9a-f]{7,}", "0x", data)
        elif mime == "image/svg+xml":  # the order of attributes differs between versions of Python
            document["data"][mime] = canonicalize(data)
        elif mime == "image/png":
            document["data"][mime] = "".join(data.split())
    if "traceback" in document:
        document["traceback"] = len(document["traceback"]) > 0
    return document


def in_order(outputs: list[Any]) -> list[dict[str, Any]]:
    """Outputs as they are compared. Which of its two streams a kernel sends first is chance."""
    compared = [normalised(each) for each in outputs]
    grouped = itertools.groupby(compared, key=lambda each: each["output_type"] == "stream")
    return [
        each
        for is_stream, group in grouped
        for each in (sorted(group, key=lambda output: str(output["name"])) if is_stream else group)
    ]


@pytest.mark.parametrize("name", AS_SAVED)
async def test_as_saved(server: Server, name: str) -> None:
    """E1 to E3: what comes back is what was saved, output by output."""
    fixture = f"nbclient/{name}.ipynb"
    ran = await run(server, fixture)
    saved: Any = nbformat.read(FIXTURES / fixture, as_version=4)
    assert ran.status == 200
    for theirs, ours in zip(saved.cells, ran.notebook.cells, strict=True):
        assert ours.source == theirs.source
        if theirs.cell_type == "code":
            assert in_order(ours.outputs) == in_order(theirs.outputs)
            assert ours.execution_count == theirs.execution_count


async def test_tagged_exceptions(server: Server) -> None:
    """E3: a tagged cell may raise; without its tag the run says what it raised, in whatever script."""
    ran = await run(server, "nbclient/Skip Exceptions with Cell Tags.ipynb")
    error = ran.notebook.cells[0].outputs[-1]
    assert (error.ename, error.evalue) == ("Exception", "message")
    assert ran.notebook.cells[1].outputs[0].text.strip() == "ok"
    untagged: Any = nbformat.read(server.root / "nbclient/Skip Exceptions with Cell Tags.ipynb", as_version=4)
    untagged.cells[0].metadata.tags = []
    answer = await server.run("", notebook=json.loads(json.dumps(untagged)))
    run_ = answer.json
    assert (answer.status, run_["error"]["ename"], run_["error"]["evalue"]) == (500, "Exception", "message")
    streams = {each["name"]: each["text"] for each in run_["outputs"] if each["output_type"] == "stream"}
    assert streams["stdout"].strip() == "hello"
    assert streams["stderr"].strip() == "errorred"
    assert "üñîçø∂é" in re.sub(r"\x1b\[[^m]*m", "", "\n".join(run_["error"]["traceback"]))


async def test_exceptions(server: Server) -> None:
    """E4: an error stops the run, and what the cell after it had shown is gone; or the run goes on."""
    stopped = await run(server, "nbclient/Skip Exceptions.ipynb")
    assert (stopped.status, stopped.notebook.cells[1].outputs) == (500, [])
    ran = await run(server, "nbclient/Skip Exceptions.ipynb", allow_errors=True)
    assert ran.status == 200
    assert [[each.output_type for each in cell.outputs] for cell in ran.notebook.cells] == [
        ["error"],
        ["stream"],
    ]
    assert ran.notebook.cells[1].outputs[0].text.strip() == "ok"


async def test_kernel_kills_itself(server: Server) -> None:
    """E8: a kernel that dies is reported as dead, every time."""
    for _ in range(TIMES):
        ran = await asyncio.wait_for(run(server, "nbclient/Autokill.ipynb"), 30)
        assert (ran.status, ran.run["error"]["code"]) == (502, "kernel_died"), ran.run
        assert server.source.death("SIGTERM") in ran.run["error"]["message"]
        assert ran.run["error"]["cell"] == 0


async def test_stdin(server: Server) -> None:
    """E9: a notebook that asks for input is told that nobody is there."""
    ran = await run(server, "nbclient/Disable Stdin.ipynb")
    assert ran.run["error"]["ename"] == "StdinNotImplementedError"
    assert ran.run["error"]["evalue"] == BASELINE["nbclient/Disable Stdin.ipynb"]["evalue"]


async def test_widgets(server: Server) -> None:
    """E10: the executed notebook holds the state of the widgets it shows."""
    ran = await run(server, "nbclient/JupyterWidgets.ipynb")
    state = ran.notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    view = ran.notebook.cells[0].outputs[0].data["application/vnd.jupyter.widget-view+json"]
    assert state[view["model_id"]]["state"]["value"] == "Hello World"


async def test_parallel(server: Server, tmp_path: Path) -> None:
    """E12: two notebooks that wait for each other both end well, so they run at the same time."""
    env = {"NBEXECUTE_TEST_PARALLEL_TMPDIR": str(tmp_path)}
    names = ["A", "B"]
    both = await asyncio.gather(
        *(run(server, f"nbclient/Parallel Execute {name}.ipynb", env=env) for name in names)
    )
    assert [each.status for each in both] == [200, 200], [each.run["error"] for each in both]


async def test_timing(server: Server) -> None:
    """E14: the executed notebook says when each cell began and ended, and the cell agrees."""
    ran = await run(server, "nbclient/Sleep1s.ipynb")
    printed = [datetime.fromisoformat(cell.outputs[0].text.rstrip("Z")) for cell in ran.notebook.cells[2:]]
    timing = ran.notebook.cells[1].metadata.execution
    assert set(timing) == {
        "iopub.status.busy",
        "iopub.execute_input",
        "shell.execute_reply",
        "iopub.status.idle",
    }
    times = {name: datetime.fromisoformat(text.rstrip("Z")[:26]) for name, text in timing.items()}
    assert times["iopub.status.busy"] <= printed[0] <= printed[1] <= times["shell.execute_reply"]


# Parameters


async def test_parameters(server: Server) -> None:
    """P1: values go into a cell of their own after the one that declares them."""
    ran = await run(server, "papermill/simple_execute.ipynb", parameters={"msg": "Hello"})
    assert ran.notebook.cells[1].source.split("\n") == ["# Parameters", 'msg = "Hello"', ""]
    assert ran.notebook.cells[1].metadata.tags == ["injected-parameters"]
    assert "parameters" in ran.notebook.cells[0].metadata.tags
    assert ran.run["outputs"][-1]["text"] == "Hello\n"
    # `metadata.papermill` is papermill's; the run itself says what it was given.
    assert "papermill" not in {*ran.notebook.metadata} or "parameters" not in ran.notebook.metadata.papermill
    assert ran.run["parameters"] == {"msg": "Hello"}


async def test_parameters_without_a_tag(server: Server) -> None:
    """P2: where nothing is declared, values go first."""
    ran = await run(server, "papermill/no_parameters.ipynb", parameters={"msg": "Hello"})
    assert ran.notebook.cells[0].metadata.tags == ["injected-parameters"]
    assert ran.notebook.cells[0].source == '# Parameters\nmsg = "Hello"\n'


async def test_parameters_twice(server: Server) -> None:
    """P3: a notebook that was run with parameters gets new ones in the same place."""
    first = await run(server, "papermill/simple_execute.ipynb", parameters={"msg": "Hello"})
    answer = await server.run(
        first.run["saved_as"], parameters={"msg": "Again"}, headers={"Accept": "application/x-ipynb+json"}
    )
    cells = answer.json["cells"]
    injected = [i for i, cell in enumerate(cells) if cell["metadata"].get("tags") == ["injected-parameters"]]
    assert injected == [1]
    assert "".join(cells[1]["source"]) == '# Parameters\nmsg = "Again"\n'
    assert "".join(cells[2]["outputs"][0]["text"]) == "Again\n"


@pytest.mark.parametrize(
    ("value", "source"),
    [
        ('"Hello"', r'msg = "\"Hello\""'),
        (r"do\ not\ crash", r'msg = "do\\ not\\ crash"'),
        (r"bar=\"baz\"", r'msg = "bar=\\\"baz\\\""'),
        (r"\\\"bar\\\"", None),
    ],
)
async def test_quoted_parameters(server: Server, value: str, source: str | None) -> None:
    """P4: quotes and backslashes arrive as they were sent, written as papermill writes them."""
    ran = await run(server, "papermill/simple_execute.ipynb", parameters={"msg": value})
    assert ran.run["outputs"][-1]["text"] == f"{value}\n"
    if source is not None:
        assert ran.notebook.cells[1].source == f"# Parameters\n{source}\n"


async def test_broken_parameters_are_described(server: Server) -> None:
    """P6: what is no Python as a whole is described as far as it can be; running it is a SyntaxError."""
    copy(server, "papermill/complex_parameters.ipynb")
    answer = await server.describe("papermill/complex_parameters.ipynb")
    assert answer.status == 200
    found = {each["name"]: each for each in answer.json["parameters"]}
    assert found["a"]["default"] == 2.25
    assert found["a"]["description"] == "Variable a"
    assert found["b"]["default"] == ["Hello", "World"]
    assert found["msg"]["default"] is None


@pytest.mark.parametrize("name", ["blank-vscode", "nb_version_4.4"])
async def test_old_notebooks(server: Server, name: str) -> None:
    """P8: a notebook of an older format, or without a kernelspec, is run, and what comes out is valid."""
    fixture = f"papermill/{name}.ipynb"
    ran = await run(server, fixture, parameters={"var": "It works"} if name == "blank-vscode" else {"var": 2})
    assert ran.status == 200
    injected = [cell for cell in ran.notebook.cells if cell.metadata.get("tags") == ["injected-parameters"]]
    assert len(injected) == 1


@pytest.mark.parametrize("name", ["x=1\nimport os;y", "class", "a b", "__import__"])
async def test_names_that_are_code(server: Server, name: str) -> None:
    """P12: a name that is none is refused before anything is started."""
    copy(server, "papermill/no_parameters.ipynb")
    answer = await server.run("papermill/no_parameters.ipynb", parameters={name: 1})
    assert (answer.status, answer.json["code"]) == (400, "invalid_parameter")
    assert server.started == []


# Failures


async def test_failing_magic(server: Server) -> None:
    """F5: a magic that fails without an error output fails the run, by its reply."""
    ran = await run(server, "papermill/line_magic_error.ipynb")
    assert ran.run["error"]["ename"] == "UsageError"
    assert ran.run["error"]["evalue"] == "Line magic function `%undefined-line-magic` not found."
    assert "error" not in {each["output_type"] for each in ran.run["outputs"]}
    assert ran.notebook.cells[1].execution_count is None


async def test_error_markers_of_papermill(server: Server) -> None:
    """F3: the markers that papermill left are cells like any other; no more are made."""
    ran = await run(server, "papermill/broken1.ipynb")
    stored: Any = nbformat.read(FIXTURES / "papermill/broken1.ipynb", as_version=4)
    assert [cell.source for cell in ran.notebook.cells] == [cell.source for cell in stored.cells]
    assert (ran.run["error"]["ename"], ran.run["error"]["cell"]) == ("AssertionError", 6)


async def test_interrupted(server: Server) -> None:
    """F7: there is no "prepare only"; run for real, and interrupted by somebody, the notebook says so."""
    copy(server, "papermill/keyboard_interrupt.ipynb")
    file = server.root / "papermill/keyboard_interrupt.ipynb"
    notebook: Any = nbformat.read(file, as_version=4)
    notebook.cells[0].source = "print('begun', flush=True)\n" + notebook.cells[0].source
    nbformat.write(notebook, file)
    task = asyncio.create_task(server.run("papermill/keyboard_interrupt.ipynb"))
    await server.until(lambda: server.runs._running)
    running = server.runs._runs[next(iter(server.runs._running))]
    # A kernel that is about to begin with a cell forgets it when it is interrupted.
    await server.until(lambda: running.execution and running.execution.notebook.cells[0].outputs)
    await server.fetch("POST", f"api/kernels/{running.kernel.id}/interrupt")
    answer = await task
    assert (answer.status, answer.json["error"]["ename"]) == (500, "KeyboardInterrupt")


async def test_file_beside_it(server: Server) -> None:
    """F8: a notebook finds the files of its own folder."""
    (server.root / "papermill").mkdir()
    (server.root / "papermill/check.txt").touch()
    ran = await run(server, "papermill/read_check.ipynb")
    assert ran.status == 200
    assert ran.run["outputs"][0]["text"] == f"NB_CWD {server.root / 'papermill'}\n"
