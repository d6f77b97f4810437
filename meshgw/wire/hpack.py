"""Header compression: blocks to fields. What a field means to its reader is worked out when it enters a table, not when it is used.

Source: RFC 7541. The tables are ours, so that a field which came before costs one look-up; Huffman-coded strings are read by the Rust
codec that ``jh2`` ships. It is guarded: it aborts on input that ends early and does not look at padding, so both are checked here. The
tests hold the verdicts to those of ``hpack``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from jh2._hazmat import (  # type: ignore[import-untyped]  # it ships no py.typed
    Decoder,
    HPACKError,
)

from meshgw.wire.h2_frames import DEFAULT_TABLE, Code, ConnectionFault
from meshgw.wire.hpack_table import FIELD_OVERHEAD, STATIC

_MOST_BLOCKS: Final = 256
"""Blocks of a connection that are remembered."""
_LONGEST_BLOCK: Final = 4096
_LONGEST_STRING: Final = 1 << 30
_MOST_SHIFT: Final = 28
"""Integers of more bits are refused; lengths are bounded by those of blocks, indexes by the table's."""
_ADDED: Final = 0x40
_NEVER: Final = 0x10
PASSING, NOTED, PSEUDO, COOKIE, WRONG = range(5)
"""What a field is to its reader: a line, a line with a note, none of these; one that must not be there, and why is its note."""

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


class Field:
    """A field of a header section, and what it means (``wire.h2_messages``): its ``line``, and by ``kind`` what to do with that.

    ``note`` is more for some kinds. ``is_fleeting`` tells that the field is not to be remembered: it is secret, or never comes twice.
    """

    __slots__ = ("is_fleeting", "kind", "line", "name", "note", "size", "value")

    def __init__(self, name: bytes, value: bytes, kind: int, line: bytes = b"", note: Any = None, *, is_fleeting: bool = False) -> None:
        self.name, self.value, self.kind, self.line, self.note = name, value, kind, line, note
        self.is_fleeting = is_fleeting
        self.size = len(name) + len(value) + FIELD_OVERHEAD


class Meanings(Protocol):
    """Who knows what fields mean: one for all connections of a side."""

    literals: dict[bytes, Field]
    """Those that are written out the same way each time."""

    @property
    def static(self) -> Mapping[int, Field]:
        """Those of the static table, from index 1 on."""
        ...

    def field(self, name: bytes, value: bytes) -> Field:
        """What a field means."""
        ...

    def keep(self, literal: bytes, field: Field) -> None:
        """Remember a field by how it is written out."""
        ...


class Section:
    """A header section as it came: its fields in order, and their size as SETTINGS_MAX_HEADER_LIST_SIZE counts it.

    ``is_kept`` tells that the same block means the same section for a while; ``head`` is then a place for what was made of it as a
    message's head, ``tail`` as its trailers.
    """

    __slots__ = ("fields", "head", "is_kept", "size", "tail")

    def __init__(self, fields: list[Field], *, is_kept: bool = False) -> None:
        self.fields, self.is_kept = fields, is_kept
        self.size = sum([field.size for field in fields])
        self.head: Any = None
        self.tail: list[bytes] | None = None


