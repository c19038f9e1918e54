"""Fresh kernels at the price of a fork: a process that has imported all, for each kernelspec (Linux).

    server -> shim -> zygote -> a shim for each kernel -> the kernel

The zygote is `zygote.py`, run by the kernelspec's own interpreter. It is a child of nobody else, talks to
nobody else, and ends with the server. What it cannot do is done as if it were not there: every kernel that
is not forked is started cold.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from logging import Logger
from pathlib import Path
from typing import Any, cast

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from jupyter_nbexec.kernels import provisioner

ZYGOTE = Path(__file__).with_name("zygote.py")
#: What stands for the path of the connection file in a kernelspec.
CONNECTION_FILE = "{connection_file}"
#: Names of variables that differ from kernel to kernel, and are read by nothing that is imported ahead.
OF_ONE_KERNEL = frozenset({"JPY_SESSION_NAME", "JPY_PARENT_PID", "KERNEL_GATEWAY"})
#: Interpreter options that take the next argument as their value.
WITH_VALUE = frozenset({"-W", "-X", "--check-hash-based-pycs"})
MAX_MESSAGE = 131072
#: Seconds that a zygote may take for one module, and for all else together.
PATIENCE = 60.0
#: Seconds within which a kernel is forked, or else started cold.
FORK_PATIENCE = 5.0
#: Seconds after which the exit status of a process that has ended is given up.
STATUS_PATIENCE = 2.0
#: Seconds between looks at the files that make a zygote outdated.
LOOK = 1.0
#: Seconds before a zygote that has ended is replaced: at first, and at most.
BACK_OFF = 0.5, 60.0


def is_supported() -> bool:
    """Whether this platform has what forking needs."""
    return provisioner.is_supported() and hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")


@dataclass(frozen=True)
class Recipe:
    """What a zygote is made from; kernels of one recipe are forked from one zygote."""

    python: tuple[str, ...]  #: the interpreter and its options
    environment: frozenset[tuple[str, str]]  #: without what belongs to one kernel

    @staticmethod
    def read(command: Sequence[str], environment: Mapping[str, str]) -> tuple[Recipe, list[str]] | None:
        """Split a kernel's command line into a recipe and the kernel's arguments; None: not for us."""
        options = iter(enumerate(command[1:], 1))
        for index, argument in options:
            if argument == "-m":
                if list(command[index + 1 : index + 2]) != ["ipykernel_launcher"]:
                    return None
                kept = {item for item in environment.items() if item[0] not in OF_ONE_KERNEL}
                return Recipe(tuple(command[:index]), frozenset(kept)), list(command[index + 2 :])
            if argument in WITH_VALUE:
                next(options, None)
            elif not argument.startswith("-") or argument in ("-", "-c", "-i"):
                return None
        return None


def expected_command(spec: KernelSpec) -> list[str]:
    """Tell the command line of a kernel that nobody has asked for yet, as `KernelManager` would."""
    known = {"prefix": sys.prefix, "resource_dir": spec.resource_dir}
    command = list(spec.argv)
    major, minor = sys.version_info[:2]
    if command and command[0] in {"python", f"python{major}", f"python{major}.{minor}"}:
        command[0] = sys.executable
    for name, value in known.items():
        command = [argument.replace("{" + name + "}", value) for argument in command]
    return command


def expected_environment(spec: KernelSpec, environment: Mapping[str, str]) -> dict[str, str]:
    """Tell the environment of such a kernel, as its provisioner would make it."""
    expected = {name: value for name, value in environment.items() if name != "PYTHONEXECUTABLE"}
    for name, value in (spec.env or {}).items():
        expected[name] = string.Template(value).safe_substitute(environment)
    return expected


class ForkedProcess:
    """A kernel's shim, forked by a zygote; to jupyter_client it is like a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int, descriptor: int, channel: Channel) -> None:
        self.pid = pid
        self.args: list[str] = []
        self.returncode: int | None = None
        self._descriptor: int | None = descriptor
        self._channel = channel
        self._ended_at: float | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it lives."""
        if self.returncode is None and self._has_ended(0):
            self._channel.receive()
            if self.returncode is None and self._is_given_up():
                self.end(-signal.SIGKILL)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, blocking this thread; the exit code. Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None or self.returncode is None:
            left = 1.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            # Once it has ended, its status is a moment away.
            if self._has_ended(min(left, 1.0)) and self.poll() is None:
                time.sleep(0.001)
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """Send a signal to this process and no other, ever; nothing happens if it has ended."""
        if self._descriptor is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signum)  # type: ignore[attr-defined,unused-ignore]

    def terminate(self) -> None:
        """Have the kernel and all below it killed."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the shim, and the kernel with it."""
        self.send_signal(signal.SIGKILL)

    def end(self, code: int) -> None:
        """Note the exit code."""
        if self.returncode is None:
            self.returncode = code
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _has_ended(self, timeout: float) -> bool:
        if self._descriptor is None:
            return True
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLIN)
        return bool(waiting.poll(timeout * 1000))

    def _is_given_up(self) -> bool:
        """Whether nobody will tell the exit status: whoever would has gone, and killed it by going."""
        self._ended_at = self._ended_at or time.monotonic()
        return self._channel.is_closed or time.monotonic() - self._ended_at > STATUS_PATIENCE


