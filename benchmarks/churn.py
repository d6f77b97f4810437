"""A soak of churn: endpoints of 200 watched services come and go fifty times a second while requests run.

`python benchmarks/churn.py --source consul --seconds 120`; prints a Markdown report, and exits with 1 when a bound is broken: a request
fails though every endpoint is well, the gateway's addresses differ from the source's when the churn has ended, memory or descriptors grow
with what has been done, or, in a long run, requests are slower while endpoints change. Sources: a real Consul agent, the fake Kubernetes
API server, and a real one (`make kube-apiserver`; it needs root, for a network of its own). Loopback only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # support/, shared with the integration tests

from accounting import cpu_ns, rss_kb
from churn_sources import OWN_NETWORK, SOURCES, Source
from load import Load, Run
from native import loopback_backend
from report import progress, table
from rig import port_of, programs
from support import servers
from support.gateways import Gateway
from support.processes import Running, accepts, free_port, wait_until

COUNTED = Path(__file__).parent / "counted"
BODY = 128
WATCHED, UNWATCHED = "web", "other"
"""Services that the gateway watches, and such that it does not: without churn means that only the latter change. What the source and this
program need for a change, on a machine that they share with the gateway, is the same in both."""
WARM_UP_SHARE = 0.25  # of the churn's time: until then caches, pools and the memory allocator fill, which is no leak
MOST_WARM_UP = 30.0
QUIET_SHARE = 0.5  # of a round's churn, for the run without
CALM_SECONDS = 8.0  # the longest that the last change may take to arrive: many watches of Consul take turns of five seconds
EMPTIED = 0.01  # the part of the changes that take a whole service away, or bring it back
CLIENT = {"clientSession": {"idleTimeMs": 1000}}  # so that connections do not hide what leaks
SETTLE_SECONDS = 15.0
GRACE_BYTES = 8 << 20  # RSS that may come whatever is done: the allocator keeps pages in pieces
GRACE_FILES = 8
GROWTH = 1.05
RSS_GROWTH = 1.25  # the interpreter collects everything only when a quarter of it is new
SLOWER, SLOWER_US = 1.5, 2000  # the p99 that is allowed with churn: so many times that without, or so much more; without what was sent late
UNEVEN = 3  # times that the p99 without churn may differ between runs; above, other programs make it
LONG = 60.0  # seconds from which on the p99 counts: below, it is that of a few dozen requests


@attrs.frozen(kw_only=True)
class Options:
    """How much of everything."""

    source: str = "consul"
    services: int = 200
    endpoints: int = 5000
    busy: int = 4
    changes: float = 50.0
    seconds: float = 120.0
    rounds: int = 4
    rate: float = 500.0
    seed: int = 1
    deaf: bool = False
    load_core: int = 0
    gateway_core: int = 1

    @property
    def each(self) -> int:
        """Endpoints per service, more or less."""
        return max(2, self.endpoints // self.services)


class Churn:
    """Services as they should be, and the thread that changes them; ``title`` is what their names begin with.

    A service has between nine tenths of its endpoints and a few more than all; one that gets no requests may also vanish and come back.
    """

    def __init__(self, source: Source, options: Options, port: int, title: str) -> None:
        self._source, self._options, self._port, self._title = source, options, port, title
        self._random = Random(options.seed)
        self.present: dict[str, set[str]] = {}
        for number in range(options.services):
            self.present[f"{title}{number}"] = {source.host(number, instance) for instance in range(options.each)}
        self.changes = 0
        self.problems: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread()

    def put(self, name: str) -> None:
        """Tell the source of one service as it should be."""
        self._source.put(name, self.present[name], self._port)

    def start(self) -> None:
        """Begin to change something all the time."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it after the change under way."""
        self._stop.set()
        self._thread.join(CALM_SECONDS)

    def restore(self) -> None:
        """Bring back the services that are gone now."""
        for number, (name, hosts) in enumerate(self.present.items()):
            if not hosts:
                self._fill(number)
                self.put(name)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += 1 / self._options.changes
            try:
                self._change()
            except Exception as error:  # noqa: BLE001 - a source that fails must not look like a quiet one
                self.problems.append(f"the source failed: {error!r}")
                return
            self.changes += 1

    def _change(self) -> None:
        random, each = self._random, self._options.each
        number = random.randrange(self._options.services)
        name = f"{self._title}{number}"
        hosts = self.present[name]
        if not hosts:
            self._fill(number)
        elif number >= self._options.busy and random.random() < EMPTIED:
            hosts.clear()
        elif len(hosts) > each * 1.1 or (len(hosts) > max(1, each * 0.9) and random.random() < 0.5):
            hosts.discard(random.choice(sorted(hosts)))
        else:
            hosts.add(self._source.host(number, random.randrange(2 * each)))
        self.put(name)

    def _fill(self, number: int) -> None:
        self.present[f"{self._title}{number}"].update(self._source.host(number, instance) for instance in range(self._options.each))


