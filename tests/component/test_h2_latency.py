"""What is counted of streams that last: their latency is that of the answer's head, and they are open until they end."""

from __future__ import annotations

import pytest

from h2_dialogue import ANSWER, CALL, H2Mesh, called, trailers
from meshgw.telemetry.histogram import Window
from support import h2_frames as f
from transcript import gauge, idle

SCOPES = (("service", "svc/web"), ("client", "#/web"), ("server",))


def latency(mesh: H2Mesh, *scope: str) -> Window:
    """The histogram of a scope's latency in milliseconds."""
    found = [
        window
        for names, window in mesh.snapshot().histograms.items()
        if names[2 : 2 + len(scope)] == scope and names[-1] == "request_latency_ms"
    ]
    return found[0]


def advance(mesh: H2Mesh, seconds: float) -> None:
    mesh.settle()
    mesh.clock.advance(seconds)
    mesh.settle()


@pytest.mark.parametrize("end", ["trailers", "reset", "loss"])
def test_the_latency_of_a_stream_is_that_of_its_head(end: str) -> None:
    with H2Mesh() as mesh:
        caller, upstream = called(mesh, f.headers(1, CALL))
        advance(mesh, 0.2)
        upstream.send(f.headers(1, ANSWER, ends=False))
        caller.until(lambda side: side.has_section(1))
        advance(mesh, 60.0)
        assert gauge(mesh, "open_streams") == 1
        if end == "trailers":
            upstream.send(f.headers(1, trailers(0)))
        elif end == "reset":
            upstream.send(f.rst_stream(1, f.CANCEL))
        else:
            upstream.side.close()
        mesh.until(lambda: idle(mesh))
        mesh.metrics.rotate()
        for scope in SCOPES:
            assert latency(mesh, *scope).total == pytest.approx(200, abs=40), scope
        assert gauge(mesh, "open_streams") == 0


def test_the_next_request_of_a_connection_has_a_latency_of_its_own() -> None:
    with H2Mesh() as mesh:
        caller, upstream = called(mesh)
        upstream.send(f.headers(1, ANSWER, ends=False))
        caller.until(lambda side: side.has_section(1))
        upstream.send(f.headers(1, trailers(0)))
        caller.awaited_answer(1)
        advance(mesh, 10.0)
        caller.send(f.headers(3))
        upstream.awaited_request(3)
        advance(mesh, 0.4)
        upstream.send(f.headers(3, ((":status", "204"),)))
        caller.awaited_answer(3)
        mesh.metrics.rotate()
        assert latency(mesh, "server").total == pytest.approx(400, abs=80)


def test_an_answer_that_comes_whole_takes_until_its_end() -> None:
    with H2Mesh("service: {responseClassifier: {kind: io.l5d.h2.grpc.default}, classificationTimeoutMs: 5000}") as mesh:
        caller, upstream = called(mesh, f.headers(1, CALL))
        upstream.send(f.headers(1, ANSWER, ends=False))
        advance(mesh, 1.0)
        upstream.send(f.headers(1, trailers(0)))
        caller.awaited_answer()
        mesh.metrics.rotate()
        assert latency(mesh, "service", "svc/web").total == pytest.approx(1000, abs=80), "its head came to the caller only then"
