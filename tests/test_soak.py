"""The short forms of the soak's campaigns; `make soak` runs the long ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[1] / "benchmarks" / "soak.py"
#: Seconds a campaign may take before it counts as hung.
DEADLINE = 240


@pytest.mark.parametrize(
    "campaign",
    ["leaks", "terminated", "killed", "deaths", "widgets", "prints", "load", "queue", "slow_bodies"],
)
def test_campaign(campaign: str) -> None:
    """A campaign keeps all its promises, on a real server of its own."""
    ended = subprocess.run(
        [sys.executable, str(SOAK), "--short", campaign],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout


def test_every_campaign_is_tested() -> None:
    """No campaign of the soak is missing above."""
    marks = getattr(test_campaign, "pytestmark", [])
    listed = subprocess.run(
        [sys.executable, str(SOAK), "--help"], capture_output=True, text=True, timeout=60, check=True
    )

    names = re.search(r"CAMPAIGN\s+of (.*?); default", listed.stdout, re.DOTALL)
    assert names is not None
    assert names.group(1).replace(",", "").split() == marks[0].args[1]
