"""ZooKeeper: one session kept for as long as it is needed, and views of nodes that tell when something in them has changed.

Source: the ZooKeeper Programmer's Guide (sessions, watches, consistency). Who follows nodes reads them through a :class:`View`, which
leaves one watch per node on the server, shared with all other views, and ends when the connection does: the server forgets a connection's
watches, hence everything is read anew over the next. How the library speaks to ZooKeeper is in ``backends.kazoo_session``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Final, TypeVar

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall

from meshgw.backends.kazoo_session import Change, Ensemble, KazooSession, NoNode, State, unauthenticated
from meshgw.core.logger import make_logger
from meshgw.core.timers import Backoff, sleep
from meshgw.errors import BackendError, BackendSilent, BackendUnreachable
from meshgw.telemetry.metrics import Metrics

_log = make_logger()

T = TypeVar("T")

MOST_READS: Final = 64
"""Requests under way at a time: thousands of members that change at once must not fill the queues of client and server."""
CONNECTION_SECONDS: Final = 2.0
"""How long a connection is awaited before that is told as a failure: with the reason, within a caller's 10 s of binding."""
MOST_ABANDONED: Final = 10_000
"""Watches that nobody needs any more. ZooKeeper drops one only when it fires, or all with the connection: then it is made anew."""
RENEW_LEAST, RENEW_MOST = 1.0, 30.0
OUTLIVED: Final = 1.5
"""Lengths of a session after which one that is not connected has surely expired. A new one is begun then: a server that has lost its
data refuses clients that have seen later ones, for ever."""
STOP_SECONDS: Final = 3.0

MakeSession = Callable[..., KazooSession]


class View:
    """The nodes that one follower reads over one connection, and which of them have changed since. To be closed at the end."""

    def __init__(self, zookeeper: ZooKeeper, session: KazooSession) -> None:
        self._zookeeper, self.session = zookeeper, session
        self.session_id = session.id
        self._paths: set[str] = set()
        self._changed: set[str] = set()
        self._waiting: Deferred[None] | None = None
        self._error: BackendError | None = None
        self._told_at = -inf

    async def children(self, path: str) -> list[str] | None:
        """The names of the children; None if there is no such node. Its coming and going, and theirs, are changes of ``path``."""
        self._watch(path)
        while True:
            try:
                return await self._asked(path, lambda session: session.children(path))
            except NoNode:
                if not await self.exists(path):
                    return None

    async def data(self, path: str) -> bytes | None:
        """What the node holds; None if it does not exist, of which nothing further is told then."""
        self._watch(path)
        try:
            return await self._asked(path, lambda session: session.data(path))
        except NoNode:
            self.forget(path)
            return None

    async def exists(self, path: str) -> bool:
        """Whether the node exists. Its coming and going are changes."""
        self._watch(path)
        return await self._asked(path, lambda session: session.exists(path))

    async def create_member(self, path: str, data: bytes) -> str:
        """See :meth:`KazooSession.create_member`."""
        return await self._zookeeper.ask(self.session, lambda session: session.create_member(path, data))

    async def changed(self, seconds: float, *, apart: float = 0.0) -> set[str]:
        """The paths that have changed since they were read; waits for one, at most ``seconds``, and gives none then.

        Changes are told ``apart`` seconds after those before at the earliest. Raises :class:`BackendUnreachable` when the connection ends.
        """
        if not self._changed and self._error is None:
            self._waiting = Deferred()
            self._waiting.addTimeout(seconds, self._zookeeper.clock, lambda *_: None)
            try:
                await self._waiting
            finally:
                self._waiting = None
        pause = self._told_at + apart - self._zookeeper.clock.seconds()
        if pause > 0 and self._error is None:
            await sleep(self._zookeeper.clock, pause)
        if self._error is not None:
            raise self._error
        self._told_at = self._zookeeper.clock.seconds()
        changed, self._changed = self._changed, set()
        return changed

    def forget(self, path: str) -> None:
        """Changes of ``path`` do not matter any more."""
        if path in self._paths:
            self._paths.discard(path)
            self._changed.discard(path)
            self._zookeeper.unsubscribe(path, self)

    def close(self) -> None:
        """Forget everything."""
        for path in list(self._paths):
            self.forget(path)
        self._zookeeper.closed(self)

    # --- for the client

    def notice(self, path: str) -> None:
        """The node has changed."""
        self._changed.add(path)
        self._wake()

    def fail(self, error: BackendError) -> None:
        """The connection has ended."""
        self._error = self._error or error
        self._wake()

    def _watch(self, path: str) -> None:
        self._changed.discard(path)  # what happened before it is read is in what is read
        if path not in self._paths:
            self._paths.add(path)
            self._zookeeper.subscribe(path, self)

    async def _asked(self, path: str, ask: Callable[[KazooSession], Deferred[T]]) -> T:
        answer = await self._zookeeper.ask(self.session, ask)
        self._zookeeper.armed(path)
        return answer

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)


