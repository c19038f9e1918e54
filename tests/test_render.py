"""A rendered notebook shows what there is to see, and can do nothing."""

from __future__ import annotations

import base64
import copy
import io
import re
import time
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.figure
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from jupyter_nbexec import render, rendering

if TYPE_CHECKING:
    from pathlib import Path


ACTIVE = {"script", "iframe", "object", "embed", "form", "input", "base", "link", "svg", "math", "video"}


def page(*cells: dict[str, Any], **metadata: Any) -> BeautifulSoup:
    """Render a notebook of these cells."""
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": list(cells)}
    before = copy.deepcopy(notebook)
    html = render.to_html(notebook)
    assert notebook == before
    soup = BeautifulSoup(html, "html.parser")
    assert_harmless(soup)
    return soup


def assert_harmless(soup: BeautifulSoup) -> None:
    """Nothing in the page runs, is fetched, or leads to code."""
    for element in soup.find_all(name=True):
        assert element.name not in ACTIVE
        if element.name == "meta":
            assert element.get("http-equiv") is None
        for name, value in element.attrs.items():
            assert not name.startswith("on")
            if name in ("src", "srcset", "data", "action", "background", "xlink:href"):
                assert str(value).startswith("data:image/")
            if name == "href":
                assert str(value).split(":")[0] in ("http", "https", "mailto") or ":" not in value
    for style in soup.find_all("style"):
        assert "@import" not in style.text
        assert "alert(" not in style.text


def code(*outputs: dict[str, Any], source: str = "x", **more: Any) -> dict[str, Any]:
    """A code cell."""
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": source, "outputs": list(outputs)}
    return {**cell, "execution_count": 1, **more}


def shown(data: dict[str, Any], metadata: Any = None) -> dict[str, Any]:
    """Something displayed."""
    return {"output_type": "display_data", "data": data, "metadata": {} if metadata is None else metadata}


def markdown(source: str, **more: Any) -> dict[str, Any]:
    """A markdown cell."""
    return {"cell_type": "markdown", "id": "m", "metadata": {}, "source": source, **more}


def figure(kind: str) -> bytes:
    """A plot of matplotlib's."""
    with mpl.rc_context({"svg.hashsalt": "x"}):
        drawn = mpl.figure.Figure((1, 1))
        drawn.add_subplot().plot([1, 2])
        written = io.BytesIO()
        drawn.savefig(written, format=kind)
        return written.getvalue()


