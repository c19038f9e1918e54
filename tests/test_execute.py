"""Notebooks on real kernels: what ends a run, what is kept of it, and what is left of its kernel."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import nbformat
import psutil
import pytest
from nbclient import NotebookClient
from nbclient.output_widget import OutputWidget

from jupyter_nbexec import execute, live, outputs
from tests.machinery import MIB, Engine
from tests.sources import Source

pytestmark = [pytest.mark.anyio, pytest.mark.sources]


@pytest.fixture
async def engine(tmp_path: Path, kernel_source: Source) -> AsyncIterator[Engine]:
    """An engine; after it nothing is left."""
    async for engine in _engine(tmp_path, kernel_source):
        yield engine


async def _engine(root: Path, source: Source, **limits: Any) -> AsyncIterator[Engine]:
    engine = Engine(root, source, **limits)
    await engine.make_ready()
    yield engine
    await engine.stop()


def tagged(source: str, *tags: str) -> Any:
    """A code cell with tags."""
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})


def text(answer: dict[str, Any], name: str = "stdout") -> str:
    """All that went to a stream."""
    return "".join(output["text"] for output in answer["outputs"] if output.get("name") == name)


def ending(answer: dict[str, Any]) -> tuple[str, str | None]:
    """Status and error code."""
    return answer["status"], None if answer["error"] is None else answer["error"]["code"]


async def test_success(engine: Engine) -> None:
    """Cells are executed in order, and consecutive prints are one output."""
    answer = await engine.run("print('a'); print('b', flush=True); print('c')", "", "x = 1", "{'x': x}")

    assert ending(answer) == ("succeeded", None)
    shown = [(output["output_type"], output["cell"]) for output in answer["outputs"]]
    assert shown == [("stream", 0), ("execute_result", 3)]
    assert text(answer) == "a\nb\nc\n"
    assert (answer["result"], answer["result_type"]) == ({"x": 1}, "application/json")
    assert answer["progress"] == {"done": 3, "total": 3, "cell": None}
    assert answer["truncated"] is False


async def test_streams_keep_their_order(engine: Engine) -> None:
    """What alternates between the streams stays apart."""
    prints = "print(i, flush=True)\n    print(-i, file=sys.stderr, flush=True)"
    code = f"import sys\nfor i in range(3):\n    {prints}"
    answer = await engine.run(code)

    assert [o["name"] for o in answer["outputs"]] == 3 * ["stdout", "stderr"]


async def test_cell_error(engine: Engine) -> None:
    """A cell that raises ends the run; what was shown before is kept."""
    answer = await engine.run("print('before')\n1/0", "print('after')")

    assert ending(answer) == ("failed", "cell_error")
    assert (answer["error"]["ename"], answer["error"]["cell"]) == ("ZeroDivisionError", 0)
    assert "division by zero" in answer["error"]["traceback"][-1]
    assert text(answer) == "before\n"
    assert answer["result"] is None


async def test_failure_without_an_error_output(engine: Engine) -> None:
    """A magic that is not there shows nothing, and fails all the same."""
    answer = await engine.run("%no_such_magic", "1")

    assert ending(answer) == ("failed", "cell_error")
    assert answer["error"]["ename"] == "UsageError"


async def test_error_that_is_shown(engine: Engine, tmp_path: Path) -> None:
    """A cell that shows an error fails, though its reply says that all is well; not where it may raise."""
    (tmp_path / "bad.py").write_text("1/0")
    allowed = tagged("%run bad.py", "raises-exception")
    answer = await engine.run(allowed, "%run bad.py", "print('after')")

    assert ending(answer) == ("failed", "cell_error")
    assert (answer["error"]["cell"], answer["error"]["ename"]) == (1, "ZeroDivisionError")
    assert "bad.py" in "".join(answer["error"]["traceback"])
    assert answer["progress"]["done"] == 2
    assert answer["warnings"] == []
    assert ending(await engine.run("%%capture\n1/0", "1")) == ("failed", "cell_error")


async def test_error_that_is_not_left(engine: Engine) -> None:
    """An error that is cleared, that a widget takes or that comes too late is no failure, but is told."""
    answer = await engine.run(
        "import threading, ipywidgets\nfrom IPython.display import clear_output\n"
        "kernel, go = get_ipython().kernel, threading.Event()\n"
        "def send(parent):\n    go.wait()\n"
        "    content = {'ename': 'E', 'evalue': 'v', 'traceback': []}\n"
        "    kernel.session.send(kernel.iopub_socket, 'error', content, parent=parent)",
        "get_ipython().run_cell('1/0'); clear_output()",
        "with ipywidgets.Output(): 1/0",
        "thread = threading.Thread(target=send, args=[kernel.get_parent()]); thread.start()",
        tagged("with ipywidgets.Output(): 1/0", "raises-exception"),
        "go.set(); thread.join()",
    )

    assert ending(answer) == ("succeeded", None)
    assert answer["warnings"] == [
        "Cell 1 showed ZeroDivisionError: division by zero, and cleared that.",
        "Cell 2 raised ZeroDivisionError: division by zero in an Output widget, and went on.",
        "Cell 3 showed E: v when it had ended already.",
    ]


async def test_error_without_room(tmp_path: Path, kernel_source: Source) -> None:
    """A failure is noticed even if there is no room for the output that shows it."""
    async for engine in _engine(tmp_path, kernel_source, outputs=3):
        answer = await engine.run("for i in range(9): display(i)", "get_ipython().run_cell('1/0')", "1")

        assert ending(answer) == ("failed", "cell_error")
        assert (answer["error"]["cell"], answer["error"]["ename"]) == (1, "ZeroDivisionError")
        assert answer["truncated"] is True


async def test_allowed_errors(engine: Engine) -> None:
    """Errors that are allowed, for all cells or by a tag, do not end the run."""
    assert ending(await engine.run(tagged("1/0", "raises-exception"), "2")) == ("succeeded", None)
    answer = await engine.run("1/0", "2", allow_errors=True)

    assert ending(answer) == ("succeeded", None)
    assert answer["result"] == 2
    assert answer["outputs"][0]["ename"] == "ZeroDivisionError"


async def test_skipped_cells(engine: Engine) -> None:
    """Cells with the tag are not executed and show nothing, whatever was saved."""
    cell = tagged("1/0", "skip-execution")
    cell.outputs = [nbformat.v4.new_output("stream", text="stale")]
    answer = await engine.run(cell, "2")

    assert ending(answer) == ("succeeded", None)
    assert [output["cell"] for output in answer["outputs"]] == [1]


@pytest.mark.parametrize(
    "code",
    ["import sys; sys.exit()", "raise SystemExit(0)", "raise SystemExit('')", "exit()", "quit()", "exit"],
)
async def test_early_end(engine: Engine, code: str) -> None:
    """A notebook may end itself early: later cells are not executed, and it is a success."""
    answer = await engine.run("print(1)", code, "print(2)")

    assert ending(answer) == ("succeeded", None)
    assert text(answer) == "1\n"
    assert answer["result"] is None
    assert answer["warnings"] == []


@pytest.mark.parametrize(
    ("language", "payload", "expected"),
    [
        ("python", [], True),
        ("python", [{"source": "page"}, {"source": "ask_exit", "keepkernel": False}], True),
        ("python", [{"source": "ask_exit", "keepkernel": True}], True),
        ("python", [{"source": "ask_exit", "keepkernel": 3}], False),  # exit(3)
        ("R", [{"source": "ask_exit", "keepkernel": False}], False),
    ],
)
def test_exit_status(language: str, payload: list[Any], *, expected: bool) -> None:
    """Of `exit()` and `quit()` in Python it is known that the notebook has ended itself well."""
    reply = {"status": "ok", "payload": payload}

    assert execute._has_exit_status(reply, language) is expected


async def test_exit_code(engine: Engine) -> None:
    """Any other exit code is a failure."""
    answer = await engine.run("raise SystemExit(3)", "print(2)")

    assert ending(answer) == ("failed", "cell_error")
    assert (answer["error"]["ename"], answer["error"]["evalue"]) == ("SystemExit", "3")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os._exit(3)", "The kernel exited with code 3."),
        ("import os; os.kill(os.getpid(), 11)", "The kernel was killed by SIGSEGV."),
        (
            "import os; os.kill(os.getpid(), 9)",
            "The kernel was killed by SIGKILL, possibly for want of memory.",
        ),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the exit code is the kernel's own affair")
async def test_death(engine: Engine, kernel_source: Source, code: str, message: str) -> None:
    """A kernel that dies fails the run, with what it had shown until then."""
    # The kernel's own thread needs a moment to send: what it had not sent, nobody can keep.
    answer = await engine.run("print('last words', flush=True)\nimport time; time.sleep(0.5)\n" + code, "1")

    assert ending(answer) == ("failed", "kernel_died")
    assert answer["error"]["message"] == kernel_source.death(message)
    assert answer["error"]["cell"] == 0
    assert text(answer) == "last words\n"
    assert answer["truncated"] is False


async def test_timeout(engine: Engine) -> None:
    """A run that takes too long is interrupted; what it had shown is kept."""
    answer = await engine.run("print('x', flush=True)\nimport time; time.sleep(60)", timeout=10)

    assert ending(answer) == ("failed", "timeout")
    assert text(answer) == "x\n"


async def test_cell_timeout_is_for_each_cell(engine: Engine) -> None:
    """Each cell has its own time."""
    naps = ["import time; time.sleep(1.2)"] * 5

    assert ending(await engine.run(*naps, cell_timeout=5)) == ("succeeded", None)
    assert ending(await engine.run("time = __import__('time'); time.sleep(60)", cell_timeout=0.5)) == (
        "failed",
        "timeout",
    )


@pytest.mark.parametrize(
    "code",
    [
        "import time\nwhile True:\n    try: time.sleep(60)\n    except KeyboardInterrupt: pass",
        "import ctypes; ctypes.PyDLL(None).sleep(60)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        "import signal, time\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\ntime.sleep(60)",
        "import os; os.execvp('sleep', ['sleep', '60'])",
    ],
    ids=["swallows interrupts", "holds the GIL", "stops itself", "ignores signals", "becomes other"],
)
async def test_timeout_of_what_cannot_be_interrupted(engine: Engine, code: str) -> None:
    """A kernel that does not heed the interrupt is killed after the grace."""
    assert ending(await engine.run(code, timeout=3)) == ("failed", "timeout")


async def test_timeout_goes_before_allowed_errors(engine: Engine) -> None:
    """A notebook that may raise cannot go on after its time because the interrupt was an error."""
    answer = await engine.run("import time; time.sleep(60)", "print(2)", timeout=3, allow_errors=True)

    assert ending(answer) == ("failed", "timeout")
    assert text(answer) == ""


async def test_input_is_refused(engine: Engine) -> None:
    """Nobody is there to answer a question."""
    answer = await engine.run("input('?')")

    assert answer["error"]["ename"] == "StdinNotImplementedError"


async def test_children_are_gone(engine: Engine) -> None:
    """What a notebook started ends with its run, even in a session and environment of its own."""
    code = "import subprocess\nsubprocess.Popen(['sleep', '300'], start_new_session=True, env={}).pid"
    answer = await engine.run(code)

    assert ending(answer) == ("succeeded", None)
    assert not psutil.pid_exists(answer["result"])


async def test_files_are_flushed(engine: Engine, tmp_path: Path) -> None:
    """The kernel of a run that ended well is asked to end: open files are written, `atexit` runs."""
    answer = await engine.run(
        "file = open('open.txt', 'w'); file.write('kept')\n"
        "import atexit; atexit.register(lambda: open('atexit.txt', 'w').write('ran'))\nNone"
    )

    assert ending(answer) == ("succeeded", None)
    assert (tmp_path / "open.txt").read_text() == "kept"
    assert (tmp_path / "atexit.txt").read_text() == "ran"


async def test_too_much_output(tmp_path: Path, kernel_source: Source) -> None:
    """Outputs past the limit are left out, the run goes on, and says so."""
    async for engine in _engine(tmp_path, kernel_source, output_bytes=100_000):
        answer = await engine.run("for i in range(5000): print('x' * 99, flush=True)", "print('y')", "7")

        assert ending(answer) == ("succeeded", None)
        assert answer["truncated"] is True
        assert 70_000 <= len(text(answer)) <= 101_000
        assert text(answer).startswith(3 * ("x" * 99 + "\n"))
        assert text(answer).endswith("x" * 99 + "\n" + "y\n")
        assert "bytes left out" in text(answer)
        assert answer["result"] == 7
        assert [each.partition(":")[0] for each in answer["warnings"]] == ["max_output_bytes"]
        assert answer["warnings"][0].endswith("left out in cell 0.")


async def test_text_after_a_flood(
    tmp_path: Path, kernel_source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cells print after one that would not stop is not heard, and each of them is named."""
    monkeypatch.setattr(execute, "FLOOD_MESSAGES", 50)
    async for engine in _engine(tmp_path, kernel_source, output_bytes=10_000):
        answer = await engine.run("for i in range(5000): print('x' * 99, flush=True)", "print('zzz')", "7")

        assert ending(answer) == ("succeeded", None)
        assert answer["result"] == 7
        assert "z" not in text(answer)
        flooded, *others = answer["warnings"]
        assert re.fullmatch(r"max_output_bytes: at least [\d,]+ bytes left out in cell 0\.", flooded)
        assert [each.rpartition(" ")[2] for each in others] == ["1.", "2."]
        assert all(" left out in cell " in each for each in others)


