"""How often requests may be sent again: the budget shared by the requests of one name, and the waits between the attempts of one request.

Source: linkerd-config spec 10.1 and 10.2. Whether an outcome is worth another attempt is ``filters.classify``'s question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from random import Random

from meshgw.config.retries import MOST_PERCENT, MOST_TTL_SECS, Backoff, ConstantBackoff, JitteredBackoff, RetryBudgetConfig
from meshgw.core.timers import decorrelated_jittered

SLICES = 10
"""Parts of the window, as Finagle's; what happened counts to within one of them."""

REQUEST_SHARE = 0.2
"""The part of the balance that one request may use up for requeues (Finagle's 20 %)."""

MS = 1000


class RetryBudget:
    """A balance that requests fill and retries use up.

    It is ``min_retries_per_sec`` x ``ttl_secs``, plus ``percent_can_retry`` for each request of the last ``ttl_secs``, less the retries in
    that time. Time is cut in slices; in doubt requests are forgotten early and retries late, so that no retry is allowed beyond what the
    requests of the last ``ttl_secs`` allow.
    """

    __slots__ = (
        *("_asked", "_at", "_clock", "_fraction", "_past_requests", "_past_retries", "_reserve", "_retries", "_retried"),
        *("_slice", "denied", "requests", "until"),
    )

    def __init__(self, ttl_secs: float, min_retries_per_sec: float, percent_can_retry: float, clock: Callable[[], float]) -> None:
        """``percent_can_retry`` is a fraction, ``clock`` gives monotonic seconds. Raises ValueError for a number out of its range."""
        if not 1 <= ttl_secs <= MOST_TTL_SECS:
            raise ValueError(f"ttlSecs must be between 1 and {MOST_TTL_SECS}, not {ttl_secs:g}")
        if not min_retries_per_sec >= 0:
            raise ValueError(f"minRetriesPerSec must be at least 0, not {min_retries_per_sec:g}")
        if not 0 <= percent_can_retry <= MOST_PERCENT:
            raise ValueError(f"percentCanRetry must be between 0 and {MOST_PERCENT:g}, not {percent_can_retry:g}")
        self._clock, self._fraction = clock, percent_can_retry
        self._reserve = min_retries_per_sec * ttl_secs
        self._slice = ttl_secs / SLICES
        # The running slice, and a ring of those behind it; `_at` is where the running one will go.
        self.requests = self._retries = 0
        self._asked, self._retried = [0] * SLICES, [0] * SLICES
        self._at = 0
        self._past_requests = self._past_retries = 0
        self.until = clock() + self._slice
        self.denied = 0
        # A deposit is one look at the time, which a caller that has just looked at the clock does itself: at ``until`` it calls
        # :meth:`turn`, then adds to ``requests``. Both stacks of every request do so, where a call each would show.

    def deposit(self) -> None:
        """A request begins (not a retry)."""
        if self._clock() >= self.until:
            self.turn()
        self.requests += 1

    def try_withdraw(self) -> bool:
        """Whether a retry is allowed; it is charged."""
        if self._clock() >= self.until:
            self.turn()
        if self._balance() < 1.0:
            self.denied += 1
            return False
        self._retries += 1
        return True

    @property
    def balance(self) -> int:
        """The retries that would be allowed now."""
        if self._clock() >= self.until:
            self.turn()
        return max(0, int(self._balance()))

    @property
    def request_limit(self) -> int:
        """The requeues that one request beginning now may make."""
        return int(self.balance * REQUEST_SHARE)

    def _balance(self) -> float:
        return self._reserve + self._fraction * (self._past_requests + self.requests) - self._past_retries - self._retries

    def turn(self) -> None:
        """Begin the slice that the present moment belongs to."""
        slices = int((self._clock() - self.until) / self._slice) + 1
        for _ in range(min(slices, SLICES + 1)):
            self._asked[self._at], self._retried[self._at] = self.requests, self._retries
            self.requests = self._retries = 0
            self._at = (self._at + 1) % SLICES
        # `_at` is the oldest slice now: a request there may be older than the window, a retry there younger.
        self._past_requests = sum(self._asked) - self._asked[self._at]
        self._past_retries = sum(self._retried)
        self.until += slices * self._slice


def build_budget(config: RetryBudgetConfig, clock: Callable[[], float]) -> RetryBudget:
    """The budget of one name."""
    return RetryBudget(config.ttl_secs, config.min_retries_per_sec, config.percent_can_retry, clock)


Waits = Callable[[], Iterator[float]]
"""Begins the sequence of waits (seconds) of one request; it has no end."""


def build_waits(config: Backoff, rng: Random) -> Waits:
    """The waits that a block describes; the sequence begins anew for each request."""
    if isinstance(config, JitteredBackoff):
        least, most = config.min_ms / MS, config.max_ms / MS
        return lambda: decorrelated_jittered(rng, least, most)
    seconds = config.ms / MS if isinstance(config, ConstantBackoff) else 0.0
    return lambda: repeat(seconds)
