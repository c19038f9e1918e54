"""Kernel Gateway's other form of annotations: a Swagger document, and cells that name its operations.

A Markdown cell has the document in a fenced block; a code cell that begins `# operationId: listContacts` is
the operation of that name, and `# ResponseInfo operationId: listContacts` says status and headers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_TEMPLATE = re.compile(r"\{([^\W\d]\w*)\}")


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An operation that the document describes."""

    method: str
    path: str  #: as an annotation writes it
    description: str


def read(cells: Iterable[Any], methods: Sequence[str]) -> dict[str, list[Operation]] | None:
    """Find the operations that a notebook's document describes, by id; None if it has no document."""
    documents = [_document(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    found = [document for document in documents if document is not None]
    if not found:
        return None
    paths: dict[str, Any] = {}
    for document in found:
        described = document.get("paths")
        paths.update(described if isinstance(described, dict) else {})
    operations: dict[str, list[Operation]] = {}
    for path, item in paths.items():
        for verb, operation in item.items() if isinstance(item, dict) else ():
            known = isinstance(operation, dict) and isinstance(operation.get("operationId"), str)
            # OpenAPI has a slash before every path; nothing else could be asked for.
            if known and path.startswith("/") and verb.upper() in methods:
                listed = operations.setdefault(operation["operationId"].strip(), [])
                listed.append(_operation(verb.upper(), path, operation))
    return operations


def _document(source: str) -> Mapping[str, Any] | None:
    """Read the Swagger document in the first fenced block of a cell, if it is one."""
    fenced = _FENCE.search(source)
    try:
        document = json.loads(source if fenced is None else fenced[1])
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and "swagger" in document else None


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Operation:
    """Write an operation's path as annotations do; parameters that its template lacks go to its end."""
    named = set(_TEMPLATE.findall(path))
    written = _TEMPLATE.sub(r":\1", path)
    parameters = operation.get("parameters")
    for parameter in parameters if isinstance(parameters, list) else ():
        name = parameter.get("name") if isinstance(parameter, dict) else None
        if isinstance(name, str) and name not in named and parameter.get("in", "path") == "path":
            written = f"{written}/:{name}"
    texts = [text for key in ("summary", "description") if isinstance(text := operation.get(key), str)]
    return Operation(method=method, path=written, description="\n\n".join(texts))
