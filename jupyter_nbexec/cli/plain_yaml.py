"""YAML that has a JSON form."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from jupyter_nbexec.cli import values

if TYPE_CHECKING:
    from jupyter_nbexec import models


#: Values that a file may hold, as a server takes them; and digits of an integer in it.
MAX_VALUES, MAX_DIGITS = 500_000, 4300


def load(text: str) -> models.JsonValue:
    """Read a document; ValueError if it is none, or cannot be kept faithfully."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


class _Loader(yaml.SafeLoader):
    """YAML that has a JSON form: names are strings and given once; dates become ISO 8601 strings.

    In JSON, an anchor is written out wherever it is used: what that makes is counted before it is made.
    """

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _written(node, {}) > MAX_VALUES:
            raise ValueError(f"with its anchors written out it has more than {MAX_VALUES} values")
        return node

    def integer(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MAX_DIGITS:
            raise ValueError(f"it holds an integer of more than {MAX_DIGITS} digits")
        return int(self.construct_yaml_int(node))

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


def _written(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values of a node, those of anchors as often as they are used."""
    if id(node) not in known:
        known[id(node)] = 1  # for an anchor that holds itself, which is refused later
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        pairs = ((child,) if isinstance(child, yaml.Node) else child for child in children)
        known[id(node)] += sum(_written(child, known) for pair in pairs for child in pair)
    return known[id(node)]


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.integer)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.timestamp)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.mapping)
# YAML 1.1, which PyYAML speaks, takes 1e-5 for a string; YAML 1.2 and everybody else for a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
