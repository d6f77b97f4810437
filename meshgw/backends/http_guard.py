"""What twisted.web's client does not limit on a connection: the head of an answer, and the time of a TLS handshake.

Its parser bounds the length of a line and not their number, and a peer that takes the connection and shakes no hands would be waited for
as long as the request is: ten minutes for a long poll.
"""

from __future__ import annotations

from typing import Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

LARGEST_HEAD: Final = 64 << 10
"""Bytes of an answer's head, with those of interim answers before it. Servers' own limits for requests are 8 to 64 KiB."""
HANDSHAKE_SECONDS: Final = 10.0


class HeadTooLarge(Exception):
    """An answer's head did not end within the limit."""


class NoHandshake(Exception):
    """TLS was not established in time."""


@implementer(IHandshakeListener)
class _Guard(ProtocolWrapper):
    """Between HTTP's protocol and its transport: sees both directions, changes nothing, and ends what breaks a limit."""

    def __init__(self, factory: _GuardFactory, wrappedProtocol: IProtocol) -> None:
        super().__init__(cast("Any", factory), wrappedProtocol)
        self._clock, self._is_tls = factory.clock, factory.is_tls
        self._head = bytearray()
        self._left = 0
        self._is_head = False
        self._late: IDelayedCall | None = None
        self._problem: Exception | None = None

    def makeConnection(self, transport: Any) -> None:
        """TCP is connected."""
        if self._is_tls:
            self._late = self._clock.callLater(HANDSHAKE_SECONDS, self._end, NoHandshake())
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def handshakeCompleted(self) -> None:
        """TLS is established."""
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()

    def write(self, data: bytes) -> None:
        """A request goes out: what comes next is the head of its answer."""
        self._expect_head()
        super().write(data)  # type: ignore[no-untyped-call]

    def writeSequence(self, data: Any) -> None:
        """As :meth:`write`."""
        self._expect_head()
        super().writeSequence(data)  # type: ignore[no-untyped-call]

    def _expect_head(self) -> None:
        self._is_head, self._left = True, LARGEST_HEAD
        self._head.clear()

    def dataReceived(self, data: bytes) -> None:
        """Pass it on, unless the head has become too large."""
        if self._is_head and self._is_too_large(data):
            self._end(HeadTooLarge())
        elif self._problem is None:
            super().dataReceived(data)  # type: ignore[no-untyped-call]

    def _is_too_large(self, data: bytes) -> bool:
        """Whether the head goes on beyond the limit; lines may end without CR, as the parser has it."""
        self._head += data
        while self._is_head:
            ends = [end for end in (self._head.find(b"\n\r\n") + 3, self._head.find(b"\n\n") + 2) if end > 2]
            if not ends:
                return len(self._head) > self._left
            end = min(ends)
            self._left -= end
            self._is_head = self._head[:10].partition(b" ")[2][:1] == b"1"  # an interim answer: another head follows
            del self._head[:end]
            if self._left < 0:
                return True
        self._head.clear()
        return False

    def _end(self, problem: Exception) -> None:
        self._problem = problem
        cast("Any", self.transport).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over, for the reason that is known here if there is one."""
        self.handshakeCompleted()
        super().connectionLost(reason if self._problem is None else Failure(self._problem))  # type: ignore[no-untyped-call]


class _GuardFactory(WrappingFactory[_Guard]):
    noisy = False
    protocol = _Guard

    def __init__(self, factory: IProtocolFactory, clock: IReactorTime, *, is_tls: bool) -> None:
        super().__init__(factory)  # type: ignore[no-untyped-call]
        self.clock, self.is_tls = clock, is_tls


@implementer(IStreamClientEndpoint)
class GuardedEndpoint:
    """``endpoint`` for HTTP within these limits, over the TLS that ``creator`` gives, if any."""

    def __init__(self, endpoint: IStreamClientEndpoint, clock: IReactorTime, creator: IOpenSSLClientConnectionCreator | None) -> None:
        self._endpoint, self._clock, self._creator = endpoint, clock, creator

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See :class:`IStreamClientEndpoint`."""
        factory: Any = _GuardFactory(protocolFactory, self._clock, is_tls=self._creator is not None)
        if self._creator is not None:
            # Not wrapClientTLS: not every Twisted that has it can be told the clock, by which what was written is sent.
            factory = TLSMemoryBIOFactory(self._creator, True, factory, self._clock)
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(_http_protocol)


def _http_protocol(outermost: ProtocolWrapper) -> IProtocol:
    """What is inside of the wrappers: the pool takes the protocol of HTTP."""
    inner: Any = outermost
    while isinstance(inner, ProtocolWrapper):
        inner = inner.wrappedProtocol
    return cast("IProtocol", inner)
