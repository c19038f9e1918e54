"""What can be seen of the panel, on much and on little space."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, ViewportSize, expect

from tests.ui.application import SIZE, Lab

LOW: ViewportSize = {"width": 720, "height": 450}
WIDE: ViewportSize = {"width": 1440, "height": 600}
FIELDS = [f"value_{number}" for number in range(12)]
MANY = "\n".join(f"{name}: int = {number}  # what {name} is for" for number, name in enumerate(FIELDS))

#: Whether an element is what is seen at its corners, rather than something that lies above it.
IS_SEEN = """node => {
    const { left, right, top, bottom } = node.getBoundingClientRect();
    return [[left + 2, top + 2], [right - 2, bottom - 2]].every(([x, y]) => {
        const seen = document.elementFromPoint(x, y);
        return seen !== null && node.contains(seen);
    });
}"""
#: The sections that have less height than what is in them, though the panel has some to spare.
CUT_OFF = """() => [...document.querySelectorAll('.jp-NbExec-section:not(.lm-mod-hidden)')]
    .filter(node => node.scrollHeight > node.clientHeight)
    .map(node => [node.getAttribute('aria-labelledby'), node.scrollHeight, node.clientHeight])"""


@pytest.fixture
def resized(lab: Lab) -> Iterator[Lab]:
    """JupyterLab in a window whose size is as it was, afterwards."""
    yield lab
    lab.page.set_viewport_size(SIZE)


def wait_until_seen(element: Locator) -> None:
    """Wait until nothing lies above an element."""
    page = element.page
    page.wait_for_function(IS_SEEN, arg=element.element_handle())


@pytest.mark.parametrize("size", [LOW, WIDE], ids=["200 percent", "wide"])
def test_each_field_is_seen_where_there_is_little_room(resized: Lab, size: ViewportSize) -> None:
    """With all sections open and a result, a field that gets the focus by Tab is not below the buttons."""
    panel = resized.serve(resized.server.write("many_fields.ipynb", [(MANY, "parameters"), "'x' * 3000"]))
    resized.page.set_viewport_size(size)
    panel.execute()
    panel.section("History").click()
    expect(panel.rows.first).to_be_visible()

    panel.field(FIELDS[0]).focus()
    for name in FIELDS:
        expect(panel.field(name)).to_be_focused()
        wait_until_seen(panel.field(name))
        resized.page.keyboard.press("Tab")
    wait_until_seen(panel.run)
    panel.section("History").click()


def test_a_refused_field_is_seen_with_its_reason(resized: Lab) -> None:
    """The field that gets the focus since its value was refused is scrolled to, and so is the reason."""
    panel = resized.serve(resized.server.write("refused_low.ipynb", [(MANY, "parameters"), "1"]))
    resized.page.set_viewport_size(LOW)
    panel.field(FIELDS[6]).fill("much")
    panel.run.click()
    expect(panel.field(FIELDS[6])).to_be_focused()
    wait_until_seen(panel.field(FIELDS[6]))
    wait_until_seen(panel.node.get_by_text('must be an integer, not the string "much"'))


def test_nothing_is_cut_off_where_there_is_room(lab: Lab) -> None:
    """Sections grow and shrink with what is in them: JSON, values by name, a result."""
    panel = lab.serve(lab.server.write("roomy.ipynb", [("n: int = 1", "parameters"), "n"]))
    expect_all_of_it(lab)
    panel.node.get_by_role("button", name="JSON", exact=True).click()
    expect(panel.node.get_by_label("as JSON")).to_be_visible()
    expect_all_of_it(lab)
    panel.node.get_by_role("button", name="Form", exact=True).click()
    panel.execute()
    expect_all_of_it(lab)

    panel = lab.serve(lab.server.write("roomy_by_name.ipynb", ["1"]))
    for _ in range(4):
        panel.node.get_by_role("button", name="Add a value").click()
    expect(panel.node.get_by_label("Name 4", exact=True)).to_be_visible()
    expect_all_of_it(lab)


def expect_all_of_it(lab: Lab) -> None:
    """Wait until no section hides a part of itself."""
    lab.page.wait_for_function(f"() => !({CUT_OFF})().length")


def test_what_was_moved_by_hand_stays(resized: Lab) -> None:
    """A section that somebody has made smaller stays so, whatever is opened, closed or run."""
    panel = resized.serve("sum.ipynb")
    sections = panel.node.locator(".jp-NbExec-section")
    expect(sections.first).to_be_visible()
    expect_all_of_it(resized)
    handle = panel.node.locator(".lm-SplitPanel-handle").first
    handle.hover()
    box = handle.bounding_box()
    assert box is not None
    resized.page.mouse.down()
    resized.page.mouse.move(box["x"] + 20, box["y"] - 40)
    resized.page.mouse.up()
    resized.page.wait_for_function(f"() => ({CUT_OFF})().length === 1")
    height = sections.first.evaluate("node => node.offsetHeight")

    panel.execute()
    panel.section("History").click()
    expect(panel.rows.first).to_be_visible()
    panel.section("History").click()
    resized.page.set_viewport_size(WIDE)
    expect(panel.value).to_be_visible()

    assert abs(sections.first.evaluate("node => node.offsetHeight") - height) <= 1
    # Nobody gives a section its own height back but who loads the page again.
    resized.start()


def test_the_result_moves_with_the_panel(lab: Lab) -> None:
    """In a tab, and at the right again when that is closed, the result is what it was."""
    panel = lab.serve(lab.server.write("moved.ipynb", ["{'answer': [42]}"]))
    panel.execute()
    expect(panel.value).to_contain_text("answer")
    panel.node.get_by_role("button", name="Open in a tab").click()
    tab = lab.page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab", has_text="Run as service")
    expect(tab).to_be_visible()
    expect(panel.value).to_contain_text("answer")
    expect(panel.node.get_by_role("button", name="Move to the side bar")).to_be_visible()

    tab.locator(".lm-TabBar-tabCloseIcon").click()

    expect(lab.page.locator("#jp-right-stack #nbexec-panel")).to_be_visible()
    expect(panel.value).to_contain_text("answer")
    expect(panel.node.get_by_role("button", name="Open in a tab")).to_be_visible()
