"""Transformers to endpoints on the same node of Kubernetes: ``io.l5d.k8s.daemonset`` and ``io.l5d.k8s.localnode``.

Source: linkerd-config spec 8.3. Nodes are told apart by the first 24 bits of pods' IPv4 addresses, which is how most networks of clusters
assign them; where they do not, and with ``hostNetwork``, by the ``nodeName`` that the namer has for each address. An IPv6 address is in
no such network.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
from twisted.application.service import MultiService

from meshgw.backends.endpoints import resolved
from meshgw.backends.kubernetes import NO_OBJECTS, KubernetesApi, kubernetes_api
from meshgw.backends.kubernetes_endpoints import SOURCES, ServiceEndpoints, ServicePort, show_services
from meshgw.config.document import one_of, option
from meshgw.config.kubernetes import KubernetesAccess
from meshgw.config.values import Port
from meshgw.core.address import ADDR_NEG, Addr, Address, Bound, Replicas
from meshgw.core.interfaces import comparable
from meshgw.core.live import Live, Observation, Ok, Pending, State, live_join, live_map
from meshgw.errors import NamerError
from meshgw.kinds import Kind, Runtime
from meshgw.naming.path import Path
from meshgw.naming.tree import NameTree
from meshgw.transform.address import TRANSFORMED, AddressTransformer, keep

NODE_BITS: Final = 24
"""Of a node's share of the pods' network, fixed in Linkerd."""
_LOCALNODE: Final = "io.l5d.k8s.localnode"

Where = Callable[[Address], int | str | None]
"""What tells the node of an address; None: it is on no known one."""


def network_of(host: str) -> int | None:
    """The first 24 bits of an IPv4 address; None for any other."""
    try:
        address = ipaddress.ip_address(comparable(host))
    except ValueError:
        return None
    return int(address) >> (32 - NODE_BITS) if isinstance(address, ipaddress.IPv4Address) else None


def network_of_address(address: Address) -> int | None:
    """As :func:`network_of`."""
    return network_of(address.host)


def node_of(address: Address) -> str | None:
    """The name of the node it is on, if its namer knows."""
    node = address.meta.get("nodeName")
    return node if isinstance(node, str) else None


def replaced(addr: Addr, gateways: Addr, where: Where) -> Addr:
    """The gateways on the nodes of the addresses; ``ADDR_NEG`` if there are none. Without gateways at all the addresses stay."""
    if not isinstance(addr, Replicas) or not isinstance(gateways, Replicas):
        return addr
    nodes = {where(address) for address in addr.addresses} - {None}
    kept = tuple(gateway for gateway in gateways.addresses if where(gateway) in nodes)
    return Replicas(kept, addr.meta) if kept else ADDR_NEG


@attrs.frozen(kw_only=True)
class DaemonsetConfig(KubernetesAccess):
    """Replaces each address by that of the daemonset's pod on the same node."""

    namespace: str = option(doc="Namespace of the daemonset's Service.")
    service: str = option(doc="Name of the daemonset's Service.")
    port: str = option(doc="Name or number of its port.")
    k8s_host: str | None = option(default=None, doc="Host of the API server, or of a `kubectl proxy`.", effective="localhost")
    k8s_port: Port | None = option(default=None, doc="Its port.", effective=8001)
    host_network: bool = option(
        default=False, doc="Tell nodes apart by their names instead of by /24 networks: for pods in the node's own network."
    )
    source: str = option(
        default="endpoints",
        doc="Where the daemonset's addresses come from, as for `io.l5d.k8s` (meshgw's own option).",
        check=one_of(*SOURCES),
    )
    prefix: Path | None = option(
        default=None,
        doc="Put after `/%` in front of the ids of bound names.",
        effective="/io.l5d.k8s.daemonset/<namespace>/<port>/<service>",
    )

    @property
    def given_host(self) -> str | None:
        return self.k8s_host

    @property
    def given_port(self) -> int | None:
        return self.k8s_port


