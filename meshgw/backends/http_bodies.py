"""What carries the bodies of requests to APIs and of their answers: whole ones of limited length, and streams of lines.

Source: Twisted's protocols for bodies. A stream's sender is held back while its lines are not taken.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

LONGEST_LINE: Final = 5 << 20
"""Bytes, as for a whole answer: a watch's event holds a whole object."""
MOST_BUFFERED: Final = 1 << 20
"""Bytes of a stream that wait to be read before the sender is held back; one line may be longer."""

LINE_COST: Final = 64
"""Bytes that a line takes besides its own, lest a million empty ones count as nothing."""


@implementer(IBodyProducer)
class WholeBody:
    """A request's body, sent at once."""

    def __init__(self, body: bytes) -> None:
        self._body, self.length = body, len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Send it."""
        consumer.write(self._body)
        return defer.succeed(None)

    def pauseProducing(self) -> None:
        """It has been sent already."""

    def resumeProducing(self) -> None:
        """Nothing is left to send."""

    def stopProducing(self) -> None:
        """Nothing is left to send."""


class TooLong(Exception):
    """More than the limit came."""


class Stopped(Exception):
    """We ended it."""


class Body(Protocol):
    """Gathers a body of limited length; ``done`` has it, or fails with what ended it."""

    def __init__(self, most: int) -> None:
        self._most, self._parts, self._length = most, list[bytes](), 0
        self.done: Deferred[bytes] = Deferred(lambda _done: self._lose())

    def dataReceived(self, data: bytes) -> None:
        """Gather."""
        self._length += len(data)
        if self._length <= self._most:
            self._parts.append(data)
        elif not self.done.called:
            self.done.errback(TooLong())
            self._lose()

    def _lose(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over; HTTP/1.0 has no other end than that of the connection."""
        if self.done.called:
            return
        if isinstance(reason.value, ResponseDone | PotentialDataLoss):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(reason)


class Lines(Protocol):
    """Splits a body into lines, and holds the sender back while they are not taken."""

    def __init__(self) -> None:
        self.lines: deque[bytes] = deque()
        self.ended: BaseException | None = None
        self._rest = bytearray()
        self._buffered = 0
        self._is_paused = False
        self._waiting: Deferred[None] | None = None

    def more(self) -> Deferred[None]:
        """Fires when there is a line or the end."""
        self._waiting = Deferred()
        return self._waiting

    def take(self) -> bytes | None:
        """The next line; None if none is left."""
        if not self.lines:
            return None
        line = self.lines.popleft()
        self._buffered -= len(line) + LINE_COST
        if self._is_paused and self._buffered < MOST_BUFFERED and self.ended is None:
            self._is_paused = False
            self._control().resumeProducing()
        return line

    def _control(self) -> Any:
        return self.transport  # the published types do not know that a response's transport is a producer

    def dataReceived(self, data: bytes) -> None:
        """Split."""
        if self.ended is not None:
            return
        self._rest += data
        if b"\n" in data:
            *whole, rest = self._rest.split(b"\n")
            self._rest = rest
            for line in whole:
                self._append(bytes(line.removesuffix(b"\r")))
        if len(self._rest) > LONGEST_LINE:
            self._end(TooLong())
            self.stop()
            return
        if self._buffered >= MOST_BUFFERED and not self._is_paused:
            self._is_paused = True
            self._control().pauseProducing()
        if self.lines:
            self._wake()

    def _append(self, line: bytes) -> None:
        self._buffered += len(line) + LINE_COST
        self.lines.append(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end; a line without its own end is one all the same if the body is complete."""
        if self._rest and isinstance(reason.value, ResponseDone):
            self._append(bytes(self._rest.removesuffix(b"\r")))
        self._end(reason.value or Stopped())

    def stop(self) -> None:
        """Take no more."""
        self._end(Stopped())
        if self.transport is not None:
            self.transport.loseConnection()

    def _end(self, error: BaseException) -> None:
        if self.ended is None:
            self.ended = error
            self._rest = bytearray()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)