def _ignore(*args: Any) -> None:
    """Stand in for nobody who listens."""


class Channel:
    """The server's end of a control socket: a pair that nobody else can open. Never blocks."""

    def __init__(self) -> None:
        self._socket, self.other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)  # noqa: FBT003
        self.is_closed = False
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.on_message: Callable[[dict[str, Any], list[int]], None] = _ignore
        self.on_end: Callable[[], None] = _ignore

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Receive what comes, on an event loop."""
        self._loop = loop
        loop.add_reader(self._socket.fileno(), self.receive)

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a message, and descriptors with it. Raises OSError if it cannot be sent at once."""
        socket.send_fds(self._socket, [json.dumps(message).encode("ascii")], descriptors)

    def receive(self) -> None:
        """Take all that has come."""
        with self._lock:
            while not self.is_closed:
                try:
                    data, descriptors, _, _ = socket.recv_fds(self._socket, MAX_MESSAGE, 4)
                except BlockingIOError:
                    return
                except OSError:
                    data, descriptors = b"", []
                if not data or not self._handle(data, descriptors):
                    self.close()
                    self.on_end()

    def _handle(self, data: bytes, descriptors: list[int]) -> bool:
        """Pass a message on; False if it is not one of ours."""
        try:
            self.on_message(json.loads(data), descriptors)
        except (ValueError, TypeError, KeyError):
            return False
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def close(self) -> None:
        """End the conversation, and with it the zygote."""
        with self._lock:
            if self.is_closed:
                return
            self.is_closed = True
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._socket.fileno())
            self._socket.close()


class ZygoteFailed(Exception):
    """A zygote did not become ready; `module` is the one that it was importing."""

    def __init__(self, reason: str, module: str = "") -> None:
        super().__init__(reason)
        self.module = module


class ZygoteUnfit(Exception):
    """Modules are not to be imported ahead: the reasons."""

    def __init__(self, modules: dict[str, str]) -> None:
        super().__init__(", ".join(modules))
        self.modules = modules


