"""All that run notebooks, one like the other: ours in each of its modes, and those it is measured beside."""

from __future__ import annotations

import abc
import contextlib
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import peers
import processes
import websocket
from inputs import Input, Seen, outputs_of, see, seen
from serving import START_TIMEOUT, Server, environment_of, launch, stop, wait_for_url

HERE = Path(__file__).parent
#: Seconds that one run may take.
PATIENCE = 600.0
#: The other extensions of this environment only make a start slower.
PLAIN = tuple(
    f"--ServerApp.jpserver_extensions={name}=False"
    for name in ("jupyterlab", "jupyter_lsp", "notebook", "notebook_shim", "jupyter_server_terminals")
)


class Failed(Exception):
    """A run that has not given its answer; or a contender that cannot run this at all."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run that has given its answer."""

    seconds: float
    seen: Seen
    source: str = ""  #: where our kernel came from
    document: Mapping[str, Any] | None = None  #: our answer in full


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A way in which we run notebooks."""

    name: str
    options: tuple[str, ...] = ()  #: of the server
    metadata: Mapping[str, Any] | None = None  #: of the notebooks
    sources: frozenset[str]  #: where kernels then come from; others: there is no such mode here
    ahead: int = 0  #: kernels that are ready at most; as many runs one after the other wait for nothing


POOL = 8
COLD = ("--NbExec.fork_kernels=False",)
READY = f"--NbExec.warm_kernels={{'python3': {POOL}}}"
FORK = ("--NbExec.fork_kernels=True", "--NbExec.preload={'python3': ['pandas', 'sklearn']}")
MODES = {
    mode.name: mode
    for mode in (
        Mode(name="cold", options=COLD, sources=frozenset({"cold"})),
        Mode(
            name="warm",
            options=(*COLD, READY),
            sources=frozenset({"warm"}),
            ahead=POOL,
        ),
        Mode(name="forked", options=(*FORK, READY), sources=frozenset({"forked"}), ahead=POOL),
        Mode(
            name="prepared",
            options=FORK,
            metadata={"nbexec": {"prepare": True}},
            sources=frozenset({"prepared"}),
        ),
    )
}
#: So that 50 MB of output arrive; and kernels give way to nobody, as those of all others do not.
USUAL = ("--NbExec.max_output_bytes=200000000", "--NbExec.kernel_niceness=0")

Client = Callable[[Input], Run]


class Contender(abc.ABC):
    """Runs notebooks from a folder, for so many clients."""

    name = ""
    about = ""
    ahead = 0

    def can(self, _: Input) -> bool:
        """Whether this is something that it does."""
        return True

    @abc.abstractmethod
    def running(
        self, folder: Path, inputs: Sequence[Input], clients: int
    ) -> contextlib.AbstractContextManager[None]:
        """Be there for the time of the context."""

    @abc.abstractmethod
    def client(self) -> contextlib.AbstractContextManager[Client]:
        """Make one client; one thread uses it."""

    @abc.abstractmethod
    def cpu(self) -> float:
        """Seconds of processor time that it has used, with all its processes."""

    def processes(self) -> set[int]:
        """Ids of its processes."""
        return set()

    def missing(self) -> str | None:
        """Why it cannot do this here; None: it can."""
        return None

    def lag(self) -> list[float] | None:
        """Milliseconds by which its event loop was late, each time since the last call; None: not known."""
        return None


def check(wanted: Input, run: Run) -> Run:
    """Give the run back if its answer is right."""
    if run.seen != wanted.expected:
        raise Failed(f"{wanted.name} gave {run.seen}, not {wanted.expected}")
    return run


class Connection:
    """A connection by HTTP that is kept."""

    def __init__(self, url: str, token: str) -> None:
        split = urlsplit(url)
        self._path = split.path
        self._connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=PATIENCE)
        self._headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: Any = None) -> bytes:
        """Send a request; what it was answered with."""
        sent = None if body is None else json.dumps(body).encode()
        self._connection.request(method, f"{self._path}{path}", sent, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise Failed(f"{method} {path}: {answer.status} {content[:500].decode(errors='replace')}")
        return content

    def close(self) -> None:
        """Close it."""
        self._connection.close()


class OnServer(Contender):
    """What a `jupyter server` does."""

    options: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = None

    def __init__(self) -> None:
        self.server: Server | None = None

    @property
    def present(self) -> Server:
        """The server that runs now."""
        if self.server is None:
            raise RuntimeError("there is no server")
        return self.server

    @contextlib.contextmanager
    def running(self, folder: Path, inputs: Sequence[Input], clients: int) -> Iterator[None]:  # noqa: ARG002
        """Run the server, with a probe in its event loop."""
        (folder / "config").mkdir(parents=True)
        # At the end of the path, and of no other process's.
        configuration = f"import sys\nsys.path.append({str(HERE)!r})\n"
        (folder / "config" / "jupyter_server_config.py").write_text(configuration, encoding="utf-8")
        probe = "--ServerApp.jpserver_extensions=lag=True"
        self.server = launch(folder, *PLAIN, probe, *self.options)
        try:
            for each in inputs:
                each.save(self.server.root, self.metadata or {})
            wait_for_url(self.server)
            self.lag()
            yield
        finally:
            stop(self.server)

    def cpu(self) -> float:
        """As of the server's tree."""
        return processes.cpu_seconds(self.present.process.pid)

    def processes(self) -> set[int]:
        """As of the server's tree."""
        return processes.tree(self.present.process.pid)

    def lag(self) -> list[float]:
        """As the probe tells it."""
        with self.connected() as connection:
            late: list[float] = json.loads(connection.ask("GET", "api/lag"))
            return late

    @contextlib.contextmanager
    def connected(self) -> Iterator[Connection]:
        """Have a connection."""
        connection = Connection(self.present.url, self.present.token)
        with contextlib.closing(connection):
            yield connection


