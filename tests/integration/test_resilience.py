"""Limits, retries, breakers and sessions of a running gateway, with settings by prefix."""

from __future__ import annotations

import json
import socket
import sys
import time
from contextlib import closing
from typing import Any

import attrs
import pytest

from support.gateways import SECONDS, Answer, Gateway, gateway, read_until
from support.processes import LOOPBACK, Process, Running, free_port, wait_until
from support.servers import ROOT

pytestmark = pytest.mark.integration
UNRULY = ROOT / "tests" / "support" / "unruly.py"


@attrs.frozen
class Unruly:
    """A service that misbehaves on demand."""

    name: str
    port: int
    control: int

    def set(self, mode: str) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.settimeout(SECONDS)
            sender.sendto(mode.encode(), (LOOPBACK, self.control))
            assert sender.recv(100).decode() == mode


def unruly(running: Running, name: str) -> Unruly:
    found = Unruly(name, free_port(), free_port())
    argv = [sys.executable, str(UNRULY), name, str(found.port), str(found.control)]
    running.add(Process(name, argv, running.directory, port=found.port))
    return found


def statuses(mesh: Gateway, host: str, count: int) -> list[int]:
    return [mesh.get(host).status for _ in range(count)]


def clients(mesh: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(mesh.admin("/client_state.json").body)
    return found


def endpoint(mesh: Gateway, client: str, port: int) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in clients(mesh)[client]["endpoints"] if item["address"] == f"{LOOPBACK}:{port}")
    return found


def seconds_of(mesh: Gateway, host: str) -> tuple[Answer, float]:
    began = time.monotonic()
    return mesh.get(host), time.monotonic() - began


# --- settings by prefix


def test_services_have_the_settings_of_the_last_entries_that_match_their_names(running: Running) -> None:
    ill = unruly(running, "ill")
    ill.set("slow")
    configs = [
        {"prefix": "/", "totalTimeoutMs": 300, "retries": {"backoff": {"kind": "constant", "ms": 50}}},
        {"prefix": "/svc/{any}-api", "totalTimeoutMs": 700},
        {"prefix": "/svc/pay-api", "responseClassifier": {"kind": "io.l5d.http.allSuccessful"}},
        {"prefix": "/svc/*/deeper", "totalTimeoutMs": 1},
    ]
    mesh = gateway(running, dict.fromkeys(("web", "pay-api"), ill.port), router={"service": {"kind": "io.l5d.static", "configs": configs}})
    answer, took = seconds_of(mesh, "web")
    assert (answer.status, answer.text.partition(" to ")[0]) == (503, "exceeded 300.milliseconds")
    assert took >= 0.3
    answer, took = seconds_of(mesh, "pay-api")
    assert answer.text.startswith("exceeded 700.milliseconds to /svc/pay-api ")
    assert took >= 0.7
    ill.set("error")
    assert mesh.get("web").headers["l5d-success-class"] == "0.0"
    assert mesh.get("pay-api").headers["l5d-success-class"] == "1.0"


def test_clients_have_the_settings_of_the_last_entries_that_match_their_ids(running: Running) -> None:
    ill = unruly(running, "ill")
    ill.set("slow")
    configs = [
        {"prefix": "/#/io.l5d.fs", "requestAttemptTimeoutMs": 300},
        {"prefix": "/#/io.l5d.fs/{name}-slow", "requestAttemptTimeoutMs": 60000, "failureAccrual": {"kind": "none"}},
        {"prefix": "/#/other", "requestAttemptTimeoutMs": 1},
    ]
    router = {"client": {"kind": "io.l5d.static", "configs": configs}}
    mesh = gateway(running, dict.fromkeys(("web", "very-slow"), ill.port), router=router)
    assert mesh.get("web").text.endswith("(requestAttemptTimeoutMs)")
    assert mesh.get("very-slow").status == 200
    assert "failureAccrual" in endpoint(mesh, "/#/io.l5d.fs/web", ill.port)
    assert "failureAccrual" not in endpoint(mesh, "/#/io.l5d.fs/very-slow", ill.port)


# --- breakers


def test_an_endpoint_that_fails_is_taken_out_shown_probed_and_brought_back(running: Running) -> None:
    ill, well = unruly(running, "ill"), unruly(running, "well")
    accrual = {"kind": "io.l5d.consecutiveFailures", "failures": 5, "backoff": {"kind": "constant", "ms": 1500}}
    mesh = gateway(running, {"web": [ill.port, well.port]}, router={"client": {"failureAccrual": accrual}})
    ill.set("error")
    client = "/#/io.l5d.fs/web"
    failed = 0

    def is_dead() -> bool:
        nonlocal failed
        failed += mesh.get("web").status == 503
        return bool(endpoint(mesh, client, ill.port)["status"] == "busy")

    assert wait_until(is_dead, SECONDS)
    assert failed == 5
    shown = endpoint(mesh, client, ill.port)
    assert shown["busyFor"] == ["accrual"]
    assert shown["failureAccrual"]["failuresInARow"] == 5
    assert endpoint(mesh, client, well.port)["status"] == "open"
    probes = f"rt/http/client/{client[1:]}/failure_accrual/probes"
    assert statuses(mesh, "web", 20).count(503) <= mesh.metrics().get(probes, 0), "only probes reach it"
    ill.set("ok")

    def is_back() -> bool:
        mesh.get("web")
        return bool(endpoint(mesh, client, ill.port)["failureAccrual"]["state"] == "alive")

    assert wait_until(is_back, SECONDS)
    metrics = mesh.metrics()
    scope = f"rt/http/client/{client[1:]}/failure_accrual"
    assert metrics[f"{scope}/removals"] == metrics[f"{scope}/revivals"] == 1
    assert metrics[f"{scope}/probes"] >= 1
    assert metrics[f"{scope}/removed_for_ms"] >= 1500


