"""Compare meshgw with other proxies on this machine: CPU time per request and per byte, latency, throughput, memory.

Backend and load generator share one core, each proxy has the other; rounds are interleaved (A, B, C, A, B, C, …) so that a change of the
machine's speed meets all proxies alike. `make bench` runs the default scenarios, `--list` tells all of them. Options that describe a load
(`--proxies`, `--headers`, `--concurrency`, `--body`, `--close`) measure that load instead, or change the scenarios that are named.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # support/, shared with the integration tests

import closed
import fixed_rate
import idle
import names
from goals import evaluate
from peers import KNOWN, PEERS, Participant
from report import Section, progress, render
from rig import SECONDS, Options, Rig, programs, reason
from scenarios import FIXED_RATE, IDLE, LOAD, NAMES, SCENARIOS, Scenario
from support.processes import ProcessFailed

REPORT = Path(__file__).with_name("report.md")
MEASURES = {LOAD: closed.measure, FIXED_RATE: fixed_rate.measure, IDLE: idle.measure, NAMES: names.measure}
QUICK_ROUNDS, QUICK_SECONDS = 2, 2.0
INTERRUPTED = 130
CUSTOM = Scenario(name="custom", about="as asked for on the command line", proxies=tuple(PEERS), connections=(1, 16), rounds=5)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_argument_group("which scenarios")
    which.add_argument("--scenario", help="names, comma-separated (default: the default set)")
    which.add_argument("--full", action="store_true", help="all scenarios; takes more than an hour")
    which.add_argument("--list", action="store_true", help="tell the scenarios and end")
    load = parser.add_argument_group("another load")
    load.add_argument("--proxies", help=f"comma-separated, `nginx:2` for two workers, of: {', '.join(KNOWN)} (default {','.join(PEERS)})")
    load.add_argument("--headers", type=int, choices=(0, 12), help="12 realistic request headers, or only Host (default 12)")
    load.add_argument("--concurrency", help="connections, comma-separated (default 1,16)")
    load.add_argument("--body", type=int, help="bytes of the response body (default 128)")
    load.add_argument("--close", action="store_true", help="one request per connection")
    how = parser.add_argument_group("how")
    how.add_argument("--rounds", type=int, help="interleaved rounds (default: as the scenario says, 3 or 5)")
    how.add_argument("--seconds", type=float, help=f"length of one run, whole seconds (default {SECONDS:g})")
    how.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds of {QUICK_SECONDS:g} s; alone: only 1 and 16 connections")
    how.add_argument("--write", action="store_true", help=f"also write benchmarks/{REPORT.name}")
    how.add_argument("--python", default=sys.executable, help="interpreter of the environment that meshgw runs in (default: this one)")
    how.add_argument("--load-core", type=int, default=0, help="CPU of backend and generator (default 0)")
    how.add_argument("--proxy-core", type=int, default=1, help="CPU of the proxies (default 1)")
    how.add_argument("--worker-cores", default="", help="CPUs of proxies with several workers, comma-separated (default: as all proxies)")
    return parser


@attrs.frozen
class Plan:
    """What the command line asks for."""

    scenarios: tuple[Scenario, ...]
    options: Options
    is_written: bool = False
    is_list: bool = False


def parse(arguments: Sequence[str] | None) -> Plan:
    """The command line; ends the program when it cannot be understood."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    changes = _changes(parser, chosen)
    if chosen.scenario:
        unknown = [name for name in chosen.scenario.split(",") if name not in SCENARIOS]
        if unknown:
            parser.error(f"unknown scenarios: {', '.join(unknown)}; known: {', '.join(SCENARIOS)}")
        picked = tuple(attrs.evolve(SCENARIOS[name], **changes) for name in chosen.scenario.split(","))
    elif chosen.full:
        picked = tuple(attrs.evolve(scenario, **changes) for scenario in SCENARIOS.values())
    elif changes or chosen.quick:
        picked = (attrs.evolve(CUSTOM, **changes),)
    else:
        picked = tuple(scenario for scenario in SCENARIOS.values() if scenario.is_default)
    options = Options(
        rounds=chosen.rounds or (QUICK_ROUNDS if chosen.quick else None),
        seconds=chosen.seconds or (QUICK_SECONDS if chosen.quick else SECONDS),
        python=chosen.python,
        load_core=chosen.load_core,
        proxy_core=chosen.proxy_core,
        worker_cores=frozenset(int(number) for number in chosen.worker_cores.split(",") if number),
    )
    missing = {options.load_core, options.proxy_core, *options.worker_cores} - os.sched_getaffinity(0)
    if missing and not chosen.list:
        usable = sorted(os.sched_getaffinity(0))
        parser.error(f"this process may not use CPU {min(missing)}; usable: {usable} (see --load-core, --proxy-core, --worker-cores)")
    return Plan(picked, options, chosen.write, chosen.list)


def _changes(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> dict[str, Any]:
    """What the command line changes in scenarios."""
    changes: dict[str, Any] = {}
    if chosen.proxies:
        changes["proxies"] = tuple(name.strip() for name in chosen.proxies.split(",") if name.strip())
        for name in changes["proxies"]:
            try:
                Participant.read(name)
            except ValueError as error:
                parser.error(str(error))
    if chosen.concurrency:
        changes["connections"] = tuple(int(number) for number in chosen.concurrency.split(","))
    if chosen.close:
        changes["is_keep_alive"] = False
    return changes | {field: getattr(chosen, field) for field in ("headers", "body") if getattr(chosen, field) is not None}


def measure(scenario: Scenario, options: Options) -> Section:
    """One scenario from start to end. What cannot be had or fails is said in the section."""
    with programs() as running:
        rig = Rig(scenario, options, running)
        try:
            MEASURES[scenario.kind](rig)
        except ProcessFailed as error:
            progress(f"{scenario.name} failed: {error}")
            rig.section.missing["everything"] = reason(error)
    return rig.section


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 when the gateway took part everywhere and answered every request."""
    plan = parse(arguments)
    if plan.is_list:
        for scenario in SCENARIOS.values():
            sys.stdout.write(f"{'*' if scenario.is_default else ' '} {scenario.name:20} {scenario.about}: {', '.join(scenario.proxies)}\n")
        sys.stdout.write("* the default set\n")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, which stops what was started
    sections: list[Section] = []
    status = 0
    try:
        for scenario in plan.scenarios:
            sections.append(measure(scenario, plan.options))
    except KeyboardInterrupt:
        progress("interrupted: everything that was started is stopped")
        status = INTERRUPTED
    if not sections:
        return status
    text = render(sections, evaluate(sections))
    sys.stdout.write(text)
    if plan.is_written:
        REPORT.write_text(f"# Benchmark report\n\n{text}")
    lacking = any(section.failures or any(name.startswith(("meshgw", "everything")) for name in section.missing) for section in sections)
    return status or (1 if lacking else 0)


if __name__ == "__main__":
    sys.exit(main())
