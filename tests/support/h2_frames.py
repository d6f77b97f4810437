"""HTTP/2 frames as tests write and read them, right and wrong ones alike; nothing here is shared with the code under test.

Source: RFC 9113 sections 4 and 6. Header blocks come from ``hpack``: each is made by an encoder of its own and refers to no table, so any
may be sent at any time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import attrs
import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
NAMES = ("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION")
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
TABLE, PUSH, STREAMS, WINDOW, FRAME, LIST = range(1, 7)
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR = range(7)
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(7, 12)
LARGEST = 2**31 - 1
Fields = Iterable[tuple[str | bytes, str | bytes]]
GET = ((":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "web"))
POST = ((":method", "POST"), *GET[1:])
HEAD = ((":method", "HEAD"), *GET[1:])


@attrs.frozen
class Frame:
    """One frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def name(self) -> str:
        """What the RFC calls it."""
        return NAMES[self.kind] if self.kind < len(NAMES) else f"type {self.kind}"

    @property
    def code(self) -> int:
        """The error code of a GOAWAY or RST_STREAM."""
        at = 4 if self.kind == GOAWAY else 0
        return int(struct.unpack_from(">L", self.payload, at)[0])

    @property
    def number(self) -> int:
        """The first 31-bit number of the payload: an increment, a last stream."""
        return int(struct.unpack_from(">L", self.payload)[0]) & LARGEST

    @property
    def ends(self) -> bool:
        """Whether it ends its stream."""
        return self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM)

    @property
    def is_ack(self) -> bool:
        """Whether it acknowledges SETTINGS or a PING."""
        return self.kind in (SETTINGS, PING) and bool(self.flags & ACK)

    @property
    def settings(self) -> dict[int, int]:
        """The values of a SETTINGS frame."""
        return dict(struct.iter_unpack(">HL", self.payload))


def split(data: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames in ``data``, and what is left."""
    frames, position = [], 0
    while len(data) - position >= 9:
        size = int.from_bytes(data[position : position + 3], "big")
        end = position + 9 + size
        if end > len(data):
            break
        kind, flags, stream = struct.unpack_from(">BBL", data, position + 3)
        frames.append(Frame(kind, flags, stream & LARGEST, data[position + 9 : end]))
        position = end
    return frames, data[position:]


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Any frame."""
    return len(payload).to_bytes(3, "big") + struct.pack(">BBL", kind, flags, stream) + payload


def block(fields: Fields, *, huffman: bool = False) -> bytes:
    """A header block that depends on no other."""
    coded: bytes = hpack.Encoder().encode(list(fields), huffman=huffman)
    return coded


def plain(fields: Fields) -> bytes:
    """A header block of literals that change no table, whatever names and values hold."""
    parts = []
    for field in fields:
        parts.append(b"\0")
        for text in field:
            raw = text.encode("latin-1") if isinstance(text, str) else text
            parts += [hpack.hpack.encode_integer(len(raw), 7), raw]
    return b"".join(parts)


def headers(stream: int, fields: Fields | bytes = GET, *, ends: bool = True, flags: int = END_HEADERS) -> bytes:
    """A HEADERS frame; ``fields`` may be a block."""
    payload = fields if isinstance(fields, bytes) else block(fields)
    return frame(HEADERS, flags | (END_STREAM if ends else 0), stream, payload)


def continuation(stream: int, payload: bytes, *, ends: bool = True) -> bytes:
    """A CONTINUATION frame; ``ends`` tells that the block does."""
    return frame(CONTINUATION, END_HEADERS if ends else 0, stream, payload)


def data(stream: int, payload: bytes = b"", *, ends: bool = False, padding: int | None = None) -> bytes:
    """A DATA frame, padded if ``padding`` is given."""
    flags = END_STREAM if ends else 0
    if padding is None:
        return frame(DATA, flags, stream, payload)
    return frame(DATA, flags | PADDED, stream, bytes((padding,)) + payload + bytes(padding))


def settings(values: Mapping[int, int] | Iterable[tuple[int, int]] = (), *, ack: bool = False) -> bytes:
    """A SETTINGS frame."""
    pairs = values.items() if isinstance(values, Mapping) else values
    return frame(SETTINGS, ACK if ack else 0, 0, b"".join(struct.pack(">HL", *pair) for pair in pairs))


def number(value: int) -> bytes:
    """Four bytes."""
    return struct.pack(">L", value)


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, number(increment))


def rst_stream(stream: int, code: int = CANCEL) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, number(code))


def ping(payload: bytes = b"8 bytes.", *, ack: bool = False) -> bytes:
    """A PING frame."""
    return frame(PING, ACK if ack else 0, 0, payload)


def goaway(last: int = 0, code: int = NO_ERROR, text: bytes = b"") -> bytes:
    """A GOAWAY frame."""
    return frame(GOAWAY, 0, 0, number(last) + number(code) + text)


def priority(stream: int, depends: int = 0, weight: int = 15) -> bytes:
    """A PRIORITY frame."""
    return frame(PRIORITY, 0, stream, number(depends) + bytes((weight,)))


OPENING = PREFACE + settings()
"""What a client begins with."""
