"""Certificates of ingresses: secrets of a scripted API server in memory, and what ends up in the stores of listeners."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from fakes.ingresses import ingress, rule, tls_secret
from fakes.kubernetes_agent import Cluster
from meshgw.core.certificates import CertificateStore, KeyPair
from meshgw.identify.ingress import IngressIdentifier
from meshgw.identify.ingress_rules import Ownership
from meshgw.identify.ingress_source import IngressSource
from meshgw.identify.ingress_tls import SOURCE, covers
from meshgw.naming.path import Path
from support.certs import authority, pair_of


class Bench:
    """An identifier that serves certificates, and a store of them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.server = cluster, cluster.server
        scope = cluster.metrics.scope("ingress")
        source = IngressSource(cluster.api, namespace=None, ownership=Ownership(), metrics=scope)
        self.identifier = IngressIdentifier(Path.read("/svc"), source, scope)
        self.store = CertificateStore()
        self.identifier.serve_certificates(self.store)
        self.identifier.startService()

    def put(self, name: str, host: str, secret: str | None = None, hosts: list[str] | None = None, **more: str) -> None:
        """An ingress for a host with one TLS entry."""
        self.server.put("ingresses", ingress(name, rule(host, ("/", "web")), tls={secret or name: hosts}, **more))

    def serial(self, host: str) -> int | None:
        """The serial number of the certificate for a host."""
        found = self.store.find(host)
        return None if found is None else found.certificate.serial_number

    @property
    def problems(self) -> list[str]:
        found: list[str] = self.identifier.describe()["tls"]["problems"]
        return found


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Cluster() as cluster:
        made = Bench(cluster)
        yield made
        if made.identifier.running:
            made.identifier.stopService()


A, B = authority().leaf("a.com", "www.a.com"), authority().leaf("a.com")


def serial(pair: KeyPair) -> int:
    return pair.certificate.serial_number


A_SERIAL, B_SERIAL = serial(pair_of(A)), serial(pair_of(B))


def test_a_certificate_is_shown_for_the_hosts_that_the_ingress_names_and_no_others(bench: Bench) -> None:
    bench.server.put("secrets", tls_secret("web", A))
    bench.put("web", "a.com", hosts=["A.com"])
    assert (bench.serial("a.com"), bench.serial("www.a.com")) == (A_SERIAL, None)
    bench.put("web", "a.com", hosts=["a.com", "www.a.com"])
    assert (bench.serial("a.com"), bench.serial("www.a.com")) == (A_SERIAL, A_SERIAL)
    assert bench.problems == []


def test_without_hosts_it_is_for_those_of_the_rules(bench: Bench) -> None:
    bench.server.put("secrets", tls_secret("web", A))
    bench.put("web", "www.a.com")
    assert (bench.serial("a.com"), bench.serial("www.a.com")) == (None, A_SERIAL)


def test_without_any_hosts_it_is_for_its_own_names_that_nobody_else_names(bench: Bench) -> None:
    bench.server.put("secrets", tls_secret("web", A))
    bench.server.put("secrets", tls_secret("later", B))
    bench.server.put("ingresses", ingress("all", rule(None, ("/", "web")), tls={"web": None}, created="2019-01-01T00:00:00Z"))
    assert (bench.serial("a.com"), bench.serial("www.a.com")) == (A_SERIAL, A_SERIAL)
    bench.put("later", "a.com")
    assert (bench.serial("a.com"), bench.serial("www.a.com")) == (B_SERIAL, A_SERIAL)


def test_only_named_secrets_are_asked_for_each_by_its_name_and_once(bench: Bench) -> None:
    bench.server.put("secrets", tls_secret("web", A))
    bench.server.put("secrets", tls_secret("other", B))
    bench.put("web", "a.com")
    bench.server.put("ingresses", ingress("again", rule("www.a.com", ("/", "web")), tls={"web": None}))
    asked = [asked for asked in bench.server.asked if "secrets" in asked.path]
    assert {asked.query.get("fieldSelector") for asked in asked} == {"metadata.name=web"}
    assert {asked.path for asked in asked} == {"/api/v1/namespaces/shop/secrets"}
    assert bench.server.count("list", "secrets") == 1


