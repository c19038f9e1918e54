"""What a client returns and raises, and how it is read from the server's answers."""

from __future__ import annotations

import contextlib
import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar
from urllib.parse import urlsplit

from jupyter_nbexec import models

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import httpx
    from typing_extensions import Self

    from jupyter_nbexec.client import sse

JSON = "application/json"
NOTEBOOK = "application/x-ipynb+json"
EVENTS = "text/event-stream"

_T = TypeVar("_T")


class ClientError(Exception):
    """The server gave no answer that can be used."""


class ServerUnreachable(ClientError):
    """Nothing answers at this URL, or the connection was lost before the answer came."""


class UnexpectedAnswer(ClientError):
    """What answers at this URL does not speak this API."""


class RequestRefused(ClientError):
    """The server refused the request: nothing ran, or there is nothing of the kind asked for."""

    def __init__(
        self, status: int, message: str, /, *, code: str | None = None, **details: models.JsonValue
    ) -> None:
        super().__init__(message)
        #: The HTTP status.
        self.status = status
        self.message = message
        #: The stable code of the refusal; None where the refusal is not jupyter_nbexec's own.
        self.code = code
        #: Further members of the answer, such as `kernels`.
        self.details = details

    @property
    def errors(self) -> list[dict[str, str]]:
        """What is wrong, one by one, as `{"parameter", "message"}` or `{"field", "message"}`."""
        return list(self.details.get("errors", ()))

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the server asks to be tried again; None where it does not say."""
        seconds: float | None = self.details.get("retry_after")
        return seconds


class RunFailed(ClientError):
    """The run failed; `answer` is what the server sent."""

    def __init__(self, message: str, answer: RunResult | Content) -> None:
        super().__init__(message)
        self.answer = answer


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A run as it is at a moment; its result and outputs come when it has ended, well or not."""

    id: str
    path: str | None  #: None where the notebook came in the body
    status: models.RunStatus
    result: models.JsonValue  #: the value of the last code cell's last expression
    result_type: str | None  #: `application/json`, `text/plain`, or None where there is no result
    scraps: dict[str, models.JsonValue]
    outputs: list[dict[str, Any]]  #: nbformat outputs, each with its `cell` and `cell_id`; not in a list
    truncated: bool  #: whether outputs past the server's limits were left out
    error: models.RunError | None
    warnings: list[str]  #: what went otherwise than one may think
    saved_as: str | None  #: contents path of the executed notebook, where it was saved
    created: datetime | None
    started: datetime | None  #: None while it is queued
    ended: datetime | None  #: None until it has ended
    duration: float | None  #: seconds from start to end
    progress: models.Progress
    parameters: dict[str, models.JsonValue]
    raw: dict[str, Any] = field(repr=False)  #: the answer as it came

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """Read the contract's run."""
        progress = raw.get("progress") or {}
        return cls(
            # An id becomes part of URLs, and is shown.
            id=str(uuid.UUID(raw["id"])),
            path=raw.get("path"),
            status=models.RunStatus(raw["status"]),
            result=raw.get("result"),
            result_type=raw.get("result_type"),
            scraps=raw.get("scraps") or {},
            outputs=raw.get("outputs") or [],
            truncated=bool(raw.get("truncated")),
            error=_read_run_error(raw.get("error")),
            warnings=raw.get("warnings") or [],
            saved_as=raw.get("saved_as"),
            created=_read_time(raw.get("created")),
            started=_read_time(raw.get("started")),
            ended=_read_time(raw.get("ended")),
            duration=raw.get("duration"),
            progress=models.Progress(
                done=progress.get("done", 0), total=progress.get("total", 0), cell=progress.get("cell")
            ),
            parameters=raw.get("parameters") or {},
            raw=raw,
        )

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self.status.is_final

    @property
    def succeeded(self) -> bool:
        """Whether the run ended well."""
        return self.status is models.RunStatus.SUCCEEDED

    def raise_for_status(self) -> Self:
        """Return this run if it succeeded, else raise RunFailed; ValueError if it has not ended."""
        if self.succeeded:
            return self
        if not self.is_final:
            raise ValueError(f"The run has not ended: it is {self.status.value}.")
        raise RunFailed(self.error.message if self.error else f"The run was {self.status.value}.", self)


