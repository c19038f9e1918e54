"""The same requests to the same notebooks, here and at a real Kernel Gateway in its notebook-http mode.

The notebooks do what Kernel Gateway's three examples do: a list of contacts, the order of endpoints, status
and headers of a response; and a fourth does what else it documents. `docs/endpoints.md` lists each difference
that is meant, and `DIFFERENT` here shows each of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tornado.web import url

from jupyter_nbexec.handlers.endpoints import AloneHandler
from tests import gateways, served

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Server

CONTACTS = [
    "import json, re\nknown, names = {}, ['name', 'phone']",
    # What authors leave in: an example request, and a look at what it did.
    "REQUEST = json.dumps({'body': {'name': 'Ada', 'phone': '1'}})",
    (
        "# POST /contacts\n"
        "body = json.loads(REQUEST)['body']\n"
        "number = str(len(known) + 1)\n"
        "known[number] = {name: body.get(name) for name in names}\n"
        "print(json.dumps({'id': number}))"
    ),
    "known",
    (
        "# PUT /contacts/:id\n"
        "sent = json.loads(REQUEST)\n"
        "number, status = sent['path']['id'], 404\n"
        "if number in known:\n"
        "    known[number].update(sent['body']); status = 200\n"
        "    print(json.dumps(known[number]))"
    ),
    (
        "# ResponseInfo PUT /contacts/:id\n"
        "print(json.dumps({'status': status, 'headers': {'Content-Type': 'application/json'}}))"
    ),
    (
        "# DELETE /contacts/:id\n"
        "number = json.loads(REQUEST)['path']['id']\n"
        "status = 204 if known.pop(number, None) else 404"
    ),
    "# ResponseInfo DELETE /contacts/:id\nprint(json.dumps({'status': status}))",
    (
        "# GET /contacts\n"
        "wanted = json.loads(REQUEST)['args'].get('name', ['.'])[0]\n"
        "print(json.dumps({k: v for k, v in known.items() if re.search(wanted, v['name'], re.I)}))"
    ),
    "# ResponseInfo GET /contacts\nprint(json.dumps({'headers': {'Content-Type': 'application/json'}}))",
    "import os\nif 'KERNEL_GATEWAY' not in os.environ: raise RuntimeError('for authors only')",
]
ORDER = [
    *(
        f"# GET {path}\nprint('{path}')"
        for path in ("/:id", "/t/:id", "/test/:id", "/t/t/:id", "/test/test/:id")
    ),
    *(
        f"# GET {path}\nprint('{path}')"
        for path in ("/test/test/test/:id", "/test/test/test/test", "/x/:a/y", "/x/")
    ),
]
PERSON = [
    "import json, hashlib\npeople = {1: {'name': 'Ada', 'age': 36}}",
    (
        "# GET /person/:id\n"
        "request = json.loads(REQUEST)\n"
        "person = people[int(request['path']['id'])]\n"
        "kind = request['headers'].get('X-Kind', 'text/html')\n"
        "tag = hashlib.sha256(repr(person).encode()).hexdigest()\n"
        "status = 304 if request['headers'].get('If-None-Match') == tag else 200\n"
        "if status == 200:\n"
        "    print(json.dumps(person) if kind == 'application/json' else f'<p>{person[\"name\"]}</p>')"
    ),
    (
        "# ResponseInfo GET /person/:id\n"
        "print(json.dumps({'headers': {'Content-Type': kind, 'X-Tag': tag}, 'status': status}))"
    ),
]
OTHERS = [
    "import os, sys, json\nn = 0\nfrom IPython.display import display, HTML",
    *(f"# {verb} /echo/:a/:b\nprint(REQUEST)" for verb in ("GET", "PUT", "POST", "DELETE")),
    "# GET /value\n1 + 1",
    "# GET /nothing\nx = 1",
    "# GET /stderr\nprint('no', file=sys.stderr)",
    "# GET /both\nprint('a', end='')\nprint('b')\n3",
    "# GET /error\nprint('lost')\nraise ValueError('bad')",
    "# GET /joined\nfirst = 1",
    "# GET /joined\nprint(first + 1)",
    "# GET /count\nn += 1\nprint(n)",
    "# GET /state\nprint(globals().get('left'))",
    "# PUT /state\nleft = 7",
    "# GET /status/:code\ncode = int(json.loads(REQUEST)['path']['code'])",
    "# ResponseInfo GET /status/:code\nprint(json.dumps({'status': code}))",
    "# GET /bad-info\nprint(1)",
    "# ResponseInfo GET /bad-info\n1/0",
    "# get /small\nprint('seed')",
    "#GET /tight\nprint('seed')",
    "# GET /trailing/\nprint('slash')",
    "# GET /trailing\nprint('none')",
    "# GET /html\ndisplay(HTML('<b>'))",
    "# GET /exit\nprint('early'); sys.exit(0)",
    "# PATCH /patch\nprint('patched')",
    "# GET /a space\nprint('space')",
]
NOTEBOOKS = {"contacts": CONTACTS, "order": ORDER, "person": PERSON, "others": OTHERS}


@dataclass(frozen=True)
class Request:
    """A request, and what of the answers differs, as (here, there)."""

    path: str
    method: str = "GET"
    body: bytes | str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: tuple[int, int] | None = None
    text: tuple[str, str] | None = None


JSON = {"Content-Type": "application/json"}
ADA, BOB = json.dumps({"name": "Ada", "phone": "1"}), json.dumps({"name": "Bob"})
SAME = {
    "contacts": [
        Request("/contacts"),
        Request("/contacts", "POST", ADA, JSON),
        Request("/contacts", "POST", BOB, JSON),
        Request("/contacts"),
        Request("/contacts?name=^a"),
        Request("/contacts?name=^a&name=b"),
        Request("/contacts/2", "PUT", '{"phone": "2"}', JSON),
        Request("/contacts/9", "PUT", "{}", JSON),
        Request("/contacts/1", "DELETE"),
        Request("/contacts/1", "DELETE"),
        Request("/contacts"),
        Request("/contacts/1"),
        Request("/contacts/", "GET"),
        Request("/", "GET"),
        Request("/contacts", "POST", "no JSON", JSON),
    ],
    "order": [
        *(Request(path) for path in ("/test/test/test/test", "/test/test/test/1", "/test/test/1", "/t/t/1")),
        *(
            Request(path)
            for path in ("/test/1", "/t/1", "/1", "/x/", "/x/1/y", "/x/1/z", "/t/t/t/t", "/test/")
        ),
    ],
    "person": [
        Request("/person/1"),
        Request("/person/1", headers={"X-Kind": "application/json"}),
        Request("/person/1", headers={"If-None-Match": "x"}),
        Request(
            "/person/1",
            headers={"If-None-Match": hashlib.sha256(b"{'name': 'Ada', 'age': 36}").hexdigest()},
        ),
        Request("/person/2"),
        Request("/person/x"),
    ],
    "others": [
        Request("/echo/1/x?a=1&a=2&b=%C3%A9&c=", headers={"X-A": "1"}),
        Request("/echo/a%2Fb/%C3%BC%20+"),
        Request("/echo/1/2", "POST", '{"a": [1, 2.5, null, "é"]}', JSON),
        Request("/echo/1/2", "POST", "{nope", JSON),
        Request("/echo/1/2", "POST", "", JSON),
        Request(
            "/echo/1/2", "POST", "a=1&a=2&b=%C3%A9&c=", {"Content-Type": "application/x-www-form-urlencoded"}
        ),
        Request("/echo/1/2", "PUT", "plain é", {"Content-Type": "text/plain"}),
        Request("/echo/1/2", "PUT", "<a/>", {"Content-Type": "application/xml"}),
        Request(
            "/echo/1/2",
            "POST",
            '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n',
            {"Content-Type": "multipart/form-data; boundary=x"},
        ),
        Request("/echo/1/2", "DELETE"),
        *(Request(path) for path in ("/value", "/nothing", "/stderr", "/both", "/error", "/joined")),
        *(
            Request(path)
            for path in ("/count", "/count", "/state", "/small", "/tight", "/trailing/", "/trailing")
        ),
        Request("/state", "PUT", ""),
        *(Request(path) for path in ("/state", "/bad-info", "/missing")),
        *(Request(f"/status/{code}") for code in (200, 201, 304, 404, 500)),
        Request("/value", "PUT", ""),
        Request("/echo/1/2", "OPTIONS"),
    ],
}
#: What is meant to be different: the faults, and what grew out of their mending.
DIFFERENT = {
    "others": [
        Request("/echo/1/2", "POST", '{"a": 1}', {"Content-Type": "application/json; charset=utf-8"}),
        Request("/html", text=("<b>", "")),
        Request("/exit", status=(200, 500), text=("early\n", "Error SystemExit: 0 \n")),
        Request("/a%20space", status=(200, 404)),
        Request("/patch", "PATCH", "", status=(200, 404)),
        Request("/value", "HEAD", status=(200, 405)),
        Request("/value?token=wrong", headers={"Authorization": "token {token}"}, status=(401, 401)),
    ],
}


def serve(server: Server, name: str) -> str:
    """Mount a notebook as `serve` does; where it is."""
    pattern = rf"{server.base_url}{name}/.*"
    options = {"notebook": f"{name}.ipynb", "prefix": f"/{name}"}
    server.app.web_app.add_handlers(".*$", [url(pattern, AloneHandler, options)])
    return f"http://127.0.0.1:{server.port}{server.base_url}{name}"


def comparable(response: httpx.Response) -> Any:
    """What is the same at both: the body, without what differs by being sent elsewhere."""
    text = response.text
    try:
        document = json.loads(text)
    except ValueError:
        return text
    if isinstance(document, dict) and isinstance(document.get("headers"), dict):
        for name in ("Host", "Authorization", "Accept-Encoding", "Connection"):
            document["headers"].pop(name, None)
    # Of errors of the server's own the words differ.
    return "" if isinstance(document, dict) and {"reason", "message"} <= document.keys() else document


async def ask(request: Request, base: str, token: str) -> httpx.Response:
    """Send a request."""
    headers = {"Authorization": f"token {token}", "User-Agent": "test", "Accept": "*/*", **request.headers}
    headers = {name: value.format(token=token) for name, value in headers.items()}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        return await client.request(
            request.method, f"{base}{request.path}", content=request.body, headers=headers
        )


@pytest.mark.parametrize("name", NOTEBOOKS)
async def test_side_by_side(name: str, tmp_path: Path) -> None:
    """Kernel Gateway and `serve` answer the same, but for what is meant to be different."""
    notebook = served.write(tmp_path / f"{name}.ipynb", *NOTEBOOKS[name])
    with (
        served.serving(tmp_path / "served", str(notebook)) as ours,
        gateways.serving(tmp_path / "gateway", notebook) as gateway,
    ):
        for request in SAME[name]:
            here = await ask(request, ours.url, served.TOKEN)
            there = await ask(request, gateway.url, gateway.token)
            assert here.status_code == there.status_code, (request, here.text, there.text)
            assert comparable(here) == comparable(there), request
            kinds = [each.headers.get("Content-Type", "").partition(";")[0] for each in (here, there)]
            assert kinds[0] == kinds[1] or comparable(here) == "", (request, kinds)
            assert here.headers.get("X-Tag") == there.headers.get("X-Tag")
        for request in DIFFERENT.get(name, []):
            here = await ask(request, ours.url, served.TOKEN)
            there = await ask(request, gateway.url, gateway.token)
            if request.status is not None:
                assert (here.status_code, there.status_code) == request.status, (request, here.text)
            if request.text is not None:
                assert (here.text, there.text) == request.text
            if request.status is None and request.text is None:
                assert comparable(here) != comparable(there), request


SWAGGER = {
    "swagger": "2.0",
    "info": {"title": "t", "version": "1"},
    "paths": {
        "/contacts": {"GET": {"operationId": "list"}, "POST": {"operationId": "add"}},
        "/contact": {"GET": {"operationId": "one", "parameters": [{"name": "id", "in": "path"}]}},
    },
}


async def test_operations(server: Server, tmp_path: Path) -> None:
    """With a Swagger document in the notebook, its operations are called as in Kernel Gateway."""
    text = {"cell_type": "markdown", "metadata": {}, "source": f"```\n{json.dumps(SWAGGER)}\n```"}
    cells = [
        "import json",
        "# operationId: list\nprint('all')",
        "# operationId: add\nprint(json.loads(REQUEST)['body'])",
        "# ResponseInfo operationId: add\nprint(json.dumps({'status': 201}))",
        "# operationId: one\nprint(json.loads(REQUEST)['path'])",
    ]
    notebook = server.write("swagger.ipynb", text, *cells, language_info={"name": "python"})
    ours = serve(server, "swagger")
    parser = "--NotebookHTTPPersonality.cell_parser=kernel_gateway.notebook_http.swagger.parser"
    with gateways.serving(tmp_path / "gateway", notebook, parser) as gateway:
        for request in (
            Request("/contacts"),
            Request("/contacts", "POST", "{}", JSON, status=(201, 200)),
            Request("/contact/7"),
            Request("/contact"),
        ):
            here = await ask(request, ours, server.token)
            there = await ask(request, gateway.url, gateway.token)
            statuses = here.status_code, there.status_code
            assert statuses == (request.status or (there.status_code,) * 2), request
            assert comparable(here) == comparable(there), request


async def test_who_is_nobody(server: Server) -> None:
    """Without a token, or with a wrong one, a server of endpoints alone answers 401, as Kernel Gateway."""
    server.write("order.ipynb", *ORDER)
    base = serve(server, "order")
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        for headers in ({}, {"Authorization": "token wrong"}):
            for method in ("GET", "POST"):
                answer = await client.request(method, f"{base}/x/", headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


async def test_round_robin(server: Server, tmp_path: Path) -> None:
    """With several kernels each has a state of its own, and they take turns, as in Kernel Gateway."""
    server.extension._services.settings = dataclasses.replace(
        server.extension._services.settings, min_kernels=2, max_kernels=2
    )
    notebook = server.write("others.ipynb", *OTHERS, language_info={"name": "python"})
    base = serve(server, "others")
    await server.extension._services.start(["others.ipynb"])
    await server.until(lambda: len(server.extension._services._services["others.ipynb"].crew._idle) == 2)
    with gateways.serving(tmp_path / "gateway", notebook, "--KernelGatewayApp.prespawn_count=2") as gateway:
        for where, token in ((base, server.token), (gateway.url, gateway.token)):
            said = [(await ask(Request("/count"), where, token)).text for _ in range(4)]
            assert said == ["1\n", "1\n", "2\n", "2\n"]
