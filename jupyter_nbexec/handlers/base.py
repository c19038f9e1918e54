"""What all handlers share: the body as a stream, errors as JSON, access to the parts."""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import jinja2
from jupyter_core.utils import ensure_async
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import httputil, web

from jupyter_nbexec import (
    background,
    caching,
    errors,
    models,
    negotiation,
    outputs,
    planning,
    rendering,
    requests,
    runs,
)
from jupyter_nbexec.serving import services

T = TypeVar("T")

#: The resource under which an authorizer decides on all that this extension does.
RESOURCE = "jupyter_nbexec:runs"

#: Bytes of answers that are kept.
KEPT = 32 << 20
#: Seconds that requests have to end when all they could wait for has, and then when they are cut off.
SETTLING = 2.0

#: What may stand in a URL: what jupyter_server itself reads there. All else is in the body: URLs are logged.
QUERY = frozenset({"token", "_xsrf", "no_track_activity"})

#: What who is nobody is told, whatever it was that found it out.
NOT_AUTHENTICATED = "Not authenticated: send `Authorization: token …`."

#: Codes for what jupyter_server and tornado refuse by themselves.
CODES = {
    400: "invalid_request",
    401: "not_authenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
}


PACKAGE: Final = Path(__file__).parents[1]

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(PACKAGE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The body of an answer with a run that has ended."""

    #: What the run was then: its webhook may still change.
    record: models.RunRecord
    body: bytes
    media_type: str
    #: Whether it is the run as JSON, and nothing that the notebook has made.
    is_run: bool


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What handlers need; the application builds it."""

    planner: planning.Planner
    runs: runs.RunManager
    services: services.Services
    renderer: rendering.Renderer
    max_timeout: float
    max_body_bytes: int
    body_timeout: float
    require_kernel_authorization: bool
    #: Whether people see their own runs only.
    private_runs: bool
    #: What was answered of runs that have ended, by run and what was accepted.
    answers: caching.Cache[Answer] = field(default_factory=lambda: caching.Cache(KEPT))
    #: Requests that are being answered.
    pending: set[NbexecHandler] = field(default_factory=set)

    async def settle(self) -> None:
        """When the server stops: have all requests end.

        A thread in which the contents manager has worked for one ends with it, and is waited for at the end
        of the process. If it stayed, so would the process.
        """
        if await self._wait_for_requests(SETTLING):
            return
        for handler in list(self.pending):
            handler.hang_up()
        await self._wait_for_requests(SETTLING)

    async def _wait_for_requests(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.pending and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return not self.pending


class NbexecHandler(APIHandler):
    """Writes every error as `{"message", "reason", "code", …}`, and never a traceback."""

    auth_resource = RESOURCE
    #: Whether errors repeat the phrase of their status as the reason.
    has_reasons = False
    #: Methods that the resource has, for `Allow`.
    methods: tuple[str, ...] = ("GET", "HEAD")
    #: Whether the server goes by the name that it was asked under.
    _is_host_known = True

    @property
    def parts(self) -> Parts:
        """The parts that the application has built."""
        parts: Parts = self.settings["jupyter_nbexec"]
        return parts

    async def prepare(self) -> None:  # type: ignore[override]  # as APIHandler itself does
        """Refuse headers that would take long to read, before anything reads them."""
        requests.check_headers(self.request.headers.get_list)
        await super().prepare()

    def accept(self) -> negotiation.Accept:
        """What the client accepts."""
        if self._accepted is None:
            self._accepted = negotiation.parse_accept(", ".join(self.request.headers.get_list("Accept")))
        return self._accepted

    _accepted: negotiation.Accept | None = None

    async def _execute(self, *args: Any, **kwargs: Any) -> None:
        """As tornado's, which is all that becomes of a request."""
        self.parts.pending.add(self)
        try:
            await super()._execute(*args, **kwargs)
        finally:
            self.parts.pending.discard(self)

    def hang_up(self) -> None:
        """Close the connection, so that nobody waits for what is left to do."""
        connection: Any = self.request.connection
        connection.close()

    def _request_summary(self) -> str:
        """As tornado's, for the log, without the query."""
        return summary(self.request)

    @property
    def user(self) -> str | None:
        """Whose runs these are, where people see their own only; else None."""
        if not self.parts.private_runs:
            return None
        name: str = self.current_user.username
        return name

    @property
    def caller(self) -> str | None:
        """The name of who asks; None for those without one, to whom Jupyter gives a name by chance."""
        user = self.current_user
        name: str = user.display_name or user.name or user.username
        return None if name.startswith("Anonymous ") else name

    @property
    def service(self) -> str:
        """The URL path of `/api/nbexec`."""
        path: str = url_path_join(self.base_url, "api/nbexec")
        return path

    async def require(self, action: str, resource: str) -> None:
        """Raise 403 unless the user may do this."""
        if not self.current_user:
            raise web.HTTPError(403)
        allowed = await ensure_async(self.authorizer.is_authorized(self, self.current_user, action, resource))
        if not allowed:
            raise web.HTTPError(403, "%s", f"You are not authorized to {action} {resource}.")

    async def require_reading(self) -> None:
        """Raise 403 unless the user may know which notebooks there are, and what is in them."""
        if self.parts.require_kernel_authorization:
            await self.require("read", "contents")

    async def require_execution(self) -> None:
        """Running a notebook is running code and reading a file: a site's own rules for these count too."""
        await self.require("execute", RESOURCE)
        if self.parts.require_kernel_authorization:
            await self.require("execute", "kernels")
        await self.require_reading()

    @property
    def is_nobody(self) -> bool:
        """Whether it was asked who sends this, and it is nobody."""
        return self._is_host_known and hasattr(self, "_jupyter_current_user") and not self.current_user

    def check_host(self) -> bool:
        """As inherited, and remembered: who comes by a name of another host is not asked who they are."""
        self._is_host_known = super().check_host()
        return self._is_host_known

    def query(self, name: str) -> str | None:
        """What the URL says of this, as it was sent: tornado itself would strip it and replace controls."""
        values = self.request.query_arguments.get(name)
        return str(self.decode_argument(values[-1], name)) if values else None

    async def finish_json(self, document: Callable[[], Any], size: int = 0) -> None:
        """Answer with JSON: what a function makes of about so many bytes, which may take long."""
        self.finish(await background.offload(size, lambda: outputs.dumps(document())))

    def compute_etag(self) -> str | None:
        """As tornado's, which looks at every byte, but of small answers only."""
        is_small = sum(map(len, self._write_buffer)) <= background.SMALL
        return super().compute_etag() if is_small else None

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Give our own errors their own status."""
        error = _error_in(kwargs)
        if isinstance(error, errors.NbexecError):
            status_code = int(error.status)
        super().send_error(status_code, **kwargs)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write the error that ended the request."""
        error = _error_in(kwargs)
        phrase = http.client.responses.get(status_code, "Error")
        document: dict[str, Any] = {
            "message": phrase,
            "reason": phrase if self.has_reasons else None,
            "code": CODES.get(status_code, "error"),
        }
        if isinstance(error, errors.NbexecError):
            document.update(message=error.message, code=error.code, **error.details)
            for name, value in error.headers.items():
                self.set_header(name, value)
        elif isinstance(error, web.HTTPError):
            if error.log_message:
                document["message"] = error.log_message % error.args if error.args else error.log_message
            document["reason"] = error.reason or document["reason"]
        elif error is not None:
            document.update(
                message=f"Internal error; the server's log has it under {self._reference}.",
                code="internal_error",
                reference=self._reference,
            )
        if status_code in (401, 403) and self.is_nobody:
            # That a token of another kind is missing, which jupyter_server looks for first, is no help.
            document["message"] = NOT_AUTHENTICATED
        if status_code == 403 and not self._is_host_known:
            document["message"] = "This server does not go by that name: see ServerApp.local_hostnames."
        if status_code == 405 and not isinstance(error, errors.NbexecError):
            self.set_header("Allow", ", ".join(self.methods))
            document["message"] = f"Only {', '.join(self.methods)} can be used here."
        self.finish(json.dumps(document))

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Log a fault of ours under the reference that the client is given; refusals are no faults."""
        if isinstance(value, errors.NbexecError):
            self.log.debug("refused: %s", value.code)
            return
        if isinstance(short := _in_words(value), errors.OutOfResources):
            self.log.error("%s", short.message)
            return
        if isinstance(value, web.HTTPError) or typ is None or value is None:
            super().log_exception(typ, value, tb)
            return
        self._reference = str(uuid.uuid4())
        self.log.error("internal error %s", self._reference, exc_info=(typ, value, tb))

    _reference = ""


class GatedHandler(NbexecHandler):
    """On a server without a page to log in: who is nobody is told to say who they are."""

    #: Kernel Gateway's clients read it.
    has_reasons = True

    def check_host(self) -> bool:
        """As inherited, and by any address: it is names that somebody else can make to point here."""
        self._is_host_known = _is_address(self.request.host_name) or super().check_host()
        return self._is_host_known

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """As inherited, but who is nobody gets 401."""
        if status_code == 403 and self.is_nobody and self.identity_provider.auth_enabled:
            status_code = 401
            kwargs.pop("exc_info", None)
        super().send_error(status_code, **kwargs)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """As inherited, with the header that RFC 9110 wants."""
        if status_code == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        super().write_error(status_code, **kwargs)


@web.stream_request_body
class BodyHandler(NbexecHandler):
    """Checks who asks, whether they may, and how much they send, before a body is read.

    A plain handler reads up to 512 MiB first, from anybody.
    """

    methods: tuple[str, ...] = ("POST",)
    #: Methods whose requests are checked, and may have a body.
    checked_methods = frozenset({"POST"})

    async def prepare(self) -> None:  # type: ignore[override]  # as APIHandler itself does
        """Refuse what can be refused by the headers."""
        await super().prepare()
        self._chunks: list[bytes] = []
        if self.request.method not in self.checked_methods:
            return
        if not self.current_user:
            raise web.HTTPError(403)
        await self.check_headers()
        self.check_media_type()
        limit = self.parts.max_body_bytes
        length = self.request.headers.get("Content-Length", "0")
        if limit and length.isdigit() and int(length) > limit:
            raise errors.BodyTooLarge(f"The body has {length} bytes; this server takes {limit}.")
        connection: Any = self.request.connection
        if limit:
            # A body in chunks tells its length only as it comes: leave room to refuse it by ourselves.
            connection.set_max_body_size(2 * limit + (1 << 20))
        if self.parts.body_timeout:
            loop = asyncio.get_running_loop()
            self._body_deadline = loop.call_later(self.parts.body_timeout, connection.close)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """As inherited; a connection with a body on it that nobody will read cannot be used again."""
        if not self._is_read:
            self.set_header("Connection", "close")
        super().write_error(status_code, **kwargs)

    _body_deadline: asyncio.TimerHandle | None = None
    #: Bytes of the body that have come.
    received = 0
    _is_read = False

    async def check_headers(self) -> None:
        """Refuse what the concrete resource can refuse by the headers."""

    def check_media_type(self) -> None:
        """Refuse a body of a type that is not read here."""
        requests.check_media_type(
            self.request.headers.get("Content-Type"), self.request.headers.get("Content-Encoding")
        )

    def data_received(self, chunk: bytes) -> None:
        """Keep a piece of the body, unless it is too large already."""
        self.received += len(chunk)
        if self.parts.max_body_bytes and self.received > self.parts.max_body_bytes:
            self._chunks.clear()
            return
        self._chunks.append(chunk)

    async def body(self) -> Any:
        """Return the whole body, read as JSON. Raises InvalidJson."""
        return await self.with_body(requests.parse_json)

    async def with_body(self, function: Callable[[bytes], T]) -> T:
        """Call a function with the whole body, in a thread if that is large. Raises BodyTooLarge."""
        pieces = self._pieces()
        return await background.offload(self.received, lambda: function(b"".join(pieces)))

    def _pieces(self) -> list[bytes]:
        if self._body_deadline is not None:
            self._body_deadline.cancel()
        self._is_read = True
        limit = self.parts.max_body_bytes
        if limit and self.received > limit:
            raise errors.BodyTooLarge(f"The body has {self.received} bytes; this server takes {limit}.")
        return self._chunks

    def on_connection_close(self) -> None:
        """Forget the deadline of a body that will not come."""
        if self._body_deadline is not None:
            self._body_deadline.cancel()
        super().on_connection_close()


def render(template: str, **values: str) -> str:
    """Write a page of ours; values are text in it, whatever they hold."""
    return _TEMPLATES.get_template(template).render(**values)


def summary(request: httputil.HTTPServerRequest) -> str:
    """Name a request in the log, without its query: it may hold a token."""
    return f"{request.method} {request.path} ({request.remote_ip})"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _error_in(kwargs: dict[str, Any]) -> BaseException | None:
    info = kwargs.get("exc_info")
    return _in_words(info[1]) if info else None


def _in_words(error: BaseException | None) -> BaseException | None:
    """Say what is short, whatever it was that failed for want of it."""
    what = None if isinstance(error, errors.NbexecError) else errors.shortage(error)
    return error if what is None else errors.OutOfResources(what)
