"""The same panel in Jupyter Notebook 7."""

from __future__ import annotations

import json
import os
import re
import subprocess

from playwright.sync_api import expect

from tests.ui.application import Notebook7, eventually


def test_a_notebook_is_run(notebook7: Notebook7) -> None:
    """Button, form, run, the plot and the species."""
    panel = notebook7.serve("iris.ipynb")
    panel.field("petal_length").fill("6")
    panel.field("petal_width").fill("2.1")
    panel.execute()
    expect(panel.value).to_contain_text('"virginica"')
    expect(panel.outputs.locator("img")).to_be_visible()


def test_all_of_it_starts(notebook7: Notebook7) -> None:
    """No part of it fails for want of what only JupyterLab has, neither for a notebook nor in the tree."""
    notebook7.serve("sum.ipynb")
    notebook7.page.goto(f"{notebook7.server.url}/tree?token={notebook7.server.token}")
    expect(notebook7.page.locator(".jp-DirListing-item", has_text="sum.ipynb")).to_be_visible()
    assert notebook7.errors == []


def test_from_a_refusal_to_the_history(notebook7: Notebook7) -> None:
    """A value refused at its field, the result, its call in a shell, the run found again after a reload."""
    panel = notebook7.serve("sum.ipynb")
    panel.field("a").fill("many")
    panel.run.click()
    expect(panel.node.get_by_text("must be a number")).to_be_visible()
    expect(panel.field("a")).to_be_focused()
    panel.field("a").fill("20")
    panel.execute()
    expect(panel.value).to_contain_text("22")

    panel.node.get_by_role("button", name="Copy", exact=True).click()
    text = notebook7.copied()
    environment = {**os.environ, "JUPYTER_TOKEN": notebook7.server.token}
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout)["result"] == 22

    panel = notebook7.serve("sum.ipynb")
    expect(panel.field("a")).to_have_value("1")
    panel.section("History").click()
    expect(panel.rows).to_have_count(2)
    panel.rows.last.get_by_title("Show the result of this run").click()
    expect(panel.value).to_contain_text("22")
    panel.rows.last.get_by_role("button", name=re.compile("Run again")).click()
    expect(panel.rows).to_have_count(3)
    panel.expect("ok")


def test_a_reload_in_mid_run_and_a_cancel(notebook7: Notebook7) -> None:
    """A page that is loaded again finds the run, and can end it and its kernel."""
    server = notebook7.server
    path = server.write("slow.ipynb", ["import time\nprint('begin', flush=True)\ntime.sleep(60)", "2"])
    panel = notebook7.serve(path)
    panel.run.click()
    expect(panel.outputs).to_contain_text("begin")
    (run,) = server.runs(path)

    panel = notebook7.serve(path)
    panel.expect("running")
    expect(panel.outputs).to_contain_text("begin")
    panel.cancel.click()
    panel.expect("cancelled")
    expect(panel.node.get_by_text("1 cell was not run.")).to_be_visible()
    assert eventually(lambda: run["kernel"]["id"] not in server.kernels())
