"""Spans of requests that go through a whole router: which there are, whose ids they have, and what they tell."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterator, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

import attrs
import pytest

from fakes.answers import FAILED, pass_time
from fakes.tracers import FakeTracer
from h2_dialogue import ANSWER, H2Mesh, called, trailers
from meshgw.core.address import Address, Replicas
from meshgw.core.exchange import Exchange
from meshgw.errors import Unbound
from meshgw.filters.recording import LONGEST_ERROR, LONGEST_TAG, MOST_ATTEMPTS, worded
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG
from meshgw.telemetry.spans import LateSpans, Span
from meshgw.wire.context import SAMPLED, SAMPLING_KNOWN, TraceId, decode_trace
from support import h2_frames as f
from transcript import OK, Mesh, Side, asked

RETRYING = "service: {responseClassifier: {kind: io.l5d.http.retryableRead5XX}}"
NACK = b"HTTP/1.1 503 Service Unavailable\r\nfinagle-http-nack: true\r\nContent-Length: 0\r\n\r\n"
ROOT = TraceId(1, 1, 1)
SAMPLE = b"l5d-sample: 1\r\n"


def told(upstream: Side) -> TraceId:
    """The place in its trace that the last request to the endpoint tells."""
    found = re.findall(rb"l5d-ctx-trace: (\S+)", upstream.got)
    place = decode_trace(found[-1])
    assert place is not None
    return place


def ids(span: Span) -> tuple[int, int, int]:
    return span.trace.trace, span.trace.parent, span.trace.span


def words(span: Span) -> list[str]:
    return [word for _, word in span.events]


def only(tracer: FakeTracer) -> tuple[Span, ...]:
    assert len(tracer.requests) == 1
    return tracer.requests[0]


def everything(spans: tuple[Span, ...]) -> str:
    return " ".join(f"{span.name} {span.router} {dict(span.tags)} {span.events}" for span in spans)


# --- one attempt


def test_a_request_gives_a_span_of_its_server_and_one_of_its_attempt_with_the_id_that_the_endpoint_was_told() -> None:
    tracer = FakeTracer()
    with Mesh(tracers=[tracer]) as mesh:
        caller, upstream, service = asked(mesh, b"GET /a/b?token=secret HTTP/1.1\r\nHost: web\r\n\r\n")
        pass_time(mesh, 0.25)
        upstream.send(OK)
        caller.expect(b"ok")
        server, client = only(tracer)
        assert ids(server) == (server.trace.span,) * 3
        assert ids(client) == (server.trace.trace, server.trace.span, told(upstream).span)
        assert (server.is_client, client.is_client) == (False, True)
        assert (server.name, server.router) == ("GET", "http")
        assert (server.started, server.duration) == (pytest.approx(1000.0), pytest.approx(0.25))
        assert client.duration == pytest.approx(0.25)
        assert (server.local, server.peer) == (("127.0.0.1", mesh.port), caller.sock.getsockname())
        assert client.peer == ("127.0.0.1", service.port)
        assert (server.failed, client.failed) == (False, False)


def test_spans_tell_of_request_route_and_answer() -> None:
    tracer = FakeTracer()
    with Mesh("dtab: /svc => /x", tracers=[tracer]) as mesh:
        body = b"Content-Type: text/css\r\nContent-Length: 5\r\nl5d-dtab: /a => /b\r\n\r\nhello"
        caller, upstream, _ = asked(mesh, b"POST /a HTTP/1.1\r\nHost: web\r\n" + body, b"hello")
        upstream.send(b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\nabc")
        caller.expect(b"abc")
        server, client = only(tracer)
        request = {
            "router.label": "http",
            "http.uri": "/a",
            "http.req.method": "POST",
            "http.req.host": "web",
            "http.req.version": "HTTP/1.1",
            "http.req.content-length": "5",
            "http.req.content-type": "text/css",
            "service": "/svc/web",
            "http.rsp.status": "404",
            "http.rsp.version": "HTTP/1.1",
            "http.rsp.content-length": "3",
            "http.rsp.content-type": "text/html",
        }
        assert server.tags == request | {"dtab.base": "/svc=>/x", "dtab.local": "/a=>/b"}
        assert client.tags == request | {"client": "/#/web", "meshgw.attempt": "1"}
        assert words(server) == ["namer.success", "l5d.success"]
        assert words(client) == ["l5d.success"]


def test_a_query_string_is_in_no_span() -> None:
    tracer = FakeTracer()
    with Mesh("identifier: {kind: io.l5d.header}", tracers=[tracer]) as mesh:
        mesh.caller().get(b"/a?token=secret").expect(b"HTTP/1.1 400 ")
        assert "secret" not in everything(only(tracer))


def test_texts_of_callers_are_cut() -> None:
    tracer = FakeTracer()
    with Mesh(tracers=[tracer]) as mesh:
        mesh.names.tree(Path.of("svc", "web")).set(NEG)
        mesh.caller().get(b"/" + b"x" * 3000, fields=b"Content-Type: " + b"y" * 3000 + b"\r\n").expect(b"HTTP/1.1 502 ")
        (server,) = only(tracer)
        assert max(map(len, server.tags.values())) == LONGEST_TAG
        assert len(server.tags["error"]) <= LONGEST_ERROR


def test_requests_of_one_connection_are_traced_apart() -> None:
    tracer = FakeTracer()
    with Mesh(tracers=[tracer]) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(OK)
        caller.expect(b"ok")
        first = told(upstream)
        caller.get()
        upstream.expect(b"\r\n\r\n", 2)
        upstream.send(OK)
        caller.expect(b"ok", 2)
        assert [len(spans) for spans in tracer.requests] == [2, 2]
        assert [spans[1].trace.span for spans in tracer.requests] == [first.span, told(upstream).span]


def test_an_answer_that_comes_in_pieces_is_traced_to_its_end() -> None:
    tracer = FakeTracer()
    with Mesh(tracers=[tracer]) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        caller.expect(b"\r\n\r\n")
        assert not tracer.requests
        pass_time(mesh, 1.0)
        upstream.send(b"0\r\n\r\n")
        caller.expect(b"\r\n0\r\n")
        server, client = only(tracer)
        assert (server.duration, client.duration) == (pytest.approx(1.0), pytest.approx(1.0))
        assert client.tags["http.rsp.transfer-encoding"] == "chunked"


# --- several attempts


def test_each_retry_has_a_span_with_the_id_that_its_endpoint_was_told() -> None:
    tracer = FakeTracer()
    with Mesh(RETRYING, tracers=[tracer]) as mesh:
        caller, upstream, _ = asked(mesh)
        sent = [told(upstream).span]
        upstream.send(FAILED)
        upstream.expect(b"\r\n\r\n", 2)
        sent.append(told(upstream).span)
        upstream.send(OK)
        caller.expect(b"ok")
        server, first, second = only(tracer)
        assert [first.trace.span, second.trace.span] == sent
        assert first.trace.span != second.trace.span
        assert first.trace.parent == second.trace.parent == server.trace.span
        assert [span.tags.get("meshgw.attempt") for span in (first, second)] == ["1", "2"]
        assert [span.tags.get("meshgw.attempt.cause") for span in (first, second)] == [None, "retry"]
        assert [span.tags["http.rsp.status"] for span in (server, first, second)] == ["200", "500", "200"]
        assert [span.failed for span in (server, first, second)] == [False, True, False]
        assert [words(span) for span in (first, second)] == [["l5d.retryable"], ["finagle.retry", "l5d.success"]]
        assert words(server) == ["namer.success", "l5d.success"]


def test_each_requeue_has_a_span_of_its_own_and_tells_its_id() -> None:
    tracer = FakeTracer()
    with Mesh(tracers=[tracer]) as mesh:
        caller, upstream, _ = asked(mesh)
        sent = [told(upstream)]
        upstream.send(NACK)
        upstream.expect(b"\r\n\r\n", 2)
        sent.append(told(upstream))
        upstream.send(OK)
        caller.expect(b"ok")
        server, first, second = only(tracer)
        assert [first.trace.span, second.trace.span] == [place.span for place in sent]
        assert {place.parent for place in sent} == {server.trace.span}
        assert [span.tags.get("meshgw.attempt.cause") for span in (first, second)] == [None, "requeue"]
        assert [span.tags["http.rsp.status"] for span in (first, second)] == ["503", "200"]
        assert upstream.got.count(b"l5d-ctx-trace") == 2


def test_connects_that_fail_are_told_one_by_one_with_the_endpoint() -> None:
    tracer = FakeTracer()
    with Mesh(tracers=[tracer]) as mesh:
        service = mesh.service("web")
        service.close()
        mesh.caller().get().expect(b"HTTP/1.1 502 ")
        server, *clients = only(tracer)
        assert len(clients) == 3
        assert {span.peer for span in clients} == {("127.0.0.1", service.port)}
        assert all(span.failed and span.tags["error"].startswith("ConnectFailed: ") for span in clients)
        assert not any("http.rsp.status" in span.tags for span in clients)
        assert server.tags["io.buoyant.router.Failure"] == "ClientAcquisition"
        assert server.tags["error"].startswith("ConnectFailed: Unable to establish connection to 127.0.0.1:")
        assert "\n" not in server.tags["error"]
        assert server.failed


def test_the_spans_of_a_request_that_is_tried_for_ever_are_bounded() -> None:
    tracer = FakeTracer()
    with Mesh(RETRYING, tracers=[tracer]) as mesh:
        caller, upstream, _ = asked(mesh)
        for number in range(MOST_ATTEMPTS + 2):
            upstream.send(FAILED)
            upstream.expect(b"\r\n\r\n", number + 2)
        upstream.send(OK)
        caller.expect(b"ok")
        server, *clients = only(tracer)
        assert len(clients) == MOST_ATTEMPTS
        assert server.tags["meshgw.attempts.omitted"] == "3"


def test_waiting_on_a_name_that_leads_elsewhere_meanwhile_is_no_attempt() -> None:
    tracer = FakeTracer()
    with Mesh(tracers=[tracer]) as mesh:
        name = Path.of("svc", "web")
        mesh.names.tree(name).set(mesh.names.leaf("/#/old"))
        caller, service = mesh.caller().get(), mesh.service()
        mesh.until(lambda: any(client.waiters for client in mesh.router.caches.clients()))
        mesh.names.addr("/#/new").set(Replicas((Address("127.0.0.1", service.port),)))
        mesh.names.tree(name).set(mesh.names.leaf("/#/new"))
        upstream = service.accept()
        upstream.expect(b"\r\n\r\n")
        upstream.send(OK)
        caller.expect(b"ok")
        _, client = only(tracer)
        assert (client.tags["client"], client.tags["meshgw.attempt"]) == ("/#/new", "1")
        assert "meshgw.attempt.cause" not in client.tags
        assert client.trace.span == told(upstream).span


def test_a_tunnel_is_traced_to_its_end() -> None:
    tracer = FakeTracer()
    with Mesh(tracers=[tracer]) as mesh:
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        caller, upstream, _ = asked(mesh, b"GET /chat HTTP/1.1\r\nHost: web\r\n" + upgrade + b"\r\n")
        upstream.send(b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + b"\r\n")
        caller.expect(b"\r\n\r\n")
        pass_time(mesh, 2.0, step=0.5)
        assert not tracer.requests
        caller.close()
        upstream.expect_end()
        upstream.close()
        mesh.until(lambda: tracer.requests)
        server, client = only(tracer)
        assert (server.tags["http.rsp.status"], client.tags["http.rsp.status"]) == ("101", "101")
        assert server.duration == pytest.approx(2.0)


# --- errors


def test_a_name_that_leads_nowhere_gives_the_servers_span_alone() -> None:
    tracer = FakeTracer()
    with Mesh(tracers=[tracer]) as mesh:
        mesh.names.tree(Path.of("svc", "web")).set(NEG)
        mesh.caller().get().expect(b"HTTP/1.1 502 ")
        (server,) = only(tracer)
        assert (server.tags["namer.failure"], server.tags["io.buoyant.router.Failure"]) == ("Unbound", "ClientAcquisition")
        assert (server.tags["http.rsp.status"], server.failed) == ("502", True)
        assert "namer.success" not in words(server)
        assert server.tags["error"].startswith("Unbound: Unable to route request! service name: /svc/web; outcome: ")


def test_a_name_that_leads_nowhere_tells_which_names_were_tried() -> None:
    error = Unbound(
        name="/svc/web",
        outcome="neg",
        base=("/svc => /a | /b",) * 100,
        steps=("/svc/web by /svc => /a | /b: the first of these", "  1. /a/web: no such name", "  2. /b/web: no such name"),
        failures=("Consul at 127.0.0.1:8500:\nno answer",),
    )
    assert worded(error) == (
        "Unbound: Unable to route request! service name: /svc/web; outcome: neg; failing sources: Consul at 127.0.0.1:8500: no answer; "
        "resolution: /svc/web by /svc => /a | /b: the first of these; 1. /a/web: no such name; 2. /b/web: no such name"
    )
    assert len(worded(attrs.evolve(error, steps=("/svc/" + "x" * 300,) * 30))) == LONGEST_ERROR


def test_a_request_without_a_name_says_so() -> None:
    tracer = FakeTracer()
    with Mesh("identifier: {kind: io.l5d.header}", tracers=[tracer]) as mesh:
        mesh.caller().get().expect(b"HTTP/1.1 400 ")
        (server,) = only(tracer)
        assert server.tags["io.buoyant.router.Failure"] == "Identification"
        assert server.tags["error"] == "Unidentified: l5d-name header is absent"
        assert "service" not in server.tags


def test_an_attempt_that_takes_too_long_failed_without_an_answer() -> None:
    tracer = FakeTracer()
    with Mesh("client: {requestAttemptTimeoutMs: 200}", tracers=[tracer]) as mesh:
        caller, upstream, _ = asked(mesh)
        pass_time(mesh, 0.3)
        caller.expect(b"HTTP/1.1 503 ")
        server, client = only(tracer)
        assert client.trace.span == told(upstream).span
        assert client.tags["error"].startswith("AttemptTimeout: ")
        assert "http.rsp.status" not in client.tags
        assert (server.tags["http.rsp.status"], server.tags["io.buoyant.router.Failure"]) == ("503", "Service")


def test_an_answer_that_breaks_off_failed_with_the_status_that_it_had() -> None:
    tracer = FakeTracer()
    with Mesh(tracers=[tracer]) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 100\r\n\r\nabc")
        caller.expect(b"abc")
        upstream.close()
        caller.expect_end()
        server, client = only(tracer)
        assert (client.tags["http.rsp.status"], client.failed, server.failed) == ("206", True, True)
        assert client.tags["error"].startswith("UpstreamClosed: ")


def test_a_caller_that_goes_away_ends_both_spans() -> None:
    tracer = FakeTracer()
    with Mesh(tracers=[tracer]) as mesh:
        caller, _, _ = asked(mesh)
        caller.close()
        mesh.until(lambda: tracer.requests)
        server, client = only(tracer)
        assert (server.failed, client.failed) == (True, True)
        assert server.tags["error"].startswith("CallerGone")
        assert "http.rsp.status" not in server.tags


def test_a_caller_that_goes_away_while_its_name_is_bound_closes_the_binding() -> None:
    tracer = FakeTracer()
    with Mesh(tracers=[tracer]) as mesh:
        caller = mesh.caller().get()
        mesh.settle()
        caller.close()
        mesh.until(lambda: tracer.requests)
        assert words(only(tracer)[0]) == ["namer.closed"]


class BrokenTracer(FakeTracer):
    def record(self, spans: tuple[Span, ...]) -> None:
        raise RuntimeError("defect of a plug-in")


def test_a_tracer_that_raises_costs_neither_the_others_nor_the_place_of_the_request() -> None:
    tracer = FakeTracer()
    with Mesh(server="maxConcurrentRequests: 1", tracers=[BrokenTracer(), tracer]) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(OK)
        caller.expect(b"ok")
        caller.get()
        upstream.expect(b"\r\n\r\n", 2)
        assert len(tracer.requests) == 1
        upstream.send(OK)
        caller.expect(b"ok", 2)
        assert len(tracer.requests) == 2


# --- sampling


@pytest.mark.parametrize(("rate", "flags"), [(1.0, SAMPLING_KNOWN | SAMPLED), (0.0, SAMPLING_KNOWN)])
def test_the_decision_of_a_tracer_is_told_to_the_next_hop(rate: float, flags: int) -> None:
    tracer = FakeTracer(rate)
    with Mesh(tracers=[tracer]) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(OK)
        caller.expect(b"ok")
        assert told(upstream).flags == flags
        assert len(tracer.requests) == rate


def test_a_tracer_that_looks_on_leaves_the_decision_open() -> None:
    tracer = FakeTracer(decides=False)
    with Mesh(tracers=[tracer]) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(OK)
        caller.expect(b"ok")
        assert told(upstream).is_sampled is None
        assert only(tracer)[1].trace.span == told(upstream).span


@pytest.mark.parametrize(("sample", "requests"), [(b"1", 1), (b"0", 0)])
def test_what_the_caller_decided_is_obeyed(sample: bytes, requests: int) -> None:
    tracer = FakeTracer(rate=1.0 - requests)
    with Mesh(tracers=[tracer]) as mesh:
        caller, upstream, _ = asked(mesh, b"GET / HTTP/1.1\r\nHost: web\r\nl5d-sample: " + sample + b"\r\n\r\n")
        upstream.send(OK)
        caller.expect(b"ok")
        assert told(upstream).is_sampled is bool(requests)
        assert len(tracer.requests) == requests


def test_every_tracer_gets_the_same_spans() -> None:
    one, two = FakeTracer(), FakeTracer(decides=False)
    with Mesh(tracers=[one, two]) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(OK)
        caller.expect(b"ok")
        assert [(ids(span), attrs.evolve(span, trace=ROOT)) for span in only(one)] == [
            (ids(span), attrs.evolve(span, trace=ROOT)) for span in only(two)
        ]


class KeepingTracer:
    """Keeps what it gets, and does not look at it."""

    rate, decides = 1.0, False

    def __init__(self) -> None:
        self.kept: list[Sequence[Span]] = []
        self.record = self.kept.append


def reachable(root: object) -> Iterator[object]:
    """All objects that ``root`` leads to but for modules, classes and what functions have around them."""
    seen, left = set[int](), [root]
    while left:
        item = left.pop()
        if id(item) not in seen and not isinstance(item, (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType)):
            seen.add(id(item))
            yield item
            left += gc.get_referents(item)


def test_spans_are_made_when_somebody_looks_whatever_has_become_of_the_connection() -> None:
    tracer = KeepingTracer()
    with Mesh(tracers=[tracer]) as mesh:
        caller, upstream, _ = asked(mesh, b"GET /first?q HTTP/1.1\r\nHost: web\r\n\r\n")
        upstream.send(OK)
        caller.expect(b"ok")
        caller.get(b"/second")
        upstream.expect(b"\r\n\r\n", 2)
        upstream.send(FAILED)
        caller.expect(b"HTTP/1.1 500 ")
        first, second = tracer.kept
        assert [span.tags["http.uri"] for spans in (first, second) for span in spans] == ["/first", "/first", "/second", "/second"]
        assert [first[0].tags["http.rsp.status"], second[0].tags["http.rsp.status"]] == ["200", "500"]
        assert len(first) == len(list(first)) == 2
        assert [ids(span) for span in first] == [ids(span) for span in first[:]]


def test_what_is_kept_of_a_request_leads_to_no_secret_and_no_exchange() -> None:
    tracer = KeepingTracer()
    with Mesh(tracers=[tracer]) as mesh:
        fields = b"Authorization: Bearer SECRET\r\nCookie: SECRET\r\nContent-Length: 6\r\n"
        caller, upstream, _ = asked(mesh, b"POST /a?SECRET HTTP/1.1\r\nHost: web\r\n" + fields + b"\r\nSECRET", b"SECRET")
        upstream.send(b"HTTP/1.1 200 OK\r\nSet-Cookie: SECRET\r\nContent-Length: 6\r\n\r\nSECRET")
        caller.expect(b"\r\n\r\nSECRET")
        (kept,) = tracer.kept
        held = list(reachable(kept))
        assert not [item for item in held if isinstance(item, Exchange)]
        assert not [item for item in held if isinstance(item, (bytes, str)) and "SECRET" in str(item)]


def test_the_memory_that_a_kept_request_is_said_to_take_is_not_less_than_it_takes() -> None:
    tracer = KeepingTracer()
    with Mesh(RETRYING, tracers=[tracer]) as mesh:
        caller, upstream, _ = asked(mesh, b"GET /" + b"a" * 900 + b" HTTP/1.1\r\nHost: web\r\n\r\n")
        upstream.send(FAILED)
        upstream.expect(b"\r\n\r\n", 2)
        upstream.send(OK)
        caller.expect(b"ok")
        (kept,) = tracer.kept
        assert isinstance(kept, LateSpans)
        shared = {id(item) for item in reachable(mesh.router)}
        own = [item for item in reachable(kept) if id(item) not in shared and not isinstance(item, Address)]
        assert sum(map(sys.getsizeof, own)) <= kept.size


# --- the edge


def test_an_endpoint_outside_is_told_nothing_and_its_attempt_is_traced() -> None:
    tracer = FakeTracer()
    parent = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nx-b3-sampled: 1\r\n"
    with Mesh("client: {stripContext: true}", tracers=[tracer]) as mesh:
        caller, upstream, _ = asked(mesh, b"GET / HTTP/1.1\r\nHost: web\r\n" + parent + b"\r\n")
        upstream.send(NACK)
        upstream.expect(b"\r\n\r\n", 2)
        upstream.send(OK)
        caller.expect(b"ok")
        sent = upstream.got.lower()
        assert not [name for name in (b"trace", b"b3-", b"l5d-") if name in sent]
        server, *clients = only(tracer)
        assert len(clients) == 2
        assert server.trace.parent == 0xB7AD6B7169203331


def test_callers_of_a_server_that_clears_context_cannot_have_anything_sampled() -> None:
    tracer = FakeTracer(rate=0.0)
    fields = SAMPLE + b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
    with Mesh(server="clearContext: true", tracers=[tracer]) as mesh:
        caller, upstream, _ = asked(mesh, b"GET / HTTP/1.1\r\nHost: web\r\n" + fields + b"\r\n")
        upstream.send(OK)
        caller.expect(b"ok")
        assert not tracer.requests
        assert b"traceparent" not in upstream.got


@pytest.mark.parametrize("kind", ["io.l5d.zipkin", "io.meshgw.w3c"])
def test_a_requeue_tells_its_id_in_every_form(kind: str) -> None:
    tracer = FakeTracer()
    with Mesh(f"tracePropagator: {{kind: {kind}}}", tracers=[tracer]) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(NACK)
        upstream.expect(b"\r\n\r\n", 2)
        upstream.send(OK)
        caller.expect(b"ok")
        _, first, second = only(tracer)
        before, after = upstream.got.split(b"\r\n\r\n")[:2]
        for head, mine, other in ((before, first, second), (after, second, first)):
            assert b"%016x" % mine.trace.span in head
            assert b"%016x" % other.trace.span not in head


# --- HTTP/2


def test_a_call_of_grpc_has_its_status_in_its_spans_and_retries_like_others() -> None:
    tracer = FakeTracer()
    with H2Mesh("service: {responseClassifier: {kind: io.l5d.h2.grpc.default}}", tracers=[tracer]) as mesh:
        caller, upstream = called(mesh)
        upstream.send(f.headers(1, (*ANSWER, *trailers(14))))
        upstream.until(lambda side: side.has_section(3))
        upstream.send(f.headers(3, ANSWER, ends=False) + f.data(3, b"\0\0\0\0\2ok") + f.headers(3, trailers(0)))
        caller.until(lambda side: side.is_whole(1))
        mesh.until(lambda: tracer.requests)
        server, first, second = only(tracer)
        assert (server.name, server.tags["http.req.version"], server.tags["http.uri"]) == ("POST", "HTTP/2", "/pkg.Svc/Do")
        assert [span.tags.get("grpc.status") for span in (server, first, second)] == ["0", "14", "0"]
        assert [span.failed for span in (server, first, second)] == [False, True, False]
        assert second.tags["meshgw.attempt.cause"] == "retry"
        for span, stream in ((first, 1), (second, 3)):
            place = decode_trace(upstream.sections[stream][0]["l5d-ctx-trace"].encode())
            assert place is not None
            assert place.span == span.trace.span
