"""Whether a database server answers at all: a thread that gives those back who wait for one that does not.

A server that is frozen, or behind a network that swallows packets, says nothing: no statement of it runs into
its own time limit, and what was sent is still acknowledged by its machine. So what takes long is reason to
knock. If nobody opens, all who wait are woken by an end of their connections, and nobody waits any more until
somebody opens again.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

#: Seconds after which it is asked whether the server answers, that it may take for this, and between attempts
#: while it does not.
SLOW, KNOCK, AGAIN = 3.0, 4.0, 1.0


class Silence(Exception):
    """The server does not answer."""

    def __init__(self) -> None:
        super().__init__("the server does not answer")


@dataclass(eq=False)
class _Operation:
    """What one thread does."""

    longest: float
    began: float = field(default_factory=time.monotonic)
    #: The connection that it uses, so that no other one is meant once that is closed.
    line: socket.socket | None = None

    def cut(self) -> None:
        if self.line is not None:
            with contextlib.suppress(OSError):
                self.line.shutdown(socket.SHUT_RDWR)

    def let_go(self) -> None:
        if self.line is not None:
            self.line.close()
            self.line = None


class Watchdog:
    """Watches the operations on one server. Threads call it."""

    def __init__(self, knock: Callable[[float], None]) -> None:
        """`knock` connects within so many seconds, or raises."""
        self._knock = knock
        self._changed = threading.Condition()
        self._operations: set[_Operation] = set()
        self._own = threading.local()
        self._is_silent = self._is_suspected = False
        #: When the server is asked next, if anybody waits for it.
        self._asks_at = 0.0
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="jupyter_nbexec-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; nobody waits for one that knocks."""
        with self._changed:
            self._is_over = True
            self._changed.notify()

    def check(self) -> None:
        """Raise Silence as long as the server does not answer."""
        if self._is_silent:
            raise Silence

    @contextlib.contextmanager
    def watched(self, longest: float) -> Iterator[None]:
        """Do something with the server, for `longest` seconds at most. Raises Silence."""
        self.check()
        operation = _Operation(longest)
        with self._changed:
            self._operations.add(operation)
        self._own.operation = operation
        try:
            yield
        except Exception as error:
            if self._is_silent:
                raise Silence from error
            if time.monotonic() - operation.began >= SLOW:
                with self._changed:
                    self._is_suspected = True
                    self._changed.notify()
            raise
        finally:
            self._own.operation = None
            with self._changed:
                self._operations.discard(operation)
                operation.let_go()

    def attach(self, connection: Any) -> None:
        """Note which connection the operation of this thread uses, if it has one."""
        operation: _Operation | None = getattr(self._own, "operation", None)
        if operation is not None:
            line = socket.socket(fileno=os.dup(connection.fileno()))
            with self._changed:
                operation.let_go()
                operation.line = line

    def _work(self) -> None:
        while self._wait():
            began = time.monotonic()
            try:
                self._knock(KNOCK)
            except Exception:
                # Who refuses at once has answered; what that means, operations find out themselves.
                is_silent = time.monotonic() - began > KNOCK / 2
            else:
                is_silent = False
            with self._changed:
                self._is_silent, self._is_suspected = is_silent, False
                self._asks_at = time.monotonic() + (AGAIN if is_silent else SLOW)
                for operation in self._operations:
                    if is_silent or time.monotonic() - operation.began > operation.longest:
                        operation.cut()

    def _wait(self) -> bool:
        """Wait until it is time to knock. False: this is over."""
        with self._changed:
            while not self._is_over:
                oldest = min((each.began for each in self._operations), default=float("inf"))
                due = max(self._asks_at, float("-inf") if self._is_silent else oldest + SLOW)
                due = 0.0 if self._is_suspected else due
                left = due - time.monotonic()
                if left <= 0:
                    return True
                # What begins meanwhile is not slow before that.
                self._changed.wait(min(left, SLOW))
        return False
