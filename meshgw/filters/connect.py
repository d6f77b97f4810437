"""The guard before tunnels: which CONNECT requests a listener serves.

Source: RFC 9110 section 9.3.6. Only listeners with a block ``connect`` have it; to others CONNECT is a method that is not supported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

from meshgw.core.stack import Reply
from meshgw.wire.authority import read_authority

if TYPE_CHECKING:
    from meshgw.config.connect import ConnectPattern
    from meshgw.core.exchange import Exchange


class ConnectGuard:
    """Refuses CONNECT to what ``allow`` does not list. ``refused`` counts."""

    __slots__ = ("_allow", "refused")

    def __init__(self, allow: Sequence[ConnectPattern]) -> None:
        self._allow = tuple(allow)
        self.refused = 0

    def on_request(self, ex: Exchange) -> Reply | None:
        """Answer 403 to what is not allowed. The head was read already, so the target is well-formed and in its one spelling."""
        if ex.method != b"CONNECT":
            return None
        ex.upgrade = None  # the tunnel is asked for by the method
        authority = read_authority(ex.target)
        if any(pattern.matches(authority) for pattern in self._allow):
            return None
        self.refused += 1
        what = "an address" if authority.ip is not None else "a host and port"
        text = f"CONNECT to {authority.show()} is not allowed here: {what} must be listed in servers[].connect.allow"
        return Reply(403, text.encode(), ((b"l5d-err", quote_plus(text).encode()), (b"Content-Type", b"text/plain")))