class Zygote:
    """A process that forks kernels, seen from the server. Used on the server's event loop."""

    def __init__(self, recipe: Recipe, log: Logger) -> None:
        self.recipe = recipe
        self.notes: list[str] = []
        self.is_ready = False
        self._log = log
        self._processes: dict[int, ForkedProcess] = {}
        self._waiting: dict[int, asyncio.Future[ForkedProcess]] = {}
        self._count = 0
        self._news = asyncio.Event()
        self._failure: Exception | None = None
        self._importing = ""
        self._watched: dict[str, Any] = {}
        self._looked = 0.0
        self._is_current = True
        self._popen: subprocess.Popen[bytes] | None = None
        self._channel = Channel()
        self._channel.on_message = self._take
        self._channel.on_end = self._end
        #: Called when it has ended.
        self.on_end: Callable[[Zygote], None] = _ignore

    @property
    def pid(self) -> int | None:
        """The process id of the shim above it."""
        return None if self._popen is None else self._popen.pid

    @property
    def is_alive(self) -> bool:
        """Whether kernels may still come from it, or live below it."""
        return not self._channel.is_closed

    async def start(self, preload: Sequence[str], arguments: Sequence[str], patience: float) -> None:
        """Start it, and wait until it can fork kernels. Raises ZygoteFailed, ZygoteUnfit."""
        try:
            self._launch()
        except OSError as error:
            raise ZygoteFailed(f"{self.recipe.python[0]} cannot be started: {error.strerror}") from error
        self._send({"op": "prepare", "preload": list(preload), "arguments": list(arguments)})
        while not self.is_ready and self._failure is None:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), patience)
            except (TimeoutError, asyncio.TimeoutError):
                what = f"to import {self._importing}" if self._importing else "to become ready"
                raise ZygoteFailed(f"it takes more than {patience:g} s {what}", self._importing) from None
        if self._failure is not None:
            raise self._failure

    def _launch(self) -> None:
        descriptor = self._channel.other.fileno()
        shim = [sys.executable, "-I", "-S", str(provisioner.SHIM), str(os.getpid()), "0"]
        with self._channel.other:
            self._popen = subprocess.Popen(  # noqa: S603 - the argument vector of a kernelspec
                [*shim, *self.recipe.python, str(ZYGOTE), str(descriptor)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=dict(self.recipe.environment),
                pass_fds=[descriptor],
                start_new_session=True,
            )
        if self._popen.stdin is not None:
            self._popen.stdin.close()  # as kernels find it that are started cold
        self._channel.listen(asyncio.get_running_loop())

    async def fork(self, request: dict[str, Any], output: int) -> ForkedProcess:
        """Fork a kernel, whose output goes to this descriptor. Raises OSError, TimeoutError."""
        self._count += 1
        number = self._count
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"op": "fork", "id": number, **request}, [output])
            return await asyncio.wait_for(asyncio.shield(waiting), FORK_PATIENCE)
        except BaseException:
            waiting.add_done_callback(_kill_late)
            raise
        finally:
            if waiting.done():
                self._waiting.pop(number, None)

    def is_current(self) -> bool:
        """Whether nothing has changed that it was made from."""
        now = time.monotonic()
        if self._is_current and now - self._looked > LOOK:
            self._looked = now
            self._is_current = self._watched == {path: look_at(path) for path in self._watched}
        return self._is_current

    def watch(self, path: str) -> None:
        """Take one more file for what it is made from."""
        self._watched[path] = look_at(path)

    def retire(self) -> None:
        """Fork no more; end with the last kernel."""
        self.is_ready = False
        with suppress(OSError):
            self._send({"op": "retire"})

    def kill(self) -> None:
        """End it, and all its kernels, now."""
        self.is_ready = False
        self._channel.close()
        if self._popen is not None:
            self._popen.terminate()
            self._popen.send_signal(signal.SIGCONT)

    async def wait(self) -> None:
        """Wait until its processes are gone."""
        while self._popen is not None and self._popen.poll() is None:
            await asyncio.sleep(0.01)
        self._end()

    def _send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        if self._channel.is_closed:
            raise BrokenPipeError
        self._channel.send(message, descriptors)

    def _take(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """Act on a message."""
        kind = message["op"]
        if kind == "importing":
            self._importing = str(message["module"])
        elif kind == "unfit":
            self._failure = ZygoteUnfit({str(k): str(v) for k, v in message["modules"].items()})
        elif kind == "broken":
            self._failure = ZygoteFailed(str(message["reason"]))
        elif kind == "ready":
            self._watched.update({str(path): look_at(str(path)) for path in message["watched"]})
            self.notes = [str(note) for note in message["notes"]]
            self.is_ready = True
        elif kind == "forked":
            self._note_fork(int(message["id"]), int(message["pid"]), descriptors)
        elif kind == "failed":
            self._note_failure(int(message["id"]), OSError(str(message["reason"])))
        elif kind == "ended":
            process = self._processes.pop(int(message["pid"]), None)
            if process is not None:
                process.end(os.waitstatus_to_exitcode(int(message["status"])))
        self._news.set()

    def _note_fork(self, number: int, pid: int, descriptors: list[int]) -> None:
        process = ForkedProcess(pid, descriptors.pop(), self._channel)
        self._processes[pid] = process
        waiting = self._waiting.pop(number, None)
        if waiting is None or waiting.done():
            process.terminate()
        else:
            waiting.set_result(process)

    def _note_failure(self, number: int, error: OSError) -> None:
        waiting = self._waiting.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)

    def _end(self) -> None:
        """Note that it has ended, or is about to."""
        self.is_ready = False
        self._channel.close()
        if self._failure is None:
            self._failure = ZygoteFailed("it ended", self._importing)
        self._news.set()
        for number in list(self._waiting):
            self._note_failure(number, BrokenPipeError("the fork server has ended"))
        on_end, self.on_end = self.on_end, _ignore
        on_end(self)


