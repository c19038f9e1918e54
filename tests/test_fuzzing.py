"""Generated requests, for a few seconds; `make soak` throws them for minutes."""

from __future__ import annotations

import pytest

from tests import campaigns

pytestmark = pytest.mark.campaign


@pytest.mark.parametrize("campaign", ["whole", "service", "alone"])
def test_campaign(campaign: str) -> None:
    """Schemathesis finds nothing in the answers to requests that it makes from the server's own document."""
    # The same requests each time: what a change breaks is found by who made it.
    assert " passed" in campaigns.run("fuzzing.py", "--short", "--seed", "1", campaign)
