"""What a notebook declares, and whether what a request gives fits it.

Nothing here runs code of the notebook, asks the network, or takes more than linear time: notebook and
request both come from outside, and a schema is a small program.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import json
import re
from contextvars import ContextVar
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import jsonschema
import re2  # type: ignore[import-untyped]
from jsonschema import protocols, validators

from jupyter_nbexec import errors, models
from jupyter_nbexec.languages import base
from jupyter_nbexec.languages.base import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from nbformat import NotebookNode

PARAMETERS_TAG = "parameters"
"""The tag of the cell that declares parameters; `Parameters` is taken for it."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""The version of JSON Schema that all of this is in."""

MAX_PARAMETERS = 1_000
"""Parameters that one request may give."""

MAX_NAME = 255
"""Characters of the longest name."""

MAX_SCHEMA_BYTES = 65_536
"""Size of what a notebook's metadata may add to the schema of one parameter."""

MAX_STEPS = 2_000_000
"""Keywords that are checked for one value, each item of it counted: some seconds of work."""

#: What is as much work as one step: bytes of a pattern times characters, and characters of messages.
_MATCHED, _WRITTEN = 5_000, 100

_MAX_SCHEMA_DEPTH = 16
_MAX_PROBLEMS = 10  # of one parameter; a list of a million wrong elements needs no million messages

#: Keywords of a notebook's metadata that would fetch something, or let Python's `re` run.
_UNSUPPORTED = frozenset({"patternProperties"})
_SUPPORTED_DOLLARS = frozenset({"$comment", "$defs"})


# Reading the notebook.


def find_tagged(notebook: NotebookNode, tag: str) -> int | None:
    """Find the first code cell with a tag, whatever the case of its letters."""
    for index, cell in enumerate(notebook.cells):
        tags = cell.get("metadata", {}).get("tags", [])
        if cell.get("cell_type") != "code" or not isinstance(tags, list):
            continue
        if any(isinstance(entry, str) and entry.lower() == tag for entry in tags):
            return index
    return None


def find_cell(notebook: NotebookNode) -> int | None:
    """Find the cell that declares the parameters."""
    return find_tagged(notebook, PARAMETERS_TAG)


def infer(notebook: NotebookNode, language: base.Language | None) -> list[models.Parameter] | None:
    """Read the declared parameters; None: any name may be given.

    In a language whose cells are not read, what the notebook's metadata describe is what it declares.
    Raises `InvalidNotebook` where the metadata hold no schema, and where more are declared than can be given.
    """
    index = find_cell(notebook)
    if index is None or language is None:
        return None
    described = _described(notebook)
    found = language.infer(notebook.cells[index].source)
    if found is None:
        if not described:
            return None
        names = [name for name in described if language.check_name(name) is None]
        found = [models.Parameter(name=name, type="any", schema={}, default_source="") for name in names]
    if len(found) > MAX_PARAMETERS:
        raise errors.InvalidNotebook(
            f"The notebook declares {len(found)} parameters; {MAX_PARAMETERS} can be given."
        )
    return [_merge(entry, described.get(entry.name, {})) for entry in found]


def _described(notebook: NotebookNode) -> dict[str, Any]:
    """The object `metadata.nbexec.parameters` of the notebook."""
    described: Any = notebook.get("metadata", {})
    for key in ("nbexec", "parameters"):
        described = described.get(key, {})
        if not isinstance(described, dict):
            raise errors.InvalidNotebook(
                "The notebook's `metadata.nbexec.parameters` is no object of objects."
            )
    return dict(described)


def _merge(parameter: models.Parameter, extra: Any) -> models.Parameter:
    """Add the keywords that the notebook's metadata have for a parameter."""
    if extra == {}:
        return parameter
    where = f"`metadata.nbexec.parameters.{shorten(parameter.name)}` of the notebook"
    if not isinstance(extra, dict):
        raise errors.InvalidNotebook(f"{where} is no object.")
    _check_extra(extra, where)
    merged = {**parameter.schema, **extra}
    try:
        jsonschema.Draft202012Validator.check_schema(merged)
    except jsonschema.SchemaError as error:
        position = base.write_path(tuple(error.absolute_path))
        raise errors.InvalidNotebook(
            f"{where} is no JSON Schema: {position}: {shorten(error.message, 200)}"
        ) from None
    description = extra.get("description") or parameter.description
    return dataclasses.replace(parameter, schema=merged, type=base.type_word(merged), description=description)


