"""PowerShell, as in .NET Interactive and powershell_kernel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from jupyter_nbexec.languages import base

if TYPE_CHECKING:
    from jupyter_nbexec import models

_SPECIAL = re.compile(r'[^ -~]|["$`]')
_SHORT = {'"': '`"', "$": "`$", "`": "``", "\n": "`n", "\r": "`r", "\t": "`t", "\0": "`0"}
_INT64 = 2**63


class PowerShell(base.Language):
    """How JSON is written in PowerShell, from Windows PowerShell 5 on.

    null `$Null` · booleans `$True`, `$False` · integers Int32 or Int64, `[bigint]::Parse('…')` beyond ·
    floats Double · strings in double quotes with `` ` `` escapes; other than printable ASCII as
    `$([char]0xE9)` · lists `@(…)`, a list that holds one list `@(,…)` because PowerShell would unroll it
    · objects `@{"k" = …}`. Refused: objects with keys that differ only in case, which PowerShell takes
    for one; names of its automatic variables.
    """

    name = "PowerShell"
    languages = frozenset({"powershell", "pwsh"})
    kernels = frozenset({".net-powershell", ".net-pwsh", "powershell", "pwsh"})
    identifier = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
    # Names follow a `$`, so that no word is a keyword there.
    reserved = base.words(
        "_ args consolefilename enabledexperimentalfeatures error event eventargs eventsubscriber "
        "executioncontext false foreach home host input iscoreclr islinux ismacos iswindows lastexitcode "
        "matches myinvocation nestedpromptlevel null ofs pid profile psboundparameters pscmdlet "
        "pscommandpath psculture psdebugcontext psedition pshome psitem psscriptroot pssenderinfo "
        "psuiculture psversiontable pwd sender shellid stacktrace switch this true"
    )
    null = "$Null"
    true = "$True"
    false = "$False"

    def check_name(self, name: str) -> str | None:
        """Compare without case, as PowerShell does."""
        return super().check_name(name) or super().check_name(name.lower())

    def fold(self, name: str) -> str:
        """PowerShell ignores case."""
        return name.lower()

    def assign(self, name: str, value: models.JsonValue, declaration: str) -> str:  # noqa: ARG002
        """Write the name with its sign."""
        return f"${name} = {self.literal(value)}"

    def string(self, text: str) -> str:
        """Write it without anything that expands, save the characters we name ourselves."""
        return f'"{base.escape(text, _SPECIAL, _SHORT, _characters)}"'

    def integer(self, number: int) -> str:
        """Write it; beyond 64 bits PowerShell would make it a decimal or a double."""
        return str(number) if -_INT64 < number < _INT64 else f"[bigint]::Parse('{number}')"

    def array(self, values: list[models.JsonValue], written: list[str]) -> str:
        """Write an array of as many elements as were given."""
        unrolled = len(values) == 1 and isinstance(values[0], list)
        return f"@({',' if unrolled else ''}{', '.join(written)})"

    def mapping(self, values: dict[str, models.JsonValue], written: list[tuple[str, str]]) -> str:
        """Write a hashtable."""
        folded: dict[str, str] = {}
        for key in values:
            other = folded.setdefault(key.casefold(), key)
            if other != key:
                pair = f"{base.shorten(other)!r} and {base.shorten(key)!r}"
                raise base.Unwritable(f"has keys that PowerShell takes for one: {pair}")
        return f"@{{{'; '.join(f'{key} = {value}' for key, value in written)}}}"


def _characters(character: str) -> str:
    return "".join(f"$([char]0x{unit:X})" for unit in base.utf16_units(character))
