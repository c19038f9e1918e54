"""The pictures of the documentation, as the panel really looks.

They are written where they are missing, or where `NBEXEC_WRITE_PICTURES=1` asks for new ones.
"""

from __future__ import annotations

import os
from pathlib import Path

from playwright.sync_api import expect

from tests.ui.application import SIZE, Lab

IMAGES = Path(__file__).parents[2] / "docs" / "images"


def test_pictures(lab: Lab, tmp_path: Path) -> None:
    """The panel beside the iris example, with its result, light and dark."""
    lab.page.set_viewport_size({"width": 1440, "height": 1000})
    panel = lab.serve("iris.ipynb")
    lab.command("application:toggle-left-area")
    panel.node.get_by_role("tab", name="curl").click()
    panel.field("petal_length").fill("4.7")
    panel.field("petal_width").fill("1.4")
    panel.execute()
    expect(panel.outputs.locator("img")).to_be_visible()
    expect(panel.value).to_contain_text('"versicolor"')
    lab.page.mouse.move(600, 600)
    # The panel shares out its height a moment after something was drawn.
    lab.page.wait_for_timeout(1000)
    for theme in ("Dark", "Light"):
        lab.use_theme(f"JupyterLab {theme}")
        name = f"jupyterlab-{theme.lower()}.png"
        is_wanted = os.environ.get("NBEXEC_WRITE_PICTURES") == "1" or not (IMAGES / name).exists()
        file = (IMAGES if is_wanted else tmp_path) / name
        file.parent.mkdir(exist_ok=True)
        lab.page.screenshot(path=file)
        assert file.stat().st_size > 20_000
    lab.command("application:toggle-left-area")
    lab.page.set_viewport_size(SIZE)
