from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.telemetry.export_json import MetricsJson, NoSuchSubtree
from meshgw.telemetry.metrics import Metrics, Snapshot


def written(snapshot: Snapshot, **options: Any) -> str:
    return b"".join(MetricsJson().pieces(snapshot, **options)).decode()


def read(metrics: Metrics, **options: Any) -> Any:
    return json.loads(written(metrics.snapshot(), **options))


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
    content = read(filled())
    assert content["rt/http/server/0.0.0.0/4140/requests"] == 12
    assert content["jvm/mem"] == 1.5
    stat = "rt/http/client/$/inet/127.1/9000/connect_latency_ms."
    assert content[stat + "count"] == 4 and content[stat + "sum"] == 10 and content[stat + "avg"] == 2.5
    figures = ["count", "max", "min", "p50", "p90", "p95", "p99", "p9990", "p9999", "sum", "avg"]
    assert {key.rpartition(".")[2] for key in content if key.startswith(stat)} == set(figures)


def test_tree_json_nests_by_name() -> None:
    content = read(filled(), tree=True)
    assert content["rt"]["http"]["server"]["0.0.0.0/4140"]["requests"] == {"counter": 12}
    assert content["jvm"]["mem"] == {"gauge": 1.5}
    assert content["rt"]["http"]["client"]["$/inet/127.1/9000"]["connect_latency_ms"]["stat.count"] == 4


def test_node_may_be_a_metric_and_a_parent() -> None:
    metrics = Metrics()
    metrics.counter("failures").incr()
    metrics.counter("failures", "X").incr()
    assert read(metrics, tree=True)["failures"] == {"counter": 1, "X": {"counter": 1}}


@pytest.mark.parametrize("tree", [False, True])
def test_pretty_json_is_sorted_and_indented_as_usual(tree: bool) -> None:
    text = written(filled().snapshot(), pretty=True, tree=tree)
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True)


def test_subtree_has_relative_names() -> None:
    assert read(filled(), subtree="jvm") == {"mem": 1.5}
    assert read(filled(), subtree="/jvm/", tree=True) == {"mem": {"gauge": 1.5}}


def test_subtree_may_be_one_metric() -> None:
    assert read(filled(), subtree="jvm/mem") == {"": 1.5}
    assert read(filled(), subtree="jvm/mem", tree=True) == {"gauge": 1.5}


def test_subtree_reaches_names_with_slashes() -> None:
    assert read(filled(), subtree="rt/http/server/0.0.0.0/4140") == {"requests": 12}


@pytest.mark.parametrize("tree", [False, True])
@pytest.mark.parametrize("subtree", ["a/b", "jv", "rt/http/server/0.0.0.0", "jvm/mem/x"])
def test_unknown_subtree_is_an_error(subtree: str, tree: bool) -> None:
    with pytest.raises(NoSuchSubtree, match=f"No such subtree: {re.escape(subtree)}"):
        written(filled().snapshot(), subtree=subtree, tree=tree)


def test_histogram_without_values_has_a_count_of_zero() -> None:
    metrics = Metrics()
    metrics.histogram("h")
    assert "h.count" not in read(metrics)
    metrics.rotate()
    assert read(metrics)["h.count"] == 0


def test_gauge_that_is_not_a_number_is_left_out() -> None:
    metrics = Metrics()
    metrics.gauge("g").set(float("nan"))
    assert "g" not in read(metrics)


def test_nothing_is_an_empty_object() -> None:
    assert [written(Snapshot(), tree=tree, pretty=pretty) for tree in (False, True) for pretty in (False, True)] == ["{}"] * 4


def test_a_path_of_any_length_is_written() -> None:
    text = written(Snapshot(counters={("a",) * 5000: 1}), tree=True)
    assert text == '{"a":' * 5000 + '{"counter":1}' + "}" * 5000


names = st.lists(st.text(max_size=6) | st.sampled_from(["counter", "gauge", "stat.count", "a/b"]), min_size=1, max_size=4).map(tuple)


@given(st.dictionaries(names, st.integers(0, 1 << 70), max_size=8), st.dictionaries(names, st.floats(), max_size=8), st.booleans())
def test_whatever_the_names_are_the_text_is_json(counters: Any, gauges: Any, pretty: bool) -> None:
    snapshot = Snapshot(counters, gauges)
    flat = dict(json.loads(written(snapshot, pretty=pretty), object_pairs_hook=list))
    assert {"/".join(path) for path in counters} <= set(flat)
    tree = json.loads(written(snapshot, pretty=pretty, tree=True))
    for path in counters:
        node = tree
        for name in path:
            node = node[name]


def test_the_same_writer_tells_new_figures() -> None:
    metrics, writer = filled(), MetricsJson()
    name = "rt/http/client/$/inet/127.1/9000/connect_latency_ms.count"
    assert json.loads(b"".join(writer.pieces(metrics.snapshot())))[name] == 4
    metrics.rotate()
    assert json.loads(b"".join(writer.pieces(metrics.snapshot())))[name] == 0
