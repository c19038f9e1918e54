"""What runs inside an IPython kernel that a run owns, from its first moment to its last.

`result.opening` sends this file's source behind that of `in_kernel.py`, into the same namespace, which is
kept on the kernel object, not in the notebook's. It imports nothing of ours, and works on Python 3.8.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import threading
import time
from typing import Any, Dict  # noqa: UP035  # Python 3.8

#: Where the kernel object keeps the namespace.
PLACE = "jupyter_nbexec"
#: Seconds after which what is printed is sent: who follows a run waits for it. ipykernel's own are 0.2.
PROMPTNESS = 0.05
#: Seconds that what child processes and C code have printed may take through the pipe, and a step of it.
PATIENCE, TURN = 0.05, 0.0005
#: Seconds after which such text is sent if more may come; the kernel stops 0.1 s after it was asked to.
LAST_CALL = 0.08
#: Turns that the loop of ipykernel's thread for replies takes to send what it is given: it finds it in the
#: first, takes it in the same, and sends it in the next; and one in reserve.
TURNS = 4

Shell = Any


def begin(shell: Shell, namespace: Dict[str, Any]) -> None:  # noqa: UP006
    """Make outputs prompt, and remember what there is before the notebook makes more of it."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if hasattr(stream, "flush_interval")]
    for stream in streams:
        stream.flush_interval = PROMPTNESS
    namespace["streams"] = streams
    namespace["threads"] = set(threading.enumerate())
    namespace["tasks"] = _tasks(shell)
    namespace["files"] = _open_files()
    shell.ask_exit = lambda: _ask_exit(shell)
    shell.kernel.__dict__[PLACE] = namespace
    _drop_nothing(shell)


def _drop_nothing(shell: Shell) -> None:
    """Keep outputs until they are sent, to who is connected now.

    On a busy machine the thread that sends them may get so little of the processor that 1,000 wait for it,
    the mark beyond which ZeroMQ drops them. They are read as soon as they come, so that none wait for long.
    A connection that is made later has the mark of the time when the kernel began to listen.
    """
    outputs = shell.kernel.iopub_thread
    outputs.schedule(lambda: setattr(outputs.socket, "sndhwm", 0))


def enter(shell: Shell, folder: str, session_name: str) -> None:
    """Be as if the kernel had been started in this folder for this notebook; nothing was executed yet."""
    os.chdir(folder)
    shell.starting_dir = folder
    shell.user_ns["_dh"][:] = [folder]
    os.environ["JPY_SESSION_NAME"] = session_name
    if session_name:
        shell.user_ns["__session__"] = session_name


def receive(shell: Shell, name: str, key: str) -> None:
    """Have what comes under a key of an execute request's metadata in a variable when its cell begins.

    Whoever asks for this has connected anew.
    Were it in the cell's source, IPython would keep each of them for ever, for tracebacks.
    """

    def hand_over(_: Any) -> None:
        metadata = shell.kernel.get_parent().get("metadata") or {}
        if key in metadata:
            shell.user_ns[name] = metadata[key]

    shell.events.register("pre_run_cell", hand_over)
    _drop_nothing(shell)


def check(digests: Dict[str, str]) -> None:  # noqa: UP006
    """Raise unless these environment variables have values with these digests."""
    for name, digest in digests.items():
        if hashlib.sha256(os.environ[name].encode()).hexdigest() != digest:
            raise ValueError(name)


def leave(shell: Shell) -> str:
    """End the kernel soon, as `exit()` does; tell whether all that the notebook puts out is on its way."""
    known = shell.kernel.__dict__[PLACE]
    try:
        is_settled = _is_settled(shell, known)
    except Exception:  # what cannot be looked at may have more to say
        is_settled = False
    if not is_settled:
        for stream in known["streams"]:
            shell.kernel.io_loop.call_later(LAST_CALL, stream.flush)
    shell.kernel.io_loop.add_callback(_exit_when_all_is_sent, shell)
    return "settled" if is_settled else "leaving"


def _ask_exit(shell: Shell) -> None:
    """End the kernel because the notebook says `exit()`: as IPython does, but not too soon."""
    if not shell.keepkernel_on_exit:
        shell.kernel.io_loop.add_callback(_exit_when_all_is_sent, shell)
    payload = {"source": "ask_exit", "keepkernel": shell.keepkernel_on_exit}
    shell.payload_manager.write_payload(payload)


