"""One endpoint's connections where TLS agrees on the protocol (ALPN): HTTP/2 if the endpoint knows it, else HTTP/1.1.

Source: RFC 7301; RFC 9113 section 3.2. Each connect offers both, and what the newest connection agreed on counts: an endpoint that changes
its mind is followed either way, and connections of the other protocol end with what is under way on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from meshgw.client.h2_pool import H2Pool
from meshgw.client.pool import Marked, Pool
from meshgw.core.exchange import Exchange, Upstream
from meshgw.core.stream import Stream
from meshgw.errors import MeshError


def _speaks_h2(connection: Stream) -> bool:
    return getattr(connection, "alpn", b"") == b"h2"


class HttpSide(Pool):
    """The connections of HTTP/1.1 to an endpoint that may speak HTTP/2 at any time, of which ``turned`` is told."""

    __slots__ = ("_turned",)

    def __init__(self, *args: Any, turned: Callable[[Stream], None], **keywords: Any) -> None:
        """The other arguments are those of :class:`Pool`."""
        super().__init__(*args, **keywords)
        self._turned = turned

    def adopt(self, connection: Stream) -> None:
        """See :class:`Pool`."""
        if _speaks_h2(connection):
            self._turned(connection)
        else:
            super().adopt(connection)

    def leave(self) -> list[Exchange]:
        """End with what is under way; gives those who wait, and wait elsewhere from now on."""
        waiters = list(self._waiters)
        self._waiters.clear()
        self.retire()
        self._tell()
        return waiters


class NegotiatedPool(H2Pool):
    """Begins as a pool of HTTP/2; ``http`` makes the one of HTTP/1.1, given whom to tell of connections that speak HTTP/2 after all."""

    def __init__(self, *args: Any, http: Callable[[Callable[[Stream], None]], HttpSide], **keywords: Any) -> None:
        """The other arguments are those of :class:`H2Pool`."""
        super().__init__(*args, **keywords)
        self._make_http = http
        self._http: HttpSide | None = None

    def adopt(self, connection: Stream) -> None:
        """Serve with an established connection, by what was agreed on."""
        if _speaks_h2(connection):
            super().adopt(connection)
            return
        if self._http is None:
            self._http = self._make_http(self._turned)
            self._http.on_connect = self.on_connect
            if self._node is not None:
                self._http.attach(self)
        self._http.adopt(connection)
        waiters = list(self._waiters)
        self._waiters.clear()
        self._acquire_for(waiters)
        for client in list(self._active):
            client.retire()
        self._tell()

    def _turned(self, connection: Stream) -> None:
        """An endpoint that spoke HTTP/1.1 agreed to HTTP/2."""
        http, self._http = self._http, None
        super().adopt(connection)
        if http is not None:
            self._acquire_for(http.leave())

    def _acquire_for(self, waiters: Iterable[Exchange]) -> None:
        for ex in waiters:
            try:
                upstream = self.acquire(ex)
            except MeshError as error:
                ex.walk.connect_failed(ex, error)
                continue
            if upstream is not None:
                ex.walk.connected(ex, upstream)

    # --- the same to its endpoint as any pool

    def acquire(self, ex: Exchange) -> Upstream | None:
        """See :meth:`H2Pool.acquire`."""
        return super().acquire(ex) if self._http is None else self._http.acquire(ex)

    def forget(self, ex: Exchange) -> None:
        """See :meth:`H2Pool.forget`."""
        super().forget(ex)
        if self._http is not None:
            self._http.forget(ex)

    def attach(self, node: Marked) -> None:
        """See :meth:`H2Pool.attach`."""
        super().attach(node)
        if self._http is not None:
            self._http.attach(self)

    def mark(self, _cause: str, _held: bool) -> None:
        """See :class:`meshgw.client.pool.Marked`: whether there is a chance on this side changed."""
        self._tell()

    def overtaken(self) -> Exchange | None:
        """See :meth:`H2Pool.overtaken`."""
        return super().overtaken() if self._http is None else self._http.overtaken()

    def connect(self, then: Callable[[], object] | None = None) -> None:
        """See :meth:`H2Pool.connect`."""
        if self._http is None:
            super().connect(then)
        else:
            self._http.connect(then)

    def retire(self) -> None:
        """See :meth:`H2Pool.retire`."""
        super().retire()
        if self._http is not None:
            self._http.retire()

    def revive(self) -> None:
        """See :meth:`H2Pool.revive`."""
        super().revive()
        if self._http is not None:
            self._http.revive()

    @property
    def size(self) -> int:
        """See :class:`H2Pool`."""
        return super().size + (0 if self._http is None else self._http.size)

    @property
    def open(self) -> int:
        """See :class:`H2Pool`."""
        return super().open + (0 if self._http is None else self._http.open)

    @property
    def cached(self) -> int:
        """See :class:`H2Pool`."""
        return super().cached + (0 if self._http is None else self._http.cached)

    @property
    def waiting(self) -> int:
        """See :class:`H2Pool`."""
        return super().waiting + (0 if self._http is None else self._http.waiting)

    @property
    def connecting(self) -> int:
        """See :class:`H2Pool`."""
        return super().connecting + (0 if self._http is None else self._http.connecting)

    @property
    def is_available(self) -> bool:
        """See :class:`H2Pool`."""
        return super().is_available if self._http is None else self._http.is_available
