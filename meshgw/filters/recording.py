"""What is recorded of a traced request: a span of its server and one of each of its attempts, given to the tracers when it has ended.

Source: linkerd-config spec 7.1 and 9.7. An attempt's span has the very id that its endpoint was told. Query strings, bodies and values of
fields that may hold credentials are never recorded. On the request path only what is known anyway is noted, as references to what does
not change; texts, tags and spans are made of it when an exporter or a reader looks. Nothing that is kept leads to the exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

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
from meshgw.telemetry.spans import LateSpans, Span, Tracer
from meshgw.wire.context import TraceId, first_lines
from meshgw.wire.headers import Headers

MOST_ATTEMPTS: Final = 64
"""Attempts of one request that get a span; the server's span tells how many more there were."""
LONGEST_TAG: Final = 1024
LONGEST_ERROR: Final = 512
"""Characters that are recorded of a text; callers choose the lengths of some."""
REQUEST_COST: Final = 1200
ATTEMPT_COST: Final = 500
"""Bytes of memory, as measured, that a recorded request takes besides the texts that others choose, and each of its attempts."""
_VERDICTS: Final = {SUCCESS: "l5d.success", RETRYABLE_FAILURE: "l5d.retryable", NON_RETRYABLE_FAILURE: "l5d.failure"}
_PHASES: Final[Sequence[tuple[tuple[type[MeshError], ...], str]]] = (
    ((IdentifyError,), "Identification"),
    ((BindError, BalanceError, ConnectError), "ClientAcquisition"),
    ((AnswerError, RequestTimeout, DeadlineExceeded), "Service"),
)
_GRPC_STATUS: Final = b"grpc-status"
_H2: Final = b"2"
_log = make_logger()

_Answer = tuple[bool, int, bytes | None, bytes | None]
"""Of an answer: whether it came over HTTP/1, its length, its Content-Type, and the status of gRPC."""
_Attempt = tuple[int, Mapping[str, str], float, float, str, int, int, _Answer | None, Any, Any, Any, str]
"""Of an attempt: the span's id, its route, when it began and ended, its cause and number, the status and answer, address and own end of the
connection, the verdict, and its error in words. A tuple, since an object with names takes three times as long."""


@attrs.frozen(kw_only=True)
class Setting:
    """What the recordings of one router have in common. ``dtab`` is its own, as text; ``clock`` is monotonic, ``now`` since the epoch."""

    label: str
    dtab: str
    propagator: Propagator
    clock: Callable[[], float]
    now: Callable[[], float]
    bits: Callable[[], int]


