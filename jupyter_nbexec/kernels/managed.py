"""Kernels of the server's own kernel manager: started for one run, or already there."""

from __future__ import annotations

import asyncio
import fnmatch
import os
import signal
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any

from jupyter_client.kernelspec import NoSuchKernel
from jupyter_client.manager import KernelManager
from jupyter_client.multikernelmanager import MultiKernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from jupyter_core.utils import ensure_async

from jupyter_nbexec import errors, kernels
from jupyter_nbexec.kernels import provisioner

#: Bytes that the name of a connection file may have if those of its sockets are to fit (they may have 107).
MAX_SOCKET_PATH = 95
#: Seconds that a kernel may take to end when it is asked to.
FAREWELL = 3.0
#: The environment of the request whose kernel is being started in this task; None for everybody else's.
_starting: ContextVar[Mapping[str, str] | None] = ContextVar("jupyter_nbexec_starting", default=None)


def reap_own_kernels(kernel_manager: MultiKernelManager, niceness: int) -> None:
    """Let kernels that this extension starts, and no others, run below the shim.

    A kernel manager makes its own provisioner at the start only if it has none; the factory is the one
    place to give it one. Kernels with a provisioner of their own (remote ones) are left alone.
    """
    original = kernel_manager.kernel_manager_factory

    def make(*args: Any, **kwargs: Any) -> KernelManager:
        manager: KernelManager = original(*args, **kwargs)
        request_env = _starting.get()
        if request_env is None:
            return manager
        # The server lists a kernel shortly before it notes this itself, and cannot list one without it.
        manager.last_activity = datetime.now(tz=timezone.utc)  # type: ignore[attr-defined]
        usual = KernelProvisionerFactory.instance(parent=manager.parent).create_provisioner_instance(
            "", manager.kernel_spec, parent=manager
        )
        if type(usual) is LocalProvisioner:
            reaping = provisioner.ReapingProvisioner(kernel_spec=manager.kernel_spec, parent=manager)
            reaping.request_env = dict(request_env)
            reaping.niceness = niceness
            manager.provisioner = reaping
            _use_sockets_of_files(manager)
        return manager

    kernel_manager.kernel_manager_factory = make


def _use_sockets_of_files(manager: KernelManager) -> None:
    """Talk to an IPython kernel through files that only this user can open, rather than through ports.

    Any process of the machine can listen at a port of the kernel's, and a notebook that prints without end
    fills the queues of the loopback network, at which the server's own clients wait, too.
    """
    spec = manager.kernel_spec
    is_ipykernel = spec is not None and any("ipykernel" in part for part in spec.argv)
    prefix = os.path.abspath(os.path.splitext(manager.connection_file)[0])  # noqa: PTH100, PTH122
    fits = len(os.fsencode(prefix)) < MAX_SOCKET_PATH
    if is_ipykernel and fits and manager.transport == "tcp":
        manager.transport = "ipc"
        manager.ip = f"{prefix}-ipc"  # as jupyter_client names them, and removes them


