"""What a notebook declares, and what a request may give."""

from __future__ import annotations

import time
from typing import Any

import jsonschema
import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_nbexec import errors, languages, models, parameters
from jupyter_nbexec.languages import base

PYTHON = languages.find(None, "python")


def notebook(source: str | None, *, tag: Any = "parameters", metadata: Any = None) -> nbformat.NotebookNode:
    """A notebook with one tagged cell; None: with none."""
    empty: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [{**empty, "source": "1"}]
    if source is not None:
        cells.append({**empty, "source": source, "metadata": {"tags": [tag]}})
    extra = {} if metadata is None else {"nbexec": {"parameters": metadata}}
    made = {"cells": cells, "metadata": extra, "nbformat": 4, "nbformat_minor": 4}
    return nbformat.from_dict(made)  # type: ignore[no-any-return]


def infer(
    source: str | None, metadata: Any = None, language: str = "python"
) -> list[models.Parameter] | None:
    """The parameters of such a notebook."""
    return parameters.infer(notebook(source, metadata=metadata), languages.find(None, language))


def problems(
    values: dict[str, Any], source: str | None = None, metadata: Any = None, language: str = "python"
) -> list[tuple[str, str]]:
    """What is wrong with values."""
    try:
        parameters.check(values, infer(source, metadata, language), languages.find(None, language))
    except errors.InvalidParameter as error:
        return [(entry["parameter"], entry["message"]) for entry in error.details["errors"]]
    return []


def nested(value: Any, depth: int) -> Any:
    """A schema of many levels."""
    return value if depth == 0 else {"not": nested(value, depth - 1)}


# Declaring.


@pytest.mark.parametrize("tag", ["parameters", "Parameters"])
def test_the_tagged_cell_declares(tag: str) -> None:
    """P10: papermill's tag, and nbparameterise's."""
    found = parameters.infer(notebook("x = 1", tag=tag), PYTHON)
    assert found is not None
    assert [entry.name for entry in found] == ["x"]


@pytest.mark.parametrize("tag", ["parameter", "injected-parameters", 5, None])
def test_other_tags_declare_nothing(tag: Any) -> None:
    """Without a tagged cell any name may be given."""
    assert parameters.infer(notebook("x = 1", tag=tag), PYTHON) is None


def test_an_empty_tagged_cell_takes_nothing() -> None:
    """It declares that there are none."""
    assert infer("") == []
    assert problems({"x": 1}, "") == [("x", "is not declared by the notebook, which has: none")]


def test_a_language_that_is_not_read_takes_any_name() -> None:
    """Unless the notebook's metadata say which there are."""
    assert infer("x=1", language="bash") is None
    assert problems({"y": 1}, "x=1", language="bash") == []
    assert problems({"y": 1}, "x=1", {"x": {"minimum": 3}}, "bash") == [
        ("y", "is not declared by the notebook, which has: x")
    ]
    assert problems({"x": 2}, "x=1", {"x": {"minimum": 3}}, "bash") == [("x", "must be at least 3")]
    assert parameters.infer(notebook("x=1"), None) is None


def test_metadata_add_keywords() -> None:
    """Any keyword of JSON Schema; a description replaces the comment."""
    extra = {"minimum": 1, "description": "how many", "examples": [3]}
    (entry,) = infer("rows: int = 5  # rows", {"rows": extra, "unknown": {"type": "string"}}) or []
    assert entry.schema == {"type": "integer", **extra}
    assert (entry.type, entry.default, entry.description) == ("integer", 5, "how many")
    (entry,) = infer("rows = None", {"rows": {"type": ["string", "null"], "enum": ["a", None]}}) or []
    assert entry.type == "string"


