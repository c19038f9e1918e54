"""Run many notebooks on one server, and see that none of them meets another, or leaves anything behind.

    python benchmarks/isolation.py [--short] [--mode MODE] [--runs N] [CAMPAIGN...]

MODE is one of those in `contenders.py`: where kernels come from. The exit status is 1 if a promise was
broken.
"""

from __future__ import annotations

import ast
import asyncio
import collections
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import processes
from campaigns import Report, check_log, command_line, kernels_of, perform, saturate, until
from contenders import MODES, Mode
from inputs import Input, outputs_of, see
from nbclient import NotebookClient
from serving import Server, serving
from soak import at_once, call, kill

RUNS, SHORT_RUNS, CLIENTS = 1000, 16, 4
FOLDERS = ("one", "two", "three", "four/deep")
#: Promises: MB by which what stays may grow, and seconds in which all of a killed server is gone.
GROWTH, GONE = 5.0, 5.0
#: Seconds until kernels come from where they should, and until all is quiet.
READY, QUIET = 60.0, 30.0

#: Looks around; then leaves marks wherever another run could see them.
LOOK = """\
import builtins, hashlib, os, random, secrets, sys, tempfile, uuid
place = tempfile.mkdtemp()
with open('/proc/self/stat') as file:
    born = file.read().rpartition(')')[2].split()[19]
kernel, history = get_ipython().kernel, get_ipython().history_manager
found = {
    'names': names,
    'marks': [
        hasattr(builtins, 'mark'), 'mark' in sys.modules, 'MARK' in os.environ, hasattr(numpy, 'mark'),
        'mark' in names, hasattr(os, 'mark'), os.umask(0o077) == 0o077,
    ],
    'random': random.random(),
    'numpy': float(numpy.random.rand()),
    'generator': float(numpy.random.default_rng().random()),
    'uuid': str(uuid.uuid4()),
    'secret': secrets.token_hex(8),
    'process': f'{os.getpid()} {born}',
    'temporary': place,
    'key': hashlib.sha256(kernel.session.key).hexdigest(),
    'session': kernel.session.session,
    'history': None if history.hist_file == ':memory:' else history.session_number,
    'folder': os.getcwd(),
    'path': sys.path[0],
}"""
MARK = """\
builtins.mark = numpy.mark = os.mark = mark = 1
sys.modules['mark'] = sys
os.environ['MARK'] = '1'
random.seed(4)
numpy.random.seed(4)
os.rmdir(place)
os.chdir('/')"""
PROBE = Input(
    name="probe",
    title="look around, and leave marks",
    setup=("import numpy",),
    parameters="x = 0",
    cells=("names = sorted(globals())", LOOK, MARK, "found"),
)
#: What no two runs may have in common.
OWN = ("random", "numpy", "generator", "uuid", "secret", "process", "temporary", "key", "session", "history")


