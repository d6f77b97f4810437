"""``io.l5d.tracelog``: each record of a trace as a line of the process log.

Source: linkerd-config spec 9.4 and 9.7. The logger is ``io.l5d.tracelog``, whose level can be changed while running. A record is one thing
that is known of a span, and a line begins with the span's ids, so that one can search for a trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import attrs
from twisted.logger import Logger, LogLevel

from meshgw.config.document import option
from meshgw.kinds import Kind, Runtime
from meshgw.telemetry.logs import level_named
from meshgw.telemetry.span_words import address_text, trace_text
from meshgw.telemetry.spans import Span, Tracer

ID: Final = "io.l5d.tracelog"

# Twisted has nothing below debug and nothing above critical.
_LEVELS: Final = {
    "ALL": LogLevel.debug,
    "TRACE": LogLevel.debug,
    "DEBUG": LogLevel.debug,
    "INFO": LogLevel.info,
    "WARNING": LogLevel.warn,
    "ERROR": LogLevel.error,
    "CRITICAL": LogLevel.critical,
    "FATAL": LogLevel.critical,
}


def _level(value: Any) -> str | None:
    try:
        level_named(value)
    except ValueError as error:
        return str(error)
    return None


@attrs.frozen(kw_only=True)
class TraceLogConfig:
    """Writes each record of a trace into the process log, through the logger `io.l5d.tracelog`: a dozen lines for each request."""

    sample_rate: float = option(
        default=1.0, doc="Part of the requests that are logged; below 0 counts as 0, above 1 as 1. Other services are told nothing of it."
    )
    level: str = option(default="INFO", doc="Level of the lines.", check=_level)


def records(span: Span) -> Iterator[tuple[float, str]]:
    """The records of a span in the order of their moments, in Finagle's words."""
    begin, end = ("ClientSend", "ClientRecv") if span.is_client else ("ServerRecv", "ServerSend")
    own, other = ("ClientAddr", "ServerAddr") if span.is_client else ("ServerAddr", "ClientAddr")
    started = span.started
    yield started, f"ServiceName({span.router})"
    yield started, f"Rpc({span.name})"
    yield started, begin
    for name, endpoint in ((own, span.local), (other, span.peer)):
        if endpoint is not None:
            yield started, f"{name}({address_text(endpoint)})"
    for name, value in span.tags.items():
        yield started, f"BinaryAnnotation({name},{value})"
    for moment, word in span.events:
        yield moment, f"Message({word})"
    yield started + span.duration, end


class TraceLog:
    """The telemeter. It looks on, and decides nothing for others."""

    decides = False

    def __init__(self, rate: float, level: Any) -> None:
        """``level`` is one of Twisted's; None logs nothing."""
        self.rate = rate if level is not None else 0.0
        self._level = level
        self._log = Logger(ID)

    @property
    def tracer(self) -> Tracer:
        """See :class:`meshgw.telemetry.spans.TracingTelemeter`."""
        return self

    def record(self, spans: Sequence[Span]) -> None:
        """Log them."""
        if self._level is None:
            return
        for span in spans:
            trace = span.trace
            ids = {"trace_id": trace_text(trace), "span_id": f"{trace.span:016x}", "parent_id": f"{trace.parent:016x}"}
            for moment, words in records(span):
                at = datetime.fromtimestamp(moment, UTC).strftime("%m%d %H:%M:%S.%f")[:-3]
                self._log.emit(
                    self._level, "{moment} {trace_id}.{span_id}<:{parent_id}] {record}", moment=at, record=words, router=span.router, **ids
                )


def build_trace_log(config: TraceLogConfig, runtime: Runtime) -> TraceLog:
    """Make the telemeter."""
    return TraceLog(min(1.0, max(0.0, config.sample_rate)), _LEVELS.get(config.level.upper()))


KIND = Kind(id=ID, config=TraceLogConfig, build=build_trace_log)
