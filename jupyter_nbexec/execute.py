"""Execute a prepared notebook on a kernel, cell by cell, with nbclient.

nbclient's own loop (`async_execute`, `async_setup_kernel`) must not be used inside a server: it replaces the
server's SIGINT and SIGTERM handlers for good, lets a kernel that is lent to it leak sockets, and turns
cancellation into "Kernel died". So this module drives `async_execute_cell` and rests on these rules:

* The client is ours (`kernels/connection.py`), so that no output is lost and none is unbounded.
* The task that executes a cell is never cancelled. Who wants it to end interrupts or kills the kernel, or
  fails the link, and the cell ends by itself.
* Whether a cell failed is read from its reply, which nbclient ignores for failures without an `error` output
  and for replies that say `aborted`; and from the errors that it shows, of which `%run` and `%%time` say
  nothing in their replies.
* What is put out inside an Output widget belongs to the widget. The kernel hears of it between cells: what is
  sent on the shell socket while that is read may cost its reader a wake-up.
* Saved outputs are cleared first: cells that are not reached must not show those of another day.

Everything here runs on the background loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from queue import Empty
from typing import Any, TypeAlias

import zmq.asyncio
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import output_from_msg
from nbformat.validator import NotebookValidationError

from jupyter_nbexec import background, broadcast, output_widgets, outputs, result, truncation
from jupyter_nbexec.kernels import connection
from jupyter_nbexec.kernels.opened import Opened

#: Tag of cells that are not to be executed.
SKIP_TAG = "skip-execution"
#: Tag of cells that may raise.
RAISES_TAG = "raises-exception"
#: What `SystemExit` says where the notebook ended itself early, and well.
CLEAN_EXITS = frozenset({"", "0", "None"})
#: What is said where a notebook may have ended itself for want of something.
UNKNOWN_STATUS = "whether it did so for a good reason is not known"
#: Seconds that a kernel may take to answer what no cell asks.
ASIDE_TIMEOUT = 2.0
#: Seconds after which outputs are taken that came after their cell had ended.
LATE = 0.1
#: Bytes of texts, and messages, that are read beyond the limits for their ends; then they are kept back.
FLOOD_BYTES, FLOOD_MESSAGES = 64 << 20, 20_000
#: nbclient writes every source and every output to the server's log where that shows debugging: values of
#: parameters, and what a notebook prints of its secrets, are no business of a log.
_SILENT = logging.getLogger("jupyter_nbexec.nbclient")
_SILENT.setLevel(logging.CRITICAL + 1)
#: Bytes of a traceback, and of an exception's text, that are kept.
MAX_TRACEBACK = 64 * 1024
#: Things to be told of cells, beside their outputs.
MAX_REMARKS = 20
#: Bytes that an output widget has captured above which the kernel is not told: that would take too long.
MAX_TOLD = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run may keep, in bytes and numbers, and the patience with its kernel, in seconds."""

    output_bytes: int
    outputs: int
    result_bytes: int
    start_timeout: float
    result_timeout: float


@dataclass(frozen=True, kw_only=True)
class CellFailure:
    """The cell that ended a run, by its index in the executed notebook, and what it raised."""

    index: int
    ename: str | None
    evalue: str | None
    traceback: list[str] = field(default_factory=list)


class CannotPrepare(Exception):
    """The first cells of a notebook do not end well; a run will tell how."""

    def __init__(self, failure: CellFailure | None = None, *, is_late: bool = False) -> None:
        #: The cell that failed; None if it was something else.
        self.failure = failure
        #: Whether they took too long.
        self.is_late = is_late
        super().__init__("its first cells do not end well")


class StartTimeoutError(Exception):
    """The kernel did not answer in time."""


