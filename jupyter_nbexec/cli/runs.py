"""The commands on runs that exist: `jupyter nbexec runs …`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING, Any

from jupyter_nbexec import client, models
from jupyter_nbexec.cli import exits, follow, output, servers, terminal, values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_HTML = "text/html"
_NOTEBOOK = "application/x-ipynb+json"


def add_to(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    *,
    server: argparse.ArgumentParser,
    file: argparse.ArgumentParser,
    **shared: Any,
) -> None:
    """Add the command `runs`; `server` and `file` have the options that others have too."""
    runs = commands.add_parser(
        "runs",
        help="list runs, show, await, follow, cancel or forget one",
        description="List the runs of a server, or do something with one of them.",
        **shared,
    )
    kinds = runs.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str,
        command: Callable[[argparse.Namespace], int],
        text: str,
        *parents: argparse.ArgumentParser,
        takes_id: bool = True,
    ) -> argparse.ArgumentParser:
        parser = kinds.add_parser(
            name, parents=[server, *parents], help=text, description=f"{text.capitalize()}.", **shared
        )
        if takes_id:
            parser.add_argument("id", metavar="ID", type=values.run_id, help="the id of the run")
        parser.set_defaults(command=command)
        return parser

    listing = add("list", _list, "list runs, newest first: a table on a terminal, else JSON", takes_id=False)
    listing.add_argument(
        "--path",
        metavar="PATH",
        help="only runs of this notebook: a file that a running local server serves; "
        "with --server, its path there",
    )
    listing.add_argument(
        "--status", choices=[status.value for status in models.RunStatus], help="only runs that are this"
    )
    amount = listing.add_mutually_exclusive_group()
    amount.add_argument(
        "--limit", type=values.page_size, default=50, metavar="N", help="at most so many runs; default: 50"
    )
    amount.add_argument("--all", action="store_true", help="all runs that the server has")
    listing.add_argument("--json", action="store_true", help="JSON on a terminal as well")

    add("show", _show, "print a run as JSON, as it is now", file)

    wait = add("wait", _wait, "wait until a run has ended, and print it as JSON", file)
    wait.add_argument(
        "--timeout",
        type=values.seconds,
        metavar="S",
        help="seconds to wait; then the run is printed as it is",
    )

    following = add("follow", _follow, "show the outputs of a run as they come, until it has ended")
    following.add_argument(
        "--timeout",
        type=values.seconds,
        default=60.0,
        metavar="S",
        help="seconds without a connection after which to give up; default: 60",
    )

    add("cancel", _cancel, "cancel a run")
    add("delete", _delete, "have the server forget a run; one that has not ended is cancelled first")

    notebook = add("notebook", _notebook, "print the executed notebook, as far as it has come", file)
    notebook.add_argument("--html", action="store_true", help="as a page of HTML")

    add(
        "prune",
        _prune,
        "have the server forget all runs that it need not keep any more, and print how many",
        takes_id=False,
    )


def _list(arguments: argparse.Namespace) -> int:
    if arguments.path is None:
        with servers.connected(arguments) as server:
            answer, runs = _take(server, arguments, None)
    else:
        with servers.connected_for(arguments, arguments.path) as (server, path):
            answer, runs = _take(server, arguments, path)
    if arguments.json or not sys.stdout.isatty():
        output.Output.open("-", accept=None).write(answer)
        return exits.SUCCEEDED
    output.write_bytes("".join(f"{line}\n" for line in _table(runs)).encode())
    if answer["cursor"] is not None:
        output.complain("there are more runs: --limit or --all shows them")
    return exits.SUCCEEDED


def _take(
    server: client.Client, arguments: argparse.Namespace, path: str | None
) -> tuple[dict[str, Any], list[client.RunResult]]:
    """The answer, and the runs that it has."""
    if arguments.all:
        runs = list(server.all_runs(path, arguments.status))
        return {"runs": [run.raw for run in runs], "cursor": None}, runs
    page = server.runs(path, arguments.status, arguments.limit)
    return page.raw, page.runs


def _table(runs: Sequence[client.RunResult]) -> list[str]:
    rows = [("ID", "STATUS", "CREATED", "SECONDS", "PATH"), *map(_row, runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _row(run: client.RunResult) -> tuple[str, ...]:
    status = run.status.value
    if run.status is models.RunStatus.RUNNING and run.progress.total:
        status += f" {run.progress.done}/{run.progress.total}"
    elif run.error is not None:
        status += f" ({run.error.code.value})"
    created = run.created.astimezone().strftime("%Y-%m-%d %H:%M") if run.created else ""
    duration = "" if run.duration is None else f"{run.duration:.1f}"
    return run.id, status, created, duration, terminal.plain(run.path or "-")


def _show(arguments: argparse.Namespace) -> int:
    written = output.Output.open(arguments.output, accept=None)
    with servers.connected(arguments) as server:
        written.write(server.get(arguments.id))
    return exits.SUCCEEDED


def _wait(arguments: argparse.Namespace) -> int:
    written = output.Output.open(arguments.output, accept=None)
    with _going_on(arguments.id), servers.connected(arguments) as server, terminal.Spinner(arguments.id):
        run = server.wait(arguments.id, arguments.timeout)
    written.write(run)
    if run.is_final:
        return output.end(run)
    output.complain(f"the run has not ended in time: it is {run.status.value}")
    return exits.NOT_ENDED


def _follow(arguments: argparse.Namespace) -> int:
    with _going_on(arguments.id), servers.connected(arguments) as server, follow.Progress() as bar:
        run = follow.follow(server.events(arguments.id, reconnect=arguments.timeout, on_lost=bar.lost), bar)
    return exits.READER_GONE if run is None else output.end(run)


def _cancel(arguments: argparse.Namespace) -> int:
    with servers.connected(arguments) as server:
        server.cancel(arguments.id)
    return exits.SUCCEEDED


def _delete(arguments: argparse.Namespace) -> int:
    with servers.connected(arguments) as server:
        server.delete(arguments.id)
    return exits.SUCCEEDED


def _notebook(arguments: argparse.Namespace) -> int:
    accept = _HTML if arguments.html else _NOTEBOOK
    written = output.Output.open(arguments.output, accept=accept)
    with servers.connected(arguments) as server:
        written.write(server.notebook(arguments.id, accept))
    return exits.SUCCEEDED


def _prune(arguments: argparse.Namespace) -> int:
    with servers.connected(arguments) as server:
        deleted = server.prune()
    output.Output.open("-", accept=None).write({"deleted": deleted})
    return exits.SUCCEEDED


@contextlib.contextmanager
def _going_on(run_id: str) -> Iterator[None]:
    """Let Ctrl-C end the command, and say that it does not end the run."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; run {run_id} goes on; `jupyter nbexec runs cancel {run_id}` cancels it"
        ) from None
