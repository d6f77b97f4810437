"""The addresses of this machine: IPv4 and IPv6 of every network interface that is up.

Source: getifaddrs(3), called through ctypes since the standard library has no such call and resolving the machine's own name may
miss interfaces. Only the layout of Linux is known here.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import sys
from typing import Final

from twisted.internet.interfaces import IReactorTime

from meshgw.core.logger import make_logger

_log = make_logger()

REFRESH_SECONDS: Final = 10.0  # interfaces come and go with pods and tunnels; asking costs a system call per interface
_IFF_UP: Final = 0x1
_FAMILY_SIZE: Final = 2
# Where the address stands in sockaddr_in and sockaddr_in6, and how long it is.
_LAYOUT: Final = {socket.AF_INET: (4, 4), socket.AF_INET6: (8, 16)}


class _InterfaceAddress(ctypes.Structure):
    """The head of ``struct ifaddrs``; the fields after ``ifa_addr`` are not used."""


_InterfaceAddress._fields_ = [
    ("next", ctypes.POINTER(_InterfaceAddress)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
]


def interface_addresses() -> frozenset[str]:
    """The canonical texts of all addresses of interfaces that are up. Raises ``OSError``."""
    libc = ctypes.CDLL(None, use_errno=True)
    head = ctypes.POINTER(_InterfaceAddress)()
    if libc.getifaddrs(ctypes.byref(head)) != 0:
        raise OSError(ctypes.get_errno(), "getifaddrs failed")
    found: set[str] = set()
    try:
        entry = head
        while entry:
            if entry.contents.flags & _IFF_UP and entry.contents.address:
                text = _address_at(entry.contents.address)
                if text is not None:
                    found.add(text)
            entry = entry.contents.next
    finally:
        libc.freeifaddrs(head)
    return frozenset(found)


def _address_at(pointer: int) -> str | None:
    family = int.from_bytes(ctypes.string_at(pointer, _FAMILY_SIZE), sys.byteorder)
    layout = _LAYOUT.get(socket.AddressFamily(family)) if family in (socket.AF_INET, socket.AF_INET6) else None
    if layout is None:
        return None
    offset, length = layout
    return socket.inet_ntop(family, ctypes.string_at(pointer + offset, length))


def comparable(host: str) -> str:
    """One text per address: canonical, without an IPv6 zone, an IPv4 address mapped into IPv6 as IPv4; other text unchanged."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(address if mapped is None else mapped)


class LocalAddresses:
    """The machine's addresses, asked for again when the last answer is older than 10 s."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._known: frozenset[str] = frozenset()
        self._asked_at: float | None = None

    def now(self) -> frozenset[str]:
        """The addresses, at most 10 s old; the last good ones if the system does not tell."""
        now = self._clock.seconds()
        if self._asked_at is None or now - self._asked_at >= REFRESH_SECONDS:
            self._asked_at = now
            try:
                self._known = interface_addresses()
            except OSError as error:
                _log.warn("the addresses of this machine cannot be listed: {error}", error=str(error))
        return self._known
