"""How an API server of Kubernetes is reached, as the configuration says it, and kubeconfig files."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshgw.config.kubeconfig import KubeconfigError, is_loopback, load_kubeconfig, read_kubeconfig
from meshgw.config.kubernetes import KubernetesServer
from meshgw.config.loader import load
from meshgw.config.tls import ClientTls
from meshgw.kinds import Registry

SECRET = "very-secret-token"


def problems(registry: Registry, **namer: Any) -> list[str]:
    document = {"namers": [{"kind": "io.l5d.k8s", **namer}], "routers": [{"protocol": "http", "servers": [{"port": 0}]}]}
    found = load(yaml.safe_dump(document), "linkerd.yaml", registry)
    return [f"{problem.path}: {problem.message}" for problem in found.problems]


def test_a_proxy_on_this_machine_is_asked_by_default() -> None:
    assert KubernetesServer().address == ("localhost", 8001)


def test_the_block_of_a_proxy_is_taken_as_linkerd_has_it(registry: Registry) -> None:
    assert problems(registry, host="localhost", port=8001) == []


@pytest.mark.parametrize(
    ("given_options", "named"),
    [
        ({"inCluster": True, "host": "k8s"}, "inCluster, host"),
        ({"inCluster": True, "kubeconfig": "/nonexistent"}, "inCluster, kubeconfig"),
        ({"kubeconfig": "/nonexistent", "port": 8001}, "kubeconfig, port"),
        ({"kubeconfig": "/nonexistent", "tokenFile": "/nonexistent", "tls": {}}, "kubeconfig, tls and tokenFile"),
    ],
)
def test_only_one_way_to_the_server_may_be_given(registry: Registry, given_options: dict[str, Any], named: str) -> None:
    errors = [found for found in problems(registry, **given_options) if "several ways" in found]
    assert errors == [
        f"namers[0]: {named}: these are several ways to reach the API server of Kubernetes; only one may be given",
    ]


def test_a_token_is_not_sent_in_plain_text_to_another_machine(registry: Registry) -> None:
    found = problems(registry, host="k8s.example", tokenFile="/nonexistent")
    assert "namers[0]: tokenFile without tls would send the token to k8s.example in plain text" in found
    assert not [each for each in problems(registry, host="127.0.0.1", tokenFile="/nonexistent") if "plain text" in each]
    assert not [each for each in problems(registry, host="k8s.example", tls={}, tokenFile="/nonexistent") if "plain text" in each]


def test_tls_that_is_switched_off_protects_no_token() -> None:
    with pytest.raises(ValueError, match="plain text"):
        KubernetesServer(host="k8s.example", token_file="/t", tls=ClientTls(enabled=False))


def test_a_file_that_is_missing_is_a_remark_only(registry: Registry) -> None:
    assert problems(registry, kubeconfig="/nonexistent") == ["namers[0].kubeconfig: there is no /nonexistent on this machine now"]


def test_a_kubeconfig_that_cannot_be_used_is_an_error_at_its_place(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(kubeconfig(user={"exec": {"command": "aws"}})))
    (found,) = problems(registry, kubeconfig=str(file))
    assert found.startswith(f"namers[0].kubeconfig: {file}: user 'me': exec runs a program that fetches credentials")


@pytest.mark.parametrize(
    ("host", "expected"), [("127.8.8.8", True), ("::1", True), ("Localhost.", True), ("10.0.0.1", False), ("k8s", False)]
)
def test_this_machine_is_known_by_its_addresses_and_name(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# --- kubeconfig files


def kubeconfig(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [
            {"name": "other", "cluster": {"server": "https://other"}},
            {"name": "c", "cluster": {"server": "https://k8s:6443", **(cluster or {})}},
        ],
        "users": [{"name": "me", "user": user or {}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "me", "namespace": "shop"}}],
    }


def read(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> Any:
    return read_kubeconfig(yaml.safe_dump(kubeconfig(cluster, user)).encode(), "/etc/kube")


def refusal(document: object) -> str:
    text = document if isinstance(document, bytes) else yaml.safe_dump(document).encode()
    with pytest.raises(KubeconfigError) as caught:
        read_kubeconfig(text, "/etc/kube")
    return str(caught.value)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("https://k8s:6443", ("k8s", 6443, "", True)),
        ("https://10.0.0.1", ("10.0.0.1", 443, "", True)),
        ("http://localhost:8080/", ("localhost", 8080, "", False)),
        ("https://rancher.example/k8s/clusters/c-1/", ("rancher.example", 443, "/k8s/clusters/c-1", True)),
        ("https://[2001:db8::1]:6443", ("2001:db8::1", 6443, "", True)),
        ("k8s.example:6443", ("k8s.example", 6443, "", True)),
    ],
)
def test_the_server_is_a_url(server: str, expected: tuple[str, int, str, bool]) -> None:
    found = read({"server": server})
    assert (found.host, found.port, found.path, found.is_secure) == expected


def test_data_prevails_over_files_and_files_are_beside_the_kubeconfig() -> None:
    found = read(
        {"certificate-authority-data": encoded(b"CA"), "certificate-authority": "ca.pem"},
        {"client-certificate": "me.pem", "client-key": "/keys/me.key"},
    )
    assert (found.authority, found.authority_file) == (b"CA", None)
    assert (found.certificate_file, found.key_file) == ("/etc/kube/me.pem", "/keys/me.key")


@pytest.mark.parametrize("user", [{"token": SECRET}, {"tokenFile": "token"}, {"username": "me", "password": SECRET}])
def test_credentials_are_not_sent_in_plain_text_to_another_machine(user: dict[str, Any]) -> None:
    told = refusal(kubeconfig({"server": "http://10.0.0.1:8080"}, user))
    assert told == "user 'me' has credentials that would be sent to 10.0.0.1 in plain text; cluster 'c' needs https"
    assert read({"server": "http://127.0.0.1:8080"}, user).is_secure is False
    assert read({"server": "http://10.0.0.1:8080"}).is_secure is False


def test_a_users_token_file_prevails_over_the_token() -> None:
    assert read(user={"token": SECRET}).token == SECRET
    found = read(user={"token": SECRET, "tokenFile": "token"})
    assert (found.token, found.token_file) == (None, "/etc/kube/token")


def test_name_and_password_and_server_name_are_taken() -> None:
    found = read({"tls-server-name": "kubernetes", "insecure-skip-tls-verify": True}, {"username": "me", "password": SECRET})
    assert (found.server_name, found.insecure, found.username, found.password) == ("kubernetes", True, "me", SECRET)


@pytest.mark.parametrize(
    ("cluster", "user", "told"),
    [
        ({"server": ""}, {}, "cluster 'c' has no server"),
        ({"server": "ftp://k8s"}, {}, "server must be a URL"),
        ({"server": "https://me:secret@k8s"}, {}, "server must be a URL"),
        ({"server": "https://k8s:99999"}, {}, "server is no URL"),
        ({"server": 7}, {}, "server must be text"),
        ({"proxy-url": "socks5://p"}, {}, "proxy-url is not supported; let a kubectl proxy"),
        ({"insecure-skip-tls-verify": "yes"}, {}, "must be true or false"),
        ({"insecure-skip-tls-verify": True, "certificate-authority": "ca"}, {}, "exclude each other"),
        ({"certificate-authority-data": "%"}, {}, "certificate-authority-data is not base64"),
        ({}, {"exec": {"command": "aws"}}, "user 'me': exec runs a program"),
        ({}, {"auth-provider": {"name": "gcp"}}, "user 'me': auth-provider runs a program"),
        ({}, {"client-certificate": "me.pem"}, "go together"),
        ({}, {"as": "root"}, "impersonation (as) is not supported"),
        ({}, {"token": [SECRET]}, "token must be text"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(cluster: dict[str, Any], user: dict[str, Any], told: str) -> None:
    assert told in refusal(kubeconfig(cluster, user))


def test_what_is_no_kubeconfig_is_refused() -> None:
    assert "no YAML (line 2)" in refusal(b"a: 1\nb: [")
    assert "expected an object" in refusal(["a"])
    assert "no current-context" in refusal({"clusters": []})
    assert "it has no context 'gone'" in refusal(kubeconfig() | {"current-context": "gone"})
    assert "it has no cluster 'c'" in refusal(kubeconfig() | {"clusters": []})
    assert "it has no user 'me'" in refusal(kubeconfig() | {"users": None})
    assert "clusters must be a list" in refusal(kubeconfig() | {"clusters": {"c": {}}})


def test_no_text_of_it_shows_a_secret() -> None:
    found = read(
        {},
        {
            "token": SECRET,
            "client-certificate-data": encoded(b"x"),
            "client-key-data": encoded(SECRET.encode()),
            "username": "u",
            "password": SECRET,
        },
    )
    assert SECRET not in repr(found)


def test_a_file_that_cannot_be_read_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="none: No such file"):
        load_kubeconfig(str(tmp_path / "none"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "cluster", "user", "context", "server", "token"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {"current-context": st.just("here"), "contexts": json_values, "clusters": json_values, "users": json_values},
    )
)
def test_nothing_that_is_yaml_raises_anything_else(document: dict[str, Any]) -> None:
    try:
        read_kubeconfig(yaml.safe_dump(document).encode(), "/")
    except KubeconfigError:
        pass


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(text: bytes) -> None:
    with pytest.raises(KubeconfigError):
        read_kubeconfig(text, "/")
