"""All notebooks that answer HTTP requests: which version of each is live, and who answers a call."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from jupyter_nbexec import (
    background,
    errors,
    execute,
    languages,
    negotiation,
    notebooks,
    opening,
    planning,
    prepare,
)
from jupyter_nbexec.endpoints import annotated, request, response
from jupyter_nbexec.kernels import pool
from jupyter_nbexec.serving import crew as crews
from jupyter_nbexec.serving.line import Heard, Line

#: What tells a notebook that it serves requests; authors ask for it by Kernel Gateway's name.
ENVIRONMENT = (("KERNEL_GATEWAY", "1"),)
#: Seconds that writing a notebook may take, and between two attempts to read it meanwhile.
SETTLING, MOMENT = 2.0, 0.02


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How notebooks are served. Times in seconds; 0 stands for no limit."""

    #: Where the state of a notebook is that does not say so itself: `kernel` or `request`.
    state: str
    #: Kernels of each notebook, once it is called; and at most: 0 means one, or with state `request` as
    #: many as there are processors.
    min_kernels: int
    max_kernels: int
    processors: int
    max_waiting: int
    timeout: float
    idle_timeout: float
    interrupt_grace: float
    #: Seconds that the seed cells may take, where the notebook does not say.
    seed_timeout: float
    #: Seconds that calls have left when the server stops.
    drain_timeout: float
    limits: execute.Limits


@dataclass(frozen=True, kw_only=True)
class Version:
    """A notebook as it was stored at some time."""

    look: notebooks.Look
    #: Whether it may have been changed since, and look the same.
    is_uncertain: bool
    table: annotated.Table
    notebook: notebooks.Notebook
    recipe: prepare.Recipe
    language: languages.Language | None
    state: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to an endpoint."""

    method: str
    path: str  #: of the endpoint, as it was sent: percent-encoded
    incoming: request.Incoming
    accept: negotiation.Accept
    #: Whether notebooks may speak for the origin that they are served from.
    owns_origin: bool


class _Service:
    """One notebook: its version, and the kernels that serve it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.version: Version | None = None
        self.crew: crews.Crew | None = None

    def is_live(self, look: notebooks.Look | None) -> bool:
        """Whether the version is what the notebook looks like."""
        version = self.version
        return version is not None and look is not None and not version.is_uncertain and version.look == look


