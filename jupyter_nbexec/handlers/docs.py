"""`GET /api/nbexec/docs`: a page that shows what this service offers, and tries it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_escape, url_path_join
from tornado import web

from jupyter_nbexec.handlers import base

STATIC: Final = base.PACKAGE / "static"
#: What scripts/build_backend.py puts there.
SWAGGER_UI: Final = STATIC / "swagger-ui"

#: All comes from this server, nothing is inline; Swagger UI's stylesheet has its icons in itself. No other
#: image is loaded: what notebooks say of themselves is shown here, and an address may be that of an endpoint.
POLICY: Final = (
    "script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)


class PageHandler(base.NbexecHandler):
    """An OpenAPI document in Swagger UI."""

    @property
    def content_security_policy(self) -> str:
        """Scripts and styles from here alone, on top of what all our answers have."""
        return f"{super().content_security_policy}; {POLICY}"

    def show(self, *, title: str, static: str, document: str) -> None:
        """Answer with the page; `static` and `document` are the URL paths of what it loads."""
        if not SWAGGER_UI.is_dir():
            message = "Swagger UI is not built into this installation; scripts/build_backend.py does that."
            raise web.HTTPError(HTTPStatus.NOT_IMPLEMENTED, message)
        # The page sends the token of this cookie; reading it sets it.
        _ = self.xsrf_token
        page = base.render("docs.html", title=title, static=static, document=document)
        self.finish(page, set_content_type="text/html; charset=UTF-8")


class DocsHandler(PageHandler):
    """The page of the whole service, or with `?path=` of one notebook."""

    def get_login_url(self) -> str:
        """Where a person logs in; a program gets 403, as from all else."""
        if "text/html" not in self.request.headers.get("Accept", ""):
            return str(super().get_login_url())
        return str(JupyterHandler.get_login_url(self))

    @web.authenticated
    @authorized("read", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """200 with the page."""
        path = self.query("path")
        document = url_path_join(self.service, "openapi.json")
        self.show(
            title=path or "jupyter_nbexec",
            static=url_path_join(self.base_url, "static/jupyter_nbexec/"),
            document=f"{document}?path={url_escape(path)}" if path else document,
        )

    head = get
