"""What idle connections cost: memory of a proxy with thousands of keep-alive connections that have each done one request.

It is the scenario `idle` of the benchmark; `python benchmarks/idle.py --proxies meshgw,haproxy --connections 10000` runs it alone.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # support/, shared with the integration tests

from accounting import cpu_ns, rss_kb
from native import backend
from peers import KNOWN, PEERS
from report import progress, table
from rig import Options, Rig, port_of, programs, reason
from scenarios import SCENARIOS
from support.processes import Process, ProcessFailed

PER_SOURCE = 5000  # connections from one loopback address: well inside the range of ephemeral ports, whatever else runs
SPARE_FILES = 100
IP_BIND_ADDRESS_NO_PORT = 24  # Linux: choose the port at connect, when the destination is known
REQUEST = b"GET /index.html HTTP/1.1\r\nHost: web\r\nUser-Agent: idle\r\nAccept: */*\r\n\r\n"
SETTLE_SECONDS = 3.0


def connect(port: int, number: int) -> socket.socket:
    """Open connection ``number`` and do one request on it. Raises :class:`ProcessFailed` on any answer but 200."""
    client = socket.socket()
    client.settimeout(30.0)
    client.setsockopt(socket.SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    client.bind((f"127.0.0.{2 + number // PER_SOURCE}", 0))
    try:
        client.connect(("127.0.0.1", port))
        client.sendall(REQUEST)
        received = b""
        while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < _length(received):
            chunk = client.recv(65536)
            if not chunk:
                raise ProcessFailed(f"connection {number} was closed after {len(received)} bytes of its answer")
            received += chunk
    except OSError as error:
        raise ProcessFailed(f"connection {number} failed: {error}") from error
    if not received.startswith(b"HTTP/1.1 200"):
        raise ProcessFailed(f"connection {number} was answered {received.splitlines()[0]!r}")
    return client


def _length(answer: bytes) -> int:
    for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def still_open(clients: Sequence[socket.socket]) -> int:
    """How many connections the proxy has not closed: an open idle one has nothing to read."""
    count = 0
    for client in clients:
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.recv(1)
            continue
        count += 1
    return count


@attrs.frozen(kw_only=True)
class Idle:
    """Memory in MiB, each connection's in KiB, CPU as a part of one core."""

    empty: float
    full: float
    each: float
    after: float
    busy: float
    closed: int

    def row(self) -> list[str]:
        """The cells of the table."""
        memory = [f"{self.empty:.1f}", f"{self.full:.1f}", f"{self.each:.2f}", f"{self.after:.1f}"]
        return [*memory, f"{self.busy:.2%}", str(self.closed)]


HEAD = ["proxy", "RSS idle MiB", "RSS full MiB", "KiB per connection", "RSS after MiB", "CPU while idle", "closed by proxy"]


def hold(process: Process, connections: int) -> Idle:
    """Open the connections, wait, look, and close them."""
    port = port_of(process)
    connect(port, 0).close()
    time.sleep(SETTLE_SECONDS)
    empty = rss_kb(process.pid)
    clients: list[socket.socket] = []
    try:
        clients += (connect(port, number) for number in range(connections))
        time.sleep(SETTLE_SECONDS)
        full = rss_kb(process.pid)
        before, began = cpu_ns(process.pid), time.monotonic()
        time.sleep(SETTLE_SECONDS)
        busy = (cpu_ns(process.pid) - before) / 1e9 / (time.monotonic() - began)
        closed = connections - still_open(clients)
    finally:
        for client in clients:
            client.close()
    time.sleep(SETTLE_SECONDS)
    after = rss_kb(process.pid)
    each = (full - empty) / connections
    return Idle(empty=empty / 1024, full=full / 1024, each=each, after=after / 1024, busy=busy, closed=closed)


def measure(rig: Rig) -> None:
    """One proxy after the other, each alone."""
    scenario, section = rig.scenario, rig.section
    connections = scenario.connections[0]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < connections + SPARE_FILES:
        raise ProcessFailed(f"{connections} connections need as many open files; the limit is {hard} (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    origin = rig.start(backend(rig.directory, core=rig.options.load_core, body=scenario.body))
    rows = [HEAD]
    for name in scenario.proxies:
        progress(f"{scenario.name}  {name}: opening {connections} connections")
        try:
            process = rig.start_proxy(name, port_of(origin))
            found = hold(process, connections)
        except ProcessFailed as error:
            progress(f"{name} takes no part: {error}")
            section.missing[name] = reason(error)
            continue
        process.stop()
        section.note("idle MiB", name, [found.empty])
        section.note("KiB per connection", name, [found.each])
        section.failures += found.closed if name.startswith("meshgw") else 0
        rows.append([section.title(name), *found.row()])
    section.tables = [table(rows)]
    rig.settings(f"{connections:,} keep-alive connections, each of which did one request; one proxy after the other.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each proxy in turn; 0 when no connection to the gateway was refused or closed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxies", default=",".join(PEERS), help="comma-separated, of: " + ", ".join(KNOWN))
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment that meshgw runs in")
    options = parser.parse_args(arguments)
    proxies = tuple(name.strip() for name in options.proxies.split(","))
    scenario = attrs.evolve(SCENARIOS["idle"], proxies=proxies, connections=(options.connections,))
    try:
        with programs() as running:
            rig = Rig(scenario, Options(python=options.python), running)
            measure(rig)
    except ProcessFailed as error:
        progress(str(error))
        return 1
    sys.stdout.write("\n".join(rig.section.tables) + "\n")
    return 1 if rig.section.failures or rig.section.missing else 0


if __name__ == "__main__":
    sys.exit(main())