def endpoints_of(mesh: Gateway) -> list[Any]:
    """All endpoints in ``/client_state.json``."""
    return [endpoint for client in json.loads(mesh.admin("/client_state.json").body).values() for endpoint in client["endpoints"]]


@attrs.frozen(kw_only=True)
class Holding:
    """What the gateway holds at one moment."""

    rss: int
    files: int
    objects: Counter[str]
    blocks: int
    """Of memory that the interpreter has given out."""

    @classmethod
    def of(cls, mesh: Gateway, file: Path) -> Holding:
        """Count everything once no request is under way; the gateway stands still for some tenths of a second."""
        wait_until(lambda: not any(endpoint["connections"]["open"] for endpoint in endpoints_of(mesh)), SETTLE_SECONDS)
        file.unlink(missing_ok=True)
        mesh.process.signal(signal.SIGUSR2)
        assert wait_until(file.exists, 30.0), mesh.process.describe("did not count its objects")
        counted, files = json.loads(file.read_text()), len(os.listdir(f"/proc/{mesh.process.pid}/fd"))
        return cls(rss=rss_kb(mesh.process.pid) * 1024, files=files, objects=Counter(counted["objects"]), blocks=counted["blocks"])

    @property
    def total(self) -> int:
        """All objects that the collector knows."""
        return sum(self.objects.values())

    def grown(self, before: Holding) -> list[tuple[str, int, int]]:
        """The types of which there are many more than before, with both counts."""
        found = [(name, before.objects[name], count) for name, count in self.objects.items()]
        return sorted((one for one in found if one[2] > one[1] * GROWTH + 200), key=lambda one: one[1] - one[2])


@attrs.define
class Phase:
    """All runs of one kind."""

    runs: list[Run] = attrs.field(factory=list)
    cpu: list[float] = attrs.field(factory=list)
    """The part of a CPU that the gateway used."""
    seconds: float = 0.0

    def p99(self) -> float:
        """The median of the runs."""
        return median(run.p99 for run in self.runs)


