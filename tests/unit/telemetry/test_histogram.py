from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from meshgw.telemetry.histogram import MOST_SEEN, Histogram, HistogramSnapshots, Sizes, Window, bucket_of, joined, summary, value_of
from meshgw.telemetry.metrics import Metrics


@given(st.integers(min_value=0, max_value=10**12))
def test_value_read_back_is_within_one_percent(value: int) -> None:
    assert abs(value_of(bucket_of(value)) - value) <= value * 0.01


@given(st.integers(min_value=0, max_value=127))
def test_small_values_are_exact(value: int) -> None:
    assert value_of(bucket_of(value)) == value


@given(st.integers(min_value=0, max_value=10**9))
def test_buckets_keep_the_order_of_values(value: int) -> None:
    assert bucket_of(value) <= bucket_of(value + 1) <= bucket_of(value) + 1


def test_negative_value_falls_into_the_first_bucket() -> None:
    assert bucket_of(-5) == 0


@given(st.lists(st.integers(min_value=0, max_value=100_000), min_size=1, max_size=300))
def test_percentiles_agree_with_sorting(values: list[int]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    histogram.rotate()
    assert histogram.window is not None
    found = summary(histogram.window)
    assert found is not None
    ordered = sorted(values)
    for quantile, measured in zip((0.5, 0.9, 0.95, 0.99, 0.999, 0.9999), found.quantiles, strict=True):
        exact = ordered[max(1, math.ceil(round(quantile * len(values), 9))) - 1]
        assert abs(measured - exact) <= exact * 0.01
    assert (found.count, found.total) == (len(values), sum(values))
    assert found.average == sum(values) / len(values)


def test_milliseconds_keep_their_fractions() -> None:
    histogram = Histogram(unit=1000)
    histogram.add(0.35)
    histogram.rotate()
    assert histogram.window is not None
    found = summary(histogram.window)
    assert found is not None and abs(found.most - 0.35) < 0.0035


@given(st.lists(st.integers(min_value=0, max_value=10**10), max_size=50), st.lists(st.integers(min_value=0, max_value=10**10), max_size=50))
def test_joining_windows_is_as_if_one_had_seen_everything(ours: list[int], theirs: list[int]) -> None:
    def window(values: list[int]) -> Window:
        histogram = Histogram()
        for value in values:
            histogram.add(value)
        histogram.rotate()
        assert histogram.window is not None
        return histogram.window

    apart, together = joined([window(ours), window(theirs)]), window(ours + theirs)
    assert (apart.total, dict(apart.buckets)) == (together.total, dict(together.buckets))


@given(st.lists(st.integers(min_value=0, max_value=5_000), max_size=3_000), st.integers(min_value=0, max_value=3_000))
def test_sizes_are_those_of_a_histogram_that_was_told_each(numbers: list[int], at: int) -> None:
    sizes, plain = Sizes(), Histogram()
    for place, number in enumerate(numbers):
        if place == at:
            sizes.settle()
        sizes.seen[number] += 1
        plain.add(number)
        assert len(sizes.seen) <= MOST_SEEN
    assert sizes.ever == plain.ever == len(numbers)
    sizes.rotate()
    plain.rotate()
    assert sizes.window is not None and plain.window is not None
    assert (sizes.window.total, dict(sizes.window.buckets)) == (plain.window.total, dict(plain.window.buckets))
    assert sizes.ever == len(numbers)


def test_a_value_that_comes_before_its_zeros_takes_the_place_of_one() -> None:
    histogram = Histogram()
    histogram.add_for_zero(7)
    histogram.add_for_zero(9)
    histogram.add_zeros(1)
    histogram.add_zeros(4)
    histogram.rotate()
    assert histogram.window is not None
    assert (dict(histogram.window.buckets), histogram.window.total) == ({7: 1, 9: 1, 0: 3}, 16)


def test_window_of_an_idle_interval_is_empty() -> None:
    histogram = Histogram()
    histogram.add(1)
    histogram.rotate()
    histogram.rotate()
    assert histogram.window is not None and histogram.window.count == 0 and summary(histogram.window) is None


def test_joined_windows_add_up() -> None:
    whole = joined([Window(3.0, {1: 1, 2: 1}, 1000), Window(2.0, {2: 1}, 1000)])
    assert (whole.total, dict(whole.buckets), whole.unit) == (5.0, {1: 1, 2: 2}, 1000)


def test_snapshots_end_the_interval_on_time() -> None:
    clock, metrics = Clock(), Metrics()
    histogram = metrics.histogram("a")
    service = HistogramSnapshots(clock, metrics, 60.0)
    service.startService()
    histogram.add(1)
    clock.advance(59)
    assert histogram.window is None
    clock.advance(1)
    assert histogram.window is not None and histogram.window.count == 1
    service.stopService()
    assert clock.getDelayedCalls() == []
