"""Kernels that a gateway runs for the server (`jupyter server --gateway-url=…`), by REST.

What the server's own manager does for such kernels is used where it can be. What it does not do: it waits for
the gateway as long as that takes, and a run cannot; it writes all arguments of a start to its log; and it
leaves a kernel behind whose start took too long.
"""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import json
import logging
import os
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from jupyter_server.gateway.gateway_client import GatewayClient, gateway_request
from jupyter_server.gateway.managers import GatewayMappingKernelManager
from jupyter_server.utils import url_path_join
from tornado.escape import url_escape
from tornado.httpclient import HTTPRequest
from tornado.web import HTTPError

from jupyter_nbexec.kernels import KernelRequest, KernelStartError, lastwords, remote

#: Seconds between two looks whether the gateway still has a kernel.
POLL = 1.0
#: Seconds that an interrupt may take before it is waited for no longer; and the end of a kernel.
PATIENCE, FAREWELL = 2.0, 8.0
#: Seconds before each attempt to end a kernel.
DELAYS = (0.0, 0.1, 0.3, 0.6, 1.0, 2.0)
#: Statuses with which a gateway refuses, and says why; what it says of its own faults is for nobody.
EXPLAINED = frozenset({400, 403, 404})
#: Characters of that explanation that are told.
MAX_EXPLANATION = 300
#: Prefix of the names of environment variables that travel; others travel only if they are allowed to.
PREFIX = "KERNEL_"
#: What a status of the gateway's means for a kernel that was to be started.
REFUSALS = {
    400: "the gateway does not understand the request (400)",
    401: "the gateway refuses this server's credentials (401)",
    403: "the gateway does not allow this kernel to be started (403)",
    404: "the gateway does not start kernels, or not this one (404)",
    503: "the gateway cannot be reached, or cannot serve (503)",
    504: "the gateway gave up on the kernel (504)",
    599: "the gateway cannot be reached, or took too long (599)",
}


def is_gateway(kernel_manager: Any) -> bool:
    """Whether this manager's kernels are run by a gateway."""
    return isinstance(kernel_manager, GatewayMappingKernelManager)


def kernel_name(manager: Any) -> str:
    """The name of a kernel's kernelspec; a manager of a gateway's kernel has it in what that has told it."""
    model = getattr(manager, "kernel", None)
    name: str = model["name"] if isinstance(model, dict) else manager.kernel_name
    return name


def stays_behind(kernel_manager: Any, names: Iterable[str]) -> list[str]:
    """Which environment variables would never get to the gateway."""
    if not is_gateway(kernel_manager):
        return []
    return [name for name in names if not _travels(name)]


def _travels(name: str) -> bool:
    return name.startswith(PREFIX) or name in GatewayClient.instance().allowed_envs.split(",")


class _Secret(dict[str, str]):
    """An environment that nobody can write to a log by accident."""

    def __repr__(self) -> str:
        return "{…}"


