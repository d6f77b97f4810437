"""The options at the edge of the mesh: whom a listener believes, and what load balancers in front of it ask for.

Source: "The PROXY protocol, versions 1 & 2" (haproxy.org); RFC 7239 section 8.1 for why forwarding fields need trust. All of this is our
own, Linkerd has nothing like it.
"""

from __future__ import annotations

import re
from typing import Any, Final

import attrs

from meshgw.config.document import at_least, option
from meshgw.core.networks import Network

PROXY_VERSIONS: Final = {"v1": 1, "v2": 2}
NO_PROXY_PROTOCOL: Final = "none"
_PLAIN_PATH: Final = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@/]*")


def _some(value: Any) -> str | None:
    return None if value else "must name at least one network; 0.0.0.0/0 and ::/0 are everybody"


def plain_path(value: Any) -> str | None:
    """A check: a path without query and without escapes, as it is compared with what callers ask for."""
    return None if _PLAIN_PATH.fullmatch(value) else f"{value!r} is not a path such as /healthz, without escapes and query"


@attrs.frozen(kw_only=True)
class ProxyProtocol:
    """Take the caller's address from the PROXY header, version 1 or 2, that a load balancer puts in front of each connection.

    Connections from `trusted` addresses must begin with the header, or they are closed; from others none is looked for.
    """

    trusted: tuple[Network, ...] = option(doc="Networks, or addresses, of the load balancers.", check=_some)
    timeout_ms: int = option(default=5000, doc="Milliseconds within which the header must be complete.", check=at_least(1))
