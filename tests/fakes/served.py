"""One caller's connection served over a fake one, and answers to give on it."""

from __future__ import annotations

from twisted.internet.task import Clock

from fakes.transport import FakeConnection, FakeWalk
from meshgw.core.exchange import Exchange
from meshgw.core.timers import Wheel
from meshgw.server.http import HttpServer
from meshgw.server.parameters import HttpParameters
from meshgw.wire.headers import FieldTable, Headers

HOST = b"Host: web\r\n"


def post(fields: bytes, body: bytes = b"", *, version: bytes = b"1.1") -> bytes:
    return b"POST / HTTP/%b\r\n%b%b\r\n%b" % (version, HOST, fields, body)


GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"


class Served:
    """One caller's connection served over a fake one."""

    def __init__(self, walk: FakeWalk | None = None, *, max_line: int = 4096, max_headers: int = 8192, max_body: int | None = None) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.walk = walk or FakeWalk()
        self.connection = FakeConnection()
        self.closed = 0
        parameters = HttpParameters(
            walk=self.walk,
            table=FieldTable(taken=(b"via",)),
            wheel=Wheel(self.clock),
            clock=self.clock.seconds,
            max_line=max_line,
            max_headers=max_headers,
            max_body=max_body,
            on_closed=self._on_closed,
        )
        self.server = HttpServer(self.connection, parameters, ("192.0.2.1", 1), ("192.0.2.2", 2))  # type: ignore[arg-type]
        self.connection.receiver = self.server
        self.server.start()
        self._check(parameters.check)

    def _check(self, seconds: float) -> None:
        """What its listener does for every connection it has."""
        if not self.closed:
            self.clock.callLater(seconds, self._check, seconds)
            if self.clock.seconds():
                self.server.check()

    def _on_closed(self, _server: HttpServer) -> None:
        self.closed += 1

    def receive(self, *pieces: bytes) -> Served:
        for piece in pieces:
            if self.connection.ending:
                break
            self.server.data_received(piece)
        return self

    @property
    def story(self) -> tuple[object, ...]:
        """All that must not depend on how the input was split."""
        return (self.walk.requests, self.walk.headers, self.walk.verdicts, self.connection.written, self.connection.ending)


def holding() -> FakeWalk:
    """A walk that never answers on its own."""
    return FakeWalk(lambda _ex: None)


def answer(ex: Exchange, body: bytes, *, length: int, done: bool = True, status: int = 200, lines: tuple[bytes, ...] = ()) -> None:
    ex.status, ex.status_line, ex.response, ex.response_length = status, b"HTTP/1.1 %d X" % status, Headers(list(lines)), length
    ex.caller.respond(ex, body, done=done)


def answering(body: bytes = b"hello", *, length: int = 5, status: int = 200) -> FakeWalk:
    return FakeWalk(lambda ex: answer(ex, body, length=length, status=status))
