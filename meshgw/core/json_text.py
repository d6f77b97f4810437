"""JSON text piece by piece, for values of thousands of members that are written in slices (``core.slices``)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

DEPTH: Final = 4
"""Levels that are taken apart: an object of clients, one of them, its list of endpoints, one of those."""
_ENCODE: Final = json.JSONEncoder(separators=(", ", ": ")).encode


def json_pieces(value: object, depth: int = DEPTH) -> Iterator[bytes]:
    """The text of ``value``, as ``json.dumps`` gives it, in pieces; what is ``depth`` levels inside is one."""
    if depth and isinstance(value, Mapping) and value:
        before = b"{"
        for name, member in value.items():
            first = b"%b%b" % (before, _ENCODE({name: 0})[1:-2].encode())
            before = b", "
            yield from _member(first, member, depth)
        yield b"}"
    elif depth and isinstance(value, list | tuple) and value:
        before = b"["
        for member in value:
            yield from _member(before, member, depth)
            before = b", "
        yield b"]"
    else:
        yield _ENCODE(value).encode()


def _member(first: bytes, member: object, depth: int) -> Iterator[bytes]:
    if isinstance(member, Mapping | list | tuple) and member and depth > 1:
        yield first
        yield from json_pieces(member, depth - 1)
    else:
        yield first + _ENCODE(member).encode()
