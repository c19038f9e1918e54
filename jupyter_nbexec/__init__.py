"""One HTTP call that runs a notebook: a Jupyter Server extension."""

from __future__ import annotations

from typing import Any

from jupyter_nbexec._version import __version__

__all__ = ["__version__"]


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Tell Jupyter Server what to load."""
    from jupyter_nbexec.app import NbExec

    return [{"module": "jupyter_nbexec", "app": NbExec}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Tell `jupyter labextension develop` where the front end is built."""
    return [{"src": "labextension", "dest": "jupyter-nbexec"}]
