"""The same text as papermill 2.7 for the same value; `DEVIATIONS` are explained in docs/languages.md."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_nbexec import languages

QUOTED = '{"foo": "bar"}'
VALUES: dict[str, Any] = {
    "text": "foo",
    "quoted": QUOTED,
    "list": ["foo"],
    "list of quoted": ["foo", '"bar"'],
    "list of objects": [{"foo": "bar"}],
    "object": {"foo": "bar"},
    "object of list": {"foo": ["bar"]},
    "object of object": {"foo": {"bar": '"baz"'}},
    "integer": 12345,
    "negative": -54321,
    "float": 1.2345,
    "negative float": -5432.1,
    "true": True,
    "false": False,
    "null": None,
    "long": 2147483648,
    "negative long": -2147483649,
}

NUMBERS = {"integer": "12345", "negative": "-54321", "float": "1.2345", "negative float": "-5432.1"}
PLAIN_LONG = {"long": "2147483648", "negative long": "-2147483649"}
SUFFIXED_LONG = {"long": "2147483648L", "negative long": "-2147483649L"}
C_TEXT = {"text": '"foo"', "quoted": '"{\\"foo\\": \\"bar\\"}"'}
LOWER = {"true": "true", "false": "false"}

PAPERMILL: dict[str, dict[str, str]] = {
    "python": {
        **NUMBERS, **PLAIN_LONG, **C_TEXT, "true": "True", "false": "False", "null": "None",
        "list": '["foo"]', "list of quoted": '["foo", "\\"bar\\""]', "list of objects": '[{"foo": "bar"}]',
        "object": '{"foo": "bar"}', "object of list": '{"foo": ["bar"]}',
        "object of object": '{"foo": {"bar": "\\"baz\\""}}',
    },
    "R": {
        **NUMBERS, **PLAIN_LONG, **C_TEXT, "true": "TRUE", "false": "FALSE", "null": "NULL",
        "list": 'list("foo")', "list of quoted": 'list("foo", "\\"bar\\"")',
        "list of objects": 'list(list("foo" = "bar"))', "object": 'list("foo" = "bar")',
        "object of list": 'list("foo" = list("bar"))',
        "object of object": 'list("foo" = list("bar" = "\\"baz\\""))',
    },
    "scala": {
        **NUMBERS, **SUFFIXED_LONG, **C_TEXT, **LOWER, "null": "None",
        "list": 'Seq("foo")', "list of quoted": 'Seq("foo", "\\"bar\\"")',
        "list of objects": 'Seq(Map("foo" -> "bar"))',
        "object": 'Map("foo" -> "bar")', "object of list": 'Map("foo" -> Seq("bar"))',
        "object of object": 'Map("foo" -> Map("bar" -> "\\"baz\\""))',
    },
    "julia": {
        **NUMBERS, **PLAIN_LONG, **C_TEXT, **LOWER, "null": "nothing",
        "list": '["foo"]', "list of quoted": '["foo", "\\"bar\\""]',
        "list of objects": '[Dict("foo" => "bar")]',
        "object": 'Dict("foo" => "bar")', "object of list": 'Dict("foo" => ["bar"])',
        "object of object": 'Dict("foo" => Dict("bar" => "\\"baz\\""))',
    },
    "matlab": {**NUMBERS, **PLAIN_LONG, **LOWER},
    "C#": {
        **NUMBERS, **SUFFIXED_LONG, **C_TEXT, **LOWER,
        "list": 'new [] { "foo" }', "list of quoted": 'new [] { "foo", "\\"bar\\"" }',
        "list of objects": 'new [] { new Dictionary<string,Object>{ { "foo" , "bar" } } }',
        "object": 'new Dictionary<string,Object>{ { "foo" , "bar" } }',
    },
    "F#": {
        **NUMBERS, **SUFFIXED_LONG, **C_TEXT, **LOWER, "null": "None",
        "list": '[ "foo" ]', "list of quoted": '[ "foo"; "\\"bar\\"" ]',
    },
    "powershell": {
        **NUMBERS, **PLAIN_LONG, "text": '"foo"', "quoted": '"{`"foo`": `"bar`"}"',
        "true": "$True", "false": "$False", "null": "$Null",
        "list": '@("foo")', "list of quoted": '@("foo", "`"bar`"")', "list of objects": '@(@{"foo" = "bar"})',
        "object": '@{"foo" = "bar"}', "object of list": '@{"foo" = @("bar")}',
    },
    "bash": {
        **NUMBERS, **PLAIN_LONG, **LOWER, "text": "foo", "quoted": "'{\"foo\": \"bar\"}'",
        "list": "(foo)", "list of quoted": "(foo '\"bar\"')",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("language", "kind", "expected"),
    [(language, kind, text) for language, rows in PAPERMILL.items() for kind, text in rows.items()],
)
def test_literals(language: str, kind: str, expected: str) -> None:
    """A notebook that ran with papermill's literals runs with ours."""
    found = languages.find(None, language)
    assert found is not None
    assert found.literal(VALUES[kind]) == expected


