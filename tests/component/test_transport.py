from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from twisted.internet.task import Clock

from fakes.transport import HandPoller
from meshgw.core.connecting import Connecting
from meshgw.core.reactor import BROKEN, IN, OUT, StockPoller
from meshgw.core.timers import Wheel
from meshgw.core.transport import HIGH_WATER, LINGER_SECONDS, LOW_WATER, READ_SIZE, Connection, SocketOptions
from support.processes import free_port


class Recorder:
    """A receiver that writes down what it is told; ``end_at_eof`` closes as HTTP does."""

    def __init__(self, *, end_at_eof: bool = False) -> None:
        self.data = b""
        self.events: list[str] = []
        self.connection: Connection | None = None
        self.end_at_eof = end_at_eof

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self.events.append("eof")
        if self.end_at_eof and self.connection is not None:
            self.connection.close_now()

    def drained(self) -> None:
        self.events.append("drained")

    def connection_lost(self, reason: str) -> None:
        self.events.append(f"lost: {reason}")


class Pair:
    """A connection under test over TCP on loopback, and the peer's plain socket."""

    def __init__(self) -> None:
        self.clock, self.poller = Clock(), HandPoller()
        self.wheel = Wheel(self.clock)
        with closing(socket.create_server(("127.0.0.1", 0))) as server:
            self.peer = socket.create_connection(server.getsockname())
            self.sock, _ = server.accept()
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        self.peer.settimeout(5.0)
        self.receiver = Recorder()
        self.connection = Connection(self.sock, self.poller, self.wheel, self.receiver)
        self.connection.start()
        self.receiver.connection = self.connection

    def pump(self, rounds: int = 3) -> None:
        for _ in range(rounds):
            self.poller.pump(0.02)
            self.clock.advance(0)

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes at the peer, while the connection goes on sending."""
        data = b""
        self.peer.setblocking(False)
        for _ in range(10_000):
            try:
                data += self.peer.recv(min(65536, size - len(data)))
            except BlockingIOError:
                self.poller.pump(0.01)
            if len(data) >= size:
                break
        self.peer.settimeout(5.0)
        return data

    def fill(self) -> int:
        """Write until the connection is full; how many bytes."""
        written = 0
        while not self.connection.is_full:
            self.connection.write(b"x" * READ_SIZE)
            written += READ_SIZE
        return written

    def close(self) -> None:
        self.connection.abort()
        self.peer.close()
        self.poller.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    found = Pair()
    yield found
    found.close()


def test_bytes_pass_both_ways(pair: Pair) -> None:
    pair.peer.sendall(b"ping")
    pair.pump()
    assert pair.receiver.data == b"ping"
    pair.connection.write(b"pong")
    assert pair.peer.recv(10) == b"pong"


def test_what_the_socket_takes_at_once_asks_for_no_event(pair: Pair) -> None:
    pair.connection.write(b"small")
    assert pair.poller.interests == {pair.sock.fileno(): IN}


def test_output_that_does_not_fit_is_sent_later_whole_and_in_order(pair: Pair) -> None:
    data = bytes(range(256)) * 8192
    pair.connection.write(data[:1_000_000])
    pair.connection.write(data[1_000_000:])
    assert pair.poller.interests == {pair.sock.fileno(): IN | OUT}
    assert pair.read(len(data)) == data
    pair.pump()
    assert pair.poller.interests == {pair.sock.fileno(): IN}


def test_output_that_has_to_wait_is_timed(pair: Pair) -> None:
    pair.clock.advance(1.0)
    written = pair.fill()
    pair.clock.advance(2.0)
    assert pair.connection.blocked == 2.0
    pair.read(written)
    pair.pump()
    assert not pair.connection.is_sending
    pair.clock.advance(4.0)
    assert pair.connection.blocked == 2.0
    pair.fill()
    pair.clock.advance(0.5)
    pair.connection.abort()
    pair.clock.advance(8.0)
    assert pair.connection.blocked == 2.5


def test_the_high_mark_is_told_and_the_low_mark_ends_it(pair: Pair) -> None:
    written = pair.fill()
    kept = sum(map(len, pair.connection._out))
    assert HIGH_WATER < kept <= HIGH_WATER + READ_SIZE
    assert pair.receiver.events == []
    pair.read(written)
    assert pair.receiver.events == ["drained"]
    assert not pair.connection.is_full
    assert sum(map(len, pair.connection._out)) <= LOW_WATER


def test_a_paused_connection_reads_nothing_until_resumed(pair: Pair) -> None:
    pair.connection.pause_reading()
    pair.peer.sendall(b"waits")
    pair.pump()
    assert pair.receiver.data == b""
    pair.connection.resume_reading()
    pair.pump()
    assert pair.receiver.data == b"waits"


def test_close_sends_what_waits_then_ends_when_the_peer_does(pair: Pair) -> None:
    written = pair.fill()
    pair.connection.close()
    assert len(pair.read(written)) == written
    pair.pump()
    assert pair.peer.recv(1) == b""
    assert "lost: closed" not in pair.receiver.events
    pair.peer.close()
    pair.pump()
    assert pair.receiver.events[-1] == "lost: closed"


def test_a_closed_connection_discards_input_for_a_while_so_that_the_answer_is_read(pair: Pair) -> None:
    pair.connection.write(b"answer")
    pair.connection.close()
    pair.peer.sendall(b"more of the request")
    pair.pump()
    assert pair.receiver.data == b""
    assert pair.peer.recv(10) == b"answer"
    assert pair.peer.recv(10) == b""
    pair.clock.advance(LINGER_SECONDS + 0.1)
    assert pair.receiver.events == ["lost: closed"]


def test_abort_resets_the_peer(pair: Pair) -> None:
    pair.connection.abort()
    assert pair.receiver.events == ["lost: aborted"]
    with pytest.raises(ConnectionResetError):
        pair.peer.recv(1)


def test_an_ended_connection_ignores_every_call(pair: Pair) -> None:
    pair.connection.close_now()
    for call in (pair.connection.close, pair.connection.close_now, pair.connection.abort, pair.connection.pause_reading):
        call()
    pair.connection.resume_reading()
    pair.connection.write_eof()
    pair.connection.write(b"late")
    pair.pump()
    assert pair.receiver.events == ["lost: closed"]
    assert not pair.connection.is_open
    assert pair.poller.handlers == {}


def test_the_peers_eof_is_told_once_and_writing_goes_on(pair: Pair) -> None:
    pair.peer.sendall(b"last")
    pair.peer.shutdown(socket.SHUT_WR)
    pair.pump(5)
    assert pair.receiver.data == b"last"
    assert pair.receiver.events == ["eof"]
    pair.connection.write(b"answer")
    assert pair.peer.recv(10) == b"answer"


def test_half_close_waits_for_the_output_and_reading_goes_on(pair: Pair) -> None:
    written = pair.fill()
    pair.connection.write_eof()
    assert len(pair.read(written)) == written
    pair.pump()
    assert pair.peer.recv(1) == b""
    pair.peer.sendall(b"still heard")
    pair.pump()
    assert pair.receiver.data == b"still heard"


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    sock.close()


def test_a_reset_is_told_with_its_reason(pair: Pair) -> None:
    reset(pair.peer)
    pair.pump()
    assert pair.receiver.events == ["lost: Connection reset by peer"]


def test_a_paused_connection_that_breaks_costs_nothing_and_is_told_on_resume(pair: Pair) -> None:
    pair.connection.pause_reading()
    reset(pair.peer)
    pair.pump()
    assert pair.receiver.events == []
    assert pair.poller.handlers == {}
    pair.connection.resume_reading()
    pair.pump()
    assert pair.receiver.events == ["lost: Connection reset by peer"]


def test_an_owner_never_ends_inside_its_own_write(pair: Pair) -> None:
    pair.connection.pause_reading()
    reset(pair.peer)
    pair.pump()
    pair.connection.write(b"x")
    assert pair.receiver.events == []
    pair.clock.advance(0)
    assert pair.receiver.events == ["lost: connection reset by peer"]


def test_a_write_on_a_broken_socket_is_told_from_the_loop(pair: Pair) -> None:
    reset(pair.peer)
    pair.connection.write(b"x")
    pair.connection.write(b"y")
    assert pair.receiver.events == []
    pair.pump()
    assert len(pair.receiver.events) == 1


# --- connecting


class Outcome:
    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.reasons: list[str] = []

    def __call__(self, connection: Connection | None, reason: str) -> None:
        self.connection = connection
        self.reasons.append(reason)


def attempt(host: str, port: int, timeout: float = 1.0) -> tuple[Clock, HandPoller, Outcome, Connecting]:
    clock, poller, outcome = Clock(), HandPoller(), Outcome()
    connecting = Connecting(poller, Wheel(clock), outcome)
    connecting.start(host, port, timeout, SocketOptions())
    return clock, poller, outcome, connecting


def test_connecting_gives_a_connection_once() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        clock, poller, outcome, _ = attempt(*server.getsockname())
        poller.pump(1.0)
        clock.advance(10.0)
        assert outcome.reasons == [""]
        assert outcome.connection is not None
        outcome.connection.receiver = Recorder()
        outcome.connection.close_now()


def test_a_refused_connect_tells_the_systems_reason() -> None:
    clock, poller, outcome, _ = attempt("127.0.0.1", free_port())
    poller.pump(1.0)
    clock.advance(0)
    assert outcome.connection is None
    assert outcome.reasons == ["Connection refused"]
    assert poller.handlers == {}


def test_a_connect_that_takes_too_long_is_given_up() -> None:
    with closing(socket.socket()) as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        with closing(socket.create_connection(deaf.getsockname())):  # its queue is full now: further SYNs are dropped
            clock, poller, outcome, _ = attempt(*deaf.getsockname(), timeout=2.0)
            poller.pump(0.0)
            clock.advance(1.9)
            assert outcome.reasons == []
            clock.advance(0.2)
            assert outcome.reasons == ["connect timed out after 2 s"]
            assert poller.handlers == {}


def test_a_cancelled_connect_says_nothing() -> None:
    clock, poller, outcome, connecting = attempt("127.0.0.1", free_port())
    connecting.cancel()
    poller.pump(0.0)
    clock.advance(10.0)
    assert outcome.reasons == []


def test_an_event_of_the_descriptors_former_owner_does_not_count_as_connected() -> None:
    with closing(socket.socket()) as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        with closing(socket.create_connection(deaf.getsockname())):
            _, poller, outcome, connecting = attempt(*deaf.getsockname())
            next(iter(poller.handlers.values()))(IN)
            assert outcome.reasons == []
            connecting.cancel()


def test_an_unusable_address_fails_from_the_loop() -> None:
    clock, _, outcome, _ = attempt("255.255.255.255", 80)
    assert outcome.reasons == []
    clock.advance(0)
    assert len(outcome.reasons) == 1
    assert outcome.connection is None


# --- any other reactor


class FakeReactor:
    def __init__(self) -> None:
        self.readers: set[object] = set()
        self.writers: set[object] = set()
        self.addReader, self.addWriter = self.readers.add, self.writers.add
        self.removeReader, self.removeWriter = self.readers.discard, self.writers.discard


def test_a_stock_reactor_is_asked_for_exactly_the_events_wanted() -> None:
    reactor, seen = FakeReactor(), list[int]()
    poller = StockPoller(reactor)
    poller.watch(7, seen.append, IN)
    (descriptor,) = reactor.readers
    assert reactor.writers == set()
    poller.change(7, OUT)
    assert (reactor.readers, reactor.writers) == (set(), {descriptor})
    poller.change(7, 0)
    assert (reactor.readers, reactor.writers) == (set(), set())
    poller.change(7, IN | OUT)
    assert descriptor.fileno() == 7  # type: ignore[attr-defined]
    descriptor.doRead()  # type: ignore[attr-defined]
    descriptor.doWrite()  # type: ignore[attr-defined]
    descriptor.connectionLost(None)  # type: ignore[attr-defined]
    assert seen == [IN, OUT, BROKEN]
    poller.forget(7)
    poller.forget(7)
    assert (reactor.readers, reactor.writers) == (set(), set())


def test_a_connection_works_over_a_stock_poller() -> None:
    reactor, receiver, clock = FakeReactor(), Recorder(end_at_eof=True), Clock()
    mine, peer = socket.socketpair()
    mine.setblocking(False)
    connection = Connection(mine, StockPoller(reactor), Wheel(clock), receiver)
    receiver.connection = connection
    connection.start()
    (descriptor,) = reactor.readers
    peer.sendall(b"ping")
    descriptor.doRead()  # type: ignore[attr-defined]
    peer.close()
    descriptor.doRead()  # type: ignore[attr-defined]
    assert receiver.data == b"ping"
    assert receiver.events == ["eof", "lost: closed"]
    assert reactor.readers == set()
    assert mine.fileno() == -1
