"""Files of SQLite: made private, looked at for damage, and set up to be durable."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import psutil

from jupyter_nbexec import migrations

#: Seconds to wait for somebody else's transaction, and for another server that opens the same file.
PATIENCE, OPENING_PATIENCE = 10.0, 60.0
#: Seconds that looking for damage may take.
CHECK_TIME = 2.0
#: File systems on which processes may not share memory, which a write-ahead log needs.
NETWORKS: Final = frozenset(
    {
        *("9p", "afpfs", "afs", "beegfs", "ceph", "cephfs", "cifs", "fuse.ceph", "fuse.glusterfs"),
        *("fuse.juicefs", "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs"),
        *("nfs3", "nfs4", "ocfs2", "smb2", "smb3", "smbfs", "virtiofs", "webdav"),
    }
)
#: What belongs to a file, beside itself and the lock.
SUFFIXES: Final = ("-wal", "-shm", "-journal")
LOCK: Final = ".lock"
#: What every file of SQLite that is not empty begins with.
MAGIC: Final = b"SQLite format 3\0"
#: A table that every database of ours has.
OURS: Final = migrations.VERSION_TABLE

_PREPARING = threading.Lock()
_LOG = logging.getLogger(__name__)


class NotOurs(OSError):
    """What has the name of a file of ours is something else, and is left as it is."""


def check(file: Path) -> None:
    """Raise NotOurs for what was not made here. Nothing is changed by this."""
    lock = Path(f"{file}{LOCK}")
    for path in (file, lock, *(Path(f"{file}{suffix}") for suffix in SUFFIXES)):
        if os.path.lexists(path) and not path.is_file():
            raise NotOurs(f"{path} is not a regular file, and is left as it is")
    if lock.exists():
        # A lock of ours holds nothing. A file beside one is ours, even if it is too damaged to tell.
        if lock.stat().st_size:
            raise NotOurs(f"{lock} is a file of something else, and is left as it is")
        return
    if file.exists() and file.stat().st_size and not _has_our_table(file):
        raise NotOurs(f"{file} is a file of something else, and is left as it is")


def _has_our_table(file: Path) -> bool:
    with file.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            return False
    # Unless somebody has not written back what is beside it, nothing is made there.
    how = "mode=ro" if Path(f"{file}-wal").exists() else "mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True)) as connection:
            query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
            return bool(connection.execute(query, (OURS,)).fetchone()[0])
    except sqlite3.DatabaseError:
        return False


def prepare(file: Path) -> None:
    """Make a file fit for use. A damaged one is moved aside, and a new one begun."""
    if file.exists() and (damage := find_damage(file)):
        aside = _set_aside(file)
        _LOG.error("%s is damaged (%s). It was moved to %s, and a new one is begun.", file, damage, aside)
    _make(file)
    with contextlib.closing(_connect(file, PATIENCE)) as connection:
        if connection.execute("PRAGMA page_count").fetchone()[0] == 0:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        if not _has_wal(connection, file):
            _LOG.warning("%s: no write-ahead log can be had here; writing takes longer", file)
            connection.execute("PRAGMA journal_mode = DELETE")


@contextlib.contextmanager
def held(file: Path) -> Iterator[None]:
    """Keep others from preparing a file meanwhile, with a lock that ends when this process does.

    Raises NotOurs.
    """
    if not _PREPARING.acquire(timeout=OPENING_PATIENCE):
        raise TimeoutError("another thread has been opening a file for too long")
    try:
        check(file)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = Path(f"{file}{LOCK}")
        _make(lock)
        with contextlib.closing(_connect(lock, OPENING_PATIENCE)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield
    finally:
        _PREPARING.release()


def identify(file: Path) -> tuple[int, int] | None:
    """Tell a file from another of the same name; None if there is none."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def find_damage(file: Path) -> str | None:
    """Tell what is wrong with a file, as far as a look of at most CHECK_TIME shows; None if nothing is."""
    deadline = time.monotonic() + CHECK_TIME
    with contextlib.closing(_connect(file, PATIENCE)) as connection:
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
        try:
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        except sqlite3.DatabaseError as error:
            # Errors have codes since Python 3.11 only.
            message = str(error)
            if "malformed" in message or "not a database" in message:
                return message
            if message == "interrupted":
                return None
            raise
    return None if found == "ok" else " ".join(found.split())


def _make(file: Path) -> None:
    """See to it that a file is there, and private."""
    # One that is there is not opened: to close it would end the locks that SQLite holds in this process.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    if os.name == "posix" and file.stat().st_uid == os.geteuid():
        file.chmod(0o600)


def _connect(file: Path, patience: float) -> sqlite3.Connection:
    return sqlite3.connect(file, timeout=patience, isolation_level=None)


def _has_wal(connection: sqlite3.Connection, file: Path) -> bool:
    """Set up a write-ahead log, so that readers and a writer need not wait for each other."""
    if is_on_network(file):
        return False
    try:
        if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            return False
        connection.execute("SELECT count(*) FROM sqlite_master")  # shows whether memory can be shared
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise
        return False
    return True


def is_on_network(file: Path) -> bool:
    """Whether a file is on a file system that is known to be another machine's."""
    place = file.resolve()
    above = {str(folder) for folder in place.parents}
    try:
        partitions = psutil.disk_partitions(all=True)
    except (OSError, RuntimeError):
        return False
    mounts = [(len(mount.mountpoint), mount.fstype) for mount in partitions if mount.mountpoint in above]
    # The last of several mounts on one folder is the one that is seen.
    nearest = max(reversed(mounts), key=lambda mount: mount[0], default=(0, ""))
    return nearest[1].lower() in NETWORKS


def _set_aside(file: Path) -> Path:
    """Move a file, and what belongs to it, out of the way."""
    now = datetime.now(tz=timezone.utc)
    aside = file.with_name(f"{file.name}.damaged-{now:%Y%m%dT%H%M%S.%fZ}")
    for suffix in (*SUFFIXES, ""):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{file}{suffix}").rename(f"{aside}{suffix}")
    return aside
