"""Spans for Zipkin's HTTP collector: a list of v2 spans as JSON.

Source: Zipkin's API v2 (zipkin2-api.yaml, ``POST /api/v2/spans``). Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from meshgw.telemetry.span_words import ERROR, error_of, extent, is_debug, microseconds, parent_of, trace_text
from meshgw.telemetry.spans import Endpoint, Span


def encode_spans(spans: Sequence[Span]) -> bytes:
    """The body of a request."""
    return json.dumps([_span(span) for span in spans], separators=(",", ":")).encode()


def _span(span: Span) -> dict[str, Any]:
    trace, error, (started, duration) = span.trace, error_of(span), extent(span)
    parent = parent_of(trace)
    found: dict[str, Any] = {
        "traceId": trace_text(trace),
        "id": f"{trace.span:016x}",
        "kind": "CLIENT" if span.is_client else "SERVER",
        "name": span.name,
        "timestamp": started,
        "duration": duration,
        "localEndpoint": {"serviceName": span.router, **(_endpoint(span.local) if span.local is not None else {})},
        "tags": span.tags if not error else {ERROR: error, **span.tags},
    }
    if parent is not None:
        found["parentId"] = f"{parent:016x}"
    if span.peer is not None:
        found["remoteEndpoint"] = _endpoint(span.peer)
    if span.events:
        found["annotations"] = [{"timestamp": microseconds(moment), "value": word} for moment, word in span.events]
    if is_debug(trace):
        found["debug"] = True
    return found


@lru_cache(maxsize=1024)  # callers and endpoints come again and again, and reading an address takes longer than all else of a span
def _endpoint(endpoint: Endpoint) -> Mapping[str, Any]:
    host, port = endpoint
    try:
        version = ip_address(host).version
    except ValueError:
        return {"port": port}
    return {f"ipv{version}": host, "port": port}
