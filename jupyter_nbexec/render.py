"""An executed notebook as one HTML page that can do nothing: no scripts, no requests, nothing read from disk.

Three walls, each of which would do: the notebook is reduced to what the page shows, HTML in it goes through
bleach, and `rendering.SANDBOX_POLICY` is on the answer. nbconvert's own switch, `sanitize_html`, is on as
well, but its list of tags lacks headings and most of a table, and its template writes some metadata unescaped
(7.17.2: an image's width).

    python -m jupyter_nbexec.render <pid of the server>

makes pages of the notebooks that come by standard input, as long as the server lives: `rendering` is the
other end. How long nbconvert and bleach take, a notebook decides, so they are not in the server.
"""

from __future__ import annotations

import ctypes
import html
import json
import logging
import math
import os
import re
import resource
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeAlias

import bleach
import jinja2
import nbformat
from bleach.css_sanitizer import CSSSanitizer
from nbconvert.exporters import HTMLExporter

from jupyter_nbexec import rendering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_Object: TypeAlias = "Mapping[str, Any]"

# The libraries of the template come from other hosts, and without scripts they are of no use.
_TEMPLATE: Final = """
{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
"""

# fmt: off
_TAGS: Final = frozenset({
    "a", "abbr", "b", "blockquote", "br", "caption", "code", "col", "colgroup", "dd", "del", "details", "div",
    "dl", "dt", "em", "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "ins",
    "kbd", "li", "mark", "ol", "p", "pre", "q", "s", "samp", "small", "span", "strong", "sub", "summary",
    "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "tt", "u", "ul", "var",
})
_ATTRIBUTES: Final = frozenset({
    "align", "alt", "border", "class", "colspan", "height", "id", "rowspan", "scope", "style", "title",
    "width",
})
# fmt: on

# Elements whose contents are not text for reading; bleach would keep it.
_UNREADABLE = re.compile(r"<(script|style|svg|template|title)\b", re.IGNORECASE)
_ENDS: Final = {
    name: re.compile(rf"</{name}\b[^<>]*>", re.IGNORECASE)
    for name in ("script", "style", "svg", "template", "title")
}

_IMAGES: Final = ("image/png", "image/jpeg")
_TEXTS: Final = ("text/plain", "text/html", "text/markdown", "text/latex", "image/svg+xml")
_WIDGET_VIEW: Final = "application/vnd.jupyter.widget-view+json"
_WIDGET_STATE: Final = "application/vnd.jupyter.widget-state+json"
_WIDGET: Final = "IPY_MODEL_"
_LINK = re.compile(r"https?://|mailto:|#", re.IGNORECASE)
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")
_WORD = re.compile(r"[\w+#.-]{1,64}")

_log = logging.getLogger(f"{__name__}.nbconvert")
_log.setLevel(logging.ERROR)  # it warns of images without a description


def to_html(notebook: _Object) -> str:
    """Render an executed notebook, which is left as it is."""
    exporter = _Exporter(  # type: ignore[no-untyped-call]
        template_name="lab", sanitize_html=True, embed_images=False, log=_log
    )
    exporter.raw_template = _TEMPLATE
    page, _ = exporter.from_notebook_node(_reduce(notebook))
    return str(page)


class _Exporter(HTMLExporter):
    """nbconvert's, with our sanitiser, and with Markdown that never fails the page."""

    def default_filters(self) -> Iterator[tuple[str, Callable[..., str]]]:
        yield from super().default_filters()  # type: ignore[no-untyped-call]
        yield "clean_html", clean_html

    @jinja2.pass_context
    def markdown2html(self, context: jinja2.runtime.Context, source: str) -> str:
        try:
            return str(super().markdown2html(context, source))
        except Exception:  # it raises what it likes where an attachment is missing or odd
            return f"<pre>{html.escape(source)}</pre>"


def clean_html(markup: str | bytes) -> str:
    """Keep of a piece of HTML what is text, tables and images that it carries itself."""
    text = markup.decode() if isinstance(markup, bytes) else str(markup)
    cleaned = bleach.clean(
        _without_unreadable(text),
        tags=_TAGS,
        attributes=_is_allowed,
        protocols={"http", "https", "mailto", "data"},
        css_sanitizer=CSSSanitizer(),
        strip=True,
    )
    return str(cleaned)


def _is_allowed(tag: str, name: str, value: str) -> bool:
    if tag == "img" and name == "src":
        return value.lower().startswith("data:image/")
    if tag == "a" and name == "href":
        return bool(_LINK.match(value))
    return name in _ATTRIBUTES


def _without_unreadable(markup: str) -> str:
    """Cut such elements out, in linear time; one that has no end takes the rest with it, as in a browser."""
    kept = []
    position = 0
    while start := _UNREADABLE.search(markup, position):
        kept.append(markup[position : start.start()])
        end = _ENDS[start[1].lower()].search(markup, start.end())
        if end is None:
            return "".join(kept)
        position = end.end()
    return "".join([*kept, markup[position:]])


# What is left of a notebook: nothing that the template could write into the page without escaping it.


def _reduce(notebook: _Object) -> nbformat.NotebookNode:
    widgets = _Widgets(notebook)
    cells = [_reduce_cell(cell, i, widgets) for i, cell in enumerate(notebook.get("cells", []))]
    metadata = _reduce_metadata(_object(notebook.get("metadata")))
    reduced = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
    return nbformat.from_dict(reduced)  # type: ignore[no-any-return]


