"""Kernelspecs, of this machine or of a gateway, which describes them in another form and may not answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jupyter_core.utils import ensure_async
from tornado.web import HTTPError


class Unreachable(Exception):
    """Those who know are not here, and do not answer."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A kernelspec, as far as it matters here."""

    name: str
    language: str | None = None
    is_ipykernel: bool = False


def is_ipykernel(argv: Iterable[object]) -> bool:
    """Whether a kernelspec's command starts IPython's kernel, by its own name."""
    return any("ipykernel" in str(part) for part in argv)


async def find(manager: Any, name: str) -> Spec:
    """Find a kernelspec. Raises what the manager raises where there is none, and Unreachable."""
    try:
        found = await ensure_async(manager.get_kernel_spec(name))
    except HTTPError as error:
        raise Unreachable from error
    if isinstance(found, Mapping):
        fields = found["spec"]
        language, argv = fields.get("language"), fields.get("argv") or []
    else:
        language, argv = found.language, found.argv
    return Spec(name=name, language=language or None, is_ipykernel=is_ipykernel(argv))


async def names(manager: Any) -> list[str]:
    """Name all kernelspecs that there are."""
    lister = getattr(manager, "list_kernel_specs", None)
    if lister is None:
        return sorted(await ensure_async(manager.find_kernel_specs()))
    try:
        return sorted((await ensure_async(lister()))["kernelspecs"])
    except HTTPError:
        return []
