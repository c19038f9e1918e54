"""Outputs are found, selected and written as an answer needs them."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_nbexec import outputs
from jupyter_nbexec.models import OutputSelection

PNG = b"\x89PNG\r\n\x1a\n\x00\xff"


def shown(data: dict[str, Any], output_type: str = "display_data") -> dict[str, Any]:
    """An output with this MIME bundle."""
    return {"output_type": output_type, "data": data, "metadata": {}}


def code(*cell_outputs: Any, tags: Any = None, count: int | None = 1) -> dict[str, Any]:
    """An executed code cell."""
    return {
        "cell_type": "code",
        "source": "x",
        "metadata": {"tags": tags},
        "execution_count": count,
        "outputs": list(cell_outputs),
    }


def notebook(*cells: Any) -> dict[str, Any]:
    """A notebook of these cells."""
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def stream(text: str) -> dict[str, Any]:
    """Something printed."""
    return {"output_type": "stream", "name": "stdout", "text": text}


class TestSelect:
    """`select` gives outputs of the stored notebook's cells, in order."""

    executed = notebook(
        {"cell_type": "markdown", "source": "hello", "metadata": {}},
        code(stream("a"), stream("b"), tags=["first"]),
        code(stream("injected")),
        code(stream("c"), tags=["second", "both"]),
        code(stream("d"), tags=["both", 5]),
        code(count=None, tags="both"),
    )
    origins: tuple[tuple[int, str | None] | None, ...] = (
        (0, "m"),
        (1, "p"),
        None,
        (2, None),
        (3, "d"),
        (4, "e"),
    )

    def texts(self, selection: OutputSelection) -> str:
        """The chosen streams, joined."""
        return "".join(each["text"] for each in outputs.select(self.executed, self.origins, selection))

    def test_all(self) -> None:
        """Each output says which cell of the stored notebook it is from."""
        found = outputs.select(self.executed, self.origins, OutputSelection())
        places = [(each["cell"], each["cell_id"], each["text"]) for each in found]
        assert places == [(1, "p", "a"), (1, "p", "b"), (2, None, "c"), (3, "d", "d")]
        assert found[0]["output_type"] == "stream"
        assert found[0]["name"] == "stdout"

    def test_last_is_the_last_that_was_executed(self) -> None:
        """Cells that did not run are not the last one."""
        assert self.texts(OutputSelection(kind="last")) == "d"

    def test_last_may_show_nothing(self) -> None:
        """A last cell that shows nothing gives nothing."""
        silent = notebook(code(stream("a")), code(count=2))
        assert outputs.select(silent, [(0, None), (1, None)], OutputSelection(kind="last")) == []

    def test_none(self) -> None:
        """None means none."""
        assert self.texts(OutputSelection(kind="none")) == ""

    def test_tags(self) -> None:
        """Any of the tags will do; odd tags do no harm."""
        assert self.texts(OutputSelection(kind="tags", tags=frozenset({"first", "both"}))) == "abcd"
        assert self.texts(OutputSelection(kind="tags", tags=frozenset({"nope"}))) == ""
        assert self.texts(OutputSelection(kind="tags")) == ""

    def test_leaves_the_notebook_alone(self) -> None:
        """What is selected is not marked in the notebook."""
        outputs.select(self.executed, self.origins, OutputSelection())
        assert "cell" not in self.executed["cells"][1]["outputs"][0]

    def test_empty_notebook(self) -> None:
        """No cells, no outputs."""
        assert outputs.select({"cells": []}, [], OutputSelection(kind="last")) == []


def scrap(name: Any, data: Any, encoder: Any = "json", version: Any = 1) -> dict[str, Any]:
    """A MIME bundle as scrapbook writes it."""
    glued = {"name": name, "data": data, "encoder": encoder, "version": version}
    return {f"application/scrapbook.scrap.{encoder}+json": glued}


