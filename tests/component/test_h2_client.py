from __future__ import annotations

from typing import Any

import pytest

from fakes.h2 import ClientH2
from fakes.transport import FakeCaller, FakeWalk, request
from meshgw.client.h2 import MOST_HASTY, MOST_UNREAD, SETTINGS_SECONDS
from meshgw.core.exchange import Exchange, Hold
from meshgw.errors import BadResponse, CallerStalled, MeshError, StreamReset, UpstreamClosed
from meshgw.wire.h2_connection import CROWDED, MOST_HELD, STARVED_SECONDS, H2Settings
from meshgw.wire.h2_defence import MOST_FAULTS, MOST_RESETS
from meshgw.wire.h2_stream import HIGH_WATER
from meshgw.wire.headers import Headers
from support import h2_frames as f

OK = ((":status", "200"),)


class Judging(FakeWalk):
    """A walk of a router whose classifier may want to see trailers; ``hold`` bounds how long an answer is kept for them."""

    def __init__(self, hold: Hold | None = None) -> None:
        super().__init__()
        self.hold = hold
        self.trailers: list[list[bytes]] = []

    def holds(self, _ex: Exchange) -> Hold | None:
        return self.hold

    def concluded(self, _ex: Exchange, trailers: list[bytes]) -> list[bytes]:
        self.trailers.append(trailers)
        return trailers


def client(hold: Hold | None = None, **keywords: Any) -> ClientH2:
    return ClientH2(Judging(hold), **keywords)


def post(length: int = -1, *lines: bytes) -> Exchange:
    """A request whose body is still to come."""
    ex = request(b"POST")
    ex.headers = Headers([b"host: web", *lines], {b"host": b"web"})
    ex.length, ex.body, ex.body_done = length, [], False
    return ex


def is_clean(peer: ClientH2) -> bool:
    side = peer.client
    return not side.streams and not side._blocked and not side._held


# --- requests


def test_a_request_without_a_body_ends_with_its_fields() -> None:
    peer = client()
    peer.ask(request(target=b"/a?b"))
    assert peer.fields[1] == [[(":method", "GET"), (":scheme", "http"), (":path", "/a?b"), (":authority", "web")]]
    assert peer.ended(1)


def test_the_first_frames_are_settings_without_push_and_an_acknowledgement() -> None:
    peer = client()
    first, *others = peer.frames
    assert first.kind == f.SETTINGS
    assert first.settings[f.PUSH] == 0
    assert f.STREAMS not in first.settings
    assert sum(frame.is_ack for frame in others) == 1


def test_what_belongs_to_a_connection_of_http1_stays_behind() -> None:
    peer = client()
    ex = request()
    ex.headers = Headers(
        [b"Host: web", b"Connection: x", b"Keep-Alive: 1", b"Upgrade: h2c", b"Transfer-Encoding: chunked", b"X-Y: Z"],
        {b"host": b"web", b"te": b"Trailers, gzip"},
    )
    peer.ask(ex)
    assert peer.fields[1][0][4:] == [("x-y", "Z"), ("te", "trailers")]


def test_fields_of_one_name_keep_their_order_whether_they_are_known_or_not() -> None:
    peer = client()
    for stream, first in ((1, b"x: known"), (3, b"x: known"), (5, b"x: new"), (7, b"x: newer")):
        ex = request()
        ex.headers = Headers([b"Host: web", first, b"x: known", b"y: 1", b"x: last"], {b"host": b"web"})
        peer.ask(ex)
        values = [value for name, value in peer.fields[stream][0] if name == "x"]
        assert values == [first[3:].decode(), "known", "last"]
        assert {name for name, _ in peer.fields[stream][0][:4]} == {":method", ":scheme", ":path", ":authority"}


def test_secrets_are_never_indexed() -> None:
    peer = client()
    for _ in range(3):
        ex = request()
        ex.headers = Headers([b"Host: web", b"Authorization: Bearer 1", b"Cookie: a=b"], {b"host": b"web"})
        peer.ask(ex)
    last = [frame.payload for frame in peer.frames if frame.kind == f.HEADERS][-1]
    assert b"\x1f\x08\x08Bearer 1" in last  # 0x1f, 8: never indexed, with the name at 23
    assert b"\x1f\x11\x03a=b" in last


