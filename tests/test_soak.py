"""The short forms of the soak's campaigns; `make soak` runs the long ones."""

from __future__ import annotations

import pytest

from tests import campaigns

#: Those that count what a server has, or see to it that the machine is busy.
ALONE = ["leaks", "prints"]
OTHERS = ["terminated", "killed", "deaths", "widgets", "load", "queue", "slow_bodies"]


@pytest.mark.parametrize(
    "campaign",
    [
        *(pytest.param(name, marks=pytest.mark.alone) for name in ALONE),
        *(pytest.param(name, marks=pytest.mark.campaign) for name in OTHERS),
    ],
)
def test_campaign(campaign: str) -> None:
    """A campaign keeps all its promises, on a real server of its own."""
    campaigns.run("soak.py", "--short", campaign)


def test_every_campaign_is_tested() -> None:
    """No campaign of the soak is missing above."""
    assert sorted(campaigns.names("soak.py")) == sorted([*ALONE, *OTHERS])
