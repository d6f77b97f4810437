"""A reactor that is kept from its work is noticed."""

from __future__ import annotations

from twisted.internet.task import Clock

from meshgw.telemetry.stalls import PERIOD, Stalls


def stalled(*seconds: float) -> tuple[Stalls, Clock]:
    """A watch over a clock that stood still for so long, one after the other."""
    clock = Clock()
    stalls = Stalls(clock)
    stalls.start()
    for late in seconds:
        clock.advance(PERIOD + late)
    return stalls, clock


def test_a_reactor_on_time_has_no_stalls() -> None:
    stalls, _ = stalled(0.0, 0.0)
    assert stalls.describe() == {"longestMs": 0.0, "longestSecondsAgo": 0.0, "lastMinuteMs": 0.0}


def test_the_longest_stall_is_kept_and_forgotten_by_the_last_minute() -> None:
    stalls, clock = stalled(0.5, 0.1)
    assert stalls.describe()["longestMs"] == 500.0 == stalls.describe()["lastMinuteMs"]
    for _ in range(400):
        clock.advance(PERIOD)
    assert round(stalls.longest, 3) == 0.5 and stalls.recent < 0.001
    assert stalls.describe()["longestSecondsAgo"] == 80.3


def test_a_watch_that_was_stopped_leaves_no_timer() -> None:
    stalls, clock = stalled(0.0)
    stalls.start()
    assert len(clock.getDelayedCalls()) == 1
    stalls.stop()
    stalls.stop()
    assert clock.getDelayedCalls() == []
