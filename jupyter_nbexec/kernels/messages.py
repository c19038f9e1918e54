"""The one place where what a kernel sends is read: what cannot be is left out, and no fault of ours.

A notebook may have its kernel send anything, and a kernel may be anybody's. What is no UTF-8, as a file name
may be, is replaced; a field that is not what the protocol says is left out; and a message without what makes
it one is unreadable as a whole.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from jupyter_client.jsonutil import extract_dates

from jupyter_nbexec import outputs

#: Message types whose number and size depend on what the notebook prints and shows.
OUTPUT_TYPES: Final = frozenset({"stream", "display_data", "update_display_data", "execute_result", "error"})
#: Bytes of a stream message's content beside its text.
FRAME: Final = len('{"name": "stdout", "text": ""}')

Check = Callable[[Any], bool]


class UnreadableError(ValueError):
    """A message that is none."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_count(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _is_list_of(kind: type) -> Check:
    return lambda value: isinstance(value, list) and all(isinstance(each, kind) for each in value)


#: What a message of a type is nothing without.
_NEEDED: Final[Mapping[str, Mapping[str, Check]]] = {
    "stream": {"name": _is_text, "text": _is_text},
    "display_data": {"data": _is_object},
    "update_display_data": {"data": _is_object},
    "execute_result": {"data": _is_object},
    "error": {"ename": _is_text, "evalue": _is_text, "traceback": _is_list_of(str)},
    "status": {"execution_state": _is_text},
}
#: What is left out of any message where it is something else.
_FIELDS: Final[Mapping[str, Check]] = {
    "execution_count": _is_count,
    "status": _is_text,
    "ename": _is_text,
    "evalue": _is_text,
    "traceback": _is_list_of(str),
    "payload": _is_list_of(dict),
    "user_expressions": _is_object,
    "language_info": _is_object,
    "transient": _is_object,
    "metadata": _is_object,
}
#: What is meant where nothing is said.
_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "display_data": {"metadata": {}},
    "update_display_data": {"metadata": {}},
    "execute_result": {"metadata": {}, "execution_count": None},
}


def read_object(frame: Any) -> dict[str, Any]:
    """Read a JSON object. Raises UnreadableError."""
    text = frame if isinstance(frame, str) else bytes(frame).decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableError from error
    if not isinstance(value, dict):
        raise UnreadableError
    # Only escaped can half a surrogate pair be in what was decoded.
    if "\\u" in text:
        value = outputs.clean_json(value)
    return dict(value)


def header_of(header: Any) -> dict[str, Any]:
    """Check a header. Raises UnreadableError."""
    if not isinstance(header, dict) or not all(_is_text(header.get(name)) for name in ("msg_id", "msg_type")):
        raise UnreadableError
    checked: dict[str, Any] = header
    return checked


def parent_of(parent: Any) -> str | None:
    """Tell which request a message belongs to, by its parent header; None if to none."""
    found = parent.get("msg_id") if isinstance(parent, dict) else None
    return found if isinstance(found, str) else None


@functools.lru_cache(maxsize=64)
def _parent_in(frame: bytes) -> str | None:
    """Read a parent header: mostly it is the same as the one before. Some kernels have `null` for none."""
    return None if frame.strip() in (b"", b"null") else parent_of(read_object(frame))


def content_of(kind: str, content: Any) -> dict[str, Any]:
    """Check what a message of a type says. Raises UnreadableError."""
    if not isinstance(content, dict):
        raise UnreadableError
    if not all(check(content.get(name)) for name, check in _NEEDED.get(kind, {}).items()):
        raise UnreadableError
    wrong = [name for name in content if name in _FIELDS and not _FIELDS[name](content[name])]
    right = {name: value for name, value in content.items() if name not in wrong}
    # A reply that does not say that all is well does not mean it.
    return {**_DEFAULTS.get(kind, {"status": "error"} if is_reply(kind) else {}), **right}


def is_reply(kind: str) -> bool:
    """Whether messages of a type answer requests."""
    return kind.endswith("_reply")


class Parts:
    """A message in parts, parsed no further than is needed to tell whether it is wanted."""

    __slots__ = ("_is_genuine", "_parts", "header", "parent", "size")

    def __init__(self, parts: Sequence[Any], is_genuine: Callable[[], bool] | None = None) -> None:
        """`parts`: header, parent header, metadata, content, buffers. `is_genuine` checks the signature.

        Raises UnreadableError.
        """
        if len(parts) < 4:
            raise UnreadableError
        self.header = header_of(read_object(parts[0]))
        self.parent = _parent_in(bytes(parts[1]))
        # Content and buffers, without headers: what is kept, as near as can be told before it is parsed.
        self.size = max(0, sum(map(len, parts[3:])) - FRAME)
        self._parts = parts
        self._is_genuine = is_genuine

    def content(self) -> dict[str, Any]:
        """Parse its content. Raises UnreadableError, also where the signature is wrong.

        `Session.deserialize` costs three times as much, most of it for dates nobody reads.
        """
        if self._is_genuine is not None and not self._is_genuine():
            raise UnreadableError
        return content_of(self.header["msg_type"], read_object(self._parts[3]))

    def message(self) -> dict[str, Any]:
        """Parse all of it. Raises UnreadableError."""
        content = self.content()
        return whole(self.header, self.parent, read_object(self._parts[2]), content, self._parts[4:])


class Whole:
    """A message that came as one object."""

    __slots__ = ("_buffers", "_fields", "header", "parent", "size")

    def __init__(self, fields: Any) -> None:
        """Raises UnreadableError."""
        if not isinstance(fields, dict):
            raise UnreadableError
        self.header = header_of(fields.get("header"))
        self.parent = parent_of(fields.get("parent_header"))
        buffers = fields.get("buffers")
        self._fields = fields
        self._buffers = buffers if isinstance(buffers, list) else []
        content = json.dumps(fields.get("content"), ensure_ascii=False).encode("utf-8", "replace")
        self.size = max(0, len(content) + sum(map(len, self._buffers)) - FRAME)

    def content(self) -> dict[str, Any]:
        """Its content. Raises UnreadableError."""
        return content_of(self.header["msg_type"], self._fields.get("content"))

    def message(self) -> dict[str, Any]:
        """All of it. Raises UnreadableError."""
        metadata = self._fields.get("metadata")
        return whole(self.header, self.parent, metadata, self.content(), self._buffers)


def whole(
    header: dict[str, Any],
    parent: str | None,
    metadata: Any,
    content: dict[str, Any],
    buffers: Sequence[Any] = (),
) -> dict[str, Any]:
    """Write a message as `Session` does."""
    return {
        "header": extract_dates(header),
        "parent_header": {"msg_id": parent},
        "msg_id": header["msg_id"],
        "msg_type": header["msg_type"],
        "metadata": metadata if isinstance(metadata, dict) else {},
        "content": content,
        "buffers": list(buffers),
    }
