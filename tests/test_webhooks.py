"""Webhooks: what is allowed, how it is signed and sealed, and what receivers of all kinds make of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import datetime as dt
import ipaddress
import itertools
import json
import logging
import os
import re
import socket
import ssl
import stat
import threading
import time
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import httpx
import pytest
import standardwebhooks
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_nbexec import errors, models, store, webhooks

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
NOW = datetime(2026, 11, 20, 10, 0, tzinfo=timezone.utc)
RUN_ID = "0e3b2f6c-9d52-4c1e-a8f5-6f1f3a1f2b3c"
ANYWHERE = ["*:*"]
PENDING, DELIVERED, FAILED = (
    models.DeliveryState.PENDING,
    models.DeliveryState.DELIVERED,
    models.DeliveryState.FAILED,
)
#: Variables that the environment may have.
PROXIES = [
    spelt for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for spelt in (name, name.upper())
]
#: Seconds after which a test has failed that waits for something.
DEADLINE = 20
LOG = logging.getLogger("tests.webhooks")
DOCS = (Path(__file__).parents[1] / "docs" / "webhooks.md").read_text(encoding="utf-8")

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


def delivery(url: str = "http://127.0.0.1/", **fields: Any) -> models.Delivery:
    """A message that is due."""
    default: dict[str, Any] = {"run_id": RUN_ID, "url": url, "state": PENDING, "next_attempt": NOW}
    return models.Delivery(**default | fields)


def refusal(action: Callable[[], object]) -> list[dict[str, str]]:
    """The errors of the InvalidRequest that is raised."""
    with pytest.raises(errors.InvalidRequest) as caught:
        action()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return list(caught.value.details["errors"])


# What a request may say.


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "http://hooks.example.com/",
        "HTTPS://Hooks.Example.COM/a/b?c=d&e=%20#".rstrip("#"),
        "http://hooks.example.com:8080/x",
        "http://bücher.example/ü?ü",
        "http://xn--bcher-kva.example/",
        "http://my_service/",
        "http://192.0.2.1:1/",
        "http://[2001:db8::1]/",
        "http://[2001:DB8:0:0::1]:8080/x",
        "http://h/?mail=a@b",
        "http://h/" + "x" * (2048 - len("http://h/")),
    ],
)
def test_urls_that_are_taken(url: str) -> None:
    """URLs of http and https are taken, with ports, international names and addresses."""
    webhooks.check_url(url, ANYWHERE)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "https://"),
        ("hooks.example.com", "https://"),
        ("//hooks.example.com/", "https://"),
        ("ftp://hooks.example.com/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("javascript:alert(1)", "https://"),
        ("javascript://h/%0aalert(1)", "https://"),
        ("http:/h/", "https://"),
        ("ws://h/", "https://"),
        ("http://user:pw@h/", "user name"),
        ("http://user@h/", "user name"),
        ("http://@h/", "user name"),
        ("http://:@h/", "user name"),
        ("http://allowed.example@evil.example/", "user name"),
        ("http://h/#", "fragment"),
        ("http://h/#x", "fragment"),
        ("http://h/" + "x" * 3000, "2048"),
        ("http://h/" + "x" * (2049 - len("http://h/")), "2048"),
        ("http://h/\x00", "control"),
        ("http://h/\r\nX: y", "control"),
        ("http://h\t/", "control"),
        ("http://h/\x7f", "control"),
        ("http://h/\u2028", "control"),
        ("http://h/\u202e", "control"),
        ("http://h/\ud800", "control"),
        ("http://h/ x", "spaces"),
        (" http://h/", "spaces"),
        ("http://allowed.example\\@evil.example/", "backslash"),
        ("http:///x", "host"),
        ("http://:80/", "host"),
        ("http://a..b/", "host"),
        ("http://h./", "host"),
        ("http://*/", "host"),
        ("http://-a/", "host"),
        ("http://a%2eb/", "host"),
        ("http://" + "a" * 64 + ".example/", "host"),
        ("http://" + "a." * 130 + "b/", "host"),
        ("http://\N{CIRCLED DIGIT ONE}/", "valid URL"),
        ("http://\N{FULLWIDTH DIGIT ONE}.0.0.1/", "valid URL"),
        ("http://127.1/", "dotted"),
        ("http://2130706433/", "dotted"),
        ("http://0x7f000001/", "dotted"),
        ("http://1.2.3.4.5/", "dotted"),
        ("http://0177.0.0.1/", "valid URL"),
        ("http://999.0.0.1/", "valid URL"),
        ("http://[::1/", "valid URL"),
        ("http://[fe80::1%25eth0]/", "IPv6"),
        ("http://[v1.x]/", "valid URL"),
        ("http://h:0/", "port"),
        ("http://h:65536/", "port"),
        ("http://h:-1/", "port"),
        ("http://h:x/", "valid URL"),
    ],
)
def test_urls_that_are_refused(url: str, problem: str) -> None:
    """Other schemes, credentials, fragments, long URLs, odd characters and disguised hosts are refused."""
    (error,) = refusal(lambda: webhooks.check_url(url, ANYWHERE))

    assert error["field"] == "webhook.url"
    assert problem in error["message"]


@pytest.mark.parametrize(
    ("url", "allowed", "fits"),
    [
        ("https://hooks.example.com/", ["hooks.example.com"], True),
        ("http://HOOKS.example.com/", ["hooks.EXAMPLE.com"], True),
        ("https://hooks.example.com/", ["other.example", " hooks.example.com "], True),
        ("https://hooks.example.com/", [], False),
        ("https://hooks.example.com/", ["example.com"], False),
        ("https://example.com/", ["*.example.com"], False),
        ("https://a.b.example.com/", ["*.example.com"], True),
        ("https://evilexample.com/", ["*.example.com"], False),
        ("https://example.com.evil.example/", ["example.com", "*.example.com"], False),
        ("https://hook1.example/", ["hook?.example"], True),
        ("https://hooka.example/", ["hook[ab].example"], False),
        ("https://h/", ["h:443"], True),
        ("http://h/", ["h:443"], False),
        ("http://h:443/", ["h:443"], True),
        ("http://h:80/", ["h"], True),
        ("http://h:443/", ["h"], False),
        ("http://h:8080/", ["h"], False),
        ("http://h:8080/", ["h:8080"], True),
        ("http://h:8080/", ["h:*"], True),
        ("http://h:8080/", ["*"], False),
        ("http://h/", ["*"], True),
        ("http://h/", [""], False),
        ("http://[::1]/", ["[::1]"], True),
        ("http://[0:0::0:1]/", ["::1"], True),
        ("http://[::1]:8080/", ["[0::1]:8080"], True),
        ("http://[::1]:8080/", ["[::1]"], False),
        ("http://[::1]:8080/", ["[::1]:*"], True),
        ("http://[::ffff:127.0.0.1]/", ["127.0.0.1"], False),
        ("http://1/", ["[1]"], False),
        ("http://127.0.0.1/", ["localhost"], False),
        ("http://bücher.example/", ["bücher.example"], True),
        ("http://bücher.example/", ["xn--bcher-kva.example"], True),
        ("http://www.bücher.example/", ["*.BÜCHER.example"], True),
        ("http://bucher.example/", ["bücher.example"], False),
    ],
)
def test_hosts_are_allowed_by_patterns(url: str, allowed: list[str], fits: bool) -> None:
    """A host fits its name or a pattern, in any case and form, and on the usual ports unless one is named."""
    if fits:
        webhooks.check_url(url, allowed)
    else:
        assert refusal(lambda: webhooks.check_url(url, allowed))[0]["field"] == "webhook.url"


def test_a_refusal_does_not_tell_what_is_allowed() -> None:
    """Who is refused learns the host and port that were asked for, not those that are allowed."""
    (error,) = refusal(lambda: webhooks.check_url("http://[::1]/", ["inner.example"]))

    assert "[::1]:80" in error["message"]
    assert "inner" not in error["message"]


@pytest.mark.parametrize("rest", ["", ":1", ":65535", ":*"])
@pytest.mark.parametrize("host", ["h", "*.example.com", "*", "192.0.2.1", "[::1]", "bücher.example", "a_b-?"])
def test_patterns_that_can_fit(host: str, rest: str) -> None:
    """Names, addresses and shell patterns, with and without a port, are patterns."""
    assert webhooks.pattern_problem(host + rest) is None


@pytest.mark.parametrize(
    "pattern",
    [
        *("", " ", ":80", "http://h", "h/x", "u@h", "h:", "h:0", "h:65536", "h:080", "h:x", "h:80:80", "h h"),
        *("[::1", "[::1]80", "[h]", "h[ab]", "*ü"),
    ],
)
def test_patterns_that_can_never_fit(pattern: str) -> None:
    """A URL, or half a pattern, is told as a mistake."""
    assert webhooks.pattern_problem(pattern)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab.:/@[]#?%\\-_1x ü①\t*", max_size=25))
def test_what_is_taken_means_the_same_to_others(rest: str) -> None:
    """Whatever is taken has the same host and port for another parser; nothing else is raised."""
    url = "http://" + rest
    try:
        webhooks.check_url(url, ANYWHERE)
    except errors.InvalidRequest:
        return
    ours, theirs = httpx.URL(url), urllib.parse.urlsplit(url)

    assert theirs.hostname
    assert ours.raw_host == httpx.URL(scheme="http", host=theirs.hostname).raw_host
    assert ours.port == (None if theirs.port == 80 else theirs.port)


@pytest.mark.parametrize("length", [24, 32, 64])
@pytest.mark.parametrize("is_filled", [True, False])
def test_secrets_that_are_taken(length: int, is_filled: bool) -> None:
    """24 to 64 bytes in base64 are a secret, also without the signs that fill it up."""
    text = base64.b64encode(os.urandom(length)).decode()

    webhooks.check_secret("whsec_" + (text if is_filled else text.rstrip("=")))


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "hunter2hunter2hunter2hunter2hunter2",
        base64.b64encode(KEY).decode(),
        "WHSEC_" + base64.b64encode(KEY).decode(),
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsec_" + "A" * 1_000_000,
        "whsec_" + "-_" * 20,
        "whsec_" + "é" * 32,
        "whsec_" + "A" * 41,
        SECRET + "\n",
        " " + SECRET,
        SECRET.replace("_", "_ "),
    ],
)
def test_secrets_that_are_refused(secret: str) -> None:
    """Anything else is refused, and not repeated."""
    (error,) = refusal(lambda: webhooks.check_secret(secret))

    assert error["field"] == "webhook.secret"
    assert len(secret) < 10 or secret not in error["message"]


def test_all_that_is_wrong_is_told_at_once() -> None:
    """A webhook with a bad URL and a bad secret gets both errors; one that is right gets none."""
    found = refusal(lambda: webhooks.check(models.Webhook(url="ftp://h/", secret="x"), ANYWHERE))
    webhooks.check(models.Webhook(url="http://h/"), ["h"])
    webhooks.check(models.Webhook(url="http://h/", secret=SECRET), ["h"])

    assert [error["field"] for error in found] == ["webhook.url", "webhook.secret"]


# The message.


@settings(max_examples=50, deadline=None)
@given(key=st.binary(min_size=24, max_size=64), text=st.text())
def test_signatures_are_those_of_the_standard(key: bytes, text: str) -> None:
    """Any body, signed with any key, has the signature that an independent library gives it."""
    secret = "whsec_" + base64.b64encode(key).decode()
    theirs = standardwebhooks.Webhook(secret).sign("msg_1", NOW, text)

    assert webhooks.sign(secret, id="msg_1", timestamp=int(NOW.timestamp()), body=text.encode()) == theirs


def test_a_message_is_the_run_without_what_changes() -> None:
    """A message has the run, its type and the time of the end; the same at each attempt, and strict JSON."""
    run = {"id": RUN_ID, "result": float("nan"), "webhook": {"attempts": 3}, "path": "ü.ipynb"}

    body = json.loads(webhooks.message(run, NOW))

    assert body == {
        "type": "run.ended",
        "timestamp": "2026-11-20T10:00:00.000Z",
        "data": {"id": RUN_ID, "result": None, "path": "ü.ipynb"},
    }
    assert "webhook" in run


def test_a_message_has_an_id_without_dots() -> None:
    """The id is that of the run, in the characters that the standard allows."""
    assert webhooks.message_id(RUN_ID) == "msg_0e3b2f6c9d524c1ea8f56f1f3a1f2b3c"


# Secrets at rest.


def test_a_sealed_secret_comes_back(tmp_path: Path) -> None:
    """What one start of a server has sealed the next one opens; sealed, it does not show."""
    sealed = webhooks.Vault(tmp_path / "new" / "webhooks.key").seal(SECRET)

    assert webhooks.Vault(tmp_path / "new" / "webhooks.key").open(sealed) == SECRET
    assert SECRET.encode() not in sealed
    assert base64.b64encode(KEY) not in sealed


def test_the_key_is_for_its_owner_only(tmp_path: Path) -> None:
    """Nobody else may read the key or its folder, and no draft of it is left."""
    old = os.umask(0)
    try:
        webhooks.Vault(tmp_path / "new" / "webhooks.key").seal(SECRET)
    finally:
        os.umask(old)

    assert stat.S_IMODE((tmp_path / "new" / "webhooks.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["webhooks.key"]


@pytest.mark.parametrize("has_links", [True, False])
def test_servers_that_start_at_once_get_one_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    """The key that is first stays, also where the file system has no links."""

    def no_link(*_: object) -> None:
        raise PermissionError(1, "no links here")

    if not has_links:
        monkeypatch.setattr(os, "link", no_link)
    vaults = [webhooks.Vault(tmp_path / "webhooks.key") for _ in range(8)]
    if not has_links:
        vaults[0].seal(SECRET)
    with ThreadPoolExecutor(8) as pool:
        sealed = list(pool.map(lambda vault: vault.seal(SECRET), vaults))

    last = webhooks.Vault(tmp_path / "webhooks.key")
    assert [last.open(each) for each in sealed] == [SECRET] * 8
    assert [path.name for path in tmp_path.iterdir()] == ["webhooks.key"]


def test_a_vault_tells_what_is_wrong_and_no_secret(tmp_path: Path) -> None:
    """Another key, a file that holds none, and a place that cannot be used are told by the file's name."""
    sealed = webhooks.Vault(tmp_path / "one.key").seal(SECRET)
    (tmp_path / "broken.key").write_text("not a key")
    (tmp_path / "folder.key").mkdir()

    for name, text in [
        ("two.key", "another key"),
        ("broken.key", "not hold a key"),
        ("folder.key", "not a regular file"),
    ]:
        vault = webhooks.Vault(tmp_path / name)
        with pytest.raises(webhooks.VaultError, match=text) as caught:
            vault.open(sealed)
        assert name in str(caught.value)
        assert sealed.decode() not in repr(vault) + str(caught.value)
    with pytest.raises(webhooks.VaultError, match="cannot be used"):
        webhooks.Vault(tmp_path / "one.key" / "below.key").seal(SECRET)


