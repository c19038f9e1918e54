"""Nothing outlives the shim, however its end comes about."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from jupyter_nbexec.kernels import provisioner

pytestmark = pytest.mark.skipif(not provisioner.is_supported(), reason="the shim is for Linux")

PREFIX = [sys.executable, "-I", "-S", str(provisioner.SHIM)]
Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python code below a shim, as a kernel would be."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*PREFIX, str(os.getpid()), "3", sys.executable, "-c", textwrap.dedent(code)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=10)


def wait_until_gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process that is no child of ours ends within the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.01)
    return False


def read_pid(process: subprocess.Popen[str]) -> int:
    """The process id that the code prints first."""
    assert process.stdout is not None
    return int(process.stdout.readline())


#: Children that ordinary ways of cleaning up miss.
CHILDREN = {
    "same group": "subprocess.Popen(['sleep', '300'])",
    "own session": "subprocess.Popen(['sleep', '300'], start_new_session=True)",
    "no environment": "subprocess.Popen(['/bin/sleep', '300'], start_new_session=True, env={})",
    "double fork": "subprocess.Popen(['sh', '-c', 'setsid sleep 300 & echo $!'], stdout=subprocess.PIPE)",
}


@pytest.mark.parametrize(("code", "expected"), [("7", 7), ("0", 0)])
def test_exit_code(start: Start, code: str, expected: int) -> None:
    """The shim exits as its kernel does."""
    assert start(f"raise SystemExit({code})").wait(timeout=20) == expected


@pytest.mark.parametrize("signum", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_exit_signal(start: Start, signum: signal.Signals) -> None:
    """The shim ends by the signal that ended its kernel."""
    assert start(f"import os; os.kill(os.getpid(), {int(signum)})").wait(timeout=20) == -signum


def test_missing_program() -> None:
    """A program that is not there is exit code 127, as in a shell."""
    command = [*PREFIX, str(os.getpid()), "0", "/no/such/kernel"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    assert done.returncode == 127
    assert "/no/such/kernel" in done.stderr


@pytest.mark.parametrize("child", CHILDREN.values(), ids=CHILDREN.keys())
@pytest.mark.parametrize("end", ["exit", "crash", "terminate"])
def test_no_child_is_left(start: Start, child: str, end: str) -> None:
    """Children of every kind are gone when the kernel has ended, however that came about."""
    endings = {"exit": "", "crash": "os.kill(os.getpid(), 9)", "terminate": "time.sleep(300)"}
    process = start(
        f"""
        import os, subprocess, sys, time
        child = {child}
        pid = child.stdout.readline().decode().strip() if child.stdout else child.pid
        print(pid, flush=True)
        sys.stdin.close()
        {endings[end]}
        """
    )
    pid = read_pid(process)
    if end == "terminate":
        process.terminate()
    process.wait(timeout=20)

    assert wait_until_gone(pid)


#: Makes a block of shared memory and a folder whose names end with our process id, with nobody to remove them
#: but resource trackers, and a worker that has the trackers' pipes.
BELONGINGS = """
import os, pathlib, subprocess, sys, time
from multiprocessing import resource_tracker, shared_memory
from joblib.externals.loky.backend import resource_tracker as loky
memory = shared_memory.SharedMemory(create=True, size=1000, name=f"nbexec_test_{os.getpid()}")
folder = pathlib.Path(f"/dev/shm/nbexec_folder_{os.getpid()}")
folder.mkdir()
(folder / "a").write_text("a")
loky.register(str(folder), "folder")
pipes = [tracker._resource_tracker._fd for tracker in (resource_tracker, loky)]
worker = subprocess.Popen(["sleep", "300"], pass_fds=pipes, start_new_session=True)
print(os.getpid(), flush=True)
"""
ENDS = {"exit": "", "crash": "os.kill(os.getpid(), 9)", "terminate": "time.sleep(300)"}


@pytest.mark.parametrize("end", ENDS)
def test_shared_memory_is_gone(start: Start, end: str) -> None:
    """Resource trackers may tidy up after the kernel, however it has ended, but nobody lives on for that."""
    process = start(BELONGINGS + ENDS[end])
    pid = read_pid(process)
    if end == "terminate":
        process.terminate()
    process.wait(timeout=20)

    assert not Path(f"/dev/shm/nbexec_test_{pid}").exists()
    assert not Path(f"/dev/shm/nbexec_folder_{pid}").exists()


def test_tracker_that_does_not_end(start: Start) -> None:
    """A process that passes for a resource tracker is ended all the same, in time."""
    process = start(
        """
        import subprocess, sys
        code = "import time; time.sleep(300)  # resource_tracker import main"
        child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        print(child.pid, flush=True)
        child.wait()
        """
    )
    pid = read_pid(process)
    process.terminate()
    process.wait(timeout=20)

    assert wait_until_gone(pid)


def test_kernel_that_holds_the_gil(start: Start) -> None:
    """A kernel in C code that holds the interpreter's lock ends with the shim."""
    process = start("import ctypes, os; print(os.getpid(), flush=True); ctypes.PyDLL(None).sleep(300)")
    pid = read_pid(process)
    process.terminate()

    assert process.wait(timeout=20) == -signal.SIGKILL
    assert wait_until_gone(pid)


