"""JupyterLab and Notebook 7 as a person uses them: by what can be seen and pressed."""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import nbformat
from playwright.sync_api import ConsoleMessage, Error, Locator, Page, ViewportSize, expect

#: Milliseconds that the page may take; the machine may have other things to do.
PATIENCE = int(os.environ.get("NBEXEC_PATIENCE", "120")) * 1000

#: Of JupyterLab's window.
SIZE: Final[ViewportSize] = {"width": 1440, "height": 900}

expect.set_options(timeout=PATIENCE)


@dataclass(frozen=True, kw_only=True)
class Server:
    """A real server process."""

    url: str
    token: str
    root: Path
    folder: Path

    def request(self, method: str, path: str, **kwargs: Any) -> Any:
        """Ask the server; the answer as JSON."""
        headers = {"Authorization": f"token {self.token}", **kwargs.pop("headers", {})}
        answer = httpx.request(method, f"{self.url}{path}", headers=headers, timeout=60, **kwargs)
        return answer.json() if answer.content else None

    @functools.cached_property
    def kernel(self) -> dict[str, Any]:
        """A kernel for the notebooks that are open, none of which needs one of its own."""
        made: dict[str, Any] = self.request("POST", "/api/kernels", json={"name": "python3"})
        return made

    def kernels(self) -> set[str]:
        """The ids of the kernels that there are."""
        found = self.request("GET", "/api/kernels")
        # While a kernel ends, the server may fail to list them.
        return {kernel["id"] for kernel in found} if isinstance(found, list) else {"?"}

    def runs(self, path: str) -> list[dict[str, Any]]:
        """The runs of a notebook, newest first."""
        found: list[dict[str, Any]] = self.request("GET", f"/api/nbexec/runs?path={quote(path)}")["runs"]
        return found

    def write(self, path: str, cells: Sequence[str | tuple[str, str]], kernel: str = "python3") -> str:
        """Write a notebook: cells as source, or as source and a tag."""
        made = []
        for cell in cells:
            source, tags = (cell, []) if isinstance(cell, str) else (cell[0], [cell[1]])
            made.append(nbformat.v4.new_code_cell(source, metadata={"tags": tags} if tags else {}))
        notebook = nbformat.v4.new_notebook(cells=made)
        notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, file)
        return path