def _check_extra(extra: dict[str, Any], where: str) -> None:
    """Refuse what would be dangerous even to look at as a schema."""
    for depth, key, value in _walk(extra):
        if depth > _MAX_SCHEMA_DEPTH:
            raise errors.InvalidNotebook(f"{where} nests more than {_MAX_SCHEMA_DEPTH} levels deep.")
        if key in _UNSUPPORTED or (key.startswith("$") and key not in _SUPPORTED_DOLLARS):
            raise errors.InvalidNotebook(f"{where} uses `{shorten(key)}`, which is not supported.")
        if key == "pattern" and isinstance(value, str):
            try:
                _pattern(value)
            except re2.error:
                message = f"{where} has a `pattern` that is not in RE2's syntax: {shorten(value)}."
                raise errors.InvalidNotebook(message) from None
    if len(json.dumps(extra)) > MAX_SCHEMA_BYTES:
        raise errors.InvalidNotebook(f"{where} is larger than {MAX_SCHEMA_BYTES} bytes.")


def _walk(value: Any) -> Iterator[tuple[int, str, Any]]:
    """Give every member of every object at any depth, with its depth; no recursion."""
    waiting: list[tuple[int, Any]] = [(0, value)]
    while waiting:
        depth, item = waiting.pop()
        members: Iterable[tuple[Any, Any]]
        members = item.items() if isinstance(item, dict) else (("", element) for element in item)
        for key, element in members:
            yield depth, str(key), element
            if isinstance(element, (dict, list)) and depth <= _MAX_SCHEMA_DEPTH:
                waiting.append((depth + 1, element))


# One schema for all.


def schema(parameters: list[models.Parameter] | None) -> dict[str, models.JsonValue]:
    """Describe the object that a request may give as `parameters`."""
    described: dict[str, models.JsonValue] = {"$schema": DIALECT, "type": "object"}
    if parameters is None:
        return {**described, "properties": {}, "required": [], "additionalProperties": True}
    return {
        **described,
        "properties": {entry.name: _property(entry) for entry in parameters},
        "required": [entry.name for entry in parameters if entry.required],
        "additionalProperties": False,
    }


def _property(parameter: models.Parameter) -> dict[str, models.JsonValue]:
    described = dict(parameter.schema)
    if parameter.description:
        described["description"] = parameter.description
    if parameter.default is not models.MISSING:
        described["default"] = parameter.default
    return described


# Checking what a request gives.


def check(
    values: Mapping[str, models.JsonValue],
    parameters: list[models.Parameter] | None,
    language: base.Language | None,
) -> None:
    """Raise `InvalidParameter`, with every problem there is, unless the values can be injected."""
    if len(values) > MAX_PARAMETERS:
        message = f"are {len(values)}, which is more than {MAX_PARAMETERS}"
        raise errors.InvalidParameter(("parameters", message))
    problems = list(_problems(values, parameters, language))
    if problems:
        raise errors.InvalidParameter(*problems)


def _problems(
    values: Mapping[str, models.JsonValue],
    parameters: list[models.Parameter] | None,
    language: base.Language | None,
) -> Iterator[tuple[str, str]]:
    declared = None if parameters is None else {entry.name: entry for entry in parameters}
    spellings: dict[str, str] = {}
    for name, value in values.items():
        shown = shorten(name, MAX_NAME)
        if language is None:
            yield shown, "cannot be written in this kernel's language"
            continue
        problem = _name_problem(name, declared, language)
        if problem is None:
            other = spellings.setdefault(language.fold(name), name)
            if other != name:
                problem = f"is the same name as {shorten(other)!r} in {language.name}"
        if problem is not None:
            yield shown, problem
            continue
        for message in _value_problems(value, declared[name] if declared is not None else None, language):
            yield shown, message
    for entry in parameters or []:
        if entry.required and entry.name not in values:
            yield entry.name, "is required"


