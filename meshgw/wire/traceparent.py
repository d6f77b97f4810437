"""Trace contexts as the W3C writes them: ``traceparent`` and ``tracestate`` ⇄ :class:`meshgw.wire.context.TraceId`.

Source: W3C Trace Context (Recommendation, 2021), sections 3.2 and 3.3. Undecodable values count as absent; nothing here raises.
"""

from __future__ import annotations

import re
from typing import Final

from meshgw.wire.context import DEBUG, SAMPLED, SAMPLING_KNOWN, TraceId

TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"
FIELDS: Final = frozenset((TRACEPARENT, TRACESTATE))

_TRACEPARENT: Final = re.compile(rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_SAMPLED_FLAG: Final = 1
_MASK: Final = (1 << 64) - 1
MOST_MEMBERS: Final = 32
LONGEST_STATE: Final = 4096
"""Bytes of a tracestate that is passed on; the recommendation asks for 512 at least."""


def decode_traceparent(value: bytes) -> TraceId | None:
    """Read ``traceparent``: version 00, and of later versions the part that is known already. None when invalid.

    The caller's own parent is not told there; the given position has the caller's span in its place.
    """
    match = _TRACEPARENT.match(value)
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    if more is not None and version == b"00":
        return None
    whole, parent = int(trace, 16), int(span, 16)
    if not whole or not parent:
        return None
    decision = SAMPLING_KNOWN | (SAMPLED if int(flags, 16) & _SAMPLED_FLAG else 0)
    return TraceId(parent, parent, whole & _MASK, decision, whole >> 64, told=True)


def encode_traceparent(trace: TraceId, span: int) -> bytes:
    """The value of ``traceparent`` that tells a new ``span`` below ``trace``; not sampled while nobody has decided."""
    return b"00-%016x%016x-%016x-%02x" % (trace.high, trace.trace, span, _SAMPLED_FLAG if trace.flags & (DEBUG | SAMPLED) else 0)


def is_passable_state(value: bytes) -> bool:
    """Whether a ``tracestate`` may go on as it is; one beyond the limits is dropped whole, as a part of it may mean something else."""
    return 0 < len(value) <= LONGEST_STATE and value.count(b",") < MOST_MEMBERS
