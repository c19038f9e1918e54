"""What runs inside a Python kernel: it writes the value that a cell displayed as JSON.

`result.expression` sends this file's source. It is executed in a namespace of its own, imports nothing
of ours, works on Python 3.8 and later, and stands alone.

A value may be hostile, or merely slow: nothing that its class defines is called. Types are told by
`type()` and the real method resolution order, contents are read by the methods of the builtin base class,
and attributes by the descriptors that the interpreter made.
"""

from __future__ import annotations

import sys
import time
from json.encoder import encode_basestring, encode_basestring_ascii
from types import GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any, Dict, Iterable, List, Set  # noqa: UP035  # Python 3.8

MIME = "application/vnd.jupyter-nbexec.result"
MAX_DEPTH = 200

Value = Any

_mro = type.__dict__["__mro__"].__get__
_namespace = type.__dict__["__dict__"].__get__
_module_name = type.__dict__["__module__"].__get__
_module_namespace = vars(ModuleType)["__dict__"].__get__

#: Whose time zones are trusted to answer.
TIME_ZONES = ("datetime", "dateutil", "pandas", "pytz", "zoneinfo")

#: Elements of an array that are converted at once.
CHUNK = 1024


class NoJson(Exception):
    """The value has no JSON form."""


class TooBig(Exception):
    """Its JSON form is larger than wanted."""


class TooSlow(Exception):
    """It takes longer than wanted to write."""


class Bundle:
    """What the kernel's formatters are given; it brings its own representation."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_mimebundle_(self, **_: object) -> Dict[str, str]:  # noqa: UP006
        return {MIME: self.text, "text/plain": ""}


def capture(
    namespace: Dict[str, Value],  # noqa: UP006
    count: int,
    max_bytes: int,
    seconds: float = float("inf"),
) -> Bundle:
    """Write the value that the cell of this execution count displayed, if it has a JSON form."""
    try:
        history = dict.get(namespace, "_oh")
        if type(history) is not dict or count not in history:
            return Bundle('{"state":"none"}')
        return Bundle('{"state":"value","value":' + encode(history[count], max_bytes, seconds) + "}")
    except TooBig:
        return Bundle('{"state":"truncated"}')
    except BaseException:  # an interrupt too: the answer is then "none", in time
        return Bundle('{"state":"none"}')


def encode(value: Value, max_bytes: int, seconds: float = float("inf")) -> str:
    """Write a value as JSON of at most this many bytes of UTF-8, in at most this time."""
    writer = Writer(max_bytes, seconds)
    writer.write(value)
    return "".join(writer.parts)


def loaded(name: str) -> Dict[str, Value]:  # noqa: UP006
    """Return the names of a module, where it has been imported; nothing is imported for its sake."""
    module = sys.modules.get(name)
    return _module_namespace(module) if isinstance(module, ModuleType) else {}


def is_kind(kind: type, module: str, name: str) -> bool:
    """Whether a class is that class of that module, or a subclass of it."""
    base = loaded(module).get(name)
    return isinstance(base, type) and any(each is base for each in _mro(kind))


def attribute(value: Value, name: str) -> Value:
    """Read an attribute that is plain data; one that would run code is none."""
    found = [_namespace(each)[name] for each in _mro(type(value)) if name in _namespace(each)]
    if found and type(found[0]) is MemberDescriptorType:
        return found[0].__get__(value)
    if found and any("__set__" in _namespace(each) for each in _mro(type(found[0]))):
        raise NoJson
    contents = instance_dict(value)
    if name in contents:
        return contents[name]
    if not found:
        raise NoJson
    return found[0]


def instance_dict(value: Value) -> Dict[str, Value]:  # noqa: UP006
    """Return an instance's own attributes, past whatever its class calls `__dict__`."""
    for each in _mro(type(value)):
        descriptor = _namespace(each).get("__dict__")
        if type(descriptor) is GetSetDescriptorType:
            contents = descriptor.__get__(value)
            return contents if type(contents) is dict else {}
        if descriptor is not None:
            raise NoJson
    return {}


