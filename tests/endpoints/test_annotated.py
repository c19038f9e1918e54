"""Annotations become routes, as in Kernel Gateway; what it could not read is read too."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_nbexec import errors, languages
from jupyter_nbexec.endpoints import annotated


def parse(*sources: str, sign: str = "#") -> annotated.Table:
    """Read cells; those that begin with `md:` are markdown."""
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "source": source.removeprefix("md:")}
        if source.startswith("md:")
        else {"cell_type": "code", "source": source}
        for source in sources
    ]
    return annotated.parse(cells, [f"id-{index}" for index in range(len(cells))], sign)


def listed(table: annotated.Table) -> list[tuple[str, str]]:
    """Methods and paths in the order in which they are tried."""
    return [(endpoint.method, endpoint.path) for endpoint in table]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("# GET /a", [("GET", "/a")]),
        ("#  PUT\t/a/:b  \nx", [("PUT", "/a/:b")]),
        ("# POST /", [("POST", "/")]),
        ("# DELETE /a/", [("DELETE", "/a/")]),
        ("# PATCH /a b", [("PATCH", "/a b")]),
        ("# GET /a\r\nprint(1)", [("GET", "/a")]),
        ("#GET /a", []),
        ("# get /a", []),
        ("# HEAD /a", []),
        ("# GET a", []),
        ("# GETS /a", []),
        ("x = 1\n# GET /a", []),
        ("\n# GET /a", []),
        ("// GET /a", []),
        ("", []),
    ],
)
def test_what_is_an_annotation(source: str, expected: list[tuple[str, str]]) -> None:
    """The first line decides: comment sign, blank, verb in capitals, path."""
    assert listed(parse(source)) == expected


def test_seeds() -> None:
    """Code that is neither endpoint nor ResponseInfo makes ready; text is no code."""
    table = parse("a = 1", "md:text", "# GET /a", "# ResponseInfo GET /a", "# HEAD /a", "#GET /a")

    assert table.seeds == (0, 4, 5)


def test_cells_of_one_endpoint_are_joined() -> None:
    """Cells of the same verb and path are one, in their order; so are their ResponseInfo cells."""
    table = parse(
        "# GET /a\nx = 1", "seed", "# ResponseInfo GET /a\n1", "# GET /a\nx", "# ResponseInfo GET /a\n2"
    )
    (endpoint,) = table

    assert endpoint.body.source == "# GET /a\nx = 1\n# GET /a\nx\n"
    assert (endpoint.body.cells, endpoint.body.cell_ids) == ((0, 3), ("id-0", "id-3"))
    assert endpoint.info is not None
    assert endpoint.info.source == "# ResponseInfo GET /a\n1\n# ResponseInfo GET /a\n2\n"
    assert endpoint.info.cells == (2, 4)


def test_response_info_alone_is_nothing() -> None:
    """A ResponseInfo cell without its endpoint is neither an endpoint nor a seed."""
    table = parse("# ResponseInfo GET /a")

    assert not table
    assert table.seeds == ()


def test_order() -> None:
    """Constant paths come first; then the later the first parameter comes, the earlier a path is tried."""
    table = parse("# GET /:a", "# GET /a/:b", "# GET /a/b/:c", "# GET /a/b", "# GET /x", "# GET /a/:b/c")

    assert [path for _, path in listed(table)] == ["/a/b", "/x", "/a/b/:c", "/a/:b", "/a/:b/c", "/:a"]


@pytest.mark.parametrize(
    ("sent", "path", "parameters"),
    [
        ("/contacts", "/contacts", {}),
        ("/contacts/", "/contacts/", {}),
        ("/contacts/7", "/contacts/:id", {"id": "7"}),
        ("/contacts/a%2Fb%20c", "/contacts/:id", {"id": "a/b c"}),
        ("/contacts/%C3%BC", "/contacts/:id", {"id": "ü"}),
        ("/contacts/new", "/contacts/new", {}),
        ("/files/a.b.csv", "/files/:name.csv", {"name": "a.b"}),
        ("/at/12:30", "/at/12:30", {}),
        ("/with%20space/x", "/with space/:a", {"a": "x"}),
        ("/percent%20sign", "/percent%20sign", {}),
        ("/range/1-2", "/range/:from_-:to", {"from_": "1", "to": "2"}),
        ("/what%0Aever", "/:rest", {"rest": "what\never"}),
        ("/same/a~a", "/same/:x~:x", {"x": "a"}),
        ("/.*", "/.*", {}),
    ],
)
def test_matching(sent: str, path: str, parameters: dict[str, str]) -> None:
    """A path is matched segment by segment, once its percent-encoding is read."""
    annotations = {
        *("/contacts", "/contacts/", "/contacts/:id", "/contacts/new", "/files/:name.csv", "/at/12:30"),
        *("/with space/:a", "/percent%20sign", "/range/:from_-:to", "/:rest", "/.*"),
        "/same/:x~:x",
    }
    match = parse(*(f"# GET {each}" for each in sorted(annotations))).find("GET", sent)

    assert (match.endpoint.path, match.parameters) == (path, parameters)


def test_many_ways_to_read_a_path() -> None:
    """A path in which parameters could end in many places takes no longer than another."""
    table = parse("# GET /:year-:month-:day-:hour.csv")

    with pytest.raises(errors.EndpointNotFound):
        table.find("GET", "/" + "-" * 60_000)


@pytest.mark.parametrize("sent", ["/same/a~b"])
def test_one_name_has_one_value(sent: str) -> None:
    """A parameter that stands in a segment twice is the same both times."""
    with pytest.raises(errors.EndpointNotFound):
        parse("# GET /same/:x~:x").find("GET", sent)


@pytest.mark.parametrize("sent", ["/", "", "/a/", "/a/b/c", "/b//", "/contacts/"])
def test_no_endpoint(sent: str) -> None:
    """A parameter is not empty, and nothing but its own path is an endpoint's."""
    table = parse("# GET /a", "# GET /b/:c", "# GET /contacts/:id")

    with pytest.raises(errors.EndpointNotFound):
        table.find("GET", sent)


