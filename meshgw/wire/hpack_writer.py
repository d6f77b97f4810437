"""Lines to header blocks: what is sent by index, what is put into the peer's table, and what is never kept anywhere.

Source: RFC 7541; RFC 9113 section 8.2. Lines are those of ``wire.headers``, pseudo-header fields among them written alike. Most of a block
has been sent before on its connection: then each line of it costs one look-up. Nothing is Huffman-coded, as that costs more than it saves.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from meshgw.wire.h2_frames import CONNECTION_FIELDS, DEFAULT_TABLE
from meshgw.wire.headers import SECRET_WORDS
from meshgw.wire.hpack_table import FIELD_OVERHEAD, STATIC, STATIC_FIELDS, integer, string

_MOST_REMEMBERED: Final = 4096
_LONGEST_REMEMBERED: Final = 512
_MOST_SPELLED: Final = 1024
_LENGTHS: Final = tuple(bytes((size,)) for size in range(0x7F))
"""What stands before short strings."""
_SPELLED: Final = {b"%b: %b" % field: bytes((0x81 + place,)) for place, field in enumerate(STATIC_FIELDS) if field[1]}
"""Lines that are whole fields of the static table."""
_NAMED: Final = {name: STATIC - place for place, (name, _) in enumerate(reversed(STATIC_FIELDS))}
"""The first index of each name of the static table."""
_ADDED, _PLAIN, _SECRET = 0x40, 0x00, 0x10
"""Flags of literals: put into the table, not put into it, put into no table on the way either."""
_NEVER_TWICE: Final = frozenset(
    (
        *(b"l5d-ctx-trace", b"l5d-ctx-deadline", b"l5d-reqid", b"grpc-timeout", b"x-request-id"),
        *(b"traceparent", b"tracestate", b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid"),
    )
)
"""Fields whose values are new each time, which need not be looked for among those that came before."""


class FieldEncoder(dict[bytes, bytes]):
    """Writes the header blocks of one connection, to be sent in the order in which they were made.

    It holds the lines whose spelling stays the same until the table changes, and works out the others when they are asked for: so
    the loop over a block's lines is the interpreter's own.
    """

    __slots__ = ("_added", "_entries", "_least", "_numbers", "_prefixes", "_size", "_told", "_used", "_writer", "is_changed")

    def __init__(self, writer: FieldWriter) -> None:
        super().__init__()
        self._writer, self._prefixes = writer, writer.prefixes
        self._told = self._least = self._size = DEFAULT_TABLE
        self._used = self._added = 0
        self._entries: deque[tuple[bytes, int]] = deque()  # lines and their sizes, the oldest first
        self._numbers: dict[bytes, int] = {}
        self.is_changed = False
        """Whether the next block must begin with the table's new size."""

    def block(self, lines: list[bytes]) -> bytes:
        """The header block of the lines; Host and fields of the hop are left out."""
        if self.is_changed:
            return self._update() + b"".join(map(self.__getitem__, lines))
        return b"".join(map(self.__getitem__, lines))

    def __missing__(self, line: bytes) -> bytes:
        """How a line is spelled that is not at hand."""
        name, _, value = line.partition(b": ")  # nearly all lines are written so; others are found below
        prefix = self._prefixes.get(name)
        if prefix is not None:  # always written out
            value = value.strip(b" \t")
            size = len(value)
            return prefix + (_LENGTHS[size] if size < 0x7F else integer(size, 0x7F)) + value
        spelling = self._find(line) or _SPELLED.get(line)
        if spelling is not None:
            return self._keep(line, spelling)
        end = line.find(b":", 1)
        known, prefix = self._writer.name(line[:end])
        if known is None:
            return self._keep(line, b"")
        value = line[end + 1 :].strip(b" \t")
        if prefix is not None:
            return prefix + string(value)
        return self._insert(line, known, value) if self._writer.comes_again(line) else literal(known, value, _PLAIN)

    def allow(self, size: int) -> None:
        """The peer's table may have this many bytes; more than the default are not used."""
        self._size = min(size, DEFAULT_TABLE)
        self._least = min(self._least, self._size)
        if self._least != self._told or self._size != self._least:
            self.is_changed = True

    def _update(self) -> bytes:
        """What tells the peer of the table's new size, the least since the last block first, and of none between (RFC 7541, 4.2)."""
        told = b""
        for size in (self._least, self._size):
            if size != self._told:
                self._told = size
                self._make_room(0)
                told += integer(size, 0x1F, 0x20)
        self._least = self._size
        self.is_changed = False
        return told

    def _find(self, line: bytes) -> bytes | None:
        """How a line is spelled that is in the table."""
        number = self._numbers.get(line)
        return None if number is None else integer(STATIC + 1 + self._added - number, 0x7F, 0x80)

    def _insert(self, line: bytes, name: bytes, value: bytes) -> bytes:
        """Put a line into the table that is not there, and give its spelling for this time."""
        size = len(name) + len(value) + FIELD_OVERHEAD
        if size > self._told:
            return literal(name, value, _PLAIN)
        self._make_room(size)
        self._used += size
        self._added += 1
        self._entries.append((line, size))
        self._numbers[line] = self._added
        index = _NAMED.get(name, 0)
        return integer(index, 0x3F, _ADDED) + (b"" if index else string(name)) + string(value)

    def _keep(self, line: bytes, spelling: bytes) -> bytes:
        """Remember the spelling of a line, and give it back."""
        if len(self) >= _MOST_SPELLED:
            self.clear()
        self[line] = spelling
        return spelling

    def _make_room(self, size: int) -> None:
        self.clear()  # indexes count from the newest entry
        while self._used + size > self._told:
            line, freed = self._entries.popleft()
            self._used -= freed
            del self._numbers[line]


