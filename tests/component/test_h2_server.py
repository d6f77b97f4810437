from __future__ import annotations

import sys

import pytest

from fakes.h2 import Holding, ServedH2, answer, answering
from fakes.transport import FakeWalk
from meshgw.core.exchange import Exchange
from meshgw.server.h2 import MOST_UNREAD, READ_AHEAD
from meshgw.server.h2_parameters import SILENCE_SECONDS
from meshgw.server.h2_watch import ALIVE_PING
from meshgw.wire.h2_connection import LEAST_HEADER_LIST, MOST_HELD, H2Settings
from meshgw.wire.h2_defence import MOST_NOISE, MOST_RESETS, NOISE_PER_USE
from meshgw.wire.h2_stream import HIGH_WATER, LOW_WATER
from support import h2_frames as f

GRPC = (*f.POST, ("content-type", "application/grpc"))


class Sink:
    """An upstream that takes what it is given; ``is_full`` is the test's to set."""

    def __init__(self, ex: Exchange) -> None:
        self.ex, self.body, self.trailers = ex, b"", None
        self.is_full = self.is_abandoned = False
        self.resumed = 0
        ex.upstream = self  # type: ignore[assignment]

    def send_body(self, data: bytes) -> None:
        self.body += data

    def send_last(self, data: bytes) -> None:
        self.send_body(data)
        self.send_end([])

    def send_end(self, trailers: list[bytes]) -> None:
        self.trailers = trailers  # type: ignore[assignment]

    def abandon(self) -> None:
        self.is_abandoned = True

    def resume_answer(self) -> None:
        self.resumed += 1


def is_clean(served: ServedH2) -> bool:
    """Whether nothing is left of any stream."""
    server = served.server
    return not server.streams and not server._blocked and not server._held


# --- requests and answers


def test_a_request_is_answered_with_its_fields_and_body() -> None:
    served = ServedH2(answering(b"hello", lines=(b"X-A: b",)))
    served.receive(f.headers(1, (*f.GET, ("x-c", "d"))))
    assert served.walk.requests == [(b"GET", b"/", b"2", b"", [])]
    assert served.walk.headers == [[b"host: web", b"x-c: d"]]
    assert served.fields[1] == [[(":status", "200"), ("x-a", "b")]]
    assert served.body(1) == b"hello"
    assert served.ended(1)
    assert is_clean(served)


def test_a_body_and_trailers_are_passed_on() -> None:
    served = ServedH2(answering())
    served.receive(f.headers(1, f.POST, ends=False), f.data(1, b"one"), f.data(1, b"two"), f.headers(1, (("x-sum", "6"),)))
    assert served.walk.requests == [(b"POST", b"/", b"2", b"onetwo", [b"x-sum: 6"])]


def test_trailers_that_tell_of_framing_or_routing_lose_that() -> None:
    served = ServedH2(answering())
    served.receive(f.headers(1, f.POST, ends=False), f.headers(1, (("content-length", "7"), ("x-sum", "6"), ("host", "other"))))
    assert served.walk.requests[0][4] == [b"x-sum: 6"]


def test_an_answer_has_trailers_after_a_body_that_waits() -> None:
    walk = Holding()
    served = ServedH2(walk, opening=f.PREFACE + f.settings({f.WINDOW: 2}))
    served.receive(f.headers(1))
    answer(walk.held[0], b"hello", done=False)
    walk.held[0].caller.send_end([b"grpc-status: 0"])
    served.turn()
    assert served.body(1) == b"he"
    served.receive(f.window_update(1, 10))
    assert served.body(1) == b"hello"
    assert served.fields[1][-1] == [("grpc-status", "0")]
    assert is_clean(served)


@pytest.mark.parametrize("window", [2, 5])
@pytest.mark.parametrize("body", [b"", b"hello"])
def test_a_complete_answer_with_trailers_keeps_to_the_window(body: bytes, window: int) -> None:
    walk = Holding()
    served = ServedH2(walk, opening=f.PREFACE + f.settings({f.WINDOW: window}))
    served.receive(f.headers(1))
    walk.held[0].answer_trailers = [b"grpc-status: 0"]
    answer(walk.held[0], body)
    served.turn()
    assert served.body(1) == body[:window]
    assert served.ended(1) is (len(body) <= window)
    served.receive(f.window_update(1, 10))
    assert served.body(1) == body
    assert served.fields[1] == [[(":status", "200")], [("grpc-status", "0")]]
    assert is_clean(served)


