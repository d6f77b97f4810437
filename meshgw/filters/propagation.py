"""Trace propagators: in which fields a router reads its callers' traces, and tells the next hop of its own.

Source: linkerd-config spec 7.1, 7.2 and 7.6; W3C Trace Context; openzipkin/b3-propagation. Fields of a form that the chosen propagator
does not know pass as they are. Each propagator reads and writes in ways that are pure: the codecs are in ``wire``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from meshgw.kinds import Kind, Propagator, Runtime
from meshgw.wire import b3
from meshgw.wire.context import TraceId, decode_trace
from meshgw.wire.traceparent import FIELDS as W3C_FIELDS
from meshgw.wire.traceparent import TRACEPARENT, TRACESTATE, decode_traceparent, encode_traceparent, is_passable_state

CTX_TRACE: Final = b"l5d-ctx-trace"
TRACE_FIELDS: Final = W3C_FIELDS | b3.FIELDS
"""What callers that are not trusted may not say of traces, whatever is understood of it, nor others outside be told."""


class L5dPropagator:
    """Linkerd's own field, ``l5d-ctx-trace``. Fields of other forms pass as they are."""

    fields = frozenset((CTX_TRACE,))
    has_wide_ids = False
    heeds_sample = True

    def read(self, seen: Mapping[bytes, bytes], span: int) -> TraceId | None:
        """See :class:`meshgw.kinds.Propagator`."""
        value = seen.get(CTX_TRACE)
        known = None if value is None else decode_trace(value)
        return None if known is None else known.child(span)

    def lines(self, trace: TraceId, span: int, seen: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
        """See :class:`meshgw.kinds.Propagator`."""
        return trace.lines(span)


class L5dAndW3cPropagator(L5dPropagator):
    """Linkerd's own field; and ``traceparent`` of callers that send it, so that their traces go on.

    Where both are there, ``l5d-ctx-trace`` says which trace it is. A service that copies that field and traces by itself names in
    ``traceparent`` the span of its own that calls, which is nearer then. A ``traceparent`` of another trace is not ours to change.
    """

    fields = W3C_FIELDS | {CTX_TRACE}

    def read(self, seen: Mapping[bytes, bytes], span: int) -> TraceId | None:
        """See :class:`meshgw.kinds.Propagator`."""
        value = seen.get(CTX_TRACE)
        known = None if value is None else decode_trace(value)
        caller = _w3c_caller(seen)
        if caller is not None and (known is None or caller.is_of(known)):
            if known is not None and known.is_sampled is not None:
                caller.flags = known.flags
            known = caller
        return None if known is None else known.child(span)

    def lines(self, trace: TraceId, span: int, seen: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
        """See :class:`meshgw.kinds.Propagator`; ``traceparent`` is only told on where the caller did."""
        if TRACEPARENT not in seen:
            return trace.lines(span)
        if trace.told:
            return (*trace.lines(span), b"traceparent: " + encode_traceparent(trace, span), *_state_lines(seen))
        if _w3c_caller(seen) is None:
            return trace.lines(span)
        return (*trace.lines(span), b"traceparent: " + seen[TRACEPARENT], *_state_lines(seen))


class B3Propagator:
    """Zipkin's fields. Of the single ``b3`` and those of several only the latter are written, but for callers that send the single one."""

    fields = b3.FIELDS
    has_wide_ids = False
    heeds_sample = False

    def read(self, seen: Mapping[bytes, bytes], span: int) -> TraceId | None:
        """See :class:`meshgw.kinds.Propagator`."""
        return b3.decode_b3(seen, span)

    def lines(self, trace: TraceId, span: int, seen: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
        """See :class:`meshgw.kinds.Propagator`."""
        lines = b3.encode_b3(trace, span)
        return (*lines, b"b3: " + b3.encode_single(trace, span)) if b3.SINGLE in seen else lines


class W3cPropagator:
    """``traceparent`` and ``tracestate``.

    A ``traceparent`` cannot leave open whether the trace is sampled, and services that are told "no" record nothing. So a trace for which
    nobody has decided travels in ``l5d-ctx-trace``, which services do not know, until somebody does.
    """

    fields = W3C_FIELDS | {CTX_TRACE}
    has_wide_ids = True
    heeds_sample = True

    def read(self, seen: Mapping[bytes, bytes], span: int) -> TraceId | None:
        """See :class:`meshgw.kinds.Propagator`."""
        caller = _w3c_caller(seen)
        if caller is None and CTX_TRACE in seen:
            caller = decode_trace(seen[CTX_TRACE])
        return None if caller is None else caller.child(span)

    def lines(self, trace: TraceId, span: int, seen: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
        """See :class:`meshgw.kinds.Propagator`."""
        if trace.is_sampled is None:
            return trace.lines(span)[:1]
        line = b"traceparent: " + encode_traceparent(trace, span)
        return (line, *_state_lines(seen)) if trace.told else (line,)


def _w3c_caller(seen: Mapping[bytes, bytes]) -> TraceId | None:
    value = seen.get(TRACEPARENT)
    return None if value is None else decode_traceparent(value)


def _state_lines(seen: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
    state = seen.get(TRACESTATE)
    return (b"tracestate: " + state,) if state is not None and is_passable_state(state) else ()


L5D: Final[Propagator] = L5dPropagator()
L5D_AND_W3C: Final[Propagator] = L5dAndW3cPropagator()
"""The one that routers have where none is configured. It is as the former where nobody takes spans: a hop that tells nothing of itself has
no place in a trace, and need not look at a field that is another in each request."""


def without_spans(propagator: Propagator) -> Propagator:
    """What ``propagator`` may be replaced by where no telemeter takes spans."""
    return L5D if propagator is L5D_AND_W3C else propagator


@attrs.frozen(kw_only=True)
class L5dConfig:
    """Traces in Linkerd's `l5d-ctx-trace`, with `l5d-sample` and `l5d-reqid`.

    Where a telemeter takes spans, a caller's `traceparent` is continued; else it passes as it is.
    """


@attrs.frozen(kw_only=True)
class B3Config:
    """Traces in Zipkin's `x-b3-*` fields; the single `b3` is read, too."""


@attrs.frozen(kw_only=True)
class W3cConfig:
    """Traces in `traceparent` and `tracestate` of W3C Trace Context (meshgw's own kind)."""


def _l5d(config: L5dConfig, runtime: Runtime) -> Propagator:
    return L5D_AND_W3C


def _b3(config: B3Config, runtime: Runtime) -> Propagator:
    return B3Propagator()


def _w3c(config: W3cConfig, runtime: Runtime) -> Propagator:
    return W3cPropagator()


DEFAULT = Kind(id="io.l5d.default", config=L5dConfig, build=_l5d)
ZIPKIN = Kind(id="io.l5d.zipkin", config=B3Config, build=_b3)
W3C = Kind(id="io.meshgw.w3c", config=W3cConfig, build=_w3c)
