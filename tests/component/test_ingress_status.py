"""Statuses of ingresses: when they are written, when not, and how often."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from fakes.ingresses import ingress, rule
from fakes.kubernetes_agent import Cluster
from meshgw.identify.ingress import IngressIdentifier
from meshgw.identify.ingress_rules import Ownership
from meshgw.identify.ingress_source import IngressSource
from meshgw.identify.ingress_status import AGAIN_SECONDS, FIRST_SECONDS, REFUSED_SECONDS, Addresses, StatusWriter
from meshgw.naming.path import Path

SOON = FIRST_SECONDS[1] + 0.5
IP = {"ip": "192.0.2.1"}


class Bench:
    """A gateway that writes statuses, or several."""

    def __init__(self, cluster: Cluster, *, given: tuple[str, ...] = ("192.0.2.1",), service: str | None = None, gateways: int = 1) -> None:
        self.cluster, self.server = cluster, cluster.server
        self.identifiers = []
        for number in range(gateways):
            scope = cluster.metrics.scope(f"ingress{number}")
            source = IngressSource(cluster.api, namespace=None, ownership=Ownership(), metrics=scope)
            addresses = Addresses(cluster.api, given, service)
            status = StatusWriter(source, addresses, clock=cluster.clock, rng=Random(number), metrics=scope.scope("status"))
            self.identifiers.append(IngressIdentifier(Path.read("/svc"), source, scope, status))
            self.identifiers[-1].startService()

    def put(self, name: str, **more: Any) -> None:
        more.setdefault("annotated", "linkerd")
        self.server.put("ingresses", ingress(name, rule("a.com", (f"/{name}", "web")), **more))

    def status(self, name: str) -> list[dict[str, str]]:
        found: list[dict[str, str]] = (
            self.server.objects["ingresses", "shop", name].get("status", {}).get("loadBalancer", {}).get("ingress", [])
        )
        return found

    @property
    def patches(self) -> list[str]:
        """The paths that were written to."""
        return [asked.path for asked in self.server.asked if asked.method != "GET"]

    @property
    def problem(self) -> str | None:
        found: str | None = self.identifiers[0].describe()["status"]["problem"]
        return found


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    clusters: list[Cluster] = []
    benches: list[Bench] = []

    def make(**settings: Any) -> Bench:
        clusters.append(Cluster())
        benches.append(Bench(clusters[-1], **settings))
        return benches[-1]

    yield make
    for one in benches:
        for identifier in one.identifiers:
            if identifier.running:
                identifier.stopService()
    for cluster in clusters:
        cluster.__exit__()


@pytest.fixture
def warned() -> Iterator[list[str]]:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_level") is not None and event["log_level"].name in ("warn", "error", "critical"):
            lines.append(event.get("log_format", "").format(**{key: each for key, each in event.items() if not key.startswith("log_")}))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


Make = Callable[..., Bench]


def test_an_ingress_of_our_class_is_told_where_it_is_served(bench: Make) -> None:
    one = bench(given=("192.0.2.1", "2001:DB8::1", "edge.example.com"))
    one.put("web")
    one.cluster.pass_time(SOON)
    assert one.status("web") == [{"hostname": "edge.example.com"}, IP, {"ip": "2001:db8::1"}]
    assert one.patches == ["/apis/networking.k8s.io/v1/namespaces/shop/ingresses/web/status"]
    (asked,) = [asked for asked in one.server.asked if asked.method == "PATCH"]
    assert asked.headers["content-type"] == "application/merge-patch+json"
    assert list(json.loads(asked.body)) == ["status"]


def test_what_is_right_already_is_not_written(bench: Make) -> None:
    one = bench()
    one.put("web", status=[{**IP, "ports": [{"port": 443, "protocol": "TCP"}]}])
    one.cluster.pass_time(60.0)
    assert one.patches == []


def test_ingresses_of_others_and_of_nobody_are_left_alone(bench: Make) -> None:
    one = bench()
    one.put("theirs", annotated="nginx", status=[{"ip": "198.51.100.1"}])
    one.put("nobodys", annotated=None)
    one.cluster.pass_time(60.0)
    assert one.patches == []


def test_several_gateways_write_once(bench: Make) -> None:
    one = bench(gateways=4)
    one.put("web")
    one.cluster.pass_time(60.0)
    assert (one.status("web"), len(one.patches)) == ([IP], 1)


def test_many_are_written_one_after_another(bench: Make) -> None:
    one = bench()
    for number in range(50):
        one.put(f"web{number}")
    one.cluster.pass_time(SOON)
    assert 1 <= len(one.patches) <= 20
    one.cluster.pass_time(20.0)
    assert len(one.patches) == len(set(one.patches)) == 50


def test_one_that_others_change_back_is_written_less_and_less_often(bench: Make, warned: list[str]) -> None:
    one = bench()
    one.put("web")
    at: list[float] = []
    for _ in range(3000):
        before = len(one.patches)
        one.cluster.pass_time(1.0)
        if len(one.patches) > before:
            at.append(one.cluster.clock.seconds())
            one.put("web", status=[{"ip": "198.51.100.1"}])
    waits = [later - earlier for earlier, later in zip(at, at[1:], strict=False)]
    assert 7 <= len(at) <= 12
    assert waits[0] >= AGAIN_SECONDS[0] - 1
    assert all(later > earlier - 2 for earlier, later in zip(waits, waits[1:], strict=False))
    assert max(waits) <= AGAIN_SECONDS[1] + 2
    assert len([line for line in warned if "does another controller serve it" in line]) == 1


def test_a_right_that_is_missing_is_told_once_and_asked_for_rarely(bench: Make, warned: list[str]) -> None:
    one = bench()
    one.server.forbidden = {("patch", "ingresses/status", "shop")}
    for number in range(5):
        one.put(f"web{number}")
    one.cluster.pass_time(REFUSED_SECONDS - 10)
    assert len(one.patches) == 1
    assert one.problem is not None
    assert "grant verb 'patch' on resource 'ingresses/status' of apiGroup 'networking.k8s.io'" in one.problem
    one.cluster.pass_time(REFUSED_SECONDS)
    assert len(one.patches) == 2
    assert len([line for line in warned if "statuses of ingresses cannot be written" in line]) == 1
    one.server.forbidden = set()
    one.cluster.pass_time(REFUSED_SECONDS)
    assert (one.status("web4"), one.problem) == ([IP], None)


def test_one_that_is_refused_does_not_keep_the_others_waiting(bench: Make) -> None:
    one = bench()
    one.put("a")
    one.put("b")
    one.server.fail("patch", "ingresses", status=422, body='{"kind":"Status","status":"Failure","code":422,"message":"no"}')
    one.cluster.pass_time(SOON + 1)
    assert sorted((one.status("a"), one.status("b"))) == [[], [IP]]
    one.cluster.pass_time(AGAIN_SECONDS[0] + 1)
    assert (one.status("a"), one.status("b")) == ([IP], [IP])


def test_a_server_in_trouble_is_asked_again_after_a_while(bench: Make) -> None:
    one = bench()
    one.put("web")
    one.server.fail("patch", "ingresses", count=3, status=503)
    one.cluster.pass_time(60.0)
    assert (one.status("web"), len(one.patches)) == ([IP], 4)


def test_the_addresses_of_a_service_are_written_and_followed(bench: Make) -> None:
    one = bench(given=(), service="mesh/edge")
    one.put("web")
    one.cluster.pass_time(SOON)
    assert (one.patches, one.problem) == ([], "service mesh/edge does not exist, so no status is written")
    service: dict[str, Any] = {"metadata": {"name": "edge", "namespace": "mesh"}, "spec": {"externalIPs": ["192.0.2.9"]}}
    one.server.put("services", service | {"status": {"loadBalancer": {"ingress": [IP]}}})
    one.cluster.pass_time(SOON)
    assert one.status("web") == [IP, {"ip": "192.0.2.9"}]
    one.server.put("services", service | {"status": {"loadBalancer": {"ingress": [{"hostname": "edge.example.com"}]}}})
    one.cluster.pass_time(SOON)
    assert one.status("web") == [{"hostname": "edge.example.com"}, {"ip": "192.0.2.9"}]


def test_a_service_without_addresses_takes_none_away(bench: Make) -> None:
    one = bench(given=(), service="mesh/edge")
    one.put("web", status=[IP])
    one.server.put("services", {"metadata": {"name": "edge", "namespace": "mesh"}, "status": {"loadBalancer": {}}})
    one.cluster.pass_time(60.0)
    assert (one.status("web"), one.patches) == ([IP], [])
    assert one.problem == "service mesh/edge has no external address, so no status is written"


def test_nothing_is_written_after_the_end(bench: Make) -> None:
    one = bench()
    one.put("web")
    one.identifiers[0].stopService()
    one.cluster.pass_time(60.0)
    assert one.patches == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [("192.0.2.1", True), ("::1", True), ("a.example.com", True), ("", False), ("a b", False), ("-a.com", False), ("a..b", False)],
)
def test_addresses_are_ips_or_host_names(text: str, expected: bool) -> None:
    assert Addresses.is_address(text) is expected