def test_a_complete_answer_with_trailers_waits_for_the_socket() -> None:
    walk = Holding()
    served = ServedH2(walk)
    served.receive(f.headers(1))
    served.connection.is_full = True
    walk.held[0].answer_trailers = [b"grpc-status: 0"]
    answer(walk.held[0], b"hello")
    served.turn()
    assert served.body(1) == b""
    served.drain()
    assert served.body(1) == b"hello"
    assert served.ended(1)


@pytest.mark.parametrize(("fields", "status"), [(f.HEAD, 200), (f.GET, 204), (f.GET, 304)])
def test_an_answer_that_can_have_no_body_has_none(fields: f.Fields, status: int) -> None:
    served = ServedH2(answering(b"hello", status=status))
    served.receive(f.headers(1, fields))
    assert served.body(1) == b""
    assert served.ended(1)


def test_one_block_serves_as_head_or_as_trailers_by_where_it_stands() -> None:
    """Blocks of indexes are remembered with what was made of them."""
    served = ServedH2(answering())
    head = b"\x83\x86\x84"  # POST, http, /
    served.receive(f.headers(1, head + f.plain(((":authority", "web"),)), ends=False), f.headers(1, head))
    assert served.resets() == {1: f.PROTOCOL_ERROR}
    served.receive(f.headers(3, head))
    assert served.status(3) == 400  # no authority
    served.receive(f.headers(5, f.POST, ends=False), f.headers(5, head))
    assert served.resets()[5] == f.PROTOCOL_ERROR
    assert served.goaway is None


def test_an_interim_answer_is_passed_on_but_not_a_switch_of_protocols() -> None:
    walk = Holding()
    served = ServedH2(walk)
    served.receive(f.headers(1))
    ex = walk.held[0]
    for line in (b"HTTP/1.1 103 Early Hints", b"HTTP/1.1 101 Switching Protocols"):
        ex.caller.inform(ex, line, ex.response)
    answer(ex, b"")
    served.turn()
    assert [section[0] for section in served.fields[1]] == [(":status", "103"), (":status", "200")]


# --- bodies of a told length


def test_a_body_of_no_bytes_is_complete_before_the_end_of_its_stream() -> None:
    walk = Holding()
    served = ServedH2(walk)
    served.receive(f.headers(1, (*f.POST, ("content-length", "0")), ends=False))
    sink = Sink(walk.held[0])
    assert walk.held[0].body_done
    served.receive(f.data(1, b"", ends=True))
    assert sink.trailers is None  # nothing is to be sent on any more, over HTTP/1.1 least of all


def test_an_exchange_that_is_used_again_knows_nothing_of_a_body_before() -> None:
    served = ServedH2(answering())
    served.receive(f.headers(1, (*f.POST, ("content-length", "0")), ends=False))  # answered before its end
    walk = served.walk
    assert walk.begun == 1
    served.receive(f.headers(3))
    assert walk.begun == 2
    assert served.server._spare[0].body_done


def test_a_refused_request_is_not_taken_for_the_one_before() -> None:
    walk = answering()
    served = ServedH2(walk, own=H2Settings(header_list=200))
    seen: list[tuple[bytes, list[bytes]]] = []
    refuse = walk.refuse

    def noting(ex: Exchange, error: object) -> None:
        seen.append((ex.method, ex.headers.lines))
        refuse(ex, error)  # type: ignore[arg-type]

    walk.refuse = noting  # type: ignore[method-assign]
    served.receive(f.headers(1, f.HEAD), f.headers(3, (*f.GET, ("x", "y" * 200))))
    assert walk.verdicts == [431]
    assert seen == [(b"-", [])]
    assert served.status(3) == 431


def test_a_call_of_grpc_with_too_many_fields_is_told_so_in_its_own_words() -> None:
    served = ServedH2(FakeWalk(), own=H2Settings(header_list=200))
    served.receive(f.headers(1, (*GRPC, ("x", "y" * 200))))
    assert dict(served.fields[1][0])["grpc-status"] == "8"
    assert served.status(1) == 200


def test_trailers_have_the_limit_of_other_sections() -> None:
    served = ServedH2(answering(), own=H2Settings(header_list=300))
    served.receive(f.headers(1, f.POST, ends=False), f.headers(1, (("x", "y" * 300),)))
    assert served.resets() == {1: f.PROTOCOL_ERROR}


