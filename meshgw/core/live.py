"""``Live[T]``: a value that changes while it is watched; the currency between sources, namers, interpreters and routes.

Source: dtab spec 5.4 (activity semantics). A live value is *pending*, *ok* or *failed*. Once it was ok it stays ok: a later
failure keeps the last good value and is carried beside it as ``Ok.error``, so that readers go on and operators can see the age.
Nothing here schedules or waits; callbacks run synchronously in the thread of the reactor.

A source does its work only while somebody watches: ``Source(start)`` calls ``start(source)`` for the first observer, and the
function it returns when the last one has left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import attrs

T = TypeVar("T")
U = TypeVar("U")


@attrs.frozen
class Pending:
    """No answer is known yet; ``waiting_for`` says what is awaited, for messages."""

    waiting_for: str = ""


@attrs.frozen
class Ok(Generic[T]):
    """A good value. ``error`` is set when the source has failed since; the value is then the last good one."""

    value: T
    error: Exception | None = None


@attrs.frozen
class Failed:
    """The source failed before any good value was known."""

    error: Exception


State = Pending | Ok[T] | Failed
PENDING = Pending()
Notify = Callable[[State[T]], None]
Start = Callable[["Source[T]"], Callable[[], None]]


class Observation:
    """One observer's hold on a live value; ``close()`` ends it and may be called more than once."""

    __slots__ = ("_close",)

    def __init__(self, close: Callable[[], None] | None) -> None:
        self._close = close

    def close(self) -> None:
        """Stop the notifications; the source stops its work when this was the last observer."""
        close, self._close = self._close, None
        if close is not None:
            close()


class Live(Generic[T]):
    """What readers see: the state now, and a call at every change."""

    __slots__ = ()

    @property
    def state(self) -> State[T]:
        """The state now. A source that nobody observes may report an outdated or pending state."""
        raise NotImplementedError  # pragma: no cover - abstract

    def observe(self, notify: Notify[T]) -> Observation:
        """Call ``notify`` with the present state at once and again whenever it changes, until closed."""
        raise NotImplementedError  # pragma: no cover - abstract


class Constant(Live[T]):
    """A live value that never changes."""

    __slots__ = ("_state",)

    def __init__(self, state: State[T]) -> None:
        self._state = state

    @property
    def state(self) -> State[T]:
        return self._state

    def observe(self, notify: Notify[T]) -> Observation:
        notify(self._state)
        return Observation(None)


def constant(value: T) -> Live[T]:
    """A live value that is ``value`` for ever."""
    return Constant(Ok(value))


def failed(error: Exception) -> Live[Any]:
    """A live value that has failed with ``error`` and stays so."""
    return Constant(Failed(error))


def _not_yet(_state: State[Any]) -> None:
    """Stand in for an observer whose ``observe`` call has not returned yet."""


class Source(Live[T]):
    """The writable side: a cell that is set, failed or made pending by its owner.

    ``start``, if given, is called with the source when the first observer comes and returns the function to call
    when the last one leaves. With ``forget`` the state falls back to pending then, otherwise the last one is kept.
    """

    __slots__ = ("_state", "_observers", "_start", "_stop", "_forget", "_next")

    def __init__(self, start: Start[T] | None = None, *, initial: State[T] = PENDING, forget: bool = False) -> None:
        self._state: State[T] = initial
        self._observers: dict[int, Notify[T]] = {}
        self._start, self._forget = start, forget
        self._stop: Callable[[], None] | None = None
        self._next = 0

    @property
    def state(self) -> State[T]:
        return self._state

    @property
    def is_observed(self) -> bool:
        """Whether anybody watches now."""
        return bool(self._observers)

    def set(self, value: T) -> None:
        """Publish a good value; equal to the present good one, it is not announced again."""
        now = self._state
        if isinstance(now, Ok) and now.error is None and now.value == value:
            return
        self._publish(Ok(value))

    def fail(self, error: Exception) -> None:
        """Record a failure; a good value known before stays the value."""
        now = self._state
        self._publish(Ok(now.value, error) if isinstance(now, Ok) else Failed(error))

    def pend(self, waiting_for: str = "") -> None:
        """Say that an answer is awaited; ignored once a good value is known."""
        if not isinstance(self._state, Ok):
            self._publish(Pending(waiting_for))

    def put(self, state: State[T]) -> None:
        """Take over another live value's state as it is, without keeping an earlier good value."""
        if state != self._state:
            self._publish(state)

    def _publish(self, state: State[T]) -> None:
        """Tell everybody. What an observer raises is raised here, when the others know too: its defect must not leave them behind."""
        self._state = state
        defect: Exception | None = None
        for key, notify in list(self._observers.items()):
            if key in self._observers:
                try:
                    notify(state)
                except Exception as error:  # noqa: BLE001 - it is passed on below
                    defect = defect or error
            if self._state is not state:  # an observer made it change again; that call told everybody
                break
        if defect is not None:
            raise defect

    def observe(self, notify: Notify[T]) -> Observation:
        key = self._next
        self._next += 1
        first = not self._observers
        self._observers[key] = _not_yet  # a start that publishes at once must not notify before the state is returned
        try:
            if first and self._start is not None:
                self._stop = self._start(self)
            self._observers[key] = notify
            notify(self._state)
        except BaseException:  # nobody holds what could be closed: the next observer is to find it as if this one had never come
            self._leave(key)
            raise
        return Observation(partial(self._leave, key))

    def _leave(self, key: int) -> None:
        if self._observers.pop(key, None) is not None and not self._observers:
            stop, self._stop = self._stop, None
            if stop is not None:
                stop()
            if self._forget and self._start is not None:
                self._state = PENDING


