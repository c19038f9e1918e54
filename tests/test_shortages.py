"""What is said when the server runs out of something."""

from __future__ import annotations

import errno
import os

import pytest
import zmq

from jupyter_nbexec import errors


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


def test_circle() -> None:
    """Errors that came of each other do not hold up who asks."""
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert errors.shortage(first) is None
