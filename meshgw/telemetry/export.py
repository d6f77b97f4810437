"""Snapshots as text: ``metrics.json`` flat or as a tree, and Prometheus.

Source: linkerd-config spec 2.4 (metrics.json) and 9.1 (Prometheus). Pure functions of a snapshot; how it is served is ``admin``.
One deliberate difference: Linkerd replaces each backslash, quote or newline in a label value by two backslashes, which loses the
name and merges series; here they are escaped as Prometheus's text format demands.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar

import attrs

from meshgw.config.document import option
from meshgw.errors import MeshError
from meshgw.kinds import Kind, Runtime
from meshgw.telemetry.histogram import QUANTILES, Summary, summary
from meshgw.telemetry.metrics import Names, Snapshot

Number = int | float
Labels = tuple[tuple[str, str], ...]

PROMETHEUS_QUANTILES = tuple(f"{quantile:g}" for quantile, _ in QUANTILES)
_FOREIGN = re.compile(r"[^a-zA-Z0-9:]")
_ROUTER_PARTS = ("service", "client", "server")


@attrs.frozen
class NoSuchSubtree(MeshError):
    """The ``q`` parameter names nothing in the metrics tree."""

    subtree: str
    phase: ClassVar[str] = "admin"
    status: ClassVar[int] = 404

    def __str__(self) -> str:
        return f"No such subtree: {self.subtree}"


def metrics_json(snapshot: Snapshot, *, tree: bool = False, pretty: bool = False, subtree: str = "") -> str:
    """``metrics.json``: all metrics, or those below ``subtree`` with names relative to it. Raises :class:`NoSuchSubtree`."""
    wanted = subtree.strip("/")
    chosen = snapshot if not wanted else _below(snapshot, wanted)
    content = _tree(chosen) if tree else _flat(chosen)
    return json.dumps(content, indent=2, sort_keys=True) if pretty else json.dumps(content, separators=(",", ":"))


def _below(snapshot: Snapshot, wanted: str) -> Snapshot:
    """What lies under the node whose joined path is ``wanted``, so that names with a ``/`` in them can be addressed as well."""
    found = Snapshot(
        dict(_cut(snapshot.counters, wanted)),
        dict(_cut(snapshot.gauges, wanted)),
        dict(_cut(snapshot.histograms, wanted)),
    )
    if not (found.counters or found.gauges or found.histograms):
        raise NoSuchSubtree(wanted)
    return found


def _cut(values: Mapping[Names, Any], wanted: str) -> Iterator[tuple[Names, Any]]:
    for names, value in values.items():
        if not "/".join(names).startswith(wanted):
            continue
        reached = -1
        for index, name in enumerate(names):
            reached += 1 + len(name)
            if reached >= len(wanted):
                if reached == len(wanted):
                    yield names[index + 1 :], value
                break


def _flat(snapshot: Snapshot) -> dict[str, Number]:
    content: dict[str, Number] = {"/".join(names): value for names, value in snapshot.counters.items()}
    for names, value in snapshot.gauges.items():
        if math.isfinite(value):  # JSON has no way to write the others
            content["/".join(names)] = float(value)
    for names, window in snapshot.histograms.items():
        joined = "/".join(names)
        for figure, value in _figures(summary(window)):
            content[f"{joined}.{figure}"] = value
    return content


def _tree(snapshot: Snapshot) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for names, count in snapshot.counters.items():
        _descend(root, names)["counter"] = count
    for names, value in snapshot.gauges.items():
        if math.isfinite(value):
            _descend(root, names)["gauge"] = float(value)
    for names, window in snapshot.histograms.items():
        node = _descend(root, names)
        for figure, number in _figures(summary(window)):
            node[f"stat.{figure}"] = number
    return root


def _descend(node: dict[str, Any], names: Names) -> dict[str, Any]:
    for name in names:
        found = node.get(name)
        if not isinstance(found, dict):
            found = node[name] = {}
        node = found
    return node


def _figures(found: Summary | None) -> list[tuple[str, Number]]:
    if found is None:
        return [("count", 0)]
    return [
        ("count", found.count),
        ("max", found.most),
        ("min", found.least),
        *((name, value) for (_, name), value in zip(QUANTILES, found.quantiles, strict=True)),
        ("sum", round(found.total, 6)),  # a long sum of fractions ends in digits that mean nothing
        ("avg", found.average),
    ]


def prometheus_text(snapshot: Snapshot, prefix: str = "") -> str:
    """Prometheus's text format: one line per sample, samples of one name together, no HELP and TYPE lines (spec 9.1)."""
    families: dict[str, dict[str, str]] = {}  # name → label text → value; two paths that escape to one series would be refused
    start = _escaped_name(prefix)
    for names, count in snapshot.counters.items():
        name, labels = _relabelled(names)
        families.setdefault(start + name, {}).setdefault(labels, str(count))
    for names, value in snapshot.gauges.items():
        name, labels = _relabelled(names)
        families.setdefault(start + name, {}).setdefault(labels, _number(value))
    for names, window in snapshot.histograms.items():
        found = summary(window)
        if found is not None:
            name, labels = _relabelled(names)
            _add_summary(families, start + name, labels, found)
    lines = [
        f"{_valid_start(name)}{{{labels}}} {value}\n" if labels else f"{_valid_start(name)} {value}\n"
        for name in sorted(families)
        for labels, value in families[name].items()
    ]
    return "".join(lines)


