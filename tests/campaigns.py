"""Scripts of `benchmarks`, run in their short forms as a person runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
#: Seconds a short form may take before it counts as hung.
DEADLINE = 280


def run(script: str, *arguments: str) -> str:
    """Run a script, which must say that all is well; what it printed."""
    ended = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def names(script: str) -> list[str]:
    """Names of the campaigns that a script knows, by what it says of itself."""
    found = re.search(r"CAMPAIGN\s+of (.*?); default", run(script, "--help"), re.DOTALL)
    assert found is not None
    return found.group(1).replace(",", "").split()
