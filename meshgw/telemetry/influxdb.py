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
QUANTILES = ("p50", "p90", "p95", "p99", "p999", "p9999")

_SPECIAL = re.compile(r"[,= ]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_Lines = dict[str, dict[str, str]]
"""Measurement with tags → field → value; the first of two fields that are written alike stays."""


@attrs.frozen
class Field:
    """Where a metric is written: the line's beginning, without the tag of the host, and the field."""

    measurement: str
    labels: Labels
    name: str
    plain: str
    """The field of a metric that is one number."""


class InfluxText:
    """Writes snapshots; it keeps the places of metrics from one to the next."""

    def __init__(self) -> None:
        self._fields: Kept[Field] = Kept()
        self._summaries = Summaries()

    def pieces(self, snapshot: Snapshot, host: str) -> Iterator[bytes]:
        """The text; ``host`` is the tag of that name."""
        lines: dict[tuple[str, Labels], dict[str, str]] = {}
        for values in (snapshot.counters, snapshot.gauges):
            for lot in batched(values.items()):
                for names, value in lot:
                    if math.isfinite(value):  # the protocol has no way to write the others
                        field = self._field(names)
                        lines.setdefault((field.measurement, field.labels), {}).setdefault(field.plain, _number(value))
                yield NOTHING_YET
        for found in batched(self._summaries.of(snapshot.histograms), HISTOGRAMS_AT_ONCE):
            for names, summary in found:
                field = self._field(names)
                fields = lines.setdefault((field.measurement, field.labels), {})
                for figure, number in _figures(summary):
                    fields.setdefault(field_name(f"{field.name}_{figure}"), _number(number))
            yield NOTHING_YET
        self._fields.turn()
        yield from _written(lines, host)

    def _field(self, names: Names) -> Field:
        known = self._fields.get(names)
        if known is not None:
            return known
        found = series(names, exceptions=False)
        *parents, last = found.parts
        return self._fields.keep(names, Field(joined_name(tuple(parents)) or ROOT, found.labels, last, field_name(last)))


def _written(lines: dict[tuple[str, Labels], dict[str, str]], host: str) -> Iterator[bytes]:
    for lot in batched(lines.items(), 20):
        texts = []
        for (measurement, labels), fields in lot:
            tags = sorted([("host", host or NO_HOST), *labels])
            # a tag without a value is no tag
            head = ",".join([measurement, *(f"{name}={tag_value(value)}" for name, value in tags if value)])
            texts.append(f"{head} {','.join([f'{name}={value}' for name, value in sorted(fields.items())])}\n")
        yield "".join(texts).encode("utf-8", "replace")


def _figures(found: Summary | None) -> list[tuple[str, Number]]:
    if found is None:
        return [("count", 0)]
    quantiles = zip(QUANTILES, found.quantiles, strict=True)
    sums = (("count", found.count), ("sum", rounded(found.total)), ("avg", found.average))
    return [*sums, ("min", found.least), ("max", found.most), *quantiles]


def tag_value(text: str) -> str:
    """A tag's value. There is no way to write a line break, nor a backslash at the end, which would take the next character with it."""
    text = _CONTROL.sub("_", text)
    return _SPECIAL.sub(r"\\\g<0>", f"{text}_" if text.endswith("\\") else text)


def field_name(text: str) -> str:
    """A field's name, in which InfluxDB 1.x takes a backslash before an escaped character amiss; `time` is the name of something else."""
    text = _CONTROL.sub("_", text).replace("\\", "_")
    return f"{text}_" if text in ("", "time") else _SPECIAL.sub(r"\\\g<0>", text)


def _number(value: Number) -> str:
    return repr(value)


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
