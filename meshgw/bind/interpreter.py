"""The default interpreter: a dtab and the configured namers turn a logical name into a live tree of bound names.

Source: dtab spec 4.2, 5.3 and 5.4, linkerd-config spec 8.1 and 8.2. Explaining a name is in ``bind.delegate``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from meshgw.bind.delegate import delegated
from meshgw.bind.lookup import MAX_DEPTH, MAX_LEVELS, Answer, Lookups, Mounts, recomputed
from meshgw.config.document import Chosen, option
from meshgw.core.address import Addr, Bound, Replicas
from meshgw.core.live import Failed, Live, Ok, State, failed, live_map
from meshgw.errors import NamerError
from meshgw.kinds import Kind, Namer, Runtime, Transformer
from meshgw.naming.dtab import Delegation, Dtab
from meshgw.naming.path import Path
from meshgw.naming.tree import EMPTY, FAIL, NEG, Alt, Empty, Fail, Leaf, NameTree, Neg, Union, Weighted, union_of

TREE_WEIGHT_KEY: Final = "namer_nametree_weight"
TOO_DEEP: Final = f"Max recursion level: {MAX_DEPTH} reached in Namer lookup"

_NOTHING: Final[State[NameTree[Bound]]] = Ok(NEG)
_CONSTANTS: Final[Mapping[type, State[NameTree[Bound]]]] = {Neg: _NOTHING, Fail: Ok(FAIL), Empty: Ok(EMPTY)}


class DefaultInterpreter:
    """Binds names by the dtab it is given, then the namers, then the built-in names under ``/$``."""

    def __init__(self, namers: Sequence[tuple[Path, Namer]], builtin: Namer, *, transformers: Sequence[Transformer] = ()) -> None:
        """``namers`` in the order of the configuration, each with its whole prefix (``/#/...``); ``builtin`` answers ``/$``."""
        self._mounts = Mounts(namers, builtin)
        self._transformers = tuple(transformers)

    @property
    def can_delegate(self) -> bool:
        """Whether names can be explained; a transformer that invents names makes it impossible (linkerd-config spec 8.3)."""
        return all(transformer.can_delegate for transformer in self._transformers)

    def bind(self, dtab: Dtab, path: Path) -> Live[NameTree[Bound]]:
        """The live, simplified tree of bound names: leaves, unions, or one of the constants; no alternatives."""
        tree = recomputed(self._mounts, _Binding(dtab, path).compute)
        for transformer in self._transformers:
            tree = transformer.transform(tree)
        return tree

    def delegate(self, dtab: Dtab, path: Path) -> Live[Delegation]:
        """The live delegation tree; failed if a transformer makes it impossible."""
        if not self.can_delegate:
            names = ", ".join(type(transformer).__name__ for transformer in self._transformers if not transformer.can_delegate)
            return failed(NamerError(detail=f"delegations cannot be shown: the interpreter's transformers ({names}) replace names"))
        return delegated(self._mounts, self._transformers, dtab, path)


class _Binding:
    """The computation of one name's tree."""

    def __init__(self, dtab: Dtab, path: Path) -> None:
        self._dtab, self._path = dtab, path
        self._lookups: Lookups
        self._weighted: dict[tuple[int, float], Bound] = {}

    def compute(self, lookups: Lookups) -> State[NameTree[Bound]]:
        self._lookups = lookups
        return self._bind(Leaf(self._path), 0, None, 0)

    def _bind(self, tree: Answer, depth: int, weight: float | None, level: int) -> State[NameTree[Bound]]:
        while isinstance(tree, Leaf):
            value = tree.value
            if isinstance(value, Bound):
                return Ok(Leaf(value if weight is None else self._with_weight(value, weight)))
            if depth == MAX_DEPTH:
                return Failed(NamerError(detail=TOO_DEEP))
            self._lookups.step(value, len(self._dtab))
            tree = self._dtab.lookup(value)
            if isinstance(tree, Neg):  # no entry, or a single literal ``~``: only these leave the name to the namers
                state = self._lookups.answer(value)
                if not isinstance(state, Ok):
                    return state
                tree = state.value
            depth += 1
        if level == MAX_LEVELS:
            raise NamerError(detail=f"{self._path.show()}: more than {MAX_LEVELS} alternatives and unions within one another")
        if isinstance(tree, Alt):
            return self._bind_alt(tree, depth, weight, level + 1)
        if isinstance(tree, Union):
            return self._bind_union(tree, depth, level + 1)
        return _CONSTANTS[type(tree)]

    def _bind_alt(self, tree: Alt[Path | Bound], depth: int, weight: float | None, level: int) -> State[NameTree[Bound]]:
        for child in tree.trees:
            state = self._bind(child, depth, weight, level)
            if not isinstance(state, Ok) or not isinstance(state.value, Neg):
                return state  # a failed or pending branch does not fall over to the next; only neg does (dtab spec 5.4)
        return _NOTHING

    def _bind_union(self, tree: Union[Path | Bound], depth: int, level: int) -> State[NameTree[Bound]]:
        states: list[State[NameTree[Bound]]] = []
        for branch in tree.branches:  # a loop and not a comprehension, which would take a third call per level
            states.append(self._bind(branch.tree, depth, branch.weight, level))
        good = [Weighted(branch.weight, state.value) for branch, state in zip(tree.branches, states, strict=True) if isinstance(state, Ok)]
        if good:
            return Ok(union_of(good))
        # None is good: the first failure counts, and only without one do we wait. (A read union has two branches at least.)
        return next((state for state in states if isinstance(state, Failed)), states[0] if states else _NOTHING)

    def _with_weight(self, bound: Bound, weight: float) -> Bound:
        # The same object for the same answer, so that computing again does not look like new addresses.
        key = (id(bound.addr), weight)
        known = self._weighted.get(key)
        if known is None or known != bound:
            known = Bound(bound.id, live_map(bound.addr, lambda addr: _addr_with_weight(addr, weight)), bound.residual)
            self._weighted[key] = known
        return known


def _addr_with_weight(addr: Addr, weight: float) -> Addr:
    if not isinstance(addr, Replicas):
        return addr
    return attrs.evolve(addr, meta={**addr.meta, TREE_WEIGHT_KEY: weight})


@attrs.frozen(kw_only=True)
class DefaultConfig:
    """Binds names by the router's dtab and the configured namers."""

    transformers: tuple[Chosen, ...] = option(
        default=(), kinds="transformers", doc="Transformers of the bound names' replica sets, applied in the order given."
    )


def build_default(
    config: DefaultConfig,
    runtime: Runtime,
    *,
    namers: Sequence[tuple[Path, Namer]],
    builtin: Namer,
    transformers: Sequence[Transformer] = (),
) -> DefaultInterpreter:
    """The interpreter of a router; ``transformers`` are those of ``config``, built."""
    return DefaultInterpreter(namers, builtin, transformers=transformers)


KIND = Kind(id="default", config=DefaultConfig, build=build_default)
