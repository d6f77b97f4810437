"""The metric tree of a gateway that went through good and bad: each name of the spec is there, and the figures are right."""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import attrs
import pytest

from support import h2_frames as f
from support import metric_names as names
from support.gateways import LOOPBACK, SECONDS, Gateway, gateway
from support.h2_peer import Wire, accept, listen
from support.metric_names import figure, missing, scope
from support.origin import origin
from support.processes import Running, free_port, wait_until

pytestmark = pytest.mark.integration

HTTP, H2 = ("rt", "http"), ("rt", "h2")
CALL = (*f.POST[:3], (":authority", "rpc"))
SERVICE = {"kind": "io.l5d.global", "responseClassifier": {"kind": "io.l5d.http.retryableRead5XX"}, "retries": {"budget": {"ttlSecs": 60}}}
CLIENT = {
    "kind": "io.l5d.static",
    "configs": [
        {"prefix": "/", "failFast": True},
        {"prefix": "/#/io.l5d.fs/narrow", "hostConnectionPool": {"maxSize": 1, "maxWaiters": 1}},
        {"prefix": "/#/io.l5d.fs/sick", "failureAccrual": {"kind": "io.l5d.consecutiveFailures", "failures": 2}},
    ],
}


@attrs.frozen
class Mesh:
    """A gateway of both protocols, and what its metrics told when all was over."""

    gateway: Gateway
    h2_port: int
    tree: Mapping[str, Any]

    def http_server(self) -> tuple[str, ...]:
        return (*HTTP, "server", f"{LOOPBACK}/{self.gateway.port}")

    def h2_server(self) -> tuple[str, ...]:
        return (*H2, "server", f"{LOOPBACK}/{self.h2_port}")


def client(router: tuple[str, ...], name: str) -> tuple[str, ...]:
    return (*router, "client", f"#/io.l5d.fs/{name}")


def read(gw: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gw.admin("/admin/metrics.json?tree=1").body)
    return found


def wait_for_pool(gw: Gateway) -> None:
    """Two callers where there is one connection: one has to wait, and a third is refused."""
    slow = [threading.Thread(target=gw.get, args=("narrow", "/slow/400")) for _ in range(2)]
    for number, thread in enumerate(slow, 1):
        thread.start()
        assert wait_until(lambda number=number: figure(read(gw), client(HTTP, "narrow"), "pending") == number, SECONDS)  # type: ignore[misc]
    assert gw.get("narrow").status == 502
    for thread in slow:
        thread.join(SECONDS)


def ask_over_http(gw: Gateway) -> None:
    assert gw.get("web").status == 200
    assert gw.get("web", "/status/503").status == 503  # and all its retries
    stamp = time.time_ns()
    assert gw.get("web", "/", "l5d-dtab: /x => /y; /z => /w", f"l5d-ctx-deadline: {deadline(stamp - 50_000_000, stamp + 60_000_000_000)}")
    assert gw.get("gone").status == 502
    for _ in range(3):
        gw.get("sick", "/status/500", "Content-Length: 0")
    wait_for_pool(gw)


def deadline(stamp: int, ends: int) -> str:
    return base64.b64encode(struct.pack(">qq", stamp, ends)).decode()


def answer(service: Wire, stream: int) -> None:
    assert service.until(lambda wire: wire.ended(stream))
    service.send(f.headers(stream, ((":status", "200"),), ends=False) + f.data(stream, b"hello"))
    service.send(f.headers(stream, (("grpc-status", "0"),)))


def ask_over_h2(port: int, listener: socket.socket) -> None:
    """A stream with a body and trailers, one that the service resets, one that the caller does."""
    with Wire.connect(port) as caller:
        caller.send(f.headers(1, CALL, ends=False) + f.data(1, b"ping") + f.data(1, b"pong", ends=True))
        with accept(listener) as service:
            answer(service, 1)
            assert caller.until(lambda wire: wire.ended(1)) and caller.body(1) == b"hello"
            caller.send(f.headers(3, CALL))
            assert service.until(lambda wire: wire.ended(3))
            service.send(f.headers(3, ((":status", "200"),), ends=False) + f.data(3, b"part") + f.rst_stream(3, f.INTERNAL_ERROR))
            assert caller.until(lambda wire: wire.reset(3) is not None)
            caller.send(f.headers(5, CALL, ends=False))
            assert service.until(lambda wire: wire.has(f.HEADERS, 5))
            caller.send(f.rst_stream(5, f.CANCEL))
            assert service.until(lambda wire: wire.reset(5) is not None)
            caller.send(f.headers(7, CALL, ends=False) + f.data(7, b"x") + f.headers(7, (("late", "1"),)))
            answer(service, 7)
            assert caller.until(lambda wire: wire.ended(7))


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    directory = tmp_path_factory.mktemp("tree")
    with Running(directory) as running:
        web, h2_port, port = origin(running), free_port(), free_port()
        listener, h2_service = listen()
        common = {"dtab": "/svc => /#/io.l5d.fs", "originator": True}
        server = {"port": port, "maxConcurrentRequests": 50}
        http = {**common, "protocol": "http", "label": "http", "servers": [server], "service": SERVICE, "client": CLIENT}
        h2 = {**common, "protocol": "h2", "label": "h2", "servers": [{"port": h2_port}]}
        targets = {"web": web, "narrow": web, "sick": web, "gone": free_port(), "rpc": h2_service}
        gw = gateway(running, targets, port=port, top={"routers": [http, h2]}, options=("--histogram-interval", "0.2"))
        ask_over_http(gw)
        with closing(listener):
            ask_over_h2(h2_port, listener)
        server_of_h2 = (*H2, "server", f"{LOOPBACK}/{h2_port}")
        youngest = (*client(H2, "rpc"), "stream", "total_latency_ms")  # once its first interval has ended, everybody's has
        assert wait_until(lambda: "stat.count" in scope(read(gw), *youngest), SECONDS)
        assert wait_until(lambda: figure(read(gw), server_of_h2, "closes") == 1, SECONDS)
        yield Mesh(gw, h2_port, read(gw))


