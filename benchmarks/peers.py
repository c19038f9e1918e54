"""The environments in which those are installed that we are measured beside."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

#: In git's eyes nowhere.
FOLDER = Path(__file__).parents[1] / ".venv-peer"
#: What each environment has: commands have one without a server, whose libraries make their start slower.
ENVIRONMENTS = {
    "servers": ("ipykernel", "jupyter_kernel_gateway", "jupyter_scheduler"),
    "commands": ("ipykernel", "papermill", "nbclient"),
}


def program(environment: str, name: str) -> Path:
    """Where a program of an environment is."""
    return FOLDER / environment / "bin" / name


def install(environment: str) -> Path:
    """Make an environment, if there is none with all that it should have; its Python."""
    folder, packages = FOLDER / environment, ENVIRONMENTS[environment]
    python = program(environment, "python")
    mark = folder / ".installed"
    wanted = "\n".join(packages)
    if not mark.exists() or mark.read_text(encoding="ascii") != wanted:
        print(f"Installing {', '.join(packages)} into {folder}.", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        command = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
        installed = subprocess.run(command, capture_output=True, text=True, check=False)
        if installed.returncode:
            raise RuntimeError(f"the peers cannot be installed; do without:\n{installed.stderr}")
        mark.write_text(wanted, encoding="ascii")
    return python


def version(environment: str, package: str) -> str:
    """Which release of a peer there is."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    command = (program(environment, "python"), "-c", code)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
