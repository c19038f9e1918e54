"""Julia, as in IJulia."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from jupyter_nbexec.languages import base, scripts, statements

if TYPE_CHECKING:
    from jupyter_nbexec import models

_SPECIAL = re.compile(r'[^ -~]|["\\$]')
_SHORT = {**base.C_SHORT, "$": "\\$"}
_OPENING = re.compile(
    r"\b(?:function|if|for|while|let|begin|try|struct|module|baremodule|macro|quote|do"
    r"|(?:abstract|primitive)\s+type)\b"
)
_ASSIGNED = re.compile(
    r"\s*(?:(?:const|global)\s+)?([^\W\d]\w*)\s*(?:::\s*([\w.{}, ]+?))?\s*=(?![=>])\s*(.*)", re.DOTALL
)
_TYPES = {"Bool": "boolean", "String": "string", "AbstractString": "string"} | {
    name: kind
    for kind, names in {
        "integer": "Int Int8 Int16 Int32 Int64 Int128 UInt8 UInt16 UInt32 UInt64 BigInt Integer",
        "number": "Float16 Float32 Float64 BigFloat AbstractFloat Real Number",
    }.items()
    for name in names.split()
}


class Julia(base.Language):
    """How JSON is written in Julia.

    null `nothing` · booleans `true`, `false` · integers of any size (Int64, then Int128, then BigInt,
    as Julia reads them) · floats Float64 · strings String, `$` escaped · lists `[…]` of one kind of
    scalar, else `Any[…]`, because a plain one would convert `[1, 2.5]` · objects `Dict("k" => …)`, with
    mixed values `Dict{String,Any}(…)`. Nothing is refused.
    """

    name = "Julia"
    languages = frozenset({"julia"})
    keywords = base.words(
        "baremodule begin break catch const continue do else elseif end export false finally for function "
        "global if import in isa let local macro module quote return struct true try using where "
        "while"
    )
    reserved = base.words("Any Dict Inf NaN String missing nothing ans")
    null = "nothing"

    def check_name(self, name: str) -> str | None:
        """Refuse `_` and `__` too: they can be written, but not read."""
        if name and not name.strip("_"):
            return "has a meaning of its own in Julia"
        return super().check_name(name)

    def fold(self, name: str) -> str:
        """Julia normalises names to NFC, and takes some characters for each other."""
        return unicodedata.normalize("NFC", name).translate({0x25B: 0x3B5, 0xB5: 0x3BC})

    def string(self, text: str) -> str:
        """Write it without anything that interpolates."""
        return f'"{base.escape(text, _SPECIAL, _SHORT, base.wide_escape)}"'

    def array(self, values: list[models.JsonValue], written: list[str]) -> str:
        """Write a vector whose element type promotes nothing."""
        plain = len(values) < 2 or base.uniform(values) is not None
        return f"{'' if plain else 'Any'}[{', '.join(written)}]"

    def mapping(self, values: dict[str, models.JsonValue], written: list[tuple[str, str]]) -> str:
        """Write a Dict whose value type promotes nothing."""
        plain = len(values) == 1 or base.uniform(list(values.values())) is not None
        pairs = ", ".join(f"{key} => {value}" for key, value in written)
        return f"Dict({pairs})" if plain else f"Dict{{String,Any}}({pairs})"

    def infer(self, source: str) -> list[models.Parameter]:
        """Read `name = value` and `name::Type = value` outside of any block."""
        found = []
        depth = 0
        for statement in statements.split(source, statements.JULIA):
            match = _ASSIGNED.fullmatch(statement.text) if depth == 0 else None
            if match and self.check_name(match[1]) is None:
                kind = _TYPES.get(match[2] or "")
                found.append(scripts.parameter(match[1], match[3].strip(), statement.comment, _read, kind))
            depth += len(_OPENING.findall(statement.words)) - len(re.findall(r"\bend\b", statement.words))
            depth = max(depth, 0)
        return scripts.last_of_each(found)


def _read(text: str) -> scripts.Literal | None:
    """Read a literal of Julia."""
    if text in {"true", "false"}:
        return scripts.Literal("boolean", text == "true")
    if text == "nothing":
        return scripts.Literal("any", None)
    if text.startswith('"""'):
        return None
    return scripts.number(text) or scripts.string(text, '"', interpolation="$")
