"""The tree of metrics: scopes, counters, gauges, histograms, groups of derived figures, and plain snapshots of all of it.

Source: linkerd-config spec 9.9 (metric tree and counting rules). Metrics are fetched when a pipeline is built and removed with
``prune`` when their route goes; a request only increments. Everything here belongs to the reactor's thread. How many nodes there may
be is in ``telemetry.room``; formats are in ``telemetry.export``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Protocol, TypeVar

import attrs

from meshgw.core.slices import Work, batched, finished
from meshgw.telemetry.histogram import Histogram, Sizes, Window, joined
from meshgw.telemetry.outcomes import Outcomes
from meshgw.telemetry.room import Account, Ledger, Room

T = TypeVar("T")
G = TypeVar("G", bound="Group")
Names = tuple[str, ...]
DEFAULT_LIMIT = 200_000
"""Nodes: some 2,000 clients with 80 metrics each and as many services, about 100 MB."""
SERVICES_LIMIT, CLIENTS_LIMIT = DEFAULT_LIMIT // 4, DEFAULT_LIMIT // 2
"""Nodes of one router's services, whose names callers choose, and of its clients."""
PAUSE_NODES = 16
"""After so many nodes what reads them may be interrupted: some with all they are made of take 10 µs each."""


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
    return finished(merging(snapshots))


def merging(snapshots: Sequence[Snapshot]) -> Work[Snapshot]:
    """The same, little by little."""
    if len(snapshots) == 1:
        return snapshots[0]
    counters: dict[Names, int] = {}
    gauges: dict[Names, float] = {}
    windows: dict[Names, list[Window]] = {}
    peaks = frozenset[Names]().union(*(snapshot.peaks for snapshot in snapshots))
    for snapshot in snapshots:
        for some in batched(snapshot.counters.items()):
            for names, count in some:
                counters[names] = counters.get(names, 0) + count
            yield
        for group in batched(snapshot.gauges.items()):
            for names, value in group:
                _merge_gauge(gauges, names, value, is_peak=names in peaks)
            yield
        for names, window in snapshot.histograms.items():
            windows.setdefault(names, []).append(window)
    histograms: dict[Names, Window] = {}
    for found in batched(windows.items()):
        for names, each in found:
            histograms[names] = each[0] if len(each) == 1 else joined(each)
        yield
    return Snapshot(counters, gauges, histograms, peaks)


def _merge_gauge(gauges: dict[Names, float], names: Names, value: float, *, is_peak: bool) -> None:
    if names not in gauges:
        gauges[names] = value
    else:
        gauges[names] = max(gauges[names], value) if is_peak else gauges[names] + value


class Group(Protocol):
    """Several figures kept in one place, which are spread out as metrics when somebody reads them."""

    def rotate(self) -> None:
        """End the interval of its histograms."""
        ...

    def collect(
        self,
        names: Names,
        counters: MutableMapping[Names, int],
        gauges: MutableMapping[Names, float],
        histograms: MutableMapping[Names, Window],
    ) -> None:
        """Add its metrics to those of a snapshot, under ``names``."""
        ...


