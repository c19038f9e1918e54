"""Any verb on an endpoint of a notebook: its annotated cell answers."""

from __future__ import annotations

import re
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import allow_unauthenticated
from tornado import httputil, web

from jupyter_nbexec import background, errors, negotiation, render
from jupyter_nbexec.endpoints import annotated, request, response
from jupyter_nbexec.handlers import base
from jupyter_nbexec.serving import crew, services

JSON = "application/json"
#: A notebook's contents path, before the path of an endpoint.
_NOTEBOOK = re.compile(r".+?\.ipynb(?=/)")


class EndpointHandler(base.BodyHandler):
    """Calls an endpoint of the notebook that the URL names, or of one that it is mounted for."""

    methods = (*annotated.METHODS, "HEAD", "OPTIONS")
    checked_methods = frozenset({*annotated.METHODS, "HEAD"})
    #: Whether notebooks may speak for the origin: nothing but them is served there.
    owns_origin = False

    def initialize(self, notebook: str | None = None, prefix: str = "") -> None:
        """Mount it for a notebook, below a prefix of the server's base URL; without one the URL names it."""
        super().initialize()
        self._notebook = notebook
        self._prefix = prefix
        self._call = crew.Call()

    async def check_headers(self) -> None:
        """Authorize before a body is read: a call is code that runs, whatever the verb says."""
        self.check_xsrf_cookie()
        if self.settings.get("disable_check_xsrf"):
            self._check_site()
        await self.require_execution()

    def _check_site(self) -> None:
        """Refuse what a page of another origin makes a browser send, where nothing else keeps it out.

        An image or a link sends no Origin. Raises 403.
        """
        headers = self.request.headers
        if self.token_authenticated or self.allow_origin == "*":
            return
        is_foreign = headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        if "Referer" in headers:
            is_foreign = not self.check_referer()
        # One that is allowed sends its Origin with all that it may read, and that has been checked.
        if is_foreign and "Origin" not in headers:
            raise web.HTTPError(403, "Pages of other origins may not call endpoints here.")

    async def require_execution(self) -> None:
        """Calling an endpoint needs the rights that running its notebook does."""
        await self.require("execute", base.RESOURCE)
        if self.parts.require_kernel_authorization:
            await self.require("execute", "kernels")
            await self.require("read", "contents")

    def check_media_type(self) -> None:
        """Refuse a body that is packed; all types are the endpoint's to judge."""
        if self.request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise errors.UnsupportedMediaType("The body must have no content encoding.")

    @web.authenticated
    async def get(self, path: str | None = None, endpoint: str | None = None) -> None:  # noqa: ARG002
        """Call the endpoint of this verb."""
        await self._answer(path)

    head = post = put = delete = patch = get

    @allow_unauthenticated
    async def options(  # type: ignore[override]  # tornado awaits what a method returns
        self,
        path: str | None = None,
        endpoint: str | None = None,  # noqa: ARG002
    ) -> None:
        """200 with the verbs that there are; who is not logged in learns nothing of this notebook."""
        allowed: tuple[str, ...] = self.methods
        if await self._may_know():
            contents_path, below = self._target(path)
            version = await self.parts.services.version(contents_path)
            allowed = version.table.allowed(below)
        super().options()
        self.set_header("Allow", ", ".join(allowed))
        configured = self.settings.get("headers", {}).get("Access-Control-Allow-Methods")
        self.set_header("Access-Control-Allow-Methods", configured or ", ".join(allowed))
        self.finish()

    async def _may_know(self) -> bool:
        user = self.current_user
        return bool(user) and bool(
            await ensure_async(self.authorizer.is_authorized(self, user, "execute", base.RESOURCE))
        )

    def _target(self, path: str | None) -> tuple[str, str]:
        """The notebook's contents path, and the path of the endpoint, as it was sent."""
        sent = self.request.path
        if self._notebook is not None:
            # By number, since a client may encode more than it has to.
            depth = (self.base_url.rstrip("/") + self._prefix).count("/") + 1
            return self._notebook, "/" + sent.split("/", depth)[depth]
        found = _NOTEBOOK.match(sent, len(self.service) + 1)
        return path or "", "" if found is None else sent[found.end() :]

    async def _answer(self, path: str | None) -> None:
        contents_path, below = self._target(path)
        asked = services.Request(
            method=self.request.method or "GET",
            path=below,
            incoming=await self._incoming(),
            accept=negotiation.parse_accept(", ".join(self.request.headers.get_list("Accept"))),
            owns_origin=self.owns_origin,
        )
        try:
            answer = await self.parts.services.call(contents_path, asked, self._call)
        except crew.Abandoned:
            return
        self._write(answer)

    async def _incoming(self) -> request.Incoming:
        body = self.raw_body()
        content_type = self.request.headers.get("Content-Type", "")
        form = None
        if request.media(content_type)[0] in request.FORM:
            form = await background.offload(len(body), _form, content_type, body)
        return request.Incoming(
            headers=list(self.request.headers.get_all()),
            query=self.request.query_arguments,
            body=body,
            form=form,
        )

    def _write(self, answer: response.Answer) -> None:
        self.set_status(answer.status)
        self.set_header("Vary", "Accept")
        self.set_header("X-Content-Type-Options", "nosniff")
        if not self.owns_origin:
            # What a notebook answers with may be a page, and is not to act as the user who looks at it.
            self.set_header("Content-Security-Policy", render.SANDBOX_POLICY)
        seen: set[str] = set()
        for name, value in answer.headers:
            (self.add_header if name.lower() in seen else self.set_header)(name, value)
            seen.add(name.lower())
        # Where the status has no body, tornado leaves out its headers, and refuses one.
        body = None if answer.status in response.BODILESS else answer.body
        self.finish(body, set_content_type=answer.content_type or response.TEXT)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """As inherited; who is of another origin may read it as any other answer."""
        if hasattr(self, "_jupyter_current_user"):
            self.set_cors_headers()
        self.set_header("X-Content-Type-Options", "nosniff")
        super().write_error(status_code, **kwargs)

    def compute_etag(self) -> str | None:
        """Leave the notebook's own as it is."""
        own: str | None = self._headers.get("Etag")
        return own or super().compute_etag()

    def on_connection_close(self) -> None:
        """End the call that nobody waits for."""
        super().on_connection_close()
        self._call.abandon()


