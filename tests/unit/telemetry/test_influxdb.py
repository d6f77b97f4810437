from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.telemetry.influxdb import KIND, InfluxConfig, InfluxText, field_name, tag_value
from meshgw.telemetry.metrics import Metrics, Snapshot

Point = tuple[str, dict[str, str], dict[str, float]]


def lines(snapshot: Snapshot, host: str = "here:9990") -> list[str]:
    return b"".join(InfluxText().pieces(snapshot, host)).decode().split("\n")[:-1]


def split(text: str, at: str) -> list[str]:
    """Split at a character that no backslash stands before."""
    found, now, index = [], "", 0
    while index < len(text):
        if text[index] == "\\" and text[index + 1 : index + 2] in (",", "=", " "):
            now += text[index : index + 2]
            index += 2
        elif text[index] == at:
            found.append(now)
            now, index = "", index + 1
        else:
            now += text[index]
            index += 1
    return [*found, now]


def plain(text: str) -> str:
    for special in (",", "=", " "):
        text = text.replace(f"\\{special}", special)
    return text


def parsed(line: str) -> Point:
    """A point, read by the rules of the protocol's reference: nothing is optional but tags."""
    head, fields = split(line, " ")
    measurement, *tags = split(head, ",")
    pairs = [split(tag, "=") for tag in tags]
    values = [split(field, "=") for field in split(fields, ",")]
    assert all(len(pair) == 2 and all(pair) for pair in (*pairs, *values))
    return plain(measurement), {plain(k): plain(v) for k, v in pairs}, {plain(k): float(v) for k, v in values}


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("rt", "http", "server", "0.0.0.0/4140", "requests"), "rt:server,host=h,rt=http,server=0.0.0.0/4140 requests=1"),
        (
            ("rt", "http", "client", "$/inet/127.1/9000", "service", "svc/foo", "success"),
            "rt:client:service,client=$/inet/127.1/9000,host=h,rt=http,service=svc/foo success=1",
        ),
        (("rt", "a", "client", "c", "failures", "x.Y"), "rt:client:failures,client=c,host=h,rt=a x.Y=1"),
        (("rt", "a", "bindcache", "path", "misses"), "rt:bindcache:path,host=h,rt=a misses=1"),
        (("namer", "#/io.l5d.fs", "updates"), "namer:__io_l5d_fs,host=h,namer=#/io.l5d.fs updates=1"),
        (("jvm", "mem-x", "used"), "jvm:mem_x,host=h used=1"),
        (("alone",), "root,host=h alone=1"),
    ],
)
def test_metrics_are_placed_as_by_linkerd(names: tuple[str, ...], line: str) -> None:
    assert lines(Snapshot(counters={names: 1}), "h") == [line]


def test_siblings_form_one_line_with_sorted_fields() -> None:
    snapshot = Snapshot(counters={("jvm", "b"): 2, ("jvm", "a"): 1}, gauges={("jvm", "c"): 0.5})
    assert lines(snapshot) == ["jvm,host=here:9990 a=1,b=2,c=0.5"]


def test_a_histogram_is_several_fields() -> None:
    metrics = Metrics()
    for value in (1, 2, 3, 4):
        metrics.histogram("rt", "h", "client", "c", "latency_ms").add(value)
    metrics.rotate()
    ((_, _, fields),) = [point for point in map(parsed, lines(metrics.snapshot())) if point[0] == "rt:client"]
    words = ["count", "sum", "avg", "min", "max", "p50", "p90", "p95", "p99", "p999", "p9999"]
    assert set(fields) == {f"latency_ms_{word}" for word in words}
    assert fields["latency_ms_count"] == 4 and fields["latency_ms_sum"] == 10


def test_a_scrape_without_a_host_is_tagged_as_such() -> None:
    assert lines(Snapshot(counters={("a",): 1}), "") == ["root,host=none a=1"]


def test_numbers_that_the_protocol_does_not_know_are_left_out() -> None:
    gauges = {("a", "x"): float("nan"), ("b", "x"): float("inf"), ("b", "y"): 1.0}
    assert lines(Snapshot(gauges=gauges), "h") == ["b,host=h y=1.0"]


def test_a_tag_without_a_value_is_none() -> None:
    assert lines(Snapshot(counters={("rt", "", "x"): 1}), "h") == ["rt,host=h x=1"]


@pytest.mark.parametrize(
    ("text", "tag", "field"),
    [
        ("a b", "a\\ b", "a\\ b"),
        ("a,b=c", "a\\,b\\=c", "a\\,b\\=c"),
        ("a\nb", "a_b", "a_b"),
        ("a\\b", "a\\b", "a_b"),
        ("a\\", "a\\_", "a_"),
        ("\\,", "\\\\,", "_\\,"),
        ('"é', '"é', '"é'),
        ("time", "time", "time_"),
        ("", "", "_"),
    ],
)
def test_names_are_escaped_as_the_protocol_and_its_server_demand(text: str, tag: str, field: str) -> None:
    assert (tag_value(text), field_name(text)) == (tag, field)


safe = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    lambda text: "\\" not in text and text != "time"
)


@given(safe, safe, safe, st.integers(0, 1 << 50))
def test_names_come_back_from_the_line_as_they_were(label: str, client: str, name: str, count: int) -> None:
    (line,) = lines(Snapshot(counters={("rt", label, "client", client, name): count}))
    assert parsed(line) == ("rt:client", {"host": "here:9990", "rt": label, "client": client}, {name: count})


@given(st.lists(st.lists(st.text(max_size=5), min_size=1, max_size=4), max_size=5), st.text(max_size=5))
def test_every_name_gives_one_line_with_a_field(names: list[list[str]], host: str) -> None:
    for head in ((), ("rt", "x"), ("rt", "x", "client", "y")):
        for line in lines(Snapshot(counters={(*head, *tail): 1 for tail in names}), host):
            assert "\n" not in line and "\r" not in line
            assert parsed(line)[2]


def test_the_kind_builds_a_telemeter() -> None:
    telemeter = KIND.build(InfluxConfig(), None)
    assert telemeter.path == "/admin/metrics/influxdb" and not telemeter.aliases
    assert b"".join(telemeter.render(Snapshot(counters={("a",): 1}), "h")) == b"root,host=h a=1\n"
