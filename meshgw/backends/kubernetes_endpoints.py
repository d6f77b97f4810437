"""Which addresses a port of a Kubernetes Service has: out of Endpoints or EndpointSlices, and of the Service for a numbered port.

Source: linkerd-config spec 3.5 (port rules); Kubernetes' reference of Endpoints, EndpointSlice and Service. An address goes with the
ports of its own subset only. What an object has of the wrong type is left out: the server validates, and one odd entry must not take
the others along. Namers and transformers share this.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs

from meshgw.backends.endpoints import NO_ENDPOINTS, Endpoint, Endpoints, Found
from meshgw.backends.kubernetes import KubernetesApi
from meshgw.backends.kubernetes_objects import (
    ENDPOINT_SLICES,
    ENDPOINT_SLICES_BETA,
    ENDPOINTS,
    NO_OBJECTS,
    SERVICES,
    JsonObject,
    Objects,
    Resource,
    Wanted,
)
from meshgw.core.address import NO_META
from meshgw.core.live import Live, Ok, State, constant, live_flat_map, live_join, live_map
from meshgw.core.logger import make_logger

_log = make_logger()

SOURCES: Final = ("endpoints", "endpointSlices", "auto")
SERVICE_LABEL: Final = "kubernetes.io/service-name"
OVER_CAPACITY: Final = "endpoints.kubernetes.io/over-capacity"
MOST_REMARKED: Final = 1000
_HOSTNAME: Final = "kubernetes.io/hostname"  # where discovery.k8s.io/v1beta1 has the node


@attrs.frozen
class ServicePort:
    """A port of a Service, by name or number; ``label`` is a selector such as ``app=web`` or empty."""

    namespace: str
    port: str
    service: str
    label: str = ""

    @property
    def number(self) -> int | None:
        """The number, if the port is one."""
        return int(self.port) if self.port.isascii() and self.port.isdigit() else None

    def show(self) -> str:
        """For messages."""
        return f"port {self.port} of service {self.namespace}/{self.service}{f':{self.label}' if self.label else ''}"


@attrs.frozen
class Host:
    """A ready address, the node it is on, and the pod whose address it is, if these are told."""

    host: str
    node: str = ""
    pod: str = ""
    _made: dict[int, Endpoint] = attrs.field(factory=dict, init=False, eq=False, repr=False)

    def endpoint(self, port: int) -> Endpoint:
        """With a port; the same object each time, so that whoever compares endpoints has little to do."""
        made = self._made.get(port)
        if made is None:
            made = self._made[port] = Endpoint(self.host, port, meta={"nodeName": self.node} if self.node else NO_META)
        return made


@attrs.frozen
class Subset:
    """Hosts, and the TCP ports that each of them has, by name; the one without a name has the empty one."""

    hosts: tuple[Host, ...]
    ports: Mapping[str, int]


@attrs.frozen
class Backends:
    """What is behind a Service. ``exists``: whether there is any object that says so.

    ``stopping`` are the hosts that still serve although their pods are being stopped: they count for a port for which no other is ready.
    """

    subsets: tuple[Subset, ...] = ()
    exists: bool = False
    stopping: tuple[Subset, ...] = ()

    def has_port(self, name: str) -> bool:
        """Whether any has a port of this name."""
        return any(name in subset.ports for subset in self.subsets)

    def by_name(self, name: str) -> Endpoints:
        """The endpoints with the port of this name."""
        return self._either(
            lambda subsets: [(host, subset.ports[name]) for subset in subsets if name in subset.ports for host in subset.hosts]
        )

    def by_number(self, number: int) -> Endpoints:
        """All hosts with this port."""
        return self._either(lambda subsets: [(host, number) for subset in subsets for host in subset.hosts])

    def _either(self, chosen: Callable[[tuple[Subset, ...]], Sequence[tuple[Host, int]]]) -> Endpoints:
        found = _distinct(chosen(self.subsets))
        return found if found.endpoints or not self.stopping else _distinct(chosen(self.stopping))


def _distinct(pairs: Sequence[tuple[Host, int]]) -> Endpoints:
    """Without repeats; a pod that has addresses of both families counts once, by the IPv4 one if it has one."""
    found: dict[tuple[str, int], Host] = {}
    chosen: dict[tuple[str, int], str] = {}
    has_both = len({":" in host.host for host, _ in pairs}) > 1
    for host, port in pairs:
        if has_both and host.pod:
            before = chosen.setdefault((host.pod, port), host.host)
            if _is_v6(before) and not _is_v6(host.host):
                del found[before, port]
                chosen[host.pod, port] = host.host
            elif _is_v6(before) != _is_v6(host.host):
                continue
        found.setdefault((host.host, port), host)
    return Endpoints(tuple(host.endpoint(port) for (_, port), host in found.items()))


def _is_v6(host: str) -> bool:
    return ":" in host


# --- reading objects


def is_truncated(value: JsonObject) -> bool:
    """Whether Endpoints hold some of a Service's addresses only, as they do of more than 1,000 since Kubernetes 1.22."""
    return _map(_map(value.get("metadata")).get("annotations")).get(OVER_CAPACITY) == "truncated"


