"""A kernel tells at its last cell whether it has more to say; only then is its end waited for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import nbformat
import psutil
import pytest

from jupyter_nbexec.kernels import managed
from tests.machinery import Engine

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine; after it nothing is left."""
    engine = Engine(tmp_path)
    yield engine
    await engine.stop()


async def run(engine: Engine, *cells: Any, **fields: Any) -> tuple[bool, dict[str, Any]]:
    """Run cells; whether their kernel was settled, and the answer."""
    made = await engine.submit(*cells, **fields)
    answer = await engine.answer(made.id)
    assert made.execution is not None
    assert made.execution.is_leaving
    return made.execution.is_settled, answer


def printed(answer: dict[str, Any]) -> str:
    """All that was printed."""
    return "".join(output.get("text", "") for output in answer["outputs"])


@pytest.mark.parametrize(
    "code",
    [
        "1",
        "import asyncio; await asyncio.sleep(0.01)",
        "import threading; t = threading.Thread(target=print); t.start(); t.join()",
        "import subprocess; subprocess.run(['true'])",
        "import sys; sys.stdout = None",
        "from multiprocessing.shared_memory import SharedMemory; m = SharedMemory(create=True, size=1)",
        "threading = asyncio = os = set = sys = None",
    ],
)
async def test_settled(engine: Engine, code: str) -> None:
    """A notebook that leaves nothing behind is answered at once."""
    is_settled, answer = await run(engine, "'first'", code)

    assert answer["status"] == "succeeded"
    assert is_settled


async def test_a_file_that_is_open(engine: Engine, tmp_path: Path) -> None:
    """What is in the buffer of an open file is in the file when the run has ended."""
    file = tmp_path / "kept"
    is_settled, _ = await run(engine, f"file = open({str(file)!r}, 'w')\nfile.write('kept')")

    assert not is_settled
    assert file.read_text() == "kept"


#: What runs beside the cells and prints in so many seconds.
LATE = {
    "a thread": (
        "import threading, time\n"
        "def late():\n    time.sleep({seconds}); print('late')\n"
        "threading.Thread(target=late, daemon=True).start()"
    ),
    "a task": (
        "import asyncio\n"
        "async def late():\n    await asyncio.sleep({seconds}); print('late')\n"
        "task = asyncio.create_task(late())"
    ),
    "a child process": (
        "import subprocess\nchild = subprocess.Popen(['sh', '-c', 'sleep {seconds}; echo late'])"
    ),
}


@pytest.mark.parametrize("code", LATE.values(), ids=LATE)
async def test_unsettled(engine: Engine, code: str) -> None:
    """A kernel in which something still runs after the last cell says so."""
    is_settled, _ = await run(engine, code.format(seconds=1000))

    assert not is_settled


@pytest.mark.parametrize("code", LATE.values(), ids=LATE)
async def test_late(engine: Engine, code: str) -> None:
    """What still runs after the last cell is heard until the kernel ends, a moment later."""
    _, answer = await run(engine, code.format(seconds=0.02))

    assert printed(answer) == "late\n"


async def test_what_a_child_has_printed(engine: Engine) -> None:
    """What goes through the kernel's pipe is all there, though nobody waits for it."""
    code = "import os\nos.system('for i in 1 2 3 4 5 6 7 8 9; do echo line $i; done')"
    for _ in range(5):
        _, answer = await run(engine, code)
        assert printed(answer) == "".join(f"line {number}\n" for number in range(1, 10))


async def test_last_cells_that_do_not_end_well(engine: Engine) -> None:
    """Where nothing can ride on the last cell, the kernel is asked afterwards."""
    failing = nbformat.v4.new_code_cell("1/0", metadata={"tags": ["raises-exception"]})
    is_settled, answer = await run(engine, "'before'", failing)

    assert answer["status"] == "succeeded"
    assert answer["result"] is None
    assert is_settled


