"""Commands on a terminal that a test can read."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import threading
import time


def on_a_terminal(
    arguments: list[str],
    *,
    interrupt: threading.Event | None = None,
    interrupt_at: bytes | None = None,
    stderr: int | None = None,
) -> tuple[int, bytes]:
    """Run a command on a pseudo-terminal; return its exit status and what the terminal got.

    With `interrupt`, send Ctrl-C when the terminal gets something after that event; with `interrupt_at`,
    when it has got this text.
    """
    parent, child = pty.openpty()
    process = subprocess.Popen(
        arguments, stdin=child, stdout=child, stderr=stderr or child, start_new_session=True
    )
    os.close(child)
    shown = b""
    deadline = time.monotonic() + 60
    try:
        while select.select([parent], [], [], max(0, deadline - time.monotonic()))[0]:
            try:
                chunk = os.read(parent, 65536)
            except OSError:  # Linux says so when the last process has closed the terminal
                break
            if not chunk:
                break
            shown += chunk
            if (interrupt and interrupt.is_set()) or (interrupt_at and interrupt_at in shown):
                process.send_signal(signal.SIGINT)
                interrupt = interrupt_at = None
        return process.wait(max(0.1, deadline - time.monotonic())), shown
    finally:
        process.kill()
        process.wait()
        os.close(parent)
