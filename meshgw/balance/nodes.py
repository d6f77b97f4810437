"""The nodes of one bound name under updates: endpoints with their load, and which may be picked.

Source: linkerd-config spec 4.6; dtab spec 1. A node keeps its identity, and so its load and its connections, while its address stays in the
set; a removed node finishes what it has under way. What an endpoint is made of is the owner's business (``Endpoint``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from meshgw.core.address import Address


class Endpoint(Protocol):
    """What stands behind a node."""

    def retire(self) -> None:
        """The address was removed: close what is idle, let the rest finish."""
        ...

    @property
    def is_available(self) -> bool:
        """Whether a request sent there has a chance now."""
        ...


E = TypeVar("E", bound=Endpoint)


class Node(Generic[E]):
    """One endpoint in a balancer: ``load`` is its number of requests under way."""

    __slots__ = ("address", "endpoint", "load", "picks")

    def __init__(self, address: Address, endpoint: E) -> None:
        self.address, self.endpoint = address, endpoint
        self.load = 0
        self.picks = 0


class Nodes(Generic[E]):
    """The node set: ``update`` replaces the addresses, ``classes`` groups what can be picked by weight.

    ``classes`` is a tuple of (share of the traffic, nodes), replaced as a whole at each update and never changed in place.
    """

    __slots__ = ("_by_address", "_make", "adds", "classes", "removes", "updates")

    def __init__(self, make: Callable[[Address], E]) -> None:
        self._make = make
        self._by_address: dict[tuple[str, int], Node[E]] = {}
        self.classes: tuple[tuple[float, tuple[Node[E], ...]], ...] = ()
        self.adds = self.removes = self.updates = 0

    def __len__(self) -> int:
        return len(self._by_address)

    def all(self) -> list[Node[E]]:
        """The present nodes."""
        return list(self._by_address.values())

    def update(self, addresses: Iterable[Address]) -> None:
        """Make the set consist of ``addresses``; nodes whose address stays are kept, with a new weight if it changed."""
        self.updates += 1
        before, now = self._by_address, {}
        for address in addresses:
            key = (address.host, address.port)
            node = before.pop(key, None) or now.get(key)
            if node is None:
                node = Node(address, self._make(address))
                self.adds += 1
            else:
                node.address = address
            now[key] = node
        self._by_address = now
        for node in before.values():
            self.removes += 1
            node.endpoint.retire()
        self.classes = _classes(now.values())

    def close(self) -> None:
        """Retire every node."""
        self.update(())


def _classes(nodes: Iterable[Node[E]]) -> tuple[tuple[float, tuple[Node[E], ...]], ...]:
    """Nodes by weight; a class's share is weight x size of the sum. Nodes of weight 0 are picked only when there are no others."""
    by_weight: dict[float, list[Node[E]]] = {}
    for node in nodes:
        by_weight.setdefault(max(0.0, node.address.weight), []).append(node)
    if len(by_weight) > 1:
        by_weight.pop(0.0, None)
    total = sum(weight * len(members) for weight, members in by_weight.items())
    if not total:
        return tuple((1.0, tuple(members)) for members in by_weight.values())
    return tuple((weight * len(members) / total, tuple(members)) for weight, members in sorted(by_weight.items()))
