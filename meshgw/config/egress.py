"""The block ``egress`` of a router: networks that it never connects to.

Source: RFC 6890 and the IANA registries of special-purpose addresses. An addition to Linkerd.
"""

from __future__ import annotations

from typing import Final

import attrs

from meshgw.config.document import option
from meshgw.core.networks import Network

INTERNAL: Final = tuple(
    Network.read(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8"),
        "169.254.0.0/16",  # link-local, and where clouds have their metadata services
        *("172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/96", "2001::/32", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "64:ff9b:1::/48"),
    )
)
"""What is not on the public Internet."""


@attrs.frozen(kw_only=True)
class EgressConfig:
    """Addresses that the router does not connect to, whatever name led there; an empty block refuses all internal ones.

    An IPv4 address within an IPv6 one (mapped, NAT64, 6to4) counts as the IPv4 address. What is refused is answered 403.
    """

    deny_networks: tuple[Network, ...] = option(
        default=INTERNAL,
        doc="Networks that are not connected to.",
        effective="loopback, private, shared, link-local (with cloud metadata), benchmark, multicast and reserved ones, IPv4 and IPv6",
    )
    allow_networks: tuple[Network, ...] = option(default=(), doc="Exceptions from these, for example one host: `[10.1.2.3]`.")
