"""The manifests to deploy the gateway as an ingress: the configuration in them is good, and the rights are what the code asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as File
from random import Random
from typing import Any

import pytest
import yaml

from fakes.ingresses import ingress, ingress_class, rule, tls_secret
from fakes.kubernetes import Server, place_of
from fakes.kubernetes_agent import Cluster
from meshgw.config.loader import load
from meshgw.core.certificates import CertificateStore
from meshgw.identify.ingress import IngressIdentifier
from meshgw.identify.ingress_rules import DEFAULT_CONTROLLER, Ownership
from meshgw.identify.ingress_source import IngressSource
from meshgw.identify.ingress_status import Addresses, StatusWriter
from meshgw.kinds import Registry
from meshgw.naming.path import Path
from support.certs import authority

MANIFEST = File(__file__).parents[2] / "deploy" / "kubernetes" / "ingress.yml"
NAMERS = {("", "endpoints", "list"), ("", "endpoints", "watch")}
"""What only the namer asks for; the rest is the identifier's."""
Right = tuple[str, str, str]


def objects() -> dict[str, dict[str, Any]]:
    """The objects by kind."""
    return {item["kind"]: item for item in yaml.safe_load_all(MANIFEST.read_text())}


def granted() -> set[Right]:
    rules = objects()["ClusterRole"]["rules"]
    return {
        (group, resource, verb) for rule in rules for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]
    }


def asked(server: Server) -> Iterator[Right]:
    """Group, resource and verb of all requests so far but those that ask which resources there are, which everybody may."""
    for request in server.asked:
        place = place_of(request.path)
        if place is not None:
            verb = {"GET": "watch" if request.is_watch else "list", "PATCH": "patch"}[request.method]
            yield place.group, "/".join(filter(None, (place.plural, place.subresource))), verb


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as made:
        yield made


def test_the_configuration_is_good() -> None:
    result = load(objects()["ConfigMap"]["data"]["meshgw.yml"], "meshgw.yml", Registry())
    assert [problem.show() for problem in result.problems] == []
    assert result.config is not None
    config = result.config.routers[0].config
    ports = {entry["containerPort"] for entry in objects()["Deployment"]["spec"]["template"]["spec"]["containers"][0]["ports"]}
    assert {server.port for server in config.servers} | {result.config.admin.port} == ports
    service = objects()["Service"]["metadata"]
    assert config.identifier[0].config.publish_service == f"{service['namespace']}/{service['name']}"
    assert (
        result.config.admin.shutdown_grace_ms / 1000 < objects()["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    )


def test_the_class_is_ours() -> None:
    assert objects()["IngressClass"]["spec"]["controller"] == DEFAULT_CONTROLLER


def test_the_rights_are_exactly_those_that_are_used(cluster: Cluster) -> None:
    server, scope = cluster.server, cluster.metrics
    name = objects()["IngressClass"]["metadata"]["name"]
    server.put("ingressclasses", ingress_class(name, DEFAULT_CONTROLLER))
    server.put("secrets", tls_secret("web", authority().leaf("a.com")))
    balancer = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    server.put("services", {"metadata": {"name": "edge", "namespace": "mesh"}, "status": balancer})
    server.put("ingresses", ingress("web", rule("a.com", ("/", "web")), tls={"web": None}, ingressClassName=name))
    source = IngressSource(cluster.api, namespace=None, ownership=Ownership(), metrics=scope)
    addresses = Addresses(cluster.api, (), "mesh/edge")
    status = StatusWriter(source, addresses, clock=cluster.clock, rng=Random(7), metrics=scope)
    identifier = IngressIdentifier(Path.read("/svc"), source, scope, status)
    store = CertificateStore()
    identifier.serve_certificates(store)
    identifier.startService()
    cluster.pass_time(10.0)
    identifier.stopService()
    assert store.find("a.com") is not None
    assert server.objects["ingresses", "shop", "web"]["status"] == balancer
    assert set(asked(server)) | NAMERS == granted()