@pytest.mark.parametrize(
    "metadata",
    [
        5,
        [],
        "x",
        {"x": 5},
        {"x": None},
        {"x": {"type": "no-such-type"}},
        {"x": {"minimum": "3"}},
        {"x": {"multipleOf": 0}},
        {"x": {"$ref": "http://169.254.169.254/"}},
        {"x": {"$ref": "#"}},
        {"x": {"items": {"$dynamicRef": "#x"}}},
        {"x": {"properties": {"default": {"$ref": "file:///etc/passwd"}}}},
        {"x": {"$id": "http://example.com/"}},
        {"x": {"$schema": "http://json-schema.org/draft-07/schema#"}},
        {"x": {"pattern": "("}},
        {"x": {"pattern": 5}},
        {"x": {"patternProperties": {"(a+)+$": {}}}},
        {"x": {"enum": ["x" * 70_000]}},
        {"x": nested({}, 20)},
    ],
)
def test_metadata_that_are_no_schema(metadata: Any) -> None:
    """A clear error that names the place; nothing is fetched, nothing runs for long."""
    with pytest.raises(errors.InvalidNotebook, match=r"metadata\.nbexec\.parameters"):
        infer("x = 1", metadata)


def test_metadata_a_hundred_thousand_levels_deep_are_refused() -> None:
    """Before anything recurses into them."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    made = notebook("x = 1")
    # As it is, not converted: nbformat's own conversion of new members recurses.
    dict.__setitem__(made.metadata, "nbexec", {"parameters": {"x": {"enum": deep}}})
    with pytest.raises(errors.InvalidNotebook, match="levels deep"):
        parameters.infer(made, PYTHON)
    while deep:
        (deep,) = deep


# One schema.


def test_schema() -> None:
    """One object that a client can validate with; a default that is no literal is left out."""
    described = parameters.schema(infer("a: int\nb = 2.5  # rate\nc = f()"))
    assert described == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": "number", "description": "rate", "default": 2.5},
            "c": {},
        },
        "required": ["a"],
        "additionalProperties": False,
    }
    jsonschema.Draft202012Validator.check_schema(described)
    jsonschema.validate({"a": 1}, described)


def test_schema_of_any_name() -> None:
    """An open object."""
    assert parameters.schema(None)["additionalProperties"] is True
    jsonschema.validate({"whatever": 1}, parameters.schema(None))


# Checking.


def test_all_problems_at_once() -> None:
    """Each with its name, and with the place inside the value."""
    source = "rows: int\nname = 'x'\nboxes: dict[str, list[int]] = {}\nother: str"
    values = {"name": 5, "boxes": {"a": [1, "x", 2.5]}, "class": 1, "zz": 1}
    assert problems(values, source) == [
        ("name", "must be a string, not the integer 5"),
        ("boxes", 'at a[1]: must be an integer, not the string "x"'),
        ("boxes", "at a[2]: must be an integer, not the float 2.5"),
        ("class", "is a keyword of Python"),
        ("zz", "is not declared by the notebook, which has: rows, name, boxes, other"),
        ("rows", "is required"),
        ("other", "is required"),
    ]


@pytest.mark.parametrize(
    ("source", "value", "message"),
    [
        ("x: int", True, "must be an integer, not true"),
        ("x: int", 3.0, "must be an integer, not the float 3.0; write it without a fraction"),
        ("x: int", None, "must be an integer, not null"),
        ("x: float", True, "must be a number, not true"),
        ("x: bool", 1, "must be a boolean, not the integer 1"),
        ("x: str", ["a"], "must be a string, not an array"),
        ("x: int | None", "a", 'must be an integer or null, not the string "a"'),
        ("x: int | list[str]", "a", "fits none of the alternatives"),
        ("x: Literal['a', 'b']", "c", 'must be one of ["a", "b"]'),
        ("x: Literal[1]", 1.0, "must be an integer, not the float 1.0; write it without a fraction"),
        ("x: tuple[int, str]", [1], "must have at least this many items: 2"),
        ("x: tuple[int, str]", [1, 2], "at [1]: must be a string, not the integer 2"),
        ("x: date", "2020-13-01", 'must be in the format "date"'),
        ("x: date", "20200101", 'must be in the format "date"'),
        ("x: datetime", "2020-01-01", 'must be in the format "date-time"'),
        ("x: datetime", "2020-01-01T25:00:00", 'must be in the format "date-time"'),
        ("x: dict", {"a": "\ud800"}, "at a: holds a lone surrogate, which is not a Unicode character"),
    ],
)
def test_values_that_do_not_fit(source: str, value: Any, message: str) -> None:
    """The message says what is wanted and what was given."""
    assert problems({"x": value}, source) == [("x", message)]


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("x: int", -(2**70)),
        ("x = 1.5", 3),
        ("x: float", 3),
        ("x: Any", {"a": [None]}),
        ("x: int | None", None),
        ("x = None", "anything"),
        ("x: int = None", None),
        ("x: tuple[int, str]", [1, "a"]),
        ("x: date", "2020-02-29"),
        ("x: datetime", "2020-01-01T10:00:00"),
        ("x: datetime", "2020-01-01T10:00:00.123456789Z"),
        ("x: datetime", "2020-01-01 10:00:00+02:00"),
        ("x = f()", [1]),
        ("x: list", []),
        ("x = 'a'", '"""\\\n$(x){x}%s\0'),
    ],
)
def test_values_that_fit(source: str, value: Any) -> None:
    """None of these is a problem."""
    assert problems({"x": value}, source) == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1x",
        "x=1\nimport os;y",
        "class",
        "__builtins__",
        "x y",
        "x\0",
        "\uff58",
        "é" * 300,
        "x" * 256,
        "\ud800",
    ],
)
def test_bad_names(name: str) -> None:
    """B40 to B48: refused whether or not the notebook declares its parameters."""
    for source in (None, "x = 1"):
        ((shown, _message),) = problems({name: 1}, source)
        assert shown == name or (len(name) > 255 and shown == name[:255] + "…")


