"""What a client sends: strict JSON, checked field by field, into a `models.RunRequest`.

Nothing here repeats a value of `env`: it may be a secret, and messages end up in answers and logs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from . import errors, models

MAX_DIGITS: Final = 4300
"""Longest integer, in digits: what CPython converts by default, so that it can be written again."""

MAX_DEPTH: Final = 1000
"""Deepest nesting of arrays and objects in a body."""

MAX_VALUES: Final = 500_000
"""Values that a body may hold, and names, about: what separates or opens them is counted."""

MAX_TEXT: Final = 4096
"""Characters of a field that is a name, a path or an address."""

MAX_VARIABLES: Final = 1000
"""Environment variables that a request may give, and tags."""

MAX_HEADER: Final = 4096
"""Characters of a header that is read here, all lines of that name together."""

READ_HEADERS: Final = (
    "Accept",
    "Content-Encoding",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "Prefer",
)
"""Headers that are read here, and not only passed on."""

LONGEST: Final = 1e9
"""Seconds (32 years) that a timeout may have where the server sets no maximum of its own."""

_Object: TypeAlias = "dict[str, models.JsonValue]"

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_CHARSET = re.compile(r";\s*charset\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^;]*))", re.IGNORECASE)
# Elements of a list, whose quoted strings may hold commas; a quote that is never closed takes the rest.
_ELEMENT = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.?)*(?:"|\Z))+', re.DOTALL)
# One that is not closed takes the rest, which is no JSON.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\Z)', re.DOTALL)
#: Bytes that are looked through at a time.
_PIECE = 1 << 20
_PLACEHOLDER = re.compile(r"\{(run_id|name)\}")


# JSON


def parse_json(body: bytes) -> models.JsonValue:
    """Read a body as JSON, refusing all that Python reads beyond RFC 8259; an empty one is `{}`."""
    if not body:
        return {}
    _check_count(body)
    text = _decode(body)
    try:
        value = json.loads(
            text,
            parse_int=_parse_int,
            parse_float=_parse_float,
            parse_constant=_parse_constant,
            object_pairs_hook=_parse_object,
        )
    except json.JSONDecodeError as error:
        # `from None`: the error carries the whole body, secrets included.
        where = f"line {error.lineno}, column {error.colno}"
        raise errors.InvalidJson(f"The body is not valid JSON: {error.msg} at {where}.") from None
    except RecursionError:
        raise errors.InvalidJson("The body is nested too deeply.") from None
    if _count(body, 0, len(body), (b"[", b"{")) > MAX_DEPTH and _is_deep(value):
        raise errors.InvalidJson("The body is nested too deeply.")
    return value


def _check_count(body: bytes) -> None:
    """Refuse a body of too many values before they are made.

    A thread that makes millions of objects, or that looks through them for garbage, lets no other thread work
    meanwhile; one that counts does.
    """
    if _count(body, 0, len(body)) <= MAX_VALUES:
        return
    count = position = 0
    for string in _STRING.finditer(body):
        count += _count(body, position, string.start())
        position = string.end()
        if count > MAX_VALUES:
            break
    if count + _count(body, position, len(body)) > MAX_VALUES:
        raise errors.InvalidJson(f"The body holds more than {MAX_VALUES} values.")


def _count(body: bytes, start: int, end: int, marks: Sequence[bytes] = (b",", b":", b"[", b"{")) -> int:
    """Count some marks, a piece at a time, so that other threads have their turn."""
    return sum(
        body.count(mark, place, min(place + _PIECE, end))
        for place in range(start, end, _PIECE)
        for mark in marks
    )


def _decode(body: bytes) -> str:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise errors.InvalidJson("The body is not valid UTF-8.") from None
    if text.startswith("\ufeff"):
        raise errors.InvalidJson("The body must not begin with a byte order mark.")
    return text


def _parse_int(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise errors.InvalidJson(f"The body holds an integer of more than {MAX_DIGITS} digits.")
    return int(digits)


def _parse_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise errors.InvalidJson("The body holds a number that is too large for a float.")
    return number


def _parse_constant(name: str) -> None:
    raise errors.InvalidJson(f"The body holds {name}, which is not JSON.")


def _parse_object(pairs: list[tuple[str, models.JsonValue]]) -> _Object:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise errors.InvalidJson(f"The body holds the member {_quote(name)} twice.")
            seen.add(name)
    return found


def _is_deep(value: models.JsonValue) -> bool:
    """Whether it is nested deeper than `MAX_DEPTH`; by levels, since recursion would end early."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: models.JsonValue) -> list[models.JsonValue]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _has_surrogate(value: models.JsonValue) -> bool:
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, str) and _SURROGATES.search(current):
            return True
        pending += _children(current)
        if isinstance(current, dict):
            pending += current
    return False


