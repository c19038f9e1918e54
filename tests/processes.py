"""Processes that tests start: ended in time, or asked what they are doing."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from pathlib import Path

import psutil

#: Seconds that a process may take to end, and to say where it stands.
DEADLINE, STATEMENT = 60.0, 10.0


def end(process: subprocess.Popen[bytes], log: Path, *, deadline: float = DEADLINE) -> None:
    """Ask a process to end, and wait for it. One that does not is killed, and the test fails with its log."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(deadline)
    except subprocess.TimeoutExpired:
        state = _state(process.pid)
        process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STATEMENT)
        process.kill()
        process.wait()
        said = log.read_text("utf-8", "replace")[-20_000:]
        raise AssertionError(f"it did not end in {deadline:g} s; {state}; its log:\n{said}") from None


def _state(pid: int) -> str:
    """Tell what the operating system knows of it."""
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        below = [(child.name(), child.status()) for child in process.children(recursive=True)]
        waits = [(task / "wchan").read_text() for task in sorted(Path(f"/proc/{pid}/task").iterdir())]
        return f"{process.status()}, threads wait in {waits}, below it {below}"
    return "nothing is known of it"
