"""The panel in JupyterLab: every test is something that a person wants to do."""

from __future__ import annotations

import json
import os
import re
import subprocess
from urllib.parse import quote

from playwright.sync_api import expect

from tests.ui.application import SIZE, Lab, Server, eventually

SLOW: list[str | tuple[str, str]] = [
    ("import time\nseconds: float = 60.0  # how long it takes", "parameters"),
    "print('begin', flush=True)",
    "for _ in range(int(10 * seconds)):\n    time.sleep(0.1)",
    "'slept'",
]


def test_from_an_open_notebook_to_its_result(lab: Lab) -> None:
    """Button, form, a wrong value refused at its field, run, progress by cell, plot and species."""
    panel = lab.serve("iris.ipynb")
    length = panel.field("petal_length")
    expect(length).to_have_value("1.4")

    length.fill("long")
    panel.run.click()
    expect(panel.node.get_by_text('must be a number, not the string "long"')).to_be_visible()
    expect(length).to_be_focused()
    expect(length).to_have_attribute("aria-invalid", "true")
    length.fill("6")
    panel.field("petal_width").fill("2.1")
    panel.run.click()

    expect(panel.node.get_by_role("progressbar")).to_be_visible()
    expect(panel.run).to_be_disabled()
    expect(panel.node.get_by_text(re.compile(r"^[123]/4 cells"))).to_be_visible()
    panel.expect("ok")
    expect(panel.node.get_by_text("4/4 cells")).to_be_visible()
    expect(panel.value).to_contain_text('"virginica"')
    expect(panel.outputs.locator("img")).to_be_visible()
    expect(panel.outputs).to_contain_text("unseen irises are recognised")
    (run, *_) = lab.server.runs("iris.ipynb")
    assert run["parameters"] == {"petal_length": 6, "petal_width": 2.1}


def test_the_copied_curl_command_gives_the_same_result(lab: Lab) -> None:
    """The text that is copied, executed as it is in a shell that has the token, gives the panel's result."""
    panel = lab.serve("sum.ipynb")
    panel.field("a").fill("20")
    panel.node.get_by_role("tab", name="curl").click()
    expect(panel.code).to_contain_text('{"a":20}')
    panel.node.get_by_role("button", name="Copy", exact=True).click()
    expect(panel.node.get_by_role("button", name="Copied")).to_be_visible()
    text = lab.copied()
    assert lab.server.token not in text

    environment = {**os.environ, "JUPYTER_TOKEN": lab.server.token}
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True, env=environment)

    assert json.loads(done.stdout)["result"] == 22
    panel.execute()
    expect(panel.value).to_contain_text("22")


def test_a_long_run_is_cancelled(lab: Lab) -> None:
    """Cancel ends the run and its kernel; what it had put out stays."""
    panel = lab.serve(lab.server.write("slow.ipynb", SLOW))
    before = lab.server.kernels()
    panel.run.click()
    expect(panel.outputs).to_contain_text("begin")
    expect(panel.node.get_by_text("Cell 3 · for _ in range")).to_be_visible()

    panel.cancel.click()

    panel.expect("cancelled")
    expect(panel.outputs).to_contain_text("begin")
    assert eventually(lambda: lab.server.kernels() <= before)


def test_the_link_of_an_error_goes_to_its_cell(lab: Lab) -> None:
    """A failed run tells which cell, and why; its link shows that cell of the notebook."""
    cells = [f"# cell {number}\n" + "\n" * 20 for number in range(30)]
    cells.insert(25, "measured = {}\nmeasured['length']")
    panel = lab.serve(lab.server.write("failing.ipynb", cells))
    panel.run.click()
    panel.expect("error")
    expect(panel.node.get_by_text("Cell 26 failed: KeyError")).to_be_visible()
    expect(panel.outputs).to_contain_text("Traceback")
    expect(panel.node.get_by_text("5 cells were not run.")).to_be_visible()

    panel.node.get_by_role("button", name="Go to cell").click()

    active = lab.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell.jp-mod-active")
    expect(active).to_contain_text("measured['length']")
    expect(active).to_be_in_viewport()


def test_a_run_of_the_history_is_run_again(lab: Lab) -> None:
    """Each run is in the history with its values; it can be run again, put into the form, deleted."""
    panel = lab.serve("sum.ipynb")
    panel.field("a").fill("5")
    panel.field("b").fill("6")
    panel.execute()
    panel.node.get_by_role("button", name="Reset").click()
    expect(panel.field("a")).to_have_value("1")
    panel.section("History").click()
    first = panel.rows.first
    expect(first).to_contain_text("a=5 b=6")
    count = len(lab.server.runs("sum.ipynb"))

    panel.execute(first.get_by_role("button", name=re.compile("Run again")))

    expect(panel.rows).to_have_count(count + 1)
    expect(panel.value).to_contain_text("11")
    assert [run["parameters"] for run in lab.server.runs("sum.ipynb")[:2]] == [{"a": 5, "b": 6}] * 2

    panel.node.get_by_role("button", name="Reset").click()
    panel.rows.first.get_by_role("button", name=re.compile("More")).click()
    lab.page.get_by_role("menuitem", name="Put these values into the form").click()
    expect(panel.field("b")).to_have_value("6")
    panel.rows.first.get_by_role("button", name=re.compile("More")).click()
    lab.page.get_by_role("menuitem", name="Delete").click()
    expect(panel.rows).to_have_count(count)
    panel.section("History").click()


