"""Names of services in Consul, what becomes of the instances, and the options."""

from __future__ import annotations

import json

import pytest

from meshgw.backends.consul import Node
from meshgw.backends.endpoints import NO_ENDPOINTS, Endpoint, Endpoints, show_found
from meshgw.config.loader import LoadResult, load
from meshgw.config.plain import config_to_json
from meshgw.config.problems import Severity
from meshgw.kinds import Registry
from meshgw.namers.consul import ConsulConfig, Instances, Selection, ServiceKey, authority_of, read_key
from meshgw.naming.path import Path


@pytest.mark.parametrize(
    ("path", "has_tag", "key"),
    [
        ("/dc1/web", False, ServiceKey("dc1", "web")),
        ("/dc1/web/more/labels", False, ServiceKey("dc1", "web")),
        ("/DC1/Web", False, ServiceKey("DC1", "web")),
        ("/dc1/Prod/Web", True, ServiceKey("dc1", "web", "prod")),
        ("/dc1", False, None),
        ("/", False, None),
        ("/dc1/prod", True, None),
        (r"/dc1/\xff\xfe", False, None),
    ],
)
def test_name_gives_the_service_in_lower_case_and_the_datacenter_as_it_is(path: str, has_tag: bool, key: ServiceKey | None) -> None:
    assert read_key(Path.read(path), has_tag=has_tag) == key


def test_service_is_shown_as_its_path() -> None:
    assert [ServiceKey("dc1", "web").show(), ServiceKey("dc1", "web", "prod").show()] == ["/dc1/web", "/dc1/prod/web"]


def test_authority_is_the_name_in_consuls_dns() -> None:
    assert authority_of(ServiceKey(".local", "web"), "dc1", "consul") == "web.service.dc1.consul"
    assert authority_of(ServiceKey("dc1", "web", "prod"), "dc1", "mesh.test") == "prod.web.service.dc1.mesh.test"


@pytest.mark.parametrize("service", ["a b", "web\r\nX-Injected: 1", "a/b", "ü"])
def test_what_is_no_host_name_becomes_no_authority(service: str) -> None:
    assert authority_of(ServiceKey("dc1", service), "dc1", "consul") is None


def found(*nodes: Node, authority: str | None = None, **options: object) -> tuple[Endpoint, ...]:
    said = Instances(Selection(**options)).found(nodes, authority)  # type: ignore[arg-type]
    return said.endpoints if isinstance(said, Endpoints) else ()


NODE = Node(address="192.0.2.1", port=80)


def test_service_address_is_preferred_where_there_is_one() -> None:
    own = Node(address="192.0.2.1", service_address="192.0.2.7", port=80)
    assert [one.host for one in found(own, Node(address="192.0.2.2", port=80))] == ["192.0.2.7", "192.0.2.2"]
    assert [one.host for one in found(own, prefer_service_address=False)] == ["192.0.2.1"]


def test_instances_without_port_or_address_are_left_out() -> None:
    assert Instances(Selection()).found([Node(address="192.0.2.1"), Node(address="", port=80)], None) is NO_ENDPOINTS


def test_no_instance_means_that_the_service_does_not_exist() -> None:
    assert Instances(Selection()).found([], "web.service.dc1.consul") is NO_ENDPOINTS


def test_highest_weight_of_the_tags_counts_and_none_is_one() -> None:
    weights = {"big": 5.0, "small": 0.5}
    tagged = [Node(address="192.0.2.1", port=port, tags=tags) for port, tags in ((1, ("small", "big")), (2, ("small",)), (3, ("other",)))]
    assert [one.weight for one in found(*tagged, weights=weights)] == [5.0, 0.5, 1.0]


def test_equal_addresses_are_one_endpoint_with_the_highest_weight() -> None:
    again = Node(address="192.0.2.1", port=80, tags=("big",))
    assert [(one.host, one.port, one.weight) for one in found(NODE, again, NODE, weights={"big": 3.0})] == [("192.0.2.1", 80, 3.0)]


def test_only_the_listed_statuses_are_taken() -> None:
    nodes = [
        Node(address="192.0.2.1", port=port, status=status)
        for port, status in enumerate(("passing", "warning", "critical", "maintenance"), 1)
    ]
    assert [one.port for one in found(*nodes, statuses=frozenset({"passing", "critical"}))] == [1, 3]
    assert [one.port for one in found(*nodes)] == [1, 2, 3, 4]


