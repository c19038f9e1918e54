"""Bodies are read strictly, and every wrong field is named at once."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_nbexec import errors, models, requests

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda child: st.lists(child) | st.dictionaries(st.text(), child),
    max_leaves=20,
)


def parse(fields: Any, path: str | None = "a.ipynb", max_timeout: float = 3600) -> models.RunRequest:
    """Check a body for a notebook named by its path."""
    return requests.parse_run_request(fields, path=path, max_timeout=max_timeout)


def refused(fields: Any, path: str | None = "a.ipynb", max_timeout: float = 3600) -> dict[str, str]:
    """What is wrong with a body, by field."""
    with pytest.raises(errors.InvalidRequest) as caught:
        parse(fields, path, max_timeout)
    assert caught.value.code == "invalid_request"
    return {error["field"]: error["message"] for error in caught.value.details["errors"]}


class TestParseJson:
    """`parse_json` reads RFC 8259 and nothing beyond it."""

    @given(JSON)
    def test_reads_what_json_writes(self, value: Any) -> None:
        """Every JSON value arrives as it was written."""
        assert requests.parse_json(json.dumps(value).encode()) == value

    @given(st.binary(max_size=40))
    def test_any_bytes_are_read_or_refused(self, body: bytes) -> None:
        """No bytes raise anything but InvalidJson."""
        with contextlib.suppress(errors.InvalidJson):
            requests.parse_json(body)

    def test_empty_body_is_an_empty_object(self) -> None:
        """Nothing sent means nothing asked for."""
        assert requests.parse_json(b"") == {}

    def test_keeps_long_integers_exact(self) -> None:
        """Integers are not rounded, up to the limit."""
        assert requests.parse_json(b"-" + b"7" * requests.MAX_DIGITS) == -int("7" * requests.MAX_DIGITS)

    def test_accepts_deep_but_bearable_nesting(self) -> None:
        """Reasonable depth passes."""
        requests.parse_json(b"[" * 500 + b"]" * 500)

    def test_many_shallow_brackets_are_not_deep(self) -> None:
        """Depth is what counts, not the number of brackets."""
        assert len(requests.parse_json(b"[" + b",".join([b"[{}]"] * 3000) + b"]")) == 3000

    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b'{"a":',
            b"{} x",
            b"{'a':1}",
            b"{/*x*/}",
            b"\xff\xfe{",
            "{}".encode("utf-16"),
            "{}".encode("utf-16-le"),
            "{}".encode("utf-32"),
            b"\xef\xbb\xbf{}",
            b'"\xed\xa0\x80"',
            b" ",
            b"a=1",
            b"[1,]",
            b"01",
            b'"\t"',
            b'{"parameters":{"x":NaN}}',
            b'{"parameters":{"x":Infinity}}',
            b'{"parameters":{"x":-Infinity}}',
            b'{"parameters":{"x":1e999}}',
            b"[-1e999]",
            b'{"parameters":{},"parameters":{}}',
            b'{"parameters":{"a":[{"x":1,"\\u0078":2}]}}',
            b"[" * 100_000,
            b"[" * 100_000 + b"]" * 100_000,
            b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
            b"7" * 5_000,
            b"-" + b"7" * 4_301,
        ],
        ids=lambda body: repr(body[:24]),
    )
    def test_refuses(self, body: bytes) -> None:
        """What is not strictly JSON in UTF-8 is InvalidJson."""
        with pytest.raises(errors.InvalidJson):
            requests.parse_json(body)

    @pytest.mark.parametrize(
        "body",
        [
            b'{"env":{"A":"hunter2"}',
            b'{"env":{"A":"hunter2\xff"}}',
            b'{"env":{"A":"hunter2"},"env":{}}',
            b'{"env":{"A":"hunter2",}}',
        ],
    )
    def test_errors_do_not_carry_the_body(self, body: bytes) -> None:
        """A secret in a broken body is in no message and in no chained exception."""
        with pytest.raises(errors.InvalidJson) as caught:
            requests.parse_json(body)
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


class TestCheckMediaType:
    """Any type will do that can be JSON in UTF-8."""

    @pytest.mark.parametrize(
        "content_type",
        [
            None,
            "",
            "application/json",
            "application/json; charset=utf-8",
            'Application/JSON;Charset="UTF-8"',
            "application/json;charset=utf8",
            "application/x-www-form-urlencoded",
            "text/plain",
            "application/octet-stream; a=b",
            ";;;",
            "nonsense",
        ],
    )
    def test_accepts(self, content_type: str | None) -> None:
        """The declared type is not what decides."""
        requests.check_media_type(content_type, None)
        requests.check_media_type(content_type, "")

    @pytest.mark.parametrize(
        "content_type",
        [
            "multipart/form-data; boundary=x",
            "MULTIPART/mixed",
            "multipart/",
            "application/json; charset=latin-1",
            'application/json; charset="utf-16"',
            "application/json;a=b; CHARSET = us-ascii",
            "text/plain; charset=utf-8; charset=utf-16",
            "text/plain; charset=",
        ],
    )
    def test_refuses_types(self, content_type: str) -> None:
        """Multipart and other charsets are refused."""
        with pytest.raises(errors.UnsupportedMediaType):
            requests.check_media_type(content_type, None)

    @pytest.mark.parametrize("encoding", ["gzip", "br", "identity", "gzip, br", "nonsense"])
    def test_refuses_encodings(self, encoding: str) -> None:
        """Any content encoding is refused."""
        with pytest.raises(errors.UnsupportedMediaType):
            requests.check_media_type("application/json", encoding)


class TestParseRunRequest:
    """`parse_run_request` follows the table of the contract."""

    def test_defaults(self) -> None:
        """An empty object asks for the defaults."""
        assert parse({}) == models.RunRequest(path="a.ipynb")

    def test_all_fields(self) -> None:
        """Every field arrives."""
        request = parse(
            {
                "parameters": {"x": [1, None]},
                "kernel_name": "python3",
                "timeout": 2.5,
                "cell_timeout": 1,
                "allow_errors": False,
                "outputs": {"tags": ["a", "b", "a"]},
                "env": {"A": "1", "B_ä": ""},
                "save_as": "out/{name}-{run_id}.ipynb",
            }
        )
        assert request == models.RunRequest(
            path="a.ipynb",
            parameters={"x": [1, None]},
            kernel_name="python3",
            timeout=2.5,
            cell_timeout=1.0,
            allow_errors=False,
            outputs=models.OutputSelection(kind="tags", tags=frozenset({"a", "b"})),
            env={"A": "1", "B_ä": ""},
            save_as="out/{name}-{run_id}.ipynb",
        )
        assert isinstance(request.cell_timeout, float)

    def test_kernel_id(self) -> None:
        """A live kernel can be named."""
        assert parse({"kernel_id": "abc", "env": {}}).kernel_id == "abc"

    @pytest.mark.parametrize("kind", ["all", "last", "none"])
    def test_outputs_words(self, kind: str) -> None:
        """The three words choose outputs."""
        assert parse({"outputs": kind}).outputs.kind == kind

    @pytest.mark.parametrize("body", [None, [], 5, "x", True, 1.5])
    def test_body_must_be_an_object(self, body: Any) -> None:
        """Other JSON values are refused as a whole."""
        assert list(refused(body)) == ["body"]

    @pytest.mark.parametrize(
        ("field", "values"),
        [
            ("parameters", [[], "x=1", None, 1, True]),
            ("kernel_name", ["", 5, None, "a\0", "\ud800", "a\n"]),
            ("kernel_id", ["", 5, None, "a\0", {}]),
            ("timeout", [-1, 0, "10", 1e18, 10**400, True, False, None, [], float("nan"), 3600.001, -0.0]),
            ("cell_timeout", [-1, 0, "10", 1e18, 10**400, True, None, float("nan"), float("inf")]),
            ("allow_errors", [0, 1, "true", None]),
            ("outputs", ["some", "", None, [], {}, {"tags": [], "x": 1}, 1, True]),
            ("outputs.tags", [{"tags": "a"}, {"tags": [1]}, {"tags": None}, {"tags": {}}]),
            ("env", [[], None, "A=1", {"": ""}, {"A=B": ""}, {"A\0": ""}, {"\ud800": ""}, {"A\n": ""}]),
            ("env.A", [{"A": 1}, {"A": None}, {"A": True}, {"A": "\0"}, {"A": "\ud800"}, {"A": ["x"]}]),
            (
                "save_as",
                [
                    "",
                    5,
                    None,
                    "a",
                    "a.txt",
                    "/a.ipynb",
                    "../a.ipynb",
                    "a/../b.ipynb",
                    "a//b.ipynb",
                    "./a.ipynb",
                    ".a.ipynb",
                    ".hidden/a.ipynb",
                    ".ipynb",
                    "a\\b.ipynb",
                    "a\0.ipynb",
                    "a\n.ipynb",
                    "a\x85.ipynb",
                    "\udc80.ipynb",
                    "a.ipynb/",
                    "{run_id}",
                ],
            ),
            ("webhook", [[], None, "https://x.example", {"url": "https://x.example/hook", "nope": 1}]),
            ("webhook.url", [{}, {"url": 1}, {"url": None}]),
            (
                "webhook.events",
                [
                    {"url": "u", "events": each}
                    for each in ([], None, "ended", ["started"], ["ended", "ended"])
                ],
            ),
            ("webhook.secret", [{"url": "u", "secret": 1}]),
        ],
    )
    def test_refuses(self, field: str, values: list[Any]) -> None:
        """Each wrong value is refused under its field's name, and nothing else is."""
        for value in values:
            assert list(refused({field.partition(".")[0]: value})) == [field], value

    def test_webhook(self) -> None:
        """A well-formed webhook arrives; whether its host is allowed is decided elsewhere."""
        webhook = {"url": "https://x.example", "events": ["ended"], "secret": "s"}
        assert parse({"webhook": webhook}).webhook == models.Webhook(url="https://x.example", secret="s")
        assert parse({"webhook": {"url": ""}}).webhook == models.Webhook(url="")
        assert parse({}).webhook is None
        assert "'s'" not in repr(parse({"webhook": webhook}))

    def test_reports_everything_at_once(self) -> None:
        """A client learns all its mistakes from one answer."""
        fields = {"parameters": [], "timeout": 0, "env": {"A": 1, "B": 2}, "nope": 1, "outputs": 3}
        assert list(refused(fields)) == ["parameters", "timeout", "outputs", "env.A", "env.B", "nope"]

    def test_names_unknown_fields(self) -> None:
        """An unknown field is named, in a form that can be printed."""
        assert list(refused({"unknown": 1, "\ud800": 2, "x" * 500: 3, "ä": 4})) == [
            "unknown",
            "'\\ud800'",
            repr("x" * 60 + "..."),
            "ä",
        ]

    @given(st.text(min_size=3), st.text())
    def test_never_repeats_secrets(self, secret: str, name: str) -> None:
        """No message holds a value of the environment or a webhook's secret."""
        marked = f"s3cr3t{secret}"
        fields = {
            "env": {"A": marked + "\0", name: [marked], "A=" + marked: "", "B": {marked: 1}},
            "webhook": {"url": 1, "secret": marked},
        }
        with pytest.raises(errors.InvalidRequest) as caught:
            parse(fields)
        assert "s3cr3t" not in caught.value.message
        assert "s3cr3t" not in json.dumps(caught.value.details)

    def test_env_is_not_shown(self) -> None:
        """The request itself does not show its secrets either."""
        assert "hunter2" not in repr(parse({"env": {"A": "hunter2"}}))

    @pytest.mark.parametrize("maximum", [0, 1e12])
    def test_without_maximum(self, maximum: float) -> None:
        """No maximum still means a sane number of seconds."""
        assert parse({"timeout": 1e6}, max_timeout=maximum).timeout == 1e6
        assert list(refused({"timeout": 1e18}, max_timeout=maximum)) == ["timeout"]

    def test_kernel_id_excludes_what_starts_a_kernel(self) -> None:
        """A live kernel can have no other name and no new environment."""
        fields = {"kernel_id": "abc", "kernel_name": "python3", "env": {"A": "1"}}
        assert list(refused(fields)) == ["kernel_name", "env"]

    def test_notebook_in_the_body(self) -> None:
        """Without a path the notebook is in the body, and must be."""
        assert parse({"notebook": {"cells": []}}, path=None).notebook == {"cells": []}
        assert list(refused({}, path=None)) == ["notebook"]
        assert list(refused({"notebook": []}, path=None)) == ["notebook"]
        assert list(refused({"notebook": {"x": ["\ud800"]}}, path=None)) == ["notebook"]
        assert list(refused({"notebook": {"\ud800": 1}}, path=None)) == ["notebook"]

    def test_notebook_beside_a_path(self) -> None:
        """With a path there is no second notebook."""
        assert list(refused({"notebook": {"cells": []}})) == ["notebook"]


