"""Snapshots of metrics as plain JSON data and back, for the process that shows those of others; and totals that outlive a process.

Names of a metric travel as a list, buckets of a histogram as two lists, since JSON has neither tuples nor integer keys. A process that
serves requests tells its snapshot piece by piece, as it is asked for the next one: writing all of it at once would hold them up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from meshgw.core.slices import Slices, Work, batched, finished
from meshgw.telemetry.histogram import Window
from meshgw.telemetry.metrics import DEFAULT_LIMIT, Names, Snapshot, merging

FADE_SECONDS = 3600.0
"""Longer than the idle time after which a process lets go of a name, 600 s unless ``bindingCache`` says otherwise."""


PIECE = 200
"""Metrics in one piece of a snapshot: 0.5 ms of work for who tells it."""
MOST_TELLINGS = 4
"""Snapshots that are being told at a time; of those that nobody asks for any more the oldest is forgotten."""


def to_plain(snapshot: Snapshot) -> dict[str, Any]:
    """``snapshot`` as JSON data."""
    whole: dict[str, Any] = {"counters": [], "gauges": [], "histograms": [], "peaks": []}
    for piece in plain_pieces(snapshot):
        for kind, values in piece.items():
            whole[kind] += values
    return whole


def plain_pieces(snapshot: Snapshot) -> Iterator[dict[str, Any]]:
    """The same in pieces, each of which has some of its metrics."""
    for counters in batched(snapshot.counters.items(), PIECE):
        yield {"counters": [[list(names), value] for names, value in counters]}
    for gauges in batched(snapshot.gauges.items(), PIECE):
        yield {"gauges": [[list(names), value] for names, value in gauges]}
    for histograms in batched(snapshot.histograms.items(), PIECE // 4):
        yield {
            "histograms": [
                [list(names), window.total, window.unit, list(window.buckets), list(window.buckets.values())]
                for names, window in histograms
            ]
        }
    for peaks in batched(snapshot.peaks, PIECE):
        yield {"peaks": [list(names) for names in peaks]}


def from_plain(content: Any) -> Snapshot:
    """The snapshot that :func:`to_plain` wrote."""
    heard = Heard()
    heard.add(content)
    return heard.snapshot


class Heard:
    """A snapshot of which the pieces come one after the other."""

    def __init__(self) -> None:
        self._counters: dict[Names, int] = {}
        self._gauges: dict[Names, float] = {}
        self._histograms: dict[Names, Window] = {}
        self._peaks: set[Names] = set()

    def add(self, piece: Any) -> None:
        """Take a piece."""
        self._counters.update((tuple(names), value) for names, value in piece.get("counters", ()))
        self._gauges.update((tuple(names), value) for names, value in piece.get("gauges", ()))
        for names, total, unit, buckets, counts in piece.get("histograms", ()):
            self._histograms[tuple(names)] = Window(total, dict(zip(buckets, counts, strict=True)), unit)
        self._peaks.update(tuple(names) for names in piece.get("peaks", ()))

    @property
    def snapshot(self) -> Snapshot:
        """What came so far."""
        return Snapshot(self._counters, self._gauges, self._histograms, frozenset(self._peaks))


class Telling:
    """Tells snapshots piece by piece to a process that asks for them."""

    def __init__(self, slices: Slices, read: Callable[[], Work[Snapshot]]) -> None:
        self._slices, self._read = slices, read
        self._pieces: dict[int, Iterator[dict[str, Any]]] = {}
        self._last = 0

    async def next(self, number: int | None) -> dict[str, Any]:
        """The first piece of a new snapshot, or the next one of that ``number``, which is ``more`` in the piece while there is more.

        Of one that was forgotten there is nothing more.
        """
        if number is None:
            snapshot = await self._slices.run(self._read())
            self._last = number = self._last + 1
            self._pieces[number] = plain_pieces(snapshot)
            if len(self._pieces) > MOST_TELLINGS:
                del self._pieces[min(self._pieces)]
        piece = next(self._pieces.get(number, iter(())), None)
        if piece is None:
            self._pieces.pop(number, None)
            return {}
        return {**piece, "more": number}


class Retired:
    """What processes that have ended had counted, so that the sum over processes never goes backwards.

    A name that no process has had for ``FADE_SECONDS`` fades away. Whether one has it is only known when it tells its figures: a process
    that has just begun has none of the names that its predecessor was asked for a moment ago.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        """``seconds`` is a clock."""
        self._seconds = seconds
        self._counters: dict[Names, int] = {}
        self._seen: dict[Names, float] = {}

    def add(self, ended: Snapshot) -> None:
        """Keep the counters of a process that ended."""
        now = self._seconds()
        for names, count in ended.counters.items():
            if names in self._counters or len(self._counters) < DEFAULT_LIMIT:
                self._counters[names] = self._counters.get(names, 0) + count
                self._seen[names] = now

    def merged(self, living: Sequence[Snapshot]) -> Snapshot:
        """The figures that ``living`` told just now, with the counts of those that ended."""
        return finished(self.merging(living))

    def merging(self, living: Sequence[Snapshot]) -> Work[Snapshot]:
        """The same, little by little."""
        self._fade(living)
        return (yield from merging([*living, Snapshot(counters=dict(self._counters))]))

    def _fade(self, living: Sequence[Snapshot]) -> None:
        now = self._seconds()
        for snapshot in living:
            for names in snapshot.counters.keys() & self._seen.keys():
                self._seen[names] = now
        for names in [names for names, seen in self._seen.items() if now - seen > FADE_SECONDS]:
            del self._seen[names], self._counters[names]
