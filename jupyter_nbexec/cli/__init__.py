"""The command line, `jupyter nbexec`: run a notebook on a Jupyter server, describe it, look after runs."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING, Any

from jupyter_nbexec import _version, client
from jupyter_nbexec.cli import exits, output, runs, servers, terminal, values
from jupyter_nbexec.cli.exits import (
    INTERRUPTED,
    NO_SERVER,
    NOT_ENDED,
    READER_GONE,
    REFUSED,
    RUN_FAILED,
    SUCCEEDED,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "INTERRUPTED",
    "NOT_ENDED",
    "NO_SERVER",
    "READER_GONE",
    "REFUSED",
    "RUN_FAILED",
    "SUCCEEDED",
    "main",
]

_shield_values = values.shield_values

_EPILOG = """\
exit status: 0 done, and the run succeeded; 1 the run failed or was cancelled; 2 refused or misused; 3 no
server; 4 the run has not ended in time; 130 interrupted. The token is taken from --token, else from
$NBEXEC_TOKEN, else from the local server's own file, else from $JUPYTER_TOKEN. What --token is given is
visible to other users of the machine in the list of processes; the others are not."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = _parser().parse_args(values.shield_values(sys.argv[1:] if argv is None else argv))
    try:
        return int(arguments.command(arguments))
    except (exits.UsageError, client.RequestRefused, client.UnexpectedAnswer) as error:
        output.complain(error)
        return REFUSED
    except (exits.NoServerError, client.ServerUnreachable) as error:
        output.complain(error)
        return NO_SERVER
    except KeyboardInterrupt as interrupt:
        output.complain(interrupt.args[0] if interrupt.args else "interrupted")
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    shared: dict[str, Any] = {
        "epilog": _EPILOG,
        "allow_abbrev": False,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    parser = argparse.ArgumentParser(
        prog="jupyter nbexec",
        description="Run notebooks on a running Jupyter server that has jupyter_nbexec.",
        **shared,
    )
    parser.add_argument("--version", action="version", version=_version.__version__)
    path = argparse.ArgumentParser(add_help=False)
    path.add_argument(
        "path",
        metavar="PATH",
        help="the notebook: a file that a running local server serves; with --server, its path there",
    )
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument("--server", metavar="URL", help="the server; default: the running local one")
    server.add_argument("--token", help="the server's token; better given as $NBEXEC_TOKEN, see below")
    file = argparse.ArgumentParser(add_help=False)
    file.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default="-",
        help="write the answer there, all at once or not at all",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        parents=[path, server, file],
        help="run a notebook and print the run as JSON",
        description="Run a notebook, wait until it has ended, and print the run as JSON.",
        **shared,
    )
    _add_options(run)
    run.set_defaults(command=_run)
    describe = commands.add_parser(
        "describe",
        parents=[path, server, file],
        help="print a notebook's parameters and kernel as JSON",
        description="Print a notebook's parameters, their JSON Schema and its kernel as JSON.",
        **shared,
    )
    describe.set_defaults(command=_describe)
    runs.add_to(commands, server=server, file=file, **shared)
    # For the list of commands alone: `command` has seen to it before.
    commands.add_parser(
        "serve",
        help="serve the annotated cells of notebooks as HTTP endpoints, and nothing else",
        add_help=False,
    )
    return parser


def _add_options(run: argparse.ArgumentParser) -> None:
    add = run.add_argument
    add(
        "-p",
        "--parameter",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter; the value is JSON where it parses as JSON, else a string; NaN is a string",
    )
    add(
        "-f",
        "--file",
        dest="files",
        action="append",
        default=[],
        metavar="FILE",
        help="parameters from a JSON or YAML file, or - for stdin; a later file wins, and -p wins over files",
    )
    add("--timeout", type=values.seconds, metavar="S", help="seconds the run may take")
    add("--cell-timeout", type=values.seconds, metavar="S", help="seconds any one cell may take")
    add("--accept", metavar="MIME", help="answer in this shape instead of JSON: text/html, image/png, …")
    add(
        "--kernel",
        dest="kernel_name",
        metavar="NAME",
        help="the kernelspec to start; default: the notebook's",
    )
    add("--kernel-id", metavar="ID", help="run on this live kernel of the server instead of a fresh one")
    add("--allow-errors", action=argparse.BooleanOptionalAction, help="go on after a cell that raises")
    add(
        "--outputs",
        type=values.outputs,
        metavar="WHICH",
        help="which outputs the answer carries: all, last, none, or tags:TAG,… for cells with these tags",
    )
    add(
        "--env",
        type=values.variable,
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="an environment variable of the kernel; NAME alone: with its value here, which nobody sees",
    )
    add("--save-as", metavar="PATH", help="save the executed notebook under this path of the server")
    add(
        "--async",
        dest="is_async",
        action="store_true",
        help="do not wait: print the run as it is queued; see `runs`",
    )
    add(
        "--idempotency-key",
        metavar="KEY",
        help="a run that this key was given before is not started again, but awaited; Ctrl-C lets it go on",
    )


def _run(arguments: argparse.Namespace) -> int:
    if arguments.is_async and arguments.accept is not None:
        raise exits.UsageError("--async and --accept exclude each other; see `runs notebook`")
    parameters = values.read_parameters(arguments.files, arguments.parameters)
    written = output.Output.open(arguments.output, accept=arguments.accept)
    options: client.RunOptions = {
        "kernel_name": arguments.kernel_name,
        "kernel_id": arguments.kernel_id,
        "timeout": arguments.timeout,
        "cell_timeout": arguments.cell_timeout,
        "allow_errors": arguments.allow_errors,
        "outputs": arguments.outputs,
        "env": dict(arguments.env) or None,
        "save_as": arguments.save_as,
    }
    key = arguments.idempotency_key
    with _ending(arguments), servers.connected_for(arguments, arguments.path) as (server, path):
        if arguments.is_async:
            written.write(server.submit(path, parameters, idempotency_key=key, **options))
            return SUCCEEDED
        with terminal.Spinner(path):
            answer = server.run(path, parameters, accept=arguments.accept, idempotency_key=key, **options)
    written.write(answer)
    return output.end(answer)


@contextlib.contextmanager
def _ending(arguments: argparse.Namespace) -> Iterator[None]:
    """Let Ctrl-C tell what becomes of the run."""
    goes_on = arguments.is_async or arguments.idempotency_key is not None
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; the run, if any, {'goes on' if goes_on else 'is cancelled'}"
        ) from None


def _describe(arguments: argparse.Namespace) -> int:
    written = output.Output.open(arguments.output, accept=None)
    with servers.connected_for(arguments, arguments.path) as (server, path):
        description = server.describe(path)
    written.write(description)
    return SUCCEEDED
