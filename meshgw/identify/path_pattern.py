"""Regular expressions over whole paths, matched in time proportional to the path, whatever the expression.

Source: linkerd-config spec 5.2 (paths of ingress rules are full-match regexes). They come from an API and the paths from callers, so that
an engine that backtracks could be made to stand still by either; this one cannot: an expression becomes an automaton of positions
(Glushkov 1961), whose sets are bits of a number, and steps between them are remembered as they are met. What needs more than an
automaton, such as back references and looking around, is refused, and so are expressions that are very long when their counted
repetitions are written out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import attrs

MOST_POSITIONS: Final = 200
"""Characters of an expression after repetitions are written out."""
MOST_PAIRS: Final = 2000
"""What may follow what, counted over an expression. The worst step takes some 20 µs."""
MOST_KNOWN: Final = 2000
"""Steps remembered for one expression; dropped all at once, which needs no order."""
DEEPEST: Final = 50

_SPACE: Final = " \t\n\x0b\f\r"
_DIGITS: Final = "0123456789"
_WORD: Final = f"{_DIGITS}_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SETS: Final[Mapping[str, str]] = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CONTROLS: Final[Mapping[str, str]] = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "a": "\a", "e": "\x1b"}
_LAST: Final = 0x10FFFF


@attrs.frozen
class _Chars:
    """Which characters stand at a position: within the ranges, or outside of them."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False

    def __contains__(self, char: str) -> bool:
        code = ord(char)
        return any(low <= code <= high for low, high in self.ranges) != self.negated


def _of(text: str, *, negated: bool = False) -> _Chars:
    return _Chars(tuple((ord(char), ord(char)) for char in text), negated)