def test_other_verbs() -> None:
    """A path that takes other verbs says which; GET answers HEAD; a later route may have the verb."""
    table = parse("# GET /a", "# PUT /a", "# POST /:x", "# DELETE /b")

    assert table.find("HEAD", "/a").endpoint.method == "GET"
    assert table.find("POST", "/a").endpoint.path == "/:x"
    assert table.allowed("/a") == ("GET", "PUT", "POST", "HEAD", "OPTIONS")
    assert table.allowed("/b") == ("POST", "DELETE", "OPTIONS")
    with pytest.raises(errors.MethodNotAllowed) as refused:
        table.find("DELETE", "/a")
    assert refused.value.headers == {"Allow": "GET, PUT, POST, HEAD, OPTIONS"}


@pytest.mark.parametrize(
    ("sources", "description"),
    [
        (["md: # All contacts\nthere are", "# GET /a\n1"], "# All contacts\nthere are"),
        (["md:above", "seed", "# GET /a\n1"], ""),
        (["md:first", "md:second", "# GET /a\n1"], "second"),
        (['# GET /a\n"""All\n   of them."""\nprint(1)'], "All\nof them."),
        (['# GET /a\n"an answer"'], ""),
        (["# GET /a\n%time 1\n'x'"], ""),
        (["# GET /a", "md:of the second", "# GET /a\n1"], "of the second"),
        (["md:of the first", "# GET /a", "md:of the second", "# GET /a\n1"], "of the first"),
    ],
)
def test_description(sources: list[str], description: str) -> None:
    """An endpoint is described by the text above its cell, or that at its beginning."""
    assert [each.description for each in parse(*sources)] == [description]


SWAGGER = """md:Our service:
```json
{"swagger": "2.0", "paths": {
  "/contacts": {"get": {"operationId": "list", "summary": "All."}, "post": {"operationId": "add"}},
  "/contacts/{id}": {"PUT": {"operationId": "change", "parameters": [{"name": "id", "in": "path"}]}},
  "nowhere": {"get": {"operationId": "lost"}}, "": {"get": {"operationId": "lost"}},
  "/people": {"DELETE": {"operationId": "drop", "parameters": [{"name": "id"}, {"name": "q", "in": "query"}]}}
}}
```"""


def test_operations() -> None:
    """Cells that name operations of a Swagger document in the notebook are those, as in Kernel Gateway."""
    table = parse(
        SWAGGER,
        "# operationId: list\n1",
        "#operationId:add  \n2",
        "# ResponseInfo operationId: add",
        "# operationId: change",
        "# operationId: drop",
        "# operationId: unknown",
        "seed",
        "# operationId: lost",
        "# PATCH /x",
    )

    assert listed(table) == [
        *(("GET", "/contacts"), ("POST", "/contacts"), ("PATCH", "/x")),
        *(("PUT", "/contacts/:id"), ("DELETE", "/people/:id")),
    ]
    assert table.seeds == (7,)
    first, second, *_ = table
    assert (first.description, first.info) == ("All.", None)
    assert second.info is not None


@pytest.mark.parametrize(
    "text", ["md:text", 'md:```\n{"paths": {}}\n```', "md:```\nnope\n```", 'md:{"swagger": 1, "paths": [1]}']
)
def test_operations_without_a_document(text: str) -> None:
    """Without a document, such cells are as any other; one that is broken describes no operation."""
    table = parse(text, "# operationId: list")

    assert not table
    assert table.seeds == (() if "swagger" in text else (1,))


@pytest.mark.parametrize(
    ("kernel", "language", "sign"),
    [("python3", "python", "#"), ("scala", "scala", "//"), ("octave", "octave", "%"), ("x", "perl", "#")],
)
def test_comment_sign(kernel: str, language: str, sign: str) -> None:
    """Annotations are comments of the kernel's language."""
    cells = [{"cell_type": "code", "source": f"{sign} GET /a"}, {"cell_type": "code", "source": "?? GET /b"}]
    table = annotated.of_notebook(cells, [None, None], languages.find(kernel, language))

    assert listed(table) == [("GET", "/a")]


def test_json() -> None:
    """A client is told of an endpoint what it needs to call it, and where it is."""
    (endpoint,) = parse("md:One.", "# PUT /a/:b/:c\n1", "# ResponseInfo PUT /a/:b/:c\n2")

    assert endpoint.to_json() == {
        "method": "PUT",
        "path": "/a/:b/:c",
        "description": "One.",
        "cells": [1],
        "response_cells": [2],
        "parameters": [{"name": "b", "in": "path"}, {"name": "c", "in": "path"}],
    }


@given(st.text(min_size=1, alphabet=st.characters(codec="utf-8")))
def test_any_value_of_a_parameter_arrives(value: str) -> None:
    """Whatever a client quotes into a path is what the notebook gets."""
    match = parse("# GET /a/:b/c").find("GET", f"/a/{quote(value, safe='')}/c")

    assert match.parameters == {"b": value}


@given(st.text(), st.text())
def test_no_text_breaks_it(path: str, sent: str) -> None:
    """No annotation and no request makes matching fail in another way than by not matching."""
    table = parse(f"# GET /{path}")
    with contextlib.suppress(errors.EndpointNotFound, errors.MethodNotAllowed):
        table.find("GET", f"/{sent}")
