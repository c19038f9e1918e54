"""The short forms of the soak's campaigns; `make soak` runs the long ones."""

from __future__ import annotations

import pytest

from tests import campaigns

pytestmark = pytest.mark.alone


@pytest.mark.parametrize(
    "campaign",
    ["leaks", "terminated", "killed", "deaths", "widgets", "prints", "load", "queue", "slow_bodies"],
)
def test_campaign(campaign: str) -> None:
    """A campaign keeps all its promises, on a real server of its own."""
    campaigns.run("soak.py", "--short", campaign)


def test_every_campaign_is_tested() -> None:
    """No campaign of the soak is missing above."""
    marks = getattr(test_campaign, "pytestmark", [])
    assert campaigns.names("soak.py") == marks[0].args[1]
