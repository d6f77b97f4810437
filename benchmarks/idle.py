"""What idle connections cost: memory of a proxy with thousands of keep-alive connections that have each done one request.

`python benchmarks/idle.py --proxies meshgw,haproxy --connections 10000`; prints a Markdown table.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # support/, shared with the integration tests

from accounting import cpu_ns, rss_kb
from peers import PEERS, backend
from report import progress
from run import start
from support.processes import Process, ProcessFailed, Running

PER_SOURCE = 5000  # connections from one loopback address: well inside the range of ephemeral ports, whatever else runs
IP_BIND_ADDRESS_NO_PORT = 24  # Linux: choose the port at connect, when the destination is known
REQUEST = b"GET /index.html HTTP/1.1\r\nHost: web\r\nUser-Agent: idle\r\nAccept: */*\r\n\r\n"
SETTLE_SECONDS = 3.0


def connect(port: int, number: int) -> socket.socket:
    """Open connection ``number`` and do one request on it. Raises :class:`ProcessFailed` on any answer but 200."""
    client = socket.socket()
    client.settimeout(30.0)
    client.setsockopt(socket.SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    client.bind((f"127.0.0.{2 + number // PER_SOURCE}", 0))
    client.connect(("127.0.0.1", port))
    client.sendall(REQUEST)
    received = b""
    while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < _length(received):
        chunk = client.recv(65536)
        if not chunk:
            raise ProcessFailed(f"connection {number} was closed after {len(received)} bytes of its answer")
        received += chunk
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


def measure(process: Process, connections: int) -> list[str]:
    """One row of the table for one running proxy."""
    port = process.port or 0
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
        alive = still_open(clients)
    finally:
        for client in clients:
            client.close()
    time.sleep(SETTLE_SECONDS)
    each = (full - empty) / connections
    after = rss_kb(process.pid)
    return [f"{empty / 1024:.1f}", f"{full / 1024:.1f}", f"{each:.2f}", f"{after / 1024:.1f}", f"{busy:.2%}", str(connections - alive)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each proxy in turn; 0 when no connection was refused or closed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxies", default=",".join(PEERS), help="comma-separated, of: " + ", ".join(PEERS))
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment that meshgw runs in")
    options = parser.parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < options.connections + 100:
        parser.error(f"{options.connections} connections need as many open files; the limit is {hard} (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows = [["proxy", "RSS idle MB", "RSS full MB", "kB per connection", "RSS after MB", "CPU while idle", "closed by proxy"]]
    rows.append(["---"] + ["---:"] * (len(rows[0]) - 1))
    for name in options.proxies.split(","):
        progress(f"{name}: opening {options.connections} connections")
        with tempfile.TemporaryDirectory(prefix="meshgw-idle-") as place:
            directory = Path(place)
            directory.chmod(0o755)
            try:
                with Running(directory) as running:
                    origin = running.add(backend(directory, core=0, body=128))
                    process = start(running, name, origin.port or 0, 1, options.python)
                    rows.append([f"{name} {PEERS[name].version(options.python)}", *measure(process, options.connections)])
            except (ProcessFailed, OSError) as error:
                progress(f"{name}: {error}")
                return 1
    sys.stdout.write("\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n")
    return 0 if all(row[-1] == "0" for row in rows[2:]) else 1


if __name__ == "__main__":
    sys.exit(main())
