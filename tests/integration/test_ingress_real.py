"""The gateway as an ingress of a real API server, with the class and the rights of the manifests and no others."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshgw.cli.certs import Issued
from support.certs import authority
from support.gateways import LOOPBACK, SECONDS, Gateway, Json, Nginx, curl, gateway
from support.kubernetes import ADMIN, ApiServer, Etcd, at, missing
from support.processes import Running, wait_until
from support.servers import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.skipif(bool(missing()), reason=missing())]

EDGE = "token-of-edge"
USERS = {ADMIN: ("admin", "system:masters"), EDGE: ("edge", "nothing")}
NETWORKING, EXTENSIONS, RBAC = "networking.k8s.io/v1", "extensions/v1beta1", "rbac.authorization.k8s.io/v1"
STATE = "/http/identifier_state/io.l5d.ingress.json"


def manifests() -> dict[str, Json]:
    text = (ROOT / "deploy" / "kubernetes" / "ingress.yml").read_text()
    return {item["kind"]: item for item in yaml.safe_load_all(text)}


def grant(server: ApiServer, role: Json) -> None:
    """Give the gateway's user the role of the manifest."""
    name = role["metadata"]["name"]
    server.api.do("POST", f"/apis/{RBAC}/clusterroles", role)
    binding = {
        "apiVersion": RBAC,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "edge"}],
    }
    server.api.do("POST", f"/apis/{RBAC}/clusterrolebindings", binding)


def ingress(name: str, host: str, *paths: Json, **spec: Any) -> Json:
    return {
        "apiVersion": NETWORKING,
        "kind": "Ingress",
        "metadata": {"name": name},
        "spec": {"rules": [{"host": host, "http": {"paths": list(paths)}}], **spec},
    }


def path(text: str, service: str, kind: str = "Prefix") -> Json:
    return {"path": text, "pathType": kind, "backend": {"service": {"name": service, "port": {"number": 80}}}}


def secret(name: str, issued: Issued) -> Json:
    data = {"tls.crt": issued.certificate_pem, "tls.key": issued.key_pem()}
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/tls", "data": encoded}


def reached(running: Running, gw: Gateway, host: str, target: str = "/") -> str:
    """The service that a request over TLS reaches; empty if there is no answer from one."""
    trust = Path(running.directory) / "ca.crt"
    trust.write_bytes(authority().pem)
    words = ("--cacert", str(trust), "--resolve", f"{host}:{gw.port}:{LOOPBACK}", f"https://{host}:{gw.port}{target}")
    try:
        answer = curl(*words)
    except AssertionError:  # no certificate yet
        return ""
    return answer.text.rpartition("/")[2] if answer.status == 200 else ""


def test_ingresses_classes_secrets_and_statuses_of_a_real_cluster(running: Running) -> None:
    server = ApiServer(running, Etcd(running), users=USERS)
    api, found = server.api, manifests()
    api.do("POST", f"/apis/{NETWORKING}/ingressclasses", found["IngressClass"])
    server.namespace("shop")
    grant(server, found["ClusterRole"])
    ours = found["IngressClass"]["metadata"]["name"]
    tls = [{"hosts": ["shop.example.com"], "secretName": "shop-tls"}]
    shop = ingress("shop", "shop.example.com", path("/", "web"), path("/only", "one", "Exact"), ingressClassName=ours, tls=tls)
    api.do("POST", at("shop", "ingresses", group=NETWORKING), shop)
    api.do("POST", at("shop", "secrets"), secret("shop-tls", authority().leaf("shop.example.com", "old.example.com")))

    nginx = Nginx(running, "location / { return 200 $http_l5d_dst_service; }")
    identifier = {"kind": "io.l5d.ingress", "kubeconfig": server.kubeconfig(EDGE), "publishAddress": ["192.0.2.1"]}
    gw = gateway(
        running,
        dict.fromkeys(("web", "one", "two"), nginx.port),
        router={"identifier": identifier, "dtab": "/svc/shop/80 => /#/io.l5d.fs"},
        server={"tls": {"sni": {"ingress": True, "strict": True}}},
    )
    assert wait_until(lambda: reached(running, gw, "shop.example.com") == "web", SECONDS)
    assert reached(running, gw, "shop.example.com", "/only") == "one"
    at_shop = at("shop", "ingresses", "shop", group=NETWORKING)
    assert wait_until(lambda: api.do("GET", at_shop)["status"]["loadBalancer"].get("ingress") == [{"ip": "192.0.2.1"}], SECONDS)

    # an object as Linkerd's users have it, by the API that they use, is read by the newer one
    old = {
        "apiVersion": EXTENSIONS,
        "kind": "Ingress",
        "metadata": {"name": "old", "annotations": {"kubernetes.io/ingress.class": "linkerd"}},
        "spec": {
            "tls": [{"secretName": "shop-tls"}],
            "rules": [
                {
                    "host": "old.example.com",
                    "http": {"paths": [{"path": "/v[12]/.*", "backend": {"serviceName": "two", "servicePort": 80}}]},
                }
            ],
        },
    }
    api.do("POST", at("shop", "ingresses", group=EXTENSIONS), old)
    assert wait_until(lambda: reached(running, gw, "old.example.com", "/v1/x") == "two", SECONDS)

    shop["spec"]["rules"][0]["http"]["paths"] = [path("/", "two")]
    api.put(at_shop, shop)
    assert wait_until(lambda: reached(running, gw, "shop.example.com") == "two", SECONDS)
    api.do("DELETE", at_shop)
    assert wait_until(lambda: reached(running, gw, "shop.example.com") == "", SECONDS)

    state = json.loads(gw.admin(STATE).body)
    assert (state["resource"], state["problems"], state["tls"]["problems"]) == ("networking.k8s.io/v1 ingresses", [], [])
    assert state["status"]["problem"] is None
    assert "Traceback" not in gw.process.output()
    assert "may not" not in gw.process.output(), "the rights of the manifest are enough"
