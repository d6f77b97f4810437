"""The transformers to pods of the same node, against a scripted API server in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from fakes.kubernetes import endpoints
from fakes.kubernetes_agent import Cluster, Seen
from fakes.looked import literal, runtime
from meshgw.backends.endpoints import resolved
from meshgw.backends.kubernetes import NO_OBJECTS
from meshgw.backends.kubernetes_endpoints import ServiceEndpoints, ServicePort
from meshgw.core.address import ADDR_NEG, Addr, Address, Bound, Replicas
from meshgw.core.live import PENDING, Failed, Live, Ok, Pending, Source, constant
from meshgw.errors import NamerError
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, Leaf
from meshgw.transform.kubernetes import (
    DaemonsetConfig,
    DaemonsetTransformer,
    LocalnodeConfig,
    build_daemonset,
    build_localnode,
    network_of,
    network_of_address,
    node_of,
)

L5D = ServicePort("default", "incoming", "l5d")
PREFIX = Path.read("/%/io.l5d.k8s.daemonset/default/incoming/l5d")


def at(*hosts: str, port: int = 8080, **nodes: str) -> Replicas:
    """Addresses, and those of ``nodes`` by keyword: ``a="10.0.0.1"`` is on the node ``a``."""
    plain = [Address(host, port) for host in hosts]
    return Replicas((*plain, *(Address(host, port, 1.0, {"nodeName": node}) for node, host in nodes.items())))


def bound(addr: Live[Addr]) -> Bound:
    return Bound(Path.read("/#/io.l5d.k8s/default/http/web"), addr, Path.of())


def hosts(addr: Addr) -> list[str]:
    assert isinstance(addr, Replicas), addr
    return [address.show() for address in addr.addresses]


class Daemonset:
    """The transformer, its cluster, and an address set that goes through it."""

    def __init__(self, *, by_node: bool = False, is_started: bool = True) -> None:
        self.cluster = Cluster(absent=NO_OBJECTS)
        self.server, api = self.cluster.server, self.cluster.api
        gateways = resolved(ServiceEndpoints(api).found(L5D), literal, "the daemonset")
        self.transformer = DaemonsetTransformer(PREFIX, api, gateways, node_of if by_node else network_of_address)
        self.addr: Source[Addr] = Source()
        if is_started:
            self.transformer.startService()

    def put(self, *addresses: str, node: str | None = None) -> None:
        self.server.put("endpoints", endpoints("l5d", *addresses, ports={"incoming": 4141}, node=node))

    def result(self) -> Seen[Addr]:
        return Seen(self.transformer.bound(bound(self.addr)).addr)


@pytest.fixture
def daemonset() -> Iterator[Daemonset]:
    made = Daemonset()
    yield made
    if made.transformer.running:
        made.transformer.stopService()


def test_each_address_is_replaced_by_the_daemonsets_on_its_node(daemonset: Daemonset) -> None:
    daemonset.put("10.0.1.9", "10.0.2.9", "10.0.3.9")
    daemonset.addr.set(at("10.0.1.1", "10.0.1.2", "10.0.3.1"))
    assert hosts(daemonset.result().value) == ["10.0.1.9:4141", "10.0.3.9:4141"]


def test_ids_get_the_prefix_in_front(daemonset: Daemonset) -> None:
    seen = Seen(daemonset.transformer.transform(constant(Leaf(bound(daemonset.addr)))))
    tree = seen.value
    assert isinstance(tree, Leaf)
    assert tree.value.id == Path.read("/%/io.l5d.k8s.daemonset/default/incoming/l5d/#/io.l5d.k8s/default/http/web")
    assert Seen(daemonset.transformer.transform(constant(NEG))).value == NEG


def test_both_sides_are_followed(daemonset: Daemonset) -> None:
    daemonset.put("10.0.1.9")
    daemonset.addr.set(at("10.0.1.1"))
    seen = daemonset.result()
    daemonset.put("10.0.1.9", "10.0.2.9")
    daemonset.addr.set(at("10.0.2.1"))
    assert hosts(seen.value) == ["10.0.2.9:4141"]
    daemonset.put("10.0.2.8")
    assert hosts(seen.value) == ["10.0.2.8:4141"]


def test_nodes_without_a_pod_of_the_daemonset_leave_nothing(daemonset: Daemonset) -> None:
    daemonset.put("10.0.9.9")
    daemonset.addr.set(at("10.0.1.1"))
    assert daemonset.result().value == ADDR_NEG


def test_ipv6_addresses_are_in_no_network(daemonset: Daemonset) -> None:
    daemonset.put("2001:db8::9", "10.0.1.9")
    daemonset.addr.set(at("2001:db8::1"))
    assert daemonset.result().value == ADDR_NEG


def test_without_a_daemonset_the_addresses_stay(daemonset: Daemonset) -> None:
    daemonset.addr.set(at("10.0.1.1"))
    assert hosts(daemonset.result().value) == ["10.0.1.1:8080"]


def test_a_server_that_does_not_answer_leaves_the_addresses_and_is_told(daemonset: Daemonset) -> None:
    daemonset.transformer.stopService()
    down = Daemonset(is_started=False)
    down.cluster.agent.is_down = True
    down.transformer.startService()
    down.addr.set(at("10.0.1.1"))
    seen = down.result()
    assert hosts(seen.value) == ["10.0.1.1:8080"]
    assert "connection refused" in seen.error
    down.put("10.0.1.9")
    down.cluster.agent.is_down = False
    down.cluster.pass_time(6.0)
    assert hosts(seen.value) == ["10.0.1.9:4141"]
    assert not seen.error
    down.transformer.stopService()


def test_the_daemonsets_first_answer_is_waited_for(daemonset: Daemonset) -> None:
    """Else the first requests would go around it."""
    slow = Daemonset(is_started=False)
    slow.server.delay = 1.0
    slow.transformer.startService()
    slow.put("10.0.1.9")
    slow.addr.set(at("10.0.1.1"))
    seen = slow.result()
    assert isinstance(seen.last, Pending)
    slow.cluster.pass_time(1.5)
    assert hosts(seen.value) == ["10.0.1.9:4141"]
    slow.transformer.stopService()


def test_an_outage_keeps_the_daemonset(daemonset: Daemonset) -> None:
    daemonset.put("10.0.1.9")
    daemonset.addr.set(at("10.0.1.1"))
    seen = daemonset.result()
    daemonset.cluster.agent.is_down = True
    daemonset.server.end_watches(properly=False)
    daemonset.cluster.pass_time(20.0)
    assert hosts(seen.value) == ["10.0.1.9:4141"]
    assert "connection refused" in seen.error


@pytest.mark.parametrize("state", [PENDING, Failed(NamerError(detail="no")), Ok(ADDR_NEG)])
def test_a_name_that_has_no_addresses_passes_as_it_is(daemonset: Daemonset, state: Any) -> None:
    daemonset.put("10.0.1.9")
    daemonset.addr.put(state)
    assert daemonset.result().last == state


def test_with_host_network_nodes_are_told_apart_by_name() -> None:
    made = Daemonset(by_node=True)
    made.server.put("endpoints", endpoints("l5d", "192.0.2.1", ports={"incoming": 4141}, node="a"))
    made.addr.set(at("10.0.1.7", a="10.0.1.1", b="10.0.1.2"))
    seen = made.result()
    assert hosts(seen.value) == ["192.0.2.1:4141"]
    made.addr.set(at("192.0.2.1", b="192.0.2.1"))
    assert seen.value == ADDR_NEG
    made.transformer.stopService()


def test_the_daemonset_is_watched_from_the_start_until_the_end(daemonset: Daemonset) -> None:
    assert len(daemonset.server.streams) == 1
    daemonset.cluster.pass_time(120.0, step=1.0)
    assert len(daemonset.server.streams) == 1
    daemonset.transformer.stopService()
    assert not daemonset.server.streams


def test_the_daemonset_is_built_from_its_block() -> None:
    config = DaemonsetConfig(namespace="default", port="incoming", service="l5d", k8s_host="k8s", k8s_port=1)
    built = build_daemonset(config, runtime(Cluster().clock), {})
    assert built.bound(bound(constant(at()))).id[:5] == tuple(PREFIX)
    assert built.describe()["server"] == "http://k8s:1"
    assert built.can_delegate
    other = build_daemonset(attrs.evolve(config, prefix=Path.read("/mine")), runtime(Cluster().clock), {})
    assert other.bound(bound(constant(at()))).id[:2] == (b"%", b"mine")


# --- this node


def local(addr: Addr, *, host_network: bool = False, prefix: Path | None = None, **environment: str) -> tuple[Path, Addr]:
    transformer = build_localnode(LocalnodeConfig(host_network=host_network, prefix=prefix), runtime(Cluster().clock), environment)
    changed = transformer.bound(bound(constant(addr)))
    return changed.id, Seen(changed.addr).value


def test_addresses_in_the_pods_network_are_kept() -> None:
    id, addr = local(at("10.0.1.1", "10.0.2.1", "::ffff:10.0.1.7", "2001:db8::1"), POD_IP="10.0.1.200")
    assert id == Path.read("/%/io.l5d.k8s.localnode/10.0.1.200/#/io.l5d.k8s/default/http/web")
    assert hosts(addr) == ["10.0.1.1:8080", "[::ffff:10.0.1.7]:8080"]


def test_addresses_of_the_node_are_kept_with_host_network() -> None:
    id, addr = local(at("10.0.1.7", a="10.0.1.1", b="10.0.1.2"), host_network=True, NODE_NAME="b", POD_IP="10.0.1.200")
    assert id.startswith(Path.read("/%/io.l5d.k8s.localnode/b"))
    assert hosts(addr) == ["10.0.1.2:8080"]


def test_nothing_on_this_node_is_nothing() -> None:
    assert local(at("10.0.2.1"), POD_IP="10.0.1.200")[1] == ADDR_NEG
    assert local(at(), POD_IP="10.0.1.200")[1] == ADDR_NEG
    assert local(ADDR_NEG, POD_IP="10.0.1.200")[1] == ADDR_NEG


def test_a_prefix_of_ones_own_takes_the_place_of_the_default() -> None:
    assert local(at(), prefix=Path.read("/here"), POD_IP="10.0.1.200")[0].startswith(Path.read("/%/here/#"))


@pytest.mark.parametrize(
    ("host_network", "environment", "told"),
    [
        (False, {}, "POD_IP env variable must be set to the pod's IP; in the pod's manifest: .*fieldPath: status.podIP"),
        (False, {"POD_IP": " "}, "POD_IP env variable must be set"),
        (True, {"POD_IP": "10.0.0.1"}, "NODE_NAME env variable must be set to the node's name; .*fieldPath: spec.nodeName"),
        (False, {"POD_IP": "2001:db8::1"}, "only an IPv4 address is in a node's /24 network; use hostNetwork: true"),
    ],
)
def test_an_environment_that_does_not_say_where_we_are_refuses_the_start(
    host_network: bool, environment: dict[str, str], told: str
) -> None:
    with pytest.raises(NamerError, match=told):
        build_localnode(LocalnodeConfig(host_network=host_network), runtime(Cluster().clock), environment)


@pytest.mark.parametrize(
    ("host", "expected"), [("10.1.2.3", 0x0A0102), ("::ffff:10.1.2.3", 0x0A0102), ("2001:db8::1", None), ("web.example", None), ("", None)]
)
def test_the_network_of_an_address_is_its_first_24_bits(host: str, expected: int | None) -> None:
    assert network_of(host) == expected
