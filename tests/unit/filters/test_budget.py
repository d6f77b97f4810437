from __future__ import annotations

from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from meshgw.config.retries import Backoff, ConstantBackoff, JitteredBackoff, RetryBudgetConfig
from meshgw.filters.budget import RetryBudget, build_budget, build_waits


def withdraw_all(budget: RetryBudget) -> int:
    count = 0
    while budget.try_withdraw():
        count += 1
    return count


def test_without_requests_the_reserve_may_be_used() -> None:
    budget = RetryBudget(10, 10, 0.2, Clock().seconds)
    assert budget.balance == 100
    assert withdraw_all(budget) == 100
    assert budget.balance == 0
    assert budget.denied == 1


def test_requests_allow_retries_in_proportion() -> None:
    budget = RetryBudget(10, 0, 0.2, Clock().seconds)
    for _ in range(4):
        budget.deposit()
    assert not budget.try_withdraw()
    budget.deposit()
    assert budget.try_withdraw()
    assert not budget.try_withdraw()


def test_more_than_one_retry_per_request_can_be_allowed() -> None:
    budget = RetryBudget(10, 0, 2.0, Clock().seconds)
    budget.deposit()
    assert withdraw_all(budget) == 2


def test_with_both_rates_zero_nothing_is_ever_retried() -> None:
    budget = RetryBudget(10, 0, 0.0, Clock().seconds)
    for _ in range(1000):
        budget.deposit()
    assert not budget.try_withdraw()


def test_requests_count_for_the_window_and_no_longer() -> None:
    clock = Clock()
    budget = RetryBudget(10, 0, 1.0, clock.seconds)
    for _ in range(7):
        budget.deposit()
    clock.advance(8.9)
    assert budget.balance == 7
    clock.advance(1.2)
    assert budget.balance == 0


def test_what_was_withdrawn_is_missed_for_the_window() -> None:
    clock = Clock()
    budget = RetryBudget(10, 1, 0.0, clock.seconds)
    clock.advance(0.95)
    assert withdraw_all(budget) == 10
    clock.advance(10)
    assert budget.balance == 0
    clock.advance(1.1)
    assert budget.balance == 10


def test_a_long_silence_restores_the_reserve() -> None:
    clock = Clock()
    budget = RetryBudget(10, 1, 1.0, clock.seconds)
    for _ in range(50):
        budget.deposit()
    assert withdraw_all(budget) == 60
    clock.advance(86_400)
    assert budget.balance == 10


def test_one_request_may_use_a_fifth_of_the_balance() -> None:
    assert RetryBudget(10, 10, 0.2, Clock().seconds).request_limit == 20


@pytest.mark.parametrize(
    ("ttl_secs", "per_sec", "percent", "words"),
    [
        (0, 10, 0.2, "ttlSecs must be between 1 and 60, not 0"),
        (61, 10, 0.2, "ttlSecs must be between 1 and 60, not 61"),
        (10, -1, 0.2, "minRetriesPerSec must be at least 0, not -1"),
        (10, 10, -0.1, "percentCanRetry must be between 0 and 1000, not -0.1"),
        (10, 10, 1001, "percentCanRetry must be between 0 and 1000, not 1001"),
        (10, 10, float("nan"), "percentCanRetry must be between 0 and 1000, not nan"),
    ],
)
def test_numbers_out_of_range_are_refused(ttl_secs: float, per_sec: float, percent: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RetryBudget(ttl_secs, per_sec, percent, Clock().seconds)


def test_an_absent_field_has_its_default() -> None:
    assert build_budget(RetryBudgetConfig(ttl_secs=20), Clock().seconds).balance == 200
    assert build_budget(RetryBudgetConfig(min_retries_per_sec=1), Clock().seconds).balance == 10


@given(
    st.lists(st.tuples(st.sampled_from(["request", "retry"]), st.floats(0, 3)), max_size=150),
    st.integers(1, 60),
    st.integers(0, 2),
    st.floats(0, 3),
)
def test_no_retry_is_allowed_beyond_what_the_requests_of_the_window_allow(
    events: list[tuple[str, float]], ttl_secs: int, per_sec: int, percent: float
) -> None:
    clock = Clock()
    budget = RetryBudget(ttl_secs, per_sec, percent, clock.seconds)
    requests: list[float] = []
    retries: list[float] = []
    for event, pause in events:
        clock.advance(pause)
        if event == "request":
            budget.deposit()
            requests.append(clock.seconds())
        since = clock.seconds() - ttl_secs
        allowed = per_sec * ttl_secs + percent * sum(1 for at in requests if at > since - 1e-6) + 1e-6
        if event == "retry" and budget.try_withdraw():
            retries.append(clock.seconds())
            assert sum(1 for at in retries if at > since + 1e-6) <= allowed
        assert 0 <= budget.balance <= allowed


@given(st.integers(1, 1000), st.integers(0, 1000), st.integers(0, 2**32))
def test_jittered_waits_stay_within_their_bounds_and_grow_threefold_at_most(least: int, more: int, seed: int) -> None:
    waits = list(islice(build_waits(JitteredBackoff(min_ms=least, max_ms=least + more), Random(seed))(), 20))
    assert all(least / 1000 - 1e-9 <= wait <= (least + more) / 1000 + 1e-9 for wait in waits)
    assert all(after <= 3 * before + 1e-9 for before, after in zip([least / 1000, *waits], waits, strict=False))


@pytest.mark.parametrize(("config", "expected"), [(ConstantBackoff(), [0.0, 0.0]), (ConstantBackoff(ms=250), [0.25, 0.25])])
def test_constant_waits_are_all_the_same(config: Backoff, expected: list[float]) -> None:
    assert list(islice(build_waits(config, Random(1))(), 2)) == expected


def test_the_waits_begin_anew_for_each_request() -> None:
    begin = build_waits(JitteredBackoff(min_ms=10, max_ms=10_000), Random(3))
    assert max(islice(begin(), 50)) > 0.03
    assert next(begin()) <= 0.03


def test_a_shortest_wait_above_the_longest_is_refused() -> None:
    with pytest.raises(ValueError, match="minMs must be at most maxMs"):
        JitteredBackoff(min_ms=20, max_ms=10)
