"""Time limits of requests: a server's, a service's total, a client's per attempt, and the deadline that travels with a request.

Source: linkerd-config spec 4.2 (timeoutMs), 4.5 and 4.7, 7.1 (l5d-ctx-deadline), 10.8. A limit ends with the head of the answer: bodies may
take as long as they flow. Linkerd passes deadlines on without acting on them; here a request whose deadline has passed is not sent, and one
under way is given up. Timers go to the wheel.
"""

from __future__ import annotations

from collections.abc import Callable

from meshgw import errors
from meshgw.core.exchange import Exchange
from meshgw.core.timers import Wheel
from meshgw.errors import DeadlineExceeded, RequestTimeout

NANOS = 1_000_000_000


class ServerTimeout:
    """A server's limit for a whole request, from its arrival; ``seconds`` as configured."""

    __slots__ = ("_seconds", "_wheel")

    def __init__(self, wheel: Wheel, seconds: float) -> None:
        self._wheel, self._seconds = wheel, seconds

    def on_request(self, ex: Exchange) -> None:
        """Start the limit."""
        # the error is made when it happens, not for every request
        ex.server_timer = self._wheel.after(
            self._seconds,
            lambda: ex.walk.expired(ex, RequestTimeout(name=_name(ex) or "the request", seconds=self._seconds, scope="server")),
        )

    def on_end(self, ex: Exchange) -> None:
        """The request ended; once its answer has begun the walk does not mind the limit."""
        if ex.server_timer is not None:
            ex.server_timer.cancel()


class Deadlines:
    """Enforces the deadlines that requests come with. ``now`` gives seconds since the epoch."""

    __slots__ = ("_now", "_wheel")

    def __init__(self, wheel: Wheel, now: Callable[[], float]) -> None:
        self._wheel, self._now = wheel, now

    def start(self, ex: Exchange) -> None:
        """Give ``ex`` up at its deadline; the walk ends the timer. Raises :class:`DeadlineExceeded` when it has passed already."""
        assert ex.deadline is not None
        left = ex.deadline[1] / NANOS - self._now()
        if left <= 0:
            raise DeadlineExceeded(late=-left)
        ex.deadline_timer = self._wheel.after(left, lambda: ex.walk.expired(ex, DeadlineExceeded(late=0.0)))


class TotalTimeout:
    """A service's limit for a request with all its retries; the deadline that is passed on is narrowed to it.

    ``now`` gives seconds since the epoch, for deadlines.
    """

    __slots__ = ("_now", "_seconds", "_wheel")

    def __init__(self, wheel: Wheel, seconds: float, now: Callable[[], float]) -> None:
        self._wheel, self._seconds, self._now = wheel, seconds, now

    def on_request(self, ex: Exchange) -> None:
        """Start the limit."""
        stamp = int(self._now() * NANOS)
        ends = stamp + int(self._seconds * NANOS)
        deadline = ex.deadline
        ex.deadline = (stamp, ends) if deadline is None else (max(deadline[0], stamp), min(deadline[1], ends))
        ex.total_timer = self._wheel.after(
            self._seconds, lambda: ex.walk.expired(ex, RequestTimeout(name=_name(ex), seconds=self._seconds, scope="total"))
        )

    def on_end(self, ex: Exchange) -> None:
        """As with a server's limit."""
        if ex.total_timer is not None:
            ex.total_timer.cancel()


class AttemptTimeout:
    """A client's limit for each attempt; ``seconds`` as configured."""

    __slots__ = ("_seconds", "_wheel")

    def __init__(self, wheel: Wheel, seconds: float) -> None:
        self._wheel, self._seconds = wheel, seconds

    def on_request(self, ex: Exchange) -> None:
        """Start the limit."""
        ex.attempt_timer = self._wheel.after(
            self._seconds, lambda: ex.walk.attempt_expired(ex, errors.AttemptTimeout(name=_name(ex), seconds=self._seconds))
        )

    def on_end(self, ex: Exchange) -> None:
        """The attempt ended, with an answer or without."""
        if ex.attempt_timer is not None:
            ex.attempt_timer.cancel()


def _name(ex: Exchange) -> str:
    return ex.name.show() if ex.name is not None else ""
