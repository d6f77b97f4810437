"""The access log's place in the stack: one line per request when it ends, answered by a service or here.

Source: linkerd-config spec 5.9. Linkerd logs only answers of services, once per attempt; here the caller's view is logged once, errors
included, so that nothing that happened is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from meshgw.core.exchange import Exchange
from meshgw.telemetry.access import AccessLog, ClfClock, ClfFormat

WANTED = (b"referer", b"user-agent")
"""The request fields that a line tells of, beside Host."""


class Record(Protocol):
    """Writes a line for each request."""

    @property
    def wanted(self) -> tuple[bytes, ...]:
        """The request fields that lines tell of."""
        ...

    def on_end(self, ex: Exchange) -> None:
        """The request ended; one that its caller gave up is logged with status 499."""
        ...


class AccessRecord:
    """Writes Linkerd's line; ``now`` gives seconds since the epoch."""

    __slots__ = ("_clock", "_format", "_now", "_time", "_until", "_write")
    wanted = WANTED

    def __init__(self, log: AccessLog, now: Callable[[], float]) -> None:
        self._write, self._now = log.write, now
        self._clock = ClfClock(log.zone)
        self._format = ClfFormat()
        self._time, self._until = b"", float("-inf")

    def on_end(self, ex: Exchange) -> None:
        """The request ended; one that its caller gave up is logged with status 499."""
        if ex.ended >= self._until:
            self._tick(ex.ended)
        parts, seen = self._format, ex.headers.seen.get
        origin, agent, answer = (seen(b"host"), ex.peer[0]), (seen(b"referer"), seen(b"user-agent")), (ex.status or 499, ex.response_length)
        request: bytes | None = ex.line  # as it came, unless the target is another now
        if not request or ex.target is not ex.line_target:
            request = parts.requests.get((ex.method, ex.target, ex.version)) or parts.request(ex.method, ex.target, ex.version)
        self._write(
            b"".join(
                (
                    parts.origins.get(origin) or parts.origin(*origin),
                    self._time,
                    request,
                    parts.answers.get(answer) or parts.answer(*answer),
                    parts.agents.get(agent) or parts.agent(*agent),
                )
            )
        )

    def _tick(self, ended: float) -> None:
        """Another second: the time's text for lines of requests that end before it is over, without a look at the clock for each."""
        now = self._now()
        self._time = self._clock.at(now) + b'] "'
        self._until = ended + 1.0 - now % 1.0
