"""Connections of one scope, and the bytes on them, as metrics.

Source: linkerd-config spec 9.9 (connects, closes, connections, connection_*, received_bytes, sent_bytes, socket_*_ms). Connections count
their bytes, and how long output waited, themselves; what open ones have counted is added up when metrics are read.
"""

from __future__ import annotations

from collections.abc import Callable

from meshgw.core.stream import Stream
from meshgw.telemetry.metrics import Metrics


class Traffic:
    """Follows connections from beginning to end. ``clock`` gives monotonic seconds."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        """``metrics`` is the scope of a server or client."""
        self._clock = clock
        self._open: dict[Stream, float] = {}
        self._received = self._sent = 0
        self._lasted = self._blocked = 0.0
        self._connects, self._closes = metrics.counter("connects"), metrics.counter("closes")
        self._duration, self._requests = metrics.histogram("connection_duration"), metrics.histogram("connection_requests")
        self._received_each, self._sent_each = metrics.histogram("connection_received_bytes"), metrics.histogram("connection_sent_bytes")
        metrics.gauge("connections", function=lambda: float(len(self._open)))
        metrics.follow("received_bytes", function=lambda: self._received + sum(connection.received for connection in self._open))
        metrics.follow("sent_bytes", function=lambda: self._sent + sum(connection.sent for connection in self._open))
        metrics.follow("socket_unwritable_ms", function=lambda: self._unwritable * 1000)
        metrics.follow("socket_writable_ms", function=lambda: (self._open_for - self._unwritable) * 1000)

    @property
    def _open_for(self) -> float:
        """Seconds that all connections together were open."""
        now = self._clock()
        return self._lasted + sum(now - began for began in self._open.values())

    @property
    def _unwritable(self) -> float:
        """Seconds in which their peers did not take what was to be sent."""
        return self._blocked + sum(connection.blocked for connection in self._open)

    @property
    def open(self) -> int:
        """Open connections."""
        return len(self._open)

    def opened(self, connection: Stream) -> None:
        """A connection began."""
        self._connects.incr()
        self._open[connection] = self._clock()

    def closed(self, connection: Stream, requests: int) -> None:
        """It ended, after so many requests."""
        began = self._open.pop(connection, None)
        if began is None:
            return
        self._closes.incr()
        self._received += connection.received
        self._sent += connection.sent
        lasted = self._clock() - began
        self._lasted += lasted
        self._blocked += connection.blocked
        self._duration.add(int(lasted * 1000))
        self._requests.add(requests)
        self._received_each.add(connection.received)
        self._sent_each.add(connection.sent)