# What follows from an attempt.

ANSWERED_500 = webhooks.Attempt(
    outcome=webhooks.Outcome.REJECTED, status=500, error="the receiver answered 500"
)


def test_the_schedule_is_that_of_the_standard() -> None:
    """Ten attempts, over three days, with delays that grow; each at most a tenth longer by chance."""
    hours = [round(delay.total_seconds() / 3600, 3) for delay in webhooks.SCHEDULE]
    assert hours == [0, 0.001, 0.083, 0.5, 2, 5, 10, 14, 20, 24]

    for chance, factor in [(0.0, 1.0), (1.0, 1.1)]:
        state = delivery()
        for made in range(1, 10):
            state = webhooks.settle(state, ANSWERED_500, now=NOW, chance=chance)
            assert (state.state, state.attempts, state.last_attempt) == (PENDING, made, NOW)
            assert state.next_attempt == NOW + webhooks.SCHEDULE[made] * factor
        state = webhooks.settle(state, ANSWERED_500, now=NOW, chance=chance)
        assert (state.state, state.attempts, state.next_attempt) == (FAILED, 10, None)
        assert (state.last_status, state.last_error) == (500, "the receiver answered 500")


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (timedelta(seconds=1), timedelta(seconds=5)),
        (timedelta(seconds=100), timedelta(seconds=100)),
        (timedelta(days=365), timedelta(hours=24)),
    ],
)
def test_a_receiver_may_ask_for_more_time(asked: timedelta, given: timedelta) -> None:
    """What a receiver asks for is kept, but never sooner than the schedule, nor later than a day."""
    attempt = dataclasses.replace(ANSWERED_500, status=503, retry_after=asked)

    assert webhooks.settle(delivery(), attempt, now=NOW, chance=0).next_attempt == NOW + given


