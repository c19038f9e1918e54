"""bash: what it reads back, in the shell itself and through bash_kernel."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_nbexec.languages import base, bash

if TYPE_CHECKING:
    from pathlib import Path

    from tests.languages.conftest import Need, StartKernel

LANGUAGE = bash.Bash()

SCALARS: list[Any] = [True, False, 0, -5, 2**70, 10**4000, 1.5, -0.0, 1e16, 5e-324, "", "a b", "true", "5"]
BASH_KERNEL = [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"]


def text_of(value: Any) -> str:
    """What a value looks like in bash, where all is text."""
    return value if isinstance(value, str) else json.dumps(value)


def show(count: int) -> str:
    """Code that prints the variables or arrays p0, p1, … as base64, one element a line."""
    element = 'printf %s "$e" | base64 -w0; echo'
    loop = f'for e in "${{r[@]}}"; do {element}; done; echo end'
    return f"for n in $(seq 0 {count - 1}); do declare -n r=p$n; {loop}; done; unset -n r"


def read(printed: str) -> list[list[str]]:
    """Read what `show` printed."""
    groups = printed.replace("\r", "").split("end\n")[:-1]
    return [[base64.b64decode(line).decode() for line in group.split("\n")[:-1]] for group in groups]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_values_arrive_in_bash(need: Need, texts: list[str], tmp_path: Path, locale: str) -> None:
    """Texts, numbers and arrays of them are read back exactly, whatever the locale."""
    values: list[Any] = [*SCALARS, *(text for text in texts if "\0" not in text)]
    arrays = [values[start : start + 7] for start in range(0, len(values), 7)] + [[]]
    lines = [LANGUAGE.assignment(f"p{number}", value) for number, value in enumerate([*values, *arrays])]
    assert all(line.isascii() and line.isprintable() for line in lines)
    script = tmp_path / "script.sh"
    script.write_text("\n".join([*lines, show(len(lines))]))
    done = subprocess.run(
        [need("bash"), str(script)], capture_output=True, env={"LC_ALL": locale}, check=True
    )
    assert done.stderr == b""
    expected = [[text_of(value)] for value in values] + [
        [text_of(item) for item in array] for array in arrays
    ]
    assert read(done.stdout.decode()) == expected


def test_values_arrive_through_the_kernel(start_kernel: StartKernel, texts: list[str]) -> None:
    """The kernel types code at a terminal, which must not change it, not even in the C locale."""
    kernel = start_kernel(BASH_KERNEL, LC_ALL="C")
    values = [*[text for text in texts if "\0" not in text][:100], "é!" * 5_000]
    arrays = [values[start : start + 5] for start in range(0, 50, 5)]
    lines = [LANGUAGE.assignment(f"p{number}", value) for number, value in enumerate([*values, *arrays])]
    kernel.run("\n".join([LANGUAGE.comment("Parameters"), *lines, ""]))
    expected = [[value] for value in values] + arrays
    assert read(kernel.run(show(len(lines)))) == expected


@pytest.mark.parametrize(
    "declaration",
    [
        "declare -i p0=5",
        "p0=(1 2 3)",
        "declare -a p0=(1 2)",
        "typeset -u p0=a",
        "declare -n p0=y",
        "declare -x p0=5",
    ],
)
def test_attributes_of_a_declared_variable_do_not_bend_the_value(need: Need, declaration: str) -> None:
    """A variable that was declared as an integer, an array or a reference is made anew."""
    value = "a[$(echo pwned >&2)]"
    script = "\n".join([declaration, LANGUAGE.assignment("p0", value, declaration), show(1)])
    done = subprocess.run([need("bash"), "-c", script], capture_output=True, check=True)
    assert done.stderr == b""
    assert read(done.stdout.decode()) == [[value]]


@pytest.mark.parametrize(
    "declaration", ["export x=5", "declare -x x=5", "declare -ix x=5", "x=(1)\nexport x"]
)
def test_an_exported_variable_stays_exported(need: Need, declaration: str) -> None:
    """Programs that the notebook starts see the value."""
    script = "\n".join([declaration, LANGUAGE.assignment("x", "a b", declaration), "printenv x"])
    done = subprocess.run([need("bash"), "-c", script], capture_output=True, check=True)
    assert done.stdout == b"a b\n"


@pytest.mark.parametrize("value", [None, {}, {"a": 1}, [[1]], [None], "a\0b", float("inf")])
def test_what_bash_cannot_hold_is_refused(value: Any) -> None:
    """Nothing is bent into text that was none."""
    with pytest.raises(base.Unwritable):
        LANGUAGE.literal(value)


@pytest.mark.parametrize(
    "name", ["PROMPT_COMMAND", "PS1", "SECONDS", "RANDOM", "PATH", "IFS", "LD_PRELOAD", "_", "UID"]
)
def test_variables_that_bash_obeys_are_refused(name: str) -> None:
    """A value of one of these would be run, evaluated, or refused by bash itself."""
    assert LANGUAGE.check_name(name) is not None