class TestExpandSaveAs:
    """Two placeholders are replaced, and nothing else."""

    @pytest.mark.parametrize(
        ("template", "expanded"),
        [
            ("a.ipynb", "a.ipynb"),
            ("{name}/{run_id}.ipynb", "sales/42.ipynb"),
            ("{name}{name}.ipynb", "salessales.ipynb"),
            ("{{name}}.ipynb", "{sales}.ipynb"),
            ("{other}{}{0}{name!r}{name.x}.ipynb", "{other}{}{0}{name!r}{name.x}.ipynb"),
            ("{ name }%(name)s$name.ipynb", "{ name }%(name)s$name.ipynb"),
        ],
    )
    def test_replaces(self, template: str, expanded: str) -> None:
        """Other braces and other languages' placeholders are literal."""
        assert requests.expand_save_as(template, run_id="42", name="sales") == expanded

    def test_replaces_in_one_pass(self) -> None:
        """A notebook named like a placeholder stays as it is."""
        assert requests.expand_save_as("{name}.ipynb", run_id="42", name="{run_id}\\1") == "{run_id}\\1.ipynb"


#: Names and values as RFC 9110 has them.
TOKENS = st.text(alphabet="!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=8)
QUOTED = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
UNKNOWN = st.builds(
    lambda name, value, parameters: f"x-{name}" + value + "".join(f"; {each}" for each in parameters),
    TOKENS,
    st.just("") | (TOKENS | QUOTED).map("={}".format),
    st.lists(st.just("") | st.builds("{}={}".format, TOKENS, TOKENS | QUOTED), max_size=2),
)


class TestParsePrefer:
    """`parse_prefer` reads what there is to prefer, and ignores all else (RFC 7240)."""

    @pytest.mark.parametrize(
        ("header", "respond_async", "wait"),
        [
            (None, False, None),
            ("", False, None),
            ("respond-async", True, None),
            ("Respond-Async ; x=y", True, None),
            ("wait=10", False, 10),
            ('WAIT = "10"', False, 10),
            ("wait=0", False, 0),
            ("respond-async, wait=5", True, 5),
            ("wait=5, respond-async", True, 5),
            ("wait=5, wait=6", False, 5),
            ("wait=x, wait=6", False, 6),
            ("wait=-1", False, None),
            ("wait=1.5", False, None),
            ("wait=", False, None),
            ("wait", False, None),
            ("wait=\u0663", False, None),
            ("wait=" + "9" * 30, False, requests.LONGEST),
            ('x="a, respond-async, wait=1"', False, None),
            ('x="\\", respond-async, wait=1"', False, None),
            ('x="unclosed, respond-async', False, None),
            (", ;, =", False, None),
        ],
    )
    def test_reads(self, header: str | None, respond_async: bool, wait: float | None) -> None:
        """Each preference is found where it is one."""
        found = requests.parse_prefer(header)
        assert (found.respond_async, found.wait) == (respond_async, wait)
        assert found.any is bool(header)

    @given(st.text(max_size=60) | st.text(alphabet='respond-async, wait=1;"\\', max_size=40))
    def test_any_header_can_be_read(self, header: str) -> None:
        """No header raises anything, and what is applied is read back as the same."""
        found = requests.parse_prefer(header)
        again = requests.parse_prefer(found.applied)
        assert again.respond_async is found.respond_async
        assert found.wait is None or 0 <= found.wait <= requests.LONGEST

    @given(st.lists(UNKNOWN, max_size=3), st.lists(UNKNOWN, max_size=3), st.integers(0, 10**6))
    def test_others_change_nothing(self, before: list[str], after: list[str], wait: int) -> None:
        """Between any preferences of others, ours are found."""
        header = ", ".join([*before, "respond-async", f"wait={wait}", *after])
        found = requests.parse_prefer(header)
        assert found == requests.Preferences(respond_async=True, wait=wait, any=True)
        assert found.applied == f"respond-async, wait={wait:g}"
        alone = requests.parse_prefer(", ".join([*before, *after]))
        assert (alone.respond_async, alone.wait, alone.applied) == (False, None, "")


class TestParseKey:
    """`parse_key` takes 1 to 255 characters, in quotes or bare."""

    @given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255))
    def test_quoted(self, key: str) -> None:
        """What was put into quotes comes out again."""
        quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
        assert requests.parse_key(quoted) == key
        assert requests.parse_key(f" {quoted}\t") == key

    @given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=255))
    def test_bare(self, key: str) -> None:
        """What is sent as UTF-8, and read as Latin-1 by the server, is the key that was meant."""
        if key[0] != '"':
            assert requests.parse_key(key.encode().decode("latin-1")) == key

    @given(st.text(max_size=300))
    def test_any_header_is_read_or_refused(self, header: str) -> None:
        """Nothing raises anything but InvalidRequest."""
        with contextlib.suppress(errors.InvalidRequest):
            key = requests.parse_key(header)
            assert key is not None
            assert 1 <= len(key) <= requests.MAX_KEY

    @pytest.mark.parametrize(
        "header", ["", " ", '""', "x" * 256, '"' + "x" * 256 + '"', "a\0b", "a\nb", "\x7f", "\x85"]
    )
    def test_refuses(self, header: str) -> None:
        """Empty, too long, and control characters."""
        with pytest.raises(errors.InvalidRequest) as caught:
            requests.parse_key(header)
        assert caught.value.details["errors"][0]["field"] == "Idempotency-Key"

    def test_without(self) -> None:
        """No header, no key."""
        assert requests.parse_key(None) is None


