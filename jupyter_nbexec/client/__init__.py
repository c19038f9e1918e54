"""The Python client: what each method does is written once, for a blocking and an async driver.

    with Client("http://localhost:8888", token="…") as client:
        print(client.run("reports/sales.ipynb", {"region": "EU"}).result)

    ClientError
    ├── ServerUnreachable   nothing answers there, or the connection was lost
    ├── RequestRefused      the server refused the request
    ├── UnexpectedAnswer    what answers there does not speak this API
    └── RunFailed           raised by `raise_for_status` alone

A run that failed is a result. What cannot be a request at all (a URL without a host, a NaN among the
parameters) is a ValueError or TypeError before anything is sent.
"""

from __future__ import annotations

from jupyter_nbexec.client.answers import (
    ClientError,
    Content,
    RequestRefused,
    RunEvent,
    RunFailed,
    RunOptions,
    RunPage,
    RunResult,
    ServerUnreachable,
    UnexpectedAnswer,
    Webhook,
)
from jupyter_nbexec.client.drivers import AsyncClient, Client

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "Content",
    "RequestRefused",
    "RunEvent",
    "RunFailed",
    "RunOptions",
    "RunPage",
    "RunResult",
    "ServerUnreachable",
    "UnexpectedAnswer",
    "Webhook",
]
