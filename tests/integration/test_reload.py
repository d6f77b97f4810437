"""Reading the configuration anew: nobody's request is lost, and a configuration that cannot be used changes nothing."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from support.fleets import TOKEN, Fleet, Load, fleet, has_ended
from support.gateways import LOOPBACK, SECONDS, Nginx, parse_answer, read_all, read_until
from support.processes import Running, accepts, free_port, is_free, wait_until

pytestmark = pytest.mark.integration

HELLO = 'location / { return 200 "hello"; }'
REQUEST = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
RELOADS = 8


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    directory = tmp_path_factory.mktemp("reload")
    directory.chmod(0o755)
    with Running(directory) as programs:
        yield Nginx(programs, HELLO).port


@pytest.fixture
def single(running: Running, upstream: int) -> Fleet:
    return fleet(running, upstream, workers=1)


def server(single: Fleet, *ports: int) -> dict[str, Any]:
    """The settings with a router that listens on these ports."""
    return {"routers": [{**single.settings["routers"][0], "servers": [{"port": port} for port in ports]}]}


@pytest.mark.parametrize("workers", [1, 2])
def test_reloads_in_a_row_lose_no_request(running: Running, upstream: int, workers: int) -> None:
    gateway = fleet(running, upstream, workers=workers)
    name = f"rt/http/server/{LOOPBACK}/{gateway.gateway.port}/requests"
    load = Load(running, gateway.gateway.port, connections=16, pause_ms=20)
    told = []
    for number in range(RELOADS):
        if number % 2:
            gateway.reload_by_signal()
        else:
            answer = gateway.reload()
            assert (answer.status, answer.text) == (200, "reloaded\n")
        told.append(gateway.metric(name))
    loss = load.end()
    assert (loss.errors, loss.refused) == (0, 0), loss
    assert told == sorted(told), "the sum over workers went backwards"
    assert wait_until(lambda: len(gateway.children()) == workers, SECONDS), "old workers stay"
    assert 0 <= gateway.metric(name) - loss.requests <= 16, "all were counted but those that wrk broke off at its end"
    metrics = gateway.gateway.metrics()
    assert (metrics["reload/success"], metrics["reload/failures"], metrics["workers/restarts"]) == (RELOADS, 0, 0)
    assert "Traceback" not in gateway.logged()


def test_what_was_counted_is_counted_once_over_reloads(single: Fleet) -> None:
    names = [f"rt/http/server/{LOOPBACK}/{single.gateway.port}/requests", "rt/http/service/svc/web/requests"]
    for number in range(1, 4):
        single.gateway.get("web")
        assert [single.metric(name) for name in names] == [number] * 2
        assert single.reload().status == 200
        assert wait_until(lambda: len(single.children()) == 1, SECONDS)
        assert [single.metric(name) for name in names] == [number] * 2


def test_an_idle_caller_gets_one_more_answer_that_tells_it_to_reconnect(single: Fleet) -> None:
    single.write(admin={**single.settings["admin"], "shutdownGraceMs": 15000})
    with closing(socket.create_connection((LOOPBACK, single.gateway.port), timeout=SECONDS)) as caller:
        caller.sendall(REQUEST)
        assert b"Connection: close" not in read_until(caller, b"hello")
        assert single.reload().status == 200
        caller.sendall(REQUEST)
        answer = parse_answer(read_all(caller))
    assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"hello", "close")
    assert wait_until(lambda: "connections" not in single.logged() and len(single.children()) == 1, SECONDS)


def test_a_bad_configuration_is_refused_with_its_errors_while_traffic_goes_on(running: Running, single: Fleet) -> None:
    load = Load(running, single.gateway.port)
    assert wait_until(lambda: single.gateway.server_metric("requests") > 0, SECONDS)
    single.write(routers=[{"protocol": "http", "dtab": "/svc => ((", "servers": [{"port": 99999}]}])
    answer = single.reload()
    assert answer.status == 422
    for part in (f"{single.file}:1:", "routers[0].dtab", "routers[0].servers[0].port"):
        assert part in answer.text
    single.reload_by_signal("the configuration is not reloaded")
    assert all(f"the configuration is not reloaded: {line}" in single.logged() for line in answer.text.splitlines() if line.startswith("/"))
    single.file.unlink()
    assert single.reload().status == 422
    loss = load.end()
    assert (loss.errors, loss.refused, single.children()) == (0, 0, [])
    assert loss.requests > 0
    assert single.metric("reload/failures") == 3


def test_a_reload_needs_the_operators_token(single: Fleet) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong-token-wrong-token"}):
        assert single.gateway.admin("/admin/reload", b"", **headers).status == 401
    assert single.gateway.admin("/admin/reload", Authorization=f"Bearer {TOKEN}").status == 405
    assert single.metric("reload/success") == 0


def test_new_ports_are_served_and_removed_ones_closed(single: Fleet) -> None:
    first, second = single.gateway.port, free_port()
    single.write(**server(single, first, second))
    assert single.reload().status == 200
    assert accepts(first) and accepts(second)
    single.write(**server(single, second))
    assert single.reload().status == 200
    single.gateway.port = second
    assert single.gateway.get("web").body == b"hello"
    assert wait_until(lambda: is_free(first), SECONDS)


def test_a_port_in_use_refuses_the_reload_and_changes_nothing(single: Fleet) -> None:
    other = free_port()
    with closing(socket.create_server((LOOPBACK, 0))) as taken:
        port = taken.getsockname()[1]
        single.write(**server(single, single.gateway.port, other, port))
        answer = single.reload()
    assert answer.status == 422
    assert f"cannot listen on {LOOPBACK}:{port}: Address already in use" in answer.text
    assert is_free(other)
    assert single.gateway.get("web").body == b"hello"
    assert single.reload().status == 200, "it is free now"
    assert accepts(other) and accepts(port)


def test_workers_that_cannot_start_refuse_the_reload_and_the_ports_that_it_opened_are_closed(single: Fleet) -> None:
    admin_port, other = free_port(), free_port()
    router = {**server(single, single.gateway.port, other)["routers"][0], "httpAccessLog": str(single.file.parent / "none" / "access.log")}
    single.write(routers=[router], admin={**single.settings["admin"], "port": admin_port})
    answer = single.reload()
    assert answer.status == 422
    assert "cannot open log file" in answer.text
    assert single.gateway.get("web").body == b"hello"
    assert is_free(other) and is_free(admin_port)
    assert single.children() == []


def test_admin_moves_to_another_port(single: Fleet) -> None:
    former, port = single.gateway.admin_port, free_port()
    single.write(admin={**single.settings["admin"], "port": port})
    assert single.reload().text == "reloaded\n", "the answer comes by the old one"
    single.gateway.admin_port = port
    assert json.loads(single.gateway.admin("/config.json").body)["admin"]["port"] == port
    assert wait_until(lambda: is_free(former), SECONDS)


def test_open_admin_connections_are_held_to_the_new_configuration(single: Fleet) -> None:
    reader = single.file.parent / "reader"
    reader.write_text("reader-token-of-tests")
    with closing(http.client.HTTPConnection(LOOPBACK, single.gateway.admin_port, timeout=SECONDS)) as connection:

        def status() -> int:
            connection.request("GET", "/config.json")
            answer = connection.getresponse()
            answer.read()
            return answer.status

        assert status() == 200
        kept = connection.sock
        tokens = {**single.settings["admin"]["authentication"], "readerTokenFile": str(reader)}
        single.write(admin={**single.settings["admin"], "authentication": tokens})
        for _ in range(2):
            assert single.reload().status == 200
            assert status() == 401
        assert connection.sock is kept


def test_a_signal_during_a_reload_is_obeyed_after_it(single: Fleet) -> None:
    asked = threading.Thread(target=single.reload)
    asked.start()
    assert wait_until(lambda: len(single.children()) == 1, SECONDS)
    (worker,) = single.children()
    os.kill(worker, signal.SIGSTOP)  # it takes as long as this test needs
    single.gateway.process.signal(signal.SIGHUP)
    busy = single.reload()
    assert (busy.status, busy.text) == (409, "a reload is under way")
    os.kill(worker, signal.SIGCONT)
    asked.join(SECONDS)
    assert wait_until(lambda: single.metric("reload/success") == 2, SECONDS)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_end_during_a_reload_ends_everything(running: Running, upstream: int, workers: int) -> None:
    ending = fleet(running, upstream, workers=workers)
    old = ending.children()
    ending.gateway.process.signal(signal.SIGHUP)
    assert wait_until(lambda: len(ending.children()) > len(old), SECONDS)
    pids = ending.children()
    ending.gateway.process.signal(signal.SIGTERM)
    assert ending.gateway.process.wait(SECONDS) == 0, ending.gateway.process.describe("did not end in good order")
    assert all(map(has_ended, pids))
    assert is_free(ending.gateway.port) and is_free(ending.gateway.admin_port)
    assert "Traceback" not in ending.logged()


def test_the_end_after_a_reload_does_not_wait_for_idle_callers_of_old_workers(running: Running, upstream: int) -> None:
    ending = fleet(running, upstream, workers=1, admin={"shutdownGraceMs": 60_000})
    with closing(socket.create_connection((LOOPBACK, ending.gateway.port), timeout=SECONDS)) as first:
        first.sendall(REQUEST)
        read_until(first, b"hello")
        assert ending.reload().status == 200
        with closing(socket.create_connection((LOOPBACK, ending.gateway.port), timeout=SECONDS)) as second:
            second.sendall(REQUEST)
            read_until(second, b"hello")
            assert ending.reload().status == 200
            assert len(ending.children()) == 2
            ending.gateway.process.signal(signal.SIGTERM)
            assert (first.recv(100), second.recv(100)) == (b"", b"")
            assert ending.gateway.process.wait(SECONDS) == 0


def test_one_process_may_become_several_and_the_other_way_round(single: Fleet) -> None:
    for workers in (2, 1):
        single.write(workers=workers)
        assert single.reload().status == 200
        assert wait_until(lambda workers=workers: len(single.children()) == workers, SECONDS)
        assert single.gateway.get("web").body == b"hello"
    assert single.gateway.process.is_running
