from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from meshgw.telemetry.metrics import Metrics, Snapshot
from meshgw.telemetry.prometheus import KIND, PrometheusConfig, PrometheusText

LINE = re.compile(r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(?:, [a-z]+="(?:[^"\\\n]|\\["\\n])*")*\})? \S+')


def text(snapshot: Snapshot, prefix: str = "") -> str:
    return b"".join(PrometheusText(prefix).pieces(snapshot)).decode()


def lines(snapshot: Snapshot, prefix: str = "") -> list[str]:
    return text(snapshot, prefix).splitlines()


def samples(snapshot: Snapshot) -> Mapping[tuple[str, frozenset[tuple[str, str]]], float]:
    """What the parser of the Prometheus project's Python client reads."""
    found = [sample for family in text_string_to_metric_families(text(snapshot)) for sample in family.samples]
    read = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}
    assert len(read) == len(found), "no series appears twice"
    return read


def filled() -> Metrics:
    metrics = Metrics()
    metrics.gauge("jvm", "mem").set(1.5)
    histogram = metrics.histogram("rt", "http", "client", "$/inet/127.1/9000", "connect_latency_ms")
    for value in (1, 2, 3, 4):
        histogram.add(value)
    metrics.rotate()
    return metrics


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
        (("",), "_ 1"),
    ],
)
def test_metrics_are_labelled_as_by_linkerd(names: tuple[str, ...], line: str) -> None:
    assert lines(Snapshot(counters={names: 1})) == [line]


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (
            ("namer", "#/io.l5d.consul", "service", "stale"),
            'namer:__io_l5d_consul:service:stale{namer="#/io.l5d.consul"} 1',
        ),
        (
            ("namer", "#/x", "transformer", "io.l5d.port", "updates"),
            'namer:__x:transformer:io_l5d_port:updates{namer="#/x", transformer="io.l5d.port"} 1',
        ),
        (
            ("rt", "a", "transformer", "io.l5d.k8s.daemonset", "gone"),
            'rt:transformer:io_l5d_k8s_daemonset:gone{rt="a", transformer="io.l5d.k8s.daemonset"} 1',
        ),
        (("rt", "a", "interpreter", "id", "x"), 'rt:interpreter:id:x{rt="a", interpreter="id"} 1'),
        (("announcer", "io.l5d.serversets", "zk"), 'announcer:io_l5d_serversets:zk{announcer="io.l5d.serversets"} 1'),
        (("telemetry", "io.l5d.zipkin", "dropped"), 'telemetry:io_l5d_zipkin:dropped{telemeter="io.l5d.zipkin"} 1'),
        (("namer", "total"), "namer:total 1"),
    ],
)
def test_ids_in_names_are_labels_too(names: tuple[str, ...], line: str) -> None:
    assert lines(Snapshot(counters={names: 1})) == [line]


def test_a_histogram_is_a_summary() -> None:
    found = [line for line in lines(filled().snapshot()) if line.startswith("rt:client")]
    labels = 'rt="http", client="$/inet/127.1/9000"'
    assert f"rt:client:connect_latency_ms_count{{{labels}}} 4" in found
    assert f"rt:client:connect_latency_ms_sum{{{labels}}} 10.0" in found
    assert f"rt:client:connect_latency_ms_avg{{{labels}}} 2.5" in found
    quantiles = [match[1] for line in found if (match := re.search(r'quantile="([^"]+)"', line))]
    assert quantiles == ["0", "0.5", "0.9", "0.95", "0.99", "0.999", "0.9999", "1"]


def test_a_histogram_without_values_is_left_out() -> None:
    metrics = Metrics()
    metrics.histogram("h")
    metrics.rotate()
    assert not [line for line in lines(metrics.snapshot()) if line.startswith("h")]


def test_numbers_that_are_none_have_their_words() -> None:
    gauges = {("nan",): float("nan"), ("most",): float("inf"), ("least",): float("-inf")}
    assert lines(Snapshot(gauges=gauges)) == ["least -Inf", "most +Inf", "nan NaN"]