def test_a_small_limit_of_sections_refuses_requests_and_not_connections() -> None:
    served = ServedH2(own=H2Settings(header_list=1))
    served.receive(f.headers(1), f.headers(3, (*f.GET, ("x", "y" * 10000))))
    assert served.walk.verdicts == [431, 431]
    assert served.goaway is None


# --- what comes after the answer


def test_trailers_behind_an_answer_that_still_waits_begin_no_second_request() -> None:
    walk = Holding()
    served = ServedH2(walk, opening=f.PREFACE + f.settings({f.WINDOW: 0}))
    served.receive(f.headers(1, f.POST, ends=False))
    walk.held[0].body_done = True
    answer(walk.held[0], b"waits")
    served.receive(f.headers(1, f.GET))
    assert walk.begun == 1
    assert served.resets() == {1: f.PROTOCOL_ERROR}  # a request's fields are no trailers
    assert is_clean(served)


def test_a_request_that_goes_on_after_its_answer_is_reset_without_error_and_ignored() -> None:
    served = ServedH2(answering(b"no"))
    walk = served.walk
    walk.begin = lambda ex: answer(ex, b"no", status=400)  # type: ignore[method-assign]
    served.receive(f.headers(1, f.POST, ends=False))
    assert served.ended(1)
    assert served.resets() == {1: f.NO_ERROR}
    served.receive(f.data(1, b"more"), f.window_update(1, 1), f.headers(1, (("x", "y"),)), f.rst_stream(1))
    assert served.goaway is None
    assert is_clean(served)


def test_resets_that_cross_each_other_are_not_counted() -> None:
    served = ServedH2()
    served.walk.begin = lambda ex: answer(ex, b"no", status=400)  # type: ignore[method-assign]
    for stream in range(1, 2 * MOST_NOISE + 201, 2):
        served.receive(f.headers(stream, f.POST, ends=False), f.rst_stream(stream))
    assert served.goaway is None


def test_what_was_on_its_way_for_requests_answered_all_at_once_is_refused_one_by_one() -> None:
    served = ServedH2(Holding(), own=H2Settings(streams=5000))
    walk = served.walk
    assert isinstance(walk, Holding)
    streams = range(1, 6001, 2)
    served.receive(b"".join(f.headers(stream, f.POST, ends=False) for stream in streams))
    for ex in walk.held:
        answer(ex, status=503)
    served.receive(b"".join(f.data(stream, b"x") for stream in streams))
    assert served.goaway is None
    assert is_clean(served)


# --- flow control


def test_credit_for_a_stream_follows_what_was_taken() -> None:
    served = ServedH2(answering())
    served.receive(f.headers(1, f.POST, ends=False))
    served.take()
    served.receive(*[f.data(1, b"x" * 1000)] * 20)
    granted = sum(frame.number for frame in served.take() if frame.kind == f.WINDOW_UPDATE and frame.stream == 1)
    assert 15000 < granted <= 20000


def test_padding_counts_and_comes_back() -> None:
    served = ServedH2(answering())
    served.receive(f.headers(1, f.POST, ends=False))
    for _ in range(300):
        served.receive(*[f.data(1, b"x", padding=254)] * 16)
    assert served.goaway is None
    assert not served.resets()


def test_a_body_that_cannot_be_sent_on_is_held_and_comes_back_later() -> None:
    walk = Holding()
    served = ServedH2(walk, own=H2Settings(window=1 << 20))
    served.receive(f.settings(ack=True), f.headers(1, f.POST, ends=False))
    served.receive(*[f.data(1, b"x" * 16384)] * 5)
    assert READ_AHEAD < 5 * 16384
    served.take()
    served.receive(f.data(1, b"x" * 16384))
    assert ("WINDOW_UPDATE", 1) not in served.kinds()
    walk.held[0].caller.resume_body()
    assert ("WINDOW_UPDATE", 1) in served.kinds()
    assert served.server._held == 0


def test_more_than_the_window_of_a_stream_resets_it() -> None:
    served = ServedH2(Holding(), own=H2Settings(window=100000))
    served.receive(f.settings(ack=True), f.headers(1, f.POST, ends=False))
    for _ in range(12):
        served.receive(f.data(1, b"x" * 16384))
    assert served.resets() == {1: f.FLOW_CONTROL_ERROR}
    assert served.goaway is None


