"""The nodes of one bound name under updates: endpoints with their load, their status, and which may be picked.

Source: linkerd-config spec 4.6 and 10.8 (probation); dtab spec 1. A node keeps its identity, and so its load and its connections, while
its address stays in the set. A removed node finishes what it has under way, and is the same node again if its address returns before that.
What an endpoint is made of is the owner's business (:class:`Endpoint`); who is chosen is a :class:`Picker`'s.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

from meshgw.core.address import Address

POOL, ACCRUAL, FAIL_FAST = "pool", "accrual", "failFast"
"""Why a node is busy: all connections and waiting places are taken, it failed too often, it could not be connected to."""


class Status(enum.Enum):
    """What a balancer knows of a node."""

    OPEN = "open"
    BUSY = "busy"
    CLOSED = "closed"


class Endpoint(Protocol):
    """What stands behind a node."""

    def attach(self, node: Node[Any]) -> None:
        """It stands behind ``node`` from now on, and tells through :meth:`Node.mark` when a request sent there has no chance."""
        ...

    def retire(self) -> None:
        """The address was removed: close what is idle, let the rest finish."""
        ...

    def revive(self) -> None:
        """The address is back before the rest had finished: go on as if nothing had happened."""
        ...


E = TypeVar("E", bound=Endpoint)


class Node(Generic[E]):
    """One endpoint in a balancer.

    ``load`` is its number of requests under way: whoever sends a request there adds one, calls the picker's ``on_begin``, and in the end
    takes it off and calls ``on_end``. ``is_available`` is a plain attribute, since every pick reads it; only :meth:`mark` and the node set
    write it. The last row of slots is the picker's: its group and place there, its key, and what it learnt of the node's latency.
    """

    __slots__ = (
        *("_changed", "_holds", "address", "endpoint", "is_available", "is_on_probation", "is_retired", "load"),
        *("cost", "counted", "home", "order", "position", "rank", "stamp"),
    )

    def __init__(self, address: Address, endpoint: E, changed: Callable[[Node[E]], None] | None = None) -> None:
        """``changed`` is told when ``is_available`` has changed."""
        self.address, self.endpoint, self._changed = address, endpoint, changed
        self._holds: frozenset[str] = frozenset()
        self.load = 0
        self.is_available = True
        self.is_retired = self.is_on_probation = False
        self.home: Any = None
        self.position, self.rank, self.order, self.counted = -1, 0, 0, 0
        self.cost = self.stamp = 0.0

    @property
    def status(self) -> Status:
        """OPEN when requests may be sent there, BUSY when they should not for now, CLOSED when its address was removed."""
        if self.is_retired:
            return Status.CLOSED
        return Status.OPEN if self.is_available else Status.BUSY

    @property
    def holds(self) -> list[str]:
        """The causes for which it is busy."""
        return sorted(self._holds)

    @property
    def is_healthy(self) -> bool:
        """Whether nothing but its own load speaks against it."""
        return not self.is_retired and self._holds <= {POOL}

    def mark(self, cause: str, held: bool) -> None:
        """Make the node busy for ``cause``, or end that; it is available when no cause is left."""
        holds = self._holds | {cause} if held else self._holds - {cause}
        if holds != self._holds:
            self._holds = holds
            self._weigh()

    def retire(self) -> None:
        """Its address is gone."""
        self.is_retired, self.is_on_probation, self.is_available = True, False, False
        self.endpoint.retire()

    def revive(self) -> None:
        """Its address is back."""
        self.is_retired = False
        self.is_available = not self._holds
        self.endpoint.revive()

    def _weigh(self) -> None:
        before, self.is_available = self.is_available, not self._holds and not self.is_retired
        # A node on probation that was busy by its load alone may turn ill without a change of its availability.
        if self._changed is not None and (before is not self.is_available or self.is_on_probation):
            self._changed(self)


OnBegin = Callable[[Node[Any]], None]
OnEnd = Callable[[Node[Any], float, bool], None]


class Picker(Protocol):
    """Chooses the node of a request. One picker serves one node set.

    ``on_begin(node)`` is called after a request was added to the node's load, ``on_end(node, seconds, failed)`` after it was taken off;
    either is None when the picker does not need it, so that it costs nothing. ``exhausted`` counts picks that found no available node,
    ``algorithm`` is the name in the metrics, and ``probation`` is to be given to :class:`Nodes`.
    """

    @property
    def algorithm(self) -> str:
        """The name of the gauge that tells which balancer it is."""
        ...

    @property
    def exhausted(self) -> int:
        """How often an unavailable node had to be taken."""
        ...

    @property
    def probation(self) -> bool:
        """Whether a removed endpoint is used on while it is healthy."""
        ...

    @property
    def on_begin(self) -> OnBegin | None:
        """What to call when a request begins."""
        ...

    @property
    def on_end(self) -> OnEnd | None:
        """What to call when a request ended, with the seconds it took and whether it failed."""
        ...

    def pick(self, nodes: Nodes[E]) -> Node[E] | None:
        """The node to use, or None when there are none."""
        ...


class Nodes(Generic[E]):
    """The node set: :meth:`update` replaces the addresses, ``classes`` groups what can be picked by weight.

    ``classes`` is a tuple of (share of the traffic, nodes), replaced as a whole and never changed in place, so that a picker sees by its
    identity that it has to look anew. ``on_status`` is set by a picker that wants to know when a node of the set becomes available or
    unavailable. With ``probation`` a removed address is advice: its node stays until it is not healthy any more.
    """

    __slots__ = (
        *("_by_address", "_by_weight", "_is_plain", "_leaving", "_make", "_probation", "_told"),
        *("adds", "classes", "on_status", "rebuilds", "removes", "updates"),
    )

    def __init__(self, make: Callable[[Address], E], *, probation: bool = False) -> None:
        self._make, self._probation = make, probation
        self._by_address: dict[tuple[str, int], Node[E]] = {}
        self._by_weight: dict[float, dict[Node[E], None]] = {}
        # Removed, with requests under way. Those that have finished are forgotten at the next update.
        self._leaving: dict[tuple[str, int], Node[E]] = {}
        # The addresses of the last update by identity, and whether each is that of a node of its own.
        self._told: dict[int, Address] = {}
        self._is_plain = False
        self.classes: tuple[tuple[float, tuple[Node[E], ...]], ...] = ()
        self.on_status: Callable[[Node[Any]], None] | None = None
        self.adds = self.removes = self.updates = self.rebuilds = 0

    def __len__(self) -> int:
        return len(self._by_address)

    def all(self) -> list[Node[E]]:
        """The present nodes, those on probation included."""
        return list(self._by_address.values())

    def leaving(self) -> list[Node[E]]:
        """The nodes that were removed and have requests under way."""
        return [node for node in self._leaving.values() if node.load > 0]

    def update(self, addresses: Iterable[Address]) -> bool:
        """Make the set consist of ``addresses``; nodes whose address stays are kept, with a new weight if it changed.

        True when an address came or went, and not only weights or nothing at all changed. Those that are the same objects as before cost
        next to nothing.
        """
        self.updates += 1
        if self._leaving:
            self._leaving = {key: node for key, node in self._leaving.items() if node.load > 0}
        addresses = tuple(addresses)
        before, told = self._told, {id(address): address for address in addresses}
        is_plain, self._is_plain, self._told = self._is_plain, False, told  # should an endpoint not let itself be made, all is done anew
        is_changed = False
        if is_plain:
            fresh = [address for id, address in told.items() if id not in before]
            gone = [address for id, address in before.items() if id not in told]
            is_changed = self._change(fresh, gone)
            is_plain = len(told) == len(self._by_address)
        if not is_plain:
            is_changed |= self._replace(addresses)
        self._is_plain = len(told) == len(self._by_address) and not self._probation
        return is_changed

    def _change(self, fresh: list[Address], gone: list[Address]) -> bool:
        """Of addresses that are all different, these came and went; one may have come with another weight."""
        if not fresh and not gone:
            return False
        nodes, entering, leaving = self._by_address, {(one.host, one.port): one for one in fresh}, []
        for address in gone:
            key = (address.host, address.port)
            if key not in entering:
                node = nodes.pop(key)
                self._by_weight[_weight(node.address)].pop(node)
                leaving.append((key, node))
        is_changed = bool(leaving)
        for key, address in entering.items():
            known = nodes.get(key)
            if known is None:
                known, is_changed = self._enter(key, address), True
                nodes[key] = known
            else:
                self._by_weight[_weight(known.address)].pop(known)
            known.address = address
            self._by_weight.setdefault(_weight(address), {})[known] = None
        self._share()
        for key, node in leaving:
            self._leave(key, node)
        return is_changed

    def _replace(self, addresses: Iterable[Address]) -> bool:
        """Look at every address, of which some may be alike, and with probation at every node."""
        is_changed = False
        before = self._by_address
        now: dict[tuple[str, int], Node[E]] = {}
        for address in addresses:
            key = (address.host, address.port)
            node = before.pop(key, None) or now.get(key)
            if node is None:
                node, is_changed = self._enter(key, address), True
            is_changed |= node.is_on_probation
            node.address, node.is_on_probation = address, False
            now[key] = node
        removed = []
        for key, node in before.items():
            is_changed |= not node.is_on_probation
            if self._probation and node.is_healthy:
                node.is_on_probation = True
                now[key] = node
            else:
                removed.append((key, node))
        self._by_address = now
        self._rebuild()
        for key, node in removed:
            self._leave(key, node)
        return is_changed

    def close(self) -> None:
        """Retire every node."""
        before, self._by_address, self.classes = self._by_address, {}, ()
        self._by_weight, self._told, self._is_plain = {}, {}, False
        for key, node in before.items():
            self._leave(key, node)

    def unreachable(self, node: Node[E]) -> None:
        """No connection to the node could be had: on probation, that ends its stay even where nothing counts its failures."""
        if node.is_on_probation:
            self._drop(node)

    def _enter(self, key: tuple[str, int], address: Address) -> Node[E]:
        self.adds += 1
        node = self._leaving.pop(key, None)
        if node is not None:
            node.revive()
            return node
        node = Node(address, self._make(address), self._changed)
        node.endpoint.attach(node)
        return node

    def _leave(self, key: tuple[str, int], node: Node[E]) -> None:
        self.removes += 1
        if node.load > 0:
            self._leaving[key] = node
        node.retire()

    def _changed(self, node: Node[E]) -> None:
        if node.is_on_probation and not node.is_healthy:
            self._drop(node)
        elif self.on_status is not None:
            self.on_status(node)

    def _rebuild(self) -> None:
        self._by_weight = {}
        for node in self._by_address.values():
            self._by_weight.setdefault(_weight(node.address), {})[node] = None
        self._share()

    def _share(self) -> None:
        """Make the classes anew; the share of one is weight x size of the sum. One of weight 0 is picked only when there are no others."""
        self.rebuilds += 1
        by_weight = {weight: members for weight, members in sorted(self._by_weight.items()) if members}
        if len(by_weight) > 1:
            by_weight.pop(0.0, None)
        total = sum(weight * len(members) for weight, members in by_weight.items())
        self.classes = tuple((weight * len(members) / total if total else 1.0, tuple(members)) for weight, members in by_weight.items())
        if len(self._by_weight) > len(by_weight) + 1:
            self._by_weight = {weight: members for weight, members in self._by_weight.items() if members}

    def _drop(self, node: Node[E]) -> None:
        key = (node.address.host, node.address.port)
        if self._by_address.get(key) is node:
            del self._by_address[key]
            self._rebuild()
            self._leave(key, node)


def _weight(address: Address) -> float:
    return max(0.0, address.weight)
