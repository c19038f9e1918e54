"""Telling others that a run has ended: by Standard Webhooks, signed, and tried again for days.

What is still to be sent is in the store and nowhere else, as the `models.Delivery` of a run, so that a
restart changes nothing. A message may arrive twice, where a server stops between an answer and the note of
it; its `webhook-id` tells. Hosts are matched as they are written: what a name resolves to is the affair of
whoever has allowed it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import dataclasses
import email.utils
import enum
import fnmatch
import hashlib
import hmac
import ipaddress
import logging
import os
import random
import re
import secrets
import socket
import threading
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Final, Protocol

import httpx
from cryptography.fernet import Fernet, InvalidToken

from jupyter_nbexec import _version, background, errors, models, outputs

#: Longest URL, in characters.
MAX_URL = 2048
#: Shortest and longest key of a signature, in bytes.
MIN_KEY, MAX_KEY = 24, 64
#: How long each attempt comes after the one before it has failed. After the last, the message is given up.
SCHEDULE: Final = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
#: By which part of itself a delay may grow by chance, so that not all come back at once.
JITTER = 0.1
#: The longest `Retry-After` that is obeyed.
MAX_RETRY_AFTER = timedelta(hours=24)
#: For how long nobody else sends what a sender has taken; must be longer than an attempt.
LEASE = timedelta(seconds=60)
#: Seconds that an attempt may take until the answer's status is there.
TIMEOUT = 20.0
#: Bytes of an answer's body that are read, and the seconds that this may take. Nothing is done with them.
MAX_ANSWER, DRAIN_TIMEOUT = 64 << 10, 1.0
#: Attempts at once, in all and to one host.
AT_ONCE, PER_HOST = 20, 5
#: Seconds by which a message is put off whose host has its share already; and if that host is slow, which
#: means that it has not answered for `SLOW` seconds.
PUT_OFF, PUT_OFF_SLOW, SLOW = 2.0, 30.0, 2.0
#: Seconds until the next look at the store: at the latest, at the earliest, and after trouble.
IDLE, SOONEST, TROUBLE = 60.0, 0.2, 5.0
#: Seconds that a stop waits for attempts under way, and then once more after it has cancelled them.
STOP_GRACE = 0.3

_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


# What a request may say.


def check_url(url: str, allowed: Sequence[str]) -> None:
    """Refuse a URL that is malformed, or whose host is not allowed; see `is_allowed`."""
    if problem := _url_problem(url, allowed):
        raise errors.InvalidRequest(("webhook.url", problem))


def check_secret(secret: str) -> None:
    """Refuse a secret that is not `whsec_` and the base64 of 24 to 64 bytes."""
    if _read_key(secret) is None:
        raise errors.InvalidRequest(("webhook.secret", _BAD_SECRET))


def check(webhook: models.Webhook, allowed: Sequence[str]) -> None:
    """Refuse a webhook with all that is wrong with it."""
    problems: list[tuple[str, str]] = []
    if problem := _url_problem(webhook.url, allowed):
        problems.append(("webhook.url", problem))
    if webhook.secret is not None and _read_key(webhook.secret) is None:
        problems.append(("webhook.secret", _BAD_SECRET))
    if problems:
        raise errors.InvalidRequest(*problems)


def pattern_problem(pattern: str) -> str | None:
    """Say what is wrong with a pattern of allowed hosts; None if nothing is."""
    host, port = _split_pattern(pattern)
    if not _is_ipv6(host) and not re.fullmatch(r"[a-z0-9._*?-]+", host):
        return "must be `host` or `host:port`, not a URL"
    if port not in (None, "*") and not (re.fullmatch(r"[1-9][0-9]{0,4}", port) and int(port) < 1 << 16):
        return "must have a port from 1 to 65535, or `*`"
    return None


def is_allowed(url: httpx.URL, allowed: Sequence[str]) -> bool:
    """Whether one of the patterns fits.

    A pattern is `host` or `host:port`; `*` stands for any characters, dots as well, `?` for one. Without a
    port, only the default ports of http and https fit; the port `*` is any. Case does not matter.
    """
    host, port = _host(url), _port(url)
    return any(_fits(host, port, is_default=url.port is None, pattern=pattern) for pattern in allowed)


_BAD_SECRET: Final = f"must be `whsec_` and the base64 of {MIN_KEY} to {MAX_KEY} bytes"


def _url_problem(url: str, allowed: Sequence[str]) -> str | None:
    """Say what is wrong with a URL. It is read by the one who will send to it: httpx."""
    if problem := _text_problem(url):
        return problem
    try:
        parsed = httpx.URL(url)
        host = _host(parsed)
    except (httpx.InvalidURL, ValueError):  # UnicodeError is a ValueError
        return "is not a valid URL"
    if problem := _host_problem(host):
        return problem
    if parsed.port is not None and not 0 < parsed.port < 1 << 16:
        return "must have a port from 1 to 65535"
    if not allowed:
        return "this server allows no webhook hosts"
    if not is_allowed(parsed, allowed):
        shown = f"[{host}]" if ":" in host else host
        return f"the host {shown}:{_port(parsed)} is not one that this server allows"
    return None


def _text_problem(url: str) -> str | None:
    """Say what is wrong with a URL as it is written: what parsers understand differently, or leave out."""
    if len(url) > MAX_URL:
        return f"must be at most {MAX_URL} characters long"
    if any(not sign.isprintable() or sign.isspace() or sign == "\\" for sign in url):
        return "must have no spaces, control characters or backslashes; percent-encode them"
    scheme, found, rest = url.partition("://")
    if not found or scheme.lower() not in ("http", "https"):
        return "must begin with https:// or http://"
    if "#" in url:
        return "must have no fragment"
    if "@" in re.split(r"[/?]", rest, maxsplit=1)[0]:
        return "must have no user name or password"
    return None


def _host_problem(host: str) -> str | None:
    """Say what is wrong with a host: a name, a dotted IPv4 address, or an IPv6 address."""
    if not host:
        return "must have a host"
    if ":" in host:
        return None if _is_ipv6(host) else "has an IPv6 address that is not valid"
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return "has a host that is not valid"
    # Resolvers take what ends like a number for an address, in forms that no pattern shows: 127.1, 0x7f0001.
    if re.fullmatch(r"\d+|0x[0-9a-f]*", labels[-1]) and not _is_ipv4(host):
        return "has an IPv4 address that is not in dotted form"
    return None


def _host(url: httpx.URL) -> str:
    """The host as it is looked up: lower case, international names as `xn--…`, IPv6 in its shortest form."""
    host = url.raw_host.decode("ascii").lower()
    return ipaddress.IPv6Address(host).compressed if _is_ipv6(host) else host


def _port(url: httpx.URL) -> int:
    """The port, also where it is not written."""
    return url.port or (443 if url.scheme == "https" else 80)


def _is_ipv4(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.IPv4Address(host))
    return False


def _is_ipv6(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.IPv6Address(host).scope_id is None
    return False


def _is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name alone."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _split_pattern(pattern: str) -> tuple[str, str | None]:
    """Split a pattern into its host and its port."""
    text = pattern.strip().lower()
    if _is_ipv6(text):
        return ipaddress.IPv6Address(text).compressed, None
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if bracket and _is_ipv6(host) and rest[:1] in ("", ":"):
            return ipaddress.IPv6Address(host).compressed, rest[1:] if rest else None
        return "[", None  # fits nothing
    host, colon, port = text.partition(":")
    return ".".join(_to_ascii(label) for label in host.split(".")), port if colon else None


def _to_ascii(label: str) -> str:
    """Write a part of an international name as `xn--…`."""
    if label.isascii():
        return label
    with contextlib.suppress(httpx.InvalidURL):
        return httpx.URL(scheme="http", host=label).raw_host.decode("ascii")
    return label


def _fits(host: str, port: int, *, is_default: bool, pattern: str) -> bool:
    """Whether a pattern fits a host and port."""
    wanted_host, wanted_port = _split_pattern(pattern)
    is_port_right = is_default if wanted_port is None else wanted_port in ("*", str(port))
    # Sets of characters, `[ab]`, are no part of a pattern: brackets are for addresses.
    return is_port_right and "[" not in wanted_host and fnmatch.fnmatchcase(host, wanted_host)


def _read_key(secret: str) -> bytes | None:
    """The bytes of a secret's key; None if it is no secret."""
    prefix, _, text = secret.partition("_")
    if prefix != "whsec" or len(text) > 2 * MAX_KEY or not text.isascii():
        return None
    with contextlib.suppress(binascii.Error, ValueError):
        # Some leave out the signs at the end that fill it up.
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        if MIN_KEY <= len(key) <= MAX_KEY:
            return key
    return None


