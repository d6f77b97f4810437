"""One client: a bound name's live addresses, its balancer and the pools of its endpoints, with their metrics.

Source: linkerd-config spec 4.5, 4.6 and 9.9 (client scope). Shared by all routes and residuals that lead to the same bound id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshgw.balance.nodes import Node, Nodes
from meshgw.balance.pickers import P2cLeastLoaded
from meshgw.client.pool import Pool
from meshgw.core.address import Addr, Address, Replicas
from meshgw.core.exchange import Exchange
from meshgw.core.live import Live, Observation, Ok, Pending, State
from meshgw.errors import MeshError, NamerError
from meshgw.naming.path import Path
from meshgw.telemetry.metrics import Metrics


class BoundClient:
    """Endpoints of one bound name. ``error`` is set while its addresses failed before any was known; ``is_pending`` while none are."""

    def __init__(
        self,
        id: Path,
        *,
        picker: P2cLeastLoaded,
        make_pool: Callable[[Address, ClientMetrics], Pool],
        metrics: Metrics,
        resume: Callable[[list[Exchange]], None],
    ) -> None:
        self.id, self.metrics = id, metrics
        self.label = id.show()
        self._resume = resume
        self.stats = ClientMetrics(metrics)
        self.outcomes = metrics.outcomes()
        self.nodes: Nodes[Pool] = Nodes(lambda address: make_pool(address, self.stats))
        self._picker = picker
        self.is_pending = True
        self.exists = True
        self.error: MeshError | None = None
        self.stale: Exception | None = None
        self.authority: bytes | None = None
        self.waiters: list[Exchange] = []
        self._observation: Observation | None = None
        self._addr: Live[Addr] | None = None
        self._gauges()

    def follow(self, addr: Live[Addr]) -> None:
        """Follow these addresses until :meth:`close`, instead of those before: the latest binding of a name knows them best."""
        if addr is self._addr:
            return
        before, self._addr = self._observation, addr
        self._observation = addr.observe(self._changed)
        if before is not None:
            before.close()

    def _changed(self, state: State[Addr]) -> None:
        if isinstance(state, Pending):
            return
        self.error = self.stale = None
        if isinstance(state, Ok):
            self.stale = state.error
            self.exists = isinstance(state.value, Replicas)
            if isinstance(state.value, Replicas):
                authority = state.value.meta.get("authority")
                self.authority = authority.encode() if isinstance(authority, str) else None
                self.nodes.update(state.value.addresses)
            else:
                self.nodes.update(())
        else:
            error = state.error
            self.error = error if isinstance(error, MeshError) else NamerError(detail=str(error) or type(error).__name__)
        self.is_pending = False
        waiters, self.waiters = self.waiters, []
        if waiters:
            self._resume(waiters)

    def pick(self) -> Node[Pool] | None:
        """The endpoint for the next request; None when there is none."""
        return self._picker.pick(self.nodes)

    def state(self) -> dict[str, Any]:
        """The entry in ``/client_state.json``."""
        if self.error is not None:
            text = f"Failed: {self.error}"
        elif self.is_pending:
            text = "Pending"
        else:
            text = "bound" if self.exists else "Neg"
        state: dict[str, Any] = {"state": text, "addresses": [node.address.show() for node in self.nodes.all()]}
        if self.stale is not None:
            state["stale"] = str(self.stale)
        return state

    def close(self) -> None:
        """Stop following; connections under way finish, idle ones close; the metrics are pruned."""
        if self._observation is not None:
            self._observation.close()
        self.nodes.close()
        self.metrics.prune()

    def _gauges(self) -> None:
        nodes, metrics = self.nodes, self.metrics

        def total(figure: Callable[[Node[Pool]], float]) -> Callable[[], float]:
            return lambda: float(sum(figure(node) for node in nodes.all()))

        balancer = metrics.scope("loadbalancer")
        balancer.gauge("size", function=lambda: float(len(nodes)))
        balancer.gauge("available", function=total(lambda node: node.endpoint.is_available))
        balancer.gauge("busy", function=total(lambda node: not node.endpoint.is_available))
        balancer.gauge("closed", function=lambda: 0.0)
        balancer.gauge("load", function=total(lambda node: node.load))
        balancer.gauge("meanweight", function=lambda: sum(node.address.weight for node in nodes.all()) / (len(nodes) or 1))
        balancer.gauge("p2c", function=lambda: 1.0)
        balancer.gauge("adds", function=lambda: float(nodes.adds))
        balancer.gauge("removes", function=lambda: float(nodes.removes))
        balancer.gauge("updates", function=lambda: float(nodes.updates))
        balancer.gauge("max_effort_exhausted", function=lambda: float(self._picker.exhausted))
        metrics.gauge("available", function=total(lambda node: node.endpoint.is_available))
        metrics.gauge("connections", function=total(lambda node: node.endpoint.open))
        metrics.gauge("pool_size", function=total(lambda node: node.endpoint.size))
        metrics.gauge("pool_cached", function=total(lambda node: node.endpoint.cached))
        metrics.gauge("pool_waiters", function=total(lambda node: node.endpoint.waiting))


class ClientMetrics:
    """What all pools of one client count."""

    def __init__(self, metrics: Metrics) -> None:
        self._connects, self._closes = metrics.counter("connects"), metrics.counter("closes")
        self._connect_ms = metrics.histogram("connect_latency_ms")
        self._failed_ms = metrics.histogram("failed_connect_latency_ms")
        self._failed = metrics.counter("service_creation", "failures")
        self._waited = metrics.counter("pool_num_waited")
        self._refused = metrics.counter("pool_num_too_many_waiters")
        self.requeues = metrics.counter("retries", "requeues")

    def connected(self, seconds: float) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._connects.incr()
        self._connect_ms.add(seconds * 1000)

    def connect_failed(self, seconds: float, reason: str) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._failed.incr()
        self._failed_ms.add(seconds * 1000)

    def disconnected(self) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._closes.incr()

    def waited(self) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._waited.incr()

    def refused(self) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._refused.incr()
