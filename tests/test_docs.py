"""What the documentation claims: names that exist, all of them, and commands that work."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import textwrap
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

from jupyter_nbexec import app, cli, client, errors, models
from jupyter_nbexec.serve import application, gateway
from tests import gateways, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.test_client import LiveServer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
DOCS = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
TRAITS = dict(app.NbExec.class_own_traits(config=True))


def section(title: str) -> str:
    """The text of a section of the README."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of a table's rows."""
    for line in text.splitlines():
        if line.startswith("| `") or re.match(r"\| \d", line):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def blocks(language: str) -> list[str]:
    """All code blocks of a language."""
    found = re.findall(rf"^[ ]*```{language}\n(.*?)^[ ]*```$", DOCS, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in found]


def every_error(kind: type[errors.NbexecError] = errors.NbexecError) -> Iterator[type[errors.NbexecError]]:
    """An error and all below it."""
    yield kind
    for child in kind.__subclasses__():
        yield from every_error(child)


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """All options of a command and its subcommands."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from options(child)


def test_the_two_commands_exist() -> None:
    """The README begins with commands that the Makefile has, and the first success within thirty lines."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    start = "\n".join(README.splitlines()[:30])

    for target in re.findall(r"(?:^|`)make ([a-z-]+)", DOCS, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert "make demo" in start
    assert "make test" in start
    assert "curl" in start


def test_every_trait_is_documented() -> None:
    """The table of configuration has the traits that there are, no more and no less."""
    assert {row[0].strip("`") for row in rows(section("Configuration"))} == set(TRAITS)


@pytest.mark.parametrize("row", list(rows(section("Configuration"))), ids=lambda row: row[0].strip("`"))
def test_documented_defaults_are_the_defaults(row: list[str]) -> None:
    """Where the table gives a number or a truth value, it is the trait's default."""
    default = TRAITS[row[0].strip("`")].default_value
    if row[1].isdigit():
        assert float(row[1]) == default
    elif row[1] in ("True", "False"):
        assert row[1] == str(default)


def test_every_code_is_documented() -> None:
    """The README's tables have the codes of refusals and of failed runs, no more and no less."""
    listed = set(
        re.findall(r"`([a-z]+_[a-z_]+|stopping|timeout)`", section("Errors").replace("`kernel_id`", ""))
    )

    assert listed == {kind.code for kind in every_error()} | {code.value for code in models.ErrorCode}


def test_documented_statuses_are_the_statuses() -> None:
    """Each refusal has the status that the README says."""
    statuses = {kind.code: int(kind.status) for kind in every_error() if "code" in vars(kind)}

    for row in rows(section("Errors").split("A run that failed")[0]):
        for code in re.findall(r"`([a-z_]+)`", row[1]):
            assert statuses[code] == int(row[0]), code


def test_every_option_is_documented() -> None:
    """The page on the command line has the options that there are, no more and no less."""
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    existing = set(options(cli._parser()))

    assert {option for option in existing if f"`{option}" not in page and option not in page} == set()
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) <= existing


@pytest.mark.parametrize(
    "line", re.findall(r"^jupyter nbexec (?:run|describe) .*\.ipynb.*$", DOCS, re.MULTILINE)
)
def test_documented_commands_are_understood(line: str) -> None:
    """Each example of the command line parses."""
    cli._parser().parse_args(cli._shield_values(shlex.split(line)[2:]))


def test_every_option_of_serve_is_documented() -> None:
    """The page on serving has the options and settings that there are, no more and no less."""
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    table = page.split("\n## Options\n")[1].split("\n## ")[0]
    existing = {f"--{name}" for name in [*application.ServeApp.aliases, *application.ServeApp.flags]}
    assert set(re.findall(r"`(--[a-z_-]+)", table.split("All settings of")[0])) == existing
    settings = page.split("\n## Configuration\n")[1].split("\n## ")[0]
    own = set(application.ServeApp.class_own_traits(config=True))
    assert {row[0].strip("`") for row in rows(settings)} == own


def test_documented_differences_name_real_options() -> None:
    """What the page says of Kernel Gateway's options are options that it has."""
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8").split("\n## From Kernel Gateway\n")[1]
    named = {name for row in rows(page) for name in re.findall(r"`([a-z_]+)`", row[0])}
    assert named
    assert named <= {trait for _, trait in gateway.OPTIONS}


