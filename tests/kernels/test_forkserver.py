"""A forked kernel is like a cold one in all that a notebook can see, and comes at the price of a fork."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from jupyter_nbexec import result
from jupyter_nbexec.kernels import forkserver, provisioner

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not forkserver.is_supported(), reason="forking is for Linux"),
]

EXTRA = ["--HistoryManager.hist_file=:memory:"]
#: Seconds in which what is waited for happens on the slowest machine.
DEADLINE = 30.0


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for the module, so that its tests can share a zygote."""
    return "asyncio"


@dataclass
class Place:
    """A kernelspec, fork servers for it, and kernels started from it."""

    folder: Path
    spec: KernelSpec
    servers: forkserver.ForkServers
    environment: dict[str, str]
    numbers: Iterator[int] = field(default_factory=itertools.count)
    lives: list[Live] = field(default_factory=list)
    records: list[logging.LogRecord] = field(default_factory=list)

    async def ready(self) -> None:
        """Wait until kernels are forked."""
        self.servers.want("k", self.spec, self.environment)
        await self.servers.wait()
        assert self.servers.is_ready("k"), self.texts()

    def texts(self) -> list[str]:
        """What has been logged."""
        return [record.getMessage() for record in self.records if record.levelno > logging.INFO]

    def zygote(self) -> psutil.Process:
        """The zygote itself, below its shim."""
        zygote = self.servers.keeper("k").zygote
        assert zygote is not None
        assert zygote.pid is not None
        (process,) = psutil.Process(zygote.pid).children()
        return process

    async def start(self, *, cold: bool = False, env: Mapping[str, str] | None = None, **kwargs: Any) -> Live:
        """Start a kernel, and connect to it."""
        count = next(self.numbers)
        folder = self.folder / f"run {count}"
        folder.mkdir()
        manager = AsyncKernelManager(
            kernel_name="k", transport="ipc", connection_file=str(self.folder / f"{count}.json")
        )
        manager.ip = str(self.folder / f"{count}-ipc")
        manager._kernel_spec = self.spec
        forked = self.servers.provisioner_for(manager)
        assert forked is not None
        forked.request_env = dict(env or {})
        usual = provisioner.ReapingProvisioner(kernel_spec=self.spec, parent=manager)
        usual.niceness = forked.niceness
        manager.provisioner = usual if cold else forked
        await manager.start_kernel(
            env={**self.environment, "JPY_SESSION_NAME": "a/b.ipynb"},
            cwd=str(folder),
            **{
                "extra_arguments": EXTRA,
                "stdout": subprocess.DEVNULL,
                "stderr": subprocess.DEVNULL,
                **kwargs,
            },
        )
        self.lives.append(Live(manager, folder))
        return self.lives[-1]


class Live:
    """A running kernel, and a client of it."""

    def __init__(self, manager: AsyncKernelManager, folder: Path) -> None:
        self.manager = manager
        self.folder = folder
        self.is_closed = False
        self.client: AsyncKernelClient = manager.client()
        self.client.start_channels(hb=False)

    @property
    def process(self) -> Any:
        """The handle of its shim."""
        assert self.manager.provisioner is not None
        return self.manager.provisioner.process  # type: ignore[attr-defined]

    @property
    def is_forked(self) -> bool:
        """Whether it was forked."""
        return getattr(self.manager.provisioner, "is_forked", False)

    def kernel(self) -> psutil.Process:
        """The kernel below its shim."""
        (process,) = psutil.Process(self.process.pid).children()
        return process

    async def run(self, code: str, *, error: bool = False) -> str:
        """Execute a cell; what it prints, or its traceback."""
        await self.client.wait_for_ready(timeout=DEADLINE)
        parts: list[str] = []

        def take(message: dict[str, Any]) -> None:
            content = message["content"]
            parts.append(content.get("text", "") or "\n".join(content.get("traceback", ())))
            parts.append(str(content.get("data", {}).get("text/plain", "")))

        code = textwrap.dedent(code)
        reply = await self.client.execute_interactive(code, output_hook=take, timeout=DEADLINE)
        assert (reply["content"]["status"] == "error") is error, "".join(parts)
        return "".join(parts)

    async def control(self, kind: str, content: dict[str, Any]) -> dict[str, Any]:
        """Send a request on the control channel; the content of the reply."""
        message = self.client.session.msg(kind, content)
        self.client.control_channel.send(message)
        while True:
            reply = await self.client.control_channel.get_msg(timeout=DEADLINE)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                found: dict[str, Any] = reply["content"]
                return found

    async def ended(self) -> int:
        """Wait for its end; the exit code."""
        process = self.process
        deadline = time.monotonic() + DEADLINE
        while (code := process.poll()) is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
        return int(code)

    async def shut_down(self) -> int:
        """Ask it to end, and wait; the exit code."""
        await self.manager.request_shutdown()
        return await self.ended()

    async def close(self) -> None:
        """Leave nothing of it."""
        if self.is_closed:
            return
        self.is_closed = True
        self.client.stop_channels()
        if self.manager.has_kernel:
            await self.manager.shutdown_kernel(now=True)
        self.manager.context.destroy(linger=0)


class Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self._records.append(record)


@asynccontextmanager
async def place(
    folder: Path,
    *modules: str,
    env: Mapping[str, str] | None = None,
    argv: tuple[str, ...] = (),
    **kwargs: Any,
) -> AsyncIterator[Place]:
    """A kernelspec of its own, with fork servers that import these modules ahead."""
    resources = folder / "spec"
    resources.mkdir()
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", *argv]
    spec = {"argv": command, "display_name": "k", "language": "python", "env": dict(env or {})}
    (resources / "kernel.json").write_text(json.dumps(spec))
    log = logging.getLogger(f"forks {folder}")
    log.propagate = False
    log.setLevel(logging.INFO)
    servers = forkserver.ForkServers(
        preload={"k": modules}, niceness=3, log=log, extra_arguments=EXTRA, **kwargs
    )
    # The loader of the test's own coverage or import mode is no business of a kernel's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment["IPYTHONDIR"] = str(folder / "ipython")
    here = Place(folder, KernelSpec.from_resource_dir(str(resources)), servers, environment)
    log.addHandler(Records(here.records))
    try:
        yield here
    finally:
        for live in here.lives:
            await live.close()
        await servers.stop()


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A zygote for the tests that only fork kernels from it."""
    async with place(tmp_path_factory.mktemp("f")) as here:
        await here.ready()
        yield here


Start = Callable[..., Any]


@pytest.fixture
async def start(shared: Place) -> AsyncIterator[Start]:
    """Start kernels that are ended after the test."""
    yield shared.start
    for live in shared.lives:
        await live.close()


#: What a notebook can see of its process, interpreter, shell and kernel.
CENSUS = (Path(__file__).parents[1] / "fixtures" / "census.ipy").read_text(encoding="utf-8")
#: What may differ, by the beginning of its name, and why.
ALLOWED = {
    "cmdline": "the operating system shows the command line of the zygote",
    "environment/JPY_PARENT_PID": "each kernel's own shim",
    "app/parent_handle": "each kernel's own shim",
    "app/context": "a cold kernel's output thread has had to say what debugpy prints when it is imported",
    "descriptors": "the same, seen from below",
    "logging/IPKernelApp": "shows the number of a descriptor",
    "app/flags": "holds a random key for `--secure`",
    "app/control_thread": "shows a thread's address",
    "app/shell_channel_thread": "shows a thread's address",
    "app/heartbeat": "shows a thread's address",
    "app/poller": "shows a thread's address",
    "kernel/control_thread": "shows a thread's address",
    "kernel/shell_channel_thread": "shows a thread's address",
    "kernel/ident": "random, for each kernel",
    "kernel/_parent": "holds the request",
    "kernel/_message_counter": "counts requests, of which the client has sent as many as it needed",
    "shell/parent_header": "holds the request",
    "shell values/_parent_header": "holds the request",
    "session/": "random, for each kernel",
    "logging/": "loggers of modules that are imported early",
    "modules": "what is imported early; looked at below",
}


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The parts of a census, with names like paths."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from flatten(each, f"{name}/{key}" if name else str(key))
    else:
        yield name, value


async def test_opening_is_not_compiled_again(start: Start) -> None:
    """What every run begins with has been compiled before the fork, and leaves nothing of that behind."""
    source = f"""
