"""One thing that is watched in a backend: running the coroutine that follows it, again and again, and what became of that.

Source: linkerd-config spec 2.4 (namer state) and 3.4 (state machine). Which things are watched is in ``backends.watching``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall

from meshgw.core.live import Failed, Ok, Pending, Source
from meshgw.core.logger import make_logger
from meshgw.core.timers import Backoff, sleep
from meshgw.errors import BackendDefect, BackendError, BackendSilent, BackendUnreachable, MeshError

if TYPE_CHECKING:
    from meshgw.backends.watching import Watches

_log = make_logger()

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


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
        """Work begins when :attr:`value` is observed."""
        self.key, self._watches = key, watches
        self.value: Source[T] = Source(self._watched)
        self.facts: dict[str, object] = {}
        """What the follower tells of its requests, for ``/namer_state``: JSON data, or functions that give it when asked; no secrets."""
        pace, clock = watches.pace, watches.clock
        self._backoff = Backoff(watches.rng, least=pace.least, most=pace.most)
        self._lasting = Backoff(watches.rng, least=pace.lasting_least, most=pace.lasting_most)
        self._clock = clock
        self._cancel: Callable[[], None] | None = None
        self._guard: IDelayedCall | None = None
        self._following: Deferred[None] | None = None
        self._had_good = self._was_silent = False
        self._is_telling = self._is_closed = False
        self.linger: IDelayedCall | None = None
        self.started_at: float | None = None
        self.good_at: float | None = None
        self.changed_at: float | None = None
        self.failed_at: float | None = None
        self.error: BackendError | None = None
        """Why the last attempt failed; None while answers are good."""

    # --- for the coroutine that follows the thing

    def good(self, value: T) -> None:
        """An answer came. Tell it also when it is the same as before: that is what keeps it from looking old.

        Raises ``CancelledError`` if a reader, on hearing it, ended the watch: the follower is to end as if it had been waiting.
        """
        self._go_on()
        before, now = self.value.state, self._clock.seconds()
        self._had_good, self.error = True, None
        if self.good_at is None or not isinstance(before, Ok) or before.value != value:
            self.changed_at = now
            self._watches.updates.incr()
        self.good_at = now
        self.heard()
        self._watches.recovered(self)
        self._tell(partial(self.value.set, value))
        self._go_on()

    def bad(self, error: BackendError) -> None:
        """What is there now is of no use: that is told, the last good answer stays, and following goes on. Raises as :meth:`good` does."""
        self._go_on()
        self.heard()
        self._tell(partial(self._failed, error))
        self._go_on()

    def heard(self) -> None:
        """The backend gave a sign of life, such as a heartbeat or an answer that says "unchanged"."""
        if self._guard is not None and self._guard.active():
            self._guard.reset(self._watches.pace.silence)

    def sleep(self, seconds: float) -> Deferred[None]:
        """Wait, for a follower that polls; this is no silence of the backend."""
        if self._guard is not None and self._guard.active():
            self._guard.delay(seconds)
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

    def _go_on(self) -> None:
        """Raises ``CancelledError`` once the watch has ended."""
        if self._is_closed:
            raise CancelledError

    def _watched(self, source: Source[T]) -> Callable[[], None]:
        if self.linger is not None:
            self.linger.cancel()
            self.linger = None
        elif self._cancel is None and not self._watches.is_stopped:
            source.pend(self._watches.waiting_for(self))
            self._cancel = self._watches.spawner.spawn(self._run(), self._watches.waiting_for(self))
        return partial(self._watches.unwatched, self)

    def close(self) -> None:
        """Stop all work, for good; the value is as good as unknown from then on."""
        if self.linger is not None and self.linger.active():
            self.linger.cancel()
        cancel, self._cancel, self.linger, self._is_closed = self._cancel, None, None, True
        if cancel is not None and not self._is_telling:  # a coroutine can be cancelled while it waits; one that tells sees it after
            cancel()

    def _tell(self, publish: Callable[[], None]) -> None:
        """Let readers know. They may do anything, such as to stop the service of this watch."""
        self._is_telling = True
        try:
            publish()
        except Exception:  # noqa: BLE001 - the rim: a reader's defect is not the backend's fault, and must not end the watch
            _log.failure("defect of a reader of {name} of {backend}", name=self._watches.show(self.key), backend=self._watches.backend)
        finally:
            self._is_telling = False

    async def _run(self) -> None:
        while True:
            began = self.started_at = self._clock.seconds()
            error = await self._session()
            if error is not None:
                self._tell(partial(self._failed, error))
            if self._is_closed:
                return
            await self.sleep(self._wait(began, error))

    async def _session(self) -> BackendError | None:
        """Follow until it ends; why it failed, None when it was of use and simply ended, as streams do."""
        watches = self._watches
        self._had_good = self._was_silent = False
        self._guard = self._clock.callLater(watches.pace.silence, self._silent)
        try:
            self._following = Deferred.fromCoroutine(watches.follow(self))
            await self._following
        except CancelledError:
            if self._is_closed:
                raise
            reason = f"no word for {watches.pace.silence:g} s" if self._was_silent else "the request was cancelled"
            return BackendSilent(backend=watches.backend, reason=reason)
        except BackendError as error:
            return error
        except MeshError as error:  # of what is beneath, such as DNS
            return BackendUnreachable(backend=watches.backend, reason=str(error))
        except Exception:  # noqa: BLE001 - the rim: a follower may be plug-in code, and no defect may end a watch for good
            if not isinstance(self.error, BackendDefect):  # it would be met at each attempt
                _log.failure("defect while watching {name} of {backend}", name=watches.show(self.key), backend=watches.backend)
            return BackendDefect(backend=watches.backend, reason="internal error; the log has the details")
        finally:
            if self._guard is not None and self._guard.active():
                self._guard.cancel()
            self._guard = self._following = None
        return None if self._had_good else BackendSilent(backend=watches.backend, reason="it ended the watch without an answer")

    def _silent(self) -> None:
        self._was_silent = True
        self._guard = self._clock.callLater(self._watches.pace.silence, self._silent)  # should it not heed this
        if self._following is not None:
            self._following.cancel()

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
        poll = {name: fact() if callable(fact) else fact for name, fact in self.facts.items()}
        if self.error is not None:
            poll |= {"error": str(self.error), "lastErrorAt": self._watches.when(self.failed_at)}
        return {"state": described, "poll": poll}


def polled(fetch: Callable[[K], Awaitable[T]], seconds: float, rng: Random) -> Callable[[Watch[K, T]], Coroutine[Any, Any, None]]:
    """A follower for a backend that can only be asked: every ``seconds``, give or take a tenth so that names do not ask together."""

    async def follow(watch: Watch[K, T]) -> None:
        while True:
            watch.good(await fetch(watch.key))
            await watch.sleep(seconds * rng.uniform(0.9, 1.1))

    return follow