def test_documented_serving_works(tmp_path: Path) -> None:
    """What the page on serving begins with works: the command, and the call."""
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    command, call = re.findall(r"^```sh\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)[:2]
    assert command in README
    port = str(gateways.free_port())
    words = shlex.split(command.replace("9090", port).replace("examples/", f"{ROOT}/examples/"))
    assert words[:3] == ["jupyter", "nbexec", "serve"]
    with served.serving(tmp_path, *words[3:], port=int(port), token=""):
        called = call.replace("9090", port).replace("curl", "curl --silent --noproxy '*' --max-time 60")
        done = subprocess.run(
            ["bash", "-euc", called], capture_output=True, text=True, check=True, timeout=100
        )
    assert list(json.loads(done.stdout)["features"]) == ["MedInc"]


@pytest.mark.parametrize("block", blocks("python"))
def test_documented_python_compiles(block: str) -> None:
    """Each example of Python is Python."""
    compile(block, "<docs>", "exec")


def test_documented_bodies_are_json() -> None:
    """What curl is told to send is JSON, for us or for JupyterHub."""
    sent = re.findall(r"-d '([^']*)'", DOCS)

    assert sent
    for body in sent:
        assert set(json.loads(body)) in ({"parameters"}, {"note", "expires_in", "scopes"})


def test_every_module_has_its_place() -> None:
    """The table of layers in CONTRIBUTING has every module and family."""
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("| level |")[1].split("\n\n")[0]
    package = ROOT / "jupyter_nbexec"
    modules = {path.stem for path in package.glob("[a-z]*.py")} | {
        f"{path.parent.name}/*" for path in package.glob("*/__init__.py")
    }

    assert set(re.findall(r"`([a-z_]+(?:/\*)?)`", table)) == modules


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Links between files of the repository point to files, and to headings, that are there."""
    # What is code may look like a link.
    text = re.sub(r"`[^`]*`", "", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [heading.lower().replace(" ", "-") for heading in headings], link


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples are for curl")
def test_documented_curl_works(live_server: LiveServer) -> None:
    """What the README does with an asynchronous run works, line by line, and says what it says there."""
    shutil.copy(ROOT / "examples" / "sum.ipynb", live_server.root)
    text = section("Runs that outlive the request")
    start, then = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (shown,) = re.findall(r"^```\n(HTTP.*?)^```$", text, re.MULTILINE | re.DOTALL)
    base_path = urllib.parse.urlsplit(live_server.url).path

    def sh(lines: str) -> str:
        lines = lines.replace("http://localhost:8888", live_server.url).replace("secret", live_server.token)
        lines = lines.replace("curl", "curl --silent --noproxy '*' --max-time 100")
        done = subprocess.run(
            ["bash", "-euc", lines], capture_output=True, text=True, check=True, timeout=200
        )
        return done.stdout

    answer = sh(start)
    headers = dict(line.split(": ", 1) for line in answer.splitlines() if ": " in line and "{" not in line)
    assert answer.startswith("HTTP/1.1 202 Accepted")
    assert headers["Preference-Applied"] == "respond-async"
    run_id = headers["Location"].rpartition("/")[2]
    assert headers["Location"] == f"{base_path}/api/nbexec/runs/{run_id}"
    for line in shown.splitlines()[:3]:
        assert re.sub(r"[0-9a-f-]{36}", run_id, line).replace("/api", f"{base_path}/api") in answer

    setting, *lines = re.sub(r"[0-9a-f-]{36}", run_id, then).splitlines()
    waited, events, notebook, cancelled, deleted, listed = (sh(f"{setting}\n{line}") for line in lines)
    assert json.loads(waited)["result"] == 42
    assert events.count("event: end") == 1
    assert json.loads(notebook)["nbformat"] == 4
    assert json.loads(cancelled)["code"] == "run_ended"
    assert deleted == ""
    assert set(json.loads(listed)) == {"runs", "cursor"}


EXAMPLES = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_fit_to_be_read(path: Path) -> None:
    """Each example is valid, explains itself, declares parameters or endpoints, and stores no outputs."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(notebook)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]

    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["cells"][0]["source"].startswith("# ")
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"]] == []
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", ())]
    endpoints = [cell for cell in code if re.match(r"# (GET|POST) /", cell["source"])]
    assert len(tagged) == (0 if endpoints else 1)


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("sum.ipynb", {"a": 20, "b": 22}, 42),
        ("iris.ipynb", {"petal_length": 5.4, "petal_width": 2.1}, "virginica"),
        ("sales.ipynb", {"region": "EU", "since": "2025-07-01", "top": 1}, "EU"),
    ],
)
def test_examples_work(
    live_server: LiveServer, name: str, parameters: dict[str, Any], expected: object
) -> None:
    """Each example runs by HTTP with parameters, and its result is what the documents say."""
    shutil.copytree(ROOT / "examples", live_server.root / "examples", dirs_exist_ok=True)

    with client.Client(live_server.url, live_server.token) as connected:
        run = connected.run(f"examples/{name}", parameters, timeout=200).raise_for_status()

    found = run.result
    if isinstance(found, dict):
        found = found.get("species") or found["region"]
    assert found == expected
