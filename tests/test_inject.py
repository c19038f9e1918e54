"""Injection by papermill's conventions, and a stored notebook that never changes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import v4

from jupyter_nbexec import errors, inject, languages

FIXTURES = Path(__file__).parent / "fixtures" / "papermill"
PYTHON = languages.find(None, "python")


def code_cell(source: str, tags: list[str]) -> nbformat.NotebookNode:
    """A code cell."""
    cell = v4.new_code_cell(source, metadata={"tags": tags})
    return nbformat.from_dict(cell)  # type: ignore[no-any-return]


def notebook(*cells: tuple[str, str], minor: int = 5) -> nbformat.NotebookNode:
    """A notebook of code cells, given as tag and source."""
    made = [code_cell(source, [tag] if tag else []) for tag, source in cells]
    for number, cell in enumerate(made):
        cell["id"] = f"cell-{number}"
        if minor < 5:
            del cell["id"]
    return nbformat.from_dict(  # type: ignore[no-any-return]
        {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": minor}
    )


def read(name: str) -> nbformat.NotebookNode:
    """A fixture, as it is stored."""
    path = FIXTURES / name
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)  # type: ignore[no-any-return]


def test_after_the_tagged_cell() -> None:
    """P1: a cell of its own, tagged, with a comment and one line each."""
    done = inject.inject(read("simple_execute.ipynb"), {"msg": "Hello"}, PYTHON)
    cell = done.notebook.cells[1]
    assert (done.index, done.replaced) == (1, False)
    assert cell.source.split("\n") == ["# Parameters", 'msg = "Hello"', ""]
    assert cell.metadata == {"tags": ["injected-parameters"]}
    assert done.notebook.cells[0].metadata.tags == ["parameters"]
    nbformat.validate(done.notebook)


def test_first_without_a_tagged_cell() -> None:
    """P2."""
    done = inject.inject(read("no_parameters.ipynb"), {"msg": "Hello"}, PYTHON)
    assert (done.index, done.replaced) == (0, False)
    nbformat.validate(done.notebook)


def test_in_place_of_an_earlier_one() -> None:
    """P3: running the result again leaves one injected cell."""
    first = inject.inject(read("simple_execute.ipynb"), {"msg": "Hello"}, PYTHON)
    second = inject.inject(first.notebook, {"msg": "again"}, PYTHON)
    assert (second.index, second.replaced) == (1, True)
    assert len(second.notebook.cells) == len(first.notebook.cells)
    assert second.notebook.cells[1].source == '# Parameters\nmsg = "again"\n'


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ('"Hello"', r'msg = "\"Hello\""'),
        (r"do\ not\ crash", r'msg = "do\\ not\\ crash"'),
        (r"bar=\"baz\"", r'msg = "bar=\\\"baz\\\""'),
        (r"\\\"bar\\\"".replace(r"\\\"", r'\\"'), r'msg = "\\\\\"bar\\\\\""'),
    ],
)
def test_quotes_and_backslashes(value: str, line: str) -> None:
    """P4."""
    done = inject.inject(read("simple_execute.ipynb"), {"msg": value}, PYTHON)
    assert done.notebook.cells[1].source.split("\n")[1] == line


@pytest.mark.parametrize("cells", [(("", "1"),), (("parameters", "x = 1"), ("injected-parameters", "x = 2"))])
def test_without_values_nothing_changes(cells: tuple[tuple[str, str], ...]) -> None:
    """As papermill does; an injected cell of an earlier run stays."""
    stored = notebook(*cells)
    done = inject.inject(stored, {}, PYTHON)
    assert (done.index, done.replaced) == (None, False)
    assert done.notebook == stored
    assert done.notebook is not stored


@pytest.mark.parametrize("name", ["simple_execute.ipynb", "no_parameters.ipynb", "blank-vscode.ipynb"])
def test_the_stored_notebook_never_changes(name: str) -> None:
    """Nor does anything that is done to the copy reach it."""
    stored = read(name)
    before = copy.deepcopy(stored)
    done = inject.inject(stored, {"msg": "Hello"}, PYTHON)
    for cell in done.notebook.cells:
        cell.metadata["touched"] = True
    assert stored == before


def test_order_is_that_of_the_request() -> None:
    """One line each, in order."""
    done = inject.inject(notebook(("parameters", "")), {"b": 1, "a": [2.0, None]}, PYTHON)
    assert done.notebook.cells[1].source == "# Parameters\nb = 1\na = [2.0, None]\n"


@pytest.mark.parametrize(("minor", "expected"), [(4, None), (5, "injected-parameters")])
def test_ids_where_the_format_has_them(minor: int, expected: str | None) -> None:
    """The same every time, and valid in both formats."""
    done = inject.inject(notebook(("parameters", ""), minor=minor), {"x": 1}, PYTHON)
    assert done.notebook.cells[1].get("id") == expected
    nbformat.validate(done.notebook)


def test_ids_are_unique_and_kept() -> None:
    """An id that is taken gets a number; a replaced cell keeps its own."""
    stored = notebook(("parameters", ""), ("", ""), ("", ""))
    stored.cells[1]["id"], stored.cells[2]["id"] = "injected-parameters", "injected-parameters-1"
    first = inject.inject(stored, {"x": 1}, PYTHON)
    assert first.notebook.cells[1]["id"] == "injected-parameters-2"
    second = inject.inject(first.notebook, {"x": 2}, PYTHON)
    assert second.notebook.cells[1]["id"] == "injected-parameters-2"


def test_only_the_first_tagged_code_cell_counts() -> None:
    """A tag on text declares nothing."""
    stored = notebook(("", "0"), ("parameters", "x = 1"), ("parameters", "x = 2"))
    text = {"cell_type": "markdown", "source": "text", "metadata": {"tags": ["parameters"]}, "id": "text"}
    stored.cells.insert(0, nbformat.from_dict(text))
    assert inject.inject(stored, {"x": 1}, PYTHON).index == 3


@pytest.mark.parametrize(
    "values", [{"x\nimport os": 1}, {"class": 1}, {"x": "\ud800"}, {"ok": 1, "x": float("nan")}]
)
def test_what_cannot_be_written_is_refused_here_too(values: dict[str, Any]) -> None:
    """Whoever forgets to check does not inject code."""
    with pytest.raises(errors.InvalidParameter):
        inject.inject(notebook(("", "")), values, PYTHON)


def test_a_language_that_is_not_known_takes_no_values() -> None:
    """Each name is listed."""
    with pytest.raises(errors.InvalidParameter) as caught:
        inject.inject(notebook(("", "")), {"x": 1, "y": 2}, None)
    assert [entry["parameter"] for entry in caught.value.details["errors"]] == ["x", "y"]
    assert inject.inject(notebook(("", "")), {}, None).index is None


def test_what_ran_before_is_taken_into_account() -> None:
    """JavaScript declares a name again by the word it was declared with."""
    stored = notebook(("", "const a = 1"), ("parameters", "const x = 1; let y = 2"))
    done = inject.inject(stored, {"x": 3, "y": 4, "z": 5}, languages.find(None, "javascript"))
    assert done.notebook.cells[2].source == "// Parameters\nconst x = 3;\nlet y = 4;\nlet z = 5;\n"
