"""A name server in memory, over datagrams and connections of a reactor that has both under a clock."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.python.failure import Failure

Server = tuple[str, int]
Say = Callable[[dns.Message, str], bytes | None]
"""Gets a question, and ``udp`` or ``tcp``; gives what is sent back, None for nothing."""


def question_in(data: bytes) -> dns.Message:
    """The message of a question."""
    message = dns.Message()
    message.fromStr(data)
    return message


def answer(
    question: dns.Message, *records: dns.RRHeader, code: int = dns.OK, truncated: bool = False, additional: tuple[dns.RRHeader, ...] = ()
) -> bytes:
    """An answer to a question, of any length."""
    message = dns.Message(id=question.id, answer=1, recDes=1, recAv=1, rCode=code, trunc=truncated, maxSize=0)
    message.queries, message.answers, message.additional = question.queries, list(records), list(additional)
    return message.toStr()


def srv(target: str, port: int, *, name: str = "_http._tcp.web.test", priority: int = 0, weight: int = 0, ttl: int = 60) -> dns.RRHeader:
    """An SRV record."""
    return dns.RRHeader(name, dns.SRV, dns.IN, ttl, dns.Record_SRV(priority, weight, port, target, ttl))


class DnsReactor(Clock):
    """A reactor with name servers: ``servers`` has what each says; one that is not there refuses. ``asked`` has all questions."""

    def __init__(self) -> None:
        super().__init__()
        self.servers: dict[Server, Say] = {}
        self.asked: list[tuple[Server, str, dns.Message]] = []
        self.ports: list[_UdpPort] = []
        self.connections: list[_TcpTransport] = []
        self.most_open = 0

    @property
    def open_ports(self) -> int:
        """Sockets for datagrams in use now."""
        return sum(port.is_open for port in self.ports)

    def listenUDP(self, _port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> _UdpPort:
        """As ``IReactorUDP``."""
        port = _UdpPort(self, protocol, maxPacketSize)
        self.ports.append(port)
        self.most_open = max(self.most_open, self.open_ports)
        protocol.makeConnection(port)
        return port

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        """As ``IReactorTCP``."""
        if (host, port) in self.servers:
            protocol = factory.buildProtocol(IPv4Address("TCP", host, port))
            transport = _TcpTransport(self, (host, port), protocol)
            self.connections.append(transport)
            protocol.makeConnection(transport)
        else:
            factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        return self

    def stopConnecting(self) -> None:
        """As ``IConnector``."""

    def says(self, server: Server, data: bytes, kind: str) -> bytes | None:
        """What a server says to a question."""
        question = question_in(data)
        self.asked.append((server, kind, question))
        return self.servers[server](question, kind)


class _UdpPort:
    def __init__(self, reactor: DnsReactor, protocol: Any, largest: int) -> None:
        self._reactor, self._protocol, self._largest = reactor, protocol, largest
        self._peer: Server = ("", 0)
        self.is_open = True

    def connect(self, host: str, port: int) -> None:
        self._peer = (host, port)

    def write(self, data: bytes) -> None:
        if self._peer not in self._reactor.servers:
            self._reactor.callLater(0, self._protocol.connectionRefused)
            return
        said = self._reactor.says(self._peer, data, "udp")
        if said is not None:
            self._reactor.callLater(0, self.receive, said[: self._largest])

    def receive(self, data: bytes) -> None:
        """A datagram arrives."""
        if self.is_open:
            self._protocol.datagramReceived(data, self._peer)

    def stopListening(self) -> None:
        if self.is_open:
            self.is_open = False
            self._protocol.stopProtocol()


class _TcpTransport:
    def __init__(self, reactor: DnsReactor, server: Server, protocol: Any) -> None:
        self._reactor, self._server, self._protocol = reactor, server, protocol
        self._received = b""
        self.is_open = True

    def write(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < 2 or len(self._received) < 2 + struct.unpack("!H", self._received[:2])[0]:
            return
        said = self._reactor.says(self._server, self._received[2:], "tcp")
        if said is None:
            return
        if not said:
            self._reactor.callLater(0, self.close)
            return
        whole = struct.pack("!H", len(said)) + said
        for at in range(0, len(whole), 1000):
            self._reactor.callLater(0, self._protocol.dataReceived, whole[at : at + 1000])

    def close(self) -> None:
        """The server closes."""
        if self.is_open:
            self.is_open = False
            self._protocol.connectionLost(Failure(ConnectionDone()))

    loseConnection = abortConnection = close

    def getPeer(self) -> Any:
        return IPv4Address("TCP", *self._server)

    getHost = getPeer
