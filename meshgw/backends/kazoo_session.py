"""One session with ZooKeeper, kept by the library kazoo in threads of its own; what it tells arrives in the reactor's thread.

Source: kazoo 2.11, the ZooKeeper Programmer's Guide (sessions, watches). This is the border to kazoo: it has no types and blocks where
it stops, so that nobody else touches it. It keeps trying to connect; what it gives up for good is told as :data:`ENDED`. What is watched,
and what a lost session means, is the business of ``backends.zookeeper``.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from enum import Enum
from functools import partial
from threading import Thread
from typing import Any, Final

import attrs
from kazoo.client import KazooClient  # type: ignore[import-untyped]  # kazoo has no types
from kazoo.exceptions import (  # type: ignore[import-untyped]
    AuthFailedError,
    ConnectionClosedError,
    ConnectionLoss,
    NoAuthError,
    NoNodeError,
    OperationTimeoutError,
    SessionExpiredError,
    ZookeeperError,
)
from kazoo.handlers.threading import SequentialThreadingHandler  # type: ignore[import-untyped]
from kazoo.protocol.states import EventType, KazooState, KeeperState  # type: ignore[import-untyped]
from kazoo.retry import KazooRetry  # type: ignore[import-untyped]
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from meshgw.core.logger import make_logger
from meshgw.errors import BackendError, BackendMalformed, BackendRefused, BackendUnreachable

CONNECT_SECONDS: Final = 3.0
"""For one server, as everywhere; kazoo would wait as long as a session lasts, and stopping with it."""
RETRY_LEAST, RETRY_MOST, RETRY_JITTER = 0.1, 5.0, 0.4
LARGEST_MESSAGE: Final = 16 << 20
"""Bytes of one answer. Servers send 1 MiB of data at most; the list of a node's children may be longer."""
DENIED, UNAUTHENTICATED, ODD = 403, 401, 500
"""Codes of :class:`BackendRefused`, with the meaning that HTTP gives them."""
_log = make_logger()


@attrs.frozen
class Ensemble:
    """The servers to ask, any of which will do, with the session's length in seconds and our credentials (scheme, secret)."""

    servers: tuple[tuple[str, int], ...]
    session_seconds: float = 10.0
    auth: tuple[str, str] | None = attrs.field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"ZooKeeper at {','.join(shown(*server) for server in self.servers)}"


def shown(host: str, port: int) -> str:
    """``host:port``, an IPv6 address in brackets."""
    return f"[{host.strip('[]')}]:{port}" if ":" in host else f"{host}:{port}"