def _quote(name: str) -> str:
    """Write a name for a message: short, printable, and safe to encode."""
    return ascii(name if len(name) <= 60 else name[:60] + "...")


# Headers


def check_headers(get_list: Callable[[str], list[str]]) -> None:
    """Refuse headers that are too long to be read in no time. `get_list` gives all lines of a name."""
    long = [name for name in READ_HEADERS if sum(map(len, get_list(name))) > MAX_HEADER]
    if long:
        raise errors.InvalidRequest(*((name, f"is longer than {MAX_HEADER} characters") for name in long))


def check_media_type(content_type: str | None, content_encoding: str | None) -> None:
    """Refuse a body that cannot be JSON in UTF-8; any other type will do, as for Jupyter's resources."""
    if content_encoding and content_encoding.strip():
        raise errors.UnsupportedMediaType("The body must have no Content-Encoding.")
    if not content_type:
        return
    if content_type.partition(";")[0].strip().lower().startswith("multipart/"):
        raise errors.UnsupportedMediaType("The body must be JSON, not multipart.")
    check_charset(content_type)


def check_charset(content_type: str) -> None:
    """Refuse a Content-Type that names a charset other than UTF-8.

    No name of a client's becomes a codec of Python's: some of those take quadratic time.
    """
    for match in _CHARSET.finditer(content_type):
        charset = match[1] if match[1] is not None else match[2]
        if charset.strip().lower() not in ("utf-8", "utf8"):
            raise errors.UnsupportedMediaType("The body must be in UTF-8, in no other charset.")


# The request


def parse_run_request(fields: models.JsonValue, *, path: str | None, max_timeout: float) -> models.RunRequest:
    """Check the body of a run request; every problem is reported at once.

    `path` is None where the notebook is in the body. A `max_timeout` of 0 means no maximum.
    """
    if not isinstance(fields, dict):
        raise errors.InvalidRequest(("body", f"must be an object, not {_kind(fields)}"))
    reader = _Reader(fields)
    request = models.RunRequest(
        path=path,
        notebook=reader.notebook(required=path is None),
        parameters=reader.parameters(),
        kernel_name=reader.identifier("kernel_name"),
        kernel_id=reader.identifier("kernel_id"),
        timeout=reader.seconds("timeout", maximum=max_timeout if max_timeout > 0 else LONGEST),
        cell_timeout=reader.seconds("cell_timeout", maximum=LONGEST),
        allow_errors=reader.boolean("allow_errors"),
        outputs=reader.outputs(),
        env=reader.env(),
        save_as=reader.save_as(),
        webhook=reader.webhook(),
    )
    reader.combinations()
    reader.unknown()
    if reader.errors:
        raise errors.InvalidRequest(*reader.errors)
    return request


