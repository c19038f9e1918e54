"""Databases of every version come to the newest schema, whoever opens them, and nothing else is touched."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import autogenerate, migration

from jupyter_nbexec import migrations, models, store
from jupyter_nbexec.store import tables

NEXT = '''"""A version that does not exist."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{last}"


def upgrade() -> None:
    """Add a column that has a value for the runs there are, and an index."""
    op.add_column("nbexec_runs", sa.Column("colour", sa.Text, nullable=False, server_default="blue"))
    op.create_index("nbexec_runs_colour", "nbexec_runs", ["colour"])
'''


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that is still empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/runs.sqlite"
    return str(request.getfixturevalue("postgresql").create())


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """This package as it may be one version later; undone, it is as it is now."""
    folder = tmp_path / "100% migrations"
    shutil.copytree(migrations.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    text = NEXT.format(last=migrations.head())
    (folder / "versions" / "r9999_next.py").write_text(text, encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "FOLDER", folder)
        yield patch


@contextlib.contextmanager
def opened(url: str) -> Iterator[store.RunStore]:
    """Open a store for a while."""
    runs = store.RunStore(url)
    runs.open()
    try:
        yield runs
    finally:
        runs.close()


def record(run_id: str) -> models.RunRecord:
    """A run that waits."""
    created = datetime(2026, 11, 20, tzinfo=timezone.utc)
    return models.RunRecord(id=run_id, created=created, request=models.RunRequest(), kernel_name="python3")


def version(runs: store.RunStore) -> str | None:
    """The version of an open store's schema."""
    with runs._reading() as connection:
        return migrations.current(connection)


def test_the_versions_are_a_line() -> None:
    """There is one newest version, and the first one has no other before it."""
    assert migrations.head() == "0002"
    assert migrations.is_known("0001")
    assert not migrations.is_known("9999")


def test_migrating_makes_what_the_store_expects(url: str) -> None:
    """The tables and indexes that the migrations make are those of `store.tables`, in every detail."""
    with opened(url) as runs, runs._reading() as connection:
        assert version(runs) == migrations.head()
        options = {
            "version_table": migrations.VERSION_TABLE,
            "compare_type": True,
            "compare_server_default": True,
        }
        context = migration.MigrationContext.configure(connection, opts=options)
        assert autogenerate.compare_metadata(context, tables.METADATA) == []
        made = definitions(connection)

    engine = sa.create_engine("sqlite://") if url.startswith("sqlite") else None
    if engine is None:
        return
    with engine.begin() as connection:
        tables.METADATA.create_all(connection)
        assert definitions(connection) == made
    engine.dispose()


def definitions(connection: sa.Connection) -> dict[str, Any]:
    """How each table and index was defined, conditions of partial indexes included; only for SQLite.

    A column that was added later stands last.
    """
    if connection.dialect.name != "sqlite":
        return {}
    query = sa.text("SELECT name, sql FROM sqlite_master WHERE name LIKE 'nbexec%' AND name != :ours")
    rows = connection.execute(query, {"ours": migrations.VERSION_TABLE})
    return {name: sorted(re.split(r"\s*[,()]\s*", " ".join(sql.split()))) for name, sql in rows}


def test_an_older_database_is_brought_up_to_date(url: str, next_version: pytest.MonkeyPatch) -> None:
    """A newer package opens a database of this version, and keeps all that is in it."""
    with next_version.context() as patch:
        patch.setattr(migrations, "FOLDER", Path(migrations.__file__).parent)
        with opened(url) as runs:
            runs.add(record("1"), b"content")
            assert version(runs) == migrations.head()

    for _ in range(2):
        with opened(url) as runs:
            assert version(runs) == "9999"
            assert [run.id for run in runs.list()] == ["1"]
            assert runs.content("1") == b"content"
            with runs._reading() as connection:
                query = sa.text("SELECT colour FROM nbexec_runs")
                assert connection.execute(query).scalars().all() == ["blue"]


def test_runs_of_an_earlier_version_may_have_begun(url: str) -> None:
    """What a server of the first version has claimed is closed, never executed by another one."""
    with opened(url) as runs:
        runs.add(dataclasses.replace(record("1"), is_detached=True), b"")
        assert runs.claim("1", "dead", datetime.now(tz=timezone.utc))
        with runs._writing() as connection:
            connection.execute(sa.text("ALTER TABLE nbexec_runs DROP COLUMN has_begun"))
            connection.execute(sa.text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '0001'"))

    with opened(url) as runs:
        (closed,) = runs.recover([], datetime.now(tz=timezone.utc))
        assert closed.status is models.RunStatus.FAILED


def test_a_newer_database_is_refused(url: str, next_version: pytest.MonkeyPatch) -> None:
    """This package does not open a database that a newer one has changed; it says so, and changes nothing."""
    with opened(url) as runs:
        runs.add(record("1"), b"")
    next_version.undo()

    for _ in range(2):
        with pytest.raises(store.StoreError, match=r"version 9999.* up to 0002.* newer jupyter_nbexec"):
            store.RunStore(url).open()


def test_a_migration_that_fails_changes_nothing(url: str, next_version: pytest.MonkeyPatch) -> None:
    """A migration is done as a whole or not at all."""
    script = migrations.FOLDER / "versions" / "r9999_next.py"
    script.write_text(script.read_text() + '    op.execute("SELECT nonsense")\n')
    with pytest.raises(store.StoreError, match="nonsense"):
        store.RunStore(url).open()
    next_version.undo()

    with opened(url) as runs:
        assert version(runs) == migrations.head()
        assert runs.add(record("1"), b"").number == 1


OPENING = """
import sys
from pathlib import Path
from jupyter_nbexec import migrations, store
migrations.FOLDER = Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
runs = store.RunStore(sys.argv[1])
runs.open()
print(runs.queued(), flush=True)
runs.close()
"""


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "older"])
def test_processes_may_migrate_at_once(url: str, next_version: pytest.MonkeyPatch, *, is_new: bool) -> None:
    """Of processes that open a new or older database at once, one migrates, and the others find it done."""
    folder = str(migrations.FOLDER)
    if not is_new:
        next_version.undo()
        with opened(url) as runs:
            assert version(runs) == migrations.head()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENING, url, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()

    assert said == [("0\n", "")] * 4


def test_threads_may_migrate_at_once(tmp_path: Path, postgresql: object) -> None:
    """Several stores that are opened in threads of one process do not disturb each other."""
    urls = [f"{tmp_path}/{number}.sqlite" for number in range(4)]
    urls += [postgresql.create() for _ in range(2)]  # type: ignore[attr-defined]
    stores = [store.RunStore(url) for url in urls for _ in range(2)]
    with ThreadPoolExecutor(len(stores)) as pool:
        for done in [pool.submit(runs.open) for runs in stores]:
            done.result(60)

    assert [version(runs) for runs in stores] == [migrations.head()] * len(stores)
    for runs in stores:
        runs.close()


def test_nothing_else_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a store leaves logging, the working directory, and what is printed as they were."""
    monkeypatch.chdir(tmp_path)
    names = ("", "alembic", "sqlalchemy", "jupyter_nbexec")
    loggers = [logging.getLogger(name) for name in names]
    before = [(each.level, list(each.handlers), each.disabled, each.propagate) for each in loggers]
    code = (
        "import sys; from jupyter_nbexec import store; r = store.RunStore(sys.argv[1]); r.open(); r.close()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "a.sqlite")],
        capture_output=True,
        timeout=60,
        check=False,
    )
    with opened(str(tmp_path / "b.sqlite")):
        pass

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert [(each.level, list(each.handlers), each.disabled, each.propagate) for each in loggers] == before
    assert Path.cwd() == tmp_path
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"a", "b"}


def test_another_application_may_use_the_same_database(url: str) -> None:
    """Tables of others, Alembic's own among them, are neither used nor changed."""
    with opened(url) as runs, runs._writing() as connection:
        connection.execute(sa.text("DROP TABLE nbexec_documents"))
        for table in ("nbexec_runs", "nbexec_servers", migrations.VERSION_TABLE):
            connection.execute(sa.text(f"DROP TABLE {table}"))
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('other')"))

    with opened(url) as runs:
        assert version(runs) == migrations.head()
        with runs._reading() as connection:
            assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == "other"
