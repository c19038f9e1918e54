"""The documentation page in a browser: it shows what there is, and a person can try it."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Response, expect

from tests import served
from tests.test_examples import EXAMPLES, HOUSE
from tests.ui.application import PATIENCE, Server

PAGE = "/api/nbexec/docs"


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that nobody is logged in with."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, server: Server) -> Iterator[Page]:
    """A page that has no errors, loads nothing from elsewhere, and keeps to its policy."""
    problems: list[str] = []
    requested: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        # What a server refuses is an error here, too.
        if message.type in ("error", "warning") and "the server responded with" not in message.text:
            problems.append(message.text)

    page = context.new_page()
    page.on("console", on_console)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    yield page
    assert problems == []
    assert [url for url in requested if not url.startswith((f"{server.url}/", "data:"))] == []


def operation(page: Page, name: str) -> Locator:
    """An operation by its heading and name, opened to be tried."""
    block = page.locator(f"#operations-{name}")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    return block


def execute(block: Locator) -> Locator:
    """Send the call; the row of the answer."""
    block.get_by_role("button", name="Execute").click()
    return block.locator(".live-responses-table tr.response").first


def test_log_in_and_run(page: Page, server: Server) -> None:
    """Who logs in comes back to the page, and can run a notebook by the cookie."""
    page.goto(f"{server.url}{PAGE}")
    page.get_by_label(re.compile("token", re.IGNORECASE)).first.fill(server.token)
    page.get_by_role("button", name="Log in").first.click()
    expect(page.get_by_role("heading", name="jupyter_nbexec")).to_be_visible()
    assert page.url == f"{server.url}{PAGE}"

    block = operation(page, "Notebooks-run")
    block.get_by_placeholder("path").fill("sum.ipynb")
    block.locator("textarea").fill('{"parameters": {"a": 20, "b": 22}}')
    answer = execute(block)
    expect(answer.locator(".response-col_status")).to_contain_text("200")
    expect(answer.locator(".response-col_description")).to_contain_text('"result": 42')


def test_what_is_filled_in_can_be_sent(page: Page, server: Server) -> None:
    """Without a change, the example of a body runs."""
    page.goto(f"{server.url}{PAGE}?token={server.token}")
    answer = execute(operation(page, "Notebooks-runSent"))
    expect(answer.locator(".response-col_status")).to_contain_text("200")
    expect(answer.locator(".response-col_description")).to_contain_text('"result": 2')


def test_token_does_not_stay_in_the_address(page: Page, server: Server) -> None:
    """The token that the visitor came with is gone from the address, and not in what is shown."""
    page.goto(f"{server.url}{PAGE}?path=sum.ipynb&token={server.token}")
    expect(page.get_by_role("heading", name="sum.ipynb")).to_be_visible()
    assert page.url == f"{server.url}{PAGE}?path=sum.ipynb"
    assert server.token not in page.content()


def test_one_notebook(page: Page, server: Server) -> None:
    """The page of one notebook has its defaults filled in, and runs it."""
    page.goto(f"{server.url}{PAGE}?path=sum.ipynb&token={server.token}")
    block = operation(page, "Notebooks-run")
    expect(block.locator("textarea")).to_have_value(re.compile(r'"a": 1'))
    expect(execute(block).locator(".response-col_description")).to_contain_text('"result": 3')


def test_endpoints(page: Page, server: Server) -> None:
    """An endpoint of a notebook can be called, by the cookie; the call that is shown has no secret in it."""
    page.goto(f"{server.url}{PAGE}?path=house_prices.ipynb&token={server.token}")
    block = operation(page, "Endpoints-get_housing_stats")
    answer = execute(block)
    expect(answer.locator(".response-col_status")).to_contain_text("200")
    expect(answer.locator(".response-col_description")).to_contain_text('"median_price"')
    shown = block.locator(".curl-command").inner_text()
    assert "/api/nbexec/house_prices.ipynb/housing_stats" in shown
    assert "XSRF" not in shown


def test_looking_runs_nothing(context: BrowserContext, server: Server) -> None:
    """Neither the page nor JupyterLab runs a notebook whose texts have images that are its endpoints."""
    (server.root / "look").mkdir()
    mark = server.root / "look" / "it-ran"
    where = "/api/nbexec/look/all.ipynb"
    # JupyterLab resolves the last by itself, and adds the XSRF token.
    text = f"Greets.\n\n![x]({where}/x)\n\n<img src='{where}/x'>\n\n![x](%2e%2e/%2e%2e{where}/x)"
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(f"open({str(mark)!r}, 'w').close()"),
            nbformat.v4.new_markdown_cell(text),
            nbformat.v4.new_code_cell("# GET /x\nprint('called')"),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}},
    )
    nbformat.write(notebook, server.root / "look" / "all.ipynb")
    page = context.new_page()
    page.goto(f"{server.url}{PAGE}?path=look/all.ipynb&token={server.token}")
    operation(page, "Endpoints-get_x")
    expect(page.locator(".renderedMarkdown", has_text="Greets.").first).to_be_visible()
    expect(page.locator("#operations-Endpoints-get_x img")).to_have_count(0)

    def is_refused(response: Response, *, has_token: bool) -> bool:
        found, _, query = response.url.partition("?")
        is_image = found.endswith(f"{where}/x") and query.startswith("_xsrf=") is has_token
        return is_image and response.status == HTTPStatus.FORBIDDEN

    with (
        page.expect_response(functools.partial(is_refused, has_token=False)),
        page.expect_response(functools.partial(is_refused, has_token=True)),
    ):
        page.goto(f"{server.url}/lab/tree/look/all.ipynb?reset")
    assert not mark.exists()

    # Who follows a link is asked, and gets the answer.
    page.goto(f"{server.url}{where}/x")
    expect(page.get_by_text("GET /x")).to_be_visible()
    assert not mark.exists()
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_text("called")).to_be_visible()
    assert mark.exists()


def test_endpoints_alone(context: BrowserContext, tmp_path: Path) -> None:
    """A server of endpoints alone has the same page, under the same policy."""
    problems: list[str] = []
    with served.serving(tmp_path, str(EXAMPLES / "house_prices.ipynb")) as alone:
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{alone.url}/_api/docs?token={served.TOKEN}")
        assert page.url == f"{alone.url}/_api/docs"
        block = operation(page, "Endpoints-post_get_price")
        block.locator("textarea").fill(json.dumps(HOUSE))
        answer = execute(block)
        expect(answer.locator(".response-col_status")).to_contain_text("200")
        expect(answer.locator(".response-col_description")).to_contain_text('"currency": "USD"')
    assert problems == []


def test_without_a_login(page: Page, context: BrowserContext, server: Server) -> None:
    """Whoever is no longer logged in can give the token to the page itself."""
    page.goto(f"{server.url}{PAGE}?token={server.token}")
    block = operation(page, "Runs-listRuns")
    context.clear_cookies()
    expect(execute(block).locator(".response-col_status")).to_contain_text("403")

    page.get_by_role("button", name="Authorize", exact=True).click()
    page.locator(".auth-container input").first.fill(f"token {server.token}")
    page.get_by_role("button", name="Apply credentials").first.click()
    page.get_by_role("button", name="Close").first.click()
    expect(execute(block).locator(".response-col_status")).to_contain_text("200")
