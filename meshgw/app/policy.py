"""What applies to one logical name: its classifier, retry budget, backoffs, and their metrics.

Source: linkerd-config spec 4.7, 5.7, 10.1, 10.2 and 9.9 (service scope, retries). Built once per name, shared by its routes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshgw.core.exchange import Exchange, Hold
from meshgw.filters.budget import RetryBudget, Waits
from meshgw.filters.classify import CanReplay
from meshgw.telemetry.metrics import Metrics
from meshgw.telemetry.streams import StreamStats


class ServicePolicy:
    """Judges outcomes and says whether another attempt is allowed."""

    __slots__ = (
        *("_exhausted", "_total", "budget", "can_replay", "classify", "conclude", "hold", "per_request", "streams", "sure_below", "waits"),
    )

    def __init__(
        self,
        classify: Callable[[Exchange], Any],
        budget: RetryBudget,
        waits: Waits,
        metrics: Metrics,
        *,
        can_replay: CanReplay,
        sure_below: int = 0,
        conclude: Callable[[Exchange, list[bytes]], Any] | None = None,
        hold: Hold | None = None,
        streams: StreamStats | None = None,
    ) -> None:
        """``metrics`` is the service's scope. Answers of a status below ``sure_below`` are successes; the classifier judges the others.

        ``conclude`` is given by a classifier that needs the trailers: it judges an answer that was passed on from its head on; ``hold``
        bounds how long and how much of an answer waits for them, None where nothing depends on it. ``streams`` counts those of HTTP/2.
        """
        self.streams = streams
        self.conclude, self.hold, self.can_replay = conclude, hold, can_replay
        self.classify, self.budget, self.waits, self.sure_below = classify, budget, waits, sure_below
        retries = metrics.scope("retries")
        self._total, self._exhausted = retries.counter("total"), retries.counter("budget_exhausted")
        self.per_request = retries.histogram("per_request")
        retries.gauge("budget", function=lambda: float(budget.balance))

    def may_retry(self) -> bool:
        """Whether the budget allows another attempt, which is charged and counted."""
        if self.budget.try_withdraw():
            self._total.incr()
            return True
        self._exhausted.incr()
        return False


def is_replayable(ex: Exchange) -> bool:
    """Whether the request can be sent again as it was: it has no body, or all of it arrived and was kept."""
    return ex.length == 0 or (ex.body_done and ex.replay is not None)
