from __future__ import annotations

import re

import pytest

from fakes.answers import BAD, FAILED, GET, answer_of, assert_nothing_left, pass_time
from transcript import DONE, OK, Mesh, asked

READS = ("GET", "HEAD", "OPTIONS", "TRACE")
IDEMPOTENT = (*READS, "PUT", "DELETE")
ALL = (*IDEMPOTENT, "POST", "PATCH")
RETRIED = {
    "nonRetryable5XX": (),
    "retryableRead5XX": READS,
    "retryableIdempotent5XX": IDEMPOTENT,
    "retryableAll5XX": ALL,
    "allSuccessful": (),
}
BODIES = {
    "small": (b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "small and chunked": (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"\r\n0\r\n\r\n"),
    "large": (b"Content-Length: 6000\r\n\r\n" + b"x" * 5999 + b"!", b"!"),
    "large and chunked": (b"Transfer-Encoding: chunked\r\n\r\n1770\r\n" + b"x" * 5999 + b"!\r\n0\r\n\r\n", b"\r\n0\r\n\r\n"),
}


def service_of(classifier: str, more: str = "") -> str:
    return f"service:\n  responseClassifier: {{kind: io.l5d.http.{classifier}}}\n{more}"


def retrying(more: str = "") -> str:
    return service_of("retryableRead5XX", more)


def check(mesh: Mesh, request: bytes, mark: bytes, is_retried: bool) -> None:
    """The first answer is a failure; a retry arrives whole and its answer is the caller's."""
    caller, upstream, _ = asked(mesh, request, mark)
    first = upstream.take()
    upstream.send(FAILED if not request.startswith(b"HEAD") else FAILED[: -len(b"fail")])
    if is_retried:
        again = upstream.expect(mark)
        assert without_span(again) == without_span(first)
        upstream.send(OK if not request.startswith(b"HEAD") else OK[:-2])
        caller.expect(b"HTTP/1.1 200 ")
    else:
        caller.expect(b"HTTP/1.1 500 ")
        mesh.settle()
        assert not upstream.got
    assert mesh.counter("service/svc/web/retries/total") == int(is_retried)
    assert_nothing_left(mesh, connections=1)


def without_span(request: bytes) -> bytes:
    """The bytes of a request but for the span of its attempt."""
    return re.sub(rb"(l5d-ctx-trace: ).{11}", rb"\1", request)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("classifier", RETRIED)
def test_a_5xx_is_retried_as_classifier_and_method_say(classifier: str, method: str) -> None:
    with Mesh(service_of(classifier)) as mesh:
        check(mesh, b"%b / HTTP/1.1\r\nHost: web\r\n\r\n" % method.encode(), b"\r\n\r\n", method in RETRIED[classifier])


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
@pytest.mark.parametrize("classifier", RETRIED)
def test_a_request_with_a_body_is_retried_if_the_body_was_kept(classifier: str, method: str, body: str) -> None:
    coded, mark = BODIES[body]
    with Mesh(service_of(classifier)) as mesh:
        is_kept = body.startswith("small")
        check(mesh, b"%b / HTTP/1.1\r\nHost: web\r\n%b" % (method.encode(), coded), mark, is_kept and method in RETRIED[classifier])


@pytest.mark.parametrize(("kilobytes", "is_kept"), [(6, True), (5, False), (0, False)])
def test_bodies_are_kept_up_to_the_length_above_which_they_are_streamed(kilobytes: int, is_kept: bool) -> None:
    coded, mark = BODIES["large"]
    with Mesh(f"streamAfterContentLengthKB: {kilobytes}\n{service_of('retryableAll5XX')}") as mesh:
        check(mesh, b"POST / HTTP/1.1\r\nHost: web\r\n" + coded, mark, is_kept)


def test_a_body_that_came_in_pieces_is_sent_again_whole_with_its_trailers() -> None:
    with Mesh(service_of("retryableAll5XX")) as mesh:
        start = b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        caller, upstream, _ = asked(mesh, start, b"abc\r\n")
        caller.send(b"2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n")
        upstream.expect(b"X-Sum: 5\r\n\r\n")
        upstream.take()
        upstream.send(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\nX-Other: 1\r\n\r\n")
        again = upstream.expect(b"0\r\nX-Sum: 5\r\n\r\n")
        assert again.endswith(b"\r\n\r\n5\r\nabcde\r\n0\r\nX-Sum: 5\r\n\r\n")
        assert b"X-Other" not in again
        upstream.send(OK)
        caller.expect(DONE)
        assert_nothing_left(mesh, connections=1)


def test_a_request_whose_body_has_not_all_arrived_is_not_retried() -> None:
    with Mesh(service_of("retryableAll5XX")) as mesh:
        caller, upstream, _ = asked(mesh, b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 6\r\n\r\nabc", b"abc")
        upstream.send(FAILED)
        caller.expect(BAD)
        assert caller.expect_end() == "eof"
        assert mesh.counter("service/svc/web/retries/total") == 0
        assert_nothing_left(mesh)


# --- what is a failure worth another attempt


@pytest.mark.parametrize(
    "broken", [b"", b"HTTP/1.1 2", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"]
)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_answer_that_breaks_off_or_is_none_is_retried(broken: bytes, how: str) -> None:
    with Mesh(retrying()) as mesh:
        caller, upstream, service = asked(mesh)
        if broken:
            upstream.send(broken)
        getattr(upstream, how)()
        second = service.accept()
        second.expect(b"GET /")
        second.send(OK)
        caller.expect(DONE)
        assert caller.got.startswith(b"HTTP/1.1 200 ")
        assert mesh.counter("service/svc/web/retries/total") == 1
        assert_nothing_left(mesh, connections=1)


def test_a_post_that_got_no_answer_is_not_sent_again() -> None:
    with Mesh(retrying()) as mesh:
        caller, upstream, service = asked(mesh, b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n")
        upstream.reset()
        fields, _ = answer_of(caller, 502)
        assert "l5d-retryable" not in fields
        assert not service.has_more()


@pytest.mark.parametrize(
    "part", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab"]
)
def test_nothing_is_sent_again_once_an_answer_has_begun(part: bytes) -> None:
    with Mesh(retrying()) as mesh:
        caller, upstream, service = asked(mesh)
        upstream.send(part)
        caller.expect(b"ab")
        upstream.reset()
        assert caller.expect_end() == "reset"
        assert not service.has_more()
        assert mesh.counter("service/svc/web/retries/total") == 0
        assert mesh.counter("service/svc/web/failures") == 1
        assert_nothing_left(mesh)


def test_the_rest_of_an_answer_that_is_not_used_reaches_nobody() -> None:
    with Mesh(retrying()) as mesh:
        caller, upstream, service = asked(mesh)
        upstream.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nbegin")
        second = service.accept()
        second.expect(b"GET /")
        upstream.expect_end()
        second.send(OK)
        assert caller.expect(DONE).startswith(b"HTTP/1.1 200 ")
        assert b"begin" not in caller.got
        assert_nothing_left(mesh, connections=1)


@pytest.mark.parametrize("status", [400, 404, 429, 301, 200])
def test_what_is_no_5xx_is_a_success_and_not_retried(status: int) -> None:
    with Mesh(service_of("retryableAll5XX")) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(b"HTTP/1.1 %d Some\r\nContent-Length: 2\r\n\r\nok" % status)
        assert b"l5d-success-class: 1.0" in caller.expect(DONE)
        assert mesh.counter("service/svc/web/success") == mesh.counter("client/#/web/success") == 1


@pytest.mark.parametrize("value", [b"true", b"TRUE"])
@pytest.mark.parametrize(("classifier", "is_retried"), [("nonRetryable5XX", True), ("retryableRead5XX", True), ("allSuccessful", False)])
def test_a_post_is_retried_when_the_answer_says_that_it_was_not_delivered(classifier: str, is_retried: bool, value: bytes) -> None:
    with Mesh(service_of(classifier)) as mesh:
        caller, upstream, _ = asked(mesh, b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nhi", b"hi")
        upstream.send(b"HTTP/1.1 503 No\r\nl5d-retryable: %b\r\nContent-Length: 4\r\n\r\nfail" % value)
        if is_retried:
            upstream.expect(b"POST /", 2)
            upstream.send(OK)
            assert caller.expect(DONE).startswith(b"HTTP/1.1 200 ")
        else:
            assert b"l5d-success-class: 1.0" in caller.expect(BAD)
            assert upstream.got.count(b"POST /") == 1


def test_saying_that_it_was_not_delivered_changes_nothing_for_a_success() -> None:
    with Mesh() as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(b"HTTP/1.1 404 No\r\nl5d-retryable: true\r\nContent-Length: 2\r\n\r\nok")
        caller.expect(DONE)
        assert upstream.got.count(b"GET /") == 1


# --- backoff


def test_retries_are_immediate_without_a_backoff() -> None:
    with Mesh(retrying()) as mesh:
        _, upstream, _ = asked(mesh)
        at = mesh.clock.seconds()
        for number in range(2, 6):
            upstream.send(FAILED)
            upstream.expect(b"GET /", number)
        assert mesh.clock.seconds() == at


def test_jittered_backoffs_lie_between_their_bounds_and_begin_anew_for_each_request() -> None:
    with Mesh(retrying("  retries: {backoff: {kind: jittered, minMs: 200, maxMs: 3000}}")) as mesh:
        caller, upstream, _ = asked(mesh)
        for number in range(1, 4):
            waits = []
            for _ in range(6):
                seen = upstream.got.count(b"GET /")
                at = mesh.clock.seconds()
                upstream.send(FAILED)
                mesh.settle()
                while upstream.got.count(b"GET /") == seen:
                    mesh.clock.advance(0.02)
                    mesh.settle()
                    assert mesh.clock.seconds() - at < 3.1
                waits.append(mesh.clock.seconds() - at)
            assert min(waits) >= 0.2
            assert waits[0] <= 0.2 * 3 + 0.05
            assert len({round(wait, 1) for wait in waits}) > 1
            upstream.send(OK)
            caller.expect(DONE, number)
            caller.send(GET)
            upstream.expect(b"GET /", 7 * number + 1)


def test_a_caller_that_goes_away_during_a_backoff_leaves_nothing_behind() -> None:
    with Mesh(retrying("  retries: {backoff: {kind: constant, ms: 1000}}")) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(FAILED)
        mesh.settle()
        caller.reset()
        pass_time(mesh, 2.0, step=0.5)
        assert upstream.got.count(b"GET /") == 1
        assert_nothing_left(mesh, connections=1)


# --- what is counted and written


def test_one_request_retried_once_counts_once_for_its_service_and_twice_for_its_client() -> None:
    with Mesh(retrying()) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(FAILED)
        upstream.expect(b"GET /", 2)
        upstream.send(OK)
        caller.expect(DONE)
        service = {name: mesh.counter(f"service/svc/web/{name}") for name in ("requests", "success", "failures", "retries/total")}
        assert service == {"requests": 1, "success": 1, "failures": 0, "retries/total": 1}
        names = ("requests", "success", "failures", "status/500", "status/200", "status/5XX", "status/2XX")
        assert [mesh.counter(f"client/#/web/{name}") for name in names] == [2, 1, 1, 1, 1, 1, 1]
        through = [mesh.counter(f"client/#/web/service/svc/web/{name}") for name in ("requests", "success", "failures")]
        assert through == [2, 1, 1]
        server = [mesh.counter(f"server/127.0.0.1/{mesh.port}/{name}") for name in ("requests", "success", "failures")]
        assert server == [1, 1, 0]


def test_each_request_records_its_number_of_retries() -> None:
    with Mesh(retrying()) as mesh:
        caller, upstream, _ = asked(mesh)
        for retries in (0, 2, 1):
            for _ in range(retries):
                seen = upstream.got.count(b"GET /")
                upstream.send(FAILED)
                upstream.expect(b"GET /", seen + 1)
            answers = caller.got.count(DONE)
            upstream.send(OK)
            caller.expect(DONE, answers + 1)
            seen = upstream.got.count(b"GET /")
            caller.send(GET)
            upstream.expect(b"GET /", seen + 1)
        mesh.metrics.rotate()
        window = mesh.snapshot().histograms[("rt", "http", "service", "svc/web", "retries", "per_request")]
        assert (window.count, window.total) == (3, 3)


def test_every_attempt_has_each_field_once_and_a_span_of_its_own() -> None:
    with Mesh(retrying(), "") as mesh:
        fields = b"Via: 1.1 edge\r\nX-Mine: 1\r\nl5d-dtab: /a => /b\r\nl5d-ctx-deadline: 1 9000000000000000000\r\n"
        _, upstream, _ = asked(mesh, b"GET / HTTP/1.1\r\nHost: web\r\n" + fields + b"\r\n")
        attempts = [upstream.take()]
        for _ in range(3):
            upstream.send(FAILED)
            attempts.append(upstream.expect(b"\r\n\r\n"))
            upstream.take()
        assert len(set(attempts)) == 4
        assert len({without_span(attempt) for attempt in attempts}) == 1
        names = [line.partition(b":")[0].lower() for line in attempts[-1].split(b"\r\n")[1:-2]]
        assert sorted(names) == sorted(set(names))
        assert {b"via", b"l5d-dst-service", b"l5d-dst-client", b"l5d-ctx-trace", b"l5d-ctx-dtab", b"l5d-ctx-deadline", b"l5d-reqid"} < set(
            names
        )
        assert b"\r\nVia: 1.1 edge, 1.1 linkerd\r\n" in attempts[-1]


@pytest.mark.parametrize(
    ("classifier", "status", "written"),
    [("nonRetryable5XX", 500, b"0.0"), ("allSuccessful", 500, b"1.0"), ("nonRetryable5XX", 404, b"1.0")],
)
def test_the_verdict_is_written_in_place_of_what_the_service_says_and_counted_by_the_server(
    classifier: str, status: int, written: bytes
) -> None:
    with Mesh(service_of(classifier)) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(b"HTTP/1.1 %d Some\r\nl5d-success-class: 0.5\r\nContent-Length: 2\r\n\r\nok" % status)
        head = caller.expect(DONE)
        assert head.lower().count(b"l5d-success-class") == 1
        assert b"\r\nl5d-success-class: " + written + b"\r\n" in head
        assert mesh.counter(f"server/127.0.0.1/{mesh.port}/success") == int(written == b"1.0")
        assert mesh.counter("client/#/web/success") == int(written == b"1.0")


def test_the_answer_of_the_last_attempt_is_the_callers_with_one_via() -> None:
    with Mesh(retrying("  retries: {budget: {ttlSecs: 1, minRetriesPerSec: 1, percentCanRetry: 0}}")) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(FAILED.replace(b"fail", b"one!"))
        upstream.expect(b"GET /", 2)
        upstream.send(FAILED.replace(b"Internal", b"Second"))
        head = caller.expect(BAD)
        assert head.startswith(b"HTTP/1.1 500 Second Server Error\r\n")
        assert head.count(b"Via: 1.1 linkerd") == 1
        assert head.count(b"l5d-success-class: 0.0") == 1


def test_a_retry_goes_where_the_name_leads_by_then() -> None:
    with Mesh(retrying("  retries: {backoff: {kind: constant, ms: 500}}")) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(FAILED)
        mesh.settle()
        other = mesh.service("web")
        pass_time(mesh, 0.6)
        second = other.accept()
        second.expect(b"GET /")
        second.send(OK)
        caller.expect(DONE)
        assert upstream.expect_end()
        assert_nothing_left(mesh, connections=1)
