"""Print, as pip's constraints, the lower bound of each dependency of the installed jupyter_nbexec."""

from __future__ import annotations

import importlib.metadata
import re
import sys

#: Such as `httpx>=0.27` or `jupyter-server<3,>=2.20`; those of extras end in a marker.
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?P<versions>[^;]*)$")


def lower_bounds(requirements: list[str]) -> list[str]:
    """Turn each `name>=version…` into `name==version`; leave out those of extras."""
    bounds = []
    for match in filter(None, map(REQUIREMENT.match, requirements)):
        lowest = re.search(r">=\s*([\w.]+)", match["versions"])
        if lowest is None:
            raise ValueError(f"{match[0]!r} has no lower bound")
        bounds.append(f"{match['name']}=={lowest[1]}")
    return bounds


if __name__ == "__main__":
    bounds = lower_bounds(importlib.metadata.requires("jupyter_nbexec") or [])
    sys.stdout.write("\n".join(bounds) + "\n")
