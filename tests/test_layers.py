"""A module imports only from lower levels: the table in CONTRIBUTING.md, enforced."""

from __future__ import annotations

import ast
from pathlib import Path

import jupyter_nbexec

PACKAGE = Path(jupyter_nbexec.__file__).parent
#: Level of each module or family; a family's own modules may import each other.
LEVELS = {
    "_version": 0,
    "errors": 0,
    "models": 0,
    "languages": 1,
    "parameters": 1,
    "inject": 1,
    "caching": 1,
    "outputs": 1,
    "truncation": 1,
    "in_kernel": 1,
    "output_widgets": 1,
    "result": 1,
    "steward": 1,
    "negotiation": 1,
    "requests": 1,
    "openapi": 1,
    "documents": 1,
    "endpoints": 1,
    "background": 2,
    "broadcast": 2,
    "telemetry": 2,
    "webhooks": 2,
    "migrations": 2,
    "store": 2,
    "kernels": 2,
    "notebooks": 2,
    "render": 2,
    "rendering": 2,
    "execute": 2,
    "watch": 2,
    "opening": 2,
    "membership": 3,
    "planning": 3,
    "live": 3,
    "perform": 3,
    "prepare": 3,
    "runs": 3,
    "serving": 3,
    "handlers": 4,
    "cli": 4,
    "app": 5,
    "serve": 5,
    "command": 5,
    "client": 1,
}
#: Inside one level: who may import whom.
NEIGHBOURS = {
    ("parameters", "languages"),
    ("inject", "parameters"),
    ("inject", "languages"),
    ("result", "in_kernel"),
    ("result", "steward"),
    ("result", "outputs"),
    ("documents", "outputs"),
    ("endpoints", "languages"),
    ("endpoints", "negotiation"),
    ("endpoints", "outputs"),
    ("endpoints", "requests"),
    ("openapi", "endpoints"),
    ("kernels", "background"),
    ("broadcast", "background"),
    ("render", "rendering"),
    ("rendering", "background"),
    ("webhooks", "background"),
    ("execute", "background"),
    ("notebooks", "background"),
    ("execute", "broadcast"),
    ("execute", "kernels"),
    ("watch", "execute"),
    ("opening", "background"),
    ("opening", "execute"),
    ("opening", "kernels"),
    ("watch", "kernels"),
    ("store", "migrations"),
    ("live", "planning"),
    ("perform", "live"),
    ("perform", "planning"),
    ("perform", "prepare"),
    ("prepare", "planning"),
    ("serving", "planning"),
    ("serving", "prepare"),
    ("runs", "live"),
    ("runs", "membership"),
    ("runs", "perform"),
    ("runs", "planning"),
    ("serve", "app"),
    ("command", "serve"),
}
#: Libraries that only some may know.
CONFINED = {
    "tornado": {"handlers", "app", "serve", "notebooks", "kernels"},
    "jupyter_server": {"handlers", "app", "serve", "notebooks", "kernels"},
    "traitlets": {"app", "serve", "planning"},
    "sqlalchemy": {"store", "migrations"},
    "alembic": {"migrations"},
    "cryptography": {"webhooks"},
    "prometheus_client": {"telemetry"},
    "jupyter_events": {"telemetry"},
    "zmq": {"kernels", "execute", "opening", "perform"},
}


def unit(path: Path) -> str:
    """The module or family that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[tuple[str, ...]]:
    """What a file imports, as dotted names in parts."""
    found: set[tuple[str, ...]] = set()
    package = ("jupyter_nbexec", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            origin = (*above, *(node.module.split(".") if node.module else ()))
            found |= {(*origin, alias.name) for alias in node.names}
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py")


def test_every_module_has_a_level() -> None:
    """The table knows all modules, and no more."""
    assert {unit(path) for path in FILES} == set(LEVELS)


def test_imports_go_down() -> None:
    """No module imports from its own level or above, but for the neighbours named."""
    wrong = set()
    for path in FILES:
        importer = unit(path)
        for parts in imports(path):
            if parts[0] != "jupyter_nbexec" or len(parts) < 2 or parts[1] not in LEVELS:
                continue
            imported = parts[1]
            is_lower = LEVELS[imported] < LEVELS[importer]
            if imported != importer and not is_lower and (importer, imported) not in NEIGHBOURS:
                wrong.add((importer, imported))

    assert wrong == set()


def test_libraries_are_confined() -> None:
    """HTTP and configuration are known at the edge only."""
    wrong = {
        (unit(path), parts[0])
        for path in FILES
        for parts in imports(path)
        if unit(path) not in CONFINED.get(parts[0], {unit(path)})
    }

    assert wrong == set()
