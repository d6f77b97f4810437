"""The gateway as an HTTP/2 client: an ordinary caller in front of it, and behind it an endpoint that says right and wrong things."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from conformance.http2.case import Goaway, Reset, has_reset
from conformance.http2.client_cases import ANSWER, CASES, CUT, OK, Told
from support import h2_frames as f
from support.gateways import Answer, Gateway, gateway, parse_answer, read_all
from support.h2_frames import Frame
from support.h2_peer import LOOPBACK, SECONDS, Wire, accept, listen
from support.processes import Running, wait_until

pytestmark = pytest.mark.integration

LAST_CHUNK = re.compile(rb"(^|\r\n)0\r\n([^\r\n]+\r\n)*\r\n\Z")


@pytest.fixture(scope="module")
def gw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that leads the host ``N`` to port N of loopback, over HTTP/2."""
    with Running(tmp_path_factory.mktemp("client")) as running:
        router = {"dtab": f"/svc => /$/inet/{LOOPBACK}", "client": {"protocol": "h2"}}
        yield gateway(running, router=router)


class Caller:
    """A request over HTTP/1.1 and what came back; ``begin`` is what was sent of it so far."""

    def __init__(self, gw: Gateway, port: int, method: str = "GET", *lines: str, body: bytes = b"") -> None:
        self.sock = socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)
        head = "\r\n".join((f"{method} / HTTP/1.1", f"Host: {port}", *lines, "Connection: close", "", ""))
        self.sock.sendall(head.encode() + body)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.sock.close()

    def answer(self) -> Answer:
        """The whole answer."""
        return parse_answer(read_all(self.sock))

    def status(self) -> int:
        """The status, or 0 when the answer was broken off after its beginning."""
        data = b""
        try:
            while piece := self.sock.recv(65536):
                data += piece
        except ConnectionResetError:
            return CUT
        answer = parse_answer(data)
        if answer.headers.get("transfer-encoding") == "chunked":
            assert LAST_CHUNK.search(answer.body), data
        return answer.status


def requested(wire: Wire, stream: int) -> None:
    """A request has arrived on the stream."""
    assert wire.until(lambda wire: wire.has(f.HEADERS, stream)), wire.describe()


def is_usable(gw: Gateway, wire: Wire, port: int, stream: int = 3) -> bool:
    """Whether another request comes on the same connection, and its answer arrives."""
    with Caller(gw, port) as caller:
        requested(wire, stream)
        wire.send(f.headers(stream, OK, ends=False) + f.data(stream, b"again", ends=True))
        answer = caller.answer()
    return answer.status == 200 and b"again" in answer.body and wire.goaway() is None


@pytest.mark.parametrize("told", CASES, ids=[told.case.id for told in CASES])
def test_what_an_endpoint_sends_has_the_outcome_that_the_rfc_demands(told: Told, gw: Gateway) -> None:
    listener, port = listen()
    with closing(listener), Caller(gw, port, told.method) as caller, accept(listener) as wire:
        requested(wire, 1)
        for step in told.case.steps:
            assert isinstance(step, bytes)
            wire.send(step)
        outcome = told.case.outcome
        if isinstance(outcome, Goaway):
            assert wire.until(lambda wire: wire.ending), wire.describe()
            goaway = wire.goaway()
            assert goaway is not None, wire.describe()
            assert goaway.code == outcome.code, wire.describe()
        elif isinstance(outcome, Reset):
            assert wire.until(has_reset(outcome.stream)), wire.describe()
            assert wire.reset(outcome.stream) == outcome.code, wire.describe()
        assert caller.status() == told.caller, wire.describe()
        if not isinstance(outcome, Goaway):
            assert is_usable(gw, wire, port), wire.describe()


@pytest.mark.parametrize(
    "opening", [b"HTTP/1.1 400 Bad Request\r\n\r\n", f.ping(), f.settings(ack=True), ANSWER], ids=["http1", "ping", "ack", "answer"]
)
def test_an_endpoint_that_does_not_begin_with_settings_is_not_spoken_to(gw: Gateway, opening: bytes) -> None:
    listener, port = listen()
    with closing(listener), Caller(gw, port) as caller, accept(listener, opening) as wire:
        assert caller.status() == 502
        assert wire.until(lambda wire: wire.ending), wire.describe()
        assert wire.goaway() is not None


def test_the_client_begins_with_its_settings_refuses_push_and_acknowledges(gw: Gateway) -> None:
    listener, port = listen()
    with closing(listener), Caller(gw, port) as caller, accept(listener) as wire:
        requested(wire, 1)
        assert wire.frames[0].kind == f.SETTINGS
        assert wire.frames[0].settings[f.PUSH] == 0
        wire.send(f.settings({f.FRAME: 20000}) + ANSWER)
        assert caller.status() == 200
        assert wire.until(lambda wire: sum(frame.kind == f.SETTINGS and frame.is_ack for frame in wire.frames) == 2), wire.describe()