def _name_problem(
    name: str, declared: Mapping[str, models.Parameter] | None, language: base.Language
) -> str | None:
    if len(name) > MAX_NAME:
        return f"is longer than {MAX_NAME} characters"
    problem = language.check_name(name)
    if problem is None and declared is not None and name not in declared:
        known = ", ".join(itertools.islice(declared, 10)) + (", …" if len(declared) > 10 else "")
        return f"is not declared by the notebook, which has: {known or 'none'}"
    return problem


def _value_problems(
    value: models.JsonValue, parameter: models.Parameter | None, language: base.Language
) -> Iterator[str]:
    try:
        language.literal(value)
    except base.Unwritable as error:
        # Such a value may be too deep for the validator, too.
        yield str(error)
        return
    if not parameter or not parameter.schema:
        return
    validator = _Validator(parameter.schema, format_checker=_FORMATS)
    _left.set([MAX_STEPS])
    try:
        found = list(itertools.islice(validator.iter_errors(value), _MAX_PROBLEMS + 1))
    except _TooManySteps:
        yield "is too large to be checked by the notebook's schema"
        return
    for problem in found[:_MAX_PROBLEMS]:
        position = base.write_path(tuple(problem.absolute_path))
        message = _message(problem)
        yield f"at {position}: {message}" if position else message
    if len(found) > _MAX_PROBLEMS:
        yield "and more of that kind"


# Messages.

_ARTICLES = {
    "integer": "an integer",
    "number": "a number",
    "string": "a string",
    "boolean": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}

_BOUNDS = {
    "minimum": "must be at least",
    "maximum": "must be at most",
    "exclusiveMinimum": "must be more than",
    "exclusiveMaximum": "must be less than",
    "multipleOf": "must be a multiple of",
    "minLength": "must have at least this many characters:",
    "maxLength": "must have at most this many characters:",
    "minItems": "must have at least this many items:",
    "maxItems": "must have at most this many items:",
    "minProperties": "must have at least this many members:",
    "maxProperties": "must have at most this many members:",
    "pattern": "must match the pattern",
    "const": "must be",
    "format": "must be in the format",
    "enum": "must be one of",
}

_OTHERS = {
    "anyOf": "fits none of the alternatives",
    "oneOf": "must fit exactly one of the alternatives",
    "not": "is one of the values that are excluded",
    "uniqueItems": "holds an item twice",
}


def _message(error: jsonschema.ValidationError) -> str:
    """Say what is wrong, as the end of a sentence that begins with the value's name."""
    keyword = str(error.validator)
    wanted: Any = error.validator_value
    if keyword == "type":
        kinds = [wanted] if isinstance(wanted, str) else wanted
        text = f"must be {' or '.join(_ARTICLES[kind] for kind in kinds)}, not {_kind(error.instance)}"
        is_whole = isinstance(error.instance, float) and error.instance.is_integer()
        return f"{text}; write it without a fraction" if is_whole and "integer" in kinds else text
    if keyword in _BOUNDS:
        return f"{_BOUNDS[keyword]} {shorten(json.dumps(wanted), 200)}"
    return _OTHERS.get(keyword) or shorten(error.message, 200)


def _kind(value: models.JsonValue) -> str:
    """Name the type of a value, and the value where it is short."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return f"the float {value!r}"
    if isinstance(value, int):
        return f"the integer {shorten(str(value))}"
    if isinstance(value, str):
        return f"the string {json.dumps(shorten(value), ensure_ascii=False)}"
    return "an array" if isinstance(value, list) else "an object"


# A validator that is exact about numbers, takes linear time, and never leaves the process.


def _is_integer(_checker: object, value: object) -> bool:
    """Whether a value arrives as an integer: 3.0 would arrive as a float, which JSON Schema ignores."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_multiple(
    validator: protocols.Validator,
    divisor: models.JsonValue,
    instance: Any,
    _schema: object,
) -> Iterator[jsonschema.ValidationError]:
    """Divide as the decimals that were written, not as the doubles nearest to them."""
    if validator.is_type(instance, "number") and Fraction(str(instance)) % Fraction(str(divisor)) != 0:
        yield jsonschema.ValidationError("is not a multiple")


