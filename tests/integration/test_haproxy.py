"""The configurations in deploy/haproxy with the real HAProxy, in front of gateways and behind one; nothing in them is changed here."""

from __future__ import annotations

import csv
import re
import signal
import subprocess
from pathlib import Path

import pytest

from meshgw.wire.proxy_protocol import write_header
from support import servers
from support.certs import authority, write_files
from support.gateways import SECONDS, Answer, Gateway, Nginx, curl, gateway, run_curl, talk
from support.processes import LOOPBACK, Process, Running, accepts, free_port, wait_until

pytestmark = pytest.mark.integration

DEPLOY = Path(__file__).parents[2] / "deploy" / "haproxy"
CALLER = "127.0.0.9"
"""Where callers come from; HAProxy and the gateways use 127.0.0.1."""
SHOP, BANK, OUTSIDE = "shop.example", "bank.example", "outside.example"
TELL = "location / { return 200 '$http_x_forwarded_for|$http_x_forwarded_proto|$http_x_forwarded_host'; }"
ONE_SERVICE = {"dtab": "/svc => /#/io.l5d.fs/web", "identifier": {"kind": "io.l5d.static", "path": "/all"}}
BEHIND_PROXY = {"proxyProtocol": {"trusted": [LOOPBACK]}, "healthPath": "/healthz", "xForwardedHeaders": "replace"}


def haproxy(running: Running, name: str, listen: int, **places: object) -> Process:
    """HAProxy with one of the configurations as it stands, its places given by the environment."""
    environment = {"LISTEN": f"{LOOPBACK}:{listen}", **{key: str(value) for key, value in places.items()}}
    argv = [servers.tool("haproxy"), "-db", "-f", str(DEPLOY / f"{name}.cfg")]
    process = Process(f"haproxy-{name}", argv, running.directory, port=listen, env=environment)
    return running.add(process, is_ready=lambda: accepts(listen))


def at(port: int) -> str:
    return f"{LOOPBACK}:{port}"


def ask(url: str, *words: str) -> Answer:
    """A request from the caller's own address."""
    return curl("--interface", CALLER, *words, url)


def statuses(port: int) -> dict[str, str]:
    """The servers by name, and whether HAProxy takes them for alive, by its page of statistics."""
    lines = curl(f"http://{at(port)}/;csv").text.removeprefix("# ").splitlines()
    return {row["svname"]: row["status"] for row in csv.DictReader(lines) if row["svname"] not in ("FRONTEND", "BACKEND")}


class Balanced:
    """Two gateways to one service behind HAProxy."""

    def __init__(self, running: Running) -> None:
        self.nginx = Nginx(running, TELL)
        self.gateways = [gateway(running, {"web": self.nginx.port}, server=BEHIND_PROXY, name=f"meshgw{number}") for number in (1, 2)]
        self.port, self.stats = free_port(), free_port()
        first, second = (at(one.port) for one in self.gateways)
        self.haproxy = haproxy(running, "load-balancing", self.port, GATEWAY1=first, GATEWAY2=second, STATS=at(self.stats))
        assert wait_until(lambda: set(statuses(self.stats).values()) == {"UP"}, SECONDS), statuses(self.stats)


def test_requests_are_spread_over_two_gateways_and_tell_their_caller(running: Running) -> None:
    balanced = Balanced(running)
    for _ in range(6):
        assert ask(f"http://{at(balanced.port)}/", "-H", "Host: web", "-H", "X-Forwarded-For: 6.6.6.6").text == f"{CALLER}|http|web"
    for gw in balanced.gateways:
        assert gw.server_metric("requests") == 3
        assert gw.server_metric("health_checks") >= 1
        assert gw.server_metric("proxy_protocol/failures/missing") == 0
    assert "gateway1" in curl(f"http://{at(balanced.stats)}/").text


def test_a_gateway_that_ends_under_load_costs_no_request(running: Running) -> None:
    balanced = Balanced(running)
    argv = ["wrk", "-t1", "-c8", "-d600s", "--timeout", "60s", "-H", "Host: web", f"http://{at(balanced.port)}/"]
    load = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        first, second = balanced.gateways
        assert wait_until(lambda: first.server_metric("requests") > 100, SECONDS)
        first.process.signal(signal.SIGTERM)
        assert first.process.wait(SECONDS) == 0
        before = second.server_metric("requests")
        assert wait_until(lambda: second.server_metric("requests") > before + 100, SECONDS)
        load.send_signal(signal.SIGINT)
        told, _ = load.communicate(timeout=SECONDS)
    finally:
        load.kill()
    assert "Non-2xx" not in told and "Socket errors" not in told, told
    assert re.search(r"\d+ requests in", told)
    assert wait_until(lambda: statuses(balanced.stats)["gateway1"].startswith("DOWN"), SECONDS)
    assert ask(f"http://{at(balanced.port)}/", "-H", "Host: web").status == 200


def test_https_with_two_certificates_on_one_address(running: Running) -> None:
    nginx = Nginx(running, TELL)
    log = running.directory / "access.log"
    server = {"trustedForwarders": [LOOPBACK], "xForwardedHeaders": "append", "healthPath": "/healthz"}
    gw = gateway(running, {"web": nginx.port}, server=server, router={**ONE_SERVICE, "httpAccessLog": str(log)})
    certificates = running.directory / "certificates"
    certificates.mkdir()
    for name in (SHOP, BANK):
        leaf = authority().leaf(name)
        (certificates / f"{name}.pem").write_bytes(leaf.certificate_pem + leaf.key_pem())
    port = free_port()
    haproxy(running, "tls-termination", port, CERTIFICATES=certificates, GATEWAY=at(gw.port))
    for name in (SHOP, BANK):
        got = ask(f"https://{name}:{port}/", *trusting(running, name, port), "-H", "X-Forwarded-For: 6.6.6.6")
        assert got.text == f"{CALLER}, {LOOPBACK}|https|{name}:{port}"
    assert run_curl(*trusting(running, "other.example", port), f"https://other.example:{port}/").returncode == 35  # the alert for its name
    assert wait_until(lambda: log.read_text().count(f" {CALLER} - - ") == 2, SECONDS), log.read_text()
    assert gw.server_metric("health_checks") >= 1


def trusted(running: Running) -> Path:
    """A file with the tests' authority."""
    bundle = running.directory / "authority.pem"
    bundle.write_bytes(authority().pem)
    return bundle


def trusting(running: Running, name: str, port: int) -> tuple[str, ...]:
    """curl's options to reach ``name`` here and trust the tests' authority."""
    return ("--cacert", str(trusted(running)), "--resolve", f"{name}:{port}:{LOOPBACK}")


def test_tls_passes_through_to_the_gateway_of_each_name(running: Running) -> None:
    nginx = Nginx(running, TELL)
    places: dict[str, object] = {}
    gateways: list[Gateway] = []
    for number, name in enumerate((SHOP, BANK), 1):
        certificate, key = write_files(authority().leaf(name), running.directory, name)
        server = {**BEHIND_PROXY, "tls": {"certPath": certificate, "keyPath": key}}
        gw = gateway(running, {"web": nginx.port}, server=server, router=ONE_SERVICE, name=f"meshgw-{name}")
        places |= {f"NAME{number}": name, f"GATEWAY{number}": at(gw.port)}
        gateways.append(gw)
    port = free_port()
    haproxy(running, "tls-passthrough", port, CA=trusted(running), **places)
    for name, gw in zip((SHOP, BANK), gateways, strict=True):
        got = ask(f"https://{name}:{port}/", *trusting(running, name, port))
        assert got.text == f"{CALLER}|https|{name}:{port}"
        assert gw.server_metric("requests") == 1
        assert wait_until(lambda gw=gw: gw.server_metric("health_checks") >= 1, SECONDS)  # type: ignore[misc]  # mypy: defaults of lambdas
    assert run_curl(*trusting(running, "other.example", port), f"https://other.example:{port}/").returncode != 0
    assert talk(port, b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n") == b""


def test_the_way_out_is_tls_from_the_gateway_to_the_service(running: Running) -> None:
    certificate, key = write_files(authority().leaf(OUTSIDE), running.directory, "outside")
    secure = free_port()
    tls = f"listen {LOOPBACK}:{secure} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};"
    Nginx(running, f"{tls} location / {{ return 200 '$scheme $ssl_server_name $host'; }}")
    port = free_port()
    out = haproxy(running, "egress", port, SERVICE=at(secure))
    client = {"tls": {"commonName": OUTSIDE, "trustCertsBundle": str(trusted(running))}}
    gw = gateway(running, {OUTSIDE: port}, router={"client": client})
    assert gw.get(OUTSIDE).text == f"https {OUTSIDE} {OUTSIDE}"
    gw.process.stop()  # HAProxy writes its line when the connection ends
    assert wait_until(lambda: " egress service/service " in out.output(), SECONDS), out.output()
    assert talk(port, b"GET / HTTP/1.1\r\nHost: outside.example\r\n\r\n") == b"", "nothing leaves in the clear"


PEER = "location / { return 200 '$proxy_protocol_addr $proxy_protocol_port $scheme'; }"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_nginx_is_told_the_caller_by_proxy_protocol(running: Running, version: str) -> None:
    told = free_port()
    Nginx(running, f"listen {LOOPBACK}:{told} proxy_protocol; {PEER}")
    gw = gateway(running, {"web": told}, router={"client": {"proxyProtocol": version}})
    for port in (free_port(CALLER), free_port(CALLER)):
        assert ask(f"http://{at(gw.port)}/", "-H", "Host: web", "--local-port", str(port)).text == f"{CALLER} {port} http"


def test_nginx_is_told_the_caller_before_tls_begins(running: Running) -> None:
    certificate, key = write_files(authority().leaf(OUTSIDE), running.directory, "outside")
    told = free_port()
    Nginx(running, f"listen {LOOPBACK}:{told} ssl proxy_protocol; ssl_certificate {certificate}; ssl_certificate_key {key}; {PEER}")
    tls = {"commonName": OUTSIDE, "trustCertsBundle": str(trusted(running))}
    gw = gateway(running, {"web": told}, router={"client": {"proxyProtocol": "v2", "tls": tls}})
    assert ask(f"http://{at(gw.port)}/", "-H", "Host: web").text.startswith(f"{CALLER} ")
    assert gw.get("web").text.endswith(" https")


def test_a_caller_behind_haproxy_is_told_through_to_the_service(running: Running) -> None:
    told = free_port()
    Nginx(running, f"listen {LOOPBACK}:{told} proxy_protocol; location / {{ return 200 '$proxy_protocol_addr:$proxy_protocol_port'; }}")
    gw = gateway(running, {"web": told}, server=BEHIND_PROXY, router={"client": {"proxyProtocol": "v1"}})
    header = write_header(2, ("2001:db8::7", 4711), ("2001:db8::9", 443))
    answer = talk(gw.port, header + b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n2001:db8::7:4711")