class TestScraps:
    """`scraps` follows scrapbook's contract."""

    def test_glued_values(self) -> None:
        """Values of every encoder are found; the last of a name counts."""
        glued = notebook(
            code(shown(scrap("rows", 1)), shown(scrap("text", "t", "text"))),
            code(shown(scrap("rows", 1042)), shown(scrap("frame", "UEFS", "pandas"))),
        )
        assert outputs.scraps(glued) == {"rows": 1042, "text": "t", "frame": "UEFS"}

    @pytest.mark.parametrize(
        "data",
        [
            {"application/scrapbook.scrap.json+json": "rows"},
            {"application/scrapbook.scrap.json+json": ["name", "data"]},
            {"application/scrapbook.scrap.json+json": {"name": "x"}},
            {"application/scrapbook.scrap.json": scrap("x", 1)["application/scrapbook.scrap.json+json"]},
            {"application/papermill.record+json": {"x": 1}},
            scrap(5, 1),
            scrap(None, 1),
            scrap(["x"], 1),
            scrap("x", 1, encoder=None),
            scrap("x", 1, version="1"),
        ],
    )
    def test_ignores_what_is_malformed(self, data: dict[str, Any]) -> None:
        """A bundle that only looks like a scrap is none."""
        assert outputs.scraps(notebook(code(shown(data), stream("x")))) == {}


class TestCellResult:
    """`cell_result` is what a cell's outputs say about its last value."""

    def result(self, text: str) -> dict[str, Any]:
        """The value of the last expression."""
        return shown({"text/plain": text}, "execute_result")

    def test_nothing(self) -> None:
        """A cell that shows nothing, or only prints, has no result."""
        assert outputs.cell_result([]) == (None, None)
        assert outputs.cell_result([stream("x")]) == (None, None)
        assert outputs.cell_result([shown({"image/png": "x"})]) == (None, None)

    def test_text(self) -> None:
        """The last expression counts before what was displayed."""
        parts = [shown({"text/plain": "a"}), self.result("b"), shown({"text/plain": "c"})]
        assert outputs.cell_result(parts) == ("b", "text/plain")
        assert outputs.cell_result([parts[0], parts[2]]) == ("c", "text/plain")

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("{ a: \x1b[33m1\x1b[39m }", "{ a: 1 }"),
            ("\x1b[38;5;28mdef\x1b[0m\x1b[K f", "def f"),
            ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x07 \x1b(Bx\x1b7y\x1b", "link xy\x1b"),
            ("\x1b]no end" + "\x1b[" * 3, "no end"),
        ],
    )
    def test_escapes(self, text: str, expected: str) -> None:
        """Colours for a terminal are no part of the result."""
        assert outputs.cell_result([self.result(text)]) == (expected, "text/plain")

    def test_json(self) -> None:
        """An output of JSON counts before any text."""
        parts = [shown({"application/json": {"a": 1}}), self.result("b")]
        assert outputs.cell_result(parts) == ({"a": 1}, "application/json")

    def test_json_null(self) -> None:
        """A JSON null is a result, and it is null."""
        assert outputs.cell_result([shown({"application/json": None})]) == (None, "application/json")

    def test_lines(self) -> None:
        """Text kept as lines is joined."""
        assert outputs.cell_result([shown({"text/plain": ["a\n", "b"]})]) == ("a\nb", "text/plain")


class TestMimeTypes:
    """The last output of a type is found by exact type or wildcard."""

    parts = (
        shown({"image/png": "first", "text/plain": "p"}),
        stream("x"),
        shown({"image/svg+xml": "<svg/>", "image/png": "second", "bad\r\nheader/x": "y", "nonsense": "z"}),
        shown({"text/csv": "a,b"}),
    )

    def test_types(self) -> None:
        """Types come last output first; names that are no MIME type are left out."""
        assert outputs.mime_types(self.parts) == ["text/csv", "image/svg+xml", "image/png", "text/plain"]

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            ("image/png", ("image/png", "second")),
            ("IMAGE/PNG", ("image/png", "second")),
            ("image/*", ("image/svg+xml", "<svg/>")),
            ("text/plain", ("text/plain", "p")),
            ("*/*", ("text/csv", "a,b")),
            ("application/pdf", None),
            ("nonsense", None),
            ("", None),
        ],
    )
    def test_find(self, wanted: str, expected: tuple[str, str] | None) -> None:
        """The last one counts."""
        assert outputs.find_mime(self.parts, wanted) == expected


