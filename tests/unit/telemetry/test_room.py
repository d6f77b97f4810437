from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from meshgw.telemetry.metrics import Metrics


@pytest.fixture
def told() -> Iterator[list[str]]:
    """The scopes that the log named, one entry a line."""
    lines: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event.get("log_namespace") == "meshgw.telemetry.room":
            lines.append(event["scopes"])

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def dropped(metrics: Metrics) -> int:
    return metrics.snapshot().counters["metrics", "dropped"]


def test_a_flood_of_names_in_one_scope_leaves_room_for_the_others() -> None:
    metrics = Metrics(limit=100)
    services = metrics.scope("rt", "http").bounded("service", limit=10)
    for number in range(500):
        services.counter(f"svc{number}").incr()
    metrics.counter("rt", "http", "server", "requests").incr()
    snapshot = metrics.snapshot()
    assert snapshot.counters["rt", "http", "server", "requests"] == 1
    assert sum(names[2:3] == ("service",) for names in snapshot.counters) == 10
    assert snapshot.counters["metrics", "dropped"] == 490


def test_a_bounded_scope_cannot_take_more_than_the_tree_has() -> None:
    metrics = Metrics(limit=10)
    scope = metrics.bounded("service", limit=1000)
    for number in range(100):
        scope.counter(f"svc{number}")
    assert metrics.snapshot().gauges["metrics", "nodes"] == 10 == metrics.snapshot().gauges["metrics", "limit"]


def test_pruned_nodes_of_a_bounded_scope_give_their_room_back_everywhere() -> None:
    metrics = Metrics(limit=50)
    scope = metrics.bounded("service", limit=6)
    before = metrics.snapshot().gauges["metrics", "nodes"]
    for number in range(20):
        scope.scope(f"svc{number}").counter("deep", "below")
        scope.remove(f"svc{number}")
    assert (dropped(metrics), metrics.snapshot().gauges["metrics", "nodes"]) == (0, before)


def test_bounding_a_scope_again_keeps_what_it_has() -> None:
    metrics = Metrics(limit=50)
    metrics.bounded("service", limit=5).counter("one").incr()
    metrics.bounded("service", limit=5)
    for number in range(10):
        metrics.counter("service", f"other{number}")
    assert (metrics.snapshot().counters["service", "one"], dropped(metrics)) == (1, 6)


def test_the_log_names_the_scope_once_and_then_each_interval_while_it_goes_on(told: list[str]) -> None:
    metrics = Metrics(limit=100)
    scope = metrics.scope("rt", "http").bounded("service", limit=1)
    for number in range(5):
        scope.counter(f"svc{number}")
    assert told == ["rt/http/service"]
    metrics.rotate()
    assert told == ["rt/http/service"] * 2
    metrics.rotate()
    metrics.rotate()
    assert len(told) == 2
    scope.counter("late")
    assert len(told) == 3


def test_one_line_names_a_few_scopes_only(told: list[str]) -> None:
    metrics = Metrics(limit=100)
    for router in range(20):
        scope = metrics.scope("rt", f"r{router}").bounded("service", limit=1)
        scope.counter("one")
        scope.counter("other")
    metrics.rotate()
    assert told[0] == "rt/r0/service" and told[1].count("service") == 8


def test_outcomes_that_are_folded_are_told_with_their_scope(told: list[str]) -> None:
    metrics = Metrics()
    outcomes = metrics.outcomes("rt", "http", "client", "c")
    for status in range(200, 300):
        outcomes.ended(status, True, 1, 1)
    assert told == ["rt/http/client/c"]
