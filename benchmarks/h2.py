"""HTTP/2 beside nghttpx, Envoy and HAProxy: CPU per call and added latency at 1, 10 and 100 streams of one connection, in one run.

A call is what a small unary gRPC call is: twelve fields, a body of 32 bytes, an answer of 32 bytes with trailers. nghttpd echoes it, h2load
calls in a closed loop. Rounds are interleaved, generator and backend on one CPU, the proxies on another. Latency is added latency: the
median of a proxy less the median of calls to the backend itself in the same round. `make bench-h2` runs it.
"""

from __future__ import annotations

import argparse
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
from environments import envoy_program
from native import Place
from support import servers
from support.processes import Process, ProcessFailed, Running, free_port, wait_until

STREAMS = (1, 10, 100)
CALLS = {1: 4000, 10: 12000, 100: 20000}
"""Calls of one run by streams; a run takes some seconds."""
WARM_UP = 2000
FIELDS = {
    "te": "trailers",
    "content-type": "application/grpc",
    "user-agent": "grpc-python/1.85.1 grpc-c/52.0.0 (linux; chttp2)",
    "grpc-accept-encoding": "identity, deflate, gzip",
    "grpc-timeout": "10S",
    "x-request-id": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "authorization": "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
}
PROXIES = ("meshgw", "envoy", "haproxy", "nghttpx")


@attrs.frozen
class Measured:
    """One run: CPU per call in microseconds, calls per second, and latencies in milliseconds."""

    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float


def backend(directory: Path) -> Process:
    """nghttpd, which gives back what it is sent, with trailers."""
    port = free_port()
    argv = [servers.tool("nghttpd"), "--no-tls", "-a", "127.0.0.1", "--echo-upload", "--trailer=grpc-status: 0", "-n", "1", str(port)]
    return Process("nghttpd", argv, directory, port=port, core=0)


def nghttpx(place: Place) -> Process:
    """nghttpx as an HTTP/2 proxy with an access log."""
    argv = [
        servers.tool("nghttpx"),
        f"-f127.0.0.1,{place.port};no-tls",
        f"-b127.0.0.1,{place.upstream};/;no-tls;proto=h2",
        f"--accesslog-file={place.directory}/nghttpx-access.log",
        f"--errorlog-file={place.directory}/nghttpx-error.log",
        "-n1",
        "--no-ocsp",
        "--conf=/dev/null",
    ]
    return Process("nghttpx", argv, place.directory, port=place.port, core=place.core)


def haproxy(place: Place) -> Process:
    """HAProxy with HTTP/2 on both sides."""
    config = f"""
global
    nbthread 1
    maxconn 15000
    no strict-limits
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    http-reuse always
    timeout connect 5s
    timeout client 600s
    timeout server 600s
frontend front
    bind 127.0.0.1:{place.port} proto h2
    default_backend back
backend back
    server one 127.0.0.1:{place.upstream} proto h2
"""
    return servers.haproxy(place.directory, config, port=place.port, core=place.core)


def envoy(place: Place) -> Process:
    """Envoy with HTTP/2 on both sides."""
    config = f"""
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {free_port()} }} }} }}
static_resources:
  listeners:
  - name: front
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {place.port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          codec_type: HTTP2
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {place.directory}/envoy-access.log
          route_config:
            virtual_hosts:
            - {{ name: web, domains: ["*"], routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: web }} }}] }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: web
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: web
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {place.upstream} }} }} }}
"""
    return servers.envoy(place.directory, config, program=str(envoy_program()), port=place.port, core=place.core, concurrency=1)


def meshgw(place: Place) -> Process:
    """The gateway as an operator has it: names from files, metrics by method, gRPC's verdicts, an access log."""
    disco = place.directory / "disco"
    disco.mkdir()
    (disco / "web").write_text(f"127.0.0.1 {place.upstream}\n")
    config = f"""
admin: {{port: {free_port()}}}
telemetry:
- kind: io.l5d.prometheus
namers:
- kind: io.l5d.fs
  rootDir: {disco}
routers:
- protocol: h2
  label: bench
  dtab: /svc/helloworld.Greeter/SayHello => /#/io.l5d.fs/web;
  identifier: {{kind: io.l5d.header.path, segments: 2}}
  h2AccessLog: {place.directory}/access.log
  service: {{responseClassifier: {{kind: io.l5d.h2.grpc.default}}}}
  servers:
  - port: {place.port}
    ip: 127.0.0.1
"""
    return servers.meshgw(place.directory, config, port=place.port, core=place.core, python=place.python)


MAKERS: dict[str, Callable[[Place], Process]] = {"meshgw": meshgw, "envoy": envoy, "haproxy": haproxy, "nghttpx": nghttpx}


