"""Spans on their way to a collector that takes them, is busy, slow, gone, or refuses them; and the end of the process meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from fakes.spans import server_span, traced
from meshgw.errors import BackendUnreachable
from meshgw.telemetry.metrics import Metrics
from meshgw.telemetry.span_queue import (
    MOST_ATTEMPTS,
    MOST_WAIT,
    STOP_SECONDS,
    CollectorAway,
    Limits,
    SpanQueue,
    SpanSender,
    SpansRefused,
    cost,
)
from meshgw.telemetry.spans import Span

AWAY = CollectorAway(reason="connection refused")


class Collector:
    """Takes batches as ``answers`` say: an exception is raised, a Deferred is waited for; without one it takes the batch."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.always: Any = None
        self.asked: list[list[str]] = []
        self.taken: list[list[str]] = []

    async def deliver(self, spans: Sequence[Span]) -> None:
        names = [span.name for span in spans]
        self.asked.append(names)
        answer = self.answers.pop(0) if self.answers else self.always
        if isinstance(answer, Deferred):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        self.taken.append(names)


class Setting:
    """A sender that is started, its clock and its collector; batches have three spans."""

    def __init__(self, **limits: Any) -> None:
        self.clock, self.collector, self.metrics = Clock(), Collector(), Metrics()
        self.clock.advance(1000)
        self.limits = Limits(**{"most_spans": 10, "batch_spans": 3, **limits})
        self.sender = SpanSender(
            self.clock, Random(4), self.metrics.scope("telemetry", "x"), self.collector.deliver, where="the collector", limits=self.limits
        )
        self.lines: list[str] = []
        self.sender.startService()

    def record(self, *names: str) -> None:
        for name in names:
            self.sender.record((server_span(name=name),))

    def pass_time(self, seconds: float) -> None:
        """In steps, as what comes of one call may be another."""
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)

    def stop(self) -> list[None]:
        done: list[None] = []
        self.sender.stopService().addCallback(done.append)
        return done

    @property
    def counts(self) -> dict[str, int]:
        scope = self.metrics.scope("telemetry", "x")
        return {name: scope.counter(name).value for name in ("sent", "dropped", "failures")} | {"queued": int(scope.gauge("queued").value)}

    def observe(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "meshgw.telemetry.span_queue" and event["log_level"].name in ("warn", "info", "critical"):
            self.lines.append(f"{event['log_level'].name}: {formatEvent(event)}")


@pytest.fixture
def on(request: pytest.FixtureRequest) -> Setting:
    setting = Setting(**getattr(request, "param", {}))
    globalLogPublisher.addObserver(setting.observe)
    request.addfinalizer(lambda: globalLogPublisher.removeObserver(setting.observe))
    return setting


def test_few_spans_wait_for_more_and_go_together(on: Setting) -> None:
    on.record("a", "b")
    on.clock.advance(0.9)
    assert on.collector.asked == []
    on.clock.advance(0.2)
    assert on.collector.taken == [["a", "b"]]
    assert on.counts == {"sent": 2, "dropped": 0, "failures": 0, "queued": 0}
    assert on.clock.getDelayedCalls() == []


def test_whole_batch_goes_at_once_but_not_within_the_request(on: Setting) -> None:
    on.record("a", "b", "c", "d")
    assert on.collector.asked == []
    on.clock.advance(0)
    assert on.collector.taken == [["a", "b", "c"]]
    on.clock.advance(1.0)
    assert on.collector.taken == [["a", "b", "c"], ["d"]]


def test_one_batch_is_under_way_at_a_time(on: Setting) -> None:
    on.collector.answers = [answer := Deferred()]
    on.record(*"abcdef")
    on.clock.advance(0)
    assert on.collector.asked == [["a", "b", "c"]]
    answer.callback(None)
    assert on.collector.taken == [["a", "b", "c"], ["d", "e", "f"]]


def test_batch_ends_at_its_size_in_bytes(request: pytest.FixtureRequest) -> None:
    on = Setting(batch_bytes=2 * cost(server_span(name="a")))
    on.record("a", "b", "c")
    on.clock.advance(0)
    on.clock.advance(1)
    assert on.collector.taken == [["a", "b"], ["c"]]


def test_what_does_not_fit_is_dropped_and_counted(on: Setting) -> None:
    on.collector.always = AWAY
    on.record(*"abc")
    on.clock.advance(0)
    on.record(*"abcdefghijkl")
    assert on.counts == {"sent": 0, "dropped": 2, "failures": 1, "queued": 13}


def test_collector_that_is_too_slow_is_told_of_once_a_minute() -> None:
    on = Setting(request_seconds=600.0)
    globalLogPublisher.addObserver(on.observe)
    try:
        on.collector.always = Deferred()
        for _ in range(59):
            on.record(*"abc")
            on.clock.advance(1)
        assert on.lines == ["warn: the collector takes spans more slowly than they come: some are dropped; a lower sampleRate helps"]
        on.record(*"abc")
        on.clock.advance(10)
        on.record(*"abc")
    finally:
        globalLogPublisher.removeObserver(on.observe)
    assert len(on.lines) == 2


def test_queue_is_bounded_by_bytes_too() -> None:
    queue = SpanQueue(100, 3 * cost(server_span()))
    assert [queue.put((server_span(),)) for _ in range(4)] == [1, 1, 1, 0]
    queue.take(1, 1)
    assert queue.put((server_span(),))
    assert not queue.put((server_span(),))


def test_request_whose_spans_do_not_all_fit_gives_none() -> None:
    queue = SpanQueue(5, 1 << 20)
    assert [queue.put(traced(number, attempts=2)) for number in range(2)] == [3, 0]
    assert queue.put(traced(3)) == 2
    assert len(queue) == 5


def test_spans_of_a_request_stay_together_in_a_batch() -> None:
    queue = SpanQueue(100, 1 << 20)
    for number in range(3):
        queue.put(traced(number, attempts=2))
    assert [len(spans) for spans in queue.take(8, 1 << 20)] == [3, 3]
    assert [len(spans) for spans in queue.take(1, 1)] == [3]
    assert (len(queue), queue.take(1, 1)) == (0, [])


def test_request_larger_than_a_batch_goes_alone() -> None:
    queue = SpanQueue(10, 1 << 20)
    queue.put((server_span(tags={"big": "x" * 1000}),))
    queue.put((server_span(name="next"),))
    assert [span.name for spans in queue.take(10, 100) for span in spans] == ["GET"]


def test_collector_that_comes_back_gets_what_waited(on: Setting) -> None:
    on.collector.answers = [AWAY, AWAY, AWAY]
    on.record(*"abc")
    on.pass_time(20)
    assert on.collector.taken == [["a", "b", "c"]]
    assert on.counts == {"sent": 3, "dropped": 0, "failures": 3, "queued": 0}


def test_outage_is_told_once_and_so_is_its_end(on: Setting) -> None:
    on.collector.always = AWAY
    on.record(*"abc")
    on.pass_time(5)
    on.record(*"abcdefghijklmn")
    on.collector.always = None
    on.pass_time(20)
    assert on.lines == [
        "warn: the collector does not take spans: connection refused; trying again",
        "info: the collector takes spans again; 4 were dropped meanwhile",
    ]


def test_waits_grow_and_have_an_end(on: Setting) -> None:
    on.collector.always = AWAY
    on.record(*"abc")
    moments = []
    for _ in range(1200):
        before = len(on.collector.asked)
        on.clock.advance(0.1)
        if len(on.collector.asked) > before:
            moments.append(on.clock.seconds())
    waits = [after - before for before, after in zip(moments, moments[1:], strict=False)]
    assert len(on.collector.asked) == MOST_ATTEMPTS
    assert min(waits) >= 0.4 and max(waits) <= 15.2
    assert on.counts == {"sent": 0, "dropped": 3, "failures": MOST_ATTEMPTS, "queued": 0}


def test_collector_says_how_long_to_wait(on: Setting) -> None:
    on.collector.answers = [CollectorAway(reason="429", wait=30.0)]
    on.record(*"abc")
    on.clock.advance(0)
    on.pass_time(29.5)
    assert len(on.collector.asked) == 1
    on.pass_time(1)
    assert on.collector.taken == [["a", "b", "c"]]


def test_collector_may_not_ask_for_hours(on: Setting) -> None:
    on.collector.answers = [CollectorAway(reason="429", wait=1e6)]
    on.record(*"abc")
    on.clock.advance(0)
    on.pass_time(MOST_WAIT + 1)
    assert on.collector.taken == [["a", "b", "c"]]


def test_refused_batch_is_dropped_and_the_next_is_tried(on: Setting) -> None:
    on.collector.answers = [SpansRefused(reason="400 (bad span)")]
    on.record(*"abcdef")
    on.clock.advance(0)
    assert on.collector.taken == [["d", "e", "f"]]
    assert on.counts == {"sent": 3, "dropped": 3, "failures": 1, "queued": 0}
    assert on.lines[0] == "warn: the collector does not take spans: 400 (bad span); they are dropped"


def test_other_errors_of_a_backend_count_as_away(on: Setting) -> None:
    on.collector.answers = [BackendUnreachable(backend="x", reason="connection refused")]
    on.record(*"abc")
    on.pass_time(2)
    assert on.collector.taken == [["a", "b", "c"]]


def test_slow_collector_is_waited_for_within_the_limit(on: Setting) -> None:
    cancelled: list[object] = []
    on.collector.answers = [Deferred(cancelled.append)]
    on.record(*"abc")
    on.clock.advance(0)
    on.clock.advance(0.9)
    assert cancelled == []
    on.pass_time(3)
    assert len(cancelled) == 1
    assert on.collector.taken == [["a", "b", "c"]]
    assert on.lines[0] == "warn: the collector does not take spans: no answer within 1 s; trying again"


def test_collector_that_takes_every_other_batch_is_told_of_once_a_minute(on: Setting) -> None:
    for _ in range(30):
        on.collector.answers = [SpansRefused(reason="400"), None]
        on.record(*"abcdef")
        on.pass_time(1)
    assert len([line for line in on.lines if line.startswith("warn")]) == 1


def test_defect_costs_its_batch_only(on: Setting) -> None:
    on.collector.answers = [ZeroDivisionError()]
    on.record(*"abcdef")
    on.clock.advance(0)
    assert on.collector.taken == [["d", "e", "f"]]
    assert on.counts["dropped"] == 3
    assert on.lines == ["critical: 3 spans cannot be told to the collector"]


# --- whatever happens

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.integers(1, 12)),
        st.tuples(st.just("pass"), st.floats(0.0, 30.0)),
        st.tuples(
            st.just("answers"),
            st.lists(st.sampled_from([None, AWAY, SpansRefused(reason="400"), ZeroDivisionError(), "silence"]), max_size=8),
        ),
    ),
    max_size=25,
)


