"""``io.l5d.recentRequests``: the latest traced requests of a process, for the admin server's ``/requests.json``.

Source: linkerd-config spec 9.5. Spans and rows are made when somebody looks, so that a request costs no more than its place in the ring.
Methods, paths and statuses are our addition to Linkerd's columns, and so are requests that reached no endpoint.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from meshgw.config.document import between, option
from meshgw.kinds import Kind, Runtime
from meshgw.telemetry.span_words import CLIENT, METHOD, OMITTED, SERVICE, STATUS, URI, address_text, error_of, trace_text
from meshgw.telemetry.spans import Span, Tracer

MOST_KEPT: Final = 10_000
"""Requests of some 2 KiB each, in every process that serves."""


def _is_part(value: Any) -> str | None:
    return None if 0.0 <= value <= 1.0 else "sampleRate must be between 0.0 and 1.0"


@attrs.frozen(kw_only=True)
class RecentRequestsConfig:
    """Keeps the latest requests in memory, to be looked at on the admin server's `/requests` and `/requests.json`."""

    sample_rate: float = option(doc="Part of the requests that are kept, from 0 to 1.", check=_is_part)
    capacity: int = option(default=10, doc="Requests that are kept; an older one makes room for a newer.", check=between(1, MOST_KEPT))


def request_row(spans: Sequence[Span]) -> dict[str, Any]:
    """What is shown of one request, as JSON data. The last attempt counts, since its answer is what the caller got."""
    server = spans[0]
    attempts = [span for span in spans if span.is_client]
    last = attempts[-1] if attempts else None
    tags: dict[str, str] = {**(last.tags if last is not None else {}), **server.tags}
    status = tags.get(STATUS, "")
    return {
        "timestamp": datetime.fromtimestamp(server.started, UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z",
        "started": round(server.started, 6),
        "source": address_text(server.peer),
        "server": address_text(server.local),
        "router": server.router,
        "logical_name": tags.get(SERVICE, ""),
        "concrete_name": (last.tags.get(CLIENT) if last is not None else None) or tags.get(CLIENT, ""),
        "destination": address_text(last.peer) if last is not None else "",
        "method": tags.get(METHOD, ""),
        "path": tags.get(URI, ""),
        "status": int(status) if status.isdecimal() else None,
        "duration_ms": round(server.duration * 1000, 3),
        "retries": max(0, len(attempts) - 1 + int(tags.get(OMITTED, 0))),
        "trace_id": trace_text(server.trace),
        "failed": server.failed,
        "error": error_of(server),
    }


def newest_first(rows: Iterable[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """The newest ``most`` rows of several processes."""
    return sorted(rows, key=lambda row: float(row["started"]), reverse=True)[:most]


class RecentRequests:
    """The telemeter: a ring of ``capacity`` requests. It looks on, and decides nothing for others."""

    decides = False

    def __init__(self, rate: float, capacity: int) -> None:
        self.rate, self.capacity = rate, capacity
        self._kept: deque[Sequence[Span]] = deque(maxlen=capacity)
        self.record = self._kept.append
        """See :class:`meshgw.telemetry.spans.Tracer`."""

    @property
    def tracer(self) -> Tracer:
        """See :class:`meshgw.telemetry.spans.TracingTelemeter`."""
        return self

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """What is kept now, the newest first; each row is made when it is asked for."""
        for spans in list(reversed(self._kept)):
            if spans:
                yield request_row(tuple(spans))


def build_recent_requests(config: RecentRequestsConfig, runtime: Runtime) -> RecentRequests:
    """Make the telemeter."""
    return RecentRequests(config.sample_rate, config.capacity)


KIND = Kind(id="io.l5d.recentRequests", config=RecentRequestsConfig, build=build_recent_requests)
