"""A PostgreSQL server for the tests: Debian's programs, and a cluster that is thrown away afterwards."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg

#: Seconds that starting and stopping may take.
DEADLINE = 60.0


class Cluster:
    """A running server. It can be reached through a socket in its folder only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Have it stand still: its machine takes connections and packets, and nobody answers them."""
        main = psutil.Process(int((self.folder / "data/postmaster.pid").read_text().splitlines()[0]))
        main.suspend()  # it starts no more processes
        processes = [main, *main.children()]
        try:
            for process in processes[1:]:
                process.suspend()
            yield
        finally:
            for process in processes:
                process.resume()

    def create(self) -> str:
        """Make a place for tables that is empty; its URL."""
        name = f"test{next(self._numbers)}"
        # A schema is made, and forgotten, a hundred times faster than a database.
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"postgresql://nbexec@/postgres?host={self.folder}&options=-csearch_path%3D{name}"

    @property
    def conninfo(self) -> str:
        """How libpq reaches it."""
        return f"host={self.folder} user=nbexec dbname=postgres connect_timeout=10"


def find_programs() -> Path | None:
    """Find the folder of `initdb` and `postgres`: Debian does not put it on the PATH."""
    found = [Path(program).parent for program in [shutil.which("initdb")] if program]
    debian = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found += sorted((each.parent for each in debian), key=lambda folder: -float(folder.parent.name))
    return found[0] if found else None


@contextlib.contextmanager
def running() -> Iterator[Cluster | None]:
    """Run a server; None where PostgreSQL is not installed."""
    programs = find_programs()
    if programs is None:
        yield None
        return
    # Not in pytest's folder, which is root's alone, and whose name may be too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="nbexec-pg-"))
    # `initdb` and `postgres` refuse to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    try:
        if user is not None:
            shutil.chown(folder, user)
        data = folder / "data"
        options = ("--username=nbexec", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        _run([str(programs / "initdb"), f"--pgdata={data}", *options], user)
        settings = {"listen_addresses": "", "unix_socket_directories": str(folder), "fsync": "off"}
        arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            command = [str(programs / "postgres"), "-D", str(data), "-c", "max_connections=200", *arguments]
            # In a session of its own: Ctrl-C is for the tests.
            process = subprocess.Popen(
                command, user=user, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )
        try:
            cluster = Cluster(folder)
            _wait_for(process, cluster)
            yield cluster
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nothing has to be kept
            process.wait(DEADLINE)
    finally:
        shutil.rmtree(folder)


def _run(command: list[str], user: str | None) -> None:
    done = subprocess.run(
        command, user=user, cwd="/", capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def _wait_for(process: subprocess.Popen[bytes], cluster: Cluster) -> None:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            psycopg.connect(cluster.conninfo).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("PostgreSQL does not come up:\n" + (cluster.folder / "log").read_text())
