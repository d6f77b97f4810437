"""Connecting to a backend's API: its host name by our own live DNS, one address after the other, TLS, fail-fast.

Source: linkerd-config spec 3.4 and 3.5 (``host``, ``port``, ``tls``, ``failFast``), 10.4 (fail-fast). For HTTP see ``http_agent``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

import attrs
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from meshgw.backends.hosts import Resolve, addresses_of
from meshgw.backends.http_agent import HttpConnections
from meshgw.backends.tls import ClientTlsFiles, TlsMaterial
from meshgw.config.tls import ClientTls
from meshgw.core.tls import Check
from meshgw.core.tls_sides import TlsClient
from meshgw.errors import NamerError

CONNECT_SECONDS: Final = 3.0
"""For one address: enough for a lost SYN and a far data centre, little enough to try a second address within a caller's patience."""
MOST_ADDRESSES: Final = 8
"""Of a host, that are tried one after another for one connection: a name with a hundred dead addresses is as good as dead."""
KEEP_ALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Seconds and probes: a machine that vanished while it owed an answer is noticed after a minute, as long polls are silent for long."""
FAIL_FAST_SECONDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # spec 10.4


class FailFast:
    """After a failed connect no other is tried for a time that grows: what waits for a dead backend is told at once."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._failures = 0
        self._until = 0.0
        self._problem: Exception | None = None

    def check(self) -> None:
        """Raises the last error again while connecting is not tried: nothing is known that is newer."""
        if self._problem is not None and self._seconds() < self._until:
            raise self._problem.with_traceback(None)

    def connected(self) -> None:
        """A connect succeeded."""
        self._failures = 0
        self._problem = None

    def failed(self, problem: Exception) -> None:
        """A connect failed."""
        self._problem = problem
        wait = FAIL_FAST_SECONDS[min(self._failures, len(FAIL_FAST_SECONDS) - 1)]
        self._failures += 1
        self._until = self._seconds() + wait


@implementer(IStreamClientEndpoint)
class ResolvedEndpoint:
    """``host:port`` with the addresses that DNS has for it at each connect; the next is tried when one fails."""

    def __init__(
        self,
        reactor: Any,
        resolve: Resolve,
        host: str,
        port: int,
        *,
        fail_fast: FailFast | None = None,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        """``check`` raises when connecting is of no use."""
        self._reactor, self._resolve, self._host, self._port = reactor, resolve, host, port
        self._fail_fast, self._check = fail_fast, check

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See :class:`IStreamClientEndpoint`."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        self._check()
        if self._fail_fast is None:
            return await self._first(factory)
        self._fail_fast.check()
        try:
            protocol = await self._first(factory)
        except CancelledError:
            raise
        except Exception as error:
            self._fail_fast.failed(error)
            raise
        self._fail_fast.connected()
        return protocol

    async def _first(self, factory: IProtocolFactory) -> IProtocol:
        problem: Exception = NamerError(detail=f"{self._host}: no address")
        addresses = await addresses_of(self._resolve(self._host, self._port), self._host, self._reactor)
        for address in addresses[:MOST_ADDRESSES]:
            kind = TCP6ClientEndpoint if ":" in address.host else TCP4ClientEndpoint
            endpoint = kind(self._reactor, address.host, address.port, timeout=CONNECT_SECONDS)
            try:
                protocol: IProtocol = await endpoint.connect(factory)
            except (CancelledError, ConnectingCancelledError) as error:  # the latter is how Twisted's endpoints put it
                raise CancelledError from error
            except Exception as error:  # noqa: BLE001 - whatever keeps this address from answering, the next may do
                problem = error
                continue
            _keep_alive(protocol)
            return protocol
        raise problem


def _keep_alive(protocol: IProtocol) -> None:
    """Have the kernel notice a peer that is gone; without its help (in-memory transports) there is nothing to notice."""
    transport = getattr(protocol, "transport", None)
    handle = getattr(transport, "getHandle", lambda: None)()
    if isinstance(handle, socket.socket):
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):
                handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@implementer(IOpenSSLClientConnectionCreator)
class TlsCreator:
    """Gives Twisted's TLS the connections of our own, so that verification, files and messages are those of all clients."""

    def __init__(self, files: ClientTlsFiles, config: ClientTls, where: str) -> None:
        self._files, self._config, self._where = files, config, where
        self._client: TlsClient | None = None
        self._check: Check | None = None

    def refusal(self) -> str:
        """Why the last certificate was refused; empty if it was not."""
        check = self._check
        if check is None or not check.reason:
            return ""
        return f"{check.reason}; expected name: {check.expected}; certificate shown: {check.shown}"

    def clientConnectionForTLS(self, _protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A connection about to start. Raises :class:`TlsConfigError`."""
        security = self._files.security()
        if self._client is None:
            self._client = TlsClient(security, self._config.name_for({}))
        connection, self._check = self._client.begin(self._where)
        return connection


class Connector:
    """How one backend is connected to. ``agent`` speaks HTTP to it; ``start`` and ``stop`` follow the files of its TLS."""

    def __init__(
        self,
        reactor: Any,
        resolve: Resolve,
        host: str,
        port: int,
        *,
        tls: ClientTls | None = None,
        fail_fast: bool = False,
        material: TlsMaterial | None = None,
    ) -> None:
        """``material`` is what ``tls`` has in no file. Without a ``commonName`` the certificate must be for ``host``."""
        if tls is not None and tls.common_name is None and not tls.disable_validation:
            tls = attrs.evolve(tls, common_name=host)
        self._files = ClientTlsFiles(tls, reactor=reactor, material=material) if tls is not None and tls.enabled else None
        endpoint = ResolvedEndpoint(
            reactor,
            resolve,
            host,
            port,
            fail_fast=FailFast(reactor.seconds) if fail_fast else None,
            check=self._files.security if self._files is not None else lambda: None,
        )
        self.refusal: Callable[[], str] = str
        """Why TLS refused the last certificate; empty if it did not."""
        creator: TlsCreator | None = None
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if self._files is not None and tls is not None:
            creator = TlsCreator(self._files, tls, where)
            self.refusal = creator.refusal
        scheme, default = ("http", 80) if self._files is None else ("https", 443)
        self.base = f"{scheme}://{where}"
        shown = where if port != default else where.rpartition(":")[0]
        self.agent = HttpConnections(endpoint, reactor, creator, base=self.base, host=shown)

    def start(self) -> None:
        """Begin to follow the files."""
        if self._files is not None:
            self._files.start()

    def stop(self) -> None:
        """End that, and close the idle connections."""
        if self._files is not None:
            self._files.stop()
        self.agent.close_idle()
