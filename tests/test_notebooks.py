"""Notebooks as they are stored: what is made of old, odd and broken ones, and what is seen unread."""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import math
import os
from datetime import datetime, timedelta, timezone
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tornado import web

from jupyter_nbexec import documents, errors, inject, languages, notebooks, outputs, parameters
from jupyter_nbexec.endpoints import annotated

MOMENT = datetime(2026, 11, 20, 12, 0, 0, 250, tzinfo=timezone.utc)
WHOLE = MOMENT.replace(microsecond=0)


@pytest.mark.parametrize(
    ("modified", "seconds", "expected"),
    [
        (MOMENT, 0.0, True),
        (MOMENT, 0.04, True),
        (MOMENT, 0.06, False),
        # The clock of the file may count whole seconds.
        (WHOLE, 1.0, True),
        (WHOLE, 2.1, False),
        # It may be ahead of ours.
        (MOMENT, -5.0, True),
        (None, 0.0, True),
    ],
)
def test_changes_that_cannot_be_seen(modified: datetime | None, seconds: float, *, expected: bool) -> None:
    """A file that was changed just now may be changed again without looking different."""
    look = notebooks.Look(modified=modified, size=1)
    now = (modified or MOMENT) + timedelta(seconds=seconds)

    assert look.may_hide_change(now) is expected


def test_age() -> None:
    """What was changed at an unknown time may have been changed now."""
    now = datetime.now(tz=timezone.utc)

    assert notebooks.Look(modified=now, size=1).is_younger(60)
    assert not notebooks.Look(modified=now - timedelta(seconds=61), size=1).is_younger(60)
    assert notebooks.Look(modified=None, size=None).is_younger(0)


# What cannot be read


