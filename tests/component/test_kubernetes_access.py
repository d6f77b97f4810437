"""How the API server of Kubernetes is reached, and what is asked of it once: tokens, kubeconfig files, versions, changes to objects."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from fakes.kubernetes import endpoints
from fakes.kubernetes_agent import Cluster, Seen
from fakes.looked import literal
from meshgw.backends.kubernetes import (
    ENDPOINT_SLICES,
    ENDPOINT_SLICES_BETA,
    ENDPOINTS,
    INGRESSES,
    INGRESSES_BETA,
    INGRESSES_EXTENSIONS,
    Resource,
    Wanted,
)
from meshgw.backends.kubernetes_access import ApiServer
from meshgw.backends.tls import ClientTlsFiles, TlsMaterial
from meshgw.config.kubernetes import KubernetesServer
from meshgw.config.tls import ClientTls
from meshgw.core.live import Failed
from meshgw.core.tls import TlsConfigError
from meshgw.errors import BackendError, BackendRefused, NamerError
from support.certs import authority

WEB = Wanted(ENDPOINTS, "default", "web")
POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def done(coroutine: Any) -> Any:
    """What a coroutine that waits for nothing gives."""
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    (result,) = results
    if hasattr(result, "raiseException"):
        result.raiseException()
    return result


def rotate(file: Path, token: str) -> None:
    """As kubelet does: another file in its place."""
    fresh = file.with_suffix(".new")
    fresh.write_text(f"{token}\n")
    fresh.rename(file)


# --- tokens


def test_a_token_is_sent_and_read_again_for_each_request(tmp_path: Path) -> None:
    file = tmp_path / "token"
    rotate(file, "one")
    with Cluster(KubernetesServer(token_file=str(file))) as cluster:
        cluster.server.tokens = {"one"}
        seen = Seen(cluster.api.objects(WEB))
        assert seen.value is not None
        rotate(file, "two")
        cluster.server.tokens = {"two"}
        cluster.server.end_watches()
        cluster.pass_time(1.0)
        assert cluster.server.asked[-1].headers["authorization"] == "Bearer two"
        assert not seen.error


def test_a_token_that_was_exchanged_while_it_was_refused_is_tried_at_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    rotate(file, "one")
    with Cluster(KubernetesServer(token_file=str(file))) as cluster:
        cluster.server.tokens, cluster.server.delay = {"two"}, 1.0
        seen = Seen(cluster.api.objects(WEB))
        rotate(file, "two")
        cluster.pass_time(3.0)
        assert not seen.error
        assert cluster.counted("errors") == 0


def test_a_token_that_is_refused_is_told_by_its_file_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "token"
    rotate(file, "hidden-token")
    with Cluster(KubernetesServer(token_file=str(file))) as cluster:
        cluster.server.fail("list", "endpoints", status=401, body="no user has hidden-token", headers={"content-type": "text/plain"})
        seen = Seen(cluster.api.objects(WEB))
        assert f"401: it does not know who asks: the token in {file} is not accepted" in seen.error
        assert "hidden-token" not in seen.error + json.dumps(cluster.api.describe())


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "the token cannot be read"), (b" \n", "holds no token"), (b"a b", "holds no token"), (b"\xff", "holds no token")],
)
def test_a_token_that_cannot_be_read_is_an_error_that_goes_away(tmp_path: Path, content: bytes | None, told: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with Cluster(KubernetesServer(token_file=str(file))) as cluster:
        seen = Seen(cluster.api.objects(WEB))
        assert told in seen.error
        assert str(file) in seen.error
        rotate(file, "good")
        cluster.pass_time(31.0)
        assert not seen.error


def test_a_proxy_that_is_not_let_in_is_told_as_such() -> None:
    with Cluster() as cluster:
        cluster.server.tokens = set()
        assert "the proxy's credentials is not accepted" in Seen(cluster.api.objects(WEB)).error


# --- where


def test_tls_expects_the_name_of_the_host_unless_it_is_given() -> None:
    with Cluster(KubernetesServer(host="k8s.example", tls=ClientTls())) as cluster:
        Seen(cluster.api.objects(WEB))
        assert cluster.connector.made[0]["tls"].common_name == "k8s.example"
        assert cluster.api.describe()["server"] == "https://k8s.example:8001"
    with Cluster(KubernetesServer(host="[2001:db8::1]", tls=ClientTls(common_name="kubernetes"))) as cluster:
        Seen(cluster.api.objects(WEB))
        assert cluster.connector.made[0]["tls"].common_name == "kubernetes"
        assert cluster.connector.made[0]["host"] == "2001:db8::1"


def test_a_pod_asks_the_clusters_own_server_as_its_service_account(tmp_path: Path) -> None:
    rotate(tmp_path / "token", "mounted")
    with Cluster(KubernetesServer(in_cluster=True), environment=POD, service_account=str(tmp_path)) as cluster:
        cluster.server.tokens = {"mounted"}
        assert not Seen(cluster.api.objects(WEB)).error
        (made,) = cluster.connector.made
        assert (made["host"], made["port"]) == ("10.96.0.1", 443)
        assert made["tls"].common_name == "10.96.0.1"
        assert made["tls"].trust_certs_bundle == str(tmp_path / "ca.crt")


@pytest.mark.parametrize("environment", [{}, {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, POD | {"KUBERNETES_SERVICE_PORT": "many"}])
def test_outside_of_a_pod_the_start_is_refused_with_what_else_to_do(environment: dict[str, str]) -> None:
    with pytest.raises(NamerError, match="KUBERNETES_SERVICE_HOST.*use kubeconfig, or host and port of a kubectl proxy"):
        ApiServer(None, literal, KubernetesServer(in_cluster=True), environment=environment)


# --- kubeconfig files


def write(file: Path, *, cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(
        yaml.safe_dump(
            {
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": "https://k8s:6443", **(cluster or {})}}],
                "users": [{"name": "u", "user": user or {}}],
            }
        )
    )
    fresh.rename(file)


def data(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def test_a_kubeconfig_says_which_server_and_with_what(tmp_path: Path) -> None:
    file, mine = tmp_path / "config", authority().leaf(name="me", client=True)
    write(
        file,
        cluster={
            "server": "https://k8s:6443/prefix/",
            "certificate-authority-data": data(authority().pem),
            "tls-server-name": "kubernetes",
        },
        user={"client-certificate-data": data(mine.certificate_pem), "client-key-data": data(mine.key_pem())},
    )
    with Cluster(KubernetesServer(kubeconfig=str(file))) as cluster:
        cluster.server.fail("*", "*", count=100)
        Seen(cluster.api.objects(WEB))
        (made,) = cluster.connector.made
        assert (made["host"], made["port"], made["tls"].common_name) == ("k8s", 6443, "kubernetes")
        assert made["material"].trust == authority().pem
        pair = made["material"].pair()
        assert pair is not None
        assert cluster.server.asked[0].path == "/prefix/api/v1/namespaces/default/endpoints"
        assert cluster.api.describe()["server"] == "https://k8s:6443/prefix"


def test_a_certificate_in_a_file_and_its_key_in_the_kubeconfig_go_together(tmp_path: Path) -> None:
    file, mine = tmp_path / "config", authority().leaf(name="me", client=True)
    (tmp_path / "me.pem").write_bytes(mine.certificate_pem)
    write(file, user={"client-certificate": "me.pem", "client-key-data": data(mine.key_pem())})
    with Cluster(KubernetesServer(kubeconfig=str(file))) as cluster:
        Seen(cluster.api.objects(WEB))
        assert cluster.connector.made[0]["material"].pair() is not None


def test_a_kubeconfigs_token_or_password_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "config"
    write(file, user={"token": "one"})
    with Cluster(KubernetesServer(kubeconfig=str(file))) as cluster:
        Seen(cluster.api.objects(WEB))
        assert cluster.server.asked[-1].headers["authorization"] == "Bearer one"
        write(file, user={"username": "me", "password": "pw"})
        cluster.server.end_watches()
        cluster.pass_time(1.0)
        assert cluster.server.asked[-1].headers["authorization"] == f"Basic {data(b'me:pw')}"


def test_a_kubeconfig_that_names_another_server_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "config"
    write(file)
    with Cluster(KubernetesServer(kubeconfig=str(file))) as cluster:
        seen = Seen(cluster.api.objects(WEB))
        write(file, cluster={"server": "https://other:6443"})
        cluster.server.end_watches()
        cluster.pass_time(1.0)
        assert [made["host"] for made in cluster.connector.made] == ["k8s", "other"]
        assert cluster.connector.started == 1, "what is not used any more is released"
        assert not seen.error


def test_a_kubeconfig_that_turned_bad_leaves_what_was_good_and_is_told_once(tmp_path: Path) -> None:
    events: list[LogEvent] = []
    file = tmp_path / "config"
    write(file)
    with Cluster(KubernetesServer(kubeconfig=str(file))) as cluster:
        seen = Seen(cluster.api.objects(WEB))
        file.write_text("nonsense: [")
        globalLogPublisher.addObserver(events.append)
        try:
            for _ in range(2):
                cluster.server.end_watches()
                cluster.pass_time(1.0)
        finally:
            globalLogPublisher.removeObserver(events.append)
        assert not seen.error
        assert cluster.server.count("watch", "endpoints") == 3
        (told,) = [formatEvent(event) for event in events if event["log_level"] is LogLevel.warn]
        assert told == f"Kubernetes at k8s:6443: what the kubeconfig said before stays in use: {file}: no YAML (line 1)"


def test_a_kubeconfig_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "config"
    with Cluster(KubernetesServer(kubeconfig=str(file))) as cluster:
        seen = Seen(cluster.api.objects(WEB))
        assert f"{file}: No such file" in seen.error
        write(file)
        cluster.pass_time(31.0)
        assert not seen.error


def test_certificates_in_memory_count_beside_files_and_are_named_when_they_are_bad(tmp_path: Path) -> None:
    other, mine = tmp_path / "other.pem", authority().leaf(name="me", client=True)
    other.write_bytes(authority("other").pem)
    config = ClientTls(common_name="k8s", trust_certs_bundle=str(other))

    def settings(**material: Any) -> Any:
        return ClientTlsFiles(config, reactor=None, material=TlsMaterial(origin="/my/config", **material)).security().settings

    good = settings(trust=authority().pem, certificate=mine.certificate_pem, key=mine.key_pem())
    assert authority().pem in good.trust and authority("other").pem in good.trust
    assert good.pair is not None
    with pytest.raises(TlsConfigError, match="/my/config: certificate authority: no PEM certificate in it"):
        settings(trust=b"nonsense")
    with pytest.raises(TlsConfigError, match="/my/config: client certificate: the private key does not belong"):
        settings(certificate=mine.certificate_pem, key=authority().leaf(name="you").key_pem())


# --- what is served


def test_the_first_version_that_is_served_is_chosen() -> None:
    with Cluster() as cluster:
        assert Seen(cluster.api.served(ENDPOINT_SLICES, ENDPOINT_SLICES_BETA, ENDPOINTS)).value == ENDPOINT_SLICES
        cluster.server.apis = {"v1": ("endpoints",), "extensions/v1beta1": ("ingresses",)}
        assert Seen(cluster.api.served(INGRESSES, INGRESSES_BETA, INGRESSES_EXTENSIONS)).value != INGRESSES_BETA


def test_what_is_served_is_asked_once_and_again_after_minutes() -> None:
    with Cluster() as cluster:
        cluster.server.apis["discovery.k8s.io/v1beta1"] = ("endpointslices",)
        del cluster.server.apis["discovery.k8s.io/v1"]
        seen = Seen(cluster.api.served(ENDPOINT_SLICES, ENDPOINT_SLICES_BETA))
        assert seen.value == ENDPOINT_SLICES_BETA
        asked = len(cluster.server.asked)
        assert done(cluster.api.serves(ENDPOINT_SLICES_BETA)) is True
        assert len(cluster.server.asked) == asked
        cluster.server.apis["discovery.k8s.io/v1"] = ("endpointslices",)
        cluster.pass_time(370.0, step=1.0)
        assert seen.value == ENDPOINT_SLICES


def test_a_server_that_serves_none_of_the_versions_is_an_error_that_names_them() -> None:
    with Cluster() as cluster:
        cluster.server.apis = {"v1": ("endpoints",)}
        seen = Seen(cluster.api.served(INGRESSES, INGRESSES_BETA))
        assert isinstance(seen.last, Failed)
        assert "it serves none of networking.k8s.io/v1 ingresses, networking.k8s.io/v1beta1 ingresses" in seen.error


def test_whether_something_is_served_is_asked_again_after_an_error() -> None:
    with Cluster() as cluster:
        cluster.agent.is_down = True
        with pytest.raises(BackendError, match="connection refused"):
            done(cluster.api.serves(INGRESSES))
        cluster.agent.is_down = False
        assert done(cluster.api.serves(INGRESSES)) is True
        assert done(cluster.api.serves(Resource("networking.k8s.io", "v1", "gateways", "Gateway"))) is False


# --- changes


def test_a_status_is_patched() -> None:
    with Cluster() as cluster:
        cluster.server.put("ingresses", {"metadata": {"name": "web", "namespace": "default"}, "spec": {"rules": []}, "status": {}})
        body = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
        answer = done(cluster.api.request("PATCH", INGRESSES, "default", "web", subresource="status", body=body))
        assert answer["status"] == body["status"]
        assert answer["spec"] == {"rules": []}


def test_a_conflict_has_its_code() -> None:
    with Cluster() as cluster:
        stored = cluster.server.put("endpoints", endpoints("web", "10.0.0.1"))
        cluster.server.put("endpoints", endpoints("web", "10.0.0.2"))
        with pytest.raises(BackendRefused) as caught:
            done(cluster.api.request("PUT", ENDPOINTS, "default", "web", body=stored))
        assert caught.value.code == 409


def test_objects_are_made_read_and_deleted() -> None:
    with Cluster() as cluster:
        done(cluster.api.request("POST", ENDPOINTS, "default", body=endpoints("web", "10.0.0.1")))
        assert done(cluster.api.request("GET", ENDPOINTS, "default", "web"))["metadata"]["name"] == "web"
        done(cluster.api.request("DELETE", ENDPOINTS, "default", "web"))
        with pytest.raises(BackendRefused) as caught:
            done(cluster.api.request("GET", ENDPOINTS, "default", "web"))
        assert caught.value.code == 404


def test_a_change_that_is_not_allowed_names_the_right_to_the_part_of_the_object() -> None:
    with Cluster() as cluster:
        cluster.server.put("ingresses", {"metadata": {"name": "web", "namespace": "default"}})
        cluster.server.forbidden.add(("patch", "ingresses/status", "*"))
        with pytest.raises(BackendRefused, match="grant verb 'patch' on resource 'ingresses/status' of apiGroup 'networking.k8s.io'"):
            done(cluster.api.request("PATCH", INGRESSES, "default", "web", subresource="status", body={"status": {}}))


def test_no_file_of_keys_is_written(tmp_path: Path) -> None:
    file, mine = tmp_path / "config", authority().leaf(name="me", client=True)
    write(file, user={"client-certificate-data": data(mine.certificate_pem), "client-key-data": data(mine.key_pem())})
    with Cluster(KubernetesServer(kubeconfig=str(file))) as cluster:
        Seen(cluster.api.objects(WEB))
        assert os.listdir(tmp_path) == ["config"]