kernel = get_ipython().kernel
constants = [each for code in kernel.jupyter_nbexec_compiled.values() for each in code.co_consts]
done = eval({result.opening()!r})
print(done, kernel.jupyter_nbexec["begin"].__code__ in constants, hasattr(kernel, "jupyter_nbexec_compiled"))
"""
    assert await (await start()).run(source) == "None True False\n"


async def test_census(start: Start) -> None:
    """A forked kernel and a cold one see the same, but for what is listed."""
    cold, forked = await start(cold=True), await start()
    seen = []
    for live in (cold, forked):
        text = (await live.run(CENSUS)).replace(str(live.folder), "<folder>")
        text = text.replace(live.manager.connection_file, "<file>").replace(live.manager.ip, "<ip>")
        seen.append(json.loads(text))

    assert (cold.is_forked, forked.is_forked) == (False, True)
    seen[1]["kernel attributes"].remove("jupyter_nbexec_compiled")  # goes with the first request of a run
    assert set(seen[0].pop("modules")) <= set(seen[1].pop("modules"))
    ours, theirs = dict(flatten(seen[1])), dict(flatten(seen[0]))
    different = {
        name: (theirs.get(name), ours.get(name))
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name) and not name.startswith(tuple(ALLOWED))
    }
    assert different == {}
    extra = set(seen[1]["descriptors"]) - set(seen[0]["descriptors"])
    assert extra == set()


async def test_nothing_random_is_shared(start: Start) -> None:
    """Kernels of one zygote draw different numbers, names and keys."""
    code = """
        import multiprocessing, os, random, tempfile, uuid
        import numpy
        session = get_ipython().kernel.session
        print([os.getpid(), random.random(), float(numpy.random.random()), str(uuid.uuid4()),
               str(uuid.uuid1()), tempfile.mktemp(), session.session, session.pid,
               get_ipython().kernel.ident, multiprocessing.current_process().authkey.hex()])
    """
    seen = [eval(await (await start()).run(code)) for _ in range(2)]

    assert all(one != other for one, other in zip(*seen, strict=True))


async def test_each_has_a_place_of_its_own(start: Start) -> None:
    """A kernel works in its notebook's folder, and leaves no variable to the next."""
    one = await start()
    await one.run("import sys, builtins; x = builtins.x = sys.x = 1; sys.path.append('x')")
    other = await start()
    text = await other.run(
        "import os; print([os.getcwd(), 'x' in sys.path if 'sys' in dir() else None, 'x' in dir()])"
    )

    assert text == repr([str(other.folder), None, False]) + "\n"
    assert await other.run("x", error=True)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os; os._exit(3)", 3),
        ("import os; os.kill(os.getpid(), 11)", -signal.SIGSEGV),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
    ],
)
async def test_exit(start: Start, code: str, expected: int) -> None:
    """A kernel that dies is reported with its exit code or its signal."""
    live = await start()
    await live.client.wait_for_ready(timeout=DEADLINE)
    live.client.execute(code)

    assert await live.ended() == expected


async def test_ending(start: Start) -> None:
    """A kernel that is shut down joins threads, runs `atexit`, flushes files and drops what it made."""
    live = await start()
    await live.run(
        """
        import atexit, tempfile, threading, time
        from pathlib import Path
        held = open("held", "w"); held.write("x")
        binary = open("binary", "wb"); binary.write(b"x")
        atexit.register(lambda: Path("atexit").write_text("x"))
        class Thing:
            def __del__(self):
                open("finalizer", "w").write("x")
        thing = Thing(); thing.itself = thing
        threading.Thread(target=lambda: (time.sleep(0.2), Path("thread").write_text("x"))).start()
        temporary = tempfile.NamedTemporaryFile(dir=".", prefix="temporary")
        """
    )

    assert await live.shut_down() == 0
    written = {path.name: path.read_text() for path in live.folder.iterdir()}
    assert written == dict.fromkeys(["held", "binary", "atexit", "finalizer", "thread"], "x")