@dataclass
class Execution:
    """One execution: what it works on, and how it went. Shared between two threads.

    The background loop writes everything; the server's loop reads once the execution has ended, and
    calls `stop` before.
    """

    notebook: NotebookNode
    connection_info: dict[str, Any]
    limits: Limits
    allow_errors: bool = False
    #: Whether the kernel is to end with the run.
    ends_kernel: bool = True
    #: Called on the background loop with what happens: type, index of the cell, and data, which may be
    #: written as JSON and is not changed any more. Whoever applies them in turn to empty cells has the
    #: outputs of the notebook:
    #:
    #: * `cell`: `state` is "started" or "ended"; `execution_count`.
    #: * `output`: an output as in the notebook, and `display_id` where it has one. The text of a stream
    #:   comes in pieces: one joins the cell's last output if that is of the same stream.
    #: * `clear`: the cell's outputs go; if `wait`, then when its next output comes.
    #: * `update`: all outputs there are with this `display_id`, in whichever cells, get this `data` and
    #:   `metadata`. It belongs to no cell: the index is None.
    on_event: Callable[[str, int | None, dict[str, Any]], object] = lambda *_: None

    #: Whether the kernel has answered.
    is_ready: bool = False
    #: Whether no further cell is to be started.
    is_stopping: bool = False
    #: Whether all cells that were to be executed have been, and well.
    has_run_cells: bool = False
    #: Whether the kernel may still be busy with a value that takes too long to look at.
    is_stuck: bool = False
    #: Whether the kernel is about to end by itself.
    is_leaving: bool = False
    #: Whether it has nothing more to put out until then.
    is_settled: bool = False
    #: Index of the cell that is, or was last, being executed, and when it started (`time.monotonic`).
    current: int | None = None
    cell_started: float | None = None
    #: Indices of the cells that have ended.
    done: list[int] = field(default_factory=list)
    failure: CellFailure | None = None
    runner: _Client | None = None
    #: The connection to the kernel, once that has answered.
    opened: Opened | None = None
    #: Index of the first cell that is left to execute.
    first: int = 0
    #: What the user should know of cells, beside their outputs: their indices, and what each did.
    remarks: list[tuple[int, str]] = field(default_factory=list)
    #: Index of the cell whose outputs the result is taken from, since the kernel gives no value.
    result_cell: int | None = None
    result: Any = None
    result_size: int = 0
    result_type: str | None = None
    is_truncated: bool = False
    #: What was left out, and because of which limit.
    left_out: truncation.Account = field(default_factory=truncation.Account)

    def __post_init__(self) -> None:
        self.link = connection.Link(self.limits.output_bytes) if self.opened is None else self.opened.link

    @property
    def last(self) -> int | None:
        """Index of the last cell that is to be executed."""
        return max((i for i, cell in enumerate(self.notebook.cells) if is_executed(cell)), default=None)

    @property
    def size(self) -> int:
        """About how many bytes outputs and result have. From any thread."""
        return 0 if self.runner is None else self.runner.size + self.result_size

    def remark(self, index: int, deed: str) -> None:
        """Have the user told what a cell did, once. On the background loop."""
        if (index, deed) not in self.remarks and len(self.remarks) < MAX_REMARKS:
            self.remarks.append((index, deed))

    def stop(self) -> None:
        """Start no further cell. From any thread."""
        self.is_stopping = True

    def continue_with(self, notebook: NotebookNode, *, allow_errors: bool) -> None:
        """Go on with the rest of a notebook whose first cells have been executed by `run_ahead`."""
        self.first = len(self.notebook.cells)
        self.notebook.cells.extend(notebook.cells[self.first :])
        self.notebook.metadata = notebook.metadata
        self.allow_errors = allow_errors

    async def snapshot(self) -> NotebookNode:
        """Copy the notebook as it is now, without the state of widgets. On the background loop.

        The copy may be read in any thread: what is changed later is not in it.
        """
        if self.runner is not None:
            self.runner.finish_texts()
        copied = _copy(self.notebook)
        if self.runner is None:
            clear(copied)
        return copied

    async def abandon(self, *, has_ended: bool) -> None:
        """Wait for the kernel no longer, once what it has said has been read. On the background loop.

        A kernel that `has_ended` is heard out, however long that takes: what it said decides how the run
        has ended. One that goes on is not.
        """
        self.is_stopping = True
        if has_ended and self.opened is not None:
            await self.opened.client.hear_out()
        patience = math.inf if has_ended else connection.LAST_WORDS
        self.link.fail(connection.ConnectionLost(), patience)


def is_executed(cell: NotebookNode) -> bool:
    """Whether a run executes this cell."""
    return bool(
        cell.cell_type == "code" and cell.source.strip() and SKIP_TAG not in cell.metadata.get("tags", [])
    )


def may_raise(execution: Execution, index: int) -> bool:
    """Whether a cell may raise without an end of the run."""
    tags = execution.notebook.cells[index].metadata.get("tags", [])
    return execution.allow_errors or RAISES_TAG in tags


