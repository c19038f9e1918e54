"""Python, as in ipykernel and xeus-python; and reading a cell's parameters from its syntax tree."""

from __future__ import annotations

import ast
import keyword
import math
import re
import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

from jupyter_nbexec import models
from jupyter_nbexec.languages import base, statements

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How often reading starts again after a statement of several lines that does not parse.
_RESTARTS = 20

#: How many targets of `a = b = c = 1` count, and how long a default's source is shown: each is a copy.
_TARGETS = 20
_LONGEST_SOURCE = 1_000

#: Errors of `ast.parse`: not Python, a NUL character, nested too deeply for the parser.
_UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)

_MAGIC = re.compile(r"\s*%%(?!time\b|timeit\b|capture\b|prun\b)")
_SHELL = re.compile(r"([^\W\d]\w*)\s*=\s*([!%].*)", re.DOTALL)


class Python(base.Language):
    """How JSON is written in Python.

    Every value has its own literal: `None`, `True`, `False`, int of any size, float, str, list, dict.
    Nothing is refused. Names with two underscores at both ends are, since they mean something to
    Python, and names that are not in NFKC, since Python takes them for another.
    """

    name = "Python"
    languages = frozenset({"python", "python2", "python3", "ipython", "ipython3"})
    kernels = frozenset({"pysparkkernel", "python", "python2", "python3", "xpython", "ipython", "ipykernel"})
    keywords = frozenset(keyword.kwlist)
    null = "None"
    true = "True"
    false = "False"

    def check_name(self, name: str) -> str | None:
        """Refuse dunders, and names that Python reads as other ones."""
        folded = self.fold(name)
        if name.isidentifier() and name != folded:
            return f"is read by Python as {base.shorten(folded)!r}; give that name"
        if len(name) > 4 and name.startswith("__") and name.endswith("__"):
            return "has a meaning of its own in Python"
        return super().check_name(name)

    def fold(self, name: str) -> str:
        """Python normalises names to NFKC."""
        return unicodedata.normalize("NFKC", name)

    def string(self, text: str) -> str:
        """Write it as papermill does: double quotes, ASCII."""
        return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'

    def array(self, values: list[models.JsonValue], written: list[str]) -> str:  # noqa: ARG002
        """Write a list."""
        return f"[{', '.join(written)}]"

    def mapping(self, values: dict[str, models.JsonValue], written: list[tuple[str, str]]) -> str:  # noqa: ARG002
        """Write a dict."""
        return f"{{{', '.join(f'{key}: {value}' for key, value in written)}}}"

    def infer(self, source: str) -> list[models.Parameter]:
        """Read the assignments at top level; whatever does not parse is passed over."""
        if _MAGIC.match(source):
            return []
        declared = _Declared()
        for tree, text in _parse(source.replace("\r\n", "\n").replace("\r", "\n")):
            if isinstance(tree, str):
                declared.add(tree, _Given(None, is_value=False, text=text), text)
            else:
                declared.add_statement(tree, text)
        names = [name for name in declared.names if self.check_name(name) is None]
        return [declared.parameter(name) for name in names]


def _parse(source: str) -> Iterator[tuple[ast.stmt | str, _Text]]:
    """Give each top-level statement, and the name on the left of each `name = !command`."""
    start = 0
    for _ in range(_RESTARTS):
        for statement in statements.split(source, statements.PYTHON, start):
            if statement.indented:
                continue
            try:
                trees = ast.parse(statement.text).body
            except _UNPARSABLE:
                shell = _SHELL.fullmatch(statement.text.strip())
                if shell:
                    yield shell[1], _Text(shell[2], statement.comment)
                if "\n" in statement.text.strip():
                    # An open bracket or string has swallowed what follows: go on after its first line.
                    first = len(statement.text) - len(statement.text.lstrip())
                    start = source.index("\n", statement.start + first) + 1
                    break
            else:
                text = _Text(statement.text, statement.comment)
                yield from ((tree, text) for tree in trees)
        else:
            return


