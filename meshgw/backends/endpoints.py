"""Endpoints as a backend tells them, which may be host names, made into a live set of addresses.

Source: linkerd-config spec 3.2 and 3.4 (every name counts with all its addresses). A name that came from a backend is resolved again as
its records expire, whatever the backend does meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from meshgw.core.address import ADDR_NEG, NO_META, Addr, Address, Replicas
from meshgw.core.live import PENDING, Constant, Failed, Live, Observation, Ok, Pending, Source, State, failed
from meshgw.errors import NamerError

Resolve = Callable[[str, int], Live[Addr]]

MOST_SHOWN: Final = 5
FEW_HOSTS: Final = 20
GATHER_SECONDS: Final = 0.05
"""Of more hosts than that, what is said in this time is told together: each telling is as long as the whole set, and as the balancer's
work on it, so a thousand hosts told one by one would take seconds."""


@attrs.frozen
class Endpoint:
    """One endpoint: a host name or literal address, a port, a weight, and metadata for its addresses."""

    host: str
    port: int
    weight: float = 1.0
    meta: Mapping[str, Any] = attrs.field(default=NO_META, hash=False)


@attrs.frozen
class Endpoints:
    """What a backend says of a service that exists; ``meta`` is for the whole set."""

    endpoints: tuple[Endpoint, ...] = ()
    meta: Mapping[str, Any] = attrs.field(default=NO_META, hash=False)


@attrs.frozen
class NoEndpoints:
    """The service does not exist."""


NO_ENDPOINTS = NoEndpoints()
Found = Endpoints | NoEndpoints


def show_found(found: Found) -> object:
    """What was found as JSON data, for ``/namer_state``; None if the service does not exist."""
    if isinstance(found, NoEndpoints):
        return None
    addresses = [{"host": one.host, "port": one.port, "weight": one.weight} for one in found.endpoints]
    return {"addresses": addresses, **({"meta": dict(found.meta)} if found.meta else {})}


def resolved(found: Live[Found], resolve: Resolve, waiting_for: str, clock: IReactorTime | None = None) -> Live[Addr]:
    """The live addresses of what was found. ``waiting_for`` tells in messages whose hosts are being resolved.

    With a ``clock``, changes of many hosts are gathered.
    """

    def start(out: Source[Addr]) -> Callable[[], None]:
        hosts = _Hosts(out, resolve, waiting_for, clock)
        observation = found.observe(hosts.take)

        def stop() -> None:
            observation.close()
            hosts.release()

        return stop

    return Source(start, forget=True)


def _asked(resolve: Resolve, host: str, port: int) -> Live[Addr]:
    try:
        return resolve(host, port)
    except Exception as error:  # noqa: BLE001 - names come from backends: one that cannot be resolved at all must not spoil the others
        return failed(error)


class _Hosts:
    """The present endpoints with the state of each host; one that several endpoints share is resolved once, whatever their ports."""

    def __init__(self, out: Source[Addr], resolve: Resolve, waiting_for: str, clock: IReactorTime | None) -> None:
        self._out, self._resolve, self._waiting_for, self._clock = out, resolve, waiting_for, clock
        self._found = Endpoints()
        self._error: Exception | None = None
        self._held: dict[str, Observation] = {}
        self._states: dict[str, State[Addr]] = {}
        self._is_settled, self._is_found = True, False
        self._gathering: IDelayedCall | None = None
        self._made: dict[int, tuple[Endpoint, State[Addr], list[Address]]] = {}
        """What was told last, by the identity of endpoints: an endpoint that stays, with its host as it was, has the same addresses."""

    def take(self, state: State[Found]) -> None:
        """Take over what the backend says now."""
        self._is_found = isinstance(state, Ok) and isinstance(state.value, Endpoints)
        if not isinstance(state, Ok):
            self._gather_no_more()
            self._out.put(state)
        elif isinstance(state.value, NoEndpoints):
            self.release()
            self._found = Endpoints()
            self._out.put(Ok(ADDR_NEG, state.error))
        else:
            changed, self._found, self._error = self._found != state.value, state.value, state.error
            if changed:
                self._follow()
            self._publish()

    def _follow(self) -> None:
        """Resolve the hosts that are new; those that stay are not asked anew. Literal addresses need no watching."""
        wanted = {endpoint.host: endpoint.port for endpoint in self._found.endpoints}
        self._is_settled = False
        for host in [host for host in wanted if host not in self._states]:
            live = _asked(self._resolve, host, wanted[host])
            if isinstance(live, Constant):
                self._states[host] = live.state
            else:
                self._states[host] = PENDING
                self._held[host] = live.observe(partial(self._said, host))
        self._is_settled = True
        for host in self._states.keys() - wanted.keys():
            del self._states[host]
            held = self._held.pop(host, None)
            if held is not None:
                held.close()

    def _said(self, host: str, state: State[Addr]) -> None:
        self._states[host] = state
        if not self._is_settled or not self._is_found:
            return
        if self._clock is None or len(self._held) <= FEW_HOSTS or not isinstance(self._out.state, Ok):
            self._publish()
        elif self._gathering is None:
            self._gathering = self._clock.callLater(GATHER_SECONDS, self._publish)

    def _publish(self) -> None:
        """Tell the addresses known now: a host that is not known yet is waited for only if nothing else is known."""
        self._gather_no_more()
        addresses: dict[tuple[str, int], Address] = {}
        error, is_pending = self._error, False
        states, before, self._made = self._states, self._made, {}
        for endpoint in self._found.endpoints:
            state = states[endpoint.host]
            made = before.get(id(endpoint))
            if made is None or made[1] is not state:
                made = endpoint, state, _addresses(endpoint, state)
            self._made[id(endpoint)] = made
            for address in made[2]:
                addresses.setdefault((address.host, address.port), address)
            if isinstance(state, Pending):
                is_pending = True
            elif state.error is not None:
                error = error or state.error
        if not addresses and self._found.endpoints and error is None:
            error = self._nowhere()
        if not addresses and is_pending:
            self._out.pend(f"DNS of {self._waiting_for}")
        elif not addresses and error is not None and error is not self._error and not isinstance(self._out.state, Ok):
            self._out.put(Failed(error))
        else:  # also when none of them has an address: those before are the addresses of others, which are gone
            self._out.put(Ok(Replicas(tuple(addresses.values()), self._found.meta), error))

    def _nowhere(self) -> NamerError:
        hosts = [*dict.fromkeys(endpoint.host for endpoint in self._found.endpoints)]
        more = f" and {len(hosts) - MOST_SHOWN} more" if len(hosts) > MOST_SHOWN else ""
        return NamerError(detail=f"{self._waiting_for}: no address for {', '.join(hosts[:MOST_SHOWN])}{more}")

    def _gather_no_more(self) -> None:
        call, self._gathering = self._gathering, None
        if call is not None and call.active():
            call.cancel()

    def release(self) -> None:
        """Let all hosts go."""
        self._gather_no_more()
        held, self._held, self._states, self._made = self._held, {}, {}, {}
        for observation in held.values():
            observation.close()


def _addresses(endpoint: Endpoint, state: State[Addr]) -> list[Address]:
    """The addresses of an endpoint by the state of its host."""
    if not isinstance(state, Ok) or not isinstance(state.value, Replicas):
        return []
    return [Address(one.host, endpoint.port, endpoint.weight, endpoint.meta) for one in state.value.addresses]
