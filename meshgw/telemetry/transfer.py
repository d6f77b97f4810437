"""Snapshots of metrics as plain JSON data and back, for the process that shows those of others; and totals that outlive a process.

Names of a metric travel as a list, buckets of a histogram as two lists, since JSON has neither tuples nor integer keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from meshgw.telemetry.histogram import Window
from meshgw.telemetry.metrics import DEFAULT_LIMIT, Names, Snapshot, merge

FADE_SECONDS = 3600.0
"""Longer than the idle time after which a process lets go of a name, 600 s unless ``bindingCache`` says otherwise."""


def to_plain(snapshot: Snapshot) -> dict[str, Any]:
    """``snapshot`` as JSON data."""
    return {
        "counters": [[list(names), value] for names, value in snapshot.counters.items()],
        "gauges": [[list(names), value] for names, value in snapshot.gauges.items()],
        "histograms": [
            [list(names), window.total, window.unit, list(window.buckets), list(window.buckets.values())]
            for names, window in snapshot.histograms.items()
        ],
        "peaks": [list(names) for names in snapshot.peaks],
    }


def from_plain(content: Any) -> Snapshot:
    """The snapshot that :func:`to_plain` wrote."""
    return Snapshot(
        counters={tuple(names): value for names, value in content["counters"]},
        gauges={tuple(names): value for names, value in content["gauges"]},
        histograms={
            tuple(names): Window(total, dict(zip(buckets, counts, strict=True)), unit)
            for names, total, unit, buckets, counts in content["histograms"]
        },
        peaks=frozenset(tuple(names) for names in content["peaks"]),
    )


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
        self._fade(living)
        return merge([*living, Snapshot(counters=dict(self._counters))])

    def _fade(self, living: Sequence[Snapshot]) -> None:
        now = self._seconds()
        for snapshot in living:
            for names in snapshot.counters.keys() & self._seen.keys():
                self._seen[names] = now
        for names in [names for names, seen in self._seen.items() if now - seen > FADE_SECONDS]:
            del self._seen[names], self._counters[names]
