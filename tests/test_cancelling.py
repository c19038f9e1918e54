"""Cancelling in each state, a few times; `make soak` does it more often."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "cancelling.py"
#: Seconds a state may take before it counts as hung.
DEADLINE = 240


@pytest.mark.parametrize(
    "state",
    [
        "queued_synchronous",
        "queued_asynchronous",
        "leaving_the_queue",
        "starting",
        "running",
        "ignoring",
        "at_the_end",
        "after_the_end",
    ],
)
def test_cancelling(state: str) -> None:
    """Runs that are cancelled in this state end as they should, and leave nothing."""
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--short", state],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout
