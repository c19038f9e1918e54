"""The command line and runs that exist: lists, waiting, following, and what a terminal is shown."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from hypothesis import example, given, strategies

from jupyter_nbexec import cli, client, models
from jupyter_nbexec.cli import follow, runs, terminal
from tests import contract
from tests.contract import CANCELLED, FAILED, ID, OTHER, QUEUED, RUN, RUNNING, ContractServer
from tests.terminals import on_a_terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import LiveServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ContractServer]:
    """A server that speaks the contract, in an environment with neither tokens nor Jupyter servers."""
    for name in ("NBEXEC_TOKEN", "JUPYTER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    with contract.serving(ContractServer()) as started:
        yield started


def command(server: ContractServer, *arguments: str) -> list[str]:
    """A command on runs, as a process of its own."""
    return [sys.executable, "-m", "jupyter_nbexec.cli", "runs", *arguments, "--server", server.url]


def call(server: ContractServer, *arguments: str) -> int:
    """Carry out a command on runs here."""
    return cli.main(["runs", *arguments, "--server", server.url])


# Starting without waiting


def test_async_prints_the_queued_run(server: ContractServer, capsys: pytest.CaptureFixture[str]) -> None:
    """`run --async` submits, prints the run as it is queued, and ends with 0."""
    arguments = ["run", "sum.ipynb", "--async", "--idempotency-key", "k 1", "-p", "a", "1"]

    assert cli.main([*arguments, "--server", server.url]) == cli.SUCCEEDED

    out, err = capsys.readouterr()
    assert (json.loads(out), err) == (QUEUED, "")
    assert server.requests == [("POST", "sum.ipynb")]
    assert server.bodies == [{"parameters": {"a": 1}}]
    assert server.headers[0]["Prefer"] == "respond-async"
    assert server.headers[0]["Idempotency-Key"] == "k 1"


def test_async_has_one_shape(server: ContractServer, capsys: pytest.CaptureFixture[str]) -> None:
    """What has not run cannot be shown as a picture."""
    status = cli.main(["run", "a.ipynb", "--async", "--accept", "image/png", "--server", server.url])

    assert status == cli.REFUSED
    assert "--accept" in capsys.readouterr().err
    assert server.requests == []


@pytest.mark.parametrize("key", ["", "é", "x" * 256])
def test_a_bad_key_is_misuse(server: ContractServer, key: str) -> None:
    """A key that cannot be sent as it is, is not sent."""
    assert cli.main(["run", "a.ipynb", "--idempotency-key", key, "--server", server.url]) == cli.REFUSED
    assert server.requests == []


# Lists


def test_a_list_for_programs(server: ContractServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Where stdout is no terminal, the list is the server's JSON."""
    server.runs = [{**RUN, "id": OTHER}, FAILED, RUN]

    assert call(server, "list", "--limit", "2") == cli.SUCCEEDED
    assert json.loads(capsys.readouterr().out) == {"runs": server.runs[:2], "cursor": "2"}
    assert call(server, "list", "--path", "reports/sum.ipynb", "--status", "failed") == cli.SUCCEEDED
    assert json.loads(capsys.readouterr().out) == {"runs": [FAILED], "cursor": None}
    assert server.requests[1] == ("GET", "runs?path=reports%2Fsum.ipynb&status=failed&limit=50")


def test_all_runs_are_one_list(server: ContractServer, capsys: pytest.CaptureFixture[str]) -> None:
    """--all takes page after page."""
    server.runs = [RUN] * 1001

    assert call(server, "list", "--all") == cli.SUCCEEDED

    assert json.loads(capsys.readouterr().out) == {"runs": server.runs, "cursor": None}
    assert len(server.requests) == 3


