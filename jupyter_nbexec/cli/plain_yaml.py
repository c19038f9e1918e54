"""YAML that has a JSON form."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from jupyter_nbexec.cli import values

if TYPE_CHECKING:
    from jupyter_nbexec import models


def load(text: str) -> models.JsonValue:
    """Read a document; ValueError if it is none, or cannot be kept faithfully."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


class _Loader(yaml.SafeLoader):
    """YAML that has a JSON form: names are strings and given once; dates become ISO 8601 strings."""

    def timestamp(self, node: yaml.ScalarNode) -> str:
        return str(self.construct_yaml_timestamp(node).isoformat())

    def mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        for key, _ in node.value:
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                raise yaml.constructor.ConstructorError(
                    problem=f"the name {key.value!r} must be a string; put it in quotes",
                    problem_mark=key.start_mark,
                )
        values.object_of([(key.value, None) for key, _ in node.value])
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.timestamp)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.mapping)
# YAML 1.1, which PyYAML speaks, takes 1e-5 for a string; YAML 1.2 and everybody else for a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
