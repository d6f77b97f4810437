from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from meshgw.balance.aperture import Aperture, ApertureConfig, LoadBand
from meshgw.balance.nodes import ACCRUAL, Node, Nodes
from meshgw.core.address import Address
from simulator.endpoints import Plain

Make = Callable[..., Nodes[Any]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def aperture(clock: Clock, seed: int = 1, **limits: Any) -> Aperture:
    return Aperture(Random(seed).random, clock.seconds, LoadBand(**limits))


def begin(picker: Aperture, nodes: Nodes[Any]) -> Node[Any]:
    node = picker.pick(nodes)
    assert node is not None
    assert picker.on_begin is not None
    node.load += 1
    picker.on_begin(node)
    return node


def end(picker: Aperture, node: Node[Any]) -> None:
    assert picker.on_end is not None
    node.load -= 1
    picker.on_end(node, 0.1, False)


def inside(picker: Aperture, nodes: Nodes[Any]) -> set[Node[Any] | None]:
    return {picker.pick(nodes) for _ in range(300)}


def test_only_the_least_aperture_is_used_at_first(clock: Clock, nodes_for: Make) -> None:
    assert len(inside(aperture(clock), nodes_for(count=20))) == 1
    assert len(inside(aperture(clock, least=4), nodes_for(count=20))) == 4
    assert len(inside(aperture(clock, least=4), nodes_for(count=2))) == 2


def test_a_sustained_load_widens_it_and_quiet_narrows_it(clock: Clock, nodes_for: Make) -> None:
    picker, nodes = aperture(clock, least=2), nodes_for(count=20)
    under_way = [begin(picker, nodes) for _ in range(24)]
    for _ in range(200):
        clock.advance(0.5)
        end(picker, under_way.pop(0))
        under_way.append(begin(picker, nodes))
    assert 12 <= picker.width <= 14
    while under_way:
        end(picker, under_way.pop())
    for _ in range(100):
        clock.advance(0.5)
        end(picker, begin(picker, nodes))
    assert picker.width == 2


def test_it_widens_by_one_with_each_request_and_not_beyond_the_set(clock: Clock, nodes_for: Make) -> None:
    picker, nodes = aperture(clock, window=0.001), nodes_for(count=3)
    widths = []
    for _ in range(20):
        begin(picker, nodes)
        clock.advance(1.0)
        widths.append(picker.width)
    assert {after - before for before, after in zip(widths, widths[1:], strict=False)} <= {0, 1}
    assert widths[-1] == 3


def test_an_unavailable_node_is_replaced_until_it_has_recovered(clock: Clock, nodes_for: Make) -> None:
    picker, nodes = aperture(clock, least=3), nodes_for(count=10)
    before = inside(picker, nodes)
    dead = next(node for node in nodes.all() if node in before)
    dead.mark(ACCRUAL, True)
    replaced = inside(picker, nodes)
    assert len(replaced) == 3
    assert dead not in replaced
    dead.mark(ACCRUAL, False)
    assert inside(picker, nodes) == before
    assert picker.exhausted == 0


def test_the_order_is_stable_over_updates_and_differs_between_gateways(
    clock: Clock, nodes_for: Make, address_list: Callable[..., list[Address]]
) -> None:
    picker, nodes = aperture(clock, least=3), nodes_for(count=10)
    before = {node.address for node in inside(picker, nodes) if node}
    nodes.update([])
    inside(picker, nodes)
    nodes.update(reversed(address_list(10)))
    assert {node.address for node in inside(picker, nodes) if node} == before
    others = {frozenset(node.address for node in inside(aperture(clock, seed, least=3), nodes_for(count=10)) if node) for seed in range(10)}
    assert len(others) > 5


def test_an_update_keeps_the_aperture_within_the_new_set(clock: Clock, nodes_for: Make, address_list: Callable[..., list[Address]]) -> None:
    picker, nodes = aperture(clock, window=0.001), nodes_for(count=10)
    for _ in range(40):
        begin(picker, nodes)
        clock.advance(1.0)
    assert picker.width == 10
    nodes.update(address_list(4))
    picker.pick(nodes)
    assert picker.width == 4


def test_the_limits_of_the_load_are_checked() -> None:
    with pytest.raises(ValueError, match="lowLoad must be below highLoad"):
        ApertureConfig(low_load=2.0, high_load=1.0)


steps = st.lists(
    st.tuples(st.sampled_from(["begin", "end", "status", "update", "wait"]), st.integers(0, 2**8 - 1), st.booleans()), max_size=80
)


@given(steps, st.integers(1, 10))
def test_width_and_totals_hold_whatever_happens(history: list[tuple[str, int, bool]], least: int) -> None:
    clock = Clock()
    picker = aperture(clock, least=least, window=1.0)
    nodes: Nodes[Plain] = Nodes(lambda _: Plain())
    nodes.update([Address("10.0.0.1", port) for port in range(8)])
    under_way: list[Node[Any]] = []
    for step, number, flag in history:
        if step == "update":
            nodes.update([Address("10.0.0.1", port, 1.0 + port % 2) for port in range(8) if number >> port & 1])
        elif step == "begin" and len(nodes):
            under_way.append(begin(picker, nodes))
        elif step == "end" and under_way:
            end(picker, under_way.pop(number % len(under_way)))
        elif step == "status" and len(nodes):
            nodes.all()[number % len(nodes)].mark(ACCRUAL, flag)
        elif step == "wait":
            clock.advance(number / 100)
        if picker.pick(nodes) is None:
            continue
        for _, members in nodes.classes:
            band = members[0].home
            assert [node.rank for node in band.up] == sorted(node.rank for node in members if node.is_available)
            assert [node.rank for node in band.down] == sorted(node.rank for node in members if not node.is_available)
            assert band.total == sum(node.load for node in members) >= 0
            assert min(least, len(members)) <= band.width <= len(members)
            assert band.average >= 0
