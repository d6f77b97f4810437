"""Profiles in the form of pprof: gzipped protocol buffers, written by hand since so little of them is needed.

Source: google/pprof, proto/profile.proto (public description of the format). Each frame becomes a function and a location; a sample has the
number of times it was seen and the nanoseconds that stands for.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Mapping
from typing import Final

_VARINT, _BYTES = 0, 2
_FRAME: Final = re.compile(r"(?P<name>.*) \((?P<file>.*):(?P<line>\d+)\)")


def encode_profile(samples: Mapping[str, int], *, hz: int, seconds: float, at: float) -> bytes:
    """The profile of collapsed stacks (``telemetry.stacks``), taken ``hz`` times a second for ``seconds`` until ``at`` (epoch)."""
    texts, locations = _Texts(), _Locations()
    period = 1_000_000_000 // hz
    parts = [_message(1, _value_type(texts, *kind)) for kind in (("samples", "count"), ("wall", "nanoseconds"))]
    for stack, count in samples.items():
        ids = [locations.of(frame) for frame in reversed(stack.split(";"))]
        parts.append(_message(2, _packed(1, ids) + _packed(2, (count, count * period))))
    parts += [_message(4, _location(number, number, line)) for number, (_, _, line) in locations.all()]
    parts += [_message(5, _function(texts, number, name, file)) for number, (name, file, _) in locations.all()]
    parts += [_number(9, int((at - seconds) * 1e9)), _number(10, int(seconds * 1e9))]
    parts += [_message(11, _value_type(texts, "wall", "nanoseconds")), _number(12, period)]
    parts += [_message(6, text.encode()) for text in texts.all()]
    return gzip.compress(b"".join(parts))


class _Texts:
    """The table of strings; the first one is empty."""

    def __init__(self) -> None:
        self._known = {"": 0}

    def of(self, text: str) -> int:
        return self._known.setdefault(text, len(self._known))

    def all(self) -> Iterable[str]:
        return self._known


class _Locations:
    """Lines of code by number, from 1."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int], int] = {}

    def of(self, frame: str) -> int:
        match = _FRAME.fullmatch(frame)
        key = (frame, "", 0) if match is None else (match["name"], match["file"], int(match["line"]))
        return self._known.setdefault(key, len(self._known) + 1)

    def all(self) -> Iterable[tuple[int, tuple[str, str, int]]]:
        return ((number, key) for key, number in self._known.items())


def _value_type(texts: _Texts, kind: str, unit: str) -> bytes:
    return _number(1, texts.of(kind)) + _number(2, texts.of(unit))


def _location(number: int, function: int, line: int) -> bytes:
    return _number(1, number) + _message(4, _number(1, function) + _number(2, line))


def _function(texts: _Texts, number: int, name: str, file: str) -> bytes:
    return _number(1, number) + _number(2, texts.of(name)) + _number(3, texts.of(name)) + _number(4, texts.of(file))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(content)) + content


def _packed(field: int, values: Iterable[int]) -> bytes:
    return _message(field, b"".join(map(_varint, values)))


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
