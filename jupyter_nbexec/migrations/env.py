"""What Alembic runs for each command: it works inside the transaction that it is given."""

from __future__ import annotations

from alembic import context

from jupyter_nbexec.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
