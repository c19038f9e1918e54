"""Names of the files through which the server talks to kernels."""

from __future__ import annotations

import itertools
import os
import shutil
import weakref
from pathlib import Path

#: Bytes that what such a name begins with may have. Linux allows 107, and a dash and a number follow.
MAX_PREFIX = 97


def _fits(prefix: str) -> bool:
    return len(os.fsencode(prefix)) <= MAX_PREFIX


class SocketNames:
    """Names them after their kernel's connection file; if that is too long, in a short folder of its own."""

    def __init__(self, short_folder: Path) -> None:
        """`short_folder` is made when it is needed."""
        self._short_folder = short_folder
        self._numbers = itertools.count()
        self._folder: Path | None = None
        self._removal: weakref.finalize[[str, bool], SocketNames] | None = None

    def prefix(self, connection_file: str) -> str | None:
        """What the names of a kernel's sockets begin with; None if none is short enough."""
        # As jupyter_client names them.
        beside = os.path.abspath(os.path.splitext(connection_file)[0]) + "-ipc"  # noqa: PTH100, PTH122
        if _fits(beside):
            return beside
        try:
            short = str(self._own_folder() / str(next(self._numbers)))
        except OSError:
            return None
        return short if _fits(short) else None

    def remove(self) -> None:
        """Remove the folder; its kernels have ended. Else it goes at the end of the process."""
        if self._removal is not None:
            self._removal()
        self._folder = None

    def _own_folder(self) -> Path:
        """A folder that only this user can open; a new one if a system that tidies up has removed it."""
        if self._folder is None or not self._folder.is_dir():
            self.remove()
            self._short_folder.mkdir(0o700)
            self._folder = self._short_folder
            # A TemporaryDirectory would warn at the end of a server that could not remove it itself.
            self._removal = weakref.finalize(self, shutil.rmtree, str(self._folder), True)  # noqa: FBT003
        return self._folder