# The message.


def message(run: Mapping[str, models.JsonValue], ended: datetime | None) -> bytes:
    """Write the body of the message that a run has ended. `run` is the run without its outputs.

    What it says of the webhook is left out, since that changes with each attempt: the bytes never do.
    """
    data = {name: value for name, value in run.items() if name != "webhook"}
    return outputs.dumps({"type": "run.ended", "timestamp": models.to_timestamp(ended), "data": data})


def message_id(run_id: str) -> str:
    """Name the message about a run: the same at each attempt."""
    return "msg_" + run_id.replace("-", "")


def sign(secret: str, *, id: str, timestamp: int, body: bytes) -> str:  # noqa: A002
    """Sign a message, as Standard Webhooks does in version 1."""
    key = _read_key(secret)
    if key is None:
        raise ValueError(_BAD_SECRET)
    digest = hmac.digest(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode("ascii")


class VaultError(Exception):
    """A secret cannot be encrypted or decrypted; the message is for an administrator."""


class Vault:
    """Keeps secrets from those who can read the store: encrypted with a key that is in a file of its own.

    The file is made when it is first needed, and only its owner may read it. Servers that share a store need
    the same file. The methods read it once, and block while they do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fernet: Fernet | None = None

    def seal(self, secret: str) -> bytes:
        """Encrypt a secret."""
        return self._open_key().encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        """Decrypt what `seal` has encrypted."""
        try:
            return self._open_key().decrypt(sealed).decode()
        except InvalidToken:
            raise VaultError(f"the secret was encrypted with another key than that in {self.path}") from None

    def _open_key(self) -> Fernet:
        if self._fernet is None:
            try:
                if self.path.exists() and not self.path.is_file():
                    raise VaultError(f"the key file {self.path} is not a regular file")
                if not self.path.exists():
                    _make_key_file(self.path)
                self._fernet = Fernet(self.path.read_bytes().strip())
            except OSError as error:
                raise VaultError(f"the key file {self.path} cannot be used: {error.strerror}") from error
            except ValueError:
                raise VaultError(f"the key file {self.path} does not hold a key") from None
        return self._fernet


def _make_key_file(path: Path) -> None:
    """Write a new key, complete or not at all; if somebody else was faster, theirs stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = Fernet.generate_key() + b"\n"
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write_private(draft, key)
        # Unlike a rename, a link never takes the place of a key that is in use.
        os.link(draft, path)
    except FileExistsError:
        pass
    except OSError:  # no links here: the next best
        with contextlib.suppress(FileExistsError):
            _write_private(path, key)
    finally:
        draft.unlink(missing_ok=True)


def _write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


# One attempt, and what follows from it.


class Outcome(str, enum.Enum):
    """How an attempt went."""

    DELIVERED = "delivered"  #: answered with 2xx
    REJECTED = "rejected"  #: answered with anything else
    TIMEOUT = "timeout"  #: no answer in time
    UNREACHABLE = "unreachable"  #: no connection, or one that broke
    REFUSED = "refused"  #: the host is not allowed any more, or the run was deleted: nothing was sent
    ERROR = "error"  #: a fault on this side


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An attempt to send a message, as it went."""

    outcome: Outcome
    status: int | None = None  #: HTTP status of the answer
    error: str | None = None  #: what went wrong, for a person
    retry_after: timedelta | None = None  #: for how long the receiver wants to be left alone

    @property
    def is_final(self) -> bool:
        """Whether there is nothing left to try."""
        return self.outcome in (Outcome.DELIVERED, Outcome.REFUSED) or self.status == HTTPStatus.GONE


def settle(delivery: models.Delivery, attempt: Attempt, *, now: datetime, chance: float) -> models.Delivery:
    """Note an attempt, and when the next one is due. `chance` is from 0 to 1."""
    if attempt.outcome is Outcome.REFUSED:
        return dataclasses.replace(
            delivery, state=models.DeliveryState.FAILED, next_attempt=None, last_error=attempt.error
        )
    made = delivery.attempts + 1
    noted = dataclasses.replace(
        delivery,
        attempts=made,
        last_attempt=now,
        last_status=attempt.status,
        last_error=attempt.error,
        next_attempt=None,
    )
    if attempt.outcome is Outcome.DELIVERED:
        return dataclasses.replace(noted, state=models.DeliveryState.DELIVERED)
    if attempt.is_final or made >= len(SCHEDULE):
        return dataclasses.replace(noted, state=models.DeliveryState.FAILED)
    delay = SCHEDULE[made] * (1 + JITTER * chance)
    if attempt.retry_after is not None:
        delay = max(delay, min(attempt.retry_after, MAX_RETRY_AFTER))
    return dataclasses.replace(noted, state=models.DeliveryState.PENDING, next_attempt=now + delay)


def make_client(trust_env: bool) -> httpx.AsyncClient:  # noqa: FBT001
    """Make a client that keeps neither cookies nor connections. It reads certificates, which takes time."""
    return httpx.AsyncClient(
        # Heeds SSL_CERT_FILE and SSL_CERT_DIR in any case; `trust_env` is about proxies only.
        verify=httpx.create_ssl_context(),
        trust_env=trust_env,
        follow_redirects=False,
        timeout=TIMEOUT,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        # What a receiver sets with the message about one run must not mark that about another.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
    )


def _judge(response: httpx.Response, now: datetime) -> Attempt:
    """Read an answer. Only its status counts; its body could tell what no client of ours may see."""
    status = response.status_code
    if response.is_success:
        return Attempt(outcome=Outcome.DELIVERED, status=status)
    error = f"the receiver answered {status}"
    if response.is_redirect:
        error += "; redirects are not followed"
    throttles = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    retry_after = _read_retry_after(response.headers.get("retry-after"), now) if throttles else None
    return Attempt(outcome=Outcome.REJECTED, status=status, error=error, retry_after=retry_after)


def _read_retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Read a `Retry-After`: seconds, or a date. What is neither is nothing."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return timedelta(seconds=int(value))
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        date = email.utils.parsedate_to_datetime(value)
        date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
        return max(date - now, timedelta(0))
    return None


async def _open(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Send a request, and wait for the head of the answer."""
    if not (client.trust_env and urllib.request.getproxies()):  # a proxy does its own looking up
        await _look_up(_host(request.url), _port(request.url))
    return await client.send(request, stream=True)


async def _look_up(host: str, port: int) -> None:
    """See whether a name can be looked up, in a thread that nobody waits for.

    httpx does it in the few threads that the server's event loop has for everything, and a resolver that does
    not answer holds a thread for half a minute: it must not come so far.
    """
    loop = asyncio.get_running_loop()
    is_done: asyncio.Future[OSError | None] = loop.create_future()

    def tell(error: OSError | None) -> None:
        if not is_done.done():
            is_done.set_result(error)

    def look_up() -> None:
        problem = None
        try:
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            problem = error
        except UnicodeError:
            problem = OSError("this is no name")
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(tell, problem)

    threading.Thread(target=look_up, name="jupyter_nbexec-lookup", daemon=True).start()
    if problem := await is_done:
        raise httpx.ConnectError(str(problem))


async def _drain(response: httpx.Response) -> None:
    """Read the beginning of a body, so that a receiver can finish what it says."""
    read = 0
    async for piece in response.aiter_raw(MAX_ANSWER):
        read += len(piece)
        if read >= MAX_ANSWER:
            return


# The sender.


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None:
        """Have it not happen."""


@dataclass(frozen=True)
class _Flight:
    """An attempt under way."""

    task: asyncio.Task[None]
    host: str
    since: float  #: by the event loop's clock


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _ignore(_: str) -> None:
    """Nobody counts."""


def _call_later(seconds: float, callback: Callable[[], object]) -> Timer:
    return asyncio.get_running_loop().call_later(seconds, callback)


class Sender:
    """Sends what is due: `run` is a task of its own, until `stop`.

    `take_due` takes at most so many deliveries that are due, and keeps them from other senders for `LEASE`;
    `next_due` says when the next one is; `mark` notes one; `payload` is the body of the message about a run,
    or None if the run is gone. They may fail: what they have kept from being sent or noted is tried again.
    `allowed` gives the patterns of hosts, before every attempt. `report` is told the outcome of each.
    `chance` is from 0 to 1; `client_factory` is told whether to heed the environment's proxies.
    """

    def __init__(
        self,
        *,
        take_due: Callable[[int], Awaitable[Sequence[models.Delivery]]],
        next_due: Callable[[], Awaitable[datetime | None]],
        mark: Callable[[models.Delivery], Awaitable[object]],
        payload: Callable[[str], Awaitable[bytes | None]],
        vault: Vault,
        allowed: Callable[[], Sequence[str]],
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        report: Callable[[str], object] = _ignore,
        clock: Callable[[], datetime] = _now,
        call_later: Callable[[float, Callable[[], object]], Timer] = _call_later,
        chance: Callable[[], float] = random.random,
        client_factory: Callable[[bool], httpx.AsyncClient] = make_client,
        timeout: float = TIMEOUT,
        at_once: int = AT_ONCE,
        per_host: int = PER_HOST,
    ) -> None:
        self._take_due, self._next_due, self._mark, self._payload = take_due, next_due, mark, payload
        self._vault, self._allowed, self._log, self._report = vault, allowed, log, report
        self._clock, self._call_later, self._chance = clock, call_later, chance
        self._client_factory = client_factory
        self._timeout, self._at_once, self._per_host = timeout, at_once, per_host
        self._clients: dict[bool, httpx.AsyncClient] = {}
        self._clients_lock = asyncio.Lock()
        self._flights: dict[str, _Flight] = {}
        self._awake = asyncio.Event()
        self._has_ended = asyncio.Event()
        self._has_ended.set()
        self._is_stopping = False
        self._has_trouble = False

    def wake(self) -> None:
        """Look at the store at once: something may be due. To be called on the event loop."""
        self._awake.set()

    async def run(self) -> None:
        """Send what is due, until `stop` is called or this task is cancelled. Nothing else ends it."""
        self._has_ended.clear()
        try:
            while not self._is_stopping:
                self._awake.clear()
                seconds = await self._send_due()
                if seconds != 0:
                    await self._pause(seconds)
        finally:
            await self._land()
            self._has_ended.set()

    async def stop(self) -> None:
        """Stop within a second. What is under way and cannot end is sent again after its lease."""
        self._is_stopping = True
        self._awake.set()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._has_ended.wait(), 3 * STOP_GRACE)

    async def _pause(self, seconds: float | None) -> None:
        """Wait until woken, or for so many seconds."""
        timer = None if seconds is None else self._call_later(seconds, self._awake.set)
        try:
            await self._awake.wait()
        finally:
            if timer is not None:
                timer.cancel()

    async def _send_due(self) -> float | None:
        """Start what is due; the seconds until the next look, None: when woken."""
        free = self._at_once - len(self._flights)
        if free < 1:
            return None
        try:
            due = await self._take_due(free)
            for delivery in due:
                await self._start(delivery)
            following = None if due else await self._next_due()
        except Exception as error:
            if not self._has_trouble:  # once for each time that the store is out of reach
                # That it is out of reach is no fault of ours, and who was asked has logged why.
                is_ours = not isinstance(error, errors.StorageUnavailable)
                self._log.error("webhooks: the store does not answer; trying again", exc_info=is_ours)
            self._has_trouble = True
            return TROUBLE
        self._has_trouble = False
        if due:
            return 0
        if following is None:
            return IDLE
        return min(max((following - self._clock()).total_seconds(), SOONEST), IDLE)

    async def _start(self, delivery: models.Delivery) -> None:
        """Start an attempt, or put it off where its host has its share already."""
        if self._is_stopping or delivery.run_id in self._flights:
            return
        loop = asyncio.get_running_loop()
        host = _host_of(delivery.url)
        same = [flight for flight in self._flights.values() if flight.host == host]
        if len(same) >= self._per_host:
            is_slow = any(loop.time() - flight.since > SLOW for flight in same)
            seconds = (PUT_OFF_SLOW if is_slow else PUT_OFF) * (1 + self._chance())
            later = self._clock() + timedelta(seconds=seconds)
            await self._mark(dataclasses.replace(delivery, next_attempt=later))
            return
        task = asyncio.create_task(self._deliver(delivery), name=f"webhook of run {delivery.run_id}")
        self._flights[delivery.run_id] = _Flight(task, host, loop.time())
        task.add_done_callback(lambda _: self._end(delivery.run_id))

    def _end(self, run_id: str) -> None:
        del self._flights[run_id]
        self._awake.set()

    async def _deliver(self, delivery: models.Delivery) -> None:
        """Make an attempt and note it."""
        try:
            body = await self._payload(delivery.run_id)
            attempt = await self._attempt(delivery, body)
            noted = settle(delivery, attempt, now=self._clock(), chance=self._chance())
            await self._mark(noted)
            self._tell(noted, attempt)
        except Exception as error:
            is_ours = not isinstance(error, errors.StorageUnavailable)
            text = "webhooks: run %s: not noted; perhaps to be sent again"
            self._log.error(text, delivery.run_id, exc_info=is_ours)

    def _tell(self, noted: models.Delivery, attempt: Attempt) -> None:
        """Log an attempt, and report it. The URL is not logged: some have secrets in them."""
        where = (noted.run_id, _host_of(noted.url))
        if noted.state is models.DeliveryState.DELIVERED:
            self._log.info("webhooks: run %s: delivered to %s", *where)
        elif noted.state is models.DeliveryState.FAILED:
            self._log.warning("webhooks: run %s: given up for %s: %s", *where, noted.last_error)
        else:
            self._log.info("webhooks: run %s: not delivered to %s: %s", *where, noted.last_error)
        self._report(attempt.outcome.value)

    async def _attempt(self, delivery: models.Delivery, body: bytes | None) -> Attempt:
        """Send a message once."""
        if body is None:
            return Attempt(outcome=Outcome.REFUSED, error="the run was deleted")
        if problem := _url_problem(delivery.url, self._allowed()):
            return Attempt(outcome=Outcome.REFUSED, error=f"not sent: {problem}")
        try:
            headers = await self._headers(delivery, body)
            return await self._post(httpx.URL(delivery.url), body, headers)
        except (asyncio.TimeoutError, httpx.TimeoutException):
            return Attempt(outcome=Outcome.TIMEOUT, error=f"no answer within {self._timeout:g} seconds")
        except httpx.ProtocolError:
            return Attempt(outcome=Outcome.UNREACHABLE, error="the connection broke, or what came is no HTTP")
        except httpx.ConnectError as error:
            return Attempt(outcome=Outcome.UNREACHABLE, error=f"no connection: {error}"[:200])
        except httpx.TransportError as error:
            return Attempt(outcome=Outcome.UNREACHABLE, error=f"the connection broke: {type(error).__name__}")
        except VaultError as error:
            self._log.error("webhooks: run %s: %s", delivery.run_id, error)
            return Attempt(outcome=Outcome.ERROR, error="this server cannot decrypt the secret")
        except Exception:
            self._log.exception("webhooks: run %s: cannot be sent", delivery.run_id)
            return Attempt(outcome=Outcome.ERROR, error="internal error; the server's log has it")

    async def _headers(self, delivery: models.Delivery, body: bytes) -> dict[str, str]:
        """The headers of a message, with its signature if there is a secret."""
        identity, timestamp = message_id(delivery.run_id), int(self._clock().timestamp())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"jupyter_nbexec/{_version.__version__}",
            "Accept-Encoding": "identity",
            "webhook-id": identity,
            "webhook-timestamp": str(timestamp),
        }
        if delivery.sealed_secret is not None:
            secret = await background.run(self._vault.open, delivery.sealed_secret)
            headers["webhook-signature"] = sign(secret, id=identity, timestamp=timestamp, body=body)
        return headers

    async def _post(self, url: httpx.URL, body: bytes, headers: dict[str, str]) -> Attempt:
        # Proxies of the environment are for the world outside.
        client = await self._client(trust_env=not _is_loopback(_host(url)))
        request = client.build_request("POST", url, content=body, headers=headers)
        response = await asyncio.wait_for(_open(client, request), self._timeout)
        try:
            with contextlib.suppress(asyncio.TimeoutError, httpx.HTTPError):
                await asyncio.wait_for(_drain(response), DRAIN_TIMEOUT)
        finally:
            await response.aclose()
        return _judge(response, self._clock())

    async def _client(self, *, trust_env: bool) -> httpx.AsyncClient:
        """A client, made when it is first needed."""
        async with self._clients_lock:
            if trust_env not in self._clients:
                self._clients[trust_env] = await background.run(self._client_factory, trust_env)
            return self._clients[trust_env]

    async def _land(self) -> None:
        """End all attempts: let them end, then cancel them."""
        for is_cancelled in (False, True):
            tasks = [flight.task for flight in self._flights.values()]
            for task in tasks:
                if is_cancelled:
                    task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=STOP_GRACE)
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()


def _host_of(url: str) -> str:
    """The host of a URL that was checked, when it was, for logs and for shares."""
    try:
        return _host(httpx.URL(url))
    except (httpx.InvalidURL, ValueError):
        return "?"