class DaemonsetTransformer(MultiService):
    """Follows the daemonset's addresses while it runs, so that they are known when the first name is bound."""

    name = "io.l5d.k8s.daemonset"
    can_delegate = True

    def __init__(self, prefix: Path, api: KubernetesApi, gateways: Live[Addr], where: Where) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._api, self._gateways, self._where = api, gateways, where
        self._inner = AddressTransformer(self.name, prefix, self._change)
        self._held: Observation | None = None
        api.setServiceParent(self)  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Begin to follow."""
        super().startService()  # type: ignore[no-untyped-call]
        self._held = self._gateways.observe(lambda _state: None)

    def stopService(self) -> None:
        """End that."""
        held, self._held = self._held, None
        if held is not None:
            held.close()
        super().stopService()  # type: ignore[no-untyped-call]

    def bound(self, bound: Bound) -> Bound:
        """One bound name, transformed."""
        return self._inner.bound(bound)

    def transform(self, tree: Live[NameTree[Bound]]) -> Live[NameTree[Bound]]:
        """The tree with every leaf transformed."""
        return self._inner.transform(tree)

    def _change(self, addr: Live[Addr]) -> Live[Addr]:
        return live_join((addr, self._gateways), self._joined)

    def _joined(self, states: Sequence[State[Addr]]) -> State[Addr]:
        addr, gateways = states
        if not isinstance(addr, Ok) or not isinstance(addr.value, Replicas):
            return addr
        if isinstance(gateways, Pending):
            return gateways  # for the moment only: an API server that does not answer counts as one without gateways
        if not isinstance(gateways, Ok):
            return addr
        return Ok(replaced(addr.value, gateways.value, self._where), addr.error or gateways.error)

    def describe(self) -> Mapping[str, Any]:
        """What is watched."""
        return self._api.describe()


def build_daemonset(config: DaemonsetConfig, runtime: Runtime, environment: Mapping[str, str] | None = None) -> DaemonsetTransformer:
    """The transformer of a configuration block. Raises :class:`NamerError`."""
    api = kubernetes_api(config, runtime, environment=environment, absent=NO_OBJECTS, show=show_services)
    port = ServicePort(config.namespace.lower(), config.port.lower(), config.service.lower())
    gateways = resolved(ServiceEndpoints(api, config.source).found(port), runtime.resolve, f"{api.backend}: {port.show()}", runtime.reactor)
    default = Path.of("io.l5d.k8s.daemonset", config.namespace, config.port, config.service)
    prefix = TRANSFORMED + (default if config.prefix is None else config.prefix)
    return DaemonsetTransformer(prefix, api, gateways, node_of if config.host_network else network_of_address)


@attrs.frozen(kw_only=True)
class LocalnodeConfig:
    """Keeps only the addresses of pods on this process's node of Kubernetes."""

    host_network: bool = option(
        default=False,
        doc="Tell nodes apart by their names, of which NODE_NAME in the environment is ours, instead of by the /24 network of POD_IP.",
    )
    prefix: Path | None = option(
        default=None,
        doc="Put after `/%` in front of the ids of bound names.",
        effective=f"/{_LOCALNODE}/<POD_IP>, or /{_LOCALNODE}/<NODE_NAME> with hostNetwork",
    )


def _required(environment: Mapping[str, str], name: str, what: str, field: str) -> str:
    value = environment.get(name, "").strip()
    if not value:
        raise NamerError(
            detail=f"{_LOCALNODE}: {name} env variable must be set to {what}; in the pod's manifest: env: [{{name: {name}, valueFrom: "
            f"{{fieldRef: {{fieldPath: {field}}}}}}}]"
        )
    return value


def build_localnode(config: LocalnodeConfig, runtime: Runtime, environment: Mapping[str, str] | None = None) -> AddressTransformer:
    """The transformer of a configuration block. Raises :class:`NamerError` where the environment does not say where we are."""
    surroundings = os.environ if environment is None else environment
    if config.host_network:
        here = _required(surroundings, "NODE_NAME", "the node's name", "spec.nodeName")
    else:
        here = _required(surroundings, "POD_IP", "the pod's IP", "status.podIP")
    network = network_of(here)
    if not config.host_network and network is None:
        raise NamerError(
            detail=f"{_LOCALNODE}: POD_IP is {here!r}, and only an IPv4 address is in a node's /24 network; use hostNetwork: true"
        )

    def is_local(address: Address) -> bool:
        return address.meta.get("nodeName") == here if config.host_network else network_of(address.host) == network

    def change(addr: Live[Addr]) -> Live[Addr]:
        return live_map(addr, lambda value: keep(value, is_local))

    prefix = TRANSFORMED + (Path.of(_LOCALNODE, here) if config.prefix is None else config.prefix)
    return AddressTransformer(_LOCALNODE, prefix, change)


DAEMONSET = Kind(id="io.l5d.k8s.daemonset", config=DaemonsetConfig, build=build_daemonset)
LOCALNODE = Kind(id=_LOCALNODE, config=LocalnodeConfig, build=build_localnode)
LOCALHOST = Kind(id="io.l5d.k8s.localhost", config=LocalnodeConfig, build=build_localnode)
"""Another name of the same, which some of Linkerd's documentation has."""
