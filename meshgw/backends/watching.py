"""Watching things in a backend: work only while somebody looks, the last good answer through outages, and telling how old it is.

Source: linkerd-config spec 2.4 (namer state) and 3.4 (metrics, state machine). A namer says how one thing is followed, as a coroutine
over a :class:`Watch`; :class:`Watches` runs one for each thing that is observed and for a while after, tries again with jittered
backoff for ever, and tells of it in metrics, in the log (once per outage, not per attempt), in ``/namer_state`` and in the error that
waiting requests get. How a backend is spoken to is not its business: see ``backends.http_client``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any, Final, Generic, TypeVar

import attrs
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from meshgw.core.live import PENDING, Failed, Live, Ok, Pending, Source
from meshgw.core.timers import Backoff, Spawner, sleep
from meshgw.errors import BackendDefect, BackendError, BackendSilent, NamerError
from meshgw.telemetry.metrics import Metrics

_log = Logger()

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

MOST_WATCHES: Final = 10_000
"""Things of one namer that are watched at a time: names come from callers, and each is a request under way at the backend."""
MOST_LINGERING: Final = 1000
"""Of these, how many may be watched although nobody looks: a scanner's names must not all be asked for a minute."""


@attrs.frozen(kw_only=True)
class Pace:
    """When to try again, and how long silence is believed. All in seconds; waits are drawn between the bounds (decorrelated jitter)."""

    least: float = 0.1
    most: float = 5.0
    lasting_least: float = 1.0
    """After an error that is not likely to go away by itself (403, 404, malformed): it does go away when somebody mends it."""
    lasting_most: float = 30.0
    silence: float = 600.0
    """Without any word for so long the session is ended and counts as failed: a watch must not die unnoticed."""
    steady: float = 5.0
    """A session that lasted so long after a good answer was no part of the trouble before: waits begin with the shortest again."""
    linger: float = 60.0
    """How long a thing is still watched when nobody looks any more; the next caller is likely to want it."""


class Watch(Generic[K, T]):
    """One thing that is watched. For the coroutine that follows it: ``key``, :meth:`good`, :meth:`heard`, :meth:`sleep`, ``facts``."""

    def __init__(self, watches: Watches[K, T], key: K) -> None:
        self.key, self._watches = key, watches
        self.value: Source[T] = Source(self._watched)
        self.facts: dict[str, object] = {}
        """What the follower tells of its requests, for ``/namer_state``: JSON data, no secrets."""
        pace, clock = watches.pace, watches.clock
        self._backoff = Backoff(watches.rng, least=pace.least, most=pace.most)
        self._lasting = Backoff(watches.rng, least=pace.lasting_least, most=pace.lasting_most)
        self._clock = clock
        self._cancel: Callable[[], None] | None = None
        self._guard: IDelayedCall | None = None
        self._had_good = self._was_silent = False
        self.linger: IDelayedCall | None = None
        self.outages: dict[str, None] = {}
        self.started_at: float | None = None
        self.good_at: float | None = None
        self.changed_at: float | None = None
        self.failed_at: float | None = None
        self.error: BackendError | None = None
        """Why the last attempt failed; None while answers are good."""

    # --- for the coroutine that follows the thing

    def good(self, value: T) -> None:
        """An answer came. Tell it also when it is the same as before: that is what keeps it from looking old."""
        before, now = self.value.state, self._clock.seconds()
        self._had_good, self.error = True, None
        if self.good_at is None or not isinstance(before, Ok) or before.value != value:
            self.changed_at = now
            self._watches.updates.incr()
        self.good_at = now
        self.heard()
        self._watches.recovered(self)
        self.value.set(value)

    def heard(self) -> None:
        """The backend gave a sign of life, such as a heartbeat or an answer that says "unchanged"."""
        if self._guard is not None and self._guard.active():
            self._guard.reset(self._watches.pace.silence)

    def sleep(self, seconds: float) -> Deferred[None]:
        """Wait, for a follower that polls."""
        return sleep(self._clock, seconds)

    @property
    def is_stale(self) -> bool:
        """Whether the value is the last good one of a source that has failed since."""
        return self.error is not None and self.good_at is not None

    @property
    def age(self) -> float | None:
        """Seconds since the last good answer; None before the first."""
        return None if self.good_at is None else self._clock.seconds() - self.good_at

    # --- running

    def _watched(self, source: Source[T]) -> Callable[[], None]:
        if self.linger is not None:
            self.linger.cancel()
            self.linger = None
        elif self._cancel is None and not self._watches.is_stopped:
            source.pend(self._watches.waiting_for(self))
            self._cancel = self._watches.spawner.spawn(self._run(), self._watches.waiting_for(self))
        return partial(self._watches.unwatched, self)

    def close(self) -> None:
        """Stop all work; the value is as good as unknown from then on."""
        if self.linger is not None and self.linger.active():
            self.linger.cancel()
        cancel, self._cancel, self.linger = self._cancel, None, None
        if cancel is not None:
            cancel()

    async def _run(self) -> None:
        while True:
            began = self.started_at = self._clock.seconds()
            error = await self._session()
            if error is not None:
                self._failed(error)
            await self.sleep(self._wait(began, error))

    async def _session(self) -> BackendError | None:
        """Follow until it ends; why it failed, None when it was of use and simply ended, as streams do."""
        watches = self._watches
        self._had_good = self._was_silent = False
        session = Deferred.fromCoroutine(watches.follow(self))
        if not session.called:
            self._guard = self._clock.callLater(watches.pace.silence, self._silent, session)
        try:
            await session
        except CancelledError:
            if not self._was_silent:
                raise
            return BackendSilent(backend=watches.backend, reason=f"no word for {watches.pace.silence:g} s")
        except BackendError as error:
            return error
        except Exception:  # noqa: BLE001 - the rim: a follower may be plug-in code, and no defect may end a watch for good
            _log.failure("defect while watching {name} of {backend}", name=watches.show(self.key), backend=watches.backend)
            return BackendDefect(backend=watches.backend, reason="internal error; the log has the details")
        finally:
            if self._guard is not None and self._guard.active():
                self._guard.cancel()
            self._guard = None
        return None if self._had_good else BackendSilent(backend=watches.backend, reason="it ended the watch without an answer")

    def _silent(self, session: Deferred[None]) -> None:
        self._was_silent = True
        session.cancel()

    def _wait(self, began: float, error: BackendError | None) -> float:
        if self._had_good:
            self._lasting.reset()
            if self._clock.seconds() - began >= self._watches.pace.steady:
                self._backoff.reset()
        return self._lasting.next() if error is not None and error.is_lasting else self._backoff.next()

    def _failed(self, error: BackendError) -> None:
        watches = self._watches
        watches.errors.incr()
        is_new = self.error is None or str(self.error) != str(error)
        self.error, self.failed_at = error, self._clock.seconds()
        watches.failed(self, error)
        if not is_new:
            return  # readers know; telling them again would make them bind anew for nothing
        if self.good_at is not None:
            self.value.fail(error)
        elif watches.absent is not None:
            self.value.put(Ok(watches.absent, error))
        elif error.is_lasting or watches.fails_at_once or isinstance(self.value.state, Failed):
            self.value.put(Failed(error))  # readers that were told a failure wait no more: they are to know the latest
        else:
            self.value.put(Pending(f"{watches.show(self.key)}; {error}"))

    def describe(self) -> dict[str, object]:
        """The entry in ``/namer_state``."""
        state = self.value.state
        described: dict[str, object] = {
            "running": self._cancel is not None,
            "observed": self.value.is_observed,
            "lastStartedAt": self._watches.when(self.started_at),
            "lastUpdatedAt": self._watches.when(self.changed_at),
            "lastGoodAt": self._watches.when(self.good_at),
            "ageSeconds": None if self.age is None else round(self.age, 3),
            "stale": self.is_stale,
            "value": self._watches.show_value(state.value) if isinstance(state, Ok) and self.good_at is not None else None,
        }
        poll = dict(self.facts)
        if self.error is not None:
            poll |= {"error": str(self.error), "lastErrorAt": self._watches.when(self.failed_at)}
        return {"state": described, "poll": poll}


