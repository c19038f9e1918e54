"""What each method of the clients does, as steps that a blocking and an async driver carry out alike.

A flow is a generator: it yields a step, and is sent the step's answer or thrown its ClientError. It sends
nothing, waits for nothing and knows no clock by itself.
"""

from __future__ import annotations

import functools
import json
import math
import uuid
from collections.abc import Generator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, overload
from urllib.parse import quote, urlencode

from jupyter_nbexec import models
from jupyter_nbexec.client import address, answers, sse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx
    from typing_extensions import Unpack

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)

#: Seconds that the server holds a long poll at most.
LONGEST_POLL = 60.0
#: Seconds beyond those that were asked for after which a connection counts as lost.
POLL_MARGIN = 30.0
#: The server says something every 15 s; one that was silent for so many seconds is gone.
LONGEST_SILENCE = 45.0
#: The most runs that a page may have.
LARGEST_PAGE = 500
#: What a server, or a proxy before it, answers while it is stopped, started or flooded.
_PASSING = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


@dataclass(frozen=True, kw_only=True)
class Call(Generic[_T]):
    """A step: send one request, and read its answer."""

    method: str
    path: str  #: percent-encoded, below the server's base URL
    read: Callable[[httpx.Response], _T]
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    read_timeout: float | None = None  #: seconds; None: as the client is set

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Build the request with what the client adds to each."""
        headers = {"Accept": answers.JSON, **self.headers}
        if self.body is not None:
            headers["Content-Type"] = answers.JSON
        request = http.build_request(self.method, self.path, content=self.body, headers=headers)
        if self.read_timeout is not None:
            request.extensions["timeout"]["read"] = self.read_timeout
        return request


@dataclass(frozen=True)
class Listen:
    """A step: open a stream, in place of one that was open before; its answer is None."""

    call: Call[None]


@dataclass(frozen=True)
class Receive:
    """A step: wait for further bytes of the stream; its answer is None at the end."""


@dataclass(frozen=True)
class Pause:
    """A step: wait."""

    seconds: float


@dataclass(frozen=True)
class Now:
    """A step: look at a clock that only goes forward; its answer is in seconds."""


@dataclass(frozen=True)
class Emit(Generic[_T_co]):
    """A step: hand an item to who iterates."""

    item: _T_co


Step: TypeAlias = Call[Any] | Listen | Receive | Pause | Now
#: Ends with a value.
Flow: TypeAlias = Generator[Step, Any, _T]
#: Emits items until it ends.
Stream: TypeAlias = Generator[Step | Emit[_T], Any, None]


@dataclass(frozen=True)
class Done(Generic[_T]):
    """Instead of a step: the flow has ended."""

    value: _T


def advance(flow: Generator[_T, Any, Any], answer: object) -> _T | Done[Any]:
    """Give a flow the answer of its last step, or the error that it met; return its next step."""
    try:
        return flow.throw(answer) if isinstance(answer, answers.ClientError) else flow.send(answer)
    except StopIteration as stop:
        return Done(stop.value)


# One run of a notebook


@overload
def run(
    notebook: str | Mapping[str, Any],
    parameters: Mapping[str, models.JsonValue] | None = None,
    *,
    accept: None = None,
    idempotency_key: str | None = None,
    **options: Unpack[answers.RunOptions],
) -> Flow[answers.RunResult]: ...


@overload
def run(
    notebook: str | Mapping[str, Any],
    parameters: Mapping[str, models.JsonValue] | None = None,
    *,
    accept: str,
    idempotency_key: str | None = None,
    **options: Unpack[answers.RunOptions],
) -> Flow[answers.RunResult | answers.Content]: ...


def run(
    notebook: str | Mapping[str, Any],
    parameters: Mapping[str, models.JsonValue] | None = None,
    *,
    accept: str | None = None,
    idempotency_key: str | None = None,
    **options: Unpack[answers.RunOptions],
) -> Flow[Any]:
    """Run the notebook at a contents path, or a notebook itself, and wait until it has ended.

    `accept` is a media type to be answered in instead of JSON. A request with the same
    `idempotency_key` as an earlier one gets the same run; with a key, closing the connection does
    not cancel the run.
    """
    headers = {"Accept": address.header_value("Accept", accept or answers.JSON)}
    if idempotency_key is not None:
        headers["Idempotency-Key"] = _key(idempotency_key)
    return (
        yield Call(
            method="POST",
            path=_notebook_path(notebook if isinstance(notebook, str) else None),
            read=functools.partial(answers.read_run_or_content, accept=accept),
            headers=headers,
            body=_body(notebook, parameters, options),
        )
    )


def submit(
    notebook: str | Mapping[str, Any],
    parameters: Mapping[str, models.JsonValue] | None = None,
    *,
    idempotency_key: str | None = None,
    **options: Unpack[answers.RunOptions],
) -> Flow[answers.RunResult]:
    """Start a run without waiting for it; return it as it is now, `queued` as a rule.

    It goes on whatever becomes of this client, and survives a restart of the server.
    """
    headers = {"Prefer": "respond-async"}
    if idempotency_key is not None:
        headers["Idempotency-Key"] = _key(idempotency_key)
    return (
        yield from _ask(
            Call(
                method="POST",
                path=_notebook_path(notebook if isinstance(notebook, str) else None),
                read=answers.read_run,
                headers=headers,
                body=_body(notebook, parameters, options),
            )
        )
    )


def describe(path: str) -> Flow[dict[str, Any]]:
    """Describe the notebook at a contents path: its parameters, their JSON Schema, its kernel."""
    return (yield from _ask(Call(method="GET", path=_notebook_path(path), read=answers.read_object)))


# Runs that exist


def runs(
    path: str | None = None,
    status: models.RunStatus | str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Flow[answers.RunPage]:
    """List runs, newest first: at most `limit` (at most 500), from `cursor` of the page before."""
    query: dict[str, str | int | None] = {
        "path": None if path is None else path.strip("/"),
        "status": None if status is None else models.RunStatus(status).value,
        "limit": limit,
        "cursor": cursor,
    }
    given = urlencode({name: value for name, value in query.items() if value is not None})
    return (yield from _ask(Call(method="GET", path=f"api/nbexec/runs?{given}", read=answers.read_page)))


def all_runs(
    path: str | None = None, status: models.RunStatus | str | None = None
) -> Stream[answers.RunResult]:
    """List all runs, newest first, page by page as they are taken."""
    cursor: str | None = None
    while True:
        page = yield from runs(path, status, LARGEST_PAGE, cursor)
        for entry in page.runs:
            yield Emit(entry)
        if page.cursor is None or page.cursor == cursor:
            return
        cursor = page.cursor


def get(run_id: str, wait: float | None = None) -> Flow[answers.RunResult]:
    """Return a run as it is now; with `wait`, when it has ended, or after so many seconds, at most 60."""
    query = "" if wait is None else f"?wait={wait:g}"
    return (
        yield from _ask(
            Call(
                method="GET",
                path=_run_path(run_id) + query,
                read=answers.read_run,
                read_timeout=None if wait is None else wait + POLL_MARGIN,
            )
        )
    )


def wait(run_id: str, timeout: float | None = None, *, reconnect: float = 60.0) -> Flow[answers.RunResult]:
    """Wait until a run has ended; after `timeout` seconds return it as it is.

    A connection that is lost is made again, unless that fails for `reconnect` seconds.
    """
    patience = _Patience(reconnect)
    start: float = yield Now()
    end = math.inf if timeout is None else start + timeout
    asked = start
    while True:
        try:
            found = yield from get(run_id, min(end - asked, LONGEST_POLL) if end > asked else None)
        except answers.ClientError as error:
            now: float = yield Now()
            pause = patience.lost(error, now)
            if now + pause >= end:
                raise
        else:
            now = yield Now()
            patience.heard()
            patience.progressed()
            if found.is_final or now >= end:
                return found
            # Whatever answers before its time is not to be asked again at once.
            pause = max(0.0, min(asked + 1, end) - now)
        if pause:
            yield Pause(pause)
        asked = yield Now()


def events(
    run_id: str,
    after: int = 0,
    *,
    reconnect: float = 60.0,
    on_lost: Callable[[answers.ClientError], object] | None = None,
) -> Stream[answers.RunEvent]:
    """Follow a run: its events from the first, or from the one after the id `after`, up to `end`.

    A connection that is lost is made again where it broke, unless that fails for `reconnect`
    seconds; `on_lost` is called each time.
    """
    patience = _Patience(reconnect)
    parser = sse.Parser(str(after) if after else "")
    while True:
        try:
            yield Listen(_listen(run_id, parser.last_id))
            patience.connected()
            parser = sse.Parser(parser.last_id)
            while (chunk := (yield Receive())) is not None:
                patience.heard()
                for message in parser.feed(chunk):
                    event = answers.read_event(message)
                    # What a restart of the server lost may have had higher ids than the end has.
                    if event.id > after or event.type == "end":
                        after = max(after, event.id)
                        patience.progressed()
                        yield Emit(event)
                    if event.type == "end":
                        return
            lost: answers.ClientError = answers.ServerUnreachable("The stream ended before the run.")
        except sse.TooLargeError as error:
            raise answers.UnexpectedAnswer(f"The stream of events cannot be read: {error}.") from error
        except (answers.ServerUnreachable, answers.RequestRefused) as error:
            lost = error
        pause = patience.lost(lost, (yield Now()), least=parser.retry)
        if on_lost is not None:
            on_lost(lost)
        yield Pause(pause)


def cancel(run_id: str) -> Flow[None]:
    """Ask for a run to be cancelled; RequestRefused with the code `run_ended` if it has ended."""
    return (
        yield from _ask(
            Call(method="POST", path=_run_path(run_id, "cancel"), read=answers.read_nothing, body=b"{}")
        )
    )


def delete(run_id: str) -> Flow[None]:
    """Have the server forget a run; one that has not ended is cancelled first."""
    return (yield from _ask(Call(method="DELETE", path=_run_path(run_id), read=answers.read_nothing)))


def notebook(run_id: str, accept: str = answers.NOTEBOOK) -> Flow[answers.Content]:
    """Return a run's executed notebook, as far as it has come; `text/html` renders it."""
    return (
        yield from _ask(
            Call(
                method="GET",
                path=_run_path(run_id, "notebook"),
                read=answers.read_content,
                headers={"Accept": address.header_value("Accept", accept)},
            )
        )
    )


