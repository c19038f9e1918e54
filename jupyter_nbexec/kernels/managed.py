"""Kernels of the server's own kernel manager: started for one run, or already there."""

from __future__ import annotations

import asyncio
import fnmatch
import functools
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any

from jupyter_client.kernelspec import NoSuchKernel
from jupyter_client.manager import KernelManager
from jupyter_client.multikernelmanager import MultiKernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_core.utils import ensure_async

from jupyter_nbexec import errors, kernels
from jupyter_nbexec.kernels import claims, forkserver, gateway, lastwords, provisioner, sockets, specs
from jupyter_nbexec.kernels.opened import Opened

#: Seconds that a kernel may take to end when it is asked to.
FAREWELL = 3.0
#: Seconds after which it is slow to end, and then those for which a further one of its kernelspec is heard.
SLOW, LATE = 1.0, 0.3
#: Kernels that may be about to end at once before runs wait for them.
MAX_ENDINGS = 32
#: Kernels that may be being started, though nobody wants them any more, before others wait for them.
MAX_UNWANTED = 32
#: Seconds that a stopping server waits for such kernels, to end them.
LAST_STARTS = 8.0
#: IPython's history database is shared by all its kernels: a lock to wait for, and a place where a run's
#: parameters would be kept.
IPYKERNEL_ARGUMENTS = ["--HistoryManager.hist_file=:memory:"]
#: The environment of the request whose kernel is being started in this task; None for everybody else's.
_starting: ContextVar[Mapping[str, str] | None] = ContextVar("jupyter_nbexec_starting", default=None)


def look_after_own_kernels(
    kernel_manager: MultiKernelManager,
    niceness: int,
    names: sockets.SocketNames,
    fork_servers: forkserver.ForkServers | None = None,
) -> None:
    """Let kernels that this extension starts, and no others, be watched by it alone.

    On Linux they run below the shim, forked if possible.

    A kernel manager makes its own provisioner at the start only if it has none; the factory is the one
    place to give it one. Kernels with a provisioner of their own (remote ones) are left alone.
    """
    original = kernel_manager.kernel_manager_factory
    loggers: list[Any] = []

    def make(*args: Any, **kwargs: Any) -> KernelManager:
        manager: KernelManager = original(*args, **kwargs)
        request_env = _starting.get()
        if request_env is None:
            return manager
        # The server lists a kernel shortly before it notes this itself, and cannot list one without it.
        manager.last_activity = datetime.now(tz=timezone.utc)  # type: ignore[attr-defined]
        # A kernel that the restarter revives loses the run without a word.
        manager.autorestart = False
        _share_event_logger(manager, loggers)
        if provisioner.is_supported() and _is_local(manager):
            forked = None if fork_servers is None else fork_servers.provisioner_for(manager)
            reaping = forked or provisioner.ReapingProvisioner(
                kernel_spec=manager.kernel_spec, parent=manager
            )
            reaping.request_env = dict(request_env)
            reaping.niceness = niceness
            manager.provisioner = reaping
            _use_sockets_of_files(manager, names)
        return manager

    kernel_manager.kernel_manager_factory = make
    _watch_others_only(kernel_manager)


def _watch_others_only(kernel_manager: Any) -> None:
    """Let the server's own watcher leave our kernels alone: `touch` does its work.

    It would check the signature of each of their messages on the event loop.
    """
    original = kernel_manager.start_watching_activity

    def start_watching_activity(kernel_id: str) -> None:
        if _starting.get() is None:
            original(kernel_id)

    kernel_manager.start_watching_activity = start_watching_activity


def _share_event_logger(manager: Any, loggers: list[Any]) -> None:
    """Give a kernel's manager the logger of the first one: each would read and check the schemas again."""
    if not manager.has_trait("event_logger") or manager.extra_event_schema_paths:
        return
    if loggers:
        manager.event_logger = loggers[0]
    else:
        loggers.append(manager.event_logger)


def _is_local(manager: KernelManager) -> bool:
    """Whether a kernel is started by jupyter_client itself, and not by a provisioner of its kernelspec."""
    factory = KernelProvisionerFactory.instance(parent=manager.parent)
    spec = manager.kernel_spec
    own = {} if spec is None else spec.metadata.get("kernel_provisioner") or {}
    name = own.get("provisioner_name", factory.default_provisioner_name)
    return spec is not None and name == "local-provisioner"