def _kill_late(waiting: asyncio.Future[ForkedProcess]) -> None:
    """Kill a kernel that came after nobody waited for it any more."""
    if not waiting.cancelled() and waiting.exception() is None:
        waiting.result().terminate()


def look_at(path: str) -> tuple[int, int, int] | None:
    """Tell what of a file or folder changes when it does; None: it is not there."""
    try:
        found = os.stat(path)  # noqa: PTH116 - many, and often
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class Keeper:
    """Keeps one kernelspec's zygote: starts it, replaces it when it is outdated or has ended."""

    def __init__(self, name: str, preload: Sequence[str], log: Logger, patience: float) -> None:
        self.zygote: Zygote | None = None
        self.wanted: Recipe | None = None
        self._name = name
        self._preload = list(preload)
        self._refused: set[str] = set()
        self._log = log
        self._patience = patience
        self._arguments: list[str] = []
        self._kernel_json = ""
        self._starting: asyncio.Task[None] | None = None
        self._failures = 0
        self._began = 0.0
        self._not_before = 0.0
        #: What is known not to work: not to be tried again.
        self._unfit: tuple[Recipe, Any] | None = None
        self._old: set[Zygote] = set()
        self._is_stopped = False

    def want(self, recipe: Recipe, arguments: Sequence[str], kernel_json: str) -> None:
        """See to it that there is, before long, a zygote of this recipe and of today."""
        if self._is_stopped or self._starting is not None:
            return
        if self.zygote is not None and self.zygote.recipe == recipe and self.zygote.is_current():
            return
        if self._unfit == (recipe, look_at(kernel_json)) or time.monotonic() < self._not_before:
            return
        if self.zygote is not None:
            self._log.info("kernelspec %r has changed: its fork server is replaced", self._name)
            self._refused.clear()
            self._retire(self.zygote)
        self._arguments, self._kernel_json = list(arguments), kernel_json
        self._starting = asyncio.ensure_future(self._start(recipe))

    def ready(self, recipe: Recipe) -> Zygote | None:
        """Return the zygote that kernels of this recipe can be forked from now."""
        zygote = self.zygote
        if zygote is None or not zygote.is_ready or zygote.recipe != recipe or not zygote.is_current():
            return None
        return zygote

    async def wait(self) -> None:
        """Wait until the start that is going on, if any, has come to an end."""
        if self._starting is not None:
            await asyncio.wait({self._starting})

    async def stop(self) -> None:
        """End all its zygotes and their kernels."""
        self._is_stopped = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        zygotes = [*self._old, *([self.zygote] if self.zygote else [])]
        self.zygote = None
        for zygote in zygotes:
            zygote.on_end = _ignore
            zygote.kill()
        for zygote in zygotes:
            await zygote.wait()
        self._old.clear()

    async def _start(self, recipe: Recipe) -> None:
        try:
            await self._start_without_refused(recipe)
        except ZygoteFailed as error:
            self._unfit = recipe, look_at(self._kernel_json)
            self._log.error("kernels %r are started cold, not forked: %s", self._name, error)
        finally:
            self._starting = None

    async def _start_without_refused(self, recipe: Recipe) -> None:
        """Start a zygote; with fewer modules, if some turn out not to be fit."""
        while True:
            zygote = Zygote(recipe, self._log)
            zygote.watch(self._kernel_json)
            modules = [module for module in self._preload if module not in self._refused]
            self._began = time.monotonic()
            try:
                await zygote.start(modules, self._arguments, self._patience)
            except ZygoteUnfit as error:
                await self._dispose(zygote)
                self._refuse(error.modules)
                continue
            except ZygoteFailed as error:
                await self._dispose(zygote)
                if error.module not in modules:
                    raise
                self._refuse({error.module: str(error)})
                continue
            except BaseException:
                await asyncio.shield(self._dispose(zygote))
                raise
            break
        for note in zygote.notes:
            self._log.warning("kernelspec %r: %s", self._name, note)
        self._log.info(
            "kernels %r are forked from now on (%.1f s)", self._name, time.monotonic() - self._began
        )
        zygote.on_end = self._note_end
        self.zygote = zygote
        self._not_before = 0.0

    def _refuse(self, modules: dict[str, str]) -> None:
        for module, reason in modules.items():
            self._refused.add(module)
            text = "module %r is not imported ahead for kernels %r: %s"
            self._log.error(text, module, self._name, reason)

    async def _dispose(self, zygote: Zygote) -> None:
        zygote.kill()
        await zygote.wait()

    def _retire(self, zygote: Zygote) -> None:
        self.zygote = None
        zygote.on_end = self._bury
        self._old.add(zygote)
        zygote.retire()

    def _bury(self, zygote: Zygote) -> None:
        """Collect the processes of a zygote that has ended."""
        self._old.add(zygote)
        task = asyncio.ensure_future(zygote.wait())
        task.add_done_callback(lambda _: self._old.discard(zygote))

    def _note_end(self, zygote: Zygote) -> None:
        """Replace a zygote that has ended by itself, sooner or later."""
        self.zygote = None
        self._bury(zygote)
        if time.monotonic() - self._began > BACK_OFF[1]:
            self._failures = 0
        pause = min(BACK_OFF[0] * 2**self._failures, BACK_OFF[1])
        self._failures += 1
        self._not_before = time.monotonic() + pause
        self._log.error("the fork server of kernels %r has ended; a new one is started", self._name)
        asyncio.get_running_loop().call_later(
            pause + 0.01, self.want, zygote.recipe, self._arguments, self._kernel_json
        )


