"""One endpoint as a request meets it: its pool, its breaker, and fail-fast, and how they tell the balancer.

Source: linkerd-config spec 10.3, 10.4 and 10.8; ARCHITECTURE.md section 2, steps 8 to 10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from meshgw.balance.nodes import ACCRUAL, FAIL_FAST, Node
from meshgw.client.pool import Pool, PoolStats
from meshgw.core.address import Address
from meshgw.core.exchange import Exchange
from meshgw.core.timers import Wheel
from meshgw.core.transport import Connection
from meshgw.filters.accrual import AccrualStats, Breaker, Policy
from meshgw.filters.classify import SUCCESS
from meshgw.filters.fail_fast import FailFast


class EndpointStats(PoolStats, AccrualStats, Protocol):
    """What the endpoints of one client count."""

    def marked_dead(self) -> None:
        """Fail-fast began to avoid an endpoint."""
        ...

    def marked_available(self) -> None:
        """Fail-fast found it again."""
        ...


MakePool = Callable[[Address, PoolStats], Pool]


class Endpoint:
    """What stands behind a balancer's node. ``acquire`` is its pool's, without a detour."""

    __slots__ = ("_breaker", "_fail_fast", "_node", "_stats", "acquire", "pool")

    def __init__(
        self,
        address: Address,
        *,
        make_pool: MakePool,
        policy: Policy | None,
        fail_fast: bool,
        stats: EndpointStats,
        wheel: Wheel,
        clock: Callable[[], float],
    ) -> None:
        """``policy`` None means that failures are not counted."""
        self._stats = stats
        self._node: Node[Any] | None = None
        self._breaker: Breaker | None = None
        self._fail_fast: FailFast | None = None
        if policy is not None:
            self._breaker = Breaker(policy, after=wheel.after, clock=clock, stats=stats, on_change=self._breaker_changed)
        self.pool = make_pool(address, self)
        self.acquire = self.pool.acquire
        if fail_fast:
            self._fail_fast = FailFast(after=wheel.after, reconnect=self.pool.connect, on_change=self._fail_fast_changed)

    # --- the balancer (balance.nodes.Endpoint)

    def attach(self, node: Node[Any]) -> None:
        """Tell ``node`` from now on when a request has no chance here."""
        self._node = node
        self.pool.attach(node)

    def retire(self) -> None:
        """The address is gone: finish what is under way."""
        self._stop()
        self.pool.retire()

    def revive(self) -> None:
        """The address is back."""
        self.pool.revive()

    def rediscovered(self) -> None:
        """Discovery told of a change: a dead endpoint may be probed at once, since a deployment often is the end of its illness."""
        if self._breaker is not None:
            self._breaker.rediscovered()

    def _breaker_changed(self, available: bool) -> None:
        if self._node is not None:
            self._node.mark(ACCRUAL, not available)

    def _fail_fast_changed(self, available: bool) -> None:
        if available:
            self._stats.marked_available()
        else:
            self._stats.marked_dead()
        if self._node is not None:
            self._node.mark(FAIL_FAST, not available)

    # --- attempts

    def begun(self) -> None:
        """A request is on its way here."""
        breaker = self._breaker
        if breaker is not None and not breaker.is_alive:
            breaker.begun()

    def ended(self, ex: Exchange) -> None:
        """The attempt of ``ex`` ended: its verdict counts; without one nobody knows how the endpoint did."""
        breaker = self._breaker
        if breaker is not None:
            verdict = ex.verdict
            if verdict is SUCCESS:
                breaker.succeeded()
            elif verdict is None:
                breaker.abandoned()
            else:
                breaker.failed()

    def forget(self, ex: Exchange) -> None:
        """``ex`` waits no longer for a connection."""
        self.pool.forget(ex)

    # --- connections (client.pool.PoolStats)

    def connected(self, seconds: float, connection: Connection) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._stats.connected(seconds, connection)
        if self._fail_fast is not None:
            self._fail_fast.connected()

    def connect_failed(self, seconds: float, reason: str) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._stats.connect_failed(seconds, reason)
        if self._fail_fast is not None:
            self._fail_fast.connect_failed()

    def disconnected(self, connection: Connection, requests: int) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._stats.disconnected(connection, requests)

    def waited(self) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._stats.waited()

    def refused(self) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._stats.refused()

    def _stop(self) -> None:
        if self._breaker is not None:
            self._breaker.stop()
        if self._fail_fast is not None:
            self._fail_fast.stop()

    @property
    def waiting(self) -> int:
        """Requests waiting for a connection."""
        return self.pool.waiting

    # --- what admin and error messages show

    def state(self) -> dict[str, Any]:
        """The endpoint's entry in ``/client_state.json``."""
        node = self._node
        state: dict[str, Any] = {"address": self.pool.name}
        if node is not None:
            state |= {"status": node.status.value, "load": node.load, "weight": node.address.weight}
            if node.holds:
                state["busyFor"] = node.holds
        state["connections"] = {"open": self.pool.open, "idle": self.pool.cached, "waiting": self.pool.waiting}
        if self._breaker is not None:
            state["failureAccrual"] = self._breaker.state()
        return state

    def summary(self) -> str:
        """Its address, and why it is avoided if it is."""
        holds = self._node.holds if self._node is not None else []
        if not holds:
            return self.pool.name
        text = ", ".join(holds)
        if self._breaker is not None and "secondsUntilProbe" in (known := self._breaker.state()):
            text += f", next probe in {known['secondsUntilProbe']:.1f} s"
        return f"{self.pool.name} ({text})"
