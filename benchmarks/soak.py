"""Run hundreds of notebooks of every kind on a real server, and look for what is lost or left behind.

    python benchmarks/soak.py [--short] [CAMPAIGN...]

Each campaign has a server process of its own, states figures, and checks promises; the exit status is 1 if
one of them was broken. No promise is about speed, apart from the deadlines that the project promises.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import httpx
import psutil
from campaigns import HUNG, Report, check_log, command_line, kernels_of, perform, saturate, until
from serving import Server, serving

#: Seconds within which all is quiet after the last answer.
QUIET = 60.0
#: Seconds after which anyio's idle worker threads end, at the next use of one.
IDLE_WORKER = 11.0
#: Seconds within which the project promises to tell of a kernel's death, to stop, and to be gone when killed.
DEATH, STOP, GONE = 10.0, 10.0, 3.0
#: Ends of a kernel, as a cell writes them.
ENDS = (
    "os._exit(3)",
    "os.kill(os.getpid(), signal.SIGSEGV)",
    "os.kill(os.getpid(), signal.SIGKILL)",
)

Job = Callable[[], Awaitable[None]]


async def at_once(number: int, jobs: Iterable[Job]) -> None:
    """Do jobs, so many at a time; all of them, even if one raises."""
    slots = asyncio.Semaphore(number)

    async def do(job: Job) -> None:
        async with slots:
            await asyncio.wait_for(job(), HUNG)

    results = await asyncio.gather(*(do(job) for job in jobs), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def call(server: Server, name: str, **body: Any) -> httpx.Response:
    """Run a notebook."""
    async with server.client() as client:
        answer: httpx.Response = await client.post(f"api/nbexec/{name}", json=body)
        return answer


def code_of(answer: httpx.Response) -> str:
    """What an answer says of itself, in a word or two."""
    document = answer.json()
    if "status" not in document:
        return f"{answer.status_code} {document.get('code')}"
    error = document["error"]
    return f"{answer.status_code} {document['status'] if error is None else error['code']}"


def stdout_of(run: dict[str, Any]) -> str:
    """All that a run printed."""
    return "".join(output["text"] for output in run["outputs"] if output.get("name") == "stdout")


def is_running(process: psutil.Process) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def none_runs(processes: Iterable[psutil.Process]) -> bool:
    """Whether all have ended."""
    return not any(is_running(each) for each in processes)


@contextlib.contextmanager
def hogs() -> Iterator[None]:
    """Keep each processor busy for the time of the context."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


# a. Leaks


