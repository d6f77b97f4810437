"""One HTTP/1.1 connection to a backend's API: a question at a time, with a limit on every size and wait.

Source: RFC 9112. A question of discovery is asked for each change of each service, so this is no more than an API needs: no redirects,
cookies, proxies or pipelining. Heads and framing are read by ``wire.http1`` and as strictly, but that lines may end without CR. Who has
the connections, and keeps them, is ``http_agent``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, cast
from typing import Protocol as Typed

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from zope.interface import implementer

from meshgw.backends.http_bodies import WholeBody
from meshgw.wire.headers import Headers as Fields
from meshgw.wire.http1 import CHUNKED, UNTIL_CLOSE, Body, ChunkedBody, CloseBody, FixedBody, ResponseTable, read_response

LARGEST_HEAD: Final = 64 << 10
"""Bytes of an answer's head, with those of interim answers before it. Servers' own limits for requests are 8 to 64 KiB."""
HANDSHAKE_SECONDS: Final = 10.0
"""For TLS: a peer that takes the connection and shakes no hands would be waited for as long as for an answer, minutes for a long poll."""
FAREWELL_SECONDS: Final = 5.0
_REPEATABLE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))
"""Methods of questions that are asked again if a connection that was kept turns out to be closed."""
_BEGIN: Final = b"HTTP/1."
_HEAD_END: Final = re.compile(rb"\n\r?\n")


class HeadTooLarge(Exception):
    """An answer's head did not end within the limit."""


class NoHandshake(Exception):
    """TLS was not established in time."""


class NotHttp(Exception):
    """What came is no answer of HTTP, or one that could be read in two ways."""


class Question:
    """What is asked: bytes to send, and who is told of the answer."""

    __slots__ = ("answered", "body", "cancel", "head", "is_repeatable", "method")

    def __init__(self, method: bytes, head: bytes, body: WholeBody | None) -> None:
        self.method, self.head, self.body = method, head, body
        self.is_repeatable = method in _REPEATABLE and body is None
        self.cancel: Callable[[], object] | None = None
        """Ends the attempt that is under way."""
        self.answered: Deferred[Response] | None = Deferred(self._cancelled)

    def _cancelled(self, _answered: object) -> None:
        self.answered = None  # Deferred.cancel tells who waits
        if self.cancel is not None:
            self.cancel()

    def tell(self, outcome: Response | Failure) -> None:
        """Give the head of the answer, or what kept it from coming, to who waits, if anybody still does."""
        answered, self.answered, self.cancel = self.answered, None, None
        if answered is None:
            return
        if isinstance(outcome, Failure):
            answered.errback(outcome)
        else:
            answered.callback(outcome)


class ReceivedHeaders:
    """The fields of an answer, as :class:`Headers` of twisted.web has them."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Fields) -> None:
        self._fields = fields

    def getAllRawHeaders(self) -> Iterator[tuple[bytes, list[bytes]]]:
        """Names in lower case with their values, in order of their first line."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in self._fields.items():
            found.setdefault(name, []).append(value)
        return iter(found.items())


class Response:
    """An answer whose head has come, with what is used of ``IResponse``; the transport of whoever reads its body."""

    __slots__ = ("_connection", "code", "headers")

    def __init__(self, connection: HttpConnection, code: int, fields: Fields) -> None:
        self.code, self.headers = code, ReceivedHeaders(fields)
        self._connection: HttpConnection | None = connection

    def deliverBody(self, reader: Protocol) -> None:
        """Give the body to ``reader`` as it comes, and say at its end how it ended, as ``IResponse`` has it."""
        reader.makeConnection(cast("Any", self))  # type: ignore[no-untyped-call]
        if self._connection is not None:
            self._connection.read(reader)
        else:
            reader.connectionLost(connectionDone)  # it ended before anybody read

    def ended(self) -> None:
        """The connection has to do with another answer from now on, or with none."""
        self._connection = None

    def pauseProducing(self) -> None:
        """Hold the sender back."""
        if self._connection is not None:
            self._connection.hold()

    def resumeProducing(self) -> None:
        """Let it send on."""
        if self._connection is not None:
            self._connection.go_on()

    def loseConnection(self) -> None:
        """The rest is not wanted."""
        if self._connection is not None:
            self._connection.abort()

    stopProducing = loseConnection


class Owner(Typed):
    """Whose connections they are."""

    clock: IReactorTime
    is_tls: bool
    table: ResponseTable

    def connect(self, question: Question) -> None:
        """Ask it on a new connection."""
        ...

    def keep(self, connection: HttpConnection) -> None:
        """It can be asked again."""
        ...

    def lost(self, connection: HttpConnection) -> None:
        """It has ended."""
        ...


