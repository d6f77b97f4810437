"""Connections that begin with a PROXY header, over real sockets and a poller pumped by hand."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from fakes.transport import HandPoller
from meshgw.core.networks import Network, Networks
from meshgw.core.timers import Wheel
from meshgw.server.listener import ServerConnection
from meshgw.server.proxy_header import ProxyHeaders, ProxyStats
from meshgw.wire.proxy_protocol import LONGEST_V2, write_header
from support.processes import wait_until

CALLER, SEEN_AS = ("192.0.2.7", 56324), ("198.51.100.9", 443)
V1, V2 = (write_header(version, CALLER, SEEN_AS) for version in (1, 2))


class Counted:
    def __init__(self) -> None:
        self.count = 0

    def incr(self) -> None:
        self.count += 1


class Served:
    """What serves a connection: reads what is there when it starts, and what happens to it."""

    def __init__(self, sock: socket.socket, peer: tuple[str, int], local: tuple[str, int]) -> None:
        self.sock, self.peer, self.local = sock, peer, local
        self.read = b""
        self.events: list[str] = []

    def start(self) -> None:
        self.events.append("start")
        try:
            self.read = self.sock.recv(65536)
        except BlockingIOError:
            self.read = b""

    def drain(self, *, close_idle: bool = True) -> None:
        self.events.append(f"drain {close_idle}")

    def abort(self) -> None:
        self.events.append("abort")

    def check(self) -> None:
        self.events.append("check")


class Gate:
    """A listener's gate, and one connection through it."""

    def __init__(self, trusted: str = "127.0.0.0/8") -> None:
        self.clock, self.poller = Clock(), HandPoller()
        self.counters: dict[str, Counted] = {}
        self.served: list[Served] = []
        self.open: set[ServerConnection] = set()
        stats = ProxyStats(lambda *name: self.counters.setdefault("/".join(name), Counted()), self.clock.seconds, "127.0.0.1 port 4140")
        self.gate = ProxyHeaders(
            self._serve,
            trusted=Networks([Network.read(trusted)]),
            timeout=5.0,
            poller=self.poller,
            wheel=Wheel(self.clock),
            stats=stats,
            replaced=self._replaced,
            closed=self.open.discard,
        )
        self._listening = socket.create_server(("127.0.0.1", 0))

    def _serve(self, sock: socket.socket, peer: tuple[str, int], local: tuple[str, int]) -> ServerConnection:
        self.served.append(Served(sock, peer, local))
        return self.served[-1]

    def _replaced(self, before: ServerConnection, after: ServerConnection) -> None:
        self.open.remove(before)
        self.open.add(after)

    def connect(self) -> socket.socket:
        """A caller's side; ours waits for its header."""
        self.caller = socket.create_connection(self._listening.getsockname())
        sock, peer = self._listening.accept()
        sock.setblocking(False)
        self.connection = self.gate.accepted(sock, peer, sock.getsockname())
        self.open.add(self.connection)
        self.connection.start()
        return self.caller

    def until_served(self) -> Served:
        assert wait_until(lambda: self.poller.pump(0.01) >= 0 and bool(self.served and self.served[-1].events), 20.0)
        return self.served[-1]

    def until_closed(self) -> None:
        assert wait_until(lambda: self.poller.pump(0.01) >= 0 and not self.open, 20.0)
        self.caller.settimeout(20.0)
        try:
            assert self.caller.recv(1) == b""
        except ConnectionResetError:
            pass

    def count(self, name: str) -> int:
        return self.counters[f"proxy_protocol/{name}"].count

    def close(self) -> None:
        for served in self.served:
            served.sock.close()
        for connection in list(self.open):
            if connection not in self.served:
                connection.abort()
        self.caller.close()
        self._listening.close()
        self.poller.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    with closing(Gate()) as one:
        yield one


@pytest.mark.parametrize("header", [V1, V2])
def test_the_header_names_both_sides_and_what_follows_is_left_in_the_socket(gate: Gate, header: bytes) -> None:
    gate.connect().sendall(header + b"GET / HTTP/1.1\r\n")
    served = gate.until_served()
    assert (served.peer, served.local, served.read) == (CALLER, SEEN_AS, b"GET / HTTP/1.1\r\n")
    assert gate.open == {served}
    assert gate.count("headers") == 1
    assert not gate.poller.handlers


