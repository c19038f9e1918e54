"""What is told of notebooks on real kernels while they are executed."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import nbformat
import pytest
import zmq.asyncio
from jupyter_client.manager import AsyncKernelManager

from jupyter_nbexec import background, execute
from jupyter_nbexec.kernels import connection
from tests.replay import Replay, Told

pytestmark = pytest.mark.anyio

MIB = 1 << 20


class Theatre:
    """Executes notebooks, each on a kernel of its own, and hears what is told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.background = background.BackgroundLoop("test")
        self.context = zmq.asyncio.Context()
        self.kernel = AsyncKernelManager(kernel_name="python3", connection_file=str(root / "kernel.json"))
        self.events: list[Told] = []
        #: What each event was when it was told.
        self.written: list[str] = []
        self._came = asyncio.Event()

    def begin(self, *cells: str, allow_errors: bool = False, **limits: Any) -> execute.Execution:
        """Make an execution of these cells; `start` starts it."""
        kept = {"output_bytes": 4 * MIB, "outputs": 1000, "result_bytes": MIB}
        self.execution = execute.Execution(
            notebook=nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]),
            connection_info={},
            limits=execute.Limits(**{**kept, **limits}, start_timeout=60, result_timeout=3),
            allow_errors=allow_errors,
        )
        loop = asyncio.get_running_loop()

        def hear(kind: str, index: int | None, data: dict[str, Any]) -> None:
            written = json.dumps([kind, index, data])
            loop.call_soon_threadsafe(self._hear, (kind, index, data), written)

        self.execution.on_event = hear
        return self.execution

    def _hear(self, event: Told, written: str) -> None:
        self.events.append(event)
        self.written.append(written)
        self._came.set()

    async def start(self) -> None:
        """Execute it, until `end`."""
        # ipykernel does not watch file descriptors where it finds this.
        env = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        await self.kernel.start_kernel(env=env, cwd=str(self.root))
        self.execution.connection_info = dict(self.kernel.get_connection_info())
        self.run = asyncio.wrap_future(self.background.submit(execute.run(self.execution, self.context)))

    async def until(self, is_met: Callable[[], bool]) -> None:
        """Wait until what has been told meets a condition."""
        with anyio.fail_after(60):
            while not is_met():
                self._came.clear()
                await self._came.wait()

    async def snapshot(self) -> Any:
        """The notebook as it is now."""
        return await asyncio.wrap_future(self.background.submit(self.execution.snapshot()))

    async def end(self, patience: float = 0.0) -> None:
        """Wait for the end of the run, and of its kernel if that is to end; then all has been told."""
        with anyio.fail_after(100):
            try:
                while not self.run.done():
                    await asyncio.wait([self.run], timeout=0.25)
                    if not await self.kernel.is_alive():
                        await asyncio.wrap_future(
                            self.background.submit(self.execution.abandon(has_ended=True))
                        )
                await self.run
            except connection.ConnectionLost:
                pass
            while self.execution.is_leaving and await self.kernel.is_alive():
                await anyio.sleep(0.02)
            closing = self.background.submit(execute.close(self.execution, patience))
            await asyncio.wrap_future(closing)

    async def play(self, *cells: str, **options: Any) -> None:
        """Execute these cells to the end, and see that the events say what the notebook does."""
        self.begin(*cells, **options)
        await self.start()
        await self.end()
        self.check()

    def check(self) -> None:
        """The events say what the notebook does, and were not changed after they had been told."""
        cells = enumerate(self.execution.notebook.cells)
        assert Replay(self.events).outputs == {index: cell.outputs for index, cell in cells if cell.outputs}
        assert [json.dumps(event) for event in self.events] == self.written
        runner = self.execution.runner
        assert runner is not None
        assert runner._events._timer is None
        assert runner._late_timer is None

    def open_gate(self, gate: str) -> None:
        """Let the cell go on that waits at this gate."""
        (self.root / gate).touch()

    def shown(self, cell: int) -> list[str]:
        """The outputs of a cell as text, as far as they have been told."""
        outputs = Replay(self.events).outputs.get(cell, [])
        return [output["text"] if "text" in output else output["data"]["text/plain"] for output in outputs]

    def of(self, *kinds: str) -> list[Told]:
        """The events of some types."""
        return [event for event in self.events if event[0] in kinds]


@pytest.fixture
async def theatre(tmp_path: Path) -> AsyncIterator[Theatre]:
    """One for a test; afterwards nothing is left."""
    made = Theatre(tmp_path)
    yield made
    await made.kernel.shutdown_kernel(now=True)
    await asyncio.to_thread(made.background.stop)
    made.context.destroy(linger=0)
    made.kernel.context.destroy(linger=0)


