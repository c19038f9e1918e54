"""Perl: what it reads back, where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_nbexec.languages import base, perl

if TYPE_CHECKING:
    from pathlib import Path

    from tests.languages.conftest import MakeValues

LANGUAGE = perl.Perl()

#: Shows what Perl's own JSON could not: how a text is spelt, and floats to the last bit.
SHOW = r"""
use strict; use warnings;
sub show {
  my ($x) = @_;
  return 'null' unless defined $x;
  return '[' . join(',', map { show($_) } @$x) . ']' if ref $x eq 'ARRAY';
  return '{' . join(',', map { show($_) . ':' . show($x->{$_}) } sort keys %$x) . '}' if ref $x eq 'HASH';
  return '"' . join(' ', map { sprintf '%x', ord } split //, $x) . '"';
}
"""


def shown(value: Any) -> Any:
    """What `SHOW` makes of a value whose scalars are texts."""
    if isinstance(value, str):
        return " ".join(f"{ord(sign):x}" for sign in value)
    if isinstance(value, list):
        return [shown(each) for each in value]
    if isinstance(value, dict):
        return {shown(key): shown(each) for key, each in value.items()}
    return None


def run(tmp_path: Path, program: str) -> str:
    """Run a program; what it says."""
    interpreter = shutil.which("perl")
    if interpreter is None:
        pytest.skip("Perl is not installed")
    file = tmp_path / "program.pl"
    file.write_text(program, encoding="ascii")
    ended = subprocess.run([interpreter, file], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_texts_arrive(texts: list[str], tmp_path: Path) -> None:
    """Every text is read back to the last character, and nothing in it is evaluated."""
    values = [*texts, texts, {text: [text, None] for text in texts[:50]}]
    lines = [f"{LANGUAGE.assignment('x', value)} print show($x), qq{{\\n}}; }}" for value in values]
    said = run(tmp_path, SHOW + "\n".join("{ " + line for line in lines))

    assert [json.loads(line) for line in said.splitlines()] == [shown(value) for value in values]


def test_numbers_arrive(make_values: MakeValues, tmp_path: Path) -> None:
    """Integers of 64 bits and floats arrive equal."""
    integers = [0, 1, -1, 2**63 - 1, -(2**63), 2**64 - 1, 10**18]
    floats = [each for each in make_values(400) if isinstance(each, float)] + [0.1, 1e300, 5e-324, -0.5]
    lines = [f"printf qq{{%s\\n}}, {LANGUAGE.literal(each)};" for each in integers]
    lines += [f"printf qq{{%.17g\\n}}, {LANGUAGE.literal(each)};" for each in floats]
    said = run(tmp_path, "\n".join(lines)).splitlines()

    assert [int(each) for each in said[: len(integers)]] == integers
    assert [float(each) for each in said[len(integers) :]] == floats


def test_others_arrive(tmp_path: Path) -> None:
    """Truth values are Perl's own; null is undef."""
    written = LANGUAGE.literal([None, True, False])
    program = f"my $x = {written}; print join ',', map {{ defined $_ ? qq{{<$_>}} : 'undef' }} @$x;"

    assert run(tmp_path, program) == "undef,<1>,<>"


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_refused(number: int) -> None:
    """Integers that Perl would round are refused."""
    with pytest.raises(base.Unwritable):
        LANGUAGE.literal([number])


def test_names() -> None:
    """Variables that mean something to Perl are refused; its keywords are not, since names have a sign."""
    assert LANGUAGE.check_name("a") is not None
    assert LANGUAGE.check_name("é") is not None
    assert LANGUAGE.check_name("if") is None
    assert LANGUAGE.assignment("x", "$HOME @ENV") == 'my $x = "\\$HOME \\@ENV";'
