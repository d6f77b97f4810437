"""The identifier kind ``io.l5d.ingress``: names requests by the rules of Kubernetes ingresses.

Source: linkerd-config spec 5.2. The name is ``dstPrefix`` with namespace, port and service of the backend, as the namer ``io.l5d.k8s``
takes it. The rules are in ``identify.ingress_rules`` and ``ingress_source``, certificates of ingresses in ``ingress_tls``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs
from twisted.application.service import MultiService

from meshgw.backends.kubernetes import kubernetes_api
from meshgw.config.document import option
from meshgw.config.kubernetes import KubernetesServer
from meshgw.errors import RulesUnknown
from meshgw.identify.ingress_rules import DEFAULT_CLASS, DEFAULT_CONTROLLER, Ownership, host_of, path_of
from meshgw.identify.ingress_source import IngressSource
from meshgw.identify.ingress_status import Addresses, StatusWriter
from meshgw.identify.request import LONGEST_REMEMBERED, MOST_REMEMBERED
from meshgw.kinds import Identified, Kind, Runtime
from meshgw.naming.path import Path
from meshgw.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from meshgw.core.certificates import CertificateStore
    from meshgw.core.exchange import Exchange
    from meshgw.identify.ingress_tls import IngressCertificates

NO_RULE: Final = "no ingress rule matches"
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


class IngressIdentifier(MultiService):
    """Names requests by host and path. A service: it follows the rules while it runs.

    Hot path: what was found for a host and path is remembered until the rules change; keys come from callers, hence the limits.
    """

    kind: Final = "io.l5d.ingress"
    header_names: Final = (b"host",)

    def __init__(self, prefix: Path, source: IngressSource, metrics: Metrics, status: StatusWriter | None = None) -> None:
        """``metrics`` is the scope ``ingress`` of the router."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._prefix, self._source, self._metrics, self._status = prefix, source, metrics, status
        self._certificates: IngressCertificates | None = None
        self._known: dict[tuple[bytes | None, bytes], Path | str] = {}
        source.on_rules.append(self._known.clear)
        source.setServiceParent(self)  # type: ignore[no-untyped-call]
        if status is not None:
            status.setServiceParent(self)  # type: ignore[no-untyped-call]

    def identify(self, ex: Exchange) -> Identified:
        """The name, or why there is none. Raises :class:`RulesUnknown` while the rules cannot be had at all."""
        target = ex.target
        end = target.find(b"?")
        key = (ex.host, target if end < 0 else target[:end])
        name = self._known.get(key)
        return self._found(*key) if name is None else name

    def _found(self, host: bytes | None, target: bytes) -> Identified:
        table = self._source.table
        if table is None:
            if self._source.error is not None:
                raise RulesUnknown(waiting_for=str(self._source.error))
            return self._source.not_yet
        backend = table.find(host_of(host or b""), path_of(target))
        name: Path | str = NO_RULE
        if backend is not None:
            name = self._prefix + Path.of(backend.namespace, backend.port, backend.service)
        if len(host or b"") + len(target) <= LONGEST_REMEMBERED:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[host, target] = name
        return name

    def serve_certificates(self, store: CertificateStore) -> None:
        """See :class:`meshgw.kinds.CertificateSource`. Only once this is asked for are secrets watched."""
        if self._certificates is None:
            from meshgw.identify.ingress_tls import IngressCertificates  # with what a gateway without TLS need not have

            self._certificates = IngressCertificates(self._source, now=lambda: datetime.now(UTC), metrics=self._metrics.scope("tls"))
            self._certificates.setServiceParent(self)  # type: ignore[no-untyped-call]
        self._certificates.add_store(store)

    @property
    def awaits(self) -> str:
        """See :class:`meshgw.kinds.Awaiting`."""
        if self._source.table is not None:
            return ""
        return f"the ingresses of the API server{f': {self._source.error}' if self._source.error is not None else ''}"

    def describe(self) -> dict[str, Any]:
        """See :class:`meshgw.kinds.Describing`."""
        found: dict[str, Any] = self._source.describe()
        if self._certificates is not None:
            found["tls"] = self._certificates.describe()
        if self._status is not None:
            found["status"] = self._status.describe()
        return found