async def test_too_many_outputs(tmp_path: Path, kernel_source: Source) -> None:
    """The number of outputs is limited, too."""
    async for engine in _engine(tmp_path, kernel_source, outputs=10):
        answer = await engine.run("for i in range(50): display(i)")

        assert answer["truncated"] is True
        assert len(answer["outputs"]) == 10


async def test_cleared_outputs_do_not_count(tmp_path: Path, kernel_source: Source) -> None:
    """A cell that shows again and again in the same place never reaches the limit."""
    code = (
        "from IPython.display import clear_output, display\n"
        "for i in range(100):\n"
        "    clear_output(wait={wait}); display('x' * 1000 + str(i))\n"
        "handle = display('y', display_id=True)\n"
        "for i in range(100): handle.update('y' * 1000 + str(i))\n"
    )
    async for engine in _engine(tmp_path, kernel_source, output_bytes=50_000, outputs=10):
        for wait in (True, False):
            answer = await engine.run(code.format(wait=wait))

            assert answer["truncated"] is False
            assert [o["data"]["text/plain"][-4:] for o in answer["outputs"]] == ["x99'", "y99'"]


async def test_one_huge_output(tmp_path: Path, kernel_source: Source) -> None:
    """Of a text larger than all outputs may be, beginning and end are kept, and what comes after it."""
    async for engine in _engine(tmp_path, kernel_source, output_bytes=MIB):
        answer = await engine.run("print('x' * 50_000_000)", "print('after')")

        assert ending(answer) == ("succeeded", None)
        assert answer["truncated"] is True
        assert text(answer).startswith("x" * 500_000)
        assert text(answer).endswith("xx\nafter\n")
        assert len(text(answer)) <= MIB


