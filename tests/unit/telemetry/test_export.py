from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any

import pytest

from meshgw.telemetry.export import Kept, Summaries, series
from meshgw.telemetry.export_json import MetricsJson
from meshgw.telemetry.histogram import Window
from meshgw.telemetry.influxdb import InfluxText
from meshgw.telemetry.metrics import Metrics, Snapshot, merging
from meshgw.telemetry.prometheus import PrometheusText
from meshgw.telemetry.statsd_lines import StatsdLines, packets

MANY = 4000
MOST_BETWEEN_PAUSES = 200
"""Series: some 0.2 ms of work."""


def many() -> Snapshot:
    counters = {("rt", "http", "client", f"c{number}", "requests"): number for number in range(MANY)}
    gauges = {("rt", "http", "client", f"c{number}", "pending"): 1.0 for number in range(MANY)}
    histograms = {("rt", "http", "client", f"c{number}", "latency"): Window(1.0, {number % 50: 1}) for number in range(MANY // 10)}
    return Snapshot(counters, gauges, histograms)


def tree() -> Metrics:
    metrics = Metrics()
    for number in range(MANY):
        metrics.counter("rt", "http", "client", f"c{number}", "requests").incr()
        metrics.outcomes("rt", "http", "service", f"s{number}")
    return metrics


def statsd(snapshot: Snapshot) -> Iterator[Any]:
    return packets(
        StatsdLines("", 0.0, Random(1)).counters(dict.fromkeys(snapshot.counters, 0))
    )  # nothing has changed: no packet, but pauses


WORKS: dict[str, Callable[[], Iterable[Any]]] = {
    "reading": lambda: tree().reading(),
    "merging": lambda: merging([many(), many()]),
    "Prometheus": lambda: PrometheusText().pieces(many()),
    "InfluxDB": lambda: InfluxText().pieces(many(), "h"),
    "metrics.json": lambda: MetricsJson().pieces(many()),
    "metrics.json pretty": lambda: MetricsJson().pieces(many(), pretty=True),
    "metrics.json tree": lambda: MetricsJson().pieces(many(), tree=True),
    "metrics.json without a hit": lambda: MetricsJson().pieces(many(), subtree="rt/http/client/c3999"),
    "StatsD": lambda: statsd(many()),
}


@pytest.mark.parametrize("name", WORKS)
def test_others_get_their_turn_often_while_metrics_are_read_and_written(name: str) -> None:
    pauses = sum(1 for _ in WORKS[name]())
    assert pauses >= MANY / MOST_BETWEEN_PAUSES


def test_what_is_kept_is_let_go_when_an_export_does_not_use_it() -> None:
    kept: Kept[str] = Kept()
    kept.keep(("a",), "A")
    kept.keep(("b",), "B")
    kept.turn()
    assert kept.get(("a",)) == "A"
    kept.turn()
    assert (kept.get(("a",)), kept.get(("b",))) == ("A", None)


def test_a_window_is_summed_up_once() -> None:
    summaries, first = Summaries(), Window(2.0, {1: 2})
    ((_, one),) = summaries.of({("h",): first})
    ((_, same),) = summaries.of({("h",): Window(2.0, {1: 2})})
    assert one is same is not None and one.count == 2
    ((_, other),) = summaries.of({("h",): Window(3.0, {1: 3})})
    assert other is not None and other.count == 3


def test_the_exception_rule_is_for_those_who_want_it() -> None:
    names = ("rt", "a", "client", "c", "failures", "x", "y")
    assert series(names, exceptions=True).labels[-1] == ("exception", "x:y")
    assert series(names, exceptions=False).parts == ("rt", "client", "failures", "x", "y")
