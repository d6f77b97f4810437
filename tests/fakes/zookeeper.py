"""An ensemble in memory, with sessions as ``backends.kazoo_session`` has them: nodes, watches that fire once, ephemeral nodes.

Source: the ZooKeeper Programmer's Guide. A session's calls are answered at once, or when the test lets :attr:`held` ones go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from meshgw.backends.kazoo_session import Change, Ensemble, NoNode, State
from meshgw.errors import BackendUnreachable

LOST = BackendUnreachable(backend="ZooKeeper at zk:2181", reason="the connection is lost")


class FakeEnsemble:
    """The servers. While not :attr:`is_up` sessions do not connect; while :attr:`is_slow` they do what is asked, and do not answer."""

    def __init__(self) -> None:
        self.nodes: dict[str, bytes] = {"/": b""}
        self.owners: dict[str, int] = {}
        self.watches: dict[tuple[str, bool], set[FakeSession]] = {}
        self.denied: dict[str, Exception] = {}
        self.sessions: list[FakeSession] = []
        self.asked: list[str] = []
        self.held: list[Callable[[], None]] = []
        self.is_up, self.is_slow, self.is_unauthenticated = True, False, False
        self._next_id, self._next_number = 1, 0

    def make_session(self, clock: Any, ensemble: Ensemble, **called: Any) -> Any:
        """A session, to stand in for :class:`meshgw.backends.kazoo_session.KazooSession`."""
        session = FakeSession(self, **called)
        self.sessions.append(session)
        return session

    @property
    def watch_count(self) -> int:
        """All watches that are set."""
        return sum(len(sessions) for sessions in self.watches.values())

    def new_id(self) -> int:
        """The number of a new session."""
        self._next_id += 1
        return self._next_id

    def put(self, path: str, data: bytes = b"", owner: int | None = None) -> None:
        """Make a node with its parents, or change its data."""
        parent = path.rpartition("/")[0] or "/"
        if path in self.nodes:
            self.nodes[path] = data
            self._fire(path, Change.DATA)
            return
        if parent not in self.nodes:
            self.put(parent)
        self.nodes[path] = data
        if owner is not None:
            self.owners[path] = owner
        self._fire(path, Change.DATA)
        self._fire(parent, Change.CHILDREN)

    def add_member(self, group: str, data: bytes, owner: int | None = None) -> str:
        """Make a node ``member_`` with the next number."""
        self._next_number += 1
        path = f"{group}/member_{self._next_number:010d}"
        self.put(path, data, owner)
        return path

    def remove(self, path: str) -> None:
        """Remove a node."""
        del self.nodes[path]
        self.owners.pop(path, None)
        self._fire(path, Change.DELETED)
        self._fire(path.rpartition("/")[0] or "/", Change.CHILDREN)

    def disconnect(self) -> None:
        """Break all connections: the watches that were set over them are gone."""
        self.watches.clear()
        for session in list(self.sessions):
            session.disconnect()

    def expire(self) -> None:
        """End all sessions, with their ephemeral nodes; clients are told when they connect again, with another session."""
        self.disconnect()
        for path in list(self.owners):
            self.remove(path)
        for session in self.sessions:
            session.id = None

    def let_go(self) -> None:
        """Answer what was held."""
        self.is_slow = False
        held, self.held = self.held, []
        for answer in held:
            answer()

    def _fire(self, path: str, change: Change) -> None:
        kinds = {Change.DATA: (False,), Change.CHILDREN: (True,), Change.DELETED: (False, True)}[change]
        for kind in kinds:
            for session in self.watches.pop((path, kind), set()):
                session.on_change(session, change, path)


class FakeSession:
    """One client's session."""

    def __init__(self, ensemble: FakeEnsemble, *, on_state: Callable[..., None], on_change: Callable[..., None]) -> None:
        self._ensemble, self._on_state, self.on_change = ensemble, on_state, on_change
        self.id: int | None = None
        self.is_unauthenticated = False
        self.is_connected = self.is_stopped = False
        self._waiting: list[Deferred[Any]] = []

    def start(self) -> None:
        if self._ensemble.is_unauthenticated:
            self.is_unauthenticated = True
            self.is_stopped = True
            self._on_state(self, State.ENDED)
        elif self._ensemble.is_up:
            self.connect()

    def connect(self) -> None:
        """The connection is there."""
        if self.is_stopped or self.is_connected:
            return
        self.id = self.id or self._ensemble.new_id()
        self.is_connected = True
        self._on_state(self, State.CONNECTED)

    def disconnect(self) -> None:
        """The connection breaks; what was asked fails."""
        if self.is_connected:
            self.is_connected = False
            self._fail_waiting()
            self._on_state(self, State.DISCONNECTED)

    def _fail_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.errback(Failure(LOST))

    def stop(self) -> Deferred[None]:
        self.is_stopped, self.is_connected = True, False
        self._fail_waiting()
        for path in [path for path, owner in self._ensemble.owners.items() if owner == self.id]:
            self._ensemble.remove(path)
        return succeed(None)

    def why_not(self) -> str:
        return "zk: connection refused"

    # --- asking

    def children(self, path: str) -> Deferred[list[str]]:
        def names() -> list[str]:
            self._exists(path)
            self._set_watch(path, is_list=True)
            above = path.rstrip("/") + "/"
            return [node.removeprefix(above) for node in self._ensemble.nodes if node.startswith(above) and "/" not in node[len(above) :]]

        return self._answer(f"children {path}", path, names)

    def data(self, path: str) -> Deferred[bytes]:
        def content() -> bytes:
            self._exists(path)
            self._set_watch(path, is_list=False)
            return self._ensemble.nodes[path]

        return self._answer(f"data {path}", path, content)

    def exists(self, path: str) -> Deferred[bool]:
        def known() -> bool:
            self._set_watch(path, is_list=False)
            return path in self._ensemble.nodes

        return self._answer(f"exists {path}", path, known)

    def create_member(self, path: str, data: bytes) -> Deferred[str]:
        group = path.rpartition("/")[0]
        return self._answer(f"create {path}", path, lambda: self._ensemble.add_member(group, data, self.id))

    def delete(self, path: str) -> Deferred[None]:
        def delete() -> None:
            self._exists(path)
            self._ensemble.remove(path)

        return self._answer(f"delete {path}", path, delete)

    def _exists(self, path: str) -> None:
        if path not in self._ensemble.nodes:
            raise NoNode(path)

    def _set_watch(self, path: str, *, is_list: bool) -> None:
        self._ensemble.watches.setdefault((path, is_list), set()).add(self)

    def _answer(self, asked: str, path: str, answer: Callable[[], Any]) -> Deferred[Any]:
        self._ensemble.asked.append(asked)
        answered: Deferred[Any] = Deferred()
        self._waiting.append(answered)

        result: Any
        try:
            if path in self._ensemble.denied:
                raise self._ensemble.denied[path]
            result = answer()
        except Exception as error:  # noqa: BLE001 - whatever the node is to answer with
            result = Failure(error)

        def go() -> None:
            if answered in self._waiting:
                self._waiting.remove(answered)
                answered.callback(result)

        if self._ensemble.is_slow:
            self._ensemble.held.append(go)
        else:
            go()
        return answered
