"""The answer of an endpoint: what its cell printed or showed, and what its ResponseInfo cell said."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from jupyter_nbexec import errors, negotiation, outputs

_Output: TypeAlias = "Mapping[str, Any]"

TEXT: Final = "text/plain; charset=utf-8"

#: Headers that say how a message is sent, which is the server's to say (RFC 9110, 7.6.1).
_FRAMING: Final = frozenset(
    {
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "server",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-sendfile",
    }
)
#: What servers in front of this one obey: which file they are to send, how they keep an answer.
_OF_PROXIES: Final = "x-accel-"
#: Headers that decide what a page may do on the origin of the server, or who is logged in there.
_OF_THE_ORIGIN: Final = frozenset(
    {
        "accept-ch",
        "alt-svc",
        "clear-site-data",
        "content-security-policy",
        "content-security-policy-report-only",
        "nel",
        "origin-agent-cluster",
        "public-key-pins",
        "report-to",
        "reporting-endpoints",
        "service-worker-allowed",
        "set-cookie",
        "strict-transport-security",
        "www-authenticate",
        "x-content-type-options",
    }
)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSAFE_VALUE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
#: Which form of an output is given where the client does not care: the first of these that it has.
_RICHNESS: Final = ("text/html", "image/svg+xml", "image/png", "image/jpeg", "application/json", "text/csv")
_PLAIN: Final = "text/plain"
#: Statuses whose answers have no body.
BODILESS: Final = frozenset({204, 205, 304})


class BadInfo(Exception):
    """A ResponseInfo cell did not print what it should; the text ends a sentence about the cell."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """What a ResponseInfo cell says."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer to an HTTP request."""

    status: int = 200
    content_type: str | None = TEXT
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    #: Names of headers that the notebook may not set here, and were left out.
    refused: tuple[str, ...] = field(default=())


def parse_info(text: str) -> Info:
    """Read what a ResponseInfo cell printed. Raises BadInfo."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise BadInfo("printed nothing" if not text.strip() else "did not print JSON") from None
    if not isinstance(document, dict):
        raise BadInfo("did not print a JSON object")
    headers = document.get("headers", {})
    if not isinstance(headers, dict):
        raise BadInfo("printed headers that are no object")
    return Info(
        status=_status(document.get("status", 200)),
        headers=tuple(pair for name, value in headers.items() for pair in _header(name, value)),
    )


def _status(value: Any) -> int:
    is_whole = type(value) is int or (type(value) is float and value.is_integer())
    if not is_whole or not 200 <= value <= 599:
        raise BadInfo("printed a status that is none: a whole number from 200 to 599")
    return int(value)


def _header(name: str, value: Any) -> list[tuple[str, str]]:
    if not _NAME.fullmatch(name):
        raise BadInfo(f"printed a header whose name is none: {name[:80]!a}")
    values = value if isinstance(value, list) else [value]
    if any(not isinstance(each, (str, int, float)) for each in values):
        raise BadInfo(f"printed no text for the header {name[:80]}")
    texts = [str(each) for each in values]
    if any(_UNSAFE_VALUE.search(text) for text in texts):
        raise BadInfo(f"printed a value for the header {name[:80]} with characters that no header may have")
    return [(name, text.strip()) for text in texts]


def read(
    stdout: str,
    shown: Sequence[_Output],
    info: Info | None,
    accept: negotiation.Accept,
    *,
    owns_origin: bool,
) -> Answer:
    """Make the answer. Raises NotAcceptable if only rich outputs were shown, none of which is acceptable.

    What was printed comes first; then what was shown, in its own type. A value that is nothing but text is
    given as Kernel Gateway gives it: as the JSON of its MIME bundle. `owns_origin`: whether notebooks may
    speak for the origin that they are served from, which nobody else has then.
    """
    info = info or Info()
    content_type, body = (TEXT, stdout.encode("utf-8", "replace")) if stdout else _shown(shown, accept)
    headers: list[tuple[str, str]] = []
    refused: list[str] = []
    for name, value in info.headers:
        if name.lower() == "content-type":
            content_type = value
        elif _may_be_set(name.lower(), value, owns_origin=owns_origin):
            headers.append((name, value))
        else:
            refused.append(name)
    has_body = info.status not in BODILESS
    return Answer(
        status=info.status,
        content_type=content_type if has_body else None,
        headers=tuple(headers),
        body=body if has_body else b"",
        refused=tuple(refused),
    )


def _may_be_set(name: str, value: str, *, owns_origin: bool) -> bool:
    if name in _FRAMING or name.startswith(_OF_PROXIES):
        return False
    if owns_origin:
        return True
    if name == "location":
        return _is_plain_target(value)
    return name not in _OF_THE_ORIGIN and not name.startswith("access-control-")


def _is_plain_target(location: str) -> bool:
    """Whether a redirect leads where it seems to: browsers take `https:host` for `https://host`, and more."""
    if "\\" in location or "\t" in location or location.startswith("//"):
        return False
    try:
        parts = urlsplit(location)
    except ValueError:
        return False
    return (parts.scheme in ("http", "https") and bool(parts.netloc)) or not parts.scheme


def _shown(shown: Sequence[_Output], accept: negotiation.Accept) -> tuple[str, bytes]:
    """Choose among what was shown, the last first."""
    if not shown:
        return TEXT, b""
    last = shown[-1]
    bundle = last["data"] if last["output_type"] == "execute_result" else None
    types = [mime for output in reversed(shown) for mime in _types(output["data"])]
    available = list(dict.fromkeys(types))
    # Kernel Gateway's form of a value: what there is besides its own types.
    offered = [*available, "application/json"] if bundle is not None else available
    if bundle is not None and set(bundle) <= {_PLAIN} and accept.choose([_PLAIN, *offered]) == _PLAIN:
        return TEXT, _bundle(bundle)
    chosen = accept.choose(offered)
    if chosen is None:
        message = "The endpoint shows nothing of a type that the Accept header allows."
        raise errors.NotAcceptable(message, available=available)
    found = outputs.find_mime(shown, chosen)
    if found is None:
        return "application/json", _bundle(bundle or {})
    return outputs.content_type(found[0]), outputs.raw_body(*found)


def _types(data: Mapping[str, Any]) -> list[str]:
    """Order the types of one output, the richest first."""
    known = [mime for mime in _RICHNESS if mime in data]
    others = [mime for mime in data if mime not in known and mime != _PLAIN and outputs.is_mime(mime)]
    return [*known, *others, *([_PLAIN] if _PLAIN in data else [])]


def _bundle(data: Mapping[str, Any]) -> bytes:
    """Write a MIME bundle as `json.dumps` does."""
    return json.dumps(outputs.clean_json(dict(data))).encode()
