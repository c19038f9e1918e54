"""What a gateway's refusals mean."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest, HTTPResponse
from tornado.web import HTTPError

from jupyter_nbexec import kernels
from jupyter_nbexec.kernels import gateway

pytestmark = pytest.mark.anyio


class Refusing:
    """A manager whose gateway refuses."""

    def __init__(self, status: int, body: bytes | None) -> None:
        self._status, self._body = status, body

    async def start_kernel(self, **_: Any) -> str:
        """Refuse, as jupyter_server says it."""
        response = None
        if self._body is not None:
            response = HTTPResponse(
                HTTPRequest("http://gateway"), self._status, buffer=io.BytesIO(self._body)
            )
        raise HTTPError(self._status, "Error from Gateway") from HTTPClientError(self._status, None, response)


def body(message: Any = "", reason: Any = "Forbidden") -> bytes:
    """What both gateways answer."""
    return json.dumps({"reason": reason, "message": message}).encode()


@pytest.mark.parametrize(
    ("status", "answer", "says"),
    [
        (403, body("Resource Limit"), " (403): Resource Limit"),
        (403, body(reason="User 'eve' is not authorized"), " (403): User 'eve' is not authorized"),
        (403, body(reason="\x07on\n two  lines, sw\u00f6rd"), " (403): on two lines, …"),
        (403, body(10_000 * "x"), " (403): " + 300 * "x"),
        (403, body({"a": 1}), " (403): {'a': 1}"),
        (403, body("", ""), " (403)"),
        (403, b"<html>", " (403)"),
        (403, b"[1]", " (403)"),
        (403, None, " (403)"),
        (400, body("KERNEL_ID is no UUID"), " (400): KERNEL_ID is no UUID"),
        (401, body("token was wrong-one"), "the gateway refuses this server's credentials (401)"),
        (418, body("at /srv/secret"), "the gateway cannot start the kernel (418)"),
    ],
)
async def test_refusal(status: int, answer: bytes | None, says: str) -> None:
    """Why it refuses is told in the gateway's own words: on one line, bounded, without secrets."""
    request = kernels.KernelRequest(name="python3", env={"KERNEL_X": "sw\u00f6rd"})
    with pytest.raises(kernels.KernelStartError) as refused:
        await gateway.start(Refusing(status, answer), "id", request, [])

    assert str(refused.value).endswith(says)