class Reader:
    """Reads one Service's objects, again at each change: what is told of an address as before is the same :class:`Host` as before."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[JsonObject, Host]] = {}
        self._next: dict[str, tuple[JsonObject, Host]] = {}

    def endpoints(self, objects: Objects) -> Backends:
        """What Endpoints say."""
        subsets = []
        for value in objects.values():
            for subset in _items(value.get("subsets")):
                hosts = [self._host(each.get("ip"), each, False) for each in _items(subset.get("addresses"))]
                subsets.append(Subset(tuple([host for host in hosts if host is not None]), _ports(subset.get("ports"))))
        return self._read(subsets, objects)

    def slices(self, objects: Objects) -> Backends:
        """What EndpointSlices say together."""
        ready, stopping = (
            [Subset(tuple(self._hosts_of(value, chosen)), _ports(value.get("ports"))) for value in objects.values()]
            for chosen in (_is_ready, _is_still_serving)
        )
        return self._read(ready, objects, stopping if any(subset.hosts for subset in stopping) else ())

    def _read(self, subsets: Sequence[Subset], objects: Objects, stopping: Sequence[Subset] = ()) -> Backends:
        self._known, self._next = self._next, {}
        return Backends(tuple(subsets), bool(objects), tuple(stopping))

    def _hosts_of(self, value: JsonObject, chosen: Callable[[Mapping[str, Any]], bool]) -> Iterator[Host]:
        is_named = value.get("addressType") == "FQDN"
        for each in _items(value.get("endpoints")):
            addresses = each.get("addresses")
            if chosen(_map(each.get("conditions"))) and addresses and isinstance(addresses, list):
                host = self._host(addresses[0], each, is_named)  # the others are for the same pod, and not to be used
                if host is not None:
                    yield host

    def _host(self, address: object, said: JsonObject, is_named: bool) -> Host | None:
        """What an entry says of its address; None if that is none."""
        if not isinstance(address, str):
            return None
        known = None if is_named else self._known.get(address)
        if known is None or known[0] != said:
            if not (is_named or _is_address(address)):
                return None
            node = _text(said.get("nodeName")) or _text(_map(said.get("topology")).get(_HOSTNAME))
            known = said, Host(address, node, _pod(said))
        if not is_named:
            self._next[address] = known
        return known[1]


def read_endpoints(objects: Objects) -> Backends:
    """What Endpoints say."""
    return Reader().endpoints(objects)


def read_slices(objects: Objects) -> Backends:
    """What EndpointSlices say together."""
    return Reader().slices(objects)


def _is_ready(conditions: Mapping[str, Any]) -> bool:
    return conditions.get("ready") in (True, None)  # unknown counts as ready


def _is_still_serving(conditions: Mapping[str, Any]) -> bool:
    return conditions.get("terminating") is True and conditions.get("serving") is True


def _ports(value: object) -> dict[str, int]:
    found = {}
    for each in _items(value):
        number = _port(each.get("port"))
        if each.get("protocol") in (None, "TCP") and number is not None:
            found[_text(each.get("name")).lower()] = number
    return found


def _pod(value: Mapping[str, Any]) -> str:
    target = _map(value.get("targetRef"))
    return _text(target.get("uid")) if target.get("kind") == "Pod" else ""


def _items(value: object) -> Iterator[dict[str, Any]]:
    for each in value if isinstance(value, list) else ():
        if isinstance(each, dict):
            yield each


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _port(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536 else None


def _is_address(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)  # a sixth of the time that ipaddress takes
    except (OSError, ValueError):
        return False
    return True


def show_services(objects: Objects) -> object:
    """For ``/namer_state``: what Endpoints, slices and Services say as it is used; None if there is no object."""
    if not objects:
        return None
    if any("spec" in value for value in objects.values()):
        ports = [
            {"port": each.number, "name": each.name, "target": each.target} for value in objects.values() for each in _service_ports(value)
        ]
        return objects.describe() | {"ports": ports}
    backends = read_slices(objects) if any("addressType" in value for value in objects.values()) else read_endpoints(objects)
    return objects.describe() | {
        "subsets": [_shown(subset) for subset in backends.subsets],
        **({"stopping": [_shown(subset) for subset in backends.stopping if subset.hosts]} if backends.stopping else {}),
    }


def _shown(subset: Subset) -> dict[str, object]:
    return {"ports": dict(subset.ports), "addresses": [host.host for host in subset.hosts]}


# --- ports


def named_port(backends: Backends, port: str) -> Found:
    """The endpoints of a named port."""
    return backends.by_name(port) if backends.has_port(port) else NO_ENDPOINTS


def numbered_port(service: JsonObject | None, backends: Backends, number: int) -> Found:
    """The endpoints of a port of the Service by its number; of a number that the Service does not have, the pods' own port."""
    if service is None and not backends.exists:
        return NO_ENDPOINTS
    wanted = next((each for each in _service_ports(service) if each.number == number), None)
    if wanted is None:
        return backends.by_number(number)
    if backends.has_port(wanted.name):  # what the endpoints say of the Service's port prevails, as it does for kube-proxy
        return backends.by_name(wanted.name)
    if isinstance(wanted.target, str):
        return named_port(backends, wanted.target)
    return backends.by_number(wanted.target)


