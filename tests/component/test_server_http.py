from __future__ import annotations

import pytest

from fakes.served import GET, HOST, Served, answer, answering, holding, post
from fakes.transport import FakeWalk
from meshgw.core.exchange import Exchange
from meshgw.server.http import READ_AHEAD
from meshgw.wire.headers import Headers

# --- connections


def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_order() -> None:
    walk = FakeWalk(lambda ex: answer(ex, ex.target, length=len(ex.target)))
    served = Served(walk).receive(b"".join(b"GET /%d HTTP/1.1\r\nHost: web\r\n\r\n" % number for number in range(50)))
    bodies = [part.rpartition(b"\r\n\r\n")[2] for part in served.connection.written.split(b"HTTP/1.1 200 X")[1:]]
    assert bodies == [b"/%d" % number for number in range(50)]
    assert served.connection.ending == ""


def test_a_second_request_waits_for_the_first_answer() -> None:
    held: list[Exchange] = []
    served = Served(FakeWalk(held.append)).receive(GET + GET.replace(b"/ ", b"/2 "))
    assert served.walk.begun == 1
    answer(held[0], b"", length=0)
    assert [request[1] for request in served.walk.requests] == [b"/", b"/2"]


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: Close\r\n", False),
        (b"1.1", b"Connection: x, close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", True),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
    ],
)
def test_a_connection_is_kept_as_version_and_options_say(version: bytes, connection: bytes, kept: bool) -> None:
    served = Served(answering()).receive(b"GET / HTTP/%b\r\nHost: web\r\n%b\r\n" % (version, connection))
    assert (served.connection.ending == "") is kept
    assert (b"Connection: close" in served.connection.written) is not kept
    assert (b"Connection: keep-alive" in served.connection.written) is (kept and version == b"1.0")


@pytest.mark.parametrize(
    ("method", "status", "body"), [(b"HEAD", 200, False), (b"GET", 204, False), (b"GET", 304, False), (b"GET", 200, True)]
)
def test_only_answers_that_have_a_body_send_one(method: bytes, status: int, body: bool) -> None:
    served = Served(answering(status=status)).receive(b"%b / HTTP/1.1\r\nHost: web\r\n\r\n" % method)
    assert served.connection.written.endswith(b"\r\n\r\nhello" if body else b"\r\n\r\n")


