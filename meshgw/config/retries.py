"""The blocks about trying again: backoff sequences and retry budgets, which services, clients and failure accrual have in common.

Source: linkerd-config spec 4.7, 10.2 and 10.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from meshgw.config.document import at_least, between, option

MOST_TTL_SECS: Final = 60
MOST_PERCENT: Final = 1000.0


@attrs.frozen(kw_only=True)
class Backoff:
    """How long to wait before each further attempt; the subclass tells."""


@attrs.frozen(kw_only=True)
class ConstantBackoff(Backoff):
    """The same wait each time."""

    ms: int = option(default=0, doc="Milliseconds to wait; 0 does not wait.", check=at_least(0))


@attrs.frozen(kw_only=True)
class JitteredBackoff(Backoff):
    """Random waits (decorrelated jitter): each lies between minMs and three times the one before, and is at most maxMs."""

    min_ms: int = option(doc="Milliseconds of the shortest wait.", check=at_least(1))
    max_ms: int = option(doc="Milliseconds of the longest wait.", check=at_least(1))

    def __attrs_post_init__(self) -> None:
        if self.min_ms > self.max_ms:
            raise ValueError(f"minMs must be at most maxMs, but {self.min_ms} is more than {self.max_ms}")


BACKOFFS: Final[Mapping[str, type[Backoff]]] = {"constant": ConstantBackoff, "jittered": JitteredBackoff}


@attrs.frozen(kw_only=True)
class RetryBudgetConfig:
    """How many requests may be sent again, in proportion to those of the last seconds. Both rates 0 means never."""

    ttl_secs: int = option(default=10, doc="Seconds for which a request counts.", check=between(1, MOST_TTL_SECS))
    min_retries_per_sec: int = option(
        default=10, doc="Retries per second that are allowed however few requests there are.", check=at_least(0)
    )
    percent_can_retry: float = option(
        default=0.2, doc="Retries allowed per request, as a fraction: 0.2 is one for five requests.", check=between(0, MOST_PERCENT)
    )
