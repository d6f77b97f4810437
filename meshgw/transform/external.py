"""Takes addresses of forbidden networks out of whatever an interpreter binds, so that no name, however it is resolved, leads there.

Source: our own (``egress`` of a router). It stands around the router's interpreter, hence delegations of callers do not get around it; and
it looks at addresses, not at names, hence a host whose DNS changes its mind does not either. Ids stay as they are.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

import attrs

from meshgw.core.address import Addr, Bound, Replicas
from meshgw.core.live import Live, live_map
from meshgw.core.networks import Network
from meshgw.errors import AddressDenied
from meshgw.kinds import Interpreter
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.naming.tree import NameTree, map_leaves

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_MOST_SHOWN: Final = 5
_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def meant(host: str) -> _Ip | None:
    """The address that packets end at: the IPv4 one where an IPv6 address carries one. None for what is no address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


class ExternalOnly:
    """An interpreter whose bound names have no addresses in ``denied`` networks, but for those in ``allowed`` ones."""

    def __init__(self, inner: Interpreter, *, denied: Iterable[Network], allowed: Iterable[Network]) -> None:
        self._inner = inner
        self._denied = tuple(network.inner for network in denied)
        self._allowed = tuple(network.inner for network in allowed)
        delegate = getattr(inner, "delegate", None)
        if delegate is not None:
            self.delegate = delegate

    def bind(self, dtab: Dtab, path: Path) -> Live[NameTree[Bound]]:
        """See :class:`meshgw.kinds.Interpreter`."""
        return live_map(self._inner.bind(dtab, path), lambda tree: map_leaves(tree, self._bound))

    def _bound(self, bound: Bound) -> Bound:
        def kept(addr: Addr) -> Addr:
            return self._kept(bound.id, addr)

        return attrs.evolve(bound, addr=live_map(bound.addr, kept))

    def _kept(self, id: Path, addr: Addr) -> Addr:
        """The addresses that may be connected to; an error when there are some and all are denied."""
        if not isinstance(addr, Replicas):
            return addr
        kept = tuple(address for address in addr.addresses if self.permits(address.host))
        if addr.addresses and not kept:
            hosts = tuple(address.host for address in addr.addresses)
            more = f" and {len(hosts) - _MOST_SHOWN} more" if len(hosts) > _MOST_SHOWN else ""
            raise AddressDenied(name=id.show(), addresses=", ".join(hosts[:_MOST_SHOWN]) + more)
        return addr if len(kept) == len(addr.addresses) else Replicas(kept, addr.meta)

    def permits(self, host: str) -> bool:
        """Whether this address may be connected to; what is no literal address may not."""
        address = meant(host)
        if address is None:
            return False
        if any(address in network for network in self._allowed):
            return True
        return not any(address in network for network in self._denied)
