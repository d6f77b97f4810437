"""Nodes over endpoints that only remember what they were told."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import attrs
import pytest

from meshgw.balance.nodes import Node, Nodes
from meshgw.core.address import Address


@attrs.define(eq=False)
class Remembering:
    """An endpoint."""

    address: Address
    node: Node[Any] | None = None
    told: list[str] = attrs.field(factory=list)

    def attach(self, node: Node[Any]) -> None:
        self.node = node

    def retire(self) -> None:
        self.told.append("retire")

    def revive(self) -> None:
        self.told.append("revive")


NodesFor = Callable[..., Nodes[Remembering]]


@pytest.fixture
def nodes_for() -> NodesFor:
    """A node set of so many addresses of weight 1, or of the given weights."""

    def make(*weights: float, count: int = 0, probation: bool = False) -> Nodes[Remembering]:
        nodes = Nodes(Remembering, probation=probation)
        nodes.update(addresses(count, *weights))
        return nodes

    return make


def addresses(count: int, *weights: float) -> list[Address]:
    return [Address(f"10.0.{index // 250}.{index % 250}", 80, weight) for index, weight in enumerate([1.0] * count + list(weights))]


@pytest.fixture
def address_list() -> Callable[..., list[Address]]:
    """So many addresses of weight 1, then some of the given weights."""
    return addresses


@pytest.fixture
def random() -> Random:
    return Random(5)