class Mixture:
    """Runs of every kind, and what came of them."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self._seed = random.Random(4)
        server.write(
            "success.ipynb",
            "import subprocess; subprocess.Popen(['sleep', '300']); x * 2",
            parameters="x = 1",
        )
        server.write("error.ipynb", "print('before')", "1 / 0", "print('never')")
        server.write("slow.ipynb", "import time", "time.sleep(600)")
        server.write(
            "stubborn.ipynb",
            "while True:\n    try: import time; time.sleep(600)\n    except BaseException: pass",
        )
        server.write("stuck.ipynb", "import ctypes; ctypes.PyDLL(None).sleep(600)")
        for number, end in enumerate(ENDS):
            child = "subprocess.Popen(['sleep', '300'], start_new_session=True, env={})"
            server.write(f"death{number}.ipynb", f"import os, signal, subprocess; {child}", end)

    async def _expect(self, kind: str, expected: str, name: str, **body: Any) -> None:
        self._note(kind, expected, code_of(await call(self.server, name, **body)))

    def _note(self, kind: str, expected: str, found: str) -> None:
        self.outcomes[f"{kind}: {found}"] += 1
        if found != expected:
            self.wrong.append(f"{kind}: {found} instead of {expected}")

    async def _success(self, number: int) -> None:
        answer = await call(self.server, "success.ipynb", parameters={"x": number})
        self._note("success", "200 succeeded", code_of(answer))
        if answer.json()["result"] != 2 * number:
            self.wrong.append(f"success: the result of {number} is {answer.json()['result']}")

    async def _error(self, _: int) -> None:
        await self._expect("cell error", "500 cell_error", "error.ipynb")

    async def _timeout(self, number: int) -> None:
        name = ("slow", "slow", "stubborn", "stuck")[number % 4]
        await self._expect("timeout", "504 timeout", f"{name}.ipynb", timeout=1.5 + number % 3 / 2)

    async def _death(self, number: int) -> None:
        await self._expect("kernel death", "502 kernel_died", f"death{number % len(ENDS)}.ipynb")

    async def _hang_up(self, number: int) -> None:
        patience = self._seed.uniform(0.01, 2.5)
        name = ("slow", "slow", "stubborn", "stuck")[number % 4]
        async with self.server.client(timeout=httpx.Timeout(60, read=patience)) as client:
            try:
                answer = await client.post(f"api/nbexec/{name}.ipynb")
            except httpx.ReadTimeout:
                self._note("hang-up", "-", "-")
            else:
                self._note("hang-up", "-", code_of(answer))

    async def _refused(self, number: int) -> None:
        refusals: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("404 notebook_not_found", "missing.ipynb", {}),
            ("400 invalid_parameter", "success.ipynb", {"parameters": {"y": 1}}),
            ("400 invalid_request", "success.ipynb", {"timeout": -1}),
            ("422 no_such_kernel", "success.ipynb", {"kernel_name": "nope"}),
            ("404 kernel_not_found", "success.ipynb", {"kernel_id": "0" * 8}),
            ("413 body_too_large", "success.ipynb", {"parameters": {"x": "x" * 300_000}}),
        )
        expected, name, body = refusals[number % len(refusals)]
        await self._expect("refused", expected, name, **body)

    async def run(self, number: int, together: int) -> None:
        """Run so many of each kind, in a random order that is always the same."""
        kinds = (self._success, self._error, self._timeout, self._death, self._hang_up, self._refused)
        jobs: list[Job] = [
            lambda kind=kind, each=each: kind(each)  # type: ignore[misc]
            for kind, each in itertools.product(kinds, range(number))
        ]
        self._seed.shuffle(jobs)
        await at_once(together, jobs)


async def settle(server: Server, enough: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Wait until nothing runs and idle worker threads have ended; the descriptors and threads."""
    await until(lambda: not server.below() and not kernels_of(server), QUIET)
    end = time.monotonic() + IDLE_WORKER + 2
    while time.monotonic() < end:
        # Each use of a worker ends those that have been idle for too long.
        server.get("api/contents")
        await asyncio.sleep(0.2)
        if server.descriptors() <= enough[0] and server.threads() <= enough[1]:
            break
    return server.descriptors(), server.threads()


async def leaks(report: Report, *, short: bool) -> None:
    """Nothing is left of runs of any kind."""
    number, together = (4, 6) if short else (100, 6)
    options = (
        "--NbExec.max_concurrent_runs=4",
        "--NbExec.interrupt_grace=1",
        "--NbExec.max_body_bytes=200000",
    )
    with serving(*options) as server:
        at_start = server.dispositions()
        await saturate(server)
        await Mixture(server).run(2 if short else 12, together)
        before = await settle(server)
        resident, temporary = server.resident(), server.temporary_files()
        mixture = Mixture(server)
        began = time.monotonic()
        await mixture.run(number, together)
        report.figure(
            f"{mixture.outcomes.total()} runs in {time.monotonic() - began:.0f} s: {dict(mixture.outcomes)}"
        )
        after = await settle(server, before)
        growth = server.resident() / resident - 1
        report.figure(f"descriptors, threads: {before} before, {after} after")
        report.figure(f"resident memory: {resident:.1f} MiB before, {100 * growth:+.1f} % after")
        listed, below = kernels_of(server), server.below()
        report.promise("every run ended as it should", kept=not mixture.wrong, found=mixture.wrong[:5])
        report.promise("no kernel is listed", kept=not listed, found=listed)
        report.promise("no process, and no zombie, is below the server", kept=not below, found=below)
        report.promise("descriptors as before", kept=after[0] <= before[0], found=after[0] - before[0])
        report.promise("threads as before", kept=after[1] <= before[1], found=after[1] - before[1])
        report.promise("memory within 10 %", kept=growth <= 0.10, found=f"{100 * growth:+.1f} %")
        report.promise(
            "no connection file is left", kept=not server.kernel_files(), found=server.kernel_files()
        )
        files = sorted(set(server.temporary_files()) - set(temporary))
        report.promise("no temporary file is left", kept=not files, found=files)
        report.promise("SIGTERM and SIGINT are handled as before", kept=server.dispositions() == at_start)
        server.process.send_signal(signal.SIGTERM)
        took = await until(server.has_ended, 30)
        code = server.process.poll()
        stopped = code == 0 and took is not None and took <= STOP
        report.promise("SIGTERM stops the server, with exit code 0", kept=stopped, found=(code, took))
        check_log(report, server)


