"""A second chance for a connect that takes long: the other address family of the same name is tried too, and who connects first serves.

Source: RFC 8305 (Happy Eyeballs), sections 5 and 8. Every address of a name is an endpoint of its own, chosen by the balancer; only where
the name has addresses of both families, and only while a request waits for a connect, does anything here run. What a lost race costs an
address is its breaker's business: after a few, requests begin elsewhere.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from meshgw.core.timers import Wheel

if TYPE_CHECKING:
    from meshgw.app.endpoint import Endpoint
    from meshgw.balance.nodes import Node, Nodes
    from meshgw.client.h2_pool import H2Pool
    from meshgw.client.pool import Pool

ATTEMPT_DELAY = 0.25
"""Seconds until the second attempt begins ("Connection Attempt Delay", RFC 8305 section 8)."""


class Race:
    """The races of one client. ``nodes`` is set by whoever made it, before any endpoint connects."""

    __slots__ = ("_is_mixed", "_seen", "_wheel", "nodes")

    nodes: Nodes[Endpoint]

    def __init__(self, wheel: Wheel) -> None:
        self._wheel = wheel
        self._seen = -1
        self._is_mixed = False

    def began(self, endpoint: Endpoint, tunnel: bool) -> None:
        """A connect to ``endpoint`` began, of the pool for tunnels or the other one."""
        if self._seen != self.nodes.updates:
            self._seen = self.nodes.updates
            self._is_mixed = len({_is_ipv6(node) for node in self.nodes.all()}) > 1
        if self._is_mixed:
            self._wheel.after(ATTEMPT_DELAY, partial(self._second, endpoint, tunnel))

    def _second(self, endpoint: Endpoint, tunnel: bool) -> None:
        """It may still be under way: begin another attempt then."""
        pool, node = endpoint.racing_pool(tunnel), endpoint.node
        if pool is None or node is None or not pool.waiting or not pool.connecting:
            return
        rivals = [other for other in self.nodes.all() if _is_ipv6(other) is not _is_ipv6(node) and other.is_available]
        if not rivals:
            return
        rival = min(rivals, key=lambda other: other.load)
        other_pool = rival.endpoint.racing_pool(tunnel)
        if other_pool is not None:
            decide = partial(_decide, pool, rival, other_pool)
            if other_pool.cached:
                decide()
            elif other_pool.has_room:
                other_pool.connect(decide)


def _is_ipv6(node: Node[Endpoint]) -> bool:
    return ":" in node.address.host


def _decide(pool: Pool | H2Pool, rival: Node[Endpoint], other_pool: Pool | H2Pool) -> None:
    """The rival has a connection: whoever still waits for the first attempt gets it. Without such a one it is kept."""
    if other_pool.cached:
        ex = pool.overtaken()
        if ex is not None:
            ex.walk.diverted(ex, rival)
