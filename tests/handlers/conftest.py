"""One real server for each test, with the extension on, and a way to talk to it.

`pytest_jupyter`'s fixtures and hooks are imported here rather than loaded as a plugin: some are `autouse`,
and would change the event loop of every other test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import nbformat
import pytest
from pytest_jupyter.jupyter_server import *  # noqa: F403  # its fixtures are found by their names
from tornado.httpclient import HTTPResponse
from traitlets.config import Config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from jupyter_server.serverapp import ServerApp

    from tests.sources import Source

#: Seconds that anything may take here.
DEADLINE = 60.0
#: Folder of the service, below the server's base URL.
SERVICE = "api/nbexec"


def pytest_configure(config: pytest.Config) -> None:
    """Describe the mark that configures a test's server."""
    config.addinivalue_line("markers", "server(**config): configuration of the server, by class and trait")


class Answer:
    """A response, a little easier to read."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.code
        self.headers = response.headers
        self.body: bytes = response.body or b""

    @property
    def media_type(self) -> str:
        """The content type without its parameters."""
        return str(self.headers.get("Content-Type", "")).partition(";")[0]

    @property
    def json(self) -> Any:
        """The body, which holds no NaN and no Infinity."""
        return json.loads(self.body, parse_constant=_refuse_constant)

    def __repr__(self) -> str:
        return f"{self.status} {self.body[:2000]!r}"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@dataclass(frozen=True)
class Event:
    """One Server-Sent Event, or, without a type, a comment."""

    id: int = 0
    type: str = ""
    data: Any = None


class Stream:
    """The events of an answer, as they come."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self, kind: str | None = None) -> Event | None:
        """Read up to the next event, or the next one of a kind; None at the end."""
        while True:
            event = await asyncio.wait_for(self._read(), DEADLINE)
            if event is None or kind in (None, event.type):
                return event

    async def rest(self) -> list[Event]:
        """Read all events to the end."""
        events = []
        while (event := await self.next()) is not None:
            events += [event] if event.type else []
        return events

    async def _read(self) -> Event | None:
        fields: dict[str, str] = {}
        async for line in self._lines:
            if not line and fields:
                if "" in fields:
                    return Event(data=fields[""])
                assert list(fields) == ["id", "event", "data"]
                data = json.loads(fields["data"], parse_constant=_refuse_constant)
                return Event(int(fields["id"]), fields["event"], data)
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        assert not fields
        return None


