"""A kernel that has answered: what a run, or whoever gets one ready for a run, talks to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(kw_only=True)
class Opened:
    """A connection to a kernel that has answered. Used on the background loop."""

    client: Any  #: a `connection.RunClient`, or one that behaves like it
    link: Any  #: the `connection.Link` of it
    language_info: dict[str, Any]
    #: Whether the kernel can be asked by `result.closing`.
    has_steward: bool = False

    @property
    def language(self) -> str | None:
        """The name of its language."""
        return self.language_info.get("name")

    def close(self) -> None:
        """Let go of the kernel."""
        # Not `stop_channels`: that would first make those that were never needed.
        self.client.shell_channel.stop()
        self.client.iopub_channel.stop()
