"""Notebooks as the server's contents manager gives them, checked before anything is done with them."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import posixpath
import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http import HTTPStatus
from pathlib import Path
from typing import Any

import nbformat
from jupyter_core.utils import ensure_async
from jupyter_server.services.contents.filemanager import AsyncFileContentsManager, FileContentsManager
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager, LargeFileManager
from jupyter_server.utils import ApiPath, to_os_path
from nbformat import NotebookNode
from nbformat.validator import NotebookValidationError
from tornado import web

from jupyter_nbexec import background, errors

#: Contents managers whose notebooks are plain JSON files.
FILE_MANAGERS = (AsyncLargeFileManager, LargeFileManager, AsyncFileContentsManager, FileContentsManager)
#: Seconds that the clock of a file system goes in one step, at most: most, and some.
CLOCK_STEP, SLOW_CLOCK_STEP = 0.05, 2.0
#: Cells a notebook may have.
MAX_CELLS = 10_000
CELL_TYPES = frozenset({"code", "markdown", "raw"})
#: What the system says of a file that is not there. Loops of links lead nowhere; no file has a long name.
ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
#: What it says of one that may not be read.
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
#: Ids of cells that the format allows.
CELL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
#: Characters of a stored id, allowed or not, up to which clients are told it.
MAX_ID = 64
#: Where cells of nbformat 1 have their source, by type.
SOURCES_1 = {"code": "code", "text": "text"}
#: Levels that a heading may have.
MAX_LEVEL = 6


@dataclass(frozen=True, kw_only=True)
class Notebook:
    """A notebook that can be run, in nbformat 4.5."""

    path: str | None  #: normalised contents path; None if it came with the request
    content: NotebookNode
    #: The id that each cell has in the stored notebook; None where it has none that can be told.
    cell_ids: list[str | None]
    last_modified: str | None = None  #: ISO 8601, UTC
    size: int = background.UNKNOWN_SIZE  #: in characters, as JSON
    warnings: list[str] = field(default_factory=list)

    @property
    def folder(self) -> str:
        """Contents path of the folder it is in; the root, if it came with the request."""
        return posixpath.dirname(self.path or "")

    @property
    def name(self) -> str:
        """Its file name without the ending; `notebook`, if it came with the request."""
        file_name = (self.path or "notebook").rpartition("/")[2]
        return file_name.rpartition(".")[0] or file_name

    @property
    def kernel_name(self) -> str | None:
        """The kernelspec that it names."""
        name = self.content.metadata.get("kernelspec", {}).get("name")
        return name if isinstance(name, str) and name else None

    @property
    def language(self) -> str | None:
        """The language that it names."""
        metadata = self.content.metadata
        name = metadata.get("kernelspec", {}).get("language") or metadata.get("language_info", {}).get("name")
        return name if isinstance(name, str) else None

    @property
    def default_timeout(self) -> float | None:
        """Seconds that it asks for itself: `metadata.execution.timeout`."""
        value = self._execution.get("timeout")
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            return None
        try:
            return float(value)
        except OverflowError:
            return math.inf

    @property
    def default_allow_errors(self) -> bool:
        """What it asks for itself: `metadata.execution.allow_errors`."""
        return self._execution.get("allow_errors") is True

    @property
    def asks_for_preparation(self) -> bool:
        """Whether what comes before its parameters may be executed ahead: `metadata.nbexec.prepare`."""
        return self._own.get("prepare") is True

    @property
    def state(self) -> str | None:
        """Where the state of its endpoints is: `metadata.nbexec.state`, `kernel` or `request`."""
        value = self._own.get("state")
        return value if value in ("kernel", "request") else None

    @property
    def has_unknown_state(self) -> bool:
        """Whether it says something else there."""
        return "state" in self._own and self.state is None

    @property
    def watched(self) -> list[str]:
        """Contents paths of files that such cells depend on: `metadata.nbexec.watch`, from its folder."""
        names = self._own.get("watch")
        names = [names] if isinstance(names, str) else names if isinstance(names, list) else []
        paths = [normalise(posixpath.join(self.folder, name)) for name in names if isinstance(name, str)]
        return [path for path in paths if not path.startswith("..")]

    @property
    def _execution(self) -> dict[str, Any]:
        section = self.content.metadata.get("execution", {})
        return section if isinstance(section, dict) else {}

    @property
    def _own(self) -> dict[str, Any]:
        section = self.content.metadata.get("nbexec", {})
        return section if isinstance(section, dict) else {}


@dataclass(frozen=True, kw_only=True)
class Look:
    """What can be seen of a file without reading it."""

    modified: datetime | None
    size: int | None

    def may_hide_change(self, now: datetime) -> bool:
        """Whether the file may be changed after `now` and look the same: clocks of files are coarse."""
        # Some file systems, and some stores, count in seconds.
        is_fine = self.modified is not None and self.modified.microsecond
        return self._age(now) < (CLOCK_STEP if is_fine else SLOW_CLOCK_STEP)

    def is_younger(self, seconds: float) -> bool:
        """Whether the file was changed in so many seconds."""
        return self._age(datetime.now(tz=timezone.utc)) < seconds

    def _age(self, now: datetime) -> float:
        return -math.inf if self.modified is None else (now - self.modified).total_seconds()


async def is_same(contents_manager: Any, path: str, other: str) -> bool:
    """Whether two contents paths name the same notebook, by links too where they are files.

    Raises NotebookUnavailable, and 403, where that cannot be told.
    """
    if normalise(path) == normalise(other):
        return True
    if not isinstance(contents_manager, FileContentsManager):
        return False
    root = contents_manager.root_dir
    try:
        return await background.run(
            _is_same_file, to_os_path(ApiPath(path), root), to_os_path(ApiPath(other), root)
        )
    except OSError as error:
        raise _unreadable(error, path) from error


def _is_same_file(path: str, other: str) -> bool:
    try:
        return Path(path).samefile(other)
    except OSError as error:
        if error.errno in ABSENT:
            return False
        raise


def normalise(path: str) -> str:
    """Give a contents path the one form it is stored and compared in."""
    plain = "/".join(part for part in path.split("/") if part not in ("", "."))
    # As Jupyter itself resolves them: by the text. What leads out of the root stays, to be refused there.
    resolved = posixpath.normpath(plain) if ".." in plain else plain
    return plain if resolved.startswith("..") else resolved


async def read(contents_manager: Any, path: str) -> Notebook:
    """Read a notebook through the contents manager.

    Raises NotebookNotFound, NotANotebook, InvalidNotebook, NotebookUnavailable, and 403 as Jupyter does.
    Their texts hold no paths of the server.
    """
    # As for `/api/contents`: `//x` is no other way to write `x`, and `x/` is something below `x`.
    if "" in path.split("/"):
        raise errors.NotebookNotFound(f"There is no notebook at {path!r}.")
    path = normalise(path)
    if not path:
        raise errors.NotebookNotFound
    kind = await _kind(contents_manager, path)
    if kind == "directory":
        raise errors.NotANotebook(f"{path!r} is a folder.")
    # A plain file is read as text and parsed in a thread, by our own rules: the contents manager mends or
    # overlooks what should be refused. Other managers make notebooks of what is none on the disk.
    if type(contents_manager) in FILE_MANAGERS:
        if not path.endswith(".ipynb"):
            raise errors.NotANotebook(f"{path!r} is not a notebook.")
        model = await _get(contents_manager, path, type="file", format="text")
        text = model["content"]
        return await background.offload(len(text), parse, text, path=path, modified=_modified(model))
    model = await _get(contents_manager, path, type="notebook")
    if model["type"] != "notebook" or not isinstance(model.get("content"), dict):
        raise errors.NotANotebook(f"{path!r} is not a notebook.")
    return await background.run(check, model["content"], path=path, modified=_modified(model))


async def look(contents_manager: Any, path: str) -> Look | None:
    """Look at a file without reading it; None if there is none, or it is hidden."""
    try:
        model = await ensure_async(contents_manager.get(path, content=False))
    except (web.HTTPError, OSError):
        return None
    return Look(modified=model.get("last_modified"), size=model.get("size"))


def parse(text: str, *, path: str | None = None, modified: str | None = None) -> Notebook:
    """Read a notebook from its JSON. Raises InvalidNotebook."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise errors.InvalidNotebook("The notebook is not valid JSON.") from error
    return check(fields, path=path, modified=modified, size=len(text))


