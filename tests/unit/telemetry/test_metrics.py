from __future__ import annotations

import pickle

import pytest

from meshgw.core.slices import finished
from meshgw.telemetry.histogram import bucket_of
from meshgw.telemetry.metrics import Metrics, merge
from meshgw.telemetry.outcomes import CLASSIFIED_FAILURE, MAX_CELLS


def test_same_names_give_the_same_object() -> None:
    metrics = Metrics()
    assert metrics.counter("a", "b") is metrics.scope("a").counter("b")
    assert metrics.gauge("g") is metrics.gauge("g")
    assert metrics.histogram("h") is metrics.histogram("h")
    assert metrics.outcomes("o") is metrics.outcomes("o")


def test_name_with_a_slash_is_one_node() -> None:
    metrics = Metrics()
    metrics.scope("rt", "http", "server", "0.0.0.0/4140").counter("requests").incr(2)
    assert metrics.snapshot().counters["rt", "http", "server", "0.0.0.0/4140", "requests"] == 2


def test_other_kind_of_metric_under_one_name_is_a_defect() -> None:
    metrics = Metrics()
    metrics.counter("a")
    with pytest.raises(TypeError, match="'a' is a Counter"):
        metrics.gauge("a")


def test_pruned_scope_leaves_the_tree_and_stays_usable() -> None:
    metrics = Metrics()
    scope = metrics.scope("rt", "http", "client", "x")
    counter = scope.counter("requests")
    scope.prune()
    scope.prune()
    counter.incr()
    scope.counter("late").incr()
    assert not [names for names in metrics.snapshot().counters if names[0] == "rt"]
    metrics.scope("rt", "http", "client", "x").counter("requests").incr()
    assert metrics.snapshot().counters["rt", "http", "client", "x", "requests"] == 1


def test_full_tree_drops_and_counts_new_metrics() -> None:
    metrics = Metrics(limit=8)  # five nodes are the tree's own
    for number in range(10):
        metrics.counter(f"c{number}").incr()
    snapshot = metrics.snapshot()
    assert sum(1 for names in snapshot.counters if names[0].startswith("c")) == 3
    assert snapshot.counters["metrics", "dropped"] == 7


def test_pruning_makes_room_again() -> None:
    metrics = Metrics(limit=7)
    for _ in range(20):
        metrics.counter("scope", "c")
        metrics.scope("scope").prune()
    assert metrics.snapshot().counters["metrics", "dropped"] == 0


def test_broken_gauge_is_left_out_and_counted() -> None:
    metrics = Metrics()
    metrics.gauge("bad", function=lambda: 1 / 0)
    metrics.gauge("good", function=lambda: 3)
    gauges = metrics.snapshot().gauges
    assert gauges["good",] == 3 and ("bad",) not in gauges
    assert metrics.snapshot().counters["metrics", "broken_gauges"] >= 1


def test_settable_gauge_shows_what_was_set() -> None:
    metrics = Metrics()
    metrics.gauge("g").set(2.5)
    assert metrics.snapshot().gauges["g",] == 2.5


def test_outcomes_are_exported_under_the_names_of_the_spec() -> None:
    metrics = Metrics()
    outcomes = metrics.outcomes("s")
    for status, success in ((200, True), (404, True), (500, False)):
        outcomes.began()
        outcomes.ended(status, success, bucket_of(4000), 4000)
    outcomes.began()
    outcomes.failed("ConnectFailed", bucket_of(100), 100)
    outcomes.began()
    metrics.rotate()
    snapshot = metrics.snapshot()
    assert {names[1:]: value for names, value in snapshot.counters.items() if names[0] == "s"} == {
        ("requests",): 4,
        ("success",): 2,
        ("failures",): 2,
        ("failures", CLASSIFIED_FAILURE): 1,
        ("failures", "ConnectFailed"): 1,
        ("status", "200"): 1,
        ("status", "404"): 1,
        ("status", "500"): 1,
        ("status", "1XX"): 0,
        ("status", "2XX"): 1,
        ("status", "3XX"): 0,
        ("status", "4XX"): 1,
        ("status", "5XX"): 1,
        ("status", "error"): 1,
    }
    assert snapshot.gauges["s", "pending"] == 1
    latency = snapshot.histograms["s", "request_latency_ms"]
    assert (latency.count, latency.total) == (4, 12.1)
    assert {names[2] for names in snapshot.histograms if names[1] == "time"} == {"2XX", "4XX", "5XX", "error"}


def test_service_outcomes_export_neither_status_nor_pending() -> None:
    metrics = Metrics()
    outcomes = metrics.outcomes("s", status=False, pending=False)
    outcomes.began()
    outcomes.ended(200, True, 1, 1)
    snapshot = metrics.snapshot()
    assert ("s", "status", "200") not in snapshot.counters and ("s", "pending") not in snapshot.gauges
    assert snapshot.histograms == {}  # before the first interval has ended


def test_invented_statuses_are_folded_when_there_are_too_many() -> None:
    metrics = Metrics()
    outcomes = metrics.outcomes("s")
    for status in range(200, 400):
        outcomes.began()
        outcomes.ended(status, True, 1, 1)
    snapshot = metrics.snapshot()
    assert len([names for names in snapshot.counters if names[1] == "status"]) <= MAX_CELLS + 10
    assert snapshot.counters["s", "requests"] == 200 == snapshot.counters["s", "success"]
    assert snapshot.counters["metrics", "dropped"] > 0


def test_merged_snapshots_add_up_and_keep_peaks() -> None:
    snapshots = []
    for uptime in (5, 7):
        metrics = Metrics()
        metrics.counter("c").incr(uptime)
        metrics.gauge("connections").set(uptime)
        metrics.gauge("uptime", function=lambda value=uptime: value, most=True)
        metrics.histogram("h").add(uptime)
        metrics.rotate()
        snapshots.append(pickle.loads(pickle.dumps(metrics.snapshot())))
    merged = merge(snapshots)
    assert merged.counters["c",] == 12
    assert (merged.gauges["connections",], merged.gauges["uptime",]) == (12, 7)
    assert (merged.histograms["h",].count, merged.histograms["h",].total) == (2, 12)


def test_one_process_is_merged_into_itself() -> None:
    snapshot = Metrics().snapshot()
    assert merge([snapshot]) is snapshot


def test_an_interval_ends_little_by_little_and_for_all() -> None:
    metrics = Metrics()
    histograms = [metrics.histogram("h", str(number)) for number in range(200)]
    for histogram in histograms:
        histogram.add(1)
    work = metrics.rotating()
    next(work)
    ended = sum(histogram.window is not None for histogram in histograms)
    assert 0 < ended < 50
    finished(work)
    assert all(histogram.window is not None and histogram.window.count == 1 for histogram in histograms)


@pytest.mark.parametrize("below", ["rt/http", "rt/http/service", "rt/http/service/svc/web", "rt/http/service/svc/web/x", "rt//y", "rt/htt"])
def test_reading_below_a_path_gives_just_what_is_there_or_on_the_way(below: str) -> None:
    metrics = Metrics()
    for names in (
        ("rt", "http", "service", "svc/web", "x"),
        ("rt", "http", "service", "svc", "web"),
        ("rt", "http", "y"),
        ("rt", "", "y"),
    ):
        metrics.counter(*names).incr()
    whole, part = metrics.snapshot().counters, finished(metrics.reading(below)).counters
    assert part == {names: 1 for names in whole if f"{'/'.join(names)}/".startswith(f"{below}/") or below.startswith(f"{'/'.join(names)}/")}
