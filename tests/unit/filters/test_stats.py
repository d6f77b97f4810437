from __future__ import annotations

import pytest

from meshgw.core.exchange import Exchange
from meshgw.errors import CallerGone, MeshError
from meshgw.filters.budget import RetryBudget
from meshgw.filters.stats import AttemptStats, ServiceStats, Tally
from meshgw.telemetry.metrics import Metrics
from meshgw.telemetry.outcomes import Outcomes


def budget() -> RetryBudget:
    return RetryBudget(10, 0, 1.0, lambda: 0.0)


def ended(outcome: int | str, *, error: MeshError | None = None, micros: int = 1500) -> Exchange:
    ex = Exchange()
    ex.outcome, ex.error, ex.micros, ex.bucket = outcome, error, micros, 3
    return ex


def counters(metrics: Metrics) -> dict[str, int]:
    return {"/".join(names): value for names, value in metrics.snapshot().counters.items() if names[0] == "scope" and value}


def scopes(metrics: Metrics, retries: RetryBudget | None = None, requeues: RetryBudget | None = None) -> tuple[ServiceStats, AttemptStats]:
    service = ServiceStats(metrics.outcomes("scope", "service"), retries or budget(), metrics.histogram("retries"))
    client, through = metrics.outcomes("scope", "client"), metrics.outcomes("scope", "through")
    return service, attempts(metrics, client, through, requeues)


def attempts(
    metrics: Metrics, client: Outcomes, through: Outcomes, requeues: RetryBudget | None = None, *, dtab_size: int = 0
) -> AttemptStats:
    return AttemptStats(
        client,
        through,
        requeues or budget(),
        per_request=metrics.histogram("requeues"),
        acquisition=metrics.histogram("acquisition_ms"),
        dtab_sizes=metrics.histogram("dtab"),
        dtab_size=dtab_size,
    )


SCOPES = ("service", "client", "through")


def test_a_request_is_pending_until_it_ends() -> None:
    metrics = Metrics()
    ex = ended(200)
    service, attempt = scopes(metrics)
    for stats in (service, attempt):
        stats.on_request(ex)
    assert [metrics.snapshot().gauges["scope", scope, "pending"] for scope in SCOPES] == [1, 1, 1]
    for stats in (service, attempt):
        stats.on_end(ex)
    assert [metrics.snapshot().gauges["scope", scope, "pending"] for scope in SCOPES] == [0, 0, 0]
    assert counters(metrics)["scope/client/status/200"] == 1


@pytest.mark.parametrize(("outcome", "status"), [(-503, "503"), (-404, "404")])
def test_a_failure_counts_with_its_status(outcome: int, status: str) -> None:
    metrics = Metrics()
    _, stats = scopes(metrics)
    ex = ended(outcome)
    stats.on_request(ex)
    stats.on_end(ex)
    found = counters(metrics)
    assert (found["scope/client/failures"], found[f"scope/client/status/{status}"]) == (1, 1)
    assert "scope/client/success" not in found


def count(tally: Tally, outcome: int, *, micros: int = 1500) -> None:
    tally.started += 1
    cell = tally.cell(outcome)
    cell.sum += micros
    cell.buckets[3] += 1


def test_what_a_tally_counted_is_read_in_all_of_its_scopes() -> None:
    metrics = Metrics()
    tally = Tally(*scopes(metrics))
    metrics.settle_first(tally)
    for outcome in (200, 200, -503):
        count(tally, outcome)
    tally.started += 1
    for _ in range(2):  # reading again changes nothing
        snapshot, found = metrics.snapshot(), counters(metrics)
        for scope in SCOPES:
            assert (found[f"scope/{scope}/requests"], found[f"scope/{scope}/success"], found[f"scope/{scope}/failures"]) == (3, 2, 1)
            assert snapshot.gauges["scope", scope, "pending"] == 1


def test_the_times_a_tally_counted_belong_to_the_interval_that_ends() -> None:
    metrics = Metrics()
    tally = Tally(*scopes(metrics))
    metrics.settle_first(tally)
    count(tally, 200, micros=2000)
    metrics.rotate()
    histograms = metrics.snapshot().histograms
    assert [
        (histograms["scope", scope, "request_latency_ms"].count, histograms["scope", scope, "request_latency_ms"].total) for scope in SCOPES
    ] == [(1, 2.0)] * 3
    assert (histograms["retries",].count, histograms["requeues",].count) == (1, 1)
    metrics.rotate()
    assert metrics.snapshot().histograms["scope", "client", "request_latency_ms"].count == 0


def test_a_request_that_leaves_its_tally_is_pending_where_it_came_to() -> None:
    metrics = Metrics()
    tally = Tally(*scopes(metrics))
    metrics.settle_first(tally)
    tally.started += 2
    tally.requeues.requests += 2
    tally.leave(attempted=True)
    tally.leave(attempted=False)
    assert [metrics.snapshot().gauges["scope", scope, "pending"] for scope in SCOPES] == [2, 1, 1]
    assert tally.requeues.requests == 1


