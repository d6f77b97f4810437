"""``io.l5d.prometheus``: all metrics in Prometheus's text format.

Source: linkerd-config spec 9.1; for the format, Prometheus's "Exposition formats", text format 0.0.4. There are no HELP and TYPE lines, as
there. One deliberate difference: Linkerd replaces each backslash, quote or newline in a label value by two backslashes, which loses the
name and merges series; here they are escaped as the format demands.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import attrs

from meshgw.config.document import option
from meshgw.core.slices import batched
from meshgw.kinds import Kind, Runtime
from meshgw.telemetry.export import HISTOGRAMS_AT_ONCE, Kept, Labels, Summaries, escaped_name, joined_name, rounded, series
from meshgw.telemetry.histogram import QUANTILES, Summary
from meshgw.telemetry.metrics import Names, Snapshot

ALIAS = "/metrics"
"""Where scrapers look first; Linkerd has no such alias."""
PROMETHEUS_QUANTILES = ("0", *(f"{quantile:g}" for quantile, _ in QUANTILES), "1")
NOTHING_YET = b""
"""A piece that gives the reactor its turn."""

_Families = dict[str, dict[str, str]]
"""Family name → start of a line → value. Two paths that escape to one series would be refused: the first of them stays."""


@attrs.frozen
class Lines:
    """What is known of a metric's lines before its values are: for each its family, and all that stands before the value."""

    starts: tuple[tuple[str, str], ...]


class PrometheusText:
    """Writes snapshots; it keeps the beginnings of lines from one to the next."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = escaped_name(prefix)
        self._plain: Kept[Lines] = Kept()
        self._summed: Kept[Lines] = Kept()
        self._summaries = Summaries()

    def pieces(self, snapshot: Snapshot) -> Iterator[bytes]:
        """The text: one line per sample, samples of one name together."""
        families: _Families = {}
        for counters in batched(snapshot.counters.items()):
            for names, count in counters:
                self._add(families, names, str(count))
            yield NOTHING_YET
        for gauges in batched(snapshot.gauges.items()):
            for names, value in gauges:
                self._add(families, names, _number(value))
            yield NOTHING_YET
        for found in batched(self._summaries.of(snapshot.histograms), HISTOGRAMS_AT_ONCE):
            for names, summary in found:
                if summary is not None:
                    self._add_summary(families, names, summary)
            yield NOTHING_YET
        self._plain.turn()
        self._summed.turn()
        for name in sorted(families):
            for lines in batched(families.pop(name).items(), 500):
                yield "".join([f"{start}{value}\n" for start, value in lines]).encode("utf-8", "replace")

    def _add(self, families: _Families, names: Names, value: str) -> None:
        lines = self._plain.get(names) or self._plain.keep(names, self._lines(names))
        ((family, start),) = lines.starts
        families.setdefault(family, {}).setdefault(start, value)

    def _add_summary(self, families: _Families, names: Names, summary: Summary) -> None:
        lines = self._summed.get(names) or self._summed.keep(names, self._summary_lines(names))
        values = (_number(rounded(summary.total)), *map(_number, (summary.average, summary.least, *summary.quantiles, summary.most)))
        for (family, start), value in zip(lines.starts, (str(summary.count), *values), strict=True):
            families.setdefault(family, {}).setdefault(start, value)

    def _lines(self, names: Names) -> Lines:
        name, labels = self._named(names)
        return Lines((_start(name, labels),))

    def _summary_lines(self, names: Names) -> Lines:
        name, labels = self._named(names)
        sums = [_start(f"{name}_{suffix}", labels) for suffix in ("count", "sum", "avg")]
        quantiles = [_start(name, (*labels, ("quantile", quantile))) for quantile in PROMETHEUS_QUANTILES]
        return Lines((*sums, *quantiles))

    def _named(self, names: Names) -> tuple[str, Labels]:
        found = series(names, exceptions=True)
        name = self._prefix + joined_name(found.parts)
        return f"_{name}" if name[:1].isdigit() else name or "_", found.labels  # a metric name may neither begin so nor be empty


def _start(name: str, labels: Labels) -> tuple[str, str]:
    """The family and the start of its line."""
    text = ", ".join([_label(label, value) for label, value in labels])
    return name, f"{name}{{{text}}} " if text else f"{name} "


def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{name}="{escaped}"'


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _is_path(value: str) -> str | None:
    return None if value.startswith("/") and not re.search(r"[\s?#]", value) else "must be an absolute path such as /metrics"


@attrs.frozen(kw_only=True)
class PrometheusConfig:
    """Serves all metrics in Prometheus's text format on the admin port."""

    path: str = option(default="/admin/metrics/prometheus", doc="Path on the admin port (Linkerd's default).", check=_is_path)
    prefix: str = option(default="", doc="Put before every metric name; characters that Prometheus does not allow become `_`.")


class Prometheus:
    """The telemeter: where it is served, and its rendering."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"
    aliases = (ALIAS,)

    def __init__(self, path: str, prefix: str) -> None:
        self.path, self._text = path, PrometheusText(prefix)

    def render(self, snapshot: Snapshot, host: str) -> Iterator[bytes]:
        """The body of a scrape."""
        return self._text.pieces(snapshot)


def build_prometheus(config: PrometheusConfig, runtime: Runtime) -> Prometheus:
    """Make the telemeter."""
    return Prometheus(config.path, config.prefix)


KIND = Kind(id="io.l5d.prometheus", config=PrometheusConfig, build=build_prometheus)
