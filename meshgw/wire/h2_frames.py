"""HTTP/2 frames: their names and numbers, how they are written, and what a peer's settings may be.

Source: RFC 9113 sections 4, 6, 7 and 11. Reading frames is in ``wire.h2_connection``, header blocks are read in ``wire.hpack``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)
NO_RFC7540_PRIORITIES: Final = 9  # RFC 9218 section 2.1

HEAD: Final = Struct(">HBBBL")
"""A frame's first nine bytes: the length in 16 and 8 bits, type, flags, stream."""
HEAD_SIZE: Final = 9
_NUMBER: Final = Struct(">L")
_SETTING: Final = Struct(">HL")

DEFAULT_WINDOW: Final = 65535
DEFAULT_FRAME: Final = 16384
LARGEST_FRAME: Final = (1 << 24) - 1
LARGEST_WINDOW: Final = (1 << 31) - 1
LARGEST_ID: Final = (1 << 31) - 1
DEFAULT_TABLE: Final = 4096

CONNECTION_FIELDS: Final = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
"""What may not stand in an HTTP/2 message (section 8.2.2)."""


class Code(IntEnum):
    """Error codes (RFC 9113 section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


def code_name(number: int) -> str:
    """The name of an error code, or its number; unknown ones have no special meaning."""
    try:
        return Code(number).name
    except ValueError:
        return f"error code {number}"


class ConnectionFault(Exception):
    """The peer broke a rule in a way that ends the connection."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class StreamFault(Exception):
    """The peer broke a rule in a way that ends one stream."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    size = len(payload)
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join([_SETTING.pack(*value) for value in values]))


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0)


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return HEAD.pack(0, 4, WINDOW_UPDATE, 0, stream) + _NUMBER.pack(increment)


def rst_stream(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return HEAD.pack(0, 4, RST_STREAM, 0, stream) + _NUMBER.pack(code)


def goaway(last: int, code: int, reason: str = "") -> bytes:
    """A GOAWAY frame; ``last`` is the last of the peer's streams that was or may be looked at."""
    return frame(GOAWAY, 0, 0, _NUMBER.pack(last) + _NUMBER.pack(code) + reason.encode("utf-8", "replace")[:256])


def ping(payload: bytes, *, is_ack: bool = False) -> bytes:
    """A PING frame with its eight bytes."""
    return frame(PING, ACK if is_ack else 0, 0, payload)


def header_block(stream: int, block: bytes, *, end: bool, largest: int) -> bytes:
    """A HEADERS frame that is too small for ``block``, with as many CONTINUATION frames as it needs."""
    size = len(block)
    frames = [frame(HEADERS, int(end), stream, block[:largest])]
    for start in range(largest, size, largest):
        last = start + largest >= size
        frames.append(frame(CONTINUATION, END_HEADERS if last else 0, stream, block[start : start + largest]))
    return b"".join(frames)


def read_number(payload: bytes) -> int:
    """The number in four bytes, without the reserved bit."""
    return int(_NUMBER.unpack_from(payload)[0]) & 0x7FFFFFFF


def read_code(payload: bytes, offset: int = 0) -> int:
    """An error code."""
    return int(_NUMBER.unpack_from(payload, offset)[0])


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """The settings in order, each checked. Raises :class:`ConnectionFault`."""
    if len(payload) % 6:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a SETTINGS frame of {len(payload)} bytes, which is no multiple of 6")
    for key, value in _SETTING.iter_unpack(payload):
        if key == ENABLE_PUSH and value > 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"SETTINGS_ENABLE_PUSH of {value}")
        if key == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, f"SETTINGS_INITIAL_WINDOW_SIZE of {value}")
        if key == MAX_FRAME_SIZE and not DEFAULT_FRAME <= value <= LARGEST_FRAME:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"SETTINGS_MAX_FRAME_SIZE of {value}")
        yield key, value


def unpadded(flags: int, payload: bytes, name: str, least: int = 0) -> bytes:
    """The payload without its padding; ``least`` bytes of it stand before what may be empty. Raises :class:`ConnectionFault`."""
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a padded {name} frame without a pad length")
    padding = payload[0]
    if padding + least >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, f"a {name} frame with more padding than payload")
    return payload[1 : len(payload) - padding]