def test_a_body_of_a_told_length_and_trailers_are_sent() -> None:
    peer = client()
    ex = post(6)
    peer.ask(ex)
    assert ("content-length", "6") in peer.fields[1][0]
    assert ex.upstream is not None
    ex.upstream.send_body(b"one")
    ex.upstream.send_body(b"two")
    ex.upstream.send_end([b"x-sum: 6"])
    peer.turn()
    assert peer.body(1) == b"onetwo"
    assert peer.fields[1][1] == [("x-sum", "6")]


@pytest.mark.parametrize("is_told", [True, False])
def test_the_end_of_a_body_goes_with_its_last_frame(is_told: bool) -> None:
    peer = client()
    ex = post()
    peer.ask(ex)
    assert ex.upstream is not None
    if is_told:
        ex.upstream.send_last(b"all of it")
    else:
        ex.upstream.send_body(b"all of it")
        ex.upstream.send_end([])
    peer.turn()
    assert peer.body(1) == b"all of it"
    assert [frame.ends for frame in peer.frames if frame.kind == f.DATA] == [True]


def test_the_source_of_a_body_is_told_when_it_may_go_on() -> None:
    peer = client(opening=f.settings({f.WINDOW: 0}))
    ex = post()
    caller = peer.ask(ex)
    upstream = ex.upstream
    assert upstream is not None
    upstream.send_body(b"x" * HIGH_WATER)
    assert upstream.is_full
    peer.receive(f.window_update(1, HIGH_WATER))
    assert caller.paused == -1  # resumed once


# --- answers


def test_an_answer_reaches_its_caller_with_trailers() -> None:
    peer = client()
    caller = peer.ask(request())
    peer.receive(f.headers(1, (*OK, ("x-a", "b")), ends=False), f.data(1, b"hello"), f.headers(1, (("x-sum", "5"),)))
    assert caller.head == (200, b"", [b"x-a: b"], -1)
    assert caller.body == b"hello"
    assert caller.trailers == [b"x-sum: 5"]
    assert is_clean(peer)
    assert peer.pool.released_count


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
def test_an_answer_that_has_no_body_may_end_late_but_not_with_bytes(method: bytes, status: int) -> None:
    peer = client()
    late, wrong = peer.ask(request(method)), peer.ask(request(method))
    head = ((":status", str(status)), ("content-length", "5"))
    peer.receive(f.headers(1, head, ends=False), f.data(1, b"", ends=True), f.headers(3, head, ends=False), f.data(3, b"hello", ends=True))
    assert late.is_done
    assert late.head is not None
    assert late.head[3] == 0
    assert wrong.body == b""
    assert not wrong.is_done
    assert peer.resets() == {3: f.PROTOCOL_ERROR}


def test_an_answer_is_held_back_while_its_caller_is_full() -> None:
    peer = client()
    ex = request()
    caller = peer.ask(ex)
    caller.is_full = True
    peer.receive(f.headers(1, OK, ends=False), *[f.data(1, b"x" * 10000)] * 6)
    assert not [frame for frame in peer.frames if frame.kind == f.WINDOW_UPDATE and frame.stream == 1]
    caller.is_full = False
    assert ex.upstream is not None
    ex.upstream.resume_answer()
    peer.turn()
    assert [frame.number for frame in peer.frames if frame.kind == f.WINDOW_UPDATE and frame.stream == 1] == [60000]


def test_an_answer_in_tiny_pieces_that_is_kept_costs_little_more_than_its_bytes() -> None:
    peer = client(Hold(5.0, 16000))
    caller = peer.ask(request())
    peer.receive(f.headers(1, OK, ends=False), f.data(1, b"x") * 9000)
    kept = peer.client.streams[1]._kept  # type: ignore[attr-defined]
    assert sum(map(len, kept)) == 9000
    assert len(kept) < 20
    peer.receive(f.headers(1, (("grpc-status", "0"),)))
    assert caller.body == b"x" * 9000
    assert caller.trailers == [b"grpc-status: 0"]


def test_an_answer_is_kept_no_longer_and_no_larger_than_allowed() -> None:
    peer = client(Hold(5.0, 100))
    slow, large = peer.ask(request()), peer.ask(request())
    peer.receive(f.headers(1, OK, ends=False), f.data(1, b"slow"), f.headers(3, OK, ends=False), f.data(3, b"x" * 101))
    assert slow.head is None
    assert large.body == b"x" * 101
    peer.clock.advance(5.1)
    assert slow.body == b"slow"


