"""Which server a command is for."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from jupyter_nbexec import client
from jupyter_nbexec.cli import exits

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True)
class Server:
    """A running local server, as its runtime file tells."""

    url: str
    root: str  #: the folder that contents paths are relative to
    token: str = field(default="", repr=False)


@contextlib.contextmanager
def connected(arguments: argparse.Namespace) -> Iterator[client.Client]:
    """A client of the server that is asked for or found."""
    with _chosen(arguments, None) as (found, _):
        yield found


@contextlib.contextmanager
def connected_for(arguments: argparse.Namespace, path: str) -> Iterator[tuple[client.Client, str]]:
    """A client of the server that is asked for, or has a notebook, and the notebook's contents path there."""
    with _chosen(arguments, path) as found:
        yield found


@contextlib.contextmanager
def _chosen(arguments: argparse.Namespace, path: str | None) -> Iterator[tuple[client.Client, str]]:
    token = arguments.token or os.environ.get("NBEXEC_TOKEN")
    local: Server | None = None
    if arguments.server is not None:
        url = arguments.server
    elif path is None:
        local = find_any()
        url = local.url
    else:
        local, path = find_server(path)
        url = local.url
    try:
        if not token and "token=" not in urlsplit(url).query:
            local = local or next(
                (server for server in running_servers() if _same_place(server.url, url)), None
            )
            token = (local.token if local else "") or os.environ.get("JUPYTER_TOKEN")
        with client.Client(url, token or None) as found:
            yield found, path or ""
    except ValueError as error:
        raise exits.UsageError(str(error)) from error


def running_servers() -> list[Server]:
    """Tell which local servers of this user run, by their runtime files."""
    # Jupyter Server can tell it too, but its import takes longer than most runs.
    from jupyter_core import paths

    folder = Path(paths.jupyter_runtime_dir())
    found = (_announced(file) for file in folder.glob("jpserver-*.json"))
    return sorted((server for server in found if server is not None), key=lambda server: server.url)


def _announced(file: Path) -> Server | None:
    """The server that a runtime file tells of; None if it has ended, or the file is none."""
    import psutil

    try:
        # A server that stops removes its file; one that starts may not have written it yet.
        info = json.loads(file.read_bytes())
        server = Server(_reachable(info["url"]), str(info["root_dir"]), info.get("token") or "")
        return server if psutil.pid_exists(info["pid"]) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def find_server(path: str) -> tuple[Server, str]:
    """Find the running local server that serves a notebook; return it and the notebook's path there.

    Of several, the one whose root folder is nearest to the notebook. Where none serves such a file,
    the path is taken for a contents path of the server that serves the current folder, or of the only one.
    """
    servers = _some_servers()
    candidates = [Path(os.path.abspath(path)), Path(path).resolve()]  # noqa: PTH100 - keeps symbolic links
    for file in candidates:
        if file.exists() and (served := _nearest(servers, file)):
            return served
    server = _here(servers)
    if server is None or candidates[0].exists():
        raise exits.NoServerError(
            f"No running server serves {path}; name one with --server. Running: {_listed(servers)}"
        )
    if (Path(server.root) / path).exists() or not (served := _nearest([server], candidates[0])):
        return server, Path(path).as_posix()
    return served


def find_any() -> Server:
    """Find the running local server that serves the current folder, or the only one."""
    servers = _some_servers()
    server = _here(servers)
    if server is None:
        raise exits.NoServerError(
            f"Several servers are running, none of which serves this folder; name one with --server. "
            f"Running: {_listed(servers)}"
        )
    return server


def _some_servers() -> list[Server]:
    servers = running_servers()
    if not servers:
        raise exits.NoServerError("No Jupyter server is running here; start one, or name one with --server.")
    return servers


def _here(servers: list[Server]) -> Server | None:
    """The server of the current folder, or the only one."""
    if served := _nearest(servers, Path.cwd() / "any"):
        return served[0]
    return servers[0] if len(servers) == 1 else None


def _listed(servers: list[Server]) -> str:
    return ", ".join(f"{server.url} ({server.root})" for server in servers)


def _nearest(servers: Iterable[Server], file: Path) -> tuple[Server, str] | None:
    """The server with the deepest root folder that has this file, and the file's path below it."""
    roots = (
        (root, server) for server in servers for root in (Path(server.root), Path(server.root).resolve())
    )
    serving = [(root, server) for root, server in roots if file.is_relative_to(root)]
    if not serving:
        return None
    root, server = max(serving, key=lambda entry: len(entry[0].parts))
    return server, file.relative_to(root).as_posix()


def _reachable(url: str) -> str:
    """The URL with the address "any" replaced by one that can be connected to."""
    return url.replace("://0.0.0.0:", "://127.0.0.1:", 1).replace("://[::]:", "://[::1]:", 1)


def _same_place(one: str, other: str) -> bool:
    """Whether two URLs of a server mean the same one."""

    def place(url: str) -> tuple[str, str, int | None, str]:
        parts = urlsplit(url)
        host = "127.0.0.1" if parts.hostname in ("localhost", "::1") else parts.hostname or ""
        return parts.scheme, host, parts.port, parts.path.rstrip("/")

    try:
        return place(one) == place(other)
    except ValueError:
        return False
