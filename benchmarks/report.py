"""Turns runs into Markdown: the conditions of the measurement and one table per number of connections."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import attrs

from load import Run

REFERENCES = ("haproxy", "nginx", "envoy", "meshgw-off")
DIRECT = "direct"


@attrs.frozen(kw_only=True)
class Results:
    """All runs of a benchmark: ``runs[connections][name]`` is one Run per round; ``direct`` runs go straight to the backend."""

    runs: dict[int, dict[str, list[Run]]]
    versions: dict[str, str]
    rss_kb: dict[str, int]
    settings: str


def conditions(settings: str) -> str:
    """What a reader must know to judge the numbers."""
    model = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    optimised = "PGO" if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "") else "plain build"
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{settings}\n\n{os.cpu_count()} cores, {model}; Linux {platform.release()}; "
        f"Python {platform.python_version()} ({optimised}) runs the harness; load average at the end {load}."
    )


def render(results: Results) -> str:
    """The whole report."""
    parts = [conditions(results.settings)]
    parts += [_table(connections, results) for connections in sorted(results.runs)]
    parts.append(
        "CPU is user and system time of the proxy's process tree per completed request. Cells are medians over the rounds, "
        "(least to most) beside them. Ratios are medians of the ratios within each round: below 1 is less CPU than the peer. "
        "Added p50 is the median over the rounds of p50 through the proxy minus p50 straight to the backend, "
        "at the same number of connections."
    )
    return "\n\n".join(parts) + "\n"


def _table(connections: int, results: Results) -> str:
    runs = results.runs[connections]
    references = [name for name in REFERENCES if name in runs]
    head = ["proxy", "CPU µs/request", "requests/s", "p50 µs", "p99 µs", "added p50 µs", "RSS MB", "failures"]
    rows = [head + [f"CPU ÷ {name}" for name in references]]
    rows.append(["---"] + ["---:"] * (len(rows[0]) - 1))
    for name, mine in runs.items():
        if name != DIRECT:
            rows.append(_row(name, mine, runs, references, results))
    direct = runs[DIRECT]
    rows.append(["backend alone", "", f"{median(run.per_second for run in direct):.0f}", _spread([run.p50 for run in direct], 0)])
    rows[-1] += [_spread([run.p99 for run in direct], 0), "", "", str(sum(run.failures for run in direct))] + [""] * len(references)
    title = f"### {connections} connection{'s' if connections > 1 else ''}"
    return title + "\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(name: str, mine: Sequence[Run], runs: dict[str, list[Run]], references: Sequence[str], results: Results) -> list[str]:
    added = [run.p50 - direct.p50 for run, direct in zip(mine, runs[DIRECT], strict=True)]
    cells = [
        f"{name} {results.versions[name]}",
        _spread([run.cpu_us for run in mine], 1),
        f"{median(run.per_second for run in mine):.0f}",
        _spread([run.p50 for run in mine], 0),
        _spread([run.p99 for run in mine], 0),
        f"{median(added):.0f}",
        f"{results.rss_kb[name] / 1024:.0f}",
        str(sum(run.failures for run in mine)),
    ]
    for reference in references:
        ratio = median(run.cpu_us / peer.cpu_us for run, peer in zip(mine, runs[reference], strict=True))
        cells.append("1" if reference == name else f"{ratio:.2f}")
    return cells


def _spread(values: Sequence[float], digits: int) -> str:
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
