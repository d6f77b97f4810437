"""Pools of endpoints by what is spoken to them: HTTP/1.1, HTTP/2, or what TLS agrees on (ALPN).

Source: linkerd-config spec 4.5 and 6.1; ``protocol`` of a client is meshgw's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from meshgw.app.edge import pool_for
from meshgw.app.endpoint import AnyPool, MakePool
from meshgw.app.http_stacks import Shared
from meshgw.app.walk import NACK
from meshgw.client.h2_parameters import H2ClientParameters
from meshgw.client.h2_pool import H2Pool
from meshgw.client.http import ClientParameters
from meshgw.client.negotiated import HttpSide, NegotiatedPool
from meshgw.client.pool import PoolLimits, PoolStats
from meshgw.config.edge import PROXY_VERSIONS
from meshgw.config.scoped import AUTO, H2, HTTP1, ONE_CALLER, ClientParams
from meshgw.core.address import Address
from meshgw.core.connecting import Dial, Unconfigured
from meshgw.core.stream import Stream
from meshgw.telemetry.metrics import Metrics
from meshgw.telemetry.streams import Frames, StreamStats
from meshgw.wire.h2_connection import H2Settings
from meshgw.wire.h2_frames import DEFAULT_FRAME, DEFAULT_TABLE, DEFAULT_WINDOW
from meshgw.wire.headers import FieldTable

OFFERED = {HTTP1: (b"http/1.1",), H2: (b"h2",), AUTO: (b"h2", b"http/1.1")}
"""What is offered by ALPN; HTTP/2 first where there is a choice."""
HEADER_LIST = 65536
"""Bytes of an answer's header section, where the configuration does not say; Linkerd has no limit."""


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
        if params.proxy_protocol in PROXY_VERSIONS:  # set by another entry than `protocol`, so that nobody could tell before
            reason = f"proxyProtocol {ONE_CALLER}"
            way = lambda done, _prelude: Unconfigured(shared.wheel, done, reason)  # noqa: E731 - one of several ways
        parameters = self._parameters(params, way, metrics)
        pools: WeakSet[H2Pool] = WeakSet()
        metrics.gauge("open_streams", function=lambda: float(sum(pool.streams for pool in pools)))

        def kept(pool: H2Pool) -> H2Pool:
            pools.add(pool)
            return pool

        common: dict[str, Any] = {"limits": limits, "parameters": parameters, "dial": way}
        common |= {"poller": shared.poller, "wheel": shared.wheel, "clock": shared.clock}
        if protocol == H2:
            return lambda address, stats: kept(H2Pool(address, stats=stats, **common))

        def negotiated(address: Address, stats: PoolStats) -> AnyPool:
            def make(turned: Callable[[Stream], None]) -> HttpSide:
                return HttpSide(address, stats=stats, turned=turned, **{**common, "parameters": http})

            return kept(NegotiatedPool(address, stats=stats, http=make, **common))

        return negotiated

    def _parameters(self, params: ClientParams, way: Dial | None, metrics: Metrics) -> H2ClientParameters:
        shared = self._shared
        own = H2Settings(
            window=params.initial_stream_window_bytes or DEFAULT_WINDOW,
            frame=params.max_frame_bytes or DEFAULT_FRAME,
            header_list=params.max_header_list_bytes or HEADER_LIST,
            table=DEFAULT_TABLE if params.header_table_bytes is None else params.header_table_bytes,
            update_ratio=params.window_update_ratio,
            is_client=True,
        )
        faults = metrics.counter("h2", "connection_errors")
        return H2ClientParameters(
            table=FieldTable(wanted=(NACK, b"grpc-status"), taken=self._taken),
            wheel=shared.wheel,
            clock=shared.clock,
            later=shared.poller.later,
            own=own,
            scheme=b"http" if way is None else b"https",
            max_body=self._http.max_body,
            on_failed=lambda _code: faults.incr(),
            frames=Frames(metrics),
            streams=StreamStats(metrics),
        )