#: What we write otherwise, and why.
DEVIATIONS: list[tuple[str, Any, str, str]] = [
    ("matlab", "foo", "'foo'", "double quotes mean something else in Octave than in MATLAB"),
    ("matlab", {"foo": "bar"}, "containers.Map({'foo'}, {'bar'})", "as above"),
    ("matlab", None, "[]", "NaN is a number; jsondecode has [] for null"),
    ("C#", None, "(object)null", "papermill refuses it"),
    ("C#", [1, "a"], 'new object[] { 1, "a" }', "papermill's does not compile"),
    (
        "F#",
        {"foo": 1},
        '([ ("foo", box (1)) ] |> Map.ofList)',
        "IComparable is not open, and not what lists are",
    ),
    ("F#", [1, "a"], '[ box (1); box ("a") ]', "papermill's does not compile"),
    ("julia", "$x é", '"\\$x \\u00e9"', "papermill's interpolates, and names a byte"),
    ("julia", [1, 2.5], "Any[1, 2.5]", "papermill's is converted to floats"),
    ("scala", [1, 2.5], "Seq[Any](1, 2.5)", "papermill's is converted to floats"),
    ("scala", 2**64, 'BigInt("18446744073709551616")', "papermill's does not compile"),
    ("powershell", "$x é", '"`$x $([char]0xE9)"', "papermill's interpolates, and shows a backslash"),
    ("powershell", [[1]], "@(,@(1))", "papermill's is unrolled to one list"),
    ("powershell", {"a": 1, "b": 2}, '@{"a" = 1; "b" = 2}', "one line"),
    ("R", "é", '"\\u00e9"', "papermill's is an error, or a byte"),
    ("R", {}, "structure(list(), names = character(0))", "papermill's is an empty list"),
    ("bash", "a\nb", "$'a\\nb'", "one line"),
    ("bash", "é", "$'\\303\\251'", "the same in every locale"),
]


@pytest.mark.parametrize(("language", "value", "expected", "reason"), DEVIATIONS)
def test_deviations(language: str, value: Any, expected: str, reason: str) -> None:
    """Where papermill's text would arrive as another value, or not at all, ours differs."""
    found = languages.find(None, language)
    assert found is not None
    assert found.literal(value) == expected, reason


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("python", "# Parameters|x = 1"),
        ("R", "# Parameters|x = 1"),
        ("scala", "// Parameters|val x = 1"),
        ("julia", "# Parameters|x = 1"),
        ("matlab", "% Parameters|x = 1;"),
        ("C#", "// Parameters|var x = 1;"),
        ("F#", "(* Parameters *)|let x = 1"),
        ("powershell", "# Parameters|$x = 1"),
        ("bash", "# Parameters|x=1"),
        ("javascript", "// Parameters|let x = 1;"),
        ("rust", "// Parameters|let x = 1i64;"),
    ],
)
def test_comments_and_assignments(language: str, expected: str) -> None:
    """The two lines of an injected cell."""
    found = languages.find(None, language)
    assert found is not None
    assert f"{found.comment('Parameters')}|{found.assignment('x', 1)}" == expected
