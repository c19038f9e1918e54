"""Which notebook is served where."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import httpx

#: Seconds that fetching a notebook may take; Kernel Gateway gives it as long.
FETCH_TIMEOUT = 200.0


#: What is not a notebook's at the root: what is said of all, and the files of a folder.
OWN, PUBLIC = "_api", "public"


class CannotServe(Exception):
    """There is no way to serve what was asked for; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A notebook, and the part of the URL that its endpoints have in front of them."""

    path: str  #: its contents path
    name: str  #: of its file, without the ending
    prefix: str  #: such as `/sales`, or nothing


def mount(files: Sequence[Path], *, has_files: bool = False) -> tuple[Path, list[Mount]]:
    """Say where notebooks are served, and which folder holds them all. Raises CannotServe.

    One notebook is served at the root, several below their names. `has_files`: whether other files are, too.
    """
    if not files:
        raise CannotServe("Say which notebook to serve: jupyter nbexec serve NOTEBOOK …")
    for file in files:
        if not file.is_file():
            raise CannotServe(f"There is no notebook {file}.")
    resolved = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100  # links stay links
    root = Path(os.path.commonpath([file.parent for file in resolved]))
    names = [file.name.removesuffix(".ipynb") for file in resolved]
    for name in names:
        if names.count(name) > 1:
            raise CannotServe(f"Several notebooks are called {name}: their endpoints would be in one place.")
    is_alone = len(files) == 1
    for name in (OWN, PUBLIC) if has_files else (OWN,):
        if name in names and not is_alone:
            raise CannotServe(f"A notebook called {name} cannot be among several: something else is there.")
    return root, [
        Mount(
            path=file.relative_to(root).as_posix(),
            name=name,
            prefix="" if is_alone else f"/{quote(name, safe='')}",
        )
        for file, name in zip(resolved, names, strict=True)
    ]


def pattern(prefix: str) -> str:
    """A pattern of what a client may send for a prefix: it may encode what need not be."""
    return "".join(_either(character) for character in unquote(prefix))


def _either(character: str) -> str:
    if character == "/":
        return "/"
    encoded = "".join(f"%{byte:02X}" for byte in character.encode())
    return f"(?:{re.escape(character)}|(?i:{encoded}))"


def is_remote(name: str) -> bool:
    """Whether a notebook is named by its URL."""
    return urlsplit(name).scheme in ("http", "https")


def fetch(url: str, folder: Path) -> Path:
    """Fetch a notebook into a folder. Raises CannotServe."""
    try:
        answer = httpx.get(url, timeout=FETCH_TIMEOUT, follow_redirects=True).raise_for_status()
    except httpx.HTTPError as error:
        raise CannotServe(f"The notebook cannot be fetched: {type(error).__name__}.") from error
    name = Path(unquote(urlsplit(url).path)).name or "notebook"
    file = Path(tempfile.mkdtemp(dir=folder)) / (name if name.endswith(".ipynb") else f"{name}.ipynb")
    file.write_bytes(answer.content)
    return file