async def test_a_kernel_of_its_own_knows_the_value(engine: Engine) -> None:
    """The value that rides on the last cell is that of the last cell, whatever it runs inside."""
    _, answer = await run(engine, "1", "get_ipython().run_cell('5', store_history=True)\n{'a': [1, 2]}")

    assert answer["result"] == {"a": [1, 2]}


async def test_a_kernel_that_does_not_end(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that said it would end and does not is killed, and nothing of it is left."""
    monkeypatch.setattr(managed, "FAREWELL", 0.2)

    before = set(psutil.Process().children(recursive=True))
    is_settled, _ = await run(engine, "import atexit, time\natexit.register(time.sleep, 1000)\n1")

    assert is_settled
    with anyio.fail_after(60):
        while any("kernel-" in name for name in os.listdir(engine.kernels.connection_dir)):  # noqa: PTH208
            await anyio.sleep(0.02)
        while set(psutil.Process().children(recursive=True)) - before:
            await anyio.sleep(0.02)


#: Has the kernel write a file when it ends, once there is another, which comes after the answer; then go on.
LAST_WILL = """
import atexit, pathlib, time
def write():
    deadline = time.monotonic() + 60
    while not pathlib.Path({answered!r}).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    pathlib.Path({written!r}).write_text(str(time.monotonic() < deadline))
atexit.register(write)
pathlib.Path({begun!r}).touch()
{code}
"""
FAILURES = {"cell_error": "1/0", "timeout": "time.sleep(1000)", "cancelled": "time.sleep(1000)"}


@pytest.mark.parametrize("how", FAILURES)
async def test_a_failed_run(
    engine: Engine, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that is well after a failure may end by itself, too, but nobody waits for it."""
    monkeypatch.setattr(managed, "FAREWELL", 60.0)
    files = {name: tmp_path / f"{how} {name}" for name in ("answered", "written", "begun")}
    code = LAST_WILL.format(code=FAILURES[how], **{name: str(file) for name, file in files.items()})
    made = await engine.submit(code, cell_timeout=5 if how == "timeout" else None)
    with anyio.fail_after(60):
        while not await anyio.Path(files["begun"]).exists():
            await anyio.sleep(0.02)
    if how == "cancelled":
        await engine.cancel(made)
    answer = await engine.answer(made.id)
    files["answered"].touch()

    assert (answer["error"] or {"code": answer["status"]})["code"] == how
    written = anyio.Path(files["written"])
    with anyio.fail_after(60):
        while not await written.exists() or not (text := await written.read_text()):
            await anyio.sleep(0.02)
    assert text == "True"


#: Has the thread that sends outputs take its time, as on a machine that has none for it.
SLOW = """
import time
thread = get_ipython().kernel.iopub_thread
send = thread._really_send
def slow(*args, **kwargs):
    time.sleep(0.2)
    return send(*args, **kwargs)
thread._really_send = slow
"""


async def test_the_end_waits_for_what_is_said(engine: Engine) -> None:
    """A kernel does not end before the end of its last cell has been sent, however long that takes."""
    for _ in range(3):
        _, answer = await run(engine, SLOW, "1")

        assert (answer["status"], answer["result"], answer["truncated"]) == ("succeeded", 1, False)


@pytest.mark.parametrize(("end", "result"), [("1", 1), ("exit()", None)])
async def test_the_end_waits_for_the_reply(engine: Engine, end: str, result: int | None) -> None:
    """Nor before its reply has been sent, which newer kernels (ipykernel 7) do in another thread."""
    code = """
import time
thread = getattr(get_ipython().kernel, "shell_channel_thread", None)
if thread is not None:
    thread.io_loop.add_callback(time.sleep, 1)
"""
    _, answer = await run(engine, f"{code}{end}")

    assert (answer["status"], answer["error"], answer["result"]) == ("succeeded", None, result)


async def test_the_end_is_not_heard(engine: Engine) -> None:
    """A run whose kernel says that it leaves has ended well, though its last outputs may be lost."""
    code = "thread._really_send = lambda *args, **kwargs: None\n1"

    _, answer = await run(engine, SLOW, code)

    assert (answer["status"], answer["error"], answer["truncated"]) == ("succeeded", None, True)
