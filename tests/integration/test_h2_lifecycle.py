"""Reload and end of a gateway with HTTP/2 connections: callers are told to go, and what they asked for is answered."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from support import h2_frames as f
from support.fleets import Fleet, fleet
from support.gateways import LOOPBACK, SECONDS, Gateway, Nginx, read_until
from support.h2_gateways import h2_gateway
from support.h2_peer import Wire
from support.processes import Running, wait_until

pytestmark = pytest.mark.integration

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
H2 = {"protocol": "h2", "client": {"protocol": "http/1.1"}}
AT_ONCE = 5
MOST_STREAMS = 300
"""Highest id before a caller takes another connection, as what came is looked through from its beginning each time."""


class Caller:
    """A caller as RFC 9113 wants it: several streams at a time, on a new connection once it is told to go, for as long as it runs."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answered = self.lost = self.connections = 0
        self.told: list[str] = []
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Finish what is under way, and stop."""
        self._is_ending = True
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._is_ending:
            self.connections += 1
            with Wire.connect(self._port) as wire:
                self._use(wire)

    def _use(self, wire: Wire) -> None:
        first = 1
        while not self._is_ending and not wire.goaway() and not wire.ending and first < MOST_STREAMS:
            streams = range(first, first + 2 * AT_ONCE, 2)
            first += 2 * AT_ONCE
            wire.send(b"".join(f.headers(stream) for stream in streams))
            pongs = 0

            def is_settled(wire: Wire, streams: range = streams) -> bool:
                nonlocal pongs
                pings = [frame.payload for frame in wire.frames if frame.kind == f.PING and not frame.is_ack]
                for payload in pings[pongs:]:
                    wire.send(f.ping(payload, ack=True))
                pongs = len(pings)
                return all(wire.ended(stream) for stream in streams if stream <= last(wire))

            wire.until(is_settled, SECONDS)
            for stream in streams:
                if wire.status(stream) == 200 and wire.ended(stream):
                    self.answered += 1
                elif stream <= last(wire):
                    self.lost += 1
                    self.told.append(wire.describe())
            time.sleep(0.02)


def last(wire: Wire) -> int:
    """The last stream that will be answered."""
    goaway = wire.goaway()
    return f.LARGEST if goaway is None else goaway.number


@pytest.fixture
def upstream(running: Running) -> int:
    running.directory.chmod(0o755)
    return Nginx(running, 'location / { return 200 "hello"; }').port


@pytest.mark.parametrize("workers", [1, 2])
def test_reloads_under_load_lose_no_stream(running: Running, upstream: int, workers: int) -> None:
    gateway = fleet(running, upstream, workers=workers, routers=[H2])
    callers = [Caller(gateway.gateway.port) for _ in range(3)]
    for number in range(4):
        if number % 2:
            gateway.reload_by_signal()
        else:
            assert gateway.reload().status == 200
    assert wait_until(lambda: all(caller.answered for caller in callers), SECONDS)
    for caller in callers:
        caller.end()
    assert [caller.told for caller in callers] == [[]] * 3
    assert sum(caller.answered for caller in callers) > 50
    assert all(caller.connections > 1 for caller in callers)
    assert wait_until(lambda: len(gateway.children()) == workers, SECONDS), "old workers stay"
    assert "Traceback" not in gateway.logged()


@pytest.fixture
def slow() -> Iterator[socket.socket]:
    """A service that answers when the test does."""
    with closing(socket.create_server((LOOPBACK, 0))) as listener:
        listener.settimeout(SECONDS)
        yield listener


def under_way(port: int, slow: socket.socket) -> tuple[Wire, socket.socket]:
    """A request that has arrived at the service."""
    wire = Wire.connect(port).send(f.headers(1))
    sock = slow.accept()[0]
    sock.settimeout(SECONDS)
    read_until(sock, b"\r\n\r\n")
    return wire, sock


def acknowledge(wire: Wire) -> None:
    """Answer the PING behind a GOAWAY."""
    assert wire.until(lambda wire: any(frame.kind == f.PING and not frame.is_ack for frame in wire.frames)), wire.describe()
    payload = next(frame.payload for frame in wire.frames if frame.kind == f.PING and not frame.is_ack)
    wire.send(f.ping(payload, ack=True))


def test_a_request_under_way_outlives_a_reload_and_a_late_one_is_served_too(running: Running, slow: socket.socket) -> None:
    gateway: Fleet = fleet(running, slow.getsockname()[1], workers=1, routers=[H2], admin={"shutdownGraceMs": 15000})
    wire, sock = under_way(gateway.gateway.port, slow)
    with wire, sock:
        assert gateway.reload().status == 200
        assert wire.until(lambda wire: wire.goaway() is not None), wire.describe()
        assert last(wire) == f.LARGEST
        wire.send(f.headers(3))  # sent before the caller read that
        with slow.accept()[0] as late:
            read_until(late, b"\r\n\r\n")
            acknowledge(wire)
            assert wire.until(lambda wire: last(wire) == 3), wire.describe()
            wire.send(f.headers(5))
            assert wire.until(lambda wire: wire.reset(5) == f.REFUSED_STREAM), wire.describe()
            late.sendall(OK)
            assert wire.until(lambda wire: wire.status(3) == 200), wire.describe()
        assert not wire.ending
        sock.sendall(OK)
        assert wire.until(lambda wire: wire.ended(1) and wire.ending == "eof"), wire.describe()
        assert wire.status(1) == 200
    assert wait_until(lambda: len(gateway.children()) == 1, SECONDS)


def test_an_idle_connection_is_told_to_go_and_ends(running: Running, upstream: int) -> None:
    gw = h2_gateway(running, {"web": upstream}, router={"client": {"protocol": "http/1.1"}})
    with Wire.connect(gw.port).send(f.headers(1)) as wire:
        assert wire.until(lambda wire: wire.status(1) == 200)
        gw.process.signal(signal.SIGTERM)
        acknowledge(wire)
        assert wire.until(lambda wire: wire.ending == "eof"), wire.describe()
        assert last(wire) == 1
    assert gw.process.wait(SECONDS) == 0


@pytest.mark.parametrize("way", ["SIGTERM", "/admin/shutdown"])
def test_requests_under_way_finish_before_the_end(running: Running, slow: socket.socket, way: str) -> None:
    gw = h2_gateway(
        running, {"web": slow.getsockname()[1]}, router={"client": {"protocol": "http/1.1"}}, admin={"shutdownGraceMs": 600_000}
    )
    wire, sock = under_way(gw.port, slow)
    with wire, sock:
        assert gw.server_metric("open_streams", "h2") == 1
        ending(gw, way)
        acknowledge(wire)
        assert wire.until(lambda wire: last(wire) == 1), wire.describe()
        sock.sendall(OK)
        assert wire.until(lambda wire: wire.ended(1) and wire.ending == "eof"), wire.describe()
        assert wire.status(1) == 200
    assert gw.process.wait(SECONDS) == 0, "long before the limit"


def test_what_takes_longer_than_the_grace_is_cut_off(running: Running, slow: socket.socket) -> None:
    gw = h2_gateway(running, {"web": slow.getsockname()[1]}, router={"client": {"protocol": "http/1.1"}}, admin={"shutdownGraceMs": 1000})
    wire, sock = under_way(gw.port, slow)
    with wire, sock:
        ending(gw, "SIGTERM")
        assert wire.until(lambda wire: wire.ending), wire.describe()
        assert not wire.status(1)
    assert gw.process.wait(SECONDS) == 0


def ending(gw: Gateway, way: str) -> None:
    if way == "SIGTERM":
        gw.process.signal(signal.SIGTERM)
    else:
        gw.admin(way, b"")
