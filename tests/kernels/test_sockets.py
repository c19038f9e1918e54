"""Names of the sockets of kernels."""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_nbexec.kernels import sockets

LONG = f"/{'x' * 60}/runtime/kernel-16495b00-aa57-4360-9d05-306842dd3d90.json"


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder with a short name."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        yield Path(folder)


def names_in(folder: Path) -> sockets.SocketNames:
    """Names, of which the long ones are in a folder in this one."""
    return sockets.SocketNames(folder / "nbexec-1")


def test_beside_the_connection_file(temporary: Path) -> None:
    """They are where jupyter_client puts them, as long as the system can open files with such names."""
    names = names_in(temporary)

    assert names.prefix("/run/kernel-1.json") == "/run/kernel-1-ipc"
    longest = "/" + (sockets.MAX_PREFIX - 5) * "x"
    assert names.prefix(f"{longest}.json") == f"{longest}-ipc"
    assert names.prefix(f"{longest}é.json") != f"{longest}é-ipc"
    assert names.prefix(f"{longest[:-1]}é.json") != f"{longest[:-1]}é-ipc"


def test_a_folder_of_their_own(temporary: Path) -> None:
    """Where those are too long they are in a folder that is short, closed to others, and goes away."""
    names = names_in(temporary)
    one, two = names.prefix(LONG), names.prefix(LONG)

    assert one is not None
    assert two is not None
    assert one != two
    (folder,) = temporary.iterdir()
    assert Path(one).parent == Path(two).parent == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    Path(f"{one}-1").touch()
    names.remove()
    assert list(temporary.iterdir()) == []

    assert names.prefix(LONG) is not None
    assert len(list(temporary.iterdir())) == 1
    del names
    assert list(temporary.iterdir()) == []


def test_a_folder_that_was_tidied_away(temporary: Path) -> None:
    """A server that runs for weeks is not left with a folder that is not there any more."""
    names = names_in(temporary)
    names.prefix(LONG)
    (folder,) = temporary.iterdir()
    shutil.rmtree(folder)

    again = names.prefix(LONG)

    assert again is not None
    assert Path(again).parent.is_dir()
    names.remove()


def test_no_name_is_short_enough(temporary: Path) -> None:
    """Kernels then have ports, as those of others."""
    deep = temporary / ("y" * 100)
    deep.mkdir()
    names = names_in(deep)
    assert names.prefix(LONG) is None
    names.remove()
    assert names_in(temporary / "gone").prefix(LONG) is None
