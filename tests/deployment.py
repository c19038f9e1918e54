"""What `deploy/` describes, run here: the unit's and the container's command, and nginx with its site."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests import gateways, processes

DEPLOY = Path(__file__).parents[1] / "deploy"
HOST = "notebooks.example.com"
#: Seconds that anything may take. Kernels give way here to all else that the machine does, as documented: a
#: notebook that draws takes 5 s of processor time, of which it gets a tenth beside tests that need it all.
DEADLINE = 120.0


def program(name: str) -> str:
    """The path of a program. Without it, tests are skipped, except with CI=true."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(f"{name} is not installed")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A server, or a proxy in front of one."""

    url: str
    token: str
    root: Path
    log: Path
    #: What its certificate is checked against, where it has one.
    context: ssl.SSLContext | None = None

    def connect(self) -> httpx.Client:
        """Talk to it as a client that knows its name."""
        login = {"Authorization": f"token {self.token}"} if self.token else {}
        return httpx.Client(
            base_url=self.url,
            headers={**login, "Host": HOST},
            verify=self.context or False,
            trust_env=False,
            timeout=DEADLINE,
        )


def unit(folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The command of the systemd unit and its environment, with this machine's places in them."""
    text = (DEPLOY / "jupyter-nbexec.service").read_text("utf-8").replace("\\\n", "")
    token = folder / "credentials" / "token"
    places = {
        "/srv/notebooks": str(folder / "root"),
        "port=8888": f"port={port}",
        "%d": str(token.parent),
        "%S": str(folder / "state"),
        "%t": str(folder / "run"),
        "/etc/jupyter-nbexec": str(folder / "etc"),
    }
    for place, here in places.items():
        assert place in text
        text = text.replace(place, here)
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    environment = dict(setting.split("=", 1) for setting in re.findall(r"^Environment=(.*)$", text, re.M))
    return shlex.split(command), environment


def container(folder: Path, token: str, port: int) -> tuple[list[str], dict[str, str]]:
    """The command of the container, and its environment with this machine's places in its configuration."""
    (command,) = re.findall(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    config = (DEPLOY / "jupyter_server_config.py").read_text("utf-8")
    assert '"/srv/notebooks"' in config
    (folder / "CONFIG").mkdir()
    (folder / "CONFIG" / "jupyter_server_config.py").write_text(
        config.replace("/srv/notebooks", str(folder / "root")), "utf-8"
    )
    private = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    found: list[str] = json.loads(command)
    return found, {**private, "JUPYTER_TOKEN": token, "PORT": str(port)}


@contextlib.contextmanager
def serving(
    folder: Path, command: list[str], environment: dict[str, str], *, port: int, token: str
) -> Iterator[Deployed]:
    """Run a command that was written for another machine."""
    (folder / "root").mkdir(exist_ok=True)
    here = [sys.executable, "-m", "jupyter", *command[1:], "--allow-root"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    log = folder / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(here, env={**inherited, **environment}, stdout=file, stderr=file)
        try:
            server = Deployed(url=f"http://127.0.0.1:{port}", token=token, root=folder / "root", log=log)
            with server.connect() as client:
                _wait_for(process, log, lambda: client.get("/api").status_code == 200)
            yield server
        finally:
            processes.end(process, log)


@contextlib.contextmanager
def proxying(folder: Path, server: Deployed) -> Iterator[Deployed]:
    """Run nginx with its site, in front of a server; `http.url` in the folder has the other port."""
    tls, plain = gateways.free_port(), gateways.free_port()
    context = certify(folder)
    log = folder / "nginx.log"
    site = (DEPLOY / "nginx.conf").read_text("utf-8")
    for there, here in {
        "127.0.0.1:8888": server.url.removeprefix("http://"),
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen 443": f"listen 127.0.0.1:{tls}",
        f"/etc/ssl/{HOST}/": f"{folder}/",
        "/var/log/nginx/jupyter.log": str(folder / "access.log"),
    }.items():
        assert there in site
        site = site.replace(there, here)
    (folder / "site.conf").write_text(re.sub(r"^ *listen \[::\].*\n", "", site, flags=re.MULTILINE), "utf-8")
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; pid {folder}/nginx.pid; events {{}} "
        f"http {{ {temporary} include {folder}/site.conf; }}",
        "utf-8",
    )
    command = [program("nginx"), "-p", str(folder), "-e", str(log), "-c", str(folder / "nginx.conf")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr
    process = subprocess.Popen(command)
    try:
        _wait_for(process, log, lambda: _listens(tls) and _listens(plain))
        (folder / "http.url").write_text(f"http://127.0.0.1:{plain}", "utf-8")
        url = f"https://127.0.0.1:{tls}"
        yield Deployed(
            url=url, token=server.token, root=server.root, log=folder / "access.log", context=context
        )
    finally:
        processes.end(process, log)


def certify(folder: Path) -> ssl.SSLContext:
    """Write a certificate for this machine, and its key; what clients check it against."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(timezone.utc)
    addresses = [x509.DNSName(HOST), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "fullchain.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return ssl.create_default_context(cafile=str(folder / "fullchain.pem"))


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something that has no event has come about."""
    deadline = time.monotonic() + DEADLINE
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_for(process: subprocess.Popen[bytes], log: Path, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if is_ready():
                return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not come up:\n{log.read_text() if log.exists() else ''}")
