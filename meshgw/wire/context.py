"""Context that travels with a request in ``l5d-*`` headers: trace ids, deadlines, sampling.

Source: linkerd-config spec 7.1 and 7.2. Other forms of trace contexts are in ``wire.b3`` and ``wire.traceparent``. Undecodable values
count as absent; nothing here raises on a caller's input.
"""

from __future__ import annotations

import binascii
import math
import struct
from binascii import b2a_base64, b2a_hex

_TRACE = struct.Struct(">QQQQ")
_pack = _TRACE.pack
DEBUG, SAMPLING_KNOWN, SAMPLED = 1 << 0, 1 << 1, 1 << 2
"""Bits of a trace's flags, as Finagle has them. A trace that is debugged is sampled, whatever the others say."""
_WHOLE = 10_000
SCATTER, HALF = 0x9E3779B97F4A7C15, (1 << 32) - 1
"""The constants of :func:`scatter`, for where a call of it would show."""


class TraceId:
    """A position in a trace: 64-bit ids, flags, and the high half of a 128-bit trace id (0 when the trace id has 64 bits).

    ``told`` is whether the request's ``traceparent`` says where it is.
    """

    __slots__ = ("flags", "high", "parent", "span", "told", "trace")

    def __init__(self, span: int, parent: int, trace: int, flags: int = 0, high: int = 0, *, told: bool = False) -> None:
        self.span, self.parent, self.trace, self.flags, self.high, self.told = span, parent, trace, flags, high, told

    def child(self, span: int) -> TraceId:
        """The position of a new span below this one."""
        return TraceId(span, self.span, self.trace, self.flags, self.high, told=self.told)

    @property
    def is_sampled(self) -> bool | None:
        """The sampling decision carried along; None when nobody decided yet."""
        flags = self.flags
        if flags & (DEBUG | SAMPLING_KNOWN):
            return bool(flags & (DEBUG | SAMPLED))
        return None

    def decide(self, sampled: bool) -> None:
        """Carry this decision along."""
        self.flags = (self.flags & ~SAMPLED) | SAMPLING_KNOWN | (SAMPLED if sampled else 0)

    def lines(self, span: int) -> tuple[bytes, bytes]:
        """The fields ``l5d-ctx-trace`` and ``l5d-reqid`` that tell a new span below this one."""
        data = _pack(span, self.span, self.trace, self.flags)
        if self.high:
            data += self.high.to_bytes(8, "big")
        return b"l5d-ctx-trace: " + b2a_base64(data, newline=False), b"l5d-reqid: %016x" % self.trace

    def is_of(self, other: TraceId) -> bool:
        """Whether both are positions in one trace."""
        return self.trace == other.trace and self.high == other.high

    def show_id(self) -> bytes:
        """The trace's id in hexadecimal: 16 digits, or 32 of a 128-bit one."""
        return b"%016x%016x" % (self.high, self.trace) if self.high else b"%016x" % self.trace

    def encode(self) -> bytes:
        """The value of ``l5d-ctx-trace``."""
        data = _pack(self.span, self.parent, self.trace, self.flags)
        if self.high:
            data += self.high.to_bytes(8, "big")
        return b2a_base64(data, newline=False)


def first_lines(span: int, root: int, flags: int = 0) -> tuple[bytes, bytes]:
    """The fields ``l5d-ctx-trace`` and ``l5d-reqid`` that tell a span directly below the root of a trace that begins here."""
    ids = _pack(span, root, root, flags)
    return b"l5d-ctx-trace: " + b2a_base64(ids, newline=False), b"l5d-reqid: " + b2a_hex(ids[16:24])


def decode_trace(value: bytes) -> TraceId | None:
    """Read ``l5d-ctx-trace``: base64 of 32 bytes, or 40 with the high half of a 128-bit trace id; None when undecodable or all zeros."""
    try:
        data = binascii.a2b_base64(value)
    except (binascii.Error, ValueError):
        return None
    if len(data) not in (32, 40):
        return None
    span, parent, trace, flags = _TRACE.unpack_from(data)
    high = int.from_bytes(data[32:], "big")
    if not span or not (trace or high):
        return None  # no ids, and in other forms of telling a trace not even allowed
    return TraceId(span, parent, trace, flags, high)


def decide_sampling(trace: TraceId, rate: bytes, salt: int) -> None:
    """Apply ``l5d-sample``: a rate between 0 and 1, clamped; anything else is ignored (spec 7.2)."""
    try:
        fraction = float(rate)
    except ValueError:
        return
    if math.isnan(fraction):
        return
    trace.decide(((trace.trace ^ salt) % _WHOLE) < min(1.0, max(0.0, fraction)) * _WHOLE)


def scatter(trace: int, salt: int) -> int:
    """A number below 2**32 that is the same for all spans of a trace, and spread evenly over traces whatever their ids are made of."""
    return ((trace ^ salt) * SCATTER >> 32) & HALF


def threshold(rate: float) -> int:
    """What :func:`scatter` stays below for the part ``rate``, 0 to 1, of all traces."""
    return round(rate * (HALF + 1))


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
