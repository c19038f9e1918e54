"""What a client accepts decides what a run is shown as."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_nbexec import errors, negotiation
from jupyter_nbexec.negotiation import Kind, Shape, parse_accept

RAW = ["image/png", "image/svg+xml", "text/plain", "application/pdf", "text/csv"]
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/png,*/*;q=0.8"


def picked(header: str | None, raw: list[str] | None = None) -> str:
    """The media type that is chosen for a run whose outputs have these types."""
    return parse_accept(header).pick(RAW if raw is None else raw).media_type


class TestPick:
    """A run that has ended is shown as the client prefers."""

    @pytest.mark.parametrize(
        ("header", "expected"),
        [
            (None, "application/json"),
            ("", "application/json"),
            (" , ,", "application/json"),
            ("*/*", "application/json"),
            ("*", "application/json"),
            ("application/json", "application/json"),
            ("APPLICATION/JSON", "application/json"),
            ("application/json;charset=utf-8", "application/json"),
            ('application/json; charset="UTF-8"; q=0.5', "application/json"),
            ("application/*", "application/json"),
            ("application/x-ipynb+json", "application/x-ipynb+json"),
            ("text/html", "text/html"),
            ("text/*", "text/html"),
            ("text/csv", "text/csv"),
            ("image/*", "image/png"),
            ("image/svg+xml", "image/svg+xml"),
            ("IMAGE/PNG", "image/png"),
            ("application/pdf", "application/pdf"),
            (BROWSER, "text/html"),
            ("application/json, text/plain, */*", "application/json"),
            ("application/json, */*;q=0.5", "application/json"),
            ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", "text/html"),
            ("image/png, */*;q=0.1", "image/png"),
            ("image/png, application/json", "image/png"),
            ("application/json, image/png", "application/json"),
            ("image/png;q=0.5, application/json;q=0.4", "image/png"),
            ("image/png;q=0.4, application/json;q=0.5", "application/json"),
            ("image/*, image/png;q=0", "image/svg+xml"),
            ("image/*;q=0.5, image/svg+xml", "image/svg+xml"),
            ("*/*, application/json;q=0", "text/html"),
            ("*/*, application/*;q=0, text/*;q=0", "image/png"),
            ("text/event-stream, application/json;q=0.1", "application/json"),
            ("text/event-stream, */*", "application/json"),
            ("image/webp, text/plain;q=0.2", "text/plain"),
            ("application/json;q=0.000, text/plain;q=0.001", "text/plain"),
            ("nonsense, image/png", "image/png"),
            ("image/png;q=2, text/csv;q=0.1", "text/csv"),
            ("image/png;q=high, text/csv;q=0.1", "text/csv"),
            ("image/png;q=-1, text/csv;q=0.1", "text/csv"),
            ("image/png;q=, text/csv;q=0.1", "text/csv"),
            ("image/png;q=., text/csv;q=0.1", "text/csv"),
            ("*/png, text/csv", "text/csv"),
            ("/, a/, /b, a/b/c, ;q=1, text/csv", "text/csv"),
            ('a/b;x="1,2;q=0", text/csv', "text/csv"),
            ('text/csv, image/png;x="unclosed, text/html', "text/csv"),
            ('text/csv, image/png;x="unclosed\\', "text/csv"),
            ("application/json;version=2, text/csv;q=0.1", "text/csv"),
            ("text/csv;;;q=1;", "text/csv"),
        ],
    )
    def test_shape(self, header: str | None, expected: str) -> None:
        """Weights, then specificity, then order decide."""
        assert picked(header) == expected

    def test_kinds(self) -> None:
        """Each shape says what it is."""
        assert parse_accept("*/*").pick([]) == negotiation.RUN
        assert parse_accept("text/html").pick(RAW) == negotiation.HTML
        assert parse_accept("application/x-ipynb+json").pick(RAW) == negotiation.NOTEBOOK
        assert parse_accept("image/*").pick(RAW) == Shape(Kind.RAW, "image/png")

    @pytest.mark.parametrize(
        ("header", "raw"),
        [("image/png", []), ("image/*", ["text/plain"]), ("text/csv;header=absent", ["text/csv"])],
    )
    def test_nothing_fits(self, header: str, raw: list[str]) -> None:
        """A run without such an output is not acceptable, and the answer says what there is."""
        with pytest.raises(errors.NotAcceptable) as caught:
            picked(header, raw)
        # Events are had while a run goes on; of one that has ended there are other shapes.
        offered = [each.media_type for each in negotiation.OFFERED if each is not negotiation.EVENTS]
        assert caught.value.details["available"] == offered + raw

    @pytest.mark.parametrize("media_type", sorted(negotiation.RESERVED))
    def test_reserved_types_are_no_outputs(self, media_type: str) -> None:
        """An output cannot stand in for a shape of the run."""
        accept = parse_accept(f"{media_type}, application/json;q=0.1")
        assert accept.pick([media_type, media_type.upper()]).kind is not Kind.RAW

    @given(st.text(max_size=60) | st.text(alphabet='aq/*;,="\\.01 ', max_size=40))
    def test_any_header_can_be_read(self, header: str) -> None:
        """No header raises anything but NotAcceptable, and both steps agree."""
        accept = parse_accept(header)
        try:
            accept.pick(RAW)
        except errors.NotAcceptable:
            return
        assert accept.may_be_satisfied()

    @pytest.mark.parametrize("piece", ['a/b;x="', "a/b;", "*/*,", '"', 'a/b;x="\\', '\\"', ";\t", "*"])
    def test_long_headers_are_read_in_linear_time(self, piece: str) -> None:
        """The largest header that tornado lets through takes well under a second."""
        before = time.perf_counter()
        parse_accept(piece * (65_536 // len(piece))).may_be_satisfied()
        assert time.perf_counter() - before < 2


class TestPickFailed:
    """A run that failed is JSON, unless the notebook was asked for."""

    @pytest.mark.parametrize(
        "header", [None, "image/png", "text/html", "text/csv, */*", "image/webp", BROWSER]
    )
    def test_json(self, header: str | None) -> None:
        """Whatever else was asked for."""
        assert parse_accept(header).pick_failed(RAW) == negotiation.RUN

    @pytest.mark.parametrize("header", ["application/x-ipynb+json", "application/x-ipynb+json, */*;q=0.1"])
    def test_notebook(self, header: str) -> None:
        """The notebook shows the failure too."""
        assert parse_accept(header).pick_failed(RAW) == negotiation.NOTEBOOK


class TestMayBeSatisfied:
    """What no run can be shown as is refused before anything runs."""

    @pytest.mark.parametrize(
        "header",
        [
            None,
            "*/*",
            "text/html",
            "text/*",
            "image/*",
            "image/webp",
            "foo/bar",
            "application/x-ipynb+json",
            "application/json;q=0, */*",
            "text/event-stream, */*;q=0.1",
            "*/*;q=0.001",
            "nonsense",
            BROWSER,
        ],
    )
    def test_possible(self, header: str | None) -> None:
        """Some run could have it."""
        assert parse_accept(header).may_be_satisfied()
        parse_accept(header).require_possible()

    @pytest.mark.parametrize(
        "header",
        [
            "text/event-stream;q=0",
            "*/*;q=0",
            "multipart/*",
            "multipart/mixed",
            "multipart/*, */*;q=0",
            "message/rfc822",
            "image/png;q=0",
            "image/png;a=b",
            "text/html;q=0",
            "application/json;q=0.0",
            "application/json;version=2",
        ],
    )
    def test_impossible(self, header: str) -> None:
        """No run could."""
        assert not parse_accept(header).may_be_satisfied()
        with pytest.raises(errors.NotAcceptable):
            parse_accept(header).require_possible()


class TestWantsEvents:
    """Events are chosen before a run, by who wants them most of all."""

    @pytest.mark.parametrize(
        "header",
        [
            "text/event-stream",
            "TEXT/Event-Stream; charset=utf-8",
            "text/event-stream, */*",
            "text/event-stream, application/json",
            "text/event-stream, application/json;q=0.9",
            "application/json;q=0.9, text/event-stream",
            "text/event-stream, image/png;q=0.5",
        ],
    )
    def test_wanted(self, header: str) -> None:
        """They come first."""
        assert parse_accept(header).wants_events()
        parse_accept(header).require_possible()

    @pytest.mark.parametrize(
        "header",
        [
            None,
            "*/*",
            "text/*",
            BROWSER,
            "application/json",
            "application/json, text/event-stream",
            "text/event-stream;q=0.5, application/json",
            "text/event-stream;q=0",
            "text/event-stream;q=0.5, image/png",
            "image/png, text/event-stream",
        ],
    )
    def test_not_wanted(self, header: str | None) -> None:
        """Something else does, or anything will do."""
        assert not parse_accept(header).wants_events()

    @given(st.text(alphabet="aq/*;,=. 01", max_size=40))
    def test_only_who_names_them(self, header: str) -> None:
        """Nobody is given events who has not named them."""
        assert not parse_accept(header).wants_events()

    def test_of_an_ended_run(self) -> None:
        """Where nothing but events is accepted, a run that has ended cannot be shown otherwise."""
        with pytest.raises(errors.NotAcceptable):
            picked("text/event-stream")
        assert parse_accept("text/event-stream").pick_failed([]) == negotiation.RUN
