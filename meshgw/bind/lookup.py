"""Namer look-ups as they are shared by binding and delegating: which namer is asked, and which answers are being watched.

Source: dtab spec 4.2 (order of namers) and 5.4 (changing answers). A name's tree is computed afresh, from the present answers,
whenever one of them changes. Answers that the new computation used stay observed, those it no longer used are released: a branch
that is left costs nothing any more. Computing again is cheap, and it cannot go stale in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar, cast

import attrs

from meshgw.core.address import Bound
from meshgw.core.live import PENDING, Failed, Live, Observation, Ok, Pending, Source, State, failed
from meshgw.errors import NamerError
from meshgw.kinds import Namer
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, NameTree, Neg

T = TypeVar("T")
Answer = NameTree[Path | Bound]

BUILTIN_PREFIX: Final = Path.of("$")
MAX_DEPTH: Final = 100  # dtab spec 5.3: the 101st look-up on one branch fails
# Entries such as ``/a => /a/x & /a/y`` double the work with every step and would not end before the depth limit within a lifetime.
# Callers may send entries (l5d-dtab), so the sum is limited too; real dtabs need some dozens.
MAX_LOOKUPS: Final = 2000
# Each look-up goes through all entries, at a microsecond or less for each: with tens of thousands of them far fewer may be made.
MAX_COMPARED: Final = 1_000_000
# Each level of alternatives or union within another takes two calls of Python's stack of 1000; a hundred steps of two levels fit.
MAX_LEVELS: Final = 220

_UNKNOWN: Final[State[Answer]] = Ok(NEG)


class Mounts:
    """The namers of an interpreter by preference: the configured ones, last first, then the built-in names."""

    __slots__ = ("_mounts",)

    def __init__(self, namers: Sequence[tuple[Path, Namer]], builtin: Namer) -> None:
        """``namers`` in the order of the configuration, each with its whole prefix, ``/#`` included."""
        # Linkerd tries them in reverse order (dtab spec 4.2), so that a later namer can shadow an earlier one's prefix.
        self._mounts = (*reversed(namers), (BUILTIN_PREFIX, builtin))

    def __getitem__(self, index: int) -> tuple[Path, Namer]:
        return self._mounts[index]

    def matching(self, path: Path) -> list[int]:
        """The indexes of the namers to ask for ``path``, in order."""
        return [index for index, (prefix, _) in enumerate(self._mounts) if path.startswith(prefix)]


@attrs.define
class _Held:
    """An answer under observation."""

    observation: Observation
    state: State[Any]


class Lookups:
    """What one computation may ask: answers of namers, held from the first question until a computation does without them."""

    def __init__(self, mounts: Mounts, on_change: Callable[[], None]) -> None:
        self._mounts, self._on_change = mounts, on_change
        self._held: dict[object, _Held] = {}
        self._used: set[object] = set()
        self._count = self._compared = 0
        self.stale: Exception | None = None

    def begin(self) -> None:
        """A computation starts: nothing is used yet."""
        self._used.clear()
        self._count = self._compared = 0
        self.stale = None

    def end(self) -> None:
        """The computation is over: release what it did not use."""
        for key in [key for key in self._held if key not in self._used]:
            self._held.pop(key).observation.close()

    def close(self) -> None:
        """Release everything."""
        self._used.clear()
        self.end()

    def step(self, path: Path, entries: int) -> None:
        """Count one look-up in a dtab of so many entries. Raises :class:`NamerError` if the computation has taken too many."""
        self._count += 1
        self._compared += entries
        if self._compared > MAX_COMPARED:
            detail = f"More than {MAX_COMPARED} comparisons with dtab entries for one name, the last {path.show()}: the dtab is too long"
            raise NamerError(detail=detail)
        if self._count > MAX_LOOKUPS:
            raise NamerError(detail=f"More than {MAX_LOOKUPS} look-ups for one name, the last {path.show()}: dtab entries multiply it")

    def answer(self, path: Path) -> State[Answer]:
        """The first answer of a namer that is not neg; neg if there is none. A namer that waits or fails hides those after it.

        A neg of a source that fails, which nobody can rely on, has its error.
        """
        unknown = _UNKNOWN
        for index in self._mounts.matching(path):
            prefix, namer = self._mounts[index]
            state: State[Answer] = self.hold((index, path), partial(_ask, namer, path.drop(len(prefix))))
            if not isinstance(state, Ok):
                return _waiting_for(path, state)
            if not isinstance(state.value, Neg):
                return state
            if state.error is not None:
                unknown = state
        return unknown

    def hold(self, key: object, make: Callable[[], Live[T]]) -> State[T]:
        """The state of the live value kept under ``key``, made on first use and observed as long as it is used."""
        self._used.add(key)
        held = self._held.get(key)
        if held is None:
            held = self._observe(key, make())
        state = cast("State[T]", held.state)
        if isinstance(state, Ok) and state.error is not None:
            self.stale = state.error
        return state

    def _observe(self, key: object, live: Live[Any]) -> _Held:
        held = _Held(Observation(None), PENDING)
        self._held[key] = held
        is_change = False

        def notify(state: State[Any]) -> None:
            held.state = state
            if is_change:
                self._on_change()

        held.observation = live.observe(notify)
        is_change = True  # what came before is the first answer, which the present computation is about to use
        return held


def _ask(namer: Namer, path: Path) -> Live[Answer]:
    try:
        return namer.lookup(path)
    except Exception as error:  # noqa: BLE001 - a namer is plug-in code: its failure is the answer's failure
        return failed(error)


def _waiting_for(path: Path, state: State[Answer]) -> State[Answer]:
    return Pending(path.show()) if isinstance(state, Pending) and not state.waiting_for else state


def recomputed(mounts: Mounts, compute: Callable[[Lookups], State[T]]) -> Live[T]:
    """A live value that is ``compute(lookups)``, computed again whenever an answer it used has changed."""

    def start(out: Source[T]) -> Callable[[], None]:
        computation = _Computation(mounts, compute, out)
        computation.run()
        return computation.close

    return Source(start, forget=True)


class _Computation(Generic[T]):
    def __init__(self, mounts: Mounts, compute: Callable[[Lookups], State[T]], out: Source[T]) -> None:
        self._compute, self._out = compute, out
        self._lookups = Lookups(mounts, self.run)
        self._is_running = self._is_outdated = self._is_closed = False

    def run(self) -> None:
        """Compute and publish; a change that comes meanwhile, also from a reader that was told, makes it start over."""
        self._is_outdated = True
        if self._is_running:
            return
        self._is_running = True
        try:
            while self._is_outdated and not self._is_closed:
                self._is_outdated = False
                self._lookups.begin()
                state = self._state()
                self._lookups.end()
                if not self._is_outdated:
                    self._out.put(state)
        finally:
            self._is_running = False
            if self._is_closed:  # the last reader left while it was being told
                self._lookups.close()

    def _state(self) -> State[T]:
        try:
            state = self._compute(self._lookups)
        except NamerError as error:
            return Failed(error)
        if isinstance(state, Ok) and self._lookups.stale is not None:
            return Ok(state.value, self._lookups.stale)
        return state

    def close(self) -> None:
        self._is_closed = True
        self._lookups.close()