def test_more_than_the_window_of_the_connection_ends_it() -> None:
    """Credit is given between rounds of events, so what comes in one has to fit."""
    served = ServedH2(Holding(), own=H2Settings(window=1 << 24))
    served.receive(f.headers(1, f.POST, ends=False))
    served.receive(f.data(1, b"x" * 16384) * 66)
    assert served.goaway == f.FLOW_CONTROL_ERROR


def test_a_window_smaller_than_the_default_counts_from_the_acknowledgement_on() -> None:
    walk = Holding()
    served = ServedH2(walk, own=H2Settings(window=1000))
    served.receive(f.headers(1, f.POST, ends=False))
    walk.held[0].caller.hold()  # type: ignore[attr-defined]
    served.receive(*[f.data(1, b"x" * 16000)] * 4)
    assert not served.resets()
    served.receive(f.settings(ack=True), f.headers(3, f.POST, ends=False))
    walk.held[1].caller.hold()  # type: ignore[attr-defined]
    served.receive(f.data(3, b"x" * 1000))
    assert not served.resets()
    served.receive(f.data(3, b"x"))
    assert served.resets() == {3: f.FLOW_CONTROL_ERROR}


def test_the_connection_gets_no_credit_while_too_much_is_held_and_gets_it_when_streams_end() -> None:
    walk = Holding()
    served = ServedH2(walk, own=H2Settings(window=1 << 24, streams=100))
    served.receive(f.settings(ack=True))
    server = served.server
    for index in range(10):
        served.receive(f.headers(2 * index + 1, f.POST, ends=False))
        walk.held[index].caller.hold()  # type: ignore[attr-defined]
    stream = 1
    while server.receive_window >= 16384:
        served.receive(f.data(stream, b"x" * 16384))
        stream = stream + 2 if stream < 19 else 1
        assert served.goaway is None
    assert server._held > MOST_HELD
    served.take()
    for index in range(10):
        walk.held[index].caller.cut()
    assert ("WINDOW_UPDATE", 0) in served.kinds()
    assert is_clean(served)


def test_a_stream_that_ended_while_held_gives_nothing_back_twice() -> None:
    walk = Holding()
    served = ServedH2(walk)
    served.receive(f.headers(1, f.POST, ends=False))
    stream = served.server.streams[1]
    stream.hold()
    served.receive(f.data(1, b"x" * 5000), f.rst_stream(1))
    stream.release()
    stream.hold()
    assert is_clean(served)


def test_the_source_of_an_answer_pauses_and_goes_on_at_the_low_mark() -> None:
    walk = Holding()
    served = ServedH2(walk, opening=f.PREFACE + f.settings({f.WINDOW: 0}))
    served.receive(f.headers(1), f.window_update(0, 1 << 20))
    ex = walk.held[0]
    sink = Sink(ex)
    answer(ex, b"x" * HIGH_WATER, done=False)
    assert ex.caller.is_full
    served.receive(f.window_update(1, HIGH_WATER - LOW_WATER - 1))
    assert sink.resumed == 0
    served.receive(f.window_update(1, 300))
    assert sink.resumed == 1
    assert served.server.streams[1].queued > 0


def test_streams_take_turns_where_the_connection_is_what_they_wait_for() -> None:
    served = ServedH2(answering(b"x" * 100000), opening=f.PREFACE + f.settings({f.WINDOW: 1 << 20}))
    served.receive(b"".join(f.headers(stream) for stream in (1, 3, 5)))
    served.take()
    served.receive(f.window_update(0, 16384 * 6))
    order = [stream for name, stream in served.kinds() if name == "DATA"]
    assert sorted(order) == [1, 1, 3, 3, 5, 5]
    assert len(set(order[:3])) == 3


def test_a_full_socket_is_waited_for() -> None:
    walk = Holding()
    served = ServedH2(walk)
    served.receive(f.headers(1))
    served.connection.is_full = True
    answer(walk.held[0], b"hello")
    served.turn()
    assert served.body(1) == b""
    served.drain()
    assert served.body(1) == b"hello"
    assert is_clean(served)


def test_initial_windows_move_streams_that_wait_both_ways() -> None:
    served = ServedH2(answering(b"x" * 100), opening=f.PREFACE + f.settings({f.WINDOW: 10}))
    served.receive(f.headers(1))
    assert len(served.body(1)) == 10
    served.receive(f.settings({f.WINDOW: 0}), f.window_update(1, 10))
    assert len(served.body(1)) == 10
    served.receive(f.settings({f.WINDOW: 30}))
    assert len(served.body(1)) == 40


