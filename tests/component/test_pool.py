from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from twisted.internet.task import Clock

from fakes.transport import FakeCaller, HandPoller, request
from meshgw.client.http import ClientParameters, HttpClient
from meshgw.client.pool import Pool, PoolLimits
from meshgw.core.address import Address
from meshgw.core.exchange import Exchange
from meshgw.core.timers import Wheel
from meshgw.errors import MeshError, TooManyWaiters
from meshgw.wire.http1 import ResponseTable
from support.processes import free_port, wait_until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Stats:
    """Writes down what a pool counts."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def __getattr__(self, name: str) -> Callable[..., None]:
        def count(*_: object) -> None:
            self.counts[name] = self.counts.get(name, 0) + 1

        return count


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


class Pooled:
    """A pool over real connections to a listener of the test."""

    def __init__(self) -> None:
        self.clock, self.poller, self.stats, self.walk = Clock(), HandPoller(), Stats(), Sending()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.accepted: list[socket.socket] = []

    def open(self, port: int | None = None, **limits: Any) -> Pool:
        parameters = ClientParameters(table=ResponseTable(), max_headers=8192)
        address = Address("127.0.0.1", self.listener.getsockname()[1] if port is None else port)
        stats: Any = self.stats
        self.pool = Pool(
            address,
            limits=PoolLimits(**limits),
            parameters=parameters,
            stats=stats,
            poller=self.poller,
            wheel=Wheel(self.clock),
            clock=self.clock.seconds,
        )
        return self.pool

    def ask(self) -> Exchange:
        ex = request()
        ex.walk, ex.caller = self.walk, FakeCaller()  # type: ignore[assignment]
        client = self.pool.acquire(ex)
        if client is not None:
            self.walk.connected(ex, client)
        return ex

    def until(self, statement: Callable[[], object]) -> None:
        def pumped() -> bool:
            self.poller.pump(0.005)
            self.clock.advance(0)
            return bool(statement())

        assert wait_until(pumped, 5.0)

    def asked(self, count: int = 1) -> list[Exchange]:
        """Requests that got connections of their own."""
        before = len(self.walk.connections)
        exchanges = [self.ask() for _ in range(count)]
        self.until(lambda: len(self.walk.connections) == before + count)
        return exchanges

    def answer(self, *exchanges: Exchange) -> None:
        """Answer them, each on the connection it was sent on."""
        for ex in exchanges:
            next(client for client in self.walk.connections if client._ex is ex).data_received(OK)

    def close(self) -> None:
        self.pool.retire()
        self.listener.close()
        self.poller.close()


@pytest.fixture
def pooled() -> Iterator[Pooled]:
    found = Pooled()
    yield found
    found.close()


def test_the_connection_used_last_is_used_next(pooled: Pooled) -> None:
    pool = pooled.open()
    first, second = pooled.asked(2)
    pooled.answer(second, first)
    assert (pool.open, pool.cached) == (2, 2)
    pooled.ask()
    assert pooled.walk.connections[-1] is pooled.walk.connections[0]
    assert pooled.stats.counts == {"connected": 2}


def test_requests_beyond_the_limit_wait_in_line(pooled: Pooled) -> None:
    pool = pooled.open(max_size=1)
    (first,) = pooled.asked()
    second, third = pooled.ask(), pooled.ask()
    assert (pool.size, pool.waiting) == (1, 2)
    pooled.answer(first)
    assert pooled.walk.connections[-1]._ex is second
    pooled.answer(second)
    assert pooled.walk.connections[-1]._ex is third
    assert pooled.stats.counts == {"connected": 1, "waited": 2}


def test_a_full_queue_refuses_and_is_said_to_be_unavailable(pooled: Pooled) -> None:
    pool = pooled.open(max_size=1, max_waiters=1)
    pooled.ask()
    assert pool.is_available  # the request that waits for the connect under way takes no waiting place
    pooled.ask()
    assert not pool.is_available
    with pytest.raises(TooManyWaiters):
        pooled.ask()
    assert pooled.stats.counts == {"waited": 1, "refused": 1}


def test_a_waiter_that_left_is_not_served(pooled: Pooled) -> None:
    pool = pooled.open(max_size=1)
    (first,) = pooled.asked()
    second, third = pooled.ask(), pooled.ask()
    pool.forget(second)
    pool.forget(second)
    pooled.answer(first)
    assert pooled.walk.connections[-1]._ex is third


def test_a_connection_nobody_waits_for_any_more_is_kept(pooled: Pooled) -> None:
    pool = pooled.open()
    pool.forget(pooled.ask())
    pooled.until(lambda: pool.cached == 1)
    assert pooled.walk.connections == []


def test_a_refused_connect_fails_one_waiter_each(pooled: Pooled) -> None:
    pool = pooled.open(free_port())
    for _ in range(3):
        pooled.ask()
    pooled.until(lambda: len(pooled.walk.errors) == 3)
    assert (pool.size, pool.waiting) == (0, 0)
    assert pooled.stats.counts == {"connect_failed": 3}


def test_with_a_limit_the_next_waiter_gets_a_connect_of_its_own_after_a_failure(pooled: Pooled) -> None:
    pooled.open(free_port(), max_size=1)
    for _ in range(3):
        pooled.ask()
    pooled.until(lambda: len(pooled.walk.errors) == 3)


def test_a_waiter_gets_a_new_connection_when_one_in_use_ends(pooled: Pooled) -> None:
    pooled.open(max_size=1)
    (first,) = pooled.asked()
    second = pooled.ask()
    next(client for client in pooled.walk.connections if client._ex is first).abandon()
    pooled.until(lambda: pooled.walk.connections[-1]._ex is second)
    assert pooled.stats.counts["disconnected"] == 1


def test_a_connection_that_ends_while_idle_leaves_the_pool(pooled: Pooled) -> None:
    pool = pooled.open()
    with closing(pooled.listener):
        (first,) = pooled.asked()
        pooled.answer(first)
        peer, _ = pooled.listener.accept()
        peer.close()
        pooled.until(lambda: pool.cached == 0)
    assert pool.size == 0


def test_idle_connections_above_the_least_are_closed_after_the_idle_time(pooled: Pooled) -> None:
    pool = pooled.open(min_size=1, idle_time=10.0)
    pooled.answer(*pooled.asked(3))
    pooled.clock.advance(9.0)
    assert pool.cached == 3
    pooled.clock.pump([0.5] * 4)
    assert pool.cached == 1


def test_a_retired_pool_closes_idle_connections_and_lets_the_others_finish(pooled: Pooled) -> None:
    pool = pooled.open()
    first, second = pooled.asked(2)
    pooled.answer(first)
    pool.retire()
    assert (pool.open, pool.cached) == (1, 0)
    assert not pool.is_available
    pooled.answer(second)
    assert pool.open == 0


def test_a_revived_pool_closes_idle_connections_again(pooled: Pooled) -> None:
    pool = pooled.open(idle_time=10.0)
    pooled.answer(*pooled.asked())
    pool.retire()
    pool.revive()
    pooled.answer(*pooled.asked())
    assert pool.cached == 1
    pooled.clock.pump([1.0] * 12)
    assert pool.cached == 0


def test_a_retired_pool_gives_up_connects_that_nobody_waits_for(pooled: Pooled) -> None:
    pool = pooled.open()
    pool.forget(pooled.ask())
    pool.retire()
    assert pool.size == 0
    assert pooled.poller.handlers == {}
    assert pooled.stats.counts["connect_cancelled"] == 1


def test_a_connection_past_its_age_is_not_used_again(pooled: Pooled) -> None:
    pool = pooled.open(session_life=10.0)
    (first,) = pooled.asked()
    pooled.clock.advance(4.0)
    pooled.answer(first)  # the sweep comes 10 s after this
    pooled.clock.advance(7.0)
    assert pool.cached == 1
    pooled.asked()
    assert pooled.stats.counts == {"connected": 2, "disconnected": 1}


def test_an_idle_connection_past_its_age_is_closed_without_a_request(pooled: Pooled) -> None:
    pool = pooled.open(session_life=10.0, min_size=1)
    pooled.answer(*pooled.asked())
    pooled.clock.advance(9.0)
    assert pool.cached == 1
    pooled.clock.pump([1.0] * 2)
    assert pool.size == 0


def test_a_connection_past_its_age_ends_with_the_answer_under_way(pooled: Pooled) -> None:
    pool = pooled.open(session_life=10.0)
    (first,) = pooled.asked()
    pooled.clock.advance(11.0)
    assert pool.open == 1
    pooled.answer(first)
    assert pool.size == 0