def _exit_when_all_is_sent(shell: Shell) -> None:
    """End the kernel, once the threads that send for it have sent all that they have been given.

    The kernel stops a fixed time after it is told to, sent or not. On a busy machine that is too soon for the
    last reply and the end of the last cell, which is why this is called when those have been handed over.
    """
    loop = shell.kernel.io_loop

    def wait_for_outputs() -> None:
        shell.kernel.iopub_thread.schedule(lambda: loop.add_callback(_exit, shell))

    replies = getattr(shell.kernel, "shell_channel_thread", None)  # ipykernel 7
    if replies is None:
        wait_for_outputs()
    else:
        _call_after_turns(replies.io_loop, TURNS, lambda: loop.add_callback(wait_for_outputs))


def _call_after_turns(loop: Any, turns: int, function: Any) -> None:
    """Call a function when another thread's loop has gone round so often."""
    if turns:
        loop.add_callback(_call_after_turns, loop, turns - 1, function)
    else:
        function()


def _exit(shell: Shell) -> None:
    shell.exit_now = True


def _is_settled(shell: Shell, known: Dict[str, Any]) -> bool:  # noqa: UP006
    """Whether nothing is left that could print, and what has been printed has been read."""
    if not set(threading.enumerate()) <= known["threads"] or not _tasks(shell) <= known["tasks"]:
        return False
    # What has been written to a file may be in a buffer that is flushed when the kernel ends.
    if not _open_files() <= known["files"]:
        return False
    return not _has_children() and _have_been_read(known["streams"])


def _has_children() -> bool:
    """Whether any process that the notebook has started is left; a resource tracker has nothing to say."""
    own, trackers = "/proc/self/task", _trackers()
    while True:
        try:
            for thread in os.listdir(own):  # noqa: PTH208
                with open(f"{own}/{thread}/children", encoding="ascii") as file:  # noqa: PTH123
                    if not set(file.read().split()) <= trackers:
                        return True
        except (FileNotFoundError, ProcessLookupError):
            # A thread that was joined may still be about to end; then its children are another's.
            if not os.path.exists(f"{own}/{os.getpid()}/children"):  # noqa: PTH110  # not in this kernel
                raise
        else:
            return False


def _trackers() -> Any:
    """Process ids of what waits for this process's end, to remove what it will have left behind."""
    modules = [module for name, module in list(sys.modules.items()) if name.endswith(".resource_tracker")]
    return {str(getattr(getattr(module, "_resource_tracker", None), "_pid", None)) for module in modules}


def _open_files() -> Any:
    """Files that are open for writing, by descriptor and name; none elsewhere than on Linux.

    A kernel there is never settled: its threads cannot be listed either.
    """
    found = set()
    folder = "/proc/self/fd"
    for descriptor in os.listdir(folder) if os.path.isdir(folder) else ():  # noqa: PTH112, PTH208
        try:
            name = os.readlink(f"{folder}/{descriptor}")  # noqa: PTH115
            if name.startswith("/") and not name.startswith("/dev/"):
                with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:  # noqa: PTH123
                    flags = next(line for line in file if line.startswith("flags:"))
                if int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY:
                    found.add((descriptor, name))
        except OSError:
            continue  # the one that listed them
    return found


def _tasks(shell: Shell) -> Any:
    """Tasks of the kernel's loop that are not its own, which it has one of for each message."""
    tasks = asyncio.all_tasks(shell.kernel.io_loop.asyncio_loop)
    return {task for task in tasks if "ipykernel" not in _file_of(task).replace(os.sep, "/").split("/")}


def _file_of(task: Any) -> str:
    """Where the coroutine of a task is defined, if that can be told."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code.co_filename if code is not None else ""


def _have_been_read(streams: Any) -> bool:
    """Whether the pipes of streams are empty, and the threads that read them have had time for the rest."""
    pipes = [pipe for stream in streams if (pipe := getattr(stream, "_fid", None)) is not None]
    if not pipes:
        return True
    import fcntl
    import termios

    deadline = time.monotonic() + PATIENCE
    while any(any(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))) for pipe in pipes):
        if time.monotonic() >= deadline:
            return False
        time.sleep(TURN)
    time.sleep(TURN)
    return True
