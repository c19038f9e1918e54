"""C#, as in .NET Interactive (Polyglot Notebooks)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_nbexec.languages import base

if TYPE_CHECKING:
    from jupyter_nbexec import models


class CSharp(base.Language):
    """How JSON is written in C#.

    null `(object)null` · booleans `true`, `false` · integers int, `…L` long beyond 32 bits,
    `System.Numerics.BigInteger.Parse("…")` beyond 64 · floats double · strings string · lists
    `new [] { … }` of one kind, else `new object[] { … }`, because `new [] { 1, 2.5 }` would convert ·
    objects `new Dictionary<string,Object>{ { "k" , … } }`. Nothing is refused.
    """

    name = "C#"
    languages = frozenset({"c#", "csharp"})
    kernels = frozenset({".net-csharp"})
    comment_prefix = "//"
    keywords = base.words(
        "abstract as base bool break byte case catch char checked class const continue decimal default "
        "delegate do double else enum event explicit extern false finally fixed float for foreach goto if "
        "implicit in int interface internal is lock long namespace new null object operator out override "
        "params private protected public readonly ref return sbyte sealed short sizeof stackalloc static "
        "string struct switch this throw true try typeof uint ulong unchecked unsafe ushort using virtual "
        "void volatile while await var"
    )
    reserved = base.words("_ Dictionary Object System")
    null = "(object)null"

    def assign(self, name: str, value: models.JsonValue, declaration: str) -> str:  # noqa: ARG002
        """Declare a variable; a notebook's later declaration hides the earlier one."""
        return f"var {name} = {self.literal(value)};"

    def string(self, text: str) -> str:
        """Write it with escapes of fixed length: `\\x` would swallow the digits that follow."""
        return f'"{base.escape(text, base.C_SPECIAL, base.C_SHORT, base.wide_escape)}"'

    def integer(self, number: int) -> str:
        """Write it in the smallest of int, long and BigInteger."""
        if -(2**31) <= number < 2**31:
            return str(number)
        if -(2**63) <= number < 2**63:
            return f"{number}L"
        return f'System.Numerics.BigInteger.Parse("{number}")'

    def array(self, values: list[models.JsonValue], written: list[str]) -> str:
        """Write an array whose element type converts nothing."""
        if not written:
            return "new object[] { }"
        one_type = (
            (len(values) == 1 and values[0] is not None) or base.uniform(values) or base.all_of(values, dict)
        )
        return f"new {'' if one_type else 'object'}[] {{ {', '.join(written)} }}"

    def mapping(self, values: dict[str, models.JsonValue], written: list[tuple[str, str]]) -> str:  # noqa: ARG002
        """Write a dictionary."""
        entries = ", ".join(f"{{ {key} , {value} }}" for key, value in written)
        return (
            f"new Dictionary<string,Object>{{ {entries} }}" if entries else "new Dictionary<string,Object>()"
        )
