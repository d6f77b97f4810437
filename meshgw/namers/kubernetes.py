"""``io.l5d.k8s``, ``io.l5d.k8s.ns`` and ``io.l5d.k8s.external``: names are ports of Kubernetes Services.

Source: linkerd-config spec 3.5. What a port's addresses are is ``backends.kubernetes_endpoints``. Only what is asked for is watched: the
objects of one Service, while somebody uses its name and a minute longer. Names that no object can have are neg without asking.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
from twisted.application.service import MultiService

from meshgw.backends.endpoints import Found
from meshgw.backends.kubernetes import KubernetesApi, kubernetes_api
from meshgw.backends.kubernetes_endpoints import SOURCES, ServiceEndpoints, ServicePort, show_services
from meshgw.config.document import Chosen, one_of, option
from meshgw.config.kubernetes import KubernetesServer
from meshgw.core.address import Bound
from meshgw.core.live import Live, constant
from meshgw.errors import NamerError
from meshgw.kinds import Kind, Runtime
from meshgw.namers.watched import bound_found
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, NameTree

_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SERVICE: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_PORT_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_LABEL_KEY: Final = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def _label_key(value: Any) -> str | None:
    return None if _LABEL_KEY.fullmatch(value) else f"{value!r} cannot be the key of a label; its value is the last segment of names"


@attrs.frozen(kw_only=True)
class _ServicesConfig(KubernetesServer):
    label_selector: str | None = option(
        default=None,
        doc="Key of a label that a Service must have; names then have one more segment, its value.",
        check=_label_key,
        effective="none",
    )
    transformers: tuple[Chosen, ...] = option(
        default=(), doc="Transformers applied in the listed order to what this namer finds.", kinds="transformers"
    )


@attrs.frozen(kw_only=True)
class _EndpointsConfig(_ServicesConfig):
    source: str = option(
        default="endpoints",
        doc="Where addresses come from (meshgw's own option): `endpoints`, which hold at most 1,000 of a Service since Kubernetes 1.22; "
        "`endpointSlices`, which hold all; or `auto`: slices where the server has them. Each needs the right to list and watch them.",
        check=one_of(*SOURCES),
    )


@attrs.frozen(kw_only=True)
class K8sConfig(_EndpointsConfig):
    """Ports of Kubernetes Services, by namespace, port and name: ``/#/io.l5d.k8s/default/http/web``."""

    prefix: Path = option(factory=lambda: Path.read("/io.l5d.k8s"), doc="The namer answers names under `/#` followed by this path.")


@attrs.frozen(kw_only=True)
class K8sNamespaceConfig(_EndpointsConfig):
    """Ports of the Services of one Kubernetes namespace, which an environment variable names: ``/#/io.l5d.k8s.ns/http/web``."""

    env_var: str = option(default="POD_NAMESPACE", doc="Environment variable that holds the namespace, read at start.")
    prefix: Path = option(factory=lambda: Path.read("/io.l5d.k8s.ns"), doc="The namer answers names under `/#` followed by this path.")


@attrs.frozen(kw_only=True)
class K8sExternalConfig(_ServicesConfig):
    """Load balancers in front of Kubernetes Services, as their status tells: ``/#/io.l5d.k8s.external/default/http/web``."""

    prefix: Path = option(
        factory=lambda: Path.read("/io.l5d.k8s.external"), doc="The namer answers names under `/#` followed by this path."
    )


