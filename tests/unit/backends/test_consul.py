"""Reading Consul's answers, the rules of its index, and who may hold a blocking query."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.consul_agent import AGENT, catalog_entry, health_entry
from meshgw.backends.consul import (
    AgentSelf,
    ServiceQuery,
    next_index,
    read_agent,
    read_catalog_node,
    read_health_node,
    worst_status,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["Address", "ServiceAddress", "ServicePort", "ServiceTags", "ServiceMeta", "NodeMeta", "Node", "Service", "Checks"])
near_entries = st.dictionaries(names, json_values | st.dictionaries(names, json_values, max_size=4), max_size=6)


def test_catalog_entry_is_read() -> None:
    node = read_catalog_node(
        catalog_entry(81, ServiceAddress="192.0.2.9", ServiceTags=["prod"], ServiceMeta={"v": "1"}, NodeMeta={"n": "2"})
    )
    assert node is not None
    assert (node.address, node.service_address, node.port, node.tags) == ("192.0.2.1", "192.0.2.9", 81, ("prod",))
    assert (node.service_meta, node.node_meta, node.status) == ({"v": "1"}, {"n": "2"}, "passing")


def test_health_entry_is_read() -> None:
    node = read_health_node(health_entry(82, "passing", "warning", Address="web.test", Tags=["a"], Meta={"v": "1"}))
    assert node is not None
    assert (node.address, node.service_address, node.port, node.tags) == ("192.0.2.1", "web.test", 82, ("a",))
    assert (node.service_meta, node.node_meta, node.status) == ({"v": "1"}, {"rack": "r1"}, "warning")


def test_null_and_absent_parts_count_as_none() -> None:
    node = read_catalog_node({"Address": "192.0.2.1", "ServiceTags": None, "ServiceMeta": None})
    assert node is not None
    assert (node.port, node.tags, node.service_meta, node.service_address) == (0, (), {}, "")


@pytest.mark.parametrize("port", [0, -1, 65536, "80", None, True, 80.0])
def test_port_that_is_none_is_no_port(port: object) -> None:
    node = read_catalog_node(catalog_entry(ServicePort=port))
    assert node is not None
    assert node.port == 0


@given(json_values | near_entries)
def test_reading_any_json_raises_nothing(value: object) -> None:
    read_catalog_node(value)
    read_health_node(value)
    read_agent(value)
    worst_status(value)


@pytest.mark.parametrize(
    ("statuses", "worst"),
    [
        ((), "passing"),
        (("passing", "passing"), "passing"),
        (("passing", "warning"), "warning"),
        (("critical", "warning"), "critical"),
        (("critical", "maintenance"), "maintenance"),
        (("unheard-of",), "passing"),
    ],
)
def test_worst_check_counts(statuses: tuple[str, ...], worst: str) -> None:
    assert worst_status([{"Status": status} for status in statuses]) == worst


@pytest.mark.parametrize("id", ["_node_maintenance", "_service_maintenance:web-1"])
def test_check_of_a_maintenance_is_one_although_it_is_called_critical(id: str) -> None:
    assert worst_status([{"CheckID": id, "Status": "critical"}, {"Status": "critical"}]) == "maintenance"


def test_agent_of_today_has_its_domain_in_the_debug_part() -> None:
    assert read_agent(AGENT) == AgentSelf(datacenter="dc7", domain="mesh.test")


def test_agent_of_old_has_its_domain_in_the_config() -> None:
    assert read_agent({"Config": {"Datacenter": "dc1", "Domain": ".old.test."}}) == AgentSelf(datacenter="dc1", domain="old.test")


def test_agent_without_domain_has_the_default_one() -> None:
    assert read_agent({"Config": {"Datacenter": "dc1"}}) == AgentSelf(datacenter="dc1", domain="consul")


def test_agent_without_datacenter_is_not_understood() -> None:
    assert read_agent({"Config": {"Datacenter": ""}}) is None


@pytest.mark.parametrize(("known", "seen", "expected"), [(None, 7, 7), (7, 9, 9), (7, 7, 7), (7, 6, None), (7, 0, None), (None, 0, None)])
def test_index_that_goes_back_or_is_zero_is_given_up(known: int | None, seen: int, expected: int | None) -> None:
    assert next_index(known, seen) == expected


def test_first_question_has_neither_index_nor_wait() -> None:
    query = ServiceQuery(service="web", datacenter="dc1")
    assert (query.path, query.parameters(None)) == ("/v1/catalog/service/web", [("dc", "dc1")])


def test_later_questions_wait_on_the_index_for_a_time_that_is_told() -> None:
    query = ServiceQuery(service="web", datacenter="dc1", tag="prod", passing=False)
    assert query.path == "/v1/health/service/web"
    assert query.parameters(12) == [("index", "12"), ("wait", "60s"), ("dc", "dc1"), ("tag", "prod"), ("passing", "false")]


@pytest.mark.parametrize(("service", "path"), [("a/b", "a%2Fb"), ("..", "%2E%2E"), ("a?dc=x", "a%3Fdc%3Dx"), ("ü", "%C3%BC")])
def test_a_name_cannot_reach_another_part_of_the_api(service: str, path: str) -> None:
    assert ServiceQuery(service=service, datacenter="dc1").path == f"/v1/catalog/service/{path}"