def check(
    fields: Any, *, path: str | None = None, modified: str | None = None, size: int = background.UNKNOWN_SIZE
) -> Notebook:
    """Check a notebook's JSON and bring it to nbformat 4.5. Raises InvalidNotebook."""
    warnings: list[str] = []
    try:
        fields = _current(fields, warnings)
        stored_ids = _check_cells(fields["cells"])
        content = nbformat.from_dict(fields)
        _complete(content, stored_ids, warnings)
        _complete_kernel(content.metadata)
        _check_timeout(content.metadata, warnings)
        nbformat.validate(content, relax_add_props=True)
    except NotebookValidationError as error:
        raise errors.InvalidNotebook(f"The notebook is not valid: {_summary(error)}") from error
    except RecursionError as error:
        raise errors.InvalidNotebook("The notebook is nested too deeply.") from error
    return Notebook(
        path=path,
        content=content,
        cell_ids=stored_ids,
        last_modified=modified,
        size=size,
        warnings=warnings,
    )


def _current(fields: Any, warnings: list[str]) -> dict[str, Any]:
    """Check the frame of a notebook and upgrade formats before 4."""
    if not isinstance(fields, dict):
        raise errors.InvalidNotebook("The notebook is not a JSON object.")
    major, minor = fields.get("nbformat"), fields.get("nbformat_minor", 0)
    if type(major) is not int or type(minor) is not int:
        raise errors.InvalidNotebook("The notebook does not say which nbformat it has.")
    if not 1 <= major <= 4:
        raise errors.InvalidNotebook("The notebook's nbformat is none of 1 to 4, which can be run.")
    if not isinstance(fields.get("metadata", {}), dict):
        raise errors.InvalidNotebook("The notebook's metadata is not an object.")
    if major < 4:
        warnings.append(f"The notebook has nbformat {major}; it was upgraded for this run.")
        return _upgraded(fields, major)
    if minor > nbformat.current_nbformat_minor:
        warnings.append("The notebook has a later nbformat than 4.5; it was read as 4.5.")
    if not isinstance(fields.get("cells"), list):
        raise errors.InvalidNotebook("The notebook has no list of cells.")
    return fields


