"""What cells declare: Python from the syntax tree, R and Julia from their lines."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_nbexec import models
from jupyter_nbexec.languages import bash, julia, python, r

FIXTURES = Path(__file__).parent.parent / "fixtures" / "papermill"
MISSING = models.MISSING


def declared(source: str) -> dict[str, tuple[str, Any, str]]:
    """Type, default (or its source, in angle brackets) and description of each name."""
    return {entry.name: summary(entry) for entry in python.Python().infer(source)}


def summary(entry: models.Parameter) -> tuple[str, Any, str]:
    """Type, default and description."""
    default = entry.default if entry.default_source is None else f"<{entry.default_source}>"
    return entry.type, default, entry.description


def schema_of(annotation: str) -> Any:
    """The schema of an annotation."""
    (entry,) = python.Python().infer(f"x: {annotation}")
    return entry.schema


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a = 'x=y'", {"a": ("string", "x=y", "")}),
        ("a = f(x=1)", {"a": ("any", "<f(x=1)>", "")}),
        ("a = 1; b = 2", {"a": ("integer", 1, ""), "b": ("integer", 2, "")}),
        ("a: int | None = 3", {"a": ("integer", 3, "")}),
        ("a = '#x'", {"a": ("string", "#x", "")}),
        ("a = '#x'  # real", {"a": ("string", "#x", "real")}),
        ("a: dict[str, int] = {'k': 1}", {"a": ("object", {"k": 1}, "")}),
        ("a = 1 == 2", {"a": ("any", "<1 == 2>", "")}),
        ("if True:\n    a = 1", {}),
        ("def f():\n    a = 1", {}),
        ("if True: a = 1; b = 2", {}),
        ("a: int", {"a": ("integer", MISSING, "")}),
        ("a = b = 1", {"a": ("integer", 1, ""), "b": ("integer", 1, "")}),
        (
            "a, (b, c) = 1, ('x', None)",
            {"a": ("integer", 1, ""), "b": ("string", "x", ""), "c": ("any", None, "")},
        ),
        ("a, *b = 1, 2", {"a": ("any", "<1, 2>", ""), "b": ("any", "<1, 2>", "")}),
        ("a, b = f()", {"a": ("any", "<f()>", ""), "b": ("any", "<f()>", "")}),
        ("a = (\n  1,\n  2,\n)  # pair", {"a": ("array", [1, 2], "pair")}),
        ("a = [  # all\n  1,\n]", {"a": ("array", [1], "all")}),
        ("a = '''x\ny = 1\n'''", {"a": ("string", "x\ny = 1\n", "")}),
        ("a = -7 # int", {"a": ("integer", -7, "int")}),
        ("a = 1 # type: float rate", {"a": ("number", 1, "rate")}),
        ("a = [] # type: List[ str ] | None a list", {"a": ("array", [], "a list")}),
        ("a = 1 # type: ignore", {"a": ("integer", 1, "")}),
        ("a = 1 # type: of fuel", {"a": ("integer", 1, "type: of fuel")}),
        ("a = False # comment:bool", {"a": ("boolean", False, "comment:bool")}),
        ("a = 'x' 'y'", {"a": ("string", "xy", "")}),
        ("a = f'{b}'", {"a": ("string", "<f'{b}'>", "")}),
        ("a = 1e999", {"a": ("any", "<1e999>", "")}),
        ("a = b'x'", {"a": ("any", "<b'x'>", "")}),
        ("a = {1, 2}", {"a": ("any", "<{1, 2}>", "")}),
        ("a = 1j", {"a": ("any", "<1j>", "")}),
        ("a = {1: 2}", {"a": ("object", "<{1: 2}>", "")}),
        ("a = {**b}", {"a": ("object", "<{**b}>", "")}),
        ("a = [x for x in y]", {"a": ("array", "<[x for x in y]>", "")}),
        ("a = '\\ud800'", {"a": ("any", "<'\\ud800'>", "")}),
        ("a = ...", {"a": ("any", "<...>", "")}),
        ("a = 1\na += 1", {"a": ("any", "<a += 1>", "")}),
        ("a: int\na = 2.5", {"a": ("integer", 2.5, "")}),
        ("a = 1 # first\na = 2", {"a": ("integer", 2, "first")}),
        (
            "a = 1\r\nb = 2\rc = 3",
            {"a": ("integer", 1, ""), "b": ("integer", 2, ""), "c": ("integer", 3, "")},
        ),
        ("é = 'x'; b = g(é)", {"é": ("string", "x", ""), "b": ("any", "<g(é)>", "")}),
        ("\uff58 = 1", {"x": ("integer", 1, "")}),
        ("__all__ = []\n_x = 1", {"_x": ("integer", 1, "")}),
        ("a.b = 1; c[0] = 2; import d; del e", {}),
        ("a = x = lambda: 0", {"a": ("any", "<lambda: 0>", ""), "x": ("any", "<lambda: 0>", "")}),
        ("# only a comment", {}),
        ("", {}),
    ],
)
def test_lines_of_python(line: str, expected: dict[str, Any]) -> None:
    """Assignments at top level are read as Python reads them."""
    assert declared(line) == expected


@pytest.mark.parametrize(
    "source",
    [
        "a = 1\n%matplotlib inline\nb = 2",
        "a = 1\n!ls -l | grep 'x\nb = 2",
        "a = 1\nprint?\nb = 2",
        "a = 1\n= 3\nb = 2",
        "a = 1\nbroken = (1,\nb = 2",
        "a = 1\nbroken = '''\nb = 2",
        "a = 1\nfor x in y\n    c = 3\nb = 2",
        "%%time\na = 1\nb = 2",
        "a = 1\n\tc = 2\nb = 2",
    ],
)
def test_what_parses_counts(source: str) -> None:
    """Magics and mistakes cost their own statement, no other."""
    found = declared(source)
    assert found["a"] == ("integer", 1, "")
    assert found["b"] == ("integer", 2, "")
    assert set(found) == {"a", "b"}


def test_a_cell_of_another_language_declares_nothing() -> None:
    """A cell magic hands the cell to somebody else."""
    assert declared("%%bash\na=1") == {}


def test_commands_and_magics_are_defaults() -> None:
    """IPython assigns what a command prints."""
    assert declared("a = !ls\nb = %pwd") == {"a": ("any", "<!ls>", ""), "b": ("any", "<%pwd>", "")}


def test_papermills_complex_notebook() -> None:
    """P6; and `d`, which papermill cannot see, with the source of its default."""
    notebook = json.loads((FIXTURES / "complex_parameters.ipynb").read_text())
    assert declared("".join(notebook["cells"][0]["source"])) == {
        "msg": ("any", None, ""),
        "a": ("number", 2.25, "Variable a"),
        "b": ("array", ["Hello", "World"], "Nice list"),
        "c": ("null", None, ""),
        "d": ("any", "<a == 3>", ""),
    }


def test_nbparameterises_sample() -> None:
    """P10; a dict with keys that JSON does not have is shown by its source."""
    source = (
        "a = 'Some text'\nb = 12\nb2 = -7\nc = 14.0\nd = False  # comment:bool\n"
        "e = [0, 1.0, True, 'text', [0, 1]]\nf = {0: 0, 'item': True, 'dict': {0: 'text'}}\ncafé = 'καφές'\n"
    )
    assert declared(source) == {
        "a": ("string", "Some text", ""),
        "b": ("integer", 12, ""),
        "b2": ("integer", -7, ""),
        "c": ("number", 14.0, ""),
        "d": ("boolean", False, "comment:bool"),
        "e": ("array", [0, 1.0, True, "text", [0, 1]], ""),
        "f": ("object", "<{0: 0, 'item': True, 'dict': {0: 'text'}}>", ""),
        "café": ("string", "καφές", ""),
    }


INTEGER = {"type": "integer"}
TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("int", INTEGER),
        ("float", {"type": "number"}),
        ("str", TEXT),
        ("bool", {"type": "boolean"}),
        ("None", {"type": "null"}),
        ("Any", {}),
        ("object", {}),
        ("list", {"type": "array"}),
        ("dict", {"type": "object"}),
        ("tuple", {"type": "array"}),
        ("list[int]", {"type": "array", "items": INTEGER}),
        ("List[str]", {"type": "array", "items": TEXT}),
        ("typing.List[str]", {"type": "array", "items": TEXT}),
        ("t.Sequence[list[int]]", {"type": "array", "items": {"type": "array", "items": INTEGER}}),
        ("dict[str, int]", {"type": "object", "additionalProperties": INTEGER}),
        ("Mapping[str, Any]", {"type": "object"}),
        ("tuple[int, ...]", {"type": "array", "items": INTEGER}),
        ("tuple[()]", {"type": "array", "maxItems": 0}),
        ("tuple[int, str]", {"type": "array", "prefixItems": [INTEGER, TEXT], "minItems": 2, "maxItems": 2}),
        ("Literal['a', 'b']", {"type": "string", "enum": ["a", "b"]}),
        ("Literal[1, 'a', None]", {"type": ["integer", "string", "null"], "enum": [1, "a", None]}),
        ("Literal[-1]", {"type": "integer", "enum": [-1]}),
        ("Optional[int]", {"type": ["integer", "null"]}),
        ("Optional[Literal[1]]", {"anyOf": [{"type": "integer", "enum": [1]}, {"type": "null"}]}),
        ("Optional[date]", {"type": ["string", "null"], "format": "date"}),
        ("Union[int, str]", {"type": ["integer", "string"]}),
        ("int | str | None", {"type": ["integer", "string", "null"]}),
        ("int | list[str]", {"anyOf": [INTEGER, {"type": "array", "items": TEXT}]}),
        ("int | Unknown", {}),
        ("date", {"type": "string", "format": "date"}),
        ("dt.datetime", {"type": "string", "format": "date-time"}),
        ("Annotated[int, Gt(0)]", INTEGER),
        ("Final[int]", INTEGER),
        ("'int'", INTEGER),
        ("'list[\"int\"]'", {"type": "array", "items": INTEGER}),
        ("builtins.int", INTEGER),
        ("np.int64", {}),
        ("pd.DataFrame", {}),
        ("list[Unknown]", {"type": "array"}),
        ("'not python'", {}),
        ("f(x)", {}),
        ("3", {}),
        ("set[int]", {}),
    ],
)
def test_annotations(annotation: str, expected: Any) -> None:
    """Each becomes JSON Schema; what is not known constrains nothing."""
    assert schema_of(annotation) == expected


def test_a_default_of_none_allows_null() -> None:
    """`x: int = None` is common, and its default must be acceptable."""
    (entry,) = python.Python().infer("x: int = None")
    assert entry.schema == {"type": ["integer", "null"]}
    assert not entry.required


@pytest.mark.parametrize(
    "source",
    [
        "a = " + "(" * 100_000,
        "a = " + "-" * 100_000 + "1",
        "a = 1" + "+1" * 50_000,
        "a = x" + ".y" * 50_000,
        "(\n" * 20_000,
        '"""\\"' * 30_000,
        "a = '\0'",
        "a = " + "not " * 50_000 + "1",
        "a: int" + "|int" * 30_000,
        "a: " + "list[" * 150 + "int" + "]" * 150,
        "a=f();" * 20_000,
        "a = 1\n" * 20_000,
        "".join(f"a{number} = " for number in range(5_000)) + "1",
        ", ".join(f"a{number}" for number in range(900)) + " = f()",
        "#" * 500_000,
        "'" * 300_000,
    ],
    ids=range(16),
)
def test_hostile_cells_cost_little(source: str) -> None:
    """No cell crashes the reader or takes more than linear time."""
    start = time.perf_counter()
    python.Python().infer(source)
    r.R().infer(source)
    julia.Julia().infer(source)
    assert time.perf_counter() - start < 10


