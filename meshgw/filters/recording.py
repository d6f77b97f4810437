"""What is recorded of a traced request: a span of its server and one of each of its attempts, given to the tracers when it has ended.

Source: linkerd-config spec 7.1 and 9.7. An attempt's span has the very id that its endpoint was told. Query strings, bodies and values of
fields that may hold credentials are never recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from meshgw.core.exchange import Exchange
from meshgw.core.logger import make_logger
from meshgw.errors import (
    AnswerError,
    BalanceError,
    BindError,
    CallerGone,
    ConnectError,
    DeadlineExceeded,
    IdentifyError,
    MeshError,
    Rebound,
    RequestTimeout,
)
from meshgw.filters.classify import NON_RETRYABLE_FAILURE, RETRYABLE_FAILURE, SUCCESS
from meshgw.kinds import Propagator
from meshgw.telemetry.spans import Span, Tracer
from meshgw.wire.context import TraceId
from meshgw.wire.headers import Headers

MOST_ATTEMPTS: Final = 64
"""Attempts of one request that get a span; the server's span tells how many more there were."""
LONGEST_TAG: Final = 1024
LONGEST_ERROR: Final = 512
"""Characters that are recorded of a text; callers choose the lengths of some."""
_VERDICTS: Final = {SUCCESS: "l5d.success", RETRYABLE_FAILURE: "l5d.retryable", NON_RETRYABLE_FAILURE: "l5d.failure"}
_PHASES: Final[Sequence[tuple[tuple[type[MeshError], ...], str]]] = (
    ((IdentifyError,), "Identification"),
    ((BindError, BalanceError, ConnectError), "ClientAcquisition"),
    ((AnswerError, RequestTimeout, DeadlineExceeded), "Service"),
)
_GRPC_STATUS: Final = b"grpc-status"
_H2: Final = b"2"
_log = make_logger()


@attrs.frozen(kw_only=True)
class Setting:
    """What the recordings of one router have in common. ``dtab`` is its own, as text; ``clock`` is monotonic, ``now`` since the epoch."""

    label: str
    dtab: str
    propagator: Propagator
    clock: Callable[[], float]
    now: Callable[[], float]
    bits: Callable[[], int]


class _Attempt:
    """What is known of an attempt until its span can be made."""

    __slots__ = ("cause", "headed", "route", "span", "started", "status")

    def __init__(self, span: int, route: Mapping[str, str], started: float, cause: str) -> None:
        self.span, self.route, self.started, self.cause = span, route, started, cause
        self.headed = 0.0
        self.status = 0


