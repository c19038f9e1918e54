"""What this service offers, in OpenAPI 3.1: all of it, or one notebook with its typed parameters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote

from . import errors, models
from .endpoints import document as endpoint_documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .endpoints import annotated

_Object: TypeAlias = "dict[str, Any]"

_ROOT: Final = "/api/nbexec"
#: Where a schema has names that its author chose, and where it has values.
_NAMED: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_VALUES: Final = frozenset({"default", "const", "enum", "example", "examples"})
#: In Markdown, what loads an image, and what begins HTML.
_IMAGE: Final = re.compile(r"!+(?=\[)")
_HTML: Final = re.compile(r"<(?=[A-Za-z/!?])")

#: Under which headings the operations are shown.
_NOTEBOOKS: Final = "Notebooks"
_RUNS: Final = "Runs"
_SERVICE: Final = "This service"

#: The statuses that answer a run that has ended, and what they mean.
_RUN_STATUSES: Final = {
    "409": "The run was `cancelled` by another client; or an error.",
    "500": "The run failed with `cell_error` or `internal_error`; or an error.",
    "502": "The run failed with `kernel_died` or `kernel_start_failed`.",
    "503": "The run failed with `server_stopped` or `out_of_resources`; or an error.",
    "504": "The run failed with `timeout`.",
}


def document(*, version: str, base_url: str) -> _Object:
    """Describe the whole service, as it is below this `base_url`."""
    runs = {"$ref": "#/components/schemas/RunRequest"}
    return {
        **_head("jupyter_nbexec", "One HTTP call runs a notebook.", version=version, base_url=base_url),
        "paths": {
            f"{_ROOT}/{{path}}": {
                "parameters": [_path_parameter()],
                "get": _describe("describe"),
                "post": _run("run", "Run the notebook at this path", runs, example={"parameters": {}}),
            },
            _ROOT: {
                "post": _run(
                    "runSent",
                    "Run the notebook that the body holds; it is not saved",
                    {"$ref": "#/components/schemas/SentRunRequest"},
                    needs_body=True,
                    example={"notebook": _ONE_CELL},
                )
            },
            f"{_ROOT}/openapi.json": {"get": _get_document()},
            f"{_ROOT}/docs": {"get": _get_docs()},
            **_runs_paths(),
            **endpoint_documents.any_path(_ROOT),
        },
        "components": _components(),
        "tags": [{"name": name} for name in (_NOTEBOOKS, endpoint_documents.HEADING, _RUNS, _SERVICE)],
    }


def endpoints(
    tables: Mapping[str, Iterable[annotated.Endpoint]],
    *,
    title: str,
    description: str,
    version: str,
    base_url: str,
) -> _Object:
    """Describe endpoints alone: those of notebooks that are mounted below prefixes of this `base_url`.

    `version` is that of the service, and `description` may be Markdown.
    """
    names: set[str] = set()
    paths: _Object = {}
    for prefix, table in tables.items():
        paths |= endpoint_documents.paths(table, prefix=prefix.rstrip("/"), names=names)
    document = {
        **_head(title, description, version=version, base_url=base_url),
        "paths": paths,
        "components": _components(),
    }
    return _inert(document)  # type: ignore[no-any-return]


def service(
    *,
    version: str,
    base_url: str,
    path: str,
    schema: _Object,
    table: Iterable[annotated.Endpoint] = (),
) -> _Object:
    """Describe one notebook; `schema` is the JSON Schema of its parameters, `table` has its endpoints."""
    needs_body = bool(schema.get("required"))
    components = _components()
    components["schemas"]["Parameters"] = schema
    components["schemas"]["ServiceRequest"] = _request_schema(
        {"parameters": {"$ref": "#/components/schemas/Parameters"}},
        required=["parameters"] if needs_body else [],
    )
    request = {"$ref": "#/components/schemas/ServiceRequest"}
    document = {
        **_head(path, f"Run the notebook {path} by HTTP.", version=version, base_url=base_url),
        "paths": {
            f"{_ROOT}/{quote(path)}": {
                "get": _describe("describe"),
                "post": _run(
                    "run",
                    f"Run {path}",
                    request,
                    needs_body=needs_body,
                    example=None if needs_body else {"parameters": _defaults(schema)},
                ),
            },
            **endpoint_documents.paths(table, prefix=f"{_ROOT}/{quote(path)}", names={"describe", "run"}),
        },
        "components": components,
    }
    return _inert(document)  # type: ignore[no-any-return]


def inert(description: str) -> str:
    """Let a description, which is shown as Markdown, load nothing: images become links, and HTML text."""
    return _HTML.sub("&lt;", _IMAGE.sub("", description))


def _inert(document: Any) -> Any:
    """A document whose descriptions load nothing; a notebook may have written them."""
    if isinstance(document, list):
        return [_inert(each) for each in document]
    if not isinstance(document, dict):
        return document
    made: _Object = {}
    for key, value in document.items():
        if key == "description" and isinstance(value, str):
            made[key] = inert(value)
        elif key in _NAMED and isinstance(value, dict):
            made[key] = {name: _inert(each) for name, each in value.items()}
        else:
            made[key] = value if key in _VALUES else _inert(value)
    return made


def _defaults(schema: _Object) -> _Object:
    """The values that parameters have where nothing is said."""
    described = schema.get("properties", {})
    return {name: each["default"] for name, each in described.items() if "default" in each}


def _head(title: str, description: str, *, version: str, base_url: str) -> _Object:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "description": description,
            "version": version,
            "license": {"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"},
        },
        "servers": [{"url": base_url.rstrip("/") or "/"}],
        "security": [{"token": []}, {"queryToken": []}, {"cookie": [], "xsrf": []}],
    }


# Operations


def _path_parameter() -> _Object:
    return {
        "name": "path",
        "in": "path",
        "required": True,
        "description": "The notebook's contents path; its slashes are left as they are.",
        "schema": {"type": "string"},
        "example": "reports/sales.ipynb",
    }


def _run(
    operation: str,
    summary: str,
    request: _Object,
    *,
    needs_body: bool = False,
    example: _Object | None = None,
) -> _Object:
    body = {"schema": request, **({} if example is None else {"example": example})}
    schema = {"$ref": "#/components/schemas/Run"}
    timing = {"description": "queue, kernel, run, total", "schema": {"type": "string"}}
    succeeded = {
        "description": "The run has `succeeded`, in the shape that `Accept` asks for; `*/*` means the run.",
        "headers": {"Server-Timing": timing},
        "content": {
            "application/json": {"schema": schema},
            "application/x-ipynb+json": {"schema": {"type": "object"}},
            "text/html": {"schema": {"type": "string"}},
            "text/event-stream": {},
            "*/*": {},
        },
    }
    accepted = {
        "description": "The run is stored and goes on; see `Location`.",
        "headers": {
            "Location": {"schema": {"type": "string"}},
            "Preference-Applied": {"schema": {"type": "string"}},
        },
        "content": {"application/json": {"schema": schema}},
    }
    return {
        "operationId": operation,
        "tags": [_NOTEBOOKS],
        "summary": summary,
        "description": "Answers when the run has ended. A client that hangs up cancels it, unless it sent "
        "`Prefer` or an `Idempotency-Key`.",
        "parameters": [_PREFER, _KEY],
        "requestBody": {"required": needs_body, "content": {"application/json": body}},
        "responses": {"200": succeeded, "202": accepted, **_refusals(), **dict(_failures())},
    }


def _describe(operation: str) -> _Object:
    schema = {"$ref": "#/components/schemas/Description"}
    found = {"description": "What it takes.", "content": {"application/json": {"schema": schema}}}
    return {
        "operationId": operation,
        "tags": [_NOTEBOOKS],
        "summary": "Describe the notebook: its parameters, their JSON Schema, its kernel",
        "responses": {"200": found, **_refusals("403", "404", "405", "422", "500", "503")},
    }


def _get_document() -> _Object:
    path = _query("path", "Describe this notebook alone, with typed parameters.", {"type": "string"})
    found = {"description": "OpenAPI 3.1.", "content": {"application/json": {"schema": {"type": "object"}}}}
    return {
        "operationId": "openapi",
        "tags": [_SERVICE],
        "summary": "This document",
        "parameters": [path],
        "responses": {"200": found, **_refusals("403", "404", "405", "422", "500", "503")},
    }


def _get_docs() -> _Object:
    path = _query("path", "Show this notebook alone.", {"type": "string"})
    page = {"description": "HTML.", "content": {"text/html": {"schema": {"type": "string"}}}}
    login = {
        "description": "A browser that is not authenticated is sent to the login.",
        "headers": {"Location": {"schema": {"type": "string"}}},
    }
    return {
        "operationId": "docs",
        "tags": [_SERVICE],
        "summary": "A page to try all of this in",
        "parameters": [path],
        "responses": {"200": page, "302": login, **_refusals("403", "405", "500")},
    }


def _runs_paths() -> _Object:
    run = {"application/json": {"schema": {"$ref": "#/components/schemas/Run"}}}
    shapes: _Object = {**run, "text/html": {"schema": {"type": "string"}}, "text/event-stream": {}}
    events: _Object = {"text/event-stream": {}}
    notebook = {"application/x-ipynb+json": {"schema": {"type": "object"}}, "text/html": shapes["text/html"]}
    listed = {"application/json": {"schema": {"$ref": "#/components/schemas/RunList"}}}
    wait = _query("wait", "Seconds to wait for its end.", {"type": "number", "minimum": 0, "maximum": 60})
    one = [_RUN_ID]
    return {
        f"{_ROOT}/runs": {
            "get": _read("listRuns", "List runs, newest first, without outputs", listed, "400", *_LIST_QUERY)
        },
        f"{_ROOT}/runs/{{run_id}}": {
            "parameters": one,
            "get": _read("getRun", "Read a run", {**shapes, "*/*": {}}, "400 406", wait),
            "delete": {
                "operationId": "deleteRun",
                "tags": [_RUNS],
                "summary": "Forget a run; one that has not ended is cancelled first",
                "responses": {"204": {"description": "It is gone."}, **_refusals("403", "404", "405", "503")},
            },
        },
        f"{_ROOT}/runs/{{run_id}}/cancel": {
            "parameters": one,
            "post": {
                "operationId": "cancelRun",
                "tags": [_RUNS],
                "summary": "Cancel a run",
                "responses": {
                    "202": {"description": "It will end as `cancelled`.", "content": run},
                    **_refusals("400", "403", "404", "409", "503"),
                },
            },
        },
        f"{_ROOT}/runs/{{run_id}}/events": {
            "parameters": one,
            "get": _read("followRun", "Follow a run by its events", events, "400", _LAST_EVENT_ID),
        },
        f"{_ROOT}/runs/{{run_id}}/notebook": {
            "parameters": one,
            "get": _read("getNotebook", "Read the notebook as far as it has been executed", notebook, "406"),
        },
        f"{_ROOT}/runs/prune": {
            "post": {
                "operationId": "pruneRuns",
                "tags": [_RUNS],
                "summary": "Forget the runs that the retention settings do not keep, now",
                "responses": {
                    "200": {
                        "description": "How many were forgotten.",
                        "content": {"application/json": {"schema": _PRUNED}},
                    },
                    **_refusals("400", "403", "503"),
                },
            }
        },
    }


def _read(operation: str, summary: str, content: _Object, refused: str, *parameters: _Object) -> _Object:
    return {
        "operationId": operation,
        "tags": [_RUNS],
        "summary": summary,
        "parameters": list(parameters),
        "responses": {
            "200": {"description": "As it is now.", "content": content},
            **_refusals(*refused.split(), "403", "404", "503"),
        },
    }


def _query(name: str, description: str, schema: _Object) -> _Object:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _refusals(*statuses: str) -> _Object:
    names = statuses or ("400", "403", "404", "405", "406", "413", "415", "422", "429")
    return {status: {"$ref": f"#/components/responses/Error{status}"} for status in names}


def _failures() -> Iterator[tuple[str, _Object]]:
    run = {"$ref": "#/components/schemas/Run"}
    for status, description in _RUN_STATUSES.items():
        codes = [*_codes(status), *(["internal_error"] if status == "500" else [])]
        schema = {"oneOf": [run, _error_schema(codes)]} if codes else run
        notebook: _Object = {"schema": {"type": "object"}}
        content = {"application/json": {"schema": schema}, "application/x-ipynb+json": notebook}
        yield status, {"description": description, "content": content}


# Components


def _components() -> _Object:
    return {
        "securitySchemes": {
            "token": {
                "type": "apiKey",
                "in": "header",
                "name": "Authorization",
                "description": "The word `token`, a space, and the server's token; `Bearer` works as well.",
            },
            "queryToken": {"type": "apiKey", "in": "query", "name": "token"},
            "cookie": {
                "type": "apiKey",
                "in": "cookie",
                "name": "username-host-port",
                "description": "Jupyter's login cookie, whose name holds the server's host and port.",
            },
            "xsrf": {"type": "apiKey", "in": "header", "name": "X-XSRFToken"},
        },
        "responses": {
            **{f"Error{status}": _error_response(status) for status in _error_statuses()},
            **endpoint_documents.responses(),
        },
        "schemas": {
            "RunRequest": _request_schema({}),
            "SentRunRequest": _request_schema({"notebook": _NOTEBOOK}, required=["notebook"]),
            "Run": _RUN,
            "RunBrief": _BRIEF,
            "RunList": _RUN_LIST,
            "RunError": _RUN_ERROR,
            "Output": _OUTPUT,
            "Description": _DESCRIPTION,
            "Error": _ERROR,
        },
    }


def _error_classes(
    parent: type[errors.NbexecError] = errors.NbexecError,
) -> Iterator[type[errors.NbexecError]]:
    """What is answered instead of a run; calls of endpoints fail in ways of their own."""
    for child in parent.__subclasses__():
        if child is errors.CallError:
            continue
        if "code" in vars(child):
            yield child
        yield from _error_classes(child)


def _codes(status: str) -> list[str]:
    return sorted({each.code for each in _error_classes() if str(int(each.status)) == status})


def _error_statuses() -> list[str]:
    return sorted({"403", "500"} | {str(int(each.status)) for each in _error_classes()})


def _error_response(status: str) -> _Object:
    codes = ["internal_error"] if status == "500" else _codes(status)
    listed = ", ".join(f"`{code}`" for code in codes)
    description = f"Refused: {listed}." if listed else "Not authenticated, no XSRF token, or not authorized."
    response: _Object = {
        "description": description,
        "content": {"application/json": {"schema": _error_schema(codes)}},
    }
    if status == "429":
        retry = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
        response["headers"] = {"Retry-After": retry}
    if status == "405":
        response["headers"] = {"Allow": {"schema": {"type": "string"}}}
    return response


def _error_schema(codes: list[str]) -> _Object:
    error: _Object = {"$ref": "#/components/schemas/Error"}
    return {"allOf": [error, {"properties": {"code": {"enum": codes}}}]} if codes else error


def _request_schema(replaced: _Object, *, required: list[str] | None = None) -> _Object:
    with_live_kernel = {"properties": {"kernel_name": False, "env": {"maxProperties": 0}}}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {**_REQUEST_FIELDS, **replaced},
        "required": required or [],
        "dependentSchemas": {"kernel_id": with_live_kernel},
    }


def _nullable(kind: str, **more: Any) -> _Object:
    return {"type": [kind, "null"], **more}


_TIME: Final = _nullable("string", format="date-time")
_SECONDS: Final = {"type": "number", "exclusiveMinimum": 0}
_CELL: Final = {
    "cell": _nullable("integer", description="Index of the cell in the stored notebook."),
    "cell_id": _nullable("string", description="Its id there, if it has one."),
}
#: The smallest notebook that has a result.
_ONE_CELL: Final = {
    "nbformat": 4,
    "nbformat_minor": 4,
    "metadata": {},
    "cells": [
        {"cell_type": "code", "source": "1 + 1", "metadata": {}, "outputs": [], "execution_count": None}
    ],
}
_NOTEBOOK: Final = {"type": "object", "description": "A notebook of nbformat 4.", "required": ["cells"]}

_REQUEST_FIELDS: Final[_Object] = {
    "parameters": {"type": "object", "default": {}, "description": "Values for the notebook's parameters."},
    "kernel_name": {
        "type": "string",
        "pattern": r"^[^\x00-\x1f]+$",
        "description": "Which kernelspec to start; by default the notebook's own, else the server's default.",
    },
    "kernel_id": {
        "type": "string",
        "pattern": r"^[^\x00-\x1f]+$",
        "description": "Run on this live kernel of the server, which is left alive.",
    },
    "timeout": {**_SECONDS, "description": "Seconds that the run may take once it has started."},
    "cell_timeout": {**_SECONDS, "description": "Seconds that any one cell may take."},
    "allow_errors": {"type": "boolean", "default": False, "description": "Go on after a cell that raises."},
    "outputs": {
        "description": "Which cells' outputs the answer carries.",
        "default": "all",
        "oneOf": [
            {"enum": ["all", "last", "none"]},
            {
                "type": "object",
                "properties": {"tags": {"type": "array", "items": {"type": "string"}}},
                "required": ["tags"],
                "additionalProperties": False,
            },
        ],
    },
    "env": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "propertyNames": {"pattern": "^[^=]+$"},
        "default": {},
        "writeOnly": True,
        "description": "Environment variables of the kernel, secrets too: never stored, logged or echoed.",
    },
    "webhook": {
        "type": "object",
        "description": "Whom to tell when the run has ended; the administrator allows hosts.",
        "properties": {
            "url": {"type": "string", "format": "uri"},
            "events": {"const": ["ended"]},
            "secret": {"type": "string", "writeOnly": True, "description": "`whsec_` and base64."},
        },
        "required": ["url"],
        "additionalProperties": False,
    },
    "save_as": {
        "type": "string",
        "pattern": r"\.ipynb$",
        "description": "Contents path to save the executed notebook under; {run_id} and {name} are replaced.",
    },
}

_OUTPUT: Final[_Object] = {
    "type": "object",
    "description": "An output as nbformat has it, and the cell it is from.",
    "properties": {
        **_CELL,
        "output_type": {"enum": ["stream", "display_data", "execute_result", "error"]},
        "execution_count": _nullable("integer"),
        "data": {"type": "object", "description": "By MIME type."},
        "metadata": {"type": "object"},
        "name": {"enum": ["stdout", "stderr"]},
        "text": {"type": "string"},
        "ename": {"type": "string"},
        "evalue": {"type": "string"},
        "traceback": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["cell", "cell_id", "output_type"],
}

_RUN_ERROR: Final[_Object] = {
    "type": "object",
    "properties": {
        "code": {"enum": [code.value for code in models.ErrorCode]},
        "message": {"type": "string"},
        "ename": _nullable("string"),
        "evalue": _nullable("string"),
        "traceback": {"type": "array", "items": {"type": "string"}},
        **_CELL,
    },
    "required": ["code", "message", "ename", "evalue", "traceback", "cell", "cell_id"],
}

_RUN: Final[_Object] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "path": _nullable("string"),
        "status": {"enum": [status.value for status in models.RunStatus]},
        "created": {"type": "string", "format": "date-time"},
        "started": _TIME,
        "ended": _TIME,
        "duration": _nullable("number", description="Seconds."),
        "parameters": {"type": "object"},
        "user": _nullable("string", description="The name of who asked for it, where they have one."),
        "kernel": {
            "type": ["object", "null"],
            "properties": {
                "name": {"type": "string"},
                "id": _nullable("string"),
                "source": _nullable("string"),
            },
            "required": ["name", "id", "source"],
        },
        "progress": {
            "type": "object",
            "properties": {
                "done": {"type": "integer"},
                "total": {"type": "integer"},
                "cell": _nullable("integer"),
            },
            "required": ["done", "total", "cell"],
        },
        "result": {"description": "The value of the last code cell's last expression."},
        "result_type": {"enum": ["application/json", "text/plain", None]},
        "scraps": {"type": "object", "description": "Values glued by scrapbook's contract."},
        "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/Output"}},
        "truncated": {"type": "boolean", "description": "Outputs past the server's limits were left out."},
        "saved_as": _nullable("string"),
        "warnings": {"type": "array", "items": {"type": "string"}},
        "webhook": _nullable("object", description="How far the message about its end has come."),
        "error": {"oneOf": [{"$ref": "#/components/schemas/RunError"}, {"type": "null"}]},
        "links": {"type": "object", "additionalProperties": _nullable("string")},
    },
    "required": [
        "id",
        "path",
        "status",
        "created",
        "started",
        "ended",
        "duration",
        "parameters",
        "kernel",
        "progress",
        "result",
        "result_type",
        "scraps",
        "outputs",
        "truncated",
        "error",
        "links",
    ],
}

_OF_OUTPUTS: Final = ("outputs", "scraps")
_BRIEF: Final[_Object] = {
    "type": "object",
    "description": "A run without its outputs.",
    "properties": {name: each for name, each in _RUN["properties"].items() if name not in _OF_OUTPUTS},
    "required": [name for name in _RUN["required"] if name not in _OF_OUTPUTS],
}
_RUN_LIST: Final[_Object] = {
    "type": "object",
    "properties": {
        "runs": {"type": "array", "items": {"$ref": "#/components/schemas/RunBrief"}},
        "cursor": _nullable("string", description="Where the next page begins; null on the last."),
    },
    "required": ["runs", "cursor"],
}

_DESCRIPTION: Final[_Object] = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "kernel": {
            "type": "object",
            "properties": {
                "name": _nullable("string"),
                "language": _nullable("string"),
                "available": {"type": "boolean"},
            },
            "required": ["name", "language", "available"],
        },
        "parameters": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "type": {"type": "string"},
                    "default": {},
                    "default_source": {"type": "string", "description": "Of a default that is no literal."},
                    "required": {"type": "boolean"},
                    "description": {"type": "string"},
                },
                "required": ["name", "type", "default", "required", "description"],
            },
        },
        "schema": {"type": "object", "description": "One JSON Schema (2020-12) for all parameters."},
        "endpoints": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "method": {"type": "string"},
                    "path": {"type": "string", "description": "As annotated, with `:name` for parameters."},
                    "description": {"type": "string"},
                    "cells": {"type": "array", "items": {"type": "integer"}},
                    "response_cells": {"type": "array", "items": {"type": "integer"}},
                    "parameters": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"name": {"type": "string"}, "in": {"const": "path"}},
                            "required": ["name", "in"],
                        },
                    },
                },
                "required": ["method", "path", "description", "cells", "response_cells", "parameters"],
            },
        },
        "last_modified": _TIME,
        "links": {"type": "object", "additionalProperties": _nullable("string")},
    },
    "required": ["path", "kernel", "parameters", "schema", "endpoints", "last_modified", "links"],
}

_ERROR: Final[_Object] = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "For a person."},
        "reason": _nullable("string"),
        "code": {"type": "string", "description": "For a program."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "field": {"type": "string"},
                    "parameter": {"type": "string"},
                    "message": {"type": "string"},
                },
                "required": ["message"],
            },
        },
    },
    "required": ["message", "reason", "code"],
}

_HEADER_TEXT: Final = {"type": "string"}
_PREFER: Final[_Object] = {
    "name": "Prefer",
    "in": "header",
    "description": "`respond-async`: answer at once; `wait=N`: answer within N seconds (RFC 7240).",
    "schema": _HEADER_TEXT,
}
_KEY: Final[_Object] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key with the same request gives the same run, and never a second execution.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_LAST_EVENT_ID: Final[_Object] = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "Go on after this event.",
    "schema": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
}
_RUN_ID: Final[_Object] = {
    "name": "run_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "format": "uuid"},
}
_LIST_QUERY: Final = (
    _query("path", "Only runs of this notebook.", {"type": "string"}),
    _query("status", "Only runs that stand here.", {"enum": [status.value for status in models.RunStatus]}),
    _query("limit", "Runs on a page.", {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}),
    _query("cursor", "Where the page begins: `cursor` of the page before.", {"type": "string"}),
)
_PRUNED: Final = {"type": "object", "properties": {"deleted": {"type": "integer"}}, "required": ["deleted"]}