@settings(max_examples=400, deadline=None, derandomize=True)
@given(source=st.text(alphabet="ab=:;'\"#\\\n ()[]{},1-%!é\t", max_size=60))
def test_any_text_can_be_read(source: str) -> None:
    """Whatever stands in the cell, what is found can be described and given."""
    for entry in python.Python().infer(source):
        json.dumps(entry.to_json(), allow_nan=False)
        assert python.Python().check_name(entry.name) is None
    r.R().infer(source)
    julia.Julia().infer(source)


def test_lines_of_r() -> None:
    """Literals by their R type, everything else by its source; only at top level."""
    source = """rows <- 10L # how many
rate = 2.5
size <- 10
name <- "a;b#c"; ok <- TRUE   # both
none = NULL
f <- function(x) {
  inner <- 3
}
z <- c(1,
       2) # vector
s <- 'it\\'s'
x == 3
y <<- -1e3
`odd name` <- 1
_bad <- 1
broken <- "
never <- 1"""
    assert {entry.name: summary(entry) for entry in r.R().infer(source)} == {
        "rows": ("integer", 10, "how many"),
        "rate": ("number", 2.5, ""),
        "size": ("number", 10, ""),
        "name": ("string", "a;b#c", "both"),
        "ok": ("boolean", True, "both"),
        "none": ("any", None, ""),
        "f": ("any", "<function(x) {\n  inner <- 3\n}>", ""),
        "z": ("any", "<c(1,\n       2)>", "vector"),
        "s": ("string", "it's", ""),
        "y": ("number", -1000.0, ""),
        "broken": ("any", '<"\nnever <- 1>', ""),
    }


def test_lines_of_julia() -> None:
    """Literals by their type or the declared one; nothing from inside a block."""
    source = """rows = 10 # how many
x::Float64 = 2 #= remark =#
name = "a;b#c"
const on = true
function f(x)
    inner = 3
end
if on; other = 1; end
z = [1,
     2]
s = "a$(x)"
e = z[end]
none = nothing
on == true
t = A'
u = \"\"\"text\"\"\"
"""
    assert {entry.name: summary(entry) for entry in julia.Julia().infer(source)} == {
        "rows": ("integer", 10, "how many"),
        "x": ("number", 2, ""),
        "name": ("string", "a;b#c", ""),
        "on": ("boolean", True, ""),
        "z": ("any", "<[1,\n     2]>", ""),
        "s": ("any", '<"a$(x)">', ""),
        "e": ("any", "<z[end]>", ""),
        "none": ("any", None, ""),
        "t": ("any", "<A'>", ""),
        "u": ("any", '<"""text""">', ""),
    }


def test_other_languages_are_not_read() -> None:
    """None, not an empty list: any name may be given."""
    assert bash.Bash().infer("x=1") is None