#: Lets cells wait until the test has seen what came before.
GATES = """
import asyncio, os, sys, threading, time
from IPython.display import clear_output, display, update_display
def wait_at(gate):
    while not os.path.exists(gate): time.sleep(0.01)
def later(work, *args):
    threading.Thread(target=work, args=args).start()
"""


async def test_outputs_come_while_the_cell_runs(theatre: Theatre) -> None:
    """What a cell prints and shows is told at once: here it goes on only when that has been seen."""
    steps = ["print(1, flush=True)", "print(2)", "display(3)", "print(4, file=sys.stderr)", "clear_output()"]
    code = "".join(f"{step}\nwait_at('{number}')\n" for number, step in enumerate(steps))
    theatre.begin(GATES, code)
    await theatre.start()
    for number, seen in enumerate([["1\n"], ["1\n2\n"], ["1\n2\n", "3"], ["1\n2\n", "3", "4\n"], []]):
        await theatre.until(lambda seen=seen: theatre.shown(1) == seen)  # type: ignore[misc]
        assert theatre.execution.current == 1
        assert theatre.execution.cell_started is not None
        theatre.open_gate(str(number))
    await theatre.end()

    theatre.check()


async def test_late_outputs_come_while_another_cell_runs(theatre: Theatre) -> None:
    """What a thread prints when its cell has ended is told at once, for the cell it belongs to."""
    code = "def late():\n    wait_at('late'); print('late', flush=True)\nlater(late)\nprint('on time')"
    theatre.begin(GATES, code, "print('busy', flush=True)\nwait_at('end')")
    await theatre.start()
    await theatre.until(lambda: theatre.shown(2) == ["busy\n"])
    theatre.open_gate("late")
    await theatre.until(lambda: "late\n" in "".join(theatre.shown(1) + theatre.shown(2)))
    assert theatre.execution.cell_started is not None
    theatre.open_gate("end")
    await theatre.end()

    theatre.check()


async def test_late_outputs_come_after_all_cells(theatre: Theatre) -> None:
    """What comes when all cells have ended is told before the execution is closed."""
    theatre.begin(GATES, "later(lambda: (wait_at('late'), print('late', flush=True)))\nprint('on time')")
    theatre.execution.ends_kernel = False
    await theatre.start()
    await theatre.run
    theatre.open_gate("late")
    await theatre.end(patience=2.0)

    assert "".join(theatre.shown(1)) == "on time\nlate\n"
    theatre.check()


async def test_cells(theatre: Theatre) -> None:
    """Each cell that is executed starts and ends, one after the other; others do neither."""
    await theatre.play("1", "", "x = 1", "1/0", "2")

    told = [(index, data["state"], data["execution_count"]) for _, index, data in theatre.of("cell")]
    starts = [(index, "started", None) for index in (0, 2, 3)]
    ends = [(0, "ended", 1), (2, "ended", 2), (3, "ended", 3)]
    assert told == [event for pair in zip(starts, ends, strict=True) for event in pair]
    assert [event[1] for event in theatre.of("output")] == [0, 3]


@pytest.mark.parametrize(
    "code",
    [
        "print(1); print(2, file=sys.stderr); print(3); print('', end='')",
        "h = display(1, display_id=True); h.update(2); h.display(3); h.update(4); h.display(5)",
        "display(1, display_id='d'); display(2, display_id='d'); update_display(3, display_id='none')",
        "display(1); print(2); clear_output(); print(3); clear_output(wait=True); print(4); display(5)",
        "h = display(1, display_id='d'); clear_output(wait=True); h.update(2); print(3); h.update(4)",
        "print(1); clear_output(wait=True)\nlater(lambda: (time.sleep(0.2), print('late')))",
        "print(1); clear_output(wait=True); clear_output()",
        "for i in range(3000): clear_output(wait=True); print(i)",
        "h = display(0, display_id=True)\nfor i in range(3000): h.update(i)",
        "for i in range(300): print(i); display(i); print(-i, file=sys.stderr)",
        "from ipywidgets import *\nprint(0)\nwith Output(): print(1); clear_output(); display(2)\nprint(4)",
        "display({'text/html': '<b>', 'application/json': {'a': [1, None]}}, raw=True, metadata={'m': 1}); 7",
        "get_ipython().showtraceback(); %no_such_magic",
        "import warnings; warnings.warn('w'); raise ValueError('e')",
        "print(1); exit()",
        "print(1, flush=True); time.sleep(0.1); os._exit(1)",
        "async def late():\n    await asyncio.sleep(0.2); print(1)\nasyncio.create_task(late())",
    ],
)
async def test_events_say_what_the_notebook_does(theatre: Theatre, code: str) -> None:
    """Whoever applies the events in turn has the outputs of the executed notebook."""
    after = "display(8, display_id='d'); time.sleep(0.3); print(9)"
    await theatre.play(GATES, code, after, allow_errors=True)

    assert theatre.of("output")


