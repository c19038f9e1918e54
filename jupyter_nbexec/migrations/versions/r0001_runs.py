"""The first version: runs, their documents, and the servers that run them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "nbexec_runs",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("path", sa.Text),
        sa.Column("path_digest", sa.String(64)),
        sa.Column("user_name", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("fingerprint", sa.Text),
        sa.Column("owner", sa.String(36)),
        sa.Column("is_detached", sa.Boolean, nullable=False),
        sa.Column("has_env", sa.Boolean, nullable=False),
        sa.Column("is_cancel_requested", sa.Boolean, nullable=False),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("started", _TIME),
        sa.Column("ended", _TIME),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("kernel_name", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("kernel", sa.Text),
        sa.Column("progress", sa.Text, nullable=False),
        sa.Column("timing", sa.Text, nullable=False),
        sa.Column("warnings", sa.Text, nullable=False),
        sa.Column("saved_as", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("truncated", sa.Boolean, nullable=False),
        sa.Column("result_type", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("delivery_state", sa.String(16)),
        sa.Column("delivery_url", sa.Text),
        sa.Column("delivery_events", sa.Text),
        sa.Column("delivery_secret", sa.LargeBinary),
        sa.Column("delivery_attempts", sa.Integer),
        sa.Column("delivery_next", _TIME),
        sa.Column("delivery_last", _TIME),
        sa.Column("delivery_last_status", sa.Integer),
        sa.Column("delivery_last_error", sa.Text),
        sqlite_autoincrement=True,
    )
    _index("id", "id", unique=True)
    _index("key", "user_name", "idempotency_key", unique=True, where="idempotency_key IS NOT NULL")
    _index("path", "path_digest", "number")
    _index("path_status", "path_digest", "status", "number")
    _index("status", "status", "number")
    _index("user", "user_name", "number", where="user_name != ''")
    _index("user_status", "user_name", "status", "number", where="user_name != ''")
    _index("ended", "ended", "number", "size", where="ended IS NOT NULL")
    _index("delivery", "delivery_next", where="delivery_state = 'pending'")
    op.create_table(
        "nbexec_documents",
        sa.Column(
            "number",
            _NUMBER,
            sa.ForeignKey("nbexec_runs.number", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("events", sa.LargeBinary),
    )
    op.create_table(
        "nbexec_servers",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("process_started", sa.Double, nullable=False),
        sa.Column("heartbeat", _TIME, nullable=False),
    )


def _index(name: str, *columns: str, where: str | None = None, unique: bool = False) -> None:
    """Make an index, of some rows only where the database knows such indexes."""
    condition = None if where is None else sa.text(where)
    op.create_index(
        f"nbexec_runs_{name}",
        "nbexec_runs",
        list(columns),
        unique=unique,
        sqlite_where=condition,
        postgresql_where=condition,
    )