def _published(value: Any) -> str | None:
    wrong = next((address for address in value if not Addresses.is_address(address)), None)
    return None if wrong is None else f"{wrong!r} is neither an IP address nor a host name"


def _service(value: Any) -> str | None:
    namespace, slash, name = value.partition("/")
    is_good = slash and _NAME.fullmatch(namespace) and _NAME.fullmatch(name)
    return None if is_good else f"{value!r} is not a service as namespace/name"


def _namespace(value: Any) -> str | None:
    return None if _NAME.fullmatch(value) else f"{value!r} is not the name of a namespace"


def _some(value: Any) -> str | None:
    return None if value else "must not be empty"


@attrs.frozen(kw_only=True)
class IngressConfig(KubernetesServer):
    """Names a request by the rules of Kubernetes ingresses: `/NAMESPACE/PORT/SERVICE` of the backend that its host and path lead to.

    Ingresses of `networking.k8s.io/v1` with path types and classes are understood, and the older versions as Linkerd reads them.
    """

    gives_certificates: ClassVar[bool] = True
    """For listeners with ``tls.sni.ingress``."""

    namespace: str | None = option(default=None, doc="Namespace whose ingresses count.", check=_namespace, effective="all namespaces")
    ingress_class_annotation: str = option(
        default=DEFAULT_CLASS,
        doc="Ingresses count whose annotation `kubernetes.io/ingress.class`, or whose `ingressClassName`, is this.",
        check=_some,
    )
    ingress_controller: str = option(
        default=DEFAULT_CONTROLLER,
        doc="Ingresses also count whose IngressClass has this `spec.controller` (meshgw's own option).",
        check=_some,
    )
    ingresses_without_class: bool = option(
        default=True,
        doc="Ingresses without any class count too, as in Linkerd. If false, they do only where our class is the default one of the "
        "cluster (meshgw's own option).",
    )
    ignore_default_backends: bool = option(default=False, doc="Do not use the default backends of ingresses.")
    publish_address: tuple[str, ...] = option(
        default=(),
        doc="Addresses or host names by which the gateway is reached from outside, to be written as `status.loadBalancer` into ingresses "
        "that name our class (meshgw's own option).",
        check=_published,
        effective="statuses are not written",
    )
    publish_service: str | None = option(
        default=None,
        doc="Service, as `namespace/name`, whose external addresses are to be written there instead (meshgw's own option).",
        check=_service,
        effective="none",
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.publish_address and self.publish_service is not None:
            raise ValueError("publishAddress and publishService: only one of them says what is written")


def build_ingress(config: IngressConfig, runtime: Runtime, *, prefix: Path) -> IngressIdentifier:
    """The identifier; it asks for nothing before it is started. ``runtime.metrics`` is the router's scope."""
    metrics = runtime.metrics.scope("ingress")
    api = kubernetes_api(config, runtime, metrics=metrics.scope("service"))
    ownership = Ownership(
        name=config.ingress_class_annotation, controller=config.ingress_controller, takes_unclaimed=config.ingresses_without_class
    )
    source = IngressSource(
        api, namespace=config.namespace, ownership=ownership, ignore_defaults=config.ignore_default_backends, metrics=metrics
    )
    status = None
    if config.publish_address or config.publish_service is not None:
        addresses = Addresses(api, config.publish_address, config.publish_service)
        status = StatusWriter(source, addresses, clock=runtime.reactor, rng=runtime.random, metrics=metrics.scope("status"))
    return IngressIdentifier(prefix, source, metrics, status)


KIND = Kind(id=IngressIdentifier.kind, config=IngressConfig, build=build_ingress, protocols=frozenset({"http", "h2"}))