def kernel_environment(
    server: Mapping[str, str], scrubbed: Iterable[str], request: kernels.KernelRequest
) -> dict[str, str]:
    """Build a kernel's environment: the server's, without what matches `scrubbed`, with the request's own.

    `scrubbed` are shell patterns of names, such as `JUPYTER*TOKEN*`.
    """
    patterns = list(scrubbed)
    kept = {
        name: value
        for name, value in server.items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    return {**kept, "JPY_SESSION_NAME": request.session_name, **request.env}


class ManagedKernel:
    """One kernel of the server's kernel manager, seen from a run."""

    def __init__(self, kernel_manager: Any, kernel_id: str, *, is_owned: bool) -> None:
        self._kernels = kernel_manager
        self._manager = kernel_manager.get_kernel(kernel_id)
        self._process_id = self._current_process_id()
        self.id = kernel_id
        self.name: str = self._manager.kernel_name
        self.is_owned = is_owned
        self.is_leaving = False
        self.source = "cold" if is_owned else "existing"

    def connection_info(self) -> dict[str, Any]:
        """What a client needs to connect: transport, addresses, key."""
        return dict(self._manager.get_connection_info())

    def touch(self) -> None:
        """Note that the kernel is in use: the server's culler goes by this time."""
        self._manager.last_activity = datetime.now(tz=timezone.utc)
        if self.is_owned:
            self._manager.execution_state = "busy"

    async def death(self) -> str | None:
        """None while it lives; else how it ended. A kernel that was restarted has lost the run."""
        if self.id not in self._kernels:
            return "the kernel was shut down"
        if not await ensure_async(self._manager.is_alive()):
            return self._how_it_ended()
        if self._current_process_id() != self._process_id:
            return "the kernel was restarted"
        return None

    async def interrupt(self) -> None:
        """Interrupt what it executes."""
        if self.id in self._kernels and self._manager.has_kernel:
            await ensure_async(self._manager.interrupt_kernel())

    async def kill(self) -> None:
        """Kill it, if it has not ended, without waiting for the manager's own clean-up."""
        if not self.is_owned:
            raise RuntimeError("a kernel that belongs to somebody else is not ours to kill")
        if self.id in self._kernels and self._manager.has_kernel:
            await self._manager.provisioner.kill()

    def _current_process_id(self) -> int | None:
        return getattr(self._manager.provisioner, "pid", None)

    def _how_it_ended(self) -> str:
        process: subprocess.Popen[bytes] | None = getattr(self._manager.provisioner, "process", None)
        code = None if process is None else process.poll()
        if code is None:
            return "the kernel died"
        if code < 0:
            hint = ", possibly for want of memory" if -code == signal.SIGKILL else ""
            return f"the kernel was killed by {signal.Signals(-code).name}{hint}"
        return f"the kernel exited with code {code}"


class ColdSource:
    """Starts a kernel for each run, and ends it afterwards."""

    def __init__(self, kernel_manager: Any, *, scrubbed_env: Iterable[str], niceness: int) -> None:
        self._kernels = kernel_manager
        self._scrubbed = list(scrubbed_env)
        self._reaps = provisioner.is_supported() and isinstance(kernel_manager, MultiKernelManager)
        if self._reaps:
            reap_own_kernels(kernel_manager, niceness)

    @asynccontextmanager
    async def lease(self, request: kernels.KernelRequest) -> AsyncIterator[ManagedKernel]:
        """Start a kernel for the time of the context; it is gone when the context is left."""
        kernel_id = str(uuid.uuid4())
        # Neither half is ever cancelled: a start cut off in the middle would leave a process.
        start = asyncio.ensure_future(self._start(kernel_id, request))
        kernel = None
        try:
            kernel = await asyncio.shield(start)
            yield kernel
        finally:
            is_leaving = kernel is not None and kernel.is_leaving
            await asyncio.shield(self._shut_down(kernel_id, start, is_leaving=is_leaving))

    async def _start(self, kernel_id: str, request: kernels.KernelRequest) -> ManagedKernel:
        token = _starting.set(request.env)
        try:
            spec = await ensure_async(self._kernels.kernel_spec_manager.get_kernel_spec(request.name))
            # IPython's history database is shared by all its kernels: a lock to wait for, and a place
            # where a run's parameters would be kept.
            is_ipykernel = any("ipykernel" in part for part in spec.argv)
            extra = ["--HistoryManager.hist_file=:memory:"] if is_ipykernel else []
            await ensure_async(
                self._kernels.start_kernel(
                    kernel_id=kernel_id,
                    kernel_name=request.name,
                    path=request.path,
                    env=kernel_environment(os.environ, self._scrubbed, request),
                    extra_arguments=extra,
                    # What a notebook writes to its file descriptors is no business of the server's log.
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
        # A kernel that the restarter revives loses the run without a word: see the order of these two
        # in jupyter_client/ioloop/manager.py, where `stop_restarter` does nothing once autorestart is off.
        manager.stop_restarter()
        manager.autorestart = False
        # The run reads the kernel's messages itself. The server's own watcher would check the signature
        # of each of them on the event loop; `touch` does its work.
        self._kernels.stop_watching_activity(kernel_id)
        kernel = ManagedKernel(self._kernels, kernel_id, is_owned=True)
        kernel.touch()
        return kernel

    async def _shut_down(
        self, kernel_id: str, start: asyncio.Future[ManagedKernel], *, is_leaving: bool
    ) -> None:
        await asyncio.wait({start})
        if kernel_id not in self._kernels:
            return  # it never started, or somebody else has shut it down
        manager = self._kernels.get_kernel(kernel_id)
        # A kernel that lives ends by itself: files are flushed and `atexit` handlers run.
        if not is_leaving and manager.has_kernel and await ensure_async(manager.is_alive()):
            await ensure_async(manager.request_shutdown())
        await self._has_ended(manager)
        if kernel_id in self._kernels:
            await ensure_async(self._kernels.shutdown_kernel(kernel_id, now=True))
        # With pending kernels the manager only begins here.
        deadline = time.monotonic() + FAREWELL
        while kernel_id in self._kernels and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    async def _has_ended(self, manager: Any) -> bool:
        """Whether the kernel ends in time; the manager's own way of waiting looks every 100 ms only."""
        deadline = time.monotonic() + FAREWELL
        while manager.has_kernel and await ensure_async(manager.is_alive()):
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.01)
        return True


class ExistingSource:
    """Lends a kernel that is there already, and leaves it alive."""

    def __init__(self, kernel_manager: Any) -> None:
        self._kernels = kernel_manager
        self._lent: set[str] = set()

    def check(self, kernel_id: str) -> str:
        """Return the kernelspec name of a live kernel that is free. Raises KernelNotFound, KernelBusy."""
        if kernel_id not in self._kernels:
            raise errors.KernelNotFound
        manager = self._kernels.get_kernel(kernel_id)
        if kernel_id in self._lent or getattr(manager, "execution_state", "idle") == "busy":
            raise errors.KernelBusy
        name: str = manager.kernel_name
        return name

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
            kernel = ManagedKernel(self._kernels, kernel_id, is_owned=False)
            kernel.touch()
            yield kernel
        finally:
            self._lent.discard(kernel_id)