def _reduce_metadata(metadata: _Object) -> dict[str, Any]:
    title = metadata.get("title")
    reduced: dict[str, Any] = {"title": title if isinstance(title, str) else "Notebook"}
    language = _object(metadata.get("language_info"))
    names = {name: language.get(name) for name in ("name", "pygments_lexer")}
    known = {name: word for name, word in names.items() if isinstance(word, str) and _WORD.fullmatch(word)}
    return {**reduced, "language_info": known} if "name" in known else reduced


class _Widgets:
    """The saved state of widgets, of which a page shows what they have captured."""

    def __init__(self, notebook: _Object) -> None:
        saved = _object(_object(_object(notebook.get("metadata")).get("widgets")).get(_WIDGET_STATE))
        self._models = _object(saved.get("state"))
        self._seen: set[str] = set()

    def shown(self, outputs: Iterable[_Object]) -> Iterator[_Object]:
        """Give outputs, for the view of a widget what it and those in it have captured, the first time."""
        pending = list(outputs)[::-1]
        while pending:
            output = pending.pop()
            model = _object(_object(output.get("data")).get(_WIDGET_VIEW)).get("model_id")
            captured = list(self._captured(model))
            if captured:
                pending += captured[::-1]
            else:
                yield output

    def _captured(self, model: object) -> Iterator[_Object]:
        pending = [model]
        while pending:
            name = pending.pop()
            if not isinstance(name, str) or name in self._seen:
                continue
            self._seen.add(name)
            state = _object(_object(self._models.get(name)).get("state"))
            yield from (output for output in _list(state.get("outputs")) if isinstance(output, dict))
            children = [child for child in _list(state.get("children")) if isinstance(child, str)]
            pending += [child.removeprefix(_WIDGET) for child in reversed(children)]


def _reduce_cell(cell: _Object, index: int, widgets: _Widgets) -> dict[str, Any]:
    kind = cell.get("cell_type")
    reduced: dict[str, Any] = {
        "cell_type": kind if kind in ("code", "markdown") else "raw",
        "id": f"cell-{index}",
        "metadata": {},
        "source": _text(cell.get("source", "")),
    }
    if kind == "code":
        count = cell.get("execution_count")
        reduced["execution_count"] = count if isinstance(count, int) else None
        outputs = (_reduce_output(output) for output in widgets.shown(cell.get("outputs", [])))
        reduced["outputs"] = [output for output in outputs if output.get("data") != {}]
    else:
        bundles = _object(cell.get("attachments")).items()
        reduced["attachments"] = {name: _reduce_images(_object(bundle)) for name, bundle in bundles}
    return reduced


def _reduce_output(output: _Object) -> dict[str, Any]:
    kind = output.get("output_type")
    if kind == "stream":
        name = "stderr" if output.get("name") == "stderr" else "stdout"
        return {"output_type": kind, "name": name, "text": _text(output.get("text", ""))}
    if kind == "error":
        traceback = [_text(line) for line in _list(output.get("traceback"))]
        names = {name: _text(output.get(name) or "") for name in ("ename", "evalue")}
        return {
            "output_type": kind,
            **names,
            "traceback": traceback or [f"{names['ename']}: {names['evalue']}"],
        }
    data = _object(output.get("data"))
    metadata = _object(output.get("metadata"))
    images = _reduce_images(data)
    return {
        "output_type": "display_data",
        "data": {**images, **{mime: _text(data[mime]) for mime in _TEXTS if mime in data}},
        "metadata": {mime: _reduce_image_metadata(_object(metadata.get(mime))) for mime in images},
    }


def _reduce_images(data: _Object) -> dict[str, str]:
    return {mime: _NOT_BASE64.sub("", _text(data[mime])) for mime in _IMAGES if mime in data}


def _reduce_image_metadata(metadata: _Object) -> dict[str, Any]:
    sizes = ((name, metadata.get(name)) for name in ("width", "height"))
    kept: dict[str, Any] = {name: size for name, size in sizes if isinstance(size, int)}
    if metadata.get("needs_background") in ("light", "dark"):
        kept["needs_background"] = metadata["needs_background"]
    return kept


def _object(value: object) -> _Object:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value)


# The process.

_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Make pages until there are no more notebooks."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    _confine(int(sys.argv[1]))
    while length := source.read(rendering.LENGTH):
        _allow(rendering.MAX_WORK)
        kind, content = _answer(source.read(int.from_bytes(length, "big")))
        _send(sink, kind, content)


def _confine(server: int) -> None:
    """Leave time and memory to others, and end with the server."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != server:
        sys.exit()
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (rendering.MAX_MEMORY, rendering.MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _allow(seconds: int) -> None:
    """Have the operating system end this process when it has worked so long, whatever it does then."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + seconds, hard))


def _answer(notebook: bytes) -> tuple[bytes, bytes]:
    try:
        page = to_html(json.loads(notebook)).encode("utf-8", "replace")
    except MemoryError:
        os._exit(1)  # what is left of it is of no use
    except Exception:
        return rendering.FAULT, traceback.format_exc(limit=-20).encode("utf-8", "replace")
    return (rendering.PAGE, page) if len(page) <= rendering.MAX_PAGE else (rendering.TOO_LARGE, b"")


def _send(sink: BinaryIO, kind: bytes, content: bytes) -> None:
    sink.write(kind + len(content).to_bytes(rendering.LENGTH, "big"))
    sink.write(content)
    sink.flush()


if __name__ == "__main__":
    main()