# a. The end of the server


async def begin(server: Server, names: Sequence[str]) -> list[asyncio.Task[httpx.Response]]:
    """Start runs of notebooks that write a file called as themselves once they are at work."""
    waiting = [asyncio.create_task(call(server, f"{name}.ipynb")) for name in names]
    up = await until(lambda: all((server.root / name).exists() for name in names), HUNG)
    if up is None:
        raise RuntimeError("the runs do not begin:\n" + server.log())
    return waiting


def write_long_runs(server: Server) -> list[str]:
    """Save notebooks that run for ever, in ways that are hard to end; their names."""
    children = (
        "import subprocess, os\n"
        "subprocess.Popen(['sleep', '300'])\n"
        "subprocess.Popen(['sleep', '300'], start_new_session=True, env={})\n"
        "subprocess.Popen(['sh', '-c', 'setsid sh -c \"sleep 300 & sleep 300\" &'])\n"
    )
    ways = {
        "sleeping": "import time; time.sleep(600)",
        "looping": "while True: pass",
        "locked": "import ctypes; ctypes.PyDLL(None).sleep(600)",
        "deaf": "import signal\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
    }
    for name, way in ways.items():
        server.write(f"{name}.ipynb", f"{children}open({name!r}, 'w').close()", way)
    return list(ways)


async def terminated(report: Report, *, short: bool) -> None:
    """A server that is told to stop answers those who wait, and leaves nothing."""
    slowest = 0.0
    for _ in range(1 if short else 5):
        with serving("--NbExec.max_concurrent_runs=4") as server:
            names = write_long_runs(server)
            server.write("queued.ipynb", "1")
            waiting = await begin(server, names)
            waiting.append(asyncio.create_task(call(server, "queued.ipynb")))
            await asyncio.sleep(0.3)
            below = server.below()
            server.process.send_signal(signal.SIGTERM)
            took = await until(server.has_ended, 30)
            slowest = max(slowest, math.inf if took is None else took)
            kept = server.process.poll() == 0 and slowest <= STOP
            report.promise("exit code 0 within 10 s", kept=kept, found=(server.process.poll(), took))
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            said = [code_of(each) if isinstance(each, httpx.Response) else repr(each) for each in answers]
            report.promise(
                "everybody got 503 with the run", kept=set(said) == {"503 server_stopped"}, found=said
            )
            left = [each for each in below if is_running(each)]
            report.promise(
                f"none of {len(below)} processes is left", kept=len(below) > 12 and not left, found=left
            )
            files = server.kernel_files()
            report.promise("no connection file is left", kept=not files, found=files)
            check_log(report, server)
    report.figure(f"from SIGTERM to the end: {slowest:.2f} s at most")


async def killed(report: Report, *, short: bool) -> None:
    """A server that is killed takes along all that its runs have started."""
    slowest = 0.0
    for _ in range(1 if short else 5):
        with serving("--NbExec.max_concurrent_runs=4") as server:
            slowest = max(slowest, await kill(report, server, GONE))
    report.figure(f"from SIGKILL to the end of all: {slowest:.2f} s at most")


async def kill(report: Report, server: Server, limit: float) -> float:
    """Kill a server at work; the seconds until nothing is there of what it has started."""
    waiting = await begin(server, write_long_runs(server))
    below = server.below()
    server.process.kill()
    took = await until(partial(none_runs, below), 30)
    left = [each for each in below if is_running(each)]
    kept = len(below) > 12 and took is not None and took <= limit
    report.promise(f"all {len(below)} processes are gone within {limit:g} s", kept=kept, found=(took, left))
    await asyncio.gather(*waiting, return_exceptions=True)
    return math.inf if took is None else took


# b. Deaths


async def deaths(report: Report, *, short: bool) -> None:
    """A kernel's death is told, whenever and however it dies."""
    number = 6 if short else 50
    found: list[tuple[str, float]] = []
    with serving("--NbExec.max_concurrent_runs=4") as server:
        for each in range(number):
            delay = 3.5 * each / number
            note = f"open('death{each}', 'w').write(str(time.time()))"
            cells = ("import os, signal, time", f"time.sleep({delay}); {note}; {ENDS[each % len(ENDS)]}", "1")
            server.write(f"death{each}.ipynb", *cells)

        async def die(each: int) -> None:
            answer = await call(server, f"death{each}.ipynb")
            died = float((server.root / f"death{each}").read_text(encoding="ascii"))
            found.append((code_of(answer), time.time() - died))

        await at_once(4, [lambda each=each: die(each) for each in range(number)])  # type: ignore[misc]
        check_log(report, server)
    told = [seconds for code, seconds in found if code == "502 kernel_died"]
    slowest, median = max(seconds for _, seconds in found), statistics.median(seconds for _, seconds in found)
    report.figure(f"from death to answer: median {median:.2f} s, maximum {slowest:.2f} s")
    codes = collections.Counter(code for code, _ in found)
    report.promise(f"{len(told)} of {number} told", kept=len(told) == number, found=dict(codes))
    report.promise("each within 10 s", kept=slowest <= DEATH, found=slowest)