@given(STEPS)
def test_every_span_is_sent_dropped_or_waiting_and_none_waits_after_the_end(steps: list[tuple[str, Any]]) -> None:
    on, recorded = Setting(), 0
    for step, value in steps:
        if step == "record":
            on.record(*["x"] * value)
            recorded += value
        elif step == "pass":
            on.clock.advance(value)
        else:
            on.collector.answers = [Deferred() if answer == "silence" else answer for answer in value]
        counts = on.counts
        assert counts["sent"] + counts["dropped"] + counts["queued"] == recorded
        assert counts["queued"] <= on.limits.most_spans + on.limits.batch_spans
        assert sum(len(batch) for batch in on.collector.taken) == counts["sent"]
    done = on.stop()
    on.clock.advance(STOP_SECONDS)
    assert done == [None]
    counts = on.counts
    assert (counts["sent"] + counts["dropped"], counts["queued"]) == (recorded, 0)
    assert on.clock.getDelayedCalls() == []


# --- the end


def test_end_sends_what_waits(on: Setting) -> None:
    on.record("a", "b")
    assert on.stop() == [None]
    assert on.collector.taken == [["a", "b"]]
    assert on.clock.getDelayedCalls() == []


def test_end_sends_all_batches_of_a_full_queue(on: Setting) -> None:
    on.collector.answers = [answer := Deferred()]
    on.record(*"abcdefghij")
    on.clock.advance(0)
    done = on.stop()
    assert done == []
    answer.callback(None)
    assert done == [None]
    assert [len(batch) for batch in on.collector.taken] == [3, 3, 3, 1]
    assert on.counts == {"sent": 10, "dropped": 0, "failures": 0, "queued": 0}