class K8sNamer(MultiService):
    """Names of one API server's Services; ``prefix`` is the mount point with ``/#``, ``namespace`` that of all names if they have none."""

    def __init__(
        self,
        prefix: Path,
        api: KubernetesApi,
        find: Callable[[ServicePort], Live[Found]],
        runtime: Runtime,
        *,
        namespace: str | None = None,
        label: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._prefix, self._api, self._find, self._runtime = prefix, api, find, runtime
        self._namespace, self._label = namespace, label
        self._length = (2 if namespace is not None else 3) + (1 if label is not None else 0)
        self._lookups = runtime.metrics.counter("lookups")
        api.setServiceParent(self)  # type: ignore[no-untyped-call]

    def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
        """The bound name of a port, the rest of ``path`` as residual; neg while there is no such port."""
        self._lookups.incr()
        port = self._port(path)
        if port is None:
            return constant(NEG)
        id = self._prefix + Path(label.lower() for label in path.take(self._length))
        return bound_found(
            self._find(port),
            f"{self._api.backend}: {port.show()}",
            self._runtime.reactor,
            id=id,
            residual=path.drop(self._length),
            resolve=self._runtime.resolve,
        )

    def _port(self, path: Path) -> ServicePort | None:
        """What the segments mean; None for what cannot be in Kubernetes, and must not get into a selector."""
        if len(path) < self._length:
            return None
        try:
            segments = [label.decode("ascii").lower() for label in path.take(self._length)]
        except UnicodeDecodeError:
            return None
        if self._namespace is not None:
            segments.insert(0, self._namespace)
        namespace, port, service, *value = segments
        if not _NAMESPACE.fullmatch(namespace) or not _SERVICE.fullmatch(service) or not _is_port(port):
            return None
        if value and not _LABEL_VALUE.fullmatch(value[0]):
            return None
        return ServicePort(namespace, port, service, f"{self._label}={value[0]}" if value else "")

    def describe(self) -> Mapping[str, Any]:
        """What is watched, in the two groups that Linkerd shows: by ``namespace/service``, and with the selector if there is one."""
        found = dict(self._api.describe())
        groups: dict[str, dict[str, Any]] = {"endpoints": {}, "portMappings": {}}
        for key, state in found.pop("watches").items():
            plural, _, name = key.partition(" ")
            groups["portMappings" if plural == "services" else "endpoints"][name] = {"state": state["state"], "watch": state["poll"]}
        return found | groups


def _is_port(text: str) -> bool:
    return 0 < int(text) < 65536 if text.isdigit() and len(text) < 6 else bool(_PORT_NAME.fullmatch(text)) and not text.isdigit()


def build_k8s(config: K8sConfig, runtime: Runtime, environment: Mapping[str, str] | None = None) -> K8sNamer:
    """The namer of a configuration block. Raises :class:`NamerError`."""
    api = kubernetes_api(config, runtime, environment=environment, show=show_services)
    find = ServiceEndpoints(api, config.source).found
    return K8sNamer(Path.of("#") + config.prefix, api, find, runtime, label=config.label_selector)


def build_k8s_ns(config: K8sNamespaceConfig, runtime: Runtime, environment: Mapping[str, str] | None = None) -> K8sNamer:
    """The namer of a configuration block. Raises :class:`NamerError` without a namespace."""
    surroundings = os.environ if environment is None else environment
    namespace = surroundings.get(config.env_var, "").strip().lower()
    if not _NAMESPACE.fullmatch(namespace):
        found = f"it is {namespace!r}, which is no namespace" if namespace else "it is not set"
        raise NamerError(
            detail=f"io.l5d.k8s.ns: could not find namespace for envVar {config.env_var}: {found}; in a pod, set it from the field "
            "metadata.namespace, or use io.l5d.k8s, whose names have the namespace"
        )
    api = kubernetes_api(config, runtime, environment=surroundings, show=show_services)
    find = ServiceEndpoints(api, config.source).found
    return K8sNamer(Path.of("#") + config.prefix, api, find, runtime, namespace=namespace, label=config.label_selector)


def build_k8s_external(config: K8sExternalConfig, runtime: Runtime, environment: Mapping[str, str] | None = None) -> K8sNamer:
    """The namer of a configuration block. Raises :class:`NamerError`."""
    api = kubernetes_api(config, runtime, environment=environment, show=show_services)
    return K8sNamer(Path.of("#") + config.prefix, api, ServiceEndpoints(api).external, runtime, label=config.label_selector)


K8S = Kind(id="io.l5d.k8s", config=K8sConfig, build=build_k8s)
K8S_NS = Kind(id="io.l5d.k8s.ns", config=K8sNamespaceConfig, build=build_k8s_ns)
K8S_EXTERNAL = Kind(id="io.l5d.k8s.external", config=K8sExternalConfig, build=build_k8s_external, experimental=True)
