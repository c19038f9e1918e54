"""The short forms of campaigns with kernels that say much, or anything; `make soak` runs the long ones."""

from __future__ import annotations

import pytest

from tests import campaigns

CAMPAIGNS = ["displays", "fuzzed"]


@pytest.mark.campaign
@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_campaign(campaign: str) -> None:
    """A campaign keeps all its promises; what the kernels say is the same each time."""
    campaigns.run("messages.py", "--short", "--seed", "1", campaign)


def test_every_campaign_is_tested() -> None:
    """No campaign is missing above."""
    assert campaigns.names("messages.py") == CAMPAIGNS