def test_a_request_has_its_pseudo_header_fields_first_and_nothing_of_http1(gw: Gateway) -> None:
    listener, port = listen()
    lines = ("Keep-Alive: timeout=5", "TE: trailers", "X-Kept: Yes", "Upgrade: h2c")
    with closing(listener), Caller(gw, port, "GET", *lines) as caller, accept(listener) as wire:
        requested(wire, 1)
        fields = wire.fields[1][0]
        wire.send(ANSWER)
        assert caller.status() == 200
    assert set(list(fields)[:4]) == {":method", ":scheme", ":path", ":authority"}
    assert {name: fields[name] for name in (":method", ":scheme", ":path", ":authority", "x-kept", "te")} == {
        **{":method": "GET", ":scheme": "http", ":path": "/", ":authority": str(port)},
        **{"x-kept": "Yes", "te": "trailers"},
    }
    assert not fields.keys() & {"host", "connection", "keep-alive", "upgrade", "transfer-encoding"}
    assert all(name == name.lower() for name in fields)


def test_streams_have_odd_numbers_that_grow(gw: Gateway) -> None:
    listener, port = listen()
    with closing(listener), Caller(gw, port) as caller, accept(listener) as wire:
        requested(wire, 1)
        wire.send(ANSWER)
        assert caller.status() == 200
        for stream in (3, 5, 7):
            assert is_usable(gw, wire, port, stream), wire.describe()


def test_a_request_waits_for_windows_and_keeps_to_frame_sizes(gw: Gateway) -> None:
    listener, port = listen()
    opening = f.settings({f.STREAMS: 100, f.WINDOW: 10}) + f.settings(ack=True)
    body = b"x" * 40000
    with closing(listener), Caller(gw, port, "POST", "Content-Length: 40000", body=body) as caller, accept(listener, opening) as wire:
        requested(wire, 1)
        wire.send(f.ping())
        assert wire.until(lambda wire: wire.pongs()), wire.describe()
        before = wire.body(1)  # it may have sent before it knew the window
        wire.send(f.window_update(1, 1 << 20) + f.window_update(0, 1 << 20))
        assert wire.until(lambda wire: wire.ended(1)), wire.describe()
        assert len(before) <= 40000
        assert wire.body(1) == body
        assert max(len(frame.payload) for frame in wire.frames) <= 16384
        wire.send(ANSWER)
        assert caller.status() == 200


def test_no_more_of_a_second_request_is_sent_than_the_window_allows(gw: Gateway) -> None:
    listener, port = listen()
    opening = f.settings({f.STREAMS: 100, f.WINDOW: 10}) + f.settings(ack=True)
    with closing(listener), Caller(gw, port) as caller, accept(listener, opening) as wire:
        requested(wire, 1)
        wire.send(ANSWER)
        assert caller.status() == 200
        with Caller(gw, port, "POST", "Content-Length: 15", body=b"fifteen letters") as second:
            requested(wire, 3)
            wire.send(f.ping(b"look at "))
            assert wire.until(lambda wire: wire.pongs() and wire.body(3)), wire.describe()
            assert wire.body(3) == b"fifteen le"
            wire.send(f.window_update(3, 100))
            assert wire.until(lambda wire: wire.ended(3)), wire.describe()
            assert wire.body(3) == b"fifteen letters"
            wire.send(f.headers(3, OK))
            assert second.status() == 200


def test_a_refused_stream_is_sent_again(gw: Gateway) -> None:
    listener, port = listen()
    with closing(listener), Caller(gw, port) as caller, accept(listener) as wire:
        requested(wire, 1)
        wire.send(f.rst_stream(1, f.REFUSED_STREAM))
        requested(wire, 3)
        wire.send(f.headers(3, OK, ends=False) + f.data(3, b"hello", ends=True))
        assert caller.status() == 200


def test_a_request_beyond_the_last_stream_of_goaway_is_sent_again_elsewhere(gw: Gateway) -> None:
    listener, port = listen()
    with closing(listener), Caller(gw, port) as caller, accept(listener) as wire:
        requested(wire, 1)
        wire.send(f.goaway(0))
        with accept(listener) as other:
            requested(other, 1)
            other.send(ANSWER)
            assert caller.status() == 200
        assert wire.until(lambda wire: wire.ending), wire.describe()


def test_requests_up_to_the_last_stream_of_goaway_are_finished_and_the_next_goes_elsewhere(gw: Gateway) -> None:
    listener, port = listen()
    with closing(listener), Caller(gw, port) as caller, accept(listener) as wire:
        requested(wire, 1)
        wire.send(f.goaway(f.LARGEST) + f.ping() + f.goaway(1))
        assert wire.until(lambda wire: wire.pongs()), wire.describe()
        with Caller(gw, port) as second, accept(listener) as other:
            requested(other, 1)
            other.send(ANSWER)
            assert second.status() == 200
        assert not wire.ending
        wire.send(ANSWER)
        assert caller.status() == 200
        assert wire.until(lambda wire: wire.ending), wire.describe()