#: Starts a process that ordinary ways of cleaning up miss.
SLEEPER = "import subprocess; print(subprocess.Popen(['sleep', '300'], start_new_session=True).pid)"


async def test_no_child_is_left(start: Start) -> None:
    """What a kernel has started, in whatever session, ends with it."""
    live = await start()
    pid = int(await live.run(SLEEPER))
    await live.shut_down()

    assert not psutil.pid_exists(pid)


async def test_interrupt(start: Start) -> None:
    """An interrupt ends a cell that sleeps in C code; the kernel goes on."""
    live = await start()
    code = "import time; open('begun', 'w').close(); time.sleep(300)"
    waiting = asyncio.ensure_future(live.run(code, error=True))
    while not waiting.done():
        if (live.folder / "begun").exists():
            await live.manager.interrupt_kernel()
        await asyncio.wait({waiting}, timeout=0.2)

    assert "KeyboardInterrupt" in await waiting
    assert await live.run("import asyncio; await asyncio.sleep(0, 2)") == "2"


async def test_debugger_and_subshells(start: Start) -> None:
    """The debugger can be attached, and subshells can be made."""
    live = await start()
    await live.run("import time")
    first = await live.control("debug_request", {"type": "request", "seq": 1, "command": "debugInfo"})
    arguments = {"clientID": "x", "adapterID": "", "pathFormat": "path"}
    begun = await live.control(
        "debug_request", {"type": "request", "seq": 2, "command": "initialize", "arguments": arguments}
    )
    attached = await live.control(
        "debug_request", {"type": "request", "seq": 3, "command": "attach", "arguments": {}}
    )

    assert (first["success"], begun["success"], attached["success"]) == (True, True, True)
    assert await live.run("1 + 1") == "2"
    if "kernel subshells" in (await live.control("kernel_info_request", {})).get("supported_features", []):
        made = await live.control("create_subshell_request", {})
        assert made["status"] == "ok"


async def test_control_socket(shared: Place, start: Start) -> None:
    """No kernel, and no shim of one, holds what its zygote is talked to through."""
    live = await start()
    await live.run("1")

    def descriptors(pid: int) -> dict[str, str]:
        return {path.name: str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}

    control = {target for target in descriptors(shared.zygote().pid).values() if "socket" in target}
    assert len(control) == 1
    assert set(descriptors(live.process.pid)) == {"0", "1", "2"}
    assert not control & set(descriptors(live.kernel().pid).values())
    above = shared.zygote().parent()
    assert above is not None
    assert not control & set(descriptors(above.pid).values())


async def test_last_words(shared: Place, start: Start) -> None:
    """What a forked kernel puts out past IPython is heard, and its zygote keeps nothing of that open."""
    live = await start()
    words: Any = live.manager.provisioner.words

    def speak(descriptor: int) -> None:
        Path(f"/proc/{live.process.pid}/fd/{descriptor}").write_text(f"{descriptor}\n")

    speak(1)
    speak(2)
    pipe = os.readlink(f"/proc/self/fd/{words._reading}")  # noqa: PTH115 - its name is no path
    held = [os.readlink(path) for path in Path(f"/proc/{shared.zygote().pid}/fd").iterdir()]  # noqa: ASYNC240, PTH115

    assert getattr(live.manager.provisioner, "is_forked", False)
    assert words.text() == "1\n2"
    assert pipe not in held


async def test_restart(start: Start) -> None:
    """A kernel that its manager restarts is a new one, forked again."""
    live = await start()
    await live.run("x = 1")
    before = live.process.pid
    await live.manager.restart_kernel(now=True)

    assert live.is_forked
    assert live.process.pid != before
    assert await live.run("'x' in dir()") == "False"


async def test_niceness(start: Start) -> None:
    """Kernels give way to the server; their shims do not."""
    live = await start()

    assert int(await live.run("import os; print(os.nice(0))")) == os.nice(0) + 3
    assert psutil.Process(live.process.pid).nice() == os.nice(0)


