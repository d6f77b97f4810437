"""Egress: names of the outside world by the dtab of the egress guide, through DNS that changes, and tunnels by CONNECT for real clients."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support import servers
from support.certs import authority, write_files
from support.gateways import LOOPBACK, SECONDS, Gateway, config, gateway, parse_answer, read_all, read_until, run_curl
from support.processes import Process, Running, accepts, free_port, wait_until
from support.servers import tool

pytestmark = pytest.mark.integration

DTAB = "/ph => /$/io.buoyant.rinet; /svc => /ph/80; /svc => /$/io.buoyant.porthostPfx/ph"
OTHER = "127.0.0.2"

LAUNCH = """
import sys
from twisted.names import client
from meshgw.namers import resolvconf

port = int(sys.argv.pop(1))
resolvconf.SystemServers = lambda reactor: resolvconf.FixedServers(
    client.Resolver(servers=[("127.0.0.1", port)], timeout=(1, 1), reactor=reactor))
from twisted.scripts.twistd import run
run()
"""
"""twistd with another name server than the machine's, which cannot be told a port."""


class Outside:
    """A name server, and nginx as the world: the same port on two addresses, which say who they are, and another one with TLS."""

    def __init__(self, running: Running) -> None:
        self.running, self.directory = running, running.directory
        self.dns_port, self.port, self.tls_port = free_port(), free_port(), free_port()
        self.records = self.directory / "records"
        self.records.write_text("")
        self.name_server = self.start_name_server()
        certificate, key = write_files(authority().leaf("www.test"), self.directory, "www")
        plain = "".join(f'server {{ listen {ip}:{self.port}; location / {{ return 200 "{ip}"; }} }}' for ip in (LOOPBACK, OTHER))
        secure = (
            f"server {{ listen {LOOPBACK}:{self.tls_port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key}; "
            'location / { return 200 "secure"; } }'
        )
        user = "user root;" if os.getuid() == 0 else ""
        text = f"{user}\nevents {{ }}\nhttp {{ access_log off; keepalive_timeout 600; {plain} {secure} }}"
        running.add(servers.nginx(self.directory, text, port=self.port), is_ready=lambda: accepts(self.port) and accepts(self.tls_port))

    def start_name_server(self) -> Process:
        argv = [tool("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", f"--port={self.dns_port}", f"--listen-address={LOOPBACK}"]
        argv += ["--bind-interfaces", "--no-hosts", "--no-resolv", f"--addn-hosts={self.records}", "--local-ttl=1", "--local=/test/"]
        argv += ["--user=", "--group=", "--pid-file=", "--log-facility=-"]
        return self.running.add(Process("dnsmasq", argv, self.directory, port=self.dns_port))

    def knows(self, text: str) -> None:
        """Replace the records."""
        self.records.write_text(text)
        self.name_server.signal(signal.SIGHUP)

    def gateway(self, server: dict[str, Any] | None = None, **router: Any) -> Gateway:
        """A gateway that asks this name server."""
        root = self.directory / "names"
        root.mkdir()
        port, admin_port = free_port(), free_port()
        settings = config(root, port, admin_port, router={"dtab": DTAB, **router}, server=server)
        settings["admin"]["shutdownGraceMs"] = 5000  # one test waits for its end
        process = servers.meshgw(self.directory, json.dumps(settings), port=port)
        launch = servers.written(self.directory, "launch.py", LAUNCH)
        process.argv[:1] = [sys.executable, str(launch), str(self.dns_port)]
        self.running.add(process, is_ready=lambda: accepts(port) and accepts(admin_port))
        return Gateway(process, port, admin_port, root)


@pytest.fixture
def outside(running: Running) -> Outside:
    if shutil.which("dnsmasq") is None and not os.access(tool("dnsmasq"), os.X_OK):
        pytest.skip("dnsmasq is not installed: NOT testing egress with a real name server (apt-get install dnsmasq-base)")
    return Outside(running)


def test_a_name_with_a_port_leads_out_and_follows_dns(outside: Outside) -> None:
    outside.knows(f"{LOOPBACK} www.test\n")
    gateway = outside.gateway()
    host = f"www.test:{outside.port}"
    client = f"rt/http/client/$/io.buoyant.rinet/{outside.port}/www.test"
    assert gateway.get(host).text == LOOPBACK
    assert gateway.metrics()[f"{client}/connections"] == 1
    outside.knows(f"{OTHER} www.test\n")
    assert wait_until(lambda: gateway.get(host).text == OTHER, SECONDS)
    assert wait_until(lambda: gateway.metrics()[f"{client}/connections"] == 1, SECONDS), (
        "the idle one to the address that vanished is closed"
    )
    outside.name_server.stop()
    assert wait_until(lambda: "stale" in gateway.admin("/client_state.json").text, SECONDS)
    assert gateway.get(host).text == OTHER
    outside.records.write_text(f"{LOOPBACK} www.test\n")
    outside.name_server = outside.start_name_server()
    assert wait_until(lambda: gateway.get(host).text == LOOPBACK, 2 * SECONDS)


def test_a_request_under_way_ends_on_an_address_that_vanished(outside: Outside) -> None:
    outside.knows(f"{LOOPBACK} www.test\n")
    gateway = outside.gateway({"connect": {"allow": ["*.test:*"]}})
    with closing(tunnel(gateway, f"www.test:{outside.port}")) as caller:
        outside.knows(f"{OTHER} www.test\n")
        host = f"www.test:{outside.port}"
        assert wait_until(lambda: gateway.get(host).text == OTHER, SECONDS)
        caller.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert parse_answer(read_all(caller)).text == LOOPBACK


def test_a_name_that_does_not_exist_is_refused_until_it_does(outside: Outside) -> None:
    gateway = outside.gateway()
    host = f"new.test:{outside.port}"
    answer = gateway.get(host)
    assert answer.status == 502
    assert "l5d-err" in answer.headers
    outside.knows(f"{LOOPBACK} new.test\n")
    assert wait_until(lambda: gateway.get(host).status == 200, SECONDS)


def tunnel(gateway: Gateway, target: str) -> socket.socket:
    """An established tunnel."""
    caller = socket.create_connection((LOOPBACK, gateway.port), timeout=SECONDS)
    caller.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = read_until(caller, b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    return caller


def through(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[bytes]:
    """curl with the gateway as its HTTP proxy, trusting the tests' authority."""
    bundle = Path(gateway.root).parent / "authority.pem"
    bundle.write_bytes(authority().pem)
    return run_curl("--include", "--cacert", str(bundle), "--proxy", f"http://{LOOPBACK}:{gateway.port}", *words)


def test_curl_speaks_tls_end_to_end_through_a_tunnel(outside: Outside) -> None:
    outside.knows(f"{LOOPBACK} www.test\n")
    log = outside.directory / "access.log"
    gateway = outside.gateway({"connect": {"allow": [f"www.test:{outside.tls_port}"]}}, httpAccessLog=str(log))
    done = through(gateway, f"https://www.test:{outside.tls_port}/")
    assert done.returncode == 0, done.stderr
    assert parse_answer(done.stdout).text == "secure"
    assert wait_until(lambda: log.read_text() != "", SECONDS)
    assert f'"CONNECT www.test:{outside.tls_port} HTTP/1.1" 200 ' in log.read_text()


def test_curl_is_told_that_a_destination_is_not_allowed(outside: Outside) -> None:
    gateway = outside.gateway({"connect": {"allow": ["www.test:1"]}})
    done = through(gateway, f"https://www.test:{outside.tls_port}/")
    assert done.returncode == 56
    assert b"403" in done.stderr


def test_the_gateway_originates_tls_where_its_client_is_told_to(outside: Outside) -> None:
    outside.knows(f"{LOOPBACK} www.test\n")
    bundle = outside.directory / "trusted.pem"
    bundle.write_bytes(authority().pem)
    prefix = f"/$/io.buoyant.rinet/{outside.tls_port}/{{host}}"
    client = {"kind": "io.l5d.static", "configs": [{"prefix": prefix, "tls": {"commonName": "{host}", "trustCertsBundle": str(bundle)}}]}
    connect = {"allow": [f"www.test:{outside.tls_port}"]}
    gateway = outside.gateway({"connect": connect}, client=client)
    assert gateway.get(f"www.test:{outside.tls_port}").text == "secure"
    done = through(gateway, f"https://www.test:{outside.tls_port}/")
    assert done.returncode == 0, "a tunnel of the same name is not wrapped in TLS once more"


def test_open_tunnels_end_with_the_grace_period(outside: Outside) -> None:
    outside.knows(f"{LOOPBACK} www.test\n")
    gateway = outside.gateway({"connect": {"allow": [f"www.test:{outside.port}"]}})
    with closing(tunnel(gateway, f"www.test:{outside.port}")) as caller:
        gateway.process.signal(signal.SIGTERM)
        assert wait_until(lambda: not accepts(gateway.port), SECONDS)
        caller.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_until(caller, LOOPBACK.encode())
        assert read_all(caller) == b""
    assert gateway.process.wait(SECONDS) == 0


@pytest.mark.parametrize(
    ("name", "bound"),
    [("localhost", "/$/io.buoyant.rinet/80/localhost"), ("localhost:443", "/$/io.buoyant.rinet/443/localhost")],
)
def test_the_dtab_of_the_guide_is_explained_offline(tmp_path: Path, name: str, bound: str) -> None:
    file = tmp_path / "egress.yml"
    file.write_text(json.dumps({"routers": [{"protocol": "http", "dtab": DTAB, "servers": [{"port": 0}]}]}))
    program = "import sys; from meshgw.cli.meshgw import main; sys.exit(main(sys.argv[1:]))"
    argv = [sys.executable, "-c", program, "dtab", f"/svc/{name}", "--config", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert f"bound to {bound}" in done.stdout
    assert f"127.0.0.1:{bound.split('/')[3]}" in done.stdout


def test_names_that_tell_an_ensemble_of_zookeeper_are_not_followed_where_egress_is_limited(running: Running) -> None:
    router = {"dtab": f"/svc => /$/io.buoyant.namer.zk.leader/{LOOPBACK}:2181/lead", "egress": {"denyNetworks": ["169.254.0.0/16"]}}
    gw = gateway(running, router=router)
    answer = gw.get("web")
    assert answer.status == 502
    assert "configure a namer io.l5d.zkLeader" in answer.text
