"""A script's statements, found without a parser: strings, brackets and comments are all it knows.

That is enough to go on after a line that no parser takes, and it is linear in the size of the source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_REST = r"|(?P<newline>\r\n|\r|\n)|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<joined>\\(?:\r\n|\r|\n))"
_END = r"|(?P<end>;)"

#: Strings as in Python: triple ones may span lines, others only where a backslash joins the lines.
#: One that never ends is a string to the end all the same, so that no text is looked at twice.
#: A semicolon ends nothing here: what follows it may belong to an `if` at the beginning of the line.
PYTHON = re.compile(
    r'(?P<string>"""(?:\\.|[^\\])*?(?:"""|\Z)'
    r"|'''(?:\\.|[^\\])*?(?:'''|\Z)"
    r'|"(?:\\.|[^"\\\n])*(?:"|(?=\n)|\Z)'
    r"|'(?:\\.|[^'\\\n])*(?:'|(?=\n)|\Z))"
    r"|(?P<comment>\#[^\r\n]*)" + _REST,
    re.DOTALL,
)

#: Strings as in R: any may span lines; backquotes quote names.
R = re.compile(
    r'(?P<string>"(?:\\.|[^"\\])*(?:"|\Z)'
    r"|'(?:\\.|[^'\\])*(?:'|\Z)"
    r"|`(?:\\.|[^`\\])*(?:`|\Z))"
    r"|(?P<comment>\#[^\r\n]*)" + _REST + _END,
    re.DOTALL,
)

#: Strings as in Julia: an apostrophe is a string only around one character, else it transposes.
JULIA = re.compile(
    r'(?P<string>"""(?:\\.|[^\\])*?(?:"""|\Z)'
    r'|"(?:\\.|[^"\\])*(?:"|\Z)'
    r"|'(?:\\[^'\n]{1,10}|\\'|[^'\\\n])')"
    r"|(?P<remark>\#=.*?(?:=\#|\Z))"
    r"|(?P<comment>\#[^\r\n]*)" + _REST + _END,
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One statement of a script."""

    text: str  #: its source without comments; it may span lines
    comment: str  #: the comment at the end of its last line, or else of its first, without the sign
    words: str  #: its source outside of strings and brackets
    start: int  #: where it begins in the source

    @property
    def indented(self) -> bool:
        """Whether it stands inside something, in a language where indentation says so."""
        return self.text[:1].isspace()


class _Splitter:
    """Collects the statements of one line until its end, where the comment stands that is theirs."""

    def __init__(self, start: int) -> None:
        self.depth = 0
        self._start = start
        self._text: list[str] = []
        self._words: list[str] = []
        self._several_lines = False
        self._first_comment = ""
        self._last_comment = ""
        self._waiting: list[tuple[str, str, str, int]] = []

    def add(self, text: str, *, word: bool) -> None:
        """Go on with the statement."""
        self._text.append(text)
        if word and self.depth == 0:
            self._words.append(text)

    def remark(self, comment: str) -> None:
        """Take a comment; the statement may go on after it."""
        self._last_comment = comment
        if self.depth > 0 and not self._several_lines:
            self._first_comment = comment

    def break_line(self, newline: str) -> None:
        """Go on with the same statement on the next line."""
        self._text.append(newline)
        self._several_lines = True
        self._last_comment = ""

    def end_statement(self, position: int) -> None:
        """End the statement; the next one begins at `position`."""
        text = "".join(self._text)
        if text.strip():
            self._waiting.append((text, "".join(self._words), self._first_comment, self._start))
        self._text.clear()
        self._words.clear()
        self._several_lines = False
        self._first_comment = ""
        self._start = position

    def end_line(self) -> Iterator[Statement]:
        """Give the statements of the line that has ended."""
        for text, words, first_comment, start in self._waiting:
            comment = self._last_comment or first_comment
            yield Statement(text=text, comment=comment, words=words, start=start)
        self._waiting.clear()
        self._last_comment = ""


def split(source: str, grammar: re.Pattern[str], start: int = 0) -> Iterator[Statement]:
    """Give the statements from `start` on, in order."""
    splitter = _Splitter(start)
    position = start
    for token in grammar.finditer(source, start):
        splitter.add(source[position : token.start()], word=True)
        position = token.end()
        kind = token.lastgroup
        if kind == "comment":
            splitter.remark(token[0].lstrip("#").strip())
        elif kind == "newline" and splitter.depth > 0:
            splitter.break_line(token[0])
        elif kind == "newline":
            splitter.end_statement(position)
            yield from splitter.end_line()
        elif kind == "end" and splitter.depth == 0:
            splitter.end_statement(position)
        elif kind == "open":
            splitter.add(token[0], word=False)
            splitter.depth += 1
        elif kind == "close":
            splitter.depth = max(splitter.depth - 1, 0)
            splitter.add(token[0], word=False)
        elif kind != "remark":
            splitter.add(token[0], word=False)
    splitter.add(source[position:], word=True)
    splitter.end_statement(len(source))
    yield from splitter.end_line()
