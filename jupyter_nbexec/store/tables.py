"""The tables, as they are in the newest version of the schema; `migrations` makes them."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import Dialect

from jupyter_nbexec import models

# Types of columns


class Json(sa.types.TypeDecorator[Any]):
    """JSON as text of ASCII: so it holds every string, which the text of databases does not."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Write a value."""
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        """Read a value."""
        return None if value is None else json.loads(value)


class Moment(sa.types.TypeDecorator[datetime]):
    """A time, in UTC whatever the database makes of it."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Write a time."""
        return None if value is None else value.astimezone(timezone.utc)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Read a time; SQLite's have no zone."""
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


class Words(sa.types.TypeDecorator[str]):
    """Text from outside: what databases cannot hold, NUL and lone surrogates, gets a backslash."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Write text."""
        if value is None:
            return None
        return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


# Tables

METADATA = sa.MetaData()
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

RUNS = sa.Table(
    "nbexec_runs",
    METADATA,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("path", Words),
    #: What a path is looked up by, since it may be too long for an index.
    sa.Column("path_digest", sa.String(64)),
    #: Empty where there is no user, so that the key of a run without a user is unique as well.
    sa.Column("user_name", Words, nullable=False),
    sa.Column("idempotency_key", Words),
    sa.Column("fingerprint", Words),
    sa.Column("owner", sa.String(36)),
    sa.Column("is_detached", sa.Boolean, nullable=False),
    sa.Column("has_env", sa.Boolean, nullable=False),
    sa.Column("is_cancel_requested", sa.Boolean, nullable=False),
    sa.Column("created", Moment, nullable=False),
    #: Whether its owner may have sent a cell to a kernel. A server of an earlier version does not say.
    sa.Column("has_begun", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("started", Moment),
    sa.Column("ended", Moment),
    #: Bytes of the compressed documents.
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("kernel_name", Words, nullable=False),
    sa.Column("request", Json, nullable=False),
    sa.Column("kernel", Json),
    sa.Column("progress", Json, nullable=False),
    sa.Column("timing", Json, nullable=False),
    sa.Column("warnings", Json, nullable=False),
    sa.Column("saved_as", Words),
    sa.Column("error", Json),
    sa.Column("truncated", sa.Boolean, nullable=False),
    sa.Column("result_type", Words),
    sa.Column("result", Json),
    sa.Column("delivery_state", sa.String(16)),
    sa.Column("delivery_url", Words),
    sa.Column("delivery_events", Json),
    sa.Column("delivery_secret", sa.LargeBinary),
    sa.Column("delivery_attempts", sa.Integer),
    sa.Column("delivery_next", Moment),
    sa.Column("delivery_last", Moment),
    sa.Column("delivery_last_status", sa.Integer),
    sa.Column("delivery_last_error", Words),
    # No number is ever given twice, or a page of a list might come again.
    sqlite_autoincrement=True,
)

DOCUMENTS = sa.Table(
    "nbexec_documents",
    METADATA,
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

SERVERS = sa.Table(
    "nbexec_servers",
    METADATA,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("host", Words, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("process_started", sa.Double, nullable=False),
    sa.Column("heartbeat", Moment, nullable=False),
)

# Conditions. Those of partial indexes are text: a database uses such an index for the very same words only.

HAS_ENDED = sa.text("ended IS NOT NULL")
HAS_USER = sa.text("user_name != ''")
HAS_KEY = sa.text("idempotency_key IS NOT NULL")
IS_PENDING = sa.text("delivery_state = 'pending'")
IS_QUEUED = RUNS.c.status == models.RunStatus.QUEUED.value
IS_IN_QUEUE = IS_QUEUED & RUNS.c.is_detached
IS_RUNNING = RUNS.c.status == models.RunStatus.RUNNING.value
IS_UNFINISHED = RUNS.c.status.in_([models.RunStatus.QUEUED.value, models.RunStatus.RUNNING.value])

# Indexes


def _index(
    name: str, *columns: sa.Column[Any], where: sa.TextClause | None = None, unique: bool = False
) -> None:
    sa.Index(f"nbexec_runs_{name}", *columns, unique=unique, sqlite_where=where, postgresql_where=where)


_index("id", RUNS.c.id, unique=True)
_index("key", RUNS.c.user_name, RUNS.c.idempotency_key, where=HAS_KEY, unique=True)
_index("path", RUNS.c.path_digest, RUNS.c.number)
_index("path_status", RUNS.c.path_digest, RUNS.c.status, RUNS.c.number)
_index("status", RUNS.c.status, RUNS.c.number)
_index("user", RUNS.c.user_name, RUNS.c.number, where=HAS_USER)
_index("user_status", RUNS.c.user_name, RUNS.c.status, RUNS.c.number, where=HAS_USER)
_index("ended", RUNS.c.ended, RUNS.c.number, RUNS.c.size, where=HAS_ENDED)
_index("delivery", RUNS.c.delivery_next, where=IS_PENDING)
