"""How a run is answered: in the shape that a client accepts, or as its events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Any

import nbformat
from tornado.iostream import StreamClosedError

from jupyter_nbexec import (
    background,
    broadcast,
    documents,
    errors,
    live,
    models,
    negotiation,
    outputs,
    rendering,
)
from jupyter_nbexec.handlers import base

#: Seconds after which a stream without events says that it is still there.
KEEP_ALIVE_INTERVAL = 15.0

#: The status of the answer to a run that failed.
STATUS = {
    models.ErrorCode.CELL_ERROR: HTTPStatus.INTERNAL_SERVER_ERROR,
    models.ErrorCode.INTERNAL_ERROR: HTTPStatus.INTERNAL_SERVER_ERROR,
    models.ErrorCode.TIMEOUT: HTTPStatus.GATEWAY_TIMEOUT,
    models.ErrorCode.KERNEL_DIED: HTTPStatus.BAD_GATEWAY,
    models.ErrorCode.KERNEL_START_FAILED: HTTPStatus.BAD_GATEWAY,
    models.ErrorCode.OUT_OF_RESOURCES: HTTPStatus.SERVICE_UNAVAILABLE,
    models.ErrorCode.SERVER_STOPPED: HTTPStatus.SERVICE_UNAVAILABLE,
}


class AnswerMixin(base.NbexecHandler):
    """Answers with runs."""

    async def answer(self, view: live.View, accept: negotiation.Accept | None = None) -> None:
        """Write a run in the shape that the client asked for; the status is set already."""
        may_keep = accept is None
        accept = accept or self.accept()
        size = view.size if accept.prefers_run() else background.UNKNOWN_SIZE
        shape, body, media_type = await background.offload(size, encode, view, accept, service=self.service)
        if shape.kind is negotiation.Kind.HTML:
            await self.answer_page(view, body)
            return
        is_run = shape.kind is negotiation.Kind.RUN
        answer = base.Answer(record=view.record, body=body, media_type=media_type, is_run=is_run)
        self.answer_with(answer, may_keep=may_keep)

    def answer_with(self, answer: base.Answer, *, may_keep: bool) -> None:
        """Write an answer, and keep it, if it may be and the run has ended."""
        if may_keep and answer.record.status.is_final:
            self.parts.answers.put(self._answer_key(answer.record.id), answer, len(answer.body))
        self._set_head(is_run=answer.is_run)
        self.finish(answer.body, set_content_type=answer.media_type)

    def answer_again(self, record: models.RunRecord) -> bool:
        """Write what the same was answered with before, where the run is still so; whether it is."""
        kept = self.parts.answers.get(self._answer_key(record.id))
        if kept is None or kept.record != record:
            return False
        self.answer_with(kept, may_keep=False)
        return True

    def _answer_key(self, run_id: str) -> tuple[str, ...]:
        return (run_id, self.request.path, *self.request.headers.get_list("Accept"))

    def _set_head(self, *, is_run: bool) -> None:
        self.set_header("Cache-Control", "no-store")
        self.set_header("Vary", "Accept")
        if not is_run:
            self.set_header("Content-Security-Policy", rendering.SANDBOX_POLICY)

    async def answer_page(self, view: live.View, notebook: bytes) -> None:
        """Write a run's notebook, given as JSON, as a page. Raises NotAcceptable, Overloaded."""
        self._set_head(is_run=False)
        record = view.record
        # One page for all who look at a run while it is executed; it may be a moment old.
        key = record.id if record.status.is_final else f"{record.id} so far"
        making = asyncio.ensure_future(self.parts.renderer.page(key, notebook, keep=record.status.is_final))
        gone = asyncio.ensure_future(self._is_gone.wait())
        try:
            await asyncio.wait({making, gone}, return_when=asyncio.FIRST_COMPLETED)
            if making.done():
                self.finish(making.result(), set_content_type="text/html; charset=UTF-8")
        finally:
            making.cancel()
            gone.cancel()

    async def stream(self, events: AsyncGenerator[broadcast.Event, None]) -> None:
        """Write events as they come, until the last, or until the client or the server is gone."""
        self.set_header("Content-Type", "text/event-stream; charset=UTF-8")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Vary", "Accept")
        self.set_header("X-Accel-Buffering", "no")
        if self.request.method == "HEAD":
            await self.flush()
            return
        over = asyncio.ensure_future(self._until_over())
        try:
            # The head goes at once: the next event may be long in coming, and there may be none.
            await self.flush()
            await self._write_events(events, over)
        except StreamClosedError:
            self.log.debug("a reader of events is gone")
        finally:
            over.cancel()
        if not self._is_gone.is_set():
            self.finish()

    async def _write_events(
        self, events: AsyncGenerator[broadcast.Event, None], over: asyncio.Future[None]
    ) -> None:
        following = _Following(events)
        try:
            while True:
                event = await following.next(over, KEEP_ALIVE_INTERVAL)
                if following.has_ended:
                    return
                piece = broadcast.KEEP_ALIVE if event is None else await broadcast.encode(event)
                self.write(piece)
                # A reader that is slow waits here, and holds nothing but its place among the events.
                flushed = asyncio.ensure_future(self.flush())
                await asyncio.wait({flushed, over}, return_when=asyncio.FIRST_COMPLETED)
                if not flushed.done():
                    flushed.cancel()
                    return
                flushed.result()
        finally:
            await following.close()

    async def _until_over(self) -> None:
        """Return when the client is gone, or the server stops and has said so for long enough."""
        waits = [
            asyncio.ensure_future(event.wait()) for event in (self._is_gone, self.parts.runs.has_stopped)
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def initialize(self) -> None:
        """Prepare for a client that hangs up."""
        super().initialize()
        self._is_gone = asyncio.Event()

    def on_connection_close(self) -> None:
        """Note that the client has hung up."""
        super().on_connection_close()
        self._is_gone.set()


class _Following:
    """Waits for events with a time limit that does not disturb the one who gives them."""

    def __init__(self, events: AsyncGenerator[broadcast.Event, None]) -> None:
        self._events = events
        self._next: asyncio.Task[broadcast.Event | None] | None = None
        self.has_ended = False

    async def next(self, over: asyncio.Future[None], timeout: float) -> broadcast.Event | None:
        """The next event; None if none came in time, or none will come: after the last, or if it is over."""
        if self._next is None:
            self._next = asyncio.create_task(self._take())
        waited: set[asyncio.Future[Any]] = {self._next, over}
        await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if self._next.done():
            event, self._next = self._next.result(), None
            self.has_ended = event is None
            return event
        self.has_ended = over.done()
        return None

    async def _take(self) -> broadcast.Event | None:
        try:
            return await self._events.__anext__()
        except StopAsyncIteration:
            return None

    async def close(self) -> None:
        """Let go of the events."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait({self._next})
        await self._events.aclose()


def encode(
    view: live.View, accept: negotiation.Accept, *, service: str
) -> tuple[negotiation.Shape, bytes, str]:
    """Write a run in the shape that is accepted: the shape, the body, its content type.

    What is to be a page is given as the JSON of its notebook. Large outputs take time: call it in a thread.
    Raises NotAcceptable.
    """
    notebook = view.notebook
    shown = [] if notebook is None else outputs.select(notebook, view.origins)
    types = outputs.mime_types(shown)
    succeeded = view.record.status is models.RunStatus.SUCCEEDED
    shape = accept.pick(types) if succeeded else accept.pick_failed(types)
    if notebook is None or shape.kind is negotiation.Kind.RUN:
        document = documents.complete(view.record, notebook, view.origins, service=service)
        return negotiation.RUN, outputs.dumps(document), negotiation.RUN.media_type
    if shape.kind is negotiation.Kind.NOTEBOOK:
        return shape, write_notebook(notebook), shape.media_type
    if shape.kind is negotiation.Kind.HTML:
        return shape, outputs.dumps(notebook), shape.media_type
    found = outputs.find_mime(shown, shape.media_type)
    if found is None:
        raise errors.NotAcceptable
    return shape, outputs.raw_body(*found), outputs.content_type(found[0])


def write_notebook(notebook: dict[str, object]) -> bytes:
    """Write a notebook as a file has it."""
    clean = nbformat.from_dict(outputs.clean_json(notebook))
    text: str = nbformat.writes(clean, version=nbformat.NO_CONVERT)
    return text.encode("utf-8", "replace")


def status_of(record: models.RunRecord) -> int:
    """The HTTP status that answers a run that has ended."""
    if record.error is not None:
        return int(STATUS[record.error.code])
    return int(HTTPStatus.OK if record.status is models.RunStatus.SUCCEEDED else HTTPStatus.CONFLICT)


def server_timing(record: models.RunRecord) -> str:
    """The phases of a run in milliseconds, as the Server-Timing specification has it."""
    return ", ".join(f"{phase};dur={1000 * seconds:.1f}" for phase, seconds in record.timing.items())
