"""Throw requests at a server that were made from its own OpenAPI document, right ones and wrong ones.

    python benchmarks/fuzzing.py [--short] [--seed N] [CAMPAIGN...]

Schemathesis makes them, in chains too, and judges the answers: nothing undescribed, no fault of ours, no
wrong request accepted. Each campaign has a server process of its own; the exit status is 1 if a promise was
broken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from campaigns import HUNG, Report, check_log, command_line, kernels_of, perform, until
from serving import Server, environment_of, serving, stop

CONFIG = Path(__file__).with_name("schemathesis.toml")
#: Seconds that requests are made for, and requests to each operation in each phase.
SECONDS, EXAMPLES = 600, 300
SHORT_SECONDS, SHORT_EXAMPLES = 8, 8
#: Seconds in which all kernels of runs are gone.
QUIET = 30.0
#: Endpoints that say what they were asked.
ECHO = [f"# {verb} /echo\nprint(REQUEST)" for verb in ("GET", "POST", "PUT", "PATCH", "DELETE")]


async def whole(report: Report, options: argparse.Namespace) -> None:
    """The document of all that there is."""
    async with attacked(report, options) as server:
        await attack(report, server, "api/nbexec/openapi.json", options)


async def service(report: Report, options: argparse.Namespace) -> None:
    """The document of one notebook, with its typed parameters."""
    async with attacked(report, options) as server:
        await attack(report, server, "api/nbexec/openapi.json?path=sum.ipynb", options)


async def alone(report: Report, options: argparse.Namespace) -> None:
    """The document of a server of endpoints and nothing else."""
    with tempfile.TemporaryDirectory(prefix="nbexec-bench-", ignore_cleanup_errors=True) as name:
        server = launch_alone(Path(name))
        try:
            there = await until(lambda: "described at" in server.log() or server.has_ended(), HUNG)
            found = re.search(r"described at (\S+/)_api/spec", server.log())
            report.promise("it serves", kept=there is not None and found is not None, found=server.log())
            server.url = found[1] if found else ""
            await attack(report, server, "_api/spec/openapi.json", options, alive="_api/spec/openapi.json")
            below = server.below()
            server.process.terminate()
            ended = await until(server.has_ended, QUIET)
            report.promise("it ends with status 0", kept=ended is not None and server.process.returncode == 0)
            gone = await until(lambda: not any(process.is_running() for process in below), QUIET)
            report.promise("and nothing is left of it", kept=gone is not None)
            check_log(report, server)
        finally:
            stop(server)


def launch_alone(folder: Path) -> Server:
    """Start such a server, and do not wait for it."""
    token = secrets.token_hex(24)
    prepared = environment_of(folder, {"KG_AUTH_TOKEN": token})
    command = [
        str(Path(sys.executable).with_name("jupyter")),
        "nbexec",
        "serve",
        "root/echo.ipynb",
        "--port=0",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--kernels=2"],
            env=prepared,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = Server(folder=folder, process=process, token=token)
    server.write("echo.ipynb", *ECHO, "# GET /item/:id/of/:other\nprint(REQUEST)")
    return server


@contextlib.asynccontextmanager
async def attacked(report: Report, options: argparse.Namespace) -> AsyncIterator[Server]:
    """Serve notebooks, and see that the server is well afterwards."""
    with serving(
        "--NbExec.fork_kernels=True",
        "--NbExec.default_timeout=20",
        f"--NbExec.max_concurrent_runs={2 if options.short else 4}",
        "--NbExec.warm_idle_timeout=1",
    ) as server:
        server.write("sum.ipynb", "a + b", parameters="a: float = 1\nb: int = 2")
        server.write("echo.ipynb", "import os", *ECHO)
        yield server
        gone = await until(lambda: not kernels_of(server), QUIET)
        report.promise(f"all kernels are gone within {QUIET:g} s", kept=gone is not None)
        check_log(report, server)


async def attack(
    report: Report,
    server: Server,
    document: str,
    options: argparse.Namespace,
    alive: str = "api/nbexec/sum.ipynb",
) -> None:
    """Make requests from a document, and judge the answers; `alive` is what a server that is well has."""
    seconds = SHORT_SECONDS if options.short else SECONDS
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG), "run"),
        *(f"{server.url}{document}", "--header", f"Authorization: token {server.token}"),
        *("--continue-on-failure", "--no-color", "--warnings", "off", "--request-timeout", "100"),
        *("--max-time", str(seconds), "--seed", str(seed)),
        *("--max-examples", str(SHORT_EXAMPLES if options.short else EXAMPLES)),
    ]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=server.folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), seconds + HUNG)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = said.decode("utf-8", "replace")
    for line in text.splitlines():
        if "generated" in line or line.startswith("Seed"):
            report.figure(line.strip())
    report.promise("every answer is as the document says", kept=process.returncode == 0, found=f"\n{text}")
    report.promise("the server answers", kept=server.get(alive).status_code == 200)


CAMPAIGNS = {campaign.__name__: campaign for campaign in (whole, service, alone)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaigns that are named, or all."""
    parser = command_line(__doc__, CAMPAIGNS, short=f"{SHORT_SECONDS} seconds of each, and a while")
    parser.add_argument("--seed", type=int, help="what requests are made from; default: another each time")
    return perform(parser, arguments, CAMPAIGNS, lambda report, campaign, options: campaign(report, options))


if __name__ == "__main__":
    sys.exit(main())