class Recording(LateSpans):
    """Notes what is known of one request (:class:`meshgw.core.exchange.Recording`), and makes its spans when it has ended."""

    __slots__ = (
        "_answer",
        "_answered",
        "_attempts",
        "_cause",
        "_first",
        "_offset",
        "_request",
        "_root",
        "_root_flags",
        "_route",
        "_server",
        "_setting",
        "_span",
        "_started",
        "_takers",
        "_texts",
        "_trace",
        "_trailers",
        "lines",
        "status",
        "tried",
    )

    def __init__(self, setting: Setting, ex: Exchange, trace: TraceId | None, takers: tuple[Tracer, ...]) -> None:
        """``trace`` is the request's place in its trace, None where one begins with it (``ex.root``)."""
        self._setting, self._trace, self._takers = setting, trace, takers
        self._root, self._root_flags = ex.root, ex.root_flags
        # now, as identifiers and filters may change the request
        length, target, kind, coding = ex.length, ex.target, None, None
        if b"?" in target:
            target = target[: target.index(b"?")]
        seen = ex.headers.seen
        if length:  # fields of a body; looking for one means to go through all lines
            kind, coding = _content_type(ex.headers), seen.get(b"transfer-encoding")
        self._request = (target, ex.method, seen.get(b"host", b""), ex.version, length, kind, coding)
        self._attempts: list[_Attempt] = []
        self._span = self._texts = self.tried = self.status = 0
        self._cause, self._first = "", 0.0
        self._trailers: list[bytes] | None = None
        self._answered: list[bytes] | None = None
        """The lines of the last answer that was noted, and what was; the last attempt's is mostly the caller's too."""
        self._answer: _Answer | None = None
        self.lines: tuple[bytes, ...] = ()

    # --- attempts

    def begin(self, ex: Exchange, route: Mapping[str, str], *, told: bool) -> None:
        """See :class:`meshgw.core.exchange.Recording`."""
        setting, trace = self._setting, self._trace
        self.tried += 1
        self._started = started = setting.clock()
        if not self._first:
            self._first = started
        self._span = span = setting.bits() or 1
        self._route, self._trailers = route, None
        if not told:
            self.lines = ()
        elif trace is None:
            self.lines = first_lines(span, self._root, self._root_flags)
        else:
            self.lines = setting.propagator.lines(trace, span, ex.headers.seen)

    def concluded(self, trailers: list[bytes]) -> None:
        """See :class:`meshgw.core.exchange.Recording`."""
        self._trailers = trailers

    def ended(self, ex: Exchange, error: MeshError | None) -> None:
        """See :class:`meshgw.core.exchange.Recording`; one that only waited for a binding that changed meanwhile was none."""
        if self._span:
            self._end(ex, error, ex.ended)

    def _end(self, ex: Exchange, error: MeshError | None, moment: float) -> None:
        span, self._span = self._span, 0
        if isinstance(error, Rebound):
            self.tried -= 1
            return
        if len(self._attempts) < MOST_ATTEMPTS:
            node, answer = ex.node, None
            status = self.status or (ex.status if error is None else 0)
            if status:
                answer = self._note_answer(ex)
            words = ""
            if error is not None:
                words = worded(error)
                self._texts += len(words)
            self._attempts.append(
                (
                    span,
                    self._route,
                    self._started,
                    moment,
                    self._cause,
                    self.tried,
                    status,
                    answer,
                    None if node is None else node.address,
                    ex.local,
                    ex.verdict,
                    words,
                )
            )
        self._cause, self.status = "retry", 0

    def again(self, ex: Exchange, error: MeshError | None) -> None:
        """See :class:`meshgw.core.exchange.Recording`."""
        if not self._span:
            return
        before = self.lines
        self._end(ex, error, self._setting.clock())
        self._cause = "requeue"
        self.begin(ex, self._route, told=bool(before))
        if before:
            lines = ex.headers.lines
            at = lines.index(before[0])
            lines[at : at + len(before)] = self.lines

    # --- the end

    def finish(self, ex: Exchange) -> None:
        """See :class:`meshgw.core.exchange.Recording`."""
        error, outcome, dtab = ex.error, ex.outcome, ex.dtab
        if self._span:
            self._end(ex, error, ex.ended)
        self._server = (
            ex.arrived,
            ex.ended,
            ex.local,
            ex.peer,
            ex.name,
            "" if dtab is None else _cut(dtab.show()),  # now, as one may be large
            ex.status,
            self._note_answer(ex) if ex.status else None,
            ex.verdict,
            not isinstance(outcome, int) or outcome < 0 or (error is not None and error.status >= 500),
            {} if error is None else _error_tags(error),
            isinstance(error, CallerGone),
        )
        self._offset = self._setting.now() - ex.ended
        self._answered = self._answer = self._trailers = None  # lines may hold what is not to outlive the request
        takers, self._takers = self._takers, ()
        for taker in takers:
            try:
                taker.record(self)
            except Exception:  # noqa: BLE001 - the rim around tracers, which plug-ins provide
                _log.failure("defect in a tracer; the spans of a request are lost to it")

    def _note_answer(self, ex: Exchange) -> _Answer:
        response = ex.response
        lines = response.lines
        if self._answer is not None and self._answered is lines and ex.error is None:
            return self._answer
        kind = _content_type(response)
        status = None
        if ex.version == _H2:  # calls of gRPC come over nothing else
            status = response.get(_GRPC_STATUS)
            if status is None:
                status = Headers(self._trailers or ex.answer_trailers or []).get(_GRPC_STATUS)
        self._answered = lines
        self._answer = answer = (bool(ex.status_line), ex.response_length, kind, status)
        return answer

    # --- spans

    @property
    def size(self) -> int:
        """See :class:`meshgw.telemetry.spans.LateSpans`."""
        target, method, host, *_ = self._request
        return REQUEST_COST + len(target) + len(method) + len(host) + self._texts + ATTEMPT_COST * len(self._attempts)

    def __len__(self) -> int:
        return 1 + len(self._attempts)

    def made(self) -> tuple[Span, ...]:
        """See :class:`meshgw.telemetry.spans.LateSpans`."""
        trace = self._trace or TraceId(self._root, self._root, self._root, self._root_flags)
        request = self._request_tags()
        return (self._server_span(trace, request), *[self._client_span(trace, request, attempt) for attempt in self._attempts])

    def _client_span(self, trace: TraceId, request: Mapping[str, str], attempt: _Attempt) -> Span:
        span, route, started, ended, cause, number, status, answer, address, local, verdict, error = attempt
        label, offset = self._setting.label, self._offset
        tags = {"router.label": label, **request, **route, "meshgw.attempt": str(number)}
        if cause:
            tags["meshgw.attempt.cause"] = cause
        if answer is not None:
            tags["http.rsp.status"] = str(status)
            tags["http.rsp.version"] = "HTTP/1.1" if answer[0] else "HTTP/2"
            tags |= _answer_tags(answer)
        if error:
            tags["error"] = error
        events = [(started + offset, "finagle.retry")] if cause else []
        word = _VERDICTS.get(verdict)
        if word is not None:
            events.append((ended + offset, word))
        return Span(
            trace=trace.child(span),
            is_client=True,
            router=label,
            name=request["http.req.method"],
            started=started + offset,
            duration=max(0.0, ended - started),
            local=local,
            peer=None if address is None else (address.host, address.port),
            tags=tags,
            events=tuple(events),
            failed=bool(error) or verdict in (RETRYABLE_FAILURE, NON_RETRYABLE_FAILURE),
        )

    def _server_span(self, trace: TraceId, request: Mapping[str, str]) -> Span:
        arrived, ended, local, peer, name, dtab, status, answer, verdict, failed, errors, is_gone = self._server
        setting, offset = self._setting, self._offset
        tags = {"router.label": setting.label, **request, "dtab.base": setting.dtab}
        if dtab:
            tags["dtab.local"] = dtab
        if name is not None:
            tags["service"] = _cut(name.show())
        if answer is not None:
            tags["http.rsp.status"] = str(status)
            tags["http.rsp.version"] = request["http.req.version"]
            tags |= _answer_tags(answer)
        tags |= errors
        if self.tried > len(self._attempts):
            tags["meshgw.attempts.omitted"] = str(self.tried - len(self._attempts))
        events = []
        if self._first:
            events.append((self._first + offset, "namer.success"))
            if verdict in _VERDICTS:
                events.append((ended + offset, _VERDICTS[verdict]))
        elif name is not None and is_gone:
            events.append((ended + offset, "namer.closed"))
        return Span(
            trace=trace,
            is_client=False,
            router=setting.label,
            name=request["http.req.method"],
            started=arrived + offset,
            duration=max(0.0, ended - arrived),
            local=local,
            peer=peer,
            tags=tags,
            events=tuple(events),
            failed=failed,
        )

    def _request_tags(self) -> dict[str, str]:
        target, method, host, version, length, kind, coding = self._request
        tags = {
            "http.uri": _text(target),
            "http.req.method": _text(method),
            "http.req.host": _text(host),
            "http.req.version": f"HTTP/{version.decode('latin-1')}",
        }
        if length > 0:
            tags["http.req.content-length"] = str(length)
        if kind is not None:
            tags["http.req.content-type"] = _text(kind)
        if coding is not None:
            tags["http.req.transfer-encoding"] = _text(coding)
        return tags


