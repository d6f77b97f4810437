"""Which addresses a port of a Service has, out of Endpoints, EndpointSlices and the Service."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.kubernetes import endpoint_slice, endpoints, service
from meshgw.backends.endpoints import NO_ENDPOINTS, Endpoints, Found
from meshgw.backends.kubernetes_endpoints import (
    Backends,
    Reader,
    ServicePort,
    external_port,
    named_port,
    numbered_port,
    read_endpoints,
    read_slices,
)
from meshgw.backends.kubernetes_objects import Objects

Json = dict[str, Any]


def objects(*values: Json) -> Objects:
    return Objects({(value["metadata"]["namespace"], value["metadata"]["name"]): value for value in values})


def shown(found: Found) -> list[str] | None:
    """Host and port of each; None if there is no such port."""
    return [f"{each.host}:{each.port}" for each in found.endpoints] if isinstance(found, Endpoints) else None


# --- Endpoints


def test_a_named_port_has_all_ready_addresses() -> None:
    found = read_endpoints(objects(endpoints("web", "10.0.0.1", "10.0.0.2", ports={"http": 8080, "admin": 9990}, not_ready=("10.0.0.3",))))
    assert shown(named_port(found, "http")) == ["10.0.0.1:8080", "10.0.0.2:8080"]
    assert shown(named_port(found, "admin")) == ["10.0.0.1:9990", "10.0.0.2:9990"]


def test_a_port_that_is_not_there_is_unknown_and_one_without_a_ready_address_is_known_and_empty() -> None:
    found = read_endpoints(objects(endpoints("web", not_ready=("10.0.0.3",))))
    assert named_port(found, "grpc") is NO_ENDPOINTS
    assert named_port(found, "http") == Endpoints()


def test_addresses_go_with_the_ports_of_their_own_subset() -> None:
    """Pods of two releases may have the same port under different numbers."""
    value = endpoints("web", "10.0.0.1", ports={"http": 8080})
    value["subsets"] += endpoints("web", "10.0.0.2", ports={"http": 9090})["subsets"]
    value["subsets"] += endpoints("web", "10.0.0.3", ports={"admin": 9990})["subsets"]
    assert shown(named_port(read_endpoints(objects(value)), "http")) == ["10.0.0.1:8080", "10.0.0.2:9090"]


def test_a_port_of_another_protocol_or_without_a_name_is_not_found_by_name() -> None:
    value = endpoints("dns", "10.0.0.1", ports={"dns": 53})
    value["subsets"][0]["ports"] = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"port": 80}]
    found = read_endpoints(objects(value))
    assert named_port(found, "dns") is NO_ENDPOINTS
    assert shown(found.by_name("")) == ["10.0.0.1:80"]


def test_the_node_of_an_address_is_kept() -> None:
    found = named_port(read_endpoints(objects(endpoints("web", "10.0.0.1", node="node-1"))), "http")
    assert isinstance(found, Endpoints)
    assert found.endpoints[0].meta == {"nodeName": "node-1"}


def test_repeats_count_once() -> None:
    value = endpoints("web", "10.0.0.1", "10.0.0.1")
    assert shown(named_port(read_endpoints(objects(value)), "http")) == ["10.0.0.1:8080"]


def test_a_host_that_is_no_address_is_left_out() -> None:
    """It would be resolved by DNS, which nobody who writes Endpoints expects."""
    found = read_endpoints(objects(endpoints("web", "metadata.internal", "10.0.0.1")))
    assert shown(named_port(found, "http")) == ["10.0.0.1:8080"]


# --- numbered ports


def numbered(number: int, spec: Json | None, value: Json | None) -> list[str] | None:
    behind = read_endpoints(objects(value)) if value is not None else Backends()
    return shown(numbered_port(service("web", spec) if spec is not None else None, behind, number))


def test_a_number_leads_to_the_target_of_the_services_port() -> None:
    assert numbered(80, {"port": 80, "targetPort": 8080}, endpoints("web", "10.0.0.1", ports={"": 8080})) == ["10.0.0.1:8080"]
    assert numbered(80, {"name": "http", "port": 80, "targetPort": 8080}, endpoints("web", "10.0.0.1")) == ["10.0.0.1:8080"]
    assert numbered(8080, {"port": 8080}, endpoints("web", "10.0.0.1", ports={"": 8080})) == ["10.0.0.1:8080"]


def test_a_target_by_name_is_found_by_the_name_of_the_services_port() -> None:
    """Endpoints name their ports after those of the Service, not after those of the pods."""
    value = endpoints("web", "10.0.0.1", ports={"web": 8080})
    assert numbered(80, {"name": "web", "port": 80, "targetPort": "http-alt"}, value) == ["10.0.0.1:8080"]
    unnamed = endpoints("web", "10.0.0.1", ports={"": 8080})
    assert numbered(80, {"port": 80, "targetPort": "http-alt"}, unnamed) == ["10.0.0.1:8080"]


def test_a_target_by_name_is_else_found_by_its_own_name() -> None:
    assert numbered(80, {"name": "web", "port": 80, "targetPort": "http"}, endpoints("web", "10.0.0.1")) == ["10.0.0.1:8080"]
    assert numbered(80, {"name": "web", "port": 80, "targetPort": "other"}, endpoints("web", "10.0.0.1")) is None


def test_what_the_endpoints_say_of_the_port_prevails_over_the_target() -> None:
    """Endpoints that somebody wrote by hand may have any port."""
    assert numbered(80, {"port": 80, "targetPort": 8080}, endpoints("web", "10.0.0.1", ports={"": 9376})) == ["10.0.0.1:9376"]


def test_a_number_that_the_service_does_not_have_is_the_pods_own() -> None:
    assert numbered(9990, {"port": 80, "targetPort": 8080}, endpoints("web", "10.0.0.1")) == ["10.0.0.1:9990"]
    assert numbered(9990, None, endpoints("web", "10.0.0.1")) == ["10.0.0.1:9990"]


def test_a_numbered_port_without_endpoints_is_known_and_empty_and_without_a_service_unknown() -> None:
    assert numbered(80, {"port": 80, "targetPort": 8080}, None) == []
    assert numbered(80, None, None) is None
    assert numbered(80, {"port": 80, "targetPort": "http"}, None) is None


def test_a_udp_port_of_the_service_is_none_of_ours() -> None:
    assert numbered(53, {"port": 53, "targetPort": 5353, "protocol": "UDP"}, endpoints("dns", "10.0.0.1")) == ["10.0.0.1:53"]


# --- EndpointSlices


def of_slices(*values: Json, port: str = "http") -> list[str] | None:
    return shown(named_port(read_slices(objects(*values)), port))


def item(address: str, pod: str = "", **conditions: bool | None) -> Json:
    found: Json = {"addresses": [address], "conditions": conditions}
    return found | ({"targetRef": {"kind": "Pod", "uid": pod}} if pod else {})


def test_several_slices_are_one_set_without_repeats() -> None:
    one, two = endpoint_slice("web-1", "10.0.0.1", "10.0.0.2", of="web"), endpoint_slice("web-2", "10.0.0.2", "10.0.0.3", of="web")
    assert of_slices(one, two) == ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]


def test_slices_may_have_different_ports() -> None:
    one, two = endpoint_slice("web-1", "10.0.0.1", of="web"), endpoint_slice("web-2", "10.0.0.2", of="web", ports={"http": 9090})
    assert of_slices(one, two) == ["10.0.0.1:8080", "10.0.0.2:9090"]


@pytest.mark.parametrize(
    ("conditions", "counts"), [({}, True), ({"ready": None}, True), ({"ready": True}, True), ({"ready": False}, False)]
)
def test_what_is_not_said_to_be_unready_counts(conditions: Json, counts: bool) -> None:
    assert of_slices(endpoint_slice("web-1", item("10.0.0.1", **conditions), of="web")) == (["10.0.0.1:8080"] if counts else [])


def test_pods_that_are_being_stopped_serve_while_no_other_is_ready() -> None:
    stopping = item("10.0.0.1", ready=False, serving=True, terminating=True)
    dead, starting = item("10.0.0.2", ready=False, serving=False, terminating=True), item("10.0.0.3", ready=False, serving=False)
    assert of_slices(endpoint_slice("web-1", stopping, dead, starting, of="web")) == ["10.0.0.1:8080"]
    ready = endpoint_slice("web-2", "10.0.0.4", of="web")
    assert of_slices(endpoint_slice("web-1", stopping, dead, of="web"), ready) == ["10.0.0.4:8080"]


def test_pods_that_are_being_stopped_serve_a_port_for_which_no_other_is_ready() -> None:
    stopping = endpoint_slice("web-1", item("10.0.0.1", ready=False, serving=True, terminating=True), of="web")
    other = {**endpoint_slice("web-2", "10.0.0.4", of="web"), "ports": [{"name": "admin", "port": 9990}]}
    assert of_slices(stopping, other) == ["10.0.0.1:8080"]
    assert of_slices(stopping, other, port="admin") == ["10.0.0.4:9990"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_pod_with_addresses_of_both_families_counts_once(order: int) -> None:
    four = endpoint_slice("web-a", item("10.0.0.1", "pod-1"), item("10.0.0.2", "pod-2"), of="web")
    six = endpoint_slice("web-b", item("2001:db8::1", "pod-1"), item("2001:db8::3", "pod-3"), of="web", family="IPv6")
    found = of_slices(*(four, six)[::order])
    assert found is not None
    assert sorted(found) == ["10.0.0.1:8080", "10.0.0.2:8080", "2001:db8::3:8080"]


def test_a_pod_may_have_several_addresses_of_one_family() -> None:
    assert of_slices(endpoint_slice("web-a", item("10.0.0.1", "pod-1"), item("10.0.0.9", "pod-1"), of="web")) == [
        "10.0.0.1:8080",
        "10.0.0.9:8080",
    ]


def test_the_node_stands_in_a_field_or_in_the_topology() -> None:
    new, old = {**item("10.0.0.1"), "nodeName": "n1"}, {**item("10.0.0.2"), "topology": {"kubernetes.io/hostname": "n2"}}
    found = named_port(read_slices(objects(endpoint_slice("web-1", new, old, of="web"))), "http")
    assert isinstance(found, Endpoints)
    assert [each.meta["nodeName"] for each in found.endpoints] == ["n1", "n2"]


def test_a_slice_of_names_has_host_names() -> None:
    assert of_slices(endpoint_slice("ext-1", "db.example", of="ext", family="FQDN")) == ["db.example:8080"]
    assert of_slices(endpoint_slice("web-1", "db.example", of="web")) == []


def test_the_placeholder_of_a_service_without_pods_has_no_ports() -> None:
    value = endpoint_slice("web-1", of="web")
    value["ports"] = None
    assert of_slices(value) is None


# --- load balancers


def balanced(*ingress: Json, ports: tuple[Json, ...] = ({"name": "http", "port": 80},), port: str = "http") -> list[str] | None:
    value = service("web", *ports, status={"loadBalancer": {"ingress": list(ingress)}})
    return shown(external_port(value, ServicePort("default", port, "web")))


def test_the_load_balancers_of_a_service_are_named_by_its_status() -> None:
    assert balanced({"ip": "192.0.2.1"}) == ["192.0.2.1:80"]
    assert balanced({"hostname": "lb.example", "ip": "192.0.2.1"}, {"ip": "192.0.2.2"}) == ["lb.example:80", "192.0.2.2:80"]
    assert balanced({"ip": "192.0.2.1"}, port="80") == ["192.0.2.1:80"]


def test_a_service_without_load_balancer_or_port_is_unknown() -> None:
    assert balanced() is None
    assert balanced({"ip": "192.0.2.1"}, port="grpc") is None
    assert balanced({"ip": "192.0.2.1"}, port="8080") is None
    assert external_port(None, ServicePort("default", "80", "web")) is NO_ENDPOINTS
    assert external_port(service("web", {"port": 80}), ServicePort("default", "80", "web")) is NO_ENDPOINTS


# --- whatever comes

KEYS = ["subsets", "addresses", "ports", "ip", "port", "name", "spec", "targetPort", "status", "loadBalancer", "ingress", "hostname"]
KEYS += ["endpoints", "conditions", "ready", "addressType", "targetRef", "uid", "kind", "nodeName", "topology", "protocol", "metadata"]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "TCP", "10.0.0.1", "Pod", "http"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=25,
)


@given(st.dictionaries(st.sampled_from(KEYS), anything, max_size=6), st.integers(1, 65535))
def test_no_object_makes_reading_raise(value: Json, number: int) -> None:
    found = Objects({("default", "web"): value})
    for behind in (read_endpoints(found), read_slices(found)):
        for each in (named_port(behind, "http"), numbered_port(value, behind, number), numbered_port(None, behind, number)):
            assert isinstance(each, Endpoints) or each is NO_ENDPOINTS
    external_port(value, ServicePort("default", "80", "web"))


def test_endpoint_of_an_address_that_stays_is_the_same_object_at_each_reading() -> None:
    reader = Reader()
    before = named_port(reader.endpoints(objects(endpoints("web", "10.0.0.1", "10.0.0.2", node="node-1"))), "http")
    after = named_port(reader.endpoints(objects(endpoints("web", "10.0.0.2", "10.0.0.3", node="node-1"))), "http")
    assert isinstance(before, Endpoints)
    assert isinstance(after, Endpoints)
    assert [endpoint.host for endpoint in after.endpoints] == ["10.0.0.2", "10.0.0.3"]
    assert after.endpoints[0] is before.endpoints[1]


def test_address_of_which_something_else_is_said_is_read_anew() -> None:
    reader = Reader()
    reader.endpoints(objects(endpoints("web", "10.0.0.1", node="node-1")))
    moved = named_port(reader.endpoints(objects(endpoints("web", "10.0.0.1", node="node-2"))), "http")
    assert isinstance(moved, Endpoints)
    assert [endpoint.meta for endpoint in moved.endpoints] == [{"nodeName": "node-2"}]
