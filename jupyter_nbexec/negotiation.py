"""Which shape a client wants a run in: the Accept header of RFC 9110, section 12.5.1.

Two steps, since the types that a run's outputs have are known only when it has ended:

    accept = parse_accept(header)
    accept.may_be_satisfied()          before: False means 406, and nothing is run
    accept.pick(raw_types)             after: the shape, or NotAcceptable
    accept.pick_failed(raw_types)      after a run that failed
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final

from . import errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Kind(str, enum.Enum):
    """What a run can be shown as; the order is ours where a client has no preference."""

    RUN = "run"  #: the run as JSON
    HTML = "html"  #: the executed notebook, rendered
    NOTEBOOK = "notebook"  #: the executed notebook
    EVENTS = "events"  #: its events as they happen
    RAW = "raw"  #: the last output of some other type, as it is


@dataclass(frozen=True)
class Shape:
    """One way to show a run."""

    kind: Kind
    media_type: str


RUN: Final = Shape(Kind.RUN, "application/json")
HTML: Final = Shape(Kind.HTML, "text/html")
NOTEBOOK: Final = Shape(Kind.NOTEBOOK, "application/x-ipynb+json")
EVENTS: Final = Shape(Kind.EVENTS, "text/event-stream")

RESERVED: Final = frozenset(shape.media_type for shape in (RUN, HTML, NOTEBOOK, EVENTS))
"""Types that mean a shape of the whole run, never an output of that type."""

OFFERED: Final = (RUN, HTML, NOTEBOOK, EVENTS)
"""Shapes that every run can be given in."""

NEVER_OUTPUTS: Final = frozenset({"message", "multipart"})
"""Top-level types that no output has."""

_TCHARS = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
#: Characters of the longest header that is read. Those of browsers have a few hundred.
MAX_HEADER: Final = 4096

# A quote that is never closed takes the rest with it: trying each again would be quadratic.
_ELEMENT = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.?)*(?:"|\Z))+', re.DOTALL)
_TYPE = re.compile(rf"\s*({_TCHARS})/({_TCHARS})\s*")
_PARAMETER = re.compile(rf';\s*(?:({_TCHARS})\s*=\s*({_TCHARS}|"(?:[^"\\]|\\.)*")\s*)?')
_WEIGHT = re.compile(r"(?=\.?\d)(?:0?(?:\.\d*)?|1(?:\.0*)?)")


@dataclass(frozen=True)
class MediaRange:
    """One element of an Accept header."""

    type: str  #: lower case, or `*`
    subtype: str  #: lower case, or `*`
    parameters: frozenset[tuple[str, str]]  #: without the weight
    weight: float

    @property
    def specificity(self) -> tuple[bool, bool, int]:
        """What decides between two ranges that both match: the more specific one does."""
        return self.type != "*", self.subtype != "*", len(self.parameters)

    def matches(self, media_type: str) -> bool:
        """Whether a type, given in lower case and without parameters, is in this range."""
        kind, _, subtype = media_type.partition("/")
        # What we send is UTF-8 where it is text, so a client may say so; no other parameter is ours.
        if self.parameters - {("charset", "utf-8")}:
            return False
        return self.type in ("*", kind) and self.subtype in ("*", subtype)


@dataclass(frozen=True)
class Accept:
    """What a client accepts."""

    ranges: tuple[MediaRange, ...]

    def may_be_satisfied(self) -> bool:
        """Whether some run could be shown to this client; decided before running."""
        if any(self._rank(shape.media_type) for shape in OFFERED):
            return True
        return any(self._may_match_output(each) for each in self.ranges)

    def require_possible(self) -> None:
        """Raise NotAcceptable where no run could be shown to this client."""
        if not self.may_be_satisfied():
            raise errors.NotAcceptable("A run cannot be shown as any type that the Accept header allows.")

    def wants_events(self) -> bool:
        """Whether the client wants the events of a run most of all, which is decided before running."""
        shapes = [shape.media_type for shape in OFFERED]
        ranges = [f"{each.type}/{each.subtype}" for each in self.ranges]
        named = [each for each in ranges if "*" not in each]
        return self.choose([*shapes, *named]) == EVENTS.media_type

    def prefers_run(self) -> bool:
        """Whether the client is given the run as JSON, unless it prefers an output of it."""
        return self.choose([shape.media_type for shape in OFFERED]) == RUN.media_type

    def choose(self, media_types: Sequence[str]) -> str | None:
        """Choose among types; ours come in the order in which we prefer them.

        The client's weights decide, then the order of its ranges, then our order.
        """
        ranked = [(rank, media_type) for media_type in media_types if (rank := self._rank(media_type))]
        # `max` returns the first of equals.
        return max(ranked, key=lambda pair: pair[0], default=(None, None))[1]

    def pick(self, available_raw_types: Sequence[str]) -> Shape:
        """Choose how to show a run that has ended; raise NotAcceptable where it cannot be shown.

        `available_raw_types` are the types that its outputs have, best first.
        """
        raw = [each for each in available_raw_types if each.lower() not in RESERVED]
        # Who could be given events has been before; what has ended is given otherwise.
        shapes = {shape.media_type: shape for shape in OFFERED if shape is not EVENTS}
        chosen = self.choose([*shapes, *raw])
        if chosen is None:
            message = "The run has no output of a type that the Accept header allows."
            raise errors.NotAcceptable(message, available=[*shapes, *dict.fromkeys(raw)])
        return shapes.get(chosen) or Shape(Kind.RAW, chosen)

    def pick_failed(self, available_raw_types: Sequence[str]) -> Shape:
        """Choose how to show a run that failed: as JSON, unless the notebook was asked for."""
        try:
            shape = self.pick(available_raw_types)
        except errors.NotAcceptable:
            return RUN
        return shape if shape.kind is Kind.NOTEBOOK else RUN

    def _rank(self, media_type: str) -> tuple[float, int] | None:
        """Weight and, negated, position of the range that decides on this type; None if not accepted."""
        kind, _, subtype = media_type.lower().partition("/")
        for named in ((kind, subtype), (kind, "*"), ("*", "*")):
            if named in self._decisive:
                decisive, position = self._decisive[named]
                return (decisive.weight, -position) if decisive.weight > 0 else None
        return None

    @cached_property
    def _decisive(self) -> dict[tuple[str, str], tuple[MediaRange, int]]:
        """For each type and subtype that is named: the range that decides, and its position."""
        found: dict[tuple[str, str], tuple[MediaRange, int]] = {}
        for position, each in enumerate(self.ranges):
            named = (each.type, each.subtype)
            is_first = named not in found or found[named][0].specificity < each.specificity
            if is_first and each.matches("/".join(named)):
                found[named] = (each, position)
        return found

    def _may_match_output(self, wanted: MediaRange) -> bool:
        """Whether an output of a type that is not reserved could be in this range."""
        if wanted.weight == 0 or wanted.type in NEVER_OUTPUTS:
            return False
        if "*" in (wanted.type, wanted.subtype):
            return wanted.matches(f"{wanted.type}/*")
        named = f"{wanted.type}/{wanted.subtype}"
        return named not in RESERVED and self._rank(named) is not None


@lru_cache(maxsize=64)
def parse_accept(header: str | None) -> Accept:
    """Read an Accept header, several joined by commas; what is malformed in it is ignored.

    No header, or nothing in it that can be read, means that anything will do; so does one that is longer than
    `MAX_HEADER`, which handlers refuse.
    """
    ranges = tuple(_parse_ranges(header)) if header and len(header) <= MAX_HEADER else ()
    return Accept(ranges or (MediaRange("*", "*", frozenset(), 1.0),))


def _parse_ranges(header: str) -> Iterator[MediaRange]:
    for element in _ELEMENT.findall(header):
        parsed = _parse_range(element)
        if parsed is not None:
            yield parsed


def _parse_range(element: str) -> MediaRange | None:
    # Java's own client sends a bare `*`.
    element = re.sub(r"^\s*\*\s*(?=;|$)", "*/*", element)
    found = _TYPE.match(element)
    if found is None or (found[1] == "*" and found[2] != "*"):
        return None
    parameters: set[tuple[str, str]] = set()
    position, weight = found.end(), 1.0
    while position < len(element):
        parameter = _PARAMETER.match(element, position)
        if parameter is None:
            return None
        position = parameter.end()
        if parameter[1] is None:
            continue
        name, value = parameter[1].lower(), _unquote(parameter[2])
        if name != "q":
            parameters.add((name, value.lower()))
        elif _WEIGHT.fullmatch(value):
            weight = float(value)
        else:
            return None
    return MediaRange(found[1].lower(), found[2].lower(), frozenset(parameters), weight)


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
