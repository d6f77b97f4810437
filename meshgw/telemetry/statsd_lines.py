"""Snapshots of metrics as StatsD's lines.

Source: linkerd-config spec 9.3 (names); StatsD's "Metric Types" for the lines. Pure: where they are sent is ``telemetry.statsd``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from random import Random

from meshgw.core.slices import Work
from meshgw.telemetry.export import HISTOGRAMS_AT_ONCE, Kept
from meshgw.telemetry.histogram import Window, value_of
from meshgw.telemetry.metrics import Names

MOST_TIMINGS = 10_000
"""Samples of one interval, as long as Linkerd's queue; of busier ones a smaller part is taken, and that is told."""
LEAST_RATE = 1e-6
"""A smaller part cannot be written, and is as good as none."""
PACKET_BYTES = 1432
"""What fits into an Ethernet frame; StatsD's own recommendation."""
LONGEST_LINE = 8192
"""A name that a caller made longer than this is not sent."""
PAUSE_COUNTERS = 200
PAUSE = ""
"""No line, but a chance for others to go on: after so many counters, most of which may not have changed."""

_FOREIGN = re.compile(r"[^/A-Za-z0-9]")
_SLASHES = re.compile(r"//+")


class StatsdLines:
    """Turns what was counted since the last time into lines."""

    def __init__(self, prefix: str, sample_rate: float, random: Random) -> None:
        self._prefix, self._sample_rate, self._random = prefix, sample_rate, random
        self._counter_names: Kept[str] = Kept()
        self._gauge_names: Kept[str] = Kept()
        self._told: dict[Names, int] = {}
        self._samples: list[tuple[str, float, str]] = []

    def counters(self, counters: Mapping[Names, int]) -> Iterator[str]:
        """What was added to each since this was asked last; of one that began anew, all that it has."""
        told: dict[Names, int] = {}
        for number, (names, count) in enumerate(counters.items()):
            if number % PAUSE_COUNTERS == 0:
                yield PAUSE
            before = self._told.get(names, 0)
            told[names] = count
            if count != before:
                yield f"{self._name(self._counter_names, names)}:{count - before if count > before else count}|c"
        self._told = told
        self._counter_names.turn()

    def gauges(self, gauges: Mapping[Names, float]) -> Iterator[str]:
        """The values now."""
        for names, value in gauges.items():
            if math.isfinite(value):
                name = self._name(self._gauge_names, names)
                # a sign means a change, so that a value below zero is told as one of zero
                yield f"{name}:0|g\n{name}:{_plain(value)}|g" if value < 0 else f"{name}:{_plain(value)}|g"
        self._gauge_names.turn()

    def take_interval(self, windows: Mapping[Names, Window]) -> Work[None]:
        """Draw samples of what histograms saw in a finished interval; those of the one before that are left are given up."""
        self._samples.clear()
        total = 0
        for number, window in enumerate(windows.values()):
            total += window.count
            if number % HISTOGRAMS_AT_ONCE == 0:
                yield
        rate = min(self._sample_rate, MOST_TIMINGS / total if total else 1.0)
        if rate < LEAST_RATE:
            return
        suffix = "|ms" if rate >= 1 else f"|ms|@{_plain(rate)}"
        for number, (names, window) in enumerate(windows.items()):
            if number % HISTOGRAMS_AT_ONCE == 0:
                yield
            drawn = [(bucket, self._drawn(count * rate)) for bucket, count in window.buckets.items()]
            if any(count for _, count in drawn):
                name = self._named(names)
                self._samples.extend((name, value_of(bucket) / window.unit, suffix) for bucket, count in drawn for _ in range(count))

    def _drawn(self, expected: float) -> int:
        """A whole number that is ``expected`` on average."""
        whole = int(expected)
        return whole + (self._random.random() < expected - whole)

    @property
    def samples_left(self) -> int:
        """How many samples of the last interval have not been given out."""
        return len(self._samples)

    def timings(self, count: int) -> Iterator[str]:
        """So many of the samples, in any order, so that each part of them is one of the whole interval."""
        samples = self._samples
        for _ in range(min(count, len(samples))):
            chosen = int(self._random.random() * len(samples))
            samples[chosen], samples[-1] = samples[-1], samples[chosen]
            name, value, suffix = samples.pop()
            yield f"{name}:{_plain(value)}{suffix}"

    def _name(self, kept: Kept[str], names: Names) -> str:
        return kept.get(names) or kept.keep(names, self._named(names))

    def _named(self, names: Names) -> str:
        """The name on the wire: ``linkerd.rt.http.server.0_0_0_0.4140.requests``."""
        path = _SLASHES.sub("/", _FOREIGN.sub("_", "/".join(names)))
        return f"{self._prefix}.{path.replace('/', '.')}" if self._prefix else path.replace("/", ".")


def _plain(value: float) -> str:
    """Without an exponent, which not every StatsD reads."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def packets(lines: Iterable[str], most: int = PACKET_BYTES) -> Iterator[tuple[bytes, int]]:
    """The lines joined to packets, each with how many lines it has; one that is longer than that goes alone.

    One that is longer than ``LONGEST_LINE`` becomes a packet without content, and so does a pause.
    """
    held: list[bytes] = []
    size = 0
    for text in lines:
        if not text:
            yield b"", 0
            continue
        line = text.encode("ascii", "replace")
        if len(line) > LONGEST_LINE:
            yield b"", 1
            continue
        if held and size + len(line) + 1 > most:
            yield b"\n".join(held), len(held)
            held, size = [], 0
        held.append(line)
        size += len(line) + 1
    if held:
        yield b"\n".join(held), len(held)
