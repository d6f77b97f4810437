from __future__ import annotations

from collections.abc import Callable
from itertools import count, islice, repeat
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.config.document import Chosen
from meshgw.config.retries import ConstantBackoff, JitteredBackoff
from meshgw.core.timers import Timer
from meshgw.filters.accrual import (
    CONSECUTIVE_FAILURES,
    NONE,
    SUCCESS_RATE,
    SUCCESS_RATE_WINDOWED,
    Breaker,
    ConsecutiveFailures,
    Policy,
    SuccessRate,
    SuccessRateWindowed,
    deaths,
    default_policy,
)
from simulator.world import World


class Patient:
    """A breaker, its time, and what it told."""

    def __init__(self, policy: Policy | None = None, failures: int = 3) -> None:
        self.world = World()
        self.heard: list[str] = []
        self.dead = 0.0
        self.available = True
        self.timers: list[Timer] = []
        # Each death is one second longer than the one before.
        waits: Callable[[], Any] = lambda: map(float, count(5))  # noqa: E731 - shorter than a function for one line
        self.breaker = Breaker(
            policy or ConsecutiveFailures(failures, waits),
            after=self._after,
            clock=self.world.seconds,
            stats=self,
            on_change=self._changed,
        )

    def _after(self, seconds: float, function: Callable[[], None]) -> Timer:
        self.timers.append(self.world.after(seconds, function))
        return self.timers[-1]

    def _changed(self, available: bool) -> None:
        assert available is not self.available
        self.available = available

    def removed(self) -> None:
        self.heard.append("removed")

    def revived(self) -> None:
        self.heard.append("revived")

    def probed(self) -> None:
        self.heard.append("probed")

    def removed_for(self, seconds: float) -> None:
        self.dead += seconds

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.begun()
            self.breaker.failed()

    @property
    def state(self) -> str:
        return str(self.breaker.state()["state"])

    def wait(self, seconds: float) -> None:
        self.world.run(self.world.seconds() + seconds)


def test_the_stated_number_of_failures_in_a_row_is_death() -> None:
    patient = Patient(failures=3)
    patient.fail(2)
    assert patient.breaker.state() == {"state": "alive", "failuresInARow": 2}
    patient.breaker.succeeded()
    patient.fail(2)
    assert patient.available
    patient.fail()
    assert not patient.available
    assert not patient.breaker.is_alive
    patient.wait(1)
    assert patient.breaker.state() == {"state": "dead", "failuresInARow": 3, "secondsUntilProbe": 4.0}


def test_after_its_death_one_probe_is_let_through_and_its_success_revives() -> None:
    patient = Patient()
    patient.fail(3)
    patient.wait(4.9)
    assert not patient.available
    patient.wait(0.2)
    assert patient.available
    assert patient.state == "probeOpen"
    patient.breaker.begun()
    assert not patient.available
    assert patient.state == "probeClosed"
    patient.breaker.succeeded()
    assert patient.available
    assert patient.state == "alive"
    assert patient.heard == ["removed", "probed", "revived"]
    assert patient.dead == pytest.approx(5)


def test_a_failed_probe_is_the_next_longer_death_and_no_new_removal() -> None:
    patient = Patient()
    patient.fail(3)
    patient.wait(5)
    patient.fail()
    assert patient.state == "dead"
    patient.wait(5.9)
    assert patient.state == "dead"
    patient.wait(0.2)
    assert patient.state == "probeOpen"
    assert patient.heard == ["removed", "probed"]
    assert patient.dead == pytest.approx(11)


def test_a_revival_begins_the_backoff_and_the_count_anew() -> None:
    patient = Patient()
    patient.fail(3)
    patient.wait(5)
    patient.fail()
    patient.wait(6)
    patient.breaker.begun()
    patient.breaker.succeeded()
    patient.fail(2)
    assert patient.state == "alive"
    patient.fail()
    assert patient.breaker.state()["secondsUntilProbe"] == 5.0


def test_failures_that_end_while_it_is_dead_change_nothing() -> None:
    patient = Patient()
    patient.fail(3)
    patient.breaker.failed()
    patient.wait(5)
    patient.breaker.failed()
    assert patient.state == "probeOpen"
    assert patient.heard == ["removed"]


def test_a_success_from_before_its_death_does_not_bring_the_probe_forward() -> None:
    patient = Patient()
    patient.fail(3)
    patient.breaker.succeeded()
    assert patient.state == "dead"


def test_a_request_risked_while_all_are_dead_brings_the_probe_forward_when_it_succeeds() -> None:
    patient = Patient()
    patient.fail(3)
    patient.wait(1)
    patient.breaker.begun()
    patient.breaker.succeeded()
    assert patient.state == "probeOpen"
    assert patient.dead == pytest.approx(1)


def test_a_probe_without_outcome_is_followed_by_another() -> None:
    patient = Patient()
    patient.fail(3)
    patient.wait(5)
    patient.breaker.begun()
    patient.breaker.abandoned()
    assert patient.available
    assert patient.state == "probeOpen"


def test_a_dead_endpoint_that_is_discovered_anew_is_probed_at_once() -> None:
    patient = Patient()
    patient.breaker.rediscovered()
    assert patient.state == "alive"
    patient.fail(3)
    patient.wait(2)
    patient.breaker.rediscovered()
    assert patient.state == "probeOpen"
    patient.breaker.begun()
    patient.wait(10)
    assert patient.state == "probeClosed"
    assert patient.dead == pytest.approx(2)


