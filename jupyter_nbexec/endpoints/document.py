"""Endpoints in the words of OpenAPI 3.1: what `openapi` puts into its documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from jupyter_nbexec import errors
from jupyter_nbexec.endpoints import annotated

_Object: TypeAlias = "dict[str, Any]"

#: Statuses with which a call is refused before any cell is executed, and those of `CallError`.
REFUSALS: Final = ("400", "403", "404", "405", "406", "413", "415", "422", "429", "503")
FAILURES: Final = ("500", "502", "504")

#: Under which heading the operations are shown.
HEADING: Final = "Endpoints"

_PARAMETER = re.compile(r"\{(\w+)\}")


def paths(table: Iterable[annotated.Endpoint], *, prefix: str, names: set[str] | None = None) -> _Object:
    """Describe the endpoints of one notebook, below a prefix; `names` are operation ids that are taken."""
    taken = set() if names is None else names
    described: _Object = {}
    templates: dict[str, str] = {}
    for endpoint in table:
        # Templates that differ in the names of their parameters only are the same path.
        template = _template(endpoint.path)
        path = templates.setdefault(_PARAMETER.sub("{}", template), template)
        item = described.setdefault(prefix + path, _item(path))
        item[endpoint.method.lower()] = _operation(endpoint, _name(endpoint.method, path, taken))
    return described


def any_path(prefix: str) -> _Object:
    """Describe what every notebook with endpoints has."""
    parameters = [
        {
            "name": "path",
            "in": "path",
            "required": True,
            "description": "Contents path of the notebook, ending in `.ipynb`; its slashes stay as they are.",
            "schema": {"type": "string", "pattern": r"\.ipynb$"},
            "example": "reports/sales.ipynb",
        },
        {
            "name": "endpoint",
            "in": "path",
            "required": True,
            "description": "The path of an annotated cell; its slashes are left as they are.",
            "schema": {"type": "string"},
            "example": "regions/EU",
        },
    ]
    item: _Object = {"parameters": parameters}
    for method in annotated.METHODS:
        operation: _Object = {
            "operationId": f"call{method.title()}",
            "tags": [HEADING],
            "summary": f"Call the cell that is annotated with {method} and this path",
            "responses": _responses(may_answer_anything=True),
        }
        if method != "GET":
            operation["requestBody"] = _body()
        item[method.lower()] = operation
    return {f"{prefix}/{{path}}/{{endpoint}}": item}


def responses() -> _Object:
    """Describe the answers of calls that fail, by name; documents have them among their components."""
    return {f"Call{status}": _failure(status) for status in FAILURES}


def codes(status: str) -> list[str]:
    """Codes of the ways in which a call fails, by status."""
    kinds = errors.CallError.__subclasses__()
    return sorted({kind.code for kind in kinds if str(int(kind.status)) == status})


def _template(path: str) -> str:
    """Write an annotated path as OpenAPI does."""
    pieces = re.split(r":([^\W\d]\w*)", path)
    return "".join(
        f"{{{piece}}}" if position % 2 else quote(piece, safe="/%:@!$&'()*+,;=-._~")
        for position, piece in enumerate(pieces)
    )


def _item(path: str) -> _Object:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in dict.fromkeys(_PARAMETER.findall(path))
    ]
    return {"parameters": parameters} if parameters else {}


def _name(method: str, path: str, taken: set[str]) -> str:
    """Name an operation: a generator of clients makes a function of it."""
    words = re.findall(r"[A-Za-z0-9]+", path) or ["root"]
    name = candidate = "_".join([method.lower(), *words])
    number = 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    taken.add(candidate)
    return candidate


def _operation(endpoint: annotated.Endpoint, name: str) -> _Object:
    description = endpoint.description
    heading = description.lstrip("# ").partition("\n")[0].strip()
    operation: _Object = {
        "operationId": name,
        "tags": [HEADING],
        "summary": heading or f"{endpoint.method} {endpoint.path}",
        "responses": _responses(may_answer_anything=endpoint.info is not None),
    }
    if description:
        operation["description"] = description
    if endpoint.method != "GET":
        operation["requestBody"] = _body()
    return operation


def _body() -> _Object:
    """A body of any type; these are read, others are given to the notebook as text or base64."""
    form: Mapping[str, Any] = {"schema": {"type": "object"}}
    content = {
        "application/json": {"schema": {}},
        "application/x-www-form-urlencoded": form,
        "multipart/form-data": form,
        "text/plain": {"schema": {"type": "string"}},
    }
    return {"required": False, "content": content}


def _responses(*, may_answer_anything: bool) -> _Object:
    answered: _Object = {
        "description": "What the cell prints, or else what it shows.",
        "content": {"*/*": {}},
    }
    described: _Object = {"200": answered}
    if may_answer_anything:
        said = "What the notebook's ResponseInfo cell says."
        described["default"] = {"description": said, "content": {"*/*": {}}}
    described |= {status: {"$ref": f"#/components/responses/Error{status}"} for status in REFUSALS}
    described |= {status: {"$ref": f"#/components/responses/Call{status}"} for status in FAILURES}
    return described


def _failure(status: str) -> _Object:
    listed = codes(status) + (["internal_error"] if status == "500" else [])
    properties = {
        "code": {"enum": listed},
        "ename": {"type": "string", "description": "Name of the exception that a cell raised."},
        "evalue": {"type": "string"},
        "cell": {"type": "integer", "description": "Index, in the stored notebook, of the first cell."},
        "cell_id": {"type": ["string", "null"]},
        "cells": {"type": "array", "items": {"type": "integer"}},
    }
    schema = {"allOf": [{"$ref": "#/components/schemas/Error"}, {"properties": properties}]}
    return {
        "description": f"The call failed: {', '.join(f'`{code}`' for code in listed)}.",
        "content": {"application/json": {"schema": schema}},
    }
