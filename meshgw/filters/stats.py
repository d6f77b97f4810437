"""Request accounting of one scope: server, service, client, or service through client.

Source: linkerd-config spec 9.9. What is a success was decided by the service's classifier; of errors made here, 5xx are failures.
"""

from __future__ import annotations

from typing import Protocol

from meshgw.core.exchange import Exchange
from meshgw.errors import ConnectError
from meshgw.telemetry.histogram import Histogram, bucket_of
from meshgw.telemetry.outcomes import Outcomes


class Budget(Protocol):
    """A retry budget (:class:`meshgw.filters.budget.RetryBudget`), filled in line: see there."""

    until: float
    requests: int

    def turn(self) -> None:
        """Begin a new slice of its time."""
        ...


class ServerStats:
    """Counts requests of a server from their arrival to the end of the answer, by what the caller got."""

    __slots__ = ("_cells", "_outcomes")

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        self._cells = outcomes.cells

    def on_request(self, ex: Exchange) -> None:
        """A request came."""
        self._outcomes.started += 1

    def on_end(self, ex: Exchange) -> None:
        """It ended."""
        outcome = ex.outcome
        cell = self._cells.get(outcome) or self._outcomes.cell(outcome)
        cell.count += 1
        cell.sum += ex.micros
        cell.buckets[ex.bucket] += 1


class ServiceStats:
    """Counts requests of a logical name, all attempts together; errors made here count by their name."""

    __slots__ = ("_budget", "_cells", "_outcomes", "_per_request")

    def __init__(self, outcomes: Outcomes, budget: Budget, per_request: Histogram) -> None:
        """``budget`` is the retry budget to fill, ``per_request`` gets each request's number of retries."""
        self._outcomes, self._budget, self._per_request = outcomes, budget, per_request
        self._cells = outcomes.cells

    def on_request(self, ex: Exchange) -> None:
        """A request of this name begins."""
        self._outcomes.started += 1
        budget = self._budget
        if ex.arrived >= budget.until:
            budget.turn()
        budget.requests += 1

    def on_end(self, ex: Exchange) -> None:
        """It ended."""
        outcome = ex.outcome if ex.error is None else type(ex.error).__name__
        cell = self._cells.get(outcome) or self._outcomes.cell(outcome)
        cell.count += 1
        cell.sum += ex.micros
        cell.buckets[ex.bucket] += 1
        if ex.retries:
            self._per_request.add(ex.retries)
        else:
            self._per_request.add_zero()


class AttemptStats:
    """Counts attempts on a bound name, in the client's scope and in that of the service through it."""

    __slots__ = ("_budget", "_client", "_client_cells", "_per_request", "_service", "_service_cells")

    def __init__(self, client: Outcomes, service: Outcomes, budget: Budget, per_request: Histogram) -> None:
        """``budget`` is the requeue budget to fill, ``per_request`` gets each attempt's number of requeues."""
        self._client, self._service, self._budget, self._per_request = client, service, budget, per_request
        self._client_cells, self._service_cells = client.cells, service.cells

    def on_request(self, ex: Exchange) -> None:
        """An attempt begins."""
        self._client.started += 1
        self._service.started += 1
        budget = self._budget
        if ex.attempt_started >= budget.until:
            budget.turn()
        budget.requests += 1

    def on_end(self, ex: Exchange, *, last: bool = True) -> None:
        """It ended; ``last`` tells that no requeue follows. One that got no connection was no request (spec 9.9): the pools count those.

        The time of a retry, or after an injected delay, counts from the attempt's own beginning.
        """
        outcome, micros, bucket, error = ex.outcome, ex.micros, ex.bucket, ex.error
        if error is not None and isinstance(error, ConnectError):
            self._client.started -= 1
            self._service.started -= 1
        else:
            if error is not None:
                outcome = type(error).__name__
            if ex.attempt_started != ex.arrived:
                micros = int((ex.ended - ex.attempt_started) * 1e6)
                bucket = bucket_of(micros)
            cell = self._client_cells.get(outcome) or self._client.cell(outcome)
            cell.count += 1
            cell.sum += micros
            cell.buckets[bucket] += 1
            cell = self._service_cells.get(outcome) or self._service.cell(outcome)
            cell.count += 1
            cell.sum += micros
            cell.buckets[bucket] += 1
        if not ex.attempts and last:
            self._per_request.add_zero()
        elif last:
            self._per_request.add(ex.attempts)

    def requeued(self, ex: Exchange) -> None:
        """What was sent goes to another endpoint: one attempt ended, another begins."""
        self.on_end(ex, last=False)
        self._client.started += 1
        self._service.started += 1