@pytest.mark.parametrize(
    ("status", "value", "seconds"),
    [
        (429, "120", 120),
        (503, " 120 ", 120),
        (503, "Fri, 20 Nov 2026 10:02:00 GMT", 120),
        (503, "Fri, 20 Nov 2026 10:02:00 -0000", 120),
        (503, "Fri, 20 Nov 2020 10:02:00 GMT", 0),
        (503, "soon", None),
        (503, "-1", None),
        (503, "1e9", None),
        (503, "٣", None),
        (503, "9" * 5000, None),
        (503, "Fri, 99 Nov 2026 10:02:00 GMT", None),
        (503, None, None),
        (500, "120", None),
        (301, "120", None),
    ],
)
def test_retry_after_is_read(status: int, value: str | None, seconds: int | None) -> None:
    """With 429 and 503, Retry-After is seconds or a date; what is neither does not count."""
    headers = [] if value is None else [(b"Retry-After", value.encode())]

    attempt = webhooks._judge(httpx.Response(status, headers=headers), NOW)

    assert attempt.retry_after == (None if seconds is None else timedelta(seconds=seconds))


def test_gone_and_refused_are_the_end() -> None:
    """After 410 nothing is tried again; what was never sent is no attempt."""
    gone = webhooks.settle(
        delivery(), webhooks.Attempt(outcome=webhooks.Outcome.REJECTED, status=410), now=NOW, chance=0
    )
    refused = webhooks.settle(
        delivery(), webhooks.Attempt(outcome=webhooks.Outcome.REFUSED, error="no"), now=NOW, chance=0
    )

    assert (gone.state, gone.attempts, gone.next_attempt) == (FAILED, 1, None)
    assert (refused.state, refused.attempts, refused.next_attempt) == (FAILED, 0, None)
    assert (refused.last_attempt, refused.last_error) == (None, "no")


# The sender, with real receivers.


class PlayedTime:
    """A clock, and timers, that stand still until the test moves them."""

    def __init__(self) -> None:
        self.now = datetime.now(timezone.utc)
        self.timers: list[tuple[datetime, PlayedTimer]] = []
        self.is_armed = asyncio.Event()

    def clock(self) -> datetime:
        """Say what time it is."""
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], object]) -> PlayedTimer:
        """Keep a timer."""
        timer = PlayedTimer(callback)
        self.timers.append((self.now + timedelta(seconds=seconds), timer))
        self.is_armed.set()
        return timer

    async def move(self, to: datetime) -> None:
        """Let time pass, with all that happens in it, until the sender waits again."""
        while True:
            with anyio.fail_after(DEADLINE):
                await self.is_armed.wait()
            self.timers = [entry for entry in self.timers if not entry[1].is_cancelled]
            if not self.timers:  # it was woken by something else
                self.is_armed.clear()
                continue
            due, timer = min(self.timers, key=lambda entry: entry[0])
            if due > to:
                self.now = max(self.now, to)
                return
            self.now = due
            self.timers.remove((due, timer))
            self.is_armed.clear()
            timer.callback()


