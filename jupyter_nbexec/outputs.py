"""What an executed notebook shows, in the shapes that an answer carries."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from typing import TYPE_CHECKING, Final, TypeAlias

from . import models

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    _Object: TypeAlias = Mapping[str, models.JsonValue]

MAX_DEPTH: Final = 500
"""Nesting below which a value is left out of an answer, by null: json itself ends near 1000."""

Origin: TypeAlias = "tuple[int, str | None] | None"
"""Index and id in the stored notebook of an executed cell; None for the injected one, which it lacks."""

_MIME_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SCRAP = re.compile(r"application/scrapbook\.scrap\.[^/]+\+json")
#: Escape sequences for terminals (ECMA-48): colours, links, and all else.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_TEXT_TYPES: Final = frozenset(
    {
        "application/ecmascript",
        "application/graphql",
        "application/javascript",
        "application/sql",
        "application/toml",
        "application/x-javascript",
        "application/x-latex",
        "application/x-sh",
        "application/x-tex",
        "application/x-yaml",
        "application/xml",
        "application/yaml",
    }
)


# Selection


def select(
    notebook: _Object,
    origins: Sequence[Origin],
    selection: models.OutputSelection = models.OutputSelection(),  # noqa: B008  # it is frozen
) -> list[dict[str, models.JsonValue]]:
    """Collect the outputs of the chosen cells, each with its cell in the stored notebook.

    `origins` has an entry for each executed cell. Outputs of the injected cell are never among them:
    what went wrong in it is in the run's error.
    """
    if selection.kind == "none":
        return []
    cells = list(_code_cells(notebook, origins))
    if selection.kind == "last":
        cells = [pair for pair in cells if _was_executed(pair[0])][-1:]
    elif selection.kind == "tags":
        cells = [pair for pair in cells if selection.tags.intersection(_tags(pair[0]))]
    return [
        {"cell": index, "cell_id": cell_id, **output}
        for cell, (index, cell_id) in cells
        for output in _outputs(cell)
    ]


def _code_cells(
    notebook: _Object, origins: Sequence[Origin]
) -> Iterator[tuple[_Object, tuple[int, str | None]]]:
    for cell, origin in zip(notebook.get("cells", []), origins, strict=True):
        if origin is not None and cell.get("cell_type") == "code":
            yield cell, origin


def _was_executed(cell: _Object) -> bool:
    return cell.get("execution_count") is not None or bool(_outputs(cell))


def _tags(cell: _Object) -> list[str]:
    tags = cell.get("metadata", {}).get("tags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _outputs(cell: _Object) -> list[dict[str, models.JsonValue]]:
    return cell.get("outputs") or []


def scraps(notebook: _Object) -> dict[str, models.JsonValue]:
    """Collect what was glued by scrapbook's contract: the last of each name, and nothing malformed."""
    found: dict[str, models.JsonValue] = {}
    for cell in notebook.get("cells", []):
        for data in _bundles(_outputs(cell)):
            for mime, scrap in data.items():
                if _SCRAP.fullmatch(mime) and _is_scrap(scrap):
                    found[scrap["name"]] = scrap["data"]
    return found


def _is_scrap(scrap: models.JsonValue) -> bool:
    return (
        isinstance(scrap, dict)
        and "data" in scrap
        and isinstance(scrap.get("name"), str)
        and isinstance(scrap.get("encoder"), str)
        and isinstance(scrap.get("version"), int)
    )


def cell_result(outputs: Sequence[_Object]) -> tuple[models.JsonValue, str | None]:
    """Return the result that a cell's own outputs give, and its type; both None where it shows nothing.

    A text is without the escape sequences that give it colours on a terminal.
    """
    for mime in ("application/json", "text/plain"):
        for kind in ("execute_result", "display_data"):
            shown = [output for output in outputs if output.get("output_type") == kind]
            for data in reversed(list(_bundles(shown))):
                if mime == "application/json" and mime in data:
                    return data[mime], mime
                if mime in data:
                    return without_escapes(_text(data[mime])), mime
    return None, None


def without_escapes(text: str) -> str:
    """Leave out escape sequences for terminals."""
    return _ESCAPES.sub("", text) if "\x1b" in text else text


# MIME types


def _bundles(outputs: Sequence[_Object]) -> Iterator[dict[str, models.JsonValue]]:
    for output in outputs:
        data = output.get("data")
        if output.get("output_type") in ("display_data", "execute_result") and isinstance(data, dict):
            yield data


def mime_types(outputs: Sequence[_Object]) -> list[str]:
    """List the types that the outputs have, the last output's first; what is no MIME type is left out."""
    found: dict[str, None] = {}
    for data in reversed(list(_bundles(outputs))):
        found.update(dict.fromkeys(mime for mime in data if _MIME_TYPE.fullmatch(mime)))
    return list(found)