class ForkServers:
    """The zygotes of a server, one for each kernelspec that has been wanted. Used on its event loop."""

    def __init__(
        self,
        *,
        preload: Mapping[str, Sequence[str]],
        niceness: int,
        log: Logger,
        patience: float = PATIENCE,
        extra_arguments: Sequence[str] = (),
    ) -> None:
        self._preload = preload
        self._niceness = niceness
        self._log = log
        self._patience = patience
        self._extra = list(extra_arguments)
        self._keepers: dict[str, Keeper] = {}

    def want(self, name: str, spec: KernelSpec, env: Mapping[str, str]) -> None:
        """Begin to start the zygote of a kernelspec, unless there is one."""
        command = [*expected_command(spec), *self._extra]
        read = Recipe.read(command, expected_environment(spec, env)) if is_supported() else None
        if read is not None:
            self.keeper(name).want(*read, kernel_json=os.path.join(spec.resource_dir, "kernel.json"))  # noqa: PTH118

    def provisioner_for(self, manager: KernelManager) -> ForkedProvisioner | None:
        """Make the provisioner of a kernel that may be forked; None if it cannot be.

        Whether it is, is decided at its start, when its command line and its environment are known.
        """
        spec = manager.kernel_spec
        if spec is None or not is_supported() or Recipe.read(expected_command(spec), {}) is None:
            return None
        forked = ForkedProvisioner(kernel_spec=spec, parent=manager)
        forked.keeper = self.keeper(manager.kernel_name)
        forked.niceness = self._niceness
        return forked

    def is_ready(self, name: str) -> bool:
        """Whether kernels of this kernelspec are forked at present."""
        keeper = self._keepers.get(name)
        return keeper is not None and keeper.zygote is not None and keeper.zygote.is_ready

    async def wait(self) -> None:
        """Wait until all starts that are going on have come to an end."""
        await asyncio.gather(*(keeper.wait() for keeper in self._keepers.values()))

    async def stop(self) -> None:
        """End all zygotes and the kernels that they forked."""
        await asyncio.gather(*(keeper.stop() for keeper in self._keepers.values()))

    def keeper(self, name: str) -> Keeper:
        """Return the keeper of a kernelspec's zygote."""
        if name not in self._keepers:
            preload = self._preload.get(name, ())
            self._keepers[name] = Keeper(name, preload, self._log, self._patience)
        return self._keepers[name]


