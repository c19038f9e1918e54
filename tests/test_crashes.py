"""The short forms of the campaigns against servers; `make soak` runs the long ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import postgresql

CRASHES = Path(__file__).parents[1] / "benchmarks" / "crashes.py"
#: Seconds a campaign may take before it counts as hung.
DEADLINE = 240


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked at through /proc")
@pytest.mark.parametrize(
    "campaign",
    ["kills", "shared", "cut", "moments", "stops", "frozen", "full", "broken", "vanishing", "cancels"],
)
def test_campaign(campaign: str) -> None:
    """A campaign keeps all its promises, with real servers of its own."""
    if campaign in ("shared", "cut", "frozen") and postgresql.find_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    ended = subprocess.run(
        [sys.executable, str(CRASHES), "--short", campaign],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout


def test_every_campaign_is_tested() -> None:
    """No campaign is missing above."""
    marks = {mark.name: mark for mark in getattr(test_campaign, "pytestmark", [])}
    listed = subprocess.run(
        [sys.executable, str(CRASHES), "--help"], capture_output=True, text=True, timeout=60, check=True
    )

    names = re.search(r"CAMPAIGN\s+of (.*?); default", listed.stdout, re.DOTALL)
    assert names is not None
    assert names.group(1).replace(",", "").split() == marks["parametrize"].args[1]
