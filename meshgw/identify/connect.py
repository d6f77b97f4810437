"""The logical name of a CONNECT request: ``dstPrefix`` and ``host:port``, which is what the token identifier makes of a Host with a port.

Source: linkerd-config spec 3.13: such names are what ``/$/io.buoyant.porthostPfx`` and ``hostportPfx`` take apart, so that a router's
dtab for ``Host: example.com:443`` also leads tunnels. Listeners without a block ``connect`` do not use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meshgw.kinds import Identified
from meshgw.naming.path import Path

if TYPE_CHECKING:
    from meshgw.core.exchange import Exchange
    from meshgw.identify.request import RequestIdentifier


class ConnectNames:
    """Names tunnels itself and leaves other requests to ``inner``, the identifier of the router."""

    kind: Final = "connect"

    __slots__ = ("_identify", "_prefix", "header_names")

    def __init__(self, inner: RequestIdentifier, prefix: Path) -> None:
        self._identify, self._prefix = inner.identify, prefix
        self.header_names = inner.header_names

    def identify(self, ex: Exchange) -> Identified:
        """The name, or why there is none."""
        if ex.method != b"CONNECT":
            return self._identify(ex)
        ex.dtab = None  # the caller's own delegations would lead an allowed name to a place that is not
        return self._prefix + Path((ex.target,))
