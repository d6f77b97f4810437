from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.heads import section
from fakes.transport import UNKNOWN_LENGTH, FakeCaller, FakeConnection, FakeWalk, request
from meshgw.client.http import MOST_INTERIM, ClientParameters, HttpClient
from meshgw.core.exchange import Exchange
from meshgw.wire.http1 import ResponseTable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class FakePool:
    def __init__(self) -> None:
        self.released_count = self.closed_count = 0

    def released(self, client: HttpClient) -> None:
        self.released_count += 1

    def closed(self, client: HttpClient) -> None:
        self.closed_count += 1


class Asked:
    """One connection to an endpoint with a request sent on it."""

    def __init__(self, ex: Exchange | None = None, *, max_headers: int = 8192, max_body: int | None = None) -> None:
        self.connection, self.pool, self.walk = FakeConnection(), FakePool(), FakeWalk()
        parameters = ClientParameters(table=ResponseTable(taken=(b"via",)), max_headers=max_headers, max_body=max_body)
        self.client = HttpClient(self.connection, parameters, self.pool, "192.0.2.9:80")  # type: ignore[arg-type]
        self.ask(ex or request())

    def ask(self, ex: Exchange) -> None:
        self.caller = FakeCaller()
        ex.caller, ex.walk, ex.upstream = self.caller, self.walk, self.client
        self.ex = ex
        self.client.send(ex)

    def receive(self, *pieces: bytes) -> Asked:
        for piece in pieces:
            if self.connection.ending:
                break
            self.client.data_received(piece)
        return self

    def end(self) -> Asked:
        """The endpoint sends no more."""
        if not self.connection.ending:
            self.client.eof_received()
        return self

    @property
    def story(self) -> tuple[object, ...]:
        """All that must not depend on how the answer was split."""
        caller = self.caller
        failures = [str(failure) for failure in self.walk.failures]
        return (
            caller.head,
            caller.body,
            caller.trailers,
            caller.is_done,
            failures,
            self.walk.interim,
            self.pool.released_count,
            self.connection.ending,
        )


# --- any split of the answer gives the same result

FIELDS = st.lists(
    st.sampled_from([b"X-A: 1", b"Via: 1.1 x", b"Keep-Alive: 5", b"Set-Cookie: a=b", b"Connection: X-A", b"Upgrade: x"]), max_size=3
)
BODIES = st.binary(max_size=30)
STATUS = st.sampled_from([b"200 OK", b"404 ", b"204 No Content", b"304 Not Modified", b"500", b"599 caf\xc3\xa9"])