def test_interim_answers_are_told_but_not_without_end() -> None:
    peer = client()
    peer.ask(request())
    peer.receive(f.headers(1, ((":status", "103"),), ends=False) * 16)
    assert len(peer.walk.interim) == 16
    peer.receive(f.headers(1, ((":status", "103"),), ends=False))
    assert peer.resets() == {1: f.PROTOCOL_ERROR}
    assert isinstance(peer.walk.failures[0], BadResponse)


def test_answers_that_are_too_large_are_given_up() -> None:
    peer = client(max_body=10, own=H2Settings(is_client=True, header_list=300))
    for _ in range(3):
        peer.ask(request())
    peer.receive(f.headers(1, (*OK, ("content-length", "11")), ends=False), f.headers(3, OK, ends=False), f.data(3, b"x" * 11))
    peer.receive(f.headers(5, (*OK, ("x", "y" * 300))))
    assert peer.resets() == {1: f.CANCEL, 3: f.CANCEL, 5: f.PROTOCOL_ERROR}
    assert len(peer.walk.failures) == 3


def test_an_answer_before_the_end_of_the_request_gives_the_stream_up() -> None:
    peer = client()
    ex = post()
    caller = peer.ask(ex)
    peer.receive(f.headers(1, ((":status", "413"),)), f.rst_stream(1, f.NO_ERROR))
    assert caller.is_done
    assert ex.upstream is None
    assert peer.resets() == {1: f.NO_ERROR}
    assert is_clean(peer)


# --- failures


def test_a_reset_is_told_with_its_code_and_a_refusal_may_be_sent_again() -> None:
    peer = client()
    peer.ask(request())
    peer.ask(request())
    peer.receive(f.rst_stream(1, f.INTERNAL_ERROR), f.rst_stream(3, f.REFUSED_STREAM))
    codes = [error.stream_code for error in peer.walk.failures if isinstance(error, StreamReset)]
    assert codes == [f.INTERNAL_ERROR, f.REFUSED_STREAM]
    assert peer.walk.resends == [False, True]


def test_a_refusal_after_the_answer_began_is_not_sent_again() -> None:
    peer = client()
    peer.ask(request())
    peer.receive(f.headers(1, OK, ends=False), f.rst_stream(1, f.REFUSED_STREAM))
    assert peer.walk.resends == [False]


def test_what_was_not_looked_at_before_goaway_may_be_sent_again() -> None:
    peer = client()
    callers = [peer.ask(request(b"POST")) for _ in range(3)]
    peer.receive(f.goaway(3, f.NO_ERROR, b"restart"))
    assert peer.walk.resends == [True]
    assert peer.pool.leaving_count == 1
    assert peer.client.room == 0
    peer.receive(f.headers(1, OK), f.headers(3, OK))
    assert [caller.is_done for caller in callers] == [True, True, False]
    assert peer.connection.ending == "close"


def test_a_lost_connection_fails_what_was_under_way() -> None:
    peer = client()
    peer.ask(request(b"POST"))
    peer.connection.lost()
    assert isinstance(peer.walk.failures[0], UpstreamClosed)
    assert peer.walk.resends == [False]
    assert peer.pool.closed_count == 1
    assert is_clean(peer)


def test_a_faulty_endpoint_is_left_at_once() -> None:
    """Whoever waits for the connection must not wait until its end is complete."""
    peer = client()
    peer.ask(request())
    peer.receive(f.ping(b"short"))
    assert peer.goaway == f.FRAME_SIZE_ERROR
    assert peer.pool.leaving_count == 1
    assert peer.client.room == 0
    assert isinstance(peer.walk.failures[0], UpstreamClosed)


def test_an_abandoned_stream_is_reset_and_what_still_comes_for_it_is_ignored() -> None:
    peer = client()
    ex = request()
    caller = peer.ask(ex)
    peer.receive(f.headers(1, OK, ends=False))
    assert ex.upstream is not None
    ex.upstream.abandon()
    peer.receive(f.data(1, b"late"), f.window_update(1, 1), f.headers(1, (("x", "y"),)), f.rst_stream(1))
    assert peer.resets() == {1: f.CANCEL}
    assert caller.body == b""
    assert peer.goaway is None
    assert is_clean(peer)


def test_faults_and_refusals_of_single_answers_never_cost_the_connection() -> None:
    """Each of them answers a request of ours: nobody makes us work for nothing."""
    peer = client()
    for index in range(max(MOST_FAULTS, MOST_RESETS) + 10):
        stream = 4 * index + 1
        peer.ask(request())
        peer.ask(request())
        peer.receive(f.rst_stream(stream, f.REFUSED_STREAM), f.headers(stream + 2, (("x", "no status"),)))
    assert peer.goaway is None
    assert is_clean(peer)


