"""A long history and large outputs leave the page responsive."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.ui.application import Lab

#: Milliseconds of the processor that the page may be at work, and so deaf, while somebody scrolls:
#: what else the machine does is not counted.
LONGEST = 200
STEPS = 60
AREAS = {name: f".jp-NbExec-section:has(.jp-NbExec-{name})" for name in ("outputs", "history")}
SCROLL = """async ([selector, part]) => {
    const nodes = [...document.querySelectorAll(selector)];
    const node = nodes.find(found => found.scrollHeight > found.clientHeight);
    node.scrollTop = node.scrollHeight * part;
    // All that follows from it is done before a task that comes after the next frame.
    await new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)));
    return node.scrollHeight;
}"""


def test_scrolling_is_smooth(lab: Lab, record_property: Callable[[str, object], None]) -> None:
    """With 2,000 runs in the history and 5 MB of outputs nothing takes longer than 200 ms while scrolling."""
    source = "for i in range(50):\n    print(f'{i} ' + 'x' * 40_000)"
    html = "from IPython.display import HTML\nHTML('<p>' + 'word ' * 500_000 + '</p>')"
    table = "import json\nprint(json.dumps(list(range(100_000))))"
    path = lab.server.write("large.ipynb", [source, html, table, "'done'"])
    panel = lab.serve(path)
    panel.execute()
    multiply(Path(next(iter(lab.server.folder.rglob("runs.sqlite")))), path, 2000)
    panel.section("History").click()
    panel.section("Parameters").click()
    panel.section("Call it").click()
    for page in range(1, 4):
        expect(panel.rows).to_have_count(500 * page)
        panel.node.get_by_role("button", name="Show older runs").click()
    expect(panel.rows).to_have_count(2000)

    measure = milliseconds_at_work(lab.page)
    for name, selector in AREAS.items():
        longest = 0.0
        for step in range(STEPS):
            before = measure()
            height = lab.page.evaluate(SCROLL, [selector, step % 30 / 30])
            longest = max(longest, measure() - before)
        record_property(f"longest_task_ms_{name}", round(longest))
        assert height > 20_000
        assert longest <= LONGEST, name
    for name in ("History", "Parameters", "Call it"):
        panel.section(name).click()


def milliseconds_at_work(page: Page) -> Callable[[], float]:
    """Watch how long the page's thread has worked since it was opened."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def measure() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return 1000 * float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))

    return measure


def multiply(database: Path, path: str, count: int) -> None:
    """Have the store hold many more runs like the last one of a notebook."""
    with sqlite3.connect(database, timeout=30) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(nbexec_runs)")]
        row = connection.execute("SELECT * FROM nbexec_runs WHERE path = ?", (path,)).fetchone()
        values = dict(zip(names, row, strict=True))
        for _ in range(count):
            values["id"] = str(uuid.uuid4())
            values.pop("number", None)
            marks = ", ".join("?" for _ in values)
            connection.execute(
                f"INSERT INTO nbexec_runs ({', '.join(values)}) VALUES ({marks})", list(values.values())
            )