def clear(notebook: NotebookNode) -> None:
    """Forget all that an earlier run left in the notebook."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
            cell.metadata.pop("execution", None)


def _copy(notebook: NotebookNode) -> NotebookNode:
    """Copy what executing a notebook changes, and no more: values are replaced, not changed."""
    copied = NotebookNode(notebook)
    copied.metadata = NotebookNode(notebook.metadata)
    copied.cells = [NotebookNode(cell) for cell in notebook.cells]
    for cell in copied.cells:
        cell.metadata = NotebookNode(cell.metadata)
        if "execution" in cell.metadata:
            cell.metadata.execution = NotebookNode(cell.metadata.execution)
        if cell.cell_type == "code":
            cell.outputs = [NotebookNode(output) for output in cell.outputs]
    return copied


#: Where outputs go: a cell, by its index, or an output widget, by its comm's id.
_Place: TypeAlias = int | str


class _Late(deque[tuple[int, dict[str, Any]]]):
    """Outputs that came after their cell had ended, and a call for each that comes."""

    def __init__(self, on_append: Callable[[], None]) -> None:
        super().__init__()
        self._on_append = on_append

    def append(self, item: tuple[int, dict[str, Any]]) -> None:
        super().append(item)
        self._on_append()


class _Client(NotebookClient):
    """nbclient with bounded outputs: consecutive streams joined, everything counted, and told."""

    def __init__(self, execution: Execution) -> None:
        super().__init__(
            execution.notebook,
            timeout=None,
            allow_errors=True,  # the reply decides, in `_failure_of`
            iopub_timeout=10**9,  # the channel itself notices an end that is lost
            skip_cells_with_tag=SKIP_TAG,
            log=_SILENT,
        )
        # The mimicked Output widget sends on the shell socket while it is read: runs hang. Here is another.
        self.comm_open_handlers = {}
        self._widgets = output_widgets.OutputWidgets()
        self._execution = execution
        self._link = execution.link
        self._link.late = _Late(self._wake)
        self._late_timer: asyncio.TimerHandle | None = None
        self._events = broadcast.Gatherer(lambda *event: execution.on_event(*event))
        self._limits = execution.limits
        #: The stream output that is being written, and the texts that it is still to get.
        self._stream: NotebookNode | None = None
        self._texts: list[str] = []
        self._bytes = self._number = self._state_bytes = 0
        #: What each place has of these, so that clearing its outputs gives it back.
        self._of_place: dict[_Place, tuple[int, int]] = {}
        #: Where outputs are to be cleared when the next one comes. nbclient knows of one cell only.
        self._clearing: set[_Place] = set()
        #: The last error of the present cell, whether or not its outputs still have it; and one that they
        #: have no room for.
        self._raised: dict[str, Any] | None = None
        self._lost_error: dict[str, Any] | None = None
        #: Whether what is processed came after its cell had ended.
        self._is_late = False
        #: The largest message so far for each display, and for each part of a widget's state.
        self._largest: dict[tuple[str, ...], int] = {}
        #: What comes of texts after their heads are full, by place, and how much that was.
        self._rests: dict[_Place, truncation.Rests] = {}
        self._flood = (0, 0)
        self._account = execution.left_out
        #: The limit that was reached first.
        self._limit = "max_output_bytes"
        self._reserve = truncation.reserve(self._limits.output_bytes)

    async def _async_poll_kernel_alive(self) -> None:
        """Do nothing: the run watches its kernel itself.

        nbclient's watcher asks the kernel manager from the wrong thread, and is left behind by a cell that
        ends with an exception.
        """

    @property
    def size(self) -> int:
        """About how many bytes are kept."""
        return self._bytes + self._state_bytes

    def tell_cell(self, index: int, state: str) -> None:
        """Tell that a cell has started, or ended."""
        count = self.nb.cells[index].execution_count
        self._events.add("cell", index, {"state": state, "execution_count": count})
        self._events.flush()

    def finish_cell(self) -> None:
        """Write what is buffered into the outputs, and tell it."""
        self.take_late()
        self._write_rests()
        self.finish_texts()
        self._events.flush()

    def finish_texts(self) -> None:
        """Write the texts of the stream that is being written into its output."""
        if self._stream is not None:
            self._stream.text += "".join(self._texts)
        self._stream = None
        self._texts.clear()

    def take_late(self) -> None:
        """Keep outputs that came after their cell had ended: some kernels, and all threads, send such."""
        if self._late_timer is not None:
            self._late_timer.cancel()
            self._late_timer = None
        self._is_late = True
        while self._link.late:
            index, msg = self._link.late.popleft()
            self.process_message(msg, self.nb.cells[index], index)
        self._is_late = False

    def _wake(self) -> None:
        """See to it that late outputs are taken soon; not at once, since all texts are put together then."""
        if self._late_timer is None:
            self._late_timer = asyncio.get_running_loop().call_later(LATE, self.take_late)

    def process_message(
        self, msg: dict[str, Any], cell: NotebookNode, cell_index: int
    ) -> NotebookNode | None:
        """Keep what a message brings, as far as the limits allow.

        A notebook may have its kernel send anything. What is no valid output is left out, and flagged.
        """
        kind, index = msg["msg_type"], cell_index
        place: _Place = index
        widget = self._widgets.capturing(msg["parent_header"].get("msg_id"))
        if widget is not None and kind in output_widgets.CAPTURED:
            cell, place = widget.cell, widget.comm_id
            widget.is_ahead = True
        self.clear_before_next_output = place in self._clearing
        try:
            if kind.startswith("comm"):
                self._keep_comm(msg, cell, index)
                return None
            if kind == "error":
                self._note_error(msg, index, place)
            return self._keep(msg, cell, place)
        except (AttributeError, KeyError, TypeError, ValueError, NotebookValidationError):
            self._link.leave_out()
            return None
        finally:
            if self.clear_before_next_output:
                self._clearing.add(place)
            else:
                self._clearing.discard(place)

    def _keep(self, msg: dict[str, Any], cell: NotebookNode, place: _Place) -> NotebookNode | None:
        kind = msg["msg_type"]
        if kind == "clear_output":
            self.finish_texts()
            # The next output must come through: it is the one that clears.
            self._link.is_full = self._link.is_flooded = False
        elif kind in connection.OUTPUT_TYPES:
            if kind == "stream":
                self._keep_text(msg, cell, place)
                return None
            if not self._may_keep_output(msg, cell, place):
                if kind == "error" and place == self._execution.current and not self._is_late:
                    self._lost_error = msg["content"]
                return None
            self.finish_texts()
        had = len(cell.outputs)
        output = self._process(msg, cell, place)
        if len(cell.outputs) < had or (kind == "clear_output" and not cell.outputs):
            self._forget(place)
        self._tell(msg, output, place)
        return output

    def _process(self, msg: dict[str, Any], cell: NotebookNode, place: _Place) -> NotebookNode | None:
        # nbclient has no other use for the index than to find what it keeps under it.
        return super().process_message(msg, cell, place)  # type: ignore[arg-type]

    def _tell(self, msg: dict[str, Any], output: NotebookNode | None, place: _Place) -> None:
        """Tell what a message has changed in the outputs of cells, other than a stream."""
        if not isinstance(place, int):
            return
        content = msg["content"]
        if msg["msg_type"] == "clear_output":
            self._events.add("clear", place, {"wait": bool(content.get("wait"))})
        if output is not None:
            self._events.add("output", place, {**output, **_display_of(content)}, msg["size"])

    def _note_error(self, msg: dict[str, Any], index: int, place: _Place) -> None:
        """Bound an error; one that the outputs of its cell will not have when that ends is told."""
        content = msg["content"]
        if _bound_error(content):
            self._link.has_lost_output = True
            self._account.note("64 KiB", index, what="the rest of an exception's text")
        msg["size"] = min(msg["size"], 2 * MAX_TRACEBACK)
        if may_raise(self._execution, index) or _is_clean_exit(content):
            return
        if place != index:
            self._execution.remark(index, f"raised {_brief(content)} in an Output widget, and went on.")
        elif self._is_late:
            self._execution.remark(index, f"showed {_brief(content)} when it had ended already.")
        elif content.get("ename"):
            self._raised = content

    def begin_cell(self) -> None:
        """Forget what the cell before has raised."""
        self._raised = self._lost_error = None

    def shown_error(self, index: int) -> dict[str, Any] | None:
        """The last error that a cell shows, or would if there were room. Call it as soon as the cell ends."""
        for output in reversed(self.nb.cells[index].outputs):
            if output.output_type == "error" and not _is_clean_exit(output):
                return dict(output)
        if self._lost_error is not None or self._link.lost_error is not None:
            return self._lost_error or _parsed(self._link.lost_error)
        if self._raised is not None:
            self._execution.remark(index, f"showed {_brief(self._raised)}, and cleared that.")
        return None

    # Widgets

    def _keep_comm(self, msg: dict[str, Any], cell: NotebookNode, index: int) -> None:
        """Keep the state of widgets, and have output widgets capture what they say."""
        kind, content = msg["msg_type"], msg["content"]
        if kind == "comm_close":
            self._widgets.close(content)
        elif kind == "comm_msg":
            self._widgets.hear(content)
        if not self._may_keep_state(msg):
            return
        super().process_message(msg, cell, index)
        if kind == "comm_open":
            self._widgets.open(content)
        widget, given = self._widgets.get(content.get("comm_id")), output_widgets.outputs_in(content)
        if widget is not None and given is not None:
            self.finish_texts()
            self._forget(widget.comm_id)
            self.clear_display_id_mapping(widget.comm_id)  # type: ignore[arg-type]
            self._clearing.discard(widget.comm_id)
            widget.cell.outputs, widget.is_ahead = given, False

    def tell_widgets(self) -> None:
        """Tell the kernel what its output widgets have captured, as a front end does. Between cells only."""
        self.finish_texts()  # late ones may have come since the last cell ended
        client: Any = self.kc
        for widget in self._widgets:
            size, _ = self._of_place.get(widget.comm_id, (0, 0))
            if not widget.is_ahead or size > MAX_TOLD:
                continue
            widget.is_ahead = False
            state = {"outputs": outputs.clean_json(widget.cell.outputs)}
            data = {"method": "update", "state": state, "buffer_paths": []}
            message = client.session.msg("comm_msg", {"comm_id": widget.comm_id, "data": data})
            client.shell_channel.send(message)

    def set_widgets_metadata(self) -> None:
        """As inherited; what output widgets have captured is part of their state."""
        for widget in self._widgets:
            self.widget_state.setdefault(widget.comm_id, {})["outputs"] = widget.cell.outputs
        super().set_widgets_metadata()

    # What is kept

    def _update_display_id(self, display_id: str, msg: dict[str, Any]) -> None:
        """Update what was displayed under this id, and tell it; a further display does so too."""
        places: dict[_Place, list[int]] = self._display_id_map.get(display_id, {})
        if not any(places.values()):
            return
        shown = output_from_msg({**msg, "header": {**msg["header"], "msg_type": "display_data"}})
        for place, indices in places.items():
            widget = self._widgets.get(place)
            cell = self.nb.cells[place] if widget is None else widget.cell
            for index in indices:
                cell.outputs[index].update(data=shown.data, metadata=shown.metadata)
            if widget is not None and indices:
                widget.is_ahead = True
        if any(indices for place, indices in places.items() if isinstance(place, int)):
            content = msg["content"]
            update = {"display_id": display_id, "data": content["data"], "metadata": content["metadata"]}
            self._events.add("update", None, update, msg["size"])

    def _append(self, msg: dict[str, Any], cell: NotebookNode, place: _Place) -> NotebookNode | None:
        """Add text to the stream that is being written, or begin a new one.

        The text is put together when the stream ends: adding to it each time would copy it each time.
        """
        last = cell.outputs[-1] if cell.outputs and not self.clear_before_next_output else None
        if last is None or last.output_type != "stream" or last.name != msg["content"]["name"]:
            self.finish_texts()
            msg["content"]["text"] = ""
            last = self._process(msg, cell, place)
        if last is None:
            return None
        if last is not self._stream:
            self.finish_texts()
            self._stream = last
        self._texts += msg["texts"]
        if isinstance(place, int):
            self._events.add_text(place, msg["content"]["name"], msg["texts"], msg["size"])
        return last

    def _may_keep_output(self, msg: dict[str, Any], cell: NotebookNode, place: _Place) -> bool:
        """Count an output; False, and no more until some are cleared, if it is one too many."""
        if self.clear_before_next_output:
            self.finish_texts()
            self._forget(place)
        if msg["msg_type"] == "update_display_data":
            display = str((msg["content"].get("transient") or {}).get("display_id"))
            size, number = self._growth(("display", display), msg["size"]), 0
        else:
            # Who goes on with a stream makes no further output.
            joins = msg["msg_type"] == "stream" and self._continues(cell, msg["content"]["name"])
            size, number = msg["size"], 0 if joins else 1
        if self._bytes + size > self._limits.output_bytes or self._number + number > self._limits.outputs:
            self._limit = (
                "max_outputs" if self._number + number > self._limits.outputs else "max_output_bytes"
            )
            self._account.note(self._limit, self._cell_of(place), size=size, number=1)
            self._link.is_full = self._link.has_lost_output = True
            return False
        of_bytes, of_number = self._of_place.get(place, (0, 0))
        self._of_place[place] = of_bytes + size, of_number + number
        self._bytes += size
        self._number += number
        return True

    def _continues(self, cell: NotebookNode, name: str) -> bool:
        last = cell.outputs[-1] if cell.outputs and not self.clear_before_next_output else None
        return last is not None and last.output_type == "stream" and last.name == name

    def _keep_text(self, msg: dict[str, Any], cell: NotebookNode, place: _Place) -> None:
        """Keep a text, or its head; what comes then is looked at when the cell has ended."""
        name, texts = msg["content"]["name"], msg["texts"]
        rests = self._rests.get(place)
        if rests is not None and not self.clear_before_next_output:
            self._keep_rest(rests, name, texts)
            return
        if self.clear_before_next_output:
            self.finish_texts()
            self._forget(place)
        msg["size"] = sum(map(truncation.size_of, texts))
        room = self._limits.output_bytes - self._reserve - self._bytes
        if not self._continues(cell, name) and self._number >= self._limits.outputs:
            self._limit, room = "max_outputs", 0
        if msg["size"] > room:
            text = "".join(texts)
            head = truncation.head(text, room)
            rests = self._rests[place] = truncation.Rests(self._reserve)
            self._keep_rest(rests, name, [text[len(head) :]])
            if not head:
                return
            msg["texts"], msg["size"] = [head], truncation.size_of(head)
        if self._may_keep_output(msg, cell, place):
            self._append(msg, cell, place)

    def _keep_rest(self, rests: truncation.Rests, name: str, texts: list[str]) -> None:
        """Note what comes after the head; no more once it is a flood, which is stopped at its source then."""
        size = sum(rests.add(name, text) for text in texts)
        self._flood = self._flood[0] + size, self._flood[1] + len(texts)
        if self._flood[0] > FLOOD_BYTES or self._flood[1] > FLOOD_MESSAGES:
            self._link.is_flooded = rests.is_deaf = True

    def _write_rests(self) -> None:
        """Write the ends of texts that were cut, with a line that says how much is missing; and note that."""
        rests, self._rests = self._rests, {}
        for place, each in rests.items():
            widget = self._widgets.get(place)
            cell = self.nb.cells[place] if widget is None else widget.cell
            written, left_out = each.take(self._limits.output_bytes - self._bytes)
            self.clear_before_next_output = False
            for name, text in written:
                msg: dict[str, Any] = {
                    "msg_type": "stream",
                    "content": {"name": name, "text": text},
                    "texts": [text],
                }
                msg |= {"size": truncation.size_of(text), "parent_header": {}}
                msg["header"] = {"msg_type": "stream"}
                if self._may_keep_output(msg, cell, place):
                    self._append(msg, cell, place)
            if left_out:
                self._link.has_lost_output = True
                self._account.note(self._limit, self._cell_of(place), size=left_out, is_least=each.is_deaf)
        size, number = self._link.dropped
        if size or number:
            self._link.dropped = (0, 0)
            self._account.note(self._limit, self._execution.current, size=size, number=number, is_least=True)

    def _cell_of(self, place: _Place) -> int | None:
        """The cell to name where something of a place was left out: that of a widget, the present one."""
        return place if isinstance(place, int) else self._execution.current

    def _forget(self, place: _Place) -> None:
        """Give back what the outputs of a place took: they have been, or are about to be, cleared."""
        of_bytes, of_number = self._of_place.pop(place, (0, 0))
        self._bytes -= of_bytes
        self._number -= of_number
        self._rests.pop(place, None)
        self._link.is_full = self._link.is_flooded = False
        self._flood = (0, 0)
        if place == self._execution.current:
            self._lost_error = self._link.lost_error = None

    def _growth(self, key: tuple[str, ...], size: int) -> int:
        """Return how much more is kept if this replaces what came under the same key before."""
        grown = max(0, size - self._largest.get(key, 0))
        if self._bytes + self._state_bytes + grown <= 2 * self._limits.output_bytes:
            self._largest[key] = max(size, self._largest.get(key, 0))
        return grown

    def _may_keep_state(self, msg: dict[str, Any]) -> bool:
        """Bound the state of widgets, which is kept beside the outputs."""
        content = msg["content"]
        state = content["data"].get("state") if isinstance(content.get("data"), dict) else None
        if not isinstance(state, dict):
            return bool(msg["msg_type"] != "comm_msg")
        grown = self._growth(("state", str(content.get("comm_id")), *sorted(map(str, state))), msg["size"])
        if self._state_bytes + grown > self._limits.output_bytes:
            self._link.has_lost_output = True
            self._account.note("max_output_bytes", self._execution.current, size=msg["size"])
            return False
        self._state_bytes += grown
        return True


def _display_of(content: dict[str, Any]) -> dict[str, Any]:
    """Name the display that a message makes, as an `update` will."""
    display = (content.get("transient") or {}).get("display_id")
    return {"display_id": display} if display else {}


async def open_kernel(
    context: zmq.asyncio.Context,
    info: Mapping[str, Any],
    link: connection.Link,
    *,
    start_timeout: float,
    is_owned: bool,
) -> Opened:
    """Connect to a kernel and wait until it answers; one of the run's own learns what it is to do at the end.

    Raises StartTimeoutError after `start_timeout` seconds, OSError if that was for want of a file descriptor,
    and `connection.ConnectionLost`.
    """
    client = connection.connect(context, info, link)
    opened = Opened(client=client, link=link, language_info={})
    try:
        said = await connection.wait_until_ready(client, link, start_timeout)
        opened.language_info = said.get("language_info") or {}
        if opened.language == "python" and is_owned:
            opened.has_steward = await evaluate(opened, result.opening())
            if opened.has_steward:
                link.losses.capacity = math.inf  # it has been told to drop nothing
        if is_owned and "place" in info:
            await _put_in_place(opened, info)
    except TimeoutError as error:
        try:
            _need_descriptor()
        finally:
            opened.close()
        raise StartTimeoutError from error
    except BaseException:
        opened.close()
        raise
    return opened


def _need_descriptor() -> None:
    """Raise OSError where there is none left: ZeroMQ would not say so, but try again and again."""
    os.close(os.open(os.devnull, os.O_RDONLY))


async def _put_in_place(opened: Opened, info: Mapping[str, Any]) -> None:
    """See that a kernel on another machine is where it should be, and has what it was given.

    Raises ConnectionLost if it has not.
    """
    folder, session_name = info["place"]
    if info["env"] and not opened.has_steward:
        opened.link.warn("Whether the environment has reached the kernel cannot be told.")
    elif info["env"] and not await evaluate(opened, result.having(info["env"])):
        raise connection.ConnectionLost("the gateway has not given the kernel the request's environment")
    if opened.has_steward and not await evaluate(opened, result.entering(folder, session_name)):
        opened.link.warn("The kernel is not in the notebook's folder, which is not there on its machine.")


async def evaluate(opened: Opened, expression: str) -> bool:
    """Evaluate an expression in an IPython kernel, silently; whether it could. Raises ConnectionLost."""
    reply = await _ask(opened.client, {"it": expression}, ASIDE_TIMEOUT)
    entry = ((reply or {}).get("user_expressions") or {}).get("it") or {}
    return bool(entry.get("status") == "ok")


async def run(execution: Execution, context: zmq.asyncio.Context) -> None:
    """Execute the notebook in place. How it went is in the execution afterwards; then `close` it.

    Raises StartTimeoutError if the kernel does not answer in time, and `connection.ConnectionLost` if it
    ended or was given up; what had been executed until then is in the notebook all the same.
    """
    runner, opened = await _begin(execution, context)
    last, reply = await _run_cells(runner, execution, opened, is_all=True)
    if last is not None and execution.has_run_cells:
        await _take_result(opened, execution, last, reply)
    if opened.has_steward and not execution.is_stuck:
        await _say_farewell(opened, execution)


async def run_ahead(execution: Execution, context: zmq.asyncio.Context) -> None:
    """Execute the first cells of a notebook, which are all that the execution has; then `continue_with`.

    Raises as `run` does, and CannotPrepare if they do not all end well.
    """
    runner, opened = await _begin(execution, context)
    await _run_cells(runner, execution, opened, is_all=False)
    if not execution.has_run_cells or execution.is_leaving or not _have_all_run(execution):
        raise CannotPrepare(execution.failure)
    execution.has_run_cells = False


async def tend(execution: Execution) -> None:
    """Take what a kernel says that waits for its run."""
    if execution.opened is not None and execution.runner is not None:
        await execution.opened.client.iopub_channel.drain()
        execution.runner.take_late()


def _have_all_run(execution: Execution) -> bool:
    cells = execution.notebook.cells
    return execution.done == [index for index, cell in enumerate(cells) if is_executed(cell)]


async def _begin(execution: Execution, context: zmq.asyncio.Context) -> tuple[_Client, Opened]:
    """Connect to the kernel, if nobody has yet."""
    if execution.runner is None:
        clear(execution.notebook)
    opened = execution.opened
    if opened is None:
        opened = execution.opened = await open_kernel(
            context,
            execution.connection_info,
            execution.link,
            start_timeout=execution.limits.start_timeout,
            is_owned=execution.ends_kernel,
        )
    execution.is_ready = True
    runner = execution.runner = execution.runner or _Client(execution)
    runner.kc = opened.client
    execution.notebook.metadata["language_info"] = opened.language_info
    return runner, opened


async def close(execution: Execution, patience: float) -> None:
    """Take what the kernel has sent since its last cell ended, and let go of it.

    Call it when the kernel has ended: then it is heard out, if it has not said before that this is all. For
    one that lives on, `patience` are seconds to wait for more.
    """
    runner, opened = execution.runner, execution.opened
    if opened is None:
        return
    try:
        if runner is not None and not execution.ends_kernel and execution.link.failure is None:
            runner.tell_widgets()
        if execution.ends_kernel and not execution.is_settled:
            await opened.client.hear_out()
        await asyncio.sleep(patience)
        await opened.client.iopub_channel.drain()
    finally:
        opened.close()
        if runner is not None:
            runner.finish_cell()
            runner.set_widgets_metadata()
        # Some kernels show a value when they have said that its cell has ended.
        _take_shown_result(execution)
        execution.is_truncated |= execution.link.has_lost_output


async def _run_cells(
    runner: _Client, execution: Execution, opened: Opened, *, is_all: bool
) -> tuple[int | None, dict[str, Any]]:
    """Execute the cells in order; index and reply of the last, or None if the notebook ended itself early."""
    final = execution.last
    last: int | None = None
    reply: dict[str, Any] = {}
    for index, cell in enumerate(execution.notebook.cells):
        if index < execution.first:
            last = index if is_executed(cell) else last
            continue
        if not is_executed(cell):
            continue
        if execution.is_stopping:
            return last, reply
        execution.current = last = index
        execution.cell_started = time.monotonic()
        runner.tell_cell(index, "started")
        if is_all and index == final and opened.has_steward:
            limits = execution.limits
            opened.link.expressions = result.closing(limits.result_bytes, limits.result_timeout)
        reply, shown = await _run_cell(runner, execution, index)
        execution.cell_started = None
        execution.done.append(index)
        runner.tell_cell(index, "ended")
        execution.is_leaving = is_leaving(reply)
        execution.failure = _failure_of(execution, index, reply, shown)
        if execution.failure is not None:
            return last, reply
        if is_early_end(reply):
            left = sum(map(is_executed, execution.notebook.cells[index + 1 :]))
            if left and not _has_exit_status(reply, opened.language):
                execution.remark(index, f"ended the notebook, with {left} more to execute; {UNKNOWN_STATUS}.")
            execution.has_run_cells = True
            return None, reply
    execution.has_run_cells = True
    return last, reply


async def _run_cell(
    runner: _Client, execution: Execution, index: int
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Execute one cell; the content of its reply, and the error that it shows, if any."""
    cell, link = execution.notebook.cells[index], execution.link
    reply: dict[str, Any] = {}

    def keep(*, execute_reply: dict[str, Any], **_: Any) -> None:
        reply.update(execute_reply["content"])

    runner.on_cell_executed = keep
    runner.begin_cell()
    runner.tell_widgets()
    client: Any = runner.kc
    shown = None
    was_flooded = link.is_flooded
    try:
        await runner.async_execute_cell(cell, index)
    except connection.ConnectionLost:
        said = {} if link.reply is None else link.reply["content"]
        if not asks_exit(said) and not result.is_leaving(said):
            raise
        # All that came has been read, and the end of the cell was not among it.
        reply = said
        link.has_lost_output = True
        link.warn("The kernel ended before the end of its last cell was heard; outputs may be missing.")
    finally:
        # What comes after the cell's end is not its failure.
        shown = runner.shown_error(index)
        link.end(index)
        client.iopub_channel.end()
        link.request = None  # what it still says is late, even if nobody asks it for anything more
        runner.finish_cell()
        if was_flooded and link.is_flooded:
            # The kernel may have kept it back: then nobody knows whether there was any.
            execution.left_out.note("max_output_bytes", index, what="any text")
        link.losses.ended_cell()
        if link.losses.any or link.was_cut:
            execution.is_truncated = True
            link.warn("The kernel's messages did not all arrive; outputs may be missing.")
    return reply, shown


