"""What the user gives: parameters, and the values of options."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_nbexec.cli import exits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jupyter_nbexec import models


def read_parameters(files: Sequence[str], values: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Merge parameters: files in their order, then single values; what comes later wins over files."""
    parameters: dict[str, Any] = {}
    for name in files:
        parameters.update(_read_file(name))
    single: dict[str, Any] = {}
    for name, text in values:
        if (name := unshield(name)) in single:
            raise exits.UsageError(f"-p {name} is given twice")
        single[name] = parse_value(unshield(text))
    parameters.update(single)
    try:
        json.dumps(parameters, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise exits.UsageError("the parameters hold text that is not valid Unicode") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise exits.UsageError(f"the parameters have no JSON form: {error}") from error
    return parameters


def parse_value(text: str) -> models.JsonValue:
    """Read a value as strict JSON where it is such, else as the string that it is.

    NaN and Infinity are no JSON, so they are strings. What is JSON but cannot be kept faithfully (a
    name twice in an object, a number beyond a float) is refused instead of bent.
    """
    try:
        return _strict_json(text)
    except json.JSONDecodeError:
        return text
    except (ValueError, RecursionError) as error:
        raise exits.UsageError(f"the value {text[:40]!r} cannot be kept as it is: {error}") from error


def _strict_json(text: str) -> models.JsonValue:
    def constant(name: str) -> models.JsonValue:
        raise json.JSONDecodeError(f"{name} is no JSON", text, 0)

    return json.loads(text, parse_constant=constant, parse_float=_float, object_pairs_hook=object_of)


def _float(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"{text} is too large for a float")
    return value


def object_of(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, whose names are given once."""
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"{name!r} is given twice")
        members[name] = value
    return members


def _read_file(name: str) -> dict[str, Any]:
    """The parameters of a file: YAML by its suffix, else JSON where it parses as JSON, else YAML."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8-sig")
        if Path(name).suffix.lower() in (".yaml", ".yml"):
            parameters = _from_yaml(text)
        else:
            try:
                parameters = _strict_json(text)
            except json.JSONDecodeError:
                if Path(name).suffix.lower() == ".json":
                    raise
                parameters = _from_yaml(text)
    except OSError as error:
        raise exits.UsageError(f"{name} cannot be read: {error.strerror}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise exits.UsageError(f"{name} is not valid: {error}") from error
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise exits.UsageError(f"{name} must hold names with values, not a {type(parameters).__name__}")
    return parameters


def _from_yaml(text: str) -> models.JsonValue:
    from jupyter_nbexec.cli import plain_yaml  # most runs have no such file

    return plain_yaml.load(text)


def shield_values(argv: Sequence[str]) -> list[str]:
    """Keep argparse from taking a value such as -1e-5 for an option, by a NUL, which no argument holds."""
    shielded: list[str] = []
    left = 0
    for argument in argv:
        shielded.append(f"\0{argument}" if left else argument)
        left = left - 1 if left else 2 * (argument in ("-p", "--parameter"))
    return shielded


def unshield(argument: str) -> str:
    """Take the NUL away again."""
    return argument.removeprefix("\0")


def seconds(text: str) -> float:
    """Read a duration."""
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError("must be a number of seconds above 0")


def outputs(text: str) -> str | list[str]:
    """Read which outputs are wanted."""
    if text in ("all", "last", "none"):
        return text
    tags = [tag for tag in text.removeprefix("tags:").split(",") if tag]
    if not text.startswith("tags:") or not tags:
        raise argparse.ArgumentTypeError("must be all, last, none or tags:TAG,…")
    return tags


def variable(text: str) -> tuple[str, str]:
    """Read an environment variable, or take it from the environment."""
    name, given, value = text.partition("=")
    if not name:
        raise argparse.ArgumentTypeError("must be NAME=VALUE or NAME")
    if not given and name not in os.environ:
        raise argparse.ArgumentTypeError(f"${name} is not set here")
    return name, value if given else os.environ[name]


def page_size(text: str) -> int:
    """Read how many runs a list may have."""
    with contextlib.suppress(ValueError):
        if 1 <= (value := int(text)) <= 500:
            return value
    raise argparse.ArgumentTypeError("must be a number from 1 to 500")


def run_id(text: str) -> str:
    """Read the id of a run."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError("must be the id of a run, a UUID") from None