class Ours(OnServer):
    """This project."""

    about = "POST /api/nbexec/<path>, a fresh kernel for each run"

    def __init__(self, mode: Mode, *options: str) -> None:
        super().__init__()
        self.name = mode.name
        self.mode = mode
        self.ahead = mode.ahead
        self.options = (*mode.options, *USUAL, *options)
        self.metadata = mode.metadata

    def missing(self) -> str | None:
        """The option that this release does not have, if there is one."""
        lines = self.present.log().splitlines()
        return next((line for line in lines if "not recognized by `NbExec`" in line), None)

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """Make one that keeps its connection."""
        with self.connected() as connection:

            def run(wanted: Input) -> Run:
                began = time.perf_counter()
                content = connection.ask("POST", f"api/nbexec/{wanted.name}.ipynb", {})
                took = time.perf_counter() - began
                document = json.loads(content)
                if document["status"] != "succeeded" or document["truncated"]:
                    raise Failed(f"{wanted.name}: {document['status']}, truncated {document['truncated']}")
                source = document["kernel"]["source"]
                return Run(seconds=took, seen=see(document["outputs"]), source=source, document=document)

            yield run


class ByWebsocket(OnServer):
    """The server's own interface, used as a program would that has no other."""

    name = "websocket"
    about = "the cells over a websocket to a kernel of its own, in the style of jupyterapi"
    options = (
        "--ServerApp.jpserver_extensions=jupyter_nbexec=False",
        "--ZMQChannelsWebsocketConnection.iopub_data_rate_limit=1e12",
        "--ZMQChannelsWebsocketConnection.iopub_msg_rate_limit=1e9",
    )

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """Make one that keeps its connection, and has a kernel and a websocket for each run."""
        with self.connected() as connection:

            def run(wanted: Input) -> Run:
                began = time.perf_counter()
                document = json.loads(connection.ask("GET", f"api/contents/{wanted.name}.ipynb"))
                sources = [cell["source"] for cell in document["content"]["cells"]]
                kernel = json.loads(connection.ask("POST", "api/kernels", {"name": "python3"}))["id"]
                try:
                    outputs = self._execute(kernel, sources)
                    took = time.perf_counter() - began
                finally:
                    connection.ask("DELETE", f"api/kernels/{kernel}")
                return Run(seconds=took, seen=see(outputs))

            yield run

    def _execute(self, kernel: str, sources: list[str]) -> list[dict[str, Any]]:
        """Send all cells, and count replies until all are there, and nothing is to come."""
        url = f"{self.present.url.replace('http', 'ws', 1)}api/kernels/{kernel}/channels"
        header = [f"Authorization: token {self.present.token}"]
        socket_ = websocket.create_connection(url, timeout=PATIENCE, header=header)
        with contextlib.closing(socket_):
            asked = [_send(socket_, source) for source in sources]
            outputs: list[dict[str, Any]] = []
            replies, is_idle = 0, False
            while replies < len(asked) or not is_idle:
                message = json.loads(socket_.recv())
                kind, content = message["msg_type"], message["content"]
                parent = message["parent_header"].get("msg_id")
                if parent not in asked:
                    continue
                replies += kind == "execute_reply"
                if kind == "error":
                    raise Failed(f"{content['ename']}: {content['evalue']}")
                if kind in ("stream", "execute_result"):
                    outputs.append({"output_type": kind, **content})
                ends = kind == "status" and content["execution_state"] == "idle"
                is_idle = is_idle or (ends and parent == asked[-1])
        return outputs


