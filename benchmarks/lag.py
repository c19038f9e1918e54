"""An extension of a server that is measured: how late its event loop is for what it has to do.

    jupyter server --ServerApp.jpserver_extensions=lag=True

`GET api/lag` tells by how many milliseconds each wait was too long, of all since the last time it was asked.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web

STEP = 0.01  # seconds


class Probe:
    """Waits again and again, and notes how much too long that took."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._task: asyncio.Task[None] | None = None

    def take(self) -> list[float]:
        """Milliseconds of each wait since the last call; the first starts it."""
        if self._task is None:
            self._task = asyncio.create_task(self._watch())
        late, self._late = self._late, []
        return late

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + STEP
            await asyncio.sleep(STEP)
            self._late.append(round(1000 * (loop.time() - due), 2))


class LagHandler(APIHandler):
    """Tells how late the loop was."""

    def initialize(self, probe: Probe) -> None:
        """Take the probe of this server."""
        self._probe = probe

    @web.authenticated
    async def get(self) -> None:
        """Answer with milliseconds."""
        self.finish(json.dumps(self._probe.take()))


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "lag"}]


def _load_jupyter_server_extension(app: Any) -> None:
    path = url_path_join(app.web_app.settings["base_url"], "api/lag")
    app.web_app.add_handlers(".*", [(path, LagHandler, {"probe": Probe()})])