def test_a_storm_of_cancelled_requests_leaves_nothing_behind() -> None:
    peer = client(opening=f.settings({f.WINDOW: 0}))
    for _ in range(2000):
        ex = post()
        caller: FakeCaller = peer.ask(ex)
        assert ex.upstream is not None
        ex.upstream.send_body(b"x" * 100)
        caller.is_full = True
        ex.upstream.abandon()
    peer.turn()
    assert is_clean(peer)


def test_what_was_on_its_way_for_streams_given_up_all_at_once_is_ignored() -> None:
    """Not all of them are remembered."""
    peer = client(opening=f.settings())
    exchanges = [request() for _ in range(4000)]
    for ex in exchanges:
        peer.ask(ex)
    peer.receive(b"".join(f.headers(stream, OK, ends=False) for stream in range(1, 8001, 2)))
    for ex in exchanges:
        assert ex.upstream is not None
        ex.upstream.abandon()
    peer.receive(*(f.data(stream, b"x" * 100) + f.data(stream, b"", ends=True) for stream in range(1, 8001, 2)))
    assert peer.goaway is None
    assert len(peer.resets()) == 4000
    assert is_clean(peer)


# --- the connection


def test_only_one_request_is_sent_before_the_endpoint_has_told_its_limit() -> None:
    peer = client(opening=b"")
    assert peer.client.room == 1
    peer.ask(request())
    assert peer.client.room == 0
    peer.receive(f.settings({f.STREAMS: 3}))
    assert peer.client.room == 2
    peer.receive(f.settings({f.STREAMS: 0}))
    assert peer.client.room <= 0


def test_an_endpoint_that_never_tells_is_given_up() -> None:
    peer = client(opening=b"")
    peer.ask(request())
    peer.clock.advance(SETTINGS_SECONDS + 0.1)
    peer.turn()
    assert peer.goaway == f.SETTINGS_TIMEOUT
    assert len(peer.walk.failures) == 1


def test_an_endpoint_that_does_not_read_is_given_up_before_requests_fill_the_memory() -> None:
    peer = client()
    peer.connection.is_full = True
    sent = 0
    while not peer.client.is_leaving:
        ex = request()
        ex.headers = Headers([b"host: web", b"cookie: " + b"x" * 8000], {b"host": b"web"})
        peer.ask(ex)
        assert ex.upstream is not None
        ex.upstream.abandon()
        sent += 8000
        assert sent < 2 * MOST_UNREAD
    peer.clock.advance(0)
    assert peer.connection.ending == "abort"


def test_the_last_number_of_streams_ends_a_connection_in_order() -> None:
    peer = client()
    peer.client.next_id = 2**31 - 3
    caller = peer.ask(request())
    assert peer.client.room == 0
    peer.receive(f.headers(2**31 - 3, OK))
    assert caller.is_done
    assert peer.connection.ending == "close"


def test_a_connection_that_is_to_go_ends_with_its_last_stream() -> None:
    peer = client()
    peer.ask(request())
    peer.client.retire()
    assert peer.connection.ending == ""
    peer.receive(f.headers(1, OK))
    assert peer.connection.ending == "close"
    assert peer.goaway == f.NO_ERROR


# --- silence


def test_an_endpoint_that_falls_silent_is_asked_and_then_given_up() -> None:
    peer = client()
    peer.ask(request(b"POST"))
    peer.clock.pump([1.0] * 22)
    assert [frame.payload for frame in peer.take() if frame.kind == f.PING] == [b"is alive"]
    assert not peer.walk.failures
    peer.clock.pump([1.0] * 21)
    assert str(peer.walk.failures[0]).endswith("no answer to a PING in 20 s")
    assert peer.connection.ending == "abort"
    assert peer.pool.closed_count == 1
    assert is_clean(peer)


def test_a_request_that_takes_long_is_asked_about_once() -> None:
    peer = client()
    caller = peer.ask(request())
    for _ in range(20):
        peer.clock.pump([1.0] * 30)
        for frame in peer.take():
            if frame.kind == f.PING:
                peer.receive(f.ping(frame.payload, ack=True))
    assert sum(frame.kind == f.PING for frame in peer.frames) == 1
    peer.receive(f.headers(1, OK))
    assert caller.is_done