class PlayedTimer:
    """A timer of `PlayedTime`."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        """Have it not happen."""
        self.is_cancelled = True


class Outbox:
    """What the store does for a sender, in memory."""

    def __init__(self, *deliveries: models.Delivery, clock: Callable[[], datetime]) -> None:
        self.deliveries = {each.run_id: each for each in deliveries}
        self.clock = clock
        self.marks: asyncio.Queue[models.Delivery] = asyncio.Queue()
        self.body: bytes | None = webhooks.message({"id": RUN_ID}, NOW)
        self.fault: Exception | None = None
        self.faults = asyncio.Semaphore(0)

    def _fail(self) -> None:
        if self.fault is not None:
            self.faults.release()
            raise self.fault

    async def take_due(self, limit: int) -> Sequence[models.Delivery]:
        """Take what is due."""
        self._fail()
        now = self.clock()
        due = [
            each
            for each in self.deliveries.values()
            if each.state is PENDING and each.next_attempt is not None and each.next_attempt <= now
        ][:limit]
        for each in due:
            leased = dataclasses.replace(each, next_attempt=now + webhooks.LEASE)
            self.deliveries[each.run_id] = leased
        return due

    async def next_due(self) -> datetime | None:
        """When the next is due."""
        self._fail()
        pending = [each.next_attempt for each in self.deliveries.values() if each.state is PENDING]
        return min((moment for moment in pending if moment is not None), default=None)

    async def mark(self, marked: models.Delivery) -> None:
        """Keep how far it has come."""
        self._fail()
        self.deliveries[marked.run_id] = marked
        self.marks.put_nowait(marked)

    async def payload(self, run_id: str) -> bytes | None:
        """What to say about any run."""
        return self.body

    async def marked(self) -> models.Delivery:
        """The next delivery that is marked."""
        with anyio.fail_after(DEADLINE):
            return await self.marks.get()


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    def verify(self, secret: str = SECRET) -> Any:
        """Have the independent library check the signature, and the time."""
        return standardwebhooks.Webhook(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """A server on the loopback interface that answers as it is told."""

    answers: list[Callable[[Reader, Writer], Awaitable[None]]]
    port: int = 0
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    at_once: int = 0
    most_at_once: int = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/hook"

    async def serve(self, reader: Reader, writer: Writer) -> None:
        """Take one request, and answer it with the next answer, or again with the last one."""
        self.connections += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.received.append(Received(head[0].split()[1], headers, body))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                await answer(reader, writer)
        finally:
            self.at_once -= 1
            writer.close()


def status(code: int, *headers: str, body: bytes = b"") -> Callable[[Reader, Writer], Awaitable[None]]:
    """Answer with a status."""
    lines = [f"HTTP/1.1 {code} X", f"Content-Length: {len(body)}", *headers, "", ""]

    async def answer(reader: Reader, writer: Writer) -> None:
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()

    return answer


async def hang(reader: Reader, writer: Writer) -> None:
    """Say nothing, until the other side has had enough."""
    await reader.read()


async def reset(reader: Reader, writer: Writer) -> None:
    """Cut the connection."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


async def hang_up(reader: Reader, writer: Writer) -> None:
    """Close the connection in the middle of a header."""
    writer.write(b"HTTP/1.1 200 OK\r\nX-")
    await writer.drain()


async def drip(reader: Reader, writer: Writer) -> None:
    """Answer 200, and then with a body that never comes."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx")
    await reader.read()


async def drip_head(reader: Reader, writer: Writer) -> None:
    """Answer with headers that never end: each byte is in time for a limit on reads alone."""
    with contextlib.suppress(ConnectionError):
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not reader.at_eof():
            writer.write(b"y")
            await writer.drain()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.05)


async def another_protocol(reader: Reader, writer: Writer) -> None:
    """Greet as something else than HTTP does."""
    writer.write(b"SSH-2.0-inner-machine\r\n")
    await writer.drain()


@asynccontextmanager
async def receiving(*answers: Callable[[Reader, Writer], Awaitable[None]]) -> AsyncIterator[Receiver]:
    """A receiver with these answers."""
    receiver = Receiver(list(answers) or [status(200)])
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, limit=1 << 20)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()


def build(outbox: Outbox, vault: webhooks.Vault, **options: Any) -> webhooks.Sender:
    """A sender that may send anywhere."""
    default: dict[str, Any] = {
        "take_due": outbox.take_due,
        "next_due": outbox.next_due,
        "mark": outbox.mark,
        "payload": outbox.payload,
        "allowed": lambda: ANYWHERE,
        "log": LOG,
        "clock": outbox.clock,
    }
    return webhooks.Sender(vault=vault, **default | options)


@asynccontextmanager
async def sending(outbox: Outbox, vault: webhooks.Vault, **options: Any) -> AsyncIterator[webhooks.Sender]:
    """A sender at work."""
    sender = build(outbox, vault, **options)
    task = asyncio.create_task(sender.run())
    try:
        yield sender
    finally:
        await sender.stop()
        with anyio.fail_after(DEADLINE):
            await task


@pytest.fixture
def vault(tmp_path: Path) -> webhooks.Vault:
    """A vault with its key in a file."""
    return webhooks.Vault(tmp_path / "webhooks.key")


def real_time() -> datetime:
    """What time it is."""
    return datetime.now(timezone.utc)


pytestmark = pytest.mark.anyio


async def test_a_message_arrives_and_can_be_verified(vault: webhooks.Vault) -> None:
    """A receiver gets one POST with JSON, whose signature an independent library finds right."""
    outcomes: list[str] = []
    async with receiving() as receiver:
        outbox = Outbox(delivery(receiver.url, sealed_secret=vault.seal(SECRET)), clock=real_time)
        async with sending(outbox, vault, report=outcomes.append):
            done = await outbox.marked()

    (received,) = receiver.received
    assert received.verify() == json.loads(outbox.body or b"")
    assert received.headers["content-type"] == "application/json"
    assert received.headers["webhook-id"] == webhooks.message_id(RUN_ID)
    assert received.path == "/hook"
    assert "cookie" not in received.headers
    assert (done.state, done.attempts, done.last_status, done.last_error) == (DELIVERED, 1, 200, None)
    assert done.next_attempt is None
    assert outcomes == ["delivered"]


async def test_the_example_of_the_documentation_verifies(vault: webhooks.Vault) -> None:
    """The function that the page on webhooks shows tells genuine messages from others."""
    block = DOCS.split("```python\nimport base64\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec("import base64\n" + block, names)  # what people will copy
    is_genuine = names["is_genuine"]
    async with receiving() as receiver:
        outbox = Outbox(delivery(receiver.url, sealed_secret=vault.seal(SECRET)), clock=real_time)
        async with sending(outbox, vault):
            await outbox.marked()
    (received,) = receiver.received
    old = received.headers | {"webhook-timestamp": str(int(received.headers["webhook-timestamp"]) - 301)}
    rotated = received.headers | {
        "webhook-signature": f"v1a,x v1,AAAA {received.headers['webhook-signature']}"
    }
    unsigned = {name: value for name, value in received.headers.items() if name != "webhook-signature"}

    assert is_genuine(SECRET, received.headers, received.body)
    assert is_genuine(SECRET, rotated, received.body)
    assert not is_genuine(SECRET, received.headers, received.body + b" ")
    assert not is_genuine("whsec_" + base64.b64encode(bytes(32)).decode(), received.headers, received.body)
    assert not is_genuine(SECRET, old, received.body)
    assert not is_genuine(SECRET, unsigned, received.body)


def test_the_documentation_tells_the_truth() -> None:
    """The secret, the limits and the examples of the page on webhooks are right."""
    for secret in re.findall(r'"(whsec_[^"]+)"', DOCS):
        webhooks.check_secret(secret)
    for pattern in re.findall(r"^\| `([^`]+)`(?:, `([^`]+)`)? \| (?:this|every|an)", DOCS, re.MULTILINE):
        for each in filter(None, pattern):
            assert webhooks.pattern_problem(each) is None
    assert re.findall(r"At most (\d+) messages .* at once, (\d+) of them", DOCS) == [
        (str(webhooks.AT_ONCE), str(webhooks.PER_HOST))
    ]
    assert f"within {webhooks.TIMEOUT:g} seconds" in DOCS
    assert f"{webhooks.MAX_URL:,} characters" in DOCS
    assert f"{webhooks.MAX_ANSWER >> 10} KiB" in DOCS
    assert f"{webhooks.MIN_KEY} to {webhooks.MAX_KEY} random bytes" in DOCS
    assert len(webhooks.SCHEDULE) == 10


async def test_another_secret_does_not_verify(vault: webhooks.Vault) -> None:
    """Who has another secret, or changes a byte, finds the signature wrong."""
    async with receiving() as receiver:
        outbox = Outbox(delivery(receiver.url, sealed_secret=vault.seal(SECRET)), clock=real_time)
        async with sending(outbox, vault):
            await outbox.marked()
    (received,) = receiver.received

    for forged in (received, dataclasses.replace(received, body=received.body + b" ")):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            forged.verify("whsec_" + base64.b64encode(bytes(32)).decode() if forged is received else SECRET)


async def test_without_a_secret_there_is_no_signature(vault: webhooks.Vault) -> None:
    """A message without a secret has its id and time, and no signature; no key is made for it."""
    async with receiving() as receiver:
        outbox = Outbox(delivery(receiver.url), clock=real_time)
        async with sending(outbox, vault):
            await outbox.marked()

    assert "webhook-signature" not in receiver.received[0].headers
    assert {"webhook-id", "webhook-timestamp"} <= set(receiver.received[0].headers)
    assert not vault.path.exists()


@pytest.mark.parametrize(
    ("answer", "outcome", "state", "code", "error"),
    [
        (status(200, body=b"ok"), "delivered", DELIVERED, 200, None),
        (status(202), "delivered", DELIVERED, 202, None),
        (status(204), "delivered", DELIVERED, 204, None),
        (drip, "delivered", DELIVERED, 200, None),
        (status(500, body=b"inner secrets"), "rejected", PENDING, 500, "the receiver answered 500"),
        (status(404), "rejected", PENDING, 404, "the receiver answered 404"),
        (status(410), "rejected", FAILED, 410, "the receiver answered 410"),
        (status(304), "rejected", PENDING, 304, "redirects are not followed"),
        (hang, "timeout", PENDING, None, "no answer within 0.4 seconds"),
        (drip_head, "timeout", PENDING, None, "no answer within 0.4 seconds"),
        (reset, "unreachable", PENDING, None, "the connection broke"),
        (hang_up, "unreachable", PENDING, None, "the connection broke"),
        (another_protocol, "unreachable", PENDING, None, "no HTTP"),
    ],
    ids=lambda value: getattr(value, "__name__", None) and value.__name__,
)
async def test_what_receivers_answer(
    vault: webhooks.Vault,
    answer: Callable[[Reader, Writer], Awaitable[None]],
    outcome: str,
    state: models.DeliveryState,
    code: int | None,
    error: str | None,
) -> None:
    """Only 2xx is delivered, 410 ends it, all else is tried again; the body of an answer is never shown."""
    outcomes: list[str] = []
    async with receiving(answer) as receiver:
        outbox = Outbox(delivery(receiver.url), clock=real_time)
        timeout = 0.4 if outcome == "timeout" else DEADLINE
        options: dict[str, Any] = {"timeout": timeout, "report": outcomes.append}
        async with sending(outbox, vault, **options):
            done = await outbox.marked()

    assert (done.state, done.last_status) == (state, code)
    assert error is None or error in (done.last_error or "")
    assert "inner" not in (done.last_error or "")
    assert outcomes == [outcome]


async def test_redirects_are_not_followed(vault: webhooks.Vault) -> None:
    """A 302 is a failure, and its target is never asked."""
    async with receiving() as target, receiving(status(302, f"Location: {target.url}")) as receiver:
        outbox = Outbox(delivery(receiver.url), clock=real_time)
        async with sending(outbox, vault):
            done = await outbox.marked()

    assert (done.state, done.last_status) == (PENDING, 302)
    assert target.connections == 0


async def test_a_huge_answer_is_not_read(vault: webhooks.Vault) -> None:
    """Of an answer that never ends, the beginning is read; the message counts as delivered."""
    sent = 0

    async def pour(reader: Reader, writer: Writer) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()
            sent += 1 << 16

    async with receiving(pour) as receiver:
        outbox = Outbox(delivery(receiver.url), clock=real_time)
        async with sending(outbox, vault):
            done = await outbox.marked()

    assert done.state is DELIVERED
    assert sent < 64 << 20  # buffers of the kernel, which are megabytes


async def test_nobody_there(vault: webhooks.Vault) -> None:
    """Where nobody listens, it is tried again."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    outbox = Outbox(delivery(f"http://127.0.0.1:{port}/"), clock=real_time)
    async with sending(outbox, vault):
        done = await outbox.marked()

    assert (done.state, done.attempts) == (PENDING, 1)
    assert "no connection" in (done.last_error or "")


@pytest.fixture
def played_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A resolver, in place of the network's, that knows no name below `unknown`, and hangs at `slow`."""
    is_over = threading.Event()
    real = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name.endswith(".slow"):
            is_over.wait(DEADLINE)
        if name.endswith((".slow", ".unknown")):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *arguments, **options)

    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield
    is_over.set()


@pytest.mark.usefixtures("played_resolver")
async def test_a_name_that_nobody_knows(vault: webhooks.Vault) -> None:
    """Where the name means nothing, it is tried again."""
    outbox = Outbox(delivery("http://hooks.unknown/"), clock=real_time)
    async with sending(outbox, vault):
        done = await outbox.marked()

    assert (done.state, done.attempts) == (PENDING, 1)
    assert "not known" in (done.last_error or "")


@pytest.mark.usefixtures("played_resolver")
async def test_a_resolver_that_hangs_holds_up_nothing(vault: webhooks.Vault) -> None:
    """While names are looked up in vain, the event loop's threads are free, and a stop is quick."""
    outbox = Outbox(*(delivery(f"http://h{n}.slow/", run_id=f"run-{n}") for n in range(20)), clock=real_time)
    async with sending(outbox, vault, timeout=0.5):
        done = [await outbox.marked() for _ in range(20)]
        outbox.deliveries = {each.run_id: dataclasses.replace(each, next_attempt=NOW) for each in done}
    assert {each.last_error for each in done} == {"no answer within 0.5 seconds"}
    async with sending(outbox, vault):
        while len(lookups()) < 40:
            with anyio.fail_after(DEADLINE):
                await asyncio.to_thread(str)
        begin = time.monotonic()
    assert time.monotonic() - begin < 1


