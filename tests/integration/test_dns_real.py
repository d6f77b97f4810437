"""The live DNS resolver and the file watcher in a process with a real reactor, against a real name server (dnsmasq)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from support.processes import Process, Running, free_port, wait_until
from support.servers import tool

pytestmark = pytest.mark.integration

WATCHER = """
import json, sys
from random import Random
from twisted.internet import reactor
from twisted.names import client
from meshgw.core.live import Failed, Ok
from meshgw.namers.dns import Resolver
from meshgw.namers.files import FsNamer
from meshgw.namers.resolvconf import FixedServers
from meshgw.naming.path import Path
from meshgw.naming.tree import Leaf
from meshgw.telemetry.metrics import Metrics

port, root, hosts = int(sys.argv[1]), sys.argv[2], sys.argv[3]
servers = FixedServers(client.Resolver(servers=[("127.0.0.1", port)], timeout=(1, 1), reactor=reactor))
resolver = Resolver(reactor, servers, Random(1), Metrics(), hosts_file=hosts)
namer = FsNamer(reactor, root, Path.of("#", "fs"), resolver.resolve)

def report(name, state):
    line = {"name": name, "state": type(state).__name__, "error": str(getattr(state, "error", None) or "")}
    if isinstance(state, Ok):
        line["addresses"] = sorted(address.show() for address in getattr(state.value, "addresses", ())) if not hasattr(
            state.value, "value") else ["bound"]
        line["value"] = type(state.value).__name__
    sys.stdout.write(json.dumps(line) + "\\n")
    sys.stdout.flush()

def tree(state):
    report("tree", state)
    if isinstance(state, Ok) and isinstance(state.value, Leaf):
        state.value.value.addr.observe(lambda addr: report("file", addr))

def begin():
    namer.startService()
    for name in sys.argv[4:]:
        resolver.resolve(name, 80).observe(lambda state, name=name: report(name, state))
    namer.lookup(Path.of("web")).observe(tree)

reactor.callWhenRunning(begin)
reactor.run()
"""


class Names:
    """dnsmasq serving a records file, and a process that watches names through it."""

    def __init__(self, running: Running) -> None:
        self.running, self.directory, self.port = running, running.directory, free_port()
        self.records, self.root = self.directory / "records", self.directory / "disco"
        self.root.mkdir()
        self.records.write_text("")
        self.server = self.start_server()
        self.watcher: Process | None = None

    def start_server(self) -> Process:
        argv = [tool("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", f"--port={self.port}", "--listen-address=127.0.0.1"]
        argv += ["--bind-interfaces", "--no-hosts", "--no-resolv", f"--addn-hosts={self.records}", "--local-ttl=1", "--local=/test/"]
        argv += ["--user=", "--group=", "--pid-file=", "--log-facility=-"]
        return self.running.add(Process("dnsmasq", argv, self.directory, port=self.port))

    def serve(self, text: str) -> None:
        self.records.write_text(text)
        self.server.signal(signal.SIGHUP)

    def watch(self, *names: str) -> None:
        argv = [sys.executable, "-c", WATCHER, str(self.port), str(self.root), str(self.directory / "nohosts"), *names]
        self.watcher = self.running.add(Process("watcher", argv, self.directory), is_ready=lambda: bool(self.lines()))

    def lines(self, name: str = "") -> list[dict[str, Any]]:
        output = (self.directory / "watcher.out").read_text() if (self.directory / "watcher.out").exists() else ""
        parsed = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        return [line for line in parsed if not name or line["name"] == name]

    def becomes(self, name: str, check: Callable[[dict[str, Any]], bool], seconds: float = 20.0) -> None:
        reached = wait_until(lambda: bool(self.lines(name)) and check(self.lines(name)[-1]), seconds)
        assert reached, f"{name}: {self.lines(name)[-3:]}"


@pytest.fixture
def names(running: Running) -> Names:
    if not os.access(tool("dnsmasq"), os.X_OK) and shutil.which("dnsmasq") is None:
        pytest.skip("dnsmasq is not installed: NOT testing against a real name server (apt-get install dnsmasq-base)")
    return Names(running)


def has(*addresses: str) -> Callable[[dict[str, Any]], bool]:
    return lambda line: line.get("addresses") == sorted(addresses)


def test_names_follow_the_server_through_changes_and_an_outage(names: Names) -> None:
    names.serve("192.0.2.1 web.test\n2001:db8::1 web.test\n")
    names.watch("web.test", "none.test")
    names.becomes("web.test", has("192.0.2.1:80", "[2001:db8::1]:80"))
    names.becomes("none.test", lambda line: line.get("value") == "NoReplicas")
    names.serve("192.0.2.2 web.test\n192.0.2.9 none.test\n")
    names.becomes("web.test", has("192.0.2.2:80"))
    names.becomes("none.test", has("192.0.2.9:80"))
    names.server.stop()
    names.becomes("web.test", lambda line: bool(line["error"]), 20.0)
    assert names.lines("web.test")[-1]["addresses"] == ["192.0.2.2:80"]
    names.records.write_text("192.0.2.3 web.test\n")
    names.server = names.start_server()
    names.becomes("web.test", has("192.0.2.3:80"), 40.0)


def test_an_answer_too_large_for_a_datagram_is_fetched_whole(names: Names) -> None:
    many = [f"192.0.2.{number}" for number in range(1, 101)]
    names.serve("".join(f"{ip} big.test\n" for ip in many))
    names.watch("big.test")
    names.becomes("big.test", has(*(f"{ip}:80" for ip in many)))


def test_host_names_in_files_follow_files_and_name_server(names: Names) -> None:
    names.serve("192.0.2.1 a.test\n")
    names.watch()
    names.becomes("tree", lambda line: line["value"] == "Neg")
    (names.root / "web").write_text("a.test 8080\n127.0.0.1 8081\n")
    names.becomes("file", has("127.0.0.1:8081", "192.0.2.1:8080"))
    names.serve("192.0.2.7 a.test\n")
    names.becomes("file", has("127.0.0.1:8081", "192.0.2.7:8080"))
    (names.root / "web.new").write_text("127.0.0.1 8082\n")
    (names.root / "web.new").rename(names.root / "web")
    names.becomes("file", has("127.0.0.1:8082"))
    (names.root / "web").unlink()
    names.becomes("tree", lambda line: line["value"] == "Neg")
    output = (names.directory / "watcher.out").read_text()
    assert "Traceback" not in output
