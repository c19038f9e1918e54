"""This extension without its own resources: its endpoints are mounted where the server wants them."""

from __future__ import annotations

import asyncio
from typing import Any

from tornado import web
from traitlets import default

from jupyter_nbexec import errors, planning
from jupyter_nbexec.app import NbExec
from jupyter_nbexec.serve import handlers


class Served(NbExec):
    """Kernels for endpoints, and no runs."""

    static_paths = []  # noqa: RUF012  # a trait of ExtensionApp
    extension_url = handlers.PAGE

    @default("min_endpoint_kernels")
    def _one_kernel(self) -> int:
        return 1

    @default("drain_timeout")
    def _some_seconds(self) -> float:
        return 5.0

    @default("kernel_niceness")
    def _none_is_in_the_way(self) -> int:
        return 0

    @classmethod
    def get_extension_package(cls) -> str:
        """Name the package that the server loads."""
        return "jupyter_nbexec.serve"

    def initialize_settings(self) -> None:
        """Build the parts; of runs there are none, and those of other servers are not touched."""
        self.database_url = "sqlite://"
        self.prepared_notebooks, self.warm_kernels, self.webhook_hosts = [], {}, []
        server: Any = self.serverapp
        if server.kernels:
            number = min(server.kernels, server.max_kernels or server.kernels)
            self.min_endpoint_kernels = self.max_endpoint_kernels = number
        super().initialize_settings()

    async def _locate(self, path: str) -> planning.Plan:
        server: Any = self.serverapp
        return await self._planner.locate(path, server.kernel_name)

    def initialize_handlers(self) -> None:
        """Register the endpoints, what is said of them, and that there is nothing else."""
        server: Any = self.serverapp
        self.handlers.extend(
            handlers.routes(
                server.mounts,
                allow_source=server.allow_source,
                static_path=server.static_folder,
                shows_hidden=server.contents_manager.allow_hidden and not server.hides_files,
            )
        )

    def initialize(self) -> None:  # type: ignore[override]  # as ExtensionApp itself does
        """As inherited; nothing that the server brings along can be reached."""
        super().initialize()  # type: ignore[no-untyped-call]
        server: Any = self.serverapp
        server.web_app.add_handlers(".*$", [(r".*", handlers.NotFoundHandler)])

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:  # noqa: ARG002
        """Make kernels ready. There are no runs to take up, so that their store stays closed."""
        self._begin()

    async def _make_ready(self) -> None:
        """Start kernels; a service that cannot answer does not stay."""
        await self._starter.start_fork_servers(self.preload)
        await self._fresh.start()
        server: Any = self.serverapp
        try:
            await asyncio.gather(*(self._services.open(mount.path) for mount in server.mounts))
        except (errors.NbexecError, web.HTTPError) as error:  # of the latter kind is what may not be read
            server.fail(str(error))
        except Exception as error:
            self.log.exception("the notebooks cannot be served")
            server.fail(f"Internal error: {type(error).__name__}.")
        else:
            server.tell_ready()
