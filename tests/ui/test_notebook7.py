"""The same panel in Jupyter Notebook 7."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.ui.application import Notebook7, eventually


def test_a_notebook_is_run(notebook7: Notebook7) -> None:
    """Button, form, run, the plot and the species."""
    panel = notebook7.serve("iris.ipynb")
    panel.field("petal_length").fill("6")
    panel.field("petal_width").fill("2.1")
    panel.run.click()
    panel.expect("ok")
    expect(panel.value).to_contain_text('"virginica"')
    expect(panel.outputs.locator("img")).to_be_visible()


def test_a_value_is_refused_at_its_field(notebook7: Notebook7) -> None:
    """What the server says of a value is shown where it was typed."""
    panel = notebook7.serve("sales.ipynb")
    panel.field("top").fill("0")
    panel.run.click()
    expect(panel.node.get_by_text("must be at least 1")).to_be_visible()
    expect(panel.field("top")).to_be_focused()


def test_a_run_is_cancelled(notebook7: Notebook7) -> None:
    """Cancel ends the run and its kernel."""
    server = notebook7.server
    path = server.write("slow.ipynb", ["import time", "print('begin', flush=True)\ntime.sleep(60)"])
    panel = notebook7.serve(path)
    panel.run.click()
    expect(panel.outputs).to_contain_text("begin")
    before = len(server.kernels())
    panel.cancel.click()
    panel.expect("cancelled")
    assert eventually(lambda: len(server.kernels()) < before)
