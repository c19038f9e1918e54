"""Runs as JSON, and notebooks as the store keeps them."""

from __future__ import annotations

import copy
import json
from datetime import datetime, timezone
from typing import Any

import nbformat
import pytest

from jupyter_nbexec import documents, models

SERVICE = "/base/api/nbexec"
NOW = datetime(2026, 11, 20, 10, tzinfo=timezone.utc)


def record(**fields: object) -> models.RunRecord:
    """A run that has succeeded."""
    known: dict[str, object] = {
        "id": "0e3b2f6c-0000-4000-8000-000000000000",
        "created": NOW,
        "started": NOW,
        "ended": NOW,
        "request": models.RunRequest(path="a.ipynb", parameters={"x": 1}),
        "kernel_name": "python3",
        "status": models.RunStatus.SUCCEEDED,
        "result": float("nan"),
        "result_type": "application/json",
    }
    return models.RunRecord(**{**known, **fields})  # type: ignore[arg-type]


def notebook() -> Any:
    """A notebook that was executed once."""
    output = nbformat.v4.new_output("stream", name="stdout", text="\ud800said")
    cell = nbformat.v4.new_code_cell("print('said')", outputs=[output], execution_count=3)
    metadata = {"widgets": {"state": {}}, "kernelspec": {"name": "python3", "display_name": "Python"}}
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("#"), cell], metadata=metadata)


def test_pack_and_unpack() -> None:
    """What is packed comes out again, in text that any database takes."""
    packed = documents.pack(notebook(), [(0, "a"), None])
    unpacked, origins = documents.unpack(packed)

    assert unpacked is not None
    assert origins == [(0, "a"), None]
    assert unpacked.cells[1].outputs[0].text == "\ufffdsaid"
    assert unpacked.cells[1].execution_count == 3


def test_without_outputs() -> None:
    """A notebook is stored as it is before it is executed, and is not changed by that."""
    original = notebook()
    before = copy.deepcopy(original)
    cleared = documents.without_outputs(original)

    assert original == before
    assert cleared["cells"][1]["outputs"] == []
    assert cleared["cells"][1]["execution_count"] is None
    assert cleared["cells"][0] == original.cells[0]
    assert "widgets" not in cleared["metadata"]


def test_complete() -> None:
    """A run has its outputs, with the cells of the stored notebook, and links that lead to it."""
    document = documents.complete(record(), notebook(), [(0, None), (1, "b")], service=SERVICE)

    assert [(output["cell"], output["cell_id"]) for output in document["outputs"]] == [(1, "b")]
    assert document["links"]["events"] == f"{SERVICE}/runs/{record().id}/events"
    assert document["webhook"] is None


@pytest.mark.parametrize("status", [models.RunStatus.FAILED, models.RunStatus.CANCELLED])
def test_only_success_has_a_result(status: models.RunStatus) -> None:
    """A result that was there before a run failed is no result."""
    document = documents.brief(record(status=status, result=5), service=SERVICE)

    assert document["result"] is document["result_type"] is None


def test_nothing_secret() -> None:
    """What is told of a run holds no secret."""
    delivery = models.Delivery(run_id=record().id, url="https://a.example/", sealed_secret=b"sealed")
    document = documents.brief(record(delivery=delivery, key="key", user="me"), service=SERVICE)

    assert "sealed" not in json.dumps(document)
    assert not {"key", "env"} & document.keys()
    assert "me" not in document.values()  # who it is to be told apart by; `user` is what they are called
    assert document["webhook"]["state"] == "waiting"
