"""`GET /api/nbexec/docs`: the page, what it may load, and who may see it."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.handlers.conftest import Answer, Server

PAGE = "api/nbexec/docs"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def policy(answer: Answer) -> dict[str, str]:
    """The Content-Security-Policy: the first of several directives of a name counts."""
    found: dict[str, str] = {}
    for directive in answer.headers["Content-Security-Policy"].split(";"):
        name, _, sources = directive.strip().partition(" ")
        found.setdefault(name, sources)
    return found


async def test_page(server: Server) -> None:
    """The page names the document, and all that it loads comes from this server and is there."""
    page = await server.fetch("GET", PAGE)
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=UTF-8")
    text = page.body.decode()
    assert f'data-document="{server.base_url}api/nbexec/openapi.json"' in text
    loaded = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(loaded) == 6
    for path in set(loaded) - {"data:,"}:
        assert path.startswith(server.base_url)
        assert (await server.fetch("GET", path.removeprefix(server.base_url))).status == 200


async def test_policy(server: Server) -> None:
    """The browser runs and applies what this server sends as files, and loads no image, form or frame."""
    rules = policy(await server.fetch("GET", PAGE))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert rules["img-src"] == "data:"
    assert "frame-src" not in rules
    assert rules["frame-ancestors"] == "'self'"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in str(rules)


@pytest.mark.server(
    ServerApp={"tornado_settings": {"headers": {"Content-Security-Policy": "img-src 'none'"}}}
)
async def test_policy_of_the_site(server: Server) -> None:
    """What the administrator forbids stays forbidden."""
    rules = policy(await server.fetch("GET", PAGE))
    assert (rules["img-src"], rules["default-src"]) == ("'none'", "'none'")


async def test_page_of_a_notebook(server: Server) -> None:
    """`?path=` shows one notebook; its name is text and part of a URL, and nothing else."""
    name = "a b/<script>alert(1)</script>&\"'é.ipynb"
    page = await server.fetch(
        "GET", f"{PAGE}?path=a%20b/%3Cscript%3Ealert(1)%3C/script%3E%26%22'%C3%A9.ipynb"
    )
    text = page.body.decode()
    assert text.count("<script") == 2
    (title,) = re.findall(r"<title>(.*?)</title>", text)
    assert unescape(title) == name
    (document,) = re.findall(r'data-document="([^"]*)"', text)
    assert document.endswith(
        "openapi.json?path=a%20b/%3Cscript%3Ealert%281%29%3C/script%3E%26%22%27%C3%A9.ipynb"
    )


async def test_login(server: Server) -> None:
    """A browser that nobody has logged in with is sent to the login, a program is refused."""
    answer = await server.fetch("GET", PAGE, headers=HTML, auth=False)
    assert answer.status == 302
    assert answer.headers["Location"].startswith(f"{server.base_url}login?next=")
    assert (await server.fetch("GET", PAGE, auth=False)).status == 403


async def test_xsrf_cookie(server: Server) -> None:
    """The page brings the cookie whose token its calls send."""
    page = await server.fetch("GET", PAGE)
    assert any(cookie.startswith("_xsrf=") for cookie in page.headers.get_list("Set-Cookie"))


async def test_without_swagger_ui(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation that it was not built into says so."""
    monkeypatch.setattr("jupyter_nbexec.handlers.docs.SWAGGER_UI", tmp_path / "none")
    answer = await server.fetch("GET", PAGE)
    assert answer.status == 501
    assert "build_backend" in answer.json["message"]
