"""Cancelling in each state, a few times; `make soak` does it more often."""

from __future__ import annotations

import pytest

from tests import campaigns

pytestmark = pytest.mark.campaign


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
    campaigns.run("cancelling.py", "--short", state)
