"""What can be seen of a notebook without reading it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from jupyter_nbexec import notebooks

MOMENT = datetime(2026, 11, 20, 12, 0, 0, 250, tzinfo=timezone.utc)
WHOLE = MOMENT.replace(microsecond=0)


@pytest.mark.parametrize(
    ("modified", "seconds", "expected"),
    [
        (MOMENT, 0.0, True),
        (MOMENT, 0.04, True),
        (MOMENT, 0.06, False),
        # The clock of the file may count whole seconds.
        (WHOLE, 1.0, True),
        (WHOLE, 2.1, False),
        # It may be ahead of ours.
        (MOMENT, -5.0, True),
        (None, 0.0, True),
    ],
)
def test_changes_that_cannot_be_seen(modified: datetime | None, seconds: float, *, expected: bool) -> None:
    """A file that was changed just now may be changed again without looking different."""
    look = notebooks.Look(modified=modified, size=1)
    now = (modified or MOMENT) + timedelta(seconds=seconds)

    assert look.may_hide_change(now) is expected


def test_age() -> None:
    """What was changed at an unknown time may have been changed now."""
    now = datetime.now(tz=timezone.utc)

    assert notebooks.Look(modified=now, size=1).is_younger(60)
    assert not notebooks.Look(modified=now - timedelta(seconds=61), size=1).is_younger(60)
    assert notebooks.Look(modified=None, size=None).is_younger(0)
