"""Endpoints as a backend tells them, which may be host names, made into a live set of addresses.

Source: linkerd-config spec 3.2 and 3.4 (every name counts with all its addresses). A name that came from a backend is resolved again as
its records expire, whatever the backend does meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import attrs

from meshgw.core.address import ADDR_NEG, NO_META, Addr, Address, Replicas
from meshgw.core.live import PENDING, Constant, Failed, Live, Observation, Ok, Source, State

Resolve = Callable[[str, int], Live[Addr]]


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


def resolved(found: Live[Found], resolve: Resolve, waiting_for: str) -> Live[Addr]:
    """The live addresses of what was found. ``waiting_for`` tells in messages whose hosts are being resolved."""

    def start(out: Source[Addr]) -> Callable[[], None]:
        hosts = _Hosts(out, resolve, waiting_for)
        observation = found.observe(hosts.take)

        def stop() -> None:
            observation.close()
            hosts.release()

        return stop

    return Source(start, forget=True)


class _Hosts:
    """The present endpoints with the state of each host that is a name."""

    def __init__(self, out: Source[Addr], resolve: Resolve, waiting_for: str) -> None:
        self._out, self._resolve, self._waiting_for = out, resolve, waiting_for
        self._found = Endpoints()
        self._error: Exception | None = None
        self._held: dict[tuple[str, int], Observation] = {}
        self._states: dict[tuple[str, int], State[Addr]] = {}
        self._is_settled = True

    def take(self, state: State[Found]) -> None:
        """Take over what the backend says now."""
        if not isinstance(state, Ok):
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
        wanted = dict.fromkeys((endpoint.host, endpoint.port) for endpoint in self._found.endpoints)
        self._is_settled = False
        for key in wanted:
            if key not in self._states:
                live = self._resolve(*key)
                if isinstance(live, Constant):
                    self._states[key] = live.state
                else:
                    self._states[key] = PENDING
                    self._held[key] = live.observe(partial(self._said, key))
        self._is_settled = True
        for key in [key for key in self._states if key not in wanted]:
            del self._states[key]
            held = self._held.pop(key, None)
            if held is not None:
                held.close()

    def _said(self, key: tuple[str, int], state: State[Addr]) -> None:
        self._states[key] = state
        if self._is_settled:
            self._publish()

    def _publish(self) -> None:
        """Tell the addresses known now: a host that is not known yet is waited for only if nothing else is known."""
        addresses: dict[tuple[str, int], Address] = {}
        error, is_pending = self._error, False
        for endpoint in self._found.endpoints:
            state = self._states[endpoint.host, endpoint.port]
            if isinstance(state, Ok):
                for one in state.value.addresses if isinstance(state.value, Replicas) else ():
                    addresses.setdefault((one.host, one.port), Address(one.host, one.port, endpoint.weight, endpoint.meta))
                error = error or state.error
            elif isinstance(state, Failed):
                error = error or state.error
            else:
                is_pending = True
        if not addresses and is_pending:
            self._out.pend(f"DNS of {self._waiting_for}")
        elif not addresses and error is not None and error is not self._error:
            self._out.fail(error)
        else:
            self._out.put(Ok(Replicas(tuple(addresses.values()), self._found.meta), error))

    def release(self) -> None:
        """Let all hosts go."""
        held, self._held, self._states = self._held, {}, {}
        for observation in held.values():
            observation.close()
