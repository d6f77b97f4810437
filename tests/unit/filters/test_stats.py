from __future__ import annotations

import pytest

from meshgw.core.exchange import Exchange
from meshgw.errors import CallerGone, MeshError
from meshgw.filters.budget import RetryBudget
from meshgw.filters.stats import AttemptStats, ServerStats, ServiceStats
from meshgw.telemetry.metrics import Metrics


def budget() -> RetryBudget:
    return RetryBudget(10, 0, 1.0, lambda: 0.0)


def ended(outcome: int | str, *, error: MeshError | None = None, micros: int = 1500) -> Exchange:
    ex = Exchange()
    ex.outcome, ex.error, ex.micros, ex.bucket = outcome, error, micros, 3
    return ex


def counters(metrics: Metrics) -> dict[str, int]:
    return {"/".join(names): value for names, value in metrics.snapshot().counters.items() if names[0] == "scope" and value}


def test_a_request_is_pending_until_it_ends() -> None:
    metrics = Metrics()
    stats, ex = ServerStats(metrics.outcomes("scope")), ended(200)
    stats.on_request(ex)
    assert metrics.snapshot().gauges["scope", "pending"] == 1
    stats.on_end(ex)
    assert metrics.snapshot().gauges["scope", "pending"] == 0
    assert counters(metrics) == {"scope/requests": 1, "scope/success": 1, "scope/status/200": 1, "scope/status/2XX": 1}


@pytest.mark.parametrize(("outcome", "status"), [(-503, "503"), (-404, "404")])
def test_a_failure_counts_with_its_status(outcome: int, status: str) -> None:
    metrics = Metrics()
    stats, ex = ServerStats(metrics.outcomes("scope")), ended(outcome)
    stats.on_request(ex)
    stats.on_end(ex)
    found = counters(metrics)
    assert (found["scope/failures"], found[f"scope/status/{status}"]) == (1, 1)
    assert "scope/success" not in found


def test_a_request_given_up_by_its_caller_counts_by_the_errors_name() -> None:
    metrics = Metrics()
    stats, ex = ServerStats(metrics.outcomes("scope")), ended("CallerGone")
    stats.on_request(ex)
    stats.on_end(ex)
    assert counters(metrics)["scope/failures/CallerGone"] == 1


def test_errors_made_here_count_by_name_for_services_and_clients() -> None:
    metrics = Metrics()
    service = ServiceStats(metrics.outcomes("scope"), budget(), metrics.histogram("retries"))
    attempt = AttemptStats(
        metrics.outcomes("scope", "client"), metrics.outcomes("scope", "through"), budget(), metrics.histogram("requeues")
    )
    ex = ended(-502, error=CallerGone())
    for stats in (service, attempt):
        stats.on_request(ex)
        stats.on_end(ex)
    found = counters(metrics)
    for scope in ("scope", "scope/client", "scope/through"):
        assert found[f"{scope}/failures/CallerGone"] == 1


def test_a_retrys_time_counts_from_its_own_beginning() -> None:
    metrics = Metrics()
    client = metrics.outcomes("scope", "client")
    stats = AttemptStats(client, metrics.outcomes("scope", "through"), budget(), metrics.histogram("requeues"))
    ex = ended(200, micros=9_000_000)
    ex.retries, ex.attempt_started, ex.ended = 1, 100.0, 100.25
    stats.on_request(ex)
    stats.on_end(ex)
    assert client.cells[200].sum == 250_000


def test_requests_and_attempts_fill_their_budgets() -> None:
    metrics, retries, requeues = Metrics(), budget(), budget()
    service = ServiceStats(metrics.outcomes("scope"), retries, metrics.histogram("retries"))
    attempt = AttemptStats(metrics.outcomes("client"), metrics.outcomes("through"), requeues, metrics.histogram("requeues"))
    for _ in range(3):
        service.on_request(Exchange())
    attempt.on_request(Exchange())
    assert (retries.balance, requeues.balance) == (3, 1)
