"""Output widgets, as a front end has them: what a notebook puts out inside one belongs to the widget.

The kernel says of which request a widget captures the outputs; nothing is captured in the kernel itself. What
was captured is part of the widget's state, of which the kernel hears when it has time for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import nbformat
from nbformat import NotebookNode

#: Messages that an output widget takes from its cell. An update is for whatever was displayed, wherever.
CAPTURED = frozenset({"stream", "display_data", "execute_result", "error", "clear_output"})
_MODEL = ("@jupyter-widgets/output", "OutputModel")


@dataclass(eq=False)
class OutputWidget:
    """One widget; its outputs are in a cell of its own."""

    comm_id: str
    cell: NotebookNode = field(default_factory=nbformat.v4.new_code_cell)
    #: The request whose outputs it captures; empty if none.
    request: str = ""
    #: Whether the kernel does not know yet what was captured.
    is_ahead: bool = False


class OutputWidgets:
    """The output widgets of a notebook."""

    def __init__(self) -> None:
        self._widgets: dict[str, OutputWidget] = {}
        #: Those that capture the outputs of a request; the innermost one is last.
        self._stacks: dict[str, list[OutputWidget]] = {}

    def __iter__(self) -> Iterator[OutputWidget]:
        return iter(self._widgets.values())

    def get(self, comm_id: Any) -> OutputWidget | None:
        """The widget whose comm this is."""
        return self._widgets.get(comm_id) if isinstance(comm_id, str) else None

    def capturing(self, request: str | None) -> OutputWidget | None:
        """The widget to which outputs of this request go now."""
        stack = self._stacks.get(request or "")
        return stack[-1] if stack else None

    def open(self, content: dict[str, Any]) -> None:
        """Note a comm that opens, if it is that of an output widget."""
        state = _state(content)
        comm_id = content.get("comm_id")
        if not isinstance(comm_id, str) or (state.get("_model_module"), state.get("_model_name")) != _MODEL:
            return
        self.close({"comm_id": comm_id})
        self._widgets[comm_id] = OutputWidget(comm_id)
        self.hear(content)

    def hear(self, content: dict[str, Any]) -> None:
        """Note whose outputs a widget captures from now on, if a comm message says so."""
        widget, request = self.get(content.get("comm_id")), _state(content).get("msg_id")
        if widget is None or not isinstance(request, str):
            return
        self._release(widget)
        widget.request = request
        if request:
            self._stacks.setdefault(request, []).append(widget)

    def close(self, content: dict[str, Any]) -> None:
        """Note that a comm closes. What the widget has captured is kept: its view may still be there."""
        widget = self.get(content.get("comm_id"))
        if widget is not None:
            self._release(widget)

    def _release(self, widget: OutputWidget) -> None:
        stack = self._stacks.get(widget.request, [])
        if widget in stack:
            stack.remove(widget)
            if not stack:
                del self._stacks[widget.request]
        widget.request = ""


def outputs_in(content: dict[str, Any]) -> list[NotebookNode] | None:
    """The outputs that a comm message gives a widget; None if it leaves them. Raises ValueError."""
    given = _state(content).get("outputs")
    if given is None:
        return None
    if not isinstance(given, list) or not all(_is_output(output) for output in given):
        raise ValueError("the outputs of a widget are none")
    return [nbformat.from_dict(output) for output in given]


def _state(content: dict[str, Any]) -> dict[str, Any]:
    data = content.get("data")
    state = data.get("state") if isinstance(data, dict) else None
    return state if isinstance(state, dict) else {}


def _is_output(output: Any) -> bool:
    if not isinstance(output, dict) or not isinstance(output.get("output_type"), str):
        return False
    is_stream = output["output_type"] == "stream"
    return not is_stream or (isinstance(output.get("name"), str) and isinstance(output.get("text"), str))
