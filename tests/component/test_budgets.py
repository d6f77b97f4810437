from __future__ import annotations

import pytest

from fakes.answers import BAD, FAILED, GET, answer_of, assert_nothing_left, pass_time
from transcript import DONE, OK, Mesh, Service, Side, asked, gauge

NACK = b"HTTP/1.1 503 Busy\r\nfinagle-http-nack: true\r\nContent-Length: 4\r\n\r\nfail"
POST = b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nhi"


def retrying(budget: str, more: str = "") -> str:
    return f"service:\n  responseClassifier: {{kind: io.l5d.http.retryableRead5XX}}\n  retries: {{budget: {budget}}}\n{more}"


def service_budget(mesh: Mesh) -> float:
    return mesh.snapshot().gauges[("rt", "http", "service", "svc/web", "retries", "budget")]


def failing(mesh: Mesh, upstream: Side, caller: Side) -> int:
    """Answer each attempt of a request with a failure until the caller gets it; how many attempts there were."""
    attempts = 0
    while BAD not in caller.got:
        attempts += 1
        upstream.expect(b"GET /", attempts)
        upstream.send(FAILED)
        mesh.settle()
        assert attempts < 100
    upstream.take()
    caller.take()
    return attempts


def test_the_last_failure_is_the_callers_when_the_budget_is_used_up() -> None:
    with Mesh(retrying("{ttlSecs: 2, minRetriesPerSec: 1, percentCanRetry: 0}")) as mesh:
        caller, upstream, _ = asked(mesh)
        assert service_budget(mesh) == 2
        assert failing(mesh, upstream, caller) == 3
        assert service_budget(mesh) == 0
        assert mesh.counter("service/svc/web/retries/total") == 2
        assert mesh.counter("service/svc/web/retries/budget_exhausted") == 1
        assert_nothing_left(mesh, connections=1)


def test_each_request_of_the_last_seconds_fills_the_budget_by_its_part() -> None:
    with Mesh(retrying("{ttlSecs: 10, minRetriesPerSec: 0, percentCanRetry: 0.5}")) as mesh:
        caller, upstream, _ = asked(mesh)
        for number in range(1, 8):
            upstream.send(OK)
            caller.expect(DONE, number)
            caller.send(GET)
            upstream.expect(b"GET /", number + 1)
        assert service_budget(mesh) == 4
        upstream.got = b"GET /"
        caller.take()
        assert failing(mesh, upstream, caller) == 5
        pass_time(mesh, 12.0, step=1.0)
        assert service_budget(mesh) == 0


def test_a_budget_of_nothing_never_retries() -> None:
    with Mesh(retrying("{ttlSecs: 10, minRetriesPerSec: 0, percentCanRetry: 0}")) as mesh:
        caller, upstream, _ = asked(mesh)
        assert failing(mesh, upstream, caller) == 1
        assert mesh.counter("service/svc/web/retries/budget_exhausted") == 1


def test_the_default_budget_allows_ten_retries_each_second_of_ten() -> None:
    with Mesh("service: {responseClassifier: {kind: io.l5d.http.retryableRead5XX}}") as mesh:
        asked(mesh)
        assert service_budget(mesh) == 100
        assert gauge(mesh, "retries/budget") == 100


def test_setting_one_number_of_a_budget_keeps_the_others() -> None:
    with Mesh(retrying("{minRetriesPerSec: 3}")) as mesh:
        asked(mesh)
        assert service_budget(mesh) == 30


def test_names_have_budgets_of_their_own() -> None:
    with Mesh(retrying("{ttlSecs: 1, minRetriesPerSec: 1, percentCanRetry: 0}")) as mesh:
        caller, upstream, _ = asked(mesh)
        failing(mesh, upstream, caller)
        other = mesh.service("other")
        second = mesh.caller().get(host=b"other")
        assert failing(mesh, other.accept(), second) == 2


def test_an_error_that_finds_no_budget_is_answered_as_it_is() -> None:
    with Mesh(retrying("{minRetriesPerSec: 0, percentCanRetry: 0}")) as mesh:
        caller, upstream, service = asked(mesh)
        upstream.reset()
        assert "closed the connection before answering" in answer_of(caller, 502)[1]
        assert not service.has_more()
        assert mesh.counter("service/svc/web/retries/budget_exhausted") == 1


def test_both_numbers_zero_and_a_wait_are_no_contradiction() -> None:
    with Mesh(retrying("{ttlSecs: 1, minRetriesPerSec: 1, percentCanRetry: 0}, backoff: {kind: constant, ms: 100}")) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(FAILED)
        mesh.settle()
        pass_time(mesh, 0.2)
        upstream.expect(b"GET /", 2)
        upstream.send(FAILED)
        caller.expect(BAD)


