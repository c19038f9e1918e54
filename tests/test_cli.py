"""The command line: what it sends, where answers go, which server it finds, how it ends."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httpx
import pytest

from jupyter_nbexec import __version__, cli
from jupyter_nbexec.cli import servers
from tests.terminals import on_a_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.test_client import LiveServer

RUN: dict[str, Any] = {
    "id": "0e3b2f6c-1111-4222-8333-444455556666",
    "path": "sum.ipynb",
    "status": "succeeded",
    "result": "é\x9b\ud83d",
    "outputs": [],
    "error": None,
}
FAILED = {**RUN, "status": "failed", "error": {"code": "cell_error", "message": "Oops: \x1b[2Jbad\nthing"}}
REFUSED = {"message": "There is no notebook at this path.", "reason": None, "code": "notebook_not_found"}


class FakeServer(http.server.ThreadingHTTPServer):
    """Answers every request alike, on a real socket, and keeps the last one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FakeHandler)
        self.url = f"http://127.0.0.1:{self.server_port}/base/"
        self.arrived = threading.Event()  #: a request is here
        self.hung_up = threading.Event()  #: the client closed its connection before the answer
        self.waits = False  #: never answer
        self.answers(200, RUN)

    def answers(
        self, status: int, body: dict[str, Any] | bytes, content_type: str = "application/json"
    ) -> None:
        """Set what is answered from now on."""
        self.status = status
        self.content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.content_type = content_type
        self.method = self.path = self.body = ""
        self.headers: dict[str, str] = {}

    @property
    def sent(self) -> Any:
        """The JSON of the last request."""
        return json.loads(self.body)


