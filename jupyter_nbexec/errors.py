"""Everything that can go wrong before a run, or outside of one, in one tree.

    NbexecError                       code                      HTTP status
    ├── BadRequest
    │   ├── InvalidJson               invalid_json              400
    │   ├── InvalidRequest            invalid_request           400
    │   └── InvalidParameter          invalid_parameter         400
    ├── NotFound
    │   ├── NotebookNotFound          notebook_not_found        404
    │   ├── RunNotFound               run_not_found             404
    │   ├── KernelNotFound            kernel_not_found          404
    │   └── EndpointNotFound          endpoint_not_found        404
    ├── MethodNotAllowed              method_not_allowed        405
    ├── NotAcceptable                 not_acceptable            406
    ├── Conflict
    │   ├── RunEnded                  run_ended                 409
    │   └── KernelBusy                kernel_busy               409
    ├── BodyTooLarge                  body_too_large            413
    ├── UnsupportedMediaType          unsupported_media_type    415
    ├── Unprocessable
    │   ├── InvalidNotebook           invalid_notebook          422
    │   ├── NotANotebook              not_a_notebook            422
    │   ├── NoSuchKernel              no_such_kernel            422
    │   └── IdempotencyMismatch       idempotency_mismatch      422
    ├── CallError                     (of an endpoint, once its cells are called)
    │   ├── CellFailed                cell_error                500
    │   ├── BadResponseInfo           bad_response_info         500
    │   ├── OutputLost                output_lost               500
    │   ├── KernelDied                kernel_died               502
    │   ├── KernelStartFailed         kernel_start_failed       502
    │   └── CallTimeout               timeout                   504
    ├── OutOfResources                out_of_resources          503
    ├── Later
    │   ├── QueueFull                 queue_full                429
    │   └── Overloaded                server_overloaded         503
    ├── Stopping                      stopping                  503
    ├── NotebookUnavailable           notebook_unavailable      503
    └── StorageUnavailable            storage_unavailable       503

A cell that fails in a run is not in this tree: it is the run's result (`models.RunError`).
The docstring of a class is its default message.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

MAX_LISTED: Final = 50
"""Problems that an answer lists, at most; it says how many more there are."""

#: Characters of a message, and of each problem's field and message, at most: they may repeat what was sent.
_MESSAGE, _FIELD, _PROBLEM = 4000, 256, 500


class NbexecError(Exception):
    """The request could not be carried out."""

    code = "internal_error"
    status = HTTPStatus.INTERNAL_SERVER_ERROR

    def __init__(self, message: str | None = None, **details: Any) -> None:
        self.message = _clip(message or (type(self).__doc__ or "").strip(), _MESSAGE)
        #: Further members of the JSON answer, such as `errors` or `kernels`.
        self.details = details
        super().__init__(self.message)

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that belong to this error."""
        return {}


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _list(kind: str, problems: Sequence[tuple[str, str]]) -> tuple[str, list[dict[str, str]]]:
    """Write problems as text and as JSON; only the first of many."""
    shown = [(_clip(name, _FIELD), _clip(text, _PROBLEM)) for name, text in problems[:MAX_LISTED]]
    listed = [{kind: name, "message": text} for name, text in shown]
    left = len(problems) - len(shown)
    more = f"{left} more; " if left else ""
    return more + "; ".join(f"{name}: {text}" for name, text in shown), listed


class BadRequest(NbexecError):
    """The request cannot be understood."""

    code = "invalid_request"
    status = HTTPStatus.BAD_REQUEST


class InvalidJson(BadRequest):
    """The body is not valid JSON in UTF-8."""

    code = "invalid_json"


class InvalidRequest(BadRequest):
    """The request has fields that are unknown or of the wrong type.

    `errors` lists each as `{"field", "message"}`.
    """

    def __init__(self, *errors: tuple[str, str]) -> None:
        text, listed = _list("field", errors)
        super().__init__(f"The request is not valid: {text}", errors=listed)


class InvalidParameter(BadRequest):
    """The parameters do not fit the notebook.

    `errors` lists each as `{"parameter", "message"}`.
    """

    code = "invalid_parameter"

    def __init__(self, *errors: tuple[str, str]) -> None:
        text, listed = _list("parameter", errors)
        super().__init__(f"The parameters are not valid: {text}", errors=listed)


class NotFound(NbexecError):
    """There is no such thing."""

    status = HTTPStatus.NOT_FOUND


class NotebookNotFound(NotFound):
    """There is no notebook at this path."""

    code = "notebook_not_found"


class RunNotFound(NotFound):
    """There is no run with this id."""

    code = "run_not_found"


class KernelNotFound(NotFound):
    """There is no live kernel with this id."""

    code = "kernel_not_found"


class EndpointNotFound(NotFound):
    """The notebook has no endpoint at this path."""

    code = "endpoint_not_found"


