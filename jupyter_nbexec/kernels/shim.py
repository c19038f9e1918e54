"""Run one command so that nothing it starts outlives it (Linux; a script).

    python -I -S shim.py SERVER_PID NICENESS COMMAND [ARG...]

`zygote.py` loads it too, to guard a function in place of a command.

The shim is a *subreaper*: whatever its kernel starts, in whatever session or process group, with
whatever environment, becomes the shim's child when its own parent ends. So it can find all of them.

* The kernel ends: everything left below the shim is killed, and the shim ends as the kernel did
  (same exit code, or the same signal). Resource trackers, of multiprocessing and its like, may first
  remove the shared memory, semaphores and folders that their processes have left behind.
* SIGTERM, or the server dies (PR_SET_PDEATHSIG): the kernel and everything below are killed.
* The shim is killed: the kernel is killed with it (PR_SET_PDEATHSIG again).
* Other signals, an interrupt above all, are passed on to the kernel's process group.
* The kernel gives way to whatever runs at a smaller niceness, the server above all.

Only the standard library, and little of it: this is in the way of every kernel start.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
#: Signals whose default the kernel must find again; Python itself ignores SIGPIPE and SIGXFSZ.
RESET = (signal.SIGPIPE, signal.SIGXFSZ)
FORWARDED = {signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
HANDLED = {signal.SIGCHLD, signal.SIGTERM, *FORWARDED}
#: Seconds after which descendants that cannot be killed (setuid programs) are given up.
PATIENCE = 5.0
#: Seconds that resource trackers may take to tidy up: after a kernel that has ended by itself, on a machine
#: that may be busy, and else, since nothing lasts longer than 3 s after the server's end.
TIDYING, HASTE = 4.0, 1.5
#: What their command lines hold: multiprocessing's, and that of loky, which is joblib's.
TRACKER = b"resource_tracker import main"

prctl = ctypes.CDLL(None, use_errno=True).prctl


def die_with_parent(signum: int, parent: int) -> None:
    """Have the operating system send us `signum` when our parent ends; end now if it has."""
    prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def give_way(niceness: int) -> None:
    """Be nice: towards this session, and, where sessions share the processors evenly, as a session."""
    os.nice(niceness)
    with suppress(OSError), open("/proc/self/autogroup", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(str(niceness))


def start(become: Callable[[], None], niceness: int) -> int:
    """Fork, and let the child become the kernel in a process group of its own; its process id.

    Only a whole group can be killed in one step, which nobody who keeps forking escapes; so the shim
    must not be in it.
    """
    shim = os.getpid()
    pid = os.fork()
    if pid:
        # Whoever of the two is first: a signal may come at once.
        with suppress(OSError):
            os.setpgid(pid, pid)
        return pid
    try:
        os.setpgid(0, 0)
        die_with_parent(signal.SIGKILL, shim)
        if niceness:
            give_way(niceness)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        # ipykernel watches this process and ends with it.
        os.environ["JPY_PARENT_PID"] = str(shim)
        become()
    finally:
        os._exit(127)


def execute(command: list[str]) -> None:
    """Become a program."""
    for signum in RESET:
        signal.signal(signum, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the argument vector of a kernelspec, no shell
    except OSError as error:
        os.write(2, f"jupyter_nbexec: cannot start {command[0]}: {error}\n".encode())


def descendants() -> dict[int, int]:
    """Every process below this one, with its process group, by one reading of /proc."""
    children: dict[int, list[int]] = {}
    groups: dict[int, int] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - pathlib costs the start 10 ms
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123
                # The name, in parentheses, may itself hold spaces and parentheses.
                _, parent, group = file.read().rpartition(b")")[2].split()[:3]
        except OSError:
            continue  # it has just ended
        children.setdefault(int(parent), []).append(int(entry))
        groups[int(entry)] = int(group)
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return {pid: groups[pid] for pid in found}


def kill(below: dict[int, int]) -> None:
    """Kill processes, given with their groups: whole groups where we are not in them ourselves."""
    own = os.getpgrp()
    for target in {pid if group == own else -group for pid, group in below.items()}:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(target, signal.SIGKILL)


def reap(kernel: int) -> tuple[bool, int | None]:
    """Collect children that have ended: (some are left, the kernel's wait status if it was among them)."""
    status = None
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False, status
        if pid == 0:
            return True, status
        if pid == kernel:
            status = ended


def forward(kernel: int, signum: int) -> None:
    """Pass a signal on to the kernel's group."""
    with suppress(ProcessLookupError):
        os.killpg(kernel, signum)


def is_tracker(pid: int) -> bool:
    """Whether a process is a resource tracker."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
            return TRACKER in file.read()
    except OSError:
        return False


def let_trackers_end(kernel: int, patience: float) -> tuple[bool, int | None]:
    """Kill all but resource trackers, which end when all others have: they tidy up then; as `reap` says.

    They are in their kernel's group, so that this kills one by one. `kill_all` is for what escapes.
    """
    deadline = time.monotonic() + patience
    left, status = True, None
    while left and time.monotonic() < deadline:
        if signal.SIGTERM in signal.sigpending():
            deadline = min(deadline, time.monotonic() + HASTE)
        below = descendants()
        trackers = set(filter(is_tracker, below))
        if not trackers:
            break
        for pid in below.keys() - trackers:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        left, ended = reap(kernel)
        status = status if ended is None else ended
        if left:
            time.sleep(0.005)
    return left, status


def kill_all(kernel: int) -> tuple[bool, int | None]:
    """Kill everything below, also what is started meanwhile; as `reap` says."""
    deadline = time.monotonic() + PATIENCE
    left, status = True, None
    forward(kernel, signal.SIGKILL)
    while left and time.monotonic() < deadline:
        kill(descendants())
        left, ended = reap(kernel)
        status = status if ended is None else ended
        if left:
            time.sleep(0.002)
    return left, status


def end_like(status: int) -> None:
    """End as the kernel did: the same exit code, or by the same signal, without a core of our own."""
    if os.WIFSIGNALED(status):
        import resource

        signum = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if signum not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signum})
        os.kill(os.getpid(), signum)
    os._exit(os.WEXITSTATUS(status))


def guard(server: int, niceness: int, become: Callable[[], None]) -> None:
    """Start the kernel, wait for its end or for ours, leave nothing behind."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    die_with_parent(signal.SIGTERM, server)
    kernel = start(become, niceness)
    # What the kernel has been handed is its own.
    os.closerange(3, 256)
    left, status = True, None
    while status is None:
        signum = signal.sigwait(HANDLED)
        if signum == signal.SIGTERM:
            break
        if signum in FORWARDED:
            forward(kernel, signum)
        left, status = reap(kernel)
    # The kernel's status may come from any of these.
    if left:
        left, ended = let_trackers_end(kernel, HASTE if status is None else TIDYING)
        status = ended if status is None else status
    if left:
        _, ended = kill_all(kernel)
        status = ended if status is None else status
    end_like(signal.SIGKILL if status is None else status)


def main(server: int, niceness: int, command: list[str]) -> None:
    """Run a command below this process."""

    def become() -> None:
        execute(command)

    guard(server, niceness, become)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
