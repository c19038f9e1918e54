"""Whether cells of a run may have been executed, so that one that has not begun can go to another server."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column. What servers of the version before have claimed, and claim, may have begun."""
    op.add_column("nbexec_runs", sa.Column("has_begun", sa.Boolean, nullable=False, server_default=sa.true()))