@pytest.mark.parametrize(
    "special",
    [{"env": {"X": "1"}}, {"stderr": subprocess.PIPE}, {"extra_arguments": ["--Session.username=x"]}],
)
async def test_special_kernels(start: Start, special: dict[str, Any]) -> None:
    """What is not usual about a kernel is as usual: started cold, or built after the fork."""
    live = await start(**special)

    assert live.is_forked is ("extra_arguments" in special)
    assert await live.run("import os; print(os.environ.get('X'))") == f"{special.get('env', {}).get('X')}\n"
    if live.process.stderr is not None:
        live.process.stderr.close()


async def test_kernel_that_does_not_come_up(shared: Place, start: Start) -> None:
    """A kernel that fails to start is one that has died, with an exit code."""
    live = await start(extra_arguments=["--IPKernelApp.kernel_class=no.such.Class"])

    assert live.is_forked
    assert await live.ended() == 1


async def test_many(shared: Place) -> None:
    """A hundred kernels leave no process, no descriptor, and next to no memory behind."""
    zygote = shared.zygote()

    def resources() -> tuple[int, int, int]:
        return psutil.Process().num_fds(), zygote.num_fds(), len(zygote.children())

    async def churn(number: int) -> None:
        keeper = shared.servers.keeper("k")
        for _ in range(number):
            live = await shared.start()
            live.process.terminate()
            assert await live.ended() == -signal.SIGKILL
            await live.close()
        assert keeper.zygote is not None

    await churn(5)
    before, memory = resources(), zygote.memory_info().rss
    await asyncio.gather(*(churn(20) for _ in range(5)))

    assert resources() == before
    assert zygote.memory_info().rss - memory < 1_000_000


async def test_zygote_is_killed(tmp_path: Path) -> None:
    """With the zygote its kernels die, and are known to; the next are cold, until there is a new one."""
    async with place(tmp_path) as here:
        await here.ready()
        live = await here.start()
        await live.run("1")
        below = live.kernel()
        here.zygote().kill()

        assert await live.ended() == -signal.SIGKILL
        await asyncio.to_thread(psutil.wait_procs, [below], DEADLINE)
        assert not below.is_running()
        cold = await here.start()
        assert not cold.is_forked
        deadline = time.monotonic() + DEADLINE
        while not here.servers.is_ready("k") and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        again = await here.start()
        assert again.is_forked
        assert here.texts() == ["the fork server of kernels 'k' has ended; a new one is started"]


async def test_zygote_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is not forked in time is started cold; one that comes too late is killed."""
    monkeypatch.setattr(forkserver, "FORK_PATIENCE", 0.2)
    async with place(tmp_path) as here:
        await here.ready()
        zygote = here.zygote()
        zygote.suspend()
        live = await here.start()
        assert not live.is_forked
        zygote.resume()
        deadline = time.monotonic() + DEADLINE
        while zygote.children() or zygote.num_fds() > 4:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


async def test_change(tmp_path: Path) -> None:
    """A zygote is replaced when the kernelspec changes; the old one stays until its last kernel has ended."""
    async with place(tmp_path) as here:
        await here.ready()
        old, live = here.zygote(), await here.start()
        file = Path(here.spec.resource_dir) / "kernel.json"
        os.utime(file, (1, 1))
        keeper = here.servers.keeper("k")
        assert keeper.zygote is not None
        keeper.zygote._looked = 0.0
        cold = await here.start()
        assert not cold.is_forked
        await here.servers.wait()
        assert here.zygote().pid != old.pid
        assert await live.run("1 + 1") == "2"
        assert old.is_running()
        await live.shut_down()
        await asyncio.to_thread(psutil.wait_procs, [old], DEADLINE)
        assert not old.is_running()


async def test_environment_changes(tmp_path: Path) -> None:
    """Kernels are not forked from a zygote that has another environment."""
    async with place(tmp_path, env={"FROM_SPEC": "$HOME/x"}) as here:
        await here.ready()
        forked = await here.start()
        assert await forked.run("import os; print(os.environ['FROM_SPEC'])") == f"{os.environ['HOME']}/x\n"
        here.environment["NEW"] = "1"
        cold = await here.start()
        await here.servers.wait()
        again = await here.start()

        assert [each.is_forked for each in (forked, cold, again)] == [True, False, True]
        assert await again.run("print(os.environ['NEW']) if 'os' in dir() else None") == ""


async def test_profile(tmp_path: Path) -> None:
    """Configuration, startup files and the kernelspec's own arguments count in each kernel."""
    async with place(tmp_path, argv=("--IPKernelApp.exec_lines=['from_arguments = 1']",)) as here:
        profile = tmp_path / "ipython" / "profile_default"
        (profile / "startup").mkdir(parents=True)
        (profile / "startup" / "00.py").write_text("import os\nfrom_startup = os.getpid(), os.getcwd()\n")
        await here.ready()
        first = await here.start()
        (profile / "ipython_config.py").write_text(
            "import os\nc.InteractiveShellApp.exec_lines = [f'from_config = {os.getpid()}']\n"
        )
        (profile / "ipython_kernel_config.py").write_text("c.InteractiveShell.colors = 'NoColor'\n")
        second = await here.start()

        assert await first.run("from_startup == (os.getpid(), os.getcwd()), from_arguments") == "(True, 1)"
        text = await second.run("from_startup == (os.getpid(), os.getcwd()), get_ipython().colors.lower()")
        assert text == "(True, 'nocolor')"
        assert (first.is_forked, second.is_forked) == (True, True)