class ForkedProvisioner(provisioner.ReapingProvisioner):
    """Has a zygote fork the kernel, where there is a fit one; else it is started cold."""

    keeper: Keeper | None = None
    #: Whether the kernel that it has started last was forked.
    is_forked = False

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Fork the kernel, or launch it cold, and want it to be otherwise next time."""
        self.is_forked = False
        process = await self._fork(cmd, kwargs)
        if process is None:
            return await super().launch_kernel(cmd, **kwargs)
        process.args = cmd
        self.is_forked = True
        self.process = cast(Any, process)
        self.pid = self.pgid = process.pid
        self.cwd = kwargs["cwd"]
        return self.connection_info

    async def wait(self) -> int | None:
        """As inherited, with a look every few milliseconds, for these kernels end soon."""
        while self.is_forked and self.process is not None and self.process.poll() is None:
            await asyncio.sleep(0.005)
        return await super().wait()

    async def send_signal(self, signum: int) -> None:
        """As inherited, but by a handle that cannot mean another process."""
        process = self.process
        if self.is_forked and process is not None and signum not in (signal.SIGTERM, signal.SIGKILL):
            process.send_signal(signum)
            return
        await super().send_signal(signum)

    def _manager(self) -> KernelManager:
        manager: Any = self.parent
        return cast("KernelManager", manager)

    async def _fork(self, command: list[str], kwargs: dict[str, Any]) -> ForkedProcess | None:
        """Fork the kernel, if nothing about it is special; None: it is to be started cold."""
        environment = kwargs.get("env") or {}
        streams = [kwargs.get(name) for name in ("stdout", "stderr")]
        folder = kwargs.get("cwd")
        special = set(self.request_env or ()) - OF_ONE_KERNEL
        if self.keeper is None or special or streams != [subprocess.DEVNULL] * 2 or not folder:
            return None
        read = Recipe.read(command, environment)
        if read is None or kwargs.get("independent") or not os.access(folder, os.X_OK):
            return None
        recipe, arguments = read
        file = str(self._manager().connection_file)
        template = [argument.replace(file, CONNECTION_FILE) for argument in arguments]
        zygote = self.keeper.ready(recipe)
        if zygote is None:
            self.keeper.want(recipe, template, os.path.join(self.kernel_spec.resource_dir, "kernel.json"))  # noqa: PTH118
            return None
        request = {
            "arguments": arguments,
            "command": command,
            "connection_file": file,
            "cwd": str(folder),
            "env": {name: environment[name] for name in OF_ONE_KERNEL & set(environment)},
            "niceness": self.niceness,
        }
        try:
            with self.listening() as descriptor:
                return await zygote.fork(request, descriptor)
        except (OSError, TimeoutError, asyncio.TimeoutError) as error:
            self._manager().log.warning(
                "a kernel is started cold, not forked: %s", error or type(error).__name__
            )
            return None