class TestShows:
    """What a reader wants to see is there."""

    def test_markdown(self) -> None:
        """Headings, lists, tables, links and formulas are kept."""
        soup = page(markdown("# Title\n\n* item\n\n|a|b|\n|-|-|\n|1|2|\n\n[l](https://x.example) $x^2$"))
        assert soup.h1 is not None
        assert soup.h1.text.startswith("Title")
        assert soup.li is not None
        assert [cell.text for cell in soup.find_all("td")] == ["1", "2"]
        assert soup.find("a", href="https://x.example") is not None
        assert "$x^2$" in soup.text

    def test_code_and_streams(self) -> None:
        """Source is highlighted, and colours of a terminal are kept."""
        printed = {"output_type": "stream", "name": "stdout", "text": "<b>&\x1b[31mred"}
        soup = page(code(printed, source="for x in y: 1 < 2"), language_info={"name": "python"})
        assert soup.select_one(".highlight .k") is not None
        assert "1 < 2" in soup.text
        assert "<b>&red" in soup.text
        assert soup.select_one(".ansi-red-fg") is not None

    def test_error(self) -> None:
        """A traceback is shown."""
        error = {"output_type": "error", "ename": "E<b>", "evalue": "v", "traceback": ["line <b>", "E: v"]}
        assert "line <b>" in page(code(error)).text
        assert "E<b>: v" in page(code({**error, "traceback": []})).text

    def test_png(self) -> None:
        """A plot is an image that the page carries, in its size."""
        data = base64.encodebytes(figure("png")).decode()
        image = page(code(shown({"image/png": data, "text/plain": "x"}, {"image/png": {"width": 7}}))).img
        assert image is not None
        assert base64.b64decode(str(image.attrs["src"]).partition(",")[2]) == figure("png")
        assert image.attrs["width"] == "7"

    def test_svg(self) -> None:
        """So is a drawing, in which no script runs then."""
        image = page(code(shown({"image/svg+xml": figure("svg").decode(), "text/plain": "x"}))).img
        assert image is not None
        assert str(image.attrs["src"]).startswith("data:image/svg+xml;base64,")

    def test_data_frame(self) -> None:
        """A table is a table, without its style sheet as text."""
        frame = pd.DataFrame({"a": [1, 2], "b": ["x", "<y>"]})
        soup = page(code(shown({"text/html": frame._repr_html_(), "text/plain": "x"})))
        assert [cell.text for cell in soup.select("table tbody td")] == ["1", "x", "2", "<y>"]
        assert [cell.text for cell in soup.select("table thead th")] == ["", "a", "b"]
        assert "vertical-align" not in soup.body.text if soup.body else False

    def test_widgets(self) -> None:
        """A widget is shown by its text, since it needs scripts."""
        view = {"application/vnd.jupyter.widget-view+json": {"model_id": "m"}, "text/plain": "IntSlider()"}
        state = {"application/vnd.jupyter.widget-state+json": {"state": {"m": {"model_name": "x"}}}}
        assert "IntSlider()" in page(code(shown(view)), widgets=state).text
        assert "IntSlider()" in page(code(shown(view)), widgets={"application/vnd": 5}).text

    def test_attachment(self) -> None:
        """An image attached to a cell is carried along."""
        data = base64.b64encode(figure("png")).decode()
        image = page(markdown("![plot](attachment:p.png)", attachments={"p.png": {"image/png": data}})).img
        assert image is not None
        assert image.attrs["src"] == f"data:image/png;base64,{data}"

    @pytest.mark.parametrize("cells", [[], [code()], [markdown("")], [code(shown({})), code(source="")]])
    def test_little(self, cells: list[dict[str, Any]]) -> None:
        """Notebooks with next to nothing in them are rendered too."""
        assert page(*cells).body is not None

    def test_title(self) -> None:
        """The page has the notebook's title."""
        title = page(title="<script>alert(1)</script>").title
        assert title is not None
        assert title.text == "<script>alert(1)</script>"


ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<img src='data:image/png;base64,x' onload=alert(1)>",
    "<svg onload=alert(1)><a xlink:href='javascript:alert(1)'>x</a></svg>",
    "<iframe src='javascript:alert(1)'></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href=' jAvAsCrIpT&#58;alert(1)'>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<a href='&#1;data:text/html,x'>x</a>",
    "<base href='//evil.example/'>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<link rel=stylesheet href=//evil.example>",
    "<form action=//evil.example><input name=a><button>x</button></form>",
    "<object data='javascript:alert(1)'></object><embed src='javascript:alert(1)'>",
    "<math><mtext><style><img src=x onerror=alert(1)></style></mtext></math>",
    "<style>@import '//evil.example'; alert(1)</style><style>",
    "<p style='background:url(//evil.example)'>x</p>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<template><script>alert(1)</script></template>",
    "</main></body><script>alert(1)</script>",
    '"><script>alert(1)</script>',
    "' onload='alert(1)' x='",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<<script>script>alert(1)<</script>/script>",
    "<!--><script>alert(1)</script>-->",
    "<title><img src=x onerror=alert(1)></title>",
    "{{ 7*7 }}{% raw %}",
]


TYPES = [
    "text/html",
    "text/markdown",
    "text/latex",
    "text/plain",
    "text/vnd.mermaid",
    "image/svg+xml",
    "image/png",
    "image/jpeg",
    "image/gif",
    "application/javascript",
    "application/json",
    "application/pdf",
    "application/vnd.jupyter.widget-view+json",
]