class Server:
    """The server of this test: its files, its kernels, its answers."""

    def __init__(
        self,
        app: ServerApp,
        root: Path,
        client: Any,
        port: int,
        fetch_headers: dict[str, str],
        kernel_source: Source,
    ) -> None:
        self.app: Any = app
        self.source = kernel_source
        self.root = root
        self.port = port
        self.token = str(app.identity_provider.token)
        self.base_url = app.base_url
        self.auth = fetch_headers
        #: How many kernels were started before the test began.
        self.ahead = 0
        #: Ids of kernels that the test started itself.
        self.lent: set[str] = set()
        self._client = client

    @property
    def extension(self) -> Any:
        """The extension's application."""
        return next(iter(self.app.extension_manager.extension_apps["jupyter_nbexec"]))

    @property
    def runs(self) -> Any:
        """The extension's run manager."""
        return self.app.web_app.settings["jupyter_nbexec"].runs

    @property
    def started(self) -> list[str]:
        """Ids of all kernels that were started, but those that were ready before the test began."""
        return list(self.app.kernel_manager.__dict__.get("started", []))[self.ahead :]

    @property
    def kernel_of_first(self) -> str:
        """Id of the kernel that the first run has, which may have been ready before the test began."""
        started: list[str] = self.app.kernel_manager.__dict__["started"]
        return started[0]

    @property
    def kernels(self) -> list[str]:
        """Ids of the kernels that there are."""
        return list(self.app.kernel_manager.list_kernel_ids())

    def write(self, path: str, *cells: Any, **metadata: Any) -> Path:
        """Save a notebook; its cells are sources of code, or whole cells."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.notebook(*cells, **metadata)), "utf-8")
        return file

    def notebook(self, *cells: Any, **metadata: Any) -> dict[str, Any]:
        """Make a notebook; its cells are sources of code, or whole cells."""
        made = [self.cell(cell) if isinstance(cell, str) else cell for cell in cells]
        for index, cell in enumerate(made):
            cell["id"] = f"id-{index}"
        metadata.setdefault("kernelspec", {"name": "python3", "display_name": "Python", "language": "python"})
        notebook: dict[str, Any] = nbformat.v4.new_notebook(cells=made, metadata=metadata)
        return dict(notebook)

    def cell(self, source: str, *tags: str) -> dict[str, Any]:
        """Make a code cell with tags."""
        cell: dict[str, Any] = nbformat.v4.new_code_cell(
            source, metadata={"tags": list(tags)} if tags else {}
        )
        return cell

    async def fetch(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        *,
        headers: dict[str, str] | None = None,
        auth: bool = True,
        **options: Any,
    ) -> Answer:
        """Send a request; the path is relative to the base URL, and sent as it is."""
        response = await self._client.fetch(
            f"{self.base_url}{path}",
            method=method,
            body=body,
            headers={**(self.auth if auth else {}), **(headers or {})},
            raise_error=False,
            follow_redirects=False,
            request_timeout=DEADLINE,
            allow_nonstandard_methods=True,
            **options,
        )
        # 599 is the client's own word for a connection that ended.
        assert response.code != 599, response.error
        return Answer(response)

    async def run(
        self, path: str, *, headers: dict[str, str] | None = None, query: str = "", **fields: Any
    ) -> Answer:
        """Run the notebook at a path, which is sent as it is."""
        return await self.fetch(
            "POST", f"{SERVICE}/{path}{query}" if path else SERVICE, json.dumps(fields), headers=headers
        )

    async def submit(self, path: str, *, headers: dict[str, str] | None = None, **fields: Any) -> Any:
        """Run the notebook at a path without waiting for it; the run."""
        answer = await self.run(path, headers={"Prefer": "respond-async", **(headers or {})}, **fields)
        assert answer.status == 202, answer
        return answer.json

    async def runs_page(self, query: str = "") -> Any:
        """List runs."""
        answer = await self.fetch("GET", f"{SERVICE}/runs{query}")
        assert answer.status == 200, answer
        return answer.json

    async def get(
        self, run: str, below: str = "", *, headers: dict[str, str] | None = None, method: str = "GET"
    ) -> Answer:
        """Ask for a run, or for what is below it."""
        return await self.fetch(method, f"{SERVICE}/runs/{run}{below}", headers=headers)

    async def ended(self, run: str) -> Any:
        """Wait until a run has ended; the run."""
        answer = await self.get(run, "?wait=60")
        assert answer.status == 200, answer
        assert answer.json["ended"], answer
        return answer.json

    async def cancel(self, run: str) -> Answer:
        """Cancel a run."""
        return await self.fetch("POST", f"{SERVICE}/runs/{run}/cancel", b"")

    @contextlib.asynccontextmanager
    async def follow(
        self,
        run: str | None = None,
        *,
        path: str | None = None,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> AsyncIterator[Stream]:
        """Follow a run, or whatever a path gives, until the context ends; then hang up."""
        path = f"{SERVICE}/runs/{run}/events" if path is None else path
        url = f"http://127.0.0.1:{self.port}{self.base_url}{path}"
        sent = {**self.auth, **(headers or {})}
        async with (
            httpx.AsyncClient(trust_env=False, timeout=DEADLINE) as client,
            client.stream(method, url, headers=sent, content=body) as response,
        ):
            yield Stream(response)

    def gate(self, name: str) -> str:
        """Write a cell that says that it runs, and waits until `open_gate`, or to be interrupted."""
        started, opened = str(self.root / name), str(self.root / f"{name} is open")
        return (
            f"import os, time\nopen({started!r}, 'w').close()\n"
            f"while not os.path.exists({opened!r}): time.sleep(0.01)"
        )

    def open_gate(self, name: str) -> None:
        """Let a `gate` cell end."""
        (self.root / f"{name} is open").touch()

    async def describe(self, path: str, *, method: str = "GET") -> Answer:
        """Describe the notebook at a path."""
        return await self.fetch(method, f"{SERVICE}/{path}")

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection of one's own."""
        return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), DEADLINE)

    def head(self, path: str, *headers: str, method: str = "POST", auth: bool = True) -> bytes:
        """Write the head of a request by hand."""
        credentials = [f"{name}: {value}" for name, value in self.auth.items()] if auth else []
        lines = [f"{method} {self.base_url}{path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        return "\r\n".join([*lines, *credentials, *headers, "", ""]).encode()

    async def raw(self, request: bytes) -> bytes:
        """Send bytes and read until the server closes, or has said something and waits for more."""
        reader, writer = await self.connect()
        try:
            writer.write(request)
            await writer.drain()
            return await asyncio.wait_for(reader.read(1 << 16), DEADLINE)
        except ConnectionError:
            return b""
        finally:
            await self.hang_up(writer)

    @staticmethod
    async def hang_up(writer: asyncio.StreamWriter) -> None:
        """Close a connection, whatever the other side did to it."""
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def lend(self) -> str:
        """Start a kernel of the server's, that is not a run's; its id."""
        created = await self.fetch("POST", "api/kernels", b'{"name": "python3", "path": ""}')
        kernel_id = str(created.json["id"])
        self.lent.add(kernel_id)
        return kernel_id

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what sends no event."""
        deadline = asyncio.get_running_loop().time() + DEADLINE
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, "waited in vain"
            await asyncio.sleep(0.02)

    def long(self, name: str = "started") -> str:
        """Write a cell that says that it runs, and waits to be interrupted."""
        return f"open({str(self.root / name)!r}, 'w').close()\nimport time\ntime.sleep(60)"

    async def is_running(self, name: str = "started") -> None:
        """Wait until a `long` cell runs."""
        await self.until((self.root / name).exists)


@pytest.fixture  # type: ignore[no-redef]  # in place of the one that was imported
def jp_server_config(request: pytest.FixtureRequest, jp_root_dir: Path, kernel_source: Source) -> Config:
    """Configure the server: the extension on, and what the test's mark says."""
    config: dict[str, dict[str, Any]] = {
        "ServerApp": {
            "jpserver_extensions": {"jupyter_nbexec": True, "jupyter_server_terminals": False},
            "allow_unauthenticated_access": False,
        },
        # On a busy machine, kernels that give way to all else hardly get anywhere.
        "NbExec": {"kernel_niceness": 0},
    }
    for name, traits in kernel_source.traits().items():
        config.setdefault(name, {}).update(traits)
    for mark in request.node.iter_markers("server"):
        for name, traits in mark.kwargs.items():
            config.setdefault(name, {}).update(traits)
    return Config(config)


@pytest.fixture
def server(
    jp_serverapp: ServerApp,
    jp_root_dir: Path,
    http_server_client: Any,
    jp_auth_header: dict[str, str],
    jp_asyncio_loop: asyncio.AbstractEventLoop,
    kernel_source: Source,
) -> Iterator[Server]:
    """Give the running server; when the test is over, no kernel of a run may be left."""
    port = http_server_client.get_http_port()
    server = Server(jp_serverapp, jp_root_dir, http_server_client, port, jp_auth_header, kernel_source)
    extension = server.extension
    jp_asyncio_loop.run_until_complete(kernel_source.make_ready(extension._starter, extension._fresh))
    server.ahead = len(server.started)
    yield server

    def is_quiet() -> bool:
        # What is queued when a server stops stays so.
        is_over = server.runs.unfinished == 0 or server.runs.has_stopped.is_set()
        return is_over and set(server.kernels) <= server.lent

    jp_asyncio_loop.run_until_complete(server.until(is_quiet))