class Panel:
    """The panel of a notebook as a service."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.node = page.locator("#nbexec-panel")

    @property
    def run(self) -> Locator:
        """The button that runs."""
        buttons = self.node.locator(".jp-NbExec-buttons")
        return buttons.get_by_role("button", name=re.compile(r"^Run( again)?$"))

    @property
    def cancel(self) -> Locator:
        """The button that cancels."""
        return self.node.get_by_role("button", name="Cancel", exact=True)

    @property
    def json(self) -> Locator:
        """The values as JSON."""
        return self.node.get_by_label("as JSON")

    @property
    def badge(self) -> Locator:
        """The state of the run, in a word."""
        return self.node.locator(".jp-NbExec-status .jp-NbExec-badge")

    @property
    def outputs(self) -> Locator:
        """What the cells have put out."""
        return self.node.locator(".jp-NbExec-outputs")

    @property
    def value(self) -> Locator:
        """What the notebook gives back."""
        return self.node.locator(".jp-NbExec-value")

    @property
    def code(self) -> Locator:
        """The call."""
        return self.node.locator(".jp-NbExec-code pre")

    @property
    def rows(self) -> Locator:
        """The runs of the history."""
        return self.node.locator(".jp-NbExec-history tr:has(td)")

    def field(self, name: str) -> Locator:
        """The input of a parameter, by its label."""
        return self.node.get_by_label(re.compile(rf"^{re.escape(name)}( \*)?( \(changed\))?$"))

    def section(self, name: str) -> Locator:
        """The title of a section."""
        return self.node.get_by_role("button", name=f"{name} Section").or_(
            self.node.locator("h3", has_text=name)
        )

    def expect(self, state: str) -> None:
        """Wait until the run is in this state; where it never is, say what the panel says instead."""
        try:
            expect(self.badge).to_contain_text(state)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.node.inner_text()}") from None

    def execute(self, button: Locator | None = None) -> None:
        """Press Run, or another button, and wait until that run (not one before it) has succeeded."""
        with self.page.expect_response(
            lambda answer: answer.request.method == "POST" and "/api/nbexec/" in answer.url
        ) as answer:
            (button or self.run).click()
        assert answer.value.status == 202
        # It is disabled from then on.
        expect(self.run).to_be_enabled()
        self.expect("ok")

    def give(self, values: str) -> None:
        """Type values as JSON."""
        self.node.get_by_role("button", name="JSON", exact=True).click()
        self.json.fill(values)
        self.node.get_by_role("button", name="Form", exact=True).click()


class Lab:
    """JupyterLab in a browser."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page = page
        self.server = server
        self.panel = Panel(page)
        self._errors: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", self._on_error)
        page.on("console", self._on_console)

    def start(self) -> None:
        """Open JupyterLab as if for the first time."""
        self.page.set_viewport_size(SIZE)
        self.page.goto(f"{self.server.url}/lab?token={self.server.token}&reset")
        self.wait_until_ready()

    def _on_error(self, error: Error) -> None:
        # JupyterLab says so when a notebook is closed before its kernel has told all of itself.
        if "Canceled future for" not in error.message:
            self._errors.append(f"{error}\n{error.stack}")

    def _on_console(self, message: ConsoleMessage) -> None:
        # Others have errors of their own, and what a server refuses is one here, too.
        if message.type == "error" and "nbexec" in message.text:
            self._errors.append(message.text)

    def take_errors(self) -> list[str]:
        """What has gone wrong on the page so far."""
        errors, self._errors = self._errors, []
        return errors

    def wait_until_ready(self) -> None:
        """Wait until the page can be used."""
        self.page.wait_for_function(
            "() => window.jupyterapp && !document.querySelector('#jupyterlab-splash')"
        )
        self.page.evaluate("() => window.jupyterapp.restored")

    def command(self, name: str, **args: Any) -> None:
        """Do what a command does."""
        script = "([name, args]) => { void window.jupyterapp.commands.execute(name, args) }"
        self.page.evaluate(script, [name, args])

    def open(self, path: str, *, shares_kernel: bool = True) -> None:
        """Open a notebook, with the kernel that all may share, and wait until it can be seen."""
        # A command that was not waited for might open it when it has been closed again.
        script = "args => window.jupyterapp.commands.execute('docmanager:open', args).then(() => null)"
        kernel = {"kernel": self.server.kernel} if shares_kernel else {}
        self.page.evaluate(script, {"path": path, **kernel})
        self.wait_until_open(path)

    def wait_until_open(self, path: str) -> None:
        """Wait until a notebook is in front, and can be seen."""
        self.page.wait_for_function(
            """path => {
                const widget = window.jupyterapp.shell.currentWidget;
                return widget?.context?.path === path && widget.context.isReady
                    && widget.content.activeCell?.node.isConnected;
            }""",
            arg=path,
        )

    def press(self) -> Panel:
        """Press the button of the notebook's toolbar."""
        self.page.locator(
            ".jp-NotebookPanel:not(.lm-mod-hidden) [data-jp-item-name='nbexec-run'] jp-button"
        ).click()
        expect(self.panel.node).to_be_visible()
        expect(self.panel.run).to_be_visible()
        return self.panel

    def serve(self, path: str) -> Panel:
        """Open a notebook, and its panel."""
        self.open(path)
        panel = self.press()
        expect(panel.node.get_by_role("heading", name=path)).to_be_visible()
        expect(panel.run).to_be_enabled()
        return panel

    def close_all(self) -> None:
        """Close all documents without saving."""
        self.page.keyboard.press("Escape")
        # What is closed before it has its kernel makes JupyterLab, and extensions that wait for
        # the kernel, throw errors of their own: a session that starts is waited for.
        self.page.evaluate(
            """async () => {
                const open = [...window.jupyterapp.shell.widgets('main')].filter(widget => widget.context);
                await Promise.allSettled(open.map(async ({ context }) => {
                    await context.ready;
                    await context.sessionContext.initialize();
                }));
                for (const widget of open) {
                    widget.context.model.dirty = false;
                    widget.dispose();
                }
            }"""
        )

    def use_theme(self, name: str) -> None:
        """Change the theme of the page."""
        self.command("apputils:change-theme", theme=name)
        self.page.wait_for_function(
            """name => document.body.dataset.jpThemeName === name
                && !document.querySelector('#jupyterlab-splash')""",
            arg=name,
        )

    def copied(self) -> str:
        """What is in the clipboard."""
        return clipboard(self.page)


class Notebook7:
    """Jupyter Notebook 7 in a browser."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page = page
        self.server = server
        self.panel = Panel(page)
        self.errors: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("console", self._on_console)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "nbexec" in message.text:
            self.errors.append(message.text)

    def serve(self, path: str) -> Panel:
        """Open a notebook, and its panel."""
        self.page.goto(f"{self.server.url}/notebooks/{quote(path)}?token={self.server.token}")
        button = self.page.locator("[data-jp-item-name='nbexec-run'] jp-button")
        button.click()
        expect(self.panel.node.get_by_label("More", exact=True)).to_be_visible()
        return self.panel

    def copied(self) -> str:
        """What is in the clipboard."""
        return clipboard(self.page)


def clipboard(page: Page) -> str:
    """What is in the clipboard."""
    return str(page.evaluate("() => navigator.clipboard.readText()"))


def eventually(holds: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.1)
    return holds()