def lookups() -> list[threading.Thread]:
    """The threads that look up names."""
    return [thread for thread in threading.enumerate() if thread.name == "jupyter_nbexec-lookup"]


async def test_cookies_are_forgotten(vault: webhooks.Vault) -> None:
    """What a receiver sets with one message does not come back with the next."""
    async with receiving(status(200, "Set-Cookie: a=b; Path=/")) as receiver:
        outbox = Outbox(*(delivery(receiver.url, run_id=f"run-{n}") for n in range(3)), clock=real_time)
        async with sending(outbox, vault, at_once=1):
            for _ in range(3):
                await outbox.marked()

    assert [received.headers.get("cookie") for received in receiver.received] == [None] * 3


async def test_a_host_that_is_not_allowed_is_never_connected_to(vault: webhooks.Vault) -> None:
    """Nothing reaches the socket of a host that is not, or no longer, on the list."""
    outcomes: list[str] = []
    allowed: list[str] = []
    async with receiving() as receiver:
        outbox = Outbox(delivery(receiver.url), clock=real_time)
        async with sending(outbox, vault, allowed=lambda: allowed, report=outcomes.append):
            done = await outbox.marked()

    assert receiver.connections == 0
    assert (done.state, done.attempts, done.last_attempt) == (FAILED, 0, None)
    assert "not sent" in (done.last_error or "")
    assert outcomes == ["refused"]


async def test_the_list_counts_at_every_attempt(vault: webhooks.Vault) -> None:
    """A host that was taken off the list between two attempts gets the first only."""
    allowed = ["127.0.0.1:*"]
    played = PlayedTime()
    async with receiving(status(500)) as receiver:
        outbox = Outbox(delivery(receiver.url, next_attempt=played.now), clock=played.clock)
        options: dict[str, Any] = {"allowed": lambda: allowed, "call_later": played.call_later}
        async with sending(outbox, vault, **options):
            first = await outbox.marked()
            allowed[:] = ["other.example"]
            await played.move(first.next_attempt or NOW)
            second = await outbox.marked()

    assert (first.state, first.attempts) == (PENDING, 1)
    assert (second.state, second.attempts, second.last_status) == (FAILED, 1, 500)
    assert receiver.connections == 1


async def test_retries_come_on_time_until_it_is_given_up(vault: webhooks.Vault) -> None:
    """Ten attempts on the schedule, none sooner, with one id, new times and right signatures; then none."""
    played = PlayedTime()
    start = played.now
    times = []
    async with receiving(status(500)) as receiver:
        due = delivery(receiver.url, next_attempt=start, sealed_secret=vault.seal(SECRET))
        outbox = Outbox(due, clock=played.clock)
        options: dict[str, Any] = {"call_later": played.call_later, "chance": lambda: 0.5}
        async with sending(outbox, vault, **options):
            for _ in range(10):
                done = await outbox.marked()
                times.append(played.now)
                if done.next_attempt is None:
                    break
                await played.move(done.next_attempt - timedelta(seconds=1))
                assert len(receiver.received) == len(times)
                await played.move(done.next_attempt)
            await played.move(played.now + timedelta(hours=48))

    assert (done.state, done.attempts) == (FAILED, 10)
    assert len(receiver.received) == 10
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    for gap, delay in zip(gaps, webhooks.SCHEDULE[1:], strict=True):
        assert abs(gap - delay * 1.05) < timedelta(seconds=1)
    assert {received.headers["webhook-id"] for received in receiver.received} == {webhooks.message_id(RUN_ID)}
    assert len({received.body for received in receiver.received}) == 1
    library = standardwebhooks.Webhook(SECRET)
    for received, moment in zip(receiver.received, times, strict=True):
        stamp = datetime.fromtimestamp(int(received.headers["webhook-timestamp"]), timezone.utc)
        assert abs(stamp - moment) < timedelta(seconds=2)
        signature = library.sign(received.headers["webhook-id"], stamp, received.body.decode())
        assert received.headers["webhook-signature"] == signature


async def test_a_receiver_that_recovers_gets_the_message(vault: webhooks.Vault) -> None:
    """After two failures and a Retry-After, the third attempt delivers it."""
    played = PlayedTime()
    async with receiving(status(500), status(429, "Retry-After: 600"), status(200)) as receiver:
        due = delivery(receiver.url, next_attempt=played.now, sealed_secret=vault.seal(SECRET))
        outbox = Outbox(due, clock=played.clock)
        options: dict[str, Any] = {"call_later": played.call_later, "chance": lambda: 0}
        async with sending(outbox, vault, **options):
            first = await outbox.marked()
            assert first.next_attempt == played.now + timedelta(seconds=5)
            await played.move(first.next_attempt)
            second = await outbox.marked()
            assert second.next_attempt == played.now + timedelta(seconds=600)
            await played.move(second.next_attempt)
            third = await outbox.marked()

    assert (third.state, third.attempts, third.last_status, third.last_error) == (DELIVERED, 3, 200, None)


async def test_a_restart_goes_on_in_the_middle(tmp_path: Path) -> None:
    """Another start of the server, with only the store and the key file, makes the next attempt on time."""
    played = PlayedTime()
    key = tmp_path / "webhooks.key"
    async with receiving(status(500), status(500), status(200)) as receiver:
        sealed = webhooks.Vault(key).seal(SECRET)
        due = delivery(receiver.url, next_attempt=played.now, sealed_secret=sealed)
        outbox = Outbox(due, clock=played.clock)
        options = {"call_later": played.call_later}
        for attempts in (1, 2, 3):
            async with sending(outbox, webhooks.Vault(key), **options):
                await played.move(outbox.deliveries[RUN_ID].next_attempt or NOW)
                done = await outbox.marked()
            assert done.attempts == attempts
            assert len(receiver.received) == attempts

    assert done.state is DELIVERED
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1