def asks_exit(reply: dict[str, Any]) -> bool:
    """Whether the cell called `exit()` or `quit()`."""
    return any(payload.get("source") == "ask_exit" for payload in reply.get("payload") or [])


def _has_exit_status(reply: dict[str, Any], language: str | None) -> bool:
    """Whether it is known that a notebook which ended itself has done so well.

    Python's `exit()` has no status; what else is in its parentheses says that the kernel is to stay. R's
    `quit(status=3)` tells nobody of it.
    """
    payloads = [payload for payload in reply.get("payload") or [] if payload.get("source") == "ask_exit"]
    return all(
        language == "python" and payload.get("keepkernel") in (None, False, True) for payload in payloads
    )


def is_leaving(reply: dict[str, Any]) -> bool:
    """Whether the kernel ends because the cell asked it to."""
    return asks_exit(reply) and not any(payload.get("keepkernel") for payload in reply.get("payload") or [])


def is_early_end(reply: dict[str, Any]) -> bool:
    """Whether the notebook ended itself: `exit()`, or `SystemExit` with nothing to complain of."""
    return asks_exit(reply) or _is_clean_exit(reply)


def _is_clean_exit(content: Mapping[str, Any]) -> bool:
    """Whether an error, or a reply, is a `SystemExit` with nothing to complain of."""
    return content.get("ename") == "SystemExit" and str(content.get("evalue")) in CLEAN_EXITS