def test_a_tally_that_is_dropped_loses_nothing() -> None:
    metrics = Metrics()
    tally = Tally(*scopes(metrics))
    metrics.settle_first(tally)
    count(tally, 200)
    del tally
    assert [counters(metrics)[f"scope/{scope}/requests"] for scope in SCOPES] == [1, 1, 1]


def test_a_tally_begins_the_slices_of_both_budgets() -> None:
    times = [0.0]
    retries, requeues = (RetryBudget(ttl, 0, 1.0, lambda: times[0]) for ttl in (10, 20))
    tally = Tally(*scopes(Metrics(), retries, requeues))
    for now in (0.0, 1.0, 2.5, 30.0):
        times[0] = now
        if now >= tally.until:
            tally.turn(now)
        assert now < tally.until <= min(retries.until, requeues.until)
        tally.retries.requests += 1
        tally.requeues.requests += 1
    assert (retries.balance, requeues.balance) == (1, 1)


def test_errors_made_here_count_by_name_for_services_and_clients() -> None:
    metrics = Metrics()
    service = ServiceStats(metrics.outcomes("scope"), budget(), metrics.histogram("retries"))
    attempt = attempts(metrics, metrics.outcomes("scope", "client"), metrics.outcomes("scope", "through"))
    ex = ended(-502, error=CallerGone())
    ex.node = "the endpoint that it was sent to"
    for stats in (service, attempt):
        stats.on_request(ex)
        stats.on_end(ex)
    found = counters(metrics)
    for scope in ("scope", "scope/client", "scope/through"):
        assert found[f"{scope}/failures/CallerGone"] == 1


@pytest.mark.parametrize(("node", "queued"), [(None, 0.0), ("an endpoint", 1.0)])
def test_one_that_ends_while_it_waits_for_an_endpoint_or_a_connection_is_no_request_of_the_client(node: object, queued: float) -> None:
    metrics = Metrics()
    service, attempt = scopes(metrics)
    ex = ended(-502, error=CallerGone())
    ex.node, ex.queued = node, queued
    for stats in (service, attempt):
        stats.on_request(ex)
        stats.on_end(ex)
    found = counters(metrics)
    assert found["scope/service/failures/CallerGone"] == 1
    assert not [name for name in found if name.startswith(("scope/client/", "scope/through/"))]


def test_attempts_that_got_their_connection_at_once_waited_for_no_time() -> None:
    metrics = Metrics()
    client, through = metrics.outcomes("client"), metrics.outcomes("through")
    stats = attempts(metrics, client, through, dtab_size=3)
    tally = Tally(ServiceStats(metrics.outcomes("service"), budget(), metrics.histogram("retries")), stats)
    metrics.settle_first(tally)
    acquisition = metrics.histogram("acquisition_ms")
    for _ in range(4):
        count(tally, 200)
    acquisition.add_for_zero(25.0)  # one of the four
    apart, waiting = ended(200), ended("AttemptTimeout")
    waiting.queued = 1.0
    for ex in (apart, waiting):
        stats.on_request(ex)
        stats.on_end(ex)
    metrics.rotate()
    histograms = metrics.snapshot().histograms
    assert (histograms["acquisition_ms",].count, histograms["acquisition_ms",].total) == (5, 25.0)
    assert (histograms["dtab",].count, histograms["dtab",].total) == (5, 15)


def test_a_tally_that_counted_nothing_adds_nothing() -> None:
    metrics = Metrics()
    stats = attempts(metrics, metrics.outcomes("client"), metrics.outcomes("through"), dtab_size=3)
    metrics.settle_first(tally := Tally(ServiceStats(metrics.outcomes("service"), budget(), metrics.histogram("retries")), stats))
    metrics.rotate()
    assert metrics.snapshot().histograms["dtab",].buckets == {} and tally.started == 0


def test_a_retrys_time_counts_from_its_own_beginning() -> None:
    metrics = Metrics()
    client = metrics.outcomes("scope", "client")
    stats = attempts(metrics, client, metrics.outcomes("scope", "through"))
    ex = ended(200, micros=9_000_000)
    ex.retries, ex.attempt_started, ex.ended = 1, 100.0, 100.25
    stats.on_request(ex)
    stats.on_end(ex)
    assert client.cells[200].sum == 250_000


def test_requests_and_attempts_fill_their_budgets() -> None:
    metrics, retries, requeues = Metrics(), budget(), budget()
    service = ServiceStats(metrics.outcomes("scope"), retries, metrics.histogram("retries"))
    attempt = attempts(metrics, metrics.outcomes("client"), metrics.outcomes("through"), requeues)
    for _ in range(3):
        service.on_request(Exchange())
    attempt.on_request(Exchange())
    assert (retries.balance, requeues.balance) == (3, 1)
