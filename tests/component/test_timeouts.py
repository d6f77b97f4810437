from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest

from fakes.answers import GET, answer_of, assert_nothing_left, pass_time
from meshgw.core.address import Address, Replicas
from meshgw.naming.path import Path
from transcript import DONE, OK, Mesh, asked

TOTAL = (
    "exceeded 500.milliseconds to /svc/web while waiting for a response for the request, including retries (if applicable) (totalTimeoutMs)"
)
ATTEMPT = (
    "exceeded 500.milliseconds to /svc/web while waiting for a response for an individual request, "
    "excluding retries (requestAttemptTimeoutMs)"
)
SERVER = "exceeded 500.milliseconds to /svc/web while waiting for a response for the request at the server (timeoutMs)"
DEADLINE = "the request's deadline passed while waiting for a response (l5d-ctx-deadline)"
LIMITS = {
    "total": ("service: {totalTimeoutMs: 500}", "", TOTAL),
    "attempt": ("client: {requestAttemptTimeoutMs: 500}", "", ATTEMPT),
    "server": ("", "timeoutMs: 500", SERVER),
    "deadline": ("", "", DEADLINE),
}
NANOS = 1_000_000_000


def deadline(mesh: Mesh, seconds: float) -> bytes:
    now = int(mesh.clock.seconds() * NANOS)
    return b"l5d-ctx-deadline: %d %d\r\n" % (now, now + int(seconds * NANOS))


def asking(mesh: Mesh, kind: str) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: web\r\n" + (deadline(mesh, 0.5) if kind == "deadline" else b"") + b"\r\n"


@pytest.fixture(params=LIMITS)
def limited(request: pytest.FixtureRequest) -> Iterator[tuple[Mesh, str, str]]:
    """A mesh with one limit of 500 ms, which one, and its message."""
    router, server, text = LIMITS[request.param]
    with Mesh(router, server) as mesh:
        yield mesh, request.param, text


def test_a_limit_is_answered_503_with_its_words_and_frees_everything(limited: tuple[Mesh, str, str]) -> None:
    mesh, kind, text = limited
    caller, upstream, service = asked(mesh, asking(mesh, kind))
    pass_time(mesh, 0.49)
    assert not caller.got
    pass_time(mesh, 0.04)
    fields, body = answer_of(caller, 503)
    assert body == text
    assert fields["l5d-err"].startswith(text.split(" ")[0] + "+")
    assert "l5d-retryable" not in fields, "the service may have worked on it"
    upstream.expect_end()
    assert_nothing_left(mesh)
    caller.send(GET)
    service.accept().send(OK)
    caller.expect(DONE)
    assert_nothing_left(mesh, connections=1)


def test_a_limit_ends_with_the_head_of_the_answer(limited: tuple[Mesh, str, str]) -> None:
    mesh, kind, _ = limited
    caller, upstream, _ = asked(mesh, asking(mesh, kind))
    upstream.send(OK[:-1])
    caller.expect(b"\r\n\r\no")
    pass_time(mesh, 3.0, step=0.5)
    upstream.send(OK[-1:])
    caller.expect(DONE)
    assert_nothing_left(mesh, connections=1)


def test_a_limit_frees_the_place_of_a_request_that_waits_for_a_connection(limited: tuple[Mesh, str, str]) -> None:
    _, kind, text = limited
    router, server, _ = LIMITS[kind]
    pool = "hostConnectionPool: {maxSize: 1}"
    router = router.replace("client: {", f"client: {{{pool}, ") if "client" in router else f"{router}\nclient: {{{pool}}}"
    with Mesh(router, server) as mesh:
        service = mesh.service("web", "slow")
        mesh.names.tree(Path.of("svc", "web")).set(mesh.names.leaf("/#/slow"))
        first = mesh.caller().get(host=b"slow")
        upstream = service.accept()
        upstream.send(OK[:-1])  # its limit is over, its connection is not free
        first.expect(b"\r\n\r\no")
        waiting = mesh.caller().send(asking(mesh, kind))
        mesh.settle()
        pass_time(mesh, 0.6)
        assert answer_of(waiting, 503)[1] == text
        upstream.send(OK[-1:])
        first.expect(DONE)
        assert_nothing_left(mesh, connections=1)
        assert upstream.ending == ""


def test_the_server_limit_names_no_service_before_one_is_known() -> None:
    with Mesh("service: {faults: {delay: {percent: 100, ms: 5000}}}", "timeoutMs: 200") as mesh:
        mesh.service("web")
        caller = mesh.caller().get()
        mesh.settle()
        pass_time(mesh, 0.3)
        assert answer_of(caller, 503)[1].startswith("exceeded 200.milliseconds to /svc/web ")
        assert_nothing_left(mesh)


