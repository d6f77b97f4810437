from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.core.live import (
    PENDING,
    Failed,
    Live,
    Ok,
    Pending,
    Source,
    State,
    constant,
    current,
    failed,
    live_flat_map,
    live_join,
    live_map,
)

BROKEN = ValueError("broken")


class Counted:
    """A source whose starts and stops are counted."""

    def __init__(self, value: int | None = None) -> None:
        self.starts = self.stops = 0
        self.source: Source[int] = Source(self._start)
        if value is not None:
            self.source.set(value)

    def _start(self, _source: Source[int]) -> Callable[[], None]:
        self.starts += 1
        return self._stop

    def _stop(self) -> None:
        self.stops += 1


class Seen:
    """An observer that writes down what it is told."""

    def __init__(self, live: Live[int]) -> None:
        self.states: list[State[int]] = []
        self.hold = live.observe(self.states.append)


def test_an_observer_is_told_the_state_at_once_and_every_change() -> None:
    source: Source[int] = Source()
    seen = Seen(source)
    source.set(1)
    source.set(2)
    seen.hold.close()
    source.set(3)
    assert seen.states == [PENDING, Ok(1), Ok(2)]


def test_equal_values_are_not_announced_again() -> None:
    source: Source[int] = Source()
    mapped = Seen(live_map(source, lambda number: number // 10))
    plain = Seen(source)
    for number in (10, 10, 11, 12, 20):
        source.set(number)
    assert plain.states == [PENDING, Ok(10), Ok(11), Ok(12), Ok(20)]
    assert mapped.states == [PENDING, Ok(1), Ok(2)]


def test_the_last_good_value_is_kept_through_failure_and_pending() -> None:
    source: Source[int] = Source()
    source.fail(BROKEN)
    assert source.state == Failed(BROKEN)
    source.set(1)
    source.pend("again")
    assert source.state == Ok(1)
    source.fail(BROKEN)
    assert source.state == Ok(1, BROKEN)
    source.set(1)
    assert source.state == Ok(1)


def test_staleness_travels_through_a_mapping() -> None:
    source: Source[int] = Source()
    source.set(1)
    seen = Seen(live_map(source, lambda number: number + 1))
    source.fail(BROKEN)
    assert seen.states[-1] == Ok(2, BROKEN)


def test_a_source_works_from_the_first_observer_to_the_last() -> None:
    counted = Counted(1)
    first, second = Seen(counted.source), Seen(counted.source)
    first.hold.close()
    first.hold.close()
    assert (counted.starts, counted.stops) == (1, 0)
    second.hold.close()
    assert (counted.starts, counted.stops) == (1, 1)
    assert not counted.source.is_observed


def test_every_combinator_lets_go_of_its_sources_when_closed() -> None:
    outer, inner, other = Counted(1), Counted(2), Counted(3)
    flat = live_flat_map(outer.source, lambda _: inner.source)
    joined = live_join([flat, live_map(other.source, lambda number: number)], lambda states: states[0])
    for _ in range(2):
        seen = Seen(joined)
        assert seen.states[-1] == Ok(2)
        assert outer.source.is_observed and inner.source.is_observed and other.source.is_observed
        seen.hold.close()
        assert not (outer.source.is_observed or inner.source.is_observed or other.source.is_observed)
    assert [counted.starts - counted.stops for counted in (outer, inner, other)] == [0, 0, 0]


def test_switching_holds_the_new_before_it_releases_the_old() -> None:
    shared, outer = Counted(5), Source[int]()
    seen = Seen(live_flat_map(outer, lambda number: live_map(shared.source, lambda value: value * number)))
    outer.set(1)
    outer.set(2)
    assert seen.states == [PENDING, Ok(5), Ok(10)]
    assert (shared.starts, shared.stops) == (1, 0)


def test_what_was_left_is_not_heard_any_more() -> None:
    outer, first, second = Source[int](), Source[int](), Source[int]()
    seen = Seen(live_flat_map(outer, lambda number: (first, second)[number]))
    outer.set(0)
    outer.set(1)
    first.set(1)
    second.set(2)
    assert seen.states[-1] == Ok(2)
    assert not first.is_observed


def test_a_switch_made_while_switching_leaves_one_hold() -> None:
    outer = Source[int]()
    inner = {0: Source[int](), 1: Source[int]()}

    def follow(number: int) -> Live[int]:
        if number:
            return inner[1]

        def start(_source: Source[int]) -> Callable[[], None]:
            outer.set(1)  # following it makes the source move on
            return lambda: None

        inner[0] = Source(start)
        return inner[0]

    seen = Seen(live_flat_map(outer, follow))
    outer.set(0)
    inner[0].set(100)
    inner[1].set(7)
    assert seen.states[-1] == Ok(7)
    assert not inner[0].is_observed
    seen.hold.close()
    assert not inner[1].is_observed


def test_a_function_that_raises_makes_the_value_failed() -> None:
    def fail(_number: int) -> Live[int]:
        raise BROKEN

    assert current(live_map(constant(1), lambda number: fail(number))) == Failed(BROKEN)
    assert current(live_flat_map(constant(1), fail)) == Failed(BROKEN)
    assert current(live_map(failed(BROKEN), lambda number: number)) == Failed(BROKEN)


def test_a_change_made_by_an_observer_reaches_everybody_once_and_last() -> None:
    source: Source[int] = Source()
    first, last = list[State[int]](), list[State[int]]()

    def change(state: State[int]) -> None:
        first.append(state)
        if state == Ok(1):
            source.set(2)

    source.observe(change)
    source.observe(last.append)
    source.set(1)
    assert first == [PENDING, Ok(1), Ok(2)]
    assert last == [PENDING, Ok(2)]


@given(st.lists(st.one_of(st.tuples(st.integers(0, 2), st.integers(0, 3)), st.none())))
def test_a_join_always_shows_the_present_states(steps: list[tuple[int, int] | None]) -> None:
    sources = [Source[int]() for _ in range(3)]

    def total(states: object) -> State[int]:
        values = [state.value for state in states if isinstance(state, Ok)]  # type: ignore[attr-defined]
        return Ok(sum(values)) if len(values) == 3 else Pending()

    seen = Seen(live_join(sources, total))
    for step in steps:
        if step is not None:
            sources[step[0]].set(step[1])
        assert seen.states[-1] == total([source.state for source in sources])
    assert all(one != two for one, two in zip(seen.states, seen.states[1:], strict=False))


def test_staleness_of_either_part_travels_through_a_choice_and_goes_again() -> None:
    outer, inner, chosen = Source[int](), Source[int](), list[int]()

    def choose(number: int) -> Live[int]:
        chosen.append(number)
        return inner

    other = ValueError("other")
    seen = Seen(live_flat_map(outer, choose))
    outer.set(1)
    inner.set(10)
    outer.fail(BROKEN)
    assert seen.states[-1] == Ok(10, BROKEN)
    inner.fail(other)
    assert seen.states[-1] == Ok(10, other)
    inner.set(11)
    assert seen.states[-1] == Ok(11, BROKEN)
    outer.set(1)
    assert seen.states[-1] == Ok(11)
    assert chosen == [1]
    seen.hold.close()
    assert not inner.is_observed


def test_a_choice_from_a_stale_source_is_stale_from_the_start() -> None:
    outer: Source[int] = Source(initial=Ok(1, BROKEN))
    assert current(live_flat_map(outer, constant)) == Ok(1, BROKEN)
    assert current(live_flat_map(outer, lambda _number: Source[int]())) == PENDING


def test_an_observers_defect_leaves_no_other_behind() -> None:
    source: Source[int] = Source()
    before, after = Seen(source), list[State[int]]()

    def broken(state: State[int]) -> None:
        if state == Ok(1):
            raise BROKEN

    source.observe(broken)
    source.observe(after.append)
    with pytest.raises(ValueError, match="broken"):
        source.set(1)
    assert before.states[-1] == after[-1] == Ok(1)
    source.set(2)
    assert after[-1] == Ok(2)


def test_an_observer_that_raises_at_once_observes_nothing() -> None:
    counted = Counted(1)

    def broken(_state: State[int]) -> None:
        raise BROKEN

    with pytest.raises(ValueError, match="broken"):
        counted.source.observe(broken)
    assert not counted.source.is_observed and (counted.starts, counted.stops) == (1, 1)


def test_a_source_that_could_not_start_is_started_by_the_next_observer() -> None:
    starts: list[int] = []

    def start(_source: Source[int]) -> Callable[[], None]:
        starts.append(1)
        if len(starts) == 1:
            raise BROKEN
        return lambda: None

    source: Source[int] = Source(start)
    with pytest.raises(ValueError, match="broken"):
        Seen(source)
    Seen(source)
    assert len(starts) == 2
