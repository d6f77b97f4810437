"""One endpoint's HTTP/2 connections: requests share one until it has no room for another stream, then there is one more.

Source: linkerd-config spec 4.5 and 6.1 (one connection an endpoint); RFC 9113 section 5.1.2. Connections that are told to go away, or are
too old, end with their last stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from meshgw.client.h2 import H2Client
from meshgw.client.h2_parameters import H2ClientParameters
from meshgw.client.pool import Marked, PoolLimits, PoolStats
from meshgw.core.address import Address
from meshgw.core.connecting import Connecting, Dial, Dialing
from meshgw.core.exchange import Exchange, Upstream
from meshgw.core.reactor import Poller
from meshgw.core.stream import Stream
from meshgw.core.timers import Timer, Wheel
from meshgw.core.transport import SocketOptions
from meshgw.errors import ConnectFailed, MeshError, TooManyWaiters

HOPED_STREAMS = 100
"""Streams that a connection whose endpoint has not told yet is hoped to take (RFC 9113 section 6.5.2 recommends no fewer)."""


class H2Pool:
    """The connections to one address; the same to its endpoint as :class:`meshgw.client.pool.Pool`."""

    def __init__(
        self,
        address: Address,
        *,
        limits: PoolLimits,
        parameters: H2ClientParameters,
        stats: PoolStats,
        poller: Poller,
        wheel: Wheel,
        clock: Callable[[], float],
        prelude: bytes = b"",
        dial: Dial | None = None,
    ) -> None:
        """``prelude`` is what each connection begins with, before TLS; ``dial`` the way to connect."""
        self._dial: Dial = dial or partial(Connecting, poller, wheel)
        self._address, self._limits, self._parameters, self._prelude = address, limits, parameters, prelude
        self._stats, self._wheel, self._clock = stats, wheel, clock
        self.name = address.show()
        self.on_connect: Callable[[], object] | None = None
        """Told when a connect begins."""
        self._active: list[H2Client] = []
        """Those that take streams; the others are ending."""
        self._clients: set[H2Client] = set()
        self._connecting: set[Dialing] = set()
        self._waiters: deque[Exchange] = deque()
        self._overtaken = 0
        self._retired = False
        self._serving = False
        self._node: Marked | None = None
        self._was_full = False
        self._sweep: Timer | None = None
        times = [time for time in (limits.idle_time, limits.session_idle, limits.session_life) if time is not None]
        self._idle_limit = min(times) if times else None

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
        """Connections with room for a request."""
        return sum(client.room > 0 for client in self._active)

    @property
    def waiting(self) -> int:
        """Requests waiting for a connection."""
        return len(self._waiters)

    @property
    def connecting(self) -> int:
        """Connects under way."""
        return len(self._connecting)

    @property
    def streams(self) -> int:
        """Requests under way on the connections."""
        return sum(len(client.streams) for client in self._clients)

    @property
    def has_room(self) -> bool:
        """Whether the limits allow one more connection."""
        return not self._retired and (self._limits.max_size is None or self.size < self._limits.max_size)

    @property
    def is_available(self) -> bool:
        """Whether a request sent here has a chance."""
        if self._retired:
            return False
        if self.cached or self.has_room:
            return True
        most = self._limits.max_waiters
        return most is None or len(self._waiters) < most

    def attach(self, node: Marked) -> None:
        """See :meth:`meshgw.client.pool.Pool.attach`."""
        if self._limits.max_size is not None and self._limits.max_waiters is not None:
            self._node = node

    def _tell(self) -> None:
        if self._node is not None:
            is_full = not self._retired and not self.is_available
            if is_full is not self._was_full:
                self._was_full = is_full
                self._node.mark("pool", is_full)

    # --- requests

    def acquire(self, ex: Exchange) -> Upstream | None:
        """A stream for ``ex`` now, or None: then the walk's ``connected`` or ``connect_failed`` comes later.

        Raises :class:`TooManyWaiters`.
        """
        if not self._waiters:
            for client in self._active:
                if client.room > 0:
                    return client.stream()
        limits = self._limits
        if limits.max_size is not None and self.size >= limits.max_size:
            if limits.max_waiters is not None and len(self._waiters) >= limits.max_waiters:
                self._stats.refused()
                raise TooManyWaiters(selected=self.name, waiting=len(self._waiters))
            self._stats.waited()
        self._waiters.append(ex)
        self._connect_for_waiters()
        self._tell()
        return None

    def _connect_for_waiters(self) -> None:
        """Connect unless those under way may take all who wait, or the endpoint takes no streams now (RFC 9113 section 6.5.2)."""
        if any(client.peer_streams == 0 for client in self._active):
            return
        assumed = HOPED_STREAMS * (len(self._connecting) + sum(client.is_new for client in self._active))
        if len(self._waiters) > assumed and self.has_room:
            self._connect()

    def forget(self, ex: Exchange) -> None:
        """``ex`` waits no longer."""
        try:
            self._waiters.remove(ex)
        except ValueError:
            pass  # it was served or failed in the meantime
        self._tell()

    def overtaken(self) -> Exchange | None:
        """See :meth:`meshgw.client.pool.Pool.overtaken`."""
        if not self._waiters:
            return None
        self._overtaken += 1
        return self._waiters[0]

    def connect(self, then: Callable[[], object] | None = None) -> None:
        """Open one more connection that nobody waits for yet; ``then`` is called once it serves or is idle, not when it fails."""
        self._connect(then)

    def _connect(self, then: Callable[[], object] | None = None) -> None:
        began = self._clock()
        if self.on_connect is not None:
            self.on_connect()

        def done(connection: Stream | None, reason: str | MeshError) -> None:
            self._connecting.discard(attempt)
            seconds = self._clock() - began
            if self._overtaken:
                self._overtaken -= 1
                if connection is None and not self._waiters:
                    self._stats.missed()
            if connection is None:
                self._stats.connect_failed(seconds, reason)
                self.connect_failed(reason)
                return
            self._stats.connected(seconds, connection)
            self.adopt(connection)
            if then is not None:
                then()

        attempt = self._dial(done, self._prelude)
        self._connecting.add(attempt)
        attempt.start(self._address.host, self._address.port, self._limits.connect_timeout, SocketOptions())

    def adopt(self, connection: Stream) -> None:
        """Serve with an established connection."""
        client = H2Client(connection, self._parameters, self, self.name)
        client.born = self._clock()
        self._clients.add(client)
        self._active.append(client)
        if self._idle_limit is not None and self._sweep is None:
            self._sweep = self._wheel.after(self._idle_limit, self._close_idle)
        connection.start()
        self.released(client)

    def connect_failed(self, reason: str | MeshError) -> None:
        """No connection came of an attempt: those who waited for it are told."""
        waiters = list(self._waiters) if not self._connecting else list(self._waiters)[: max(1, len(self._waiters) // 2)]
        for ex in waiters:
            if ex in self._waiters:
                self._waiters.remove(ex)
                error = reason if isinstance(reason, MeshError) else ConnectFailed(selected=self.name, reason=reason)
                ex.walk.connect_failed(ex, error)
        if self._waiters and not self._connecting:
            self._connect_for_waiters()
        self._tell()

    # --- connections (client.h2.Pool)

    def released(self, client: H2Client) -> None:
        """A connection may have room: serve who waits, or let it rest."""
        if client.streams and not self._waiters and not self._was_full:
            return  # nobody waits, and it does not rest
        if self._serving:
            return  # this is told while somebody is being served; the loop below goes on
        self._serving = True
        try:
            taker: H2Client | None = client
            while self._waiters and taker is not None:
                if taker.room > 0:
                    ex = self._waiters.popleft()
                    ex.walk.connected(ex, taker.stream())
                else:  # another may have got room while somebody was being served
                    taker = next((other for other in self._active if other.room > 0), None)
        finally:
            self._serving = False
        if self._waiters and not self._connecting:
            self._connect_for_waiters()
        if client.is_idle and not client.is_closed:
            self._rest(client)
        if self._was_full:
            self._tell()

    def _rest(self, client: H2Client) -> None:
        if self._retired:
            client.close_idle()
            return
        client.idle_since = self._clock()

    def leaving(self, client: H2Client) -> None:
        """The connection takes no more streams."""
        if client in self._active:
            self._active.remove(client)
        if self._waiters and not self._connecting:
            if self._retired and not self._active:
                self.connect_failed("the address is gone, and so is its last connection")
            else:
                self._connect_for_waiters()

    def closed(self, client: H2Client) -> None:
        """The connection is gone."""
        if client in self._clients:
            self._clients.discard(client)
            self._stats.disconnected(client.connection, client.used)
        self.leaving(client)
        self._tell()

    def _close_idle(self) -> None:
        """End connections that have been idle for too long, the longest idle first, and those that are too old once they are idle."""
        self._sweep = None
        limits, now = self._limits, self._clock()
        spare = len(self._active) - limits.min_size
        for client in sorted(self._active, key=lambda client: client.idle_since):
            idle = now - client.idle_since if client.is_idle else -1.0
            is_old = limits.session_life is not None and now - client.born >= limits.session_life
            is_unused = limits.session_idle is not None and idle >= limits.session_idle
            if is_old or is_unused or (limits.idle_time is not None and idle >= limits.idle_time and spare > 0):
                client.retire()
                spare -= 1
        if self._active and self._idle_limit is not None:
            self._sweep = self._wheel.after(self._idle_limit, self._close_idle)

    def retire(self) -> None:
        """Close idle connections and those to come; requests under way or waiting finish."""
        self._retired = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for client in list(self._clients):
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