def with_length(status: bytes, fields: list[bytes], body: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 " + status, *fields, b"Content-Length: %d" % len(body), b"", body))


def in_chunks(status: bytes, fields: list[bytes], pieces: list[bytes]) -> bytes:
    body = b"".join(b"%X;x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\nX-Sum: 3\r\n\r\n"
    return b"\r\n".join((b"HTTP/1.1 " + status, *fields, b"Transfer-Encoding: chunked", b"", body))


def until_close(status: bytes, fields: list[bytes], body: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.0 " + status, *fields, b"", body))


interim = st.sampled_from([b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"])
answers = (
    st.builds(with_length, STATUS, FIELDS, BODIES)
    | st.builds(in_chunks, STATUS, FIELDS, st.lists(BODIES, max_size=3))
    | st.builds(until_close, STATUS, FIELDS, BODIES)
)
streams = st.builds(lambda first, answer, rest: first + answer + rest, interim, answers, st.sampled_from([b"", b"", b"x"]))
NOISE = st.sampled_from([b"\r", b"\n", b"\r\n", b"\0", b" ", b":", b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n", b"-", b"g"])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = draw(streams)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(NOISE) + data[at + draw(st.integers(0, 3)) :]
    return data


def result(pieces: list[bytes], method: bytes) -> tuple[object, ...]:
    story = Asked(request(method), max_body=50).receive(*pieces).end().story
    head, body, _, done, failures, *_ = story
    # bytes after a whole answer, or a broken coding after its head: what was passed on by then depends on what was read together
    return (head is not None and done, head[:3] if head and done else None, body if done else None, bool(failures), story[5])  # type: ignore[index]


@given(streams | mutated() | st.binary(max_size=60), st.lists(st.integers(0, 300), max_size=6), st.sampled_from([b"GET", b"HEAD"]))
def test_no_split_of_an_answer_changes_the_result(data: bytes, cuts: list[int], method: bytes) -> None:
    whole = result([data], method)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert result([data[start:end] for start, end in itertools.pairwise(edges) if start < end], method) == whole
    assert result([data[at : at + 1] for at in range(len(data))], method) == whole


@pytest.mark.parametrize("end", [25, 26, 27, 28, 29, 30, 31, 32])
def test_the_limit_of_a_head_is_the_same_however_it_is_split(end: int) -> None:
    head = b"HTTP/1.1 204 X\r\nX: " + b"a" * (end - 19)
    whole = Asked(max_headers=28).receive(head + b"\r\n\r\n")
    single = Asked(max_headers=28).receive(*(bytes((byte,)) for byte in head + b"\r\n\r\n"))
    assert (whole.caller.head is None) == (single.caller.head is None) == (end > 28)


# --- what is sent


def test_a_request_without_body_leaves_in_one_write() -> None:
    assert Asked().connection.written == b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"


def test_head_and_known_body_leave_together_with_the_length() -> None:
    asked = Asked(request(b"POST", body=b"abc"))
    assert asked.connection.written == b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc"


@pytest.mark.parametrize("length", [0, 3])
def test_a_length_given_by_the_caller_is_sent_once(length: int) -> None:
    ex = request(b"POST", body=b"abc" if length else None)
    ex.headers = section([b"Host: web", b"Content-Length: %d" % length])
    assert Asked(ex).connection.written.count(b"\r\nContent-Length: %d\r\n" % length) == 1


def test_a_body_of_unknown_length_is_chunked_with_its_trailers() -> None:
    ex = request(b"POST")
    ex.length, ex.body, ex.body_done = UNKNOWN_LENGTH, [b"ab", b"c"], False
    asked = Asked(ex)
    asked.client.send_body(b"defg")
    asked.client.send_end([b"X-Sum: 7"])
    head, _, body = asked.connection.written.partition(b"\r\n\r\n")
    assert head.endswith(b"Transfer-Encoding: chunked")
    assert body == b"3\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n"


@pytest.mark.parametrize(("length", "sent"), [(UNKNOWN_LENGTH, b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"), (3, b"abc")])
def test_the_last_of_a_body_ends_it(length: int, sent: bytes) -> None:
    ex = request(b"POST")
    ex.length, ex.body, ex.body_done = length, [b"ab"], False
    asked = Asked(ex)
    asked.client.send_last(b"c")
    assert asked.connection.written.partition(b"\r\n\r\n")[2] == sent
    asked.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (asked.pool.released_count, asked.connection.ending) == (1, "")


# --- what comes back


def test_a_connection_is_released_after_a_whole_answer_and_used_again() -> None:
    asked = Asked().receive(OK)
    assert (asked.caller.body, asked.caller.is_done) == (b"ok", True)
    assert asked.pool.released_count == 1
    asked.ask(request(target=b"/2"))
    asked.receive(OK)
    assert asked.pool.released_count == 2
    assert asked.client.used == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"x",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_a_connection_that_cannot_be_trusted_further_is_closed(answer: bytes) -> None:
    asked = Asked().receive(answer)
    assert asked.caller.is_done
    assert asked.pool.released_count == 0
    assert asked.connection.ending == "close_now"


def test_an_http10_upstream_that_keeps_alive_is_used_again() -> None:
    asked = Asked().receive(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
    assert asked.pool.released_count == 1
    assert asked.caller.head is not None
    assert asked.caller.head[1] == b"HTTP/1.1 200 OK"


def test_a_head_answer_has_no_body_and_keeps_its_length_line() -> None:
    asked = Asked(request(b"HEAD")).receive(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n")
    assert asked.caller.head == (200, b"HTTP/1.1 200 OK", [b"Content-Length: 999"], 0)
    assert asked.pool.released_count == 1


def test_an_answer_without_length_ends_with_the_connection() -> None:
    asked = Asked().receive(b"HTTP/1.1 200 OK\r\n\r\nab", b"c")
    assert not asked.caller.is_done
    asked.end()
    assert (asked.caller.body, asked.caller.is_done) == (b"abc", True)
    assert asked.caller.head is not None
    assert asked.caller.head[3] == UNKNOWN_LENGTH
    assert asked.connection.ending == "close_now"


def test_an_early_answer_does_not_give_the_connection_back() -> None:
    ex = request(b"POST", body=b"abc")
    ex.length, ex.body_done = 10, False
    asked = Asked(ex).receive(OK)
    assert asked.caller.is_done
    assert asked.connection.ending == "close_now"


INVALID = {
    "length and coding": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
    "listed length": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n",
    "signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "coding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded line": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\r\nX: a\nb\r\n\r\n",
    "NUL": b"HTTP/1.1 200 OK\r\nX: a\0\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "another version": b"HTTP/2.0 200 OK\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "switch without request": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    "too many interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * (MOST_INTERIM + 1),
    "endless head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 9000,
    "large head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
    "body over the limit": b"HTTP/1.1 200 OK\r\nContent-Length: 51\r\n\r\n",
}


@pytest.mark.parametrize("data", INVALID.values(), ids=INVALID)
def test_an_invalid_answer_fails_with_502_and_is_not_sent_again(data: bytes) -> None:
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        asked = Asked(max_body=50).receive(*pieces)
        assert [failure.status for failure in asked.walk.failures] == [502]
        assert asked.walk.resends == [False]
        assert asked.connection.ending == "close_now"
        assert asked.pool.closed_count == 1
        assert asked.caller.head is None


@pytest.mark.parametrize("coded", [b"-1\r\n", b"0x1\r\na\r\n", b"1\r\nab\r\n", b"1\na\r\n", b"z\r\n"])
def test_a_broken_chunk_after_the_head_fails_the_exchange(coded: bytes) -> None:
    asked = Asked().receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", coded)
    assert asked.caller.head is not None
    assert not asked.caller.is_done
    assert len(asked.walk.failures) == 1


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"]
)
def test_an_answer_that_breaks_off_fails_the_exchange(data: bytes) -> None:
    asked = Asked().receive(data).end()
    assert not asked.caller.is_done
    assert [failure.status for failure in asked.walk.failures] == [502]
    assert asked.walk.resends == [False]


def test_bytes_on_an_idle_connection_end_it() -> None:
    asked = Asked().receive(OK)
    asked.receive(OK)
    assert asked.connection.ending == "close_now"
    assert asked.pool.closed_count == 1


@pytest.mark.parametrize(
    ("method", "resent"), [(b"GET", True), (b"HEAD", True), (b"PUT", True), (b"DELETE", True), (b"POST", False), (b"PATCH", False)]
)
def test_a_kept_connection_that_was_closed_has_idempotent_requests_sent_again(method: bytes, resent: bool) -> None:
    asked = Asked().receive(OK)
    asked.ask(request(method))
    asked.connection.lost()
    assert asked.walk.resends == [resent]


def test_nothing_is_sent_again_after_the_first_byte_or_on_a_new_connection() -> None:
    fresh = Asked()
    fresh.connection.lost()
    begun = Asked().receive(OK)
    begun.ask(request())
    begun.receive(b"HTTP")
    begun.connection.lost()
    assert fresh.walk.resends == begun.walk.resends == [False]


def test_an_abandoned_answer_closes_its_connection() -> None:
    asked = Asked()
    asked.client.abandon()
    assert asked.connection.ending == "close_now"
    assert asked.walk.failures == []


# --- pressure and tunnels


def test_a_slow_caller_stops_the_reading_until_it_took_what_waits() -> None:
    asked = Asked()
    asked.caller.is_full = True
    asked.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    assert asked.connection.is_paused
    asked.client.resume_answer()
    assert not asked.connection.is_paused
    asked.receive(b"def")
    assert asked.connection.is_paused


def test_a_connection_paused_at_the_end_of_its_answer_is_read_again_in_the_pool() -> None:
    asked = Asked()
    asked.caller.is_full = True
    asked.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc", b"def")
    assert asked.pool.released_count == 1
    assert not asked.connection.is_paused


def upgraded() -> Asked:
    ex = request()
    ex.upgrade = b"websocket"
    return Asked(ex).receive(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")


def test_a_switch_of_protocols_hands_the_first_bytes_over() -> None:
    asked = upgraded()
    assert asked.caller.tunneled == b"first"
    assert asked.connection.written.endswith(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    asked.receive(b"more")
    assert asked.caller.body == b"more"


def test_each_direction_of_a_tunnel_ends_alone() -> None:
    asked = upgraded()
    asked.client.send_end([])
    assert asked.connection.is_half_closed
    asked.receive(b"still")
    assert asked.caller.body == b"still"
    asked.end()
    assert asked.caller.is_done
    assert asked.connection.ending == ""


def test_the_end_of_a_tunnel_lets_what_waits_be_sent() -> None:
    asked = upgraded()
    asked.client.abandon()
    assert asked.connection.ending == "close"


@pytest.mark.parametrize("answer", [in_chunks(b"200 OK", [], [b"a" * 30, b"b" * 21]), until_close(b"200 OK", [], b"a" * 51)])
def test_an_answer_of_untold_length_is_limited_too(answer: bytes) -> None:
    for pieces in ((answer,), tuple(answer[at : at + 1] for at in range(len(answer)))):
        asked = Asked(max_body=50).receive(*pieces)
        assert [str(failure) for failure in asked.walk.failures] == [
            "192.0.2.9:80 sent an invalid response: body longer than 50 bytes (maxResponseKB)"
        ]
        assert not asked.caller.is_done
        assert asked.connection.ending == "close_now"
