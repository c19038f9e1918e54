"""Python: literals that read back equal, in this process and in a real kernel; names that stay names."""

from __future__ import annotations

import ast
import json
import keyword
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_nbexec.languages import base, python

if TYPE_CHECKING:
    from tests.languages.conftest import MakeValues, StartKernel

LANGUAGE = python.Python()

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
IPYKERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


def exactly(value: Any) -> str:
    """Write a value so that equal texts mean equal values of equal types."""
    return json.dumps(value, sort_keys=False)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(value=VALUES)
def test_literals_read_back_equal(value: Any) -> None:
    """What is written is one line of ASCII that Python reads as the same value of the same type."""
    written = LANGUAGE.literal(value)
    assert written.isascii()
    assert written.isprintable()
    assert exactly(ast.literal_eval(written)) == exactly(value)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(name=st.text(max_size=20), value=SCALARS)
def test_assignments_are_one_statement_to_one_name(name: str, value: Any) -> None:
    """Whatever the name, an assignment assigns to it, or is refused."""
    if LANGUAGE.check_name(name) is not None:
        with pytest.raises(base.Unwritable):
            LANGUAGE.assignment(name, value)
        return
    (statement,) = ast.parse(LANGUAGE.assignment(name, value)).body
    assert isinstance(statement, ast.Assign)
    (target,) = statement.targets
    assert isinstance(target, ast.Name)
    assert target.id == name


def test_hostile_texts_stay_data(texts: list[str]) -> None:
    """Each text is one string constant."""
    for text in texts:
        tree = ast.parse(LANGUAGE.assignment("x", text))
        (statement,) = tree.body
        assert isinstance(statement, ast.Assign)
        assert isinstance(statement.value, ast.Constant)
        assert statement.value.value == text


def test_values_arrive_equal_in_a_kernel(
    start_kernel: StartKernel, make_values: MakeValues, texts: list[str]
) -> None:
    """2,600 values and texts arrive with their types, through the kernel's own transformation of cells."""
    values = [*make_values(2_000, seed=4), *texts, 10**4299, -(10**4299), _nested(64)]
    kernel = start_kernel(IPYKERNEL)
    for start in range(0, len(values), 300):
        batch = values[start : start + 300]
        cell = [LANGUAGE.comment("Parameters")]
        cell += [LANGUAGE.assignment(f"p{number}", value) for number, value in enumerate(batch)]
        kernel.run("\n".join(cell) + "\n")
        names = ", ".join(f"p{number}" for number in range(len(batch)))
        printed = kernel.run(f"import json, sys; sys.set_int_max_str_digits(0); print(json.dumps([{names}]))")
        assert exactly(json.loads(printed)) == exactly(batch)


@pytest.mark.parametrize(
    "name", [*keyword.kwlist, "__builtins__", "__import__", "__x__", "\uff58", "ﬁ", "", "a b", "1x"]
)
def test_names_that_are_refused(name: str) -> None:
    """Keywords, dunders, and names that Python would take for others are no parameters."""
    assert LANGUAGE.check_name(name) is not None


@pytest.mark.parametrize("name", ["x", "_", "_x", "__x", "café", "match", "type", "print", "X1", "变量"])
def test_names_that_are_fine(name: str) -> None:
    """Every other identifier is one, soft keywords and names of builtins included."""
    assert LANGUAGE.check_name(name) is None


def test_deep_values_are_refused_and_located() -> None:
    """64 levels are fine, 65 are not, and the message says where."""
    assert LANGUAGE.literal(_nested(64)) == "[" * 64 + "]" * 64
    with pytest.raises(base.Unwritable, match="64 levels"):
        LANGUAGE.literal(_nested(65))
    with pytest.raises(base.Unwritable, match=r"at a\[1\]: holds a lone surrogate"):
        LANGUAGE.literal({"a": [0, "\ud800"]})


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value
