"""TLS connections under test: a server's and a client's end over a pair of sockets, moved by hand."""

from __future__ import annotations

import socket
from collections.abc import Callable

from twisted.internet.task import Clock

from fakes.transport import HandPoller
from meshgw.core.certificates import CertificateStore, KeyPair
from meshgw.core.timers import Wheel
from meshgw.core.tls import ClientSettings, ServerSettings
from meshgw.core.tls_connection import TlsConnection
from meshgw.core.tls_ends import ClientTlsConnection, ServerTlsConnection
from meshgw.core.tls_sides import ClientSecurity, TlsClient, TlsServer
from meshgw.core.transport import Connection
from meshgw.errors import MeshError
from support.certs import authority, pair_of

NAME = "web.mesh.example"


class Recorder:
    """A receiver that writes down what it is told."""

    def __init__(self) -> None:
        self.data = b""
        self.chunks: list[int] = []
        self.events: list[str] = []
        self.outcomes: list[MeshError | None] = []
        self.on_data: Callable[[bytes], None] | None = None

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.chunks.append(len(data))
        if self.on_data is not None:
            self.on_data(data)

    def eof_received(self) -> None:
        self.events.append("eof")

    def drained(self) -> None:
        self.events.append("drained")

    def connection_lost(self, reason: str) -> None:
        self.events.append(f"lost: {reason}")

    @property
    def error(self) -> str:
        """What the handshake failed with."""
        assert self.outcomes, "the handshake has not ended"
        return str(self.outcomes[0])


class Bench:
    """Sockets, clock and poller for TLS connections; ``pump`` moves everything until nothing happens any more."""

    def __init__(self) -> None:
        self.clock, self.poller = Clock(), HandPoller()
        self.wheel = Wheel(self.clock)
        self.sockets: list[socket.socket] = []

    def sockets_pair(self, buffer: int | None = None) -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            one = socket.create_connection(listening.getsockname())
            two, _ = listening.accept()
        for sock in (one, two):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            self.sockets.append(sock)
        return one, two

    def raw(self, sock: socket.socket) -> Connection:
        return Connection(sock, self.poller, self.wheel)

    def server(self, sock: socket.socket, tls: TlsServer) -> tuple[ServerTlsConnection, Recorder]:
        recorder = Recorder()
        connection = ServerTlsConnection(self.raw(sock), self.wheel, tls, ("127.0.0.1", 4711), recorder)
        connection.on_secured = recorder.outcomes.append
        connection.start()
        return connection, recorder

    def client(self, sock: socket.socket, tls: TlsClient, endpoint: str = "127.0.0.1:443") -> tuple[ClientTlsConnection, Recorder]:
        recorder = Recorder()
        connection = ClientTlsConnection(self.raw(sock), self.wheel, tls, endpoint, recorder)
        connection.on_secured = recorder.outcomes.append
        connection.start()
        return connection, recorder

    def pump(self, rounds: int = 12, wait: float = 0.01) -> None:
        for _ in range(rounds):
            self.clock.advance(0)
            if not self.poller.pump(wait):
                self.clock.advance(0)
                return

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def close(self) -> None:
        self.poller.close()
        for sock in self.sockets:
            sock.close()


class TlsPair:
    """A client and a server that talk to each other."""

    def __init__(self, bench: Bench, server: TlsServer, client: TlsClient, *, buffer: int | None = None, pump: bool = True) -> None:
        self.bench = bench
        one, two = bench.sockets_pair(buffer)
        self.server, self.at_server = bench.server(one, server)
        self.client, self.at_client = bench.client(two, client)
        if pump:
            bench.pump()

    def exchange(self, request: bytes = b"ping", answer: bytes = b"pong") -> None:
        self.client.write(request)
        self.bench.pump()
        self.server.write(answer)
        self.bench.pump()

    @property
    def both(self) -> tuple[TlsConnection, TlsConnection]:
        return self.client, self.server


def tls_server(
    *pairs: KeyPair, settings: ServerSettings | None = None, strict: bool = False, seconds: float = 10.0, clock: Clock | None = None
) -> TlsServer:
    """A listener's TLS, by default with one certificate for ``web.mesh.example`` and 127.0.0.1."""
    store = CertificateStore()
    store.set("test", pairs or (default_pair(),))
    ticking = clock or Clock()
    return TlsServer(
        store, settings or ServerSettings(), clock=ticking.seconds, address="127.0.0.1:4443", strict=strict, handshake_seconds=seconds
    )


def default_pair() -> KeyPair:
    return pair_of(authority().leaf(NAME, ips=("127.0.0.1",)))


def tls_client(name: str | None = NAME, settings: ClientSettings | None = None, seconds: float = 10.0) -> TlsClient:
    """TLS to ``web.mesh.example``, by default trusting the tests' authority."""
    return TlsClient(ClientSecurity(settings or ClientSettings(trust=authority().pem)), name, handshake_seconds=seconds)
