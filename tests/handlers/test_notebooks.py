"""`GET /api/nbexec/<path>`, and which notebook a path means, however it is written."""

from __future__ import annotations

import json
import urllib.parse
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from jupyter_server.services.contents.checkpoints import AsyncCheckpoints
from jupyter_server.services.contents.manager import AsyncContentsManager
from tornado import web

if TYPE_CHECKING:
    from tests.handlers.conftest import Server

DECLARING = """\
region = 'EU'  # Where it was sold
rows: int = 5
since: str | None = None
limit: float
path = some_function()
"""


async def test_description(server: Server) -> None:
    """A description has the parameters, their schema, the kernel and the links, as API.md section 1 says."""
    file = server.write("reports/sales.ipynb", server.cell(DECLARING, "parameters"), "region")
    stored = file.read_bytes()
    answer = await server.describe("reports/sales.ipynb")
    assert (answer.status, answer.media_type) == (200, "application/json")
    described = answer.json
    assert set(described) == {
        "path",
        "kernel",
        "parameters",
        "schema",
        "endpoints",
        "last_modified",
        "links",
    }
    assert described["path"] == "reports/sales.ipynb"
    assert described["kernel"] == {"name": "python3", "language": "python", "available": True}
    parameters = {each["name"]: each for each in described["parameters"]}
    assert list(parameters) == ["region", "rows", "since", "limit", "path"]
    assert parameters["region"] == {
        "name": "region",
        "type": "string",
        "default": "EU",
        "required": False,
        "description": "Where it was sold",
    }
    assert (parameters["rows"]["type"], parameters["rows"]["default"]) == ("integer", 5)
    assert (parameters["limit"]["required"], parameters["limit"]["default"]) == (True, None)
    assert parameters["path"]["default_source"] == "some_function()"
    schema = described["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    assert schema["required"] == ["limit"]
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"limit": 1.5, "since": None})
    assert not validator.is_valid({"limit": "much"})
    assert described["endpoints"] == []
    modified = datetime.fromisoformat(described["last_modified"].replace("Z", "+00:00"))
    assert abs(modified - datetime.fromtimestamp(file.stat().st_mtime, timezone.utc)).total_seconds() < 1
    assert described["last_modified"].endswith("Z")
    base = server.base_url
    assert described["links"]["run"] == f"{base}api/nbexec/reports/sales.ipynb"
    assert described["links"]["openapi"] == f"{base}api/nbexec/openapi.json?path=reports/sales.ipynb"
    assert file.read_bytes() == stored
    assert server.started == []


async def test_links_lead_somewhere(server: Server) -> None:
    """The links of a description work as they are, whatever the name."""
    server.write("a b/50% #1?&é.ipynb", "1")
    described = (await server.describe(urllib.parse.quote("a b/50% #1?&é.ipynb"))).json
    links = {name: link.removeprefix(server.base_url) for name, link in described["links"].items() if link}
    assert (await server.fetch("GET", links["run"])).json["path"] == "a b/50% #1?&é.ipynb"
    assert (await server.fetch("POST", links["run"], "{}")).json["result"] == 1
    document = (await server.fetch("GET", links["openapi"])).json
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] != "jupyter_nbexec"


