"""How the names of one process resolve, as plain data that may be answered here or sent to the process that serves admin.

Source: linkerd-config spec 2.4 (``/delegator.json``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime

from meshgw.admin.errors import CannotDelegate, NotResolved
from meshgw.bind.delegate import with_addresses
from meshgw.core.live import Failed, Live, Ok, Pending, State
from meshgw.kinds import Interpreter
from meshgw.naming.dtab import Delegation, Dtab
from meshgw.naming.path import Path

DELEGATION_SECONDS = 2.0  # spec 2.4

DelegationJson = Callable[[Delegation], Mapping[str, Any]]


class Delegations:
    """Asks the interpreters of the ``routers`` (by label), each of which may have ``delegate`` (:class:`meshgw.kinds.Delegator`).

    ``default`` has no configured namers (spec 2.4); it answers where no router is named, or an unknown one. ``as_json`` turns a
    delegation into plain data.
    """

    def __init__(self, routers: Mapping[str, Interpreter], default: Interpreter, as_json: DelegationJson, reactor: IReactorTime) -> None:
        self._routers, self._default, self._as_json, self._reactor = routers, default, as_json, reactor

    async def delegate(self, namespace: str | None, dtab: Dtab, path: Path) -> Mapping[str, Any]:
        """The delegation tree, ready for ``json.dumps``.

        Raises :class:`CannotDelegate`, :class:`NotResolved` after two seconds, or whatever :class:`MeshError` the lookup fails with.
        """
        name, interpreter = self._interpreter(namespace)
        delegate = getattr(interpreter, "delegate", None)
        if delegate is None or not getattr(interpreter, "can_delegate", True):
            raise CannotDelegate(namespace=name)
        live: Live[Delegation] = with_addresses(delegate(dtab, path))  # else lazy sources would show as pending
        return self._as_json(await _settled(live, self._reactor, DELEGATION_SECONDS))

    def _interpreter(self, namespace: str | None) -> tuple[str, Interpreter]:
        if namespace is None and len(self._routers) == 1:
            namespace = next(iter(self._routers))  # Linkerd uses one without namers, whose answer misleads where it is clear who is meant
        if namespace is not None and namespace in self._routers:
            return namespace, self._routers[namespace]
        return namespace or "default", self._default


async def _settled(live: Live[Delegation], reactor: IReactorTime, seconds: float) -> Delegation:
    """The first good value or failure of ``live``. Raises :class:`NotResolved` if neither comes in time."""
    waiting: defer.Deferred[Delegation] = defer.Deferred()
    waiting_for = ""

    def notify(state: State[Delegation]) -> None:
        nonlocal waiting_for
        if waiting.called:
            return
        if isinstance(state, Pending):
            waiting_for = state.waiting_for
        elif isinstance(state, Ok):
            waiting.callback(state.value)
        elif isinstance(state, Failed):
            waiting.errback(state.error)

    observation = live.observe(notify)
    try:
        return await waiting.addTimeout(seconds, reactor)
    except defer.TimeoutError as error:  # not the builtin of the same name
        raise NotResolved(waiting_for=waiting_for) from error
    finally:
        observation.close()
