"""The access log's place in the stack: one line per request when it ends, answered by a service or here.

Source: linkerd-config spec 5.9. Linkerd logs only answers of services, once per attempt; here the caller's view is logged once, errors
included, so that nothing that happened is missing.
"""

from __future__ import annotations

from collections.abc import Callable

from meshgw.core.exchange import UNKNOWN_LENGTH, Exchange
from meshgw.telemetry.access import AccessLog, ClfClock, ClfFormat


class AccessRecord:
    """Writes the line; ``now`` gives seconds since the epoch."""

    __slots__ = ("_clock", "_format", "_now", "_peers", "_write")

    def __init__(self, log: AccessLog, now: Callable[[], float]) -> None:
        self._write, self._now = log.write, now
        self._clock = ClfClock()
        self._format = ClfFormat()
        self._peers: dict[str, bytes] = {}

    def on_end(self, ex: Exchange) -> None:
        """The request ended; one that its caller gave up is logged with status 499."""
        seen = ex.headers.seen.get
        peer = self._peers.get(ex.peer[0])
        if peer is None:
            if len(self._peers) >= 1024:
                self._peers.clear()
            peer = self._peers[ex.peer[0]] = ex.peer[0].encode("ascii")
        length = ex.response_length
        self._write(
            self._format.line(
                seen(b"host"),
                peer,
                self._clock.at(self._now()),
                ex.method or b"-",
                ex.target or b"-",
                ex.version or b"1.1",
                ex.status or 499,
                None if length == UNKNOWN_LENGTH else length,
                seen(b"referer"),
                seen(b"user-agent"),
            )
        )