class TestRawBody:
    """`raw_body` gives the bytes that an output stands for."""

    @given(st.binary())
    def test_binary(self, content: bytes) -> None:
        """Binary types are base64, however it is wrapped."""
        assert outputs.raw_body("image/png", base64.b64encode(content).decode()) == content
        assert outputs.raw_body("application/pdf", base64.encodebytes(content).decode()) == content

    @pytest.mark.parametrize(
        ("mime", "data", "expected"),
        [
            ("text/plain", "abcd", b"abcd"),
            ("text/csv", ["a,b\n", "1,ä"], "a,b\n1,ä".encode()),
            ("image/svg+xml", "<svg/>", b"<svg/>"),
            ("application/xml", "abcd", b"abcd"),
            ("application/javascript", "abcd", b"abcd"),
            ("image/png", "no base64!", b"no base64!"),
            ("image/png", "abcde", b"abcde"),
            ("image/png", "ä", "ä".encode()),
            ("text/plain", "x\ud800", "x\ufffd".encode()),
            ("application/geo+json", {"a": [1]}, b'{"a":[1]}'),
            ("application/json", "text", b'"text"'),
            ("application/json", ["a", "b"], b'["a","b"]'),
            ("application/json", math.nan, b"null"),
            ("text/plain", {"not": "text"}, b'{"not":"text"}'),
        ],
    )
    def test_body(self, mime: str, data: Any, expected: bytes) -> None:
        """Text is UTF-8, JSON is written, and malformed base64 is given as it is."""
        assert outputs.raw_body(mime, data) == expected

    def test_image(self) -> None:
        """A PNG comes out as a PNG."""
        assert outputs.raw_body("image/png", base64.b64encode(PNG).decode()) == PNG

    def test_content_type(self) -> None:
        """Only text has a charset."""
        assert outputs.content_type("text/csv") == "text/csv; charset=utf-8"
        assert outputs.content_type("image/png") == "image/png"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda child: st.lists(child) | st.dictionaries(st.text(), child) | st.tuples(child, child),
    max_leaves=20,
)


class TestJson:
    """Everything leaves as JSON that any parser reads."""

    @given(VALUES)
    def test_dumps_is_strict(self, value: Any) -> None:
        """No constant beyond JSON is written, and the text is UTF-8."""

        def refuse(name: str) -> None:
            raise AssertionError(name)

        written = json.loads(outputs.dumps(value).decode("utf-8"), parse_constant=refuse)
        assert written == outputs.clean_json(value)

    @given(VALUES)
    def test_clean_is_clean(self, value: Any) -> None:
        """A cleaned value needs no more cleaning."""
        cleaned = outputs.clean_json(value)
        assert outputs.clean_json(cleaned) is cleaned
        json.dumps(cleaned, allow_nan=False, ensure_ascii=False).encode()

    def test_clean_values_stay_themselves(self) -> None:
        """Nothing is copied where nothing is wrong."""
        value = {"a": [1, 2.5, None, {"b": "ä"}]}
        assert outputs.clean_json(value) is value

    def test_replaces(self) -> None:
        """Each thing that JSON cannot hold has its replacement; order stays."""
        value = {"z": (1, (math.nan,)), "a\udfff": -math.inf, "b": ["\ud83d\ude00", "\ude00\ud83d", math.inf]}
        cleaned = outputs.clean_json(value)
        assert cleaned == {"z": [1, [None]], "a\ufffd": None, "b": ["😀", "\ufffd\ufffd", None]}
        assert list(cleaned) == ["z", "a\ufffd", "b"]

    @pytest.mark.parametrize("depth", [1_000, 100_000])
    def test_deep_values(self, depth: int) -> None:
        """What is too deep ends in null, whatever the stack."""
        value: Any = "bottom"
        for i in range(depth):
            value = [value] if i % 2 else {"a": value}
        written = outputs.dumps(value)
        assert b"null" in written
        assert written.count(b"[") + written.count(b"{") == outputs.MAX_DEPTH