@pytest.mark.alone
async def test_no_print_is_lost(engine: Engine) -> None:
    """20,000 lines, each flushed, beside a process that takes all the processor it gets."""
    async with await anyio.open_process([sys.executable, "-c", "while True: pass"]) as hog:
        answer = await engine.run("for i in range(20_000): print(i, flush=True)", timeout=100)
        hog.kill()

    assert ending(answer) == ("succeeded", None)
    assert answer["truncated"] or text(answer) == "".join(f"{i}\n" for i in range(20_000))


#: What notebooks do with output widgets, a cell or some for each.
CAPTURING = [
    "from ipywidgets import Output, interact\nfrom IPython.display import clear_output\na = Output()",
    "print('mine')\nwith a:\n    print('one'); display(2)\nprint('mine too')\na",
    "with a:\n    clear_output(); print('three', end=''); print('four')\nprint('kept')",
    "display(5)\nwith a:\n    clear_output(wait=True)",
    "with a:\n    print('six')\nprint('seven')",
    "b = Output(); display(b)\nwith a:\n    print('outer')\n    with b: print('inner')\n    print('outer')",
    "print('5 rows')\n_ = interact(lambda x: print(x * 2), x=3)",
    "_ = interact(lambda x: x * 2, x=4)",
    "c = Output()\nc.append_stdout('text'); c.append_display_data({'text/plain': 'data'})\nc",
    "@b.capture(clear_output=True)\ndef f(): print('captured')\nf(); f(); print('not captured')",
    "with a:\n    raise ValueError('shown in the widget')",
    "a.clear_output(); b.clear_output(wait=True); clear_output(); print('last')",
    "d = Output()\nwith d: print(1)\nwith d: print(2)\nd.close()\nprint(3)",
    "class Own(Output): pass\nwith Own(): print('in a subclass')",
    "Output(outputs=({'output_type': 'stream', 'name': 'stdout', 'text': 'from the start'},))",
]