MODULES = {
    "raises": ("raise LookupError('no')", "LookupError: no"),
    "exits": ("raise SystemExit(1)", "SystemExit: 1"),
    "threads": (
        "import threading; threading.Thread(target=threading.Event().wait, name='T').start()",
        "threads (T)",
    ),
    "native": (
        "import ctypes as c; d = c.CDLL(None); d.pthread_create(c.byref(c.c_ulong()), None, d.pause, None)",
        "it starts threads of its own",
    ),
    "imports": ("import nbexec_imported", "nbexec_imported starts threads (T2)"),
    "listens": ("import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()", "opens sockets"),
    "loops": ("import asyncio; l = asyncio.new_event_loop(); asyncio.set_event_loop(l)", "event loop"),
    "writes": ("import tempfile; f = tempfile.NamedTemporaryFile()", "for writing"),
    "blocks": ("import time; time.sleep(300)", "more than 5 s to import"),
}


async def test_unfit_modules(tmp_path: Path) -> None:
    """Modules that cannot be shared are named, and left to the kernels; the others are imported ahead."""
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, (code, _) in MODULES.items():
        (folder / f"nbexec_{name}.py").write_text(code + "\n")
    (folder / "nbexec_fits.py").write_text(f"f = open({str(folder / 'nbexec_fits.py')!r})\n")
    imported = "import threading; threading.Thread(target=threading.Event().wait, name='T2').start()\n"
    (folder / "nbexec_imported.py").write_text(imported)
    names = [f"nbexec_{name}" for name in MODULES]
    async with place(tmp_path, *names, "nbexec_fits", env={"PYTHONPATH": str(folder)}, patience=5.0) as here:
        await here.ready()
        live = await here.start()
        code = "import sys; print(sorted(each for each in sys.modules if each.startswith('nbexec_')))"

        assert await live.run(code) == "['nbexec_fits']\n"
        for name, (_, reason) in MODULES.items():
            assert any(f"'nbexec_{name}'" in text and reason in text for text in here.texts()), name