class MethodNotAllowed(NbexecError):
    """This method is not allowed here."""

    code = "method_not_allowed"
    status = HTTPStatus.METHOD_NOT_ALLOWED

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed
        super().__init__(f"Only {', '.join(allowed)} is allowed here.")

    @property
    def headers(self) -> dict[str, str]:
        """`Allow`, which RFC 9110 requires with a 405."""
        return {"Allow": ", ".join(self.allowed)}


class NotAcceptable(NbexecError):
    """Nothing that this resource can give fits the Accept header."""

    code = "not_acceptable"
    status = HTTPStatus.NOT_ACCEPTABLE


class Conflict(NbexecError):
    """The state of the resource does not allow this."""

    status = HTTPStatus.CONFLICT


class RunEnded(Conflict):
    """The run has ended already."""

    code = "run_ended"


class KernelBusy(Conflict):
    """The kernel is busy."""

    code = "kernel_busy"


class BodyTooLarge(NbexecError):
    """The body is larger than this server allows."""

    code = "body_too_large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UnsupportedMediaType(NbexecError):
    """The body must be JSON in UTF-8, with no content encoding."""

    code = "unsupported_media_type"
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class Unprocessable(NbexecError):
    """The request is well-formed, but what it names cannot be run."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class InvalidNotebook(Unprocessable):
    """This is not a valid notebook of nbformat 1 to 4."""

    code = "invalid_notebook"


class NotANotebook(Unprocessable):
    """There is something at this path, but it is not a notebook."""

    code = "not_a_notebook"


class NoSuchKernel(Unprocessable):
    """No kernelspec of this name is installed.

    `kernels` lists those that are.
    """

    code = "no_such_kernel"

    def __init__(self, name: str | None, installed: list[str]) -> None:
        listed = ", ".join(installed) or "none"
        super().__init__(f"There is no kernel {name!r} here; installed: {listed}", kernels=installed)


class IdempotencyMismatch(Unprocessable):
    """This idempotency key was used with another request."""

    code = "idempotency_mismatch"


class CallError(NbexecError):
    """The endpoint could not answer."""


class CellFailed(CallError):
    """A cell of the notebook failed."""

    code = "cell_error"


class BadResponseInfo(CallError):
    """A ResponseInfo cell did not print what it should."""

    code = "bad_response_info"


class OutputLost(CallError):
    """The endpoint put out more than this server takes, or some of it was lost on its way."""

    code = "output_lost"


class KernelDied(CallError):
    """The kernel died."""

    code = "kernel_died"
    status = HTTPStatus.BAD_GATEWAY


class KernelStartFailed(CallError):
    """The kernel could not be started."""

    code = "kernel_start_failed"
    status = HTTPStatus.BAD_GATEWAY


class CallTimeout(CallError):
    """The endpoint took too long."""

    code = "timeout"
    status = HTTPStatus.GATEWAY_TIMEOUT


class OutOfResources(NbexecError):
    """The server has run out of something that it needs."""

    code = "out_of_resources"
    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, what: str) -> None:
        super().__init__(f"The server is out of {what}. Try again later.")


#: What has run out where the operating system says so.
_SHORTAGES = {
    errno.EMFILE: "file descriptors",
    errno.ENFILE: "file descriptors",
    errno.ENOMEM: "memory",
    errno.ENOSPC: "disk space",
    getattr(errno, "EDQUOT", errno.ENOSPC): "disk space",
}


def shortage(error: BaseException | None) -> str | None:
    """Tell what the server has run out of, if that is what this error, or one that it came of, says."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        # Not of OSError alone: ZeroMQ has errors of its own.
        number = getattr(error, "errno", None)
        if isinstance(number, int) and number in _SHORTAGES:
            return _SHORTAGES[number]
        if isinstance(error, MemoryError):
            return "memory"
        if isinstance(error, BlockingIOError):  # by fork, of which no other error is that says this
            return "processes"
        if isinstance(error, RuntimeError) and "start new thread" in str(error):
            return "threads"
        error = error.__cause__ or error.__context__
    return None


class Later(NbexecError):
    """The server cannot do this now; try again later."""

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, retry_after: int, message: str | None = None) -> None:
        #: Seconds after which a client may try again.
        self.retry_after = retry_after
        super().__init__(message)

    @property
    def headers(self) -> dict[str, str]:
        """`Retry-After`, in whole seconds."""
        return {"Retry-After": str(self.retry_after)}


class QueueFull(Later):
    """Too many runs are waiting already; try again later."""

    code = "queue_full"
    status = HTTPStatus.TOO_MANY_REQUESTS


class Overloaded(Later):
    """The server has too much of this to do already; try again later."""

    code = "server_overloaded"


class Stopping(NbexecError):
    """The server is stopping and takes no more runs."""

    code = "stopping"
    status = HTTPStatus.SERVICE_UNAVAILABLE


class NotebookUnavailable(NbexecError):
    """The notebook is there, but cannot be read now."""

    code = "notebook_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE


class StorageUnavailable(NbexecError):
    """The run could not be recorded, so nothing was run; the server's log says why."""

    code = "storage_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
