"""Asking name servers: a question by datagram, by connection when the answer does not fit into one, server after server.

Source: RFC 1035 section 4.2, RFC 6891 (larger datagrams), RFC 7766 (connections), RFC 5452 section 9 (what answers must match). Whatever
keeps a server from answering is a :class:`BackendError` that names it. The meaning of records is the caller's business; nothing is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from secrets import randbits
from socket import AF_INET, AF_INET6, inet_ntop
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

from meshgw.backends.hosts import Resolve, addresses_of
from meshgw.errors import BackendError, BackendMalformed, BackendRefused, BackendSilent, BackendUnreachable, MeshError
from meshgw.wire import dns as wire

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
MOST_KNOWN_AT_ONCE: Final = 32
"""As many again for names that were answered last time: names come from callers, and those whose servers are silent keep their places for
seconds. Behind a few hundred of them the addresses of services that are in use would be minutes old.
"""
MOST_KNOWN: Final = 10_000
"""Names and record types that are remembered for that."""

_MESSAGE_BYTES: Final = 65535
_NO_EDNS: Final = (wire.FORMAT_ERROR, wire.NOT_IMPLEMENTED)  # what servers say that know no EDNS (RFC 6891 section 7)
_MEANINGS: Final = {
    wire.FORMAT_ERROR: "it does not understand the question (FORMERR)",
    wire.SERVER_FAILURE: "it reports a failure (SERVFAIL)",
    wire.NOT_IMPLEMENTED: "it does not know such questions (NOTIMP)",
    wire.REFUSED: "it refuses the question (REFUSED)",
}

Server = tuple[str, int]
Answer = tuple[list[dns.RRHeader], list[dns.RRHeader], list[dns.RRHeader]]
"""What ``twisted.names`` gives, and ``namers.dns`` takes: answers, authority, additional."""


@attrs.frozen
class Question:
    """One name and kind of record, with the number that its answer must bear."""

    name: str
    kind: int
    id: int = attrs.field(factory=partial(randbits, 16))

    def encode(self, *, edns: bool) -> bytes:
        """The message to send."""
        return wire.encode_question(self.id, self.name, self.kind, payload=PAYLOAD if edns else None)

    def decode(self, data: bytes) -> wire.Answer | None:
        """The answer in ``data``; None if it is not to this question. Raises ValueError if it is no whole message."""
        answer = wire.read_answer(data)
        is_ours = answer.id == self.id and answer.is_answer and answer.asked in ((self.name.lower().removesuffix("."), self.kind), None)
        return answer if is_ours else None


class _Datagram(DatagramProtocol):
    """One question to one server; the socket takes no datagrams of others."""

    noisy = False

    def __init__(self, server: Server, question: Question, data: bytes) -> None:
        self._server, self._question, self._data = server, question, data
        self.answer: Deferred[wire.Answer] = Deferred()

    def startProtocol(self) -> None:
        transport: Any = self.transport
        try:
            transport.connect(*self._server)
            transport.write(self._data)
        except OSError as error:
            self._end(BackendUnreachable(backend=_shown(self._server), reason=error.strerror or str(error)))

    def datagramReceived(self, data: bytes, _addr: object) -> None:
        try:
            answer = self._question.decode(data)
        except ValueError as error:
            if data[:2] == self._question.id.to_bytes(2, "big"):  # else it is none of ours, as anybody's datagram may be
                self._end(error)
            return
        if answer is not None and not self.answer.called:
            self.answer.callback(answer)

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
        self.answer: Deferred[wire.Answer] = Deferred()

    def connectionMade(self) -> None:
        self.sendString(self._data)  # type: ignore[no-untyped-call]

    def stringReceived(self, data: bytes) -> None:
        if self.answer.called:
            return
        try:
            answer = self._question.decode(data)
        except ValueError as error:
            self.answer.errback(error)
        else:
            if answer is not None:
                self.answer.callback(answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.answer.called:
            self.answer.errback(reason)


class NameServerClient:
    """Asks the servers that ``hosts`` gives at the moment, in their order; ``resolve`` finds those that are not literal addresses."""

    def __init__(self, reactor: Any, hosts: Callable[[], Sequence[Server]], resolve: Resolve | None = None) -> None:
        self._reactor, self._hosts, self._resolve = reactor, hosts, resolve
        self._turns: defaultdict[int, DeferredSemaphore] = defaultdict(partial(DeferredSemaphore, MOST_AT_ONCE))
        self._known_turns: defaultdict[int, DeferredSemaphore] = defaultdict(partial(DeferredSemaphore, MOST_KNOWN_AT_ONCE))
        self._known: dict[tuple[str, int], None] = {}

    # --- for the resolver of host names (``namers.dns``)

    def lookupAddress(self, name: str, timeout: Any = None) -> Deferred[Answer]:
        """The A records of ``name``; raises DNSNameError if there is no such name."""
        return Deferred.fromCoroutine(self._records(name, dns.A))

    def lookupIPV6Address(self, name: str, timeout: Any = None) -> Deferred[Answer]:
        """The AAAA records of ``name``, likewise."""
        return Deferred.fromCoroutine(self._records(name, dns.AAAA))

    async def _records(self, name: str, kind: int) -> Answer:
        answer = await self.ask(name, kind)
        answers, authority = _headers(name, answer.answers), _headers(name, answer.authority)
        if answer.code == wire.NO_SUCH_NAME:
            message = dns.Message(rCode=dns.ENAME)
            message.authority = authority
            raise DNSNameError(message)
        return answers, authority, []

    # --- asking

    async def ask(self, name: str, kind: int) -> wire.Answer:
        """An answer that says what records there are, or (``code`` NO_SUCH_NAME) that there is no such name.

        Raises :class:`BackendError`.
        """
        # by record type, so that a service's records need not wait for the addresses of a thousand hosts
        turn = (self._known_turns if (name, kind) in self._known else self._turns)[kind]
        await turn.acquire()
        self._known.pop((name, kind), None)
        try:
            asked = Deferred.fromCoroutine(self._ask_all(name, kind))
            answer = await asked.addTimeout(QUESTION_SECONDS, self._reactor)
        except defer.TimeoutError as error:
            raise BackendSilent(backend="DNS", reason=f"no answer from any name server within {QUESTION_SECONDS:g} s") from error
        finally:
            turn.release()
        self._known[name, kind] = None
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return answer

    async def _ask_all(self, name: str, kind: int) -> wire.Answer:
        problem: BackendError | None = None
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
        raise problem or BackendUnreachable(backend="DNS", reason="no name server is known")

    async def _ask_host(self, host: Server, question: Question, seconds: float) -> wire.Answer:
        problem: BackendError | None = None
        for server in await self._addresses(host):
            try:
                return await self._ask_server(server, question, seconds)
            except BackendError as error:
                problem = error
        raise problem or BackendUnreachable(backend=_shown(host), reason="it has no address")

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

    async def _ask_server(self, server: Server, question: Question, seconds: float) -> wire.Answer:
        answer = await self._by_datagram(server, question, seconds, edns=True)
        with_edns = answer.code not in _NO_EDNS
        if not with_edns:
            answer = await self._by_datagram(server, question, seconds, edns=False)
        if answer.is_truncated:
            answer = await self._by_connection(server, question, edns=with_edns)
        reason = _objection(answer)
        if reason is not None:
            raise BackendRefused(backend=_shown(server), reason=reason, asked=question.name, code=answer.code)
        return answer

    async def _by_datagram(self, server: Server, question: Question, seconds: float, *, edns: bool) -> wire.Answer:
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

    async def _by_connection(self, server: Server, question: Question, *, edns: bool) -> wire.Answer:
        kind = TCP6ClientEndpoint if ":" in server[0] else TCP4ClientEndpoint
        endpoint = kind(self._reactor, *server, timeout=CONNECTION_SECONDS)
        factory = Factory.forProtocol(partial(_Stream, question, question.encode(edns=edns)))
        factory.noisy = False
        stream: Any = None
        try:
            stream = await endpoint.connect(factory)
            answer: Deferred[wire.Answer] = stream.answer
            return await answer.addTimeout(CONNECTION_SECONDS, self._reactor)
        except (defer.TimeoutError, net.ConnectError, net.ConnectionClosed, ValueError) as error:
            raise _problem(server, question, error, CONNECTION_SECONDS) from error
        finally:
            if stream is not None:
                stream.transport.abortConnection()


def _objection(answer: wire.Answer) -> str | None:
    """Why an answer does not tell whether there are such records, if it does not."""
    if answer.code not in (wire.NO_ERROR, wire.NO_SUCH_NAME):
        return _MEANINGS.get(answer.code, f"it answers with error {answer.code}")
    if answer.is_truncated:
        return "its answer is truncated even over a connection"
    if not (answer.answers or answer.is_authority or answer.can_recurse):
        return "it knows nothing of the name, and does not ask others"
    return None


def _headers(name: str, records: Sequence[wire.Record]) -> list[dns.RRHeader]:
    """Records as ``twisted.names`` has them."""
    made: Any = dns  # which has no types
    headers = []
    for record in records:
        data, ttl = record.data, record.ttl
        payload: Any = None
        match record.kind, data:
            case wire.A, bytes():
                payload = made.Record_A(inet_ntop(AF_INET, data), ttl)
            case wire.AAAA, bytes():
                payload = made.Record_AAAA(inet_ntop(AF_INET6, data), ttl)
            case wire.CNAME, _:
                payload = made.Record_CNAME(b"", ttl)
            case wire.SOA, int():
                payload = made.Record_SOA(minimum=data, ttl=ttl)
        if payload is not None:
            headers.append(dns.RRHeader(name, record.kind, dns.IN, ttl, payload))
    return headers


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
