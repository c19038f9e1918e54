"""How late the event loop is while somebody sends what would take long, beside a server that gets none of it.

    python benchmarks/loop_lag.py [--seconds 3] [--bytes 15000000] [WORDS...]

Each hostile request is sent again and again, one after the other; both servers tell how much too long each of
their waits was in that time. They share processors: where both are late, the machine was busy. Exits with 1
where p99 is more than 50 ms above the bystander's. WORDS choose requests that have one in their names.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from figures import percentiles
from hostile import HARMLESS, NOTEBOOKS, Attack, attacks
from serving import Server, end_by_exception, launch, stop, wait_for_url

#: Milliseconds that p99 may be above the bystander's.
LIMIT = 50.0
#: Bytes of headers: tornado takes 64 KiB.
HEADER = 60_000
DEADLINE = 120.0


@contextlib.contextmanager
def probed() -> Iterator[Server]:
    """Run a server with a probe in its event loop."""
    with tempfile.TemporaryDirectory(prefix="nbexec-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "config").mkdir()
        configuration = f"import sys\nsys.path.append({str(Path(__file__).parent)!r})\n"
        (folder / "config" / "jupyter_server_config.py").write_text(configuration, encoding="utf-8")
        server = launch(folder, "--ServerApp.jpserver_extensions=lag=True")
        try:
            wait_for_url(server)
            yield server
        finally:
            stop(server)


def write(server: Server) -> None:
    """Save the notebooks that are asked for."""
    for name, (declaring, *cells) in NOTEBOOKS.items():
        server.write(name, *cells, parameters=declaring)


def send(server: Server, attack: Attack, content: bytes) -> int:
    """Send a request; the status, 0 where the server hung up."""
    url = urlsplit(server.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=DEADLINE)
    with contextlib.closing(connection):
        with contextlib.suppress(ConnectionError):
            path = f"{url.path}{attack.path}"
            connection.request(attack.method, path, content, {**server.headers, **attack.headers})
        with contextlib.suppress(ConnectionError):
            answer = connection.getresponse()
            answer.read()
            return answer.status
    return 0


def lag(server: Server) -> list[float]:
    """Milliseconds that each wait was too long, since this was asked the last time."""
    late: list[float] = json.loads(server.get("api/lag").content)
    return late


def measure(server: Server, bystander: Server, attack: Attack, size: int, seconds: float) -> bool:
    """Attack for some seconds, print what that did, and say whether the promise was kept."""
    content = attack.body(size).encode()
    send(server, attack, content)  # once before, so that all that it needs has been imported
    lag(server), lag(bystander)
    deadline = time.monotonic() + seconds
    statuses: list[int] = []
    while not statuses or time.monotonic() < deadline:
        statuses.append(send(server, attack, content))
    found = [percentiles(lag(each)) for each in (server, bystander)]
    above = found[0]["p99"] - found[1]["p99"]
    figures = "  |".join("".join(f"{each[name]:9.1f}" for name in ("p50", "p99", "max")) for each in found)
    said = ",".join(map(str, sorted(set(statuses))))
    print(f"{attack.id:30}{figures}  |{above:8.1f}  {len(statuses):5} x {said}", flush=True)
    return above <= LIMIT


def main() -> int:
    """Measure on servers of our own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds for which each is sent")
    parser.add_argument("--bytes", type=int, default=15_000_000, help="size of bodies")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only requests with these in their names")
    options = parser.parse_args()
    end_by_exception()
    chosen = [each for each in attacks(HEADER) if any(word in each.id for word in options.words or [""])]
    columns = "".join(f"{name:>9}" for name in ("p50", "p99", "max"))
    print(f"{'the loop is late, ms':30}{columns}  |{columns}  |   above the bystander")
    with probed() as server, probed() as bystander:
        write(server)
        for each in (server, bystander):
            lag(each)
        for _ in range(3):
            send(server, HARMLESS, HARMLESS.body(options.bytes).encode())
        broken = [
            attack.id
            for attack in [HARMLESS, *chosen]
            if not measure(server, bystander, attack, options.bytes, options.seconds)
        ]
    print(f"p99 at most {LIMIT:.0f} ms above the bystander's: {'BROKEN: ' if broken else 'kept'}", *broken)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
