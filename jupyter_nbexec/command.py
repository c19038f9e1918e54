"""The command `jupyter nbexec`: what talks to servers, and `serve`, which is one."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jupyter_nbexec import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] != ["serve"]:
        return cli.main(words)
    # The other commands need no server, and start in a fraction of the time.
    from jupyter_nbexec import serve

    serve.main(words[1:])
    return 0
