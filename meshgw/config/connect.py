"""The block ``connect`` of a server: where tunnels asked for by CONNECT may lead.

Source: RFC 9110 section 9.3.6 (a proxy should restrict CONNECT to what is known to be safe). An addition to Linkerd, which refuses CONNECT.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import attrs

from meshgw.config.document import option
from meshgw.wire.authority import Authority, Ip, read_authority

_PORTS = re.compile(r"(\*)|([0-9]{1,5})(?:-([0-9]{1,5}))?")
_GLOB = re.compile(r"[a-z0-9_*-]+(?:\.[a-z0-9_*-]+)*")


@attrs.frozen
class ConnectPattern:
    """Hosts and ports: ``hosts`` matches names in full, or ``network`` holds addresses; ports lie between ``first`` and ``last``."""

    text: str
    hosts: re.Pattern[str] | None
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None
    first: int
    last: int

    @classmethod
    def read(cls, text: str) -> ConnectPattern:
        """Read ``HOST:PORT``: HOST is a name, one with ``*`` for any characters, an address or a network, IPv6 in brackets; PORT is a
        number, a range such as ``8000-8999``, or ``*``. Raises ValueError.
        """
        host, _, ports = text.strip().lower().rpartition(":")
        found = _PORTS.fullmatch(ports)
        if not host or found is None:
            raise ValueError(f"expected HOST:PORT, as in *.example.com:443, found {text!r}")
        first, last = (1, 65535) if found.group(1) else (int(found.group(2)), int(found.group(3) or found.group(2)))
        if not 0 < first <= last < 65536:
            raise ValueError(f"{ports} is no port or range of ports from 1 to 65535")
        network = _network(host)
        if network is not None:
            return cls(text, None, network, first, last)
        name = host.removesuffix(".")
        if _GLOB.fullmatch(name) is None:
            raise ValueError(f"{host!r} is neither a host name, with * for any characters, nor an address or network (IPv6 in brackets)")
        if "*" not in name:
            read_authority(f"{name}:1".encode())  # what no request can name is a slip
        return cls(text, re.compile(".*".join(map(re.escape, name.split("*")))), None, first, last)

    def matches(self, authority: Authority) -> bool:
        """Whether a tunnel there is meant. Patterns of names match no address, whatever they are made of."""
        if not self.first <= authority.port <= self.last:
            return False
        if self.network is not None:
            return authority.ip is not None and authority.ip in self.network
        return authority.ip is None and self.hosts is not None and self.hosts.fullmatch(authority.host) is not None

    def show(self) -> str:
        """As it was written."""
        return self.text


def _network(host: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    is_ipv6 = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if is_ipv6 else host
    if not is_ipv6 and re.fullmatch(r"[0-9./]+", bare) is None:
        return None
    try:
        network = ipaddress.ip_network(bare)
    except ValueError as error:
        raise ValueError(f"{host!r} is no address or network: {error}") from None
    if network.version == 6 and not is_ipv6:
        raise ValueError(f"write IPv6 in brackets: [{bare}]")
    address = network.network_address
    mapped: Ip | None = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is not None:
        raise ValueError(f"write the IPv4 address itself: {mapped}")
    return network


def _some(value: Any) -> str | None:
    return None if value else "must name at least one HOST:PORT; without the block `connect` nothing is allowed"


@attrs.frozen(kw_only=True)
class ConnectConfig:
    """Tunnels for callers that speak TLS, or another protocol, with the destination themselves (`CONNECT host:port`)."""

    allow: tuple[ConnectPattern, ...] = option(
        doc="Where tunnels may lead, as `HOST:PORT`: `api.example.com:443`, `*.example.com:8000-8999` (`*` stands for any characters, dots "
        "too), `192.0.2.0/24:443` or `[2001:db8::]:443`. A name does not allow addresses, and an address given by the caller is "
        "allowed only where it is listed; everything else is answered 403.",
        check=_some,
    )
