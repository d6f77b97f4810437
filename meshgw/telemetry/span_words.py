"""What the exporters of spans have in common: ids, times and addresses as they are written, and which tag tells what.

Source: linkerd-config spec 9.7 (annotations) and 7.1 (ids); OpenZipkin's B3 specification (64 and 128 bits in lower-case hex digits).
"""

from __future__ import annotations

from typing import Final

from meshgw.telemetry.spans import Endpoint, Span
from meshgw.wire.context import TraceId

METHOD: Final = "http.req.method"
HOST: Final = "http.req.host"
URI: Final = "http.uri"
STATUS: Final = "http.rsp.status"
SERVICE: Final = "service"
CLIENT: Final = "client"
ERROR: Final = "error"

_DEBUG: Final = 1  # Finagle's flag for a trace that somebody forced


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
    return bool(trace.flags & _DEBUG)


def microseconds(seconds: float) -> int:
    """A moment or a time as tracing systems count it."""
    return round(seconds * 1e6)


def nanoseconds(seconds: float) -> int:
    """The same, finer; a float holds no more than a quarter of a microsecond at this distance from the epoch."""
    return microseconds(seconds) * 1000


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