def test_a_rotated_certificate_replaces_the_old_one_at_once(bench: Bench) -> None:
    bench.server.put("secrets", tls_secret("web", A))
    bench.put("web", "a.com")
    version = bench.store.version
    bench.server.put("secrets", tls_secret("web", B))
    assert bench.serial("a.com") == B_SERIAL
    assert bench.store.version > version


def test_a_secret_that_comes_later_is_taken_and_one_that_is_deleted_is_dropped(bench: Bench) -> None:
    bench.put("web", "a.com")
    assert bench.problems == ["shop/web: spec.tls[0]: there is no secret shop/web"]
    bench.server.put("secrets", tls_secret("web", A))
    assert (bench.serial("a.com"), bench.problems) == (A_SERIAL, [])
    bench.server.delete("secrets", "web", "shop")
    assert (bench.serial("a.com"), bench.problems) == (None, ["shop/web: spec.tls[0]: there is no secret shop/web"])


def test_an_ingress_that_goes_takes_its_certificate_along(bench: Bench) -> None:
    bench.server.put("secrets", tls_secret("web", A))
    bench.put("web", "a.com")
    bench.server.delete("ingresses", "web", "shop")
    assert bench.store.pairs == ()
    bench.cluster.pass_time(61.0)
    assert not [stream for stream in bench.server.streams if stream.place.plural == "secrets"]


def test_nothing_changes_in_the_store_when_nothing_changed(bench: Bench) -> None:
    bench.server.put("secrets", tls_secret("web", A))
    bench.put("web", "a.com")
    version, pairs = bench.store.version, bench.store.pairs
    bench.server.put("ingresses", ingress("other", rule("b.com", ("/", "web"))))
    labelled = tls_secret("web", A)
    labelled["metadata"]["labels"] = {"touched": "yes"}
    bench.server.put("secrets", labelled)
    assert bench.store.version == version
    assert bench.store.pairs[0] is pairs[0], "its TLS contexts, and the keys of its session tickets, stay"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"tls.key": "", "tls.crt": ""}, "it has no tls.crt"),
        ({"tls.crt": "%%%"}, "its tls.crt is not base64"),
        ({"tls.crt": "bm90aGluZw=="}, "no PEM certificate in it"),
        ({"tls.key": "bm90aGluZw=="}, "the private key cannot be read"),
    ],
)
def test_a_bad_secret_is_told_and_the_last_good_certificate_stays(bench: Bench, data: dict[str, str], reason: str) -> None:
    bench.server.put("secrets", tls_secret("web", A))
    bench.put("web", "a.com")
    bad = tls_secret("web", B)
    bad["data"] |= data
    bench.server.put("secrets", bad)
    assert bench.serial("a.com") == A_SERIAL
    assert len(bench.problems) == 1
    assert bench.problems[0].startswith(
        "shop/web: spec.tls[0]: the certificate of secret shop/web cannot be used, so the one before stays in use: "
    )
    assert reason in bench.problems[0]
    bench.server.put("secrets", tls_secret("web", B))
    assert (bench.serial("a.com"), bench.problems) == (B_SERIAL, [])


def test_a_key_of_another_certificate_is_told(bench: Bench) -> None:
    bench.server.put("secrets", tls_secret("web", A, key=B))
    bench.put("web", "a.com")
    assert bench.serial("a.com") is None
    assert bench.problems == [
        "shop/web: spec.tls[0]: the certificate of secret shop/web cannot be used: the private key does not belong to the certificate"
    ]


