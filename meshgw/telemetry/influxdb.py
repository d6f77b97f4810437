"""``io.l5d.influxdb``: all metrics in InfluxDB's line protocol, on the admin port for Telegraf to fetch.

Source: linkerd-config spec 9.2; for the format, InfluxDB 1.x's "Line protocol reference". Metrics with the same parent are the fields
of one line. One deliberate difference: Linkerd escapes nothing in tags and fields, so that a name with a space or a comma spoils its
line; here they are escaped as the protocol demands. No number is marked as an integer, as by Linkerd: a field cannot change its type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import attrs

from meshgw.core.slices import batched
from meshgw.kinds import Kind, Runtime
from meshgw.telemetry.export import HISTOGRAMS_AT_ONCE, Kept, Labels, Number, Summaries, joined_name, rounded, series
from meshgw.telemetry.histogram import Summary
from meshgw.telemetry.metrics import Names, Snapshot

ROOT = "root"
"""The measurement of metrics that have no parent."""
NO_HOST = "none"
NOTHING_YET = b""
"""A piece that gives the reactor its turn."""
FIGURES = ("_count", "_sum", "_avg", "_min", "_max", "_p50", "_p90", "_p95", "_p99", "_p999", "_p9999")
"""What is appended to the name of a histogram."""

_SPECIAL = re.compile(r"[,= ]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@attrs.frozen(eq=False)
class Line:
    """What one line is about; one object for all metrics that are its fields."""

    measurement: str
    labels: Labels


@attrs.frozen
class Place:
    """Where a metric is written: its line, and its fields' names, one for a number and several for a histogram."""

    line: Line
    fields: tuple[str, ...]


class InfluxText:
    """Writes snapshots; it keeps the places of metrics from one to the next."""

    def __init__(self) -> None:
        self._places: Kept[Place] = Kept()
        self._lines: dict[tuple[str, Labels], Line] = {}
        self._summaries = Summaries()

    def pieces(self, snapshot: Snapshot, host: str) -> Iterator[bytes]:
        """The text; ``host`` is the tag of that name."""
        lines: dict[Line, dict[str, str]] = {}  # the first of two fields that are written alike stays
        for values in (snapshot.counters, snapshot.gauges):
            for lot in batched(values.items()):
                for names, value in lot:
                    if math.isfinite(value):  # the protocol has no way to write the others
                        place = self._places.get(names) or self._place(names, ("",))
                        lines.setdefault(place.line, {}).setdefault(place.fields[0], repr(value))
                yield NOTHING_YET
        for found in batched(self._summaries.of(snapshot.histograms), HISTOGRAMS_AT_ONCE):
            for names, summary in found:
                place = self._places.get(names) or self._place(names, FIGURES)
                fields = lines.setdefault(place.line, {})
                for name, number in zip(place.fields, _figures(summary), strict=False):
                    fields.setdefault(name, repr(number))
            yield NOTHING_YET
        self._places.turn()
        self._lines = {}
        for some in batched(lines):
            self._lines.update(((line.measurement, line.labels), line) for line in some)
            yield NOTHING_YET
        yield from _written(lines, host)

    def _place(self, names: Names, figures: tuple[str, ...]) -> Place:
        found = series(names, exceptions=False)
        *parents, last = found.parts
        measurement = joined_name(tuple(parents)) or ROOT
        line = self._lines.setdefault((measurement, found.labels), Line(measurement, found.labels))
        return self._places.keep(names, Place(line, tuple(field_name(f"{last}{figure}") for figure in figures)))


def _written(lines: dict[Line, dict[str, str]], host: str) -> Iterator[bytes]:
    for lot in batched(lines.items(), 10):
        texts = []
        for line, fields in lot:
            tags = sorted([("host", host or NO_HOST), *line.labels])
            # a tag without a value is no tag
            head = ",".join([line.measurement, *(f"{name}={tag_value(value)}" for name, value in tags if value)])
            texts.append(f"{head} {','.join([f'{name}={value}' for name, value in sorted(fields.items())])}\n")
            fields.clear()  # letting go of all of them at the end would take milliseconds at once
        yield "".join(texts).encode("utf-8", "replace")


def _figures(found: Summary | None) -> tuple[Number, ...]:
    """In the order of ``FIGURES``; without a value only that there was none."""
    if found is None:
        return (0,)
    return (found.count, rounded(found.total), found.average, found.least, found.most, *found.quantiles)


def tag_value(text: str) -> str:
    """A tag's value. There is no way to write a line break, nor a backslash at the end, which would take the next character with it."""
    text = _CONTROL.sub("_", text)
    return _SPECIAL.sub(r"\\\g<0>", f"{text}_" if text.endswith("\\") else text)


def field_name(text: str) -> str:
    """A field's name, in which InfluxDB 1.x takes a backslash before an escaped character amiss; `time` is the name of something else."""
    text = _CONTROL.sub("_", text).replace("\\", "_")
    return f"{text}_" if text in ("", "time") else _SPECIAL.sub(r"\\\g<0>", text)


@attrs.frozen(kw_only=True)
class InfluxConfig:
    """Serves all metrics in InfluxDB's line protocol at `/admin/metrics/influxdb` on the admin port."""


class Influx:
    """The telemeter: where it is served, and its rendering."""

    path = "/admin/metrics/influxdb"
    content_type = "text/plain; charset=utf-8"
    aliases: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._text = InfluxText()

    def render(self, snapshot: Snapshot, host: str) -> Iterator[bytes]:
        """The lines, tagged with the ``Host`` that was asked."""
        return self._text.pieces(snapshot, host)


def build_influx(config: InfluxConfig, runtime: Runtime) -> Influx:
    """Make the telemeter."""
    return Influx()


KIND = Kind(id="io.l5d.influxdb", config=InfluxConfig, build=build_influx)
