"""Waiting for the addresses of a host. Apart from ``backends.connecting``, so that whoever only asks name servers needs no HTTP client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from meshgw.core.address import Addr, Address, Replicas
from meshgw.core.live import Failed, Live, Ok, Pending, State
from meshgw.errors import NamerError

RESOLVE_SECONDS: Final = 5.0

Resolve = Callable[[str, int], Live[Addr]]


def addresses_of(live: Live[Addr], host: str, clock: Any) -> Deferred[tuple[Address, ...]]:
    """The addresses of a host once they are known; an error or none is a :class:`NamerError`."""

    def cancel(_waiting: object) -> None:
        observation.close()

    known: Deferred[tuple[Address, ...]] = Deferred(cancel)
    waiting_for = ""

    def notify(state: State[Addr]) -> None:
        nonlocal waiting_for
        if known.called:
            return
        if isinstance(state, Pending):
            waiting_for = state.waiting_for
        elif isinstance(state, Failed):
            known.errback(state.error)
        elif isinstance(state, Ok) and isinstance(state.value, Replicas) and state.value.addresses:
            known.callback(state.value.addresses)
        else:
            known.errback(NamerError(detail=f"{host}: no such host"))

    observation = live.observe(notify)

    def ended(result: Any) -> Any:
        observation.close()
        return result

    def late(failure: Failure) -> NoReturn:
        failure.trap(defer.TimeoutError)  # type: ignore[no-untyped-call]
        raise NamerError(detail=f"{host}: not resolved within {RESOLVE_SECONDS:g} s{f' ({waiting_for})' if waiting_for else ''}")

    return known.addTimeout(RESOLVE_SECONDS, clock).addBoth(ended).addErrback(late)