def test_kernel_dies_with_a_killed_shim(start: Start) -> None:
    """A shim that is killed takes its kernel along."""
    process = start("import os, time; print(os.getpid(), flush=True); time.sleep(300)")
    pid = read_pid(process)
    process.kill()

    assert wait_until_gone(pid)


def test_all_die_with_the_server(tmp_path: Path) -> None:
    """When the server is killed, the kernel and a child in a session of its own are gone at once."""
    kernel = (
        "import os, subprocess, time, pathlib;"
        "child = subprocess.Popen(['sleep', '300'], start_new_session=True);"
        f"pathlib.Path({str(tmp_path)!r}, 'pids').write_text(f'{{os.getpid()}} {{child.pid}}\\n');"
        "print('up', flush=True); time.sleep(300)"
    )
    server = (
        "import os, subprocess, sys, time;"
        f"subprocess.Popen([*{PREFIX!r}, str(os.getpid()), '0', sys.executable, '-c', {kernel!r}]);"
        "time.sleep(300)"
    )
    process = subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.kill()
    process.communicate(timeout=20)

    assert all(wait_until_gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_fork_bomb(start: Start) -> None:
    """Processes that keep starting others are caught."""
    process = start(
        """
        import os, sys, time
        print(os.getpid(), flush=True)
        deadline = time.monotonic() + 300
        for _ in range(3):
            os.fork()
        while time.monotonic() < deadline:
            if os.fork():
                time.sleep(0.01)
                os._exit(0)
        """
    )
    read_pid(process)
    shim = psutil.Process(process.pid)
    process.terminate()
    process.wait(timeout=20)

    assert not shim.is_running()
    own_session = [p for p in psutil.process_iter() if p.pid != process.pid and _session(p) == process.pid]
    assert own_session == []


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None


def test_interrupt_reaches_the_kernel_alone(start: Start) -> None:
    """An interrupt of the shim's group is the kernel's to handle; the shim stays."""
    process = start(
        """
        import time
        try:
            print("up", flush=True)
            time.sleep(300)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        raise SystemExit(5)
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    os.killpg(process.pid, signal.SIGINT)

    assert process.stdout.readline() == "interrupted\n"
    assert process.wait(timeout=20) == 5


def test_stopped_group(start: Start) -> None:
    """A group that stopped itself, the shim included, can be ended all the same."""
    process = start("import os, signal; print(os.getpid(), flush=True); os.killpg(0, signal.SIGSTOP)")
    pid = read_pid(process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    process.wait(timeout=20)

    assert wait_until_gone(pid)


def test_niceness(start: Start) -> None:
    """The kernel gives way to the server; the shim, which has to end it, does not."""
    process = start("import os; print(os.getpid(), os.nice(0), flush=True); import time; time.sleep(60)")
    assert process.stdout is not None
    _, niceness = process.stdout.readline().split()

    assert int(niceness) == os.nice(0) + 3
    assert psutil.Process(process.pid).nice() == os.nice(0)
