"""One database: how it is reached, opened and brought up to date, and its transactions."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidatePoolError, SQLAlchemyError
from sqlalchemy.pool import QueuePool, StaticPool

from jupyter_nbexec import migrations

from . import files
from .watchdog import Silence, Watchdog

#: Seconds to wait for a connection, and for somebody else's transaction; and seconds a statement may take.
PATIENCE, LONGEST = files.PATIENCE, 30.0
#: Seconds that a server may take to open a connection.
CONNECTING = 5
#: Pages of an SQLite file that are given back to the disk at a time.
PAGES = 4096
#: What keeps others out while the schema changes; any number that no other application uses.
ADVISORY_LOCK: Final = 0x6E62_6578_6563

_LOG = logging.getLogger(__name__)


class StoreError(Exception):
    """The store cannot be read or written; the message is for an administrator's log."""


class NotUnique(StoreError):
    """What must be there once only is there already."""


class Database:
    """A database that is open, or may be opened."""

    def __init__(self, url: str) -> None:
        """`url` is one of SQLAlchemy, or the path of an SQLite file."""
        try:
            self._url = _parse(url)
        except SQLAlchemyError as error:
            raise StoreError(f"the run store's URL cannot be read: {error}") from error
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self.file = _file(self._url) if self.is_sqlite else None
        self._file_id: tuple[int, int] | None = None
        self._engine: sa.Engine | None = None
        self._opening = threading.RLock()
        self._watchdog: Watchdog | None = None
        # SQLite has one writer at a time, and who waits looks again now and then. A lock is quicker.
        self._turn = threading.Lock()

    @property
    def name(self) -> str:
        """What a log may call it: there is no password in this."""
        return self._url.render_as_string(hide_password=True) if self.file is None else str(self.file)

    def open(self) -> None:
        """Make the database, or bring its schema up to date. Does nothing if it is open."""
        with self._opening, self._telling():
            if self._engine is not None:
                return
            if self.file is None:
                self._engine = self._connect()
                return
            with files.held(self.file):
                files.prepare(self.file)
                self._file_id = files.identify(self.file)
                self._engine = self._connect()

    def close(self) -> None:
        """Let go of the database. It may be opened again."""
        with self._opening:
            if self._engine is not None:
                self._engine.dispose()
            self._engine = None
            if self._watchdog is not None:
                self._watchdog.stop()
            self._watchdog = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that changes nothing."""
        is_shared = self.is_sqlite and self.file is None  # in memory there is one connection for all
        with self._telling():
            engine = self._present()
            with self._alone(is_needed=is_shared), self._watched(), engine.begin() as connection:
                yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that is durable when this is left."""
        with self._telling():
            engine = self._present()
            is_alone = self._alone(is_needed=self.is_sqlite)
            with is_alone, self._watched(), _writer(engine).begin() as connection:
                yield connection

    def shrink(self, may_go_on: Callable[[], bool]) -> None:
        """Give the disk back what an SQLite file does not need any more. Other databases do so themselves.

        `may_go_on` is asked before each of several steps.
        """
        if self.file is None:
            return
        left = -1
        while left and may_go_on():
            before = left
            with self._telling(), self._alone(is_needed=True):
                pool = self._present().raw_connection()
                try:
                    connection: Any = pool.driver_connection
                    # Each step frees a page, and only a script is executed to its last step.
                    connection.executescript(f"PRAGMA incremental_vacuum({PAGES})")
                    (left,) = connection.execute("PRAGMA freelist_count").fetchone()
                finally:
                    pool.close()
            if left == before:
                break  # a file that was not made here may not know how to shrink

    def _present(self) -> sa.Engine:
        """The engine. Where a file was taken away or replaced, the one that is there now is opened."""
        engine = self._engine
        if engine is not None and (self.file is None or files.identify(self.file) == self._file_id):
            return engine
        with self._opening:
            if self._engine is not None and self._engine is engine:
                _LOG.error("%s was taken away or replaced: what was in it is gone", self.name)
                self.close()
                self.open()
            if self._engine is None:
                raise StoreError(f"{self.name}: not open")
            return self._engine

    @contextlib.contextmanager
    def _alone(self, *, is_needed: bool) -> Iterator[None]:
        """Keep the other threads of this process out, where that is needed."""
        if not is_needed:
            yield
            return
        if not self._turn.acquire(timeout=PATIENCE):
            raise StoreError(f"{self.name}: other threads have been busy with it for {PATIENCE:g} s")
        try:
            yield
        finally:
            self._turn.release()

    def _watched(self, longest: float | None = None) -> contextlib.AbstractContextManager[None]:
        """Have what is done with a server ended if that does not answer, or takes `longest` seconds."""
        if self._watchdog is None:
            return contextlib.nullcontext()
        return self._watchdog.watched(LONGEST + PATIENCE if longest is None else longest)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn what databases and disks raise into StoreError, without the values that were to be written."""
        try:
            yield
        except DBAPIError as error:
            kind = NotUnique if isinstance(error, IntegrityError) else StoreError
            raise kind(f"{self.name}: {_first_line(error.orig)}") from error
        except (SQLAlchemyError, sqlite3.Error, OSError, migrations.NewerSchema, Silence) as error:
            raise StoreError(f"{self.name}: {_first_line(error)}") from error

    def _connect(self) -> sa.Engine:
        """Make an engine, and bring the schema up to date."""
        engine = _engine_of_sqlite(self._url, self.file) if self.is_sqlite else self._engine_of_server()
        try:
            with self._watched(), engine.begin() as connection:
                is_current = migrations.current(connection) == migrations.head()
            if not is_current:
                with self._watched(float("inf")):
                    _upgrade(engine)
        except BaseException:
            engine.dispose()
            raise
        return engine

    def _engine_of_server(self) -> sa.Engine:
        arguments: dict[str, Any] = {}
        if self._url.drivername == "postgresql+psycopg":
            limits = f"-c statement_timeout={LONGEST:g}s -c lock_timeout={PATIENCE:g}s"
            arguments = {
                "connect_timeout": CONNECTING,
                "tcp_user_timeout": int(LONGEST * 1000),
                "application_name": "jupyter_nbexec",
                **self._url.query,
                "options": f"{limits} {self._url.query.get('options', '')}",  # what comes later counts
            }
        # `_watch` sees to it that connections are alive.
        options = {"pool_pre_ping": True} if not arguments else {}
        try:
            engine = sa.create_engine(
                self._url, connect_args=arguments, hide_parameters=True, pool_timeout=PATIENCE, **options
            )
        except ImportError as error:
            hint = "; pip install 'jupyter_nbexec[postgresql]'" if error.name == "psycopg" else ""
            raise StoreError(f"{self.name}: {error}{hint}") from error
        if arguments:
            self._watch(engine, arguments)
        return engine

    def _watch(self, engine: sa.Engine, arguments: dict[str, Any]) -> None:
        """Have a watchdog know the connections, and dead ones replaced, as `pool_pre_ping` does unwatched."""

        def knock(seconds: float) -> None:
            positional, named = engine.dialect.create_connect_args(self._url)
            limits = {"connect_timeout": int(seconds)}
            engine.dialect.connect(*positional, **{**named, **arguments, **limits}).close()

        watchdog = self._watchdog = self._watchdog or Watchdog(knock)

        def check(*_: Any) -> None:
            watchdog.check()

        def look(connection: Any, record: Any, _: Any) -> None:
            watchdog.attach(connection)
            if record.info.setdefault("nbexec_is_new", True):
                record.info["nbexec_is_new"] = False
                return
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as error:
                raise InvalidatePoolError from error

        sa.event.listen(engine, "do_connect", check)
        sa.event.listen(engine, "checkout", look)


def _engine_of_sqlite(url: sa.URL, file: Path | None) -> sa.Engine:
    pool: dict[str, Any] = {"poolclass": StaticPool}
    if file is not None:
        pool = {"poolclass": QueuePool, "pool_size": 8, "max_overflow": 56, "pool_timeout": PATIENCE}
    arguments = {"check_same_thread": False, "timeout": PATIENCE}
    engine = sa.create_engine(url, connect_args=arguments, hide_parameters=True, **pool)
    sa.event.listen(engine, "connect", _prepare_connection)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _prepare_connection(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # a transaction begins where `_begin` says so
    for pragma in ("foreign_keys = ON", "synchronous = FULL", f"journal_size_limit = {64 << 20}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    # A transaction that begins by reading cannot go on to write once another one has written.
    is_writing = connection.get_execution_options().get("nbexec_is_writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")


def _writer(engine: sa.Engine) -> sa.Engine:
    return engine.execution_options(nbexec_is_writing=True)


def _upgrade(engine: sa.Engine) -> None:
    """Bring the schema up to date. Others that want to do so wait, and find it done."""
    with _writer(engine).begin() as connection:
        if engine.dialect.name == "postgresql":
            for limit in ("statement_timeout", "lock_timeout"):
                connection.execute(sa.text(f"SET LOCAL {limit} = 0"))
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        migrations.upgrade(connection)


def _parse(url: str) -> sa.URL:
    if "://" not in url:
        return sa.URL.create("sqlite", database=str(Path(url).absolute()))
    parsed = sa.make_url(url)
    if parsed.drivername == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite" and _file(parsed) is not None:
        # The working directory may be another one later.
        return parsed.set(database=str(Path(str(parsed.database)).absolute()))
    return parsed


def _file(url: sa.URL) -> Path | None:
    """The file of an SQLite database; None if it is in memory."""
    if not url.database or url.database == ":memory:":
        return None
    if url.database.startswith("file:"):
        raise StoreError("the run store's URL is a URI of SQLite; the path of a file is needed")
    return Path(url.database)


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