def test_two_spellings_of_one_name() -> None:
    """B46: the second would overwrite the first."""
    assert problems({"x": 1, "\uff58": 2}) == [("\uff58", "is read by Python as 'x'; give that name")]
    assert problems({"x": 1, "X": 2}, language="powershell") == [
        ("X", "is the same name as 'x' in PowerShell")
    ]
    assert problems({"é": 1, "e\u0301": 2}, language="julia") == [
        ("e\u0301", "is the same name as 'é' in Julia")
    ]


def test_number_of_parameters_is_bounded() -> None:
    """B49: 1,000 are fine, 1,001 are not."""
    assert problems({f"x{number}": 1 for number in range(1_000)}) == []
    assert problems({f"x{number}": 1 for number in range(1_001)}) == [
        ("parameters", "are 1001, which is more than 1000")
    ]


def test_a_language_that_is_not_known() -> None:
    """Nothing can be given where nothing can be written."""
    assert problems({"x": 1}, language="sql") == [("x", "cannot be written in this kernel's language")]
    assert problems({}, language="sql") == []


def test_values_that_a_language_cannot_hold_are_named() -> None:
    """With the place inside the value."""
    assert problems({"x": [1, None]}, language="bash") == [("x", "at [1]: is null, which bash does not have")]


# Keywords of JSON Schema, exact and in linear time.


