"""Pools per caller over real connections: what holds for all callers of an endpoint together."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from fakes.transport import FakeCaller, HandPoller, request
from meshgw.client.caller_pools import IDLE_SECONDS, CallerPool, CallerPools
from meshgw.client.http import ClientParameters, HttpClient
from meshgw.client.pool import PoolLimits, PoolStats
from meshgw.core.address import Address
from meshgw.core.exchange import Exchange
from meshgw.core.timers import Wheel
from meshgw.errors import MeshError, TooManyWaiters
from meshgw.wire.http1 import ResponseTable
from meshgw.wire.proxy_protocol import write_header
from support.processes import wait_until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
HERE = ("198.51.100.1", 80)


class Nothing:
    """Counts nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class Sending:
    """A walk that sends as soon as there is a connection."""

    def __init__(self) -> None:
        self.connections: list[HttpClient] = []
        self.errors: list[MeshError] = []

    def connected(self, ex: Exchange, client: HttpClient) -> None:
        self.connections.append(client)
        client.send(ex)

    def connect_failed(self, ex: Exchange, error: MeshError) -> None:
        self.errors.append(error)

    def answered(self, ex: Exchange, body: bytes, done: bool) -> None:
        ex.caller.respond(ex, body, done=done)


class Callers:
    """Requests of several callers to one listener of the test."""

    def __init__(self) -> None:
        self.clock, self.poller, self.walk = Clock(), HandPoller(), Sending()
        self.wheel = Wheel(self.clock)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(5.0)
        self.marks: list[tuple[str, bool]] = []

    def open(self, *, most_idle: int = 1024, **limits: Any) -> CallerPools:
        address = Address("127.0.0.1", self.listener.getsockname()[1])
        stats: Any = Nothing()

        def make(own: PoolLimits, counted: PoolStats, prelude: bytes) -> CallerPool:
            parameters = ClientParameters(table=ResponseTable(), max_headers=8192)
            return CallerPool(
                address,
                limits=own,
                parameters=parameters,
                stats=counted,
                poller=self.poller,
                wheel=self.wheel,
                clock=self.clock.seconds,
                prelude=prelude,
            )

        self.pools = CallerPools(address, version=1, limits=PoolLimits(**limits), stats=stats, make=make, most_idle=most_idle)
        return self.pools

    def mark(self, cause: str, held: bool) -> None:
        self.marks.append((cause, held))

    def ask(self, number: int) -> Exchange:
        ex = request()
        ex.walk, ex.caller = self.walk, FakeCaller()  # type: ignore[assignment]
        ex.peer, ex.local = ("192.0.2.1", number), HERE
        client = self.pools.acquire(ex)
        if client is not None:
            self.walk.connected(ex, client)
        return ex

    def asked(self, number: int) -> tuple[Exchange, HttpClient]:
        """A request that has its connection."""
        ex, before = self.ask(number), len(self.walk.connections)
        self.until(lambda: len(self.walk.connections) > before or self.walk.connections[-1:] and self.walk.connections[-1]._ex is ex)
        return ex, next(client for client in self.walk.connections if client._ex is ex)

    def until(self, statement: Callable[[], object]) -> None:
        def pumped() -> bool:
            self.poller.pump(0.005)
            self.clock.advance(0)
            return bool(statement())

        assert wait_until(pumped, 5.0)

    def close(self) -> None:
        self.pools.retire()
        self.listener.close()
        self.poller.close()


@pytest.fixture
def callers() -> Iterator[Callers]:
    found = Callers()
    yield found
    found.close()


def test_a_caller_gets_its_own_connection_again(callers: Callers) -> None:
    pools = callers.open()
    _, client = callers.asked(1)
    client.data_received(OK)
    assert (pools.cached, pools.open, pools.callers) == (1, 1, 1)
    callers.ask(1)
    assert callers.walk.connections == [client, client]
    assert pools.cached == 0


def test_the_longest_idle_connection_makes_room_once_there_are_many(callers: Callers) -> None:
    pools = callers.open(most_idle=2)
    clients = [callers.asked(number)[1] for number in (1, 2, 3)]
    for client in clients:
        client.data_received(OK)
    assert (pools.cached, pools.open, pools.callers) == (2, 2, 2)
    callers.ask(3)
    assert callers.walk.connections[-1] is clients[2]


def test_idle_connections_close_one_by_one_in_time(callers: Callers) -> None:
    pools = callers.open(idle_time=1.0)
    callers.asked(1)[1].data_received(OK)
    callers.clock.advance(1.1)
    assert pools.size == 0 and pools.callers == 0
    callers.open(idle_time=60.0)
    callers.asked(1)[1].data_received(OK)
    callers.clock.advance(IDLE_SECONDS + 0.1)
    assert callers.pools.size == 0


def test_waiters_are_served_in_line_as_connections_end(callers: Callers) -> None:
    pools = callers.open(max_size=2)
    (_, first), (_, second) = callers.asked(1), callers.asked(2)
    third, fourth = callers.ask(3), callers.ask(4)
    assert (pools.size, pools.waiting) == (2, 2)
    first.abandon()
    callers.until(lambda: callers.walk.connections[-1]._ex is third)
    assert (pools.size, pools.waiting) == (2, 1)
    second.data_received(OK)
    callers.until(lambda: callers.walk.connections[-1]._ex is fourth)
    assert (pools.size, pools.waiting) == (2, 0)


def test_a_full_pool_is_marked_as_long_as_it_is_full(callers: Callers) -> None:
    pools = callers.open(max_size=1, max_waiters=1)
    pools.attach(callers)
    _, client = callers.asked(1)
    waiting = callers.ask(2)
    assert callers.marks == [("pool", True)]
    with pytest.raises(TooManyWaiters):
        callers.ask(3)
    pools.forget(waiting)
    assert callers.marks == [("pool", True), ("pool", False)]
    client.data_received(OK)
    assert pools.is_available


def test_a_connect_for_nobody_says_that_it_is_the_gateway_s_own(callers: Callers) -> None:
    pools = callers.open()
    pools.connect()
    accepted, _ = callers.listener.accept()
    callers.until(lambda: pools.cached == 1)
    accepted.settimeout(5.0)
    assert accepted.recv(100) == write_header(1, None, None)
    callers.asked(1)
    assert pools.open == 2, "nobody's connection is no caller's"
    accepted.close()
    callers.until(lambda: pools.open == 1)


def test_a_retired_pool_closes_what_is_idle_and_a_revived_one_keeps_connections_again(callers: Callers) -> None:
    pools = callers.open()
    callers.asked(1)[1].data_received(OK)
    _, busy = callers.asked(2)
    pools.retire()
    assert not pools.is_available
    assert (pools.open, pools.callers) == (1, 1)
    busy.data_received(OK)
    assert (pools.open, pools.callers) == (0, 0)
    _, late = callers.asked(3)
    late.data_received(OK)
    assert pools.open == 0, "what was on its way is served, not kept"
    pools.revive()
    callers.asked(4)[1].data_received(OK)
    assert pools.cached == 1


def test_a_refused_connect_is_told_and_leaves_nothing(callers: Callers) -> None:
    pools = callers.open()
    callers.listener.close()
    callers.ask(1)
    callers.until(lambda: callers.walk.errors)
    assert (pools.size, pools.waiting, pools.callers) == (0, 0, 0)
