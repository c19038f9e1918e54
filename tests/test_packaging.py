"""What is built: both archives have all that they need, and nothing of the workshop."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import jupyter_nbexec

ROOT = Path(__file__).parents[1]
SWAGGER_UI = "jupyter_nbexec/static/swagger-ui"
LABEXTENSION = "share/jupyter/labextensions/jupyter-nbexec"
CONFIG = "etc/jupyter/jupyter_server_config.d/jupyter_nbexec.json"


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def test_the_wheel_has_the_package_and_switches_it_on(archives: tuple[Path, Path]) -> None:
    """A wheel has every module, the marker of its types, the command, the licence, and Jupyter's switch."""
    with zipfile.ZipFile(archives[1]) as wheel:
        names = set(wheel.namelist())
        entry_points = next(name for name in names if name.endswith("/entry_points.txt"))
        commands = wheel.read(entry_points).decode()
    package = ROOT / "jupyter_nbexec"
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    modules = {path.relative_to(ROOT).as_posix() for path in files if "labextension" not in path.parts}

    assert modules <= names
    assert {"jupyter_nbexec/py.typed", "jupyter_nbexec/event_schemas/run/v1.yaml"} <= names
    assert [name for name in names if name.endswith(f".data/data/{CONFIG}")]
    assert [name for name in names if name.endswith("/LICENSE")]
    assert "jupyter-nbexec = jupyter_nbexec.command:main" in commands
    assert {name.split("/")[0].split("-")[0] for name in names} == {"jupyter_nbexec"}


def test_both_have_the_front_end_built(archives: tuple[Path, Path]) -> None:
    """Installing takes no Node.js: both have the front end built, the wheel where JupyterLab looks."""
    with zipfile.ZipFile(archives[1]) as wheel:
        installed = [name.partition(".data/data/")[2] for name in wheel.namelist()]
        (description,) = [name for name in wheel.namelist() if name.endswith(f"{LABEXTENSION}/package.json")]
        package = json.loads(wheel.read(description))
        has_docs_page = {f"{SWAGGER_UI}/{name}" for name in ("swagger-ui-bundle.js", "LICENSE", "NOTICE")}
        assert has_docs_page <= set(wheel.namelist())
    with tarfile.open(archives[0]) as sdist:
        sources = {name.partition("/")[2] for name in sdist.getnames()}

    assert has_docs_page <= sources
    assert f"{LABEXTENSION}/{package['jupyterlab']['_build']['load']}" in installed
    assert f"{LABEXTENSION}/install.json" in installed
    assert f"{LABEXTENSION}/schemas/jupyter-nbexec/plugin.json" in installed
    assert package["version"] == jupyter_nbexec.__version__
    assert {"jupyter_nbexec/labextension/package.json", "ui/src/index.ts", "ui/yarn.lock"} <= sources
    assert [name for name in sources if "node_modules" in name] == []


def test_the_sdist_has_what_a_build_and_a_reader_need(archives: tuple[Path, Path]) -> None:
    """An sdist has the sources, the switch, the tests and the documents, and no caches."""
    with tarfile.open(archives[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}

    for name in (
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "tests/test_packaging.py",
    ):
        assert name in names
    assert "jupyter-config/server-config/jupyter_nbexec.json" in names
    assert "examples/sales.csv" in names
    assert [name for name in names if "__pycache__" in name or name.startswith(".venv")] == []


def test_the_switch_is_where_jupyter_looks() -> None:
    """Installing has put the file that enables the extension into this environment."""
    assert (Path(sys.prefix) / CONFIG).is_file()


def test_the_version_is_everywhere_the_same() -> None:
    """The module, the installed package and the newest entry of the changelog agree."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[?(\d[\w.]*)", changelog, re.MULTILINE)
    assert newest is not None

    assert jupyter_nbexec.__version__ == metadata.version("jupyter_nbexec") == newest[1]
