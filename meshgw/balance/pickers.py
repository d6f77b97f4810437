"""What balancers have in common, and the default one: the less loaded of two random nodes (P2C).

Source: linkerd-config spec 4.6. A pick is pure over a snapshot of the nodes and injected randomness. When both nodes drawn are
unavailable, two more are drawn, up to ``maxEffort`` times in all; then one of the last pair is used. Where endpoints differ in weight,
every draw chooses a weight class first, by its share of the traffic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import attrs

from meshgw.balance.nodes import E, Node, Nodes, OnBegin, OnEnd
from meshgw.config.document import at_least, option
from meshgw.kinds import Kind, Runtime

Random = Callable[[], float]
"""Gives numbers in [0, 1)."""

Classes = tuple[tuple[float, tuple[Node[E], ...]], ...]
"""Weight classes as :class:`meshgw.balance.nodes.Nodes` has them."""

MAX_EFFORT = 5


@attrs.frozen(kw_only=True)
class BalancerConfig:
    """What all balancers have in common."""

    enable_probation: bool = option(default=False, doc="Keep using an endpoint that was removed from discovery while it stays healthy.")


@attrs.frozen(kw_only=True)
class DrawingConfig(BalancerConfig):
    """What balancers have in common that draw again when they meet an unavailable endpoint."""

    max_effort: int = option(
        default=MAX_EFFORT,
        doc="How often endpoints are drawn while only unavailable ones are met; then one of those is used (Finagle's 5).",
        check=at_least(1),
    )


@attrs.frozen(kw_only=True)
class P2cConfig(DrawingConfig):
    """Power of two choices, least loaded: two random endpoints are compared, the one with fewer requests under way is used."""


class Balancer:
    """The attributes of a picker; see :class:`meshgw.balance.nodes.Picker`."""

    __slots__ = ("_max_effort", "_random", "exhausted", "on_begin", "on_end", "probation")
    algorithm: ClassVar[str]

    def __init__(self, random: Random, max_effort: int = MAX_EFFORT, *, probation: bool = False) -> None:
        self._random, self._max_effort, self.probation = random, max_effort, probation
        self.exhausted = 0
        self.on_begin: OnBegin | None = None
        self.on_end: OnEnd | None = None


class TwoChoices(Balancer):
    """Draws two nodes and takes the better: constant time whatever the number of nodes. A subclass tells which is better."""

    __slots__ = ()

    def pick(self, nodes: Nodes[E]) -> Node[E] | None:
        """The node to use, or None when there are no nodes."""
        return self._draw(nodes.classes) if nodes.classes else None

    def _prefer(self, one: Node[E], other: Node[E]) -> bool:
        """Whether ``one`` should be used rather than ``other``."""
        raise NotImplementedError  # pragma: no cover - abstract

    def _draw(self, classes: Classes[E]) -> Node[E]:
        random = self._random
        for _ in range(self._max_effort):
            members = classes[0][1] if len(classes) == 1 else weight_class(classes, random())
            count = len(members)
            first = int(random() * count)
            node = members[first]
            if count > 1:
                second = int(random() * (count - 1))
                other = members[second + 1 if second >= first else second]
                if self._prefer(other, node):
                    node, other = other, node
                if not node.is_available and other.is_available:
                    return other
            if node.is_available:
                return node
        self.exhausted += 1
        return node


class P2cLeastLoaded(TwoChoices):
    """Of two random distinct nodes, the one with fewer requests under way."""

    __slots__ = ()
    algorithm = "p2c"

    def pick(self, nodes: Nodes[E]) -> Node[E] | None:
        """The node to use, or None when there are no nodes. The first draw is written out: it settles nearly every request."""
        classes = nodes.classes
        if len(classes) == 1:
            members = classes[0][1]
            count = len(members)
            if count > 1:
                random = self._random
                first = int(random() * count)
                second = int(random() * (count - 1))
                if second >= first:
                    second += 1
                node, other = members[first], members[second]
                if other.load < node.load:
                    node = other
            else:
                node = members[0]
            if node.is_available:
                return node
        return self._draw(classes) if classes else None

    def _prefer(self, one: Node[E], other: Node[E]) -> bool:
        return one.load < other.load


def weight_class(classes: Classes[E], at: float) -> tuple[Node[E], ...]:
    """The members of the class that ``at``, a number in [0, 1), falls into."""
    for share, members in classes:
        at -= share
        if at < 0:
            return members
    return classes[-1][1]


def weight_of(members: tuple[Node[Any], ...]) -> float:
    """The weight that a class's members have in common; it tells the class again after an update."""
    return max(0.0, members[0].address.weight)


def build_p2c(config: P2cConfig, runtime: Runtime) -> P2cLeastLoaded:
    """The balancer of one bound name."""
    return P2cLeastLoaded(runtime.random.random, config.max_effort, probation=config.enable_probation)


P2C = Kind(id="p2c", config=P2cConfig, build=build_p2c)
