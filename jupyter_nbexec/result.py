"""The value of a notebook's last expression, fetched from a Python kernel without disturbing it.

After the last cell the engine sends one silent execute_request with no code and, as its one user
expression, `expression(…)`; `decode` reads the reply. Python's name for what a cell displayed is `Out[n]`,
so nothing is evaluated again. The expression reaches `exec` past whatever names the notebook has shadowed,
runs `in_kernel.py` in a namespace that nobody else sees, and defines nothing in the notebook's.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Final

from . import in_kernel, models

NAME: Final = "nbexec"
"""The name under which the engine sends the expression, and the reply has its value."""


@dataclass(frozen=True)
class Captured:
    """What was fetched; `value` counts where `found` is true."""

    found: bool = False
    value: models.JsonValue = None
    truncated: bool = False  #: there is a JSON form, but it is larger than wanted


@functools.cache
def _source() -> str:
    return resources.files(__package__).joinpath("in_kernel.py").read_text("utf-8")


def expression(execution_count: int, max_bytes: int) -> str:
    """Write the expression that gives what the cell of this execution count displayed, as JSON.

    It names nothing: `f` and `ns` are parameters, and all else hangs on the literal function passed as `f`.
    """
    return (
        "(lambda f, ns: ("
        f"f.__globals__['__builtins__'].exec({_source()!a}, ns), "
        f"ns['capture'](f.__globals__, {execution_count:d}, {max_bytes:d})"
        ")[1])(lambda: 0, {'__name__': 'jupyter_nbexec.in_kernel'})"
    )


def decode(reply_content: models.JsonValue) -> Captured:
    """Read the reply to the engine's request; anything but a well-formed value is not found."""
    entry = reply_content
    for name in ("user_expressions", NAME, "data", in_kernel.MIME):
        entry = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(entry, str):
        return Captured()
    try:
        answer = json.loads(entry)
    except (ValueError, RecursionError):
        return Captured()
    if not isinstance(answer, dict):
        return Captured()
    if answer.get("state") == "truncated":
        return Captured(truncated=True)
    if answer.get("state") != "value" or "value" not in answer:
        return Captured()
    return Captured(found=True, value=answer["value"])
