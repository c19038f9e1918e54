"""What the languages share that are read line by line: `name = literal  # comment`."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from jupyter_nbexec import models
from jupyter_nbexec.languages import base

if TYPE_CHECKING:
    from collections.abc import Callable


class Literal(NamedTuple):
    """A literal that has been read."""

    type: str  #: JSON Schema's word for it, or `any`
    value: models.JsonValue


def parameter(
    name: str, text: str, comment: str, read: Callable[[str], Literal | None], type_name: str | None = None
) -> models.Parameter:
    """Make a parameter of an assignment; `type_name` is the declared type, if any."""
    literal = read(text)
    kind = type_name or (literal.type if literal else "any")
    return models.Parameter(
        name=name,
        type=kind,
        schema={} if kind == "any" else {"type": kind},
        default=models.MISSING if literal is None else literal.value,
        default_source=text if literal is None else None,
        description=comment,
    )


def last_of_each(found: list[models.Parameter]) -> list[models.Parameter]:
    """Keep the last assignment to each name, at the place of the first: that is what will hold."""
    return list({entry.name: entry for entry in found}.values())


def number(text: str) -> Literal | None:
    """Read a decimal number."""
    if not re.fullmatch(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", text) or len(text) > base.MAX_DIGITS:
        return None
    if re.fullmatch(r"[+-]?\d+", text):
        return Literal("integer", int(text))
    value = float(text)
    return Literal("number", value) if math.isfinite(value) else None


def string(text: str, quotes: str, interpolation: str = "") -> Literal | None:
    """Read a quoted string whose escapes JSON has too; any other is left to the language."""
    if len(text) < 2 or text[0] not in quotes or text[0] != text[-1]:
        return None
    inner = text[1:-1]
    if re.search(r'\\[^"\'\\/bfnrt]', inner) or any(sign in inner for sign in interpolation):
        return None
    if re.search(rf"(?<!\\)(?:\\\\)*{text[0]}", inner):
        return None  # two strings, and something between them
    quoted = re.sub(r'\\.|"', lambda match: {"\\'": "'", '"': '\\"'}.get(match[0], match[0]), inner)
    try:
        value: Any = json.loads(f'"{quoted}"', strict=False)
    except ValueError:
        return None
    return Literal("string", value)
