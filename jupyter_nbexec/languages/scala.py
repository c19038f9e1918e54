"""Scala, as in Almond, Apache Toree and Spark's kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_nbexec.languages import base

if TYPE_CHECKING:
    from jupyter_nbexec import models

_SHORT = {**base.C_SHORT, "\b": "\\b", "\f": "\\f"}
_CONSTANT_BYTES = 65_535  # of one string constant in a class file
_CHUNK = 8_000  # characters; a character takes at most 6 bytes in a class file


class Scala(base.Language):
    """How JSON is written in Scala.

    null `None` · booleans `true`, `false` · integers Int, `…L` Long beyond 32 bits, `BigInt("…")`
    beyond 64 · floats Double · strings String (very long ones joined from pieces) · lists `Seq(…)`,
    `Seq[Any](…)` where the kinds differ, because `Seq(1, 2.5)` would convert · objects
    `Map("k" -> …)`, with mixed values `Map[String, Any](…)`. Nothing is refused; a literal that is too
    large for one method of the JVM fails to compile.
    """

    name = "Scala"
    languages = frozenset({"scala"})
    kernels = frozenset({"sparkkernel", "almond", "spylon-kernel", "scala", "apache_toree_scala"})
    comment_prefix = "//"
    keywords = base.words(
        "abstract case catch class def do else enum export extends false final finally for forSome given if "
        "implicit import lazy macro match new null object override package private protected return sealed "
        "super then this throw trait true try type val var while with yield"
    )
    reserved = base.words("_ Any BigInt Map None Seq String")
    null = "None"

    def assign(self, name: str, value: models.JsonValue, declaration: str) -> str:  # noqa: ARG002
        """Define a value; a notebook's later definition hides the earlier one."""
        return f"val {name} = {self.literal(value)}"

    def string(self, text: str) -> str:
        """Write it; quotes and line ends by name, since older compilers expand `\\u000a` first."""
        if len(text) * 6 > _CONSTANT_BYTES:
            pieces = (text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK))
            return f"Seq({', '.join(map(self._quote, pieces))}).mkString"
        return self._quote(text)

    def integer(self, number: int) -> str:
        """Write it in the smallest of Int, Long and BigInt."""
        if -(2**31) <= number < 2**31:
            return str(number)
        return f"{number}L" if -(2**63) <= number < 2**63 else f'BigInt("{number}")'

    def array(self, values: list[models.JsonValue], written: list[str]) -> str:
        """Write a Seq whose element type widens nothing."""
        if not written:
            return "Seq.empty[Any]"
        return f"Seq{'' if _alike(values) else '[Any]'}({', '.join(written)})"

    def mapping(self, values: dict[str, models.JsonValue], written: list[tuple[str, str]]) -> str:
        """Write a Map whose value type widens nothing."""
        if not written:
            return "Map.empty[String, Any]"
        pairs = ", ".join(f"{key} -> {value}" for key, value in written)
        return f"Map{'' if _alike(list(values.values())) else '[String, Any]'}({pairs})"

    def _quote(self, text: str) -> str:
        return f'"{base.escape(text, base.C_SPECIAL, _SHORT, base.utf16_escape)}"'


def _alike(values: list[models.JsonValue]) -> bool:
    """Whether no value is converted to another's type: only numbers among themselves are."""
    if len(values) == 1 or base.uniform(values) is not None:
        return True
    return base.all_of(values, dict) or base.all_of(values, list)
