"""What is said when the server runs out of something."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
import zmq

from jupyter_nbexec import errors, execute
from jupyter_nbexec.kernels import connection, opened


def chained(error: Exception, *causes: Exception) -> Exception:
    """Let an error come of others."""
    for above, below in zip((error, *causes), causes, strict=False):
        above.__cause__ = below
    return error


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "file descriptors"),
        (zmq.ZMQError(errno.EMFILE), "file descriptors"),
        (chained(ValueError("x"), KeyError("y"), OSError(errno.ENOSPC, "full", "/secret")), "disk space"),
        (OSError(errno.ENOMEM, "fork"), "memory"),
        (MemoryError(), "memory"),
        (BlockingIOError(errno.EAGAIN, "fork"), "processes"),
        (RuntimeError("can't start new thread"), "threads"),
        (zmq.Again(), None),
        (FileNotFoundError(errno.ENOENT, "no"), None),
        (RuntimeError("x"), None),
        (None, None),
    ],
)
def test_what_is_short(error: Exception | None, what: str | None) -> None:
    """What has run out is told wherever in a chain of errors it is said; nothing else is."""
    assert errors.shortage(error) == what


@pytest.mark.anyio
async def test_time_out_for_want_of_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that cannot be reached since there is no descriptor for a socket is not told as a slow one."""
    closed: list[object] = []

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def wait(*_: object) -> dict[str, object]:
        raise TimeoutError

    monkeypatch.setattr(connection, "connect", lambda *_: None)
    monkeypatch.setattr(connection, "wait_until_ready", wait)
    monkeypatch.setattr(opened.Opened, "close", lambda each: closed.append(each))
    link: Any = None
    context: Any = None

    async def open_kernel() -> None:
        await execute.open_kernel(context, {}, link, start_timeout=1, is_owned=True)

    with pytest.raises(execute.StartTimeoutError):
        await open_kernel()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            await open_kernel()

    assert len(closed) == 2


def test_circle() -> None:
    """Errors that came of each other do not hold up who asks."""
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert errors.shortage(first) is None
