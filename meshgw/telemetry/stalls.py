"""How long the reactor was kept from its work: a timer that notices how late it is called.

Source: our own. Whatever blocks the reactor's thread, a slow plug-in, a large collection of garbage, a machine without a free CPU, delays
every request; it shows here as a stall. Those shorter than ``PERIOD`` are seen by chance only, longer ones are told up to that much too
short.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall

PERIOD: Final = 0.2
"""Seconds between looks: five wake-ups a second cost less than a thousandth of a CPU."""
RECENT_SECONDS: Final = 60.0


class Stalls:
    """Watches a reactor from :meth:`start` to :meth:`stop`."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._call: IDelayedCall | None = None
        self._due = 0.0
        self.longest = 0.0
        """Seconds of the longest stall since the start."""
        self._longest_at = 0.0
        self._buckets: list[tuple[int, float]] = []

    def start(self) -> None:
        """Begin to watch."""
        if self._call is None:
            self._next(self._reactor.seconds())

    def stop(self) -> None:
        """End that."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    @property
    def recent(self) -> float:
        """Seconds of the longest stall in the last minute."""
        since = self._reactor.seconds() - RECENT_SECONDS
        return max((late for second, late in self._buckets if second >= since), default=0.0)

    def describe(self) -> dict[str, float]:
        """For admin: milliseconds, and how many seconds ago the longest one was."""
        return {
            "longestMs": round(self.longest * 1000, 1),
            "longestSecondsAgo": round(self._reactor.seconds() - self._longest_at, 1) if self.longest else 0.0,
            "lastMinuteMs": round(self.recent * 1000, 1),
        }

    def _next(self, now: float) -> None:
        self._due = now + PERIOD
        self._call = self._reactor.callLater(PERIOD, self._look)

    def _look(self) -> None:
        now = self._reactor.seconds()
        late = now - self._due
        if late > self.longest:
            self.longest, self._longest_at = late, now
        second = int(now)
        if self._buckets and self._buckets[-1][0] == second:
            self._buckets[-1] = (second, max(late, self._buckets[-1][1]))
        else:
            self._buckets.append((second, late))
            del self._buckets[: -int(RECENT_SECONDS) - 1]
        self._next(now)