def test_an_attempt_that_took_too_long_is_retried_by_a_retryable_classifier() -> None:
    router = "client: {requestAttemptTimeoutMs: 500}\nservice: {responseClassifier: {kind: io.l5d.http.retryableRead5XX}}"
    with Mesh(router) as mesh:
        caller, upstream, service = asked(mesh)
        pass_time(mesh, 0.55)
        upstream.expect_end()
        second = service.accept()
        second.expect(b"\r\n\r\n")
        second.send(OK)
        caller.expect(DONE)
        assert caller.got.startswith(b"HTTP/1.1 200 ")
        assert mesh.counter("client/#/web/requests") == 2
        assert mesh.counter("client/#/web/failures/AttemptTimeout") == 1
        assert mesh.counter("service/svc/web/success") == 1
        assert_nothing_left(mesh, connections=1)


def test_an_attempt_has_its_whole_time_on_each_retry() -> None:
    router = "client: {requestAttemptTimeoutMs: 500}\nservice: {responseClassifier: {kind: io.l5d.http.retryableRead5XX}}"
    with Mesh(router) as mesh:
        caller, _, service = asked(mesh)
        for _ in range(3):
            pass_time(mesh, 0.55)
            upstream = service.accept()
            upstream.expect(b"\r\n\r\n")
        pass_time(mesh, 0.4)
        upstream.send(OK)
        caller.expect(DONE)
        assert mesh.counter("service/svc/web/retries/total") == 3


def test_the_total_limit_covers_all_attempts_and_the_waits_between_them() -> None:
    router = (
        "service:\n  totalTimeoutMs: 500\n  responseClassifier: {kind: io.l5d.http.retryableRead5XX}\n"
        "  retries: {backoff: {kind: constant, ms: 400}}"
    )
    with Mesh(router) as mesh:
        caller, upstream, service = asked(mesh)
        pass_time(mesh, 0.2)
        upstream.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
        mesh.settle()
        pass_time(mesh, 0.25)
        assert not caller.got
        pass_time(mesh, 0.1)
        assert answer_of(caller, 503)[1] == TOTAL
        pass_time(mesh, 1.0)
        assert not service.has_more()
        assert upstream.got.count(b"GET /") == 1
        assert_nothing_left(mesh, connections=1)


def test_a_limit_of_the_total_below_zero_is_none() -> None:
    with Mesh("service: {totalTimeoutMs: 0}") as mesh:
        caller, upstream, _ = asked(mesh)
        pass_time(mesh, 60.0, step=10.0)
        upstream.send(OK)
        caller.expect(DONE)


# --- connecting and binding


