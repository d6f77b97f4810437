from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meshgw.core.slices import Slices, Work
from meshgw.telemetry import transfer
from meshgw.telemetry.histogram import Histogram, Window
from meshgw.telemetry.metrics import Metrics, Names, Snapshot, merge
from meshgw.telemetry.transfer import FADE_SECONDS, MOST_TELLINGS, PIECE, Heard, Retired, Telling, from_plain, plain_pieces, to_plain

names = st.lists(st.text(max_size=5), min_size=1, max_size=3).map(tuple)
counts = st.integers(0, 1 << 60)
windows = st.builds(
    Window,
    st.floats(0, 1e12),
    st.dictionaries(st.integers(0, 5000), st.integers(1, 1 << 40), max_size=6),
    st.sampled_from([1, 1000]),
)
snapshots = st.builds(
    Snapshot,
    counters=st.dictionaries(names, counts, max_size=6),
    gauges=st.dictionaries(names, st.floats(allow_nan=False), max_size=6),
    histograms=st.dictionaries(names, windows, max_size=4),
    peaks=st.frozensets(names, max_size=4),
)


def sent(snapshot: Snapshot) -> Snapshot:
    """What arrives at the other process."""
    return from_plain(json.loads(json.dumps(to_plain(snapshot))))


@given(snapshots)
def test_a_snapshot_arrives_as_it_was_sent(snapshot: Snapshot) -> None:
    assert sent(snapshot) == snapshot


@given(st.lists(snapshots, min_size=1, max_size=3))
def test_snapshots_that_were_sent_merge_as_those_that_were_not(found: list[Snapshot]) -> None:
    assert merge([sent(snapshot) for snapshot in found]) == merge(found)


def test_the_figures_of_real_metrics_arrive() -> None:
    metrics = Metrics()
    metrics.counter("rt", "a/b", "requests").incr(3)
    metrics.gauge("up", function=lambda: 1.5, most=True)
    latency: Histogram = metrics.histogram("latency_ms")
    latency.add(0.35)
    latency.rotate()
    metrics.outcomes("rt", "a/b", "server")
    found = metrics.snapshot()
    assert sent(found) == found
    assert found.counters["rt", "a/b", "requests"] == 3


@given(snapshots)
def test_a_snapshot_told_in_pieces_arrives_whole(snapshot: Snapshot) -> None:
    heard = Heard()
    for piece in plain_pieces(snapshot):
        heard.add(json.loads(json.dumps(piece)))
    assert heard.snapshot == snapshot


def many(count: int) -> Snapshot:
    return Snapshot(counters={("n", str(number)): number for number in range(count)})


def reading(snapshot: Snapshot) -> Work[Snapshot]:
    yield
    return snapshot


def asked(telling: Telling, number: int | None) -> dict[str, Any]:
    answers: list[dict[str, Any]] = []
    Deferred.fromCoroutine(telling.next(number)).addBoth(answers.append)
    return answers[0]


def test_a_large_snapshot_is_told_piece_by_piece() -> None:
    telling = Telling(Slices(Clock()), lambda: reading(many(3 * PIECE)))
    heard, number, pieces = Heard(), None, 0
    while True:
        piece = asked(telling, number)
        heard.add(piece)
        number = piece.get("more")
        if number is None:
            break
        pieces += 1
        assert len(piece["counters"]) <= PIECE
    assert pieces == 3
    assert heard.snapshot == many(3 * PIECE)


def test_tellings_that_nobody_goes_on_with_are_forgotten() -> None:
    telling = Telling(Slices(Clock()), lambda: reading(many(3 * PIECE)))
    first = asked(telling, None)["more"]
    for _ in range(MOST_TELLINGS):
        latest = asked(telling, None)["more"]
    assert asked(telling, first) == {}
    assert asked(telling, latest)["more"] == latest


def of(**counters: int) -> Snapshot:
    return Snapshot(counters={(name,): count for name, count in counters.items()})


def totals(retired: Retired, *living: Snapshot) -> dict[str, int]:
    return {names[0]: count for names, count in retired.merged(living).counters.items()}


def test_what_a_process_had_counted_outlives_it() -> None:
    retired = Retired(Clock().seconds)
    retired.add(of(a=3, b=1))
    retired.add(of(a=4))
    assert totals(retired, of(a=1, c=5)) == {"a": 8, "b": 1, "c": 5}


def test_a_name_that_others_have_not_told_of_yet_is_kept() -> None:
    retired = Retired(Clock().seconds)
    retired.add(of(rare=5, often=9))
    retired.add(of(often=1))  # a short life, in which nobody asked for the other
    assert totals(retired, of(often=1)) == {"rare": 5, "often": 11}


def test_a_name_that_nobody_has_any_more_fades_away() -> None:
    clock = Clock()
    retired = Retired(clock.seconds)
    retired.add(of(gone=5, used=9))
    for _ in range(3):
        clock.advance(FADE_SECONDS / 2)
        found = totals(retired, of(used=1))
    assert found == {"used": 10}


def test_a_name_is_not_forgotten_while_nobody_looks() -> None:
    clock = Clock()
    retired = Retired(clock.seconds)
    retired.add(of(a=5))
    clock.advance(10 * FADE_SECONDS)
    retired.add(of(b=1))
    retired.add(of(a=1))
    assert totals(retired) == {"a": 6, "b": 1}


def test_names_are_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(transfer, "DEFAULT_LIMIT", 3)
    retired = Retired(Clock().seconds)
    for number in range(10):
        retired.add(of(**{f"n{number}": 1, "n0": 1}))
    assert totals(retired) == {"n0": 10, "n1": 1, "n2": 1}


def test_what_was_merged_before_does_not_change_later() -> None:
    retired = Retired(Clock().seconds)
    retired.add(of(a=1))
    before = retired.merged([])
    retired.add(of(a=1))
    assert before.counters["a",] == 1


class Life(RuleBasedStateMachine):
    """Processes count, tell, die with or without a farewell, and are replaced; what was told in sum never goes backwards."""

    @initialize()
    def begin(self) -> None:
        self.retired = Retired(Clock().seconds)
        self.counted: list[dict[Names, int]] = [defaultdict(int), defaultdict(int)]
        self.told: list[Snapshot] = [Snapshot(), Snapshot()]
        self.reported: dict[Names, int] = {}

    @rule(process=st.integers(0, 9), name=st.sampled_from("abc"), by=st.integers(1, 5))
    def count(self, process: int, name: str, by: int) -> None:
        self.counted[process % len(self.counted)][name,] += by

    @rule(process=st.integers(0, 9), farewell=st.booleans())
    def die(self, process: int, farewell: bool) -> None:
        if len(self.counted) > 1:
            index = process % len(self.counted)
            last = Snapshot(counters=dict(self.counted[index])) if farewell else self.told[index]
            del self.counted[index], self.told[index]
            self.retired.add(last)

    @rule()
    def begin_another(self) -> None:
        self.counted.append(defaultdict(int))
        self.told.append(Snapshot())

    @rule(silent=st.integers(0, 9))
    def report(self, silent: int) -> None:
        """All tell their figures but one, which is too slow."""
        for index, counted in enumerate(self.counted):
            if index != silent:
                self.told[index] = Snapshot(counters=dict(counted))
        merged = dict(self.retired.merged(self.told).counters)
        for names, count in self.reported.items():
            assert merged.get(names, 0) >= count, names
        self.reported = merged

    @invariant()
    def nothing_is_invented(self) -> None:
        if hasattr(self, "told"):
            assert len(self.told) == len(self.counted)


TestLife = Life.TestCase
