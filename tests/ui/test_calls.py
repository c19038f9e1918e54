"""Every call that the panel shows, executed as it is: the notebook receives the values of the form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import expect

from tests.ui.application import Lab, Panel

HOSTILE = [
    "$HOME `id` $(id) ${PATH} !! \\",
    "it's \"quoted\" '\\''",
    "two\nlines\tand\r\nmore",
    "é 漢 😀 \u2028",
    "EOF",
    "--server",
    "@/etc/passwd",
    "%s {0} {{x}}",
    "<script>alert(1)</script> &amp;",
    "",
    "null",
    "12",
    12345678901234567890123,
    -1.5e300,
    True,
    None,
    {"a b": [1, {"'": '"'}]},
]
COMMANDS = {
    "curl": ["bash", "-c"],
    "HTTPie": ["bash", "-c"],
    "jupyter nbexec": ["bash", "-c"],
    "Python": [sys.executable, "-c"],
    "JavaScript": ["node", "--input-type=module", "-e"],
}
BEGINNINGS = {
    "curl": "curl -X POST",
    "HTTPie": "http --ignore-stdin POST",
    "jupyter nbexec": "jupyter nbexec run",
    "Python": "import requests",
    "JavaScript": "await fetch(",
}


def test_every_call_gives_the_notebook_the_values_of_the_form(lab: Lab) -> None:
    """Quotes, variables, newlines, large numbers and letters of all alphabets arrive as they were given."""
    cells: list[str | tuple[str, str]] = [("a: list = []\nb: str = ''", "parameters"), "[a, b]"]
    path = lab.server.write("hostile 'values' $HOME.ipynb", cells)
    panel = lab.serve(path)
    panel.give(json.dumps({"a": HOSTILE, "b": HOSTILE[0]}))
    environment = {**os.environ, "PATH": search_path(), "JUPYTER_TOKEN": lab.server.token}
    texts = {kind: take_call(panel, kind) for kind in COMMANDS}
    assert len(set(texts.values())) == len(COMMANDS)
    for kind, text in texts.items():
        assert lab.server.token not in text
        command = [*COMMANDS[kind], text]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, (kind, done.stderr)

    runs = lab.server.runs(path)
    assert len(runs) == len(COMMANDS)
    for run in runs:
        assert (run["status"], run["error"]) == ("succeeded", None)
        assert run["parameters"] == {"a": HOSTILE, "b": HOSTILE[0]}
        assert run["result"] == [HOSTILE, HOSTILE[0]]


def take_call(panel: Panel, kind: str) -> str:
    """Choose a language; the text of the call."""
    panel.node.get_by_role("tab", name=kind, exact=True).click()
    expect(panel.code).to_contain_text(BEGINNINGS[kind])
    expect(panel.code).to_contain_text("12345678901234567890123")
    return panel.code.inner_text()


def search_path() -> str:
    """Where programs are: those of this environment first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