class Soak:
    """One run: the programs, the phases, and what was found."""

    def __init__(self, running: Running, options: Options) -> None:
        self.options, self._running = options, running
        self.load = Load(headers=12, seconds=1.0, core=options.load_core)
        backend = running.add(loopback_backend(running.directory, core=options.load_core, body=BODY))
        self.source = SOURCES[options.source](running, options.load_core)
        self.churn = Churn(self.source, options, port_of(backend), WATCHED)
        self.elsewhere = Churn(self.source, options, port_of(backend), UNWATCHED)
        progress(f"{options.source}: {options.services} services of {options.each} endpoints, and as many that nobody watches")
        for churn in (self.churn, self.elsewhere):
            for name in churn.present:
                churn.put(name)
        self._counts = running.directory / "objects.json"
        self.mesh = self._gateway()
        self.quiet, self.churned = Phase(), Phase()
        self.problems: list[str] = []
        self.arrived: float | None = None
        self.watched = 0

    def _gateway(self) -> Gateway:
        port, admin_port, directory = free_port(), free_port(), self._running.directory
        router = {"protocol": "http", "servers": [{"port": port}], "dtab": f"/svc => {self.source.prefix}", "client": CLIENT}
        settings = {"admin": {"port": admin_port}, "namers": [self.source.namer], "routers": [router]}
        env = {"PYTHONPATH": str(COUNTED), "COUNT_OBJECTS_TO": str(self._counts)}
        process = servers.meshgw(directory, json.dumps(settings), port=port, core=self.options.gateway_core, env=env)
        self._running.add(process, is_ready=lambda: accepts(port) and accepts(admin_port))
        return Gateway(process, port, admin_port, directory)

    def run(self) -> None:
        """Everything, in order."""
        options, each = self.options, self.options.seconds / self.options.rounds
        self._ask_all()
        self.watched = self._metric("active")
        if self.watched < options.services:
            self.problems.append(f"the gateway watches {self.watched:g} of {options.services} services")
        progress("warming up")
        self._phase(Phase(), min(options.seconds * WARM_UP_SHARE, MOST_WARM_UP), self.churn)
        self._calm()
        self.before = Holding.of(self.mesh, self._counts)
        warm = self.churn.changes
        if options.deaf:
            self.source.deafen()
        for number in range(options.rounds):
            self._phase(self.quiet, each * QUIET_SHARE, self.elsewhere)
            self._phase(self.churned, each, self.churn)
            quiet, churned = self.quiet.runs[-1].p99, self.churned.runs[-1].p99
            memory = rss_kb(self.mesh.process.pid) / 1024
            progress(f"round {number + 1}/{options.rounds}: p99 {quiet} µs without, {churned} µs with churn; {memory:.1f} MiB")
        self._phase(self.quiet, each * QUIET_SHARE, self.elsewhere)
        self.changes = self.churn.changes - warm
        self._calm()
        self.after = Holding.of(self.mesh, self._counts)
        self._judge()

    def _phase(self, phase: Phase, seconds: float, churn: Churn) -> None:
        pid = self.mesh.process.pid
        began, before = time.monotonic(), cpu_ns(pid)
        churn.start()
        run = self.load.steady(self.mesh.port, self.options.rate, BODY, pid=pid, seconds=max(1.0, seconds), hosts=self.options.busy)
        churn.stop()
        taken = time.monotonic() - began
        phase.runs.append(run)
        phase.cpu.append((cpu_ns(pid) - before) / 1e9 / taken)
        phase.seconds += taken

    def _ask_all(self) -> None:
        for name in self.churn.present:
            answer = self.mesh.get(name, "/index.html")
            if answer.status != 200:
                self.problems.append(f"{name} was answered {answer.status}: {answer.text[:300]}")

    def _metric(self, name: str) -> float:
        found = self.mesh.metrics()
        return sum(float(value) for key, value in found.items() if key.startswith("namer/") and key.endswith(f"/service/{name}"))

    def _calm(self) -> None:
        """Let everything come back, and compare what the gateway has with what the source has."""
        self.churn.restore()
        began = time.monotonic()
        if wait_until(lambda: not list(self._differences()), CALM_SECONDS):
            self.arrived = max(self.arrived or 0.0, time.monotonic() - began)
            self._ask_all()  # those that nobody asked for since they came back have no client
            wait_until(lambda: not list(self._differences(is_complete=True)), CALM_SECONDS)
        self.problems += self._differences(is_complete=True)
        truth = {name: self.source.found(name) for name in self.churn.present}
        self.problems += [f"the source lost {name}" for name, hosts in truth.items() if hosts != self.churn.present[name]]

    def _differences(self, *, is_complete: bool = False) -> Iterator[str]:
        """The services whose addresses in the gateway are not what they should be; one without a client counts if ``is_complete``."""
        state = json.loads(self.mesh.admin("/client_state.json").body)
        for name, hosts in self.churn.present.items():
            client = state.get(f"{self.source.prefix}/{name}")
            if client is None:
                if is_complete:
                    yield f"{name} has no client"
                continue
            known = {address.rpartition(":")[0] for address in client["addresses"]}
            if known != hosts:
                yield f"{name} has {len(known - hosts)} addresses too many and lacks {len(hosts - known)} of {len(hosts)}"

    @property
    def is_calm(self) -> bool:
        """Whether the machine let a p99 be measured: enough requests, and much the same in all runs without churn."""
        found = [run.p99 for run in self.quiet.runs]
        return self.options.seconds >= LONG and max(found) <= min(found) * UNEVEN

    def _judge(self) -> None:
        failures = sum(run.failures for phase in (self.quiet, self.churned) for run in phase.runs)
        if failures:
            self.problems.append(f"{failures} requests failed")
        if self.after.blocks > self.before.blocks * GROWTH:
            self.problems.append(f"memory in use grew from {self.before.blocks} to {self.after.blocks} blocks")
        if self.after.rss > self.before.rss * RSS_GROWTH + GRACE_BYTES:
            self.problems.append(f"memory grew from {self.before.rss >> 20} to {self.after.rss >> 20} MiB")
        if self.after.files > self.before.files * GROWTH + GRACE_FILES:
            self.problems.append(f"open files grew from {self.before.files} to {self.after.files}")
        if self.after.total > self.before.total * GROWTH:
            names = ", ".join(f"{name} from {before} to {after}" for name, before, after in self.after.grown(self.before)[:5])
            self.problems.append(f"objects grew from {self.before.total} to {self.after.total}: {names}")
        quiet, churned, late = self.quiet.p99(), self.churned.p99(), median(run.late_us for run in self.churned.runs)
        if self.is_calm and churned - late > max(quiet * SLOWER, quiet + SLOWER_US):
            self.problems.append(f"p99 is {churned:.0f} µs with churn, {quiet:.0f} without")
        self.problems += [*self.churn.problems, *self.elsewhere.problems]
        lines = self.mesh.process.output().splitlines()
        self.problems += [line for line in lines if "defect" in line or line.startswith("Traceback")]


