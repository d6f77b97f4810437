"""Headers a server adds to every request on arrival: ``Forwarded`` (RFC 7239) and a time stamp.

Source: linkerd-config spec 5.1 and 5.5; the de-facto X-Forwarded fields. Whose word counts is in ``filters.forwarders``.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from random import Random

from meshgw.core.exchange import Exchange

_LETTERS = string.ascii_letters + string.digits
Label = Callable[[Exchange, tuple[str, int]], bytes]
"""Names one side of a connection, given the exchange and that side's address."""


def by_ip(_ex: Exchange, address: tuple[str, int]) -> bytes:
    """The IP address, IPv6 in quoted brackets; ``unknown`` for a wildcard."""
    ip = address[0].partition("%")[0]
    if ip in ("0.0.0.0", "::", ""):
        return b"unknown"
    return f'"[{ip}]"'.encode() if ":" in ip else ip.encode()


def by_ip_and_port(_ex: Exchange, address: tuple[str, int]) -> bytes:
    """The quoted IP address and port."""
    ip, port = address[0].partition("%")[0], address[1]
    if ip in ("0.0.0.0", "::", ""):
        return b"unknown"
    return f'"[{ip}]:{port}"'.encode() if ":" in ip else f'"{ip}:{port}"'.encode()


def random_per_request(rng: Random) -> Label:
    """An obfuscated name, new for each request."""

    def label(_ex: Exchange, _address: tuple[str, int]) -> bytes:
        return _random_name(rng)

    return label


def random_per_connection(rng: Random) -> Label:
    """An obfuscated name that stays the same for a connection."""
    names: dict[tuple[str, int, str, int], bytes] = {}

    def label(ex: Exchange, _address: tuple[str, int]) -> bytes:
        key = (*ex.peer, *ex.local)
        name = names.get(key)
        if name is None:
            if len(names) >= 65536:  # as many as a peer has ports; older connections get a new name then
                names.clear()
            name = names[key] = _random_name(rng)
        return name

    return label


def fixed(name: str) -> Label:
    """A name from the configuration, with the underscore that RFC 7239 section 6.3 asks for."""
    text = (name if name.startswith("_") else f"_{name}").encode()

    def label(_ex: Exchange, _address: tuple[str, int]) -> bytes:
        return text

    return label


def _random_name(rng: Random) -> bytes:
    return b"_" + "".join(rng.choices(_LETTERS, k=6)).encode()


class Forwarded:
    """Adds one ``Forwarded`` line: by, for, the Host, and the scheme when the request line had one."""

    __slots__ = ("_by", "_for")

    def __init__(self, by: Label, for_: Label) -> None:
        self._by, self._for = by, for_

    def on_request(self, ex: Exchange) -> None:
        """Append the line after those of earlier proxies."""
        value = b"by=" + self._by(ex, ex.local) + b";for=" + self._for(ex, ex.peer)
        host = ex.host
        if host:
            value += b";host=" + (host if host.isalnum() else b'"' + host + b'"')
        if ex.scheme is not None:
            value += b";proto=" + ex.scheme
        ex.headers.lines.append(b"Forwarded: " + value)


class Timestamp:
    """Adds a header with the time of arrival in milliseconds since the epoch; ``now`` gives seconds."""

    __slots__ = ("_name", "_now")

    def __init__(self, name: str, now: Callable[[], float]) -> None:
        self._name, self._now = name.encode("ascii"), now

    def on_request(self, ex: Exchange) -> None:
        """Append the line."""
        ex.headers.lines.append(b"%b: %d" % (self._name, int(self._now() * 1000)))


class XForwarded:
    """Adds the caller's address to ``X-Forwarded-For``, and tells the scheme and host it asked for in ``-Proto`` and ``-Host``.

    With ``replace`` what the caller says of itself is dropped, ``Forwarded`` and other ``X-Forwarded-`` fields included, as it must be
    where callers are not trusted; else the list is appended to, and the other two are left alone where they are present.
    """

    __slots__ = ("_replace", "_scheme")

    def __init__(self, *, replace: bool, scheme: bytes) -> None:
        """``scheme`` is what callers speak to this server."""
        self._replace, self._scheme = replace, scheme

    def on_request(self, ex: Exchange) -> None:
        """Rewrite the three fields."""
        headers = ex.headers
        if self._replace:
            drop_forwarding(ex)
        peer = ex.peer[0].partition("%")[0].encode("ascii")
        before = headers.get(b"x-forwarded-for")
        headers.set(b"x-forwarded-for", peer if before is None else before + b", " + peer)
        for name, value in ((b"x-forwarded-proto", self._scheme), (b"x-forwarded-host", ex.host or b"")):
            if headers.get(name) is None:
                headers.set(name, value)


def drop_forwarding(ex: Exchange) -> None:
    """Take away what a caller says of itself, or of those before it."""
    headers = ex.headers
    headers.remove_prefixed(b"x-forwarded-")
    headers.remove(b"forwarded")
