"""An ipykernel that writes down every request it gets, one type a line, to the file NBEXEC_REQUESTS names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp


class CountingKernel(IPythonKernel):
    """Counts what arrives on its shell and control channels."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        for handlers in (self.shell_handlers, self.control_handlers):
            for name, handler in list(handlers.items()):
                handlers[name] = _counted(name, handler)


def _counted(name: str, handler: Any) -> Any:
    def handle(*args: Any, **kwargs: Any) -> Any:
        with Path(os.environ["NBEXEC_REQUESTS"]).open("a") as file:
            file.write(f"{name}\n")
        return handler(*args, **kwargs)

    return handle


if __name__ == "__main__":
    IPKernelApp.launch_instance(kernel_class=CountingKernel)
