"""The tree of metrics: scopes, counters, gauges, histograms, request outcomes, and plain snapshots of all of it.

Source: linkerd-config spec 9.9 (metric tree and counting rules). Metrics are fetched when a pipeline is built and removed with
``prune`` when their route goes; a request only increments. Everything here belongs to the reactor's thread. Formats are in
``telemetry.export``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar
from weakref import WeakSet

import attrs

from meshgw.telemetry.histogram import Histogram, Window, joined
from meshgw.telemetry.outcomes import Outcomes

T = TypeVar("T")
Names = tuple[str, ...]
DEFAULT_LIMIT = 100_000  # nodes: some 2,000 clients with 50 metrics each, about 50 MB


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def incr(self, by: int = 1) -> None:
        """Add ``by``."""
        self.value += by


class Gauge:
    """A number that goes up and down: set by its owner, or read from ``function`` when exported."""

    __slots__ = ("_function", "_value", "counts", "most")

    def __init__(self, function: Callable[[], float] | None = None, *, most: bool = False, counts: bool = False) -> None:
        self._function = function
        self.counts = counts
        """Its function only grows: it is exported as a counter."""
        self._value = 0.0
        self.most = most
        """Several processes' values are merged by their maximum instead of their sum."""

    @property
    def value(self) -> float:
        """The value now; raises what the function raises."""
        return self._value if self._function is None else self._function()

    def set(self, value: float) -> None:
        """Set the value of a gauge without a function."""
        self._value = value

    def follow(self, function: Callable[[], float]) -> None:
        """Read the value from ``function`` from now on."""
        self._function = function


@attrs.frozen
class Snapshot:
    """All values at one moment, keyed by tree path; data only, so it can be sent to another process and merged.

    ``peaks`` names the gauges that are merged by maximum. Only histograms with a finished interval appear.
    """

    counters: Mapping[Names, int] = attrs.field(factory=dict)
    gauges: Mapping[Names, float] = attrs.field(factory=dict)
    histograms: Mapping[Names, Window] = attrs.field(factory=dict)
    peaks: frozenset[Names] = frozenset()


def merge(snapshots: Sequence[Snapshot]) -> Snapshot:
    """One snapshot for several processes: counters and histograms add up, gauges too unless they are in ``peaks``."""
    if len(snapshots) == 1:
        return snapshots[0]
    counters: dict[Names, int] = {}
    gauges: dict[Names, float] = {}
    windows: dict[Names, list[Window]] = {}
    peaks = frozenset[Names]().union(*(snapshot.peaks for snapshot in snapshots))
    for snapshot in snapshots:
        for names, count in snapshot.counters.items():
            counters[names] = counters.get(names, 0) + count
        for names, value in snapshot.gauges.items():
            if names not in gauges:
                gauges[names] = value
            else:
                gauges[names] = max(gauges[names], value) if names in peaks else gauges[names] + value
        for names, window in snapshot.histograms.items():
            windows.setdefault(names, []).append(window)
    return Snapshot(counters, gauges, {names: joined(found) for names, found in windows.items()}, peaks)


class Account(Protocol):
    """Counts for several metrics at once, which take it over when they are read."""

    def settle(self) -> None:
        """Hand over what was counted since the last time."""
        ...


class _Room:
    """How many nodes the tree may still get, and what went wrong with it; and who counts for some of its metrics."""

    __slots__ = ("accounts", "broken", "dropped", "left")

    def __init__(self, limit: int) -> None:
        self.left = limit
        self.accounts: WeakSet[Account] = WeakSet()
        self.dropped = Counter()
        self.broken = Counter()


