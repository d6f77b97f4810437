"""Time for everybody: a deadline wheel for the data path, backoff sequences, and ``spawn`` for background coroutines.

Source: DATAPATH.md, design point 8. Timeouts of requests and connections go to one wheel, which keeps at most one reactor call under
way, instead of a ``callLater`` each. A timer fires within one tick after its time, never before.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from meshgw.core.logger import make_logger

_log = make_logger()


class Timer:
    """A call to come; ``cancel()`` is cheap and may be called at any time, also after it fired."""

    __slots__ = ("_slot", "_slots", "function")

    def __init__(self, function: Callable[[], None], slots: dict[int, dict[Timer, None]], slot: int) -> None:
        self.function: Callable[[], None] | None = function
        self._slots, self._slot = slots, slot

    def cancel(self) -> None:
        """Make the call not happen. Nothing of it is left: most timers are cancelled, some long before their time."""
        if self.function is not None:
            self.function = None
            timers = self._slots.get(self._slot)
            if timers is not None and self in timers:
                del timers[self]
                if not timers:
                    del self._slots[self._slot]


class Wheel:
    """Timers with the resolution of one ``tick`` (seconds), driven by ``reactor.callLater`` at most once per tick."""

    def __init__(self, reactor: IReactorTime, tick: float = 0.02) -> None:
        self._reactor, self._tick = reactor, tick
        self._slots: dict[int, dict[Timer, None]] = {}  # each slot's timers in the order of their making
        self._due: int | None = None
        self._call: Any = None
        self._soon: list[Callable[[], None]] = []

    def now(self) -> float:
        """The seconds that its timers go by."""
        return self._reactor.seconds()

    def after(self, seconds: float, function: Callable[[], None]) -> Timer:
        """Call ``function`` once, ``seconds`` from now or up to one tick later."""
        slot = int((self._reactor.seconds() + seconds) / self._tick) + 1
        timer = Timer(function, self._slots, slot)
        timers = self._slots.get(slot)
        if timers is None:
            self._slots[slot] = {timer: None}
            if self._due is None or slot < self._due:
                self._arm(slot)
        else:
            timers[timer] = None
        return timer

    def soon(self, function: Callable[[], None]) -> None:
        """Call ``function`` from the loop, after the present call has returned."""
        self._soon.append(function)
        if len(self._soon) == 1:
            self._reactor.callLater(0, self._run_soon)

    def _run_soon(self) -> None:
        calls, self._soon = self._soon, []
        for function in calls:
            _call(function)

    def _arm(self, slot: int) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._due = slot
        self._call = self._reactor.callLater(max(0.0, slot * self._tick - self._reactor.seconds()), self._run)

    def _run(self) -> None:
        self._due = None
        now = int(self._reactor.seconds() / self._tick + 1e-6)
        for slot in sorted(slot for slot in self._slots if slot <= now):
            for timer in list(self._slots.pop(slot, ())):  # one of these calls may cancel another, or empty a slot
                function, timer.function = timer.function, None
                if function is not None:
                    _call(function)
        if self._slots:
            first = min(self._slots)
            if self._due is None or first < self._due:  # a call above may have armed a later slot
                self._arm(first)


def _call(function: Callable[[], None]) -> None:
    try:
        function()
    except Exception:  # noqa: BLE001 - the rim of the loop: one timer's defect must not take the others along
        _log.failure("defect in a timer's call")


def equal_jittered(rng: Random, least: float, most: float) -> Iterator[float]:
    """Seconds to wait, doubling from ``least`` to ``most``, half of each fixed and half random (spec 10.3).

    As Finagle has it, none is shorter than ``least``: that is the first, and half of each later one is at least that.
    """
    wait, base = least, least
    while True:
        yield wait
        wait = min(most, base + rng.random() * base)
        base = min(most, base * 2)


def decorrelated_jittered(rng: Random, least: float, most: float) -> Iterator[float]:
    """Seconds to wait, each between ``least`` and three times the one before, at most ``most`` (spec 10.3)."""
    last = least
    while True:
        last = min(most, rng.uniform(least, max(least, last * 3)))
        yield last


class Backoff:
    """A restartable sequence of jittered waits between ``least`` and ``most`` seconds."""

    def __init__(self, rng: Random, *, least: float, most: float) -> None:
        self._rng, self._least, self._most = rng, least, most
        self._waits = decorrelated_jittered(rng, least, most)

    def next(self) -> float:
        """The next wait in seconds."""
        return next(self._waits)

    def reset(self) -> None:
        """Begin again with the shortest wait."""
        self._waits = decorrelated_jittered(self._rng, self._least, self._most)


def sleep(clock: IReactorTime, seconds: float) -> Deferred[None]:
    """Fires after ``seconds``; to cancel it takes the call back."""

    def cancel(_waiting: Deferred[None]) -> None:
        call.cancel()

    waiting: Deferred[None] = Deferred(cancel)
    call = clock.callLater(seconds, waiting.callback, None)
    return waiting


class Spawner:
    """Runs background coroutines, logs those that fail, and cancels the rest when stopped."""

    def __init__(self) -> None:
        self._running: set[Deferred[Any]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> Callable[[], None]:
        """Run ``coroutine``; the returned function cancels it."""
        deferred: Deferred[Any] = Deferred.fromCoroutine(coroutine)
        self._running.add(deferred)

        def ended(result: object) -> None:
            self._running.discard(deferred)
            if isinstance(result, Failure) and not result.check(CancelledError):  # type: ignore[no-untyped-call]
                _log.failure("background task {task} failed", result, task=name)

        deferred.addBoth(ended)
        return deferred.cancel

    def stop(self) -> None:
        """Cancel everything that still runs."""
        for deferred in list(self._running):
            deferred.cancel()
