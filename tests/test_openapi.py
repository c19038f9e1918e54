"""The OpenAPI documents are valid, and say what the code does."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timezone
from typing import Any

import jsonschema
import nbformat
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from jupyter_nbexec import documents, errors, handlers, models, openapi, requests
from jupyter_nbexec.endpoints import annotated

DOCUMENT = openapi.document(version="1.2.3", base_url="/user/me/")
PARAMETERS = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"rows": {"type": "integer", "minimum": 1}, "region": {"type": "string", "default": "EU"}},
    "required": ["rows"],
    "additionalProperties": False,
}
RUN_ID = "0e3b2f6c-5a5c-4f0e-9c8e-0a2a0c1f2b3d"
SERVICE = openapi.service(version="1.2.3", base_url="/", path="a b/ü #{x}.ipynb", schema=PARAMETERS)


def is_valid(document: dict[str, Any], name: str, instance: Any) -> bool:
    """Whether a value fits one of the document's schemas."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return jsonschema.Draft202012Validator(schema).is_valid(instance)


@pytest.mark.parametrize("document", [DOCUMENT, SERVICE], ids=["document", "service"])
def test_is_valid(document: dict[str, Any]) -> None:
    """The documents are OpenAPI 3.1, and JSON."""
    OpenAPIV31SpecValidator(document).validate()
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_paths_and_server() -> None:
    """Paths are below the base URL."""
    assert DOCUMENT["servers"] == [{"url": "/user/me"}]
    assert SERVICE["servers"] == [{"url": "/"}]
    run = "/api/nbexec/runs/{run_id}"
    assert set(DOCUMENT["paths"]) == {
        *("/api/nbexec/{path}", "/api/nbexec", "/api/nbexec/openapi.json", "/api/nbexec/docs"),
        *("/api/nbexec/runs", "/api/nbexec/runs/prune"),
        *(run, f"{run}/cancel", f"{run}/events", f"{run}/notebook"),
        "/api/nbexec/{path}/{endpoint}",
    }
    assert list(SERVICE["paths"]) == ["/api/nbexec/a%20b/%C3%BC%20%23%7Bx%7D.ipynb"]


def _documented(handler: type[Any]) -> set[str]:
    """The verbs of a handler that a document has: OPTIONS and HEAD are said by HTTP itself."""
    verbs = ("get", "post", "put", "patch", "delete")
    return {verb for verb in verbs if getattr(handler, verb).__name__ != "_unimplemented_method"}


def test_every_route_is_described() -> None:
    """The document has the routes and verbs that there are, no more and no fewer."""
    described = {
        path: set(operations) & {"get", "post", "put", "patch", "delete"}
        for path, operations in DOCUMENT["paths"].items()
    }
    existing = {}
    for pattern, handler in handlers.ROUTES:
        path = pattern.replace(handlers._RUN, "/api/nbexec/runs/{run_id}").replace("(?P<path>.*)", "{path}")
        path = path.replace(r"(?P<path>.+?\.ipynb)/(?P<endpoint>.*)", "{path}/{endpoint}")
        existing[path.replace("\\.", ".")] = _documented(handler)
    assert described == existing