class TestWidgets:
    """Of widgets a page shows what they have captured."""

    @staticmethod
    def page(*views: str, **models: Any) -> str:
        """The text of a page with views of widgets."""
        view, saved = (f"application/vnd.jupyter.widget-{kind}+json" for kind in ("view", "state"))
        cells = [code(shown({view: {"model_id": name}, "text/plain": f"view of {name}"})) for name in views]
        states = {name: {"state": state} for name, state in models.items()}
        return page(*cells, widgets={saved: {"state": states}}).text

    def test_captured(self) -> None:
        """What output widgets have captured is where the first view of them, or of what holds them, is."""
        view = {"application/vnd.jupyter.widget-view+json": {"model_id": "d"}, "text/plain": "view of d"}
        captured = {name: {"outputs": [{"output_type": "stream", "text": f"in {name}"}]} for name in "acd"}
        captured["a"]["outputs"].append(shown(view))
        box = {"children": ["IPY_MODEL_a", "IPY_MODEL_slider", "IPY_MODEL_c", "IPY_MODEL_box"]}
        text = self.page("box", "empty", "a", "slider", box=box, empty={"outputs": []}, **captured)

        found = re.findall(r"in \w+|view of \w+", text)
        assert found == ["in a", "in d", "in c", "view of empty", "view of a", "view of slider"]

    @pytest.mark.parametrize("state", [None, {"outputs": 5}, {"outputs": [5]}, {"children": [5, "x"]}])
    def test_state_that_is_none(self, state: Any) -> None:
        """What is no state of a widget changes nothing."""
        assert "view of a" in self.page("a", a=state)

    def test_outputs_that_are_none(self) -> None:
        """Outputs of a widget that are malformed do not fail the page."""
        odd = [{"output_type": "error", "traceback": 5}, {"output_type": "stream"}, {"data": 5}, {}]
        assert self.page("a", a={"outputs": odd})


class TestHarmless:
    """Nothing that a notebook holds becomes active in its page."""

    @pytest.mark.parametrize("attack", ATTACKS)
    def test_everywhere(self, attack: str) -> None:
        """No place in a notebook lets markup through."""
        metadata = {"width": attack, "needs_background": attack}
        outputs = [shown({mime: attack}, {mime: metadata}) for mime in TYPES]
        outputs += [
            {"output_type": "stream", "name": attack, "text": attack},
            {"output_type": "error", "ename": attack, "evalue": attack, "traceback": [attack]},
            {"output_type": "error", "ename": attack, "evalue": attack, "traceback": []},
            shown({attack: attack}, {attack: attack}),
        ]
        page(
            code(*outputs, source=attack, id=attack, metadata={"tags": [attack], attack: attack}),
            markdown(attack),
            markdown(f"```{attack}\n{attack}\n```\n\n# {attack}"),
            markdown(f"[{attack}]({attack})\n\n![{attack}]({attack})"),
            markdown("![x](attachment:x)", attachments={"x": {attack: attack, "image/png": attack}}),
            markdown("![x](attachment:x)", attachments={"x": attack}),
            {"cell_type": "raw", "id": "r", "metadata": {"raw_mimetype": "text/html"}, "source": attack},
            title=attack,
            language_info={"name": attack, "pygments_lexer": attack, "codemirror_mode": attack},
            kernelspec={"name": attack, "display_name": attack},
            widgets={"application/vnd.jupyter.widget-state+json": {"state": {attack: {"x": attack}}}},
            authors=[{"name": attack}],
        )

    def test_reads_no_file(self, tmp_path: Path) -> None:
        """Files that a notebook names are not looked at."""
        (tmp_path / "secret.png").write_bytes(b"secret")
        named = tmp_path / "secret.png"
        soup = page(
            markdown(f"![x]({named}) ![y](file://{named}) <img src='{named}'>"),
            code(shown({"text/html": f"<img src='{named}'><img src='file://{named}'>"})),
            path=str(tmp_path),
            nbconvert={"template": str(named)},
        )
        assert all(image.get("src") is None for image in soup.find_all("img"))

    def test_other_elements_lose_their_code(self) -> None:
        """Code is removed with its element, and the text around it stays."""
        html = "a<style>b</style>c<SCRIPT>d</script >e<svg><text>f</text></svg>g<style>h"
        assert render.clean_html(html) == "aceg"

    @pytest.mark.parametrize("piece", ["<style", "<svg></svg", "</style", "<title></title>", "<"])
    def test_cuts_in_linear_time(self, piece: str) -> None:
        """Long hostile markup is no trouble for the cutting."""
        before = time.perf_counter()
        render._without_unreadable(piece * 100_000)
        assert time.perf_counter() - before < 5


class TestPolicy:
    """The answer's own wall."""

    def test_policy(self) -> None:
        """An origin of its own, no scripts, nothing from elsewhere."""
        directives = dict(part.strip().partition(" ")[::2] for part in rendering.SANDBOX_POLICY.split(";"))
        assert directives["sandbox"] == ""
        assert directives["default-src"] == "'none'"
        assert "script-src" not in directives
        assert "allow-" not in rendering.SANDBOX_POLICY
