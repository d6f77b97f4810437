"""Readiness events for data-path sockets: a thin epoll reactor that calls them directly, and the same service on any other reactor.

Source: DATAPATH.md, design point 1. On stock Twisted about a quarter of a proxied request's CPU time is spent arming and disarming
epoll and in the generic dispatch; ``MeshReactor`` keeps Twisted's epoll loop for everything (timers, DNS, admin, signals) and adds a
table of file descriptors whose handler is called straight from ``doPoll``. Code on the data path sees only :class:`Poller`.
"""

from __future__ import annotations

import errno
import select
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IReadWriteDescriptor
from zope.interface import implementer

from meshgw.core.logger import make_logger

IN, OUT, BROKEN = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR | select.EPOLLHUP
Handler = Callable[[int], None]
_MOST_EVENTS = 256

_log = make_logger()


class Poller(Protocol):
    """Level-triggered readiness of raw sockets: ``handler(events)`` is called with ``IN``, ``OUT`` and ``BROKEN`` bits."""

    def watch(self, fd: int, handler: Handler, events: int) -> None:
        """Start to report ``events`` (may be 0) of ``fd``; ``BROKEN`` is always reported."""
        ...

    def change(self, fd: int, events: int) -> None:
        """Report other events of a watched ``fd`` from now on."""
        ...

    def forget(self, fd: int) -> None:
        """Stop reporting; must be called before the descriptor is closed."""
        ...

    def later(self, function: Callable[[], None]) -> None:
        """Call ``function`` once, when the events at hand have been handled: what they made can leave in one write then."""
        ...


class MeshReactor(EPollReactor):
    """Twisted's epoll reactor with a direct table of data-path handlers; it is its own :class:`Poller`."""

    def __init__(self) -> None:
        self._direct: dict[int, Handler] = {}
        self._later: list[Callable[[], None]] = []
        super().__init__()  # type: ignore[no-untyped-call]

    def watch(self, fd: int, handler: Handler, events: int) -> None:
        """See :class:`Poller`."""
        self._poller.register(fd, events)
        self._direct[fd] = handler

    def change(self, fd: int, events: int) -> None:
        """See :class:`Poller`."""
        self._poller.modify(fd, events)

    def forget(self, fd: int) -> None:
        """See :class:`Poller`."""
        if self._direct.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def later(self, function: Callable[[], None]) -> None:
        """See :class:`Poller`."""
        self._later.append(function)

    def _run_later(self) -> None:
        """Call what was put off; what is put off meanwhile too, as it is the rest of the same work."""
        calls = self._later
        for function in calls:
            try:
                function()
            except Exception:  # noqa: BLE001 - as in doPoll
                _log.failure("defect in what was put off to the end of a round of events")
        calls.clear()

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events and handle them, again and again while nothing but sockets has work to do.

        Going back to the main loop costs several microseconds a time, which at low concurrency is per request. It is gone back to at
        once when a timer is due, or when a handler scheduled a call or a thread sent one.
        """
        poll = self._poller.poll
        direct = self._direct
        seconds = monotonic
        until = None if timeout is None else seconds() + timeout
        wait = -1.0 if timeout is None else timeout
        if self._later:  # timers and other calls of the main loop made something
            self._run_later()
        while True:
            try:
                ready = poll(wait, _MOST_EVENTS)
            except OSError as error:
                if error.errno == errno.EINTR:
                    return
                raise
            for fd, event in ready:
                if fd not in direct:
                    self._stock(fd, event)
                    continue
                try:
                    direct[fd](event)
                except Exception:  # noqa: BLE001 - the rim: one connection's defect must not end the loop for all
                    _log.failure("defect in a data-path handler; its connection is dropped")
                    self._drop(fd)
            if self._later:
                self._run_later()
            if not ready or self.threadCallQueue or self._newTimedCalls or not self.running or self._justStopped:
                return
            if until is not None:
                wait = until - seconds()
                if wait <= 0:
                    return

    def _drop(self, fd: int) -> None:
        """Let the owner of a descriptor whose handler failed give it up; when it fails at that too, it hears no more."""
        handler = self._direct.get(fd)
        if handler is not None:
            try:
                handler(BROKEN)
            except Exception:  # noqa: BLE001 - as in doPoll
                self.forget(fd)

    def _stock(self, fd: int, event: int) -> None:
        selectable = self._selectables.get(fd)
        if selectable is not None:
            self._doReadOrWrite(selectable, fd, event)  # type: ignore[no-untyped-call]

    doIteration = doPoll


@implementer(IReadWriteDescriptor)
class _Descriptor:
    """One watched descriptor as a stock reactor wants it."""

    def __init__(self, fd: int, handler: Handler) -> None:
        self.fd, self.handler, self.events = fd, handler, 0

    def fileno(self) -> int:
        return self.fd

    def doRead(self) -> None:
        self.handler(IN)

    def doWrite(self) -> None:
        self.handler(OUT)

    def connectionLost(self, reason: Any) -> None:
        self.handler(BROKEN)

    def logPrefix(self) -> str:
        return "meshgw"


class StockPoller:
    """The :class:`Poller` service on any Twisted reactor, slower but portable."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._watched: dict[int, _Descriptor] = {}

    def watch(self, fd: int, handler: Handler, events: int) -> None:
        """See :class:`Poller`."""
        self._watched[fd] = _Descriptor(fd, handler)
        self.change(fd, events)

    def change(self, fd: int, events: int) -> None:
        """See :class:`Poller`."""
        descriptor = self._watched[fd]
        gained, lost = events & ~descriptor.events, descriptor.events & ~events
        descriptor.events = events
        if gained & IN:
            self._reactor.addReader(descriptor)
        if lost & IN:
            self._reactor.removeReader(descriptor)
        if gained & OUT:
            self._reactor.addWriter(descriptor)
        if lost & OUT:
            self._reactor.removeWriter(descriptor)

    def forget(self, fd: int) -> None:
        """See :class:`Poller`."""
        descriptor = self._watched.pop(fd, None)
        if descriptor is not None:
            self._reactor.removeReader(descriptor)
            self._reactor.removeWriter(descriptor)

    def later(self, function: Callable[[], None]) -> None:
        """See :class:`Poller`."""
        self._reactor.callLater(0, function)


def poller_for(reactor: Any) -> Poller:
    """The poller that works with ``reactor``: the reactor itself when it is ours, else an adapter."""
    return reactor if isinstance(reactor, MeshReactor) else StockPoller(reactor)


def install() -> None:
    """Install :class:`MeshReactor` as the process's reactor (Twisted's reactor plug-in entry)."""
    from twisted.internet.main import installReactor

    installReactor(MeshReactor())  # type: ignore[no-untyped-call]