async def test_the_store_has_all_that_is_needed(tmp_path: Path) -> None:
    """With the real store, three starts of the server make three attempts, and the third one delivers."""
    played = PlayedTime()
    key, database = tmp_path / "webhooks.key", f"sqlite:///{tmp_path / 'runs.sqlite'}"
    async with receiving(status(500), status(500), status(200)) as receiver:
        waiting = models.Delivery(
            run_id=RUN_ID, url=receiver.url, sealed_secret=webhooks.Vault(key).seal(SECRET)
        )
        with opened(database) as kept:
            run = models.RunRecord(
                id=RUN_ID,
                created=played.now,
                request=models.RunRequest(path="a.ipynb"),
                kernel_name="python3",
                owner="server",
                delivery=waiting,
            )
            run = kept.add(run, b"{}")
            assert kept.next_delivery() is None
            ended = dataclasses.replace(run, status=models.RunStatus.CANCELLED, ended=played.now)
            assert kept.finish(ended, None, None)
        for attempts in (1, 2, 3):
            with opened(database) as kept:
                outbox = Outbox(clock=played.clock)

                async def take_due(limit: int, kept: store.RunStore = kept) -> Sequence[models.Delivery]:
                    return kept.due_deliveries(played.now, webhooks.LEASE, limit)

                async def next_due(kept: store.RunStore = kept) -> datetime | None:
                    return kept.next_delivery()

                async def mark(
                    marked: models.Delivery, kept: store.RunStore = kept, outbox: Outbox = outbox
                ) -> None:
                    kept.mark_delivery(marked)
                    await outbox.mark(marked)

                options: dict[str, Any] = {"take_due": take_due, "next_due": next_due, "mark": mark}
                due = kept.next_delivery()
                assert due is not None
                async with sending(outbox, webhooks.Vault(key), call_later=played.call_later, **options):
                    await played.move(due)
                    assert (await outbox.marked()).attempts == attempts
        with opened(database) as kept:
            record = kept.get(RUN_ID)
            assert kept.next_delivery() is None

    assert record is not None
    assert record.delivery is not None
    assert (record.delivery.state, record.delivery.attempts) == (DELIVERED, 3)
    assert [received.headers["webhook-id"] for received in receiver.received] == [
        webhooks.message_id(RUN_ID)
    ] * 3
    stored = read_all(tmp_path)
    assert SECRET.encode() not in stored
    assert receiver.received[0].verify()


def read_all(folder: Path) -> bytes:
    """All that the files of a store hold."""
    return b"".join(path.read_bytes() for path in folder.glob("runs.sqlite*"))


@contextlib.contextmanager
def opened(url: str) -> Iterator[store.RunStore]:
    """The store, as one start of the server has it."""
    kept = store.RunStore(url)
    kept.open()
    try:
        yield kept
    finally:
        kept.close()


async def test_a_run_that_was_deleted_is_not_told_of(vault: webhooks.Vault) -> None:
    """Of a run that is gone, nothing is sent."""
    async with receiving() as receiver:
        outbox = Outbox(delivery(receiver.url), clock=real_time)
        outbox.body = None
        async with sending(outbox, vault):
            done = await outbox.marked()

    assert (done.state, done.last_error) == (FAILED, "the run was deleted")
    assert receiver.connections == 0


async def test_secrets_show_nowhere(vault: webhooks.Vault, caplog: pytest.LogCaptureFixture) -> None:
    """Neither logs, at any level, nor reprs, errors or the state of a delivery have the secret or the key."""
    caplog.set_level(logging.DEBUG)
    other = webhooks.Vault(vault.path.with_name("other.key"))
    webhook = models.Webhook(url="http://127.0.0.1/", secret=SECRET)
    shown = [repr(webhook), repr(vault)]
    for key in (vault, other):
        async with receiving(status(500)) as receiver:
            due = delivery(receiver.url + "?token=hunter2", sealed_secret=key.seal(SECRET))
            outbox = Outbox(due, clock=real_time)
            async with sending(outbox, vault) as sender:
                done = await outbox.marked()
                shown += [
                    repr(due),
                    repr(sender),
                    repr(done),
                    json.dumps(done.to_json()),
                    str(done.last_error),
                ]
    shown += [receiver.received[0].headers["webhook-signature"]] if receiver.received else []
    with pytest.raises(webhooks.VaultError) as caught:
        vault.open(other.seal(SECRET))
    shown.append(repr(caught.value))
    ours = [record.getMessage() for record in caplog.records if record.name == LOG.name]

    text = "\n".join([caplog.text, *shown])
    for hidden in (SECRET, base64.b64encode(KEY).decode(), repr(KEY), vault.path.read_text().strip()):
        assert hidden not in text
    assert ours
    assert not [line for line in ours if "hunter2" in line]


async def test_a_lost_key_is_a_failure_of_this_server(
    vault: webhooks.Vault, caplog: pytest.LogCaptureFixture
) -> None:
    """What was sealed with another key is not sent unsigned; it is tried again, and the log says why."""
    outcomes: list[str] = []
    other = webhooks.Vault(vault.path.with_name("other.key"))
    async with receiving() as receiver:
        outbox = Outbox(delivery(receiver.url, sealed_secret=other.seal(SECRET)), clock=real_time)
        async with sending(outbox, vault, report=outcomes.append):
            done = await outbox.marked()

    assert (done.state, done.last_error) == (PENDING, "this server cannot decrypt the secret")
    assert receiver.connections == 0
    assert outcomes == ["error"]
    assert "another key" in caplog.text


# The sender's life.


async def test_waking_sends_at_once(vault: webhooks.Vault) -> None:
    """What becomes due is sent when the sender is woken, not when it would have looked."""
    played = PlayedTime()
    async with receiving() as receiver:
        outbox = Outbox(clock=played.clock)
        async with sending(outbox, vault, call_later=played.call_later) as sender:
            await played.move(played.now)
            outbox.deliveries[RUN_ID] = delivery(receiver.url, next_attempt=played.now)
            sender.wake()
            assert (await outbox.marked()).state is DELIVERED


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_stop_is_quick_and_loses_nothing(vault: webhooks.Vault, is_cancelled: bool) -> None:
    """A stop, or the end of the task, cuts an attempt within a second; after the lease it is made again."""
    played = PlayedTime()
    has_come = asyncio.Event()

    async def come_and_hang(reader: Reader, writer: Writer) -> None:
        has_come.set()
        await hang(reader, writer)

    async with receiving(come_and_hang, status(200)) as receiver:
        outbox = Outbox(delivery(receiver.url, next_attempt=played.now), clock=played.clock)
        sender = build(outbox, vault)
        task = asyncio.create_task(sender.run())
        with anyio.fail_after(DEADLINE):
            await has_come.wait()
        begin = time.monotonic()
        if is_cancelled:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await sender.stop()
        await sender.stop()
        assert time.monotonic() - begin < 1
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert outbox.marks.empty()
        assert outbox.deliveries[RUN_ID].state is PENDING

        async with sending(outbox, vault, call_later=played.call_later):
            await played.move(played.now + webhooks.LEASE - timedelta(seconds=1))
            assert len(receiver.received) == 1
            await played.move(played.now + timedelta(seconds=2))
            assert (await outbox.marked()).state is DELIVERED


async def test_a_stop_waits_for_an_answer_that_is_there(vault: webhooks.Vault) -> None:
    """An attempt that ends within a moment is noted before the sender stops."""
    gate = asyncio.Event()

    async def answer(reader: Reader, writer: Writer) -> None:
        gate.set()
        await status(200)(reader, writer)

    async with receiving(answer) as receiver:
        outbox = Outbox(delivery(receiver.url), clock=real_time)
        async with sending(outbox, vault):
            with anyio.fail_after(DEADLINE):
                await gate.wait()

    assert outbox.deliveries[RUN_ID].state is DELIVERED


