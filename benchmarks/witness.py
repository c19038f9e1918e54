"""Ask servers for runs while they are killed, note all that they say, and judge it in the end.

The notebook appends a line to one file each time it is executed, with the name that its client has given it:
what was executed is known without asking a server.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import hashlib
import itertools
import os
import secrets
import signal
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import serving
from campaigns import Report, until

Json: TypeAlias = dict[str, Any]

#: Seconds within which anything that is waited for must happen.
DEADLINE = 120.0
#: Seconds within which no process is left of runs that have ended, or of a server that was killed.
GONE = 10.0
ORDER = {"queued": 0, "running": 1, "succeeded": 2, "failed": 2, "cancelled": 2}
NOTEBOOK = "mark.ipynb"
LINES = "".join(f"line {number}\n" for number in range(200))
#: What the notebook gives back: with its name, what it has printed.
DIGEST = hashlib.sha256(LINES.encode()).hexdigest()
CELLS = (
    """\
import hashlib, os, signal, subprocess, time
side = os.open(os.environ["WITNESS_SIDE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(side, f"{who} {os.getpid()}\\n".encode())
os.close(side)""",
    """\
lines = "".join(f"line {number}\\n" for number in range(200))
print(lines, end="")
if way == "parent":
    subprocess.Popen(["sleep", "300"])
if way == "deaf":
    for number in (2, 15):
        signal.signal(number, signal.SIG_IGN)
time.sleep(seconds)
if way == "raise":
    raise ValueError(who)
if way == "die":
    os._exit(3)""",
    "[who, hashlib.sha256(lines.encode()).hexdigest()]",
)
#: The other extensions of this environment only make a start slower, and kernels that give way a run.
USUAL = (
    *(
        f"--ServerApp.jpserver_extensions={name}=False"
        for name in ("jupyterlab", "jupyter_lsp", "notebook", "notebook_shim", "jupyter_server_terminals")
    ),
    "--NbExec.kernel_niceness=0",
)


class Site:
    """A folder with data, and the server that is started on it again and again."""

    def __init__(self, folder: Path, *options: str, side: Path | None = None, **environment: str) -> None:
        self.folder = folder
        self.side = side or folder / "side.log"
        self.mark = secrets.token_hex(8)  #: in the environment of each process that comes from here
        self.starts: list[float] = []  #: seconds from each start to the first answer
        self.server: serving.Server | None = None
        self._options = options
        self._environment = {"WITNESS": self.mark, "WITNESS_SIDE": str(self.side), **environment}
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def database(self) -> Path:
        """The SQLite file that is used if no other database is named."""
        return self.folder / "data" / "nbexec" / "runs.sqlite"

    def configure(self, text: str) -> None:
        """Write the configuration that the next server reads, which may be any Python."""
        (self.folder / "config").mkdir(exist_ok=True)
        (self.folder / "config" / "jupyter_server_config.py").write_text(text, encoding="utf-8")

    def launch(self) -> serving.Server:
        """Start a server, and do not wait for it."""
        self.server = serving.launch(self.folder, *USUAL, *self._options, environment=self._environment)
        self.server.write(NOTEBOOK, *CELLS, parameters="who = ''\nseconds = 0.0\nway = ''")
        return self.server

    async def start(self) -> serving.Server:
        """Start a server; return when its store answers."""
        began = time.monotonic()
        server = self.launch()
        await asyncio.to_thread(serving.wait_for_url, server)
        while server.get("api/nbexec/runs?limit=1").status_code != 200:
            if time.monotonic() - began > DEADLINE:
                raise RuntimeError("the store does not answer:\n" + server.log())
        self.starts.append(time.monotonic() - began)
        return server

    @property
    def present(self) -> serving.Server:
        """The server that runs now."""
        if self.server is None:
            raise RuntimeError("no server was started")
        return self.server

    def kill(self) -> None:
        """Kill the server."""
        self.present.process.kill()
        self.present.process.wait(DEADLINE)

    def signal(self, number: signal.Signals) -> None:
        """Send the server a signal."""
        self.present.process.send_signal(number)

    async def stop(self) -> tuple[int | None, float]:
        """Ask the server to end: its exit code, None if it did not end, and the seconds it took."""
        began = time.monotonic()
        self.present.process.terminate()
        await until(self.present.has_ended, 30)
        return self.present.process.poll(), time.monotonic() - began

    def processes(self) -> list[int]:
        """Ids of all processes that come from here, the server's included."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if (
                    entry.name.isdigit()
                    and f"WITNESS={self.mark}".encode() in (entry / "environ").read_bytes()
                ):
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        """End all that is left."""
        if self.server is not None and not self.server.has_ended():
            with contextlib.suppress(ProcessLookupError):
                self.server.process.send_signal(signal.SIGCONT)
            serving.stop(self.server)
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@contextlib.contextmanager
def site(folder: str | Path, *options: str, side: Path | None = None, **environment: str) -> Iterator[Site]:
    """Use a folder for servers; all their processes are gone afterwards."""
    made = Site(Path(folder), *options, side=side, **environment)
    try:
        yield made
    finally:
        made.close()


@dataclass(kw_only=True)
class Asked:
    """One run, or what should be one, as its client knows it."""

    who: str
    is_async: bool
    key: str | None = None
    has_env: bool = False
    ids: set[str] = field(default_factory=set)  #: of runs that were answered


@dataclass(frozen=True, kw_only=True)
class Sight:
    """A status that a server has told between two moments."""

    sent: float
    received: float
    status: str


class Witness:
    """Asks for runs, and remembers what was answered."""

    def __init__(self, side: Path) -> None:
        self.asked: dict[str, Asked] = {}
        self.seen: dict[str, list[Sight]] = collections.defaultdict(list)
        self.answers: collections.Counter[str] = collections.Counter()
        self._side = side

    async def ask(
        self,
        target: Site,
        *,
        prefer: str = "",
        key: bool | str = False,
        env: Json | None = None,
        timeout: float = DEADLINE,
        **parameters: Any,
    ) -> tuple[Asked, httpx.Response | None]:
        """Ask for a run. Who has a key asks again until there is an answer; None: there was none."""
        named = key if isinstance(key, str) else f"key {uuid.uuid4()}" if key else None
        asked = Asked(who=uuid.uuid4().hex, is_async="async" in prefer, key=named, has_env=env is not None)
        self.asked[asked.who] = asked
        return asked, await self.ask_again(
            target, asked, prefer=prefer, env=env, timeout=timeout, **parameters
        )

    async def ask_again(
        self,
        target: Site,
        asked: Asked,
        *,
        prefer: str = "",
        env: Json | None = None,
        timeout: float = DEADLINE,
        **parameters: Any,
    ) -> httpx.Response | None:
        """Send a request as it was sent before."""
        headers = {"Prefer": prefer} if prefer else {}
        headers |= {"Idempotency-Key": asked.key} if asked.key else {}
        body: Json = {"parameters": {"who": asked.who, **parameters}, **({"env": env} if env else {})}
        deadline = time.monotonic() + timeout
        while True:
            answer = await self._post(target, f"api/nbexec/{NOTEBOOK}", headers, body, deadline)
            if answer is not None and "status" in answer.json():
                asked.ids.add(answer.json()["id"])
            is_refused = answer is not None and answer.status_code in (429, 503) and not asked.ids
            if asked.key is None or not (answer is None or is_refused) or time.monotonic() >= deadline:
                return answer
            await asyncio.sleep(0.1)  # somebody who tries again does not do so at once

    async def _post(
        self, target: Site, path: str, headers: Json, body: Json, deadline: float
    ) -> httpx.Response | None:
        sent = time.monotonic()
        try:
            async with target.present.client(timeout=max(0.1, deadline - sent)) as client:
                answer: httpx.Response = await client.post(path, headers=headers, json=body)
        except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol):
            self.answers["none"] += 1
            return None
        self._note(answer, sent)
        return answer

    def _note(self, answer: httpx.Response, sent: float) -> None:
        document = answer.json()
        code = (document.get("error") or document).get("code") if answer.status_code >= 400 else None
        self.answers[f"{answer.status_code} {code}" if code else str(answer.status_code)] += 1
        for run in document.get("runs", [document]):
            if "status" in run:
                sight = Sight(sent=sent, received=time.monotonic(), status=run["status"])
                self.seen[run["id"]].append(sight)

    async def cancel(self, target: Site, run_id: str) -> httpx.Response | None:
        """Cancel a run."""
        return await self._post(
            target, f"api/nbexec/runs/{run_id}/cancel", {}, {}, time.monotonic() + DEADLINE
        )

    async def look(self, target: Site, path: str) -> Json | None:
        """Read a run, or a list of runs; None if there was no answer."""
        sent = time.monotonic()
        try:
            async with target.present.client(timeout=DEADLINE) as client:
                answer: httpx.Response = await client.get(f"api/nbexec/{path}")
        except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol):
            return None
        self._note(answer, sent)
        return {"http": answer.status_code, **answer.json()}

    async def end(self, target: Site, run_id: str) -> Json:
        """Wait for the end of a run."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            run = await self.look(target, f"runs/{run_id}?wait=10")
            if run is not None and ORDER.get(run.get("status", ""), 0) == 2:
                return run
        raise RuntimeError(f"run {run_id} does not end:\n" + target.present.log()[-3000:])

    async def pages(self, target: Site, query: str = "") -> AsyncIterator[Json]:
        """Read all runs, newest first."""
        cursor = ""
        while True:
            page = await self.look(target, f"runs?limit=500{query}{cursor}")
            if page is None or "runs" not in page:
                raise RuntimeError(f"the runs cannot be listed: {page}\n{target.present.log()[-3000:]}")
            for run in page["runs"]:
                yield run
            if page["cursor"] is None:
                return
            cursor = f"&cursor={page['cursor']}"

    async def quiet(self, target: Site, seconds: float = DEADLINE) -> bool:
        """Wait until all runs have ended. False if that takes too long."""
        deadline = time.monotonic() + seconds
        for status in ("queued", "running", "queued", "running"):
            while time.monotonic() < deadline:
                # The oldest that has not ended ends first, or nearly so.
                unfinished = [run async for run in self.pages(target, f"&status={status}")]
                if not unfinished:
                    break
                await self.look(target, f"runs/{unfinished[-1]['id']}?wait=5")
        return time.monotonic() < deadline

    def lines(self) -> dict[str, list[int]]:
        """Process ids of the kernels that have executed the notebook, by the name they were given."""
        found: dict[str, list[int]] = collections.defaultdict(list)
        if self._side.exists():
            for line in self._side.read_text(encoding="ascii").splitlines():
                who, process = line.split()
                found[who].append(int(process))
        return found

    async def judge(self, report: Report, target: Site, *, in_order: bool = True) -> collections.Counter[str]:
        """Check that nothing was lost and nothing done twice; how the runs have ended.

        `in_order`: whether one server, and so one clock, has started all of them.
        """
        runs = [run async for run in self.pages(target)]
        runs.reverse()
        by_who: dict[str, list[Json]] = collections.defaultdict(list)
        for run in runs:
            by_who[run["parameters"].get("who", "")].append(run)
        known = {run["id"]: run for run in runs}
        lines = self.lines()

        answered = {run_id for asked in self.asked.values() for run_id in asked.ids}
        lost = sorted(answered - known.keys())
        report.promise(f"all {len(answered)} runs that were answered are there", kept=not lost, found=lost)
        open_ = [run["id"] for run in runs if ORDER[run["status"]] < 2 or run["ended"] is None]
        report.promise("none is left queued or running", kept=not open_, found=open_)
        wavering = [run_id for run_id, run in known.items() if not is_legal([*self.seen[run_id], last(run)])]
        report.promise(
            "each run had one end, and no other state after it",
            kept=not wavering,
            found=[(run_id, self.seen[run_id], known[run_id]["status"]) for run_id in wavering[:3]],
        )
        several = [who for who, same in by_who.items() if len(same) > 1]
        several += [who for who, asked in self.asked.items() if asked.key and len(asked.ids) > 1]
        keys = sum(asked.key is not None for asked in self.asked.values())
        report.promise(f"one run for each of {keys} keys", kept=not several, found=several[:3])
        wrong = [
            (run["id"], run["status"], run["error"] and run["error"]["code"], len(lines[who]))
            for who, same in by_who.items()
            for run in same
            if len(lines[who]) not in allowed_lines(run)
        ]
        wrong += [(who, "unknown", None, len(found)) for who, found in lines.items() if who not in by_who]
        report.promise(
            "executed once where it succeeded, at most once elsewhere, never where it was not started",
            kept=not wrong,
            found=wrong[:5],
        )
        bad = [run["id"] for who, same in by_who.items() for run in same if not is_right(run, who)]
        report.promise("results are right", kept=not bad, found=bad[:3])
        if in_order:
            self._judge_order(report, runs)
        return collections.Counter(
            run["status"] if run["error"] is None else f"{run['status']}/{run['error']['code']}"
            for run in runs
        )

    def _judge_order(self, report: Report, runs: list[Json]) -> None:
        started = [
            run["started"] for run in runs if run["started"] and self.asked[run["parameters"]["who"]].is_async
        ]
        early = [pair for pair in itertools.pairwise(started) if pair[0] > pair[1]]
        text = f"{len(started)} asynchronous runs were started in order of admission"
        report.promise(text, kept=not early, found=early[:3])

    async def judge_processes(self, report: Report, *sites: Site) -> None:
        """Check that, but for the servers, nothing runs any more."""
        servers = {each.present.process.pid for each in sites}

        def left() -> list[int]:
            return [process for each in sites for process in each.processes() if process not in servers]

        await until(lambda: not left(), GONE)
        found = left()
        report.promise("no kernel and no child of one is left", kept=not found, found=found)


def last(run: Json) -> Sight:
    """How a run is seen in the end."""
    now = time.monotonic()
    return Sight(sent=now, received=now, status=run["status"])


def is_legal(sights: Iterable[Sight]) -> bool:
    """Whether a run's states went forward, and its end stayed what it was."""
    past: list[Sight] = []
    for sight in sorted(sights, key=lambda each: each.sent):
        before = [each for each in past if each.received <= sight.sent]
        # What has been taken, and not begun, waits again when its server dies.
        if ORDER[sight.status] < 2 and any(ORDER[each.status] == 2 for each in before):
            return False
        past.append(sight)
    return len({each.status for each in past if ORDER[each.status] == 2}) <= 1


def allowed_lines(run: Json) -> tuple[int, ...]:
    """How many lines a run may have written."""
    if run["status"] == "succeeded":
        return (1,)
    return (0, 1) if run["started"] else (0,)


def end_of(run: Json) -> str:
    """How a run has ended, in a word or two."""
    status: str = run["status"]
    return status if run["error"] is None else f"{status}/{run['error']['code']}"


def is_right(run: Json, who: str) -> bool:
    """Whether a run that succeeded has the result that it should have."""
    return run["status"] != "succeeded" or run.get("result") == [who, DIGEST]


def stdout_of(run: Json) -> str:
    """All that a run printed."""
    return "".join(output["text"] for output in run["outputs"] if output.get("name") == "stdout")


def integrity(database: Path) -> str:
    """What SQLite says of a file."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