def test_an_answer_of_unknown_length_is_chunked_for_http11_with_its_trailers() -> None:
    held: list[Exchange] = []
    served = Served(FakeWalk(held.append)).receive(GET)
    answer(held[0], b"one", length=-1, done=False)
    held[0].caller.send_body(b"two!")
    held[0].caller.send_end([b"X-Sum: 7"])
    head, _, body = served.connection.written.partition(b"\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked" in head
    assert body == b"3\r\none\r\n4\r\ntwo!\r\n0\r\nX-Sum: 7\r\n\r\n"
    assert served.connection.ending == ""


def test_an_answer_of_unknown_length_ends_with_the_connection_for_http10() -> None:
    held: list[Exchange] = []
    served = Served(FakeWalk(held.append)).receive(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    answer(held[0], b"one", length=-1, done=False)
    held[0].caller.send_end([b"X-Sum: 7"])
    head, _, body = served.connection.written.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert b"Connection: close" in head
    assert body == b"one"
    assert served.connection.ending == "close"


def test_an_answer_before_the_end_of_the_request_closes_the_connection_after_it() -> None:
    held: list[Exchange] = []

    class Early(FakeWalk):
        def begin(self, ex: Exchange) -> None:
            super().begin(ex)
            held.append(ex)

    served = Served(Early()).receive(post(b"Content-Length: 10\r\n", b"abc"))
    answer(held[0], b"no", length=2, status=403)
    assert served.connection.written.endswith(b"Connection: close\r\n\r\nno")
    assert served.connection.ending == "close"


def test_interim_answers_reach_http11_callers_only() -> None:
    for version, passed in ((b"1.1", True), (b"1.0", False)):
        held: list[Exchange] = []
        served = Served(FakeWalk(held.append)).receive(b"GET / HTTP/%b\r\nHost: web\r\n\r\n" % version)
        held[0].caller.inform(held[0], b"HTTP/1.1 103 Early Hints", Headers([b"Link: </a>"]))
        assert served.connection.written == (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" if passed else b"")


def test_hop_by_hop_fields_and_those_listed_in_connection_are_left_out() -> None:
    fields = b"Connection: X-Private, close\r\nX-Private: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
    fields += b"Proxy-Connection: x\r\nProxy-Authorization: y\r\nX-Kept: 2\r\n"
    served = Served().receive(b"GET / HTTP/1.1\r\n" + HOST + fields + b"\r\n")
    assert served.walk.headers == [[b"Host: web", b"X-Kept: 2"]]


def test_an_absolute_target_becomes_origin_form_and_its_authority_the_host() -> None:
    served = Served().receive(b"GET http://other:81/a?b HTTP/1.1\r\nHost: web\r\n\r\n")
    assert served.walk.requests[0][:2] == (b"GET", b"/a?b")
    assert served.walk.headers == [[b"host: other:81"]]


# --- pressure


def test_input_read_ahead_is_bounded() -> None:
    held: list[Exchange] = []
    served = Served(FakeWalk(held.append)).receive(GET)
    served.receive(b"x" * READ_AHEAD)
    assert not served.connection.is_paused
    served.receive(b"x")
    assert served.connection.is_paused


def test_a_body_that_nobody_takes_yet_is_bounded_and_resumes_when_taken() -> None:
    class Waiting(FakeWalk):
        def begin(self, ex: Exchange) -> None:
            self.ex = ex

    walk = Waiting()
    served = Served(walk).receive(post(b"Content-Length: 1000000\r\n"), b"x" * READ_AHEAD)
    assert not served.connection.is_paused
    served.receive(b"x")
    assert served.connection.is_paused
    assert sum(map(len, walk.ex.body or [])) == READ_AHEAD + 1
    walk.ex.caller.resume_body()
    assert not served.connection.is_paused


# --- ends


def test_a_caller_that_closes_cancels_its_request() -> None:
    served = Served(holding()).receive(GET)
    served.server.eof_received()
    assert served.walk.gone == 1
    assert served.connection.ending == "close_now"
    assert served.closed == 1


def test_a_head_that_does_not_arrive_in_time_is_answered_408() -> None:
    served = Served().receive(b"GET / HTTP/1.1\r\nHo")
    served.clock.pump([0.1] * 300)
    assert served.walk.verdicts == []
    for _ in range(120):
        served.receive(b"x")  # a byte now and then does not help
        served.clock.advance(0.1)
    assert served.walk.verdicts == [408]
    assert served.connection.ending == "close"


def test_a_body_that_stops_coming_is_answered_408_after_five_minutes() -> None:
    served = Served(holding()).receive(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 9\r\n\r\nabc")
    served.clock.pump([1.0] * 250)
    served.receive(b"d")
    served.clock.pump([1.0] * 290)
    assert served.walk.verdicts == []
    served.clock.pump([1.0] * 30)
    assert served.walk.verdicts == [408]


def test_a_caller_that_does_not_read_its_answer_is_cut_off_after_five_minutes() -> None:
    served = Served(holding()).receive(GET)
    served.connection.is_full = True
    served.clock.pump([1.0] * 290)
    served.connection.flushed += 1
    served.clock.pump([1.0] * 290)
    assert served.connection.ending == ""
    served.clock.pump([1.0] * 30)
    assert served.connection.ending == "abort"


def test_a_wait_for_a_service_is_not_the_callers_standstill() -> None:
    served = Served(holding()).receive(GET)
    served.clock.pump([10.0] * 400)
    assert served.connection.ending == ""


def test_an_upgrade_to_http2_is_not_passed_on() -> None:
    seen: list[bytes | None] = []
    Served(FakeWalk(lambda ex: seen.append(ex.upgrade))).receive(
        b"GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    )
    assert seen == [None]


def test_an_idle_connection_is_closed_after_ten_minutes_without_an_answer() -> None:
    served = Served().receive(GET)
    served.connection.take()
    served.clock.pump([0.5] * 1200)
    assert served.connection.ending == ""
    served.clock.pump([0.5] * 100)
    assert served.connection.ending == "close_now"
    assert served.connection.written == b""


def test_draining_closes_idle_connections_now_and_busy_ones_after_the_answer() -> None:
    idle, held = Served(), list[Exchange]()
    idle.server.drain()
    assert idle.connection.ending == "close_now"
    busy = Served(FakeWalk(held.append)).receive(GET)
    busy.server.drain()
    assert busy.connection.ending == ""
    answer(held[0], b"hello", length=5)
    assert b"Connection: close" in busy.connection.written
    assert busy.connection.ending == "close"


# --- tunnels


class Peer:
    """The other side of a tunnel."""

    def __init__(self) -> None:
        self.received, self.is_full, self.is_ended = b"", False, False

    def send_body(self, data: bytes) -> None:
        self.received += data

    def send_end(self, trailers: list[bytes]) -> None:
        self.is_ended = True


UPGRADE = b"GET / HTTP/%b\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def tunneled(*early: bytes) -> tuple[Served, Peer, Exchange]:
    held: list[Exchange] = []
    served = Served(FakeWalk(held.append)).receive(UPGRADE % b"1.1", *early)
    ex, peer = held[0], Peer()
    assert ex.upgrade == b"websocket"
    ex.status, ex.status_line, ex.response = 101, b"HTTP/1.1 101 Switching Protocols", Headers()
    ex.caller.tunnel(ex, peer, b"first")  # type: ignore[arg-type]
    return served, peer, ex


def test_a_tunnel_passes_early_bytes_of_both_sides() -> None:
    served, peer, _ = tunneled(b"early")
    assert served.connection.written.endswith(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")
    served.receive(b" more")
    assert peer.received == b"early more"


def test_a_caller_held_back_before_its_tunnel_is_read_again() -> None:
    served, peer, _ = tunneled(b"x" * (READ_AHEAD + 1))
    assert len(peer.received) == READ_AHEAD + 1
    assert not served.connection.is_paused


def test_a_tunnel_stays_open_until_both_sides_ended() -> None:
    for first_is_caller in (True, False):
        served, peer, ex = tunneled()
        ends = [served.server.eof_received, lambda ex=ex: ex.caller.send_end([])]
        for end in ends if first_is_caller else reversed(ends):
            assert served.connection.ending == ""
            end()
        assert peer.is_ended
        assert served.connection.is_half_closed
        assert served.connection.ending == "close"
        assert served.walk.ended == 1


def test_bytes_in_a_half_closed_tunnel_are_never_read_as_a_request() -> None:
    served, peer, ex = tunneled()
    ex.caller.send_end([])
    served.receive(GET)
    assert peer.received == GET
    assert served.walk.begun == 1


def test_a_full_tunnel_holds_its_caller_back() -> None:
    served, peer, ex = tunneled()
    peer.is_full = True
    served.receive(b"x")
    assert served.connection.is_paused
    ex.caller.resume_body()
    assert not served.connection.is_paused


def test_upgrade_in_http10_is_ignored() -> None:
    held: list[Exchange] = []
    Served(FakeWalk(held.append)).receive(UPGRADE % b"1.0")
    assert held[0].upgrade is None
