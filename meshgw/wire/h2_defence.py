"""What a peer can make us do for nothing, counted, and the point at which it is asked to calm down.

Source: RFC 9113 section 10.5; CVE-2023-44487 (rapid reset), CVE-2025-8671 (resets that we are made to send), CVE-2024-27316 and its kin
(CONTINUATION), CVE-2019-9511 to 9518. Limits are per connection and per ``WINDOW`` seconds, generous to real peers: a cancel storm of all
streams at once, PINGs that measure bandwidth beside data, a gateway that brings the requests of many callers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from meshgw.wire.h2_frames import Code, ConnectionFault

WINDOW: Final = 10.0
MOST_NOISE: Final = 1000
"""Frames that carry nothing: PING, SETTINGS, PRIORITY, empty DATA, frames for streams that are gone, kinds that nobody knows."""
NOISE_PER_USE: Final = 4
"""So many more are allowed for each frame that carried something: who measures bandwidth does so once per frame of data or two."""
MOST_RESETS: Final = 1000
"""Streams that the peer gave up, or made us give up, soon after their beginning; more are allowed to who also lets as many end."""
MOST_FAULTS: Final = 100
"""Frames for streams that have ended, each answered with a reset."""
MOST_REFUSED: Final = 1000
"""Streams opened beyond the limit that was told."""
MOST_TINY: Final = 2000
"""Increments below the small one for data that waits."""
SMALL_INCREMENT: Final = 256
"""Bytes of credit below which a WINDOW_UPDATE costs us more than it costs the peer."""


class _Limit:
    """So many events in each window of time."""

    __slots__ = ("_clock", "_count", "_most", "_since", "_what")

    def __init__(self, clock: Callable[[], float], most: int, what: str) -> None:
        self._clock, self._most, self._what = clock, most, what
        self._count, self._since = 0, 0.0

    def count(self) -> None:
        """One more. Raises :class:`ConnectionFault` beyond the limit."""
        if not self._count:
            self._since = self._clock()
        self._count += 1
        if self._count <= self._most:
            return
        if self._clock() - self._since < WINDOW:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, f"more than {self._most} {self._what} in {WINDOW:g} s")
        self._count = 0

    def count_beside(self, useful: int) -> int:
        """One more, beside so many useful events that were not set off yet; gives those that still are not. Raises as ``count`` does."""
        if self._count >= self._most and useful:
            set_off = min(useful, -(-self._count // NOISE_PER_USE))
            self._count = max(0, self._count - set_off * NOISE_PER_USE)
            useful -= set_off
        self.count()
        return min(useful, MOST_NOISE)

    def forgive(self) -> None:
        """One less."""
        if self._count:
            self._count -= 1


class Defence:
    """The limits of one connection; each method counts one event and may raise :class:`ConnectionFault`."""

    __slots__ = ("fault", "forgive", "noise", "refused", "reset", "tiny")

    def __init__(self, clock: Callable[[], float]) -> None:
        resets = _Limit(clock, MOST_RESETS, "streams given up")
        self.reset, self.forgive = resets.count, resets.forgive
        """``forgive``: a stream came to its end."""
        self.noise = _Limit(clock, MOST_NOISE, "frames without purpose").count_beside
        self.fault = _Limit(clock, MOST_FAULTS, "frames for streams that ended").count
        self.refused = _Limit(clock, MOST_REFUSED, "streams beyond the limit").count
        self.tiny = _Limit(clock, MOST_TINY, "tiny window updates").count
