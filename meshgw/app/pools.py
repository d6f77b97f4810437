"""Pools of endpoints by what is spoken to them: HTTP/1.1, HTTP/2, or what TLS agrees on (ALPN).

Source: linkerd-config spec 4.5 and 6.1; ``protocol`` of a client is meshgw's own.
"""

from __future__ import annotations

from collections.abc import Callable

from meshgw.app.edge import pool_for
from meshgw.app.endpoint import AnyPool, MakePool
from meshgw.app.http_stacks import Shared
from meshgw.client.http import ClientParameters
from meshgw.client.pool import PoolLimits, PoolStats
from meshgw.config.scoped import AUTO, H2, HTTP1, ClientParams
from meshgw.core.address import Address
from meshgw.core.connecting import Dial
from meshgw.telemetry.metrics import Metrics

OFFERED = {HTTP1: (b"http/1.1",), H2: (b"h2",), AUTO: (b"h2", b"http/1.1")}
"""What is offered by ALPN; HTTP/2 first where there is a choice."""


class Pools:
    """Makes the pools of a router's clients. ``http`` is for HTTP/1.1; ``default`` is spoken where a client does not say."""

    def __init__(self, *, shared: Shared, http: ClientParameters, default: str, taken: tuple[bytes, ...]) -> None:
        """``taken`` are the fields of answers that this hop reads and writes itself."""
        self._shared, self._http, self._default, self._taken = shared, http, default, taken

    def maker(
        self, params: ClientParams, limits: PoolLimits, dial: Callable[[tuple[bytes, ...]], Dial | None], metrics: Metrics
    ) -> MakePool:
        """What makes the pools of one client. ``dial`` gives the way to connect that offers these protocols, ``metrics`` is its scope."""
        protocol, shared = params.protocol or self._default, self._shared
        way = dial(OFFERED[protocol])
        http = self._http

        def plain(address: Address, stats: PoolStats) -> AnyPool:
            return pool_for(params.proxy_protocol, address, limits=limits, stats=stats, parameters=http, shared=shared, dial=way)

        if protocol == HTTP1 or (protocol == AUTO and way is None):
            return plain
        from meshgw.app.h2_pools import h2_maker  # takes two megabytes, which a gateway without HTTP/2 can do without

        return h2_maker(params, limits, way, metrics, shared=shared, http=http, taken=self._taken, is_certain=protocol == H2)
