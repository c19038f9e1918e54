"""The one class to subclass for a further language, and what its subclasses share.

A language is data (its words, its kernels) and a handful of small methods. `Language.literal` walks a
JSON value and asks the subclass to write each kind; so a subclass sees no recursion and no limits.

Two rules hold for every language here, and the tests check both:

* What is written is ASCII, on one line: neither the kernel's locale, nor a terminal in between, nor
  anybody's idea of what ends a line can change it.
* A value that the language cannot hold exactly raises `Unwritable`. Nothing is bent to fit.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jupyter_nbexec import models

MAX_DEPTH = 64
"""How deeply lists and objects may nest; deeper values are refused before any parser sees them."""

MAX_DIGITS = 4300
"""Decimal digits of the longest integer: what Python, which reads the request, converts at most."""

_TOO_LARGE = 10**MAX_DIGITS
_SAFE_INTEGER = 2**53


class Unwritable(ValueError):
    """The language cannot hold this value exactly."""

    def __init__(self, reason: str, path: tuple[str | int, ...] = ()) -> None:
        #: Why, as the end of a sentence that begins with the value's name.
        self.reason = reason
        #: Keys and indices that lead to the value.
        self.path = path
        super().__init__(f"at {write_path(path)}: {reason}" if path else reason)


def write_path(path: tuple[str | int, ...]) -> str:
    """Write a position inside a value for a person: `[3].name`."""
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{shorten(step)}" for step in path)
    return steps.removeprefix(".")


def shorten(text: str, limit: int = 60) -> str:
    """Cut a text that came from outside so that a message stays readable."""
    return text if len(text) <= limit else text[:limit] + "…"


def type_word(schema: Mapping[str, models.JsonValue]) -> str:
    """The one type that a JSON Schema allows beside null, else `any`."""
    members = schema.get("anyOf") or [schema]
    kinds: set[str] = set()
    for member in members:
        kind = member.get("type", "any") if isinstance(member, dict) else "any"
        kinds.update([kind] if isinstance(kind, str) else kind)
    kinds = kinds - {"null"} or kinds
    return kinds.pop() if len(kinds) == 1 else "any"


def words(text: str) -> frozenset[str]:
    """The words of a text; lists of keywords read better so."""
    return frozenset(text.split())


class Language:
    """How values are written in one language, and how the parameters of a cell are read.

    Subclass it, set `name` and `languages`, and override what differs from JSON's own notation.
    """

    #: What a person calls the language.
    name: ClassVar[str] = ""
    #: Language names (lower case) as kernelspecs and `language_info` spell them.
    languages: ClassVar[frozenset[str]] = frozenset()
    #: Kernel names (lower case) that mean this language, whatever the kernelspec says.
    kernels: ClassVar[frozenset[str]] = frozenset()
    #: What begins a comment that goes to the end of the line.
    comment_prefix: ClassVar[str] = "#"
    #: Words that cannot be names.
    keywords: ClassVar[frozenset[str]] = frozenset()
    #: Names that could be assigned to, but mean something to the language or to what we write.
    reserved: ClassVar[frozenset[str]] = frozenset()
    #: What an identifier looks like; None: a Unicode identifier as in UAX #31.
    identifier: ClassVar[re.Pattern[str] | None] = None
    #: How deeply a value may nest.
    max_depth: ClassVar[int] = MAX_DEPTH

    null: ClassVar[str] = "null"
    true: ClassVar[str] = "true"
    false: ClassVar[str] = "false"

    # What the rest of the program calls.

    def literal(self, value: models.JsonValue) -> str:
        """Write a JSON value as one expression; raise `Unwritable` where that is not exact."""
        return self._write(value, 0)

    def assignment(self, name: str, value: models.JsonValue, declaration: str = "") -> str:
        """Write one line that gives the value to the name.

        `declaration` is the code that runs before it, for languages in which the one depends on the
        other.
        """
        problem = self.check_name(name)
        if problem is not None:
            # Whoever forgets to check the names first must not be able to inject code.
            raise Unwritable(f"the name {problem}")
        return self.assign(name, value, declaration)

    def comment(self, text: str) -> str:
        """Write a comment of one line."""
        if len(text.splitlines()) > 1:
            raise ValueError("a comment is one line")
        return f"{self.comment_prefix} {text}".rstrip()

    def check_name(self, name: str) -> str | None:
        """Say what is wrong with the name of a variable, as the end of a sentence; None: nothing."""
        if not name:
            return "must not be empty"
        known = self.identifier
        if not (name.isidentifier() if known is None else known.fullmatch(name)):
            return f"is not an identifier of {self.name}"
        if name in self.keywords:
            return f"is a keyword of {self.name}"
        if name in self.reserved:
            return f"has a meaning of its own in {self.name}"
        return None

    def fold(self, name: str) -> str:
        """Map all spellings that the language takes for one name to one text."""
        return name

    def infer(self, source: str) -> list[models.Parameter] | None:  # noqa: ARG002 (for subclasses)
        """Read the parameters that a cell declares; None: this language's cells are not read."""
        return None

    # What a subclass overrides.

    def assign(self, name: str, value: models.JsonValue, declaration: str) -> str:  # noqa: ARG002
        """Write the assignment to a name that is known to be good."""
        return f"{name} = {self.literal(value)}"

    def string(self, text: str) -> str:
        """Write a string; it holds no lone surrogates."""
        raise NotImplementedError

    def integer(self, number: int) -> str:
        """Write an integer of at most `MAX_DIGITS` digits."""
        return str(number)

    def real(self, number: float) -> str:
        """Write a finite float so that it reads as a float, to the last bit."""
        return repr(number)

    def array(self, values: list[models.JsonValue], written: list[str]) -> str:
        """Write a list, given its values and what was written for each."""
        raise NotImplementedError

    def mapping(self, values: dict[str, models.JsonValue], written: list[tuple[str, str]]) -> str:
        """Write an object, given its values and what was written for each key and value."""
        raise NotImplementedError

    def _write(self, value: models.JsonValue, depth: int) -> str:
        if value is None:
            return self.null
        if isinstance(value, bool):
            return self.true if value else self.false
        if isinstance(value, str):
            return self._write_string(value)
        if isinstance(value, int):
            if not -_TOO_LARGE < value < _TOO_LARGE:
                raise Unwritable(f"is an integer of more than {MAX_DIGITS} digits")
            return self.integer(value)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise Unwritable("is not a finite number")
            return self.real(value)
        if isinstance(value, (list, dict)):
            if depth >= self.max_depth:
                raise Unwritable(f"nests more than {self.max_depth} levels deep")
            return (
                self._write_list(value, depth) if isinstance(value, list) else self._write_dict(value, depth)
            )
        raise Unwritable(f"is a {type(value).__name__}, which JSON does not have")

    def _write_string(self, text: str) -> str:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise Unwritable("holds a lone surrogate, which is not a Unicode character") from None
        return self.string(text)

    def _write_list(self, values: list[models.JsonValue], depth: int) -> str:
        written = []
        for index, value in enumerate(values):
            try:
                written.append(self._write(value, depth + 1))
            except Unwritable as error:
                raise Unwritable(error.reason, (index, *error.path)) from None
        return self.array(values, written)

    def _write_dict(self, values: dict[str, models.JsonValue], depth: int) -> str:
        written = []
        for key, value in values.items():
            if not isinstance(key, str):
                raise Unwritable("has a key that is no string, which JSON does not have")
            try:
                written.append((self._write_string(key), self._write(value, depth + 1)))
            except Unwritable as error:
                raise Unwritable(error.reason, (key, *error.path)) from None
        return self.mapping(values, written)


