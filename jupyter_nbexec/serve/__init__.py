"""`jupyter nbexec serve`: a server of the annotated cells of some notebooks, and of nothing else.

`gateway` reads Kernel Gateway's options, `mounts` says which notebook is where, `handlers` answers,
`extension` is this package without its own resources, `application` is the server.
"""

from __future__ import annotations

from typing import Any


def main(argv: list[str]) -> None:
    """Serve until a signal ends it."""
    from jupyter_nbexec.serve import application

    application.ServeApp.launch_instance(argv)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from jupyter_nbexec.serve import extension

    return [{"module": "jupyter_nbexec.serve", "app": extension.Served}]