@attrs.define
class _Outage:
    """Watches that have failed for the same reason since their last good answer."""

    since: float
    members: set[Watch[Any, Any]] = attrs.field(factory=set)


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
        self._outages: dict[str, _Outage] = {}
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
            watch = self._obtain(key)
            if watch is None:
                out.put(
                    Failed(NamerError(detail=f"{self.backend}: {self._most} names are watched already; {self.show(key)} is one too many"))
                )
                return _nothing
            return watch.value.observe(out.put).close

        return Source(start, forget=True)

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
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()
        self._lingering.clear()
        self._outages.clear()
        self.spawner.stop()

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

    def failed(self, watch: Watch[K, T], error: BackendError) -> None:
        """Say so in the log, unless that is known."""
        if error.summary in watch.outages:
            return
        watch.outages[error.summary] = None
        outage = self._outages.get(error.summary)
        is_new = outage is None
        if outage is None:
            outage = self._outages[error.summary] = _Outage(self.clock.seconds())
        outage.members.add(watch)
        kept = "the last good answer stays in use" if watch.good_at is not None else "nothing is known yet"
        tell = _log.warn if is_new else _log.debug
        tell("{error}; {name}: {kept}, trying again", error=str(error), name=self.show(watch.key), kept=kept)

    def recovered(self, watch: Watch[K, T]) -> None:
        """Say so when it was the last one that failed for its reason."""
        since = self._leave(watch)
        if since is not None:
            _log.info("{backend} answers again after {seconds:.1f} s", backend=self.backend, seconds=self.clock.seconds() - since)

    def _leave(self, watch: Watch[K, T]) -> float | None:
        """Take it out of its outages; since when the oldest of those that ended with it had lasted."""
        ended = []
        for summary in watch.outages:
            outage = self._outages.get(summary)
            if outage is not None:
                outage.members.discard(watch)
                if not outage.members:
                    ended.append(outage.since)
                    del self._outages[summary]
        watch.outages.clear()
        return min(ended, default=None)

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
        watch.close()
        self._leave(watch)
        del self._watches[watch.key]
        self._lingering.pop(watch.key, None)
        self._closes.incr()
        watch.value.put(PENDING)


def _nothing() -> None:
    """There is nothing to stop."""


def polled(fetch: Callable[[K], Awaitable[T]], seconds: float, rng: Random) -> Callable[[Watch[K, T]], Coroutine[Any, Any, None]]:
    """A follower for a backend that can only be asked: every ``seconds``, give or take a tenth so that names do not ask together."""

    async def follow(watch: Watch[K, T]) -> None:
        while True:
            watch.good(await fetch(watch.key))
            await watch.sleep(seconds * rng.uniform(0.9, 1.1))

    return follow
