"""Closed-loop load: each connection sends its next request when the last is answered. Interleaved rounds of wrk over all proxies."""

from __future__ import annotations

from statistics import median

from accounting import rss_kb
from load import Run
from native import backend
from peers import Participant
from report import DIRECT, progress, ratio_cells, spread, table
from rig import Rig, port_of

Runs = dict[str, list[Run]]
KIB = 1024


def measure(rig: Rig) -> None:
    """All rounds of the scenario, one table per number of connections."""
    scenario, section = rig.scenario, rig.section
    origin = rig.start(backend(rig.directory, core=rig.options.load_core, body=scenario.body))
    proxies = rig.start_proxies(scenario.proxies, port_of(origin))
    rig.warm_up(proxies)
    runs: dict[int, Runs] = {count: {name: [] for name in (DIRECT, *proxies)} for count in scenario.connections}
    for number in range(rig.rounds):
        for connections, found in runs.items():
            if connections == 1:
                found[DIRECT].append(rig.load.run(port_of(origin), connections))
            for name, process in proxies.items():
                workers = Participant.read(name).workers if scenario.is_per_worker else 1
                run = rig.load.run(port_of(process), connections * workers, pid=process.pid)
                found[name].append(run)
                _tell(f"{scenario.name} {number + 1}/{rig.rounds}  c={connections:<3} {name:12}", run)
    section.failures = sum(run.failures for found in runs.values() for name in found if _is_ours(name) for run in found[name])
    memory = {name: rss_kb(process.pid) / KIB for name, process in proxies.items()}
    for connections, found in runs.items():
        _note(rig, connections, found, memory)
        section.tables.append(_table(rig, connections, {name: list_ for name, list_ in found.items() if list_}))
    way = (
        "keep-alive" if scenario.is_keep_alive else "one request per connection: wrk sends `Connection: close` and connects anew each time"
    )
    rig.settings(
        f"{rig.rounds} interleaved rounds of {rig.options.seconds:g} s; {_size(scenario.body)} bodies, {way},",
        f"{scenario.headers or 'only Host as'} request headers; backend and generator on CPU {rig.options.load_core},",
        f"proxies on CPU {rig.options.proxy_core}{rig.worker_cores()}.",
    )


def _is_ours(name: str) -> bool:
    return name == DIRECT or name.startswith("meshgw")


def _tell(what: str, run: Run) -> None:
    failed = f"  {run.failures} FAILED" if run.failures else ""
    progress(f"{what} {run.cpu_us:7.1f} µs CPU/request  {run.per_second:7.0f}/s  p50 {run.p50} µs  p99 {run.p99} µs{failed}")


def _size(body: int) -> str:
    return f"{body} B" if body < KIB else f"{body // KIB} KiB" if body < KIB * KIB else f"{body // KIB // KIB} MiB"


def _note(rig: Rig, connections: int, found: Runs, memory: dict[str, float]) -> None:
    """The figures that goals ask for."""
    section, at = rig.section, f"c={connections}"
    for name, runs in found.items():
        if name == DIRECT or not runs:
            continue
        section.note(f"cpu {at}", name, [run.cpu_us for run in runs])
        section.note(f"memory {at}", name, [memory[name]])
        # With one worker the process is the worker, threads and all; with more, the busiest decides what they can do together.
        busiest = [run.busiest_us if ":" in name else run.cpu_us for run in runs]
        section.note(f"capacity {at}", name, [1e6 / each for each in busiest])
        for figure in ("p50", "p99"):
            direct = found[DIRECT]
            if direct:
                added = [getattr(run, figure) - getattr(alone, figure) for run, alone in zip(runs, direct, strict=True)]
                section.note(f"added {figure} {at}", name, added)


def _table(rig: Rig, connections: int, found: Runs) -> str:
    section, scenario, at = rig.section, rig.scenario, f"c={connections}"
    has_direct, is_large = DIRECT in found, scenario.body >= KIB
    has_workers = any(":" in name for name in found)
    head = ["proxy", "CPU µs/request"]
    head += ["CPU ns/KiB"] if is_large else []
    head += ["requests/s per core", "requests/s", "p50 µs", "p99 µs", "p99.9 µs"]
    head += ["added p50 µs", "added p99 µs"] if has_direct else []
    head += ["capacity, a core each"] if has_workers else []
    head += ["RSS MB", "failures"]
    ratios = ratio_cells(section.figures.get(f"cpu {at}", {}))
    rows = [[*head, *ratios.head]]
    for name, runs in found.items():
        if name == DIRECT:
            continue
        cpu = [run.cpu_us for run in runs]
        row = [section.title(name), spread(cpu, 1)]
        row += [f"{median(cpu) * 1000 / (scenario.body / KIB):.0f}"] if is_large else []
        row += [f"{1e6 / median(cpu):.0f}", _middle(runs, "per_second"), *(_spread(runs, figure) for figure in ("p50", "p99", "p999"))]
        row += [f"{median(section.figures[f'added {figure} {at}'][name]):.0f}" for figure in ("p50", "p99")] if has_direct else []
        row += [f"{median(section.figures[f'capacity {at}'][name]):.0f}"] if has_workers else []
        row += [f"{section.figures[f'memory {at}'][name][0]:.0f}", str(sum(run.failures for run in runs))]
        rows.append(row + ratios.row(name))
    if has_direct:
        runs = found[DIRECT]
        latencies = [_spread(runs, figure) for figure in ("p50", "p99", "p999")]
        rows.append(["backend alone", "", *([""] if is_large else []), "", _middle(runs, "per_second"), *latencies])
    busy = median(run.generator for runs in found.values() for run in runs)
    title = f"#### {connections} connection{'s' if connections > 1 else ''}{' for each worker' if scenario.is_per_worker else ''}"
    return f"{title}\n\n{table(rows)}\n\nThe CPU of generator and backend was {busy:.0%} busy (median)."


def _middle(runs: list[Run], figure: str) -> str:
    return f"{median(getattr(run, figure) for run in runs):.0f}"


def _spread(runs: list[Run], figure: str) -> str:
    return spread([getattr(run, figure) for run in runs], 0)