def _without(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """The ranges between these."""
    left = []
    at = 0
    for low, high in sorted(ranges):
        if low > at:
            left.append((at, low - 1))
        at = max(at, high + 1)
    return (*left, (at, _LAST)) if at <= _LAST else tuple(left)


_ANY: Final = _of("\n\r", negated=True)


@attrs.frozen
class _Part:
    """A part of an expression: whether it may be empty, and the positions where it may begin and end."""

    empty: bool = True
    first: int = 0
    last: int = 0


def _positions(among: int) -> Iterator[int]:
    """The positions of a set, which is a number with a bit for each."""
    while among:
        lowest = among & -among
        yield lowest.bit_length() - 1
        among ^= lowest


class _Reader:
    """Reads an expression, making positions on its way."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text, 0, 0
        self.chars: list[_Chars] = []
        self.follow: list[int] = []

    def read(self) -> _Part:
        part = self._alternatives()
        if self._at < len(self._text):
            raise ValueError(f"unmatched ) at character {self._at + 1}")
        return part

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, token: str) -> bool:
        if self._text.startswith(token, self._at):
            self._at += len(token)
            return True
        return False

    def _next(self) -> str:
        if self._at >= len(self._text):
            raise ValueError("it ends too early")
        self._at += 1
        return self._text[self._at - 1]

    # --- structure

    def _alternatives(self) -> _Part:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError(f"groups are nested deeper than {DEEPEST}")
        part = self._sequence()
        while self._take("|"):
            other = self._sequence()
            part = _Part(part.empty or other.empty, part.first | other.first, part.last | other.last)
        self._depth -= 1
        return part

    def _sequence(self) -> _Part:
        part = _Part()
        while self._peek() not in ("", "|", ")"):
            part = self._joined(part, self._repeated())
        return part

    def _joined(self, one: _Part, two: _Part) -> _Part:
        for position in _positions(one.last):
            self.follow[position] |= two.first
        first = one.first | two.first if one.empty else one.first
        last = one.last | two.last if two.empty else two.last
        return _Part(one.empty and two.empty, first, last)

    def _repeated(self) -> _Part:
        begin = self._at
        part = self._atom()
        end, is_repeated = self._at, False
        while (counts := self._quantifier()) is not None:
            if is_repeated:
                raise ValueError(f"a quantifier follows another at character {self._at}")
            is_repeated = True
            part = self._times(part, self._text[begin:end], *counts)
        return part

    def _quantifier(self) -> tuple[int, int | None] | None:
        counts: tuple[int, int | None]
        if self._take("*"):
            counts = (0, None)
        elif self._take("+"):
            counts = (1, None)
        elif self._take("?"):
            counts = (0, 1)
        elif self._take("{"):
            counts = self._counts()
        else:
            return None
        if self._take("+"):
            raise ValueError(f"possessive quantifiers are not supported (character {self._at})")
        self._take("?")  # a reluctant one matches the same whole paths
        return counts

    def _counts(self) -> tuple[int, int | None]:
        end = self._text.find("}", self._at)
        least, comma, most = self._text[self._at : max(end, self._at)].partition(",")
        if end < 0 or not _is_count(least) or not (most == "" or _is_count(most)):
            raise ValueError(f"a number of repetitions is expected at character {self._at + 1}; a literal {{ is written \\{{")
        self._at = end + 1
        low, high = int(least), int(most) if most else (None if comma else int(least))
        if high is not None and high < low:
            raise ValueError(f"repetitions {{{least},{most}}} are the wrong way round")
        return low, high

    def _times(self, part: _Part, text: str, least: int, most: int | None) -> _Part:
        """``part``, which was read from ``text``, so many times; further copies are read anew, as each has positions of its own."""
        if not part.first or (least, most) == (1, 1):
            return part  # to repeat nothing is nothing, however often
        copies = [part, *(self._again(text) for _ in range((least or 1) - 1 if most is None else most - 1))]
        if most == 0:
            return _Part()
        whole = _Part()
        if most is None:
            whole = copies.pop()
            for position in _positions(whole.last):
                self.follow[position] |= whole.first
            whole = _Part(whole.empty or not least, whole.first, whole.last)
        for number in reversed(range(len(copies))):  # from the end, a(a(a)?)?, so that each is followed by the next one only
            whole = self._joined(copies[number], whole)
            if number >= least:
                whole = _Part(True, whole.first, whole.last)
        return whole

    def _again(self, text: str) -> _Part:
        kept = self._text, self._at
        self._text, self._at = text, 0
        part = self._atom()
        self._text, self._at = kept
        return part

    def _atom(self) -> _Part:
        char = self._next()
        if char == "(":
            return self._group()
        if char == "[":
            return self._position(self._set())
        if char == ".":
            return self._position(_ANY)
        if char == "\\":
            return self._position(self._escape())
        if char in "*+?{":
            raise ValueError(f"nothing to repeat before {char} at character {self._at}")
        if char in "^$":
            raise ValueError(f"{char} at character {self._at}: only at the ends, where it says nothing, as the whole path has to match")
        return self._position(_of(char))

    def _position(self, chars: _Chars) -> _Part:
        if len(self.chars) >= MOST_POSITIONS:
            raise ValueError(f"longer than {MOST_POSITIONS} characters with its repetitions written out")
        self.chars.append(chars)
        self.follow.append(0)
        itself = 1 << (len(self.chars) - 1)
        return _Part(False, itself, itself)

    def _group(self) -> _Part:
        begin = self._at
        if self._take("?") and not self._take(":"):
            named = self._take("<") and self._peek() not in ("=", "!")
            end = self._text.find(">", self._at)
            if not named or end < 0:
                raise ValueError(f"(?{self._text[begin + 1 : begin + 2]} at character {begin} is not supported")
            self._at = end + 1
        part = self._alternatives()
        if not self._take(")"):
            raise ValueError(f"the ( at character {begin} is not closed")
        return part

    # --- characters

    def _escape(self) -> _Chars:
        char = self._next()
        if char.lower() in _SETS:
            return _of(_SETS[char.lower()], negated=char.isupper())
        if char in _CONTROLS:
            return _of(_CONTROLS[char])
        if char.isalnum():
            raise ValueError(f"\\{char} at character {self._at - 1} is not supported")
        return _of(char)

    def _set(self) -> _Chars:
        begin = self._at
        negated = self._take("^")
        if self._peek() == "]":  # engines read that differently
            raise ValueError(f"the [ at character {begin} has nothing in it; a literal ] is written \\]")
        ranges: list[tuple[int, int]] = []
        while not self._take("]"):
            low = self._member(begin, ranges)
            if low is None:
                continue
            high = low
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("", "]"):
                self._at += 1
                other = self._member(begin, ranges)
                if other is None or other < low:
                    raise ValueError(f"a range in the [ at character {begin} is the wrong way round")
                high = other
            ranges.append((low, high))
        return _Chars(tuple(ranges), negated)

    def _member(self, begin: int, ranges: list[tuple[int, int]]) -> int | None:
        """The code of the next character of a set; None after one that stands for several, which are then in ``ranges``."""
        if self._at >= len(self._text):
            raise ValueError(f"the [ at character {begin} is not closed")
        char = self._next()
        if char == "[" or self._text[self._at - 1 : self._at + 1] == "&&":
            raise ValueError(f"sets within sets are not supported (character {self._at}); a literal [ is written \\[")
        if char != "\\":
            return ord(char)
        escaped = self._escape()
        if not escaped.negated and len(escaped.ranges) == 1:
            return escaped.ranges[0][0]
        ranges.extend(_without(escaped.ranges) if escaped.negated else escaped.ranges)
        return None


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 4


def _is_escaped(text: str) -> bool:
    """Whether a backslash stands before the last character, for it."""
    before = text[:-1]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


class PathPattern:
    """An expression that a whole path may match. Raises ValueError, whose text says what is wrong with the expression."""

    __slots__ = ("_accepting", "_chars", "_fitting", "_follow", "_is_empty_good", "_known", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        inner = text.removeprefix("^")
        if inner.endswith("$") and not _is_escaped(inner):
            inner = inner[:-1]
        reader = _Reader(inner)
        part = reader.read()
        if sum(map(int.bit_count, reader.follow)) > MOST_PAIRS:
            raise ValueError("too many of its repetitions and alternatives may follow each other")
        self._chars = reader.chars
        self._follow = (*reader.follow, part.first)
        self._accepting, self._is_empty_good = part.last, part.empty
        self._known: dict[tuple[int, str], int] = {}
        self._fitting: dict[str, int] = {}

    def matches(self, path: str) -> bool:
        """Whether the whole of ``path`` matches; it has characters of one byte."""
        known = self._known
        at = 1 << len(self._chars)  # a position before all others
        for char in path:
            following = known.get((at, char))
            if following is None:
                following = self._step(at, char)
                if len(known) >= MOST_KNOWN:
                    known.clear()
                known[at, char] = following
            if not following:
                return False
            at = following
        return bool(at & self._accepting) if path else self._is_empty_good

    def _step(self, at: int, char: str) -> int:
        fitting = self._fitting.get(char)
        if fitting is None:
            fitting = self._fitting[char] = sum(1 << position for position, chars in enumerate(self._chars) if char in chars)
        candidates, follow = 0, self._follow
        for position in _positions(at):
            candidates |= follow[position]
        return candidates & fitting
