"""Follows a run: its outputs as they come, and on a terminal how far it is."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TextIO

from jupyter_nbexec import client, models
from jupyter_nbexec.cli import output, terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Characters of the bar itself.
_WIDTH = 20


def follow(events: Iterable[client.RunEvent], bar: Progress) -> client.RunResult | None:
    """Show events; return the run when it has ended, or None if nobody reads stdout any more."""
    screen = _Screen(bar)
    for event in events:
        bar.take(event)
        if event.type == "output" and not screen.show(event.data):
            return None
        if event.type == "end":
            screen.end(event.run)
            return event.run
    raise client.UnexpectedAnswer("The events ended without the run's end.")


class Progress(terminal.Bar):
    """How far a run is: cells, the one that runs, seconds since it was started."""

    def __init__(self) -> None:
        super().__init__()
        self._status = "connecting"
        self._progress = models.Progress()
        self._started: datetime | None = None

    def take(self, event: client.RunEvent) -> None:
        """Heed what an event says of progress."""
        data, done = event.data, self._progress.done
        if event.run is not None:
            self._status = event.run.status.value
            self._progress = event.run.progress
            self._started = event.run.started
        elif event.type == "cell" and isinstance(data, dict):
            is_end = data.get("state") == "ended"
            self._progress = models.Progress(
                done=done + is_end,
                total=max(self._progress.total, done + is_end),
                cell=None if is_end else data.get("cell"),
            )

    def lost(self, _: client.ClientError) -> None:
        """Show that the connection was lost."""
        self._status = "connection lost, trying again"

    def text(self) -> str:
        """Return the bar and what it means."""
        done, total, cell = self._progress.done, self._progress.total, self._progress.cell
        parts = [self._status]
        if total:
            filled = _WIDTH * min(done, total) // total
            parts.insert(0, f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {done}/{total} cells")
        if isinstance(cell, int):
            parts.append(f"in cell {cell}")
        if self._started is not None:
            seconds = (datetime.now(timezone.utc) - self._started).total_seconds()
            parts.append(f"{max(0.0, seconds):.0f} s")
        return "  ".join(parts)


class _Screen:
    """Writes outputs to stdout and stderr, above the bar."""

    def __init__(self, bar: terminal.Bar) -> None:
        self._bar = bar
        self._colours = {"stdout": terminal.Colours(), "stderr": terminal.Colours()}
        self._open = ""  #: the stream whose last line has no end yet
        self._has_error = False

    def show(self, data: models.JsonValue) -> bool:
        """Show an output; return False if nobody reads stdout any more."""
        if not isinstance(data, dict):
            return True
        kind = data.get("output_type")
        if kind == "stream":
            return self._write(
                "stderr" if data.get("name") == "stderr" else "stdout", _text(data.get("text"))
            )
        if kind == "error":
            self._has_error = True
            return self._show_error(data.get("traceback") or [f"{data.get('ename')}: {data.get('evalue')}"])
        if kind in ("execute_result", "display_data"):
            shown = (data.get("data") or {}).get("text/plain")
            return shown is None or self._write_whole("stdout", _text(shown))
        return True

    def end(self, run: client.RunResult | None) -> None:
        """Show an error that left no output, and let what follows begin on a line of its own."""
        if run is not None and run.error is not None and run.error.traceback and not self._has_error:
            self._show_error(run.error.traceback)
        if self._open and _stream(self._open).isatty():
            self._write(self._open, "\n")

    def _show_error(self, traceback: list[Any]) -> bool:
        return self._write_whole("stderr", "\n".join(map(str, traceback)))

    def _write_whole(self, name: str, text: str) -> bool:
        """Write what stands on lines of its own."""
        if self._open == name or (self._open and sys.stdout.isatty() and sys.stderr.isatty()):
            self._write(self._open, "\n")
        stream = _stream(name)
        if stream.isatty():
            text = terminal.Colours()(text)
        elif name == "stderr":
            text = terminal.without_colours(text)
        return self._put(name, text.rstrip("\n") + "\n")

    def _write(self, name: str, text: str) -> bool:
        if _stream(name).isatty():
            text = self._colours[name](text)
        return not text or self._put(name, text)

    def _put(self, name: str, text: str) -> bool:
        content = text.encode(errors="backslashreplace")
        with self._bar.hidden():
            self._open = "" if text.endswith(("\n", "\n\x1b[0m")) else name
            self._bar.leave_line(is_open=bool(self._open) and _stream(self._open).isatty())
            if name == "stdout":
                return output.write_bytes(content)
            sys.stderr.flush()
            sys.stderr.buffer.write(content)
            sys.stderr.buffer.flush()
            return True


def _stream(name: str) -> TextIO:
    return sys.stderr if name == "stderr" else sys.stdout


def _text(value: models.JsonValue) -> str:
    """The text of an nbformat output, which may be a list of lines."""
    return "".join(map(str, value)) if isinstance(value, list) else str(value or "")
