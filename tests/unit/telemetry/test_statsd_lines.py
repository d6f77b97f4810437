from __future__ import annotations

import re
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.core.slices import finished
from meshgw.telemetry.histogram import Histogram, Window
from meshgw.telemetry.statsd_lines import LONGEST_LINE, MOST_TIMINGS, PACKET_BYTES, PAUSE, StatsdLines, packets

LINE = re.compile(r"[A-Za-z0-9_.]*:-?\d+(\.\d+)?\|(c|g|ms(\|@(0\.\d+|1))?)")


def statsd(rate: float = 1.0, prefix: str = "linkerd") -> StatsdLines:
    return StatsdLines(prefix, rate, Random(7))


def counters(lines: StatsdLines, **values: int) -> list[str]:
    return [line for line in lines.counters({("a", name): value for name, value in values.items()}) if line != PAUSE]


def window(*values: float, unit: int = 1) -> Window:
    histogram = Histogram(unit)
    for value in values:
        histogram.add(value)
    histogram.rotate()
    assert histogram.window is not None
    return histogram.window


def taken(lines: StatsdLines, **windows: Window) -> list[str]:
    finished(lines.take_interval({("h", name): found for name, found in windows.items()}))
    return list(lines.timings(MOST_TIMINGS))


def test_counters_are_told_as_what_was_added() -> None:
    lines = statsd()
    assert counters(lines, x=3, y=0) == ["linkerd.a.x:3|c"]
    assert counters(lines, x=3, y=2) == ["linkerd.a.y:2|c"]
    assert counters(lines, x=5, y=2) == ["linkerd.a.x:2|c"]


def test_a_counter_that_began_anew_is_told_whole() -> None:
    lines = statsd()
    counters(lines, x=5)
    assert counters(lines, x=2) == ["linkerd.a.x:2|c"]
    counters(lines)
    assert counters(lines, x=4) == ["linkerd.a.x:4|c"]


@given(st.lists(st.dictionaries(st.sampled_from("xyz"), st.integers(0, 9), max_size=3), max_size=6))
def test_what_was_told_adds_up(steps: list[dict[str, int]]) -> None:
    lines, total, told = statsd(prefix=""), Counter[str](), Counter[str]()
    for step in steps:
        total.update(step)
        for line in counters(lines, **dict(total)):
            name, _, value = line.removesuffix("|c").partition(":")
            told[name.removeprefix("a.")] += int(value)
    assert +told == +total


def test_gauges_are_told_as_they_are() -> None:
    found = statsd().gauges({("a",): 1.0, ("b",): 0.25, ("c",): 1e15, ("d",): float("nan"), ("e",): -1e-9})
    assert list(found) == ["linkerd.a:1|g", "linkerd.b:0.25|g", "linkerd.c:1000000000000000|g", "linkerd.e:0|g\nlinkerd.e:0|g"]


def test_a_gauge_below_zero_is_no_change_of_the_last_value() -> None:
    assert list(statsd().gauges({("a",): -2.5})) == ["linkerd.a:0|g\nlinkerd.a:-2.5|g"]


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (("rt", "http", "server", "0.0.0.0/4140", "requests"), "linkerd.rt.http.server.0_0_0_0.4140.requests"),
        (("rt", "http", "client", "#/io.l5d.fs/web", "requests"), "linkerd.rt.http.client._.io_l5d_fs.web.requests"),
        (("a", "", "b"), "linkerd.a.b"),
        (("é:|@\n",), "linkerd._____"),
    ],
)
def test_names_are_written_as_by_linkerd(names: tuple[str, ...], name: str) -> None:
    assert [line for line in statsd().counters({names: 1}) if line] == [f"{name}:1|c"]


def test_all_values_are_told_at_a_rate_of_one() -> None:
    found = taken(statsd(), x=window(1, 2, 2), y_ms=window(0.1, unit=1000))
    assert sorted(found) == ["linkerd.h.x:1|ms", "linkerd.h.x:2|ms", "linkerd.h.x:2|ms", "linkerd.h.y_ms:0.1|ms"]


def test_a_part_of_the_values_is_told_with_that_part() -> None:
    lines = taken(statsd(0.1), x=window(*[5] * 4000))
    assert set(lines) == {"linkerd.h.x:5|ms|@0.1"}
    assert 300 < len(lines) < 500


@pytest.mark.parametrize("rate", [0.0, 1e-9])
def test_nothing_is_told_at_a_rate_of_as_good_as_zero(rate: float) -> None:
    assert taken(statsd(rate), x=window(1, 2)) == []


def test_a_busy_interval_is_sampled_more_thinly() -> None:
    lines = taken(statsd(1.0), x=Window(0.0, {5: 2 * MOST_TIMINGS, 6: 2 * MOST_TIMINGS}), y=Window(0.0, {}))
    assert len(lines) <= MOST_TIMINGS + 2
    assert {line.partition("|")[2] for line in lines} == {"ms|@0.25"}
    assert {line.partition("|")[0] for line in lines} == {"linkerd.h.x:5", "linkerd.h.x:6"}


def test_an_interval_is_told_in_parts_and_given_up_for_the_next() -> None:
    lines = statsd()
    finished(lines.take_interval({("h",): window(*range(10))}))
    first = list(lines.timings(4))
    assert (len(first), lines.samples_left) == (4, 6)
    finished(lines.take_interval({("h",): window(99)}))
    assert list(lines.timings(9)) == ["linkerd.h:99|ms"]


names = st.lists(st.text(max_size=8), min_size=1, max_size=4).map(tuple)


@given(st.dictionaries(names, st.integers(1, 1 << 60)), st.dictionaries(names, st.floats(-1e15, 1e15)), st.floats(0.001, 1))
def test_every_name_and_value_gives_lines_of_the_protocol(found: Any, gauges: Any, rate: float) -> None:
    lines = statsd(rate)
    finished(lines.take_interval({name: Window(1.0, {3: 5}) for name in found}))
    told = [*lines.counters(found), *lines.gauges(gauges), *lines.timings(100)]
    assert all(LINE.fullmatch(line) for text in told if text for line in text.split("\n"))


def test_lines_are_joined_to_packets_of_a_frame() -> None:
    lines = [f"name{number}:1|c" for number in range(1000)]
    found = list(packets(lines))
    assert "\n".join(packet.decode() for packet, _ in found).split("\n") == lines
    assert max(len(packet) for packet, _ in found) <= PACKET_BYTES
    assert [packet.count(b"\n") + 1 for packet, _ in found] == [count for _, count in found]


def test_a_long_line_goes_alone_and_one_that_is_too_long_not_at_all() -> None:
    long, longer = "x" * 2000, "x" * (LONGEST_LINE + 1)
    assert list(packets(["a", PAUSE, long, longer, "b"])) == [(b"", 0), (b"a", 1), (b"", 1), (long.encode(), 1), (b"b", 1)]
