"""Global least load: of all nodes, the one with the fewest requests under way.

Source: linkerd-config spec 4.6. The nodes of a weight class form a binary heap, in which every node knows its place: a request costs
O(log n) when it begins and when it ends, a pick O(1). Nodes that are unavailable rank behind all others. Among equals the one that was used
longest ago comes first, so that idle nodes take turns.
"""

from __future__ import annotations

from typing import Any

import attrs

from meshgw.balance.nodes import E, Node, Nodes
from meshgw.balance.pickers import Balancer, BalancerConfig, Random, weight_class
from meshgw.kinds import Kind, Runtime

_UNAVAILABLE = 1 << 32  # more requests than any node has under way
_ORDERS = 1 << 48  # more than will ever be counted: the lower part of a rank is the turn a node was used last


@attrs.frozen(kw_only=True)
class HeapConfig(BalancerConfig):
    """Least loaded of all: the endpoint with the fewest requests under way is used."""


class LoadHeap:
    """Nodes ordered by rank. The rank is kept in the node, apart from its load, so that the heap stays a heap between two calls."""

    __slots__ = ("_turn", "nodes")

    def __init__(self, members: list[Node[Any]], turn: int = 0) -> None:
        """``turn`` numbers the uses of nodes, on from an earlier heap."""
        self._turn = turn
        for node in members:
            if not node.order:
                node.order = self._next()
            node.home, node.rank = self, _rank(node)
        self.nodes = sorted(members, key=lambda node: node.rank)
        for position, node in enumerate(self.nodes):
            node.position = position

    @property
    def turn(self) -> int:
        """How many uses were counted."""
        return self._turn

    def used(self, node: Node[Any]) -> None:
        """A request was given to the node: it goes behind its equals."""
        node.order = self._next()
        self.settle(node)

    def settle(self, node: Node[Any]) -> None:
        """Put the node where its load and availability belong, however far they changed."""
        before, node.rank = node.rank, _rank(node)
        if node.rank < before:
            self._rise(node)
        elif node.rank > before:
            self._sink(node)

    def _next(self) -> int:
        self._turn += 1
        return self._turn

    def _rise(self, node: Node[Any]) -> None:
        nodes, rank, position = self.nodes, node.rank, node.position
        while position:
            above = (position - 1) >> 1
            parent = nodes[above]
            if parent.rank <= rank:
                break
            nodes[position], parent.position = parent, position
            position = above
        nodes[position], node.position = node, position

    def _sink(self, node: Node[Any]) -> None:
        nodes, rank, position = self.nodes, node.rank, node.position
        count = len(nodes)
        while True:
            below = 2 * position + 1
            if below >= count:
                break
            if below + 1 < count and nodes[below + 1].rank < nodes[below].rank:
                below += 1
            child = nodes[below]
            if child.rank >= rank:
                break
            nodes[position], child.position = child, position
            position = below
        nodes[position], node.position = node, position


class HeapLeastLoaded(Balancer):
    """Picks the top of the heap. Tell it the begin and the end of every request."""

    __slots__ = ("_classes", "_heaps", "_turn")
    algorithm = "heap_least_loaded"

    def __init__(self, random: Random, *, probation: bool = False) -> None:
        super().__init__(random, probation=probation)
        self._classes: Any = ()
        self._heaps: tuple[LoadHeap, ...] = ()
        self._turn = 0
        self.on_begin, self.on_end = _used, _settle

    def pick(self, nodes: Nodes[E]) -> Node[E] | None:
        """The node to use, or None when there are no nodes."""
        classes = nodes.classes
        if classes is not self._classes:
            self._rebuild(nodes)
        if not classes:
            return None
        # Every member has the heap of its class as its home.
        members = classes[0][1] if len(classes) == 1 else weight_class(classes, self._random())
        node: Node[E] = members[0].home.nodes[0]
        if node.is_available:
            return node
        for heap in self._heaps:
            if heap.nodes[0].is_available:
                return heap.nodes[0]
        self.exhausted += 1
        return node

    def _rebuild(self, nodes: Nodes[E]) -> None:
        """The set changed: nodes keep their loads and turns, those that left lose their place."""
        for heap in self._heaps:
            self._turn = max(self._turn, heap.turn)
            for node in heap.nodes:
                node.home = None
        self._classes, nodes.on_status = nodes.classes, _settle_status
        heaps = []
        for _, members in nodes.classes:
            order = list(members)
            # Many gateways that start together must not all begin with the same endpoint.
            order.sort(key=lambda _node: self._random())
            heaps.append(LoadHeap(order, self._turn))
        self._heaps = tuple(heaps)


def _rank(node: Node[Any]) -> int:
    return (node.load if node.is_available else node.load + _UNAVAILABLE) * _ORDERS + node.order


def _used(node: Node[Any]) -> None:
    if node.home is not None:
        node.home.used(node)


def _settle(node: Node[Any], _seconds: float, _failed: bool) -> None:
    if node.home is not None:
        node.home.settle(node)


def _settle_status(node: Node[Any]) -> None:
    if node.home is not None:
        node.home.settle(node)


def build_heap(config: HeapConfig, runtime: Runtime) -> HeapLeastLoaded:
    """The balancer of one bound name."""
    return HeapLeastLoaded(runtime.random.random, probation=config.enable_probation)


HEAP = Kind(id="heap", config=HeapConfig, build=build_heap)