class _Reader:
    """Takes the fields of a body one by one and collects what is wrong with them."""

    def __init__(self, fields: _Object) -> None:
        self.fields = fields
        self.known: set[str] = set()
        self.errors: list[tuple[str, str]] = []

    def refuse(self, field: str, message: str) -> None:
        """Note a problem."""
        self.errors.append((field, message))

    def take(self, name: str, kind: type[object], described: str) -> models.JsonValue:
        """Return the field's value, or MISSING where it is absent or of the wrong type."""
        self.known.add(name)
        value = self.fields.get(name, models.MISSING)
        if value is models.MISSING:
            return value
        if isinstance(value, str) and len(value) > MAX_TEXT:
            self.refuse(name, f"is longer than {MAX_TEXT} characters")
            return models.MISSING
        if not isinstance(value, kind):
            self.refuse(name, f"must be {described}, not {_kind(value)}")
            return models.MISSING
        return value

    def notebook(self, *, required: bool) -> _Object | None:
        """The notebook itself: where no path names one, and only there."""
        if not required:
            self.known.add("notebook")
            if "notebook" in self.fields:
                self.refuse("notebook", "must not be given where the path names a notebook")
            return None
        if "notebook" not in self.fields:
            self.refuse("notebook", "is required where no path names a notebook")
        notebook = self.take("notebook", dict, "an object")
        if notebook is models.MISSING:
            return None
        if _has_surrogate(notebook):
            self.refuse("notebook", "holds half of a surrogate pair, which is no Unicode text")
        return notebook  # type: ignore[no-any-return]  # JsonValue is Any

    def parameters(self) -> _Object:
        """The values for the notebook's parameters; what they may be is checked with the notebook."""
        value = self.take("parameters", dict, "an object")
        return {} if value is models.MISSING else dict(value)

    def identifier(self, name: str) -> str | None:
        """A name or an id that is one segment of a path."""
        value = self.take(name, str, "a string")
        if value is models.MISSING:
            return None
        if problem := _identifier_problem(value):
            self.refuse(name, problem)
        return str(value)

    def seconds(self, name: str, *, maximum: float) -> float | None:
        """A duration."""
        value = self.take(name, object, "a number")
        if value is models.MISSING:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.refuse(name, f"must be a number of seconds, not {_kind(value)}")
        elif not value > 0:  # not `<=`: NaN is neither
            self.refuse(name, "must be more than 0 seconds")
        elif value > maximum:
            self.refuse(name, f"must be at most {maximum:.15g} seconds")
        else:
            return float(value)
        return None

    def boolean(self, name: str) -> bool | None:
        """A flag that may be absent."""
        value = self.take(name, bool, "true or false")
        return None if value is models.MISSING else bool(value)

    def outputs(self) -> models.OutputSelection:
        """Which outputs the answer carries."""
        value = self.take("outputs", object, "")
        if value is models.MISSING:
            return models.OutputSelection()
        if value in ("all", "last", "none"):
            return models.OutputSelection(kind=value)
        if not isinstance(value, dict) or set(value) != {"tags"}:
            self.refuse("outputs", 'must be "all", "last", "none" or {"tags": [...]}')
            return models.OutputSelection()
        tags = value["tags"]
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            self.refuse("outputs.tags", "must be an array of strings")
            return models.OutputSelection()
        if len(tags) > MAX_VARIABLES:
            self.refuse("outputs.tags", f"are {len(tags)}, which is more than {MAX_VARIABLES}")
            return models.OutputSelection()
        return models.OutputSelection(kind="tags", tags=frozenset(tags))

    def env(self) -> dict[str, str]:
        """The environment variables, of which messages repeat well-formed names only."""
        env = self.take("env", dict, "an object of strings")
        if env is models.MISSING:
            return {}
        if len(env) > MAX_VARIABLES:
            self.refuse("env", f"holds {len(env)} variables, which is more than {MAX_VARIABLES}")
            return {}
        for name, value in env.items():
            if problem := _env_name_problem(name):
                self.refuse("env", problem)
            elif problem := _env_value_problem(value):
                self.refuse(f"env.{name}" if name.isascii() and len(name) <= 60 else "env", problem)
        return dict(env)

    def save_as(self) -> str | None:
        """Where to save the executed notebook."""
        template = self.take("save_as", str, "a string")
        if template is models.MISSING:
            return None
        if problem := _save_as_problem(template):
            self.refuse("save_as", problem)
        return str(template)

    def webhook(self) -> models.Webhook | None:
        """Whom to tell of the run's end; whether that may be is for `webhooks` to decide."""
        webhook = self.take("webhook", dict, "an object")
        if webhook is models.MISSING:
            return None
        found = len(self.errors)
        for name in sorted(set(webhook) - {"url", "events", "secret"}):
            self.refuse("webhook", f"has no member {_quote(name)}")
        if not isinstance(webhook.get("url"), str):
            self.refuse("webhook.url", "must be a string")
        if not isinstance(webhook.get("secret", ""), str):
            self.refuse("webhook.secret", "must be a string")
        if webhook.get("events", ["ended"]) != ["ended"]:
            self.refuse("webhook.events", 'must be ["ended"]')
        if len(self.errors) > found:
            return None
        return models.Webhook(url=webhook["url"], secret=webhook.get("secret"))

    def combinations(self) -> None:
        """Refuse what a live kernel cannot be given any more."""
        if "kernel_id" not in self.fields:
            return
        if "kernel_name" in self.fields:
            self.refuse("kernel_name", "must not be given together with kernel_id")
        if self.fields.get("env"):
            self.refuse("env", "must not be given together with kernel_id, which is running already")

    def unknown(self) -> None:
        """Refuse what nobody asked for."""
        for name in self.fields:
            if name not in self.known:
                printable = name if len(name) <= 60 and name.isprintable() else _quote(name)
                self.refuse(printable, "is not a field of this request")