def prune() -> Flow[int]:
    """Have the server forget what it need not keep any more; return how many runs."""
    return (
        yield from _ask(
            Call(method="POST", path="api/nbexec/runs/prune", read=answers.read_deleted, body=b"{}")
        )
    )


class _Patience:
    """Decides after a loss when to try again, and when no more."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._was_connected = False
        self._lost_since: float | None = None
        self._losses = 0  #: in a row

    def connected(self) -> None:
        """Note that the server is there: from now on a loss may be one that passes."""
        self._was_connected = True

    def heard(self) -> None:
        """Note that the server says something."""
        self._was_connected = True
        self._lost_since = None

    def progressed(self) -> None:
        """Note that the server says something new."""
        self._losses = 0

    def lost(self, error: answers.ClientError, now: float, *, least: float | None = None) -> float:
        """Return after how many seconds to try again; raise the error where that is of no use."""
        asked = 0.0
        if isinstance(error, answers.RequestRefused):
            if error.status not in _PASSING:
                raise error
            asked = error.retry_after or 0.0
        elif not isinstance(error, answers.ServerUnreachable):
            raise error
        if self._lost_since is None:
            self._lost_since = now
        pause = max(0.25 * 2.0 ** min(self._losses, 5), least or 0.0, asked)
        self._losses += 1
        if not self._was_connected or now + pause > self._lost_since + self._seconds:
            raise error
        return pause


def _ask(call: Call[_T]) -> Flow[_T]:
    """Make a call's answer the flow's value."""
    answer: _T = yield call
    return answer


def _listen(run_id: str, last_id: str) -> Call[None]:
    return Call(
        method="GET",
        path=_run_path(run_id, "events"),
        read=answers.check_events,
        headers={
            "Accept": answers.EVENTS,
            # Compression on the way would hold events back.
            "Accept-Encoding": "identity",
            "Cache-Control": "no-store",
            **({"Last-Event-ID": address.header_value("Last-Event-ID", last_id)} if last_id else {}),
        },
        read_timeout=LONGEST_SILENCE,
    )


def _body(
    notebook: str | Mapping[str, Any],
    parameters: Mapping[str, models.JsonValue] | None,
    options: answers.RunOptions,
) -> bytes:
    body: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    outputs, webhook = body.get("outputs"), body.get("webhook")
    if outputs is not None and not isinstance(outputs, str):
        body["outputs"] = {"tags": list(outputs)}
    if "env" in body:
        body["env"] = dict(body["env"])
    if isinstance(webhook, str):
        body["webhook"] = {"url": webhook}
    elif webhook is not None:
        given = {name: value for name, value in webhook.items() if value is not None}
        body["webhook"] = given | ({"events": list(given["events"])} if "events" in given else {})
    if parameters:
        body["parameters"] = dict(parameters)
    if not isinstance(notebook, str):
        body["notebook"] = dict(notebook)
    return json.dumps(body, allow_nan=False).encode()


def _key(key: str) -> str:
    if not 1 <= len(key) <= 255 or key != key.strip():
        raise ValueError("An idempotency key must have 1 to 255 characters, and no space around it.")
    return address.header_value("the idempotency key", key)


def _notebook_path(path: str | None) -> str:
    """The resource of a notebook, or, with None, of notebooks that come in the body."""
    if path is None:
        return "api/nbexec"
    parts = path.strip("/").split("/")
    if {".", "..", ""} & set(parts):
        # On the way, `..` would be resolved to a resource that is not ours.
        raise ValueError(f"{path!r} is no contents path: it must have no empty part, no '.' and no '..'")
    return "api/nbexec/" + quote("/".join(parts), safe="/")


def _run_path(run_id: str, *below: str) -> str:
    """The resource of a run, or one below it."""
    try:
        name = str(uuid.UUID(run_id))
    except ValueError:
        raise ValueError(f"{run_id!r} is no id of a run") from None
    return "/".join(("api/nbexec/runs", name, *below))
