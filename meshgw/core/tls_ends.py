"""The two ends of TLS connections: the server's, which reads the ClientHello before OpenSSL does, and the client's, which keeps sessions.

Source: linkerd-config spec 4.4; RFC 8446 sections 4.6.1 and 6, RFC 6066 section 3. The hello is read here because OpenSSL's binding can
choose a certificate by name but not send the alert for a name that is not served.
"""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL

from meshgw.core.timers import Wheel
from meshgw.core.tls import Check, CheckedConnection, HandshakeFailed, TlsConfigError, VerificationFailed
from meshgw.core.tls_connection import HELLO, TlsConnection
from meshgw.core.tls_sides import TlsClient, TlsServer
from meshgw.core.transport import Connection, Receiver
from meshgw.errors import MeshError
from meshgw.wire.client_hello import INTERNAL_ERROR, ClientHelloReader, HelloError, alert_record

PLAIN_HTTP: Final = b"this port speaks TLS\n"
PLAIN_HTTP_ANSWER: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
    len(PLAIN_HTTP),
    PLAIN_HTTP,
)
_TICKETS = 3
"""Times a session is taken over while a connection is young: servers send one or two tickets, in one go or in two."""


class ServerTlsConnection(TlsConnection):
    """A caller's connection to a listener that speaks TLS."""

    __slots__ = ("_check", "_peer", "_reader", "_server", "server_name")

    def __init__(self, raw: Connection, wheel: Wheel, server: TlsServer, peer: tuple[str, int], receiver: Receiver | None = None) -> None:
        super().__init__(raw, wheel, receiver)
        self._server, self._peer = server, peer
        self._reader: ClientHelloReader | None = ClientHelloReader()
        self._check = Check(None)
        self.server_name: str | None = None
        """The host name the caller asked for."""
        self._state = HELLO

    def _handshake_seconds(self) -> float:
        return self._server.handshake_seconds

    def _hello(self, data: bytes) -> None:
        reader, server = self._reader, self._server
        assert reader is not None
        try:
            hello = reader.feed(data)
            if hello is None:
                return
            context = server.choose(hello)
        except HelloError as error:
            self._refuse(error)
            return
        except TlsConfigError as error:
            self._refuse(HelloError(reason=str(error), alert=INTERNAL_ERROR))
            return
        self._reader, self.server_name = None, hello.server_name
        ssl = CheckedConnection(context, None)
        ssl.check = self._check
        ssl.set_accept_state()
        self._adopt(ssl)
        self._handshake_data(bytes(reader.received))

    def _refuse(self, error: HelloError) -> None:
        if error.alert is not None:
            self._raw.write(alert_record(error.alert))
        elif error.is_http:
            self._raw.write(PLAIN_HTTP_ANSWER)
        self._fail("http" if error.is_http else "garbage" if error.alert is None else "hello", error.reason)

    def _completed(self) -> None:
        self._server.handshakes += 1

    def _failure(self, kind: str, reason: str) -> MeshError:
        check = self._check
        if check.reason:
            reason = f"the caller's certificate was refused: {check.reason}; certificate shown: {check.shown}"
        host, port = self._peer
        peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._server.failed(kind, peer, reason)
        return HandshakeFailed(selected=peer, reason=reason)


class ClientTlsConnection(TlsConnection):
    """A connection to an endpoint that speaks TLS; ``endpoint`` is its address, for messages and for its session."""

    __slots__ = ("_check", "_client", "_endpoint", "_young")

    def __init__(self, raw: Connection, wheel: Wheel, client: TlsClient, endpoint: str, receiver: Receiver | None = None) -> None:
        super().__init__(raw, wheel, receiver)
        self._client, self._endpoint = client, endpoint
        self._check = Check(None)
        self._young = 0

    def _handshake_seconds(self) -> float:
        return self._client.handshake_seconds

    def start(self) -> None:
        """Begin to read, and with the handshake; once begun, nothing."""
        if self._timer is not None:
            return
        super().start()
        try:
            ssl, self._check = self._client.begin(self._endpoint)
        except TlsConfigError as error:
            reason = str(error)
            self._wheel.soon(lambda: self._fail("config", reason))  # not from inside the owner's call
            return
        self._adopt(ssl)
        self._shake()

    def _completed(self) -> None:
        client = self._client
        client.handshakes += 1
        if client.validates and not self._check.ran:
            client.resumed += 1

    def _established(self) -> None:
        agreed, client = self.alpn, self._client
        if not client.takes(agreed):
            wanted = b", ".join(client.protocols).decode("ascii")
            chosen = repr(agreed.decode("ascii", "backslashreplace")) if agreed else "no protocol"
            self._fail("protocol", f"the endpoint does not speak {wanted}: it chose {chosen} (ALPN)")
            return
        super()._established()
        self._young = _TICKETS
        if self.version == "TLSv1.2":
            self._keep()

    def _silence(self) -> None:
        super()._silence()
        if self._young > 0:  # most likely a ticket came (RFC 8446 section 4.6.1)
            self._keep()

    def _keep(self) -> None:
        if self._ssl is not None:
            self._young -= 1
            self._client.keep(self._endpoint, self._ssl)

    def _released(self) -> None:
        ssl = self._ssl
        if ssl is None or self.error is not None:
            return
        if self._young < _TICKETS or not self._client.has_session(self._endpoint):
            self._client.keep(self._endpoint, ssl)
        # Without this mark OpenSSL takes the end for an accident and the session for unfit to be resumed.
        ssl.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)

    def _failure(self, kind: str, reason: str) -> MeshError:
        client, check = self._client, self._check
        client.failed += 1
        client.forget(self._endpoint)
        if check.reason:
            return VerificationFailed(selected=self._endpoint, reason=check.reason, expected=client.name or "(any)", shown=check.shown)
        return HandshakeFailed(selected=self._endpoint, reason=reason)
