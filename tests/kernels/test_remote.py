"""Runs on the kernels of a real gateway, and all that can happen on the way there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from jupyter_server.gateway.gateway_client import GatewayTokenRenewerBase

from jupyter_nbexec import kernels, live
from jupyter_nbexec.kernels import gateway as gateways_client
from jupyter_nbexec.kernels import remote
from jupyter_nbexec.kernels.inbox import Link
from jupyter_nbexec.kernels.messages import Whole
from tests import gateways
from tests.gateways import Gateway
from tests.machinery import Engine
from tests.sources import ENVIRONMENT, Remote

pytestmark = [pytest.mark.anyio, pytest.mark.long]


class Proxy:
    """Stands between a client and a gateway, and spoils what passes."""

    def __init__(self, gateway: Gateway) -> None:
        self.port = gateways.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._target = int(gateway.url.rpartition(":")[2])
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, bytes] = {}
        #: What is answered in the gateway's place to a request that begins so.
        self.answers: dict[bytes, bytes] = {}
        #: Requests to start a kernel, which wait until this is set.
        self.starts = 0
        self.may_start = asyncio.Event()
        self.may_start.set()
        #: How many websockets were asked for.
        self.channels = 0
        #: What becomes of a request.
        self.change: Callable[[bytes], bytes] = bytes

    async def listen(self) -> None:
        """Let clients in."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def refuse(self) -> None:
        """Let nobody in."""
        assert self._server is not None
        self._server.close()

    def cut(self, what: bytes = b"/channels") -> None:
        """Break the connections that ask for something."""
        for writer, request in list(self._open.items()):
            if what in request:
                writer.transport.abort()

    async def close(self) -> None:
        """Break all."""
        await self.refuse()
        self.cut(b"")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            self.channels += b"/channels" in request
            if request.startswith(b"POST /api/kernels "):
                self.starts += 1
                await self.may_start.wait()
            answer = next((said for start, said in self.answers.items() if start in request), None)
            if answer is not None:
                writer.write(answer)
                await writer.drain()
            else:
                await self._pass(self.change(request), reader, writer)
        writer.close()

    async def _pass(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        self._open[writer] = self._open[forth] = request
        forth.write(request)
        try:
            await asyncio.gather(_copy(reader, forth), _copy(back, writer))
        finally:
            for each in (writer, forth):
                del self._open[each]
                each.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
async def proxy(gateway: Gateway) -> AsyncIterator[Proxy]:
    """A proxy to the gateway."""
    proxy = Proxy(gateway)
    await proxy.listen()
    yield proxy
    await proxy.close()


@asynccontextmanager
async def engine_on(root: Path, gateway: Gateway, **traits: Any) -> AsyncIterator[Engine]:
    """An engine on a gateway; afterwards nothing is left."""
    source = Remote(gateway, **{"gateway_retry_interval": 0.1, "gateway_retry_max": 3, **traits})
    engine = Engine(root, source)
    try:
        yield engine
    finally:
        await engine.stop()
    assert gateway.kernels == []


def canned(status: str, body: str = "{}") -> bytes:
    """An answer of HTTP."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


def text(answer: dict[str, Any]) -> str:
    """All that was printed."""
    return "".join(output["text"] for output in answer["outputs"] if output["output_type"] == "stream")


async def executing(run: live.Run) -> None:
    """Wait until the first cell has put something out."""
    with anyio.fail_after(60):
        while run.execution is None or not run.execution.notebook.cells[0].outputs:
            await anyio.sleep(0.02)


def gate(root: Path) -> str:
    """A cell that prints, waits for a file and prints again."""
    path = str(root / "open")
    return (
        "import os, time\nprint('before', flush=True)\n"
        f"while not os.path.exists({path!r}): time.sleep(0.02)\nprint('after')"
    )


async def test_run(tmp_path: Path, gateway: Gateway) -> None:
    """A run on a gateway that wants a token: its kernel is the gateway's, in the notebook's folder."""
    async with engine_on(tmp_path, gateway) as engine:
        run = await engine.submit(gate(tmp_path), "import os; os.getcwd()")
        await executing(run)
        assert run.kernel is not None
        assert gateway.kernels == [run.kernel.id]
        (tmp_path / "open").touch()
        answer = await engine.answer(run.id)

    assert answer["kernel"]["source"] == "remote"
    assert (answer["status"], answer["result"]) == ("succeeded", str(tmp_path))
    assert (answer["truncated"], answer["warnings"]) == (False, [])
    assert gateway.token not in str(answer)


async def test_older_protocol(tmp_path: Path, gateway: Gateway, proxy: Proxy) -> None:
    """A gateway that speaks the older form only does as well."""
    proxy.change = lambda request: request.replace(b"Sec-Websocket-Protocol", b"X-No-Such-Header-Here-")
    prints = "import sys\nprint('é', flush=True); print('ü', file=sys.stderr)"
    code = f"{prints}\ndisplay({{'application/json': [1]}}, raw=True)\n{{'x': '€'}}"
    async with engine_on(tmp_path, gateway, url=proxy.url) as engine:
        answer = await engine.run(code, "1/0")

    assert answer["error"]["ename"] == "ZeroDivisionError"
    assert sorted(text(answer)) == sorted("é\nü\n")
    kinds = [each["output_type"] for each in answer["outputs"] if each["output_type"] != "stream"]
    assert kinds == ["display_data", "execute_result", "error"]


class Renewer(GatewayTokenRenewerBase):
    """Knows the right token."""

    token = ""

    def get_token(self, *_args: Any, **_kwargs: Any) -> str:
        """Give it."""
        return self.token


async def test_renewed_token(tmp_path: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that is renewed is used, for the websocket too."""
    monkeypatch.setattr(Renewer, "token", gateway.token)
    traits = {"auth_token": "old", "gateway_token_renewer_class": Renewer}
    async with engine_on(tmp_path, gateway, **traits) as engine:
        assert (await engine.run("1"))["result"] == 1


@pytest.mark.parametrize(
    ("traits", "answers", "says"),
    [
        ({"auth_token": "wrong-token"}, {}, "credentials (401)"),
        ({"url": "http://127.0.0.1:9"}, {}, "cannot be reached"),
        (
            {},
            {b"POST /api/kernels": canned("403 No", '{"reason": "Forbidden", "message": "Resource Limit"}')},
            "(403): Resource Limit.",
        ),
        ({}, {b"POST /api/kernels": canned("500 Oops", '{"message": "at /srv/secret"}')}, "(500)"),
        ({}, {b"POST /api/kernels": canned("201 Created", "<html>")}, "cannot be started"),
        ({}, {b"/channels": canned("401 Unauthorized")}, "refuses the connection to the kernel (401)"),
        ({}, {b"/channels": canned("404 Not Found")}, "no longer has the kernel"),
        ({}, {b"/channels": canned("502 Bad Gateway")}, "cannot be reached"),
    ],
)
async def test_refusals(  # noqa: PLR0913, RUF100
    tmp_path: Path,
    gateway: Gateway,
    proxy: Proxy,
    traits: dict[str, Any],
    answers: dict[bytes, bytes],
    says: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What the gateway refuses ends the run as `kernel_start_failed`, in words, without its secrets."""
    caplog.set_level(logging.DEBUG)
    proxy.answers = answers
    async with engine_on(tmp_path, gateway, **{"url": proxy.url, **traits}) as engine:
        with anyio.fail_after(20):
            answer = await engine.run("1")

    assert answer["error"]["code"] == "kernel_start_failed"
    assert says in answer["error"]["message"]
    assert "secret" not in str(answer)
    assert gateway.token not in caplog.text
    assert "wrong-token" not in caplog.text


async def test_cut(tmp_path: Path, gateway: Gateway, proxy: Proxy) -> None:
    """A connection that breaks is made again: the run goes on, and says that it may be incomplete."""
    async with engine_on(tmp_path, gateway, url=proxy.url) as engine:
        run = await engine.submit(gate(tmp_path), "7")
        await executing(run)
        proxy.cut()
        with anyio.fail_after(20):
            while proxy.channels < 2 or not run.execution.opened.client.wire.is_open:  # type: ignore[union-attr]
                await anyio.sleep(0.02)
        (tmp_path / "open").touch()
        answer = await engine.answer(run.id)

    assert (answer["status"], answer["result"], answer["truncated"]) == ("succeeded", 7, True)
    assert "after" in text(answer)


async def test_cut_again_and_again(tmp_path: Path, gateway: Gateway, proxy: Proxy) -> None:
    """However often it has been cut, a run ends; with all its output, or saying that it may not be all."""
    async with engine_on(tmp_path, gateway, url=proxy.url) as engine:
        cell = "import time\nfor i in range(20): print(i, flush=True); time.sleep(0.01)"
        run = await engine.submit(*4 * [cell])
        for _ in range(12):
            await anyio.sleep(0.3)
            proxy.cut()
        with anyio.fail_after(60):
            answer = await engine.answer(run.id)

    ended = (answer["status"], answer["error"] and answer["error"]["code"])
    assert ended in (("succeeded", None), ("failed", "kernel_died"), ("failed", "kernel_start_failed"))
    if ended[1] != "kernel_start_failed":
        assert answer["truncated"] or text(answer) == 4 * "".join(f"{i}\n" for i in range(20))


async def test_gateway_is_gone(tmp_path: Path, gateway: Gateway, proxy: Proxy) -> None:
    """A gateway that cannot be reached any more has taken the kernel with it, as far as the run can tell."""
    async with engine_on(tmp_path, gateway, url=proxy.url) as engine:
        run = await engine.submit(gate(tmp_path))
        await executing(run)
        await proxy.refuse()
        proxy.cut()
        with anyio.fail_after(30):
            await run.wait()
        answer = await engine.answer(run.id)
        assert run.kernel is not None
        gateway.get(f"/api/kernels/{run.kernel.id}", "DELETE")

    assert answer["error"]["code"] == "kernel_died"
    assert answer["error"]["message"] == "The gateway cannot be reached."
    assert text(answer) == "before\n"


@pytest.mark.parametrize("how", ["timeout", "cancel", "stop"])
async def test_slow_start(tmp_path: Path, gateway: Gateway, proxy: Proxy, how: str) -> None:
    """A run ends at once while the gateway starts its kernel, which is ended when it has come up."""
    proxy.may_start.clear()
    async with engine_on(tmp_path, gateway, url=proxy.url) as engine:
        run = await engine.submit("1", timeout=5 if how == "timeout" else None)
        with anyio.fail_after(20):
            while not proxy.starts:
                await anyio.sleep(0.01)
        if how == "cancel":
            await engine.cancel(run)
        stopping = asyncio.create_task(engine.manager.stop()) if how == "stop" else None
        with anyio.fail_after(30):
            await run.wait()
        proxy.may_start.set()
        if stopping is not None:
            await stopping

    codes = {"timeout": "timeout", "cancel": None, "stop": "server_stopped"}
    assert (run.error and run.error.code.value) == codes[how]


async def test_kernel_is_gone(tmp_path: Path, gateway: Gateway) -> None:
    """A kernel that the gateway ends, as its culler does, is noticed."""
    async with engine_on(tmp_path, gateway) as engine:
        run = await engine.submit(gate(tmp_path))
        await executing(run)
        assert run.kernel is not None
        gateway.get(f"/api/kernels/{run.kernel.id}", "DELETE")
        with anyio.fail_after(20):
            await run.wait()
        answer = await engine.answer(run.id)

    assert answer["error"]["code"] == "kernel_died"


@pytest.mark.parametrize("number", range(5))
async def test_death(tmp_path: Path, gateway: Gateway, number: int) -> None:
    """A kernel that dies and is revived by the gateway is noticed every time, in some seconds."""
    async with engine_on(tmp_path, gateway) as engine:
        with anyio.fail_after(30):
            answer = await engine.run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "2")

    assert answer["error"]["code"] == "kernel_died"


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway as it is by default: it leaves out what comes too fast."""
    with gateways.running(tmp_path_factory.mktemp("limited")) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("code", "limit"),
    [
        ("for i in range(10): print('x' * 1_000_000, flush=True)", "iopub_data_rate_limit"),
        ("for i in range(4000): print(i, flush=True)", "iopub_msg_rate_limit"),
    ],
)
async def test_rate(tmp_path: Path, limited: Gateway, code: str, limit: str) -> None:
    """Output that the gateway leaves out is told to be missing, and its own words are not the notebook's."""
    async with engine_on(tmp_path, limited) as engine:
        answer = await engine.run(code, "print('IOPub data rate exceeded')\n5")

    assert (answer["status"], answer["result"], answer["truncated"]) == ("succeeded", 5, True)
    assert answer["warnings"] == [f"The gateway left out output that came faster than its {limit} allows."]
    assert "ServerApp" not in text(answer)
    assert "IOPub data rate exceeded\n" in text(answer)


async def test_environment(tmp_path: Path, gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """An environment reaches the kernel, and nobody's log; if the gateway keeps it back the run fails."""
    caplog.set_level(logging.DEBUG)
    code = "import os\n[os.environ['KERNEL_X'], os.environ['PASSWORD']]"
    env = {"KERNEL_X": "sword", "PASSWORD": "fish-é"}
    async with engine_on(tmp_path, gateway, allowed_envs=f"{ENVIRONMENT},BLOCKED") as engine:
        good = await engine.run(code, env=env)
        bad = await engine.run("1", env={"BLOCKED": "swordfish"})

    assert good["result"] == ["sword", "fish-é"]
    assert bad["error"]["code"] == "kernel_start_failed"
    assert "environment" in bad["error"]["message"]
    assert "fish" not in caplog.text
    assert "sword" not in caplog.text.replace("password", "")


class Recorder:
    """A manager that is only asked to start."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    async def start_kernel(self, **kwargs: Any) -> str:
        """Write down what is asked for."""
        self.asked = kwargs
        return "id"


async def test_what_travels(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the server's own environment no secret travels, whatever is allowed to; arguments show no values."""
    monkeypatch.setenv("KERNEL_API_TOKEN", "s3cret")
    manager = Recorder()
    request = kernels.KernelRequest(name="spark", path="a", env={"KERNEL_X": "s3cret"})
    await gateways_client.start(manager, "own-id", request, ["*TOKEN*"])

    assert (manager.asked["kernel_name"], manager.asked["path"]) == ("spark", "a")
    assert manager.asked["env"]["KERNEL_API_TOKEN"] == ""
    assert manager.asked["env"]["KERNEL_ID"] == "own-id"
    assert "kernel_id" not in manager.asked
    assert "s3cret" not in str(manager.asked)
    assert os.environ["KERNEL_API_TOKEN"] == "s3cret"


async def test_folder_that_is_elsewhere(
    tmp_path: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the notebook's folder is not on the kernel's machine, the run says so."""
    async with engine_on(tmp_path, gateway) as engine:

        async def elsewhere(_request: Any) -> str:
            return "/no/such/folder"

        monkeypatch.setattr(engine.manager._performer._fresh._starter, "folder", elsewhere)  # type: ignore[attr-defined]
        answer = await engine.run("1")

    assert answer["result"] == 1
    assert "not in the notebook's folder" in answer["warnings"][0]


async def test_many_prints(tmp_path: Path, gateway: Gateway) -> None:
    """Every line of many arrives, in order, as one output."""
    async with engine_on(tmp_path, gateway) as engine:
        answer = await engine.run("for i in range(3000): print(i, flush=True)")

    assert answer["truncated"] is False
    assert text(answer) == "".join(f"{i}\n" for i in range(3000))
    assert len(answer["outputs"]) == 1


def sent(kind: str, parent: str | None, session: str = "kernel", **content: Any) -> Whole:
    """A message as it may come."""
    header = {"msg_id": f"{session}_1_1", "msg_type": kind, "session": session}
    return Whole({"header": header, "parent_header": {"msg_id": parent}, "content": content})


@pytest.fixture
async def client() -> AsyncIterator[remote.RemoteClient]:
    """A client that is connected to nothing."""
    info = {"request": None, "retries": (0, 0.0, 0.0), "state": lambda: (0.0, "")}
    client = remote.connect(info, Link(1000))
    client.wire._task.cancel()
    yield client
    client.wire.close()


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (sent("status", None, execution_state="restarting"), "the kernel died"),
        (sent("status", None, execution_state="autorestarting"), "the kernel died"),
        (sent("status", None, execution_state="dead"), "the kernel died"),
        (sent("status", None, "another", execution_state="starting"), "the kernel was restarted"),
        (sent("shutdown_reply", "x", restart=True), "the kernel was restarted"),
        (sent("shutdown_reply", "x", restart=False), "the kernel was shut down"),
    ],
)
async def test_words_of_an_end(client: remote.RemoteClient, message: Whole, says: str) -> None:
    """What says that the kernel has ended ends the run; an earlier output is read before."""
    client.take("shell", sent("kernel_info_reply", "first"))
    await client.shell_channel.get_msg()
    client.link.begin("r")
    client.take("iopub", sent("stream", "r", name="stdout", text="last words"))
    client.take("iopub", message)

    assert (await client.iopub_channel.get_msg())["texts"] == ["last words"]
    with pytest.raises(Exception, match=says):
        await client.shell_channel.get_msg()


async def test_another_kernel_answers(client: remote.RemoteClient) -> None:
    """A kernel that is not the one that answered first has been started in its place."""
    client.take("shell", sent("kernel_info_reply", "first"))
    client.take("shell", sent("kernel_info_reply", "second", "another"))

    assert str(client.link.failure) == "the kernel was restarted"


async def test_lost_reply(client: remote.RemoteClient) -> None:
    """A reply that was lost with a connection is noticed: what was asked later has been answered."""
    request = client.execute("1")
    client.was_cut()
    assert client._probe is not None
    client.take("shell", sent("kernel_info_reply", client._probe))

    assert request == client.link.request
    assert "reply is lost" in str(client.link.failure)


async def test_memory_is_bounded(client: remote.RemoteClient) -> None:
    """Outputs that nobody reads are kept up to a limit only."""
    client.link.begin("r")
    large = sent("display_data", "r", data={})
    large.size = 1000
    for _ in range(20_000):
        client.take("iopub", large)

    assert client.link.has_lost_output
    assert len(client.iopub_channel.inbox._ready) * 1000 <= remote.WAITING + 1000
