"""Zipkin's v2 spans, held against the schema of its API."""

from __future__ import annotations

import json
from typing import Any

import attrs
import jsonschema
from hypothesis import given
from hypothesis import strategies as st

from fakes.spans import STARTED, TRACE, client_span, server_span, traced
from fakes.zipkin_schema import V2_SPANS
from meshgw.telemetry.spans import Span
from meshgw.telemetry.zipkin_json import encode_spans
from meshgw.wire.context import TraceId


def read(*spans: Span) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(encode_spans(spans))
    jsonschema.validate(found, V2_SPANS)
    return found


def test_server_and_attempt_make_a_tree() -> None:
    server, client = read(*traced())
    assert "parentId" not in server
    assert (server["kind"], client["kind"]) == ("SERVER", "CLIENT")
    assert client["parentId"] == server["id"] == f"{TRACE + 1:016x}"
    assert client["traceId"] == server["traceId"]


def test_span_has_times_endpoints_and_tags() -> None:
    (found,) = read(server_span())
    assert (found["timestamp"], found["duration"]) == (round((STARTED + 1) * 1e6), 25_000)
    assert found["localEndpoint"] == {"serviceName": "web", "ipv4": "192.0.2.1", "port": 4140}
    assert found["remoteEndpoint"] == {"ipv4": "198.51.100.7", "port": 50123}
    assert found["tags"] == dict(server_span().tags)
    assert "annotations" not in found and "debug" not in found


def test_long_trace_ids_have_32_digits() -> None:
    (found,) = read(server_span(high=0xAB))
    assert found["traceId"] == f"00000000000000ab{TRACE + 1:016x}"


def test_failure_is_an_error_tag_which_the_spans_own_text_replaces() -> None:
    failed, told = read(server_span(failed=True), server_span(failed=True, tags={"error": "no hosts available"}))
    assert (failed["tags"]["error"], told["tags"]["error"]) == ("503", "no hosts available")


def test_events_and_debug_are_told() -> None:
    (found,) = read(server_span(events=((STARTED, "finagle.retry"),), trace=TraceId(1, 1, 1, 7)))
    assert found["annotations"] == [{"timestamp": round(STARTED * 1e6), "value": "finagle.retry"}]
    assert found["debug"] is True


def test_what_is_no_ip_address_is_left_out() -> None:
    (found,) = read(server_span(local=None, peer=("unix", 0)))
    assert found["localEndpoint"] == {"serviceName": "web"}
    assert found["remoteEndpoint"] == {"port": 0}


def test_work_of_no_time_lasts_a_microsecond() -> None:
    (found,) = read(attrs.evolve(server_span(), duration=0.0))
    assert found["duration"] == 1


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=4), st.text(max_size=20))
def test_any_text_is_kept(tags: dict[str, str], name: str) -> None:
    made = server_span(name=name)
    (found,) = read(
        attrs.evolve(made, tags=tags),
    )
    assert (found["tags"], found["name"]) == (tags, name)


def test_attempts_of_one_request_differ_in_their_ids() -> None:
    found = read(*traced(attempts=3))
    assert len({one["id"] for one in found}) == 4
    assert {one["parentId"] for one in found[1:]} == {found[0]["id"]}


def test_client_span_names_its_endpoint() -> None:
    (found,) = read(client_span(server_span()))
    assert found["remoteEndpoint"] == {"ipv4": "10.0.0.2", "port": 8001}
