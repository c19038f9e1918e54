"""The value of a notebook's last expression, fetched from a Python kernel without disturbing it.

The last cell's own execute_request carries user expressions, or a silent one after it does; `decode` reads
the reply. Python's name for what a cell displayed is `Out[n]`, so nothing is evaluated again. An expression
reaches the interpreter past whatever names the notebook has shadowed, runs `in_kernel.py` in a namespace that
nobody else sees, and defines nothing in the notebook's.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from importlib import resources
from typing import Final

from . import in_kernel, models, steward

NAME: Final = "nbexec"
"""The name under which the engine sends the expression, and the reply has its value."""
LEAVING: Final = "nbexec_leaving"
"""The name under which the engine asks a kernel to end."""

#: Reaches the shell and what `opening` has left there, past the notebook's names.
_SHELL = "f.__globals__['__builtins__'].__import__('IPython').get_ipython()"
#: What a forked kernel has been given of what `opening` brings (`kernels/zygote.py`).
_COMPILED = "jupyter_nbexec_compiled"
_STEWARD = f"{_SHELL}.kernel.__dict__[{steward.PLACE!r}]"


@dataclass(frozen=True)
class Captured:
    """What was fetched; `value` counts where `found` is true."""

    found: bool = False
    value: models.JsonValue = None
    truncated: bool = False  #: there is a JSON form, but it is larger than wanted
    size: int = field(default=0, compare=False)  #: of the JSON form, in characters


@functools.cache
def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def expression(execution_count: int, max_bytes: int) -> str:
    """Write the expression that gives what the cell of this execution count displayed, as JSON.

    It names nothing: `f` and `ns` are parameters, and all else hangs on the literal function passed as `f`.
    """
    return (
        "(lambda f, ns: ("
        f"f.__globals__['__builtins__'].exec({_source('in_kernel.py')!a}, ns), "
        f"ns['capture'](f.__globals__, {execution_count:d}, {max_bytes:d})"
        ")[1])(lambda: 0, {'__name__': 'jupyter_nbexec.in_kernel'})"
    )


@functools.cache
def opening() -> str:
    """Write the expression with which a run begins on a kernel of its own: `closing` rests on it."""
    execute = "f.__globals__['__builtins__'].exec(compiled.get(source, source), ns)"
    sources = (_source("in_kernel.py"), _source("steward.py"))
    return (
        "(lambda f, ns: (lambda compiled: ("
        f"[{execute} for source in {sources!a}], "
        f"ns['begin']({_SHELL}, ns)"
        f")[1])({_SHELL}.kernel.__dict__.pop({_COMPILED!r}, {{}})))"
        "(lambda: 0, {'__name__': 'jupyter_nbexec.in_kernel'})"
    )


def receiving(name: str, key: str) -> str:
    """Write the expression that has each cell find what came under `key` in its message's metadata.

    It is in the variable `name` then. The kernel has evaluated `opening`.
    """
    return f"(lambda f: {_STEWARD}['receive']({_SHELL}, {name!a}, {key!a}))(lambda: 0)"


def entering(folder: str, session_name: str) -> str:
    """Write the expression that has a kernel go elsewhere; it has evaluated `opening`, and nothing since."""
    return f"(lambda f: {_STEWARD}['enter']({_SHELL}, {folder!a}, {session_name!a}))(lambda: 0)"


def having(digests: dict[str, str]) -> str:
    """Write the expression that fails unless these environment variables have values of these SHA-256."""
    return f"(lambda f: {_STEWARD}['check']({digests!a}))(lambda: 0)"


def closing(max_bytes: int, seconds: float) -> dict[str, str]:
    """Write the expressions that ride on the last cell: its value, then the kernel's end.

    They are for a kernel that has evaluated `opening`. The value is that of the execution count before the
    present one, as it is when a request's expressions are evaluated.
    """
    value = (
        f"(lambda f: {_STEWARD}['capture']"
        f"(f.__globals__, {_SHELL}.execution_count - 1, {max_bytes:d}, {seconds!r}))(lambda: 0)"
    )
    return {NAME: value, LEAVING: leaving()}


def leaving() -> str:
    """Write the expression that ends the kernel; `is_leaving` and `is_settled` read its value."""
    return f"(lambda f: {_STEWARD}['Bundle']({_STEWARD}['leave']({_SHELL})))(lambda: 0)"


def is_leaving(reply_content: models.JsonValue) -> bool:
    """Whether the kernel has heard that it is to end."""
    return _text(reply_content, LEAVING) is not None


def is_settled(reply_content: models.JsonValue) -> bool:
    """Whether the kernel has nothing more to put out: no thread, no child process, no text in a pipe."""
    return _text(reply_content, LEAVING) == "settled"


def _text(reply_content: models.JsonValue, name: str) -> str | None:
    """Read what a bundle brings."""
    entry = reply_content
    for key in ("user_expressions", name, "data", in_kernel.MIME):
        entry = entry.get(key) if isinstance(entry, dict) else None
    return entry if isinstance(entry, str) else None


def size(reply_content: models.JsonValue) -> int:
    """Tell how many characters `decode` will read."""
    return len(_text(reply_content, NAME) or "")


def decode(reply_content: models.JsonValue) -> Captured:
    """Read the reply to the engine's request; anything but a well-formed value is not found."""
    entry = _text(reply_content, NAME)
    if entry is None:
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
    return Captured(found=True, value=answer["value"], size=len(entry))