class _SilentWidget(OutputWidget):
    """nbclient's, which does not tell the kernel: it may hang if it does."""

    def send(self, *_: Any, **__: Any) -> None:
        """Send nothing."""


async def test_output_widgets_as_nbclient(engine: Engine) -> None:
    """What output widgets capture is in their state, and all else where it was, as nbclient has it."""
    cells = [nbformat.v4.new_code_cell(code) for code in CAPTURING]
    reference = NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=60)
    reference.widget_registry = {"@jupyter-widgets/output": {"OutputModel": _SilentWidget}}
    run = await engine.submit(*CAPTURING)
    assert ending(await engine.answer(run.id)) == ("succeeded", None)
    ours = (await engine.manager.view(run.id)).notebook
    assert ours is not None
    theirs = await reference.async_execute()

    assert [_plain(cell["outputs"]) for cell in ours["cells"]] == [_plain(c.outputs) for c in theirs.cells]
    assert _captured(ours) == _captured(theirs)
    assert len(_captured(ours)) == 8
    nbformat.validate(ours)


def _plain(outputs: Any) -> list[Any]:
    """Outputs without what is another in each run, streams joined."""
    found: list[Any] = []
    for output in outputs:
        plain = re.sub(r"[0-9a-f]{32}", "id", str({**output, "traceback": None, "execution_count": None}))
        if "text" in output and found and found[-1][0] == output["name"]:
            found[-1][1] += output["text"]
        else:
            found.append([output["name"], output["text"]] if "text" in output else [None, plain])
    return found


