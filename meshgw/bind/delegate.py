"""The delegation of a name: like binding, but every alternative is followed and every step is recorded.

Source: dtab spec 6. Nodes are simplified as they are made: a step to the same path collapses, one branch is no choice, and
alternatives of the same path lie flat. JSON and text of the outcome are in ``bind.explain``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import attrs

from meshgw.bind.lookup import MAX_DEPTH, MAX_LEVELS, Answer, Lookups, Mounts, recomputed
from meshgw.core.address import Addr, Bound
from meshgw.core.live import Constant, Live, Ok, Pending, State, constant, failed, live_flat_map, live_join, live_map
from meshgw.errors import NamerError
from meshgw.kinds import Transformer
from meshgw.naming.delegation import (
    DelegateAlt,
    DelegateEmpty,
    DelegateException,
    DelegateFail,
    DelegateLeaf,
    DelegateNeg,
    DelegateTo,
    DelegateTransformation,
    DelegateUnion,
    DelegateWeighted,
    Delegation,
)
from meshgw.naming.dtab import Dentry, Dtab
from meshgw.naming.path import ROOT, Path
from meshgw.naming.tree import Alt, Empty, Fail, Leaf, NameTree, Neg, Union

TOO_DEEP = "Max recursion level reached."


class _Waiting(Exception):
    """An answer that the whole tree needs is pending."""

    def __init__(self, state: Pending) -> None:
        self.state = state


def delegated(mounts: Mounts, transformers: Sequence[Transformer], dtab: Dtab, path: Path) -> Live[Delegation]:
    """The live delegation tree of ``path``; it is pending as long as any of the branches is."""

    def compute(lookups: Lookups) -> State[Delegation]:
        try:
            return Ok(_Explanation(dtab, transformers, lookups).lookup(path, None, 0))
        except _Waiting as waiting:
            return waiting.state

    return recomputed(mounts, compute)


class _Explanation:
    """One computation of a tree."""

    def __init__(self, dtab: Dtab, transformers: Sequence[Transformer], lookups: Lookups) -> None:
        self._dtab, self._transformers, self._lookups = dtab, transformers, lookups
        self._level = 0

    def lookup(self, path: Path, dentry: Dentry | None, depth: int) -> Delegation:
        """What ``path``, which ``dentry`` produced, leads to. Raises :class:`NamerError` at the limits."""
        if depth == MAX_DEPTH:
            raise NamerError(detail=TOO_DEEP)
        self._lookups.step(path, len(self._dtab))
        matches = self._dtab.matches(path)
        if not matches:
            return self._ask_namers(path, dentry, depth)
        if len(matches) == 1:
            return delegate_to(path, dentry, self._follow(path, matches[0], matches[0].rewrite(path), depth + 1))
        steps: list[Delegation] = []
        for match in matches:
            steps.append(self._branch(path, match, match.rewrite(path), depth + 1))
        return alternatives(path, dentry, steps)

    def _ask_namers(self, path: Path, dentry: Dentry | None, depth: int) -> Delegation:
        state = self._lookups.answer(path)
        if isinstance(state, Pending):
            raise _Waiting(state)
        if not isinstance(state, Ok):
            return DelegateException(path, dentry, str(state.error))
        answer: Answer = state.value
        if isinstance(answer, Leaf) and not isinstance(answer.value, Bound):  # a namer that rewrites is a step of its own
            return delegate_to(path, dentry, self.lookup(answer.value, dentry, depth + 1))
        if isinstance(answer, Neg) and state.error is not None:
            return DelegateNeg(path, dentry, str(state.error))
        return self._follow(path, dentry, answer, depth + 1, literal=False)

    def _follow(self, path: Path, dentry: Dentry | None, tree: Answer, depth: int, *, literal: bool = True) -> Delegation:
        """The steps behind ``tree``, which stands for ``path``: a dtab entry's destination, or (not ``literal``) a namer's answer."""
        if isinstance(tree, Leaf):
            if isinstance(tree.value, Bound):
                return self._transformed(path, dentry, tree.value)
            return self.lookup(tree.value, dentry, depth)
        if isinstance(tree, Empty):
            return DelegateEmpty(path, dentry)
        steps: list[Delegation] = []
        if isinstance(tree, Alt):
            for child in tree.trees:
                steps.append(self._branch(path, dentry, child, depth, literal=literal))
            return alternatives(path, dentry, steps)
        if isinstance(tree, Union):
            for branch in tree.branches:
                steps.append(self._branch(path, dentry, branch.tree, depth, literal=literal))
            weights = [branch.weight for branch in tree.branches]
            return union(path, dentry, [DelegateWeighted(*pair) for pair in zip(weights, steps, strict=True)])
        # A literal constant of an entry has no path of its own, which the root path expresses (dtab spec 6).
        where = ROOT if literal else path
        return DelegateFail(where, dentry) if isinstance(tree, Fail) else DelegateNeg(where, dentry)

    def _branch(self, path: Path, dentry: Dentry | None, tree: Answer, depth: int, *, literal: bool = True) -> Delegation:
        """A branch; when it fails it becomes a node and does not spoil its neighbours."""
        if self._level == MAX_LEVELS:
            return DelegateException(path, dentry, f"more than {MAX_LEVELS} alternatives and unions within one another")
        target = tree.value if isinstance(tree, Leaf) and not isinstance(tree.value, Bound) else None
        self._level += 1
        try:
            if target is not None:
                return self.lookup(target, dentry, depth)
            return self._follow(path, dentry, tree, depth, literal=literal)
        except NamerError as error:
            return DelegateException(path if target is None else target, dentry, str(error))
        finally:
            self._level -= 1

    def _transformed(self, path: Path, dentry: Dentry | None, bound: Bound) -> Delegation:
        """The leaf, with a node for each transformer that changes it."""
        tree: NameTree[Bound] = Leaf(bound)
        changes: list[tuple[str, Bound]] = []
        for index, transformer in enumerate(self._transformers):
            before = tree.value if isinstance(tree, Leaf) else bound
            state = self._lookups.hold(("transformer", index, before), partial(_transform, transformer, before))
            if isinstance(state, Pending):
                raise _Waiting(state)
            if not isinstance(state, Ok):
                return DelegateException(path, dentry, str(state.error))
            tree = state.value
            if not isinstance(tree, Leaf) or tree.value != before:
                changes.append((_transformer_name(transformer), before))
            if not isinstance(tree, Leaf):
                break
        node: Delegation
        if isinstance(tree, Leaf):
            node = DelegateLeaf(tree.value.id if changes else path, dentry, tree.value)
        else:
            node = DelegateEmpty(path, dentry) if isinstance(tree, Empty) else DelegateNeg(path, dentry)
        for name, before in reversed(changes):
            node = DelegateTransformation(path, dentry, name, before, node)
        return node


def _transformer_name(transformer: Transformer) -> str:
    """Its own name, which is the kind's id for those that have one, else the class's."""
    return str(getattr(transformer, "name", type(transformer).__name__))


def _transform(transformer: Transformer, bound: Bound) -> Live[NameTree[Bound]]:
    tree: NameTree[Bound] = Leaf(bound)
    try:
        return transformer.transform(constant(tree))
    except Exception as error:  # noqa: BLE001 - a transformer is plug-in code: its failure is the answer's failure
        return failed(error)


def delegate_to(path: Path, dentry: Dentry | None, tree: Delegation) -> Delegation:
    """A step, or what it leads to if that has the same path and is more than a plain no."""
    if tree.path == path and not isinstance(tree, (DelegateNeg, DelegateFail, DelegateEmpty)):
        return attrs.evolve(tree, dentry=dentry)
    return DelegateTo(path, dentry, tree)


def alternatives(path: Path, dentry: Dentry | None, trees: Sequence[Delegation]) -> Delegation:
    """A choice in order; alternatives of the same path are taken in, none is neg and one is no choice."""
    flat: list[Delegation] = []
    for tree in trees:
        flat.extend(tree.trees if isinstance(tree, DelegateAlt) and tree.path == path else (tree,))
    if not flat:
        return DelegateNeg(path, dentry)
    return DelegateAlt(path, dentry, tuple(flat)) if len(flat) > 1 else delegate_to(path, dentry, flat[0])


def union(path: Path, dentry: Dentry | None, branches: Sequence[DelegateWeighted]) -> Delegation:
    """A draw by weight; none is neg and one is no draw."""
    if not branches:
        return DelegateNeg(path, dentry)
    return DelegateUnion(path, dentry, tuple(branches)) if len(branches) > 1 else delegate_to(path, dentry, branches[0].tree)


def children(node: Delegation) -> tuple[Delegation, ...]:
    """The next steps of a node, in order."""
    if isinstance(node, (DelegateTo, DelegateTransformation)):
        return (node.tree,)
    if isinstance(node, DelegateAlt):
        return node.trees
    if isinstance(node, DelegateUnion):
        return tuple(branch.tree for branch in node.branches)
    return ()


def with_addresses(delegation: Live[Delegation]) -> Live[Delegation]:
    """The delegation once the addresses of its leaves are known too, each fixed as it was then; for one reading.

    Sources of addresses work only while they are observed, so reading the leaves of a bare delegation may show them pending.
    """
    return live_flat_map(delegation, _hold_addresses)


def _hold_addresses(root: Delegation) -> Live[Delegation]:
    lives: list[Live[Any]] = []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        waiting.extend(children(node))
        if isinstance(node, (DelegateLeaf, DelegateTransformation)) and isinstance(node.bound.addr, Live):
            lives.append(node.bound.addr)
    if not lives:
        return constant(root)

    def join(states: Sequence[State[Any]]) -> State[dict[int, State[Addr]]]:
        for state in states:
            if isinstance(state, Pending):
                return state if state.waiting_for else Pending("addresses")
        return Ok({id(live): state for live, state in zip(lives, states, strict=True)})

    return live_map(live_join(lives, join), lambda states: _with_fixed(root, states))


def _with_fixed(node: Delegation, states: dict[int, State[Addr]]) -> Delegation:
    if isinstance(node, DelegateTo):
        return attrs.evolve(node, tree=_with_fixed(node.tree, states))
    if isinstance(node, DelegateAlt):
        return attrs.evolve(node, trees=tuple([_with_fixed(tree, states) for tree in node.trees]))
    if isinstance(node, DelegateUnion):
        branches = [DelegateWeighted(branch.weight, _with_fixed(branch.tree, states)) for branch in node.branches]
        return attrs.evolve(node, branches=tuple(branches))
    if isinstance(node, (DelegateLeaf, DelegateTransformation)):
        state = states.get(id(node.bound.addr))
        if state is not None:
            node = attrs.evolve(node, bound=Bound(node.bound.id, Constant(state), node.bound.residual))
    if isinstance(node, DelegateTransformation):
        node = attrs.evolve(node, tree=_with_fixed(node.tree, states))
    return node
