"""Header compression: blocks to fields and back, over the Rust codec that ``jh2`` ships.

Source: RFC 7541. The codec was chosen on evidence: 3 to 6 µs a block where pure Python takes 25 to 35. It is guarded: it aborts on blocks
that end early and does not look at Huffman padding, so the structure of every block that is more than a list of indexes is checked here
first. The tests hold the verdicts to those of ``hpack``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jh2._hazmat import (  # type: ignore[import-untyped]  # it ships no py.typed
    Decoder,
    Encoder,
    HPACKError,
    OversizedHeaderListError,
)

from meshgw.wire.h2_frames import DEFAULT_TABLE, Code, ConnectionFault

Field = tuple[bytes, bytes]
Block = list[tuple[bytes, bytes, bool]]

_INDEXED: Final = bytes(range(0x81, 0xFF))
"""First bytes of indexed fields whose index fits in them. A block of nothing else needs no check."""
_MOST_BLOCKS: Final = 256
"""Blocks of a connection that are remembered, for each direction."""
FIELD_OVERHEAD: Final = 32
"""Bytes that each field counts for beside its own (RFC 9113, section 6.5.2)."""
_MOST_SHIFT: Final = 28
"""Integers of more bits are refused; lengths are bounded by those of blocks, indexes by the table's."""

# Lengths in bits of the codes of RFC 7541, appendix B, by octet; the code of octet n is told from the others by its length alone.
_CODE_BITS: Final = bytes(
    (
        *(13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28),
        *(6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10),
        *(13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6),
        *(15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28),
        *(20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24),
        *(22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23),
        *(26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27),
        *(20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26),
    )
)


class Section:
    """A header section as it came: its fields in order, and their size as SETTINGS_MAX_HEADER_LIST_SIZE counts it.

    ``is_kept`` tells that the same block means the same section for a while; ``head`` is then a place for what was made of it as a
    message's head, ``tail`` as its trailers.
    """

    __slots__ = ("fields", "head", "is_kept", "size", "tail")

    def __init__(self, fields: Block, *, is_kept: bool = False) -> None:
        self.fields, self.is_kept = fields, is_kept
        self.size = sum([len(name) + len(value) for name, value, _ in fields]) + FIELD_OVERHEAD * len(fields)
        self.head: Any = None
        self.tail: list[bytes] | None = None


class FieldDecoder:
    """Reads the header blocks of one connection, in the order in which they came. ``most`` bounds a section (RFC 9113, 6.5.2).

    A block that is a list of indexes is read once, and remembered until the table changes: callers repeat themselves.
    """

    __slots__ = ("_decode", "_decoder", "_known", "_must_shrink", "_table")

    def __init__(self, *, most: int, table: int = DEFAULT_TABLE) -> None:
        """``table`` is the size in bytes of the dynamic table that the peer may use once it has acknowledged our settings."""
        self._decoder = Decoder(most)
        self._decoder.max_allowed_table_size = max(table, DEFAULT_TABLE)
        self._table = table
        self._decode = self._decoder.decode
        self._known: dict[bytes, Section] = {}
        self._must_shrink = False

    def acknowledged(self) -> None:
        """The peer knows our settings: a larger table than ours is an error from now on."""
        self._decoder.max_allowed_table_size = self._table
        self._must_shrink = self._decoder.header_table_size > self._table

    def decode(self, block: bytes) -> Section:
        """The section in a block. Raises :class:`ConnectionFault`: the state of compression is lost with any block that is wrong."""
        if self._must_shrink:  # RFC 9113 section 4.3.1
            if block[:1] and block[0] & 0xE0 != 0x20:
                raise ConnectionFault(Code.COMPRESSION_ERROR, f"a table that was not made smaller, to {self._table} bytes")
            self._must_shrink = not block
        known = self._known.get(block)
        if known is not None:
            return known
        if block.translate(None, _INDEXED):
            changes, strings = _checked(block)
            if changes:
                self._known.clear()
            section = Section(self._fields(block))
            if strings:
                _check_padding(section.fields, strings)
            return section
        section = Section(self._fields(block), is_kept=True)
        if len(self._known) >= _MOST_BLOCKS:
            self._known.clear()
        self._known[block] = section
        return section

    def _fields(self, block: bytes) -> Block:
        try:
            fields: Block = self._decode(block, True)
        except OversizedHeaderListError:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a header section that grows far beyond its limit") from None
        except HPACKError as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, f"malformed header block: {error}") from None
        return fields


_Strings = list[tuple[int, int, int, int]]
"""Huffman-coded strings of a block: number of the field, 0 for its name and 1 for its value, length in bytes, last byte."""


