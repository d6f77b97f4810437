"""Time limits of requests: a server's, a service's total, a client's per attempt, and the deadline that travels with a request.

Source: linkerd-config spec 4.2 (timeoutMs), 4.5 and 4.7, 7.1 (l5d-ctx-deadline), 10.8. A limit ends with the head of the answer: bodies may
take as long as they flow. Linkerd passes deadlines on without acting on them; here a request whose deadline has passed is not sent, and one
under way is given up.
"""

from __future__ import annotations

from collections.abc import Callable

from meshgw import errors
from meshgw.core.exchange import Exchange
from meshgw.core.timers import Timer, Wheel
from meshgw.errors import DeadlineExceeded, RequestTimeout
from meshgw.telemetry.histogram import Histogram

NANOS = 1_000_000_000


class Countdown:
    """One limit for many requests: being equally long for all, it passes in the order in which they began.

    So a request costs an entry in a dictionary and its removal, and one timer serves them all. ``clock`` gives the seconds that
    beginnings are given in; ``expired`` is called for a request not stopped within ``seconds``, or up to two ticks of the wheel later.
    """

    __slots__ = ("_clock", "_expired", "_running", "_seconds", "_timer", "_wheel")

    def __init__(self, wheel: Wheel, clock: Callable[[], float], seconds: float, expired: Callable[[Exchange], None]) -> None:
        self._wheel, self._clock, self._seconds, self._expired = wheel, clock, seconds, expired
        self._running: dict[Exchange, float] = {}
        self._timer: Timer | None = None

    def start(self, ex: Exchange, began: float) -> None:
        """The request's time runs since ``began``."""
        self._running[ex] = began
        if self._timer is None:
            self._timer = self._wheel.after(self._seconds, self._look)

    def stop(self, ex: Exchange) -> None:
        """It runs no longer; may be called for one that never ran."""
        self._running.pop(ex, None)

    def _look(self) -> None:
        self._timer = None
        running = self._running
        limit = self._clock() - self._seconds
        while running:
            ex, began = next(iter(running.items()))
            if began > limit:
                self._timer = self._wheel.after(began - limit, self._look)
                return
            del running[ex]
            self._expired(ex)


class ServerTimeout:
    """A server's limit for a whole request, from its arrival; ``seconds`` as configured."""

    __slots__ = ("_countdown", "_seconds")

    def __init__(self, wheel: Wheel, clock: Callable[[], float], seconds: float) -> None:
        self._seconds = seconds
        self._countdown = Countdown(wheel, clock, seconds, self._expired)

    def _expired(self, ex: Exchange) -> None:
        ex.walk.expired(ex, RequestTimeout(name=_name(ex) or "the request", seconds=self._seconds, scope="server"))

    def on_request(self, ex: Exchange) -> None:
        """Start the limit."""
        self._countdown.start(ex, ex.arrived)

    def on_end(self, ex: Exchange) -> None:
        """The request ended; once its answer has begun the walk does not mind the limit."""
        self._countdown.stop(ex)


class Deadlines:
    """Enforces the deadlines that requests come with, in the field ``said_in``. ``now`` gives seconds since the epoch."""

    __slots__ = ("_now", "_said_in", "_transit", "_wheel")

    def __init__(self, wheel: Wheel, now: Callable[[], float], said_in: str = "l5d-ctx-deadline", transit: Histogram | None = None) -> None:
        """``transit`` gets the milliseconds since a deadline was set, where the field tells when that was."""
        self._wheel, self._now, self._said_in, self._transit = wheel, now, said_in, transit

    def start(self, ex: Exchange) -> None:
        """Give ``ex`` up at its deadline; the walk ends the timer. Raises :class:`DeadlineExceeded` when it has passed already."""
        assert ex.deadline is not None
        now = self._now()
        if self._transit is not None:
            self._transit.add(max(0.0, now - ex.deadline[0] / NANOS) * 1000)
        left = ex.deadline[1] / NANOS - now
        if left <= 0:
            raise DeadlineExceeded(late=-left, said_in=self._said_in)
        ex.deadline_timer = self._wheel.after(left, lambda: ex.walk.expired(ex, DeadlineExceeded(late=0.0, said_in=self._said_in)))


class TotalTimeout:
    """A service's limit for a request with all its retries; the deadline that is passed on is narrowed to it.

    ``now`` gives seconds since the epoch, for deadlines.
    """

    __slots__ = ("_countdown", "_nanos", "_now", "_seconds")

    def __init__(self, wheel: Wheel, clock: Callable[[], float], seconds: float, now: Callable[[], float]) -> None:
        self._seconds, self._now = seconds, now
        self._nanos = int(seconds * NANOS)
        self._countdown = Countdown(wheel, clock, seconds, self._expired)

    def _expired(self, ex: Exchange) -> None:
        ex.walk.expired(ex, RequestTimeout(name=_name(ex), seconds=self._seconds, scope="total"))

    def on_request(self, ex: Exchange) -> None:
        """Start the limit."""
        stamp = int(self._now() * NANOS)
        ends = stamp + self._nanos
        deadline = ex.deadline
        ex.deadline = (stamp, ends) if deadline is None else (max(deadline[0], stamp), min(deadline[1], ends))
        self._countdown.start(ex, ex.arrived)

    def on_end(self, ex: Exchange) -> None:
        """As with a server's limit."""
        self._countdown.stop(ex)


class AttemptTimeout:
    """A client's limit for each attempt; ``seconds`` as configured."""

    __slots__ = ("_countdown", "_seconds")

    def __init__(self, wheel: Wheel, clock: Callable[[], float], seconds: float) -> None:
        self._seconds = seconds
        self._countdown = Countdown(wheel, clock, seconds, self._expired)

    def _expired(self, ex: Exchange) -> None:
        ex.walk.attempt_expired(ex, errors.AttemptTimeout(name=_name(ex), seconds=self._seconds))

    def on_request(self, ex: Exchange) -> None:
        """Start the limit."""
        self._countdown.start(ex, ex.attempt_started)

    def on_end(self, ex: Exchange) -> None:
        """The attempt ended, with an answer or without."""
        self._countdown.stop(ex)


def _name(ex: Exchange) -> str:
    return ex.name.show() if ex.name is not None else ""