@pytest.mark.parametrize(
    ("keywords", "fine", "wrong", "message"),
    [
        ({"minimum": 1}, 1, 0, "must be at least 1"),
        ({"exclusiveMaximum": 2}, 1, 2, "must be less than 2"),
        ({"multipleOf": 0.1}, 0.3, 0.35, "must be a multiple of 0.1"),
        ({"multipleOf": 1e-300}, 1e300, "x", None),
        ({"multipleOf": 0.5}, 10**4000, 0.3, "must be a multiple of 0.5"),
        ({"enum": ["a", 1]}, "a", "b", 'must be one of ["a", 1]'),
        ({"const": True}, True, 1, "must be true"),
        ({"pattern": "^a+$"}, "aa", "b", 'must match the pattern "^a+$"'),
        ({"minLength": 2}, "é😀", "😀", "must have at least this many characters: 2"),
        (
            {"uniqueItems": True},
            [1, True, "1", [1], {"a": 1}],
            [{"a": [1]}, {"a": [1.0]}],
            "holds an item twice",
        ),
        ({"uniqueItems": False}, [1, 1], 5, None),
        ({"required": ["a"]}, {"a": 1}, {}, "'a' is a required property"),
        (
            {"additionalProperties": False},
            {},
            {"a": 1},
            "Additional properties are not allowed ('a' was unexpected)",
        ),
        ({"not": {"const": 1}}, 2, 1, "is one of the values that are excluded"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, 1, 3, "must fit exactly one of the alternatives"),
        ({"propertyNames": {"pattern": "^a"}}, {"a": 1}, {"b": 1}, 'must match the pattern "^a"'),
    ],
)
def test_keywords(keywords: dict[str, Any], fine: Any, wrong: Any, message: str | None) -> None:
    """Those of the notebook's metadata hold, beside what the cell says."""
    assert problems({"x": fine}, "x = None", {"x": keywords}) == []
    expected = [] if message is None else [("x", message)]
    assert problems({"x": wrong}, "x = None", {"x": keywords}) == expected


@pytest.mark.parametrize(
    ("keywords", "value"),
    [
        ({"pattern": "^(a+)+$"}, "a" * 50_000 + "!"),
        ({"pattern": "a*a*a*a*b"}, "a" * 5_000_000),
        ({"uniqueItems": True}, [{"a": number} for number in range(50_000)] + [{"a": 1}]),
        ({"items": {"type": "integer"}}, ["x"] * 200_000),
        ({"type": "integer"}, "x" * 5_000_000),
        ({"multipleOf": 0.001}, [10**4000] * 100),
        ({"enum": list(range(1_000))}, {"x": ["y" * 100] * 50_000}),
    ],
)
def test_hostile_values_cost_little(keywords: dict[str, Any], value: Any) -> None:
    """Neither the work nor the answer grows out of bounds."""
    start = time.perf_counter()
    found = problems({"x": value}, "x = None", {"x": keywords})
    assert time.perf_counter() - start < 10
    assert sum(len(message) for _, message in found) < 5_000


def test_number_of_parameters() -> None:
    """A notebook declares no more parameters than a request may give."""
    source = "\n".join(f"a{number} = 1" for number in range(parameters.MAX_PARAMETERS))
    declared = parameters.infer(notebook(source), PYTHON)
    assert declared is not None
    assert len(declared) == parameters.MAX_PARAMETERS
    with pytest.raises(errors.InvalidNotebook, match="declares 1001 parameters; 1000 can be given"):
        parameters.infer(notebook(f"{source}\nb = 1"), PYTHON)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_every_json_value_is_accepted_where_nothing_is_said(value: Any) -> None:
    """And a default that is such a value is read from the cell as it was."""
    assert PYTHON is not None
    assert problems({"x": value}) == []
    (entry,) = infer(PYTHON.assignment("x", value)) or []
    assert entry.default == value
    assert problems({"x": value}, PYTHON.assignment("x", value)) == []


def test_lone_surrogates_are_refused_everywhere() -> None:
    """B50."""
    for language in languages.BUILT_IN:
        assert isinstance(language, base.Language)
        with pytest.raises(errors.InvalidParameter):
            parameters.check({"x": "\ud800"}, None, language)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"enum": list(range(10_000))}}, [9999] * 10),
        ({"anyOf": [{"type": "string"}] * 1000}, [0] * 10_000),
        ({"items": {"allOf": [{"minimum": 0}] * 1000}}, [0] * 100),
        ({"pattern": "(a|b)*" * 5000}, "a" * 1_000_000),
    ],
)
def test_what_takes_too_long(schema: dict[str, Any], value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value and a schema whose product is large are not multiplied to the end."""
    monkeypatch.setattr(parameters, "MAX_STEPS", 20_000)
    declared = [models.Parameter(name="a", type="any", schema=schema, default=0)]
    with pytest.raises(errors.InvalidParameter, match="too large to be checked"):
        parameters.check({"a": value}, declared, languages.find("python3", "python"))
