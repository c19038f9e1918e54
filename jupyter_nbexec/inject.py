"""Parameters into a notebook, by papermill's conventions: a copy with one more cell, or another one."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbformat import v4

from jupyter_nbexec import errors, parameters
from jupyter_nbexec.languages import base

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nbformat import NotebookNode

    from jupyter_nbexec import models

INJECTED_TAG = "injected-parameters"
"""The tag of the cell that holds the values of a run."""


@dataclass(frozen=True, kw_only=True)
class Injection:
    """A copy of a notebook that is ready to be executed."""

    notebook: NotebookNode
    index: int | None  #: of the cell with the values; None where there are none
    replaced: bool  #: whether that cell took the place of one that the notebook had


def inject(
    notebook: NotebookNode, values: Mapping[str, models.JsonValue], language: base.Language | None
) -> Injection:
    """Copy a notebook and put the values where its parameters are declared; the original stays as it is.

    Without values no cell is put in, and one from an earlier run stays. Raises `InvalidParameter` for
    what cannot be written; `parameters.check` finds the same, and more.
    """
    prepared = copy.deepcopy(notebook)
    if not values:
        return Injection(notebook=prepared, index=None, replaced=False)
    if language is None:
        raise errors.InvalidParameter(
            *((name, "cannot be written in this kernel's language") for name in values)
        )
    earlier = parameters.find_tagged(notebook, INJECTED_TAG)
    declaring = parameters.find_cell(notebook)
    index = earlier if earlier is not None else 0 if declaring is None else declaring + 1
    cell = v4.new_code_cell(
        source=_source(values, language, _code_before(notebook, index)), metadata={"tags": [INJECTED_TAG]}
    )
    _identify(cell, prepared, earlier)
    if earlier is None:
        prepared.cells.insert(index, cell)
    else:
        prepared.cells[index] = cell
    return Injection(notebook=prepared, index=index, replaced=earlier is not None)


def count_before(notebook: NotebookNode) -> int:
    """Count the cells before all that a run's values may change; 0 where no parameters are declared."""
    places = (parameters.find_cell(notebook), parameters.find_tagged(notebook, INJECTED_TAG))
    return 0 if places[0] is None else min(place for place in places if place is not None)


def _source(values: Mapping[str, models.JsonValue], language: base.Language, before: str) -> str:
    lines = [language.comment("Parameters")]
    problems = []
    for name, value in values.items():
        try:
            lines.append(language.assignment(name, value, before))
        except base.Unwritable as error:
            problems.append((name, str(error)))
    if problems:
        raise errors.InvalidParameter(*problems)
    return "\n".join(lines) + "\n"


def _code_before(notebook: NotebookNode, index: int) -> str:
    return "\n".join(cell.source for cell in notebook.cells[:index] if cell.cell_type == "code")


def _identify(cell: NotebookNode, notebook: NotebookNode, earlier: int | None) -> None:
    """Give the cell an id where the notebook's format has them, the same every time."""
    cell.pop("id", None)  # nbformat draws one at random
    if (notebook.nbformat, notebook.nbformat_minor) < (4, 5):
        return
    taken: set[Any] = {other.get("id") for other in notebook.cells}
    if earlier is not None and "id" in notebook.cells[earlier]:
        cell["id"] = notebook.cells[earlier]["id"]
        return
    number = 0
    cell["id"] = INJECTED_TAG
    while cell["id"] in taken:
        number += 1
        cell["id"] = f"{INJECTED_TAG}-{number}"
