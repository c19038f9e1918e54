"""The front end's own checks: style, types, units; and what its files may not hold."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jupyter_nbexec

UI = Path(__file__).parents[2] / "ui"
JLPM = [sys.executable, "-c", "from jupyter_builder import jlpm; jlpm.main()"]


@pytest.mark.parametrize("command", ["lint", "test"])
def test_the_front_end_passes_its_own_checks(front_end: None, command: str) -> None:
    """ESLint, Prettier, TypeScript and the unit tests find nothing."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path}
    if not (UI / "node_modules").is_dir():
        install = [*JLPM, "install", "--immutable"]
        subprocess.run(install, cwd=UI, env=environment, capture_output=True, check=True)
    done = subprocess.run(
        [*JLPM, command], cwd=UI, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]


def test_the_lock_file_names_no_address() -> None:
    """Whoever installs takes packages from the registry that is configured there, whatever we had."""
    lock = (UI / "yarn.lock").read_text(encoding="utf-8")
    assert re.findall(r"__archiveUrl|https?:", lock) == []


def test_both_parts_have_the_same_version() -> None:
    """The version of `ui/package.json` is that of the Python package."""
    package = json.loads((UI / "package.json").read_text(encoding="utf-8"))
    assert package["version"] == jupyter_nbexec.__version__


def test_settings_have_the_documented_defaults() -> None:
    """The table of `docs/jupyterlab.md` has all settings, with their defaults."""
    schema = json.loads((UI / "schema" / "plugin.json").read_text(encoding="utf-8"))
    page = (UI.parent / "docs" / "jupyterlab.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", page, re.MULTILINE))
    defaults = {name: entry["default"] for name, entry in schema["properties"].items()}
    written = {
        name: f"`{value}`" if isinstance(value, str) else json.dumps(value)
        for name, value in defaults.items()
    }
    assert rows == written
