"""The SRV namer in a running gateway, against real name servers: BIND with dynamic updates, and dnsmasq."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.gateways import LOOPBACK, MANY, SECONDS, Gateway, Nginx, gateway
from support.processes import Process, Running, free_port, wait_until
from support.servers import tool, written

pytestmark = pytest.mark.integration

WEB = "_http._tcp.web.test"
BIG = "_big._tcp.test"
BIG_COUNT = 1300
"""SRV records: some 40 KB of the 64 KB that a message can have."""


def named(running: Running, name: str) -> Nginx:
    """nginx that answers with its own name."""
    return Nginx(running, f'location / {{ return 200 "{name}"; }}', name=name)


class Bind:
    """BIND with a zone `test` that takes updates, one that it refuses to answer for, and one that it cannot load."""

    def __init__(self, running: Running) -> None:
        self.running, self.port = running, free_port()
        self.directory = running.directory / "bind"
        big = "".join(f"{BIG}. SRV 0 0 {10000 + number} n{number % 50}.test.\n" for number in range(BIG_COUNT))
        hosts = "".join(f"n{number}.test. A 127.0.1.{number + 1}\n" for number in range(50))
        head = "$TTL 1\n@ IN SOA ns hostmaster 1 3600 600 86400 1\n@ NS ns\nns A 127.0.0.1\n"
        written(self.directory, "test.zone", f"{head}one A {LOOPBACK}\ntwo A {LOOPBACK}\n_off._tcp.web SRV 0 0 0 .\n{big}{hosts}")
        written(self.directory, "other.zone", head)
        options = (
            f'directory "{self.directory}"; pid-file none; session-keyfile none; recursion no; allow-query {{ any; }}; '
            f"listen-on port {self.port} {{ {LOOPBACK}; }}; listen-on-v6 {{ none; }}; dnssec-validation no;"
        )
        if bind_version() >= (9, 18, 28):
            options += " max-records-per-type 0;"
        config = (
            f"options {{ {options} }};\ncontrols {{ }};\n"
            f'zone "test" {{ type primary; file "test.zone"; allow-update {{ {LOOPBACK}; }}; }};\n'
            'zone "refused.example" { type primary; file "other.zone"; allow-query { none; }; };\n'
            'zone "broken.example" { type primary; file "missing.zone"; };\n'
        )
        self.config = written(self.directory, "named.conf", config)
        self.process = self.start()

    def start(self) -> Process:
        argv = [tool("named"), "-g", "-n", "1", "-c", str(self.config)]
        return self.running.add(Process("named", argv, self.directory, port=self.port))

    def update(self, *commands: str) -> None:
        """Send one dynamic update, such as `add NAME TTL SRV ...`."""
        text = "\n".join([f"server {LOOPBACK} {self.port}", "zone test", *(f"update {command}" for command in commands), "send\n"])
        subprocess.run([tool("nsupdate")], input=text, text=True, check=True, timeout=SECONDS)

    def serve(self, *targets: tuple[str, int], name: str = WEB) -> None:
        """Have exactly these SRV records for a name."""
        self.update(f"delete {name}. SRV", *(f"add {name}. 1 SRV 0 0 {port} {host}.test." for host, port in targets))


def bind_version() -> tuple[int, ...]:
    text = subprocess.run([tool("named"), "-v"], capture_output=True, text=True, check=True, timeout=SECONDS).stdout
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found is not None else ()


def missing(*programs: str) -> str:
    return ", ".join(program for program in programs if shutil.which(tool(program)) is None)


@pytest.fixture
def bind(running: Running) -> Bind:
    if lacking := missing("named", "nsupdate"):
        pytest.skip(f"{lacking}: not installed, so NOT testing against BIND (apt-get install bind9 bind9-dnsutils)")
    return Bind(running)


def meshed(running: Running, port: int, dtab: str = "/svc => /#/io.l5d.dnssrv") -> Gateway:
    """A gateway whose names are SRV names of the server at ``port``, asked for twice a second."""
    namer = {"kind": "io.l5d.dnssrv", "experimental": True, "refreshIntervalSeconds": 0.5, "dnsHosts": [f"localhost:{port}"]}
    return gateway(running, top={"namers": [namer]}, router={"dtab": dtab})


def answers(gw: Gateway, name: str = WEB, count: int = MANY) -> set[str]:
    return {gw.get(name).text for _ in range(count)}


def becomes(gw: Gateway, *expected: str) -> None:
    assert wait_until(lambda: answers(gw) == set(expected), SECONDS), answers(gw)


def state(gw: Gateway, name: str = WEB) -> Any:
    return json.loads(gw.admin("/namer_state/io.l5d.dnssrv.json").body)["dnssrv"][name]


def test_endpoints_follow_dynamic_updates(running: Running, bind: Bind) -> None:
    one, two = named(running, "one"), named(running, "two")
    gw = meshed(running, bind.port)
    assert "no such name" in gw.get(WEB).text
    bind.serve(("one", one.port))
    becomes(gw, "one")
    bind.serve(("one", one.port), ("two", two.port))
    becomes(gw, "one", "two")
    bind.serve(("two", two.port))
    becomes(gw, "two")
    bind.serve()
    assert wait_until(lambda: gw.get(WEB).status == 502, SECONDS)
    metrics = gw.metrics()
    assert metrics["namer/#/io.l5d.dnssrv/lookup_successes_total"] >= 4
    assert metrics["namer/#/io.l5d.dnssrv/lookup_zero_results_total"] >= 1
    assert metrics["namer/#/io.l5d.dnssrv/lookup_failures_total"] == 0


def test_no_request_fails_while_endpoints_are_exchanged(running: Running, bind: Bind) -> None:
    one, two = named(running, "one"), named(running, "two")
    bind.serve(("one", one.port))
    gw = meshed(running, bind.port)
    becomes(gw, "one")
    for here in (("two", two.port), ("one", one.port), ("two", two.port)):
        bind.serve(here)
        seen: set[str] = set()
        assert wait_until(lambda here=here, seen=seen: seen.add(gw.get(WEB).text) or here[0] in seen, SECONDS)
        assert seen <= {"one", "two"}


def test_more_endpoints_than_a_datagram_holds_are_all_found(running: Running, bind: Bind) -> None:
    gw = meshed(running, bind.port)
    gw.get(BIG)
    assert state(gw, BIG)["poll"]["answer"] == f"{BIG_COUNT} records"
    size = f"rt/http/client/#/io.l5d.dnssrv/{BIG}/loadbalancer/size"
    assert wait_until(lambda: gw.metrics().get(size) == BIG_COUNT, SECONDS), gw.metrics().get(size)
    bind.serve(("one", 80), name=BIG)
    assert wait_until(lambda: gw.metrics().get(size) == 1, SECONDS), gw.metrics().get(size)


def test_what_a_server_says_is_told_to_the_caller(running: Running, bind: Bind) -> None:
    gw = meshed(running, bind.port)
    server = f"name server 127.0.0.1:{bind.port}"
    assert f"{server}: it refuses the question (REFUSED)" in gw.get("web.refused.example").text
    assert f"{server}: it reports a failure (SERVFAIL)" in gw.get("web.broken.example").text
    assert "no such name" in gw.get("_off._tcp.web.test").text
    failures = gw.metrics()
    assert failures["namer/#/io.l5d.dnssrv/unexpected_code_total"] == failures["namer/#/io.l5d.dnssrv/lookup_failures_total"] >= 2


def test_outage_of_the_name_server_is_no_outage_of_the_service(running: Running, bind: Bind) -> None:
    one, two = named(running, "one"), named(running, "two")
    bind.serve(("one", one.port))
    gw = meshed(running, bind.port)
    becomes(gw, "one")
    bind.process.stop()
    assert wait_until(lambda: bool(state(gw)["state"]["stale"]), SECONDS)
    assert answers(gw) == {"one"}
    assert wait_until(lambda: "connection refused" in state(gw)["poll"]["error"], SECONDS), "a question may have been under way"
    assert len([line for line in gw.process.output().splitlines() if "connection refused; " in line and "WARNING" in line]) <= 1
    bind.process = bind.start()
    assert wait_until(lambda: not state(gw)["state"]["stale"], SECONDS)
    assert gw.process.says("answers again")
    bind.serve(("two", two.port))
    becomes(gw, "two")


def test_alternative_is_taken_while_there_is_no_service_or_its_hosts_are_unknown(running: Running, bind: Bind) -> None:
    one, two = named(running, "one"), named(running, "two")
    bind.serve(("one", one.port))
    gw = meshed(running, bind.port, f"/svc => /#/io.l5d.dnssrv/{WEB} | /$/inet/{LOOPBACK}/{two.port}")
    becomes(gw, "one")
    bind.serve(("none", one.port))
    becomes(gw, "two")
    bind.serve(("one", one.port))
    becomes(gw, "one")
    bind.serve()
    becomes(gw, "two")


def test_name_server_that_hangs_neither_hangs_nor_fails_requests(running: Running, bind: Bind) -> None:
    one = named(running, "one")
    bind.serve(("one", one.port))
    gw = meshed(running, bind.port)
    becomes(gw, "one")
    bind.process.signal(signal.SIGSTOP)
    try:
        assert wait_until(lambda: bool(state(gw)["state"]["stale"]), SECONDS)
        assert answers(gw) == {"one"}
        assert "no answer within" in state(gw)["poll"]["error"]
    finally:
        bind.process.signal(signal.SIGCONT)
    assert wait_until(lambda: not state(gw)["state"]["stale"], SECONDS)


def dnsmasq(running: Running, port: int, *options: str) -> Process:
    argv = [tool("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", f"--port={port}", f"--listen-address={LOOPBACK}"]
    argv += ["--bind-interfaces", "--no-hosts", "--no-resolv", "--local=/test/", "--user=", "--group=", "--pid-file=", "--log-facility=-"]
    return running.add(Process("dnsmasq", [*argv, f"--host-record=one.test,two.test,{LOOPBACK}", *options], running.directory, port=port))


def test_endpoints_of_dnsmasq_change_with_its_restart(running: Running) -> None:
    if missing("dnsmasq"):
        pytest.skip("dnsmasq is not installed: NOT testing against it (apt-get install dnsmasq-base)")
    one, two, port = named(running, "one"), named(running, "two"), free_port()
    server = dnsmasq(running, port, f"--srv-host={WEB},one.test,{one.port},1,10")
    gw = meshed(running, port)
    becomes(gw, "one")
    server.stop()
    assert answers(gw) == {"one"}
    dnsmasq(running, port, f"--srv-host={WEB},one.test,{one.port},1,10", f"--srv-host={WEB},two.test,{two.port},2,90")
    becomes(gw, "one", "two")


def test_log_is_not_filled_by_questions(running: Running, bind: Bind) -> None:
    gw = meshed(running, bind.port)
    gw.get(WEB)
    asked = f"namer/#/io.l5d.dnssrv/lookup_dns/iteration/{WEB}"
    assert wait_until(lambda: gw.metrics()[asked] >= 3, SECONDS)
    assert "_Datagram" not in Path(gw.process.output_file).read_text()
