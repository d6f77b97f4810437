"""Traces through a chain of routers of a running gateway: one tree of spans, told in every form of header, decided about once."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from opentelemetry.propagators.b3 import B3MultiFormat
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fakes.collectors import ZipkinServer
from fakes.http_api import ApiServer, Reply, Request
from support.gateways import LOOPBACK, SECONDS, curl, gateway
from support.grpc_peers import SERVICE, GrpcService, caller, wish
from support.processes import Running, free_port, wait_until

pytestmark = pytest.mark.integration

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"traceparent: 00-{TRACE}-{SPAN}-01"
ONE_RETRY = {
    "responseClassifier": {"kind": "io.l5d.http.retryableRead5XX"},
    "retries": {"budget": {"minRetriesPerSec": 0, "percentCanRetry": 1.0, "ttlSecs": 10}},
}
ALL = {"kind": "io.l5d.zipkin", "protocol": "http", "host": LOOPBACK, "sampleRate": 1.0}


class Backend:
    """A service that writes down the fields of its requests. ``failing`` is how many of the next are answered 503."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.failing = 0
        self.server = ApiServer(self._answer, free_port())

    def _answer(self, request: Request) -> Reply:
        self.seen.append(request.headers)
        self.failing -= 1
        return Reply(503 if self.failing >= 0 else 200, b"{}")

    @property
    def told(self) -> list[tuple[str, str]]:
        """Trace and span of each request, in hexadecimal, by what ``l5d-ctx-trace`` tells."""
        places = [b64decode(fields["l5d-ctx-trace"]) for fields in self.seen]
        return [((place[32:] + place[16:24]).hex(), place[:8].hex()) for place in places]


