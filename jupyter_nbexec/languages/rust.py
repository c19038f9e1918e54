"""Rust, as in evcxr."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from jupyter_nbexec.languages import base

if TYPE_CHECKING:
    from jupyter_nbexec import models

_SHORT = {**base.C_SHORT, "\0": "\\0"}

#: The type of a value: the name of a scalar, or ("Vec" | "Map", type of the elements); None: any.
_Type: TypeAlias = "str | tuple[str, _Type] | None"


class Rust(base.Language):
    """How JSON is written in Rust, where every element of a list has one type.

    booleans `true`, `false` · integers `…i64`, `…i128` beyond 64 bits · floats `…f64` · strings String ·
    lists `vec![…]` · objects `HashMap<String, _>`. Refused, because Rust has no type for them: null,
    lists and objects of mixed types, empty ones unless their neighbours tell the type, and integers
    beyond 128 bits.
    """

    name = "Rust"
    languages = frozenset({"rust"})
    kernels = frozenset({"rust", "evcxr"})
    comment_prefix = "//"
    keywords = base.words(
        "Self abstract as async await become box break const continue crate do dyn else enum extern false "
        "final fn for gen if impl in let loop macro match mod move mut override priv pub ref return self "
        "static struct super trait true try type typeof union unsafe unsized use virtual where while "
        "yield"
    )
    # What stands for a value already is a pattern on the left of `let`, not a name.
    reserved = base.words("_ Err None Ok Some std")

    def literal(self, value: models.JsonValue) -> str:
        """Write a value whose type Rust can tell from it."""
        text = super().literal(value)
        if not _is_known(_type_of(value)):
            raise base.Unwritable("holds an empty list or object, whose elements' type Rust cannot tell")
        return text

    def assign(self, name: str, value: models.JsonValue, declaration: str) -> str:  # noqa: ARG002
        """Bind the name; a notebook's later binding hides the earlier one."""
        return f"let {name} = {self.literal(value)};"

    def string(self, text: str) -> str:
        """Write an owned string."""
        return f'String::from("{base.escape(text, base.C_SPECIAL, _SHORT, _escape)}")'

    def integer(self, number: int) -> str:
        """Write it with its type."""
        if not -(2**127) <= number < 2**127:
            raise base.Unwritable("is an integer of more than 128 bits, which Rust does not have")
        return f"{number}{_integer_type(number)}"

    def real(self, number: float) -> str:
        """Write it with its type."""
        return f"{number!r}f64"

    def array(self, values: list[models.JsonValue], written: list[str]) -> str:  # noqa: ARG002
        """Write a vector."""
        return f"vec![{', '.join(written)}]"

    def mapping(self, values: dict[str, models.JsonValue], written: list[tuple[str, str]]) -> str:  # noqa: ARG002
        """Write a map, collected so that no large array has to fit on the stack."""
        pairs = ", ".join(f"({key}, {value})" for key, value in written)
        return f"vec![{pairs}].into_iter().collect::<std::collections::HashMap<String, _>>()"


def _escape(character: str) -> str:
    return f"\\u{{{ord(character):x}}}"


def _integer_type(number: int) -> str:
    return "i64" if -(2**63) <= number < 2**63 else "i128"


def _is_known(kind: _Type) -> bool:
    while isinstance(kind, tuple):
        kind = kind[1]
    return kind is not None


def _type_of(value: models.JsonValue) -> _Type:
    """The type of a value of which depth and scalars have been checked."""
    if value is None:
        raise base.Unwritable("is null, which Rust has no type for")
    if isinstance(value, (list, dict)):
        steps = enumerate(value) if isinstance(value, list) else value.items()
        kind: _Type = None
        for step, element in steps:
            try:
                kind = _common(kind, _type_of(element))
            except base.Unwritable as error:
                raise base.Unwritable(error.reason, (step, *error.path)) from None
        return ("Vec" if isinstance(value, list) else "Map", kind)
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return _integer_type(value)
    return "f64" if isinstance(value, float) else "String"


def _common(one: _Type, other: _Type) -> _Type:
    """The one type that both can be read as."""
    if one is None or other is None:
        return one or other
    if isinstance(one, tuple) and isinstance(other, tuple) and one[0] == other[0]:
        return (one[0], _common(one[1], other[1]))
    if one != other:
        raise base.Unwritable("differs in type from its neighbours, which Rust's lists and maps cannot hold")
    return one
