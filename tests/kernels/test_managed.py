"""Kernels are the server's own, are left behind by nobody, and know nothing they should not."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from jupyter_nbexec import errors, kernels
from jupyter_nbexec.kernels import managed, pool, provisioner

pytestmark = pytest.mark.anyio


@pytest.fixture
def cold(kernel_manager: Any) -> pool.FreshSource:
    """A source of fresh kernels."""
    return pool.FreshSource(managed.Starter(kernel_manager, scrubbed_env=["JUPYTER*TOKEN*"], niceness=0))


def processes_below(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


async def test_lease(cold: pool.FreshSource, kernel_manager: Any) -> None:
    """A leased kernel is listed as busy while it is used, and gone afterwards with its processes."""
    async with cold.lease(kernels.KernelRequest(name="python3")) as kernel:
        model = kernel_manager.kernel_model(kernel.id)
        connection_file = kernel_manager.get_kernel(kernel.id).connection_file
        running = processes_below(kernel_manager.get_kernel(kernel.id).provisioner.pid)

        assert (kernel.name, kernel.source, kernel.is_owned) == ("python3", "cold", True)
        assert (model["name"], model["execution_state"]) == ("python3", "busy")
        assert await kernel.death() is None

    assert kernel_manager.list_kernel_ids() == []
    assert not any(process.is_running() for process in running)
    assert not await anyio.Path(connection_file).exists()


@pytest.mark.skipif(not provisioner.is_supported(), reason="elsewhere kernels have ports")
@pytest.mark.parametrize("folder", ["r", 3 * "runtime folder with a long name/"], ids=["short", "long"])
async def test_sockets_of_files(
    kernel_manager: Any, tmp_path_factory: pytest.TempPathFactory, folder: str
) -> None:
    """IPython's kernels have no port, however long the name of the server's runtime folder is."""
    runtime = anyio.Path(tmp_path_factory.mktemp("t")) / folder
    await runtime.mkdir(parents=True)
    kernel_manager.connection_dir = str(runtime)
    cold = pool.FreshSource(managed.Starter(kernel_manager, scrubbed_env=[], niceness=0))
    async with cold.lease(kernels.KernelRequest(name="python3")) as kernel:
        info = kernel.connection_info()
        client = kernel_manager.get_kernel(kernel.id).client()
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        client.stop_channels()
        assert info["transport"] == "ipc"
        sockets = [anyio.Path(f"{info['ip']}-{info[f'{name}_port']}") for name in ("shell", "iopub", "hb")]
        assert [await socket.is_socket() for socket in sockets] == [True] * 3
        assert (sockets[0].parent == runtime) == (folder == "r")

    await cold.stop()
    assert [await socket.exists() for socket in sockets] == [False] * 3
    assert not await sockets[0].parent.exists() or folder == "r"


async def test_listing_while_it_starts(cold: pool.FreshSource, kernel_manager: Any) -> None:
    """The server can list its kernels at every moment of a start."""
    is_over = False

    async def list_always() -> set[str]:
        states = set()
        while not is_over:
            states |= {model["execution_state"] for model in kernel_manager.list_kernels()}
            await asyncio.sleep(0)
        return states

    listing = asyncio.create_task(list_always())
    async with cold.lease(kernels.KernelRequest(name="python3")):
        is_over = True

    assert "starting" in await listing


async def test_lease_ends_after_an_exception(cold: pool.FreshSource, kernel_manager: Any) -> None:
    """A fault of ours leaves no kernel."""
    with pytest.raises(ZeroDivisionError):
        async with cold.lease(kernels.KernelRequest(name="python3")):
            raise ZeroDivisionError

    assert kernel_manager.list_kernel_ids() == []


@pytest.mark.skipif(not provisioner.is_supported(), reason="elsewhere the kernel is no child of the shim")
async def test_kernels_that_are_slow_to_end(
    cold: pool.FreshSource, kernel_manager: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that does not end when asked is killed; those after it are not waited for."""
    monkeypatch.setattr(managed, "FAREWELL", 0.5)
    monkeypatch.setattr(managed, "SLOW", 0.2)
    for is_known in (False, True):
        async with cold.lease(kernels.KernelRequest(name="python3")) as kernel:
            below: list[psutil.Process] = []
            with anyio.fail_after(60):
                while len(below) < 2:
                    await anyio.sleep(0.01)
                    below = processes_below(kernel_manager.get_kernel(kernel.id).provisioner.pid)
            below[1].suspend()
            if is_known:
                monkeypatch.setattr(managed, "FAREWELL", 1000.0)

        assert kernel_manager.list_kernel_ids() == []
        assert [process.is_running() for process in below] == [is_known, is_known]
    # It has been asked all the same.
    below[1].resume()
    with anyio.fail_after(60):
        await cold.stop()
    assert not any(process.is_running() for process in below)