async def test_numeric_modules(tmp_path: Path) -> None:
    """The usual scientific modules can be imported ahead, and compute in the kernels with their threads."""
    modules = [
        "numpy",
        "pandas",
        "sklearn.linear_model",
        "sklearn.ensemble",
        "matplotlib.pyplot",
        "scipy.linalg",
        # They start threads when they are imported, as pandas does that imports them where they are.
        *(name for name in ("pyarrow", "numexpr") if importlib.util.find_spec(name)),
    ]
    async with place(tmp_path, *modules) as here:
        await here.ready()
        assert here.texts() == []
        one, other = await here.start(), await here.start()
        code = """
            import sys; assert "pandas" in sys.modules and "sklearn.ensemble" in sys.modules
            import numpy as np, pandas as pd, matplotlib, matplotlib.pyplot as plt
            from sklearn.ensemble import RandomForestClassifier
            a = np.random.random((500, 500)); assert np.allclose(a @ np.linalg.inv(a), np.eye(500), atol=1e-6)
            RandomForestClassifier(n_estimators=4, n_jobs=2).fit(a, a[:, 0] > 0.5)
            plt.plot([1, 2]); plt.show()
            if "pyarrow" in sys.modules:
                import pyarrow.compute, pyarrow.parquet
                table = pyarrow.table({"a": np.arange(100_000)})
                pyarrow.parquet.write_table(table, "p")
                assert pyarrow.compute.sum(pyarrow.parquet.read_table("p")["a"]).as_py() == 4999950000
            if "numexpr" in sys.modules:
                import numexpr
                b = np.arange(1_000_000.0)
                assert numexpr.evaluate("sum(b + 1)") == b.sum() + len(b)
                assert numexpr.get_num_threads() == numexpr.nthreads
            print(matplotlib.get_backend(), len(pd.DataFrame(a)), float(a[0, 0]))
        """
        texts = [await one.run(code), await other.run(code)]

        assert all("inline" in text and "Figure" in text and " 500 " in text for text in texts)
        assert texts[0] != texts[1]


#: Makes a block of shared memory that only a resource tracker can remove.
MEMORY = """
import os; from multiprocessing.shared_memory import SharedMemory
memory = SharedMemory(create=True, size=1000, name=f"nbexec_test_{os.getpid()}")
"""
SERVER = """
import asyncio, json, logging, os, sys
from pathlib import Path
from tests.kernels import test_forkserver as module
async def main():
    async with module.place(Path(sys.argv[1])) as here:
        await here.ready()
        live = await here.start()
        child = await live.run(module.SLEEPER)
        await live.run(module.MEMORY)
        above = [here.servers.keeper("k").zygote.pid, here.zygote().pid, live.process.pid]
        print(json.dumps([*above, live.kernel().pid, int(child)]), flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_server_is_killed(tmp_path: Path) -> None:
    """When the server is killed, zygote, kernels and all that they have made are gone within five seconds."""
    command = [sys.executable, "-c", SERVER, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as server:  # noqa: ASYNC220
        assert server.stdout is not None
        line = await asyncio.to_thread(server.stdout.readline)
        processes = [psutil.Process(pid) for pid in json.loads(line)]
        server.kill()
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, 5.0)

    assert [process for process in alive if process.is_running()] == []
    assert f"nbexec_test_{processes[3].pid}" not in os.listdir("/dev/shm")  # noqa: PTH208


@pytest.mark.parametrize(
    ("argv", "fits"),
    [
        (["python", "-m", "ipykernel_launcher", "-f", "x"], True),
        (["/x/python", "-X", "dev", "-W", "error", "-u", "-m", "ipykernel_launcher", "-f", "x"], True),
        (["python", "-m", "bash_kernel", "-f", "x"], False),
        (["python", "-c", "import ipykernel_launcher", "-f", "x"], False),
        (["bash", "-c", "python -m ipykernel_launcher", "-f", "x"], False),
        (["conda", "run", "python", "-m", "ipykernel_launcher", "-f", "x"], False),
        (["python"], False),
        ([], False),
    ],
)
def test_recipe(argv: list[str], fits: bool) -> None:
    """Only Python that runs ipykernel's launcher, and nothing around it, is forked."""
    read = forkserver.Recipe.read(argv, {"A": "1", "JPY_SESSION_NAME": "x"})

    assert (read is not None) is fits
    if read is not None:
        assert read[1] == ["-f", "x"]
        assert read[0].environment == {("A", "1")}


async def test_bad_message(tmp_path: Path) -> None:
    """A zygote that says what it should not is ended."""
    recipe = forkserver.Recipe((sys.executable,), frozenset())
    zygote = forkserver.Zygote(recipe, logging.getLogger("x"))
    zygote._channel.listen(asyncio.get_running_loop())
    with suppress(OSError):
        zygote._channel.other.send(b"[1]")
    await asyncio.sleep(0)
    zygote._channel.receive()

    assert not zygote.is_alive
    zygote._channel.other.close()
