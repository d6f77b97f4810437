"""``io.l5d.rancher``: names are services of Rancher's stacks, addresses those of their running containers.

Source: linkerd-config spec 3.8; Rancher 1's metadata service, version 2015-12-19. Its version is waited on by a long poll, and the
containers are fetched when it changes. Unlike Linkerd, an outage leaves the last good containers in use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import attrs
from twisted.application.service import MultiService

from meshgw.backends.connecting import Connector
from meshgw.backends.endpoints import NO_ENDPOINTS, Endpoint, Endpoints, Found
from meshgw.backends.http_client import ApiClient
from meshgw.backends.watching import Pace, Watch, Watches
from meshgw.config.document import Chosen, between, option
from meshgw.config.values import Port
from meshgw.core.address import Bound
from meshgw.core.live import Live, constant, live_map
from meshgw.kinds import Kind, Runtime
from meshgw.namers.watched import bound_found
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, NameTree

BUILT_IN_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}
LARGEST_ANSWER: Final = 32 << 20
"""Bytes: one answer has all containers of an environment, a kilobyte or so each."""
ANSWER_SECONDS: Final = 10.0
"""For the containers, and for the version beyond the time that Rancher was asked to wait."""
LONGEST_VERSION: Final = 200
NEWS_SECONDS: Final = 0.1
NO_NEWS_SECONDS: Final = 1.0
"""The least from one question for the version to the next: a service that does not wait must not be asked in a loop."""

_API: Final = "/2015-12-19"
_ANY: Final = "initial"
"""Stands for a version before one is known: it differs from all, so the answer comes at once."""
_ALL: Final = "containers"
_PORT: Final = re.compile(r"[0-9]{1,5}")

Service = tuple[str, str]
Containers = Mapping[Service, tuple[str, ...]]


@attrs.frozen(kw_only=True)
class RancherConfig:
    """Services of Rancher 1, from its metadata service. A name is `/PORT/STACK/SERVICE`, with a port's number or its name."""

    port_mappings: Mapping[str, Port] = option(
        factory=dict, doc="Ports by their names, beside `http` (80) and `https` (443), which may be given anew."
    )
    max_wait: int = option(
        default=30, doc="Seconds that Rancher is asked to wait for a change before it answers that there is none.", check=between(1, 500)
    )
    host: str = option(default="rancher-metadata", doc="Host of the metadata service. meshgw's own option.")
    port: Port = option(default=Port(80), doc="Its port. meshgw's own option.")
    prefix: Path = option(factory=lambda: Path.read("/io.l5d.rancher"), doc="The namer answers names under `/#` followed by this path.")
    transformers: tuple[Chosen, ...] = option(
        default=(), doc="Transformers applied in the listed order to what this namer finds.", kinds="transformers"
    )


def read_containers(found: Any) -> Containers | None:
    """The addresses of running containers by stack and service, both in lower case; None if that is no list of containers."""
    if not isinstance(found, list):
        return None
    services: dict[Service, set[str]] = {}
    for container in found:
        if not isinstance(container, dict) or container.get("state") != "running":
            continue
        names = (container.get("stack_name"), container.get("service_name"), container.get("primary_ip"))
        stack, service, ip = (name if isinstance(name, str) else "" for name in names)
        if stack and service and ip:
            services.setdefault((stack.lower(), service.lower()), set()).add(ip)
    return {service: tuple(sorted(ips)) for service, ips in services.items()}


