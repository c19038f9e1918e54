"""What a client does with a run's events: it puts together the outputs of each cell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: Type, cell, data.
Told = tuple[str, Any, dict[str, Any]]


class Replay:
    """The outputs of each cell, as the events so far say."""

    def __init__(self, events: Iterable[Told] = ()) -> None:
        self._outputs: dict[Any, list[dict[str, Any]]] = {}
        self._displays: dict[Any, list[Any]] = {}
        self._clearing: set[Any] = set()
        for event in events:
            self.apply(*event)

    @property
    def outputs(self) -> dict[Any, list[dict[str, Any]]]:
        """The outputs of the cells that have some."""
        return {cell: outputs for cell, outputs in self._outputs.items() if outputs}

    @property
    def state(self) -> tuple[Any, ...]:
        """All that matters for the events to come."""
        displays = {cell: self._displays[cell] for cell in self.outputs}
        return self.outputs, displays, self._clearing & set(self.outputs)

    def apply(self, kind: str, cell: Any, data: dict[str, Any]) -> None:
        """Do what an event says."""
        if kind == "clear":
            if data["wait"]:
                self._clearing.add(cell)
            else:
                self._clear(cell)
        elif kind == "update":
            for each, displays in self._displays.items():
                for output, display in zip(self._outputs[each], displays, strict=True):
                    if display == data["display_id"]:
                        output |= {"data": data["data"], "metadata": data["metadata"]}
        elif kind == "output":
            self._show(cell, dict(data))

    def _clear(self, cell: Any) -> None:
        self._outputs[cell], self._displays[cell] = [], []

    def _show(self, cell: Any, output: dict[str, Any]) -> None:
        if cell in self._clearing or cell not in self._outputs:
            self._clearing.discard(cell)
            self._clear(cell)
        shown = self._outputs[cell]
        display = output.pop("display_id", None)
        is_stream = output["output_type"] == "stream"
        if is_stream and shown and shown[-1].get("name") == output["name"]:
            shown[-1]["text"] += output["text"]
            return
        shown.append(output)
        self._displays[cell].append(display)
