"""`/api/nbexec/runs`: the runs that there are and were."""

from __future__ import annotations

import base64
import binascii
from http import HTTPStatus

import nbformat
from jupyter_server.auth.decorator import authorized
from tornado import web

from jupyter_nbexec import (
    background,
    documents,
    errors,
    models,
    negotiation,
    notebooks,
    outputs,
)
from jupyter_nbexec.handlers import answers, base

#: Runs on a page of the list.
DEFAULT_LIMIT, MAX_LIMIT = 50, 500
#: Seconds that a client may wait in one request.
MAX_WAIT = 60.0


class RunsHandler(base.NbexecHandler):
    """The list of runs."""

    @web.authenticated
    @authorized("read", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """200 with a page of runs, newest first, without their outputs."""
        await self._list()

    @web.authenticated
    @authorized("read", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def head(self) -> None:
        """As GET, without the body."""
        await self._list()

    async def _list(self) -> None:
        limit = self._limit()
        path = self.query("path")
        found = await self.parts.runs.list_runs(
            path=None if path is None else notebooks.normalise(path),
            status=self._status(),
            user=self.user,
            # One more than asked for tells whether there is another page.
            limit=limit + 1,
            before=read_cursor(self.query("cursor")),
        )
        page = found[:limit]
        document = {
            "runs": [documents.brief(record, service=self.service) for record in page],
            "cursor": write_cursor(page[-1].number) if len(found) > limit else None,
        }
        self.set_header("Cache-Control", "no-store")
        self.finish(await background.run(outputs.dumps, document))

    def _limit(self) -> int:
        text = self.query("limit")
        if text is None:
            return DEFAULT_LIMIT
        if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MAX_LIMIT):
            raise errors.InvalidRequest(("limit", f"must be a number from 1 to {MAX_LIMIT}"))
        return int(text)

    def _status(self) -> models.RunStatus | None:
        text = self.query("status")
        try:
            return None if text is None else models.RunStatus(text)
        except ValueError:
            names = ", ".join(status.value for status in models.RunStatus)
            raise errors.InvalidRequest(("status", f"must be one of {names}")) from None


class RunResourceHandler(answers.AnswerMixin):
    """One run."""

    methods = ("GET", "HEAD", "DELETE")

    @web.authenticated
    @authorized("read", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def get(self, run_id: str) -> None:
        """200 with the run as it is, or, with `?wait=`, as it is when it has ended or the time is over."""
        await self._show(run_id.lower())

    @web.authenticated
    @authorized("read", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def head(self, run_id: str) -> None:
        """As GET, without the body."""
        await self._show(run_id.lower())

    @web.authenticated
    @authorized("write", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def delete(self, run_id: str) -> None:
        """204: the run is forgotten; one that had not ended was cancelled before."""
        await self.parts.runs.get(run_id.lower(), self.user)
        await self.parts.runs.delete(run_id.lower())
        self.set_status(HTTPStatus.NO_CONTENT)
        self.finish()

    async def _show(self, run_id: str) -> None:
        seconds = self._wait()
        accept = self.accept()
        accept.require_possible()
        record = await self.parts.runs.get(run_id, self.user)
        if accept.wants_events():
            await self.stream(self.parts.runs.follow(run_id, last_event_id(self)))
            return
        if record.status.is_final:
            self.set_header("Server-Timing", answers.server_timing(record))
            if self.answer_again(record):
                return
        view = await self.parts.runs.wait(run_id, seconds)
        if self._is_gone.is_set():
            return
        if view.record.status.is_final:
            self.set_header("Server-Timing", answers.server_timing(view.record))
        await self.answer(view)

    def _wait(self) -> float:
        text = self.query("wait")
        try:
            seconds = 0.0 if text is None else float(text)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= MAX_WAIT:
            raise errors.InvalidRequest(("wait", f"must be a number of seconds, at most {MAX_WAIT:g}"))
        return seconds


class CancelHandler(base.BodyHandler):
    """Ends one run."""

    async def check_headers(self) -> None:
        """Authorize before a body is read."""
        await self.require("execute", base.RESOURCE)

    @web.authenticated
    @authorized("execute", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def post(self, run_id: str) -> None:
        """202 with the run: it will end as cancelled, unless it ends before. 409 if it has ended."""
        await check_empty(self)
        run_id = run_id.lower()
        await self.parts.runs.get(run_id, self.user)
        await self.parts.runs.cancel(run_id)
        view = await self.parts.runs.view(run_id)
        _, body, _ = await background.run(
            answers.encode, view, negotiation.parse_accept(None), service=self.service
        )
        self.set_status(HTTPStatus.ACCEPTED)
        self.finish(body)


class EventsHandler(answers.AnswerMixin):
    """The events of one run."""

    @web.authenticated
    @authorized("read", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def get(self, run_id: str) -> None:
        """200 with the events after `Last-Event-ID`, as they come, to the end of the run."""
        await self._follow(run_id.lower())

    @web.authenticated
    @authorized("read", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def head(self, run_id: str) -> None:
        """As GET, without the body."""
        await self._follow(run_id.lower())

    async def _follow(self, run_id: str) -> None:
        after = last_event_id(self)
        await self.parts.runs.get(run_id, self.user)
        await self.stream(self.parts.runs.follow(run_id, after))


class ExecutedNotebookHandler(answers.AnswerMixin):
    """The notebook of one run, as far as it has been executed."""

    @web.authenticated
    @authorized("read", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def get(self, run_id: str) -> None:
        """200 with the notebook, or a rendering of it."""
        await self._notebook(run_id.lower())

    @web.authenticated
    @authorized("read", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def head(self, run_id: str) -> None:
        """As GET, without the body."""
        await self._notebook(run_id.lower())

    async def _notebook(self, run_id: str) -> None:
        offered = [negotiation.NOTEBOOK, negotiation.HTML, negotiation.RUN]
        chosen = self.accept().choose([shape.media_type for shape in offered])
        if chosen is None:
            message = "A notebook can be had as application/x-ipynb+json, application/json and text/html."
            raise errors.NotAcceptable(message)
        record = await self.parts.runs.get(run_id, self.user)
        if chosen != negotiation.HTML.media_type and self.answer_again(record):
            return
        view = await self.parts.runs.view(run_id)
        notebook = view.notebook if view.notebook is not None else nbformat.v4.new_notebook()
        if chosen == negotiation.HTML.media_type:
            await self.answer_page(view, await background.run(outputs.dumps, notebook))
        else:
            body = await background.run(answers.write_notebook, notebook)
            answer = base.Answer(record=view.record, body=body, media_type=chosen, is_run=False)
            self.answer_with(answer, may_keep=True)


class PruneHandler(base.BodyHandler):
    """Applies the retention settings now."""

    async def check_headers(self) -> None:
        """Authorize before a body is read."""
        await self.require("write", base.RESOURCE)

    @web.authenticated
    @authorized("write", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def post(self) -> None:
        """200 with how many runs were forgotten."""
        await check_empty(self)
        deleted = await self.parts.runs.prune()
        await self.finish_json(lambda: {"deleted": deleted})


async def check_empty(handler: base.BodyHandler) -> None:
    """Refuse a body that says anything."""
    fields = await handler.body()
    if fields != {}:
        raise errors.InvalidRequest(("body", "must be empty"))


def last_event_id(handler: base.NbexecHandler) -> int:
    """After which event to go on: the header of the same name; 0 without it."""
    text = handler.request.headers.get("Last-Event-ID", "0").strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise errors.InvalidRequest(("Last-Event-ID", "must be the id of an event"))
    return int(text)


def write_cursor(number: int) -> str:
    """Write where a page ends; nobody else is to read it."""
    return base64.urlsafe_b64encode(str(number).encode()).decode().rstrip("=")


def read_cursor(cursor: str | None) -> int | None:
    """Read where a page begins."""
    if not cursor:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    if not (text.isdigit() and len(text) <= 18):
        raise errors.InvalidRequest(("cursor", "is not one that this list has given"))
    return int(text)
