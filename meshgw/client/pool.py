"""One endpoint's connections: idle ones last in first out, limits, waiters, connects under way.

Source: linkerd-config spec 4.5 (hostConnectionPool), 10.8; DATAPATH.md design point 4. A connection that closes while idle leaves the pool at
once, so one that is taken is known to have been alive a moment ago.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import attrs

from meshgw.client.http import ClientParameters, HttpClient
from meshgw.core.address import Address
from meshgw.core.exchange import Exchange
from meshgw.core.reactor import Poller
from meshgw.core.timers import Timer, Wheel
from meshgw.core.transport import Connecting, Connection, SocketOptions
from meshgw.errors import ConnectFailed, TooManyWaiters


@attrs.frozen(kw_only=True)
class PoolLimits:
    """Limits of one endpoint's pool; None means none. Times are seconds."""

    min_size: int = 0
    max_size: int | None = None
    idle_time: float | None = None
    max_waiters: int | None = None
    connect_timeout: float = 1.0


class PoolStats(Protocol):
    """What the pool counts, for all endpoints of a bound name."""

    def connected(self, seconds: float) -> None:
        """A connection was established."""
        ...

    def connect_failed(self, seconds: float, reason: str) -> None:
        """A connection could not be established."""
        ...

    def disconnected(self) -> None:
        """An established connection ended."""
        ...

    def waited(self) -> None:
        """A request had to wait for a connection of a full pool."""
        ...

    def refused(self) -> None:
        """A request found pool and queue full."""
        ...


class Pool:
    """The connections to one address."""

    __slots__ = (
        "_address",
        "_clients",
        "_clock",
        "_connecting",
        "_idle",
        "_idle_since",
        "_limits",
        "_parameters",
        "_poller",
        "_retired",
        "_stats",
        "_sweep",
        "_waiters",
        "_wheel",
        "name",
    )

    def __init__(
        self,
        address: Address,
        *,
        limits: PoolLimits,
        parameters: ClientParameters,
        stats: PoolStats,
        poller: Poller,
        wheel: Wheel,
        clock: Callable[[], float],
    ) -> None:
        self._address, self._limits, self._parameters = address, limits, parameters
        self._stats, self._poller, self._wheel, self._clock = stats, poller, wheel, clock
        self.name = address.show()
        self._idle: list[HttpClient] = []
        self._idle_since: dict[HttpClient, float] = {}
        self._clients: set[HttpClient] = set()
        self._connecting: set[Connecting] = set()
        self._waiters: deque[Exchange] = deque()
        self._retired = False
        self._sweep: Timer | None = None

    # --- figures

    @property
    def size(self) -> int:
        """Connections established or under way."""
        return len(self._clients) + len(self._connecting)

    @property
    def open(self) -> int:
        """Connections established."""
        return len(self._clients)

    @property
    def cached(self) -> int:
        """Idle connections."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Requests waiting for a connection."""
        return len(self._waiters)

    @property
    def is_available(self) -> bool:
        """Whether a request sent here has a chance: not retired, and not all connections and waiting places taken."""
        limits = self._limits
        if self._retired:
            return False
        if self._idle or limits.max_size is None or self.size < limits.max_size:
            return True
        return limits.max_waiters is None or len(self._waiters) < limits.max_waiters

    # --- requests

    def acquire(self, ex: Exchange) -> HttpClient | None:
        """A connection for ``ex`` now, or None: then the walk's ``connected`` or ``connect_failed`` comes later.

        Raises :class:`TooManyWaiters`.
        """
        if self._idle:
            client = self._idle.pop()
            if self._idle_since:
                self._idle_since.pop(client, None)
            return client
        limits = self._limits
        if limits.max_size is not None and self.size >= limits.max_size:
            if limits.max_waiters is not None and len(self._waiters) - len(self._connecting) >= limits.max_waiters:
                self._stats.refused()
                raise TooManyWaiters(selected=self.name, waiting=len(self._waiters))
            self._stats.waited()
            self._waiters.append(ex)
            return None
        self._waiters.append(ex)
        self._connect()
        return None

    def forget(self, ex: Exchange) -> None:
        """``ex`` waits no longer."""
        try:
            self._waiters.remove(ex)
        except ValueError:
            pass  # it was served or failed in the meantime

    def _connect(self) -> None:
        began = self._clock()

        def done(connection: Connection | None, reason: str) -> None:
            self._connecting.discard(attempt)
            seconds = self._clock() - began
            if connection is None:
                self._stats.connect_failed(seconds, reason)
                self._fail_one(reason)
            else:
                self._stats.connected(seconds)
                client = HttpClient(connection, self._parameters, self, self.name)
                self._clients.add(client)
                connection.start()
                self.released(client)

        attempt = Connecting(self._poller, self._wheel, done)
        self._connecting.add(attempt)
        attempt.start(self._address.host, self._address.port, self._limits.connect_timeout, SocketOptions())

    def _fail_one(self, reason: str) -> None:
        if self._waiters:
            ex = self._waiters.popleft()
            ex.walk.connect_failed(ex, ConnectFailed(selected=self.name, reason=reason))
        self._replace()

    def _replace(self) -> None:
        """Waiters beyond the connects under way need another one if the limit allows."""
        limit = self._limits.max_size
        if len(self._waiters) > len(self._connecting) and not self._idle and (limit is None or self.size < limit):
            self._connect()

    # --- connections

    def released(self, client: HttpClient) -> None:
        """The connection is idle: serve the first waiter, or keep it."""
        if self._waiters:
            ex = self._waiters.popleft()
            ex.walk.connected(ex, client)
        elif self._retired:
            client.close_idle()
        else:
            self._idle.append(client)
            if self._limits.idle_time is not None:
                self._idle_since[client] = self._clock()
                if self._sweep is None:
                    self._sweep = self._wheel.after(self._limits.idle_time, self._close_idle)

    def closed(self, client: HttpClient) -> None:
        """The connection is gone."""
        if client in self._clients:
            self._clients.discard(client)
            self._stats.disconnected()
        self._idle_since.pop(client, None)
        if client in self._idle:
            self._idle.remove(client)
        if self._waiters:
            self._replace()

    def _close_idle(self) -> None:
        """Close connections above ``minSize`` that have been idle for long, the longest idle first."""
        self._sweep = None
        limit = self._limits.idle_time
        if limit is None:
            return
        now = self._clock()
        for client in self._idle[: max(0, len(self._clients) - self._limits.min_size)]:
            if now - self._idle_since.get(client, now) >= limit:
                client.close_idle()
        if self._idle:
            self._sweep = self._wheel.after(limit, self._close_idle)

    def retire(self) -> None:
        """Close idle connections and those to come; requests under way or waiting finish."""
        self._retired = True
        if self._sweep is not None:
            self._sweep.cancel()
        for client in list(self._idle):
            client.close_idle()
        if not self._waiters:
            for attempt in list(self._connecting):
                attempt.cancel()
            self._connecting.clear()
