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
from meshgw.errors import DeadlineExceeded, MeshError, RequestTimeout

NANOS = 1_000_000_000


class ServerTimeout:
    """A server's limit for a whole request, from its arrival; ``seconds`` as configured."""

    __slots__ = ("_seconds", "_wheel")

    def __init__(self, wheel: Wheel, seconds: float) -> None:
        self._wheel, self._seconds = wheel, seconds

    def on_request(self, ex: Exchange) -> None:
        """Start the limit."""
        ex.server_timer = self._wheel.after(self._seconds, lambda: ex.walk.expired(ex, self._error(ex)))

    def _error(self, ex: Exchange) -> MeshError:
        return RequestTimeout(name=ex.name.show() if ex.name is not None else "the request", seconds=self._seconds, scope="server")

    def on_response(self, ex: Exchange) -> None:
        """The answer began in time."""
        if ex.server_timer is not None:
            ex.server_timer.cancel()

    on_end = on_response


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
        error = RequestTimeout(name=_name(ex), seconds=self._seconds, scope="total")
        ex.total_timer = self._wheel.after(self._seconds, lambda: ex.walk.expired(ex, error))

    def on_response(self, ex: Exchange) -> None:
        """The answer began in time."""
        if ex.total_timer is not None:
            ex.total_timer.cancel()

    on_end = on_response


class AttemptTimeout:
    """A client's limit for each attempt; ``seconds`` as configured."""

    __slots__ = ("_seconds", "_wheel")

    def __init__(self, wheel: Wheel, seconds: float) -> None:
        self._wheel, self._seconds = wheel, seconds

    def on_request(self, ex: Exchange) -> None:
        """Start the limit."""
        error = errors.AttemptTimeout(name=_name(ex), seconds=self._seconds)
        ex.attempt_timer = self._wheel.after(self._seconds, lambda: ex.walk.attempt_expired(ex, error))

    def on_response(self, ex: Exchange) -> None:
        """The answer began in time."""
        if ex.attempt_timer is not None:
            ex.attempt_timer.cancel()

    on_end = on_response


def _name(ex: Exchange) -> str:
    return ex.name.show() if ex.name is not None else ""
