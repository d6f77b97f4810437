"""Spans in OpenTelemetry's protocol: the request of its trace service, what a collector says of it, and the names its users look for.

Source: opentelemetry-proto 1.x (``trace_service.proto``, ``trace.proto``, ``resource.proto``, ``common.proto``) and the semantic
conventions for HTTP spans 1.23 and later. Linkerd's own tags go along under their names (linkerd-config spec 9.7). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

import attrs

from meshgw.telemetry.span_words import HOST, METHOD, STATUS, URI, error_of, extent, microseconds, parent_of, utf8
from meshgw.telemetry.spans import Endpoint, Span
from meshgw.wire.protobuf import MalformedMessage, block, fields, fixed32, fixed64, number, signed

SCOPE: Final = "meshgw"
_SERVER, _CLIENT = 2, 3
_STATUS_ERROR: Final = 2
_SAMPLED: Final = 1
_METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_NUMBERS: Final = {
    STATUS: "http.response.status_code",
    "http.req.content-length": "http.request.body.size",
    "http.rsp.content-length": "http.response.body.size",
    "grpc.status": "rpc.grpc.status_code",
}
_MOST_DIGITS: Final = 19
"""What an int64 can hold; lengths and statuses are as callers and services write them."""
_MOST_TOLD: Final = 160

Value = str | int


# --- the request


def encode_spans(spans: Sequence[Span], service: str | None, resource: Mapping[str, str], version: str) -> bytes:
    """An ``ExportTraceServiceRequest``. Each router is a resource of its own; ``service`` is its name in place of the router's label."""
    routers: dict[str, list[bytes]] = {}
    for span in spans:
        routers.setdefault(span.router, []).append(block(2, _span(span)))
    scope = block(1, block(1, utf8(SCOPE)) + block(2, utf8(version)))
    requests = []
    for router, encoded in routers.items():
        facts = {"service.name": service or router, **resource}
        described = b"".join([_attribute(1, name, value) for name, value in facts.items()])
        requests.append(block(1, block(1, described) + block(2, scope + b"".join(encoded))))
    return b"".join(requests)


def _span(span: Span) -> bytes:
    trace, error, (started, duration) = span.trace, error_of(span), extent(span)
    parent = parent_of(trace)
    parts = [
        block(1, trace.high.to_bytes(8, "big") + trace.trace.to_bytes(8, "big")),
        block(2, trace.span.to_bytes(8, "big")),
        block(4, parent.to_bytes(8, "big")) if parent is not None else b"",
        block(5, utf8(span.name)),
        number(6, _CLIENT if span.is_client else _SERVER),
        fixed64(7, started * 1000),
        fixed64(8, (started + duration) * 1000),
        *[_attribute(9, name, value) for name, value in attributes(span)],
        *[block(11, fixed64(1, microseconds(moment) * 1000) + block(2, utf8(word))) for moment, word in span.events],
        block(15, block(2, utf8(error)) + number(3, _STATUS_ERROR)) if span.failed else b"",
        fixed32(16, _SAMPLED),
    ]
    return b"".join(parts)


@lru_cache(maxsize=1024)  # most repeat themselves from span to span; this halves the time of a batch
def _attribute(field: int, name: str, value: Value) -> bytes:
    """A field that is a ``KeyValue``."""
    return block(field, block(1, utf8(name)) + block(2, block(1, utf8(value)) if isinstance(value, str) else number(3, value)))


def attributes(span: Span) -> Iterator[tuple[str, Value]]:
    """The tags, and what of them has a name in the semantic conventions."""
    tags = span.tags
    yield from tags.items()
    method, status, uri, host = tags.get(METHOD), tags.get(STATUS), tags.get(URI), tags.get(HOST)
    if method:
        yield "http.request.method", method if method in _METHODS else "_OTHER"
        if method not in _METHODS:
            yield "http.request.method_original", method
    if uri:
        path, mark, query = uri.partition("?")
        yield "url.path", path
        if mark:
            yield "url.query", query
    if span.failed:
        yield "error.type", status if status and status.isdecimal() else "_OTHER"
    version = tags.get("http.req.version", "")
    if version.startswith("HTTP/"):
        yield "network.protocol.version", version[5:]
    for tag, name in _NUMBERS.items():
        value = tags.get(tag)
        if value and value.isdecimal() and len(value) < _MOST_DIGITS:
            yield name, int(value)
    yield from _addresses(span, host)


def _addresses(span: Span, host: str | None) -> Iterator[tuple[str, Value]]:
    """The peer's address, and the server's: what the caller asked for at a server, the endpoint at a client."""
    if span.peer is not None:
        yield "network.peer.address", span.peer[0]
        yield "network.peer.port", span.peer[1]
    if span.is_client:
        server: Endpoint | None = span.peer
    else:
        server = _authority(host) if host else None
        if span.peer is not None:
            yield "client.address", span.peer[0]
    if server is not None:
        yield "server.address", server[0]
        if server[1]:
            yield "server.port", server[1]


def _authority(host: str) -> Endpoint:
    """Host and port of a request's authority; port 0 if it names none."""
    name, mark, port = host.rpartition(":")
    if mark and port.isdecimal() and len(port) <= 5 and not name.endswith(":"):
        return name.strip("[]"), int(port)
    return host.strip("[]"), 0


# --- the answer


@attrs.frozen
class PartialSuccess:
    """What a collector that took the rest did not take, and why."""

    rejected: int
    reason: str


def read_partial_success(body: bytes) -> PartialSuccess | None:
    """The complaint in an ``ExportTraceServiceResponse``; None if there is none, or it cannot be read."""
    try:
        for field, value in fields(body):
            if field == 1 and isinstance(value, bytes):
                inner = dict(fields(value))
                rejected, reason = inner.get(1, 0), inner.get(2, b"")
                if isinstance(rejected, int) and isinstance(reason, bytes) and (rejected or reason):
                    return PartialSuccess(signed(rejected), _shown(reason))
    except MalformedMessage:
        return None
    return None


def read_status(body: bytes) -> str:
    """What the answer to a refused request says: the message of a ``google.rpc.Status``, or the text that is there instead."""
    try:
        found = dict(fields(body))
    except MalformedMessage:
        return _shown(body)
    message = found.get(2, b"")
    return _shown(message) if isinstance(message, bytes) else ""


def _shown(text: bytes) -> str:
    clean = text.decode("utf-8", "replace")[:_MOST_TOLD]
    return "".join([letter if letter.isprintable() else " " for letter in clean]).strip()