def report(soak: Soak) -> Iterator[str]:
    """Markdown lines."""
    options, changes, seconds = soak.options, soak.changes, soak.churned.seconds
    yield (
        f"{options.services} services of {options.each} endpoints in {options.source}, {soak.watched:g} watched; {changes} changes in "
        f"{seconds:.0f} s, {changes / seconds:.1f} a second; {options.rate:g} requests/s to {options.busy} of them."
    )
    yield ""
    yield table(list(_latencies(soak)))
    yield ""
    each = (median(soak.churned.cpu) - median(soak.quiet.cpu)) * seconds / max(1, changes)
    late = f"after {soak.arrived:.2f} s at most" if soak.arrived is not None else "never"
    if not soak.is_calm:
        yield "The p99 proves nothing here: too few requests, or other programs kept the machine busy."
        yield ""
    yield f"A change costs the gateway {each * 1e3:.2f} ms of CPU. The last one had arrived everywhere {late}."
    yield ""
    rows = [["", "RSS MiB", "blocks in use", "objects", "open files"]]
    for title, held in (("after warming up", soak.before), ("at the end", soak.after)):
        rows.append([title, f"{held.rss / (1 << 20):.1f}", str(held.blocks), str(held.total), str(held.files)])
    yield table(rows)
    yield ""
    yield f"{len(soak.problems)} problems:" if soak.problems else "Nothing was missed, nothing failed, nothing leaked."
    for problem in soak.problems[:20]:
        yield f"- **{problem}**"


def _latencies(soak: Soak) -> Iterator[list[str]]:
    yield ["", "requests", "failed", "p50 µs", "p99 µs (least to most)", "sent late, p99 µs", "gateway's CPU"]
    for title, phase in (("unwatched services change", soak.quiet), ("watched ones change", soak.churned)):
        runs = phase.runs
        counts = [str(sum(run.requests for run in runs)), str(sum(run.failures for run in runs))]
        p99 = f"{phase.p99():.0f} ({min(run.p99 for run in runs)} to {max(run.p99 for run in runs)})"
        late = f"{median(run.late_us for run in runs):.0f}"
        yield [title, *counts, f"{median(run.p50 for run in runs):.0f}", p99, late, f"{median(phase.cpu):.0%}"]


def begin_in_own_network(words: Sequence[str]) -> None:
    """Start anew where all of 10.0.0.0/8 is this machine. Does not come back."""
    script = 'ip link set lo up && ip route add local 10.0.0.0/8 dev lo && exec "$0" "$@"'
    argv = ["unshare", "--net", "sh", "-c", script, sys.executable, __file__, *words]
    os.execvpe(argv[0], argv, {**os.environ, "CHURN_HAS_NETWORK": "yes"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run and report; 1 when a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--source", choices=sorted(SOURCES), default=Options().source, help="what holds the services")
    parser.add_argument("--services", type=int, default=200, help="how many there are, all watched")
    parser.add_argument("--endpoints", type=int, default=5000, help="of all services together")
    parser.add_argument("--busy", type=int, default=4, help="how many services get requests")
    parser.add_argument("--changes", type=float, default=50.0, help="per second")
    parser.add_argument("--seconds", type=float, default=120.0, help="of churn, without the pauses")
    parser.add_argument("--rounds", type=int, default=4, help="runs with churn, each between two without")
    parser.add_argument("--rate", type=float, default=500.0, help="requests per second")
    parser.add_argument("--seed", type=int, default=1, help="of what changes")
    parser.add_argument("--deaf", action="store_true", help="let the fake refuse to tell of changes, to see that it is found out")
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--load-core", type=int, default=cores[0], help="CPU of everything else")
    parser.add_argument("--gateway-core", type=int, default=cores[-1], help="CPU of the gateway")
    options = Options(**vars(parser.parse_args(argv)))
    if options.source == OWN_NETWORK and "CHURN_HAS_NETWORK" not in os.environ:
        begin_in_own_network(sys.argv[1:] if argv is None else argv)
    with programs() as running:
        soak = Soak(running, options)
        soak.run()
    sys.stdout.write("\n".join(report(soak)) + "\n")
    return 1 if soak.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
