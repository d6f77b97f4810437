"""OpenTelemetry's request and answers, read and written by the official messages."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from fakes.spans import STARTED, TRACE, client_span, server_span, traced
from meshgw.telemetry.otlp_spans import PartialSuccess, encode_spans, read_partial_success, read_status
from meshgw.telemetry.spans import Span
from meshgw.wire.context import TraceId
from meshgw.wire.protobuf import block, number


def request(*spans: Span, service: str | None = None, resource: dict[str, str] | None = None) -> Any:
    found = ExportTraceServiceRequest()
    encoded = encode_spans(spans, service, resource or {}, "1.2")
    assert found.ParseFromString(encoded) == len(encoded)
    assert not len(UnknownFieldSet(found))
    return found


def read(span: Span) -> Any:
    found = request(span).resource_spans[0].scope_spans[0].spans[0]
    assert not len(UnknownFieldSet(found))
    return found


def facts(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def test_ids_times_and_kind_are_those_of_the_span() -> None:
    found = read(server_span(high=0xAB))
    assert found.trace_id.hex() == f"00000000000000ab{TRACE + 1:016x}"
    assert (found.span_id.hex(), found.parent_span_id) == (f"{TRACE + 1:016x}", b"")
    assert found.kind == OtlpSpan.SPAN_KIND_SERVER
    assert found.start_time_unix_nano == round((STARTED + 1) * 1e6) * 1000
    assert found.end_time_unix_nano - found.start_time_unix_nano == 25_000_000
    assert found.flags == 1


def test_short_trace_id_is_filled_up_with_zeros() -> None:
    assert read(server_span()).trace_id.hex() == f"{0:016x}{TRACE + 1:016x}"


def test_attempt_is_a_client_span_below_the_servers() -> None:
    above, attempt = request(*traced()).resource_spans[0].scope_spans[0].spans
    assert attempt.kind == OtlpSpan.SPAN_KIND_CLIENT
    assert attempt.parent_span_id == above.span_id


def test_server_span_has_the_names_of_the_conventions_beside_linkerds() -> None:
    found = facts(read(server_span()).attributes)
    assert found == {
        **server_span().tags,
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.path": "/users/1",
        "url.query": "full=yes",
        "network.protocol.version": "1.1",
        "network.peer.address": "198.51.100.7",
        "network.peer.port": 50123,
        "client.address": "198.51.100.7",
        "server.address": "users",
    }


def test_client_span_names_the_endpoint_as_the_server() -> None:
    found = facts(read(client_span(server_span())).attributes)
    assert (found["server.address"], found["server.port"]) == ("10.0.0.2", 8001)
    assert (found["network.peer.address"], found["network.peer.port"]) == ("10.0.0.2", 8001)
    assert "client.address" not in found


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [("web:8080", "web", 8080), ("[2001:db8::1]:80", "2001:db8::1", 80), ("[2001:db8::1]", "2001:db8::1", None), ("web", "web", None)],
)
def test_host_and_port_are_told_apart(host: str, address: str, port: int | None) -> None:
    found = facts(read(server_span(tags={"http.req.host": host})).attributes)
    assert (found["server.address"], found.get("server.port")) == (address, port)


def test_method_that_is_no_common_one_is_told_as_other() -> None:
    found = facts(read(server_span(tags={"http.req.method": "BREW"})).attributes)
    assert (found["http.request.method"], found["http.request.method_original"]) == ("_OTHER", "BREW")


def test_failure_has_status_error_with_its_text_and_type() -> None:
    found = read(server_span(failed=True, tags={"error": "no hosts available"}))
    assert (found.status.code, found.status.message) == (2, "no hosts available")
    assert facts(found.attributes)["error.type"] == "503"
    assert not read(server_span()).HasField("status")


def test_events_are_told_with_their_moment() -> None:
    found = read(server_span(events=((STARTED, "finagle.retry"),)))
    assert [(one.name, one.time_unix_nano) for one in found.events] == [("finagle.retry", round(STARTED * 1e6) * 1000)]


def test_each_router_is_a_service() -> None:
    found = request(*traced(1), server_span(number=2, router="other"), *traced(3), resource={"host.name": "h"})
    services = {facts(one.resource.attributes)["service.name"]: len(one.scope_spans[0].spans) for one in found.resource_spans}
    assert services == {"web": 4, "other": 1}
    assert facts(found.resource_spans[0].resource.attributes)["host.name"] == "h"
    scope = found.resource_spans[0].scope_spans[0].scope
    assert (scope.name, scope.version) == ("meshgw", "1.2")


def test_configured_name_is_that_of_all_routers() -> None:
    found = request(server_span(), server_span(router="other"), service="edge")
    assert [facts(one.resource.attributes)["service.name"] for one in found.resource_spans] == ["edge", "edge"]


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=5), st.text(max_size=20), st.integers(1, 2**64 - 1))
def test_any_text_and_id_can_be_read_back(tags: dict[str, str], name: str, id: int) -> None:
    made = server_span(name=name, trace=TraceId(id, 5, id, 6, id))
    found = read(attrs.evolve(made, tags=tags, peer=None))
    assert (found.name, found.span_id, found.trace_id) == (name, id.to_bytes(8, "big"), id.to_bytes(8, "big") * 2)
    assert facts(found.attributes).items() >= tags.items() or {"http.uri", "http.req.method"} & tags.keys()


def test_partial_success_is_read() -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans, answer.partial_success.error_message = 3, "too old"
    assert read_partial_success(answer.SerializeToString()) == PartialSuccess(3, "too old")


@pytest.mark.parametrize("body", [b"", ExportTraceServiceResponse().SerializeToString(), b"{}", b"\xff"])
def test_plain_success_has_no_complaint(body: bytes) -> None:
    assert read_partial_success(body) is None


@given(st.binary(max_size=80))
def test_no_answer_raises(body: bytes) -> None:
    read_partial_success(body)
    assert read_status(body).isprintable()


def test_message_of_a_refusal_is_read_from_status_or_text() -> None:
    assert read_status(number(1, 3) + block(2, b"unknown tenant")) == "unknown tenant"
    assert read_status(b"404 page not found\n") == "404 page not found"
