"""Watching things in a backend: work only while somebody looks, the last good answer through outages, and telling how old it is.

Source: linkerd-config spec 2.4 (namer state) and 3.4 (metrics, state machine). A namer says how one thing is followed, as a coroutine
over a :class:`Watch`; :class:`Watches` runs one for each thing that is observed and for a while after, tries again with jittered
backoff for ever, and tells of it in metrics, in the log (once per outage, not per attempt), in ``/namer_state`` and in the error that
waiting requests get. How a backend is spoken to is not its business: see ``backends.http_client``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any, Final, Generic, TypeVar

import attrs
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from meshgw.backends.outages import News, Outages
from meshgw.backends.watch import Pace, Watch, polled
from meshgw.core.live import Failed, Live, Observation, Ok, Source, State
from meshgw.core.logger import make_logger
from meshgw.core.timers import Spawner
from meshgw.errors import BackendError, NamerError
from meshgw.telemetry.metrics import Metrics

__all__ = ["MOST_LINGERING", "MOST_WATCHES", "Pace", "Watch", "Watches", "polled"]

_log = make_logger()

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

MOST_WATCHES: Final = 10_000
"""Things of one namer that are watched at a time: names come from callers, and each is a request under way at the backend."""
MOST_LINGERING: Final = 1000
"""Of these, how many may be watched although nobody looks: a scanner's names must not all be asked for a minute."""


