"""Connections to one endpoint that begin with a PROXY header and so belong to one caller each: a small pool per caller's connection.

Source: "The PROXY protocol, versions 1 & 2" (haproxy.org); linkerd-config spec 4.5 for the limits, which hold for all callers together.
Nothing here runs, and no other pool is slower, unless ``proxyProtocol`` is set.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs

from meshgw.client.http import HttpClient
from meshgw.client.pool import Marked, Pool, PoolLimits, PoolStats
from meshgw.core.address import Address
from meshgw.core.exchange import Exchange
from meshgw.errors import MeshError, TooManyWaiters
from meshgw.wire.proxy_protocol import Endpoint, write_header

IDLE_SECONDS = 5.0
"""How long a connection waits for the next request of its caller, unless the configuration allows less; at most twice that."""
MOST_IDLE = 1024
"""Idle connections to one endpoint; the longest idle makes room."""

Caller = tuple[Endpoint, Endpoint]
"""A caller's connection: its address, and ours as it sees it. The header says both."""


class CallerPool(Pool):
    """The connections of one caller. Who makes it passes it on to :class:`CallerPools`, which sets ``owner`` and ``caller``."""

    __slots__ = ("caller", "owner")

    owner: CallerPools
    caller: Caller | None

    def released(self, client: HttpClient) -> None:
        """See :class:`meshgw.client.http.Pool`."""
        super().released(client)
        if client in self._idle:
            self.owner.went_idle(client)

    def closed(self, client: HttpClient) -> None:
        """See :class:`meshgw.client.http.Pool`."""
        super().closed(client)
        self.owner.ended(self, client)

    def connect_failed(self, reason: str | MeshError) -> None:
        """See :class:`meshgw.client.pool.Pool`."""
        super().connect_failed(reason)
        self.owner.ended(self, None)


MakePool = Callable[[PoolLimits, PoolStats, bytes], CallerPool]
"""Makes a pool whose connections begin with these bytes."""


