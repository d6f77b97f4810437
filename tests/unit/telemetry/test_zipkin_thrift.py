"""Zipkin's v1 spans and Scribe's call, read back by another Thrift library."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.spans import STARTED, TRACE, client_span, server_span, traced
from fakes.zipkin_schema import decode_call, decode_span, encode_exception, encode_reply
from meshgw.telemetry.spans import Span
from meshgw.telemetry.zipkin_thrift import OK, TRY_LATER, MalformedReply, decode_reply, encode_call, encode_span
from meshgw.wire.context import TraceId

STARTED_US = round((STARTED + 1) * 1e6)


def read(span: Span) -> Any:
    return decode_span(encode_span(span))


def test_server_span_has_ids_times_and_its_two_annotations() -> None:
    span = read(server_span())
    assert (span.trace_id, span.id, span.parent_id, span.name) == (TRACE + 1, TRACE + 1, None, "GET")
    assert (span.timestamp, span.duration) == (STARTED_US, 25_000)
    assert [(one.value, one.timestamp) for one in span.annotations] == [("sr", STARTED_US), ("ss", STARTED_US + 25_000)]
    assert {(one.host.service_name, one.host.ipv4, one.host.port) for one in span.annotations} == {("web", -1073741311, 4140)}
    assert span.debug is False and span.trace_id_high is None


def test_client_span_tells_whose_child_it_is_and_whom_it_spoke_to() -> None:
    above = server_span()
    span = read(client_span(above))
    assert (span.trace_id, span.id, span.parent_id) == (TRACE + 1, 0xA1, TRACE + 1)
    assert [one.value for one in span.annotations] == ["cs", "cr"]
    address = next(one for one in span.binary_annotations if one.key == "sa")
    assert (address.value, address.annotation_type) == (b"\x01", 0)
    assert (address.host.ipv4, address.host.port) == (0x0A000002, 8001)


def test_server_span_tells_who_called() -> None:
    address = next(one for one in read(server_span()).binary_annotations if one.key == "ca")
    assert address.host.port == 50123 - 65536  # as a signed number


def test_tags_become_binary_annotations_of_text() -> None:
    span = server_span()
    facts = {one.key: one.value for one in read(span).binary_annotations if one.annotation_type == 6}
    assert facts == {name: value.encode() for name, value in span.tags.items()}


def test_failure_is_told_as_error() -> None:
    facts = {one.key: one.value for one in read(server_span(failed=True)).binary_annotations}
    assert facts["error"] == b"503"


def test_events_are_annotations_between_begin_and_end() -> None:
    span = read(server_span(events=((STARTED + 1.001, "finagle.retry"),)))
    assert [(one.value, one.timestamp - STARTED_US) for one in span.annotations] == [("sr", 0), ("finagle.retry", 1000), ("ss", 25_000)]


def test_high_half_of_a_long_trace_id_and_debug_are_fields_of_their_own() -> None:
    trace = TraceId(2**64 - 1, 1, 2**63, 1 | 6, high=2**64 - 2)
    span = read(attrs.evolve(server_span(), trace=trace))
    assert (span.id, span.parent_id, span.trace_id, span.trace_id_high, span.debug) == (-1, 1, -(2**63), -2, True)


def test_ipv6_address_is_sixteen_bytes() -> None:
    host = read(server_span(local=("2001:db8::1", 4140))).annotations[0].host
    assert (host.ipv4, host.ipv6) == (0, bytes.fromhex("20010db8000000000000000000000001"))


@pytest.mark.parametrize("local", [None, ("/run/meshgw.sock", 0)])
def test_unknown_address_is_zero(local: Any) -> None:
    host = read(server_span(local=local)).annotations[0].host
    assert (host.ipv4, host.port, host.service_name) == (0, 0, "web")


def test_call_carries_all_spans_with_its_number() -> None:
    spans = [*traced(1, attempts=2), *traced(2)]
    sequence, found = decode_call(encode_call(spans, 77))
    assert sequence == 77
    assert [span.id for span in found] == [span.trace.span for span in spans]


texts = st.text(max_size=30)
ids = st.integers(1, 2**64 - 1)


@given(st.dictionaries(texts, texts, max_size=5), texts, texts, ids, ids, st.floats(0, 4e9), st.floats(0, 1e6))
def test_any_text_and_number_can_be_read_back(
    tags: dict[str, str], name: str, router: str, span: int, trace: int, started: float, duration: float
) -> None:
    made = server_span(trace=TraceId(span, 1, trace, 6), name=name, router=router, started=started, duration=duration)
    found = read(attrs.evolve(made, tags=tags, peer=None))
    assert found.name == name
    assert found.id % 2**64 == span and found.trace_id % 2**64 == trace
    assert found.annotations[0].host.service_name == router
    assert {one.key: one.value.decode() for one in found.binary_annotations} == tags


def test_bytes_that_were_no_text_do_not_spoil_the_span() -> None:
    found = read(server_span(tags={"http.uri": "/caf\udce9"}))
    assert b"/caf?" in [one.value for one in found.binary_annotations]


@pytest.mark.parametrize("code", [OK, TRY_LATER])
def test_reply_has_its_code(code: int) -> None:
    assert decode_reply(encode_reply(5, code)[4:], 5) == code


def test_reply_to_another_call_is_refused() -> None:
    with pytest.raises(MalformedReply, match="another call"):
        decode_reply(encode_reply(5, OK)[4:], 6)


def test_exception_is_told_in_the_collectors_words() -> None:
    with pytest.raises(MalformedReply, match="the collector says: Unknown function Log"):
        decode_reply(encode_exception(5, "Unknown function Log")[4:], 5)


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        assert isinstance(decode_reply(data, 0), int)
    except MalformedReply:
        pass


@given(st.integers(0, 40), st.integers(0, 255))
def test_no_damage_to_a_reply_raises_anything_else(at: int, value: int) -> None:
    reply = bytearray(encode_reply(5, OK)[4:])
    reply[at % len(reply)] = value
    try:
        assert isinstance(decode_reply(bytes(reply), 5), int)
    except MalformedReply:
        pass
