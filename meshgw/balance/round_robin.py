"""Round robin: nodes take turns.

Source: linkerd-config spec 4.6. Where endpoints differ in weight, the weight classes take turns too, in proportion to their share: the
split is exact over any long run and spread evenly within it (smooth weighted round robin). An unavailable node is passed over, up to
``maxEffort`` nodes for one request.
"""

from __future__ import annotations

from typing import Any

import attrs

from meshgw.balance.nodes import E, Node, Nodes
from meshgw.balance.pickers import MAX_EFFORT, Balancer, DrawingConfig, Random, weight_of
from meshgw.kinds import Kind, Runtime


@attrs.frozen(kw_only=True)
class RoundRobinConfig(DrawingConfig):
    """Round robin: endpoints are used one after the other, whatever their load."""


class _Circle:
    """One weight class: whose turn it is, and what it is owed."""

    __slots__ = ("credit", "cursor", "members", "share")

    def __init__(self, share: float, members: tuple[Node[Any], ...], cursor: int) -> None:
        self.share, self.members, self.cursor = share, members, cursor
        self.credit = 0.0

    def next(self) -> Node[Any]:
        """The node whose turn it is."""
        cursor = self.cursor
        if cursor >= len(self.members):
            cursor = 0
        self.cursor = cursor + 1
        return self.members[cursor]


class RoundRobin(Balancer):
    """Picks in turn."""

    __slots__ = ("_circles", "_classes")
    algorithm = "round_robin"

    def __init__(self, random: Random, max_effort: int = MAX_EFFORT, *, probation: bool = False) -> None:
        super().__init__(random, max_effort, probation=probation)
        self._classes: Any = ()
        self._circles: tuple[_Circle, ...] = ()

    def pick(self, nodes: Nodes[E]) -> Node[E] | None:
        """The node to use, or None when there are no nodes."""
        if nodes.classes is not self._classes:
            self._rebuild(nodes)
        circles = self._circles
        if not circles:
            return None
        for _ in range(self._max_effort):
            node: Node[E] = (circles[0] if len(circles) == 1 else self._circle()).next()
            if node.is_available:
                return node
        self.exhausted += 1
        return node

    def _circle(self) -> _Circle:
        """The class that is owed most, after each was given its share."""
        most = self._circles[0]
        for circle in self._circles:
            circle.credit += circle.share
            if circle.credit > most.credit:
                most = circle
        most.credit -= 1.0
        return most

    def _rebuild(self, nodes: Nodes[E]) -> None:
        """The set changed: a class goes on where it was; a new one begins anywhere, so that gateways do not march in step."""
        cursors = {weight_of(circle.members): circle.cursor for circle in self._circles}
        self._classes = nodes.classes
        self._circles = tuple(
            _Circle(share, members, cursors.get(weight_of(members), int(self._random() * len(members)))) for share, members in nodes.classes
        )


def build_round_robin(config: RoundRobinConfig, runtime: Runtime) -> RoundRobin:
    """The balancer of one bound name."""
    return RoundRobin(runtime.random.random, config.max_effort, probation=config.enable_probation)


ROUND_ROBIN = Kind(id="roundRobin", config=RoundRobinConfig, build=build_round_robin)
