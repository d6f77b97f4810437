"""Pools of endpoints that speak HTTP/2, or may.

Source: linkerd-config spec 6.1. Apart from ``app.pools``, since with this comes all of HTTP/2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from meshgw.app.endpoint import AnyPool, MakePool
from meshgw.app.http_stacks import Shared
from meshgw.app.walk import NACK
from meshgw.client.h2_parameters import H2ClientParameters
from meshgw.client.h2_pool import H2Pool
from meshgw.client.http import ClientParameters
from meshgw.client.negotiated import HttpSide, NegotiatedPool
from meshgw.client.pool import PoolLimits, PoolStats
from meshgw.config.edge import PROXY_VERSIONS
from meshgw.config.scoped import ONE_CALLER, ClientParams
from meshgw.core.address import Address
from meshgw.core.connecting import Dial, Unconfigured
from meshgw.core.stream import Stream
from meshgw.telemetry.metrics import Metrics
from meshgw.telemetry.streams import Frames, StreamStats
from meshgw.wire.h2_connection import H2Settings
from meshgw.wire.h2_frames import DEFAULT_FRAME, DEFAULT_TABLE, DEFAULT_WINDOW
from meshgw.wire.headers import FieldTable

HEADER_LIST = 65536
"""Bytes of an answer's header section, where the configuration does not say; Linkerd has no limit."""


def h2_maker(
    params: ClientParams,
    limits: PoolLimits,
    way: Dial | None,
    metrics: Metrics,
    *,
    shared: Shared,
    http: ClientParameters,
    taken: tuple[bytes, ...],
    is_certain: bool,
) -> MakePool:
    """What makes the pools of one client, connected in that ``way``. Not ``is_certain`` what an endpoint speaks, TLS tells it.

    See :class:`meshgw.app.pools.Pools` for the others.
    """
    if params.proxy_protocol in PROXY_VERSIONS:  # set by another entry than `protocol`, so that nobody could tell before
        reason = f"proxyProtocol {ONE_CALLER}"
        way = lambda done, _prelude: Unconfigured(shared.wheel, done, reason)  # noqa: E731 - one of several ways
    parameters = _parameters(params, way, metrics, shared=shared, http=http, taken=taken)
    pools: WeakSet[H2Pool] = WeakSet()
    metrics.gauge("open_streams", function=lambda: float(sum(pool.streams for pool in pools)))

    def kept(pool: H2Pool) -> H2Pool:
        pools.add(pool)
        return pool

    common: dict[str, Any] = {"limits": limits, "parameters": parameters, "dial": way}
    common |= {"poller": shared.poller, "wheel": shared.wheel, "clock": shared.clock}
    if is_certain:
        return lambda address, stats: kept(H2Pool(address, stats=stats, **common))

    def negotiated(address: Address, stats: PoolStats) -> AnyPool:
        def make(turned: Callable[[Stream], None]) -> HttpSide:
            return HttpSide(address, stats=stats, turned=turned, **{**common, "parameters": http})

        return kept(NegotiatedPool(address, stats=stats, http=make, **common))

    return negotiated


def _parameters(
    params: ClientParams, way: Dial | None, metrics: Metrics, *, shared: Shared, http: ClientParameters, taken: tuple[bytes, ...]
) -> H2ClientParameters:
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
        table=FieldTable(wanted=(NACK, b"grpc-status"), taken=taken),
        wheel=shared.wheel,
        clock=shared.clock,
        later=shared.poller.later,
        own=own,
        scheme=b"http" if way is None else b"https",
        max_body=http.max_body,
        on_failed=lambda _code: faults.incr(),
        frames=Frames(metrics),
        streams=StreamStats(metrics),
    )