def test_a_body_in_tiny_pieces_costs_little_more_than_its_bytes() -> None:
    walk = Holding()
    served = ServedH2(walk, own=H2Settings(window=1 << 20), replay=65536)
    served.receive(f.headers(1, f.POST, ends=False))
    for _ in range(100):
        served.receive(f.data(1, b"x") * 200)
    ex = walk.held[0]
    for pieces in (ex.body, ex.replay):
        assert pieces is not None
        assert sum(map(len, pieces)) == 20000
        assert sum(map(sys.getsizeof, pieces)) < 24000


# --- defence


def resets(served: ServedH2, count: int, first: int = 1, wait: float = 0.0) -> None:
    for index in range(count):
        stream = first + 2 * index
        served.receive(f.headers(stream, f.POST, ends=False))
        served.clock.advance(wait)
        served.receive(f.rst_stream(stream))


def test_a_header_block_in_one_huge_frame_has_the_limit_of_many() -> None:
    served = ServedH2(own=H2Settings(frame=1 << 24))
    served.receive(f.headers(1, b"\x20" * (2 * LEAST_HEADER_LIST) + f.block(f.GET)))
    assert served.goaway == f.ENHANCE_YOUR_CALM


def test_streams_given_up_at_once_end_the_connection() -> None:
    served = ServedH2(Holding())
    resets(served, MOST_RESETS)
    assert served.goaway is None
    resets(served, 1, first=9001)
    assert served.goaway == f.ENHANCE_YOUR_CALM
    assert served.failures == [f.ENHANCE_YOUR_CALM]
    assert is_clean(served)


def test_a_storm_of_requests_that_were_waited_for_is_no_attack() -> None:
    served = ServedH2(Holding(), own=H2Settings(streams=5000))
    streams = range(1, 6001, 2)
    served.receive(b"".join(f.headers(stream, f.POST, ends=False) for stream in streams))
    served.clock.advance(0.15)
    served.receive(b"".join(f.rst_stream(stream) for stream in streams))
    assert served.goaway is None
    assert served.walk.gone == 3000
    assert is_clean(served)


def test_streams_that_end_allow_as_many_to_be_given_up() -> None:
    walk = Holding()
    served = ServedH2(walk)
    for index in range(MOST_RESETS + 500):
        served.receive(f.headers(4 * index + 1))
        answer(walk.held.pop())
        resets(served, 1, first=4 * index + 3)
    assert served.goaway is None


def test_streams_that_we_are_made_to_give_up_count_as_well() -> None:
    served = ServedH2(Holding())
    for stream in range(1, 2 * MOST_RESETS + 3, 2):
        served.receive(f.headers(stream, f.POST, ends=False), f.window_update(stream, 0))
    assert served.goaway == f.ENHANCE_YOUR_CALM


def test_pings_beside_data_are_no_flood() -> None:
    walk = Holding()
    served = ServedH2(walk, opening=f.PREFACE + f.settings({f.WINDOW: 1 << 30}))
    served.receive(f.headers(1), f.window_update(0, 1 << 30))
    answer(walk.held[0], b"x", done=False)
    for _ in range(3 * MOST_NOISE):
        walk.held[0].caller.send_body(b"x" * 100)
        served.receive(f.ping(), f.window_update(1, 100))
    assert served.goaway is None


def test_pings_alone_are_a_flood_whatever_was_useful_long_before() -> None:
    served = ServedH2(answering())
    for stream in range(1, 20001, 2):
        served.receive(f.headers(stream))
    served.receive(f.ping() * (MOST_NOISE * (NOISE_PER_USE + 3)))
    assert served.goaway == f.ENHANCE_YOUR_CALM


def test_noise_that_takes_its_time_is_no_flood() -> None:
    served = ServedH2()
    for _ in range(30):
        served.receive(f.ping() * 90)
        served.clock.advance(1.0)
    assert served.goaway is None


def test_tiny_credit_for_an_answer_that_waits_is_refused_in_the_end() -> None:
    served = ServedH2(answering(b"x" * 60000), opening=f.PREFACE + f.settings({f.WINDOW: 0}))
    served.receive(f.headers(1))
    for _ in range(2100):
        served.receive(f.window_update(1, 1))
    assert served.goaway == f.ENHANCE_YOUR_CALM


