"""Perl 5, as in IPerl."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from jupyter_nbexec.languages import base

if TYPE_CHECKING:
    from jupyter_nbexec import models

#: Within double quotes `$` and `@` would be replaced.
_SPECIAL = re.compile(r'[^ -~]|["\\$@]')
_SHORT = {**base.C_SHORT, "$": "\\$", "@": "\\@"}
_INT64, _UINT64 = 2**63, 2**64


class Perl(base.Language):
    """How JSON is written in Perl, from 5.14 on.

    null `undef` · booleans `!!1`, `!!0` · integers of 64 bits · floats doubles · strings in double quotes,
    where what Perl would replace is escaped; other than printable ASCII as `\\x{e9}` · lists `[1, "a"]` and
    objects `{"k" => 1}` are references. Refused: integers beyond 64 bits, which Perl makes doubles.
    """

    name = "Perl"
    languages = frozenset({"perl"})
    kernels = frozenset({"iperl", "perl"})
    identifier = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
    # Names follow a `$`, so that no word is a keyword there; these are not a program's to declare.
    reserved = base.words("_ a b ARGV ENV INC STDERR STDIN STDOUT")
    null = "undef"
    true = "!!1"
    false = "!!0"

    def assign(self, name: str, value: models.JsonValue, declaration: str) -> str:  # noqa: ARG002
        """Declare a variable; a notebook's later declaration hides the earlier one."""
        return f"my ${name} = {self.literal(value)};"

    def string(self, text: str) -> str:
        """Write it without anything that is replaced, save the characters we name ourselves."""
        return f'"{base.escape(text, _SPECIAL, _SHORT, _character)}"'

    def integer(self, number: int) -> str:
        """Write it, unless Perl would round it."""
        if not -_INT64 <= number < _UINT64:
            raise base.Unwritable("is an integer beyond 64 bits, which Perl would round")
        # The sign is an operator, and the number after it would be beyond what has a sign.
        return "(-9223372036854775807 - 1)" if number == -_INT64 else str(number)

    def array(self, values: list[models.JsonValue], written: list[str]) -> str:  # noqa: ARG002
        """Write a reference to an array."""
        return f"[{', '.join(written)}]"

    def mapping(self, values: dict[str, models.JsonValue], written: list[tuple[str, str]]) -> str:  # noqa: ARG002
        """Write a reference to a hash; `+` says that it is no block."""
        return f"+{{{', '.join(f'{key} => {value}' for key, value in written)}}}"


def _character(character: str) -> str:
    return f"\\x{{{ord(character):x}}}"