def test_a_list_for_a_person(server: ContractServer) -> None:
    """On a terminal the list is a table, in which no path commands the terminal; --json is JSON still."""
    server.runs = [RUNNING, {**FAILED, "path": "a\x1b[2J\nb.ipynb"}, {**RUN, "path": None}]

    status, shown = on_a_terminal(command(server, "list", "--limit", "2"))
    assert status == cli.SUCCEEDED
    lines = shown.decode().split("\r\n")
    assert lines[0].split() == ["ID", "STATUS", "CREATED", "SECONDS", "PATH"]
    assert lines[1].split()[:3] == [ID, "running", "0/2"]
    assert re.search(
        r"failed \(cell_error\)  \d\d\d\d-\d\d-\d\d \d\d:\d\d  1\.5      a\\x1b\[2J\\nb.ipynb$", lines[2]
    )
    assert b"\x1b" not in shown
    assert "there are more runs" in lines[3]
    status, shown = on_a_terminal(command(server, "list", "--json"), stderr=subprocess.DEVNULL)
    assert json.loads(shown)["runs"] == server.runs


def test_a_table_shows_paths() -> None:
    """Paths come last and whole, with nothing in them that commands the terminal."""
    documents = (RUN, {**CANCELLED, "path": "é/\x1b.ipynb"}, {**QUEUED, "path": None})

    lines = runs._table([client.RunResult.from_json(document) for document in documents])

    assert [line.split()[-1] for line in lines] == ["PATH", "reports/sum.ipynb", "é/\\x1b.ipynb", "-"]
    assert lines[0].index("PATH") == lines[1].index("reports") == lines[2].index("é/")


def test_an_empty_list(server: ContractServer, capsys: pytest.CaptureFixture[str]) -> None:
    """No runs are a list, too."""
    server.runs = []

    assert call(server, "list") == cli.SUCCEEDED
    assert json.loads(capsys.readouterr().out)["runs"] == []
    assert on_a_terminal(command(server, "list"))[1].split() == [
        b"ID",
        b"STATUS",
        b"CREATED",
        b"SECONDS",
        b"PATH",
    ]


# One run


