"""Request accounting of one scope at the least cost per request; the exported metrics are derived from it.

Source: linkerd-config spec 9.9 (names and counting rules). A request costs one addition when it begins, and one dictionary
lookup and a few additions when it ends: everything a status tells (success, class, histogram) is worked out at export. With
``telemetry.histogram`` this is a leaf part behind a narrow interface: the hot path knows :class:`Cell`'s two figures, ``cells``,
``cell()``, ``started`` and ``bucket_of``, so a compiled twin needs no more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, MutableMapping

from meshgw.telemetry.histogram import Window, joined

CLASSIFIED_FAILURE = "com.twitter.finagle.service.ResponseClassificationSyntheticException"
"""The exception name under which Linkerd counts an answer that was classified as a failure; dashboards look for it."""

MAX_CELLS = 64  # statuses and exception names of one scope; what a server may invent must not grow the table without end
MICROS_PER_MS = 1000
STATUS_CLASSES = ("1XX", "2XX", "3XX", "4XX", "5XX", "error")
"""Told from the beginning: a panel of a gateway without errors shows 0 instead of nothing, and a rate sees the first error, too."""

Names = tuple[str, ...]


class Cell:
    """The requests that ended in one way: how many ever, and their latencies (microseconds) in this interval.

    One is counted by its latency: ``sum`` grows by it, and its bucket by one.
    """

    __slots__ = ("_before", "buckets", "error", "status", "success", "sum", "window")

    def __init__(self, status: int, success: bool, error: str) -> None:
        self.status, self.success, self.error = status, success, error
        self._before = 0
        """Requests of earlier intervals."""
        self.sum = 0
        self.buckets: defaultdict[int, int] = defaultdict(int)
        self.window: Window | None = None

    @property
    def count(self) -> int:
        """How many ever, which is not counted apart: that would cost each request what only readers need."""
        return self._before + sum(self.buckets.values())

    def give(self, others: Iterable[Cell]) -> None:
        """Add what was counted here to each of ``others``, and begin at nothing again."""
        for other in others:
            other._before += self._before
            other.sum += self.sum
            for bucket, count in self.buckets.items():
                other.buckets[bucket] += count
        self._before = self.sum = 0
        self.buckets.clear()

    def rotate(self) -> None:
        """End the interval."""
        self._before = self.count
        self.window = Window(self.sum / MICROS_PER_MS, self.buckets, MICROS_PER_MS)
        self.buckets, self.sum = defaultdict(int), 0


class Outcomes:
    """Counts requests by how they ended. ``folded`` is called when an outcome is counted under a coarser one for lack of room."""

    __slots__ = ("_pending", "_rotated", "_status", "cells", "folded", "started")

    def __init__(self, *, status: bool, pending: bool, folded: Callable[[], None]) -> None:
        self.started = 0
        """Requests begun; counted by whoever begins them."""
        self.cells: dict[int | str, Cell] = {}
        """By outcome, see :meth:`cell`; the hot path reads it directly."""
        self._status, self._pending, self.folded = status, pending, folded
        self._rotated = False

    def began(self) -> None:
        """A request started."""
        self.started += 1

    def ended(self, status: int, success: bool, bucket: int, micros: int) -> None:
        """A request was answered with ``status``; ``bucket`` is ``bucket_of(micros)``, worked out once for all scopes."""
        self._count(status if success else -status, bucket, micros)

    def failed(self, exception_name: str, bucket: int, micros: int) -> None:
        """A request ended without an answer, by the error of that name."""
        self._count(exception_name, bucket, micros)

    def _count(self, outcome: int | str, bucket: int, micros: int) -> None:
        cell = self.cells.get(outcome) or self.cell(outcome)
        cell.sum += micros
        cell.buckets[bucket] += 1

    @property
    def pending(self) -> int:
        """Requests started and not ended yet."""
        return self.started - sum(cell.count for cell in self.cells.values())

    def cell(self, outcome: int | str) -> Cell:
        """The cell of an outcome: a status that is a success, a negative status that is a failure, or an error's name."""
        known = self.cells.get(outcome)
        if known is not None:
            return known
        if len(self.cells) >= MAX_CELLS:
            self.folded()
            if isinstance(outcome, str):
                outcome = "other"
            else:
                outcome = outcome // 100 * 100 if outcome >= 0 else -(-outcome // 100 * 100)
        if isinstance(outcome, str):
            made = Cell(0, False, outcome)
        else:
            made = Cell(abs(outcome), outcome >= 0, "" if outcome >= 0 else CLASSIFIED_FAILURE)
        return self.cells.setdefault(outcome, made)

    def rotate(self) -> None:
        """End the interval of all latency histograms."""
        self._rotated = True
        for cell in self.cells.values():
            cell.rotate()

    def collect(
        self,
        names: Names,
        counters: MutableMapping[Names, int],
        gauges: MutableMapping[Names, float],
        histograms: MutableMapping[Names, Window],
    ) -> None:
        """Add the metrics derived from the counts to those of a snapshot, under ``names``."""
        cells = {cell: cell.count for cell in self.cells.values()}
        done = sum(cells.values())
        counters[(*names, "requests")] = done
        counters[(*names, "success")] = sum(count for cell, count in cells.items() if cell.success)
        counters[(*names, "failures")] = sum(count for cell, count in cells.items() if not cell.success)
        for cell, count in cells.items():
            if not cell.success:
                _add(counters, (*names, "failures", cell.error), count)
        if self._pending:
            gauges[(*names, "pending")] = float(self.started - done)
        if self._rotated:
            histograms[(*names, "request_latency_ms")] = _window(cells)
        if self._status:
            self._collect_status(names, cells, counters, histograms)

    def _collect_status(
        self, names: Names, cells: Mapping[Cell, int], counters: MutableMapping[Names, int], histograms: MutableMapping[Names, Window]
    ) -> None:
        classes: dict[str, list[Cell]] = {}
        for cell, count in cells.items():
            label = f"{cell.status // 100}XX" if cell.status else "error"
            classes.setdefault(label, []).append(cell)
            if cell.status:
                _add(counters, (*names, "status", str(cell.status)), count)
        for label in STATUS_CLASSES:
            counters[(*names, "status", label)] = 0
        for label, members in classes.items():
            counters[(*names, "status", label)] = sum(cells[cell] for cell in members)
            if self._rotated:
                histograms[(*names, "time", label)] = _window(members)


def _add(counters: MutableMapping[Names, int], names: Names, count: int) -> None:
    counters[names] = counters.get(names, 0) + count


def _window(cells: Iterable[Cell]) -> Window:
    windows = [cell.window for cell in cells if cell.window is not None and cell.window.buckets]
    return windows[0] if len(windows) == 1 else joined(windows or [Window(0.0, {}, MICROS_PER_MS)])
