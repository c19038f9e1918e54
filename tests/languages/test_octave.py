"""Octave: what it reads back, where it is installed; `test_lexical.py` checks the text everywhere."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_nbexec.languages import base, octave

if TYPE_CHECKING:
    from pathlib import Path

    from tests.languages.conftest import MakeValues

LANGUAGE = octave.Octave()

SHOW = r"""
1;
function s = show (x)
  if iscell (x)
    held = cellfun (@show, x(:)', 'UniformOutput', false);
    s = ['[' strjoin(held, ',') ']'];
  elseif isobject (x)
    k = keys (x); held = {};
    for i = 1:numel (k)
      held{end+1} = [show(k{i}) ':' show(x(k{i}))];
    end
    s = ['{' strjoin(held, ',') '}'];
  elseif ischar (x)
    s = ['"' sprintf('%02x', uint8 (x)) '"'];
  elseif islogical (x)
    if x; s = 'true'; else; s = 'false'; end
  elseif isempty (x)
    s = 'null';
  else
    s = ['"=' num2hex(x) '"'];
  end
end
"""


def shown(value: Any) -> Any:
    """What `SHOW` makes of a value."""
    if isinstance(value, str):
        return value.encode().hex()
    if isinstance(value, list):
        return [shown(item) for item in value]
    if isinstance(value, dict):
        return {key.encode().hex(): shown(item) for key, item in value.items()}
    return value if value is None or isinstance(value, bool) else "=" + struct.pack(">d", value).hex()


def test_values_arrive_in_octave(make_values: MakeValues, texts: list[str], tmp_path: Path) -> None:
    """Values and texts are read back exactly."""
    program = shutil.which("octave-cli")
    if program is None:
        pytest.skip("octave-cli is not installed; test_lexical.py checks what is written")
    values = [*make_values(400, seed=8, integers=2**53, empty_keys=False), *texts]
    lines = [LANGUAGE.assignment("p", value) + "\nprintf('%s\\n', show(p));" for value in values]
    script = tmp_path / "script.m"
    script.write_text(SHOW + "\n".join(lines), encoding="ascii")
    done = subprocess.run([program, "--norc", "--quiet", str(script)], capture_output=True, check=True)
    printed = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert printed == [shown(value) for value in values]


@pytest.mark.parametrize("value", [2**53 + 1, [-(2**63)], "\ud800", {"": 1}])
def test_what_octave_cannot_hold_is_refused(value: Any) -> None:
    """A double would round it."""
    with pytest.raises(base.Unwritable):
        LANGUAGE.literal(value)


@pytest.mark.parametrize("name", ["end", "1x", "x y", "é", "x" * 64, "char.x", "true", "containers", ""])
def test_names_that_are_refused(name: str) -> None:
    """Keywords, what our own literals use, and what MATLAB would cut."""
    assert LANGUAGE.check_name(name) is not None