def failure_in(reply: dict[str, Any], shown: dict[str, Any] | None) -> dict[str, Any] | None:
    """What says how cells failed: their reply, or an error that they show; None if they did not fail.

    `%run`, `%%time` and the like show the error of what they execute, and reply that all is well.
    """
    has_failed = reply.get("status") != "ok" and not is_early_end(reply)
    if shown is None or _is_clean_exit(shown):
        return reply if has_failed else None
    # Some failures leave their name in the reply alone, some in the outputs alone; and ipykernel names the
    # wrong one where showing a value failed.
    return reply if has_failed and reply.get("ename") not in (None, "", "NoneType") else shown


def _failure_of(
    execution: Execution, index: int, reply: dict[str, Any], shown: dict[str, Any] | None
) -> CellFailure | None:
    """Why a cell ends the run, or None if it does not."""
    said = failure_in(reply, shown)
    if said is None or (reply.get("status") in ("ok", "error") and may_raise(execution, index)):
        return None
    execution.is_truncated |= _bound_error(said)
    return CellFailure(
        index=index, ename=said.get("ename"), evalue=said.get("evalue"), traceback=said.get("traceback") or []
    )


def _brief(content: dict[str, Any]) -> str:
    """Name an error in a line."""
    said = ": ".join(str(content[part]) for part in ("ename", "evalue") if content.get(part))
    return " ".join(outputs.without_escapes(said).split())[:200] or "an error"


