"""The short forms of the campaigns against endpoints; `make soak` runs the long ones."""

from __future__ import annotations

import sys

import pytest

from tests import campaigns

pytestmark = pytest.mark.campaign


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked at through /proc")
@pytest.mark.parametrize("campaign", ["killed", "edited", "stuck", "ended"])
def test_campaign(campaign: str) -> None:
    """A campaign keeps all its promises, on a real server of its own."""
    campaigns.run("endpoints_crashes.py", "--short", campaign)


def test_every_campaign_is_tested() -> None:
    """No campaign is missing above."""
    marks = {mark.name: mark for mark in getattr(test_campaign, "pytestmark", [])}
    assert campaigns.names("endpoints_crashes.py") == marks["parametrize"].args[1]
