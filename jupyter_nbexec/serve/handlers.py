"""What `serve` answers: the endpoints at the root, and what is said of them below `/_api`."""

from __future__ import annotations

import os
from http import HTTPStatus
from pathlib import Path
from typing import Any

import nbformat
from jupyter_core.paths import is_hidden
from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import allow_unauthenticated, authorized
from jupyter_server.base.handlers import PublicStaticFileHandler
from jupyter_server.utils import url_path_join
from tornado import web

from jupyter_nbexec import __version__, background, openapi
from jupyter_nbexec.handlers import base, docs, endpoints
from jupyter_nbexec.serve.mounts import PUBLIC, Mount, pattern

#: Where the pages' own files are.
STATIC = f"/{endpoints.AloneHandler.static}"
DOCUMENT = "/_api/spec/openapi.json"
PAGE = "/_api/docs"


def routes(
    mounts: list[Mount], *, allow_source: bool, static_path: Path | None, shows_hidden: bool = False
) -> list[tuple[Any, ...]]:
    """List what is served, below the base URL; what comes first wins.

    `shows_hidden`: whether hidden files of the folder can be had as well.
    """
    everywhere = {"mounts": mounts}
    found: list[tuple[Any, ...]] = [
        (rf"{STATIC}(.*)", FileHandler, {"path": str(docs.STATIC)}),
        (PAGE, DocsHandler, everywhere),
        *_documents("", mounts),
    ]
    if static_path is not None:
        files = {"path": str(static_path), "shows_hidden": shows_hidden}
        found.append((rf"/{PUBLIC}/(.*)", FileHandler, files))
    for mount in mounts:
        below = pattern(mount.prefix)
        if mount.prefix:
            found += _documents(below, [mount])
        if allow_source:
            found.append((rf"{below}/_api/source", SourceHandler, {"mounts": [mount]}))
        own = {"notebook": mount.path, "prefix": mount.prefix}
        found.append((rf"{below}/(?P<endpoint>.*)", endpoints.AloneHandler, own))
    return found


def _documents(below: str, mounts: list[Mount]) -> list[tuple[Any, ...]]:
    """Under Kernel Gateway's name and under ours."""
    names = (r"/_api/spec/openapi\.json", r"/_api/spec/swagger\.json")
    return [(below + name, DocumentHandler, {"mounts": mounts}) for name in names]


class FileHandler(PublicStaticFileHandler):
    """A file that everybody can have."""

    def initialize(self, path: str, *, shows_hidden: bool = False) -> None:  # type: ignore[override]
        """Give it the folder."""
        super().initialize(path)
        self._shows_hidden = shows_hidden

    def _request_summary(self) -> str:
        """As tornado's, for the log, without the query."""
        return base.summary(self.request)

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """As inherited; what is hidden, or leads out of the folder, is not there. Raises 404."""
        if "\0" in absolute_path or not self._is_public(root, absolute_path):
            raise web.HTTPError(HTTPStatus.NOT_FOUND)
        found: str | None = super().validate_absolute_path(root, absolute_path)
        return found

    def _is_public(self, root: str, path: str) -> bool:
        """Whether a path may be told of, and what it leads to."""
        for folder, place in ((root, path), (os.path.realpath(root), os.path.realpath(path))):
            if not Path(place).is_relative_to(folder):
                return False
            if not self._shows_hidden and is_hidden(place, folder):
                return False
        return True


class _OfNotebooks(base.GatedHandler):
    """Says something of notebooks that are served."""

    def initialize(self, mounts: list[Mount]) -> None:
        """Give it the notebooks."""
        super().initialize()
        self.mounts = mounts

    @property
    def title(self) -> str:
        """What the notebooks are called."""
        return ", ".join(mount.name for mount in self.mounts)


class DocumentHandler(_OfNotebooks):
    """The OpenAPI document of the endpoints."""

    @web.authenticated
    @authorized("read", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """200 with the document, of the notebooks as they are now."""
        await self.require_reading()
        tables = {
            mount.prefix: (await self.parts.services.version(mount.path)).table for mount in self.mounts
        }
        await self.finish_json(
            lambda: openapi.endpoints(
                tables,
                title=self.title,
                description="Annotated cells of notebooks, as HTTP endpoints.",
                version=__version__,
                base_url=self.base_url,
            ),
            background.UNKNOWN_SIZE,
        )

    head = get


class SourceHandler(_OfNotebooks):
    """The notebook itself."""

    @web.authenticated
    @authorized("read", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """200 with the notebook as it is stored."""
        await self.require_reading()
        (mount,) = self.mounts
        model = await ensure_async(self.contents_manager.get(mount.path, type="notebook"))
        # A header's text is Latin-1, and no file name ends it.
        name = "".join(each if each.isalnum() and each.isascii() else "_" for each in mount.name)
        self.set_header("Content-Disposition", f'attachment; filename="{name}.ipynb"')
        text = await background.run(_write, model["content"])
        self.finish(text, set_content_type="application/x-ipynb+json")

    head = get


class DocsHandler(_OfNotebooks, docs.PageHandler):
    """A page to try the endpoints in."""

    #: Whoever comes with a token is given a cookie: the page's calls need one.
    logs_in = True

    @web.authenticated
    @authorized("read", resource=base.RESOURCE)  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """200 with the page."""
        self.show(
            title=self.title,
            static=url_path_join(self.base_url, STATIC),
            document=url_path_join(self.base_url, DOCUMENT),
        )

    head = get


class NotFoundHandler(base.GatedHandler):
    """Everything else."""

    async def prepare(self) -> None:  # type: ignore[override]  # as APIHandler itself does
        """404, to those who may know."""
        await super().prepare()
        if not self.current_user:
            raise web.HTTPError(HTTPStatus.FORBIDDEN)
        raise web.HTTPError(HTTPStatus.NOT_FOUND)

    @allow_unauthenticated
    def get(self) -> None:
        """Never called: `prepare` has answered."""
        raise web.HTTPError(HTTPStatus.NOT_FOUND)


def _write(notebook: dict[str, Any]) -> str:
    text: str = nbformat.writes(nbformat.from_dict(notebook))
    return text