class Metrics:
    """A node of the tree, and as such a scope: names given to its methods are looked up below it.

    Each name is one node, even if it contains ``/``. When the tree is full, new metrics still work for their
    holder but are not exported; ``metrics/dropped`` counts them, and the log says where that was.
    """

    __slots__ = ("_children", "_metric", "_name", "_parent", "_room")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        """The root of a tree of at most ``limit`` nodes."""
        self._children: dict[str, Metrics] = {}
        self._metric: Counter | Gauge | Histogram | Group | None = None
        self._name = ""
        self._parent: Metrics | None = None
        ledger = Ledger()
        self._room: Room | None = (room := Room(limit, ledger))  # None: cut off from the tree
        own = self.scope("metrics")
        own.follow("dropped", function=lambda: ledger.dropped)
        own.follow("broken_gauges", function=lambda: ledger.broken)
        own.gauge("nodes", function=lambda: room.used)
        own.gauge("limit", function=lambda: room.limit)

    def scope(self, *names: str) -> Metrics:
        """The node at ``names`` below this one."""
        return self._node(names)

    def bounded(self, *names: str, limit: int) -> Metrics:
        """The node at ``names``, which may have ``limit`` nodes below it; for scopes whose names others choose."""
        node = self._node(names)
        above = node._room
        if above is not None and not node._children:
            node._room = Room(limit, above.ledger, above)
        return node

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

    def sizes(self, *names: str) -> Sizes:
        """The histogram at ``names``, of whole numbers that are counted one by one on the hot path (:class:`Sizes`)."""
        node = self._node(names)
        if node._metric is None:
            node._metric = Sizes()
        return node._as(Sizes, node._metric)

    def group(self, group: G, *names: str) -> G:
        """Export ``group`` below the node at ``names``, in the place of an earlier one."""
        self._node(names)._metric = group
        return group

    def outcomes(self, *names: str, status: bool = True, pending: bool = True) -> Outcomes:
        """The request accounting of the scope ``names``; ``status`` and ``pending`` say whether these are exported."""
        node = self._node(names)
        if node._metric is None:
            node._metric = Outcomes(status=status, pending=pending, folded=node._drop)
        return node._as(Outcomes, node._metric)

    def settle_first(self, account: Account) -> None:
        """Let ``account`` settle before metrics are read or an interval ends; it is forgotten when nobody else holds it."""
        if self._room is not None:
            self._room.ledger.accounts.add(account)

    def _settle(self) -> None:
        if self._room is not None:
            self._room.ledger.settle()

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
            self._cut(self._parent._room)

    def rotate(self) -> None:
        """End the interval of every histogram at and below this node; the log tells once an interval what found no room."""
        finished(self.rotating())

    def rotating(self) -> Work[None]:
        """The same, little by little; what reads meanwhile finds some histograms of the interval before."""
        self._settle()
        stack = [self]
        number = 0
        while stack:
            node = stack.pop()
            metric = node._metric
            if metric is not None and not isinstance(metric, (Counter, Gauge)):
                metric.rotate()
            stack.extend(node._children.values())
            number += 1
            if number % PAUSE_NODES == 0:
                yield
        if self._room is not None:
            self._room.ledger.end_interval()

    def snapshot(self) -> Snapshot:
        """The values now. A gauge whose function raises is left out and counted: one broken source must not hide the others."""
        return finished(self.reading())

    def reading(self, below: str = "") -> Work[Snapshot]:
        """The same, little by little; each metric is read once. ``below`` is the joined path of the nodes that are wanted, else all are.

        What stands on the way there may be told as well.
        """
        self._settle()
        counters: dict[Names, int] = {}
        gauges: dict[Names, float] = {}
        histograms: dict[Names, Window] = {}
        peaks: list[Names] = []
        for number, (names, metric) in enumerate(self._walk((), below)):
            if number % PAUSE_NODES == 0:
                yield
            if isinstance(metric, Counter):
                counters[names] = metric.value
            elif isinstance(metric, Histogram):
                if metric.window is not None:
                    histograms[names] = metric.window
            elif not isinstance(metric, Gauge):
                metric.collect(names, counters, gauges, histograms)
            elif self._read_gauge(names, metric, counters, gauges) and metric.most:
                peaks.append(names)
        return Snapshot(counters, gauges, histograms, frozenset(peaks))

    def _read_gauge(self, names: Names, metric: Gauge, counters: dict[Names, int], gauges: dict[Names, float]) -> bool:
        """Whether it could be read."""
        try:
            if metric.counts:
                counters[names] = int(metric.value)
            else:
                gauges[names] = float(metric.value)
        except Exception:  # noqa: BLE001 - a gauge's function is foreign code called on behalf of an operator's request
            self._count_broken()
            return False
        return True

    def _walk(self, names: Names, below: str) -> Iterator[tuple[Names, Counter | Gauge | Histogram | Group]]:
        stack: list[tuple[Names, Metrics, str]] = [(names, self, below)]
        while stack:
            names, node, left = stack.pop()
            if node._metric is not None:
                yield names, node._metric
            if left:
                stack.extend(((*names, name), child, rest) for name, child, rest in node._towards(left))
            else:
                stack.extend(((*names, name), child, "") for name, child in node._children.items())

    def _towards(self, path: str) -> Iterator[tuple[str, Metrics, str]]:
        """The children with which the joined ``path`` may begin, as names may have a ``/`` in them, and what is left of it then."""
        end = -1
        while end < len(path):
            end = path.find("/", end + 1)
            end = len(path) if end < 0 else end
            child = self._children.get(path[:end])
            if child is not None:
                yield path[:end], child, path[end + 1 :]

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
        if room is not None and not room.take():
            self._drop()
            child._parent = child._room = None
            return child
        self._children[name] = child
        return child

    def _count_broken(self) -> None:
        if self._room is not None:
            self._room.ledger.broken += 1

    def _drop(self) -> None:
        if self._room is not None:
            self._room.ledger.drop(self._path())

    def _path(self) -> str:
        names = []
        node: Metrics | None = self
        while node is not None and node._name:
            names.append(node._name)
            node = node._parent
        return "/".join(reversed(names)) or "the root"

    def _cut(self, charged: Room | None) -> None:
        """Detach this node and all below from the tree; ``charged`` is the room that it takes a place of."""
        room, self._room = self._room, None
        for child in self._children.values():
            child._cut(room)
        if charged is not None:
            charged.give()

    def _as(self, kind: type[T], metric: object) -> T:
        """The metric, which must be of that kind: two kinds under one name are a defect of the caller."""
        if not isinstance(metric, kind):
            raise TypeError(f"metric {self._name!r} is a {type(metric).__name__}, asked for as {kind.__name__}")
        return metric
