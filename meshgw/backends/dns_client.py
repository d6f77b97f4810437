"""Asking name servers: a question by datagram, by connection when the answer does not fit into one, server after server.

Source: RFC 1035 section 4.2, RFC 6891 (larger datagrams), RFC 7766 (connections), RFC 5452 section 9 (what answers must match). Whatever
keeps a server from answering is a :class:`BackendError` that names it. The meaning of records is the caller's business; nothing is kept.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from secrets import randbits
from typing import Any, Final

import attrs
from twisted.internet import defer
from twisted.internet import error as net
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.protocol import DatagramProtocol, Factory, connectionDone
from twisted.names import dns
from twisted.names.error import DNSNameError
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from meshgw.backends.connecting import Resolve, addresses_of
from meshgw.errors import BackendError, BackendMalformed, BackendRefused, BackendSilent, BackendUnreachable, MeshError

PAYLOAD: Final = 2048
"""Bytes of a datagram that servers may send (linkerd-config spec 3.9)."""
ROUND_SECONDS: Final = (1.0, 2.0, 4.0)
"""How long each server's answer is awaited in the first round over all servers, the second, and the last."""
CONNECTION_SECONDS: Final = 4.0
"""For an answer over a connection, its making included."""
QUESTION_SECONDS: Final = 8.5
"""For all of it: under the 9 s of a lookup and the 10 s of a binding, so that their errors can name the cause."""
MOST_AT_ONCE: Final = 64
"""Questions of one record type under way; each has a socket, and a service of a thousand hosts must not take all of them."""
MOST_POINTERS: Final = 20_000
"""Compressed names followed in one answer: 64 KiB hold some thousand records, each of which has one."""

_MESSAGE_BYTES: Final = 65535
_HEADER: Final = struct.Struct("!6H")
_OPT: Final = 41
_NO_EDNS: Final = (dns.EFORMAT, dns.ENOTIMP)  # what servers say that know no EDNS (RFC 6891 section 7)
_MEANINGS: Final = {
    dns.EFORMAT: "it does not understand the question (FORMERR)",
    dns.ESERVER: "it reports a failure (SERVFAIL)",
    dns.ENOTIMP: "it does not know such questions (NOTIMP)",
    dns.EREFUSED: "it refuses the question (REFUSED)",
}

Server = tuple[str, int]
Answer = tuple[list[dns.RRHeader], list[dns.RRHeader], list[dns.RRHeader]]


class _Message(dns.Message):
    maxCompressionPointers = MOST_POINTERS


@attrs.frozen
class Question:
    """One name and record type, with the number that its answer must bear."""

    name: str
    kind: int
    id: int = attrs.field(factory=partial(randbits, 16))

    def encode(self, *, edns: bool) -> bytes:
        """The message to send."""
        message = dns.Message(id=self.id, recDes=1)
        message.addQuery(self.name.encode("ascii"), self.kind)
        if edns:
            message.additional.append(dns.RRHeader(b"", _OPT, PAYLOAD, 0, dns.UnknownRecord(b"")))  # type: ignore[no-untyped-call]
        return message.toStr()

    def decode(self, data: bytes) -> dns.Message | None:
        """The answer in ``data``; None if it is not to this question. Raises ValueError if it is no whole message."""
        if len(data) < _HEADER.size:
            raise ValueError("too short")
        id, _flags, _questions, answers, *_others = _HEADER.unpack_from(data)
        if id != self.id:
            return None
        message = _Message()
        try:
            message.fromStr(data)
        except Exception as error:  # the decoder of twisted.names lets escape whatever the bytes provoke
            raise ValueError(type(error).__name__) from error
        asked = [(query.name.name.lower(), query.type) for query in message.queries]
        if not message.answer or asked not in ([(self.name.encode().lower(), self.kind)], []):
            return None
        if len(message.answers) != answers and not message.trunc:  # the decoder takes a message that was cut for a shorter one
            raise ValueError("cut short")
        return message


