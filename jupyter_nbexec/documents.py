"""Runs as JSON: what clients are told of them, and the notebooks that the store keeps beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import nbformat
from nbformat import NotebookNode

from jupyter_nbexec import models, outputs

Origins: TypeAlias = "Sequence[tuple[int, str | None] | None]"
"""For each cell of an executed notebook: index and id in the stored one; None for the injected cell."""

EMPTY: Final = b'{"notebook":null,"origins":[]}'


def pack(notebook: dict[str, Any], origins: Origins) -> bytes:
    """Write a notebook for the store."""
    return outputs.dumps({"notebook": notebook, "origins": origins})


def unpack(content: bytes) -> tuple[NotebookNode | None, list[tuple[int, str | None] | None]]:
    """Read what `pack` has written."""
    document = json.loads(content)
    notebook = document["notebook"]
    origins = [None if origin is None else (origin[0], origin[1]) for origin in document["origins"]]
    return None if notebook is None else nbformat.from_dict(notebook), origins


def without_outputs(notebook: dict[str, Any]) -> dict[str, Any]:
    """Copy a notebook as it is before it is executed; nothing of the original is changed."""
    cells = [
        {**cell, "outputs": [], "execution_count": None} if cell["cell_type"] == "code" else cell
        for cell in notebook["cells"]
    ]
    metadata = {name: value for name, value in notebook["metadata"].items() if name != "widgets"}
    return {**notebook, "metadata": metadata, "cells": cells}


def brief(record: models.RunRecord, *, service: str) -> dict[str, Any]:
    """Write a run without its outputs. `service` is the URL path of `/api/nbexec` on this server."""
    succeeded = record.status is models.RunStatus.SUCCEEDED
    document: dict[str, Any] = {
        "id": record.id,
        "path": record.path,
        "status": record.status.value,
        "created": models.to_timestamp(record.created),
        "started": models.to_timestamp(record.started),
        "ended": models.to_timestamp(record.ended),
        "duration": record.duration,
        "parameters": record.request.parameters,
        "user": record.request.caller,
        "kernel": None if record.kernel is None else record.kernel.to_json(),
        "progress": record.progress.to_json(),
        "result": record.result if succeeded else None,
        "result_type": record.result_type if succeeded else None,
        "truncated": record.truncated,
        "error": None if record.error is None else record.error.to_json(),
        "saved_as": record.saved_as,
        "warnings": list(record.warnings),
        "webhook": None if record.delivery is None else record.delivery.to_json(),
        "links": _links(record.id, service),
    }
    return document


def addressed(document: dict[str, Any], *, service: str) -> dict[str, Any]:
    """Copy what was written of a run, perhaps by another server, with links that lead to this one."""
    return {**document, "links": _links(document["id"], service)} if "links" in document else document


def _links(run_id: str, service: str) -> dict[str, str]:
    itself = f"{service}/runs/{run_id}"
    return {"self": itself, "events": f"{itself}/events", "notebook": f"{itself}/notebook"}


def complete(
    record: models.RunRecord, notebook: dict[str, Any] | None, origins: Origins, *, service: str
) -> dict[str, Any]:
    """Write a run with the outputs that were asked for. Large ones take time: call this in a thread."""
    document = brief(record, service=service)
    links = document.pop("links")
    document["scraps"] = {} if notebook is None else outputs.scraps(notebook)
    document["outputs"] = (
        [] if notebook is None else outputs.select(notebook, origins, record.request.outputs)
    )
    document["links"] = links
    return document
