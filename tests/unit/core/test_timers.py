from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from meshgw.core.timers import Backoff, Wheel, decorrelated_jittered, equal_jittered, sleep

TICK = 0.02
ROUNDING = 1e-6
waits = st.floats(0, 30, allow_nan=False)


@given(st.lists(st.tuples(waits, waits), min_size=1, max_size=20), st.floats(0.001, 1.0), st.floats(0, 1e6))
def test_a_timer_fires_once_never_early_and_within_a_tick(timers: list[tuple[float, float]], step: float, origin: float) -> None:
    clock = Clock()
    clock.advance(origin)
    wheel, fired = Wheel(clock, TICK), dict[int, float]()

    def plan(number: int, wait: float, then: float) -> None:
        due = clock.seconds() + wait

        def fire() -> None:
            assert number not in fired
            fired[number] = clock.seconds() - due
            if number < 1000:
                plan(number + 1000, then, 0)  # a timer set by a timer must not delay the others

        wheel.after(wait, fire)

    for number, (wait, then) in enumerate(timers):
        plan(number, wait, then)
    while clock.seconds() < origin + 61.5:
        clock.advance(step if step > 0.3 else 0.3)
    assert len(fired) == 2 * len(timers)
    assert min(fired.values()) >= -ROUNDING
    assert max(fired.values()) <= TICK + max(step, 0.3) + ROUNDING


def test_a_timer_set_inside_a_timer_does_not_put_off_those_in_between() -> None:
    clock = Clock()
    wheel, fired = Wheel(clock, TICK), list[str]()
    wheel.after(1.0, lambda: wheel.after(10.0, lambda: fired.append("late")) and None)
    wheel.after(2.0, lambda: fired.append("between"))
    clock.pump([0.1] * 22)
    assert fired == ["between"]


def test_a_cancelled_timer_never_fires_and_may_be_cancelled_again() -> None:
    clock, fired = Clock(), list[str]()
    wheel = Wheel(clock, TICK)
    timer = wheel.after(1.0, lambda: fired.append("cancelled"))
    kept = wheel.after(1.0, lambda: fired.append("kept"))
    timer.cancel()
    timer.cancel()
    clock.advance(2.0)
    kept.cancel()
    assert fired == ["kept"]


def test_many_timers_keep_one_call_of_the_reactor() -> None:
    clock, fired = Clock(), list[int]()
    wheel = Wheel(clock, TICK)
    for number in range(10_000):
        wheel.after(1.0 + number % 100 / 100, lambda number=number: fired.append(number))  # type: ignore[misc]
    assert len(clock.getDelayedCalls()) == 1
    clock.pump([0.01] * 250)
    assert sorted(fired) == list(range(10_000))
    assert clock.getDelayedCalls() == []


@pytest.fixture
def quiet() -> object:
    """The failures of the tests' own callbacks are not printed."""
    seen: list[object] = []
    globalLogPublisher.addObserver(seen.append)
    yield seen
    globalLogPublisher.removeObserver(seen.append)


def test_a_callback_that_raises_is_logged_and_stops_no_other(quiet: list[object]) -> None:
    clock, fired = Clock(), list[str]()
    wheel = Wheel(clock, TICK)
    wheel.after(1.0, lambda: fired.append(str(1 / 0)))
    wheel.after(1.0, lambda: fired.append("second"))
    wheel.soon(lambda: fired.append(str(1 / 0)))
    wheel.soon(lambda: fired.append("soon"))
    wheel.after(3.0, lambda: fired.append("third"))
    clock.pump([1.1] * 4)
    assert fired == ["soon", "second", "third"]
    assert len(quiet) == 2


def test_soon_runs_after_the_present_call_in_order() -> None:
    clock, ran = Clock(), list[str]()
    wheel = Wheel(clock, TICK)

    def first() -> None:
        ran.append("first")
        wheel.soon(lambda: ran.append("nested"))

    wheel.soon(first)
    wheel.soon(lambda: ran.append("second"))
    assert ran == []
    clock.advance(0)
    assert ran == ["first", "second", "nested"]


@given(st.integers(), st.floats(0.001, 10), st.floats(1, 1000))
def test_waits_stay_within_their_bounds(seed: int, least: float, times: float) -> None:
    most = least * times
    backoff = Backoff(Random(seed), least=least, most=most)
    found = [backoff.next() for _ in range(50)]
    assert least <= min(found)
    assert max(found) <= most
    backoff.reset()
    assert backoff.next() <= min(most, least * 3) + ROUNDING
    equal = equal_jittered(Random(seed), least, most)
    for number in range(50):
        base = min(most, least * 2**number)
        assert base / 2 <= next(equal) <= base


@given(st.integers(), st.floats(0.001, 10), st.floats(1, 1000))
def test_each_decorrelated_wait_is_at_most_three_times_the_one_before(seed: int, least: float, times: float) -> None:
    waits = decorrelated_jittered(Random(seed), least, least * times)
    last = least
    for _ in range(50):
        wait = next(waits)
        assert wait <= last * 3 + ROUNDING
        last = wait


def test_a_sleep_fires_after_its_time_and_leaves_nothing_when_it_is_cancelled() -> None:
    clock, woken = Clock(), list[object]()
    sleep(clock, 2.0).addCallback(woken.append)
    cut = sleep(clock, 1.0).addErrback(lambda failure: failure.trap(CancelledError) and woken.append("cut"))
    cut.cancel()
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(1.9)
    assert woken == ["cut"]
    clock.advance(0.1)
    assert woken == ["cut", None]
