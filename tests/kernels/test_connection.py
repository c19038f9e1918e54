"""What the connection drops, joins and notices, without a kernel where that is possible."""

from __future__ import annotations

from jupyter_nbexec.kernels import connection


def losses(*numbers: int, cells: int = 0) -> connection.Losses:
    """What is noticed after messages with these numbers."""
    seen = connection.Losses()
    for number in numbers:
        seen.saw(f"abc_77_{number}")
    for _ in range(cells):
        seen.ended_cell()
    return seen


def test_no_gap() -> None:
    """Numbers in a row, in any order, are no loss."""
    assert not losses(3, 5, 4).any


def test_gap() -> None:
    """A number that is missing is a loss."""
    assert losses(3, 5).any


def test_gap_of_a_value_that_shows_itself() -> None:
    """One number a cell may be spent on nothing; the second is a loss."""
    assert not losses(3, 5, cells=1).any
    assert losses(3, 6, cells=1).any


def test_gap_of_a_reply_to_somebody_else() -> None:
    """A request of another client takes one number that we do not see."""
    seen = losses(3, 5)
    seen.saw_other("somebody")
    seen.saw_other("somebody")

    assert not seen.any


def test_series_are_counted_apart() -> None:
    """A process that the kernel forked counts for itself."""
    seen = losses(3, 4)
    seen.saw("abc_78_4000")

    assert not seen.any


def test_ids_of_another_form() -> None:
    """Kernels that do not number their messages cannot lose any that we would notice."""
    seen = connection.Losses()
    seen.saw("f3b8c6e0-0000-4000-8000-000000000001")
    seen.saw("")

    assert not seen.any