def test_a_listener_of_http_has_every_name(mesh: Mesh) -> None:
    assert missing(scope(mesh.tree, *mesh.http_server()), names.SERVER | names.LIMITED) == []


def test_a_service_of_http_has_every_name(mesh: Mesh) -> None:
    assert missing(scope(mesh.tree, *HTTP, "service", "svc/web"), names.SERVICE) == []


def test_a_client_of_http_has_every_name(mesh: Mesh) -> None:
    assert missing(scope(mesh.tree, *client(HTTP, "web")), names.CLIENT) == []
    assert missing(scope(mesh.tree, *client(HTTP, "web"), "service", "svc/web"), names.THROUGH) == []


def test_a_client_that_fails_fast_has_its_names(mesh: Mesh) -> None:
    assert missing(scope(mesh.tree, *client(HTTP, "gone")), names.FAIL_FAST) == []


def test_a_listener_of_h2_has_every_name(mesh: Mesh) -> None:
    assert missing(scope(mesh.tree, *mesh.h2_server()), names.SERVER | names.STREAMS | names.FRAMES) == []


def test_a_service_of_h2_has_every_name(mesh: Mesh) -> None:
    assert missing(scope(mesh.tree, *H2, "service", "svc/rpc"), names.SERVICE | names.STREAMS | names.H2_RETRIES) == []


def test_a_client_of_h2_has_every_name(mesh: Mesh) -> None:
    assert missing(scope(mesh.tree, *client(H2, "rpc")), names.CLIENT | names.STREAMS | names.FRAMES) == []


def test_routers_and_the_process_have_every_name(mesh: Mesh) -> None:
    for router in (HTTP, H2):
        assert missing(scope(mesh.tree, *router, "bindcache"), names.BINDCACHE) == []
        assert figure(mesh.tree, router, "originator") == 1
    assert missing(mesh.tree["jvm"], names.PROCESS) == []
    assert missing(mesh.tree["metrics"], names.OWN) == []
    assert 0 < figure(mesh.tree, ("metrics",), "nodes") < figure(mesh.tree, ("metrics",), "limit")


def test_outcomes_of_attempts_are_told_apart(mesh: Mesh) -> None:
    tree = mesh.tree
    service, attempts = (*HTTP, "service", "svc/web"), client(HTTP, "web")
    retries = figure(tree, service, "retries/total")
    assert retries > 0
    assert (figure(tree, service, "requests"), figure(tree, service, "success")) == (3, 2)
    assert (figure(tree, attempts, "requests"), figure(tree, attempts, "success")) == (3 + retries, 2)
    assert figure(tree, attempts, "status/503") == 1 + retries
    assert figure(tree, client(HTTP, "gone"), "requests") == 0 < figure(tree, client(HTTP, "gone"), "service_creation/failures")
    assert figure(tree, client(HTTP, "sick"), "failure_accrual/removals") == 1
    assert figure(tree, client(HTTP, "narrow"), "pool_num_waited") == 1
    assert figure(tree, client(HTTP, "narrow"), "pool_num_too_many_waiters") == 1
    assert figure(tree, client(HTTP, "narrow"), "service_creation/failures/TooManyWaiters") == 1


def test_streams_are_told_apart_by_how_they_ended(mesh: Mesh) -> None:
    for where in (mesh.h2_server(), (*H2, "service", "svc/rpc"), client(H2, "rpc")):
        assert figure(mesh.tree, where, "response/stream/stream_success") == 2, where
        assert figure(mesh.tree, where, "response/stream/stream_failures") == 2, where
        assert figure(mesh.tree, where, "response/stream/stream_failures/StreamReset") == 1, where
        assert figure(mesh.tree, where, "response/stream/stream_failures/CallerReset") == 1, where
        assert figure(mesh.tree, where, "request/stream/stream_success") == 3, where
        assert figure(mesh.tree, where, "stream/stream_success") == 2, where


def test_frames_are_counted_on_both_sides(mesh: Mesh) -> None:
    caller_side, service_side = mesh.h2_server(), client(H2, "rpc")
    assert figure(mesh.tree, caller_side, "stream/remote/data/frames") == 3
    assert figure(mesh.tree, caller_side, "stream/remote/reset") == 1
    assert figure(mesh.tree, caller_side, "stream/remote/trailers") == 1
    assert figure(mesh.tree, service_side, "stream/remote/data/frames") == 3
    assert figure(mesh.tree, service_side, "stream/remote/trailers") == 2
    assert figure(mesh.tree, service_side, "stream/remote/reset") == 1
    assert figure(mesh.tree, service_side, "stream/local/reset") == 1
    assert figure(mesh.tree, caller_side, "stream/local/trailers") == 2