def test_a_certificate_for_other_names_is_told_and_not_shown(bench: Bench) -> None:
    bench.server.put("secrets", tls_secret("web", A))
    bench.put("web", "b.com", hosts=["b.com", "a.com"])
    assert (bench.serial("a.com"), bench.serial("b.com")) == (A_SERIAL, None)
    assert bench.problems == ["shop/web: spec.tls[0]: the certificate of secret shop/web is for a.com, www.a.com, not for b.com"]


def test_an_expired_certificate_is_told_and_shown_nevertheless(bench: Bench) -> None:
    bench.server.put("secrets", tls_secret("web", authority().expired("a.com")))
    bench.put("web", "a.com")
    assert bench.serial("a.com") is not None
    assert "shop/web: spec.tls[0]: the certificate of secret shop/web expired on " in bench.problems[0]
    assert bench.identifier.describe()["tls"]["certificates"][0]["expired"] is True


def test_one_that_is_not_valid_yet_is_told(bench: Bench) -> None:
    bench.server.put("secrets", tls_secret("web", authority().leaf("a.com", issued=datetime(2999, 1, 1, tzinfo=UTC))))
    bench.put("web", "a.com")
    assert "is not valid before 299" in bench.problems[0]


def test_the_older_of_two_ingresses_for_a_host_counts_and_the_younger_is_told(bench: Bench) -> None:
    bench.server.put("secrets", tls_secret("web", A))
    bench.server.put("secrets", tls_secret("web", B, namespace="other"))
    bench.put("young", "a.com", secret="web", created="2021-01-01T00:00:00Z")
    assert bench.serial("a.com") == A_SERIAL
    bench.put("aged", "a.com", secret="web", namespace="other", created="2020-01-01T00:00:00Z")
    assert bench.serial("a.com") == B_SERIAL
    assert bench.problems == [
        "shop/young: spec.tls[0]: the certificate for a.com comes from secret other/web already, by other/aged, which counts"
    ]


def test_secrets_that_may_not_be_read_are_told_with_what_to_grant(bench: Bench) -> None:
    bench.server.forbidden = {("list", "secrets", "shop")}
    bench.put("web", "a.com")
    assert "grant verb 'list' on resource 'secrets'" in bench.problems[0]


def test_certificates_stay_through_an_outage(bench: Bench) -> None:
    bench.server.put("secrets", tls_secret("web", A))
    bench.put("web", "a.com")
    bench.cluster.agent.is_down = True
    bench.server.end_watches(properly=False)
    bench.cluster.pass_time(30.0)
    assert bench.serial("a.com") == A_SERIAL


def test_no_key_is_shown_anywhere(bench: Bench) -> None:
    bench.server.put("secrets", tls_secret("web", A))
    bench.put("web", "a.com")
    shown = json.dumps(bench.identifier.describe()) + repr(bench.store.pairs) + repr(bench.store.state())
    for secret in (A.key_pem().decode(), tls_secret("web", A)["data"]["tls.key"]):
        assert secret[40:80] not in shown
    assert "PRIVATE" not in shown


def test_the_store_of_a_later_source_gives_way_to_files(bench: Bench) -> None:
    store = CertificateStore()
    store.set("certPath", [pair_of(B)])
    bench.identifier.serve_certificates(store)
    bench.server.put("secrets", tls_secret("web", A))
    bench.put("web", "a.com")
    found = store.find("a.com")
    assert found is not None
    assert serial(found) == B_SERIAL
    assert [state.source for state in store.state()] == ["certPath", SOURCE]


@pytest.mark.parametrize(
    ("names", "host", "expected"),
    [
        ({"a.com"}, "a.com", True),
        ({"*.a.com"}, "x.a.com", True),
        ({"*.a.com"}, "*.a.com", True),
        ({"*.a.com"}, "a.com", False),
        ({"*.a.com"}, "x.y.a.com", False),
        ({"x.a.com"}, "*.a.com", False),
        (set(), "a.com", False),
        ({"com"}, "com", True),
    ],
)
def test_a_certificate_covers_its_names_and_one_label_of_wildcards(names: set[str], host: str, expected: bool) -> None:
    assert covers(frozenset(names), host) is expected
