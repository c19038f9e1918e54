"""Kernelspecs, of this machine or of a gateway, which describes them in another form and may not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jupyter_client.kernelspec import NoSuchKernel
from jupyter_core.utils import ensure_async

#: Seconds that a gateway may take to tell what kernelspecs it has.
PATIENCE = 10.0


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
    if _is_remote(manager):
        listed = await _list(manager)
        if name not in listed:
            raise NoSuchKernel(name)
        fields = listed[name]["spec"]
        language, argv = fields.get("language"), fields.get("argv") or []
    else:
        found = await ensure_async(manager.get_kernel_spec(name))
        language, argv = found.language, found.argv
    return Spec(name=name, language=language or None, is_ipykernel=is_ipykernel(argv))


async def names(manager: Any) -> list[str]:
    """Name all kernelspecs that there are, as far as can be known now."""
    if not _is_remote(manager):
        return sorted(await ensure_async(manager.find_kernel_specs()))
    try:
        return sorted(await _list(manager))
    except Unreachable:
        return []


def _is_remote(manager: Any) -> bool:
    """Whether a gateway has the kernelspecs."""
    return hasattr(manager, "list_kernel_specs")


async def _list(manager: Any) -> Mapping[str, Any]:
    """Have a gateway list its kernelspecs, by name. Raises Unreachable.

    It is never asked for a single one: jupyter_server appends the name to an address that ends with
    `?user=…` where KERNEL_USERNAME is set, and the answer is the whole list; and a name with a space, or a
    gateway's name that cannot be looked up, would count as a kernelspec that is not there.
    """
    try:
        listed = (await asyncio.wait_for(manager.list_kernel_specs(), PATIENCE))["kernelspecs"]
        return {str(name): model for name, model in listed.items() if "spec" in model}
    except Exception as error:  # it goes through any library, and a proxy may answer anything
        raise Unreachable from error
