"""The options of ``io.l5d.ingress`` and of listeners that show its certificates (linkerd-config spec 5.2)."""

from __future__ import annotations

import pytest

from meshgw.config.loader import load
from meshgw.config.models import HttpRouterConfig
from meshgw.identify.ingress import IngressConfig
from meshgw.kinds import Registry


def loaded(identifier: str, server: str = "{port: 4140}") -> tuple[HttpRouterConfig | None, list[str]]:
    text = f"routers:\n- protocol: http\n  identifier: {identifier}\n  servers: [{server}]\n"
    result = load(text, "test.yml", Registry())
    config = None if result.config is None else result.config.routers[0].config
    return config, [problem.show().partition(": ")[2] for problem in result.problems]


def test_linkerds_fields_have_linkerds_defaults() -> None:
    config, problems = loaded("{kind: io.l5d.ingress}")
    assert (config is not None, problems) == (True, [])
    assert config is not None
    found = config.identifier[0].config
    assert isinstance(found, IngressConfig)
    assert (found.namespace, found.address, found.ingress_class_annotation, found.ignore_default_backends) == (
        None,
        ("localhost", 8001),
        "linkerd",
        False,
    )
    assert (found.ingresses_without_class, found.publish_address, found.publish_service) == (True, (), None)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("namespace: A/b", "namespace: 'A/b' is not the name of a namespace"),
        ("ingressClassAnnotation: ''", "ingressClassAnnotation: must not be empty"),
        ("ingressController: ''", "ingressController: must not be empty"),
        ("publishAddress: [192.0.2.1, 'a b']", "publishAddress: 'a b' is neither an IP address nor a host name"),
        ("publishService: edge", "publishService: 'edge' is not a service as namespace/name"),
        ("publishService: mesh/edge/x", "publishService: 'mesh/edge/x' is not a service as namespace/name"),
        (
            "publishService: mesh/edge, publishAddress: [192.0.2.1]",
            "publishAddress and publishService: only one of them says what is written",
        ),
        ("inCluster: true, port: 1", "several ways to reach the API server"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(fields: str, expected: str) -> None:
    config, problems = loaded(f"{{kind: io.l5d.ingress, {fields}}}")
    assert config is None
    assert len(problems) == 1
    assert "routers[0].identifier" in problems[0]
    assert expected in problems[0]


def test_a_listener_may_have_no_certificates_but_those_of_ingresses() -> None:
    config, problems = loaded("{kind: io.l5d.ingress}", "{port: 4140, tls: {sni: {ingress: true}}}")
    assert problems == []
    assert config is not None
    tls = config.servers[0].tls
    assert tls is not None
    assert (tls.cert_path, tls.sni is not None and tls.sni.ingress) == (None, True)


def test_certificates_of_ingresses_need_an_identifier_that_has_some() -> None:
    config, problems = loaded("{kind: io.l5d.path}", "{port: 4140, tls: {sni: {ingress: true}}}")
    assert config is None
    assert problems == ["routers[0]: tls.sni.ingress needs an identifier that has certificates, such as io.l5d.ingress"]
    assert loaded("[{kind: io.l5d.path}, {kind: io.l5d.ingress}]", "{port: 4140, tls: {sni: {ingress: true}}}")[1] == []


def test_istios_identifiers_are_out_of_scope_and_the_one_for_ingresses_is_named() -> None:
    _, problems = loaded("{kind: io.l5d.k8s.istio-ingress}")
    assert problems == [
        "routers[0].identifier.kind: out of scope: Istio's discontinued API; ingresses of Kubernetes are what `io.l5d.ingress` reads "
        "(`io.l5d.k8s.istio-ingress`)"
    ]
    assert "out of scope" in loaded("{kind: io.l5d.k8s.istio}")[1][0]
