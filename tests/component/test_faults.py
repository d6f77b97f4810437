from __future__ import annotations

import pytest

from fakes.answers import answer_of, assert_nothing_left, pass_time, pending
from transcript import DONE, OK, Mesh, Service, asked, gauge

BY_HEADER = "service: {faults: {header: true}}"


def fault(value: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: web\r\nl5d-fault: " + value + b"\r\n\r\n"


def aborted(mesh: Mesh, requests: int) -> list[bool]:
    """Which of so many requests were answered with an injected error."""
    service: Service = mesh.service("web")
    upstream = None
    found = []
    for number in range(1, requests + 1):
        caller = mesh.caller().get()
        mesh.settle()
        if caller.got:
            found.append(True)
            answer_of(caller, 418)
        else:
            found.append(False)
            upstream = upstream or service.accept()
            upstream.expect(b"GET /", number - sum(found))
            upstream.send(OK)
            caller.expect(DONE)
    return found


def test_a_part_of_the_requests_is_aborted_the_same_one_for_the_same_seed() -> None:
    runs = []
    for _ in range(2):
        with Mesh("service: {faults: {abort: {percent: 30, status: 418}}}") as mesh:
            runs.append(aborted(mesh, 40))
            assert mesh.counter("service/svc/web/faults/aborts") == sum(runs[-1])
            assert mesh.counter("service/svc/web/faults/delays") == 0
            assert mesh.counter("client/#/web/requests") == 40 - sum(runs[-1])
    assert runs[0] == runs[1]
    assert 4 <= sum(runs[0]) <= 20


@pytest.mark.parametrize(("percent", "count"), [(0, 0), (100, 10)])
def test_none_and_all_are_exact(percent: int, count: int) -> None:
    with Mesh(f"service: {{faults: {{abort: {{percent: {percent}, status: 418}}}}}}") as mesh:
        assert sum(aborted(mesh, 10)) == count


def test_an_aborted_request_says_so_and_touches_no_endpoint() -> None:
    with Mesh("service: {faults: {abort: {percent: 100, status: 503}}}") as mesh:
        service = mesh.service("web")
        caller = mesh.caller()
        for _ in range(7):  # more than the failures in a row that make an endpoint dead
            fields, body = answer_of(caller.get(), 503)
            assert body == "injected fault: abort with 503"
            assert fields["l5d-err"] == "injected+fault%3A+abort+with+503"
        assert not service.has_more()
        assert mesh.counter("service/svc/web/faults/aborts") == 7
        assert mesh.counter("service/svc/web/failures") == 7
        assert mesh.counter("service/svc/web/retries/total") == 0
        assert mesh.counter("client/#/web/requests") == 0
        assert mesh.counter("client/#/web/failure_accrual/removals") == 0
        assert caller.ending == ""
        assert_nothing_left(mesh)


def test_a_delayed_request_arrives_later_and_counts_its_whole_time() -> None:
    with Mesh("service: {faults: {delay: {percent: 100, ms: 2000}}}") as mesh:
        service = mesh.service("web")
        caller = mesh.caller().send(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 6\r\n\r\nabc")
        mesh.settle()
        pass_time(mesh, 1.9, step=0.1)
        caller.send(b"def")
        assert not service.has_more()
        pass_time(mesh, 0.2)
        upstream = service.accept()
        assert upstream.expect(b"def").endswith(b"\r\n\r\nabcdef")
        upstream.send(OK)
        caller.expect(DONE)
        mesh.metrics.rotate()
        window = mesh.snapshot().histograms[("rt", "http", "service", "svc/web", "request_latency_ms")]
        assert window.total >= 2000
        client = mesh.snapshot().histograms[("rt", "http", "client", "#/web", "request_latency_ms")]
        assert client.total < 100
        assert mesh.counter("service/svc/web/faults/delays") == 1
        assert_nothing_left(mesh, connections=1)


def test_a_large_body_is_held_back_while_its_request_is_delayed() -> None:
    with Mesh("service: {faults: {delay: {percent: 100, ms: 1000}}}") as mesh:
        service = mesh.service("web")
        size = 30_000_000
        caller = mesh.caller().send(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n" % size)
        sent = caller.offer(b"x" * size)
        assert sent < size
        pass_time(mesh, 1.1)
        upstream = service.accept()
        upstream.last_only = True
        caller.send(b"x" * (size - sent))
        mesh.until(lambda: upstream.total >= size)
        upstream.send(OK)
        caller.expect(DONE)


def test_the_total_limit_counts_injected_delays() -> None:
    with Mesh("service: {totalTimeoutMs: 500, faults: {delay: {percent: 100, ms: 2000}}}") as mesh:
        service = mesh.service("web")
        caller = mesh.caller().get()
        mesh.settle()
        pass_time(mesh, 0.55)
        assert answer_of(caller, 503)[1].endswith("(totalTimeoutMs)")
        pass_time(mesh, 3.0, step=0.5)
        assert not service.has_more()
        assert_nothing_left(mesh)
        assert not caller.got


@pytest.mark.parametrize(
    "router",
    ["service: {faults: {delay: {percent: 100, ms: 2000}}}", "service: {faults: {delay: {percent: 100, ms: 2000}, abort: {percent: 100}}}"],
)
def test_a_caller_that_goes_away_while_delayed_leaves_nothing_behind(router: str) -> None:
    with Mesh(router, "maxConcurrentRequests: 5") as mesh:
        service = mesh.service("web")
        caller = mesh.caller().get()
        mesh.settle()
        assert pending(mesh) == 2
        caller.reset()
        mesh.settle()
        assert pending(mesh) == 0
        pass_time(mesh, 3.0, step=0.5)
        assert not service.has_more()
        assert mesh.counter("service/svc/web/faults/aborts") == 0
        assert mesh.snapshot().gauges[("rt", "http", "server", f"127.0.0.1/{mesh.port}", "request_concurrency")] == 0
        assert_nothing_left(mesh)


def test_a_request_may_ask_for_a_fault_which_is_not_passed_on() -> None:
    with Mesh(BY_HEADER) as mesh:
        service = mesh.service("web")
        caller = mesh.caller().send(fault(b"delay=300ms"))
        mesh.settle()
        assert not service.has_more()
        pass_time(mesh, 0.35)
        upstream = service.accept()
        assert b"l5d-fault" not in upstream.expect(b"\r\n\r\n").lower()
        upstream.send(OK)
        caller.expect(DONE)
        assert answer_of(mesh.caller().send(fault(b"abort=404")), 404)[1] == "injected fault: abort with 404"
        late = mesh.caller().send(fault(b"delay=300ms; abort=500"))
        mesh.settle()
        assert not late.got
        pass_time(mesh, 0.35)
        answer_of(late, 500)
        assert mesh.counter("service/svc/web/faults/delays") == 2
        assert mesh.counter("service/svc/web/faults/aborts") == 2


@pytest.mark.parametrize("value", [b"", b"abort", b"abort=999", b"delay=1s", b"abort=503x", b"delay=-5ms", b"\xff\xfe"])
def test_a_fault_that_cannot_be_read_is_none(value: bytes) -> None:
    with Mesh(BY_HEADER) as mesh:
        caller, upstream, _ = asked(mesh, fault(value))
        assert b"l5d-fault" not in upstream.got.lower()
        upstream.send(OK)
        caller.expect(DONE)


def test_the_field_does_nothing_and_passes_where_it_is_not_asked_for() -> None:
    with Mesh() as mesh:
        caller, upstream, _ = asked(mesh, fault(b"abort=503"))
        assert b"l5d-fault: abort=503" in upstream.got
        upstream.send(OK)
        caller.expect(DONE)


def test_callers_that_are_not_trusted_ask_in_vain() -> None:
    with Mesh(BY_HEADER, "clearContext: true") as mesh:
        caller, upstream, _ = asked(mesh, fault(b"abort=503"))
        assert b"l5d-fault" not in upstream.got
        upstream.send(OK)
        caller.expect(DONE)
        assert mesh.counter("service/svc/web/faults/aborts") == 0


def test_faults_are_those_of_their_name_only() -> None:
    router = "service:\n  kind: io.l5d.static\n  configs:\n  - {prefix: /svc/ill, faults: {abort: {percent: 100, status: 418}}}"
    with Mesh(router) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(OK)
        caller.expect(DONE)
        mesh.names.lead("ill", 1)
        answer_of(mesh.caller().get(host=b"ill"), 418)
        assert gauge(mesh, "connections") == 1
