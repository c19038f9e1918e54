"""The versions of the store's schema, and how to come to the newest one. Alembic does the work."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command, config, migration, script

FOLDER: Final = Path(__file__).parent
VERSION_TABLE: Final = "nbexec_schema"
"""Where a database notes its version; Alembic's usual name may be taken by another application."""

_LOCK = threading.Lock()


class NewerSchema(Exception):
    """The database was made by a newer version of this package."""


def current(connection: sa.Connection) -> str | None:
    """Tell the version of a database; None if it has no schema yet."""
    options = {"version_table": VERSION_TABLE}
    return migration.MigrationContext.configure(connection, opts=options).get_current_revision()


def head() -> str | None:
    """Tell the newest version that this package knows."""
    return script.ScriptDirectory(str(FOLDER)).get_current_head()


def is_known(version: str) -> bool:
    """Whether this package knows a version."""
    return version in {each.revision for each in script.ScriptDirectory(str(FOLDER)).walk_revisions()}


def upgrade(connection: sa.Connection) -> None:
    """Bring a database to the newest version, inside the transaction of `connection`.

    Others must be kept out meanwhile. Neither logging nor the working directory is touched.
    """
    version = current(connection)
    if version is not None and not is_known(version):
        raise NewerSchema(
            f"its schema has version {version}, and this jupyter_nbexec knows up to {head()};"
            " a newer jupyter_nbexec has made it"
        )
    settings = config.Config()
    settings.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    settings.attributes["connection"] = connection
    with _LOCK:  # Alembic keeps what it is doing in module globals
        command.upgrade(settings, "head")