def test_unsaved_changes_are_saved_first(lab: Lab) -> None:
    """What is seen is what is run: a notebook with unsaved changes is saved, and read anew."""
    panel = lab.serve(lab.server.write("edited.ipynb", [("x: int = 1", "parameters"), "x"]))
    lab.page.evaluate(
        """() => {
            const { cells } = window.jupyterapp.shell.currentWidget.content.model;
            cells.get(0).sharedModel.setSource('x: int = 3\\ny: int = 4');
            cells.get(1).sharedModel.setSource('x * y');
        }"""
    )
    expect(panel.field("y")).to_have_count(0)

    panel.execute()
    expect(panel.value).to_contain_text("12")
    expect(panel.field("y")).to_have_value("4")


def test_a_reload_in_mid_run_re_attaches(lab_to_reload: Lab) -> None:
    """A page that is loaded again finds the run, with what it has put out, and follows it to its end."""
    lab = lab_to_reload
    wait = "import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.1)"
    panel = lab.serve(lab.server.write("reloaded.ipynb", ["print('begin', flush=True)", wait, "'gone on'"]))
    panel.run.click()
    expect(panel.outputs).to_contain_text("begin")

    lab.page.reload()
    lab.wait_until_ready()
    lab.open("reloaded.ipynb")
    lab.press()

    panel.expect("running")
    expect(panel.outputs).to_contain_text("begin")
    (lab.server.root / "go").touch()
    panel.expect("ok")
    expect(panel.value).to_contain_text("gone on")
    assert len(lab.server.runs("reloaded.ipynb")) == 1


def test_all_of_it_by_keyboard(lab: Lab) -> None:
    """Open, fill in, run, copy the call, and go back to the notebook, without a mouse."""
    lab.open("sum.ipynb")
    lab.page.wait_for_function("() => document.activeElement.closest('.jp-Notebook')")
    lab.page.keyboard.press("Control+Alt+Enter")
    expect(lab.panel.field("a")).to_be_focused()
    lab.page.keyboard.press("Control+A")
    lab.page.keyboard.type("40")
    lab.page.keyboard.press("Tab")
    expect(lab.panel.field("b")).to_be_focused()
    lab.page.keyboard.press("Control+A")
    lab.page.keyboard.type("2")
    lab.page.keyboard.press("Control+Enter")
    lab.panel.expect("ok")
    expect(lab.panel.value).to_contain_text("42")
    expect(lab.panel.field("b")).to_be_focused()

    for _ in range(30):
        lab.page.keyboard.press("Tab")
        if lab.page.evaluate("() => document.activeElement.ariaLabel") == "Copy":
            break
    lab.page.keyboard.press("Enter")
    assert "curl" in lab.copied()

    lab.page.keyboard.press("Escape")
    lab.page.wait_for_function("() => document.activeElement.closest('.jp-Notebook')")


def test_a_path_may_have_any_characters(lab: Lab) -> None:
    """A space, `#`, a percent sign and letters of all alphabets are parts of a name like others."""
    path = lab.server.write("été 1/100% #1 ± 数.ipynb", [("n: int = 20", "parameters"), "n + 1"])
    panel = lab.serve(path)
    panel.execute()
    expect(panel.value).to_contain_text("21")

    environment = {**os.environ, "JUPYTER_TOKEN": lab.server.token}
    text = panel.code.inner_text()
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout)["result"] == 21


def test_a_run_out_of_sight_is_notified(lab: Lab) -> None:
    """Whoever hides the panel is told how far the run is, and can cancel it in the Running panel."""
    panel = lab.serve(lab.server.write("hidden.ipynb", SLOW))
    panel.run.click()
    panel.expect("running")
    lab.command("application:toggle-right-area")
    toast = lab.page.locator(".Toastify__toast")
    expect(toast).to_contain_text("Running hidden.ipynb")

    lab.command("running:show-panel")
    section = lab.page.locator(".jp-RunningSessions .jp-AccordionPanel-title", has_text="Notebook services")
    # JupyterLab 4.2 shows its sections closed.
    if section.get_attribute("aria-expanded") == "false":
        section.click()
    item = lab.page.locator(".jp-RunningSessions-item", has_text="hidden.ipynb").filter(has_text="/4")
    expect(item).to_be_visible()
    item.hover()
    item.get_by_role("button", name="Cancel").or_(item.get_by_title("Cancel")).first.click()

    expect(toast).to_contain_text("This run was cancelled.")
    toast.get_by_role("button", name="Show").click()
    panel.expect("cancelled")
    lab.command("filebrowser:activate")


