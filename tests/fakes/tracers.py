"""A tracer that keeps what it is given."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from meshgw.telemetry.spans import Span


@attrs.define(eq=False)
class FakeTracer:
    """Wants the part ``rate`` of traces; ``requests`` are the spans that it got, of one request after another."""

    rate: float = 1.0
    decides: bool = True
    requests: list[tuple[Span, ...]] = attrs.Factory(list)

    def record(self, spans: Sequence[Span]) -> None:
        """See :class:`meshgw.telemetry.spans.Tracer`."""
        self.requests.append(tuple(spans))
