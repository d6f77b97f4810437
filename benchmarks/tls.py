"""What TLS costs, beside HAProxy: CPU per full and per resumed handshake, handshakes per second, and CPU per request once connected.

Both show the same P-256 certificate in front of the same backend. openssl's own s_time makes connections one after the other, with and
without sessions; wrk keeps sixteen. Rounds are interleaved, generator and backend on one CPU, the proxies on another.
`make bench-tls` runs it.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # support/, shared with the integration tests

from accounting import cpu_ns
from native import Place, backend, haproxy
from pythonic import meshgw
from support.certs import Authority, authority, write_files
from support.processes import Process, ProcessFailed, Running, free_port, wait_until

CONNECTIONS = 16
ROWS = ("full handshake", "full handshake, TLS 1.2", "resumed handshake, TLS 1.2", "request")


@attrs.frozen
class Measured:
    """One run: CPU per handshake or request in microseconds, and how many there were in a second."""

    cpu_us: float
    per_second: float


def watched(process: Process, command: Sequence[str], count: str, seconds: int) -> Measured:
    """Run a generator; ``count`` finds in its output how much it did."""
    before = cpu_ns(process.pid)
    ran = subprocess.run(["taskset", "-c", "0", *command], capture_output=True, text=True, check=False, timeout=seconds + 30)
    used = cpu_ns(process.pid) - before
    found = re.search(count, ran.stdout)
    if found is None or not int(found[1]):
        raise ProcessFailed(f"{' '.join(command)} did nothing:\n{ran.stdout}{ran.stderr}")
    done = int(found[1])
    return Measured(used / 1000 / done, done / seconds)


def handshakes(*words: str) -> Callable[[Process, int, int], Measured]:
    """One connection after the other, ``-new`` or ``-reuse``; s_time does not wait for the tickets of TLS 1.3, and cannot resume it."""

    def run(process: Process, port: int, seconds: int) -> Measured:
        command = ["openssl", "s_time", "-connect", f"127.0.0.1:{port}", *words, "-time", str(seconds)]
        return watched(process, command, r"(\d+) connections in \d+ real seconds", seconds)

    return run


def requests(process: Process, port: int, seconds: int) -> Measured:
    """Keep-alive connections."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-H", "Host: web", f"https://127.0.0.1:{port}/"]
    return watched(process, command, r"(\d+) requests in", seconds)


RUNS: tuple[Callable[[Process, int, int], Measured], ...] = (
    handshakes("-new"),
    handshakes("-new", "-tls1_2"),
    handshakes("-reuse", "-tls1_2"),
    requests,
)


def start(running: Running, python: str) -> dict[str, tuple[Process, int]]:
    """Both proxies before one backend, with the same certificate."""
    behind = running.add(backend(running.directory, core=0, body=128))
    assert behind.port is not None
    own: Authority = authority()
    leaf = own.leaf("web")
    certificate, key = write_files(leaf, running.directory, "web")
    (running.directory / "web.pem").write_bytes(leaf.certificate_pem + leaf.key_pem())
    started = {}
    for name in ("haproxy", "meshgw"):
        place = Place(directory=running.directory / name, port=free_port(), upstream=behind.port, core=1, python=python)
        place.directory.mkdir()
        if name == "haproxy":
            process = haproxy(place, f" ssl crt {running.directory}/web.pem")
        else:
            process = meshgw(place, server=f"    tls: {{certPath: {certificate}, keyPath: {key}}}")
        started[name] = (running.add(process), place.port)
    for name, (_, port) in started.items():
        if not wait_until(lambda port=port: _serves(port), 20.0):  # type: ignore[misc]  # mypy: defaults of lambdas
            raise ProcessFailed(f"{name} does not serve")
    return started


def _serves(port: int) -> bool:
    asked = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: web", f"https://127.0.0.1:{port}/"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout == "200"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="length of one run")
    parser.add_argument("--python", default=sys.executable, help="interpreter that meshgw runs in")
    chosen = parser.parse_args(arguments)
    found: dict[tuple[str, str], list[Measured]] = {}
    with tempfile.TemporaryDirectory(prefix="meshgw-bench-") as directory, Running(Path(directory)) as running:
        Path(directory).chmod(0o755)
        started = start(running, chosen.python)
        for number in range(chosen.rounds):
            for row, run in zip(ROWS, RUNS, strict=True):
                for name, (process, port) in started.items():
                    one = run(process, port, chosen.seconds)
                    found.setdefault((row, name), []).append(one)
                    print(f"{number + 1}/{chosen.rounds} {row:26} {name:8} {one.cpu_us:8.1f} µs {one.per_second:8.0f}/s", file=sys.stderr)
    print("| | HAProxy µs of CPU | meshgw µs of CPU | ratio | HAProxy /s | meshgw /s |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    for row in ROWS:
        theirs, ours = found[row, "haproxy"], found[row, "meshgw"]
        ratio = median(mine.cpu_us / other.cpu_us if other.cpu_us else math.nan for mine, other in zip(ours, theirs, strict=True))
        figures = [median(one.cpu_us for one in theirs), median(one.cpu_us for one in ours)]
        rates = [median(one.per_second for one in theirs), median(one.per_second for one in ours)]
        print(f"| {row} | {figures[0]:.0f} | {figures[1]:.0f} | {ratio:.2f} | {rates[0]:.0f} | {rates[1]:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