def _upgraded(fields: dict[str, Any], major: int) -> dict[str, Any]:
    """Upgrade a notebook of an older format, without the outputs of an earlier run. Raises InvalidNotebook.

    nbformat's own upgrade fails where it meets what it does not expect, raises what it likes then, and logs
    what it has seen.
    """
    sheets = fields.get("worksheets") if major > 1 else [fields]
    if not isinstance(sheets, list):
        raise errors.InvalidNotebook("The notebook has no list of worksheets.")
    cells: list[dict[str, Any]] = []
    for sheet in sheets:
        listed = sheet.get("cells") if isinstance(sheet, dict) else None
        if not isinstance(listed, list):
            raise errors.InvalidNotebook("A worksheet of the notebook has no list of cells.")
        cells += [_upgraded_cell(cell, len(cells) + index, major) for index, cell in enumerate(listed)]
    own = ("name", "signature", "orig_nbformat", "orig_nbformat_minor")
    metadata = {key: value for key, value in fields.get("metadata", {}).items() if key not in own}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}


def _upgraded_cell(cell: Any, index: int, major: int) -> dict[str, Any]:
    kind = cell.get("cell_type") if isinstance(cell, dict) else None
    if not isinstance(kind, str):
        raise errors.InvalidNotebook(f"Cell {index} of the notebook is of no known type.")
    source = cell.get(SOURCES_1.get(kind, "") if major == 1 else "input" if kind == "code" else "source", "")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = ("\n" if major == 2 else "").join(source)
    if not isinstance(source, str):
        raise errors.InvalidNotebook(f"The source of cell {index} of the notebook is no text.")
    if kind == "heading":
        level = cell.get("level", 1)
        if type(level) is not int:
            raise errors.InvalidNotebook(f"The heading in cell {index} of the notebook has no level.")
        source = f"{min(max(level, 1), MAX_LEVEL) * '#'} {' '.join(source.splitlines())}"
    kind = "markdown" if kind in ("heading", "html", "text") else kind
    return {"cell_type": kind, "metadata": cell.get("metadata", {}), "source": source}