def test_end_does_not_wait_for_a_collector_that_is_away(on: Setting) -> None:
    on.collector.always = AWAY
    on.record(*"abcdefghij")
    on.clock.advance(0)
    assert on.stop() == [None]
    assert len(on.collector.asked) == 2  # once more, as it may just have come back
    assert on.counts == {"sent": 0, "dropped": 10, "failures": 2, "queued": 0}
    assert on.clock.getDelayedCalls() == []


def test_end_waits_for_a_silent_collector_within_its_limit() -> None:
    on = Setting(request_seconds=60.0)
    on.collector.always = Deferred()
    on.record(*"abcdefghij")
    on.clock.advance(0)
    done = on.stop()
    on.clock.advance(STOP_SECONDS - 0.1)
    assert done == []
    on.clock.advance(0.2)
    assert done == [None]
    assert on.counts == {"sent": 0, "dropped": 10, "failures": 0, "queued": 0}
    assert on.clock.getDelayedCalls() == []


def test_spans_that_come_after_the_end_are_dropped(on: Setting) -> None:
    on.stop()
    on.sender.record(traced())
    assert on.counts["dropped"] == 2
    assert on.clock.getDelayedCalls() == []


def test_two_telemeters_of_a_kind_share_their_counts() -> None:
    on = Setting()
    other = SpanSender(on.clock, Random(1), on.metrics.scope("telemetry", "x"), on.collector.deliver, where="another")
    other.startService()
    on.record("a")
    other.record((server_span(name="b"),))
    assert on.counts["queued"] == 2
    on.clock.advance(1)
    assert on.counts == {"sent": 2, "dropped": 0, "failures": 0, "queued": 0}