class _Text:
    """The text around a statement, and the comment beside it."""

    def __init__(self, text: str, comment: str) -> None:
        self.comment = comment
        self._text = text
        # The syntax tree counts bytes. `ast.get_source_segment` splits the text anew for every node.
        self._lines = [line.encode() for line in text.split("\n")]

    def of(self, node: ast.expr | ast.stmt | None) -> str:
        """The source of a node; all of it where there is none."""
        if node is None or node.end_lineno is None:
            return self._text.strip()
        lines = self._lines[node.lineno - 1 : node.end_lineno]
        lines[-1] = lines[-1][: node.end_col_offset]
        lines[0] = lines[0][node.col_offset :]
        return b"\n".join(lines).decode()


class _Given(NamedTuple):
    """What a name was given last."""

    node: ast.expr | ast.stmt | None  #: whose source tells it; None: all of the text
    is_value: bool  #: whether the node is the value itself, not what it is computed from
    text: _Text


class _Declared:
    """The parameters found so far: what was said of each name last, in the order of the first."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self._given: dict[str, _Given] = {}
        self._annotations: dict[str, ast.expr] = {}
        self._comments: dict[str, str] = {}

    def add_statement(self, tree: ast.stmt, text: _Text) -> None:
        """Take an assignment of any form; other statements declare nothing."""
        if isinstance(tree, ast.Assign):
            for target in tree.targets[:_TARGETS]:
                self._add_target(target, tree.value, text)
        elif isinstance(tree, ast.AnnAssign) and isinstance(tree.target, ast.Name):
            given = None if tree.value is None else _Given(tree.value, is_value=True, text=text)
            self.add(tree.target.id, given, text, tree.annotation)
        elif isinstance(tree, ast.AugAssign) and isinstance(tree.target, ast.Name):
            self.add(tree.target.id, _Given(tree, is_value=False, text=text), text)

    def add(self, name: str, given: _Given | None, text: _Text, annotation: ast.expr | None = None) -> None:
        """Take what is said of a name; what is not said now holds on."""
        self.names.setdefault(name)
        if given is not None:
            self._given[name] = given
        if text.comment:
            self._comments[name] = text.comment
        if annotation is not None:
            self._annotations[name] = annotation

    def _add_target(self, target: ast.expr, value: ast.expr, text: _Text) -> None:
        """Take one target of an assignment, or the names that a tuple of targets holds."""
        if isinstance(target, ast.Name):
            self.add(target.id, _Given(value, is_value=True, text=text), text)
        elif isinstance(target, ast.Tuple | ast.List):
            values = _elements(value, len(target.elts))
            if values is not None and not any(isinstance(element, ast.Starred) for element in target.elts):
                for part, element in zip(target.elts, values, strict=True):
                    self._add_target(part, element, text)
                return
            for node in ast.walk(target):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    self.add(node.id, _Given(value, is_value=False, text=text), text)

    def parameter(self, name: str) -> models.Parameter:
        """Make the parameter of what was said of a name."""
        comment_type, description = _read_comment(self._comments.get(name, ""))
        given = self._given.get(name)
        value = given.node if given and given.is_value and isinstance(given.node, ast.expr) else None
        default = models.MISSING if value is None else _literal(value)
        annotation = self._annotations.get(name, comment_type)
        schema = _type_of_value(value, default) if annotation is None else _schema(annotation)
        if annotation is not None and default is None:
            schema = _or_null(schema)
        source = None
        if given is not None and default is models.MISSING:
            source = base.shorten(given.text.of(given.node), _LONGEST_SOURCE)
        return models.Parameter(
            name=name,
            type=base.type_word(schema),
            schema=schema,
            default=default,
            default_source=source,
            description=description,
        )


def _elements(value: ast.expr, count: int) -> list[ast.expr] | None:
    """The parts of a tuple or list that `count` targets take apart."""
    if not isinstance(value, (ast.Tuple, ast.List)) or len(value.elts) != count:
        return None
    return None if any(isinstance(element, ast.Starred) for element in value.elts) else value.elts


def _literal(node: ast.expr, depth: int = 0) -> models.JsonValue:
    """The JSON value of a literal; MISSING where it is no literal, or one that JSON does not have."""
    if isinstance(node, ast.Constant):
        return node.value if _is_json_scalar(node.value) else models.MISSING
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        operand = _literal(node.operand, base.MAX_DEPTH)
        if isinstance(node.operand, ast.UnaryOp) or isinstance(operand, bool):
            return models.MISSING
        if not isinstance(operand, (int, float)):
            return models.MISSING
        return -operand if isinstance(node.op, ast.USub) else operand
    if depth >= base.MAX_DEPTH:
        return models.MISSING
    if isinstance(node, (ast.List, ast.Tuple)):
        elements = [_literal(element, depth + 1) for element in node.elts]
        return models.MISSING if any(item is models.MISSING for item in elements) else elements
    if isinstance(node, ast.Dict):
        return _dict_literal(node, depth)
    return models.MISSING


def _dict_literal(node: ast.Dict, depth: int) -> models.JsonValue:
    """The object of a dict display; MISSING where a key is no string."""
    result = {}
    for key, element in zip(node.keys, node.values, strict=True):
        name = None if key is None else _literal(key, base.MAX_DEPTH)
        value = _literal(element, depth + 1)
        if not isinstance(name, str) or value is models.MISSING:
            return models.MISSING
        result[name] = value
    return result


def _is_json_scalar(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return value.isascii() or not re.search("[\ud800-\udfff]", value)
    if isinstance(value, int):
        return value.bit_length() < math.floor(base.MAX_DIGITS * math.log2(10))
    return value is None


_DISPLAYS: dict[type[ast.expr], str] = {
    ast.List: "array",
    ast.ListComp: "array",
    ast.Tuple: "array",
    ast.Dict: "object",
    ast.DictComp: "object",
    ast.JoinedStr: "string",
}


def _type_of_value(node: ast.expr | None, default: models.JsonValue) -> dict[str, Any]:
    """The schema that a default stands for where no annotation does."""
    if default is models.MISSING:
        kind = None if node is None else _DISPLAYS.get(type(node))
    elif isinstance(default, bool):
        kind = "boolean"
    elif default is None:
        kind = None
    else:
        kind = {int: "integer", float: "number", str: "string", list: "array", dict: "object"}[type(default)]
    return {} if kind is None else {"type": kind}


# Annotations.

_SIMPLE: dict[str, dict[str, Any]] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "None": {"type": "null"},
    "NoneType": {"type": "null"},
    "Text": {"type": "string"},
}
_ARRAYS = base.words("list List Sequence MutableSequence Collection Iterable")
_OBJECTS = base.words("dict Dict Mapping MutableMapping")
_TUPLES = frozenset({"tuple", "Tuple"})
_WRAPPERS = frozenset({"Annotated", "Final", "ClassVar", "Required", "NotRequired"})
_NO_CONSTRAINT = frozenset({"Any", "object"})
_QUALIFIABLE = (
    _ARRAYS | _OBJECTS | _TUPLES | _WRAPPERS | {"Any", "Optional", "Union", "Literal", "Text", "NoneType"}
) - {"list", "dict", "tuple"}


def _name_of(node: ast.expr) -> str | None:
    """The word that an annotation's name stands for; modules may have been imported as anything."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = node.value
        if node.attr in _QUALIFIABLE or node.attr in {"date", "datetime"}:
            return node.attr
        if isinstance(owner, ast.Name) and owner.id == "builtins":
            return node.attr
    return None


