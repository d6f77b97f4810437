"""One endpoint's connections: idle ones last in first out, limits, waiters, connects under way.

Source: linkerd-config spec 4.5 (hostConnectionPool), 10.8; DATAPATH.md design point 4. A connection that closes while idle leaves the
pool at once, so one that is taken is known to have been alive a moment ago.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import attrs

from meshgw.client.http import IDEMPOTENT, ClientParameters, HttpClient
from meshgw.core.address import Address
from meshgw.core.connecting import Connecting, Dial, Dialing
from meshgw.core.exchange import Exchange
from meshgw.core.reactor import Poller
from meshgw.core.stream import Stream
from meshgw.core.timers import Timer, Wheel
from meshgw.core.transport import SocketOptions
from meshgw.errors import ConnectFailed, MeshError, TooManyWaiters


@attrs.frozen(kw_only=True)
class PoolLimits:
    """Limits of one endpoint's pool; None means none. Times are seconds.

    ``idle_time`` closes idle connections above ``min_size``, ``session_idle`` all of them; ``session_life`` closes a connection of that
    age, after the answer if one is under way.
    """

    min_size: int = 0
    max_size: int | None = None
    idle_time: float | None = None
    session_idle: float | None = None
    session_life: float | None = None
    max_waiters: int | None = None
    connect_timeout: float = 1.0


class PoolStats(Protocol):
    """What the pool counts, for all endpoints of a bound name."""

    def connected(self, seconds: float, connection: Stream) -> None:
        """A connection was established."""
        ...

    def connect_failed(self, seconds: float, reason: str | MeshError) -> None:
        """A connection could not be established."""
        ...

    def connect_cancelled(self) -> None:
        """A connect was given up."""
        ...

    def disconnected(self, connection: Stream, requests: int) -> None:
        """An established connection ended, after so many requests."""
        ...

    def waited(self) -> None:
        """A request had to wait for a connection of a full pool."""
        ...

    def refused(self) -> None:
        """A request found pool and queue full."""
        ...

    def missed(self) -> None:
        """A connect failed whose request had been served elsewhere meanwhile, so that it counts nowhere else."""
        ...


class Marked(Protocol):
    """What a pool stands behind: a balancer's node."""

    def mark(self, cause: str, held: bool) -> None:
        """Whether a request has no chance there, for ``cause``."""
        ...


