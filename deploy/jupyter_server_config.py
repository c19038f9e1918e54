"""How the server in the container is configured; options of its command win."""

from __future__ import annotations

import os

c = get_config()  # type: ignore[name-defined]  # noqa: F821  # traitlets gives it

c.ServerApp.ip = "0.0.0.0"  # noqa: S104  # the container's own network
# Cloud Run and others say by $PORT where they expect the server.
c.ServerApp.port = int(os.environ.get("PORT", "8888"))
c.ServerApp.port_retries = 0
c.ServerApp.root_dir = "/srv/notebooks"
c.ServerApp.allow_remote_access = True
c.NbExec.fork_kernels = True