def _schema(node: ast.expr, depth: int = 0) -> dict[str, Any]:
    """The JSON Schema of an annotation; one that is not known constrains nothing."""
    if depth > base.MAX_DEPTH:
        return {}
    if isinstance(node, ast.Constant):
        return _constant_annotation(node.value, depth)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _any_of([_schema(member, depth + 1) for member in _union_members(node)])
    if isinstance(node, ast.Subscript):
        word = _name_of(node.value)
        inner = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
        return _generic(word, inner, depth + 1) if word else {}
    word = _name_of(node)
    if word in _SIMPLE:
        return dict(_SIMPLE[word])
    if word in _ARRAYS or word in _TUPLES:
        return {"type": "array"}
    return {"type": "object"} if word in _OBJECTS else {}


def _constant_annotation(value: object, depth: int) -> dict[str, Any]:
    """The schema of None, or of an annotation that is given as a string."""
    if value is None:
        return {"type": "null"}
    if not isinstance(value, str):
        return {}
    try:
        return _schema(ast.parse(value.strip(), mode="eval").body, depth + 1)
    except _UNPARSABLE:
        return {}


def _union_members(node: ast.expr) -> list[ast.expr]:
    """The members of `A | B | C`, without recursion: a chain is as deep as it is long."""
    members: list[ast.expr] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        members.append(node.right)
        node = node.left
    return [node, *reversed(members)]