class _Datagram(DatagramProtocol):
    """One question to one server; the socket takes no datagrams of others."""

    noisy = False

    def __init__(self, server: Server, question: Question, data: bytes) -> None:
        self._server, self._question, self._data = server, question, data
        self.answer: Deferred[dns.Message] = Deferred()

    def startProtocol(self) -> None:
        transport: Any = self.transport
        try:
            transport.connect(*self._server)
            transport.write(self._data)
        except OSError as error:
            self._end(BackendUnreachable(backend=_shown(self._server), reason=error.strerror or str(error)))

    def datagramReceived(self, data: bytes, _addr: object) -> None:
        try:
            message = self._question.decode(data)
        except ValueError as error:
            self._end(error)
            return
        if message is not None and not self.answer.called:
            self.answer.callback(message)

    def connectionRefused(self) -> None:
        self._end(BackendUnreachable(backend=_shown(self._server), reason="connection refused"))

    def stopProtocol(self) -> None:
        self.connectionRefused()  # so does the epoll reactor tell it; after our own end it changes nothing

    def _end(self, error: Exception) -> None:
        if not self.answer.called:
            self.answer.errback(error)


class _Stream(Int16StringReceiver):
    """One question over a connection."""

    def __init__(self, question: Question, data: bytes) -> None:
        self._question, self._data = question, data
        self.answer: Deferred[dns.Message] = Deferred()

    def connectionMade(self) -> None:
        self.sendString(self._data)  # type: ignore[no-untyped-call]

    def stringReceived(self, data: bytes) -> None:
        if self.answer.called:
            return
        try:
            message = self._question.decode(data)
        except ValueError as error:
            self.answer.errback(error)
        else:
            if message is not None:
                self.answer.callback(message)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.answer.called:
            self.answer.errback(reason)


