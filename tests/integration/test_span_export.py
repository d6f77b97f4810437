"""Traces of a running gateway at collectors of their own libraries, in the log, and at the admin server."""

from __future__ import annotations

import json
import signal
import socket
import ssl
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fakes.collectors import OtlpServer, ScribeServer, ZipkinServer
from fakes.http_api import Reply
from support.certs import authority, write_files
from support.gateways import LOOPBACK, SECONDS, Gateway, Nginx, gateway
from support.processes import Running, free_port, wait_until

pytestmark = pytest.mark.integration

HELLO = 'location / { return 200 "hello"; } location /fail { return 503; }'
Server = Any


@pytest.fixture
def started() -> Iterator[Callable[[Server], Server]]:
    """Start a collector, and stop it at the end."""
    servers: list[Server] = []

    def start(server: Server) -> Server:
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.stop()


def zipkin(port: int, **options: Any) -> dict[str, Any]:
    return {"kind": "io.l5d.zipkin", "host": LOOPBACK, "port": port, "sampleRate": 1.0, **options}


def otlp(port: int, **options: Any) -> dict[str, Any]:
    return {"kind": "io.meshgw.otlp", "endpoint": f"http://{LOOPBACK}:{port}", "sampleRate": 1.0, **options}


def traced_gateway(running: Running, *telemetry: dict[str, Any], **top: Any) -> tuple[Gateway, Nginx]:
    web = Nginx(running, HELLO)
    return gateway(running, {"web": web.port}, top={"telemetry": list(telemetry), **top}), web


def arrives(statement: Callable[[], bool]) -> None:
    assert wait_until(statement, SECONDS)


def requests(gw: Gateway, query: str = "") -> list[dict[str, Any]]:
    answer = gw.admin(f"/requests.json{query}")
    assert answer.status == 200, answer.text
    found: list[dict[str, Any]] = json.loads(answer.body)
    return found


def test_one_tree_of_spans_arrives_in_three_languages(running: Running, started: Callable[[Server], Server]) -> None:
    scribe, http, grpc = (started(kind(free_port())) for kind in (ScribeServer, ZipkinServer, OtlpServer))
    gw, web = traced_gateway(running, zipkin(scribe.port), zipkin(http.port, protocol="http"), otlp(grpc.port, compression="none"))
    assert gw.get("web", "/users/1?token=x").status == 200
    told = int.from_bytes(b64decode(web.wait_seen(1)[0]["trace"])[:8], "big")
    arrives(lambda: min(len(scribe.spans), len(http.spans), len(grpc.spans)) == 2)

    above, below = http.spans
    assert (above["kind"], below["kind"], below["parentId"]) == ("SERVER", "CLIENT", above["id"])
    assert below["id"] == f"{told:016x}", "the endpoint was told the id of its client's span"
    assert below["remoteEndpoint"] == {"ipv4": LOOPBACK, "port": web.port}
    assert above["tags"].items() >= {"http.uri": "/users/1", "http.rsp.status": "200", "service": "/svc/web"}.items()
    ids = [(above["traceId"], above["id"]), (below["traceId"], below["id"])]
    assert [(f"{span.trace_id % 2**64:016x}", f"{span.id % 2**64:016x}") for span in scribe.spans] == ids
    assert [(span.trace_id.hex()[16:], span.span_id.hex()) for _, span in grpc.spans] == ids
    assert {service for service, _ in grpc.spans} == {"http"}


def test_failed_request_is_an_error_everywhere(running: Running, started: Callable[[Server], Server]) -> None:
    http, grpc = started(ZipkinServer(free_port())), started(OtlpServer(free_port()))
    gw, _ = traced_gateway(running, zipkin(http.port, protocol="http"), otlp(grpc.port), {"kind": "io.l5d.recentRequests", "sampleRate": 1})
    assert gw.get("none").status == 502
    arrives(lambda: bool(http.spans and grpc.spans))
    assert http.spans[0]["tags"]["error"]
    assert grpc.spans[0][1].status.code == 2
    (row,) = requests(gw, "?failed=true")
    assert (row["status"], row["logical_name"], row["destination"]) == (502, "/svc/none", "")


def test_spans_wait_for_a_collector_that_comes_later(running: Running, started: Callable[[Server], Server]) -> None:
    scribe = ScribeServer(free_port())
    gw, _ = traced_gateway(running, zipkin(scribe.port))
    gw.get("web")
    arrives(lambda: gw.metrics()["telemetry/io.l5d.zipkin/failures"] > 0)
    scribe.codes = [1]
    started(scribe)
    arrives(lambda: len(scribe.spans) == 2)
    arrives(lambda: gw.metrics()["telemetry/io.l5d.zipkin/sent"] == 2)
    log = gw.process.output_file.read_text()
    assert log.count(f"Zipkin at {LOOPBACK}:{scribe.port} does not take spans: connection refused; trying again") == 1
    assert log.count("takes spans again; 0 were dropped meanwhile") == 1


