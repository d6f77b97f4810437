"""One endpoint as a request meets it: its pool, its breaker, and fail-fast, and how they tell the balancer.

Source: linkerd-config spec 10.3, 10.4 and 10.8; ARCHITECTURE.md section 2, steps 8 to 10.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from meshgw.app.race import Race
from meshgw.balance.nodes import ACCRUAL, FAIL_FAST, Node
from meshgw.client.caller_pools import CallerPools
from meshgw.client.pool import Pool, PoolStats
from meshgw.core.address import Address
from meshgw.core.exchange import Exchange, Upstream
from meshgw.core.stream import Stream
from meshgw.core.timers import Wheel
from meshgw.errors import MeshError
from meshgw.filters.accrual import AccrualStats, Breaker, Policy
from meshgw.filters.classify import SUCCESS
from meshgw.filters.fail_fast import FailFast

if TYPE_CHECKING:
    from meshgw.client.h2_pool import H2Pool  # which takes memory that a gateway without HTTP/2 can do without


class EndpointStats(PoolStats, AccrualStats, Protocol):
    """What the endpoints of one client count."""

    def marked_dead(self) -> None:
        """Fail-fast began to avoid an endpoint."""
        ...

    def marked_available(self) -> None:
        """Fail-fast found it again."""
        ...


AnyPool: TypeAlias = "Pool | CallerPools | H2Pool"
MakePool = Callable[[Address, PoolStats], AnyPool]


class Endpoint:
    """What stands behind a balancer's node. ``acquire`` is its pool's, without a detour; ``breaker`` is None when failures do not count.

    Tunnels of CONNECT have a pool of their own, made with the first of them.
    """

    __slots__ = (
        *("_address", "_changed_at", "_clock", "_fail_fast", "_make_tunnels", "_race", "_stats", "_tunnels", "_unhealthy_since"),
        *("acquire", "breaker", "node", "pool"),
    )

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
        race: Race | None = None,
        make_tunnels: MakePool | None = None,
    ) -> None:
        """``policy`` None means that failures are not counted, ``make_tunnels`` None that there are no tunnels."""
        self._address, self._stats, self._race, self._make_tunnels = address, stats, race, make_tunnels
        self._clock, self._changed_at = clock, clock()
        self.node: Node[Any] | None = None
        """What it stands behind."""
        self._tunnels: AnyPool | None = None
        self.breaker: Breaker | None = None
        self._fail_fast: FailFast | None = None
        if policy is not None:
            self.breaker = Breaker(policy, after=wheel.after, clock=clock, stats=stats, on_change=self._breaker_changed)
        self.pool = make_pool(address, self)
        self._enter_race(self.pool, tunnel=False)
        self.acquire = self.pool.acquire if make_tunnels is None else self._acquire
        if fail_fast:
            self._fail_fast = FailFast(after=wheel.after, reconnect=self.pool.connect, on_change=self._fail_fast_changed)
            self._unhealthy_since = 0.0

    def _enter_race(self, pool: AnyPool, *, tunnel: bool) -> None:
        if self._race is not None and not isinstance(pool, CallerPools):
            pool.on_connect = partial(self._race.began, self, tunnel)

    def racing_pool(self, tunnel: bool) -> Pool | H2Pool | None:
        """The pool whose connects may race those of other endpoints (:class:`meshgw.app.race.Race`)."""
        pool = self._tunnel_pool() if tunnel else self.pool
        return None if isinstance(pool, CallerPools) else pool

    # --- the balancer (balance.nodes.Endpoint)

    def attach(self, node: Node[Any]) -> None:
        """Tell ``node`` from now on when a request has no chance here."""
        self.node = node
        self.pool.attach(node)

    def retire(self) -> None:
        """The address is gone: finish what is under way."""
        self._changed_at = self._clock()
        self._stop()
        self.pool.retire()
        if self._tunnels is not None:
            self._tunnels.retire()

    def revive(self) -> None:
        """The address is back."""
        self._changed_at = self._clock()
        self.pool.revive()
        if self._tunnels is not None:
            self._tunnels.revive()

    def rediscovered(self) -> None:
        """Discovery told of a change: a dead endpoint may be probed at once, since a deployment often is the end of its illness."""
        if self.breaker is not None:
            self.breaker.rediscovered()

    def _breaker_changed(self, available: bool) -> None:
        self._changed_at = self._clock()
        if self.node is not None:
            self.node.mark(ACCRUAL, not available)

    def _fail_fast_changed(self, available: bool) -> None:
        self._changed_at = self._clock()
        if available:
            self._stats.marked_available()
        else:
            self._stats.marked_dead()
            self._unhealthy_since = self._clock()
        if self.node is not None:
            self.node.mark(FAIL_FAST, not available)

    # --- attempts

    def ended(self, ex: Exchange) -> None:
        """The attempt of ``ex`` ended: its verdict counts; without one nobody knows how the endpoint did."""
        breaker = self.breaker
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
        if self._tunnels is not None:
            self._tunnels.forget(ex)

    def _acquire(self, ex: Exchange) -> Upstream | None:
        return self._tunnel_pool().acquire(ex) if ex.method == b"CONNECT" else self.pool.acquire(ex)

    def _tunnel_pool(self) -> AnyPool:
        pool = self._tunnels
        if pool is None:
            assert self._make_tunnels is not None
            pool = self._tunnels = self._make_tunnels(self._address, self)
            self._enter_race(pool, tunnel=True)
            if self.node is not None and self.node.is_retired:
                pool.retire()
        return pool

    # --- connections (client.pool.PoolStats)

    def connected(self, seconds: float, connection: Stream) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._stats.connected(seconds, connection)
        if self._fail_fast is not None:
            self._fail_fast.connected()

    def connect_failed(self, seconds: float, reason: str | MeshError) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._stats.connect_failed(seconds, reason)
        if self._fail_fast is not None:
            self._fail_fast.connect_failed()

    def connect_cancelled(self) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._stats.connect_cancelled()

    def disconnected(self, connection: Stream, requests: int) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._stats.disconnected(connection, requests)

    def waited(self) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._stats.waited()

    def refused(self) -> None:
        """See :class:`meshgw.client.pool.PoolStats`."""
        self._stats.refused()

    def missed(self) -> None:
        """See :class:`meshgw.client.pool.PoolStats`: a failure, although no request saw it."""
        self._stats.missed()
        breaker = self.breaker
        if breaker is not None:
            if breaker.is_available and not breaker.is_alive:
                breaker.begun()  # that request was the probe, and was gone before it told anything
            breaker.failed()

    def _stop(self) -> None:
        if self.breaker is not None:
            self.breaker.stop()
        if self._fail_fast is not None:
            self._fail_fast.stop()

    @property
    def tries(self) -> int:
        """How often fail-fast has tried in vain to connect since the endpoint could not be connected to."""
        return 0 if self._fail_fast is None else self._fail_fast.tries

    @property
    def unhealthy_for(self) -> float:
        """Seconds since then."""
        if self._fail_fast is None or self._fail_fast.is_available:
            return 0.0
        return self._clock() - self._unhealthy_since

    @property
    def waiting(self) -> int:
        """Requests waiting for a connection."""
        return self.pool.waiting

    # --- what admin and error messages show

    def state(self) -> dict[str, Any]:
        """The endpoint's entry in ``/client_state.json``."""
        node = self.node
        state: dict[str, Any] = {"address": self.pool.name}
        if node is not None:
            state |= {"status": node.status.value, "load": node.load, "weight": node.address.weight}
            if node.holds:
                state["busyFor"] = node.holds
        state["connections"] = {"open": self.pool.open, "idle": self.pool.cached, "waiting": self.pool.waiting}
        if hasattr(self.pool, "streams"):
            state["connections"]["streams"] = self.pool.streams
        if self._tunnels is not None:
            state["tunnels"] = self._tunnels.open - self._tunnels.cached
        if self.breaker is not None:
            state["failureAccrual"] = self.breaker.state()
        state["secondsSinceChange"] = round(self._clock() - self._changed_at, 3)
        return state

    def summary(self) -> str:
        """Its address, and why it is avoided if it is."""
        holds = self.node.holds if self.node is not None else []
        if not holds:
            return self.pool.name
        text = ", ".join(holds)
        if self.breaker is not None and "secondsUntilProbe" in (known := self.breaker.state()):
            text += f", next probe in {known['secondsUntilProbe']:.1f} s"
        return f"{self.pool.name} ({text})"