class AloneHandler(base.GatedHandler, EndpointHandler):
    """An endpoint on a server that serves nothing else, as Kernel Gateway does: errors have its form."""

    owns_origin = True

    def set_default_headers(self) -> None:
        """As inherited, without the policy that keeps other answers from being pages."""
        super().set_default_headers()
        if "Content-Security-Policy" not in self.settings.get("headers", {}):
            self.clear_header("Content-Security-Policy")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write what a cell raised as text, unless JSON is preferred; all else as inherited."""
        error = kwargs.get("exc_info", (None, None))[1]
        accept = negotiation.parse_accept(", ".join(self.request.headers.get_list("Accept")))
        if not isinstance(error, errors.CellFailed) or accept.choose(["text/plain", JSON]) == JSON:
            super().write_error(status_code, **kwargs)
            return
        self.set_cors_headers()
        text = f"Error {error.details['ename']}: {error.details['evalue']} \n"
        self.finish(text.encode("utf-8", "replace"), set_content_type=response.TEXT)


def _form(content_type: str, body: bytes) -> request.Form:
    """Read a form as tornado does. Raises 400 where it is none."""
    arguments: dict[str, list[bytes]] = {}
    files: dict[str, list[httputil.HTTPFile]] = {}
    try:
        httputil.parse_body_arguments(content_type, body, arguments, files)
    except httputil.HTTPInputError as error:
        raise web.HTTPError(400, "The body is not the form that its Content-Type says.") from error
    return request.Form(
        fields=arguments,
        # tornado reads those of a multipart form as UTF-8.
        has_text_names=request.media(content_type)[0] == "multipart/form-data",
        files={
            name: [
                request.File(name=each["filename"], content_type=each["content_type"], content=each["body"])
                for each in given
            ]
            for name, given in files.items()
        },
    )