async def test_head(server: Server) -> None:
    """HEAD works where GET does, with the same headers and no body."""
    server.write("a.ipynb", "1")
    for path in ("api/nbexec/a.ipynb", "api/nbexec/openapi.json", "api/nbexec/openapi.json?path=a.ipynb"):
        whole = await server.fetch("GET", path)
        head = await server.fetch("HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == whole.headers["Content-Length"]
        assert head.headers["Content-Type"] == whole.headers["Content-Type"] == "application/json"
    assert (await server.fetch("HEAD", "api/nbexec/nope.ipynb")).status == 404


async def test_openapi(server: Server) -> None:
    """The document of one notebook has its parameters, typed; that of all has the paths."""
    server.write("a.ipynb", server.cell("x: int = 1", "parameters"))
    document = (await server.fetch("GET", "api/nbexec/openapi.json")).json
    assert any(path.endswith("/api/nbexec/openapi.json") for path in document["paths"])
    service = await server.fetch("GET", "api/nbexec/openapi.json?path=a.ipynb")
    assert '"x"' in service.body.decode()
    assert (await server.fetch("GET", "api/nbexec/openapi.json?path=nope.ipynb")).status == 404


async def test_unknown_kernel_is_described(server: Server) -> None:
    """A notebook whose kernel is not installed can still be described."""
    server.write("a.ipynb", "1", kernelspec={"name": "nope", "display_name": "N", "language": "julia"})
    described = (await server.describe("a.ipynb")).json
    assert described["kernel"] == {"name": "nope", "language": "julia", "available": False}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"kernelspec": {}},
        {"kernelspec": {"language": "python"}, "language_info": {}},
        {"kernelspec": {"name": "python3"}},
    ],
    ids=["none", "empty", "language", "no-display-name"],
)
async def test_no_kernelspec(server: Server, metadata: dict[str, Any]) -> None:
    """A notebook that names no kernel, or not fully, is run: on the server's default where it names none."""
    notebook = {**server.notebook("1"), "metadata": metadata}
    (server.root / "a.ipynb").write_text(json.dumps(notebook))
    assert (await server.describe("a.ipynb")).json["kernel"]["name"] == "python3"
    answer = await server.run("a.ipynb", save_as="out.ipynb")
    assert (answer.status, answer.json["kernel"]["name"]) == (200, "python3")
    assert answer.json["warnings"] == []


@pytest.mark.parametrize(
    "metadata", [{"kernelspec": []}, {"kernelspec": {"name": 5}}, {"language_info": "x"}]
)
async def test_broken_kernelspec(server: Server, metadata: dict[str, Any]) -> None:
    """A notebook whose kernelspec is none at all is refused."""
    notebook = {**server.notebook("1"), "metadata": metadata}
    (server.root / "a.ipynb").write_text(json.dumps(notebook))
    for answer in (await server.describe("a.ipynb"), await server.run("a.ipynb")):
        assert (answer.status, answer.json["code"]) == (422, "invalid_notebook")


@pytest.mark.parametrize(
    "path",
    [
        "with space.ipynb",
        "with#hash.ipynb",
        "50%.ipynb",
        "weirdly%20named#notebook.ipynb",
        "übung/данные/数据.ipynb",
        "emoji \U0001f600.ipynb",
        "a+b&c=d;e,f@g.ipynb",
        "question?.ipynb",
        "back\\slash.ipynb",
        "quote\"'.ipynb",
        " lead.ipynb",
        "runs/a.ipynb",
        "runs",
        "openapi.json/a.ipynb",
    ],
)
async def test_path(server: Server, path: str) -> None:
    """A notebook is reached under its percent-encoded path, by GET and by POST, whatever it is called."""
    if path == "runs":
        (server.root / "runs").mkdir()
        path = "runs/runs.ipynb"
    server.write(path, "7")
    kernel_id = await server.lend()
    encoded = urllib.parse.quote(path)
    assert (await server.describe(encoded)).json["path"] == path
    run = (await server.run(encoded, kernel_id=kernel_id)).json
    assert (run["path"], run["result"]) == (path, 7)


async def test_path_is_normalised(server: Server) -> None:
    """`./a.ipynb` is `a.ipynb`."""
    server.write("folder/a.ipynb", "1")
    assert (await server.describe("./folder/./a.ipynb")).json["path"] == "folder/a.ipynb"