def test_show(server: ContractServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A run is printed as it is; showing a failed run is no failure."""
    server.runs = [FAILED]

    assert call(server, "show", ID) == cli.SUCCEEDED
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == (FAILED, "")
    assert call(server, "show", ID.upper(), "-o", str(tmp_path / "run.json")) == cli.SUCCEEDED
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8")) == FAILED


@pytest.mark.parametrize(
    ("run", "status", "complaint"),
    [
        (RUN, cli.SUCCEEDED, ""),
        (FAILED, cli.RUN_FAILED, "jupyter nbexec: the run failed: ValueError: \\x1b[2Jbad\n"),
        (CANCELLED, cli.RUN_FAILED, "jupyter nbexec: the run failed: The run was cancelled.\n"),
    ],
    ids=["succeeded", "failed", "cancelled"],
)
def test_wait(
    server: ContractServer,
    capsys: pytest.CaptureFixture[str],
    run: dict[str, Any],
    status: int,
    complaint: str,
) -> None:
    """Waiting ends as the run does, and prints it."""
    server.waited = [run]

    assert call(server, "wait", ID) == status
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == (run, complaint)
    assert server.requests == [("GET", f"runs/{ID}?wait=60")]


def test_wait_in_vain(server: ContractServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that has not ended in time is printed as it is, with an exit status of its own."""
    server.runs = [RUNNING]

    assert call(server, "wait", ID, "--timeout", "0.001") == cli.NOT_ENDED
    out, err = capsys.readouterr()
    assert json.loads(out) == RUNNING
    assert "has not ended in time: it is running" in err


def test_cancel(server: ContractServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Cancelling says nothing; what has ended cannot be cancelled."""
    server.runs = [RUNNING]

    assert call(server, "cancel", ID) == cli.SUCCEEDED
    assert capsys.readouterr() == ("", "")
    server.runs = [RUN]
    assert call(server, "cancel", ID) == cli.REFUSED
    assert capsys.readouterr() == ("", "jupyter nbexec: The run has ended. [run_ended]\n")


def test_delete_and_prune(server: ContractServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Forgetting one run says nothing, pruning how many were forgotten."""
    assert call(server, "delete", ID) == cli.SUCCEEDED
    assert server.runs == []
    assert capsys.readouterr() == ("", "")
    assert call(server, "prune") == cli.SUCCEEDED
    assert json.loads(capsys.readouterr().out) == {"deleted": 3}


def test_notebook(server: ContractServer, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    """The notebook goes to stdout or a file byte by byte, or as HTML."""
    assert call(server, "notebook", ID) == cli.SUCCEEDED
    assert capfdbinary.readouterr().out == b'{"cells": []}'
    assert call(server, "notebook", ID, "--html", "-o", str(tmp_path / "x.html")) == cli.SUCCEEDED
    assert (tmp_path / "x.html").read_bytes() == b"<p>\x1b[2J\xc2\x9b\xc3\xa9</p>"


def test_a_rendered_notebook_does_not_command_the_terminal(server: ContractServer) -> None:
    """On a terminal control sequences are left out."""
    status, shown = on_a_terminal(command(server, "notebook", ID, "--html"))

    assert (status, shown.decode()) == (cli.SUCCEEDED, "<p>é</p>")


@pytest.mark.parametrize("name", ["show", "wait", "follow", "cancel", "delete", "notebook"])
def test_a_run_that_is_not_there(
    server: ContractServer, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """An unknown id is refused by the server, by every command."""
    assert call(server, name, OTHER) == cli.REFUSED
    assert capsys.readouterr() == ("", "jupyter nbexec: There is no such run. [run_not_found]\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["show"],
        ["show", "x"],
        ["show", "../kernels"],
        ["show", ID, ID],
        ["list", "--limit", "0"],
        ["list", "--limit", "501"],
        ["list", "--limit", "5", "--all"],
        ["list", "--status", "lost"],
        ["wait", ID, "--timeout", "0"],
        ["follow", ID, "-o", "x"],
    ],
    ids=" ".join,
)
def test_misuse(arguments: list[str]) -> None:
    """What cannot be understood ends with status 2."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["runs", *arguments])
    assert ended.value.code == cli.REFUSED


def test_which_server(
    server: ContractServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without --server it is the one that serves the current folder, or the only one; several are listed."""
    runtime = tmp_path / "runtime"
    runtime.mkdir()

    def announce(name: str, root: Path, url: str) -> None:
        root.mkdir(exist_ok=True)
        info = {"url": url, "root_dir": str(root), "token": "t", "pid": os.getpid()}
        (runtime / f"jpserver-{name}.json").write_text(json.dumps(info), encoding="utf-8")

    monkeypatch.chdir(tmp_path)
    assert cli.main(["runs", "list"]) == cli.NO_SERVER
    announce("1", tmp_path / "one", server.url)
    assert cli.main(["runs", "list"]) == cli.SUCCEEDED
    assert server.headers[-1]["Authorization"] == "token t"
    announce("2", tmp_path / "other", "http://127.0.0.1:9/")
    assert cli.main(["runs", "list"]) == cli.NO_SERVER
    assert server.url in capsys.readouterr().err
    monkeypatch.chdir(tmp_path / "one")
    (tmp_path / "one" / "a.ipynb").write_text("{}", encoding="utf-8")
    assert cli.main(["runs", "list", "--path", "a.ipynb"]) == cli.SUCCEEDED
    assert server.requests[-1] == ("GET", "runs?path=a.ipynb&limit=50")


# Following


EVENTS: list[tuple[str, Any]] = [
    ("status", QUEUED),
    ("status", RUNNING),
    contract.cell(0, "started"),
    contract.stream("one \x1b[32mgreen"),
    contract.stream(" still\x1b[0m\n\x1b]0;title\x07"),
    contract.stream("careful\n", "stderr"),
    contract.cell(0, "ended"),
    contract.cell(1, "started"),
    ("output", {"output_type": "display_data", "data": {"image/png": "…"}, "metadata": {}}),
    ("output", {"output_type": "display_data", "data": {"text/plain": ["<Figure>\n", "\x1b[2Jx"]}}),
    ("clear", {"cell": 1, "cell_id": "b", "wait": True}),
    ("update", {"display_id": "d", "data": {}, "metadata": {}}),
    contract.stream("no newline"),
    ("output", {"output_type": "execute_result", "execution_count": 2, "data": {"text/plain": "15"}}),
    ("not yet invented", None),
    contract.cell(1, "ended"),
    ("end", RUN),
]
STDOUT = "one \x1b[32mgreen still\x1b[0m\n\x1b]0;title\x07<Figure>\n\x1b[2Jx\nno newline\n15\n"


def test_follow_into_a_pipe(server: ContractServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Outputs go where they belong, as they are; there is no bar."""
    server.events = EVENTS

    assert call(server, "follow", ID) == cli.SUCCEEDED
    assert capsys.readouterr() == (STDOUT, "careful\n")


def test_follow_on_a_terminal(server: ContractServer) -> None:
    """A terminal keeps colours, and gets nothing else that commands it."""
    server.events = EVENTS

    status, shown = on_a_terminal(command(server, "follow", ID), stderr=subprocess.DEVNULL)

    assert status == cli.SUCCEEDED
    text = shown.decode().replace("\r\n", "\n")
    assert text == ("one \x1b[32mgreen\x1b[0m\x1b[32m still\x1b[0m\n<Figure>\nx\nno newline\n15\n")


def test_follow_shows_progress(server: ContractServer) -> None:
    """A terminal's stderr has a bar under the outputs, which is gone at the end."""
    server.events = [*EVENTS[:10], contract.stream("partial")]
    server.is_held = True

    status, shown = on_a_terminal(command(server, "follow", ID), interrupt_at=b"partial")

    assert status == cli.INTERRUPTED
    assert b"[##########..........] 1/2 cells  running  in cell 1  " in shown
    # Nothing is drawn on a line that is not finished.
    assert b"partial" in shown
    assert b"1/2" not in shown.rpartition(b"partial")[2]


def test_a_failed_run_is_followed_to_its_end(
    server: ContractServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback goes to stderr once, without colours where that is no terminal; the status is 1."""
    error = {"output_type": "error", "ename": "E", "evalue": "", "traceback": FAILED["error"]["traceback"]}
    complaint = "jupyter nbexec: the run failed: ValueError: \\x1b[2Jbad\n"
    for events in ([("output", error), ("end", FAILED)], [("end", FAILED)]):
        server.events = events
        assert call(server, "follow", ID) == cli.RUN_FAILED
        assert capsys.readouterr() == ("", "Traceback\nValueError: bad\n" + complaint)
    server.events = [("output", {"output_type": "error", "ename": "E", "evalue": "v"}), ("end", CANCELLED)]
    assert call(server, "follow", ID) == cli.RUN_FAILED
    assert capsys.readouterr().err.startswith("E: v\n")


def test_a_lost_connection_is_made_again(server: ContractServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Each output is shown once, however often the connection breaks, and wherever."""
    server.events = EVENTS
    server.cuts = [5, 5, 9, 13]

    assert call(server, "follow", ID) == cli.SUCCEEDED
    assert capsys.readouterr() == (STDOUT, "careful\n")
    assert [headers.get("Last-Event-ID") for headers in server.headers] == [None, "5", "5", "9", "13"]


def test_follow_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    """A server that comes back on its port is found again."""
    first = ContractServer()
    first.events, first.is_held = EVENTS[:8], True
    with contextlib.ExitStack() as cleanup:
        with contract.serving(first):
            process = subprocess.Popen(
                command(first, "follow", ID), bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            cleanup.callback(process.wait, 30)
            cleanup.callback(process.kill)
            assert first.played.wait(60)
            assert process.stdout is not None
            seen = process.stdout.read(len(b"one "))
            first.drop()
        second = ContractServer(first.server_port)
        second.events = EVENTS
        with contract.serving(second):
            out, err = process.communicate(timeout=60)

    assert (seen + out).decode() == STDOUT
    assert (process.returncode, err) == (cli.SUCCEEDED, b"careful\n")
    assert second.headers[0]["Last-Event-ID"] == "8"


def test_follow_gives_up(server: ContractServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that stays away ends the command after --timeout, with the status for that."""
    server.events, server.cuts = EVENTS, [5] * 100

    assert call(server, "follow", ID, "--timeout", "0.1") == cli.NO_SERVER
    assert "was lost" in capsys.readouterr().err


def test_ctrl_c_leaves_the_run_alone(server: ContractServer) -> None:
    """Ctrl-C ends the following, not the run, and says so with the id; status 130."""
    server.events, server.is_held = EVENTS[:4], True
    process = subprocess.Popen(command(server, "follow", ID), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.read(4) == b"one "
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == cli.INTERRUPTED
    assert err.decode() == (
        f"jupyter nbexec: interrupted; run {ID} goes on; `jupyter nbexec runs cancel {ID}` cancels it\n"
    )
    assert server.hung_up.wait(30)
    assert [method for method, _ in server.requests] == ["GET"]


def test_a_reader_that_has_seen_enough(server: ContractServer) -> None:
    """When nobody reads stdout any more, following ends quietly, as a shell expects."""
    server.events = [contract.stream("x" * 100_000 + "\n")] * 50
    server.is_held = True
    process = subprocess.Popen(command(server, "follow", ID), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    with process, contextlib.ExitStack() as cleanup:
        cleanup.callback(process.kill)
        assert process.stdout.read(1) == b"x"
        process.stdout.close()
        err = process.stderr.read()
        status = process.wait(60)

    assert (status, err) == (cli.READER_GONE, b"")


def test_progress_is_told_in_words() -> None:
    """The bar shows what is known: a status, cells, the one that runs, seconds."""
    bar = follow.Progress()

    def take(kind: str, data: Any) -> str:
        run = client.RunResult.from_json(data) if kind == "status" else None
        bar.take(client.RunEvent(id=1, type=kind, data=data, run=run))
        return bar.text()

    assert bar.text() == "connecting"
    unknown = {**QUEUED, "progress": {"done": 0, "total": 0, "cell": None}}
    assert take("status", unknown) == "queued"
    assert take("status", RUNNING).startswith("[....................] 0/2 cells  running  ")
    assert "in cell 3" in take(*contract.cell(3, "started"))
    assert take(*contract.cell(3, "ended")).startswith("[##########..........] 1/2 cells  running")
    assert take(*contract.cell(None, "started")) == take(*contract.cell(None, "started"))
    take(*contract.cell(None, "ended"))
    assert take(*contract.cell(9, "ended")).startswith("[####################] 3/3 cells")
    bar.lost(client.ServerUnreachable("gone"))
    assert "connection lost, trying again" in bar.text()


# What a terminal may be sent


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\r\n\b", "plain\ttext\r\n\b"),
        ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
        ("\x1b[38;2;1;2;3mx\x1b[m", "\x1b[38;2;1;2;3mx\x1b[m"),
        ("\x1b[4:3mcurly\x1b[0m", "\x1b[4:3mcurly\x1b[0m"),
        ("\x1b[31mopen", "\x1b[31mopen\x1b[0m"),
        ("\x9b31mred\x9bm", "\x1b[31mred\x1b[m"),
        ("a\x1b[2J\x1b[H\x1b[?1049h\x1b[6nb", "ab"),
        ("a\x1b[>4;2mb\x1b[31 mc", "abc"),
        ("a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\c", "ablinkc"),
        ("a\x1bP1$r\x1b\\b\x90x\x9cc\x1b_y\x18d\x9dz\x9ce", "abcde"),
        ("a\x1b]0;never ended\nb", "a\nb"),
        ("a\x1b]0;x\x1b[2Jb", "ab"),
        ("a\x1b(0\x1b7\x1bcb\x1b#8c", "abc"),
        ("a\x1b\x1b[2J\x1béb", "aéb"),
        ("a\x00\x07\x0e\x0f\x7f\x84b", "ab"),
        ("a\x1b[3\n1mb", "a\n1mb"),
        ("a\x1b[" + "1" * 200 + "mb", "a" + "1" * 135 + "mb"),
        ("\x1b[", ""),
    ],
)
def test_only_colours_are_kept(text: str, shown: str) -> None:
    """Of all that commands a terminal only colours are left, whole or in pieces."""
    assert terminal.Colours()(text) == shown
    colours = terminal.Colours()
    assert uncoloured("".join(colours(character) for character in text)) == uncoloured(shown)


def uncoloured(text: str) -> str:
    """Text without colours."""
    return re.sub(r"\x1b\[[0-9;:]*m", "", text)


PIECES = strategies.lists(
    strategies.one_of(
        strategies.sampled_from(
            ["\x1b", "[", "]", "3", "1;", "m", "J", "\x07", "\\", "\x9b", "\x9d", "\n", "ab", "?", " "]
        ),
        strategies.text(max_size=3),
    ),
    max_size=30,
)


@given(pieces=PIECES)
@example(pieces=["\x1b[31m", "x" * 2000, *["\x1b[1m"] * 400])
def test_whatever_comes_no_terminal_is_commanded(pieces: list[str]) -> None:
    """However text is cut, what is shown is the same, ends without colours, and has no other command."""
    colours, whole = terminal.Colours(), "".join(pieces)
    shown = [colours(piece) for piece in pieces]

    assert not re.search(r"[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]", uncoloured("".join(shown)))
    assert uncoloured("".join(shown)) == uncoloured(terminal.Colours()(whole))
    for piece in shown:
        last = re.findall(r"\x1b\[[0-9;:]*m", piece)[-1:]
        assert last in ([], ["\x1b[0m"], ["\x1b[m"])
    assert terminal.without_colours(whole) == uncoloured("".join(shown))


@given(text=strategies.text(max_size=20))
def test_names_are_shown_on_one_line(text: str) -> None:
    """Names and messages are escaped as a whole."""
    assert terminal.plain(text).isprintable()


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日…"),
        ("a", 0, ""),
        ("", 5, ""),
    ],
)
def test_lines_are_cut_by_columns(text: str, width: int, shown: str) -> None:
    """Wide letters take two columns; the cut is marked."""
    assert terminal.cut(text, width) == shown


def test_every_status_is_offered() -> None:
    """`runs list --status` knows the statuses that there are."""
    for status in models.RunStatus:
        assert cli._parser().parse_args(["runs", "list", "--status", status.value]).status == status.value


def test_events_without_an_end_are_not_taken_for_a_success() -> None:
    """Who follows is told, should the end be missing."""
    with pytest.raises(client.UnexpectedAnswer):
        follow.follow([], follow.Progress())
    assert threading.active_count() >= 1


# A real server


def test_a_real_run_is_followed(
    live_server: LiveServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Submitted, followed, listed and shown by the command line alone."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell(source) for source in ("a = 1", "print('hello')\na + 41", "1 / 0")
    ]
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, live_server.root / "cli runs.ipynb")
    monkeypatch.setenv("NBEXEC_TOKEN", live_server.token)
    place = ["--server", live_server.url]

    assert cli.main(["run", "cli runs.ipynb", "--async", "-p", "a", "2", *place]) == cli.SUCCEEDED
    run_id = json.loads(capsys.readouterr().out)["id"]
    assert cli.main(["runs", "follow", run_id, *place]) == cli.RUN_FAILED
    out, err = capsys.readouterr()
    assert out == "hello\n43\n"
    assert "ZeroDivisionError" in err
    assert "\x1b" not in err
    assert cli.main(["runs", "wait", run_id, *place]) == cli.RUN_FAILED
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "cell_error"
    assert (
        cli.main(["runs", "list", "--path", "cli runs.ipynb", "--status", "failed", *place]) == cli.SUCCEEDED
    )
    assert [run["id"] for run in json.loads(capsys.readouterr().out)["runs"]] == [run_id]
    assert cli.main(["runs", "notebook", run_id, *place]) == cli.SUCCEEDED
    assert "hello" in capsys.readouterr().out
    command = [sys.executable, "-m", "jupyter_nbexec.cli", "runs", "follow", run_id, *place]
    status, shown = on_a_terminal(command)
    assert status == cli.RUN_FAILED
    assert b"hello\r\n" in shown
    assert b"\x1b[31m" in shown  # IPython's traceback is coloured
    assert cli.main(["runs", "delete", run_id, *place]) == cli.SUCCEEDED
    assert cli.main(["runs", "show", run_id, *place]) == cli.REFUSED
    assert "[run_not_found]" in capsys.readouterr().err