class State(Enum):
    """What a session tells of itself."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    ENDED = "ended"


class Change(Enum):
    """What happened to a node that was watched: its list of children or its data, or the node itself came or went."""

    CHILDREN = "children"
    DATA = "data"
    DELETED = "deleted"


CHANGES: Final = {
    EventType.CHILD: Change.CHILDREN,
    EventType.CHANGED: Change.DATA,
    EventType.CREATED: Change.DATA,
    EventType.DELETED: Change.DELETED,
}


class NoNode(Exception):
    """There is no such node."""


class _Socket(socket.socket):
    """A connection that takes no answer beyond the limit: kazoo reserves and reads as much as the peer announces."""

    refused: Callable[[str], None]
    """Is told of one."""

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """See :meth:`socket.socket.recv`."""
        if bufsize > LARGEST_MESSAGE:
            reason = f"it announces an answer of {bufsize} bytes; the most is {LARGEST_MESSAGE}"
            self.refused(reason)
            raise OSError(errno.EMSGSIZE, reason)
        return super().recv(bufsize, flags)


class _Notes(logging.Handler):
    """What kazoo logs and tells nobody else: names of servers that cannot be resolved. The rest would be a line for each attempt."""

    def __init__(self, unresolved: Callable[[str, str], None]) -> None:
        super().__init__()
        self._unresolved = unresolved

    def emit(self, record: logging.LogRecord) -> None:
        """See :meth:`logging.Handler.emit`."""
        arguments = record.args
        if isinstance(arguments, tuple) and len(arguments) == 2 and isinstance(arguments[1], socket.gaierror):
            self._unresolved(str(arguments[0]), f"its name cannot be resolved: {arguments[1].strerror}")


class _Threads(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """kazoo's threads and sockets: their connects are bounded, and no end of a thread goes unnoticed."""

    def __init__(self, told: Callable[..., None], failed: Callable[[str, str], None], ended: Callable[[Failure | None], None]) -> None:
        """``told`` calls a function in the reactor's thread; there ``failed`` is told of connects, and ``ended`` of threads."""
        super().__init__()
        self._told, self._failed, self._ended = told, failed, ended

    def create_connection(self, address: tuple[str, int], hostname: str, timeout: float, **_tls: object) -> socket.socket:
        """Connect, and note why that cannot be."""
        try:
            sock = socket.create_connection(address, min(timeout, CONNECT_SECONDS))
        except OSError as error:
            self._told(self._failed, hostname, "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error))
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bounded = _Socket(fileno=sock.detach())
        bounded.refused = partial(self._told, self._failed, hostname)
        return bounded

    def spawn(self, func: Callable[..., object], *args: object, **kwargs: object) -> Thread:
        """Run ``func`` in a thread that the end of the process does not wait for."""

        def run() -> None:
            try:
                func(*args, **kwargs)
            except BaseException:  # noqa: BLE001 - the rim of the thread: an end for whatever reason is told
                self._told(self._ended, Failure())  # type: ignore[no-untyped-call]
            else:
                self._told(self._ended, None)

        thread = Thread(target=run, name="kazoo", daemon=True)
        thread.start()
        return thread


class KazooSession:
    """A client of an ensemble. ``on_state`` and ``on_change`` are called in the reactor's thread, until :meth:`stop`."""

    def __init__(
        self,
        reactor: IReactorFromThreads,
        ensemble: Ensemble,
        *,
        on_state: Callable[[KazooSession, State], None],
        on_change: Callable[[KazooSession, Change, str], None],
    ) -> None:
        self._reactor, self._ensemble = reactor, ensemble
        self._on_state, self._on_change = on_state, on_change
        self._is_stopped = self._is_ended = False
        self._refusals: dict[str, str] = {}
        self.id: int | None = None
        """ZooKeeper's number for the session, while connected; a new one after the session expired."""
        self.is_unauthenticated = False
        """Whether it ended since ZooKeeper does not take our credentials."""
        quiet = logging.Logger("kazoo", logging.WARNING)
        quiet.addHandler(_Notes(partial(self._told, self._failed)))
        self._client: Any = KazooClient(
            hosts=[shown(*server) for server in ensemble.servers],
            timeout=ensemble.session_seconds,
            handler=_Threads(self._told, self._failed, self._thread_ended),
            auth_data=() if ensemble.auth is None else (ensemble.auth,),
            connection_retry=KazooRetry(max_tries=-1, delay=RETRY_LEAST, max_delay=RETRY_MOST, max_jitter=RETRY_JITTER),
            logger=quiet,
        )

    # --- life

    def start(self) -> None:
        """Begin to connect; this returns at once."""
        self._client.add_listener(self._state_changed)
        self._client.start_async()

    def stop(self) -> Deferred[None]:
        """End the session, so that its ephemeral nodes go; fires when all threads have ended, which a stuck server may delay."""
        self._is_stopped = True
        stopped: Deferred[None] = Deferred()

        def stop() -> None:
            try:
                self._client.stop()
                self._client.close()
            except Exception:  # noqa: BLE001 - the rim of the thread: kazoo raises whatever a half-made connection provokes
                self._told(partial(_log.failure, "kazoo could not stop gracefully", Failure()))  # type: ignore[no-untyped-call]
            self._told(stopped.callback, None)

        # not of the reactor's pool, for whose threads the end of the process waits
        Thread(target=stop, name="kazoo stop", daemon=True).start()
        return stopped

    def why_not(self) -> str:
        """Why the servers cannot be connected to, as far as that was told."""
        return "; ".join(f"{host}: {reason}" for host, reason in sorted(self._refusals.items()))

    # --- in kazoo's threads

    def _told(self, function: Callable[..., object], *args: object) -> None:
        self._reactor.callFromThread(function, *args)

    def _state_changed(self, state: object) -> None:
        keeper = self._client.client_state
        if state == KazooState.CONNECTED:
            self._told(self._connected, self._client.client_id[0])
        else:
            self._told(self._disconnected, keeper == KeeperState.AUTH_FAILED)

    def _changed(self, event: Any) -> None:
        change = CHANGES.get(event.type)
        if change is not None:  # what else comes is about the connection
            self._told(self._node_changed, change, event.path)

    # --- in the reactor's thread

    def _connected(self, id: int) -> None:
        self._refusals.clear()
        self.id = id
        if not self._is_stopped:
            self._on_state(self, State.CONNECTED)

    def _disconnected(self, is_unauthenticated: bool) -> None:
        self.is_unauthenticated = is_unauthenticated
        if not self._is_stopped:
            self._on_state(self, State.DISCONNECTED)

    def _failed(self, host: str, reason: str) -> None:
        self._refusals[host] = reason

    def _thread_ended(self, failure: Failure | None) -> None:
        if self._is_stopped or self._is_ended:
            return
        self._is_ended = True
        if failure is not None:
            self._refusals = {"": f"it does not speak as ZooKeeper does ({type(failure.value).__name__})"}
            _log.debug("kazoo's thread ended: {error}", error=failure.getErrorMessage())
        self._on_state(self, State.ENDED)

    def _node_changed(self, change: Change, path: str) -> None:
        if not self._is_stopped:
            self._on_change(self, change, path)

    # --- asking

    def children(self, path: str) -> Deferred[list[str]]:
        """The names of a node's children, and from now on one notice of their change, or of the node's end. Raises :class:`NoNode`."""
        return self._ask(path, partial(self._client.get_children_async, path, watch=self._changed))

    def data(self, path: str) -> Deferred[bytes]:
        """What a node holds, with one notice of its change. Raises :class:`NoNode`."""
        return self._ask(path, partial(self._client.get_async, path, watch=self._changed)).addCallback(lambda answer: answer[0])

    def exists(self, path: str) -> Deferred[bool]:
        """Whether there is such a node, with one notice when that changes."""
        return self._ask(path, partial(self._client.exists_async, path, watch=self._changed)).addCallback(lambda stat: stat is not None)

    def create_member(self, path: str, data: bytes) -> Deferred[str]:
        """Make a node that ends with the session, called ``path`` and a number that ZooKeeper adds; its path. Makes its parents too."""
        return self._ask(path, partial(self._client.create_async, path, data, ephemeral=True, sequence=True, makepath=True))

    def delete(self, path: str) -> Deferred[None]:
        """Remove a node. Raises :class:`NoNode`."""
        return self._ask(path, partial(self._client.delete_async, path)).addCallback(lambda _is_done: None)

    def _ask(self, path: str, ask: Callable[[], Any]) -> Deferred[Any]:
        """Fires when kazoo has the answer; that is in any case when the connection breaks, and cannot be hurried."""
        answered: Deferred[Any] = Deferred()

        def take(result: Any) -> None:  # in a thread of kazoo
            try:
                answer = result.get_nowait()
            except Exception as error:  # noqa: BLE001 - the rim: whatever kazoo raises becomes an error of ours
                self._told(answered.errback, self._translated(error, path))
            else:
                self._told(answered.callback, answer)

        ask().rawlink(take)
        return answered

    def _translated(self, error: Exception, path: str) -> Exception:
        name = self._ensemble.name
        if isinstance(error, NoNodeError):
            return NoNode(path)
        return backend_error(error, name, path)


def backend_error(error: Exception, name: str, path: str) -> BackendError:
    """What an error of kazoo means to an operator."""
    if isinstance(error, NoAuthError):
        return BackendRefused(backend=name, reason="access denied by the node's access list (NoAuth)", asked=path, code=DENIED)
    if isinstance(error, AuthFailedError):
        return unauthenticated(name)
    if isinstance(error, (ConnectionClosedError, ConnectionLoss, SessionExpiredError, OperationTimeoutError)):
        return BackendUnreachable(backend=name, reason="the connection is lost", asked=path)
    if isinstance(error, ZookeeperError):
        return BackendRefused(backend=name, reason=f"it answers with {type(error).__name__}", asked=path, code=ODD)
    return BackendMalformed(backend=name, reason=f"its answer cannot be read ({type(error).__name__})", asked=path)


def unauthenticated(name: str) -> BackendRefused:
    """ZooKeeper does not take our credentials."""
    return BackendRefused(backend=name, reason="authentication failed; see authInfo", code=UNAUTHENTICATED)