@dataclass(frozen=True, kw_only=True)
class Content:
    """A run's answer in another shape than JSON: an image, the executed notebook, HTML, …."""

    body: bytes = field(repr=False)
    content_type: str
    status_code: int  #: HTTP's; of a failed run only the notebook and the events come as Content

    @property
    def succeeded(self) -> bool:
        """Whether the run ended well, where this is the answer of `run`."""
        return self.status_code < HTTPStatus.BAD_REQUEST

    def raise_for_status(self) -> Self:
        """Return this content if the run succeeded, else raise RunFailed."""
        if self.succeeded:
            return self
        raise RunFailed(f"The run failed (HTTP {self.status_code}).", self)


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """Some of a server's runs, newest first."""

    runs: list[RunResult]  #: without their outputs
    cursor: str | None  #: what to ask the next page with; None: this is the last one
    raw: dict[str, Any] = field(repr=False)  #: the answer as it came


@dataclass(frozen=True, kw_only=True)
class RunEvent:
    """Something that happened in a run."""

    id: int  #: grows; gaps are possible
    type: str  #: `status`, `cell`, `output`, `clear`, `update`, or `end`, the last one
    data: models.JsonValue
    run: RunResult | None  #: with `status` (without outputs) and `end`: the run


class Webhook(TypedDict, total=False):
    """Whom the server tells when the run has ended."""

    url: str
    events: Collection[Literal["ended"]]
    secret: str | None  #: signs the message, as `whsec_<base64>`


class RunOptions(TypedDict, total=False):
    """What a run takes besides a notebook and its parameters; whatever is absent or None is not sent."""

    kernel_name: str | None  #: which kernelspec to start; default: the notebook's
    kernel_id: str | None  #: run on this live kernel of the server instead
    timeout: float | None  #: seconds the run may take once it has started
    cell_timeout: float | None  #: seconds any one cell may take
    allow_errors: bool | None  #: go on after a cell that raises
    outputs: Literal["all", "last", "none"] | Collection[str] | None  #: which outputs; else cells' tags
    env: Mapping[str, str] | None  #: environment variables of the kernel; secrets go here
    save_as: str | None  #: contents path under which the executed notebook is saved
    webhook: str | Webhook | None  #: whom to tell when it has ended, or only the URL


#: A failed run is answered as JSON, unless one of these was asked for.
_ALSO_OF_FAILED_RUNS = frozenset({NOTEBOOK, EVENTS})


def read_run_or_content(response: httpx.Response, *, accept: str | None) -> RunResult | Content:
    """Read a run, or what was asked for instead."""
    content_type = _content_type(response)
    if content_type == JSON:
        body = _json_object(response)
        if "id" in body and body.get("status") in list(models.RunStatus):
            return _read(RunResult.from_json, body)
        if response.is_success:
            raise UnexpectedAnswer(f"What {response.url} answers is not a run.")
    elif (response.is_success and accept) or content_type in _ALSO_OF_FAILED_RUNS:
        return _content(response)
    raise refusal(response)


def read_run(response: httpx.Response) -> RunResult:
    """Read a run."""
    answer = read_run_or_content(response, accept=None)
    if isinstance(answer, RunResult):
        return answer
    raise UnexpectedAnswer(f"What {response.url} answers is not a run.")


def read_page(response: httpx.Response) -> RunPage:
    """Read a list of runs."""
    return _read(
        lambda body: RunPage(
            runs=[RunResult.from_json(run) for run in body["runs"]], cursor=body["cursor"], raw=body
        ),
        read_object(response),
    )


def read_object(response: httpx.Response) -> dict[str, Any]:
    """Read a JSON object, whatever it holds."""
    if response.is_success and _content_type(response) == JSON:
        return _json_object(response)
    raise refusal(response)


