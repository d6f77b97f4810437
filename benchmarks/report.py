"""Turns measurements into Markdown: the conditions, a section per scenario, and the goals at the end."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import attrs

from scenarios import Scenario

REFERENCES = ("haproxy", "nginx", "envoy", "twisted.web", "mitmproxy", "proxy.py", "meshgw-off", "meshgw-few")
DIRECT = "direct"
FOOT = (
    "CPU is user and system time of all processes of the proxy per completed request; requests/s per core is its inverse, what one CPU "
    "could do if nothing else limited it. Cells are medians over the rounds, (least to most) beside them. Ratios are medians of the ratios "
    "within each round: below 1 is less than the peer. Added latency is the median over the rounds of the latency through the proxy minus "
    "that straight to the backend. `nginx:2` is nginx with two workers; what several workers could do with a core each is the inverse of "
    "the busiest worker's CPU per request of all."
)


@attrs.define(kw_only=True)
class Section:
    """What one scenario gave. ``figures`` are by name of the figure, then by proxy, one value per round; goals refer to them."""

    scenario: Scenario
    settings: str = ""
    versions: dict[str, str] = attrs.field(factory=dict)
    missing: dict[str, str] = attrs.field(factory=dict)
    figures: dict[str, dict[str, list[float]]] = attrs.field(factory=dict)
    tables: list[str] = attrs.field(factory=list)
    failures: int = 0
    """Failed requests of the gateway and of the backend; other proxies' are only shown."""

    def note(self, figure: str, name: str, values: list[float]) -> None:
        """Keep a figure of a proxy."""
        self.figures.setdefault(figure, {})[name] = values

    def title(self, name: str) -> str:
        """The proxy with its version."""
        return f"{name} {self.versions.get(name, '')}".strip()


@attrs.frozen
class Ratios:
    """The columns that compare one figure with peers."""

    references: tuple[str, ...]
    figures: Mapping[str, list[float]]

    @property
    def head(self) -> list[str]:
        """The columns' titles."""
        return [f"CPU ÷ {reference}" for reference in self.references]

    def row(self, name: str) -> list[str]:
        """The cells of one proxy."""
        cells = []
        for reference in self.references:
            cells.append("1" if reference == name else f"{median(within_rounds(self.figures[name], self.figures[reference])):.2f}")
        return cells


def ratio_cells(figures: Mapping[str, list[float]]) -> Ratios:
    """Compare with all peers that took part."""
    base = tuple(name for name in figures if f"{name}:2" in figures)
    return Ratios(base or tuple(name for name in REFERENCES if name in figures), figures)


def within_rounds(mine: Sequence[float], peers: Sequence[float]) -> list[float]:
    """The ratio in each round; a round whose divisor is not above zero says nothing."""
    return [one / other for one, other in zip(mine, peers, strict=True) if other > 0] or [float("nan")]


def conditions() -> str:
    """What a reader must know to judge the numbers."""
    model = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} CPUs, {model}; {memory / 1048576:.0f} GiB; Linux {platform.release()}; "
        f"Python {python_build()} runs the harness; load average at the end {load}."
    )


def python_build() -> str:
    """This interpreter's version and how it was built; distributions optimise by profile without telling in the configuration."""
    if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""):
        build = "PGO"
    else:
        build = "the system's" if sys.base_prefix == "/usr" else "plain build"
    return f"{platform.python_version()} ({build})"


def render(sections: Sequence[Section], goals: str) -> str:
    """The whole report."""
    parts = [conditions()]
    for section in sections:
        parts += [f"### {section.scenario.name}: {section.scenario.about}", section.settings, *section.tables]
        if section.missing:
            parts.append("\n".join(f"- {name} took no part: {why}" for name, why in section.missing.items()))
    parts += [FOOT, "### Goals", goals]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is the head, all columns but the first are numbers."""
    head, *body = rows
    ruled = [head, ["---", *["---:"] * (len(head) - 1)], *([*row, *[""] * (len(head) - len(row))] for row in body)]
    return "\n".join("| " + " | ".join(row) + " |" for row in ruled)


def spread(values: Sequence[float], digits: int) -> str:
    """The median, and the least and the most when there are several."""
    middle, least, most = (f"{value:.{digits}f}" for value in (median(values), min(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({least} to {most})"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def progress(text: str) -> None:
    """Tell the person who waits; the report alone goes to standard output."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