def test_the_prefix_is_escaped_too() -> None:
    assert "my_mesh_jvm:mem 1.5" in lines(filled().snapshot(), "my-mesh_")


def test_label_values_are_escaped_without_loss() -> None:
    assert lines(Snapshot(counters={("rt", 'a"b\\c\nd', "x"): 1})) == ['rt:x{rt="a\\"b\\\\c\\nd"} 1']


def test_series_that_escape_alike_appear_once() -> None:
    assert lines(Snapshot(counters={("a-b",): 1, ("a.b",): 2})) == ["a_b 1"]


def test_samples_of_one_name_stand_together() -> None:
    counters = {("rt", label, kind): 1 for label in "ab" for kind in ("x", "y")}
    assert [line[:4] for line in lines(Snapshot(counters=counters))] == ["rt:x", "rt:x", "rt:y", "rt:y"]


values = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=8)
hostile = values | st.sampled_from(['"', "\\", "\\n", "a\nb", '\\"', "a,b=c", "{}", " ", "9", "é", "\x00", "\t", 'x"} 1\ny'])


@given(st.lists(hostile, min_size=1, max_size=4), st.integers(0, 1 << 50))
def test_label_values_come_back_from_the_parser_as_they_were(found: list[str], count: int) -> None:
    counters = {("rt", "http", "client", name, "service", name, "requests"): count for name in found}
    expected = {("rt:client:service:requests", frozenset({("rt", "http"), ("client", name), ("service", name)})): count for name in found}
    assert samples(Snapshot(counters=counters)) == expected


@given(st.lists(st.lists(st.text(), min_size=1, max_size=3), max_size=5), st.text(max_size=5))
def test_every_name_gives_valid_lines(tails: list[list[str]], prefix: str) -> None:
    metrics = Metrics()
    for head in ((), ("rt", "x"), ("rt", "x", "client", "y"), ("rt", "x", "client", "y", "failures"), ("namer", "#/z")):
        for tail in tails:
            metrics.counter("hostile", *head, *tail) if tail == ["metrics"] else metrics.counter(*head, *tail)
    assert all(LINE.fullmatch(line) for line in text(metrics.snapshot(), prefix).split("\n")[:-1])


def test_the_kind_builds_a_telemeter() -> None:
    telemeter = KIND.build(PrometheusConfig(path="/metrics", prefix="p_"), None)
    assert telemeter.path == "/metrics"
    assert b"p_jvm:mem 1.5\n" in b"".join(telemeter.render(filled().snapshot(), "host"))


def test_a_lone_surrogate_in_a_name_does_not_fail_the_scrape() -> None:
    assert b'rt="?"' in b"".join(PrometheusText().pieces(Snapshot(counters={("rt", "\udcff", "x"): 1})))


def test_the_same_writer_tells_new_figures_and_forgets_what_is_gone() -> None:
    metrics, writer = filled(), PrometheusText()
    first = b"".join(writer.pieces(metrics.snapshot()))
    assert b"jvm:mem 1.5" in first and b"connect_latency_ms_count" in first
    metrics.gauge("jvm", "mem").set(2.5)
    metrics.rotate()
    second = b"".join(writer.pieces(metrics.snapshot()))
    assert b"jvm:mem 2.5" in second and b"connect_latency_ms_count" not in second
    metrics.scope("jvm").prune()
    assert b"jvm:mem" not in b"".join(writer.pieces(metrics.snapshot()))


def test_ten_thousand_series_are_written_in_pieces() -> None:
    metrics, rng = Metrics(), Random(1)
    for number in range(700):
        outcomes = metrics.outcomes("rt", "http", "client", f"$/inet/10.0.{number}/80")
        for _ in range(20):
            outcomes.began()
            outcomes.ended(200, True, rng.randrange(900), 4000)
    metrics.rotate()
    pieces = list(PrometheusText().pieces(metrics.snapshot()))
    assert b"".join(pieces).count(b"\n") > 10_000  # its time is a benchmark's matter
    assert len(pieces) > 100
    assert max(piece.count(b"\n") for piece in pieces) <= 500
