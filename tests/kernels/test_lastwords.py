"""The last words of a process: the end of what it says, bounded, and without secrets."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from jupyter_nbexec import kernels
from jupyter_nbexec.kernels import lastwords, managed, provisioner

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="event loops do not read from pipes there"),
]


def descriptors() -> set[str]:
    """What this process has open."""
    return set(os.listdir("/dev/fd"))  # noqa: PTH208 - names are all that is needed


async def said(data: bytes, secrets: Sequence[str] = ()) -> str:
    """What is told of a process that has said this."""
    words = lastwords.LastWords(secrets)
    with words.handing_over() as descriptor:
        os.write(descriptor, data)
    text = words.text()
    words.close()
    words.close()
    return text


@pytest.mark.parametrize(
    ("data", "secrets", "told"),
    [
        (b"  a\r\n\tb \x1b[31mc\x1b[0m\x07\n", [], "a\n\tb c"),
        (b"no \xff, \xc3\xa9", [], "no , é"),
        (b"the sword of a fish", ["sword", "fish", "sword of"], "the … a …"),
        (b"the sw\x1b[1mord", ["sword"], "the …"),
        (b"line 1, 12, x1, code 1", ["1", ""], "line …, 12, x1, code …"),
        (b"one\nand two", ["one\ntwo"], "…\nand …"),
        (b"s3cret" + (lastwords.LIMIT - 3) * b"x", ["s3cret"], "…" + (lastwords.LIMIT - 3) * "x"),
        (b"first" + 2 * lastwords.LIMIT * b"x" + b" last", [], (lastwords.LIMIT - 5) * "x" + " last"),
    ],
)
async def test_what_is_told(data: bytes, secrets: list[str], told: str) -> None:
    """The end is told, as text for a log; secrets are not, not even the half of one."""
    assert (await said(data, secrets))[-lastwords.LIMIT :] == told[-lastwords.LIMIT :]


async def test_flood() -> None:
    """A process that never ends to speak is not held up, and little is kept; at its end nothing is open."""
    before = descriptors()
    words = lastwords.LastWords()
    speak = "import sys; sys.stdout.write(3_000_000 * 'x' + 'the end')"
    with words.handing_over() as descriptor:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", speak, stdout=descriptor)
    with anyio.fail_after(60):
        await process.wait()
        while words._reading is not None:
            await anyio.sleep(0.005)

    assert words.text().endswith("the end")
    assert len(words._kept) == lastwords.LIMIT
    assert descriptors() == before


@pytest.mark.skipif(not provisioner.is_supported(), reason="elsewhere nobody listens")
async def test_kernel(kernel_manager: Any) -> None:
    """A kernel's output leads to who listens, and nowhere once it has ended."""
    starter = managed.Starter(kernel_manager, scrubbed_env=[], niceness=0)
    kernel = await starter.start(kernels.KernelRequest(name="python3", env={"PASSWORD": "fish"}))
    words = kernel.manager.provisioner.words
    pid = kernel.manager.provisioner.pid
    for descriptor in (1, 2):
        async with await anyio.open_file(f"/proc/{pid}/fd/{descriptor}", "w") as file:
            await file.write(f"{descriptor} fish\n")

    assert kernel.last_words() == "1 …\n2 …"
    await kernel.kill()
    await starter.end(kernel)
    assert words._reading is None
