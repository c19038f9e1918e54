"""`POST /api/nbexec/<path>` and `POST /api/nbexec`: run a notebook, and answer as the client prefers."""

from __future__ import annotations

import dataclasses
from functools import partial
from http import HTTPStatus

from jupyter_server.auth.decorator import authorized
from tornado import web

from jupyter_nbexec import errors, live, models, negotiation, requests, runs
from jupyter_nbexec.handlers import answers, base


class RunHandler(base.BodyHandler, answers.AnswerMixin):
    """Makes a run, and answers when it has ended, or at once."""

    _run_id: str | None = None

    async def check_headers(self) -> None:
        """Authorize, and refuse what no run could satisfy, before a body is read."""
        await self.require_execution()
        self.accept().require_possible()
        if self._key is None:
            self.parts.runs.check_capacity(is_async=self._preferences.respond_async)

    @property
    def _preferences(self) -> requests.Preferences:
        return requests.parse_prefer(", ".join(self.request.headers.get_list("Prefer")))

    @property
    def _key(self) -> str | None:
        return requests.parse_key(self.request.headers.get("Idempotency-Key"))

    @web.authenticated
    @authorized("execute", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def post(self, path: str = "") -> None:
        """Run the notebook at the path, or, without one, the notebook in the body.

        200 succeeded; 202 accepted; 409 cancelled; 500, 502, 503, 504 failed: the body is the run.
        Else an error.
        """
        await self.run_notebook(path or None)

    async def run_notebook(self, path: str | None) -> None:
        """Plan, submit, wait, answer."""
        if self.request.arguments.keys() - base.QUERY:
            field = min(self.request.arguments.keys() - base.QUERY)
            raise errors.InvalidRequest((field, "belongs into the body, not into the URL"))
        request, fingerprint = await self.with_body(
            partial(_read, path=path, max_timeout=self.parts.max_timeout, is_keyed=self._key is not None)
        )
        request = dataclasses.replace(request, caller=self.caller)
        preferences = self._preferences
        claim = runs.Claim(
            is_async=preferences.respond_async,
            is_detached=preferences.any or self._key is not None,
            user=self.user,
            key=self._key,
            fingerprint=fingerprint,
        )
        async with self.parts.runs.one_by_one(claim):
            record = await self.parts.runs.find(claim)
            is_new = record is None
            if record is None:
                if request.save_as is not None:
                    await self.require("write", "contents")
                plan = await self.parts.planner.plan(request, size=self.received)
                if self._is_gone.is_set() and not claim.is_detached:
                    return
                record, is_new = await self.parts.runs.submit(plan, claim)
        if not is_new:
            self.set_header("Idempotency-Replayed", "true")
        elif not (claim.is_detached or claim.is_async):
            self._run_id = record.id
            if self._is_gone.is_set():
                self.parts.runs.abandon(record.id)
        await self._respond(record, preferences)

    async def _respond(self, record: models.RunRecord, preferences: requests.Preferences) -> None:
        if self.accept().wants_events():
            await self.stream(self.parts.runs.follow(record.id))
            return
        if preferences.respond_async and preferences.wait is None and not record.status.is_final:
            await self._accept(live.View(record=record), preferences)
            return
        view = await self.parts.runs.wait(record.id, preferences.wait)
        if self._is_gone.is_set():
            return
        if not view.record.status.is_final:
            await self._accept(view, preferences)
            return
        if preferences.applied:
            self.set_header("Preference-Applied", preferences.applied)
        self.set_status(answers.status_of(view.record))
        self.set_header("Server-Timing", answers.server_timing(view.record))
        await self.answer(view)

    async def _accept(self, view: live.View, preferences: requests.Preferences) -> None:
        """Answer that the run is stored, and goes on."""
        self.set_status(HTTPStatus.ACCEPTED)
        self.set_header("Location", f"{self.service}/runs/{view.record.id}")
        if preferences.applied:
            self.set_header("Preference-Applied", preferences.applied)
        await self.answer(view, negotiation.parse_accept(None))

    def on_connection_close(self) -> None:
        """Cancel the run that nobody waits for, unless the client said that it may go on."""
        super().on_connection_close()
        if self._run_id is not None:
            self.parts.runs.abandon(self._run_id)


def _read(
    body: bytes, *, path: str | None, max_timeout: float, is_keyed: bool
) -> tuple[models.RunRequest, str | None]:
    """Read a request, and, if it has a key, what tells it from others. Raises InvalidJson, InvalidRequest."""
    fields = requests.parse_json(body)
    request = requests.parse_run_request(fields, path=path, max_timeout=max_timeout)
    return request, requests.fingerprint(fields, path=path) if is_keyed else None
