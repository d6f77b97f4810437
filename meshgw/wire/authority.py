"""The authority of a CONNECT request: a host and a port, in one spelling each. Bytes in, a value out.

Source: RFC 9110 section 9.3.6, RFC 9112 section 3.2.3. Stricter than the URI grammar on purpose: what a resolver could take for an address
(``127.1``, ``0x7f.1``, ``2130706433``) must not pass for a name, or rules about names could be got around. No user, no percent-encoding.
"""

from __future__ import annotations

import ipaddress
import re

import attrs

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PORT = re.compile(r"[0-9]{1,5}")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label like this makes the whole an IPv4 address for lenient readers (WHATWG URL, "ends in a number")."""
_LONGEST_NAME = 253

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


@attrs.frozen
class Authority:
    """A host, in lower case and without a final dot, and a port. ``ip`` is set when the host is an address; IPv4 in IPv6 counts as IPv4."""

    host: str
    port: int
    ip: Ip | None = None

    def show(self) -> str:
        """``host:port``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_authority(text: bytes) -> Authority:
    """Read ``host:port``. Raises ValueError, whose text says what is wrong."""
    try:
        host, colon, port = text.decode("ascii").lower().rpartition(":")
    except UnicodeDecodeError:
        raise ValueError("only ASCII is allowed") from None
    if not colon or not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise ValueError("a port from 1 to 65535 must follow the host")
    if host.startswith("["):
        ip = _ipv6(host)
        return Authority(str(ip), int(port), ip)
    name = host.removesuffix(".")
    labels = name.split(".")
    if len(name) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("the host is neither a name nor an address")
    if not _NUMERIC.fullmatch(labels[-1]):
        return Authority(name, int(port))
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        raise ValueError("IPv4 addresses are written as four numbers") from None
    return Authority(str(address), int(port), address)


def _ipv6(host: str) -> Ip:
    try:
        if not host.endswith("]") or "%" in host:
            raise ValueError
        address = ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        raise ValueError("the host in brackets is not an IPv6 address") from None
    return address.ipv4_mapped or address