async def test_a_stop_before_the_start_is_fine(vault: webhooks.Vault) -> None:
    """A sender that was stopped before its task ran ends at once."""
    outbox = Outbox(delivery(), clock=real_time)
    async with sending(outbox, vault) as sender:
        await sender.stop()

    assert outbox.marks.empty()


@pytest.mark.parametrize("fault", [errors.StorageUnavailable(), RuntimeError("a fault of ours")])
async def test_a_store_out_of_reach_is_asked_again(
    vault: webhooks.Vault, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    """A store that fails ends nothing: the sender asks again, logs it once, and sends when it is back.

    There is a traceback for faults of ours alone.
    """
    played = PlayedTime()
    async with receiving() as receiver:
        outbox = Outbox(delivery(receiver.url, next_attempt=played.now), clock=played.clock)
        outbox.fault = fault
        async with sending(outbox, vault, call_later=played.call_later):
            for _ in range(3):
                await played.move(played.now + timedelta(seconds=webhooks.TROUBLE))
            outbox.fault = None
            await played.move(played.now + timedelta(seconds=webhooks.TROUBLE))
            assert (await outbox.marked()).state is DELIVERED

    assert caplog.text.count("the store does not answer") == 1
    assert ("Traceback" in caplog.text) == isinstance(fault, RuntimeError)


@pytest.mark.parametrize("fault", [errors.StorageUnavailable(), RuntimeError("a fault of ours")])
async def test_what_cannot_be_noted_is_sent_again(
    vault: webhooks.Vault, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    """Where an answer cannot be noted, the message comes again after the lease, with the same id."""
    played = PlayedTime()
    async with receiving() as receiver:
        outbox = Outbox(delivery(receiver.url, next_attempt=played.now), clock=played.clock)

        async def mark(marked: models.Delivery) -> None:
            if len(receiver.received) == 1:
                outbox.faults.release()
                raise fault
            await outbox.mark(marked)

        async with sending(outbox, vault, call_later=played.call_later, mark=mark):
            with anyio.fail_after(DEADLINE):
                await outbox.faults.acquire()
            await played.move(played.now + webhooks.LEASE)
            done = await outbox.marked()

    assert (done.state, done.attempts) == (DELIVERED, 1)
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1
    assert "not noted" in caplog.text
    assert ("Traceback" in caplog.text) == isinstance(fault, RuntimeError)


async def test_a_fault_of_ours_is_an_attempt(vault: webhooks.Vault, caplog: pytest.LogCaptureFixture) -> None:
    """What breaks on this side is logged and tried again on the schedule; other messages go on."""
    faults = [ValueError("a proxy that is none")]

    def factory(trust_env: bool) -> httpx.AsyncClient:
        if faults:
            raise faults.pop()
        return webhooks.make_client(trust_env)

    async with receiving() as receiver:
        outbox = Outbox(*(delivery(receiver.url, run_id=f"run-{n}") for n in range(2)), clock=real_time)
        async with sending(outbox, vault, client_factory=factory):
            done = [await outbox.marked(), await outbox.marked()]

    assert sorted((each.state.value, each.attempts) for each in done) == [("delivered", 1), ("pending", 1)]
    assert "a proxy that is none" in caplog.text
    assert [each.last_error for each in done if each.last_error] == [
        "internal error; the server's log has it"
    ]


async def test_a_report_that_fails_ends_nothing(
    vault: webhooks.Vault, caplog: pytest.LogCaptureFixture
) -> None:
    """A counter that breaks is logged; the message was delivered."""

    def report(outcome: str) -> None:
        raise RuntimeError("cannot count")

    async with receiving() as receiver:
        outbox = Outbox(delivery(receiver.url), clock=real_time)
        async with sending(outbox, vault, report=report):
            done = await outbox.marked()

    assert done.state is DELIVERED
    assert "cannot count" in caplog.text


async def test_a_slow_receiver_delays_no_other(vault: webhooks.Vault) -> None:
    """With 50 messages for a receiver that hangs, another one gets its own at once; few hang at a time."""
    async with receiving(hang) as slow, receiving() as quick:
        hanging = [delivery(slow.url, run_id=f"slow-{n}") for n in range(50)]
        url = quick.url.replace("127.0.0.1", "localhost")
        outbox = Outbox(*hanging, delivery(url, run_id="quick"), clock=real_time)
        begin = time.monotonic()
        async with sending(outbox, vault):
            while (done := await outbox.marked()).run_id != "quick":
                # Put off, not tried: that costs no attempt.
                assert (done.state, done.attempts) == (PENDING, 0)
                assert timedelta(0) < (done.next_attempt or NOW) - real_time() < timedelta(seconds=61)
        assert time.monotonic() - begin < 10

    assert done.state is DELIVERED
    assert slow.most_at_once <= webhooks.PER_HOST


async def test_many_messages_are_sent_few_at_a_time(vault: webhooks.Vault) -> None:
    """A burst is sent with bounded concurrency, each message once."""
    async with receiving() as receiver:
        messages = [delivery(receiver.url, run_id=f"run-{n}") for n in range(60)]
        outbox = Outbox(*messages, clock=real_time)
        async with sending(outbox, vault, at_once=7, per_host=60):
            done = [await outbox.marked() for _ in messages]

    assert {each.run_id for each in done if each.state is DELIVERED} == {each.run_id for each in messages}
    assert len(receiver.received) == 60
    assert 1 < receiver.most_at_once <= 7


# The network.


async def test_proxies_are_for_the_world_outside(
    vault: webhooks.Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's proxy gets what is for other hosts, and nothing that is for this machine."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    async with receiving() as proxy, receiving() as receiver:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        urls = {"local": receiver.url, "named": receiver.url.replace("127.0.0.1", "localhost")}
        urls["outside"] = "http://hooks.example.com/x"
        outbox = Outbox(*(delivery(url, run_id=name) for name, url in urls.items()), clock=real_time)
        async with sending(outbox, vault):
            for _ in urls:
                assert (await outbox.marked()).state is DELIVERED

    assert [received.path for received in proxy.received] == ["http://hooks.example.com/x"]
    assert len(receiver.received) == 2


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for localhost that only its own file vouches for, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = real_time()
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "public.pem", folder / "private.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context


@pytest.mark.parametrize("is_known", [True, False])
async def test_certificates_are_checked(
    tmp_path: Path, vault: webhooks.Vault, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """A certificate that nobody vouches for gets nothing; `SSL_CERT_FILE` names one's own."""
    public, context = certificate(tmp_path)
    if is_known:
        monkeypatch.setenv("SSL_CERT_FILE", str(public))
    else:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    receiver = Receiver([status(200)])
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=context)
    try:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        outbox = Outbox(delivery(url), clock=real_time)
        async with sending(outbox, vault):
            done = await outbox.marked()
    finally:
        server.close()

    assert done.state is (DELIVERED if is_known else PENDING)
    assert len(receiver.received) == is_known
    assert is_known or "certificate" in (done.last_error or "").lower()
