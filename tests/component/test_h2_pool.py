from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from fakes.transport import FakeCaller, FakeConnection, request
from meshgw.client.h2 import H2Client
from meshgw.client.h2_parameters import H2ClientParameters
from meshgw.client.h2_pool import H2Pool
from meshgw.client.http import ClientParameters
from meshgw.client.negotiated import HttpSide, NegotiatedPool
from meshgw.client.pool import PoolLimits
from meshgw.core.address import Address
from meshgw.core.exchange import Exchange, Upstream
from meshgw.core.stream import Stream
from meshgw.core.timers import Wheel
from meshgw.errors import MeshError, TooManyWaiters
from meshgw.wire.h2_connection import CROWDED, H2Settings
from meshgw.wire.headers import FieldTable
from meshgw.wire.http1 import ResponseTable
from support import h2_frames as f


class Stats:
    """Writes down what a pool counts."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def __getattr__(self, name: str) -> Callable[..., None]:
        def count(*_: object) -> None:
            self.counts[name] = self.counts.get(name, 0) + 1

        return count


class Attempt:
    """A connect under way, which the test ends."""

    def __init__(self, done: Callable[[Any, Any], None]) -> None:
        self.done = done
        self.is_cancelled = False

    def start(self, *_: object) -> None:
        pass

    def cancel(self) -> None:
        self.is_cancelled = True


class Link(FakeConnection):
    """An established connection."""

    def __init__(self, alpn: bytes = b"h2") -> None:
        super().__init__()
        self.alpn = alpn
        self.is_readable = False


class Sending:
    """A walk that sends as soon as there is a stream, and tries again once where nothing was sent."""

    def __init__(self) -> None:
        self.sent: list[Exchange] = []
        self.errors: list[MeshError] = []
        self.failures: list[MeshError] = []
        self.on_connected: Callable[[Exchange], None] | None = None

    def connected(self, ex: Exchange, upstream: Upstream) -> None:
        ex.upstream = upstream
        self.sent.append(ex)
        upstream.send(ex)
        if self.on_connected is not None:
            self.on_connected(ex)

    def connect_failed(self, ex: Exchange, error: MeshError) -> None:
        self.errors.append(error)

    def failed(self, ex: Exchange, error: MeshError, *, resend: bool) -> None:
        self.failures.append(error)

    def holds(self, _ex: Exchange) -> None:
        return None

    def answered(self, ex: Exchange, body: bytes, done: bool) -> None:
        ex.caller.respond(ex, body, done=done)


class Pooled:
    """A pool whose connects and connections are the test's."""

    def __init__(self, *, negotiated: bool = False, **limits: Any) -> None:
        self.clock, self.stats, self.walk = Clock(), Stats(), Sending()
        self.attempts: list[Attempt] = []
        self.links: list[Link] = []
        wheel = Wheel(self.clock)
        parameters = H2ClientParameters(
            table=FieldTable(), wheel=wheel, clock=self.clock.seconds, later=lambda call: call(), own=H2Settings(is_client=True)
        )
        common: dict[str, Any] = {"limits": PoolLimits(**limits), "stats": self.stats, "poller": None, "wheel": wheel}
        common |= {"clock": self.clock.seconds, "dial": self._dial}
        address = Address("198.51.100.1", 80)

        def http(turned: Callable[[Stream], None]) -> HttpSide:
            return HttpSide(address, parameters=ClientParameters(table=ResponseTable(), max_headers=8192), turned=turned, **common)

        self.pool: H2Pool = (
            NegotiatedPool(address, parameters=parameters, http=http, **common)
            if negotiated
            else H2Pool(address, parameters=parameters, **common)
        )

    def _dial(self, done: Callable[[Any, Any], None], _prelude: bytes) -> Any:
        self.attempts.append(Attempt(done))
        return self.attempts[-1]

    def ask(self, count: int = 1) -> list[Exchange]:
        """Requests, sent at once or waiting."""
        asked = []
        for _ in range(count):
            ex = request()
            ex.walk, ex.caller = self.walk, FakeCaller()  # type: ignore[assignment]
            upstream = self.pool.acquire(ex)
            if upstream is not None:
                self.walk.connected(ex, upstream)
            asked.append(ex)
        return asked

    def connect(self, settings: bytes | None = f.settings({f.STREAMS: 10}), alpn: bytes = b"h2") -> Link:
        """The oldest connect succeeds; its endpoint sends ``settings``."""
        link = Link(alpn)
        self.links.append(link)
        self.attempts.pop(0).done(link, "")
        if settings is not None:
            link.receiver.data_received(settings)
        return link

    def answer(self, link: Link, *streams: int) -> None:
        for stream in streams:
            link.receiver.data_received(f.headers(stream, ((":status", "200"),)))

    def client(self, link: Link) -> H2Client:
        assert isinstance(link.receiver, H2Client)
        return link.receiver