def test_metadata_is_carried_only_if_asked_for_and_never_decides_the_host() -> None:
    node = Node(
        address="192.0.2.1",
        port=80,
        service_meta={"version": "2", "authority": "evil.test"},
        node_meta={"rack": "r1", "authority": "evil.test"},
    )
    plain = Instances(Selection()).found([node], None)
    carried = Instances(Selection(transfer_metadata=True)).found([node], "web.service.dc1.consul")
    assert isinstance(plain, Endpoints)
    assert isinstance(carried, Endpoints)
    assert (dict(plain.meta), dict(plain.endpoints[0].meta)) == ({}, {})
    assert (dict(carried.meta), dict(carried.endpoints[0].meta)) == (
        {"version": "2", "authority": "web.service.dc1.consul"},
        {"rack": "r1"},
    )


def test_state_shows_addresses_as_json() -> None:
    assert json.dumps(show_found(Endpoints((Endpoint("192.0.2.1", 80, 2.0),), {"authority": "a"})))
    assert show_found(NO_ENDPOINTS) is None


# --- options


def loaded(options: str) -> LoadResult:
    router = "{protocol: http, dtab: /svc => /#/io.l5d.consul/dc1, servers: [{port: 0}]}"
    text = f"namers: [{{kind: io.l5d.consul{options}}}]\nrouters: [{router}]"
    return load(text, "l.yaml", Registry())


def config(options: str = "") -> ConsulConfig:
    result = loaded(options)
    assert result.config is not None, [problem.show() for problem in result.problems]
    made: ConsulConfig = result.config.namers[0].config
    return made


def test_defaults_are_those_of_linkerd() -> None:
    made = config()
    assert (made.host, made.port, made.prefix.show()) == ("localhost", 8500, "/io.l5d.consul")
    assert (made.include_tag, made.use_health_check, made.health_statuses) == (False, False, ("passing",))
    assert (made.set_host, made.consistency_mode, made.fail_fast, made.prefer_service_address) == (False, "default", False, True)
    assert (made.token, made.tls, made.weights, made.transfer_metadata, made.largest_answer) == (None, None, (), False, 5 << 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (", healthStatuses: [passing, sick]", "Illegal Consul health status: sick"),
        (", consistencyMode: eventual", "Illegal Consul consistency mode level: eventual"),
        (", weights: [{tag: a, weight: -1}]", "must be at least 0, not -1.0"),
        (", fixedLengthStreamedAfterKB: 0", "must be at least 1, not 0"),
        (", maxBlockingQueries: -1", "must be at least 0, not -1"),
    ],
)
def test_wrong_option_is_told(options: str, message: str) -> None:
    assert [problem.message for problem in loaded(options).errors] == [message]


def test_limits_of_one_linkerd_release_are_remarked_upon_but_for_the_one_that_works() -> None:
    result = loaded(", maxHeadersKB: 8, maxInitialLineKB: 4, maxRequestKB: 5120, maxResponseKB: 64")
    assert result.config is not None
    assert {problem.severity for problem in result.problems} == {Severity.NOTICE}
    assert sorted(problem.path.rpartition(".")[2] for problem in result.problems) == ["maxHeadersKB", "maxInitialLineKB", "maxRequestKB"]
    assert result.config.namers[0].config.largest_answer == 64 << 10


def test_limit_that_looks_like_megabytes_is_remarked_upon() -> None:
    (problem,) = loaded(", fixedLengthStreamedAfterKB: 5").problems
    assert problem.severity is Severity.NOTICE
    assert "Linkerd takes the number as megabytes" in problem.message


def test_token_is_masked_in_the_shown_configuration_and_in_logs() -> None:
    result = loaded(", token: hush-hush")
    assert result.config is not None
    assert "hush-hush" not in json.dumps(config_to_json(result.config))
    assert "hush-hush" not in repr(result.config)


def test_tls_needs_no_name_as_the_host_is_one() -> None:
    assert loaded(", tls: {}").problems == ()
    problems = loaded(", tls: {trustCerts: [/dev/null], trustCertsBundle: /dev/null}").problems
    assert "Both trustCerts and trustCertsBundle" in problems[0].message
