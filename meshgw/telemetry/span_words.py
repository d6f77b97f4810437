"""What the exporters of spans have in common: ids, times and addresses as they are written, and which tag tells what.

Source: linkerd-config spec 9.7 (annotations) and 7.1 (ids); OpenZipkin's B3 specification (64 and 128 bits in lower-case hex digits).
"""

from __future__ import annotations

from typing import Final

from meshgw.telemetry.spans import Endpoint, Span
from meshgw.wire.context import DEBUG, TraceId

METHOD: Final = "http.req.method"
HOST: Final = "http.req.host"
URI: Final = "http.uri"
STATUS: Final = "http.rsp.status"
SERVICE: Final = "service"
CLIENT: Final = "client"
ERROR: Final = "error"
OMITTED: Final = "meshgw.attempts.omitted"
"""How many attempts of a request have no span, as there were so many."""


def trace_text(trace: TraceId) -> str:
    """The id of the whole trace: 16 hex digits, or 32 when it has 128 bits."""
    return f"{trace.high:016x}{trace.trace:016x}" if trace.high else f"{trace.trace:016x}"


def utf8(text: str) -> bytes:
    """The text on the wire; what a request had that is no text at all becomes question marks."""
    return text.encode("utf-8", "replace")


def parent_of(trace: TraceId) -> int | None:
    """The id of the span above; None where the trace begins."""
    return None if trace.parent == trace.span else trace.parent


def is_debug(trace: TraceId) -> bool:
    """Whether somebody forced this trace."""
    return bool(trace.flags & DEBUG)


def microseconds(seconds: float) -> int:
    """A moment as tracing systems count it. A float holds no more than a quarter of one at this distance from the epoch."""
    return round(seconds * 1e6)


def extent(span: Span) -> tuple[int, int]:
    """When the span's work began, and how long it took, in microseconds: at least one. Its end is where an event then would be."""
    started = microseconds(span.started)
    return started, max(1, microseconds(span.started + span.duration) - started)


def address_text(endpoint: Endpoint | None) -> str:
    """``host:port``; empty if it is not known."""
    if endpoint is None:
        return ""
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def error_of(span: Span) -> str:
    """What is wrong with the span's work, in few words; empty if nothing is."""
    if not span.failed:
        return ""
    tags = span.tags
    return tags.get(ERROR) or tags.get(STATUS) or "failed"