def test_a_goaway_of_an_error_lets_answers_on_their_way_arrive(gw: Gateway) -> None:
    listener, port = listen()
    with closing(listener), Caller(gw, port) as caller, accept(listener) as wire:
        requested(wire, 1)
        wire.send(f.goaway(1, f.ENHANCE_YOUR_CALM, b"too many") + ANSWER)
        assert caller.status() == 200


def test_more_connections_are_opened_when_one_takes_no_more_streams(gw: Gateway) -> None:
    listener, port = listen()
    opening = f.settings({f.STREAMS: 1}) + f.settings(ack=True)
    with closing(listener), Caller(gw, port) as first, accept(listener, opening) as wire:
        requested(wire, 1)
        with Caller(gw, port) as second, accept(listener, opening) as other:
            requested(other, 1)
            other.send(ANSWER)
            assert second.status() == 200
        wire.send(ANSWER)
        assert first.status() == 200
        assert not wire.has(f.HEADERS, 3)


def test_an_endpoint_gets_one_request_until_it_has_told_how_many_it_takes(gw: Gateway) -> None:
    listener, port = listen()
    with closing(listener), Caller(gw, port) as first, accept(listener, b"") as wire:
        requested(wire, 1)
        with Caller(gw, port) as second:
            assert not wire.until(lambda wire: wire.has(f.HEADERS, 3), 0.2), wire.describe()
            wire.send(f.settings({f.STREAMS: 2}) + f.settings(ack=True))
            requested(wire, 3)
            wire.send(ANSWER + f.headers(3, OK, ends=False) + f.data(3, b"hello", ends=True))
            assert first.status() == second.status() == 200


def test_a_caller_that_goes_away_has_its_stream_reset_and_what_follows_is_ignored(gw: Gateway) -> None:
    listener, port = listen()
    with closing(listener), Caller(gw, port) as caller, accept(listener) as wire:
        requested(wire, 1)
        caller.sock.close()
        assert wire.until(has_reset(1)), wire.describe()
        assert wire.reset(1) == f.CANCEL
        wire.send(ANSWER + f.window_update(1, 5) + f.rst_stream(1))
        assert is_usable(gw, wire, port), wire.describe()


def test_an_answer_before_the_end_of_the_request_arrives_and_the_rest_is_not_sent(gw: Gateway) -> None:
    listener, port = listen()
    with closing(listener), Caller(gw, port, "POST", "Content-Length: 100", body=b"half") as caller, accept(listener) as wire:
        requested(wire, 1)
        wire.send(f.headers(1, ((":status", "413"),), ends=False) + f.data(1, b"too long", ends=True) + f.rst_stream(1, f.NO_ERROR))
        assert caller.status() == 413
        assert wire.until(has_reset(1)), wire.describe()
        assert is_usable(gw, wire, port), wire.describe()


def test_a_table_that_the_endpoint_made_smaller_is_told_of_and_kept_to(gw: Gateway) -> None:
    listener, port = listen()
    with closing(listener), Caller(gw, port) as caller, accept(listener) as wire:
        requested(wire, 1)
        wire.send(ANSWER)
        assert caller.status() == 200
        assert is_usable(gw, wire, port, 3)
        wire.send(f.settings({f.TABLE: 0}) + f.ping())
        assert wire.until(lambda wire: wire.pongs()), wire.describe()
        wire._decoder.max_allowed_table_size = 0
        assert is_usable(gw, wire, port, 5), wire.describe()
        assert is_usable(gw, wire, port, 7), wire.describe()
        assert wire._decoder.header_table_size == 0


def test_pings_are_answered(gw: Gateway) -> None:
    listener, port = listen()
    with closing(listener), Caller(gw, port) as caller, accept(listener) as wire:
        requested(wire, 1)
        wire.send(f.ping(b"\0\1\2\3\4\5\6\7"))
        assert wire.until(lambda wire: wire.pongs() == [b"\0\1\2\3\4\5\6\7"]), wire.describe()
        wire.send(ANSWER)
        assert caller.status() == 200


def test_an_endpoint_that_closes_in_the_middle_of_an_answer_breaks_it_off(gw: Gateway) -> None:
    listener, port = listen()
    with closing(listener), Caller(gw, port) as caller, accept(listener) as wire:
        requested(wire, 1)
        wire.send(f.headers(1, OK, ends=False) + f.data(1, b"hel"))
        assert wait_until(lambda: bool(caller.sock.recv(4096, socket.MSG_PEEK)), SECONDS)
        wire.sock.close()
        assert caller.status() == CUT


def test_large_fields_of_a_request_are_continued(gw: Gateway) -> None:
    listener, port = listen()
    lines = [f"X-Large-{number}: {chr(97 + number) * 4000}" for number in range(1)] + [f"X-{number}: {'y' * 900}" for number in range(3)]
    with closing(listener), Caller(gw, port, "GET", *lines) as caller, accept(listener) as wire:
        requested(wire, 1)
        assert wire.until(lambda wire: 1 in wire.fields), wire.describe()
        assert wire.fields[1][0]["x-large-0"] == "a" * 4000
        assert all(isinstance(frame, Frame) and len(frame.payload) <= 16384 for frame in wire.frames)
        wire.send(ANSWER)
        assert caller.status() == 200
