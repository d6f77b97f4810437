"""A backend whose watches the test speaks for: each answer or error is told to whoever follows that key then."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meshgw.backends.watching import Pace, Watch, Watches
from meshgw.errors import BackendError
from meshgw.telemetry.metrics import Metrics

T = TypeVar("T")


class Followed(Generic[T]):
    """Watches over it are made by :meth:`watches`. ``sessions`` counts how often each key was begun to be followed."""

    def __init__(self) -> None:
        self.clock, self.metrics = Clock(), Metrics()
        self.clock.advance(1000.0)
        self.sessions: dict[str, int] = {}
        self.cancelled: list[str] = []
        self._waiting: dict[str, Deferred[Callable[[Watch[str, T]], None]]] = {}

    def watches(self, **options: Any) -> Watches[str, T]:
        """Watched things of this backend, by a name."""
        options.setdefault("pace", Pace())
        watches: Watches[str, T] = Watches(
            self.clock,
            Random(7),
            self.metrics,
            backend="Fake at localhost:1",
            follow=self._follow,
            show=str,
            show_value=lambda value: value,
            **options,
        )
        watches.startService()
        return watches

    async def _follow(self, watch: Watch[str, T]) -> None:
        key = watch.key
        self.sessions[key] = self.sessions.get(key, 0) + 1
        watch.facts["session"] = self.sessions[key]
        while True:
            waiting: Deferred[Callable[[Watch[str, T]], None]] = Deferred(lambda _: self.cancelled.append(key))
            self._waiting[key] = waiting
            try:
                told = await waiting
            finally:
                self._waiting.pop(key, None)
            if told is _end:
                return
            told(watch)

    def _tell(self, key: str, what: Callable[[Watch[str, T]], None]) -> None:
        self._waiting[key].callback(what)

    def says(self, key: str, value: T) -> None:
        """A good answer."""
        self._tell(key, lambda watch: watch.good(value))

    def is_heard(self, key: str) -> None:
        """A sign of life."""
        self._tell(key, lambda watch: watch.heard())

    def is_bad(self, key: str, error: BackendError) -> None:
        """An answer that is of no use; the session goes on."""
        self._tell(key, lambda watch: watch.bad(error))

    def fails(self, key: str, error: Exception) -> None:
        """Following it ends with an error."""
        self._waiting[key].errback(error)

    def ends(self, key: str) -> None:
        """Following it just ends."""
        self._tell(key, _end)

    def is_followed(self, key: str) -> bool:
        """Whether somebody follows it now."""
        return key in self._waiting

    def wait(self, seconds: float = 60.0) -> None:
        """Let time pass, in steps, until nothing is due."""
        self.clock.pump([seconds / 20] * 20)

    def counters(self) -> dict[str, int]:
        """What was counted."""
        return {"/".join(names): value for names, value in self.metrics.snapshot().counters.items()}

    def gauges(self) -> dict[str, float]:
        """The gauges."""
        return {"/".join(names): value for names, value in self.metrics.snapshot().gauges.items()}


def _end(_watch: Any) -> None:
    """Stands for the end."""
