"""What stands at the edge of the mesh, put together: PROXY headers of load balancers, their health checks, and pools that pass callers on.

Source: "The PROXY protocol, versions 1 & 2" (haproxy.org). Each piece is only there where the configuration asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from meshgw.app.http_stacks import Shared
from meshgw.app.walk import Walk
from meshgw.client.caller_pools import CallerPool, CallerPools
from meshgw.client.http import ClientParameters
from meshgw.client.pool import Pool, PoolLimits, PoolStats
from meshgw.config.access_format import AccessForm
from meshgw.config.edge import PROXY_VERSIONS, ProxyProtocol
from meshgw.core.address import Address
from meshgw.core.exchange import Exchange
from meshgw.core.networks import Network, Networks
from meshgw.filters.access import AccessRecord, Record
from meshgw.filters.forwarders import ForwardedRecord
from meshgw.server.listener import Accepted, Listener
from meshgw.server.proxy_header import ProxyHeaders, ProxyStats
from meshgw.telemetry.access import AccessLog
from meshgw.telemetry.metrics import Metrics
from meshgw.wire.headers import Headers

_PLAIN = b"Content-Type: text/plain"
_FRESH = b"Cache-Control: no-store"
_CHECKING = (b"GET", b"HEAD", b"OPTIONS")


def behind_proxy(
    config: ProxyProtocol, serve: Accepted, *, shared: Shared, metrics: Metrics, address: str, listener: Callable[[], Listener]
) -> Accepted:
    """What takes the header off before ``serve`` begins. ``metrics`` is the listener's scope; ``listener`` is asked for later on."""
    return ProxyHeaders(
        serve,
        trusted=Networks(config.trusted),
        timeout=config.timeout_ms / 1000,
        poller=shared.poller,
        wheel=shared.wheel,
        stats=ProxyStats(metrics.counter, shared.clock, address),
        replaced=lambda before, after: listener().replaced(before, after),
        closed=lambda connection: listener().closed(connection),
    ).accepted


class Health:
    """Whether load balancers should send requests here."""

    def __init__(self) -> None:
        self.is_draining = False


class HealthWalk(Walk):
    """A walk that answers one path itself, before anything of a request is looked at or counted; ``count`` is called instead."""

    def __init__(self, *, path: str, health: Health, count: Callable[[], None], **walk: Any) -> None:
        """``walk`` is for :class:`meshgw.app.walk.Walk`."""
        super().__init__(**walk)
        self._path = path.encode("ascii")
        self._with_query = self._path + b"?"
        self._health, self._count = health, count

    def begin(self, ex: Exchange) -> None:
        """See :class:`meshgw.core.exchange.Walk`."""
        target = ex.target
        if target == self._path or target.startswith(self._with_query):
            self._answer(ex)
        else:
            super().begin(ex)

    def _answer(self, ex: Exchange) -> None:
        self._count()
        ex.upgrade, ex.status_line = None, b""
        lines = [_PLAIN, _FRESH]
        if ex.method not in _CHECKING:
            ex.status, body = 405, b"method not allowed\n"
            lines.append(b"Allow: GET, HEAD, OPTIONS")
        elif self._health.is_draining:
            ex.status, body = 503, b"draining\n"
        else:
            ex.status, body = 200, b"ok\n"
        if ex.method == b"HEAD":
            lines.append(b"Content-Length: %d" % len(body))
        ex.response, ex.response_length = Headers(lines), len(body)
        ex.caller.respond(ex, body, True)


def pool_for(
    proxy_protocol: str | None,
    address: Address,
    *,
    limits: PoolLimits,
    stats: PoolStats,
    parameters: ClientParameters,
    shared: Shared,
    **more: Any,
) -> Pool | CallerPools:
    """One endpoint's pool; with ``proxyProtocol`` one whose connections belong to a caller each. ``more`` is for every :class:`Pool`."""
    common = {"parameters": parameters, "poller": shared.poller, "wheel": shared.wheel, "clock": shared.clock, **more}
    version = PROXY_VERSIONS.get(proxy_protocol or "")
    if version is None:
        return Pool(address, limits=limits, stats=stats, **common)

    def make(own: PoolLimits, counted: PoolStats, prelude: bytes) -> CallerPool:
        return CallerPool(address, limits=own, stats=counted, prelude=prelude, **common)

    return CallerPools(address, version=version, limits=limits, stats=stats, make=make)


def walk_for(health_path: str | None, health: Health, metrics: Metrics) -> Callable[..., Walk]:
    """What makes a listener's walk: the plain one, or one that answers health checks. ``metrics`` is the listener's scope."""
    if health_path is None:
        return Walk
    return partial(HealthWalk, path=health_path, health=health, count=metrics.counter("health_checks").incr)


def record_for(
    log: AccessLog | None, now: Callable[[], float], form: AccessForm, trusted_forwarders: Sequence[Network], *, router: str
) -> Record | None:
    """What writes a listener's lines of the access log, if there is one. ``router`` is the label."""
    if log is None:
        return None
    record: Record = AccessRecord(log, now)
    if not form.is_default:
        from meshgw.filters.access_fields import FormattedRecord

        record = FormattedRecord(log, now, form, router=router)
    return ForwardedRecord(record, Networks(trusted_forwarders)) if trusted_forwarders else record