async def test_stored_notebook_is_untouched(server: Server) -> None:
    """A run changes nothing of the stored file, nor of its saved outputs; stale outputs are not shown."""
    stale = {"output_type": "stream", "name": "stdout", "text": "stale\n"}
    cells = [server.cell("x = 1", "parameters"), server.cell("1 / 0"), server.cell("print('never')")]
    for cell in cells:
        cell["outputs"], cell["execution_count"] = [dict(stale)], 99
    file = server.write("a.ipynb", *cells)
    # Formatted as no program would.
    file.write_text(json.dumps(json.loads(file.read_text()), indent=7) + "\n\n")
    stored, modified = file.read_bytes(), file.stat().st_mtime_ns
    answer = await server.run("a.ipynb", parameters={"x": 2}, headers={"Accept": "application/x-ipynb+json"})
    assert answer.status == 500
    assert "stale" not in answer.body.decode()
    assert [cell["execution_count"] for cell in answer.json["cells"]] == [1, 2, 3, None]
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (stored, modified)
    assert sorted(each.name for each in server.root.iterdir()) == ["a.ipynb"]


async def test_changed_while_it_runs(server: Server) -> None:
    """A run is of the notebook as it was when it began (M33)."""
    target = server.root / "a.ipynb"
    server.write("a.ipynb", f"import os\nos.remove({str(target)!r})", "'as it was'")
    assert (await server.run("a.ipynb")).json["result"] == "as it was"


class Virtual(AsyncContentsManager):
    """A contents manager without a disk, whose notebooks are made of scripts, as jupytext's are."""

    saved: dict[str, Any] = {}  # noqa: RUF012 - one for all instances, as there is one

    def _checkpoints_class_default(self) -> type[AsyncCheckpoints]:
        return AsyncCheckpoints

    async def get(
        self,
        path: str,
        content: bool = True,
        type: str | None = None,  # noqa: A002 - as in AsyncContentsManager
        format: str | None = None,  # noqa: A002
        require_hash: bool = False,
    ) -> dict[str, Any]:
        """Give a notebook for a script."""
        path = path.strip("/")
        if path != "bucket/script.py":
            raise web.HTTPError(404, "no such object in s3://secret-bucket")
        moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
        cell: dict[str, Any] = {
            "cell_type": "code",
            "metadata": {"tags": ["parameters"]},
            "source": "x = 1",
            "outputs": [],
            "execution_count": None,
        }
        notebook = {
            "nbformat": 4,
            "nbformat_minor": 4,
            "metadata": {"kernelspec": {"name": "python3"}},
            "cells": [cell, {**cell, "metadata": {}, "source": "x + 1"}],
        }
        return {
            "name": "script.py",
            "path": path,
            "type": "notebook",
            "writable": True,
            "last_modified": moment,
            "created": moment,
            "mimetype": None,
            "format": "json" if content else None,
            "content": notebook if content else None,
        }

    async def save(self, model: dict[str, Any], path: str) -> dict[str, Any]:
        """Remember what was saved."""
        self.saved[path] = model
        return model

    async def dir_exists(self, path: str) -> bool:
        """Tell whether there is a folder."""
        return path in ("", "/", "bucket") or path in self.saved

    async def file_exists(self, path: str = "") -> bool:
        """Tell whether there is a file."""
        return path == "bucket/script.py"

    async def is_hidden(self, path: str) -> bool:
        """Hide nothing."""
        return False


@pytest.mark.server(ServerApp={"contents_manager_class": Virtual})
async def test_other_contents_manager(server: Server) -> None:
    """Notebooks that are no files are read, run and saved through the server's contents manager."""
    described = (await server.describe("bucket/script.py")).json
    assert [each["name"] for each in described["parameters"]] == ["x"]
    assert described["last_modified"] == "2026-01-01T00:00:00Z"
    answer = await server.run("bucket/script.py", parameters={"x": 4}, save_as="new/{name}.ipynb")
    run = answer.json
    assert (answer.status, run["path"], run["result"]) == (200, "bucket/script.py", 5)
    assert run["outputs"][0]["cell"] == 1
    assert run["outputs"][0]["cell_id"] is None
    assert run["saved_as"] == "new/script.ipynb"
    assert Virtual.saved["new"]["type"] == "directory"
    assert Virtual.saved["new/script.ipynb"]["content"]["cells"][2]["outputs"]
    missing = await server.run("bucket/other.py")
    assert (missing.status, missing.json["code"]) == (404, "notebook_not_found")
    assert "secret-bucket" not in missing.body.decode()
