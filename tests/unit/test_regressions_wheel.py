from __future__ import annotations

from twisted.internet.task import Clock

from meshgw.core.timers import Wheel


def test_nothing_is_left_of_cancelled_timers() -> None:
    clock = Clock()
    wheel = Wheel(clock)
    for number in range(1000):
        wheel.after(3600.0 + number, lambda: None).cancel()
    assert not wheel._slots
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(3601.0)
    assert not clock.getDelayedCalls()


def test_a_call_may_cancel_timers_of_its_own_and_of_later_slots() -> None:
    clock = Clock()
    wheel = Wheel(clock)
    fired: list[str] = []
    later = wheel.after(1.5, lambda: fired.append("later"))
    same = wheel.after(1.0, lambda: None)

    def first() -> None:
        fired.append("first")
        for timer in (same, later, later):
            timer.cancel()

    same.cancel()
    wheel.after(1.0, first)
    same = wheel.after(1.0, lambda: fired.append("same"))
    clock.advance(2.0)
    assert fired == ["first"]


def test_timers_far_away_fire_once_at_their_time_and_in_order() -> None:
    clock = Clock()
    wheel = Wheel(clock)
    fired: list[tuple[float, float]] = []
    for seconds in (95.0, 31.0, 45.0, 30.0, 200.0, 60.0):
        wheel.after(seconds, lambda seconds=seconds: fired.append((seconds, clock.seconds())))  # type: ignore[misc]  # default of a lambda
    clock.pump([0.02] * 15_000)
    assert [seconds for seconds, _ in fired] == [30.0, 31.0, 45.0, 60.0, 95.0, 200.0]
    assert all(0.0 <= at - seconds <= 0.041 for seconds, at in fired)
    assert not clock.getDelayedCalls()


def test_a_timer_that_is_set_while_another_fires_is_not_lost() -> None:
    clock = Clock()
    wheel = Wheel(clock)
    fired: list[float] = []
    wheel.after(40.0, lambda: None).cancel()
    wheel.after(20.0, lambda: wheel.after(50.0, lambda: fired.append(clock.seconds())) and None)
    clock.pump([0.05] * 2000)
    assert len(fired) == 1
    assert 70.0 <= fired[0] <= 70.2
