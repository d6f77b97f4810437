"""Ingress objects, classes and TLS secrets, as they stand in manifests."""

from __future__ import annotations

import base64
from typing import Any

from meshgw.cli.certs import Issued

Json = dict[str, Any]


def backend(service: str, port: int | str = 80) -> Json:
    """A backend of ``networking.k8s.io/v1``."""
    return {"service": {"name": service, "port": {"number": port} if isinstance(port, int) else {"name": port}}}


def rule(host: str | None, *paths: tuple[str, str], kind: str = "Prefix") -> Json:
    """A rule for a host whose paths lead to services, as (path, service)."""
    found: Json = {"http": {"paths": [{"path": path, "pathType": kind, "backend": backend(service)} for path, service in paths]}}
    return found | ({} if host is None else {"host": host})


def ingress(
    name: str,
    *rules: Json,
    namespace: str = "shop",
    annotated: str | None = None,
    created: str = "2020-01-01T00:00:00Z",
    tls: dict[str, list[str] | None] | None = None,
    status: list[Json] | None = None,
    **spec: Any,
) -> Json:
    """An Ingress; ``tls`` is hosts by secret, ``status`` what stands in ``loadBalancer.ingress``."""
    annotations = {} if annotated is None else {"kubernetes.io/ingress.class": annotated}
    entries = [{"secretName": secret} | ({} if hosts is None else {"hosts": hosts}) for secret, hosts in (tls or {}).items()]
    made: Json = {
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created, "annotations": annotations},
        "spec": {"rules": list(rules), **({"tls": entries} if entries else {}), **spec},
    }
    return made | ({} if status is None else {"status": {"loadBalancer": {"ingress": status}}})


def ingress_class(name: str, controller: str, *, is_default: bool = False) -> Json:
    """An IngressClass."""
    annotations = {"ingressclass.kubernetes.io/is-default-class": "true"} if is_default else {}
    return {"metadata": {"name": name, "annotations": annotations}, "spec": {"controller": controller}}


def tls_secret(name: str, issued: Issued, *, namespace: str = "shop", key: Issued | None = None) -> Json:
    """A secret of a certificate, with its own key or that of another one."""
    data = {"tls.crt": issued.certificate_pem, "tls.key": (key or issued).key_pem()}
    encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
    return {"metadata": {"name": name, "namespace": namespace}, "type": "kubernetes.io/tls", "data": encoded}
