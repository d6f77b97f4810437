from __future__ import annotations

import json
import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.telemetry.export import PROMETHEUS, NoSuchSubtree, PrometheusConfig, metrics_json, prometheus_text
from meshgw.telemetry.metrics import Metrics, Snapshot

LINE = re.compile(r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(?:, [a-z]+="(?:[^"\\\n]|\\["\\n])*")*\})? \S+')


def lines(snapshot: Snapshot, prefix: str = "") -> list[str]:
    return prometheus_text(snapshot, prefix).splitlines()


def filled() -> Metrics:
    metrics = Metrics()
    metrics.counter("rt", "http", "server", "0.0.0.0/4140", "requests").incr(12)
    metrics.gauge("jvm", "mem").set(1.5)
    histogram = metrics.histogram("rt", "http", "client", "$/inet/127.1/9000", "connect_latency_ms")
    for value in (1, 2, 3, 4):
        histogram.add(value)
    metrics.rotate()
    return metrics


def test_flat_json_joins_names_with_slashes() -> None:
    content = json.loads(metrics_json(filled().snapshot()))
    assert content["rt/http/server/0.0.0.0/4140/requests"] == 12
    assert content["jvm/mem"] == 1.5
    stat = "rt/http/client/$/inet/127.1/9000/connect_latency_ms."
    assert content[stat + "count"] == 4 and content[stat + "sum"] == 10 and content[stat + "avg"] == 2.5
    assert {key.rpartition(".")[2] for key in content if key.startswith(stat)} == {
        "count",
        "max",
        "min",
        "p50",
        "p90",
        "p95",
        "p99",
        "p9990",
        "p9999",
        "sum",
        "avg",
    }


def test_tree_json_nests_by_name() -> None:
    content = json.loads(metrics_json(filled().snapshot(), tree=True))
    assert content["rt"]["http"]["server"]["0.0.0.0/4140"]["requests"] == {"counter": 12}
    assert content["jvm"]["mem"] == {"gauge": 1.5}
    assert content["rt"]["http"]["client"]["$/inet/127.1/9000"]["connect_latency_ms"]["stat.count"] == 4


def test_node_may_be_a_metric_and_a_parent() -> None:
    metrics = Metrics()
    metrics.counter("failures").incr()
    metrics.counter("failures", "X").incr()
    assert json.loads(metrics_json(metrics.snapshot(), tree=True))["failures"] == {"counter": 1, "X": {"counter": 1}}


def test_pretty_json_is_sorted() -> None:
    keys = list(json.loads(metrics_json(filled().snapshot(), pretty=True)))
    assert keys == sorted(keys)


def test_subtree_has_relative_names() -> None:
    assert json.loads(metrics_json(filled().snapshot(), subtree="jvm")) == {"mem": 1.5}


def test_subtree_reaches_names_with_slashes() -> None:
    assert json.loads(metrics_json(filled().snapshot(), subtree="rt/http/server/0.0.0.0/4140")) == {"requests": 12}


@pytest.mark.parametrize("subtree", ["a/b", "jv", "rt/http/server/0.0.0.0", "jvm/mem/x"])
def test_unknown_subtree_is_an_error(subtree: str) -> None:
    with pytest.raises(NoSuchSubtree, match=f"No such subtree: {re.escape(subtree)}"):
        metrics_json(filled().snapshot(), subtree=subtree)


def test_histogram_without_values_has_a_count_of_zero() -> None:
    metrics = Metrics()
    metrics.histogram("h")
    assert "h.count" not in json.loads(metrics_json(metrics.snapshot()))
    metrics.rotate()
    assert json.loads(metrics_json(metrics.snapshot()))["h.count"] == 0
    assert not [line for line in lines(metrics.snapshot()) if line.startswith("h")]


