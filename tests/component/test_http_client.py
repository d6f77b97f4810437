"""Asking APIs over HTTP, byte by byte: what is sent, what all kinds of answers come to, and what is left behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.error import NoRouteError

from fakes.dialled import HEAD, Dialled, Outcome, Wire
from meshgw.backends.connecting import MOST_ADDRESSES, Connector
from meshgw.backends.http_bodies import LONGEST_LINE, MOST_BUFFERED
from meshgw.backends.http_client import ApiClient, LineStream
from meshgw.backends.http_connection import LARGEST_HEAD
from meshgw.core.address import ADDR_NEG, Addr, Address, Replicas
from meshgw.core.live import Constant, Live, Ok, Pending, Source, constant, failed
from meshgw.errors import BackendMalformed, BackendRefused, BackendSilent, BackendUnreachable, NamerError
from meshgw.telemetry.metrics import Metrics

OK = HEAD + b"ok"


class Api:
    """A client of an API at ``host``, whose names resolve as the test says, to 192.0.2.1 unless it says otherwise."""

    def __init__(
        self, host: str = "api", *, fail_fast: bool = False, headers: Mapping[str, str] | None = None, largest: int = 1000
    ) -> None:
        self.reactor = Dialled()
        self.addr: Live[Addr] = constant(Replicas((Address("192.0.2.1", 80),)))
        self.connector = Connector(self.reactor, self._resolve, host, 80, fail_fast=fail_fast)
        self.metrics = Metrics()
        self.client = ApiClient(
            self.connector.agent,
            self.reactor,
            name="Api",
            base=self.connector.base,
            headers=headers,
            largest=largest,
            outcomes=self.metrics.outcomes("client"),
        )
        self.connector.start()

    def _resolve(self, host: str, port: int) -> Live[Addr]:
        return self.addr

    def get(self, path: str = "/", seconds: float = 60.0, **options: Any) -> Outcome:
        return Outcome(self.client.get(path, seconds=seconds, **options))

    def asked(self, **options: Any) -> tuple[Outcome, Wire]:
        """A question on a new connection."""
        outcome = self.get(**options)
        return outcome, self.reactor.accept()

    def streaming(self, head: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> tuple[LineStream, Wire]:
        outcome = Outcome(self.client.lines("/watch", seconds=5.0))
        wire = self.reactor.accept()
        wire.send(head)
        stream: LineStream = outcome.value
        return stream, wire

    def assert_nothing_left(self) -> None:
        """When all is ended and the connector stopped, no call, connection or attempt is left."""
        self.connector.stop()
        self.reactor.advance(0)
        assert self.reactor.getDelayedCalls() == []


# --- what is counted


def test_questions_count_by_their_answers() -> None:
    api = Api()
    for status in (b"200 OK", b"404 Not Found", b"503 Unavailable"):
        outcome, wire = api.asked()
        assert api.metrics.snapshot().gauges["client", "pending"] == 1
        api.reactor.advance(0.25)
        wire.send(HEAD.replace(b"200 OK", status) + b"ok")
        assert outcome.value.status == int(status[:3])
        wire.close()
    lost, wire = api.asked()
    wire.close()
    assert isinstance(lost.error, BackendUnreachable)
    late, _ = api.asked(seconds=2.0)
    api.reactor.advance(2.0)
    assert isinstance(late.error, BackendSilent)
    api.metrics.rotate()
    snapshot = api.metrics.snapshot()
    counted = {"/".join(names[1:]): value for names, value in snapshot.counters.items() if names[0] == "client"}
    assert (counted["requests"], counted["success"], counted["failures"]) == (5, 2, 3)
    assert (counted["failures/BackendUnreachable"], counted["failures/CancelledError"], counted["status/503"]) == (1, 1, 1)
    assert snapshot.gauges["client", "pending"] == 0
    assert snapshot.histograms["client", "request_latency_ms"].total == 3 * 250 + 2000


# --- what is sent


def test_a_question_has_its_path_query_and_headers() -> None:
    api = Api(headers={"X-Consul-Token": "secret"})
    _, wire = api.asked(path="/v1/x%2Fy", query=[("dc", "a b"), ("index", "7"), ("stale", "")], headers={"Accept": "text/plain"})
    head, _, body = wire.got.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    assert line == b"GET /v1/x%2Fy?dc=a%20b&index=7&stale= HTTP/1.1"
    assert sorted(fields, key=bytes.lower) == [
        b"Accept: text/plain",
        b"Host: api",
        b"User-Agent: meshgw",
        b"X-Consul-Token: secret",
    ]
    assert body == b""


def test_a_body_is_sent_with_its_length() -> None:
    api = Api()
    outcome = Outcome(api.client.request("PUT", "/", seconds=1.0, body=b"{}"))
    wire = api.reactor.accept()
    assert b"PUT / HTTP/1.1" in wire.got and b"Content-Length: 2" in wire.got and wire.got.endswith(b"\r\n\r\n{}")
    wire.send(OK)
    assert outcome.value.body == b"ok"


def test_an_ipv6_literal_is_bracketed_where_it_has_to_be() -> None:
    api = Api("2001:db8::1")
    assert api.connector.base == "http://[2001:db8::1]:80"
    api.addr = constant(Replicas((Address("2001:db8::1", 80),)))
    _, wire = api.asked()
    assert api.reactor.attempts[0].host == "2001:db8::1"
    assert b"Host: [2001:db8::1]\r\n" in wire.got


# --- answers of all framings


@pytest.mark.parametrize(
    ("answer", "closes", "body"),
    [
        (OK, False, b"ok"),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", False, b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;ext=1\r\no\r\n1\r\nk\r\n0\r\nX-Trailer: 1\r\n\r\n", False, b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nok", True, b"ok"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok", True, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", False, b""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 3 + OK, False, b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, False, b"ok"),
    ],
)
@pytest.mark.parametrize("is_dripping", [False, True])
def test_answers_of_every_framing_are_read(answer: bytes, closes: bool, body: bytes, is_dripping: bool) -> None:
    api = Api()
    outcome, wire = api.asked()
    for part in [bytes([byte]) for byte in answer] if is_dripping else [answer]:
        wire.send(part)
    if closes:
        assert outcome.is_open
        wire.close()
    assert outcome.value.body == body and outcome.value.is_good
    api.assert_nothing_left()


def test_headers_are_had_by_lower_case_name_and_the_first_of_a_name_counts() -> None:
    api = Api()
    outcome, wire = api.asked()
    wire.send(b"HTTP/1.1 404 Not Found\r\nX-Consul-Index: 7\r\nX-CONSUL-INDEX: 8\r\nContent-Length: 0\r\n\r\n")
    answer = outcome.value
    assert (answer.status, answer.is_good, answer.headers["x-consul-index"]) == (404, False, "7")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", "the connection broke"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", "the connection broke"),
        (b"HTTP/1.1 200 OK\r\nContent-L", "the connection broke"),
        (b"", "the connection broke"),
    ],
)
def test_an_answer_that_breaks_off_is_a_broken_connection(answer: bytes, reason: str) -> None:
    api = Api()
    outcome, wire = api.asked()
    wire.send(answer)
    wire.reset()
    assert isinstance(outcome.error, BackendUnreachable) and outcome.error.reason.startswith(reason)
    api.assert_nothing_left()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x16\n\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_what_is_not_http_is_malformed_and_not_shown(answer: bytes) -> None:
    api = Api()
    outcome, wire = api.asked(asked="/v1/x")
    wire.send(answer)
    api.reactor.advance(0)
    assert isinstance(outcome.error, BackendMalformed)
    assert str(outcome.error) == "Api: it answered with what is not HTTP (asked for /v1/x)"
    assert wire.ended
    api.assert_nothing_left()


@pytest.mark.parametrize("framing", [b"Content-Length: 1001", b"Transfer-Encoding: chunked", b"Connection: close"])
def test_an_answer_that_is_too_long_is_cut_off(framing: bytes) -> None:
    api = Api(largest=1000)
    outcome, wire = api.asked()
    body = b"3e9\r\n" + b"x" * 1001 if b"chunked" in framing else b"x" * 1001
    wire.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n" + body)
    assert str(outcome.error) == "Api: an answer longer than 1000 bytes"
    api.assert_nothing_left()


def test_an_answer_of_exactly_the_limit_is_taken() -> None:
    api = Api(largest=1000)
    outcome, wire = api.asked()
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
    assert len(outcome.value.body) == 1000


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\nX: " + b"y" * 1000 + b"\n",
        b"HTTP/1.1 103 Early Hints\r\nX: " + b"y" * 1000 + b"\r\n\r\n",
    ],
)
def test_a_head_without_end_is_cut_off(head: bytes) -> None:
    api = Api()
    outcome, wire = api.asked()
    for _ in range(LARGEST_HEAD // 1000 + 1):
        wire.send(head if head.endswith(b"\r\n\r\n") else head if not wire._dialled.seconds() else head.partition(b"\n")[2])
        api.reactor.advance(0.01)
    assert wire.ended == "aborted"
    assert isinstance(outcome.error, BackendMalformed) and "a head larger than 65536 bytes" in str(outcome.error)
    api.assert_nothing_left()


def test_a_long_body_is_no_head() -> None:
    api = Api(largest=1 << 20)
    outcome, wire = api.asked()
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n")
    for _ in range(300):
        wire.send(b"x" * 1000)
    assert len(outcome.value.body) == 300_000


def test_a_head_of_many_lines_within_the_limit_is_taken() -> None:
    api = Api()
    outcome, wire = api.asked()
    wire.send(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"Content-Length: 2\r\n\r\nok")
    assert outcome.value.body == b"ok"


# --- time


def test_no_answer_in_time_is_silence_and_ends_the_connection() -> None:
    api = Api()
    outcome, wire = api.asked(seconds=10.0, asked="/v1/x")
    api.reactor.advance(9.9)
    assert outcome.is_open
    api.reactor.advance(0.2)
    assert isinstance(outcome.error, BackendSilent)
    assert str(outcome.error) == "Api: no complete answer within 10 s (asked for /v1/x)"
    api.reactor.advance(0)
    assert wire.ended
    api.assert_nothing_left()


def test_a_body_that_drips_does_not_win_time() -> None:
    api = Api()
    outcome, wire = api.asked(seconds=10.0)
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(11):
        wire.send(b"x")
        api.reactor.advance(1.0)
    assert isinstance(outcome.error, BackendSilent) and wire.ended
    api.assert_nothing_left()


@pytest.mark.parametrize("state", ["resolving", "connecting", "second address", "sent", "head", "body"])
def test_a_question_can_be_taken_back_in_any_state(state: str) -> None:
    api = Api()
    if state == "resolving":
        api.addr = Source()
    elif state == "second address":
        api.addr = constant(Replicas((Address("192.0.2.1", 80), Address("192.0.2.2", 80), Address("192.0.2.3", 80))))
    outcome = api.get()
    wire = None
    if state == "second address":
        api.reactor.attempts[0].refuse()
    if state in ("sent", "head", "body"):
        wire = api.reactor.accept()
    if wire is not None and state == "head":
        wire.send(b"HTTP/1.1 200 OK\r\nContent")
    if wire is not None and state == "body":
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
    count = len(api.reactor.attempts)
    outcome.deferred.cancel()
    api.reactor.advance(0)
    assert isinstance(outcome.error, CancelledError)
    assert wire is None or wire.ended
    assert len(api.reactor.attempts) == count, "no other address is tried"
    assert wire is not None or all(attempt.is_given_up for attempt in api.reactor.attempts[1:] or api.reactor.attempts)
    if isinstance(api.addr, Source):
        assert not api.addr.is_observed
    api.connector.stop()
    api.reactor.advance(0)
    assert [call for call in api.reactor.getDelayedCalls() if "_time_out" not in str(call.func)] == []


# --- connections


def test_a_connection_serves_one_question_after_another() -> None:
    api = Api()
    first, wire = api.asked()
    wire.send(OK)
    assert first.value.body == b"ok"
    wire.take()
    second = api.get("/second")
    assert wire.take().startswith(b"GET /second ")
    wire.send(OK)
    assert second.value.body == b"ok" and len(api.reactor.attempts) == 1


def test_a_kept_connection_that_the_api_closed_meanwhile_is_replaced_without_a_word() -> None:
    api = Api()
    first, wire = api.asked()
    wire.send(OK)
    assert first.value.body == b"ok"
    second = api.get()
    wire.close()  # it was closing while the question was on its way
    other = api.reactor.accept()
    other.send(OK)
    assert second.value.body == b"ok" and len(api.reactor.attempts) == 2


def test_a_change_is_not_sent_twice_by_a_kept_connection_that_breaks() -> None:
    api = Api()
    first, wire = api.asked()
    wire.send(OK)
    assert first.value.body == b"ok"
    second = Outcome(api.client.request("POST", "/", seconds=5.0, body=b"{}"))
    wire.close()
    assert isinstance(second.error, BackendUnreachable) and len(api.reactor.attempts) == 1


def test_a_connection_is_kept_after_an_error_status_and_not_after_a_cut() -> None:
    api = Api(largest=10)
    first, wire = api.asked()
    wire.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops")
    assert first.value.status == 500
    second = api.get()
    assert len(api.reactor.attempts) == 1
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + b"x" * 11)
    assert isinstance(second.error, BackendMalformed)
    api.reactor.advance(0)
    third = api.get()
    assert third.is_open and len(api.reactor.attempts) == 2


def test_redirects_are_not_followed() -> None:
    api = Api()
    outcome, wire = api.asked()
    wire.send(b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere/\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<a/>")
    error = api.client.refused(outcome.value, "/v1/x")
    assert str(error) == "Api: 302 (to https://elsewhere/, which is not followed) (asked for /v1/x)"
    assert error.is_lasting and len(api.reactor.attempts) == 1


def test_the_next_address_is_tried_when_one_fails() -> None:
    api = Api()
    api.addr = constant(Replicas((Address("192.0.2.1", 80), Address("2001:db8::1", 81))))
    outcome = api.get()
    api.reactor.attempts[0].refuse()
    assert [(attempt.host, attempt.port) for attempt in api.reactor.attempts] == [("192.0.2.1", 80), ("2001:db8::1", 81)]
    api.reactor.accept().send(OK)
    assert outcome.value.body == b"ok"


def test_an_address_that_says_nothing_is_given_up_after_three_seconds() -> None:
    api = Api()
    api.addr = constant(Replicas((Address("192.0.2.1", 80), Address("192.0.2.2", 80))))
    outcome = api.get()
    api.reactor.advance(3.0)
    assert api.reactor.attempts[-1].host == "192.0.2.2"
    api.reactor.accept().send(OK)
    assert outcome.value.body == b"ok"


def test_only_so_many_addresses_are_tried() -> None:
    api = Api()
    api.addr = constant(Replicas(tuple(Address(f"192.0.2.{number}", 80) for number in range(1, 100))))
    outcome = api.get()
    while outcome.is_open:
        api.reactor.attempts[-1].refuse()
    assert len(api.reactor.attempts) == MOST_ADDRESSES
    assert str(outcome.error) == "Api: connection refused"


def test_the_reasons_for_no_connection_are_told_plainly() -> None:
    def reason(api: Api, outcome: Outcome) -> str:
        assert isinstance(outcome.error, BackendUnreachable)
        api.assert_nothing_left()
        return outcome.error.reason

    api = Api()
    outcome = api.get()
    api.reactor.attempts[-1].refuse()
    assert reason(api, outcome) == "connection refused"
    api = Api()
    outcome = api.get()
    api.reactor.attempts[-1].refuse(NoRouteError(113, "No route to host"))
    assert reason(api, outcome).startswith("no connection: ")
    api = Api()
    outcome = api.get()
    api.reactor.advance(3.0)
    assert reason(api, outcome) == "no connection in time"
    api = Api()
    api.addr = constant(ADDR_NEG)
    assert reason(api, api.get()) == "api: no such host"
    api = Api()
    api.addr = failed(NamerError(detail="DNS says SERVFAIL"))
    assert reason(api, api.get()) == "DNS says SERVFAIL"
    api = Api()
    api.addr = Source(initial=Pending("an answer of 192.0.2.53"))
    outcome = api.get()
    api.reactor.advance(5.0)
    assert reason(api, outcome) == "api: not resolved within 5 s (an answer of 192.0.2.53)"


def test_stale_addresses_are_tried() -> None:
    api = Api()
    api.addr = Constant(Ok(Replicas((Address("192.0.2.1", 80),)), NamerError(detail="DNS is down")))
    outcome = api.get()
    api.reactor.accept().send(OK)
    assert outcome.value.body == b"ok"


def test_a_name_that_resolves_later_is_waited_for() -> None:
    api = Api()
    source: Source[Addr] = Source()
    api.addr = source
    outcome = api.get()
    api.reactor.advance(4.0)
    source.set(Replicas((Address("192.0.2.7", 80),)))
    assert not source.is_observed
    api.reactor.accept().send(OK)
    assert outcome.value.body == b"ok"
    api.assert_nothing_left()


def test_with_fail_fast_a_dead_api_is_not_connected_to_for_a_while_that_grows() -> None:
    api = Api(fail_fast=True)
    outcome = api.get()
    api.reactor.attempts[-1].refuse()
    assert str(outcome.error) == "Api: connection refused"
    for wait in (1.0, 2.0, 4.0):
        count = len(api.reactor.attempts)
        api.reactor.advance(wait - 0.1)
        assert str(api.get().error) == "Api: connection refused", "the same words as before, lest it looks like news"
        assert len(api.reactor.attempts) == count
        api.reactor.advance(0.1)
        outcome = api.get()
        assert outcome.is_open and len(api.reactor.attempts) == count + 1
        api.reactor.attempts[-1].refuse()
    api.reactor.advance(8.0)
    outcome = api.get()
    api.reactor.accept().send(OK)
    assert outcome.value.body == b"ok"


def test_with_fail_fast_a_question_that_is_taken_back_is_no_failed_connect() -> None:
    api = Api(fail_fast=True)
    api.get().deferred.cancel()
    assert api.get().is_open and len(api.reactor.attempts) == 2


def test_idle_connections_are_closed_at_the_end() -> None:
    api = Api()
    outcome, wire = api.asked()
    wire.send(OK)
    assert outcome.value.body == b"ok" and not wire.ended
    api.assert_nothing_left()
    assert wire.ended == "closed"


def test_an_idle_connection_is_closed_after_half_a_minute() -> None:
    api = Api()
    outcome, wire = api.asked()
    wire.send(OK)
    assert outcome.value.body == b"ok"
    api.reactor.advance(30.0)
    api.reactor.advance(0)
    assert wire.ended == "closed"


# --- streams


def test_lines_come_one_after_another_and_then_the_end() -> None:
    api = Api()
    stream, wire = api.streaming(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    first = Outcome(stream.line(10.0))
    wire.send(b"5\r\none\r\n\r\n6\r\n\ntwo\nt\r\n")
    assert first.value == b"one"
    assert [Outcome(stream.line(10.0)).value for _ in range(2)] == [b"", b"two"]
    last = Outcome(stream.line(10.0))
    wire.send(b"4\r\nhree\r\n0\r\n\r\n")
    assert last.value == b"three"
    assert Outcome(stream.line(10.0)).value is None
    stream.close()
    api.assert_nothing_left()


def test_a_stream_without_framing_ends_with_its_connection() -> None:
    api = Api()
    stream, wire = api.streaming()
    wire.send(b"one\ntwo")
    assert Outcome(stream.line(10.0)).value == b"one"
    last = Outcome(stream.line(10.0))
    wire.close()
    assert last.value is None, "what has no end may be a part of something"


def test_a_stream_that_breaks_is_a_broken_connection() -> None:
    api = Api()
    stream, wire = api.streaming(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    wire.send(b"5\r\none\nt\r\n")
    wire.reset()
    assert Outcome(stream.line(10.0)).value == b"one"
    assert isinstance(Outcome(stream.line(10.0)).error, BackendUnreachable)


def test_a_stream_that_is_silent_for_too_long_is_told_and_can_be_closed() -> None:
    api = Api()
    stream, wire = api.streaming()
    waiting = Outcome(stream.line(10.0))
    wire.send(b"no end")
    api.reactor.advance(10.0)
    assert str(waiting.error) == "Api: silent for 10 s"
    stream.close()
    stream.close()
    api.reactor.advance(0)
    assert wire.ended
    api.assert_nothing_left()


def test_a_line_without_end_is_cut_off() -> None:
    api = Api()
    stream, wire = api.streaming()
    wire.send(b"good\n" + b"x" * (LONGEST_LINE + 1))
    assert Outcome(stream.line(10.0)).value == b"good"
    error = Outcome(stream.line(10.0)).error
    assert isinstance(error, BackendMalformed) and f"a line longer than {LONGEST_LINE} bytes" in str(error)
    api.reactor.advance(0)
    assert wire.ended


@pytest.mark.parametrize("line", [b"x" * 999 + b"\n", b"\n"])
def test_a_sender_is_held_back_while_lines_are_not_taken(line: bytes) -> None:
    api = Api()
    stream, wire = api.streaming()
    lines = 3 * MOST_BUFFERED // (len(line) + 64)
    wire.send(line * lines)
    assert wire.is_paused
    taken = 0
    while wire._waiting or stream.is_ready:
        assert Outcome(stream.line(10.0)).value == line[:-1]
        taken += 1
        api.reactor.advance(0)
    assert taken == lines and not wire.is_paused


def test_a_waiting_reader_can_be_taken_back() -> None:
    api = Api()
    stream, wire = api.streaming()
    waiting = Outcome(stream.line(10.0))
    waiting.deferred.cancel()
    assert isinstance(waiting.error, CancelledError)
    wire.send(b"one\n")
    assert Outcome(stream.line(10.0)).value == b"one"
    stream.close()
    api.assert_nothing_left()


def test_a_refused_stream_is_told_with_the_apis_words() -> None:
    api = Api()
    outcome = Outcome(api.client.lines("/watch", seconds=5.0, asked="the watch"))
    wire = api.reactor.accept()
    body = b'{"kind":"Status","message":"' + b"x" * 2000 + b'"}'
    wire.send(b"HTTP/1.1 410 Gone\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    error = outcome.error
    assert isinstance(error, BackendRefused) and error.code == 410
    assert error.reason.startswith('410 ({"kind":"Status","message":"xxx') and error.reason.endswith("...)")
    assert len(error.reason) < 200


@pytest.mark.parametrize("head", [b"HTTP/1.1 403 No\r\nContent-Length: 9999999\r\n\r\n", b"HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nx"])
def test_a_refusal_whose_words_are_long_or_late_is_told_without_them(head: bytes) -> None:
    api = Api()
    outcome = Outcome(api.client.lines("/watch", seconds=5.0))
    wire = api.reactor.accept()
    wire.send(head + b"x" * 20_000 if b"9999999" in head else head)
    api.reactor.advance(5.0)
    assert str(outcome.error) == "Api: 403"
    api.reactor.advance(0)
    assert wire.ended
    api.assert_nothing_left()


def test_a_stream_whose_head_is_late_is_silence() -> None:
    api = Api()
    outcome = Outcome(api.client.lines("/watch", seconds=5.0))
    wire = api.reactor.accept()
    api.reactor.advance(5.0)
    assert str(outcome.error) == "Api: no answer within 5 s"
    api.reactor.advance(0)
    assert wire.ended
    api.assert_nothing_left()


# --- secrets


@pytest.mark.parametrize(
    ("own", "given", "said"),
    [
        ({"X-Consul-Token": "tok-123456"}, {}, b"token tok-123456 has no rights"),
        ({}, {"Authorization": "Bearer tok-123456"}, b"token tok-123456 has no rights"),
        ({}, {"Authorization": "Bearer tok-123456"}, b"bad header: Bearer tok-123456"),
        ({}, {"Authorization": "token=tok-123456"}, b"x" * 100 + b" token=tok-123456"),
    ],
)
def test_what_was_sent_in_headers_is_not_shown_when_the_api_quotes_it(own: dict[str, str], given: dict[str, str], said: bytes) -> None:
    api = Api(headers=own)
    outcome, wire = api.asked(headers=given)
    wire.send(b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
    error = str(api.client.refused(outcome.value))
    assert "123456" not in error and "***" in error


def test_an_empty_header_hides_nothing() -> None:
    api = Api(headers={"X-Empty": ""})
    outcome, wire = api.asked()
    wire.send(b"HTTP/1.1 403 No\r\nContent-Length: 7\r\n\r\nno: x y")
    assert str(api.client.refused(outcome.value)) == "Api: 403 (no: x y)"


def test_words_of_an_api_are_one_printable_line() -> None:
    api = Api()
    outcome, wire = api.asked()
    said = "a\r\n\tb\x00\x1b[31m\u202e\udfffc".encode("utf-8", "surrogatepass")
    wire.send(b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
    error = str(api.client.refused(outcome.value))
    assert error.isprintable() and error.startswith("Api: 500 (a b [31m")


def test_a_page_for_browsers_is_not_shown() -> None:
    api = Api()
    outcome, wire = api.asked()
    wire.send(b"HTTP/1.1 502 Bad\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>")
    assert str(api.client.refused(outcome.value)) == "Api: 502"