@pytest.fixture
def pooled() -> Iterator[Pooled]:
    yield Pooled()


def test_requests_share_one_connection(pooled: Pooled) -> None:
    pooled.ask(5)
    assert len(pooled.attempts) == 1
    link = pooled.connect()
    assert len(pooled.walk.sent) == 5
    pooled.ask(5)
    assert not pooled.attempts
    assert pooled.client(link).room == 0
    assert pooled.pool.size == pooled.pool.open == 1


def test_there_is_another_connection_once_one_has_no_room(pooled: Pooled) -> None:
    pooled.ask(11)
    pooled.connect()
    assert len(pooled.walk.sent) == 10
    assert len(pooled.attempts) == 1
    pooled.connect()
    assert len(pooled.walk.sent) == 11


def test_who_waits_gets_the_room_that_an_answer_makes(pooled: Pooled) -> None:
    pooled = Pooled(max_size=1)
    pooled.ask(11)
    link = pooled.connect()
    assert pooled.pool.waiting == 1
    pooled.answer(link, 5)
    assert len(pooled.walk.sent) == 11


def test_one_request_goes_before_the_settings_and_the_others_wait_for_them(pooled: Pooled) -> None:
    pooled.ask(5)
    link = pooled.connect(None)
    assert len(pooled.walk.sent) == 1
    assert not pooled.attempts
    link.receiver.data_received(f.settings({f.STREAMS: 3}))
    assert len(pooled.walk.sent) == 3
    assert len(pooled.attempts) == 1


def test_many_that_wait_are_not_kept_by_one_connection_that_tells_nothing(pooled: Pooled) -> None:
    pooled.ask(150)
    pooled.connect(None)
    assert len(pooled.attempts) == 1


def test_an_endpoint_without_a_limit_gets_everything_on_one_connection(pooled: Pooled) -> None:
    pooled.ask(500)
    while pooled.attempts:
        pooled.connect(f.settings())
    assert len(pooled.walk.sent) == 500
    assert pooled.pool.open <= 5


def test_an_endpoint_that_takes_no_streams_now_is_waited_for_on_one_connection(pooled: Pooled) -> None:
    """It would say the same on any other, and each request would leave some behind."""
    pooled.ask(3)
    link = pooled.connect(f.settings({f.STREAMS: 0}))
    assert len(pooled.walk.sent) == 1
    pooled.ask(3)
    assert not pooled.attempts
    link.receiver.data_received(f.settings({f.STREAMS: 10}))
    assert len(pooled.walk.sent) == 6


def hold_back(pooled: Pooled, link: Link, asked: list[Exchange], size: int) -> None:
    """Answers of ``size`` bytes come to callers that take nothing."""
    for index, ex in enumerate(asked):
        stream = 2 * index + 1
        link.receiver.data_received(f.headers(stream, ((":status", "200"),), ends=False))
        ex.caller.is_full = True  # type: ignore[misc]
        for start in range(0, size, 16000):
            link.receiver.data_received(f.data(stream, bytes(min(16000, size - start))))


def test_a_connection_full_of_answers_that_callers_do_not_take_gets_no_more_requests() -> None:
    pooled = Pooled()
    count = CROWDED // 60000 + 1
    asked = pooled.ask(count)
    link = pooled.connect(f.settings())
    hold_back(pooled, link, asked, 60000)
    (other,) = pooled.ask()
    assert len(pooled.attempts) == 1
    pooled.connect(f.settings())
    assert pooled.walk.sent[-1] is other
    assert len(pooled.client(link).streams) == count


