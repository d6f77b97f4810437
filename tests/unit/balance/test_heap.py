from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshgw.balance.heap import HeapLeastLoaded
from meshgw.balance.nodes import ACCRUAL, Node, Nodes
from meshgw.core.address import Address
from simulator.endpoints import Plain

Make = Callable[..., Nodes[Any]]


def check(nodes: Nodes[Any]) -> None:
    """Each weight class is a heap that knows the places of its nodes."""
    for _, members in nodes.classes:
        heap = members[0].home.nodes
        assert sorted(id(node) for node in heap) == sorted(id(node) for node in members)
        for position, node in enumerate(heap):
            assert node.position == position
            assert heap[(position - 1) // 2].rank <= node.rank or not position


def test_the_least_loaded_of_all_is_used(nodes_for: Make, random: Random) -> None:
    picker, nodes = HeapLeastLoaded(random.random), nodes_for(count=50)
    for index, node in enumerate(nodes.all()):
        node.load = 100 - index
    assert picker.pick(nodes) is nodes.all()[-1]


def test_idle_nodes_take_turns(nodes_for: Make, random: Random) -> None:
    picker, nodes = HeapLeastLoaded(random.random), nodes_for(count=7)
    used: Counter[Any] = Counter()
    for _ in range(70):
        node = picker.pick(nodes)
        assert node is not None
        assert picker.on_begin is not None
        assert picker.on_end is not None
        node.load += 1
        picker.on_begin(node)
        node.load -= 1
        picker.on_end(node, 0.1, False)
        used[node] += 1
    assert set(used.values()) == {10}


def test_gateways_do_not_begin_with_the_same_endpoint(nodes_for: Make) -> None:
    nodes = nodes_for(count=10)
    begun = [HeapLeastLoaded(Random(seed).random).pick(nodes_for(count=10)) for seed in range(20)]
    assert len({node.address for node in begun if node is not None}) > len(nodes) / 3


def test_a_node_that_recovers_is_used_again(nodes_for: Make, random: Random) -> None:
    picker, nodes = HeapLeastLoaded(random.random), nodes_for(count=3)
    picker.pick(nodes)
    one, *others = nodes.all()
    for node in others:
        node.load = 5
        node.home.settle(node)
    one.mark(ACCRUAL, True)
    assert picker.pick(nodes) in others
    one.mark(ACCRUAL, False)
    assert picker.pick(nodes) is one


steps = st.lists(
    st.tuples(st.sampled_from(["pick", "end", "jump", "status", "update"]), st.integers(0, 2**8 - 1), st.integers(0, 40)), max_size=80
)


@given(steps)
def test_the_heap_stays_a_heap_whatever_happens_to_loads_and_nodes(history: list[tuple[str, int, int]]) -> None:
    picker = HeapLeastLoaded(Random(1).random)
    assert picker.on_begin is not None
    assert picker.on_end is not None
    nodes: Nodes[Plain] = Nodes(lambda _: Plain())
    nodes.update([Address("10.0.0.1", port) for port in range(8)])
    under_way: list[Node[Any]] = []
    for step, number, amount in history:
        if step == "update":
            nodes.update([Address("10.0.0.1", port, 1.0 + port % 2) for port in range(8) if number >> port & 1])
        elif step == "end" and under_way:
            node = under_way.pop(number % len(under_way))
            node.load -= 1
            picker.on_end(node, 0.1, False)
        elif step == "jump" and nodes.all():
            node = nodes.all()[number % len(nodes)]
            before, node.load = node.load, max(amount, under_way.count(node))
            under_way += [node] * (node.load - before)
            for _ in range(before - node.load):
                under_way.remove(node)
            picker.on_end(node, 0.1, False)
        elif step == "status" and nodes.all():
            nodes.all()[number % len(nodes)].mark(ACCRUAL, amount % 2 == 0)
        picked = picker.pick(nodes)
        check(nodes)
        if picked is not None and len(nodes.classes) == 1:
            assert picked.load == min(node.load for node in nodes.all() if node.is_available or not picked.is_available)
        if step == "pick" and picked is not None:
            picked.load += 1
            picker.on_begin(picked)
            under_way.append(picked)
            check(nodes)
        assert all(node.load >= 0 for node in [*nodes.all(), *under_way])
