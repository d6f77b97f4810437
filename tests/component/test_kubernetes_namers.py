"""The namers of Kubernetes Services, against a scripted API server in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from fakes.kubernetes import endpoint_slice, endpoints, service
from fakes.kubernetes_agent import Cluster
from fakes.looked import Looked, runtime
from meshgw.backends.kubernetes_endpoints import ServiceEndpoints, show_services
from meshgw.core.live import Failed, Ok, Pending
from meshgw.errors import NamerError
from meshgw.namers.kubernetes import K8sConfig, K8sExternalConfig, K8sNamer, K8sNamespaceConfig, build_k8s, build_k8s_external, build_k8s_ns
from meshgw.naming.path import Path


class Names:
    """A namer, and the names looked up in it."""

    def __init__(self, *, source: str = "endpoints", external: bool = False, **settings: Any) -> None:
        self.cluster = Cluster(show=show_services)
        self.server = self.cluster.server
        services = ServiceEndpoints(self.cluster.api, source)
        prefix = "#/io.l5d.k8s.external" if external else "#/io.l5d.k8s"
        built = attrs.evolve(runtime(self.cluster.clock), metrics=self.cluster.metrics)
        find = services.external if external else services.found
        self.namer = K8sNamer(Path.of(*prefix.split("/")), self.cluster.api, find, built, **settings)
        self.looked: list[Looked] = []

    def look(self, name: str) -> Looked:
        found = Looked(self.namer, name)
        self.looked.append(found)
        return found

    def __enter__(self) -> Names:
        return self

    def __exit__(self, *_exc: object) -> None:
        for looked in self.looked:
            looked.close()
        self.cluster.api.stopService()


@pytest.fixture
def names() -> Iterator[Names]:
    with Names() as made:
        yield made


# --- names


def test_a_name_is_namespace_port_and_service_and_the_rest_is_residual(names: Names) -> None:
    names.server.put("endpoints", endpoints("web", "10.0.0.1"))
    looked = names.look("/default/http/web/some/more")
    assert looked.bound.id == Path.read("/#/io.l5d.k8s/default/http/web")
    assert looked.bound.residual == Path.read("/some/more")
    assert looked.addresses == ["10.0.0.1:8080"]


def test_names_are_lower_cased(names: Names) -> None:
    names.server.put("endpoints", endpoints("web", "10.0.0.1"))
    looked = names.look("/Default/HTTP/Web")
    assert looked.bound.id == Path.read("/#/io.l5d.k8s/default/http/web")
    assert looked.addresses == ["10.0.0.1:8080"]


IMPOSSIBLE = (
    "/",
    "/default/http",
    "/default/http/web\\x2cmetadata.namespace\\x3dother",
    "/../http/web",
    "/default/http/\\xff",
    "/default/0/web",
    "/default/65536/web",
    "/default/123456/web",
    "/de_fault/http/web",
    "/default/ht_tp/web",
    "/default/http/-web",
    f"/default/http/{'w' * 254}",
    f"/{'n' * 64}/http/web",
)


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_a_name_of_kubernetes_is_unknown_without_asking(names: Names, name: str) -> None:
    assert names.look(name).is_neg
    assert not names.server.asked


def test_the_label_is_a_segment_of_its_own() -> None:
    with Names(label="app") as names:
        names.server.put("endpoints", endpoints("web", "10.0.0.1", labels={"app": "v2"}))
        looked = names.look("/default/http/web/V2/rest")
        assert looked.bound.id == Path.read("/#/io.l5d.k8s/default/http/web/v2")
        assert looked.bound.residual == Path.read("/rest")
        assert looked.addresses == ["10.0.0.1:8080"]
        assert names.server.asked[0].query["labelSelector"] == "app=v2"
        assert names.look("/default/http/web/v1").is_neg
        assert names.look("/default/http/web").is_neg
        asked = len(names.server.asked)
        assert names.look("/default/http/web/a\\x2cb").is_neg
        assert len(names.server.asked) == asked, "a comma would add to the selector"
        assert "default/web:app=v2" in names.namer.describe()["endpoints"]


def test_a_namespace_may_be_fixed() -> None:
    with Names(namespace="shop") as names:
        names.server.put("endpoints", endpoints("web", "10.0.0.1", namespace="shop"))
        looked = names.look("/http/web/rest")
        assert looked.bound.id == Path.read("/#/io.l5d.k8s/http/web")
        assert looked.addresses == ["10.0.0.1:8080"]
        assert names.look("/http").is_neg


def test_only_what_is_asked_for_is_watched(names: Names) -> None:
    names.look("/default/http/web")
    assert [asked.path for asked in names.server.asked] == ["/api/v1/namespaces/default/endpoints"] * 2
    assert all(asked.query["fieldSelector"] == "metadata.name=web" for asked in names.server.asked)


def test_a_scanners_names_cost_one_watch_each_for_a_minute(names: Names) -> None:
    for number in range(50):
        names.look(f"/default/http/scan{number}").close()
    assert len(names.server.streams) == 50
    names.cluster.pass_time(61.0, step=1.0)
    assert not names.server.streams


# --- endpoints that come and go


def test_endpoints_that_come_and_go_change_addresses_without_binding_anew(names: Names) -> None:
    names.server.put("endpoints", endpoints("web", "10.0.0.1"))
    looked = names.look("/default/http/web")
    bound, told = looked.bound, looked.trees
    names.server.put("endpoints", endpoints("web", "10.0.0.1", "10.0.0.2"))
    assert looked.addresses == ["10.0.0.1:8080", "10.0.0.2:8080"]
    names.server.put("endpoints", endpoints("web", "10.0.0.2"))
    assert looked.addresses == ["10.0.0.2:8080"]
    assert looked.bound is bound
    assert looked.trees == told


def test_a_service_may_come_later_and_vanish(names: Names) -> None:
    looked = names.look("/default/http/web")
    assert looked.is_neg
    names.server.put("endpoints", endpoints("web", "10.0.0.1"))
    assert looked.addresses == ["10.0.0.1:8080"]
    names.server.delete("endpoints", "web")
    assert looked.is_neg


def test_a_service_whose_pods_are_all_unready_stays_bound_and_empty(names: Names) -> None:
    names.server.put("endpoints", endpoints("web", "10.0.0.1"))
    looked = names.look("/default/http/web")
    names.server.put("endpoints", endpoints("web", not_ready=("10.0.0.1",)))
    assert not looked.is_neg
    assert looked.addresses == []


def test_a_thousand_endpoints_come_and_go_at_once(names: Names) -> None:
    names.server.put("endpoints", endpoints("web", "10.0.0.1"))
    looked = names.look("/default/http/web")
    many = [f"10.{number // 250}.{number % 250}.7" for number in range(1000)]
    names.server.put("endpoints", endpoints("web", *many))
    assert looked.addresses == [f"{ip}:8080" for ip in many]
    names.server.put("endpoints", endpoints("web", *many[:1]))
    assert looked.addresses == [f"{many[0]}:8080"]


def test_an_address_has_the_name_of_its_node(names: Names) -> None:
    names.server.put("endpoints", endpoints("web", "10.0.0.1", node="node-1"))
    addr = names.look("/default/http/web").addr
    assert isinstance(addr, Ok)
    assert addr.value.addresses[0].meta["nodeName"] == "node-1"  # type: ignore[union-attr]


def test_a_change_of_the_ports_number_moves_the_addresses(names: Names) -> None:
    names.server.put("endpoints", endpoints("web", "10.0.0.1"))
    looked = names.look("/default/http/web")
    names.server.put("endpoints", endpoints("web", "10.0.0.1", ports={"http": 9090}))
    assert looked.addresses == ["10.0.0.1:9090"]
    names.server.put("endpoints", endpoints("web", "10.0.0.1", ports={"grpc": 9090}))
    assert looked.is_neg


def test_endpoints_that_leave_some_out_are_remarked_on_once(names: Names) -> None:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.warn:
            lines.append(str(formatEvent(event)))

    annotations = {"endpoints.kubernetes.io/over-capacity": "truncated"}
    globalLogPublisher.addObserver(observe)
    try:
        names.server.put("endpoints", endpoints("web", "10.0.0.1", annotations=annotations))
        names.look("/default/http/web")
        names.server.put("endpoints", endpoints("web", "10.0.0.2", annotations=annotations))
    finally:
        globalLogPublisher.removeObserver(observe)
    (line,) = lines
    assert "Endpoints of default/web leave some of its addresses out" in line
    assert "source: endpointSlices" in line


# --- numbered ports


def test_a_number_is_that_of_the_services_port(names: Names) -> None:
    names.server.put("services", service("web", {"name": "http", "port": 80, "targetPort": 8080}))
    names.server.put("endpoints", endpoints("web", "10.0.0.1"))
    looked = names.look("/default/80/web")
    assert looked.bound.id == Path.read("/#/io.l5d.k8s/default/80/web")
    assert looked.addresses == ["10.0.0.1:8080"]
    assert set(names.namer.describe()["portMappings"]) == {"default/web"}


def test_a_change_of_the_service_is_followed(names: Names) -> None:
    names.server.put("services", service("web", {"port": 80, "targetPort": 8080}))
    names.server.put("endpoints", endpoints("web", "10.0.0.1", ports={"admin": 9990}))
    looked = names.look("/default/80/web")
    assert looked.addresses == ["10.0.0.1:8080"]
    names.server.put("services", service("web", {"port": 80, "targetPort": 8081}))
    assert looked.addresses == ["10.0.0.1:8081"]
    names.server.delete("services", "web")
    assert looked.addresses == ["10.0.0.1:80"], "the pods' own port, as there are endpoints"
    names.server.delete("endpoints", "web")
    assert looked.is_neg


def test_a_numbered_port_without_pods_is_bound_and_empty(names: Names) -> None:
    names.server.put("services", service("web", {"port": 80, "targetPort": 8080}))
    looked = names.look("/default/80/web")
    assert not looked.is_neg
    assert looked.addresses == []


def test_a_named_port_does_not_need_the_right_to_services(names: Names) -> None:
    names.server.forbidden.add(("*", "services", "*"))
    names.server.put("endpoints", endpoints("web", "10.0.0.1"))
    assert names.look("/default/http/web").addresses == ["10.0.0.1:8080"]
    looked = names.look("/default/80/web")
    assert isinstance(looked.state, Failed)
    assert "grant verb 'list' on resource 'services'" in looked.error


# --- outages and oddities


def test_an_outage_keeps_addresses_and_says_so(names: Names) -> None:
    names.server.put("endpoints", endpoints("web", "10.0.0.1"))
    looked = names.look("/default/http/web")
    names.cluster.agent.is_down = True
    names.server.end_watches(properly=False)
    names.cluster.pass_time(30.0)
    assert looked.addresses == ["10.0.0.1:8080"]
    assert "connection refused" in looked.error
    described = names.namer.describe()["endpoints"]["default/web"]
    assert described["state"]["stale"] is True
    assert "connection refused" in described["watch"]["error"]


def test_a_server_that_is_not_there_is_told_to_those_who_wait(names: Names) -> None:
    names.cluster.agent.is_down = True
    looked = names.look("/default/http/web")
    names.cluster.pass_time(5.0)
    assert isinstance(looked.state, Pending)
    assert "Kubernetes at localhost:8001: connection refused" in looked.state.waiting_for
    names.cluster.agent.is_down = False
    names.server.put("endpoints", endpoints("web", "10.0.0.1"))
    names.cluster.pass_time(6.0)
    assert looked.addresses == ["10.0.0.1:8080"]


def test_a_missing_right_is_told_to_those_who_wait(names: Names) -> None:
    names.server.forbidden.add(("watch", "endpoints", "*"))
    looked = names.look("/default/http/web")
    assert "grant verb 'watch' on resource 'endpoints'" in looked.error


def test_endpoints_lost_by_a_compaction_are_found_gone(names: Names) -> None:
    names.server.put("endpoints", endpoints("web", "10.0.0.1", "10.0.0.2"))
    looked = names.look("/default/http/web")
    names.server.end_watches(properly=False)
    names.server.put("endpoints", endpoints("web", "10.0.0.2"))
    names.server.compact()
    names.cluster.pass_time(2.0)
    assert looked.addresses == ["10.0.0.2:8080"]


@pytest.mark.parametrize("odd", [{"subsets": 7}, {"subsets": [7, {"addresses": {}, "ports": "x"}]}, {"subsets": None}, {}])
def test_an_object_that_says_nothing_sensible_has_no_ports(names: Names, odd: dict[str, Any]) -> None:
    names.server.put("endpoints", {"metadata": {"name": "web", "namespace": "default"}, **odd})
    looked = names.look("/default/http/web")
    assert looked.is_neg
    names.server.put("endpoints", endpoints("web", "10.0.0.1"))
    assert looked.addresses == ["10.0.0.1:8080"]


def test_two_ports_of_a_service_share_a_watch(names: Names) -> None:
    names.server.put("endpoints", endpoints("web", "10.0.0.1", ports={"http": 8080, "admin": 9990}))
    assert names.look("/default/http/web").addresses == ["10.0.0.1:8080"]
    assert names.look("/default/admin/web").addresses == ["10.0.0.1:9990"]
    assert len(names.server.streams) == 1
    assert names.cluster.counted("lookups") == 2


# --- slices


def test_slices_of_a_service_are_watched_by_its_label() -> None:
    with Names(source="endpointSlices") as names:
        names.server.put("endpointslices", endpoint_slice("web-abc", "10.0.0.1", of="web"))
        names.server.put("endpointslices", endpoint_slice("web-def", "10.0.0.2", of="web"))
        names.server.put("endpointslices", endpoint_slice("other-abc", "10.0.0.3", of="other"))
        looked = names.look("/default/http/web")
        assert looked.addresses == ["10.0.0.1:8080", "10.0.0.2:8080"]
        names.server.delete("endpointslices", "web-abc")
        assert looked.addresses == ["10.0.0.2:8080"]
        assert names.server.asked[-1].query["labelSelector"] == "kubernetes.io/service-name=web"


def test_admin_shows_what_slices_say() -> None:
    with Names(source="endpointSlices") as names:
        names.server.put("endpointslices", endpoint_slice("web-abc", "10.0.0.1", of="web"))
        names.look("/default/http/web")
        (state,) = names.namer.describe()["endpoints"].values()
        assert state["state"]["value"]["subsets"] == [{"ports": {"http": 8080}, "addresses": ["10.0.0.1"]}]


def test_older_slices_are_taken_where_there_are_no_newer_ones() -> None:
    with Names(source="endpointSlices") as names:
        del names.server.apis["discovery.k8s.io/v1"]
        names.server.apis["discovery.k8s.io/v1beta1"] = ("endpointslices",)
        names.server.put("endpointslices", endpoint_slice("web-abc", "10.0.0.1", of="web"))
        assert names.look("/default/http/web").addresses == ["10.0.0.1:8080"]
        assert names.server.asked[-1].path == "/apis/discovery.k8s.io/v1beta1/namespaces/default/endpointslices"


def test_auto_takes_endpoints_where_there_are_no_slices() -> None:
    with Names(source="auto") as names:
        del names.server.apis["discovery.k8s.io/v1"]
        names.server.put("endpoints", endpoints("web", "10.0.0.1"))
        assert names.look("/default/http/web").addresses == ["10.0.0.1:8080"]


def test_auto_takes_slices_where_they_are_and_numbers_work_with_them() -> None:
    with Names(source="auto", label="app") as names:
        names.server.put("endpoints", endpoints("web", "10.9.9.9", labels={"app": "v1"}))
        names.server.put("services", service("web", {"name": "http", "port": 80, "targetPort": "web"}))
        names.server.put("endpointslices", endpoint_slice("web-abc", "10.0.0.1", of="web", labels={"app": "v1"}))
        assert names.look("/default/80/web/v1").addresses == ["10.0.0.1:8080"]


# --- load balancers


def balanced(*ingress: dict[str, str], **more: Any) -> dict[str, Any]:
    return service("web", {"name": "http", "port": 80}, status={"loadBalancer": {"ingress": list(ingress)}}, **more)


def test_an_external_name_has_the_load_balancers_of_the_service() -> None:
    with Names(external=True) as names:
        looked = names.look("/default/http/web/rest")
        assert looked.is_neg
        names.server.put("services", balanced())
        assert looked.is_neg
        names.server.put("services", balanced({"ip": "192.0.2.1"}))
        assert looked.addresses == ["192.0.2.1:80"]
        assert looked.bound.id == Path.read("/#/io.l5d.k8s.external/default/http/web")
        names.server.put("services", balanced({"hostname": "lb.example"}, {"ip": "192.0.2.2"}))
        assert looked.addresses == ["lb.example:80", "192.0.2.2:80"], "this resolver gives names back"
        assert names.look("/default/80/web").addresses == ["lb.example:80", "192.0.2.2:80"]
        assert names.look("/default/81/web").is_neg


# --- building


def test_the_namespace_comes_from_the_environment() -> None:
    namer = build_k8s_ns(K8sNamespaceConfig(), runtime(Cluster().clock), {"POD_NAMESPACE": "Shop"})
    assert namer.describe()["endpoints"] == {}
    assert isinstance(namer.lookup(Path.read("/http/web")), object)


@pytest.mark.parametrize(
    ("environment", "told"), [({}, "it is not set"), ({"MINE": ""}, "it is not set"), ({"MINE": "a/b"}, "'a/b', which is no namespace")]
)
def test_without_a_namespace_the_start_is_refused(environment: dict[str, str], told: str) -> None:
    with pytest.raises(NamerError, match="could not find namespace for envVar MINE") as caught:
        build_k8s_ns(K8sNamespaceConfig(env_var="MINE"), runtime(Cluster().clock), environment)
    assert told in str(caught.value)


def test_each_namer_is_built_from_its_block() -> None:
    clock = Cluster().clock
    assert build_k8s(K8sConfig(), runtime(clock), {}).describe()["server"] == "http://localhost:8001"
    assert build_k8s_external(K8sExternalConfig(host="k8s", port=1), runtime(clock), {}).describe()["server"] == "http://k8s:1"


def test_what_admin_shows_is_json(names: Names) -> None:
    names.server.put("endpoints", endpoints("web", "10.0.0.1"))
    names.server.put("services", service("web", {"name": "http", "port": 80, "targetPort": "http"}))
    names.look("/default/http/web")
    names.look("/default/80/web")
    names.look("/default/http/none")
    shown = json.loads(json.dumps(names.namer.describe()))
    assert shown["endpoints"]["default/web"]["state"]["running"] is True
    value = shown["endpoints"]["default/web"]["state"]["value"]
    assert value["subsets"] == [{"ports": {"http": 8080}, "addresses": ["10.0.0.1"]}]
    assert shown["endpoints"]["default/none"]["state"]["value"] is None
    assert shown["portMappings"]["default/web"]["state"]["value"]["ports"] == [{"port": 80, "name": "http", "target": "http"}]
    assert {"request", "resourceVersion"} <= set(shown["endpoints"]["default/web"]["watch"])
