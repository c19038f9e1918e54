"""Languages without an interpreter here, read by their own lexical rules, written down independently.

Each `Grammar` says how a language reads a literal. Where a language converts the elements of a list to
one type, or unrolls lists, the reader does so too: what is then not equal was bent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_nbexec.languages import base, csharp, fsharp, julia, octave, powershell, rust, scala

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)
SAME_TYPE = st.one_of(
    st.lists(st.integers(-(2**40), 2**70)),
    st.lists(st.floats(allow_nan=False, allow_infinity=False)),
    st.lists(st.text()),
)


@dataclass(frozen=True, kw_only=True)
class Form:
    """The brackets of a list or map; `pair` are the signs before, between and after key and value."""

    opening: str
    separator: str
    closing: str
    pair: tuple[str, str, str] = ("", "", "")
    read: Callable[[Any], Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """How a language reads a literal."""

    language: base.Language
    start: str
    end: str
    string: str  #: a pattern of one string token
    decode: Callable[[str], str]
    numbers: dict[str, Callable[[str], Any]]
    words: dict[str, Any]
    lists: list[Form]
    maps: list[Form]
    wrappers: list[tuple[str, str]] = field(default_factory=list)
    joins: tuple[str, str] | None = None  #: brackets around strings that are joined


@dataclass(frozen=True)
class Boxed:
    """A value that F# was told to take as any object."""

    value: Any


def unbox(value: Any) -> Any:
    """Give what is in the box, if it is one."""
    return value.value if isinstance(value, Boxed) else value


class Reader:
    """Reads one literal; fails where there is more, or less."""

    def __init__(self, grammar: Grammar, text: str) -> None:
        self.grammar = grammar
        self.text = text
        self.position = 0

    def read_all(self) -> Any:
        """Read the assignment to `x`."""
        self.expect(self.grammar.start)
        value = self.value()
        self.expect(self.grammar.end)
        assert self.position == len(self.text), f"more than one statement: {self.text[self.position :]!r}"
        return value

    def skip(self, sign: str) -> bool:
        """Skip spaces and a sign, if it stands here."""
        while self.text.startswith(" ", self.position):
            self.position += 1
        if not self.text.startswith(sign.strip(), self.position):
            return False
        self.position += len(sign.strip())
        return True

    def expect(self, sign: str) -> None:
        """Skip a sign that has to be here."""
        assert self.skip(sign), f"{sign!r} expected at {self.text[self.position : self.position + 40]!r}"

    def match(self, pattern: str) -> str | None:
        """Take what a pattern matches here."""
        self.skip("")
        found = re.compile(pattern, re.DOTALL).match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return found[0]

    def value(self) -> Any:
        """Read any value."""
        grammar = self.grammar
        for opening, closing in grammar.wrappers:
            if self.skip(opening):
                value = self.value()
                self.expect(closing)
                return Boxed(value)
        joined = self.joined(*grammar.joins) if grammar.joins else None
        if joined is not None:
            return joined
        for word, meaning in grammar.words.items():
            if self.skip(word):
                return meaning
        for form in [*grammar.maps, *grammar.lists]:
            if self.skip(form.opening):
                return self.collection(form)
        return self.scalar()

    def collection(self, form: Form) -> Any:
        """Read the rest of a list or map."""
        if form in self.grammar.maps:
            return dict(self.items(form, self.pair))
        found = self.items(form, lambda _: self.value())
        if any(isinstance(item, Boxed) for item in found):
            return [unbox(item) for item in found]
        return form.read(found) if form.read else found

    def scalar(self) -> Any:
        """Read a number or a string."""
        for pattern, read in self.grammar.numbers.items():
            found = self.match(pattern)
            if found is not None:
                return read(found)
        return self.string()

    def string(self) -> str:
        """Read a string."""
        found = self.match(self.grammar.string)
        assert found is not None, f"no value at {self.text[self.position : self.position + 40]!r}"
        return self.grammar.decode(found)

    def joined(self, opening: str, closing: str) -> str | None:
        """Read strings that are joined; None where these brackets hold something else."""
        one = self.grammar.string
        found = self.match(rf"{re.escape(opening)}\s*(?:{one})(?:,\s*(?:{one}))*{re.escape(closing)}")
        if found is None:
            return None
        tokens = re.finditer(one, found, re.DOTALL)
        return "".join(self.grammar.decode(token[0]) for token in tokens)

    def items(self, form: Form, read: Callable[[Form], Any]) -> list[Any]:
        """Read what stands between brackets."""
        found: list[Any] = []
        while not self.skip(form.closing):
            if found:
                self.expect(form.separator)
            found.append(read(form))
        return found

    def pair(self, form: Form) -> tuple[str, Any]:
        """Read a key and its value."""
        before, between, after = form.pair
        self.expect(before)
        key = self.string()
        self.expect(between)
        value = self.value()
        self.expect(after)
        return key, unbox(value)


