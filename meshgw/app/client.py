"""One client: a bound name's live addresses, its balancer and the pools of its endpoints, with their metrics.

Source: linkerd-config spec 4.5, 4.6 and 9.9 (client scope). Shared by all routes and residuals that lead to the same bound id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshgw.app.endpoint import Endpoint
from meshgw.app.traffic import Traffic
from meshgw.balance.nodes import Node, Nodes, Picker
from meshgw.core.address import Addr, Address, Replicas
from meshgw.core.exchange import Exchange
from meshgw.core.live import Live, Observation, Ok, Pending, State
from meshgw.core.stream import Stream
from meshgw.errors import MeshError, NamerError, NoEndpoint
from meshgw.filters.budget import RetryBudget
from meshgw.naming.path import Path
from meshgw.telemetry.metrics import Metrics


class BoundClient:
    """Endpoints of one bound name. ``error`` is set while its addresses failed before any was known; ``is_pending`` while none are.

    ``pick``, ``on_begin`` and ``on_end`` are the balancer's, without a detour.
    """

    def __init__(
        self,
        id: Path,
        *,
        picker: Picker,
        make_endpoint: Callable[[Address, ClientMetrics], Endpoint],
        requeue_budget: RetryBudget,
        metrics: Metrics,
        clock: Callable[[], float],
        resume: Callable[[list[Exchange]], None],
        fail_fast: bool = False,
    ) -> None:
        self.id, self.metrics = id, metrics
        self.on_authority: Callable[[BoundClient], None] | None = None
        """Told when ``authority`` has changed, before those who wait are resumed."""
        self.label = id.show()
        self._resume = resume
        self._fail_fast = fail_fast
        self.stats = ClientMetrics(metrics, clock, fail_fast=fail_fast)
        self.outcomes = metrics.outcomes()
        self.nodes: Nodes[Endpoint] = Nodes(lambda address: make_endpoint(address, self.stats), probation=picker.probation)
        self._picker, self.budget = picker, requeue_budget
        self.pick, self.on_begin, self.on_end = picker.pick, picker.on_begin, picker.on_end
        self.is_pending = True
        self.exists = True
        self.error: MeshError | None = None
        self.stale: Exception | None = None
        self.waiting_for = ""
        self.authority: bytes | None = None
        self.waiters: list[Exchange] = []
        self._clock, self._changed_at = clock, clock()
        self._observation: Observation | None = None
        self._addr: Live[Addr] | None = None
        self._gauges()

    def may_requeue(self, so_far: int) -> bool:
        """Whether a request that was requeued ``so_far`` times may be once more; the budget is charged (spec 10.2)."""
        if so_far and so_far >= self.budget.request_limit:
            self.stats.limited()
            return False
        if self.budget.try_withdraw():
            return True
        self.stats.exhausted()
        return False

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
            self.waiting_for = state.waiting_for
            return
        self.error = self.stale = None
        changed = False
        if isinstance(state, Ok):
            self.stale = state.error
            self.exists = isinstance(state.value, Replicas)
            if isinstance(state.value, Replicas):
                self._take_authority(state.value.meta.get("authority"))
                changed = self.nodes.update(state.value.addresses)
            else:
                self.nodes.update(())
        else:
            error = state.error
            self.error = error if isinstance(error, MeshError) else NamerError(detail=str(error) or type(error).__name__)
        was_pending, self.is_pending = self.is_pending, False
        if changed or was_pending:
            self._changed_at = self._clock()
        if changed:  # a deployment often is the end of an endpoint's illness
            for node in self.nodes.all():
                if not node.is_available:
                    node.endpoint.rediscovered()
        waiters, self.waiters = self.waiters, []
        if waiters:
            self._resume(waiters)

    def _take_authority(self, said: object) -> None:
        before, self.authority = self.authority, said.encode() if isinstance(said, str) else None
        if self.authority != before and self.on_authority is not None:
            self.on_authority(self)

    def state(self) -> dict[str, Any]:
        """The entry in ``/client_state.json``."""
        if self.error is not None:
            text = f"Failed: {self.error}"
        elif self.is_pending:
            text = "Pending"
        else:
            text = "bound" if self.exists else "Neg"
        nodes = self.nodes.all()
        state: dict[str, Any] = {
            "state": text,
            "addresses": [node.address.show() for node in nodes],
            "endpoints": [node.endpoint.state() for node in (*nodes, *self.nodes.leaving())],
            "secondsSinceChange": round(self._clock() - self._changed_at, 3),
        }
        if self.stale is not None:
            state["stale"] = str(self.stale)
        if self.is_pending and self.waiting_for:
            state["waitingFor"] = self.waiting_for
        return state

    def no_endpoint(self, service: str) -> NoEndpoint:
        """The error of a request that none of the endpoints can take."""
        return NoEndpoint(service=service, bound=self.label, stale="" if self.stale is None else str(self.stale))

    def close(self) -> None:
        """Stop following; connections under way finish, idle ones close; the metrics are pruned."""
        if self._observation is not None:
            self._observation.close()
        self.nodes.close()
        self.metrics.prune()

    def _gauges(self) -> None:
        nodes, metrics = self.nodes, self.metrics

        def total(figure: Callable[[Node[Endpoint]], float]) -> Callable[[], float]:
            return lambda: float(sum(figure(node) for node in nodes.all()))

        balancer = metrics.scope("loadbalancer")
        # several processes see the same endpoints, so that their numbers do not add up
        balancer.gauge("size", function=lambda: float(len(nodes)), most=True)
        balancer.gauge("available", function=total(lambda node: node.is_available), most=True)
        balancer.gauge("busy", function=total(lambda node: not node.is_available), most=True)
        balancer.gauge("closed", function=lambda: float(len(nodes.leaving())), most=True)
        balancer.gauge("load", function=total(lambda node: node.load))
        balancer.gauge("meanweight", function=lambda: sum(node.address.weight for node in nodes.all()) / (len(nodes) or 1), most=True)
        balancer.gauge(self._picker.algorithm, function=lambda: 1.0, most=True)
        balancer.follow("adds", function=lambda: nodes.adds)
        balancer.follow("removes", function=lambda: nodes.removes)
        balancer.follow("updates", function=lambda: nodes.updates)
        balancer.follow("rebuilds", function=lambda: nodes.rebuilds)
        balancer.follow("max_effort_exhausted", function=lambda: self._picker.exhausted)
        metrics.scope("retries").gauge("budget", function=lambda: float(self.budget.balance))
        metrics.gauge("available", function=total(lambda node: node.is_available), most=True)
        metrics.gauge("pool_size", function=total(lambda node: node.endpoint.pool.size))
        metrics.gauge("pool_cached", function=total(lambda node: node.endpoint.pool.cached))
        metrics.gauge("pool_waiters", function=total(lambda node: node.endpoint.pool.waiting))
        if self._fail_fast:
            avoided = metrics.scope("failfast")
            avoided.gauge("unhealthy_num_tries", function=total(lambda node: node.endpoint.tries))
            avoided.gauge("unhealthy_for_ms", function=total(lambda node: node.endpoint.unhealthy_for * 1000))


class ClientMetrics:
    """What all endpoints of one client count (``app.endpoint.EndpointStats``)."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float], *, fail_fast: bool) -> None:
        """``metrics`` is the client's scope; ``fail_fast`` tells whether there is such a thing."""
        self._traffic = Traffic(metrics, clock)
        self._connect_ms = metrics.histogram("connect_latency_ms")
        self._failed_ms = metrics.histogram("failed_connect_latency_ms")
        self._cancelled = metrics.counter("cancelled_connects")
        creation = metrics.scope("service_creation")
        self._failed = creation.counter("failures")
        self._failures = creation.scope("failures")
        self.acquisition = creation.histogram("service_acquisition_latency_ms")
        """How long requests wait for their connection; the zeros of those that do not are added by :class:`AttemptStats`."""
        self.dtab_sizes = metrics.histogram("dtab", "size")
        self._waited = metrics.counter("pool_num_waited")
        self._refused = metrics.counter("pool_num_too_many_waiters")
        self._missed = metrics.counter("service_creation", "overtaken")
        retries = metrics.scope("retries")
        self._requeues, self._exhausted = retries.counter("requeues"), retries.counter("budget_exhausted")
        self._limited, self._not_open = retries.counter("request_limit"), retries.counter("not_open")
        self._not_replayable = retries.counter("cannot_retry")
        self.requeues_per_request = retries.histogram("requeues_per_request")
        accrual = metrics.scope("failure_accrual")
        self._removals, self._revivals = accrual.counter("removals"), accrual.counter("revivals")
        self._probes, self._removed_for = accrual.counter("probes"), accrual.counter("removed_for_ms")
        if fail_fast:
            avoided = metrics.scope("failfast")
            self._marked_dead, self._marked_available = avoided.counter("marked_dead"), avoided.counter("marked_available")

    def connected(self, seconds: float, connection: Stream) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._traffic.opened(connection)
        self._connect_ms.add(seconds * 1000)

    def connect_failed(self, seconds: float, reason: str | MeshError) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._fail("ConnectFailed" if isinstance(reason, str) else type(reason).__name__)
        self._failed_ms.add(seconds * 1000)

    def _fail(self, exception_name: str) -> None:
        """A connection was not to be had."""
        self._failed.incr()
        self._failures.counter(exception_name).incr()

    def connect_cancelled(self) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._cancelled.incr()

    def acquired(self, seconds: float) -> None:
        """A request that had to wait got its connection."""
        self.acquisition.add_for_zero(seconds * 1000)

    def disconnected(self, connection: Stream, requests: int) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._traffic.closed(connection, requests)

    def waited(self) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._waited.incr()

    def refused(self) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._refused.incr()
        self._fail("TooManyWaiters")

    def missed(self) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._missed.incr()

    def requeued(self) -> None:
        """A request goes to another endpoint."""
        self._requeues.incr()

    def limited(self) -> None:
        """A request has used up its share of the requeue budget."""
        self._limited.incr()

    def not_open(self) -> None:
        """No connection could be had, and there is no endpoint left to try."""
        self._not_open.incr()

    def not_replayable(self) -> None:
        """What was sent and not handled cannot be sent again, since its body is gone."""
        self._not_replayable.incr()

    def exhausted(self) -> None:
        """The requeue budget is used up."""
        self._exhausted.incr()

    def removed(self) -> None:
        """See :class:`meshgw.filters.accrual.AccrualStats`."""
        self._removals.incr()

    def revived(self) -> None:
        """See :class:`meshgw.filters.accrual.AccrualStats`."""
        self._revivals.incr()

    def probed(self) -> None:
        """See :class:`meshgw.filters.accrual.AccrualStats`."""
        self._probes.incr()

    def removed_for(self, seconds: float) -> None:
        """See :class:`meshgw.filters.accrual.AccrualStats`."""
        self._removed_for.incr(int(seconds * 1000))

    def marked_dead(self) -> None:
        """See :class:`meshgw.app.endpoint.EndpointStats`."""
        self._marked_dead.incr()

    def marked_available(self) -> None:
        """See :class:`meshgw.app.endpoint.EndpointStats`."""
        self._marked_available.incr()
