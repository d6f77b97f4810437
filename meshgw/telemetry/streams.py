"""What HTTP/2 has beyond requests: how streams ended, what was on them and for how long; and the frames of connections.

Source: linkerd-config spec 9.9 (``h2 differences``). ``request/stream`` is what callers send, ``response/stream`` what they get, ``stream``
both together; ``stream/local`` and ``stream/remote`` are frames as they went out and came in.
"""

from __future__ import annotations

from collections.abc import MutableMapping

from meshgw.telemetry.histogram import Histogram, Sizes, Window
from meshgw.telemetry.metrics import Metrics

UNREAD = "Unread"
"""The cause for a request whose answer was complete before it was itself."""
MOST_CAUSES = 64
"""Names of failures kept apart in one scope; further ones count as ``other``."""
Names = tuple[str, ...]


class StreamCounts:
    """One direction of the streams of a scope, or both together. ``duration`` is the name of the histogram of their times."""

    __slots__ = ("_duration", "_durations", "_failures", "_seen", "_sizes", "success")

    def __init__(self, duration: str) -> None:
        self._duration = duration
        self.success = 0
        self._failures: dict[str, int] = {}
        self._sizes, self._durations = Sizes(), Histogram(1000)
        self._seen = self._sizes.seen

    def ended(self, size: int, seconds: float, cause: str) -> None:
        """One ended after ``size`` bytes of data and so many seconds; without a ``cause`` it was complete."""
        self._seen[size] += 1
        if seconds:
            self._durations.add(seconds * 1000)
        else:
            self._durations.add_zeros(1)
        if not cause:
            self.success += 1
            return
        if cause not in self._failures and len(self._failures) >= MOST_CAUSES:
            cause = "other"
        self._failures[cause] = self._failures.get(cause, 0) + 1

    def rotate(self) -> None:
        """See :class:`meshgw.telemetry.metrics.Group`."""
        self._sizes.rotate()
        self._durations.rotate()

    def collect(
        self,
        names: Names,
        counters: MutableMapping[Names, int],
        gauges: MutableMapping[Names, float],
        histograms: MutableMapping[Names, Window],
    ) -> None:
        """See :class:`meshgw.telemetry.metrics.Group`."""
        counters[(*names, "stream_success")] = self.success
        counters[(*names, "stream_failures")] = sum(self._failures.values())
        for cause, count in self._failures.items():
            counters[(*names, "stream_failures", cause)] = count
        if self._sizes.window is not None and self._durations.window is not None:
            histograms[(*names, "data_bytes")] = self._sizes.window
            histograms[(*names, self._duration)] = self._durations.window


class StreamStats:
    """The streams of one scope."""

    __slots__ = ("request", "response", "whole")

    def __init__(self, metrics: Metrics) -> None:
        """``metrics`` is the scope."""
        self.request = metrics.group(StreamCounts("stream_duration_ms"), "request", "stream")
        self.response = metrics.group(StreamCounts("stream_duration_ms"), "response", "stream")
        self.whole = metrics.group(StreamCounts("total_latency_ms"), "stream")


class Frames:
    """The frames of all connections of one scope (:class:`meshgw.wire.h2_sending.FrameCounts`)."""

    __slots__ = ("received", "resets_received", "resets_sent", "sent", "trailers_received", "trailers_sent")

    def __init__(self, metrics: Metrics) -> None:
        """``metrics`` is the scope."""
        self.trailers_sent = self.trailers_received = self.resets_sent = self.resets_received = 0
        local, remote = metrics.scope("stream", "local"), metrics.scope("stream", "remote")
        out, into = local.sizes("data", "bytes"), remote.sizes("data", "bytes")
        self.sent, self.received = out.seen, into.seen
        local.follow("data", "frames", function=lambda: out.ever)
        remote.follow("data", "frames", function=lambda: into.ever)
        local.follow("trailers", function=lambda: self.trailers_sent)
        remote.follow("trailers", function=lambda: self.trailers_received)
        local.follow("reset", function=lambda: self.resets_sent)
        remote.follow("reset", function=lambda: self.resets_received)
