"""TLS before the sites of the admin server: as on listeners of the data path, for protocols of Twisted.

Source: linkerd-config spec 2.1 (``admin.tls``) and 4.4. Certificates, their choice by server name, authentication of clients and what is
counted and logged are those of ``app.tls`` and ``core.tls_sides``; the ClientHello is read here for the same reason as there, and
Twisted's own TLS does the rest.
"""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from meshgw.app.tls import ListenerTls
from meshgw.core.address import Address
from meshgw.core.tls import Check, CheckedConnection, TlsConfigError, explain
from meshgw.core.tls_ends import PLAIN_HTTP_ANSWER
from meshgw.wire.client_hello import INTERNAL_ERROR, ClientHelloReader, HelloError, alert_record

ALPN: Final = (b"http/1.1",)
"""The only protocol of the admin server: its requests' limits speak it."""


@implementer(IOpenSSLServerConnectionCreator)
class _Chosen:
    """Gives Twisted the one connection that was made for a client's hello."""

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        return self._connection


@implementer(IHandshakeListener)
class _Watched(ProtocolWrapper):
    """Between TLS and the site's protocol: hears of the end of the handshake, either way."""

    hello: HelloProtocol

    def handshakeCompleted(self) -> None:
        """The handshake is done."""
        self.hello.secured()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection ended; ``reason`` has OpenSSL's error if there was one."""
        self.hello.tls_ended(reason)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # Twisted has no annotations here


class _Watching(WrappingFactory):
    """Makes the protocols between TLS and those of a site."""

    noisy = False
    protocol = _Watched


class HelloProtocol(Protocol):
    """One connection: its bytes are kept until the ClientHello is complete, then they are OpenSSL's."""

    def __init__(self, factory: TlsSite, address: Any) -> None:
        self._factory, self._address = factory, address
        self._reader: ClientHelloReader | None = ClientHelloReader()
        self._tls: Any = None
        self._check = Check(None)
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Begin to wait for the hello, and for the end of the handshake."""
        server = self._factory.tls.server
        self._timer = self._factory.reactor.callLater(server.handshake_seconds, self._too_slow)

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._tls is not None:
            self._tls.dataReceived(data)
            return
        if self._reader is None:  # it was refused
            return
        try:
            hello = self._reader.feed(data)
            if hello is None:
                return
            context = self._factory.tls.server.choose(hello)
        except HelloError as error:
            self._refuse(error)
        except TlsConfigError as error:
            self._refuse(HelloError(reason=str(error), alert=INTERNAL_ERROR))
        else:
            self._begin(context, bytes(self._reader.received))

    def _begin(self, context: SSL.Context, received: bytes) -> None:
        connection = CheckedConnection(context, None)
        connection.check = self._check
        connection.set_accept_state()
        watching = _Watching(self._factory.site)  # type: ignore[no-untyped-call]  # Twisted has no annotations here
        tls = TLSMemoryBIOFactory(_Chosen(connection), False, watching, self._factory.reactor).buildProtocol(self._address)
        assert tls is not None
        watched: Any = tls.wrappedProtocol
        watched.hello = self
        self._reader, self._tls = None, tls
        tls.makeConnection(self.transport)  # type: ignore[no-untyped-call]
        tls.dataReceived(received)  # type: ignore[no-untyped-call]

    def secured(self) -> None:
        """The handshake is done."""
        self._factory.tls.server.handshakes += 1
        self._end_timer()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection ended."""
        tls, self._tls = self._tls, None
        if tls is not None:
            tls.connectionLost(reason)
        elif self._end_timer():
            self._failed("closed", "it sent no ClientHello")

    def tls_ended(self, reason: Failure) -> None:
        """TLS ended, for ``reason``."""
        check = self._check
        if not self._end_timer():
            return  # after its handshake, or it was told already
        if check.reason:
            self._failed("handshake", f"the caller's certificate was refused: {check.reason}; certificate shown: {check.shown}")
        elif isinstance(reason.value, SSL.Error):
            self._failed("handshake", explain(reason.value))
        else:
            self._failed("closed", "the connection was closed")

    def _refuse(self, error: HelloError) -> None:
        self._reader = None
        self._end_timer()
        transport: Any = self.transport
        if error.alert is not None:
            transport.write(alert_record(error.alert))
        elif error.is_http:
            transport.write(PLAIN_HTTP_ANSWER)
        self._failed("http" if error.is_http else "garbage" if error.alert is None else "hello", error.reason)
        transport.loseConnection()

    def _too_slow(self) -> None:
        self._timer = None
        self._failed("timeout", f"it did not finish within {self._factory.tls.server.handshake_seconds:g} s")
        transport: Any = self.transport
        transport.abortConnection()

    def _failed(self, kind: str, reason: str) -> None:
        transport: Any = self.transport
        peer = transport.getPeer()
        self._factory.tls.server.failed(kind, Address(peer.host, peer.port).show(), reason)

    def _end_timer(self) -> bool:
        """End the time for the handshake; whether it was not over yet."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        return timer is not None


class TlsSite(Factory):
    """Serves ``site`` over ``tls``, whose files whoever listens loads, and begins and ends to follow."""

    noisy = False

    def __init__(self, site: Any, tls: ListenerTls, reactor: Any) -> None:
        self.site, self.tls, self.reactor = site, tls, reactor

    def buildProtocol(self, addr: Any) -> HelloProtocol:
        """A protocol for one connection."""
        protocol = HelloProtocol(self, addr)
        protocol.factory = self
        return protocol

    def doStart(self) -> None:
        """The site's own start."""
        self.site.doStart()

    def doStop(self) -> None:
        """The site's own end."""
        self.site.doStop()
