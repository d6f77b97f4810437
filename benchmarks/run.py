"""Compare meshgw with nginx, HAProxy and Envoy on this machine: CPU time per request, latency, throughput, memory.

Backend and load generator share one core, each proxy has the other; rounds are interleaved (A, B, C, A, B, C, …) so that a change of the
machine's speed meets all proxies alike. `make bench` runs it; `python benchmarks/run.py --help` lists the options.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # support/, shared with the integration tests

from accounting import rss_kb, stolen_and_total
from load import Load, Run
from peers import KNOWN, PEERS, backend
from report import DIRECT, Results, progress, render
from support.processes import Process, ProcessFailed, Running, free_port

WARM_UP_SECONDS = 1.0
REPORT = Path(__file__).with_name("report.md")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--proxies", default=",".join(PEERS), help="comma-separated, of: " + ", ".join(KNOWN) + " (default: without the last two)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one run, whole seconds (default 5)")
    parser.add_argument("--headers", type=int, choices=(0, 12), default=12, help="12 realistic request headers, or only Host (default 12)")
    parser.add_argument("--concurrency", default="1,16", help="connections, comma-separated (default 1,16)")
    parser.add_argument("--body", type=int, default=128, help="bytes of the response body (default 128)")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 2 seconds")
    parser.add_argument("--write", action="store_true", help=f"also write benchmarks/{REPORT.name}")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment that meshgw runs in (default: this one)")
    parser.add_argument("--load-core", type=int, default=0, help="CPU of backend and generator (default 0)")
    parser.add_argument("--proxy-core", type=int, default=1, help="CPU of the proxies (default 1)")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.rounds, chosen.seconds = 2, 2.0
    chosen.proxies = [name.strip() for name in chosen.proxies.split(",") if name.strip()]
    unknown = [name for name in chosen.proxies if name not in KNOWN]
    if unknown:
        parser.error(f"unknown proxies: {', '.join(unknown)}; known: {', '.join(KNOWN)}")
    chosen.concurrency = [int(number) for number in chosen.concurrency.split(",")]
    missing = {chosen.load_core, chosen.proxy_core} - os.sched_getaffinity(0)
    if missing:
        usable = sorted(os.sched_getaffinity(0))
        parser.error(f"this process may not use CPU {min(missing)}; usable: {usable} (see --load-core, --proxy-core)")
    return chosen


def serves(port: int) -> bool:
    """Whether a request for the benchmark's host is answered with 200; a proxy accepts before its backend is known."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/index.html", headers={"Host": "web"})
    try:
        with urllib.request.urlopen(request, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def start(running: Running, name: str, upstream: int, core: int, python: str) -> Process:
    """Start one proxy in its own directory and wait until it serves."""
    directory = running.directory / name
    directory.mkdir()
    port = free_port()
    process = KNOWN[name].make(directory, port, upstream, core, python)
    return running.add(process, is_ready=lambda: serves(port))


def measure(options: argparse.Namespace, running: Running) -> Results:
    """Start everything, run all rounds, gather."""
    load = Load(headers=options.headers, seconds=options.seconds, core=options.load_core)
    origin = running.add(backend(running.directory, core=options.load_core, body=options.body))
    versions = {name: KNOWN[name].version(options.python) for name in options.proxies}
    proxies = {name: start(running, name, _port(origin), options.proxy_core, options.python) for name in options.proxies}
    runs: dict[int, dict[str, list[Run]]] = {c: {name: [] for name in (DIRECT, *proxies)} for c in options.concurrency}
    for name, process in proxies.items():
        progress(f"warming up {name} {versions[name]}")
        load.run(_port(process), 16, seconds=WARM_UP_SECONDS)
    stolen, total = stolen_and_total(options.proxy_core)
    for number in range(options.rounds):
        for connections in options.concurrency:
            runs[connections][DIRECT].append(load.run(_port(origin), connections))
            for name, process in proxies.items():
                run = load.run(_port(process), connections, pid=process.pid)
                runs[connections][name].append(run)
                progress(
                    f"round {number + 1}/{options.rounds}  c={connections:<3} {name:8} {run.cpu_us:6.1f} µs CPU/request  "
                    f"{run.per_second:7.0f}/s  p50 {run.p50} µs  p99 {run.p99} µs" + (f"  {run.failures} FAILED" if run.failures else "")
                )
    stolen_now, total_now = stolen_and_total(options.proxy_core)
    settings = (
        f"{options.rounds} interleaved rounds of {options.seconds:g} s; {options.body} B bodies, keep-alive, "
        f"{options.headers or 'only Host as'} request headers; backend and generator on CPU {options.load_core}, "
        f"proxies on CPU {options.proxy_core} "
        f"({(stolen_now - stolen) / max(1, total_now - total):.0%} of its time stolen by the hypervisor)."
    )
    return Results(runs=runs, versions=versions, rss_kb={name: rss_kb(process.pid) for name, process in proxies.items()}, settings=settings)


def _port(process: Process) -> int:
    if process.port is None:
        raise ProcessFailed(f"{process.name} has no port")
    return process.port


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 when every request of every run succeeded."""
    options = parse(arguments)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meshgw-bench-")))
        directory.chmod(0o755)  # nginx's worker leaves root's account
        try:
            results = measure(options, stack.enter_context(Running(directory)))
        except ProcessFailed as error:
            progress(f"{error}\n(--proxies chooses which proxies take part)")
            return 1
    text = render(results)
    sys.stdout.write(text)
    if options.write:
        REPORT.write_text(f"# Benchmark report\n\n{text}")
    failures = sum(run.failures for by_name in results.runs.values() for runs in by_name.values() for run in runs)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
