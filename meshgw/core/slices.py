"""Long work in short slices, between which the reactor serves others.

Off the data path, but on the same thread: what takes tens of milliseconds at once, such as rendering ten thousand metrics, would hold
up every request of that time. Work is a generator that pauses often; how long it may go on each time is decided here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")
Work = Generator[None, None, T]
"""Pauses wherever it may be interrupted, every 0.1 ms or so, and returns what came out."""

SLICE_SECONDS = 0.0005
"""With requests that take 70 % of the reactor's time, each of them waits up to three times as long as this."""


class Slices:
    """Runs works for one reactor. However many there are, one slice is run between two looks at the sockets, and they take turns."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._turns: deque[Deferred[None]] = deque()

    async def run(self, work: Work[T]) -> T:
        """What ``work`` returns, or raises. A short one is done at once; a cancelled one ends where it pauses."""
        seconds = self._reactor.seconds
        try:
            while True:
                end = seconds() + SLICE_SECONDS
                try:
                    next(work)
                    while seconds() < end:
                        next(work)
                except StopIteration as ended:
                    result: T = ended.value
                    return result
                await self._turn()
        finally:
            work.close()

    def _turn(self) -> Deferred[None]:
        """Fires when it is the caller's turn again."""
        turn: Deferred[None] = Deferred()
        self._turns.append(turn)
        if len(self._turns) == 1:
            self._reactor.callLater(0, self._next)
        return turn

    def _next(self) -> None:
        turn = self._turns[0]
        if not turn.called:  # the work may have been cancelled meanwhile
            turn.callback(None)
        self._turns.popleft()
        if self._turns:
            self._reactor.callLater(0, self._next)


def finished(work: Work[T]) -> T:
    """What ``work`` returns, all at once: where nobody else is served."""
    while True:
        try:
            next(work)
        except StopIteration as ended:
            result: T = ended.value
            return result


def collected(pieces: Iterable[bytes]) -> Work[bytes]:
    """The work of joining what ``pieces`` gives."""
    found = []
    for piece in pieces:
        found.append(piece)
        yield
    return b"".join(found)


def batched(items: Iterable[T], size: int = 100) -> Iterator[list[T]]:
    """``items``, so many at a time, for work that pauses after each lot."""
    rest = iter(items)
    while lot := list(islice(rest, size)):
        yield lot


class Shared(Generic[T]):
    """One work for all who ask while it is under way: a second scrape costs nothing, and a caller who leaves ends it for nobody."""

    def __init__(self, make: Callable[[], Awaitable[T]]) -> None:
        self._make = make
        self._waiting: list[Deferred[T]] | None = None

    async def get(self) -> T:
        """What the work under way gives, or one that begins now."""
        waiting: Deferred[T] = Deferred()
        if self._waiting is None:
            self._waiting = [waiting]
            Deferred.fromCoroutine(self._made()).addBoth(self._give)
        else:
            self._waiting.append(waiting)
        return await waiting

    async def _made(self) -> T:
        return await self._make()

    def _give(self, result: T | Failure) -> None:
        waiting, self._waiting = self._waiting or [], None
        for one in waiting:
            if not one.called:
                one.callback(result)  # a Failure makes it fail
