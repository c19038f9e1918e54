"""The two clients: they send what the flows ask for, and have no other behaviour of their own."""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import httpx

from jupyter_nbexec.client import address, answers, flows

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
    from types import TracebackType

    from typing_extensions import Self

_P = ParamSpec("_P")
_T = TypeVar("_T")


@contextlib.contextmanager
def _transport_errors(url: httpx.URL) -> Iterator[None]:
    """Turn what httpx raises while sending into our own errors."""
    try:
        yield
    except httpx.RequestError as error:
        unconnected = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError))
        what = f"No server answers at {url}" if unconnected else f"The connection to {url} was lost"
        raise answers.ServerUnreachable(f"{what}: {str(error) or type(error).__name__}") from error


def _look_like(method: Callable[..., Any], flow: Callable[..., Any]) -> None:
    """Give a method the name, the docstring and the signature of its flow, with `self` before."""
    functools.update_wrapper(method, flow)
    vars(method).pop("__wrapped__")  # whose signature has no `self`
    signature = inspect.signature(flow)
    parameters = [
        inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY),
        *signature.parameters.values(),
    ]
    vars(method)["__signature__"] = signature.replace(
        parameters=parameters, return_annotation=signature.empty
    )


# Blocking


class _Wire:
    """Carries out steps, blocking; has at most one stream open."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._stream: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def perform(self, step: flows.Step | flows.Emit[Any]) -> object:
        """Return the step's answer, or the ClientError that it met."""
        try:
            match step:
                case flows.Call():
                    return step.read(self._send(step))
                case flows.Listen():
                    self._listen(step.call)
                case flows.Receive():
                    return self._receive()
                case flows.Pause():
                    time.sleep(step.seconds)
                case flows.Now():
                    return time.monotonic()
        except answers.ClientError as error:
            return error
        return None

    def close(self) -> None:
        """Close the stream, if one is open."""
        if self._stream is not None:
            self._stream.close()

    def _send(self, call: flows.Call[Any], *, stream: bool = False) -> httpx.Response:
        request = call.request(self._http)
        with _transport_errors(request.url):
            return self._http.send(request, stream=stream)

    def _listen(self, call: flows.Call[None]) -> None:
        self.close()
        self._stream = self._send(call, stream=True)
        if not self._stream.is_success:
            with _transport_errors(self._stream.url):
                self._stream.read()
        call.read(self._stream)
        self._chunks = self._stream.iter_bytes()

    def _receive(self) -> bytes | None:
        with _transport_errors(self._http.base_url):
            return next(self._chunks, None)


