"""Any verb on an endpoint of a notebook: its annotated cell answers."""

from __future__ import annotations

import dataclasses
import hmac
import re
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.utils import url_path_join
from tornado import httputil, web

from jupyter_nbexec import background, errors, rendering, requests
from jupyter_nbexec.endpoints import annotated, request, response
from jupyter_nbexec.handlers import base
from jupyter_nbexec.serving import crew, services

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
#: A notebook's contents path, before the path of an endpoint.
_NOTEBOOK = re.compile(r".+?\.ipynb(?=/)")

#: The field beside the XSRF token in the form of our page that asks: with it, a POST stands for the GET.
CONFIRMED: Final = "_nbexec_get"
#: Bytes of a form that may be read before the XSRF token in it was seen.
FORM_BYTES: Final = 1 << 16
#: What the page that asks may do: be styled, and post to where it is. Nobody can lay it under another.
ASK_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


class Unproven(web.HTTPError):
    """A call that a browser may have made by itself, for the sake of what a page shows."""

    def __init__(self) -> None:
        super().__init__(
            HTTPStatus.FORBIDDEN,
            "A call by a cookie needs the XSRF token, in the header `X-XSRFToken` or a form's field `_xsrf`.",
        )


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

    #: Where the files of our own pages are, below the server's base URL.
    static = "static/jupyter_nbexec/"
    #: Whether the answer is the page that asks whether to call.
    _asks = False

    async def prepare(self) -> None:  # type: ignore[override]  # as APIHandler itself does
        """As inherited; an XSRF token in the URL proves nothing.

        JupyterLab writes it into addresses of what a notebook shows.
        """
        for arguments in (self.request.arguments, self.request.query_arguments):
            arguments.pop("_xsrf", None)
        await super().prepare()

    async def check_headers(self) -> None:
        """Authorize before a body is read: a call is code that runs, whatever the verb says."""
        try:
            self.check_xsrf_cookie()
        except Unproven:
            if not self._is_of_a_person():
                raise
            self._asks = True
        await self.require_execution()

    def check_xsrf_cookie(self) -> None:
        """Raise Unproven unless there is a token, or the XSRF token itself, whatever the verb and the page.

        jupyter_server lets pages of its own read without, JupyterHub also images on them; but what an
        untrusted notebook shows is on such a page.
        """
        if self._may_hold_token():
            return  # `_answer` sees to it, once the form is there
        if not getattr(self, "_jupyter_current_user", None):
            super().check_xsrf_cookie()
            return
        headers = self.request.headers
        self._require_proof(headers.get("X-XSRFToken") or headers.get("X-CSRFToken"))

    def _require_proof(self, xsrf_token: str | None) -> None:
        if self.token_authenticated or self._is_own(xsrf_token):
            return
        if not self.settings.get("disable_check_xsrf"):
            raise Unproven
        self._check_site()

    def _is_own(self, xsrf_token: str | None) -> bool:
        """Whether this is the XSRF token of the cookie, as Jupyter or JupyterHub writes it."""
        if not xsrf_token:
            return False
        sent, own = (self._decode_xsrf_token(each)[1] for each in (xsrf_token, self.xsrf_token.decode()))
        return bool(sent and own and hmac.compare_digest(sent, own))

    def _may_hold_token(self) -> bool:
        """Whether the XSRF token may be in the body: a small form, such as that of our own page."""
        headers = self.request.headers
        length = headers.get("Content-Length", "")
        return (
            self.request.method == "POST"
            and "X-XSRFToken" not in headers
            and "X-CSRFToken" not in headers
            and headers.get("Content-Type", "").partition(";")[0].strip().lower() == FORM
            and length.isdigit()
            and int(length) <= FORM_BYTES
        )

    def _check_site(self) -> None:
        """Where XSRF checks are off, refuse what a browser says that no script of a page has asked for.

        And what pages of other origins ask for, unless they are allowed. Raises Unproven.
        """
        headers = self.request.headers
        has_origin = "Origin" in headers  # `check_origin` was asked before
        if not self.owns_origin:
            # An image on a page of ours; browsers say less to servers elsewhere without TLS.
            is_shown = headers.get("Sec-Fetch-Dest", "empty") != "empty"
            if is_shown or ("Referer" in headers and "Sec-Fetch-Dest" not in headers and not has_origin):
                raise Unproven
        if has_origin or self.allow_origin == "*":
            return
        is_foreign = headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        if "Referer" in headers:
            is_foreign = not self.check_referer()
        if is_foreign:
            raise Unproven

    def _is_of_a_person(self) -> bool:
        """Whether somebody follows a link: what is loaded for a page says otherwise, or accepts no page."""
        headers = self.request.headers
        return (
            self.request.method == "GET"
            and "Origin" not in headers
            and headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
            and headers.get("Sec-Fetch-Dest", "document") == "document"
            and "text/html" in headers.get("Accept", "").lower()
        )

    def check_media_type(self) -> None:
        """Refuse a body that is packed, or text in another charset; all types are the endpoint's to judge."""
        if self.request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise errors.UnsupportedMediaType("The body must have no content encoding.")
        requests.check_charset(self.request.headers.get("Content-Type", ""))

    @web.authenticated
    async def get(self, path: str | None = None, endpoint: str | None = None) -> None:  # noqa: ARG002
        """Call the endpoint of this verb."""
        await (self._ask(path) if self._asks else self._answer(path))

    head = post = put = delete = patch = get

    @allow_unauthenticated
    async def options(  # type: ignore[override]  # tornado awaits what a method returns
        self,
        path: str | None = None,
        endpoint: str | None = None,  # noqa: ARG002
    ) -> None:
        """200 with the verbs that there are; who may not call learns nothing of this notebook."""
        allowed: tuple[str, ...] = self.methods
        if await self._may_call():
            contents_path, below = self._target(path)
            version = await self.parts.services.version(contents_path)
            allowed = version.table.allowed(below)
        super().options()
        self.set_header("Allow", ", ".join(allowed))
        configured = self.settings.get("headers", {}).get("Access-Control-Allow-Methods")
        self.set_header("Access-Control-Allow-Methods", configured or ", ".join(allowed))
        self.finish()

    async def _may_call(self) -> bool:
        try:
            await self.require_execution()
        except web.HTTPError:
            return False
        return True

    def _target(self, path: str | None) -> tuple[str, str]:
        """The notebook's contents path, and the path of the endpoint, as it was sent."""
        sent = self.request.path
        if self._notebook is not None:
            # By number, since a client may encode more than it has to.
            depth = (self.base_url.rstrip("/") + self._prefix).count("/") + 1
            return self._notebook, "/" + sent.split("/", depth)[depth]
        found = _NOTEBOOK.match(sent, len(self.service) + 1)
        return path or "", "" if found is None else sent[found.end() :]

    async def _ask(self, path: str | None) -> None:
        """Answer with a page that asks whether to call; its form posts to where it is."""
        contents_path, below = self._target(path)
        version = await self.parts.services.version(contents_path)
        version.table.find("GET", below)
        self.set_status(HTTPStatus.FORBIDDEN)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", ASK_POLICY)
        self.set_header("X-Frame-Options", "DENY")
        # Without one, what the form sends has no origin.
        self.set_header("Referrer-Policy", "same-origin")
        page = base.render(
            "ask.html",
            endpoint=unquote(below),
            query=self.request.query,
            notebook=contents_path,
            static=url_path_join(self.base_url, self.static),
            confirmed=CONFIRMED,
            xsrf_token=self.xsrf_token.decode(),
        )
        self.finish(page, set_content_type="text/html; charset=UTF-8")

    async def _answer(self, path: str | None) -> None:
        contents_path, below = self._target(path)
        incoming, is_confirmed = self._without_proof(await self._incoming())
        asked = services.Request(
            method="GET" if is_confirmed else self.request.method or "GET",
            path=below,
            incoming=incoming,
            accept=self.accept(),
            owns_origin=self.owns_origin,
        )
        try:
            answer = await self.parts.services.call(contents_path, asked, self._call)
        except crew.Abandoned:
            return
        self._write(answer)

    def _without_proof(self, incoming: request.Incoming) -> tuple[request.Incoming, bool]:
        """See that a form that came without a header has the XSRF token in it, and take it out.

        And whether it is that of our page: then it stands for a GET. Raises Unproven.
        """
        if self.token_authenticated or not self._may_hold_token():
            return incoming, False
        form = incoming.form or request.Form()
        fields = dict(form.fields)
        if not self._is_own(b"".join(fields.pop("_xsrf", [])).decode("latin-1")):
            self._require_proof(None)
            return incoming, False
        if fields.keys() != {CONFIRMED}:
            return dataclasses.replace(incoming, form=dataclasses.replace(form, fields=fields)), False
        headers = [
            (name, value)
            for name, value in incoming.headers
            if not name.lower().startswith("content-") and name.lower() != "origin"
        ]
        return request.Incoming(headers=headers, query=incoming.query), True

    async def _incoming(self) -> request.Incoming:
        body = await self.with_body(bytes)
        content_type = self.request.headers.get("Content-Type", "")
        form = None
        if request.media(content_type) in request.FORM:
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
            self.set_header("Content-Security-Policy", rendering.SANDBOX_POLICY)
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
    static = "_api/static/"

    def set_default_headers(self) -> None:
        """As inherited, without the policy that keeps other answers from being pages."""
        super().set_default_headers()
        if "Content-Security-Policy" not in self.settings.get("headers", {}):
            self.clear_header("Content-Security-Policy")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write what a cell raised as text, unless JSON is preferred; all else as inherited."""
        error = kwargs.get("exc_info", (None, None))[1]
        if not isinstance(error, errors.CellFailed) or self.accept().choose(["text/plain", JSON]) == JSON:
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
        has_text_names=request.media(content_type) == "multipart/form-data",
        files={
            name: [
                request.File(name=each["filename"], content_type=each["content_type"], content=each["body"])
                for each in given
            ]
            for name, given in files.items()
        },
    )
