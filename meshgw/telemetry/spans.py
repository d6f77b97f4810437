"""Spans: what a trace tells of one request, and who takes them.

Source: linkerd-config spec 7.1 and 9.4 to 9.7 (ids, annotations). A request that is traced gives one span of its server and one of each of
its attempts, together, when it has ended. ``filters.recording`` notes what is known, telemeters look at the spans when they export them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, overload

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


class LateSpans(Sequence[Span]):
    """The spans of a request that has ended, the server's first. They are made each time that somebody looks at them, and not before.

    So whoever keeps them to look later takes next to nothing of a request's time. Subclasses make them.
    """

    __slots__ = ()

    @property
    def size(self) -> int:
        """About how many bytes of memory what is kept of the request takes."""
        raise NotImplementedError

    def made(self) -> tuple[Span, ...]:
        """Make them."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Span]:
        return iter(self.made())

    @overload
    def __getitem__(self, index: int) -> Span: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Span]: ...
    def __getitem__(self, index: int | slice) -> Span | Sequence[Span]:
        return self.made()[index]


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

    def record(self, spans: Sequence[Span]) -> None:
        """Take the spans of one request, the server's first. Never blocks, never raises; what does not fit is dropped and counted.

        The request path waits for this, and making spans takes longer than all else here: keep them, and look later (:class:`LateSpans`).
        """
        ...


class TracingTelemeter(Protocol):
    """A telemeter that is given spans."""

    @property
    def tracer(self) -> Tracer:
        """What takes them."""
        ...
