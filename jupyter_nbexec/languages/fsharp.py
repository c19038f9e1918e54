"""F#, as in .NET Interactive (Polyglot Notebooks)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_nbexec.languages import base

if TYPE_CHECKING:
    from jupyter_nbexec import models


class FSharp(base.Language):
    """How JSON is written in F#.

    null `None`, within lists and objects `(null : obj)` · booleans `true`, `false` · integers int, `…L`
    int64 beyond 32 bits, `…I` bigint beyond 64 · floats float · strings string · lists `[ a; b ]` of
    one type, else `[ box (a); box (b) ]` · objects `[ ("k", box (…)) ] |> Map.ofList`, a
    `Map<string, obj>`. Nothing is refused.
    """

    name = "F#"
    languages = frozenset({"f#", "fsharp"})
    kernels = frozenset({".net-fsharp"})
    comment_prefix = "//"
    keywords = base.words(
        "abstract and as asr assert atomic base begin break checked class component const constraint "
        "constructor continue default delegate do done downcast downto elif else end event exception extern "
        "external false finally fixed for fun function functor global if in include inherit inline interface "
        "internal land lazy let lor lsl lsr lxor match member method mixin mod module mutable namespace new "
        "not null object of open or override parallel private process protected public pure rec return "
        "sealed select sig static struct tailcall then to trait true try type upcast use val virtual void "
        "volatile when while with yield"
    )
    # A union case on the left of `let` is a pattern, not a name.
    reserved = base.words("_ Error Map None Ok Some ValueNone ValueSome box obj string")
    null = "None"

    def comment(self, text: str) -> str:
        """Write a block comment, as papermill does."""
        if "*)" in text or "(*" in text:
            raise ValueError("a comment of F# cannot hold its own signs")
        return f"(* {super().comment(text).removeprefix('//').strip()} *)"

    def assign(self, name: str, value: models.JsonValue, declaration: str) -> str:  # noqa: ARG002
        """Bind the name; a notebook's later binding hides the earlier one."""
        return f"let {name} = {self.literal(value)}"

    def string(self, text: str) -> str:
        """Write it with escapes of fixed length: `\\ddd` would be decimal."""
        return f'"{base.escape(text, base.C_SPECIAL, base.C_SHORT, base.wide_escape)}"'

    def integer(self, number: int) -> str:
        """Write it in the smallest of int, int64 and bigint."""
        if -(2**31) <= number < 2**31:
            return str(number)
        return f"{number}L" if -(2**63) <= number < 2**63 else f"{number}I"

    def array(self, values: list[models.JsonValue], written: list[str]) -> str:
        """Write a list; F# converts nothing, so elements of several types are boxed."""
        if not written:
            return "[]"
        alike = len(values) == 1 or _one_type(values, written) or base.all_of(values, dict)
        plain = alike and None not in values
        elements = written if plain else [_boxed(*pair) for pair in zip(values, written, strict=True)]
        return f"[ {'; '.join(elements)} ]"

    def mapping(self, values: dict[str, models.JsonValue], written: list[tuple[str, str]]) -> str:
        """Write a Map of boxed values."""
        if not written:
            return "(Map.empty : Map<string, obj>)"
        pairs = zip(values.values(), written, strict=True)
        entries = "; ".join(f"({key}, {_boxed(value, text)})" for value, (key, text) in pairs)
        return f"([ {entries} ] |> Map.ofList)"


def _boxed(value: models.JsonValue, text: str) -> str:
    return "(null : obj)" if value is None else f"box ({text})"


def _one_type(values: list[models.JsonValue], written: list[str]) -> bool:
    """Whether scalars have one type, counting int, int64 and bigint as several."""
    kind = base.uniform(values)
    if kind is not int:
        return kind is not None
    return len({text[-1] if text[-1].isalpha() else "" for text in written}) == 1