class NameServerClient:
    """Asks the servers that ``hosts`` gives at the moment, in their order; ``resolve`` finds those that are not literal addresses."""

    def __init__(self, reactor: Any, hosts: Callable[[], Sequence[Server]], resolve: Resolve | None = None) -> None:
        self._reactor, self._hosts, self._resolve = reactor, hosts, resolve
        self._turns: defaultdict[int, DeferredSemaphore] = defaultdict(partial(DeferredSemaphore, MOST_AT_ONCE))

    # --- for the resolver of host names (``namers.dns``)

    def lookupAddress(self, name: str, timeout: Any = None) -> Deferred[Answer]:
        """The A records of ``name``; raises DNSNameError if there is no such name."""
        return Deferred.fromCoroutine(self._records(name, dns.A))

    def lookupIPV6Address(self, name: str, timeout: Any = None) -> Deferred[Answer]:
        """The AAAA records of ``name``, likewise."""
        return Deferred.fromCoroutine(self._records(name, dns.AAAA))

    async def _records(self, name: str, kind: int) -> Answer:
        message = await self.ask(name, kind)
        if message.rCode == dns.ENAME:
            raise DNSNameError(message)
        return message.answers, message.authority, message.additional

    # --- asking

    async def ask(self, name: str, kind: int) -> dns.Message:
        """An answer that says what records there are, or (``rCode`` ENAME) that there is no such name. Raises :class:`BackendError`."""
        turn = self._turns[kind]  # so that a service's records need not wait for the addresses of a thousand hosts
        await turn.acquire()
        try:
            asked = Deferred.fromCoroutine(self._ask_all(name, kind))
            return await asked.addTimeout(QUESTION_SECONDS, self._reactor)
        except defer.TimeoutError as error:
            raise BackendSilent(backend="DNS", reason=f"no answer from any name server within {QUESTION_SECONDS:g} s") from error
        finally:
            turn.release()

    async def _ask_all(self, name: str, kind: int) -> dns.Message:
        problem: BackendError = BackendUnreachable(backend="DNS", reason="no name server is known")
        for seconds in ROUND_SECONDS:
            is_silent = False
            for host in self._hosts():
                try:
                    return await self._ask_host(host, Question(name, kind), seconds)
                except BackendError as error:
                    problem = error
                    is_silent = is_silent or isinstance(error, BackendSilent)
            if not is_silent:
                break  # what was answered would be answered again; datagrams can be lost
        raise problem

    async def _ask_host(self, host: Server, question: Question, seconds: float) -> dns.Message:
        problem: BackendError = BackendUnreachable(backend=_shown(host), reason="it has no address")
        for server in await self._addresses(host):
            try:
                return await self._ask_server(server, question, seconds)
            except BackendError as error:
                problem = error
        raise problem

    async def _addresses(self, host: Server) -> Sequence[Server]:
        if isIPAddress(host[0]) or isIPv6Address(host[0]):
            return (host,)
        if self._resolve is None:
            return ()
        try:
            found = await addresses_of(self._resolve(*host), host[0], self._reactor)
        except (MeshError, defer.TimeoutError) as error:
            raise BackendUnreachable(backend=_shown(host), reason=str(error) or "its address is not known yet") from error
        return [(address.host, address.port) for address in found]

    async def _ask_server(self, server: Server, question: Question, seconds: float) -> dns.Message:
        message = await self._by_datagram(server, question, seconds, edns=True)
        with_edns = message.rCode not in _NO_EDNS
        if not with_edns:
            message = await self._by_datagram(server, question, seconds, edns=False)
        if message.trunc:
            message = await self._by_connection(server, question, edns=with_edns)
        if message.rCode not in (dns.OK, dns.ENAME):
            reason = _MEANINGS.get(message.rCode, f"it answers with error {message.rCode}")
            raise BackendRefused(backend=_shown(server), reason=reason, asked=question.name, code=message.rCode)
        return message

    async def _by_datagram(self, server: Server, question: Question, seconds: float, *, edns: bool) -> dns.Message:
        protocol = _Datagram(server, question, question.encode(edns=edns))
        try:
            port = self._reactor.listenUDP(0, protocol, interface="::" if ":" in server[0] else "", maxPacketSize=_MESSAGE_BYTES)
        except net.CannotListenError as error:
            raise BackendUnreachable(backend=_shown(server), reason=f"no socket for asking it: {error.socketError}") from error
        try:
            return await protocol.answer.addTimeout(seconds, self._reactor)
        except (defer.TimeoutError, ValueError) as error:
            raise _problem(server, question, error, seconds) from error
        finally:
            port.stopListening()

    async def _by_connection(self, server: Server, question: Question, *, edns: bool) -> dns.Message:
        kind = TCP6ClientEndpoint if ":" in server[0] else TCP4ClientEndpoint
        endpoint = kind(self._reactor, *server, timeout=CONNECTION_SECONDS)
        factory = Factory.forProtocol(partial(_Stream, question, question.encode(edns=edns)))
        factory.noisy = False
        stream: Any = None
        try:
            stream = await endpoint.connect(factory)
            answer: Deferred[dns.Message] = stream.answer
            return await answer.addTimeout(CONNECTION_SECONDS, self._reactor)
        except (defer.TimeoutError, net.ConnectError, net.ConnectionClosed, ValueError) as error:
            raise _problem(server, question, error, CONNECTION_SECONDS) from error
        finally:
            if stream is not None:
                stream.transport.abortConnection()


def _problem(server: Server, question: Question, error: Exception, seconds: float) -> BackendError:
    """The error in an operator's words."""
    name, asked = _shown(server), question.name
    if isinstance(error, defer.TimeoutError | net.TimeoutError):
        return BackendSilent(backend=name, reason=f"no answer within {seconds:g} s", asked=asked)
    if isinstance(error, ValueError):
        return BackendMalformed(backend=name, reason=f"it answered with what is no DNS message ({error})", asked=asked)
    if isinstance(error, net.ConnectionRefusedError):
        return BackendUnreachable(backend=name, reason="connection refused")
    text = str(error).strip().rstrip(".")
    reason = f"no connection: {text}" if isinstance(error, net.ConnectError) else f"the connection broke: {text}"
    return BackendUnreachable(backend=name, reason=reason)


def _shown(server: Server) -> str:
    host, port = server
    return f"name server [{host}]:{port}" if ":" in host else f"name server {host}:{port}"
