"""Protocol Buffers' wire format: fields into bytes, and the fields of a message out of bytes.

Source: the encoding guide of Protocol Buffers. There are no message classes here: who speaks a protocol knows the numbers of its fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
FIXED32: Final = 5

_fixed64 = struct.Struct("<Q").pack
_fixed32 = struct.Struct("<I").pack


class MalformedMessage(ValueError):
    """The bytes are no message."""


def varint(value: int) -> bytes:
    """A number from 0 to 2**64 - 1."""
    if value < 0x80:
        return _SHORT[value]
    pieces = bytearray()
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)


_SHORT: Final = [bytes((value,)) for value in range(0x80)]


def number(field: int, value: int) -> bytes:
    """A field of an integer type, or an enumeration; negative numbers as int32 and int64 have them."""
    return varint(field << 3 | VARINT) + varint(value & 0xFFFFFFFFFFFFFFFF)


def fixed64(field: int, value: int) -> bytes:
    """A field of type fixed64."""
    return varint(field << 3 | FIXED64) + _fixed64(value)


def fixed32(field: int, value: int) -> bytes:
    """A field of type fixed32."""
    return varint(field << 3 | FIXED32) + _fixed32(value)


def block(field: int, data: bytes) -> bytes:
    """A field that is bytes, text in UTF-8, or a message."""
    return varint(field << 3 | LENGTH) + varint(len(data)) + data


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field, in the order of the bytes; integers of any type are unsigned. Raises :class:`MalformedMessage`."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield field, value
            continue
        if kind == LENGTH:
            size, at = _varint(data, at)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise MalformedMessage(f"field {field} has the unknown wire type {kind}")
        end = at + size
        if end > len(data):
            raise MalformedMessage(f"field {field} ends too early")
        piece, at = data[at:end], end
        yield field, piece if kind == LENGTH else int.from_bytes(piece, "little")


def signed(value: int) -> int:
    """An unsigned number of 64 bits as int64 has it."""
    return value - (1 << 64) if value >> 63 else value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise MalformedMessage("a number does not end")
        piece = data[at]
        at += 1
        value |= (piece & 0x7F) << shift
        if piece < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