@given(cuts=st.lists(st.integers(1, len(V2) + 8), max_size=4), is_first=st.booleans())
def test_a_header_in_pieces_is_taken_whole(cuts: list[int], is_first: bool) -> None:
    with closing(Gate()) as gate:
        data = (V1 if is_first else V2) + b"GET / HT"
        caller = gate.connect()
        places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        for start, end in zip(places, places[1:], strict=False):
            caller.sendall(data[start:end])
            assert wait_until(lambda: gate.poller.pump(0.01) > 0 or bool(gate.served), 20.0)
        served = gate.until_served()
        assert served.peer == CALLER
        served.sock.setblocking(True)
        while len(served.read) < 8:
            served.read += served.sock.recv(64)
        assert served.read == b"GET / HT"


def test_an_unfinished_header_does_not_keep_the_loop_busy(gate: Gate) -> None:
    gate.connect().sendall(V1[:20])
    assert wait_until(lambda: gate.poller.pump(0.01) > 0, 20.0)
    assert gate.poller.pump(0.0) == 0


@pytest.mark.parametrize("version", [1, 2])
def test_a_check_of_the_load_balancer_itself_keeps_the_real_addresses(gate: Gate, version: int) -> None:
    caller = gate.connect()
    caller.sendall(write_header(version, None, None))
    served = gate.until_served()
    assert (served.peer, served.local) == (caller.getsockname(), caller.getpeername())


def test_from_others_no_header_is_looked_for() -> None:
    with closing(Gate(trusted="10.0.0.0/8")) as gate:
        caller = gate.connect()
        assert isinstance(gate.connection, Served)
        assert gate.connection.peer == caller.getsockname()
        caller.sendall(V1)
        assert gate.count("headers") == 0


@pytest.mark.parametrize(
    ("sent", "kind"),
    [(b"GET / HTTP/1.1\r\n", "missing"), (b"\x16\x03\x01\x02\x00", "missing"), (b"PROXY TCP4 1.2.3.4\r\n", "malformed"), (b"", "closed")],
)
def test_without_a_good_header_the_connection_is_closed_and_counted(gate: Gate, sent: bytes, kind: str) -> None:
    caller = gate.connect()
    caller.sendall(sent)
    caller.shutdown(socket.SHUT_WR)
    gate.until_closed()
    assert {one: gate.count(f"failures/{one}") for one in ProxyStats.KINDS if gate.count(f"failures/{one}")} == {kind: 1}
    assert not gate.served
    assert not gate.poller.handlers


def test_an_announced_length_beyond_the_limit_is_not_waited_for(gate: Gate) -> None:
    gate.connect().sendall(V2[:14] + (LONGEST_V2 + 1).to_bytes(2, "big"))
    gate.until_closed()
    assert gate.count("failures/malformed") == 1


def test_a_header_that_takes_too_long_ends_the_connection(gate: Gate) -> None:
    gate.connect().sendall(V1[:20])
    assert wait_until(lambda: gate.poller.pump(0.01) > 0, 20.0)
    gate.clock.advance(4.9)
    assert gate.open
    gate.clock.advance(0.2)
    gate.until_closed()
    assert gate.count("failures/timeout") == 1


def test_a_served_connection_is_not_ended_by_the_limit_for_the_header(gate: Gate) -> None:
    gate.connect().sendall(V1)
    served = gate.until_served()
    gate.clock.advance(10.0)
    assert gate.open == {served}
    assert gate.count("failures/timeout") == 0


def test_a_drain_closes_who_waits_and_a_retreat_lets_it_have_one_answer(gate: Gate) -> None:
    caller = gate.connect()
    gate.connection.drain(close_idle=False)
    caller.sendall(V2)
    assert gate.until_served().events == ["start", "drain False"]
    caller.close()
    gate.connect()
    gate.connection.drain()
    gate.open.discard(gate.served[0])
    gate.until_closed()


def test_failures_of_a_kind_are_logged_once_in_a_while_with_their_number() -> None:
    lines: list[str] = []
    clock = Clock()
    clock.advance(100.0)
    stats = ProxyStats(lambda *_: Counted(), clock.seconds, "here")

    def observe(event: dict[str, object]) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]  # a callable with the observer's signature
    try:
        for _ in range(3):
            stats.failed("missing", CALLER, "no PROXY header, but b'GET'")
        clock.advance(10.0)
        stats.failed("missing", CALLER, "no PROXY header, but b'GET'")
        stats.failed("closed", CALLER, "gone")
    finally:
        globalLogPublisher.removeObserver(observe)  # type: ignore[arg-type]
    assert len(lines) == 2
    assert "192.0.2.7 port 56324" in lines[0] and "no PROXY header" in lines[0]
    assert "2 more of this kind" in lines[1]
