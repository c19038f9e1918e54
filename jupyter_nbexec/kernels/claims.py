"""Whose the files of kernels are: what a server that was killed has left behind, the next one removes.

A server holds a lock on a file in the folder of connection files, whose name has the server's tag. The ids of
the kernels that it starts, and thus the names of their files, begin with that tag. A lock ends with whoever
holds it, however that comes about: so a tag whose file can be locked is nobody's any more. Some network file
systems let each machine lock for itself: so the file tells the machine, and others leave it alone.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

LOCK = re.compile(r"nbexec-([0-9a-f]{12})\.lock")


def folder_of(tag: str) -> Path:
    """Where a server has what needs a short name."""
    return Path(tempfile.gettempdir(), f"nbexec-{tag}")


def _beginning(tag: str) -> str:
    """What the ids of a server's kernels begin with."""
    return f"{tag[:8]}-{tag[8:]}"


class Claim:
    """A server's tag, and the lock that says that it lives."""

    def __init__(self, folder: str) -> None:
        """`folder`: of connection files."""
        self.tag = os.urandom(6).hex()
        self._folder = folder
        self._path = os.path.join(folder, f"nbexec-{self.tag}.lock")  # noqa: PTH118
        self._descriptor: int | None = None

    def kernel_id(self) -> str:
        """Make the id of a kernel, a random UUID but for its beginning."""
        if self._descriptor is None:
            with suppress(OSError):  # without it, files of a server that was killed stay
                self._take()
        beginning = _beginning(self.tag)
        return beginning + str(uuid.uuid4())[len(beginning) :]

    def release(self) -> None:
        """Let go of it: no kernel is left. At the end of a process that has not done so, the file stays."""
        if self._descriptor is not None:
            _remove(self._path, self._descriptor)
        self._descriptor = None

    def _take(self) -> None:
        if not self._folder or sys.platform == "win32":
            return
        # Nobody may find it before it is locked.
        hidden = f"{self._path}.new"
        descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(descriptor, machine())
            os.rename(hidden, self._path)  # noqa: PTH104
        except OSError:
            _remove(hidden, descriptor)
            raise
        self._descriptor = descriptor


def machine() -> bytes:
    """Tell this machine from others, and where possible from itself before it was last started."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return platform.node().encode()


def _remove(path: str, descriptor: int) -> None:
    with suppress(OSError):
        os.unlink(path)  # noqa: PTH108
    os.close(descriptor)


def remove_left_behind(folder: str) -> int:
    """Remove the files of kernels whose servers have ended; how many servers that were."""
    number = 0
    if not folder or sys.platform == "win32":
        return number
    with suppress(OSError):
        for path in list(Path(folder).iterdir()):
            found = LOCK.fullmatch(path.name)
            if found is not None and _remove_if_ended(path, found[1]):
                number += 1
    return number


def _remove_if_ended(lock: Path, tag: str) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = os.read(descriptor, 1024) == machine()
    except OSError:  # it is held, or that cannot be told
        is_ours = False
    if not is_ours:
        os.close(descriptor)
        return False
    # Never a folder: somebody else's files may be in it.
    for path in lock.parent.glob(f"kernel-{_beginning(tag)}-*"):
        with suppress(OSError):
            path.unlink()
    short = folder_of(tag)
    with suppress(OSError):
        if short.lstat().st_uid == os.getuid():
            shutil.rmtree(short, ignore_errors=True)
    _remove(str(lock), descriptor)
    return True
