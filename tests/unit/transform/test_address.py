"""Transformers of replica sets (linkerd-config spec 8.3)."""

from __future__ import annotations

from random import Random
from typing import Any, cast

import pytest
from twisted.internet.task import Clock

from meshgw.core import interfaces
from meshgw.core.address import ADDR_NEG, Addr, Address, Bound, Replicas
from meshgw.core.live import PENDING, Failed, Live, Ok, Pending, Source, constant, current
from meshgw.kinds import Kind, Runtime
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, Leaf, NameTree, Union, Weighted
from meshgw.transform import address as transformers

ROOT = Path.of()


def nowhere(host: str, port: int) -> Live[Addr]:
    return Source()


def a_runtime(resolve: Any = None) -> Runtime:
    return Runtime(reactor=Clock(), metrics=cast(Any, None), random=Random(1), spawn=cast(Any, None), resolve=resolve or nowhere)


def build(kind: Kind, resolve: Any = None, **fields: Any) -> transformers.AddressTransformer:
    return cast(transformers.AddressTransformer, kind.build(kind.config(**fields), a_runtime(resolve)))


def replicas(*texts: str) -> Replicas:
    return Replicas(tuple(Address(host, int(port)) for host, _, port in (text.rpartition(":") for text in texts)))


def a_bound(addr: Live[Addr], residual: str = "/") -> Bound:
    return Bound(Path.read("/#/io.l5d.fs/web"), addr, Path.read(residual))


def addr_of(transformer: transformers.AddressTransformer, live: Live[Addr]) -> Addr:
    state = current(transformer.bound(a_bound(live)).addr)
    assert isinstance(state, Ok)
    return state.value


def test_port_is_replaced_and_equal_addresses_merge() -> None:
    port = build(transformers.PORT, port=4141)
    live = constant(cast(Addr, replicas("10.0.0.1:80", "10.0.0.1:81", "::1:80")))
    assert addr_of(port, live) == replicas("10.0.0.1:4141", "::1:4141")


def test_weight_survives_a_change_of_port() -> None:
    live = constant(cast(Addr, Replicas((Address("10.0.0.1", 80, 0.5),))))
    assert addr_of(build(transformers.PORT, port=1), live) == Replicas((Address("10.0.0.1", 1, 0.5),))


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        (transformers.PORT, {"port": 4141}, "/%/io.l5d.port/4141/#/io.l5d.fs/web"),
        (transformers.PORT, {"port": 4141, "prefix": Path.read("/mine")}, "/%/mine/#/io.l5d.fs/web"),
        (transformers.LOCALHOST, {}, "/%/io.l5d.localhost/#/io.l5d.fs/web"),
        (transformers.SPECIFIC_HOST, {"host": "127.0.0.1"}, "/%/io.l5d.specificHost/#/io.l5d.fs/web"),
    ],
)
def test_id_gets_the_prefix_and_the_residual_stays(kind: Kind, fields: dict[str, Any], expected: str) -> None:
    transformer = build(kind, **fields)
    bound = transformer.bound(a_bound(constant(replicas()), "/rest"))
    assert bound.id.show() == expected
    assert bound.residual == Path.read("/rest")
    assert transformer.can_delegate
    assert transformer.name == kind.id


def test_trees_keep_shape_and_transformers_stack_outwards() -> None:
    leaf = Leaf(a_bound(constant(replicas("10.0.0.1:80"))))
    tree: Live[NameTree[Bound]] = constant(Union((Weighted(0.5, leaf), Weighted(1.0, NEG))))
    state = current(build(transformers.LOCALHOST).transform(build(transformers.PORT, port=1).transform(tree)))
    assert isinstance(state, Ok)
    assert isinstance(state.value, Union)
    first, second = state.value.branches
    assert (first.weight, second.tree) == (0.5, NEG)
    assert isinstance(first.tree, Leaf)
    assert first.tree.value.id.show() == "/%/io.l5d.localhost/%/io.l5d.port/1/#/io.l5d.fs/web"


def test_an_update_that_changes_nothing_is_not_announced() -> None:
    source: Source[NameTree[Bound]] = Source()
    seen: list[object] = []
    build(transformers.PORT, port=1).transform(source).observe(seen.append)
    source.set(Leaf(a_bound(constant(replicas()))))
    source.put(Ok(Leaf(a_bound(constant(replicas()))), ValueError("stale")))
    source.set(NEG)
    assert [type(getattr(state, "value", None)).__name__ for state in seen] == ["NoneType", "Leaf", "Leaf", "Neg"]


def test_localhost_keeps_addresses_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "interface_addresses", lambda: frozenset({"127.0.0.1", "10.1.1.1", "fe80::1", "::1"}))
    local = build(transformers.LOCALHOST)
    live = constant(cast(Addr, replicas("10.1.1.1:80", "10.1.1.2:80", "fe80::1%eth0:80", "::ffff:10.1.1.1:80", "::1:81")))
    assert addr_of(local, live) == replicas("10.1.1.1:80", "fe80::1%eth0:80", "::ffff:10.1.1.1:80", "::1:81")


def test_a_filter_that_leaves_nothing_is_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "interface_addresses", lambda: frozenset({"127.0.0.1"}))
    local = build(transformers.LOCALHOST)
    assert addr_of(local, constant(replicas("10.1.1.2:80"))) == ADDR_NEG
    assert addr_of(local, constant(ADDR_NEG)) == ADDR_NEG
    assert current(local.bound(a_bound(Source())).addr) == PENDING


def test_specific_host_follows_the_name() -> None:
    dns: Source[Addr] = Source()
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> Live[Addr]:
        asked.append((host, port))
        return dns

    specific = build(transformers.SPECIFIC_HOST, resolve, host="node-1")
    seen: list[object] = []
    observation = specific.bound(a_bound(constant(replicas("10.0.0.1:80", "10.0.0.2:80", "::1:80")))).addr.observe(seen.append)
    assert asked == [("node-1", 0)]
    assert isinstance(seen[-1], Pending)
    dns.set(replicas("10.0.0.2:0"))
    assert seen[-1] == Ok(replicas("10.0.0.2:80"))
    dns.set(replicas("::1:0", "10.0.0.1:0"))
    assert seen[-1] == Ok(replicas("10.0.0.1:80", "::1:80"))
    dns.set(ADDR_NEG)
    assert seen[-1] == Ok(ADDR_NEG)
    observation.close()
    assert not dns.is_observed


def test_failed_lookup_of_the_specific_host_is_the_failure_of_the_set() -> None:
    error = ValueError("no answer")
    dns: Source[Addr] = Source(initial=Failed(error))
    specific = build(transformers.SPECIFIC_HOST, lambda host, port: dns, host="node-1")
    assert current(specific.bound(a_bound(constant(replicas("10.0.0.1:80")))).addr) == Failed(error)