class CallerPools:
    """Stands in for one endpoint's pool (see :class:`meshgw.client.pool.Pool`); ``version`` is that of the header."""

    __slots__ = (
        *(
            "_idle",
            "_limits",
            "_make",
            "_most_idle",
            "_node",
            "_parts",
            "_parts_limits",
            "_retired",
            "_stats",
            "_version",
            "_waiters",
            "_was_full",
        ),
        "name",
    )

    def __init__(
        self, address: Address, *, version: int, limits: PoolLimits, stats: PoolStats, make: MakePool, most_idle: int = MOST_IDLE
    ) -> None:
        self.name = address.show()
        self._version, self._limits, self._stats, self._make, self._most_idle = version, limits, stats, make, most_idle
        idle = min(time for time in (IDLE_SECONDS, limits.idle_time, limits.session_idle) if time is not None)
        # the number of connections is watched here, for all callers together
        self._parts_limits = attrs.evolve(limits, min_size=0, max_size=None, max_waiters=None, idle_time=None, session_idle=idle)
        self._parts: dict[Caller | None, CallerPool] = {}
        self._idle: dict[HttpClient, None] = {}
        """Idle connections, the longest idle first."""
        self._waiters: deque[Exchange] = deque()
        """Who waits for room; there are no idle connections then."""
        self._retired = self._was_full = False
        self._node: Marked | None = None

    # --- figures

    @property
    def size(self) -> int:
        """Connections established or under way."""
        return sum(part.size for part in self._parts.values())

    @property
    def open(self) -> int:
        """Connections established."""
        return sum(part.open for part in self._parts.values())

    @property
    def cached(self) -> int:
        """Idle connections."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Requests waiting for a connection."""
        return len(self._waiters) + sum(part.waiting for part in self._parts.values())

    @property
    def callers(self) -> int:
        """Callers that have connections, or wait for one."""
        return len(self._parts)

    @property
    def is_available(self) -> bool:
        """Whether a request sent here has a chance: not retired, and not all connections and waiting places taken."""
        if self._retired:
            return False
        most = self._limits.max_waiters
        return bool(self._idle) or self._has_room or most is None or len(self._waiters) < most

    @property
    def _has_room(self) -> bool:
        return self._limits.max_size is None or self.size < self._limits.max_size

    def attach(self, node: Marked) -> None:
        """Tell ``node`` from now on whether all connections and waiting places are taken; only a pool with both limits can be full."""
        if self._limits.max_size is not None and self._limits.max_waiters is not None:
            self._node = node

    def _tell(self) -> None:
        if self._node is not None:
            is_full = not self._retired and not self.is_available
            if is_full is not self._was_full:
                self._was_full = is_full
                self._node.mark("pool", is_full)

    # --- requests

    def acquire(self, ex: Exchange) -> HttpClient | None:
        """A connection of the caller of ``ex`` now, or None: then the walk's ``connected`` or ``connect_failed`` comes later.

        Raises :class:`TooManyWaiters`.
        """
        part = self._parts.get((ex.peer, ex.local))
        if (part is None or not part.cached) and not self._has_room:
            if self._idle:
                self._close_longest_idle()
            else:
                self._queue(ex)
                return None
        return self._take(ex)

    def _queue(self, ex: Exchange) -> None:
        most = self._limits.max_waiters
        if most is not None and len(self._waiters) >= most:
            self._stats.refused()
            raise TooManyWaiters(selected=self.name, waiting=len(self._waiters))
        self._stats.waited()
        self._waiters.append(ex)
        self._tell()

    def _take(self, ex: Exchange) -> HttpClient | None:
        client = self._part((ex.peer, ex.local)).acquire(ex)
        if client is not None:
            self._idle.pop(client, None)
        self._tell()
        return client

    def _part(self, caller: Caller | None) -> CallerPool:
        part = self._parts.get(caller)
        if part is None:
            source, destination = caller or (None, None)
            part = self._make(self._parts_limits, self._stats, write_header(self._version, source, destination))
            part.owner, part.caller = self, caller
            if self._retired:
                part.retire()
            self._parts[caller] = part
        return part

    def forget(self, ex: Exchange) -> None:
        """``ex`` waits no longer."""
        if ex in self._waiters:
            self._waiters.remove(ex)
        else:
            part = self._parts.get((ex.peer, ex.local))
            if part is not None:
                part.forget(ex)
        self._tell()

    def connect(self) -> None:
        """Open one more connection that nobody waits for, to see whether it can be done; its header says that it is ours."""
        self._part(None).connect()

    # --- connections

    def went_idle(self, client: HttpClient) -> None:
        """A caller's connection waits for its next request; room for another caller's if somebody waits for that."""
        self._idle[client] = None
        if self._waiters or len(self._idle) > self._most_idle:
            self._close_longest_idle()
        self._tell()

    def ended(self, part: CallerPool, client: HttpClient | None) -> None:
        """A connection is gone, or did not come about."""
        if client is not None:
            self._idle.pop(client, None)
        if not part.size and not part.waiting and self._parts.get(part.caller) is part:
            del self._parts[part.caller]
            part.retire()  # its timer ends with it
        while self._waiters and self._has_room:
            ex = self._waiters.popleft()
            found = self._take(ex)
            if found is not None:
                ex.walk.connected(ex, found)
        self._tell()

    def _close_longest_idle(self) -> None:
        next(iter(self._idle)).close_idle()

    def retire(self) -> None:
        """Close idle connections and those to come; requests under way or waiting finish."""
        self._retired = True
        for part in list(self._parts.values()):
            part.retire()
        self._parts = {caller: part for caller, part in self._parts.items() if part.size or part.waiting}

    def revive(self) -> None:
        """The address is back: keep connections again."""
        self._retired = False
        for part in self._parts.values():
            part.revive()
        self._tell()
