"""Connections of one scope, and the bytes on them, as metrics.

Source: linkerd-config spec 9.9 (connects, closes, connections, connection_*, received_bytes, sent_bytes). Bytes are counted by the
connections themselves; those of open ones are added up when metrics are read.
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
        self._connects, self._closes = metrics.counter("connects"), metrics.counter("closes")
        self._duration, self._requests = metrics.histogram("connection_duration"), metrics.histogram("connection_requests")
        self._received_each, self._sent_each = metrics.histogram("connection_received_bytes"), metrics.histogram("connection_sent_bytes")
        metrics.gauge("connections", function=lambda: float(len(self._open)))
        metrics.follow("received_bytes", function=lambda: self._received + sum(connection.received for connection in self._open))
        metrics.follow("sent_bytes", function=lambda: self._sent + sum(connection.sent for connection in self._open))

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
        self._duration.add(int((self._clock() - began) * 1000))
        self._requests.add(requests)
        self._received_each.add(connection.received)
        self._sent_each.add(connection.sent)
