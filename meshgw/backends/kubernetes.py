"""A Kubernetes API server: objects that are watched, which of several versions of a resource it serves, and changes to objects.

Source: Kubernetes' API concepts; linkerd-config spec 3.5, 5.2 (ingresses), 8.2 (ConfigMaps). What is watched is followed as
``backends.kubernetes_watch`` says, while somebody observes it; how the server is reached is ``backends.kubernetes_access``.

What it is asked for with: the verbs ``list`` and ``watch`` on each resource (Linkerd asked for ``get`` and ``watch``), and whatever
:meth:`KubernetesApi.request` is used for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final
from weakref import WeakKeyDictionary

import attrs
from twisted.application.service import MultiService

from meshgw.backends.hosts import Resolve
from meshgw.backends.kubernetes_access import SERVICE_ACCOUNT, ApiServer
from meshgw.backends.kubernetes_objects import (
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    ENDPOINT_SLICES_BETA,
    ENDPOINTS,
    INGRESS_CLASSES,
    INGRESSES,
    INGRESSES_BETA,
    INGRESSES_EXTENSIONS,
    NO_OBJECTS,
    SECRETS,
    SERVICES,
    JsonObject,
    Name,
    Objects,
    Resource,
    Wanted,
)
from meshgw.backends.kubernetes_watch import Limits, Reflection
from meshgw.backends.watching import MOST_WATCHES, Pace, Watch, Watches
from meshgw.config.kubernetes import DEFAULT_WATCHES, KubernetesAccess
from meshgw.core.live import Live
from meshgw.errors import BackendRefused
from meshgw.kinds import Runtime
from meshgw.telemetry.metrics import Metrics

__all__ = [
    "CONFIG_MAPS",
    "ENDPOINTS",
    "ENDPOINT_SLICES",
    "ENDPOINT_SLICES_BETA",
    "INGRESSES",
    "INGRESSES_BETA",
    "INGRESSES_EXTENSIONS",
    "INGRESS_CLASSES",
    "NO_OBJECTS",
    "SECRETS",
    "SERVICES",
    "JsonObject",
    "KubernetesApi",
    "Name",
    "Objects",
    "Resource",
    "Wanted",
    "kubernetes_api",
]

PACE: Final = Pace(silence=700.0)
"""A watch may be silent for ten minutes, its own timeout and margin; see ``backends.kubernetes_watch``."""
DISCOVERY_SECONDS: Final = 300.0
"""How long it is believed which resources are served: they change with upgrades of the cluster."""
REQUEST_SECONDS: Final = 10.0
_PATCH: Final = "application/merge-patch+json"


class KubernetesApi(MultiService):
    """One API server. It watches only while it runs, and only what is observed."""

    def __init__(
        self,
        clock: Any,
        rng: Random,
        metrics: Metrics,
        server: ApiServer,
        *,
        pace: Pace = PACE,
        absent: Objects | None = None,
        most: int = MOST_WATCHES,
        most_watched: int = DEFAULT_WATCHES,
        show: Callable[[Objects], object] = Objects.describe,
    ) -> None:
        """``metrics`` is the scope of the watches' counters, ``show`` what admin shows of objects; for ``absent`` and ``most`` see
        :class:`Watches`. ``most_watched`` of the things that are chosen by a name may have a watch at the server at a time.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._clock, self._rng, self._server = clock, rng, server
        self._reflections: WeakKeyDictionary[Watch[Wanted, Objects], Reflection] = WeakKeyDictionary()
        self._served: dict[tuple[str, str], tuple[float, frozenset[str]]] = {}
        self._limits = Limits(most_watched)
        metrics.gauge("watching", function=lambda: float(self._limits.watches.taken))
        self._objects: Watches[Wanted, Objects] = Watches(
            clock,
            rng,
            metrics,
            backend=server.name,
            follow=self._follow,
            show=Wanted.show,
            show_value=show,
            absent=absent,
            pace=pace,
            most=most,
        )
        self._objects.setServiceParent(self)  # type: ignore[no-untyped-call]
        self._metrics, self._pace = metrics, pace
        self._versions: Watches[tuple[Resource, ...], Resource] | None = None

    @property
    def backend(self) -> str:
        """What messages call the server."""
        return self._server.name

    def startService(self) -> None:
        """Begin to follow the files of TLS; watches begin when they are observed."""
        self._server.start()
        super().startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> None:
        """End all watches."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._server.stop()

    # --- what is watched

    def objects(self, wanted: Wanted) -> Live[Objects]:
        """The live objects of ``wanted``; none of them is an empty :class:`Objects`, not an error."""
        return self._objects.watch(wanted)

    def served(self, *resources: Resource) -> Live[Resource]:
        """The first of these, usually versions of the same thing, that the server serves; an error while it serves none."""
        if self._versions is None:  # most need none, and its metrics would only puzzle
            self._versions = Watches(
                self._clock,
                self._rng,
                self._metrics.scope("discovery"),
                backend=self.backend,
                follow=self._discover,
                show=_shown,
                show_value=Resource.show,
                pace=self._pace,
            )
            self._versions.setServiceParent(self)  # type: ignore[no-untyped-call]
        return self._versions.watch(resources)

    async def _follow(self, watch: Watch[Wanted, Objects]) -> None:
        reflection = self._reflections.get(watch)
        if reflection is None:
            reflection = self._reflections[watch] = Reflection(self._server, self._rng, watch.key, self._refined, self._limits)
        await reflection.follow(watch)

    async def _discover(self, watch: Watch[tuple[Resource, ...], Resource]) -> None:
        while True:
            for resource in watch.key:
                if await self.serves(resource):
                    watch.good(resource)
                    break
            else:
                raise BackendRefused(backend=self.backend, reason=f"404: it serves none of {_shown(watch.key)}", code=404)
            await watch.sleep(DISCOVERY_SECONDS * self._rng.uniform(1.0, 1.2))  # when `serves` asks anew

    # --- what is asked once

    async def serves(self, resource: Resource) -> bool:
        """Whether the server has this resource; asked once in five minutes. Raises :class:`BackendError`."""
        key, now = (resource.group, resource.version), self._clock.seconds()
        asked_at, plurals = self._served.get(key, (0.0, frozenset[str]()))
        if key not in self._served or now - asked_at >= DISCOVERY_SECONDS:
            plurals = await self._plurals(resource)
            self._served[key] = (now, plurals)
        return resource.plural in plurals

    async def _plurals(self, resource: Resource) -> frozenset[str]:
        client, asked = self._server.client(), f"the API {resource.api}"
        answer = await client.get(self._server.path + resource.api, seconds=REQUEST_SECONDS, asked=asked)
        if answer.status == 404:
            return frozenset()
        if not answer.is_good:
            raise client.refused(answer, asked)
        found = client.read_json(answer.body, asked)
        listed = found.get("resources") if isinstance(found, dict) else None
        if not isinstance(listed, list):
            raise client.malformed("what is no list of resources", asked)
        return frozenset(name for each in listed if isinstance(each, dict) and isinstance(name := each.get("name"), str))

    async def request(
        self,
        method: str,
        resource: Resource,
        namespace: str | None,
        name: str = "",
        *,
        subresource: str = "",
        body: JsonObject | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> JsonObject:
        """Ask for a change: ``PATCH`` (a JSON merge patch), ``PUT``, ``POST``, ``DELETE``, or a plain ``GET``; the answer's object.

        Raises :class:`BackendError`, of which :class:`BackendRefused` has a ``code``: 404 not there, 409 somebody else changed it, 403 our
        role does not allow it.
        """
        client, asked = self._server.client(), f"{method} {resource.plural} {namespace or ''}/{name}"
        headers = {"Content-Type": _PATCH if method == "PATCH" else "application/json"} if body is not None else None
        answer = await client.request(
            method,
            self._server.path + resource.path(namespace, name, subresource),
            seconds=seconds,
            asked=asked,
            headers=headers,
            body=None if body is None else json.dumps(body).encode(),
        )
        if not answer.is_good:
            wanted = Wanted(attrs.evolve(resource, plural="/".join(filter(None, (resource.plural, subresource)))), namespace)
            raise self._refined(client.refused(answer, asked), _VERBS.get(method, method.lower()), wanted)
        found = client.read_json(answer.body, asked)
        if not isinstance(found, dict):
            raise client.malformed("what is no object", asked)
        return found

    def _refined(self, error: BackendRefused, verb: str, wanted: Wanted) -> BackendRefused:
        """The error with what is to be done about it."""
        resource = wanted.resource
        if error.code == 403:
            place = f"namespace {wanted.namespace}" if wanted.namespace is not None else "all namespaces"
            group = f" of apiGroup '{resource.group}'" if resource.group else ""
            role = f"a Role in {place} or a ClusterRole" if wanted.namespace is not None else "a ClusterRole"
            advice = f"may not {verb} {resource.plural} in {place}: grant verb '{verb}' on resource '{resource.plural}'{group} by {role}"
        elif error.code == 401:
            advice = f"it does not know who asks: {self._server.how} is not accepted"
        elif error.code == 404 and verb in ("list", "watch"):
            advice = f"it does not serve {resource.show()}"
            self._served.pop((resource.group, resource.version), None)
        else:
            return error
        status, _, said = error.reason.partition(" ")
        return attrs.evolve(error, reason=f"{status}: {advice}{f' {said}' if said else ''}")

    def describe(self) -> dict[str, Any]:
        """The server, and what is watched by resource and name, as JSON data for admin."""
        found: dict[str, Any] = {"server": self._server.url, "watches": self._objects.describe()}
        return found | ({"versions": self._versions.describe()} if self._versions is not None else {})


_VERBS: Final[Mapping[str, str]] = {"GET": "get", "PUT": "update", "POST": "create", "PATCH": "patch", "DELETE": "delete"}


def _shown(resources: tuple[Resource, ...]) -> str:
    return ", ".join(resource.show() for resource in resources)


def kubernetes_api(
    config: KubernetesAccess,
    runtime: Runtime,
    *,
    metrics: Metrics | None = None,
    environment: Mapping[str, str] | None = None,
    service_account: str = SERVICE_ACCOUNT,
    pace: Pace = PACE,
    absent: Objects | None = None,
    show: Callable[[Objects], object] = Objects.describe,
) -> KubernetesApi:
    """The API server of a configuration block; ``metrics`` is the scope of the watches, by default ``service`` of the runtime's.

    ``environment`` is that of the process unless given. Raises :class:`NamerError` if the block cannot be used in this process.
    """
    resolve: Resolve = runtime.resolve
    surroundings = os.environ if environment is None else environment
    outcomes = (metrics or runtime.metrics).outcomes("client")
    reached = ApiServer(runtime.reactor, resolve, config, environment=surroundings, service_account=service_account, outcomes=outcomes)
    scope = metrics or runtime.metrics.scope("service")
    return KubernetesApi(
        runtime.reactor, runtime.random, scope, reached, pace=pace, absent=absent, most_watched=config.max_watches, show=show
    )