async def start(kernel_manager: Any, kernel_id: str, request: KernelRequest, scrubbed: Iterable[str]) -> str:
    """Have the gateway start a kernel; its id, which need not be `kernel_id`. Raises KernelStartError."""
    patterns = list(scrubbed)
    # The manager adds this process's own environment, and there is no way to take something out of it.
    hidden = {
        name: "" for name in os.environ if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    # Where the gateway honours it, the kernel can be found even if the answer to its start is lost.
    own = {"KERNEL_ID": kernel_id, "JPY_SESSION_NAME": request.session_name}
    try:
        started: str = await kernel_manager.start_kernel(
            kernel_name=request.name, path=request.path, env=_Secret({**hidden, **own, **request.env})
        )
    except HTTPError as error:
        if error.status_code >= 500:
            await _forget(kernel_id)
        raise KernelStartError(_refusal(error, request.env.values())) from error
    return started


def _refusal(error: HTTPError, secrets: Collection[str]) -> str:
    """Say what the gateway's refusal means, and what it says itself, without these secrets."""
    status = error.status_code
    meaning = REFUSALS.get(status, f"the gateway cannot start the kernel ({status})")
    response = getattr(error.__cause__, "response", None)
    if status not in EXPLAINED or response is None:
        return meaning
    try:
        fields = json.loads(response.body)
        # The first of them may be no more than the name of the status, the second empty.
        said = str(fields.get("message") or fields.get("reason") or "")
    except (AttributeError, TypeError, ValueError):
        return meaning
    printable = "".join(sign if sign.isprintable() else " " for sign in lastwords.masked(said, secrets))
    words = " ".join(printable.split())[:MAX_EXPLANATION]
    return f"{meaning}: {words}" if words else meaning


async def _forget(kernel_id: str) -> None:
    """End a kernel that may or may not have been started."""
    client = GatewayClient.instance()
    url = url_path_join(client.url or "", client.kernels_endpoint, url_escape(kernel_id))
    await asyncio.wait({asyncio.create_task(_ask(url, "DELETE"))}, timeout=PATIENCE)


async def _ask(url: str, method: str) -> tuple[int, Any]:
    """Ask the gateway: the status, 0 if nobody answered, and the JSON that came with it."""
    try:
        response = await gateway_request(url, method=method)
        return response.code, json.loads(response.body or b"null")
    except HTTPError as error:
        return error.status_code, None
    except Exception:  # it goes through any library
        return 0, None


class RemoteKernel:
    """What a run does with one kernel of a gateway."""

    def __init__(
        self,
        kernel_manager: Any,
        kernel_id: str,
        *,
        request: KernelRequest | None = None,
        folder: str = "",
    ) -> None:
        """`request`: what it was started for, if it was; `folder`: the path of its folder on this machine."""
        self._kernels = kernel_manager
        self._manager = kernel_manager.get_kernel(kernel_id)
        self._id = kernel_id
        self._request = request
        self._folder = folder
        self._log = kernel_manager.log
        self._asking: asyncio.Task[None] | None = None
        self._asked = time.monotonic()
        self._death: str | None = None
        self._state = (0.0, "")
        self._ending: asyncio.Task[None] | None = None

    def connection_info(self) -> dict[str, Any]:
        """What `remote.connect` needs, and what the kernel should find when it begins."""
        client = GatewayClient.instance()
        info: dict[str, Any] = {
            "transport": remote.TRANSPORT,
            "request": self._websocket,
            "state": lambda: self._state,
            "retries": (
                client.gateway_retry_max,
                client.gateway_retry_interval,
                client.gateway_retry_interval_max,
            ),
        }
        if self._request is not None:
            info["place"] = (self._folder, self._request.session_name)
            info["env"] = digests(self._request.env)
        return info

    def _websocket(self, session: str) -> HTTPRequest:
        """Make the request for a websocket, with the token as it is now."""
        client = GatewayClient.instance()
        path = url_path_join(client.ws_url or "", client.kernels_endpoint, url_escape(self._id), "channels")
        # What `AsyncHTTPClient` would fill in, for a connection that is made without it.
        defaults = {"connect_timeout": PATIENCE, "request_timeout": 60.0, "validate_cert": True}
        return HTTPRequest(
            f"{path}?session_id={url_escape(session)}",
            follow_redirects=False,
            max_redirects=0,
            decompress_response=False,
            proxy_password="",
            allow_nonstandard_methods=False,
            **{**defaults, **client.load_connection_args()},
        )

    async def death(self) -> str | None:
        """None while it lives, as far as the gateway has said; a gateway that is slow is not waited for."""
        is_idle = self._asking is None or self._asking.done()
        if is_idle and time.monotonic() - self._asked >= POLL:
            self._asked = time.monotonic()
            self._asking = asyncio.create_task(self._look())
        return self._death

    async def _look(self) -> None:
        asked = time.monotonic()
        status, model = await _ask(self._manager.kernel_url, "GET")
        if status == 404:
            self._death = "the gateway no longer has the kernel"
        elif isinstance(model, dict):
            self._state = asked, str(model.get("execution_state"))
            if self._state[1] == "dead":
                self._death = "the kernel died"

    async def refresh(self) -> None:
        """Learn whether it is busy, which the server's manager is told only when somebody asks."""
        await asyncio.wait({asyncio.create_task(_refresh(self._manager))}, timeout=PATIENCE)

    async def interrupt(self) -> None:
        """Interrupt what it executes."""
        asking = asyncio.create_task(_ask_to_interrupt(self._manager, self._log))
        await asyncio.wait({asking}, timeout=PATIENCE)

    async def kill(self) -> None:
        """End it. A gateway gives a kernel some seconds before it kills it; that is not waited for."""
        await asyncio.wait({self._end()}, timeout=0.1)

    async def end(self) -> None:
        """End it, and wait until the gateway says it has."""
        if self._asking is not None:
            self._asking.cancel()
        # It is no kernel of the server's any more, however long the gateway takes.
        self._kernels.remove_kernel(self._id)
        await asyncio.wait({self._end()}, timeout=FAREWELL)

    def _end(self) -> asyncio.Task[None]:
        if self._ending is None:
            self._ending = asyncio.create_task(self._shut_down())
        return self._ending

    async def _shut_down(self) -> None:
        """End it. A gateway that is just starting it again cannot; so it is asked more than once."""
        for delay in DELAYS:
            await asyncio.sleep(delay)
            try:
                await self._manager.shutdown_kernel(now=True)
            except Exception as error:  # it goes through any library
                said = f"{type(error).__name__} {getattr(error, 'status_code', '')}"
            else:
                return
        self._log.warning("the gateway has not ended kernel %s: %s", self._id, said)


async def _refresh(manager: Any) -> None:
    try:
        await manager.refresh_model()
    except Exception:  # it stays as it was
        return


async def _ask_to_interrupt(manager: Any, log: logging.Logger | logging.LoggerAdapter[Any]) -> None:
    try:
        await manager.interrupt_kernel()
    except Exception as error:  # it goes through any library
        log.warning("the gateway has not interrupted a kernel: %s", type(error).__name__)


def digests(env: Mapping[str, str]) -> dict[str, str]:
    """What tells whether an environment has arrived, without telling what it is."""
    return {name: hashlib.sha256(value.encode()).hexdigest() for name, value in env.items()}