async def test_cancelled_start_leaves_no_kernel(cold: pool.FreshSource, kernel_manager: Any) -> None:
    """A lease that is cancelled in the middle of the start ends what has been started."""

    async def hold() -> None:
        async with cold.lease(kernels.KernelRequest(name="python3")):
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    await cold.stop()

    assert kernel_manager.list_kernel_ids() == []


class Gate:
    """Lets a kernel manager start kernels only when it is opened."""

    def __init__(self, kernel_manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_open = asyncio.Event()
        self.asked = 0
        original = kernel_manager.start_kernel

        async def start_kernel(**kwargs: Any) -> str:
            self.asked += 1
            await self.is_open.wait()
            kernel_id: str = await original(**kwargs)
            return kernel_id

        monkeypatch.setattr(kernel_manager, "start_kernel", start_kernel)

    async def until_asked(self, number: int) -> None:
        """Wait until so many starts have begun."""
        with anyio.fail_after(20):
            while self.asked < number:
                await asyncio.sleep(0)


async def test_slow_start(kernel_manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is cancelled while a kernel starts is let go at once; the kernel is ended when it has come up."""
    gate, starter = (
        Gate(kernel_manager, monkeypatch),
        managed.Starter(kernel_manager, scrubbed_env=[], niceness=0),
    )
    start = asyncio.create_task(starter.start(kernels.KernelRequest(name="python3")))
    await gate.until_asked(1)
    start.cancel()
    with anyio.fail_after(20):
        await asyncio.wait({start})
    stop = asyncio.create_task(starter.stop())
    gate.is_open.set()
    await stop

    assert start.cancelled()
    assert kernel_manager.list_kernel_ids() == []


async def test_start_timeout(
    kernel_manager: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A start that takes too long is told, and not waited for; a stopping server names what is left."""
    monkeypatch.setattr(managed, "LAST_STARTS", 0.01)
    gate = Gate(kernel_manager, monkeypatch)
    starter = managed.Starter(kernel_manager, scrubbed_env=[], niceness=0, start_timeout=0.01)
    with pytest.raises(kernels.KernelStartError, match=r"was not started within 0\.01 s"):
        await starter.start(kernels.KernelRequest(name="python3"))
    await starter.stop()
    gate.is_open.set()
    with anyio.fail_after(60):
        await asyncio.gather(*starter._unwanted.values())

    assert caplog.text.count("was still being started") == 1
    assert kernel_manager.list_kernel_ids() == []


async def test_unwanted_starts_are_few(kernel_manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where many kernels start that nobody wants any more, no other one does before one has ended."""
    monkeypatch.setattr(managed, "MAX_UNWANTED", 2)
    gate, starter = (
        Gate(kernel_manager, monkeypatch),
        managed.Starter(kernel_manager, scrubbed_env=[], niceness=0),
    )
    request = kernels.KernelRequest(name="python3")
    starts = [asyncio.create_task(starter.start(request)) for _ in range(2)]
    await gate.until_asked(2)
    for start in starts:
        start.cancel()
    await asyncio.wait(starts)
    later = asyncio.create_task(starter.start(request))
    for _ in range(10):
        await asyncio.sleep(0)
    asked = gate.asked
    gate.is_open.set()
    with anyio.fail_after(60):
        kernel = await later
    await kernel.kill()
    await starter.end(kernel)
    await starter.stop()

    assert (asked, gate.asked) == (2, 3)
    assert kernel_manager.list_kernel_ids() == []


async def test_missing_program(kernel_manager: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernelspec whose program is not there gives a kernel that is dead, and says how."""
    folder = tmp_path / "kernels" / "broken"
    folder.mkdir(parents=True)
    spec = {"argv": ["/no/such/program", "{connection_file}"], "display_name": "x", "language": "x"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setattr(kernel_manager.kernel_spec_manager, "kernel_dirs", [str(tmp_path / "kernels")])
    cold = pool.FreshSource(managed.Starter(kernel_manager, scrubbed_env=[], niceness=0))

    async with cold.lease(kernels.KernelRequest(name="broken")) as kernel:
        process = kernel_manager.get_kernel(kernel.id).provisioner.process
        await asyncio.to_thread(process.wait, 10)
        death = await kernel.death()

    assert death == "the kernel exited with code 127"


async def test_unknown_kernelspec(cold: pool.FreshSource, kernel_manager: Any) -> None:
    """A kernelspec that went away since the request was checked is no fault of ours."""
    with pytest.raises(kernels.KernelStartError, match="no kernel 'gone'"):
        async with cold.lease(kernels.KernelRequest(name="gone")):
            pass

    assert kernel_manager.list_kernel_ids() == []


async def test_only_our_kernels_run_below_the_shim(cold: pool.FreshSource, kernel_manager: Any) -> None:
    """Kernels that others start through the same manager are as they were."""
    other = await kernel_manager.start_kernel(kernel_name="python3")
    async with cold.lease(kernels.KernelRequest(name="python3")) as kernel:
        ours = kernel_manager.get_kernel(kernel.id)

        assert type(kernel_manager.get_kernel(other).provisioner) is LocalProvisioner
        if provisioner.is_supported():
            assert type(ours.provisioner) is provisioner.ReapingProvisioner
        assert not ours.autorestart


async def test_restart_is_the_end(cold: pool.FreshSource, kernel_manager: Any) -> None:
    """A kernel that somebody restarts is not the one the run was given."""
    async with cold.lease(kernels.KernelRequest(name="python3")) as kernel:
        await kernel_manager.restart_kernel(kernel.id, now=True)

        assert await kernel.death() == "the kernel was restarted"


async def test_existing_kernel_is_lent_once(kernel_manager: Any) -> None:
    """A live kernel is lent to one run at a time, and stays alive."""
    source = managed.ExistingSource(kernel_manager)
    kernel_id = await kernel_manager.start_kernel(kernel_name="python3")
    request = kernels.KernelRequest(name="python3", id=kernel_id)

    async with source.lease(request) as kernel:
        assert (kernel.source, kernel.is_owned) == ("existing", False)
        with pytest.raises(errors.KernelBusy):
            source.check(kernel_id)
        with pytest.raises(kernels.KernelStartError):
            async with source.lease(request):
                pass
        with pytest.raises(RuntimeError):
            await kernel.kill()

    assert source.check(kernel_id) == "python3"
    assert kernel_id in kernel_manager


async def test_unknown_kernel(kernel_manager: Any) -> None:
    """A kernel id that the server does not know is refused."""
    with pytest.raises(errors.KernelNotFound):
        managed.ExistingSource(kernel_manager).check("no-such-id")


def test_environment() -> None:
    """The kernel gets the server's environment without its secrets, and the request's own."""
    server = {"PATH": "/bin", "JUPYTER_TOKEN": "s", "JUPYTERHUB_API_TOKEN": "s", "LANG": "C"}
    request = kernels.KernelRequest(name="x", session_name="a/b.ipynb", env={"LANG": "de", "KEY": "v"})

    environment = managed.kernel_environment(server, ["JUPYTER*TOKEN*"], request)

    assert environment == {"PATH": "/bin", "LANG": "de", "KEY": "v", "JPY_SESSION_NAME": "a/b.ipynb"}
    assert os.environ is not server