def is_mime(name: str) -> bool:
    """Whether a key of a MIME bundle is a MIME type."""
    return _MIME_TYPE.fullmatch(name) is not None


def find_mime(outputs: Sequence[_Object], wanted: str) -> tuple[str, models.JsonValue] | None:
    """Find the last output of a type, which may have wildcards as in `image/*`: its type and its data."""
    kind, _, subtype = wanted.lower().partition("/")
    for data in reversed(list(_bundles(outputs))):
        for mime, value in data.items():
            if not _MIME_TYPE.fullmatch(mime):
                continue
            mime_kind, _, mime_subtype = mime.lower().partition("/")
            if kind in ("*", mime_kind) and subtype in ("*", mime_subtype):
                return mime, value
    return None


def is_json(mime: str) -> bool:
    """Whether a type's data is a JSON value."""
    lowered = mime.lower()
    return lowered == "application/json" or lowered.endswith("+json")


def is_text(mime: str) -> bool:
    """Whether a type's data is text; that of all other types is base64, as Jupyter writes bytes."""
    lowered = mime.lower()
    return lowered.startswith("text/") or lowered.endswith(("+xml", "+yaml")) or lowered in _TEXT_TYPES


def content_type(mime: str) -> str:
    """Return the Content-Type under which `raw_body` gives data of this type."""
    return f"{mime}; charset=utf-8" if is_text(mime) else mime


def raw_body(mime: str, data: models.JsonValue) -> bytes:
    """Return an output's data as the bytes it stands for."""
    if is_json(mime):
        return dumps(data)
    text = _text(data)
    if not is_text(mime):
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            pass  # some library wrote the text itself
    return _replace_surrogates(text).encode()


def _text(data: models.JsonValue) -> str:
    """Join lines, as nbformat keeps them in files; a kernel that sent no text gets its JSON shown."""
    if isinstance(data, list) and all(isinstance(line, str) for line in data):
        return "".join(data)
    return data if isinstance(data, str) else dumps(data).decode()


# JSON


def dumps(value: models.JsonValue) -> bytes:
    """Write JSON in UTF-8 that any parser reads: no NaN, no Infinity, no half of a surrogate pair."""
    try:
        return _encode(value)
    except (ValueError, RecursionError):  # UnicodeEncodeError is a ValueError
        return _encode(clean_json(value))


def _encode(value: models.JsonValue) -> bytes:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def clean_json(value: models.JsonValue) -> models.JsonValue:
    """Replace what JSON cannot hold; a value that needs no change is returned as it is.

    NaN and infinities, and what lies below `MAX_DEPTH`, become None, halves of surrogate pairs become
    U+FFFD, and tuples become lists.
    """
    return value if _is_clean(value) else _clean(value)


def _is_clean(value: models.JsonValue) -> bool:
    """By levels, since recursion would end early."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[models.JsonValue] = []
        for each in level:
            if isinstance(each, dict):
                below.extend(each)
                below.extend(each.values())
            elif isinstance(each, list):
                below.extend(each)
            elif not _is_clean_scalar(each):
                return False
        if not below:
            return True
        level = below
    return False


def _is_clean_scalar(value: models.JsonValue) -> bool:
    if isinstance(value, str):
        return not _SURROGATES.search(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, tuple)


def _clean(value: models.JsonValue) -> models.JsonValue:
    """Build a clean copy top down; `pending` has the places that are still to be filled."""
    root: list[models.JsonValue] = [None]
    pending: list[tuple[models.JsonValue, models.JsonValue, models.JsonValue, int]] = [(value, root, 0, 0)]
    while pending:
        current, place, key, depth = pending.pop()
        if isinstance(current, dict) and depth < MAX_DEPTH:
            # All keys at once, to keep their order; of keys that become equal the last one counts.
            copies = {_replace_surrogates(k) if isinstance(k, str) else k: v for k, v in current.items()}
            place[key] = dict.fromkeys(copies)
            pending += [(child, place[key], name, depth + 1) for name, child in copies.items()]
        elif isinstance(current, (list, tuple)) and depth < MAX_DEPTH:
            place[key] = [None] * len(current)
            pending += [(child, place[key], i, depth + 1) for i, child in enumerate(current)]
        else:
            place[key] = _clean_scalar(current)
    return root[0]


def _clean_scalar(value: models.JsonValue) -> models.JsonValue:
    if isinstance(value, str):
        return _replace_surrogates(value)
    if isinstance(value, (dict, list, tuple)):  # too deep
        return None
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _replace_surrogates(text: str) -> str:
    """Join the halves of surrogate pairs, and replace those that have no other half."""
    if not _SURROGATES.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
