"""The HTTP/1.1 connections to one backend's API, kept from one question to the next.

Source: RFC 9112 section 9.3. What happens on a connection is in ``http_connection``.
"""

from __future__ import annotations

import re
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IOpenSSLClientConnectionCreator, IProtocol, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.http_headers import Headers

from meshgw.backends.http_bodies import WholeBody
from meshgw.backends.http_connection import HttpConnection, Question, Response
from meshgw.errors import NamerError
from meshgw.wire.http1 import ResponseTable

MOST_IDLE: Final = 64
"""Connections kept between requests; those of long polls under way do not count."""
IDLE_SECONDS: Final = 30.0  # below the minute after which common servers and proxies close idle connections
_TARGET: Final = re.compile(rb"/[!-~]*\Z")
_METHOD: Final = re.compile(rb"[A-Z]{1,16}\Z")


class _Connecting(Factory):
    """Makes the connections of one owner."""

    noisy = False

    def __init__(self, owner: HttpConnections) -> None:
        self._owner = owner

    def buildProtocol(self, _address: object) -> HttpConnection:
        """Another one."""
        return HttpConnection(self._owner)


class HttpConnections:
    """The connections to one API by ``endpoint``; what is used of twisted.web's ``IAgent``.

    ``base`` begins all URIs, ``host`` is told to the API. With ``creator`` there is TLS.
    """

    def __init__(
        self, endpoint: IStreamClientEndpoint, clock: IReactorTime, creator: IOpenSSLClientConnectionCreator | None, *, base: str, host: str
    ) -> None:
        self._endpoint, self.clock, self.is_tls = endpoint, clock, creator is not None
        self._base, self._host = base.encode("ascii"), host.encode("ascii")
        self.table = ResponseTable()
        self._idle: list[HttpConnection] = []
        self._tidying: IDelayedCall | None = None
        self._fields, self._lines = Headers(), b""
        factory: Any = _Connecting(self)
        if creator is not None:
            # Not wrapClientTLS: not every Twisted that has it can be told the clock, by which what was written is sent.
            factory = TLSMemoryBIOFactory(creator, True, factory, clock)
            factory.noisy = False
        self._factory = factory

    def request(self, method: bytes, uri: bytes, headers: Headers, body: WholeBody | None = None) -> Deferred[Response]:
        """Ask; the result comes with the head of the answer. ``headers`` are not to be changed afterwards. Raises :class:`NamerError`."""
        target = uri.removeprefix(self._base)
        if _TARGET.match(target) is None or _METHOD.match(method) is None:
            raise NamerError(detail="a request whose path cannot be written in HTTP")
        length = b""
        if body is not None or method in (b"POST", b"PUT"):
            length = b"Content-Length: %d\r\n" % (0 if body is None else body.length)
        question = Question(method, b"%b %b HTTP/1.1\r\n%b%b\r\n" % (method, target, self._lines_of(headers), length), body)
        answered = question.answered
        assert answered is not None
        if self._idle:
            self._idle.pop().ask(question)
        else:
            self.connect(question)
        return answered

    def _lines_of(self, headers: Headers) -> bytes:
        """The field lines of each question, which are mostly those of the one before."""
        if headers is not self._fields:
            lines = [b"%b: %b\r\n" % (name, value) for name, values in headers.getAllRawHeaders() for value in values]
            if not headers.hasHeader(b"host"):
                lines.insert(0, b"Host: %b\r\n" % self._host)
            self._fields, self._lines = headers, b"".join(lines)
        return self._lines

    def connect(self, question: Question) -> None:
        """Ask it on a new connection."""
        connecting: Deferred[Any] = self._endpoint.connect(self._factory)
        question.cancel = connecting.cancel
        connecting.addCallbacks(_asked_on, question.tell, callbackArgs=(question,))

    # --- idle connections

    def keep(self, connection: HttpConnection) -> None:
        """It can be asked again."""
        connection.idle_since = self.clock.seconds()
        self._idle.append(connection)
        if len(self._idle) > MOST_IDLE:
            self._idle.pop(0).close()
        if self._tidying is None:
            self._tidying = self.clock.callLater(IDLE_SECONDS, self._tidy)

    def _tidy(self) -> None:
        """Close what has been idle for too long: one timer for all, as most are asked again at once."""
        self._tidying = None
        now = self.clock.seconds()
        while self._idle and now - self._idle[0].idle_since >= IDLE_SECONDS:
            self._idle.pop(0).close()
        if self._idle:
            self._tidying = self.clock.callLater(self._idle[0].idle_since + IDLE_SECONDS - now, self._tidy)

    def lost(self, connection: HttpConnection) -> None:
        """It has ended."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close_idle(self) -> None:
        """Close those that nobody uses."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None


def _asked_on(outermost: IProtocol, question: Question) -> None:
    """TCP is connected: ask on the connection that is within the wrappers of TLS."""
    inner: Any = outermost
    while isinstance(inner, ProtocolWrapper):
        inner = inner.wrappedProtocol
    if question.answered is None:
        inner.abort()
    else:
        inner.ask(question)