def _parsed(arrival: Any) -> dict[str, Any]:
    """Read an error for which there was no room."""
    try:
        content = arrival.message()["content"]
        _bound_error(content)
    except (AttributeError, KeyError, TypeError, ValueError):
        content = {}
    return content if content.get("ename") else {"ename": "Error", "evalue": "", "traceback": []}


def _bound_error(content: dict[str, Any]) -> bool:
    """Cut what an exception says to what may be kept, in place; whether that was necessary."""
    traceback, is_cut = _bounded(content.get("traceback") or [])
    if is_cut:
        content["traceback"] = traceback
    evalue = content.get("evalue")
    if isinstance(evalue, str) and len(evalue) > MAX_TRACEBACK:
        content["evalue"] = evalue[:MAX_TRACEBACK]
        return True
    return is_cut


def _bounded(traceback: list[str]) -> tuple[list[str], bool]:
    """Keep the end of a traceback, which says most."""
    kept: list[str] = []
    size = 0
    for line in reversed(traceback):
        size += len(line)
        if size > MAX_TRACEBACK:
            return list(reversed(kept)) or [line[-MAX_TRACEBACK:]], True
        kept.append(line)
    return list(reversed(kept)), False


async def _take_result(opened: Opened, execution: Execution, index: int, reply: dict[str, Any]) -> None:
    """Take the value that the last cell showed from the kernel; failing that, from what it showed."""
    cell = execution.notebook.cells[index]
    captured = result.Captured()
    is_unheard = False
    is_shown = any(output.output_type == "execute_result" for output in cell.outputs)
    if result.NAME in (reply.get("user_expressions") or {}):
        captured = await background.offload(result.size(reply), result.decode, reply)
        # A cell can say that it has ended when it has not; then there is more to hear.
        is_unheard = captured.found and not is_shown
    elif is_shown and opened.language == "python" and cell.execution_count:
        captured = await _capture(opened, execution, cell.execution_count)
    if captured.truncated:
        execution.is_truncated = True
        execution.left_out.note("max_result_bytes", index, what="the result")
    if captured.found:
        execution.result, execution.result_type = captured.value, "application/json"
        execution.result_size = captured.size
    elif not captured.truncated:
        execution.result_cell = index
        _take_shown_result(execution)
    _hear_farewell(execution, reply)
    execution.is_settled &= not is_unheard


