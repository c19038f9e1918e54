"""Every call that the panel shows, executed as it is: the notebook receives the values of the form."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.ui.application import Lab

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


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_call_gives_the_notebook_the_values_of_the_form(lab: Lab, kind: str) -> None:
    """Quotes, variables, newlines, large numbers and letters of all alphabets arrive as they were given."""
    if kind == "HTTPie" and shutil.which("http", path=search_path()) is None:
        pytest.skip("HTTPie is not installed")
    cells: list[str | tuple[str, str]] = [("a: list = []\nb: str = ''", "parameters"), "[a, b]"]
    panel = lab.serve(lab.server.write("hostile 'values' $HOME.ipynb", cells))
    panel.give(json.dumps({"a": HOSTILE, "b": HOSTILE[0]}))
    panel.node.get_by_role("tab", name=kind, exact=True).click()
    expect(panel.code).to_contain_text("12345678901234567890123")
    text = panel.code.inner_text()
    assert lab.server.token not in text

    environment = {**os.environ, "PATH": search_path(), "JUPYTER_TOKEN": lab.server.token}
    command = [*COMMANDS[kind], text]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    assert done.returncode == 0, done.stderr
    (run, *_) = lab.server.runs("hostile 'values' $HOME.ipynb")
    assert run["status"] == "succeeded"
    assert run["parameters"] == {"a": HOSTILE, "b": HOSTILE[0]}
    assert run["result"] == [HOSTILE, HOSTILE[0]]


def search_path() -> str:
    """Where programs are: those of this environment first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