def escape(text: str, special: re.Pattern[str], short: Mapping[str, str], other: Callable[[str], str]) -> str:
    """Replace what `special` matches by its short escape, or else by what `other` makes of it."""
    return special.sub(lambda match: short.get(match[0]) or other(match[0]), text)


#: What C-like strings escape: all but printable ASCII, and the quote and the backslash.
C_SPECIAL = re.compile(r'[^ -~]|["\\]')

#: Escapes that all C-like languages here share.
C_SHORT: Mapping[str, str] = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def utf16_units(character: str) -> list[int]:
    """The UTF-16 code units of a character: one, or a surrogate pair."""
    raw = character.encode("utf-16-be")
    return [int.from_bytes(raw[start : start + 2], "big") for start in range(0, len(raw), 2)]


def utf16_escape(character: str) -> str:
    """Write a character as `\\uXXXX`, twice beyond the basic plane."""
    return "".join(f"\\u{unit:04x}" for unit in utf16_units(character))


def wide_escape(character: str) -> str:
    """Write a character as `\\uXXXX`, or as `\\UXXXXXXXX` beyond the basic plane."""
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def double_integer(number: int) -> str:
    """Write an integer for a language whose numbers are doubles; refuse those it would round."""
    if abs(number) > _SAFE_INTEGER:
        raise Unwritable("is an integer beyond 2**53, which a double would round")
    return str(number)


def uniform(values: list[models.JsonValue]) -> type | None:
    """The one scalar type (bool, int, float, str) of all values; None where they differ or are none."""
    kinds = {type(value) for value in values}
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    return kind if kind in (bool, int, float, str) else None


def all_of(values: list[models.JsonValue], kind: type) -> bool:
    """Whether every value is of exactly this type."""
    return all(type(value) is kind for value in values)
