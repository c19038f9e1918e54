"""The value of the last expression comes out of a real kernel, and nothing in there notices."""

from __future__ import annotations

import ast
import dataclasses
import datetime as dt
import enum
import json
import math
import sys
import types
from collections import OrderedDict, namedtuple
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.manager import start_new_kernel

from jupyter_nbexec import in_kernel, result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jupyter_client.blocking.client import BlockingKernelClient

LIMIT = 50_000_000

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda child: st.lists(child) | st.dictionaries(st.text(), child),
    max_leaves=20,
)


def encoded(value: Any, limit: int = LIMIT) -> Any:
    """A value as JSON brings it back."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(in_kernel.encode(value, limit), parse_constant=refuse)


KEYS = {"1": 1, "2.5": 2, "false": 3, "null": 4, "Infinity": 5}


class Colour(enum.Enum):
    """A plain enumeration."""

    RED = "red"


class Number(enum.IntEnum):
    """An enumeration of numbers."""

    ONE = 1


Point = namedtuple("Point", "x y")  # as notebooks have it


@dataclasses.dataclass
class Plain:
    """A dataclass."""

    x: int
    when: dt.date = dt.date(2026, 1, 2)
    more: list[Any] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Derived(Plain):
    """A dataclass that inherits fields."""

    y: Any = None


@dataclasses.dataclass(frozen=True)
class Slotted:
    """A dataclass without an instance dictionary."""

    __slots__ = ("x",)
    x: int


class Hostile:
    """Whatever is done to it, it does not stand for it."""

    def __getattribute__(self, name: str) -> Any:
        """Refuse."""
        raise AssertionError(name)

    def _fail(self, *_: Any, **__: Any) -> Any:
        raise AssertionError

    __repr__ = __str__ = __iter__ = __len__ = __bool__ = __reduce__ = _fail
    __eq__ = __hash__ = __float__ = __int__ = __index__ = __format__ = __array__ = _fail
    __getitem__ = __contains__ = __call__ = __dir__ = __class_getitem__ = _fail


class Meta(type):
    """A class of classes that answers nothing."""

    def _fail(cls, *_: Any, **__: Any) -> Any:
        raise AssertionError

    __getattribute__ = __hash__ = __eq__ = __instancecheck__ = __subclasscheck__ = _fail
    __call__ = type.__call__


def hostile(*bases: type) -> type:
    """Return a subclass that breaks all that is looked up on it, where the base can bear it."""
    names = {name: member for name, member in vars(Hostile).items() if name.startswith("__")}
    keep = {"__module__", "__dict__", "__weakref__", "__doc__", "__class_getitem__"}
    return types.new_class(
        "Sub", bases, {}, lambda ns: ns.update({k: v for k, v in names.items() if k not in keep})
    )


BASES = [str, int, float, list, tuple, dict, dt.date, np.ndarray, np.float32]


class TestEncode:
    """`in_kernel.encode` writes what has a JSON form, by exact types."""

    @given(VALUES)
    def test_json_values(self, value: Any) -> None:
        """JSON values come back equal."""
        assert encoded(value) == value

    @given(VALUES)
    def test_size_is_exact(self, value: Any) -> None:
        """The limit is in bytes of UTF-8, and the last byte counts."""
        size = len(in_kernel.encode(value, LIMIT).encode("utf-8", "surrogatepass"))
        assert encoded(value, size) == value
        with pytest.raises(in_kernel.TooBig):
            in_kernel.encode(value, size - 1)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (math.nan, None),
            ([math.inf, -math.inf, -0.0, 1e300, 5e-324], [None, None, -0.0, 1e300, 5e-324]),
            (10**4000, 10**4000),
            ('\x00\x1f\x7f"\\/ ä😀\u2028\r\n', '\x00\x1f\x7f"\\/ ä😀\u2028\r\n'),
            ("\ud800", "\ud800"),
            ((1, (2,)), [1, [2]]),
            (Point(1, 2), [1, 2]),
            ({1: 1, 2.5: 2, False: 3, None: 4, math.inf: 5}, KEYS),
            ({np.int64(7): 1, np.str_("s"): 2, np.float32(0.5): 3}, {"7": 1, "s": 2, "0.5": 3}),
            (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
            (Colour.RED, "red"),
            ([Number.ONE], [1]),
            (dt.date(2026, 1, 2), "2026-01-02"),
            (dt.datetime(2026, 1, 2, 3, 4, 5, 6), "2026-01-02T03:04:05.000006"),  # noqa: DTZ001
            (dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc), "2026-01-02T00:00:00+00:00"),
            (dt.time(3, 4), "03:04:00"),
            (Plain(1), {"x": 1, "when": "2026-01-02", "more": []}),
            (Derived(1, y=Plain(2)), ...),
            (Slotted(5), {"x": 5}),
            ([[]] * 2, [[], []]),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_python(self, value: Any, expected: Any) -> None:
        """Python's own types have the form one expects."""
        if isinstance(value, Derived):
            expected = {"x": 1, "when": "2026-01-02", "more": [], "y": dataclasses.asdict(Plain(2))}
            expected["y"]["when"] = "2026-01-02"
        assert encoded(value) == expected

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (np.int8(-5), -5),
            (np.uint64(2**64 - 1), 2**64 - 1),
            (np.float32(0.5), 0.5),
            (np.float16(0.5), 0.5),
            (np.longdouble(0.5), 0.5),
            (np.float64("nan"), None),
            (np.float32("inf"), None),
            (np.bool_(True), True),
            (np.str_("ä"), "ä"),
            (np.datetime64("2026-01-02"), "2026-01-02"),
            (np.datetime64("2026-01-02T03:04:05.123456789"), "2026-01-02T03:04:05.123456789"),
            (np.datetime64("NaT"), None),
            (np.arange(3), [0, 1, 2]),
            (np.array(7), 7),
            (np.zeros((2, 0)), [[], []]),
            (np.array([[1.5, np.nan], [np.inf, 2]]), [[1.5, None], [None, 2]]),
            (np.arange(3000), list(range(3000))),
            (np.arange(8).reshape(2, 2, 2), [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]),
            (np.array([1, 2])[::-1], [2, 1]),
            (np.array(["a", "bc"]), ["a", "bc"]),
            (np.array(["2026-01-02", "NaT"], "M8[D]"), ["2026-01-02", None]),
            (np.array([1, "a", None, [np.int8(2)]], dtype=object), [1, "a", None, [2]]),
            (np.array([1, 2], dtype=np.longdouble), [1, 2]),
            (np.array([(1, "x")], dtype=[("n", "i4"), ("s", "U5")]), [{"n": 1, "s": "x"}]),
            (np.array((1, "2026-01-02"), dtype=[("n", "i4"), ("d", "M8[ns]")])[()], ...),
            (np.ma.array([1, 2, 3], mask=[False, True, False]), [1, None, 3]),
            ({"a": np.array([True])}, {"a": [True]}),
            (pd.Timestamp("2026-01-02T03:04:05.123456789"), "2026-01-02T03:04:05.123456789"),
            (pd.Timestamp("2026-01-02", tz="Europe/Berlin"), "2026-01-02T00:00:00+01:00"),
            ([pd.NaT, pd.NA], [None, None]),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_numpy_and_pandas(self, value: Any, expected: Any) -> None:
        """Scalars and arrays of numpy, and times of pandas, have a JSON form."""
        if expected is ...:
            expected = {"n": 1, "d": "2026-01-02T00:00:00.000000000"}
        assert encoded(value) == expected

    @pytest.mark.parametrize(
        "value",
        [
            object(),
            {1, 2},
            b"x",
            1j,
            range(3),
            int,
            Plain,
            len,
            iter([]),
            dt.timedelta(1),
            {(1, 2): 3},
            {b"x": 1},
            {1: "a", "1": "b"},
            {None: "a", "null": "b"},
            [object()],
            10**5000,
            np.complex64(1j),
            np.timedelta64(1, "D"),
            np.array([1j]),
            np.array([b"x"]),
            np.array([1], "m8[D]"),
            np.void(b"x"),
            np.array([object()]),
            pd.DataFrame({"a": [1]}),
            pd.Series([1]),
            Slotted.__new__(Slotted),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_no_json_form(self, value: Any) -> None:
        """All else has none."""
        with pytest.raises((in_kernel.NoJson, ValueError, AttributeError)):
            in_kernel.encode(value, LIMIT)

    def test_cycles(self) -> None:
        """What contains itself has no JSON form; what is merely shared has one."""
        inner: list[Any] = []
        inner.append({"x": inner})
        array = np.array([None], dtype=object)
        array[0] = array
        thing = Plain(1)
        thing.more.append(thing)
        for value in (inner, array, thing):
            with pytest.raises(in_kernel.NoJson):
                in_kernel.encode(value, LIMIT)

    def test_depth(self) -> None:
        """Depth is limited before the stack is."""
        value: Any = 1
        for _ in range(in_kernel.MAX_DEPTH):
            value = [value]
        assert encoded(value) == value
        with pytest.raises(in_kernel.NoJson):
            in_kernel.encode([value], LIMIT)

    @pytest.mark.parametrize(
        "value",
        [
            "x" * 1000,
            [0] * 1000,
            {str(i): i for i in range(1000)},
            np.zeros(1000),
            np.broadcast_to(np.zeros(1), (10**12,)),
            np.zeros((10**12, 0)),
        ],
        ids=["str", "list", "dict", "array", "huge array", "huge empty array"],
    )
    def test_too_big(self, value: Any) -> None:
        """Encoding ends early, and an array is measured before it is converted."""
        with pytest.raises(in_kernel.TooBig):
            in_kernel.encode(value, 500)

    @pytest.mark.parametrize("base", BASES)
    def test_hostile_subclasses(self, base: type) -> None:
        """Subclasses are read by the methods of their base, and by none of their own."""
        sub = hostile(base)
        arguments = {tuple: (), dt.date: (2026, 1, 2)}.get(base, (0,))
        value: Any = base.__new__(sub, *arguments)
        if base is np.ndarray:
            value = np.ndarray.view(np.zeros(1), sub)
        expected = {str: "0", list: [], tuple: [], dict: {}, dt.date: "2026-01-02", np.ndarray: [0.0]}
        assert encoded([value]) == [expected.get(base, 0)]

    def test_hostile_objects(self) -> None:
        """Objects and metaclasses are not asked anything."""
        odd: Any = Meta("Odd", (), {})
        for value in (Hostile.__new__(Hostile), object.__new__(odd), odd):
            with pytest.raises(in_kernel.NoJson):
                in_kernel.encode(value, LIMIT)

    def test_hostile_dataclasses(self) -> None:
        """A dataclass's data is read, and its code is not run."""

        @dataclasses.dataclass
        class Odd(Plain):
            def __getattribute__(self, name: str) -> Any:
                raise AssertionError(name)

        odd = Odd.__new__(Odd)
        object.__setattr__(odd, "x", 1)
        object.__setattr__(odd, "more", [2])
        assert encoded(odd) == {"x": 1, "when": "2026-01-02", "more": [2]}

        class Property(Plain):
            x = property(lambda self: sys.exit(str(self)))

        with pytest.raises(in_kernel.NoJson):
            in_kernel.encode(Property.__new__(Property), LIMIT)
        forged = types.SimpleNamespace()
        type.__setattr__(Colour, "__dataclass_fields__", {"x": 1})
        try:
            assert encoded(Colour.RED) == "red"
        finally:
            type.__delattr__(Colour, "__dataclass_fields__")
        with pytest.raises(in_kernel.NoJson):
            in_kernel.encode(forged, LIMIT)

    def test_hostile_time_zone(self) -> None:
        """A time zone of the notebook's own is not asked."""

        class Zone(dt.tzinfo):
            def utcoffset(self, _: Any) -> Any:
                raise AssertionError

            dst = tzname = utcoffset

        with pytest.raises(in_kernel.NoJson):
            in_kernel.encode(dt.datetime(2026, 1, 2, tzinfo=Zone()), LIMIT)


class TestDecode:
    """`decode` believes well-formed answers only."""

    def reply(self, text: Any) -> dict[str, Any]:
        """A kernel's reply with this answer."""
        entry = {"status": "ok", "data": {in_kernel.MIME: text, "text/plain": ""}, "metadata": {}}
        return {"status": "ok", "user_expressions": {result.NAME: entry}}

    def test_value(self) -> None:
        """A value is found, null included."""
        assert result.decode(self.reply('{"state":"value","value":[1]}')) == result.Captured(
            found=True, value=[1]
        )
        assert result.decode(self.reply('{"state":"value","value":null}')) == result.Captured(found=True)

    def test_truncated(self) -> None:
        """A value that was too large is not there, and that is said."""
        assert result.decode(self.reply('{"state":"truncated"}')) == result.Captured(truncated=True)

    @pytest.mark.parametrize(
        "text",
        [
            None,
            5,
            [],
            {},
            "",
            "{",
            "null",
            "[]",
            '"x"',
            "{}",
            '{"state":"none"}',
            '{"state":"value"}',
            '{"state":["value"],"value":1}',
            "[" * 100_000,
            "9" * 5000,
        ],
        ids=lambda text: repr(text)[:30],
    )
    def test_not_found(self, text: Any) -> None:
        """Everything else is not found."""
        assert result.decode(self.reply(text)) == result.Captured()

    @pytest.mark.parametrize(
        "content",
        [
            None,
            [],
            "x",
            {},
            {"status": "error"},
            {"user_expressions": None},
            {"user_expressions": []},
            {"user_expressions": {"nbexec": 1}},
            {"user_expressions": {"nbexec": {"status": "error", "ename": "x"}}},
            {"user_expressions": {"nbexec": {"status": "ok", "data": {"text/plain": "'{}'"}}}},
        ],
        ids=lambda content: repr(content)[:60],
    )
    def test_other_replies(self, content: Any) -> None:
        """A reply of another shape is no error."""
        assert result.decode(content) == result.Captured()

    @given(VALUES)
    def test_any_reply(self, content: Any) -> None:
        """No reply raises."""
        assert not result.decode(content).found
        assert not result.decode(self.reply(content)).found


@pytest.mark.parametrize(
    ("file", "modules"),
    [
        ("in_kernel.py", {"__future__", "json.encoder", "sys", "time", "types", "typing"}),
        (
            "steward.py",
            {
                "__future__",
                "asyncio",
                "fcntl",
                "hashlib",
                "os",
                "sys",
                "termios",
                "threading",
                "time",
                "typing",
            },
        ),
    ],
)
def test_source_is_old_python(file: str, modules: set[str]) -> None:
    """Kernels may be older than the server: the syntax is that of Python 3.8, the imports are of any."""
    tree = ast.parse(result._source(file), feature_version=(3, 8))
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {getattr(node, "module", None) or node.names[0].name for node in imports}
    assert names <= modules


class Kernel:
    """A live kernel on which cells are run, and the engine's request is made."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self.client = client
        self.count = 0

    def run(self, source: str) -> dict[str, Any]:
        """Run a cell; return what it displayed as its value, and remember its number."""
        shown: list[dict[str, Any]] = []

        def hook(message: dict[str, Any]) -> None:
            if message["msg_type"] == "execute_result":
                shown.append(message["content"]["data"])

        reply = self.client.execute_interactive(source, output_hook=hook, timeout=60, allow_stdin=False)
        assert reply["content"]["status"] == "ok", reply["content"]
        self.count = reply["content"]["execution_count"]
        return shown[-1] if shown else {}

    def capture(self, limit: int = LIMIT, count: int | None = None) -> result.Captured:
        """Do what the engine does after the last cell; nothing may come back on iopub but status."""
        seen: list[str] = []
        reply = self.client.execute_interactive(
            "",
            silent=True,
            store_history=False,
            user_expressions={result.NAME: result.expression(count or self.count, limit)},
            allow_stdin=False,
            output_hook=lambda message: seen.append(message["msg_type"]),
            timeout=60,
        )
        assert set(seen) <= {"status"}
        return result.decode(reply["content"])

    def value(self, source: str, limit: int = LIMIT) -> Any:
        """Run a cell and return its value; `...` where it has none."""
        self.run(source)
        captured = self.capture(limit)
        return captured.value if captured.found else ...


@pytest.fixture(scope="module")
def live() -> Iterator[Kernel]:
    """One kernel for all tests of this module."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        yield Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@pytest.fixture
def kernel(live: Kernel) -> Iterator[Kernel]:
    """The kernel, without what the test before it has left."""
    yield live
    live.run("from IPython import get_ipython\nget_ipython().run_line_magic('reset', '-f')")


class TestKernel:
    """The expression does its work in a real kernel."""

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("15", 15),
            ("{'a': [1, None, 2.5, True], 'ä': '😀\\n'}", {"a": [1, None, 2.5, True], "ä": "😀\n"}),
            ("float('nan')", None),
            ("'\\ud800'", "\ud800"),
            ("import numpy as np; np.arange(4).reshape(2, 2)", [[0, 1], [2, 3]]),
            ("import numpy as np; np.float32(0.5)", 0.5),
            ("import datetime; datetime.date(2026, 1, 2)", "2026-01-02"),
            ("import datetime; [datetime.datetime(2026, 1, 2)]", ["2026-01-02T00:00:00"]),
            ("import pandas as pd; [pd.Timestamp('2026-01-02'), pd.NaT]", ["2026-01-02T00:00:00", None]),
            ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nA(5)", {"x": 5}),
            ("1;", ...),
            ("None", ...),
            ("x = 5", ...),
            ("print(5)", ...),
            ("display(5)", ...),
            ("{1, 2}", ...),
            ("object()", ...),
            ("import pandas as pd; pd.DataFrame({'a': [1]})", ...),
            ("x = []; x.append(x); x", ...),
            ("Out", ...),
            ("get_ipython()", ...),
        ],
    )
    def test_values(self, kernel: Kernel, source: str, expected: Any) -> None:
        """Values of every kind arrive, or are not found."""
        assert kernel.value(source) == expected

    @pytest.mark.parametrize(
        ("source", "length"),
        [
            ("'x' * 10_000_000", 10_000_000),
            ("'ä\\n' * 5_000_000", 10_000_000),
            ("list(range(500_000))", 500_000),
        ],
    )
    def test_large_values(self, kernel: Kernel, source: str, length: int) -> None:
        """Ten megabytes are no trouble."""
        kernel.run(f"value = {source}")
        value = kernel.value("value")
        assert len(value) == length
        assert kernel.capture(limit=1000) == result.Captured(truncated=True)

    SHADOWS = (
        "json list str dict int float tuple bool type object exec eval compile len getattr isinstance sys "
        "f ns __import__ __name__ In get_ipython capture repr issubclass id Exception BaseException globals"
    )

    def test_shadowed_builtins(self, kernel: Kernel) -> None:
        """Names that the notebook has taken are not used."""
        names = self.SHADOWS.split()
        kernel.run("\n".join(f"{name} = None" for name in names))
        assert kernel.value("{'a': [1, 'x']}") == {"a": [1, "x"]}

    @pytest.mark.parametrize(
        "source",
        [
            "__builtins__ = 5",
            "Out = None",
            "_oh = None",
            "del _oh[{count}]",
            "import sys; sys.modules['numpy'] = 5; sys.modules['pandas'] = None",
            "import builtins; builtins.issubclass = None",
        ],
    )
    def test_broken_namespaces(self, kernel: Kernel, source: str) -> None:
        """Whatever the notebook has broken, the answer is a value or none, and no error."""
        saved = "import builtins as _b, sys as _s; _saved = (_b.issubclass, _oh, __builtins__)"
        kernel.run(f"{saved}; _modules = {{k: _s.modules.get(k) for k in ('numpy', 'pandas')}}")
        kernel.run("(1, 'x')")
        count = kernel.count
        kernel.run(source.format(count=count))
        try:
            captured = kernel.capture(count=count)
            assert captured in (result.Captured(found=True, value=[1, "x"]), result.Captured())
        finally:
            kernel.run(
                "__builtins__ = _saved[2]; _b.issubclass, _oh = _saved[:2]\n"
                "for k, v in _modules.items():\n    _s.modules.pop(k, None)\n    if v: _s.modules[k] = v"
            )

    def test_formatters_of_the_notebook(self, kernel: Kernel) -> None:
        """Formatters that the notebook has registered or switched off change nothing."""
        kernel.run(
            "ip = get_ipython()\n"
            "text = ip.display_formatter.formatters['text/plain']\n"
            "text.for_type(str, lambda s, p, c: p.text('never'))\n"
            "ip.display_formatter.formatters['text/html'].for_type(object, lambda o: 'never')\n"
            "text.pprint = False\n"
            "text.max_seq_length = 2\n"
        )
        try:
            assert kernel.value("['a'] * 5") == ["a"] * 5
            kernel.run("ip.run_line_magic('precision', '2')")
            assert kernel.value("[1.23456]") == [1.23456]
            kernel.run("ip.display_formatter.mimebundle_formatter.enabled = False")
            assert kernel.value("5") is ...
        finally:
            kernel.run(
                "ip.display_formatter.mimebundle_formatter.enabled = True\n"
                "ip.run_line_magic('precision', '')\n"
                "text.pop(str); ip.display_formatter.formatters['text/html'].pop(object)\n"
                "text.pprint = True; text.max_seq_length = 1000\n"
            )

    def test_values_that_hang(self, kernel: Kernel) -> None:
        """A value whose methods never return does not hold up the answer."""
        kernel.run(
            "def hang(self, *a, **k):\n"
            "    while True: pass\n"
            "class Dict(dict):\n"
            "    __iter__ = items = keys = __len__ = __getitem__ = hang\n"
            "    def __repr__(self): return 'dict'\n"
            "class Thing:\n"
            "    tolist = to_json = to_dict = __json__ = __iter__ = __len__ = __array__ = hang\n"
            "    __eq__ = __hash__ = __bool__ = __float__ = hang\n"
            "    def __repr__(self): return 'thing'\n"
            "class Lazy(Thing):\n"
            "    _repr_mimebundle_ = None\n"
            "    __class__ = property(hang)\n"
        )
        assert kernel.run("Dict(a=1)") == {"text/plain": "dict"}
        assert kernel.capture() == result.Captured(found=True, value={"a": 1})
        assert kernel.run("Thing()") == {"text/plain": "thing"}
        assert kernel.capture() == result.Captured()

    def test_disturbs_nothing(self, kernel: Kernel) -> None:
        """Names, histories, counters and what was last shown are as before."""
        kernel.run("import sys; 'before'")
        state = (
            "(sorted(globals()), len(In), dict(Out), _, __, ___, get_ipython().execution_count, "
            "sorted(sys.modules), getattr(sys, 'last_value', None))"
        )
        kernel.run(f"state = lambda: {state}")
        kernel.run("'the value'")
        probe = {"probe": "(lambda: __import__('json').dumps(state(), default=repr))()"}

        def look() -> Any:
            reply = self.silent(kernel, probe)
            return reply["user_expressions"]["probe"]["data"]["text/plain"]

        before = look()
        assert "the value" in before
        assert kernel.capture() == result.Captured(found=True, value="the value")
        assert kernel.capture(limit=1) == result.Captured(truncated=True)
        assert kernel.capture(count=10_000) == result.Captured()
        assert look() == before
        count = kernel.count
        kernel.run("1")
        assert kernel.count == count + 1

    def silent(self, kernel: Kernel, expressions: dict[str, str]) -> Any:
        """Make a request that leaves no trace."""
        reply = kernel.client.execute_interactive(
            "", silent=True, store_history=False, user_expressions=expressions, timeout=60
        )
        return reply["content"]

    def test_failures_leave_no_traceback(self, kernel: Kernel) -> None:
        """A value without JSON form is no exception that `%tb` or `sys.last_value` would show."""
        kernel.run("import sys; sys.last_value = 'untouched'")
        kernel.run("{1, 2}")
        assert kernel.capture() == result.Captured()
        assert kernel.value("sys.last_value") == "untouched"

    def test_no_cache(self, kernel: Kernel) -> None:
        """A kernel that keeps no `Out` has no value to give."""
        kernel.run("get_ipython().cache_size = 0")
        try:
            assert kernel.value("5") in (5, ...)
        finally:
            kernel.run("get_ipython().cache_size = 1000")
