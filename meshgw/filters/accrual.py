"""Failure accrual: endpoints that fail too often are avoided for a while and then tried with one request.

Source: linkerd-config spec 10.3. A policy says when an endpoint is dead and for how long, a :class:`Breaker` is the state machine of one
endpoint. Both are pure: timers are injected, and whoever sends the requests tells how they end. Times are seconds.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from math import exp
from random import Random
from typing import Any, ClassVar, Final, Protocol

import attrs

from meshgw.config.document import at_least, between, option
from meshgw.config.retries import BACKOFFS, Backoff
from meshgw.core.timers import equal_jittered
from meshgw.filters.budget import Waits, build_waits
from meshgw.kinds import Kind, Runtime

DEFAULT_FAILURES: Final = 5
SHORTEST_DEATH, LONGEST_DEATH = 5.0, 300.0
"""Seconds of the default backoff (spec 10.3)."""
FEWEST_REQUESTS: Final = 5
"""What a window must hold before its success rate means anything (Finagle's)."""


class Policy(Protocol):
    """Decides when an endpoint is dead.

    One that has an attribute ``ignores_successes`` that is true need not be told of a success after another one.
    """

    @property
    def streak(self) -> int:
        """Failures since the last success."""
        ...

    def succeeded(self) -> None:
        """A request succeeded."""
        ...

    def failed(self) -> float | None:
        """A request failed: for how many seconds the endpoint is dead now, or None when it is not."""
        ...

    def revived(self) -> None:
        """The endpoint is alive again: forget what was, backoff included."""
        ...


class ConsecutiveFailures:
    """Dead after ``failures`` failures in a row."""

    __slots__ = ("_backoff", "_failures", "_waits", "streak")
    ignores_successes: ClassVar[bool] = True

    def __init__(self, failures: int, backoff: Waits) -> None:
        self._failures, self._backoff = failures, backoff
        self._waits = backoff()
        self.streak = 0

    def succeeded(self) -> None:
        """See :class:`Policy`."""
        self.streak = 0

    def failed(self) -> float | None:
        """See :class:`Policy`."""
        self.streak += 1
        return next(self._waits) if self.streak >= self._failures else None

    def revived(self) -> None:
        """See :class:`Policy`."""
        self.streak = 0
        self._waits = self._backoff()


class SuccessRate:
    """Dead while the moving average of successes over ``requests`` requests is below ``rate``, judged after that many requests."""

    __slots__ = ("_backoff", "_kept", "_rate", "_required", "_requests", "_seen", "_waits", "streak")

    def __init__(self, rate: float, requests: int, backoff: Waits) -> None:
        self._required, self._requests, self._backoff = rate, requests, backoff
        self._kept = exp(-1.0 / requests)
        self._waits = backoff()
        self._rate, self._seen, self.streak = 1.0, 0, 0

    def succeeded(self) -> None:
        """See :class:`Policy`."""
        self._update(1.0)
        self.streak = 0

    def failed(self) -> float | None:
        """See :class:`Policy`."""
        self._update(0.0)
        self.streak += 1
        return next(self._waits) if self._seen >= self._requests and self._rate < self._required else None

    def revived(self) -> None:
        """See :class:`Policy`."""
        self._rate, self._seen, self.streak = 1.0, 0, 0
        self._waits = self._backoff()

    def _update(self, outcome: float) -> None:
        self._rate = self._rate * self._kept + outcome * (1.0 - self._kept) if self._seen else outcome
        self._seen += 1


class SuccessRateWindowed:
    """Dead while the moving average of successes over ``window`` seconds is below ``rate``.

    It is judged when a whole window has passed and at least ``FEWEST_REQUESTS`` requests were seen. ``clock`` gives monotonic seconds.
    """

    __slots__ = ("_at", "_backoff", "_clock", "_rate", "_required", "_seen", "_since", "_waits", "_window", "streak")

    def __init__(self, rate: float, window: float, backoff: Waits, clock: Callable[[], float]) -> None:
        self._required, self._window, self._backoff, self._clock = rate, window, backoff, clock
        self._waits = backoff()
        self._rate, self._seen, self.streak = 1.0, 0, 0
        self._at = self._since = clock()

    def succeeded(self) -> None:
        """See :class:`Policy`."""
        self._update(1.0)
        self.streak = 0

    def failed(self) -> float | None:
        """See :class:`Policy`."""
        self._update(0.0)
        self.streak += 1
        if self._at - self._since < self._window or self._seen < FEWEST_REQUESTS or self._rate >= self._required:
            return None
        return next(self._waits)

    def revived(self) -> None:
        """See :class:`Policy`."""
        self._rate, self._seen, self.streak = 1.0, 0, 0
        self._at = self._since = self._clock()
        self._waits = self._backoff()

    def _update(self, outcome: float) -> None:
        now = self._clock()
        if self._seen:
            kept = exp((self._at - now) / self._window)
            self._rate = self._rate * kept + outcome * (1.0 - kept)
        else:
            self._rate = outcome
        self._seen += 1
        self._at = now


class Cancellable(Protocol):
    """A call to come (see :class:`meshgw.core.timers.Timer`)."""

    def cancel(self) -> None:
        """Make it not happen."""
        ...


After = Callable[[float, Callable[[], None]], Cancellable]
"""Calls a function after some seconds, as :meth:`meshgw.core.timers.Wheel.after` does."""

OnChange = Callable[[bool], None]
"""Is told whether the endpoint is available, when that has changed."""


class AccrualStats(Protocol):
    """What the breakers of a client count (spec 9.9, ``failure_accrual/``)."""

    def removed(self) -> None:
        """An endpoint that was alive is dead."""
        ...

    def revived(self) -> None:
        """A probe succeeded."""
        ...

    def probed(self) -> None:
        """A probe was sent."""
        ...

    def removed_for(self, seconds: float) -> None:
        """An endpoint was dead for so long."""
        ...


class State(enum.Enum):
    """The state of a breaker; the values are for admin."""

    ALIVE = "alive"
    DEAD = "dead"
    PROBE_OPEN = "probeOpen"
    PROBE_CLOSED = "probeClosed"


class Breaker:
    """The state machine of one endpoint: alive, dead, open for one probe, waiting for that probe's end.

    Tell it :meth:`begun` when a request is sent there, and how it ended: :meth:`succeeded`, :meth:`failed`, or :meth:`abandoned` when
    nobody will know. While ``is_alive`` there is no need to tell that a request begins, while ``is_calm`` none to tell of a success.
    """

    __slots__ = (
        *("_after", "_clock", "_ignores", "_on_change", "_policy", "_risked", "_since", "_state", "_stats", "_timer", "_until"),
        *("is_alive", "is_calm"),
    )

    def __init__(self, policy: Policy, *, after: After, clock: Callable[[], float], stats: AccrualStats, on_change: OnChange) -> None:
        self._policy, self._after, self._clock, self._stats, self._on_change = policy, after, clock, stats, on_change
        self._state = State.ALIVE
        self._timer: Cancellable | None = None
        self._since = self._until = 0.0
        self._risked = 0
        self._ignores: bool = getattr(policy, "ignores_successes", False)
        self.is_alive = True
        self.is_calm = False

    @property
    def is_available(self) -> bool:
        """Whether a request should be sent there."""
        return self._state is State.ALIVE or self._state is State.PROBE_OPEN

    def begun(self) -> None:
        """A request was sent there. The first one after a death is the probe; those sent in spite of it are risked."""
        if self._state is State.PROBE_OPEN:
            self._stats.probed()
            self._enter(State.PROBE_CLOSED)
        elif self._state is State.DEAD:
            self._risked += 1

    def succeeded(self) -> None:
        """A request succeeded."""
        if not self.is_alive:
            self._recover()
        self._policy.succeeded()
        self.is_calm = self._ignores and self.is_alive

    def failed(self) -> None:
        """A request failed, or no connection could be had for it."""
        state = self._state
        self.is_calm = False
        if state is State.ALIVE or state is State.PROBE_CLOSED:
            seconds = self._policy.failed()
            if seconds is not None:
                self._die(seconds)
            elif state is State.PROBE_CLOSED:
                # The probe failed, but the policy does not judge yet: ask again.
                self._enter(State.PROBE_OPEN)

    def abandoned(self) -> None:
        """A request ended without telling anything of the endpoint; if it was the probe, the next one is."""
        if self._state is State.PROBE_CLOSED:
            self._enter(State.PROBE_OPEN)

    def rediscovered(self) -> None:
        """Discovery tells of the endpoint anew, for example after a deployment: a dead one may be probed now."""
        if self._state is State.DEAD:
            self._probe()

    def stop(self) -> None:
        """The endpoint is gone. Should it come back, a dead one begins with a probe."""
        self.rediscovered()

    def state(self) -> dict[str, Any]:
        """How it is, for admin; ``secondsUntilProbe`` only while it is dead."""
        shown: dict[str, Any] = {"state": self._state.value, "failuresInARow": self._policy.streak}
        if self._state is State.DEAD:
            shown["secondsUntilProbe"] = max(0.0, round(self._until - self._clock(), 3))
        return shown

    def _recover(self) -> None:
        if self._state is State.PROBE_CLOSED:
            self._policy.revived()
            self._stats.revived()
            self._enter(State.ALIVE)
        elif self._risked:
            # Where all endpoints are dead, requests are sent all the same; an answer to one of them is a reason to try earlier.
            self.rediscovered()

    def _die(self, seconds: float) -> None:
        if self._state is State.ALIVE:
            self._stats.removed()
        self._since = self._clock()
        self._until = self._since + seconds
        self._risked = 0
        self._timer = self._after(seconds, self._probe)
        self._enter(State.DEAD)

    def _probe(self) -> None:
        self._cancel()
        self._stats.removed_for(self._clock() - self._since)
        self._enter(State.PROBE_OPEN)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _enter(self, state: State) -> None:
        before = self.is_available
        self._state = state
        self.is_alive = state is State.ALIVE
        if self.is_available is not before:
            self._on_change(not before)


# --- kinds


@attrs.frozen(kw_only=True)
class AccrualConfig:
    """What the policies have in common."""

    backoff: Backoff | None = option(
        default=None,
        doc="How long an endpoint is dead, the first time and after each failed probe.",
        variants=BACKOFFS,
        effective="equal jitter from 5 s to 300 s",
    )


@attrs.frozen(kw_only=True)
class ConsecutiveFailuresConfig(AccrualConfig):
    """An endpoint is dead after a number of failures in a row."""

    failures: int = option(doc="Failures in a row.", check=at_least(1))


@attrs.frozen(kw_only=True)
class SuccessRateConfig(AccrualConfig):
    """An endpoint is dead when too few of its requests succeed, averaged over a number of requests."""

    success_rate: float = option(doc="Least part of the requests that must succeed, 0 to 1.", check=between(0, 1))
    requests: int = option(doc="Requests over which the average is taken, and before which it is not judged.", check=at_least(1))


@attrs.frozen(kw_only=True)
class SuccessRateWindowedConfig(AccrualConfig):
    """An endpoint is dead when too few of its requests succeed, averaged over time."""

    success_rate: float = option(doc="Least part of the requests that must succeed, 0 to 1.", check=between(0, 1))
    window: int = option(doc="Seconds over which the average is taken, and before which it is not judged.", check=at_least(1))


@attrs.frozen(kw_only=True)
class NoAccrualConfig(AccrualConfig):
    """Failures of an endpoint are not counted."""


MakePolicy = Callable[[], Policy]
"""Makes the policy of one endpoint."""


def deaths(config: Backoff | None, rng: Random) -> Waits:
    """How long an endpoint is dead each time, by a ``backoff`` block or its absence."""
    if config is not None:
        return build_waits(config, rng)
    return lambda: equal_jittered(rng, SHORTEST_DEATH, LONGEST_DEATH)


def default_policy(rng: Random) -> MakePolicy:
    """What applies without a ``failureAccrual`` block: five failures in a row."""
    waits = deaths(None, rng)
    return lambda: ConsecutiveFailures(DEFAULT_FAILURES, waits)


def build_consecutive_failures(config: ConsecutiveFailuresConfig, runtime: Runtime) -> MakePolicy:
    """The policies of one client's endpoints."""
    waits = deaths(config.backoff, runtime.random)
    return lambda: ConsecutiveFailures(config.failures, waits)


def build_success_rate(config: SuccessRateConfig, runtime: Runtime) -> MakePolicy:
    """The policies of one client's endpoints."""
    waits = deaths(config.backoff, runtime.random)
    return lambda: SuccessRate(config.success_rate, config.requests, waits)


def build_success_rate_windowed(config: SuccessRateWindowedConfig, runtime: Runtime) -> MakePolicy:
    """The policies of one client's endpoints."""
    waits, clock = deaths(config.backoff, runtime.random), runtime.reactor.seconds
    return lambda: SuccessRateWindowed(config.success_rate, config.window, waits, clock)


def build_none(_config: NoAccrualConfig, _runtime: Runtime) -> None:
    """No policy: endpoints need no breaker."""
    return None


CONSECUTIVE_FAILURES = Kind(id="io.l5d.consecutiveFailures", config=ConsecutiveFailuresConfig, build=build_consecutive_failures)
SUCCESS_RATE = Kind(id="io.l5d.successRate", config=SuccessRateConfig, build=build_success_rate)
SUCCESS_RATE_WINDOWED = Kind(id="io.l5d.successRateWindowed", config=SuccessRateWindowedConfig, build=build_success_rate_windowed)
NONE = Kind(id="none", config=NoAccrualConfig, build=build_none)
