"""Request accounting of one scope: server, service, client, or service through client.

Source: linkerd-config spec 9.9. A 5xx answer is a failure (the default classifier of spec 5.7), whoever made it.
"""

from __future__ import annotations

from meshgw.core.exchange import Exchange
from meshgw.telemetry.histogram import bucket_of
from meshgw.telemetry.outcomes import Outcomes


class RequestStats:
    """Counts whole requests: from their arrival to the end of the answer."""

    __slots__ = ("_began", "_outcomes")

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes

    def on_request(self, ex: Exchange) -> None:
        """A request came this far."""
        self._outcomes.started += 1

    def on_end(self, ex: Exchange) -> None:
        """It ended."""
        record(self._outcomes, ex, ex.micros, ex.bucket)


class AttemptStats:
    """Counts attempts on a bound name, in the client's scope and in that of the service through it."""

    __slots__ = ("_client", "_service")

    def __init__(self, client: Outcomes, service: Outcomes) -> None:
        self._client, self._service = client, service

    def on_request(self, ex: Exchange) -> None:
        """An attempt begins."""
        self._client.started += 1
        self._service.started += 1

    def on_end(self, ex: Exchange) -> None:
        """It ended; its time counts from its own beginning."""
        micros, bucket = ex.micros, ex.bucket
        if ex.attempts:
            micros = int((ex.ended - ex.attempt_started) * 1e6)
            bucket = bucket_of(micros)
        record(self._client, ex, micros, bucket)
        record(self._service, ex, micros, bucket)


def record(outcomes: Outcomes, ex: Exchange, micros: int, bucket: int) -> None:
    """Count how ``ex`` ended, which took ``micros``."""
    status = ex.status
    if status:
        outcomes.ended(status, status < 500, bucket, micros)
    else:
        outcomes.failed(type(ex.error).__name__, bucket, micros)