class Writer:
    """Writes one value, and stops as soon as it is too large or takes too long."""

    def __init__(self, max_bytes: int, seconds: float) -> None:
        self.left = max_bytes
        self.deadline = time.monotonic() + seconds
        self.parts: List[str] = []  # noqa: UP006
        self.inside: Set[int] = set()  # noqa: UP006

    def emit(self, text: str, size: int = -1) -> None:
        """Write a piece; ASCII where no size is given."""
        self.left -= len(text) if size < 0 else size
        if self.left < 0:
            raise TooBig
        self.parts.append(text)
        if len(self.parts) % CHUNK == 0 and time.monotonic() > self.deadline:
            raise TooSlow

    def write(self, value: Value) -> None:
        """Write any value."""
        kind = type(value)
        if value is None or value is True or value is False:
            self.emit("null" if value is None else "true" if value else "false")
        elif issubclass(kind, str):
            self.text(value)
        elif issubclass(kind, float):
            self.real(float.__float__(value))
        elif issubclass(kind, int):
            self.emit(int.__repr__(value))
        elif issubclass(kind, (list, tuple, dict)):
            self.container(value, kind)
        else:
            self.other(value, kind)

    def text(self, value: str) -> None:
        """Write a string; one that is not Unicode text is escaped, since it cannot travel otherwise."""
        if str.__len__(value) > self.left:
            raise TooBig
        quoted = encode_basestring(value)
        try:
            size = len(quoted.encode("utf-8"))
        except UnicodeEncodeError:
            quoted = encode_basestring_ascii(value)
            size = len(quoted)
        self.emit(quoted, size)

    def real(self, value: float) -> None:
        """Write a float; what JSON cannot hold is null."""
        self.emit(float.__repr__(value) if value - value == 0 else "null")

    def container(self, value: Value, kind: type) -> None:
        """Write a list, a tuple or a dict, or an instance of a subclass of one."""
        self.enter(value)
        if issubclass(kind, list):
            self.sequence(list.__iter__(value))
        elif issubclass(kind, tuple):
            self.sequence(tuple.__iter__(value))
        elif kind is loaded("collections").get("OrderedDict"):
            self.mapping(kind.items(value))  # it has its own order
        else:
            self.mapping(dict.items(value))
        self.leave(value)

    def other(self, value: Value, kind: type) -> None:
        """Write what is not JSON's own but has a JSON form."""
        if value is loaded("pandas").get("NaT", self) or value is loaded("pandas").get("NA", self):
            self.emit("null")
        elif is_kind(kind, "datetime", "date") or is_kind(kind, "datetime", "time"):
            self.text(self.moment(value, kind))
        elif is_kind(kind, "enum", "Enum"):
            self.write(attribute(value, "_value_"))
        elif is_kind(kind, "numpy", "generic"):
            self.scalar(value, kind)
        elif is_kind(kind, "numpy", "ndarray"):
            self.enter(value)
            self.array(value, kind)
            self.leave(value)
        else:
            self.enter(value)
            self.mapping(self.fields(value, kind))
            self.leave(value)

    def enter(self, value: Value) -> None:
        """Go one level deeper, but never in circles."""
        if id(value) in self.inside or len(self.inside) >= MAX_DEPTH:
            raise NoJson
        self.inside.add(id(value))

    def leave(self, value: Value) -> None:
        """Come back up."""
        self.inside.discard(id(value))

    def sequence(self, items: Iterable[Value]) -> None:
        """Write an array."""
        self.emit("[")
        separator = ""
        for item in items:
            if separator:
                self.emit(separator)
            self.write(item)
            separator = ","
        self.emit("]")

    def mapping(self, items: Iterable[Value]) -> None:
        """Write an object; keys that would become the same name leave it without a JSON form."""
        self.emit("{")
        separator = ""
        seen: Set[str] = set()  # noqa: UP006
        for key, item in items:
            name = self.key(key)
            if name in seen:
                raise NoJson
            seen.add(name)
            if separator:
                self.emit(separator)
            self.text(name)
            self.emit(":")
            self.write(item)
            separator = ","
        self.emit("}")

    def key(self, key: Value) -> str:
        """Name a member as `json.dumps` does, numpy's numbers like Python's own."""
        kind = type(key)
        if issubclass(kind, str):
            return str.__str__(key)
        if key is None or key is True or key is False:
            return "null" if key is None else "true" if key else "false"
        if issubclass(kind, float):
            text = float.__repr__(float.__float__(key))
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text, text)
        if issubclass(kind, int):
            return int.__repr__(key)
        if is_kind(kind, "numpy", "generic"):
            item = loaded("numpy")["generic"].item(key)
            if type(item) in (bool, int, float):
                return self.key(item)
        raise NoJson

    def moment(self, value: Value, kind: type) -> str:
        """Write a date, a time or both as ISO 8601."""
        datetime = loaded("datetime")
        is_datetime = is_kind(kind, "datetime", "datetime")
        base = datetime[
            "datetime" if is_datetime else "date" if is_kind(kind, "datetime", "date") else "time"
        ]
        if base is not datetime["date"]:
            zone = base.tzinfo.__get__(value)
            if zone is not None and _module_name(type(zone)).partition(".")[0] not in TIME_ZONES:
                raise NoJson
        timestamp = loaded("pandas").get("Timestamp")
        if timestamp is not None and kind is timestamp:
            base = timestamp  # has nanoseconds
        text = base.isoformat(value)
        return text if type(text) is str else str.__str__(text)

    def fields(self, value: Value, kind: type) -> List[Value]:  # noqa: UP006
        """List a dataclass instance's fields and their values."""
        dataclasses = loaded("dataclasses")
        for each in _mro(kind):
            fields = _namespace(each).get("__dataclass_fields__")
            if type(fields) is not dict or not dataclasses:
                continue
            if any(type(field) is not dataclasses["Field"] for field in fields.values()):
                raise NoJson
            names = [name for name, field in fields.items() if field._field_type is dataclasses["_FIELD"]]  # noqa: SLF001
            return [(name, attribute(value, name)) for name in names]
        raise NoJson

    def scalar(self, value: Value, kind: type) -> None:
        """Write a scalar of numpy's."""
        numpy = loaded("numpy")
        generic = numpy["generic"]
        if issubclass(kind, numpy["timedelta64"]):
            raise NoJson
        if issubclass(kind, (numpy["bool_"], numpy["integer"])):
            self.write(generic.item(value))
        elif issubclass(kind, numpy["floating"]):
            self.real(float(generic.item(generic.astype(value, "f8"))))
        elif issubclass(kind, numpy["datetime64"]):
            self.write(self.plain(generic.__array__(value)).pop())
        elif issubclass(kind, numpy["void"]) and generic.dtype.__get__(value).names:
            names = generic.dtype.__get__(value).names
            self.mapping((name, numpy["void"].__getitem__(value, name)) for name in names)
        else:
            raise NoJson

    def array(self, value: Value, kind: type) -> None:
        """Write an array of numpy's, masked values as null; its size is known before it is converted."""
        numpy = loaded("numpy")
        array = numpy["ndarray"].view(value, numpy["ndarray"])
        count = 1
        for length in array.shape:
            count *= length
            if count * 2 > self.left:
                raise TooBig
        if is_kind(kind, "numpy.ma", "MaskedArray"):
            ma = loaded("numpy.ma")
            if kind is not ma["MaskedArray"]:
                raise NoJson
            mask = ma["getmaskarray"](value)
            if array.dtype.kind not in "?biufUT":
                raise NoJson
            array = array.astype(object)
            array[mask] = None
        self.axis(array)

    def axis(self, array: Value) -> None:
        """Write an array from its first axis on."""
        if array.ndim == 0:
            self.write(self.plain(array).pop())
        elif array.ndim == 1:
            self.sequence(
                item for i in range(0, len(array), CHUNK) for item in self.plain(array[i : i + CHUNK])
            )
        else:
            self.emit("[")
            for i in range(len(array)):
                if i:
                    self.emit(",")
                self.axis(array[i])
            self.emit("]")

    def plain(self, array: Value) -> List[Value]:  # noqa: UP006
        """List the elements of an array of no more than one axis, numbers and text as Python's own."""
        array = array.reshape(-1)
        if array.dtype.kind in "cmS" or (array.dtype.kind == "V" and not array.dtype.names):
            raise NoJson
        if array.dtype.kind == "V":
            return [array[i] for i in range(len(array))]
        if array.dtype.kind == "M":
            texts = loaded("numpy")["datetime_as_string"](array).tolist()
            return [None if text == "NaT" else text for text in texts]
        elements: List[Value] = array.tolist()  # noqa: UP006
        return elements
