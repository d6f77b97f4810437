from __future__ import annotations

from meshgw.filters.fail_fast import FailFast
from simulator.world import World


class Case:
    """An endpoint that cannot be connected to until ``is_up``."""

    def __init__(self) -> None:
        self.world = World()
        self.is_up = False
        self.heard: list[bool] = []
        self.tries: list[float] = []
        self.fail_fast = FailFast(after=self.world.after, reconnect=self._reconnect, on_change=self.heard.append)

    def _reconnect(self) -> None:
        self.tries.append(self.world.seconds())
        if self.is_up:
            self.fail_fast.connected()
        else:
            self.fail_fast.connect_failed()


def test_it_tries_at_growing_intervals_and_then_every_32_seconds() -> None:
    case = Case()
    case.fail_fast.connect_failed()
    assert case.heard == [False]
    case.world.run(130)
    assert case.tries == [1, 3, 7, 15, 31, 63, 95, 127]
    assert case.heard == [False]
    assert case.fail_fast.tries == 8


def test_the_first_success_makes_it_available_and_ends_the_tries() -> None:
    case = Case()
    case.fail_fast.connect_failed()
    case.world.run(2)
    case.is_up = True
    case.world.run(100)
    assert case.tries == [1, 3]
    assert case.heard == [False, True]
    assert case.fail_fast.is_available


def test_the_next_failure_begins_with_the_shortest_wait() -> None:
    case = Case()
    case.fail_fast.connect_failed()
    case.world.run(10)
    case.fail_fast.connected()
    case.fail_fast.connect_failed()
    case.world.run(11.5)
    assert case.tries == [1, 3, 7, 11]


def test_a_connect_of_a_request_counts_when_it_succeeds_and_shifts_nothing_when_it_fails() -> None:
    case = Case()
    case.fail_fast.connect_failed()
    case.world.run(0.5)
    case.fail_fast.connect_failed()
    case.world.run(2)
    assert case.tries == [1]
    case.fail_fast.connected()
    assert case.heard == [False, True]
    case.world.run(100)
    assert case.tries == [1]


def test_an_endpoint_that_is_gone_is_not_tried() -> None:
    case = Case()
    case.fail_fast.connect_failed()
    case.fail_fast.stop()
    case.world.run(100)
    assert case.tries == []


def test_an_endpoint_that_comes_back_is_available_and_fails_fast_again() -> None:
    case = Case()
    case.fail_fast.connect_failed()
    case.world.run(10)
    case.fail_fast.stop()
    assert case.fail_fast.is_available
    case.fail_fast.connect_failed()
    assert case.heard == [False, True, False]
    case.world.run(11)
    assert case.tries == [1, 3, 7, 11]


def test_a_success_of_an_available_endpoint_is_no_change() -> None:
    case = Case()
    case.fail_fast.connected()
    assert case.heard == []