def _content_type(headers: Headers) -> bytes | None:
    """The first such field, which takes half as long to find as all of them."""
    value = headers.seen.get(b"content-type")
    if value is None:
        for line in headers.lines:
            if line[12:13] == b":" and line[:12].lower() == b"content-type":
                return line[13:].strip(b" \t")
    return value


def _answer_tags(answer: _Answer) -> dict[str, str]:
    is_http1, length, kind, grpc = answer
    tags: dict[str, str] = {}
    if length >= 0:
        tags["http.rsp.content-length"] = str(length)
    elif is_http1:
        tags["http.rsp.transfer-encoding"] = "chunked"
    if kind is not None:
        tags["http.rsp.content-type"] = _text(kind)
    if grpc is not None:
        tags["grpc.status"] = _text(grpc)
    return tags


def _error_tags(error: MeshError) -> dict[str, str]:
    """Now, and not when somebody looks: an error that was raised holds on to all that was there at that moment."""
    tags = {"error": worded(error)}
    if isinstance(error, BindError):
        tags["namer.failure"] = type(error).__name__
    for types, phase in _PHASES:
        if isinstance(error, types):
            tags["io.buoyant.router.Failure"] = phase
            break
    return tags


def worded(error: MeshError) -> str:
    """The error's class, and what it says in one line."""
    return f"{type(error).__name__}: {' '.join(error.brief.split())}"[:LONGEST_ERROR]


def _text(value: bytes) -> str:
    return value[:LONGEST_TAG].decode("utf-8", "replace")


def _cut(text: str) -> str:
    return text[:LONGEST_TAG]
