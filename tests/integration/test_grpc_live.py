"""What operators of gRPC services meet: retries, balance by call, services that die, draining, TLS, limits, metrics and the access log."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from support import grpc_peers
from support.certs import authority, write_files
from support.gateways import SECONDS, Gateway, Json
from support.grpc_peers import SERVICE, GrpcService, caller, wish
from support.h2_gateways import assert_at_rest, h2_gateway
from support.processes import Process, Running, free_port, wait_until

pytestmark = pytest.mark.integration

BY_SERVICE = {"identifier": {"kind": "io.l5d.header.path", "segments": 1}}
BY_METHOD = {"identifier": {"kind": "io.l5d.header.path", "segments": 2}}
METHOD_SCOPE = f"rt/h2/service/svc/{SERVICE}/UnaryCall"
SERVER_NAME = "grpc.example"


@pytest.fixture
def service() -> Iterator[GrpcService]:
    with GrpcService() as served:
        yield served


def retrying(kind: str = "io.l5d.h2.grpc.default", **more: Any) -> Json:
    return {**BY_METHOD, "service": {"responseClassifier": {"kind": kind}, **more}}


def code_of(call: Any) -> grpc.StatusCode:
    """The status of a call, OK if it succeeds."""
    try:
        call()
    except grpc.RpcError as error:
        found: grpc.StatusCode = error.code()
        return found
    return grpc.StatusCode.OK


def test_a_service_that_is_unavailable_for_a_moment_is_asked_again(running: Running, service: GrpcService) -> None:
    gw = h2_gateway(running, {SERVICE: service.port}, router=retrying())
    with caller(gw.port) as calls:
        service.failing = 2
        assert len(calls.unary()(wish(1000, size=5), timeout=SECONDS)) == 5
        assert service.calls["UnaryCall"] == 3
        metrics = gw.metrics()
        assert (metrics[f"{METHOD_SCOPE}/retries/total"], metrics[f"{METHOD_SCOPE}/success"], metrics[f"{METHOD_SCOPE}/requests"]) == (
            2,
            1,
            1,
        )
        client = f"rt/h2/client/#/io.l5d.fs/{SERVICE}"
        assert (metrics[f"{client}/requests"], metrics[f"{client}/success"], metrics[f"{client}/failures"]) == (3, 1, 2)
        service.failing = 1
        assert code_of(lambda: calls.unary()(wish(20_000), timeout=SECONDS)) is grpc.StatusCode.UNAVAILABLE, "too long to be kept"
        assert gw.metrics()[f"{METHOD_SCOPE}/retries/request_stream_too_long"] == 1
        service.failing, service.failure = 1, (grpc.StatusCode.ABORTED, "no")
        assert code_of(lambda: calls.unary()(wish(), timeout=SECONDS)) is grpc.StatusCode.ABORTED
    assert_at_rest(gw)


def test_every_method_has_metrics_of_its_own(running: Running, service: GrpcService) -> None:
    gw = h2_gateway(running, {SERVICE: service.port}, router=retrying("io.l5d.h2.grpc.neverRetryable"))
    with caller(gw.port) as calls:
        for _ in range(3):
            calls.unary("EmptyCall")(b"", timeout=SECONDS)
        assert code_of(lambda: calls.unary()(wish(code=5), timeout=SECONDS)) is grpc.StatusCode.NOT_FOUND
        assert code_of(lambda: list(calls.output()(wish(sizes=[1], code=9), timeout=SECONDS))) is grpc.StatusCode.FAILED_PRECONDITION
    assert_at_rest(gw)
    metrics = gw.metrics()
    found = {
        method: (metrics[f"rt/h2/service/svc/{SERVICE}/{method}/success"], metrics[f"rt/h2/service/svc/{SERVICE}/{method}/failures"])
        for method in ("EmptyCall", "UnaryCall", "StreamingOutputCall")
    }
    assert found == {"EmptyCall": (3, 0), "UnaryCall": (0, 1), "StreamingOutputCall": (0, 1)}
    assert (gw.server_metric("success", "h2"), gw.server_metric("failures", "h2")) == (3, 2), "a server counts by the classifier's verdict"
    text = gw.admin("/admin/metrics/prometheus").text
    assert re.search(rf'rt:service:requests\{{[^}}]*service="svc/{re.escape(SERVICE)}/EmptyCall"[^}}]*\}} 3', text), text[:500]


def test_calls_of_one_connection_are_balanced(running: Running) -> None:
    with ExitStack() as stack:
        services = [stack.enter_context(GrpcService()) for _ in range(3)]
        gw = h2_gateway(running, {SERVICE: [one.port for one in services]}, router=BY_SERVICE)
        with caller(gw.port) as calls, ThreadPoolExecutor(8) as pool:

            def all_have_many() -> bool:
                list(pool.map(lambda _: calls.unary("EmptyCall")(b"", timeout=SECONDS), range(60)))
                return min(one.calls.get("EmptyCall", 0) for one in services) > 30

            assert wait_until(all_have_many, SECONDS), [one.calls for one in services]
        assert gw.server_metric("connects", "h2") <= 2, "the caller has one connection (the other one asked whether the port is open)"
        assert_at_rest(gw)


class Load:
    """Callers that ask for a short answer again and again, and the statuses they got."""

    def __init__(self, port: int, callers: int = 4) -> None:
        self.codes: list[grpc.StatusCode] = []
        self._port, self._callers = port, callers
        self._stop = threading.Event()

    def __enter__(self) -> Load:
        self._stack = ExitStack()
        calls = self._stack.enter_context(caller(self._port))

        def ask() -> None:
            while not self._stop.is_set():
                self.codes.append(code_of(lambda: calls.unary()(wish(100, size=100), timeout=SECONDS)))

        self._threads = [threading.Thread(target=ask) for _ in range(self._callers)]
        for thread in self._threads:
            thread.start()
        return self

    def goes_on(self, calls: int = 200) -> bool:
        """Whether so many more calls have ended within the time."""
        before = len(self.codes)
        return wait_until(lambda: len(self.codes) > before + calls, SECONDS)

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._stack.close()


def test_a_service_that_is_killed_under_load_costs_no_call(running: Running, service: GrpcService) -> None:
    port = free_port()
    argv = [sys.executable, grpc_peers.__file__, str(port)]
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    dying = running.add(Process("dying", argv, running.directory, port=port, env=env))
    gw = h2_gateway(running, {SERVICE: [service.port, port]}, router=retrying())
    with Load(gw.port) as load:
        assert wait_until(lambda: len(load.codes) > service.calls.get("UnaryCall", 0) + 30, SECONDS), "both have calls"
        dying.signal(signal.SIGKILL)
        assert load.goes_on()
    assert set(load.codes) == {grpc.StatusCode.OK}
    assert_at_rest(gw)


def test_a_service_that_is_drained_under_load_costs_no_call(running: Running, service: GrpcService) -> None:
    # calls that reach grpcio's server as it stops are answered CANCELLED, which the default classifier takes as the callers' own doing
    classifier = {"kind": "io.l5d.h2.grpc.retryableStatusCodes", "retryableStatusCodes": [1, 14]}
    with GrpcService() as other:
        gw = h2_gateway(running, {SERVICE: [service.port, other.port]}, router={**BY_METHOD, "service": {"responseClassifier": classifier}})
        with Load(gw.port) as load:
            assert wait_until(lambda: other.calls.get("UnaryCall", 0) > 30, SECONDS)
            other.drain()
            assert load.goes_on()
        assert set(load.codes) == {grpc.StatusCode.OK}
        assert_at_rest(gw)


def test_a_stream_under_way_ends_well_while_the_gateway_drains(running: Running, service: GrpcService) -> None:
    gw = h2_gateway(running, {SERVICE: service.port}, router=BY_SERVICE, admin={"shutdownGraceMs": 600_000})
    with caller(gw.port) as calls:
        sizes = [10] * 8
        stream = calls.output()(wish(sizes=sizes, pause=0.1), timeout=SECONDS)
        assert len(next(stream)) == 10
        gw.process.signal(signal.SIGTERM)
        assert [len(message) for message in stream] == [10] * 7
        assert stream.code() is grpc.StatusCode.OK
        assert gw.process.wait(SECONDS) == 0
        assert code_of(lambda: calls.unary("EmptyCall")(b"", timeout=SECONDS)) is grpc.StatusCode.UNAVAILABLE


def test_a_stream_that_outlives_the_grace_is_told(running: Running, service: GrpcService) -> None:
    gw = h2_gateway(running, {SERVICE: service.port}, router=BY_SERVICE, admin={"shutdownGraceMs": 500})
    with caller(gw.port) as calls:
        stream = calls.output()(wish(sizes=[10] * 100, pause=0.1), timeout=SECONDS)
        assert len(next(stream)) == 10
        gw.process.signal(signal.SIGTERM)
        assert code_of(lambda: list(stream)) is grpc.StatusCode.UNAVAILABLE
        assert gw.process.wait(SECONDS) == 0
    assert wait_until(lambda: service.under_way == 0, SECONDS)


def test_limits_of_time_end_calls_at_the_service_too(running: Running, service: GrpcService) -> None:
    gw = h2_gateway(running, {SERVICE: service.port}, router={**BY_SERVICE, "service": {"totalTimeoutMs": 300}})
    with caller(gw.port) as calls:
        assert code_of(lambda: calls.unary()(wish(sleep=30), timeout=SECONDS)) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert service.deadlines[0] is not None
        assert service.deadlines[0] <= 0.3, "the service is told the stricter limit"
        assert wait_until(lambda: service.cancelled == 1, SECONDS)
    assert_at_rest(gw)


def test_calls_beyond_the_limit_are_unavailable(running: Running, service: GrpcService) -> None:
    gw = h2_gateway(running, {SERVICE: service.port}, router=BY_SERVICE, server={"maxConcurrentRequests": 1})
    with caller(gw.port) as calls:
        first = calls.unary().future(wish(sleep=600), timeout=600)
        assert service.arrived.wait(SECONDS)
        assert code_of(lambda: calls.unary("EmptyCall")(b"", timeout=SECONDS)) is grpc.StatusCode.UNAVAILABLE
        first.cancel()
        assert wait_until(lambda: code_of(lambda: calls.unary("EmptyCall")(b"", timeout=SECONDS)) is grpc.StatusCode.OK, SECONDS)
    assert_at_rest(gw)


def test_metadata_that_is_too_long_is_resource_exhausted(running: Running, service: GrpcService) -> None:
    gw = h2_gateway(running, {SERVICE: service.port}, router=BY_SERVICE, server={"maxHeaderListBytes": 4000})
    with caller(gw.port) as calls:
        long = (("x-long", "x" * 5000),)
        code = code_of(lambda: calls.unary("EmptyCall")(b"", timeout=SECONDS, metadata=long))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert code_of(lambda: calls.unary("EmptyCall")(b"", timeout=SECONDS)) is grpc.StatusCode.OK


def test_a_service_of_few_streams_serves_many_calls(running: Running) -> None:
    with GrpcService(most_streams=5) as service:
        gw = h2_gateway(running, {SERVICE: service.port}, router=BY_SERVICE)
        with caller(gw.port) as calls:
            under_way = [calls.unary().future(wish(sleep=0.2), timeout=SECONDS) for _ in range(60)]
            assert [call.code() for call in under_way] == [grpc.StatusCode.OK] * 60
        assert_at_rest(gw)


def secure(running: Running) -> tuple[Json, grpc.ChannelCredentials]:
    """TLS of a listener, and what callers trust."""
    chain, key = write_files(authority().leaf(SERVER_NAME), running.directory, "server")
    return {"tls": {"certPath": chain, "keyPath": key}}, grpc.ssl_channel_credentials(root_certificates=authority().pem)


def test_two_gateways_speak_tls_to_each_other_and_to_the_caller(running: Running, service: GrpcService) -> None:
    server, credentials = secure(running)
    bundle = running.directory / "authority.pem"
    bundle.write_bytes(authority().pem)
    client = {"tls": {"commonName": SERVER_NAME, "trustCertsBundle": str(bundle)}}
    far = h2_gateway(running, {SERVICE: service.port}, router=BY_SERVICE, server=server, name="far")
    near = h2_gateway(running, {SERVICE: far.port}, router={**BY_SERVICE, "client": client}, server=server, name="near")
    with caller(near.port, authority=SERVER_NAME, credentials=credentials) as calls:
        assert len(calls.unary()(wish(300_000, size=300_000), timeout=SECONDS)) == 300_000
        asked = iter([wish(sizes=[1, 100_000]), wish(sizes=[2])])
        assert [len(message) for message in calls.duplex()(asked, timeout=SECONDS)] == [1, 100_000, 2]
        assert str(service.seen[-1]["via"]) == "h2 linkerd, h2 linkerd"
    assert_at_rest(far, near)


def test_the_access_log_tells_of_calls(running: Running, service: GrpcService) -> None:
    log = running.directory / "access.log"
    gw = h2_gateway(running, {SERVICE: service.port}, router={**BY_SERVICE, "h2AccessLog": str(log)})
    with caller(gw.port) as calls:
        calls.unary()(wish(size=50), timeout=SECONDS)
        code_of(lambda: calls.channel.unary_unary("/no.Such/Call")(b"", timeout=SECONDS))
    assert wait_until(lambda: log.exists() and log.read_text().count("\n") == 2, SECONDS)
    first, second = log.read_text().splitlines()
    pattern = (
        r'grpc\.test 127\.0\.0\.1 - - \[\d\d/\d\d/\d{{4}}:\d\d:\d\d:\d\d \+0000\] "POST {} HTTP/2" {} (?:-|\d+) "-" "grpc-python/[^"]*"'
    )
    assert re.fullmatch(pattern.format(f"/{SERVICE}/UnaryCall", 200), first), first
    assert re.fullmatch(pattern.format("/no.Such/Call", r"\d{3}"), second), second


def test_a_gateway_that_is_stopped_hard_fails_its_calls_at_once(running: Running, service: GrpcService) -> None:
    gw: Gateway = h2_gateway(running, {SERVICE: service.port}, router=BY_SERVICE)
    with caller(gw.port) as calls:
        call = calls.unary().future(wish(sleep=30), timeout=SECONDS)
        assert service.arrived.wait(SECONDS)
        gw.process.signal(signal.SIGKILL)
        assert call.code() is grpc.StatusCode.UNAVAILABLE
    assert wait_until(lambda: service.under_way == 0, SECONDS)