def test_dead_endpoints_are_probed_at_once_when_discovery_changes(running: Running) -> None:
    one, other = unruly(running, "one"), unruly(running, "other")
    accrual = {"kind": "io.l5d.consecutiveFailures", "failures": 1, "backoff": {"kind": "constant", "ms": 600000}}
    mesh = gateway(running, {"web": one.port}, router={"client": {"failureAccrual": accrual}})
    one.set("error")
    assert mesh.get("web").status == 503
    assert endpoint(mesh, "/#/io.l5d.fs/web", one.port)["failureAccrual"]["state"] == "dead"
    one.set("ok")
    mesh.serve("web", one.port, other.port)

    def is_back() -> bool:
        assert mesh.get("web").status == 200
        return bool(endpoint(mesh, "/#/io.l5d.fs/web", one.port)["failureAccrual"]["state"] == "alive")

    assert wait_until(is_back, SECONDS)


def test_when_nobody_listens_the_502_says_of_each_address_why_it_is_avoided(running: Running) -> None:
    ports = [free_port(), free_port()]
    mesh = gateway(running, {"web": ports}, router={"client": {"failFast": True}})
    mesh.get("web")
    answer = mesh.get("web")
    assert answer.status == 502
    for port in ports:
        assert f"{LOOPBACK}:{port} (failFast)" in answer.text or f"{LOOPBACK}:{port} (accrual, failFast, next probe in" in answer.text
    assert {item["status"] for item in clients(mesh)["/#/io.l5d.fs/web"]["endpoints"]} == {"busy"}


# --- retries


def test_callers_do_not_see_what_retries_hide_and_the_counts_tell_it(running: Running) -> None:
    ill, well = unruly(running, "ill"), unruly(running, "well")
    router = {
        "service": {"responseClassifier": {"kind": "io.l5d.http.retryableRead5XX"}},
        "client": {"failureAccrual": {"kind": "none"}, "loadBalancer": {"kind": "roundRobin"}},
    }
    mesh = gateway(running, {"web": [ill.port, well.port]}, router=router)
    ill.set("error")
    assert statuses(mesh, "web", 10) == [200] * 10
    metrics = mesh.metrics()
    service, client = "rt/http/service/svc/web", "rt/http/client/#/io.l5d.fs/web"
    retries = metrics[f"{service}/retries/total"]
    assert retries >= 5
    assert (metrics[f"{service}/requests"], metrics[f"{service}/success"], metrics[f"{service}/failures"]) == (10, 10, 0)
    assert metrics[f"{client}/requests"] == 10 + retries
    assert metrics[f"{client}/status/503"] == metrics[f"{client}/failures"] == retries
    assert metrics[f"{client}/success"] == metrics[f"{client}/status/200"] == 10


# --- connections


def test_connections_are_closed_when_idle_or_old_and_counted(running: Running) -> None:
    well = unruly(running, "well")
    mesh = gateway(
        running,
        {"web": well.port},
        server={"serverSession": {"idleTimeMs": 400}},
        router={"client": {"clientSession": {"idleTimeMs": 300}}},
    )
    with closing(socket.create_connection((LOOPBACK, mesh.port), timeout=SECONDS)) as caller:
        caller.sendall(b"GET /1 HTTP/1.1\r\nHost: web\r\n\r\n")
        read_until(caller, b"well 1\n")
        assert caller.recv(10) == b""
    assert mesh.server_metric("idle") == 1
    assert wait_until(lambda: mesh.metrics()["rt/http/client/#/io.l5d.fs/web/connections"] == 0, SECONDS)
    assert mesh.metrics()["rt/http/client/#/io.l5d.fs/web/closes"] == 1


def test_a_removed_endpoint_finishes_what_it_has_under_way(running: Running) -> None:
    old, new = unruly(running, "old"), unruly(running, "new")
    mesh = gateway(running, {"web": old.port})
    mesh.get("web")
    old.set("slow")
    with closing(socket.create_connection((LOOPBACK, mesh.port), timeout=SECONDS)) as caller:
        caller.sendall(b"GET /last HTTP/1.1\r\nHost: web\r\n\r\n")
        assert wait_until(lambda: endpoint(mesh, "/#/io.l5d.fs/web", old.port)["load"] == 1, SECONDS)
        mesh.serve("web", new.port)
        assert wait_until(lambda: mesh.get("web", "/next").text == "new next\n", SECONDS)
        assert read_until(caller, b"last\n").endswith(b"old last\n")
    assert [item["address"] for item in clients(mesh)["/#/io.l5d.fs/web"]["endpoints"]] == [f"{LOOPBACK}:{new.port}"]


def test_a_stop_lets_a_request_finish_that_is_being_retried(running: Running) -> None:
    ill = unruly(running, "ill")
    ill.set("error")
    service = {
        "responseClassifier": {"kind": "io.l5d.http.retryableRead5XX"},
        "retries": {"backoff": {"kind": "constant", "ms": 300}},
    }
    mesh = gateway(running, {"web": ill.port}, router={"service": service})
    with closing(socket.create_connection((LOOPBACK, mesh.port), timeout=SECONDS)) as caller:
        caller.sendall(b"GET /last HTTP/1.1\r\nHost: web\r\n\r\n")
        assert wait_until(lambda: mesh.metrics().get("rt/http/service/svc/web/retries/total", 0) >= 1, SECONDS)
        mesh.process.signal(15)
        ill.set("ok")
        answer = read_until(caller, b"ill last\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nConnection: close\r\n" in answer
        assert caller.recv(10) == b""
    assert mesh.process.wait(SECONDS) == 0