class Broken:
    """A contents manager on a disk that fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def get(self, *_: Any, **__: Any) -> Any:
        """Fail."""
        raise self.error


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("number", "status"),
    [
        *((number, 404) for number in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)),
        *((number, 403) for number in (errno.EACCES, errno.EPERM)),
        *(
            (number, 503)
            for number in (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.ESTALE, None)
        ),
    ],
)
async def test_unreadable(number: int | None, status: int) -> None:
    """Only what is not there is not found; what may not or cannot be read is told as that, without a path."""
    secret = "/srv/secret/a.ipynb"
    error = OSError(f"about {secret}") if number is None else OSError(number, "what it says", secret)
    for each in (error, caused(web.HTTPError(500, f"about {secret}"), error)):
        with pytest.raises((errors.NbexecError, web.HTTPError)) as refused:
            await notebooks.read(Broken(each), "a.ipynb")

        told: Any = refused.value
        assert getattr(told, "status", getattr(told, "status_code", None)) == status
        assert secret not in str(told)
        if status == 503 and number is not None:
            assert os.strerror(number) in str(told)


def caused(error: Exception, cause: Exception) -> Exception:
    """An error with its cause."""
    error.__cause__ = cause
    return error


# Old formats

HEADING = {"cell_type": "heading", "level": 2, "metadata": {}, "source": ["A title\n", "in two lines"]}
CODE = {
    "cell_type": "code",
    "collapsed": False,
    "input": ["x = 1\n", "x"],
    "language": "python",
    "metadata": {"tags": ["parameters"]},
    "outputs": [{"output_type": "pyout", "prompt_number": 1, "text": ["1"]}],
    "prompt_number": 1,
}
TEXTS: list[Any] = [
    {"cell_type": kind, "metadata": {}, "source": f"some {kind}"} for kind in ("markdown", "raw", "html")
]
SHEETS = [{"metadata": {}, "cells": [HEADING, CODE]}, {"cells": TEXTS}]
METADATA = {"name": "old", "signature": "s", "kernelspec": {"name": "python3", "display_name": "P"}}
OLD: list[dict[str, Any]] = [
    {"nbformat": 3, "nbformat_minor": 0, "metadata": METADATA, "worksheets": SHEETS},
    {"nbformat": 2, "metadata": METADATA, "worksheets": SHEETS},
    {"nbformat": 1, "cells": [{"cell_type": "code", "code": "1"}, {"cell_type": "text", "text": "a"}]},
]


@pytest.mark.parametrize("old", OLD, ids=lambda old: f"nbformat {old['nbformat']}")
def test_old_formats(old: dict[str, Any]) -> None:
    """A notebook of an older format has the cells that nbformat makes of it, and is told of."""
    read = notebooks.check(copy.deepcopy(old))
    upgraded = nbformat.reads(json.dumps(old), as_version=4)

    assert [(c.cell_type, c.source) for c in read.content.cells] == [
        (c.cell_type, c.source) for c in upgraded.cells
    ]
    assert read.warnings == [f"The notebook has nbformat {old['nbformat']}; it was upgraded for this run."]
    assert read.cell_ids == [None] * len(read.content.cells)
    nbformat.validate(read.content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"worksheets": ...}, "has no list of worksheets"),
        ({"worksheets": [{}]}, "A worksheet of the notebook has no list of cells"),
        ({"worksheets": [{"cells": [{"cell_type": 1}]}]}, "Cell 0 of the notebook is of no known type"),
        ({"worksheets": [{"cells": [{"cell_type": "x"}]}]}, "Cell 0 of the notebook is of no known type"),
        ({"worksheets": [{"cells": [{**HEADING, "source": None}]}]}, "The source of cell 0"),
        ({"worksheets": [{"cells": [CODE, {**HEADING, "level": "2"}]}]}, "The heading in cell 1"),
        ({"worksheets": [{"cells": [{**CODE, "metadata": 5}]}]}, "The metadata of cell 0"),
        ({"nbformat": 10**400}, "is none of 1 to 4"),
        ({"nbformat": 0}, "is none of 1 to 4"),
    ],
)
def test_what_cannot_be_upgraded(changes: dict[str, Any], message: str) -> None:
    """A notebook of an older format that makes no sense is refused, in words."""
    fields = {key: value for key, value in {**OLD[0], **changes}.items() if value is not ...}

    with pytest.raises(errors.InvalidNotebook, match=message):
        notebooks.check(copy.deepcopy(fields))


# What the format does not allow


def test_ids_that_are_not_allowed() -> None:
    """Others take the place of ids that the format does not allow; what is stored is told, if it can be."""
    ids = ["ok", "a b", "ü", "x" * 65, 5, None, "", "ok", "cell-1", "new\nline", "a b"]
    cells: list[Any] = [{"cell_type": "raw", "metadata": {}, "source": "", "id": each} for each in ids]
    cells.append({"cell_type": "raw", "metadata": {}, "source": ""})
    read = notebooks.check({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells})

    told = ["ok", "a b", "ü", None, None, None, "", "ok", "cell-1", None, "a b", None]
    assert read.cell_ids == told
    assert read.warnings == [
        "The notebook has cells with the same id; all but the first have others in this run.",
        "Cell 1 and 7 more of the notebook: nbformat does not allow such ids; in this run they differ.",
    ]
    assert [cell.id for cell in read.content.cells if cell.id in ids] == ["ok", "cell-1"]
    nbformat.validate(read.content)


@pytest.mark.parametrize(
    ("timeout", "expected"),
    [
        (1.5, 1.5),
        pytest.param(10**400, math.inf, id="beyond floats"),
        (math.nan, None),
        (-1, None),
        (0, None),
        ("5", None),
        (True, None),
    ],
)
def test_default_timeout(timeout: Any, expected: float | None) -> None:
    """A timeout in the metadata counts if it is a number above 0, however large; else there is a warning."""
    read = notebooks.check(
        {"nbformat": 4, "nbformat_minor": 5, "metadata": {"execution": {"timeout": timeout}}, "cells": []}
    )

    assert read.default_timeout == expected
    assert bool(read.warnings) is (expected is None)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([[], {}, 10**400, "code", "heading", "\ud800", "nbformat", math.nan, -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NEW = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {
        "kernelspec": {"name": "python3", "display_name": "P", "language": "python"},
        "language_info": {"name": "python"},
        "execution": {"timeout": 5, "allow_errors": True},
        "nbexec": {
            "parameters": {"x": {"minimum": 1}},
            "watch": ["a"],
            "state": "kernel",
            "prepare": True,
        },
    },
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# A\n", "b"], "attachments": {}},
        {
            "cell_type": "code",
            "id": "b",
            "metadata": {"tags": ["parameters"]},
            "source": "x: int = 1",
            "outputs": [{"output_type": "stream", "name": "stdout", "text": "1"}],
            "execution_count": 1,
        },
        {"cell_type": "code", "id": "c", "metadata": {}, "source": "# GET /a/:b\nprint(1)"},
    ],
}


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A notebook of any format, of which something was replaced, or is missing, in some places."""
    notebook: Any = copy.deepcopy(draw(st.sampled_from([NEW, NEW, *OLD])))
    for _ in range(draw(st.integers(1, 3))):
        place = notebook
        while True:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 4)):
                place = place[key]
                continue
            if draw(st.booleans()):
                place[key] = draw(JSON)
            elif isinstance(place, dict) and len(place) > 1:
                del place[key]
            break
    return notebook


@settings(max_examples=400, deadline=None, derandomize=True)
@given(mutated())
def test_broken_notebooks(fields: Any) -> None:
    """Whatever a notebook holds, it is read, described and planned, or refused in words."""
    python = languages.find("python3", "python")
    try:
        read = notebooks.parse(json.dumps(fields))
        declared = parameters.infer(read.content, python)
    except errors.InvalidNotebook:
        return
    with contextlib.suppress(errors.InvalidParameter):
        parameters.check({"x": 1}, declared, python)
    schema = parameters.schema(declared)
    table = annotated.of_notebook(read.content.cells, read.cell_ids, python)
    seen = [read.kernel_name, read.language, read.default_timeout, read.default_allow_errors, read.watched]
    seen += [read.asks_for_preparation, read.state, read.has_unknown_state, read.warnings, read.name]
    assert outputs.dumps(
        [seen, schema, [each.to_json() for each in table], [p.to_json() for p in declared or []]]
    )
    made = inject.inject(read.content, {"x": 1}, python).notebook
    nbformat.validate(made)
    packed = documents.pack(made, list(enumerate(read.cell_ids)))
    assert len(documents.unpack(packed)[1]) == len(read.cell_ids)