def test_otlp_collector_may_ask_to_wait(running: Running, started: Callable[[Server], Server], tmp_path: Path) -> None:
    grpc, token = started(OtlpServer(free_port())), tmp_path / "token"
    token.write_text("Bearer from-a-file\n")
    grpc.replies = [Reply(503), Reply(429)]
    gw, _ = traced_gateway(running, otlp(grpc.port, headers={"x-key": "s3cret-key"}, headerFiles={"Authorization": str(token)}))
    gw.get("web")
    arrives(lambda: len(grpc.spans) == 2)
    assert {(one["x-key"], one["authorization"]) for one in grpc.headers} == {("s3cret-key", "Bearer from-a-file")}
    assert "s3cret" not in gw.admin("/config.json").text + gw.process.output_file.read_text()


def test_end_tells_the_last_spans(running: Running, started: Callable[[Server], Server]) -> None:
    scribe, grpc = started(ScribeServer(free_port())), started(OtlpServer(free_port()))
    gw, _ = traced_gateway(running, zipkin(scribe.port, host="localhost"), otlp(grpc.port))
    for _ in range(3):
        gw.get("web")
    gw.process.stop()
    assert (len(scribe.spans), len(grpc.spans)) == (6, 6)


def test_silent_collector_does_not_hold_up_the_end(running: Running) -> None:
    with closing(socket.create_server((LOOPBACK, 0))) as silent:
        port = silent.getsockname()[1]
        gw, _ = traced_gateway(running, zipkin(port, timeoutMs=60_000), otlp(port, timeoutMs=60_000))
        gw.get("web")
        gw.process.signal(signal.SIGTERM)
        assert gw.process.wait(SECONDS) == 0, "it does not wait for the minute of a time-out"
        assert "Main loop terminated" in gw.process.output_file.read_text()


def test_every_worker_tells_its_own_spans_and_shows_its_requests(running: Running, started: Callable[[Server], Server]) -> None:
    http = started(ZipkinServer(free_port()))
    recent = {"kind": "io.l5d.recentRequests", "sampleRate": 1.0, "capacity": 20}
    web = Nginx(running, HELLO)
    dtab = f"/svc/web => /$/inet/{LOOPBACK}/{web.port}"  # workers are not allowed to read the directory of the test
    gw = gateway(running, router={"dtab": dtab}, top={"telemetry": [zipkin(http.port, protocol="http"), recent], "workers": 2})
    for number in range(30):
        assert gw.get("web", f"/{number}").status == 200
    arrives(lambda: len(http.spans) == 60)
    rows = requests(gw)
    assert [row["path"] for row in rows] == [f"/{number}" for number in range(29, 9, -1)]
    assert {row["destination"] for row in rows} == {f"{LOOPBACK}:{web.port}"}
    assert [row["path"] for row in requests(gw, "?text=/29&limit=1")] == ["/29"]
    arrives(lambda: gw.metrics()["telemetry/io.l5d.zipkin/sent"] == 60)


def test_trace_log_has_a_line_for_each_record_until_its_level_is_raised(running: Running) -> None:
    gw, _ = traced_gateway(running, {"kind": "io.l5d.tracelog"})
    gw.get("web", "/first")
    log = gw.process.output_file

    def lines() -> list[str]:
        return [line for line in log.read_text().splitlines() if " INFO io.l5d.tracelog: " in line]

    arrives(lambda: any("ClientRecv" in line for line in lines()))
    assert any("BinaryAnnotation(http.uri,/first)" in line for line in lines())
    form = b"logger=io.l5d.tracelog&level=OFF"
    assert gw.admin("/logging.json", form, "application/x-www-form-urlencoded").status == 200
    gw.get("web", "/second")
    gw.process.stop()
    assert sum("ClientRecv" in line for line in lines()) == 1
    assert not any("/second" in line for line in lines())


def test_only_what_is_sampled_is_told(running: Running, started: Callable[[Server], Server]) -> None:
    http = started(ZipkinServer(free_port()))
    gw, _ = traced_gateway(running, zipkin(http.port, protocol="http", sampleRate=0.0))
    gw.get("web", "/no")
    gw.get("web", "/yes", "l5d-sample: 1.0")
    arrives(lambda: bool(http.spans))
    gw.process.stop()
    assert {span["tags"]["http.uri"] for span in http.spans} == {"/yes"}


def test_collector_is_told_over_tls_if_its_certificate_is_good(
    running: Running, started: Callable[[Server], Server], tmp_path: Path
) -> None:
    trust = tmp_path / "ca.pem"
    trust.write_bytes(authority().pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*write_files(authority().leaf("collector.example"), tmp_path, "leaf"))
    grpc = started(OtlpServer(free_port(), context))
    endpoint, tls = f"https://{LOOPBACK}:{grpc.port}", {"commonName": "collector.example", "trustCertsBundle": str(trust)}
    untrusting = {**otlp(grpc.port), "endpoint": endpoint}
    gw, _ = traced_gateway(running, {**untrusting, "tls": tls}, untrusting)
    gw.get("web")
    arrives(lambda: gw.metrics()["telemetry/io.meshgw.otlp/failures"] > 0)
    arrives(lambda: len(grpc.spans) == 2)
    assert "does not take spans: its TLS certificate is refused: " in gw.process.output_file.read_text()
    gw.process.stop()
    assert len(grpc.spans) == 2