def promote(items: list[Any], *, booleans: bool = False) -> list[Any]:
    """Convert as a typed list does: integers beside floats, and in Julia booleans beside numbers."""
    kinds = {type(item) for item in items}
    numbers = kinds <= ({int, float, bool} if booleans else {int, float})
    return [float(item) for item in items] if numbers and len(kinds) > 1 else items


def unescape(short: dict[str, str], long: str, prefix: str = "\\\\") -> Callable[[str], str]:
    """Make a decoder: `short` names characters, `long` is a pattern whose group is hexadecimal."""

    def decode(token: str) -> str:
        inner = token[token.index('"') + 1 : token.rindex('"')]

        def one(match: re.Match[str]) -> str:
            digits = next((group for group in match.groups() if group), None)
            if digits is None:
                return short[match[0][1:]]
            code = int(digits, 16)
            return chr(code)

        decoded = re.sub(rf"{long}|{prefix}.", one, inner, flags=re.DOTALL)
        return decoded.encode("utf-16", "surrogatepass").decode("utf-16")

    return decode


C_SHORT = {'"': '"', "\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
C_STRING = r'"(?:\\.|[^"\\\n])*"'
UTF32 = r"\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})"
FLOAT = r"-?\d+(?:\.\d+(?:e[+-]\d+)?|e[+-]\d+)"


def decode_octave(token: str) -> str:
    """Read a string in single quotes, or one made of bytes."""
    if token.startswith("'"):
        return token[1:-1].replace("''", "'")
    return bytes(int(number) for number in token[token.index("[") + 1 : token.index("]")].split()).decode()


def decode_powershell(token: str) -> str:
    """Read a string in double quotes, in which a dollar sign would expand."""
    short = {'"': '"', "`": "`", "$": "$", "n": "\n", "r": "\r", "t": "\t", "0": "\0"}
    assert not re.search(r"(?<!`)(?:``)*\$(?!\(\[char\]0x[0-9A-F]+\))", token), token
    return unescape(short, r"\$\(\[char\]0x([0-9A-F]+)\)", "`")(token)


def unroll(items: list[Any]) -> list[Any]:
    """Read `@(…)` as PowerShell does: the output of one list inside is its elements."""
    return items[0] if len(items) == 1 and isinstance(items[0], list) else items


def only_one_type(items: list[Any]) -> list[Any]:
    """Fail where a language would not compile the list."""
    assert len({type(item) for item in items}) < 2, items
    return items


def integer(bits: int) -> Callable[[str], int]:
    """Make a reader of integers of so many bits; a suffix, or what stands around the digits, is cut."""

    def read(token: str) -> int:
        found = re.search(r"-?\d+", token)
        assert found is not None
        number = int(found[0])
        assert -(2 ** (bits - 1)) <= number < 2 ** (bits - 1), token
        return number

    return read


def real(token: str) -> float:
    """Read a float, with a suffix or without."""
    return float(token.removesuffix("f64"))


JULIA = Grammar(
    language=julia.Julia(),
    start="x = ",
    end="",
    string=r'"(?:\\.|[^"\\$])*"',
    decode=unescape({**C_SHORT, "$": "$"}, UTF32),
    numbers={FLOAT: real, r"-?\d+": int},
    words={"nothing": None, "true": True, "false": False},
    lists=[
        Form(opening="Any[", separator=",", closing="]"),
        Form(opening="[", separator=",", closing="]", read=lambda items: promote(items, booleans=True)),
    ],
    maps=[
        Form(opening="Dict{String,Any}(", separator=",", closing=")", pair=("", "=>", "")),
        Form(opening="Dict(", separator=",", closing=")", pair=("", "=>", "")),
    ],
)
SCALA = Grammar(
    language=scala.Scala(),
    start="val x = ",
    end="",
    string=C_STRING,
    decode=unescape({**C_SHORT, "b": "\b", "f": "\f"}, r"\\u([0-9a-f]{4})"),
    numbers={
        FLOAT: real,
        r"-?\d+L": integer(64),
        r"-?\d+": integer(32),
        r'BigInt\("-?\d+"\)': integer(20_000),
    },
    words={"None": None, "true": True, "false": False, "Seq.empty[Any]": [], "Map.empty[String, Any]": {}},
    lists=[
        Form(opening="Seq[Any](", separator=",", closing=")"),
        Form(opening="Seq(", separator=",", closing=")", read=promote),
    ],
    maps=[
        Form(opening="Map[String, Any](", separator=",", closing=")", pair=("", "->", "")),
        Form(opening="Map(", separator=",", closing=")", pair=("", "->", "")),
    ],
    joins=("Seq(", ").mkString"),
)
CSHARP = Grammar(
    language=csharp.CSharp(),
    start="var x = ",
    end=";",
    string=C_STRING,
    decode=unescape(C_SHORT, UTF32),
    numbers={
        FLOAT: real,
        r"-?\d+L": integer(64),
        r"-?\d+": integer(32),
        r'System\.Numerics\.BigInteger\.Parse\("-?\d+"\)': integer(20_000),
    },
    words={"(object)null": None, "true": True, "false": False, "new Dictionary<string,Object>()": {}},
    lists=[
        Form(opening="new object[] {", separator=",", closing="}"),
        Form(
            opening="new [] {", separator=",", closing="}", read=lambda items: only_one_type(promote(items))
        ),
    ],
    maps=[Form(opening="new Dictionary<string,Object>{", separator=",", closing="}", pair=("{", ",", "}"))],
)
FSHARP = Grammar(
    language=fsharp.FSharp(),
    start="let x = ",
    end="",
    string=C_STRING,
    decode=unescape(C_SHORT, UTF32),
    numbers={FLOAT: real, r"-?\d+L": integer(64), r"-?\d+I": integer(20_000), r"-?\d+": integer(32)},
    words={
        "None": None,
        "(null : obj)": None,
        "true": True,
        "false": False,
        "(Map.empty : Map<string, obj>)": {},
    },
    lists=[
        Form(opening="[", separator=";", closing="]", read=only_one_type),
    ],
    maps=[Form(opening="([", separator=";", closing="] |> Map.ofList)", pair=("(", ",", ")"))],
    wrappers=[("box (", ")")],
)
POWERSHELL = Grammar(
    language=powershell.PowerShell(),
    start="$x = ",
    end="",
    string=r'"(?:`.|\$\(\[char\]0x[0-9A-F]+\)|[^"`$])*"',
    decode=decode_powershell,
    numbers={FLOAT: real, r"-?\d+": integer(64), r"\[bigint\]::Parse\('-?\d+'\)": integer(20_000)},
    words={"$Null": None, "$True": True, "$False": False},
    lists=[
        Form(opening="@(,", separator=",", closing=")"),
        Form(opening="@(", separator=",", closing=")", read=unroll),
    ],
    maps=[Form(opening="@{", separator=";", closing="}", pair=("", "=", ""))],
)
OCTAVE = Grammar(
    language=octave.Octave(),
    start="x = ",
    end=";",
    string=r"'(?:''|[^'])*'|native2unicode\(uint8\(\[[0-9 ]+\]\), 'UTF-8'\)",
    decode=decode_octave,
    numbers={FLOAT: real, r"-?\d+": int},
    words={"[]": None, "true": True, "false": False, "containers.Map()": {}},
    lists=[Form(opening="{", separator=",", closing="}")],
    maps=[],
    joins=("[", "]"),
)
RUST = Grammar(
    language=rust.Rust(),
    start="let x = ",
    end=";",
    string=r'String::from\("(?:\\.|[^"\\])*"\)',
    decode=unescape({**C_SHORT, "0": "\0"}, r"\\u\{([0-9a-f]{1,6})\}"),
    numbers={FLOAT + "f64": real, r"-?\d+i64": integer(64), r"-?\d+i128": integer(128)},
    words={"true": True, "false": False},
    lists=[Form(opening="vec![", separator=",", closing="]", read=only_one_type)],
    maps=[],
)
GRAMMARS = [JULIA, SCALA, CSHARP, FSHARP, POWERSHELL, OCTAVE, RUST]

each_grammar = pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar.language.name)


