"""Annotated cells: which cells of a notebook answer which requests, and which ones make ready for them.

A code cell whose first line is `# GET /path/:name` is an endpoint, in the form that Kernel Gateway gave it.
`# ResponseInfo GET /path/:name` begins the cell that says status and headers. All other code cells are seeds.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final
from urllib.parse import unquote

import re2  # type: ignore[import-untyped]

from jupyter_nbexec import errors, languages
from jupyter_nbexec.endpoints import operations

METHODS: Final = ("GET", "PUT", "POST", "DELETE", "PATCH")
"""What an annotation may name, in the order in which they are listed."""

_PARAMETER = re.compile(r":([^\W\d]\w*)")


@dataclass(frozen=True, kw_only=True)
class Part:
    """Cells that are executed as one: their sources joined, and where they are in the stored notebook."""

    source: str
    cells: tuple[int, ...]
    cell_ids: tuple[str | None, ...]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """What answers one method at one path."""

    method: str
    path: str  #: as annotated
    body: Part
    info: Part | None = None  #: what says status and headers
    description: str = ""

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters in the path, in order."""
        return parameter_names(self.path)

    def to_json(self) -> dict[str, Any]:
        """Describe it for a client."""
        return {
            "method": self.method,
            "path": self.path,
            "description": self.description,
            "cells": list(self.body.cells),
            "response_cells": [] if self.info is None else list(self.info.cells),
            "parameters": [{"name": name, "in": "path"} for name in self.parameters],
        }


@dataclass(frozen=True, kw_only=True)
class Match:
    """An endpoint that answers a request, and what its path holds."""

    endpoint: Endpoint
    parameters: dict[str, str]


class Route:
    """A path, and the endpoints that answer there."""

    def __init__(self, path: str, endpoints: Mapping[str, Endpoint]) -> None:
        self.path = path
        self.endpoints = dict(endpoints)
        self._segments = [Segment(segment) for segment in path.split("/")[1:]]

    def match(self, segments: Sequence[str]) -> dict[str, str] | None:
        """Read the parameters from a request's path; None if it is another path."""
        if len(segments) != len(self._segments):
            return None
        found: dict[str, str] = {}
        for pattern, segment in zip(self._segments, segments, strict=True):
            parameters = pattern.match(segment)
            if parameters is None:
                return None
            found.update(parameters)
        return found


@dataclass(frozen=True)
class Table:
    """All endpoints of a notebook, in the order in which they are tried, and the cells that seed it."""

    routes: tuple[Route, ...] = ()
    #: Indices of the seed cells in the stored notebook.
    seeds: tuple[int, ...] = field(default=())

    def __iter__(self) -> Iterator[Endpoint]:
        for route in self.routes:
            yield from (route.endpoints[method] for method in METHODS if method in route.endpoints)

    def __bool__(self) -> bool:
        return bool(self.routes)

    @cached_property
    def _constants(self) -> dict[tuple[str, ...], list[Route]]:
        """Routes without parameters, by their path."""
        found: dict[tuple[str, ...], list[Route]] = {}
        for route in self.routes:
            if not parameter_names(route.path):
                found.setdefault(_segments(route.path), []).append(route)
        return found

    @cached_property
    def _others(self) -> list[Route]:
        return [route for route in self.routes if parameter_names(route.path)]

    def find(self, method: str, path: str) -> Match:
        """Find who answers; `path` is as it was sent, percent-encoded. HEAD is answered by GET.

        Raises EndpointNotFound, and MethodNotAllowed where the path is right.
        """
        wanted = "GET" if method == "HEAD" else method
        for route, parameters in self._matching(path):
            if wanted in route.endpoints:
                return Match(endpoint=route.endpoints[wanted], parameters=parameters)
        raise errors.MethodNotAllowed(*self.allowed(path))

    def allowed(self, path: str) -> tuple[str, ...]:
        """List the methods that a path takes. Raises EndpointNotFound."""
        found = {method for route, _ in self._matching(path) for method in route.endpoints}
        if not found:
            raise errors.EndpointNotFound
        listed = [method for method in METHODS if method in found]
        return (*listed, *(["HEAD"] if "GET" in found else []), "OPTIONS")

    def _matching(self, path: str) -> Iterator[tuple[Route, dict[str, str]]]:
        segments = _segments(path)
        for route in self._constants.get(segments, ()):
            yield route, {}
        for route in self._others:
            parameters = route.match(segments)
            if parameters is not None:
                yield route, parameters


def of_notebook(
    cells: Sequence[Any], cell_ids: Sequence[str | None], language: languages.Language | None
) -> Table:
    """Read the annotations of a notebook in a language; one that is not known has `#` as comment sign."""
    return parse(cells, cell_ids, "#" if language is None else language.comment_prefix)


def parse(cells: Sequence[Any], cell_ids: Sequence[str | None], comment_sign: str) -> Table:
    """Read the annotations of a notebook's cells."""
    reader = _Reader(comment_sign, operations.read(cells, METHODS))
    for index, (cell, cell_id) in enumerate(zip(cells, cell_ids, strict=True)):
        reader.read(index, cell, cell_id)
    return reader.table()