class Metrics:
    """A node of the tree, and as such a scope: names given to its methods are looked up below it.

    Each name is one node, even if it contains ``/``. When the tree is full, new metrics still work for their
    holder but are not exported, and ``metrics/dropped`` counts them.
    """

    __slots__ = ("_children", "_metric", "_name", "_parent", "_room")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        """The root of a tree of at most ``limit`` nodes."""
        self._children: dict[str, Metrics] = {}
        self._metric: Counter | Gauge | Histogram | Outcomes | None = None
        self._name = ""
        self._parent: Metrics | None = None
        self._room: _Room | None = _Room(limit)  # None: cut off from the tree
        self._node(("metrics", "dropped"))._metric = self._room.dropped
        self._node(("metrics", "broken_gauges"))._metric = self._room.broken

    def scope(self, *names: str) -> Metrics:
        """The node at ``names`` below this one."""
        return self._node(names)

    def counter(self, *names: str) -> Counter:
        """The counter at ``names``."""
        node = self._node(names)
        if node._metric is None:
            node._metric = Counter()
        return node._as(Counter, node._metric)

    def gauge(self, *names: str, function: Callable[[], float] | None = None, most: bool = False) -> Gauge:
        """The gauge at ``names``; ``function``, if given, replaces where its value comes from. For ``most`` see :class:`Gauge`."""
        node = self._node(names)
        if node._metric is None:
            node._metric = Gauge(most=most)
        gauge = node._as(Gauge, node._metric)
        if function is not None:
            gauge.follow(function)
        return gauge

    def follow(self, *names: str, function: Callable[[], float]) -> None:
        """Export as a counter at ``names`` a number that somebody else counts."""
        node = self._node(names)
        node._metric = Gauge(function, counts=True)

    def histogram(self, *names: str) -> Histogram:
        """The histogram at ``names``; one whose name ends in ``_ms`` keeps three decimals, others whole numbers."""
        node = self._node(names)
        if node._metric is None:
            node._metric = Histogram(1000 if node._name.endswith("_ms") else 1)
        return node._as(Histogram, node._metric)

    def outcomes(self, *names: str, status: bool = True, pending: bool = True) -> Outcomes:
        """The request accounting of the scope ``names``; ``status`` and ``pending`` say whether these are exported."""
        node = self._node(names)
        if node._metric is None:
            node._metric = Outcomes(status=status, pending=pending, folded=node._count_dropped)
        return node._as(Outcomes, node._metric)

    def settle_first(self, account: Account) -> None:
        """Let ``account`` settle before metrics are read or an interval ends; it is forgotten when nobody else holds it."""
        if self._room is not None:
            self._room.accounts.add(account)

    def _settle(self) -> None:
        if self._room is not None:
            for account in list(self._room.accounts):
                account.settle()

    def remove(self, *names: str) -> None:
        """Prune the node at ``names`` below this one if there is one."""
        node: Metrics | None = self
        for name in names:
            node = node._children.get(name) if node is not None else None
        if node is not None:
            node.prune()

    def prune(self) -> None:
        """Remove this node and all below it; their holders may go on using them, unexported."""
        if self._parent is not None and self._room is not None:
            del self._parent._children[self._name]
            room = self._room
            room.left += self._cut()

    def rotate(self) -> None:
        """End the interval of every histogram at and below this node."""
        self._settle()
        stack = [self]
        while stack:
            node = stack.pop()
            if isinstance(node._metric, (Histogram, Outcomes)):
                node._metric.rotate()
            stack.extend(node._children.values())

    def snapshot(self) -> Snapshot:
        """The values now. A gauge whose function raises is left out and counted: one broken source must not hide the others."""
        self._settle()
        counters: dict[Names, int] = {}
        gauges: dict[Names, float] = {}
        histograms: dict[Names, Window] = {}
        peaks: list[Names] = []
        for names, metric in self._walk(()):
            if isinstance(metric, Counter):
                counters[names] = metric.value
            elif isinstance(metric, Outcomes):
                metric.collect(names, counters, gauges, histograms)
            elif isinstance(metric, Histogram):
                if metric.window is not None:
                    histograms[names] = metric.window
            else:
                try:
                    if metric.counts:
                        counters[names] = int(metric.value)
                    else:
                        gauges[names] = float(metric.value)
                except Exception:  # noqa: BLE001 - a gauge's function is foreign code called on behalf of an operator's request
                    self._count_broken()
                    continue
                if metric.most:
                    peaks.append(names)
        return Snapshot(counters, gauges, histograms, frozenset(peaks))

    def _walk(self, names: Names) -> Iterator[tuple[Names, Counter | Gauge | Histogram | Outcomes]]:
        stack: list[tuple[Names, Metrics]] = [(names, self)]
        while stack:
            names, node = stack.pop()
            if node._metric is not None:
                yield names, node._metric
            stack.extend(((*names, name), child) for name, child in node._children.items())

    def _node(self, names: Names) -> Metrics:
        node = self
        for name in names:
            child = node._children.get(name)
            node = node._grown(name) if child is None else child
        return node

    def _grown(self, name: str) -> Metrics:
        child = Metrics.__new__(Metrics)
        child._children, child._metric = {}, None
        child._name, child._parent, child._room = name, self, self._room
        room = self._room
        if room is not None and room.left <= 0:
            room.dropped.incr()
            child._parent = child._room = None
            return child
        if room is not None:
            room.left -= 1
        self._children[name] = child
        return child

    def _count_broken(self) -> None:
        if self._room is not None:
            self._room.broken.incr()

    def _count_dropped(self) -> None:
        if self._room is not None:
            self._room.dropped.incr()

    def _cut(self) -> int:
        """Detach this node and all below from the tree; how many nodes these are."""
        self._room = None
        return 1 + sum(child._cut() for child in self._children.values())

    def _as(self, kind: type[T], metric: object) -> T:
        """The metric, which must be of that kind: two kinds under one name are a defect of the caller."""
        if not isinstance(metric, kind):
            raise TypeError(f"metric {self._name!r} is a {type(metric).__name__}, asked for as {kind.__name__}")
        return metric