class RancherNamer(MultiService):
    """The namer of one configuration block; all its names share one watch. ``connector`` leads to the metadata service."""

    def __init__(self, config: RancherConfig, runtime: Runtime, connector: Connector) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._runtime, self._prefix = runtime, Path.of("#") + config.prefix
        self._ports = {**BUILT_IN_PORTS, **config.port_mappings}
        self._max_wait = config.max_wait
        self._connector = connector
        backend = f"Rancher's metadata at {config.host}:{config.port}"
        self._client = ApiClient(
            connector.agent,
            runtime.reactor,
            name=backend,
            base=connector.base,
            largest=LARGEST_ANSWER,
            outcomes=runtime.metrics.outcomes("client"),
        )
        self._lookups = runtime.metrics.counter("lookups")
        self._watches: Watches[str, Containers] = Watches(
            runtime.reactor,
            runtime.random,
            runtime.metrics.scope("service"),
            backend=backend,
            follow=self._follow,
            show=str,
            show_value=lambda services: {f"{stack}/{service}": list(ips) for (stack, service), ips in services.items()},
            pace=Pace(lasting_least=5.0, silence=config.max_wait + 3 * ANSWER_SECONDS),
        )
        self._watches.setServiceParent(self)  # type: ignore[no-untyped-call]

    def stopService(self) -> Any:
        """End all work; the last state stays."""
        self._connector.stop()
        return super().stopService()  # type: ignore[no-untyped-call]

    def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
        """The service of ``/PORT/STACK/SERVICE``; neg while no container of it runs, or if the port has no number."""
        self._lookups.incr()
        labels = [label.decode("utf-8", "replace") for label in path.take(3)]
        port = self._port(labels[0]) if len(labels) == 3 else None
        if port is None:
            return constant(NEG)
        service = (labels[1].lower(), labels[2].lower())
        found = live_map(self._watches.watch(_ALL), partial(_endpoints, service, port))
        id = self._prefix + Path.of(labels[0], *service)
        return bound_found(found, id.show(), self._runtime.reactor, id=id, residual=path.drop(3), resolve=self._runtime.resolve)

    def describe(self) -> dict[str, Any]:
        """What is watched, for ``/namer_state``."""
        return self._watches.describe()

    def _port(self, text: str) -> int | None:
        if text in self._ports:
            return self._ports[text]
        return int(text) if _PORT.fullmatch(text) and 1 <= int(text) <= 65535 else None

    async def _follow(self, watch: Watch[str, Containers]) -> None:
        """Fetch the containers whenever the version is another one; a failure begins anew, with no version known."""
        version, services = _ANY, dict[Service, tuple[str, ...]]()
        while True:
            began = self._runtime.reactor.seconds()
            now = await self._version(version)
            is_news = now != version or version == _ANY
            if is_news:
                services = dict(await self._containers())
                version = now
            watch.facts["version"] = version
            watch.good(services)
            took = self._runtime.reactor.seconds() - began
            await watch.sleep(max(0.0, (NEWS_SECONDS if is_news else NO_NEWS_SECONDS) - took))

    async def _version(self, known: str) -> str:
        asked = "its version"
        query = (("wait", "true"), ("maxWait", str(self._max_wait)), ("value", known))
        answer = await self._client.get(f"{_API}/version", query, seconds=self._max_wait + ANSWER_SECONDS, asked=asked)
        if not answer.is_good:
            raise self._client.refused(answer, asked)
        text = answer.body.decode("utf-8", "replace").strip()
        if text.startswith('"'):
            text = self._client.read_json(answer.body, asked)
        if not text or len(text) > LONGEST_VERSION or not text.isprintable() or text[0] in "{[<":
            raise self._client.malformed("what is no version", asked)
        return text

    async def _containers(self) -> Containers:
        asked = "its containers"
        answer = await self._client.get(f"{_API}/containers", seconds=ANSWER_SECONDS, asked=asked)
        if not answer.is_good:
            raise self._client.refused(answer, asked)
        services = read_containers(self._client.read_json(answer.body, asked))
        if services is None:
            raise self._client.malformed("what is no list of containers", asked)
        return services


def _endpoints(service: Service, port: int, services: Containers) -> Found:
    ips = services.get(service)
    return NO_ENDPOINTS if ips is None else Endpoints(tuple(Endpoint(ip, port) for ip in ips))


def build_rancher(config: RancherConfig, runtime: Runtime) -> RancherNamer:
    """The namer for a configuration block."""
    return RancherNamer(config, runtime, Connector(runtime.reactor, runtime.resolve, config.host, config.port))


KIND = Kind(id="io.l5d.rancher", config=RancherConfig, build=build_rancher, experimental=True)
