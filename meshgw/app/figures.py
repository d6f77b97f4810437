"""What a listener counts of its requests beside how they ended: sizes, local dtabs, and times on the way.

Source: linkerd-config spec 9.9 (request_payload_bytes, response_payload_bytes, dtab/size, handletime_us, transit_latency_ms).
"""

from __future__ import annotations

from meshgw.telemetry.metrics import Metrics

TIMED_EACH = 16
"""One in so many requests is timed for ``handletime_us``: a look at the clock for each would cost more than what it tells is worth."""


class RequestFigures:
    """The figures of one listener. ``asked`` and ``answered`` have how many bodies there were of each size."""

    __slots__ = ("answered", "asked", "dtab_sizes", "handling", "transit")

    def __init__(self, metrics: Metrics) -> None:
        """``metrics`` is its scope."""
        self.asked = metrics.sizes("request_payload_bytes").seen
        self.answered = metrics.sizes("response_payload_bytes").seen
        self.dtab_sizes = metrics.sizes("dtab", "size").seen
        self.handling = metrics.histogram("handletime_us")
        """Microseconds from a request's arrival until it was sent on, or waits."""
        self.transit = metrics.histogram("transit_latency_ms")
        """How long requests were on their way from whoever set their deadline, by both clocks."""