class TestFingerprint:
    """`fingerprint` tells requests apart, without their secrets."""

    @given(st.dictionaries(st.text(), JSON, max_size=5), st.none() | st.text())
    def test_order_does_not_matter(self, fields: dict[str, Any], path: str | None) -> None:
        """Members may come in any order, and the body may be written in any way."""
        other = json.loads(json.dumps(dict(reversed(fields.items())), indent=1))
        assert requests.fingerprint(fields, path=path) == requests.fingerprint(other, path=path)

    @given(JSON, JSON)
    def test_other_bodies_are_other_requests(self, one: Any, other: Any) -> None:
        """Two bodies have one fingerprint exactly if they are the same JSON."""
        same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
        fields = [{"parameters": {"x": each}} for each in (one, other)]
        found = [requests.fingerprint(each, path="a.ipynb") for each in fields]
        assert (found[0] == found[1]) is same

    def test_path_counts(self) -> None:
        """So does which notebook it is."""
        found = {requests.fingerprint({}, path=path) for path in (None, "", "a.ipynb", "b.ipynb", "None")}
        assert len(found) == 5

    @given(st.dictionaries(st.text(), st.text(), min_size=1, max_size=3), st.text(), st.text())
    def test_secrets_do_not(self, env: dict[str, str], one: str, other: str) -> None:
        """Values of `env` and a webhook's secret are no part of it; names of variables and the URL are."""

        def of(value: str, **more: Any) -> str:
            webhook = {"url": "u", "secret": value, **more}
            return requests.fingerprint(
                {"env": dict.fromkeys(env, value), "webhook": webhook}, path="a.ipynb"
            )

        assert of(one) == of(other)
        assert of(one) != of(one, url="v")
        assert of(one) != requests.fingerprint({"env": {}, "webhook": {"url": "u"}}, path="a.ipynb")

    def test_changes_nothing(self) -> None:
        """What was asked for stays as it is."""
        fields = {"env": {"B": "1", "A": "2"}, "webhook": {"url": "u", "secret": "s"}}
        before = json.dumps(fields)
        requests.fingerprint(fields, path=None)
        assert json.dumps(fields) == before

    @pytest.mark.parametrize("fields", [None, [], 1, {"env": 5}, {"webhook": []}, {"x": "\ud800"}])
    def test_any_body(self, fields: Any) -> None:
        """A body that will be refused has one as well."""
        assert len(requests.fingerprint(fields, path=None)) == 64


