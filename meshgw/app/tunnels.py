"""Tunnels put together: the guard and the names of CONNECT, the pools that open connections for it, and what a listener counts.

Source: RFC 9110 section 9.3.6. Nothing of it is there, in listeners and endpoints, unless a server of the router has a block ``connect``.
"""

from __future__ import annotations

from typing import Any

import attrs

from meshgw.client.pool import PoolLimits
from meshgw.client.tunnel import ProxyTunnel, RawTunnel
from meshgw.config.http import HttpServerConfig
from meshgw.core.connecting import Dial
from meshgw.filters.connect import ConnectGuard
from meshgw.telemetry.metrics import Metrics

IDLE_SECONDS = 10.0
"""How long a connection that lost a race waits for the next tunnel: many servers close what says nothing soon."""


class TunnelCounters:
    """Counts a listener's tunnels, of CONNECT and Upgrade; ``metrics`` is its scope (:class:`meshgw.server.tunnel.TunnelStats`)."""

    def __init__(self, metrics: Metrics) -> None:
        scope = metrics.scope("tunnels")
        self._opened, self._idle = scope.counter("opened"), scope.counter("idle")
        self._received, self._sent = scope.counter("received_bytes"), scope.counter("sent_bytes")
        self._open = 0
        scope.gauge("open", function=lambda: float(self._open))

    def opened(self) -> None:
        """See :class:`meshgw.server.tunnel.TunnelStats`."""
        self._open += 1
        self._opened.incr()

    def ended(self, received: int, sent: int) -> None:
        """See :class:`meshgw.server.tunnel.TunnelStats`."""
        self._open -= 1
        self._received.incr(received)
        self._sent.incr(sent)

    def idled(self) -> None:
        """See :class:`meshgw.server.tunnel.TunnelStats`."""
        self._idle.incr()


def connect_guard(server: HttpServerConfig, metrics: Metrics) -> ConnectGuard | None:
    """What decides on a listener's CONNECT requests, if it knows any. ``metrics`` is its scope."""
    if server.connect is None:
        return None
    guard = ConnectGuard(server.connect.allow)
    metrics.follow("tunnels", "refused", function=lambda: guard.refused)
    return guard


def tunnel_pool(mode: str, limits: PoolLimits, dial: Dial | None) -> dict[str, Any]:
    """What makes a pool (``app.edge.pool_for``) one for tunnels. To the destination itself they are plain: TLS is the caller's."""
    own = attrs.evolve(limits, min_size=0, idle_time=None, session_idle=IDLE_SECONDS, session_life=None)
    if mode == "connect":
        return {"limits": own, "dial": dial, "make_client": ProxyTunnel}
    return {"limits": own, "dial": None, "make_client": RawTunnel}