def _generic(word: str, inner: list[ast.expr], depth: int) -> dict[str, Any]:
    """The schema of `word[inner]`."""
    if word in _WRAPPERS:
        return _schema(inner[0], depth) if inner else {}
    if word == "Optional":
        return _or_null(_schema(inner[0], depth)) if inner else {}
    if word == "Union":
        return _any_of([_schema(member, depth) for member in inner])
    if word == "Literal":
        return _literal_annotation(inner)
    if word in _ARRAYS:
        return _with({"type": "array"}, "items", _schema(inner[0], depth) if inner else {})
    if word in _TUPLES:
        return _tuple(inner, depth)
    if word in _OBJECTS:
        held = _schema(inner[1], depth) if len(inner) == 2 else {}
        return _with({"type": "object"}, "additionalProperties", held)
    return {}


def _with(schema: dict[str, Any], keyword_name: str, inner: dict[str, Any]) -> dict[str, Any]:
    return {**schema, keyword_name: inner} if inner else schema


def _tuple(inner: list[ast.expr], depth: int) -> dict[str, Any]:
    """The schema of `tuple[…]`, which JSON has as an array of fixed length."""
    if len(inner) == 2 and isinstance(inner[1], ast.Constant) and inner[1].value is Ellipsis:
        return _with({"type": "array"}, "items", _schema(inner[0], depth))
    if not inner:
        return {"type": "array", "maxItems": 0}
    members = [_schema(member, depth) for member in inner]
    return {"type": "array", "prefixItems": members, "minItems": len(members), "maxItems": len(members)}


def _literal_annotation(inner: list[ast.expr]) -> dict[str, Any]:
    """The schema of `Literal[…]`."""
    values = [_literal(member) for member in inner]
    if any(value is models.MISSING or isinstance(value, (list, dict, float)) for value in values):
        return {}
    kinds = list(dict.fromkeys(_type_of_value(None, value).get("type", "null") for value in values))
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}


def _any_of(members: list[dict[str, Any]]) -> dict[str, Any]:
    """The schema of a union; simple members share one `type`."""
    if not members or any(not member for member in members):
        return {}
    if all(set(member) == {"type"} for member in members):
        listed = [member["type"] for member in members]
        kinds = [kind for entry in listed for kind in (entry if isinstance(entry, list) else [entry])]
        distinct = list(dict.fromkeys(kinds))
        return {"type": distinct[0] if len(distinct) == 1 else distinct}
    return members[0] if len(members) == 1 else {"anyOf": members}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Allow null too."""
    kinds = schema.get("type")
    if not schema or kinds == "null" or (isinstance(kinds, list) and "null" in kinds):
        return schema
    if isinstance(kinds, str) and "enum" not in schema:
        return {**schema, "type": [kinds, "null"]}
    return _any_of([schema, {"type": "null"}])


def _read_comment(comment: str) -> tuple[ast.expr | None, str]:
    """Split `type: T description`, papermill's way to give a type; any other comment describes."""
    match = re.match(r"type:\s*", comment)
    if match is None:
        return None, comment
    text, rest = _split_type(comment[match.end() :])
    try:
        annotation = ast.parse(text, mode="eval").body
    except _UNPARSABLE:
        return None, comment
    if text.startswith("ignore"):
        return None, rest
    known = _schema(annotation) or _name_of(annotation) in _NO_CONSTRAINT
    return (annotation, rest) if known else (None, comment)


def _split_type(text: str) -> tuple[str, str]:
    """Cut a text after the type it begins with: a word, its brackets, and further ones after `|`."""
    depth = 0
    end = len(text)
    for index, sign in enumerate(text):
        depth += (sign in "[(") - (sign in "])")
        following = text[index:].lstrip()[:1] if sign.isspace() and depth == 0 else ""
        if following and following != "|" and not text[:index].rstrip().endswith("|"):
            end = index
            break
    return text[:end].strip(), text[end:].strip()
