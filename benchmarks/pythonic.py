"""The proxies written in Python: meshgw in its variants, and those that it is compared with."""

from __future__ import annotations

from pathlib import Path

from environments import environment
from native import Place
from support import servers
from support.processes import Process, free_port

HERE = Path(__file__).parent
SERVICES, ENDPOINTS = 1000, 10
"""The large gateway: services, and endpoints of each."""

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

ROOM_FOR_ALL = f"""
  bindingCache: {{paths: {2 * SERVICES}, trees: {2 * SERVICES}, bounds: {2 * SERVICES}, clients: {2 * SERVICES}}}
"""


def meshgw(place: Place, router: str = "", server: str = "") -> Process:
    """The gateway, with names from files as an operator has them; ``router`` and ``server`` are more lines of these blocks."""
    return gateway(place, {"web": [f"127.0.0.1 {place.upstream}"]}, router, server)


def meshgw_off(place: Place) -> Process:
    """What can be off of its resilience switched off."""
    return meshgw(place, RESILIENCE_OFF)


def meshgw_full(place: Place) -> Process:
    """All of its resilience on."""
    return meshgw(place, RESILIENCE_FULL, LIMITS_FULL)


def meshgw_few(place: Place) -> Process:
    """One service, `web0`, of ten endpoints."""
    return gateway(place, services(1, place.upstream), ROOM_FOR_ALL)


def meshgw_many(place: Place) -> Process:
    """A thousand services, `web0` to `web999`, of ten endpoints each."""
    return gateway(place, services(SERVICES, place.upstream), ROOM_FOR_ALL)


def services(count: int, port: int) -> dict[str, list[str]]:
    """Lines of address files: every endpoint is another address of 127.0.0.0/8, all of them one backend."""
    numbers = [[number * ENDPOINTS + one for one in range(ENDPOINTS)] for number in range(count)]
    return {f"web{name}": [f"127.1.{one // 250}.{1 + one % 250} {port}" for one in endpoints] for name, endpoints in enumerate(numbers)}


def gateway(
    place: Place,
    names: dict[str, list[str]],
    router: str = "",
    server: str = "",
    *,
    telemetry: str = "- kind: io.l5d.prometheus",
    admin_port: int | None = None,
) -> Process:
    """The gateway with ``names`` and their addresses; ``telemetry`` are the lines of that block."""
    home = place.directory / f"meshgw-{place.port}"
    disco = home / "disco"
    disco.mkdir(parents=True, exist_ok=True)
    for name, lines in names.items():
        (disco / name).write_text("\n".join(lines) + "\n")
    config = f"""
admin: {{port: {admin_port or free_port()}}}
{f"workers: {place.workers}" if place.workers > 1 else ""}
telemetry: {"[]" if not telemetry else ""}
{telemetry}
namers:
- kind: io.l5d.fs
  rootDir: {disco}
routers:
- protocol: http
  label: bench
  dtab: /svc => /#/io.l5d.fs;
  httpAccessLog: {home}/access.log
{router}
  servers:
  - port: {place.port}
    ip: 127.0.0.1
{server}
"""
    return servers.meshgw(home, config, port=place.port, core=place.core, python=place.python)


def twisted_web(place: Place) -> Process:
    """twisted.web's reverse proxy, on the interpreter and the Twisted that meshgw has."""
    log = place.directory / "twisted-access.log"
    argv = [place.python, str(HERE / "twisted_web.py"), str(place.port), str(place.upstream), str(log)]
    return Process("twisted-web", argv, place.directory, port=place.port, core=place.core)


def mitmproxy(place: Place) -> Process:
    """mitmdump in reverse mode; the line it prints per request is its access log."""
    home = place.directory / "mitmproxy"
    home.mkdir()
    program = environment("mitmproxy").with_name("mitmdump")
    argv = [str(program), "--mode", f"reverse:http://127.0.0.1:{place.upstream}", "--listen-host", "127.0.0.1"]
    argv += ["--listen-port", str(place.port), "--set", f"confdir={home}", "--set", "keep_host_header=true"]
    return Process("mitmproxy", argv, place.directory, port=place.port, core=place.core)


def proxy_py(place: Place) -> Process:
    """proxy.py with its reverse proxy plug-in, one acceptor and one worker; it logs requests as the others do."""
    argv = [str(environment("proxy.py")), "-m", "proxy", "--hostname", "127.0.0.1", "--port", str(place.port)]
    argv += ["--num-acceptors", "1", "--num-workers", "1", "--enable-reverse-proxy", "--plugins", "proxy_py_route.OneBackend"]
    argv += ["--backlog", "4096", "--timeout", "600", "--data-dir", str(place.directory / "proxy.py")]
    env = {"BENCH_BACKEND": str(place.upstream), "PYTHONPATH": str(HERE)}
    return Process("proxy.py", argv, place.directory, port=place.port, core=place.core, env=env)
