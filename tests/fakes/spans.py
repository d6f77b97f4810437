"""Spans as the request path makes them: one request with its attempts, and what telemeters are built with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshgw.telemetry.spans import Span
from meshgw.wire.context import TraceId

SAMPLED = 6
TRACE, STARTED = 0x0102030405060708, 1_700_000_000.25


def server_span(*, number: int = 1, high: int = 0, failed: bool = False, tags: Mapping[str, str] | None = None, **changes: Any) -> Span:
    """A request as its server saw it; ``number`` makes the trace another one."""
    fields: dict[str, Any] = {
        "trace": TraceId(TRACE + number, TRACE + number, TRACE + number, SAMPLED, high),
        "is_client": False,
        "router": "web",
        "name": "GET",
        "started": STARTED + number,
        "duration": 0.025,
        "local": ("192.0.2.1", 4140),
        "peer": ("198.51.100.7", 50123),
        "tags": {
            "router.label": "web",
            "service": "/svc/users",
            "http.req.method": "GET",
            "http.req.host": "users",
            "http.req.version": "HTTP/1.1",
            "http.uri": "/users/1?full=yes",
            "http.rsp.status": "503" if failed else "200",
            **(tags or {}),
        },
        "failed": failed,
    }
    return Span(**fields | changes)


def client_span(above: Span, *, attempt: int = 1, failed: bool = False, tags: Mapping[str, str] | None = None, **changes: Any) -> Span:
    """One attempt of the request."""
    fields: dict[str, Any] = {
        "trace": above.trace.child(0xA0 + attempt),
        "is_client": True,
        "router": above.router,
        "name": above.name,
        "started": above.started + 0.001 * attempt,
        "duration": 0.01,
        "local": ("10.0.0.1", 33000),
        "peer": ("10.0.0.2", 8000 + attempt),
        "tags": {
            "service": "/svc/users",
            "client": "/#/io.l5d.fs/users",
            "residual": "/1",
            "http.rsp.status": "503" if failed else "200",
            **(tags or {}),
        },
        "failed": failed,
    }
    return Span(**fields | changes)


def traced(number: int = 1, *, attempts: int = 1, failed: bool = False, high: int = 0) -> tuple[Span, ...]:
    """The spans of a request whose attempts but the last failed."""
    above = server_span(number=number, failed=failed, high=high)
    tried = [client_span(above, attempt=attempt, failed=failed or attempt < attempts) for attempt in range(1, attempts + 1)]
    return (above, *tried)
