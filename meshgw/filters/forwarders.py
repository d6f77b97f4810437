"""Whose word counts about where a request came from: forwarding fields of trusted proxies are kept, those of others are not.

Source: RFC 7239 section 8.1; the de-facto X-Forwarded fields. The fields are read from right to left, since every proxy appends: the last
address before the first one that is not trusted is the caller's, and what stands to the left of it is anybody's invention.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from meshgw.core.exchange import Exchange
from meshgw.core.networks import Networks
from meshgw.filters.access import Record
from meshgw.filters.forwarded import XForwarded, drop_forwarding

MOST_HOPS: Final = 32
"""Entries of ``X-Forwarded-For`` that are looked at."""
_LONGEST_ENTRY: Final = 64


class TrustedForwarders:
    """Appends to what trusted proxies say and starts afresh for others; with ``passes`` it adds nothing of its own either way."""

    __slots__ = ("_append", "_replace", "_trusts")

    def __init__(self, trusted: Networks, *, scheme: bytes, passes: bool) -> None:
        """``scheme`` is what callers speak to this server."""
        self._trusts = trusted.contains
        self._append = None if passes else XForwarded(replace=False, scheme=scheme).on_request
        self._replace = drop_forwarding if passes else XForwarded(replace=True, scheme=scheme).on_request

    def on_request(self, ex: Exchange) -> None:
        """Rewrite the fields by the address the request came from."""
        if not self._trusts(ex.peer[0]):
            self._replace(ex)
        elif self._append is not None:
            self._append(ex)


class ForwardedRecord:
    """The access log's line with the caller that trusted proxies tell, in place of the nearest proxy."""

    __slots__ = ("_on_end", "_trusted", "wanted")

    def __init__(self, record: Record, trusted: Networks) -> None:
        """``record`` writes the lines."""
        self._on_end, self.wanted, self._trusted = record.on_end, record.wanted, trusted

    def on_end(self, ex: Exchange) -> None:
        """See :class:`meshgw.filters.access.Record`."""
        nearest = ex.peer
        ex.peer = (caller_address(ex, self._trusted), nearest[1])
        try:
            self._on_end(ex)
        finally:
            ex.peer = nearest


def caller_address(ex: Exchange, trusted: Networks) -> str:
    """The address of the first one, from right to left, that is not trusted; where nobody else can be told, the last that could."""
    address = ex.peer[0]
    if not trusted.contains(address):
        return address
    told = ex.headers.get(b"x-forwarded-for")
    if told is None:
        return address
    for entry in reversed(told.rsplit(b",", MOST_HOPS)[-MOST_HOPS:]):
        host = _host(entry.strip(b" \t"))
        if host is None:
            break  # somebody hides, or invents: whoever said so is the last that is known
        address = host
        if not trusted.contains(host):
            break
    return address


def _host(entry: bytes) -> str | None:
    """The address of one entry, which may have a port behind it, and brackets around IPv6."""
    if len(entry) > _LONGEST_ENTRY:
        return None
    text = entry.decode("latin-1").strip('"')
    if text[:1] == "[":
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text)) if "%" not in text else None
    except ValueError:
        return None
