"""What seeing costs: how long a scrape of many series takes, what it does to requests under way, and the CPU of telemetry per request.

Three parts in one run, `make bench-telemetry`:

1. a gateway with many services, all in use: the time of a scrape in each format;
2. the same gateway at a fixed rate of requests, with a scrape each second and without, in turn: the latency of the requests;
3. a gateway with Prometheus scraped every 5 s, Zipkin at its default rate and StatsD, and one that keeps a quarter of all requests for the
   page of recent ones too, beside one without any telemeter, in turn: the ratios of their CPU per request.

Backend and generator share one CPU, the gateways have another; the scraper, which is this process, is on the generator's.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from statistics import median

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # support/ and fakes/, shared with the integration tests

from accounting import cpu_ns
from fakes.collectors import ScribeServer
from load import Load, Run
from names import bind_all
from native import Place, loopback_backend
from pythonic import gateway, services
from report import progress, spread, table, within_rounds
from rig import programs, serves
from support.processes import Process, Running, free_port, wait_until

SERVICES = 72
"""They make 10,000 series, with ten endpoints each."""
BODY = 128
CONNECTIONS = 16
SCRAPES = 20
SHARE = 0.6
"""Of the gateway's own maximum, as the fixed rate: room for scrapes is left on its CPU."""
FORMATS = {
    "Prometheus": "/admin/metrics/prometheus",
    "InfluxDB": "/admin/metrics/influxdb",
    "metrics.json": "/admin/metrics.json",
    "metrics.json?tree=1": "/admin/metrics.json?tree=1",
}
OFF, ON, KEEPING = "off", "exporters", "and recent requests, a quarter of all"
INTERVAL_SECONDS = 75.0
"""Histograms are told when their first minute is over."""


@attrs.frozen(kw_only=True)
class Plan:
    """What the command line asks for."""

    rounds: int
    seconds: float
    services: int
    python: str
    load_core: int
    proxy_core: int
    has_histograms: bool


@attrs.frozen
class Told:
    """A gateway that is asked for its metrics."""

    process: Process
    port: int
    admin_port: int

    def fetch(self, path: str) -> tuple[float, bytes]:
        """Milliseconds that it took, and the body."""
        started = time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=30.0) as answer:
            body: bytes = answer.read()
        return (time.monotonic() - started) * 1000, body


@contextmanager
def scraped(told: Told, every: float) -> Iterator[list[float]]:
    """Scrape it for Prometheus every so many seconds meanwhile; the milliseconds of each scrape are in the list afterwards."""
    ended, times = threading.Event(), list[float]()

    def scrape() -> None:
        while not ended.wait(every):
            times.append(told.fetch(FORMATS["Prometheus"])[0])

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        yield times
    finally:
        ended.set()
        thread.join()


def started(running: Running, plan: Plan, upstream: int, count: int, telemetry: str) -> Told:
    """A gateway with ``count`` services of ten endpoints, all bound."""
    port, admin_port = free_port(), free_port()
    directory = running.directory / f"gateway-{port}"
    directory.mkdir()
    place = Place(directory=directory, port=port, upstream=upstream, core=plan.proxy_core, python=plan.python)
    room = f"  bindingCache: {{paths: {2 * count}, trees: {2 * count}, bounds: {2 * count}, clients: {2 * count}}}"
    process = gateway(place, services(count, upstream), room, telemetry=telemetry, admin_port=admin_port)
    running.add(process, seconds=30.0, is_ready=lambda: serves(port, "web0"))
    return Told(process, port, admin_port)


def many_series(running: Running, plan: Plan, load: Load, upstream: int) -> list[str]:
    """The first two parts."""
    told = started(running, plan, upstream, plan.services, "- kind: io.l5d.prometheus\n- kind: io.l5d.influxdb")
    bind_all(told.process, plan.services)
    load.run(told.port, CONNECTIONS, seconds=2.0, hosts=plan.services)
    if plan.has_histograms:
        progress("waiting for the first minute of histograms …")
        wait_until(lambda: b"request_latency_ms_count" in told.fetch(FORMATS["Prometheus"])[1], INTERVAL_SECONDS)
    series = told.fetch(FORMATS["Prometheus"])[1].count(b"\n")
    parts = [f"### Scrapes of {series:,} series, {plan.services} services in use", _scrape_times(told, series)]
    rate = load.run(told.port, CONNECTIONS, hosts=plan.services).per_second * SHARE
    calm: list[Run] = []
    watched: list[Run] = []
    times: list[float] = []
    for number in range(plan.rounds):
        calm.append(load.steady(told.port, rate, BODY, pid=told.process.pid, hosts=plan.services))
        with scraped(told, 1.0) as found:
            watched.append(load.steady(told.port, rate, BODY, pid=told.process.pid, hosts=plan.services))
        times += found
        progress(f"{number + 1}/{plan.rounds} {rate:.0f}/s: p99 {calm[-1].p99} µs without, {watched[-1].p99} µs with {len(found)} scrapes")
    rows = [["", "CPU µs/request", "p50 µs", "p99 µs", "p99.9 µs", "failures"]]
    for name, runs in (("no scrape", calm), ("one each second", watched)):
        figures = [spread([getattr(run, figure) for run in runs], 0) for figure in ("p50", "p99", "p999")]
        rows.append([name, spread([run.cpu_us for run in runs], 1), *figures, str(sum(run.failures for run in runs))])
    ratio = median(within_rounds([run.p99 for run in watched], [run.p99 for run in calm]))
    took = f"Under this load a scrape took {spread(times, 0)} ms. " if times else ""
    parts += [
        f"### Requests at {rate:.0f}/s, {SHARE:.0%} of the maximum",
        table(rows),
        f"{took}p99 with scrapes ÷ without, median of the rounds: {ratio:.2f}.",
    ]
    return parts