def parameter_names(path: str) -> list[str]:
    """Names of the parameters in an annotated path, in order."""
    return list(dict.fromkeys(_PARAMETER.findall(path)))


def _segments(path: str) -> tuple[str, ...]:
    return tuple(map(unquote, path.split("/")[1:])) if "%" in path else tuple(path.split("/")[1:])


class Segment:
    """A segment of a path, in which `:name` stands for anything but nothing.

    Requests are matched on the server's own loop. RE2 takes a time that grows as the segment does; `re` takes
    the third power of that, or worse, where there are three parameters or more.
    """

    def __init__(self, segment: str) -> None:
        pieces: list[str] = []
        self._names: list[str] = []
        position = 0
        for parameter in _PARAMETER.finditer(segment):
            pieces.append(re2.escape(unquote(segment[position : parameter.start()])))
            pieces.append("(.+)")
            self._names.append(parameter[1])
            position = parameter.end()
        pieces.append(re2.escape(unquote(segment[position:])))
        self._pattern = re2.compile("(?s)" + "".join(pieces))

    def match(self, sent: str) -> dict[str, str] | None:
        """Read the parameters; None if this is not such a segment."""
        match = self._pattern.fullmatch(sent)
        if match is None:
            return None
        values = match.groups()
        found = dict(zip(self._names, values, strict=True))
        # A name that stands there twice has one value.
        return found if [found[name] for name in self._names] == list(values) else None


class _Reader:
    """Collects what belongs together."""

    def __init__(
        self, comment_sign: str, described: Mapping[str, Sequence[operations.Operation]] | None
    ) -> None:
        """`described`: the operations that the notebook itself describes, by id."""
        methods, sign = "|".join(METHODS), re.escape(comment_sign)
        self._annotation = re.compile(rf"{sign}[ \t]+(ResponseInfo[ \t]+)?({methods})[ \t]+(/[^\r\n]*)")
        self._reference = re.compile(rf"{sign}[ \t]*(ResponseInfo[ \t]+)?operationId:[ \t]*([^\r\n]*)")
        self._described = described
        self._bodies: dict[str, dict[str, list[tuple[int, str | None, str]]]] = {}
        self._infos: dict[tuple[str, str], list[tuple[int, str | None, str]]] = {}
        self._descriptions: dict[tuple[str, str], str] = {}
        self._seeds: list[int] = []
        self._text_above = ""

    def read(self, index: int, cell: Any, cell_id: str | None) -> None:
        """Read one cell."""
        if cell["cell_type"] == "markdown":
            self._text_above = cell["source"].strip()
            return
        if cell["cell_type"] == "code":
            self._read_code(index, cell["source"], cell_id)
        self._text_above = ""

    def _read_code(self, index: int, source: str, cell_id: str | None) -> None:
        piece = index, cell_id, source
        annotation = self._annotation.match(source)
        reference = None if self._described is None else self._reference.match(source)
        if annotation is not None:
            is_info, method, path = annotation[1] is not None, annotation[2], annotation[3].strip()
            self._add(piece, method, path, self._text_above or _docstring(source), is_info=is_info)
        elif reference is not None and self._described is not None:
            for each in self._described.get(reference[2].strip(), ()):
                description = each.description or self._text_above or _docstring(source)
                self._add(piece, each.method, each.path, description, is_info=reference[1] is not None)
        else:
            self._seeds.append(index)

    def _add(
        self, piece: tuple[int, str | None, str], method: str, path: str, description: str, *, is_info: bool
    ) -> None:
        if is_info:
            self._infos.setdefault((method, path), []).append(piece)
            return
        self._bodies.setdefault(path, {}).setdefault(method, []).append(piece)
        if description:
            self._descriptions.setdefault((method, path), description)

    def table(self) -> Table:
        """All that was read."""
        routes = [
            Route(path, {method: self._endpoint(method, path, pieces) for method, pieces in methods.items()})
            for path, methods in self._bodies.items()
        ]
        # Constant paths first; then the later its first parameter comes, the earlier a path is tried.
        routes.sort(key=lambda route: _first_parameter(route.path), reverse=True)
        return Table(tuple(routes), tuple(self._seeds))

    def _endpoint(self, method: str, path: str, pieces: list[tuple[int, str | None, str]]) -> Endpoint:
        infos = self._infos.get((method, path))
        return Endpoint(
            method=method,
            path=path,
            body=_part(pieces),
            info=None if infos is None else _part(infos),
            description=self._descriptions.get((method, path), ""),
        )


def _part(pieces: Iterable[tuple[int, str | None, str]]) -> Part:
    indices, ids, sources = zip(*pieces, strict=True)
    return Part(source="".join(f"{source}\n" for source in sources), cells=indices, cell_ids=ids)


def _first_parameter(path: str) -> float:
    """In which segment a path has its first parameter; infinity if it has none."""
    parameter = _PARAMETER.search(path)
    return math.inf if parameter is None else path.count("/", 0, parameter.start())


def _docstring(source: str) -> str:
    """Read the text that a Python cell begins with; none where it is no Python."""
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    # A text that is alone is what the cell answers with.
    if len(statements) < 2 or not isinstance(statements[0], ast.Expr):
        return ""
    value = statements[0].value
    if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
        return ""
    return inspect.cleandoc(value.value)
