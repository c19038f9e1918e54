"""Bash, as in bash_kernel."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from jupyter_nbexec.languages import base

if TYPE_CHECKING:
    from jupyter_nbexec import models

#: What single quotes cannot hold on one line, in any locale: all but printable ASCII.
_UNPRINTABLE = re.compile(r"[^ -~]")
#: Within `$'…'` a quote and an exclamation mark would confuse history expansion, which knows no escapes.
_SPECIAL = re.compile(r"[^ -~]|['!\\]")
_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}

#: Variables that bash, or the loader of every program it starts, obeys: some are run as commands
#: (PROMPT_COMMAND, PS1), some evaluate what they are given (SECONDS), some cannot be set (UID).
_OBEYED = base.words(
    "_ BASH BASHOPTS BASHPID BASH_ALIASES BASH_ARGC BASH_ARGV BASH_ARGV0 BASH_CMDS BASH_COMMAND "
    "BASH_COMPAT BASH_ENV BASH_EXECUTION_STRING BASH_LINENO BASH_LOADABLES_PATH BASH_MONOSECONDS "
    "BASH_REMATCH BASH_SOURCE BASH_SUBSHELL BASH_TRAPSIG BASH_VERSINFO BASH_VERSION BASH_XTRACEFD "
    "CDPATH CHILD_MAX COLUMNS COMPREPLY COMP_CWORD COMP_KEY COMP_LINE COMP_POINT COMP_TYPE "
    "COMP_WORDBREAKS COMP_WORDS COPROC DIRSTACK EMACS ENV EPOCHREALTIME EPOCHSECONDS EUID EXECIGNORE "
    "FCEDIT FIGNORE FUNCNAME FUNCNEST GLOBIGNORE GLOBSORT GROUPS HISTCMD HISTCONTROL HISTFILE "
    "HISTFILESIZE HISTIGNORE HISTSIZE HISTTIMEFORMAT HOME HOSTFILE HOSTNAME HOSTTYPE IFS IGNOREEOF "
    "INPUTRC INSIDE_EMACS LANG LANGUAGE LINENO LINES MACHTYPE MAIL MAILCHECK MAILPATH MAPFILE OLDPWD "
    "OPTARG OPTERR OPTIND OSTYPE PATH PIPESTATUS POSIXLY_CORRECT PPID PROMPT_COMMAND PROMPT_DIRTRIM PS0 "
    "PS1 PS2 PS3 PS4 PWD RANDOM READLINE_ARGUMENT READLINE_LINE READLINE_MARK READLINE_POINT REPLY "
    "SECONDS SHELL SHELLOPTS SHLVL SRANDOM TERM TIMEFORMAT TMOUT TMPDIR UID"
)
_OBEYED_PREFIXES = ("LD_", "DYLD_", "LC_", "BASH_FUNC_")


class Bash(base.Language):
    """How JSON is written in bash, where every value is text or an array of texts.

    booleans `true`, `false` · numbers as JSON writes them · strings exactly · lists of these `(a b)`.
    Refused: null (an empty text is not null), objects, lists in lists, NUL in strings; and the names of
    variables that bash itself obeys, such as PATH, IFS or PROMPT_COMMAND.
    """

    name = "bash"
    languages = frozenset({"bash", "sh"})
    kernels = frozenset({"bash"})
    identifier = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
    # Words such as `if` or `for` may be names of variables; `_` is set by every command.
    reserved = _OBEYED

    def check_name(self, name: str) -> str | None:
        """Refuse what bash or the system's loader obeys."""
        if name.startswith(_OBEYED_PREFIXES):
            return "has a meaning of its own in bash"
        return super().check_name(name)

    def assign(self, name: str, value: models.JsonValue, declaration: str) -> str:
        """Write it without spaces around the sign.

        A variable keeps the attributes that it was declared with: with `declare -i` a text is evaluated
        as arithmetic, which can run commands, and an array keeps its other elements. Such a variable is
        made anew, and exported again if it was.
        """
        written = f"{name}={self.literal(value)}"
        array = re.search(rf"\b{name}(?:\+?=\(|\[)", declaration)
        if array is None and not re.search(
            r"\b(?:declare|typeset|local|mapfile|readarray|read)\b", declaration
        ):
            return written
        exported = re.search(
            rf"\b(?:export|(?:declare|typeset)[ \t]+-\w*x\w*)\b[^\n;]*\b{name}\b", declaration
        )
        return f"unset -n {name}; unset -v {name}; {'export ' if exported else ''}{written}"

    def string(self, text: str) -> str:
        """Quote it so that bash expands nothing in it."""
        if "\0" in text:
            raise base.Unwritable("holds a NUL character, which bash's variables cannot")
        if not _UNPRINTABLE.search(text):
            return shlex.quote(text)
        return f"$'{base.escape(text, _SPECIAL, _SHORT, _octal)}'"

    def array(self, values: list[models.JsonValue], written: list[str]) -> str:
        """Write an array, which holds texts only."""
        for index, value in enumerate(values):
            if isinstance(value, (list, dict)):
                raise base.Unwritable("is nested, which bash's arrays cannot be", (index,))
        return f"({' '.join(written)})"

    def mapping(self, values: dict[str, models.JsonValue], written: list[tuple[str, str]]) -> str:  # noqa: ARG002
        """Refuse it: an associative array is another thing, and holds neither types nor nesting."""
        raise base.Unwritable("is an object, which bash does not have")

    def _write(self, value: models.JsonValue, depth: int) -> str:
        if value is None:
            raise base.Unwritable("is null, which bash does not have")
        return super()._write(value, depth)


def _octal(character: str) -> str:
    """Write the UTF-8 bytes of a character, always three digits each, so that none that follow join."""
    return "".join(f"\\{byte:03o}" for byte in character.encode())