class Pool:
    """The connections to one address."""

    __slots__ = (
        "_address",
        "_clients",
        "_clock",
        "_connecting",
        "_dial",
        "_idle",
        "_idle_limit",
        "_is_simple",
        "_limits",
        "_make_client",
        "_node",
        "_overtaken",
        "_parameters",
        "_poller",
        "_prelude",
        "_retired",
        "_stats",
        "_sweep",
        "_waiters",
        "_was_full",
        "_wheel",
        *("name", "on_connect"),
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
        prelude: bytes = b"",
        dial: Dial | None = None,
        make_client: Callable[[Stream, ClientParameters, Pool, str], HttpClient] = HttpClient,
    ) -> None:
        """``prelude`` is what each connection begins with, before TLS; ``make_client`` gives its protocol, ``dial`` the way to connect."""
        self._dial: Dial = dial or partial(Connecting, poller, wheel)
        self._make_client = make_client
        self.on_connect: Callable[[], object] | None = None
        """Told when a connect begins."""
        self._overtaken = 0
        self._address, self._limits, self._parameters, self._prelude = address, limits, parameters, prelude
        self._stats, self._poller, self._wheel, self._clock = stats, poller, wheel, clock
        self.name = address.show()
        self._idle: list[HttpClient] = []
        self._clients: set[HttpClient] = set()
        self._connecting: set[Dialing] = set()
        self._waiters: deque[Exchange] = deque()
        self._retired = False
        self._sweep: Timer | None = None
        self._node: Marked | None = None
        self._was_full = False
        times = [time for time in (limits.idle_time, limits.session_idle, limits.session_life) if time is not None]
        self._idle_limit = min(times) if times else None
        self._is_simple = not times  # connections may come and go without a look at the time, or at who watches

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
    def connecting(self) -> int:
        """Connects under way."""
        return len(self._connecting)

    @property
    def has_room(self) -> bool:
        """Whether the limits allow one more connection."""
        return not self._retired and (self._limits.max_size is None or self.size < self._limits.max_size)

    @property
    def is_available(self) -> bool:
        """Whether a request sent here has a chance: not retired, and not all connections and waiting places taken."""
        limits = self._limits
        if self._retired:
            return False
        if self._idle or limits.max_size is None or self.size < limits.max_size:
            return True
        return limits.max_waiters is None or len(self._waiters) - len(self._connecting) < limits.max_waiters

    def attach(self, node: Marked) -> None:
        """Tell ``node`` from now on whether all connections and waiting places are taken; only a pool with both limits can be full."""
        if self._limits.max_size is not None and self._limits.max_waiters is not None:
            self._node = node
            self._is_simple = False

    def _tell(self) -> None:
        if self._node is not None:
            is_full = not self._retired and not self.is_available
            if is_full is not self._was_full:
                self._was_full = is_full
                self._node.mark("pool", is_full)

    # --- requests

    def acquire(self, ex: Exchange) -> HttpClient | None:
        """A connection for ``ex`` now, or None: then the walk's ``connected`` or ``connect_failed`` comes later.

        Raises :class:`TooManyWaiters`.
        """
        if self._idle and self._is_simple and not ex.length and ex.method in IDEMPOTENT:
            return self._idle.pop()
        return self._acquire(ex)

    def _acquire(self, ex: Exchange) -> HttpClient | None:
        limits = self._limits
        while self._idle:
            client = self._idle.pop()
            if self._limits.session_life is not None and self._is_old(client):  # the next sweep would have closed it
                client.close_idle()
                continue
            if (ex.length or ex.method not in IDEMPOTENT) and client.is_stale:  # what can't be sent twice must not meet a dead one
                client.close_idle()
                continue
            if self._node is not None and not self._idle:
                self._tell()
            return client
        if limits.max_size is not None and self.size >= limits.max_size:
            if limits.max_waiters is not None and len(self._waiters) - len(self._connecting) >= limits.max_waiters:
                self._stats.refused()
                raise TooManyWaiters(selected=self.name, waiting=len(self._waiters))
            self._stats.waited()
            self._waiters.append(ex)
            self._tell()
            return None
        self._waiters.append(ex)
        self._connect()
        self._tell()
        return None

    def forget(self, ex: Exchange) -> None:
        """``ex`` waits no longer."""
        try:
            self._waiters.remove(ex)
        except ValueError:
            pass  # it was served or failed in the meantime
        self._tell()

    def overtaken(self) -> Exchange | None:
        """The longest waiting request, which is to be served elsewhere; None without one. What becomes of its connect is told then."""
        if not self._waiters:
            return None
        self._overtaken += 1
        return self._waiters[0]

    def _end_overtaken(self, *, failed: bool) -> None:
        self._overtaken -= 1
        if failed and not self._waiters:
            self._stats.missed()

    def _connect(self, then: Callable[[], object] | None = None) -> None:
        began = self._clock()
        if self.on_connect is not None:
            self.on_connect()

        def done(connection: Stream | None, reason: str | MeshError) -> None:
            self._connecting.discard(attempt)
            self._tell()
            seconds = self._clock() - began
            if self._overtaken:
                self._end_overtaken(failed=connection is None)
            if connection is None:
                self._stats.connect_failed(seconds, reason)
                self.connect_failed(reason)
            else:
                self._stats.connected(seconds, connection)
                self.adopt(connection)
                if then is not None:
                    then()

        attempt = self._dial(done, self._prelude)
        self._connecting.add(attempt)
        attempt.start(self._address.host, self._address.port, self._limits.connect_timeout, SocketOptions())

    def adopt(self, connection: Stream) -> None:
        """Serve with an established connection."""
        client = self._make_client(connection, self._parameters, self, self.name)
        client.born = self._clock()
        self._clients.add(client)
        connection.start()
        self.released(client)

    def connect_failed(self, reason: str | MeshError) -> None:
        """No connection came of an attempt: the first waiter is told."""
        if self._waiters:
            ex = self._waiters.popleft()
            error = reason if isinstance(reason, MeshError) else ConnectFailed(selected=self.name, reason=reason)
            ex.walk.connect_failed(ex, error)
        self._replace()
        self._tell()

    def _replace(self) -> None:
        """Waiters beyond the connects under way need another one if the limit allows."""
        limit = self._limits.max_size
        if len(self._waiters) > len(self._connecting) and not self._idle and (limit is None or self.size < limit):
            self._connect()

    # --- connections

    def released(self, client: HttpClient) -> None:
        """The connection is idle: serve the first waiter, or keep it."""
        if self._is_simple and not self._waiters and not self._retired:
            self._idle.append(client)
        elif self._waiters:
            ex = self._waiters.popleft()
            ex.walk.connected(ex, client)
            self._tell()
        elif self._retired or (self._limits.session_life is not None and self._is_old(client)):
            client.close_idle()
        else:
            self._idle.append(client)
            if self._idle_limit is not None:
                client.idle_since = self._clock()
                if self._sweep is None:
                    self._sweep = self._wheel.after(self._idle_limit, self._close_idle)
        if self._was_full:
            self._tell()

    def closed(self, client: HttpClient) -> None:
        """The connection is gone."""
        if client in self._clients:
            self._clients.discard(client)
            self._stats.disconnected(client.connection, client.used)
        if client in self._idle:
            self._idle.remove(client)
        if self._waiters:
            self._replace()
        self._tell()

    def _is_old(self, client: HttpClient) -> bool:
        life = self._limits.session_life
        return life is not None and self._clock() - client.born >= life

    def _close_idle(self) -> None:
        """Close connections that have been idle for too long, the longest idle first, and those that are too old."""
        self._sweep = None
        limits, now = self._limits, self._clock()
        spare = max(0, len(self._clients) - limits.min_size)
        for place, client in enumerate(list(self._idle)):
            idle = now - client.idle_since
            above_least = place < spare and limits.idle_time is not None and idle >= limits.idle_time
            is_unused = limits.session_idle is not None and idle >= limits.session_idle
            if above_least or is_unused or self._is_old(client):
                client.close_idle()
        if self._idle and self._idle_limit is not None:
            self._sweep = self._wheel.after(self._idle_limit, self._close_idle)

    def connect(self, then: Callable[[], object] | None = None) -> None:
        """Open one more connection that nobody waits for yet; ``then`` is called once it serves or is idle, not when it fails."""
        self._connect(then)

    def retire(self) -> None:
        """Close idle connections and those to come; requests under way or waiting finish."""
        self._retired = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None  # a pool that is revived sweeps again
        for client in list(self._idle):
            client.close_idle()
        if not self._waiters:
            for attempt in list(self._connecting):
                attempt.cancel()
                self._stats.connect_cancelled()
            self._connecting.clear()

    def revive(self) -> None:
        """The address is back: keep connections again."""
        self._retired = False
        self._tell()
