from __future__ import annotations

from twisted.internet.task import Clock

from meshgw.core.timers import FAR_SECONDS, Wheel


def test_a_cancelled_timer_is_forgotten_long_before_its_time() -> None:
    clock = Clock()
    wheel = Wheel(clock)
    for number in range(1000):
        wheel.after(3600.0 + number, lambda: None).cancel()
    clock.advance(FAR_SECONDS)
    clock.advance(FAR_SECONDS)
    assert not wheel._far
    assert not wheel._slots
    assert not clock.getDelayedCalls()


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


def test_a_far_timer_that_is_set_while_others_come_near_is_not_lost() -> None:
    clock = Clock()
    wheel = Wheel(clock)
    fired: list[float] = []
    wheel.after(40.0, lambda: None).cancel()
    wheel.after(20.0, lambda: wheel.after(50.0, lambda: fired.append(clock.seconds())) and None)
    clock.pump([0.05] * 2000)
    assert len(fired) == 1
    assert 70.0 <= fired[0] <= 70.2
