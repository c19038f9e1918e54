"""The arithmetic of measurements: percentiles, rates, and what is promised of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


def percentiles(samples: Sequence[float]) -> Json:
    """p50, p95 and p99 of what was measured, and of how much."""
    if len(samples) < 2:
        only = samples[0] if samples else None
        return {"n": len(samples), "p50": only, "p95": only, "p99": only, "max": only}
    cuts = statistics.quantiles(samples, n=100, method="inclusive")
    return {
        "n": len(samples),
        "p50": statistics.median(samples),
        "p95": cuts[94],
        "p99": cuts[98],
        "max": max(samples),
    }


def rate(runs: Sequence[tuple[float, float]], began: float, end: float) -> float:
    """Runs each second between two moments, given when each of them began and ended.

    One that ends later counts for the part of it that is before: clients ask again and again, and whoever
    is slow would else have done nothing, or too much.
    """
    done = 0.0
    for start, stop in runs:
        inside = min(stop, end) - max(start, began)
        done += max(0.0, inside) / (stop - start)
    return done / (end - began)


@dataclass(kw_only=True)
class Alone:
    """Runs of one client, one after the other."""

    rounds: list[list[float]] = field(default_factory=list)  #: seconds that each took
    cpu: float = 0.0  #: seconds of all
    runs: int = 0

    def figures(self) -> Json:
        """What it comes to."""
        return {
            **percentiles([each for one in self.rounds for each in one]),
            "rounds": [statistics.median(one) for one in self.rounds if one],
            "cpu": self.cpu / self.runs if self.runs else None,
        }


@dataclass(kw_only=True)
class Together:
    """Runs of several clients at a time, each of which asks again when it is answered."""

    clients: int
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  #: runs each second, of each round
    cpu: float = 0.0
    runs: int = 0
    late: list[float] = field(default_factory=list)  #: milliseconds
    has_loop: bool = False

    def figures(self) -> Json:
        """What it comes to."""
        return {
            "clients": self.clients,
            **percentiles(self.seconds),
            "per_second": statistics.median(self.rates) if self.rates else None,
            "rounds": self.rates,
            "cpu": self.cpu / self.runs if self.runs else None,
            "lag_ms": percentiles(self.late) if self.has_loop else None,
        }


@dataclass(frozen=True, kw_only=True)
class Must:
    """Something that the project has to show, and whether it does."""

    number: int
    text: str
    found: float | bool | None  #: None: not measured
    limit: float | bool
    at_least: bool = False

    @property
    def kept(self) -> bool | None:
        """Whether it is so; None: not measured."""
        if self.found is None:
            return None
        if isinstance(self.limit, bool):
            return self.found == self.limit
        return self.found >= self.limit if self.at_least else self.found <= self.limit

    def line(self) -> str:
        """Say it in a line."""
        verdict = {True: "kept", False: "MISSED", None: "not measured"}[self.kept]
        found = (
            "-" if self.found is None else self.found if isinstance(self.found, bool) else f"{self.found:.3g}"
        )
        return f"{self.number}  {verdict:13}{self.text}: {found}"

    def document(self) -> Json:
        """As JSON."""
        return {
            "number": self.number,
            "text": self.text,
            "found": self.found,
            "limit": self.limit,
            "kept": self.kept,
        }


def pick(document: Mapping[str, Any], *path: str) -> float | None:
    """A figure deep in a document; None if it is not there."""
    found: Any = document
    for name in path:
        if not isinstance(found, Mapping) or found.get(name) is None:
            return None
        found = found[name]
    return float(found)


def ratio(one: float | None, other: float | None) -> float | None:
    """One figure by another; None if there is not both."""
    return None if one is None or not other else one / other


def best(*figures: float | None) -> float | None:
    """The smallest of those that there are."""
    return min((each for each in figures if each is not None), default=None)


def musts(document: Mapping[str, Any]) -> list[Must]:
    """What the project has to show, of all that was measured."""

    def alone(contender: str, of: str = "trivial") -> float | None:
        return pick(document, "inputs", of, contender, "alone", "p50")

    def together(contender: str, figure: str) -> float | None:
        return pick(document, "inputs", "trivial", contender, "together", figure)

    ours = best(alone("forked"), alone("warm"))
    peers = [together(each, "per_second") for each in ("nbclient", "nbclient-asyncio")]
    nbclient_rate = max((each for each in peers if each is not None), default=None)
    nbclient_cpu = best(together("nbclient", "cpu"), together("nbclient-asyncio", "cpu"))
    rates = [each for name in ("forked", "warm") if (each := together(name, "per_second")) is not None]
    cpu = best(together("forked", "cpu"), together("warm", "cpu"))
    same = document.get("same_answer")
    return [
        Must(
            number=1,
            text="trivial, a fresh kernel each: p50 at most 2.5 x the floor",
            found=ratio(ours, alone("floor")),
            limit=2.5,
        ),
        Must(
            number=1,
            text="and at most that of Kernel Gateway's shared kernel, ratio",
            found=ratio(ours, alone("gateway")),
            limit=1.0,
        ),
        Must(
            number=1,
            text="and at least 25 x faster than nbclient in process",
            found=ratio(best(alone("nbclient"), alone("nbclient-asyncio")), ours),
            limit=25.0,
            at_least=True,
        ),
        Must(
            number=1,
            text="and at least 150 x faster than the papermill CLI",
            found=ratio(alone("papermill"), ours),
            limit=150.0,
            at_least=True,
        ),
        Must(
            number=2,
            text="8 clients: at least 8 x nbclient's runs per second",
            found=ratio(max(rates, default=None), nbclient_rate),
            limit=8.0,
            at_least=True,
        ),
        Must(
            number=2,
            text="and at most 1/6 of its CPU seconds per run, ratio",
            found=ratio(cpu, nbclient_cpu),
            limit=1 / 6,
        ),
        Must(
            number=3,
            text="pandas and scikit-learn, prepared: at most 1/30 of cold, ratio",
            found=ratio(alone("prepared", "pandas"), alone("cold", "pandas")),
            limit=1 / 30,
        ),
        Must(
            number=3,
            text="the same JSON as cold, but for times",
            found=None if same is None else bool(same),
            limit=True,
        ),
        Must(
            number=4,
            text="a forked idle kernel: at most 12 MB of PSS",
            found=pick(document, "memory", "forked", "idle", "more"),
            limit=12.0,
        ),
        Must(
            number=8,
            text="event-loop lag, 8 clients, forked: p99 at most 50 ms",
            found=pick(document, "inputs", "trivial", "forked", "together", "lag_ms", "p99"),
            limit=50.0,
        ),
    ]
