"""Request accounting by service, client, and service through client; the walk counts for the server itself.

Source: linkerd-config spec 9.9. What is a success was decided by the service's classifier; of errors made here, 5xx are failures. An
ordinary request, one attempt that was answered, is counted once for all three by a :class:`Tally`; :class:`ServiceStats` and
:class:`AttemptStats` count the others.
"""

from __future__ import annotations

from typing import Final, Protocol

from meshgw.core.exchange import Exchange
from meshgw.errors import BalanceError, BindError, ConnectError
from meshgw.telemetry.histogram import Histogram, bucket_of
from meshgw.telemetry.outcomes import Cell, Outcomes

_NOT_SENT: Final = (BindError, BalanceError, ConnectError)
"""Errors of attempts that came to no endpoint."""


class Budget(Protocol):
    """A retry budget (:class:`meshgw.filters.budget.RetryBudget`), filled in line: see there."""

    until: float
    requests: int

    def turn(self) -> None:
        """Begin a new slice of its time."""
        ...


class ServiceStats:
    """Counts requests of a logical name, all attempts together; errors made here count by their name."""

    __slots__ = ("budget", "outcomes", "per_request")

    def __init__(self, outcomes: Outcomes, budget: Budget, per_request: Histogram) -> None:
        """``budget`` is the retry budget to fill, ``per_request`` gets each request's number of retries."""
        self.outcomes, self.budget, self.per_request = outcomes, budget, per_request

    def on_request(self, ex: Exchange) -> None:
        """A request of this name begins."""
        self.outcomes.started += 1
        budget = self.budget
        if ex.arrived >= budget.until:
            budget.turn()
        budget.requests += 1

    def on_end(self, ex: Exchange) -> None:
        """It ended."""
        cell = self.outcomes.cell(ex.outcome if ex.error is None else type(ex.error).__name__)
        cell.sum += ex.micros
        cell.buckets[ex.bucket] += 1
        self.per_request.add(ex.retries)


class AttemptStats:
    """Counts attempts on a bound name, in the client's scope and in that of the service through it."""

    __slots__ = ("_acquisition", "_dtab_size", "_dtab_sizes", "budget", "client", "per_request", "service")

    def __init__(
        self,
        client: Outcomes,
        service: Outcomes,
        budget: Budget,
        *,
        per_request: Histogram,
        acquisition: Histogram,
        dtab_sizes: Histogram,
        dtab_size: int = 0,
    ) -> None:
        """``budget`` is the requeue budget to fill, ``per_request`` gets each attempt's number of requeues.

        ``acquisition`` gets how long each waited for its connection; those that had to wait are added by others. ``dtab_size`` is that of
        the local dtab of all these requests, counted in ``dtab_sizes`` if there is one.
        """
        self.client, self.service, self.budget, self.per_request = client, service, budget, per_request
        self._acquisition, self._dtab_sizes, self._dtab_size = acquisition, dtab_sizes, dtab_size

    def dispatched(self, count: int) -> None:
        """So many more attempts were made on a connection."""
        self._acquisition.add_zeros(count)
        if self._dtab_size and count:
            self._dtab_sizes.add(self._dtab_size, count)

    def on_request(self, ex: Exchange) -> None:
        """An attempt begins."""
        self.client.started += 1
        self.service.started += 1
        budget = self.budget
        if ex.attempt_started >= budget.until:
            budget.turn()
        budget.requests += 1

    def on_end(self, ex: Exchange, *, last: bool = True) -> None:
        """It ended; ``last`` tells that no requeue follows. One that got no endpoint or no connection was no request (spec 9.9), be it
        that its time was over or its caller gone meanwhile: its service counts it, and the pools count those of the second kind.

        The time of a retry, or after an injected delay, counts from the attempt's own beginning.
        """
        outcome, micros, bucket, error = ex.outcome, ex.micros, ex.bucket, ex.error
        if ex.queued or isinstance(error, _NOT_SENT) or (error is not None and ex.node is None):
            self.client.started -= 1
            self.service.started -= 1
        else:
            if error is not None:
                outcome = type(error).__name__
            if ex.attempt_started != ex.arrived:
                micros = int(((ex.headed or ex.ended) - ex.attempt_started) * 1e6)
                bucket = bucket_of(micros)
            self.dispatched(1)
            for outcomes in (self.client, self.service):
                cell = outcomes.cell(outcome)
                cell.sum += micros
                cell.buckets[bucket] += 1
        if last:
            self.per_request.add(ex.attempts)

    def requeued(self, ex: Exchange) -> None:
        """What was sent goes to another endpoint: one attempt ended, another begins."""
        self.on_end(ex, last=False)
        self.client.started += 1
        self.service.started += 1


class Tally:
    """Counts the ordinary requests of one bound name under a logical one, for the three scopes and two histograms that tell of them.

    The walk writes ``started``, ``cells`` (by outcome, see :class:`meshgw.telemetry.outcomes.Outcomes`) and the requests of both budgets
    itself, as it does so for nearly every request. A request that turns out not to be ordinary leaves. What was counted is handed over
    before anybody reads the metrics, and when the last route and request let go of the tally.
    """

    __slots__ = ("__weakref__", "_attempt", "_counted", "_given", "_service", "cells", "requeues", "retries", "started", "until")

    def __init__(self, service: ServiceStats, attempt: AttemptStats) -> None:
        self._service, self._attempt = service, attempt
        self._counted = Outcomes(status=False, pending=False, folded=service.outcomes.folded)
        self.cells = self._counted.cells
        self.retries, self.requeues = service.budget, attempt.budget
        self.started = self._given = 0
        self.until = float("-inf")

    def turn(self, now: float) -> None:
        """The slice of one of the budgets is over: begin its next one. Called when ``now`` (monotonic seconds) is not before ``until``."""
        for budget in (self.retries, self.requeues):
            if now >= budget.until:
                budget.turn()
        self.until = min(self.retries.until, self.requeues.until)

    def cell(self, outcome: int | str) -> Cell:
        """The cell of an outcome that was not counted yet."""
        return self._counted.cell(outcome)

    def leave(self, *, attempted: bool) -> None:
        """A request is to be counted on its own; ``attempted`` tells whether it came to its first attempt."""
        self.started -= 1
        self._service.outcomes.started += 1
        if attempted:
            self._attempt.client.started += 1
            self._attempt.service.started += 1
        else:
            self.requeues.requests -= 1

    def settle(self) -> None:
        """Hand over what was counted since the last time."""
        service, attempt = self._service, self._attempt
        scopes = (service.outcomes, attempt.client, attempt.service)
        begun, self._given = self.started - self._given, self.started
        done = 0
        for outcomes in scopes:
            outcomes.started += begun
        for outcome, cell in self.cells.items():
            done += cell.count
            cell.give([outcomes.cell(outcome) for outcomes in scopes])
        service.per_request.add_zeros(done)
        attempt.per_request.add_zeros(done)
        attempt.dispatched(done)

    def __del__(self) -> None:
        self.settle()
