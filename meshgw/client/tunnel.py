"""Connections that carry the bytes of a tunnel: to the destination itself, or to an HTTP proxy that is asked for one.

Source: RFC 9110 section 9.3.6. A tunnel's connection is used once; one that was opened and not needed may wait a while for the next tunnel.
The bytes are passed on by :class:`meshgw.client.http.HttpClient`, as those of an Upgrade are.
"""

from __future__ import annotations

from meshgw.client.http import HttpClient
from meshgw.core.exchange import Exchange
from meshgw.wire.headers import Headers
from meshgw.wire.http1 import read_response

ESTABLISHED = b"HTTP/1.1 200 Connection established"


class RawTunnel(HttpClient):
    """A tunnel begins as soon as there is a connection: nothing is said to the endpoint."""

    __slots__ = ()

    def send(self, ex: Exchange) -> None:
        """See :class:`meshgw.core.exchange.Upstream`."""
        self._begin(ex)
        _establish(ex)
        self._switch(ex, b"")


class ProxyTunnel(HttpClient):
    """The endpoint is an HTTP proxy: it is asked by a CONNECT of this gateway's own, and may refuse."""

    __slots__ = ("_is_established",)

    def send(self, ex: Exchange) -> None:
        """See :class:`meshgw.core.exchange.Upstream`."""
        self._is_established = False
        self._begin(ex)
        self._connection.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (ex.target, ex.target))

    def data_received(self, data: bytes) -> None:
        """See :class:`meshgw.core.transport.Receiver`."""
        ex = self._ex
        if ex is None or self._is_established:
            self._received_more(data)
            return
        data = self._buffer + data
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > self._p.max_headers:
            self._wait_for_more(data, end)
            return
        try:
            read_response(data[:end], self._p.table, ex.method, ex)
        except ValueError as error:
            self._broken(str(error))
            return
        self._buffer = b""
        if 200 <= ex.status < 300:
            self._is_established = True
            _establish(ex)
            self._switch(ex, data[end + 4 :])
        else:
            line = ex.status_line[9:80].decode("latin-1")
            ex.status, ex.response = 0, Headers()
            self._broken(f"the proxy refused the tunnel: {line}")


def _establish(ex: Exchange) -> None:
    """The answer is this gateway's own: fields of a proxy behind it are not the caller's business."""
    ex.status, ex.status_line, ex.response = 200, ESTABLISHED, Headers()