def test_gauge_that_is_not_a_number_is_left_out_of_json() -> None:
    metrics = Metrics()
    metrics.gauge("g").set(float("nan"))
    assert "g" not in json.loads(metrics_json(metrics.snapshot()))
    assert "g NaN" in lines(metrics.snapshot())


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("rt", "http", "server", "0.0.0.0/4140", "requests"), 'rt:server:requests{rt="http", server="0.0.0.0/4140"} 1'),
        (
            ("rt", "http", "client", "$/inet/127.1/9000", "service", "svc/foo", "success"),
            'rt:client:service:success{rt="http", client="$/inet/127.1/9000", service="svc/foo"} 1',
        ),
        (("rt", "http", "service", "svc/foo", "retries", "total"), 'rt:service:retries:total{rt="http", service="svc/foo"} 1'),
        (("rt", "a", "client", "c", "failures"), 'rt:client:failures{rt="a", client="c"} 1'),
        (("rt", "a", "client", "c", "failures", "x.Y", "Z"), 'rt:client:failures{rt="a", client="c", exception="x.Y:Z"} 1'),
        (("rt", "a", "server", "s", "exn", "x.Y"), 'rt:server:exceptions{rt="a", server="s", exception="x.Y"} 1'),
        (
            ("rt", "a", "client", "c", "service", "s", "failures", "x.Y"),
            'rt:client:service:failures:x_Y{rt="a", client="c", service="s"} 1',
        ),
        (("rt", "a", "bindcache", "path", "misses"), 'rt:bindcache:path:misses{rt="a"} 1'),
        (("jvm", "mem-x", "used"), "jvm:mem_x:used 1"),
        (("4xx",), "_4xx 1"),
    ],
)
def test_prometheus_relabels(names: tuple[str, ...], line: str) -> None:
    metrics = Metrics()
    metrics.counter(*names).incr()
    assert line in lines(metrics.snapshot())


def test_prometheus_summary_lines() -> None:
    found = [line for line in lines(filled().snapshot()) if line.startswith("rt:client")]
    labels = 'rt="http", client="$/inet/127.1/9000"'
    assert f"rt:client:connect_latency_ms_count{{{labels}}} 4" in found
    assert f"rt:client:connect_latency_ms_sum{{{labels}}} 10.0" in found
    assert f"rt:client:connect_latency_ms_avg{{{labels}}} 2.5" in found
    quantiles = [match[1] for line in found if (match := re.search(r'quantile="([^"]+)"', line))]
    assert quantiles == ["0", "0.5", "0.9", "0.95", "0.99", "0.999", "0.9999", "1"]


def test_prometheus_prefix_is_escaped_too() -> None:
    assert "my_mesh_jvm:mem 1.5" in lines(filled().snapshot(), "my-mesh_")


def test_label_values_are_escaped_without_loss() -> None:
    metrics = Metrics()
    metrics.counter("rt", 'a"b\\c\nd', "x").incr()
    assert 'rt:x{rt="a\\"b\\\\c\\nd"} 1' in lines(metrics.snapshot())


def test_series_that_escape_alike_appear_once() -> None:
    metrics = Metrics()
    metrics.counter("a-b").incr()
    metrics.counter("a.b").incr()
    assert len([line for line in lines(metrics.snapshot()) if line.startswith("a_b")]) == 1


@given(st.lists(st.lists(st.text(min_size=1), min_size=1, max_size=3), max_size=5), st.text(max_size=5))
def test_every_name_gives_valid_lines(tails: list[list[str]], prefix: str) -> None:
    metrics = Metrics()
    for head in ((), ("rt", "x"), ("rt", "x", "client", "y"), ("rt", "x", "client", "y", "failures")):
        for tail in tails:
            metrics.counter(*head, *tail)
    text = prometheus_text(metrics.snapshot(), prefix)
    assert all(LINE.fullmatch(line) for line in text.split("\n")[:-1])


def test_kind_builds_a_telemeter() -> None:
    telemeter = PROMETHEUS.build(PrometheusConfig(path="/metrics", prefix="p_"), None)
    assert telemeter.path == "/metrics"
    assert b"p_jvm:mem 1.5\n" in telemeter.render(filled().snapshot())


def test_lone_surrogate_in_a_name_does_not_fail_the_scrape() -> None:
    metrics = Metrics()
    metrics.counter("rt", "\udcff", "x").incr()
    assert b'rt="?"' in PROMETHEUS.build(PrometheusConfig(), None).render(metrics.snapshot())


def test_ten_thousand_series_fit_the_time_of_a_scrape() -> None:
    metrics, rng = Metrics(), Random(1)
    for number in range(700):
        outcomes = metrics.outcomes("rt", "http", "client", f"$/inet/10.0.{number}/80")
        for _ in range(20):
            outcomes.began()
            outcomes.ended(200, True, rng.randrange(900), 4000)
    metrics.rotate()
    assert prometheus_text(metrics.snapshot()).count("\n") > 10_000  # its time is a benchmark's matter
