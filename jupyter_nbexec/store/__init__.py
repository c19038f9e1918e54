"""The runs on disk, and the servers that use them: all SQL is here; models come out, never rows.

A run is a row of `nbexec_runs`. Its notebook and its events, compressed, are in `nbexec_documents`, so that a
list never reads them. Each method is one short transaction, or a few, and durable when it returns.

Every method blocks, so it is called off the event loop; many threads and many processes may do so at once.
Whatever is wrong with the database or its disk is raised as `StoreError`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import sqlalchemy as sa

from jupyter_nbexec import models

from . import rows
from .database import Database, NotUnique, StoreError
from .tables import (
    DOCUMENTS,
    HAS_ENDED,
    HAS_USER,
    IS_IN_QUEUE,
    IS_PENDING,
    IS_QUEUED,
    IS_RUNNING,
    IS_UNFINISHED,
    RUNS,
    SERVERS,
    Moment,
)

__all__ = ["DuplicateKey", "RunStore", "StoreError"]

#: Runs that are forgotten, or closed for a dead server, in one transaction.
BATCH = 100
#: Transactions in which runs of dead servers are closed at a time: who does so must also say that it lives.
ROUNDS = 10
#: Runs that wait, as many as are looked at together.
PAGE = 50

_Condition: TypeAlias = "sa.ColumnElement[bool]"
# Inside the class, `list` is a method.
_Records: TypeAlias = "list[models.RunRecord]"
_Deliveries: TypeAlias = "list[models.Delivery]"


class DuplicateKey(Exception):
    """The same user has used this key before."""

    def __init__(self, run_id: str, fingerprint: str | None) -> None:
        """`run_id` and `fingerprint` are those of the run that has the key."""
        super().__init__(f"run {run_id} has this key")
        self.run_id = run_id
        self.fingerprint = fingerprint


class RunStore:
    """The runs of one or more servers."""

    def __init__(self, url: str) -> None:
        """`url` is one of SQLAlchemy, or the path of an SQLite file, which need not be there yet."""
        self._database = Database(url)
        self._reading, self._writing = self._database.reading, self._database.writing

    @property
    def name(self) -> str:
        """What a log may call the database."""
        return self._database.name

    def open(self) -> None:
        """Make the database, or bring it up to date. A damaged file is moved aside, and a new one begun."""
        self._database.open()

    def close(self) -> None:
        """Let go of the database. It may be opened again."""
        self._database.close()

    # Servers

    def register(self, server: models.ServerRecord) -> None:
        """Enter a server; an entry of the same id is replaced."""
        with self._writing() as connection:
            connection.execute(SERVERS.delete().where(SERVERS.c.id == server.id))
            connection.execute(SERVERS.insert().values(dataclasses.asdict(server)))

    def beat(self, server_id: str, now: datetime) -> bool:
        """Note that a server lives. False: its entry is gone, so the others hold it for dead."""
        with self._writing() as connection:
            change = SERVERS.update().where(SERVERS.c.id == server_id).values(heartbeat=now)
            return connection.execute(change).rowcount > 0

    def unregister(self, server_id: str) -> None:
        """Take a server's entry away."""
        with self._writing() as connection:
            connection.execute(SERVERS.delete().where(SERVERS.c.id == server_id))

    def servers(self) -> list[models.ServerRecord]:
        """List the servers that are entered, dead or alive."""
        with self._reading() as connection:
            found = connection.execute(sa.select(SERVERS).order_by(SERVERS.c.id)).mappings()
            return [models.ServerRecord(**row) for row in found]

    def recover(self, dead: Collection[str], now: datetime) -> _Records:
        """Close what these servers, and those that are not entered, have left; the runs that were closed.

        What waits for such a server, and can be executed by any other, is released. Of very many some are
        left for the next time.
        """
        closed: _Records = []
        for server_id in dead:
            with self._writing() as connection:
                # Of several that see the same death, the one that takes the entry away does the rest.
                if connection.execute(SERVERS.delete().where(SERVERS.c.id == server_id)).rowcount:
                    closed += _close(connection, RUNS.c.owner == server_id, now)
        # The rest of theirs has an owner now that is not entered.
        is_orphan = RUNS.c.owner.is_not(None) & RUNS.c.owner.not_in(sa.select(SERVERS.c.id))
        for _ in range(ROUNDS):
            with self._reading() as connection:
                found = connection.execute(sa.select(RUNS.c.number).where(IS_UNFINISHED, is_orphan).limit(1))
                if found.first() is None:
                    break
            with self._writing() as connection:
                closed += _close(connection, is_orphan, now)
        return closed

    # The queue

    def add(self, record: models.RunRecord, content: bytes) -> models.RunRecord:
        """Store a new run; it is returned with its number. Raises DuplicateKey."""
        packed = rows.pack(content)
        values = {
            **rows.fixed_values(record),
            **rows.changing_values(record),
            **rows.delivery_values(record.delivery),
            "size": len(packed),
        }
        while True:
            try:
                with self._writing() as connection:
                    (number,) = connection.execute(RUNS.insert(), values).inserted_primary_key or (0,)
                    document = {"number": number, "content": packed, "events": None}
                    connection.execute(DOCUMENTS.insert(), document)
            except NotUnique:
                if record.key is None or self.get(record.id) is not None:
                    raise
                earlier = self.find_key(record.user, record.key)
                if earlier is not None:
                    raise DuplicateKey(earlier.id, earlier.fingerprint) from None
                # It was forgotten in between, so the key is free.
            else:
                return dataclasses.replace(record, number=number)

    def claim(self, run_id: str, server_id: str, now: datetime) -> models.RunRecord | None:
        """Let this server execute this run. None: it does not wait any more, or for another server."""
        with self._writing() as connection:
            if not _claim(connection, RUNS.c.id == run_id, server_id, now):
                return None
            return _find(connection, RUNS.c.id == run_id)

    def waiting(self, server_id: str, after: int = 0, limit: int = PAGE) -> list[models.Waiting]:
        """List the first detached runs that wait for this server or for any, from a number above `after`."""
        columns = (RUNS.c.id, RUNS.c.number, RUNS.c.kernel_name, RUNS.c.path, RUNS.c.owner)
        query = sa.select(*columns).where(IS_IN_QUEUE, _is_for(server_id), RUNS.c.number > after)
        with self._reading() as connection:
            return [
                models.Waiting(
                    id=row.id,
                    number=row.number,
                    kernel_name=row.kernel_name,
                    path=row.path,
                    is_bound=row.owner is not None,
                )
                for row in connection.execute(query.order_by(RUNS.c.number).limit(limit))
            ]

    def claim_next(
        self, server_id: str, now: datetime, among: Collection[int] | None = None
    ) -> tuple[models.RunRecord, bytes] | None:
        """Let this server execute the first detached run that waits for it or for any. None: none does.

        `among` are the numbers of those that it can execute; None: all.
        """
        first = sa.select(RUNS.c.number).where(IS_IN_QUEUE, _is_for(server_id))
        if among is not None:
            first = first.where(RUNS.c.number.in_(among))
        first = first.order_by(RUNS.c.number).limit(1)
        with self._writing() as connection:
            number = connection.execute(first.with_for_update(skip_locked=True)).scalar()
            if number is None or not _claim(connection, RUNS.c.number == number, server_id, now):
                return None
            record = _find(connection, RUNS.c.number == number)
            query = sa.select(DOCUMENTS.c.content).where(DOCUMENTS.c.number == number)
            packed = connection.execute(query).scalar_one()
        return None if record is None else (record, rows.unpack(packed))

    def begin(self, run_id: str, server_id: str) -> bool:
        """Note that its owner is about to execute a run's first cell. False: others have it, or it has ended.

        From then on the run is executed by nobody else, whatever becomes of its owner.
        """
        change = RUNS.update().where(RUNS.c.id == run_id, IS_RUNNING, RUNS.c.owner == server_id)
        with self._writing() as connection:
            return connection.execute(change.values(has_begun=True)).rowcount > 0

    def give_back(self, run_id: str, server_id: str) -> bool:
        """Put a run that this server has, and has not begun, into the queue again. False: it may not."""
        with self._writing() as connection:
            is_it = (RUNS.c.id == run_id) & (RUNS.c.owner == server_id) & IS_RUNNING
            is_it &= RUNS.c.is_detached & ~RUNS.c.has_env & ~RUNS.c.has_begun & ~RUNS.c.is_cancel_requested
            return connection.execute(_RELEASING.where(is_it)).rowcount > 0

    def queued(self) -> int:
        """Count the detached runs that wait."""
        query = sa.select(sa.func.count()).select_from(RUNS).where(IS_IN_QUEUE)
        with self._reading() as connection:
            return int(connection.execute(query).scalar_one())

    def cancel_queued(self, run_id: str, now: datetime) -> models.RunRecord | None:
        """Cancel a run that waits. None: it does not, or not any more."""
        values = {"status": models.RunStatus.CANCELLED.value, "is_cancel_requested": True, "ended": now}
        with self._writing() as connection:
            if not _end(connection, _TELLING.where((RUNS.c.id == run_id) & IS_QUEUED), values):
                return None
            return _find(connection, RUNS.c.id == run_id)

    def request_cancel(self, run_id: str) -> None:
        """Ask the server that has a run to cancel it."""
        change = RUNS.update().where(RUNS.c.id == run_id, IS_UNFINISHED).values(is_cancel_requested=True)
        with self._writing() as connection:
            connection.execute(change)

    def cancel_requests(self, server_id: str) -> list[str]:
        """Ids of the runs that this server executes and is asked to cancel."""
        query = sa.select(RUNS.c.id).where(IS_RUNNING, RUNS.c.owner == server_id)
        query = query.where(RUNS.c.is_cancel_requested).order_by(RUNS.c.number)
        with self._reading() as connection:
            return list(connection.execute(query).scalars())

    def owned(self, server_id: str) -> list[str]:
        """Ids of the runs that have not ended and that this server executes, or alone knows of."""
        is_in_queue = IS_QUEUED & RUNS.c.is_detached
        query = sa.select(RUNS.c.id).where(IS_UNFINISHED, RUNS.c.owner == server_id, ~is_in_queue)
        with self._reading() as connection:
            return list(connection.execute(query.order_by(RUNS.c.number)).scalars())

    # Progress and end

    def save_progress(self, record: models.RunRecord, content: bytes, events: bytes) -> bool:
        """Save how far a run has come. False: its owner does not execute it any more."""
        packed = {"content": rows.pack(content), "events": rows.pack(events)}
        values = {**rows.changing_values(record), **_its(record, packed)}
        with self._writing() as connection:
            if not connection.execute(_PROGRESS, values).rowcount:
                return False
            _write_documents(connection, record.id, packed)
        return True

    def finish(self, record: models.RunRecord, content: bytes | None, events: bytes | None) -> bool:
        """End a run; of its documents, what is None stays as it is. False: it has ended before.

        Its owner may end it, and anybody may cancel it as long as it waits.
        """
        if not record.status.is_final or record.ended is None:
            raise ValueError(f"run {record.id} is {record.status.value}, which is no end")
        documents = {"content": content, "events": events}
        packed = {name: rows.pack(document) for name, document in documents.items() if document is not None}
        change = _ending(
            tuple(packed),
            is_owned=record.owner is not None,
            is_cancelled=record.status is models.RunStatus.CANCELLED,
        )
        values = {**rows.changing_values(record), "status": record.status.value, "ended": record.ended}
        with self._writing() as connection:
            if not _end(connection, change, {**values, **_its(record, packed)}):
                return False
            _write_documents(connection, record.id, packed)
        return True

    # Reading

    def get(self, run_id: str) -> models.RunRecord | None:
        """Find a run."""
        with self._reading() as connection:
            return _find(connection, RUNS.c.id == run_id)

    def find_key(self, user: str | None, key: str) -> models.RunRecord | None:
        """Find the run that has a user's key."""
        with self._reading() as connection:
            return _find(connection, (RUNS.c.user_name == (user or "")) & (RUNS.c.idempotency_key == key))

    def content(self, run_id: str) -> bytes | None:
        """Read a run's notebook."""
        return self._document(run_id, DOCUMENTS.c.content)

    def events(self, run_id: str) -> bytes | None:
        """Read a run's events."""
        return self._document(run_id, DOCUMENTS.c.events)

    def _document(self, run_id: str, column: sa.Column[Any]) -> bytes | None:
        query = sa.select(column).where(DOCUMENTS.c.number == RUNS.c.number, RUNS.c.id == run_id)
        with self._reading() as connection:
            packed = connection.execute(query).scalar()
        return None if packed is None else rows.unpack(packed)

    def list(
        self,
        *,
        path: str | None = None,
        status: models.RunStatus | None = None,
        user: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> _Records:
        """List runs, newest first. `before` is the number of the last one of the page before this."""
        query = sa.select(RUNS).order_by(RUNS.c.number.desc()).limit(limit)
        if path is not None:
            query = query.where(RUNS.c.path_digest == rows.digest(path))
        if status is not None:
            query = query.where(RUNS.c.status == status.value)
        if user is not None:
            query = query.where(RUNS.c.user_name == user, HAS_USER)
        if before is not None:
            query = query.where(RUNS.c.number < before)
        with self._reading() as connection:
            return [rows.to_record(row) for row in connection.execute(query).mappings()]

    # Forgetting

    def delete(self, run_id: str) -> bool:
        """Forget a run. False: it has not ended, or there is none."""
        with self._writing() as connection:
            return connection.execute(RUNS.delete().where(RUNS.c.id == run_id, HAS_ENDED)).rowcount > 0

    def prune(
        self,
        *,
        older_than: datetime | None,
        max_runs: int | None,
        max_bytes: int | None,
        may_go_on: Callable[[], bool] = lambda: True,
    ) -> int:
        """Forget runs that have ended, the first to end first, until no limit is exceeded; how many.

        A run whose end is still to be told is kept until it has been, or until that is given up. There may be
        many: between two transactions `may_go_on` is asked, and may take its time.
        """
        limits = (older_than, max_runs, max_bytes)
        with self._reading() as connection:
            if not _doomed(connection, *limits):
                return 0  # and no writer was held up
        pruned, is_done = 0, False
        while not is_done:
            with self._writing() as connection:
                doomed = _doomed(connection, *limits, is_locking=True)
                if doomed:
                    connection.execute(RUNS.delete().where(RUNS.c.number.in_(doomed)))
            pruned += len(doomed)
            is_done = len(doomed) < BATCH or not may_go_on()
        self._database.shrink(may_go_on)
        return pruned

    # Webhooks

    def due_deliveries(self, now: datetime, lease: timedelta, limit: int = 20) -> _Deliveries:
        """Take messages that are due. Nobody else gets them before `lease` has passed."""
        due = sa.select(RUNS.c.number).where(IS_PENDING, RUNS.c.delivery_next <= now)
        due = due.order_by(RUNS.c.delivery_next).limit(limit)
        with self._reading() as connection:
            if connection.execute(due).first() is None:
                return []
        with self._writing() as connection:
            numbers = connection.execute(due.with_for_update(skip_locked=True)).scalars().all()
            is_taken = RUNS.c.number.in_(numbers)
            connection.execute(RUNS.update().where(is_taken).values(delivery_next=now + lease))
            taken = connection.execute(sa.select(RUNS).where(is_taken).order_by(RUNS.c.ended)).mappings()
            return [rows.to_delivery(row) for row in taken]

    def mark_delivery(self, delivery: models.Delivery) -> None:
        """Save how far a message has come, unless it has come to its end before."""
        change = RUNS.update().where(RUNS.c.id == delivery.run_id, IS_PENDING)
        with self._writing() as connection:
            connection.execute(change, rows.delivery_values(delivery))

    def next_delivery(self) -> datetime | None:
        """When the next message is due; None: there is none to send."""
        query = sa.select(RUNS.c.delivery_next).where(IS_PENDING, RUNS.c.delivery_next.is_not(None))
        with self._reading() as connection:
            return connection.execute(query.order_by(RUNS.c.delivery_next).limit(1)).scalar()


# What several methods do inside a transaction


def _find(connection: sa.Connection, is_it: _Condition) -> models.RunRecord | None:
    row = connection.execute(sa.select(RUNS).where(is_it)).mappings().first()
    return None if row is None else rows.to_record(row)


def _is_for(server_id: str) -> _Condition:
    return RUNS.c.owner.is_(None) | (RUNS.c.owner == server_id)


def _claim(connection: sa.Connection, is_it: _Condition, server_id: str, now: datetime) -> bool:
    """Give a run that waits to a server. False: another one was faster, or it was cancelled."""
    values = {
        "status": models.RunStatus.RUNNING.value,
        "owner": server_id,
        "started": now,
        "has_begun": False,
    }
    change = RUNS.update().where(is_it, IS_QUEUED, _is_for(server_id))
    return connection.execute(change, values).rowcount > 0


#: Puts a run into the queue again, for any server.
_RELEASING = RUNS.update().values(status=models.RunStatus.QUEUED.value, owner=None, started=None)
_IS_WAITING = RUNS.c.delivery_state == models.DeliveryState.WAITING.value
_PENDING = sa.literal(models.DeliveryState.PENDING.value)
#: Changes runs, and has that told to whom it concerns.
_TELLING = RUNS.update().values(
    {
        "delivery_state": sa.case((_IS_WAITING, _PENDING), else_=RUNS.c.delivery_state),
        "delivery_next": sa.case(
            (_IS_WAITING, sa.bindparam("its_end", type_=Moment)), else_=RUNS.c.delivery_next
        ),
    }
)


def _end(connection: sa.Connection, change: sa.Update, values: dict[str, Any]) -> bool:
    """End a run, by a change that tells. The one place where a run ends."""
    return connection.execute(change, {**values, "its_end": values["ended"]}).rowcount > 0


# What each run does is said in statements that are made once: to make one costs more than to execute it.


def _its(record: models.RunRecord, packed: dict[str, bytes]) -> dict[str, Any]:
    """The values of these statements' parameters."""
    size = sum(map(len, packed.values()))
    return {"its_id": record.id, "its_owner": record.owner, "its_size": size}


def _number() -> sa.ScalarSelect[Any]:
    return sa.select(RUNS.c.number).where(RUNS.c.id == sa.bindparam("its_id")).scalar_subquery()


def _size(documents: tuple[str, ...]) -> dict[str, Any]:
    """How large a run's documents are, once these are written."""
    if not documents:
        return {}
    size: Any = sa.bindparam("its_size", type_=sa.Integer)
    for column in (DOCUMENTS.c.content, DOCUMENTS.c.events):
        if column.name not in documents:
            length = sa.select(sa.func.coalesce(sa.func.length(column), 0))
            size = size + length.where(DOCUMENTS.c.number == _number()).scalar_subquery()
    return {"size": size}


_IS_OURS = RUNS.c.owner == sa.bindparam("its_owner")
_IS_IT = RUNS.c.id == sa.bindparam("its_id")
#: Changes a run that is executed by its owner, and that gets both documents.
_PROGRESS = (
    RUNS.update().where(_IS_IT, IS_RUNNING, _IS_OURS).values(has_begun=True, **_size(("content", "events")))
)
_WRITING_DOCUMENTS = DOCUMENTS.update().where(DOCUMENTS.c.number == _number())


@functools.cache
def _ending(documents: tuple[str, ...], *, is_owned: bool, is_cancelled: bool) -> sa.Update:
    """End a run that gets these documents."""
    may_end: _Condition = (_IS_OURS if is_owned else sa.false()) & (IS_RUNNING | IS_QUEUED)
    if is_cancelled:
        may_end |= IS_QUEUED
    return _TELLING.where(_IS_IT, may_end).values(_size(documents))


def _close(connection: sa.Connection, is_owned: _Condition, now: datetime) -> _Records:
    """Close what a dead server has left; release what others can execute: it has not begun, and may move."""
    left = sa.select(RUNS).where(IS_UNFINISHED, is_owned).order_by(RUNS.c.number).limit(BATCH)
    closed = []
    for row in connection.execute(left.with_for_update()).mappings().all():
        is_it = (RUNS.c.number == row["number"]) & (RUNS.c.status == row["status"])
        is_it &= RUNS.c.owner == row["owner"]
        is_queued = row["status"] == models.RunStatus.QUEUED.value
        may_move = row["is_detached"] and not row["has_env"]
        # Whether those have begun that cannot move is not noted.
        has_begun = not is_queued and (row["has_begun"] or not may_move)
        may_go_on = may_move and not has_begun
        if may_go_on and not row["is_cancel_requested"]:
            connection.execute(_RELEASING.where(is_it))
            continue
        point = "ended" if has_begun else "started"
        message = f"The server stopped before the run had {point}."
        error = models.RunError(code=models.ErrorCode.SERVER_STOPPED, message=message)
        values = {"status": models.RunStatus.FAILED.value, "error": error.to_json(), "ended": now}
        if may_go_on:
            values = {"status": models.RunStatus.CANCELLED.value, "ended": now}
        if _end(connection, _TELLING.where(is_it), values):
            record = _find(connection, RUNS.c.number == row["number"])
            closed += [] if record is None else [record]
    return closed


def _write_documents(connection: sa.Connection, run_id: str, packed: dict[str, bytes]) -> None:
    if packed:
        connection.execute(_WRITING_DOCUMENTS, {**packed, "its_id": run_id})


def _doomed(
    connection: sa.Connection,
    older_than: datetime | None,
    max_runs: int | None,
    max_bytes: int | None,
    *,
    is_locking: bool = False,
) -> list[int]:
    """Numbers of the runs that are to be forgotten next."""
    is_told = sa.func.coalesce(RUNS.c.delivery_state, "") != models.DeliveryState.PENDING.value
    query = sa.select(RUNS.c.number, RUNS.c.ended, RUNS.c.size).where(HAS_ENDED, is_told)
    query = query.order_by(RUNS.c.ended, RUNS.c.number).limit(BATCH)
    if is_locking:
        query = query.with_for_update()
    # They are locked before the rest is counted: what another server was about to forget is gone by then.
    oldest = connection.execute(query).all()
    count, size = 0, 0
    if max_runs is not None or max_bytes is not None:
        totals = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(RUNS.c.size), 0))
        count, size = connection.execute(totals.select_from(RUNS).where(HAS_ENDED)).one()
    doomed = []
    for number, ended, own_size in oldest:
        is_too_old = older_than is not None and ended < older_than
        is_too_many = max_runs is not None and count > max_runs
        is_too_much = max_bytes is not None and size > max_bytes
        if not (is_too_old or is_too_many or is_too_much):
            break
        doomed.append(number)
        count -= 1
        size -= own_size
    return doomed
