"""A member of ours in a group of ZooKeeper: an ephemeral node that is there as long as we want it, whatever becomes of sessions.

Source: the ZooKeeper Programmer's Guide (ephemeral and sequence nodes). After a session expired, or when somebody removed the node, it is
made again. When nobody knows whether it was made, the session is given up, and the node with it: so there is never more than one of a
session that lives.
"""

from __future__ import annotations

from random import Random
from typing import Final

from twisted.internet.defer import CancelledError, Deferred

from meshgw.backends.zookeeper import View, ZooKeeper
from meshgw.core.logger import make_logger
from meshgw.core.timers import Backoff, Spawner, sleep
from meshgw.errors import BackendDefect, BackendError, BackendSilent, BackendUnreachable

_log = make_logger()

LOOK_SECONDS: Final = 120.0
"""How often the node is looked for although nothing is told."""
RETRY_LEAST, RETRY_MOST = 0.2, 10.0
WITHDRAW_SECONDS: Final = 2.0


class Membership:
    """Keeps a node called ``path`` and a number, which holds ``data``; ``what`` tells in messages what is announced."""

    def __init__(self, zookeeper: ZooKeeper, rng: Random, *, path: str, data: bytes, what: str) -> None:
        self._zookeeper, self._path, self._data, self._what = zookeeper, path, data, what
        self._backoff = Backoff(rng, least=RETRY_LEAST, most=RETRY_MOST)
        self._spawner = Spawner()
        self._node: str | None = None
        self._session: int | None = None
        self._error: BackendError | None = None

    @property
    def is_there(self) -> bool:
        """Whether the node was there when last looked for."""
        return self._node is not None and self._error is None

    def start(self) -> None:
        """Begin to make the node."""
        self._spawner.spawn(self._run(), self._what)

    def withdraw(self) -> Deferred[None]:
        """Remove the node, and make it no more; fires when that is done, or after 2 s without an answer."""
        self._spawner.stop()
        return Deferred.fromCoroutine(self._remove())

    def describe(self) -> dict[str, object]:
        """The state as JSON data, for admin."""
        return {"node": self._node, "announced": self.is_there, "error": None if self._error is None else str(self._error)}

    async def _remove(self) -> None:
        node, self._node = self._node, None
        if node is None or self._session != self._zookeeper.session_id:
            return  # the node of an ended session is gone, and somebody else's may have its name if the server has lost its data
        removed = Deferred.fromCoroutine(self._zookeeper.delete(node))
        try:
            await removed.addTimeout(WITHDRAW_SECONDS, self._zookeeper.clock, lambda *_: None)
        except BackendError as error:
            _log.warn("{what}: {node} is not removed; it goes with the session: {error}", what=self._what, node=node, error=str(error))

    async def _run(self) -> None:
        while True:
            try:
                await self._keep()
            except BackendError as error:
                self._failed(error)
            except CancelledError:
                raise
            except Exception:  # noqa: BLE001 - the rim of the task: a defect must not end it for good
                _log.failure("defect while keeping {what}", what=self._what)
                self._failed(BackendDefect(backend=self._zookeeper.backend, reason="internal error; the log has the details"))
            await sleep(self._zookeeper.clock, self._backoff.next())

    async def _keep(self) -> None:
        view = await self._zookeeper.view()
        try:
            while True:
                if not await self._is_in(view):
                    await self._make(view)
                elif self._error is not None:
                    self._recovered()
                else:
                    await view.changed(LOOK_SECONDS)
        finally:
            view.close()

    async def _is_in(self, view: View) -> bool:
        return self._node is not None and self._session == view.session_id and await view.exists(self._node)

    async def _make(self, view: View) -> None:
        if self._node is not None:
            view.forget(self._node)
            self._node = None
        try:
            self._node = await view.create_member(self._path, self._data)
        except (BackendUnreachable, BackendSilent, CancelledError):
            self._zookeeper.give_up(view)
            raise
        self._session, self._error = view.session_id, None
        self._backoff.reset()
        _log.info("{what} is announced as {node}", what=self._what, node=self._node)

    def _failed(self, error: BackendError) -> None:
        if self._error is None or self._error.summary != error.summary:
            state = "cannot be announced" if self._node is None else "is announced only as long as its session lasts"
            _log.warn("{what} {state}: {error}; trying again", what=self._what, state=state, error=str(error))
        self._error = error

    def _recovered(self) -> None:
        _log.info("{what} is still announced as {node}", what=self._what, node=self._node)
        self._error = None
        self._backoff.reset()
