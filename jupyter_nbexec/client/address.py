"""Where a server is, and what authenticates a client there."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import httpx

from jupyter_nbexec import _version

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Address:
    """Where a server is, taken from its URL; the token is kept apart."""

    base: str
    host: str
    token: str | None = field(repr=False)
    socket: str | None  #: path of a Unix domain socket, for `http+unix` URLs

    @classmethod
    def parse(cls, url: str, token: str | None) -> Self:
        """Split a URL as Jupyter prints it, `?token=` included."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "http+unix") or not parts.hostname:
            raise ValueError("The server's URL must begin with http://, https:// or http+unix://.")
        if token is None:
            token = parse_qs(parts.query).get("token", [None])[0]
        path = parts.path.rstrip("/") + "/"
        if parts.scheme == "http+unix":
            socket = unquote(parts.netloc)
            return cls(urlunsplit(("http", "localhost", path, "", "")), "localhost", token, socket)
        return cls(urlunsplit((parts.scheme, parts.netloc, path, "", "")), parts.hostname, token, None)

    @property
    def is_local(self) -> bool:
        """Whether this is the loopback interface, to which no proxy leads."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def headers(self) -> dict[str, str]:
        """What authenticates each request."""
        headers = {
            "User-Agent": f"jupyter_nbexec/{_version.__version__}",
            # A server without authentication still wants its XSRF cookie sent back as a header. The
            # check is a double submit, meant for browsers: any value does, if both are the same.
            "Cookie": "_xsrf=00",
            "X-XSRFToken": "00",
        }
        if token := (self.token or "").strip():
            headers["Authorization"] = header_value("the token", f"token {token}")
        return headers


class Settings(TypedDict):
    """What httpx's two clients are given alike."""

    base_url: str
    headers: dict[str, str]
    timeout: httpx.Timeout
    verify: ssl.SSLContext | bool
    trust_env: bool


def settings(
    address: Address,
    *,
    connect_timeout: float | None,
    read_timeout: float | None,
    verify: ssl.SSLContext | bool,
) -> Settings:
    """Choose how httpx reaches a server."""
    if address.is_local and verify is True:
        # Without TLS no certificates are needed; else they are taken from where trust_env would take them.
        is_tls = address.base.startswith("https:")
        verify = httpx.create_ssl_context() if is_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return {
        "base_url": address.base,
        "headers": address.headers,
        # A run says nothing until it has ended, however long that takes.
        "timeout": httpx.Timeout(read_timeout, connect=connect_timeout),
        "verify": verify,
        "trust_env": not address.is_local,
    }


def header_value(name: str, value: str) -> str:
    """Return a value that a header can carry as it is."""
    if value.isascii() and value.isprintable():
        return value
    # The value is left out of the message, since it may be a token.
    raise ValueError(f"The value for {name} has characters that no header can carry.")
