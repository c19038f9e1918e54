"""R: what it reads back, in Rscript and through IRkernel."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_nbexec.languages import base, r

if TYPE_CHECKING:
    from pathlib import Path

    from tests.languages.conftest import MakeValues, Need, StartKernel

LANGUAGE = r.R()

#: Writes a value as JSON, texts by their bytes in hexadecimal and numbers as C's `%a`.
SHOW = r"""
hexa <- function(s) vapply(s, function(t) paste(charToRaw(enc2utf8(t)), collapse = ""), "", USE.NAMES = FALSE)
show1 <- function(x) {
  if (is.null(x)) return("null")
  if (is.list(x)) {
    if (length(x) == 0) return(if (is.null(names(x))) "[]" else "{}")
    held <- vapply(x, show1, "", USE.NAMES = FALSE)
    if (is.null(names(x))) return(paste0("[", paste(held, collapse = ","), "]"))
    return(paste0("{", paste0('"', hexa(names(x)), '":', held, collapse = ","), "}"))
  }
  if (is.logical(x)) return(if (x) "true" else "false")
  if (is.character(x)) return(paste0('"', hexa(x), '"'))
  paste0('"=', sprintf("%a", x), '"')
}
"""


def shown(value: Any) -> Any:
    """What `SHOW` makes of a value."""
    if isinstance(value, str):
        return value.encode().hex()
    if isinstance(value, list):
        return [shown(item) for item in value]
    if isinstance(value, dict):
        return {key.encode().hex(): shown(item) for key, item in value.items()}
    return value if value is None or isinstance(value, bool) else "=" + float(value).hex()


def read(printed: str) -> Any:
    """Read what R printed, numbers in Python's own spelling."""
    return json.loads(printed, object_hook=dict, parse_constant=str)


def respell(value: Any) -> Any:
    """Spell hexadecimal floats as Python does."""
    if isinstance(value, str) and value.startswith("="):
        return "=" + float.fromhex(value[1:]).hex()
    if isinstance(value, list):
        return [respell(item) for item in value]
    return {key: respell(item) for key, item in value.items()} if isinstance(value, dict) else value


def usable(values: list[Any]) -> list[Any]:
    """The values that R can hold."""
    kept = []
    for value in values:
        try:
            LANGUAGE.literal(value)
        except base.Unwritable:
            continue
        kept.append(value)
    return kept


def deep_keys(depth: int) -> Any:
    """A value of so many levels whose every key needs the longer form."""
    value: Any = {}
    for _ in range(depth - 1):
        value = {"é": value}
    return value


def deep(depth: int) -> Any:
    """A value of so many levels, in the form that takes most brackets."""
    value: Any = {}
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_values_arrive_in_r(
    need: Need, make_values: MakeValues, texts: list[str], tmp_path: Path, locale: str
) -> None:
    """Values and texts are read back exactly, whatever the locale."""
    values = usable(
        [*make_values(600, seed=5, integers=2**53, empty_keys=False), *texts, deep(24), deep_keys(24)]
    )
    assert len(values) > 1_000
    lines = [LANGUAGE.assignment("p", value) + "\ncat(show1(p), '\\n', sep = '')" for value in values]
    script = tmp_path / "script.R"
    script.write_text(SHOW + "\n".join(lines), encoding="ascii")
    done = subprocess.run(
        [need("Rscript"), "--vanilla", str(script)],
        capture_output=True,
        check=True,
        env={"LC_ALL": locale, "PATH": "/usr/bin:/bin"},
    )
    printed = done.stdout.decode().splitlines()
    assert [respell(read(line)) for line in printed] == [shown(value) for value in values]


def test_values_arrive_through_the_kernel(
    need: Need, start_kernel: StartKernel, make_values: MakeValues, texts: list[str]
) -> None:
    """A smaller batch, as one injected cell."""
    kernel = start_kernel([need("R"), "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"])
    values = usable([*make_values(100, seed=6, integers=2**53, empty_keys=False), *texts[:200]])
    lines = [LANGUAGE.assignment(f"p{number}", value) for number, value in enumerate(values)]
    kernel.run("\n".join([LANGUAGE.comment("Parameters"), *lines, ""]))
    printed = kernel.run(
        SHOW + f"for (i in 0:{len(values) - 1}) cat(show1(get(paste0('p', i))), '\\n', sep = '')"
    )
    assert [respell(read(line)) for line in printed.splitlines()] == [shown(value) for value in values]


def test_floats_arrive_to_the_last_bit(need: Need, tmp_path: Path) -> None:
    """R rounds some decimals wrongly; what we write it reads right."""
    numbers: list[float] = []

    @settings(max_examples=1_000, deadline=None, derandomize=True, database=None)
    @given(st.floats(allow_nan=False, allow_infinity=False))
    def collect(number: float) -> None:
        numbers.append(number)

    collect()
    numbers += [round(step / 100, 2) for step in range(1_000)]
    script = tmp_path / "script.R"
    script.write_text("\n".join(f'cat(sprintf("%a\\n", {LANGUAGE.literal(number)}))' for number in numbers))
    done = subprocess.run([need("Rscript"), "--vanilla", str(script)], capture_output=True, check=True)
    assert [float.fromhex(line).hex() for line in done.stdout.decode().split()] == [
        one.hex() for one in numbers
    ]


def test_short_decimals_stay_decimals() -> None:
    """A person reads the executed notebook."""
    written = [LANGUAGE.literal(number) for number in (0.1, 1.2345, -5432.1, 1.0, 3.14159, 1e-7)]
    assert written == ["0.1", "1.2345", "-5432.1", "1.0", "3.14159", "1e-07"]


@pytest.mark.parametrize("value", ["a\0b", {"": 1}, 2**53 + 1, -(2**60), [1, {"x": "\0"}], deep(25)])
def test_what_r_cannot_hold_is_refused(value: Any) -> None:
    """NUL, the empty key, what a double would round, and more brackets than R's parser takes."""
    with pytest.raises(base.Unwritable):
        LANGUAGE.literal(value)


@pytest.mark.parametrize(
    "name", ["_x", ".1x", "..1", "...", "TRUE", "if", "NA_character_", "x y", "", "1", "x-y"]
)
def test_names_that_are_refused(name: str) -> None:
    """Reserved words, and what begins as a number does."""
    assert LANGUAGE.check_name(name) is not None


@pytest.mark.parametrize("name", ["x", ".x", "x.y", "x_1", "café", ".", "T"])
def test_names_that_are_fine(name: str) -> None:
    """Dots are letters in R."""
    assert LANGUAGE.check_name(name) is None
