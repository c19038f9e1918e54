"""The languages that parameters can be written in, and the registry that finds one for a kernel.

A further language is a subclass of `base.Language` in any installed package, named by an entry point
of the group `jupyter_nbexec_language_v1`.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import re
from typing import TYPE_CHECKING

from jupyter_nbexec.languages import (
    bash,
    csharp,
    fsharp,
    javascript,
    julia,
    octave,
    perl,
    powershell,
    python,
    r,
    rust,
    scala,
)
from jupyter_nbexec.languages.base import Language, Unwritable

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ENTRY_POINT_GROUP", "Language", "Registry", "Unwritable", "find"]

ENTRY_POINT_GROUP = "jupyter_nbexec_language_v1"
"""Entry points of this group name subclasses of `Language`, which are made without arguments."""

BUILT_IN: tuple[Language, ...] = (
    python.Python(),
    r.R(),
    julia.Julia(),
    scala.Scala(),
    javascript.JavaScript(),
    bash.Bash(),
    octave.Octave(),
    csharp.CSharp(),
    fsharp.FSharp(),
    powershell.PowerShell(),
    perl.Perl(),
    rust.Rust(),
)

_log = logging.getLogger(__name__)


class Registry:
    """Languages by the kernels and the language names they serve; the first to claim a name has it."""

    def __init__(self, known: Iterable[Language]) -> None:
        self._by_kernel: dict[str, Language] = {}
        self._by_language: dict[str, Language] = {}
        for language in known:
            for kernel in language.kernels:
                self._by_kernel.setdefault(kernel.lower(), language)
            for name in language.languages:
                self._by_language.setdefault(name.lower(), language)

    def find(self, kernel_name: str | None, language: str | None) -> Language | None:
        """Find by the kernel's name, else by its language, else by the kernel's name less its version."""
        kernel = (kernel_name or "").lower()
        if kernel in self._by_kernel:
            return self._by_kernel[kernel]
        if language:
            return self._by_language.get(language.lower())
        return self._by_language.get(re.sub(r"[-_.]?\d[\d.]*$", "", kernel))


def load(entry_points: Iterable[importlib.metadata.EntryPoint]) -> list[Language]:
    """Make the languages that other packages bring; one that is broken is logged and left out."""
    found = []
    for entry_point in entry_points:
        try:
            language = entry_point.load()()
        except Exception:  # whatever foreign code may raise; ours must go on without it
            _log.exception("The language %r of %s cannot be loaded", entry_point.name, entry_point.value)
            continue
        if isinstance(language, Language):
            found.append(language)
        else:
            _log.error("The language %r of %s is no Language", entry_point.name, entry_point.value)
    return found


@functools.cache
def _registry() -> Registry:
    return Registry([*BUILT_IN, *load(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))])


def find(kernel_name: str | None, language: str | None) -> Language | None:
    """Find the language of a kernel; None: parameters cannot be written for it."""
    return _registry().find(kernel_name, language)
