"""Hostile input for every language, and real interpreters and kernels to send it to."""

from __future__ import annotations

import json
import os
import random
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

FRAGMENTS = [
    *"\"'`\\$%!?#;&|<>(){}[]*~^@=:,./ \t\n\r", "\0", "\a", "\b", "\v", "\f", "\x1a", "\x1b", "\x1c", "\x7f",
    "\x80", "\x85", "\xa0", "é", "ß", "\uff58", "\u2018", "\u2019", "\u201c", "\u201d", "\u2028", "\u2029",
    "\u200f", "\ufeff", "\ufffe", "😀", "\U0010ffff", "0", "7", "u0022", "x41", "$(touch /tmp/pwned)",
    "`id`", "${HOME}", "$HOME", "#{x}", "%s", "{x}", "{{x}}", "$x", "\\u0022", "\\x22", "\\n", "\\", "\\\\",
    '"""', "'''", '";', "';", '"\n', "'\n", "*/", "//", "--", "=begin", "%}", "#}", "=cut", "<<EOF", "EOF",
    "!!", "!x", "!$", "?", "%matplotlib", "@(", ")@", "__proto__", "[0]=1", "a b", "\r\n", "...", "\u0301",
    "CON", "import os; os._exit(1)", "quit()", "System.exit(1)", "process.exit(1)",
]  # fmt: skip


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """600 texts that would do harm if any part of them were taken for more than text."""
    chance = random.Random(1)
    joined = [
        "".join(chance.choices(FRAGMENTS, k=chance.randint(2, 9))) for _ in range(600 - len(FRAGMENTS) - 2)
    ]
    return [*FRAGMENTS, "", "x" * 5_000, *joined]


@pytest.fixture(scope="session")
def hostile_names() -> list[str]:
    """500 names that are no identifiers of any language."""
    chance = random.Random(2)
    bad = [fragment for fragment in FRAGMENTS if not fragment.isalnum()]
    start = ["x", "_x", "a1", "", "class"]
    made = [chance.choice(start) + chance.choice(bad) + chance.choice([*start, *bad]) for _ in range(900)]
    unusable = [name for name in dict.fromkeys(made) if any(sign in name for sign in "\"'`\\ \n;()=#{}[]\0")]
    fixed = [
        "",
        " ",
        "x y",
        "x\n",
        "\nx",
        "x=1\nimport os;y",
        "x;y",
        "1x",
        "x-y",
        "x()",
        "$(x)",
        "x[0]",
        "a=1;b",
        "x\0",
    ]
    return [*fixed, *unusable[: 500 - len(fixed)]]


MakeValues: TypeAlias = Callable[..., list[Any]]


@pytest.fixture(scope="session")
def make_values() -> MakeValues:
    """Give a function that makes JSON values, the same ones every time."""
    return _make_values


def _make_values(count: int, *, seed: int = 3, integers: int = 2**70, empty_keys: bool = True) -> list[Any]:
    """Make values up to three levels deep; `integers` bounds them."""
    chance = random.Random(seed)
    return [_make_value(chance, 0, integers, empty_keys=empty_keys) for _ in range(count)]


def _make_value(chance: random.Random, depth: int, integers: int, *, empty_keys: bool) -> Any:
    kind = chance.choice(
        ["null", "bool", "int", "small", "float", "text"] + ["list", "dict"] * (3 if depth < 3 else 0)
    )
    if kind in {"list", "dict"}:
        inner = [
            _make_value(chance, depth + 1, integers, empty_keys=empty_keys)
            for _ in range(chance.randint(0, 4))
        ]
        if kind == "list":
            return inner
        return {_make_text(chance) or ("" if empty_keys else "k"): value for value in inner}
    if kind == "text":
        return _make_text(chance)
    if kind == "float":
        number = chance.choice(
            [0.0, -0.0, 0.1, 2.5, 1e16, 1e-7, 5e-324, 1.7976931348623157e308, chance.random()]
        )
        return number * chance.choice([1, -1]) if number else number
    if kind == "int":
        edge = chance.choice([2**31, 2**53, 2**63, 2**64, 10**18, 10**20])
        return min(max(chance.choice([1, -1]) * edge + chance.randint(-1, 1), -integers), integers)
    return {"null": None, "bool": chance.random() < 0.5, "small": chance.randint(-9, 9)}[kind]


def _make_text(chance: random.Random) -> str:
    return "".join(
        fragment for fragment in chance.choices(FRAGMENTS, k=chance.randint(0, 5)) if fragment != "\0"
    )


Need: TypeAlias = Callable[[str], str]


@pytest.fixture(scope="session")
def need() -> Need:
    """Give a function that finds a program, or skips the test; with CI=true it fails instead."""

    def find(program: str) -> str:
        beside = Path(sysconfig.get_path("scripts")) / program
        found = str(beside) if beside.exists() else shutil.which(program)
        if found is None and os.environ.get("CI") == "true":
            pytest.fail(f"{program} is not installed, which the tests need in CI")
        if found is None:
            pytest.skip(f"{program} is not installed")
        return found

    return find


class Kernel:
    """A real kernel that runs code and gives what it printed."""

    def __init__(self, manager: KernelManager) -> None:
        self._client = manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=90)

    def run(self, code: str) -> str:
        """Run code and give what it printed before it ended; fail unless it ends well."""
        printed: list[str] = []
        reply = self._client.execute_interactive(
            code,
            output_hook=lambda message: printed.append(_text_of(message)),
            timeout=120,
            allow_stdin=False,
        )
        assert reply["content"]["status"] == "ok", "".join(printed)[:2_000]
        return "".join(printed)

    def ask(self, code: str) -> str:
        """Run code that shows one thing, and wait for it: Deno's kernel shows it after it says it is idle."""
        shown = self.run(code)
        while not shown:
            shown = _text_of(self._client.get_iopub_msg(timeout=60))
        return shown

    def stop(self) -> None:
        """Close the channels."""
        self._client.stop_channels()


def _text_of(message: dict[str, Any]) -> str:
    """The text that a message shows."""
    content = message["content"]
    if message["msg_type"] == "stream":
        return str(content["text"])
    if message["msg_type"] == "execute_result":
        return str(content["data"]["text/plain"])
    return "".join(content["traceback"]) if message["msg_type"] == "error" else ""


StartKernel: TypeAlias = Callable[..., Kernel]


@pytest.fixture
def start_kernel(tmp_path: Path) -> Iterator[StartKernel]:
    """Give a function that starts a kernel of a command; no kernelspec has to be installed."""
    started: list[tuple[KernelManager, Kernel]] = []

    def start(argv: list[str], **environment: str) -> Kernel:
        folder = tmp_path / "kernels" / "tested"
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(
            json.dumps({"argv": argv, "display_name": "tested", "language": ""})
        )
        specs = KernelSpecManager(kernel_dirs=[str(folder.parent)], ensure_native_kernel=False)
        manager = KernelManager(kernel_name="tested", kernel_spec_manager=specs)
        manager.start_kernel(env={**os.environ, **environment}, cwd=str(tmp_path))
        kernel = Kernel(manager)
        started.append((manager, kernel))
        return kernel

    yield start
    for manager, kernel in started:
        kernel.stop()
        manager.shutdown_kernel(now=True)