def _checked(block: bytes) -> tuple[bool, _Strings]:
    """Walk over the representations: whether they change the table, and the Huffman-coded strings among them.

    Raises :class:`ConnectionFault` for what ends early, is too large, or stands where it may not.
    """
    position, size, number = 0, len(block), 0
    changes = False
    strings: _Strings = []
    try:
        while position < size:
            first = block[position]
            if first & 0x80:  # indexed field
                if first & 0x7F == 0x7F:
                    _, position = _integer(block, position, 0x7F)
                else:
                    position += 1
            elif first & 0xE0 == 0x20:  # size of the dynamic table
                if number:
                    raise ConnectionFault(Code.COMPRESSION_ERROR, "a change of the table's size after a field")
                _, position = _integer(block, position, 0x1F)
                changes = True
                continue
            else:  # literal: with its name in the table or not
                if first & 0x40:
                    changes = True
                    index, position = _integer(block, position, 0x3F)
                else:
                    index, position = _integer(block, position, 0x0F)
                for part in (0, 1) if not index else (1,):
                    coded = block[position] & 0x80
                    length, position = _integer(block, position, 0x7F)
                    position += length
                    if position > size:
                        raise IndexError
                    if coded and length:
                        strings.append((number, part, length, block[position - 1]))
            number += 1
    except IndexError:
        raise ConnectionFault(Code.COMPRESSION_ERROR, "a header block that ends early") from None
    return changes, strings


def _integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """The integer that begins there (RFC 7541, 5.1) and where it ends. Raises IndexError, :class:`ConnectionFault`."""
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    shift = 0
    while True:
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > _MOST_SHIFT:
            raise ConnectionFault(Code.COMPRESSION_ERROR, "an integer that is too large")


def _check_padding(fields: Block, strings: _Strings) -> None:
    """Huffman coding has one spelling: all whole codes, then fewer than eight bits, all ones (RFC 7541, 5.2)."""
    for number, part, length, last in strings:
        field = fields[number]
        bits = sum((field[1] if part else field[0]).translate(_CODE_BITS))  # a translation is an addition's fastest table
        padding = length * 8 - bits
        if not 0 <= padding < 8 or last & (1 << padding) - 1 != (1 << padding) - 1:
            raise ConnectionFault(Code.COMPRESSION_ERROR, "a Huffman-coded string with wrong padding")


class FieldEncoder:
    """Writes the header blocks of one connection, to be sent in the order in which they were made.

    Fields come by number (:class:`meshgw.wire.h2_messages.FieldWriter`). A set of fields that are all in the table has one spelling until
    the table changes, and is spelled once.
    """

    __slots__ = ("_encoder", "_known", "_least", "_size", "is_changed")

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._least = self._size = DEFAULT_TABLE
        self.is_changed = False
        """Whether the next block must begin with the table's new size (:meth:`update`)."""
        self._known: dict[tuple[int, ...], bytes] = {}

    def allow(self, size: int) -> None:
        """The peer's table may have this many bytes; more than the default are not used."""
        self._size = min(size, DEFAULT_TABLE)
        self._least = min(self._least, self._size)
        if self._least != self._encoder.header_table_size or self._size != self._least:
            self._known.clear()
            self.is_changed = True

    def update(self) -> bytes:
        """What tells the peer of the table's new size, the least since the last block first, and of none between (RFC 7541, 4.2)."""
        for size in (self._least, self._size):
            if size != self._encoder.header_table_size:
                self._encoder.header_table_size = size
        self._least = self._size
        self.is_changed = False
        told: bytes = self._encoder.encode([])
        return told

    def encode(self, numbers: tuple[int, ...], fields: Mapping[int, tuple[bytes, bytes, bool]]) -> bytes:
        """The block of the fields with these numbers; what the table lacks is put into it."""
        known = self._known.get(numbers)
        if known is not None:
            return known
        block: bytes = self._encoder.encode([fields[number] for number in numbers])
        if block.translate(None, _INDEXED):
            self._known.clear()  # something new is in the table: all that was there has moved
        else:
            if len(self._known) >= _MOST_BLOCKS:
                self._known.clear()
            self._known[numbers] = block
        return block


def literal(name: bytes, value: bytes, *, is_secret: bool) -> bytes:
    """A field that is to be in no table; a secret one in none on the way either (RFC 7541, 6.2.2 and 6.2.3)."""
    if len(name) < 0x7F and len(value) < 0x7F:
        return b"%c%c%b%c%b" % (0x10 if is_secret else 0, len(name), name, len(value), value)
    return b"%c%b%b%b%b" % (0x10 if is_secret else 0, _length(len(name)), name, _length(len(value)), value)


def _length(size: int) -> bytes:
    """The length of a string that is not Huffman-coded."""
    if size < 0x7F:
        return bytes((size,))
    rest, coded = size - 0x7F, bytearray(b"\x7f")
    while rest > 0x7F:
        coded.append(rest & 0x7F | 0x80)
        rest >>= 7
    coded.append(rest)
    return bytes(coded)