@contextlib.contextmanager
def unreachable() -> Iterator[int]:
    """A port of loopback where connects neither succeed nor fail: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_connect_that_takes_too_long_goes_to_another_endpoint() -> None:
    with Mesh("client: {connectTimeoutMs: 200}") as mesh, unreachable() as port:
        service = mesh.service()
        mesh.names.lead("web", port, service.port)
        for _ in range(6):  # whichever endpoint is drawn first
            caller = mesh.caller().get()
            mesh.settle()
            pass_time(mesh, 0.9)
            upstream = service.accept()
            upstream.expect(b"GET /")
            upstream.send(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            caller.expect(DONE)
        assert mesh.counter("client/#/web/service_creation/failures") >= 1
        assert_nothing_left(mesh)


def test_connects_that_all_take_too_long_are_told_as_502_with_the_reason() -> None:
    with Mesh("client: {connectTimeoutMs: 200}") as mesh, unreachable() as port:
        mesh.names.lead("web", port)
        caller = mesh.caller().get()
        mesh.settle()
        pass_time(mesh, 0.8)
        text = answer_of(caller, 502)[1]
        assert text.startswith(f"Unable to establish connection to 127.0.0.1:{port}.\n\nservice name: /svc/web\nclient name: /#/web\n")
        assert text.endswith("reason: connect timed out after 0.2 s")
        assert_nothing_left(mesh)


def test_the_binding_limit_holds_for_the_name_for_addresses_and_for_a_connection() -> None:
    with Mesh("bindingTimeoutMs: 300\nclient: {hostConnectionPool: {maxSize: 1}}") as mesh:
        name = mesh.caller().get(host=b"nobody")
        mesh.settle()
        pass_time(mesh, 0.35)
        beginning = "Exceeded 0.3.seconds binding timeout while resolving name: /svc/nobody"
        assert answer_of(name, 502)[1].startswith(beginning)

        mesh.names.tree(Path.of("svc", "late")).set(mesh.names.leaf("/#/late"))
        late = mesh.caller().get(host=b"late")
        mesh.settle()
        pass_time(mesh, 0.35)
        assert answer_of(late, 502)[1].endswith("resolving name: /svc/late (waiting for addresses of /#/late)")

        caller, upstream, service = asked(mesh)
        waiting = mesh.caller().get()
        mesh.settle()
        pass_time(mesh, 0.35)
        text = answer_of(waiting, 502)[1]
        assert text.endswith(f"/svc/web (waiting for a connection to 127.0.0.1:{service.port} for client /#/web)")
        upstream.send(OK)
        caller.expect(DONE)
        assert_nothing_left(mesh, connections=1)


def test_a_retry_has_the_whole_binding_limit_again() -> None:
    router = "bindingTimeoutMs: 300\nservice: {responseClassifier: {kind: io.l5d.http.retryableRead5XX}}"
    with Mesh(router) as mesh:
        caller, upstream, _ = asked(mesh)
        pass_time(mesh, 5.0, step=1.0)
        mesh.names.addr("/#/web").set(Replicas((Address("127.0.0.1", 1),)))
        other = mesh.service()
        mesh.names.addr("/#/web").set(Replicas((Address("127.0.0.1", other.port),)))
        upstream.reset()
        second = other.accept()
        second.expect(b"GET /")
        second.send(OK)
        caller.expect(DONE)
        assert_nothing_left(mesh, connections=1)


# --- deadlines


def test_a_request_whose_deadline_has_passed_is_not_sent() -> None:
    with Mesh() as mesh:
        service = mesh.service("web")
        caller = mesh.caller().send(b"GET / HTTP/1.1\r\nHost: web\r\n" + deadline(mesh, -2.0) + b"\r\n")
        fields, body = answer_of(caller, 503)
        assert body == "the request's deadline passed 2.000 s before it arrived here (l5d-ctx-deadline)"
        assert not service.has_more()
        assert mesh.counter("client/#/web/connects") == 0
        assert "l5d-retryable" not in fields
        assert_nothing_left(mesh)


@pytest.mark.parametrize(("asked_for", "passed_on"), [(None, 2.0), (1.0, 1.0), (9.0, 2.0)])
def test_the_deadline_passed_on_is_narrowed_by_the_total_limit(asked_for: float | None, passed_on: float) -> None:
    with Mesh("service: {totalTimeoutMs: 2000}") as mesh:
        line = b"" if asked_for is None else deadline(mesh, asked_for)
        _, upstream, _ = asked(mesh, b"GET / HTTP/1.1\r\nHost: web\r\n" + line + b"\r\n")
        lines = [line for line in upstream.got.split(b"\r\n") if line.startswith(b"l5d-ctx-deadline: ")]
        assert len(lines) == 1
        stamp, ends = (int(word) / NANOS for word in lines[0].split()[1:])
        assert stamp == mesh.clock.seconds()
        assert ends == pytest.approx(mesh.clock.seconds() + passed_on, abs=1e-6)


def test_a_deadline_passes_unchanged_where_nothing_narrows_it() -> None:
    with Mesh() as mesh:
        line = deadline(mesh, 3.0)
        _, upstream, _ = asked(mesh, b"GET / HTTP/1.1\r\nHost: web\r\n" + line + b"\r\n")
        assert upstream.got.count(b"\r\n" + line) == 1


def test_deadlines_in_the_far_future_leave_no_timers_behind() -> None:
    with Mesh() as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(OK)
        caller.expect(DONE)
        pass_time(mesh, 40.0, step=5.0)
        before = len(mesh.wheel._slots)
        for number in range(20):
            caller.send(b"GET / HTTP/1.1\r\nHost: web\r\n" + deadline(mesh, 1e6 + number) + b"\r\n")
            upstream.expect(b"GET /", number + 2)
            upstream.send(OK)
            caller.expect(DONE, number + 2)
        pass_time(mesh, 40.0, step=5.0)
        assert len(mesh.wheel._slots) <= before


def test_the_caller_that_is_gone_is_not_answered_when_its_limit_passes(limited: tuple[Mesh, str, str]) -> None:
    mesh, kind, _ = limited
    caller, upstream, _ = asked(mesh, asking(mesh, kind))
    caller.reset()
    upstream.expect_end()
    pass_time(mesh, 1.0)
    assert_nothing_left(mesh)
    counted = mesh.snapshot().counters
    assert sum(value for names, value in counted.items() if names[-2:-1] == ("failures",) and names[-1].endswith("Timeout")) == 0


@pytest.mark.parametrize("kind", ["total", "attempt", "server"])
def test_limits_of_pipelined_requests_count_from_their_own_begin(kind: str) -> None:
    router, server, _ = LIMITS[kind]
    with Mesh(router, server) as mesh:
        caller, upstream, _ = asked(mesh, GET * 3)
        for number in (1, 2, 3):
            upstream.expect(b"GET /", number)
            pass_time(mesh, 0.4)
            upstream.send(OK)
            caller.expect(DONE, number)
        assert [part[:3] for part in caller.got.split(b"HTTP/1.1 ")[1:]] == [b"200"] * 3


def test_backoffs_are_not_part_of_an_attempt() -> None:
    router = (
        "client: {requestAttemptTimeoutMs: 300}\nservice:\n  responseClassifier: {kind: io.l5d.http.retryableRead5XX}\n"
        "  retries: {backoff: {kind: constant, ms: 2000}}"
    )
    with Mesh(router) as mesh:
        caller, upstream, _ = asked(mesh)
        times = []
        for number in range(2, 4):
            upstream.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
            mesh.settle()
            pass_time(mesh, 1.9)
            assert upstream.got.count(b"GET /") == number - 1
            pass_time(mesh, 0.15)
            assert upstream.got.count(b"GET /") == number
            times.append(mesh.clock.seconds())
        assert all(later - earlier >= 2.0 for earlier, later in pairwise(times))
        upstream.send(OK)
        caller.expect(DONE)
