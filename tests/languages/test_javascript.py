"""JavaScript: what it reads back, in Deno and through Deno's Jupyter kernel."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_nbexec.languages import base, javascript

if TYPE_CHECKING:
    from pathlib import Path

    from tests.languages.conftest import MakeValues, Need, StartKernel

LANGUAGE = javascript.JavaScript()

#: Writes a value as JSON, in which the number -0 is seen, and inherited members are not.
SHOW = r"""
function show(x) {
  if (Array.isArray(x)) return "[" + x.map(show).join(",") + "]";
  if (typeof x === "number") return Object.is(x, -0) ? "-0.0" : String(x);
  if (x === null || typeof x !== "object") return JSON.stringify(x);
  return "{" + Object.entries(x).map(([k, v]) => JSON.stringify(k) + ":" + show(v)).join(",") + "}";
}
"""

#: An expression whose result is a plain text, without colours.
RESULT = '({[Symbol.for("Jupyter.display")]: () => ({"text/plain": %s})})'


def exactly(value: Any) -> str:
    """Write a value so that equal texts mean equal values, where all numbers are floats."""
    return json.dumps(json.loads(json.dumps(value), parse_int=float), sort_keys=True)


def all_values(make_values: MakeValues, texts: list[str], count: int) -> list[Any]:
    """Values and texts, with the keys and names that JavaScript treats in a way of its own."""
    special = [{"__proto__": {"a": 1}}, {"__proto__": None}, [{"constructor": 1, "toString": 2}], -0.0, 2**53]
    return [*special, *make_values(count, seed=7, integers=2**53), *texts]


def test_values_arrive_in_deno(need: Need, make_values: MakeValues, texts: list[str], tmp_path: Path) -> None:
    """Values and texts are read back exactly."""
    values = all_values(make_values, texts, 600)
    lines = [f"{{ {LANGUAGE.assignment('p', value)} console.log(show(p)); }}" for value in values]
    assert all(line.isascii() and line.isprintable() for line in lines)
    script = tmp_path / "script.ts"
    script.write_text(SHOW.replace("(x)", "(x: any): string", 1) + "\n".join(lines))
    done = subprocess.run([need("deno"), "run", "--no-check", str(script)], capture_output=True, check=True)
    printed = done.stdout.decode().split("\n")[:-1]
    assert [exactly(json.loads(line)) for line in printed] == [exactly(value) for value in values]


def test_values_arrive_through_the_kernel(
    need: Need, start_kernel: StartKernel, make_values: MakeValues, texts: list[str]
) -> None:
    """A smaller batch, as one injected cell."""
    kernel = start_kernel([need("deno"), "jupyter", "--kernel", "--conn", "{connection_file}"])
    values = all_values(make_values, texts[:200], 100)
    lines = [LANGUAGE.assignment(f"p{number}", value) for number, value in enumerate(values)]
    kernel.run("\n".join([LANGUAGE.comment("Parameters"), *lines, ""]))
    names = ", ".join(f"p{number}" for number in range(len(values)))
    printed = kernel.ask(SHOW + RESULT % f"[{names}].map(show).join('\\n')")
    assert [exactly(json.loads(line)) for line in printed.split("\n")] == [exactly(value) for value in values]


@pytest.mark.parametrize(
    "declaration", ["let x = 1;", "const x = 1;", "var x = 1;", "", "const x: number = 1"]
)
def test_a_declared_name_can_be_given_a_value(
    need: Need, start_kernel: StartKernel, declaration: str
) -> None:
    """The kernel lets a name be declared again only by the same word, so that word is used."""
    kernel = start_kernel([need("deno"), "jupyter", "--kernel", "--conn", "{connection_file}"])
    if declaration:
        kernel.run(declaration)
    kernel.run(LANGUAGE.assignment("x", [2], declaration))
    assert kernel.ask(RESULT % "JSON.stringify(x)") == "[2]"


@pytest.mark.parametrize("value", [2**53 + 1, -(2**64), [2**70], "\udc00"])
def test_what_javascript_cannot_hold_is_refused(value: Any) -> None:
    """A double would round it."""
    with pytest.raises(base.Unwritable):
        LANGUAGE.literal(value)


@pytest.mark.parametrize(
    "name", ["class", "__proto__", "undefined", "let", "a-b", "", "1x", "await", "eval", "x\n"]
)
def test_names_that_are_refused(name: str) -> None:
    """Words of the language, and what would change the global object."""
    assert LANGUAGE.check_name(name) is not None


@pytest.mark.parametrize("name", ["x", "$", "$x", "_", "café", "of", "type"])
def test_names_that_are_fine(name: str) -> None:
    """Every other identifier is one."""
    assert LANGUAGE.check_name(name) is None