def test_a_cell_becomes_the_parameters_cell(lab: Lab) -> None:
    """A notebook that declares nothing takes any value, and its selected cell can be made to declare them."""
    panel = lab.serve(lab.server.write("untagged.ipynb", ["n = 2  # a number", "n * 21"]))
    expect(panel.node.get_by_text("This notebook declares no parameters.")).to_be_visible()

    panel.node.get_by_role("button", name="Make the selected cell the parameters cell").click()

    expect(panel.field("n")).to_have_value("2")
    panel.execute()
    expect(panel.value).to_contain_text("42")


def test_a_notebook_in_another_language_takes_values_by_name(lab: Lab, server: Server) -> None:
    """Where parameters are not known, values are given by name; a kernel that is missing can be replaced."""
    lab.open(server.write("other.ipynb", ["print(1)"], kernel="none-such"), shares_kernel=False)
    lab.page.locator("dialog").get_by_role("button", name="No Kernel", exact=True).click()
    panel = lab.press()
    expect(panel.run).to_be_disabled()
    panel.node.get_by_label("Kernel", exact=True).select_option("python3")
    panel.node.get_by_role("button", name="Add a value").click()
    panel.node.get_by_label("Name 1", exact=True).fill("who")
    panel.node.get_by_label("Value 1", exact=True).fill("me")
    panel.execute()
    (run,) = server.runs("other.ipynb")
    assert run["parameters"] == {"who": "me"}


def test_a_notebook_that_is_not_open_is_served(lab: Lab) -> None:
    """The context menu of the file browser runs a notebook that nobody has opened."""
    lab.server.write("closed.ipynb", ["3"])
    lab.command("filebrowser:activate")
    lab.command("filebrowser:refresh")
    lab.page.locator(".jp-DirListing-item", has_text="closed.ipynb").click(button="right")
    lab.page.get_by_role("menuitem", name="Run as Service").click()
    panel = lab.panel
    expect(panel.node.get_by_role("heading", name="closed.ipynb")).to_be_visible()
    panel.execute()
    expect(panel.value).to_contain_text("3")


def test_what_a_notebook_says_is_never_code_of_the_page(lab: Lab) -> None:
    """Names, comments and values are text; outputs of a run that was started elsewhere have no scripts."""
    attack = "<img src=x onerror='window.attacked = true'>"
    script = "from IPython.display import HTML\nHTML('<b>bold</b><script>window.attacked = true</script>')"
    path = lab.server.write(
        f"{attack}.ipynb", [(f"value: str = {attack!r}  # {attack}", "parameters"), script, "value"]
    )
    lab.server.request("POST", f"/api/nbexec/{quote(path)}", json={"parameters": {"value": attack * 2}})
    panel = lab.serve(path)
    expect(panel.field("value")).to_have_value(attack)
    panel.section("History").click()
    panel.rows.first.get_by_title("Show the result of this run").click()
    panel.expect("ok")
    expect(panel.value).to_contain_text(attack * 2)
    expect(panel.outputs.locator("b")).to_have_text("bold")
    expect(panel.node.get_by_text("scripts in its outputs are left out")).to_be_visible()
    assert lab.page.evaluate("() => window.attacked") is None

    # Whoever runs a notebook here trusts it as one who runs its cells.
    panel.execute()
    expect(panel.rows).to_have_count(2)
    lab.page.wait_for_function("() => window.attacked === true")
    panel.section("History").click()


def test_cells_that_can_be_called_are_listed(lab: Lab) -> None:
    """A notebook with annotated cells has the calls of each below its own, and they work."""
    cells = ["# GET /housing_stats\nprint('104 houses')", "# POST /price/:rooms\nprint(1)"]
    panel = lab.serve(lab.server.write("houses.ipynb", cells))
    panel.node.get_by_role("button", name="Copy the call of GET /housing_stats").click()
    url = f"{lab.server.url}/api/nbexec/houses.ipynb"
    text = lab.copied()
    assert text == f'curl {url}/housing_stats -H "Authorization: token $JUPYTER_TOKEN"'
    expect(panel.node.get_by_text(f"curl -X POST {url}/price/:rooms")).to_be_visible()
    environment = {**os.environ, "JUPYTER_TOKEN": lab.server.token}
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "104 houses"


def test_all_of_it_at_200_percent(lab: Lab) -> None:
    """On half the space nothing is cut off: what does not fit is scrolled to, downwards only."""
    panel = lab.serve("sum.ipynb")
    lab.page.set_viewport_size({"width": SIZE["width"] // 2, "height": SIZE["height"] // 2})
    panel.execute()
    panel.section("History").click()
    sizes = lab.page.evaluate(
        """() => [...document.querySelectorAll('.jp-NbExec-section')].map(node =>
            [node.scrollWidth - node.clientWidth, Math.ceil(node.getBoundingClientRect().right)])"""
    )
    assert len(sizes) == 4
    assert all(excess <= 0 and right <= SIZE["width"] // 2 for excess, right in sizes), sizes
    panel.node.get_by_role("button", name="Copy", exact=True).click()
    panel.execute(panel.node.get_by_role("button", name="Run again", exact=True))
    panel.section("History").click()
    lab.page.set_viewport_size(SIZE)
