"""Injected faults: a part of a service's requests is delayed or answered with an error, so that teams can test their timeouts.

Not a feature of Linkerd. Off unless a service's ``faults`` block asks for it. Faults happen before a request is bound, so that they never
touch endpoints, breakers or the retries of other requests; they are counted apart and say so in ``l5d-err``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from meshgw.core.exchange import Exchange
from meshgw.core.stack import WAIT, Reply, Wait
from meshgw.core.timers import Wheel

HEADER = b"l5d-fault"
LONGEST_MS = 3_600_000
"""A caller may not hold a request for longer than an hour."""
_DELAY = re.compile(rb"delay=([0-9]{1,7})ms\Z")
_ABORT = re.compile(rb"abort=([2-5][0-9]{2})\Z")  # 1xx would be no answer but the announcement of one


class FaultStats(Protocol):
    """What is counted."""

    def delayed(self) -> None:
        """A request was delayed."""
        ...

    def aborted(self) -> None:
        """A request was answered with an injected error."""
        ...


class Faults:
    """Delays and aborts by chance, or as the request itself asks for when ``by_header`` is set.

    ``delay_share`` and ``abort_share`` are parts of 1; ``random`` gives numbers in [0, 1).
    """

    __slots__ = ("_abort_share", "_by_header", "_delay", "_delay_share", "_random", "_stats", "_status", "_wheel")

    def __init__(
        self,
        *,
        delay_share: float,
        delay: float,
        abort_share: float,
        status: int,
        by_header: bool,
        random: Callable[[], float],
        wheel: Wheel,
        stats: FaultStats,
    ) -> None:
        """``delay`` is in seconds."""
        self._delay_share, self._delay, self._abort_share, self._status = delay_share, delay, abort_share, status
        self._by_header, self._random, self._wheel, self._stats = by_header, random, wheel, stats

    def on_request(self, ex: Exchange) -> Reply | Wait | None:
        """Decide, delay, answer."""
        delay = self._delay if self._delay_share and self._random() < self._delay_share else 0.0
        status = self._status if self._abort_share and self._random() < self._abort_share else 0
        if self._by_header:
            value = ex.headers.get(HEADER)
            if value is not None:
                ex.headers.remove(HEADER)  # it acts once, not at every gateway on the way
                asked_delay, asked_status = read_fault(value)
                delay, status = asked_delay or delay, asked_status or status
        if delay:
            self._stats.delayed()
            ex.fault_timer = self._wheel.after(delay, lambda: ex.walk.resume(ex, self._abort(status) if status else None))
            return WAIT
        return self._abort(status) if status else None

    def _abort(self, status: int) -> Reply:
        self._stats.aborted()
        text = f"injected fault: abort with {status}"
        headers = ((b"l5d-err", text.replace(" ", "+").replace(":", "%3A").encode("ascii")), (b"Content-Type", b"text/plain"))
        return Reply(status, text.encode("ascii"), headers)

    def on_end(self, ex: Exchange) -> None:
        """A request that ends while it is delayed is resumed no more."""
        if ex.fault_timer is not None:
            ex.fault_timer.cancel()


def read_fault(value: bytes) -> tuple[float, int]:
    """The delay in seconds and the status that ``l5d-fault`` asks for; 0 for what it does not, or not well, say."""
    delay, status = 0.0, 0
    for part in value.split(b";"):
        part = part.strip()
        if match := _DELAY.match(part):
            delay = min(int(match.group(1)), LONGEST_MS) / 1000
        elif match := _ABORT.match(part):
            status = int(match.group(1))
    return delay, status
