"""Rules of a listener that faces browsers: stay on HTTPS, and ask on a connection only for the hosts it was opened for.

Source: RFC 6797 section 7; RFC 9110 sections 15.4.9 (308), 15.5.20 (421) and 7.4 (misdirected requests).
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote_plus

from meshgw.core.exchange import Exchange
from meshgw.core.stack import Reply

_FIELD: Final = b"strict-transport-security"
_HOST: Final = re.compile(rb"([A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?\.?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


def host_name(host: bytes) -> bytes | None:
    """The host without its port; None for one that is no host at all."""
    found = _HOST.fullmatch(host)
    return None if found is None else found.group(1)


def _refusal(status: int, text: str) -> Reply:
    return Reply(status, text.encode(), ((b"l5d-err", quote_plus(text).encode("ascii")), (b"Content-Type", b"text/plain")))


class StrictTransport:
    """Tells browsers on a TLS connection to use nothing else; what a service says of it counts only without this."""

    __slots__ = ("_value",)

    def __init__(self, *, max_age: int, include_sub_domains: bool, preload: bool) -> None:
        """``max_age`` is seconds."""
        text = f"max-age={max_age}{'; includeSubDomains' if include_sub_domains else ''}{'; preload' if preload else ''}"
        self._value = text.encode("ascii")

    def on_response(self, ex: Exchange) -> None:
        """Write the field; over plaintext it would mean nothing (RFC 6797 section 7.2)."""
        if ex.secured is not None:
            ex.response.set(_FIELD, self._value)


class RedirectToHttps:
    """Answers what comes in plaintext with the same host and target over HTTPS."""

    __slots__ = ("_port", "_status")

    def __init__(self, *, port: int, status: int) -> None:
        """``port`` is the HTTPS server's as callers see it."""
        self._port = b"" if port == 443 else b":%d" % port
        self._status = status

    def on_request(self, ex: Exchange) -> Reply | None:
        """Redirect, or refuse a Host that makes no address; a tunnel is no page and passes."""
        if ex.secured is not None or ex.method == b"CONNECT":
            return None
        host = host_name(ex.host or b"")
        if host is None:
            return _refusal(400, "a redirect to HTTPS needs a valid Host")
        target = ex.target if ex.target[:1] == b"/" else b"/"
        return Reply(self._status, b"", ((b"Location", b"https://" + host + self._port + target),))


class CheckServerName:
    """Answers 421 to a request whose Host is neither the name that its TLS connection asked for nor one of the certificate's.

    Else a caller could open a connection by the rules of one host and then ask for another. Connections that asked for no name pass: they
    got the default certificate, and whether that is allowed is decided in the handshake.
    """

    __slots__ = ("refused",)

    def __init__(self) -> None:
        self.refused = 0

    def on_request(self, ex: Exchange) -> Reply | None:
        """Compare, without case, port and final dot."""
        secured = ex.secured
        if secured is None or secured.server_name is None or not ex.host or ex.method == b"CONNECT":
            return None
        host = host_name(ex.host)
        if host is not None and secured.is_for(host.decode("ascii").lower().removesuffix(".")):
            return None
        self.refused += 1
        return _refusal(421, f"this connection was opened for {secured.server_name}, not for the request's Host")
