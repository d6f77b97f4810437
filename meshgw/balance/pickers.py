"""Balancers: the choice of a node, pure over a snapshot of nodes and injected randomness.

Source: linkerd-config spec 4.6. P2C: of two random distinct nodes the one with fewer requests under way; both unavailable, draw again up to
``maxEffort`` times and then take what was drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import attrs

from meshgw.balance.nodes import Node, Nodes
from meshgw.config.document import at_least, option
from meshgw.kinds import Kind, Runtime


@attrs.frozen(kw_only=True)
class P2cConfig:
    """Power of two choices, least loaded: two random endpoints are compared, the one with fewer requests under way is used."""

    max_effort: int = option(
        default=5, doc="How often two endpoints are drawn again while both are unavailable (Finagle's 5).", check=at_least(1)
    )


class P2cLeastLoaded:
    """Picks in constant time whatever the number of nodes."""

    __slots__ = ("_max_effort", "_random", "exhausted")

    def __init__(self, random: Callable[[], float], max_effort: int = 5) -> None:
        """``random`` gives numbers in [0, 1)."""
        self._random, self._max_effort = random, max_effort
        self.exhausted = 0

    def pick(self, nodes: Nodes) -> Node | None:  # type: ignore[type-arg]  # works for any endpoint
        """The node to use, or None when there are no nodes."""
        classes = nodes.classes
        if len(classes) == 1:
            members = classes[0][1]
        elif not classes:
            return None
        else:
            members = self._class(classes)
        count = len(members)
        if count == 1:
            return members[0]
        random = self._random
        node = members[0]
        for _ in range(self._max_effort):
            first = int(random() * count)
            second = int(random() * (count - 1))
            if second >= first:
                second += 1
            node, other = members[first], members[second]
            if other.load < node.load:
                node, other = other, node
            if node.endpoint.is_available:
                return node
            if other.endpoint.is_available:
                return other
        self.exhausted += 1
        return node

    def _class(self, classes: tuple[tuple[float, tuple[Node, ...]], ...]) -> tuple[Node, ...]:  # type: ignore[type-arg]  # as above
        """A weight class, drawn by its share."""
        at = self._random()
        for share, members in classes:
            at -= share
            if at < 0:
                return members
        return classes[-1][1]


def build_p2c(config: P2cConfig, runtime: Runtime) -> P2cLeastLoaded:
    """The balancer of one bound name."""
    rng: Random = runtime.random
    return P2cLeastLoaded(rng.random, config.max_effort)


P2C = Kind(id="p2c", config=P2cConfig, build=build_p2c)
