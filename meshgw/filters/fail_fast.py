"""Fail-fast: an endpoint that could not be connected to is avoided until a connect succeeds.

Source: linkerd-config spec 10.4; off by default. Pure: timers and the attempt to connect are injected. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from meshgw.filters.accrual import After, Cancellable, OnChange

WAITS: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
LAST_WAIT: Final = 32.0


class FailFast:
    """An endpoint that could not be connected to is busy until an attempt made here succeeds (spec 10.4).

    ``reconnect`` begins an attempt, whose end is told by :meth:`connected` or :meth:`connect_failed` like that of every other one. Attempts
    are made 1, 2, 4, 8, 16 seconds after the failure before, then every 32 seconds.
    """

    __slots__ = ("_after", "_is_trying", "_on_change", "_reconnect", "_timer", "tries")

    def __init__(self, *, after: After, reconnect: Callable[[], None], on_change: OnChange) -> None:
        self._after, self._reconnect, self._on_change = after, reconnect, on_change
        self._timer: Cancellable | None = None
        self._is_trying = False
        self.tries = 0

    @property
    def is_available(self) -> bool:
        """Whether the last connect succeeded, as far as there was one."""
        return self._timer is None and not self._is_trying

    def connect_failed(self) -> None:
        """No connection could be had. Attempts of requests that are sent all the same do not shift the schedule."""
        if self._timer is not None:
            return
        was_available, self._is_trying = self.is_available, False
        wait = WAITS[self.tries] if self.tries < len(WAITS) else LAST_WAIT
        self._timer = self._after(wait, self._try)
        if was_available:
            self._on_change(False)

    def connected(self) -> None:
        """A connection was established, by whomever."""
        self.stop()

    def stop(self) -> None:
        """Make no more attempts; the endpoint is available again, now or should its address come back."""
        was_available = self.is_available
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_trying = False
        self.tries = 0
        if not was_available:
            self._on_change(True)

    def _try(self) -> None:
        self._timer = None
        self._is_trying = True
        self.tries += 1
        self._reconnect()
