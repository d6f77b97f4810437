"""Transformers of replica sets: ``io.l5d.localhost``, ``io.l5d.specificHost`` and ``io.l5d.port``.

Source: linkerd-config spec 8.3. Each puts ``/%`` and its prefix in front of the id of every bound name and maps its addresses; a
filter that leaves no address makes the set ``ADDR_NEG``. Trees keep their shape, so delegations can show both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from meshgw.config.document import option
from meshgw.config.values import Port
from meshgw.core.address import ADDR_NEG, Addr, Address, Bound, Replicas
from meshgw.core.interfaces import LocalAddresses, comparable
from meshgw.core.live import Live, Ok, State, live_join, live_map
from meshgw.kinds import Kind, Runtime
from meshgw.naming.path import Path
from meshgw.naming.tree import NameTree, map_leaves

TRANSFORMED = Path.of("%")
"""The first label of every transformed id."""

Change = Callable[[Live[Addr]], Live[Addr]]


@attrs.frozen(eq=False)
class AddressTransformer:
    """Changes the addresses of each bound name by ``change``; ``name`` is the kind's id, ``prefix`` stands before the ids."""

    name: str
    prefix: Path
    change: Change

    @property
    def can_delegate(self) -> bool:
        """The steps of a delegation stay visible."""
        return True

    def bound(self, bound: Bound) -> Bound:
        """One bound name, transformed."""
        return Bound(self.prefix + bound.id, self.change(bound.addr), bound.residual)

    def transform(self, tree: Live[NameTree[Bound]]) -> Live[NameTree[Bound]]:
        """The tree with every leaf transformed."""
        return live_map(tree, lambda value: map_leaves(value, self.bound))


def _prefixed(prefix: Path | None, default: str) -> Path:
    return TRANSFORMED + (Path.read(default) if prefix is None else prefix)


def keep(addr: Addr, wanted: Callable[[Address], bool]) -> Addr:
    """The addresses that ``wanted`` accepts; ``ADDR_NEG`` if none is left."""
    if not isinstance(addr, Replicas):
        return addr
    kept = tuple(address for address in addr.addresses if wanted(address))
    return Replicas(kept, addr.meta) if kept else ADDR_NEG


@attrs.frozen(kw_only=True)
class LocalhostConfig:
    """Keeps only the addresses of this machine: those of any network interface that is up."""

    prefix: Path | None = option(default=None, doc="Put after `/%` in front of the ids of bound names.", effective="/io.l5d.localhost")


def build_localhost(config: LocalhostConfig, runtime: Runtime) -> AddressTransformer:
    """The transformer that keeps this machine's addresses."""
    local = LocalAddresses(runtime.reactor)

    def filtered(addr: Addr) -> Addr:
        here = {comparable(host) for host in local.now()}
        return keep(addr, lambda address: comparable(address.host) in here)

    return AddressTransformer("io.l5d.localhost", _prefixed(config.prefix, "/io.l5d.localhost"), lambda live: live_map(live, filtered))


@attrs.frozen(kw_only=True)
class SpecificHostConfig:
    """Keeps only the addresses of one host."""

    host: str = option(doc="IP address or host name of the host; a name is resolved again as its DNS records expire.")
    prefix: Path | None = option(default=None, doc="Put after `/%` in front of the ids of bound names.", effective="/io.l5d.specificHost")


def build_specific_host(config: SpecificHostConfig, runtime: Runtime) -> AddressTransformer:
    """The transformer that keeps one host's addresses; the host is looked up only while somebody watches them."""
    allowed = runtime.resolve(config.host, 0)

    def joined(states: Sequence[State[Addr]]) -> State[Addr]:
        state, host = states
        if not isinstance(state, Ok) or not isinstance(state.value, Replicas):
            return state
        if not isinstance(host, Ok):
            return host  # waiting for, or failed on, the DNS of the configured host
        known = host.value.addresses if isinstance(host.value, Replicas) else ()
        hosts = {comparable(address.host) for address in known}
        return Ok(keep(state.value, lambda address: comparable(address.host) in hosts), state.error or host.error)

    def change(live: Live[Addr]) -> Live[Addr]:
        return live_join((live, allowed), joined)

    return AddressTransformer("io.l5d.specificHost", _prefixed(config.prefix, "/io.l5d.specificHost"), change)


@attrs.frozen(kw_only=True)
class PortConfig:
    """Replaces the port of every address."""

    port: Port = option(doc="The port to connect to instead.")
    prefix: Path | None = option(default=None, doc="Put after `/%` in front of the ids of bound names.", effective="/io.l5d.port/<port>")


def build_port(config: PortConfig, runtime: Runtime) -> AddressTransformer:
    """The transformer that sets the port; addresses that become equal merge, the first one's weight counts."""

    def moved(addr: Addr) -> Addr:
        if not isinstance(addr, Replicas):
            return addr
        merged: dict[str, Address] = {}
        for address in addr.addresses:
            merged.setdefault(address.host, attrs.evolve(address, port=config.port))
        return Replicas(tuple(merged.values()), addr.meta)

    return AddressTransformer("io.l5d.port", _prefixed(config.prefix, f"/io.l5d.port/{config.port}"), lambda live: live_map(live, moved))


LOCALHOST = Kind(id="io.l5d.localhost", config=LocalhostConfig, build=build_localhost)
SPECIFIC_HOST = Kind(id="io.l5d.specificHost", config=SpecificHostConfig, build=build_specific_host)
PORT = Kind(id="io.l5d.port", config=PortConfig, build=build_port)
