"""Zipkin's B3 trace contexts: the fields ``x-b3-*`` and the single ``b3`` ⇄ :class:`meshgw.wire.context.TraceId`.

Source: openzipkin/b3-propagation; linkerd-config spec 7.6. Undecodable values count as absent; nothing here raises.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from meshgw.wire.context import DEBUG, SAMPLED, SAMPLING_KNOWN, TraceId

SINGLE: Final = b"b3"
_TRACE, _SPAN, _PARENT = b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid"
_SAMPLED, _FLAGS = b"x-b3-sampled", b"x-b3-flags"
FIELDS: Final = frozenset((SINGLE, _TRACE, _SPAN, _PARENT, _SAMPLED, _FLAGS))

_ID: Final = re.compile(rb"[0-9a-fA-F]{1,16}\Z")
_LONG_ID: Final = re.compile(rb"[0-9a-fA-F]{1,32}\Z")
_NUMBER: Final = re.compile(rb"[0-9]{1,19}\Z")
_MASK: Final = (1 << 64) - 1
_DECISIONS: Final[Mapping[bytes, int]] = {
    b"1": SAMPLING_KNOWN | SAMPLED,
    b"true": SAMPLING_KNOWN | SAMPLED,
    b"0": SAMPLING_KNOWN,
    b"false": SAMPLING_KNOWN,
    b"d": DEBUG,
}
"""What is written for a sampling decision; ``true`` and ``false`` by old tracers, ``d`` in the single field only."""


def decode_b3(seen: Mapping[bytes, bytes], span: int) -> TraceId | None:
    """The place of a request with these fields, whose own span is ``span``; None when they tell nothing.

    The single field wins over the others. A decision without ids is one about the trace that begins here.
    """
    single = seen.get(SINGLE)
    flags = None
    if single is not None:
        caller, flags = _read_single(single)
    if flags is None:
        flags = _decision(seen)
        caller = _position(seen.get(_TRACE), seen.get(_SPAN))
    if caller is None:
        return TraceId(span, span, span, flags) if flags else None
    high, trace, parent = caller
    return TraceId(span, parent, trace, flags, high)


def _decision(seen: Mapping[bytes, bytes]) -> int:
    number = seen.get(_FLAGS, b"")
    flags = DEBUG if _NUMBER.match(number) is not None and int(number) & DEBUG else 0
    said = seen.get(_SAMPLED, b"").lower()
    return flags | (_DECISIONS.get(said, 0) if said != b"d" else 0)


def _position(trace: bytes | None, span: bytes | None) -> tuple[int, int, int] | None:
    """High and low half of the trace's id, and the caller's span. A span without a trace is its beginning."""
    if span is None or _ID.match(span) is None:
        return None
    if trace is None:
        trace = span
    elif _LONG_ID.match(trace) is None:
        return None
    whole, parent = int(trace, 16), int(span, 16)
    return (whole >> 64, whole & _MASK, parent) if whole and parent else None


def _read_single(value: bytes) -> tuple[tuple[int, int, int] | None, int | None]:
    """Ids and flags of ``{trace}-{span}[-{decision}[-{parent}]]``, or of a decision alone; no flags when it is malformed."""
    parts = value.lower().split(b"-")
    if len(parts) == 1:
        return None, _DECISIONS.get(parts[0])
    if len(parts) > 4 or (len(parts) == 4 and _ID.match(parts[3]) is None):
        return None, None
    caller = _position(parts[0], parts[1])
    return caller, None if caller is None else (0 if len(parts) == 2 else _DECISIONS.get(parts[2]))


def encode_b3(trace: TraceId, span: int) -> tuple[bytes, ...]:
    """The fields that tell a new ``span`` below ``trace``. While nobody has decided ``x-b3-sampled`` is left out, which defers it."""
    lines = (
        b"x-b3-traceid: " + trace.show_id(),
        b"x-b3-spanid: %016x" % span,
        b"x-b3-parentspanid: %016x" % trace.span,
        b"x-b3-flags: %d" % (trace.flags & DEBUG),
    )
    sampled = trace.is_sampled
    return lines if sampled is None else (*lines, b"x-b3-sampled: %d" % sampled)


def encode_single(trace: TraceId, span: int) -> bytes:
    """The value of ``b3`` that tells the same."""
    value = b"%b-%016x" % (trace.show_id(), span)
    sampled = trace.is_sampled
    if sampled is None:
        return value  # a parent can only follow a decision
    return b"%b-%b-%016x" % (value, b"d" if trace.flags & DEBUG else b"%d" % sampled, trace.span)