class Services:
    """Answers calls. On the server's event loop."""

    def __init__(
        self,
        *,
        settings: Settings,
        locate: Callable[[str], Awaitable[planning.Plan]],
        look: Callable[[str], Awaitable[notebooks.Look | None]],
        kitchen: prepare.Kitchen,
        opener: opening.Opener,
        log: logging.Logger | logging.LoggerAdapter[Any],
    ) -> None:
        """`locate` reads a notebook and finds its kernel; `look` tells whether it has changed."""
        self.settings = settings
        self._locate = locate
        self._look = look
        self._kitchen = kitchen
        self._opener = opener
        self._log = log
        self._services: dict[str, _Service] = {}
        self._retired: set[crews.Crew] = set()
        self._is_stopping = False

    async def start(self, paths: Iterable[str]) -> None:
        """Start the kernels of these notebooks ahead of their first call."""
        for path in paths:
            try:
                service, version = await self._current(path)
            except Exception as error:  # a contents manager may raise anything
                self._log.warning("notebook %r cannot be served: %s", path, error or type(error).__name__)
                continue
            if not version.table:
                self._log.warning("notebook %r has no endpoints", path)
                continue
            self._crew(service, version).start(max(1, self.settings.min_kernels))

    async def open(self, path: str) -> None:
        """Start the kernels of a notebook, and wait until they can answer.

        Raises EndpointNotFound if there is nothing to call, KernelStartFailed, CellFailed, and what reading
        the notebook does.
        """
        is_open = False
        while not is_open:
            service, version = await self._current(path)
            if not version.table:
                raise errors.EndpointNotFound(f"The notebook {path} has no endpoints.")
            crew = self._crew(service, version)
            crew.start(max(1, self.settings.min_kernels))
            try:
                await crew.ready()
                is_open = True
            except errors.Stopping:
                # The notebook has changed meanwhile, unless it is the server that stops.
                if self._is_stopping or not crew.is_retired:
                    raise

    async def stop(self) -> None:
        """Answer what is being answered, as far as there is time, and end all kernels."""
        self._is_stopping = True
        crews_ = [service.crew for service in self._services.values() if service.crew is not None]
        await asyncio.gather(*(crew.stop(self.settings.drain_timeout) for crew in [*crews_, *self._retired]))
        await self._kitchen.settle()

    @property
    def calls(self) -> int:
        """How many calls have a kernel, or wait for one."""
        crews_ = {service.crew for service in self._services.values() if service.crew is not None}
        return sum(crew.calls for crew in crews_ | self._retired)

    async def version(self, path: str) -> Version:
        """Read the notebook at a contents path as it is stored now. Raises as reading it does.

        Who looks executes nothing: kernels of a version that is no longer live stay until the next call.
        """
        return (await self._current(path, is_call=False))[1]

    async def call(self, path: str, asked: Request, call: crews.Call) -> response.Answer:
        """Answer a request to an endpoint of the notebook at a contents path.

        Raises EndpointNotFound, MethodNotAllowed, QueueFull, CallError and Abandoned, and what reading the
        notebook does.
        """
        if self._is_stopping:
            raise errors.Stopping("The server is stopping.")
        service, version = await self._current(path)
        match = version.table.find(asked.method, asked.path)
        crew = self._crew(service, version)
        text = await background.offload(asked.incoming.size, request.write, asked.incoming, match.parameters)
        async with crew.lend(call) as worker:
            heard, info = await _execute(worker, match.endpoint, text, version.language)
        answer = await background.offload(
            heard.size,
            response.read,
            "".join(heard.stdout),
            heard.shown,
            info,
            asked.accept,
            owns_origin=asked.owns_origin,
        )
        if answer.refused:
            self._log.warning("notebook %r may not set the headers %s here", path, ", ".join(answer.refused))
        return answer

    def _crew(self, service: _Service, version: Version) -> crews.Crew:
        """Give the kernels of the live version, which are begun with its first call. Raises Stopping."""
        if self._is_stopping:
            # Nobody would end what is begun now.
            raise errors.Stopping("The server is stopping.")
        if service.crew is None:
            service.crew = self._new_crew(version)
        return service.crew

    def _new_crew(self, version: Version) -> crews.Crew:
        settings = self.settings
        is_single_use = version.state == "request"
        most = settings.max_kernels or (settings.processors if is_single_use else 1)

        async def hire() -> crews.Worker:
            return await self._hire(version)

        async def dismiss(worker: crews.Worker, *, is_asked: bool) -> None:
            await self._kitchen.end(worker.kernel, is_asked=is_asked)

        return crews.Crew(
            crews.Settings(
                min_kernels=min(settings.min_kernels, most),
                max_kernels=most,
                max_waiting=settings.max_waiting,
                timeout=settings.timeout,
                start_timeout=settings.limits.start_timeout,
                idle_timeout=settings.idle_timeout,
                interrupt_grace=settings.interrupt_grace,
                is_single_use=is_single_use,
            ),
            hire=hire,
            dismiss=dismiss,
            log=self._log,
        )

    async def _hire(self, version: Version) -> crews.Worker:
        """Make a kernel that has executed the seed cells. Raises KernelStartFailed, CellFailed."""
        try:
            prepared = await self._kitchen.make(version.recipe)
        except Exception as error:
            raise _refusal(error, version) from error
        kernel = prepared.kernel
        try:
            # What it says from now on is read here.
            await self._opener.submit(execute.close(prepared.execution, 0.0))
            kernel.opened = None
            line = await Line.open(self._opener, kernel, self.settings.limits, name=request.NAME)
        except Exception as error:
            await self._kitchen.end(kernel)
            raise _refusal(error, version) from error
        except BaseException:
            await self._kitchen.end(kernel)
            raise
        return crews.Worker(kernel, line)

    # Versions

    async def _current(self, path: str, *, is_call: bool = True) -> tuple[_Service, Version]:
        """Find the notebook as it is stored now; it is read again only if it looks different."""
        # As for reading it: `//x` is no other way to write `x`.
        if "" in path.split("/"):
            raise errors.NotebookNotFound
        path = notebooks.normalise(path)
        service = self._services.get(path)
        look = await self._look(path)
        if service is not None and service.is_live(look) and service.version is not None:
            return service, service.version
        return await self._reload(path, look, is_call=is_call)

    async def _reload(
        self, path: str, look: notebooks.Look | None, *, is_call: bool
    ) -> tuple[_Service, Version]:
        service = self._services.setdefault(path, _Service())
        async with service.lock:
            if self._services.get(path) is not service:
                # Who had the lock could not read it, and has forgotten it.
                return await self._reload(path, look, is_call=is_call)
            if service.is_live(look) and service.version is not None:
                return service, service.version
            try:
                version = await self._read_settled(path)
            except errors.NotebookUnavailable:
                # Nobody knows whether it has changed: what its kernels hold is not lost for that.
                raise
            except Exception:
                if is_call or service.crew is None:
                    self._forget(path, service)
                raise
            if is_call or service.crew is None:
                self._adopt(service, version)
            return service, version

    async def _read_settled(self, path: str) -> Version:
        """Read the notebook; while Jupyter writes it, which it does in place, what is there is none."""
        give_up = time.monotonic() + SETTLING
        while True:
            look = await self._look(path) or notebooks.Look(modified=None, size=None)
            try:
                return await self._read(path, look)
            except errors.InvalidNotebook:
                if self._is_stopping or not look.is_younger(SETTLING) or time.monotonic() >= give_up:
                    raise
            await asyncio.sleep(MOMENT)

    async def _read(self, path: str, look: notebooks.Look) -> Version:
        began = datetime.now(tz=timezone.utc)
        plan = await self._locate(path)
        notebook = plan.notebook
        if notebook.has_unknown_state:
            raise errors.InvalidNotebook(
                "The notebook's metadata.nbexec.state is neither kernel nor request."
            )
        table = await background.offload(
            plan.size, annotated.of_notebook, notebook.content.cells, notebook.cell_ids, plan.language
        )
        seeds = [notebook.content.cells[index] for index in table.seeds]
        return Version(
            look=look,
            is_uncertain=look.may_hide_change(began),
            table=table,
            notebook=notebook,
            recipe=prepare.Recipe(
                place=pool.Place(plan.kernel_name, notebook.folder, notebook.path or ""),
                digest=await background.offload(plan.size, prepare.digest, seeds),
                watched=(),
                cells=tuple(seeds),
                metadata=notebook.content.metadata,
                timeout=notebook.default_timeout or self.settings.seed_timeout or float("inf"),
                env=ENVIRONMENT,
            ),
            language=plan.language,
            state=notebook.state or self.settings.state,
        )

    def _adopt(self, service: _Service, version: Version) -> None:
        """Make a version the live one; kernels that it would have prepared alike are kept."""
        known, service.version = service.version, version
        if known is None or service.crew is None:
            return
        if (known.recipe, known.state) != (version.recipe, version.state):
            number = service.crew.wanted
            self._retire(service)
            if version.table and not self._is_stopping:
                self._crew(service, version).start(number)

    def _forget(self, path: str, service: _Service) -> None:
        self._retire(service)
        service.version = None
        self._services.pop(path, None)

    def _retire(self, service: _Service) -> None:
        """Let go of kernels that no further call will have; those that are used finish."""
        if service.crew is None:
            return
        crew, service.crew = service.crew, None
        self._retired = {each for each in self._retired if not each.is_over} | {crew}
        crew.retire()


