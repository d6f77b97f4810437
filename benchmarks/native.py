"""The compiled proxies and the backends: configurations of nginx, HAProxy and Envoy.

Each has keep-alive on both sides and writes an access log to a file, so that all do the work a gateway does in production.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from environments import envoy_program
from support import servers
from support.processes import Process, free_port

LARGEST_INLINE_BODY = 2048  # nginx reads a configuration word into a 4 kB buffer
KEEP = 100_000_000  # requests per connection: never reached, since nginx's default of 1000 would close connections all the time


@attrs.frozen(kw_only=True)
class Place:
    """Where a proxy is to run: its directory, own port, backend's port, CPU, how many workers, and the interpreter of Python ones."""

    directory: Path
    port: int
    upstream: int
    core: int | frozenset[int]
    python: str
    workers: int = 1


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


def loopback_backend(directory: Path, *, core: int, body: int) -> Process:
    """A backend on every address of 127.0.0.0/8 and on no other interface: HAProxy can bind to the loopback interface itself."""
    port = free_port()
    config = f"""
global
    nbthread 1
    maxconn 30000
    no strict-limits
defaults
    mode http
    option http-keep-alive
    timeout client 600s
    timeout http-keep-alive 600s
frontend answer
    bind 0.0.0.0:{port} interface lo backlog 4096
    http-request return status 200 content-type text/plain string {"x" * body}
"""
    return servers.haproxy(directory, config, port=port, name="backend", core=core)


def nginx(place: Place) -> Process:
    """nginx as a reverse proxy."""
    config = f"""
worker_processes {place.workers};
worker_rlimit_nofile 60000;
events {{ worker_connections 30000; }}
http {{
  access_log {place.directory}/nginx-access.log;
  keepalive_requests {KEEP};
  keepalive_timeout 600s;
  upstream backend {{ server 127.0.0.1:{place.upstream}; keepalive 256; keepalive_requests {KEEP}; keepalive_timeout 600s; }}
  server {{
    listen 127.0.0.1:{place.port} backlog=4096;
    location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; }}
  }}
}}
"""
    return servers.nginx(place.directory, config, port=place.port, core=place.core)


def haproxy(place: Place, bind: str = "") -> Process:
    """HAProxy in HTTP mode; ``bind`` are more words of its ``bind`` line."""
    # HAProxy wants two open files for each of maxconn and would refuse to start where the limit is 20,000; idle ones need one.
    config = f"""
global
    nbthread {place.workers}
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
    bind 127.0.0.1:{place.port} backlog 4096{bind}
    default_backend back
backend back
    server one 127.0.0.1:{place.upstream}
"""
    return servers.haproxy(place.directory, config, port=place.port, core=place.core)


def envoy(place: Place) -> Process:
    """Envoy as an HTTP proxy; its threads are called workers."""
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
    load_assignment:
      cluster_name: web
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {place.upstream} }} }} }}
"""
    program = str(envoy_program())
    return servers.envoy(place.directory, config, program=program, port=place.port, core=place.core, concurrency=place.workers)
