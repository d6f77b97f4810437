"""Networks of addresses in CIDR notation, and whether an address is in one of several.

Source: RFC 4632, RFC 4291. A caller that came over IPv4 to a listener on ``::`` counts by its IPv4 address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import attrs

_MOST_KNOWN = 4096


@attrs.frozen
class Network:
    """One network; a single address is a network of one."""

    inner: ipaddress.IPv4Network | ipaddress.IPv6Network

    @classmethod
    def read(cls, text: str) -> Network:
        """Read ``10.0.0.0/8``, ``2001:db8::/32`` or one address. Raises ValueError."""
        wanted = text.strip()
        try:
            if "%" not in wanted:
                return cls(ipaddress.ip_network(wanted))
        except ValueError:
            pass
        raise ValueError(_complaint(wanted))

    def show(self) -> str:
        """In CIDR notation; one address without its length."""
        return str(self.inner.network_address) if self.inner.prefixlen == self.inner.max_prefixlen else str(self.inner)


def _complaint(text: str) -> str:
    try:
        meant = ipaddress.ip_network(text, strict=False) if "%" not in text else None
    except ValueError:
        meant = None
    if meant is None:
        return f"expected a network such as 10.0.0.0/8 or 2001:db8::/32, or an address, found {text!r}"
    return f"{text} has bits set to the right of its length; the network is {meant}"


class Networks:
    """A set of networks. What was asked before is remembered, as callers come again."""

    __slots__ = ("_known", "_networks")

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(network.inner for network in networks)
        self._known: dict[str, bool] = {}

    def contains(self, host: str) -> bool:
        """Whether the literal address ``host`` is in one of them; anything else is not."""
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[host] = self._contains(host)
        return known

    def _contains(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return any(address in network or (mapped is not None and mapped in network) for network in self._networks)
