"""What every balancer does, and P2C."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from meshgw.balance.aperture import APERTURE, Aperture, LoadBand
from meshgw.balance.ewma import EWMA, PeakEwma
from meshgw.balance.heap import HEAP, HeapLeastLoaded
from meshgw.balance.nodes import ACCRUAL, Nodes, Picker
from meshgw.balance.pickers import P2C, P2cLeastLoaded
from meshgw.balance.round_robin import ROUND_ROBIN, RoundRobin
from meshgw.config.document import Chosen
from meshgw.core.address import Address

Make = Callable[..., Nodes[Any]]
MakePicker = Callable[[Random], Picker]

PICKERS: dict[str, MakePicker] = {
    "p2c": lambda random: P2cLeastLoaded(random.random),
    "ewma": lambda random: PeakEwma(random.random, lambda: 0.0, 10.0),
    "aperture": lambda random: Aperture(random.random, lambda: 0.0, LoadBand(least=10_000)),
    "heap": lambda random: HeapLeastLoaded(random.random),
    "roundRobin": lambda random: RoundRobin(random.random),
}
every_picker = pytest.mark.parametrize("make", list(PICKERS.values()), ids=list(PICKERS))


def send(picker: Picker, nodes: Nodes[Any], seconds: float | None = 0.01) -> Any:
    """One request, ended at once unless ``seconds`` is None."""
    node = picker.pick(nodes)
    assert node is not None
    node.load += 1
    if picker.on_begin is not None:
        picker.on_begin(node)
    if seconds is not None:
        node.load -= 1
        if picker.on_end is not None:
            picker.on_end(node, seconds, False)
    return node


@every_picker
def test_there_is_nothing_to_pick_without_nodes(make: MakePicker, nodes_for: Make, random: Random) -> None:
    picker, nodes = make(random), nodes_for()
    assert picker.pick(nodes) is None
    assert picker.exhausted == 0


@every_picker
def test_every_node_is_used_and_a_removed_one_is_not(
    make: MakePicker, nodes_for: Make, address_list: Callable[..., list[Address]], random: Random
) -> None:
    picker, nodes = make(random), nodes_for(count=5)
    assert {send(picker, nodes) for _ in range(500)} == set(nodes.all())
    nodes.update(address_list(2))
    assert {send(picker, nodes) for _ in range(200)} == set(nodes.all())
    nodes.update(address_list(7))
    assert {send(picker, nodes) for _ in range(500)} == set(nodes.all())


@every_picker
def test_unavailable_nodes_are_passed_over(make: MakePicker, nodes_for: Make, random: Random) -> None:
    picker, nodes = make(random), nodes_for(count=4)
    send(picker, nodes)
    dead = nodes.all()[:2]
    for node in dead:
        node.mark(ACCRUAL, True)
    used = Counter(send(picker, nodes) for _ in range(300))
    # A random balancer gives up after five draws: of pairs, one in six consists of the dead.
    assert sum(used[node] for node in dead) <= 3
    for node in dead:
        node.mark(ACCRUAL, False)
    assert {send(picker, nodes) for _ in range(300)} == set(nodes.all())


@every_picker
def test_when_all_are_unavailable_one_is_used_all_the_same_and_it_is_counted(make: MakePicker, nodes_for: Make, random: Random) -> None:
    picker, nodes = make(random), nodes_for(count=3)
    for node in nodes.all():
        node.mark(ACCRUAL, True)
    assert send(picker, nodes) in nodes.all()
    assert picker.exhausted == 1


@every_picker
def test_a_single_unavailable_node_is_used_and_counted(make: MakePicker, nodes_for: Make, random: Random) -> None:
    picker, nodes = make(random), nodes_for(count=1)
    nodes.all()[0].mark(ACCRUAL, True)
    assert send(picker, nodes) is nodes.all()[0]
    assert picker.exhausted == 1


@every_picker
def test_traffic_is_split_by_weight_and_size_of_the_classes(make: MakePicker, nodes_for: Make, random: Random) -> None:
    picker, nodes = make(random), nodes_for(1.0, 1.0, 4.0)
    used = Counter(send(picker, nodes).address.weight for _ in range(6000))
    assert used[4.0] / 6000 == pytest.approx(4 / 6, abs=0.03)


@every_picker
def test_a_dead_class_leaves_its_traffic_to_the_others(make: MakePicker, nodes_for: Make, random: Random) -> None:
    picker, nodes = make(random), nodes_for(1.0, 1.0, 1.0, 2.0)
    dead = nodes.all()[-1]
    dead.mark(ACCRUAL, True)
    used = Counter(send(picker, nodes) for _ in range(400))
    # Its class is drawn two times in five, and five times in a row for one request in a hundred.
    assert used[dead] <= 12


@pytest.mark.parametrize("count", [1, 2, 10_000])
@every_picker
def test_it_serves_one_node_and_ten_thousand(make: MakePicker, count: int, nodes_for: Make, random: Random) -> None:
    picker, nodes = make(random), nodes_for(count=count)
    used = {send(picker, nodes, None) for _ in range(count)}
    assert sum(node.load for node in nodes.all()) == count
    assert len(used) > count * 0.5


@pytest.mark.parametrize("make", [PICKERS["p2c"], PICKERS["aperture"]], ids=["p2c", "aperture"])
def test_of_two_nodes_the_less_loaded_is_used(make: MakePicker, nodes_for: Make, random: Random) -> None:
    picker, nodes = make(random), nodes_for(count=2)
    busy, idle = nodes.all()
    busy.load = 1
    assert {picker.pick(nodes) for _ in range(50)} == {idle}


def test_p2c_needs_to_be_told_nothing(random: Random) -> None:
    picker = P2cLeastLoaded(random.random)
    assert picker.on_begin is None
    assert picker.on_end is None


def test_p2c_draws_two_numbers_for_an_ordinary_pick(nodes_for: Make) -> None:
    drawn: list[float] = []

    def draw() -> float:
        drawn.append(0.3)
        return 0.3

    P2cLeastLoaded(draw).pick(nodes_for(count=9))
    assert len(drawn) == 2


class _Clock:
    def seconds(self) -> float:
        return 0.0


class _Runtime:
    reactor = _Clock()
    random = Random(1)


@pytest.mark.parametrize("kind", [P2C, EWMA, APERTURE, HEAP, ROUND_ROBIN], ids=lambda kind: str(kind.id))
def test_the_kinds_build_their_picker_with_probation(kind: Any, nodes_for: Make) -> None:
    chosen = Chosen(kind=kind, config=kind.config(enable_probation=True))
    picker = chosen.kind.build(chosen.config, _Runtime())
    assert picker.probation
    assert not kind.build(kind.config(), _Runtime()).probation
    assert picker.pick(nodes_for(count=3)) is not None