def _pattern(source: str) -> Any:
    """Compile a regular expression that takes linear time on any text. Raises `re2.error`."""
    options = re2.Options()
    options.log_errors = False
    return re2.compile(source, options=options)


def _matches(
    validator: protocols.Validator,
    source: str,
    instance: models.JsonValue,
    _schema: object,
) -> Iterator[jsonschema.ValidationError]:
    """Search in linear time: the schema comes with a notebook, the text with a request."""
    if not validator.is_type(instance, "string"):
        return
    # Lone surrogates, which RE2 cannot read, are refused elsewhere.
    if not _pattern(source).search(instance.encode("utf-8", "replace").decode()):
        yield jsonschema.ValidationError("does not match", validator="pattern", validator_value=source)


def _is_unique(
    validator: protocols.Validator,
    wanted: models.JsonValue,
    instance: Any,
    _schema: object,
) -> Iterator[jsonschema.ValidationError]:
    """Compare by hash; the library compares objects pair by pair."""
    if not wanted or not validator.is_type(instance, "array"):
        return
    if len({_hashable(item) for item in instance}) != len(instance):
        yield jsonschema.ValidationError("is not unique")


def _hashable(value: models.JsonValue) -> object:
    """A hashable that equals another's exactly where the JSON values are equal (1 and 1.0 are)."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, list):
        return ("array", tuple(_hashable(item) for item in value))
    if isinstance(value, dict):
        return ("object", frozenset((key, _hashable(item)) for key, item in value.items()))
    return value


_left: ContextVar[list[int]] = ContextVar("_left")


class _TooManySteps(Exception):
    """A value has taken all the steps that it may."""


def _spend(steps: int) -> None:
    left = _left.get()
    left[0] -= steps
    if left[0] < 0:
        raise _TooManySteps


def _counted(check: Callable[..., Iterable[jsonschema.ValidationError] | None]) -> Callable[..., Any]:
    """Count the steps of a keyword: schema and value may each be small, and their product is not."""

    def counted(
        validator: protocols.Validator, wanted: Any, instance: Any, schema: Any
    ) -> Iterator[jsonschema.ValidationError]:
        _spend(1 + len(wanted) if isinstance(wanted, list) else 1)
        if check is _matches and isinstance(instance, str):
            _spend(len(wanted) * len(instance) // _MATCHED)
        for error in check(validator, wanted, instance, schema) or ():
            _spend(len(error.message) // _WRITTEN)  # which may repeat the value
            yield error

    return counted


_Validator = validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    {
        name: _counted(check)
        for name, check in {
            **jsonschema.Draft202012Validator.VALIDATORS,
            "multipleOf": _is_multiple,
            "pattern": _matches,
            "uniqueItems": _is_unique,
        }.items()
    },
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)

_FORMATS = jsonschema.FormatChecker(formats=())

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_TIME = re.compile(r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(\.\d+)?([Zz]|[+-]\d{2}:\d{2})?", re.ASCII)


@_FORMATS.checks("date", raises=ValueError)
def _is_date(value: object) -> bool:
    """RFC 3339, which is what `datetime.date.fromisoformat` reads in every Python."""
    if isinstance(value, str):
        if not _DATE.fullmatch(value):
            return False
        dt.date.fromisoformat(value)
    return True


@_FORMATS.checks("date-time", raises=ValueError)
def _is_time(value: object) -> bool:
    """RFC 3339, and without an offset too: Python's own datetimes mostly have none."""
    if isinstance(value, str):
        match = _TIME.fullmatch(value)
        if match is None:
            return False
        dt.datetime.fromisoformat(f"{match[1]}T{match[2]}{(match[4] or '').upper().replace('Z', '+00:00')}")
    return True