class Watches(Service, Generic[K, T]):
    """The watched things of one backend, by key: each is followed once, however many observe it.

    ``follow`` is one session of following: it tells good answers, and raises :class:`BackendError` when it cannot go on; it may also
    just end, to be called again. ``absent``, if given, is the value told while the backend fails before any good answer; without
    it, observers wait, and are told the error if it is a lasting one; with ``fails_at_once`` they are told any. ``backend`` names it in
    messages (``Consul at localhost:8500``), ``show`` a key, ``show_value`` turns a value into JSON data. ``metrics`` is the scope of the
    counters.
    """

    def __init__(
        self,
        clock: IReactorTime,
        rng: Random,
        metrics: Metrics,
        *,
        backend: str,
        follow: Callable[[Watch[K, T]], Coroutine[Any, Any, None]],
        show: Callable[[K], str],
        show_value: Callable[[T], object],
        absent: T | None = None,
        fails_at_once: bool = False,
        pace: Pace = Pace(),
        most: int = MOST_WATCHES,
    ) -> None:
        self.clock, self.rng, self.backend, self.follow = clock, rng, backend, follow
        self.show, self.show_value, self.absent, self.pace, self._most = show, show_value, absent, pace, most
        self.fails_at_once = fails_at_once
        self.spawner = Spawner()
        self.is_stopped = False
        self._watches: dict[K, Watch[K, T]] = {}
        self._lingering: dict[K, Watch[K, T]] = {}
        self._outages = Outages(clock.seconds)
        self._turned_away: dict[_Reader[K, T], None] = {}
        self._admitting: IDelayedCall | None = None
        self._opens, self._closes, self._cached = metrics.counter("opens"), metrics.counter("closes"), metrics.counter("cached")
        self.errors, self.updates = metrics.counter("errors"), metrics.counter("updates")
        self._refused = metrics.counter("refused")
        metrics.gauge("active", function=lambda: float(len(self._watches)))
        metrics.gauge("lingering", function=lambda: float(len(self._lingering)))
        metrics.gauge("stale", function=lambda: float(sum(watch.is_stale for watch in self._watches.values())))
        metrics.gauge("failing", function=lambda: float(sum(watch.error is not None for watch in self._watches.values())))
        metrics.gauge("oldest_stale_ms", function=self._oldest_stale_ms, most=True)

    def _oldest_stale_ms(self) -> float:
        return max((1000 * (watch.age or 0.0) for watch in self._watches.values() if watch.is_stale), default=0.0)

    def watch(self, key: K) -> Live[T]:
        """The live value of ``key``; it is worked for while this is observed, and a little longer."""

        def start(out: Source[T]) -> Callable[[], None]:
            reader = _Reader(key, out.put)
            self._serve(reader)
            return partial(self._dismiss, reader)

        return Source(start, forget=True)

    def _serve(self, reader: _Reader[K, T]) -> None:
        if self.is_stopped:
            return
        watch = self._obtain(reader.key)
        if watch is not None:
            reader.observation = watch.value.observe(reader.notify)
            return
        self._turned_away[reader] = None
        name = self.show(reader.key)
        reader.notify(Failed(NamerError(detail=f"{self.backend}: {self._most} names are watched already; {name} is one too many")))

    def _dismiss(self, reader: _Reader[K, T]) -> None:
        self._turned_away.pop(reader, None)
        if reader.observation is not None:
            reader.observation.close()

    def _admit_soon(self) -> None:
        """A place is free, or can be made so: give it to who was turned away first, but not while others are being told."""
        if self._turned_away and self._admitting is None:
            self._admitting = self.clock.callLater(0, self._admit)

    def _admit(self) -> None:
        self._admitting = None
        while self._turned_away and (self._lingering or len(self._watches) < self._most):
            reader = next(iter(self._turned_away))
            del self._turned_away[reader]
            self._serve(reader)

    def good_values(self) -> list[tuple[K, T]]:
        """The keys that have a good value now, with it."""
        found = []
        for key, watch in self._watches.items():
            state = watch.value.state
            if watch.good_at is not None and isinstance(state, Ok):
                found.append((key, state.value))
        return found

    def describe(self) -> dict[str, Any]:
        """What is watched, by name, as JSON data for ``/namer_state``."""
        return {self.show(key): watch.describe() for key, watch in self._watches.items()}

    def startService(self) -> None:
        """Watches begin when they are observed, so there is nothing to start."""
        super().startService()  # type: ignore[no-untyped-call]
        self.is_stopped = False

    def stopService(self) -> None:
        """End all watches; observers keep the last state."""
        super().stopService()  # type: ignore[no-untyped-call]
        self.is_stopped = True
        if self._admitting is not None:
            self._admitting.cancel()
            self._admitting = None
        watches, self._watches = self._watches, {}
        self._lingering.clear()
        self._turned_away.clear()
        for watch in watches.values():
            watch.close()
        self._outages.clear()

    # --- for the watches

    def waiting_for(self, watch: Watch[K, T]) -> str:
        """What is awaited while there is no answer."""
        return f"{self.backend}: {self.show(watch.key)}"

    def when(self, seconds: float | None) -> str | None:
        """A moment of the clock as wall-clock time, for operators."""
        if seconds is None:
            return None
        return (datetime.now(UTC) - timedelta(seconds=self.clock.seconds() - seconds)).isoformat(timespec="milliseconds")

    def unwatched(self, watch: Watch[K, T]) -> None:
        """Nobody looks at it any more."""
        if self._watches.get(watch.key) is not watch:
            return  # stopped already
        if len(self._lingering) >= MOST_LINGERING:
            self._forget(next(iter(self._lingering.values())))
        self._lingering[watch.key] = watch
        watch.linger = self.clock.callLater(self.pace.linger, self._forget, watch)
        self._admit_soon()

    def failed(self, watch: Watch[K, T], error: BackendError) -> None:
        """Say so in the log, unless that is known."""
        news = self._outages.failed(watch, error.outage)
        if news is News.NOTHING:
            return
        kept = "the last good answer stays in use" if watch.good_at is not None else "nothing is known yet"
        tell = _log.warn if news is News.OUTAGE else _log.debug
        tell("{error}; {name}: {kept}, trying again", error=str(error), name=self.show(watch.key), kept=kept)

    def recovered(self, watch: Watch[K, T]) -> None:
        """Say so when it was the last one that failed for its reason."""
        seconds = self._outages.recovered(watch)
        if seconds is not None:
            _log.info("{backend} answers again after {seconds:.1f} s", backend=self.backend, seconds=seconds)

    def _obtain(self, key: K) -> Watch[K, T] | None:
        self._lingering.pop(key, None)
        watch = self._watches.get(key)
        if watch is not None:
            self._cached.incr()
            return watch
        if len(self._watches) >= self._most:
            if not self._lingering:
                self._refused.incr()
                return None
            self._forget(next(iter(self._lingering.values())))
        watch = self._watches[key] = Watch(self, key)
        self._opens.incr()
        return watch

    def _forget(self, watch: Watch[K, T]) -> None:
        del self._watches[watch.key]
        self._lingering.pop(watch.key, None)
        watch.close()
        self._outages.recovered(watch)
        self._closes.incr()
        self._admit_soon()


@attrs.define(eq=False)
class _Reader(Generic[K, T]):
    """Who looks at a key: through an observation of its watch, unless there are too many watches."""

    key: K
    notify: Callable[[State[T]], None]
    observation: Observation | None = None