def _use_sockets_of_files(manager: KernelManager, names: sockets.SocketNames) -> None:
    """Talk to an IPython kernel through files that only this user can open, rather than through ports.

    Any process of the machine can listen at a port of the kernel's, and a notebook that prints without end
    fills the queues of the loopback network, at which the server's own clients wait, too. A port may also be
    taken between its choice and the kernel's start: then ipykernel lives, and never answers.
    """
    spec = manager.kernel_spec
    if spec is None or not specs.is_ipykernel(spec.argv) or manager.transport != "tcp":
        return
    prefix = names.prefix(manager.connection_file)
    if prefix is not None:
        manager.transport = "ipc"
        manager.ip = prefix  # jupyter_client removes them


@functools.cache
def _pattern(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Match what any of these shell patterns matches."""
    return re.compile("|".join(map(fnmatch.translate, patterns)) or "(?!)")


def kernel_environment(
    server: Mapping[str, str], scrubbed: Iterable[str], request: kernels.KernelRequest
) -> dict[str, str]:
    """Build a kernel's environment: the server's, without what matches `scrubbed`, with the request's own.

    `scrubbed` are shell patterns of names, such as `JUPYTER*TOKEN*`.
    """
    hidden = _pattern(tuple(scrubbed))
    kept = {name: value for name, value in server.items() if not hidden.match(name)}
    return {**kept, "JPY_SESSION_NAME": request.session_name, **request.env}


class ManagedKernel:
    """One kernel of the server's kernel manager, seen from a run."""

    def __init__(
        self,
        kernel_manager: Any,
        kernel_id: str,
        *,
        is_owned: bool,
        remote: gateway.RemoteKernel | None = None,
    ) -> None:
        """`remote` does what has to be done by way of the gateway that runs the kernel, if one does."""
        self._kernels = kernel_manager
        self.remote = remote
        #: jupyter_client's manager of this one kernel.
        self.manager = kernel_manager.get_kernel(kernel_id)
        self._process_id = self._current_process_id()
        self.id = kernel_id
        self.name: str = gateway.kernel_name(self.manager)
        self.is_owned = is_owned
        self.is_leaving = False
        self.is_settled = False
        self.has_answered = False
        self.opened: Opened | None = None
        #: Whether it was started before anybody asked for it.
        self.is_warm = False
        #: Whether it has executed the first cells of its run's notebook already.
        self.is_prepared = False
        self._is_hidden = False

    @property
    def source(self) -> str:
        """Where it came from."""
        if not self.is_owned:
            return "existing"
        if self.is_prepared:
            return "prepared"
        if self.remote is not None:
            return "remote"
        if getattr(self.manager.provisioner, "is_forked", False):
            return "forked"
        return "warm" if self.is_warm else "cold"

    def hide(self) -> None:
        """Take it from the server's list: it is nobody's kernel yet, and not to be culled."""
        if isinstance(self._kernels, MultiKernelManager):
            self._is_hidden = True
            self._kernels.remove_kernel(self.id)

    def show(self) -> None:
        """Put it on the server's list again."""
        if self._is_hidden:
            self._is_hidden = False
            self._kernels._kernels[self.id] = self.manager  # noqa: SLF001 - there is no public way

    def last_words(self) -> str:
        """Tell what its process has said last, as far as that is known, without the request's secrets."""
        words: lastwords.LastWords | None = getattr(self.manager.provisioner, "words", None)
        return "" if words is None else words.text()

    def connection_info(self) -> dict[str, Any]:
        """What a client needs to connect: transport, addresses, key."""
        if self.remote is not None:
            return self.remote.connection_info()
        return dict(self.manager.get_connection_info())

    def touch(self) -> None:
        """Note that the kernel is in use: the server's culler goes by this time."""
        self.manager.last_activity = datetime.now(tz=timezone.utc)
        if self.is_owned:
            self.manager.execution_state = "busy"

    async def death(self) -> str | None:
        """None while it lives; else how it ended. A kernel that was restarted has lost the run."""
        if self.id not in self._kernels and not self._is_hidden:
            return "the kernel was shut down"
        if self.remote is not None:
            return await self.remote.death()
        if not await ensure_async(self.manager.is_alive()):
            return self._how_it_ended()
        if self._current_process_id() != self._process_id:
            return "the kernel was restarted"
        return None

    async def interrupt(self) -> None:
        """Interrupt what it executes."""
        if self.remote is not None:
            await self.remote.interrupt()
        elif (self.id in self._kernels or self._is_hidden) and self.manager.has_kernel:
            await ensure_async(self.manager.interrupt_kernel())

    async def kill(self) -> None:
        """Kill it, if it has not ended, without waiting for the manager's own clean-up."""
        if not self.is_owned:
            raise RuntimeError("a kernel that belongs to somebody else is not ours to kill")
        self.is_leaving = True
        if self.remote is not None:
            await self.remote.kill()
        elif (self.id in self._kernels or self._is_hidden) and self.manager.has_kernel:
            await self.manager.provisioner.kill()

    def _current_process_id(self) -> int | None:
        return getattr(self.manager.provisioner, "pid", None)

    def _how_it_ended(self) -> str:
        process: subprocess.Popen[bytes] | None = getattr(self.manager.provisioner, "process", None)
        code = None if process is None else process.poll()
        if code is None:
            return "the kernel died"
        if code < 0:
            hint = ", possibly for want of memory" if -code == signal.SIGKILL else ""
            return f"the kernel was killed by {signal.Signals(-code).name}{hint}"
        return f"the kernel exited with code {code}"


class Starter:
    """Starts and ends kernels on behalf of runs."""

    def __init__(
        self,
        kernel_manager: Any,
        *,
        scrubbed_env: Iterable[str],
        niceness: int,
        start_timeout: float = math.inf,
        fork_servers: forkserver.ForkServers | None = None,
    ) -> None:
        """`start_timeout`: seconds a start may take; of a gateway's kernel, its client's own limits hold.

        `fork_servers`: who forks kernels of IPython; without them every kernel is started cold.
        """
        self._kernels = kernel_manager
        self._scrubbed = list(scrubbed_env)
        self._fork_servers = fork_servers
        self._endings: set[asyncio.Task[None]] = set()
        #: Kernelspecs of which a kernel was slow to end when it was asked to.
        self._slow: set[str] = set()
        #: The ends of kernels that are still being started, by the ids that they are started under.
        self._unwanted: dict[str, asyncio.Task[None]] = {}
        is_remote = gateway.is_gateway(kernel_manager)
        self._start_timeout = math.inf if is_remote else start_timeout
        is_local = isinstance(kernel_manager, MultiKernelManager) and not is_remote
        folder = kernel_manager.connection_dir if is_local else ""
        claims.remove_left_behind(folder)
        self._claim = claims.Claim(folder)
        self._names = sockets.SocketNames(claims.folder_of(self._claim.tag))
        if is_local:
            look_after_own_kernels(kernel_manager, niceness, self._names, fork_servers)

    async def start_fork_servers(self, names: Iterable[str]) -> None:
        """Have kernels of these kernelspecs forked, as far as that is possible, when this returns."""
        if self._fork_servers is None:
            return
        for name in names:
            try:
                spec = await ensure_async(self._kernels.kernel_spec_manager.get_kernel_spec(name))
            except NoSuchKernel:
                continue
            environment = kernel_environment(os.environ, self._scrubbed, kernels.KernelRequest(name=name))
            self._fork_servers.want(name, spec, environment)
        await self._fork_servers.wait()

    async def start(self, request: kernels.KernelRequest) -> ManagedKernel:
        """Start a kernel. Raises KernelStartError.

        Who is cancelled is not held up. A start cannot be cut off in the middle, which would leave a process;
        the kernel that comes of it is ended as soon as it is there.
        """
        deadline = time.monotonic() + self._start_timeout
        while len(self._unwanted) >= MAX_UNWANTED:
            await self._wait(self._unwanted.values(), deadline)
        kernel_id = self._claim.kernel_id()
        start = asyncio.create_task(self._start(kernel_id, request))
        try:
            await self._wait({start}, deadline)
            return start.result()
        except BaseException:
            ending = self._disown(kernel_id, start)
            if start.done():
                await asyncio.shield(ending)
            raise

    async def _wait(self, tasks: Iterable[asyncio.Task[Any]], deadline: float) -> None:
        """Wait until one of these is done. Raises KernelStartError at the deadline."""
        left = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
        done, _ = await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise kernels.KernelStartError(f"the kernel was not started within {self._start_timeout:g} s")

    def _disown(self, kernel_id: str, start: asyncio.Task[ManagedKernel]) -> asyncio.Task[None]:
        """See to it that a kernel which nobody wants any more is ended, whenever it comes up."""
        ending = asyncio.create_task(self._end_started(kernel_id, start))
        self._unwanted[kernel_id] = ending
        ending.add_done_callback(lambda _: self._unwanted.pop(kernel_id, None))
        return ending

    async def end(self, kernel: ManagedKernel) -> None:
        """End a kernel. It is waited for, and listed, only as long as it may have something to say.

        Kernels that can only be asked to end, and of whose kernelspec one was slow to do so, have said all.
        """
        if not kernel.has_answered and (words := kernel.last_words()):
            # Each line is set in, so that none can pass for the log's own.
            said = "".join(f"\n    {line}" for line in words.splitlines())
            self._kernels.log.warning(
                "kernel %s (%s) has not answered; it said:%s", kernel.id, kernel.name, said
            )
        if kernel.remote is None and kernel.id not in self._kernels:
            return  # somebody else has shut it down
        is_slow = kernel.name in self._slow and not kernel.is_leaving
        is_awaited = not kernel.is_settled or kernel.remote is not None
        is_quiet = (is_slow or not is_awaited) and len(self._endings) < MAX_ENDINGS
        if is_quiet and kernel.remote is None:
            kernel.hide()
            ending = asyncio.create_task(self._end_quietly(kernel))
        else:
            ending = asyncio.create_task(self._end_now(kernel))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        if not is_quiet:
            await asyncio.shield(ending)
        elif is_awaited:
            await asyncio.wait({ending}, timeout=LATE)

    async def _end_now(self, kernel: ManagedKernel) -> None:
        began = time.monotonic()
        if kernel.remote is not None:
            await kernel.remote.end()
        else:
            await self._end(kernel.id, is_leaving=kernel.is_leaving)
        if not kernel.is_leaving and time.monotonic() - began > SLOW:
            self._slow.add(kernel.name)

    async def _end_quietly(self, kernel: ManagedKernel) -> None:
        """Wait for the end of a kernel that nobody sees any more, and have the manager clean up after it."""
        await self._has_ended(kernel.manager, is_leaving=kernel.is_leaving)
        kernel.show()
        # To begin with, the manager must know it.
        asyncio.get_running_loop().call_soon(kernel.hide)
        await self._shut_down(kernel.id)

    async def folder(self, request: kernels.KernelRequest) -> str:
        """Tell in which folder of the file system a kernel is started that is asked for like this."""
        return str(await ensure_async(self._kernels.cwd_for_path(request.path)))

    async def stop(self) -> None:
        """Wait for the ends of kernels that nobody has waited for, and end whoever forks them."""
        if self._unwanted:
            await asyncio.wait(self._unwanted.values(), timeout=LAST_STARTS)
        for kernel_id in self._unwanted:
            # An Enterprise Gateway starts it under this id.
            self._kernels.log.warning(
                "kernel %s was still being started when this server stopped, and may be left", kernel_id
            )
        if self._endings:  # one that fails keeps nobody from what is left to do
            await asyncio.wait(self._endings)
        if self._fork_servers is not None:
            await self._fork_servers.stop()
        self._names.remove()
        self._claim.release()

    async def _start(self, kernel_id: str, request: kernels.KernelRequest) -> ManagedKernel:
        if gateway.is_gateway(self._kernels):
            return await self._start_remote(kernel_id, request)
        token = _starting.set(request.env)
        try:
            spec = await ensure_async(self._kernels.kernel_spec_manager.get_kernel_spec(request.name))
            extra = IPYKERNEL_ARGUMENTS if specs.is_ipykernel(spec.argv) else []
            await ensure_async(
                self._kernels.start_kernel(
                    kernel_id=kernel_id,
                    kernel_name=request.name,
                    path=request.path,
                    env=kernel_environment(os.environ, self._scrubbed, request),
                    extra_arguments=extra,
                    # What a notebook writes to its file descriptors is no business of the server's log. The
                    # provisioner listens until the kernel answers.
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            manager = self._kernels.get_kernel(kernel_id)
            await ensure_async(manager.ready)  # matters where the server uses pending kernels
        except NoSuchKernel as error:
            raise kernels.KernelStartError(f"there is no kernel {request.name!r}") from error
        except OSError as error:
            # Its text may hold paths of the server.
            raise kernels.KernelStartError(
                f"the kernel's program cannot be started: {error.strerror}"
            ) from error
        except Exception as error:  # a provisioner may raise anything
            raise kernels.KernelStartError(f"the kernel cannot be started: {type(error).__name__}") from error
        finally:
            _starting.reset(token)
        kernel = ManagedKernel(self._kernels, kernel_id, is_owned=True)
        kernel.touch()
        return kernel

    async def _start_remote(self, kernel_id: str, request: kernels.KernelRequest) -> ManagedKernel:
        try:
            started = await gateway.start(self._kernels, kernel_id, request, self._scrubbed)
        except kernels.KernelStartError:
            raise
        except Exception as error:  # it goes through any library
            raise kernels.KernelStartError(f"the kernel cannot be started: {type(error).__name__}") from error
        folder = await self.folder(request)
        remote = gateway.RemoteKernel(self._kernels, started, request=request, folder=folder)
        kernel = ManagedKernel(self._kernels, started, is_owned=True, remote=remote)
        kernel.touch()
        return kernel

    async def _end_started(self, kernel_id: str, start: asyncio.Future[ManagedKernel]) -> None:
        await asyncio.wait({start})
        if start.exception() is None and start.result().remote is not None:
            await self.end(start.result())
        await self._end(kernel_id, is_leaving=False)

    async def _end(self, kernel_id: str, *, is_leaving: bool) -> None:
        if kernel_id not in self._kernels:
            return  # it never started
        await self._has_ended(self._kernels.get_kernel(kernel_id), is_leaving=is_leaving)
        await self._shut_down(kernel_id)

    async def _shut_down(self, kernel_id: str) -> None:
        """Have the manager clean up after a kernel, and kill it if it lives."""
        if kernel_id in self._kernels:
            await _until_ready(self._kernels.get_kernel(kernel_id))
        if kernel_id in self._kernels:
            await ensure_async(self._kernels.shutdown_kernel(kernel_id, now=True))
        # With pending kernels the manager only begins here.
        deadline = time.monotonic() + FAREWELL
        while kernel_id in self._kernels and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    async def _has_ended(self, manager: Any, *, is_leaving: bool) -> bool:
        """Whether the kernel ends in time by itself: files are flushed then, and `atexit` handlers run.

        The manager's own way of waiting looks every 100 ms only.
        """
        if not is_leaving and manager.has_kernel and await ensure_async(manager.is_alive()):
            await ensure_async(manager.request_shutdown())
        deadline = time.monotonic() + FAREWELL
        while manager.has_kernel and await ensure_async(manager.is_alive()):
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.01)
        return True


async def _until_ready(manager: Any) -> None:
    """Wait while somebody else starts a kernel again: its manager cannot end it meanwhile."""
    ready = manager.ready
    if not ready.done():
        future = ready if isinstance(ready, asyncio.Future) else asyncio.wrap_future(ready)
        await asyncio.wait({future}, timeout=FAREWELL)


class ExistingSource:
    """Lends a kernel that is there already, and leaves it alive."""

    def __init__(self, kernel_manager: Any) -> None:
        self._kernels = kernel_manager
        self._lent: set[str] = set()

    async def refresh(self, kernel_id: str) -> None:
        """Learn of a kernel what only a gateway knows."""
        if kernel_id in self._kernels and gateway.is_gateway(self._kernels):
            await gateway.RemoteKernel(self._kernels, kernel_id).refresh()

    def check(self, kernel_id: str) -> str:
        """Return the kernelspec name of a live kernel that is free. Raises KernelNotFound, KernelBusy."""
        if kernel_id not in self._kernels:
            raise errors.KernelNotFound
        manager = self._kernels.get_kernel(kernel_id)
        if kernel_id in self._lent or getattr(manager, "execution_state", "idle") == "busy":
            raise errors.KernelBusy
        return gateway.kernel_name(manager)

    @asynccontextmanager
    async def lease(self, request: kernels.KernelRequest) -> AsyncIterator[ManagedKernel]:
        """Lend the kernel for the time of the context. Raises KernelStartError if it is gone or busy."""
        kernel_id = request.id or ""
        try:
            self.check(kernel_id)
        except errors.NbexecError as error:
            raise kernels.KernelStartError(error.message) from error
        self._lent.add(kernel_id)
        try:
            is_remote = gateway.is_gateway(self._kernels)
            remote = gateway.RemoteKernel(self._kernels, kernel_id) if is_remote else None
            kernel = ManagedKernel(self._kernels, kernel_id, is_owned=False, remote=remote)
            kernel.touch()
            yield kernel
        finally:
            self._lent.discard(kernel_id)
