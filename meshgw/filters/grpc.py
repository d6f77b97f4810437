"""gRPC's deadlines: a call's ``grpc-timeout`` is a deadline like any other, and what is left of it is told to the next hop.

Source: the gRPC protocol over HTTP/2 (Timeout); linkerd-config spec 7.1. The stricter of ``grpc-timeout`` and ``l5d-ctx-deadline`` counts.
"""

from __future__ import annotations

from collections.abc import Callable

from meshgw.core.exchange import Exchange
from meshgw.wire.grpc import show_timeout, timeout_ns

GRPC_TIMEOUT = b"grpc-timeout"
NANOS = 1_000_000_000
LATEST = (1 << 63) - 1
"""The last nanosecond that the next hop can read from a context: timeouts of centuries stand for no limit."""


class GrpcDeadline:
    """Reads a call's timeout at the server. ``now`` gives seconds since the epoch, ``start`` enforces ``ex.deadline``; it may raise."""

    __slots__ = ("_now", "_start")

    def __init__(self, now: Callable[[], float], start: Callable[[Exchange], None]) -> None:
        self._now, self._start = now, start

    def on_request(self, ex: Exchange) -> None:
        """Join it with the deadline that came in the context."""
        value = ex.headers.seen.get(GRPC_TIMEOUT)
        nanos = None if value is None else timeout_ns(value)
        if nanos is None:
            return
        stamp = int(self._now() * NANOS)
        known = ex.deadline
        ends = min(stamp + nanos, LATEST)
        if known is not None and known[1] <= ends:
            return
        ex.deadline = (stamp if known is None else max(known[0], stamp), ends)
        if ex.deadline_timer is not None:
            ex.deadline_timer.cancel()
        self._start(ex)


class GrpcTimeout:
    """Tells an endpoint how much time is left for a call that came with a timeout; what the caller said was taken off."""

    __slots__ = ("_now",)

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now

    def on_request(self, ex: Exchange) -> None:
        """Write the field; a malformed one goes on as it came, for the service to refuse."""
        value = ex.headers.seen.get(GRPC_TIMEOUT)
        if value is None:
            return
        if ex.deadline is not None and timeout_ns(value) is not None:
            value = show_timeout(max(1, ex.deadline[1] - int(self._now() * NANOS)))
        ex.headers.lines.append(b"grpc-timeout: " + value)
