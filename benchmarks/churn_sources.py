"""What the soak of churn changes: services in a real Consul, a real Kubernetes API server or the fake one, by their own HTTP APIs."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from support.kubernetes import ADMIN, Api, ApiServer, Etcd, at, endpoints, missing
from support.kubernetes_fake import FakeKubernetes
from support.processes import LOOPBACK, Process, ProcessFailed, Running, free_port

Json = dict[str, Any]
SECONDS = 20.0
NAMESPACE = "churn"
PORT_NAME = "http"
CONSUL_CONNECTIONS = 10_000
"""By default an agent refuses the 201st connection from one address, and each watch is one."""


class Source(Protocol):
    """Where services are, and how a gateway finds them there."""

    namer: Json
    """The entry in ``namers``."""
    prefix: str
    """What comes before the service's name in a name of that namer."""

    def host(self, service: int, instance: int) -> str:
        """The address of an instance, which leads to this machine."""
        ...

    def put(self, name: str, hosts: Iterable[str], port: int) -> None:
        """Let a service have exactly these hosts; none means that it does not exist."""
        ...

    def found(self, name: str) -> set[str]:
        """The hosts that the source itself names for a service now."""
        ...

    def deafen(self) -> None:
        """Tell the gateway nothing more. Raises :class:`ProcessFailed` where that cannot be had."""
        ...


YIELDING = ("chrt", "--idle", "0")
"""A source has its own machine elsewhere: here it takes the CPU that it shares with callers and endpoints when they leave it."""


def address_of(net: int, service: int, instance: int) -> str:
    """An address of NET.0.0.0/8 for each instance of each service."""
    return f"{net}.{service // 250 + 100}.{service % 250}.{instance + 1}"


class Consul:
    """A Consul agent in development mode; the instances are in its catalog, without checks."""

    def __init__(self, running: Running, core: int) -> None:
        self.port = free_port()
        ports = [f"-http-port={self.port}", f"-server-port={free_port()}", f"-serf-lan-port={free_port()}", f"-serf-wan-port={free_port()}"]
        argv = [*YIELDING, "consul", "agent", "-dev", f"-bind={LOOPBACK}", f"-client={LOOPBACK}", *ports, "-dns-port=-1", "-grpc-port=-1"]
        argv += ["-log-level=warn", "-hcl", f"limits {{ http_max_conns_per_client = {CONSUL_CONNECTIONS} }}"]
        self._api = http.client.HTTPConnection(LOOPBACK, self.port, timeout=SECONDS)
        running.add(Process("consul", argv, running.directory, port=self.port, core=core), seconds=60.0, is_ready=self._has_leader)
        self.namer = {"kind": "io.l5d.consul", "port": self.port}
        self.prefix = "/#/io.l5d.consul/dc1"
        self._registered: dict[str, set[str]] = {}

    def host(self, service: int, instance: int) -> str:
        """See :class:`Source`."""
        return address_of(127, service, instance)

    def _has_leader(self) -> bool:
        try:
            return bool(self._ask("GET", "/v1/status/leader"))
        except (OSError, http.client.HTTPException, AssertionError):
            self._api.close()
            return False

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        self._api.request(method, path, json.dumps(body) if body is not None else None)
        answer = self._api.getresponse()
        data = answer.read()
        assert answer.status == 200, f"{method} {path}: {answer.status} {data[:200]!r}"
        return json.loads(data)

    def put(self, name: str, hosts: Iterable[str], port: int) -> None:
        """See :class:`Source`."""
        wanted, present = set(hosts), self._registered.get(name, set())
        for host in sorted(wanted - present):
            described = {"ID": f"{name}-{host}", "Service": name, "Address": host, "Port": port}
            self._ask("PUT", "/v1/catalog/register", {"Node": "churn", "Address": LOOPBACK, "Service": described, "SkipNodeUpdate": True})
        for host in sorted(present - wanted):
            self._ask("PUT", "/v1/catalog/deregister", {"Node": "churn", "ServiceID": f"{name}-{host}"})
        self._registered[name] = wanted

    def deafen(self) -> None:
        """See :class:`Source`."""
        raise ProcessFailed("only the fake API server can be made to tell nothing")

    def found(self, name: str) -> set[str]:
        """See :class:`Source`."""
        return {instance["ServiceAddress"] for instance in self._ask("GET", f"/v1/catalog/service/{name}")}


class Kubernetes:
    """Endpoints in the API server at ``api``; ``access`` says how a gateway reaches it, ``net`` in which network the addresses are."""

    def __init__(self, api: Api, access: Mapping[str, Any], *, net: int) -> None:
        self._api, self._net = api, net
        self.namer = {"kind": "io.l5d.k8s", **access}
        self.prefix = f"/#/io.l5d.k8s/{NAMESPACE}/{PORT_NAME}"

    def host(self, service: int, instance: int) -> str:
        """See :class:`Source`."""
        return address_of(self._net, service, instance)

    def put(self, name: str, hosts: Iterable[str], port: int) -> None:
        """See :class:`Source`."""
        wanted, path = sorted(hosts), at(NAMESPACE, "endpoints", name)
        if wanted:
            self._api.put(path, endpoints(name, wanted, {PORT_NAME: port}))
        else:
            self._api.ask("DELETE", path)

    def deafen(self) -> None:
        """See :class:`Source`."""
        refused = [[verb, "endpoints", "*"] for verb in ("list", "watch")]
        if self._api.ask("POST", "/control", {"set": {"forbidden": refused}, "end_watches": []}).status != 200:
            raise ProcessFailed("only the fake API server can be made to tell nothing")

    def found(self, name: str) -> set[str]:
        """See :class:`Source`."""
        object = self._api.do("GET", at(NAMESPACE, "endpoints", name))
        return {address["ip"] for subset in object.get("subsets") or () for address in subset.get("addresses") or ()}


def _consul(running: Running, core: int) -> Source:
    return Consul(running, core)


def _apiserver(running: Running, core: int) -> Source:
    reason = missing()
    if reason:
        raise ProcessFailed(reason)
    server = ApiServer(running, Etcd(running), core=core)
    server.namespace(NAMESPACE)
    token = running.directory / "token"
    token.write_text(ADMIN)
    access = {"host": LOOPBACK, "port": server.port, "tls": {"trustCerts": [server.trust]}, "tokenFile": str(token)}
    return Kubernetes(server.api, access, net=10)


def _kubernetes(running: Running, core: int) -> Source:
    port = FakeKubernetes(running).port
    return Kubernetes(Api(f"http://{LOOPBACK}:{port}"), {"host": LOOPBACK, "port": port}, net=127)


SOURCES: Mapping[str, Callable[[Running, int], Source]] = {"consul": _consul, "kubernetes": _kubernetes, "apiserver": _apiserver}
OWN_NETWORK = "apiserver"
"""The source whose endpoints cannot be on loopback addresses."""