class TestBounds:
    """What is sent is counted before it is worked on, and what is refused is told in few words."""

    @pytest.mark.parametrize("piece", [b'"a" : 0', b"0", b"{}", b"[[[[]]]]", b'"["', b'"\\"["'])
    def test_values(self, piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        """A body has no more values than allowed, wherever they are; what is in strings is none."""
        monkeypatch.setattr(requests, "MAX_VALUES", 1000)
        many = b",".join([piece] * 1002)
        with pytest.raises(errors.InvalidJson, match="more than 1000 values"):
            requests.parse_json(b"{%s}" % many if b":" in piece else b"[%s]" % many)
        quoted = json.dumps([many.decode()]).encode()
        assert requests.parse_json(quoted) == [many.decode()]

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"env": {f"A{number}": "" for number in range(1001)}}, "env"),
            ({"outputs": {"tags": ["a"] * 1001}}, "outputs.tags"),
            ({"kernel_name": "k" * 4097}, "kernel_name"),
            ({"kernel_id": "k" * 4097}, "kernel_id"),
            ({"save_as": "a/" * 2048 + "x.ipynb"}, "save_as"),
        ],
    )
    def test_fields(self, fields: dict[str, Any], field: str) -> None:
        """A field holds no more than anybody needs."""
        with pytest.raises(errors.InvalidRequest) as raised:
            requests.parse_run_request(fields, path="a.ipynb", max_timeout=0)
        assert [each["field"] for each in raised.value.details["errors"]] == [field]

    def test_headers(self) -> None:
        """Headers that are read here are short, all lines together; others are not looked at."""
        sent = {"Accept": ["a/b," * 512, "*/*"], "Cookie": ["c" * 65536]}
        requests.check_headers(lambda name: sent.get(name, [])[:1])
        sent["Accept"] += sent["Accept"]
        with pytest.raises(errors.InvalidRequest, match="Accept: is longer than 4096 characters"):
            requests.check_headers(lambda name: sent.get(name, []))

    @pytest.mark.parametrize("kind", [errors.InvalidRequest, errors.InvalidParameter])
    def test_problems(self, kind: type[errors.InvalidRequest | errors.InvalidParameter]) -> None:
        """Of many problems the first are listed, and how many more there are."""
        error = kind(*((f"{number}" + "n" * 10_000, "m" * 10_000) for number in range(1000)))
        assert len(error.details["errors"]) == errors.MAX_LISTED
        assert "950 more; 0nnn" in error.message
        assert len(json.dumps([error.message, error.details])) < 60_000

    def test_messages(self) -> None:
        """A message that repeats what was sent is cut."""
        assert len(errors.NoSuchKernel("k" * 100_000, []).message) == 4000
