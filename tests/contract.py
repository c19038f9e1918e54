"""A small real server that speaks the contract of runs, from a script of its own."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

ID = "0e3b2f6c-1111-4222-8333-444455556666"
OTHER = "1e3b2f6c-1111-4222-8333-444455556666"
RUN: dict[str, Any] = {
    "id": ID,
    "path": "reports/sum.ipynb",
    "status": "succeeded",
    "created": "2026-11-20T10:00:00.000Z",
    "started": "2026-11-20T10:00:01.000Z",
    "ended": "2026-11-20T10:00:02.500Z",
    "duration": 1.5,
    "progress": {"done": 2, "total": 2, "cell": None},
    "result": 15,
    "outputs": [],
    "error": None,
    "warnings": [],
}
QUEUED = {
    **RUN,
    "status": "queued",
    "started": None,
    "ended": None,
    "duration": None,
    "progress": {"done": 0, "total": 2, "cell": None},
    "result": None,
}
RUNNING = {**QUEUED, "status": "running", "started": RUN["started"]}
FAILED = {
    **RUN,
    "status": "failed",
    "result": None,
    "error": {
        "code": "cell_error",
        "message": "ValueError: \x1b[2Jbad",
        "traceback": ["\x1b[31mTraceback\x1b[0m", "\x1b]0;title\x07ValueError: bad"],
    },
}
CANCELLED = {**RUN, "status": "cancelled", "result": None}
NOT_FOUND = {"message": "There is no such run.", "reason": None, "code": "run_not_found"}


class ContractServer(http.server.ThreadingHTTPServer):
    """Keeps runs as JSON, and plays the events of each."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/base/"
        self.runs: list[dict[str, Any]] = [RUN]
        #: What `?wait=` is answered with, one after another.
        self.waited: list[dict[str, Any]] = []
        self.events: list[tuple[str, Any]] = []  #: their ids are their places, from 1
        #: Connections to the events end after so many events, one after another; the last ones go on.
        self.cuts: list[int] = []
        self.is_held = False  #: the stream stays open after the last event
        self.played = threading.Event()  #: all events of a stream that is held were sent
        self.hung_up = threading.Event()  #: the client closed a stream that was held
        self._held: list[socket.socket] = []
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []

    def hold(self, connection: socket.socket) -> None:
        """Keep a connection until the client, or `drop`, ends it."""
        self._held.append(connection)
        self.played.set()
        if connection.recv(1) == b"":
            self.hung_up.set()

    def drop(self) -> None:
        """End all connections that are held, as a server that is killed does."""
        for connection in self._held:
            connection.shutdown(socket.SHUT_RDWR)


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    server: ContractServer
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        """Let clients hang up."""
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def do_GET(self) -> None:
        """Answer a request."""
        url = urlsplit(self.path)
        name = url.path.removeprefix("/base/api/nbexec/")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.command, name + (f"?{url.query}" if url.query else "")))
        self.server.bodies.append(json.loads(body) if body else None)
        self.server.headers.append(dict(self.headers))
        if name == "runs":
            return self._list({key: values[0] for key, values in parse_qs(url.query).items()})
        if name == "runs/prune":
            return self._answer(200, {"deleted": 3})
        if not name.startswith("runs/"):
            return self._answer(202, QUEUED)
        _, run_id, *below = name.split("/")
        run = next((run for run in self.server.runs if run["id"] == run_id), None)
        if run is None:
            return self._answer(404, NOT_FOUND)
        return self._one(run, "".join(below), url.query)

    do_POST = do_GET  # noqa: N815 - http.server's names
    do_DELETE = do_GET  # noqa: N815

    def _list(self, query: dict[str, str]) -> None:
        start, limit = int(query.get("cursor", "0")), int(query["limit"])
        runs = [
            run
            for run in self.server.runs
            if query.get("path") in (None, run["path"]) and query.get("status") in (None, run["status"])
        ]
        cursor = str(start + limit) if start + limit < len(runs) else None
        self._answer(200, {"runs": runs[start : start + limit], "cursor": cursor})

    def _one(self, run: dict[str, Any], below: str, query: str) -> None:
        if below == "events":
            self._play()
        elif below == "notebook":
            kind = self.headers["Accept"]
            self._answer(
                200, b"<p>\x1b[2J\xc2\x9b\xc3\xa9</p>" if kind == "text/html" else b'{"cells": []}', kind
            )
        elif below == "cancel":
            ended = run["status"] not in ("queued", "running")
            refusal = {"message": "The run has ended.", "reason": None, "code": "run_ended"}
            self._answer(409, refusal) if ended else self._answer(202, run)
        elif self.command == "DELETE":
            self.server.runs.remove(run)
            self.send_response(204)
            self.end_headers()
        else:
            self._answer(200, self.server.waited.pop(0) if query and self.server.waited else run)

    def _answer(self, status: int, body: Any, kind: str = "application/json") -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _play(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        after = int(self.headers.get("Last-Event-ID", 0))
        cut = self.server.cuts.pop(0) if self.server.cuts else len(self.server.events)
        for number, (kind, data) in enumerate(self.server.events[:cut], 1):
            if number > after:
                self._chunk(f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n")
        if cut < len(self.server.events):
            self._chunk(f"id: {cut + 1}\nevent: output\ndata: {{")  # and nothing more: the connection breaks
            return
        if self.server.is_held:
            self.server.hold(self.connection)
            return
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        content = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(server: ContractServer) -> Iterator[ContractServer]:
    """Serve in the background."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)


def stream(text: str, name: str = "stdout") -> tuple[str, dict[str, Any]]:
    """An event: text that a cell puts out."""
    return "output", {"cell": 1, "cell_id": "b", "output_type": "stream", "name": name, "text": text}


def cell(index: int | None, state: str) -> tuple[str, dict[str, Any]]:
    """An event: a cell begins or ends."""
    return "cell", {"cell": index, "cell_id": None, "state": state, "execution_count": None}