class FakeHandler(http.server.BaseHTTPRequestHandler):
    """One request to the fake server."""

    server: FakeServer

    def do_POST(self) -> None:
        """Keep the request; answer it, or wait until the client hangs up."""
        self.server.method, self.server.path = self.command, unquote(self.path)
        self.server.headers = dict(self.headers)
        self.server.body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.arrived.set()
        if self.server.waits:
            if self.connection.recv(1) == b"":
                self.server.hung_up.set()
            return
        self.send_response(self.server.status)
        self.send_header("Content-Type", self.server.content_type)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def do_GET(self) -> None:
        """Likewise."""
        self.do_POST()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeServer]:
    """A fake server, in an environment with neither tokens nor running Jupyter servers."""
    for name in ("NBEXEC_TOKEN", "JUPYTER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    with FakeServer() as fake:
        thread = threading.Thread(target=fake.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield fake
        finally:
            fake.shutdown()
            thread.join(10)


def run(server: FakeServer, *options: str, path: str = "sum.ipynb") -> int:
    """Run the command `run` against the fake server."""
    return cli.main(["run", path, "--server", server.url, *options])


def misuse(*arguments: str) -> None:
    """Expect that argparse refuses these arguments."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == cli.REFUSED


# What is sent


def test_a_plain_run(server: FakeServer, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A run without options prints one JSON document, the server's, and nothing else."""
    assert run(server) == cli.SUCCEEDED

    out, err = capfdbinary.readouterr()
    assert (server.method, server.path, server.sent) == ("POST", "/base/api/nbexec/sum.ipynb", {})
    assert json.loads(out) == RUN
    assert out.count(b"\n") == 1
    assert err == b""


def test_every_option_reaches_its_field(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each option becomes the field of the body that it mirrors."""
    monkeypatch.setenv("FROM_HERE", "h=1")
    options = "--timeout 5 --cell-timeout 0.5 --accept text/html --kernel ir --kernel-id k --no-allow-errors"
    server.answers(200, b"<p>", "text/html")

    run(
        server,
        *options.split(),
        "--outputs",
        "tags:a,b",
        "--env",
        "A=x=y",
        "--env",
        "FROM_HERE",
        "--save-as",
        "o/x",
    )

    assert server.headers["Accept"] == "text/html"
    assert server.sent == {
        "timeout": 5.0,
        "cell_timeout": 0.5,
        "kernel_name": "ir",
        "kernel_id": "k",
        "allow_errors": False,
        "outputs": {"tags": ["a", "b"]},
        "env": {"A": "x=y", "FROM_HERE": "h=1"},
        "save_as": "o/x",
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1e-5", -1e-5),
        ("12345678901234567890123", 12345678901234567890123),
        ("true", True),
        ("null", None),
        ('"5"', "5"),
        ('{"a": [1, {}]}', {"a": [1, {}]}),
        ("EU", "EU"),
        ("True", "True"),
        ("", ""),
        ("-hello", "-hello"),
        ("--server", "--server"),
        ("-p", "-p"),
        ("NaN", "NaN"),
        ("[Infinity]", "[Infinity]"),
        ("1,5", "1,5"),
        ("2026-11-20", "2026-11-20"),
        ("{", "{"),
        ("é\n$(x)", "é\n$(x)"),
    ],
)
def test_values_are_json_where_they_parse_as_json(server: FakeServer, text: str, value: Any) -> None:
    """A value of -p is strict JSON, else the string that it is; no value is taken for an option."""
    assert run(server, "-p", "x", text, "--parameter", "y", "2") == cli.SUCCEEDED

    assert server.sent == {"parameters": {"x": value, "y": 2}}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x", '{"a": 1, "a": 2}', "'a' is given twice"),
        ("x", "1e999", "too large for a float"),
        ("x", "9" * 5000, "cannot be kept"),
        ("x", "[" * 100_000, "cannot be kept"),
        ("x", "\udcff", "not valid Unicode"),
        ("y", "1", "-p y is given twice"),
    ],
    ids=["name twice", "float", "integer", "nesting", "unicode", "parameter twice"],
)
def test_values_are_never_bent(
    server: FakeServer, capsys: pytest.CaptureFixture[str], name: str, text: str, message: str
) -> None:
    """A value that cannot be sent as it is meant is refused before anything is sent."""
    assert run(server, "-p", "y", "0", "-p", name, text) == cli.REFUSED

    assert message in capsys.readouterr().err
    assert not server.arrived.is_set()


def test_files_are_merged_in_order_and_single_values_win(server: FakeServer, tmp_path: Path) -> None:
    """Later files win over earlier ones, and -p over files, wherever it stands."""
    (tmp_path / "1.json").write_text('\ufeff{"a": 1, "b": 1, "c": 1}', encoding="utf-8")
    (tmp_path / "2.yaml").write_text("b: 2\nc: 2\n", encoding="utf-8")

    run(server, "-p", "c", "3", "-f", str(tmp_path / "1.json"), "-f", str(tmp_path / "2.yaml"))

    assert server.sent == {"parameters": {"a": 1, "b": 2, "c": 3}}


def bomb(piece: str) -> str:
    """YAML of ten lines, each of which holds the one before again and again."""
    lines = ["a0: &a0 {b: 1}", *(f"a{n}: &a{n} {piece.format(f'*a{n - 1}')}" for n in range(1, 10))]
    return "\n".join(lines)


YAML = """\
day: 2026-11-20
moment: 2026-11-20 10:00:00.5+02:00
small: 1e-5
text: "1e-5"
base: &base {x: 1, y: [a, ~]}
more: {<<: *base, x: 2}
"""


def test_yaml_has_the_types_of_json(server: FakeServer, tmp_path: Path) -> None:
    """YAML's dates become ISO 8601 strings; numbers are numbers; anchors and merges work."""
    (tmp_path / "p.yml").write_text(YAML, encoding="utf-8")

    assert run(server, "-f", str(tmp_path / "p.yml")) == cli.SUCCEEDED

    assert server.sent["parameters"] == {
        "day": "2026-11-20",
        "moment": "2026-11-20T10:00:00.500000+02:00",
        "small": 1e-5,
        "text": "1e-5",
        "base": {"x": 1, "y": ["a", None]},
        "more": {"x": 2, "y": ["a", None]},
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.json", '{"a": 1, "a": 2}', "'a' is given twice"),
        ("p.json", "a: 1", "is not valid"),
        ("p.json", '{"a": NaN}', "NaN is no JSON"),
        ("p.json", "[1]", "must hold names"),
        ("p.yaml", "a: 1\na: 2", "'a' is given twice"),
        ("p.yaml", "x: {a: 1, a: 2}", "'a' is given twice"),
        ("p.yaml", "1: a", "must be a string"),
        ("p.yaml", "x: {no: 1}", "must be a string"),
        ("p.yaml", "a: .nan", "no JSON form"),
        ("p.yaml", "a: !!binary aGk=", "no JSON form"),
        ("p.yaml", "a: !!python/name:os.system", "is not valid"),
        ("p.yaml", "a: &a [*a]", "is not valid"),
        ("p.yaml", bomb("[{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}]"), "more than 500000 values"),
        ("p.yaml", bomb("{{<<: [{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}]}}"), "more than 500000 values"),
        ("p.yaml", f"a: {'1' * 4301}", "more than 4300 digits"),
        ("p.yaml", f"a: 1{':59' * 3000}", "more than 4300 digits"),
        ("p.yaml", f"a: 1{':59' * 400}.0", "is not valid"),
        ("p.yaml", "a: 2026-13-45", "is not valid"),
        ("p.yaml", "a: [", "is not valid"),
        ("p.yaml", "just text", "must hold names"),
        ("p.txt", "a: 1\na: 2", "'a' is given twice"),
    ],
)
def test_bad_files_are_refused(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, message: str
) -> None:
    """A file that does not say plainly which values it means is refused, naming the file."""
    (tmp_path / name).write_text(text, encoding="utf-8")

    assert run(server, "-f", str(tmp_path / name)) == cli.REFUSED

    err = capsys.readouterr().err
    assert message in err
    assert not server.arrived.is_set()


def test_a_missing_file_is_refused(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there is named."""
    assert run(server, "-f", "/nowhere/p.json") == cli.REFUSED
    assert "/nowhere/p.json cannot be read" in capsys.readouterr().err


def test_an_empty_yaml_file_holds_no_parameters(server: FakeServer, tmp_path: Path) -> None:
    """A file of comments alone is no mistake."""
    (tmp_path / "p.yaml").write_text("# none yet\n", encoding="utf-8")

    assert run(server, "-f", str(tmp_path / "p.yaml")) == cli.SUCCEEDED
    assert server.sent == {}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["run"],
        ["run", "a.ipynb", "b.ipynb"],
        ["run", "a.ipynb", "-p", "x"],
        ["run", "a.ipynb", "--timeout", "0"],
        ["run", "a.ipynb", "--timeout", "nan"],
        ["run", "a.ipynb", "--cell-timeout", "soon"],
        ["run", "a.ipynb", "--outputs", "first"],
        ["run", "a.ipynb", "--outputs", "tags:"],
        ["run", "a.ipynb", "--env", "=x"],
        ["run", "a.ipynb", "--env", "NOT_SET_ANYWHERE"],
        ["run", "a.ipynb", "--time", "5"],
        ["describe", "a.ipynb", "--timeout", "5"],
    ],
    ids=" ".join,
)
def test_misuse_has_its_own_exit_status(arguments: list[str]) -> None:
    """What cannot be understood ends with status 2, before anything is sent."""
    misuse(*arguments)


@pytest.mark.parametrize("url", ["localhost:8888", "http://[::1", "ftp://host"])
def test_a_bad_url_is_misuse(capsys: pytest.CaptureFixture[str], url: str) -> None:
    """What is no URL of a server is refused."""
    assert cli.main(["run", "a.ipynb", "--server", url]) == cli.REFUSED


def test_a_path_with_dots_is_misuse(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """On a named server the path is a contents path."""
    assert run(server, path="../a.ipynb") == cli.REFUSED
    assert "no contents path" in capsys.readouterr().err


# Tokens


def test_the_order_of_tokens(server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """--token wins, then NBEXEC_TOKEN, then the local server's own, then JUPYTER_TOKEN."""

    def sent_token(*options: str) -> str:
        assert run(server, *options) == cli.SUCCEEDED
        return server.headers.get("Authorization", "").removeprefix("token ")

    assert sent_token() == ""
    monkeypatch.setenv("JUPYTER_TOKEN", "general")
    assert sent_token() == "general"
    announce(server, tmp_path, root=tmp_path, token="own")
    assert sent_token() == "own"
    monkeypatch.setenv("NBEXEC_TOKEN", "ours")
    assert sent_token() == "ours"
    assert sent_token("--token", "given") == "given"


def test_the_token_of_a_pasted_url_is_used(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL as Jupyter prints it needs no further token."""
    monkeypatch.setenv("JUPYTER_TOKEN", "general")

    assert cli.main(["describe", "a.ipynb", "--server", f"{server.url}?token=pasted"]) == cli.SUCCEEDED

    assert server.headers["Authorization"] == "token pasted"
    assert server.path == "/base/api/nbexec/a.ipynb"


# Which server


def announce(server: FakeServer, tmp_path: Path, *, root: Path, token: str = "", name: str = "1") -> None:
    """Write a runtime file as a running server does."""
    runtime = tmp_path / "runtime"
    runtime.mkdir(exist_ok=True)
    info = {"url": server.url, "root_dir": str(root), "token": token, "pid": os.getpid()}
    (runtime / f"jpserver-{name}.json").write_text(json.dumps(info), encoding="utf-8")


def test_the_server_nearest_to_the_notebook_is_found(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several servers the one with the deepest root that has the notebook is taken."""
    deep = tmp_path / "a" / "b"
    (deep / "c").mkdir(parents=True)
    (deep / "c" / "x y.ipynb").write_text("{}", encoding="utf-8")
    with FakeServer() as other:
        announce(other, tmp_path, root=tmp_path / "a", name="1")
        announce(other, tmp_path, root=tmp_path / "elsewhere", name="2")
        announce(server, tmp_path, root=deep, token="t", name="3")
        monkeypatch.chdir(deep / "c")

        assert cli.main(["run", "x y.ipynb"]) == cli.SUCCEEDED

    assert server.path == "/base/api/nbexec/c/x y.ipynb"
    assert server.headers["Authorization"] == "token t"


@pytest.mark.parametrize(
    ("cwd", "argument", "expected"),
    [
        ("root", "sub/x.ipynb", "sub/x.ipynb"),
        ("root/sub", "x.ipynb", "sub/x.ipynb"),
        ("root/sub", "../y.ipynb", "y.ipynb"),
        ("root/sub", "sub/x.ipynb", "sub/x.ipynb"),
        ("root/sub", "new.ipynb", "sub/new.ipynb"),
        (".", "root/sub/x.ipynb", "sub/x.ipynb"),
        (".", "sub/x.ipynb", "sub/x.ipynb"),
        (".", "remote.ipynb", "remote.ipynb"),
        (".", "link/x.ipynb", "sub/x.ipynb"),
    ],
)
def test_a_file_becomes_its_path_on_the_server(
    server: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cwd: str,
    argument: str,
    expected: str,
) -> None:
    """A file is found from wherever one stands; what is no file here is a path on the server."""
    sub = tmp_path / "root" / "sub"
    sub.mkdir(parents=True)
    for file in (sub / "x.ipynb", sub.parent / "y.ipynb"):
        file.write_text("{}", encoding="utf-8")
    (tmp_path / "link").symlink_to(sub)
    announce(server, tmp_path, root=tmp_path / "root")
    monkeypatch.chdir(tmp_path / cwd)

    assert cli.main(["describe", argument]) == cli.SUCCEEDED

    assert (server.method, server.path) == ("GET", f"/base/api/nbexec/{expected}")


def test_no_server_has_its_own_exit_status(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a running server the command says so, with status 3."""
    assert cli.main(["run", "a.ipynb"]) == cli.NO_SERVER
    assert "No Jupyter server is running" in capsys.readouterr().err


def test_a_notebook_that_no_server_serves(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file outside of all roots is not looked for on some server; those that run are listed."""
    (tmp_path / "root").mkdir()
    announce(server, tmp_path, root=tmp_path / "root")
    (tmp_path / "x.ipynb").write_text("{}", encoding="utf-8")

    assert cli.main(["run", str(tmp_path / "x.ipynb")]) == cli.NO_SERVER

    err = capsys.readouterr().err
    assert "No running server serves" in err
    assert server.url in err


def test_a_server_that_is_gone_has_the_same_exit_status(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A URL where nothing answers is no server."""
    with FakeServer() as gone:
        pass

    assert run(gone) == cli.NO_SERVER
    assert "No server answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b'{"url": "http://h/"}', b'{"url": 1, "root_dir": "/", "pid": 1}'],
)
def test_files_that_tell_of_no_server(server: FakeServer, tmp_path: Path, content: bytes) -> None:
    """A file that is half written, or of a server that has ended, hides no other, and stays where it is."""
    announce(server, tmp_path, root=tmp_path, name="2")
    ended = subprocess.Popen(["true"])
    ended.wait()
    info = {"url": "http://127.0.0.1:9/", "root_dir": str(tmp_path), "pid": ended.pid}
    (tmp_path / "runtime" / "jpserver-1.json").write_text(json.dumps(info), encoding="utf-8")
    (tmp_path / "runtime" / "jpserver-3.json").write_bytes(content)

    assert [found.url for found in servers.running_servers()] == [server.url]
    assert len(list((tmp_path / "runtime").iterdir())) == 3


def test_an_address_for_any_becomes_one_to_connect_to() -> None:
    """A server that listens everywhere is reached on the loopback interface."""
    assert servers._reachable("http://0.0.0.0:8888/x/") == "http://127.0.0.1:8888/x/"
    assert servers._reachable("http://[::]:8888/") == "http://[::1]:8888/"


# Where the answer goes, and how it ends


def test_a_failed_run(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A failed run is printed like any other; stderr says why, on one harmless line; status 1."""
    server.answers(500, FAILED)

    assert run(server) == cli.RUN_FAILED

    out, err = capsys.readouterr()
    assert json.loads(out) == FAILED
    assert err == "jupyter nbexec: the run failed: Oops: \\x1b[2Jbad\\nthing\n"


def test_warnings_are_told(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """What went otherwise than one may think is told on stderr, and no failure."""
    server.answers(200, {**RUN, "warnings": ["The executed notebook could not be saved."]})

    assert run(server, "--save-as", "x/") == cli.SUCCEEDED
    assert capsys.readouterr().err == "jupyter nbexec: warning: The executed notebook could not be saved.\n"


def test_a_refusal(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal leaves stdout empty; stderr has its message and code; status 2."""
    server.answers(404, REFUSED)

    assert run(server) == cli.REFUSED

    out, err = capsys.readouterr()
    assert out == ""
    assert err == "jupyter nbexec: There is no notebook at this path. [notebook_not_found]\n"


def test_a_description(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A description is printed as JSON."""
    server.answers(200, {"path": "a.ipynb"})

    assert cli.main(["describe", "a.ipynb", "--server", server.url]) == cli.SUCCEEDED
    assert capsys.readouterr().out == '{"path": "a.ipynb"}\n'


def test_bytes_go_to_a_pipe_as_they_are(
    server: FakeServer, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Another shape than JSON is passed on byte by byte."""
    server.answers(200, b"\x89PNG\r\n\xff", "image/png")

    assert run(server, "--accept", "image/png") == cli.SUCCEEDED
    assert capfdbinary.readouterr().out == b"\x89PNG\r\n\xff"


def test_an_answer_goes_to_a_file(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """-o replaces the file as a whole, keeps its mode and a link to it, and prints nothing."""
    file = tmp_path / "run.json"
    file.write_text("old", encoding="utf-8")
    file.chmod(0o640)
    (tmp_path / "link").symlink_to(file)

    assert run(server, "-o", str(tmp_path / "link")) == cli.SUCCEEDED

    assert json.loads(file.read_text(encoding="utf-8")) == RUN
    assert file.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert capsys.readouterr().out == ""


def test_a_failed_run_does_not_replace_a_file_of_another_shape(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a picture was asked for, a failed run's JSON goes to stdout and the old picture stays."""
    file = tmp_path / "plot.png"
    file.write_bytes(b"old")
    server.answers(500, FAILED)

    assert run(server, "--accept", "image/png", "-o", str(file)) == cli.RUN_FAILED

    assert file.read_bytes() == b"old"
    assert json.loads(capsys.readouterr().out) == FAILED


def test_the_notebook_of_a_failed_run_is_written(server: FakeServer, tmp_path: Path) -> None:
    """The executed notebook of a failed run is what was asked for."""
    server.answers(500, b"{}", "application/x-ipynb+json")
    file = tmp_path / "out.ipynb"

    assert run(server, "--accept", "application/x-ipynb+json", "-o", str(file)) == cli.RUN_FAILED
    assert file.read_bytes() == b"{}"


def test_a_file_that_cannot_be_written_is_refused_before_the_run(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run is not wasted for want of a place for its answer."""
    assert run(server, "-o", str(tmp_path / "missing" / "run.json")) == cli.REFUSED
    assert run(server, "-o", str(tmp_path)) == cli.REFUSED
    assert not server.arrived.is_set()


def test_a_device_is_written_in_place(server: FakeServer) -> None:
    """-o /dev/null is no file to be replaced."""
    assert run(server, "-o", "/dev/null") == cli.SUCCEEDED


# As a process


def command(server: FakeServer | LiveServer, *options: str, path: str = "sum.ipynb") -> list[str]:
    """The command line of a run, as a process of its own."""
    return [sys.executable, "-m", "jupyter_nbexec.cli", "run", path, "--server", server.url, *options]


def test_a_terminal_gets_indented_json_without_control_characters(server: FakeServer) -> None:
    """A person gets indented JSON with readable letters, none of which commands the terminal."""
    status, shown = on_a_terminal(command(server), stderr=subprocess.DEVNULL)

    assert status == cli.SUCCEEDED
    assert b'\r\n  "result": "\xc3\xa9\\u009b\\ud83d",\r\n' in shown
    assert json.loads(shown) == RUN


def test_a_terminal_gets_no_binary(server: FakeServer) -> None:
    """A picture is not sent to a terminal, and the run not wasted."""
    status, shown = on_a_terminal(command(server, "--accept", "image/png"))

    assert status == cli.REFUSED
    assert b"not for a terminal" in shown
    assert not server.arrived.is_set()


def test_ctrl_c_hangs_up(server: FakeServer) -> None:
    """While it waits a terminal shows how long; Ctrl-C closes the connection; status 130."""
    server.waits = True

    status, shown = on_a_terminal(command(server), interrupt=server.arrived)

    assert status == cli.INTERRUPTED
    assert b" s  sum.ipynb" in shown
    assert b"interrupted" in shown
    assert b"Traceback" not in shown
    assert server.hung_up.wait(30)


def test_a_reader_that_has_seen_enough_is_no_error(server: FakeServer) -> None:
    """A closed pipe is no reason for a traceback; the status stays the run's."""
    server.answers(200, {**RUN, "result": "x" * 1_000_000})
    process = subprocess.Popen(command(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    with process, contextlib.ExitStack() as cleanup:
        cleanup.callback(process.kill)
        process.stdout.close()
        err = process.stderr.read()
        status = process.wait(60)

    assert (status, err) == (cli.SUCCEEDED, b"")


#: Executes what it is given, and then tells on stderr what else than Python's own modules is loaded.
_TELLING = """
import sys
exec(sys.argv.pop(1))
loaded = {name for name in sys.modules if name.partition(".")[0] not in sys.stdlib_module_names}
sys.stderr.write(" ".join(loaded | {"asyncio"} & sys.modules.keys()))
"""


def loaded_by(code: str, *arguments: str) -> set[str]:
    """Name the modules that are loaded once this code has been executed."""
    done = subprocess.run(
        [sys.executable, "-c", _TELLING, code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        (["--token=t", "--server"], set()),
        (["--server"], {"jupyter_core", "platformdirs", "psutil"}),
        ([], {"jupyter_core", "platformdirs", "psutil"}),
    ],
)
def test_a_command_loads_what_it_needs(
    server: FakeServer, tmp_path: Path, options: list[str], needed: set[str]
) -> None:
    """A command starts in a fraction of a second, since it loads an HTTP client and nothing of a server."""
    announce(server, tmp_path, root=tmp_path)
    url = [server.url] if "--server" in options else []
    command = "from jupyter_nbexec import command; assert command.main() == 0"
    loaded = loaded_by(command, "run", "sum.ipynb", *options, *url)
    assert server.path.endswith("/sum.ipynb")

    more = loaded - loaded_by("import httpx; httpx.Client().close()")

    assert {name.partition(".")[0] for name in more} == {"jupyter_nbexec", *needed}
    families = {name.split(".")[1] for name in more if name.startswith("jupyter_nbexec.")}
    assert families == {"_version", "cli", "client", "command", "models"}


def test_the_command_is_installed() -> None:
    """`jupyter nbexec` finds the command, and it knows its version."""
    programs = Path(sys.executable).parent
    done = subprocess.run(
        [programs / "jupyter", "nbexec", "--version"],
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.strip() == __version__


# A real server


def test_a_real_run(
    live_server: LiveServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way: a notebook, its parameters, a result, a picture of it as HTML."""
    write_notebook(live_server, "cli sum.ipynb", "a: int = 1\nb = ''", "[a, b]")
    monkeypatch.setenv("NBEXEC_TOKEN", live_server.token)
    base = ["cli sum.ipynb", "--server", live_server.url]

    assert cli.main(["run", *base, "-p", "a", "-5", "-p", "b", "NaN", "--timeout", "60"]) == cli.SUCCEEDED
    assert json.loads(capsys.readouterr().out)["result"] == [-5, "NaN"]
    assert cli.main(["run", *base, "-p", "a", "1.5"]) == cli.REFUSED
    assert "[invalid_parameter]" in capsys.readouterr().err
    assert cli.main(["describe", *base]) == cli.SUCCEEDED
    assert [parameter["name"] for parameter in json.loads(capsys.readouterr().out)["parameters"]] == [
        "a",
        "b",
    ]
    assert cli.main(["run", *base, "--accept", "text/html"]) == cli.SUCCEEDED
    assert "<html" in capsys.readouterr().out


def test_a_real_failure(
    live_server: LiveServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cell that raises ends the command with status 1, and its outputs are there."""
    write_notebook(live_server, "cli-fails.ipynb", "print('before')", "1 / 0")
    monkeypatch.setenv("NBEXEC_TOKEN", live_server.token)

    assert cli.main(["run", "cli-fails.ipynb", "--server", live_server.url]) == cli.RUN_FAILED

    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["ename"] == "ZeroDivisionError"
    assert json.loads(out)["outputs"][0]["text"] == "before\n"
    assert "ZeroDivisionError" in err


def test_ctrl_c_cancels_a_real_run(live_server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the command with status 130, and the run and its kernel on the server."""
    started = live_server.root / "cli-started"
    sources = f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(300)"
    write_notebook(live_server, "cli-sleeps.ipynb", "a = 1", sources)
    monkeypatch.setenv("NBEXEC_TOKEN", live_server.token)
    process = subprocess.Popen(command(live_server, path="cli-sleeps.ipynb"), stderr=subprocess.PIPE)
    try:
        wait_until(started.exists)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == cli.INTERRUPTED
    assert b"interrupted" in err
    with httpx.Client(
        headers={"Authorization": f"token {live_server.token}"}, trust_env=False
    ) as http_client:
        wait_until(lambda: http_client.get(f"{live_server.url.rstrip('/')}/api/kernels").json() == [])


def write_notebook(server: LiveServer, name: str, parameters: str, source: str) -> None:
    """Put a notebook of two cells below the server's root; the first is tagged `parameters`."""

    def cell(tags: list[str], source: str) -> dict[str, Any]:
        empty: dict[str, Any] = {"outputs": [], "execution_count": None}
        return {
            "cell_type": "code",
            "id": f"c{len(tags)}",
            "metadata": {"tags": tags},
            "source": source,
            **empty,
        }

    cells = [cell(["parameters"], parameters), cell([], source)]
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}
    (server.root / name).write_text(json.dumps(notebook), encoding="utf-8")


def wait_until(condition: Callable[[], bool], *, timeout: float = 60.0) -> None:
    """Look again and again, since no event tells, until a condition holds; fail past the deadline."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "this takes too long"
        time.sleep(0.05)
