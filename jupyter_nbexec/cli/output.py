"""Where answers and complaints go."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from jupyter_nbexec import client
from jupyter_nbexec.cli import exits, terminal

if TYPE_CHECKING:
    from typing_extensions import Self

_PRINTABLE = re.compile(
    r"(text/.*|\*/\*|application/([^;]*\+)?(json|xml|javascript|yaml|x-latex)|image/svg\+xml)"
)

Answer: TypeAlias = "client.RunResult | client.Content | dict[str, Any]"


@dataclass(frozen=True)
class Output:
    """Where the answer goes; checked before anything runs."""

    file: Path | None
    accept: str | None

    @classmethod
    def open(cls, name: str, *, accept: str | None) -> Self:
        """Choose stdout for `-`, else a file, after checks that would come too late after a run."""
        if name == "-":
            binary = [mime for mime in (accept or "").split(",") if mime and not _is_printable(mime)]
            if binary and sys.stdout.isatty():
                raise exits.UsageError(f"{binary[0].strip()} is not for a terminal; use -o FILE or a pipe")
            return cls(None, accept)
        file = Path(name)
        if file.is_file() or not file.exists():
            file = file.resolve()  # a symbolic link stays one
        if file.is_dir() or not os.access(file.parent if _is_replaceable(file) else file, os.W_OK):
            raise exits.UsageError(f"{name} cannot be written")
        return cls(file, accept)

    def write(self, answer: Answer) -> None:
        """Write the answer; a failed run's JSON never goes to a file that is meant for another shape."""
        if self.file is None or (isinstance(answer, client.RunResult) and not _is_json(self.accept)):
            _print(answer)
        else:
            try:
                _write_file(self.file, _encode(answer, for_terminal=False))
            except OSError as error:
                raise exits.UsageError(f"{self.file} cannot be written: {error.strerror}") from error


def end(run: client.RunResult | client.Content) -> int:
    """Tell on stderr what a person should know of a run that has ended; return the exit status."""
    for warning in run.warnings if isinstance(run, client.RunResult) else ():
        complain(f"warning: {warning}")
    try:
        run.raise_for_status()
    except client.RunFailed as failure:
        complain(f"the run failed: {failure}")
        return exits.RUN_FAILED
    return exits.SUCCEEDED


def complain(message: object) -> None:
    """Write a line to stderr."""
    text = str(message)
    if isinstance(message, client.RequestRefused):
        text = f"{text} [{message.code or message.status}]"
    # Messages quote what others wrote; none of it may command the terminal.
    sys.stderr.write(f"jupyter nbexec: {terminal.plain(text)}\n")


def write_bytes(content: bytes) -> bool:
    """Write to stdout at once; return False if nobody reads it any more."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Whoever read has seen enough. Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _print(answer: Answer) -> None:
    for_terminal = sys.stdout.isatty()
    if for_terminal and isinstance(answer, client.Content) and not _is_printable(answer.content_type):
        raise exits.UsageError(
            f"the answer is {answer.content_type}, not for a terminal; use -o FILE or a pipe"
        )
    write_bytes(_encode(answer, for_terminal=for_terminal))


def _encode(answer: Answer, *, for_terminal: bool) -> bytes:
    if isinstance(answer, client.Content):
        if not for_terminal:
            return answer.body
        return terminal.without_colours(answer.body.decode(errors="backslashreplace")).encode()
    raw = answer.raw if isinstance(answer, client.RunResult) else answer
    if not for_terminal:
        return json.dumps(raw).encode() + b"\n"
    text = json.dumps(raw, indent=2, ensure_ascii=False)
    # No character may command the terminal. Half of a surrogate pair is escaped as JSON does.
    text = re.sub("[\x7f-\x9f]", lambda match: f"\\u{ord(match[0]):04x}", text)
    return text.encode(errors="backslashreplace") + b"\n"


def _write_file(file: Path, content: bytes) -> None:
    if not _is_replaceable(file):
        file.write_bytes(content)
        return
    descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with open(descriptor, "wb") as stream:  # noqa: PTH123 - a descriptor
            stream.write(content)
        Path(temporary).chmod(file.stat().st_mode & 0o777 if file.exists() else 0o666 & ~_umask())
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _is_replaceable(file: Path) -> bool:
    """Whether this is, or can become, an ordinary file; a device or a pipe is not."""
    return file.is_file() or not file.exists()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _is_printable(mime: str) -> bool:
    return _PRINTABLE.fullmatch(mime.partition(";")[0].strip().lower()) is not None


def _is_json(accept: str | None) -> bool:
    return accept is None or "application/json" in accept or "*/*" in accept