def read_deleted(response: httpx.Response) -> int:
    """Read how many runs were deleted."""
    return _read(lambda body: int(body["deleted"]), read_object(response))


def read_content(response: httpx.Response) -> Content:
    """Read an answer in any shape."""
    if response.is_success:
        return _content(response)
    raise refusal(response)


def read_nothing(response: httpx.Response) -> None:
    """Read that something was done."""
    if not response.is_success:
        raise refusal(response)


def check_events(response: httpx.Response) -> None:
    """Check from its head that an answer is a stream of events."""
    if not response.is_success or _content_type(response) != EVENTS:
        raise refusal(response)


def read_event(message: sse.Message) -> RunEvent:
    """Read an event of a run."""
    try:
        data = json.loads(message.data)
        return RunEvent(
            id=int(message.id),
            type=message.type,
            data=data,
            run=RunResult.from_json(data) if message.type in ("status", "end") else None,
        )
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise UnexpectedAnswer(f"An event of the server cannot be read: {error!r}") from error


def refusal(response: httpx.Response) -> ClientError:
    """Tell, from an answer that is not what was asked for, why."""
    status, reason = response.status_code, response.reason_phrase
    if response.is_success:
        return UnexpectedAnswer(
            f"{response.url} answers {_content_type(response) or 'nothing'}, which is not what was asked for."
        )
    body = _json_object(response) if _content_type(response) == JSON else {}
    code, message = body.get("code"), body.get("message") or f"HTTP {status} {reason}"
    is_turned_away = status == HTTPStatus.FORBIDDEN or response.is_redirect
    if is_turned_away and not body and "X-JupyterHub-Version" in response.headers:
        # Servers behind it say who they are by the same header, but turn nobody away without JSON.
        message = f"JupyterHub answers in place of the server, which is not running: {message}"
    elif response.is_redirect:
        # Never followed: the token must not travel to another host, nor a POST become a GET.
        target = urlsplit(response.headers["Location"])._replace(query="", fragment="").geturl()
        message = f"The server redirects to {target}; use its own URL and a valid token."
    elif is_turned_away and "Authorization" not in response.request.headers:
        message = f"The server wants a token, and no token was sent: {message}"
    elif is_turned_away:
        message = f"The server does not know this token, or does not allow it this: {message}"
    elif status == HTTPStatus.NOT_FOUND and code is None:
        message += " (jupyter_nbexec may not be enabled on this server)"
    details = {key: value for key, value in body.items() if key not in ("code", "message", "reason")}
    with contextlib.suppress(KeyError, ValueError):
        details["retry_after"] = float(response.headers["Retry-After"])
    return RequestRefused(status, message, code=code, **details)


def _content(response: httpx.Response) -> Content:
    return Content(
        body=response.content,
        content_type=response.headers.get("Content-Type", "application/octet-stream"),
        status_code=response.status_code,
    )


def _read_run_error(raw: dict[str, Any] | None) -> models.RunError | None:
    if raw is None:
        return None
    return models.RunError(
        code=models.ErrorCode(raw["code"]),
        message=raw["message"],
        ename=raw.get("ename"),
        evalue=raw.get("evalue"),
        traceback=raw.get("traceback") or [],
        cell=raw.get("cell"),
        cell_id=raw.get("cell_id"),
    )


def _read_time(text: str | None) -> datetime | None:
    # Python 3.10 does not know the Z.
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00"))


def _read(reader: Callable[[dict[str, Any]], _T], body: dict[str, Any]) -> _T:
    try:
        return reader(body)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UnexpectedAnswer(f"The server's answer cannot be read: {error!r}") from error


def _content_type(response: httpx.Response) -> str:
    header: str = response.headers.get("Content-Type", "")
    return header.partition(";")[0].strip().lower()


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError) as error:
        raise UnexpectedAnswer(f"What {response.url} answers is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise UnexpectedAnswer(f"What {response.url} answers is not a JSON object.")
    return body
