"""What many names cost: a gateway with 1,000 bound services of 10 endpoints each, beside one with a single service of 10.

Two loads: requests to one service in both, which shows what being large costs, and requests to all services in turn, where beside that the
memory of 10,000 endpoints and connections goes through the CPU's caches and each connection is used a thousand times less often.
"""

from __future__ import annotations

import http.client
from contextlib import closing
from statistics import median

from accounting import rss_kb
from load import Run
from native import loopback_backend
from pythonic import ENDPOINTS, SERVICES
from report import progress, spread, table, within_rounds
from rig import Rig, port_of
from support.processes import Process, ProcessFailed

CONNECTIONS = 16
PASSES = 30
"""Requests per service before anything is measured: with ten endpoints and random choice each endpoint has had a connection then."""
FEW, MANY = "meshgw-few", "meshgw-many"


def measure(rig: Rig) -> None:
    """Bind everything, then all rounds."""
    scenario, section = rig.scenario, rig.section
    origin = rig.start(loopback_backend(rig.directory, core=rig.options.load_core, body=scenario.body))
    proxies = rig.start_proxies(scenario.proxies, port_of(origin), host="web0")
    if proxies.keys() != {FEW, MANY}:
        raise ProcessFailed(f"both gateways are needed: {section.missing}")
    for name, process in proxies.items():
        bind_all(process, SERVICES if name == MANY else 1)
    loads = {"one service": (1, 1), "all services": (1, SERVICES)}
    runs: dict[str, dict[str, list[Run]]] = {load: {FEW: [], MANY: []} for load in loads}
    for number in range(rig.rounds):
        for load, hosts in loads.items():
            for (name, process), count in zip(proxies.items(), hosts, strict=True):
                run = rig.load.run(port_of(process), CONNECTIONS, pid=process.pid, hosts=count)
                runs[load][name].append(run)
                progress(
                    f"{scenario.name} {number + 1}/{rig.rounds}  {load:12} {name:12} {run.cpu_us:.1f} µs CPU/request  p99 {run.p99} µs"
                )
    section.failures = sum(run.failures for by_name in runs.values() for found in by_name.values() for run in found)
    rows = [["load", "gateway", "CPU µs/request", f"÷ {FEW}", "requests/s", "p50 µs", "p99 µs", "RSS MB", "failures"]]
    for load, by_name in runs.items():
        for name, found in by_name.items():
            cpu = [run.cpu_us for run in found]
            section.note(f"cpu, {load}", name, cpu)
            ratio = median(within_rounds(cpu, [run.cpu_us for run in by_name[FEW]]))
            figures = [spread([getattr(run, figure) for run in found], 0) for figure in ("p50", "p99")]
            speed, memory = f"{median(run.per_second for run in found):.0f}", f"{rss_kb(proxies[name].pid) / 1024:.0f}"
            rows.append([load, name, spread(cpu, 1), f"{ratio:.2f}", speed, *figures, memory, str(sum(run.failures for run in found))])
    section.tables = [table(rows)]
    rig.settings(
        f"{rig.rounds} interleaved rounds of {rig.options.seconds:g} s with {CONNECTIONS} connections; {SERVICES:,} services of",
        f"{ENDPOINTS} endpoints on 127.0.0.0/8, all of them one backend, bound by requests before.",
        f"{FEW} has one service of {ENDPOINTS} endpoints and gets the same requests, in both loads to that service.",
    )


def bind_all(process: Process, services: int) -> None:
    """Ask for every service, so that its name is bound and its endpoints have connections. Raises :class:`ProcessFailed`."""
    progress(f"binding {services:,} services")
    with closing(http.client.HTTPConnection("127.0.0.1", port_of(process), timeout=30.0)) as connection:
        for number in range(services * PASSES):
            name = f"web{number % services}"
            connection.request("GET", "/index.html", headers={"Host": name})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise ProcessFailed(f"{name} was answered {answer.status}")