class ZooKeeper(Service):
    """A client of one ensemble. It connects when it is first needed; ``stopService`` ends its session and its threads.

    ``metrics`` is the scope of its counters, ``make_session`` makes sessions (a fake in tests).
    """

    def __init__(self, reactor: Any, rng: Any, metrics: Metrics, ensemble: Ensemble, *, make_session: MakeSession = KazooSession) -> None:
        self.clock, self.ensemble, self.backend = reactor, ensemble, ensemble.name
        self._make_session = make_session
        self._session: KazooSession | None = None
        self._state = State.DISCONNECTED
        self._error: BackendError | None = None
        self._is_stopped = False
        self._turn = DeferredSemaphore(MOST_READS)
        self._waiting: list[Deferred[None]] = []
        self._views: set[View] = set()
        self._readers: dict[str, set[View]] = {}
        self._armed: set[str] = set()
        self._renewing: IDelayedCall | None = None
        self._backoff = Backoff(rng, least=RENEW_LEAST, most=RENEW_MOST)
        self._connects, self._losses = metrics.counter("connects"), metrics.counter("disconnects")
        self._sessions = metrics.counter("sessions")
        metrics.gauge("connected", function=lambda: float(self._state is State.CONNECTED))
        metrics.gauge("nodes", function=lambda: float(len(self._readers)))
        metrics.gauge("watches", function=lambda: float(len(self._armed)))
        metrics.gauge("requests", function=lambda: float(MOST_READS - self._turn.tokens))

    def startService(self) -> None:
        """Nothing is done before it is needed."""
        super().startService()  # type: ignore[no-untyped-call]
        self._is_stopped = False

    def stopService(self) -> Deferred[None]:
        """End the session, within 3 s as far as the caller is concerned; threads that are stuck in a connect end a little later."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._is_stopped = True
        self._not_renewed()
        session, self._session = self._session, None
        self._disconnected(self._unreachable("it is being stopped"))
        if session is None:
            return defer.succeed(None)
        return session.stop().addTimeout(STOP_SECONDS, self.clock, lambda *_: None)

    def describe(self) -> dict[str, object]:
        """The state as JSON data, for admin."""
        session = self._session
        described: dict[str, object] = {
            "ensemble": self.backend,
            "state": self._state.value if session is not None else "not needed yet",
            "session": None if session is None or session.id is None else f"0x{session.id & (1 << 64) - 1:x}",
            "nodes": len(self._readers),
            "watches": len(self._armed),
        }
        if self._error is not None and self._state is not State.CONNECTED:
            described["error"] = str(self._error)
        return described

    # --- for those who follow nodes

    async def view(self) -> View:
        """A view over the present connection, or the next if it comes soon. Raises :class:`BackendError` that says why it does not."""
        if self._is_stopped:
            raise self._unreachable("it is being stopped")
        if self._session is None and self._renewing is None:
            self._begin()
        if self._state is not State.CONNECTED:
            await self._connection()
        session = self._session
        if session is None or self._state is not State.CONNECTED:
            raise self._problem()
        view = View(self, session)
        self._views.add(view)
        return view

    async def _connection(self) -> None:
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        try:
            await waiting.addTimeout(CONNECTION_SECONDS, self.clock, lambda *_: None)
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    async def ask(self, session: KazooSession, ask: Callable[[KazooSession], Deferred[T]]) -> T:
        """Ask, in turn with all others. Raises what the session does, :class:`BackendUnreachable` and :class:`BackendSilent`."""
        await self._turn.acquire()  # a bounded wait: the library drops a silent server within a session's time, and all its requests fail
        if session is not self._session or self._state is not State.CONNECTED:
            self._turn.release()
            raise self._unreachable("the connection is lost")
        waiting: Deferred[T] = Deferred()

        def answered(result: Any) -> None:
            self._turn.release()  # only now: until then the request is in the library's queue, whoever waits for it
            if not waiting.called:
                waiting.callback(result)

        ask(session).addBoth(answered)
        seconds = self.ensemble.session_seconds
        try:
            return await waiting.addTimeout(seconds, self.clock)
        except defer.TimeoutError as error:
            raise BackendSilent(backend=self.backend, reason=f"no answer within {seconds:g} s") from error

    @property
    def session_id(self) -> int | None:
        """ZooKeeper's number of the present session; None before there is one."""
        return None if self._session is None else self._session.id

    async def delete(self, path: str) -> None:
        """Remove a node, if there is a connection and the node exists."""
        if self._session is not None and self._state is State.CONNECTED:
            try:
                await self.ask(self._session, lambda session: session.delete(path))
            except NoNode:
                pass

    def give_up(self, view: View) -> None:
        """End the session of ``view``, if it is still the present one, and begin another: nobody knows what it has done."""
        if view.session is self._session:
            self._renew()

    def _renew(self) -> None:
        self._not_renewed()
        former, self._session = self._session, None
        self._disconnected(self._unreachable("the session begins anew"))
        if former is not None:
            former.stop()
        if not self._is_stopped:
            self._begin()

    # --- for views

    def subscribe(self, path: str, view: View) -> None:
        """Tell ``view`` of changes of ``path``."""
        self._readers.setdefault(path, set()).add(view)

    def unsubscribe(self, path: str, view: View) -> None:
        """Tell it no more."""
        readers = self._readers.get(path)
        if readers is not None:
            readers.discard(view)
            if not readers:
                del self._readers[path]

    def armed(self, path: str) -> None:
        """The server has a watch of ours on the node now."""
        self._armed.add(path)

    def closed(self, view: View) -> None:
        """A view is not needed any more. Watches that were left on the server are shed when there are too many."""
        self._views.discard(view)
        if len(self._armed) > MOST_ABANDONED + len(self._readers) and self._state is State.CONNECTED:
            _log.info("{name}: the session begins anew, to be rid of {count} watches", name=self.backend, count=len(self._armed))
            self._renew()

    # --- the session

    def _begin(self) -> None:
        self._sessions.incr()
        self._session = self._make_session(self.clock, self.ensemble, on_state=self._state_changed, on_change=self._node_changed)
        self._session.start()

    def _state_changed(self, session: KazooSession, state: State) -> None:
        if session is not self._session:
            return  # one that was given up
        if state is State.CONNECTED:
            self._connected()
            return
        if state is State.ENDED:
            self._error = self._problem()
            self._disconnected(self._error)
            self._session = None
            session.stop()
            self._renew_after(self._backoff.next())
        else:
            was_connected = self._state is State.CONNECTED
            self._disconnected(self._unreachable("the connection is lost"))
            if was_connected:
                self._renew_after(self.ensemble.session_seconds * OUTLIVED)

    def _connected(self) -> None:
        self._not_renewed()
        self._connects.incr()
        self._state, self._error = State.CONNECTED, None
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    def _disconnected(self, error: BackendError) -> None:
        if self._state is State.CONNECTED:
            self._losses.incr()
        self._state = State.DISCONNECTED
        self._armed.clear()
        for view in list(self._views):
            view.fail(error)

    def _renew_after(self, seconds: float) -> None:
        self._not_renewed()
        self._renewing = self.clock.callLater(seconds, self._renew)

    def _not_renewed(self) -> None:
        renewing, self._renewing = self._renewing, None
        if renewing is not None and renewing.active():
            renewing.cancel()

    def _node_changed(self, session: KazooSession, change: Change, path: str) -> None:
        if session is self._session:
            self._armed.discard(path)
            for view in list(self._readers.get(path, ())):
                view.notice(path)

    def _problem(self) -> BackendError:
        session = self._session
        if session is None:
            return self._error or self._unreachable("not connected")
        if session.is_unauthenticated:
            return unauthenticated(self.backend)
        return self._unreachable(session.why_not() or "no connection: none of its servers answers as ZooKeeper does")

    def _unreachable(self, reason: str) -> BackendUnreachable:
        return BackendUnreachable(backend=self.backend, reason=reason)
