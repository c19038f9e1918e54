"""What processes cost, as the operating system counts it: processor time and memory (Linux)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
#: A tree that uses at most this share of a processor, for so many seconds, counts as quiet: kernels that wait
#: look after their parents. After so many seconds it is waited for no longer.
STILL_SHARE, STILL, PATIENCE = 0.2, 0.3, 20.0


@dataclass(frozen=True, kw_only=True)
class Stat:
    """A process, with the seconds that it, and the children that it has waited for, have used."""

    pid: int
    parent: int
    seconds: float


def parse_stat(text: str) -> Stat:
    """Read what /proc/<pid>/stat says; the name in it, in parentheses, may hold anything."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    # utime, stime, cutime, cstime: the fields 14 to 17 of proc(5), of which the tail begins with the third.
    ticks = sum(int(field) for field in fields[11:15])
    return Stat(pid=int(head.partition(" ")[0]), parent=int(fields[1]), seconds=ticks / TICKS)


def look() -> dict[int, Stat]:
    """Every process that there is, zombies included."""
    found = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                stat = parse_stat((entry / "stat").read_text(encoding="utf-8", errors="replace"))
                found[stat.pid] = stat
    return found


def below(root: int, processes: dict[int, Stat]) -> list[Stat]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for each in processes.values():
        children.setdefault(each.parent, []).append(each.pid)
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found += [processes[pid]] if pid in processes else []
        waiting += children.get(pid, [])
    return found


def tree(root: int) -> set[int]:
    """Ids of a process and all that descend from it."""
    return {each.pid for each in below(root, look())}


def cpu_seconds(root: int) -> float:
    """Seconds of processor time that a tree has used, those of processes that have ended included.

    Who has ended is in the figure of the process that has waited for it, and so on upwards: no second is
    counted twice, and none is lost as long as everybody waits for their children, as all do here.
    """
    return sum(each.seconds for each in below(root, look()))


def until_quiet(cpu: Callable[[], float]) -> float:
    """Wait until processes do next to nothing; the seconds of processor time that they have used then."""
    deadline = time.monotonic() + PATIENCE
    now = cpu()
    while time.monotonic() < deadline:
        before = now
        time.sleep(STILL)
        now = cpu()
        if now - before <= STILL * STILL_SHARE:
            break
    return now


def pss(pid: int) -> float:
    """MB of memory that a process occupies, with its share of what it shares; 0 if it has ended."""
    with suppress(OSError):
        for line in (PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def total_pss(pids: Iterable[int]) -> float:
    """MB of memory that processes occupy together."""
    return sum(pss(pid) for pid in pids)
