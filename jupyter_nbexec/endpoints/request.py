"""REQUEST: what a notebook is told of an HTTP request, as Kernel Gateway writes it, without credentials."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from jupyter_nbexec import errors, languages, requests

NAME: Final = "REQUEST"
"""The variable that a notebook reads."""

CREDENTIAL_HEADERS: Final = frozenset(
    {"authorization", "cookie", "proxy-authorization", "x-csrftoken", "x-xsrftoken"}
)
"""Headers that are the server's business: no notebook sees them."""

CREDENTIAL_ARGUMENTS: Final = frozenset({"token", "_xsrf"})
"""Arguments of the URL that are the server's business."""

FORM: Final = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})

Values: TypeAlias = "Mapping[str, Sequence[bytes]]"
"""What a form or a query holds: each name as Latin-1, which stands for bytes, and its values."""


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of a form."""

    name: str
    content_type: str
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form that was sent."""

    fields: Values = field(default_factory=dict)
    #: Whether the names of fields are texts already; else they are as those of a query.
    has_text_names: bool = False
    files: Mapping[str, Sequence[File]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """A request that calls an endpoint, as far as the notebook may know of it."""

    headers: Iterable[tuple[str, str]] = ()
    query: Values = field(default_factory=dict)
    body: bytes = b""
    form: Form | None = None  #: what the body holds, if it is a form

    @property
    def size(self) -> int:
        """How much there is to encode, in bytes; roughly."""
        return len(self.body)


def write(incoming: Incoming, parameters: Mapping[str, str]) -> str:
    """Write REQUEST: a JSON text in ASCII. Raises UnsupportedMediaType for a charset other than UTF-8."""
    headers = _headers(incoming.headers)
    content_type = headers.get("Content-Type", "")
    media_type = media(content_type if isinstance(content_type, str) else content_type[-1])
    document: dict[str, Any] = {
        "body": "",
        "args": _texts(incoming.query, without=CREDENTIAL_ARGUMENTS),
        "path": dict(parameters),
        "headers": headers,
    }
    if incoming.form is not None:
        form = incoming.form
        document["body"] = _texts(form.fields, has_text_names=form.has_text_names)
        if incoming.form.files:
            document["files"] = _files(incoming.form.files)
    else:
        document.update(_body(incoming.body, media_type))
    return json.dumps(document)


def assign(text: str, language: languages.Language | None) -> str:
    """Write the statement that gives REQUEST its value. Raises Unprocessable where nobody knows how to."""
    if language is None:
        raise errors.Unprocessable("Requests cannot be written in the language of this notebook's kernel.")
    try:
        return language.assignment(NAME, text)
    except languages.Unwritable as error:
        raise errors.Unprocessable(f"The request cannot be written in {language.name}: {error}.") from error


def media(content_type: str) -> str:
    """Read the type of a Content-Type, in lower case. Raises UnsupportedMediaType unless texts are UTF-8."""
    requests.check_charset(content_type)
    return content_type.partition(";")[0].strip().lower()


def _headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str | list[str]]:
    """Collect headers; those that are repeated become lists."""
    collected: dict[str, list[str]] = {}
    for name, value in pairs:
        if name.lower() not in CREDENTIAL_HEADERS:
            collected.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in collected.items()}


def _texts(
    values: Values,
    *,
    without: frozenset[str] = frozenset(),
    has_text_names: bool = False,
) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for name, given in values.items():
        if name not in without:
            text = name if has_text_names else _name(name)
            texts[text] = [value.decode("utf-8", "replace") for value in given]
    return texts


def _name(name: str) -> str:
    try:
        return name.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return name


def _files(files: Mapping[str, Sequence[File]]) -> dict[str, list[dict[str, str]]]:
    return {
        name: [
            {
                "filename": file.name,
                "content_type": file.content_type,
                "content": base64.b64encode(file.content).decode("ascii"),
            }
            for file in given
        ]
        for name, given in files.items()
    }


def _body(body: bytes, media_type: str) -> dict[str, Any]:
    """Read a body that is no form: JSON as its value, text as text, anything else as base64."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode("ascii"), "body_encoding": "base64"}
    if media_type == "application/json":
        try:
            return {"body": json.loads(text)}
        except (ValueError, RecursionError):
            return {"body": text}
    return {"body": text}
