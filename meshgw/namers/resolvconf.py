"""What the machine's own files say about host names: literal addresses, ``hosts(5)`` and ``resolv.conf(5)``.

Source: dtab spec 4.3 (``127.1`` forms), RFC 1123 2.1 and RFC 6761 6.3 (localhost), resolv.conf(5) (search list, ndots). Files are
small and local, so they are read in the reactor's thread. Asking name servers is ``namers.dns``.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.names import dns
from twisted.names.hosts import searchFileForAll
from twisted.python.filepath import FilePath

from meshgw.backends.dns_client import Answer, NameServerClient, Server

# No leading zeros: inet_aton reads 010 as octal 8 where others read 10, and a name must not mean two machines.
_SHORT_IPV4: Final = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){0,3}")
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")
_MOST_SERVERS: Final = 3  # MAXNS of resolv.conf(5)
_MOST_NDOTS: Final = 15


class DnsClient(Protocol):
    """The part of ``twisted.names`` resolvers that is used."""

    def lookupAddress(self, name: str, timeout: Any = None) -> Deferred[Answer]:
        """The A records of ``name``."""
        ...

    def lookupIPV6Address(self, name: str, timeout: Any = None) -> Deferred[Answer]:
        """The AAAA records of ``name``."""
        ...


class NameServers(Protocol):
    """Where to ask, and under which full names."""

    def client(self) -> DnsClient:
        """The client for the name servers of this moment."""
        ...

    def candidates(self, host: str) -> tuple[str, ...]:
        """The full names to try for ``host``, in order."""
        ...


class FixedServers:
    """One client, no search list."""

    def __init__(self, client: DnsClient) -> None:
        self._client = client

    def client(self) -> DnsClient:
        """The client given."""
        return self._client

    def candidates(self, host: str) -> tuple[str, ...]:
        """The host itself."""
        return (host.rstrip("."),)


class SystemServers:
    """The name servers and search list of resolv.conf; the file is looked at before each lookup and read when it changed."""

    def __init__(self, reactor: Any, path: str = "/etc/resolv.conf") -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._search: tuple[str, ...] = ()
        self._ndots = 1
        self._servers: tuple[str, ...] = ()
        self._client = NameServerClient(reactor, self.servers)

    def client(self) -> NameServerClient:
        """The client, which asks the servers listed at the time of each question."""
        return self._client

    def servers(self) -> tuple[Server, ...]:
        """The servers listed now."""
        self._refresh()
        return tuple((server, dns.PORT) for server in self._servers or ("127.0.0.1",))

    def candidates(self, host: str) -> tuple[str, ...]:
        """``host`` as it is and with each search domain; which come first depends on its dots and ``ndots``."""
        self._refresh()
        if host.endswith("."):
            return (host.rstrip("."),)
        searched = tuple(f"{host}.{domain}" for domain in self._search if len(host) + len(domain) < 253)
        return (host, *searched) if host.count(".") >= self._ndots else (*searched, host)

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp:
                return
            with open(self._path, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            stamp, text = (0, 0, 0), ""  # a missing file means the local name server and no search list
            if stamp == self._stamp:
                return
        self._servers, self._search, self._ndots = read_resolv_conf(text)
        self._stamp = stamp


def read_resolv_conf(text: str) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Name servers, search domains and ``ndots`` of a resolv.conf text; lines that make no sense are passed over, as libc does."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    ndots = 1
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and literal_address(words[1]) is not None and len(servers) < _MOST_SERVERS:
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(word.strip(".").lower() for word in words[1:] if word.strip("."))
        elif words[0] == "options":
            for word in words[1:]:
                if re.fullmatch(r"ndots:\d{1,4}", word):
                    ndots = min(_MOST_NDOTS, int(word[6:]))
    return tuple(servers), search, ndots


def literal_address(host: str) -> str | None:
    """The canonical text of a literal IPv4 (also ``127.1``) or IPv6 address, with or without brackets; None if it is neither."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    if bare is host and host.isascii() and _SHORT_IPV4.fullmatch(host):
        try:
            return socket.inet_ntoa(socket.inet_aton(host))
        except OSError:
            return None
    return None


def valid_name(host: str) -> str | None:
    """``host`` in lower case and, if not ASCII, in its IDNA form; None if no name server could know it."""
    try:
        name = host.lower() if host.isascii() else host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return None
    labels = name.removesuffix(".").split(".")
    if len(name) > 253 or labels[-1].isdigit() or not all(len(label) < 64 and _LABEL.fullmatch(label) for label in labels):
        return None
    return name


def hosts_addresses(path: str, name: str) -> tuple[str, ...]:
    """The addresses that the hosts file at ``path`` gives ``name``; localhost is always known."""
    found: list[str] = searchFileForAll(FilePath(path), name.rstrip(".").encode())  # type: ignore[no-untyped-call]
    if not found and name.rstrip(".") == "localhost":
        return ("127.0.0.1",)
    return tuple(dict.fromkeys(found))