def test_operations_have_names_of_their_own() -> None:
    """Generators of clients make functions of these."""
    names = [
        operation["operationId"]
        for operations in DOCUMENT["paths"].values()
        for verb, operation in operations.items()
        if verb != "parameters"
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("document", [DOCUMENT, SERVICE], ids=["document", "service"])
def test_operations_have_headings(document: dict[str, Any]) -> None:
    """Every operation stands under a heading that there is."""
    for operations in document["paths"].values():
        for verb in operations.keys() - {"parameters"}:
            (tag,) = operations[verb]["tags"]
            assert tag in {"Notebooks", "Endpoints", "Runs", "This service"}


def test_examples_fit() -> None:
    """What the page has filled in fits what is said of bodies, and can be sent as it is."""
    optional = {**PARAMETERS, "required": []}
    service = openapi.service(version="1", base_url="/", path="a.ipynb", schema=optional)
    for document, path, name in (
        (DOCUMENT, "/api/nbexec/{path}", "RunRequest"),
        (DOCUMENT, "/api/nbexec", "SentRunRequest"),
        (service, "/api/nbexec/a.ipynb", "ServiceRequest"),
    ):
        example = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert is_valid(document, name, example)
        requests.parse_run_request(example, path=None if "notebook" in example else "a.ipynb", max_timeout=0)
    assert example == {"parameters": {"region": "EU"}}
    needed = SERVICE["paths"]["/api/nbexec/a%20b/%C3%BC%20%23%7Bx%7D.ipynb"]["post"]["requestBody"]
    assert "example" not in needed["content"]["application/json"]


def test_documents_are_independent() -> None:
    """Describing one notebook leaves no trace in other documents."""
    assert "Parameters" not in openapi.document(version="1", base_url="/")["components"]["schemas"]


def test_every_code_is_listed() -> None:
    """All errors that can be answered are in the document, under their status."""
    for error in openapi._error_classes():
        response = DOCUMENT["components"]["responses"][f"Error{int(error.status)}"]
        schema = response["content"]["application/json"]["schema"]
        assert error.code in schema["allOf"][1]["properties"]["code"]["enum"]
    assert errors.QueueFull in set(openapi._error_classes())


@pytest.mark.parametrize("path", ["/api/nbexec/{path}", "/api/nbexec"])
def test_statuses_of_a_run(path: str) -> None:
    """Every status that a run can be answered with is described."""
    responses = DOCUMENT["paths"][path]["post"]["responses"]
    refused = ["400", "403", "404", "405", "406", "413", "415", "422", "429"]
    ended = ["200", "202", "409", "500", "502", "503", "504"]
    assert sorted(responses) == sorted(refused + ended)


BODIES = [
    {},
    {"parameters": {"x": 1}},
    {"parameters": []},
    {"kernel_name": "python3"},
    {"kernel_name": ""},
    {"kernel_name": "a/b"},
    {"kernel_id": "x", "kernel_name": "y"},
    {"kernel_id": "x", "env": {}},
    {"kernel_id": "x", "env": {"A": "1"}},
    {"timeout": 1},
    {"timeout": 0},
    {"timeout": "1"},
    {"timeout": True},
    {"cell_timeout": 0.5},
    {"cell_timeout": -1},
    {"allow_errors": True},
    {"allow_errors": None},
    {"outputs": "all"},
    {"outputs": "some"},
    {"outputs": {"tags": ["a"]}},
    {"outputs": {"tags": [1]}},
    {"outputs": {}},
    {"env": {"A": "1"}},
    {"env": {"A": 1}},
    {"env": {"A=B": "1"}},
    {"env": {"": "1"}},
    {"save_as": "a.ipynb"},
    {"save_as": "a.txt"},
    {"webhook": {"url": "https://x.example"}},
    {"webhook": {"url": "https://x.example", "events": ["ended"], "secret": "s"}},
    {"webhook": {"url": "https://x.example", "events": []}},
    {"webhook": {"url": "https://x.example", "nope": 1}},
    {"webhook": {"url": 1}},
    {"webhook": {}},
    {"webhook": "https://x.example"},
    {"unknown": 1},
    {"notebook": {"cells": []}},
    [],
    None,
]


@pytest.mark.parametrize("body", BODIES, ids=json.dumps)
def test_request_schema_agrees_with_the_parser(body: Any) -> None:
    """A body fits the schema exactly where the parser takes it."""
    try:
        requests.parse_run_request(body, path="a.ipynb", max_timeout=100)
    except errors.InvalidRequest:
        assert not is_valid(DOCUMENT, "RunRequest", body)
    else:
        assert is_valid(DOCUMENT, "RunRequest", body)


def test_request_with_notebook() -> None:
    """A notebook that is sent is required, and only there allowed."""
    assert is_valid(DOCUMENT, "SentRunRequest", {"notebook": {"cells": []}})
    assert not is_valid(DOCUMENT, "SentRunRequest", {})


def test_every_field_is_described() -> None:
    """The schema has the fields of a request, no more and no fewer."""
    known = {field.name for field in dataclasses.fields(models.RunRequest)} - {"path", "caller"}
    assert set(DOCUMENT["components"]["schemas"]["SentRunRequest"]["properties"]) == known


def test_descriptions_load_nothing() -> None:
    """What notebooks say of themselves is Markdown without images and HTML; values stay as they are."""
    bad, good = (
        "Is 1 < 2? !![x](/y) ![x][y] <img src=y> a<b <!-- -->",
        "Is 1 < 2? [x](/y) [x][y] &lt;img src=y>",
    )
    good += " a&lt;b &lt;!-- -->"
    own = {"type": "object", "description": bad, "default": {"description": bad}}
    named = {"description": own, "default": own, "x": {"anyOf": [own]}}
    schema = {"type": "object", "properties": named, "additionalProperties": False}
    cells = [nbformat.v4.new_markdown_cell(bad), nbformat.v4.new_code_cell("# GET /x\nprint(1)")]
    table = annotated.parse(cells, [None, None], "#")
    path = "![x](y) <b>.ipynb"
    document = openapi.service(version="1", base_url="/", path=path, schema=schema, table=table)

    parameters = document["components"]["schemas"]["Parameters"]["properties"]
    for each in (parameters["description"], parameters["default"], parameters["x"]["anyOf"][0]):
        assert each == {**own, "description": good}
    found = [item["get"].get("description") for item in document["paths"].values()]
    assert found == [None, good]
    assert document["info"]["description"] == "Run the notebook [x](y) &lt;b>.ipynb by HTTP."
    alone = openapi.endpoints({"": table}, title="t", description=bad, version="1", base_url="/")
    assert (alone["info"]["description"], alone["paths"]["/x"]["get"]["description"]) == (good, good)


def test_typed_parameters() -> None:
    """A service's parameters are checked by the notebook's own schema."""
    assert is_valid(SERVICE, "ServiceRequest", {"parameters": {"rows": 5}})
    assert not is_valid(SERVICE, "ServiceRequest", {"parameters": {"rows": 0}})
    assert not is_valid(SERVICE, "ServiceRequest", {})
    (operations,) = SERVICE["paths"].values()
    assert operations["post"]["requestBody"]["required"] is True


def test_service_without_required_parameters() -> None:
    """Where all parameters have defaults, nothing needs to be sent."""
    described = openapi.service(version="1", base_url="/", path="a.ipynb", schema={"type": "object"})
    assert is_valid(described, "ServiceRequest", {})
    assert described["paths"]["/api/nbexec/a.ipynb"]["post"]["requestBody"]["required"] is False


def test_run_schema() -> None:
    """The contract's example of a run fits, and so does a failed one."""
    error = models.RunError(code=models.ErrorCode.TIMEOUT, message="x").to_json()
    run = {
        "id": RUN_ID,
        "path": "reports/sales.ipynb",
        "status": "succeeded",
        "created": "2026-11-20T10:00:00.000Z",
        "started": None,
        "ended": None,
        "duration": 0.042,
        "parameters": {"region": "EU"},
        "kernel": models.KernelInfo(name="python3").to_json(),
        "progress": models.Progress().to_json(),
        "result": 15,
        "result_type": "application/json",
        "scraps": {"rows": 1042},
        "outputs": [{"cell": 4, "cell_id": None, "output_type": "stream", "name": "stdout", "text": "x"}],
        "truncated": False,
        "error": None,
        "links": {"self": None},
    }
    assert is_valid(DOCUMENT, "Run", run)
    assert is_valid(DOCUMENT, "Run", {**run, "status": "failed", "error": error, "kernel": None})
    assert not is_valid(DOCUMENT, "Run", {**run, "status": "done"})


MOMENT = datetime(2026, 11, 20, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "record",
    [
        models.RunRecord(id=RUN_ID, created=MOMENT, request=models.RunRequest(), kernel_name="python3"),
        models.RunRecord(
            id=RUN_ID,
            created=MOMENT,
            started=MOMENT,
            ended=MOMENT,
            request=models.RunRequest(path="a.ipynb", parameters={"x": 1}),
            kernel_name="python3",
            kernel=models.KernelInfo(name="python3", id="k", source="cold"),
            status=models.RunStatus.FAILED,
            error=models.RunError(code=models.ErrorCode.SERVER_STOPPED, message="x"),
            delivery=models.Delivery(run_id=RUN_ID, url="https://x.example/"),
        ),
    ],
    ids=["queued", "failed"],
)
def test_runs_fit_their_schemas(record: models.RunRecord) -> None:
    """What is written of a run, with outputs and without, and as a page, is what the document says."""
    brief = documents.brief(record, service="/api/nbexec")
    complete = documents.complete(record, None, (), service="/api/nbexec")
    assert is_valid(DOCUMENT, "Run", complete)
    assert is_valid(DOCUMENT, "RunBrief", brief)
    assert is_valid(DOCUMENT, "RunList", {"runs": [brief], "cursor": None})
    assert not is_valid(DOCUMENT, "RunList", {"runs": []})
    described = DOCUMENT["components"]["schemas"]
    assert set(complete) == set(described["Run"]["properties"])
    assert set(brief) == set(described["RunBrief"]["properties"])


def test_description_schema() -> None:
    """A parameter is described as the model writes it."""
    parameter = models.Parameter(name="x", type="integer", schema={"type": "integer"}, default_source="f()")
    description = {
        "path": "a.ipynb",
        "kernel": {"name": "python3", "language": "python", "available": True},
        "parameters": [parameter.to_json()],
        "schema": {},
        "endpoints": [],
        "last_modified": None,
        "links": {"run": "/api/nbexec/a.ipynb", "runs": None},
    }
    assert is_valid(DOCUMENT, "Description", description)