def _check_cells(cells: list[Any]) -> list[str | None]:
    """Check what a run relies on; the ids the cells are stored with."""
    if len(cells) > MAX_CELLS:
        raise errors.InvalidNotebook(f"The notebook has {len(cells)} cells; {MAX_CELLS} can be run.")
    ids: list[str | None] = []
    for index, cell in enumerate(cells):
        kind = cell.get("cell_type") if isinstance(cell, dict) else None
        if not isinstance(kind, str) or kind not in CELL_TYPES:
            raise errors.InvalidNotebook(f"Cell {index} of the notebook is of no known type.")
        source = cell.get("source", "")
        if isinstance(source, list) and all(isinstance(line, str) for line in source):
            source = cell["source"] = "".join(source)
        if not isinstance(source, str):
            raise errors.InvalidNotebook(f"The source of cell {index} of the notebook is no text.")
        if not source.isascii() and any("\ud800" <= char <= "\udfff" for char in source):
            raise errors.InvalidNotebook(f"The source of cell {index} of the notebook is not valid Unicode.")
        if not isinstance(cell.get("metadata", {}), dict):
            raise errors.InvalidNotebook(f"The metadata of cell {index} of the notebook is not an object.")
        tags = cell.get("metadata", {}).get("tags", [])
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise errors.InvalidNotebook(f"The tags of cell {index} of the notebook are not a list of texts.")
        ids.append(cell.get("id") if _can_be_told(cell.get("id")) else None)
    return ids


def _can_be_told(identifier: Any) -> bool:
    """Whether a cell's id is good enough for clients to find the cell by it, though not for the format."""
    return isinstance(identifier, str) and len(identifier) <= MAX_ID and identifier.isprintable()


def _complete(content: NotebookNode, ids: list[str | None], warnings: list[str]) -> None:
    """Bring a notebook to format 4.5: every cell with an id of its own, nothing saved in the outputs.

    The outputs of an earlier run are cleared here rather than checked: they play no part.
    """
    content.setdefault("metadata", _node())
    content.nbformat, content.nbformat_minor = 4, 5
    used = {i for i in ids if i is not None}
    seen: set[str] = set()
    has_same = False
    wrong: list[int] = []
    for index, cell in enumerate(content.cells):
        cell.setdefault("metadata", _node())
        cell.setdefault("source", "")
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        identifier = cell.get("id")
        if not isinstance(identifier, str) or not CELL_ID.fullmatch(identifier):
            wrong += [index] if "id" in cell else []
            identifier = None
        elif identifier in seen:
            has_same, identifier = True, None
        if identifier is None:
            cell.id = _free_id(index, used)
            used.add(cell.id)
        seen.add(cell.id)
    if has_same:
        warnings.append("The notebook has cells with the same id; all but the first have others in this run.")
    if wrong:
        which = f"Cell {wrong[0]}" + (f" and {len(wrong) - 1} more" if wrong[1:] else "")
        warnings.append(
            f"{which} of the notebook: nbformat does not allow such ids; in this run they differ."
        )


def _complete_kernel(metadata: NotebookNode) -> None:
    """Mend what the format does not allow but other programs write: a kernelspec without all of its names."""
    for key in ("kernelspec", "language_info"):
        if isinstance(metadata.get(key), dict) and "name" not in metadata[key]:
            del metadata[key]
    if isinstance(metadata.get("kernelspec"), dict):
        metadata.kernelspec.setdefault("display_name", metadata.kernelspec.name)


def _check_timeout(metadata: NotebookNode, warnings: list[str]) -> None:
    section = metadata.get("execution")
    value = section.get("timeout") if isinstance(section, dict) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    if value is not None and not is_number:
        warnings.append("The notebook's metadata.execution.timeout is no number above 0, and was ignored.")