def test_a_caller_that_does_not_read_answers_can_ask_for_no_more() -> None:
    """Heads have no flow control: answers without a body would fill the memory."""
    served = ServedH2(answering(lines=(b"x-large: " + b"y" * 4000,)), own=H2Settings(streams=10))
    served.connection.is_full = True
    stream = 1
    while not served.connection.is_paused:
        served.receive(f.headers(stream))
        stream += 2
        assert stream < 2 * MOST_UNREAD // 4000 + 10
    served.drain()
    assert not served.connection.is_paused
    served.receive(f.headers(stream))
    assert served.status(stream) == 200


def test_a_caller_that_never_reads_is_dropped() -> None:
    served = ServedH2(answering(), body=30.0)
    served.connection.is_full = True
    served.check(10)
    assert served.connection.ending == "abort"


def test_a_header_block_that_dribbles_is_given_up() -> None:
    served = ServedH2(head=30.0)
    served.receive(f.headers(1, b"", flags=0))
    for _ in range(5):
        served.receive(f.continuation(1, b"\0", ends=False))
        served.check()
    assert served.goaway == f.PROTOCOL_ERROR


def test_a_connection_that_never_begins_is_given_up() -> None:
    served = ServedH2(head=30.0, opening=f.PREFACE[:5])
    served.check(5)
    assert served.goaway == f.SETTINGS_TIMEOUT
    assert served.connection.ending == "close"


def test_frames_split_anywhere_mean_the_same() -> None:
    sent = f.OPENING + f.headers(1, f.POST, ends=False) + f.data(1, b"body", padding=3) + f.ping() + f.headers(1, (("x", "y"),))
    whole = ServedH2(answering(b"hello"), opening=sent)
    dribbled = ServedH2(answering(b"hello"), opening=b"")
    dribbled.receive(*[sent[index : index + 1] for index in range(len(sent))])
    assert dribbled.walk.requests == whole.walk.requests != []
    assert [(frame.kind, frame.payload) for frame in dribbled.frames] == [(frame.kind, frame.payload) for frame in whole.frames]


# --- silence and ends


def test_an_idle_connection_is_closed_with_goaway() -> None:
    served = ServedH2(idle=40.0)
    served.check(6)
    assert served.goaway == f.NO_ERROR
    assert served.connection.ending == "close"


def test_a_body_that_stops_is_given_up_but_not_a_silent_call_of_grpc() -> None:
    stopped, call = ServedH2(Holding(), body=30.0), ServedH2(Holding(), body=30.0)
    stopped.receive(f.headers(1, f.POST, ends=False))
    call.receive(f.headers(1, GRPC, ends=False))
    for served in (stopped, call):
        served.check(6)
    assert stopped.walk.verdicts == [408]
    assert call.walk.verdicts == []
    assert is_clean(stopped)
    assert stopped.connection.ending == call.connection.ending == ""


def pinging(served: ServedH2, times: int) -> None:
    """A caller that does nothing but show that it is there."""
    for _ in range(times):
        served.receive(f.ping())
        served.check()


def test_a_body_that_stops_is_given_up_whatever_else_comes() -> None:
    served = ServedH2(Holding(), body=30.0)
    served.receive(f.headers(1, f.POST, ends=False), f.headers(3))
    pinging(served, 6)
    assert served.walk.verdicts == [408]
    assert list(served.server.streams) == [3]


def test_a_caller_that_waits_for_an_answer_to_an_empty_body_is_not_waited_for() -> None:
    served = ServedH2(Holding(), body=30.0)
    served.receive(f.headers(1, (*f.POST, ("content-length", "0")), ends=False))
    pinging(served, 6)
    assert served.walk.verdicts == []
    assert list(served.server.streams) == [1]


@pytest.mark.parametrize("window", [0, 1 << 20])
def test_an_answer_without_credit_is_given_up_whatever_else_comes(window: int) -> None:
    """For its stream, or for the connection, which gave 65535 bytes and no more."""
    served = ServedH2(answering(b"x" * 70000), opening=f.PREFACE + f.settings({f.WINDOW: window}), body=30.0)
    served.receive(f.headers(1), f.headers(3))
    pinging(served, 6)
    assert served.resets() == {1: f.CANCEL, 3: f.CANCEL}
    assert served.connection.ending == ""
    assert is_clean(served)


