"""A pool tells the balancer's node when all its connections and waiting places are taken."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from meshgw.client.pool import Pool, PoolLimits
from meshgw.core.address import Address
from meshgw.core.exchange import Exchange
from meshgw.core.timers import Wheel
from meshgw.errors import MeshError, TooManyWaiters


class Deaf:
    """A poller that never reports anything, so that a connect stays under way until it times out."""

    def watch(self, fd: int, call: Callable[[int], None], events: int) -> None:
        pass

    def forget(self, fd: int) -> None:
        pass


class Ignored:
    """Takes every report of the pool."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class Marks:
    def __init__(self) -> None:
        self.held: dict[str, bool] = {}

    def mark(self, cause: str, held: bool) -> None:
        self.held[cause] = held


class Failed:
    def connect_failed(self, ex: Exchange, error: MeshError) -> None:
        ex.error = error


@pytest.fixture
def address() -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Address("127.0.0.1", listening.getsockname()[1])


def pool(address: Address, clock: Clock, **limits: Any) -> Pool:
    parameters: Any = None
    deaf: Any = Deaf()
    stats: Any = Ignored()
    return Pool(
        address,
        limits=PoolLimits(**limits),
        parameters=parameters,
        stats=stats,
        poller=deaf,
        wheel=Wheel(clock),
        clock=clock.seconds,
    )


def request() -> Exchange:
    ex = Exchange()
    walk: Any = Failed()
    ex.walk = walk
    return ex


def test_a_full_pool_is_busy_until_a_place_is_free(address: Address) -> None:
    clock, marks = Clock(), Marks()
    full = pool(address, clock, max_size=1, max_waiters=0, connect_timeout=1.0)
    full.attach(marks)
    first = request()
    assert full.acquire(first) is None
    assert marks.held == {"pool": True}
    with pytest.raises(TooManyWaiters):
        full.acquire(request())
    full.forget(first)
    assert marks.held == {"pool": False}
    second = request()
    full.acquire(second)
    assert marks.held == {"pool": True}
    clock.advance(1.1)
    assert second.error is not None
    assert marks.held == {"pool": False}
    full.retire()


def test_a_pool_whose_queue_has_no_limit_is_never_busy(address: Address) -> None:
    marks = Marks()
    endless = pool(address, Clock(), max_size=1)
    endless.attach(marks)
    waiting = [request() for _ in range(5)]
    for ex in waiting:
        endless.acquire(ex)
    assert marks.held == {}
    for ex in waiting:
        endless.forget(ex)
    endless.retire()


def test_an_address_that_comes_back_is_not_busy(address: Address) -> None:
    clock, marks = Clock(), Marks()
    full = pool(address, clock, max_size=1, max_waiters=0)
    full.attach(marks)
    ex = request()
    full.acquire(ex)
    full.retire()
    full.forget(ex)
    full.revive()
    assert marks.held == {"pool": False}
    assert full.is_available
    clock.advance(2.0)