def external_port(service: JsonObject | None, port: ServicePort) -> Found:
    """The load balancers in front of a Service, with one of its ports."""
    number = next((each.number for each in _service_ports(service) if port.port in (str(each.number), each.name)), None)
    balancers = _items(_map(_map(_map(service).get("status")).get("loadBalancer")).get("ingress"))
    hosts = dict.fromkeys(filter(None, (_text(each.get("hostname")) or _text(each.get("ip")) for each in balancers)))
    if number is None or not hosts:
        return NO_ENDPOINTS
    return Endpoints(tuple(Endpoint(host, number) for host in hosts))


@attrs.frozen
class _Mapped:
    """A port of a Service: its name, or the empty one, its number, and the pods' port by number or name."""

    name: str
    number: int
    target: int | str


def _service_ports(service: JsonObject | None) -> Iterator[_Mapped]:
    for each in _items(_map(_map(service).get("spec")).get("ports")):
        number = _port(each.get("port"))
        if each.get("protocol") in (None, "TCP") and number is not None:
            target = each.get("targetPort")
            yield _Mapped(_text(each.get("name")).lower(), number, _port(target) or _text(target).lower() or number)


# --- live


class ServiceEndpoints:
    """The live endpoints of ports of Services, from one API server. ``source`` is one of :data:`SOURCES`."""

    def __init__(self, api: KubernetesApi, source: str = "endpoints") -> None:
        self._api = api
        self._resources: dict[str, tuple[Resource, ...]] = {
            "endpoints": (ENDPOINTS,),
            "endpointSlices": (ENDPOINT_SLICES, ENDPOINT_SLICES_BETA),
            "auto": (ENDPOINT_SLICES, ENDPOINT_SLICES_BETA, ENDPOINTS),
        }
        self._choice = self._resources[source]
        self._remarked: set[str] = set()

    def found(self, port: ServicePort) -> Live[Found]:
        """The endpoints of a port; :data:`NO_ENDPOINTS` if there is no such port or Service."""
        backends = self._backends(port)
        number = port.number
        if number is None:
            return live_map(backends, lambda value: named_port(value, port.port))
        services = self._api.objects(Wanted(SERVICES, port.namespace, port.service))

        def joined(states: Sequence[State[Any]]) -> State[Found]:
            for state in states:
                if not isinstance(state, Ok):
                    return state
            service, behind = states
            assert isinstance(service, Ok) and isinstance(behind, Ok)
            return Ok(numbered_port(service.value.one(), behind.value, number), behind.error or service.error)

        sources: tuple[Live[Any], ...] = (services, backends)
        return live_join(sources, joined)

    def external(self, port: ServicePort) -> Live[Found]:
        """The load balancers in front of a port."""
        services = self._api.objects(Wanted(SERVICES, port.namespace, port.service, labels=port.label))
        return live_map(services, lambda value: external_port(value.one(), port))

    def _backends(self, port: ServicePort) -> Live[Backends]:
        if len(self._choice) == 1:
            return self._backends_in(self._choice[0], port)
        return live_flat_map(self._api.served(*self._choice), lambda resource: self._backends_in(resource, port))

    def _backends_in(self, resource: Resource, port: ServicePort) -> Live[Backends]:
        if resource is ENDPOINTS:
            return live_map(
                self._api.objects(Wanted(ENDPOINTS, port.namespace, port.service, labels=port.label)), partial(self._read, Reader())
            )
        labels = ",".join(filter(None, (f"{SERVICE_LABEL}={port.service}", port.label)))
        if len(port.service) > 63:  # no label's value is so long, so there can be no slices of such a Service
            return constant(read_slices(NO_OBJECTS))
        return live_map(self._api.objects(Wanted(resource, port.namespace, labels=labels)), Reader().slices)

    def _read(self, reader: Reader, objects: Objects) -> Backends:
        for (namespace, name), value in objects.items():
            shown = f"{namespace}/{name}"
            if is_truncated(value) and shown not in self._remarked and len(self._remarked) < MOST_REMARKED:
                self._remarked.add(shown)
                _log.warn(
                    "{backend}: Endpoints of {service} leave some of its addresses out, which get no requests; set source: endpointSlices",
                    backend=self._api.backend,
                    service=shown,
                )
        return reader.endpoints(objects)
