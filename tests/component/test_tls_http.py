"""HTTP servers and clients over TLS connections: they need not know."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakes.served import answer
from fakes.tls import Bench, tls_client, tls_server
from fakes.transport import FakeCaller, FakeWalk, request
from meshgw.client.http import ClientParameters, HttpClient
from meshgw.core.exchange import Exchange
from meshgw.core.tls_ends import ClientTlsConnection, ServerTlsConnection
from meshgw.server.http import HttpServer
from meshgw.server.parameters import HttpParameters
from meshgw.wire.headers import FieldTable
from meshgw.wire.http1 import ResponseTable


class NoPool:
    def __init__(self) -> None:
        self.released_count = self.closed_count = 0

    def released(self, client: HttpClient) -> None:
        self.released_count += 1

    def closed(self, client: HttpClient) -> None:
        self.closed_count += 1


class Hop:
    """Our client asks our server, both over TLS; the server answers as ``walk`` says."""

    def __init__(self, bench: Bench, walk: FakeWalk) -> None:
        self.bench = bench
        one, two = bench.sockets_pair()
        parameters = HttpParameters(
            walk=walk,
            table=FieldTable(taken=(b"via",)),
            wheel=bench.wheel,
            clock=bench.clock.seconds,
            max_line=4096,
            max_headers=8192,
            max_body=None,
            on_closed=lambda _server: None,
        )
        self.tls = ServerTlsConnection(bench.raw(one), bench.wheel, tls_server(), ("127.0.0.1", 1))
        self.server = HttpServer(self.tls, parameters, ("127.0.0.1", 1), ("127.0.0.1", 2))  # type: ignore[arg-type]
        self.tls.receiver = self.server
        self.server.start()
        self.pool, self.walk = NoPool(), FakeWalk()
        self.connection = ClientTlsConnection(bench.raw(two), bench.wheel, tls_client(), "127.0.0.1:443")
        limits = ClientParameters(table=ResponseTable(taken=(b"via",)), max_headers=8192)
        self.client = HttpClient(self.connection, limits, self.pool, "127.0.0.1:443")  # type: ignore[arg-type]
        self.connection.start()
        self.connection.start()  # as a pool does with every connection it is given

    def ask(self, ex: Exchange) -> FakeCaller:
        caller = FakeCaller()
        ex.caller, ex.walk, ex.upstream = caller, self.walk, self.client  # type: ignore[assignment]
        self.client.send(ex)
        self.bench.pump(400)
        return caller


@pytest.fixture
def bench() -> Iterator[Bench]:
    found = Bench()
    yield found
    found.close()


def test_requests_follow_each_other_on_one_connection(bench: Bench) -> None:
    walk = FakeWalk(lambda ex: answer(ex, b"hello", length=5))
    hop = Hop(bench, walk)
    for number in range(3):
        caller = hop.ask(request(target=b"/%d" % number))
        assert (caller.body, caller.is_done) == (b"hello", True)
    assert [target for _, target, _, _, _ in walk.requests] == [b"/0", b"/1", b"/2"]
    assert hop.pool.released_count == 3


def test_large_bodies_pass_whole_both_ways(bench: Bench) -> None:
    body = bytes(range(256)) * 1500
    walk = FakeWalk(lambda ex: answer(ex, body, length=len(body)))
    hop = Hop(bench, walk)
    caller = hop.ask(request(b"POST", body=body))
    assert walk.requests[0][3] == body
    assert caller.body == body
    assert caller.is_done


def until_close(ex: Exchange) -> None:
    answer(ex, b"half of an", length=-1, done=False)


def test_an_answer_that_ends_with_the_connection_is_whole_when_its_end_is_announced(bench: Bench) -> None:
    held: list[Exchange] = []
    hop = Hop(bench, FakeWalk(held.append))
    caller = hop.ask(request(version=b"1.0"))
    until_close(held[0])
    held[0].caller.send_end([])
    bench.pump()
    assert (caller.body, caller.is_done) == (b"half of an", True)
    assert hop.walk.failures == []


def test_an_answer_that_is_cut_short_fails(bench: Bench) -> None:
    held: list[Exchange] = []
    hop = Hop(bench, FakeWalk(held.append))
    caller = hop.ask(request(version=b"1.0"))
    until_close(held[0])
    bench.pump()
    hop.tls._raw.close_now()  # the network connection ends, and TLS has not said that it is the end
    bench.pump()
    assert (caller.body, caller.is_done) == (b"half of an", False)
    assert "without close_notify" in str(hop.walk.failures[0])