async def _execute(
    worker: crews.Worker,
    endpoint: annotated.Endpoint,
    text: str,
    language: languages.Language | None,
) -> tuple[Heard, response.Info | None]:
    """Execute the cells of an endpoint. Raises CallError, ConnectionLost."""
    if worker.line.takes_requests:
        heard = await worker.line.execute(endpoint.body.source, text)
    else:
        # In front of the comment that the cell begins with, so that lines keep their numbers.
        heard = await worker.line.execute(f"{request.assign(text, language)} {endpoint.body.source}")
    worker.is_spent = execute.is_leaving(heard.reply)
    _check(heard, endpoint.body)
    if endpoint.info is None or worker.is_spent:
        return heard, None
    said = await worker.line.execute(endpoint.info.source)
    worker.is_spent = execute.is_leaving(said.reply)
    _check(said, endpoint.info)
    try:
        return heard, response.parse_info("".join(said.stdout))
    except response.BadInfo as error:
        place = _place(endpoint.info)
        raise errors.BadResponseInfo(f"The ResponseInfo cell {place['cell']} {error}.", **place) from error


def _check(heard: Heard, part: annotated.Part) -> None:
    """Raise CallError if cells failed, or not all that they put out is here."""
    if heard.failure is not None:
        ename, evalue = heard.failure
        raise errors.CellFailed(f"{ename}: {evalue}", ename=ename, evalue=evalue, **_place(part))
    if not heard.is_complete:
        raise errors.OutputLost(**_place(part))


def _place(part: annotated.Part) -> dict[str, Any]:
    """Tell where cells are."""
    return {"cell": part.cells[0], "cell_id": part.cell_ids[0], "cells": list(part.cells)}


def _refusal(error: Exception, version: Version) -> errors.NbexecError:
    """Say why no kernel could be made ready; where it was a seed cell, which one."""
    refusal = crews.refusal(error)
    failure = error.failure if isinstance(error, execute.CannotPrepare) else None
    if failure is None:
        return refusal
    index = version.table.seeds[failure.index]
    refusal.details.update(cell=index, cell_id=version.notebook.cell_ids[index], cells=[index])
    return refusal