class FieldDecoder:
    """Reads the header blocks of one connection, in the order in which they came. ``most`` bounds a section (RFC 9113, 6.5.2).

    A block that changes nothing and holds nothing secret is read once, and remembered until the table changes: callers repeat themselves.
    """

    __slots__ = (
        "_allowed",
        "_huffman",
        "_is_lasting",
        "_known",
        "_meanings",
        "_most",
        "_must_shrink",
        "_size",
        "_static",
        "_table",
        "_told",
        "_used",
    )

    def __init__(self, meanings: Meanings, *, most: int, table: int = DEFAULT_TABLE) -> None:
        """``table`` is the size in bytes of the dynamic table that the peer may use once it has acknowledged our settings."""
        self._meanings, self._static = meanings, meanings.static
        self._most, self._told = most, table
        self._allowed = max(table, DEFAULT_TABLE)
        self._size = DEFAULT_TABLE
        self._huffman = Decoder(_LONGEST_STRING)
        self._table: list[Field] = []  # the oldest first
        self._used = 0
        self._known: dict[bytes, Section] = {}
        self._must_shrink = False
        self._is_lasting = True  # whether the block that is being read may be remembered

    def acknowledged(self) -> None:
        """The peer knows our settings: a larger table than ours is an error from now on."""
        self._allowed = self._told
        self._must_shrink = self._size > self._told
        if self._must_shrink:
            self._known.clear()

    def decode(self, block: bytes) -> Section:
        """The section in a block. Raises :class:`ConnectionFault`: the state of compression is lost with any block that is wrong."""
        known = self._known.get(block)
        if known is not None:
            return known
        if self._must_shrink and block:  # RFC 9113 section 4.3.1
            if block[0] & 0xE0 != 0x20:
                raise ConnectionFault(Code.COMPRESSION_ERROR, f"a table that was not made smaller, to {self._told} bytes")
            self._must_shrink = False
        static, table, other = self._static, self._table, self._other
        fields: list[Field] = []
        add = fields.append
        position, size = 0, len(block)
        self._is_lasting = True
        try:
            while position < size:
                first = block[position]
                if 0x80 < first < 0xFF:  # a field by its index, in one byte
                    position += 1
                    add(static[first - 0x80] if first <= 0x80 + STATIC else table[0x80 + STATIC - first])
                else:
                    position = other(block, position, first, fields)
        except IndexError:
            raise ConnectionFault(Code.COMPRESSION_ERROR, "a header block that ends early, or an index beyond its table") from None
        section = Section(fields, is_kept=self._is_lasting and size <= _LONGEST_BLOCK)
        if section.size > self._most:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a header section that grows far beyond its limit")
        if section.is_kept:
            if len(self._known) >= _MOST_BLOCKS:
                self._known.clear()
            self._known[block] = section
        return section

    def _other(self, block: bytes, position: int, first: int, fields: list[Field]) -> int:
        """Read what is not just an index of one byte; gives where it ends. Raises IndexError, :class:`ConnectionFault`."""
        if first & 0x80:
            index, position = _integer(block, position, 0x7F)
            fields.append(self._at(index))
        elif first & 0xE0 == 0x20:
            if fields:
                raise ConnectionFault(Code.COMPRESSION_ERROR, "a change of the table's size after a field")
            size, position = _integer(block, position, 0x1F)
            self._resize(size)
            self._is_lasting = False
        else:
            field, position = self._literal(block, position, first)
            fields.append(field)
            if first & _ADDED or field.is_fleeting:
                self._is_lasting = False
        return position

    def _at(self, index: int) -> Field:
        """The field with an index. Raises IndexError."""
        if index > STATIC:
            return self._table[STATIC - index]
        if index:
            return self._static[index]
        raise IndexError

    def _literal(self, block: bytes, start: int, first: int) -> tuple[Field, int]:
        """A field that is written out, at least its value, and where it ends. Raises IndexError, :class:`ConnectionFault`."""
        mask = 0x3F if first & _ADDED else 0x0F
        index, position = first & mask, start + 1
        if index == mask:
            index, position = _integer(block, start, mask)
        name_at = position
        if not index:
            position = _end(block, position)
        value_at = position
        length = block[position]
        if length & 0x7F < 0x7F:  # as _end does it
            position += 1 + (length & 0x7F)
            if position > len(block):
                raise IndexError
        else:
            position = _end(block, position)
        is_known = first < _NEVER and index <= STATIC  # what it means hangs on nothing else
        if is_known:
            field = self._meanings.literals.get(block[start:position])
            if field is not None:
                return field, position
        name = self._at(index).name if index else self._string(block, name_at, value_at)
        field = self._meanings.field(name, self._string(block, value_at, position))
        if first & _ADDED:
            self._insert(field)
        elif first & _NEVER:
            field.is_fleeting = True
        elif is_known and not field.is_fleeting:
            self._meanings.keep(block[start:position], field)
        return field, position

    def _string(self, block: bytes, start: int, end: int) -> bytes:
        """The string that stands there, with its length before it. Raises :class:`ConnectionFault`."""
        length, position = _integer(block, start, 0x7F)
        if not block[start] & 0x80 or not length:
            return block[position:end]
        coded = block[start:end]
        try:
            value: bytes = self._huffman.decode(b"\x10\x01x" + coded, True)[0][1]  # a literal that touches no table
        except HPACKError as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, f"malformed header block: {error}") from None
        return _checked(value, coded, length)

    def _insert(self, field: Field) -> None:
        self._known.clear()  # all indexes have moved
        self._used += field.size
        self._table.append(field)
        self._evict()

    def _resize(self, size: int) -> None:
        if size > self._allowed:
            raise ConnectionFault(Code.COMPRESSION_ERROR, f"a table of {size} bytes, more than {self._allowed}")
        self._known.clear()
        self._size = size
        self._evict()

    def _evict(self) -> None:
        table = self._table
        count, size = 0, self._size
        while self._used > size:
            self._used -= table[count].size
            count += 1
        if count:
            del table[:count]


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


def _end(block: bytes, position: int) -> int:
    """Where the string ends that begins there. Raises IndexError, :class:`ConnectionFault`."""
    length = block[position] & 0x7F
    position += 1
    if length == 0x7F:
        length, position = _integer(block, position - 1, 0x7F)
    position += length
    if position > len(block):
        raise IndexError
    return position


def _checked(value: bytes, coded: bytes, length: int) -> bytes:
    """A string that was Huffman-coded so. Raises :class:`ConnectionFault`.

    It has one spelling: all whole codes, then fewer than eight bits, all ones (RFC 7541, 5.2).
    """
    padding = length * 8 - sum(value.translate(_CODE_BITS))  # a translation is an addition's fastest table
    if not 0 <= padding < 8 or coded[-1] & (1 << padding) - 1 != (1 << padding) - 1:
        raise ConnectionFault(Code.COMPRESSION_ERROR, "a Huffman-coded string with wrong padding")
    return value
