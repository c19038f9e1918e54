"""What a server that was killed has left of its kernels' files is removed, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

from jupyter_nbexec.kernels import claims

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")

#: A server, as far as files are concerned.
SERVER = """
import pathlib, sys
from jupyter_nbexec.kernels import claims
claim = claims.Claim(sys.argv[1])
folder = claims.folder_of(claim.tag)
folder.mkdir()
names = [f"kernel-{claim.kernel_id()}{suffix}" for suffix in (".json", "-ipc-1")]
for path in (*(pathlib.Path(sys.argv[1], name) for name in names), folder / "0-1"):
    path.touch()
print(claim.tag, flush=True)
sys.stdin.read()
"""


def files(runtime: Path, temporary: Path) -> set[str]:
    """Names of all that is there."""
    return {path.name for folder in (runtime, temporary) for path in folder.iterdir()}


def test_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a server that was killed go; those of one that lives, here or elsewhere, and others' stay."""
    runtime, temporary = tmp_path / "runtime", tmp_path / "temporary"
    runtime.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    (runtime / f"kernel-{uuid.uuid4()}.json").touch()
    (runtime / "nbexec-0123456789ab.lock").write_text("another machine")
    (runtime / "kernel-01234567-89ab-4000-8000-000000000000.json").touch()
    others = files(runtime, temporary)
    command = [sys.executable, "-c", SERVER, str(runtime)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as server:
        assert server.stdout is not None
        tag = server.stdout.readline().strip()
        mine = files(runtime, temporary) - others
        assert len(mine) == 4
        assert all(tag in name.replace("-", "") for name in mine)
        assert claims.remove_left_behind(str(runtime)) == 0
        assert files(runtime, temporary) - others == mine
        server.kill()

    assert claims.remove_left_behind(str(runtime)) == 1
    assert files(runtime, temporary) == others


def test_released(tmp_path: Path) -> None:
    """A server that ends well leaves nothing; ids are UUIDs, of one server alike at the beginning only."""
    claim = claims.Claim(str(tmp_path))
    ids = {claim.kernel_id() for _ in range(100)}

    assert len(ids) == 100
    assert {uuid.UUID(each).version for each in ids} == {4}
    assert len({each[:13] for each in ids}) == 1
    assert [path.name for path in tmp_path.iterdir()] == [f"nbexec-{claim.tag}.lock"]
    claim.release()
    assert list(tmp_path.iterdir()) == []


def test_no_folder(tmp_path: Path) -> None:
    """Where there is no place for a lock, kernels have ids all the same."""
    for folder in ("", str(tmp_path / "gone")):
        claim = claims.Claim(folder)
        assert uuid.UUID(claim.kernel_id()).version == 4
        assert claims.remove_left_behind(folder) == 0
        claim.release()