# c. Widgets


async def widgets(report: Report, *, short: bool) -> None:
    """A notebook with an Output widget ends, and what was captured is in the widget's saved state."""
    number = 6 if short else 50
    found: collections.Counter[str] = collections.Counter()
    with serving("--NbExec.max_concurrent_runs=4") as server:
        server.write(
            "widgets.ipynb",
            "import ipywidgets\nout = ipywidgets.Output()\ndisplay(out)",
            "for n in range(20):\n    with out:\n        print('line', n)",
            "with out:\n    display(7)\nprint('mine')\n'done'",
        )

        async def show() -> None:
            answer = await call(server, "widgets.ipynb")
            run = answer.json()
            async with server.client() as client:
                notebook = (await client.get(f"api/nbexec/runs/{run['id']}/notebook")).json()
            state = notebook["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
            captured = next(each["state"]["outputs"] for each in state.values() if "outputs" in each["state"])
            lines = "".join(f"line {n}\n" for n in range(20))
            whole = (run["result"], stdout_of(run)) == ("done", "mine\n")
            whole &= [each.get("text") or each["data"]["text/plain"] for each in captured] == [lines, "7"]
            found[code_of(answer) if whole else f"{code_of(answer)}, incomplete"] += 1

        await at_once(4, [show] * number)
        check_log(report, server)
    report.promise(
        f"{number} of {number} ended, and well", kept=found["200 succeeded"] == number, found=dict(found)
    )


# d. Prints


async def prints(report: Report, *, short: bool) -> None:
    """Many flushed prints on a busy machine arrive complete, or the run says that they do not."""
    number = 10_000 if short else 100_000
    expected = "".join(f"{n}\n" for n in range(number))
    with serving() as server:
        server.write("prints.ipynb", f"for n in range({number}): print(n, flush=True)", "'done'")
        for _ in range(1 if short else 3):
            began = time.monotonic()
            with hogs():
                answer = await asyncio.wait_for(call(server, "prints.ipynb"), HUNG)
            took = time.monotonic() - began
            run = answer.json()
            whole, flagged = stdout_of(run) == expected, run["truncated"]
            state = f"{'complete' if whole else 'incomplete'}, {'flagged' if flagged else 'not flagged'}"
            report.figure(f"{number} lines, {len(run['outputs'])} outputs: {state}, {took:.1f} s")
            kept = code_of(answer) == "200 succeeded" and (whole or flagged)
            report.promise("complete, or flagged", kept=kept, found=(code_of(answer), whole, flagged))
        check_log(report, server)


# e. Load


async def load(report: Report, *, short: bool) -> None:
    """Clients at the same time get each their own right answers."""
    clients, each = (4, 2) if short else (8, 25)
    right = 0
    codes: collections.Counter[str] = collections.Counter()
    with serving("--NbExec.max_concurrent_runs=4") as server:
        server.write(
            "echo.ipynb",
            "print(text)",
            "{'number': number, 'twice': 2 * number}",
            parameters="number = 0\ntext = ''",
        )

        async def use(client: int) -> None:
            nonlocal right
            for turn in range(each):
                number, text = client * 1000 + turn, f"«{client}»\n" * turn
                answer = await call(server, "echo.ipynb", parameters={"number": number, "text": text})
                codes[code_of(answer)] += 1
                run = answer.json()
                is_right = run.get("result") == {"number": number, "twice": 2 * number}
                right += is_right and stdout_of(run) == f"{text}\n"

        began = time.monotonic()
        await asyncio.gather(*(use(client) for client in range(clients)))
        report.figure(f"{clients} clients, {each} runs each: {time.monotonic() - began:.1f} s")
        check_log(report, server)
    total = clients * each
    report.promise(f"{total} of {total} right answers", kept=right == total, found=(right, dict(codes)))


async def queue(report: Report, *, short: bool) -> None:
    """Of many clients at once some are accepted and served; the others are told when to come back."""
    clients, slots, places = (20, 2, 2) if short else (100, 4, 10)
    with serving(f"--NbExec.max_concurrent_runs={slots}", f"--NbExec.max_queued_runs={places}") as server:
        server.write("busy.ipynb", "import time; time.sleep(1); number", parameters="number = 0")
        answers = await asyncio.gather(
            *(call(server, "busy.ipynb", parameters={"number": number}) for number in range(clients))
        )
        check_log(report, server)
    codes = collections.Counter(code_of(answer) for answer in answers)
    report.figure(f"{clients} clients at once, {slots} slots, {places} places in the queue: {dict(codes)}")
    accepted = [(number, answer) for number, answer in enumerate(answers) if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    right = all(answer.json()["result"] == number for number, answer in accepted)
    report.promise(
        "accepted and refused are all", kept=len(accepted) + len(refused) == clients, found=dict(codes)
    )
    report.promise(
        "as many accepted as there are places", kept=len(accepted) >= slots + places, found=len(accepted)
    )
    report.promise("no more are let in than that", kept=len(refused) > 0, found=len(refused))
    report.promise("the accepted got their own answers", kept=right)
    told = [answer.headers.get("Retry-After", "") for answer in refused]
    report.promise(
        "the refused were told when to come back", kept=all(each.isdigit() for each in told), found=told
    )
    report.figure(f"Retry-After: {dict(collections.Counter(told))}")


# f. Slow bodies


async def slow_bodies(report: Report, *, short: bool) -> None:
    """Bodies that never arrive hold up nobody, and not for long."""
    number, deadline = (40, 2.0) if short else (200, 5.0)
    lives: list[float] = []
    answered: list[float] = []
    with serving(f"--NbExec.body_timeout={deadline}") as server:
        server.write("quick.ipynb", "6 * 7")
        await call(server, "quick.ipynb")  # the first run makes what all runs share
        url = httpx.URL(server.url)
        before = server.descriptors()
        head = (
            f"POST {url.path}api/nbexec/quick.ipynb HTTP/1.1\r\nHost: {url.host}:{url.port}\r\n"
            f"Authorization: token {server.token}\r\nContent-Length: 1000\r\n\r\n{{"
        )

        async def dawdle(each: int) -> None:
            began = time.monotonic()
            reader, writer = await asyncio.open_connection(url.host, url.port)
            writer.write(head.encode())
            drip = asyncio.create_task(_drip(writer)) if each % 2 else None
            with contextlib.suppress(ConnectionError):
                await reader.read()
            lives.append(time.monotonic() - began)
            if drip is not None:
                drip.cancel()
            writer.close()

        dawdling = asyncio.gather(*(dawdle(each) for each in range(number)))
        await asyncio.sleep(0.2)
        while not dawdling.done() and len(answered) < 1000:
            began = time.monotonic()
            async with server.client() as client:
                status = (await client.get("api/status")).status_code
            answered.append(time.monotonic() - began)
            report.broken += [] if status == 200 else [f"/api/status said {status}"]
            await asyncio.sleep(0.05)
        result = (await call(server, "quick.ipynb")).json()["result"]
        await asyncio.wait_for(dawdling, HUNG)
        await until(lambda: server.descriptors() <= before, 10)
        report.promise("the server still runs notebooks", kept=result == 42, found=result)
        report.promise(
            "descriptors as before", kept=server.descriptors() <= before, found=server.descriptors()
        )
        check_log(report, server)
    report.figure(
        f"{number} half-open bodies lived {min(lives):.1f} to {max(lives):.1f} s, deadline {deadline} s"
    )
    report.figure(f"meanwhile /api/status took {1000 * max(answered):.0f} ms at most, of {len(answered)}")
    report.promise(
        "all closed at the deadline", kept=max(lives) <= deadline + 5 and min(lives) >= deadline - 0.5
    )


async def _drip(writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        writer.write(b" ")
        await asyncio.sleep(0.2)


CAMPAIGNS = {
    campaign.__name__: campaign
    for campaign in (leaks, terminated, killed, deaths, widgets, prints, load, queue, slow_bodies)
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaigns that are named, or all."""
    parser = command_line(__doc__, CAMPAIGNS, short="few runs of each kind, for the tests")
    return perform(
        parser,
        arguments,
        CAMPAIGNS,
        lambda report, campaign, options: campaign(report, short=options.short),
    )


if __name__ == "__main__":
    sys.exit(main())
