"""Endpoints are described in OpenAPI, valid whatever the annotations are."""

from __future__ import annotations

from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from jupyter_nbexec import errors, openapi
from jupyter_nbexec.endpoints import annotated, document

from .test_annotated import parse

TABLE = parse(
    "md:## All contacts\nEvery one.",
    "# GET /contacts",
    "# GET /contacts/:id",
    "# PUT /contacts/:number",
    "# ResponseInfo PUT /contacts/:number",
    "# POST /with space/{braces}/:a-:b",
    "# GET /contacts_id/",
    "# GET /contacts/id",
    "# DELETE /",
    "# PATCH /ü",
)


def service(table: annotated.Table = TABLE) -> dict[str, Any]:
    """Describe endpoints alone."""
    return openapi.endpoints(
        {"": table, "/other": table}, title="t", description="d", version="1", base_url="/base/"
    )


def test_is_valid() -> None:
    """The document is OpenAPI 3.1, and each operation has a name of its own."""
    described = service()
    OpenAPIV31SpecValidator(described).validate()
    names = [
        item[verb]["operationId"]
        for item in described["paths"].values()
        for verb in item
        if verb != "parameters"
    ]

    assert len(names) == len(set(names)) == 2 * len(list(TABLE))


def test_paths() -> None:
    """Paths are templates; those that differ only in the names of parameters are one."""
    paths = service()["paths"]

    assert paths.keys() == {
        f"{prefix}{path}"
        for prefix in ("", "/other")
        for path in (
            *("/contacts", "/contacts/{id}", "/with%20space/%7Bbraces%7D/{a}-{b}", "/contacts_id/"),
            *("/contacts/id", "/", "/%C3%BC"),
        )
    }
    assert paths["/contacts/{id}"].keys() == {"parameters", "get", "put"}
    assert [each["name"] for each in paths["/with%20space/%7Bbraces%7D/{a}-{b}"]["parameters"]] == ["a", "b"]


def test_operations() -> None:
    """An operation says what the notebook does of it, what it takes, and what may be answered."""
    paths = service()["paths"]
    listing, storing = paths["/contacts"]["get"], paths["/contacts/{id}"]["put"]

    assert (listing["summary"], listing["description"]) == ("All contacts", "## All contacts\nEvery one.")
    assert storing["summary"] == "PUT /contacts/:number"
    assert "requestBody" in storing
    assert "requestBody" not in listing
    assert "default" in storing["responses"]
    assert "default" not in listing["responses"]
    assert listing["responses"].keys() >= {"200", "404", "429", "500", "502", "504"}


@pytest.mark.parametrize("kind", errors.CallError.__subclasses__())
def test_every_failure_is_listed(kind: type[errors.NbexecError]) -> None:
    """All ways in which a call fails are in the document, under their status."""
    described = service()["components"]["responses"][f"Call{int(kind.status)}"]
    schema = described["content"]["application/json"]["schema"]

    assert kind.code in schema["allOf"][1]["properties"]["code"]["enum"]
    assert str(int(kind.status)) in document.FAILURES