def test_who_waits_for_a_crowded_connection_gets_it_when_a_caller_takes_its_answer() -> None:
    pooled = Pooled(max_size=1)
    asked = pooled.ask(CROWDED // 60000 + 1)
    link = pooled.connect(f.settings())
    hold_back(pooled, link, asked, 60000)
    (other,) = pooled.ask()
    assert pooled.walk.sent[-1] is not other
    for ex in asked[:3]:
        assert ex.upstream is not None
        ex.upstream.resume_answer()  # type: ignore[attr-defined]
    pooled.clock.advance(0)
    assert pooled.walk.sent[-1] is other


def test_no_more_wait_than_allowed() -> None:
    pooled = Pooled(max_size=1, max_waiters=2)
    pooled.ask(1)
    pooled.connect(f.settings({f.STREAMS: 1}))
    pooled.ask(2)
    with pytest.raises(TooManyWaiters):
        pooled.ask(1)
    assert not pooled.pool.is_available


def test_room_on_one_connection_is_not_overlooked_while_another_is_served(pooled: Pooled) -> None:
    """An answer on the second connection comes from inside the first one's turn, by way of a request that fails at once."""
    pooled = Pooled(max_size=2)
    pooled.ask(3)
    first = pooled.connect(f.settings({f.STREAMS: 1}))
    second = pooled.connect(f.settings({f.STREAMS: 1}))
    assert pooled.pool.waiting == 1
    pooled.ask(2)
    assert pooled.pool.waiting == 3

    def answers_elsewhere(_ex: Exchange) -> None:
        pooled.walk.on_connected = None
        pooled.answer(second, 1)

    pooled.walk.on_connected = answers_elsewhere
    pooled.answer(first, 1)
    assert len(pooled.walk.sent) == 4
    assert pooled.pool.waiting == 1


def test_a_connection_that_goes_away_gets_nothing_more_and_is_replaced(pooled: Pooled) -> None:
    pooled.ask(1)
    link = pooled.connect()
    link.receiver.data_received(f.goaway(1))
    pooled.ask(1)
    assert len(pooled.attempts) == 1
    pooled.connect()
    assert len(pooled.walk.sent) == 2
    assert pooled.pool.open == 2
    pooled.answer(link, 1)
    link.lost("closed")
    assert pooled.pool.open == 1


def test_who_waits_for_a_faulty_connection_gets_another_at_once() -> None:
    pooled = Pooled()
    pooled.ask(1)
    link = pooled.connect(f.settings({f.STREAMS: 1}))
    pooled.ask(1)
    attempts = len(pooled.attempts)
    link.receiver.data_received(f.ping(b"wrong"))
    assert len(pooled.attempts) == max(1, attempts)
    pooled.connect()
    assert len(pooled.walk.sent) == 2


def test_a_connect_that_fails_is_told_to_all_who_wait_for_it(pooled: Pooled) -> None:
    pooled.ask(5)
    pooled.attempts.pop().done(None, "refused")
    assert len(pooled.walk.errors) == 5
    assert pooled.pool.waiting == 0
    assert pooled.stats.counts["connect_failed"] == 1


def test_idle_connections_are_closed_after_their_time_and_old_ones_when_they_are_idle() -> None:
    pooled = Pooled(session_idle=5.0, session_life=8.0)
    pooled.ask(1)
    idle = pooled.connect()
    pooled.answer(idle, 1)
    pooled.clock.pump([1.0] * 12)
    assert idle.ending == "close"
    idle.lost()
    pooled.ask(1)
    busy = pooled.connect()
    pooled.clock.pump([1.0] * 12)
    assert busy.ending == ""
    assert pooled.client(busy).room == 0
    pooled.answer(busy, 1)
    assert busy.ending == "close"


def test_a_retired_pool_closes_what_is_idle_and_lets_the_rest_finish(pooled: Pooled) -> None:
    pooled.ask(1)
    link = pooled.connect()
    pooled.pool.retire()
    assert link.ending == ""
    pooled.answer(link, 1)
    assert link.ending == "close"
    assert not pooled.pool.is_available


def test_who_waits_at_a_retired_pool_is_told_when_its_last_connection_goes() -> None:
    pooled = Pooled()
    pooled.ask(1)
    link = pooled.connect(f.settings({f.STREAMS: 1}))
    pooled.ask(1)
    pooled.attempts.pop().done(None, "refused")  # it is told to the one who waits
    pooled.pool.retire()
    ex = request()
    ex.walk = pooled.walk  # type: ignore[assignment]
    assert pooled.pool.acquire(ex) is None
    link.receiver.data_received(f.goaway(1))
    assert len(pooled.walk.errors) == 2
    assert pooled.pool.waiting == 0


def test_who_is_forgotten_is_not_served(pooled: Pooled) -> None:
    first, second = pooled.ask(2)
    pooled.pool.forget(first)
    pooled.connect()
    assert pooled.walk.sent == [second]


# --- agreed on by ALPN


def test_an_endpoint_that_agrees_on_http1_is_spoken_to_so() -> None:
    pooled = Pooled(negotiated=True)
    pooled.ask(2)
    link = pooled.connect(None, alpn=b"http/1.1")
    assert link.written.startswith(b"GET / HTTP/1.1\r\n")
    assert len(pooled.walk.sent) == 1
    assert pooled.pool.waiting == 1
    link.receiver.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert len(pooled.walk.sent) == 2


def test_those_who_are_too_many_for_http1_are_told_so_one_by_one() -> None:
    pooled = Pooled(negotiated=True, max_size=1, max_waiters=2)
    pooled.ask(1)
    pooled.pool._limits = PoolLimits(max_size=1, max_waiters=10)
    pooled.ask(4)
    link = pooled.connect(None, alpn=b"http/1.1")
    assert len(pooled.walk.sent) == 1
    assert [type(error) for error in pooled.walk.errors] == [TooManyWaiters, TooManyWaiters]
    assert link.written.count(b"GET ") == 1


def test_an_endpoint_that_learned_http2_gets_the_next_connection_so_and_all_who_wait() -> None:
    pooled = Pooled(negotiated=True, max_size=2)
    first, second, *_ = pooled.ask(4)
    old = pooled.connect(None, alpn=b"http/1.1")
    assert pooled.walk.sent == [first]
    link = pooled.connect(alpn=b"h2")
    assert len(pooled.walk.sent) == 4
    assert pooled.client(link).used == 3
    assert pooled.pool.waiting == 0
    old.receiver.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert old.ending == "close_now"
    assert second.upstream is not None
    assert pooled.stats.counts["connected"] == 2


def test_an_endpoint_that_forgot_http2_gets_no_more_of_it() -> None:
    pooled = Pooled(negotiated=True)
    pooled.ask(1)
    old = pooled.connect(f.settings({f.STREAMS: 1}), alpn=b"h2")
    pooled.ask(2)
    link = pooled.connect(None, alpn=b"http/1.1")
    assert link.written.startswith(b"GET / HTTP/1.1\r\n")
    assert pooled.client(old).room == 0
    assert old.ending == ""
    pooled.answer(old, 1)
    assert old.ending == "close"
    assert pooled.pool.waiting == 1


def test_who_turned_to_http2_is_not_marked_as_full_any_more() -> None:
    pooled = Pooled(negotiated=True, max_size=1, max_waiters=1)
    marks: list[bool] = []

    class Node:
        def mark(self, _cause: str, held: bool) -> None:
            marks.append(held)

    pooled.pool.attach(Node())
    pooled.ask(1)
    old = pooled.connect(None, alpn=b"http/1.1")
    pooled.ask(1)
    assert marks == [True, False, True]
    old.lost()
    pooled.connect(alpn=b"h2")
    assert marks[3:] == [False]
    assert pooled.walk.sent[-1].upstream is not None


def test_nobody_who_waits_is_lost_when_the_address_goes_and_comes_back() -> None:
    pooled = Pooled(negotiated=True, max_size=1)
    pooled.ask(2)
    link = pooled.connect(None, alpn=b"http/1.1")
    assert pooled.pool.waiting == 1
    pooled.pool.retire()
    pooled.pool.revive()
    assert pooled.pool.waiting == 1
    link.receiver.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert len(pooled.walk.sent) == 2


def test_idle_connections_above_the_least_are_closed_after_their_time() -> None:
    pooled = Pooled(idle_time=10.0, min_size=1)
    pooled.ask(2)
    first = pooled.connect(f.settings({f.STREAMS: 1}))
    second = pooled.connect(f.settings({f.STREAMS: 1}))
    pooled.answer(first, 1)
    pooled.clock.advance(1.0)
    pooled.answer(second, 1)
    pooled.clock.pump([1.0] * 40)
    assert (first.ending, second.ending) == ("close", "")
