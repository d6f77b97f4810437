"""Open-loop load: what latency a proxy has at 70 % of its own maximum, beside nginx at the same rate in the same round."""

from __future__ import annotations

from statistics import median

import attrs

from load import Run
from native import backend
from report import progress, spread, table, within_rounds
from rig import Rig, port_of
from support.processes import Process, ProcessFailed

SHARE = 0.7
CONNECTIONS = 16
"""Of the closed-loop run that finds the maximum."""
REFERENCE = "nginx"
KEPT = 0.97
"""The part of the planned requests that must be answered in time for a run to count as being at its rate."""


@attrs.frozen
class Round:
    """A proxy at its rate, and the reference at the same."""

    maximum: float
    mine: Run
    reference: Run

    @property
    def rate(self) -> float:
        """Requests per second that were planned."""
        return self.maximum * SHARE


def measure(rig: Rig) -> None:
    """All rounds of the scenario and its one table."""
    scenario, section, names = rig.scenario, rig.section, rig.scenario.proxies
    origin = rig.start(backend(rig.directory, core=rig.options.load_core, body=scenario.body))
    proxies = rig.start_proxies((REFERENCE, *(name for name in names if name != REFERENCE)), port_of(origin))
    reference = proxies.get(REFERENCE)
    if reference is None:
        raise ProcessFailed(f"{REFERENCE}, which all are compared with, cannot be had: {section.missing[REFERENCE]}")
    rig.warm_up(proxies)
    rounds: dict[str, list[Round]] = {name: [] for name in names if name in proxies}
    for number in range(rig.rounds):
        for name, found in rounds.items():
            found.append(_round(rig, proxies[name], reference))
            last = found[-1]
            progress(
                f"{scenario.name} {number + 1}/{rig.rounds}  {name:12} {last.rate:.0f}/s of {last.maximum:.0f}/s  p99 {last.mine.p99} µs, "
                f"{REFERENCE} {last.reference.p99} µs"
            )
    section.failures = sum(one.mine.failures for name, found in rounds.items() if name.startswith("meshgw") for one in found)
    rows = [["proxy", "maximum/s", "rate/s", "p50 µs", "p99 µs", "p99.9 µs", f"{REFERENCE}'s p99 µs", "p99 ratio"]]
    rows[0] += ["sent late, p99 µs", "failures"]
    for name, found in rounds.items():
        ratios = within_rounds([one.mine.p99 for one in found], [one.reference.p99 for one in found])
        section.note("p99 at 70 %", name, ratios)
        rows.append(_row(section.title(name), found, ratios))
    section.tables = [table(rows)]
    if any(one.mine.per_second < one.rate * KEPT for found in rounds.values() for one in found):
        section.tables.append("In some runs fewer requests were answered than planned: latencies there are those of an overload.")
    rig.settings(
        f"{rig.rounds} interleaved rounds; the maximum is that of wrk with {CONNECTIONS} connections just before, then requests leave by a",
        f"plan for {rig.options.seconds:g} s over at most 128 connections. Latency counts from the planned moment. How late the generator",
        "sent is in the table: differences below that cannot be resolved.",
    )


def _round(rig: Rig, mine: Process, reference: Process) -> Round:
    maximum = rig.load.run(port_of(mine), CONNECTIONS).per_second
    runs = [rig.load.steady(port_of(process), maximum * SHARE, rig.scenario.body) for process in (mine, reference)]
    return Round(maximum, *runs)


def _row(title: str, found: list[Round], ratios: list[float]) -> list[str]:
    mine = [one.mine for one in found]
    latencies = [spread([getattr(run, figure) for run in mine], 0) for figure in ("p50", "p99", "p999")]
    reference = spread([one.reference.p99 for one in found], 0)
    rates = [f"{median(getattr(one, figure) for one in found):.0f}" for figure in ("maximum", "rate")]
    late = f"{median(run.late_us for run in mine):.0f}"
    return [title, *rates, *latencies, reference, f"{median(ratios):.2f}", late, str(sum(run.failures for run in mine))]