# --- requeues


def two(mesh: Mesh) -> tuple[Service, Service]:
    services = mesh.service(), mesh.service()
    mesh.names.lead("web", *(service.port for service in services))
    return services


def test_a_nack_is_requeued_at_once_whatever_the_method_and_classifier() -> None:
    with Mesh() as mesh:
        caller, upstream, _ = asked(mesh, POST, b"hi")
        upstream.send(NACK)
        upstream.expect(b"\r\n\r\nhi", 2)
        upstream.send(OK)
        assert caller.expect(DONE).startswith(b"HTTP/1.1 200 ")
        assert mesh.counter("client/#/web/retries/requeues") == 1
        assert mesh.counter("service/svc/web/retries/total") == 0
        assert mesh.counter("service/svc/web/success") == mesh.counter("service/svc/web/requests") == 1
        names = ("requests", "failures", "status/503", "status/200")
        assert [mesh.counter(f"client/#/web/{name}") for name in names] == [2, 1, 1, 1], "each attempt that was sent counts"
        assert_nothing_left(mesh, connections=1)


def test_nacks_beyond_the_budget_are_the_callers() -> None:
    with Mesh("client: {requeueBudget: {minRetriesPerSec: 0, percentCanRetry: 0}}") as mesh:
        caller, upstream, _ = asked(mesh, POST, b"hi")
        upstream.send(NACK)
        head = caller.expect(BAD)
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"finagle-http-nack: true" in head
        assert mesh.counter("client/#/web/retries/budget_exhausted") == 1
        assert mesh.counter("client/#/web/retries/requeues") == 0


def test_one_request_may_use_a_fifth_of_the_requeue_budget() -> None:
    with Mesh("client: {requeueBudget: {ttlSecs: 10, minRetriesPerSec: 1, percentCanRetry: 0}}") as mesh:
        caller, upstream, _ = asked(mesh)
        attempts = 1
        while not caller.got:
            upstream.expect(b"GET /", attempts)
            upstream.send(NACK)
            mesh.settle()
            attempts += 1
            assert attempts < 20
        assert upstream.got.count(b"GET /") in (2, 3)
        assert mesh.counter("client/#/web/retries/request_limit") == 1
        assert gauge(mesh, "retries/budget") >= 8


def test_a_nack_whose_request_is_gone_is_the_callers() -> None:
    with Mesh() as mesh:
        body = b"x" * 6000
        caller, upstream, _ = asked(mesh, b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 6000\r\n\r\n" + body, body)
        upstream.send(NACK)
        caller.expect(BAD)
        assert mesh.counter("client/#/web/retries/requeues") == 0


def test_a_request_on_a_kept_connection_that_just_closed_costs_one_requeue_and_no_retry() -> None:
    with Mesh() as mesh:
        caller, upstream, service = asked(mesh)
        upstream.send(OK)
        caller.expect(DONE)
        caller.send(GET)
        upstream.expect(b"GET /", 2)
        upstream.close()
        second = service.accept()
        second.expect(b"GET /")
        second.send(OK)
        caller.expect(DONE, 2)
        assert mesh.counter("client/#/web/retries/requeues") == 1
        assert mesh.counter("service/svc/web/retries/total") == 0
        assert mesh.counter("service/svc/web/failures") == 0
        assert gauge(mesh, "retries/budget") == 99


def test_failed_connects_cost_no_budget() -> None:
    with Mesh("client: {requeueBudget: {minRetriesPerSec: 0, percentCanRetry: 0}, failureAccrual: {kind: none}}") as mesh:
        services = two(mesh)
        services[0].close()
        for _ in range(6):
            caller = mesh.caller().get()
            upstream = services[1].accept()
            upstream.expect(b"GET /")
            upstream.send(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            caller.expect(DONE)
        assert mesh.counter("client/#/web/retries/requeues") >= 1
        assert mesh.counter("client/#/web/retries/budget_exhausted") == 0
        assert mesh.counter("client/#/web/failures") == 0


@pytest.mark.parametrize("requeues", [0, 2])
def test_each_attempt_records_its_number_of_requeues(requeues: int) -> None:
    with Mesh() as mesh:
        caller, upstream, _ = asked(mesh)
        for number in range(requeues):
            upstream.send(NACK)
            upstream.expect(b"GET /", number + 2)
        upstream.send(OK)
        caller.expect(DONE)
        mesh.metrics.rotate()
        window = mesh.snapshot().histograms[("rt", "http", "client", "#/web", "retries", "requeues_per_request")]
        assert (window.count, window.total) == (1, requeues)
