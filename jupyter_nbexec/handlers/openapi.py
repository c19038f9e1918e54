"""`GET /api/nbexec/openapi.json`: what this service offers, in OpenAPI 3.1."""

from __future__ import annotations

from jupyter_server.auth.decorator import authorized
from tornado import web

from jupyter_nbexec import __version__, openapi
from jupyter_nbexec.handlers import base


class OpenApiHandler(base.NbexecHandler):
    """The whole service, or with `?path=` one notebook with its typed parameters."""

    @web.authenticated
    @authorized("read", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """200 with the document; what describing the notebook raises."""
        await self._document()

    @web.authenticated
    @authorized("read", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def head(self) -> None:
        """As GET, without the body."""
        await self._document()

    async def _document(self) -> None:
        path = self.query("path")
        if not path:
            await self.finish_json(lambda: openapi.document(version=__version__, base_url=self.base_url))
            return
        await self.require_reading()
        description = await self.parts.planner.describe(path)
        await self.finish_json(
            lambda: openapi.service(
                version=__version__,
                base_url=self.base_url,
                path=description.notebook.path or "",
                schema=description.schema,
                table=description.endpoints,
            ),
            description.notebook.size,
        )
