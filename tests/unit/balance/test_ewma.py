from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from meshgw.balance.ewma import PENALTY, PeakEwma
from meshgw.balance.nodes import Node, Nodes
from meshgw.core.address import Address

Make = Callable[..., Nodes[Any]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def picker(clock: Clock, random: Random) -> PeakEwma:
    return PeakEwma(random.random, clock.seconds, 10.0)


def ended(picker: PeakEwma, node: Node[Any], seconds: float) -> None:
    assert picker.on_end is not None
    picker.on_end(node, seconds, False)


def test_a_slower_answer_counts_in_full_at_once(picker: PeakEwma, nodes_for: Make) -> None:
    (node,) = nodes_for(count=1).all()
    ended(picker, node, 0.1)
    ended(picker, node, 0.7)
    assert picker.load(node) == 0.7


def test_a_faster_answer_counts_by_the_time_since_the_last(picker: PeakEwma, clock: Clock, nodes_for: Make) -> None:
    (node,) = nodes_for(count=1).all()
    ended(picker, node, 1.0)
    clock.advance(5.0)
    ended(picker, node, 0.2)
    kept = math.exp(-0.5)
    assert picker.load(node) == pytest.approx(kept + 0.2 * (1 - kept))


def test_the_cost_decays_while_the_node_is_idle(picker: PeakEwma, clock: Clock, nodes_for: Make) -> None:
    (node,) = nodes_for(count=1).all()
    ended(picker, node, 1.0)
    clock.advance(10.0)
    assert picker.load(node) == pytest.approx(math.exp(-1))


def test_the_load_is_the_cost_times_what_would_be_under_way(picker: PeakEwma, nodes_for: Make) -> None:
    (node,) = nodes_for(count=1).all()
    ended(picker, node, 0.5)
    node.load = 3
    assert picker.load(node) == 2.0


def test_a_new_node_gets_one_request_until_that_is_answered(picker: PeakEwma, nodes_for: Make) -> None:
    nodes = nodes_for(count=2)
    known, new = nodes.all()
    ended(picker, known, 0.5)
    assert picker.load(new) == 0.0
    assert picker.pick(nodes) is new
    new.load += 1
    assert picker.load(new) > PENALTY
    assert picker.pick(nodes) is known


def test_an_answer_too_fast_for_the_clock_is_history(picker: PeakEwma, nodes_for: Make) -> None:
    (node,) = nodes_for(count=1).all()
    node.load = 1
    ended(picker, node, 0.0)
    assert picker.load(node) < 1e-6


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 30)), min_size=1, max_size=30))
def test_the_cost_lies_between_the_fastest_and_the_slowest_answer(answers: list[tuple[float, float]]) -> None:
    clock = Clock()
    picker = PeakEwma(Random(1).random, clock.seconds, 10.0)
    node: Node[Any] = Node(Address("10.0.0.1", 80), None)  # type: ignore[type-var]
    for pause, seconds in answers:
        clock.advance(pause)
        ended(picker, node, seconds)
    times = [seconds for _, seconds in answers]
    assert min(times) * 0.999_999 <= node.cost <= max(max(times), 1e-9) * 1.000_001
