"""What can be said about a configuration file: problems and notices, each with its place, and how they are shown.

Source: linkerd-config spec 1.2 and 1.4. A problem makes the start fail; a notice tells that something is accepted without effect.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable
from typing import Final

import attrs

# difflib's default of 0.6 finds 'p2c' for 'p3c' and nothing for words that merely share letters.
_NEARNESS: Final = 0.6
_LONGEST_QUOTE: Final = 60
_LONGEST_EXCERPT: Final = 160


class Severity(enum.Enum):
    """Whether the remark fails the check."""

    ERROR = "error"
    NOTICE = "notice"


@attrs.frozen(kw_only=True)
class Problem:
    """One remark about a file. ``line`` and ``column`` count from 1 and are 0 where no place can be told.

    ``path`` is the place in the configuration (``routers[0].client``), ``suggestion`` what to do or try, and ``excerpt`` a line of
    the text followed by a line with a caret below the offending character.
    """

    file: str
    message: str
    line: int = 0
    column: int = 0
    path: str = ""
    suggestion: str | None = None
    excerpt: tuple[str, ...] = ()
    severity: Severity = Severity.ERROR

    def show(self) -> str:
        """The problem on one line: ``file:line:column: path: message; suggestion``."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        parts = [place]
        if self.severity is Severity.NOTICE:
            parts.append("notice")
        if self.path:
            parts.append(self.path)
        text = ": ".join([*parts, self.message])
        return f"{text}; {self.suggestion}" if self.suggestion else text

    def lines(self) -> list[str]:
        """The line of :meth:`show`, and the excerpt indented below it."""
        return [self.show(), *(f"    {line}" for line in self.excerpt)]

    def to_json(self) -> dict[str, object]:
        """The fields that are set, for ``meshgw check --json``."""
        found: dict[str, object] = {"file": self.file, "severity": self.severity.value, "message": self.message}
        if self.line:
            found |= {"line": self.line, "column": self.column}
        if self.path:
            found["path"] = self.path
        if self.suggestion:
            found["suggestion"] = self.suggestion
        if self.excerpt:
            found["excerpt"] = list(self.excerpt)
        return found


class UnreadableText(ValueError):
    """The text is no YAML or JSON document that can be taken further; ``index`` is the offset of the place in it."""

    def __init__(self, message: str, index: int, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.message, self.index, self.suggestion = message, index, suggestion


def near(word: str, known: Iterable[str]) -> str | None:
    """``did you mean 'x'?`` for the known word nearest to ``word``, or None when there is none near."""
    by_lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(word.lower()[:_LONGEST_QUOTE], list(by_lower), n=1, cutoff=_NEARNESS)
    return f"did you mean {by_lower[found[0]]!r}?" if found else None


def quote(text: str) -> str:
    """The text in quotes, cut when it is long, with unprintable characters escaped."""
    return repr(text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 3] + "...")


def position(text: str, index: int) -> tuple[int, int]:
    """Line and column, from 1, of the character at ``index``."""
    index = max(0, min(index, len(text)))
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)


def pointed(text: str, index: int) -> tuple[str, ...]:
    """The line of ``text`` that holds ``index`` and a line with a caret below that character."""
    index = max(0, min(index, len(text)))
    start = text.rfind("\n", 0, index) + 1
    end = text.find("\n", index)
    line = text[start : len(text) if end < 0 else end]
    first = max(0, index - start - _LONGEST_EXCERPT // 2)
    shown = "".join(char if char.isprintable() else " " for char in line[first : first + _LONGEST_EXCERPT])
    return shown.rstrip(), " " * (index - start - first) + "^"