def _blocking(flow: Callable[_P, flows.Flow[_T]]) -> Callable[Concatenate[Client, _P], _T]:
    def method(self: Client, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with (
            contextlib.closing(_Wire(self._http)) as wire,
            contextlib.closing(flow(*args, **kwargs)) as steps,
        ):
            step = flows.advance(steps, None)
            while not isinstance(step, flows.Done):
                step = flows.advance(steps, wire.perform(step))
            value: _T = step.value
            return value

    _look_like(method, flow)
    return method


def _iterating(
    flow: Callable[_P, flows.Stream[_T]],
) -> Callable[Concatenate[Client, _P], Generator[_T, None, None]]:
    def method(self: Client, /, *args: _P.args, **kwargs: _P.kwargs) -> Generator[_T, None, None]:
        with (
            contextlib.closing(_Wire(self._http)) as wire,
            contextlib.closing(flow(*args, **kwargs)) as steps,
        ):
            step = flows.advance(steps, None)
            while not isinstance(step, flows.Done):
                if isinstance(step, flows.Emit):
                    yield step.item
                step = flows.advance(steps, wire.perform(step))

    _look_like(method, flow)
    return method


class Client:
    """Runs notebooks on a Jupyter server, and waits for them or not.

    `token` may also be part of the URL, as Jupyter prints it. Proxies and certificates are taken
    from the environment, except that a server on the loopback interface is reached directly.
    Timeouts are in seconds; None: no limit. Closing a connection, also by Ctrl-C, cancels the run
    that `run` waits for, unless that has an idempotency key.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        connect_timeout: float | None = 10.0,
        read_timeout: float | None = None,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        place = address.Address.parse(url, token)
        if place.socket and transport is None:
            transport = httpx.HTTPTransport(uds=place.socket)
        settings = address.settings(
            place, connect_timeout=connect_timeout, read_timeout=read_timeout, verify=verify
        )
        self._http = httpx.Client(**settings, transport=transport)

    run = _blocking(flows.run)
    describe = _blocking(flows.describe)
    submit = _blocking(flows.submit)
    runs = _blocking(flows.runs)
    all_runs = _iterating(flows.all_runs)
    get = _blocking(flows.get)
    wait = _blocking(flows.wait)
    events = _iterating(flows.events)
    notebook = _blocking(flows.notebook)
    cancel = _blocking(flows.cancel)
    delete = _blocking(flows.delete)
    prune = _blocking(flows.prune)

    def close(self) -> None:
        """Close all connections; this cancels runs that `run` waits for."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {str(self._http.base_url.copy_with(userinfo=b''))!r}>"


# Async


class _AsyncWire:
    """As `_Wire`, for asyncio."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._stream: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def perform(self, step: flows.Step | flows.Emit[Any]) -> object:
        """Return the step's answer, or the ClientError that it met."""
        try:
            match step:
                case flows.Call():
                    return step.read(await self._send(step))
                case flows.Listen():
                    await self._listen(step.call)
                case flows.Receive():
                    return await self._receive()
                case flows.Pause():
                    import asyncio  # half of what httpx takes, and nothing to a blocking client

                    await asyncio.sleep(step.seconds)
                case flows.Now():
                    return time.monotonic()
        except answers.ClientError as error:
            return error
        return None

    async def aclose(self) -> None:
        """Close the stream, if one is open."""
        if self._stream is not None:
            await self._stream.aclose()

    async def _send(self, call: flows.Call[Any], *, stream: bool = False) -> httpx.Response:
        request = call.request(self._http)
        with _transport_errors(request.url):
            return await self._http.send(request, stream=stream)

    async def _listen(self, call: flows.Call[None]) -> None:
        await self.aclose()
        self._stream = await self._send(call, stream=True)
        if not self._stream.is_success:
            with _transport_errors(self._stream.url):
                await self._stream.aread()
        call.read(self._stream)
        self._chunks = self._stream.aiter_bytes()

    async def _receive(self) -> bytes | None:
        assert self._chunks is not None  # noqa: S101 - a flow listens first
        with _transport_errors(self._http.base_url):
            return await anext(self._chunks, None)


def _awaiting(
    flow: Callable[_P, flows.Flow[_T]],
) -> Callable[Concatenate[AsyncClient, _P], Coroutine[Any, Any, _T]]:
    async def method(self: AsyncClient, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        async with contextlib.aclosing(_AsyncWire(self._http)) as wire:
            with contextlib.closing(flow(*args, **kwargs)) as steps:
                step = flows.advance(steps, None)
                while not isinstance(step, flows.Done):
                    step = flows.advance(steps, await wire.perform(step))
                value: _T = step.value
                return value

    _look_like(method, flow)
    return method


def _iterating_async(
    flow: Callable[_P, flows.Stream[_T]],
) -> Callable[Concatenate[AsyncClient, _P], AsyncGenerator[_T, None]]:
    async def method(self: AsyncClient, /, *args: _P.args, **kwargs: _P.kwargs) -> AsyncGenerator[_T, None]:
        async with contextlib.aclosing(_AsyncWire(self._http)) as wire:
            with contextlib.closing(flow(*args, **kwargs)) as steps:
                step = flows.advance(steps, None)
                while not isinstance(step, flows.Done):
                    if isinstance(step, flows.Emit):
                        yield step.item
                    step = flows.advance(steps, await wire.perform(step))

    _look_like(method, flow)
    return method


class AsyncClient:
    """Runs notebooks on a Jupyter server without blocking; else as `Client`.

    Cancelling the task that waits in `run` closes its connection, as Ctrl-C does there. Who leaves
    an iteration early closes its connection by `contextlib.aclosing`.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        connect_timeout: float | None = 10.0,
        read_timeout: float | None = None,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        place = address.Address.parse(url, token)
        if place.socket and transport is None:
            transport = httpx.AsyncHTTPTransport(uds=place.socket)
        settings = address.settings(
            place, connect_timeout=connect_timeout, read_timeout=read_timeout, verify=verify
        )
        self._http = httpx.AsyncClient(**settings, transport=transport)

    run = _awaiting(flows.run)
    describe = _awaiting(flows.describe)
    submit = _awaiting(flows.submit)
    runs = _awaiting(flows.runs)
    all_runs = _iterating_async(flows.all_runs)
    get = _awaiting(flows.get)
    wait = _awaiting(flows.wait)
    events = _iterating_async(flows.events)
    notebook = _awaiting(flows.notebook)
    cancel = _awaiting(flows.cancel)
    delete = _awaiting(flows.delete)
    prune = _awaiting(flows.prune)

    async def aclose(self) -> None:
        """Close all connections; this cancels runs that `run` waits for."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<AsyncClient {str(self._http.base_url.copy_with(userinfo=b''))!r}>"
