"""Connecting to an address with TLS: the TCP connection, then the handshake, as one attempt.

Source: linkerd-config spec 4.4. What a failed handshake ends in is an error of its own, which tells name, certificate and reason.
"""

from __future__ import annotations

from meshgw.core.connecting import Connecting, Done
from meshgw.core.reactor import Poller
from meshgw.core.timers import Wheel
from meshgw.core.tls_ends import ClientTlsConnection
from meshgw.core.tls_sides import TlsClient
from meshgw.core.transport import Connection, SocketOptions
from meshgw.errors import MeshError


class TlsConnecting:
    """One attempt; see :class:`meshgw.core.connecting.Dialing`. The handshake has its own time limit, that of ``client``."""

    __slots__ = ("_client", "_done", "_endpoint", "_is_cancelled", "_tcp", "_tls", "_wheel")

    def __init__(self, poller: Poller, wheel: Wheel, done: Done, client: TlsClient, prelude: bytes = b"") -> None:
        self._wheel, self._done, self._client = wheel, done, client
        self._tcp = Connecting(poller, wheel, self._connected, prelude)
        self._tls: ClientTlsConnection | None = None
        self._endpoint = ""
        self._is_cancelled = False

    def start(self, host: str, port: int, timeout: float, options: SocketOptions) -> None:
        """Begin to connect to a literal address."""
        self._endpoint = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._tcp.start(host, port, timeout, options)

    def cancel(self) -> None:
        """Give up; ``done`` is not called."""
        self._is_cancelled = True
        self._tcp.cancel()
        if self._tls is not None:
            self._tls.abort()

    def _connected(self, connection: Connection | None, reason: str) -> None:
        if connection is None:
            self._done(None, reason)
            return
        self._tls = tls = ClientTlsConnection(connection, self._wheel, self._client, self._endpoint)
        tls.on_secured = self._secured
        tls.start()

    def _secured(self, error: MeshError | None) -> None:
        if not self._is_cancelled:
            if error is None:
                assert self._tls is not None
                self._done(self._tls, "")
            else:
                self._done(None, error)