def _add_summary(families: dict[str, dict[str, str]], name: str, labels: str, found: Summary) -> None:
    for suffix, value in (("count", str(found.count)), ("sum", _number(round(found.total, 6))), ("avg", _number(found.average))):
        families.setdefault(f"{name}_{suffix}", {}).setdefault(labels, value)
    values = zip(("0", *PROMETHEUS_QUANTILES, "1"), (found.least, *found.quantiles, found.most), strict=True)
    family = families.setdefault(name, {})
    before = labels + ", " if labels else ""
    for quantile, number in values:
        family.setdefault(f'{before}quantile="{quantile}"', _number(number))


def _relabelled(names: Names) -> tuple[str, str]:
    """The metric name and the text of its labels."""
    if names[0] != "rt" or len(names) < 2:
        return _joined_name(names), ""
    labels: list[tuple[str, str]] = [("rt", names[1])]
    name, rest = ["rt"], names[2:]
    if len(rest) >= 2 and rest[0] in _ROUTER_PARTS:
        part, rest = rest[0], rest[1:]
        name.append(part)
        labels.append((part, rest[0]))
        rest = rest[1:]
        if part == "client" and len(rest) >= 2 and rest[0] == "service":
            name.append("service")
            labels.append(("service", rest[1]))
            rest = rest[2:]
        elif len(rest) >= 2 and rest[0] in ("failures", "exn"):  # the rule holds only directly below service, client, server
            labels.append(("exception", ":".join(rest[1:])))
            rest = ("failures",) if rest[0] == "failures" else ("exceptions",)
    return _joined_name((*name, *rest)), ", ".join([_label(*label) for label in labels])


@lru_cache(maxsize=4096)
def _joined_name(names: Names) -> str:
    return ":".join([_escaped_name(name) for name in names])


@lru_cache(maxsize=4096)
def _escaped_name(name: str) -> str:
    return _FOREIGN.sub("_", name)


@lru_cache(maxsize=4096)
def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{name}="{escaped}"'


def _valid_start(name: str) -> str:
    """A metric name may not begin with a digit."""
    return f"_{name}" if name[:1].isdigit() else name


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))


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

    def __init__(self, path: str, prefix: str) -> None:
        self.path, self._prefix = path, prefix

    def render(self, snapshot: Snapshot) -> bytes:
        """The body of a scrape."""
        return prometheus_text(snapshot, self._prefix).encode("utf-8", "replace")


def build_prometheus(config: PrometheusConfig, runtime: Runtime) -> Prometheus:
    """Make the telemeter."""
    return Prometheus(config.path, config.prefix)


PROMETHEUS = Kind(id="io.l5d.prometheus", config=PrometheusConfig, build=build_prometheus)
