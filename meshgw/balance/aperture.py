"""Aperture: P2C inside a part of the nodes that is as large as the load needs.

Source: linkerd-config spec 10.7 (Finagle's load band). The average of requests under way per node of the aperture is held between
``lowLoad`` and ``highLoad``: with each request that begins or ends the aperture widens by a node at or above the one, and narrows by a
node at or below the other. Nodes stand in an order that is random but stable, so that few connections serve a small load and each gateway
has its own. Only available nodes stand in the order: an unavailable one is replaced by the next, and takes its place again when it has
recovered.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from hashlib import blake2b
from math import exp
from operator import attrgetter
from typing import Any

import attrs

from meshgw.balance.nodes import E, Node, Nodes
from meshgw.balance.pickers import MAX_EFFORT, Balancer, DrawingConfig, Random, weight_class, weight_of
from meshgw.config.document import at_least, option
from meshgw.kinds import Kind, Runtime

_by_rank = attrgetter("rank")


@attrs.frozen(kw_only=True)
class ApertureConfig(DrawingConfig):
    """Aperture: P2C among a sub-set of the endpoints that grows and shrinks with the load."""

    smooth_window_ms: int = option(default=5000, doc="Milliseconds over which the load is averaged (Finagle's 5 s).", check=at_least(1))
    low_load: float = option(default=0.5, doc="Requests under way per endpoint at which the aperture narrows.", check=at_least(0))
    high_load: float = option(default=2.0, doc="Requests under way per endpoint at which the aperture widens.", check=at_least(0))
    min_aperture: int = option(default=1, doc="Fewest endpoints in the aperture.", check=at_least(1))

    def __attrs_post_init__(self) -> None:
        if self.low_load >= self.high_load:
            raise ValueError(f"lowLoad must be below highLoad, but {self.low_load:g} is not below {self.high_load:g}")


@attrs.frozen(kw_only=True)
class LoadBand:
    """The limits of the average load, and over how many seconds it is taken."""

    window: float = 5.0
    low: float = 0.5
    high: float = 2.0
    least: int = 1


class Band:
    """The nodes of one weight class, with the aperture over them: the first ``width`` of ``up``.

    ``up`` and ``down`` are the available and the other nodes, each in the stable order. ``total`` is the number of requests under way,
    ``average`` its moving average.
    """

    __slots__ = ("_at", "_limits", "average", "down", "total", "up", "width")

    def __init__(self, limits: LoadBand, now: float) -> None:
        self._limits, self._at = limits, now
        self.up: list[Node[Any]] = []
        self.down: list[Node[Any]] = []
        self.total, self.average, self.width = 0, 0.0, limits.least

    def fill(self, members: tuple[Node[Any], ...]) -> None:
        """Take these nodes, with what they have under way, in place of those before."""
        for node in members:
            node.home, node.counted = self, node.load
        order = sorted(members, key=_by_rank)
        self.up = [node for node in order if node.is_available]
        self.down = [node for node in order if not node.is_available]
        self.total = sum(node.load for node in order)
        self.width = min(max(self.width, self._limits.least), len(order))

    def count(self, node: Node[Any], now: float) -> None:
        """The node's load changed: adjust the averages and the aperture by one step."""
        kept = exp((self._at - now) / self._limits.window)
        self.average = self.average * kept + self.total * (1.0 - kept)
        self._at = now
        self.total += node.load - node.counted
        node.counted = node.load
        load = self.average / self.width
        if load >= self._limits.high and self.width < len(self.up) + len(self.down):
            self.width += 1
        elif load <= self._limits.low and self.width > self._limits.least:
            self.width -= 1

    def sort(self, node: Node[Any]) -> None:
        """The node's availability changed."""
        source, target = (self.down, self.up) if node.is_available else (self.up, self.down)
        at = bisect_left(source, node.rank, key=_by_rank)
        while at < len(source) and source[at].rank == node.rank:
            if source[at] is node:
                del source[at]
                target.insert(bisect_left(target, node.rank, key=_by_rank), node)
                return
            at += 1

    def choose(self, random: Random) -> Node[Any]:
        """The less loaded of two nodes of the aperture; of those that are down if there are no others."""
        nodes = self.up or self.down
        count = min(self.width, len(nodes))
        first = int(random() * count)
        node = nodes[first]
        if count > 1:
            second = int(random() * (count - 1))
            other = nodes[second + 1 if second >= first else second]
            if other.load < node.load:
                node = other
        return node


class Aperture(Balancer):
    """Picks inside the aperture of a weight class. Tell it the begin and the end of every request."""

    __slots__ = ("_bands", "_classes", "_clock", "_limits", "_seed")
    algorithm = "aperture_least_loaded"

    def __init__(
        self, random: Random, clock: Callable[[], float], limits: LoadBand, max_effort: int = MAX_EFFORT, *, probation: bool = False
    ) -> None:
        super().__init__(random, max_effort, probation=probation)
        self._clock, self._limits = clock, limits
        self._seed = int(random() * 2**53).to_bytes(7, "big")
        self._classes: Any = ()
        self._bands: dict[float, Band] = {}
        self.on_begin, self.on_end = self._begun, self._ended

    @property
    def width(self) -> int:
        """The nodes in the apertures of all weight classes."""
        return sum(min(band.width, len(band.up) + len(band.down)) for band in self._bands.values())

    def pick(self, nodes: Nodes[E]) -> Node[E] | None:
        """The node to use, or None when there are no nodes."""
        classes = nodes.classes
        if classes is not self._classes:
            self._rebuild(nodes)
        if not classes:
            return None
        node: Node[E]
        for _ in range(self._max_effort):
            members = classes[0][1] if len(classes) == 1 else weight_class(classes, self._random())
            node = members[0].home.choose(self._random)
            if node.is_available:
                return node
        self.exhausted += 1
        return node

    def _begun(self, node: Node[Any]) -> None:
        if node.home is not None:
            node.home.count(node, self._clock())

    def _ended(self, node: Node[Any], _seconds: float, _failed: bool) -> None:
        if node.home is not None:
            node.home.count(node, self._clock())

    def _rebuild(self, nodes: Nodes[E]) -> None:
        """The set changed: a class keeps its aperture and average, a node its place in the order."""
        for band in self._bands.values():
            for node in (*band.up, *band.down):
                node.home = None
        before, self._bands, self._classes = self._bands, {}, nodes.classes
        nodes.on_status = _sort
        now = self._clock()
        for _, members in nodes.classes:
            for member in members:
                member.rank = member.rank or self._rank(member)
            weight = weight_of(members)
            band = self._bands[weight] = before.get(weight) or Band(self._limits, now)
            band.fill(members)

    def _rank(self, node: Node[Any]) -> int:
        """A random number that an address always gets here, and another one in another process."""
        return int.from_bytes(blake2b(node.address.show().encode(), digest_size=8, key=self._seed).digest(), "big") or 1


def _sort(node: Node[Any]) -> None:
    if node.home is not None:
        node.home.sort(node)


def build_aperture(config: ApertureConfig, runtime: Runtime) -> Aperture:
    """The balancer of one bound name."""
    limits = LoadBand(window=config.smooth_window_ms / 1000, low=config.low_load, high=config.high_load, least=config.min_aperture)
    return Aperture(runtime.random.random, runtime.reactor.seconds, limits, config.max_effort, probation=config.enable_probation)


APERTURE = Kind(id="aperture", config=ApertureConfig, build=build_aperture)
