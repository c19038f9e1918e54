"""Install what the tests use besides Python packages: kernels, PostgreSQL, nginx, systemd's tool, and more.

Bash's kernel and Deno come with the Python packages of the extra `test`. R's kernel, PostgreSQL, nginx,
systemd's analyzer and Chromium come from Debian's packages, where this is Debian and we may install; Node.js
comes from PyPI, and JupyterHub's proxy from npm.
With CI=true it is an error if one is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import build_backend

KERNELS = Path(sys.prefix) / "share" / "jupyter" / "kernels"
R_PACKAGE = "r-cran-irkernel"
POSTGRESQL_PACKAGE = "postgresql"
NGINX_PACKAGE = "nginx"
SYSTEMD_PACKAGE = "systemd"
CHROMIUM_PACKAGE = "chromium"
HUB_PROXY = "configurable-http-proxy"


def main() -> int:
    """Install what is missing; tell what still is."""
    tools = {
        "bash's kernel": bash,
        "Deno's kernel": deno,
        "R's kernel": r,
        "PostgreSQL": postgresql,
        "nginx": nginx,
        "systemd-analyze": systemd,
        "Node.js": node,
        "JupyterHub's proxy": hub_proxy,
        "Chromium": chromium,
    }
    missing = [name for name, install in tools.items() if not install()]
    leave_grammars_out()
    for name in missing:
        sys.stderr.write(f"{name} is not available here; its tests are skipped.\n")
    return 1 if missing and os.environ.get("CI") == "true" else 0


def bash() -> bool:
    """Describe bash_kernel, from the package index."""
    if shutil.which("bash") is None:
        return False
    argv = [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"]
    return write("bash", {"argv": argv, "display_name": "Bash", "language": "bash", "env": {"PS1": "$"}})


def deno() -> bool:
    """Describe Deno's own kernel; Deno comes from the package index too."""
    program = shutil.which(
        "deno", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    )
    if program is None or not succeeds(program, "--version"):
        return False
    argv = [program, "jupyter", "--kernel", "--conn", "{connection_file}"]
    return write("deno", {"argv": argv, "display_name": "Deno", "language": "typescript"})


def r() -> bool:
    """Describe R's kernel, after installing it where that is missing and possible."""
    if not has_r():
        install_from_debian(R_PACKAGE)
    if not has_r():
        return False
    program = shutil.which("R") or "R"
    argv = [program, "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"]
    return write("ir", {"argv": argv, "display_name": "R", "language": "R"})


def has_r() -> bool:
    """Tell whether R is here, with its kernel."""
    return succeeds("Rscript", "-e", "stopifnot(requireNamespace('IRkernel', quietly = TRUE))")


def postgresql() -> bool:
    """Find the programs of PostgreSQL, after installing them where they are missing and that is possible."""
    if not has_postgresql():
        install_from_debian(POSTGRESQL_PACKAGE)
    return has_postgresql()


def has_postgresql() -> bool:
    """Tell whether a PostgreSQL server is here, where Debian puts it or on the PATH."""
    return bool(shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb")))


def nginx() -> bool:
    """Find nginx, which Debian does not put on everybody's PATH, after installing it where it is missing."""
    if not has_nginx():
        install_from_debian(NGINX_PACKAGE)
    return has_nginx()


def has_nginx() -> bool:
    """Tell whether nginx is here."""
    return any(shutil.which("nginx", path=path) for path in (os.environ.get("PATH"), "/usr/sbin"))


def systemd() -> bool:
    """Find the tool that checks units, which needs no systemd to run."""
    if shutil.which("systemd-analyze") is None:
        install_from_debian(SYSTEMD_PACKAGE)
    return shutil.which("systemd-analyze") is not None


def node() -> bool:
    """Install the Node.js that builds take where the system has none: they are tried with both."""
    if not (Path(sys.executable).parent / "node").exists():
        succeeds(sys.executable, "-m", "pip", "install", "--quiet", build_backend.NODE)
    return build_backend.has_node()


def leave_grammars_out() -> None:
    """Remove what costs each Jupyter process of the tests a second of processor time at its start.

    jsonschema imports it where it is there, for formats of addresses that nothing here checks; when imported,
    it compiles 38 grammars. The tests start hundreds of processes.
    """
    succeeds(sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", "rfc3987-syntax")


def hub_proxy() -> bool:
    """Install the proxy of JupyterHub into this environment, where it is missing and there is npm."""
    path = build_backend.search_path()
    npm = shutil.which("npm", path=path)
    if npm is not None and shutil.which(HUB_PROXY, path=path) is None:
        options = ("--global", "--prefix", sys.prefix, "--silent", "--no-audit", "--no-fund")
        succeeds(npm, "install", *options, f"{HUB_PROXY}@^5", env={**os.environ, "PATH": path})
    return shutil.which(HUB_PROXY, path=path) is not None


def chromium() -> bool:
    """Find a Chromium, after installing Debian's where it is missing and that is possible."""
    if not has_chromium():
        install_from_debian(CHROMIUM_PACKAGE)
    return has_chromium()


def has_chromium() -> bool:
    """Tell whether a Chromium is on the PATH."""
    return any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))


def install_from_debian(package: str) -> None:
    """Install one of Debian's packages, if this is Debian and we may."""
    if shutil.which("apt-get") is None:
        return
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", package]):
        if not succeeds(*root, "apt-get", "-q", *arguments, env=environment):
            return


def succeeds(*command: str, env: dict[str, str] | None = None) -> bool:
    """Run a command quietly; tell whether it exists and ends well."""
    try:
        return subprocess.run(command, stdout=subprocess.DEVNULL, env=env, check=False).returncode == 0  # noqa: S603
    except FileNotFoundError:
        return False


def write(name: str, spec: dict[str, object]) -> bool:
    """Write a kernelspec into this environment."""
    folder = KERNELS / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kernel.json").write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")
    return True


if __name__ == "__main__":
    sys.exit(main())
