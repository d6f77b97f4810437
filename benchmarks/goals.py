"""What the gateway is meant to reach, as ratios to peers in the same rounds, and whether it did."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median

import attrs

from report import Section, table, within_rounds


@attrs.frozen
class Goal:
    """A bound on a figure of ``proxy`` in a scenario, divided round by round by that of ``peer`` if there is one."""

    text: str
    scenario: str
    figure: str
    proxy: str
    peer: str | None
    bound: float
    is_least: bool = False
    """The bound is the least that is wanted, not the most."""

    def measured(self, sections: Sequence[Section]) -> float | None:
        """The median over the rounds, None when it was not measured, NaN when a ratio makes no sense."""
        for section in sections:
            figures = section.figures.get(self.figure, {})
            if section.scenario.name == self.scenario and self.proxy in figures and (self.peer is None or self.peer in figures):
                mine = figures[self.proxy]
                return median(mine if self.peer is None else within_rounds(mine, figures[self.peer]))
        return None

    def is_met(self, value: float) -> bool:
        """Whether ``value`` keeps the bound."""
        return value >= self.bound if self.is_least else value <= self.bound


GOALS = (
    Goal("CPU/request ÷ HAProxy, 16 connections", "small", "cpu c=16", "meshgw", "haproxy", 1.6),
    Goal("CPU/request ÷ nginx, 16 connections", "small", "cpu c=16", "meshgw", "nginx", 1.7),
    Goal("CPU/request ÷ Envoy, 16 connections", "small", "cpu c=16", "meshgw", "envoy", 0.7),
    Goal("CPU/request ÷ twisted.web", "python", "cpu c=16", "meshgw", "twisted.web", 1 / 12),
    Goal("CPU/request ÷ mitmproxy", "python", "cpu c=16", "meshgw", "mitmproxy", 1 / 40),
    Goal("added p50 ÷ HAProxy's, 1 connection", "small", "added p50 c=1", "meshgw", "haproxy", 1.3),
    Goal("added p99 ÷ HAProxy's, 1 connection", "small", "added p99 c=1", "meshgw", "haproxy", 1.5),
    Goal("p99 at 70 % of its own maximum ÷ nginx's at that rate", "fixed-rate", "p99 at 70 %", "meshgw", None, 2.0),
    Goal("what two workers could do with a core each ÷ one", "workers", "capacity c=16", "meshgw:2", "meshgw", 1.8, is_least=True),
    Goal("CPU/request of two workers ÷ one", "workers", "cpu c=16", "meshgw:2", "meshgw", 1.05),
    Goal("idle memory of one worker, MiB", "idle", "idle MiB", "meshgw", None, 55.0),
    Goal("memory per idle connection, KiB", "idle", "KiB per connection", "meshgw", None, 8.0),
    Goal("CPU/request with 10,000 endpoints ÷ 10, one service asked for", "names", "cpu, one service", "meshgw-many", "meshgw-few", 1.1),
    Goal("CPU/request with 10,000 endpoints ÷ 10, all asked for in turn", "names", "cpu, all services", "meshgw-many", "meshgw-few", 1.1),
    Goal("CPU per byte of 1 MiB bodies ÷ nginx", "body-1m", "cpu c=16", "meshgw", "nginx", 1.5),
)


def evaluate(sections: Sequence[Section]) -> str:
    """The table of all goals."""
    rows = [["goal", "scenario", "bound", "measured", "result"], *_rows(sections)]
    return table(rows)


def _rows(sections: Sequence[Section]) -> Iterator[list[str]]:
    for goal in GOALS:
        value = goal.measured(sections)
        bound = f"{'≥' if goal.is_least else '≤'} {goal.bound:.3g}"
        if value is None:
            yield [goal.text, goal.scenario, bound, "", "not measured"]
        elif math.isnan(value):
            yield [goal.text, goal.scenario, bound, "", "not resolved"]
        else:
            yield [goal.text, goal.scenario, bound, f"{value:.4g}", "pass" if goal.is_met(value) else "**miss**"]
