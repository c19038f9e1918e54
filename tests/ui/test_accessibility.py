"""axe-core finds nothing in the panel, outside of what notebooks put out, in every theme."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests.ui.application import Lab

AXE = Path(__file__).parents[2] / "ui" / "node_modules" / "axe-core" / "axe.min.js"
CHECK = """() => axe.run(
    { include: ['#nbexec-panel'], exclude: ['#nbexec-panel .jp-OutputArea'] }
).then(result => result.violations.map(found => [found.id, found.nodes.map(node => node.html)]))"""
PARAMETERS = """
from typing import Literal
count: int = 3  # how many
name: str = 'EU'
kind: Literal['a', 'b'] = 'a'
is_deep: bool = True
tags: list[str] = ['one', 'two']
options: dict = {'x': 1}
since: int | None = None
"""
CELLS: list[str | tuple[str, str]] = [
    (PARAMETERS, "parameters"),
    "print('hello')\nimport IPython.display\nIPython.display.HTML('<b>bold</b>')",
    "{'a': [1, 2]} if count > 2 else 1 / 0",
]


THEMES = ("Dark", "Dark High Contrast", "Light")


def test_axe_finds_nothing(lab: Lab) -> None:
    """The form with all kinds of fields, a result, a refusal, an error, the call and the history."""
    panel = lab.serve(lab.server.write("everything.ipynb", CELLS))
    lab.page.evaluate("source => { (0, eval)(source); }", AXE.read_text(encoding="utf-8"))
    panel.execute()
    panel.section("History").click()
    expect(panel.rows.first).to_be_visible()
    check(lab)

    panel.field("count").fill("many")
    panel.run.click()
    expect(panel.field("count")).to_have_attribute("aria-invalid", "true")
    check(lab)

    panel.field("count").fill("1")
    panel.run.click()
    panel.expect("error")
    check(lab)
    panel.node.get_by_role("button", name="JSON", exact=True).click()
    check(lab)
    panel.node.get_by_role("button", name="Form", exact=True).click()
    panel.section("History").click()


def check(lab: Lab) -> None:
    """Have axe-core look at the panel in every theme."""
    for theme in THEMES:
        lab.use_theme(f"JupyterLab {theme}")
        assert lab.page.evaluate(CHECK) == [], theme
