"""What HTTP/2 has beyond requests: how streams ended, what was on them and for how long; and the frames of connections.

Source: linkerd-config spec 9.9 (``h2 differences``). ``request/stream`` is what callers send, ``response/stream`` what they get, ``stream``
both together; ``stream/local`` and ``stream/remote`` are frames as they went out and came in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import MutableMapping

from meshgw.telemetry.histogram import Sizes, Window, bucket_of
from meshgw.telemetry.metrics import Metrics

UNREAD = "Unread"
"""The cause for a request whose answer was complete before it was itself."""
MOST_CAUSES = 64
"""Names of failures kept apart in one scope; further ones count as ``other``."""
MICROS = 1_000_000
Names = tuple[str, ...]


class StreamCounts:
    """One direction of the streams of a scope, or both together. ``duration`` is the name of the histogram of their times."""

    __slots__ = ("_duration", "_failures", "_sizes", "_window", "buckets", "seen", "success", "total")

    def __init__(self, duration: str) -> None:
        self._duration = duration
        self.success = 0
        self._failures: dict[str, int] = {}
        self._sizes = Sizes()
        self.seen = self._sizes.seen
        self._window: Window | None = None
        self.buckets: defaultdict[int, int] = defaultdict(int)
        """Times by the buckets of their microseconds; ``total`` is their sum in milliseconds."""
        self.total = 0.0

    def ended(self, size: int, seconds: float, cause: str) -> None:
        """One ended after ``size`` bytes of data and so many seconds; without a ``cause`` it was complete."""
        self.seen[size] += 1
        self.total += seconds * 1000
        self.buckets[bucket_of(int(seconds * MICROS))] += 1
        if not cause:
            self.success += 1
            return
        if cause not in self._failures and len(self._failures) >= MOST_CAUSES:
            cause = "other"
        self._failures[cause] = self._failures.get(cause, 0) + 1

    def rotate(self) -> None:
        """See :class:`meshgw.telemetry.metrics.Group`."""
        self._sizes.rotate()
        self._window = Window(self.total, self.buckets, MICROS // 1000)
        self.buckets, self.total = defaultdict(int), 0.0

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
        if self._sizes.window is not None and self._window is not None:
            histograms[(*names, "data_bytes")] = self._sizes.window
            histograms[(*names, self._duration)] = self._window


class StreamStats:
    """The streams of one scope."""

    __slots__ = ("request", "response", "whole")

    def __init__(self, metrics: Metrics) -> None:
        """``metrics`` is the scope."""
        self.request = metrics.group(StreamCounts("stream_duration_ms"), "request", "stream")
        self.response = metrics.group(StreamCounts("stream_duration_ms"), "response", "stream")
        self.whole = metrics.group(StreamCounts("total_latency_ms"), "stream")

    def completed(self, asked: int, answered: int, times: tuple[float, float, float], buckets: tuple[int, int, int]) -> None:
        """A stream is complete both ways, after so many bytes.

        ``times`` are those of its request, its answer and both together, in milliseconds; ``buckets`` are those of their microseconds.
        The nine figures are counted right here, since calls would cost more than counting.
        """
        request, response, whole = self.request, self.response, self.whole
        asking, answering, lasting = times
        request_bucket, response_bucket, whole_bucket = buckets
        request.success += 1
        request.seen[asked] += 1
        request.total += asking
        request.buckets[request_bucket] += 1
        response.success += 1
        response.seen[answered] += 1
        response.total += answering
        response.buckets[response_bucket] += 1
        whole.success += 1
        whole.seen[asked + answered] += 1
        whole.total += lasting
        whole.buckets[whole_bucket] += 1


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


def laps(asking: float, answering: float, lasting: float) -> tuple[tuple[float, float, float], tuple[int, int, int]]:
    """Times and their buckets as :meth:`StreamStats.completed` takes them, from seconds."""
    return (
        (asking * 1000, answering * 1000, lasting * 1000),
        (bucket_of(int(asking * MICROS)), bucket_of(int(answering * MICROS)), bucket_of(int(lasting * MICROS))),
    )
