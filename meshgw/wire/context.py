"""Context that travels with a request in ``l5d-*`` headers: trace ids, deadlines, sampling.

Source: linkerd-config spec 7.1 and 7.2. Undecodable values count as absent; nothing here raises on a caller's input.
"""

from __future__ import annotations

import binascii
import math
import struct
from binascii import b2a_base64, b2a_hex

_TRACE = struct.Struct(">QQQQ")
_pack = _TRACE.pack
_SAMPLING_KNOWN, _SAMPLED = 1 << 1, 1 << 2
_WHOLE = 10_000


class TraceId:
    """A position in a trace: 64-bit ids, flags, and the high half of a 128-bit trace id (0 when the trace id has 64 bits)."""

    __slots__ = ("flags", "high", "parent", "span", "trace")

    def __init__(self, span: int, parent: int, trace: int, flags: int = 0, high: int = 0) -> None:
        self.span, self.parent, self.trace, self.flags, self.high = span, parent, trace, flags, high

    def child(self, span: int) -> TraceId:
        """The position of a new span below this one."""
        return TraceId(span, self.span, self.trace, self.flags, self.high)

    @property
    def is_sampled(self) -> bool | None:
        """The sampling decision carried along; None when nobody decided yet."""
        return bool(self.flags & _SAMPLED) if self.flags & _SAMPLING_KNOWN else None

    def lines(self, span: int) -> tuple[bytes, bytes]:
        """The fields ``l5d-ctx-trace`` and ``l5d-reqid`` that tell a new span below this one."""
        reqid = b"l5d-reqid: %016x" % self.trace
        return b"l5d-ctx-trace: " + self.child(span).encode(), reqid

    def encode(self) -> bytes:
        """The value of ``l5d-ctx-trace``."""
        data = _pack(self.span, self.parent, self.trace, self.flags)
        if self.high:
            data += self.high.to_bytes(8, "big")
        return b2a_base64(data, newline=False)


def first_lines(span: int, root: int) -> tuple[bytes, bytes]:
    """The fields ``l5d-ctx-trace`` and ``l5d-reqid`` that tell a span directly below the root of a trace that begins here."""
    ids = _pack(span, root, root, 0)
    return b"l5d-ctx-trace: " + b2a_base64(ids, newline=False), b"l5d-reqid: " + b2a_hex(ids[16:24])


def decode_trace(value: bytes) -> TraceId | None:
    """Read ``l5d-ctx-trace``: base64 of 32 bytes, or 40 with the high half of a 128-bit trace id; None when undecodable."""
    try:
        data = binascii.a2b_base64(value)
    except (binascii.Error, ValueError):
        return None
    if len(data) not in (32, 40):
        return None
    span, parent, trace, flags = _TRACE.unpack_from(data)
    return TraceId(span, parent, trace, flags, int.from_bytes(data[32:], "big"))


def decide_sampling(trace: TraceId, rate: bytes, salt: int) -> None:
    """Apply ``l5d-sample``: a rate between 0 and 1, clamped; anything else is ignored (spec 7.2)."""
    try:
        fraction = float(rate)
    except ValueError:
        return
    if math.isnan(fraction):
        return
    chosen = ((trace.trace ^ salt) % _WHOLE) < min(1.0, max(0.0, fraction)) * _WHOLE
    trace.flags = (trace.flags & ~_SAMPLED) | _SAMPLING_KNOWN | (_SAMPLED if chosen else 0)


def decode_deadline(value: bytes) -> tuple[int, int] | None:
    """Read ``l5d-ctx-deadline`` (``timestamp deadline`` in epoch nanoseconds, several joined by commas): the strictest, None if none is
    valid.
    """
    best: tuple[int, int] | None = None
    for item in value.split(b","):
        words = item.split()
        if len(words) == 2 and all(word.isdigit() and len(word) < 20 for word in words):
            found = (int(words[0]), int(words[1]))
            if best is None:
                best = found
            else:
                best = (max(best[0], found[0]), min(best[1], found[1]))
    return best


def encode_deadline(deadline: tuple[int, int]) -> bytes:
    """The value of ``l5d-ctx-deadline``."""
    return b"%d %d" % deadline