def _take_shown_result(execution: Execution) -> None:
    """Take what the last cell shows for the result, if there is nothing better."""
    if execution.result_cell is not None and execution.result_type is None:
        shown = execution.notebook.cells[execution.result_cell].outputs
        execution.result, execution.result_type = outputs.cell_result(shown)


async def _ask(
    client: connection.RunClient, expressions: dict[str, str], timeout: float
) -> dict[str, Any] | None:
    """Evaluate expressions in an IPython kernel, in turn, silently; the reply, or None if none came in time.

    Raises ConnectionLost.
    """
    request = client.execute(
        "",
        silent=True,
        store_history=False,
        user_expressions=expressions,
        allow_stdin=False,
        stop_on_error=False,
    )
    deadline = time.monotonic() + timeout
    while True:
        try:
            reply = await client.shell_channel.get_msg(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            return None
        if reply["parent_header"].get("msg_id") == request:
            content: dict[str, Any] = reply["content"]
            return content


async def _capture(opened: Opened, execution: Execution, count: int) -> result.Captured:
    """Look at a value, with patience of its own: a value may do anything when it is looked at."""
    expressions = {result.NAME: result.expression(count, execution.limits.result_bytes)}
    try:
        reply = await _ask(opened.client, expressions, execution.limits.result_timeout)
    except connection.ConnectionLost:
        return result.Captured()  # the cells have ended well; so has the run
    if reply is None:
        execution.is_stuck = True
        return result.Captured()
    return await background.run(result.decode, reply)


def _hear_farewell(execution: Execution, reply: dict[str, Any] | None) -> None:
    """Note that the kernel ends, if it says so."""
    execution.is_leaving |= result.is_leaving(reply)
    execution.is_settled |= result.is_settled(reply)


async def _say_farewell(opened: Opened, execution: Execution) -> None:
    """Have an IPython kernel end from within, if it is not leaving already.

    A `shutdown_request` is answered by another thread of the kernel's, and in one of a hundred ends on a busy
    machine the main thread waits for that one, and that one for ever to send (ipykernel 7.4).
    """
    if execution.is_leaving:
        return
    try:
        _hear_farewell(
            execution, await _ask(opened.client, {result.LEAVING: result.leaving()}, ASIDE_TIMEOUT)
        )
    except connection.ConnectionLost:
        execution.is_leaving = True
