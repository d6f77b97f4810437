"""A reactor whose outgoing connections are the test's: it accepts or refuses each attempt, and speaks for the other side in bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.task import Clock
from twisted.internet.testing import _FakeConnector
from twisted.python.failure import Failure
from zope.interface import implementer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


class Attempt:
    """One connect under way, to ``host`` and ``port``."""

    def __init__(self, dialled: Dialled, host: str, port: int, factory: Any, timeout: float) -> None:
        self._dialled, self.host, self.port, self._factory = dialled, host, port, factory
        self.connector = _FakeConnector(IPv4Address("TCP", host, port))
        self._timer = dialled.callLater(timeout, self._time_out)

    @property
    def is_given_up(self) -> bool:
        """Whether the client does not want it any more."""
        return self.connector.stoppedConnecting

    def _time_out(self) -> None:
        self._factory.clientConnectionFailed(self.connector, Failure(error.TimeoutError()))

    def refuse(self, problem: error.ConnectError | None = None) -> None:
        """Nobody listens there, or worse."""
        self._timer.cancel()
        self._factory.clientConnectionFailed(self.connector, Failure(problem or error.ConnectionRefusedError()))

    def accept(self) -> Wire:
        """It is connected."""
        self._timer.cancel()
        wire = Wire(self._dialled)
        wire.protocol = self._factory.buildProtocol(self.connector.getDestination())
        wire.protocol.makeConnection(wire)
        return wire


@implementer(ITransport, IPushProducer)
class Wire:
    """The client's transport, with the test at its other end. ``got`` is what the client sent."""

    disconnecting = False

    def __init__(self, dialled: Dialled) -> None:
        self._dialled = dialled
        self.protocol: Any = None
        self.got = b""
        self.is_paused = False
        self.ended = ""
        """``closed`` or ``aborted`` by the client, or ``over`` by the test."""
        self.on_write: Callable[[bytes], None] = lambda _data: None
        self._waiting = b""

    # --- for the test

    def send(self, data: bytes) -> None:
        """Bytes for the client; those that it does not want yet wait."""
        self._waiting += data
        self._deliver()

    def _deliver(self) -> None:
        while self._waiting and not self.is_paused and not self.ended:
            data, self._waiting = self._waiting[:65536], self._waiting[65536:]
            self.protocol.dataReceived(data)

    def take(self) -> bytes:
        """What the client sent since the last call."""
        got, self.got = self.got, b""
        return got

    def close(self, reason: Exception | None = None) -> None:
        """End it from the other side."""
        self._end("over", reason or error.ConnectionDone())

    def reset(self) -> None:
        """End it rudely."""
        self.close(error.ConnectionLost())

    def _end(self, how: str, reason: Exception) -> None:
        if not self.ended:
            self.ended = how
            self.protocol.connectionLost(Failure(reason))

    # --- for the client

    def write(self, data: bytes) -> None:
        self.got += data
        self.on_write(data)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._dialled.callLater(0, self._end, "closed", error.ConnectionDone())

    def abortConnection(self) -> None:
        self._dialled.callLater(0, self._end, "aborted", error.ConnectionAborted())

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False
        self._dialled.callLater(0, self._deliver)

    def stopProducing(self) -> None:
        self.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 80)

    getHost = getPeer


class Dialled(Clock):
    """Time, and connects that are :class:`Attempt` objects."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: list[Attempt] = []

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> _FakeConnector:
        attempt = Attempt(self, host, port, factory, timeout)
        self.attempts.append(attempt)
        factory.doStart()
        factory.startedConnecting(attempt.connector)
        return attempt.connector

    def accept(self) -> Wire:
        """Accept the latest attempt."""
        return self.attempts[-1].accept()


class Outcome:
    """What becomes of a coroutine that is awaited for the test."""

    def __init__(self, coroutine: Any) -> None:
        self.results: list[Any] = []
        self.deferred: Deferred[Any] = Deferred.fromCoroutine(coroutine)
        self.deferred.addBoth(self.results.append)

    @property
    def is_open(self) -> bool:
        return not self.results

    @property
    def value(self) -> Any:
        (result,) = self.results
        assert not isinstance(result, Failure), result
        return result

    @property
    def error(self) -> Any:
        (result,) = self.results
        assert isinstance(result, Failure), result
        return result.value
