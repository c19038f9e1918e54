"""A kernel tells at its last cell whether it has more to say; only then is its end waited for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

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


@pytest.mark.parametrize(
    "code",
    [
        (
            "import threading, time\n"
            "def late():\n    time.sleep(0.02); print('late')\n"
            "threading.Thread(target=late).start()"
        ),
        (
            "import asyncio\n"
            "async def late():\n    await asyncio.sleep(0.02); print('late')\n"
            "task = asyncio.create_task(late())"
        ),
        "import subprocess\nchild = subprocess.Popen(['sh', '-c', 'sleep 0.02; echo late'])",
    ],
    ids=["a thread", "a task", "a child process"],
)
async def test_unsettled(engine: Engine, code: str) -> None:
    """What still runs after the last cell is heard until the kernel ends, a moment later."""
    is_settled, answer = await run(engine, code)

    assert not is_settled
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
