"""Watches over a backend that the test speaks for: what readers, operators and the backend see of each turn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from fakes.followed import Followed
from meshgw.backends import watching
from meshgw.backends.watching import Pace, Watch, Watches, polled
from meshgw.core.live import PENDING, Failed, Live, Ok, Pending, State
from meshgw.errors import BackendDefect, BackendError, BackendMalformed, BackendRefused, BackendSilent, BackendUnreachable, NamerError
from meshgw.telemetry.metrics import Metrics

DOWN = BackendUnreachable(backend="Fake at localhost:1", reason="connection refused")
FORBIDDEN = BackendRefused(backend="Fake at localhost:1", reason="403 (no)", code=403)
PACE = Pace(least=1.0, most=10.0, lasting_least=20.0, lasting_most=60.0, silence=100.0, steady=5.0, linger=60.0)


class Reader:
    """Somebody who observes, and writes down what was told."""

    def __init__(self, live: Live[str]) -> None:
        self.states: list[State[str]] = []
        self.hold = live.observe(self.states.append)

    @property
    def last(self) -> State[str]:
        return self.states[-1]

    def close(self) -> None:
        self.hold.close()


@pytest.fixture
def backend() -> Followed[str]:
    return Followed()


@pytest.fixture
def logged() -> Iterator[Callable[[LogLevel], list[str]]]:
    events: list[LogEvent] = []

    def lines(level: LogLevel) -> list[str]:
        found = [event for event in events if event["log_level"] is level]
        return [event["log_format"].format(**{key: value for key, value in event.items() if not key.startswith("log_")}) for event in found]

    def observe(event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith("meshgw."):
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def idle(backend: Followed[str]) -> bool:
    """Whether nothing is due and nobody is followed."""
    return not backend.clock.getDelayedCalls() and not backend.is_followed("web")


# --- who looks


def test_nothing_is_asked_until_somebody_looks(backend: Followed[str]) -> None:
    watches = backend.watches()
    live = watches.watch("web")
    assert backend.sessions == {}
    reader = Reader(live)
    assert backend.sessions == {"web": 1}
    assert reader.states == [Pending("Fake at localhost:1: web")]


def test_one_thing_is_followed_once_however_many_look(backend: Followed[str]) -> None:
    watches = backend.watches()
    readers = [Reader(watches.watch("web")) for _ in range(3)]
    backend.says("web", "a")
    assert backend.sessions == {"web": 1}
    assert [reader.last for reader in readers] == [Ok("a")] * 3
    assert Reader(watches.watch("web")).states == [Ok("a")]
    counters = backend.counters()
    assert (counters["opens"], counters["cached"], counters["updates"], counters["closes"]) == (1, 3, 1, 0)


def test_what_nobody_looks_at_is_followed_for_a_while_and_then_let_go(backend: Followed[str]) -> None:
    watches = backend.watches(pace=PACE)
    reader = Reader(watches.watch("web"))
    backend.says("web", "a")
    reader.close()
    backend.clock.advance(59.9)
    assert backend.is_followed("web") and backend.gauges()["lingering"] == 1.0
    backend.clock.advance(0.2)
    assert backend.cancelled == ["web"] and idle(backend)
    assert backend.counters()["closes"] == 1 and backend.gauges()["active"] == 0.0
    assert Reader(watches.watch("web")).states == [Pending("Fake at localhost:1: web")]
    assert backend.sessions == {"web": 2}


def test_who_comes_back_in_time_finds_the_answer_there(backend: Followed[str]) -> None:
    watches = backend.watches(pace=PACE)
    reader = Reader(watches.watch("web"))
    backend.says("web", "a")
    reader.close()
    backend.clock.advance(50.0)
    backend.says("web", "b")
    again = Reader(watches.watch("web"))
    assert again.states == [Ok("b")]
    backend.clock.advance(40.0)
    assert backend.sessions == {"web": 1} and backend.is_followed("web")


def test_only_so_many_are_followed_without_a_reader(backend: Followed[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MOST_LINGERING", 2)
    watches = backend.watches(pace=PACE)
    for key in ("a", "b", "c"):
        Reader(watches.watch(key)).close()
    assert backend.cancelled == ["a"]
    assert backend.gauges()["lingering"] == 2.0


def test_a_full_house_makes_room_where_nobody_looks(backend: Followed[str]) -> None:
    watches = backend.watches(most=2)
    Reader(watches.watch("a")).close()
    Reader(watches.watch("b"))
    assert Reader(watches.watch("c")).last == Pending("Fake at localhost:1: c")
    assert backend.cancelled == ["a"]
    assert backend.gauges()["active"] == 2.0


def test_who_is_one_too_many_is_told_so_and_served_when_there_is_room(backend: Followed[str]) -> None:
    watches = backend.watches(most=1)
    first, second, third = Reader(watches.watch("a")), Reader(watches.watch("b")), Reader(watches.watch("c"))
    assert isinstance(second.last, Failed) and isinstance(second.last.error, NamerError)
    assert str(second.last.error) == "Fake at localhost:1: 1 names are watched already; b is one too many"
    assert backend.counters()["refused"] == 2
    third.close()
    first.close()
    backend.clock.advance(0)
    assert backend.is_followed("b") and not backend.is_followed("a")
    backend.says("b", "x")
    assert second.last == Ok("x")
    assert backend.sessions == {"a": 1, "b": 1}


def test_places_are_given_once(backend: Followed[str]) -> None:
    watches = backend.watches(most=1)
    first = Reader(watches.watch("a"))
    turned = [Reader(watches.watch(key)) for key in ("b", "c")]
    first.close()
    backend.wait(120.0)
    assert [isinstance(reader.last, Failed) for reader in turned] == [False, True]
    turned[0].close()
    backend.clock.advance(0)
    assert not isinstance(turned[1].last, Failed)


# --- answers and errors


def test_an_answer_that_is_the_same_keeps_it_fresh_and_is_not_announced(backend: Followed[str]) -> None:
    watches = backend.watches()
    reader = Reader(watches.watch("web"))
    backend.says("web", "a")
    backend.clock.advance(30.0)
    backend.says("web", "a")
    assert reader.states == [Pending("Fake at localhost:1: web"), Ok("a")]
    assert watches.describe()["web"]["state"]["ageSeconds"] == 0.0
    assert backend.counters()["updates"] == 1


def test_an_error_keeps_the_last_good_answer_and_recovery_is_told_once(backend: Followed[str]) -> None:
    watches = backend.watches(pace=PACE)
    reader = Reader(watches.watch("web"))
    backend.says("web", "a")
    backend.fails("web", DOWN)
    assert reader.last == Ok("a", DOWN)
    backend.wait(20.0)
    backend.says("web", "a")
    backend.says("web", "a")
    assert reader.states[1:] == [Ok("a"), Ok("a", DOWN), Ok("a")]
    assert watches.describe()["web"]["state"]["stale"] is False


def test_the_same_error_again_is_not_announced_and_another_is(backend: Followed[str]) -> None:
    reader = Reader(backend.watches(pace=PACE).watch("web"))
    backend.says("web", "a")
    for error in (DOWN, BackendUnreachable(backend="Fake at localhost:1", reason="connection refused"), FORBIDDEN):
        backend.fails("web", error)
        backend.wait(90.0)
    assert reader.states[1:] == [Ok("a"), Ok("a", DOWN), Ok("a", FORBIDDEN)]
    assert backend.counters()["errors"] == 3


def test_without_a_good_answer_readers_wait_and_know_the_last_error(backend: Followed[str]) -> None:
    reader = Reader(backend.watches(pace=PACE).watch("web"))
    backend.fails("web", DOWN)
    assert reader.last == Pending("web; Fake at localhost:1: connection refused")
    backend.wait(20.0)
    backend.says("web", "a")
    assert reader.last == Ok("a")


def test_without_a_good_answer_a_lasting_error_is_told_and_stays_told(backend: Followed[str]) -> None:
    reader = Reader(backend.watches(pace=PACE).watch("web"))
    backend.fails("web", FORBIDDEN)
    assert reader.last == Failed(FORBIDDEN)
    backend.wait(90.0)
    backend.fails("web", DOWN)
    assert reader.last == Failed(DOWN)
    backend.wait(90.0)
    backend.says("web", "a")
    assert reader.last == Ok("a")


def test_where_any_error_is_to_be_told_readers_do_not_wait(backend: Followed[str]) -> None:
    reader = Reader(backend.watches(fails_at_once=True).watch("web"))
    backend.fails("web", DOWN)
    assert reader.last == Failed(DOWN)


def test_an_absent_value_stands_in_until_the_first_good_answer(backend: Followed[str]) -> None:
    watches = backend.watches(pace=PACE, absent="nothing")
    reader = Reader(watches.watch("web"))
    backend.fails("web", DOWN)
    assert reader.last == Ok("nothing", DOWN)
    assert watches.describe()["web"]["state"]["value"] is None and watches.good_values() == []
    assert backend.gauges()["stale"] == 0.0 and backend.gauges()["failing"] == 1.0
    backend.wait(20.0)
    backend.fails("web", FORBIDDEN)
    assert reader.last == Ok("nothing", FORBIDDEN)
    backend.wait(90.0)
    backend.says("web", "nothing")
    assert reader.last == Ok("nothing")
    assert watches.good_values() == [("web", "nothing")]


def test_bad_news_within_a_session_are_told_and_it_goes_on(backend: Followed[str]) -> None:
    reader = Reader(backend.watches().watch("web"))
    backend.says("web", "a")
    backend.is_bad("web", FORBIDDEN)
    assert reader.last == Ok("a", FORBIDDEN)
    backend.says("web", "b")
    assert reader.last == Ok("b") and backend.sessions == {"web": 1}


def test_what_is_beneath_may_fail_too(backend: Followed[str]) -> None:
    reader = Reader(backend.watches(fails_at_once=True).watch("web"))
    backend.fails("web", NamerError(detail="consul.local: no such host"))
    assert isinstance(reader.last, Failed)
    assert str(reader.last.error) == "Fake at localhost:1: consul.local: no such host"


def test_a_defect_of_a_follower_is_logged_once_and_ends_nothing(backend: Followed[str], logged: Callable[[LogLevel], list[str]]) -> None:
    reader = Reader(backend.watches(pace=PACE).watch("web"))
    for _ in range(3):
        backend.fails("web", KeyError("ServiceAddress"))
        assert isinstance(reader.last, Failed) and isinstance(reader.last.error, BackendDefect)
        backend.wait(90.0)
    backend.says("web", "a")
    assert reader.last == Ok("a")
    assert logged(LogLevel.critical) == ["defect while watching web of Fake at localhost:1"]


def test_a_follower_that_is_none_is_a_defect_and_ends_nothing(backend: Followed[str]) -> None:
    calls: list[str] = []

    def follow(watch: Watch[str, str]) -> Any:
        calls.append(watch.key)

    watches: Watches[str, str] = Watches(
        backend.clock, Random(1), Metrics(), backend="Fake", follow=follow, show=str, show_value=str, pace=PACE
    )
    reader = Reader(watches.watch("web"))
    assert isinstance(reader.last, Failed)
    backend.wait(60.0)
    assert len(calls) >= 2


def test_a_cancellation_that_nobody_here_asked_for_is_a_failure_like_others(backend: Followed[str]) -> None:
    reader = Reader(backend.watches(pace=PACE).watch("web"))
    backend.fails("web", CancelledError())
    assert reader.last == Pending("web; Fake at localhost:1: the request was cancelled")
    backend.wait(20.0)
    assert backend.sessions == {"web": 2}


def test_a_readers_defect_does_not_end_the_watch(backend: Followed[str], logged: Callable[[LogLevel], list[str]]) -> None:
    def broken(state: State[str]) -> None:
        if isinstance(state, Ok):
            raise RuntimeError("reader")

    watches = backend.watches(pace=PACE)
    hold = watches.watch("web").observe(broken)
    backend.says("web", "a")
    backend.fails("web", DOWN)
    backend.wait(20.0)
    assert backend.sessions == {"web": 2}
    assert logged(LogLevel.critical) == ["defect of a reader of web of Fake at localhost:1"] * 2
    hold.close()


# --- sessions, waits, silence


def test_a_session_that_ends_after_an_answer_is_no_failure(backend: Followed[str]) -> None:
    reader = Reader(backend.watches(pace=PACE).watch("web"))
    backend.says("web", "a")
    backend.ends("web")
    assert reader.last == Ok("a") and backend.counters()["errors"] == 0
    backend.wait(20.0)
    assert backend.sessions == {"web": 2}


def test_a_session_that_ends_without_any_answer_is_a_failure(backend: Followed[str]) -> None:
    reader = Reader(backend.watches(pace=PACE).watch("web"))
    backend.ends("web")
    assert reader.last == Pending("web; Fake at localhost:1: it ended the watch without an answer")


def waits(backend: Followed[str], error: BackendError, times: int) -> list[float]:
    """The seconds between failures and the next sessions."""
    found = []
    for _ in range(times):
        backend.fails("web", error)
        began = backend.clock.seconds()
        while not backend.is_followed("web"):
            backend.clock.advance(0.125)
        found.append(backend.clock.seconds() - began)
    return found


def test_attempts_are_made_ever_more_slowly_within_the_bounds(backend: Followed[str]) -> None:
    Reader(backend.watches(pace=PACE).watch("web"))
    found = waits(backend, DOWN, 40)
    assert all(1.0 <= wait <= 10.2 for wait in found)
    assert max(found) > 5.0 and len(set(found)) > 10


def test_what_somebody_must_mend_is_asked_for_slowly(backend: Followed[str]) -> None:
    Reader(backend.watches(pace=PACE).watch("web"))
    assert all(20.0 <= wait <= 60.2 for wait in waits(backend, FORBIDDEN, 20))


def test_waits_begin_anew_after_a_steady_session_only(backend: Followed[str]) -> None:
    Reader(backend.watches(pace=Pace(least=1.0, most=1000.0, steady=5.0)).watch("web"))
    while waits(backend, DOWN, 1)[0] < 50.0:
        pass
    backend.says("web", "a")
    assert waits(backend, DOWN, 1)[0] > 3.2, "a backend that answers once and breaks is no well one"
    while waits(backend, DOWN, 1)[0] < 50.0:
        pass
    backend.says("web", "a")
    backend.clock.advance(5.0)
    assert waits(backend, DOWN, 1)[0] <= 3.2


def test_silence_ends_a_session_and_a_sign_of_life_does_not(backend: Followed[str]) -> None:
    reader = Reader(backend.watches(pace=PACE).watch("web"))
    backend.says("web", "a")
    backend.clock.advance(99.0)
    backend.is_heard("web")
    backend.clock.advance(99.0)
    assert backend.sessions == {"web": 1} and backend.cancelled == []
    backend.clock.advance(2.0)
    assert backend.cancelled == ["web"]
    state = reader.last
    assert isinstance(state, Ok) and isinstance(state.error, BackendSilent) and str(state.error) == "Fake at localhost:1: no word for 100 s"
    backend.wait(20.0)
    assert backend.sessions == {"web": 2}


def test_a_follower_that_does_not_heed_the_end_of_its_session_is_told_again() -> None:
    clock, told = Clock(), list[float]()

    async def follow(watch: Watch[str, str]) -> None:
        for _ in range(2):
            try:
                await Deferred()
            except CancelledError:
                told.append(clock.seconds())

    watches: Watches[str, str] = Watches(clock, Random(1), Metrics(), backend="Fake", follow=follow, show=str, show_value=str, pace=PACE)
    reader = Reader(watches.watch("web"))
    clock.pump([50.0] * 4)
    assert told == [100.0, 200.0]
    assert isinstance(reader.last, Pending) and "without an answer" in reader.last.waiting_for


@pytest.mark.parametrize("seconds", [10.0, 1000.0])
def test_polling_asks_about_every_so_often_and_its_pauses_are_no_silence(seconds: float) -> None:
    clock, asked = Clock(), list[float]()

    async def fetch(key: str) -> str:
        asked.append(clock.seconds())
        return key

    watches: Watches[str, str] = Watches(
        clock, Random(1), Metrics(), backend="F", follow=polled(fetch, seconds, Random(2)), show=str, show_value=str, pace=PACE
    )
    reader = Reader(watches.watch("web"))
    clock.pump([seconds / 100] * 1050)
    pauses = [after - before for before, after in zip(asked, asked[1:], strict=False)]
    assert len(asked) >= 10 and all(0.89 * seconds <= pause <= 1.12 * seconds for pause in pauses)
    assert len(set(pauses)) > 3, "names are not all asked for at once"
    assert reader.states == [Ok("web")]


# --- ends


def test_the_end_of_the_service_ends_everything_and_readers_keep_what_they_know(backend: Followed[str]) -> None:
    watches = backend.watches(pace=PACE, most=3)
    good, waiting, retrying = (Reader(watches.watch(key)) for key in ("good", "waiting", "retrying"))
    turned = Reader(watches.watch("turned away"))
    backend.says("good", "a")
    backend.fails("retrying", DOWN)
    watches.stopService()
    assert sorted(backend.cancelled) == ["good", "waiting"]
    assert backend.clock.getDelayedCalls() == []
    assert good.last == Ok("a") and watches.describe() == {}
    for reader in (good, waiting, retrying, turned):
        reader.close()
    assert backend.clock.getDelayedCalls() == []


def test_the_service_may_end_while_places_are_being_given(backend: Followed[str]) -> None:
    watches = backend.watches(most=1)
    first, _second = Reader(watches.watch("a")), Reader(watches.watch("b"))
    first.close()
    watches.stopService()
    backend.clock.advance(0)
    assert not backend.is_followed("b") and backend.clock.getDelayedCalls() == []


def test_after_the_end_nothing_is_begun(backend: Followed[str]) -> None:
    watches = backend.watches()
    watches.stopService()
    reader = Reader(watches.watch("web"))
    assert reader.states == [PENDING] and backend.sessions == {}
    reader.close()
    assert backend.clock.getDelayedCalls() == []
    watches.startService()
    Reader(watches.watch("web"))
    assert backend.sessions == {"web": 1}


@pytest.mark.parametrize("is_good", [True, False])
def test_a_reader_may_end_the_service_when_it_is_told(
    backend: Followed[str], is_good: bool, logged: Callable[[LogLevel], list[str]]
) -> None:
    watches = backend.watches(pace=PACE)

    def end(state: State[str]) -> None:
        if isinstance(state, Ok | Failed):
            watches.stopService()

    watches.watch("web").observe(end)
    if is_good:
        backend.says("web", "a")
    else:
        backend.fails("web", FORBIDDEN)
    assert idle(backend), "the coroutine ended, though it was running when it was told to"
    backend.wait(200.0)
    assert backend.sessions == {"web": 1} and logged(LogLevel.critical) == []


def test_a_reader_may_leave_and_come_back_when_it_is_told(backend: Followed[str]) -> None:
    watches = backend.watches(pace=PACE)
    reader = Reader(watches.watch("web"))
    found: list[Reader] = []

    def swap(state: State[str]) -> None:
        if isinstance(state, Ok) and not found:
            reader.close()
            hold.close()
            found.append(Reader(watches.watch("web")))

    hold = watches.watch("web").observe(swap)
    backend.says("web", "a")
    assert found[0].states == [Ok("a")]
    backend.says("web", "b")
    assert found[0].last == Ok("b") and backend.sessions == {"web": 1}
    assert backend.gauges()["lingering"] == 0.0


def test_a_reader_may_look_at_other_things_when_it_is_told(backend: Followed[str]) -> None:
    watches = backend.watches(most=2)
    others: list[Reader] = []

    def look(state: State[str]) -> None:
        if isinstance(state, Ok):
            others.append(Reader(watches.watch(f"other {len(others)}")))

    watches.watch("web").observe(look)
    backend.says("web", "a")
    backend.says("web", "b")
    assert others[0].last == Pending("Fake at localhost:1: other 0") and isinstance(others[1].last, Failed)


# --- what operators see


def test_the_log_has_one_line_for_an_outage_and_one_for_its_end(backend: Followed[str], logged: Callable[[LogLevel], list[str]]) -> None:
    watches = backend.watches(pace=PACE)
    _readers = [Reader(watches.watch(key)) for key in ("a", "b", "c")]
    backend.says("a", "x")
    for key in ("a", "b", "c"):
        backend.fails(key, DOWN)
    backend.wait(20.0)
    backend.fails("a", DOWN)
    backend.wait(20.0)
    assert logged(LogLevel.warn) == ["Fake at localhost:1: connection refused; a: the last good answer stays in use, trying again"]
    backend.says("a", "x")
    backend.says("b", "x")
    assert logged(LogLevel.info) == []
    backend.says("c", "x")
    assert logged(LogLevel.info) == ["Fake at localhost:1 answers again after 40.0 s"]


def test_an_outage_of_names_that_nobody_wants_any_more_is_forgotten(
    backend: Followed[str], logged: Callable[[LogLevel], list[str]]
) -> None:
    watches = backend.watches(pace=PACE)
    reader = Reader(watches.watch("a"))
    backend.fails("a", DOWN)
    reader.close()
    backend.wait(70.0)
    Reader(watches.watch("b"))
    backend.fails("b", DOWN)
    assert len(logged(LogLevel.warn)) == 2 and logged(LogLevel.info) == []


def test_the_state_of_each_thing_is_told_as_json_with_its_age_and_error(backend: Followed[str]) -> None:
    watches = backend.watches(pace=PACE)
    Reader(watches.watch("web"))
    backend.says("web", "a")
    backend.clock.advance(2.5)
    backend.fails("web", DOWN)
    described = json.loads(json.dumps(watches.describe()))["web"]
    state, poll = described["state"], described["poll"]
    assert (state["running"], state["observed"], state["stale"], state["value"], state["ageSeconds"]) == (True, True, True, "a", 2.5)
    assert state["lastGoodAt"] == state["lastUpdatedAt"] is not None
    assert (poll["session"], poll["error"]) == (1, "Fake at localhost:1: connection refused")
    assert poll["lastErrorAt"] is not None


def test_gauges_tell_how_many_fail_and_how_old_the_oldest_answer_is(backend: Followed[str]) -> None:
    watches = backend.watches(pace=PACE)
    _readers = [Reader(watches.watch(key)) for key in ("old", "new", "none")]
    backend.says("old", "x")
    backend.clock.advance(10.0)
    backend.says("new", "x")
    assert backend.gauges() | {"active": 3.0, "stale": 0.0, "failing": 0.0, "oldest_stale_ms": 0.0} == backend.gauges()
    for key in ("old", "new", "none"):
        backend.fails(key, DOWN)
    assert backend.gauges() | {"active": 3.0, "stale": 2.0, "failing": 3.0, "oldest_stale_ms": 10_000.0} == backend.gauges()


# --- any course of events

STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["look", "leave", "says", "fails", "forbids", "ends"]), st.sampled_from(["a", "b", "c"])),
        st.tuples(st.just("wait"), st.sampled_from(["1", "15", "70"])),
    ),
    max_size=40,
)


@given(STEPS)
def test_whatever_happens_readers_know_the_last_good_answer_and_nothing_is_left_behind(steps: list[tuple[str, str]]) -> None:
    backend: Followed[str] = Followed()
    watches = backend.watches(pace=PACE, most=2)
    readers: dict[str, Reader] = {}
    count = 0
    for step, key in steps:
        if step == "wait":
            backend.wait(float(key))
        elif step == "look" and key not in readers:
            readers[key] = Reader(watches.watch(key))
        elif step == "leave" and key in readers:
            readers.pop(key).close()
        elif backend.is_followed(key):
            before = readers[key].last if key in readers else None
            if step == "says":
                count += 1
                backend.says(key, str(count))
                assert key not in readers or readers[key].last == Ok(str(count))
            elif step in ("fails", "forbids"):
                backend.fails(key, DOWN if step == "fails" else FORBIDDEN)
                if isinstance(before, Ok):
                    after = readers[key].last
                    assert isinstance(after, Ok) and after.value == before.value and after.error is not None
            elif step == "ends":
                backend.ends(key)
        assert len(watches.describe()) <= 2
    for reader in readers.values():
        reader.close()
    backend.wait(200.0)
    assert watches.describe() == {} and backend.clock.getDelayedCalls() == []
    assert not any(backend.is_followed(key) for key in "abc")


def test_a_malformed_answer_is_lasting(backend: Followed[str]) -> None:
    reader = Reader(backend.watches().watch("web"))
    error = BackendMalformed(backend="Fake at localhost:1", reason="it answered with what is not JSON")
    backend.fails("web", error)
    assert reader.last == Failed(error)
