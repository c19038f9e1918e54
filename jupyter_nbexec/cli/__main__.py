"""`python -m jupyter_nbexec.cli`, as `jupyter nbexec`."""

from __future__ import annotations

import sys

from jupyter_nbexec import cli

if __name__ == "__main__":
    sys.exit(cli.main())