def check(grammar: Grammar, value: Any) -> bool:
    """Write a value and read it back; False where the language refuses it."""
    try:
        written = grammar.language.assignment("x", value)
    except base.Unwritable:
        return False
    assert written.isascii()
    assert written.isprintable()
    if isinstance(value, dict | list) and not grammar.maps and "Map" in written:
        return True  # pairs are written apart from their values; checked below, or by the interpreter
    assert json.dumps(Reader(grammar, written).read_all()) == json.dumps(value)
    return True


@each_grammar
def test_values_read_back_equal(grammar: Grammar) -> None:
    """Whatever is written reads as the same value of the same type, and as one statement."""

    @settings(max_examples=250, deadline=None, derandomize=True, database=None)
    @given(value=VALUES | SAME_TYPE)
    def run(value: Any) -> None:
        check(grammar, value)

    run()


@each_grammar
def test_hostile_texts_stay_data(grammar: Grammar, texts: list[str]) -> None:
    """600 texts are read back, alone, in a list, and as a key."""
    for text in texts:
        assert check(grammar, text)
        assert check(grammar, [text, text])
        if grammar.maps:
            assert check(grammar, {text: [text]})
    assert check(grammar, "x" * 100_000)


@each_grammar
def test_mixed_lists_are_not_converted(grammar: Grammar) -> None:
    """Lists that a language would convert to one type are written otherwise, or refused."""
    mixed = [
        [1, 2.5],
        [True, 1],
        [1, 2**40],
        [1, 2**70],
        [[1], [2.5]],
        [[[1]]],
        [None],
        [None, 1],
        [{}],
        [[]],
        [{"a": 1}, {}],
    ]
    accepted = [check(grammar, value) for value in mixed if grammar is not OCTAVE or value != [1, 2**70]]
    assert all(accepted) or grammar is RUST
    assert check(grammar, [[1, 2], [], [3]])
    if grammar.maps:
        assert check(grammar, {"a": 1, "b": 2.5})
        assert check(grammar, {"a": None, "b": [None, [None]], "c": {"a": []}})


@pytest.mark.parametrize(
    "value",
    [
        None,
        [None],
        [],
        {},
        [[], []],
        [1, 2.5],
        [1, 2**70],
        [[1], ["a"]],
        {"a": 1, "b": "c"},
        2**127,
        [1, "a"],
    ],
)
def test_what_rust_has_no_type_for_is_refused(value: Any) -> None:
    """A list of several types does not compile, and the type of nothing is not known."""
    with pytest.raises(base.Unwritable):
        rust.Rust().literal(value)


def test_maps_of_rust() -> None:
    """Pairs are collected into a map whose type the values tell."""
    written = rust.Rust().literal({"a": [1], "b": []})
    assert written == (
        'vec![(String::from("a"), vec![1i64]), (String::from("b"), vec![])]'
        ".into_iter().collect::<std::collections::HashMap<String, _>>()"
    )


@pytest.mark.parametrize("value", [{"a": 1, "A": 2}, [{"é": 1, "É": 2}]])
def test_keys_that_powershell_takes_for_one_are_refused(value: Any) -> None:
    """A hashtable ignores case."""
    with pytest.raises(base.Unwritable, match="takes for one"):
        powershell.PowerShell().literal(value)
