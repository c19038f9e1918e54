"""Which language a kernel gets, and what other packages may add."""

from __future__ import annotations

import logging
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_nbexec import languages
from jupyter_nbexec.languages import base, python

if TYPE_CHECKING:
    from tests.languages.conftest import MakeValues


@pytest.mark.parametrize(
    ("kernel", "language", "expected"),
    [
        ("python3", "python", "Python"),
        ("my-env", "Python", "Python"),
        ("xpython", None, "Python"),
        ("python3", None, "Python"),
        ("python3.12", "", "Python"),
        ("pysparkkernel", "scala", "Python"),
        ("sparkkernel", "python", "Scala"),
        ("sparkrkernel", "python", "R"),
        ("ir", "R", "R"),
        ("r", "", "R"),
        ("julia-1.10", None, "Julia"),
        ("julia-1.10", "julia", "Julia"),
        ("deno", "typescript", "JavaScript"),
        ("javascript", "javascript", "JavaScript"),
        ("bash", "bash", "bash"),
        ("octave", "octave", "Octave"),
        ("jupyter_matlab_kernel", "matlab", "Octave"),
        (".net-csharp", "C#", "C#"),
        (".net-fsharp", "F#", "F#"),
        (".net-powershell", "PowerShell", "PowerShell"),
        ("any", "pwsh", "PowerShell"),
        ("any", "C#", "C#"),
        ("rust", "rust", "Rust"),
        ("scala212", "scala", "Scala"),
        ("fakelang2000", "fakelang", None),
        ("sql", "sql", None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_find(kernel: str | None, language: str | None, expected: str | None) -> None:
    """The kernel's name decides, then the language, then the kernel's name without its version."""
    found = languages.find(kernel, language)
    assert (found and found.name) == expected


class Shouting(base.Language):
    """A language from elsewhere, that also claims one of ours."""

    name = "Shouting"
    languages = frozenset({"shouting", "python"})

    def string(self, text: str) -> str:
        """Write it loudly."""
        return repr(text.upper())


def test_other_packages_add_languages(caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be loaded is logged and left out; what is ours stays ours."""
    group = languages.ENTRY_POINT_GROUP
    points = [
        EntryPoint(name="missing", value="no_such_module:Thing", group=group),
        EntryPoint(name="wrong", value="builtins:dict", group=group),
        EntryPoint(name="broken", value="builtins:NotImplemented", group=group),
        EntryPoint(name="shouting", value=f"{__name__}:Shouting", group=group),
    ]
    with caplog.at_level(logging.ERROR):
        added = languages.load(_load_here(point) for point in points)
    assert [language.name for language in added] == ["Shouting"]
    assert [record.getMessage().split("'")[1] for record in caplog.records] == ["missing", "wrong", "broken"]
    registry = languages.Registry([*languages.BUILT_IN, *added])
    python = registry.find(None, "python")
    shouting = registry.find(None, "SHOUTING")
    assert python is not None
    assert python.name == "Python"
    assert shouting is not None
    assert shouting.assignment("x", "a") == "x = 'A'"


class _Here(EntryPoint):
    """An entry point to this module, which pytest imports under a name of its own."""

    def load(self) -> Any:
        """Give the class."""
        return Shouting


def _load_here(point: EntryPoint) -> EntryPoint:
    if point.name != "shouting":
        return point
    return _Here(name=point.name, value=point.value, group=point.group)


each_language = pytest.mark.parametrize("language", languages.BUILT_IN, ids=lambda language: language.name)


@each_language
def test_hostile_names_are_refused_everywhere(language: base.Language, hostile_names: list[str]) -> None:
    """500 names are refused by the check, and again where one forgets to check."""
    assert len(hostile_names) == 500
    for name in hostile_names:
        assert language.check_name(name) is not None, name
        with pytest.raises(base.Unwritable):
            language.assignment(name, 1)


@each_language
def test_written_lines_are_single_lines_of_ascii(
    language: base.Language, make_values: MakeValues, texts: list[str]
) -> None:
    """No value makes a second line, nor depends on an encoding."""
    for value in [*make_values(300, seed=9), *texts]:
        try:
            line = language.assignment("x", value)
        except base.Unwritable:
            continue
        assert line.isascii()
        assert line.isprintable()


@each_language
@pytest.mark.parametrize(
    "value", ["\ud800", "a\udfff", ["\udc00"], {"\ud800": 1}, float("nan"), float("inf"), [-float("inf")]]
)
def test_what_is_no_json_is_refused_everywhere(language: base.Language, value: Any) -> None:
    """Lone surrogates are no Unicode, and JSON has no NaN."""
    with pytest.raises(base.Unwritable):
        language.literal(value)


@each_language
@pytest.mark.parametrize(
    "value", [(1, 2), {1: 2}, b"x", {1}, object(), 10**4300], ids=lambda value: type(value).__name__
)
def test_what_json_does_not_have_is_refused_everywhere(language: base.Language, value: Any) -> None:
    """Nothing is turned into a string by the way."""
    with pytest.raises(base.Unwritable):
        language.literal(value)


def deep(levels: int) -> Any:
    """Nest a list that often."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@each_language
def test_depth_is_bounded_everywhere(language: base.Language) -> None:
    """A value deeper than Python can recurse is refused before anything recurses into it."""
    with pytest.raises(base.Unwritable):
        language.literal(deep(10_000))


def test_no_depth_is_too_much() -> None:
    """A million levels, which would overflow the stack of the process itself, are refused alike."""
    value = deep(1_000_000)
    with pytest.raises(base.Unwritable):
        python.Python().literal(value)
    while isinstance(value, list):  # freeing it in one go would overflow the stack of older Pythons
        (value,) = value


@each_language
def test_comments_are_one_line(language: base.Language) -> None:
    """Only the words `Parameters` are ever written, but a subclass may write others."""
    assert language.comment("Parameters").isprintable()
    with pytest.raises(ValueError, match="one line"):
        language.comment("a\nb")


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [("python", "\uff58", "x"), ("powershell", "X", "x"), ("julia", "e\u0301", "é"), ("r", "x", "x")],
)
def test_spellings_of_one_name(language: str, one: str, other: str) -> None:
    """Names that the language takes for one fold to the same."""
    found = languages.find(None, language)
    assert found is not None
    assert found.fold(one) == found.fold(other)
    assert found.fold("x") != found.fold("y")
