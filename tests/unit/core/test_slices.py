from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from meshgw.core.slices import SLICE_SECONDS, Shared, Slices, Work, batched, collected, finished


class Slow:
    """A reactor whose clock goes on by a third of a slice with each look at it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[Callable[[], object]] = []

    def seconds(self) -> float:
        self.now += SLICE_SECONDS / 3
        return self.now

    def callLater(self, delay: float, function: Callable[[], object]) -> None:
        assert delay == 0
        self.calls.append(function)

    def turn(self) -> None:
        """One round of the reactor."""
        calls, self.calls = self.calls, []
        for function in calls:
            function()


def steps(count: int, done: list[int], result: str = "end") -> Work[str]:
    for number in range(count):
        done.append(number)
        yield
    return result


def begun(awaitable: Any) -> tuple[Deferred[Any], list[Any]]:
    deferred: Deferred[Any] = Deferred.fromCoroutine(awaitable)
    results: list[Any] = []
    deferred.addBoth(results.append)
    return deferred, results


def test_short_work_is_done_at_once() -> None:
    done: list[int] = []
    _, results = begun(Slices(Clock()).run(steps(100, done)))
    assert (results, len(done)) == (["end"], 100)


def test_long_work_lets_the_reactor_turn_between_slices() -> None:
    clock, done = Slow(), list[int]()
    _, results = begun(Slices(cast("Any", clock)).run(steps(9, done)))
    seen = []
    while not results:
        seen.append(len(done))
        clock.turn()
    assert results == ["end"]
    assert len(seen) >= 3 and seen == sorted(set(seen))


def test_only_one_work_goes_on_in_each_turn() -> None:
    clock, first, second = Slow(), list[int](), list[int]()
    slices = Slices(cast("Any", clock))
    _, results = begun(slices.run(steps(20, first)))
    _, others = begun(slices.run(steps(20, second)))
    while not (results and others):
        before = len(first), len(second)
        clock.turn()
        assert (len(first) == before[0]) or (len(second) == before[1])
    assert (results, others) == (["end"], ["end"])


def test_cancelled_work_ends_where_it_paused_and_others_go_on() -> None:
    clock, first, second, closed = Slow(), list[int](), list[int](), list[bool]()

    def closing() -> Work[str]:
        try:
            yield from steps(100, first)
        finally:
            closed.append(True)
        return ""

    slices = Slices(cast("Any", clock))
    deferred, results = begun(slices.run(closing()))
    _, others = begun(slices.run(steps(9, second)))
    deferred.cancel()
    assert results[0].check(CancelledError) and closed == [True]
    count = len(first)
    for _ in range(20):
        clock.turn()
    assert others == ["end"] and len(first) == count
    assert not clock.calls


def test_what_the_work_raises_is_raised() -> None:
    def failing() -> Work[str]:
        yield
        raise ValueError("no")

    _, results = begun(Slices(Clock()).run(failing()))
    assert results[0].check(ValueError)


def test_pieces_are_collected_and_work_finished() -> None:
    assert finished(collected(iter([b"a", b"", b"b"]))) == b"ab"
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]


class Making:
    def __init__(self) -> None:
        self.made: list[Deferred[str]] = []

    def __call__(self) -> Deferred[str]:
        self.made.append(Deferred())
        return self.made[-1]


def test_those_who_ask_meanwhile_share_one_work() -> None:
    making = Making()
    shared: Shared[str] = Shared(making)
    _, first = begun(shared.get())
    _, second = begun(shared.get())
    assert len(making.made) == 1
    making.made[0].callback("a")
    assert (first, second) == (["a"], ["a"])
    _, third = begun(shared.get())
    making.made[1].callback("b")
    assert third == ["b"]


def test_one_who_leaves_does_not_end_it_for_others() -> None:
    making = Making()
    shared: Shared[str] = Shared(making)
    leaving, first = begun(shared.get())
    _, second = begun(shared.get())
    leaving.cancel()
    making.made[0].callback("a")
    assert first[0].check(CancelledError) and second == ["a"]


def test_all_who_wait_hear_of_a_failure() -> None:
    making = Making()
    shared: Shared[str] = Shared(making)
    _, first = begun(shared.get())
    _, second = begun(shared.get())
    making.made[0].errback(ValueError("no"))
    assert first[0].check(ValueError) and second[0].check(ValueError)