def test_an_answer_without_credit_is_given_up_at_its_source() -> None:
    walk = Holding()
    served = ServedH2(walk, opening=f.PREFACE + f.settings({f.WINDOW: 0}), body=30.0)
    served.receive(f.headers(1))
    ex = walk.held[0]
    ex.status = 200
    ex.caller.respond(ex, b"x" * 100, False)
    pinging(served, 6)
    assert served.resets() == {1: f.CANCEL}
    assert walk.gone == 1
    assert ex.error is None  # it was made ready for another request
    assert is_clean(served)


def test_an_answer_that_is_taken_slowly_is_not_given_up() -> None:
    served = ServedH2(answering(b"x" * 70000), opening=f.PREFACE + f.settings({f.WINDOW: 0}), body=30.0)
    served.receive(f.headers(1))
    for _ in range(12):
        served.receive(f.window_update(1, 1000))
        served.check(2)
    assert served.resets() == {}
    assert len(served.body(1)) == 12000


def test_a_caller_that_never_reads_is_dropped_whatever_it_says() -> None:
    served = ServedH2(answering(), body=30.0)
    served.connection.is_full = True
    pinging(served, 6)
    assert served.connection.ending == "abort"


def test_a_silent_caller_with_requests_under_way_is_asked_and_then_given_up() -> None:
    gone, there, idle = ServedH2(Holding()), ServedH2(Holding()), ServedH2(Holding())
    for served in (gone, there):
        served.receive(f.headers(1, GRPC, ends=False))
    for _ in range(4):
        for served in (gone, there, idle):
            served.check(int(SILENCE_SECONDS / served.parameters.check))
        there.receive(f.ping(ALIVE_PING, ack=True))
    assert ("PING", 0) in gone.kinds()
    assert gone.connection.ending == "abort"
    assert there.connection.ending == idle.connection.ending == ""
    assert ("PING", 0) not in idle.kinds()


def test_draining_lets_requests_finish_that_were_on_their_way() -> None:
    walk = Holding()
    served = ServedH2(walk)
    served.receive(f.headers(1))
    served.server.drain()
    goaway, ping = served.take()[-2:]
    assert (goaway.kind, goaway.number, goaway.code) == (f.GOAWAY, f.LARGEST, f.NO_ERROR)
    served.receive(f.headers(3), f.ping(ping.payload, ack=True), f.headers(5))
    assert served.take()[0].number == 3
    assert served.resets() == {5: f.REFUSED_STREAM}
    for ex in walk.held:
        answer(ex)
    served.turn()
    assert served.status(1) == served.status(3) == 200
    assert served.connection.ending == "close"


def test_draining_ends_with_an_answer_that_is_broken_off() -> None:
    walk = Holding()
    served = ServedH2(walk)
    served.receive(f.headers(1))
    served.server.drain()
    served.receive(f.ping(b"draining", ack=True))
    walk.held[0].caller.cut()
    assert served.connection.ending == "close"


def test_draining_before_the_preface_just_closes() -> None:
    served = ServedH2(opening=b"")
    served.server.drain()
    assert served.take() == []
    assert served.connection.ending == "close"


def test_a_lost_connection_ends_all_that_is_under_way() -> None:
    walk = Holding()
    served = ServedH2(walk)
    served.receive(f.headers(1), f.headers(3, f.POST, ends=False))
    served.connection.lost()
    assert walk.gone == 2
    assert served.closed == 1
    assert is_clean(served)


def test_a_faulty_connection_ends_all_that_is_under_way_once() -> None:
    walk = Holding()
    served = ServedH2(walk)
    served.receive(f.headers(1), f.headers(3), f.data(0, b"x"))
    assert walk.gone == 2
    served.connection.lost()
    assert walk.gone == 2
    assert served.closed == 1


def test_the_code_of_a_reset_is_known_to_the_exchange() -> None:
    walk = Holding()
    served = ServedH2(walk)
    served.receive(f.headers(1))
    ex = walk.held[0]
    codes: list[object] = []
    walk.caller_gone = lambda ex: codes.append(ex.error)  # type: ignore[method-assign]
    served.receive(f.rst_stream(1, f.CANCEL))
    assert getattr(codes[0], "stream_code", None) == f.CANCEL
    assert ex.error is None  # it is spare now
