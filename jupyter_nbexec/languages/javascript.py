"""JavaScript and TypeScript, as in Deno's kernel, tslab and ijavascript."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from jupyter_nbexec.languages import base

if TYPE_CHECKING:
    from jupyter_nbexec import models

_DECLARED = re.compile(r"\b(const|let|var)[ \t]+([^\W\d][\w$]*|\$[\w$]*)")


class JavaScript(base.Language):
    """How JSON is written in JavaScript and TypeScript.

    Every value as in JSON. Numbers are doubles, so that `1` and `1.0` are one; integers beyond 2**53
    are refused, since a BigInt is another type. A key `__proto__` is written as a computed one,
    because the plain one would set the prototype.
    """

    name = "JavaScript"
    languages = frozenset({"javascript", "typescript", "js", "ts", "node", "deno"})
    kernels = frozenset({"deno", "javascript", "typescript", "jslab", "tslab", "nodejs"})
    comment_prefix = "//"
    identifier = re.compile(r"(?:[^\W\d]|\$)[\w$]*")
    keywords = base.words(
        "arguments async await break case catch class const continue debugger default delete do else enum "
        "eval export extends false finally for function if implements import in instanceof interface let "
        "new null package private protected public return static super switch this throw true try typeof "
        "var void while with yield"
    )
    reserved = base.words("__proto__ globalThis Infinity NaN undefined")

    def assign(self, name: str, value: models.JsonValue, declaration: str) -> str:
        """Declare the name again as the tagged cell did: kernels allow no other way to give it a value."""
        words = {match[2]: match[1] for match in _DECLARED.finditer(declaration)}
        return f"{words.get(name, 'let')} {name} = {self.literal(value)};"

    def string(self, text: str) -> str:
        """Write it as JSON in ASCII, which is JavaScript."""
        return json.dumps(text)

    def integer(self, number: int) -> str:
        """Write it where a double holds it exactly."""
        return base.double_integer(number)

    def array(self, values: list[models.JsonValue], written: list[str]) -> str:  # noqa: ARG002
        """Write an array."""
        return f"[{', '.join(written)}]"

    def mapping(self, values: dict[str, models.JsonValue], written: list[tuple[str, str]]) -> str:  # noqa: ARG002
        """Write an object literal; a declaration's right side cannot be taken for a block."""
        members = (f"{'[' + key + ']' if key == _PROTO else key}: {value}" for key, value in written)
        return f"{{{', '.join(members)}}}"


_PROTO = '"__proto__"'
