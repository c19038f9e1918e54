"""GNU Octave and MATLAB, as in octave_kernel, xeus-octave and MATLAB's own kernel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from jupyter_nbexec.languages import base

if TYPE_CHECKING:
    from jupyter_nbexec import models

_PIECES = re.compile(r"([ -~]+)|([^ -~]+)")
_LONGEST_NAME = 63  # namelengthmax of MATLAB, which cuts longer names


class Octave(base.Language):
    """How JSON is written in Octave and MATLAB, in what both read alike.

    null `[]`, as jsondecode has it · booleans `true`, `false` · numbers double, so that `1` and `1.0`
    are one, integers beyond 2**53 refused · strings char in single quotes, which hold no escapes;
    other than printable ASCII joined in as UTF-8 · lists cell arrays `{…}` · objects
    `containers.Map({'k'}, {…})`, of which the empty key is refused. Names have at most 63 characters.
    """

    name = "Octave"
    languages = frozenset({"octave", "matlab"})
    kernels = frozenset({"octave", "xoctave", "matlab", "jupyter_matlab_kernel"})
    comment_prefix = "%"
    identifier = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
    keywords = base.words(
        "__FILE__ __LINE__ break case catch classdef continue do else elseif end end_try_catch "
        "end_unwind_protect endclassdef endenumeration endevents endfor endfunction endif endmethods "
        "endparfor endproperties endspmd endswitch endwhile enumeration events for function global if "
        "methods otherwise parfor persistent properties return spmd switch try until unwind_protect "
        "unwind_protect_cleanup while"
    )
    reserved = base.words("ans containers false native2unicode true uint8")
    null = "[]"

    def check_name(self, name: str) -> str | None:
        """Refuse names that MATLAB would cut."""
        if len(name) > _LONGEST_NAME:
            return f"is longer than {_LONGEST_NAME} characters"
        return super().check_name(name)

    def assign(self, name: str, value: models.JsonValue, declaration: str) -> str:  # noqa: ARG002
        """Write it without an echo of the value."""
        return f"{name} = {self.literal(value)};"

    def string(self, text: str) -> str:
        """Write a row of characters."""
        pieces = [_quote(match[1]) if match[1] else _decoded(match[2]) for match in _PIECES.finditer(text)]
        if not pieces:
            return "''"
        return pieces[0] if len(pieces) == 1 else f"[{', '.join(pieces)}]"

    def integer(self, number: int) -> str:
        """Write it where a double holds it exactly."""
        return base.double_integer(number)

    def array(self, values: list[models.JsonValue], written: list[str]) -> str:  # noqa: ARG002
        """Write a cell array, which may hold anything; a matrix would join its elements."""
        return f"{{{', '.join(written)}}}"

    def mapping(self, values: dict[str, models.JsonValue], written: list[tuple[str, str]]) -> str:
        """Write a Map from char."""
        if "" in values:
            raise base.Unwritable("has an empty key, which Octave's maps cannot")
        if not written:
            return "containers.Map()"
        keys = ", ".join(key for key, _ in written)
        held = ", ".join(value for _, value in written)
        return f"containers.Map({{{keys}}}, {{{held}}})"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _decoded(text: str) -> str:
    """Write characters by their bytes: neither source encoding nor line ends matter then."""
    return f"native2unicode(uint8([{' '.join(map(str, text.encode()))}]), 'UTF-8')"