def _send(socket_: websocket.WebSocket, source: str) -> str:
    """Send a cell; the id of the message."""
    number = uuid.uuid4().hex
    content = {
        "code": source,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": True,
    }
    header = {
        "msg_id": number,
        "msg_type": "execute_request",
        "username": "",
        "session": number,
        "version": "5.3",
    }
    message = {
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": "shell",
        "buffers": [],
    }
    socket_.send(json.dumps(message))
    return number


class InProcess(Contender):
    """A Python process that runs notebooks itself."""

    def __init__(self, way: str, name: str, about: str) -> None:
        self.name = name
        self.about = about
        self._way = way
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def running(self, folder: Path, inputs: Sequence[Input], clients: int) -> Iterator[None]:
        """Run the process."""
        folder.mkdir(parents=True)
        environment = environment_of(folder, {})
        for each in inputs:
            each.save(folder / "root", {})
        command = [sys.executable, HERE / "driver.py", self._way, folder / "root", str(clients)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._process = process
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        reader.start()
        try:
            yield
        finally:
            below = self.processes()
            if process.stdin is not None:
                process.stdin.close()
            end(process, below)
            reader.join()
            if process.stdout is not None:
                process.stdout.close()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """Hand answers to those who wait."""
        for line in process.stdout or ():
            document = json.loads(line)
            self._waiting.pop(document["id"]).set_result(document)
        for future in list(self._waiting.values()):
            future.set_exception(Failed("the process has ended"))

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """Make one: it says a name and waits."""
        yield self._run

    def _run(self, wanted: Input) -> Run:
        process = self._process
        if process is None or process.stdin is None or process.poll() is not None:
            raise Failed("there is no process")
        future: Future[dict[str, Any]] = Future()
        number = secrets.randbits(60)
        with self._lock:
            self._waiting[number] = future
            process.stdin.write(json.dumps({"id": number, "name": wanted.name}).encode() + b"\n")
            process.stdin.flush()
        document = future.result(PATIENCE)
        if document["error"]:
            raise Failed(document["error"])
        found = Seen(document["text"], document["length"], document["digest"])
        # Its own time: of a run of milliseconds, the way here and back would be a part.
        return Run(seconds=document["seconds"], seen=found)

    def cpu(self) -> float:
        """As of the process's tree."""
        return 0.0 if self._process is None else processes.cpu_seconds(self._process.pid)

    def processes(self) -> set[int]:
        """As of the process's tree."""
        return set() if self._process is None else processes.tree(self._process.pid)


def end(process: subprocess.Popen[bytes], below: set[int]) -> None:
    """Wait for the end of a process; kill it, and what was below it, if that takes too long."""
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        for pid in below | {process.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        process.wait()


class ByCommand(Contender):
    """A command for each run."""

    def __init__(self, name: str, about: str, command: Callable[[str, str], list[str]]) -> None:
        """`command` gets the name of the notebook, without its ending, and that of the executed one."""
        self.name = name
        self.about = about
        self._command = command
        self._lock = threading.Lock()
        self._spent = 0.0
        self._live: set[int] = set()
        self._folder = Path()
        self._environment: dict[str, str] = {}

    @contextlib.contextmanager
    def running(self, folder: Path, inputs: Sequence[Input], clients: int) -> Iterator[None]:  # noqa: ARG002
        """Nothing runs in between."""
        folder.mkdir(parents=True)
        self._environment = environment_of(folder, kernels_of_this(folder))
        self._folder = folder / "root"
        for each in inputs:
            each.save(self._folder, {})
        try:
            yield
        finally:
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """Make one."""
        yield self._run

    def _run(self, wanted: Input) -> Run:
        made = f"executed-{uuid.uuid4().hex}"
        log = self._folder / f"{made}.log"
        command = self._command(wanted.name, made)
        began = time.perf_counter()
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            with self._lock:
                self._live.add(process.pid)
            # What it has used, with all that it has waited for.
            _, status, used = os.wait4(process.pid, 0)
        took = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        with self._lock:
            self._live.discard(process.pid)
            self._spent += used.ru_utime + used.ru_stime
        if process.returncode:
            raise Failed(f"{command[0]}: {log.read_text(encoding='utf-8', errors='replace')[-500:]}")
        path = self._folder / f"{made}.ipynb"
        found = see(outputs_of(json.loads(path.read_text(encoding="utf-8"))))
        path.unlink()
        log.unlink()
        return Run(seconds=took, seen=found)

    def cpu(self) -> float:
        """As the operating system tells who waits."""
        with self._lock:
            return self._spent

    def processes(self) -> set[int]:
        """Commands that run now, and what is below them."""
        with self._lock:
            live = set(self._live)
        return {pid for each in live for pid in processes.tree(each)}


def kernels_of_this(folder: Path) -> dict[str, str]:
    """Have a peer of another environment start the same kernels as we do: what its environment needs."""
    place = folder / "kernelspecs" / "kernels" / "python3"
    place.mkdir(parents=True)
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
    }
    (place / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    return {"JUPYTER_PATH": str(folder / "kernelspecs")}


class KernelGateway(Contender):
    """A notebook that is a web service, on kernels that all callers share."""

    name = "gateway"
    about = "Kernel Gateway's notebook-http: one cell, on kernels that are there and keep their state"

    def __init__(self) -> None:
        self._urls: dict[str, str] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._token = secrets.token_hex(24)

    def can(self, wanted: Input) -> bool:
        """Whether one cell can do this."""
        return wanted.has_endpoint

    @contextlib.contextmanager
    def running(self, folder: Path, inputs: Sequence[Input], clients: int) -> Iterator[None]:
        """Run a gateway for each notebook, with a kernel for each client."""
        folder.mkdir(parents=True)
        more = {**kernels_of_this(folder), "KG_AUTH_TOKEN": self._token}
        environment = environment_of(folder, more)
        try:
            for each in inputs:
                self._start(each, folder, environment, clients)
            for each in inputs:
                self._wait(each, folder)
            yield
        finally:
            for process in self._processes.values():
                below = processes.tree(process.pid)
                process.terminate()
                end(process, below)
            self._processes.clear()

    def _start(self, wanted: Input, folder: Path, environment: Mapping[str, str], clients: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command = [
            *(str(peers.program("servers", "python")), "-m", "kernel_gateway"),
            "--KernelGatewayApp.api=kernel_gateway.notebook_http",
            f"--KernelGatewayApp.seed_uri={wanted.save_endpoint(folder / 'root')}",
            f"--KernelGatewayApp.prespawn_count={clients}",
            *("--KernelGatewayApp.ip=127.0.0.1", f"--KernelGatewayApp.port={port}"),
            "--KernelGatewayApp.port_retries=0",
        ]
        with (folder / f"{wanted.name}.log").open("wb") as log:
            self._processes[wanted.name] = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=folder / "root",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._urls[wanted.name] = f"http://127.0.0.1:{port}/"

    def _wait(self, wanted: Input, folder: Path) -> None:
        """Return when it answers."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self._processes[wanted.name].poll() is None:
            with contextlib.suppress(OSError), self._connected(wanted) as connection:
                connection.ask("GET", "_api/spec/swagger.json")
                return
            time.sleep(0.1)
        log = (folder / f"{wanted.name}.log").read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"Kernel Gateway does not come up:\n{log[-3000:]}")

    @contextlib.contextmanager
    def _connected(self, wanted: Input) -> Iterator[Connection]:
        connection = Connection(self._urls[wanted.name], self._token)
        with contextlib.closing(connection):
            yield connection

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """Make one that keeps its connections."""
        with contextlib.ExitStack() as stack:
            kept: dict[str, Connection] = {}

            def run(wanted: Input) -> Run:
                if wanted.name not in kept:
                    kept[wanted.name] = stack.enter_context(self._connected(wanted))
                began = time.perf_counter()
                content = kept[wanted.name].ask("GET", "run")
                took = time.perf_counter() - began
                return Run(seconds=took, seen=_see_endpoint(content.decode()))

            yield run

    def cpu(self) -> float:
        """As of the trees of all gateways."""
        return sum(processes.cpu_seconds(each.pid) for each in self._processes.values())

    def processes(self) -> set[int]:
        """As of the trees of all gateways."""
        return {pid for each in self._processes.values() for pid in processes.tree(each.pid)}


def _see_endpoint(content: str) -> Seen:
    """Look at what an endpoint has answered: a result as JSON, or what was printed."""
    try:
        return seen(json.loads(content)["text/plain"], "")
    except ValueError:
        return seen(None, content)


def papermill() -> ByCommand:
    """The command of papermill."""
    program = str(peers.program("commands", "papermill"))
    return ByCommand(
        "papermill",
        "papermill's command, a process for each run",
        lambda name, made: [program, f"{name}.ipynb", f"{made}.ipynb", "--no-progress-bar"],
    )


def jupyter_execute() -> ByCommand:
    """The command of nbclient."""
    program = str(peers.program("commands", "jupyter-execute"))
    return ByCommand(
        "execute",
        "jupyter execute, a process for each run",
        lambda name, made: [program, f"--output={made}", f"{name}.ipynb"],
    )


def floor() -> InProcess:
    """The least that can be: the cells alone."""
    return InProcess("floor", "floor", "execute_request for each cell, on a kernel that is there; no server")


def nbclients() -> list[InProcess]:
    """The library nbclient, in the two ways in which a program may do several things at a time."""
    return [
        InProcess("threads", "nbclient", "NotebookClient.execute() in one process; several: threads"),
        InProcess("asyncio", "nbclient-asyncio", "NotebookClient.async_execute() in one process and loop"),
    ]


def make_all(*options: str) -> dict[str, Contender]:
    """All contenders; options are for the servers of ours."""
    ours = [Ours(mode, *options) for mode in MODES.values()]
    others = [floor(), KernelGateway(), *nbclients(), papermill(), jupyter_execute(), ByWebsocket()]
    return {each.name: each for each in [*ours, *others]}


def same_answer(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two answers are the same but for times, and for whose they are."""
    return _timeless(one) == _timeless(other)


def _timeless(document: Mapping[str, Any]) -> dict[str, Any]:
    own = {"id", "created", "started", "ended", "duration", "links", "kernel"}
    return {name: value for name, value in document.items() if name not in own}
