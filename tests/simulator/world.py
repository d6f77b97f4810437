"""A world with its own time: events at virtual seconds, timers as the gateway's wheel gives them, and one source of randomness.

Everything is decided by the seed, so that a simulation always ends the same; an hour of it takes as long as its events do.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from random import Random

from meshgw.core.timers import Timer


class World:
    """Runs events in the order of their time; those of the same time in the order they were asked for."""

    def __init__(self, seed: int = 1) -> None:
        self.random = Random(seed)
        self._now = 0.0
        self._events: list[tuple[float, int, Timer]] = []
        self._number = itertools.count()

    def seconds(self) -> float:
        """The time."""
        return self._now

    def after(self, seconds: float, function: Callable[[], None]) -> Timer:
        """Call ``function`` in ``seconds``."""
        timer = Timer(function, {}, 0)
        heapq.heappush(self._events, (self._now + seconds, next(self._number), timer))
        return timer

    def run(self, until: float) -> None:
        """Let everything happen up to and at that time."""
        while self._events and self._events[0][0] <= until:
            self._now, _, timer = heapq.heappop(self._events)
            function, timer.function = timer.function, None
            if function is not None:
                function()
        self._now = max(self._now, until)

    def arrivals(self, rate: float, until: float, arrive: Callable[[], None]) -> None:
        """Call ``arrive`` ``rate`` times a second on average, independently of each other, up to that time."""

        def one() -> None:
            if self._now < until:
                self.after(self.random.expovariate(rate), one)
                arrive()

        self.after(self.random.expovariate(rate), one)
