"""The measurements themselves: that they measure what they say; never how fast anything is."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import campaigns

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="processes are looked at through /proc"
)


@pytest.fixture
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the benchmarks, which are scripts beside each other."""
    monkeypatch.syspath_prepend(str(campaigns.BENCHMARKS))
    return importlib.import_module(request.param)


@pytest.mark.alone
def test_sources(tmp_path: Path) -> None:
    """The comparison of kernel sources has all its figures, from right answers only."""
    said = campaigns.run("sources.py", "--short", "--output", str(tmp_path))

    document = json.loads((tmp_path / "sources.json").read_text(encoding="utf-8"))
    assert {"when", "machine", "peers", "modes", "contenders", "memory", "must"} <= document.keys()
    assert set(document["inputs"]) == {"trivial"}
    assert set(document["inputs"]["trivial"]) == {"cold", "floor"}
    for name, found in document["inputs"]["trivial"].items():
        assert found["failures"] == []
        for form in ("alone", "together"):
            keys = {"n", "p50", "p95", "p99", "max", "rounds", "cpu"}
            assert keys <= found[form].keys()
            assert found[form]["n"] > 0
            assert None not in [found[form][key] for key in keys], (name, form)
        assert found["together"]["per_second"] > 0
        # Kernels that have ended are counted.
        assert found["counted"] > 0.5
    assert document["inputs"]["trivial"]["cold"]["sources"].keys() == {"cold"}
    assert document["inputs"]["trivial"]["cold"]["together"]["lag_ms"]["n"] > 0
    assert {must["number"] for must in document["must"]} == {1, 2, 3, 4, 8}
    assert (tmp_path / "sources.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert "one cell, 1 + 1" in said


@pytest.mark.alone
def test_endpoints() -> None:
    """The comparison with Kernel Gateway's endpoints has all its figures, from right answers only."""
    said = campaigns.run("endpoints.py", "--short")

    for name in ("gateway", "nbexec"):
        for kernels in (1, 2):
            assert re.search(rf"^{name} +{kernels} kernels  alone p50 +[\d.]+ ms", said, re.MULTILINE), said
    assert said.count("Kernel Gateway") == 3
    assert "not measured" not in said


@pytest.mark.alone
def test_isolation() -> None:
    """Runs on one server do not meet, and leave nothing; not even when it is killed."""
    campaigns.run("isolation.py", "--mode", "forked", "--short")


@pytest.mark.parametrize("module", ["figures"], indirect=True)
def test_figures(module: Any) -> None:
    """Percentiles are those of the samples, and the rate counts the part of a run that is inside."""
    found = module.percentiles([float(each) for each in range(1, 102)])
    assert (found["n"], found["p50"], found["p95"], found["p99"]) == (101, 51, 96, 100)
    assert module.percentiles([3.0])["p99"] == 3.0
    assert module.percentiles([])["p50"] is None
    assert module.rate([(0.0, 1.0), (1.0, 2.0), (2.0, 4.0)], 0.0, 3.0) == pytest.approx(2.5 / 3)
    assert module.ratio(1.0, 0.0) is None
    assert module.pick({"a": {"b": None}}, "a", "b") is None


@pytest.mark.parametrize("module", ["figures"], indirect=True)
def test_musts(module: Any) -> None:
    """What must be shown is kept, missed, or not measured."""

    def figures(p50: float, per_second: float, cpu: float) -> dict[str, Any]:
        together = {"per_second": per_second, "cpu": cpu, "lag_ms": {"p99": 49.0}}
        return {"alone": {"p50": p50}, "together": together}

    trivial = {
        "forked": figures(0.02, 80.0, 0.09),
        "floor": figures(0.01, 100.0, 0.01),
        "gateway": figures(0.03, 100.0, 0.01),
        "nbclient": figures(0.49, 9.0, 0.6),
        "papermill": figures(4.0, 1.0, 3.0),
    }
    kept = [must.kept for must in module.musts({"inputs": {"trivial": trivial}})]
    # nbclient is not 25 times slower; nothing is known of what is prepared, and of memory.
    assert kept == [True, True, False, True, True, True, None, None, None, True]


@pytest.mark.parametrize("module", ["processes"], indirect=True)
def test_processor_time(module: Any) -> None:
    """What a child has used counts while it runs, and once it has ended; a name may hold anything."""
    stat = module.parse_stat("7 (a) b (c) S 3 " + "0 " * 9 + "100 50 25 25 " + "0 " * 30)
    assert (stat.pid, stat.parent) == (7, 3)
    assert stat.seconds == 200 / os.sysconf("SC_CLK_TCK")
    before = module.cpu_seconds(os.getpid())
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", burn], timeout=60, check=True)
    assert module.cpu_seconds(os.getpid()) - before >= 0.45
    assert os.getpid() in module.tree(os.getppid())
    assert module.pss(os.getpid()) > 1
    assert module.pss(2**22 + 1) == 0


@pytest.mark.parametrize("module", ["inputs"], indirect=True)
def test_inputs(module: Any, tmp_path: Path) -> None:
    """A notebook is the same each time, and knows what comes before its parameters."""
    module.PANDAS.save(tmp_path, {"nbexec": {"prepare": True}})
    first = (tmp_path / "pandas.ipynb").read_bytes()
    module.PANDAS.save(tmp_path, {"nbexec": {"prepare": True}})

    assert (tmp_path / "pandas.ipynb").read_bytes() == first
    setup, cells = module.read_setup(tmp_path / "pandas.ipynb")
    assert (tuple(setup[:-1]), tuple(cells)) == (module.MODEL, module.PANDAS.cells)
    assert module.LARGE.expected.length == module.MEGABYTES * 1_000_000
    assert len(module.MANY.setup + module.MANY.cells) == module.CELLS