def _scrape_times(told: Told, series: int) -> str:
    rows = [["format", "ms", "bytes", "CPU ms", "ms per 10,000 series", "CPU ms per 10,000 series"]]
    for name, path in FORMATS.items():
        before = cpu_ns(told.process.pid)
        found = [told.fetch(path) for _ in range(SCRAPES)]
        cpu = (cpu_ns(told.process.pid) - before) / 1e6 / SCRAPES
        times = [milliseconds for milliseconds, _ in found]
        per_many = [f"{value / series * 10_000:.1f}" for value in (median(times), cpu)]
        rows.append([name, spread(times, 1), f"{len(found[-1][1]):,}", f"{cpu:.1f}", *per_many])
        progress(f"{name}: {rows[-1][1]} ms")
    return table(rows)


def telemetry_cost(running: Running, plan: Plan, load: Load, upstream: int) -> list[str]:
    """The third part. Requests have no more than Host: those of the other parts are traced by their sender, whatever the rate here."""
    load = attrs.evolve(load, headers=0)
    collector = ScribeServer(free_port()).start()
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as statsd:
        statsd.bind(("127.0.0.1", 0))  # what is sent to it stays there until it is full, and is lost then, as with any UDP
        exporters = (
            "- kind: io.l5d.prometheus\n"
            f"- {{kind: io.l5d.zipkin, host: 127.0.0.1, port: {collector.port}}}\n"
            f"- {{kind: io.l5d.statsd, experimental: true, port: {statsd.getsockname()[1]}}}\n"
        )
        kinds = {OFF: "", ON: exporters, KEEPING: exporters + "- {kind: io.l5d.recentRequests, sampleRate: 0.25}"}
        gateways = {name: started(running, plan, upstream, 1, telemetry) for name, telemetry in kinds.items()}
        runs: dict[str, list[Run]] = {name: [] for name in kinds}
        for told in gateways.values():
            load.run(told.port, CONNECTIONS, seconds=1.0, hosts=1)
        for number in range(plan.rounds):
            for name, told in gateways.items():
                with scraped(told, 5.0) if name != OFF else nullcontext():
                    runs[name].append(load.run(told.port, CONNECTIONS, pid=told.process.pid, hosts=1))
            cpu = ", ".join(f"{name} {found[-1].cpu_us:.1f}" for name, found in runs.items())
            progress(f"{number + 1}/{plan.rounds} CPU µs/request: {cpu}")
    spans = len({(span.trace_id, span.id) for span in collector.spans})
    collector.stop()
    rows = [["telemetry", "CPU µs/request", "÷ off, median of the rounds", "requests/s", "p99 µs", "failures"]]
    for name, found in runs.items():
        figures = [spread([getattr(run, figure) for run in found], 0) for figure in ("per_second", "p99")]
        ratio = median(within_rounds([run.cpu_us for run in found], [run.cpu_us for run in runs[OFF]]))
        rows.append([name, spread([run.cpu_us for run in found], 1), f"{ratio:.3f}", *figures, str(sum(run.failures for run in found))])
    return ["### Telemetry on and off", table(rows), f"Zipkin was told of {spans} spans in {collector.calls} calls."]


PARTS: dict[str, Callable[[Running, Plan, Load, int], list[str]]] = {"series": many_series, "cost": telemetry_cost}


def parse(arguments: Sequence[str] | None) -> tuple[Plan, tuple[str, ...]]:
    """The command line; ends the program when it cannot be understood."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=tuple(PARTS), help="only this one")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=float, help="length of one run, whole seconds (default 6)")
    parser.add_argument("--services", type=int, default=SERVICES)
    parser.add_argument(
        "--quick", action="store_true", help="2 rounds of 2 s unless told otherwise, and no wait for the first minute of histograms"
    )
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment that meshgw runs in (default: this one)")
    parser.add_argument("--load-core", type=int, default=0, help="CPU of backend, generator and scraper (default 0)")
    parser.add_argument("--proxy-core", type=int, default=1, help="CPU of the gateways (default 1)")
    chosen = parser.parse_args(arguments)
    plan = Plan(
        rounds=chosen.rounds or (2 if chosen.quick else 5),
        seconds=chosen.seconds or (2.0 if chosen.quick else 6.0),
        services=chosen.services,
        python=chosen.python,
        load_core=chosen.load_core,
        proxy_core=chosen.proxy_core,
        has_histograms=not chosen.quick,
    )
    return plan, (chosen.part,) if chosen.part else tuple(PARTS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print tables in Markdown."""
    plan, parts = parse(arguments)
    os.sched_setaffinity(0, {plan.load_core})
    load = Load(headers=12, seconds=plan.seconds, core=plan.load_core)
    texts = []
    for part in parts:
        with programs() as running:
            origin = running.add(loopback_backend(running.directory, core=plan.load_core, body=BODY))
            assert origin.port is not None
            texts += PARTS[part](running, plan, load, origin.port)
    sys.stdout.write("\n\n".join(texts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
