"""Histograms: log-linear buckets, the window of one snapshot interval, and percentiles.

Source: linkerd-config spec 2.4 (histograms are snapshotted and reset each interval) and 9.9. A bucket is an integer index; the
counts are kept sparsely, so an idle histogram costs nothing. The relative error of a value read back is below 1 %; values below
128 are exact. Units are those of the caller; see :class:`Histogram` for fractions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

import attrs
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from meshgw.core.slices import Slices

if TYPE_CHECKING:
    from meshgw.telemetry.metrics import Metrics

DEFAULT_INTERVAL = 60.0
"""Seconds (spec 2.4)."""
MOST_SEEN = 1024
"""Different numbers that :class:`Sizes` keeps apart before it puts them into buckets."""
QUANTILES = ((0.5, "p50"), (0.9, "p90"), (0.95, "p95"), (0.99, "p99"), (0.999, "p9990"), (0.9999, "p9999"))


def bucket_of(value: int) -> int:
    """The bucket index of a non-negative integer; negative values fall into bucket 0."""
    if value < 128:
        return value if value > 0 else 0  # max() would cost three times as much
    shift = value.bit_length() - 7  # 64 buckets per power of two: the half width is at most 1/128 of the value
    return (shift << 6) + (value >> shift)


def value_of(bucket: int) -> float:
    """The mid-point of a bucket, which stands for all values in it."""
    if bucket < 128:
        return float(bucket)
    shift = (bucket >> 6) - 1
    return ((bucket - (shift << 6)) << shift) + ((1 << shift) - 1) / 2


@attrs.frozen
class Window:
    """What one histogram saw in a finished interval. ``buckets`` counts by index; ``unit`` buckets values make one unit.

    ``total`` is the exact sum in units; it does not suffer from the rounding of the buckets.
    """

    total: float
    buckets: Mapping[int, int]
    unit: int = 1

    @property
    def count(self) -> int:
        """How many values were added."""
        return sum(self.buckets.values())


def joined(windows: Iterable[Window]) -> Window:
    """One window with the values of all; those given must have the same unit."""
    total, unit = 0.0, 1
    buckets: defaultdict[int, int] = defaultdict(int)
    for window in windows:
        total, unit = total + window.total, window.unit
        for bucket, count in window.buckets.items():
            buckets[bucket] += count
    return Window(total, buckets, unit)


@attrs.frozen
class Summary:
    """The figures that are exported for a window with at least one value; ``quantiles`` are in the order of ``QUANTILES``."""

    count: int
    total: float
    least: float
    most: float
    average: float
    quantiles: tuple[float, ...]


def summary(window: Window) -> Summary | None:
    """The figures of a window, or None if it saw no value."""
    if not window.buckets:
        return None
    ordered = sorted(window.buckets)
    reached = list(accumulate(map(window.buckets.__getitem__, ordered)))  # how many values are in this bucket and those below
    count, unit = reached[-1], window.unit
    ranks = [max(1, -int(-quantile * count // 1)) for quantile, _ in QUANTILES]
    found = [value_of(ordered[bisect_left(reached, rank)]) / unit for rank in ranks]
    return Summary(
        count=count,
        total=window.total,
        least=value_of(ordered[0]) / unit,
        most=value_of(ordered[-1]) / unit,
        average=window.total / count,
        quantiles=tuple(found),
    )


class Histogram:
    """A distribution of values since the last snapshot, and the window of the snapshot before.

    ``unit`` is how many bucket steps make one unit of the added values: 1 keeps integers, 1000 keeps three decimals,
    so that an added value of 0.35 ms does not become 0.
    """

    __slots__ = ("_ahead", "_before", "_buckets", "_total", "_unit", "window")

    def __init__(self, unit: int = 1) -> None:
        self._buckets: defaultdict[int, int] = defaultdict(int)
        self._total: float = 0
        self._unit = unit
        self._before = self._ahead = 0
        self.window: Window | None = None
        """The last finished interval; None until the first snapshot."""

    @property
    def ever(self) -> int:
        """How many values were added in all intervals together."""
        return self._before + sum(self._buckets.values())

    def add(self, value: float, count: int = 1) -> None:
        """Record one value, or ``count`` (at least 1) equal ones."""
        self._total += value * count
        self._buckets[bucket_of(int(value * self._unit))] += count

    def add_zeros(self, count: int) -> None:
        """Record so many zeros at once, the frequent value of some distributions, but for those that :meth:`add_for_zero` was ahead of."""
        if self._ahead:
            known = min(self._ahead, count)
            self._ahead -= known
            count -= known
        if count:
            self._buckets[0] += count

    def add_for_zero(self, value: float) -> None:
        """Record a value that a later :meth:`add_zeros` counts as one of its zeros."""
        self._ahead += 1
        self.add(value)

    def rotate(self) -> None:
        """End the interval: what was added becomes the window, and counting starts anew."""
        self.window = Window(self._total, self._buckets, self._unit)
        self._before += self.window.count
        self._buckets, self._total = defaultdict(int), 0


class Sizes(Histogram):
    """A histogram of whole numbers, many of which are the same: one is recorded by ``seen[number] += 1``, without a call."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, int] = _Seen(self)

    @property
    def ever(self) -> int:
        """See :class:`Histogram`."""
        return super().ever + sum(self.seen.values())

    def settle(self) -> None:
        """Put what was seen into buckets."""
        for number, count in self.seen.items():
            self.add(number, count)
        self.seen.clear()

    def rotate(self) -> None:
        """See :class:`Histogram`."""
        self.settle()
        super().rotate()


class _Seen(dict[int, int]):
    """How often each number was seen; it is emptied into its histogram before there are too many different ones."""

    __slots__ = ("_sizes",)

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self._sizes = sizes

    def __missing__(self, number: int) -> int:
        if len(self) >= MOST_SEEN:
            self._sizes.settle()
        return 0


class HistogramSnapshots(Service):
    """Ends the histogram interval of all metrics every ``interval`` seconds, in slices between requests."""

    def __init__(self, reactor: IReactorTime, metrics: Metrics, interval: float = DEFAULT_INTERVAL) -> None:
        self._interval, self._metrics = interval, metrics
        self._slices = Slices(reactor)
        self._rotating: Deferred[None] | None = None
        self._loop = LoopingCall(self._rotate)
        self._loop.clock = reactor

    def _rotate(self) -> Deferred[None]:
        self._rotating = Deferred.fromCoroutine(self._slices.run(self._metrics.rotating()))
        return self._rotating.addErrback(Failure.trap, CancelledError)  # as when it is stopped in the middle

    def startService(self) -> None:
        """Begin the first interval now."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's Service has no annotations
        self._loop.start(self._interval, now=False)

    def stopService(self) -> None:
        """End the intervals; the last window stays readable."""
        super().stopService()  # type: ignore[no-untyped-call]  # as above
        if self._loop.running:
            self._loop.stop()
        if self._rotating is not None:
            self._rotating.cancel()
