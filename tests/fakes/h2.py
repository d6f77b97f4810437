"""HTTP/2 connections over a fake one: what a test feeds them, and the frames that they answer with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hpack
from twisted.internet.task import Clock

from fakes.transport import FakeCaller, FakeConnection, FakeWalk
from meshgw.client.h2 import H2Client
from meshgw.client.h2_parameters import H2ClientParameters
from meshgw.core.exchange import Exchange
from meshgw.core.timers import Wheel
from meshgw.server.h2 import H2Server
from meshgw.server.h2_parameters import H2Parameters
from meshgw.wire.h2_connection import H2Settings
from meshgw.wire.headers import FieldTable, Headers
from support import h2_frames as f
from support.h2_frames import Frame

WANTED = (b"te", b"content-type")


class _Peer:
    """One connection under test. ``frames`` are all that it sent, ``take`` gives those since the last call."""

    side: Any

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.wheel = Wheel(self.clock)
        self.connection = FakeConnection()
        self.frames: list[Frame] = []
        self._later: list[Callable[[], None]] = []
        self._taken = 0
        self._rest = b""
        self._decoder = hpack.Decoder(max_header_list_size=1 << 24)
        self._decoder.max_allowed_table_size = 4096
        self.fields: dict[int, list[list[tuple[str, str]]]] = {}
        """The header sections that came, by stream."""
        self._block = b""

    def later(self, function: Callable[[], None]) -> None:
        self._later.append(function)

    def turn(self) -> None:
        """The end of a round of events."""
        while self._later:
            self._later.pop(0)()
        found, self._rest = f.split(self._rest + self.connection.take().removeprefix(f.PREFACE))
        for frame in found:
            if frame.kind in (f.HEADERS, f.CONTINUATION):
                self._block += frame.payload
                if frame.flags & f.END_HEADERS:
                    self.fields.setdefault(frame.stream, []).append(self._decoder.decode(self._block))
                    self._block = b""
        self.frames += found

    def receive(self, *pieces: bytes) -> None:
        """Bytes from the peer, in these pieces."""
        for piece in pieces:
            if self.connection.ending:
                break
            self.connection.received += len(piece)
            self.side.data_received(piece)
        self.turn()

    def take(self) -> list[Frame]:
        """The frames since the last call."""
        self.turn()
        found = self.frames[self._taken :]
        self._taken = len(self.frames)
        return found

    def kinds(self) -> list[tuple[str, int]]:
        """Name and stream of the frames since the last call."""
        return [(frame.name, frame.stream) for frame in self.take()]

    def drain(self) -> None:
        """The socket takes bytes again."""
        self.connection.is_full = False
        self.side.drained()
        self.turn()

    @property
    def goaway(self) -> int | None:
        """The code with which the connection was ended because of the peer."""
        codes = [frame.code for frame in self.frames if frame.kind == f.GOAWAY]
        return codes[-1] if codes else None

    def resets(self) -> dict[int, int]:
        """The codes of streams that were reset."""
        return {frame.stream: frame.code for frame in self.frames if frame.kind == f.RST_STREAM}

    def body(self, stream: int) -> bytes:
        """The DATA of a stream."""
        return b"".join(frame.payload for frame in self.frames if frame.kind == f.DATA and frame.stream == stream)

    def ended(self, stream: int) -> bool:
        """Whether it was ended from there."""
        return any(frame.ends for frame in self.frames if frame.stream == stream)

    def status(self, stream: int) -> int:
        """The status of the answer on a stream, 0 while there is none."""
        sections = self.fields.get(stream)
        return int(dict(sections[-1 if ":status" in dict(sections[-1]) else 0])[":status"]) if sections else 0


class ServedH2(_Peer):
    """A caller's connection, after its preface unless ``opening`` is something else."""

    def __init__(
        self, walk: FakeWalk | None = None, *, opening: bytes = f.OPENING, own: H2Settings | None = None, **parameters: Any
    ) -> None:
        super().__init__()
        self.walk = walk or FakeWalk()
        self.closed = self.faults = 0
        self.failures: list[int] = []
        self.parameters = H2Parameters(
            walk=self.walk,
            table=FieldTable(wanted=WANTED),
            wheel=self.wheel,
            clock=self.clock.seconds,
            later=self.later,
            own=own or H2Settings(streams=100),
            on_closed=self._on_closed,
            on_fault=self._on_fault,
            on_failed=self.failures.append,
            **parameters,
        )
        self.side = self.server = H2Server(self.connection, self.parameters, ("192.0.2.1", 1), ("192.0.2.2", 2))  # type: ignore[arg-type]
        self.connection.receiver = self.server
        self.server.start()
        self.receive(opening)

    def _on_closed(self, _server: H2Server) -> None:
        self.closed += 1

    def _on_fault(self) -> None:
        self.faults += 1

    def check(self, times: int = 1) -> None:
        """What its listener does every now and then."""
        for _ in range(times):
            self.clock.advance(self.parameters.check)
            self.server.check()
        self.turn()


class FakePool:
    """Writes down what a client tells its pool."""

    def __init__(self) -> None:
        self.released_count = self.closed_count = self.leaving_count = 0

    def released(self, _client: H2Client) -> None:
        self.released_count += 1

    def closed(self, _client: H2Client) -> None:
        self.closed_count += 1

    def leaving(self, _client: H2Client) -> None:
        self.leaving_count += 1


class ClientH2(_Peer):
    """A connection to an endpoint, which has sent its settings unless ``opening`` is something else."""

    def __init__(
        self, walk: FakeWalk | None = None, *, opening: bytes | None = None, own: H2Settings | None = None, max_body: int | None = None
    ) -> None:
        super().__init__()
        self.walk = walk or FakeWalk()
        self.pool = FakePool()
        self.failures: list[int] = []
        parameters = H2ClientParameters(
            table=FieldTable(wanted=(b"grpc-status",)),
            wheel=self.wheel,
            clock=self.clock.seconds,
            later=self.later,
            own=own or H2Settings(is_client=True),
            max_body=max_body,
            on_failed=self.failures.append,
        )
        self.side = self.client = H2Client(self.connection, parameters, self.pool, "198.51.100.1:80")  # type: ignore[arg-type]
        self.turn()
        self.receive(f.settings({f.STREAMS: 100}) + f.settings(ack=True) if opening is None else opening)

    def ask(self, ex: Exchange) -> FakeCaller:
        """Send the exchange's request."""
        caller = FakeCaller()
        ex.caller, ex.walk = caller, self.walk
        ex.upstream = self.client.stream()
        ex.upstream.send(ex)
        self.turn()
        return caller


def answer(
    ex: Exchange, body: bytes = b"", *, done: bool = True, status: int = 200, lines: tuple[bytes, ...] = (), length: int = -1
) -> None:
    """Answer an exchange of a server."""
    ex.status, ex.status_line, ex.response, ex.response_length = status, b"", Headers(list(lines)), length
    ex.caller.respond(ex, body, done=done)


def answering(body: bytes = b"", **keywords: Any) -> FakeWalk:
    """A walk that answers each request at its end."""
    return FakeWalk(lambda ex: answer(ex, body, **keywords))


class Holding(FakeWalk):
    """A walk that keeps the exchanges as they begin, and answers none."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Exchange] = []

    def begin(self, ex: Exchange) -> None:
        self.begun += 1
        self.held.append(ex)
