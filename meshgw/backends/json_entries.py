"""Lists of JSON objects that a backend tells again and again: an entry is read once, as long as its text stays the same.

Source: RFC 8259. Of a list of endpoints that is told at each change all but one entry are as before, so that finding this out by their
text takes a hundredth of the time that it takes to read them. What comes out is what reading everything would give.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from meshgw.core.slices import Work

T = TypeVar("T")

LOOK_AHEAD: Final = 8
"""Entries in a row that may have gone or changed while those behind them are still known; beyond, they are read."""
KNOWN_AT_ONCE: Final = 32
"""Entries between two pauses; finding that one is known takes half a microsecond."""
_SPACE: Final = re.compile(r"[ \t\n\r]*")


class Entries(Generic[T]):
    """What the entries of one list say. ``read`` makes of one entry's data what is to be known of it."""

    def __init__(self, read: Callable[[Any], T]) -> None:
        self._read = read
        self._texts: list[str] = []
        self._values: list[T] = []

    def of(self, body: bytes) -> Work[list[T] | None]:
        """The work of reading a list, entry by entry; None if the JSON is none. Raises ValueError or RecursionError for what is no JSON."""
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        at = _after_space(text, 0)
        if text[at : at + 1] != "[":
            json.loads(text)
            return None
        texts: list[str] = []
        values: list[T] = []
        at, known = _after_space(text, at + 1), 0
        is_over = text[at : at + 1] == "]"
        while not is_over:
            found = self._known(text, at, known)
            if found is None:
                data, end = _DECODER.raw_decode(text, at)
                entry, value = text[at:end], self._read(data)
                yield
            else:
                known = found + 1
                entry, value = self._texts[found], self._values[found]
                end = at + len(entry)
                if not len(texts) % KNOWN_AT_ONCE:
                    yield
            texts.append(entry)
            values.append(value)
            at, is_over = _after_entry(text, end)
        end = _after_space(text, at + 1)
        if end != len(text):
            raise json.JSONDecodeError("Extra data", text, end)
        self._texts, self._values = texts, values
        return values

    def _known(self, text: str, at: int, known: int) -> int | None:
        """The place of the entry before whose text begins at ``at``: the text of an object tells its own end, so that no other one does."""
        texts = self._texts
        for place in range(known, min(known + LOOK_AHEAD, len(texts))):
            if text.startswith(texts[place], at) and texts[place][0] == "{":
                return place
        return None


_DECODER: Final = json.JSONDecoder()


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _after_entry(text: str, at: int) -> tuple[int, bool]:
    """Where the next entry begins, or the list ends, and which of the two it is."""
    if text[at : at + 1] not in (",", "]"):
        at = _after_space(text, at)
    if text[at : at + 1] == "]":
        return at, True
    if text[at : at + 1] != ",":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    return (at + 1 if text[at + 1 : at + 2] == "{" else _after_space(text, at + 1)), False
