"""A name looked up in a namer and observed, with what it leads to; and what namers are built with, under a clock."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.task import Clock

from meshgw.core.address import Addr, Address, Bound, Replicas
from meshgw.core.live import Live, Observation, Ok, Pending, State, constant
from meshgw.kinds import Namer, Runtime
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, Leaf, NameTree
from meshgw.telemetry.metrics import Metrics


def literal(host: str, port: int) -> Live[Addr]:
    """Every host is its own address."""
    return constant(Replicas((Address(host, port),)))


def runtime(clock: Clock, resolve: Callable[[str, int], Live[Addr]] = literal) -> Runtime:
    """What a namer is built with."""
    return Runtime(reactor=clock, metrics=Metrics(), random=Random(3), spawn=_no_spawn, resolve=resolve)


def _no_spawn(*_arguments: Any) -> Callable[[], None]:
    raise AssertionError("namers run their own coroutines")


class Looked:
    """A name that is observed until :meth:`close`. ``trees`` counts how often whoever follows the tree was told of a state."""

    def __init__(self, namer: Namer, name: str) -> None:
        self.state: State[NameTree[Path | Bound]] = Pending()
        self.addr: State[Addr] = Pending()
        self.trees = 0
        self._held: Observation | None = None
        self._bound: Bound | None = None
        self._observation = namer.lookup(Path.read(name)).observe(self._tree)

    def _tree(self, state: State[NameTree[Path | Bound]]) -> None:
        self.state = state
        self.trees += 1
        leaf = state.value if isinstance(state, Ok) else None
        bound = leaf.value if isinstance(leaf, Leaf) and isinstance(leaf.value, Bound) else None
        if bound is not self._bound:
            held, self._bound = self._held, bound
            self._held = None if bound is None else bound.addr.observe(self._addr)
            if held is not None:
                held.close()

    def _addr(self, state: State[Addr]) -> None:
        self.addr = state

    @property
    def is_neg(self) -> bool:
        """Whether there is no such name."""
        return isinstance(self.state, Ok) and self.state.value == NEG

    @property
    def error(self) -> str:
        """Why there is no state, or only an old one; empty if all is well."""
        return str(getattr(self.state, "error", None) or "")

    @property
    def bound(self) -> Bound:
        """What it is bound to."""
        assert self._bound is not None, self.state
        return self._bound

    @property
    def addresses(self) -> list[str]:
        """The addresses it is bound to."""
        assert self._bound is not None, self.state
        assert isinstance(self.addr, Ok), self.addr
        return [address.show() for address in self.addr.value.addresses] if isinstance(self.addr.value, Replicas) else []

    def close(self) -> None:
        """Look no more."""
        if self._held is not None:
            self._held.close()
        self._observation.close()
