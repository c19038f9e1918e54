"""A local kernel behind the shim: everything it starts is gone when it is (Linux)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from jupyter_nbexec.kernels import lastwords

SHIM = Path(__file__).with_name("shim.py")


def is_supported() -> bool:
    """Whether this platform has what the shim needs: subreapers, PR_SET_PDEATHSIG and /proc."""
    return sys.platform == "linux" and bool(sys.executable) and Path("/proc/self/stat").exists()


class ReapingProvisioner(LocalProvisioner):
    """`LocalProvisioner` with `shim.py` between the server and the kernel.

    Exit code, signals and interrupts are as without it: the shim passes them on, and ends as the kernel
    does. The process id that the server knows is the shim's.
    """

    #: Environment variables of the request, which win over those of the kernelspec.
    request_env: dict[str, str] | None = None
    #: By how much the kernel gives way to the server, as `nice` counts.
    niceness: int = 0
    #: What the process that was launched last has said.
    words: lastwords.LastWords | None = None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """As inherited, and let the request's own environment win over the kernelspec's."""
        prepared = await super().pre_launch(**kwargs)
        prepared["env"].update(self.request_env or {})
        return prepared

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Launch the kernel below a shim that watches this process."""
        shim = [sys.executable, "-I", "-S", str(SHIM), str(os.getpid()), str(self.niceness)]
        with self.listening() as descriptor:
            streams = {"stdout": descriptor, "stderr": descriptor}
            return await super().launch_kernel([*shim, *cmd], **{**kwargs, **streams})

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Give the descriptor that the kernel is to have for its output; it has it when this is left."""
        self.words = lastwords.LastWords((self.request_env or {}).values())
        with self.words.handing_over() as descriptor:
            yield descriptor

    async def cleanup(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002 - as inherited
        """As inherited, and listen no more."""
        await super().cleanup(restart)
        if self.words is not None:
            self.words.close()

    async def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel's group; one that is to end it goes to the shim alone.

        The shim passes SIGTERM on as SIGKILL to everything below it. Were it killed itself, what the
        kernel had started in other sessions would be left to init.
        """
        process = cast("subprocess.Popen[bytes] | None", self.process)
        if process is None:
            return
        if signum in (signal.SIGTERM, signal.SIGKILL):
            process.send_signal(signal.SIGTERM)
            # A notebook may have stopped its whole group, the shim included.
            process.send_signal(signal.SIGCONT)
            return
        await super().send_signal(signum)