class Recording:
    """Collects the spans of one request (:class:`meshgw.core.exchange.Recording`)."""

    __slots__ = (
        "_attempt",
        "_cause",
        "_first",
        "_headers",
        "_offset",
        "_request",
        "_setting",
        "_spans",
        "_takers",
        "_told",
        "_trace",
        "_trailers",
        "lines",
        "tried",
    )

    def __init__(self, setting: Setting, ex: Exchange, trace: TraceId, takers: tuple[Tracer, ...]) -> None:
        self._setting, self._trace, self._takers, self._headers = setting, trace, takers, ex.headers
        self._offset = setting.now() - setting.clock()
        self._request = _request_tags(ex)  # now, as identifiers and filters may change the request
        self._spans: list[Span] = []
        self._attempt: _Attempt | None = None
        self._cause, self._first = "", 0.0
        self._trailers: list[bytes] | None = None
        self._told: tuple[list[bytes], dict[str, str]] | None = None
        """The lines of the last answer that tags were made of, and those."""
        self.lines: tuple[bytes, ...] = ()
        self.tried = 0
        """Attempts so far."""

    # --- attempts

    def begin(self, route: Mapping[str, str], *, told: bool) -> None:
        """See :class:`meshgw.core.exchange.Recording`."""
        setting = self._setting
        self.tried += 1
        started = setting.clock()
        self._first = self._first or started
        self._attempt = attempt = _Attempt(setting.bits() or 1, route, started, self._cause)
        self._trailers = None
        self.lines = setting.propagator.lines(self._trace, attempt.span, self._headers.seen) if told else ()

    def headed(self, ex: Exchange) -> None:
        """See :class:`meshgw.core.exchange.Recording`."""
        attempt = self._attempt
        if attempt is not None:
            attempt.headed, attempt.status = self._setting.clock(), ex.status

    def concluded(self, trailers: list[bytes]) -> None:
        """See :class:`meshgw.core.exchange.Recording`."""
        self._trailers = trailers

    def ended(self, ex: Exchange, error: MeshError | None) -> None:
        """See :class:`meshgw.core.exchange.Recording`; one that only waited for a binding that changed meanwhile was none."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        self._cause = "retry"
        if isinstance(error, Rebound):
            self.tried -= 1
            self._cause = attempt.cause
        elif len(self._spans) < MOST_ATTEMPTS:
            self._spans.append(self._client_span(attempt, ex, error))

    def again(self, ex: Exchange, error: MeshError | None) -> None:
        """See :class:`meshgw.core.exchange.Recording`."""
        attempt, before = self._attempt, self.lines
        if attempt is None:
            return
        self.ended(ex, error)
        self._cause = "requeue"
        self.begin(attempt.route, told=bool(before))
        if before:
            lines = ex.headers.lines
            at = lines.index(before[0])
            lines[at : at + len(before)] = self.lines

    # --- spans

    def _client_span(self, attempt: _Attempt, ex: Exchange, error: MeshError | None) -> Span:
        setting, node = self._setting, ex.node
        ended = setting.clock()
        tags = {"router.label": setting.label, **self._request, **attempt.route, "meshgw.attempt": str(self.tried)}
        if attempt.cause:
            tags["meshgw.attempt.cause"] = attempt.cause
        status = attempt.status or (ex.status if error is None else 0)
        if status:
            tags["http.rsp.status"] = str(status)
            tags["http.rsp.version"] = "HTTP/1.1" if ex.status_line else "HTTP/2"
            tags |= self._answer_tags(ex)
        if error is not None:
            tags["error"] = worded(error)
        events = [(attempt.started + self._offset, "finagle.retry")] if attempt.cause else []
        verdict = _VERDICTS.get(ex.verdict)
        if verdict is not None:
            events.append((ended + self._offset, verdict))
        return Span(
            trace=self._trace.child(attempt.span),
            is_client=True,
            router=setting.label,
            name=self._request["http.req.method"],
            started=attempt.started + self._offset,
            duration=max(0.0, ended - attempt.started),
            local=ex.local,
            peer=None if node is None else (node.address.host, node.address.port),
            tags=tags,
            events=tuple(events),
            failed=error is not None or ex.verdict in (RETRYABLE_FAILURE, NON_RETRYABLE_FAILURE),
        )

    def finish(self, ex: Exchange) -> None:
        """See :class:`meshgw.core.exchange.Recording`."""
        spans = (self._server_span(ex), *self._spans)
        for taker in self._takers:
            try:
                taker.record(spans)
            except Exception:  # noqa: BLE001 - the rim around tracers, which plug-ins provide
                _log.failure("defect in a tracer; the spans of a request are lost to it")

    def _server_span(self, ex: Exchange) -> Span:
        setting, error = self._setting, ex.error
        tags = {"router.label": setting.label, **self._request, "dtab.base": setting.dtab}
        if ex.dtab is not None:
            tags["dtab.local"] = _cut(ex.dtab.show())
        if ex.name is not None:
            tags["service"] = _cut(ex.name.show())
        if ex.status:
            tags["http.rsp.status"] = str(ex.status)
            tags["http.rsp.version"] = self._request["http.req.version"]
            tags |= self._answer_tags(ex)
        if error is not None:
            _error_tags(tags, error)
        if self.tried > len(self._spans):
            tags["meshgw.attempts.omitted"] = str(self.tried - len(self._spans))
        return Span(
            trace=self._trace,
            is_client=False,
            router=setting.label,
            name=self._request["http.req.method"],
            started=ex.arrived + self._offset,
            duration=max(0.0, ex.ended - ex.arrived),
            local=ex.local,
            peer=ex.peer,
            tags=tags,
            events=self._server_events(ex),
            failed=not isinstance(ex.outcome, int) or ex.outcome < 0 or (error is not None and error.status >= 500),
        )

    def _server_events(self, ex: Exchange) -> tuple[tuple[float, str], ...]:
        events = []
        if self._first:
            events.append((self._first + self._offset, "namer.success"))
        elif ex.name is not None and isinstance(ex.error, CallerGone):
            events.append((ex.ended + self._offset, "namer.closed"))
        if self._first and ex.verdict in _VERDICTS:
            events.append((ex.ended + self._offset, _VERDICTS[ex.verdict]))
        return tuple(events)

    def _answer_tags(self, ex: Exchange) -> dict[str, str]:
        """What is told of an answer. The last attempt's is mostly the caller's too, and looking for a field goes through all lines."""
        response = ex.response
        told = self._told
        if told is not None and told[0] is response.lines and ex.error is None:
            return told[1]
        tags: dict[str, str] = {}
        if ex.response_length >= 0:
            tags["http.rsp.content-length"] = str(ex.response_length)
        elif ex.status_line:
            tags["http.rsp.transfer-encoding"] = "chunked"
        kind = response.get(b"content-type")
        if kind is not None:
            tags["http.rsp.content-type"] = _text(kind)
        if ex.version == _H2:  # calls of gRPC come over nothing else
            status = response.get(_GRPC_STATUS)
            if status is None:
                status = Headers(self._trailers or ex.answer_trailers or []).get(_GRPC_STATUS)
            if status is not None:
                tags["grpc.status"] = _text(status)
        self._told = (response.lines, tags)
        return tags


def _request_tags(ex: Exchange) -> dict[str, str]:
    headers = ex.headers
    tags = {
        "http.uri": _text(ex.target.partition(b"?")[0]),
        "http.req.method": _text(ex.method),
        "http.req.host": _text(ex.host or b""),
        "http.req.version": f"HTTP/{ex.version.decode('latin-1')}",
    }
    if ex.length:  # fields of a body; looking for one means to go through all lines
        if ex.length > 0:
            tags["http.req.content-length"] = str(ex.length)
        kind, coding = headers.get(b"content-type"), headers.seen.get(b"transfer-encoding")
        if kind is not None:
            tags["http.req.content-type"] = _text(kind)
        if coding is not None:
            tags["http.req.transfer-encoding"] = _text(coding)
    return tags


def _error_tags(tags: dict[str, str], error: MeshError) -> None:
    tags["error"] = worded(error)
    if isinstance(error, BindError):
        tags["namer.failure"] = type(error).__name__
    for types, phase in _PHASES:
        if isinstance(error, types):
            tags["io.buoyant.router.Failure"] = phase
            break


def worded(error: MeshError) -> str:
    """The error's class, and what it says in one line."""
    return f"{type(error).__name__}: {' '.join(error.brief.split())}"[:LONGEST_ERROR]


def _text(value: bytes) -> str:
    return value[:LONGEST_TAG].decode("utf-8", "replace")


def _cut(text: str) -> str:
    return text[:LONGEST_TAG]