class Chain:
    """A gateway whose router ``out`` leads to its router ``in``, that to a backend; and routers of other forms before the backend."""

    def __init__(self, running: Running, stack: ExitStack, *telemetry: dict[str, Any], **top: Any) -> None:
        self.backend = Backend()
        self.zipkin = ZipkinServer(free_port())
        for server in (self.backend.server, self.zipkin):
            server.start()
            stack.callback(server.stop)
        self.ports = {label: free_port() for label in ("out", "in", "b3", "w3c", "edge")}
        leads = {"web": self.backend.server.port, "gone": free_port()}
        self._dtab = ";".join(f"/svc/{name} => /$/inet/{LOOPBACK}/{port}" for name, port in leads.items())
        self.gateway = gateway(
            running,
            port=self.ports["out"],
            top={
                "telemetry": [one if one is not ALL else {**ALL, "port": self.zipkin.port} for one in telemetry],
                "routers": [
                    self._router("out", dtab=f"/svc => /$/inet/{LOOPBACK}/{self.ports['in']}"),
                    self._router("in", service=ONE_RETRY),
                    self._router("b3", tracePropagator={"kind": "io.l5d.zipkin"}),
                    self._router("w3c", tracePropagator={"kind": "io.meshgw.w3c"}),
                    self._router("edge", {"clearContext": True}),
                ],
                **top,
            },
        )

    def _router(self, label: str, server: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        servers = [{"port": self.ports[label], **(server or {})}]
        return {"protocol": "http", "label": label, "dtab": self._dtab, "servers": servers, **more}

    def ask(self, label: str, *lines: str, target: str = "/", host: str = "web") -> int:
        """The status of an answer to curl."""
        fields = [word for line in (f"Host: {host}", *lines) for word in ("-H", line)]
        return curl(*fields, f"http://{LOOPBACK}:{self.ports[label]}{target}").status

    def tree(self, count: int) -> list[dict[str, Any]]:
        """The ``count`` spans that arrived since the last call, in the order of their beginnings."""
        assert wait_until(lambda: len(self.zipkin.spans) >= count, SECONDS), self.zipkin.spans
        spans, self.zipkin.spans = self.zipkin.spans, []
        assert len(spans) == count
        return sorted(spans, key=lambda span: (span["timestamp"], span["kind"] == "CLIENT"))


def who(span: dict[str, Any]) -> tuple[str, str]:
    return span["localEndpoint"]["serviceName"], span["kind"]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """One for the tests that leave it as it was."""
    with ExitStack() as stack:
        yield Chain(stack.enter_context(Running(tmp_path_factory.mktemp("traced"))), stack, ALL)


@pytest.fixture
def chain(traced: Chain) -> Chain:
    traced.backend.seen.clear()
    assert not traced.zipkin.spans
    return traced


def test_spans_of_a_chain_of_routers_are_one_tree(chain: Chain) -> None:
    assert chain.ask("out") == 200
    spans = chain.tree(4)
    assert [who(span) for span in spans] == [("out", "SERVER"), ("out", "CLIENT"), ("in", "SERVER"), ("in", "CLIENT")]
    assert len({span["traceId"] for span in spans}) == 1
    assert "parentId" not in spans[0]
    for above, below in zip(spans, spans[1:], strict=False):
        assert below["parentId"] == above["id"]
    ((trace, span),) = chain.backend.told
    assert (trace, span) == (spans[0]["traceId"], spans[3]["id"])
    assert chain.backend.seen[0]["l5d-reqid"] == trace
    assert spans[1]["remoteEndpoint"]["port"] == spans[2]["localEndpoint"]["port"] == chain.ports["in"]


def test_retries_and_failed_connects_are_spans_below_their_router(chain: Chain) -> None:
    chain.backend.failing = 1
    assert chain.ask("out", target="/a?secret=1") == 200
    spans = chain.tree(5)
    inner, attempts = spans[2], spans[3:]
    assert {span["parentId"] for span in attempts} == {inner["id"]}
    assert [span["id"] for span in attempts] == [span for _, span in chain.backend.told]
    assert [span["tags"]["meshgw.attempt"] for span in attempts] == ["1", "2"]
    assert attempts[1]["tags"]["meshgw.attempt.cause"] == "retry"
    assert "secret" not in str(spans)

    assert chain.ask("in", host="gone") == 502
    server, *attempts = chain.tree(7)
    assert [span["tags"].get("meshgw.attempt.cause") for span in attempts] == [None, "requeue", "requeue", "retry", "requeue", "requeue"]
    assert len({span["id"] for span in attempts}) == 6
    assert server["tags"]["io.buoyant.router.Failure"] == "ClientAcquisition"


def test_a_traceparent_is_continued_through_the_whole_chain(chain: Chain) -> None:
    assert chain.ask("out", TRACEPARENT, "tracestate: vendor=1") == 200
    spans = chain.tree(4)
    assert {span["traceId"] for span in spans} == {TRACE}
    assert spans[0]["parentId"] == SPAN
    (fields,) = chain.backend.seen
    assert fields["traceparent"] == f"00-{TRACE}-{spans[3]['id']}-01"
    assert fields["tracestate"] == "vendor=1"
    assert chain.backend.told == [(TRACE, spans[3]["id"])]


def test_opentelemetry_and_zipkin_read_what_services_are_told(chain: Chain) -> None:
    for label, reader in (("w3c", TraceContextTextMapPropagator()), ("b3", B3MultiFormat())):
        chain.backend.seen.clear()
        assert chain.ask(label) == 200
        _, client = chain.tree(2)
        read = get_current_span(reader.extract(chain.backend.seen[0])).get_span_context()
        assert f"{read.trace_id:x}".endswith(client["traceId"].lstrip("0"))
        assert (f"{read.span_id:016x}", read.trace_flags.sampled) == (client["id"], True)


def test_a_callers_b3_is_continued_single_or_not(chain: Chain) -> None:
    several = (f"X-B3-TraceId: {TRACE}", f"X-B3-SpanId: {SPAN}", "X-B3-Sampled: 1")
    for fields in ((f"b3: {TRACE}-{SPAN}-1",), several):
        chain.backend.seen.clear()
        assert chain.ask("b3", *fields) == 200
        server, client = chain.tree(2)
        assert (server["traceId"], server["parentId"], client["parentId"]) == (TRACE, SPAN, server["id"])
        (told,) = chain.backend.seen
        assert (told["x-b3-traceid"], told["x-b3-spanid"], told["x-b3-parentspanid"]) == (TRACE, client["id"], server["id"])
        assert ("b3" in told) == (len(fields) == 1)


def test_an_untrusted_caller_chooses_neither_trace_nor_sampling(chain: Chain) -> None:
    assert chain.ask("edge", TRACEPARENT, f"b3: {TRACE}-{SPAN}-1", "l5d-sample: 0") == 200
    server, _ = chain.tree(2)
    assert server["traceId"] != TRACE
    assert not {"traceparent", "b3"} & chain.backend.seen[0].keys()


def test_the_first_decision_counts_for_the_whole_chain(running: Running) -> None:
    few, looking = {**ALL, "sampleRate": 0.0}, {"kind": "io.l5d.recentRequests", "sampleRate": 1.0, "capacity": 20}
    with ExitStack() as stack:
        chain = Chain(running, stack, few | {"port": 1}, looking)
        chain.ask("out")
        flags = b64decode(chain.backend.seen[0]["l5d-ctx-trace"])[31]
        assert flags == 2, "decided, and not sampled"
        rows = chain.gateway.admin("/requests.json").text
        assert rows.count('"in"') >= 1, "who only looks on sees it all the same"
        chain.ask("out", "l5d-sample: 1")
        assert b64decode(chain.backend.seen[1]["l5d-ctx-trace"])[31] == 6


def test_tracing_is_turned_off_and_on_in_every_worker(running: Running) -> None:
    with ExitStack() as stack:
        chain = Chain(running, stack, ALL, workers=2)
        # one that is still starting is told as soon as it has started, which is after its first requests
        assert wait_until(lambda: chain.gateway.process.output().count(" serves, pid ") == 2, SECONDS)

        def turn(what: str) -> None:
            assert chain.gateway.admin(f"/admin/tracing?{what}=true", b"", method="POST").status == 200

        turn("disable")
        for _ in range(6):
            assert chain.ask("in") == 200
        turn("enable")
        for _ in range(6):
            assert chain.ask("in") == 200
        chain.tree(12)
        assert len({trace for trace, _ in chain.backend.told}) == 12


def test_calls_of_grpc_are_traced_to_their_status(running: Running) -> None:
    zipkin = ZipkinServer(free_port())
    zipkin.start()
    try:
        with GrpcService() as service:
            router = {
                "protocol": "h2",
                "identifier": {"kind": "io.l5d.header.path", "segments": 2},
                "tracePropagator": {"kind": "io.meshgw.w3c"},
                "service": {"responseClassifier": {"kind": "io.l5d.h2.grpc.default"}},
                "dtab": f"/svc => /$/inet/{LOOPBACK}/{service.port}",
            }
            gw = gateway(running, {}, router=router, top={"telemetry": [{**ALL, "port": zipkin.port}]})
            service.failing = 1
            with caller(gw.port) as channel:
                channel.unary()(wish(), timeout=SECONDS)
                with pytest.raises(grpc.RpcError):
                    channel.unary()(wish(code=5), timeout=SECONDS)
            assert wait_until(lambda: len(zipkin.spans) == 5, SECONDS)
            first, second = zipkin.spans[:3], zipkin.spans[3:]
            assert [span["tags"]["grpc.status"] for span in (*first, *second)] == ["0", "14", "0", "5", "5"]
            assert first[0]["tags"]["http.uri"] == f"/{SERVICE}/UnaryCall"
            told = [re.fullmatch("00-([0-9a-f]{32})-([0-9a-f]{16})-01", str(seen["traceparent"])) for seen in service.seen]
            assert [match and match[2] for match in told] == [span["id"] for span in (*first[1:], *second[1:])]
            assert [match and match[1] for match in told] == [span["traceId"] for span in (*first[1:], *second[1:])]
    finally:
        zipkin.stop()


def test_the_way_of_a_trace_request_is_told_by_every_router(chain: Chain) -> None:
    words = ("-X", "TRACE", "-H", "Host: web", "-H", "l5d-add-context: true", "-H", "Max-Forwards: 1")
    answer = curl(*words, f"http://{LOOPBACK}:{chain.ports['out']}/")
    assert re.findall("--- Router: (.*) ---", answer.text) == ["in", "out"]
    assert f"selected address: {LOOPBACK}:{chain.backend.server.port}" in answer.text
    assert not chain.backend.seen
    assert [who(span) for span in chain.tree(3)] == [("out", "SERVER"), ("out", "CLIENT"), ("in", "SERVER")]
