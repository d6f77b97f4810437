"""Spans: what a trace tells of one request, and who takes them.

Source: linkerd-config spec 7.1 and 9.4 to 9.7 (ids, annotations). A request that is traced gives one span of its server and one of each of
its attempts, together, when it has ended; ``filters.tracing`` makes them, telemeters export them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from meshgw.wire.context import TraceId

Endpoint = tuple[str, int]


@attrs.frozen(kw_only=True)
class Span:
    """One piece of work: a request as its server saw it, or one attempt as the endpoint's client saw it.

    ``trace`` has its ids; its ``parent`` equals its ``span`` where a trace begins. ``router`` is the router's label, which names the
    service in traces. ``name`` is short and of few kinds, such as the method. Times are seconds, ``started`` since the epoch. ``events``
    are moments within it with a word for each.
    """

    trace: TraceId
    is_client: bool
    router: str
    name: str
    started: float
    duration: float
    local: Endpoint | None
    peer: Endpoint | None
    tags: Mapping[str, str]
    events: tuple[tuple[float, str], ...] = ()
    failed: bool = False


class TracingSwitch:
    """Whether anything is traced at all (``/admin/tracing``); decisions of callers are passed on either way."""

    __slots__ = ("enabled",)

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled


class Tracer(Protocol):
    """Takes the spans of traced requests."""

    @property
    def rate(self) -> float:
        """The part of the traces, 0 to 1, that it wants of those that nobody has decided to sample; read once."""
        ...

    @property
    def decides(self) -> bool:
        """Whether its wish becomes the trace's sampling decision, for itself and every hop behind; others only look on.

        It gets every trace that is sampled and none that is not. Those that look on get what is sampled, and their own part of the rest.
        """
        ...

    def record(self, spans: tuple[Span, ...]) -> None:
        """Take the spans of one request, the server's first. Never blocks, never raises; what does not fit is dropped and counted."""
        ...


class TracingTelemeter(Protocol):
    """A telemeter that is given spans."""

    @property
    def tracer(self) -> Tracer:
        """What takes them."""
        ...
