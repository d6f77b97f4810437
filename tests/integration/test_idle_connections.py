"""Connections without a request: they stay, are counted, serve when asked, and leave nothing behind."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing

import pytest

from support.gateways import LOOPBACK, SECONDS, Nginx, gateway, read_until
from support.processes import Running, wait_until

pytestmark = pytest.mark.integration

MANY = 500
GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"


def test_hundreds_of_idle_connections_survive_and_are_counted(running: Running) -> None:
    nginx = Nginx(running, 'access_log off; location / { return 200 "hello"; }', events="worker_connections 2048;")
    gw = gateway(running, {"web": nginx.port})
    assert wait_until(lambda: gw.server_metric("connections") == 0, SECONDS), "the probes of the start"
    with ExitStack() as held:
        callers = [held.enter_context(closing(socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS))) for _ in range(MANY)]
        for caller in callers:
            caller.sendall(GET)
        for caller in callers:
            assert read_until(caller, b"\r\n\r\nhello").startswith(b"HTTP/1.1 200 ")
        assert gw.server_metric("connections") == MANY
        before = gw.server_metric("connects")
        for caller in callers:
            caller.sendall(GET)
            read_until(caller, b"\r\n\r\nhello")
        assert gw.server_metric("connects") == before, "the same connections served again"
        assert gw.server_metric("requests") == 2 * MANY
    assert wait_until(lambda: gw.server_metric("connections") == 0, SECONDS)
    metrics = gw.metrics()
    assert gw.server_metric("closes") == gw.server_metric("connects")
    assert metrics["rt/http/client/#/io.l5d.fs/web/connections"] <= MANY


def test_a_closed_upstream_connection_is_not_used_for_the_next_request(running: Running) -> None:
    nginx = Nginx(running, 'location / { return 200 "hello"; keepalive_timeout 0; }')
    gw = gateway(running, {"web": nginx.port})
    with closing(socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)) as caller:
        for _ in range(30):
            caller.sendall(GET)
            assert read_until(caller, b"\r\n\r\nhello").startswith(b"HTTP/1.1 200 ")
    assert wait_until(lambda: gw.metrics()["rt/http/client/#/io.l5d.fs/web/connections"] == 0, SECONDS)


def test_a_restarted_service_is_found_again_by_waiting_callers(running: Running) -> None:
    nginx = Nginx(running, 'location / { return 200 "hello"; }')
    gw = gateway(running, {"web": nginx.port})
    with closing(socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)) as caller:
        caller.sendall(GET)
        read_until(caller, b"hello")
        nginx.process.stop()
        assert wait_until(lambda: gw.metrics()["rt/http/client/#/io.l5d.fs/web/connections"] == 0, SECONDS)
        caller.sendall(GET)
        assert read_until(caller, b"reason: Connection refused").startswith(b"HTTP/1.1 502 ")
        nginx.process.start().wait_ready()
        caller.sendall(GET)
        assert read_until(caller, b"hello").startswith(b"HTTP/1.1 200 ")