def live_map(source: Live[T], function: Callable[[T], U]) -> Live[U]:
    """A live value that is ``function`` of another; a function that raises makes it failed."""

    def start(out: Source[U]) -> Callable[[], None]:
        def notify(state: State[T]) -> None:
            if not isinstance(state, Ok):
                out.put(state)
                return
            try:
                value = function(state.value)
            except Exception as error:  # noqa: BLE001 - a mapping is plug-in code: its failure is the value's failure
                out.put(Failed(error))
            else:
                out.put(Ok(value, state.error))

        return source.observe(notify).close

    return Source(start, forget=True)


def live_flat_map(source: Live[T], function: Callable[[T], Live[U]]) -> Live[U]:
    """A live value that follows ``function(value)``, chosen anew whenever ``source`` has a new good value.

    It is stale when either of the two is; a change of only the staleness of ``source`` does not choose anew.
    """

    def start(out: Source[U]) -> Callable[[], None]:
        following = _Following(out, function)
        outer = source.observe(following.take)

        def stop() -> None:
            outer.close()
            following.release()

        return stop

    return Source(start, forget=True)


class _Following(Generic[T, U]):
    """The live value that is followed at present. ``turn`` counts the choices, so that one that was left is not heard any more."""

    def __init__(self, out: Source[U], function: Callable[[T], Live[U]]) -> None:
        self._out, self._function = out, function
        self._chosen: Ok[T] | None = None
        self._held: Observation | None = None
        self._state: State[U] = PENDING
        self._turn = 0

    def take(self, state: State[T]) -> None:
        """Take over what the source says."""
        if not isinstance(state, Ok):
            self.release()
            self._out.put(state)
            return
        before, self._chosen = self._chosen, state
        if before is not None and before.value == state.value:
            self._tell()
            return
        try:
            live = self._function(state.value)
        except Exception as error:  # noqa: BLE001 - as above
            self.release()
            self._out.put(Failed(error))
            return
        self._turn += 1
        turn, old = self._turn, self._held
        self._state, self._held = PENDING, None
        observation = live.observe(partial(self._heard, turn))
        if turn == self._turn:
            self._held = observation
        else:
            observation.close()  # what it said made the source move on
        if old is not None:
            old.close()  # released after the new one is held, so that shared sources are not restarted

    def _heard(self, turn: int, state: State[U]) -> None:
        if turn == self._turn:
            self._state = state
            self._tell()

    def _tell(self) -> None:
        state, chosen = self._state, self._chosen
        if isinstance(state, Ok) and state.error is None and chosen is not None and chosen.error is not None:
            state = Ok(state.value, chosen.error)
        self._out.put(state)

    def release(self) -> None:
        """Follow nothing."""
        self._turn += 1
        held, self._held, self._chosen = self._held, None, None
        if held is not None:
            held.close()


def live_join(sources: Sequence[Live[T]], function: Callable[[Sequence[State[T]]], State[U]]) -> Live[U]:
    """A live value computed from the states of several others, recomputed whenever one changes."""

    def start(out: Source[U]) -> Callable[[], None]:
        states: list[State[T]] = [PENDING for _ in sources]
        ready = False

        def watcher(index: int) -> Notify[T]:
            def notify(state: State[T]) -> None:
                states[index] = state
                if ready:
                    out.put(function(states))

            return notify

        held = [source.observe(watcher(index)) for index, source in enumerate(sources)]
        ready = True
        out.put(function(states))

        def stop() -> None:
            for observation in held:
                observation.close()

        return stop

    return Source(start, forget=True)


def current(live: Live[T]) -> State[T]:
    """The state of a live value, observed for the moment so that a lazy source gives its immediate answer."""
    seen: list[State[T]] = []
    live.observe(seen.append).close()
    return seen[-1]