def look_alone() -> dict[str, Any]:
    """What the notebook sees in a kernel that nobody else has used, by nbclient; `path` is of its folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        PROBE.save(folder, {})
        notebook = nbformat.read(folder / "probe.ipynb", as_version=4)
        # A kernel of a server's is told whose it is, and has that in its namespace.
        environment = {**os.environ, "JPY_SESSION_NAME": "probe.ipynb"}
        client = NotebookClient(notebook, resources={"metadata": {"path": str(folder)}})
        client.execute(env=environment)
        found: dict[str, Any] = ast.literal_eval(see(outputs_of(notebook)).text or "{}")
        return {**found, "path": found["path"].replace(str(folder), "{folder}")}


async def run(server: Server, folder: str, mode: Mode) -> dict[str, Any] | None:
    """What the notebook in a folder sees; None if its kernel is of another source."""
    answer = await call(server, f"{folder}/probe.ipynb")
    document = answer.json()
    if answer.status_code != 200 or document["status"] != "succeeded":
        raise RuntimeError(f"{answer.status_code}: {answer.text[:1000]}")
    return document["result"] if document["kernel"]["source"] in mode.sources else None


async def until_ready(server: Server, mode: Mode) -> None:
    """Run notebooks until their kernels come from where they should."""
    deadline = time.monotonic() + READY
    for folder in FOLDERS:
        while await run(server, folder, mode) is None:
            if time.monotonic() > deadline:
                raise RuntimeError(f"kernels are not {mode.name}:\n{server.log()[-2000:]}")
            await asyncio.sleep(0.5)


async def quiet(server: Server) -> None:
    """Wait until no process of a server does anything."""
    await asyncio.to_thread(processes.until_quiet, lambda: processes.cpu_seconds(server.process.pid))


def left(server: Server) -> dict[str, int]:
    """How much there is of what a run could leave."""
    return {
        "kernels that are listed": len(kernels_of(server)),
        "processes": len(server.below()),
        "files in the runtime folder": len(list((server.folder / "runtime").iterdir())),
        "temporary files": len(server.temporary_files()),
        "descriptors": server.descriptors(),
    }


async def isolated(report: Report, mode: Mode, number: int) -> None:
    """Every run sees what a run alone would see, has its own of everything, and leaves nothing."""
    alone = await asyncio.to_thread(look_alone)
    options = (*mode.options, f"--NbExec.max_concurrent_runs={CLIENTS}", "--NbExec.kernel_niceness=0")
    with serving(*options) as server:
        for folder in FOLDERS:
            (server.root / folder).mkdir(parents=True)
            PROBE.save(server.root / folder, mode.metadata or {})
        await saturate(server)
        await until_ready(server, mode)
        await quiet(server)
        before, sizes = left(server), {each.pid: processes.pss(each.pid) for each in server.below()}
        seen: list[dict[str, Any]] = []
        others = 0

        async def look(turn: int) -> None:
            nonlocal others
            folder = FOLDERS[turn % len(FOLDERS)]
            found = await run(server, folder, mode)
            others += found is None
            if found is not None:
                seen.append({**found, "expected": str(server.root.resolve() / folder)})

        began = time.monotonic()
        await at_once(CLIENTS, [partial(look, turn) for turn in range(number)])
        took = time.monotonic() - began
        report.figure(f"{number} runs, {CLIENTS} at a time, in {took:.1f} s: {number / took:.1f} each second")
        text = f"all kernels are {mode.name}"
        # A pool may run out when all ask at once; what the others are is as isolated, but not what is tested.
        report.promise(text, kept=others == 0 or mode.name == "warm", found=f"{others} are not")
        judge(report, seen, alone)
        await until(lambda: not more(before, left(server)), QUIET)
        found = more(before, left(server))
        report.promise(f"nothing is left: as before, {before}", kept=not found, found=found)
        await quiet(server)
        grown = {
            each.pid: processes.pss(each.pid) - sizes[each.pid]
            for each in server.below()
            if each.pid in sizes
        }
        report.figure(f"MB by which processes have grown that were there all the time: {grown}")
        report.promise(
            f"none has grown by more than {GROWTH:g} MB",
            kept=all(each <= GROWTH for each in grown.values()),
            found=grown,
        )
        check_log(report, server)


def more(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Of what there is more than before, and how much more."""
    return {what: after[what] - count for what, count in before.items() if after[what] > count}


def judge(report: Report, seen: Sequence[Mapping[str, Any]], alone: Mapping[str, Any]) -> None:
    """Check what runs have seen of each other, beside one that was alone."""
    names = [set(each["names"]) ^ set(alone["names"]) for each in seen]
    report.promise(
        "every namespace is clean", kept=not any(names), found=[each for each in names if each][:3]
    )
    marked = [each["marks"] for each in seen if any(each["marks"])]
    report.promise("none sees what another has left", kept=not marked, found=marked[:3])
    for what in OWN:
        times = collections.Counter(each[what] for each in seen if each[what] is not None)
        twice = {value: count for value, count in times.items() if count > 1}
        report.promise(f"each has its own: {what}", kept=not twice, found=dict(list(twice.items())[:3]))
    wrong = [each["folder"] for each in seen if each["folder"] != each["expected"]]
    report.promise("each is in the folder of its notebook", kept=not wrong, found=wrong[:3])
    paths = [
        each["path"] for each in seen if each["path"] != alone["path"].replace("{folder}", each["expected"])
    ]
    report.promise("and its path begins where it should", kept=not paths, found=(paths[:3], alone["path"]))


async def killed(report: Report, mode: Mode, _: int) -> None:
    """A server that is killed takes along all that it has started, while runs are under way."""
    options = (*mode.options, "--NbExec.max_concurrent_runs=4", "--NbExec.kernel_niceness=0")
    with serving(*options) as server:
        for folder in FOLDERS:
            (server.root / folder).mkdir(parents=True)
            PROBE.save(server.root / folder, mode.metadata or {})
        await until_ready(server, mode)
        await kill(report, server, GONE)


CAMPAIGNS = {each.__name__: each for each in (isolated, killed)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaigns that are named, or all."""
    parser = command_line(__doc__, CAMPAIGNS, short=f"{SHORT_RUNS} runs, for the tests")
    parser.add_argument("--mode", choices=list(MODES), default="forked", help="default: forked")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"default: {RUNS}")
    return perform(
        parser,
        arguments,
        CAMPAIGNS,
        lambda report, campaign, options: campaign(
            report, MODES[options.mode], SHORT_RUNS if options.short else options.runs
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