def _kind(value: models.JsonValue) -> str:
    """What JSON calls it."""
    if value is None:
        return "null"
    names = ((bool, "a boolean"), ((int, float), "a number"), (str, "a string"), (list, "an array"))
    return next((name for kind, name in names if isinstance(value, kind)), "an object")


def _identifier_problem(text: str) -> str | None:
    if not text:
        return "must not be empty"
    if _CONTROLS.search(text) or _SURROGATES.search(text):
        return "must not hold control characters"
    return None


def _env_name_problem(name: str) -> str | None:
    if not name:
        return "holds an empty name"
    if "=" in name:
        return "holds a name with '=' in it"
    if _CONTROLS.search(name) or _SURROGATES.search(name):
        return "holds a name with control characters in it"
    return None


def _env_value_problem(value: models.JsonValue) -> str | None:
    if not isinstance(value, str):
        return f"must be a string, not {_kind(value)}"
    if "\0" in value:
        return "must not hold a NUL character"
    if _SURROGATES.search(value):
        return "holds half of a surrogate pair, which is no Unicode text"
    return None


def _save_as_problem(template: str) -> str | None:
    if not template.endswith(".ipynb"):
        return "must end with .ipynb"
    if "\\" in template or _CONTROLS.search(template) or _SURROGATES.search(template):
        return "must not hold backslashes or control characters"
    segments = template.split("/")
    if ".." in segments:
        return "must not hold '..'"
    if "" in segments:
        return "must be a relative path with no empty segments"
    if any(segment.startswith(".") for segment in segments):
        return "must not name a hidden file or folder"
    return None


def expand_save_as(template: str, *, run_id: str, name: str) -> str:
    """Put a run's id and its notebook's name (without folder and suffix) into a `save_as`.

    All other braces are literal, and what is put in is not looked at again.
    """
    values = {"run_id": run_id, "name": name}
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


# Asynchronous runs

MAX_KEY: Final = 255
"""Longest Idempotency-Key, in characters."""


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """What a Prefer header (RFC 7240) asks for, of what there is."""

    respond_async: bool = False
    wait: float | None = None  #: seconds
    #: Whether there was such a header at all.
    any: bool = False

    @property
    def applied(self) -> str:
        """The value of `Preference-Applied`; empty where nothing was preferred."""
        parts = ["respond-async"] if self.respond_async else []
        return ", ".join(parts if self.wait is None else [*parts, f"wait={self.wait:g}"])


def parse_prefer(header: str | None) -> Preferences:
    """Read a Prefer header; what is unknown or malformed in it is ignored, as the RFC says."""
    respond_async, wait = False, None
    for element in _ELEMENT.findall(header or ""):
        name, _, value = (part.strip() for part in element.partition(";")[0].partition("="))
        if name.lower() == "respond-async":
            respond_async = True
        elif (
            name.lower() == "wait"
            and wait is None
            and (value := value.strip('"')).isascii()
            and value.isdigit()
        ):
            wait = min(float(value), LONGEST)
    return Preferences(respond_async=respond_async, wait=wait, any=bool(header))


def parse_key(header: str | None) -> str | None:
    """Read an Idempotency-Key, in quotes as the draft has it or bare. Raises InvalidRequest."""
    if header is None:
        return None
    with contextlib.suppress(UnicodeError):
        # Headers are read as Latin-1; what was UTF-8 is made so again.
        header = header.encode("latin-1").decode("utf-8")
    key = header.strip()
    if len(key) >= 2 and key.startswith('"') and key.endswith('"'):
        key = re.sub(r"\\(.)", r"\1", key[1:-1])
    if not 1 <= len(key) <= MAX_KEY or _CONTROLS.search(key):
        message = f"must have 1 to {MAX_KEY} characters, and no control characters"
        raise errors.InvalidRequest(("Idempotency-Key", message))
    return key


def fingerprint(fields: models.JsonValue, *, path: str | None) -> str:
    """Tell whether two requests are the same: SHA-256 of the path and the body.

    Secrets are no part of it, since it is stored: of `env` only the names count, of `webhook` no secret.
    """
    told = dict(fields) if isinstance(fields, dict) else fields
    if isinstance(told, dict):
        if isinstance(told.get("env"), dict):
            told["env"] = sorted(told["env"])
        if isinstance(told.get("webhook"), dict):
            told["webhook"] = {name: value for name, value in told["webhook"].items() if name != "secret"}
    text = json.dumps([path, told], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
