"""R, as in IRkernel and xeus-r."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import TYPE_CHECKING

from jupyter_nbexec.languages import base, scripts, statements

if TYPE_CHECKING:
    from jupyter_nbexec import models

_EXACT_POWER = 22  # the largest power of ten that a double holds
_EXTENDED_BITS = 64  # of the long double that R computes literals in, where there is one


class R(base.Language):
    """How JSON is written in R.

    null `NULL` · booleans `TRUE`, `FALSE` · numbers as numeric (doubles, as R's own plain literals, so
    that `1` and `1.0` are one), integers beyond 2**53 refused · strings in double quotes · lists
    `list(…)` · objects `list("k" = …)`, the empty one and those
    with keys beyond ASCII `structure(list(…), names = …)`.
    Refused: NUL in strings, the empty key, nesting beyond 24, each of which R does not have.

    R reads some decimal literals one bit off. Those are written as hexadecimal floats instead.
    """

    name = "R"
    languages = frozenset({"r"})
    kernels = frozenset({"ir", "irkernel", "xr", "sparkrkernel", "r"})
    # A name may hold dots, but it must not begin as a number does.
    identifier = re.compile(r"(?:[^\W\d_]|\.(?![0-9]))[\w.]*")
    keywords = base.words(
        "if else repeat while function for next break in TRUE FALSE NULL Inf NaN NA NA_integer_ NA_real_ "
        "NA_complex_ NA_character_"
    )
    max_depth = 24  # R's parser takes 50 open brackets, and an object may need two
    null = "NULL"
    true = "TRUE"
    false = "FALSE"

    def check_name(self, name: str) -> str | None:
        """Refuse `...` and `..1` too, which stand for arguments."""
        if re.fullmatch(r"\.\.(?:\.|\d+)", name):
            return "is a keyword of R"
        return super().check_name(name)

    def string(self, text: str) -> str:
        """Write it with Unicode escapes only: R forbids to mix them with others that name bytes."""
        if "\0" in text:
            raise base.Unwritable("holds a NUL character, which R's strings cannot")
        return f'"{base.escape(text, base.C_SPECIAL, base.C_SHORT, base.wide_escape)}"'

    def integer(self, number: int) -> str:
        """Write it where a double holds it exactly."""
        return base.double_integer(number)

    def real(self, number: float) -> str:
        """Write it in decimals where R is sure to read them right, else in hexadecimal."""
        text = repr(number)
        if _reads_right(text):
            return text
        mantissa, exponent = math.frexp(number)
        if exponent > -1021:
            return re.sub(r"\.?0*p", "p", number.hex())
        # R reads a literal below the normal range as zero; a product of two exact ones is exact.
        return f"{int(math.ldexp(mantissa, exponent + 1074))} * 0x1p-537 * 0x1p-537"

    def array(self, values: list[models.JsonValue], written: list[str]) -> str:  # noqa: ARG002
        """Write a list, which may hold anything; a vector would convert its elements."""
        return f"list({', '.join(written)})"

    def mapping(self, values: dict[str, models.JsonValue], written: list[tuple[str, str]]) -> str:
        """Write a named list."""
        if "" in values:
            raise base.Unwritable("has an empty key, which R's named lists cannot")
        if not written:
            return "structure(list(), names = character(0))"
        if all(key.isascii() for key in values):
            return f"list({', '.join(f'{key} = {value}' for key, value in written)})"
        # The name of an argument is converted to the kernel's locale; an element of a vector is not.
        keys = ", ".join(key for key, _ in written)
        held = ", ".join(value for _, value in written)
        return f"structure(list({held}), names = c({keys}))"

    def infer(self, source: str) -> list[models.Parameter]:
        """Read `name <- value` and `name = value` at top level."""
        assigned = re.compile(r"\s*([^\W\d_][\w.]*|\.[\w.]*)\s*(?:<<?-|=(?!=))\s*(.*)", re.DOTALL)
        found = []
        for statement in statements.split(source, statements.R):
            match = assigned.fullmatch(statement.text)
            if match and self.check_name(match[1]) is None:
                found.append(scripts.parameter(match[1], match[2].strip(), statement.comment, _read))
        return scripts.last_of_each(found)


def _reads_right(text: str) -> bool:
    """Whether R reads this decimal exactly, be its long double 64 or 53 bits wide.

    R computes digits times or over a power of ten. With both exact that is one rounding, hence right; a
    wider long double makes it two, which differ from one only next to the middle between two doubles.
    """
    match = re.fullmatch(r"-?(\d+)(?:\.(\d+))?(?:e([+-]\d+))?", text)
    if match is None:
        return False
    digits = int(match[1] + (match[2] or ""))
    power = int(match[3] or 0) - len(match[2] or "")
    if digits == 0:
        return True
    if digits > 2**53 or abs(power) > _EXACT_POWER:
        return False
    exact = digits * Fraction(10) ** power
    return float(_round(exact, _EXTENDED_BITS)) == float(exact)


def _round(value: Fraction, bits: int) -> Fraction:
    """Round a positive number to this many binary digits, halves to even."""
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    if Fraction(2) ** exponent > value:
        exponent -= 1
    unit = Fraction(2) ** (exponent - bits + 1)
    return round(value / unit) * unit


def _read(text: str) -> scripts.Literal | None:
    """Read a literal of R."""
    if text in {"TRUE", "T", "FALSE", "F"}:
        return scripts.Literal("boolean", text[0] == "T")
    if text == "NULL":
        return scripts.Literal("any", None)
    if re.fullmatch(r"-?\d{1,9}L", text):
        return scripts.Literal("integer", int(text[:-1]))
    number = scripts.number(text)
    if number is not None:
        # A plain number of R is a double, whatever it looks like.
        return scripts.Literal("number", number.value)
    return scripts.string(text, "\"'")