@pytest.mark.parametrize("answers", [False, True])
def test_many_requests_that_take_long_are_not_asked_about_too_often(answers: bool) -> None:
    peer = client()
    for number in range(20):  # ten minutes
        stream = 2 * number + 1
        peer.ask(request())
        for _ in range(30):
            peer.clock.advance(1.0)
            for frame in peer.take():
                if frame.kind == f.PING:
                    peer.receive(f.ping(frame.payload, ack=True))
        if answers:
            peer.receive(f.headers(stream, OK))
    asked = sum(frame.kind == f.PING for frame in peer.frames)
    assert 5 < asked <= 20 if answers else asked == 2 + MOST_HASTY
    assert not peer.walk.failures


def test_an_endpoint_that_has_gone_since_it_was_asked_is_found_out_by_the_next_request() -> None:
    """A call that says nothing for hours was asked about; what comes after it must not wait for minutes."""
    peer = client()
    peer.ask(request(b"POST"))
    peer.clock.pump([1.0] * 22)
    peer.receive(f.ping(b"is alive", ack=True))
    peer.clock.pump([1.0] * 60)
    peer.ask(request(b"POST"))
    peer.clock.pump([1.0] * 45)
    assert len(peer.walk.failures) == 2
    assert peer.connection.ending == "abort"


def test_an_endpoint_that_answers_is_not_asked() -> None:
    peer = client()
    for index in range(100):
        peer.ask(request())
        peer.receive(f.headers(2 * index + 1, OK))
        peer.clock.pump([1.0] * 3)
    peer.clock.pump([1.0] * 100)
    assert not [frame for frame in peer.frames if frame.kind == f.PING]
    assert not peer.clock.getDelayedCalls()


def test_an_endpoint_that_speaks_http1_is_called_by_its_name() -> None:
    peer = ClientH2(Judging(), opening=b"")
    peer.ask(request())
    peer.receive(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    assert peer.goaway == f.PROTOCOL_ERROR
    assert "hardly HTTP/2" in str(peer.walk.failures[0])


# --- callers that do not take their answers


class Cutting(Judging):
    """A walk that gives an exchange up as a router does."""

    def caller_failed(self, ex: Exchange, error: MeshError) -> None:
        self.failures.append(error)
        upstream, ex.upstream = ex.upstream, None
        assert upstream is not None
        upstream.abandon()
        ex.caller.cut()


def held_up(peer: ClientH2, *, callers: int) -> list[FakeCaller]:
    """So many callers, none of which takes a byte of what comes for it, which is a window's worth."""
    asked = [peer.ask(request()) for _ in range(callers)]
    for index, caller in enumerate(asked):
        caller.is_full = True
        stream = 2 * index + 1
        peer.receive(f.headers(stream, OK, ends=False), *[f.data(stream, bytes(13107))] * 5)
    return asked


def test_callers_that_take_nothing_do_not_keep_a_connection_from_others_for_long() -> None:
    peer = ClientH2(Cutting(), opening=f.settings() + f.settings(ack=True))
    idle = held_up(peer, callers=MOST_HELD // 65535 + 6)
    other = peer.ask(request())
    assert peer.client._held > MOST_HELD
    assert peer.client.room == 0
    peer.take()
    peer.clock.advance(STARVED_SECONDS / 2)
    idle[0].is_full = False  # its caller read in the meantime, and then stopped again
    peer.client.streams[1].release()
    peer.client.streams[1].hold()
    peer.receive(f.data(1, bytes(13107)) * 5)
    peer.clock.advance(STARVED_SECONDS / 2 + 1)
    assert ("WINDOW_UPDATE", 0) in peer.kinds()
    assert peer.client._held <= CROWDED
    assert not idle[0].is_cut
    assert sum(caller.is_cut for caller in idle) == len(peer.walk.failures) == len(peer.resets())
    assert set(peer.resets().values()) == {f.CANCEL}
    assert {type(error) for error in peer.walk.failures} == {CallerStalled}
    assert not other.is_cut
    assert peer.client.room > 0


def test_callers_that_take_their_answers_again_in_time_lose_nothing() -> None:
    peer = ClientH2(Cutting(), opening=f.settings() + f.settings(ack=True))
    held_up(peer, callers=MOST_HELD // 65535 + 6)
    for stream in list(peer.client.streams.values()):
        stream.release()
    peer.clock.advance(2 * STARVED_SECONDS)
    assert peer.walk.failures == []
    assert peer.client._held == 0