def _node() -> NotebookNode:
    return NotebookNode()


def _free_id(index: int, used: set[str]) -> str:
    candidate = f"cell-{index}"
    while candidate in used:
        candidate += "-"
    return candidate


def _summary(error: NotebookValidationError) -> str:
    return str(error).splitlines()[0][:200]


def _modified(model: dict[str, Any]) -> str | None:
    moment = model.get("last_modified")
    return None if moment is None else str(moment.isoformat()).replace("+00:00", "Z")


async def _kind(contents_manager: Any, path: str) -> str:
    """What is at the path, by the contents manager: `notebook`, `file` or `directory`."""
    try:
        model = await ensure_async(contents_manager.get(path, content=False))
    except web.HTTPError as error:
        raise _translated(error, path) from error
    except OSError as error:
        raise _unreadable(error, path) from error
    return str(model["type"])


async def _get(contents_manager: Any, path: str, **options: Any) -> dict[str, Any]:
    try:
        model: dict[str, Any] = await ensure_async(contents_manager.get(path, content=True, **options))
    except web.HTTPError as error:
        # A symbolic link to nowhere, or a pipe, is there as long as nobody wants to read it.
        if error.status_code == 400 and not await ensure_async(contents_manager.file_exists(path)):
            raise errors.NotebookNotFound(f"There is no notebook at {path!r}.") from error
        raise _translated(error, path) from error
    except OSError as error:
        raise _unreadable(error, path) from error
    return model


def _unreadable(error: OSError, path: str) -> Exception:
    """Say what the system means: its own text may hold paths of the server."""
    if error.errno in ABSENT:
        return errors.NotebookNotFound(f"There is no notebook at {path!r}.")
    if error.errno in FORBIDDEN:
        return web.HTTPError(403, "%s", f"{path!r} may not be read.")
    reason = "" if error.errno is None else f": {os.strerror(error.errno)}"
    return errors.NotebookUnavailable(f"{path!r} cannot be read now{reason}.")


def _translated(error: web.HTTPError, path: str) -> Exception:
    """Say what a contents manager means in our own words: its own may hold paths of the server."""
    if error.status_code == 404:
        return errors.NotebookNotFound(f"There is no notebook at {path!r}.")
    if error.status_code == 400:
        return errors.InvalidNotebook(f"{path!r} cannot be read as a notebook.")
    if isinstance(error.__cause__, OSError) and error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _unreadable(error.__cause__, path)
    if error.status_code == 403:
        return web.HTTPError(403, "%s", f"{path!r} may not be read.")
    return error


async def has_folder(contents_manager: Any, path: str) -> bool:
    """Whether a folder is there in which a notebook's kernel is to work; the root, of course, is.

    Where notebooks are no files, no kernel works in their folder.
    """
    if not path or not isinstance(contents_manager, FileContentsManager):
        return True
    try:
        return bool(await ensure_async(contents_manager.dir_exists(path)))
    except (web.HTTPError, OSError, ValueError):
        return False


_is_saving = ContextVar("_is_saving", default=False)


class _Expected(logging.Filter):
    """Drops what Jupyter warns of whenever outputs are saved that no person has seen.

    They are not trusted, and shall not be: a kernel need not run where the server does.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return not (_is_saving.get() and record.msg == "Notebook %s is not trusted")


_expected = _Expected()


async def save(contents_manager: Any, path: str, content: NotebookNode) -> None:
    """Save an executed notebook through the contents manager; folders that are missing are made."""
    log = contents_manager.log
    getattr(log, "logger", log).addFilter(_expected)
    folders = normalise(path).split("/")[:-1]
    for depth in range(1, len(folders) + 1):
        folder = "/".join(folders[:depth])
        if not await ensure_async(contents_manager.dir_exists(folder)):
            await ensure_async(contents_manager.save({"type": "directory"}, folder))
    model = {"type": "notebook", "format": "json", "content": content}
    is_saving = _is_saving.set(True)
    try:
        await ensure_async(contents_manager.save(model, normalise(path)))
    finally:
        _is_saving.reset(is_saving)