def call(port: int, streams: int, calls: int, directory: Path, *, seconds: float = 120.0) -> tuple[float, list[int]]:
    """Calls per second, and the time of each in microseconds. Raises :class:`ProcessFailed` unless all succeeded in time."""
    body, log = directory / "body", directory / "times"
    body.write_bytes(b"\0\0\0\0\x1b" + b"x" * 27)
    log.unlink(missing_ok=True)
    fields = [word for name, value in FIELDS.items() for word in ("-H", f"{name}: {value}")]
    command = [
        "taskset",
        "-c",
        "0",
        servers.tool("h2load"),
        "-n",
        str(calls),
        "-c1",
        f"-m{streams}",
        f"-d{body}",
        f"--log-file={log}",
        *fields,
    ]
    command.append(f"http://127.0.0.1:{port}/helloworld.Greeter/SayHello")
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    rate = re.search(r"finished in [0-9.]+m?s, ([0-9.]+) req/s", ran.stdout)
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", ran.stdout)
    if rate is None or done is None or int(done[1]) != calls:
        raise ProcessFailed(f"{' '.join(command)} failed:\n{ran.stdout}{ran.stderr}")
    times = sorted(int(line.split()[2]) for line in log.read_text().splitlines())
    return float(rate[1]), times


def measured(process: Process | None, port: int, streams: int, directory: Path) -> Measured:
    """One run; ``process`` None for the backend itself, whose CPU is not of interest."""
    calls = CALLS[streams]
    before = cpu_ns(process.pid) if process is not None else 0
    rate, times = call(port, streams, calls, directory)
    used = cpu_ns(process.pid) - before if process is not None else 0
    return Measured(used / 1000 / calls, rate, times[len(times) // 2] / 1000, times[len(times) * 99 // 100] / 1000)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--proxies", default=",".join(PROXIES))
    parser.add_argument("--python", default=sys.executable, help="interpreter that meshgw runs in")
    chosen = parser.parse_args(arguments)
    names = chosen.proxies.split(",")
    found: dict[tuple[int, str], list[Measured]] = {}
    with tempfile.TemporaryDirectory(prefix="meshgw-bench-") as place, Running(Path(place)) as running:
        directory = Path(place)
        directory.chmod(0o755)
        behind = running.add(backend(directory))
        assert behind.port is not None
        started: dict[str, tuple[Process | None, int]] = {"direct": (None, behind.port)}
        for name in names:
            own = Place(directory=directory / name, port=free_port(), upstream=behind.port, core=1, python=chosen.python)
            own.directory.mkdir()
            process = running.add(MAKERS[name](own))
            started[name] = (process, own.port)
        for name, (_, port) in started.items():
            if not wait_until(lambda port=port: _serves(port, directory), 20.0):  # type: ignore[misc]  # mypy: defaults of lambdas
                raise ProcessFailed(f"{name} does not serve")
            call(port, 10, WARM_UP, directory)
        for number in range(chosen.rounds):
            for streams in STREAMS:
                for name, (process, port) in started.items():
                    one = measured(process, port, streams, directory)
                    found.setdefault((streams, name), []).append(one)
                    print(
                        f"{number + 1}/{chosen.rounds} {streams:3} streams {name:8} {one.cpu_us:7.1f} µs {one.per_second:8.0f}/s "
                        f"p50 {one.p50_ms:.2f} p99 {one.p99_ms:.2f} ms",
                        file=sys.stderr,
                    )
    for line in report(found, names):
        print(line)
    return 0


def _serves(port: int, directory: Path) -> bool:
    try:
        call(port, 1, 1, directory)
    except ProcessFailed:
        return False
    return True


def report(found: dict[tuple[int, str], list[Measured]], names: Sequence[str]) -> list[str]:
    """The tables. Ratios are medians of those of each round."""
    lines = [
        "| streams | proxy | CPU µs/call | meshgw's ÷ its | calls/s | p50 added ms | p99 added ms |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for streams in STREAMS:
        direct = found[streams, "direct"]
        for name in names:
            runs = found[streams, name]
            ratio = ""
            if name != "meshgw" and "meshgw" in names:
                pairs = zip(found[streams, "meshgw"], runs, strict=True)
                ratio = f"{median(ours.cpu_us / theirs.cpu_us for ours, theirs in pairs):.2f}"
            p50 = median(one.p50_ms - base.p50_ms for one, base in zip(runs, direct, strict=True))
            p99 = median(one.p99_ms - base.p99_ms for one, base in zip(runs, direct, strict=True))
            cpu, rate = median(one.cpu_us for one in runs), median(one.per_second for one in runs)
            lines.append(f"| {streams} | {name} | {cpu:.1f} | {ratio} | {rate:.0f} | {p50:.2f} | {p99:.2f} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
