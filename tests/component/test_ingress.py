"""The ingress identifier over a scripted API server in memory: rules that come, change, fail and come back, and requests that wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from fakes.ingresses import backend, ingress, ingress_class, rule
from fakes.kubernetes_agent import Cluster
from meshgw.app.identify_site import Head, identified
from meshgw.core.exchange import Exchange
from meshgw.errors import RulesUnknown
from meshgw.identify.ingress import NO_RULE, IngressIdentifier
from meshgw.identify.ingress_rules import Ownership
from meshgw.identify.ingress_source import IngressSource
from meshgw.identify.request import LONGEST_REMEMBERED, MOST_REMEMBERED
from meshgw.kinds import NotYet
from meshgw.naming.path import Path

LISTED = ("list", "ingresses", "*")


class Request:
    """An exchange as far as the identifier and what it waits for look at it."""

    def __init__(self, target: bytes = b"/", host: bytes | None = b"a.com") -> None:
        self.target, self.host = target, host
        self.walk = self
        self.resumed = 0

    def identifiable(self, ex: object) -> None:
        assert ex is self
        self.resumed += 1


class Bench:
    """An identifier over a cluster."""

    def __init__(self, cluster: Cluster, **settings: Any) -> None:
        self.cluster, self.server = cluster, cluster.server
        ownership = Ownership(takes_unclaimed=settings.pop("takes_unclaimed", True))
        scope = cluster.metrics.scope("ingress")
        self.source = IngressSource(cluster.api, namespace=settings.pop("namespace", None), ownership=ownership, metrics=scope, **settings)
        self.identifier = IngressIdentifier(Path.read("/svc"), self.source, scope)

    def start(self) -> Bench:
        self.identifier.startService()
        return self

    def put(self, name: str, *rules: Any, **more: Any) -> None:
        self.server.put("ingresses", ingress(name, *rules, **more))

    def name(self, target: bytes = b"/", host: bytes | None = b"a.com") -> str:
        found = self.identifier.identify(cast(Exchange, Request(target, host)))
        return found.show() if isinstance(found, Path) else str(found)

    @property
    def described(self) -> dict[str, Any]:
        return self.identifier.describe()


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
        if one.identifier.running:
            one.identifier.stopService()
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


# --- names


def test_a_request_is_named_by_namespace_port_and_service_of_its_rule(bench: Make) -> None:
    one = bench()
    one.put("web", rule("a.com", ("/cart", "cart"), ("/", "web")))
    one.start()
    assert [one.name(target) for target in (b"/", b"/cart/1?x=/", b"/cart?y")] == [
        "/svc/shop/80/web",
        "/svc/shop/80/cart",
        "/svc/shop/80/cart",
    ]
    assert one.name(b"/cart", b"A.com:8080") == "/svc/shop/80/cart"
    assert one.name(b"/", b"b.com") == one.name(b"/", None) == NO_RULE


def test_rules_that_come_change_and_go_count_at_once(bench: Make) -> None:
    one = bench().start()
    assert one.name() == NO_RULE
    one.put("web", rule("a.com", ("/", "one")))
    assert one.name() == "/svc/shop/80/one"
    one.put("web", rule("a.com", ("/", "two")))
    assert one.name() == "/svc/shop/80/two"
    one.server.delete("ingresses", "web", "shop")
    assert one.name() == NO_RULE


def test_what_is_remembered_is_bounded_and_gives_the_same_names(bench: Make) -> None:
    one = bench()
    one.put("web", rule("a.com", ("/", "web")))
    one.start()
    for number in range(MOST_REMEMBERED + 10):
        assert one.name(b"/%d?q=%d" % (number, number)) == "/svc/shop/80/web"
    known = one.identifier._known
    assert 0 < len(known) <= MOST_REMEMBERED
    assert one.name(b"/" + b"x" * LONGEST_REMEMBERED) == "/svc/shop/80/web"
    assert all(len(host or b"") + len(target) <= LONGEST_REMEMBERED for host, target in known)


def test_only_the_named_namespace_is_watched(bench: Make) -> None:
    one = bench(namespace="shop")
    one.put("web", rule("a.com", ("/", "web")))
    one.put("other", rule("b.com", ("/", "web")), namespace="else")
    one.start()
    assert (one.name(), one.name(host=b"b.com")) == ("/svc/shop/80/web", NO_RULE)
    assert {asked.path for asked in one.server.asked if "ingresses" in asked.path} == {
        "/apis/networking.k8s.io/v1/namespaces/shop/ingresses"
    }


def test_default_backends_are_used_unless_they_are_ignored(bench: Make) -> None:
    for ignored, expected in ((False, "/svc/shop/80/rest"), (True, NO_RULE)):
        one = bench(ignore_defaults=ignored)
        one.put("web", rule("a.com", ("/a", "web")), defaultBackend=backend("rest"))
        one.start()
        assert (one.name(b"/a"), one.name(b"/b")) == ("/svc/shop/80/web", expected)


@pytest.mark.parametrize("served", ["networking.k8s.io/v1beta1", "extensions/v1beta1"])
def test_older_servers_are_asked_for_what_they_serve(bench: Make, served: str) -> None:
    one = bench()
    one.server.apis = {"v1": ("secrets",), served: ("ingresses",)}
    paths = [{"path": "/a/.*", "backend": {"serviceName": "web", "servicePort": "http"}}]
    one.put("web", {"host": "a.com", "http": {"paths": paths}})
    one.start()
    assert (one.name(b"/a/b"), one.name(b"/a")) == ("/svc/shop/http/web", NO_RULE)
    assert one.described["resource"] == f"{served} ingresses"


# --- classes


def test_ingresses_of_other_classes_do_not_count_and_those_without_do(bench: Make) -> None:
    one = bench()
    one.put("mine", rule("a.com", ("/mine", "mine")), annotated="linkerd")
    one.put("theirs", rule("a.com", ("/", "theirs")), annotated="nginx")
    one.put("nobodys", rule("a.com", ("/nobodys", "nobodys")))
    one.start()
    assert [one.name(target) for target in (b"/mine", b"/nobodys", b"/x")] == ["/svc/shop/80/mine", "/svc/shop/80/nobodys", NO_RULE]
    assert one.server.count("list", "ingressclasses") == 0, "no right is needed that is of no use"


def test_a_class_is_ours_by_its_controller_and_may_come_later(bench: Make) -> None:
    one = bench()
    one.put("web", rule("a.com", ("/", "web")), ingressClassName="edge")
    one.start()
    assert one.name() == NO_RULE
    assert one.described["problems"] == ["shop/web: spec.ingressClassName: there is no IngressClass 'edge', so the ingress is not served"]
    one.server.put("ingressclasses", ingress_class("edge", "meshgw.io/ingress-controller"))
    assert one.name() == "/svc/shop/80/web"
    one.server.put("ingressclasses", ingress_class("edge", "k8s.io/ingress-nginx"))
    assert one.name() == NO_RULE
    assert one.described["problems"] == []
    one.server.delete("ingresses", "web", "shop")
    one.cluster.pass_time(61.0)
    assert not [stream for stream in one.server.streams if stream.place.plural == "ingressclasses"], "nobody refers to them any more"


def test_classes_that_may_not_be_read_leave_the_other_ingresses_served(bench: Make, warned: list[str]) -> None:
    one = bench()
    one.server.forbidden = {("list", "ingressclasses", "*")}
    one.put("web", rule("a.com", ("/", "web")), ingressClassName="edge")
    one.put("named", rule("b.com", ("/", "named")), ingressClassName="linkerd")
    one.start()
    assert (one.name(), one.name(host=b"b.com")) == (NO_RULE, "/svc/shop/80/named")
    assert "grant verb 'list' on resource 'ingressclasses'" in one.described["problems"][0]
    assert sum("the IngressClass 'edge' cannot be looked up" in line for line in warned) == 1
    one.server.forbidden = set()
    one.server.put("ingressclasses", ingress_class("edge", "meshgw.io/ingress-controller"))
    one.cluster.pass_time(35.0)
    assert one.name() == "/svc/shop/80/web"


def test_ingresses_without_class_can_be_left_to_others_unless_ours_is_the_default(bench: Make) -> None:
    one = bench(takes_unclaimed=False)
    one.put("web", rule("a.com", ("/", "web")))
    one.start()
    assert one.name() == NO_RULE
    one.server.put("ingressclasses", ingress_class("edge", "meshgw.io/ingress-controller", is_default=True))
    assert one.name() == "/svc/shop/80/web"


# --- waiting and outages


def test_requests_wait_for_the_first_list(bench: Make) -> None:
    one = bench()
    one.server.delay = 1.0
    one.put("web", rule("a.com", ("/", "web")))
    one.start()
    first, second, gone = Request(), Request(), Request()
    for request in (first, second, gone):
        found = one.identifier.identify(cast(Exchange, request))
        assert isinstance(found, NotYet)
        found.add(cast(Exchange, request))
    found.forget(cast(Exchange, gone))
    assert "Kubernetes at localhost:8001" in found.waiting_for
    one.cluster.pass_time(2.5)
    assert (first.resumed, second.resumed, gone.resumed) == (1, 1, 0)
    assert one.name() == "/svc/shop/80/web"


def test_classes_are_awaited_before_the_first_answer(bench: Make) -> None:
    one = bench()
    one.put("web", rule("a.com", ("/", "web")), ingressClassName="edge")
    one.server.put("ingressclasses", ingress_class("edge", "meshgw.io/ingress-controller"))
    one.server.delay = 1.0
    one.start()
    one.cluster.pass_time(2.5)
    assert one.name() == "not known yet: Kubernetes at localhost:8001: ingressclasses */*"
    one.cluster.pass_time(1.0)
    assert one.name() == "/svc/shop/80/web"


def test_a_right_that_is_missing_is_told_to_requests_at_once_and_mended_by_granting_it(bench: Make, warned: list[str]) -> None:
    one = bench()
    one.put("web", rule("a.com", ("/", "web")))
    one.server.forbidden = {LISTED}
    one.start()
    request = Request()
    with pytest.raises(RulesUnknown) as caught:
        one.identifier.identify(cast(Exchange, request))
    assert caught.value.status == 503
    assert "grant verb 'list' on resource 'ingresses' of apiGroup 'networking.k8s.io' by a ClusterRole" in str(caught.value)
    one.cluster.pass_time(60.0)
    assert len([line for line in warned if "may not list ingresses" in line]) == 1, "once for the outage"
    one.server.forbidden = set()
    one.cluster.pass_time(35.0)
    assert one.name() == "/svc/shop/80/web"


def test_requests_that_wait_are_told_when_it_turns_out_to_be_of_no_use(bench: Make) -> None:
    one = bench()
    one.server.delay = 1.0
    one.server.forbidden = {LISTED}
    one.start()
    request = Request()
    found = one.identifier.identify(cast(Exchange, request))
    assert isinstance(found, NotYet)
    found.add(cast(Exchange, request))
    one.cluster.pass_time(2.5)
    assert request.resumed == 1
    with pytest.raises(RulesUnknown):
        one.identifier.identify(cast(Exchange, request))


def test_one_that_ends_while_others_go_on_is_not_woken() -> None:
    not_yet = NotYet()
    second = Request()

    class First(Request):
        def identifiable(self, ex: object) -> None:
            super().identifiable(ex)
            not_yet.forget(cast(Exchange, second))
            not_yet.add(cast(Exchange, self))

    first = First()
    for request in (first, second):
        not_yet.add(cast(Exchange, request))
    not_yet.resume()
    assert (first.resumed, second.resumed) == (1, 0)
    not_yet.resume()
    assert first.resumed == 2


def test_an_api_that_cannot_be_reached_keeps_requests_waiting_and_says_why(bench: Make) -> None:
    one = bench()
    one.cluster.agent.is_down = True
    one.start()
    assert one.name().startswith("not known yet: ")
    assert "connection refused" in one.name()
    one.put("web", rule("a.com", ("/", "web")))
    one.cluster.agent.is_down = False
    one.cluster.pass_time(10.0)
    assert one.name() == "/svc/shop/80/web"


def test_the_debug_listener_says_that_rules_are_not_known_yet(bench: Make) -> None:
    one = bench()
    one.server.delay = 1.0
    one.start()
    head = Head("GET", "/", "HTTP/1.1", (("Host", "a.com"),), ("127.0.0.1", 1))
    assert identified({"http": one.identifier}, head)["http"]["error"].startswith("not known yet: Kubernetes at localhost:8001")
    one.server.delay = 0.0
    one.put("web", rule("a.com", ("/", "web")))
    one.cluster.pass_time(3.0)
    assert identified({"http": one.identifier}, head) == {"http": {"path": "/svc/shop/80/web"}}


def test_changes_of_statuses_leave_the_table_as_it_is(bench: Make) -> None:
    one = bench()
    one.put("web", rule("a.com", ("/", "web")))
    one.start()
    table = one.source.table
    one.put("web", rule("a.com", ("/", "web")), status=[{"ip": "192.0.2.1"}])
    one.put("theirs", rule("b.com", ("/", "web")), annotated="nginx")
    assert one.source.table is table
    one.put("web", rule("a.com", ("/", "other")), status=[{"ip": "192.0.2.1"}])
    assert one.name() == "/svc/shop/80/other"


def test_the_last_good_rules_stay_through_an_outage_and_are_told_to_be_stale(bench: Make) -> None:
    one = bench()
    one.put("web", rule("a.com", ("/", "web")))
    one.start()
    one.cluster.agent.is_down = True
    one.server.end_watches(properly=False)
    one.cluster.pass_time(30.0)
    assert one.name() == "/svc/shop/80/web"
    assert one.described["stale"] is True
    assert "connection refused" in one.described["error"]
    one.server.put("ingresses", ingress("web", rule("a.com", ("/", "new"))))
    one.cluster.agent.is_down = False
    one.cluster.pass_time(10.0)
    assert one.name() == "/svc/shop/80/new"
    assert (one.described["stale"], one.described["error"]) == (False, None)


def test_rules_stay_after_the_end_for_what_is_still_under_way(bench: Make) -> None:
    one = bench()
    one.put("web", rule("a.com", ("/", "web")))
    one.start()
    one.identifier.stopService()
    assert one.name() == "/svc/shop/80/web"
    assert not one.server.streams


# --- problems


def test_a_bad_object_is_told_once_and_hides_nothing_good(bench: Make, warned: list[str]) -> None:
    one = bench()
    one.put("web", rule("a.com", ("/", "web")))
    one.start()
    one.put("bad", rule("no host", ("/", "x")), rule("b.com", ("/", "good")))
    for number in range(3):
        one.put("other", rule("c.com", ("/", f"s{number}")))
    assert [one.name(host=host) for host in (b"a.com", b"b.com")] == ["/svc/shop/80/web", "/svc/shop/80/good"]
    told = "shop/bad: spec.rules[0].host: 'no host' is not a host name; expected one such as example.com or *.example.com"
    assert one.described["problems"] == [told]
    assert [line for line in warned if "shop/bad" in line] == [f"ingress {told}"]
    one.server.delete("ingresses", "bad", "shop")
    assert one.described["problems"] == []


def test_problems_are_logged_in_bounded_numbers(bench: Make, warned: list[str]) -> None:
    one = bench()
    for number in range(50):
        one.put(f"bad{number}", rule("no host", ("/", "x")))
    one.start()
    assert len(warned) == 21
    assert warned[-1] == "30 more problems of ingresses; admin shows them"


def test_admin_is_shown_rules_watches_and_figures(bench: Make) -> None:
    one = bench()
    one.put("web", rule("a.com", ("/", "web"), ("/b", "b")), defaultBackend=backend("rest"))
    one.start()
    described = one.described
    assert described["ready"] is True
    assert (described["rules"], described["ingressCount"], described["ingresses"]) == (2, 1, ["shop/web"])
    assert described["defaultBackend"] == {"backend": "shop/rest:80", "ingress": "shop/web"}
    assert "ingresses */*" in described["api"]["watches"]
    gauges = {"/".join(name): value for name, value in one.cluster.metrics.snapshot().gauges.items()}
    assert {name: gauges[f"ingress/{name}"] for name in ("ready", "ingresses", "rules", "problems")} == {
        "ready": 1.0,
        "ingresses": 1.0,
        "rules": 2.0,
        "problems": 0.0,
    }
