"""The short forms of the campaigns against servers; `make soak` runs the long ones."""

from __future__ import annotations

import sys

import pytest

from tests import campaigns, postgresql

pytestmark = pytest.mark.campaign


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked at through /proc")
@pytest.mark.parametrize(
    "campaign",
    ["kills", "shared", "cut", "moments", "stops", "frozen", "full", "broken", "vanishing", "cancels"],
)
def test_campaign(campaign: str) -> None:
    """A campaign keeps all its promises, with real servers of its own."""
    if campaign in ("shared", "cut", "frozen") and postgresql.find_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    campaigns.run("crashes.py", "--short", campaign)


def test_every_campaign_is_tested() -> None:
    """No campaign is missing above."""
    marks = {mark.name: mark for mark in getattr(test_campaign, "pytestmark", [])}
    assert campaigns.names("crashes.py") == marks["parametrize"].args[1]