def _captured(notebook: Any) -> list[Any]:
    """What the output widgets of an executed notebook have, in the order in which they were made."""
    states = notebook["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
    return [_plain(each["state"]["outputs"]) for each in states if each["model_name"] == "OutputModel"]


async def test_output_widget_in_the_kernel(engine: Engine) -> None:
    """The kernel hears what a widget has captured, threads may add to it, and updates find it there."""
    answer = await engine.run(
        "import threading, ipywidgets\nout, go = ipywidgets.Output(), threading.Event()\n"
        "with out:\n    print('a'); h = display(1, display_id=True)",
        "h.update(2)",
        "first = [dict(o) for o in out.outputs]\n"
        "thread = threading.Thread(target=lambda: (go.wait(), out.append_stdout('late'))); thread.start()",
        "go.set(); thread.join()",
        "[first[0]['text'], first[1]['data']['text/plain'], out.outputs[2]['text']]",
    )

    assert ending(answer) == ("succeeded", None)
    assert answer["result"] == ["a\n", "2", "late"]
    assert [output["cell"] for output in answer["outputs"]] == [4]


async def test_output_widgets_are_bounded(tmp_path: Path, kernel_source: Source) -> None:
    """What a widget captures counts as outputs do, and no more once it has been cleared."""
    again = "with out:\n    for i in range(300): clear_output(wait=True); print('x' * 1000, i)"
    first = "from ipywidgets import Output\nfrom IPython.display import clear_output\nout = Output()"
    flood = "with out:\n    for i in range(300): print('x' * 1000, flush=True)"
    async for engine in _engine(tmp_path, kernel_source, output_bytes=100_000):
        run = await engine.submit(first, again, flood, "1")
        answer = await engine.answer(run.id)
        captured = str(_captured((await engine.manager.view(run.id)).notebook))

        assert ending(answer) == ("succeeded", None)
        assert answer["truncated"] is True
        # The first flood was over before the second began, so that there was room for some of that.
        assert "x 299" in captured
        assert 50_000 < len(captured) < 110_000


async def test_state_of_widgets_is_bounded(tmp_path: Path, kernel_source: Source) -> None:
    """State that is too much is left out, and the warnings say in which cell, and how much it was."""
    async for engine in _engine(tmp_path, kernel_source, output_bytes=100_000):
        answer = await engine.run("import ipywidgets", "ipywidgets.Text('x' * 100_000); 1")

        assert ending(answer) == ("succeeded", None)
        assert answer["truncated"] is True
        (warning,) = answer["warnings"]
        assert re.fullmatch(r"max_output_bytes: 10\d,\d{3} bytes left out in cell 1\.", warning)


async def test_hostile_value(engine: Engine) -> None:
    """A last value that hangs when it is looked at costs the time for the result, not the run."""
    code = (
        "class Slow(dict):\n"
        "    def items(self): import time; time.sleep(600)\n"
        "    __iter__ = keys = __len__ = tolist = items\n"
        "    def __repr__(self): return 'slow'\n"
        "Slow()"
    )
    answer = await engine.run(code)

    assert ending(answer) == ("succeeded", None)
    assert answer["result"] in ("slow", {})


async def test_lent_kernel(engine: Engine) -> None:
    """State on a kernel that was there before is seen and kept; it lives on."""
    kernel_id = await engine.kernels.start_kernel(kernel_name="python3")
    first = await engine.run("x = 5", kernel_id=kernel_id)
    second = await engine.run("x + 1", kernel_id=kernel_id)
    late = await engine.run("import time; time.sleep(60)", kernel_id=kernel_id, timeout=1)
    third = await engine.run("x + 2", kernel_id=kernel_id)

    assert ending(first) == ("succeeded", None)
    assert (second["result"], second["kernel"]["source"]) == (6, "existing")
    assert ending(late) == ("failed", "timeout")
    assert third["result"] == 7
    await engine.kernels.shutdown_kernel(kernel_id, now=True)


async def test_lent_kernel_that_is_revived(engine: Engine) -> None:
    """A kernel that the server's restarter revives is noticed: the run does not hang."""
    kernel_id = await engine.kernels.start_kernel(kernel_name="python3")
    answer = await engine.run("import os; os._exit(1)", kernel_id=kernel_id)

    assert ending(answer) == ("failed", "kernel_died")
    await engine.kernels.shutdown_kernel(kernel_id, now=True)


@pytest.mark.parametrize("deed", ["shutdown", "restart"])
async def test_somebody_else_ends_the_kernel(engine: Engine, deed: str) -> None:
    """A kernel that somebody shuts down or restarts under the run fails it."""
    run = await engine.submit("import time; time.sleep(60)")
    await _executing(run)
    assert run.kernel is not None
    assert run.kernel.id is not None
    if deed == "shutdown":
        await engine.kernels.shutdown_kernel(run.kernel.id, now=True)
    else:
        await engine.kernels.restart_kernel(run.kernel.id, now=True)
    with anyio.fail_after(20):
        await run.wait()

    assert ending(await engine.answer(run.id)) == ("failed", "kernel_died")


async def test_cancel(engine: Engine) -> None:
    """A run that is cancelled keeps what it had shown."""
    run = await engine.submit("print('x', flush=True)\nimport time; time.sleep(60)")
    await _executing(run)
    await engine.manager.cancel(run.id)
    with anyio.fail_after(20):
        await run.wait()

    assert ending(await engine.answer(run.id)) == ("cancelled", None)


async def test_stop(tmp_path: Path, kernel_source: Source) -> None:
    """A stop during a run ends it, and its kernel."""
    engine = Engine(tmp_path, kernel_source)
    run = await engine.submit("import time; time.sleep(60)")
    await _executing(run)
    with anyio.fail_after(20):
        await engine.stop()

    assert (run.status, run.error and run.error.code) == ("failed", "server_stopped")


async def test_nothing_is_left(engine: Engine) -> None:
    """After runs of every kind there are as many files and threads as before; signals are as they were."""
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    kinds: list[Callable[[], Awaitable[Any]]] = [
        lambda: engine.run("1"),
        lambda: engine.run("1/0"),
        lambda: engine.run("import os; os._exit(1)"),
        lambda: engine.run("import time; time.sleep(60)", timeout=1.5),
        lambda: engine.run("raise SystemExit"),
    ]
    for kind in kinds:
        await kind()
    before = _held()
    for kind in [*kinds, *kinds]:
        await kind()

    # ZeroMQ closes sockets in a thread of its own, soon after; so there may even be fewer than before.
    with anyio.move_on_after(10):
        while not _is_at_most(_held(), before):
            await anyio.sleep(0.05)
    assert _is_at_most(_held(), before), f"{_held()} files, threads and processes; before there were {before}"
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == handlers


def _held() -> tuple[int, int, int]:
    """Open files, threads and child processes of this process, without those threads that wait for work."""
    process = psutil.Process(os.getpid())
    workers = [
        each for each in threading.enumerate() if each.name.startswith(("asyncio_", "jupyter_nbexec-store"))
    ]
    return process.num_fds(), process.num_threads() - len(workers), len(process.children(recursive=True))


def _is_at_most(held: tuple[int, ...], before: tuple[int, ...]) -> bool:
    return all(now <= then for now, then in zip(held, before, strict=True))


async def _executing(run: live.Run) -> None:
    """Wait until a cell is being executed."""
    with anyio.fail_after(60):
        while run.execution is None or run.execution.cell_started is None:
            await anyio.sleep(0.02)


async def test_late_outputs(engine: Engine) -> None:
    """What a thread or a child process puts out after its cell has ended is kept, in that cell."""
    answer = await engine.run(
        "import threading, time\n"
        "def late():\n    time.sleep(0.3); print('late')\n"
        "threading.Thread(target=late).start()\nprint('first')",
        "time.sleep(0.6); print('second')",
        "import os; os.system('echo child')",
    )

    assert ending(answer) == ("succeeded", None)
    assert sorted(text(answer).split()) == ["child", "first", "late", "second"]
    assert answer["truncated"] is False


async def test_late_outputs_are_complete(engine: Engine) -> None:
    """What a thread puts out without a pause, while cells come and go, is kept whole, or flagged."""
    answer = await engine.run(
        "import threading, time\n"
        "def talk():\n"
        "    for number in range(3000):\n        print(number, flush=True)\n"
        "thread = threading.Thread(target=talk)\nthread.start()",
        *3 * ["time.sleep(0.05)"],
        "thread.join(); time.sleep(0.5)",
    )

    assert ending(answer) == ("succeeded", None)
    # A cell that ends between a number and its end of line may have the one, and the next cell the other.
    is_whole = sorted(text(answer)) == sorted("".join(f"{number}\n" for number in range(3000)))
    assert is_whole or answer["truncated"]


async def test_too_many_errors(tmp_path: Path, kernel_source: Source) -> None:
    """Errors that are allowed count as outputs, and what an exception says is cut."""
    async for engine in _engine(tmp_path, kernel_source, output_bytes=200_000):
        cells = ["raise ValueError('x' * 1_000_000)"] * 6
        answer = await engine.run(*cells, "1", allow_errors=True)

        assert ending(answer) == ("succeeded", None)
        assert answer["truncated"] is True
        assert len(str(answer["outputs"])) < 500_000


@pytest.mark.parametrize(
    "code",
    [
        "display({'text/plain': 5}, raw=True)",
        "display({'text/plain': None}, raw=True)",
        "display({'image/png': {'a': 1}}, raw=True)",
        "k.send_response(k.iopub_socket, 'stream', {'name': 'stdout'})",
        "k.send_response(k.iopub_socket, 'display_data', {'data': {}, 'metadata': None})",
        "k.send_response(k.iopub_socket, 'update_display_data', {'data': {}, 'transient': 5})",
        "k.send_response(k.iopub_socket, 'error', {})",
        "k.send_response(k.iopub_socket, 'status', {})",
        "k.send_response(k.iopub_socket, 'comm_open', {})",
    ],
)
async def test_what_is_no_output(engine: Engine, code: str) -> None:
    """A message that is no valid output is left out; it is no fault of ours, and ends nothing."""
    answer = await engine.run(f"k = get_ipython().kernel\n{code}", "'after'")

    assert ending(answer) == ("succeeded", None)
    assert answer["result"] == "after"


async def test_a_notebook_that_says_it_is_idle(engine: Engine) -> None:
    """A cell that says it has ended when it has not keeps its outputs, and its result."""
    say = "k = get_ipython().kernel\nk._publish_status('idle', 'shell')\n"
    answer = await engine.run(f"{say}import time; time.sleep(0.5); print('after')\n7")

    assert ending(answer) == ("succeeded", None)
    assert answer["result"] == 7
    assert [output["output_type"] for output in answer["outputs"]] == ["stream", "execute_result"]


async def test_a_name_that_is_no_utf8(engine: Engine) -> None:
    """Half a surrogate pair is replaced wherever it is shown, and what comes after it is executed."""
    name = "name = 'Ausrei\\udcc3er.txt'\n"
    answer = await engine.run(f"{name}print(name)", "display(name)", "name")

    assert ending(answer) == ("succeeded", None)
    assert text(answer) == "Ausrei\ufffder.txt\n"
    assert json.loads(outputs.dumps(answer))["result"] == "Ausrei\ufffder.txt"
    assert answer["truncated"] is False
    answer = await engine.run(f"{name}raise ValueError(name)")

    assert answer["error"]["message"] == "ValueError: Ausrei\ufffder.txt"


async def test_flood_that_is_kept_back(
    tmp_path: Path, kernel_source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a text never ends, its kernel stops sending streams; cleared outputs let them in again."""
    monkeypatch.setattr(execute, "FLOOD_MESSAGES", 2000)
    flood = "for i in range(20_000): print('x' * 50, flush=True)\n"
    clear = "from IPython.display import clear_output, display\nclear_output()\n"
    async for engine in _engine(tmp_path, kernel_source, output_bytes=100_000):
        answer = await engine.run(flood + clear + "display(1)\nprint('seen')", "2")

        assert ending(answer) == ("succeeded", None)
        assert answer["truncated"] is True
        assert answer["outputs"][0]["data"]["text/plain"] == "1"
        assert answer["result"] == 2
