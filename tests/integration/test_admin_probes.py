"""Readiness, addresses and profiles of running gateways, of one process and of several."""

from __future__ import annotations

import json
import os
import socket
from contextlib import closing
from pathlib import Path
from pwd import getpwuid
from typing import Any

import pytest

from support.gateways import LOOPBACK, SECONDS, Gateway, Nginx, gateway, read_until
from support.processes import Running, wait_until

pytestmark = pytest.mark.integration

USER = getpwuid(os.getuid()).pw_name
HELLO = 'location / { return 200 "hello"; }'
SLOW = "location / { limit_rate 2k; root ROOT; }"


def slow(running: Running) -> Nginx:
    """A server whose answers take some ten seconds."""
    root = running.directory / "slow"
    root.mkdir()
    (root / "index.html").write_bytes(b"x" * 200_000)
    return Nginx(running, SLOW.replace("ROOT", str(root)))


def begun(gw: Gateway) -> socket.socket:
    """A connection on which an answer has begun."""
    sock = socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
    read_until(sock, b"\r\n\r\n")
    return sock


def test_a_gateway_is_ready_once_its_interpreter_has_its_dtab(running: Running) -> None:
    dtab = running.directory / "web.dtab"
    router = {"interpreter": {"kind": "io.l5d.fs", "dtabFile": str(dtab)}, "dtab": ""}
    dtab.touch()
    gw = gateway(running, {"web": Nginx(running, HELLO).port}, router=router)
    assert wait_until(lambda: gw.admin("/admin/ready").status == 200, SECONDS)
    dtab.write_text("/svc => ((")  # the last good one, which is empty, stays in use
    assert gw.admin("/admin/ready").text == "ready\n"


def test_a_gateway_without_its_dtab_says_what_it_waits_for(running: Running) -> None:
    dtab = running.directory / "web.dtab"
    dtab.write_text("/svc => ((")
    gw = gateway(running, {"web": Nginx(running, HELLO).port}, router={"interpreter": {"kind": "io.l5d.fs", "dtabFile": str(dtab)}})
    assert (gw.admin("/admin/ready").status, gw.admin("/admin/ping").status) == (503, 200)
    (pending,) = json.loads(gw.admin("/admin/ready.json").body)["pending"]
    assert pending.startswith(f"router http: its interpreter waits for {dtab}:1:")
    dtab.write_text("/svc => /#/io.l5d.fs")
    assert wait_until(lambda: gw.admin("/admin/ready").status == 200, SECONDS)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_gateway_that_drains_is_not_ready_and_alive(running: Running, workers: int) -> None:
    admin = {"shutdownGraceMs": 600_000}
    gw = gateway(running, {"web": slow(running).port}, admin=admin, top={"workers": workers, "user": USER})
    assert wait_until(lambda: gw.admin("/admin/ready").status == 200, SECONDS)
    with closing(begun(gw)):
        assert gw.admin("/admin/shutdown", method="POST").text == "quitting"
        assert wait_until(lambda: gw.admin("/admin/ready").text == "draining\n", SECONDS)
        assert gw.admin("/admin/ready.json").status == 503
        assert gw.admin("/admin/ping").text == "pong"
    assert gw.process.wait(SECONDS) == 0


def test_a_profile_of_all_processes_is_taken_while_they_serve(running: Running) -> None:
    gw = gateway(running, {"web": Nginx(running, HELLO).port}, top={"workers": 2, "user": USER})
    assert wait_until(lambda: gw.admin("/admin/ready").status == 200, SECONDS)
    text = gw.admin("/admin/pprof/profile?seconds=0.5&hz=50&format=collapsed").text
    assert {line.partition(";")[0] for line in text.splitlines()} == {"master", "shared-0", "shared-1"}
    assert "doPoll" in text
    assert set(json.loads(gw.admin("/admin/threads.json").body)) == {"master", "shared-0", "shared-1"}
    assert gw.get("web").text == "hello"


def test_a_caller_who_leaves_ends_the_profile_in_all_processes(running: Running) -> None:
    gw = gateway(running, {"web": Nginx(running, HELLO).port}, top={"workers": 2, "user": USER})
    assert wait_until(lambda: gw.admin("/admin/ready").status == 200, SECONDS)
    with socket.create_connection((LOOPBACK, gw.admin_port)) as caller:
        caller.sendall(b"GET /admin/pprof/profile?seconds=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert wait_until(lambda: gw.admin("/admin/pprof/profile?seconds=0.1").status == 503, SECONDS)
    text = ""

    def is_taken() -> bool:
        nonlocal text
        text = gw.admin("/admin/pprof/profile?seconds=0.2&format=collapsed").text
        return {line.partition(";")[0] for line in text.splitlines()} == {"master", "shared-0", "shared-1"}

    assert wait_until(is_taken, SECONDS), text


def seen(gw: Gateway) -> dict[str, Any]:
    """Each address of the service with its state."""
    found = json.loads(gw.admin("/admin/addresses.json?service=/svc/web").body)
    return {one["address"]: one["processes"]["main"] for one in found["services"][0]["clients"][0]["addresses"]}


def test_a_script_can_wait_until_an_endpoint_is_out_of_use(running: Running) -> None:
    leaving, staying = slow(running), Nginx(running, HELLO, name="other")
    gw = gateway(running, {"web": leaving.port})
    assert gw.admin("/admin/addresses.json?service=/svc/web").status == 404
    old, new = f"{LOOPBACK}:{leaving.port}", f"{LOOPBACK}:{staying.port}"
    with closing(begun(gw)):
        assert seen(gw)[old]["status"] == "open"
        gw.serve("web", staying.port)
        assert wait_until(lambda: new in seen(gw), SECONDS)
        assert (seen(gw)[old]["status"], seen(gw)[old]["load"]) == ("closed", 1)
    assert wait_until(lambda: old not in seen(gw), SECONDS)
    assert seen(gw)[new]["status"] == "open" and seen(gw)[new]["secondsSinceChange"] < 60


def test_lint_finds_nothing_in_a_gateway_that_is_well_and_a_source_that_fails(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    gw = gateway(running, {"web": nginx.port})
    gw.get("web")
    before = json.loads(gw.admin("/admin/lint.json").body)["lint_results"]
    assert before["metadata"]["num_issues"] == 0
    Path(gw.root / "web").write_text("no address\n")
    assert wait_until(lambda: "stale-discovery" in gw.admin("/admin/lint.json").text.partition("ok_rules")[0], SECONDS)
