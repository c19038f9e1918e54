"""Kernelspecs of a real gateway, as the server's own manager asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client.kernelspec import NoSuchKernel
from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.gateway.managers import GatewayKernelSpecManager
from traitlets.config import Configurable

from jupyter_nbexec.kernels import specs
from tests.gateways import Gateway

pytestmark = pytest.mark.anyio


class Owner(Configurable):
    """Of a server, what its manager of kernelspecs reads."""

    base_url = "/"


@pytest.fixture(autouse=True)
def _own_client() -> Iterator[None]:
    GatewayClient.clear_instance()
    yield
    GatewayClient.clear_instance()


def manager_of(gateway: Gateway, **traits: Any) -> Any:
    """The manager that a server has, configured like this."""
    GatewayClient.instance(**{"url": gateway.url, "auth_token": gateway.token, **traits})
    return GatewayKernelSpecManager(parent=Owner())


@pytest.mark.parametrize("user", [None, "reports", "a/b&c=d"])
async def test_find(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, user: str | None) -> None:
    """A gateway's kernelspec is found, whoever KERNEL_USERNAME says that the kernels are for."""
    if user is not None:
        monkeypatch.setenv("KERNEL_USERNAME", user)
    manager = manager_of(gateway)

    spec = await specs.find(manager, "python3")

    assert (spec.language, spec.is_ipykernel) == ("python", True)
    assert "python3" in await specs.names(manager)


@pytest.mark.parametrize("name", ["no such", "../python3", "python3?x", "%70ython3", "", "ü"])
async def test_not_there(gateway: Gateway, name: str) -> None:
    """A name that no kernelspec has is that of none, whatever it would mean in an address."""
    with pytest.raises(NoSuchKernel):
        await specs.find(manager_of(gateway), name)


@pytest.mark.parametrize(
    "traits",
    [
        {"auth_token": "wrong"},
        {"url": "http://127.0.0.1:9"},
        {"url": "http://no-such-host.invalid"},
        {"kernelspecs_endpoint": "/no/such/place"},
        {"kernelspecs_endpoint": "/api/kernels"},
    ],
)
async def test_nobody_tells(gateway: Gateway, traits: dict[str, Any]) -> None:
    """A gateway that does not answer, or not with kernelspecs, is no reason to take one for missing."""
    manager = manager_of(gateway, gateway_retry_max=0, **traits)

    with pytest.raises(specs.Unreachable):
        await specs.find(manager, "python3")
    assert await specs.names(manager) == []