@implementer(IHandshakeListener)
class HttpConnection(Protocol):
    """One connection: asks a question, reads its answer, and is given back to ``owner`` when it can be asked another."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._late: IDelayedCall | None = None
        self._question: Question | None = None
        self._response: Response | None = None
        self._reader: Protocol | None = None
        self._body: Body | None = None
        self._buffer = b""
        self._head_left = 0
        self._is_first, self._keeps, self._is_held = True, False, False
        self.idle_since = 0.0
        # what is read of a head, as ``wire.http1.Response`` has it
        self.status, self.status_line, self.response, self.response_length = 0, b"", Fields(), 0

    # --- connecting

    def connectionMade(self) -> None:
        """TCP is connected."""
        if self._owner.is_tls:
            self._late = self._owner.clock.callLater(HANDSHAKE_SECONDS, self._fail, NoHandshake())

    def handshakeCompleted(self) -> None:
        """TLS is established."""
        self._in_time()

    def _in_time(self) -> None:
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()

    # --- asking

    def ask(self, question: Question) -> None:
        """Send a question; there must be none under way."""
        self._question = question
        question.cancel = self.abort
        self._head_left = LARGEST_HEAD
        transport = cast("Any", self.transport)
        transport.write(question.head)
        if question.body is not None:
            question.body.startProducing(transport)

    def dataReceived(self, data: bytes) -> None:
        """A part of the answer; anything else ends the connection."""
        if self._body is not None:
            self._take(data)
        elif self._question is not None:
            self._buffer = self._buffer + data if self._buffer else data
            self._read_heads()
        else:
            self.abort()

    def _read_heads(self) -> None:
        while True:
            buffer = self._buffer
            if not buffer.startswith(_BEGIN) and not _BEGIN.startswith(buffer):
                self._fail(NotHttp())
                return
            end = _HEAD_END.search(buffer)
            if (len(buffer) if end is None else end.end()) > self._head_left:
                self._fail(HeadTooLarge())
                return
            if end is None:
                return
            self._head_left -= end.end()
            self._buffer = buffer[end.end() :]
            if not self._read_head(buffer[: end.start()]):
                return

    def _read_head(self, head: bytes) -> bool:
        """Whether another head follows, as that was one of an interim answer."""
        question = self._question
        assert question is not None
        lines = head.removesuffix(b"\r")
        if lines.count(b"\n") != lines.count(b"\r\n"):
            lines = lines.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        try:
            self._keeps = read_response(lines, self._owner.table, question.method, self)
        except ValueError:
            self._fail(NotHttp())
            return False
        if self.status < 200 and self.status != 101:
            return True
        if self.status == 101:  # nobody asked for another protocol
            self._fail(NotHttp())
            return False
        length = self.response_length
        if length == CHUNKED:
            self._body = ChunkedBody(self._owner.table)
        else:
            self._body = CloseBody() if length == UNTIL_CLOSE else FixedBody(length)
        self._response = response = Response(self, self.status, self.response)
        self._question, self.response = None, Fields()
        question.tell(response)
        if self._reader is None and self._response is response:
            self.hold()  # until somebody reads it
        return False

    # --- the body

    def read(self, reader: Protocol) -> None:
        """Give the body of the present answer to ``reader``."""
        self._reader = reader
        if self._is_held:
            self.go_on()
        data, self._buffer = self._buffer, b""
        self._take(data)

    def _take(self, data: bytes) -> None:
        body, reader = self._body, self._reader
        if body is None:
            return
        if reader is None:  # came although the sender is held back: what was read before that
            self._buffer += data
            return
        part = body.feed(data) if data or not body.done else b""
        if part:
            reader.dataReceived(part)
        if self._body is not body:
            return  # the reader wants no more
        if body.error is not None:
            self._fail(NotHttp())
        elif body.done:
            self._complete(reader, keeps=self._keeps and not body.rest)

    def _complete(self, reader: Protocol, *, keeps: bool) -> None:
        """The answer is whole. Who reads it may ask the next question at once, so the connection is given back before."""
        self._let_go()
        if self._is_held:
            self.go_on()
        if keeps:
            self._is_first = False
            self._owner.keep(self)
        else:
            self.close()
        reader.connectionLost(_DONE)

    def _let_go(self) -> None:
        """Forget the answer, and be forgotten by it."""
        response, self._response, self._reader, self._body = self._response, None, None, None
        if response is not None:
            response.ended()

    def hold(self) -> None:
        """Read nothing."""
        self._is_held = True
        cast("Any", self.transport).pauseProducing()

    def go_on(self) -> None:
        """Read."""
        self._is_held = False
        cast("Any", self.transport).resumeProducing()

    # --- ending

    def close(self) -> None:
        """End it, as nobody wants it; TLS waits for the peer's farewell, but not for long."""
        if self._owner.is_tls and self._late is None:
            self._late = self._owner.clock.callLater(FAREWELL_SECONDS, self.abort)
        cast("Any", self.transport).loseConnection()

    def abort(self) -> None:
        """End it at once; whoever asked or reads is not told."""
        self._owner.lost(self)  # now, as the transport tells of its end later, and nobody is to ask on it until then
        self._question = None
        self._let_go()
        self._buffer = b""
        self._in_time()
        cast("Any", self.transport).abortConnection()

    def _fail(self, problem: Exception) -> None:
        """End it at once for a reason that is told."""
        question, reader = self._question, self._reader
        self.abort()
        self._tell(question, reader, Failure(problem))  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over, which may be how the answer ends."""
        self._in_time()
        self._owner.lost(self)
        question, reader, body = self._question, self._reader, self._body
        is_unheard = not self._is_first and not self._buffer and self._head_left == LARGEST_HEAD
        self._question = None
        self._let_go()
        if question is not None and is_unheard and question.is_repeatable:
            self._owner.connect(question)
        else:
            self._tell(question, reader, _MAYBE_DONE if isinstance(body, CloseBody) else reason)

    def _tell(self, question: Question | None, reader: Protocol | None, reason: Failure) -> None:
        if question is not None:
            question.tell(reason)
        if reader is not None:
            reader.connectionLost(reason)


_DONE: Final = Failure(ResponseDone())  # type: ignore[no-untyped-call]
_MAYBE_DONE: Final = Failure(PotentialDataLoss())  # type: ignore[no-untyped-call]
"""HTTP has no other end for an answer without framing than that of the connection."""
