from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshgw.balance.nodes import ACCRUAL, Nodes
from meshgw.balance.round_robin import RoundRobin
from meshgw.core.address import Address
from simulator.endpoints import Plain

Make = Callable[..., Nodes[Any]]


def test_nodes_are_used_in_turn(nodes_for: Make, random: Random) -> None:
    picker, nodes = RoundRobin(random.random), nodes_for(count=4)
    used = [picker.pick(nodes) for _ in range(12)]
    assert used[:4] == used[4:8] == used[8:]
    assert len(set(used)) == 4


def test_a_weighted_split_is_even_within_a_round(nodes_for: Make, random: Random) -> None:
    picker, nodes = RoundRobin(random.random), nodes_for(1.0, 3.0)
    used = [node.address.weight for _ in range(40) if (node := picker.pick(nodes)) is not None]
    assert Counter(used) == {1.0: 10, 3.0: 30}
    light = [at for at, weight in enumerate(used) if weight == 1.0]
    assert {after - before for before, after in pairwise(light)} == {4}


def test_it_gives_up_after_as_many_nodes_as_its_effort(nodes_for: Make, random: Random) -> None:
    picker, nodes = RoundRobin(random.random, max_effort=2), nodes_for(count=4)
    for node in nodes.all()[:3]:
        node.mark(ACCRUAL, True)
    used = Counter(picker.pick(nodes) for _ in range(40))
    assert picker.exhausted > 0
    assert used[nodes.all()[3]] < 40


def test_an_update_does_not_begin_a_new_round(nodes_for: Make, address_list: Callable[..., list[Address]], random: Random) -> None:
    picker, nodes = RoundRobin(random.random), nodes_for(count=3)
    used: Counter[Any] = Counter()
    for _ in range(30):
        used[picker.pick(nodes)] += 1
        nodes.update(address_list(3))
    assert set(used.values()) == {10}


@given(st.dictionaries(st.sampled_from([0.5, 1.0, 2.0, 5.0]), st.integers(1, 5), min_size=1), st.integers(0, 100))
def test_every_node_gets_its_weight_over_full_rounds(sizes: dict[float, int], seed: int) -> None:
    nodes: Nodes[Plain] = Nodes(lambda _: Plain())
    weights = [weight for weight, size in sizes.items() for _ in range(size)]
    nodes.update([Address("10.0.0.1", port, weight) for port, weight in enumerate(weights)])
    picker = RoundRobin(Random(seed).random)
    rounds = int(sum(weights) * 2) * 4  # a whole number of rounds: each node its weight times eight
    used = Counter(picker.pick(nodes) for _ in range(rounds))
    for node in nodes.all():
        # The size of a class divides its turns, give or take the one that is under way.
        assert abs(used[node] - node.address.weight * 8) <= 2
