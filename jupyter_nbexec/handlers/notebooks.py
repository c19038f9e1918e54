"""`/api/nbexec/<path>`: describe the notebook, or run it."""

from __future__ import annotations

from jupyter_server.auth.decorator import authorized
from jupyter_server.utils import url_escape, url_path_join
from tornado import web

from jupyter_nbexec import planning
from jupyter_nbexec.handlers import base, runs


class NotebookHandler(runs.RunHandler):
    """One notebook as a service."""

    methods = ("GET", "HEAD", "POST")

    @web.authenticated
    @authorized("read", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def get(self, path: str) -> None:
        """Describe it: 200 with parameters, their JSON Schema, its kernel."""
        await self._describe(path)

    @web.authenticated
    @authorized("read", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def head(self, path: str) -> None:
        """As GET, without the body."""
        await self._describe(path)

    async def _describe(self, path: str) -> None:
        await self.require_reading()
        description = await self.parts.planner.describe(path)
        self.set_header("Cache-Control", "no-store")
        await self.finish_json(lambda: self._to_json(description), description.notebook.size)

    def _to_json(self, description: planning.Description) -> dict[str, object]:
        path = description.notebook.path or ""
        service = url_path_join(self.base_url, "api/nbexec")
        return {
            "path": path,
            "kernel": {
                "name": description.kernel_name,
                "language": description.kernel_language,
                "available": description.is_available,
            },
            "parameters": [parameter.to_json() for parameter in description.parameters],
            "schema": description.schema,
            "endpoints": [endpoint.to_json() for endpoint in description.endpoints],
            "last_modified": description.notebook.last_modified,
            "links": {
                "run": url_path_join(service, url_escape(path)),
                "runs": f"{service}/runs?path={url_escape(path)}",
                "openapi": f"{url_path_join(service, 'openapi.json')}?path={url_escape(path)}",
            },
        }