SNIPPETS = [
    "print({n})",
    "print({n}, end='', flush=True)",
    "print({n}, file=sys.stderr)",
    "display({n})",
    "display({n}, display_id='{d}')",
    "update_display(-{n}, display_id='{d}')",
    "clear_output()",
    "clear_output(wait=True)",
    "later(lambda: (time.sleep(0.0{n}), print('late', {n})))",
    "later(lambda: (time.sleep(0.0{n}), update_display('late', display_id='{d}')))",
    "with out: print({n}); display({n}, display_id='{d}')",
    "with out: clear_output(wait={n} > 5); print({n})",
    "later(lambda: (time.sleep(0.0{n}), out.append_stdout('late')))",
    "time.sleep(0.0{n})",
    "os.system('echo {n}')",
]


@pytest.mark.parametrize("seed", range(4))
async def test_notebooks_of_all_sorts(theatre: Theatre, seed: int) -> None:
    """The same of notebooks that mix all they can do, at random."""
    dice = random.Random(seed)
    cells = [
        "\n".join(
            dice.choice(SNIPPETS).format(n=dice.randint(1, 9), d=dice.choice("de"))
            for _ in range(dice.randint(1, 12))
        )
        for _ in range(30)
    ]
    first = f"{GATES}\nimport ipywidgets; out = ipywidgets.Output()"
    await theatre.play(first, *cells, *(["{0} / 0", "1"] if seed % 2 else []))

    assert theatre.execution.has_run_cells is not bool(seed % 2)


@pytest.mark.parametrize("limits", [{"output_bytes": 100_000}, {"outputs": 20}])
async def test_what_is_left_out_makes_no_event(theatre: Theatre, limits: dict[str, int]) -> None:
    """What the limits leave out is not told; what is cleared makes room."""
    flood = "for i in range(300): print('x' * 1000, flush=True); display(i)\n"
    updates = "h = display(1, display_id='d')\nfor i in range(300): h.update('y' * 1000)\n"
    await theatre.play(GATES, flood, f"{flood}clear_output()\n{updates}{flood}", "print('end')", **limits)

    assert theatre.execution.is_truncated
    assert len(theatre.of("output")) < 1000


@pytest.mark.parametrize(
    "code",
    [
        "display({'text/plain': 5}, raw=True)",
        "send('stream', {'name': 'stdout'})",
        "send('stream', {'name': 'stdout', 'text': ''})",
        "send('display_data', {'data': {}, 'metadata': {}, 'transient': {'display_id': 5}})",
        "send('display_data', {'data': {}, 'metadata': {}, 'transient': {'display_id': [5]}})",
        "send('update_display_data', {'data': {}, 'transient': {'display_id': 'd'}})",
        "send('update_display_data', {'data': {}, 'metadata': {}, 'transient': 5})",
        "send('clear_output', {})",
        "send('error', {})",
    ],
)
async def test_what_is_no_output(theatre: Theatre, code: str) -> None:
    """Of messages that make no valid output nothing is told that is not in the notebook."""
    before = (
        "k = get_ipython().kernel\ndef send(*args): k.send_response(k.iopub_socket, *args)\n"
        "display(1, display_id='d')"
    )
    await theatre.play(GATES, before, f"print(1, flush=True)\n{code}", "print(2)")

    assert theatre.shown(3) == ["2\n"]


async def test_flood_is_few_events(theatre: Theatre) -> None:
    """20,000 flushed prints are a few hundred events, and none is lost."""
    await theatre.play("for i in range(20_000): print(i, flush=True)")

    assert "".join(theatre.shown(0)) == "".join(f"{i}\n" for i in range(20_000))
    assert len(theatre.events) < 2000


async def test_snapshot(theatre: Theatre) -> None:
    """A snapshot shows what there is so far, the stream that is being written included, and stays so."""
    code = "h = display(1, display_id=True)\nprint(2, flush=True)\nwait_at('gate')\nh.update(3)\nprint(4)"
    theatre.begin(GATES, code, "5")
    theatre.execution.notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="stale")]
    first = await theatre.snapshot()
    await theatre.start()
    await theatre.until(lambda: theatre.shown(1) == ["1", "2\n"])
    middle = await theatre.snapshot()
    written = nbformat.writes(middle)
    theatre.open_gate("gate")
    await theatre.end()
    last = await theatre.snapshot()

    assert [cell.outputs for cell in first.cells] == [[], [], []]
    assert [output.get("text") for output in middle.cells[1].outputs] == [None, "2\n"]
    assert middle.cells[2].outputs == []
    assert nbformat.writes(middle) == written
    nbformat.validate(middle)
    assert last == theatre.execution.notebook
    assert theatre.shown(1) == ["3", "2\n4\n"]
    theatre.check()
