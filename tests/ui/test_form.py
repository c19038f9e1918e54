"""What is typed is what is run; where that cannot be, the form says why, and the keyboard keeps its place."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import expect

from tests.ui.application import Lab, eventually

TYPES = '''
import datetime, os
note: str = """first
second"""
tags: list[str] = ["a"]
since: datetime.date = datetime.date(2026, 1, 2)
paths: list[str] = os.get_exec_path()
count: int = 1
'''
ECHO: list[str | tuple[str, str]] = [
    (TYPES, "parameters"),
    "dict(note=note, tags=tags, since=str(since), count=count)",
]


def test_values_arrive_as_they_are_seen(lab: Lab) -> None:
    """Lines stay lines, a new item of a list is a text, and what the form does not know is not sent."""
    panel = lab.serve(lab.server.write("types.ipynb", ECHO))
    note = panel.field("note")
    expect(note).to_have_value("first\nsecond")
    expect(panel.node.get_by_text("default: datetime.date(2026, 1, 2)")).to_be_visible()
    expect(panel.node.get_by_text("default: os.get_exec_path()")).to_be_visible()
    note.press("Control+End")
    note.press_sequentially("!")
    note.press("Enter")
    note.press_sequentially("third")
    panel.node.get_by_role("button", name="Add to tags").click()
    expect(panel.node.get_by_label("tags, item 2")).to_be_focused()
    lab.page.keyboard.type("b")

    panel.execute()
    (run,) = lab.server.runs("types.ipynb")
    assert run["parameters"] == {"note": "first\nsecond!\nthird", "tags": ["a", "b"]}
    expect(panel.value).to_contain_text("2026-01-02")


def test_only_the_json_that_is_seen_is_run(lab: Lab) -> None:
    """A refusal says why below the JSON; what is no JSON is not run, nor lost; Reset clears it."""
    panel = lab.serve(lab.server.write("json.ipynb", ECHO))
    panel.node.get_by_role("button", name="JSON", exact=True).click()
    assert panel.json.evaluate("node => node.clientHeight") > 80
    panel.json.fill('{"count": "x", "tags": [1]}')
    panel.run.click()
    expect(panel.node.get_by_text('count: must be an integer, not the string "x"')).to_be_visible()
    expect(panel.node.get_by_text("tags: at [0]: must be a string")).to_be_visible()
    expect(panel.json).to_be_focused()

    panel.json.fill('{"count": 5')
    expect(panel.run).to_be_disabled()
    panel.node.get_by_role("button", name="Form", exact=True).click()
    panel.json.press("Control+Enter")
    expect(panel.json).to_have_value('{"count": 5')
    assert lab.server.runs("json.ipynb") == []

    panel.node.get_by_role("button", name="Reset", exact=True).click()
    expect(panel.json).to_have_value("{}")
    panel.json.fill('{"count": 5}')
    panel.json.press("Control+Enter")
    panel.expect("ok")
    (run,) = lab.server.runs("json.ipynb")
    assert run["parameters"] == {"count": 5}
    panel.node.get_by_role("button", name="Form", exact=True).click()


def test_the_keyboard_keeps_its_place(lab: Lab) -> None:
    """The focus stays on Run and on Cancel, pressed or not, and goes back to what opened a menu."""
    source = "import time\nfor _ in range(600):\n    time.sleep(0.1)"
    panel = lab.serve(lab.server.write("kept.ipynb", [source]))
    panel.run.focus()
    panel.run.press("Enter")
    panel.expect("running")
    expect(panel.run).to_be_focused()
    expect(panel.run).to_be_disabled()
    panel.cancel.focus()
    panel.cancel.press("Enter")
    panel.expect("cancelled")
    expect(panel.cancel).to_be_focused()

    panel.section("History").click()
    more = panel.rows.first.get_by_role("button", name=re.compile("^More"))
    more.focus()
    more.press("Enter")
    lab.page.keyboard.press("ArrowDown")
    lab.page.keyboard.press("Enter")
    expect(more).to_be_focused()
    more.press("Enter")
    lab.page.keyboard.press("ArrowUp")
    lab.page.keyboard.press("Enter")
    expect(panel.rows).to_have_count(0)
    panel.section("History").click()


def _sources(file: Path) -> list[str]:
    """Sources of a notebook's cells; none of one that is half written."""
    try:
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    except json.JSONDecodeError:
        return []
    return ["".join(cell["source"]) for cell in cells]


def test_a_notebook_is_not_replaced_unasked(lab: Lab) -> None:
    """Who saves an executed notebook under a name that is taken is asked first, and may choose another."""
    other = lab.server.root / lab.server.write("other place.ipynb", ["'mine'"])
    before = other.read_bytes()
    panel = lab.serve(lab.server.write("executed.ipynb", ["'yours'"]))
    panel.execute()
    panel.node.get_by_role("button", name="Save executed notebook as").click()
    dialog = lab.page.locator("dialog")
    dialog.get_by_role("textbox").fill(other.name)
    dialog.get_by_role("button", name="Save", exact=True).click()
    expect(dialog).to_contain_text("other place.ipynb exists already")
    dialog.get_by_role("button", name="Choose another name").click()
    expect(dialog.get_by_role("textbox")).to_have_value(other.name)
    assert other.read_bytes() == before

    dialog.get_by_role("button", name="Save", exact=True).click()
    dialog.get_by_role("button", name="Replace").click()
    lab.wait_until_open(other.name)
    # JupyterLab saves it again as it opens it, and meanwhile there may be half of it.
    assert eventually(lambda: _sources(other) == ["'yours'"])


def test_values_by_name_have_a_name_each(lab: Lab) -> None:
    """A value without a name of its own is neither dropped nor run; a chosen kernel is in the call."""
    lab.open(lab.server.write("free.ipynb", ["print(1)"], kernel="none-such"), shares_kernel=False)
    lab.page.locator("dialog").get_by_role("button", name="No Kernel", exact=True).click()
    panel = lab.press()
    panel.node.get_by_label("Kernel", exact=True).select_option("python3")
    panel.node.get_by_role("tab", name="curl").click()
    expect(panel.code).to_contain_text('{"kernel_name":"python3"}')
    for value in ("one", "two"):
        panel.node.get_by_role("button", name="Add a value").click()
        expect(panel.node.get_by_label(re.compile("^Name")).last).to_be_focused()
        panel.node.get_by_label(re.compile("^Value")).last.fill(value)
    expect(panel.node.get_by_text("Give it a name.")).to_have_count(2)
    for number in (1, 2):
        panel.node.get_by_label(f"Name {number}", exact=True).fill("who")
    expect(panel.node.get_by_text("This name is given twice.")).to_be_visible()
    expect(panel.run).to_be_disabled()
    panel.node.get_by_label("Name 2", exact=True).fill("whom")
    panel.execute()
    (run,) = lab.server.runs("free.ipynb")
    assert run["parameters"] == {"who": "one", "whom": "two"}
