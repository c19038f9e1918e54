"""Where a run's kernel comes from: one seam, and the family of its implementations."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from jupyter_nbexec.kernels.opened import Opened


class KernelStartError(Exception):
    """The kernel could not be started; the text is fit for a client."""


@dataclass(frozen=True, kw_only=True)
class KernelRequest:
    """Which kernel a run needs."""

    name: str  #: of the kernelspec
    id: str | None = None  #: of a live kernel to be lent; None: any kernel nobody else uses
    path: str = ""  #: contents path of the folder that is to be its working directory
    session_name: str = ""  #: what the kernel learns as JPY_SESSION_NAME: the notebook's path
    env: dict[str, str] = field(default_factory=dict, repr=False)  #: on top of the server's own; secret


class LeasedKernel(Protocol):
    """A kernel of the server's, for the time of one run. Used on the server's own event loop."""

    @property
    def id(self) -> str:
        """The server's id of it."""

    @property
    def name(self) -> str:
        """The name of its kernelspec."""

    @property
    def source(self) -> str:
        """Where it came from: `cold`, `warm`, `forked`, `remote` or `existing`."""

    @property
    def is_owned(self) -> bool:
        """Whether the run may end it."""

    is_leaving: bool
    """Whether it has been asked to end, and is about to."""

    is_settled: bool
    """Whether it has nothing more to say until then."""

    @property
    def opened(self) -> Opened | None:
        """A connection to it, if somebody has made one ahead of the run."""

    has_answered: bool
    """Whether anybody has been answered by it."""

    def last_words(self) -> str:
        """Tell what its process has said last, as far as that is known, without the request's secrets."""

    def connection_info(self) -> dict[str, Any]:
        """What a client needs to connect: transport, addresses, key."""

    def touch(self) -> None:
        """Note that it is in use, so that it is not culled."""

    async def death(self) -> str | None:
        """None while it lives; else how it ended, for a person."""

    async def interrupt(self) -> None:
        """Interrupt what it executes."""

    async def kill(self) -> None:
        """End it and all it has started, now. Only if it is owned."""


class KernelSource(Protocol):
    """Hands out kernels and takes them back."""

    def lease(self, request: KernelRequest) -> AbstractAsyncContextManager[LeasedKernel]:
        """Give a kernel for the time of the context. Raises KernelStartError."""


class FreshKernels(KernelSource, Protocol):
    """Hands out kernels that nobody has used, and ends them."""

    def lend(self, kernel: Any) -> AbstractAsyncContextManager[LeasedKernel]:
        """Give this kernel, which has been taken, for the time of the context, and end it."""

    async def stop(self) -> None:
        """End all that nobody uses, and wait for the ends of the others. When no run is left."""
