"""Connections to an API: which answers are refused, which connections are kept, and what is left of them when they end."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.dialled import HEAD, Dialled, Outcome, Wire
from meshgw.backends.connecting import Connector
from meshgw.backends.http_agent import IDLE_SECONDS, MOST_IDLE
from meshgw.backends.http_client import ApiClient
from meshgw.core.address import Address, Replicas
from meshgw.core.live import constant
from meshgw.errors import BackendError, BackendMalformed, BackendUnreachable

OK = HEAD + b"ok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Api:
    """A client of an API whose connections the test accepts."""

    def __init__(self, port: int = 80) -> None:
        self.reactor = Dialled()
        self.connector = Connector(self.reactor, lambda _host, _port: constant(Replicas((Address("192.0.2.1", port),))), "api", port)
        self.client = ApiClient(self.connector.agent, self.reactor, name="Api", base=self.connector.base, largest=1000)

    def get(self, path: str = "/", **headers: str) -> Outcome:
        return Outcome(self.client.get(path, seconds=60.0, headers=headers))

    def asked(self) -> tuple[Outcome, Wire]:
        outcome = self.get()
        return outcome, self.reactor.accept()

    def kept(self) -> Wire:
        """A connection that has served one question."""
        outcome, wire = self.asked()
        wire.send(OK)
        assert outcome.value.body == b"ok"
        wire.take()
        return wire


# --- what is sent


def test_the_port_is_told_to_the_api_unless_it_is_the_usual_one() -> None:
    _, wire = Api(8500).asked()
    assert b"\r\nHost: api:8500\r\n" in wire.got
    _, wire = Api(80).asked()
    assert b"\r\nHost: api\r\n" in wire.got


def test_headers_that_change_are_sent_as_they_are_now() -> None:
    api = Api()
    wire = api.kept()
    for token in ("one", "two", "two", "three"):
        outcome = api.get(Authorization=token)
        assert wire.take().count(b"\r\nAuthorization: %b\r\n" % token.encode()) == 1
        wire.send(OK)
        assert outcome.value.body == b"ok"


def test_a_header_cannot_hold_another() -> None:
    api = Api()
    api.get(Authorization="x\r\nX-Other: y")
    assert b"\r\nX-Other" not in api.reactor.accept().got


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "a", "http://elsewhere/"])
def test_a_path_that_is_none_is_not_sent(path: str) -> None:
    api = Api()
    assert isinstance(api.get(path).error, BackendUnreachable) and not api.reactor.attempts


# --- what is refused


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        CHUNKED + b"2\r\nokx\r\n",
        CHUNKED + b"-2\r\nok\r\n0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00",
    ],
)
def test_an_answer_that_could_be_read_in_two_ways_is_refused(answer: bytes) -> None:
    outcome, wire = Api().asked()
    wire.send(answer)
    assert isinstance(outcome.error, BackendMalformed)
    wire._dialled.advance(0)
    assert wire.ended == "aborted"


@given(st.binary(max_size=300), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", HEAD, CHUNKED]))
def test_whatever_comes_is_an_answer_or_an_error_of_the_api(data: bytes, before: bytes) -> None:
    api = Api()
    outcome, wire = api.asked()
    wire.send(before + data)
    wire.close()
    assert not outcome.is_open
    if not hasattr(outcome.results[0], "body"):
        assert isinstance(outcome.error, BackendError)
    api.connector.stop()
    api.reactor.advance(0)
    assert api.reactor.getDelayedCalls() == []


# --- which connections are kept


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        CHUNKED + b"2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_connection_is_kept_after_an_answer_that_has_an_end(answer: bytes) -> None:
    api = Api()
    outcome, wire = api.asked()
    wire.send(answer)
    assert not isinstance(outcome.value, Exception) and not wire.ended
    api.get("/next")
    assert len(api.reactor.attempts) == 1 and b"GET /next " in wire.got


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"more",
        OK + OK,
        CHUNKED + b"2\r\nok\r\n0\r\n\r\nHTTP/1.1 200",
        b"HTTP/1.1 204 No Content\r\n\r\nmore",
    ],
)
def test_a_connection_is_not_kept_after_an_answer_that_says_so_or_is_followed_by_something(answer: bytes) -> None:
    api = Api()
    outcome, wire = api.asked()
    wire.send(answer)
    assert outcome.value.is_good
    api.get("/next")
    api.reactor.advance(0)
    assert wire.ended and len(api.reactor.attempts) == 2 and b"/next" not in wire.got


def test_what_nobody_asked_for_ends_a_kept_connection() -> None:
    api = Api()
    wire = api.kept()
    wire.send(OK)
    outcome = api.get()
    assert wire.got == b"", "nothing is asked on it, though its end is not told yet"
    api.reactor.advance(0)
    assert wire.ended == "aborted"
    assert len(api.reactor.attempts) == 2
    api.reactor.accept().send(OK)
    assert outcome.value.body == b"ok"


def test_an_answer_to_a_question_that_was_taken_back_is_not_given_to_the_next() -> None:
    api = Api()
    wire = api.kept()
    first = api.get("/first")
    first.deferred.cancel()
    second = api.get("/second")
    wire.send(OK)
    assert second.is_open and b"/second" not in wire.got
    api.reactor.accept().send(HEAD + b"no")
    assert second.value.body == b"no"


def test_a_question_is_asked_again_only_when_nothing_of_its_answer_came_and_only_once() -> None:
    api = Api()
    wire = api.kept()
    outcome = api.get()
    wire.send(b"H")
    wire.close()
    assert isinstance(outcome.error, BackendUnreachable) and len(api.reactor.attempts) == 1
    wire = api.reactor.accept() if api.get().is_open else wire
    wire.send(OK)
    again = api.get()
    wire.close()
    api.reactor.accept().close()
    assert isinstance(again.error, BackendUnreachable) and len(api.reactor.attempts) == 3


def test_a_stream_that_ends_while_it_is_held_back_leaves_a_connection_that_reads() -> None:
    api = Api()
    opened = Outcome(api.client.lines("/watch", seconds=5.0))
    wire = api.reactor.accept()
    body = b"\n" * 40_000
    wire.protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n" + body)
    stream = opened.value
    assert not wire.is_paused
    outcome = api.get()
    stream.close()
    wire.send(OK)
    assert outcome.value.body == b"ok", "a stream that has ended has no power over the connection any more"


def test_only_so_many_connections_are_kept_and_each_for_its_time() -> None:
    api = Api()
    asked = [api.asked() for _ in range(MOST_IDLE + 2)]
    for _, wire in asked[:-1]:
        wire.send(OK)
    api.reactor.advance(0)
    assert [wire.ended for _, wire in asked[:3]] == ["closed", "", ""]
    api.reactor.advance(IDLE_SECONDS - 1)
    asked[-1][1].send(OK)
    api.reactor.advance(1)
    api.reactor.advance(0)
    assert all(wire.ended == "closed" for _, wire in asked[:-1]) and not asked[-1][1].ended
    api.reactor.advance(IDLE_SECONDS)
    api.reactor.advance(0)
    assert asked[-1][1].ended == "closed" and api.reactor.getDelayedCalls() == []


# --- what is left


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage collection while the test runs."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("answer", [OK, CHUNKED + b"2\r\nok\r\n0\r\n\r\n"])
def test_answers_leave_nothing_to_the_garbage_collector(answer: bytes) -> None:
    api = Api()
    wire = api.kept()
    gc.collect()
    for _ in range(10):
        outcome = api.get()
        wire.send(answer)
        assert outcome.value.body == b"ok"
    assert gc.collect() == 0