def test_nothing_is_under_way_for_an_endpoint_that_is_gone() -> None:
    patient = Patient()
    patient.fail(3)
    patient.breaker.stop()
    assert [timer.function for timer in patient.timers] == [None]


def test_a_dead_endpoint_that_goes_and_comes_back_begins_with_a_probe() -> None:
    patient = Patient()
    patient.fail(3)
    patient.wait(2)
    patient.breaker.stop()
    assert patient.state == "probeOpen"
    patient.breaker.begun()
    patient.breaker.succeeded()
    assert patient.state == "alive"
    assert patient.dead == pytest.approx(2)


def test_the_success_rate_is_judged_after_its_number_of_requests() -> None:
    policy = SuccessRate(0.9, 20, lambda: repeat(5.0))
    outcomes = [policy.failed() for _ in range(20)]
    assert outcomes == [None] * 19 + [5.0]


def test_a_good_enough_success_rate_is_life() -> None:
    policy = SuccessRate(0.5, 10, lambda: repeat(5.0))
    for _ in range(200):
        for _ in range(3):
            policy.succeeded()
        assert policy.failed() is None
    assert policy.streak == 1
    policy.succeeded()
    assert [policy.failed() for _ in range(12)][-1] == 5.0


def test_a_revival_forgets_the_success_rate() -> None:
    policy = SuccessRate(0.9, 5, lambda: repeat(5.0))
    assert [policy.failed() for _ in range(5)][-1] == 5.0
    policy.revived()
    assert policy.streak == 0
    assert policy.failed() is None


def test_a_probe_that_fails_before_the_policy_can_judge_is_followed_by_another() -> None:
    class Undecided(ConsecutiveFailures):
        def failed(self) -> float | None:
            super().failed()
            return 5.0 if self.streak == 1 else None

    patient = Patient(Undecided(1, lambda: repeat(5.0)))
    patient.fail()
    assert patient.state == "dead"
    patient.wait(5)
    patient.fail()
    assert patient.state == "probeOpen"
    assert patient.available


def test_the_windowed_rate_is_judged_after_a_window_and_five_requests() -> None:
    world = World()
    policy = SuccessRateWindowed(0.9, 10, lambda: repeat(5.0), world.seconds)
    for _ in range(8):
        assert policy.failed() is None
    world.run(10)
    assert policy.failed() == 5.0
    policy.revived()
    world.run(30)
    assert [policy.failed() for _ in range(5)] == [None] * 4 + [5.0]


def test_the_windowed_rate_forgets_with_time() -> None:
    world = World()
    policy = SuccessRateWindowed(0.5, 10, lambda: repeat(5.0), world.seconds)
    for second in range(1, 21):
        world.run(second)
        policy.failed()
    for second in range(21, 41):
        world.run(second)
        policy.succeeded()
    world.run(41)
    assert policy.failed() is None


@given(st.integers(0, 2**32))
def test_the_default_death_is_between_5_and_300_seconds_and_doubles(seed: int) -> None:
    waits = list(islice(deaths(None, Random(seed))(), 12))
    assert waits[0] == 5.0
    for number, wait in enumerate(waits[1:]):
        base = min(300.0, 5.0 * 2**number)
        assert base <= wait <= min(300.0, 2 * base)


def test_a_configured_backoff_is_used() -> None:
    assert list(islice(deaths(ConstantBackoff(ms=1500), Random(1))(), 2)) == [1.5, 1.5]
    assert all(1 <= wait <= 4 for wait in islice(deaths(JitteredBackoff(min_ms=1000, max_ms=4000), Random(1))(), 30))


class _Runtime:
    random = Random(1)
    reactor = World()


@pytest.mark.parametrize(
    ("kind", "options", "policy"),
    [
        (CONSECUTIVE_FAILURES, {"failures": 7}, ConsecutiveFailures),
        (SUCCESS_RATE, {"success_rate": 0.9, "requests": 20}, SuccessRate),
        (SUCCESS_RATE_WINDOWED, {"success_rate": 0.9, "window": 20}, SuccessRateWindowed),
    ],
    ids=lambda value: str(getattr(value, "id", "")),
)
def test_a_kind_makes_a_policy_for_each_endpoint(kind: Any, options: dict[str, Any], policy: type[Any]) -> None:
    chosen = Chosen(kind=kind, config=kind.config(**options))
    make = kind.build(chosen.config, _Runtime())
    assert isinstance(make(), policy)
    assert make() is not make()


def test_kind_none_makes_no_policy() -> None:
    assert NONE.build(NONE.config(), _Runtime()) is None


def test_without_a_block_five_failures_in_a_row_are_death() -> None:
    policy = default_policy(Random(1))()
    assert [policy.failed() for _ in range(5)] == [None] * 4 + [5.0]


@given(st.lists(st.sampled_from(["begun", "succeeded", "failed", "abandoned", "rediscovered", "wait"]), max_size=60))
def test_a_breaker_tells_each_change_once_and_counts_what_happened(events: list[str]) -> None:
    patient = Patient(failures=2)
    for event in events:
        if event == "wait":
            patient.wait(3)
        else:
            getattr(patient.breaker, event)()
        assert patient.available is patient.breaker.is_available
        assert patient.breaker.is_alive is (patient.state == "alive")
        assert sum(1 for timer in patient.timers if timer.function is not None) == (patient.state == "dead")
        dead_ones = patient.heard.count("removed") - patient.heard.count("revived")
        assert dead_ones == (patient.state != "alive")
        assert patient.heard.count("probed") >= patient.heard.count("revived")