def literal(name: bytes, value: bytes, flags: int) -> bytes:
    """A field that is to be in no table (RFC 7541, 6.2.2 and 6.2.3)."""
    return _prefix(name, flags) + string(value)


def _prefix(name: bytes, flags: int) -> bytes:
    """What stands before the value of such a field."""
    index = _NAMED.get(name, 0)
    return integer(index, 0x0F, flags) + (b"" if index else string(name))


class FieldWriter:
    """What is known of lines that are sent, by all connections of a side.

    What comes a second time is expected again and put into the tables; what comes for the first time, or is secret, is written out.
    ``prefixes`` has what stands before the values of fields that always are, by how their names are spelled in lines.
    """

    __slots__ = ("_again", "_names", "_once", "prefixes")

    def __init__(self) -> None:
        self._once: set[bytes] = set()
        self._again: set[bytes] = set()
        self._names: dict[bytes, _Name] = {}
        self.prefixes: dict[bytes, bytes] = {}

    def name(self, raw: bytes) -> _Name:
        """What is known of a name."""
        return self._names.get(raw) or self._learn(raw)

    def comes_again(self, line: bytes) -> bool:
        """Whether a line is expected again, as it has come before."""
        if line in self._again:
            return True
        if len(line) > _LONGEST_REMEMBERED:
            return False
        if line not in self._once:
            if len(self._once) >= _MOST_REMEMBERED:
                self._once.clear()
            self._once.add(line)
            return False
        self._once.discard(line)
        if len(self._again) >= _MOST_REMEMBERED:
            self._again.clear()
        self._again.add(line)
        return True

    def _learn(self, raw: bytes) -> _Name:
        lower, prefix = raw.lower(), None
        if lower[:1] != b":" and any(word in lower for word in SECRET_WORDS):  # :authority is none
            prefix = _prefix(lower, _SECRET)
        elif lower in _NEVER_TWICE:
            prefix = _prefix(lower, _PLAIN)
        is_sent = lower != b"host" and lower not in CONNECTION_FIELDS
        name = (lower, prefix) if is_sent else (None, None)
        if len(raw) <= _LONGEST_REMEMBERED:
            if len(self._names) >= _MOST_REMEMBERED:
                self._names.clear()
                self.prefixes.clear()
            self._names[raw] = name
            if is_sent and prefix is not None:
                self.prefixes[raw] = prefix
        return name


_Name = tuple[bytes | None, bytes | None]
"""A name as it is sent, None for one that is not; and what stands before its values where they are always written out."""
